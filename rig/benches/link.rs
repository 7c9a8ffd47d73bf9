//! The figures of the link between the controllers, with real processes.

use std::process::ExitCode;
use std::time::Duration;
use twincell_client::Url;
use twincell_client::bench::{Load, Operation, Pattern, run};
use twincell_rig::cell::{Cell, Shape};
use twincell_rig::paths::TwoPaths;
use twincell_rig::proxy::{Proxy, Way};

const CONNECT: Duration = Duration::from_secs(10);
const ROUND: Duration = Duration::from_secs(2);
/// A quarter of the cache, so that it is all there is to it.
const SPAN: u64 = (16 << 20) / 512;
/// Path switches of each kind.
const SWITCHES: usize = 10;

fn main() -> ExitCode {
    println!(
        "{} processors\n",
        std::thread::available_parallelism().map_or(0, usize::from)
    );
    writes();
    switches();
    ExitCode::SUCCESS
}

/// What goes over the link for a mirrored write, in both directions together. Heartbeats and releases are in it.
fn writes() {
    let cell = Cell::start(Shape {
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
        "                  depth    writes/s  messages  frames with them  of all kinds      bytes  of them payload"
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
                "  {name:15} {depth:5} {:11.0} {:9.2} {:17.2} {:13.2} {:10.0} {:16}",
                figures.iops(),
                per(0),
                per(1),
                per(2),
                per(3),
                blocks * 512
            );
        }
    }
}

/// Messages, frames with them, frames of all kinds, and bytes that both controllers have sent.
fn counts(cell: &Cell) -> [u64; 4] {
    let list = cell.json(&["link", "list"]);
    let sum = |name: &str| {
        let of = list["counters"].as_array().expect("a list").iter();
        of.map(|c| c[name].as_u64().expect("a count")).sum()
    };
    ["messages", "frames", "frames_sent", "bytes_sent"].map(sum)
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
