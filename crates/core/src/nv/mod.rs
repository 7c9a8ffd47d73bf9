//! Non-volatile memory: words and buffers that survive a crash of the controller (DESIGN section 5).

use crate::ids::Uuid;

/// The words of an NV image, and its identity.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Image {
    /// Fresh for each fresh image (R8).
    pub uuid: Uuid,
    /// [`crate::config::Geometry::words`] words.
    pub words: Vec<u64>,
}
