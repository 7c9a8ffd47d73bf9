//! The disk label [0039]: who a disk is, which cell it belongs to, and where what is on it. Written when the disk
//! is taken into the cell, twice, and afterwards only when one of its fields changes.
//! Byte map: docs/on-disk-format.md.

use crate::bytes::{Reader, Sink};
use crate::error::{Error, Result};
use crate::layout::{
    CHECKSUM_BYTES, LABEL_OFFSETS, METADATA_AREA_BYTES, METADATA_OFFSETS, PAGE_BYTES, PSAR_AREA_BYTES, PSAR_OFFSET,
    QUORUM_BLOCKS, SLOT_OFFSETS, blocks_for, checksum_block,
};
use crate::page::Format;
use crate::record;
use twincell_core::ids::{DiskIndex, PSEG_BLOCKS, QUORUM_MAX, RssIndex, Uuid};
use twincell_core::layout::metadata::Name;
use twincell_core::list::List;

/// Bytes of a label.
pub const LABEL_BYTES: usize = PAGE_BYTES;

const FORMAT: Format = Format {
    what: "disk label",
    magic: *b"twincell",
    version: 1,
    features: 0,
};

/// A disk label. The geometry of the quorum space ([`crate::layout`]) is in its bytes too, and is refused where it is
/// not the one that this program knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    /// Storage cell ID.
    pub cell: Uuid,
    /// The name of the cell.
    pub cell_name: Name,
    /// Physical store ID: unique in the world.
    pub disk: Uuid,
    /// The disk's index in the cell.
    pub index: DiskIndex,
    /// Number of disks in the cell, when this was written; `index` and the quorum set are below it.
    pub disks: u16,
    /// Size of the disk in blocks, when this was written.
    pub blocks: u64,
    /// The disks that vote (R1): an odd number.
    pub quorum: List<DiskIndex, QUORUM_MAX>,
    /// RSS ID: the redundant store set that the disk belongs to.
    pub rss: RssIndex,
    /// RSS offset: the disk's index in that set.
    pub rss_offset: u8,
    /// How many PSEGs the disk has: [`crate::layout::psegs_for`] its blocks.
    pub psegs: u32,
}

impl Label {
    /// Whether the disk is a quorum disk: the type of [0039].
    pub fn is_quorum(&self) -> bool {
        self.quorum.contains(&self.index)
    }

    /// Refuses a label whose fields do not go together.
    fn check(&self) -> Result<()> {
        let rule = |holds: bool, rule: &'static str| {
            let at = self.index.0.into();
            if holds {
                Ok(())
            } else {
                Err(Error::Contradiction { rule, at })
            }
        };
        let votes = |n: usize| self.quorum[..n].contains(&self.quorum[n]);
        rule(
            !self.cell.is_nil() && !self.disk.is_nil(),
            "a cell and a disk have identities",
        )?;
        rule(self.index.0 < self.disks, "a disk's index is below the number of disks")?;
        rule(self.quorum.len() % 2 == 1, "an odd number of disks votes")?;
        rule(
            self.quorum.iter().all(|d| d.0 < self.disks),
            "the disks that vote are disks of the cell",
        )?;
        rule(!(0..self.quorum.len()).any(votes), "a disk votes once")?;
        rule(
            blocks_for(self.psegs) <= self.blocks,
            "a disk's PSEGs and their checksums fit on it",
        )
    }
}

/// The page that holds `label`. [`Error::Contradiction`] where [`decode`] would refuse it.
pub fn encode(label: &Label) -> Result<[u8; LABEL_BYTES]> {
    label.check()?;
    let mut out = Vec::with_capacity(LABEL_BYTES);
    FORMAT.put_head(&mut out);
    out.u128(label.cell.0);
    out.u128(label.disk.0);
    out.u16(label.index.0);
    out.u16(label.disks);
    out.u16(label.rss.0);
    out.u8(label.rss_offset);
    out.u8(label.quorum.len() as u8);
    for n in 0..QUORUM_MAX {
        out.u16(label.quorum.get(n).map_or(0, |d| d.0));
    }
    out.zeroes::<6>();
    out.u64(label.blocks);
    out.u64(PSEG_BLOCKS);
    out.u32(label.psegs);
    out.u32(0);
    geometry(label.psegs).iter().for_each(|x| out.u64(*x));
    // The key that the disk is encrypted with; none yet.
    out.u128(Uuid::NIL.0);
    record::put_name(&mut out, &label.cell_name);
    Ok(FORMAT.close(&out))
}

/// Where everything is on a disk, in bytes, as the label states it.
fn geometry(psegs: u32) -> [u64; 14] {
    let [[a0, a1], [b0, b1]] = SLOT_OFFSETS;
    let block = twincell_core::ids::BLOCK_BYTES as u64;
    [
        QUORUM_BLOCKS * block,
        LABEL_OFFSETS[0],
        LABEL_OFFSETS[1],
        a0,
        a1,
        b0,
        b1,
        METADATA_OFFSETS[0],
        METADATA_OFFSETS[1],
        METADATA_AREA_BYTES as u64,
        PSAR_OFFSET,
        PSAR_AREA_BYTES,
        checksum_block(psegs) * block,
        CHECKSUM_BYTES,
    ]
}

/// The label that `page` holds. [`Error::Blank`] where none was ever written.
pub fn decode(page: &[u8; LABEL_BYTES]) -> Result<Label> {
    let mut r = FORMAT.open(page)?;
    let (cell, disk) = (Uuid(r.u128()?), Uuid(r.u128()?));
    let (index, disks) = (DiskIndex(r.u16()?), r.u16()?);
    let (rss, rss_offset) = (RssIndex(r.u16()?), r.u8()?);
    let count = r.u8()?;
    let quorum = record::list(&mut r, count, "the quorum set", |r| Ok(DiskIndex(r.u16()?)))?;
    r.zeroes(2 * (QUORUM_MAX - quorum.len()) + 6)?;
    let blocks = r.u64()?;
    expect(&mut r, PSEG_BLOCKS, "the PSEG size")?;
    let psegs = r.u32()?;
    r.zeroes(4)?;
    for x in geometry(psegs) {
        expect(&mut r, x, "a place in the quorum space")?;
    }
    r.zeroes(16)?;
    let cell_name = record::name(&mut r)?;
    r.zeroes(r.left())?;
    let label = Label {
        cell,
        cell_name,
        disk,
        index,
        disks,
        blocks,
        quorum,
        rss,
        rss_offset,
        psegs,
    };
    label.check()?;
    Ok(label)
}

/// A field that has only one value in this version.
fn expect(r: &mut Reader, expected: u64, field: &'static str) -> Result<()> {
    let value = r.u64()?;
    if value == expected {
        Ok(())
    } else {
        Err(Error::Value { field, value })
    }
}
