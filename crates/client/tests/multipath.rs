//! A volume over several paths, some of which do not work.

mod support;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use support::{Fault, Medium, Server, free_port};
use twincell_client::bench::{self, Load, Operation, Pattern};
use twincell_client::device::{Request, execute};
use twincell_client::multipath::{Timing, Volume};
use twincell_client::nbd::Nbd;
use twincell_client::{Error, Refusal, Url};

const BYTES: usize = 4 << 20;

fn quick() -> Timing {
    Timing {
        connect: Duration::from_millis(500),
        request: Duration::from_millis(300),
        close: Duration::from_millis(50),
        give_up: Duration::from_secs(2),
        ..Timing::default()
    }
}

fn nowhere() -> Url {
    format!("nbd://127.0.0.1:{}/vol", free_port()).parse().unwrap()
}

#[test]
fn a_silent_path_is_left_for_one_that_answers() {
    let medium = Medium::new(BYTES);
    let (silent, sound) = (
        Server::start(&medium, Fault::Silent),
        Server::start(&medium, Fault::None),
    );
    let mut volume = Volume::new(&[silent.url(), sound.url()], quick());
    let heard = Arc::new(Mutex::new(vec![]));
    let log = Arc::clone(&heard);
    volume.listen(Box::new(move |event| {
        log.lock().unwrap().push((event.path, event.error.clone()))
    }));
    let began = Instant::now();
    let ack = volume.write(8, Arc::new(vec![7; 4096]), true).unwrap();
    assert!(began.elapsed() >= Duration::from_millis(300));
    assert_eq!((ack.path, ack.tries), (1, 2));
    assert!(ack.acked > ack.submitted);
    assert_eq!(silent.commands(), 1);
    assert_eq!(volume.read(8, 8).unwrap().data, [7; 4096]);
    let heard = heard.lock().unwrap();
    assert!(
        matches!(heard.as_slice(), [(0, None), (0, Some(Error::TimedOut(_))), (1, None)]),
        "{heard:?}"
    );
}

#[test]
fn the_only_path_is_not_left_alone_for_long() {
    let address = format!("127.0.0.1:{}", free_port());
    let url: Url = format!("nbd://{address}/vol").parse().unwrap();
    // Long enough for the rest after each failure to have grown to two seconds.
    let outage = Duration::from_millis(2700);
    let server = std::thread::spawn(move || {
        std::thread::sleep(outage);
        let listener = std::net::TcpListener::bind(address).unwrap();
        let began = Instant::now();
        (Server::start_on(listener, &Medium::new(BYTES), Fault::None), began)
    });
    let patient = Timing {
        give_up: Duration::from_secs(30),
        ..quick()
    };
    let ack = Volume::new(&[url], patient).write(0, Arc::new(vec![7; 512]), false);
    let acked = ack.unwrap().acked;
    let (_, began) = server.join().unwrap();
    let waited = acked.saturating_duration_since(began);
    assert!(waited < Duration::from_secs(1), "{waited:?}");
}

#[test]
fn a_path_that_leads_nowhere_is_passed_over() {
    let medium = Medium::new(BYTES);
    let server = Server::start(&medium, Fault::None);
    let mut volume = Volume::new(&[nowhere(), server.url()], quick());
    for _ in 0..5 {
        volume.prefer(0);
        assert_eq!(volume.read(0, 1).unwrap().path, 1);
    }
    assert_eq!(volume.blocks().unwrap(), BYTES as u64 / 512);
    volume.flush().unwrap();
}

#[test]
fn without_any_path_it_gives_up_in_time() {
    let mut volume = Volume::new(&[nowhere(), nowhere()], quick());
    let began = Instant::now();
    assert!(matches!(volume.read(0, 1), Err(Error::Connection(_))));
    let took = began.elapsed();
    assert!(
        took >= Duration::from_secs(2) && took < Duration::from_secs(5),
        "{took:?}"
    );
}

#[test]
fn what_is_wrong_on_every_path_is_not_tried_again() {
    let medium = Medium::new(BYTES);
    let servers = [Server::start(&medium, Fault::None), Server::start(&medium, Fault::None)];
    let urls: Vec<Url> = servers.iter().map(Server::url).collect();
    let mut volume = Volume::new(&urls, quick());
    assert_eq!(
        volume.read(BYTES as u64 / 512, 1).unwrap_err(),
        Error::Refused(Refusal::Nbd(22))
    );
    let beyond = volume.write(BYTES as u64 / 512 - 1, Arc::new(vec![0; 1024]), false);
    assert_eq!(beyond.unwrap_err(), Error::Refused(Refusal::Nbd(28)));
    assert_eq!(servers[0].commands() + servers[1].commands(), 2);
}

#[test]
fn many_requests_at_a_time_over_one_connection() {
    let medium = Medium::new(BYTES);
    let server = Server::start(&medium, Fault::None);
    let mut device = server.url().connect(Duration::from_secs(5)).unwrap();
    for operation in [Operation::Write, Operation::Read] {
        for (pattern, blocks, depth) in [
            (Pattern::Sequential, 8, 1),
            (Pattern::Random, 8, 64),
            (Pattern::Random, 600, 16),
        ] {
            let load = Load {
                operation,
                pattern,
                blocks,
                depth,
                duration: Duration::from_millis(100),
                span: u64::MAX,
            };
            let figures = bench::run(device.as_mut(), &load).unwrap();
            assert!(figures.requests >= depth as u64, "{figures}");
            assert_eq!(figures.bytes, figures.requests * u64::from(blocks) * 512);
            assert_eq!(figures.latency.len(), figures.requests);
        }
    }
    let data: Vec<u8> = (0..600 * 512).map(|i| (i / 5) as u8).collect();
    let write = Request::Write {
        start: 3,
        data: Arc::new(data.clone()),
        fua: false,
    };
    execute(device.as_mut(), write).unwrap();
    assert_eq!(
        execute(device.as_mut(), Request::Read { start: 3, blocks: 600 }).unwrap(),
        data
    );
    device.close(Duration::from_secs(1));
}

#[test]
fn an_export_that_does_not_exist_is_refused() {
    let medium = Medium::new(BYTES);
    let server = Server::start(&medium, Fault::None);
    let refused = Nbd::connect(&server.address, "other", Duration::from_secs(5));
    assert!(matches!(refused, Err(Error::Connection(text)) if text.contains("other")));
    let export = Nbd::connect(&server.address, "", Duration::from_secs(5))
        .unwrap()
        .export();
    assert_eq!(export.bytes, BYTES as u64);
    assert_eq!(export.block_sizes, Some([512, 4096, 32 << 20]));
}
