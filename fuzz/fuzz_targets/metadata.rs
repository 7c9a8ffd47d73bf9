//! A metadata area.
#![no_main]

use libfuzzer_sys::fuzz_target;
use twincell_core::ids::{DiskIndex, NcaeIndex, Noid, PsegIndex, RssIndex, Uuid};
use twincell_core::layout::metadata::{Disk, DiskState, Lun, Metadata, Name, PsegAddress, Redundancy};
use twincell_wire::crc32c;
use twincell_wire::metadata::{decode, encode};

const CELL: Uuid = Uuid(1);
const HEADER_BYTES: usize = 64;

/// Two disks, and two LUNs on them.
fn metadata() -> Metadata {
    let disk = |n: u8| Disk {
        uuid: Uuid(n.into()),
        psegs: 100,
        rss: RssIndex(0),
        rss_offset: n,
        state: DiskState::Normal,
    };
    let at = |disk, pseg| PsegAddress {
        disk: DiskIndex(disk),
        pseg: PsegIndex(pseg),
    };
    let lun = |n: u32, name, rstores: u64, redundancy, psegs| Lun {
        noid: Noid(n),
        ncae: NcaeIndex(n as u16),
        name: Name::new(name).expect("it is a name"),
        uuid: Uuid(n.into()),
        blocks: rstores * 4096,
        redundancy,
        psegs,
    };
    let mirrored = (0..8u16).map(|n| at(n % 2, u32::from(n / 2))).collect();
    let single = vec![at(0, 9), at(1, 7), at(0, 10), at(1, 8), at(1, 20)];
    Metadata {
        generation: 1,
        next_noid: Noid(3),
        disks: vec![disk(1), disk(2)],
        luns: vec![
            lun(1, "a", 4, Redundancy::Vraid1, mirrored),
            lun(2, "b", 5, Redundancy::None, single),
        ],
    }
}

/// The area with its checksums put right, and its length made that of what is there.
fn seal(mut area: Vec<u8>) -> Vec<u8> {
    let (head, body) = area.split_at_mut(HEADER_BYTES);
    head[40..44].copy_from_slice(&(body.len() as u32).to_le_bytes());
    head[44..48].copy_from_slice(&crc32c(body).to_le_bytes());
    let crc = crc32c(&head[..60]);
    head[60..].copy_from_slice(&crc.to_le_bytes());
    area.resize(area.len().next_multiple_of(4096), 0);
    area
}

fuzz_target!(|bytes: &[u8]| {
    let mut area = encode(&metadata(), CELL).expect("it is good metadata");
    let body_len = u32::from_le_bytes(*area[40..].first_chunk().expect("a header")) as usize;
    area.truncate(HEADER_BYTES + body_len);
    area.resize(area.len().max(bytes.len()), 0);
    area.iter_mut().zip(bytes).for_each(|(to, from)| *to ^= from);
    let Ok(metadata) = decode(&seal(area), CELL) else {
        return;
    };
    // Runs can be cut in more ways than one, so the bytes may differ; what they mean may not.
    let again = encode(&metadata, CELL).expect("what was read can be written");
    assert!(decode(&again, CELL).is_ok_and(|read| read == metadata));
});
