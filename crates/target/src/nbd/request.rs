//! The requests of one NBD connection that are not yet answered.

use std::collections::VecDeque;

use twincell_core::host::{HostOp, Status};
use twincell_core::ids::{BLOCK_BYTES, BlockCount, Nanos, NcaeIndex, Noid, Time, Vba};

use super::IN_HAND_MAX;
use super::protocol::{REPLY_HEADER, REPLY_MAGIC, error};
use crate::session::{Command, Outside, Tag};

/// Commands of one connection that the array has at a time; further requests wait for their turn.
const SUBMITTED_MAX: usize = 128;
/// Requests of one connection that are not answered, those that wait included; more are refused with `ENOMEM`.
pub const HELD_MAX: usize = 4096;
/// Bytes that they read and write; more are refused with `ENOMEM`.
pub const HELD_BYTES_MAX: u64 = 256 << 20;
/// Bytes of replies to reads that a connection holds, or that the array is about to give it: reads beyond it wait, and what comes after
/// them. A client that reads nothing could else have all that it may ask for in memory.
pub const REPLY_BYTES_MAX: usize = 16 << 20;
/// A write that has waited here for so long is not begun any more where nothing has come from its host for as long: the host may
/// have given up this path and have sent it again through the partner, and newer ones after it (R12).
const NOT_BEGUN_AFTER: Nanos = Nanos::from_millis(5000);
/// How often a command that the array refuses is submitted again at once.
const DIRECT_RETRIES: u8 = 4;
/// Buffers that are kept for later requests.
const SPARES_MAX: usize = 64;

/// Where a request stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Its data are coming, or it waits for its turn.
    Held,
    /// The array has it.
    Submitted,
    /// The array refused it for the moment.
    Refused,
}

/// A part of a write's data that the array wants: bytes `next..end` are still to be handed over.
#[derive(Clone, Copy)]
struct Wanted {
    next: usize,
    end: usize,
}

/// A request.
pub struct Request {
    cookie: u64,
    op: HostOp,
    offset: u64,
    length: u32,
    state: State,
    retries: u8,
    /// Since when it could have begun.
    waits_since: Time,
    /// Of a write: its data as far as they have come, kept until the end because it may be submitted again.
    /// Of a read: its reply, header first.
    data: Vec<u8>,
    wanted: Option<Wanted>,
}

impl Request {
    /// A request that has just come.
    pub fn new(cookie: u64, op: HostOp, offset: u64, length: u32) -> Request {
        Request {
            cookie,
            op,
            offset,
            length: if op == HostOp::Sync { 0 } else { length },
            state: State::Held,
            retries: 0,
            waits_since: Time(0),
            data: Vec::new(),
            wanted: None,
        }
    }

    /// The client's name for it.
    pub fn cookie(&self) -> u64 {
        self.cookie
    }

    /// What is to be done.
    pub fn op(&self) -> HostOp {
        self.op
    }

    /// The first byte.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// How many bytes; 0 for a flush.
    pub fn length(&self) -> u32 {
        self.length
    }

    /// Whether data follow it.
    pub fn is_write(&self) -> bool {
        matches!(self.op, HostOp::Write { .. })
    }

    /// Whether it is too late to begin it.
    fn may_be_overtaken(&self, heard: Time, now: Time) -> bool {
        self.is_write() && now.since(self.waits_since.max(heard)) >= NOT_BEGUN_AFTER
    }

    /// Bytes that the array gives for it.
    fn data_in(&self) -> usize {
        if self.op == HostOp::Read {
            self.length as usize
        } else {
            0
        }
    }

    /// What NBD calls that status.
    pub fn error(&self, status: Status) -> u32 {
        match status {
            Status::Good if self.op == HostOp::Read && self.data.len() != REPLY_HEADER + self.length as usize => {
                error::EIO
            }
            Status::Good => error::NONE,
            Status::Aborted | Status::NoSuchLun | Status::Busy | Status::Transitioning => error::ESHUTDOWN,
            Status::OutOfRange if self.is_write() => error::ENOSPC,
            Status::OutOfRange => error::EINVAL,
            Status::ReadError | Status::WriteError => error::EIO,
        }
    }

    /// Puts the reply to a read where the host gets it. Large replies are not copied if nothing stands before them.
    pub fn put_read_reply(&mut self, output: &mut Vec<u8>) {
        if output.is_empty() {
            std::mem::swap(output, &mut self.data);
        } else {
            output.extend_from_slice(&self.data);
        }
    }

    fn command(&self, (ncae, noid): (NcaeIndex, Noid)) -> Command {
        let in_hand = if self.is_write() {
            self.data.len() / BLOCK_BYTES
        } else {
            0
        };
        let (start, blocks) = match self.op {
            HostOp::Sync => (0, 0),
            _ => (self.offset / BLOCK_BYTES as u64, self.length / BLOCK_BYTES as u32),
        };
        Command {
            ncae,
            noid,
            op: self.op,
            start: Vba(start),
            blocks: BlockCount(blocks),
            in_hand: BlockCount(in_hand as u32),
        }
    }

    /// Hands over what has come of what is wanted.
    fn hand_over(&mut self, tag: Tag, outside: &mut dyn Outside) {
        let Some(Wanted { next, end }) = self.wanted else {
            return;
        };
        let here = end.min(self.data.len());
        if next < here {
            outside.data(tag, next as u64, &self.data[next..here]);
        }
        self.wanted = if here < end {
            Some(Wanted {
                next: next.max(here),
                end,
            })
        } else {
            outside.fetched(tag, true);
            None
        };
    }

    /// The reply to a read, as far as it is known before its data.
    fn begin_read_reply(&mut self) {
        self.data.clear();
        self.data.reserve(REPLY_HEADER + self.length as usize);
        self.data.extend(REPLY_MAGIC.to_be_bytes());
        self.data.extend(error::NONE.to_be_bytes());
        self.data.extend(self.cookie.to_be_bytes());
    }
}

/// A write has waited for so long that its host may have sent it again elsewhere.
pub struct Overtaken;

/// The requests of one connection, each under its tag.
#[derive(Default)]
pub struct Requests {
    export: (NcaeIndex, Noid),
    slots: Vec<Option<Request>>,
    free: Vec<u32>,
    held_bytes: u64,
    submitted: usize,
    /// Bytes that the array is about to give.
    due: usize,
    /// Wait for their turn.
    waiting: VecDeque<Tag>,
    /// Refused for the moment.
    refused: Vec<Tag>,
    /// Emptied buffers.
    spares: Vec<Vec<u8>>,
    disconnected: bool,
}

impl Requests {
    /// Sets what is read and written.
    pub fn export(&mut self, ncae: NcaeIndex, noid: Noid) {
        self.export = (ncae, noid);
    }

    /// Whether everything is answered.
    pub fn is_empty(&self) -> bool {
        self.free.len() == self.slots.len()
    }

    /// Whether one more request is within the bounds.
    pub fn has_room_for(&self, request: &Request) -> bool {
        let held = self.slots.len() - self.free.len();
        held < HELD_MAX && self.held_bytes + u64::from(request.length) <= HELD_BYTES_MAX
    }

    /// Takes a request in.
    pub fn add(&mut self, mut request: Request) -> Tag {
        self.held_bytes += u64::from(request.length);
        request.data = self.spares.pop().unwrap_or_default();
        match self.free.pop() {
            Some(index) => {
                self.slots[index as usize] = Some(request);
                Tag(index)
            }
            None => {
                self.slots.push(Some(request));
                Tag(self.slots.len() as u32 - 1)
            }
        }
    }

    /// Takes a request that is over out. `None` if the host is gone: nobody waits for a reply.
    pub fn remove(&mut self, tag: Tag) -> Option<Request> {
        let request = self.slots.get_mut(tag.0 as usize)?.take()?;
        self.free.push(tag.0);
        self.held_bytes -= u64::from(request.length);
        if request.state == State::Submitted {
            self.left_array(request.data_in());
        }
        (!self.disconnected).then_some(request)
    }

    /// Keeps the buffer of a request for a later one.
    pub fn recycle(&mut self, request: Request) {
        let mut data = request.data;
        if self.spares.len() < SPARES_MAX && data.capacity() <= 2 * IN_HAND_MAX as usize {
            data.clear();
            self.spares.push(data);
        }
    }

    /// A request may begin when it is its turn.
    pub fn enqueue(&mut self, tag: Tag, now: Time) {
        if let Some(request) = self.get(tag) {
            request.waits_since = now;
            self.waiting.push_back(tag);
        }
    }

    /// Begins requests that wait, in order and as many as may be: `held` bytes of replies wait for the client, from which
    /// something came last when it was `heard`. Fails at a write that must not be begun any more.
    pub fn submit_waiting(&mut self, held: usize, heard: Time, outside: &mut dyn Outside) -> Result<(), Overtaken> {
        while self.submitted < SUBMITTED_MAX
            && let Some(tag) = self.waiting.front().copied()
        {
            let bytes = self.get(tag).map_or(0, |request| request.data_in());
            let before = held + self.due;
            if bytes > 0 && before > 0 && before + bytes > REPLY_BYTES_MAX {
                return Ok(());
            }
            if self
                .get(tag)
                .is_some_and(|request| request.may_be_overtaken(heard, outside.now()))
            {
                return Err(Overtaken);
            }
            self.waiting.pop_front();
            self.submit(tag, outside);
        }
        Ok(())
    }

    /// The array has done with a request that gives so many bytes.
    fn left_array(&mut self, data_in: usize) {
        self.submitted -= 1;
        self.due -= data_in;
    }

    fn submit(&mut self, tag: Tag, outside: &mut dyn Outside) {
        let export = self.export;
        let Some(request) = self.get(tag) else {
            return;
        };
        request.state = State::Submitted;
        if request.op == HostOp::Read {
            request.begin_read_reply();
        }
        let (command, data_in) = (request.command(export), request.data_in());
        self.submitted += 1;
        self.due += data_in;
        outside.submit(tag, command);
    }

    /// Data of a write have come. Returns how long the write is.
    pub fn arrived(&mut self, tag: Tag, bytes: &[u8], outside: &mut dyn Outside) -> u32 {
        let Some(request) = self.get(tag) else {
            return 0;
        };
        if request.data.is_empty() {
            // Small requests all get the same room, so that buffers can serve again.
            request.data.reserve(request.length.min(IN_HAND_MAX) as usize);
        }
        request.data.extend_from_slice(bytes);
        request.hand_over(tag, outside);
        request.length
    }

    /// The array wants data of a write.
    pub fn fetch(&mut self, tag: Tag, offset: BlockCount, blocks: BlockCount, outside: &mut dyn Outside) {
        let disconnected = self.disconnected;
        match self.get(tag) {
            Some(request) if !disconnected => {
                let next = offset.index() * BLOCK_BYTES;
                let end = next + blocks.index() * BLOCK_BYTES;
                request.wanted = Some(Wanted { next, end });
                request.hand_over(tag, outside);
            }
            _ => outside.fetched(tag, false),
        }
    }

    /// Data of a read; they come in order.
    pub fn read_data(&mut self, tag: Tag, offset: BlockCount, bytes: &[u8]) {
        if let Some(request) = self.get(tag) {
            debug_assert_eq!(
                request.data.len(),
                REPLY_HEADER + offset.index() * BLOCK_BYTES,
                "out of order"
            );
            request.data.extend_from_slice(bytes);
        }
    }

    /// The array refuses a command for the moment: the LUN is between owners, or something ran out.
    ///
    /// NBD cannot pass that on, so the command is submitted again: a few times at once, and later whenever something
    /// may have changed: the view, another request of this connection that was answered, or bytes from the host
    /// ([`Requests::retry`]). Nothing wakes up here by itself; the driver does, and is asked to
    /// ([`Requests::has_refused`]). What the host may believe dead is not begun again (`NOT_BEGUN_AFTER`).
    pub fn refused(&mut self, tag: Tag, outside: &mut dyn Outside) {
        if self.disconnected {
            self.remove(tag);
            return;
        }
        let Some(request) = self.get(tag) else {
            return;
        };
        request.state = State::Refused;
        request.wanted = None;
        let at_once = request.retries < DIRECT_RETRIES;
        request.retries += u8::from(at_once);
        let data_in = request.data_in();
        self.left_array(data_in);
        if at_once {
            self.submit(tag, outside);
        } else {
            self.refused.push(tag);
        }
    }

    /// Whether something was refused for the moment and waits for a retry.
    pub fn has_refused(&self) -> bool {
        !self.refused.is_empty()
    }

    /// What was refused comes before what waits.
    pub fn retry(&mut self) {
        while let Some(tag) = self.refused.pop() {
            self.waiting.push_front(tag);
        }
    }

    /// The host is gone: withdraws what the array has, forgets the rest.
    pub fn abort_all(&mut self, outside: &mut dyn Outside) {
        self.disconnected = true;
        self.waiting.clear();
        self.refused.clear();
        for index in 0..self.slots.len() as u32 {
            let tag = Tag(index);
            let Some(request) = self.get(tag) else {
                continue;
            };
            if request.state != State::Submitted {
                self.remove(tag);
                continue;
            }
            if request.wanted.take().is_some() {
                outside.fetched(tag, false);
            }
            outside.abort(tag);
        }
    }

    fn get(&mut self, tag: Tag) -> Option<&mut Request> {
        self.slots.get_mut(tag.0 as usize)?.as_mut()
    }
}
