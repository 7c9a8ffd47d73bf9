//! From NV memory to the disks: write, flush, and only then free the buffer and its twin (DESIGN section 5).

use crate::cache::Use;
use crate::controller::{Core, Io};
use crate::effect::Effect;
use crate::event::DiskError;
use crate::host::Status;
use crate::htb::Stage;
use crate::ids::{
    ATOMIC_GRANULES, BUFFER_BLOCKS, BufferIndex, Controller, DiskIndex, Incarnation, Nanos, PSEG_BLOCKS, Time,
};
use crate::layout::metadata::{DiskState, Metadata};
use crate::link::mfcd::Mfcd;
use crate::list::List;
use crate::memory::{Memory, Segment, Sgl};
use crate::mutant;
use crate::nv::word::Bmae;
use crate::read::runs;

/// Most dirty buffers that one search for something to write looks at.
const LOOK_AT: usize = 64;
/// How long the destager leaves a disk alone after an error.
const AFTER_ERROR: Nanos = Nanos::from_millis(500);

/// A disk that fails every write for this long is missing.
const GIVE_UP_AFTER: Nanos = Nanos::from_millis(900);

/// A batch of neighbouring buffers on its way to all disks that hold a copy.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Batch {
    buffers: List<BufferIndex, ATOMIC_GRANULES>,
    outstanding: u16,
    failed: Option<DiskIndex>,
}

/// The destager.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Destager {
    /// Batches in flight.
    pub batches: crate::pool::Pool<Batch>,
    /// Disks that were written since they were last flushed, by index.
    unflushed: Vec<bool>,
    /// Flushes in flight, and whether one of them failed.
    flushes: u16,
    flush_failed: bool,
    /// Twins to be released, each once; whether the message that says so is requested; how often it was, and how many of
    /// these requests the partner has heard of.
    releases: Vec<BufferIndex>,
    release_requested: bool,
    releases_requested: u64,
    releases_heard: u64,
    /// After an error: nothing before this.
    not_before: Time,
    /// The disk that fails, and since when.
    failing: Option<(DiskIndex, Time)>,
}

impl Destager {
    /// At most `batches` batches in flight, for `disks` disks and `buffers` buffers.
    pub fn new(batches: usize, disks: usize, buffers: usize) -> Destager {
        Destager {
            batches: crate::pool::Pool::new(batches),
            unflushed: vec![false; disks],
            flushes: 0,
            flush_failed: false,
            releases: Vec::with_capacity(buffers),
            release_requested: false,
            releases_requested: 0,
            releases_heard: 0,
            not_before: Time(0),
            failing: None,
        }
    }

    /// Twins that are to be released.
    pub fn pending_releases(&mut self) -> &mut Vec<BufferIndex> {
        &mut self.releases
    }

    /// All of them are in messages now.
    pub fn releases_are_built(&mut self) {
        self.release_requested = false;
    }

    /// The partner has heard of what was released by this request, and by those before it.
    pub fn releases_are_heard(&mut self, number: u64) {
        self.releases_heard = number;
    }

    /// How often a release was requested.
    pub fn releases_requested(&self) -> u64 {
        self.releases_requested
    }

    /// The partner is out of reach: it hears of nothing any more.
    pub fn forget_releases(&mut self) {
        self.releases.clear();
        self.release_requested = false;
        self.releases_heard = self.releases_requested;
    }

    /// Whether no disk write or flush is in flight.
    pub fn is_idle(&self) -> bool {
        self.batches.in_use() == 0 && self.flushes == 0
    }

    /// When it tries again after an error.
    pub fn retry_at(&self, now: Time) -> Option<Time> {
        (self.not_before > now).then_some(self.not_before)
    }
}

impl Core {
    /// Writes what should be written, flushes what was, as far as places are free.
    pub(crate) fn destage(&mut self) {
        if !self.may_write_disks() || self.destager.not_before > self.now {
            return;
        }
        if self.wants_destage() {
            while self.destager.batches.free() > 0 {
                let Some(first) = self.next_to_write() else { break };
                self.write_batch(first);
            }
        }
        self.flush_written();
    }

    fn is_urgent(&self) -> bool {
        self.is_write_through() || self.short_of_memory || self.awaiting_disk > 0 || self.is_draining()
    }

    fn wants_destage(&self) -> bool {
        let idle = self.now.since(self.last_write) >= self.config.timing.destage_idle;
        // What is on its way already does not count: it would make others follow it for nothing.
        let above = self.cache.dirty() > self.geometry().buffers / 2;
        self.cache.dirty() > 0 && (idle || above || self.is_urgent())
    }

    /// When the cache will have been idle for long enough.
    pub(crate) fn destage_deadline(&self) -> Option<Time> {
        let waits = self.cache.dirty() > 0 && self.may_write_disks() && !self.wants_destage();
        let idle = waits.then(|| self.last_write + self.config.timing.destage_idle);
        idle.or(self.destager.retry_at(self.now))
    }

    /// The oldest dirty buffer whose granule has no disk write in flight: there is never more than one.
    fn next_to_write(&self) -> Option<BufferIndex> {
        let oldest = self.cache.oldest_dirty();
        let dirty = std::iter::successors(oldest, |b| self.cache.next_dirty(*b));
        dirty.take(LOOK_AT).find(|b| self.is_writable(*b))
    }

    fn is_writable(&self, buffer: BufferIndex) -> bool {
        let held = self.cache.get(buffer);
        held.usage == Use::Dirty
            && (!self.cache.is_being_written(held.granule) || mutant::is("two-disk-writes-at-once"))
    }

    /// Neighbours on disk go in one write, if all their blocks are valid.
    fn write_batch(&mut self, first: BufferIndex) {
        let mut buffers = List::from_slice(&[first]);
        let held = *self.cache.get(first);
        if held.mask == u8::MAX {
            let per_pseg = PSEG_BLOCKS / u64::from(BUFFER_BLOCKS);
            let mut next = held.granule;
            while !(next.number + 1).is_multiple_of(per_pseg) && !buffers.is_full() {
                next.number += 1;
                let whole = |b: &BufferIndex| self.is_writable(*b) && self.cache.get(*b).mask == u8::MAX;
                let Some(neighbour) = self.cache.current(next).filter(whole) else {
                    break;
                };
                buffers.push(neighbour);
            }
        }
        for buffer in buffers.iter() {
            self.cache.begin_write(*buffer);
        }
        let batch = Batch {
            buffers,
            outstanding: 0,
            failed: None,
        };
        let (b, _) = self.destager.batches.take(batch);
        self.issue_writes(b, &buffers);
    }

    fn issue_writes(&mut self, b: u32, buffers: &[BufferIndex]) {
        let held = *self.cache.get(buffers[0]);
        let start = held.granule.start().0;
        let copies = if mutant::is("write-one-copy") { 1 } else { 2 };
        for (disk, block) in self.places(held.granule.ncae, start).iter().copied().take(copies) {
            for &(first, count) in &runs(held.mask) {
                let from = Memory::Buffers(whole_or_run(buffers, first, count));
                let io = self.new_io(Io::Destage { batch: b, disk });
                self.batch(b).outstanding += 1;
                let block = block + u64::from(first);
                self.effects.push(Effect::DiskWrite { io, disk, block, from });
            }
        }
    }

    fn batch(&mut self, b: u32) -> &mut Batch {
        self.destager.batches.get_mut(b).expect("a batch in flight")
    }

    /// A disk write is answered.
    pub(crate) fn on_destaged(&mut self, b: u32, disk: DiskIndex, result: Result<(), DiskError>) {
        self.destager.unflushed[disk.index()] |= result.is_ok();
        let batch = self.batch(b);
        batch.outstanding -= 1;
        if result.is_err() && !mutant::is("failed-writes-forgotten") {
            batch.failed = Some(disk);
        }
        if batch.outstanding > 0 {
            return;
        }
        let batch = if mutant::is("leak-a-batch") {
            self.batch(b).clone()
        } else {
            self.destager.batches.give_back(b)
        };
        match batch.failed {
            Some(disk) => self.disk_failed(disk),
            None => self.disk_works(disk),
        }
        for buffer in batch.buffers.iter() {
            if batch.failed.is_some() {
                self.cache.fail_write(*buffer);
            } else {
                self.cache.end_write(*buffer);
            }
        }
    }

    fn disk_failed(&mut self, disk: DiskIndex) {
        self.destager.not_before = self.now + AFTER_ERROR;
        let same = self.destager.failing.filter(|(d, _)| *d == disk);
        self.destager.failing = Some(same.unwrap_or((disk, self.now)));
        self.note(crate::effect::Note::DiskFailed { disk });
    }

    /// What was written to these disks and not flushed counts on the other copy from now on.
    pub(crate) fn forget_unflushed(&mut self, metadata: &Metadata) {
        for (n, disk) in metadata.disks.iter().enumerate() {
            if disk.state != DiskState::Normal && self.is_normal(DiskIndex(n as u16)) {
                self.destager.unflushed[n] = false;
            }
        }
    }

    fn is_normal(&self, disk: DiskIndex) -> bool {
        let disks = self.metadata.as_ref().map(|m| &m.disks);
        disks.is_none_or(|d| d.get(disk.index()).is_none_or(|d| d.state == DiskState::Normal))
    }

    fn disk_works(&mut self, disk: DiskIndex) {
        if self.destager.failing.is_some_and(|(d, _)| d == disk) {
            self.destager.failing = None;
        }
    }

    /// The disk is being given up: not again before it has failed for as long once more.
    pub(crate) fn forgive_disk_for_a_while(&mut self, disk: DiskIndex) {
        self.destager.failing = Some((disk, self.now));
    }

    /// The disk to go on without: it has failed for too long to be only disturbed.
    pub(crate) fn disk_to_give_up(&self) -> Option<DiskIndex> {
        let (disk, since) = self.destager.failing?;
        (self.is_normal(disk) && self.now.since(since) >= GIVE_UP_AFTER).then_some(disk)
    }

    /// One round of flushes at a time, for everything that was written when it began. When somebody waits it begins at
    /// once, else when the writes pause or much has gathered.
    fn flush_written(&mut self) {
        let written = self.cache.written();
        let much = written > self.geometry().buffers / 8;
        let begin = written > 0 && (self.is_urgent() || self.destager.batches.in_use() == 0 || much);
        if self.destager.flushes > 0 || !begin {
            return;
        }
        self.cache.begin_flush();
        if mutant::is("free-before-the-flush") {
            return self.free_flushed();
        }
        for disk in 0..self.destager.unflushed.len() {
            if self.destager.flushes > 0 && mutant::is("flush-one-disk") {
                break;
            }
            if std::mem::take(&mut self.destager.unflushed[disk]) {
                let disk = DiskIndex(disk as u16);
                let io = self.new_io(Io::Flush { disk });
                self.destager.flushes += 1;
                self.effects.push(Effect::DiskFlush { io, disk });
            }
        }
    }

    /// A flush is answered.
    pub(crate) fn on_flushed(&mut self, disk: DiskIndex, result: Result<(), DiskError>) {
        self.destager.flushes -= 1;
        if result.is_err() && !mutant::is("failed-flushes-forgotten") {
            self.destager.flush_failed = true;
            self.destager.unflushed[disk.index()] = true;
            self.disk_failed(disk);
        }
        if self.destager.flushes > 0 {
            return;
        }
        if std::mem::take(&mut self.destager.flush_failed) {
            self.cache.fail_flush();
        } else {
            if mutant::is("a-flush-covers-later-writes") {
                self.cache.begin_flush();
            }
            self.free_flushed();
        }
        self.wake_awaiting_disk();
    }

    /// The data are on disk for good: buffer and twin are free.
    fn free_flushed(&mut self) {
        while let Some((buffer, was)) = self.cache.next_flushed() {
            if was.superseded || was.held {
                continue;
            }
            self.store_bmae(buffer, Bmae::FREE);
            if was.twinned && self.is_mirroring() {
                self.release_twin(buffer);
            }
        }
        if !mutant::is("releases-after-the-request") {
            self.send_releases();
        }
        self.short_of_memory = false;
        self.turn_may_have_come = true;
    }

    pub(crate) fn release_twin(&mut self, buffer: BufferIndex) {
        self.destager.releases.push(buffer);
    }

    /// In link order before any request that uses the buffers again: a request is sent only after this.
    pub(crate) fn send_releases(&mut self) {
        if !self.link.is_up() {
            return self.destager.forget_releases();
        }
        if !self.destager.releases.is_empty() && !self.destager.release_requested {
            self.destager.release_requested = true;
            self.destager.releases_requested += 1;
            let number = self.destager.releases_requested;
            self.link.request(Mfcd::Release { number });
        }
    }

    /// Whether the partner has handled the first `requested` releases of `incarnation`. True also where that incarnation
    /// is over: nothing of it arrives any more.
    pub(crate) fn has_heard_releases(&self, incarnation: Incarnation, requested: u64) -> bool {
        let over = !self.link.is_up() || self.link.incarnation() != incarnation;
        over || self.destager.releases_heard >= requested
    }

    /// Who waits for what is now on disk goes on.
    pub(crate) fn wake_awaiting_disk(&mut self) {
        for at in 0..self.order.len() {
            let h = self.order[at];
            let htb = self.htb(h);
            let there = self.cache.is_on_disk(htb.age) || mutant::is("sync-does-not-wait");
            if htb.stage == Stage::AwaitDisk && there {
                self.awaiting_disk -= 1;
                self.finish(h, Status::Good);
            }
        }
    }

    /// How many valid buffers the partner's pair has; none is ever allocated here.
    pub(crate) fn partner_pair_in_use(&self) -> usize {
        let partner: Controller = self.partner();
        let in_use = |b: &BufferIndex| self.cache.get(*b).usage != Use::Free;
        self.geometry().buffers_of(partner).filter(in_use).count()
    }
}

/// One run of a single buffer, or all of several whole ones.
fn whole_or_run(buffers: &[BufferIndex], first: u8, count: u8) -> Sgl {
    let segment = |buffer: &BufferIndex| Segment {
        buffer: *buffer,
        first,
        count,
    };
    buffers.iter().map(segment).collect()
}
