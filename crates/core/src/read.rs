//! A host's read: from the cache where it can be, else from disk with the cache laid over it.

use crate::cache::Granule;
use crate::controller::{Core, Io};
use crate::effect::Effect;
use crate::event::DiskError;
use crate::host::Status;
use crate::htb::{Origin, Portion, Stage, granules, mask_in_granule, sgl};
use crate::ids::{
    ATOMIC_BLOCKS, ATOMIC_GRANULES, BUFFER_BLOCKS, BlockCount, BufferIndex, DiskIndex, PSEG_BLOCKS,
    QUORUM_SPACE_BLOCKS, TransferIndex,
};
use crate::layout::metadata::{DiskState, PsegAddress};
use crate::list::List;
use crate::memory::{Memory, Segment};
use crate::mutant;
use crate::write::Lacks;

const SIZE: u64 = BUFFER_BLOCKS as u64;

/// A run of granules that lies in one piece on disk, and which copy of it is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Extent {
    /// First block on the LUN, granule aligned.
    pub start: u64,
    /// Blocks, whole granules.
    pub blocks: u32,
    /// Which copy.
    pub copy: u8,
    /// How many copies were tried before.
    pub tried: u8,
}

impl Core {
    /// The next portion of a read begins, if it gets the memory that it needs.
    pub(crate) fn admit_read(&mut self, h: u32) -> Lacks {
        let htb = self.htb(h);
        let (ncae, start) = (htb.ncae, htb.next_block());
        let blocks = htb.left().min(ATOMIC_BLOCKS);
        let cached = self.cached(ncae, start, blocks);
        let whole = cached.iter().all(Option::is_some);
        let direct = whole && matches!(htb.origin, Origin::Host(_));
        if !direct && htb.transfer.is_none() {
            let Some(transfer) = self.free_transfers.pop() else {
                return Lacks::Transfer;
            };
            self.htb_mut(h).transfer = Some(transfer);
        }
        let htb = self.htb_mut(h);
        htb.locked = true;
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
    fn cached(
        &self,
        ncae: crate::ids::NcaeIndex,
        start: u64,
        blocks: u32,
    ) -> List<Option<BufferIndex>, ATOMIC_GRANULES> {
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
        let (mut at, end) = (first * SIZE, (first + count) * SIZE);
        while at < end {
            let blocks = (PSEG_BLOCKS - at % PSEG_BLOCKS).min(end - at) as u32;
            let copy = (at / PSEG_BLOCKS % 2) as u8;
            let extent = Extent {
                start: at,
                blocks,
                copy,
                tried: 0,
            };
            self.read_extent(h, extent);
            at += u64::from(blocks);
        }
    }

    fn read_extent(&mut self, h: u32, extent: Extent) {
        let copies = self.places(self.htb(h).ncae, extent.start);
        let (disk, block) = copies[extent.copy as usize % copies.len()];
        let htb = self.htb(h);
        let into = Memory::Transfer {
            transfer: htb.transfer.expect("admit_read took it"),
            first: (extent.start - htb.portion.start / SIZE * SIZE) as u16,
            blocks: extent.blocks as u16,
        };
        self.htb_mut(h).portion.reads += 1;
        let io = self.new_io(Io::Read { htb: h, extent });
        self.effects.push(Effect::DiskRead { io, disk, block, into });
    }

    /// Where a block of a LUN lies: the disks that hold a copy, and the block on each. A disk that is not in order counts
    /// only where there is no other.
    pub(crate) fn places(&self, ncae: crate::ids::NcaeIndex, block: u64) -> List<(DiskIndex, u64), 2> {
        let lun = self.lun(ncae).expect("the command was checked");
        let rstore = lun.rstore((block / PSEG_BLOCKS) as usize);
        let place = |p: &PsegAddress| {
            let at = QUORUM_SPACE_BLOCKS + u64::from(p.pseg.0) * PSEG_BLOCKS + block % PSEG_BLOCKS;
            (p.disk, at)
        };
        let disks = &self.metadata.as_ref().expect("a LUN is in it").disks;
        let normal = |p: &&PsegAddress| disks[p.disk.index()].state == DiskState::Normal;
        let all: List<(DiskIndex, u64), 2> = rstore.iter().filter(normal).map(place).collect();
        if all.is_empty() {
            rstore.iter().map(place).collect()
        } else {
            all
        }
    }

    /// A disk read is answered.
    pub(crate) fn on_read(&mut self, h: u32, extent: Extent, result: Result<(), DiskError>) {
        self.htb_mut(h).portion.reads -= 1;
        if result.is_err() && !mutant::is("read-errors-ignored") {
            let copies = self.places(self.htb(h).ncae, extent.start).len() as u8;
            if extent.tried + 1 < copies {
                let again = Extent {
                    copy: (extent.copy + 1) % copies,
                    tried: extent.tried + 1,
                    ..extent
                };
                return self.read_extent(h, again);
            }
            self.htb_mut(h).status = Status::ReadError;
        }
        if self.htb(h).portion.reads == 0 {
            self.overlay(h);
        }
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
        if self.htb(h).status == Status::Good {
            let from = read_memory(transfer, portion.start, portion.blocks);
            self.deliver(h, from);
        } else {
            let status = self.htb(h).status;
            self.finish(h, status);
        }
    }

    /// The data of the portion are together: the host gets them, or the partner will with the response.
    fn deliver(&mut self, h: u32, from: Memory) {
        let htb = self.htb_mut(h);
        if let Origin::Host(id) = htb.origin {
            let offset = BlockCount(htb.done);
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
