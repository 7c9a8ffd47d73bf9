//! Non-volatile memory: words and buffers that survive a crash of the controller (DESIGN section 5).
//!
//! An image has two segments. Those of the pair of A are allocated by A, on both controllers; those of the pair of B by
//! B [0054]. A buffer and its twin, an RIE and its mirror RIE have the same index.

pub mod resolve;
pub mod word;

use crate::config::{BMAE_WORDS, Geometry, NCAE_WORDS, RIE_WORDS};
use crate::ids::{BlockCount, BufferIndex, Controller, LUNS_MAX, NcaeIndex, NvAddress, RieIndex, Uuid, Vba};
use word::{Bmae, Damaged, Ncae, Rie};

/// The words of an NV image, and its identity.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Image {
    /// Fresh for each fresh image (R8).
    pub uuid: Uuid,
    /// [`Geometry::words`] words.
    pub words: Vec<u64>,
}

impl Geometry {
    /// The buffers of the pair that `allocator` allocates.
    pub fn buffers_of(&self, allocator: Controller) -> impl Iterator<Item = BufferIndex> + use<> {
        let first = self.buffers * allocator.index() as u32;
        (first..first + self.buffers).map(BufferIndex)
    }

    /// The RIEs of the pair that `allocator` allocates.
    pub fn ries_of(&self, allocator: Controller) -> impl Iterator<Item = RieIndex> + use<> {
        let first = self.ries * allocator.index() as u16;
        (first..first + self.ries).map(RieIndex)
    }

    /// Which pair a buffer belongs to; `None` if there is no such buffer.
    pub fn pair_of(&self, buffer: BufferIndex) -> Option<Controller> {
        Controller::BOTH.get((buffer.0 / self.buffers) as usize).copied()
    }

    /// Which pair an RIE belongs to; `None` if there is no such RIE.
    pub fn pair_of_rie(&self, rie: RieIndex) -> Option<Controller> {
        Controller::BOTH.get((rie.0 / self.ries) as usize).copied()
    }

    fn ncae_address(&self, ncae: NcaeIndex) -> NvAddress {
        NvAddress(u32::from(ncae.0) * NCAE_WORDS)
    }

    fn rie_address(&self, rie: RieIndex) -> NvAddress {
        NvAddress(LUNS_MAX as u32 * NCAE_WORDS + u32::from(rie.0) * RIE_WORDS)
    }

    fn bmae_address(&self, buffer: BufferIndex) -> NvAddress {
        let ries = u32::from(self.ries) * 2 * RIE_WORDS;
        NvAddress(LUNS_MAX as u32 * NCAE_WORDS + ries + buffer.0 * BMAE_WORDS)
    }
}

/// The words as the controller knows them: what it stored last, so that it never reads NV memory on the I/O path.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Words {
    geometry: Geometry,
    words: Vec<u64>,
}

impl Words {
    /// The words of an image, or those of an empty one.
    pub fn new(geometry: Geometry, words: Option<&[u64]>) -> Words {
        let words = words.map_or_else(|| vec![0; geometry.words() as usize], <[u64]>::to_vec);
        assert_eq!(words.len(), geometry.words() as usize, "an image of another geometry");
        Words { geometry, words }
    }

    /// Sizes.
    pub fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// Empties all.
    pub fn clear(&mut self) {
        self.words.fill(0);
    }

    /// Notes what was stored.
    pub fn note(&mut self, address: NvAddress, word: u64) {
        self.words[address.index()] = word;
    }

    fn word(&self, address: NvAddress) -> u64 {
        self.words[address.index()]
    }

    /// The state of a buffer.
    pub fn bmae(&self, buffer: BufferIndex) -> Result<Bmae, Damaged> {
        Bmae::decode(self.word(self.geometry.bmae_address(buffer)))
    }

    /// The first block of the granule that a buffer holds.
    pub fn bmae_start(&self, buffer: BufferIndex) -> Result<Vba, Damaged> {
        word::decode_vba(self.word(self.geometry.bmae_address(buffer).next()))
    }

    /// An RIE.
    pub fn rie(&self, rie: RieIndex) -> Result<Rie, Damaged> {
        Rie::decode(self.word(self.geometry.rie_address(rie)))
    }

    /// The RIE that a provisional BMAE refers to.
    pub fn rie_of(&self, bmae: Bmae) -> Result<Rie, Damaged> {
        if bmae.index >= self.geometry.ries * 2 {
            return Err(Damaged);
        }
        self.rie(RieIndex(bmae.index))
    }

    /// An NCAE.
    pub fn ncae(&self, ncae: NcaeIndex) -> Result<Ncae, Damaged> {
        if usize::from(ncae.0) >= LUNS_MAX {
            return Err(Damaged);
        }
        Ncae::decode(self.word(self.geometry.ncae_address(ncae)))
    }

    /// The store that gives a buffer a state.
    pub fn bmae_store(&self, buffer: BufferIndex, bmae: Bmae) -> (NvAddress, u64) {
        (self.geometry.bmae_address(buffer), bmae.encode())
    }

    /// The store that says which granule a buffer holds; made while the buffer is free.
    pub fn bmae_start_store(&self, buffer: BufferIndex, start: Vba) -> (NvAddress, u64) {
        (self.geometry.bmae_address(buffer).next(), word::encode_vba(start))
    }

    /// The store of the word of an RIE that commits.
    pub fn rie_store(&self, rie: RieIndex, value: Rie) -> (NvAddress, u64) {
        (self.geometry.rie_address(rie), value.encode())
    }

    /// The stores of the range of an RIE; made while it is not in use.
    pub fn rie_range_stores(&self, rie: RieIndex, start: Vba, blocks: BlockCount) -> [(NvAddress, u64); 2] {
        let address = self.geometry.rie_address(rie).next();
        [
            (address, word::encode_vba(start)),
            (address.next(), word::encode_count(blocks)),
        ]
    }

    /// The store of an NCAE.
    pub fn ncae_store(&self, ncae: NcaeIndex, value: Ncae) -> (NvAddress, u64) {
        (self.geometry.ncae_address(ncae), value.encode())
    }
}

#[cfg(test)]
mod tests {
    use super::resolve::{resolve, ultimate};
    use super::word::{BmaeState, RieState};
    use super::*;
    use crate::ids::RieGeneration;

    fn geometry() -> Geometry {
        Geometry {
            buffers: 64,
            ries: 2,
            htbs: 4,
            transfers: 4,
            destages: 2,
        }
    }

    #[test]
    fn the_table_of_the_seed() {
        let (buffer, rie) = (BufferIndex(3), RieIndex(1));
        for (bmae, rie_state, valid) in [
            (BmaeState::ProvisionalWb, RieState::Free, false),
            (BmaeState::ProvisionalWb, RieState::Valid, true),
            (BmaeState::ProvisionalWbNot, RieState::Free, true),
            (BmaeState::ProvisionalWbNot, RieState::Valid, false),
        ] {
            let mut words = Words::new(geometry(), None);
            let value = Rie {
                state: rie_state,
                generation: RieGeneration(1),
                ncae: NcaeIndex(5),
            };
            for (address, word) in [
                words.bmae_start_store(buffer, Vba(80)),
                words.rie_store(rie, value),
                words.bmae_store(
                    buffer,
                    Bmae {
                        state: bmae,
                        mask: 0x0f,
                        index: rie.0,
                    },
                ),
            ] {
                words.note(address, word);
            }
            let found = ultimate(&words, buffer).unwrap();
            assert_eq!(found.is_some(), valid, "{bmae:?} {rie_state:?}");
            if let Some(found) = found {
                assert_eq!((found.ncae, found.start, found.mask), (NcaeIndex(5), Vba(80), 0x0f));
            }
        }
    }

    fn is_damaged(words: Words) -> bool {
        let image = Image {
            uuid: Uuid(1),
            words: words.words,
        };
        resolve(&image, geometry()) == Err(Damaged)
    }

    #[test]
    fn a_provisional_buffer_without_its_write_is_damage() {
        let mut words = Words::new(geometry(), None);
        let (address, word) = words.bmae_store(BufferIndex(0), Bmae::provisional_wb(RieIndex(3), 0xff));
        words.note(address, word);
        assert!(is_damaged(words));
    }

    #[test]
    fn a_virtual_disk_that_there_cannot_be_is_damage() {
        let mut words = Words::new(geometry(), None);
        let (address, word) = words.bmae_store(BufferIndex(0), Bmae::wb_valid(NcaeIndex(LUNS_MAX as u16), 0xff));
        words.note(address, word);
        assert!(is_damaged(words));
    }
}
