//! The CRC-32C of several pieces from those of each: what was summed once need not be summed again.

use std::sync::LazyLock;
use twincell_core::ids::{BLOCK_BYTES, BUFFER_BYTES};
use twincell_wire::crc32c_append;

/// Most blocks that are appended at a time: those of a buffer.
const BLOCKS_MAX: usize = BUFFER_BYTES / BLOCK_BYTES;

/// What zeroes that are appended do to a CRC, but for what they would do to that of nothing. It is linear, so each byte
/// of the CRC can be looked up by itself.
struct Zeroes([[u32; 256]; 4]);

impl Zeroes {
    fn of(bytes: usize) -> Zeroes {
        let zeroes = vec![0; bytes];
        let of_nothing = crc32c_append(0, &zeroes);
        let bits: [u32; 32] = std::array::from_fn(|bit| crc32c_append(1 << bit, &zeroes) ^ of_nothing);
        let of_byte = |place: usize, byte: usize| {
            let set = (0..8).filter(|bit| byte >> bit & 1 == 1);
            set.fold(0, |crc, bit| crc ^ bits[place * 8 + bit])
        };
        Zeroes(std::array::from_fn(|place| {
            std::array::from_fn(|byte| of_byte(place, byte))
        }))
    }

    fn append(&self, crc: u32) -> u32 {
        let bytes = crc.to_le_bytes();
        self.0
            .iter()
            .zip(bytes)
            .fold(0, |crc, (table, byte)| crc ^ table[usize::from(byte)])
    }
}

/// By the number of blocks, from 1 on.
static ZEROES: LazyLock<[Zeroes; BLOCKS_MAX]> =
    LazyLock::new(|| std::array::from_fn(|i| Zeroes::of((i + 1) * BLOCK_BYTES)));

/// The CRC of what `crc` is that of, followed by `blocks` blocks, 1 to 8, whose CRC is `next`.
pub(crate) fn joined(crc: u32, next: u32, blocks: usize) -> u32 {
    ZEROES[blocks - 1].append(crc) ^ next
}

#[cfg(test)]
mod tests {
    use super::*;
    use twincell_wire::crc32c;

    #[test]
    fn the_crc_of_pieces_is_that_of_the_whole() {
        let all: Vec<u8> = (0..20_000u32).map(|i| ((i * i) >> 7) as u8).collect();
        for from in [0, 1, 511, 512, 4096] {
            for blocks in 1..=BLOCKS_MAX {
                let (first, whole) = (&all[..from], &all[..from + blocks * BLOCK_BYTES]);
                let second = crc32c(&whole[from..]);
                assert_eq!(
                    joined(crc32c(first), second, blocks),
                    crc32c(whole),
                    "{from} bytes and {blocks} blocks"
                );
            }
        }
    }
}
