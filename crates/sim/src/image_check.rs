//! What a crash after each single store to NV memory would leave: no damage, and one valid buffer for each granule.
//!
//! The same as resolving the whole image after each store, but only what the store can have changed is looked at.

use std::collections::HashMap;
use twincell_core::config::{BMAE_WORDS, Geometry, NCAE_WORDS, RIE_WORDS};
use twincell_core::ids::{BufferIndex, LUNS_MAX, NcaeIndex, NvAddress, RieIndex, Vba};
use twincell_core::nv::Words;
use twincell_core::nv::resolve::{ValidBuffer, ultimate};
use twincell_core::nv::word::{BmaeState, Damaged, RieState};

type Granule = (NcaeIndex, Vba);

/// The state of an image, buffer by buffer.
#[derive(Clone)]
pub struct ImageCheck {
    words: Words,
    /// The granule that each buffer would hold, if any.
    valid: Vec<Option<Granule>>,
    /// How many buffers would hold a granule.
    holders: HashMap<Granule, u32, std::hash::BuildHasherDefault<crate::digest::Digest>>,
    /// The RIE that each buffer names, and the buffers that name each RIE.
    names: Vec<Option<u16>>,
    named_by: Vec<Vec<u32>>,
}

impl ImageCheck {
    /// Of an empty image.
    pub fn new(geometry: Geometry) -> ImageCheck {
        let buffers = geometry.buffers_of_both() as usize;
        ImageCheck {
            words: Words::new(geometry, None),
            valid: vec![None; buffers],
            holders: HashMap::default(),
            names: vec![None; buffers],
            named_by: vec![Vec::new(); usize::from(geometry.ries) * 2],
        }
    }

    /// The words.
    pub fn words(&self) -> &Words {
        &self.words
    }

    /// By buffer: what it would hold.
    pub fn valid_buffers(&self) -> impl Iterator<Item = Option<ValidBuffer>> {
        let of = |n: u32| ultimate(&self.words, BufferIndex(n)).unwrap_or_default();
        (0..).zip(&self.valid).map(move |(n, valid)| valid.and_then(|_| of(n)))
    }

    /// The image is emptied.
    pub fn clear(&mut self) {
        self.words.clear();
        self.valid.fill(None);
        self.holders.clear();
        self.names.fill(None);
        self.named_by.iter_mut().for_each(Vec::clear);
    }

    /// One word was stored. Returns the valid buffer that it has made free, if the image has no other for its granule.
    ///
    /// # Errors
    /// What a crash right now would leave wrong.
    pub fn store(&mut self, address: NvAddress, word: u64) -> Result<Option<ValidBuffer>, String> {
        let geometry = self.words.geometry();
        let ries = LUNS_MAX as u32 * NCAE_WORDS;
        let bmaes = ries + u32::from(geometry.ries) * 2 * RIE_WORDS;
        if address.0 >= bmaes {
            let buffer = (address.0 - bmaes) / BMAE_WORDS;
            let before = self.valid(buffer);
            self.words.note(address, word);
            self.name_rie(buffer)?;
            self.look_at(buffer)?;
            return Ok(before.filter(|v| !self.holds((v.ncae, v.start))));
        }
        self.words.note(address, word);
        if address.0 >= ries {
            let rie = (address.0 - ries) / RIE_WORDS;
            for n in 0..self.named_by[rie as usize].len() {
                let buffer = self.named_by[rie as usize][n];
                self.drop_granule(buffer);
            }
            for n in 0..self.named_by[rie as usize].len() {
                let buffer = self.named_by[rie as usize][n];
                self.look_at(buffer)?;
            }
        }
        Ok(None)
    }

    /// The RIE whose state is at this address, if it is Valid: a store there was a commit.
    pub fn committed_by(&self, address: NvAddress) -> Option<RieIndex> {
        let first = LUNS_MAX as u32 * NCAE_WORDS;
        let rie = RieIndex(u16::try_from(address.0.checked_sub(first)? / RIE_WORDS).ok()?);
        let named_by = self.named_by.get(rie.index()).filter(|b| !b.is_empty())?;
        let known = self.words.rie(rie).ok()?;
        let is_state = self.words.rie_store(rie, known).0 == address;
        (is_state && known.state == RieState::Valid && !named_by.is_empty()).then_some(rie)
    }

    /// The buffers that an RIE makes valid, or free, and their masks.
    pub fn named_by(&self, rie: RieIndex, state: BmaeState) -> impl Iterator<Item = (BufferIndex, u8)> + '_ {
        let bmaes = self.named_by[rie.index()].iter().map(|b| BufferIndex(*b));
        let bmaes = bmaes.filter_map(|b| self.words.bmae(b).ok().map(|bmae| (b, bmae)));
        bmaes
            .filter(move |(_, bmae)| bmae.state == state)
            .map(|(b, bmae)| (b, bmae.mask))
    }

    /// What a buffer would hold.
    fn valid(&self, buffer: u32) -> Option<ValidBuffer> {
        let (ncae, start) = self.valid[buffer as usize]?;
        let buffer = BufferIndex(buffer);
        let mask = self.words.bmae(buffer).ok()?.mask;
        Some(ValidBuffer {
            buffer,
            ncae,
            start,
            mask,
        })
    }

    /// Whether any buffer would hold a granule.
    fn holds(&self, granule: Granule) -> bool {
        self.holders.get(&granule).is_some_and(|holders| *holders > 0)
    }

    fn name_rie(&mut self, buffer: u32) -> Result<(), String> {
        let bmae = self.words.bmae(BufferIndex(buffer)).map_err(damage)?;
        let provisional = matches!(bmae.state, BmaeState::ProvisionalWb | BmaeState::ProvisionalWbNot);
        let name = provisional.then_some(bmae.index);
        let before = std::mem::replace(&mut self.names[buffer as usize], name);
        if before == name {
            return Ok(());
        }
        if let Some(before) = before {
            self.named_by[usize::from(before)].retain(|b| *b != buffer);
        }
        if let Some(rie) = name {
            let named_by = self.named_by.get_mut(usize::from(rie));
            named_by
                .ok_or_else(|| format!("a buffer names RIE {rie}"))?
                .push(buffer);
        }
        Ok(())
    }

    fn drop_granule(&mut self, buffer: u32) {
        if let Some(granule) = self.valid[buffer as usize].take() {
            *self.holders.entry(granule).or_default() -= 1;
        }
    }

    fn look_at(&mut self, buffer: u32) -> Result<(), String> {
        self.drop_granule(buffer);
        let Some(valid) = ultimate(&self.words, BufferIndex(buffer)).map_err(damage)? else {
            return Ok(());
        };
        let granule = (valid.ncae, valid.start);
        self.valid[buffer as usize] = Some(granule);
        let holders = self.holders.entry(granule).or_default();
        *holders += 1;
        if *holders > 1 {
            return Err(format!("two valid buffers for {granule:?}"));
        }
        Ok(())
    }
}

fn damage(_: Damaged) -> String {
    "the image is damaged".into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use twincell_core::ids::RieGeneration;
    use twincell_core::nv::word::{Bmae, Rie};

    fn geometry() -> Geometry {
        Geometry {
            buffers: 64,
            ries: 2,
            htbs: 4,
            transfers: 4,
            destages: 2,
        }
    }

    fn rie(state: RieState) -> Rie {
        Rie {
            state,
            generation: RieGeneration(1),
            ncae: NcaeIndex(0),
        }
    }

    #[test]
    fn a_write_over_old_data_is_one_or_the_other() {
        let mut check = ImageCheck::new(geometry());
        let words = Words::new(geometry(), None);
        let (old, new, index) = (BufferIndex(0), BufferIndex(1), RieIndex(0));
        for (address, word) in [
            words.bmae_start_store(old, Vba(8)),
            words.bmae_store(old, Bmae::wb_valid(NcaeIndex(0), 0xff)),
            words.bmae_start_store(new, Vba(8)),
            words.rie_store(index, rie(RieState::Free)),
            words.bmae_store(new, Bmae::provisional_wb(index, 0xff)),
            words.bmae_store(old, Bmae::provisional_wb_not(index, 0xff)),
            words.rie_store(index, rie(RieState::Valid)),
            words.bmae_store(old, Bmae::FREE),
            words.bmae_store(new, Bmae::wb_valid(NcaeIndex(0), 0xff)),
            words.rie_store(index, rie(RieState::Unused)),
        ] {
            check.store(address, word).expect("old or new");
        }
    }

    #[test]
    fn two_buffers_for_a_granule_and_damage_are_found() {
        let mut check = ImageCheck::new(geometry());
        let words = Words::new(geometry(), None);
        for buffer in [BufferIndex(0), BufferIndex(1)] {
            let (address, word) = words.bmae_start_store(buffer, Vba(8));
            check.store(address, word).expect("a free buffer");
        }
        let valid = Bmae::wb_valid(NcaeIndex(0), 0xff);
        let (address, word) = words.bmae_store(BufferIndex(0), valid);
        check.store(address, word).expect("the first");
        let (address, word) = words.bmae_store(BufferIndex(1), valid);
        assert!(check.store(address, word).is_err());
        assert!(ImageCheck::new(geometry()).store(address, word ^ 1 << 40).is_err());
        let names = words.bmae_store(BufferIndex(1), Bmae::provisional_wb(RieIndex(0), 0xff));
        assert!(
            ImageCheck::new(geometry()).store(names.0, names.1).is_err(),
            "its RIE is not in use"
        );
    }
}
