//! The tools that the tests need, and where they come from.

use crate::run::{Failed, cargo, has_program, headline, output, step, succeeds};
use std::process::Command;

/// What a user who is not root mounts with.
const FUSERMOUNT: &str = "fusermount3";
/// Programs of Debian, and the packages that have them.
const PROGRAMS: [(&str, &str); 13] = [
    ("iscsi-test-cu", "libiscsi-bin"),
    ("fio", "fio"),
    ("nbdcopy", "libnbd-bin"),
    ("nbdkit", "nbdkit"),
    ("tgtd", "tgt"),
    ("mkfs.ext4", "e2fsprogs"),
    ("losetup", "mount"),
    ("setpriv", "util-linux"),
    ("prlimit", "util-linux"),
    ("nsenter", "util-linux"),
    ("ip", "iproute2"),
    ("cmp", "diffutils"),
    (FUSERMOUNT, "fuse3"),
];
/// Subcommands of cargo, and the crates that have them.
const CARGO: [(&str, &str); 2] = [("nextest", "cargo-nextest"), ("deny", "cargo-deny")];
/// The two packages that make a qemu-img that speaks iSCSI. They must be of one version.
const QEMU: [&str; 2] = ["qemu-utils", "qemu-block-extra"];

/// Installs what is missing, after saying what that is; with `refuse`, a missing tool is a failure.
pub fn ensure(refuse: bool) -> Result<(), Failed> {
    let mut packages: Vec<&str> = PROGRAMS
        .iter()
        .filter(|(p, _)| !(has_program(p) || *p == FUSERMOUNT && is_root()))
        .map(|(_, package)| *package)
        .collect();
    packages.dedup();
    let qemu = !qemu_img_speaks_iscsi();
    let crates: Vec<&str> = CARGO
        .iter()
        .filter(|(c, _)| !succeeds(&mut cargo([c, "--version"])))
        .map(|(_, c)| *c)
        .collect();
    if packages.is_empty() && !qemu && crates.is_empty() {
        return Ok(());
    }
    headline("Tools that are missing");
    let all: Vec<&str> = packages
        .iter()
        .copied()
        .chain(QEMU.into_iter().filter(|_| qemu))
        .collect();
    println!("Debian packages: {}", list(&all));
    println!("Cargo packages:  {}", list(&crates));
    if refuse {
        return Err(Failed(
            "tools are missing, and --no-install forbids to install them".to_owned(),
        ));
    }
    if !all.is_empty() {
        step(&mut apt(&["update", "-qq"]))?;
    }
    if !packages.is_empty() {
        step(apt(&["install", "-y", "-qq", "--no-install-recommends"]).args(&packages))?;
    }
    if qemu {
        install_qemu()?;
    }
    for name in crates {
        step(&mut cargo(["install", "--locked", name]))?;
    }
    Ok(())
}

fn list(names: &[&str]) -> String {
    if names.is_empty() {
        "none".to_owned()
    } else {
        names.join(" ")
    }
}

fn is_root() -> bool {
    output(Command::new("id").arg("-u")).is_ok_and(|id| id.trim() == "0")
}

/// `apt-get` as root, or through sudo.
fn apt(args: &[&str]) -> Command {
    let root = is_root();
    let mut command = Command::new(if root { "apt-get" } else { "sudo" });
    if !root {
        command.args(["DEBIAN_FRONTEND=noninteractive", "apt-get"]);
    }
    command.env("DEBIAN_FRONTEND", "noninteractive").args(args);
    command
}

/// Whether this qemu-img has its iSCSI driver: it then fails to connect, instead of not knowing the protocol.
fn qemu_img_speaks_iscsi() -> bool {
    // Port 1 refuses at once.
    let tried = Command::new("qemu-img")
        .args(["info", "iscsi://127.0.0.1:1/iqn.2026-11.io.twincell:none/0"])
        .output();
    tried.is_ok_and(|o| {
        let said = String::from_utf8_lossy(&o.stderr).into_owned();
        !said.contains("Unknown protocol") && said.contains("onnect")
    })
}

/// Both packages in the version that the driver has; a newer qemu-img without a driver of its own goes back to it.
fn install_qemu() -> Result<(), Failed> {
    let policy = output(Command::new("apt-cache").args(["policy", QEMU[1]]))?;
    let version = policy
        .lines()
        .find_map(|l| l.trim().strip_prefix("Candidate:"))
        .map(str::trim);
    let version = version
        .filter(|v| *v != "(none)")
        .ok_or_else(|| Failed(format!("apt knows no {}", QEMU[1])))?;
    let mut command = apt(&["install", "-y", "-qq", "--no-install-recommends", "--allow-downgrades"]);
    step(command.args(QEMU.map(|package| format!("{package}={version}"))))?;
    if qemu_img_speaks_iscsi() {
        return Ok(());
    }
    Err(Failed("qemu-img still does not speak iSCSI".to_owned()))
}
