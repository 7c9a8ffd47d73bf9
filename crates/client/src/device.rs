//! A LUN behind one connection, whatever the protocol: requests in, completions out, many at a time.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::error::{Error, Refusal};

/// Bytes in a block.
pub const BLOCK_BYTES: usize = 512;

/// Data of a write: shared, because a write may be tried again.
pub type Data = Arc<Vec<u8>>;

/// What a device can do.
#[derive(Clone, Debug)]
pub enum Request {
    /// Read blocks.
    Read {
        /// First block.
        start: u64,
        /// How many, at least 1.
        blocks: u32,
    },
    /// Write whole blocks.
    Write {
        /// First block.
        start: u64,
        /// Whole blocks, at least one.
        data: Data,
        /// Acknowledged only when on disk.
        fua: bool,
    },
    /// Acknowledged when everything acknowledged before is on disk.
    Flush,
}

/// How a request ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Completion {
    /// What `submit` returned.
    pub tag: u64,
    /// Data of a read (empty otherwise), or why not.
    pub result: Result<Vec<u8>, Refusal>,
}

/// A LUN behind one connection. After an error that is not `Refused` it is of no use any more and should be closed.
pub trait Device: Send {
    /// Size in blocks.
    fn blocks(&self) -> u64;
    /// Changes how long requests that are submitted from now on may go unanswered; at first it is what `connect` was
    /// given.
    fn set_timeout(&mut self, timeout: Duration);
    /// Starts a request.
    fn submit(&mut self, request: Request) -> Result<u64, Error>;
    /// The next completion, in whatever order they come. `None` if there is none until `until`. `TimedOut` if a request
    /// has gone unanswered for longer than the connection's time-out.
    fn wait(&mut self, until: Instant) -> Result<Option<Completion>, Error>;
    /// Ends the connection; waits up to `grace` until the other side has closed it too.
    fn close(self: Box<Self>, grace: Duration);
}

/// Carries out one request on a device with none outstanding.
pub fn execute(device: &mut dyn Device, request: Request) -> Result<Vec<u8>, Error> {
    let tag = device.submit(request)?;
    loop {
        let completion = device.wait(Instant::now() + Duration::from_secs(3600))?;
        match completion {
            Some(done) if done.tag == tag => return Ok(done.result?),
            Some(done) => return Err(Error::Protocol(format!("an answer to {} instead of {tag}", done.tag))),
            None => {}
        }
    }
}

/// When the outstanding requests of a connection are overdue, in order of their start.
#[derive(Default)]
pub(crate) struct Deadlines(VecDeque<(Instant, u64)>);

impl Deadlines {
    /// Request `tag` is overdue at `at`, which is not before that of any earlier request.
    pub fn push(&mut self, at: Instant, tag: u64) {
        self.0.push_back((at, tag));
    }

    /// When the first request that is still outstanding is overdue.
    pub fn first(&mut self, is_outstanding: impl Fn(u64) -> bool) -> Option<Instant> {
        while let Some((at, tag)) = self.0.front() {
            if is_outstanding(*tag) {
                return Some(*at);
            }
            self.0.pop_front();
        }
        None
    }
}
