//! Byte formats of twincell: what travels on the link and what is kept on disks and in NV memory.
//!
//! Nothing here does I/O. Everything is little endian, carries magic, version and incompatible-feature bits, and is
//! refused with an [`Error`] that says why if it is damaged, newer than this program or from another cell. Bytes
//! from outside never cause a panic. Byte maps: docs/wire-format.md, docs/on-disk-format.md, docs/nv-layout.md.
//!
//! * [`frame`]: frames of the link between the controllers; [`capture`]: those that somebody has recorded.
//! * [`layout`]: where everything is on a disk; [`label`], [`slot`] and [`metadata`]: what is there.
//! * [`nv`]: the file that NV memory is mapped from.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod bytes;
pub mod capture;
mod crc;
mod error;
pub mod frame;
pub mod label;
pub mod layout;
pub mod metadata;
mod mfc;
pub mod nv;
mod page;
mod record;
mod runs;
pub mod slot;

pub use crc::{crc32c, crc32c_append};
pub use error::{Error, Result};
