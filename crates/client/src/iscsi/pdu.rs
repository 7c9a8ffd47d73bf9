//! Basic header segments (RFC 7143 11.2).

use crate::bytes::{put, u24_at};
use crate::error::Error;
use crate::transport::Transport;

/// Bytes of a basic header segment.
pub const HEADER: usize = 48;
/// A basic header segment.
pub type Header = [u8; HEADER];
/// A tag that names nothing.
pub const NO_TAG: u32 = 0xffff_ffff;
/// The longest data segment that this initiator takes, in bytes (MaxRecvDataSegmentLength).
pub const DATA_MAX: u32 = 256 << 10;

/// Opcodes of the initiator.
pub mod request {
    /// NOP-Out.
    pub const NOP: u8 = 0x00;
    /// SCSI Command.
    pub const COMMAND: u8 = 0x01;
    /// Login.
    pub const LOGIN: u8 = 0x03;
    /// Text.
    pub const TEXT: u8 = 0x04;
    /// SCSI Data-Out.
    pub const DATA: u8 = 0x05;
    /// Logout.
    pub const LOGOUT: u8 = 0x06;
    /// The request does not take a number of the command window.
    pub const IMMEDIATE: u8 = 0x40;
}

/// Opcodes of the target.
pub mod response {
    /// NOP-In.
    pub const NOP: u8 = 0x20;
    /// SCSI Response.
    pub const COMMAND: u8 = 0x21;
    /// Login.
    pub const LOGIN: u8 = 0x23;
    /// Text.
    pub const TEXT: u8 = 0x24;
    /// SCSI Data-In.
    pub const DATA: u8 = 0x25;
    /// Logout.
    pub const LOGOUT: u8 = 0x26;
    /// Ready To Transfer.
    pub const R2T: u8 = 0x31;
    /// Asynchronous Message.
    pub const ASYNC: u8 = 0x32;
    /// Reject.
    pub const REJECT: u8 = 0x3f;
}

/// A header with opcode, flags (byte 1) and initiator task tag.
pub fn header(opcode: u8, flags: u8, tag: u32) -> Header {
    let mut header = [0; HEADER];
    header[0] = opcode;
    header[1] = flags;
    put(&mut header, 16, &tag.to_be_bytes());
    header
}

/// Sends a PDU. The length of the data is put into the header.
pub fn send(transport: &mut Transport, mut header: Header, data: &[u8]) -> Result<(), Error> {
    put(&mut header, 5, &(data.len() as u32).to_be_bytes()[1..]);
    let padding = [0; 3];
    transport.send(&[&header, data, &padding[..pad(data.len())]])
}

/// The first PDU that has come, if all of it has: its header, and where its data are in what was received, and where
/// the next begins.
pub fn peek(received: &[u8]) -> Result<Option<(Header, std::ops::Range<usize>, usize)>, Error> {
    let Some(header) = received.first_chunk::<HEADER>() else {
        return Ok(None);
    };
    let length = u24_at(header, 5);
    if length > DATA_MAX {
        return Err(Error::Protocol(format!(
            "a data segment of {length} bytes, more than was allowed"
        )));
    }
    let from = HEADER + usize::from(header[4]) * 4;
    let to = from + length as usize;
    let end = to + pad(length as usize);
    Ok((received.len() >= end).then_some((*header, from..to, end)))
}

fn pad(length: usize) -> usize {
    length.wrapping_neg() & 3
}
