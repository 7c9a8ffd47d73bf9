//! Where bytes are: turns the core's [`Memory`] into addresses, and copies.
//!
//! The core decides who may use which block when; while a disk reads into or writes from a place, the core names
//! it for nothing else. All copies go through raw pointers, so that no reference claims more than that.

use crate::crc;
use crate::nv::NvMemory;
use std::alloc::{self, Layout};
use std::cell::Cell;
use std::ptr::NonNull;
use twincell_core::ids::{ATOMIC_GRANULES, BLOCK_BYTES, BUFFER_BYTES, TransferIndex};
use twincell_core::memory::{Memory, Segment};
use twincell_wire::{crc32c, crc32c_append};

/// Blocks of a transfer buffer.
const TRANSFER_BLOCKS: usize = ATOMIC_GRANULES * BUFFER_BYTES / BLOCK_BYTES;
/// Bytes of a transfer buffer; a multiple of the page size.
const TRANSFER_BYTES: usize = TRANSFER_BLOCKS * BLOCK_BYTES;

/// Memory of the heap that begins on a page, as O_DIRECT wants it; zero at first.
pub(crate) struct Pages {
    start: NonNull<u8>,
    layout: Layout,
}

// SAFETY: a `Pages` owns its memory as a `Vec` does; the pointer is why the compiler cannot see it.
unsafe impl Send for Pages {}

impl Pages {
    /// `bytes` bytes, at least one.
    pub(crate) fn new(bytes: usize) -> Pages {
        assert!(bytes > 0, "an allocation of nothing");
        let layout = Layout::from_size_align(bytes, 4096).expect("a size of an address space");
        // SAFETY: the layout is not of zero size. The allocator is called by hand because `Vec<u8>` aligns to 1.
        let start = unsafe { alloc::alloc_zeroed(layout) };
        let start = NonNull::new(start).unwrap_or_else(|| alloc::handle_alloc_error(layout));
        Pages { start, layout }
    }

    pub(crate) fn len(&self) -> usize {
        self.layout.size()
    }

    pub(crate) fn as_ptr(&self) -> *mut u8 {
        self.start.as_ptr()
    }

    /// The bytes. Only while nothing is posted on them.
    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: the allocation is of this length, initialized, and owned by `self`.
        unsafe { std::slice::from_raw_parts(self.as_ptr(), self.len()) }
    }

    /// The bytes. Only while nothing is posted on them.
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: the allocation is of this length, initialized, and owned by `self`, which is borrowed alone.
        unsafe { std::slice::from_raw_parts_mut(self.as_ptr(), self.len()) }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout, and freed nowhere else.
        unsafe { alloc::dealloc(self.as_ptr(), self.layout) }
    }
}

/// A run of bytes in memory that the core has named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    start: *mut u8,
    bytes: usize,
}

impl Piece {
    /// A piece of `pages`, which must outlive it.
    #[cfg(test)]
    pub(crate) fn of(pages: &Pages, offset: usize, bytes: usize) -> Piece {
        Piece {
            start: pages.bytes()[offset..][..bytes].as_ptr().cast_mut(),
            bytes,
        }
    }

    /// As the kernel takes it.
    pub(crate) fn iovec(self) -> libc::iovec {
        libc::iovec {
            iov_base: self.start.cast(),
            iov_len: self.bytes,
        }
    }

    /// How many bytes.
    pub(crate) fn len(self) -> usize {
        self.bytes
    }

    /// The bytes, to be read at once.
    pub(crate) fn read(&self) -> &[u8] {
        // SAFETY: `Memories` makes pieces only inside its own memory, which it keeps mapped as long as it lives, and
        // the engine lets no piece outlive a step. Nobody writes there meanwhile: the core names a place for one
        // use at a time, and there is one thread.
        unsafe { std::slice::from_raw_parts(self.start, self.bytes) }
    }

    fn skip(self, bytes: usize) -> Piece {
        assert!(bytes <= self.bytes);
        Piece {
            // SAFETY: stays in the piece, or one past its end.
            start: unsafe { self.start.add(bytes) },
            bytes: self.bytes - bytes,
        }
    }

    fn first(self, bytes: usize) -> Piece {
        Piece {
            bytes: self.bytes.min(bytes),
            ..self
        }
    }

    /// Both as one, if the other begins where this ends. Both are of one mapping.
    fn join(self, next: Piece) -> Option<Piece> {
        let adjacent = self.start.wrapping_add(self.bytes) == next.start;
        adjacent.then_some(Piece {
            start: self.start,
            bytes: self.bytes + next.bytes,
        })
    }

    /// Copies as much as fits from the beginning of `from`.
    fn fill(self, from: &[u8]) -> usize {
        let count = self.bytes.min(from.len());
        // SAFETY: both are at least `count` long; `copy` allows an overlap. As for `read`, nobody else uses the place.
        unsafe { std::ptr::copy(from.as_ptr(), self.start, count) };
        count
    }
}

/// Pieces of one mapping, neighbours as one: fewer places for the kernel to look up.
#[derive(Clone)]
struct Joined<I> {
    pieces: I,
    next: Option<Piece>,
}

impl<I: Iterator<Item = Piece>> Joined<I> {
    fn new(mut pieces: I) -> Joined<I> {
        let next = pieces.next();
        Joined { pieces, next }
    }
}

impl<I: Iterator<Item = Piece>> Iterator for Joined<I> {
    type Item = Piece;

    fn next(&mut self) -> Option<Piece> {
        let mut joined = self.next.take()?;
        for piece in self.pieces.by_ref() {
            match joined.join(piece) {
                Some(longer) => joined = longer,
                None => {
                    self.next = Some(piece);
                    break;
                }
            }
        }
        Some(joined)
    }
}

/// NV buffers and transfer buffers.
pub(crate) struct Memories {
    /// NV memory.
    pub nv: NvMemory,
    transfers: Pages,
    /// By block of the transfer buffers: what was copied there from NV memory was damaged.
    damaged: Vec<Cell<bool>>,
}

impl Memories {
    /// With `transfers` transfer buffers, every page of them present.
    pub(crate) fn new(nv: NvMemory, transfers: u16) -> Memories {
        let mut pages = Pages::new(usize::from(transfers) * TRANSFER_BYTES);
        // What is zero already is there only after a write.
        pages.bytes_mut().chunks_mut(4096).for_each(|page| page[0] = 1);
        pages.bytes_mut().chunks_mut(4096).for_each(|page| page[0] = 0);
        Memories {
            nv,
            transfers: pages,
            damaged: vec![Cell::new(false); usize::from(transfers) * TRANSFER_BLOCKS],
        }
    }

    /// The pieces that `memory` is made of, in order, neighbours as one.
    pub(crate) fn pieces<'a>(&'a self, memory: &'a Memory) -> impl Iterator<Item = Piece> + Clone + 'a {
        let (segments, transfer) = match memory {
            Memory::Buffers(sgl) => (&sgl[..], None),
            Memory::Transfer {
                transfer,
                first,
                blocks,
            } => (&[][..], Some(self.transfer(*transfer, *first, *blocks))),
        };
        Joined::new(segments.iter().map(|segment| self.segment(*segment))).chain(transfer)
    }

    /// Those of them that make up `bytes` bytes from byte `skip` on.
    pub(crate) fn pieces_of<'a>(
        &'a self,
        memory: &'a Memory,
        skip: usize,
        bytes: usize,
    ) -> impl Iterator<Item = Piece> + Clone + 'a {
        let (mut skip, mut left) = (skip, bytes);
        let cut = move |piece: Piece| {
            let skipped = skip.min(piece.len());
            let piece = piece.skip(skipped).first(left);
            (skip, left) = (skip - skipped, left - piece.len());
            piece
        };
        self.pieces(memory).map(cut).filter(|piece| piece.len() > 0)
    }

    /// The bytes of `memory`, to be read at once.
    pub(crate) fn slices<'a>(&'a self, memory: &'a Memory) -> impl Iterator<Item = &'a [u8]> + Clone + 'a {
        // SAFETY: as for `Piece::read`, but that the lifetime is that of the memory, and not of the piece.
        self.pieces(memory)
            .map(|piece| unsafe { std::slice::from_raw_parts(piece.start, piece.bytes) })
    }

    fn segment(&self, segment: Segment) -> Piece {
        let (first, count) = (usize::from(segment.first), usize::from(segment.count));
        assert!(
            first + count <= BUFFER_BYTES / BLOCK_BYTES,
            "{segment:?} is not in one buffer"
        );
        Piece {
            start: self.nv.block(segment.buffer, first),
            bytes: count * BLOCK_BYTES,
        }
    }

    fn transfer(&self, transfer: TransferIndex, first: u16, blocks: u16) -> Piece {
        let (first, blocks) = (usize::from(first), usize::from(blocks));
        let offset = transfer.index() * TRANSFER_BYTES + first * BLOCK_BYTES;
        assert!(
            first + blocks <= TRANSFER_BLOCKS && offset + blocks * BLOCK_BYTES <= self.transfers.len(),
            "{transfer:?} has no {blocks} blocks from {first}"
        );
        Piece {
            // SAFETY: just checked to be in the allocation.
            start: unsafe { self.transfers.as_ptr().add(offset) },
            bytes: blocks * BLOCK_BYTES,
        }
    }

    /// Before the bytes of `memory` change: a checksum of what was there says nothing any more, nor that it was damaged.
    pub(crate) fn unseal(&self, memory: &Memory) {
        match memory {
            Memory::Buffers(sgl) => sgl.iter().for_each(|segment| self.nv.unseal(segment.buffer)),
            Memory::Transfer { .. } => self.damaged_in(memory).iter().for_each(|block| block.set(false)),
        }
    }

    /// Damaged data were copied to `memory`: until its bytes change it is not intact, whatever is sealed of it.
    pub(crate) fn damage(&self, memory: &Memory) {
        match memory {
            Memory::Buffers(sgl) => sgl.iter().for_each(|segment| self.nv.damage(segment.buffer)),
            Memory::Transfer { .. } => self.damaged_in(memory).iter().for_each(|block| block.set(true)),
        }
    }

    /// Whether `memory` is what was sealed, or copied from what was, as far as can be told.
    pub(crate) fn is_intact(&self, memory: &Memory) -> bool {
        match memory {
            Memory::Buffers(sgl) => sgl.iter().all(|segment| self.nv.is_intact(*segment)),
            Memory::Transfer { .. } => !self.damaged_in(memory).iter().any(Cell::get),
        }
    }

    /// By block of `memory`, whether it is damaged; of a transfer buffer only, because NV memory has checksums.
    fn damaged_in(&self, memory: &Memory) -> &[Cell<bool>] {
        let Memory::Transfer {
            transfer,
            first,
            blocks,
        } = *memory
        else {
            return &[];
        };
        let at = transfer.index() * TRANSFER_BLOCKS + usize::from(first);
        &self.damaged[at..][..blocks.into()]
    }

    /// The CRC-32C of `memory`, from what is sealed where all of that is meant.
    pub(crate) fn crc(&self, memory: &Memory) -> u32 {
        match memory {
            Memory::Buffers(sgl) => sgl.iter().fold(0, |crc, segment| {
                let sealed = self.nv.sealed_crc(*segment);
                let next = sealed.unwrap_or_else(|| crc32c(self.segment(*segment).read()));
                crc::joined(crc, next, usize::from(segment.count))
            }),
            Memory::Transfer { .. } => self.pieces(memory).fold(0, |crc, p| crc32c_append(crc, p.read())),
        }
    }

    /// Copies all of `into` from `from`, whose granules from its beginning on have the checksums `crcs`.
    pub(crate) fn absorb(&self, into: &Memory, from: &[u8], crcs: &[u32]) {
        self.unseal(into);
        self.copy_in(into, 0, from);
        let Memory::Buffers(sgl) = into else { return };
        let mut at = 0;
        for segment in sgl.iter() {
            let end = at + usize::from(segment.count) * BLOCK_BYTES;
            let is_granule = at.is_multiple_of(BUFFER_BYTES) && (end - at == BUFFER_BYTES || end == from.len());
            if let Some(crc) = crcs.get(at / BUFFER_BYTES).filter(|_| is_granule) {
                self.nv.expect(*segment, *crc);
            }
            at = end;
        }
    }

    /// The CRC-32C of all of `memory`. Those of its segments, or of what would fill a buffer each, are appended to `crcs`.
    pub(crate) fn sum(&self, memory: &Memory, crcs: &mut Vec<u32>) -> u32 {
        let mut add = |crc, bytes: &[u8]| {
            let next = crc32c(bytes);
            crcs.push(next);
            crc::joined(crc, next, bytes.len() / BLOCK_BYTES)
        };
        match memory {
            Memory::Buffers(sgl) => sgl.iter().fold(0, |crc, s| add(crc, self.segment(*s).read())),
            Memory::Transfer { .. } => {
                let chunks = self.slices(memory).flat_map(|slice| slice.chunks(BUFFER_BYTES));
                chunks.fold(0, add)
            }
        }
    }

    /// What was put in `into`, and then unsealed, has the checksums `crcs`, segment by segment.
    pub(crate) fn expect(&self, into: &Memory, crcs: &[u32]) {
        if let Memory::Buffers(sgl) = into {
            sgl.iter()
                .zip(crcs)
                .for_each(|(segment, crc)| self.nv.expect(*segment, *crc));
        }
    }

    /// Copies `from` to byte `offset` of `into`. Panics if it is not inside.
    pub(crate) fn copy_in(&self, into: &Memory, offset: usize, from: &[u8]) {
        let mut skip = offset;
        let mut rest = from;
        for piece in self.pieces(into) {
            if rest.is_empty() {
                return;
            }
            if skip >= piece.len() {
                skip -= piece.len();
                continue;
            }
            rest = &rest[piece.skip(std::mem::take(&mut skip)).fill(rest)..];
        }
        assert!(rest.is_empty(), "{} bytes beyond the end of {into:?}", rest.len());
    }

    /// Copies between memories of the same length.
    pub(crate) fn copy(&self, from: &Memory, to: &Memory) {
        let mut offset = 0;
        for piece in self.pieces(from) {
            self.copy_in(to, offset, piece.read());
            offset += piece.len();
        }
    }

    /// Copies the blocks of `mask` from one NV buffer to the same places of another.
    pub(crate) fn merge(&self, from: Segment, to: Segment, mask: u8) {
        let (from, to) = (self.segment(from), self.segment(to));
        for block in (0..8).filter(|b| mask >> b & 1 == 1) {
            to.skip(block * BLOCK_BYTES)
                .fill(&from.read()[block * BLOCK_BYTES..][..BLOCK_BYTES]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{TempDir, settings};
    use twincell_core::config::Geometry;
    use twincell_core::ids::{BufferIndex, Controller, Uuid};

    #[test]
    fn a_damaged_block_of_a_transfer_buffer_stays_so_until_it_is_filled_anew() {
        let dir = TempDir::in_memory("memory");
        let settings = settings(&dir, Controller::A);
        let nv = NvMemory::open(&settings, &Geometry::for_cache(0), Uuid(1)).expect("NV memory");
        let memories = Memories::new(nv, 2);
        let part = |transfer, first, blocks| Memory::Transfer {
            transfer: TransferIndex(transfer),
            first,
            blocks,
        };
        memories.damage(&part(0, 8, 8));
        for (memory, is_intact) in [
            (part(0, 0, 8), true),
            (part(0, 0, 9), false),
            (part(0, 15, 1), false),
            (part(0, 16, 8), true),
            (part(1, 0, 64), true),
        ] {
            assert_eq!(memories.is_intact(&memory), is_intact, "{memory:?}");
        }
        memories.unseal(&part(0, 0, 12));
        assert!(memories.is_intact(&part(0, 0, 12)));
        assert!(!memories.is_intact(&part(0, 0, 13)));
    }

    #[test]
    fn what_was_absorbed_is_sealed_as_it_came() {
        let dir = TempDir::in_memory("memory");
        let settings = settings(&dir, Controller::A);
        let nv = NvMemory::open(&settings, &Geometry::for_cache(0), Uuid(1)).expect("NV memory");
        let memories = Memories::new(nv, 1);
        // From the beginning of a granule, and from its middle.
        for counts in [[8, 8, 3], [5, 8, 8], [8, 2, 8], [1, 0, 0]] {
            let used = counts.iter().zip(0..).filter(|(count, _)| **count > 0);
            let into = used.map(|(count, buffer)| Segment {
                buffer: BufferIndex(buffer),
                first: if *count < 8 && buffer == 0 { 8 - count } else { 0 },
                count: *count,
            });
            let segments: Vec<Segment> = into.collect();
            let into = Memory::Buffers(segments.iter().copied().collect());
            let bytes: Vec<u8> = (0..into.blocks() * 512).map(|i| (i / 100) as u8).collect();
            let crcs: Vec<u32> = bytes.chunks(BUFFER_BYTES).map(crc32c).collect();
            memories.absorb(&into, &bytes, &crcs);
            assert_eq!(memories.crc(&into), crc32c(&bytes), "{counts:?}, not yet sealed");
            for segment in &segments {
                let mask = ((1u16 << segment.count) - 1) << segment.first;
                memories.nv.seal(segment.buffer, mask as u8);
                let crc = crc32c(memories.segment(*segment).read());
                assert_eq!(memories.nv.sealed_crc(*segment), Some(crc), "{counts:?}, {segment:?}");
                assert!(memories.nv.is_intact(*segment));
            }
            assert_eq!(memories.crc(&into), crc32c(&bytes), "{counts:?}, sealed");
        }
    }
}
