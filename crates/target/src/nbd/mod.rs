//! NBD: one host connection, without I/O.
//!
//! Fixed newstyle handshake, simple replies, no TLS. An export is a LUN, by its name; the empty name is the LUN where
//! there is only one. Requests are whole blocks of 512 bytes; WRITE_ZEROES, TRIM and CACHE are not offered yet.
//!
//! NBD has no answer that means "try again", so [`NbdSession`] itself tries again what the array refuses for the
//! moment (see `Requests::refused`).

mod negotiation;
mod payload;
mod protocol;
mod request;
#[cfg(test)]
mod tests;

use twincell_core::host::{HostOp, Status};
use twincell_core::ids::{BLOCK_BYTES, BlockCount, Time};

use crate::session::{Outside, Session, Tag};
use negotiation::Outcome;
use protocol::{
    OPTION_HEADER, OPTION_MAGIC, REPLY_MAGIC, REQUEST_HEADER, REQUEST_MAGIC, command, error, u16_at, u32_at, u64_at,
};
use request::{Request, Requests};

/// The best size of a request: one NV buffer.
const BLOCK_PREFERRED: u32 = 4096;
/// The longest request in bytes, as told to the client.
const REQUEST_BYTES_MAX: u32 = 32 << 20;
/// The longest data of an option in bytes: far more than any name and list of types.
const OPTION_BYTES_MAX: u32 = 16 << 10;
/// Writes of up to this many bytes are begun when all their data are here: an express write needs them at once.
const IN_HAND_MAX: u32 = 64 << 10;

/// Where the stream of the host stands: what its next bytes are.
enum Expects {
    /// The client's handshake flags.
    ClientFlags,
    /// The header of an option.
    Option,
    /// The data of an option.
    OptionData { option: u32, length: usize },
    /// A request.
    Request,
    /// Data of a write.
    Data { of: Tag, left: usize },
    /// Data of a write that is over already; then its reply.
    Discard { cookie: u64, error: u32, left: usize },
    /// Nothing more: the client has said that it is done.
    Nothing,
}

/// An NBD connection.
///
/// What it holds is bounded: what there is no room for is not taken from the host ([`Session::receive`]). No request that the
/// client may make is refused for that, because NBD has no answer that means "later".
pub struct NbdSession {
    expects: Expects,
    /// The part of what is expected that has come; not for data of writes.
    head: Vec<u8>,
    zeroes: bool,
    requests: Requests,
    /// When something had come from the host last, as far as it was taken.
    heard: Time,
    output: Vec<u8>,
    over: bool,
}

impl Default for NbdSession {
    fn default() -> Self {
        Self::new()
    }
}

impl NbdSession {
    /// A connection that was just accepted; its greeting is in the output.
    pub fn new() -> NbdSession {
        let mut output = Vec::new();
        negotiation::greet(&mut output);
        NbdSession {
            expects: Expects::ClientFlags,
            head: Vec::new(),
            zeroes: true,
            requests: Requests::default(),
            heard: Time(0),
            output,
            over: false,
        }
    }

    /// Takes the next thing off `rest`. `false` if it is not yet complete, or there is no room for what it leads to.
    fn take_next(&mut self, rest: &mut &[u8], outside: &mut dyn Outside) -> bool {
        if !self.may_take_next(outside) {
            return false;
        }
        match self.expects {
            Expects::ClientFlags => self.take_head(4, rest, |s, flags| s.on_client_flags(flags)),
            Expects::Option => self.take_head(OPTION_HEADER, rest, |s, header| s.on_option_header(header)),
            Expects::OptionData { option, length } => {
                self.take_head(length, rest, |s, data| s.on_option(option, data, outside))
            }
            Expects::Request => self.take_head(REQUEST_HEADER, rest, |s, header| s.on_request(header, outside)),
            Expects::Data { of, left } => self.on_data(of, left, rest, outside),
            Expects::Discard { cookie, error, left } => self.on_discarded(cookie, error, left, rest),
            Expects::Nothing => {
                *rest = &[];
                false
            }
        }
    }

    /// Whether there is room for what an option or a request leads to.
    fn may_take_next(&mut self, outside: &dyn Outside) -> bool {
        match self.expects {
            Expects::Option => self.may_answer(outside),
            Expects::Request => !self.requests.is_full() && self.may_answer(outside),
            _ => true,
        }
    }

    /// Collects `length` bytes and lets `handle` have them.
    fn take_head(&mut self, length: usize, rest: &mut &[u8], handle: impl FnOnce(&mut Self, &[u8])) -> bool {
        let missing = (length - self.head.len()).min(rest.len());
        self.head.extend_from_slice(&rest[..missing]);
        *rest = &rest[missing..];
        if self.head.len() < length {
            return false;
        }
        let mut head = std::mem::take(&mut self.head);
        handle(self, &head);
        head.clear();
        self.head = head;
        true
    }

    fn on_client_flags(&mut self, flags: &[u8]) {
        match negotiation::wants_zeroes(u32_at(flags, 0)) {
            Some(zeroes) => {
                self.zeroes = zeroes;
                self.expects = Expects::Option;
            }
            None => self.over = true,
        }
    }

    fn on_option_header(&mut self, header: &[u8]) {
        let (option, length) = (u32_at(header, 8), u32_at(header, 12));
        if u64_at(header, 0) != OPTION_MAGIC || length > OPTION_BYTES_MAX {
            self.over = true;
            return;
        }
        self.expects = Expects::OptionData {
            option,
            length: length as usize,
        };
    }

    fn on_option(&mut self, option: u32, data: &[u8], outside: &mut dyn Outside) {
        self.expects = Expects::Option;
        match negotiation::answer(option, data, self.zeroes, outside.view(), &mut self.output) {
            Outcome::Continue => {}
            Outcome::Chosen(lun) => {
                self.requests.export(lun.ncae, lun.noid);
                self.expects = Expects::Request;
            }
            Outcome::End => self.over = true,
        }
    }

    fn on_request(&mut self, header: &[u8], outside: &mut dyn Outside) {
        if u32_at(header, 0) != REQUEST_MAGIC {
            self.over = true;
            return;
        }
        let (flags, kind, cookie) = (u16_at(header, 4), u16_at(header, 6), u64_at(header, 8));
        let (offset, length) = (u64_at(header, 16), u32_at(header, 24));
        let op = match kind {
            command::READ => HostOp::Read,
            command::WRITE => HostOp::Write {
                fua: flags & command::FLAG_FUA != 0,
            },
            command::FLUSH => HostOp::Sync,
            command::DISC => {
                self.expects = Expects::Nothing;
                return;
            }
            _ => return put_reply(&mut self.output, error::EINVAL, cookie),
        };
        let request = Request::new(cookie, op, offset, length);
        if makes_sense(flags, &request) {
            self.begin(request, outside);
        } else {
            self.refuse(&request, error::EINVAL);
        }
    }

    /// Answers a request that is not begun, after its data, if it has any.
    fn refuse(&mut self, request: &Request, error: u32) {
        let cookie = request.cookie();
        if !request.is_write() {
            return put_reply(&mut self.output, error, cookie);
        }
        // To read past data that are longer than any request may be is not worth it.
        self.over = request.length() > REQUEST_BYTES_MAX;
        let left = request.length() as usize;
        self.expects = Expects::Discard { cookie, error, left };
    }

    fn begin(&mut self, request: Request, outside: &mut dyn Outside) {
        let (is_write, left) = (request.is_write(), request.length() as usize);
        let of = self.requests.add(request);
        if is_write {
            self.expects = Expects::Data { of, left };
            self.give_room(of, outside);
        } else {
            self.enqueue(of, outside);
        }
    }

    /// Gives a write room for its data, if it has none yet; a large one begins with that: before, the array would wait for data
    /// that are not taken. `false` if there is none.
    fn give_room(&mut self, of: Tag, outside: &mut dyn Outside) -> bool {
        if self.requests.has_room(of) {
            return true;
        }
        let gets_room = self.requests.give_room(of, outside);
        if gets_room && self.requests.is_large(of) {
            self.enqueue(of, outside);
        }
        gets_room
    }

    fn on_data(&mut self, of: Tag, left: usize, rest: &mut &[u8], outside: &mut dyn Outside) -> bool {
        if rest.is_empty() || !self.give_room(of, outside) {
            return false;
        }
        let bytes = self.requests.room_for(of, left.min(rest.len()), outside);
        let (bytes, after) = rest.split_at(bytes);
        *rest = after;
        let left = left - bytes.len();
        self.expects = match left {
            0 => Expects::Request,
            _ => Expects::Data { of, left },
        };
        self.requests.arrived(of, bytes, outside);
        if left == 0 && !self.requests.is_large(of) {
            self.enqueue(of, outside);
        }
        !bytes.is_empty()
    }

    fn on_discarded(&mut self, cookie: u64, error: u32, left: usize, rest: &mut &[u8]) -> bool {
        let bytes = left.min(rest.len());
        *rest = &rest[bytes..];
        let left = left - bytes;
        if left > 0 {
            self.expects = Expects::Discard { cookie, error, left };
            return false;
        }
        put_reply(&mut self.output, error, cookie);
        self.expects = Expects::Request;
        true
    }

    fn enqueue(&mut self, tag: Tag, outside: &mut dyn Outside) {
        self.requests.enqueue(tag);
        self.go_on(outside);
    }

    /// Begins what may begin now. The connection is over if that comes too late.
    fn go_on(&mut self, outside: &mut dyn Outside) {
        let held = self.output.len() + outside.unsent();
        self.over |= self.requests.submit_waiting(held, outside).is_err();
    }

    /// The same, what was refused first.
    fn retry(&mut self, outside: &mut dyn Outside) {
        self.requests.retry();
        self.go_on(outside);
    }

    /// Replies to a request that is over.
    fn reply(&mut self, tag: Tag, mut request: Request, status: Status) {
        let error = request.error(status);
        match self.expects {
            // The client may not read replies while it sends: the rest of the data comes first.
            Expects::Data { of, left } if of == tag => {
                let cookie = request.cookie();
                self.expects = Expects::Discard { cookie, error, left };
            }
            _ if error == error::NONE && request.op() == HostOp::Read => {
                request.put_read_reply(&mut self.output);
            }
            _ => put_reply(&mut self.output, error, request.cookie()),
        }
        self.requests.recycle(request);
    }
}

/// Whether a request is one that this server has told that it takes. That its range is on the LUN is for the array to say.
fn makes_sense(flags: u16, request: &Request) -> bool {
    let whole_blocks = |n: u64| n.is_multiple_of(BLOCK_BYTES as u64);
    let good_range = whole_blocks(request.offset())
        && whole_blocks(u64::from(request.length()))
        && (1..=REQUEST_BYTES_MAX).contains(&request.length());
    // FUA may stand on any request; it means something on writes only.
    flags & !command::FLAG_FUA == 0 && (good_range || request.op() == HostOp::Sync)
}

fn put_reply(output: &mut Vec<u8>, error: u32, cookie: u64) {
    output.extend(REPLY_MAGIC.to_be_bytes());
    output.extend(error.to_be_bytes());
    output.extend(cookie.to_be_bytes());
}

impl Session for NbdSession {
    fn receive(&mut self, bytes: &[u8], outside: &mut dyn Outside) -> usize {
        if self.heard < outside.heard() {
            self.heard = outside.heard();
            self.retry(outside);
        }
        let mut rest = bytes;
        while !self.over && self.take_next(&mut rest, outside) {}
        bytes.len() - rest.len()
    }

    fn fetch(&mut self, tag: Tag, offset: BlockCount, blocks: BlockCount, outside: &mut dyn Outside) {
        // A later portion is no more to be begun than a write: the host has not been asked for it, its data are here.
        let is_late = outside.is_too_late(outside.heard());
        self.over |= is_late;
        if is_late {
            outside.fetched(tag, false);
        } else {
            self.requests.fetch(tag, offset, blocks, outside);
        }
    }

    fn send_data(&mut self, tag: Tag, offset: BlockCount, bytes: &[u8]) {
        self.requests.read_data(tag, offset, bytes);
    }

    fn complete(&mut self, tag: Tag, status: Status, outside: &mut dyn Outside) {
        let is_refused = matches!(status, Status::Busy | Status::Transitioning);
        if is_refused && !self.requests.has_begun_to_go(tag) {
            self.requests.refused(tag, outside);
        } else if let Some(request) = self.requests.remove(tag, outside) {
            self.reply(tag, request, status);
            self.retry(outside);
        }
    }

    fn view_changed(&mut self, outside: &mut dyn Outside) {
        self.retry(outside);
    }

    fn sent(&mut self, outside: &mut dyn Outside) {
        self.go_on(outside);
    }

    fn wants_view_changed(&self) -> bool {
        self.requests.has_refused()
    }

    fn disconnected(&mut self, outside: &mut dyn Outside) {
        self.over = true;
        self.requests.abort_all(outside);
    }

    fn output(&mut self) -> &mut Vec<u8> {
        &mut self.output
    }

    fn is_stranger(&self) -> bool {
        matches!(
            self.expects,
            Expects::ClientFlags | Expects::Option | Expects::OptionData { .. }
        )
    }

    fn is_over(&self) -> bool {
        self.over || matches!(self.expects, Expects::Nothing) && self.requests.is_empty()
    }
}
