//! Listening sockets on the ring. An address is bound when the engine opens, so that a conflict is found then; it
//! accepts only while it is open, and refuses otherwise, so that a host tries another path at once.

use crate::clock;
use crate::error::OpenError;
use crate::ring::{Completion, Ring, Token};
use io_uring::{opcode, types};
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsRawFd, FromRawFd};
use std::time::{Duration, Instant};
use tracing::warn;
use twincell_core::ids::{Nanos, Time};

/// Connections that the kernel keeps until they are accepted.
const BACKLOG: i32 = 128;
/// How long to wait after an accept that failed, for want of descriptors as a rule.
const RETRY: Nanos = Nanos::from_millis(100);

/// How long an address that is in use is waited for. A process that was killed lets go of its sockets only when the kernel
/// has ended what its ring had posted, some milliseconds after the process is gone.
const PREDECESSOR: Duration = Duration::from_secs(2);

/// Tries again while the address is in use, and gives up after a while.
fn patiently(bind: impl Fn() -> io::Result<Socket>) -> io::Result<Socket> {
    let begun = Instant::now();
    loop {
        match bind() {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && begun.elapsed() < PREDECESSOR => {
                std::thread::sleep(Duration::from_millis(10));
            }
            result => return result,
        }
    }
}

/// A bound address.
pub(crate) struct Listener {
    address: SocketAddr,
    socket: Socket,
    token: Token,
    open: bool,
    accepting: bool,
    retry_at: Option<Time>,
}

impl Listener {
    /// What it is bound to.
    #[cfg(test)]
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// What connections inherit their options from.
    pub(crate) fn socket(&self) -> &Socket {
        &self.socket
    }

    /// Binds `address`, which the setting `option` names. Accepts will carry `token`.
    pub(crate) fn bind(address: SocketAddr, option: &'static str, token: Token) -> Result<Listener, OpenError> {
        let refused = |source| OpenError::Listen {
            address,
            option,
            source,
        };
        let bind = || -> io::Result<Socket> {
            let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
            if address.is_ipv6() {
                socket.set_only_v6(true)?;
            }
            // Connections of a predecessor that are not quite over must not keep the address.
            socket.set_reuse_address(true)?;
            socket.bind(&address.into())?;
            // Two sockets that do not listen may be bound to one address; only `listen` finds that out.
            socket.listen(BACKLOG)?;
            unlisten(&socket)?;
            Ok(socket)
        };
        Ok(Listener {
            address,
            socket: patiently(bind).map_err(refused)?,
            token,
            open: false,
            accepting: false,
            retry_at: None,
        })
    }

    /// Lets connections in.
    pub(crate) fn open(&mut self, ring: &mut Ring) {
        if self.open {
            return;
        }
        self.open = true;
        self.resume(ring);
    }

    /// Refuses connections from here on. The posted accept completes soon.
    pub(crate) fn close(&mut self) {
        if self.open {
            self.open = false;
            self.retry_at = None;
            // It can fail only if it does not listen.
            let _ = unlisten(&self.socket);
        }
    }

    /// The completion of an accept: the connection, if there is one and it is wanted.
    pub(crate) fn accepted(&mut self, completion: Completion, ring: &mut Ring) -> Option<Socket> {
        self.accepting = false;
        let connection = match completion.io_result() {
            Ok(fd) => {
                // SAFETY: the kernel has just made this descriptor for this accept, and nobody else has it.
                let socket = unsafe { Socket::from_raw_fd(fd as i32) };
                self.open.then_some(socket)
            }
            Err(_) if !self.open => None,
            // EINVAL: it was closed, and opened again since.
            Err(e)
                if matches!(
                    e.raw_os_error(),
                    Some(libc::ECONNABORTED | libc::EINTR | libc::EAGAIN | libc::EINVAL)
                ) =>
            {
                None
            }
            Err(e) => {
                warn!(address = %self.address, "accept failed, trying again soon: {e}");
                self.retry_at = Some(clock::now() + RETRY);
                return None;
            }
        };
        if self.open {
            self.resume(ring);
        }
        connection
    }

    /// When to poll next.
    pub(crate) fn next_deadline(&self) -> Option<Time> {
        self.retry_at
    }

    /// Tries again after a failure.
    pub(crate) fn poll(&mut self, now: Time, ring: &mut Ring) {
        if self.retry_at.is_some_and(|at| at <= now) {
            self.resume(ring);
        }
    }

    fn resume(&mut self, ring: &mut Ring) {
        self.retry_at = None;
        if self.accepting {
            return;
        }
        // On a socket that listens it changes nothing.
        if let Err(e) = self
            .socket
            .set_reuse_address(true)
            .and_then(|()| self.socket.listen(BACKLOG))
        {
            warn!(address = %self.address, "cannot listen, trying again soon: {e}");
            self.retry_at = Some(clock::now() + RETRY);
            return;
        }
        let fd = types::Fd(self.socket.as_raw_fd());
        let entry = opcode::Accept::new(fd, std::ptr::null_mut(), std::ptr::null_mut())
            .flags(libc::SOCK_CLOEXEC)
            .build();
        // SAFETY: both pointers are null, which accept4(2) allows: no address is wanted.
        unsafe { ring.post(self.token, entry) };
        self.accepting = true;
    }
}

/// Ends the state LISTEN and keeps the address: with SO_REUSEADDR somebody else could bind it now.
fn unlisten(socket: &Socket) -> io::Result<()> {
    socket.shutdown(Shutdown::Read)?;
    socket.set_reuse_address(false)
}
