//! READ CAPACITY (SBC-3, 5.15 and 5.16)

use twincell_core::ids::{BLOCK_BYTES, BUFFER_BLOCKS};

/// Bytes of the READ CAPACITY (16) data.
const LONG_BYTES: usize = 32;

/// Appends the READ CAPACITY (10) data of a LUN of `blocks` blocks, at least 1.
pub fn short(blocks: u64, out: &mut Vec<u8>) {
    // All ones say: too large for this, ask READ CAPACITY (16).
    let last = u32::try_from(blocks.saturating_sub(1)).unwrap_or(u32::MAX);
    out.extend_from_slice(&last.to_be_bytes());
    out.extend_from_slice(&(BLOCK_BYTES as u32).to_be_bytes());
}

/// Appends the READ CAPACITY (16) data of a LUN of `blocks` blocks, at least 1.
pub fn long(blocks: u64, out: &mut Vec<u8>) {
    let mut data = [0; LONG_BYTES];
    data[..8].copy_from_slice(&blocks.saturating_sub(1).to_be_bytes());
    data[8..12].copy_from_slice(&(BLOCK_BYTES as u32).to_be_bytes());
    data[13] = BUFFER_BLOCKS.ilog2() as u8; // logical blocks per physical block exponent
    out.extend_from_slice(&data);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_lun_does_not_fit_the_short_form() {
        let mut out = Vec::new();
        short(1 << 32, &mut out);
        short((1 << 32) + 1, &mut out);
        short(8, &mut out);
        assert_eq!(
            out,
            [
                0xff, 0xff, 0xff, 0xff, 0, 0, 2, 0, 0xff, 0xff, 0xff, 0xff, 0, 0, 2, 0, 0, 0, 0, 7, 0, 0, 2, 0
            ]
        );
    }

    #[test]
    fn long_form() {
        let mut out = Vec::new();
        long(0x1_0000_0000, &mut out);
        assert_eq!(out[..16], [0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0, 2, 0, 0, 3, 0, 0]);
        assert_eq!(out[16..], [0; 16]);
    }
}
