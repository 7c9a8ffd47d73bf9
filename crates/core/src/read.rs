//! A host's read: from the cache where it can be, else from disk with the cache laid over it.

use crate::cache::{Copies, Granule};
use crate::controller::{Core, InFlight, Io};
use crate::effect::Effect;
use crate::event::DiskError;
use crate::host::Status;
use crate::htb::{Origin, Portion, Stage, granules, mask_in_granule, sgl};
use crate::ids::{
    ATOMIC_BLOCKS, ATOMIC_GRANULES, BUFFER_BLOCKS, BlockCount, BufferIndex, DiskIndex, NcaeIndex, PSEG_BLOCKS,
    QUORUM_SPACE_BLOCKS, TransferIndex,
};
use crate::layout::metadata::{COPIES_MAX, DiskState, PsegAddress};
use crate::list::List;
use crate::mark::mark;
use crate::memory::{Memory, Segment};
use crate::mutant;
use crate::write::Lacks;

const SIZE: u64 = BUFFER_BLOCKS as u64;

/// A run of granules that lies in one piece on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Extent {
    /// First block on the LUN, granule aligned.
    pub start: u64,
    /// Blocks, whole granules.
    pub blocks: u32,
    /// The disk whose copy could not be read.
    pub failed: Option<DiskIndex>,
}

/// Where a copy lies: the disk, and the block on it.
pub type Place = (DiskIndex, u64);

impl Core {
    /// The next portion of a read begins, if it gets the memory that it needs.
    pub(crate) fn admit_read(&mut self, h: u32) -> Lacks {
        let htb = self.htb(h);
        let (ncae, start) = (htb.ncae, htb.next_block());
        let blocks = htb.left().min(ATOMIC_BLOCKS);
        let cached = self.cached(ncae, start, blocks);
        let whole = cached.iter().all(Option::is_some);
        let direct = whole && matches!(htb.origin, Origin::Host(_));
        let needs_transfer = !direct && htb.transfer.is_none();
        if needs_transfer && self.free_transfers.is_empty() && !mutant::is("a-full-disk-hides-a-lack") {
            // That comes first: what later reads wait for must not depend on how busy the disks are.
            mark!("a read waits for a transfer buffer");
            return Lacks::Transfer;
        }
        if !whole {
            match self.look_at_disks(ncae, start, blocks) {
                Ok(None) if !self.sight.suspects => {}
                Ok(full_disk) => {
                    self.htb_mut(h).full_disk = full_disk;
                    return Lacks::Leave;
                }
                Err(DiskError) if self.suspects_itself() => return Lacks::Leave,
                Err(DiskError) => {
                    self.finish(h, Status::ReadError);
                    return Lacks::Nothing;
                }
            }
        }
        if needs_transfer {
            let Some(transfer) = self.free_transfers.pop() else {
                return Lacks::Transfer;
            };
            self.htb_mut(h).transfer = Some(transfer);
        }
        let htb = self.htb_mut(h);
        htb.locked = true;
        htb.full_disk = None;
        htb.portion = Portion {
            start,
            blocks,
            ..Portion::default()
        };
        if whole {
            let buffers: List<BufferIndex, ATOMIC_GRANULES> = cached.iter().flatten().copied().collect();
            self.deliver_from_cache(h, &buffers);
        } else {
            self.read_from_disk(h);
        }
        Lacks::Nothing
    }

    /// For each granule of the range the buffer that holds all that is wanted of it.
    fn cached(&self, ncae: NcaeIndex, start: u64, blocks: u32) -> List<Option<BufferIndex>, ATOMIC_GRANULES> {
        let first = start / SIZE;
        (first..first + granules(start, blocks) as u64)
            .map(|number| {
                let wanted = mask_in_granule(number, start, blocks);
                let buffer = self.cache.current(Granule { ncae, number });
                buffer.filter(|b| self.cache.get(*b).mask & wanted == wanted || mutant::is("a-part-is-whole"))
            })
            .collect()
    }

    fn deliver_from_cache(&mut self, h: u32, buffers: &[BufferIndex]) {
        let (portion, transfer) = (self.htb(h).portion, self.htb(h).transfer);
        let from = sgl(portion.start, portion.blocks, buffers);
        match transfer {
            None => self.deliver(h, Memory::Buffers(from)),
            Some(transfer) => {
                let first = (portion.start % SIZE) as u16;
                self.effects.push(Effect::Gather { from, transfer, first });
                self.deliver(h, read_memory(transfer, portion.start, portion.blocks));
            }
        }
    }

    fn read_from_disk(&mut self, h: u32) {
        let (ncae, portion) = (self.htb(h).ncae, self.htb(h).portion);
        let first = portion.start / SIZE;
        let count = granules(portion.start, portion.blocks) as u64;
        let mut pinned = List::new();
        for number in first..first + count {
            if let Some(buffer) = self.cache.current(Granule { ncae, number }) {
                self.cache.pin(buffer);
                pinned.push(buffer);
            }
        }
        let htb = self.htb_mut(h);
        htb.portion.pinned = pinned;
        htb.stage = Stage::AwaitDiskRead;
        for extent in extents(portion.start, portion.blocks) {
            let from = self.source(ncae, &extent).expect("admit_read looked");
            self.read_extent(h, extent, from);
        }
    }

    /// Whether the range can be read from the disks now: not while one that has to do it, which is returned, does not answer, or is
    /// busy with as many reads as it may be.
    ///
    /// # Errors
    /// No disk that has a copy of some part of it is in order, or answers.
    fn look_at_disks(&self, ncae: NcaeIndex, start: u64, blocks: u32) -> Result<Option<DiskIndex>, DiskError> {
        for extent in extents(start, blocks) {
            let (disk, _) = self.source(ncae, &extent).ok_or(DiskError)?;
            if !(self.disks.answers(disk) && self.disks.may_read(disk)) {
                return Ok(Some(disk));
            }
        }
        Ok(None)
    }

    /// The copy that an extent is read from: one on a disk that answers, if there is one. One that is out of order, and answers, is
    /// better than none: it may only take no writes. What it failed to take is in the cache.
    fn source(&self, ncae: NcaeIndex, extent: &Extent) -> Option<Place> {
        let level =
            |state: DiskState| state == DiskState::Normal || mutant::is("a-merging-disk-is-read") && state.is_written();
        let mut copies = self.copies(ncae, extent.start, level);
        if extent.start / PSEG_BLOCKS % 2 == 1 {
            copies.as_mut_slice().reverse();
        }
        let answers = |(d, _): &&Place| self.disks.answers(*d);
        let in_order = |(d, _): &&Place| !self.disks.is_out_of_order(*d, self.now);
        let others = copies.iter().filter(|(d, _)| Some(*d) != extent.failed);
        let mut usable = others.clone().filter(in_order);
        let best = usable.clone().find(answers).or_else(|| usable.next());
        let last = || {
            others
                .clone()
                .find(answers)
                .filter(|_| !mutant::is("who-takes-no-writes-is-not-read"))
        };
        best.or_else(last).copied()
    }

    fn read_extent(&mut self, h: u32, extent: Extent, (disk, block): Place) {
        let htb = self.htb(h);
        let into = Memory::Transfer {
            transfer: htb.transfer.expect("admit_read took it"),
            first: (extent.start - htb.portion.start / SIZE * SIZE) as u16,
            blocks: extent.blocks as u16,
        };
        self.htb_mut(h).portion.reads += 1;
        self.disks.read_begins(disk);
        let io = self.new_io(Io::Read { htb: h, extent, disk });
        self.effects.push(Effect::DiskRead { io, disk, block, into });
    }

    /// Where a block of a LUN is written: every copy on a disk that is in order, or is being brought level. What has one
    /// copy is written there, whatever becomes of it.
    pub(crate) fn places(&self, ncae: NcaeIndex, block: u64) -> List<Place, COPIES_MAX> {
        let normal = mutant::is("a-merging-disk-gets-no-writes");
        self.copies(ncae, block, |state| {
            state == DiskState::Normal || state.is_written() && !normal
        })
    }

    /// The disks of all copies of a block.
    pub(crate) fn disks_of_block(&self, ncae: NcaeIndex, block: u64) -> Copies {
        self.copies(ncae, block, |_| true)
            .iter()
            .map(|(disk, _)| *disk)
            .collect()
    }

    /// The copies of a block that lie on disks of such a state; the only copy lies on a disk of any.
    pub(crate) fn copies(
        &self,
        ncae: NcaeIndex,
        block: u64,
        is: impl Fn(DiskState) -> bool,
    ) -> List<Place, COPIES_MAX> {
        let lun = self.lun(ncae).expect("the command was checked");
        let rstore = lun.rstore((block / PSEG_BLOCKS) as usize);
        let place = |p: &PsegAddress| {
            let at = QUORUM_SPACE_BLOCKS + u64::from(p.pseg.0) * PSEG_BLOCKS + block % PSEG_BLOCKS;
            (p.disk, at)
        };
        let disks = &self.metadata.as_ref().expect("a LUN is in it").disks;
        let counts = |p: &&PsegAddress| rstore.len() == 1 || is(disks[p.disk.index()].state);
        rstore.iter().filter(counts).map(place).collect()
    }

    /// Whether all of a range could be written to disk as things are: at least one copy of each block.
    pub(crate) fn can_be_written(&self, ncae: NcaeIndex, start: u64, blocks: u32) -> bool {
        extents(start, blocks).all(|extent| {
            let places = self.copies(ncae, extent.start, |state| state == DiskState::Normal);
            let mut in_order = places.iter().map(|(d, _)| !self.disks.is_out_of_order(*d, self.now));
            if mutant::is("every-disk-must-be-in-order") {
                return in_order.all(|is| is);
            }
            in_order.any(|is| is)
        })
    }

    /// A disk read is answered.
    pub(crate) fn on_read(&mut self, h: u32, extent: Extent, disk: DiskIndex, result: Result<(), DiskError>) {
        self.turn_may_have_come |= self.disks.read_ends(disk);
        self.htb_mut(h).portion.reads -= 1;
        if result.is_err() && !mutant::is("read-errors-ignored") {
            let failed = Some(disk);
            let again = Extent { failed, ..extent };
            let other = self
                .source(self.htb(h).ncae, &again)
                .filter(|(d, _)| extent.failed.is_none() && self.disks.answers(*d))
                .filter(|_| !mutant::is("one-copy-is-tried"));
            if let Some(place) = other {
                return self.read_extent(h, again, place);
            }
            if self.may_be_read_later(h, &extent) || self.doubts_the_error(h) {
                self.htb_mut(h).portion.again = true;
            } else {
                self.htb_mut(h).status = Status::ReadError;
            }
        }
        if self.htb(h).portion.reads == 0 {
            self.overlay(h);
        }
    }

    /// Whether it waits until it is known whose fault the error is: once, for a disk may take longer to fail again than that is known.
    fn doubts_the_error(&mut self, h: u32) -> bool {
        if self.htb(h).suspected && !mutant::is("each-error-is-a-doubt") {
            return false;
        }
        let suspects = self.suspects_itself();
        self.htb_mut(h).suspected |= suspects;
        suspects
    }

    /// Whether a copy lies on a disk that does not answer now, and may do so soon. Until then all that it is asked for fails,
    /// which says nothing of the copy.
    fn may_be_read_later(&self, h: u32, extent: &Extent) -> bool {
        let copies = self.copies(self.htb(h).ncae, extent.start, |state| state == DiskState::Normal);
        let stalls = |(d, _): &Place| !self.disks.answers(*d) && !self.disks.is_out_of_order(*d, self.now);
        copies.iter().any(stalls)
    }

    /// Reads that a disk does not answer begin anew, in other memory, where there is another copy; where nothing is
    /// expected of any disk any more they fail.
    pub(crate) fn leave_overdue_reads(&mut self) {
        self.read_lacks_memory = false;
        for at in 0..self.order.len() {
            let h = self.order[at];
            if self.htb(h).stage != Stage::AwaitDiskRead {
                continue;
            }
            let late = |i: &InFlight| match i.io {
                Io::Read { htb, extent, disk } if htb == h && i.overdue => Some((extent, disk)),
                _ => None,
            };
            let Some((extent, disk)) = self.ios.iter().find_map(|(_, i)| late(i)) else {
                continue;
            };
            match self.source(self.htb(h).ncae, &extent) {
                None => self.leave_reads(h, true),
                Some((other, _)) if other != disk => self.leave_reads(h, false),
                Some(_) => {}
            }
        }
    }

    /// Those that could not, for want of memory, do before anybody else gets what came free: hosts may always have other reads
    /// that take it.
    pub(crate) fn leave_reads_that_lack_memory(&mut self) {
        let can = self.read_lacks_memory && !self.free_transfers.is_empty();
        if can && !mutant::is("overdue-reads-get-what-is-left") {
            self.leave_overdue_reads();
        }
    }

    /// The reads of a command go on without it. Their memory is not used again before they have ended; the partner gets
    /// another transfer buffer for one that it names.
    fn leave_reads(&mut self, h: u32, fails: bool) {
        let old = self.htb(h).transfer.expect("a disk read has memory");
        let mut new = None;
        if let Some(at) = self.partners.iter().position(|t| *t == old) {
            new = self.free_transfers.pop();
            let Some(new) = new else {
                self.read_lacks_memory = true;
                return;
            };
            self.partners[at] = new;
        }
        for place in 0..self.ios.capacity() {
            let Some(in_flight) = self.ios.get_mut(place) else {
                continue;
            };
            if let Io::Read { htb, disk, .. } = in_flight.io
                && htb == h
            {
                in_flight.io = Io::OldRead { transfer: old, disk };
                self.old_reads[old.index()] += 1;
            }
        }
        self.limit_reads();
        let pinned = self.htb(h).portion.pinned;
        for buffer in pinned.iter() {
            self.cache.unpin(*buffer);
        }
        let htb = self.htb_mut(h);
        htb.transfer = new;
        htb.portion = Portion::default();
        if !mutant::is("an-error-outlives-its-reads") {
            // All of it is read anew.
            htb.status = Status::Good;
        }
        htb.stage = Stage::AwaitTurn;
        self.turn_may_have_come = true;
        if mutant::is("forget-an-overdue-read") {
            self.free_transfers.push(old);
        }
        if fails {
            self.finish(h, Status::ReadError);
        }
    }

    /// A read that nobody waits for has ended.
    pub(crate) fn on_old_read(&mut self, transfer: TransferIndex, disk: DiskIndex) {
        self.turn_may_have_come |= self.disks.read_ends(disk);
        let left = &mut self.old_reads[transfer.index()];
        *left -= 1;
        if *left == 0 {
            self.free_transfers.push(transfer);
            self.limit_reads();
            self.turn_may_have_come = true;
        }
    }

    /// What disks hold that do not answer is not there for the next one to hold.
    fn limit_reads(&mut self) {
        let held = self.old_reads.iter().filter(|n| **n > 0).count();
        let own = usize::from(self.geometry().transfers) - self.partners_transfers();
        self.disks.limit_reads((own - held) as u16);
    }

    /// What the cache holds is newer than what the disks held when they were read.
    fn overlay(&mut self, h: u32) {
        let portion = self.htb(h).portion;
        let transfer = self.htb(h).transfer.expect("admit_read took it");
        let base = portion.start / SIZE * SIZE;
        for buffer in portion.pinned.iter() {
            let held = *self.cache.get(*buffer);
            let mask = if mutant::is("overlay-nothing") { 0 } else { held.mask };
            for &(first, count) in &runs(mask) {
                let from = List::from_slice(&[Segment {
                    buffer: *buffer,
                    first,
                    count,
                }]);
                let first = (held.granule.start().0 - base) as u16 + u16::from(first);
                self.effects.push(Effect::Gather { from, transfer, first });
            }
            if !mutant::is("leak-a-pin") {
                self.cache.unpin(*buffer);
            }
        }
        match self.htb(h).status {
            Status::Good if portion.again => {
                let htb = self.htb_mut(h);
                htb.portion = Portion::default();
                htb.stage = Stage::AwaitTurn;
                // At once, unless a disk that stalls is waited for: that is looked at now and then. Whose fault it is may be known by
                // now, and others may have the memory.
                let later = |extent: Extent| self.may_be_read_later(h, &extent);
                let waits = extents(portion.start, portion.blocks).any(later) && !self.may_be_withdrawn(h);
                self.turn_may_have_come |= !waits && !mutant::is("a-read-waits-for-what-is-known");
            }
            Status::Good => {
                let from = read_memory(transfer, portion.start, portion.blocks);
                self.deliver(h, from);
            }
            status => self.finish(h, status),
        }
    }

    /// The data of the portion are together: the host gets them, or the partner will with the response.
    fn deliver(&mut self, h: u32, from: Memory) {
        let htb = self.htb_mut(h);
        if let Origin::Host(id) = htb.origin {
            let offset = BlockCount(if mutant::is("send-to-the-beginning") {
                0
            } else {
                htb.done
            });
            self.effects.push(Effect::SendData { id, offset, from });
        }
        let htb = self.htb_mut(h);
        htb.done += htb.portion.blocks;
        if htb.left() > 0 {
            htb.stage = Stage::AwaitTurn;
            self.turn_may_have_come = true;
        } else {
            self.finish(h, Status::Good);
        }
    }
}

/// The pieces of a range, in whole granules, each in one RStore.
pub(crate) fn extents(start: u64, blocks: u32) -> impl Iterator<Item = Extent> {
    let mut at = start / SIZE * SIZE;
    let end = at + granules(start, blocks) as u64 * SIZE;
    std::iter::from_fn(move || {
        let blocks = (PSEG_BLOCKS - at % PSEG_BLOCKS).min(end - at) as u32;
        let extent = Extent {
            start: at,
            blocks,
            failed: None,
        };
        at += u64::from(blocks);
        (blocks > 0).then_some(extent)
    })
}

/// Where a read's blocks lie in a transfer buffer that begins with the granule of `start`.
pub(crate) fn read_memory(transfer: TransferIndex, start: u64, blocks: u32) -> Memory {
    Memory::Transfer {
        transfer,
        first: (start % SIZE) as u16,
        blocks: blocks as u16,
    }
}

/// The runs of set bits of a mask, as first block and number of blocks.
pub(crate) fn runs(mask: u8) -> List<(u8, u8), 4> {
    let mut list = List::new();
    let mut at = 0;
    while at < BUFFER_BLOCKS as u8 {
        let rest = u32::from(mask) >> at;
        let gap = rest.trailing_zeros().min(8) as u8;
        let count = (rest >> gap).trailing_ones() as u8;
        if count > 0 {
            list.push((at + gap, count));
        }
        at += gap + count.max(1);
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_the_mask() {
        for mask in 0..=255u8 {
            let mut again = 0u8;
            for (first, count) in runs(mask).iter() {
                again |= (((1u16 << count) - 1) << first) as u8;
            }
            assert_eq!(again, mask);
        }
    }
}
