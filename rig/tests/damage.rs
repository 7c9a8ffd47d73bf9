//! A bit of NV memory flips while a controller runs. What it has is not given to a host nor to a disk: the partner has the
//! same, and takes over.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use twincell_client::Url;
use twincell_client::multipath::{Timing, Volume};
use twincell_rig::cell::{Cell, Shape};
use twincell_rig::paths::TwoPaths;
use twincell_rig::proxy::Proxy;
use twincell_rig::wait_for;

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

/// Flips a bit in the last block of every copy of `data`, wherever a block begins.
fn flip_within(file: &Path, data: &[u8]) {
    let memory = std::fs::read(file).unwrap();
    let file = OpenOptions::new().write(true).open(file).unwrap();
    let places = (0..memory.len())
        .step_by(512)
        .filter(|p| memory[*p..].starts_with(data));
    for place in places {
        let last = place + data.len() - 1;
        file.write_all_at(&[memory[last] ^ 1], last as u64).unwrap();
    }
}

/// Does something while a host writes all the time, to the end of the LUN: the owner is never idle, and nothing is on its way to a
/// disk. A bit that flips in what is just being written there is found by nobody, for there are no checksums on disk.
fn while_writing<T>(mut volume: Volume, what: impl FnOnce() -> T) -> T {
    struct Ends<'a>(&'a AtomicBool);
    impl Drop for Ends<'_> {
        fn drop(&mut self) {
            self.0.store(true, Relaxed);
        }
    }
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Relaxed) {
                volume
                    .write(60_000, vec![1; 512].into(), false)
                    .expect("a write on any path");
            }
        });
        let _ends = Ends(&is_over);
        what()
    })
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
    let both = [&owner[..], other].map(|c| cell.iscsi_url(&lun, c).parse().unwrap());
    let busy = Volume::new(&both, Timing::default());
    let flipped = while_writing(busy, || {
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
        flipped
    });
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

/// A bit flips in what waits to be mirrored: between the time at which it was sealed and the time at which it is sent. The
/// mirror would take it for what the host has written, and would be all that is left when the owner finds the damage.
#[test]
fn a_flipped_bit_is_not_mirrored() {
    let mut link = TwoPaths::start();
    link.rest();
    let cell = &link.cell;
    let lun = cell.lun("damaged", "32M", "vraid1");
    let owner = cell.owner("damaged");
    let other = if owner == "A" { "B" } else { "A" };
    let urls = [&owner[..], other].map(|c| cell.iscsi_url(&lun, c).parse().unwrap());
    let block = |n: u64, of: u8| {
        let bytes = (0..512).map(move |i: u64| (i * 7 + n * 31) as u8 ^ of);
        bytes.collect::<Vec<u8>>()
    };
    let blocks = |range: std::ops::Range<u64>, of: u8| range.flat_map(|n| block(n, of)).collect::<Vec<u8>>();
    let (old, new) = (blocks(0..256, 1), blocks(3..203, 2));
    // The first granule has old data and new ones.
    let granule = [&old[..3 * 512], &new[..5 * 512]].concat();
    let mut writer = Volume::new(&urls, Timing::default());
    writer.write(0, old.clone().into(), false).expect("the old data");
    for proxy in &link.proxies {
        proxy.delay(Duration::from_millis(300));
    }
    let memory = cell.nv_memory(&owner);
    let written = std::thread::scope(|scope| {
        let write = scope.spawn(|| writer.write(3, new.clone().into(), false));
        wait_for("the new data in NV memory", Duration::from_secs(10), || {
            let bytes = std::fs::read(&memory).map_err(|e| e.to_string())?;
            let has = |data: &[u8], unit: usize| bytes.chunks_exact(unit).any(|c| c == data);
            let complete = has(&granule[3 * 512..], 512 * 5) || has(&granule, 4096);
            let last = has(&new[199 * 512..], 512);
            (complete && last).then_some(()).ok_or("they are not there".to_owned())
        });
        flip_within(&memory, &granule[3 * 512..]);
        write.join().unwrap()
    });
    link.proxies.iter().for_each(Proxy::heal);
    println!("the write: {:?}", written.is_ok());
    let read = writer.read(0, 8).expect("a read on any path");
    let is_old = written.is_err() && read.data == old[..4096];
    assert!(is_old || read.data == granule, "what is damaged was mirrored");
    says_why(&link.cell, &owner, 1);
}
