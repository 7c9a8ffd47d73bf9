//! The shared disks. A write lands some time after it was submitted, even if its process has died meanwhile; what was not
//! flushed may be lost when the shelf loses power.

use crate::random::Random;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use twincell_core::cell::record::Slot;
use twincell_core::ids::{Controller, DiskIndex, Uuid};
use twincell_core::layout::metadata::Metadata;

/// Blocks of a page.
const PAGE: usize = 64;

fn place(block: u64) -> (usize, usize) {
    (block as usize / PAGE, block as usize % PAGE)
}

/// One disk.
#[derive(Clone, Debug, Default)]
pub struct SimDisk {
    /// What its label says.
    pub uuid: Uuid,
    /// Pages that were ever written.
    pages: Vec<Option<Box<[u64; PAGE]>>>,
    /// What was there before writes that were not flushed yet, oldest first.
    unflushed: Vec<Unflushed>,
    /// Blocks that were written so far.
    written: u64,
    /// The slots of A and B.
    pub slots: [Option<Slot>; 2],
    /// The two copies of the metadata.
    pub metadata: [Option<Metadata>; 2],
    /// Blocks that cannot be read until they are written anew.
    bad: BTreeSet<u64>,
    /// What is wrong with it now.
    pub trouble: Trouble,
    /// When it last failed at something, or did not answer; or until when it may be late with something.
    pub failed_at: Option<u64>,
}

/// What is wrong with a disk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trouble {
    /// It answers with errors.
    pub fails: bool,
    /// Writes of data end with errors.
    pub fails_writes: bool,
    /// Reads end with errors.
    pub fails_reads: bool,
    /// Writes of slots end with errors.
    pub fails_slots: bool,
    /// It is gone for good.
    pub gone: bool,
    /// Flushes end with errors.
    pub fails_flushes: bool,
    /// It answers A, or B, with errors.
    pub unseen: [bool; 2],
    /// It answers nothing until then.
    pub stalled_until: u64,
    /// Writes that are overdue by then land so many nanoseconds later.
    pub late: u64,
    /// Whatever it is asked for takes so many nanoseconds longer.
    pub slow: u64,
    /// Writes of data to these blocks end with errors.
    pub bad_region: Option<Range<u64>>,
}

/// A block in the volatile cache of a disk: what was there before, and who has written it.
#[derive(Clone, Copy, Debug)]
struct Unflushed {
    block: u64,
    before: u64,
    by: Controller,
    /// Which of all blocks that were written.
    number: u64,
}

impl SimDisk {
    /// An empty one.
    pub fn empty(uuid: Uuid) -> SimDisk {
        SimDisk {
            uuid,
            ..SimDisk::default()
        }
    }

    /// It fails at something, or may be late with something until then.
    pub fn may_fail_until(&mut self, at: u64) {
        self.failed_at = self.failed_at.max(Some(at));
    }

    /// Reads a block; 0 was never written.
    pub fn read(&self, block: u64) -> u64 {
        let (page, at) = place(block);
        self.pages.get(page).and_then(Option::as_ref).map_or(0, |p| p[at])
    }

    /// These blocks cannot be read until they are written anew.
    pub fn spoil(&mut self, block: u64, blocks: u64) {
        self.bad.extend(block..block + blocks);
    }

    /// Whether every block of a range can be read.
    pub fn is_readable(&self, block: u64, blocks: u64) -> bool {
        self.bad.range(block..block + blocks).next().is_none()
    }

    /// Whether it is in trouble, or has blocks that cannot be read, or writes that have not landed yet.
    pub fn is_troubled(&self, now: u64) -> bool {
        let t = &self.trouble;
        t.fails
            || t.fails_reads
            || t.fails_writes
            || t.fails_flushes
            || t.fails_slots
            || t.unseen != [false; 2]
            || t.gone
            || t.slow > 0
            || t.bad_region.is_some()
            || t.stalled_until.saturating_add(t.late) > now
            || !self.bad.is_empty()
    }

    /// What could not be read can be read again, as it was.
    pub fn recover(&mut self) {
        self.bad.clear();
    }

    /// Whether it has blocks that cannot be read.
    pub fn has_bad_blocks(&self) -> bool {
        !self.bad.is_empty()
    }

    /// All that passes has passed.
    pub fn heal(&mut self) {
        self.trouble = Trouble {
            gone: self.trouble.gone,
            ..Trouble::default()
        };
    }

    fn put(&mut self, block: u64, tag: u64) -> u64 {
        let (page, at) = place(block);
        if page >= self.pages.len() {
            self.pages.resize(page + 1, None);
        }
        let page = self.pages[page].get_or_insert_with(|| Box::new([0; PAGE]));
        std::mem::replace(&mut page[at], tag)
    }

    /// Writes a block into the volatile cache of the disk.
    pub fn write(&mut self, block: u64, tag: u64, by: Controller) {
        if !self.bad.is_empty() {
            self.bad.remove(&block);
        }
        let before = self.put(block, tag);
        let number = self.written;
        self.written += 1;
        self.unflushed.push(Unflushed {
            block,
            before,
            by,
            number,
        });
    }

    /// Makes blocks read as zero, durably.
    pub fn zero(&mut self, block: u64, blocks: u64) {
        let end = block + blocks;
        self.unflushed.retain(|w| !(block..end).contains(&w.block));
        self.bad.retain(|b| !(block..end).contains(b));
        for (n, page) in self.pages.iter_mut().enumerate() {
            let first = (n * PAGE) as u64;
            let Some(page) = page.as_mut().filter(|_| first < end && first + PAGE as u64 > block) else {
                continue;
            };
            for (at, tag) in (first..).zip(page.iter_mut()) {
                if (block..end).contains(&at) {
                    *tag = 0;
                }
            }
        }
    }

    /// What a flush that is submitted now makes durable, for `flush`: what was written before.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// A flush has ended that was submitted when so much was written: nothing more is durable.
    pub fn flush(&mut self, written: u64) {
        let durable = self.unflushed.partition_point(|w| w.number < written);
        self.unflushed.drain(..durable);
    }

    /// What a block may hold once the shelf has lost power.
    pub fn after_power_loss(&self, block: u64) -> impl Iterator<Item = u64> {
        let lost = self.unflushed.iter().filter(move |w| w.block == block);
        lost.map(|w| w.before).chain([self.read(block)])
    }

    /// Whether the blocks of `mask`, from this one on, are these tags, and stay so whatever the shelf does.
    pub fn has_for_good(&self, block: u64, mask: u8, tags: &[u64; 8]) -> bool {
        let counts = |n: u64| n < 8 && mask >> n & 1 == 1;
        let lost =
            |w: &Unflushed| w.block >= block && counts(w.block - block) && w.before != tags[(w.block - block) as usize];
        (0..8).all(|n| !counts(n) || self.read(block + n) == tags[n as usize]) && !self.unflushed.iter().any(lost)
    }

    /// A flush of a controller has failed: nothing that it has written and not flushed is there any more.
    pub fn drop_unflushed(&mut self, by: Controller) {
        let (lost, mut kept): (Vec<_>, Vec<_>) = std::mem::take(&mut self.unflushed)
            .into_iter()
            .enumerate()
            .partition(|(_, w)| w.by == by);
        for (n, Unflushed { block, before, .. }) in lost.into_iter().rev() {
            // What somebody else has written over it stays.
            match kept.iter_mut().find(|(later, w)| *later > n && w.block == block) {
                Some((_, over)) => over.before = before,
                None => _ = self.put(block, before),
            }
        }
        self.unflushed = kept.into_iter().map(|(_, w)| w).collect();
    }

    /// The shelf loses power: of what was not flushed, any part is lost.
    pub fn lose_power(&mut self, random: &mut Random) {
        for Unflushed { block, before, .. } in std::mem::take(&mut self.unflushed).into_iter().rev() {
            if !random.one_in(2) {
                self.put(block, before);
            }
        }
    }
}

/// The disks, and who holds the lock byte of each controller on them.
#[derive(Clone, Debug)]
pub struct Shelf {
    /// The disks.
    pub disks: Vec<SimDisk>,
    /// The process that holds the lock byte of each controller.
    pub locks: [Option<u32>; 2],
    /// Writes and flushes in flight, by process and disk: a dead process holds its lock on a disk until they are over.
    pub in_flight: BTreeMap<(Controller, u32, DiskIndex), u32>,
    /// Writes of data that are submitted now take so many nanoseconds longer.
    pub write_delay: u64,
    /// Reads that are submitted now have taken their data at once, and end so many nanoseconds later; 0 for as usual.
    pub read_delay: u64,
    /// Zeroing takes so many nanoseconds longer.
    pub zero_delay: u64,
    /// Reads and writes of slots that are submitted now take so many nanoseconds longer.
    pub slot_delay: u64,
    /// So long it takes until a disk says that it cannot read a block.
    pub bad_blocks_take: u64,
    /// Writes of data to this disk that are submitted now are so many nanoseconds late.
    pub late_writes: Option<(usize, u64)>,
    /// The same of flushes.
    pub late_flushes: Option<(usize, u64)>,
    /// Reads of this block of this disk are so many nanoseconds late.
    pub weak_block: Option<(usize, u64, u64)>,
}

impl Shelf {
    /// `count` empty disks.
    pub fn new(count: usize) -> Shelf {
        let disk = |n| SimDisk::empty(Uuid(100 + n as u128));
        Shelf {
            disks: (0..count).map(disk).collect(),
            locks: [None; 2],
            in_flight: BTreeMap::new(),
            write_delay: 0,
            read_delay: 0,
            zero_delay: 0,
            slot_delay: 0,
            bad_blocks_take: 0,
            late_writes: None,
            late_flushes: None,
            weak_block: None,
        }
    }

    /// `process` takes the lock byte of `controller` if nobody else holds it.
    pub fn try_lock(&mut self, controller: Controller, process: u32) -> bool {
        let holder = &mut self.locks[controller.index()];
        if holder.is_none() {
            *holder = Some(process);
        }
        *holder == Some(process)
    }

    /// Gives back what `process` holds of `controller`'s.
    pub fn unlock(&mut self, controller: Controller, process: u32) {
        let holder = &mut self.locks[controller.index()];
        if *holder == Some(process) {
            *holder = None;
        }
    }

    /// A write or flush of `process` is in flight.
    pub fn submitted(&mut self, by: Controller, process: u32, disk: DiskIndex) {
        *self.in_flight.entry((by, process, disk)).or_default() += 1;
    }

    /// A write or flush of `process` is over.
    pub fn landed(&mut self, by: Controller, process: u32, disk: DiskIndex) {
        let key = (by, process, disk);
        let count = self.in_flight.get_mut(&key).expect("it is in flight");
        *count -= 1;
        if *count == 0 {
            self.in_flight.remove(&key);
        }
    }
}
