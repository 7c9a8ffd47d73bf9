//! Commands that are given twice at the same time, and one that is interrupted.

use rustix::process::Signal;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;
use twincell_rig::cell::{Cell, Shape, addresses_on, binary, signal, twincell_in};
use twincell_rig::ports::Ports;
use twincell_rig::wait_for;

/// More than any of these takes.
const LIMIT: Duration = Duration::from_secs(60);
const CLAIM: &str = ".cell.toml.new";

/// A command on the cell in `dir`, in the background.
fn begin(dir: &Path, args: &[&str]) -> Child {
    let mut command = Command::new(binary());
    let command = command.args(args).env("TWINCELL_DIR", dir).stdin(Stdio::null());
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    child.expect("twincell starts")
}

/// How it ended; it must end by itself.
fn end(mut child: Child) -> Output {
    let ended = wait_for("the end of a command", LIMIT, || {
        let ended = child.try_wait().expect("a child");
        ended.ok_or_else(|| {
            let running = std::fs::read_to_string(format!("/proc/{}/stat", child.id()));
            running.unwrap_or_else(|e| e.to_string())
        })
    });
    let output = child.wait_with_output().expect("a child");
    assert_eq!(output.status, ended);
    output
}

#[track_caller]
fn all_succeed(children: Vec<Child>, told: impl Fn() -> String) {
    let ended: Vec<Output> = children.into_iter().map(end).collect();
    assert!(ended.iter().all(|e| e.status.success()), "{ended:?}\n{}", told());
}

/// The options of a cell of 16 small disks on these ports.
fn create_args(ports: &Ports) -> Vec<String> {
    let mut args: Vec<String> = ["cell", "create", "--disks", "16", "--disk-size", "64M"]
        .map(str::to_owned)
        .into();
    for (option, address) in addresses_on(ports) {
        args.extend([option.to_owned(), address]);
    }
    args
}

/// Nobody removes what another has made: there is one cell in the end, and it is whole.
#[test]
fn a_cell_that_many_make_at_once_is_there() {
    let ports = Ports::reserve();
    let args = create_args(&ports);
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    for _ in 0..10 {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("cell");
        let told = || format!("{:?}", std::fs::read_dir(&dir).map(|d| d.flatten().collect::<Vec<_>>()));
        all_succeed((0..4).map(|_| begin(&dir, &args)).collect(), told);
        assert!(
            dir.join("cell.toml").exists() && !dir.join(CLAIM).exists(),
            "{}",
            told()
        );
        assert_eq!(std::fs::read_dir(dir.join("disks")).unwrap().count(), 16);
        assert!(dir.join("A").is_dir() && dir.join("B").is_dir(), "{}", told());
    }
}

/// What is left of it goes when the next one makes the cell.
#[test]
fn a_create_that_is_interrupted_is_done_again() {
    let ports = Ports::reserve();
    let args = create_args(&ports);
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("cell");
    let mut first = begin(&dir, &args);
    wait_for("the first disk", LIMIT, || {
        let is_there = dir.join("disks/00").exists();
        is_there.then_some(()).ok_or_else(|| format!("{:?}", first.try_wait()))
    });
    signal(first.id(), Signal::INT);
    end(first);
    // Where the disks were made faster than that it is made once more as if they had not been.
    let _ = std::fs::rename(dir.join("cell.toml"), dir.join(CLAIM));
    assert!(dir.join("disks/00").exists());
    twincell_in(&dir, &args).success();
    assert!(dir.join("cell.toml").exists() && !dir.join(CLAIM).exists());
    twincell_in(&dir, &args).success();
}

/// Each of them ends well, though each controller is started by one of them only.
#[test]
fn a_cell_that_is_started_twice_at_once_serves() {
    let cell = Cell::create(Shape {
        disks: 4,
        disk_size: "64M",
        cache: "4M",
    });
    for _ in 0..3 {
        let starts = (0..3).map(|_| begin(&cell.dir(), &["cell", "start"])).collect();
        all_succeed(starts, || cell.logs());
        cell.wait_until_mirrored();
        cell.twincell(&["cell", "stop"]).success();
    }
}
