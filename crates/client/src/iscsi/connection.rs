//! An iSCSI connection in full feature phase: many commands outstanding at a time.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use super::login::{self, SessionKind, Terms};
use super::pdu::{self, Header, NO_TAG, request, response};
use super::refusal;
use super::scsi::{self, Cdb};
use crate::bytes::{put, u32_at};
use crate::device::{Data, Deadlines};
use crate::error::{Error, Refusal};
use crate::transport::Transport;

/// How often one command is sent again after a unit attention: a target may have several to tell.
const ATTENTIONS_MAX: u8 = 16;

const FINAL: u8 = 0x80;
const READS: u8 = 0x40;
const WRITES: u8 = 0x20;
const SIMPLE: u8 = 1;
const OVERFLOW: u8 = 4;
const UNDERFLOW: u8 = 2;
const STATUS: u8 = 1;

/// Data that a command moves.
#[derive(Clone, Debug)]
pub enum Transfer {
    /// None.
    None,
    /// At most so many bytes from the target.
    In(u32),
    /// To the target.
    Out(Data),
}

/// A SCSI command.
#[derive(Clone, Debug)]
pub struct Command {
    /// Logical unit number.
    pub lun: u16,
    /// The command itself.
    pub cdb: Cdb,
    /// Its data.
    pub transfer: Transfer,
}

/// How a command ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// What `submit` returned.
    pub tag: u64,
    /// Data from the target, or why there are none.
    pub result: Result<Vec<u8>, Refusal>,
    /// Bytes of the transfer that were left out (or would have been too many).
    pub residual: u32,
}

struct Outstanding {
    command: Command,
    data: Vec<u8>,
    attentions: u8,
}

/// A session of one connection.
pub struct Connection {
    transport: Transport,
    terms: Terms,
    timeout: Duration,
    next_tag: u32,
    outstanding: HashMap<u32, Outstanding>,
    /// Commands that the target's window has no room for yet.
    unsent: VecDeque<u32>,
    deadlines: Deadlines,
    retry_attentions: bool,
    logged_out: bool,
    /// Text that has come, and whether that is all.
    text: Option<(Vec<u8>, Header)>,
}

impl Connection {
    /// Connects and logs in at `HOST:PORT`. `timeout` is for that, and later for each command.
    pub fn login(address: &str, kind: SessionKind, timeout: Duration) -> Result<Connection, Error> {
        let until = Instant::now() + timeout;
        let mut transport = Transport::connect(address, until)?;
        let terms = login::login(&mut transport, kind, until)?;
        Ok(Connection {
            transport,
            terms,
            timeout,
            next_tag: 1,
            outstanding: HashMap::new(),
            unsent: VecDeque::new(),
            deadlines: Deadlines::default(),
            retry_attentions: true,
            logged_out: false,
            text: None,
        })
    }

    /// Whether a command that met a unit attention is sent again (`true` at first), or ends with it.
    pub fn retry_unit_attentions(&mut self, retry: bool) {
        self.retry_attentions = retry;
    }

    /// Changes how long commands that are submitted from now on may go unanswered.
    pub fn set_timeout(&mut self, timeout: Duration) {
        self.timeout = timeout;
    }

    /// Starts a command, as soon as the target's window allows.
    pub fn submit(&mut self, command: Command) -> Result<u64, Error> {
        let tag = self.fresh_tag();
        let outstanding = Outstanding {
            command,
            data: Vec::new(),
            attentions: 0,
        };
        self.outstanding.insert(tag, outstanding);
        self.deadlines.push(Instant::now() + self.timeout, u64::from(tag));
        self.unsent.push_back(tag);
        self.send_unsent()?;
        Ok(u64::from(tag))
    }

    /// The next command that ended. `None` if none has until `until`; `TimedOut` if one is overdue.
    pub fn wait(&mut self, until: Instant) -> Result<Option<Answer>, Error> {
        loop {
            while let Some((header, data, end)) = pdu::peek(self.transport.received())? {
                let answer = self.on_pdu(&header, data)?;
                self.transport.consume(end);
                self.send_unsent()?;
                if answer.is_some() {
                    return Ok(answer);
                }
            }
            let overdue = self.deadlines.first(|tag| self.outstanding.contains_key(&(tag as u32)));
            if !self.transport.exchange(overdue.unwrap_or(until).min(until))? {
                let now = Instant::now();
                if overdue.is_some_and(|at| at <= now) {
                    return Err(Error::TimedOut(format!("no SCSI response in {:?}", self.timeout)));
                }
                if until <= now {
                    return Ok(None);
                }
            }
        }
    }

    /// Carries out one command, with no other outstanding. Returns its data.
    pub fn execute(&mut self, lun: u16, cdb: Cdb, transfer: Transfer) -> Result<Vec<u8>, Error> {
        let tag = self.submit(Command { lun, cdb, transfer })?;
        match self.wait(Instant::now() + 2 * self.timeout)? {
            Some(answer) if answer.tag == tag => Ok(answer.result?),
            other => Err(Error::Protocol(format!("instead of the answer to {tag}: {other:?}"))),
        }
    }

    /// Sends a text request; all pairs of its answer.
    pub fn text(&mut self, text: &str) -> Result<Vec<(String, String)>, Error> {
        let until = Instant::now() + self.timeout;
        let mut all = Vec::new();
        let (mut text, mut target_tag) = (text, NO_TAG);
        loop {
            let tag = self.fresh_tag();
            let mut header = pdu::header(request::TEXT | request::IMMEDIATE, FINAL, tag);
            put(&mut header, 20, &target_tag.to_be_bytes());
            self.send_numbered(header, text.as_bytes())?;
            let (data, header) = self.wait_text(until)?;
            all.extend(data);
            if header[1] & FINAL != 0 {
                return login::pairs(&all);
            }
            (text, target_tag) = ("", u32_at(&header, 20));
        }
    }

    fn wait_text(&mut self, until: Instant) -> Result<(Vec<u8>, Header), Error> {
        loop {
            if let Some(text) = self.text.take() {
                return Ok(text);
            }
            self.step(until, "the answer to a text request")?;
        }
    }

    /// Ends the session in good order.
    pub fn logout(mut self) -> Result<(), Error> {
        let until = Instant::now() + self.timeout;
        let tag = self.fresh_tag();
        self.send_numbered(pdu::header(request::LOGOUT | request::IMMEDIATE, FINAL, tag), &[])?;
        while !self.logged_out {
            self.step(until, "the answer to a logout")?;
        }
        Ok(())
    }

    /// Ends the connection; waits up to `grace` until the target has closed it too.
    pub fn close(self, grace: Duration) {
        self.transport.close(grace);
    }

    /// Handles one PDU, with no command outstanding.
    fn step(&mut self, until: Instant, what: &str) -> Result<(), Error> {
        while pdu::peek(self.transport.received())?.is_none() {
            if !self.transport.exchange(until)? {
                return Err(Error::TimedOut(what.into()));
            }
        }
        if let Some((header, data, end)) = pdu::peek(self.transport.received())? {
            self.on_pdu(&header, data)?;
            self.transport.consume(end);
        }
        Ok(())
    }

    fn fresh_tag(&mut self) -> u32 {
        let tag = self.next_tag;
        self.next_tag = if tag == NO_TAG - 1 { 1 } else { tag + 1 };
        tag
    }

    fn send_unsent(&mut self) -> Result<(), Error> {
        // Serial numbers wrap (RFC 1982).
        while self.terms.max_command_sn.wrapping_sub(self.terms.command_sn) as i32 >= 0 {
            let Some(tag) = self.unsent.pop_front() else {
                return Ok(());
            };
            self.send_command(tag)?;
        }
        Ok(())
    }

    fn send_command(&mut self, tag: u32) -> Result<(), Error> {
        let Some(Outstanding { command, .. }) = self.outstanding.get(&tag) else {
            return Ok(());
        };
        let (flags, length) = match &command.transfer {
            Transfer::None => (0, 0),
            Transfer::In(length) => (READS, *length),
            Transfer::Out(data) => (WRITES, data.len() as u32),
        };
        let mut header = pdu::header(request::COMMAND, FINAL | flags | SIMPLE, tag);
        put(&mut header, 8, &scsi::lun_bytes(command.lun));
        put(&mut header, 20, &length.to_be_bytes());
        put(&mut header, 24, &self.terms.command_sn.to_be_bytes());
        put(&mut header, 28, &self.terms.status_sn.to_be_bytes());
        put(&mut header, 32, &command.cdb);
        let immediate: &[u8] = match &command.transfer {
            Transfer::Out(data) if self.terms.immediate_data => {
                &data[..data.len().min(self.terms.first_burst.min(self.terms.data_max) as usize)]
            }
            _ => &[],
        };
        self.terms.command_sn = self.terms.command_sn.wrapping_add(1);
        pdu::send(&mut self.transport, header, immediate)
    }

    /// Sends an immediate request, which carries the numbers but takes none.
    fn send_numbered(&mut self, mut header: Header, data: &[u8]) -> Result<(), Error> {
        put(&mut header, 24, &self.terms.command_sn.to_be_bytes());
        put(&mut header, 28, &self.terms.status_sn.to_be_bytes());
        pdu::send(&mut self.transport, header, data)
    }

    /// Handles the PDU with that header, whose data are at `data` of what was received.
    fn on_pdu(&mut self, header: &Header, data: std::ops::Range<usize>) -> Result<Option<Answer>, Error> {
        let opcode = header[0] & 0x3f;
        self.on_numbers(opcode, header);
        match opcode {
            response::DATA => return self.on_data(header, data),
            response::COMMAND => {
                let sense = self.transport.received()[data].to_vec();
                return self.on_response(header, &sense);
            }
            response::R2T => self.on_ready_to_transfer(header)?,
            response::NOP => self.on_nop(header, data)?,
            response::TEXT => self.text = Some((self.transport.received()[data].to_vec(), *header)),
            response::LOGOUT => self.logged_out = true,
            // Event 0 carries sense data; the others announce the end of the connection.
            response::ASYNC if header[36] == 0 => {}
            response::ASYNC => return Err(Error::Connection(format!("the target ends it, event {}", header[36]))),
            response::REJECT => return Err(Error::Protocol(format!("rejected, reason {:#04x}", header[2]))),
            _ => return Err(Error::Protocol(format!("PDU {opcode:#04x}"))),
        }
        Ok(None)
    }

    fn on_numbers(&mut self, opcode: u8, header: &Header) {
        let has_status = match opcode {
            response::DATA => header[1] & STATUS != 0,
            response::R2T => false,
            response::NOP => u32_at(header, 16) != NO_TAG,
            _ => true,
        };
        if has_status {
            self.terms.status_sn = u32_at(header, 24).wrapping_add(1);
        }
        let max = u32_at(header, 32);
        if max.wrapping_sub(self.terms.max_command_sn) as i32 > 0 {
            self.terms.max_command_sn = max;
        }
    }

    fn on_data(&mut self, header: &Header, data: std::ops::Range<usize>) -> Result<Option<Answer>, Error> {
        let tag = u32_at(header, 16);
        let Some(outstanding) = self.outstanding.get_mut(&tag) else {
            return Err(Error::Protocol(format!(
                "data for task {tag}, which is not outstanding"
            )));
        };
        let Transfer::In(length) = outstanding.command.transfer else {
            return Err(Error::Protocol("data for a command that reads none".into()));
        };
        let bytes = &self.transport.received()[data];
        let offset = u32_at(header, 40) as usize;
        if offset != outstanding.data.len() || offset + bytes.len() > length as usize {
            return Err(Error::Protocol(format!("data at {offset} of a read of {length}")));
        }
        if offset == 0 {
            outstanding.data.reserve_exact(length as usize);
        }
        outstanding.data.extend_from_slice(bytes);
        match header[1] & STATUS {
            0 => Ok(None),
            _ => self.finish(header, &[]),
        }
    }

    fn on_response(&mut self, header: &Header, data: &[u8]) -> Result<Option<Answer>, Error> {
        if header[2] != 0 {
            return Err(Error::Protocol(format!("target failure, response {:#04x}", header[2])));
        }
        self.finish(header, data.get(2..).unwrap_or(&[]))
    }

    /// A command is over, unless it met a unit attention.
    fn finish(&mut self, header: &Header, sense: &[u8]) -> Result<Option<Answer>, Error> {
        let tag = u32_at(header, 16);
        let Some(mut outstanding) = self.outstanding.remove(&tag) else {
            return Err(Error::Protocol(format!(
                "a response to task {tag}, which is not outstanding"
            )));
        };
        let refusal = refusal(header[3], sense);
        let attention = matches!(refusal, Some(Refusal::Sense(s)) if s.is_unit_attention());
        if attention && self.retry_attentions && outstanding.attentions < ATTENTIONS_MAX {
            outstanding.attentions += 1;
            outstanding.data.clear();
            self.outstanding.insert(tag, outstanding);
            self.unsent.push_back(tag);
            return Ok(None);
        }
        let residual = match header[1] & (OVERFLOW | UNDERFLOW) {
            0 => 0,
            _ => u32_at(header, 44),
        };
        self.check_whole(&outstanding, refusal, residual, header[1])?;
        Ok(Some(Answer {
            tag: u64::from(tag),
            result: refusal.map_or(Ok(outstanding.data), Err),
            residual,
        }))
    }

    /// A read that ended well without all its data, and without saying so, would be silent corruption.
    fn check_whole(&self, o: &Outstanding, refusal: Option<Refusal>, residual: u32, flags: u8) -> Result<(), Error> {
        let Transfer::In(length) = o.command.transfer else {
            return Ok(());
        };
        let missing = if flags & UNDERFLOW != 0 { residual } else { 0 };
        if refusal.is_none() && o.data.len() as u64 + u64::from(missing) != u64::from(length) {
            let got = o.data.len();
            return Err(Error::Protocol(format!(
                "{got} bytes of {length}, and {missing} missing"
            )));
        }
        Ok(())
    }

    fn on_ready_to_transfer(&mut self, header: &Header) -> Result<(), Error> {
        let tag = u32_at(header, 16);
        let (offset, length) = (u32_at(header, 40) as usize, u32_at(header, 44) as usize);
        let Some(Outstanding { command, .. }) = self.outstanding.get(&tag) else {
            return Err(Error::Protocol(format!("R2T for task {tag}, which is not outstanding")));
        };
        let Transfer::Out(data) = &command.transfer else {
            return Err(Error::Protocol("R2T for a command that writes nothing".into()));
        };
        let Some(wanted) = data.get(offset..offset + length) else {
            return Err(Error::Protocol(format!(
                "R2T for {length} bytes at {offset} of {}",
                data.len()
            )));
        };
        let pieces = wanted.chunks(self.terms.data_max as usize);
        let last = pieces.len().saturating_sub(1);
        for (number, piece) in pieces.enumerate() {
            let mut out = pdu::header(request::DATA, if number == last { FINAL } else { 0 }, tag);
            put(&mut out, 8, &header[8..16]);
            put(&mut out, 20, &header[20..24]);
            put(&mut out, 28, &self.terms.status_sn.to_be_bytes());
            put(&mut out, 36, &(number as u32).to_be_bytes());
            let at = offset + number * self.terms.data_max as usize;
            put(&mut out, 40, &(at as u32).to_be_bytes());
            pdu::send(&mut self.transport, out, piece)?;
        }
        Ok(())
    }

    /// The target pings: it gets its data back.
    fn on_nop(&mut self, header: &Header, data: std::ops::Range<usize>) -> Result<(), Error> {
        if u32_at(header, 20) == NO_TAG {
            return Ok(());
        }
        let mut out = pdu::header(request::NOP | request::IMMEDIATE, FINAL, NO_TAG);
        put(&mut out, 8, &header[8..16]);
        put(&mut out, 20, &header[20..24]);
        let data = self.transport.received()[data].to_vec();
        self.send_numbered(out, &data)
    }
}
