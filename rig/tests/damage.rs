//! A bit of NV memory flips while a controller runs. What it has is not given to a host nor to a disk: the partner has the
//! same, and takes over.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::Path;
use twincell_client::Url;
use twincell_client::multipath::{Timing, Volume};
use twincell_rig::cell::{Cell, Shape};

/// Data may be on disk before the bit flips: then nothing is damaged.
const TRIES: u64 = 50;
const BLOCKS: u32 = 8;

/// Flips a bit in every copy of `data` in a file. Returns how many there were.
fn flip(file: &Path, data: &[u8]) -> usize {
    let memory = std::fs::read(file).unwrap();
    let file = OpenOptions::new().write(true).open(file).unwrap();
    let copies = memory.chunks_exact(data.len()).enumerate().filter(|(_, c)| *c == data);
    let places = copies.map(|(n, _)| (n * data.len()) as u64).collect::<Vec<_>>();
    for place in &places {
        file.write_all_at(&[data[0] ^ 1], *place).unwrap();
    }
    places.len()
}

/// Something was damaged, and the controller that had it has said so.
fn says_why(cell: &Cell, owner: &str, flipped: usize) {
    assert!(flipped > 0, "nothing was in NV memory when it was damaged");
    let log = std::fs::read_to_string(cell.dir().join(owner).join("log")).unwrap();
    assert!(
        log.contains("NV memory is damaged"),
        "the log of {owner} does not say why:\n{log}"
    );
}

#[test]
fn a_flipped_bit_reaches_nobody() {
    let cell = Cell::start(Shape {
        disks: 3,
        disk_size: "64M",
        cache: "4M",
    });
    let lun = cell.lun("data", "32M", "vraid1");
    let owner = cell.owner("data");
    let other = if owner == "A" { "B" } else { "A" };
    let pid = cell.pid(&owner);
    let urls: Vec<Url> = [&owner[..], other]
        .iter()
        .map(|c| cell.iscsi_url(&lun, c).parse().unwrap())
        .collect();
    let mut volume = Volume::new(&urls, Timing::default());
    let mut flipped = 0;
    for n in 0..TRIES {
        let data: Vec<u8> = (0..BLOCKS as usize * 512)
            .map(|i| (i as u64 * 7 + n * 13) as u8)
            .collect();
        volume
            .write(n * 8, data.clone().into(), false)
            .expect("a write on any path");
        flipped += flip(&cell.nv_memory(&owner), &data);
        let read = volume.read(n * 8, BLOCKS).expect("a read on any path");
        assert!(read.data == data, "block {} is not what was written", n * 8);
        if cell.pid(&owner) != pid {
            break;
        }
    }
    says_why(&cell, &owner, flipped);
    cell.bring_back();
    let read = volume.read(0, BLOCKS).expect("a read on any path");
    assert_eq!(read.data[..16], (0..16).map(|i| (i * 7) as u8).collect::<Vec<u8>>()[..]);
}

/// The partner asks for what is damaged on behalf of its host, and large data leave at once: the host gets what the partner
/// has itself, not what is damaged.
#[test]
fn a_flipped_bit_does_not_reach_a_host_of_the_partner() {
    const BLOCKS: u32 = 128;
    let cell = Cell::start(Shape {
        disks: 3,
        disk_size: "64M",
        cache: "16M",
    });
    let lun = cell.lun("data", "32M", "vraid1");
    let owner = cell.owner("data");
    let other = if owner == "A" { "B" } else { "A" };
    let pid = cell.pid(&owner);
    let volume = |c: &str| Volume::new(&[cell.iscsi_url(&lun, c).parse().unwrap()], Timing::default());
    let (mut writer, mut reader) = (volume(&owner), volume(other));
    let mut flipped = 0;
    for n in 0..TRIES {
        let data: Vec<u8> = (0..BLOCKS as usize * 512)
            .map(|i| (i as u64 * 7 + i as u64 / 512 * 31 + n * 13) as u8)
            .collect();
        let start = n * u64::from(BLOCKS);
        if writer.write(start, data.clone().into(), false).is_err() {
            break;
        }
        flipped += flip(&cell.nv_memory(&owner), &data[..4096]);
        let read = reader.read(start, BLOCKS).expect("a read on the other path");
        assert!(read.data == data, "block {start} is not what was written");
        if cell.pid(&owner) != pid {
            break;
        }
    }
    says_why(&cell, &owner, flipped);
}

/// What was written as one is checked as one, also where less of it is asked for.
#[test]
fn a_flipped_bit_does_not_reach_a_host_that_reads_less() {
    let cell = Cell::start(Shape {
        disks: 3,
        disk_size: "64M",
        cache: "4M",
    });
    let lun = cell.lun("data", "32M", "vraid1");
    let owner = cell.owner("data");
    let other = if owner == "A" { "B" } else { "A" };
    let pid = cell.pid(&owner);
    let urls: Vec<Url> = [&owner[..], other]
        .iter()
        .map(|c| cell.iscsi_url(&lun, c).parse().unwrap())
        .collect();
    let mut volume = Volume::new(&urls, Timing::default());
    let mut flipped = 0;
    for n in 0..TRIES {
        let data: Vec<u8> = (0..BLOCKS as usize * 512)
            .map(|i| (i as u64 * 11 + n * 13) as u8)
            .collect();
        volume
            .write(n * 8, data.clone().into(), false)
            .expect("a write on any path");
        flipped += flip(&cell.nv_memory(&owner), &data);
        let read = volume.read(n * 8, 1).expect("a read on any path");
        assert!(read.data == data[..512], "block {} is not what was written", n * 8);
        if cell.pid(&owner) != pid {
            break;
        }
    }
    assert!(flipped > 0, "nothing was in NV memory when it was damaged");
}
