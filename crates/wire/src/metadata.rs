//! The metadata of a cell, written whole to one of two areas and committed by the membership record that names it.
//! Byte map: docs/on-disk-format.md.

use crate::bytes::{Reader, Sink};
use crate::crc::crc32c;
use crate::error::{Error, Result};
use crate::layout::{METADATA_AREA_BYTES, PAGE_BYTES};
use crate::page::Format;
use crate::record::{self, unknown};
use crate::runs::{self, Run};
use std::collections::HashSet;
use std::hash::Hash;
use twincell_core::ids::{LUNS_MAX, NcaeIndex, Noid, RssIndex, Uuid};
use twincell_core::layout::metadata::{Disk, DiskState, Lun, Metadata};

/// Most disks of a cell.
pub const DISKS_MAX: usize = 1024;
/// Most PSEGs of all LUNs of a cell: 64 TiB. It bounds the memory that reading metadata takes.
pub const PSEGS_MAX: u64 = 1 << 25;

/// Bytes before the body.
const HEADER_BYTES: usize = 64;
const WHAT: &str = "metadata";

const FORMAT: Format = Format {
    what: WHAT,
    magic: *b"tc-meta\0",
    version: 1,
    features: 0,
};

/// What is to be written to a metadata area of a disk of the cell `cell`; a multiple of 4 KiB long.
/// [`Error::Contradiction`] where [`decode`] would refuse it, [`Error::TooLarge`] where it does not fit the area.
pub fn encode(metadata: &Metadata, cell: Uuid) -> Result<Vec<u8>> {
    let maps: Vec<Vec<Run>> = metadata.luns.iter().map(|lun| runs::pack(&lun.psegs)).collect();
    check(metadata, &maps)?;
    let mut body = Vec::new();
    put_body(&mut body, metadata, &maps);
    let bytes = (HEADER_BYTES + body.len()).next_multiple_of(PAGE_BYTES);
    if bytes > METADATA_AREA_BYTES {
        let (value, most) = (bytes as u64, METADATA_AREA_BYTES as u64);
        return Err(Error::TooLarge {
            field: "the length of the metadata in bytes",
            value,
            most,
        });
    }
    let mut out = Vec::with_capacity(bytes);
    out.put(&header(metadata.generation, cell, &body));
    out.put(&body);
    out.resize(bytes, 0);
    Ok(out)
}

fn header(generation: u64, cell: Uuid, body: &[u8]) -> [u8; HEADER_BYTES] {
    let mut out = Vec::with_capacity(HEADER_BYTES);
    FORMAT.put_head(&mut out);
    out.u128(cell.0);
    out.u64(generation);
    out.u32(body.len() as u32);
    out.u32(crc32c(body));
    FORMAT.close(&out)
}

/// What the header says.
struct Header {
    generation: u64,
    body_len: usize,
    body_crc: u32,
}

impl Header {
    fn decode(bytes: &[u8], cell: Uuid) -> Result<Header> {
        let head = bytes.get(..HEADER_BYTES).ok_or(Error::Short { what: WHAT })?;
        let mut r = FORMAT.open(head)?;
        record::cell(&mut r, WHAT, cell)?;
        let header = Header {
            generation: r.u64()?,
            body_len: r.u32()? as usize,
            body_crc: r.u32()?,
        };
        r.zeroes(r.left())?;
        if header.bytes() > METADATA_AREA_BYTES {
            let (field, most) = ("the length of the metadata in bytes", METADATA_AREA_BYTES as u64);
            return Err(Error::TooLarge {
                field,
                value: header.bytes() as u64,
                most,
            });
        }
        Ok(header)
    }

    /// Header, body and padding.
    fn bytes(&self) -> usize {
        (HEADER_BYTES + self.body_len).next_multiple_of(PAGE_BYTES)
    }
}

/// How many bytes of the area the metadata take of which `page` is the first page: so many [`decode`] needs.
/// [`Error::Blank`] where none were ever written.
pub fn length(page: &[u8; PAGE_BYTES], cell: Uuid) -> Result<usize> {
    Header::decode(page, cell).map(|header| header.bytes())
}

/// The metadata that an area begins with. `bytes` may go on after them, to the end of the area.
pub fn decode(bytes: &[u8], cell: Uuid) -> Result<Metadata> {
    let header = Header::decode(bytes, cell)?;
    let all = bytes.get(..header.bytes()).ok_or(Error::Short { what: WHAT })?;
    let (body, padding) = all[HEADER_BYTES..].split_at(header.body_len);
    if crc32c(body) != header.body_crc {
        return Err(Error::Checksum { what: WHAT });
    }
    Reader::new(padding, WHAT).zeroes(padding.len())?;
    let mut r = Reader::new(body, WHAT);
    let (mut metadata, maps) = read_body(&mut r, header.generation)?;
    r.end()?;
    // Only after the check is it known that the maps, written out, are of bearable length.
    check(&metadata, &maps)?;
    for (lun, map) in metadata.luns.iter_mut().zip(&maps) {
        lun.psegs = runs::unpack(map);
    }
    Ok(metadata)
}

fn put_body(out: &mut impl Sink, metadata: &Metadata, maps: &[Vec<Run>]) {
    out.u32(metadata.next_noid.0);
    out.u16(metadata.disks.len() as u16);
    out.u16(metadata.luns.len() as u16);
    metadata.disks.iter().for_each(|disk| put_disk(out, disk));
    for (lun, map) in metadata.luns.iter().zip(maps) {
        put_lun(out, lun);
        runs::put(out, map);
    }
}

/// Everything but the PSEGs of the LUNs, and these as runs.
fn read_body(r: &mut Reader, generation: u64) -> Result<(Metadata, Vec<Vec<Run>>)> {
    let next_noid = Noid(r.u32()?);
    let (disks, luns) = (r.u16()?, r.u16()?);
    let mut metadata = Metadata {
        generation,
        next_noid,
        disks: Vec::new(),
        luns: Vec::new(),
    };
    for _ in 0..disks {
        metadata.disks.push(disk(r)?);
    }
    let mut maps = Vec::new();
    for _ in 0..luns {
        metadata.luns.push(lun(r)?);
        maps.push(runs::read(r)?);
    }
    Ok((metadata, maps))
}

fn put_disk(out: &mut impl Sink, disk: &Disk) {
    out.u128(disk.uuid.0);
    out.u32(disk.psegs);
    out.u16(disk.rss.0);
    out.u8(disk.rss_offset);
    out.u8(match disk.state {
        DiskState::Normal => 1,
        DiskState::Missing => 2,
        DiskState::Merging => 3,
        DiskState::Replace => 4,
        DiskState::Regen => 5,
    });
}

fn disk(r: &mut Reader) -> Result<Disk> {
    Ok(Disk {
        uuid: Uuid(r.u128()?),
        psegs: r.u32()?,
        rss: RssIndex(r.u16()?),
        rss_offset: r.u8()?,
        state: match r.u8()? {
            1 => DiskState::Normal,
            2 => DiskState::Missing,
            3 => DiskState::Merging,
            4 => DiskState::Replace,
            5 => DiskState::Regen,
            code => return Err(unknown("the state of a disk", code)),
        },
    })
}

fn put_lun(out: &mut impl Sink, lun: &Lun) {
    out.u32(lun.noid.0);
    out.u16(lun.ncae.0);
    record::put_redundancy(out, lun.redundancy);
    out.u8(0);
    out.u128(lun.uuid.0);
    out.u64(lun.blocks);
    // The key that the LUN is encrypted with; none yet.
    out.u128(Uuid::NIL.0);
    record::put_name(out, &lun.name);
}

/// A LUN without its PSEGs.
fn lun(r: &mut Reader) -> Result<Lun> {
    let (noid, ncae) = (Noid(r.u32()?), NcaeIndex(r.u16()?));
    let redundancy = record::redundancy(r)?;
    r.zeroes(1)?;
    let (uuid, blocks) = (Uuid(r.u128()?), r.u64()?);
    r.zeroes(16)?;
    Ok(Lun {
        noid,
        ncae,
        name: record::name(r)?,
        uuid,
        blocks,
        redundancy,
        psegs: Vec::new(),
    })
}

fn rule(holds: bool, rule: &'static str, at: usize) -> Result<()> {
    let at = at as u64;
    if holds {
        Ok(())
    } else {
        Err(Error::Contradiction { rule, at })
    }
}

fn at_most(value: usize, most: usize, field: &'static str) -> Result<()> {
    let (value, most) = (value as u64, most as u64);
    if value <= most {
        Ok(())
    } else {
        Err(Error::TooLarge { field, value, most })
    }
}

/// Whether the metadata hang together. The PSEGs of the LUNs are in `maps`.
fn check(metadata: &Metadata, maps: &[Vec<Run>]) -> Result<()> {
    at_most(metadata.disks.len(), DISKS_MAX, "the number of disks")?;
    at_most(metadata.luns.len(), LUNS_MAX, "the number of LUNs")?;
    let disks = || metadata.disks.iter().map(|disk| disk.uuid);
    unique(disks(), "the identities of the disks differ")?;
    rule(disks().all(|uuid| !uuid.is_nil()), "every disk has an identity", 0)?;
    let luns = || metadata.luns.iter();
    unique(luns().map(|lun| lun.noid), "the NOIDs of the LUNs differ")?;
    unique(luns().map(|lun| lun.uuid), "the identities of the LUNs differ")?;
    unique(luns().map(|lun| lun.name), "the names of the LUNs differ")?;
    let rising = metadata.luns.is_sorted_by(|a, b| a.ncae < b.ncae);
    rule(
        rising,
        "the LUNs are in the order of their NCAE indices, which differ",
        0,
    )?;
    for (at, (lun, map)) in luns().zip(maps).enumerate() {
        check_lun(at, lun, map, metadata.next_noid)?;
    }
    check_psegs(metadata, maps)
}

fn check_lun(at: usize, lun: &Lun, map: &[Run], next_noid: Noid) -> Result<()> {
    rule(lun.noid < next_noid, "a LUN's NOID is below the next to be given", at)?;
    rule(
        lun.ncae.index() < LUNS_MAX,
        "a LUN's NCAE index is below the size of the NCA",
        at,
    )?;
    rule(!lun.uuid.is_nil(), "every LUN has an identity", at)?;
    rule(lun.blocks > 0, "a LUN has a block or more", at)?;
    let needed = Lun::rstores_for(lun.blocks) * lun.redundancy.width() as u64;
    rule(
        runs::length(map) == needed,
        "a LUN has as many PSEGs as its size and redundancy take",
        at,
    )
}

/// All PSEGs exist, none is used twice, and they are not too many.
fn check_psegs(metadata: &Metadata, maps: &[Vec<Run>]) -> Result<()> {
    // No sum can overflow: a map is as long as its LUN takes, which is less than 2^54, and there are few LUNs.
    let value = maps.iter().map(|map| runs::length(map)).sum();
    if value > PSEGS_MAX {
        let field = "the number of PSEGs of all LUNs";
        return Err(Error::TooLarge {
            field,
            value,
            most: PSEGS_MAX,
        });
    }
    let mut extents: Vec<_> = maps.iter().flatten().flat_map(Run::extents).collect();
    for extent in &extents {
        let psegs = metadata
            .disks
            .get(extent.disk.index())
            .map_or(0, |disk| u64::from(disk.psegs));
        rule(
            extent.end <= psegs,
            "the PSEGs of a LUN are on a disk of the cell",
            extent.disk.index(),
        )?;
    }
    extents.sort_unstable();
    let apart = |a: &runs::Extent, b: &runs::Extent| a.disk != b.disk || a.end <= b.first;
    match extents.windows(2).find(|pair| !apart(&pair[0], &pair[1])) {
        None => Ok(()),
        Some(pair) => rule(false, "no PSEG is used twice", pair[0].disk.index()),
    }
}

fn unique<T: Hash + Eq>(mut items: impl Iterator<Item = T>, what: &'static str) -> Result<()> {
    let mut seen = HashSet::new();
    match items.position(|item| !seen.insert(item)) {
        None => Ok(()),
        Some(at) => rule(false, what, at),
    }
}
