//! A controller that gets SIGTERM while it cannot stop: it is not forgotten.

use rustix::process::Signal;
use serde_json::Value;
use std::str::FromStr;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use twincell_client::Url;
use twincell_client::device::{Request, execute};
use twincell_rig::cell::{Cell, SETTLE, is_alive, signal, wait_until_gone};
use twincell_rig::shelf::{Shelf, Trouble};
use twincell_rig::{poll_for, wait_for};

const DISKS: usize = 4;
const DISK_BYTES: u64 = 64 << 20;
/// Two of the three disks that vote.
const MAJORITY: [usize; 2] = [0, 1];
/// Whoever asks a controller to stop has an answer after 20 s, and its process goes on.
const ANSWERED: Duration = Duration::from_secs(22);

/// A cell on disks that fail when they are told to.
struct Bed {
    cell: Cell,
    shelf: Shelf,
    lun: Value,
    _dir: TempDir,
}

impl Bed {
    fn start() -> Bed {
        let dir = tempfile::tempdir().expect("a directory");
        let shelf = Shelf::mount(dir.path(), DISKS, DISK_BYTES).expect("disks");
        let cell = Cell::start_on(&shelf, dir.path(), "4M");
        let lun = cell.lun("data", "8M", "vraid1");
        Bed {
            cell,
            shelf,
            lun,
            _dir: dir,
        }
    }

    fn tell(&self, trouble: Trouble) {
        MAJORITY.iter().for_each(|n| self.shelf.tell(*n, trouble));
    }

    fn request(&self, controller: &str, request: Request) -> Vec<u8> {
        let url = Url::from_str(&self.cell.nbd_url(&self.lun, controller)).unwrap();
        let mut device = url.connect(Duration::from_secs(20)).unwrap();
        execute(device.as_mut(), request).unwrap()
    }

    fn write(&self, byte: u8) {
        let (start, data, fua) = (0, vec![byte; 8 * 512].into(), false);
        self.request("A", Request::Write { start, data, fua });
    }

    fn reads(&self, byte: u8) {
        let (start, blocks) = (0, 8);
        let read = self.request("A", Request::Read { start, blocks });
        assert!(read == [byte; 8 * 512], "what was written is not there");
    }

    /// The kinds of A's events.
    fn events(&self) -> Vec<String> {
        let events = self.cell.json(&["events"]);
        let of_a = events["events"].as_array().unwrap().iter();
        of_a.filter(|e| e["controller"] == "A")
            .map(|e| e["kind"].as_str().unwrap().to_owned())
            .collect()
    }

    /// SIGTERM, which A cannot follow now.
    fn tell_a_to_stop(&self, pid: u32) {
        signal(pid, Signal::TERM);
        wait_for("A's word on that", SETTLE, || {
            let log = std::fs::read_to_string(self.cell.dir().join("A").join("log")).unwrap();
            log.contains("cannot stop yet").then_some(()).ok_or(log)
        });
    }

    /// A has neither its partner nor a majority of the disks that vote. Its process.
    fn leave_a_undecided(&self) -> u32 {
        let pid = self.cell.pid("A").unwrap();
        self.tell(Trouble::Errors);
        self.cell.kill("B");
        self.cell.wait_until("A deciding", |s| {
            s["problems"].to_string().contains("controller_deciding")
        });
        pid
    }
}

#[test]
fn a_signal_is_not_forgotten_while_it_is_decided_who_serves() {
    let bed = Bed::start();
    bed.write(5);
    let pid = bed.leave_a_undecided();
    // An operator who is there hears that it goes on, and nothing of that is kept.
    let stop = bed.cell.twincell(&["controller", "stop", "A"]);
    stop.expect(5, &["controller A is not stopped", "SIGTERM"]);
    let before = bed.events().len();
    bed.tell_a_to_stop(pid);
    let asked = Instant::now();
    wait_for("the time in which a stop is answered", ANSWERED + SETTLE, || {
        assert!(
            is_alive(pid),
            "nothing was decided, and A has ended: {:?}",
            bed.events()
        );
        (asked.elapsed() > ANSWERED).then_some(()).ok_or(String::new())
    });
    bed.tell(Trouble::None);
    let ended = poll_for("the end of A", SETTLE, || {
        (!is_alive(pid)).then_some(()).ok_or(bed.cell.status().to_string())
    });
    let events = bed.events();
    ended.unwrap_or_else(|e| panic!("{e}\n{events:?}\n{}", bed.cell.logs()));
    assert!(
        !events[before..].contains(&"serving".to_owned()),
        "it has served: {events:?}"
    );
    bed.cell.bring_back();
    bed.reads(5);
}

#[test]
fn a_signal_is_not_forgotten_while_the_partner_sees_no_disks_either() {
    let bed = Bed::start();
    bed.write(6);
    let pid = bed.cell.pid("A").unwrap();
    bed.tell(Trouble::Errors);
    // Nobody can be left with everything now.
    bed.cell.twincell(&["controller", "stop", "A"]).expect(
        6,
        &["controller A is not stopped", "its partner does not see the disks"],
    );
    bed.tell_a_to_stop(pid);
    bed.tell(Trouble::None);
    wait_until_gone(pid);
    bed.cell.bring_back();
    bed.reads(6);
}
