//! A quorum slot.
#![no_main]

use libfuzzer_sys::fuzz_target;
use twincell_core::cell::record::{Record, Slot};
use twincell_core::ids::{Controller, DiskIndex, ProcessId, Uuid};
use twincell_wire::crc32c;
use twincell_wire::slot::{SLOT_BYTES, decode, encode};

const CELL: Uuid = Uuid(1);

fuzz_target!(|bytes: &[u8]| {
    let slot = Slot::idle(Controller::A, ProcessId::default(), Record::first(&[DiskIndex(0)]));
    let mut sector = encode(&slot, CELL);
    sector.iter_mut().zip(bytes).for_each(|(to, from)| *to ^= from);
    let crc = crc32c(&sector[..SLOT_BYTES - 4]);
    sector[SLOT_BYTES - 4..].copy_from_slice(&crc.to_le_bytes());
    if let Ok(slot) = decode(&sector, CELL) {
        assert_eq!(encode(&slot, CELL), sector);
    }
});
