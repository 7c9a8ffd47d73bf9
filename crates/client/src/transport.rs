//! A TCP connection that never blocks in sending: a peer that does not read until it is read from cannot lock both up.

use std::io::{ErrorKind, IoSlice, Read, Write};
use std::net::{Shutdown, TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::error::Error;

/// Bytes that the input buffer starts with.
const BUFFER: usize = 512 << 10;

/// A connection with buffers on both sides.
pub struct Transport {
    stream: TcpStream,
    input: Vec<u8>,
    /// `input[from..to]` has come and is not yet consumed.
    from: usize,
    to: usize,
    output: Vec<u8>,
    /// `output[..sent]` is with the kernel.
    sent: usize,
}

impl Transport {
    /// Connects to `HOST:PORT`, trying each of its addresses until `until`.
    pub fn connect(address: &str, until: Instant) -> Result<Transport, Error> {
        let addresses = address
            .to_socket_addrs()
            .map_err(|e| Error::Connection(format!("{address}: {e}")))?;
        let mut last = Error::Connection(format!("{address}: no such host"));
        for candidate in addresses {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Error::TimedOut(format!("{address}: connecting")));
            }
            match TcpStream::connect_timeout(&candidate, left).and_then(prepare) {
                Ok(stream) => return Ok(Transport::over(stream)),
                Err(e) => last = Error::Connection(format!("{address}: {e}")),
            }
        }
        Err(last)
    }

    fn over(stream: TcpStream) -> Transport {
        Transport {
            stream,
            input: vec![0; BUFFER],
            from: 0,
            to: 0,
            output: Vec::new(),
            sent: 0,
        }
    }

    /// Sends `parts`, one after the other. What the kernel does not take now goes out during `exchange`.
    pub fn send(&mut self, parts: &[&[u8]]) -> Result<(), Error> {
        let mut taken = 0;
        if self.is_sent() {
            let slices: Vec<IoSlice> = parts.iter().map(|p| IoSlice::new(p)).collect();
            taken = ready((&self.stream).write_vectored(&slices))?.unwrap_or(0);
        }
        for part in parts {
            let skip = taken.min(part.len());
            taken -= skip;
            self.output.extend_from_slice(&part[skip..]);
        }
        Ok(())
    }

    /// What has come and is not consumed.
    pub fn received(&self) -> &[u8] {
        &self.input[self.from..self.to]
    }

    /// Drops the first `length` bytes of what has come.
    pub fn consume(&mut self, length: usize) {
        self.from += length;
        assert!(self.from <= self.to, "consumed more than has come");
        if self.from == self.to {
            (self.from, self.to) = (0, 0);
        }
    }

    /// Moves bytes in both directions until something has come. `false` if nothing has until `until`.
    pub fn exchange(&mut self, until: Instant) -> Result<bool, Error> {
        loop {
            let pending = !self.is_sent();
            let flags = if pending {
                PollFlags::IN | PollFlags::OUT
            } else {
                PollFlags::IN
            };
            let left = until.saturating_duration_since(Instant::now());
            let mut fds = [PollFd::new(&self.stream, flags)];
            match poll(&mut fds, Some(&timespec(left))) {
                Ok(0) => return Ok(false),
                Ok(_) => {}
                Err(rustix::io::Errno::INTR) => continue,
                Err(e) => return Err(Error::Connection(format!("poll: {e}"))),
            }
            let readable = fds[0].revents() != PollFlags::OUT;
            if pending {
                self.send_pending()?;
            }
            if readable && self.read_some()? {
                return Ok(true);
            }
        }
    }

    /// Waits until at least `length` bytes have come.
    pub fn receive_at_least(&mut self, length: usize, until: Instant, what: &str) -> Result<(), Error> {
        while self.to - self.from < length {
            if !self.exchange(until)? {
                return Err(Error::TimedOut(what.to_string()));
            }
        }
        Ok(())
    }

    /// Ends the connection so that no byte of it is executed after this returns, as far as a host can bring that about.
    ///
    /// First an orderly end: the peer reads what was sent, sees the end, and closes, which is waited for up to `grace`.
    /// Then a reset, which discards whatever still waits to be sent.
    pub fn close(mut self, grace: Duration) {
        let until = Instant::now() + grace;
        if self.is_sent() && self.stream.shutdown(Shutdown::Write).is_ok() {
            while let Ok(true) = self.exchange(until) {
                self.consume(self.to - self.from);
            }
        }
        // Nothing more can be done where even this fails: the socket is gone then.
        let _ = rustix::net::sockopt::set_socket_linger(&self.stream, Some(Duration::ZERO));
    }

    fn is_sent(&self) -> bool {
        self.sent == self.output.len()
    }

    fn send_pending(&mut self) -> Result<(), Error> {
        self.sent += ready((&self.stream).write(&self.output[self.sent..]))?.unwrap_or(0);
        if self.is_sent() {
            self.output.clear();
            self.sent = 0;
        }
        Ok(())
    }

    fn read_some(&mut self) -> Result<bool, Error> {
        if self.to == self.input.len() {
            self.input.copy_within(self.from..self.to, 0);
            (self.from, self.to) = (0, self.to - self.from);
            if self.to > self.input.len() / 2 {
                self.input.resize(self.input.len() * 2, 0);
            }
        }
        match ready((&self.stream).read(&mut self.input[self.to..]))? {
            Some(0) => Err(Error::Connection("the other side has closed it".into())),
            Some(length) => {
                self.to += length;
                Ok(true)
            }
            None => Ok(false),
        }
    }
}

fn prepare(stream: TcpStream) -> std::io::Result<TcpStream> {
    stream.set_nodelay(true)?;
    stream.set_nonblocking(true)?;
    Ok(stream)
}

/// `None` where the call would have blocked.
fn ready(result: std::io::Result<usize>) -> Result<Option<usize>, Error> {
    match result {
        Ok(length) => Ok(Some(length)),
        Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(None),
        Err(e) => Err(Error::Connection(e.to_string())),
    }
}

/// Rounded up to a whole microsecond, so that a wait never ends just before its time.
fn timespec(left: Duration) -> Timespec {
    let left = left + Duration::from_micros(1);
    Timespec {
        tv_sec: left.as_secs() as i64,
        tv_nsec: i64::from(left.subsec_nanos()),
    }
}
