//! A cell under a verifying load, and everything that does something to it: processes, the link.

use crate::cell::{Cell, Pool, SETTLE, addresses_on, binary, is_alive, signal};
use crate::fault::{DISKS, Kind, Who};
use crate::poll_for;
use crate::ports::Ports;
use crate::proxy::Proxy;
use crate::shelf::Shelf;
use rustix::process::Signal;
use serde_json::Value;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use twincell_client::Url;
use twincell_client::checker::{Checker, Options, Regions, Report};
use twincell_client::multipath::Timing;

pub(crate) const LUN: &str = "data";
pub(crate) const NAMES: [&str; 2] = ["A", "B"];
const DISK_SIZE: &str = "256M";
const DISK_BYTES: u64 = 256 << 20;
const CACHE: &str = "16M";
/// Twice the cache, so that there is always something to destage.
const REGION_BLOCKS: u64 = (32 << 20) / 512;
/// How long the load may stand still: a takeover, or the return of both.
const PAUSE_MAX: Duration = Duration::from_secs(40);
/// How long to look for data at stake before a cycle does not count.
const LOOK: Duration = Duration::from_secs(5);
/// After this long whoever was hit has noticed it.
pub(crate) const NOTICED: Duration = Duration::from_millis(300);
/// So many writes say that writes go on.
const GOES_ON: u64 = 50;
/// A controller that has just ended is not started again before this.
const START_AGAIN: Duration = Duration::from_millis(100);
/// The port, of those that a cell has, of the proxy; and the one where A listens.
const PROXY_PORT: u16 = 6;
const LINK_PORT: u16 = 4;

/// What a cycle needs to know of the cell just before its fault.
#[derive(Clone, Debug)]
pub struct Before {
    /// Whether memory held what the disks lack. The answer is a moment old when the fault comes: the load goes on.
    pub at_stake: bool,
    /// The epoch of the membership record.
    pub epoch: Option<u64>,
    /// The process of A, and that of B.
    pub(crate) pids: [Option<u32>; 2],
    /// 0: A owns the LUN; 1: B does.
    owner: usize,
    writes: u64,
}

impl Before {
    /// The controllers that are meant.
    pub(crate) fn of(&self, who: Who) -> Vec<usize> {
        match who {
            Who::Owner => vec![self.owner],
            Who::Mirror => vec![1 - self.owner],
            Who::Both => vec![0, 1],
        }
    }

    /// Their processes.
    pub(crate) fn pids(&self, who: Who) -> Vec<u32> {
        self.of(who).iter().filter_map(|n| self.pids[*n]).collect()
    }
}

/// Where a cell is put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ground {
    /// As on one machine: its disks are plain files, and each controller sees the other's process.
    Plain,
    /// Its disks fail when they are told to. They are slower than plain files.
    Shelf,
    /// As on two machines, as far as processes go: neither controller can end the other (needs root).
    Apart,
}

/// A cell, its load, and what is around it.
pub struct Bed {
    // The processes go before the disks that they use.
    pub(crate) cell: Cell,
    pub(crate) shelf: Option<Shelf>,
    pub(crate) proxy: Proxy,
    ground: Ground,
    /// The processes that were started last: of A, and of B.
    pub(crate) children: [Option<Child>; 2],
    /// When A was last started, and B.
    started: [Option<Instant>; 2],
    urls: Vec<Url>,
    seed: u64,
    checker: Option<Checker>,
    /// Acknowledged writes of the loads that are over.
    writes: u64,
}

impl Bed {
    /// Starts a cell in a directory of its own in `parent`, and its load, which follows from `seed`.
    pub fn start(parent: &Path, seed: u64, ground: Ground) -> Result<Bed, String> {
        let shelf = match ground {
            Ground::Shelf => Some(Shelf::mount(parent, DISKS, DISK_BYTES)?),
            Ground::Plain | Ground::Apart => None,
        };
        let pool = match &shelf {
            Some(shelf) => Pool::Given(shelf.paths()),
            None => Pool::Made(DISKS as u32, DISK_SIZE),
        };
        let root = tempfile::Builder::new().prefix("cell-").tempdir_in(parent);
        let root = root.map_err(|e| format!("a directory in {}: {e}", parent.display()))?;
        let ports = Ports::reserve();
        let addresses = addresses_on(&ports);
        let cell = Cell::create_in(root, ports, &pool, CACHE, &addresses)?;
        let local = |n| SocketAddr::from(([127, 0, 0, 1], cell.ports().get(n)));
        let (proxied, real) = (local(PROXY_PORT), local(LINK_PORT));
        let proxy = Proxy::start(proxied, real).map_err(|e| format!("the proxy: {e}"))?;
        // A listens, B connects: to the proxy, which its own configuration calls A.
        let text = std::fs::read_to_string(cell.file()).map_err(|e| format!("cell.toml: {e}"))?;
        let of_b = text.replace(&real.to_string(), &proxied.to_string());
        std::fs::write(cell.dir().join("cell-B.toml"), of_b).map_err(|e| format!("cell-B.toml: {e}"))?;
        let mut bed = Bed {
            cell,
            shelf,
            proxy,
            ground,
            children: [None, None],
            started: [None; 2],
            urls: Vec::new(),
            seed,
            checker: None,
            writes: 0,
        };
        bed.bring_back()?;
        bed.make_lun()?;
        bed.start_load()?;
        Ok(bed)
    }

    fn make_lun(&mut self) -> Result<(), String> {
        let create = [
            "lun",
            "create",
            LUN,
            "--size",
            "128M",
            "--redundancy",
            "vraid1",
            "--json",
        ];
        let made = self.cell.twincell(&create).ok()?;
        let made: Value = serde_json::from_str(&made.stdout).map_err(|e| format!("{}: {e}", made.stdout))?;
        let lun = &made["lun"];
        let urls = NAMES.map(|c| [self.cell.iscsi_url(lun, c), self.cell.nbd_url(lun, c)]);
        let parsed = urls
            .into_iter()
            .flatten()
            .map(|u| u.parse().map_err(|e| format!("{e}")));
        self.urls = parsed.collect::<Result<_, String>>()?;
        Ok(())
    }

    pub(crate) fn log(&self, n: usize) -> PathBuf {
        self.cell.dir().join(NAMES[n]).join("log")
    }

    fn history(&self) -> PathBuf {
        self.cell.scratch().join(format!("history-{}", self.seed))
    }

    fn start_load(&mut self) -> Result<(), String> {
        let options = Options {
            urls: self.urls.clone(),
            writers: 6,
            readers: 1,
            regions: Regions::Shared,
            region: 0..REGION_BLOCKS,
            seed: self.seed,
            history: Some(self.history()),
            timing: Timing::default(),
        };
        self.checker = Some(Checker::start(options).map_err(|e| format!("the load: {e}"))?);
        Ok(())
    }

    fn checker(&self) -> &Checker {
        self.checker
            .as_ref()
            .expect("the load runs between its start and the last reading back")
    }

    /// Waits until memory holds what the disks lack, and looks at the cell.
    pub fn before(&self) -> Result<Before, String> {
        let begin = Instant::now();
        loop {
            let status = self.cell.status();
            let cell = &status["cell"];
            let at_stake = cell["dirty_buffers"].as_u64() > Some(0) || cell["open_writes"].as_u64() > Some(0);
            let owner = status["luns"][0]["owner"].as_str();
            if let Some(owner) = owner
                && (at_stake || begin.elapsed() > LOOK)
            {
                return Ok(Before {
                    at_stake,
                    epoch: cell["epoch"].as_u64(),
                    pids: pids(&status),
                    owner: usize::from(owner == "B"),
                    writes: self.checker().report().writes,
                });
            }
            if begin.elapsed() > SETTLE {
                return Err(format!(
                    "waited {SETTLE:?} for the owner of the LUN; last seen: {status}"
                ));
            }
        }
    }

    /// Waits until hosts write again, and the cell is whole: `cell start` is all that is done for it. A controller
    /// that ended is started when hosts write again; `at_once` where they may not be able to without it.
    pub fn recover(&mut self, before: &Before, since: Instant, at_once: bool) -> Result<(), String> {
        if at_once || running(&self.cell.status()) == 0 {
            // Together: one alone would wait for the other first.
            poll_for("the processes of both controllers", SETTLE, || {
                let status = self.start_missing()?;
                (running(&status) == 2).then_some(()).ok_or(status.to_string())
            })?;
        }
        poll_for("writes to go on", PAUSE_MAX, || {
            let report = self.checker().report();
            let recent = report.writes > before.writes + GOES_ON && since.elapsed() > NOTICED;
            if recent || !self.checker().is_running() {
                return Ok(());
            }
            let status = if at_once {
                self.start_missing()?
            } else {
                self.cell.status()
            };
            Err(format!("{report}\n{status}"))
        })?;
        self.sound()?;
        self.bring_back()?;
        self.sound().map(|_| ())
    }

    /// Starts whichever controllers do not run, and waits until the cell is mirrored.
    fn bring_back(&mut self) -> Result<(), String> {
        let deadline = Instant::now() + SETTLE;
        loop {
            let status = self.start_missing()?;
            if Bed::is_whole(&status) {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(format!("waited {SETTLE:?} for a mirrored cell; last seen: {status}"));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Whether the cell is as it should be: all of it there, a disk that was given up and came back, too.
    fn is_whole(status: &Value) -> bool {
        let both = (0..2).all(|n| status["controllers"][n]["state"] == "serving");
        both && status["cell"]["state"] == "ok" && status["cell"]["mirroring"] == "on"
    }

    /// Starts whichever controllers do not run; what was seen.
    pub(crate) fn start_missing(&mut self) -> Result<Value, String> {
        let status = self.cell.status();
        for n in 0..2 {
            let line = &status["controllers"][n];
            let is_recent = self.started[n].is_some_and(|at| at.elapsed() < START_AGAIN);
            let is_starting = self.children[n]
                .as_mut()
                .is_some_and(|c| matches!(c.try_wait(), Ok(None)));
            if line["pid"].is_null() && line["state"] == "stopped" && !is_recent && !is_starting {
                self.start_controller(n)?;
            }
        }
        Ok(status)
    }

    fn start_controller(&mut self, n: usize) -> Result<(), String> {
        let failed = |e: std::io::Error| format!("controller {}: {e}", NAMES[n]);
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.log(n))
            .map_err(failed)?;
        let file = if n == 0 {
            self.cell.file()
        } else {
            self.cell.dir().join("cell-B.toml")
        };
        let mut command = match self.ground {
            Ground::Plain | Ground::Shelf => Command::new(binary()),
            Ground::Apart => {
                let mut unshare = Command::new("unshare");
                unshare
                    .args(["--pid", "--mount-proc", "--fork", "--kill-child"])
                    .arg(binary());
                unshare
            }
        };
        command
            .args(["controller", "run", "--detach", "--name", NAMES[n], "--config"])
            .arg(file);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.children[n] = Some(command.spawn().map_err(failed)?);
        self.started[n] = Some(Instant::now());
        Ok(())
    }

    /// The report of the load; an error if anything is wrong so far.
    pub fn sound(&self) -> Result<Report, String> {
        let report = self.checker().report();
        if report.is_sound() && self.checker().is_running() {
            Ok(report)
        } else {
            Err(format!("the load is not sound:\n{report}"))
        }
    }

    /// How often a host's try failed so far, since the last reading back.
    pub(crate) fn failed_tries(&self) -> u64 {
        self.checker().report().failed_tries
    }

    /// The longest time without an acknowledged write since this was last asked.
    pub fn take_longest_gap(&self) -> Duration {
        self.checker().take_longest_gap()
    }

    /// What a kind of faults is called here.
    pub fn label(&self, kind: Kind) -> String {
        match self.ground {
            Ground::Plain | Ground::Shelf => kind.to_string(),
            Ground::Apart => format!("{kind}, apart"),
        }
    }

    /// The epoch of the membership record, as it is now.
    pub fn epoch(&self) -> Option<u64> {
        self.cell.status()["cell"]["epoch"].as_u64()
    }

    /// Acknowledged writes so far.
    pub fn writes(&self) -> u64 {
        self.writes + self.checker.as_ref().map_or(0, |c| c.report().writes)
    }

    /// Stops the load, reads everything back through each path, and begins a new load and history.
    pub fn read_back(&mut self) -> Result<(), String> {
        self.check_all()?;
        // What was sound says nothing any more.
        let _ = std::fs::remove_file(self.history());
        self.seed += 1;
        self.start_load()
    }

    /// Reads everything back a last time, and leaves both logs beside the cell's directory.
    pub fn end(mut self) -> Result<u64, String> {
        let kept = self.check_all().and_then(|()| self.keep_logs());
        match kept {
            Ok(()) => Ok(self.writes()),
            Err(e) => Err(self.evidence(&e)),
        }
    }

    fn keep_logs(&self) -> Result<(), String> {
        let dir = self.cell.scratch();
        let copy = |n: usize| {
            let to = format!("{}-{}.log", dir.display(), NAMES[n]);
            std::fs::copy(self.log(n), to).map_err(|e| format!("the log of {}: {e}", NAMES[n]))
        };
        copy(0).and_then(|_| copy(1)).map(|_| ())
    }

    fn check_all(&mut self) -> Result<(), String> {
        let Some(checker) = &mut self.checker else {
            return Ok(());
        };
        checker.stop();
        for url in &self.urls {
            let read = checker.verify_all(url);
            let report = read.map_err(|e| format!("reading back through {url}: {e}"))?;
            if !report.is_sound() {
                return Err(format!("reading back through {url}:\n{report}"));
            }
        }
        self.writes += checker.report().writes;
        self.checker = None;
        Ok(())
    }

    /// Ends everything and leaves what there is of it: histories, logs, configuration, disks, NV memory. Says what
    /// went wrong, and where to look.
    pub fn evidence(&mut self, why: &str) -> String {
        let dir = self.cell.scratch().to_owned();
        let told: Vec<String> = [&["status"][..], &["status", "--json"], &["events"]]
            .iter()
            .map(|args| {
                let ended = self.cell.twincell(args);
                format!("$ twincell {}\n{}{}\n", args.join(" "), ended.stdout, ended.stderr)
            })
            .collect();
        for pid in pids(&self.cell.status()).into_iter().flatten() {
            signal(pid, Signal::KILL);
        }
        if let Some(checker) = &mut self.checker {
            checker.stop();
        }
        let history = self.history();
        let text = format!("{why}\n\n{}\n{}", told.join("\n"), self.cell.logs());
        let mut said = format!(
            "{why}\nwhat is left is in {}; its history is judged again by\n  cargo run --release -p twincell-client --bin twincell-load -- replay {}",
            dir.display(),
            history.display()
        );
        let mut left = vec![std::fs::write(dir.join("failure.txt"), text).map(|()| 0)];
        left.extend(NAMES.map(|c| std::fs::copy(self.cell.nv_memory(c), dir.join(format!("nv-{c}")))));
        // A controller that stopped in good order has left no memory.
        let is_there = |e: &std::io::Error| e.kind() != std::io::ErrorKind::NotFound;
        for failed in left.into_iter().filter_map(Result::err).filter(is_there) {
            said += &format!("\n(not all of it was left: {failed})");
        }
        self.cell.keep();
        if let Some(shelf) = &mut self.shelf {
            said += &format!("\nits disks are in {}", shelf.keep().display());
        }
        said
    }
}

fn pids(status: &Value) -> [Option<u32>; 2] {
    let pid = |n: usize| status["controllers"][n]["pid"].as_u64();
    [pid(0), pid(1)].map(|p| p.and_then(|p| u32::try_from(p).ok()))
}

/// How many controllers run. One that was killed is seen until the kernel has ended what it had posted.
fn running(status: &Value) -> usize {
    pids(status).into_iter().flatten().filter(|pid| is_alive(*pid)).count()
}

pub(crate) fn until_gone(pid: u32) -> Result<(), String> {
    poll_for(&format!("the end of process {pid}"), Duration::from_secs(20), || {
        (!is_alive(pid)).then_some(()).ok_or("it is there".to_owned())
    })
}
