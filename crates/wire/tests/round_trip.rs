//! What was written is read back.

mod common;

use proptest::prelude::*;
use twincell_core::config::Geometry;
use twincell_core::ids::{BUFFER_BYTES, Uuid};
use twincell_core::link::frame::{Frame, Mfc, Mfcs, Sequenced};
use twincell_wire::frame::{self, FrameHeader, HEADER_BYTES, PAYLOAD_BLOCKS_MAX};
use twincell_wire::layout::METADATA_AREA_BYTES;
use twincell_wire::nv::{self, NvLayout};
use twincell_wire::{Error, label, metadata, slot};

/// Reads a frame as from a stream.
fn read(bytes: &[u8]) -> Result<(FrameHeader, (Frame, Mfcs)), Error> {
    let head = bytes.first_chunk::<HEADER_BYTES>().expect("a frame has a header");
    let header = FrameHeader::decode(head)?;
    Ok((header, common::read_body(&header, &bytes[HEADER_BYTES..])?))
}

proptest! {
    #[test]
    fn frames((frame, mfcs) in common::frame(), blocks in 0..=PAYLOAD_BLOCKS_MAX, crc: u32) {
        let blocks = if matches!(frame, Frame::Messages(_)) { blocks } else { 0 };
        let mut bytes = vec![0xaa; 3];
        frame::encode(&frame, &mfcs, blocks, crc, &mut bytes);
        prop_assert_eq!(&bytes[..3], &[0xaa; 3]);
        let (header, decoded) = read(&bytes[3..])?;
        prop_assert_eq!(decoded, (frame, mfcs));
        prop_assert_eq!(header.payload_blocks, blocks);
        prop_assert_eq!(header.payload_bytes(), blocks as usize * 512);
        prop_assert_eq!(header.payload_crc, if blocks == 0 { 0 } else { crc });
        prop_assert_eq!(header.body_len, bytes.len() - 3 - HEADER_BYTES);
    }

    #[test]
    fn a_message_is_as_long_as_it_says(mfc in common::mfc()) {
        let frame = |mfcs: &[Mfc]| {
            let mut out = Vec::new();
            let sequenced = Sequenced { incarnation: Default::default(), sequence: 0, acknowledged: 0 };
            frame::encode(&Frame::Messages(sequenced), mfcs, 0, 0, &mut out);
            out.len()
        };
        prop_assert_eq!(frame(&[mfc]) - frame(&[]), frame::mfc_bytes(&mfc));
        prop_assert!(frame::mfc_bytes(&mfc) <= frame::MFCS_BYTES_MAX);
    }

    #[test]
    fn slots(slot in common::slot(), cell in common::uuid()) {
        prop_assert_eq!(slot::decode(&slot::encode(&slot, cell), cell)?, slot);
    }

    #[test]
    fn labels(label in common::label()) {
        prop_assert_eq!(label::decode(&label::encode(&label)?)?, label);
    }

    #[test]
    fn metadata_of_any_kind(metadata in common::metadata(), cell in common::uuid(), more in 0..3usize) {
        let mut bytes = metadata::encode(&metadata, cell)?;
        prop_assert_eq!(bytes.len() % 4096, 0);
        let first = bytes.first_chunk().expect("at least a page");
        prop_assert_eq!(metadata::length(first, cell)?, bytes.len());
        // What an older and longer state of the metadata left behind in the area.
        bytes.resize(bytes.len() + more * 4096, 0x55);
        prop_assert_eq!(metadata::decode(&bytes, cell)?, metadata);
    }

    #[test]
    fn nv_headers(header in common::nv_header(), image in common::uuid(), fresh in common::uuid()) {
        let mut page = nv::encode(&header, image)?;
        let identity = nv::IDENTITY_OFFSET..nv::IDENTITY_OFFSET + nv::IDENTITY_BYTES;
        for image in [image, fresh] {
            page[identity.clone()].copy_from_slice(&nv::encode_identity(image));
            prop_assert_eq!(nv::decode(&page)?, header);
            let record = page[identity.clone()].try_into().expect("its length is that of the record");
            prop_assert_eq!(nv::decode_identity(record)?, image);
        }
    }

    #[test]
    fn nv_areas_are_apart(header in common::nv_header()) {
        let NvLayout { words, words_offset, buffers, seals_offset, buffers_offset, bytes } = header.layout();
        prop_assert!(words_offset >= nv::HEADER_BYTES as u64);
        prop_assert!(words_offset + 8 * u64::from(words) <= seals_offset);
        prop_assert!(seals_offset + 8 * u64::from(buffers) <= buffers_offset);
        prop_assert_eq!(buffers_offset + u64::from(buffers) * BUFFER_BYTES as u64, bytes);
        prop_assert_eq!((words_offset % 4096, seals_offset % 4096, buffers_offset % 4096), (0, 0, 0));
    }
}

/// The short form is what makes large LUNs possible: 8 TiB, mirrored, over twenty disks.
#[test]
fn a_large_lun_fits_the_area_many_times() {
    let metadata = common::in_turn(20, 1 << 22);
    assert_eq!(metadata.luns[0].psegs.len(), 1 << 23);
    let bytes = metadata::encode(&metadata, Uuid(1)).expect("it fits");
    assert!(bytes.len() <= METADATA_AREA_BYTES / 100, "{} bytes", bytes.len());
    assert!(metadata::decode(&bytes, Uuid(1)).expect("it is good") == metadata);
}

#[test]
fn nv_layout_of_the_default_cache() {
    let layout = NvLayout::of(&Geometry::for_cache(64 << 20));
    assert_eq!(layout.buffers, 64 << 8);
    assert_eq!(layout.bytes - layout.buffers_offset, 64 << 20);
}
