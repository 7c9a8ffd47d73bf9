//! A digest of everything that happened: quick, and the same in every build.

use std::hash::Hasher;

/// Multiply and fold, word by word. Not meant against anybody: two runs that differ must be told apart.
#[derive(Clone, Debug)]
pub struct Digest(u64);

impl Default for Digest {
    fn default() -> Digest {
        Digest(0x9e37_79b9_7f4a_7c15)
    }
}

impl Digest {
    fn mix(&mut self, word: u64) {
        let product = u128::from(self.0 ^ word) * 0xd6e8_feb8_6659_fd93_u128;
        self.0 = (product as u64 ^ (product >> 64) as u64).wrapping_add(word.rotate_left(32));
    }
}

impl Hasher for Digest {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.mix(u64::from_le_bytes(*word));
        }
        if !rest.is_empty() {
            let mut word = [0; 8];
            word[..rest.len()].copy_from_slice(rest);
            self.mix(u64::from_le_bytes(word));
        }
    }

    fn write_u8(&mut self, n: u8) {
        self.mix(n.into());
    }

    fn write_u16(&mut self, n: u16) {
        self.mix(n.into());
    }

    fn write_u32(&mut self, n: u32) {
        self.mix(n.into());
    }

    fn write_u64(&mut self, n: u64) {
        self.mix(n);
    }

    fn write_u128(&mut self, n: u128) {
        self.mix(n as u64);
        self.mix((n >> 64) as u64);
    }

    fn write_usize(&mut self, n: usize) {
        self.mix(n as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::hash::Hash;

    fn digest(what: impl Hash) -> u64 {
        let mut digest = Digest::default();
        what.hash(&mut digest);
        digest.finish()
    }

    #[test]
    fn order_length_and_value_count() {
        assert_ne!(digest([1u64, 2]), digest([2u64, 1]));
        assert_ne!(digest("abc"), digest("abd"));
        assert_ne!(digest([0u8; 8]), digest([0u8; 9]));
        assert_eq!(digest((1u8, 2u16, 3u32)), digest((1u8, 2u16, 3u32)));
    }
}
