//! Controllers are killed and come back under a verifying load.

use crate::cell::{Cell, Shape, signal, wait_until_gone};
use crate::wait_for;
use rustix::process::Signal;
use serde_json::Value;
use std::time::{Duration, Instant};
use twincell_client::Url;
use twincell_client::checker::{Checker, Options, Regions, Report};
use twincell_client::multipath::Timing;

const LUN: &str = "data";
/// Twice the cache, so that there is always something to destage.
const REGION_BLOCKS: u64 = (32 << 20) / 512;
/// How long the load may stand still: a takeover, or the return of both.
const PAUSE_MAX: Duration = Duration::from_secs(40);
/// How long to look for data at stake before a cycle does not count.
const LOOK: Duration = Duration::from_secs(5);

/// Who is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Victim {
    /// The controller that owns the LUN.
    Owner,
    /// The other.
    Mirror,
    /// Both, at the same moment as far as one process can.
    Both,
}

/// What cycles did.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    /// Kills.
    pub cycles: u64,
    /// Those with dirty buffers or open RIEs just before: only they say anything.
    pub counted: u64,
    /// Writes that were acknowledged.
    pub writes: u64,
    /// The longest time without an acknowledged write, when one controller was killed.
    pub longest_pause: Duration,
}

/// A cell under load, whose controllers are killed.
pub struct Campaign {
    cell: Cell,
    urls: Vec<Url>,
    seed: u64,
    checker: Option<Checker>,
    tally: Tally,
}

impl Campaign {
    /// Starts a cell and its load. The load follows from `seed`.
    pub fn start(seed: u64) -> Campaign {
        let cell = Cell::start(Shape {
            disks: 6,
            disk_size: "256M",
            cache: "16M",
        });
        let lun = cell.lun(LUN, "128M", "vraid1");
        let text = |url: String| url.parse().expect("a URL of the cell");
        let urls = ["A", "B"].map(|c| [cell.iscsi_url(&lun, c), cell.nbd_url(&lun, c)]);
        let urls = urls.into_iter().flatten().map(text).collect();
        Campaign {
            cell,
            urls,
            seed,
            checker: None,
            tally: Tally::default(),
        }
    }

    /// Kills `victim` and brings it back; after both, everything is read back. Says whether there was data at stake.
    pub fn cycle(&mut self, victim: Victim) -> bool {
        let before = self.checker().report().writes;
        let owner = self.cell.owner(LUN);
        let (at_stake, pids) = self.wait_for_data_at_stake(victim, &owner);
        let killed_at = Instant::now();
        for pid in &pids {
            signal(*pid, Signal::KILL);
        }
        pids.iter().for_each(|pid| wait_until_gone(*pid));
        if victim == Victim::Both {
            self.cell.twincell(&["cell", "start"]).success();
        }
        self.wait_until_writes_go_on(before, killed_at);
        self.cell.bring_back();
        let report = self.sound();
        self.tally.cycles += 1;
        self.tally.counted += u64::from(at_stake);
        if victim == Victim::Both {
            self.read_back();
        } else {
            self.tally.longest_pause = self.tally.longest_pause.max(report.longest_gap.length);
        }
        at_stake
    }

    /// Waits until memory holds what the disks lack, and names the processes to kill. The answer is a moment old when
    /// the signal comes: the load goes on meanwhile.
    fn wait_for_data_at_stake(&self, victim: Victim, owner: &str) -> (bool, Vec<u32>) {
        let begin = Instant::now();
        loop {
            let status = self.cell.status();
            let cell = &status["cell"];
            let at_stake = cell["dirty_buffers"].as_u64() > Some(0) || cell["open_writes"].as_u64() > Some(0);
            if at_stake || begin.elapsed() > LOOK {
                return (at_stake, pids(&status, victim, owner));
            }
        }
    }

    fn wait_until_writes_go_on(&mut self, before: u64, killed_at: Instant) {
        let checker = self.checker();
        wait_for("writes to go on after a kill", PAUSE_MAX, || {
            let report = checker.report();
            let recent = report.writes > before + 100 && killed_at.elapsed() > Duration::from_millis(300);
            if recent || !checker.is_running() {
                Ok(())
            } else {
                Err(report.to_string())
            }
        });
        self.sound();
    }

    fn checker(&mut self) -> &mut Checker {
        let history = self.cell.scratch().join(format!("history-{}", self.seed));
        self.checker.get_or_insert_with(|| {
            let options = Options {
                urls: self.urls.clone(),
                writers: 6,
                readers: 1,
                regions: Regions::Shared,
                region: 0..REGION_BLOCKS,
                seed: self.seed,
                history: Some(history),
                timing: Timing::default(),
            };
            Checker::start(options).expect("the load starts")
        })
    }

    /// Fails the test if anything is wrong so far.
    fn sound(&mut self) -> Report {
        let checker = self.checker();
        let report = checker.report();
        assert!(report.is_sound() && checker.is_running(), "{report}");
        report
    }

    /// Stops the load, reads everything back through each path, and forgets the history.
    fn read_back(&mut self) {
        let Some(mut checker) = self.checker.take() else { return };
        checker.stop();
        for url in &self.urls {
            let report = checker
                .verify_all(url)
                .unwrap_or_else(|e| panic!("reading back through {url}: {e}"));
            assert!(report.is_sound(), "{report}");
        }
        self.tally.writes += checker.report().writes;
        drop(checker);
        let _ = std::fs::remove_file(self.cell.scratch().join(format!("history-{}", self.seed)));
        self.seed += 1;
    }

    /// Reads everything back a last time, and says what was done.
    pub fn end(mut self) -> Tally {
        self.read_back();
        self.tally
    }

    /// What was done so far.
    pub fn tally(&self) -> Tally {
        self.tally
    }
}

fn pids(status: &Value, victim: Victim, owner: &str) -> Vec<u32> {
    let lines = status["controllers"].as_array().cloned().unwrap_or_default();
    let is_meant = |line: &Value| match victim {
        Victim::Owner => line["name"] == owner,
        Victim::Mirror => line["name"] != owner,
        Victim::Both => true,
    };
    let pids = lines.iter().filter(|l| is_meant(l)).filter_map(|l| l["pid"].as_u64());
    pids.filter_map(|p| u32::try_from(p).ok()).collect()
}
