//! From NV memory to the disks: write, flush, and only then free the buffer and its twin (DESIGN section 5).

use crate::cache::{Granule, Use};
use crate::controller::{Core, InFlight, Io};
use crate::disk::Duty;
use crate::effect::Effect;
use crate::event::DiskError;
use crate::host::{HostOp, Status};
use crate::htb::Stage;
use crate::ids::{
    ATOMIC_GRANULES, BUFFER_BLOCKS, BufferIndex, DiskIndex, Incarnation, LUNS_MAX, Nanos, NcaeIndex, PSEG_BLOCKS, Time,
};
use crate::layout::metadata::{COPIES_MAX, DiskState, Metadata};
use crate::link::frame::RELEASE_MAX;
use crate::link::mfcd::Mfcd;
use crate::list::List;
use crate::mark::mark;
use crate::memory::{Memory, Segment, Sgl};
use crate::mutant;
use crate::nv::word::Bmae;
use crate::read::runs;
use std::collections::VecDeque;

/// Most dirty buffers that one search for something to write looks at.
const LOOK_AT: usize = 64;
/// When the next step looks on, if that was not all.
const LOOK_ON_AFTER: Nanos = Nanos::from_micros(100);

/// A batch of neighbouring buffers on its way to all disks that hold a copy.
///
/// A write that is overdue has failed, unless its disk is only slow: the batch goes on without it, and its data will be written again. But
/// what it names of memory stays as it is until the write has ended, or what it leaves behind counts for nothing; its place in the pool stays
/// taken until it has ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Batch {
    buffers: List<BufferIndex, ATOMIC_GRANULES>,
    /// What its writes name: these buffers, or what stands in for them.
    from: List<BufferIndex, ATOMIC_GRANULES>,
    /// Its data have one copy: what is on a disk counts even while the disk is missing.
    is_single: bool,
    /// The buffers that are not used again before its overdue writes have ended, once only those are left.
    held: List<BufferIndex, ATOMIC_GRANULES>,
    /// Writes that are not answered.
    outstanding: u16,
    /// Writes that are overdue and not waited for.
    overdue: u16,
    failed: List<DiskIndex, COPIES_MAX>,
}

/// The destager.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Destager {
    /// Batches in flight, and those of which only overdue writes are left.
    batches: crate::pool::Pool<Batch>,
    /// How many are only waited for.
    left_behind: usize,
    /// Buffers of those in flight.
    buffers: usize,
    /// How often it was looked what is written next.
    turns: u8,
    /// Disks that were written since they were last flushed, by index.
    unflushed: Vec<bool>,
    /// Flushes in flight, and the disks of which one failed in this round.
    flushes: u16,
    flush_failed: Vec<bool>,
    /// Twins to be released, each once; whether the message that says so is requested; how often it was, and how many of
    /// these requests the partner has heard of.
    releases: Vec<BufferIndex>,
    /// How many of them belong to each request that is closed: what is released later must not go with it.
    closed: VecDeque<usize>,
    release_requested: bool,
    releases_requested: u64,
    releases_heard: u64,
    /// When dirty data that were put aside are looked at again.
    retry_at: Option<Time>,
    /// More dirty data are to be looked at than one step does.
    looks_on: bool,
}

impl Destager {
    /// At most `batches` batches in flight, for `disks` disks and `buffers` buffers.
    pub fn new(batches: usize, disks: usize, buffers: usize) -> Destager {
        Destager {
            // While a disk does not answer, as many batches may be left behind on it as were in flight.
            batches: crate::pool::Pool::new(batches * 2),
            left_behind: 0,
            buffers: 0,
            turns: 0,
            unflushed: vec![false; disks],
            flushes: 0,
            flush_failed: vec![false; disks],
            releases: Vec::with_capacity(buffers),
            closed: VecDeque::with_capacity(buffers),
            release_requested: false,
            releases_requested: 0,
            releases_heard: 0,
            retry_at: None,
            looks_on: false,
        }
    }

    fn in_flight(&self) -> usize {
        self.batches.in_use() - self.left_behind
    }

    /// At most `most` of the twins that the next request is to release, and whether there are more of them.
    pub fn next_releases(&mut self, most: usize) -> (List<BufferIndex, RELEASE_MAX>, bool) {
        let all = self.closed.front().copied().unwrap_or(self.releases.len());
        let buffers: List<_, RELEASE_MAX> = self.releases.drain(..all.min(most).min(RELEASE_MAX)).collect();
        let left = all - buffers.len();
        match self.closed.front_mut() {
            Some(closed) if left > 0 => *closed = left,
            Some(_) => {
                self.closed.pop_front();
            }
            None if left == 0 => self.release_requested = false,
            None => {}
        }
        (buffers, left > 0)
    }

    /// Something is about to be said that must be heard before what is released from now on.
    pub fn close_release(&mut self) {
        if self.release_requested && !mutant::is("releases-join-an-earlier-request") {
            let earlier: usize = self.closed.iter().sum();
            self.closed.push_back(self.releases.len() - earlier);
            self.release_requested = false;
        }
    }

    /// The number of the request that is to be made now: where something is to be released that no earlier one has. One for
    /// nothing would never be heard.
    pub fn request_release(&mut self) -> Option<u64> {
        let earlier: usize = self.closed.iter().sum();
        let has_new = self.releases.len() > earlier
            || mutant::is("a-release-of-nothing-is-requested") && !self.releases.is_empty();
        if self.release_requested || !has_new {
            return None;
        }
        self.release_requested = true;
        self.releases_requested += 1;
        Some(self.releases_requested)
    }

    /// The partner has heard of what was released by this request, and by those before it.
    pub fn releases_are_heard(&mut self, number: u64) {
        self.releases_heard = number;
    }

    /// Whether what is destaged next is looked for once more, soon.
    pub fn looks_on(&self) -> bool {
        self.looks_on
    }

    /// How often a release was requested.
    pub fn releases_requested(&self) -> u64 {
        self.releases_requested
    }

    /// The partner is out of reach: it hears of nothing any more.
    pub fn forget_releases(&mut self) {
        self.releases.clear();
        self.closed.clear();
        self.release_requested = false;
        self.releases_heard = self.releases_requested;
    }

    /// Whether no disk write or flush is in flight, but for overdue ones: their data were written elsewhere meanwhile, and
    /// nothing reads what they will leave behind, or the same data are still dirty.
    pub fn is_idle(&self) -> bool {
        self.in_flight() == 0 && self.flushes == 0
    }
}

impl Core {
    /// Writes what should be written, flushes what was, as far as places are free.
    pub(crate) fn destage(&mut self) {
        if !self.may_write_disks() {
            return;
        }
        if self.destager.retry_at.take_if(|at| *at <= self.now).is_some() {
            self.cache.take_up();
        }
        self.destager.looks_on = false;
        if self.wants_destage() {
            while self.may_begin_batch() {
                let Some(first) = self.next_to_write() else { break };
                self.write_batch(first);
            }
        }
        self.flush_written();
    }

    /// A disk that does not answer holds what was on its way to it, places and memory, for as long as that lasts; and the next one may,
    /// too. So of what is left half of the places are used, and a quarter of the memory.
    fn may_begin_batch(&self) -> bool {
        let Destager { batches, buffers, .. } = &self.destager;
        if mutant::is("each-hung-disk-holds-as-much") {
            return self.destager.in_flight() < usize::from(self.geometry().destages) && batches.free() > 0;
        }
        let places = batches.capacity() as usize - self.destager.left_behind;
        let in_flight = self.destager.in_flight();
        batches.free() > 0 && (in_flight == 0 || in_flight < places / 2 && *buffers < self.most_in_flight())
    }

    fn most_in_flight(&self) -> usize {
        (self.geometry().buffers as usize - self.cache.posted()) / 4
    }

    /// Most buffers of the next batch.
    fn buffers_of_a_batch(&self) -> usize {
        if mutant::is("a-batch-takes-what-is-left") {
            return ATOMIC_GRANULES;
        }
        let left = self.most_in_flight().saturating_sub(self.destager.buffers);
        left.clamp(1, ATOMIC_GRANULES)
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
        if !self.may_write_disks() {
            return None;
        }
        let waits = self.cache.dirty() > 0 && !self.wants_destage();
        let idle = waits.then(|| self.last_write + self.config.timing.destage_idle);
        let on = self.destager.looks_on.then_some(self.now + LOOK_ON_AFTER);
        [idle, on, self.destager.retry_at].into_iter().flatten().min()
    }

    /// The oldest dirty buffer whose granule has no disk write in flight: there is never more than one. Those that have to
    /// go to a disk that is to be left alone are put aside, so that they hide no others.
    fn next_to_write(&mut self) -> Option<BufferIndex> {
        self.destager.turns = self.destager.turns.wrapping_add(1);
        // Now and then one goes for which nobody waits: or, as long as hosts write, it never would.
        let is_its_turn = self.destager.turns.is_multiple_of(4) && !mutant::is("only-who-is-waited-for-is-written");
        if is_its_turn && let Some(buffer) = self.next_to_write_from(self.cache.oldest_unhastened()) {
            return Some(buffer);
        }
        let next = self.next_to_write_from(self.cache.oldest_dirty());
        next.or_else(|| self.next_to_write_from(self.cache.oldest_unhastened()))
    }

    fn next_to_write_from(&mut self, mut next: Option<BufferIndex>) -> Option<BufferIndex> {
        for _ in 0..LOOK_AT {
            let buffer = next?;
            next = self.cache.next_dirty(buffer);
            if self.is_blocked(buffer) {
                self.cache.put_aside(buffer);
                self.destager.looks_on = next.is_some();
            } else if self.is_writable(buffer) {
                return Some(buffer);
            }
        }
        None
    }

    /// Whether a disk that has to take these data is to be left alone. Remembers when it is tried again.
    fn is_blocked(&mut self, buffer: BufferIndex) -> bool {
        let now = self.now;
        let granule = self.cache.get(buffer).granule;
        let places = self.places(granule.ncae, granule.start().0);
        let mut blocked = places.is_empty() || self.is_being_deleted(granule.ncae);
        for (disk, _) in places.iter().filter(|(d, _)| self.disks.is_blocked(*d, now)) {
            blocked = true;
            if let Some(at) = self.disks.retry_at(*disk) {
                self.destager.retry_at = Some(self.destager.retry_at.map_or(at, |r| r.min(at)));
            }
        }
        blocked
    }

    fn is_writable(&self, buffer: BufferIndex) -> bool {
        let held = self.cache.get(buffer);
        held.usage == Use::Dirty
            && !self.is_being_copied(held.granule)
            && (!self.cache.is_being_written(held.granule) || mutant::is("two-disk-writes-at-once"))
    }

    /// Neighbours on disk go in one write, if all their blocks are valid.
    fn write_batch(&mut self, first: BufferIndex) {
        let mut buffers = List::from_slice(&[first]);
        let held = *self.cache.get(first);
        if held.mask == u8::MAX && !self.cache.is_refused(first) {
            let per_pseg = PSEG_BLOCKS / u64::from(BUFFER_BLOCKS);
            let mut next = held.granule;
            let most = self.buffers_of_a_batch();
            while !(next.number + 1).is_multiple_of(per_pseg) && buffers.len() < most {
                next.number += 1;
                let is_whole = |b| self.cache.get(b).mask == u8::MAX && !self.cache.is_refused(b);
                let whole = |b: &BufferIndex| self.is_writable(*b) && is_whole(*b);
                let Some(neighbour) = self.cache.current(next).filter(whole) else {
                    break;
                };
                buffers.push(neighbour);
            }
        }
        for buffer in buffers.iter() {
            self.cache.begin_write(*buffer);
        }
        let from: List<_, ATOMIC_GRANULES> = buffers.iter().map(|b| self.stand_in_for(*b)).collect();
        let copies = self.disks_of_block(held.granule.ncae, held.granule.start().0);
        let batch = Batch {
            buffers,
            from,
            is_single: copies.len() < 2,
            held: List::new(),
            outstanding: 0,
            overdue: 0,
            failed: List::new(),
        };
        self.destager.buffers += buffers.len();
        let (b, _) = self.destager.batches.take(batch);
        self.issue_writes(b, first, &from);
    }

    /// What a disk write names in place of a buffer. It may hang for ever, and a buffer of the partner's pair has to be free before the
    /// partner can be in again (R9): so what goes to disk from there is a copy of it in the own pair, if there is room for one.
    fn stand_in_for(&mut self, buffer: BufferIndex) -> BufferIndex {
        let is_partners = self.geometry().pair_of(buffer) == Some(self.partner());
        if !is_partners || !self.has_room_for_carried(buffer) || mutant::is("a-hung-disk-holds-the-partners-memory") {
            return buffer;
        }
        let (to, mask) = (self.cache.stand_in(), self.cache.get(buffer).mask);
        self.effects.push(Effect::Merge { from: buffer, to, mask });
        self.effects.push(Effect::Seal { buffer: to, mask });
        to
    }

    fn issue_writes(&mut self, b: u32, first: BufferIndex, from: &[BufferIndex]) {
        let held = *self.cache.get(first);
        let start = held.granule.start().0;
        let copies = if mutant::is("write-one-copy") { 1 } else { 2 };
        for (disk, block) in self.places(held.granule.ncae, start).iter().copied().take(copies) {
            for &(first, count) in &runs(held.mask) {
                let from = Memory::Buffers(whole_or_run(from, first, count));
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
        if result.is_ok() {
            self.disks.worked(disk, Duty::Write, self.now);
        } else if !mutant::is("failed-writes-forgotten") {
            self.disk_failed(disk, Duty::Write);
            self.batch(b).fail(disk);
        }
        self.batch(b).outstanding -= 1;
        self.end_batch(b);
    }

    /// Slow disks of which nothing is expected any more, or that were given up, are not waited for.
    pub(crate) fn leave_overdue_writes(&mut self) {
        for place in 0..self.ios.capacity() {
            let Some(in_flight) = self.ios.get_mut(place).filter(|i| i.waited_for) else {
                continue;
            };
            let (Some(disk), before_missing) = (in_flight.io.disk(), in_flight.before_missing) else {
                continue;
            };
            if before_missing || self.disks.hangs(disk, self.now) {
                in_flight.waited_for = false;
                let io = in_flight.io;
                self.leave_overdue_write(io);
            }
        }
    }

    pub(crate) fn leave_overdue_write(&mut self, io: Io) {
        match io {
            Io::Destage { batch, disk } => self.on_destage_overdue(batch, disk),
            Io::Flush { disk } => self.on_flush_overdue(disk),
            _ => {}
        }
    }

    /// A disk write is not answered in time.
    fn on_destage_overdue(&mut self, b: u32, disk: DiskIndex) {
        let batch = self.batch(b);
        batch.outstanding -= 1;
        batch.overdue += 1;
        batch.fail(disk);
        self.end_batch(b);
    }

    /// An overdue disk write has ended; how is of no account.
    pub(crate) fn on_late_destage(&mut self, b: u32) {
        let batch = self.batch(b);
        batch.overdue -= 1;
        if batch.outstanding > 0 {
            return;
        }
        if batch.overdue > 0 {
            return self.give_the_partner_its_memory(b);
        }
        let batch = self.destager.batches.give_back(b);
        self.destager.left_behind -= 1;
        batch.held.iter().for_each(|buffer| self.cache.reap(*buffer));
        self.turn_may_have_come = true;
    }

    /// Whether what the overdue writes of a batch leave behind matters: unless all of them are on their way to disks that are missing,
    /// for data that have another copy. Such a disk is not read; it comes back only once they have ended, and then it is copied as a
    /// whole. So they may take whatever is in their memory meanwhile.
    fn matters_what_lands(&self, b: u32) -> bool {
        let is_single = self.destager.batches.get(b).is_none_or(|batch| batch.is_single);
        let of_this = |i: &InFlight| matches!(i.io, Io::Destage { batch, .. } if batch == b);
        is_single
            || self.ios.iter().any(|(_, i)| of_this(i) && !i.before_missing)
            || mutant::is("a-missing-disk-holds-the-partners-memory")
    }

    /// A disk is missing from now on. What hangs on its way there may never end, and must not keep the partner out for as long.
    pub(crate) fn give_the_partner_all_its_memory(&mut self) {
        (0..self.destager.batches.capacity()).for_each(|b| self.give_the_partner_its_memory(b));
    }

    /// Buffers of the partner's pair for which nothing stands in are free though overdue writes name them, where it does not matter what
    /// these take.
    fn give_the_partner_its_memory(&mut self, b: u32) {
        let held = self.destager.batches.get(b).map_or(List::new(), |batch| batch.held);
        if held.is_empty() || self.matters_what_lands(b) {
            return;
        }
        let (geometry, own) = (self.geometry(), self.own());
        let is_own = |buffer: &BufferIndex| geometry.pair_of(*buffer) == Some(own);
        self.batch(b).held = held.iter().copied().filter(is_own).collect();
        let partners = held.iter().filter(|buffer| !is_own(buffer));
        partners.for_each(|buffer| self.cache.reap(*buffer));
    }

    /// The batch is done once all that is not overdue is answered.
    fn end_batch(&mut self, b: u32) {
        if self.batch(b).outstanding > 0 {
            return;
        }
        let batch = self.batch(b).clone();
        self.destager.buffers -= batch.buffers.len();
        if batch.overdue > 0 {
            self.destager.left_behind += 1;
            if !mutant::is("forget-an-overdue-write") {
                let named = batch.named().filter(|(buffer, from)| buffer == from);
                named.for_each(|(buffer, _)| self.cache.leave_posted(buffer));
                self.batch(b).held = batch.from;
                self.give_the_partner_its_memory(b);
            }
        } else if !mutant::is("leak-a-batch") {
            self.destager.batches.give_back(b);
            self.give_back_stand_ins(&batch);
        }
        let again = self.has_to(batch.buffers[0], |d| batch.failed.contains(&d));
        let taken = self.is_taken(&batch);
        for buffer in batch.buffers.iter() {
            self.cache.note_write(*buffer, taken, self.now);
            if again {
                self.cache.fail_write(*buffer);
            } else {
                self.cache.end_write(*buffer);
            }
        }
    }

    fn give_back_stand_ins(&mut self, batch: &Batch) {
        for (_, stand_in) in batch.named().filter(|(buffer, from)| buffer != from) {
            self.cache.reap(stand_in);
            self.turn_may_have_come = true;
        }
    }

    /// Whether a full copy of a batch was written, if not all.
    fn is_taken(&self, batch: &Batch) -> bool {
        let granule = self.cache.get(batch.buffers[0]).granule;
        let full = self.copies(granule.ncae, granule.start().0, |state| state == DiskState::Normal);
        full.iter().any(|(d, _)| !batch.failed.contains(d))
    }

    /// Whether the data of a buffer have to be on a disk of which this is true.
    fn has_to(&self, buffer: BufferIndex, is: impl Fn(DiskIndex) -> bool) -> bool {
        let granule = self.cache.get(buffer).granule;
        self.places(granule.ncae, granule.start().0).iter().any(|(d, _)| is(*d))
    }

    pub(crate) fn disk_failed(&mut self, disk: DiskIndex, duty: Duty) {
        if self.disks.failed(disk, duty, self.now) {
            self.note(crate::effect::Note::DiskFailed { disk });
        }
        self.watch_for_overdue();
    }

    /// Whether all data of a LUN that the disks lack wait for disks, or parts of disks, of which nothing is expected any more.
    pub(crate) fn waits_for_dead_disks(&self, ncae: NcaeIndex) -> bool {
        self.cache.unsettled_of_lun(ncae).all(|buffer| {
            let held = self.cache.get(buffer);
            let places = self.copies(ncae, held.granule.start().0, |state| state == DiskState::Normal);
            let dead = places.iter().all(|(d, _)| self.disks.is_out_of_order(*d, self.now));
            held.usage == Use::Dirty && (dead || self.cache.is_in_vain(buffer))
        })
    }

    /// Data of LUNs that `metadata` do not have any more are nothing.
    pub(crate) fn discard_deleted(&mut self, metadata: &Metadata) {
        for n in 0..LUNS_MAX as u16 {
            let ncae = NcaeIndex(n);
            let noid = self.lun(ncae).map(|l| l.noid);
            if noid.is_none() || metadata.luns.iter().any(|l| Some(l.noid) == noid) {
                continue;
            }
            while let Some(buffer) = self.cache.oldest_of_lun(ncae) {
                let was = self.cache.discard(buffer);
                self.free(buffer, was.twinned && !mutant::is("deleted-data-keep-their-twins"));
            }
        }
        self.send_releases();
    }

    /// What was written to disks that are missing from now on, and not flushed, counts on the other copy, if all that is
    /// there has one. What was put aside may have to go elsewhere.
    pub(crate) fn forget_unflushed(&mut self, metadata: &Metadata) {
        self.cache.take_up();
        for (n, state) in metadata.disks.iter().map(|d| d.state).enumerate() {
            let disk = DiskIndex(n as u16);
            if !state.is_written() && self.is_written(disk) && !metadata.has_single_copies(disk) {
                self.destager.unflushed[n] = false;
            }
        }
    }

    fn is_written(&self, disk: DiskIndex) -> bool {
        let metadata = self.metadata.as_ref();
        metadata.is_none_or(|m| m.state_of(disk).is_none_or(DiskState::is_written))
    }

    /// The disk to go on without: it has been in trouble for too long to be only disturbed.
    pub(crate) fn disk_to_give_up(&mut self) -> Option<DiskIndex> {
        let disks = self.metadata.as_ref().map_or(&[][..], |m| &m.disks);
        let used = |d: DiskIndex| disks.get(d.index()).is_some_and(|d| d.state.is_written());
        self.disks.choose_to_give_up(self.now, used)
    }

    /// One round of flushes at a time, for everything that was written when it began. When somebody waits it begins at
    /// once, else when the writes pause or much has gathered.
    fn flush_written(&mut self) {
        let written = self.cache.written();
        let much = written > self.geometry().buffers / 4;
        let begin = written > 0 && (self.is_urgent() || self.destager.in_flight() == 0 || much);
        if self.destager.flushes > 0 || !begin || self.is_flush_to_wait() {
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
            if !self.destager.unflushed[disk] {
                continue;
            }
            let disk = DiskIndex(disk as u16);
            if !self.disks.answers(disk) {
                self.flush_fails(disk);
                continue;
            }
            self.destager.unflushed[disk.index()] = false;
            let io = self.new_io(Io::Flush { disk });
            self.destager.flushes += 1;
            self.effects.push(Effect::DiskFlush { io, disk });
        }
        if self.destager.flushes == 0 {
            self.end_flush();
        }
    }

    /// Whether something is overdue on a slow disk that is to be flushed. Without that flush all that was written there would have to be
    /// written again.
    fn is_flush_to_wait(&self) -> bool {
        let waits = |disk| !self.disks.answers(disk) && self.disks.is_only_slow(disk, self.now);
        let mut unflushed = self.destager.unflushed.iter().enumerate().filter(|(_, is)| **is);
        unflushed.any(|(n, _)| waits(DiskIndex(n as u16)))
    }

    /// What was written to a disk and not flushed has to be written again.
    fn flush_fails(&mut self, disk: DiskIndex) {
        mark!("a flush failed");
        self.unflushed_may_be_lost(disk);
        self.destager.flush_failed[disk.index()] = true;
        self.destager.unflushed[disk.index()] = true;
    }

    /// A flush of the disk failed that was for something else: what any flush of it in flight covers counts as lost, too, though
    /// that one may end well.
    pub(crate) fn another_flush_fails(&mut self, disk: DiskIndex) {
        if mutant::is("only-its-own-flush-can-fail") {
            return;
        }
        self.unflushed_may_be_lost(disk);
        self.destager.flush_failed[disk.index()] |= self.destager.flushes > 0;
    }

    /// Of all that was written or copied to the disk since it was last flushed, nothing may be there.
    fn unflushed_may_be_lost(&mut self, disk: DiskIndex) {
        self.copies_may_be_lost(disk);
        self.writes_may_be_lost(disk);
    }

    /// Of what was written to the disk and is not of the round that failed, nothing may be there, either.
    fn writes_may_be_lost(&mut self, disk: DiskIndex) {
        if mutant::is("a-failed-flush-is-of-its-round") {
            return;
        }
        let mut next = self.cache.first_written();
        while let Some(buffer) = next {
            next = self.cache.next_written(buffer);
            if self.has_to(buffer, |d| d == disk) {
                self.cache.fail_written(buffer);
            }
        }
        // Nor of the round that is under way. By its end the disk may be missing, and what is left of the data here be on the other.
        let mut next = self
            .cache
            .flushing()
            .filter(|_| !mutant::is("a-round-keeps-what-is-lost"));
        while let Some(buffer) = next {
            next = self.cache.next_written(buffer);
            if self.has_to(buffer, |d| d == disk) {
                self.cache.fail_flush(buffer);
            }
        }
        for b in 0..self.destager.batches.capacity() {
            let in_flight = self.destager.batches.get(b).filter(|batch| batch.outstanding > 0);
            // A batch lies in one RStore.
            if in_flight.is_some_and(|batch| self.has_to(batch.buffers[0], |d| d == disk)) {
                self.batch(b).fail(disk);
            }
        }
    }

    /// A flush is answered.
    pub(crate) fn on_flushed(&mut self, disk: DiskIndex, result: Result<(), DiskError>) {
        if result.is_ok() {
            self.disks.worked(disk, Duty::Flush, self.now);
        } else if !mutant::is("failed-flushes-forgotten") {
            self.flush_fails(disk);
            self.disk_failed(disk, Duty::Flush);
        }
        self.end_one_flush();
    }

    /// A flush is not answered in time.
    fn on_flush_overdue(&mut self, disk: DiskIndex) {
        self.flush_fails(disk);
        self.end_one_flush();
    }

    fn end_one_flush(&mut self) {
        self.destager.flushes -= 1;
        if self.destager.flushes == 0 {
            self.end_flush();
        }
    }

    fn end_flush(&mut self) {
        if mutant::is("a-flush-covers-later-writes") {
            self.cache.begin_flush();
        }
        self.free_flushed();
        self.destager.flush_failed.fill(false);
        self.wake_awaiting_disk();
    }

    /// The data are on disk for good: buffer and twin are free. Those that a disk failed to make durable are dirty again.
    fn free_flushed(&mut self) {
        while let Some(buffer) = self.cache.flushing() {
            if self.has_to(buffer, |d| self.destager.flush_failed[d.index()]) {
                self.cache.fail_flush(buffer);
                continue;
            }
            let was = self.cache.end_flush(buffer);
            if was.superseded || was.held {
                continue;
            }
            self.free(buffer, was.twinned);
        }
        if !mutant::is("releases-after-the-request") {
            self.send_releases();
        }
        self.short_of_memory = false;
        self.turn_may_have_come = true;
    }

    /// The word of a buffer whose data are not needed any more, and its twin where it has one.
    fn free(&mut self, buffer: BufferIndex, twinned: bool) {
        self.store_bmae(buffer, Bmae::FREE);
        if twinned && self.is_mirroring() {
            self.release_twin(buffer);
        }
    }

    pub(crate) fn release_twin(&mut self, buffer: BufferIndex) {
        self.destager.releases.push(buffer);
    }

    /// In link order before any request that uses the buffers again: a request is sent only after this.
    pub(crate) fn send_releases(&mut self) {
        if !self.link.is_up() {
            return self.destager.forget_releases();
        }
        if let Some(number) = self.destager.request_release() {
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
            if htb.stage != Stage::AwaitDisk {
                continue;
            }
            let ncae = htb.ncae;
            let lacks = self.first_that_disks_lack(h);
            let there = lacks.is_none()
                || mutant::is("sync-does-not-wait")
                || mutant::is("status-before-the-flush") && self.has_landed(ncae);
            let status = if there {
                Status::Good
            } else if lacks.is_some_and(|g| self.waits_in_vain(h, g)) {
                // It waits in vain. The data stay in NV memory, and are tried again.
                Status::WriteError
            } else {
                continue;
            };
            self.awaiting_disk -= 1;
            self.finish(h, status);
        }
    }

    /// Whether a granule for which a command waits is not expected on disk soon. What no disk has taken for long was tried again since the
    /// command came, too: a disk may be sound by then.
    fn waits_in_vain(&self, h: u32, granule: Granule) -> bool {
        let came = self.htb(h).waits_since;
        let refused = |b| self.cache.is_in_vain_since(b, came);
        self.cache.current(granule).is_some_and(refused) || !self.can_be_written(granule.ncae, granule.start().0, 1)
    }

    /// Whether the disks have all data of a LUN, if only in their caches.
    fn has_landed(&self, ncae: NcaeIndex) -> bool {
        let is = |b| matches!(self.cache.get(b).usage, Use::Written | Use::Flushing);
        self.cache.unsettled_of_lun(ncae).all(is)
    }

    /// A granule that is not on disk, of those for which a command waits. A write waits for its own; SYNCHRONIZE CACHE for all of
    /// the LUN, and those are written oldest first.
    fn first_that_disks_lack(&mut self, h: u32) -> Option<Granule> {
        let htb = self.htb(h);
        let (ncae, age) = (htb.ncae, htb.age);
        if htb.op == HostOp::Sync || mutant::is("who-waits-for-its-data-waits-for-all") {
            let oldest = self
                .cache
                .oldest_of_lun(ncae)
                .filter(|_| !self.cache.is_on_disk(ncae, age));
            return oldest.map(|b| self.cache.get(b).granule);
        }
        let end = htb.granules().end;
        let mut left = (htb.lacks_from..end).map(|number| Granule { ncae, number });
        let lacks = left.find(|g| !self.cache.is_granule_on_disk(*g, age));
        self.htb_mut(h).lacks_from = lacks.map_or(end, |g| g.number);
        lacks
    }
}

impl Batch {
    /// Each buffer, and what its writes name for it.
    fn named(&self) -> impl Iterator<Item = (BufferIndex, BufferIndex)> {
        self.buffers.iter().copied().zip(self.from.iter().copied())
    }

    fn fail(&mut self, disk: DiskIndex) {
        if !self.failed.contains(&disk) {
            self.failed.push(disk);
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn released(destager: &mut Destager, most: usize) -> (Vec<u32>, bool) {
        let (buffers, more) = destager.next_releases(most);
        (buffers.iter().map(|b| b.0).collect(), more)
    }

    /// As `send_releases` does it.
    fn request(destager: &mut Destager) -> bool {
        !std::mem::replace(&mut destager.release_requested, true)
    }

    #[test]
    fn what_is_released_after_a_withdrawal_does_not_go_before_it() {
        let destager = &mut Destager::new(1, 1, 100);
        destager.releases.extend((0..3).map(BufferIndex));
        assert!(request(destager));
        destager.releases.extend((3..40).map(BufferIndex));
        assert!(!request(destager), "they go with what was requested before");
        destager.close_release();
        destager.releases.push(BufferIndex(40));
        assert!(request(destager));
        destager.close_release();
        destager.close_release();
        destager.releases.push(BufferIndex(41));
        assert!(request(destager));

        assert_eq!(released(destager, 30), ((0..30).collect(), true));
        assert_eq!(released(destager, 30), ((30..40).collect(), false));
        assert_eq!(released(destager, 30), (vec![40], false));
        assert!(!request(destager), "the last one is still to come");
        assert_eq!(released(destager, 30), (vec![41], false));
        assert!(request(destager));
    }
}
