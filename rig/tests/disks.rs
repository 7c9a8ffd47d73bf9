//! Disks that fail under load and come back: they are made level, and then the other disk of the pair may go.

use serde_json::Value;
use std::thread::sleep;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use twincell_client::Url;
use twincell_client::checker::{Checker, Options, Regions};
use twincell_client::device::{Request, execute};
use twincell_client::multipath::Timing;
use twincell_rig::cell::{Cell, SETTLE};
use twincell_rig::poll_for;
use twincell_rig::shelf::{Shelf, Trouble};

/// The disk that fails, and the other of its pair.
const PAIR: [usize; 2] = [1, 0];
const DISKS: usize = 4;
const DISK_BYTES: u64 = 192 << 20;
/// What the load writes, in blocks: all of the LUN.
const REGION: u64 = (64 << 20) / 512;

/// What is over is told for two seconds more; here the machine is slow. What nobody has tried since is told for 30 s.
const TOLD_MAX: Duration = Duration::from_secs(20);

/// A cell on disks that fail when they are told to, and its load.
struct Bed {
    checker: Checker,
    urls: Vec<Url>,
    cell: Cell,
    shelf: Shelf,
    _dir: TempDir,
}

impl Bed {
    fn new() -> Bed {
        let dir = tempfile::tempdir().expect("a directory");
        let shelf = Shelf::mount(dir.path(), DISKS, DISK_BYTES).expect("disks");
        let cell = Cell::start_on(&shelf, dir.path(), "16M");
        let lun = cell.lun("data", "64M", "vraid1");
        let url = |c| [cell.iscsi_url(&lun, c), cell.nbd_url(&lun, c)];
        let urls = [url("A"), url("B")].concat();
        let urls: Vec<Url> = urls.iter().map(|u| u.parse().expect("an address")).collect();
        let checker = Checker::start(Options {
            urls: urls.clone(),
            writers: 4,
            readers: 1,
            regions: Regions::Shared,
            region: 0..REGION,
            seed: 7,
            history: None,
            timing: Timing::default(),
        });
        Bed {
            checker: checker.expect("the load"),
            urls,
            cell,
            shelf,
            _dir: dir,
        }
    }

    fn until_disk(&self, disk: usize, state: &str) -> Value {
        let what = format!("disk {disk} being {state}");
        let seen = poll_for(&what, SETTLE, || {
            let listed = self.cell.twincell(&["disk", "list", "--json"]);
            let listed: Value = serde_json::from_str(&listed.stdout).unwrap_or(Value::Null);
            let is_so = listed["disks"][disk]["state"] == state;
            is_so.then(|| listed.clone()).ok_or(listed.to_string())
        });
        seen.unwrap_or_else(|e| panic!("{e}\n{}", self.cell.logs()))
    }

    /// The disk fails for three seconds.
    fn fail_for_a_while(&self) {
        sleep(Duration::from_millis(500));
        self.shelf.tell(PAIR[0], Trouble::Errors);
        sleep(Duration::from_secs(3));
        self.until_disk(PAIR[0], "missing");
        self.shelf.tell(PAIR[0], Trouble::None);
    }

    /// It is a full copy again; the other of the pair dies, and all that was written is read, through each path.
    fn ends_without_the_other(mut self) {
        let listed = self.until_disk(PAIR[0], "normal");
        assert_eq!(listed["disks"][PAIR[0]]["works"], true, "{listed}");
        self.cell.wait_until_mirrored();
        let load = self.checker.stop();
        assert!(load.is_sound() && load.writes > 0, "{load}");
        self.cell
            .wait_until("everything on the disks", |s| s["cell"]["dirty_buffers"] == 0);
        self.shelf.tell(PAIR[1], Trouble::Errors);
        for url in &self.urls {
            let report = self.checker.verify_all(url).expect("all is read");
            assert!(report.is_sound(), "{report}");
        }
    }
}

#[test]
fn a_disk_comes_back_under_load_and_is_a_full_copy() {
    let bed = Bed::new();
    bed.fail_for_a_while();
    bed.ends_without_the_other();
}

#[test]
fn a_controller_ends_while_a_disk_is_made_level() {
    let bed = Bed::new();
    bed.fail_for_a_while();
    bed.until_disk(PAIR[0], "merging");
    let owner = bed.cell.owner("data");
    bed.cell.kill(&owner);
    sleep(Duration::from_secs(1));
    bed.cell.twincell(&["cell", "start"]).success();
    bed.ends_without_the_other();
}

/// A disk is gone for good, and is replaced under load; no controller is started again for that.
#[test]
fn a_disk_is_replaced_by_an_empty_one() {
    let bed = Bed::new();
    bed.shelf.tell(PAIR[0], Trouble::Errors);
    bed.until_disk(PAIR[0], "missing");
    let new = bed.cell.scratch().join("new-disk");
    let file = std::fs::File::create(&new).expect("a file");
    file.set_len(DISK_BYTES).expect("a disk");
    let (name, path) = (PAIR[0].to_string(), new.display().to_string());
    let other = PAIR[1].to_string();
    let replace = |name: &str, path: &str| bed.cell.twincell(&["disk", "replace", name, path, "--yes"]);
    let refused = replace(&other, &path);
    assert_eq!(refused.code, Some(6), "{}", refused.told);
    let of_the_cell = bed.shelf.paths()[2].display().to_string();
    let refused = replace(&name, &of_the_cell);
    assert_eq!(refused.code, Some(5), "{}", refused.told);
    replace(&name, &path).success();
    // What was interrupted is done again.
    bed.cell.twincell(&["disk", "replace", &name, &path, "--yes"]).success();
    let listed = bed.until_disk(PAIR[0], "normal");
    assert_eq!(listed["disks"][PAIR[0]]["path"], path, "{listed}");
    bed.ends_without_the_other();
}

/// Every disk fails, and soon none does any more: then nobody is told for long that all is lost.
#[test]
fn what_works_again_is_soon_told() {
    let dir = tempfile::tempdir().expect("a directory");
    let shelf = Shelf::mount(dir.path(), DISKS, DISK_BYTES).expect("disks");
    let cell = Cell::start_on(&shelf, dir.path(), "16M");
    let lun = cell.lun("data", "64M", "vraid1");
    let url: Url = cell.nbd_url(&lun, "A").parse().expect("an address");
    let mut host = url.connect(SETTLE).expect("a host");
    (0..DISKS).for_each(|n| shelf.tell(n, Trouble::WriteErrors));
    // A block of each PSEG is in memory, and no disk takes it.
    for start in (0..REGION).step_by((2 << 20) / 512) {
        let (data, fua) = (vec![7; 8 * 512].into(), false);
        execute(host.as_mut(), Request::Write { start, data, fua }).expect("it is in memory");
    }
    cell.wait_until("no disk that works", |s| {
        let problems = s["problems"].as_array().cloned().unwrap_or_default();
        problems.iter().any(|p| p["kind"] == "quorum_lost")
    });
    (0..DISKS).for_each(|n| shelf.tell(n, Trouble::None));
    let over = Instant::now();
    cell.wait_until("nothing to tell", |s| s["problems"] == serde_json::json!([]));
    assert!(over.elapsed() < TOLD_MAX, "{:?}\n{}", over.elapsed(), cell.logs());
}
