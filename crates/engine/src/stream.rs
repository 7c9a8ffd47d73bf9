//! One TCP connection on the ring: at most one receive and one send are posted, each on a buffer of its own.
//!
//! The buffers belong to the stream while something is posted on them. A stream that is dropped before all of it
//! was reaped leaks them: the kernel may still write there.

use crate::memory::{Pages, Piece};
use crate::ring::{Ring, Token};
use io_uring::{opcode, types};
use socket2::Socket;
use std::io::{self, IoSlice};
use std::mem;
use std::net::Shutdown;
use std::ops::Range;
use std::os::fd::AsRawFd;
use twincell_core::ids::{ATOMIC_GRANULES, Nanos};

/// Most pieces of memory that are sent, or received into, at once.
const PIECES_MAX: usize = ATOMIC_GRANULES;
/// A piece of payload of so many bytes or more is received straight into place.
pub(crate) const IN_PLACE_BYTES: usize = 16 << 10;
/// A buffer of more bytes is not kept when all of it was sent.
const KEPT_BYTES_MAX: usize = 1 << 20;
/// After a large piece so many receives are small.
const SMALL_RECEIVES: u8 = 8;

/// What there was to be received at once.
pub(crate) enum Came {
    /// So many bytes; there may be more.
    Bytes(usize),
    /// Nothing now.
    Nothing,
    /// Nothing any more.
    End,
}

/// A connection.
pub(crate) struct Stream {
    socket: Socket,
    /// Received: `input[filled]` is in hand, the kernel writes only behind it.
    input: Pages,
    filled: Range<usize>,
    receiving: bool,
    /// What is posted only tells that there is something.
    polling: bool,
    /// Receives that are to be small, because large pieces come; and how small.
    small_receives: u8,
    ahead: usize,
    /// Being sent, from `sent` on.
    output: Vec<u8>,
    sent: usize,
    sending: bool,
    /// Nothing more is posted.
    closed: bool,
}

impl Stream {
    /// With room for `input_bytes` bytes that were received and not consumed. `ahead` bytes are received behind a large
    /// piece, or before the next one is known to be none: enough for what comes before its payload, and so few that nearly
    /// all of that is still with the kernel when its place is known.
    pub(crate) fn new(socket: Socket, input_bytes: usize, ahead: usize) -> Stream {
        // Without it small frames wait for an acknowledgement. A socket that refuses is closed by its next operation.
        let _ = socket.set_tcp_nodelay(true);
        Stream {
            socket,
            input: Pages::new(input_bytes),
            filled: 0..0,
            receiving: false,
            polling: false,
            small_receives: 0,
            ahead,
            output: Vec::new(),
            sent: 0,
            sending: false,
            closed: false,
        }
    }

    /// Posts a receive if none is and there is room for `room` more bytes; what is in hand may move for it. `missing`:
    /// bytes of a large piece that is to come this way.
    pub(crate) fn post_receive(&mut self, ring: &mut Ring, token: Token, room: usize, missing: usize) {
        if self.receiving || self.closed {
            return;
        }
        if self.filled.is_empty() {
            self.filled = 0..0;
        } else if self.input.len() - self.filled.end < room {
            let filled = self.filled.clone();
            self.filled = 0..filled.len();
            self.input.bytes_mut().copy_within(filled, 0);
        }
        let free = self.input.len() - self.filled.end;
        if free == 0 {
            return;
        }
        let most = if missing > 0 || self.small_receives > 0 {
            self.small_receives = self.small_receives.saturating_sub(1);
            free.min(missing.max(room) + self.ahead)
        } else {
            free
        };
        // SAFETY: `end` is within the buffer.
        let start = unsafe { self.input.as_ptr().add(self.filled.end) };
        let entry = opcode::Recv::new(types::Fd(self.socket.as_raw_fd()), start, most as u32).build();
        // SAFETY: the buffer stays where it is, and nobody touches it behind `filled`, until `received` is told of
        // the completion; `drop` leaks it otherwise.
        unsafe { ring.post(token, entry) };
        self.receiving = true;
    }

    /// Receives at once what there is: into `pieces`, at most [`PIECES_MAX`], and a little of what follows into the input,
    /// which is empty. The bytes of `pieces` count as used by nobody else only during the call: nothing stays posted.
    pub(crate) fn receive_at_once(&mut self, pieces: impl Iterator<Item = Piece>) -> Came {
        assert!(self.filled.is_empty() && !self.receiving, "what is in hand comes first");
        if self.closed {
            return Came::Nothing;
        }
        self.expect_large();
        let ahead = libc::iovec {
            iov_base: self.input.as_ptr().cast(),
            iov_len: self.ahead.min(self.input.len()),
        };
        let mut iovecs = [ahead; PIECES_MAX + 1];
        let (mut used, mut bytes) = (0, 0);
        for (iovec, piece) in iovecs[..PIECES_MAX].iter_mut().zip(pieces) {
            *iovec = piece.iovec();
            used += 1;
            bytes += piece.len();
        }
        // SAFETY: all zero is a `msghdr`.
        let mut message: libc::msghdr = unsafe { mem::zeroed() };
        message.msg_iov = iovecs.as_mut_ptr();
        message.msg_iovlen = used + 1;
        // SAFETY: the iovecs live until the call returns, and so does what they point to: the input, on which nothing is
        // posted, and pieces of the engine's memory, which the core lets nobody else use meanwhile. It is needed because
        // std receives only into slices, and pieces are none: no reference is to claim more than one copy.
        let result = unsafe { libc::recvmsg(self.socket.as_raw_fd(), &mut message, libc::MSG_DONTWAIT) };
        match usize::try_from(result) {
            Ok(0) => Came::End,
            Ok(came) => {
                self.filled = 0..came.saturating_sub(bytes);
                Came::Bytes(came.min(bytes))
            }
            Err(_) => match io::Error::last_os_error().kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Came::Nothing,
                _ => Came::End,
            },
        }
    }

    /// A large piece has come: another may, and is not to be received where it has to be copied from.
    pub(crate) fn expect_large(&mut self) {
        self.small_receives = SMALL_RECEIVES;
    }

    /// Appends bytes to the input as if they had just been received. Nothing is posted, and there is room.
    pub(crate) fn put_back(&mut self, bytes: &[u8]) {
        assert!(!self.receiving, "the kernel writes behind what is in hand");
        if self.filled.is_empty() {
            self.filled = 0..0;
        }
        let end = self.filled.end + bytes.len();
        self.input.bytes_mut()[self.filled.end..end].copy_from_slice(bytes);
        self.filled.end = end;
    }

    /// Posts a question whether there is something to be received, if nothing is posted.
    pub(crate) fn post_poll(&mut self, ring: &mut Ring, token: Token) {
        if self.receiving || self.closed {
            return;
        }
        let fd = types::Fd(self.socket.as_raw_fd());
        let entry = opcode::PollAdd::new(fd, libc::POLLIN as u32).build();
        // SAFETY: a poll points to no memory.
        unsafe { ring.post(token, entry) };
        self.receiving = true;
        self.polling = true;
    }

    /// Whether something is posted that tells when there is more.
    pub(crate) fn is_receiving(&self) -> bool {
        self.receiving
    }

    /// The completion of a receive: whether the connection goes on.
    pub(crate) fn received(&mut self, result: i32) -> bool {
        self.receiving = false;
        let polling = mem::take(&mut self.polling);
        match result {
            _ if self.closed => false,
            1.. if polling => true,
            1.. => {
                self.filled.end += result as usize;
                true
            }
            _ => result == -libc::EINTR || result == -libc::EAGAIN,
        }
    }

    /// What was received and not consumed.
    pub(crate) fn input(&self) -> &[u8] {
        // SAFETY: the range is within the buffer and initialized; a posted receive writes only behind it.
        unsafe { std::slice::from_raw_parts(self.input.as_ptr().add(self.filled.start), self.filled.len()) }
    }

    /// Drops the first `bytes` of what was received.
    pub(crate) fn consume(&mut self, bytes: usize) {
        assert!(bytes <= self.filled.len());
        self.filled.start += bytes;
    }

    /// Sends `next` and then `pieces`, at most [`PIECES_MAX`], as much as the kernel takes now, if nothing else is being
    /// sent. What it does not take is in `next` afterwards. Returns how many bytes of the pieces were copied there.
    pub(crate) fn send_at_once<'a>(&self, next: &mut Vec<u8>, pieces: impl Iterator<Item = &'a [u8]> + Clone) -> usize {
        let mut taken = 0;
        if !self.closed && self.unsent() == 0 {
            let mut slices = [IoSlice::new(&[]); PIECES_MAX + 1];
            slices[0] = IoSlice::new(next);
            let mut used = 1;
            for (slice, piece) in slices[1..].iter_mut().zip(pieces.clone()) {
                *slice = IoSlice::new(piece);
                used += 1;
            }
            let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
            let result = self.socket.send_vectored_with_flags(&slices[..used], flags);
            // Nothing was taken where it failed; if that was not for want of room, the send that is posted later fails.
            taken = result.unwrap_or(0);
        }
        let of_next = taken.min(next.len());
        next.drain(..of_next);
        let mut skip = taken - of_next;
        let mut copied = 0;
        for piece in pieces {
            let rest = &piece[skip.min(piece.len())..];
            skip -= piece.len() - rest.len();
            next.extend_from_slice(rest);
            copied += rest.len();
        }
        copied
    }

    /// Posts a send of all of `next`, which it empties, if nothing is being sent.
    pub(crate) fn post_send(&mut self, ring: &mut Ring, token: Token, next: &mut Vec<u8>) {
        if self.closed {
            next.clear();
        }
        if self.sending || self.closed {
            return;
        }
        if self.sent == self.output.len() {
            self.output.clear();
            self.sent = 0;
            mem::swap(&mut self.output, next);
        }
        if self.output.is_empty() {
            // A host that was slow once would hold as much for as long as it is connected.
            let_go_of_room(&mut self.output);
            let_go_of_room(next);
            return;
        }
        let rest = &self.output[self.sent..];
        let fd = types::Fd(self.socket.as_raw_fd());
        let length = u32::try_from(rest.len()).unwrap_or(u32::MAX);
        let entry = opcode::Send::new(fd, rest.as_ptr(), length)
            .flags(libc::MSG_NOSIGNAL)
            .build();
        // SAFETY: `output` is not changed until `sent` is told of the completion; `drop` leaks it otherwise.
        unsafe { ring.post(token, entry) };
        self.sending = true;
    }

    /// The completion of a send: whether the connection goes on.
    pub(crate) fn sent(&mut self, result: i32) -> bool {
        self.sending = false;
        match result {
            _ if self.closed => false,
            0.. => {
                self.sent += result as usize;
                true
            }
            _ => result == -libc::EINTR || result == -libc::EAGAIN,
        }
    }

    /// How long ago something came from the peer last, whether it was received here or is still with the kernel.
    pub(crate) fn silence(&self) -> Nanos {
        // SAFETY: all zero is a `tcp_info`.
        let mut info: libc::tcp_info = unsafe { mem::zeroed() };
        let mut length = size_of_val(&info) as libc::socklen_t;
        // SAFETY: the kernel writes at most `length` bytes to where `info` is. It is needed because neither std nor socket2 ask for it.
        let failed = unsafe {
            libc::getsockopt(
                self.socket.as_raw_fd(),
                libc::IPPROTO_TCP,
                libc::TCP_INFO,
                (&raw mut info).cast(),
                &mut length,
            )
        };
        // It fails only where the connection is gone.
        Nanos::from_millis(if failed == 0 {
            info.tcpi_last_data_recv.into()
        } else {
            0
        })
    }

    /// Bytes that were given to `post_send` and not yet taken by the kernel.
    pub(crate) fn unsent(&self) -> usize {
        self.output.len() - self.sent
    }

    /// Ends the connection. What is posted completes soon; what was not sent yet is dropped.
    pub(crate) fn close(&mut self) {
        if !mem::replace(&mut self.closed, true) {
            // It fails only where the connection is gone already.
            let _ = self.socket.shutdown(Shutdown::Both);
        }
    }

    /// Whether it was closed.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Whether it was closed and nothing is posted any more.
    pub(crate) fn is_reaped(&self) -> bool {
        self.closed && !self.receiving && !self.sending
    }
}

/// Gives back an empty buffer that has become large.
fn let_go_of_room(buffer: &mut Vec<u8>) {
    if buffer.capacity() > KEPT_BYTES_MAX {
        *buffer = Vec::new();
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if self.receiving {
            mem::forget(mem::replace(&mut self.input, Pages::new(1)));
        }
        if self.sending {
            mem::forget(mem::take(&mut self.output));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};
    use std::time::{Duration, Instant};

    /// What was in hand ended close to the end of the input: what is put back has all of it.
    #[test]
    fn what_is_put_back_has_room() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let socket = TcpStream::connect(listener.local_addr().expect("its address")).expect("connected");
        let mut stream = Stream::new(Socket::from(socket), 4096, 64);
        stream.filled = 4000..4000;
        stream.put_back(&[1; 200]);
        stream.put_back(&[2; 100]);
        assert_eq!(stream.input(), [[1; 200].as_slice(), &[2; 100]].concat());
    }

    /// Nothing is received here: the kernel has it.
    #[test]
    fn silence_ends_when_something_comes() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let mut peer = TcpStream::connect(listener.local_addr().expect("its address")).expect("connected");
        let stream = Stream::new(Socket::from(listener.accept().expect("a peer").0), 4096, 64);
        let until = |what: &str, done: fn(Nanos) -> bool| {
            let begun = Instant::now();
            while !done(stream.silence()) {
                assert!(begun.elapsed() < Duration::from_secs(20), "waited 20 s for {what}");
                std::thread::sleep(Duration::from_millis(1));
            }
        };
        until("silence", |silence| silence >= Nanos::from_millis(500));
        peer.write_all(b"here").expect("sent");
        until("a word", |silence| silence < Nanos::from_millis(500));
    }
}
