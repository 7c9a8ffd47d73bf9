//! A load generator that checks every byte it reads.
//!
//! Several threads write stamped blocks ([`stamp`]) of random size at random places through all paths in turn, read
//! them back in between, and judge all of it by one rule ([`history`]). At the end everything is read back through each
//! path. A run stops at its first violation.

pub mod history;
mod recorder;
mod report;
pub mod stamp;
mod worker;

use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

pub use recorder::replay;
pub use report::{Gap, Report};
pub(crate) use report::{histogram, record};
pub use worker::Random;

use crate::error::Error;
use crate::multipath::{Timing, Volume};
use crate::url::Url;
use recorder::Recorder;
use report::Tally;
use worker::Worker;

/// Blocks of one read of `verify_all`.
const VERIFY_BLOCKS: u64 = 256;

/// Where the writers write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Regions {
    /// Each in its own part of the region, where it also reads. Without further readers nothing is read while it is
    /// written: a server that does not keep even single blocks whole then can be checked like this.
    Own,
    /// All everywhere: their writes overlap.
    Shared,
}

/// A run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Paths to one LUN.
    pub urls: Vec<Url>,
    /// Threads that write, and read in between.
    pub writers: u32,
    /// Threads that only read.
    pub readers: u32,
    /// Where the writers write.
    pub regions: Regions,
    /// The blocks of the LUN that are used. What they hold before is not looked at, and lost. The checker needs some
    /// 100 bytes of memory for each.
    pub region: Range<u64>,
    /// Names the run: it is in every stamp, and the load follows from it. A LUN must not see the same seed twice.
    pub seed: u64,
    /// The file that the history goes to, for [`replay`].
    pub history: Option<PathBuf>,
    /// How long to wait for what.
    pub timing: Timing,
}

/// What the workers share.
pub(crate) struct Shared {
    recorder: Mutex<Recorder>,
    tally: Mutex<Tally>,
    stop: AtomicBool,
    seed: u64,
}

impl Shared {
    fn recorder(&self) -> MutexGuard<'_, Recorder> {
        self.recorder.lock().expect("no worker panics with the lock")
    }

    fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().expect("no worker panics with the lock")
    }
}

/// A run in progress.
pub struct Checker {
    options: Options,
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
}

impl Checker {
    /// Starts the load. An error if the region is too small or beyond the end of the LUN, or the history file cannot
    /// be made.
    pub fn start(options: Options) -> Result<Checker, Error> {
        let blocks = Volume::new(&options.urls, options.timing).blocks()?;
        let room = options.region.end.saturating_sub(options.region.start);
        if options.region.end > blocks || room < u64::from(options.writers.max(1)) {
            return Err(Error::Connection(format!(
                "blocks {:?} of a LUN of {blocks}",
                options.region
            )));
        }
        let recorder = Recorder::new(options.seed, options.history.as_deref())
            .map_err(|e| Error::Connection(format!("the history file: {e}")))?;
        let shared = Arc::new(Shared {
            recorder: Mutex::new(recorder),
            tally: Mutex::new(Tally::new(options.urls.len())),
            stop: AtomicBool::new(false),
            seed: options.seed,
        });
        let spawn = |number: u32| {
            let worker = Worker::new(number, &options, Arc::clone(&shared));
            let writes = number < options.writers;
            std::thread::spawn(move || worker.run(writes))
        };
        let workers = (0..options.writers + options.readers).map(spawn).collect();
        Ok(Checker {
            options,
            shared,
            workers,
        })
    }

    /// Whether the load still runs: it ends by itself when something is wrong.
    pub fn is_running(&self) -> bool {
        !self.workers.is_empty() && !self.shared.stop.load(Ordering::Relaxed)
    }

    /// What was done and found so far.
    pub fn report(&self) -> Report {
        let mut report = self.shared.tally().report(self.is_running());
        let recorder = self.shared.recorder();
        report.violations = recorder.history().violations();
        report.told = recorder.history().told().to_vec();
        report.errors.extend(recorder.failure().map(str::to_string));
        report
    }

    /// The longest time without an acknowledged write since this was last asked, or since the start; one that still
    /// lasts is included. A gap that began before counts from the question on.
    pub fn take_longest_gap(&self) -> Duration {
        self.shared.tally().take_window()
    }

    /// Ends the load and waits for what is in progress.
    pub fn stop(&mut self) -> Report {
        self.shared.stop.store(true, Ordering::Relaxed);
        for worker in self.workers.drain(..) {
            if worker.join().is_err() {
                self.shared.tally().error("a worker panicked".into());
            }
        }
        let mut recorder = self.shared.recorder();
        recorder.quiet();
        recorder.flush();
        drop(recorder);
        self.report()
    }

    /// Reads the whole region through `url` alone and judges it. The load must have been stopped.
    pub fn verify_all(&mut self, url: &Url) -> Result<Report, Error> {
        assert!(self.workers.is_empty(), "the load still runs");
        let mut volume = Volume::new(std::slice::from_ref(url), self.options.timing);
        let region = self.options.region.clone();
        for start in region.clone().step_by(VERIFY_BLOCKS as usize) {
            let blocks = VERIFY_BLOCKS.min(region.end - start);
            worker::read_and_judge(&mut volume, &self.shared, start, blocks as u32)?;
        }
        volume.close();
        self.shared.recorder().flush();
        Ok(self.report())
    }
}

impl Drop for Checker {
    /// No thread outlives the run.
    fn drop(&mut self) {
        if !self.workers.is_empty() {
            self.stop();
        }
    }
}
