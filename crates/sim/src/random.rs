//! Numbers from a seed.

/// A generator (SplitMix64): the same seed gives the same numbers.
#[derive(Clone, Debug)]
pub struct Random {
    state: u64,
    calm: bool,
}

impl Random {
    /// From a seed.
    pub fn new(seed: u64) -> Random {
        Random {
            state: seed ^ 0x5851_f42d_4c95_7f2d,
            calm: false,
        }
    }

    /// Nothing is left to chance: the least of every range, and nothing that happens "once in so often" happens. So a
    /// script gives the same run whatever else is drawn.
    pub fn calm() -> Random {
        Random { state: 0, calm: true }
    }

    /// Another generator, of whose numbers this one's do not depend; calm if this one is.
    #[must_use]
    pub fn apart(&self, salt: u64) -> Random {
        if self.calm {
            Random::calm()
        } else {
            Random::new(self.state ^ salt)
        }
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// A number below `end`, which is not 0.
    pub fn below(&mut self, end: u64) -> u64 {
        if self.calm { 0 } else { self.bits() % end }
    }

    /// A number from `low` to `high`, both included.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }

    /// True once in `n`.
    pub fn one_in(&mut self, n: u64) -> bool {
        !self.calm && self.below(n) == 0
    }
}
