//! NBD: one host connection, without I/O.
//!
//! Fixed newstyle handshake, simple replies, no TLS. An export is a LUN, by its name; the empty name is the LUN where
//! there is only one. Requests are whole blocks of 512 bytes; WRITE_ZEROES, TRIM and CACHE are not offered yet.
//!
//! NBD has no answer that means "try again", so [`NbdSession`] itself tries again what the array refuses for the
//! moment (see `Requests::refused`).

mod negotiation;
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
/// What it holds is bounded: see `HELD_BYTES_MAX`. The caller bounds `output` by receiving nothing while
/// there is much of it.
pub struct NbdSession {
    expects: Expects,
    /// The part of what is expected that has come; not for data of writes.
    head: Vec<u8>,
    zeroes: bool,
    requests: Requests,
    /// When something came from the host last.
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

    /// Takes the next thing off `rest`. `false` if it is not yet complete.
    fn take_next(&mut self, rest: &mut &[u8], outside: &mut dyn Outside) -> bool {
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
        match self.refusal(flags, &request) {
            Some(error) => self.refuse(&request, error),
            None => self.begin(request, outside),
        }
    }

    /// Why a request is not even begun. That its range is on the LUN is for the array to say.
    fn refusal(&self, flags: u16, request: &Request) -> Option<u32> {
        let whole_blocks = |n: u64| n.is_multiple_of(BLOCK_BYTES as u64);
        let ranged = request.op() != HostOp::Sync;
        let bad_range = !whole_blocks(request.offset())
            || !whole_blocks(u64::from(request.length()))
            || !(1..=REQUEST_BYTES_MAX).contains(&request.length());
        // FUA may stand on any request; it means something on writes only.
        if flags & !command::FLAG_FUA != 0 || ranged && bad_range {
            Some(error::EINVAL)
        } else if !self.requests.has_room_for(request) {
            Some(error::ENOMEM)
        } else {
            None
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
        let (is_write, length) = (request.is_write(), request.length());
        let of = self.requests.add(request);
        if is_write {
            let left = length as usize;
            self.expects = Expects::Data { of, left };
        }
        if !is_write || length > IN_HAND_MAX {
            self.requests.enqueue(of, outside.now());
            self.go_on(outside);
        }
    }

    fn on_data(&mut self, of: Tag, left: usize, rest: &mut &[u8], outside: &mut dyn Outside) -> bool {
        let (bytes, after) = rest.split_at(left.min(rest.len()));
        *rest = after;
        let left = left - bytes.len();
        self.expects = match left {
            0 => Expects::Request,
            _ => Expects::Data { of, left },
        };
        let length = self.requests.arrived(of, bytes, outside);
        if left == 0 && length <= IN_HAND_MAX {
            self.requests.enqueue(of, outside.now());
            self.go_on(outside);
        }
        left == 0
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

    /// Begins what may begin now. The connection is over if that comes too late.
    fn go_on(&mut self, outside: &mut dyn Outside) {
        let held = self.output.len() + outside.unsent();
        self.over |= self.requests.submit_waiting(held, self.heard, outside).is_err();
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

fn put_reply(output: &mut Vec<u8>, error: u32, cookie: u64) {
    output.extend(REPLY_MAGIC.to_be_bytes());
    output.extend(error.to_be_bytes());
    output.extend(cookie.to_be_bytes());
}

impl Session for NbdSession {
    fn receive(&mut self, bytes: &[u8], outside: &mut dyn Outside) {
        if !bytes.is_empty() {
            self.heard = outside.now();
        }
        self.retry(outside);
        let mut rest = bytes;
        while !self.over && self.take_next(&mut rest, outside) {}
    }

    fn fetch(&mut self, tag: Tag, offset: BlockCount, blocks: BlockCount, outside: &mut dyn Outside) {
        self.requests.fetch(tag, offset, blocks, outside);
    }

    fn send_data(&mut self, tag: Tag, offset: BlockCount, bytes: &[u8]) {
        self.requests.read_data(tag, offset, bytes);
    }

    fn complete(&mut self, tag: Tag, status: Status, outside: &mut dyn Outside) {
        if matches!(status, Status::Busy | Status::Transitioning) {
            self.requests.refused(tag, outside);
        } else if let Some(request) = self.requests.remove(tag) {
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
