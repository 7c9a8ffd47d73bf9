//! Fence driver `pr`: SCSI-3 persistent reservations on disks that two machines share.
//!
//! Each controller has a key. Each disk has a reservation of the type Write Exclusive - All Registrants, so whoever has
//! registered its key may write, and nobody else. A fence removes the partner's key from every disk and aborts what it had
//! submitted (PREEMPT AND ABORT, SPC-4 section 5.13.11.2); what still waits in the partner's kernel is refused when it
//! comes. Reads are not refused, so the partner's last grant is waited out.
//!
//! A disk that is out of reach holds up neither an entry nor a fence, if most of those that vote are there. It is not used
//! until it has carried the command out: after a fence it is asked again and again, for the partner's key may be there still.
//!
//! A controller registers its key when the core takes its locks, and at no other time: when the record says that it is
//! in, which it reads once more with the key registered, or when the partner, which is in, attaches it for joining. So a
//! key that was preempted comes back only when its owner may write.

use super::{Fence, Proof, RETRY};
use crate::disk::{self, Disk, Voters, is_majority};
use crate::error::OpenError;
use crate::settings::Settings;
use std::cell::Cell;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use tracing::{error, warn};
use twincell_core::ids::{Controller, Nanos, ProcessId, Time, Uuid};

/// How often a disk is asked again that was out of reach.
const AGAIN: Nanos = Nanos::from_millis(1000);

/// A reservation key; 0 is none.
type Key = u64;

/// How a command on reservations ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Good,
    /// RESERVATION CONFLICT.
    Conflict,
}

/// The persistent reservations of one disk, as SPC-4 section 6.16 has them.
trait Reservations: Send {
    /// REGISTER: replaces the key `old` of this initiator by `new`. Conflicts if `old` is not its key.
    fn register(&self, old: Key, new: Key) -> io::Result<Answer>;
    /// REGISTER AND IGNORE EXISTING KEY.
    fn register_anyway(&self, new: Key) -> io::Result<Answer>;
    /// RESERVE, Write Exclusive - All Registrants.
    fn reserve(&self, own: Key) -> io::Result<Answer>;
    /// PREEMPT AND ABORT: conflicts if `own` is not the key of this initiator, or nobody has `victim`.
    fn preempt_and_abort(&self, own: Key, victim: Key) -> io::Result<Answer>;
}

/// The key of a controller of a cell.
fn key(cell: Uuid, controller: Controller) -> Key {
    let cell = (cell.0 >> 64) as u64 ^ cell.0 as u64;
    cell & !0xff | (controller.index() as u64 + 1)
}

/// The fence on these disks; refused where one of them has no persistent reservations.
pub(super) fn open(settings: &Settings, disks: &[Option<Disk>], grant: Nanos) -> Result<PrFence, OpenError> {
    let own = key(settings.cell, settings.controller);
    let partner = key(settings.cell, settings.controller.other());
    let device = |disk: &Option<Disk>| disk.as_ref().map(|d| checked(d, own)).transpose();
    let devices = disks.iter().map(device).collect::<Result<_, _>>()?;
    Ok(PrFence::new(devices, &disk::voters(disks), (own, partner), grant))
}

fn checked(disk: &Disk, own: Key) -> Result<Box<dyn Reservations>, OpenError> {
    let device = reservations_of(disk)?;
    check_support(&disk.path, disk.is_block_device(), device.as_ref(), own)?;
    Ok(device)
}

fn reservations_of(disk: &Disk) -> Result<Box<dyn Reservations>, OpenError> {
    let device = disk.try_clone_file().map(KernelReservations);
    let device = device.map_err(|source| OpenError::Disk {
        path: disk.path.clone(),
        what: "its descriptor cannot be had twice",
        source,
    })?;
    Ok(Box::new(device))
}

fn check_support(path: &Path, is_block_device: bool, device: &dyn Reservations, own: Key) -> Result<(), OpenError> {
    let refused = |why: String| {
        Err(OpenError::Fence {
            fence: "pr",
            path: path.into(),
            why,
        })
    };
    if !is_block_device {
        return refused("a file has no persistent reservations".into());
    }
    // Changes nothing, whether the key is there or not.
    match device.register(own, own) {
        Ok(_) => Ok(()),
        Err(e) if is_unsupported(&e) => refused(format!("it has no persistent reservations ({e})")),
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => refused(format!("{e}; they need CAP_SYS_ADMIN")),
        Err(e) => {
            warn!(disk = %path.display(), "its persistent reservations cannot be asked for: {e}");
            Ok(())
        }
    }
}

fn is_unsupported(e: &io::Error) -> bool {
    matches!(
        e.raw_os_error(),
        Some(libc::EOPNOTSUPP | libc::ENOTTY | libc::EINVAL | libc::ENOSYS)
    )
}

/// What the thread is to do that talks to the disks: a command may take as long as the disk likes.
enum Job {
    Enter,
    /// What jobs up to this number have done counts for nothing.
    Take(u64),
    Leave,
    /// Looks whether disks answer that do not have this controller's key.
    Look,
    /// A disk is open that was not. Its path, for the log, and whether it is a block device.
    Open(usize, Device, PathBuf, bool),
    /// It may be written.
    Admit(usize),
    /// A disk is closed.
    Close(usize),
}

/// What is known of a disk, here and on the thread.
#[derive(Debug, Default)]
struct State {
    /// This controller's key is not there: the disk was gone when it entered, or was opened since.
    missed: AtomicBool,
    /// It was opened since, and nobody knows yet whether it has reservations at all.
    unknown: AtomicBool,
    /// It has missed this controller's entry, and answers.
    answers: AtomicBool,
    /// The last job that found the partner's key gone, or removed it.
    fenced_by: AtomicU64,
}

impl State {
    fn is_fenced_since(&self, job: u64) -> bool {
        self.fenced_by.load(Ordering::Acquire) > job
    }
}

/// A disk on the thread.
struct Device {
    reservations: Box<dyn Reservations>,
    state: Arc<State>,
    /// It was out of reach when it was asked last.
    is_gone: Cell<bool>,
}

impl Device {
    fn new(reservations: Box<dyn Reservations>, state: Arc<State>) -> Device {
        Device {
            reservations,
            state,
            is_gone: Cell::new(false),
        }
    }
}

/// A disk as its user knows it.
#[derive(Debug)]
struct Opened {
    state: Arc<State>,
    /// The thread was asked to admit it.
    asked: bool,
}

/// What it has done: which job, by its number, and whether every disk that answers has carried it out, and enough of them do.
struct Done {
    number: u64,
    good: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Entry {
    Out,
    /// By the job of this number.
    Asked(u64),
    In,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Taking {
    Not,
    /// By the job of this number.
    Asked(u64),
    /// Something stood against it.
    AskAgain(Time),
    /// The partner's key is gone; its grant is not over before this.
    UntilGrantEnds(Time),
}

/// Persistent reservations on all disks.
pub(super) struct PrFence {
    jobs: Sender<(u64, Job)>,
    done: Receiver<Done>,
    /// The number of the last job.
    asked: u64,
    entry: Entry,
    taking: Taking,
    poll_at: Option<Time>,
    /// The partner is kept out, or is to be.
    keeps_out: bool,
    /// The last job before that was so.
    before_it: u64,
    /// When to ask those disks again that were out of reach, and the job that does.
    again_at: Option<Time>,
    again: Option<u64>,
    /// By disk, while it is open.
    disks: Vec<Option<Opened>>,
    grant: Nanos,
}

impl PrFence {
    fn new(
        devices: Vec<Option<Box<dyn Reservations>>>,
        voters: &Voters,
        (own, partner): (Key, Key),
        grant: Nanos,
    ) -> PrFence {
        let (jobs, jobs_of_thread) = channel();
        let (done_by_thread, done) = channel();
        let opened = |state: &Arc<State>| Opened {
            state: state.clone(),
            asked: true,
        };
        let device = |reservations| Device::new(reservations, Arc::default());
        let devices: Vec<_> = devices.into_iter().map(|d| d.map(device)).collect();
        let open: Vec<_> = devices.iter().map(|d| d.as_ref().map(|d| opened(&d.state))).collect();
        let mut disks = Disks {
            devices,
            voters: *voters,
            own,
            partner,
        };
        std::thread::spawn(move || {
            for (number, job) in jobs_of_thread {
                let good = match job {
                    Job::Enter => disks.enter(),
                    Job::Take(before_it) => disks.take(number, before_it),
                    Job::Leave => disks.leave(),
                    Job::Look => disks.look(),
                    Job::Open(n, device, path, is_block_device) => disks.open(n, device, &path, is_block_device),
                    Job::Admit(n) => disks.admit(n),
                    Job::Close(n) => {
                        disks.devices[n] = None;
                        true
                    }
                };
                if done_by_thread.send(Done { number, good }).is_err() {
                    return;
                }
            }
        });
        PrFence {
            jobs,
            done,
            asked: 0,
            entry: Entry::Out,
            taking: Taking::Not,
            poll_at: None,
            keeps_out: false,
            before_it: 0,
            again_at: None,
            again: None,
            disks: open,
            grant,
        }
    }

    fn open_device(&mut self, n: usize, reservations: Box<dyn Reservations>, path: &Path, is_block_device: bool) {
        let state = Arc::new(State {
            missed: AtomicBool::new(true),
            unknown: AtomicBool::new(true),
            ..State::default()
        });
        self.disks[n] = Some(Opened {
            state: state.clone(),
            asked: false,
        });
        let device = Device::new(reservations, state);
        self.ask(Job::Open(n, device, path.into(), is_block_device));
    }

    /// Asks for a job, and gives its number.
    fn ask(&mut self, job: Job) -> u64 {
        self.asked += 1;
        // The thread ends only with this.
        let _ = self.jobs.send((self.asked, job));
        self.asked
    }

    /// Takes in what the thread has done. What was asked before it was not wanted any more counts for nothing.
    fn hear(&mut self, now: Time) {
        while let Ok(Done { number, good }) = self.done.try_recv() {
            self.again.take_if(|again| *again == number);
            if self.entry == Entry::Asked(number) {
                self.entry = if good { Entry::In } else { Entry::Out };
                self.again_at = self.lacks_some().then_some(now + AGAIN);
            }
            if self.taking == Taking::Asked(number) {
                self.taking = match good {
                    true => Taking::UntilGrantEnds(now + self.grant),
                    false => Taking::AskAgain(now + RETRY),
                };
            }
        }
    }

    /// Whether a disk that was there lacks what the others have. One that was opened since is a matter of `admit`.
    fn lacks_some(&self) -> bool {
        let mut disks = self.disks.iter().flatten().filter(|disk| disk.asked);
        disks.any(|disk| match self.keeps_out {
            true => !disk.state.is_fenced_since(self.before_it),
            false => disk.state.missed.load(Ordering::Acquire),
        })
    }

    /// Asks those disks again that were out of reach, if it is time.
    fn ask_again(&mut self, now: Time) {
        if self.again_at.is_none_or(|at| now < at) {
            return;
        }
        self.hear(now);
        let lacks_some = self.lacks_some();
        self.again_at = lacks_some.then_some(now + AGAIN);
        if lacks_some && self.again.is_none() && self.taking == Taking::Not {
            let job = match self.keeps_out {
                true => Job::Take(self.before_it),
                false => Job::Look,
            };
            self.again = Some(self.ask(job));
        }
    }
}

impl Fence for PrFence {
    fn enter(&mut self, now: Time) -> bool {
        self.hear(now);
        if self.entry == Entry::Out {
            self.disks.iter_mut().flatten().for_each(|disk| disk.asked = true);
            self.entry = Entry::Asked(self.ask(Job::Enter));
        }
        self.entry == Entry::In
    }

    fn has_entered(&self, n: usize) -> bool {
        let disk = self.disks[n].as_ref();
        disk.is_some_and(|disk| !disk.state.missed.load(Ordering::Acquire))
    }

    fn must_enter_anew(&self, n: usize) -> bool {
        let disk = self.disks[n].as_ref().filter(|disk| disk.asked && !self.keeps_out);
        disk.is_some_and(|disk| disk.state.answers.load(Ordering::Acquire))
    }

    fn take(&mut self, now: Time, _: ProcessId) {
        self.taking = Taking::AskAgain(now);
        self.poll_at = Some(now);
        self.keeps_out = true;
        self.before_it = self.asked;
    }

    fn poll(&mut self, now: Time, _: &dyn Fn(usize) -> bool, _: &dyn Fn() -> Option<Time>) -> Option<Proof> {
        self.ask_again(now);
        if self.poll_at.is_none_or(|at| now < at) {
            return None;
        }
        self.hear(now);
        match self.taking {
            Taking::AskAgain(at) if now >= at => {
                self.taking = Taking::Asked(self.ask(Job::Take(self.before_it)));
            }
            Taking::UntilGrantEnds(until) if now >= until => {
                self.taking = Taking::Not;
                self.poll_at = None;
                self.again_at = self.lacks_some().then_some(now + AGAIN);
                return Some(Proof::Reservations);
            }
            _ => {}
        }
        self.poll_at = Some(match self.taking {
            Taking::UntilGrantEnds(until) => until,
            _ => now + RETRY,
        });
        None
    }

    /// A disk that was gone when the partner was preempted may still let its writes through: such a disk comes back only when
    /// the partner is preempted there, too, or is in again, and says itself that it has none. One that was gone when this
    /// controller entered refuses its writes until it enters again.
    fn holds(&mut self, n: usize) -> bool {
        let Some(disk) = &self.disks[n] else { return false };
        if self.keeps_out && !disk.state.is_fenced_since(self.before_it) {
            return false;
        }
        let lacks = if disk.asked {
            &disk.state.missed
        } else {
            &disk.state.unknown
        };
        !lacks.load(Ordering::Acquire)
    }

    fn close(&mut self, n: usize) {
        self.disks[n] = None;
        self.ask(Job::Close(n));
    }

    fn open(&mut self, n: usize, disk: &Disk) -> Result<(), OpenError> {
        let reservations = reservations_of(disk)?;
        self.open_device(n, reservations, &disk.path, disk.is_block_device());
        Ok(())
    }

    /// Only now the key goes there. It could be registered by a controller that was fenced, too, on a disk that its partner had
    /// not open.
    fn admit(&mut self, n: usize) -> bool {
        if !self.holds(n) {
            return false;
        }
        let ask = self.disks[n]
            .as_mut()
            .is_some_and(|d| !std::mem::replace(&mut d.asked, true));
        if ask {
            self.ask(Job::Admit(n));
        }
        self.holds(n)
    }

    fn next_deadline(&self) -> Option<Time> {
        [self.poll_at, self.again_at].into_iter().flatten().min()
    }

    /// The partner registers its key itself, once it hears of this.
    fn release(&mut self) {
        self.taking = Taking::Not;
        self.poll_at = None;
        self.keeps_out = false;
    }

    fn leave(&mut self) {
        self.release();
        self.again_at = None;
        self.entry = Entry::Out;
        self.ask(Job::Leave);
    }
}

/// How often a command is repeated that fails and not because the disk is gone: a unit attention is told once, instead of
/// carrying the command out, and there may be several.
const ATTEMPTS: u32 = 6;

/// Whether the disk is not there any more, or no path to it. It counts as out of reach then, as a disk does that cannot be
/// locked: nothing is read from it either, because `has_entered` and `holds` say no, and it is given up before a write counts
/// that it lacks.
fn is_gone(e: &io::Error) -> bool {
    matches!(
        e.raw_os_error(),
        Some(libc::ENXIO | libc::ENODEV | libc::EIO | libc::ETIMEDOUT)
    )
}

/// Whether this controller's key is not there.
fn has_missed(device: &Device) -> bool {
    device.state.missed.load(Ordering::Acquire)
}

/// The disks and both keys, on a thread of their own.
struct Disks {
    /// Those that are open.
    devices: Vec<Option<Device>>,
    voters: Voters,
    own: Key,
    partner: Key,
}

impl Disks {
    fn enter(&self) -> bool {
        let entered = self.each(
            "this controller cannot enter",
            |_| true,
            |device| self.enter_one(device),
        );
        self.are_enough(entered)
    }

    fn open(&mut self, n: usize, device: Device, path: &Path, is_block_device: bool) -> bool {
        if let Err(e) = check_support(path, is_block_device, device.reservations.as_ref(), self.own) {
            error!("a disk that was opened cannot be used: {e}");
            return false;
        }
        device.state.unknown.store(false, Ordering::Release);
        self.devices[n] = Some(device);
        true
    }

    fn admit(&self, n: usize) -> bool {
        let what = "this controller cannot enter a disk that was opened";
        let Some(device) = &self.devices[n] else { return false };
        self.one(n, device, what, &|device| self.enter_one(device)) == Some(true)
    }

    fn enter_one(&self, device: &Device) -> io::Result<Answer> {
        device.state.missed.store(true, Ordering::Release);
        device.state.answers.store(false, Ordering::Release);
        if device.reservations.register_anyway(self.own)? == Answer::Conflict {
            return Ok(Answer::Conflict);
        }
        let entered = device.reservations.reserve(self.own)?;
        device.state.missed.store(entered != Answer::Good, Ordering::Release);
        Ok(entered)
    }

    /// Asks for what changes nothing. The key cannot be registered now: the partner may have fenced this controller meanwhile,
    /// and found none there.
    fn look(&self) -> bool {
        for device in self.devices.iter().flatten().filter(|d| has_missed(d)) {
            let answers = device.reservations.register(self.own, self.own).is_ok();
            device.state.answers.store(answers, Ordering::Release);
        }
        true
    }

    /// First the disks that have the own key. That it is there still says that this controller was not fenced: so where the
    /// key is not only because the disk was gone when this controller entered, it may come now.
    fn take(&self, number: u64, before_it: u64) -> bool {
        let what = "the partner is not fenced: the own key is gone";
        let fence = |device: &Device| {
            let answer = match device.state.is_fenced_since(before_it) {
                true => device.reservations.register(self.own, self.own)?,
                false => self.preempt(device.reservations.as_ref())?,
            };
            if answer == Answer::Good {
                device.state.fenced_by.store(number, Ordering::Release);
            }
            Ok(answer)
        };
        let fenced = self.each(what, |device| !has_missed(device), fence);
        let enter_and_fence = |device: &Device| match self.enter_one(device)? {
            Answer::Good => fence(device),
            Answer::Conflict => Ok(Answer::Conflict),
        };
        self.are_enough(fenced) && self.each(what, has_missed, enter_and_fence).is_some()
    }

    /// Whether there are none that failed, and enough that did not: two controllers that each had most of those that vote had
    /// one in common, which has told the later one of the earlier one.
    fn are_enough(&self, disks: Option<Vec<usize>>) -> bool {
        disks.is_some_and(|disks| is_majority(&self.voters, |n| disks.contains(&n)))
    }

    /// A conflict means that the own key is gone: then the partner has fenced this controller, and not the other way round.
    fn preempt(&self, device: &dyn Reservations) -> io::Result<Answer> {
        if device.register(self.own, self.own)? == Answer::Conflict {
            return Ok(Answer::Conflict);
        }
        match device.preempt_and_abort(self.own, self.partner)? {
            Answer::Good => Ok(Answer::Good),
            // Nobody has the partner's key; or the own has gone just now.
            Answer::Conflict => device.register(self.own, self.own),
        }
    }

    /// A key that is gone needs no removal, and one that stays is removed by the next fence.
    fn leave(&self) -> bool {
        let left = self.devices.iter().flatten();
        let left = left.map(|device| device.reservations.register(self.own, 0));
        left.filter(|result| result.is_err()).count() == 0
    }

    /// Those of the disks that are meant which have carried the command out; `None` if one has not that is not gone.
    fn each(
        &self,
        what: &str,
        is_meant: impl Fn(&Device) -> bool,
        command: impl Fn(&Device) -> io::Result<Answer>,
    ) -> Option<Vec<usize>> {
        let open = self.devices.iter().enumerate();
        let open = open.filter_map(|(n, device)| Some((n, device.as_ref()?)));
        let meant = open.filter(|(_, device)| is_meant(device));
        // Each is asked, whatever became of the others.
        let ended: Vec<_> = meant
            .map(|(n, device)| (n, self.one(n, device, what, &command)))
            .collect();
        let failed = ended.iter().any(|(_, ended)| *ended == Some(false));
        let done = ended.into_iter().filter(|(_, ended)| *ended == Some(true));
        (!failed).then(|| done.map(|(n, _)| n).collect())
    }

    /// Whether a disk has carried the command out; `None` where it is gone.
    fn one(
        &self,
        n: usize,
        device: &Device,
        what: &str,
        command: &dyn Fn(&Device) -> io::Result<Answer>,
    ) -> Option<bool> {
        let mut tries = (0..ATTEMPTS).map(|_| command(device));
        let ended = tries.find(|result| result.as_ref().map_or_else(is_gone, |_| true));
        let was_gone = device.is_gone.replace(matches!(ended, Some(Err(_))));
        match ended {
            Some(Ok(Answer::Good)) => return Some(true),
            Some(Ok(Answer::Conflict)) => error!(disk = n, "{what}: reservation conflict"),
            Some(Err(_)) if was_gone => return None,
            Some(Err(e)) => {
                warn!(disk = n, "a disk counts as out of reach: {e}");
                return None;
            }
            None => error!(disk = n, "{what}: commands on its reservations fail"),
        }
        Some(false)
    }
}

/// A block device; `linux/pr.h`. The kernel carries a command out on every path of a multipath device.
struct KernelReservations(File);

/// `_IOW('p', number, bytes)` of `asm-generic/ioctl.h`.
const fn request(number: u32, bytes: usize) -> libc::Ioctl {
    (1 << 30 | (bytes as u32) << 16 | (b'p' as u32) << 8 | number) as libc::Ioctl
}

/// `struct pr_registration`.
#[repr(C)]
struct PrRegistration {
    old_key: u64,
    new_key: u64,
    flags: u32,
    pad: u32,
}

/// `struct pr_reservation`.
#[repr(C)]
struct PrReservation {
    key: u64,
    kind: u32,
    flags: u32,
}

/// `struct pr_preempt`. The kernel sends `old_key` as the RESERVATION KEY, which is the own, and `new_key` as the SERVICE
/// ACTION RESERVATION KEY, which is that of the victim (`sd_pr_preempt`, `nvme_pr_preempt`): the names are of no help.
#[repr(C)]
#[derive(Debug, PartialEq, Eq)]
struct PrPreempt {
    old_key: u64,
    new_key: u64,
    kind: u32,
    flags: u32,
}

impl PrPreempt {
    fn of(own: Key, victim: Key) -> PrPreempt {
        PrPreempt {
            old_key: own,
            new_key: victim,
            kind: PR_WRITE_EXCLUSIVE_ALL_REGS,
            flags: 0,
        }
    }
}

const IOC_PR_REGISTER: libc::Ioctl = request(200, size_of::<PrRegistration>());
const IOC_PR_RESERVE: libc::Ioctl = request(201, size_of::<PrReservation>());
const IOC_PR_PREEMPT_ABORT: libc::Ioctl = request(204, size_of::<PrPreempt>());
const PR_WRITE_EXCLUSIVE_ALL_REGS: u32 = 5;
const PR_FL_IGNORE_KEY: u32 = 1;
/// `enum pr_status`: the status byte of SCSI, or above it the host byte.
const PR_STS_RESERVATION_CONFLICT: i32 = 0x18;
const PR_STS_PATH_FAILED: i32 = 0x1_0000;
const PR_STS_PATH_FAST_FAILED: i32 = 0xf_0000;

impl KernelReservations {
    fn command<T>(&self, request: libc::Ioctl, argument: &T) -> io::Result<Answer> {
        // SAFETY: `argument` is the structure that `request` takes, and only read. It is needed because std has no
        // persistent reservations.
        let status = unsafe { libc::ioctl(self.0.as_raw_fd(), request, argument) };
        match status {
            0 => Ok(Answer::Good),
            PR_STS_RESERVATION_CONFLICT => Ok(Answer::Conflict),
            PR_STS_PATH_FAILED | PR_STS_PATH_FAST_FAILED => Err(io::Error::from_raw_os_error(libc::ENXIO)),
            1.. => Err(io::Error::other(format!("status {status:#x}"))),
            _ => Err(io::Error::last_os_error()),
        }
    }

    fn registration(&self, old_key: Key, new_key: Key, flags: u32) -> io::Result<Answer> {
        let argument = PrRegistration {
            old_key,
            new_key,
            flags,
            pad: 0,
        };
        self.command(IOC_PR_REGISTER, &argument)
    }
}

impl Reservations for KernelReservations {
    fn register(&self, old: Key, new: Key) -> io::Result<Answer> {
        self.registration(old, new, 0)
    }

    fn register_anyway(&self, new: Key) -> io::Result<Answer> {
        self.registration(0, new, PR_FL_IGNORE_KEY)
    }

    fn reserve(&self, own: Key) -> io::Result<Answer> {
        let argument = PrReservation {
            key: own,
            kind: PR_WRITE_EXCLUSIVE_ALL_REGS,
            flags: 0,
        };
        self.command(IOC_PR_RESERVE, &argument)
    }

    fn preempt_and_abort(&self, own: Key, victim: Key) -> io::Result<Answer> {
        self.command(IOC_PR_PREEMPT_ABORT, &PrPreempt::of(own, victim))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::sync::{Arc, Mutex};
    use std::time::{Duration, Instant};
    use twincell_core::ids::DiskIndex;

    const A: Key = 0xaa01;
    const B: Key = 0xaa02;
    const GRANT: Nanos = Nanos::from_millis(2000);

    /// A logical unit with a task set, and what SPC-4 says of its reservations.
    #[derive(Default)]
    struct Unit {
        /// By initiator.
        keys: BTreeMap<u8, Key>,
        reserved: bool,
        /// Writes that were accepted and have not ended, by initiator.
        tasks: Vec<u8>,
        gone: bool,
        unsupported: bool,
        /// Unit attentions to be told, one instead of each command.
        attentions: u32,
    }

    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Unit>>);

    impl Shared {
        fn unit(&self) -> std::sync::MutexGuard<'_, Unit> {
            self.0.lock().expect("no panic")
        }

        fn from(&self, initiator: u8) -> Box<dyn Reservations> {
            Box::new(Nexus {
                unit: self.clone(),
                initiator,
            })
        }

        /// Table 70 of SPC-4: a WRITE from an initiator that is not registered conflicts.
        fn write(&self, initiator: u8) -> Answer {
            let mut unit = self.unit();
            if unit.reserved && !unit.keys.contains_key(&initiator) {
                return Answer::Conflict;
            }
            unit.tasks.push(initiator);
            Answer::Good
        }
    }

    struct Nexus {
        unit: Shared,
        initiator: u8,
    }

    impl Nexus {
        fn command(&self, f: impl FnOnce(&mut Unit, u8) -> Answer) -> io::Result<Answer> {
            let mut unit = self.unit.unit();
            match *unit {
                Unit { gone: true, .. } => Err(io::Error::from_raw_os_error(libc::EIO)),
                Unit { unsupported: true, .. } => Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP)),
                Unit { attentions: 1.., .. } => {
                    unit.attentions -= 1;
                    Err(io::Error::other("status 0x2"))
                }
                _ => Ok(f(&mut unit, self.initiator)),
            }
        }
    }

    impl Unit {
        fn set_key(&mut self, initiator: u8, key: Key) -> Answer {
            if key == 0 {
                self.keys.remove(&initiator);
                // The last registrant of an all-registrants reservation takes it along.
                self.reserved &= !self.keys.is_empty();
            } else {
                self.keys.insert(initiator, key);
            }
            Answer::Good
        }
    }

    impl Reservations for Nexus {
        fn register(&self, old: Key, new: Key) -> io::Result<Answer> {
            self.command(|unit, initiator| {
                if unit.keys.get(&initiator).copied().unwrap_or(0) != old {
                    return Answer::Conflict;
                }
                unit.set_key(initiator, new)
            })
        }

        fn register_anyway(&self, new: Key) -> io::Result<Answer> {
            self.command(|unit, initiator| unit.set_key(initiator, new))
        }

        fn reserve(&self, own: Key) -> io::Result<Answer> {
            self.command(|unit, initiator| {
                if unit.keys.get(&initiator) != Some(&own) {
                    return Answer::Conflict;
                }
                unit.reserved = true;
                Answer::Good
            })
        }

        fn preempt_and_abort(&self, own: Key, victim: Key) -> io::Result<Answer> {
            self.command(|unit, initiator| {
                let has_victim = unit.keys.values().any(|k| *k == victim);
                if unit.keys.get(&initiator) != Some(&own) || !has_victim {
                    return Answer::Conflict;
                }
                let victims: Vec<u8> = unit
                    .keys
                    .iter()
                    .filter(|(_, k)| **k == victim)
                    .map(|(i, _)| *i)
                    .collect();
                unit.keys.retain(|_, k| *k != victim);
                unit.tasks.retain(|i| !victims.contains(i));
                Answer::Good
            })
        }
    }

    struct Controllers {
        disks: Vec<Shared>,
        now: Time,
    }

    impl Controllers {
        fn new(disks: usize) -> Controllers {
            Controllers {
                disks: vec![Shared::default(); disks]
                    .into_iter()
                    .map(|_| Shared::default())
                    .collect(),
                now: Time(1_000_000_000),
            }
        }

        /// The fence of initiator 1 (A) or 2 (B).
        fn fence(&self, initiator: u8) -> PrFence {
            let devices = self.disks.iter().map(|d| Some(d.from(initiator))).collect();
            let (own, partner) = if initiator == 1 { (A, B) } else { (B, A) };
            let voters = (0..self.disks.len() as u16).map(DiskIndex).collect();
            PrFence::new(devices, &voters, (own, partner), GRANT)
        }

        /// A controller that may write.
        fn entered(&self, initiator: u8) -> PrFence {
            let mut fence = self.fence(initiator);
            until("entry", || fence.enter(self.now).then_some(()));
            fence
        }
    }

    /// The thread that talks to the disks takes its time; the clock of the test stands still meanwhile.
    fn until<T>(what: &str, mut done: impl FnMut() -> Option<T>) -> T {
        let begun = Instant::now();
        loop {
            if let Some(done) = done() {
                return done;
            }
            assert!(begun.elapsed() < Duration::from_secs(10), "waited 10 s for {what}");
            std::thread::yield_now();
        }
    }

    fn poll(fence: &mut PrFence, now: Time) -> Option<Proof> {
        fence.poll(now, &|_| true, &|| None)
    }

    /// Polls at `now`, in steps of the retry, until the partner's keys are gone; the proof must not come before.
    fn until_preempted(fence: &mut PrFence, now: &mut Time) -> Time {
        until("the end of the partner's keys", || {
            *now = *now + RETRY;
            assert_eq!(poll(fence, *now), None, "a proof before the grant is over");
            match fence.taking {
                Taking::UntilGrantEnds(until) => Some(until),
                _ => None,
            }
        })
    }

    fn until_two_attempts_failed(fence: &mut PrFence, now: &mut Time) {
        let mut failed = 0;
        until("two attempts", || {
            *now = *now + RETRY;
            assert_eq!(poll(fence, *now), None);
            assert!(!matches!(fence.taking, Taking::UntilGrantEnds(_)), "the fence holds");
            failed += u32::from(matches!(fence.taking, Taking::AskAgain(_)));
            (failed == 2).then_some(())
        });
    }

    #[test]
    fn a_fenced_controller_writes_no_disk_and_what_it_had_submitted_is_aborted() {
        let cell = Controllers::new(3);
        let (_a, mut b) = (cell.entered(1), cell.entered(2));
        for disk in &cell.disks {
            assert_eq!((disk.write(1), disk.write(2)), (Answer::Good, Answer::Good));
        }
        let mut now = cell.now;
        b.take(now, ProcessId::default());
        let ends = until_preempted(&mut b, &mut now);
        for disk in &cell.disks {
            assert_eq!((disk.write(1), disk.write(2)), (Answer::Conflict, Answer::Good));
            assert_eq!(disk.unit().tasks, [2, 2], "a task of A goes on");
        }
        assert!(ends + RETRY >= now + GRANT, "the grant is not waited out");
        assert_eq!(poll(&mut b, Time(ends.0 - 1)), None);
        assert_eq!(poll(&mut b, ends), Some(Proof::Reservations));
        assert_eq!(poll(&mut b, ends + GRANT), None, "a proof is given once");
        assert_eq!(b.next_deadline(), None);
    }

    #[test]
    fn a_controller_that_was_fenced_proves_nothing_of_its_partner() {
        let cell = Controllers::new(2);
        let (mut a, mut b) = (cell.entered(1), cell.entered(2));
        let mut now = cell.now;
        b.take(now, ProcessId::default());
        until_preempted(&mut b, &mut now);
        a.take(now, ProcessId::default());
        until_two_attempts_failed(&mut a, &mut now);
        assert_ne!(a.taking, Taking::Not);
        assert!(
            cell.disks.iter().all(|d| d.unit().keys.values().eq(&[B])),
            "B has lost its key"
        );
    }

    #[test]
    fn the_key_comes_back_when_its_owner_enters_again() {
        let cell = Controllers::new(2);
        let (mut a, mut b) = (cell.entered(1), cell.entered(2));
        let mut now = cell.now;
        b.take(now, ProcessId::default());
        let ends = until_preempted(&mut b, &mut now);
        assert_eq!(poll(&mut b, ends), Some(Proof::Reservations));
        // It starts anew: what it gives back is not its own any more.
        a.leave();
        b.release();
        assert_eq!(cell.disks[0].write(1), Answer::Conflict);
        until("entry", || a.enter(ends).then_some(()));
        for disk in &cell.disks {
            assert_eq!((disk.write(1), disk.write(2)), (Answer::Good, Answer::Good));
        }
    }

    #[test]
    fn a_partner_that_never_came_is_fenced_too() {
        let cell = Controllers::new(2);
        let mut a = cell.entered(1);
        let mut now = cell.now;
        a.take(now, ProcessId::default());
        let ends = until_preempted(&mut a, &mut now);
        assert_eq!(poll(&mut a, ends), Some(Proof::Reservations));
        assert_eq!(cell.disks[0].write(2), Answer::Conflict);
    }

    /// It holds nobody up, and is not used before the partner is fenced there, too: its key is there still, and what it had
    /// submitted is on its way.
    #[test]
    fn a_disk_that_does_not_answer_is_out_of_reach_until_the_partner_is_fenced_there() {
        let cell = Controllers::new(3);
        let (_a, mut b) = (cell.entered(1), cell.entered(2));
        cell.disks[1].unit().gone = true;
        let mut now = cell.now;
        b.take(now, ProcessId::default());
        let ends = until_preempted(&mut b, &mut now);
        assert_eq!(poll(&mut b, ends), Some(Proof::Reservations));
        assert_eq!(
            (cell.disks[0].write(1), cell.disks[2].write(1)),
            (Answer::Conflict, Answer::Conflict)
        );
        assert_eq!([0, 1, 2].map(|n| b.holds(n)), [true, false, true]);

        cell.disks[1].unit().gone = false;
        assert!(!b.holds(1) && !b.admit(1), "nobody has asked it again");
        assert_eq!(cell.disks[1].write(1), Answer::Good, "A is fenced there by nobody");
        let mut now = ends;
        until("the end of A's key", || {
            now = b.next_deadline().unwrap_or(now);
            assert_eq!(poll(&mut b, now), None, "a proof is given once");
            b.admit(1).then_some(())
        });
        assert!(now.since(ends) >= AGAIN, "it was asked before its time");
        assert_eq!(cell.disks[1].write(1), Answer::Conflict);
        assert!(cell.disks[1].unit().tasks.is_empty(), "a task of A goes on");
        until("the end of the questions", || {
            now = b.next_deadline().unwrap_or(now);
            poll(&mut b, now);
            b.next_deadline().is_none().then_some(())
        });
    }

    /// A later fence is one of its own.
    #[test]
    fn a_disk_that_was_fenced_once_is_not_so_for_ever() {
        let cell = Controllers::new(3);
        let (mut a, mut b) = (cell.entered(1), cell.entered(2));
        let mut now = cell.now;
        b.take(now, ProcessId::default());
        let ends = until_preempted(&mut b, &mut now);
        assert_eq!(poll(&mut b, ends), Some(Proof::Reservations));
        a.leave();
        b.release();
        until("entry", || a.enter(ends).then_some(()));
        cell.disks[1].unit().gone = true;
        let mut now = ends;
        b.take(now, ProcessId::default());
        assert!(!(0..3).any(|n| b.holds(n)), "A is not fenced yet");
        until_preempted(&mut b, &mut now);
        assert_eq!([0, 1, 2].map(|n| b.holds(n)), [true, false, true]);
    }

    #[test]
    fn where_most_disks_are_out_of_reach_nobody_enters_and_nothing_is_proven() {
        let cell = Controllers::new(3);
        let mut b = cell.entered(2);
        (1..3).for_each(|n| cell.disks[n].unit().gone = true);
        let mut a = cell.fence(1);
        let mut now = cell.now;
        b.take(now, ProcessId::default());
        until_two_attempts_failed(&mut b, &mut now);
        until("two entries", || {
            assert!(!a.enter(now));
            (a.asked > 2).then_some(())
        });
        cell.disks[1].unit().gone = false;
        until_preempted(&mut b, &mut now);
    }

    /// It has no key there: its writes would be refused, so the disk does not come back before it enters again, or fences.
    #[test]
    fn a_disk_that_was_gone_at_the_entry_stays_out_and_is_fenced_all_the_same() {
        let cell = Controllers::new(3);
        cell.disks[1].unit().gone = true;
        let mut a = cell.entered(1);
        cell.disks[1].unit().gone = false;
        let _b = cell.entered(2);
        assert_eq!([0, 1, 2].map(|n| a.holds(n)), [true, false, true]);
        assert_eq!([0, 1, 2].map(|n| a.has_entered(n)), [true, false, true]);
        assert!(!a.must_enter_anew(1), "nobody knows that it answers");
        let mut now = cell.now;
        until("its answer", || {
            now = a.next_deadline()?;
            poll(&mut a, now);
            a.must_enter_anew(1).then_some(())
        });
        assert!(
            !cell.disks[1].unit().keys.contains_key(&1),
            "the question has changed something"
        );
        a.take(now, ProcessId::default());
        let ends = until_preempted(&mut a, &mut now);
        assert_eq!(poll(&mut a, ends), Some(Proof::Reservations));
        for disk in &cell.disks {
            assert_eq!((disk.write(1), disk.write(2)), (Answer::Good, Answer::Conflict));
        }
        a.release();
        assert!((0..3).all(|n| a.holds(n)));
    }

    /// A disk is missing, and comes back as another device: B has opened it, A has not yet, and stands still. B fences A and
    /// takes over what has one copy there. A goes on, and opens the disk before it finds that it is out.
    #[test]
    fn a_fenced_controller_writes_no_disk_that_it_opens_afterwards() {
        let mut cell = Controllers::new(2);
        let (mut a, mut b) = (cell.entered(1), cell.entered(2));
        cell.disks[1] = Shared::default();
        b.close(1);
        b.open_device(1, cell.disks[1].from(2), Path::new("disk"), true);
        until("the key", || b.admit(1).then_some(()));
        let mut now = cell.now;
        b.take(now, ProcessId::default());
        let ends = until_preempted(&mut b, &mut now);
        assert_eq!(poll(&mut b, ends), Some(Proof::Reservations));
        a.close(1);
        a.open_device(1, cell.disks[1].from(1), Path::new("disk"), true);
        until("the end of the job", || a.holds(1).then_some(()));
        assert_eq!(
            cell.disks[1].write(1),
            Answer::Conflict,
            "nobody has said that it is written"
        );
    }

    /// The engine's thread opens it. A disk that answers to what it is, and keeps its reservations to itself, must not keep that
    /// thread.
    #[test]
    fn a_disk_whose_reservations_hang_keeps_nobody() {
        let cell = Controllers::new(1);
        let mut a = cell.entered(1);
        let unit = Shared::default();
        let hangs = unit.clone();
        let hangs = hangs.unit();
        a.close(0);
        a.open_device(0, unit.from(1), Path::new("disk"), true);
        assert!(!a.holds(0), "nobody knows whether it has reservations");
        drop(hangs);
        until("its answer", || a.holds(0).then_some(()));
    }

    /// A medium that takes the place of one that is gone has the keys of both once both have it open, and is fenced as the
    /// others are.
    #[test]
    fn a_disk_that_was_opened_later_is_entered_and_fenced() {
        let mut cell = Controllers::new(2);
        let (mut a, mut b) = (cell.entered(1), cell.entered(2));
        cell.disks[1] = Shared::default();
        for (fence, initiator) in [(&mut a, 1), (&mut b, 2)] {
            fence.close(1);
            assert!(!fence.holds(1), "it is closed");
            fence.open_device(1, cell.disks[1].from(initiator), Path::new("disk"), true);
            until("its support", || fence.holds(1).then_some(()));
            until("the key", || fence.admit(1).then_some(()));
        }
        let new = &cell.disks[1];
        assert_eq!(
            (new.write(1), new.write(2), new.write(3)),
            (Answer::Good, Answer::Good, Answer::Conflict)
        );
        let mut now = cell.now;
        b.take(now, ProcessId::default());
        let ends = until_preempted(&mut b, &mut now);
        assert_eq!(poll(&mut b, ends), Some(Proof::Reservations));
        assert_eq!(
            (cell.disks[1].write(1), cell.disks[1].write(2)),
            (Answer::Conflict, Answer::Good)
        );
    }

    #[test]
    fn a_disk_that_tells_unit_attentions_is_asked_until_it_has_told_them() {
        let cell = Controllers::new(2);
        let (_a, mut b) = (cell.entered(1), cell.entered(2));
        cell.disks[0].unit().attentions = 3;
        let mut now = cell.now;
        b.take(now, ProcessId::default());
        until_preempted(&mut b, &mut now);
        assert_eq!(
            (cell.disks[0].write(1), cell.disks[1].write(1)),
            (Answer::Conflict, Answer::Conflict)
        );
    }

    #[test]
    fn a_disk_that_is_there_and_carries_nothing_out_is_no_proof() {
        let cell = Controllers::new(2);
        let (_a, mut b) = (cell.entered(1), cell.entered(2));
        cell.disks[0].unit().attentions = u32::MAX;
        let mut now = cell.now;
        b.take(now, ProcessId::default());
        until("many attempts", || {
            now = now + RETRY;
            assert_eq!(poll(&mut b, now), None);
            (cell.disks[0].unit().attentions < u32::MAX - 100).then_some(())
        });
        cell.disks[0].unit().attentions = 0;
        until_preempted(&mut b, &mut now);
    }

    #[test]
    fn a_fence_that_is_lifted_before_its_proof_gives_none() {
        let cell = Controllers::new(1);
        let (_a, mut b) = (cell.entered(1), cell.entered(2));
        let mut now = cell.now;
        b.take(now, ProcessId::default());
        let ends = until_preempted(&mut b, &mut now);
        b.release();
        assert_eq!((poll(&mut b, ends), b.next_deadline()), (None, None));
    }

    #[test]
    fn what_an_earlier_fence_has_done_is_no_proof_for_a_later_one() {
        let cell = Controllers::new(1);
        let (mut a, mut b) = (cell.entered(1), cell.entered(2));
        let now = cell.now;
        b.take(now, ProcessId::default());
        assert_eq!(poll(&mut b, now), None);
        until("the end of A's key", || {
            cell.disks[0].unit().keys.values().eq(&[B]).then_some(())
        });
        // Nobody has heard of that yet. The fence is lifted, A comes back, and is to be fenced once more.
        b.release();
        a.leave();
        until("entry", || a.enter(now).then_some(()));
        let disk = cell.disks[0].unit();
        b.take(now, ProcessId::default());
        assert_eq!(poll(&mut b, now), None);
        assert!(disk.keys.values().eq(&[A, B]));
        // The thread stands still before the disk: there is no answer but that to the first.
        assert_eq!(poll(&mut b, now + RETRY), None);
        assert!(matches!(b.taking, Taking::Asked(_)), "{:?}", b.taking);
        drop(disk);
        until_preempted(&mut b, &mut { now + RETRY });
        assert_eq!(cell.disks[0].write(1), Answer::Conflict);
    }

    #[test]
    fn who_leaves_takes_its_key_along_and_the_last_one_the_reservation() {
        let cell = Controllers::new(1);
        let (mut a, mut b) = (cell.entered(1), cell.entered(2));
        a.leave();
        until("the end of A's key", || {
            cell.disks[0].unit().keys.values().eq(&[B]).then_some(())
        });
        assert_eq!(
            (cell.disks[0].write(1), cell.disks[0].write(2)),
            (Answer::Conflict, Answer::Good)
        );
        b.leave();
        until("the end of the reservation", || {
            (!cell.disks[0].unit().reserved).then_some(())
        });
    }

    #[test]
    fn what_has_no_reservations_is_refused() {
        let disk = Shared::default();
        let path = Path::new("/dev/sdx");
        check_support(path, true, disk.from(1).as_ref(), A).expect("supported");
        assert!(disk.unit().keys.is_empty(), "the question has changed something");
        disk.unit().unsupported = true;
        let refused = check_support(path, true, disk.from(1).as_ref(), A)
            .expect_err("unsupported")
            .to_string();
        assert!(refused.contains("/dev/sdx") && refused.contains("pr"), "{refused}");
        let file = File::open("/proc/self/exe").map(KernelReservations).expect("a file");
        let refused = check_support(Path::new("disk0"), false, &file, A)
            .expect_err("a file")
            .to_string();
        assert!(refused.contains("a file has no persistent reservations"), "{refused}");
        // What the kernel itself says of a file.
        assert!(file.register(A, A).is_err_and(|e| is_unsupported(&e)));
    }

    #[test]
    fn the_requests_are_those_of_the_kernel() {
        // From linux/pr.h, as a C compiler computes them on x86_64 and aarch64.
        assert_eq!(IOC_PR_REGISTER as u32, 0x4018_70c8);
        assert_eq!(IOC_PR_RESERVE as u32, 0x4010_70c9);
        assert_eq!(IOC_PR_PREEMPT_ABORT as u32, 0x4018_70cc);
        // The kernel takes the own key first.
        let PrPreempt { old_key, new_key, .. } = PrPreempt::of(A, B);
        assert_eq!((old_key, new_key), (A, B));
    }

    #[test]
    fn keys_tell_controllers_and_cells_apart() {
        let of = |cell: u128, c| key(Uuid(cell), c);
        assert_ne!(of(7 << 64, Controller::A), of(7 << 64, Controller::B));
        assert_ne!(of(0x700 << 64, Controller::A), of(0x900 << 64, Controller::A));
        assert_ne!(of(0, Controller::A), 0);
    }
}
