//! A cell with two paths between its controllers, a proxy on each, and a verifying load.

use crate::cell::{Cell, Pool, SETTLE, addresses_on, binary};
use crate::ports::Ports;
use crate::proxy::Proxy;
use crate::{poll_for, wait_for};
use serde_json::Value;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use twincell_client::checker::{Checker, Options, Regions};
use twincell_client::multipath::Timing;

/// After this long without an answer a path is given up, while another answers (`Timing::path_silence`).
pub const PATH_TIMEOUT: Duration = Duration::from_millis(600);
/// Ports, of those that a cell has: where A listens, by path; B's ends of the paths; and the proxies.
const OF_A: [u16; 2] = [4, 8];
const SECOND_OF_B: u16 = 9;
const PROXIES: [u16; 2] = [6, 10];
const REGION_BLOCKS: u64 = (8 << 20) / 512;

/// The cell, its paths, and its load.
pub struct TwoPaths {
    // The load goes before the cell, and that before its paths.
    checker: Checker,
    /// The cell.
    pub cell: Cell,
    /// By path.
    pub proxies: [Proxy; 2],
    children: Vec<Child>,
}

impl Drop for TwoPaths {
    fn drop(&mut self) {
        self.checker.stop();
        for child in &mut self.children {
            // It may have ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// What became of a fault of a path.
#[derive(Clone, Copy, Debug)]
pub struct Suffered {
    /// The longest time without an acknowledged write, from the fault until all was well again.
    pub pause: Duration,
    /// How long messages went over the other path.
    pub away: Duration,
}

impl TwoPaths {
    /// Starts it all, and waits until messages go over the first path and the other works.
    pub fn start() -> TwoPaths {
        let ports = Ports::reserve();
        let mut addresses = addresses_on(&ports).to_vec();
        let local = |n: u16| SocketAddr::from(([127, 0, 0, 1], ports.get(n)));
        addresses.push(("--link-a", local(OF_A[1]).to_string()));
        addresses.push(("--link-b", local(SECOND_OF_B).to_string()));
        let (real, proxied) = (OF_A.map(local), PROXIES.map(local));
        let root = tempfile::tempdir().expect("a directory");
        let cell = Cell::create_in(root, ports, &Pool::Made(6, "128M"), "8M", &addresses);
        let cell = cell.unwrap_or_else(|e| panic!("{e}"));
        let proxy = |n: usize| Proxy::start(proxied[n], real[n]).expect("a proxy");
        let proxies = [proxy(0), proxy(1)];
        // A listens, B connects: to the proxies, which its own configuration calls A.
        let text = std::fs::read_to_string(cell.file()).expect("cell.toml");
        let of_b = real.iter().zip(&proxied).fold(text, |text, (real, proxied)| {
            text.replace(&real.to_string(), &proxied.to_string())
        });
        let file_of_b = cell.dir().join("cell-B.toml");
        std::fs::write(&file_of_b, of_b).expect("cell-B.toml");
        let mut children = Vec::new();
        for (name, file) in [("A", cell.file()), ("B", file_of_b)] {
            let log = std::fs::File::create(cell.dir().join(name).join("log")).expect("a log");
            let mut command = Command::new(binary());
            command.args(["controller", "run", "--detach", "--name", name, "--config"]);
            command.arg(file).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
            children.push(command.spawn().expect("a controller"));
        }
        cell.wait_until_mirrored();
        let link = TwoPaths {
            checker: load(&cell),
            cell,
            proxies,
            children,
        };
        link.until_on("the beginning", 0);
        link
    }

    /// What `link list` tells.
    pub fn list(&self) -> Value {
        self.cell.json(&["link", "list"])
    }

    /// The sum of a count of both controllers.
    pub fn count(&self, name: &str) -> u64 {
        let list = self.list();
        let of = |c: &Value| c[name].as_u64().unwrap_or_else(|| panic!("no {name} in {list}"));
        list["counters"].as_array().expect("a list").iter().map(of).sum()
    }

    /// Waits until both controllers send their messages over this path.
    pub fn until_on(&self, what: &str, path: usize) {
        wait_for(&format!("messages on path {path} after {what}"), SETTLE, || {
            let list = self.list();
            let on = |p: &&Value| p["path"] == path && p["state"] == "active";
            let both = list["paths"].as_array().expect("a list").iter().filter(on).count() == 2;
            both.then_some(()).ok_or_else(|| list.to_string())
        });
    }

    /// Waits until so many more writes were acknowledged.
    pub fn go_on(&self, what: &str, writes: u64) {
        let before = self.checker.report().writes;
        poll_for(&format!("writes during {what}"), SETTLE, || {
            let report = self.checker.report();
            let gone_on = report.writes >= before + writes || !self.checker.is_running();
            gone_on.then_some(()).ok_or_else(|| report.to_string())
        })
        .unwrap_or_else(|e| panic!("{e}\n{}", self.cell.logs()));
    }

    /// Forgets what pauses there were.
    pub fn begin(&self) {
        self.checker.take_longest_gap();
    }

    /// The longest time without an acknowledged write since `begin`. No host has seen an error, and nothing is wrong with
    /// what was read.
    pub fn pause(&self, what: &str) -> Duration {
        let report = self.checker.report();
        let well = report.is_sound() && report.failed_tries == 0 && self.checker.is_running();
        assert!(well, "{what}: {report}\n{}", self.cell.logs());
        self.checker.take_longest_gap()
    }

    /// Does something to the first path that makes messages go over the second one, heals it once they do and some were
    /// written meanwhile, and waits until they are back.
    pub fn suffer(&self, what: &str, fault: impl FnOnce(&Proxy)) -> Suffered {
        self.begin();
        fault(&self.proxies[0]);
        self.until_on(what, 1);
        let moved = Instant::now();
        self.go_on(what, 100);
        self.proxies[0].heal();
        self.until_on(what, 0);
        Suffered {
            pause: self.pause(what),
            away: moved.elapsed(),
        }
    }

    /// Ends the load.
    pub fn rest(&mut self) {
        self.checker.stop();
    }

    /// Ends the load, and reads everything back through each way to it.
    pub fn end(mut self) {
        self.rest();
        for url in urls(&self.cell) {
            let report = self.checker.verify_all(&url).unwrap_or_else(|e| panic!("{url}: {e}"));
            assert!(report.is_sound(), "{report}");
        }
    }
}

fn urls(cell: &Cell) -> Vec<twincell_client::Url> {
    let lun = &cell.status()["luns"][0];
    let of = |c| [cell.iscsi_url(lun, c), cell.nbd_url(lun, c)];
    let all = ["A", "B"].into_iter().flat_map(of);
    all.map(|u| u.parse().expect("a URL")).collect()
}

fn load(cell: &Cell) -> Checker {
    cell.lun("data", "16M", "vraid1");
    let options = Options {
        urls: urls(cell),
        writers: 4,
        readers: 1,
        regions: Regions::Shared,
        region: 0..REGION_BLOCKS,
        seed: 1,
        history: None,
        timing: Timing::default(),
    };
    Checker::start(options).expect("a load")
}
