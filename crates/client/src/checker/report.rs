//! What a run of the checker found.

use std::fmt;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

/// Latencies are kept from a microsecond up to this many.
const LATENCY_MAX: u64 = 600_000_000;

/// An empty histogram of microseconds, with three digits.
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_MAX, 3).expect("the bounds are constants")
}

/// Adds a latency to a histogram of microseconds.
pub fn record(histogram: &mut Histogram<u64>, latency: Duration) {
    histogram.saturating_record(u64::try_from(latency.as_micros()).unwrap_or(u64::MAX));
}

/// The longest time in which nothing was acknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gap {
    /// How long after the start of the run it began.
    pub after: Duration,
    /// How long it was.
    pub length: Duration,
}

/// What was done and found.
#[derive(Clone, Debug)]
pub struct Report {
    /// Acknowledged writes.
    pub writes: u64,
    /// Blocks of them.
    pub blocks_written: u64,
    /// Reads.
    pub reads: u64,
    /// Blocks of them, each of which was verified.
    pub blocks_verified: u64,
    /// Acknowledged flushes.
    pub flushes: u64,
    /// Tries that were not acknowledged, and were tried again.
    pub failed_tries: u64,
    /// Acknowledgements through each path.
    pub paths: Vec<u64>,
    /// The longest time without an acknowledged write, over all writers.
    pub longest_gap: Gap,
    /// Microseconds from the first try of a write to its acknowledgement.
    pub write_latency: Histogram<u64>,
    /// Microseconds from the first try of a read to its data.
    pub read_latency: Histogram<u64>,
    /// How many violations were found. A run is sound if this is 0 and `errors` is empty.
    pub violations: u64,
    /// The first of them, in words.
    pub told: Vec<String>,
    /// What kept the run from its work.
    pub errors: Vec<String>,
}

impl Report {
    /// Whether everything that was read was right, and nothing kept the run from its work.
    pub fn is_sound(&self) -> bool {
        self.violations == 0 && self.errors.is_empty()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} writes acknowledged ({} blocks), {} flushes",
            self.writes, self.blocks_written, self.flushes
        )?;
        writeln!(f, "{} reads, {} blocks verified", self.reads, self.blocks_verified)?;
        writeln!(
            f,
            "{} tries failed and were tried again; answers by path: {:?}",
            self.failed_tries, self.paths
        )?;
        let gap = self.longest_gap;
        writeln!(
            f,
            "longest time without an acknowledged write: {:.1?}, after {:.1?}",
            gap.length, gap.after
        )?;
        for (what, h) in [("write", &self.write_latency), ("read", &self.read_latency)] {
            let (p50, p99) = (h.value_at_quantile(0.5), h.value_at_quantile(0.99));
            writeln!(
                f,
                "{what} latency: median {p50} us, 99% {p99} us, longest {} us",
                h.max()
            )?;
        }
        writeln!(f, "{} violations", self.violations)?;
        self.told.iter().try_for_each(|text| writeln!(f, "  {text}"))?;
        self.errors.iter().try_for_each(|text| writeln!(f, "error: {text}"))
    }
}

/// Counts of a run in progress. All workers share one, under a lock.
pub struct Tally {
    report: Report,
    began: Instant,
    last_write: Instant,
    /// When the window began, and the longest gap in it.
    window: (Instant, Duration),
}

impl Tally {
    /// Nothing yet, over so many paths.
    pub fn new(paths: usize) -> Tally {
        let report = Report {
            writes: 0,
            blocks_written: 0,
            reads: 0,
            blocks_verified: 0,
            flushes: 0,
            failed_tries: 0,
            paths: vec![0; paths],
            longest_gap: Gap::default(),
            write_latency: histogram(),
            read_latency: histogram(),
            violations: 0,
            told: Vec::new(),
            errors: Vec::new(),
        };
        let began = Instant::now();
        Tally {
            report,
            began,
            last_write: began,
            window: (began, Duration::ZERO),
        }
    }

    /// A write of `blocks` blocks, begun at `began`, was acknowledged at `acked`.
    pub fn write(&mut self, blocks: u32, began: Instant, acked: Instant, path: usize) {
        self.report.writes += 1;
        self.report.blocks_written += u64::from(blocks);
        self.report.paths[path] += 1;
        record(&mut self.report.write_latency, acked.saturating_duration_since(began));
        let length = acked.saturating_duration_since(self.last_write);
        if length > self.report.longest_gap.length {
            let after = self.last_write - self.began;
            self.report.longest_gap = Gap { after, length };
        }
        let in_window = acked.saturating_duration_since(self.last_write.max(self.window.0));
        self.window.1 = self.window.1.max(in_window);
        self.last_write = self.last_write.max(acked);
    }

    /// The longest time without an acknowledged write since this was last asked, one that still lasts included.
    pub fn take_window(&mut self) -> Duration {
        let now = Instant::now();
        let lasting = now.saturating_duration_since(self.last_write.max(self.window.0));
        let (_, longest) = std::mem::replace(&mut self.window, (now, Duration::ZERO));
        longest.max(lasting)
    }

    /// A read of `blocks` blocks, begun at `began`, was answered at `acked`.
    pub fn read(&mut self, blocks: u32, began: Instant, acked: Instant, path: usize) {
        self.report.reads += 1;
        self.report.blocks_verified += u64::from(blocks);
        self.report.paths[path] += 1;
        record(&mut self.report.read_latency, acked.saturating_duration_since(began));
    }

    /// A flush was acknowledged.
    pub fn flush(&mut self, path: usize) {
        self.report.flushes += 1;
        self.report.paths[path] += 1;
    }

    /// A try failed.
    pub fn failed_try(&mut self) {
        self.report.failed_tries += 1;
    }

    /// Something kept a worker from its work.
    pub fn error(&mut self, text: String) {
        self.report.errors.push(text);
    }

    /// The counts so far; a gap that still lasts is in them.
    pub fn report(&self, writing: bool) -> Report {
        let mut report = self.report.clone();
        let length = self.last_write.elapsed();
        if writing && length > report.longest_gap.length {
            let after = self.last_write - self.began;
            report.longest_gap = Gap { after, length };
        }
        report
    }
}
