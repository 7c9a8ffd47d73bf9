//! The header of the file that NV memory is mapped from, and where everything is in it. What the words mean is the
//! core's (`twincell_core::nv`). Byte map: docs/nv-layout.md.

use crate::bytes::{Reader, Sink};
use crate::crc::crc32c;
use crate::error::{Error, Result};
use crate::layout::PAGE_BYTES;
use crate::page::Format;
use crate::record;
use twincell_core::config::Geometry;
use twincell_core::ids::{BUFFER_BYTES, Controller, Uuid};

/// Bytes of the header.
pub const HEADER_BYTES: usize = PAGE_BYTES;
/// Where the identity of the image is, in a sector of its own.
pub const IDENTITY_OFFSET: usize = 512;
/// Bytes of the identity.
pub const IDENTITY_BYTES: usize = 32;

/// Most NV buffers of a segment pair: 64 GiB.
pub const BUFFERS_MAX: u32 = 1 << 24;
/// Most RIEs of a segment pair.
pub const RIES_MAX: u16 = 4096;

/// Bytes of the part that does not change while the file exists.
const CONSTANT_BYTES: usize = IDENTITY_OFFSET;

const FORMAT: Format = Format {
    what: "NV memory header",
    magic: *b"tc-nvmem",
    version: 1,
    features: 0,
};

const IDENTITY: &str = "identity of the NV image";
const IDENTITY_MAGIC: [u8; 4] = *b"tcNI";

/// Where everything is in NV memory: in bytes from its beginning, each on a page boundary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NvLayout {
    /// How many words.
    pub words: u32,
    /// The words, 8 bytes each.
    pub words_offset: u64,
    /// How many buffers, of both segment pairs.
    pub buffers: u32,
    /// The seals of the buffers, 8 bytes each.
    pub seals_offset: u64,
    /// The buffers, [`BUFFER_BYTES`] each.
    pub buffers_offset: u64,
    /// Length of all.
    pub bytes: u64,
}

impl NvLayout {
    /// The layout for pools of these sizes, which are within their bounds: at most [`BUFFERS_MAX`] buffers and
    /// [`RIES_MAX`] RIEs. Panics if they are not.
    pub fn of(geometry: &Geometry) -> NvLayout {
        assert!(
            geometry.buffers <= BUFFERS_MAX && geometry.ries <= RIES_MAX,
            "{geometry:?}"
        );
        let page = |bytes: u64| bytes.next_multiple_of(PAGE_BYTES as u64);
        let (words, buffers) = (geometry.words(), geometry.buffers_of_both());
        let words_offset = HEADER_BYTES as u64;
        let seals_offset = page(words_offset + 8 * u64::from(words));
        let buffers_offset = page(seals_offset + 8 * u64::from(buffers));
        NvLayout {
            words,
            words_offset,
            buffers,
            seals_offset,
            buffers_offset,
            bytes: buffers_offset + u64::from(buffers) * BUFFER_BYTES as u64,
        }
    }
}

/// What the header says, the identity of the image excepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NvHeader {
    /// The cell.
    pub cell: Uuid,
    /// Whose memory it is.
    pub controller: Controller,
    /// The boot of the kernel that it was written under: under another it is empty, unless the memory is power-safe.
    pub boot: Uuid,
    /// NV buffers of each segment pair: a multiple of 64, 64 to [`BUFFERS_MAX`].
    pub buffers: u32,
    /// RIEs of each segment pair: 1 to [`RIES_MAX`].
    pub ries: u16,
}

impl NvHeader {
    /// The layout that goes with it.
    pub fn layout(&self) -> NvLayout {
        NvLayout::of(&Geometry {
            buffers: self.buffers,
            ries: self.ries,
            htbs: 0,
            transfers: 0,
            destages: 0,
        })
    }

    /// Refuses pools that are out of bounds.
    fn check(&self) -> Result<()> {
        let value = u64::from(self.buffers);
        if value > BUFFERS_MAX.into() {
            let (field, most) = ("the number of NV buffers", BUFFERS_MAX.into());
            return Err(Error::TooLarge { field, value, most });
        }
        if value == 0 || !value.is_multiple_of(64) {
            let field = "the number of NV buffers";
            return Err(Error::Value { field, value });
        }
        if self.ries == 0 || self.ries > RIES_MAX {
            let (field, value) = ("the number of RIEs", self.ries.into());
            return Err(Error::Value { field, value });
        }
        Ok(())
    }
}

/// The header page of fresh NV memory, with the identity `image`.
/// [`Error::Value`] or [`Error::TooLarge`] where a pool is out of bounds.
pub fn encode(header: &NvHeader, image: Uuid) -> Result<[u8; HEADER_BYTES]> {
    header.check()?;
    let layout = header.layout();
    let mut out = Vec::with_capacity(CONSTANT_BYTES);
    FORMAT.put_head(&mut out);
    out.u128(header.cell.0);
    out.u128(header.boot.0);
    record::put_controller(&mut out, header.controller);
    out.zeroes::<1>();
    out.u16(header.ries);
    out.u32(header.buffers);
    out.u32(layout.words);
    out.u32(BUFFER_BYTES as u32);
    places(&layout).iter().for_each(|x| out.u64(*x));
    let constant: [u8; CONSTANT_BYTES] = FORMAT.close(&out);
    let mut page = [0; HEADER_BYTES];
    page[..CONSTANT_BYTES].copy_from_slice(&constant);
    page[IDENTITY_OFFSET..IDENTITY_OFFSET + IDENTITY_BYTES].copy_from_slice(&encode_identity(image));
    Ok(page)
}

fn places(layout: &NvLayout) -> [u64; 4] {
    [
        layout.words_offset,
        layout.seals_offset,
        layout.buffers_offset,
        layout.bytes,
    ]
}

/// What the header page `page` says. The identity is [`decode_identity`]'s: it may be damaged where a controller
/// crashed while it gave the image a new one, and then there is no image, but the memory is good.
pub fn decode(page: &[u8; HEADER_BYTES]) -> Result<NvHeader> {
    let mut r = FORMAT.open(&page[..CONSTANT_BYTES])?;
    let (cell, boot) = (Uuid(r.u128()?), Uuid(r.u128()?));
    let controller = record::controller(&mut r)?;
    r.zeroes(1)?;
    let (ries, buffers) = (r.u16()?, r.u32()?);
    let header = NvHeader {
        cell,
        controller,
        boot,
        buffers,
        ries,
    };
    header.check()?;
    let layout = header.layout();
    expect(r.u32()?.into(), layout.words.into(), "the number of NV words")?;
    expect(r.u32()?.into(), BUFFER_BYTES as u64, "the size of an NV buffer")?;
    for place in places(&layout) {
        expect(r.u64()?, place, "a place in NV memory")?;
    }
    r.zeroes(r.left())?;
    let after = &page[IDENTITY_OFFSET + IDENTITY_BYTES..];
    Reader::new(after, FORMAT.what).zeroes(after.len())?;
    Ok(header)
}

fn expect(value: u64, expected: u64, field: &'static str) -> Result<()> {
    if value == expected {
        Ok(())
    } else {
        Err(Error::Value { field, value })
    }
}

/// The record that names the image, to be stored at [`IDENTITY_OFFSET`]. An image is emptied by storing a fresh
/// identity first and zeroing its words afterwards: at no instant does the old identity stand before words that
/// are not its own. A store that was cut short leaves a record that [`decode_identity`] refuses: no image, which is
/// what the store was for.
pub fn encode_identity(image: Uuid) -> [u8; IDENTITY_BYTES] {
    let mut record = [0; IDENTITY_BYTES];
    record[..4].copy_from_slice(&IDENTITY_MAGIC);
    record[8..24].copy_from_slice(&image.0.to_le_bytes());
    let crc = crc32c(&record[..IDENTITY_BYTES - 4]);
    record[IDENTITY_BYTES - 4..].copy_from_slice(&crc.to_le_bytes());
    record
}

/// The identity of the image; never nil.
pub fn decode_identity(record: &[u8; IDENTITY_BYTES]) -> Result<Uuid> {
    let mut r = Reader::new(record, IDENTITY);
    if record.iter().all(|b| *b == 0) {
        return Err(Error::Blank { what: IDENTITY });
    }
    if r.array()? != IDENTITY_MAGIC {
        return Err(Error::Magic { what: IDENTITY });
    }
    r.zeroes(4)?;
    let image = Uuid(r.u128()?);
    r.zeroes(4)?;
    if r.u32()? != crc32c(&record[..IDENTITY_BYTES - 4]) {
        return Err(Error::Checksum { what: IDENTITY });
    }
    if image.is_nil() {
        let (field, value) = (IDENTITY, 0);
        return Err(Error::Value { field, value });
    }
    Ok(image)
}
