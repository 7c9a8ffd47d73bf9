//! What every format that is kept has in common: it begins with magic, version and incompatible-feature bits, and
//! a page of fixed size ends with a CRC-32C of all before it. The places of these four never change, so that any
//! version can tell damage from newness.

use crate::bytes::{Reader, Sink};
use crate::crc::crc32c;
use crate::error::{Error, Result};

/// A kept format.
pub(crate) struct Format {
    /// What errors call it.
    pub what: &'static str,
    /// Its first eight bytes.
    pub magic: [u8; 8],
    /// The version that is written, and the newest that is read.
    pub version: u16,
    /// The incompatible features that are known.
    pub features: u32,
}

impl Format {
    /// Writes magic, version and features.
    pub fn put_head(&self, out: &mut impl Sink) {
        out.put(&self.magic);
        out.u16(self.version);
        out.u16(0);
        out.u32(0);
    }

    /// Refuses what does not begin with this magic.
    fn check_magic(&self, bytes: &[u8]) -> Result<()> {
        let what = self.what;
        if bytes.iter().all(|b| *b == 0) {
            return Err(Error::Blank { what });
        }
        if !bytes.starts_with(&self.magic) {
            return Err(Error::Magic { what });
        }
        Ok(())
    }

    /// Reads over the head; refuses versions and features that are not known.
    fn skip_head<'a>(&self, bytes: &'a [u8]) -> Result<Reader<'a>> {
        let what = self.what;
        let mut r = Reader::new(bytes, what);
        r.take(self.magic.len())?;
        let found = r.u16()?;
        if found == 0 || found > self.version {
            let newest = self.version;
            return Err(Error::Version { what, found, newest });
        }
        r.zeroes(2)?;
        let unknown = r.u32()? & !self.features;
        if unknown != 0 {
            return Err(Error::Features { what, unknown });
        }
        Ok(r)
    }

    /// A page of `N` bytes: `bytes`, zeroes, and the CRC.
    pub fn close<const N: usize>(&self, bytes: &[u8]) -> [u8; N] {
        let mut page = [0; N];
        page[..bytes.len()].copy_from_slice(bytes);
        let crc = crc32c(&page[..N - 4]);
        page[N - 4..].copy_from_slice(&crc.to_le_bytes());
        page
    }

    /// What stands between head and CRC of a page that [`Format::close`] made.
    pub fn open<'a>(&self, page: &'a [u8]) -> Result<Reader<'a>> {
        let what = self.what;
        self.check_magic(page)?;
        let (rest, crc) = page.split_last_chunk::<4>().ok_or(Error::Short { what })?;
        if crc32c(rest) != u32::from_le_bytes(*crc) {
            return Err(Error::Checksum { what });
        }
        self.skip_head(rest)
    }
}
