//! The write-back cache as the owner of LUNs sees it: which buffer holds which granule, how old it is, and what is
//! being done with it. All of this is volatile; after a crash it is made anew from the words of NV memory.

mod chain;
mod free;

use crate::config::Geometry;
use crate::ids::{BUFFER_BLOCKS, BufferIndex, Controller, DiskIndex, LUNS_MAX, Nanos, NcaeIndex, Time, Vba};
use crate::layout::metadata::COPIES_MAX;
use crate::list::List;
use crate::mark::mark;
use crate::mutant;
use crate::nv::resolve::ValidBuffer;
use chain::{Chain, Links};
use free::FreeBuffers;

/// A granule: eight aligned blocks of a LUN, what one buffer can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Granule {
    /// The LUN.
    pub ncae: NcaeIndex,
    /// Its first block, divided by eight.
    pub number: u64,
}

impl Granule {
    /// The granule of a block.
    pub fn of(ncae: NcaeIndex, block: u64) -> Granule {
        Granule {
            ncae,
            number: block / u64::from(BUFFER_BLOCKS),
        }
    }

    /// Its first block.
    pub fn start(self) -> Vba {
        Vba(self.number * u64::from(BUFFER_BLOCKS))
    }
}

/// The disks that a granule lies on, whatever their state: they are the same as long as its LUN is there.
pub type Copies = List<DiskIndex, COPIES_MAX>;

/// A buffer that no disk has taken for so long is written alone: it may be the only one of its batch that none takes.
const REFUSED_AFTER: Nanos = Nanos::from_millis(3_000);
/// Nobody waits any more for one that none has taken for so long.
const IN_VAIN_AFTER: Nanos = Nanos::from_millis(6_000);

/// What a buffer is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Use {
    /// Nothing.
    Free,
    /// New data of a write in progress.
    Staged,
    /// Valid data that are to be written to disk; put aside, or not.
    Dirty,
    /// Being written to disk.
    Writing,
    /// On disk, but not yet flushed.
    Written,
    /// On disk, and being flushed.
    Flushing,
    /// On disk for good; but a write in progress names it as old data, and decides what becomes of it.
    Clean,
    /// Nothing that counts; but a disk write may still take what is in it.
    Posted,
}

/// What the cache knows of a buffer.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Buffer {
    /// What it is used for.
    pub usage: Use,
    /// Which granule it holds, unless free.
    pub granule: Granule,
    /// Where that is to be written.
    copies: Copies,
    /// Its valid blocks.
    pub mask: u8,
    /// Newer data took its place; it is only waited for.
    pub superseded: bool,
    /// A write in progress names it as old data.
    pub held: bool,
    /// The partner holds its twin.
    pub twinned: bool,
    /// Reads that still need it.
    pub pins: u16,
    /// Batches with overdue disk writes that name it; or one for which it stands in.
    pub posted: u16,
    /// Somebody waits for it: it comes first in the order of what is to be written.
    hastened: bool,
    /// The round in which it was put aside, last.
    aside: u64,
    /// Since when no disk takes it though one was asked again and again, and for how long that was so when one was asked last.
    fails_since: Option<Time>,
    failed_for: Nanos,
    /// Its place in the order of age. Never lower than that of data which were acknowledged before.
    pub age: u64,
}

impl Buffer {
    /// Whether it holds what is not yet on disk for good.
    fn is_unsettled(&self) -> bool {
        matches!(self.usage, Use::Dirty | Use::Writing | Use::Written | Use::Flushing)
    }

    /// Whether no disk takes it though they may take others: those that are to be written with it go without it, and before it.
    fn is_refused(&self) -> bool {
        self.failed_for >= REFUSED_AFTER
    }

    fn free() -> Buffer {
        Buffer {
            usage: Use::Free,
            granule: Granule::default(),
            copies: Copies::new(),
            mask: 0,
            superseded: false,
            held: false,
            twinned: false,
            pins: 0,
            posted: 0,
            hastened: false,
            aside: 0,
            fails_since: None,
            failed_for: Nanos(0),
            age: 0,
        }
    }
}

/// The cache.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Cache {
    geometry: Geometry,
    own: Controller,
    buffers: Vec<Buffer>,
    /// Free buffers, by pair. Those of the partner's pair are never allocated here, not even while it is out: so the pair is
    /// empty when it is handed back (R9).
    free: [FreeBuffers; 2],
    /// Buckets of the index by granule.
    buckets: Vec<Option<BufferIndex>>,
    in_bucket: Vec<Option<BufferIndex>>,
    /// By LUN: all that is not yet on disk for good, oldest first. How much that is together.
    by_age: Vec<Chain>,
    age_links: Links,
    unsettled: u32,
    /// Those in state `Dirty`, oldest first: to be written, and put aside. Those in `Written`; and in `Flushing`.
    dirty: Chain,
    aside: Chain,
    /// The last of those that come first in `dirty` because somebody waits for them.
    hastened: Option<BufferIndex>,
    /// Counts how often what was put aside was taken up again, from 1.
    round: u64,
    written: Chain,
    flushing: Chain,
    state_links: Links,
    next_age: u64,
    of_lun: Vec<u32>,
    of_disk: Vec<u32>,
    /// Current (not superseded) valid buffers without a twin.
    untwinned: u32,
    /// Buffers of the own pair in state `Posted`.
    posted: u32,
}

impl Cache {
    /// An empty cache of `own`, for so many disks.
    pub fn new(geometry: Geometry, own: Controller, disks: u16) -> Cache {
        let count = geometry.buffers_of_both() as usize;
        let free = Controller::BOTH.map(|pair| {
            let mut free = FreeBuffers::new(count);
            geometry.buffers_of(pair).for_each(|b| free.insert(b));
            free
        });
        Cache {
            geometry,
            own,
            buffers: vec![Buffer::free(); count],
            free,
            buckets: vec![None; count.next_power_of_two()],
            in_bucket: vec![None; count],
            by_age: vec![Chain::default(); LUNS_MAX],
            age_links: Links::new(count),
            unsettled: 0,
            dirty: Chain::default(),
            aside: Chain::default(),
            hastened: None,
            round: 1,
            written: Chain::default(),
            flushing: Chain::default(),
            state_links: Links::new(count),
            next_age: 1,
            of_lun: vec![0; LUNS_MAX],
            of_disk: vec![0; disks.into()],
            untwinned: 0,
            posted: 0,
        }
    }

    /// What is known of `buffer`.
    pub fn get(&self, buffer: BufferIndex) -> &Buffer {
        &self.buffers[buffer.index()]
    }

    /// How many buffers can be allocated now.
    pub fn free(&self) -> usize {
        self.free[self.own.index()].len()
    }

    /// How many buffers of the own pair hold nothing but what a disk may still be writing.
    pub fn posted(&self) -> usize {
        self.posted as usize
    }

    /// How many buffers of a pair are in use.
    pub fn in_use(&self, pair: Controller) -> usize {
        self.geometry.buffers as usize - self.free[pair.index()].len()
    }

    /// Buffers in state `Dirty` that are not put aside.
    pub fn dirty(&self) -> u32 {
        self.dirty.len()
    }

    /// Buffers in state `Written`.
    pub fn written(&self) -> u32 {
        self.written.len()
    }

    /// Buffers whose data the disks may lack, superseded ones in flight included.
    pub fn unsettled(&self) -> u32 {
        self.unsettled
    }

    /// Current valid buffers whose twin the partner does not hold.
    pub fn untwinned(&self) -> u32 {
        self.untwinned
    }

    /// An age that is at least that of everything that is dirty now, and less than that of everything later.
    pub fn age_now(&self) -> u64 {
        self.next_age - 1
    }

    /// Whether everything of `ncae` up to `age` is on disk for good.
    pub fn is_on_disk(&self, ncae: NcaeIndex, age: u64) -> bool {
        self.oldest_of_lun(ncae).is_none_or(|b| self.get(b).age > age)
    }

    /// Whether everything of a granule up to `age` is on disk for good.
    pub fn is_granule_on_disk(&self, granule: Granule, age: u64) -> bool {
        let lacks = |b: &Buffer| b.age <= age && b.is_unsettled();
        !self.of_granule(granule).any(|b| lacks(self.get(b)))
    }

    /// The oldest buffer of `ncae` that is not yet on disk for good.
    pub fn oldest_of_lun(&self, ncae: NcaeIndex) -> Option<BufferIndex> {
        self.by_age[ncae.index()].first()
    }

    /// All that is not yet on disk for good of `ncae`, oldest first.
    pub fn unsettled_of_lun(&self, ncae: NcaeIndex) -> impl Iterator<Item = BufferIndex> {
        std::iter::successors(self.oldest_of_lun(ncae), |b| self.age_links.next(*b))
    }

    fn enter_age(&mut self, buffer: BufferIndex, successor: Option<BufferIndex>) {
        let ncae = self.get(buffer).granule.ncae;
        self.by_age[ncae.index()].insert_before(&mut self.age_links, buffer, successor);
        self.unsettled += 1;
    }

    fn leave_age(&mut self, buffer: BufferIndex) {
        let ncae = self.get(buffer).granule.ncae;
        self.by_age[ncae.index()].remove(&mut self.age_links, buffer);
        self.unsettled -= 1;
    }

    /// The oldest buffer in state `Dirty` that is not put aside.
    pub fn oldest_dirty(&self) -> Option<BufferIndex> {
        self.dirty.first()
    }

    /// The dirty buffer after `buffer`, which is not put aside, in order of age.
    pub fn next_dirty(&self, buffer: BufferIndex) -> Option<BufferIndex> {
        self.state_links.next(buffer)
    }

    /// Somebody waits for the data of a granule: what is dirty of them goes to disk next, after what others wait for already.
    pub fn hasten(&mut self, granule: Granule) {
        let may_be = |b: &BufferIndex| {
            let buffer = self.get(*b);
            buffer.usage == Use::Dirty && !buffer.hastened && !self.is_aside(*b)
        };
        let Some(buffer) = self.current(granule).filter(may_be) else {
            return;
        };
        self.dirty.remove(&mut self.state_links, buffer);
        let before = match self.hastened {
            Some(last) => self.state_links.next(last),
            None => self.dirty.first(),
        };
        self.dirty.insert_before(&mut self.state_links, buffer, before);
        self.buffers[buffer.index()].hastened = true;
        self.hastened = Some(buffer);
    }

    /// The oldest dirty buffer behind those for which somebody waits; none if nobody waits.
    pub fn oldest_unhastened(&self) -> Option<BufferIndex> {
        self.state_links.next(self.hastened?)
    }

    fn is_not_hastened(&mut self, buffer: BufferIndex) {
        self.hastened.take_if(|last| *last == buffer);
        self.buffers[buffer.index()].hastened = false;
    }

    /// A dirty buffer whose disks are to be left alone; it hides others no longer.
    pub fn put_aside(&mut self, buffer: BufferIndex) {
        self.is_not_hastened(buffer);
        self.dirty.remove(&mut self.state_links, buffer);
        self.aside.insert_before(&mut self.state_links, buffer, None);
        self.buffers[buffer.index()].aside = self.round;
    }

    /// The first `most` of those that are put aside.
    pub fn put_aside_first(&self, most: usize) -> impl Iterator<Item = BufferIndex> {
        std::iter::successors(self.aside.first(), |b| self.state_links.next(*b)).take(most)
    }

    /// Everything that was put aside is to be looked at again, before the rest.
    pub fn take_up(&mut self) {
        self.aside
            .append(&mut self.state_links, std::mem::take(&mut self.dirty));
        self.dirty = std::mem::take(&mut self.aside);
        self.round += 1;
    }

    fn is_aside(&self, buffer: BufferIndex) -> bool {
        self.get(buffer).aside == self.round
    }

    fn leave_dirty(&mut self, buffer: BufferIndex) {
        self.is_not_hastened(buffer);
        let aside = self.is_aside(buffer);
        let chain = if aside { &mut self.aside } else { &mut self.dirty };
        chain.remove(&mut self.state_links, buffer);
        self.buffers[buffer.index()].aside = 0;
    }

    fn bucket(&self, granule: Granule) -> usize {
        let mixed = (granule.number ^ u64::from(granule.ncae.0) << 48).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed >> 32) as usize & (self.buckets.len() - 1)
    }

    fn of_granule(&self, granule: Granule) -> impl Iterator<Item = BufferIndex> + '_ {
        let first = self.buckets[self.bucket(granule)];
        std::iter::successors(first, |b| self.in_bucket[b.index()]).filter(move |b| self.get(*b).granule == granule)
    }

    /// The buffer with the valid data of `granule`, if the cache has any.
    pub fn current(&self, granule: Granule) -> Option<BufferIndex> {
        self.of_granule(granule).find(|b| {
            let buffer = self.get(*b);
            !buffer.superseded && !matches!(buffer.usage, Use::Staged | Use::Free)
        })
    }

    /// Whether a write to disk of `granule` is in flight: at most one may be.
    pub fn is_being_written(&self, granule: Granule) -> bool {
        self.of_granule(granule).any(|b| self.get(b).usage == Use::Writing)
    }

    fn enter_index(&mut self, buffer: BufferIndex) {
        let Buffer { granule, copies, .. } = *self.get(buffer);
        let bucket = self.bucket(granule);
        self.of_lun[granule.ncae.index()] += 1;
        copies.iter().for_each(|d| self.of_disk[d.index()] += 1);
        self.in_bucket[buffer.index()] = self.buckets[bucket];
        self.buckets[bucket] = Some(buffer);
    }

    fn leave_index(&mut self, buffer: BufferIndex) {
        let Buffer { granule, copies, .. } = *self.get(buffer);
        let bucket = self.bucket(granule);
        self.of_lun[granule.ncae.index()] -= 1;
        copies.iter().for_each(|d| self.of_disk[d.index()] -= 1);
        let after = self.in_bucket[buffer.index()].take();
        if self.buckets[bucket] == Some(buffer) {
            self.buckets[bucket] = after;
            return;
        }
        let mut at = self.buckets[bucket].expect("a buffer in the index");
        while self.in_bucket[at.index()] != Some(buffer) {
            at = self.in_bucket[at.index()].expect("a buffer in the index");
        }
        self.in_bucket[at.index()] = after;
    }

    /// Allocates a buffer, and by the same act its twin [0054]. Panics if there is none: ask `free`.
    pub fn allocate(&mut self, granule: Granule, copies: Copies, mask: u8) -> BufferIndex {
        let free = &mut self.free[self.own.index()];
        let buffer = free.pop().expect("the cache was asked for room");
        assert_eq!(self.get(buffer).usage, Use::Free);
        self.buffers[buffer.index()] = Buffer {
            usage: Use::Staged,
            granule,
            copies,
            mask,
            ..Buffer::free()
        };
        self.enter_index(buffer);
        buffer
    }

    /// Takes a buffer for what one batch writes to disk, and for nothing else, until `reap`. Panics if there is none: ask `free`.
    pub fn stand_in(&mut self) -> BufferIndex {
        let buffer = self.free[self.own.index()].pop().expect("the cache was asked for room");
        self.be_posted(buffer, 1);
        buffer
    }

    /// Gives a staged buffer back: its write will not happen.
    pub fn unstage(&mut self, buffer: BufferIndex) {
        assert_eq!(self.get(buffer).usage, Use::Staged);
        if !mutant::is("leak-a-buffer") {
            self.free_buffer(buffer);
        }
    }

    /// A staged buffer holds valid data from now on; `old` is what it takes the place of.
    ///
    /// The new buffer takes over the age of an old one whose data no disk write has begun to carry: who waits for
    /// those data to be on disk must wait for the new ones.
    pub fn absorb(&mut self, buffer: BufferIndex, old: Option<BufferIndex>, twinned: bool) {
        assert_eq!(self.get(buffer).usage, Use::Staged);
        let inherited = old.filter(|o| self.get(*o).usage == Use::Dirty && !mutant::is("age-not-inherited"));
        let age = match inherited {
            Some(o) => self.get(o).age,
            None => {
                self.next_age += 1;
                self.next_age - 1
            }
        };
        // So it is with what the disks think of it: it goes to the same place.
        let of_old = |o| (self.get(o).fails_since, self.get(o).failed_for);
        let (fails_since, failed_for) = old.map_or((None, Nanos(0)), of_old);
        let state = &mut self.buffers[buffer.index()];
        (state.fails_since, state.failed_for) = (fails_since, failed_for);
        state.usage = Use::Dirty;
        state.twinned = twinned;
        state.age = age;
        self.enter_age(buffer, inherited);
        // Where the old data were put aside the new ones come last: they will be, too.
        let before = inherited.filter(|o| !self.is_aside(*o));
        self.dirty.insert_before(&mut self.state_links, buffer, before);
        self.untwinned += u32::from(!twinned);
        if let Some(old) = old {
            self.supersede(old);
        }
    }

    fn supersede(&mut self, old: BufferIndex) {
        let buffer = &mut self.buffers[old.index()];
        assert!(!buffer.superseded);
        buffer.superseded = true;
        self.untwinned -= u32::from(!buffer.twinned);
        match buffer.usage {
            Use::Dirty => {
                self.leave_dirty(old);
                self.leave_age(old);
            }
            Use::Clean => {}
            Use::Writing => {
                mark!("data are superseded on their way to disk");
                return;
            }
            _ => return,
        }
        self.buffers[old.index()].usage = Use::Staged;
        self.free_if_unpinned(old);
    }

    /// A write in progress names `old` as old data, until it absorbs new data or says `let_go`.
    pub fn hold(&mut self, old: BufferIndex) {
        self.buffers[old.index()].held = true;
    }

    /// The write will not happen. Returns whether the old data reached the disk for good meanwhile: then the buffer is
    /// free, and its NV word the caller's to free.
    pub fn let_go(&mut self, old: BufferIndex) -> bool {
        self.buffers[old.index()].held = false;
        let clean = self.get(old).usage == Use::Clean;
        if clean {
            mark!("a write is withdrawn after its old data reached the disk");
            self.supersede(old);
        }
        clean
    }

    /// A dirty buffer is being written to disk.
    pub fn begin_write(&mut self, buffer: BufferIndex) {
        assert_eq!(self.get(buffer).usage, Use::Dirty);
        self.leave_dirty(buffer);
        self.buffers[buffer.index()].usage = Use::Writing;
    }

    /// The write to disk is done.
    pub fn end_write(&mut self, buffer: BufferIndex) {
        assert_eq!(self.get(buffer).usage, Use::Writing);
        self.buffers[buffer.index()].usage = Use::Written;
        self.written.insert_before(&mut self.state_links, buffer, None);
    }

    /// The write to disk failed: it has to be done again, unless newer data took its place.
    pub fn fail_write(&mut self, buffer: BufferIndex) {
        assert_eq!(self.get(buffer).usage, Use::Writing);
        self.must_write_again(buffer);
    }

    /// A write to the disks has ended, and one of them has taken it, or none has. What took its place meanwhile goes to the same.
    pub fn note_write(&mut self, buffer: BufferIndex, taken: bool, now: Time) {
        let before = self.get(buffer).fails_since;
        if taken && before.is_none() {
            return;
        }
        let since = before.or(Some(now)).filter(|_| !taken);
        let heir = self.current(self.get(buffer).granule);
        for b in [Some(buffer), heir].into_iter().flatten() {
            let state = &mut self.buffers[b.index()];
            (state.fails_since, state.failed_for) = (since, since.map_or(Nanos(0), |s| now.since(s)));
        }
    }

    /// Whether it is to be written without others.
    pub fn is_refused(&self, buffer: BufferIndex) -> bool {
        self.get(buffer).is_refused()
    }

    /// Whether it has been written again and again for so long, and no disk has taken it, that it is not waited for.
    pub fn is_in_vain(&self, buffer: BufferIndex) -> bool {
        self.get(buffer).failed_for >= IN_VAIN_AFTER && !mutant::is("a-part-that-takes-nothing-is-waited-for")
    }

    /// Whether that is so, and it was tried in vain since then.
    pub fn is_in_vain_since(&self, buffer: BufferIndex, then: Time) -> bool {
        let Buffer {
            fails_since,
            failed_for,
            ..
        } = *self.get(buffer);
        self.is_in_vain(buffer) && fails_since.is_some_and(|since| since + failed_for >= then)
    }

    fn must_write_again(&mut self, buffer: BufferIndex) {
        if self.get(buffer).superseded {
            self.hand_on_age(buffer);
            self.leave_age(buffer);
            self.buffers[buffer.index()].usage = Use::Staged;
            self.free_if_unpinned(buffer);
        } else {
            self.buffers[buffer.index()].usage = Use::Dirty;
            // What no disk takes must not take all places for ever.
            let next = self.dirty.first().filter(|_| !self.is_refused(buffer));
            self.dirty.insert_before(&mut self.state_links, buffer, next);
        }
    }

    /// Whoever waits for data that failed to reach the disk waits for those that took their place.
    fn hand_on_age(&mut self, buffer: BufferIndex) {
        let Buffer { granule, age, .. } = *self.get(buffer);
        let Some(heir) = self.current(granule) else { return };
        if self.get(heir).age > age {
            self.leave_age(heir);
            self.buffers[heir.index()].age = age;
            self.enter_age(heir, Some(buffer));
        }
    }

    /// Everything written so far is going to be flushed.
    pub fn begin_flush(&mut self) {
        while let Some(buffer) = self.written.first() {
            self.written.remove(&mut self.state_links, buffer);
            self.buffers[buffer.index()].usage = Use::Flushing;
            self.flushing.insert_before(&mut self.state_links, buffer, None);
        }
    }

    /// A buffer that is being flushed, if any is.
    pub fn flushing(&self) -> Option<BufferIndex> {
        self.flushing.first()
    }

    /// The first buffer in state `Written`, if any is.
    pub fn first_written(&self) -> Option<BufferIndex> {
        self.written.first()
    }

    /// The one after `buffer`, which is in that state.
    pub fn next_written(&self, buffer: BufferIndex) -> Option<BufferIndex> {
        self.state_links.next(buffer)
    }

    /// What was written may be lost: it has to be written again.
    pub fn fail_written(&mut self, buffer: BufferIndex) {
        self.written.remove(&mut self.state_links, buffer);
        self.must_write_again(buffer);
    }

    /// Its flush failed: it has to be written again.
    pub fn fail_flush(&mut self, buffer: BufferIndex) {
        self.flushing.remove(&mut self.state_links, buffer);
        self.must_write_again(buffer);
    }

    /// Its flush is done: it is on disk for good. Returns how it was. The NV word of a buffer that was neither superseded
    /// nor held is the caller's to free; the buffer itself is free now, or once nothing needs it.
    pub fn end_flush(&mut self, buffer: BufferIndex) -> Buffer {
        self.flushing.remove(&mut self.state_links, buffer);
        self.leave_age(buffer);
        let was = *self.get(buffer);
        if was.held && !was.superseded {
            mark!("old data of a write in progress reach the disk");
            self.buffers[buffer.index()].usage = Use::Clean;
            return was;
        }
        self.untwinned -= u32::from(!was.superseded && !was.twinned);
        let state = &mut self.buffers[buffer.index()];
        state.superseded = true;
        state.usage = Use::Staged;
        self.free_if_unpinned(buffer);
        was
    }

    /// A dirty buffer of a LUN that is deleted holds nothing any more. Returns how it was. Its NV word is the caller's to
    /// free; the buffer itself is free now, or once nothing needs it.
    pub fn discard(&mut self, buffer: BufferIndex) -> Buffer {
        let was = *self.get(buffer);
        assert_eq!(was.usage, Use::Dirty, "data of a deleted LUN are on their way");
        self.supersede(buffer);
        was
    }

    /// A batch with a disk write of `buffer` that is overdue: its memory is not used again until `reap`.
    pub fn leave_posted(&mut self, buffer: BufferIndex) {
        self.buffers[buffer.index()].posted += 1;
    }

    /// Such a write has ended.
    pub fn reap(&mut self, buffer: BufferIndex) {
        let state = &mut self.buffers[buffer.index()];
        if state.posted == 0 {
            return;
        }
        state.posted -= 1;
        if state.posted == 0 && state.usage == Use::Posted {
            self.posted -= self.is_own(buffer);
            self.be_free(buffer);
        }
    }

    /// A read needs `buffer` until it says `unpin`.
    pub fn pin(&mut self, buffer: BufferIndex) {
        self.buffers[buffer.index()].pins += 1;
    }

    /// A read does not need `buffer` any more.
    pub fn unpin(&mut self, buffer: BufferIndex) {
        let state = &mut self.buffers[buffer.index()];
        state.pins -= 1;
        if state.superseded && state.usage == Use::Staged {
            self.free_if_unpinned(buffer);
        }
    }

    fn free_if_unpinned(&mut self, buffer: BufferIndex) {
        if self.get(buffer).pins == 0 || mutant::is("ignore-pins") {
            self.free_buffer(buffer);
        }
    }

    fn free_buffer(&mut self, buffer: BufferIndex) {
        self.leave_index(buffer);
        let posted = self.get(buffer).posted;
        if posted > 0 {
            self.be_posted(buffer, posted);
        } else {
            self.be_free(buffer);
        }
    }

    fn be_posted(&mut self, buffer: BufferIndex, posted: u16) {
        self.buffers[buffer.index()] = Buffer {
            usage: Use::Posted,
            superseded: true,
            posted,
            ..Buffer::free()
        };
        self.posted += self.is_own(buffer);
    }

    fn be_free(&mut self, buffer: BufferIndex) {
        self.buffers[buffer.index()] = Buffer::free();
        self.free_of(buffer).insert(buffer);
    }

    /// 1 for a buffer of the own pair.
    fn is_own(&self, buffer: BufferIndex) -> u32 {
        u32::from(self.geometry.pair_of(buffer) == Some(self.own))
    }

    /// The free buffers of its pair.
    fn free_of(&mut self, buffer: BufferIndex) -> &mut FreeBuffers {
        let pair = self.geometry.pair_of(buffer).expect("a buffer");
        &mut self.free[pair.index()]
    }

    /// Takes over a buffer that NV memory says is valid, after a restart or a takeover.
    pub fn adopt(&mut self, valid: ValidBuffer, copies: Copies, twinned: bool) {
        let buffer = valid.buffer;
        assert_eq!(self.get(buffer).usage, Use::Free);
        self.free_of(buffer).remove(buffer);
        self.buffers[buffer.index()] = Buffer {
            usage: Use::Staged,
            granule: Granule::of(valid.ncae, valid.start.0),
            copies,
            mask: valid.mask,
            ..Buffer::free()
        };
        self.enter_index(buffer);
        self.absorb(buffer, None, twinned);
    }

    /// The partner is out: no buffer has a twin any more.
    pub fn forget_twins(&mut self) {
        if mutant::is("remember-old-twins") {
            return;
        }
        self.untwinned = 0;
        for buffer in &mut self.buffers {
            buffer.twinned = false;
            let valid = !matches!(buffer.usage, Use::Free | Use::Staged);
            self.untwinned += u32::from(valid && !buffer.superseded);
        }
    }

    /// How many buffers are in use for `ncae`, superseded ones in flight included.
    pub fn count_of_lun(&self, ncae: NcaeIndex) -> u32 {
        self.of_lun[ncae.index()]
    }

    /// How many buffers are in use for what lies on `disk`, superseded ones in flight included.
    pub fn count_of_disk(&self, disk: DiskIndex) -> u32 {
        self.of_disk[disk.index()]
    }

    /// Checks what must hold between steps. Panics if it does not.
    pub fn check(&self) {
        let (mut untwinned, mut unsettled, mut posted) = (0, 0, 0);
        let count = self.geometry.buffers as usize;
        for pair in Controller::BOTH {
            let first = count * pair.index();
            for at in self.free[pair.index()].others(first, first + count) {
                let buffer = self.get(at);
                assert_ne!(buffer.usage, Use::Free, "{at} is lost");
                posted += u32::from(buffer.usage == Use::Posted) * self.is_own(at);
                untwinned += u32::from(!buffer.superseded && buffer.usage != Use::Staged && !buffer.twinned);
                let chain = &self.by_age[buffer.granule.ncae.index()];
                // Each chain that is not empty is met once.
                if chain.first() == Some(at) {
                    unsettled += self.check_order(chain);
                }
            }
        }
        assert_eq!(untwinned, self.untwinned, "twins miscounted");
        assert_eq!(unsettled, self.unsettled, "what is not on disk is miscounted");
        assert_eq!(posted, self.posted, "what is only posted is miscounted");
    }

    /// How many buffers are in a chain, which must be in order of their age.
    fn check_order(&self, chain: &Chain) -> u32 {
        let (mut count, mut age, mut at) = (0, 0, chain.first());
        while let Some(buffer) = at {
            assert!(self.get(buffer).age >= age, "the order of age is broken");
            age = self.get(buffer).age;
            at = self.age_links.next(buffer);
            count += 1;
        }
        count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache() -> Cache {
        let geometry = Geometry {
            buffers: 64,
            ries: 4,
            htbs: 4,
            transfers: 4,
            destages: 2,
        };
        Cache::new(geometry, Controller::A, 2)
    }

    fn copies() -> Copies {
        Copies::from_slice(&[DiskIndex(0), DiskIndex(1)])
    }

    fn granule(number: u64) -> Granule {
        Granule {
            ncae: NcaeIndex(0),
            number,
        }
    }

    #[test]
    fn new_data_inherit_the_age_of_unwritten_old_data() {
        let mut cache = cache();
        let old = cache.allocate(granule(7), copies(), 0xff);
        cache.absorb(old, None, true);
        let synced = cache.age_now();
        let new = cache.allocate(granule(7), copies(), 0xff);
        cache.absorb(new, Some(old), true);
        assert_eq!(cache.current(granule(7)), Some(new));
        assert!(
            !cache.is_on_disk(NcaeIndex(0), synced),
            "the old data never reached the disk, so the new ones have to"
        );
        cache.begin_write(new);
        cache.end_write(new);
        cache.begin_flush();
        cache.end_flush(new);
        assert!(cache.is_on_disk(NcaeIndex(0), synced));
        assert_eq!(cache.in_use(Controller::A), 0);
        cache.check();
    }

    #[test]
    fn old_data_stay_while_a_write_in_progress_names_them() {
        for happens in [true, false] {
            let mut cache = cache();
            let old = cache.allocate(granule(7), copies(), 0xff);
            cache.absorb(old, None, true);
            cache.hold(old);
            let new = cache.allocate(granule(7), copies(), 0xff);
            cache.begin_write(old);
            cache.end_write(old);
            cache.begin_flush();
            assert!(cache.end_flush(old).held);
            assert_eq!(cache.current(granule(7)), Some(old));
            assert!(cache.is_on_disk(NcaeIndex(0), cache.age_now()));
            if happens {
                cache.absorb(new, Some(old), true);
                assert_eq!(cache.current(granule(7)), Some(new));
            } else {
                cache.unstage(new);
                assert!(cache.let_go(old));
                assert_eq!(cache.in_use(Controller::A), 0);
            }
            cache.check();
        }
    }

    #[test]
    fn a_pinned_buffer_outlives_its_flush() {
        let mut cache = cache();
        let buffer = cache.allocate(granule(1), copies(), 0x01);
        cache.absorb(buffer, None, false);
        cache.pin(buffer);
        cache.begin_write(buffer);
        cache.end_write(buffer);
        cache.begin_flush();
        cache.end_flush(buffer);
        assert_eq!(cache.current(granule(1)), None);
        assert_eq!(cache.in_use(Controller::A), 1);
        cache.unpin(buffer);
        assert_eq!(cache.in_use(Controller::A), 0);
        cache.check();
    }

    #[test]
    fn a_buffer_that_an_overdue_write_names_is_not_used_again() {
        let mut cache = cache();
        let buffer = cache.allocate(granule(1), copies(), 0xff);
        cache.absorb(buffer, None, false);
        cache.begin_write(buffer);
        cache.leave_posted(buffer);
        cache.fail_write(buffer);
        cache.begin_write(buffer);
        cache.end_write(buffer);
        cache.begin_flush();
        cache.end_flush(buffer);
        assert_eq!(cache.current(granule(1)), None);
        assert_eq!((cache.in_use(Controller::A), cache.unsettled()), (1, 0));
        assert_eq!(cache.count_of_lun(NcaeIndex(0)), 0);
        assert_eq!(cache.count_of_disk(DiskIndex(1)), 0);
        cache.check();
        cache.reap(buffer);
        assert_eq!(cache.in_use(Controller::A), 0);
        cache.check();
    }

    #[test]
    fn what_stands_in_for_a_buffer_holds_nothing_and_is_taken() {
        let mut cache = cache();
        let copy = cache.stand_in();
        assert_eq!((cache.in_use(Controller::A), cache.posted()), (1, 1));
        assert_eq!((cache.unsettled(), cache.untwinned()), (0, 0));
        cache.forget_twins();
        cache.check();
        cache.reap(copy);
        assert_eq!((cache.in_use(Controller::A), cache.posted()), (0, 0));
        cache.check();
    }

    #[test]
    fn what_is_put_aside_hides_nothing_and_comes_back_first() {
        let mut cache = cache();
        let buffers = [1, 2, 3].map(|n| cache.allocate(granule(n), copies(), 0xff));
        for buffer in buffers {
            cache.absorb(buffer, None, false);
        }
        cache.put_aside(buffers[0]);
        assert_eq!((cache.oldest_dirty(), cache.dirty()), (Some(buffers[1]), 2));
        let newer = cache.allocate(granule(1), copies(), 0xff);
        cache.absorb(newer, Some(buffers[0]), false);
        cache.put_aside(buffers[1]);
        cache.take_up();
        let order: Vec<_> = std::iter::successors(cache.oldest_dirty(), |b| cache.next_dirty(*b)).collect();
        assert_eq!(order, [buffers[1], buffers[2], newer]);
        cache.begin_write(buffers[1]);
        cache.check();
    }

    #[test]
    fn one_disk_write_in_flight_for_a_granule() {
        let mut cache = cache();
        let old = cache.allocate(granule(1), copies(), 0xff);
        cache.absorb(old, None, true);
        cache.begin_write(old);
        let new = cache.allocate(granule(1), copies(), 0xff);
        cache.absorb(new, Some(old), true);
        assert!(cache.is_being_written(granule(1)));
        cache.end_write(old);
        assert!(!cache.is_being_written(granule(1)));
        cache.check();
    }
}
