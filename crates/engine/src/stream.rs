//! One TCP connection on the ring: at most one receive and one send are posted, each on a buffer of its own.
//!
//! The buffers belong to the stream while something is posted on them. A stream that is dropped before all of it
//! was reaped leaks them: the kernel may still write there.

use crate::memory::Pages;
use crate::ring::{Ring, Token};
use io_uring::{opcode, types};
use socket2::Socket;
use std::io::IoSlice;
use std::mem;
use std::net::Shutdown;
use std::ops::Range;
use std::os::fd::AsRawFd;
use twincell_core::ids::ATOMIC_GRANULES;

/// Most pieces of memory that are sent at once.
const PIECES_MAX: usize = ATOMIC_GRANULES;

/// A connection.
pub(crate) struct Stream {
    socket: Socket,
    /// Received: `input[filled]` is in hand, the kernel writes only behind it.
    input: Pages,
    filled: Range<usize>,
    receiving: bool,
    /// Being sent, from `sent` on.
    output: Vec<u8>,
    sent: usize,
    sending: bool,
    /// Nothing more is posted.
    closed: bool,
}

impl Stream {
    /// With room for `input_bytes` bytes that were received and not consumed.
    pub(crate) fn new(socket: Socket, input_bytes: usize) -> Stream {
        // Without it small frames wait for an acknowledgement. A socket that refuses is closed by its next operation.
        let _ = socket.set_tcp_nodelay(true);
        Stream {
            socket,
            input: Pages::new(input_bytes),
            filled: 0..0,
            receiving: false,
            output: Vec::new(),
            sent: 0,
            sending: false,
            closed: false,
        }
    }

    /// Posts a receive if none is and there is room for `room` more bytes; what is in hand may move for it.
    pub(crate) fn post_receive(&mut self, ring: &mut Ring, token: Token, room: usize) {
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
        // SAFETY: `end` is within the buffer.
        let start = unsafe { self.input.as_ptr().add(self.filled.end) };
        let entry = opcode::Recv::new(types::Fd(self.socket.as_raw_fd()), start, free as u32).build();
        // SAFETY: the buffer stays where it is, and nobody touches it behind `filled`, until `received` is told of
        // the completion; `drop` leaks it otherwise.
        unsafe { ring.post(token, entry) };
        self.receiving = true;
    }

    /// The completion of a receive: whether the connection goes on.
    pub(crate) fn received(&mut self, result: i32) -> bool {
        self.receiving = false;
        match result {
            _ if self.closed => false,
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
