//! A controller's own slot on a quorum disk (R1): one sector, so that the medium writes it whole or not at all.
//! Byte map: docs/on-disk-format.md.

use crate::bytes::Sink;
use crate::error::Result;
use crate::page::Format;
use crate::record;
use twincell_core::cell::record::Slot;
use twincell_core::ids::Uuid;

/// Bytes of a slot: one sector.
pub const SLOT_BYTES: usize = 512;

const FORMAT: Format = Format {
    what: "quorum slot",
    magic: *b"tc-slot\0",
    version: 1,
    features: 0,
};

/// The sector that holds `slot` in the cell `cell`.
pub fn encode(slot: &Slot, cell: Uuid) -> [u8; SLOT_BYTES] {
    let mut out = Vec::with_capacity(SLOT_BYTES);
    FORMAT.put_head(&mut out);
    out.u128(cell.0);
    record::put_controller(&mut out, slot.controller);
    out.zeroes::<3>();
    record::put_process(&mut out, &slot.process);
    out.u64(slot.heartbeat);
    out.u64(slot.begun);
    out.u64(slot.voted);
    record::put_record(&mut out, &slot.record);
    record::put_record(&mut out, &slot.proposal);
    FORMAT.close(&out)
}

/// The slot that `sector` holds. [`crate::Error::Blank`] where none was ever written.
pub fn decode(sector: &[u8; SLOT_BYTES], cell: Uuid) -> Result<Slot> {
    let mut r = FORMAT.open(sector)?;
    record::cell(&mut r, FORMAT.what, cell)?;
    let controller = record::controller(&mut r)?;
    r.zeroes(3)?;
    let slot = Slot {
        controller,
        process: record::process(&mut r)?,
        heartbeat: r.u64()?,
        begun: r.u64()?,
        voted: r.u64()?,
        record: record::record(&mut r)?,
        proposal: record::record(&mut r)?,
    };
    r.zeroes(r.left())?;
    Ok(slot)
}
