//! What the checker writes into each block: enough to say, of any block that is read, which write it came from.

use crate::bytes::{put, u32_at, u64_at};
use crate::device::BLOCK_BYTES;

const MAGIC: &[u8; 8] = b"TWstamp1";
const CRC_AT: usize = BLOCK_BYTES - 4;

/// The stamp of one block. On disk, big-endian: magic 0, block 8, writer 16, write 20, start 24, blocks 32, seed 40,
/// filling from 48 on, CRC-32 of all that at 508.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Where the block belongs.
    pub block: u64,
    /// Who wrote it.
    pub writer: u32,
    /// Which write, counted over all writers of the run.
    pub write: u32,
    /// First block of that write.
    pub start: u64,
    /// How many blocks that write has.
    pub blocks: u32,
    /// The run.
    pub seed: u64,
}

/// What a block that was read holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// Nothing but zeroes.
    Zero,
    /// A good stamp of this run, in its place.
    Stamped(Stamp),
    /// A good stamp of another run, in its place.
    OtherRun(Stamp),
    /// No stamp.
    Unknown,
    /// A stamp that is damaged or belongs elsewhere.
    Corrupt(String),
}

impl Stamp {
    /// Fills a block.
    pub fn put(&self, block: &mut [u8]) {
        put(block, 0, MAGIC);
        put(block, 8, &self.block.to_be_bytes());
        put(block, 16, &self.writer.to_be_bytes());
        put(block, 20, &self.write.to_be_bytes());
        put(block, 24, &self.start.to_be_bytes());
        put(block, 32, &self.blocks.to_be_bytes());
        put(block, 36, &[0; 4]);
        put(block, 40, &self.seed.to_be_bytes());
        // Different in every block and write: a piece of another block does not pass for this one.
        let mut word = self.seed ^ self.block.rotate_left(32) ^ u64::from(self.write);
        for at in (48..CRC_AT).step_by(4) {
            word = word.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            put(block, at, &((word >> 32) as u32).to_be_bytes());
        }
        put(block, CRC_AT, &crc32fast::hash(&block[..CRC_AT]).to_be_bytes());
    }

    /// The data of a whole write, whose first block this is the stamp of.
    pub fn data(&self) -> Vec<u8> {
        let mut data = vec![0; self.blocks as usize * BLOCK_BYTES];
        for (n, block) in data.chunks_exact_mut(BLOCK_BYTES).enumerate() {
            let block_number = self.start + n as u64;
            Stamp {
                block: block_number,
                ..*self
            }
            .put(block);
        }
        data
    }
}

/// What `bytes`, read from block `block`, are to run `seed`.
pub fn look(bytes: &[u8], block: u64, seed: u64) -> Content {
    if !bytes.starts_with(MAGIC) {
        let zero = bytes.iter().all(|b| *b == 0);
        return if zero { Content::Zero } else { Content::Unknown };
    }
    let stamp = Stamp {
        block: u64_at(bytes, 8),
        writer: u32_at(bytes, 16),
        write: u32_at(bytes, 20),
        start: u64_at(bytes, 24),
        blocks: u32_at(bytes, 32),
        seed: u64_at(bytes, 40),
    };
    if crc32fast::hash(&bytes[..CRC_AT]) != u32_at(bytes, CRC_AT) {
        Content::Corrupt(format!("damaged: {stamp:?}"))
    } else if stamp.block != block {
        Content::Corrupt(format!("belongs elsewhere: {stamp:?}"))
    } else if stamp.seed != seed {
        Content::OtherRun(stamp)
    } else {
        Content::Stamped(stamp)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flipped_bit_is_seen() {
        let stamp = Stamp {
            block: 7,
            writer: 1,
            write: 2,
            start: 6,
            blocks: 2,
            seed: 3,
        };
        let data = stamp.data();
        let second = &data[BLOCK_BYTES..];
        assert_eq!(look(second, 7, 3), Content::Stamped(stamp));
        assert_eq!(look(second, 7, 4), Content::OtherRun(stamp));
        assert!(matches!(look(second, 6, 3), Content::Corrupt(_)));
        for bit in 0..BLOCK_BYTES * 8 {
            let mut flipped = second.to_vec();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(
                matches!(look(&flipped, 7, 3), Content::Corrupt(_) | Content::Unknown),
                "bit {bit}"
            );
        }
        assert_eq!(look(&[0; BLOCK_BYTES], 7, 3), Content::Zero);
    }
}
