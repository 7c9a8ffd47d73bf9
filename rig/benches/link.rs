//! The figures of the link between the controllers, with real processes.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use tempfile::TempDir;
use twincell_client::Url;
use twincell_client::bench::{Load, Operation, Pattern, run};
use twincell_core::ids::ATOMIC_BLOCKS;
use twincell_core::link::PACE_BLOCKS;
use twincell_engine::link_alone::Done;
use twincell_rig::alone::{self, Shape};
use twincell_rig::cell::{self, Cell};
use twincell_rig::paths::TwoPaths;
use twincell_rig::ports::Ports;
use twincell_rig::proxy::{Proxy, Way};

const CONNECT: Duration = Duration::from_secs(10);
const ROUND: Duration = Duration::from_secs(2);
/// Rounds of what is compared, one after the other, so that a noisy moment hits both.
const ROUNDS: usize = 5;
const SHORT: Duration = Duration::from_secs(1);
/// A quarter of the cache, so that it is all there is to it.
const SPAN: u64 = (16 << 20) / 512;
/// Path switches of each kind.
const SWITCHES: usize = 10;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match alone::child(&args) {
        Ok(false) => {}
        Ok(true) => return ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("the link alone: {e}");
            return ExitCode::FAILURE;
        }
    }
    println!(
        "{} processors\n",
        std::thread::available_parallelism().map_or(0, usize::from)
    );
    // All of them, or those that are named.
    let parts: [(&str, fn()); 4] = [
        ("share", share),
        ("latency", latency),
        ("writes", writes),
        ("switches", switches),
    ];
    let is_named = |part: &str| args.iter().any(|arg| arg == part);
    let all = !parts.iter().any(|(part, _)| is_named(part));
    let wanted = parts.iter().filter(|(part, _)| all || is_named(part));
    wanted.for_each(|(_, run)| run());
    ExitCode::SUCCESS
}

/// The link between this process and another of the same program.
struct Two {
    program: PathBuf,
    dir: TempDir,
    ports: Ports,
}

/// NV memory is where nobody else may write, whatever the umask is.
fn private_dir() -> std::io::Result<TempDir> {
    let mode = PermissionsExt::from_mode(0o700);
    tempfile::Builder::new().permissions(mode).tempdir_in("/dev/shm")
}

impl Two {
    fn new() -> Two {
        Two {
            program: std::env::current_exe().expect("this program"),
            dir: private_dir().expect("a directory on tmpfs"),
            ports: Ports::reserve(),
        }
    }

    fn link(&self, transfers: [u16; 2], paced: bool, timed_every: Option<Duration>) -> Done {
        let address = SocketAddr::from(([127, 0, 0, 1], self.ports.get(0)));
        let shape = Shape {
            transfers,
            paced,
            timed_every,
            duration: SHORT,
        };
        alone::link(&self.program, self.dir.path(), address, &shape).expect("the link alone")
    }
}

/// The link alone, beside plain TCP between the same processes.
fn share() {
    let two = Two::new();
    println!(
        "The link alone, transfers of 128 KiB one way, 8 in flight; beside plain TCP that does the same, {ROUNDS} rounds"
    );
    let mut ratios = Vec::new();
    for _ in 0..ROUNDS {
        let ours = speed(&two.link([8, 0], true, None));
        let plain = alone::tcp(&two.program, 8, SHORT).expect("plain TCP");
        println!("  link {:.0} MB/s, TCP {:.0} MB/s", ours / 1e6, plain / 1e6);
        ratios.push(ours / plain);
    }
    println!("  share {:.2}, median\n", median(ratios));
}

/// How long a message without data takes.
fn latency() {
    let two = Two::new();
    println!("A message without data and its answer, one each millisecond; medians of {ROUNDS} rounds");
    let bound = f64::from(PACE_BLOCKS + ATOMIC_BLOCKS) * 512.0;
    let cases = [
        ("idle", [0, 0], true),
        ("data both ways", [16, 16], true),
        ("the same, not paced", [64, 64], false),
    ];
    let mut seen = cases.map(|_| [const { Vec::new() }; 3]);
    for _ in 0..ROUNDS {
        for ((_, transfers, paced), [half, most, speeds]) in cases.iter().zip(&mut seen) {
            let mut done = two.link(*transfers, *paced, Some(Duration::from_millis(1)));
            done.answers.sort();
            let at = |share: f64| done.answers[((done.answers.len() - 1) as f64 * share) as usize];
            half.push(at(0.5).as_secs_f64() * 1e6);
            most.push(at(0.99).as_secs_f64() * 1e6);
            speeds.push(speed(&done));
        }
    }
    for ((name, transfers, _), [half, most, speeds]) in cases.iter().zip(seen) {
        let speed = median(speeds);
        print!("  {name:20} median {:.0} us, 99% {:.0} us", median(half), median(most));
        match transfers {
            [0, 0] => println!(),
            _ => println!(
                "; {:.0} MB/s each way, at which the bound of pacing is {:.0} us",
                speed / 1e6,
                bound / speed * 1e6
            ),
        }
    }
    println!();
}

/// Bytes a second.
fn speed(done: &Done) -> f64 {
    (done.transfers as usize * alone::TRANSFER) as f64 / done.elapsed.as_secs_f64()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// What goes over the link for a mirrored write, in both directions together. Heartbeats and releases are in it.
fn writes() {
    let cell = Cell::start(cell::Shape {
        disks: 8,
        disk_size: "1G",
        cache: "64M",
    });
    let lun = cell.lun("writes", "64M", "vraid1");
    let url = |url: String| url.parse::<Url>().expect("a URL");
    let owner = cell.owner("writes");
    let [iscsi, nbd] = [cell.iscsi_url(&lun, &owner), cell.nbd_url(&lun, &owner)].map(url);
    println!(
        "On the link for a mirrored write, both directions together, {} s each",
        ROUND.as_secs()
    );
    println!(
        "                  depth    writes/s  messages  frames with them  of all kinds      bytes  of them payload  copied"
    );
    for (name, url, blocks) in [
        ("4 KiB, iSCSI", &iscsi, 8),
        ("128 KiB, iSCSI", &iscsi, 256),
        ("4 KiB, NBD", &nbd, 8),
        ("128 KiB, NBD", &nbd, 256),
    ] {
        for depth in [1, 32] {
            let load = Load {
                operation: Operation::Write,
                pattern: Pattern::Random,
                blocks,
                depth,
                duration: ROUND,
                span: SPAN,
            };
            let mut device = url.connect(CONNECT).unwrap_or_else(|e| panic!("{url}: {e}"));
            let before = counts(&cell);
            let figures = run(device.as_mut(), &load).unwrap_or_else(|e| panic!("{url}: {e}"));
            let after = counts(&cell);
            device.close(Duration::from_secs(1));
            let per = |n: usize| (after[n] - before[n]) as f64 / figures.requests as f64;
            println!(
                "  {name:15} {depth:5} {:11.0} {:9.2} {:17.2} {:13.2} {:10.0} {:16} {:7.0}",
                figures.iops(),
                per(0),
                per(1),
                per(2),
                per(3),
                blocks * 512,
                per(4)
            );
        }
    }
}

/// Messages, frames with them, frames of all kinds, and bytes that both controllers have sent; and bytes of payload that
/// they copied in memory for it.
fn counts(cell: &Cell) -> [u64; 5] {
    let list = cell.json(&["link", "list"]);
    let sum = |name: &str| {
        let of = list["counters"].as_array().expect("a list").iter();
        of.map(|c| c[name].as_u64().expect("a count")).sum()
    };
    ["messages", "frames", "frames_sent", "bytes_sent", "bytes_copied"].map(sum)
}

/// How long hosts wait when the path that carries the messages fails under load.
fn switches() {
    println!(
        "\nThe active path fails under a verifying load: longest time without an acknowledged write, {SWITCHES} times"
    );
    let link = TwoPaths::start();
    type Fault = (&'static str, fn(&Proxy));
    let faults: [Fault; 3] = [
        ("cut", Proxy::cut),
        ("silent", |p| p.swallow(&Way::BOTH)),
        ("silent one way", |p| p.swallow(&[Way::ToB])),
    ];
    for (what, fault) in faults {
        let pause = |_| link.suffer(what, fault).pause.as_secs_f64() * 1e3;
        let mut pauses: Vec<f64> = (0..SWITCHES).map(pause).collect();
        pauses.sort_by(f64::total_cmp);
        println!(
            "  {what:15} median {:.0} ms, worst {:.0} ms",
            pauses[SWITCHES / 2],
            pauses[SWITCHES - 1]
        );
    }
    println!("  sent again: {} frames", link.count("resent"));
    link.end();
}
