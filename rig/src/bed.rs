//! A cell under a verifying load, and everything that does something to it: processes, the link.

use crate::cell::{Cell, Pool, SETTLE, addresses_on, binary, signal};
use crate::fault::{Fault, LinkFault, Who};
use crate::poll_for;
use crate::ports::Ports;
use crate::proxy::Proxy;
use rustix::process::Signal;
use serde_json::Value;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use twincell_client::Url;
use twincell_client::checker::{Checker, Options, Regions, Report};
use twincell_client::multipath::Timing;

const LUN: &str = "data";
const NAMES: [&str; 2] = ["A", "B"];
const DISKS: u32 = 6;
const DISK_SIZE: &str = "256M";
const CACHE: &str = "16M";
/// Twice the cache, so that there is always something to destage.
const REGION_BLOCKS: u64 = (32 << 20) / 512;
/// How long the load may stand still: a takeover, or the return of both.
const PAUSE_MAX: Duration = Duration::from_secs(40);
/// How long to look for data at stake before a cycle does not count.
const LOOK: Duration = Duration::from_secs(5);
/// After this long whoever was hit has noticed it.
const NOTICED: Duration = Duration::from_millis(300);
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
    pids: [Option<u32>; 2],
    /// 0: A owns the LUN; 1: B does.
    owner: usize,
    writes: u64,
}

impl Before {
    fn of(&self, who: Who) -> Vec<usize> {
        match who {
            Who::Owner => vec![self.owner],
            Who::Mirror => vec![1 - self.owner],
            Who::Both => vec![0, 1],
        }
    }

    fn pids(&self, who: Who) -> Vec<u32> {
        self.of(who).iter().filter_map(|n| self.pids[*n]).collect()
    }
}

/// A cell, its load, and what is around it.
pub struct Bed {
    cell: Cell,
    proxy: Proxy,
    children: Vec<Child>,
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
    pub fn start(parent: &Path, seed: u64) -> Result<Bed, String> {
        let root = tempfile::Builder::new().prefix("cell-").tempdir_in(parent);
        let root = root.map_err(|e| format!("a directory in {}: {e}", parent.display()))?;
        let ports = Ports::reserve();
        let addresses = addresses_on(&ports);
        let cell = Cell::create_in(root, ports, &Pool::Made(DISKS, DISK_SIZE), CACHE, &addresses)?;
        let local = |n| SocketAddr::from(([127, 0, 0, 1], cell.ports().get(n)));
        let (proxied, real) = (local(PROXY_PORT), local(LINK_PORT));
        let proxy = Proxy::start(proxied, real).map_err(|e| format!("the proxy: {e}"))?;
        // A listens, B connects: to the proxy, which its own configuration calls A.
        let text = std::fs::read_to_string(cell.file()).map_err(|e| format!("cell.toml: {e}"))?;
        let of_b = text.replace(&real.to_string(), &proxied.to_string());
        std::fs::write(cell.dir().join("cell-B.toml"), of_b).map_err(|e| format!("cell-B.toml: {e}"))?;
        let mut bed = Bed {
            cell,
            proxy,
            children: Vec::new(),
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

    /// Does it, for as long as it lasts, and ends it.
    pub fn inject(&mut self, fault: Fault, before: &Before) -> Result<(), String> {
        match fault {
            Fault::Kill(who) => {
                let pids = before.pids(who);
                pids.iter().for_each(|pid| signal(*pid, Signal::KILL));
                pids.iter().try_for_each(|pid| until_gone(*pid))
            }
            Fault::Stop(who, lasts) => {
                let pids = before.pids(who);
                pids.iter().for_each(|pid| signal(*pid, Signal::STOP));
                // The partner's fence may end it first.
                let _ = poll_for("", lasts, || match pids.iter().any(|pid| is_alive(*pid)) {
                    true => Err(String::new()),
                    false => Ok(()),
                });
                pids.iter().for_each(|pid| signal(*pid, Signal::CONT));
                Ok(())
            }
            Fault::Link(fault) => self.break_link(fault),
            Fault::Restart(Who::Both) => self.cell.twincell(&["cell", "stop"]).ok().map(|_| ()),
            Fault::Restart(who) => {
                let name = NAMES[before.of(who)[0]];
                self.cell.twincell(&["controller", "stop", name]).ok().map(|_| ())
            }
            Fault::Move => {
                let to = NAMES[1 - before.owner];
                self.cell.twincell(&["lun", "move", LUN, "--to", to]).ok().map(|_| ())
            }
        }
    }

    fn break_link(&mut self, fault: LinkFault) -> Result<(), String> {
        match fault {
            LinkFault::Close => self.proxy.close(),
            LinkFault::CloseHalf(way) => self.proxy.close_half(way),
            LinkFault::Cut(lasts) => {
                self.proxy.cut();
                std::thread::sleep(lasts);
            }
            LinkFault::Silent {
                ways,
                lasts,
                comes_late,
            } => {
                self.proxy.hold(ways);
                std::thread::sleep(lasts);
                if !comes_late {
                    self.proxy.close();
                }
            }
            LinkFault::Slow(delay, lasts) => {
                self.proxy.delay(delay);
                std::thread::sleep(lasts);
            }
            LinkFault::Garble(way, bit) => {
                let before = self.proxy.garbled();
                self.proxy.garble(way, bit);
                // Heartbeats come all the time.
                poll_for("a bit on the link that can be flipped", NOTICED * 10, || {
                    (self.proxy.garbled() > before).then_some(()).ok_or(String::new())
                })?;
            }
        }
        self.proxy.heal();
        Ok(())
    }

    /// Waits until hosts write again, and the cell is whole: `cell start` is all that is done for it.
    pub fn recover(&mut self, before: &Before, since: Instant) -> Result<(), String> {
        if running(&self.cell.status()) == 0 {
            // Together: one alone would wait for the other first.
            poll_for("the processes of both controllers", SETTLE, || {
                let status = self.start_missing()?;
                (running(&status) == 2).then_some(()).ok_or(status.to_string())
            })?;
        }
        let checker = self.checker();
        poll_for("writes to go on", PAUSE_MAX, || {
            let report = checker.report();
            let recent = report.writes > before.writes + GOES_ON && since.elapsed() > NOTICED;
            if recent || !checker.is_running() {
                Ok(())
            } else {
                Err(format!("{report}\n{}", self.cell.status()))
            }
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
            if status["cell"]["state"] == "ok" && status["cell"]["mirroring"] == "on" {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(format!("waited {SETTLE:?} for a mirrored cell; last seen: {status}"));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Starts whichever controllers do not run; what was seen.
    fn start_missing(&mut self) -> Result<Value, String> {
        self.children
            .retain_mut(|child| !matches!(child.try_wait(), Ok(Some(_))));
        let status = self.cell.status();
        for n in 0..2 {
            let line = &status["controllers"][n];
            let is_recent = self.started[n].is_some_and(|at| at.elapsed() < START_AGAIN);
            if line["pid"].is_null() && line["state"] == "stopped" && !is_recent {
                self.start_controller(n)?;
            }
        }
        Ok(status)
    }

    fn start_controller(&mut self, n: usize) -> Result<(), String> {
        let dir = self.cell.dir();
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(dir.join(NAMES[n]).join("log"));
        let log = log.map_err(|e| format!("the log of {}: {e}", NAMES[n]))?;
        let file = if n == 0 {
            self.cell.file()
        } else {
            dir.join("cell-B.toml")
        };
        let mut command = Command::new(binary());
        command
            .args(["controller", "run", "--detach", "--name", NAMES[n], "--config"])
            .arg(file);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.children
            .push(command.spawn().map_err(|e| format!("controller {}: {e}", NAMES[n]))?);
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

    /// The longest time without an acknowledged write since this was last asked.
    pub fn take_longest_gap(&self) -> Duration {
        self.checker().take_longest_gap()
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

    /// Reads everything back a last time.
    pub fn end(mut self) -> Result<u64, String> {
        match self.check_all() {
            Ok(()) => Ok(self.writes()),
            Err(e) => Err(self.evidence(&e)),
        }
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
        for failed in left.into_iter().filter_map(Result::err) {
            said += &format!("\n(not all of it was left: {failed})");
        }
        self.cell.keep();
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

fn is_alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit(") ").next().and_then(|s| s.chars().next());
    !matches!(state, None | Some('Z' | 'X'))
}

fn until_gone(pid: u32) -> Result<(), String> {
    poll_for(&format!("the end of process {pid}"), Duration::from_secs(20), || {
        (!is_alive(pid)).then_some(()).ok_or("it is there".to_owned())
    })
}
