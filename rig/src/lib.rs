//! Real cells for tests: directories, ports and processes of their own, and what hosts do to them.
#![warn(missing_docs)]

pub mod cell;
pub mod image;
pub mod kill;
pub mod ports;
pub mod tgt;
pub mod tool;

use std::time::{Duration, Instant};

/// Waits until `poll` gives something, and says what it waited for if that does not come in time. `poll` answers with
/// what it sees while it is not there yet.
pub fn wait_for<T>(what: &str, limit: Duration, mut poll: impl FnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        match poll() {
            Ok(found) => return found,
            Err(seen) if Instant::now() > deadline => panic!("waited {limit:?} for {what}; last seen: {seen}"),
            Err(_) => std::thread::sleep(Duration::from_millis(25)),
        }
    }
}
