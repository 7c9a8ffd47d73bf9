//! The iSCSI initiator against another target: `tgtd`, which must be installed (`apt install tgt`).

mod support;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use support::{Daemon, free_port, run, wait_for};
use twincell_client::bench::{self, Load, Operation, Pattern};
use twincell_client::checker::{Checker, Options, Regions};
use twincell_client::device::{Device, Request, execute};
use twincell_client::iscsi::scsi::Sense;
use twincell_client::iscsi::{self, Connection, Disk, SessionKind};
use twincell_client::multipath::Timing;
use twincell_client::{Error, Refusal};

const TARGET: &str = "iqn.2026-11.io.twincell:test";
const TIMEOUT: Duration = Duration::from_secs(5);
const BYTES: u64 = 64 << 20;

struct Tgtd {
    _daemon: Daemon,
    _directory: tempfile::TempDir,
    address: String,
}

impl Tgtd {
    /// A target with LUN 1 of 64 MiB; LUN 0 is a controller.
    fn start() -> Tgtd {
        let directory = tempfile::tempdir().unwrap();
        let image = directory.path().join("image");
        std::fs::File::create(&image).unwrap().set_len(BYTES).unwrap();
        let port = free_port();
        let control = free_control_port();
        let portal = format!("portal=127.0.0.1:{port}");
        let daemon = Daemon::start("tgtd", &["-f", "-C", &control, "--iscsi", &portal]);
        let admin = |args: &[&str]| {
            let output = std::process::Command::new("tgtadm")
                .args(["-C", &control, "--lld", "iscsi"])
                .args(args)
                .output();
            output
                .unwrap_or_else(|e| panic!("tgtadm must be installed for this test: {e}"))
                .status
                .success()
        };
        let new_target = ["--op", "new", "--mode", "target", "--tid", "1", "-T", TARGET];
        wait_for("tgtd to make a target", || admin(&new_target).then_some(()));
        let image = image.to_str().unwrap();
        assert!(admin(&[
            "--op",
            "new",
            "--mode",
            "logicalunit",
            "--tid",
            "1",
            "--lun",
            "1",
            "-b",
            image
        ]));
        assert!(admin(&["--op", "bind", "--mode", "target", "--tid", "1", "-I", "ALL"]));
        Tgtd {
            _daemon: daemon,
            _directory: directory,
            address: format!("127.0.0.1:{port}"),
        }
    }

    fn disk(&self) -> Disk {
        Disk::connect(&self.address, TARGET, 1, TIMEOUT).unwrap()
    }
}

/// tgtd's control port is a number that names a socket in the file system.
fn free_control_port() -> String {
    let taken = |n: &u32| Path::new(&format!("/var/run/tgtd/socket.{n}")).exists();
    let first = 1000 + std::process::id() % 20000;
    let free = (first..).find(|n| !taken(n)).unwrap();
    free.to_string()
}

/// One after the other: tgtd's control sockets are global.
#[test]
fn the_initiator_with_tgtd() {
    run("tgtd", &["--version"]);
    let tgtd = Tgtd::start();
    discovery(&tgtd);
    inquiring(&tgtd);
    refusals(&tgtd);
    data(&tgtd);
    load(&tgtd);
    checker(&tgtd);
}

fn discovery(tgtd: &Tgtd) {
    let targets = iscsi::discover(&tgtd.address, TIMEOUT).unwrap();
    assert_eq!(targets.len(), 1);
    assert_eq!(targets[0].name, TARGET);
    assert!(targets[0].portals.contains(&(tgtd.address.clone(), 1)), "{targets:?}");
    let wrong = Connection::login(&tgtd.address, SessionKind::Normal { target: "iqn.x:no" }, TIMEOUT);
    assert!(matches!(wrong, Err(Error::Connection(text)) if text.contains("login refused")));
}

fn inquiring(tgtd: &Tgtd) {
    let mut connection = Connection::login(&tgtd.address, SessionKind::Normal { target: TARGET }, TIMEOUT).unwrap();
    connection.test_unit_ready(1).unwrap();
    assert_eq!(connection.report_luns().unwrap(), [0, 1]);
    let inquiry = connection.inquiry(1).unwrap();
    assert_eq!((inquiry.peripheral, inquiry.vendor.as_str()), (0, "IET"));
    let capacity = connection.read_capacity(1).unwrap();
    assert_eq!((capacity.blocks, capacity.block_bytes), (BYTES / 512, 512));
    let page = connection.vital_product_data(1, 0x83).unwrap();
    assert_eq!(page[1], 0x83);
    connection.logout().unwrap();
}

fn refusals(tgtd: &Tgtd) {
    let mut disk = tgtd.disk();
    let beyond = execute(
        &mut disk,
        Request::Read {
            start: BYTES / 512,
            blocks: 1,
        },
    );
    assert_eq!(beyond, Err(Error::Refused(Refusal::Sense(Sense::OutOfRange))));
    let no_such_lun = disk.connection().read_capacity(9);
    assert_eq!(no_such_lun, Err(Error::Refused(Refusal::Sense(Sense::NoSuchLun))));
    assert!(execute(&mut disk, Request::Read { start: 0, blocks: 1 }).is_ok());
}

/// Around the sizes where immediate data end, R2T begins, and data segments are full.
fn data(tgtd: &Tgtd) {
    let mut disk = tgtd.disk();
    for blocks in [1, 15, 16, 17, 127, 128, 129, 511, 512, 513, 4096] {
        let data: Arc<Vec<u8>> = Arc::new((0..blocks as usize * 512).map(|i| (i / 3 + i / 512) as u8).collect());
        for fua in [false, true] {
            let write = Request::Write {
                start: 5,
                data: Arc::clone(&data),
                fua,
            };
            execute(&mut disk, write).unwrap();
            let read = execute(&mut disk, Request::Read { start: 5, blocks }).unwrap();
            assert!(read == *data, "{blocks} blocks, FUA {fua}");
        }
    }
    execute(&mut disk, Request::Flush).unwrap();
    Box::new(disk).close(TIMEOUT);
}

fn load(tgtd: &Tgtd) {
    let mut disk = tgtd.disk();
    for (operation, blocks, depth) in [
        (Operation::Write, 8, 200),
        (Operation::Read, 8, 200),
        (Operation::Write, 1024, 8),
    ] {
        let load = Load {
            operation,
            pattern: Pattern::Random,
            blocks,
            depth,
            duration: Duration::from_millis(200),
            span: u64::MAX,
        };
        let figures = bench::run(&mut disk, &load).unwrap();
        assert!(figures.requests >= depth as u64, "{figures}");
    }
}

/// Nothing is read while it is written: a file behind a page cache may show half of a block then.
fn checker(tgtd: &Tgtd) {
    let url = format!("iscsi://{}/{TARGET}/1", tgtd.address).parse().unwrap();
    let mut checker = Checker::start(Options {
        urls: vec![url],
        writers: 4,
        readers: 0,
        regions: Regions::Own,
        region: 0..BYTES / 512,
        seed: 1,
        history: None,
        timing: Timing::default(),
    })
    .unwrap();
    wait_for("500 writes", || {
        (!checker.is_running() || checker.report().writes >= 500).then_some(())
    });
    let report = checker.stop();
    assert!(report.is_sound() && report.writes >= 500, "{report}");
}
