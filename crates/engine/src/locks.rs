//! The lock bytes of the disks (R5): byte 0 of each disk is A's, byte 1 is B's, held exclusively through the very
//! descriptors that write. A lock of an open file description is released when the last use of it ends, the
//! kernel's own uses for disk I/O in flight included: that is what makes it a drain. A process may hold both bytes: that
//! of its partner is a fence (`fence::kill`).

use crate::disk::{Disk, Voters, is_majority};
use crate::error::OpenError;
use crate::fence::{Fence, RETRY};
use std::io;
use std::os::fd::RawFd;
use tracing::{info, warn};
use twincell_core::event::Event;
use twincell_core::ids::{Controller, ProcessId, Time};

/// What is known of a byte on a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lock {
    /// Nobody has asked, or another holds it.
    Open,
    Held,
    /// Nobody could say: whoever holds the locks of this disk does not answer, or has none.
    Unknown,
}

/// One controller's byte on every disk.
pub(crate) struct Byte {
    offset: i64,
    voters: Voters,
    /// By disk.
    locks: Vec<Lock>,
    /// It is held, or may be, on some disk: then it is wanted on all.
    wanted: bool,
}

impl Byte {
    pub(crate) fn new(of: Controller, disks: usize, voters: &Voters) -> Byte {
        Byte {
            offset: of.index() as i64,
            voters: *voters,
            locks: vec![Lock::Open; disks],
            wanted: false,
        }
    }

    /// Tries to take what is missing; whether it is held wherever anybody can say who holds it, and on most of the disks that
    /// vote. Nobody writes or serves who does not hold its own on so many: so whoever has the byte of another there knows that
    /// this one does neither. Of a disk where it is not held nothing is known, and nothing may be posted there (`has`).
    ///
    /// A disk of which nothing `counts`, because it was given up, holds nobody up: it may hang for ever with a write of who held the
    /// byte. What lands there late is nothing, because what is on that disk is nothing before all of it was copied anew.
    pub(crate) fn take(&mut self, disks: &[Option<RawFd>], counts: &dyn Fn(usize) -> bool) -> bool {
        for (n, fd) in disks.iter().enumerate() {
            if let Some(fd) = fd.filter(|_| !self.has(n)) {
                self.try_at(n, fd);
            }
        }
        self.wanted |= self.locks.iter().any(|lock| *lock != Lock::Open);
        let is_open = |n: usize| self.locks[n] == Lock::Open && disks[n].is_some() && counts(n);
        !(0..disks.len()).any(is_open) && is_majority(&self.voters, |n| self.has(n))
    }

    /// Whether it is held on disk `n`.
    pub(crate) fn has(&self, n: usize) -> bool {
        self.locks.get(n) == Some(&Lock::Held)
    }

    /// Whether it is held on disk `n`, or can be had there now. Also true where it is wanted on none.
    pub(crate) fn hold(&mut self, n: usize, disk: RawFd) -> bool {
        !self.wanted || self.try_at(n, disk)
    }

    fn try_at(&mut self, n: usize, disk: RawFd) -> bool {
        let lock = match set_lock(disk, libc::F_WRLCK, self.offset) {
            Ok(()) => Lock::Held,
            Err(e) if is_held_by_another(&e) => Lock::Open,
            Err(e) => {
                if self.locks[n] != Lock::Unknown {
                    warn!(
                        disk = n,
                        offset = self.offset,
                        "a disk cannot be locked, and is not used: {e}"
                    );
                }
                Lock::Unknown
            }
        };
        self.locks[n] = lock;
        lock == Lock::Held
    }

    /// The descriptor of disk `n` is closed, and with it what was held there.
    pub(crate) fn forget(&mut self, n: usize) {
        self.locks[n] = Lock::Open;
    }

    pub(crate) fn release(&mut self, disks: &[Option<RawFd>]) {
        self.wanted = false;
        self.release_where(disks, |_| true);
    }

    /// Also where nobody could say: what was asked for there may have been given.
    fn release_where(&mut self, disks: &[Option<RawFd>], is_wanted: impl Fn(usize) -> bool) {
        for n in (0..disks.len()).filter(|n| is_wanted(*n)) {
            let was = std::mem::replace(&mut self.locks[n], Lock::Open);
            if let Some(fd) = disks[n].filter(|_| was != Lock::Open)
                && let Err(e) = set_lock(fd, libc::F_UNLCK, self.offset)
            {
                warn!(offset = self.offset, "a lock was not given back: {e}");
            }
        }
    }
}

/// This controller's own lock byte on all disks, and the fence that keeps its partner out.
pub(crate) struct Locks {
    /// The descriptors that write, by disk.
    disks: Vec<Option<RawFd>>,
    own: Byte,
    /// When to try to take the own byte again; `None` where that is not wanted.
    retry_at: Option<Time>,
    fence: Box<dyn Fence>,
}

impl Locks {
    /// Nothing is held yet. The descriptors stay open until `close` says that they do not.
    pub(crate) fn new(
        controller: Controller,
        disks: Vec<Option<RawFd>>,
        voters: &Voters,
        fence: Box<dyn Fence>,
    ) -> Locks {
        Locks {
            own: Byte::new(controller, disks.len(), voters),
            disks,
            retry_at: None,
            fence,
        }
    }

    /// Wants this controller's own byte everywhere, and its writes let through. `poll` says when it is so.
    pub(crate) fn take_own(&mut self, now: Time) {
        self.retry_at = Some(now);
    }

    /// Wants the partner out. `poll` says when that is proven.
    pub(crate) fn fence(&mut self, now: Time, partner: ProcessId) {
        self.fence.take(now, partner);
    }

    /// Lets the partner in again.
    pub(crate) fn unfence(&mut self) {
        self.fence.release();
    }

    /// Whether this controller's own byte is held on disk `n`, and its writes are let through there: also when `LocksTaken` was
    /// told that may be missing on some.
    pub(crate) fn has_taken(&mut self, n: usize) -> bool {
        self.own.has(n) && self.fence.has_entered(n)
    }

    /// Whether what is held on all disks is so on disk `n`, which may have been out of reach when the others were locked.
    pub(crate) fn hold(&mut self, n: usize) -> bool {
        let Some(disk) = self.disks[n] else { return false };
        self.own.hold(n, disk) && self.fence.holds(n)
    }

    /// Whether only taking everything anew would let this controller's writes through on disk `n`, which answers.
    pub(crate) fn must_enter_anew(&self, n: usize) -> bool {
        self.fence.must_enter_anew(n)
    }

    /// Has disk `n`, which was opened since the others were locked, locked as they are and this controller's writes let through
    /// there; whether that is so. Asked again until it is.
    pub(crate) fn admit(&mut self, n: usize) -> bool {
        self.hold(n) && self.fence.admit(n)
    }

    /// Disk `n` is about to be closed: nothing of this process is in flight there.
    pub(crate) fn close(&mut self, n: usize) {
        self.disks[n] = None;
        self.own.forget(n);
        self.fence.close(n);
    }

    /// Disk `n` is open now, or open anew. It may be used once `hold` says so.
    ///
    /// # Errors
    /// The fence does not work with it.
    pub(crate) fn open(&mut self, n: usize, disk: &Disk) -> Result<(), OpenError> {
        self.fence.open(n, disk)?;
        self.disks[n] = Some(disk.fd());
        Ok(())
    }

    /// Gives everything back. Only when no disk I/O of this process is in flight.
    pub(crate) fn release_all(&mut self) {
        self.own.release(&self.disks);
        self.retry_at = None;
        self.fence.leave();
    }

    /// Gives the own byte back where no disk I/O of this process is in flight, which `is_idle` says.
    pub(crate) fn release_where(&mut self, is_idle: impl Fn(usize) -> bool) {
        self.retry_at = None;
        self.own.release_where(&self.disks, is_idle);
    }

    /// When to poll next.
    pub(crate) fn next_deadline(&self) -> Option<Time> {
        [self.retry_at, self.fence.next_deadline()].into_iter().flatten().min()
    }

    /// Tries what is wanted, if it is time. `counts` says which disks have anything that counts, `oldest_io` when the oldest disk I/O in
    /// flight was posted.
    pub(crate) fn poll(
        &mut self,
        now: Time,
        counts: impl Fn(usize) -> bool,
        oldest_io: impl Fn() -> Option<Time>,
        mut happened: impl FnMut(Event),
    ) {
        if self.retry_at.is_some_and(|at| now >= at) {
            let held = self.own.take(&self.disks, &counts) && self.fence.enter(now);
            self.retry_at = (!held).then_some(now + RETRY);
            if held {
                happened(Event::LocksTaken);
            }
        }
        if let Some(proof) = self.fence.poll(now, &counts, &oldest_io) {
            info!("fence: {proof}");
            happened(Event::Fenced);
        }
    }
}

fn is_held_by_another(e: &io::Error) -> bool {
    matches!(e.raw_os_error(), Some(libc::EAGAIN | libc::EACCES))
}

/// Locks or unlocks one byte for the open file description of `fd`; does not wait.
fn set_lock(fd: RawFd, kind: libc::c_int, offset: i64) -> io::Result<()> {
    let lock = libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: offset,
        l_len: 1,
        l_pid: 0,
    };
    // SAFETY: the pointer is that of a local `flock`, only read here. It is needed because std's locks are of whole
    // files.
    let result = unsafe { libc::fcntl(fd, libc::F_OFD_SETLK, &lock) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fence::KillFence;
    use crate::process;
    use crate::testing::{FORKS, TempDir};
    use std::fs::{File, OpenOptions};
    use std::os::fd::AsRawFd;
    use twincell_core::ids::DiskIndex;

    const DISKS: usize = 3;

    struct World {
        dir: TempDir,
    }

    impl World {
        fn new() -> World {
            let dir = TempDir::on_disk("locks");
            for i in 0..DISKS {
                std::fs::write(dir.path(&format!("disk{i}")), [0; 512]).expect("a disk");
            }
            World { dir }
        }

        /// A controller with descriptors of its own, as another process would have them.
        fn controller(&self, controller: Controller) -> (Vec<File>, Locks) {
            self.controller_without(controller, &[])
        }

        /// Both controllers, each with its own locks.
        fn both(&self) -> [(Vec<File>, Locks); 2] {
            Controller::BOTH.map(|c| {
                let (files, mut locks) = self.controller(c);
                locks.take_own(Time(0));
                assert_eq!(poll(&mut locks, 0), [Event::LocksTaken]);
                (files, locks)
            })
        }

        /// One that gets errors when it locks some of the disks.
        fn controller_without(&self, controller: Controller, not_locked: &[usize]) -> (Vec<File>, Locks) {
            let open = |n| {
                let path = self.dir.path(&format!("disk{n}"));
                // What cannot be written cannot be locked for that: EBADF.
                let writes = !not_locked.contains(&n);
                OpenOptions::new().read(true).write(writes).open(path).expect("a disk")
            };
            let files: Vec<File> = (0..DISKS).map(open).collect();
            let fds: Vec<_> = files.iter().map(|f| Some(f.as_raw_fd())).collect();
            let voters = (0..DISKS as u16).map(DiskIndex).collect();
            let fence = KillFence::new(controller.other(), fds.clone(), &voters, false);
            (files, Locks::new(controller, fds, &voters, Box::new(fence)))
        }
    }

    fn poll(locks: &mut Locks, ms: u64) -> Vec<Event> {
        poll_without(locks, ms, &[])
    }

    /// Of the disks some were given up.
    fn poll_without(locks: &mut Locks, ms: u64, given_up: &[usize]) -> Vec<Event> {
        let mut events = Vec::new();
        let counts = |n| !given_up.contains(&n);
        locks.poll(Time(ms * 1_000_000), counts, || None, |e| events.push(e));
        events
    }

    #[test]
    fn a_successor_waits_for_its_predecessor() {
        let _forks = FORKS.read();
        let world = World::new();
        let (first_files, mut first) = world.controller(Controller::A);
        first.take_own(Time(0));
        assert_eq!(poll(&mut first, 0), [Event::LocksTaken]);
        assert_eq!(first.next_deadline(), None);

        let (_files, mut second) = world.controller(Controller::A);
        second.take_own(Time(0));
        assert_eq!(poll(&mut second, 0), []);
        assert_eq!(second.next_deadline(), Some(Time(20_000_000)));
        drop(first_files);
        assert_eq!(poll(&mut second, 19), [], "tried before its time");
        assert_eq!(poll(&mut second, 20), [Event::LocksTaken]);
    }

    #[test]
    fn a_fence_waits_for_the_partner_and_keeps_it_out_until_unfence() {
        let _forks = FORKS.read();
        let world = World::new();
        let [(a_files, mut a), (_b_files, mut b)] = world.both();

        b.fence(Time(0), ProcessId::default());
        assert_eq!(poll(&mut b, 0), []);
        a.release_all();
        drop(a_files);
        assert_eq!(poll(&mut b, 20), [Event::Fenced]);

        let (_files, mut again) = world.controller(Controller::A);
        again.take_own(Time(0));
        assert_eq!(poll(&mut again, 0), []);
        b.unfence();
        assert_eq!(poll(&mut again, 20), [Event::LocksTaken]);
    }

    /// A write hangs there for ever: who has posted it is gone, or cannot end.
    #[test]
    fn a_disk_that_was_given_up_holds_nobody_up() {
        let _forks = FORKS.read();
        let world = World::new();
        let [(a_files, mut a), (_b_files, mut b)] = world.both();
        b.fence(Time(0), ProcessId::default());
        assert_eq!(poll_without(&mut b, 0, &[1]), [], "A has its locks");
        a.release_where(|n| n != 1);
        assert_eq!(poll(&mut b, 20), [], "something of A may land on disk 1");
        assert_eq!(poll_without(&mut b, 40, &[1]), [Event::Fenced]);
        assert_eq!([0, 1, 2].map(|n| b.hold(n)), [true, false, true]);
        b.unfence();

        let (_files, mut next) = world.controller(Controller::A);
        next.take_own(Time(0));
        assert_eq!(poll(&mut next, 0), []);
        assert_eq!(poll_without(&mut next, 20, &[1]), [Event::LocksTaken]);
        assert_eq!([0, 1, 2].map(|n| next.has_taken(n)), [true, false, true]);
        assert!(!next.admit(1), "something of A may land there");
        drop((a, a_files));
        assert!(next.admit(1));
    }

    /// The other descriptors of a disk are this one from now on, as when whoever has the locks answers again.
    fn answers_again(world: &World, file: &File, n: usize) {
        let path = world.dir.path(&format!("disk{n}"));
        let opened = OpenOptions::new().read(true).write(true).open(path).expect("a disk");
        // SAFETY: changes a descriptor that the test owns, and that stays open.
        let result = unsafe { libc::dup2(opened.as_raw_fd(), file.as_raw_fd()) };
        assert!(result >= 0, "{}", io::Error::last_os_error());
    }

    #[test]
    fn what_cannot_be_locked_anywhere_is_not_taken_for_held() {
        let _forks = FORKS.read();
        let world = World::new();
        let (_a_files, mut a) = world.controller(Controller::A);
        a.take_own(Time(0));
        assert_eq!(poll(&mut a, 0), [Event::LocksTaken]);

        for not_locked in [&[0, 1, 2][..], &[0, 2]] {
            let (_files, mut b) = world.controller_without(Controller::B, not_locked);
            b.take_own(Time(0));
            b.fence(Time(0), ProcessId::default());
            for ms in [0, 20, 40] {
                assert_eq!(poll(&mut b, ms), [], "without {not_locked:?}");
            }
        }
        // The partner has gone: but nobody says so of most of the disks.
        a.release_all();
        let (files, mut b) = world.controller_without(Controller::B, &[0, 2]);
        b.take_own(Time(0));
        b.fence(Time(0), ProcessId::default());
        assert_eq!(poll(&mut b, 0), []);
        answers_again(&world, &files[2], 2);
        assert_eq!(poll(&mut b, 20), [Event::LocksTaken, Event::Fenced]);
    }

    #[test]
    fn a_disk_that_cannot_be_locked_holds_nobody_up_and_is_not_held() {
        let _forks = FORKS.read();
        let world = World::new();
        let (a_files, mut a) = world.controller(Controller::A);
        a.take_own(Time(0));
        assert_eq!(poll(&mut a, 0), [Event::LocksTaken]);

        let (files, mut b) = world.controller_without(Controller::B, &[1]);
        b.take_own(Time(0));
        assert_eq!(poll(&mut b, 0), [Event::LocksTaken]);
        assert_eq!([0, 1, 2].map(|n| b.has_taken(n)), [true, false, true]);
        b.fence(Time(0), ProcessId::default());
        assert_eq!(poll(&mut b, 20), [], "A holds its locks");
        // A write of A is still on its way to disk 1: its process is gone, and the lock is there.
        let last_write = a_files[1].try_clone().expect("the same open file");
        drop((a, a_files));
        assert_eq!(poll(&mut b, 40), [Event::Fenced]);
        assert_eq!([0, 1, 2].map(|n| b.hold(n)), [true, false, true]);
        assert!(!b.admit(1), "nobody can say whether A writes there");
        answers_again(&world, &files[1], 1);
        assert!(!b.admit(1), "A writes there");
        drop(last_write);
        assert!(b.admit(1));

        // B is the only one that can write there now.
        let (_files, mut again) = world.controller(Controller::A);
        again.take_own(Time(0));
        assert_eq!(poll(&mut again, 0), []);
        b.unfence();
        assert_eq!(poll(&mut again, 20), [Event::LocksTaken]);
    }

    #[test]
    fn a_partner_whose_locks_cannot_be_had_is_killed_all_the_same() {
        let _forks = FORKS.write();
        let world = World::new();
        let (files, mut b) = world.controller_without(Controller::B, &[0, 1, 2]);
        let mut hanging = hold(&world);
        b.fence(Time(0), process::id_of(hanging.id()).expect("its id"));
        assert_eq!(poll(&mut b, 0), []);
        assert_eq!(poll(&mut b, 20), []);
        hanging.wait().expect("its end");
        assert_eq!(poll(&mut b, 40), [], "nobody knows whether its last write is over");
        (0..DISKS).for_each(|n| answers_again(&world, &files[n], n));
        assert_eq!(poll(&mut b, 60), [Event::Fenced]);
    }

    /// A process that holds A's byte on all disks of the world, as a controller that hangs would.
    fn hold(world: &World) -> std::process::Child {
        let (files, mut locks) = world.controller(Controller::A);
        locks.take_own(Time(0));
        assert_eq!(poll(&mut locks, 0), [Event::LocksTaken]);
        let mut command = std::process::Command::new("sleep");
        // The child has the same open file descriptions, so the locks are its own too.
        for (at, file) in (10..).zip(&files) {
            let fd = file.as_raw_fd();
            // SAFETY: dup2 may be called between fork and exec, and changes descriptors of the child only.
            unsafe {
                std::os::unix::process::CommandExt::pre_exec(&mut command, move || match libc::dup2(fd, at) {
                    0.. => Ok(()),
                    _ => Err(io::Error::last_os_error()),
                })
            };
        }
        command.arg("60").spawn().expect("sleep")
    }

    #[test]
    fn a_partner_that_hangs_is_killed_and_one_without_locks_is_not() {
        let _forks = FORKS.write();
        let world = World::new();
        let (_files, mut b) = world.controller(Controller::B);
        let mut hanging = hold(&world);
        let id = process::id_of(hanging.id()).expect("its id");
        b.fence(Time(0), id);
        assert_eq!(poll(&mut b, 0), []);
        assert!(
            hanging.try_wait().expect("a state").is_none(),
            "it was given no time to go"
        );
        assert_eq!(poll(&mut b, 20), []);
        hanging.wait().expect("its end");
        assert_eq!(poll(&mut b, 40), [Event::Fenced]);

        b.unfence();
        let mut waiting = std::process::Command::new("sleep").arg("60").spawn().expect("sleep");
        b.fence(Time(0), process::id_of(waiting.id()).expect("its id"));
        assert_eq!(poll(&mut b, 0), [Event::Fenced]);
        assert_eq!(b.next_deadline(), None);
        assert_eq!(poll(&mut b, 100), []);
        assert!(
            waiting.try_wait().expect("a state").is_none(),
            "a process without locks was killed"
        );
        waiting.kill().expect("ended");
        waiting.wait().expect("its end");
    }
}
