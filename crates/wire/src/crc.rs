//! CRC-32C (Castagnoli; RFC 3720 appendix B.4), as iSCSI has it. Why this crate: docs/decisions/0003-crc.md.

use crc_fast::{CrcAlgorithm, Digest};

/// The CRC-32C of `bytes`.
pub fn crc32c(bytes: &[u8]) -> u32 {
    crc_fast::crc32_iscsi(bytes)
}

/// The CRC-32C of what `crc` is the CRC-32C of, followed by `bytes`. The CRC-32C of nothing is 0.
pub fn crc32c_append(crc: u32, bytes: &[u8]) -> u32 {
    // The register holds the complement of the CRC that is given out.
    let mut digest = Digest::new_with_init_state(CrcAlgorithm::Crc32Iscsi, u64::from(!crc));
    digest.update(bytes);
    digest.finalize() as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples of RFC 3720, appendix B.4.
    #[test]
    fn examples_of_the_standard() {
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
        let up: Vec<u8> = (0..32).collect();
        assert_eq!(crc32c(&up), 0x46dd_794e);
    }

    #[test]
    fn pieces_give_the_crc_of_the_whole() {
        let all: Vec<u8> = (0..=255).cycle().take(5000).collect();
        for at in [0, 1, 7, 512, 4999, 5000] {
            assert_eq!(crc32c_append(crc32c(&all[..at]), &all[at..]), crc32c(&all));
        }
        assert_eq!(crc32c(&[]), 0);
    }
}
