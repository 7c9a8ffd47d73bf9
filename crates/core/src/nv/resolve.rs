//! What is true after a crash, as a pure function of the words of NV memory (DESIGN section 5, [0097]).

use super::word::{Bmae, BmaeState, Damaged, RieState};
use super::{Image, Words};
use crate::config::Geometry;
use crate::ids::{BufferIndex, Controller, NcaeIndex, Vba};
use crate::mutant;

/// A buffer that holds valid data once every write in progress is decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ValidBuffer {
    /// Which buffer.
    pub buffer: BufferIndex,
    /// The virtual disk.
    pub ncae: NcaeIndex,
    /// First block of the granule.
    pub start: Vba,
    /// Which blocks of it are valid.
    pub mask: u8,
}

/// The ultimate state of one BMAE: `None` is free.
///
/// | BMAE | RIE Free | RIE Valid |
/// |---|---|---|
/// | Provisional WB | free | valid |
/// | Provisional WB Not | valid | free |
///
/// # Errors
/// `Damaged` if any word fails its check that says something of the buffer, or contradicts another, whichever way its write
/// is decided now: leveling may still decide it the other way.
pub fn ultimate(words: &Words, buffer: BufferIndex) -> Result<Option<ValidBuffer>, Damaged> {
    let bmae = words.bmae(buffer)?;
    let (ncae, is_valid) = match bmae.state {
        BmaeState::Free => return Ok(None),
        BmaeState::WbValid => (NcaeIndex(bmae.index), true),
        BmaeState::ProvisionalWb | BmaeState::ProvisionalWbNot => {
            let rie = words.rie_of(bmae)?;
            let kept = match rie.state {
                RieState::Free => BmaeState::ProvisionalWbNot,
                RieState::Valid => BmaeState::ProvisionalWb,
                RieState::Unused => return Err(Damaged),
            };
            (rie.ncae, bmae.state == kept)
        }
    };
    if !is_valid && mutant::is("damage-is-sought-in-what-is-valid") {
        return Ok(None);
    }
    words.ncae(ncae)?;
    let start = words.bmae_start(buffer)?;
    let mask = bmae.mask;
    Ok(is_valid.then_some(ValidBuffer {
        buffer,
        ncae,
        start,
        mask,
    }))
}

/// Every valid buffer of the pair that `allocator` allocates, in order of index.
pub fn resolve_pair(words: &Words, allocator: Controller) -> Result<Vec<ValidBuffer>, Damaged> {
    let mut valid = Vec::new();
    for buffer in words.geometry().buffers_of(allocator) {
        valid.extend(ultimate(words, buffer)?);
    }
    Ok(valid)
}

/// Every valid buffer of an image: total, pure, and the same however often a crash interrupts what carries it out.
///
/// # Errors
/// `Damaged` if any word fails its check or contradicts another: such an image must not be used.
pub fn resolve(image: &Image, geometry: Geometry) -> Result<Vec<ValidBuffer>, Damaged> {
    let words = Words::new(geometry, Some(&image.words));
    for rie in 0..geometry.ries * 2 {
        words.rie(crate::ids::RieIndex(rie))?;
    }
    let mut valid = resolve_pair(&words, Controller::A)?;
    valid.extend(resolve_pair(&words, Controller::B)?);
    Ok(valid)
}

/// The final form of a BMAE.
pub fn final_bmae(ultimate: Option<ValidBuffer>) -> Bmae {
    ultimate.map_or(Bmae::FREE, |v| Bmae::wb_valid(v.ncae, v.mask))
}
