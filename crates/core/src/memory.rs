//! Where bytes are. The core never touches payload (DESIGN section 1, rule 2): it says from where to where.

use crate::ids::{ATOMIC_GRANULES, BufferIndex, TransferIndex};
use crate::list::List;

/// Consecutive blocks of one NV buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Segment {
    /// The buffer.
    pub buffer: BufferIndex,
    /// The first block in it, 0 to 7.
    pub first: u8,
    /// How many blocks, 1 to 8; `first + count` is at most 8.
    pub count: u8,
}

/// A scatter/gather list [0079]: blocks of NV buffers, in the order of their data.
pub type Sgl = List<Segment, ATOMIC_GRANULES>;

/// A run of blocks in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Memory {
    /// In NV buffers.
    Buffers(Sgl),
    /// In a transfer buffer, which is volatile and holds `ATOMIC_GRANULES` granules in one piece.
    Transfer {
        /// Which.
        transfer: TransferIndex,
        /// The first block in it.
        first: u16,
        /// How many blocks.
        blocks: u16,
    },
}

/// How many blocks a scatter/gather list has.
pub fn blocks_of(sgl: &Sgl) -> u32 {
    sgl.iter().map(|s| u32::from(s.count)).sum()
}

impl Memory {
    /// The part of a transfer buffer from block `first` on that is as long as `sgl`.
    pub fn transfer(transfer: TransferIndex, first: u16, sgl: &Sgl) -> Memory {
        let blocks = blocks_of(sgl) as u16;
        Memory::Transfer {
            transfer,
            first,
            blocks,
        }
    }

    /// How many blocks it is.
    pub fn blocks(&self) -> u32 {
        match self {
            Memory::Buffers(sgl) => blocks_of(sgl),
            Memory::Transfer { blocks, .. } => u32::from(*blocks),
        }
    }
}
