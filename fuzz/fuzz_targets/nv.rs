//! The header of NV memory.
#![no_main]

use libfuzzer_sys::fuzz_target;
use twincell_core::ids::{Controller, Uuid};
use twincell_wire::crc32c;
use twincell_wire::nv::{IDENTITY_BYTES, IDENTITY_OFFSET, NvHeader, decode, decode_identity, encode, encode_identity};

const HEADER: NvHeader = NvHeader {
    cell: Uuid(1),
    controller: Controller::A,
    boot: Uuid(2),
    buffers: 64,
    ries: 256,
};

fuzz_target!(|bytes: &[u8]| {
    let mut page = encode(&HEADER, Uuid(3)).expect("the pools are within bounds");
    page.iter_mut().zip(bytes).for_each(|(to, from)| *to ^= from);
    for (from, to) in [
        (0, IDENTITY_OFFSET),
        (IDENTITY_OFFSET, IDENTITY_OFFSET + IDENTITY_BYTES),
    ] {
        let crc = crc32c(&page[from..to - 4]);
        page[to - 4..to].copy_from_slice(&crc.to_le_bytes());
    }
    let record = page[IDENTITY_OFFSET..].first_chunk().expect("the page is longer");
    let image = decode_identity(record);
    if let Ok(image) = image {
        assert_eq!(encode_identity(image), *record);
    }
    if let (Ok(header), Ok(image)) = (decode(&page), image) {
        assert_eq!(encode(&header, image), Ok(page));
    }
});
