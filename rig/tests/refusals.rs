//! What is wrong outside is said in words, with the right exit code, and nothing is lost by it.

use rustix::process::Signal;
use serde_json::Value;
use std::fs::{File, OpenOptions};
use std::net::TcpListener;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;
use twincell_rig::cell::{Cell, Shape, binary, signal, twincell_in, wait_until_gone};
use twincell_rig::loop_device::LoopDevice;
use twincell_rig::tool::{Ended, run};

const USAGE: i32 = 2;
const NOT_FOUND: i32 = 3;
const UNREACHABLE: i32 = 4;
const CONFLICT: i32 = 5;
const REFUSED: i32 = 6;

fn small() -> Shape {
    Shape {
        disks: 4,
        disk_size: "128M",
        cache: "4M",
    }
}

/// Starts a controller in the foreground; it must end by itself.
fn run_a(cell: &Cell) -> Ended {
    cell.twincell(&["controller", "run", "--name", "A"])
}

/// A cell with data in it, stopped.
fn with_data() -> (Cell, Value, Vec<u8>) {
    let cell = Cell::start(small());
    let lun = cell.lun("data", "16M", "vraid1");
    let data: Vec<u8> = (0..16u32 << 20)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    let file = cell.scratch().join("data");
    std::fs::write(&file, &data).unwrap();
    let limit = Duration::from_secs(60);
    run("nbdcopy", &[file.to_str().unwrap(), &cell.nbd_url(&lun, "A")], limit).success();
    cell.twincell(&["cell", "stop"]).success();
    (cell, lun, data)
}

/// Starts the cell and reads everything back, through both controllers.
#[track_caller]
fn nothing_is_lost(cell: &Cell, lun: &Value, data: &[u8]) {
    cell.bring_back();
    for controller in ["A", "B"] {
        let copy = cell.scratch().join("copy");
        let limit = Duration::from_secs(60);
        run(
            "nbdcopy",
            &[&cell.nbd_url(lun, controller), copy.to_str().unwrap()],
            limit,
        )
        .success();
        assert!(
            std::fs::read(&copy).unwrap() == data,
            "through {controller}: what was written is not what is read"
        );
    }
}

#[test]
fn a_disk_that_is_missing_short_or_another_is_named() {
    let (cell, lun, data) = with_data();
    let (first, aside) = (cell.dir().join("disks/0"), cell.dir().join("disks/aside"));
    let path = first.to_str().unwrap();
    let restore = || {
        std::fs::remove_file(&first).unwrap();
        std::fs::copy(&aside, &first).unwrap();
    };

    // Without one disk a controller starts (`operator.rs`); without a majority of those that vote it does not.
    let (second, second_aside) = (cell.dir().join("disks/1"), cell.dir().join("disks/second"));
    std::fs::rename(&first, &aside).unwrap();
    std::fs::rename(&second, &second_aside).unwrap();
    run_a(&cell).expect(NOT_FOUND, &[path, second.to_str().unwrap(), "missing"]);
    let started = cell.twincell(&["cell", "start"]);
    started.expect(UNREACHABLE, &["controller A", "controller B", path]);
    std::fs::rename(&second_aside, &second).unwrap();

    std::fs::copy(&aside, &first).unwrap();
    OpenOptions::new()
        .write(true)
        .open(&first)
        .unwrap()
        .set_len(32 << 20)
        .unwrap();
    run_a(&cell).expect(REFUSED, &[path]);
    restore();

    let stranger = Cell::create(small());
    std::fs::remove_file(&first).unwrap();
    std::fs::copy(stranger.dir().join("disks/0"), &first).unwrap();
    run_a(&cell).expect(CONFLICT, &[path, "another cell"]);
    restore();

    OpenOptions::new()
        .write(true)
        .open(&first)
        .unwrap()
        .write_all_at(&[0x5a; 1 << 20], 0)
        .unwrap();
    run_a(&cell).expect(REFUSED, &[path]);
    restore();

    nothing_is_lost(&cell, &lun, &data);
}

#[test]
fn disks_in_another_order_are_refused() {
    let (cell, lun, data) = with_data();
    cell.edit("\"disks/0\", \"disks/1\"", "\"disks/1\", \"disks/0\"");
    run_a(&cell).expect(CONFLICT, &["disk 1", "order"]);
    cell.edit("\"disks/1\", \"disks/0\"", "\"disks/0\", \"disks/1\"");
    nothing_is_lost(&cell, &lun, &data);
}

#[test]
fn nv_memory_must_fit_and_be_on_tmpfs() {
    let (cell, lun, data) = with_data();
    let text = std::fs::read_to_string(cell.file()).unwrap();
    let nv = |dir: &str| {
        let section = format!("[controller.A]\nnv_memory = {dir:?}");
        std::fs::write(cell.file(), text.replace("[controller.A]", &section)).unwrap();
    };
    let on_disk = cell.scratch().join("nv");
    nv(on_disk.to_str().unwrap());
    run_a(&cell).expect(REFUSED, &["tmpfs"]);

    let tmpfs = cell.scratch().join("tmpfs");
    std::fs::create_dir(&tmpfs).unwrap();
    let mounted = tmpfs.to_str().unwrap();
    nv(mounted);
    let limit = Duration::from_secs(90);
    // As it is mounted without a mode everybody may write there.
    for (options, words) in [("size=1m,mode=0700", "needs"), ("size=1m", "others may write")] {
        let script = format!(
            "mount -t tmpfs -o {options} none {mounted} && exec {} controller run --name A",
            binary().display()
        );
        let args = ["--mount", "--map-root-user", "env"];
        let dir = format!("TWINCELL_DIR={}", cell.dir().display());
        let ended = run("unshare", &[&args[..], &[&dir, "sh", "-c", &script]].concat(), limit);
        ended.expect(REFUSED, &[mounted, words]);
    }

    std::fs::write(cell.file(), text).unwrap();
    nothing_is_lost(&cell, &lun, &data);
}

/// Somebody else who may write where NV memory is to be could lead a controller to any file of the user who runs it.
#[test]
fn nv_memory_leads_to_no_file_of_others() {
    let cell = Cell::create(small());
    let tmpfs = tempfile::tempdir_in("/dev/shm").unwrap();
    let mode = |mode| std::fs::set_permissions(tmpfs.path(), PermissionsExt::from_mode(mode)).unwrap();
    cell.edit(
        "[controller.A]",
        &format!("[controller.A]\nnv_memory = {:?}", tmpfs.path().to_str().unwrap()),
    );
    let memory = tmpfs.path().join(cell.nv_memory("A").file_name().unwrap());
    let victim = tmpfs.path().join("victim");
    std::fs::write(&victim, "precious").unwrap();
    std::os::unix::fs::symlink(&victim, &memory).unwrap();
    let refused = |words: &str| {
        run_a(&cell).expect(REFUSED, &[tmpfs.path().to_str().unwrap(), words]);
        assert_eq!(std::fs::read_to_string(&victim).unwrap(), "precious");
    };

    mode(0o777);
    refused("others may write");
    mode(0o700);
    refused("a symbolic link");
    std::fs::remove_file(&memory).unwrap();
    std::fs::hard_link(&victim, &memory).unwrap();
    refused("something else in it");

    std::fs::remove_file(&memory).unwrap();
    cell.bring_back();
    assert!(memory.exists());
}

#[test]
fn unknown_keys_are_named() {
    let cell = Cell::create(small());
    cell.edit("format = 1", "format = 1\ncolour = \"blue\"");
    cell.twincell(&["status"]).expect(USAGE, &["colour", "cell.toml"]);
    run_a(&cell).expect(USAGE, &["colour"]);
}

/// Neither by a new cell, nor in the place of a disk.
#[test]
fn a_disk_that_is_in_use_or_not_blank_is_not_overwritten() {
    const BYTES: u64 = 128 << 20;
    let cell = Cell::start(small());
    cell.lun("data", "8M", "vraid1");
    cell.twincell(&["cell", "stop"]).success();
    let device = LoopDevice::new(cell.scratch(), BYTES);
    let path = device.path().to_str().unwrap();
    let blank = cell.scratch().join("blank");
    File::create(&blank).and_then(|f| f.set_len(BYTES)).unwrap();
    let new = cell.scratch().join("new");
    let create = |more: &[&str]| {
        let args = ["cell", "create", "--disk", blank.to_str().unwrap(), "--disk", path];
        twincell_in(&new, &[&args[..], more].concat())
    };
    let file = |at: &Path| at.join("mine");
    device.make_file_system();
    std::fs::write(file(device.mount()), "precious").unwrap();
    for more in [&[][..], &["--yes"]] {
        create(more).expect(REFUSED, &[path, "in use", "mounted", "lsblk"]);
    }

    std::fs::rename(cell.dir().join("disks/1"), cell.scratch().join("aside")).unwrap();
    cell.twincell(&["cell", "start"]).success();
    cell.wait_until("a disk that is missing", |s| s["cell"]["mirroring"] == "on");
    assert_eq!(cell.json(&["disk", "list"])["disks"][1]["state"], "missing");
    cell.twincell(&["disk", "replace", "1", path, "--yes"])
        .expect(REFUSED, &[path, "in use"]);

    device.unmount();
    create(&[]).expect(REFUSED, &[path, "ext4", "no terminal", "--yes"]);
    device.check_file_system();
    assert_eq!(std::fs::read_to_string(file(device.mount())).unwrap(), "precious");
    device.unmount();
    assert!(!new.exists());
    create(&["--yes"]).success();
    create(&[]).success();
}

/// Hosts are told the portals as they are named; at 0.0.0.0 each of them would find itself.
#[test]
fn a_portal_at_every_address_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let new = dir.path().join("cell");
    let args = [
        "cell",
        "create",
        "--iscsi-a",
        "0.0.0.0:3260",
        "--iscsi-b",
        "0.0.0.0:3260",
    ];
    twincell_in(&new, &args).expect(USAGE, &["0.0.0.0:3260", "every address of a machine", "name the one"]);
    assert!(!new.exists());

    let cell = Cell::create(small());
    let text = std::fs::read_to_string(cell.file()).unwrap();
    for (protocol, key) in [
        ("iscsi_portals", "controller.B.iscsi"),
        ("nbd_portals", "controller.B.nbd"),
    ] {
        let portal = cell.portal("B", protocol);
        let port = portal.rsplit(':').next().unwrap();
        cell.edit(&portal, &format!("[::]:{port}"));
        cell.twincell(&["cell", "start"])
            .expect(USAGE, &[key, "every address of a machine"]);
        std::fs::write(cell.file(), &text).unwrap();
    }
}

#[test]
fn a_port_in_use_is_named_and_the_other_controller_serves() {
    let cell = Cell::create(small());
    let taken = cell.portal("B", "nbd_portals");
    let listener = TcpListener::bind(&taken).unwrap();
    let started = cell.twincell(&["cell", "start"]);
    started.expect(UNREACHABLE, &["controller B", &taken]);
    assert!(!started.stderr.contains("controller A"), "{}", started.stderr);
    cell.wait_until("A alone", |s| {
        s["controllers"][0]["state"] == "serving" && s["controllers"][1]["pid"].is_null()
    });
    drop(listener);
    cell.bring_back();
}

#[test]
fn a_second_controller_of_the_same_name_is_refused() {
    let cell = Cell::start(small());
    let pid = cell.pid("A").unwrap();
    run_a(&cell).expect(CONFLICT, &["controller A", "running already", &pid.to_string()]);
    assert_eq!(cell.pid("A"), Some(pid));
    cell.twincell(&["cell", "start"]).success();
    assert_eq!(cell.pid("A"), Some(pid));
}

#[test]
fn luns_are_refused_with_reasons() {
    let cell = Cell::start(small());
    cell.twincell(&["lun", "create", "big", "--size", "1T"])
        .expect(REFUSED, &["LUN big", "2T", "can be had"]);
    cell.twincell(&["lun", "create", "odd", "--size", "1000"])
        .expect(USAGE, &["512"]);
    cell.twincell(&["lun", "create", "no/name", "--size", "8M"])
        .expect(USAGE, &["no/name"]);
    cell.twincell(&["lun", "create", "p", "--size", "8M", "--redundancy", "vraid5"])
        .expect(REFUSED, &["not built yet"]);
    cell.twincell(&["lun", "show", "none"]).expect(NOT_FOUND, &["LUN none"]);
    cell.lun("a", "8M", "vraid1");
    cell.twincell(&["lun", "create", "a", "--size", "8M"]).success();
    cell.twincell(&["lun", "create", "a", "--size", "16M"])
        .expect(CONFLICT, &["LUN a", "differs"]);
    cell.twincell(&["lun", "delete", "a"])
        .expect(REFUSED, &["terminal", "--yes"]);
    cell.twincell(&["lun", "delete", "b", "--yes"])
        .expect(NOT_FOUND, &["LUN b"]);
    let luns = cell.json(&["lun", "list"]);
    assert_eq!(luns["luns"].as_array().unwrap().len(), 1);
    cell.twincell(&["lun", "delete", "a", "--yes"]).success();
    assert_eq!(cell.json(&["lun", "list"])["luns"], Value::Array(vec![]));
}

#[test]
fn luns_grow_move_and_change_their_names() {
    let cell = Cell::start(small());
    cell.lun("a", "8M", "vraid1");
    assert_eq!(
        cell.json(&["lun", "grow", "a", "--size", "24M"])["lun"]["size_bytes"],
        24 << 20
    );
    cell.twincell(&["lun", "grow", "a", "--size", "8M"])
        .expect(REFUSED, &["shrink"]);
    let to = if cell.owner("a") == "A" { "B" } else { "A" };
    let moved = cell.json(&["lun", "move", "a", "--to", to]);
    assert_eq!(moved["lun"]["owner"], to);
    assert!(
        moved["lun"]["nbd_urls"][0]
            .as_str()
            .unwrap()
            .contains(&cell.portal(to, "nbd_portals"))
    );
    cell.twincell(&["lun", "rename", "a", "b"]).success();
    assert_eq!(cell.json(&["lun", "show", "b"])["lun"]["size_bytes"], 24 << 20);
    cell.twincell(&["lun", "show", "a"]).expect(NOT_FOUND, &["LUN a"]);
}

#[test]
fn the_surface_has_its_exit_codes() {
    let dir = tempfile::tempdir().unwrap();
    let nowhere = dir.path().join("nowhere");
    twincell_in(&nowhere, &["status"]).expect(NOT_FOUND, &["nowhere"]);
    twincell_in(&nowhere, &["lun", "dance"]).expect(USAGE, &["dance"]);
    twincell_in(&nowhere, &["pool", "list"]).expect(REFUSED, &["not built yet"]);
    let ended = twincell_in(&nowhere, &["lun", "list", "--json"]);
    let error: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(
        (ended.code, &error["code"], &error["schema"]),
        (Some(NOT_FOUND), &3.into(), &1.into())
    );

    let cell = Cell::create(small());
    let ended = cell.twincell(&["status", "--json"]);
    let status: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(
        (ended.code, status["cell"]["state"].as_str()),
        (Some(UNREACHABLE), Some("failed"))
    );
    assert_eq!(status["controllers"][1]["state"], "stopped");
    cell.twincell(&["cell", "stop"]).success();
}

#[test]
fn a_cell_lives_in_a_deep_directory() {
    let cell = Cell::create(small());
    let deep = cell.scratch().join("d".repeat(120)).join("e".repeat(120));
    std::fs::create_dir_all(&deep).unwrap();
    std::fs::rename(cell.dir(), deep.join("cell")).unwrap();
    std::os::unix::fs::symlink(deep.join("cell"), cell.dir()).unwrap();
    twincell_in(&deep.join("cell"), &["cell", "start"]).success();
    cell.wait_until_mirrored();
}

#[test]
fn ctrl_c_stops_a_controller_and_flushes() {
    let (cell, lun, data) = with_data();
    let mut foreground = Command::new(binary());
    foreground
        .args(["controller", "run", "--name", "A"])
        .env("TWINCELL_DIR", cell.dir());
    let mut child = foreground
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    cell.wait_until("A serving", |s| s["controllers"][0]["state"] == "serving");
    signal(child.id(), Signal::INT);
    wait_until_gone(child.id());
    assert_eq!(child.wait().unwrap().code(), Some(0));
    nothing_is_lost(&cell, &lun, &data);
}

#[test]
fn controllers_outlive_the_caller_and_its_process_group() {
    let cell = Cell::create(small());
    let script = format!("{} cell start >/dev/null 2>&1; kill -9 -- -$$", binary().display());
    let mut shell = Command::new("setsid");
    let started = shell
        .args(["--wait", "sh", "-c", &script])
        .env("TWINCELL_DIR", cell.dir())
        .status()
        .unwrap();
    assert!(!started.success(), "the shell has killed itself and its group");
    cell.wait_until_mirrored();
}

#[test]
fn stopping_one_moves_its_luns_and_the_other_serves() {
    let cell = Cell::start(small());
    let lun = cell.lun("a", "8M", "vraid1");
    let owner = cell.owner("a");
    cell.twincell(&["controller", "stop", &owner]).success();
    let other = if owner == "A" { "B" } else { "A" };
    let status = cell.wait_until("the other alone", |s| {
        s["cell"]["state"] == "degraded" && s["luns"][0]["owner"] == other
    });
    assert_eq!(status["cell"]["survives"]["controllers"], 0);
    run("nbdinfo", &[&cell.nbd_url(&lun, other)], Duration::from_secs(20)).success();
    cell.bring_back();
}

/// A memory that is there and cannot be mapped now, for a limit of the process, is not thrown away: it may have what the disks
/// lack.
#[test]
fn a_memory_that_cannot_be_mapped_stays() {
    let cell = Cell::start(Shape {
        cache: "256M",
        ..small()
    });
    let memory = ["A", "B"].map(|c| cell.nv_memory(c));
    for controller in ["B", "A"] {
        cell.kill(controller);
    }
    assert!(memory.iter().all(|m| m.exists()));
    let script = format!(
        "ulimit -v 200000 && exec {} controller run --name A",
        binary().display()
    );
    let dir = format!("TWINCELL_DIR={}", cell.dir().display());
    let ended = run("env", &[&dir, "bash", "-c", &script], Duration::from_secs(30));
    ended.expect(REFUSED, &["needs"]);
    assert!(memory.iter().all(|m| m.exists()), "the memory of A is gone");
}

/// A log that takes nothing, as when its file system is full, is no reason for a controller to end.
#[test]
fn a_log_that_is_full_ends_no_controller() {
    let cell = Cell::create(small());
    for controller in ["A", "B"] {
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let mut command = Command::new("setsid");
        command
            .arg("--fork")
            .arg(binary())
            .args(["controller", "run", "--name", controller])
            .env("TWINCELL_DIR", cell.dir());
        let started = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(full).status();
        assert!(started.unwrap().success());
    }
    cell.wait_until_mirrored();
}
