//! Free buffers. The lowest is taken first: what was freed together lies together again when it is taken, so that a large
//! write is one piece of memory for disks and sockets.

use crate::ids::BufferIndex;

const BITS: usize = u64::BITS as usize;

/// A set of buffers, in bits. Each level says which words of the level below are not empty.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct FreeBuffers {
    /// From one bit for each buffer to a single word.
    levels: Vec<Vec<u64>>,
    len: usize,
}

impl FreeBuffers {
    /// None of `count` buffers.
    pub fn new(count: usize) -> FreeBuffers {
        let mut levels = Vec::new();
        let mut words = count;
        while levels.is_empty() || words > 1 {
            words = words.div_ceil(BITS).max(1);
            levels.push(vec![0; words]);
        }
        FreeBuffers { levels, len: 0 }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Adds one. Panics if it is there already.
    pub fn insert(&mut self, buffer: BufferIndex) {
        let mut at = buffer.index();
        assert!(!self.contains(buffer), "{buffer} is free twice");
        self.len += 1;
        for level in &mut self.levels {
            let word = &mut level[at / BITS];
            let known = *word != 0;
            *word |= 1 << (at % BITS);
            if known {
                return;
            }
            at /= BITS;
        }
    }

    /// Takes one out, if it is there.
    pub fn remove(&mut self, buffer: BufferIndex) {
        if !self.contains(buffer) {
            return;
        }
        let mut at = buffer.index();
        self.len -= 1;
        for level in &mut self.levels {
            let word = &mut level[at / BITS];
            *word &= !(1 << (at % BITS));
            if *word != 0 {
                return;
            }
            at /= BITS;
        }
    }

    /// Takes out the lowest.
    pub fn pop(&mut self) -> Option<BufferIndex> {
        if self.len == 0 {
            return None;
        }
        let down = |at: usize, level: &Vec<u64>| at * BITS + level[at].trailing_zeros() as usize;
        let buffer = BufferIndex(self.levels.iter().rev().fold(0, down) as u32);
        self.remove(buffer);
        Some(buffer)
    }

    /// Those from `first` on and before `end` that are not in it, the lowest first.
    pub fn others(&self, first: usize, end: usize) -> impl Iterator<Item = BufferIndex> + '_ {
        let mut at = first;
        std::iter::from_fn(move || {
            while at < end {
                let left = !self.levels[0][at / BITS] >> (at % BITS);
                if left != 0 {
                    at += left.trailing_zeros() as usize + 1;
                    return (at <= end).then(|| BufferIndex(at as u32 - 1));
                }
                at = (at / BITS + 1) * BITS;
            }
            None
        })
    }

    fn contains(&self, buffer: BufferIndex) -> bool {
        let at = buffer.index();
        self.levels[0][at / BITS] & 1 << (at % BITS) != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Beside a sorted set, over sizes of one, two and three levels.
    #[test]
    fn the_lowest_is_taken_first() {
        for count in [1, 63, 64, 65, 4096, 4097, 300_000] {
            let (mut free, mut sorted) = (FreeBuffers::new(count), std::collections::BTreeSet::new());
            let mut random = 1_u64;
            for turn in 0..3_000 {
                random = random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(turn);
                let buffer = BufferIndex(((random >> 33) % count as u64) as u32);
                match random >> 61 {
                    0 => assert_eq!(free.pop(), sorted.pop_first()),
                    1 => {
                        free.remove(buffer);
                        sorted.remove(&buffer);
                    }
                    _ if sorted.insert(buffer) => free.insert(buffer),
                    _ => {}
                }
                assert_eq!(free.len(), sorted.len());
            }
            while let Some(buffer) = sorted.pop_first() {
                assert_eq!(free.pop(), Some(buffer));
            }
            assert_eq!(free.pop(), None);
            assert!(free == FreeBuffers::new(count), "nothing is left of what was in it");
        }
    }

    #[test]
    fn what_is_not_in_it() {
        let mut free = FreeBuffers::new(300);
        (0..300)
            .filter(|n| n % 3 != 0)
            .for_each(|n| free.insert(BufferIndex(n)));
        for (first, end) in [(0, 300), (64, 128), (60, 70), (130, 131), (299, 300), (7, 7)] {
            let expected: Vec<_> = (first as u32..end as u32)
                .filter(|n| n % 3 == 0)
                .map(BufferIndex)
                .collect();
            assert_eq!(free.others(first, end).collect::<Vec<_>>(), expected);
        }
    }

    #[test]
    #[should_panic(expected = "free twice")]
    fn twice_free() {
        let mut free = FreeBuffers::new(2);
        free.insert(BufferIndex(1));
        free.insert(BufferIndex(1));
    }
}
