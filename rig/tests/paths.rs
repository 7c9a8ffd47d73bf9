//! Two paths between the controllers, under a load that checks every byte: one of them fails in every way, and hosts see
//! no error, and no pause longer than the time-out of a path.

use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;
use twincell_rig::noise::Noise;
use twincell_rig::paths::{PATH_TIMEOUT, TwoPaths};
use twincell_rig::proxy::{Proxy, Way};

/// What a pause may be longer than the time-out of a path: the partner may find out a moment later, and hosts take a
/// moment to write again.
const MARGIN: Duration = Duration::from_millis(150);

type Fault = fn(&Proxy);

/// Everything that makes a path one that messages must leave.
const FAULTS: [(&str, Fault); 7] = [
    ("cut", Proxy::cut),
    ("late", |p| p.delay(Duration::from_millis(1000))),
    ("one way, to B", |p| p.swallow(&[Way::ToA])),
    ("one way, to A", |p| p.swallow(&[Way::ToB])),
    ("silent", |p| p.swallow(&Way::BOTH)),
    ("not read", |p| p.hold(&Way::BOTH)),
    ("not read by A", |p| p.hold(&[Way::ToA])),
];

#[test]
fn a_path_fails_and_no_host_notices() {
    let link = TwoPaths::start();
    let noise = Noise::start(link.cell.scratch()).expect("a file in the cell's directory");
    let record = link.cell.status()["cell"]["epoch"].clone();
    for (what, fault) in FAULTS {
        noise.take_longest();
        let suffered = link.suffer(what, fault);
        let noise = noise.take_longest().longer();
        println!("{what:14} {suffered:?}, noise {noise:?}");
        let most = PATH_TIMEOUT + MARGIN + 2 * noise;
        assert!(suffered.pause <= most, "{what}: {suffered:?}, and {most:?} is the most");
    }
    // What does not make messages leave the path is not noticed, either.
    link.begin();
    link.proxies[0].delay(Duration::from_millis(20));
    link.go_on("a slow path", 20);
    link.proxies[0].heal();
    let (mut tries, before) = (0, link.count("garbled"));
    while link.count("garbled") == before {
        assert!(tries < 20, "nothing was garbled but headers: {}", link.list());
        // Most of what is large is payload.
        link.proxies[0].garble(Way::BOTH[tries % 2], 8 * 20_000 + 3);
        tries += 1;
        link.go_on("garbled frames", 10);
        link.until_on("a garbled frame", 0);
    }
    let pause = link.pause("slow and garbled");
    let most = PATH_TIMEOUT + MARGIN + 2 * noise.take_longest().longer();
    assert!(pause <= most, "a pause of {pause:?}");
    println!("slow, garbled  pause {pause:?}");

    assert!(link.count("resent") > 0, "{}", link.list());
    assert_eq!(link.cell.status()["cell"]["epoch"], record, "hosts were taken over");
    println!("{}", link.cell.twincell(&["link", "list"]).success().stdout);
    link.end();
}

#[test]
fn strangers_at_the_port_of_the_link_are_not_noticed() {
    let link = TwoPaths::start();
    let moves = link.count("moves");
    link.begin();
    let list = link.list();
    let of_a: Vec<&str> = list["paths"].as_array().expect("a list")[..2]
        .iter()
        .map(|p| p["own"].as_str().expect("an address"))
        .collect();
    let mut strangers = Vec::new();
    for n in 0..100 {
        let mut stranger = TcpStream::connect(of_a[n % 2]).expect("A listens");
        if n % 4 > 1 {
            // It may be gone already.
            let _ = stranger.write_all(b"GET / HTTP/1.1\r\nHost: array.example\r\n\r\n");
        }
        strangers.push(stranger);
        link.go_on("strangers", 2);
    }
    let pause = link.pause("strangers");
    assert!(pause < PATH_TIMEOUT, "a pause of {pause:?}");
    assert_eq!(link.count("moves"), moves, "{}", link.list());
    link.end();
}
