//! Fence driver `kill`: both controllers on one machine, or disks whose file locks both see.

use super::{Fence, Proof, RETRY};
use crate::disk::{self, Disk, Voters};
use crate::error::OpenError;
use crate::locks::Byte;
use crate::process::{self, Kill};
use crate::settings::Settings;
use std::os::fd::RawFd;
use tracing::{info, warn};
use twincell_core::ids::{Controller, ProcessId, Time};

/// Ends the partner's process where it can be seen; the proof is its lock byte on every disk that is used, and on most of
/// those that vote.
///
/// A process without it neither writes to disks nor serves. So one that is about to leave may go by itself, and one that
/// has just started and waits to join is left alone.
pub(crate) struct KillFence {
    disks: Vec<Option<RawFd>>,
    byte: Byte,
    /// The controllers are on two machines.
    apart: bool,
    /// The partner's process, to be ended at this time unless its bytes are held before.
    kill: Option<(ProcessId, Time)>,
    retry_at: Option<Time>,
}

/// The fence on these disks.
pub(super) fn open(settings: &Settings, disks: &[Option<Disk>]) -> Result<KillFence, OpenError> {
    let [a, b] = settings.link.each_ref().map(|l| l.first().map(|a| a.ip()));
    let apart = b.is_some() && a != b;
    disks.iter().flatten().try_for_each(|d| check(d, apart))?;
    let fds = disks.iter().map(|d| d.as_ref().map(Disk::fd)).collect();
    Ok(KillFence::new(
        settings.controller.other(),
        fds,
        &disk::voters(disks),
        apart,
    ))
}

/// Locks on a block device are those of one machine: they prove nothing of a process on another.
fn check(disk: &Disk, apart: bool) -> Result<(), OpenError> {
    if !apart || !disk.is_block_device() {
        return Ok(());
    }
    Err(OpenError::Fence {
        fence: "kill",
        path: disk.path.clone(),
        why: "the controllers are on two machines, and neither sees the other's locks on a block device".into(),
    })
}

impl KillFence {
    /// Against `partner`, on these disks. The descriptors stay open until `close` says that they do not.
    pub(crate) fn new(partner: Controller, disks: Vec<Option<RawFd>>, voters: &Voters, apart: bool) -> KillFence {
        KillFence {
            apart,
            byte: Byte::new(partner, disks.len(), voters),
            disks,
            kill: None,
            retry_at: None,
        }
    }
}

impl Fence for KillFence {
    fn enter(&mut self, _: Time) -> bool {
        true
    }

    fn take(&mut self, now: Time, partner: ProcessId) {
        self.kill = Some((partner, now + RETRY));
        self.retry_at = Some(now);
    }

    fn poll(&mut self, now: Time, counts: &dyn Fn(usize) -> bool, _: &dyn Fn() -> Option<Time>) -> Option<Proof> {
        if self.retry_at.is_none_or(|at| now < at) {
            return None;
        }
        if self.byte.take(&self.disks, counts) {
            self.retry_at = None;
            return Some(Proof::Locks);
        }
        if let Some((process, _)) = self.kill.take_if(|(_, at)| *at <= now) {
            kill(process);
        }
        self.retry_at = Some(now + RETRY);
        None
    }

    fn holds(&mut self, n: usize) -> bool {
        self.disks[n].is_some_and(|disk| self.byte.hold(n, disk))
    }

    fn close(&mut self, n: usize) {
        self.disks[n] = None;
        self.byte.forget(n);
    }

    fn open(&mut self, n: usize, disk: &Disk) -> Result<(), OpenError> {
        check(disk, self.apart)?;
        self.disks[n] = Some(disk.fd());
        Ok(())
    }

    fn next_deadline(&self) -> Option<Time> {
        self.retry_at
    }

    fn release(&mut self) {
        self.kill = None;
        self.retry_at = None;
        self.byte.release(&self.disks);
    }

    fn leave(&mut self) {
        self.release();
    }
}

fn kill(partner: ProcessId) {
    match process::kill(partner) {
        Kill::Sent => info!(pid = partner.pid, "fence: the partner's process was killed"),
        Kill::Gone => info!(pid = partner.pid, "fence: the partner's process had ended"),
        Kill::OutOfSight => info!("fence: no process of the partner in sight; its locks are the proof"),
        Kill::Refused(e) => warn!(pid = partner.pid, "fence: the partner's process cannot be killed: {e}"),
    }
}
