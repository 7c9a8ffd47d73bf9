//! One thread of the load: a volume of its own, one request at a time.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::stamp::Stamp;
use super::{Options, Regions, Shared};
use crate::device::Request;
use crate::error::Error;
use crate::multipath::{Ack, Volume};

/// The longest request in blocks: 1 MiB.
const LARGE_MAX: u64 = 2048;

/// A small generator of numbers: the same seed, the same load.
pub struct Random(u64);

impl Random {
    /// Stream `stream` of `seed`.
    pub fn new(seed: u64, stream: u64) -> Random {
        Random(seed ^ stream.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    /// A number below `n`, which is not 0.
    pub fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (x ^ (x >> 31)) % n
    }
}

/// A worker.
pub struct Worker {
    number: u32,
    volume: Volume,
    random: Random,
    shared: Arc<Shared>,
    /// Blocks that it writes and reads.
    own: std::ops::Range<u64>,
}

impl Worker {
    /// Worker `number` of a run; the first `writers` write.
    pub fn new(number: u32, options: &Options, shared: Arc<Shared>) -> Worker {
        let own = match options.regions {
            Regions::Own if number < options.writers => {
                let share = (options.region.end - options.region.start) / u64::from(options.writers);
                let start = options.region.start + share * u64::from(number);
                start..start + share
            }
            _ => options.region.clone(),
        };
        Worker {
            number,
            volume: Volume::new(&options.urls, options.timing),
            random: Random::new(options.seed, u64::from(number)),
            shared,
            own,
        }
    }

    /// Works until told to stop.
    pub fn run(mut self, writes: bool) {
        let mut turn = self.number as usize;
        while !self.shared.stop.load(Ordering::Relaxed) {
            turn += 1;
            self.volume.prefer(turn);
            let result = match self.random.below(64) {
                0 if writes => self.flush(),
                1..44 if writes => self.write(),
                _ => self.read(),
            };
            if let Err(e) = result {
                self.shared.tally().error(format!("worker {}: {e}", self.number));
                self.shared.stop.store(true, Ordering::Relaxed);
            }
        }
        self.volume.close();
    }

    /// Each try is a write of its own, with its own stamps: if an earlier try takes effect after all, it shows.
    fn write(&mut self) -> Result<(), Error> {
        let (start, blocks) = self.place(self.own.clone());
        let fua = self.random.below(16) == 0;
        let began = Instant::now();
        let mut failed = Vec::new();
        loop {
            self.connect(began)?;
            let write = self.shared.recorder().write(self.number, start, blocks);
            let stamp = Stamp {
                block: start,
                writer: self.number,
                write,
                start,
                blocks,
                seed: self.shared.seed,
            };
            let data = Arc::new(stamp.data());
            match self.volume.attempt(Request::Write { start, data, fua }) {
                Ok(ack) => {
                    self.shared.recorder().acked(write, ack.acked, ack.path, &failed);
                    self.shared.tally().write(blocks, began, ack.acked, ack.path);
                    return Ok(());
                }
                Err(e) => {
                    self.shared.recorder().failed(write);
                    failed.push(write);
                    self.after(e, began)?;
                }
            }
        }
    }

    fn read(&mut self) -> Result<(), Error> {
        let (start, blocks) = self.place(self.own.clone());
        read_and_judge(&mut self.volume, &self.shared, start, blocks).map(|_| ())
    }

    fn flush(&mut self) -> Result<(), Error> {
        let ack = self.volume.flush()?;
        self.shared.tally().flush(ack.path);
        Ok(())
    }

    /// Where to go: mostly up to 256 blocks, often whole buffers, sometimes more.
    fn place(&mut self, region: std::ops::Range<u64>) -> (u64, u32) {
        let room = region.end - region.start;
        let (blocks, align) = match self.random.below(16) {
            0 => (257 + self.random.below(LARGE_MAX - 256), 1),
            1..8 => (8 * (1 + self.random.below(32)), 8),
            _ => (1 + self.random.below(256), 1),
        };
        let blocks = blocks.min(room);
        let start = self.random.below(room - blocks + 1) / align * align;
        (region.start + start, blocks as u32)
    }

    fn connect(&mut self, began: Instant) -> Result<(), Error> {
        while let Err(e) = self.volume.connect() {
            self.check(e, began)?;
            std::thread::sleep(self.volume.timing().pause);
        }
        Ok(())
    }

    fn after(&mut self, error: Error, began: Instant) -> Result<(), Error> {
        self.shared.tally().failed_try();
        self.check(error, began)?;
        std::thread::sleep(self.volume.timing().pause);
        Ok(())
    }

    /// Whether to go on after that error.
    fn check(&self, error: Error, began: Instant) -> Result<(), Error> {
        let patient = began.elapsed() < self.volume.timing().give_up;
        if error.is_transient() && patient {
            Ok(())
        } else {
            Err(error)
        }
    }
}

/// Reads blocks until there is an answer, and judges it.
pub fn read_and_judge(volume: &mut Volume, shared: &Shared, start: u64, blocks: u32) -> Result<Ack, Error> {
    let began = Instant::now();
    let read = shared.recorder().read(start, blocks);
    match volume.read(start, blocks) {
        Ok(ack) => {
            let mut tally = shared.tally();
            tally.read(blocks, began, ack.acked, ack.path);
            (1..ack.tries).for_each(|_| tally.failed_try());
            drop(tally);
            let mut recorder = shared.recorder();
            recorder.values(read, start, ack.acked, ack.path, &ack.data);
            if recorder.history().violations() > 0 {
                shared.stop.store(true, Ordering::Relaxed);
            }
            Ok(ack)
        }
        Err(e) => {
            shared.recorder().no_values(read);
            Err(e)
        }
    }
}
