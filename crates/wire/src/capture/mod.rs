//! Captures of the link: the frames in the bytes that somebody has recorded, as they came or as tcpdump writes them.
//! Nothing of them is believed before its checksum was found good, and nothing of them makes this panic.

mod pcap;
mod tcp;

use crate::error::Error;
use crate::frame::{FrameHeader, HEADER_BYTES, decode_body, decode_mfcs};
use std::net::SocketAddr;
use std::ops::Range;
use std::time::Duration;
use twincell_core::link::frame::{Frame, Mfcs};

pub use pcap::{Bad, is_capture};

/// What every frame begins with.
const MAGIC: &[u8] = b"tcLF";

/// One direction of one connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Direction {
    /// Who has sent it, and to whom; `None` where the capture does not say.
    pub ends: Option<(SocketAddr, SocketAddr)>,
    /// What was found in it, in order.
    pub found: Vec<Found>,
}

/// Something in a direction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The bytes that it takes, counted from the first one that was sent in this direction, or that was captured.
    pub bytes: Range<u64>,
    /// When its last byte was captured, since the beginning of the capture; zero where the capture does not say.
    pub time: Duration,
    /// What it is.
    pub what: What,
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::large_enum_variant, reason = "nearly all of them are frames")]
pub enum What {
    /// A frame.
    Frame {
        /// It.
        frame: Frame,
        /// Its messages.
        mfcs: Mfcs,
        /// Blocks of its payload.
        payload_blocks: u32,
    },
    /// A frame whose header is sound, and that would be dropped or refused for this.
    Bad(Error),
    /// Here a frame should begin, and this is none: what follows is not looked at.
    Garbage(Error),
    /// Bytes before the first frame that is whole: the capture began later than the connection, or has lost something.
    Skipped,
    /// The capture has lost these bytes.
    Lost,
    /// A frame that the capture ends in.
    Unfinished,
}

/// The frames in the plain bytes of one direction.
pub fn read_plain(bytes: &[u8]) -> Direction {
    let mut found = Vec::new();
    let at = |_| Duration::ZERO;
    read_frames(bytes, 0, &at, &mut found);
    Direction { ends: None, found }
}

/// The frames in a file that tcpdump has written: of each TCP connection in it that has any.
pub fn read_capture(file: &[u8]) -> Result<Vec<Direction>, Bad> {
    let mut directions = tcp::Directions::default();
    pcap::for_each_segment(file, |segment| directions.add(segment))?;
    let read = directions.into_iter().map(|d| d.read());
    Ok(read.filter(has_frames).collect())
}

fn has_frames(direction: &Direction) -> bool {
    let of_a_frame = |f: &Found| matches!(f.what, What::Frame { .. } | What::Bad(_));
    direction.found.iter().any(of_a_frame)
}

/// Appends the frames of `bytes`, of which the first is byte `start` of its direction. `time` tells when the byte with an
/// index was captured.
fn read_frames(bytes: &[u8], start: u64, time: &dyn Fn(usize) -> Duration, found: &mut Vec<Found>) {
    let mut at = 0;
    while at < bytes.len() {
        let (length, what) = next(&bytes[at..]);
        let end = at + length;
        found.push(Found {
            bytes: start + at as u64..start + end as u64,
            time: time(end - 1),
            what,
        });
        at = end;
    }
}

/// What `rest`, which is not empty, begins with, and how many bytes that takes.
fn next(rest: &[u8]) -> (usize, What) {
    let begins = &rest[..rest.len().min(MAGIC.len())];
    let Some(head) = rest.first_chunk::<HEADER_BYTES>().filter(|_| MAGIC.starts_with(begins)) else {
        let what = "link frame";
        return match MAGIC.starts_with(begins) {
            true => (rest.len(), What::Unfinished),
            false => (rest.len(), What::Garbage(Error::Magic { what })),
        };
    };
    let header = match FrameHeader::decode(head) {
        Ok(header) => header,
        Err(e) => return (rest.len(), What::Garbage(e)),
    };
    match rest.get(..header.frame_bytes()) {
        Some(frame) => (
            frame.len(),
            read_frame(&header, &frame[HEADER_BYTES..]).unwrap_or_else(What::Bad),
        ),
        None => (rest.len(), What::Unfinished),
    }
}

/// A frame, from its header and all that belongs to it.
fn read_frame(header: &FrameHeader, rest: &[u8]) -> Result<What, Error> {
    let (body, payload) = rest.split_at(header.body_len);
    let (frame, messages) = decode_body(header, body)?;
    let mut mfcs = Mfcs::new();
    decode_mfcs(messages, &mut mfcs)?;
    if !payload.is_empty() && crate::crc32c(payload) != header.payload_crc {
        let what = "payload of a link frame";
        return Err(Error::Checksum { what });
    }
    Ok(What::Frame {
        frame,
        mfcs,
        payload_blocks: header.payload_blocks,
    })
}

/// Where the first frame with a sound header begins; the end if there is none.
fn first_frame(bytes: &[u8]) -> usize {
    let begins = |n: &usize| {
        let head = bytes[*n..].first_chunk::<HEADER_BYTES>();
        head.is_some_and(|head| FrameHeader::decode(head).is_ok())
    };
    let magic = |n: &usize| bytes[*n..].starts_with(MAGIC);
    (0..bytes.len()).filter(magic).find(begins).unwrap_or(bytes.len())
}
