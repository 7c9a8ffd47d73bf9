//! Keeping a partner that is out from writing to disks and from speaking to hosts (R5). Where in a takeover this happens
//! is in `core/src/cell/takeover.rs`.
//!
//! | driver | how | what it proves |
//! |---|---|---|
//! | [`kill`](kill) | ends the partner's process where it can be seen, then takes its lock byte on every disk | the process is gone or has given its locks up, and its last write is over on the disks where its byte is held |
//! | [`pr`](pr) | SCSI-3 persistent reservations: PREEMPT AND ABORT of the partner's key on every disk, then the grant is waited out | the disks that did so refuse its writes; it says nothing to hosts any more |
//! | [`own`](own) | waits until the partner must have ended by itself | with a hardware watchdog, that it has; without one, nothing |

mod kill;
mod own;
mod pr;
mod watchdog;

use crate::disk::Disk;
use crate::error::OpenError;
use crate::settings::{FenceChoice, Settings};
use std::fmt;
use twincell_core::config::Timing;
use twincell_core::ids::{Nanos, ProcessId, Time};

#[cfg(test)]
pub(crate) use kill::KillFence;

/// How often what cannot be had yet is tried again where something waits for it.
pub(crate) const RETRY: Nanos = Nanos::from_millis(20);

/// A way to keep the partner out.
pub(crate) trait Fence: Send {
    /// Has this controller's own disk writes let through; whether they are, on the disks of which `has_entered` says so. Asked
    /// again until they are.
    fn enter(&mut self, now: Time) -> bool;
    /// Whether they are let through on disk `n`, which may have been out of reach.
    fn has_entered(&self, _n: usize) -> bool {
        true
    }
    /// Whether disk `n` answers, and only by entering anew the writes are let through there.
    fn must_enter_anew(&self, _n: usize) -> bool {
        false
    }
    /// Begins to keep the partner out.
    fn take(&mut self, now: Time, partner: ProcessId);
    /// What is proven now, once for each `take`: the partner is out, and stays so until `release`. It is proven for the disks
    /// that `holds` names, which are enough that the partner serves nobody; what is out of reach waits until it does. `counts`
    /// says which disks have anything that counts, `oldest_io` when the oldest of this controller's own disk I/Os in flight was posted.
    fn poll(
        &mut self,
        now: Time,
        counts: &dyn Fn(usize) -> bool,
        oldest_io: &dyn Fn() -> Option<Time>,
    ) -> Option<Proof>;
    /// Whether a partner that is kept out is so on disk `n`, too, which may have been out of reach when it was fenced.
    fn holds(&mut self, n: usize) -> bool;
    /// Disk `n` is about to be closed.
    fn close(&mut self, n: usize);
    /// Disk `n` is open now, or open anew.
    ///
    /// # Errors
    /// The fence does not work with it.
    fn open(&mut self, n: usize, disk: &Disk) -> Result<(), OpenError>;
    /// Has this controller's writes let through on disk `n`, which was opened since it entered, and which both say is written;
    /// whether they are. Asked again until they are.
    fn admit(&mut self, n: usize) -> bool {
        self.holds(n)
    }
    /// When to poll next.
    fn next_deadline(&self) -> Option<Time>;
    /// The partner may enter again: it is attached for joining.
    fn release(&mut self);
    /// Gives everything back. No disk I/O of this process is in flight.
    fn leave(&mut self);
}

/// What a fence that holds has proven.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Proof {
    /// The partner's locks are held: no process of its writes to a disk that is used, and its last write there is over.
    Locks,
    /// No disk that is used has its key any more, its tasks there are aborted, and its last grant is over.
    Reservations,
    /// A partner that hung was reset by its watchdog, any other has stopped by itself.
    Watchdog,
    /// The partner has been given the time to stop by itself. A proof of nothing: the operator has accepted that.
    Window,
}

impl fmt::Display for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Proof::Locks => "the partner's locks are held",
            Proof::Reservations => "the disks refuse the partner's writes, and its last grant is over",
            Proof::Watchdog => "the partner has stopped, or was reset by its watchdog",
            Proof::Window => "the partner has had the time to stop; nobody knows that it has",
        })
    }
}

/// The fence that the settings choose, if it can work with these disks.
pub(crate) fn open(settings: &Settings, disks: &[Option<Disk>]) -> Result<Box<dyn Fence>, OpenError> {
    let grant = Timing::default().grant;
    Ok(match &settings.fence {
        FenceChoice::Kill => Box::new(kill::open(settings, disks)?),
        FenceChoice::Pr => Box::new(pr::open(settings, disks, grant)?),
        FenceChoice::Own { watchdog } => Box::new(own::open(watchdog.as_deref(), grant)?),
    })
}
