//! The checker against a server that behaves, and against servers that do not: each fault must be found.

mod support;

use std::time::{Duration, Instant};

use support::{Fault, Medium, Server};
use twincell_client::Url;
use twincell_client::checker::{Checker, Options, Regions, Report, replay};
use twincell_client::multipath::Timing;

const BYTES: usize = 8 << 20;

fn options(urls: Vec<Url>, seed: u64) -> Options {
    Options {
        urls,
        writers: 4,
        readers: 2,
        regions: Regions::Shared,
        region: 0..BYTES as u64 / 512,
        seed,
        history: None,
        timing: Timing::default(),
    }
}

/// Runs the load until `enough`, or until it stops by itself, then reads everything back through all paths.
fn check(options: Options, enough: impl Fn(&Report) -> bool) -> Report {
    let urls = options.urls.clone();
    let mut checker = Checker::start(options).unwrap();
    let until = Instant::now() + Duration::from_secs(30);
    while checker.is_running() && !enough(&checker.report()) {
        assert!(
            Instant::now() < until,
            "waited 30 s for a violation or enough work: {}",
            checker.report()
        );
        std::thread::sleep(Duration::from_millis(10));
    }
    checker.stop();
    for url in &urls {
        checker.verify_all(url).unwrap();
    }
    checker.report()
}

fn a_thousand_writes(report: &Report) -> bool {
    report.writes >= 1000
}

#[test]
fn a_sound_server_passes_through_two_paths() {
    let medium = Medium::new(BYTES);
    let servers = [Server::start(&medium, Fault::None), Server::start(&medium, Fault::None)];
    let urls: Vec<Url> = servers.iter().map(Server::url).collect();
    for regions in [Regions::Own, Regions::Shared] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("history");
        let run = Options {
            regions,
            history: Some(path.clone()),
            ..options(urls.clone(), regions as u64)
        };
        let report = check(run, a_thousand_writes);
        assert!(report.is_sound(), "{report}");
        assert_eq!(report.failed_tries, 0);
        assert!(report.paths.iter().all(|n| *n > 300), "both paths are used: {report}");
        assert!(report.blocks_verified >= 2 * BYTES as u64 / 512);
        assert_eq!(replay(&path).unwrap().violations(), 0);
    }
}

#[test]
fn connections_that_end_are_no_violation() {
    let medium = Medium::new(BYTES);
    let servers = [
        Server::start(&medium, Fault::Disconnect(20)),
        Server::start(&medium, Fault::None),
    ];
    let report = check(options(servers.iter().map(Server::url).collect(), 1), a_thousand_writes);
    assert!(report.is_sound(), "{report}");
    assert!(report.failed_tries > 0, "{report}");
}

#[test]
fn every_fault_is_found() {
    let faults = [
        Fault::Tear(50),
        Fault::Lose(50),
        Fault::Stale(50),
        Fault::Misdirect(50),
        Fault::Late(50),
    ];
    for fault in faults {
        let medium = Medium::new(BYTES);
        let servers = [Server::start(&medium, fault), Server::start(&medium, Fault::None)];
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("history");
        let run = Options {
            history: Some(path.clone()),
            ..options(servers.iter().map(Server::url).collect(), 1)
        };
        let report = check(run, |r| r.writes >= 20_000);
        assert!(report.violations > 0, "{fault:?} was not found: {report}");
        // A misdirected write shows in the blocks themselves, which are not in the history.
        if !matches!(fault, Fault::Misdirect(_)) {
            assert!(replay(&path).unwrap().violations() > 0, "{fault:?}");
        }
    }
}

#[test]
fn a_region_beyond_the_end_is_refused() {
    let medium = Medium::new(BYTES);
    let server = Server::start(&medium, Fault::None);
    let run = Options {
        region: 0..BYTES as u64 / 512 + 1,
        ..options(vec![server.url()], 1)
    };
    assert!(Checker::start(run).is_err());
}
