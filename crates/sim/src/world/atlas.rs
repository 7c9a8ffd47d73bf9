//! The fault atlas: it knows which copy is the last good one, and which faults the promise therefore excludes.

use super::World;
use crate::fault::Fault;
use crate::plan::Mode;
use crate::process::Process;
use twincell_core::cell::record::{Mode as RecordMode, Record, Slot};
use twincell_core::controller::Role;
use twincell_core::ids::{Controller, DiskIndex};
use twincell_core::layout::metadata::{DiskState, Metadata};

impl World {
    /// Whether a fault may come now.
    pub(super) fn may_come(&self, fault: Fault) -> bool {
        if self.plan.mode == Mode::Chaos {
            return true;
        }
        match fault {
            Fault::LoseNv(c) | Fault::FlipNvAndCrash(c, _) => self.partner_has_everything(c) || self.is_worthless(c),
            Fault::AcceptLoss(c) => !self.awaits_operator(c) && !self.stands_still(c),
            Fault::FlipNv(..) | Fault::LoseBothNv => false,
            Fault::FailDisk(d, _) | Fault::FailWrites(d, _) | Fault::StallDisk(d, _) => self.others_are_sound(d),
            Fault::FailFlushes(d, _) | Fault::FailReads(d, _) | Fault::FailSlots(d, _) => self.others_are_sound(d),
            Fault::LoseSight(_, d, _) | Fault::SlowDisk(d, ..) | Fault::BadRegion(d, ..) => self.others_are_sound(d),
            Fault::LoseSightOfAll(..) | Fault::FailAll(_) | Fault::StallAll(_) => self.others_are_sound(usize::MAX),
            Fault::LoseDisk(d) | Fault::BadBlocks(d, ..) => self.others_are_sound(d) && self.others_are_in(d),
            _ => true,
        }
    }

    /// The NV memory of `c` may go only while its partner serves, is not about to end, and the record names its image.
    pub(super) fn partner_has_everything(&self, c: Controller) -> bool {
        let other = c.other();
        let Some(process) = &self.processes[other.index()] else {
            return false;
        };
        let Some(nv) = &self.nv[other.index()] else {
            return false;
        };
        let view = process.core.cell_view();
        process.crash_after.is_none()
            && process.crash_before.is_none()
            && self.ends_after_serving[other.index()].is_none()
            && self.ends_after_start[other.index()].is_none()
            && process.paused_until <= self.now
            && view.role == Role::Serving
            && view
                .record
                .is_some_and(|r| r.has(other) && r.is_current(other, nv.image.uuid))
            && view.linked
            && self.wire.is_sound()
            // It may have stood still, and know an old record.
            && self.decided().is_some_and(|r| r.has(other))
    }

    /// The record in force, if nobody has voted for another.
    fn decided(&self) -> Option<&Record> {
        let (epoch, record) = self.records.last_key_value()?;
        let mut slots = self.shelf.disks.iter().flat_map(|disk| disk.slots.iter().flatten());
        let is_open = |slot: &Slot| slot.voted > 0 && slot.proposal.epoch > *epoch;
        (!slots.any(is_open)).then_some(record)
    }

    /// Whether the NV memory of `c`, which does not run, is of no use any more: the record says that its partner is alone, and
    /// nobody has voted for anything else.
    fn is_worthless(&self, c: Controller) -> bool {
        let alone = |r: &Record| matches!(r.mode, RecordMode::Alone { controller, .. } if controller != c);
        self.processes[c.index()].is_none() && self.decided().is_some_and(alone)
    }

    /// Whether a controller waits until an operator gives up what only one memory has. Whoever does so loses it.
    pub(super) fn awaits_operator(&self, c: Controller) -> bool {
        let process = self.processes[c.index()].as_ref();
        process.is_some_and(|p| p.core.cell_view().awaited_memory.is_some())
    }

    /// Whether no other disk is in trouble.
    fn others_are_sound(&self, d: usize) -> bool {
        let disks = self.shelf.disks.iter().enumerate();
        disks
            .filter(|(n, _)| *n != d)
            .all(|(_, disk)| !disk.is_troubled(self.now))
    }

    /// What a controller has heard by now, and will do when it goes on, is not to be seen in its core.
    fn stands_still(&self, c: Controller) -> bool {
        self.processes[c.index()]
            .as_ref()
            .is_some_and(|p| p.paused_until > self.now)
    }

    /// Whether another disk was late, or failed, so lately that once more may be once too often for it (`disk.rs`).
    fn others_were_in_trouble(&self, d: usize) -> bool {
        let lately = |at: u64| at + 2_000 * super::MS >= self.now;
        let mut disks = self.shelf.disks.iter().enumerate();
        disks.any(|(n, disk)| n != d && disk.failed_at.is_some_and(lately))
    }

    /// Whether no other disk was given up, or may be so by now.
    fn others_are_in(&self, d: usize) -> bool {
        if self.others_were_in_trouble(d) || Controller::BOTH.iter().any(|c| self.stands_still(*c)) {
            return false;
        }
        let doubts = |p: &Process| p.core.doubts_another(DiskIndex(d as u16));
        if self.processes.iter().flatten().any(doubts) {
            return false;
        }
        let on_disk = self.shelf.disks.iter().flat_map(|disk| disk.metadata.iter().flatten());
        let of_processes = self.processes.iter().flatten();
        let in_memory = of_processes.flat_map(|p| [p.core.metadata(), p.core.metadata_to_write()]);
        on_disk.chain(in_memory.flatten()).all(|m| all_in(m, d))
    }

    /// Whether a disk is one that the metadata of a controller that serves count on.
    pub(super) fn is_in(&self, d: DiskIndex) -> bool {
        let serving = self.processes.iter().flatten().find(|p| p.serves);
        let metadata = serving.and_then(|p| p.core.metadata());
        metadata.is_some_and(|m| m.disks[d.index()].state == DiskState::Normal)
            && !self.shelf.disks[d.index()].is_troubled(self.now)
    }
}

fn all_in(metadata: &Metadata, but: usize) -> bool {
    let others = metadata.disks.iter().enumerate().filter(|(n, _)| *n != but);
    others.into_iter().all(|(_, disk)| disk.state == DiskState::Normal)
}
