//! `tgt`, an iSCSI target without a mirror, to compare with.

use crate::ports::Ports;
use crate::tool::run;
use crate::wait_for;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const TARGET: &str = "iqn.2026-11.io.twincell.rig:tgt";
const LIMIT: Duration = Duration::from_secs(10);

/// A running `tgtd` with one LUN on a file.
#[derive(Debug)]
pub struct Tgt {
    daemon: Child,
    ports: Ports,
}

impl Tgt {
    /// Starts it, with a LUN of `size_mib` MiB on a file in `dir`.
    pub fn start(dir: &Path, size_mib: u64) -> Tgt {
        let ports = Ports::reserve();
        let file = dir.join("tgt.img");
        let made = std::fs::File::create(&file).and_then(|f| f.set_len(size_mib << 20));
        made.expect("a file for tgt");
        let control = ports.get(1).to_string();
        let mut command = Command::new("tgtd");
        command.args([
            "-f",
            "-C",
            &control,
            "--iscsi",
            &format!("portal=127.0.0.1:{}", ports.get(0)),
        ]);
        let daemon = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("tgtd");
        let tgt = Tgt { daemon, ports };
        wait_for("tgtd", LIMIT, || {
            let ended = run(
                "tgtadm",
                &["-C", &control, "--lld", "iscsi", "--op", "show", "--mode", "target"],
                LIMIT,
            );
            if ended.code == Some(0) {
                Ok(())
            } else {
                Err(ended.stderr)
            }
        });
        let file = file.to_str().expect("a path in UTF-8");
        let target = ["--op", "new", "--mode", "target", "--tid", "1", "-T", TARGET];
        let lun = [
            "--op",
            "new",
            "--mode",
            "logicalunit",
            "--tid",
            "1",
            "--lun",
            "1",
            "-b",
            file,
        ];
        let bind = ["--op", "bind", "--mode", "target", "--tid", "1", "-I", "ALL"];
        for step in [&target[..], &lun, &bind] {
            run("tgtadm", &[&["-C", &control, "--lld", "iscsi"], step].concat(), LIMIT).success();
        }
        tgt
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.daemon.id()
    }

    /// The address of its LUN.
    pub fn url(&self) -> String {
        format!("iscsi://127.0.0.1:{}/{TARGET}/1", self.ports.get(0))
    }
}

impl Drop for Tgt {
    fn drop(&mut self) {
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}
