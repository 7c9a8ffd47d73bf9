//! Where everything is on a disk. All of it in bytes from the beginning of the disk, on 4 KiB boundaries, in one
//! place (docs/on-disk-format.md has it as a table).

use twincell_core::ids::{BLOCK_BYTES, BUFFER_BLOCKS, Controller, PSEG_BLOCKS};

/// The unit of every read and write of the quorum space: a sector of any disk of today, and what O_DIRECT takes.
pub const PAGE_BYTES: usize = 4096;

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;

/// Blocks of the quorum space at the beginning of every disk: as long as 4 PSEGs. PSEG 0 follows.
pub const QUORUM_BLOCKS: u64 = 4 * PSEG_BLOCKS;
/// Bytes of the quorum space.
pub const QUORUM_BYTES: u64 = QUORUM_BLOCKS * BLOCK_BYTES as u64;

/// The two copies of the disk label, a page each.
pub const LABEL_OFFSETS: [u64; 2] = [0, 4 * KIB];
/// The two copies of the slot of A, and of B: a page each, the slot in its first sector, the rest zero.
pub const SLOT_OFFSETS: [[u64; 2]; 2] = [[64 * KIB, 68 * KIB], [72 * KIB, 76 * KIB]];
/// The two areas for metadata: one in force, one to write the next in.
pub const METADATA_OFFSETS: [u64; 2] = [MIB, 4 * MIB];
/// Bytes of each metadata area.
pub const METADATA_AREA_BYTES: usize = 3 * MIB as usize;
/// The PSEG allocation records of the disk (reserved: nothing is written there by format version 1).
pub const PSAR_OFFSET: u64 = 7 * MIB;
/// Bytes of the PSAR area.
pub const PSAR_AREA_BYTES: u64 = MIB;

/// Bytes that are reserved for the checksum of each 4 KiB of data: CRC-32C and generation.
pub const CHECKSUM_BYTES: u64 = 8;
/// Blocks that are reserved for the checksums of one PSEG.
pub const CHECKSUM_BLOCKS: u64 = PSEG_BLOCKS / BUFFER_BLOCKS as u64 * CHECKSUM_BYTES / BLOCK_BYTES as u64;

/// The copies of the slot of `controller`.
pub fn slot_offsets(controller: Controller) -> [u64; 2] {
    SLOT_OFFSETS[controller.index()]
}

/// How many PSEGs a disk of `blocks` blocks has, with room for their checksums behind them; 0 if it is too small.
pub fn psegs_for(blocks: u64) -> u32 {
    let psegs = blocks.saturating_sub(QUORUM_BLOCKS) / (PSEG_BLOCKS + CHECKSUM_BLOCKS);
    u32::try_from(psegs).unwrap_or(u32::MAX)
}

/// The first block of the area that is reserved for the checksums of a disk with `psegs` PSEGs.
pub fn checksum_block(psegs: u32) -> u64 {
    QUORUM_BLOCKS + u64::from(psegs) * PSEG_BLOCKS
}

/// Blocks that a disk with `psegs` PSEGs needs.
pub fn blocks_for(psegs: u32) -> u64 {
    checksum_block(psegs) + u64::from(psegs) * CHECKSUM_BLOCKS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_areas_of_the_quorum_space_are_aligned_and_apart() {
        let page = PAGE_BYTES as u64;
        let slots = SLOT_OFFSETS.as_flattened().iter().map(|o| (*o, page));
        let mut areas: Vec<(u64, u64)> = LABEL_OFFSETS.iter().map(|o| (*o, page)).chain(slots).collect();
        areas.extend(METADATA_OFFSETS.map(|o| (o, METADATA_AREA_BYTES as u64)));
        areas.push((PSAR_OFFSET, PSAR_AREA_BYTES));
        areas.sort_unstable();
        for (offset, length) in &areas {
            assert_eq!((offset % page, length % page), (0, 0));
        }
        for pair in areas.windows(2) {
            assert!(pair[0].0 + pair[0].1 <= pair[1].0, "{pair:?} overlap");
        }
        assert_eq!(areas.last().map(|(o, l)| o + l), Some(QUORUM_BYTES));
    }

    #[test]
    fn psegs_and_their_checksums_fit_the_disk() {
        for blocks in [
            0,
            QUORUM_BLOCKS,
            QUORUM_BLOCKS + 4103,
            QUORUM_BLOCKS + 4104,
            1 << 21,
            1 << 35,
        ] {
            let psegs = psegs_for(blocks);
            assert!(psegs == 0 || blocks_for(psegs) <= blocks);
            assert!(blocks_for(psegs + 1) > blocks);
        }
        assert_eq!((CHECKSUM_BLOCKS, psegs_for(1 << 21)), (8, 507));
    }
}
