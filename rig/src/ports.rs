//! Ports that no other test uses, while this one lives.

use rustix::fs::{FlockOperation, flock};
use std::fs::File;
use std::net::TcpListener;

/// Ports of one reservation.
const COUNT: u16 = 16;
/// Below the ports that the kernel gives to outgoing connections, and beside those that `cell create` chooses.
const FIRST: u16 = 12_000;
const RESERVATIONS: u16 = 400;

/// A few ports, reserved among all tests of this machine.
#[derive(Debug)]
pub struct Ports {
    first: u16,
    /// The lock is the reservation; it ends with the process at the latest.
    _lock: File,
}

impl Ports {
    /// Reserves some.
    pub fn reserve() -> Ports {
        let dir = std::env::temp_dir().join("twincell-rig-ports");
        std::fs::create_dir_all(&dir).expect("a directory for reservations");
        for slot in 0..RESERVATIONS {
            let lock = File::options()
                .create(true)
                .truncate(false)
                .write(true)
                .open(dir.join(slot.to_string()));
            let lock = lock.expect("a file for a reservation");
            let first = FIRST + slot * COUNT;
            if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok() && all_free(first) {
                return Ports { first, _lock: lock };
            }
        }
        panic!("no ports are free between {FIRST} and {}", FIRST + RESERVATIONS * COUNT);
    }

    /// Port `n`, 0 to 15.
    pub fn get(&self, n: u16) -> u16 {
        assert!(n < COUNT);
        self.first + n
    }
}

fn all_free(first: u16) -> bool {
    (first..first + COUNT).all(|port| TcpListener::bind(("127.0.0.1", port)).is_ok())
}
