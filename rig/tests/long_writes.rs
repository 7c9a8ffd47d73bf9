//! NBD clients that send as much as they may: all of it is written, and costs the controller no memory to speak of.

use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use twincell_client::Url;
use twincell_client::device::{Device, Request, execute};
use twincell_rig::cell::{Cell, Shape, own_memory};

/// The longest write that there is, and how many of them each client sends without waiting for an answer: half a GiB in all.
const BYTES: usize = 32 << 20;
const WRITES: [u64; 3] = [12, 2, 2];
/// What the controller may need for them: what three connections keep, and some.
const GROWTH_MAX: u64 = 160 << 20;
/// How long all of it may take.
const PATIENCE: Duration = Duration::from_secs(180);

fn data(client: u64, write: u64) -> Vec<u8> {
    let word = |n: u64| (client << 56 | write << 48 | n).to_le_bytes();
    (0..BYTES as u64 / 8).flat_map(word).collect()
}

fn connect(url: &str) -> Box<dyn Device> {
    Url::from_str(url).unwrap().connect(PATIENCE).unwrap()
}

/// Sends everything, and then looks for the answers.
fn write_all(url: &str, client: u64, start: u64) {
    let mut device = connect(url);
    for write in 0..WRITES[client as usize] {
        let data = data(client, write).into();
        device
            .submit(Request::Write {
                start,
                data,
                fua: false,
            })
            .unwrap();
    }
    for _ in 0..WRITES[client as usize] {
        let answer = device.wait(Instant::now() + PATIENCE).unwrap().expect("an answer");
        answer.result.unwrap_or_else(|e| panic!("client {client}: {e}"));
    }
    // They were all outstanding at once: any may be the last.
    let blocks = BYTES as u32 / 512;
    let read = execute(device.as_mut(), Request::Read { start, blocks }).unwrap();
    let is_of = |write: u64, at: usize| data(client, write)[at..at + 512] == read[at..at + 512];
    for at in [0, BYTES / 2, BYTES - 512] {
        assert!((0..WRITES[client as usize]).any(|write| is_of(write, at)), "at {at}");
    }
}

#[test]
fn who_sends_as_much_as_it_may_is_never_refused_and_costs_little_memory() {
    let cell = Cell::start(Shape::default());
    let lun = cell.lun("data", "96M", "vraid1");
    let url = cell.nbd_url(&lun, "A");
    let pid = cell.pid("A").unwrap();
    let before = own_memory(pid);
    let done = Arc::new(AtomicBool::new(false));
    let watch = thread::spawn({
        let done = done.clone();
        move || {
            let mut most = 0;
            while !done.load(Ordering::Relaxed) {
                most = most.max(own_memory(pid));
                thread::sleep(Duration::from_millis(5));
            }
            most
        }
    });
    thread::scope(|scope| {
        for client in 0..WRITES.len() as u64 {
            let url = &url;
            scope.spawn(move || write_all(url, client, client * BYTES as u64 / 512));
        }
    });
    done.store(true, Ordering::Relaxed);
    let grown = watch.join().unwrap().saturating_sub(before);
    println!("{} MiB more", grown >> 20);
    assert!(grown < GROWTH_MAX, "{grown} bytes were kept");
}
