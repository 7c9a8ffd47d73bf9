//! Load without checks, for figures: a closed loop of a fixed depth over one connection.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::checker::{Random, histogram, record};
use crate::device::{BLOCK_BYTES, Data, Device, Request};
use crate::error::{Error, Refusal};

/// What each request does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Reads.
    Read,
    /// Writes.
    Write,
}

/// Where the requests go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pattern {
    /// One after the other, from the beginning again at the end.
    Sequential,
    /// Anywhere, aligned to their size.
    Random,
}

/// A load.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// What.
    pub operation: Operation,
    /// Where.
    pub pattern: Pattern,
    /// Blocks of each request, at least 1.
    pub blocks: u32,
    /// Requests in flight, at least 1.
    pub depth: usize,
    /// How long to run.
    pub duration: Duration,
    /// Blocks of the LUN that are used, from the first on; at most all.
    pub span: u64,
}

/// What a load achieved.
#[derive(Clone, Debug)]
pub struct Figures {
    /// Microseconds from submission to answer.
    pub latency: Histogram<u64>,
    /// Requests answered.
    pub requests: u64,
    /// Bytes moved.
    pub bytes: u64,
    /// How long it took.
    pub elapsed: Duration,
}

impl Figures {
    /// Nothing yet.
    pub(crate) fn new() -> Figures {
        Figures {
            latency: histogram(),
            requests: 0,
            bytes: 0,
            elapsed: Duration::ZERO,
        }
    }

    /// One more request.
    pub(crate) fn count(&mut self, bytes: usize, latency: Duration) {
        self.requests += 1;
        self.bytes += bytes as u64;
        record(&mut self.latency, latency);
    }

    /// Requests a second.
    pub fn iops(&self) -> f64 {
        self.requests as f64 / self.elapsed.as_secs_f64()
    }

    /// Millions of bytes a second.
    pub fn megabytes_per_second(&self) -> f64 {
        self.bytes as f64 / 1e6 / self.elapsed.as_secs_f64()
    }
}

impl std::fmt::Display for Figures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let at = |q| self.latency.value_at_quantile(q);
        write!(
            f,
            "{:.0} IOPS, {:.1} MB/s, median {} us, ",
            self.iops(),
            self.megabytes_per_second(),
            at(0.5)
        )?;
        write!(
            f,
            "99% {} us, 99.9% {} us, longest {} us",
            at(0.99),
            at(0.999),
            self.latency.max()
        )
    }
}

/// Runs a load on a device with nothing outstanding, and waits for all that it started.
pub fn run(device: &mut dyn Device, load: &Load) -> Result<Figures, Error> {
    let slots = load.span.min(device.blocks()) / u64::from(load.blocks.max(1));
    if slots == 0 || load.depth == 0 || load.blocks == 0 {
        return Err(Refusal::Unsupported.into());
    }
    let mut places = Places {
        pattern: load.pattern,
        slots,
        next: 0,
        random: Random::new(1, 0),
    };
    let data: Data = Arc::new((0..load.blocks as usize * BLOCK_BYTES).map(|i| i as u8).collect());
    let mut begun = Vec::new();
    let start = Instant::now();
    let end = start + load.duration;
    let mut figures = Figures::new();
    for _ in 0..load.depth {
        submit(device, load, places.next(), &data, &mut begun)?;
    }
    while !begun.is_empty() {
        let Some(completion) = device.wait(Instant::now() + Duration::from_secs(60))? else {
            continue;
        };
        completion.result?;
        let now = Instant::now();
        let found = begun.iter().position(|(tag, _)| *tag == completion.tag);
        let index = found.ok_or_else(|| Error::Protocol(format!("an answer to {}", completion.tag)))?;
        let (_, submitted) = begun.swap_remove(index);
        figures.count(data.len(), now - submitted);
        if now < end {
            submit(device, load, places.next(), &data, &mut begun)?;
        }
    }
    figures.elapsed = start.elapsed();
    Ok(figures)
}

fn submit(
    device: &mut dyn Device,
    load: &Load,
    slot: u64,
    data: &Data,
    begun: &mut Vec<(u64, Instant)>,
) -> Result<(), Error> {
    let start = slot * u64::from(load.blocks);
    let request = match load.operation {
        Operation::Read => Request::Read {
            start,
            blocks: load.blocks,
        },
        Operation::Write => Request::Write {
            start,
            data: Arc::clone(data),
            fua: false,
        },
    };
    let now = Instant::now();
    begun.push((device.submit(request)?, now));
    Ok(())
}

struct Places {
    pattern: Pattern,
    slots: u64,
    next: u64,
    random: Random,
}

impl Places {
    fn next(&mut self) -> u64 {
        match self.pattern {
            Pattern::Random => self.random.below(self.slots),
            Pattern::Sequential => {
                let slot = self.next;
                self.next = (slot + 1) % self.slots;
                slot
            }
        }
    }
}
