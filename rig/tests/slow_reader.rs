//! A host that asks for much and reads nothing: it costs its controller no memory to speak of, and gets everything in the end.

use std::fs;
use std::time::{Duration, Instant};
use twincell_client::iscsi::scsi;
use twincell_client::iscsi::{Command, Connection, SessionKind, Transfer};
use twincell_rig::cell::{Cell, SETTLE, Shape, own_memory};
use twincell_rig::wait_for;

/// The longest read, in blocks and bytes; and as many as one session may have in progress.
const BLOCKS: u32 = 16_384;
const BYTES: usize = BLOCKS as usize * 512;
const READS: u64 = 128;
/// What the controller may need for them, when it would be a GiB if it kept all.
const GROWTH_MAX: u64 = 64 << 20;
/// Where the reads begin: at so many different places.
const PLACES: u64 = 4;
/// After so many looks at which nothing has moved, nothing will.
const STILL: u32 = 40;
/// How long a command may take where all of them have to be read.
const PATIENCE: Duration = Duration::from_secs(180);

/// Bytes that this port has sent, and that were not taken, on connections that are open (proc_net_tcp(5)).
fn sent_in_vain(port: u16) -> u64 {
    let table = fs::read_to_string("/proc/net/tcp").unwrap();
    let of_port = format!(":{port:04X}");
    let queue = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let is_it = fields[1].ends_with(&of_port) && fields[3] == "01";
        let (sent, _) = fields[4].split_once(':').unwrap();
        is_it.then(|| u64::from_str_radix(sent, 16).unwrap())
    };
    table.lines().skip(1).filter_map(queue).sum()
}

/// The data of a block on this LUN.
fn block(number: u64) -> [u8; 512] {
    let mut block = [number as u8; 512];
    block[..8].copy_from_slice(&number.to_be_bytes());
    block
}

fn data(place: u64) -> Vec<u8> {
    let first = place * u64::from(BLOCKS);
    (first..first + u64::from(BLOCKS)).flat_map(block).collect()
}

#[test]
fn who_reads_nothing_costs_no_memory() {
    let cell = Cell::start(Shape::default());
    let lun = cell.lun("data", "32M", "vraid1");
    let portal = cell.portal("A", "iscsi_portals");
    let target = lun["iqn"].as_str().unwrap();
    let number = lun["lun"].as_u64().unwrap() as u16;
    let mut host = Connection::login(&portal, SessionKind::Normal { target }, PATIENCE).unwrap();
    host.test_unit_ready(number).unwrap();
    let capacity = host.read_capacity(number).unwrap();
    assert_eq!(capacity.blocks, PLACES * u64::from(BLOCKS));
    for place in 0..PLACES {
        let cdb = scsi::write(place * u64::from(BLOCKS), BLOCKS, false);
        host.execute(number, cdb, Transfer::Out(data(place).into())).unwrap();
    }
    let pid = cell.pid("A").unwrap();
    let port = portal.rsplit_once(':').unwrap().1.parse().unwrap();
    let before = own_memory(pid);
    let read = |n: u64| Command {
        lun: number,
        cdb: scsi::read(n % PLACES * u64::from(BLOCKS), BLOCKS),
        transfer: Transfer::In(BYTES as u32),
    };
    let tags: Vec<u64> = (0..READS).map(|n| host.submit(read(n)).unwrap()).collect();
    let (mut seen, mut still) = ((0, 0), 0);
    wait_for("a controller that can send no more", SETTLE, || {
        let now = (own_memory(pid), sent_in_vain(port));
        still = if now == seen && now.1 > 0 { still + 1 } else { 0 };
        seen = now;
        (still >= STILL).then_some(()).ok_or(format!("{now:?}"))
    });
    let grown = seen.0.saturating_sub(before);
    println!("{} KiB more, {} KiB with the kernel", grown >> 10, seen.1 >> 10);
    assert!(
        grown < GROWTH_MAX,
        "{grown} bytes are kept for a host that reads nothing"
    );

    // Others do not wait for it.
    let mut other = Connection::login(&portal, SessionKind::Normal { target }, PATIENCE).unwrap();
    other.test_unit_ready(number).unwrap();
    let one = other.execute(number, scsi::read(7, 1), Transfer::In(512)).unwrap();
    assert!(one == block(7));
    other.logout().unwrap();

    let expected: Vec<Vec<u8>> = (0..PLACES).map(data).collect();
    for n in 0..READS {
        let answer = host.wait(Instant::now() + PATIENCE).unwrap().expect("an answer");
        let of = tags
            .iter()
            .position(|tag| *tag == answer.tag)
            .expect("it was asked for") as u64;
        let read = answer.result.unwrap();
        assert!(read == expected[(of % PLACES) as usize], "read {of} has other data");
        assert_eq!(answer.residual, 0, "of answer {n}");
    }
    let grown = own_memory(pid).saturating_sub(before);
    println!("{} KiB more when all is read", grown >> 10);
    assert!(grown < GROWTH_MAX, "{grown} bytes are still kept");
    host.logout().unwrap();
}
