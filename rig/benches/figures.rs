//! The figures, with real processes. Each is beside what this machine can do in the same run: two TCP hops with the
//! same bytes for a mirrored write, and `tgt`, which mirrors nothing, for throughput.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use twincell_client::Url;
use twincell_client::bench::{Figures, Load, Operation, Pattern, run};
use twincell_client::multipath::{Timing, Volume};
use twincell_client::two_hop;
use twincell_core::ids::PSEG_BLOCKS;
use twincell_rig::cell::{Cell, SETTLE, Shape};
use twincell_rig::tgt::Tgt;
use twincell_rig::wait_for;

const CACHE: &str = "64M";
const CACHE_BLOCKS: u64 = (64 << 20) / 512;
const CONNECT: Duration = Duration::from_secs(10);
/// Rounds of what is compared, one after the other, so that a noisy moment hits both.
const ROUNDS: usize = 5;
const ROUND: Duration = Duration::from_secs(2);
/// Long enough to leave any burst behind.
const SUSTAINED: Duration = Duration::from_secs(10);
/// Rounds of that: it takes longer.
const THROUGHPUT_ROUNDS: usize = 3;
/// A tick of proc(5) is a hundredth of a second.
const TICK_MICROS: f64 = 10_000.0;
const KILLS: usize = 20;
const IDLE: Duration = Duration::from_secs(10);

/// What is written.
struct Kind {
    name: &'static str,
    blocks: u32,
    depth: usize,
}

const SMALL: Kind = Kind {
    name: "4 KiB random writes, depth 32",
    blocks: 8,
    depth: 32,
};
const LARGE: Kind = Kind {
    name: "128 KiB random writes, depth 8",
    blocks: 256,
    depth: 8,
};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match two_hop::child(&args) {
        Ok(false) => {}
        Ok(true) => return ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("two hops: {e}");
            return ExitCode::FAILURE;
        }
    }
    println!(
        "{} processors, {}\n",
        std::thread::available_parallelism().map_or(0, usize::from),
        kernel()
    );
    let cell = Cell::start(Shape {
        disks: 8,
        disk_size: "1G",
        cache: CACHE,
    });
    latency(&cell);
    throughput(&cell);
    deep_queues(&cell);
    idle(&cell);
    kills(&cell);
    ExitCode::SUCCESS
}

fn kernel() -> String {
    std::fs::read_to_string("/proc/sys/kernel/osrelease")
        .map_or_else(|_| "an unknown kernel".to_owned(), |r| format!("Linux {}", r.trim()))
}

fn write_load(kind: &Kind, span: u64, duration: Duration) -> Load {
    Load {
        operation: Operation::Write,
        pattern: Pattern::Random,
        blocks: kind.blocks,
        depth: kind.depth,
        duration,
        span,
    }
}

fn measure(url: &str, load: &Load) -> Figures {
    let url: Url = url.parse().expect("a URL");
    let mut device = url.connect(CONNECT).unwrap_or_else(|e| panic!("{url}: {e}"));
    let figures = run(device.as_mut(), load).unwrap_or_else(|e| panic!("{url}: {e}"));
    device.close(Duration::from_secs(1));
    figures
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// A mirrored write of 4 KiB at depth 1, beside two TCP hops with the same bytes.
fn latency(cell: &Cell) {
    println!("A mirrored write of 4 KiB at depth 1, through the owner, median of {ROUNDS} rounds");
    let lun = cell.lun("latency", "64M", "vraid1");
    let owner = cell.owner("latency");
    let program = std::env::current_exe().expect("this program");
    let one = Kind {
        name: "",
        blocks: 8,
        depth: 1,
    };
    for (protocol, url) in [
        ("iSCSI", cell.iscsi_url(&lun, &owner)),
        ("NBD", cell.nbd_url(&lun, &owner)),
    ] {
        let (mut ours, mut hops) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let load = write_load(&one, CACHE_BLOCKS / 4, ROUND);
            ours.push(measure(&url, &load).latency.value_at_quantile(0.5) as f64);
            let two = two_hop::run(&program, 8 * 512, 1, ROUND).expect("two hops");
            hops.push(two.latency.value_at_quantile(0.5) as f64);
        }
        let (ours, hops) = (median(ours), median(hops));
        println!(
            "  {protocol:6} {ours:.0} us; two hops {hops:.0} us; ratio {:.2}",
            ours / hops
        );
    }
    cell.twincell(&["lun", "delete", "latency", "--yes"]).success();
}

/// Random writes, without redundancy on the disks, beside tgt, which has one controller.
fn throughput(cell: &Cell) {
    let lun = cell.lun("throughput", "256M", "none");
    let owner = cell.owner("throughput");
    let mirror = if owner == "A" { "B" } else { "A" };
    let tgt = Tgt::start(cell.scratch(), 256);
    let pid = |controller| cell.pid(controller).expect("it runs");
    let client = ("client", std::process::id());
    let ours = Compared {
        name: "twincell",
        url: cell.iscsi_url(&lun, &owner),
        processes: vec![("owner", pid(&owner)), ("mirror", pid(mirror)), client],
    };
    let theirs = Compared {
        name: "tgt",
        url: tgt.url(),
        processes: vec![("tgtd", tgt.pid()), client],
    };
    for kind in [SMALL, LARGE] {
        for (what, span, duration) in [
            ("burst, within the cache", CACHE_BLOCKS / 4, ROUND),
            ("sustained, three times the cache", CACHE_BLOCKS * 3, SUSTAINED),
        ] {
            println!("\n{}: {what}", kind.name);
            let load = write_load(&kind, span, duration);
            let ratios = (0..THROUGHPUT_ROUNDS).map(|_| ours.measure(&load) / theirs.measure(&load));
            println!(
                "  ratio    {:.2}, median of {THROUGHPUT_ROUNDS}",
                median(ratios.collect())
            );
        }
    }
    cell.twincell(&["lun", "delete", "throughput", "--yes"]).success();
}

/// Reads of what one disk has, by three clients with full queues, beside one with a short queue: who waits costs nothing.
fn deep_queues(cell: &Cell) {
    let lun = cell.lun("deep", "64M", "vraid1");
    let url = cell.nbd_url(&lun, &cell.owner("deep"));
    println!("\n4 KiB random reads within one PSEG, median of {ROUNDS} rounds");
    let load = |depth| Load {
        operation: Operation::Read,
        pattern: Pattern::Random,
        blocks: 8,
        depth,
        duration: ROUND,
        span: PSEG_BLOCKS,
    };
    let together = |clients: usize, depth| {
        let (url, load) = (&url, load(depth));
        std::thread::scope(|scope| {
            let all: Vec<_> = (0..clients)
                .map(|_| scope.spawn(|| measure(url, &load).iops()))
                .collect();
            all.into_iter().map(|one| one.join().expect("a client")).sum::<f64>()
        })
    };
    let (mut short, mut deep) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        short.push(together(1, 32));
        deep.push(together(3, 128));
    }
    let (short, deep) = (median(short), median(deep));
    println!(
        "  32 outstanding {short:.0}/s; 384 outstanding {deep:.0}/s; ratio {:.2}",
        deep / short
    );
    cell.twincell(&["lun", "delete", "deep", "--yes"]).success();
}

/// A target with the processes that work for it.
struct Compared {
    name: &'static str,
    url: String,
    processes: Vec<(&'static str, u32)>,
}

impl Compared {
    /// Runs a load and prints what came of it, with the processor time that each process took for a request: where others
    /// use the machine, too, that says more than how long it took. Returns requests a second.
    fn measure(&self, load: &Load) -> f64 {
        let before: Vec<u64> = self.processes.iter().map(|(_, pid)| cpu_ticks(*pid)).collect();
        let figures = measure(&self.url, load);
        println!("  {:8} {figures}", self.name);
        let (mut parts, mut all) = (Vec::new(), 0.0);
        for ((name, pid), before) in self.processes.iter().zip(before) {
            let micros = (cpu_ticks(*pid) - before) as f64 * TICK_MICROS / figures.requests.max(1) as f64;
            parts.push(format!("{name} {micros:.1}"));
            all += micros;
        }
        println!(
            "           processor time of a request {all:.1} us: {}",
            parts.join(", ")
        );
        figures.iops()
    }
}

/// The processor time of both controllers while nothing happens.
fn idle(cell: &Cell) {
    let pids = ["A", "B"].map(|c| cell.pid(c).expect("it runs"));
    // Whatever is dirty is destaged within this, and `clean` is proposed.
    std::thread::sleep(Duration::from_secs(5));
    let before = pids.map(cpu_ticks);
    std::thread::sleep(IDLE);
    let after = pids.map(cpu_ticks);
    println!("\nIdle, {} s, both controllers mirrored", IDLE.as_secs());
    for ((name, before), after) in ["A", "B"].iter().zip(before).zip(after) {
        let busy = (after - before) as f64 * TICK_MICROS / 1e6 / IDLE.as_secs_f64();
        println!("  {name} {:.2}% of one processor", busy * 100.0);
    }
}

/// User and system time of a process.
fn cpu_ticks(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat")).expect("it runs");
    let fields: Vec<&str> = stat.rsplit(") ").next().expect("a stat").split(' ').collect();
    // Fields 14 and 15 of proc(5), counted from 1; the first of these is field 3.
    [11, 12]
        .iter()
        .map(|n| fields[*n].parse::<u64>().expect("a number"))
        .sum()
}

/// From `kill -9` of the owner to the first acknowledgement of a write through the other.
fn kills(cell: &Cell) {
    let lun = cell.lun("kills", "64M", "vraid1");
    let mut pauses = Vec::new();
    for _ in 0..KILLS {
        pauses.push(kill_once(cell, &lun).as_secs_f64() * 1e3);
        cell.bring_back();
    }
    let worst = pauses.iter().copied().fold(0.0, f64::max);
    println!("\nkill -9 of the owner to the next acknowledged write, {KILLS} times");
    println!("  median {:.0} ms, worst {worst:.0} ms", median(pauses));
}

fn kill_once(cell: &Cell, lun: &serde_json::Value) -> Duration {
    let owner = cell.owner("kills");
    let other = if owner == "A" { "B" } else { "A" };
    let urls = [&owner[..], other].map(|c| cell.iscsi_url(lun, c).parse::<Url>().expect("a URL"));
    let stop = Arc::new(AtomicBool::new(false));
    let told = stop.clone();
    let (sender, acks) = std::sync::mpsc::channel();
    let writer = std::thread::spawn(move || {
        let mut volume = Volume::new(&urls, Timing::default());
        let data = Arc::new(vec![0x5a; 4096]);
        let mut place = 0;
        while !told.load(Ordering::Relaxed) {
            let ack = volume.write(place, data.clone(), false).expect("a write on any path");
            place = (place + 8) % (CACHE_BLOCKS / 4);
            // Nobody listens any more once the first of the other path was heard.
            let _ = sender.send((ack.path, ack.acked));
        }
    });
    let first = wait_for("a first write", SETTLE, || acks.try_recv().map_err(|e| e.to_string()));
    assert_eq!(first.0, 0, "the owner's path is the first");
    std::thread::sleep(Duration::from_millis(300));
    let killed = Instant::now();
    cell.kill(&owner);
    let taken = wait_for("a write through the other", SETTLE, || {
        acks.try_iter()
            .find(|(path, _)| *path == 1)
            .ok_or_else(|| "none yet".to_owned())
    });
    stop.store(true, Ordering::Relaxed);
    writer.join().expect("the writer ends");
    taken.1 - killed
}
