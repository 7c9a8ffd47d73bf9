//! The words of NV memory (DESIGN section 5, [0092]-[0096]). Everything that must change at once is in one word.
//!
//! Every word carries eight check bits in its top byte (CRC-8, polynomial x^8 + x^2 + x + 1, over the other 56 bits:
//! any one or two flipped bits are noticed). A word of zeros is good and means "free".

use crate::ids::{BlockCount, NcaeIndex, Noid, RieGeneration, RieIndex, Vba};

/// The check bits of a word do not fit, or its state is none that was ever written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damaged;

const CHECK_SHIFT: u32 = 56;

const CRC8: [u8; 256] = {
    let mut table = [0u8; 256];
    let mut n = 0;
    while n < 256 {
        let mut crc = n as u8;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 0x80 != 0 { crc << 1 ^ 0x07 } else { crc << 1 };
            bit += 1;
        }
        table[n] = crc;
        n += 1;
    }
    table
};

fn check(low: u64) -> u64 {
    let mut crc = 0u8;
    for byte in &low.to_be_bytes()[1..] {
        crc = CRC8[(crc ^ byte) as usize];
    }
    u64::from(crc)
}

fn seal(low: u64) -> u64 {
    debug_assert!(low >> CHECK_SHIFT == 0);
    low | check(low) << CHECK_SHIFT
}

fn open(word: u64) -> Result<u64, Damaged> {
    let low = word & ((1 << CHECK_SHIFT) - 1);
    if check(low) == word >> CHECK_SHIFT {
        Ok(low)
    } else {
        Err(Damaged)
    }
}

/// State of one NV buffer [0094] [0097].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BmaeState {
    /// No valid data, not in use.
    Free,
    /// Holds data that belong to a virtual disk. The index is an NCAE index.
    WbValid,
    /// New data of a write in progress. The index is an RIE index.
    ProvisionalWb,
    /// Old data of a write in progress. The index is an RIE index.
    ProvisionalWbNot,
}

/// The first word of a BMAE: state, valid blocks and index change in one store [0096].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Bmae {
    /// Its state.
    pub state: BmaeState,
    /// Which of its blocks are valid, bit n for block n. A mask: a count could not express a hole.
    pub mask: u8,
    /// NCAE index or RIE index, as the state says.
    pub index: u16,
}

impl Bmae {
    /// Not in use.
    pub const FREE: Bmae = Bmae {
        state: BmaeState::Free,
        mask: 0,
        index: 0,
    };

    /// Valid data of the virtual disk `ncae`.
    pub fn wb_valid(ncae: NcaeIndex, mask: u8) -> Bmae {
        Bmae {
            state: BmaeState::WbValid,
            mask,
            index: ncae.0,
        }
    }

    /// New data of the write `rie`.
    pub fn provisional_wb(rie: RieIndex, mask: u8) -> Bmae {
        Bmae {
            state: BmaeState::ProvisionalWb,
            mask,
            index: rie.0,
        }
    }

    /// Old data of the write `rie`.
    pub fn provisional_wb_not(rie: RieIndex, mask: u8) -> Bmae {
        Bmae {
            state: BmaeState::ProvisionalWbNot,
            mask,
            index: rie.0,
        }
    }

    /// As a word.
    pub fn encode(self) -> u64 {
        let state = match self.state {
            BmaeState::Free => 0,
            BmaeState::WbValid => 1,
            BmaeState::ProvisionalWb => 2,
            BmaeState::ProvisionalWbNot => 3,
        };
        seal(state | u64::from(self.mask) << 8 | u64::from(self.index) << 16)
    }

    /// From a word.
    pub fn decode(word: u64) -> Result<Bmae, Damaged> {
        let low = open(word)?;
        let state = match low & 0xff {
            0 => BmaeState::Free,
            1 => BmaeState::WbValid,
            2 => BmaeState::ProvisionalWb,
            3 => BmaeState::ProvisionalWbNot,
            _ => return Err(Damaged),
        };
        Ok(Bmae {
            state,
            mask: (low >> 8) as u8,
            index: (low >> 16) as u16,
        })
    }
}

/// Sub-state of an RIE [0095], and "not in use".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RieState {
    /// No write in progress.
    Unused,
    /// A crash now leaves the old data.
    Free,
    /// A crash now leaves the new data.
    Valid,
}

/// The first word of an RIE. Storing it with `Valid` commits a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rie {
    /// Its sub-state.
    pub state: RieState,
    /// This use of it.
    pub generation: RieGeneration,
    /// The virtual disk that is written.
    pub ncae: NcaeIndex,
}

impl Rie {
    /// As a word.
    pub fn encode(self) -> u64 {
        let state = match self.state {
            RieState::Unused => 0,
            RieState::Free => 1,
            RieState::Valid => 2,
        };
        seal(state | u64::from(self.generation.0) << 16 | u64::from(self.ncae.0) << 32)
    }

    /// From a word.
    pub fn decode(word: u64) -> Result<Rie, Damaged> {
        let low = open(word)?;
        let state = match low & 0xff {
            0 => RieState::Unused,
            1 => RieState::Free,
            2 => RieState::Valid,
            _ => return Err(Damaged),
        };
        Ok(Rie {
            state,
            generation: RieGeneration((low >> 16) as u16),
            ncae: NcaeIndex((low >> 32) as u16),
        })
    }
}

/// An NCAE: the online condition of a virtual disk [0093].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ncae {
    /// The virtual disk; `None` where the place is free.
    pub noid: Option<Noid>,
}

impl Ncae {
    /// As a word.
    pub fn encode(self) -> u64 {
        seal(self.noid.map_or(0, |noid| 1 | u64::from(noid.0) << 16))
    }

    /// From a word.
    pub fn decode(word: u64) -> Result<Ncae, Damaged> {
        let low = open(word)?;
        Ok(Ncae {
            noid: (low & 1 == 1).then_some(Noid((low >> 16) as u32)),
        })
    }
}

/// A block address as a word.
pub fn encode_vba(vba: Vba) -> u64 {
    seal(vba.0)
}

/// A block address from a word.
pub fn decode_vba(word: u64) -> Result<Vba, Damaged> {
    open(word).map(Vba)
}

/// A block count as a word.
pub fn encode_count(count: BlockCount) -> u64 {
    seal(u64::from(count.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_come_back() {
        for state in [
            BmaeState::Free,
            BmaeState::WbValid,
            BmaeState::ProvisionalWb,
            BmaeState::ProvisionalWbNot,
        ] {
            let bmae = Bmae {
                state,
                mask: 0xa5,
                index: 0xfedc,
            };
            assert_eq!(Bmae::decode(bmae.encode()), Ok(bmae));
        }
        let rie = Rie {
            state: RieState::Valid,
            generation: RieGeneration(0xffff),
            ncae: NcaeIndex(1023),
        };
        assert_eq!(Rie::decode(rie.encode()), Ok(rie));
        let ncae = Ncae {
            noid: Some(Noid(u32::MAX)),
        };
        assert_eq!(Ncae::decode(ncae.encode()), Ok(ncae));
    }

    #[test]
    fn zero_is_free() {
        assert_eq!(Bmae::decode(0), Ok(Bmae::FREE));
        assert_eq!(Rie::decode(0).map(|r| r.state), Ok(RieState::Unused));
        assert_eq!(Ncae::decode(0), Ok(Ncae { noid: None }));
    }

    #[test]
    fn one_or_two_flipped_bits_are_noticed() {
        let word = Bmae::wb_valid(NcaeIndex(77), 0x3c).encode();
        for a in 0..64 {
            assert_eq!(Bmae::decode(word ^ 1 << a), Err(Damaged), "bit {a}");
            for b in 0..a {
                assert_eq!(Bmae::decode(word ^ 1 << a ^ 1 << b), Err(Damaged), "bits {a} {b}");
            }
        }
    }
}
