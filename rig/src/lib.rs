//! Real cells for tests: directories, ports and processes of their own, and what hosts do to them.
#![warn(missing_docs)]

pub mod alone;
pub mod bed;
pub mod campaign;
pub mod cell;
pub mod fault;
pub mod image;
mod keeper;
pub mod loop_device;
pub mod noise;
pub mod paths;
pub mod ports;
pub mod proxy;
pub mod restart;
pub mod shelf;
mod strike;
pub mod tally;
pub mod tgt;
pub mod tool;

use std::time::{Duration, Instant};

/// Waits until `poll` gives something, and says what it waited for if that does not come in time. `poll` answers with
/// what it sees while it is not there yet.
pub fn poll_for<T>(what: &str, limit: Duration, mut poll: impl FnMut() -> Result<T, String>) -> Result<T, String> {
    let deadline = Instant::now() + limit;
    loop {
        match poll() {
            Ok(found) => return Ok(found),
            Err(seen) if Instant::now() > deadline => {
                return Err(format!("waited {limit:?} for {what}; last seen: {seen}"));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(25)),
        }
    }
}

/// Like `poll_for`; what does not come fails the test.
#[track_caller]
pub fn wait_for<T>(what: &str, limit: Duration, poll: impl FnMut() -> Result<T, String>) -> T {
    poll_for(what, limit, poll).unwrap_or_else(|e| panic!("{e}"))
}
