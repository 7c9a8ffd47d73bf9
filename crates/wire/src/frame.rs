//! Frames of the link between the controllers (DESIGN section 7): a header of fixed size, a body, and payload,
//! which stays where it is. Byte map: docs/wire-format.md.
//!
//! From a stream: read [`HEADER_BYTES`], [`FrameHeader::decode`] them, read `body_len` bytes, [`decode_body`], then
//! read `payload_bytes()` bytes and compare their CRC-32C with `payload_crc`. The messages are read by [`decode_mfcs`],
//! straight to where the core wants them.

use crate::bytes::{Reader, Sink};
use crate::crc::{crc32c, crc32c_append};
use crate::error::{Error, Result};
use crate::mfc::{flag, mfc, put_mfc};
use crate::record::{self, unknown};
use twincell_core::ids::{ATOMIC_GRANULES, BLOCK_BYTES, BUFFER_BLOCKS, Epoch, Incarnation, Nanos, Time, Uuid};
use twincell_core::link::frame::{FRAME_BYTES_MAX, Frame, Hello, Mfc, Mfcs, Missing, Sequenced};

pub use crate::mfc::mfc_bytes;

/// Bytes of the header of a frame.
pub const HEADER_BYTES: usize = 32;
/// Most bytes of the body of a frame: all that is neither header nor payload.
pub const BODY_BYTES_MAX: usize = FRAME_BYTES_MAX;
/// Most bytes of all messages of one frame, each as [`mfc_bytes`] counts it.
pub const MFCS_BYTES_MAX: usize = BODY_BYTES_MAX - 8;
/// Most blocks of payload: every granule that an atomic write can touch.
pub const PAYLOAD_BLOCKS_MAX: u32 = ATOMIC_GRANULES as u32 * BUFFER_BLOCKS;
/// The version of the link protocol that is spoken, and the oldest that is.
pub const VERSION: u16 = 1;

const WHAT: &str = "link frame";
const MAGIC: [u8; 4] = *b"tcLF";
const HEADER: &str = "header of a link frame";
/// Where the header has the length of the body.
const BODY_LEN_AT: usize = 10;
/// Where the header has its own CRC, which covers what is before it.
const HEADER_CRC_AT: usize = HEADER_BYTES - 8;
/// What the CRC of a frame covers of its header: everything but the CRC itself.
const CHECKED_BYTES: usize = HEADER_BYTES - 4;

mod kind {
    pub const HELLO: u8 = 1;
    pub const HEARTBEAT: u8 = 2;
    pub const HEARTBEAT_ANSWER: u8 = 3;
    pub const ACK: u8 = 4;
    pub const MESSAGES: u8 = 5;
}

/// Appends `frame` with the messages `mfcs` to `out`, but not its payload: that follows, `payload_blocks` blocks (0 to
/// [`PAYLOAD_BLOCKS_MAX`]) with the CRC-32C `payload_crc`. Only `Frame::Messages` has messages and payload.
///
/// Panics if the messages take more than [`MFCS_BYTES_MAX`], or the payload is too long: both bounds are the core's.
pub fn encode(frame: &Frame, mfcs: &[Mfc], payload_blocks: u32, payload_crc: u32, out: &mut Vec<u8>) {
    assert!(
        payload_blocks <= PAYLOAD_BLOCKS_MAX,
        "a payload of {payload_blocks} blocks"
    );
    let start = out.len();
    put_header(out, frame, payload_blocks, payload_crc);
    put_body(out, frame);
    mfcs.iter().for_each(|m| put_mfc(out, m));
    let (header, body) = out[start..].split_at_mut(HEADER_BYTES);
    assert!(body.len() <= BODY_BYTES_MAX, "a frame of {} bytes", body.len());
    header[BODY_LEN_AT..BODY_LEN_AT + 2].copy_from_slice(&(body.len() as u16).to_le_bytes());
    let crc = crc32c(&header[..HEADER_CRC_AT]);
    header[HEADER_CRC_AT..CHECKED_BYTES].copy_from_slice(&crc.to_le_bytes());
    let crc = crc32c_append(crc32c(&header[..CHECKED_BYTES]), body);
    header[CHECKED_BYTES..].copy_from_slice(&crc.to_le_bytes());
}

/// All of the header, with zero for what is only known once the body is there: its length and both CRCs.
fn put_header(out: &mut impl Sink, frame: &Frame, payload_blocks: u32, payload_crc: u32) {
    let (kind, incarnation) = kind_and_incarnation(frame);
    out.put(&MAGIC);
    out.u16(VERSION);
    out.u16(0);
    out.u8(kind);
    out.u8(0);
    out.u16(0);
    out.u32(incarnation.0);
    out.u32(payload_blocks * BLOCK_BYTES as u32);
    out.u32(if payload_blocks == 0 { 0 } else { payload_crc });
    out.u32(0);
    out.u32(0);
}

/// The header of a frame. It has a CRC of its own, so that its lengths can be trusted where the body or the payload is
/// damaged: the next frame begins behind them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    kind: u8,
    incarnation: Incarnation,
    /// Bytes of the body that follows: 0 to [`BODY_BYTES_MAX`].
    pub body_len: usize,
    /// Blocks of payload that follow the body: 0 to [`PAYLOAD_BLOCKS_MAX`].
    pub payload_blocks: u32,
    /// CRC-32C of the payload; 0 where there is none.
    pub payload_crc: u32,
    /// CRC-32C of the header as far as it is covered.
    checked: u32,
    /// CRC-32C of header and body, as sent.
    crc: u32,
}

impl FrameHeader {
    /// Bytes of payload that follow the body.
    pub fn payload_bytes(&self) -> usize {
        self.payload_blocks as usize * BLOCK_BYTES
    }

    /// Whether it is that of a hello.
    pub fn is_hello(&self) -> bool {
        self.kind == kind::HELLO
    }

    /// Bytes of the whole frame: header, body and payload.
    pub fn frame_bytes(&self) -> usize {
        HEADER_BYTES + self.body_len + self.payload_bytes()
    }

    /// Reads a header, and refuses one that is damaged or too long to be true. Where the next frame begins nobody knows
    /// then.
    pub fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<FrameHeader> {
        let mut r = Reader::new(bytes, WHAT);
        if r.array()? != MAGIC {
            return Err(Error::Magic { what: WHAT });
        }
        let (found, features) = (r.u16()?, r.u16()?);
        if found != VERSION {
            return Err(Error::Version {
                what: WHAT,
                found,
                newest: VERSION,
            });
        }
        if bytes[HEADER_CRC_AT..CHECKED_BYTES] != crc32c(&bytes[..HEADER_CRC_AT]).to_le_bytes() {
            return Err(Error::Checksum { what: HEADER });
        }
        if features != 0 {
            return Err(Error::Features {
                what: WHAT,
                unknown: u32::from(features),
            });
        }
        let kind = r.u8()?;
        r.zeroes(1)?;
        let body_len = at_most(
            r.u16()?.into(),
            BODY_BYTES_MAX as u32,
            "the length of the body of a frame",
        )? as usize;
        let incarnation = Incarnation(r.u32()?);
        let payload_blocks = payload_blocks(r.u32()?)?;
        let payload_crc = r.u32()?;
        r.u32()?;
        if payload_blocks > 0 && kind != kind::MESSAGES {
            return Err(unknown("the kind of a frame with payload", kind));
        }
        if payload_blocks == 0 && payload_crc != 0 {
            let (field, value) = ("the CRC of no payload", payload_crc.into());
            return Err(Error::Value { field, value });
        }
        Ok(FrameHeader {
            kind,
            incarnation,
            body_len,
            payload_blocks,
            payload_crc,
            checked: crc32c(&bytes[..CHECKED_BYTES]),
            crc: r.u32()?,
        })
    }
}

fn at_most(value: u32, most: u32, field: &'static str) -> Result<u32> {
    if value <= most {
        return Ok(value);
    }
    let (value, most) = (value.into(), most.into());
    Err(Error::TooLarge { field, value, most })
}

fn payload_blocks(bytes: u32) -> Result<u32> {
    let field = "the payload of a frame";
    if !bytes.is_multiple_of(BLOCK_BYTES as u32) {
        return Err(Error::Value {
            field,
            value: bytes.into(),
        });
    }
    at_most(bytes / BLOCK_BYTES as u32, PAYLOAD_BLOCKS_MAX, field)
}

/// The frame whose header is `header` and whose body is `body`, after the CRC over both was found good; and the bytes of
/// its messages, which are for [`decode_mfcs`]. Its payload is not in hand here. `Error::Checksum` says that it was
/// damaged on its way, any other error that its sender means something that this program does not know.
pub fn decode_body<'a>(header: &FrameHeader, body: &'a [u8]) -> Result<(Frame, &'a [u8])> {
    if body.len() < header.body_len {
        return Err(Error::Short { what: WHAT });
    }
    if body.len() > header.body_len {
        return Err(Error::Trailing { what: WHAT });
    }
    if crc32c_append(header.checked, body) != header.crc {
        return Err(Error::Checksum { what: WHAT });
    }
    let mut r = Reader::new(body, WHAT);
    let frame = frame(header, &mut r)?;
    let mfcs = match frame {
        Frame::Messages(_) => r.take(r.left())?,
        _ => &[],
    };
    r.end()?;
    if header.payload_blocks > 0 && mfcs.is_empty() {
        return Err(unknown("the number of messages in a frame with payload", 0));
    }
    Ok((frame, mfcs))
}

/// Reads the messages of a frame into `mfcs`, in place of what is there.
pub fn decode_mfcs(bytes: &[u8], mfcs: &mut Mfcs) -> Result<()> {
    mfcs.clear();
    let mut r = Reader::new(bytes, WHAT);
    while r.left() > 0 {
        let (field, most) = ("the number of messages in a frame", mfcs.len() as u64);
        mfcs.try_push(mfc(&mut r)?).map_err(|_| Error::TooLarge {
            field,
            value: most + 1,
            most,
        })?;
    }
    Ok(())
}

fn kind_and_incarnation(frame: &Frame) -> (u8, Incarnation) {
    match frame {
        Frame::Hello(hello) => (kind::HELLO, hello.incarnation),
        Frame::Heartbeat { incarnation, .. } => (kind::HEARTBEAT, *incarnation),
        Frame::HeartbeatAnswer { incarnation, .. } => (kind::HEARTBEAT_ANSWER, *incarnation),
        Frame::Ack { incarnation, .. } => (kind::ACK, *incarnation),
        Frame::Messages(sequenced) => (kind::MESSAGES, sequenced.incarnation),
    }
}

fn put_body(out: &mut impl Sink, frame: &Frame) {
    match frame {
        Frame::Hello(hello) => put_hello(out, hello),
        Frame::Heartbeat { sent, .. } => out.u64(sent.0),
        Frame::HeartbeatAnswer { sent, grant, .. } => {
            out.u64(sent.0);
            out.u64(grant.0);
        }
        Frame::Ack {
            acknowledged, missing, ..
        } => {
            out.u32(*acknowledged);
            out.u32(missing.seen);
            out.u64(missing.held);
        }
        Frame::Messages(sequenced) => {
            out.u32(sequenced.sequence);
            out.u32(sequenced.acknowledged);
        }
    }
}

fn frame(header: &FrameHeader, r: &mut Reader) -> Result<Frame> {
    let incarnation = header.incarnation;
    Ok(match header.kind {
        kind::HELLO => Frame::Hello(hello(r, incarnation)?),
        kind::HEARTBEAT => Frame::Heartbeat {
            incarnation,
            sent: Time(r.u64()?),
        },
        kind::HEARTBEAT_ANSWER => Frame::HeartbeatAnswer {
            incarnation,
            sent: Time(r.u64()?),
            grant: Nanos(r.u64()?),
        },
        kind::ACK => Frame::Ack {
            incarnation,
            acknowledged: r.u32()?,
            missing: Missing {
                seen: r.u32()?,
                held: r.u64()?,
            },
        },
        kind::MESSAGES => Frame::Messages(Sequenced {
            incarnation,
            sequence: r.u32()?,
            acknowledged: r.u32()?,
        }),
        code => return Err(unknown("the kind of a frame", code)),
    })
}

/// The place of the versions never changes: whatever comes later, both ends can tell that they do not match.
fn put_hello(out: &mut impl Sink, hello: &Hello) {
    out.u16(VERSION);
    out.u16(VERSION);
    record::put_controller(out, hello.controller);
    out.u8(u8::from(hello.undecided));
    out.u128(hello.cell.0);
    out.u128(hello.instance.0);
    record::put_process(out, &hello.process);
    out.u64(hello.epoch.0);
    out.u128(hello.image.0);
    out.u32(hello.session.0);
    out.u128(hello.met.0);
    out.u32(hello.buffers);
}

fn hello(r: &mut Reader, incarnation: Incarnation) -> Result<Hello> {
    let (oldest, newest) = (r.u16()?, r.u16()?);
    if !(oldest..=newest).contains(&VERSION) {
        return Err(Error::NoCommonVersion { oldest, newest });
    }
    let controller = record::controller(r)?;
    let undecided = flag(r)?;
    Ok(Hello {
        controller,
        cell: Uuid(r.u128()?),
        instance: Uuid(r.u128()?),
        process: record::process(r)?,
        incarnation,
        epoch: Epoch(r.u64()?),
        image: Uuid(r.u128()?),
        session: Incarnation(r.u32()?),
        met: Uuid(r.u128()?),
        undecided,
        buffers: r.u32()?,
    })
}
