//! Fingerprints of 128 bits: two states with the same one are taken for the same state. Among 100 million states the
//! chance that any two differ and share one is about 1 in 10^23.

use std::hash::{BuildHasherDefault, Hash, Hasher};

/// A fingerprint.
pub type Fingerprint = u128;

/// Two lanes of multiply-and-rotate with different constants.
#[derive(Clone)]
pub struct Fingerprinter {
    a: u64,
    b: u64,
}

impl Default for Fingerprinter {
    fn default() -> Self {
        Fingerprinter {
            a: 0x243f_6a88_85a3_08d3,
            b: 0x1319_8a2e_0370_7344,
        }
    }
}

impl Fingerprinter {
    fn mix(&mut self, word: u64) {
        self.a = (self.a ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
        self.b = (self.b.rotate_left(23) ^ word).wrapping_mul(0xd6e8_feb8_6659_fd93);
    }

    /// The fingerprint of all that was written.
    pub fn fingerprint(&self) -> Fingerprint {
        u128::from(avalanche(self.a ^ self.b.rotate_left(32))) << 64 | u128::from(avalanche(self.b))
    }
}

fn avalanche(mut x: u64) -> u64 {
    x = (x ^ x >> 32).wrapping_mul(0xd6e8_feb8_6659_fd93);
    x = (x ^ x >> 32).wrapping_mul(0xd6e8_feb8_6659_fd93);
    x ^ x >> 32
}

impl Hasher for Fingerprinter {
    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.mix(u64::from_le_bytes(*word));
        }
        if !rest.is_empty() {
            let mut last = [0; 8];
            last[..rest.len()].copy_from_slice(rest);
            self.mix(u64::from_le_bytes(last));
        }
        self.mix(bytes.len() as u64);
    }

    fn write_u8(&mut self, n: u8) {
        self.mix(u64::from(n));
    }

    fn write_u16(&mut self, n: u16) {
        self.mix(u64::from(n));
    }

    fn write_u32(&mut self, n: u32) {
        self.mix(u64::from(n));
    }

    fn write_u64(&mut self, n: u64) {
        self.mix(n);
    }

    fn write_usize(&mut self, n: usize) {
        self.mix(n as u64);
    }

    fn finish(&self) -> u64 {
        self.fingerprint() as u64
    }
}

/// The fingerprint of one thing.
pub fn of(what: &impl Hash) -> Fingerprint {
    let mut hasher = Fingerprinter::default();
    what.hash(&mut hasher);
    hasher.fingerprint()
}

/// Passes a fingerprint on as its own hash.
#[derive(Default)]
pub struct AsItIs(u64);

impl Hasher for AsItIs {
    fn write(&mut self, _bytes: &[u8]) {
        unreachable!("only fingerprints are hashed");
    }

    fn write_u128(&mut self, n: u128) {
        self.0 = n as u64;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// The fingerprints of all states that were seen.
pub type Seen = std::collections::HashSet<Fingerprint, BuildHasherDefault<AsItIs>>;
