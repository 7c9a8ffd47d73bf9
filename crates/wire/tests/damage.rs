//! What was damaged, cut short, forged, or made for someone else is refused, and nothing makes a decoder panic.

mod common;

use proptest::prelude::*;
use twincell_core::ids::Uuid;
use twincell_core::link::frame::{Frame, Mfc, Mfcs};
use twincell_wire::frame::{FrameHeader, HEADER_BYTES};
use twincell_wire::{Error, Result, crc32c, frame, label, metadata, nv, slot};

const CELL: Uuid = Uuid(0xce11);

/// Reads a frame as if `bytes` were all that came.
fn read_frame(bytes: &[u8]) -> Result<(FrameHeader, (Frame, Mfcs))> {
    let short = Error::Short { what: "header" };
    let (head, body) = bytes.split_first_chunk::<HEADER_BYTES>().ok_or(short)?;
    let header = FrameHeader::decode(head)?;
    Ok((header, common::read_body(&header, body)?))
}

fn encode_frame(frame: &Frame, mfcs: &[Mfc], payload_blocks: u32) -> Vec<u8> {
    let mut out = Vec::new();
    frame::encode(frame, mfcs, payload_blocks, 0x1234_5678, &mut out);
    out
}

fn read_nv(page: &[u8]) -> Result<(nv::NvHeader, Uuid)> {
    let page: &[u8; 4096] = page.try_into().expect("a page");
    let identity = page[nv::IDENTITY_OFFSET..]
        .first_chunk()
        .expect("the page is long enough");
    Ok((nv::decode(page)?, nv::decode_identity(identity)?))
}

fn read_page<const N: usize, T>(bytes: &[u8], decode: impl Fn(&[u8; N]) -> Result<T>) -> Result<T> {
    decode(bytes.try_into().expect("a page"))
}

/// Whether `read` refuses `bytes` with any one bit flipped.
fn refuses_flips<T>(mut bytes: Vec<u8>, read: impl Fn(&[u8]) -> Result<T>) {
    assert!(read(&bytes).is_ok());
    for bit in 0..bytes.len() * 8 {
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert!(read(&bytes).is_err(), "bit {bit} may be flipped");
        bytes[bit / 8] ^= 1 << (bit % 8);
    }
}

/// Puts right the CRC of a page that ends with one.
fn reseal(page: &mut [u8]) {
    let (rest, crc) = page.split_last_chunk_mut::<4>().expect("longer than its CRC");
    *crc = crc32c(rest).to_le_bytes();
}

fn reseal_frame(bytes: &mut [u8]) {
    let crc = crc32c(&bytes[..HEADER_BYTES - 8]);
    bytes[HEADER_BYTES - 8..HEADER_BYTES - 4].copy_from_slice(&crc.to_le_bytes());
    let mut all = bytes[..HEADER_BYTES - 4].to_vec();
    all.extend(&bytes[HEADER_BYTES..]);
    bytes[HEADER_BYTES - 4..HEADER_BYTES].copy_from_slice(&crc32c(&all).to_le_bytes());
}

fn reseal_metadata(bytes: &mut [u8]) {
    let body_len = u32::from_le_bytes(*bytes[40..].first_chunk().expect("a header")) as usize;
    let crc = bytes.get(64..64 + body_len).map_or(0, crc32c);
    bytes[44..48].copy_from_slice(&crc.to_le_bytes());
    reseal(&mut bytes[..64]);
}

/// A few changed bytes.
fn forgery() -> impl Strategy<Value = Vec<(usize, u8)>> {
    prop::collection::vec(
        (any::<prop::sample::Index>().prop_map(|i| i.index(1 << 20)), any::<u8>()),
        1..4,
    )
}

fn forge(bytes: &mut [u8], changes: &[(usize, u8)]) {
    for (at, to) in changes {
        let at = at % bytes.len();
        bytes[at] = *to;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_bit_of_a_frame_may_flip((frame, mfcs) in common::frame(), blocks in 0..2u32) {
        let blocks = if matches!(frame, Frame::Messages(_)) { blocks } else { 0 };
        refuses_flips(encode_frame(&frame, &mfcs, blocks), read_frame);
    }

    /// Where a header was accepted it is the one that was sent: a damaged body does not hide where the next frame begins.
    #[test]
    fn the_end_of_a_damaged_frame_is_known(
        (frame, mfcs) in common::frame(),
        bit in any::<prop::sample::Index>(),
    ) {
        let sent = encode_frame(&frame, &mfcs, 0);
        let bit = bit.index(sent.len() * 8);
        let mut came = sent.clone();
        came[bit / 8] ^= 1 << (bit % 8);
        let header = FrameHeader::decode(came.first_chunk().expect("a header"));
        match header {
            Ok(header) => {
                // Of the header only the CRC of the whole frame may be damaged unseen.
                prop_assert!(bit >= (HEADER_BYTES - 4) * 8);
                prop_assert_eq!(header.frame_bytes(), sent.len());
                let refused = common::read_body(&header, &came[HEADER_BYTES..]);
                prop_assert_eq!(refused, Err(Error::Checksum { what: "link frame" }));
            }
            Err(_) => prop_assert!(bit < (HEADER_BYTES - 4) * 8),
        }
    }

    #[test]
    fn no_bit_of_a_slot_may_flip(slot in common::slot()) {
        refuses_flips(slot::encode(&slot, CELL).to_vec(), |b| read_page(b, |p| slot::decode(p, CELL)));
    }

    #[test]
    fn no_frame_may_end_early((frame, mfcs) in common::frame()) {
        let bytes = encode_frame(&frame, &mfcs, 0);
        for length in 0..bytes.len() {
            prop_assert!(read_frame(&bytes[..length]).is_err());
        }
        let longer = [bytes.as_slice(), &[0]].concat();
        prop_assert!(read_frame(&longer).is_err());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3))]

    #[test]
    fn no_bit_of_a_label_may_flip(label in common::label()) {
        refuses_flips(label::encode(&label)?.to_vec(), |b| read_page(b, label::decode));
    }

    #[test]
    fn no_bit_of_an_nv_header_may_flip(header in common::nv_header(), image in common::uuid()) {
        refuses_flips(nv::encode(&header, image)?.to_vec(), read_nv);
    }

    #[test]
    fn no_bit_of_the_metadata_may_flip(metadata in common::metadata()) {
        refuses_flips(metadata::encode(&metadata, CELL)?, |b| metadata::decode(b, CELL));
    }

    #[test]
    fn no_metadata_may_end_early(metadata in common::metadata()) {
        let bytes = metadata::encode(&metadata, CELL)?;
        for length in 0..bytes.len() {
            prop_assert!(metadata::decode(&bytes[..length], CELL).is_err());
        }
    }
}

// With their CRCs put right, forged bytes reach every other check. What is still accepted means just what it says:
// written again, it gives the same bytes.
proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn forged_frames((frame, mfcs) in common::frame(), changes in forgery()) {
        let mut bytes = encode_frame(&frame, &mfcs, 0);
        forge(&mut bytes, &changes);
        reseal_frame(&mut bytes);
        if let Ok((header, (frame, mfcs))) = read_frame(&bytes) {
            let mut again = Vec::new();
            frame::encode(&frame, &mfcs, header.payload_blocks, header.payload_crc, &mut again);
            // The versions that a partner speaks are checked and then forgotten.
            if matches!(frame, Frame::Hello(_)) {
                bytes[32..36].copy_from_slice(&again[32..36]);
                reseal_frame(&mut bytes);
            }
            prop_assert_eq!(again, bytes);
        }
    }

    #[test]
    fn forged_slots(slot in common::slot(), changes in forgery()) {
        let mut sector = slot::encode(&slot, CELL);
        forge(&mut sector, &changes);
        reseal(&mut sector);
        if let Ok(slot) = slot::decode(&sector, CELL) {
            prop_assert_eq!(slot::encode(&slot, CELL), sector);
        }
    }

    #[test]
    fn forged_labels(label in common::label(), changes in forgery()) {
        let mut page = label::encode(&label)?;
        // Most of the page is zero; the forger knows.
        forge(&mut page[..256], &changes);
        reseal(&mut page);
        if let Ok(label) = label::decode(&page) {
            prop_assert_eq!(label::encode(&label)?, page);
        }
    }

    #[test]
    fn forged_nv_headers(header in common::nv_header(), changes in forgery()) {
        let mut page = nv::encode(&header, Uuid(1))?;
        forge(&mut page[..128], &changes);
        reseal(&mut page[..nv::IDENTITY_OFFSET]);
        if let Ok(header) = nv::decode(&page) {
            prop_assert_eq!(nv::encode(&header, Uuid(1))?, page);
        }
    }

    #[test]
    fn forged_metadata(metadata in common::metadata(), changes in forgery()) {
        let mut bytes = metadata::encode(&metadata, CELL)?;
        forge(&mut bytes, &changes);
        reseal_metadata(&mut bytes);
        if let Ok(metadata) = metadata::decode(&bytes, CELL) {
            prop_assert_eq!(metadata::decode(&metadata::encode(&metadata, CELL)?, CELL)?, metadata);
        }
    }

    #[test]
    fn noise(bytes in prop::collection::vec(any::<u8>(), 4096)) {
        prop_assert!(read_frame(&bytes[..200]).is_err());
        prop_assert!(read_page(&bytes[..512], |p| slot::decode(p, CELL)).is_err());
        prop_assert!(read_page(&bytes, label::decode).is_err());
        prop_assert!(read_nv(&bytes).is_err());
        prop_assert!(metadata::decode(&bytes, CELL).is_err());
    }
}
