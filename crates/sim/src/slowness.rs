//! What takes long in some cells: everything still ends in time, but more falls between its beginning and its end.

use crate::random::Random;

const MS: u64 = 1_000_000;

/// Most nanoseconds that each takes longer than usual.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Slowness {
    /// A frame, always.
    pub frames: u64,
    /// Reading or writing a slot.
    pub slots: u64,
    /// Reading or writing metadata.
    pub metadata: u64,
    /// Flushing a disk.
    pub flushes: u64,
    /// Zeroing what a LUN is to have.
    pub zeroes: u64,
    /// Taking the own locks, or those of the partner.
    pub locks: u64,
}

impl Slowness {
    /// One of many: each of them may be slow, or not.
    pub fn draw(random: &mut Random) -> Slowness {
        let mut most = |ms: u64| {
            if random.one_in(3) { random.below(ms) * MS } else { 0 }
        };
        Slowness {
            frames: most(40),
            slots: most(300),
            metadata: most(600),
            flushes: most(600),
            zeroes: most(900),
            locks: most(1500),
        }
    }
}
