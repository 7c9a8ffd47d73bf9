//! One io_uring: typed names for what is posted, a count of what is in flight, and no way to overflow either queue.
//!
//! What is posted and does not fit waits in a backlog. A completion that was not popped counts as in flight: the
//! completion queue has room for all that is in flight, so the kernel never has to drop or to buffer one.

use io_uring::{IoUring, Probe, opcode, squeue, types};
use std::collections::VecDeque;
use std::io;
use std::time::Duration;

/// Entries of the submission queue: what one system call can submit. Small, as the queue below: the kernel counts both
/// controllers' rings against the locked memory of an ordinary user, who may have only 64 KiB.
const SUBMISSIONS: u32 = 128;
/// Entries of the completion queue: what can be in flight.
const COMPLETIONS: u32 = 1024;

/// What was posted, as its completion names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Token {
    /// The read of the eventfd that wakes the engine.
    Wake,
    /// A step of a disk I/O.
    Disk(u32),
    /// An accept of a host on a listener.
    HostAccept(u32),
    /// A receive from a host.
    HostReceive(u32),
    /// A send to a host.
    HostSend(u32),
    /// An accept of the partner on a listener.
    LinkAccept(u32),
    /// The connect to the partner on a path.
    LinkConnect(u32),
    /// A receive from the partner.
    LinkReceive(u32),
    /// A send to the partner.
    LinkSend(u32),
    /// The cancellation of something; that something completes by itself.
    Cancel,
}

impl Token {
    /// The token as `user_data`: its kind above 32 bits of index.
    pub(crate) fn to_user_data(self) -> u64 {
        let (kind, index) = match self {
            Token::Wake => (1, 0),
            Token::Disk(i) => (2, i),
            Token::HostAccept(i) => (3, i),
            Token::HostReceive(i) => (4, i),
            Token::HostSend(i) => (5, i),
            Token::LinkAccept(i) => (6, i),
            Token::LinkConnect(i) => (7, i),
            Token::LinkReceive(i) => (8, i),
            Token::LinkSend(i) => (9, i),
            Token::Cancel => (10, 0),
        };
        kind << 32 | u64::from(index)
    }

    fn from_user_data(data: u64) -> Token {
        let index = data as u32;
        match data >> 32 {
            1 => Token::Wake,
            2 => Token::Disk(index),
            3 => Token::HostAccept(index),
            4 => Token::HostReceive(index),
            5 => Token::HostSend(index),
            6 => Token::LinkAccept(index),
            7 => Token::LinkConnect(index),
            8 => Token::LinkReceive(index),
            9 => Token::LinkSend(index),
            10 => Token::Cancel,
            kind => unreachable!("the kernel gives back what it was given, and {kind} was never given"),
        }
    }
}

/// How an operation ended: what the system call of its name would have returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Completion {
    /// Which.
    pub token: Token,
    /// 0 or more, or a negated `errno`.
    pub result: i32,
}

impl Completion {
    /// The result as std has it.
    pub(crate) fn io_result(self) -> io::Result<u32> {
        u32::try_from(self.result).map_err(|_| io::Error::from_raw_os_error(-self.result))
    }
}

/// The ring.
pub(crate) struct Ring {
    ring: IoUring,
    /// Posted, and not yet in the submission queue.
    backlog: VecDeque<squeue::Entry>,
    /// In the submission queue, in the kernel, or completed and not popped.
    in_flight: usize,
}

impl Ring {
    /// A ring that accepts posts and submits nothing before `enable`. The error says what the kernel lacks.
    pub(crate) fn new() -> Result<Ring, String> {
        let ring = build().map_err(|e| format!("io_uring_setup: {e}"))?;
        let params = ring.params();
        if !params.is_feature_ext_arg() || !params.is_feature_nodrop() {
            return Err("no wait with a time limit".into());
        }
        let mut probe = Probe::new();
        ring.submitter()
            .register_probe(&mut probe)
            .map_err(|e| format!("no probe: {e}"))?;
        let needed = [
            ("readv", opcode::Readv::CODE),
            ("writev", opcode::Writev::CODE),
            ("read", opcode::Read::CODE),
            ("fsync", opcode::Fsync::CODE),
            ("fallocate", opcode::Fallocate::CODE),
            ("accept", opcode::Accept::CODE),
            ("connect", opcode::Connect::CODE),
            ("send", opcode::Send::CODE),
            ("recv", opcode::Recv::CODE),
            ("async_cancel", opcode::AsyncCancel::CODE),
        ];
        match needed.iter().find(|(_, code)| !probe.is_supported(*code)) {
            Some((name, _)) => Err(format!("no operation {name}")),
            None => Ok(Ring {
                ring,
                backlog: VecDeque::with_capacity(SUBMISSIONS as usize),
                in_flight: 0,
            }),
        }
    }

    /// Lets the calling thread, and where the kernel can tell no other, submit.
    pub(crate) fn enable(&self) -> io::Result<()> {
        self.ring.submitter().register_enable_rings()
    }

    /// Posts `entry`; its completion will carry `token`.
    ///
    /// # Safety
    /// Whatever memory `entry` points to is valid, and used by nobody else in a way that conflicts with the
    /// operation, until its completion is popped.
    pub(crate) unsafe fn post(&mut self, token: Token, entry: squeue::Entry) {
        self.backlog.push_back(entry.user_data(token.to_user_data()));
    }

    /// Asks for the end of whatever carries `token`. It completes by itself, cancelled or not.
    pub(crate) fn cancel(&mut self, token: Token) {
        let entry = opcode::AsyncCancel::new(token.to_user_data()).build();
        // SAFETY: a cancellation points to no memory.
        unsafe { self.post(Token::Cancel, entry) }
    }

    /// Operations whose completion was not popped yet, the backlog included.
    pub(crate) fn outstanding(&self) -> usize {
        self.in_flight + self.backlog.len()
    }

    /// Submits what was posted, as far as there is room, and lets the kernel complete what it can. Waits for nothing.
    pub(crate) fn submit(&mut self) -> io::Result<()> {
        self.fill();
        let queue = self.ring.submission();
        let is_needed = !queue.is_empty() || queue.taskrun();
        drop(queue);
        if is_needed {
            forgive(self.ring.submit())?;
        }
        Ok(())
    }

    /// Submits what was posted and waits for a completion: for ever, or up to `timeout`. Returns early on a signal.
    /// One system call, unless more than [`SUBMISSIONS`] were posted.
    pub(crate) fn submit_and_wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        self.fill();
        while !self.backlog.is_empty() && self.in_flight < COMPLETIONS as usize {
            forgive(self.ring.submit())?;
            let before = self.backlog.len();
            self.fill();
            if self.backlog.len() == before {
                break;
            }
        }
        let result = match timeout {
            None => self.ring.submit_and_wait(1),
            Some(timeout) => {
                let timespec = types::Timespec::from(timeout);
                let args = types::SubmitArgs::new().timespec(&timespec);
                self.ring.submitter().submit_with_args(1, &args)
            }
        };
        forgive(result)
    }

    /// Pops all completions that are there.
    pub(crate) fn reap(&mut self, into: &mut Vec<Completion>) {
        for entry in self.ring.completion() {
            self.in_flight -= 1;
            into.push(Completion {
                token: Token::from_user_data(entry.user_data()),
                result: entry.result(),
            });
        }
    }

    /// Moves as much as possible from the backlog to the submission queue.
    fn fill(&mut self) {
        let mut queue = self.ring.submission();
        while self.in_flight < COMPLETIONS as usize && !queue.is_full() {
            let Some(entry) = self.backlog.pop_front() else { break };
            // SAFETY: whoever posted the entry promised that its memory is good until the completion. It is needed
            // because the kernel cannot check that.
            unsafe { queue.push(&entry) }.expect("the queue is not full");
            self.in_flight += 1;
        }
    }
}

/// Builds a ring with the best set-up that this kernel has: one thread that runs its own completions (6.1), then
/// completions without an interrupt of the thread (5.19), then the plain one.
fn build() -> io::Result<IoUring> {
    let base = || {
        let mut builder = IoUring::builder();
        builder.setup_cqsize(COMPLETIONS).setup_r_disabled();
        builder
    };
    base()
        .setup_submit_all()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_taskrun_flag()
        .build(SUBMISSIONS)
        .or_else(|_| {
            base()
                .setup_submit_all()
                .setup_coop_taskrun()
                .setup_taskrun_flag()
                .build(SUBMISSIONS)
        })
        .or_else(|_| base().build(SUBMISSIONS))
}

/// A time-out, a signal, and a shortage that reaping relieves are no errors of a wait.
fn forgive(result: io::Result<usize>) -> io::Result<()> {
    match result {
        Ok(_) => Ok(()),
        Err(e)
            if matches!(
                e.raw_os_error(),
                Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN)
            ) =>
        {
            Ok(())
        }
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    fn ring() -> Ring {
        let ring = Ring::new().expect("a ring");
        ring.enable().expect("enabled");
        ring
    }

    #[test]
    fn tokens_come_back_as_they_were() {
        let tokens = [
            Token::Wake,
            Token::Disk(u32::MAX),
            Token::HostAccept(1),
            Token::HostReceive(2),
            Token::HostSend(3),
            Token::LinkAccept(4),
            Token::LinkConnect(7),
            Token::LinkReceive(5),
            Token::LinkSend(6),
            Token::Cancel,
        ];
        for token in tokens {
            assert_eq!(Token::from_user_data(token.to_user_data()), token);
        }
    }

    #[test]
    fn many_more_operations_than_both_queues_hold_all_complete_once() {
        let mut ring = ring();
        let count = 3 * COMPLETIONS;
        for i in 0..count {
            // SAFETY: a no-op points to no memory.
            unsafe { ring.post(Token::Disk(i), opcode::Nop::new().build()) };
        }
        let mut seen = vec![0; count as usize];
        let mut completions = Vec::new();
        while ring.outstanding() > 0 {
            assert!(ring.in_flight <= COMPLETIONS as usize);
            ring.submit_and_wait(Some(Duration::from_secs(5))).expect("submitted");
            ring.reap(&mut completions);
            assert!(
                !completions.is_empty(),
                "{} operations never completed",
                ring.outstanding()
            );
            for completion in completions.drain(..) {
                let Token::Disk(i) = completion.token else {
                    panic!("{completion:?} was never posted")
                };
                seen[i as usize] += 1;
            }
        }
        assert!(seen.iter().all(|n| *n == 1));
    }

    #[test]
    fn what_completes_later_does_so_without_a_wait() {
        let mut ring = ring();
        let (mut write, read) = std::os::unix::net::UnixStream::pair().expect("a pair");
        let fd = types::Fd(std::os::fd::AsRawFd::as_raw_fd(&read));
        // SAFETY: a poll points to no memory.
        unsafe { ring.post(Token::Wake, opcode::PollAdd::new(fd, libc::POLLIN as u32).build()) };
        let mut completions = Vec::new();
        ring.submit().expect("submitted");
        ring.reap(&mut completions);
        assert!(completions.is_empty() && ring.outstanding() == 1);
        std::io::Write::write_all(&mut write, &[1]).expect("sent");
        let begun = Instant::now();
        while completions.is_empty() {
            assert!(begun.elapsed() < Duration::from_secs(5), "waited 5 s for a completion");
            ring.submit().expect("submitted");
            ring.reap(&mut completions);
        }
        assert_eq!(ring.outstanding(), 0);
    }

    #[test]
    fn a_wait_ends_with_its_timeout() {
        let mut ring = ring();
        let begun = Instant::now();
        ring.submit_and_wait(Some(Duration::from_millis(30))).expect("waited");
        assert!(begun.elapsed() >= Duration::from_millis(25));
        assert_eq!(ring.outstanding(), 0);
    }

    #[test]
    fn a_cancelled_operation_completes() {
        let mut ring = ring();
        let (_write, read) = std::os::unix::net::UnixStream::pair().expect("a pair");
        let mut buffer = [0u8; 8];
        let fd = types::Fd(std::os::fd::AsRawFd::as_raw_fd(&read));
        let entry = opcode::Recv::new(fd, buffer.as_mut_ptr(), 8).build();
        // SAFETY: `buffer` lives until both completions are popped below.
        unsafe { ring.post(Token::HostReceive(7), entry) };
        ring.cancel(Token::HostReceive(7));
        let mut completions = Vec::new();
        while ring.outstanding() > 0 {
            ring.submit_and_wait(Some(Duration::from_secs(5))).expect("submitted");
            let before = completions.len();
            ring.reap(&mut completions);
            assert!(completions.len() > before, "the receive was not cancelled in 5 s");
        }
        let receive = completions
            .iter()
            .find(|c| c.token == Token::HostReceive(7))
            .expect("its completion");
        assert_eq!(receive.result, -libc::ECANCELED);
    }
}
