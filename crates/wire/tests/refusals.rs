//! Each reason to refuse, and that it is the right one.

mod common;

use expect_test::expect;
use twincell_core::cell::record::{Record, Slot};
use twincell_core::ids::*;
use twincell_core::layout::metadata::{Metadata, Name, Redundancy};
use twincell_core::link::frame::{Frame, Hello, Mfc, Sequenced};
use twincell_core::list::List;
use twincell_wire::frame::{BODY_BYTES_MAX, FrameHeader, HEADER_BYTES, PAYLOAD_BLOCKS_MAX};
use twincell_wire::{Error, crc32c, frame, label, metadata, nv, slot};

const CELL: Uuid = Uuid(0xce11);

fn reseal(page: &mut [u8]) {
    let (rest, crc) = page.split_last_chunk_mut::<4>().expect("longer than its CRC");
    *crc = crc32c(rest).to_le_bytes();
}

fn sector() -> [u8; 512] {
    let slot = Slot::idle(Controller::A, ProcessId::default(), Record::first(&[DiskIndex(0)]));
    slot::encode(&slot, CELL)
}

/// The error of a sector that was changed at one byte, its CRC put right.
fn forged(at: usize, to: u8) -> Error {
    let mut sector = sector();
    sector[at] = to;
    reseal(&mut sector);
    slot::decode(&sector, CELL).expect_err("it was forged")
}

#[test]
fn a_page_says_why_it_is_refused() {
    let what = "quorum slot";
    let blank = slot::decode(&[0; 512], CELL);
    assert_eq!(blank, Err(Error::Blank { what }));
    assert_eq!(forged(0, b'x'), Error::Magic { what });
    let (found, newest) = (2, 1);
    assert_eq!(forged(8, 2), Error::Version { what, found, newest });
    let found = 0;
    assert_eq!(forged(8, 0), Error::Version { what, found, newest });
    assert_eq!(forged(15, 0x80), Error::Features { what, unknown: 1 << 31 });
    let other = slot::decode(&sector(), Uuid(9));
    assert_eq!(other, Err(Error::OtherCell { what, found: CELL }));
    let mut torn = sector();
    torn[300] ^= 1;
    assert_eq!(slot::decode(&torn, CELL), Err(Error::Checksum { what }));
}

#[test]
fn a_slot_holds_only_what_means_something() {
    let value = |at, to| match forged(at, to) {
        Error::Value { field, .. } | Error::TooLarge { field, .. } => field,
        other => panic!("{other:?}"),
    };
    assert_eq!(value(32, 0), "the controller");
    assert_eq!(value(104, 6), "the mode of the membership record");
    assert_eq!(value(105, 2), "the copy of the metadata");
    assert_eq!(value(106, 6), "the quorum set");
    assert_eq!(value(110, 1), "a reserved byte");
}

#[test]
fn the_errors_are_plain() {
    let said = [
        forged(8, 2),
        forged(12, 4),
        forged(0, 0),
        Error::NoCommonVersion { oldest: 3, newest: 4 },
        slot::decode(&[0; 512], CELL).expect_err("it is blank"),
    ]
    .map(|e| e.to_string())
    .join("\n");
    expect![[r#"
        the quorum slot has format version 2, newer than version 1 that this program reads
        the quorum slot uses features that this program does not know (bits 0x4)
        not a twincell quorum slot: the magic is wrong
        the partner speaks versions 3 to 4 of the link protocol, this program none of them
        the quorum slot is blank: it was never written"#]]
    .assert_eq(&said);
}

fn header() -> [u8; HEADER_BYTES] {
    let mut out = Vec::new();
    let sequenced = Sequenced {
        incarnation: Incarnation(1),
        sequence: 0,
        acknowledged: 0,
    };
    frame::encode(&Frame::Messages(sequenced), &[Mfc::LevelEnd], 1, 7, &mut out);
    *out.first_chunk().expect("it has a header")
}

/// What becomes of a header once its own CRC is put right.
fn resealed(mut header: [u8; HEADER_BYTES]) -> Result<FrameHeader, Error> {
    let crc = crc32c(&header[..24]);
    header[24..28].copy_from_slice(&crc.to_le_bytes());
    FrameHeader::decode(&header)
}

/// What becomes of a header with two bytes changed.
fn header_with(at: usize, to: u16) -> Result<FrameHeader, Error> {
    let mut header = header();
    header[at..at + 2].copy_from_slice(&to.to_le_bytes());
    resealed(header)
}

#[test]
fn a_frame_is_bounded_before_it_is_believed() {
    let most = BODY_BYTES_MAX as u16;
    assert_eq!(header_with(10, most).map(|h| h.body_len), Ok(BODY_BYTES_MAX));
    assert!(matches!(
        header_with(10, most + 1),
        Err(Error::TooLarge { value: 2001, .. })
    ));
    let mut longest = header();
    longest[16..20].copy_from_slice(&(PAYLOAD_BLOCKS_MAX * 512).to_le_bytes());
    assert_eq!(resealed(longest).map(|h| h.payload_blocks), Ok(PAYLOAD_BLOCKS_MAX));
    longest[16..20].copy_from_slice(&((PAYLOAD_BLOCKS_MAX + 1) * 512).to_le_bytes());
    assert!(matches!(resealed(longest), Err(Error::TooLarge { value: 265, .. })));
    let what = "header of a link frame";
    assert_eq!(FrameHeader::decode(&longest), Err(Error::Checksum { what }));
    assert!(matches!(header_with(16, 513), Err(Error::Value { .. })));
    assert!(
        matches!(header_with(8, 2), Err(Error::Value { .. })),
        "a heartbeat with payload"
    );
    assert!(matches!(header_with(4, 2), Err(Error::Version { found: 2, .. })));
    assert!(matches!(header_with(6, 1), Err(Error::Features { unknown: 1, .. })));
}

/// The error of a frame with `body` as its sequence, acknowledgement and messages.
fn refused(body: &[u8]) -> Error {
    let mut head = header();
    head[10..12].copy_from_slice(&(body.len() as u16).to_le_bytes());
    let crc = crc32c(&head[..24]);
    head[24..28].copy_from_slice(&crc.to_le_bytes());
    let crc = crc32c(&[&head[..28], body].concat());
    head[28..].copy_from_slice(&crc.to_le_bytes());
    let header = FrameHeader::decode(&head).expect("the header is good");
    common::read_body(&header, body).expect_err("the body is not")
}

#[test]
fn messages_say_why_they_are_refused() {
    let with = |messages: &[u8]| refused(&[&[0; 8], messages].concat()).to_string();
    let release = |count: u8| [&[0x08, 0, 5 + 4 * count, 0, count], &*vec![0; 4 * count as usize]].concat();
    let said = [
        with(&[]),
        with(&[0x13, 0, 4]),
        with(&[0x13, 0, 3, 0]),
        with(&[0x13, 0, 5, 0]),
        with(&[0x13, 0, 5, 0, 0]),
        with(&[0x13, 1, 4, 0]),
        with(&[0x14, 3, 4, 0]),
        with(&[0x09, 0, 4, 0]),
        with(&release(33)),
        with(&[0x13, 0, 4, 0].repeat(9)),
        with(&[0x38, 0, 9, 0, 1, 0, 2, 0, 9]),
        with(&[0x31, 0, 12, 0, 1, 0, 2, 0, 4, 2, b'a', b'/']),
    ]
    .join("\n");
    expect![[r#"
        the number of messages in a frame with payload: 0x0 means nothing here
        the link frame ends too early
        the message ends too early
        the link frame ends too early
        the message has more bytes than its fields account for
        the flags of a message: 0x1 means nothing here
        the flags of a message: 0x3 means nothing here
        the function code of a message: 0x9 means nothing here
        the buffers of a release: 33, and 32 is the most
        the number of messages in a frame: 9, and 8 is the most
        the status of a forwarded command: 0x9 means nothing here
        the length of a name, or one of its bytes: 0x2 means nothing here"#]]
    .assert_eq(&said);
}

#[test]
fn a_partner_of_another_time_is_told_so() {
    let hello = Hello {
        controller: Controller::A,
        cell: CELL,
        instance: Uuid(1),
        process: ProcessId::default(),
        incarnation: Incarnation(0),
        epoch: Epoch(1),
        image: Uuid(2),
        session: Incarnation(0),
        met: Uuid::NIL,
        undecided: false,
        buffers: 64,
    };
    let read = |oldest: u8, newest: u8| {
        let mut bytes = Vec::new();
        frame::encode(&Frame::Hello(hello), &[], 0, 0, &mut bytes);
        (bytes[32], bytes[34]) = (oldest, newest);
        let crc = crc32c(&[&bytes[..28], &bytes[32..]].concat());
        bytes[28..32].copy_from_slice(&crc.to_le_bytes());
        let header = FrameHeader::decode(bytes.first_chunk().expect("it has a header"))?;
        common::read_body(&header, &bytes[32..]).map(|(frame, _)| frame)
    };
    assert_eq!(read(1, 2), Ok(Frame::Hello(hello)));
    let (oldest, newest) = (2, 3);
    assert_eq!(read(2, 3), Err(Error::NoCommonVersion { oldest, newest }));
}

/// The rule that metadata break once `change` was made to them: neither written nor read.
fn broken(change: impl Fn(&mut Metadata)) -> String {
    let mut metadata = common::in_turn(4, 10);
    metadata.luns.push(metadata.luns[0].clone());
    let second = &mut metadata.luns[1];
    (second.ncae, second.noid, second.uuid) = (NcaeIndex(4), Noid(0), Uuid(0x99));
    second.name = Name::new("vol-2").expect("it is a name");
    second.psegs.iter_mut().for_each(|at| at.pseg.0 += 5);
    metadata.disks.iter_mut().for_each(|disk| disk.psegs = 10);
    metadata::encode(&metadata, CELL).expect("it is good so far");
    change(&mut metadata);
    metadata::encode(&metadata, CELL)
        .expect_err("a rule is broken")
        .to_string()
}

#[test]
fn metadata_that_do_not_hang_together_are_not_written() {
    let said = [
        broken(|m| m.disks[3].uuid = m.disks[0].uuid),
        broken(|m| m.disks[3].uuid = Uuid::NIL),
        broken(|m| m.luns[1].noid = Noid(7)),
        broken(|m| m.luns[1].noid = Noid(8)),
        broken(|m| m.luns[1].uuid = m.luns[0].uuid),
        broken(|m| m.luns[1].uuid = Uuid::NIL),
        broken(|m| m.luns[1].name = m.luns[0].name),
        broken(|m| m.luns[1].ncae = NcaeIndex(3)),
        broken(|m| m.luns.swap(0, 1)),
        broken(|m| m.luns[1].ncae = NcaeIndex(1024)),
        broken(|m| m.luns[1].blocks = 0),
        broken(|m| m.luns[1].blocks += 1),
        broken(|m| m.luns[1].redundancy = Redundancy::None),
        broken(|m| m.luns[1].psegs[19].pseg.0 += 1),
        broken(|m| m.luns[1].psegs[19].pseg.0 = u32::MAX),
        broken(|m| m.luns[1].psegs[19].disk.0 = 4),
        broken(|m| m.luns[1].psegs[19] = m.luns[1].psegs[0]),
        broken(|m| m.luns[1].psegs[19] = m.luns[0].psegs[19]),
    ]
    .join("\n");
    expect![[r#"
        the identities of the disks differ (not so at 3)
        every disk has an identity (not so at 0)
        the NOIDs of the LUNs differ (not so at 1)
        a LUN's NOID is below the next to be given (not so at 1)
        the identities of the LUNs differ (not so at 1)
        every LUN has an identity (not so at 1)
        the names of the LUNs differ (not so at 1)
        the LUNs are in the order of their NCAE indices, which differ (not so at 0)
        the LUNs are in the order of their NCAE indices, which differ (not so at 0)
        a LUN's NCAE index is below the size of the NCA (not so at 1)
        a LUN has a block or more (not so at 1)
        a LUN has as many PSEGs as its size and redundancy take (not so at 1)
        a LUN has as many PSEGs as its size and redundancy take (not so at 1)
        the PSEGs of a LUN are on a disk of the cell (not so at 3)
        the PSEGs of a LUN are on a disk of the cell (not so at 3)
        the PSEGs of a LUN are on a disk of the cell (not so at 4)
        no PSEG is used twice (not so at 0)
        no PSEG is used twice (not so at 3)"#]]
    .assert_eq(&said);
}

#[test]
fn metadata_are_bounded() {
    // Three LUNs of 32 TiB in short form: small on disk, too large in memory.
    let mut metadata = common::in_turn(4, 1);
    let bytes = |m: &Metadata| metadata::encode(m, CELL);
    let mut raw = bytes(&metadata).expect("it is good");
    // Its one run: rows at the end of the body, before the row's length and two PSEGs.
    let body_len = u32::from_le_bytes(*raw[40..].first_chunk().expect("a header")) as usize;
    let rows = 64 + body_len - 18;
    assert_eq!(raw[rows..rows + 4], [1, 0, 0, 0]);
    let (huge, blocks) = (1u32 << 30, (1u64 << 30) * PSEG_BLOCKS);
    raw[rows..rows + 4].copy_from_slice(&huge.to_le_bytes());
    let size = 64 + 8 + 4 * 24 + 24;
    assert_eq!(raw[size..size + 8], PSEG_BLOCKS.to_le_bytes());
    raw[size..size + 8].copy_from_slice(&blocks.to_le_bytes());
    let crc = crc32c(&raw[64..64 + body_len]);
    raw[44..48].copy_from_slice(&crc.to_le_bytes());
    reseal(&mut raw[..64]);
    let error = metadata::decode(&raw, CELL).expect_err("it is too large");
    assert!(
        matches!(
            error,
            Error::TooLarge {
                field: "the number of PSEGs of all LUNs",
                ..
            }
        ),
        "{error:?}"
    );

    metadata.disks = common::in_turn(1025, 1).disks;
    let error = bytes(&metadata).expect_err("there are too many disks");
    assert!(
        matches!(
            error,
            Error::TooLarge {
                field: "the number of disks",
                value: 1025,
                ..
            }
        ),
        "{error:?}"
    );
}

/// What follows no pattern takes six bytes for each PSEG, and what does not fit is not written.
#[test]
fn metadata_larger_than_their_area_are_refused() {
    let mut metadata = common::in_turn(2, 300_000);
    let n = metadata.luns[0].psegs.len();
    // A row backwards: no PSEG is followed by the next of its disk.
    metadata.luns[0].psegs.reverse();
    let error = metadata::encode(&metadata, CELL).expect_err("it is too large");
    let Error::TooLarge { value, most, .. } = error else {
        panic!("{error:?}");
    };
    assert_eq!(most, 3 << 20);
    assert!(
        (6 * n as u64..7 * n as u64).contains(&value),
        "{value} bytes for {n} PSEGs"
    );
}

#[test]
fn labels_that_do_not_hang_together_are_not_written() {
    let label = label::Label {
        cell: CELL,
        cell_name: Name::new("demo").expect("it is a name"),
        disk: Uuid(1),
        index: DiskIndex(2),
        disks: 8,
        blocks: 1 << 21,
        quorum: List::from_slice(&[DiskIndex(0), DiskIndex(2), DiskIndex(4)]),
        rss: RssIndex(0),
        rss_offset: 2,
        psegs: 507,
    };
    assert!(label::encode(&label).is_ok() && label.is_quorum());
    let quorum = |disks: &[u16]| label::Label {
        quorum: disks.iter().map(|d| DiskIndex(*d)).collect(),
        ..label.clone()
    };
    let said = [
        label::Label {
            disks: 2,
            ..label.clone()
        },
        quorum(&[0, 1]),
        quorum(&[]),
        quorum(&[0, 1, 8]),
        quorum(&[0, 1, 0]),
        label::Label {
            psegs: 508,
            ..label.clone()
        },
        label::Label {
            disk: Uuid::NIL,
            ..label.clone()
        },
    ]
    .map(|l| label::encode(&l).expect_err("a rule is broken").to_string())
    .join("\n");
    expect![[r#"
        a disk's index is below the number of disks (not so at 2)
        an odd number of disks votes (not so at 2)
        an odd number of disks votes (not so at 2)
        the disks that vote are disks of the cell (not so at 2)
        a disk votes once (not so at 2)
        a disk's PSEGs and their checksums fit on it (not so at 2)
        a cell and a disk have identities (not so at 2)"#]]
    .assert_eq(&said);
}

#[test]
fn nv_memory_of_impossible_size_is_not_made() {
    let header = |buffers, ries| nv::NvHeader {
        cell: CELL,
        controller: Controller::B,
        boot: Uuid(1),
        buffers,
        ries,
    };
    for (buffers, ries) in [(0, 1), (63, 1), (1 << 25, 1), (u32::MAX, 1), (64, 0), (64, 4097)] {
        assert!(
            nv::encode(&header(buffers, ries), Uuid(1)).is_err(),
            "{buffers} buffers, {ries} RIEs"
        );
    }
}

/// A store of a new identity that was cut short leaves no identity, and the rest of the header good.
#[test]
fn half_an_identity_is_none() {
    let header = nv::NvHeader {
        cell: CELL,
        controller: Controller::B,
        boot: Uuid(1),
        buffers: 64,
        ries: 1,
    };
    let (old, new) = (Uuid(u128::MAX), Uuid(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef));
    let store = nv::encode_identity(new);
    let place = nv::IDENTITY_OFFSET..nv::IDENTITY_OFFSET + nv::IDENTITY_BYTES;
    for words in 0..=4 {
        let mut page = nv::encode(&header, old).expect("the pools are within bounds");
        page[place.clone()][..8 * words].copy_from_slice(&store[..8 * words]);
        assert_eq!(nv::decode(&page), Ok(header));
        let identity = nv::decode_identity(page[place.clone()].first_chunk().expect("32 bytes"));
        match words {
            // The first word is the magic, the same in both.
            0 | 1 => assert_eq!(identity, Ok(old)),
            4 => assert_eq!(identity, Ok(new)),
            _ => assert!(matches!(identity, Err(Error::Checksum { .. })), "{identity:?}"),
        }
    }
    assert!(matches!(nv::decode_identity(&[0; 32]), Err(Error::Blank { .. })));
}
