//! Making the disks of a new cell.

use crate::error::CreateError;
use std::path::PathBuf;
use twincell_core::ids::Uuid;

/// The smallest disk, in bytes.
pub const DISK_BYTES_MIN: u64 = 64 << 20;

/// A disk to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewDisk {
    /// A block device, or a file.
    pub path: PathBuf,
    /// The size in bytes of a file to make; `None` where it is there already and is used whole.
    pub size_bytes: Option<u64>,
}

/// Makes `disks` the disks of a new cell, in this order: labels, empty slots, first metadata.
///
/// # Errors
/// See [`CreateError`]. A disk that carries a label is never touched.
pub fn create_disks(cell: Uuid, cell_name: &str, disks: &[NewDisk]) -> Result<(), CreateError> {
    let _ = (cell, cell_name);
    Err(CreateError::Count {
        count: disks.len(),
        max: 0,
    })
}

/// A fresh random identity (RFC 9562, version 4).
pub fn random_uuid() -> Uuid {
    let mut bytes = [0u8; 16];
    let mut filled = 0;
    while filled < bytes.len() {
        let rest = &mut bytes[filled..];
        // SAFETY: the pointer and length are those of `rest`. It is needed because std has no random bytes.
        let n = unsafe { libc::getrandom(rest.as_mut_ptr().cast(), rest.len(), 0) };
        // Only a signal can interrupt it.
        filled += usize::try_from(n).unwrap_or(0);
    }
    let random = u128::from_be_bytes(bytes);
    let version = !(0xf << 76) & random | 0x4 << 76;
    Uuid(version & !(0x3 << 62) | 0x2 << 62)
}
