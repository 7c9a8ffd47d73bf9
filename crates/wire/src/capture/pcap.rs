//! The classic file format of tcpdump and libpcap (pcap-savefile(5)), and the headers in front of TCP's data in it.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

/// Bytes of the header of the file, and of each packet in it.
const FILE_HEADER: usize = 24;
const PACKET_HEADER: usize = 16;
/// The magic number with times in microseconds, and in nanoseconds.
const MICROS: u32 = 0xa1b2_c3d4;
const NANOS: u32 = 0xa1b2_3c4d;
/// The first block of the newer format.
const PCAPNG: u32 = 0x0a0d_0d0a;

/// The protocol number of TCP, and the flag of a segment that begins a connection (RFC 9293).
const TCP: u8 = 6;
const SYN: u8 = 2;
/// EtherTypes.
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const VLAN: [u16; 2] = [0x8100, 0x88a8];

/// What of a file is no capture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bad {
    /// The byte of the file at which that was found.
    pub offset: usize,
    /// What is wrong there.
    pub why: &'static str,
}

impl fmt::Display for Bad {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "byte {}: {}", self.offset, self.why)
    }
}

/// A segment of a TCP connection.
pub(super) struct Segment<'a> {
    pub from: SocketAddr,
    pub to: SocketAddr,
    /// The number of its first byte.
    pub sequence: u32,
    /// It begins the connection.
    pub begins: bool,
    pub data: &'a [u8],
    /// Since the first packet of the capture.
    pub time: Duration,
}

/// Whether a file is a capture that tcpdump or a relative of it has written.
pub fn is_capture(file: &[u8]) -> bool {
    file.first_chunk()
        .is_some_and(|magic| order(*magic).is_some() || u32::from_le_bytes(*magic) == PCAPNG)
}

/// How a file writes its numbers.
type Order = fn([u8; 4]) -> u32;

/// That of a file, and how many nanoseconds a unit of the smaller part of its times has.
fn order(magic: [u8; 4]) -> Option<(Order, u32)> {
    let orders: [Order; 2] = [u32::from_le_bytes, u32::from_be_bytes];
    orders.into_iter().find_map(|order| match order(magic) {
        MICROS => Some((order, 1000)),
        NANOS => Some((order, 1)),
        _ => None,
    })
}

/// Calls `with` for each TCP segment of a file.
pub(super) fn for_each_segment<'a>(file: &'a [u8], mut with: impl FnMut(Segment<'a>)) -> Result<(), Bad> {
    let bad = |offset, why| Bad { offset, why };
    let magic = *file.first_chunk().ok_or(bad(0, "the file is empty, or nearly so"))?;
    if u32::from_le_bytes(magic) == PCAPNG {
        return Err(bad(
            0,
            "this is pcapng; `tcpdump -r FILE -w NEW` makes a classic capture of it",
        ));
    }
    let (order, unit) = order(magic).ok_or(bad(0, "this is no capture: the magic is wrong"))?;
    let number = |at: usize| Some(order(*file.get(at..)?.first_chunk()?));
    let kind = number(20).ok_or(bad(file.len(), "the header of the file ends too early"))? & 0x0fff_ffff;
    let (mut at, mut first) = (FILE_HEADER, None);
    while at < file.len() {
        let field = |n: usize| number(at + 4 * n).ok_or(bad(at, "a packet's header ends too early"));
        let (seconds, fraction, length) = (field(0)?, field(1)?, field(2)? as usize);
        field(3)?;
        let packet = file.get(at + PACKET_HEADER..).and_then(|rest| rest.get(..length));
        let packet = packet.ok_or(bad(at, "a packet is longer than what is left of the file"))?;
        let stamp = Duration::from_secs(seconds.into()) + Duration::from_nanos(u64::from(fraction) * u64::from(unit));
        let time = stamp.saturating_sub(*first.get_or_insert(stamp));
        let internet = internet(kind, packet).ok_or(bad(at, "packets of this kind of network are not known here"))?;
        if let Some(segment) = internet.and_then(|bytes| segment(bytes, time)) {
            with(segment);
        }
        at += PACKET_HEADER + length;
    }
    Ok(())
}

/// The Internet packet in what was captured on a network of this kind: `Some(None)` where there is none in it, `None` where
/// the kind is not known.
fn internet(kind: u32, packet: &[u8]) -> Option<Option<&[u8]>> {
    let behind = |type_at: usize, header: usize| {
        let kind = u16_at(packet, type_at)?;
        if VLAN.contains(&kind) {
            let inner = u16_at(packet, header + 2)?;
            return packet.get(header + 4..).filter(|_| inner == IPV4 || inner == IPV6);
        }
        packet.get(header..).filter(|_| kind == IPV4 || kind == IPV6)
    };
    // From the list of link-layer header types of tcpdump.
    Some(match kind {
        0 => packet.get(4..),
        1 => behind(12, 14),
        101 => Some(packet),
        113 => behind(14, 16),
        276 => behind(0, 20),
        _ => return None,
    })
}

/// The TCP segment in an Internet packet, if there is one. What is in pieces is left out.
fn segment(packet: &[u8], time: Duration) -> Option<Segment<'_>> {
    let (from, to, tcp) = match packet.first()? >> 4 {
        4 => {
            let header = usize::from(packet[0] & 15) * 4;
            let whole = packet.get(..usize::from(u16_at(packet, 2)?)).unwrap_or(packet);
            let pieces = u16_at(packet, 6)? & 0x3fff;
            if *packet.get(9)? != TCP || pieces != 0 || header < 20 {
                return None;
            }
            let address = |at: usize| Some(IpAddr::from(Ipv4Addr::from(*packet.get(at..)?.first_chunk::<4>()?)));
            (address(12)?, address(16)?, whole.get(header..)?)
        }
        6 => {
            let length = usize::from(u16_at(packet, 4)?);
            if *packet.get(6)? != TCP {
                return None;
            }
            let address = |at: usize| Some(IpAddr::from(Ipv6Addr::from(*packet.get(at..)?.first_chunk::<16>()?)));
            let rest = packet.get(40..)?;
            // A packet that the sender's card is to cut has no length.
            let data = if length == 0 {
                rest
            } else {
                rest.get(..length).unwrap_or(rest)
            };
            (address(8)?, address(24)?, data)
        }
        _ => return None,
    };
    let header = usize::from(tcp.get(12)? >> 4) * 4;
    Some(Segment {
        from: SocketAddr::new(from, u16_at(tcp, 0)?),
        to: SocketAddr::new(to, u16_at(tcp, 2)?),
        sequence: u32::from_be_bytes(*tcp.get(4..)?.first_chunk()?),
        begins: tcp.get(13)? & SYN != 0,
        data: tcp.get(header.max(20)..)?,
        time,
    })
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}
