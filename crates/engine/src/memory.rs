//! Where bytes are: turns the core's [`Memory`] into addresses, and copies.
//!
//! The core decides who may use which block when; while a disk reads into or writes from a place, the core names
//! it for nothing else. All copies go through raw pointers, so that no reference claims more than that.

use crate::nv::NvMemory;
use std::alloc::{self, Layout};
use std::ptr::NonNull;
use twincell_core::ids::{ATOMIC_GRANULES, BLOCK_BYTES, BUFFER_BYTES, TransferIndex};
use twincell_core::memory::{Memory, Segment};

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

    /// Copies as much as fits from the beginning of `from`.
    fn fill(self, from: &[u8]) -> usize {
        let count = self.bytes.min(from.len());
        // SAFETY: both are at least `count` long; `copy` allows an overlap. As for `read`, nobody else uses the place.
        unsafe { std::ptr::copy(from.as_ptr(), self.start, count) };
        count
    }
}

/// NV buffers and transfer buffers.
pub(crate) struct Memories {
    /// NV memory.
    pub nv: NvMemory,
    transfers: Pages,
}

impl Memories {
    /// With `transfers` transfer buffers, every page of them present.
    pub(crate) fn new(nv: NvMemory, transfers: u16) -> Memories {
        let mut pages = Pages::new(usize::from(transfers) * TRANSFER_BYTES);
        // What is zero already is there only after a write.
        pages.bytes_mut().chunks_mut(4096).for_each(|page| page[0] = 1);
        pages.bytes_mut().chunks_mut(4096).for_each(|page| page[0] = 0);
        Memories { nv, transfers: pages }
    }

    /// The pieces that `memory` is made of, in order.
    pub(crate) fn pieces<'a>(&'a self, memory: &'a Memory) -> impl Iterator<Item = Piece> + 'a {
        let (segments, transfer) = match memory {
            Memory::Buffers(sgl) => (&sgl[..], None),
            Memory::Transfer {
                transfer,
                first,
                blocks,
            } => (&[][..], Some(self.transfer(*transfer, *first, *blocks))),
        };
        segments.iter().map(|segment| self.segment(*segment)).chain(transfer)
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

    /// Before the bytes of `memory` change: a checksum of what was there says nothing any more.
    pub(crate) fn unseal(&self, memory: &Memory) {
        if let Memory::Buffers(sgl) = memory {
            sgl.iter().for_each(|segment| self.nv.unseal(segment.buffer));
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
