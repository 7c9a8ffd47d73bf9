//! Captures of the link: what was reordered, repeated, lost or cut on its way into the file.

mod common;

use proptest::prelude::*;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use twincell_core::ids::{Incarnation, Time};
use twincell_core::link::frame::Frame;
use twincell_wire::capture::{Direction, What, is_capture, read_capture, read_plain};
use twincell_wire::frame;

fn heartbeat(sent: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    let frame = Frame::Heartbeat {
        incarnation: Incarnation(1),
        sent: Time(sent),
    };
    frame::encode(&frame, &[], 0, 0, &mut bytes);
    bytes
}

/// The heartbeats in a direction, and what else.
fn told(direction: &Direction) -> Vec<String> {
    let one = |what: &What| match what {
        What::Frame {
            frame: Frame::Heartbeat { sent, .. },
            ..
        } => sent.0.to_string(),
        What::Bad(_) => "bad".to_owned(),
        What::Garbage(_) => "garbage".to_owned(),
        other => format!("{other:?}"),
    };
    let found = direction.found.iter();
    found.map(|f| format!("{}@{}", one(&f.what), f.bytes.start)).collect()
}

/// A kind of network: its number in the file, and what stands before an Internet packet.
type Network = (u32, &'static [u8]);

const ETHERNET: Network = (1, &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x08, 0x00]);
const ETHERNET_VLAN: Network = (1, &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x81, 0, 0, 9, 0x86, 0xdd]);
const COOKED: Network = (113, &[0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x08, 0x00]);
const COOKED_2: Network = (276, &[0x08, 0x00, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
const RAW: Network = (101, &[]);

/// A file with packets between two addresses.
struct File {
    bytes: Vec<u8>,
    network: Network,
    ends: [SocketAddr; 2],
    millis: u32,
}

impl File {
    fn new(network: Network, ends: [&str; 2]) -> File {
        let numbers = [0xa1b2_c3d4, 0x0004_0002, 0, 0, 1 << 18, network.0];
        File {
            bytes: numbers.iter().flat_map(|n: &u32| n.to_le_bytes()).collect(),
            network,
            ends: ends.map(|e| e.parse().expect("an address")),
            millis: 1000,
        }
    }

    fn v4() -> File {
        File::new(ETHERNET, ["127.0.0.1:40000", "127.0.0.1:7000"])
    }

    /// A segment, a millisecond after the one before.
    fn segment(&mut self, from: usize, sequence: u32, syn: bool, data: &[u8]) -> &mut File {
        let (from, to) = (self.ends[from], self.ends[1 - from]);
        let mut tcp = [from.port().to_be_bytes(), to.port().to_be_bytes()].concat();
        tcp.extend(sequence.to_be_bytes());
        tcp.extend([0, 0, 0, 0, 6 << 4, if syn { 2 } else { 16 }, 0, 0, 0, 0, 0, 0]);
        // An option that is not looked at.
        tcp.extend([1; 4]);
        tcp.extend(data);
        let mut packet = self.network.1.to_vec();
        match (from.ip(), to.ip()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                packet.extend([0x45, 0]);
                packet.extend((20 + tcp.len() as u16).to_be_bytes());
                packet.extend([0, 0, 0x40, 0, 64, 6, 0, 0]);
                packet.extend(from.octets());
                packet.extend(to.octets());
                packet.extend(tcp);
                // Short frames of an Ethernet are filled up.
                packet.extend([0xee; 6]);
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                packet.extend([0x60, 0, 0, 0]);
                packet.extend((tcp.len() as u16).to_be_bytes());
                packet.extend([6, 64]);
                packet.extend(from.octets());
                packet.extend(to.octets());
                packet.extend(tcp);
            }
            _ => panic!("both ends are of one kind"),
        }
        self.millis += 1;
        let length = packet.len() as u32;
        for n in [self.millis / 1000, self.millis % 1000 * 1000, length, length] {
            self.bytes.extend(n.to_le_bytes());
        }
        self.bytes.extend(packet);
        self
    }

    fn read(&self) -> Vec<Direction> {
        read_capture(&self.bytes).expect("it is a capture")
    }
}

#[test]
fn every_kind_of_network_that_is_known() {
    let v4 = ["10.0.0.1:40000", "10.0.0.2:7000"];
    let v6 = ["[fd00::1]:40000", "[fd00::2]:7000"];
    for (network, ends) in [
        (ETHERNET, v4),
        (ETHERNET_VLAN, v6),
        (COOKED, v4),
        (COOKED_2, v4),
        (RAW, v6),
        ((0, &[2, 0, 0, 0][..]), v4),
    ] {
        let mut file = File::new(network, ends);
        file.segment(0, 99, true, b"").segment(1, 499, true, b"");
        file.segment(0, 100, false, &heartbeat(1));
        file.segment(1, 500, false, &heartbeat(2));
        assert!(is_capture(&file.bytes));
        let read = file.read();
        assert_eq!(
            read.iter().map(told).collect::<Vec<_>>(),
            [["1@0"], ["2@0"]],
            "{network:?}"
        );
        assert_eq!(read[0].ends, Some((file.ends[0], file.ends[1])));
        assert_eq!(read[1].found[0].time, Duration::from_millis(3));
    }
    let mut other = File::new((147, &[]), v4);
    let bad = read_capture(&other.segment(0, 1, false, b"x").bytes).expect_err("who knows");
    assert_eq!(bad.offset, 24);
}

#[test]
fn segments_come_in_any_order_and_more_than_once() {
    let mut file = File::v4();
    let bytes: Vec<u8> = (1..=4).flat_map(heartbeat).collect();
    // Sequence numbers wrap.
    let first = u32::MAX - 50;
    file.segment(0, first.wrapping_sub(1), true, b"");
    for range in [0..30, 100..160, 20..50, 50..100, 0..30] {
        file.segment(0, first.wrapping_add(range.start as u32), false, &bytes[range]);
    }
    let read = file.read();
    assert_eq!(told(&read[0]), ["1@0", "2@40", "3@80", "4@120"]);
    assert_eq!(read[0].found[0].time, Duration::from_millis(3));
    assert_eq!(read[0].found[3].time, Duration::from_millis(2), "it had come early");
}

#[test]
fn what_is_not_in_the_capture_is_told() {
    let bytes: Vec<u8> = (1..=5).flat_map(heartbeat).collect();
    let mut file = File::v4();
    // It begins in the middle of a frame, loses 50 bytes, in a frame and up to the middle of the next but one.
    file.segment(0, 10, false, &bytes[10..90]);
    file.segment(0, 140, false, &bytes[140..200]);
    let read = file.read();
    let expected = ["Skipped@0", "2@30", "Unfinished@70", "Lost@80", "Skipped@130", "5@150"];
    assert_eq!(told(&read[0]), expected);
    let ends = read[0].found.iter().map(|f| f.bytes.end).collect::<Vec<_>>();
    assert_eq!(ends, [30, 70, 80, 130, 150, 190], "no byte is left out");
}

#[test]
fn a_connection_after_another_between_the_same_ends() {
    let mut file = File::v4();
    for sent in [1, 2] {
        file.segment(0, 1000 * sent - 1, true, b"");
        file.segment(0, 1000 * sent - 1, true, b"");
        file.segment(0, 1000 * sent, false, &heartbeat(sent.into()));
    }
    assert_eq!(file.read().iter().map(told).collect::<Vec<_>>(), [["1@0"], ["2@0"]]);
}

#[test]
fn other_connections_are_left_out() {
    let mut file = File::v4();
    file.segment(0, 0, true, b"");
    file.segment(0, 1, false, b"GET / HTTP/1.1\r\n\r\n");
    assert_eq!(file.read(), []);
}

#[test]
fn a_bad_frame_is_told_and_the_next_is_read() {
    let mut bytes = [heartbeat(1), heartbeat(2), heartbeat(3)].concat();
    bytes[40 + 35] ^= 1;
    assert_eq!(told(&read_plain(&bytes)), ["1@0", "bad@40", "3@80"]);
    bytes[40 + 10] ^= 1;
    assert_eq!(told(&read_plain(&bytes)), ["1@0", "garbage@40"]);
    assert_eq!(told(&read_plain(&bytes[..20])), ["Unfinished@0"]);
    assert_eq!(told(&read_plain(b"tcL")), ["Unfinished@0"]);
    assert_eq!(told(&read_plain(b"tcM")), ["garbage@0"]);
}

#[test]
fn a_file_that_ends_early_is_refused_with_the_place() {
    let mut file = File::v4();
    file.segment(0, 1, false, &heartbeat(1));
    for length in 0..file.bytes.len() {
        match read_capture(&file.bytes[..length]) {
            Ok(read) => assert_eq!((length, read), (24, Vec::new())),
            Err(bad) => assert!(bad.offset <= length, "{bad} of {length}"),
        }
    }
}

proptest! {
    #[test]
    fn noise_in_a_capture(
        mut bytes in prop::collection::vec(any::<u8>(), 0..600),
        network in prop::sample::select(vec![0u32, 1, 101, 113, 276]),
    ) {
        let header = [0xa1b2_c3d4, 0x0004_0002, 0, 0, 1 << 18, network];
        let mut file: Vec<u8> = header.iter().flat_map(|n: &u32| n.to_le_bytes()).collect();
        // So that packets are short enough to be in it.
        bytes.chunks_exact_mut(60).for_each(|packet| packet[8..12].copy_from_slice(&[44, 0, 0, 0]));
        file.extend(&bytes);
        match read_capture(&file) {
            Ok(directions) => prop_assert!(directions.iter().all(|d| !d.found.is_empty())),
            Err(bad) => prop_assert!(bad.offset <= file.len()),
        }
        let plain = read_plain(&bytes);
        prop_assert_eq!(plain.found.last().map_or(0, |f| f.bytes.end), bytes.len() as u64);
    }

    #[test]
    fn every_frame_is_read_back((frame, mfcs) in common::frame()) {
        let mut bytes = Vec::new();
        frame::encode(&frame, &mfcs, 0, 0, &mut bytes);
        let direction = read_plain(&bytes.repeat(2));
        let expected = What::Frame { frame, mfcs, payload_blocks: 0 };
        prop_assert!(direction.found.len() == 2 && direction.found.iter().all(|f| f.what == expected));
    }
}
