//! A frame of the link, as it comes out of a stream.
#![no_main]

use libfuzzer_sys::fuzz_target;
use twincell_core::link::frame::{Frame, Mfcs};
use twincell_wire::frame::{FrameHeader, HEADER_BYTES, decode_body, decode_mfcs, encode};
use twincell_wire::{crc32c, crc32c_append};

fuzz_target!(|bytes: &[u8]| {
    let mut bytes = bytes.to_vec();
    let Some((head, body)) = bytes.split_first_chunk_mut::<HEADER_BYTES>() else {
        return;
    };
    head[..8].copy_from_slice(b"tcLF\x01\0\0\0");
    head[10..12].copy_from_slice(&(body.len() as u16).to_le_bytes());
    let crc = crc32c(&head[..24]);
    head[24..28].copy_from_slice(&crc.to_le_bytes());
    let crc = crc32c_append(crc32c(&head[..28]), body);
    head[28..].copy_from_slice(&crc.to_le_bytes());
    let Ok(header) = FrameHeader::decode(head) else {
        return;
    };
    let Ok((frame, messages)) = decode_body(&header, body) else {
        return;
    };
    let mut mfcs = Mfcs::new();
    if decode_mfcs(messages, &mut mfcs).is_err() {
        return;
    }
    let mut again = Vec::new();
    encode(&frame, &mfcs, header.payload_blocks, header.payload_crc, &mut again);
    if matches!(frame, Frame::Hello(_)) {
        // The versions that the partner speaks are checked and then forgotten.
        assert_eq!(again[36..], bytes[36..]);
    } else {
        assert_eq!(again, bytes);
    }
});
