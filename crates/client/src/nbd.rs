//! An NBD client: fixed newstyle, `NBD_OPT_GO`, simple replies. Numbers are those of the NBD protocol document
//! (`doc/proto.md` of the NetworkBlockDevice project).

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::bytes::{u16_at, u32_at, u64_at};
use crate::device::{BLOCK_BYTES, Completion, Deadlines, Device, Request};
use crate::error::{Error, Refusal};
use crate::transport::Transport;

const GREETING: &[u8] = b"NBDMAGICIHAVEOPT";
const OPTION_MAGIC: &[u8] = b"IHAVEOPT";
const OPTION_REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;
const REQUEST_MAGIC: u32 = 0x2560_9513;
const REPLY_MAGIC: u32 = 0x6744_6698;
const REPLY_HEADER: usize = 16;

const OPT_GO: u32 = 7;
const REP_ACK: u32 = 1;
const REP_INFO: u32 = 3;
const REP_ERROR: u32 = 1 << 31;
const INFO_EXPORT: u16 = 0;
const INFO_BLOCK_SIZE: u16 = 3;

const FLAG_SEND_FLUSH: u16 = 1 << 2;
const FLAG_SEND_FUA: u16 = 1 << 3;

const CMD_READ: u16 = 0;
const CMD_WRITE: u16 = 1;
const CMD_DISC: u16 = 2;
const CMD_FLUSH: u16 = 3;
const CMD_FLAG_FUA: u16 = 1;

/// The longest request where the server names no limit: what every server takes, says the protocol document.
const REQUEST_BYTES_MAX: u32 = 32 << 20;

/// What the server said about the export.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Export {
    /// Size in bytes.
    pub bytes: u64,
    /// Transmission flags.
    pub flags: u16,
    /// Smallest, best and largest request in bytes, if the server said so.
    pub block_sizes: Option<[u32; 3]>,
}

/// An NBD connection in transmission.
pub struct Nbd {
    transport: Transport,
    export: Export,
    timeout: Duration,
    next: u64,
    /// Cookie -> bytes of data that a good reply carries.
    outstanding: HashMap<u64, usize>,
    deadlines: Deadlines,
}

impl Nbd {
    /// Connects to the export `name` at `HOST:PORT`. `timeout` is for the handshake, and later for each request.
    pub fn connect(address: &str, name: &str, timeout: Duration) -> Result<Nbd, Error> {
        let until = Instant::now() + timeout;
        let mut transport = Transport::connect(address, until)?;
        let export = go(&mut transport, name, until)?;
        Ok(Nbd {
            transport,
            export,
            timeout,
            next: 0,
            outstanding: HashMap::new(),
            deadlines: Deadlines::default(),
        })
    }

    /// What the server said about the export.
    pub fn export(&self) -> Export {
        self.export
    }

    fn send(&mut self, flags: u16, kind: u16, start: u64, length: usize, data: &[u8]) -> Result<u64, Error> {
        let cookie = self.next;
        self.next += 1;
        let header = request(flags, kind, cookie, start * BLOCK_BYTES as u64, length as u32);
        self.transport.send(&[&header, data])?;
        let expected = if kind == CMD_READ { length } else { 0 };
        self.outstanding.insert(cookie, expected);
        self.deadlines.push(Instant::now() + self.timeout, cookie);
        Ok(cookie)
    }

    /// The next reply, if all of it has come.
    fn take_reply(&mut self) -> Result<Option<Completion>, Error> {
        let bytes = self.transport.received();
        if bytes.len() < REPLY_HEADER {
            return Ok(None);
        }
        if u32_at(bytes, 0) != REPLY_MAGIC {
            return Err(Error::Protocol(format!("a reply begins {:02x?}", &bytes[..4])));
        }
        let (error, tag) = (u32_at(bytes, 4), u64_at(bytes, 8));
        let Some(expected) = self.outstanding.get(&tag) else {
            return Err(Error::Protocol(format!(
                "a reply to request {tag}, which is not outstanding"
            )));
        };
        let end = REPLY_HEADER + if error == 0 { *expected } else { 0 };
        if bytes.len() < end {
            return Ok(None);
        }
        let data = bytes[REPLY_HEADER..end].to_vec();
        self.transport.consume(end);
        self.outstanding.remove(&tag);
        let result = if error == 0 { Ok(data) } else { Err(Refusal::Nbd(error)) };
        Ok(Some(Completion { tag, result }))
    }

    fn offers(&self, flag: u16) -> Result<(), Error> {
        match self.export.flags & flag {
            0 => Err(Refusal::Unsupported.into()),
            _ => Ok(()),
        }
    }

    fn check_length(&self, length: usize) -> Result<usize, Error> {
        let longest = self.export.block_sizes.map_or(REQUEST_BYTES_MAX, |sizes| sizes[2]);
        if length == 0 || !length.is_multiple_of(BLOCK_BYTES) || length > longest as usize {
            return Err(Refusal::Unsupported.into());
        }
        Ok(length)
    }
}

impl Device for Nbd {
    fn blocks(&self) -> u64 {
        self.export.bytes / BLOCK_BYTES as u64
    }

    fn set_timeout(&mut self, timeout: Duration) {
        self.timeout = timeout;
    }

    fn submit(&mut self, request: Request) -> Result<u64, Error> {
        match request {
            Request::Read { start, blocks } => {
                let length = self.check_length(blocks as usize * BLOCK_BYTES)?;
                self.send(0, CMD_READ, start, length, &[])
            }
            Request::Write { start, data, fua } => {
                let length = self.check_length(data.len())?;
                if fua {
                    self.offers(FLAG_SEND_FUA)?;
                }
                self.send(if fua { CMD_FLAG_FUA } else { 0 }, CMD_WRITE, start, length, &data)
            }
            Request::Flush => {
                self.offers(FLAG_SEND_FLUSH)?;
                self.send(0, CMD_FLUSH, 0, 0, &[])
            }
        }
    }

    fn wait(&mut self, until: Instant) -> Result<Option<Completion>, Error> {
        loop {
            if let Some(completion) = self.take_reply()? {
                return Ok(Some(completion));
            }
            let overdue = self.deadlines.first(|tag| self.outstanding.contains_key(&tag));
            if !self.transport.exchange(overdue.unwrap_or(until).min(until))? {
                let now = Instant::now();
                if overdue.is_some_and(|at| at <= now) {
                    return Err(Error::TimedOut(format!("no NBD reply in {:?}", self.timeout)));
                }
                if until <= now {
                    return Ok(None);
                }
            }
        }
    }

    fn close(mut self: Box<Self>, grace: Duration) {
        // The end of the connection follows anyway.
        let _ = self.transport.send(&[&request(0, CMD_DISC, self.next, 0, 0)]);
        self.transport.close(grace);
    }
}

fn request(flags: u16, kind: u16, cookie: u64, offset: u64, length: u32) -> [u8; 28] {
    let mut header = [0; 28];
    header[..4].copy_from_slice(&REQUEST_MAGIC.to_be_bytes());
    header[4..6].copy_from_slice(&flags.to_be_bytes());
    header[6..8].copy_from_slice(&kind.to_be_bytes());
    header[8..16].copy_from_slice(&cookie.to_be_bytes());
    header[16..24].copy_from_slice(&offset.to_be_bytes());
    header[24..].copy_from_slice(&length.to_be_bytes());
    header
}

/// The handshake.
fn go(transport: &mut Transport, name: &str, until: Instant) -> Result<Export, Error> {
    const WHAT: &str = "the NBD handshake";
    transport.receive_at_least(GREETING.len() + 2, until, WHAT)?;
    if !transport.received().starts_with(GREETING) || u16_at(transport.received(), 16) & 1 == 0 {
        return Err(Error::Protocol("not an NBD server that speaks fixed newstyle".into()));
    }
    // No zeroes may be asked for only where they can be left out; they never follow GO.
    let flags = u32::from(u16_at(transport.received(), 16) & 3);
    transport.consume(GREETING.len() + 2);
    let length = 4 + name.len() + 4;
    transport.send(&[
        &flags.to_be_bytes(),
        OPTION_MAGIC,
        &OPT_GO.to_be_bytes(),
        &(length as u32).to_be_bytes(),
        &(name.len() as u32).to_be_bytes(),
        name.as_bytes(),
        &1u16.to_be_bytes(),
        &INFO_BLOCK_SIZE.to_be_bytes(),
    ])?;
    let mut export = None;
    let mut block_sizes = None;
    loop {
        transport.receive_at_least(20, until, WHAT)?;
        let (magic, kind) = (u64_at(transport.received(), 0), u32_at(transport.received(), 12));
        let length = u32_at(transport.received(), 16) as usize;
        if magic != OPTION_REPLY_MAGIC || length > 1 << 16 {
            return Err(Error::Protocol("a reply to GO makes no sense".into()));
        }
        transport.receive_at_least(20 + length, until, WHAT)?;
        let data = &transport.received()[20..20 + length];
        match kind {
            REP_INFO if length == 12 && u16_at(data, 0) == INFO_EXPORT => {
                export = Some((u64_at(data, 2), u16_at(data, 10)))
            }
            REP_INFO if length == 14 && u16_at(data, 0) == INFO_BLOCK_SIZE => {
                block_sizes = Some([u32_at(data, 2), u32_at(data, 6), u32_at(data, 10)]);
            }
            REP_ACK => {
                transport.consume(20 + length);
                let (bytes, flags) = export.ok_or_else(|| Error::Protocol("GO without a size".into()))?;
                return Ok(Export {
                    bytes,
                    flags,
                    block_sizes,
                });
            }
            _ if kind & REP_ERROR != 0 => {
                let text = String::from_utf8_lossy(data).into_owned();
                return Err(Error::Connection(format!(
                    "export {name:?} refused: {:#x} {text}",
                    kind
                )));
            }
            _ => {}
        }
        transport.consume(20 + length);
    }
}
