//! The requests of one NBD connection that are not yet answered.

use std::collections::VecDeque;

use twincell_core::host::{HostOp, Status};
use twincell_core::ids::{BLOCK_BYTES, BlockCount, NcaeIndex, Noid, Vba};

use super::IN_HAND_MAX;
use super::payload::{CHUNK_BYTES, Payload};
use super::protocol::{REPLY_HEADER, REPLY_MAGIC, error};
use crate::session::{Command, Outside, Tag};

/// Commands of one connection that the array has at a time; further requests wait for their turn.
const SUBMITTED_MAX: usize = 128;
/// Requests of one connection that are not answered, those that wait included: no more are taken until one is.
const HELD_MAX: usize = 256;
/// Bytes of a write's data for which there is room before it begins: with so much of it at a time the array gets on, whatever
/// others keep.
const KEPT_BYTES_MIN: usize = 1 << 20;
const _: () = assert!(KEPT_BYTES_MIN >= 2 * CHUNK_BYTES && KEPT_BYTES_MIN >= IN_HAND_MAX as usize);
/// Bytes of replies to reads that a connection holds, or that the array is about to give it: reads beyond it wait, and what comes after
/// them. A client that reads nothing could else have all that it may ask for in memory.
pub const REPLY_BYTES_MAX: usize = 16 << 20;
/// How often a command that the array refuses is submitted again at once.
const DIRECT_RETRIES: u8 = 4;
/// Bytes of buffers that are kept for later requests.
const SPARE_BYTES_MAX: usize = 1 << 20;

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
    /// Of a write: its data as far as they have come, kept until the array asks for what is behind them, because it may be
    /// submitted again before.
    payload: Payload,
    /// Bytes for which there is room in it.
    room: usize,
    wanted: Option<Wanted>,
    /// Of a read: its reply, header first.
    reply: Vec<u8>,
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
            payload: Payload::default(),
            room: 0,
            wanted: None,
            reply: Vec::new(),
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
    fn may_be_overtaken(&self, outside: &dyn Outside) -> bool {
        self.is_write() && outside.is_too_late(outside.heard())
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
            Status::Good if self.op == HostOp::Read && self.reply.len() != REPLY_HEADER + self.length as usize => {
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
            std::mem::swap(output, &mut self.reply);
        } else {
            output.extend_from_slice(&self.reply);
        }
    }

    fn command(&self, (ncae, noid): (NcaeIndex, Noid)) -> Command {
        let in_hand = self.payload.len() / BLOCK_BYTES;
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
        let here = end.min(self.payload.range().end);
        for (offset, piece) in self.payload.pieces(next..here) {
            outside.data(tag, offset as u64, piece);
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

    /// The least room that a write needs for what is left of it.
    fn least_room(&self) -> usize {
        (self.length as usize - self.payload.range().start).min(KEPT_BYTES_MIN)
    }

    /// How many of `bytes` more bytes of a write's data there is room for; more than it needs, where nobody else needs it.
    fn room_for(&mut self, bytes: usize, outside: &mut dyn Outside) -> usize {
        let free = self.room - self.payload.len();
        if bytes > free && outside.keep(bytes - free) {
            self.room += bytes - free;
        }
        bytes.min(self.room - self.payload.len())
    }

    /// What is before `offset` is not wanted any more.
    fn drop_before(&mut self, offset: usize, outside: &mut dyn Outside) {
        self.payload.drop_before(offset);
        let room = self.least_room().max(self.payload.len());
        outside.let_go(self.room - room);
        self.room = room;
    }

    /// The reply to a read, as far as it is known before its data.
    fn begin_read_reply(&mut self, buffer: Vec<u8>) {
        self.reply = buffer;
        self.reply.extend(REPLY_MAGIC.to_be_bytes());
        self.reply.extend(error::NONE.to_be_bytes());
        self.reply.extend(self.cookie.to_be_bytes());
    }
}

/// A write has waited for so long that its host may have sent it again elsewhere.
pub struct Overtaken;

/// Emptied buffers.
#[derive(Default)]
struct Spares {
    buffers: Vec<Vec<u8>>,
    bytes: usize,
}

impl Spares {
    /// A buffer with room for `bytes` bytes.
    fn take(&mut self, bytes: usize) -> Vec<u8> {
        let mut buffer = self.buffers.pop().unwrap_or_default();
        self.bytes -= buffer.capacity();
        buffer.reserve_exact(bytes);
        buffer
    }

    /// Keeps a buffer for a later request, as long as they are not too many.
    fn put(&mut self, mut buffer: Vec<u8>) {
        if buffer.capacity() > 0 && self.bytes + buffer.capacity() <= SPARE_BYTES_MAX {
            buffer.clear();
            self.bytes += buffer.capacity();
            self.buffers.push(buffer);
        }
    }
}

/// The requests of one connection, each under its tag.
#[derive(Default)]
pub struct Requests {
    export: (NcaeIndex, Noid),
    slots: Vec<Option<Request>>,
    free: Vec<u32>,
    submitted: usize,
    /// Bytes that the array is about to give.
    due: usize,
    /// Wait for their turn.
    waiting: VecDeque<Tag>,
    /// Refused for the moment.
    refused: Vec<Tag>,
    spares: Spares,
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

    /// Whether no more are taken until one is answered.
    pub fn is_full(&self) -> bool {
        self.slots.len() - self.free.len() >= HELD_MAX
    }

    /// Takes a request in.
    pub fn add(&mut self, request: Request) -> Tag {
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
    pub fn remove(&mut self, tag: Tag, outside: &mut dyn Outside) -> Option<Request> {
        let request = self.slots.get_mut(tag.0 as usize)?.take()?;
        self.free.push(tag.0);
        outside.let_go(request.room);
        if request.state == State::Submitted {
            self.left_array(request.data_in());
        }
        (!self.disconnected).then_some(request)
    }

    /// Keeps the buffers of a request for later ones.
    pub fn recycle(&mut self, request: Request) {
        self.spares.put(request.reply);
        request.payload.into_chunks().for_each(|chunk| self.spares.put(chunk));
    }

    /// A request may begin when it is its turn.
    pub fn enqueue(&mut self, tag: Tag) {
        self.waiting.push_back(tag);
    }

    /// Begins requests that wait, in order and as many as may be: `held` bytes of replies wait for the client. Fails at a write
    /// that must not be begun any more.
    pub fn submit_waiting(&mut self, held: usize, outside: &mut dyn Outside) -> Result<(), Overtaken> {
        while self.submitted < SUBMITTED_MAX
            && let Some(tag) = self.waiting.front().copied()
        {
            let bytes = self.get(tag).map_or(0, |request| request.data_in());
            let before = held + self.due;
            if bytes > 0 && before > 0 && before + bytes > REPLY_BYTES_MAX {
                return Ok(());
            }
            if self.get(tag).is_some_and(|request| request.may_be_overtaken(outside)) {
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
        let Some(Some(request)) = self.slots.get_mut(tag.0 as usize) else {
            return;
        };
        request.state = State::Submitted;
        if request.op == HostOp::Read {
            self.spares.put(std::mem::take(&mut request.reply));
            request.begin_read_reply(self.spares.take(REPLY_HEADER + request.length as usize));
        }
        let (command, data_in) = (request.command(export), request.data_in());
        self.submitted += 1;
        self.due += data_in;
        outside.submit(tag, command);
    }

    /// Whether a write begins before all its data are here.
    pub fn is_large(&mut self, tag: Tag) -> bool {
        self.get(tag).is_some_and(|request| request.length > IN_HAND_MAX)
    }

    /// Whether a write has room for data.
    pub fn has_room(&mut self, tag: Tag) -> bool {
        self.get(tag).is_none_or(|request| request.room > 0)
    }

    /// Gives a write the room that it needs, if it can be had.
    pub fn give_room(&mut self, tag: Tag, outside: &mut dyn Outside) -> bool {
        let Some(request) = self.get(tag) else { return true };
        let room = request.least_room();
        let gets_it = outside.keep(room);
        request.room = if gets_it { room } else { 0 };
        gets_it
    }

    /// How many of `bytes` more bytes of a write's data may be taken from the host now.
    pub fn room_for(&mut self, tag: Tag, bytes: usize, outside: &mut dyn Outside) -> usize {
        self.get(tag).map_or(bytes, |request| request.room_for(bytes, outside))
    }

    /// Data of a write have come.
    pub fn arrived(&mut self, tag: Tag, bytes: &[u8], outside: &mut dyn Outside) {
        let Some(Some(request)) = self.slots.get_mut(tag.0 as usize) else {
            return;
        };
        let (spares, size) = (&mut self.spares, CHUNK_BYTES.min(request.length as usize));
        request.payload.extend(bytes, || spares.take(size));
        request.hand_over(tag, outside);
    }

    /// The array wants data of a write. What it has had of it before, it does not want again.
    pub fn fetch(&mut self, tag: Tag, offset: BlockCount, blocks: BlockCount, outside: &mut dyn Outside) {
        let disconnected = self.disconnected;
        let next = offset.index() * BLOCK_BYTES;
        match self.get(tag) {
            Some(request) if !disconnected && next >= request.payload.range().start => {
                request.drop_before(next, outside);
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
                request.reply.len(),
                REPLY_HEADER + offset.index() * BLOCK_BYTES,
                "out of order"
            );
            request.reply.extend_from_slice(bytes);
        }
    }

    /// Whether the data of a write are gone in part: it cannot be submitted again.
    pub fn has_begun_to_go(&self, tag: Tag) -> bool {
        let request = self.slots.get(tag.0 as usize).and_then(Option::as_ref);
        request.is_some_and(|request| request.payload.range().start > 0)
    }

    /// The array refuses a command for the moment: the LUN is between owners, or something ran out.
    ///
    /// NBD cannot pass that on, so the command is submitted again: a few times at once, and later whenever something
    /// may have changed: the view, another request of this connection that was answered, or bytes from the host
    /// ([`Requests::retry`]). Nothing wakes up here by itself; the driver does, and is asked to
    /// ([`Requests::has_refused`]). What the host may believe dead is not begun again (`NOT_BEGUN_AFTER`).
    pub fn refused(&mut self, tag: Tag, outside: &mut dyn Outside) {
        if self.disconnected {
            self.remove(tag, outside);
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
                self.remove(tag, outside);
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
