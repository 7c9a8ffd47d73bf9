//! Disks whose descriptors are dead: the device comes back at its path, as another one.

use serde_json::Value;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::Duration;
use tempfile::TempDir;
use twincell_client::Url;
use twincell_client::checker::{Checker, Options, Regions};
use twincell_client::multipath::Timing;
use twincell_rig::cell::{Cell, Pool, SETTLE, addresses_on};
use twincell_rig::poll_for;
use twincell_rig::ports::Ports;
use twincell_rig::shelf::{Shelf, Trouble};

const DISKS: usize = 4;
const DISK_BYTES: u64 = 192 << 20;
const REGION: u64 = (32 << 20) / 512;

/// A cell whose disks are symbolic links to those of a shelf: what they name can be exchanged for what is below the shelf,
/// which is the same medium through another device.
struct Bed {
    cell: Cell,
    shelf: Shelf,
    paths: Vec<PathBuf>,
    below: PathBuf,
    _dir: TempDir,
}

impl Bed {
    fn new() -> Bed {
        let dir = tempfile::tempdir().expect("a directory");
        let shelf = Shelf::mount(dir.path(), DISKS, DISK_BYTES).expect("disks");
        let below = shelf.paths()[0].parent().unwrap().parent().unwrap().join("below");
        let links = dir.path().join("links");
        fs::create_dir(&links).unwrap();
        let paths: Vec<PathBuf> = (0..DISKS).map(|n| links.join(n.to_string())).collect();
        for (path, disk) in paths.iter().zip(shelf.paths()) {
            symlink(disk, path).unwrap();
        }
        let ports = Ports::reserve();
        let addresses = addresses_on(&ports);
        let root = tempfile::tempdir_in(dir.path()).expect("a directory");
        let cell = Cell::create_in(root, ports, &Pool::Given(paths.clone()), "16M", &addresses).expect("a cell");
        cell.twincell(&["cell", "start"]).success();
        cell.wait_until_mirrored();
        Bed {
            cell,
            shelf,
            paths,
            below,
            _dir: dir,
        }
    }

    /// From now on the descriptors that are open are dead, and nothing is at the path.
    fn pull(&self, n: usize) {
        self.shelf.tell(n, Trouble::Errors);
        fs::remove_file(&self.paths[n]).unwrap();
    }

    /// The medium is there again, as another device.
    fn plug(&self, n: usize) {
        symlink(self.below.join(n.to_string()), &self.paths[n]).unwrap();
    }

    fn load(&self, lun: &Value) -> (Checker, Vec<Url>) {
        let url = |c| [self.cell.iscsi_url(lun, c), self.cell.nbd_url(lun, c)];
        let urls = [url("A"), url("B")].concat();
        let urls: Vec<Url> = urls.iter().map(|u| u.parse().expect("an address")).collect();
        let checker = Checker::start(Options {
            urls: urls.clone(),
            writers: 2,
            readers: 1,
            regions: Regions::Shared,
            region: 0..REGION,
            seed: 7,
            history: None,
            timing: Timing::default(),
        });
        (checker.expect("the load"), urls)
    }

    fn until_all_work(&self) {
        let seen = poll_for("all disks in order", SETTLE, || {
            let listed = self.cell.twincell(&["disk", "list", "--json"]);
            let listed: Value = serde_json::from_str(&listed.stdout).unwrap_or(Value::Null);
            let disks = listed["disks"].as_array().cloned().unwrap_or_default();
            let good = disks.len() == DISKS && disks.iter().all(|d| d["state"] == "normal" && d["works"] == true);
            good.then_some(()).ok_or(listed.to_string())
        });
        seen.unwrap_or_else(|e| panic!("{e}\n{}", self.cell.logs()));
        self.cell.wait_until_mirrored();
    }

    /// Descriptors and threads of both controllers.
    fn handles(&self) -> Vec<[usize; 2]> {
        let count = |pid: u32, what: &str| fs::read_dir(format!("/proc/{pid}/{what}")).unwrap().count();
        ["A", "B"]
            .map(|c| self.cell.pid(c).unwrap())
            .map(|p| [count(p, "fd"), count(p, "task")])
            .into()
    }

    /// Milliseconds of CPU that both have used.
    fn cpu_ms(&self) -> Vec<u64> {
        let of = |pid: u32| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
            let fields: Vec<u64> = stat
                .rsplit(") ")
                .next()
                .unwrap()
                .split(' ')
                .filter_map(|f| f.parse().ok())
                .collect();
            // The state, which is no number, is left out: utime and stime are fields 14 and 15 of the line.
            (fields[10] + fields[11]) * 10
        };
        ["A", "B"].map(|c| of(self.cell.pid(c).unwrap())).into()
    }
}

/// One disk, as a check of the bed.
#[test]
fn one_disk_comes_back_as_another_device() {
    let bed = Bed::new();
    let lun = bed.cell.lun("data", "32M", "vraid1");
    let (mut checker, urls) = bed.load(&lun);
    sleep(Duration::from_secs(1));
    bed.pull(1);
    sleep(Duration::from_secs(4));
    bed.plug(1);
    bed.until_all_work();
    let load = checker.stop();
    assert!(load.is_sound() && load.writes > 0, "{load}");
    bed.cell
        .wait_until("everything on the disks", |s| s["cell"]["dirty_buffers"] == 0);
    bed.shelf.tell(0, Trouble::Errors);
    for url in &urls {
        let report = checker.verify_all(url).expect("all is read");
        assert!(report.is_sound(), "{report}");
    }
}

/// All disks fail for four seconds, under load. Then everything that is in NV memory goes to them, and all is read.
fn all_disks_fail(fail: impl Fn(&Bed, usize), mend: impl Fn(&Bed, usize)) {
    let bed = Bed::new();
    let lun = bed.cell.lun("data", "32M", "vraid1");
    let (mut checker, urls) = bed.load(&lun);
    sleep(Duration::from_secs(1));
    (0..DISKS).for_each(|n| fail(&bed, n));
    sleep(Duration::from_secs(4));
    (0..DISKS).for_each(|n| mend(&bed, n));
    // Hosts may have heard of errors meanwhile.
    let load = checker.stop();
    println!("{load}");
    bed.cell
        .wait_until("everything on the disks", |s| s["cell"]["dirty_buffers"] == 0);
    // One of them may be fenced by the other, at any moment: somebody starts it again, as a service manager does.
    let started = poll_for("both in", SETTLE, || {
        let started = bed.cell.twincell(&["cell", "start"]);
        let status = bed.cell.status();
        (status["cell"]["mirroring"] == "on")
            .then_some(())
            .ok_or(started.stderr)
    });
    started.unwrap_or_else(|e| panic!("{e}\n{}", bed.cell.logs()));
    bed.until_all_work();
    for url in &urls {
        let report = checker.verify_all(url).expect("all is read");
        assert_eq!(report.violations, 0, "{report}");
    }
}

/// The link to the shelf breaks for a moment, which is one fault. The devices stay.
#[test]
fn all_disks_fail_and_work_again() {
    all_disks_fail(
        |bed, n| bed.shelf.tell(n, Trouble::Errors),
        |bed, n| bed.shelf.tell(n, Trouble::None),
    );
}

/// The same, and all disks come back as other devices.
#[test]
fn all_disks_come_back_as_other_devices() {
    all_disks_fail(Bed::pull, Bed::plug);
}

/// The same with the disks of two votes of three: no majority is left that could say that one of them is missing.
#[test]
fn most_disks_come_back_as_other_devices() {
    all_disks_fail(
        |bed, n| {
            if n < 2 {
                bed.pull(n)
            }
        },
        |bed, n| {
            if n < 2 {
                bed.plug(n)
            }
        },
    );
}

/// A LUN without redundancy works again as soon as its disk answers (docs/decisions/0010).
#[test]
fn a_disk_with_single_copies_comes_back_as_another_device() {
    let bed = Bed::new();
    let lun = bed.cell.lun("data", "32M", "none");
    let (mut checker, _) = bed.load(&lun);
    sleep(Duration::from_secs(1));
    for n in 0..DISKS {
        bed.pull(n);
        sleep(Duration::from_secs(3));
        bed.plug(n);
        bed.until_all_work();
    }
    let load = checker.stop();
    assert!(load.writes > 0, "{load}");
}

/// An absent disk, then one of another cell in its place, cost neither time nor descriptors.
#[test]
fn what_is_at_the_path_of_a_missing_disk_costs_nothing() {
    let bed = Bed::new();
    let lun = bed.cell.lun("data", "32M", "vraid1");
    bed.pull(1);
    {
        let (mut checker, _) = bed.load(&lun);
        sleep(Duration::from_secs(5));
        checker.stop();
    }
    let other = bed.cell.scratch().join("other");
    fs::create_dir(&other).unwrap();
    let fifo = bed.cell.scratch().join("fifo");
    assert!(
        std::process::Command::new("mkfifo")
            .arg(&fifo)
            .status()
            .unwrap()
            .success()
    );
    // What is there, and how long.
    let things: [(&str, Option<PathBuf>); 4] = [
        ("nothing", None),
        ("a directory", Some(other)),
        ("a fifo", Some(fifo)),
        ("another disk of the cell", Some(bed.below.join("2"))),
    ];
    for (what, thing) in things {
        let _ = fs::remove_file(&bed.paths[1]);
        if let Some(thing) = thing {
            symlink(thing, &bed.paths[1]).unwrap();
        }
        sleep(Duration::from_secs(2));
        let (before, cpu) = (bed.handles(), bed.cpu_ms());
        sleep(Duration::from_secs(3));
        let (after, cpu_after) = (bed.handles(), bed.cpu_ms());
        println!("{what}: handles {before:?} -> {after:?}, cpu ms {cpu:?} -> {cpu_after:?} in 3 s");
        for (b, a) in before.iter().zip(&after) {
            assert!(a[0] <= b[0] + 1 && a[1] <= b[1] + 1, "{what}: {before:?} -> {after:?}");
        }
        for (b, a) in cpu.iter().zip(&cpu_after) {
            assert!(a - b < 300, "{what}: {cpu:?} -> {cpu_after:?}");
        }
    }
    let _ = fs::remove_file(&bed.paths[1]);
    bed.plug(1);
    bed.until_all_work();
}

/// Somebody holds the lock bytes on a disk that comes late, so no controller uses it: nobody may say that it works.
#[test]
fn a_disk_whose_locks_cannot_be_had_does_not_work() {
    let cell = Cell::start(twincell_rig::cell::Shape::default());
    cell.twincell(&["cell", "stop"]).success();
    let (disk, aside) = (cell.dir().join("disks/1"), cell.scratch().join("aside"));
    fs::rename(&disk, &aside).unwrap();
    cell.twincell(&["cell", "start"]).success();
    cell.wait_until("mirroring", |s| s["cell"]["mirroring"] == "on");
    let held = fs::File::options().read(true).write(true).open(&aside).unwrap();
    rustix::fs::fcntl_lock(&held, rustix::fs::FlockOperation::NonBlockingLockExclusive).unwrap();
    fs::rename(&aside, &disk).unwrap();
    sleep(Duration::from_secs(4));
    let listed = cell.json(&["disk", "list"]);
    assert_eq!(listed["disks"][1]["works"], false, "{listed}");
}

/// A rescan that the controllers refuse does not say that it was done.
#[test]
fn a_rescan_with_another_number_of_disks_is_refused() {
    let cell = Cell::start(twincell_rig::cell::Shape::default());
    let text = fs::read_to_string(cell.file()).unwrap();
    let disk = text
        .find("\"disks/1\"")
        .map(|at| (at, "\"disks/1\"".len()))
        .expect(&text);
    let rest = text[disk.0 + disk.1..].trim_start_matches([',', ' ']);
    fs::write(cell.file(), format!("{}{rest}", &text[..disk.0])).unwrap();
    let ended = cell.twincell(&["disk", "rescan"]);
    assert_ne!(ended.code, Some(0), "{}", ended.stdout);
}

/// One disk of the pair after the other goes and comes back, as another device or as the same, and controllers end meanwhile.
#[test]
fn disks_of_a_pair_flap_while_controllers_end() {
    let bed = Bed::new();
    let lun = bed.cell.lun("data", "32M", "vraid1");
    let (mut checker, urls) = bed.load(&lun);
    for round in 0..4 {
        let n = round % 2;
        sleep(Duration::from_millis(300));
        bed.pull(n);
        sleep(Duration::from_millis(2500));
        if round / 2 % 2 == 0 {
            bed.plug(n);
        } else {
            bed.shelf.tell(n, Trouble::None);
            symlink(&bed.shelf.paths()[n], &bed.paths[n]).unwrap();
        }
        sleep(Duration::from_millis(400 * round as u64));
        bed.cell.kill(["A", "B"][round / 2 % 2]);
        sleep(Duration::from_millis(700));
        bed.cell.twincell(&["cell", "start"]).success();
        bed.until_all_work();
    }
    let load = checker.stop();
    println!("{load}");
    assert!(load.is_sound() && load.writes > 0, "{load}");
    for url in &urls {
        let report = checker.verify_all(url).expect("all is read");
        assert!(report.is_sound(), "{report}");
    }
}

/// B starts without a disk that A has open and writes; both own a LUN there. It comes while it is written.
#[test]
fn a_disk_that_one_controller_lacks() {
    let bed = Bed::new();
    for round in 0..2 {
        // What the checker has not written it does not know, so the LUNs are new.
        let luns = ["one", "two"].map(|n| bed.cell.lun(&format!("{n}{round}"), "32M", "vraid1"));
        {
            let n = round as usize % 2;
            bed.cell.twincell(&["controller", "stop", "B"]).success();
            fs::remove_file(&bed.paths[n]).unwrap();
            bed.cell.twincell(&["cell", "start"]).success();
            bed.cell.wait_until("mirroring", |s| s["cell"]["mirroring"] == "on");
            let mut loads = luns.each_ref().map(|l| bed.load(l));
            sleep(Duration::from_millis(700 * round));
            symlink(&bed.shelf.paths()[n], &bed.paths[n]).unwrap();
            sleep(Duration::from_millis(600));
            if round % 3 == 1 {
                bed.cell.kill("A");
                bed.cell.twincell(&["cell", "start"]).success();
            }
            bed.until_all_work();
            for (checker, _) in &mut loads {
                let load = checker.stop();
                assert!(load.is_sound() && load.writes > 0, "{load}");
            }
            bed.cell
                .wait_until("everything on the disks", |s| s["cell"]["dirty_buffers"] == 0);
            // Everything is on the disk that was away.
            bed.shelf.tell(1 - n, Trouble::Errors);
            for (checker, urls) in &mut loads {
                for url in urls.iter().step_by(2) {
                    let report = checker.verify_all(url).expect("all is read");
                    assert!(report.is_sound(), "{report}");
                }
            }
            bed.shelf.tell(1 - n, Trouble::None);
            bed.until_all_work();
        }
    }
}

/// The path of the new disk is written to `cell.toml` as TOML has it.
#[test]
fn a_disk_is_replaced_by_one_with_a_quote_in_its_path() {
    let bed = Bed::new();
    let lun = bed.cell.lun("data", "32M", "vraid1");
    let (mut checker, _) = bed.load(&lun);
    bed.shelf.tell(1, Trouble::Errors);
    bed.cell.wait_until("a disk given up", |_| {
        bed.cell.json(&["disk", "list"])["disks"][1]["state"] == "missing"
    });
    checker.stop();
    let new = bed.cell.scratch().join("new \"disk\"");
    fs::File::create(&new).unwrap().set_len(DISK_BYTES).unwrap();
    bed.cell
        .twincell(&["disk", "replace", "1", &new.display().to_string(), "--yes"])
        .success();
    bed.cell.twincell(&["disk", "list"]).success();
}

/// A cell with nothing to do, which lacks a disk from its start; then with one that it cannot lock.
#[test]
fn an_absent_disk_keeps_no_processor_busy() {
    let bed = Bed::new();
    bed.cell.twincell(&["cell", "stop"]).success();
    fs::remove_file(&bed.paths[1]).unwrap();
    bed.cell.twincell(&["cell", "start"]).success();
    bed.cell.wait_until("mirroring", |s| s["cell"]["mirroring"] == "on");
    let measure = |what: &str, seconds: u64| {
        let (cpu, handles) = (bed.cpu_ms(), bed.handles());
        sleep(Duration::from_secs(seconds));
        let (after, handles_after) = (bed.cpu_ms(), bed.handles());
        println!("{what}: cpu ms {cpu:?} -> {after:?} in {seconds} s; handles {handles:?} -> {handles_after:?}");
        for (b, a) in cpu.iter().zip(&after) {
            // A tenth of a processor: nobody spins.
            assert!(a - b < 100 * seconds, "{what}: {cpu:?} -> {after:?} ms in {seconds} s");
        }
    };
    measure("absent", 5);
    let held = fs::File::options()
        .read(true)
        .write(true)
        .open(&bed.shelf.paths()[1])
        .unwrap();
    rustix::fs::fcntl_lock(&held, rustix::fs::FlockOperation::NonBlockingLockExclusive).unwrap();
    symlink(&bed.shelf.paths()[1], &bed.paths[1]).unwrap();
    sleep(Duration::from_secs(3));
    measure("locked by another", 5);
    drop(held);
    bed.until_all_work();
    measure("all there", 3);
}
