//! What must hold when a controller tells a host that all is well: it may speak, and what it promises is so.

use super::World;
use crate::history::tag_of;
use crate::hosts::Command;
use crate::plan::Mode as Promised;
use crate::process::Commit;
use twincell_core::cell::Phase;
use twincell_core::cell::record::{Mode, Record};
use twincell_core::controller::Role;
use twincell_core::host::HostOp;
use twincell_core::ids::{Controller, Nanos, PSEG_BLOCKS, QUORUM_SPACE_BLOCKS, Vba};
use twincell_core::layout::metadata::{DiskState, Lun, Metadata, PsegAddress};
use twincell_core::link::frame::{Frame, Mfc};
use twincell_core::nv::resolve::ValidBuffer;

/// So long in nanoseconds a controller leaves a disk alone that has failed, or goes by an older record, at most.
pub(super) const MEMORY: u64 = 1_000_000_000;

impl World {
    /// A command ends well: whoever says so may speak, and what it says is true.
    pub(super) fn check_good(&mut self, controller: Controller, attempt: u64) {
        self.check_answer(controller);
        self.check_licence(controller);
        self.check_persisted(controller, attempt);
        self.check_durable(controller, attempt);
    }

    /// Both in: within the partner's grant. Alone: within the lease that reading the record gives (R2).
    fn check_licence(&mut self, controller: Controller) {
        let now = self.clocks[controller.index()].at(self.now);
        let Some(process) = &self.processes[controller.index()] else {
            return;
        };
        let own = process.core.cell_view().record;
        let newer = |r: &&Record| own.is_none_or(|own| own.epoch < r.epoch);
        let newest = self.newest_that_names(controller).filter(newer).or(own.as_ref());
        let until = match newest.map(|r| r.mode) {
            Some(Mode::Both) => process.licence.granted_until(),
            Some(Mode::Alone { controller: alone, .. }) if alone == controller => {
                process.licence.looked_at() + self.timing.grant.0
            }
            _ => 0,
        };
        if now >= until {
            self.fail(format!(
                "{controller} answers a host {} us after its grant or lease",
                (now - until) / super::US
            ));
        }
    }

    /// The newest record that is known to be committed, by whoever knows it, and has a controller in.
    pub(super) fn newest_that_names(&self, controller: Controller) -> Option<&Record> {
        self.records.values().rev().find(|r| r.has(controller))
    }

    /// A controller that waits, has lost its partner, or is out grants nothing (R2): its partner may be out.
    pub(super) fn check_grant(&mut self, controller: Controller, frame: &Frame) {
        let Frame::HeartbeatAnswer { grant, .. } = frame else {
            return;
        };
        let Some(process) = self.processes[controller.index()].as_ref() else {
            return;
        };
        let view = process.core.cell_view();
        let both = view.record.is_some_and(|r| r.mode == Mode::Both);
        let entitles = |phase| match phase {
            Phase::Joining | Phase::Leveling => true,
            Phase::Serving => both || view.joining,
            Phase::Leaving => both,
            _ => false,
        };
        // It may lose its partner in the step in which it answered.
        if *grant > Nanos(0) && !entitles(view.phase) && !entitles(process.phase) {
            self.fail(format!(
                "{controller} grants its partner to serve while {:?}",
                view.phase
            ));
        }
    }

    /// A write is done once NV memory has said that its commit is durable. Of one that was tried more than once the first attempt
    /// may be answered while another writes the same.
    fn check_persisted(&mut self, controller: Controller, attempt: u64) {
        let command = &self.commands[self.attempts[attempt as usize - 1].command];
        let process = self.processes[controller.index()].as_ref();
        let mut commits = process.into_iter().flat_map(|p| &p.commits);
        let once = matches!(command.op, HostOp::Write { .. }) && command.tries == 0;
        if once && commits.any(|c| tag_of(c.tag) == command.tag) {
            self.fail(format!("{controller} answers a write whose commit is not durable yet"));
        }
    }

    /// The same of the mirror, which says so to the primary.
    pub(super) fn check_mda(&mut self, controller: Controller, mfcs: &[Mfc]) {
        let process = self.processes[controller.index()].as_ref();
        let commits = process.map_or(&[][..], |p| &p.commits);
        let says = |c: &Commit| {
            mfcs.iter()
                .any(|mfc| matches!(mfc, Mfc::Mda { rie, .. } if *rie == c.rie))
        };
        if commits.iter().any(says) {
            self.fail(format!(
                "{controller} says MDA of a write whose commit is not durable yet"
            ));
        }
    }

    /// What FUA, SYNCHRONIZE CACHE, or a controller that has no partner says to be on disk is there, and stays there whatever
    /// becomes of both NV memories and of the caches of the disks: of each block every copy that counts has that or
    /// something that is not older.
    fn check_durable(&mut self, controller: Controller, attempt: u64) {
        let Some(process) = &self.processes[controller.index()] else {
            return;
        };
        let attempt = self.attempts[attempt as usize - 1];
        let command = &self.commands[attempt.command];
        let view = process.core.cell_view();
        let newest = self.newest_that_names(controller);
        let alone = view.role == Role::Serving && newest.or(view.record.as_ref()).is_some_and(|r| r.mode != Mode::Both);
        let waited = match command.op {
            HostOp::Write { fua } => fua || alone,
            HostOp::Sync => true,
            HostOp::Read => false,
        };
        let noid = self.luns[command.lun].noid;
        let metadata = waited.then(|| self.metadata_in_force()).flatten();
        let Some((metadata, lun)) = metadata.and_then(|m| m.luns.iter().find(|l| l.noid == noid).map(|l| (m, l)))
        else {
            return;
        };
        let history = &self.histories[command.lun];
        let is_lost = |block: u64, newest| {
            let is_bad = |v: u64| history.is_older(tag_of(v), newest) || !history.is_in_its_place(block, v);
            newest > 0 && !self.is_durable(metadata, lun, block, is_bad)
        };
        let lost = if command.op == HostOp::Sync {
            let mut blocks = history.blocks();
            blocks.find(|block| is_lost(*block, history.newest_acknowledged(*block, command.begun)))
        } else {
            let mut blocks = command.start..command.start + u64::from(command.blocks);
            blocks.find(|block| is_lost(*block, history.submitted(command.tag)))
        };
        if let Some(block) = lost {
            let Command { op, start, blocks, .. } = command;
            let what = format!("{op:?} {start}+{blocks} on LUN {}", command.lun);
            self.fail(format!(
                "{controller} answers {what}, and block {block} could still be lost"
            ));
        }
    }

    /// A valid buffer was made free, and its image has no other for its blocks: each disk that counts has them for good, or
    /// something newer.
    pub(super) fn check_freed(&mut self, controller: Controller, freed: &ValidBuffer) {
        let Some(nv) = self.nv[controller.index()].as_ref().filter(|nv| !nv.is_flipped) else {
            return;
        };
        let Some(process) = &self.processes[controller.index()] else {
            return;
        };
        // Who is out and does not know it frees what nobody will look at.
        if self
            .records
            .last_key_value()
            .is_some_and(|(_, newest)| !newest.has(controller))
        {
            return;
        }
        // Images that are made level, and what a takeover finds.
        if process.core.cell_view().role == Role::Starting {
            return;
        }
        // The partner may be the first to know that a disk does not count any more, and may have died since; what is left of a
        // LUN that is deleted is nothing.
        let metadata = self.metadata_in_force();
        let lun = metadata.and_then(|m| m.luns.iter().find(|l| l.ncae == freed.ncae));
        let (Some(metadata), Some(lun)) = (metadata, lun) else {
            return;
        };
        let Vba(start) = freed.start;
        let tags = nv.buffer(freed.buffer);
        let copies = lun.rstore((start / PSEG_BLOCKS) as usize);
        let lacks = copies.iter().find(|copy| {
            let at = QUORUM_SPACE_BLOCKS + u64::from(copy.pseg.0) * PSEG_BLOCKS + start % PSEG_BLOCKS;
            let counts = metadata.disks[copy.disk.index()].state == DiskState::Normal;
            counts && !self.shelf.disks[copy.disk.index()].has_for_good(at, freed.mask, tags)
        });
        if let Some(copy) = lacks {
            let what = format!("{freed:?} of LUN {}, which {:?} may lack", lun.name.as_str(), copy.disk);
            self.fail(format!("{controller} frees {what}"));
        }
    }

    /// The metadata that the newest record names, of those that slots or controllers have.
    pub(super) fn metadata_in_force(&self) -> Option<&Metadata> {
        let of_processes = || self.processes.iter().flatten();
        let told = self.records.last_key_value().map(|(_, record)| *record);
        let known = of_processes().filter_map(|p| p.core.cell_view().record);
        let named = known.chain(told).max_by_key(|r| r.epoch)?.metadata;
        let on_disks = self.shelf.disks.iter().flat_map(|d| d.metadata.iter().flatten());
        let in_memory = of_processes().filter_map(|p| p.core.metadata());
        in_memory.chain(on_disks).find(|m| m.generation == named.generation)
    }

    /// Whether nothing that the disks of a block could be left with is older than it may be, or in the wrong place. A disk that
    /// is being made level, or was given up, need not have it; the only copy must be there.
    fn is_durable(&self, metadata: &Metadata, lun: &Lun, block: u64, is_bad: impl Fn(u64) -> bool) -> bool {
        let copies = lun.rstore((block / PSEG_BLOCKS) as usize);
        let counts = |disk: usize| copies.len() == 1 || metadata.disks[disk].state == DiskState::Normal;
        copies.iter().filter(|c| counts(c.disk.index())).all(|copy| {
            let at = QUORUM_SPACE_BLOCKS + u64::from(copy.pseg.0) * PSEG_BLOCKS + block % PSEG_BLOCKS;
            !self.shelf.disks[copy.disk.index()].after_power_loss(at).any(&is_bad)
        })
    }

    /// A host hears of an error of the disks only where one could be: not where each block has a copy on a disk that counts, and
    /// that nothing was wrong with during the whole attempt. What waits for the disks waits for all of the LUN.
    pub(super) fn check_error(&mut self, controller: Controller, attempt: u64) {
        if self.plan.mode == Promised::Chaos {
            return;
        }
        let attempt = self.attempts[attempt as usize - 1];
        let command = &self.commands[attempt.command];
        let noid = self.luns[command.lun].noid;
        // What was so until a short time before may still be on somebody's mind.
        let long_before = |at: u64| at + MEMORY < attempt.begun;
        let Some(metadata) = self.metadata_in_force().filter(|_| long_before(self.newest_record_at)) else {
            return;
        };
        let Some(lun) = metadata.luns.iter().find(|l| l.noid == noid) else {
            return;
        };
        let of_processes = self.processes.iter().flatten().filter_map(|p| p.core.metadata());
        let all: Vec<&Metadata> = of_processes.chain([metadata]).collect();
        let is_sound = |copy: &PsegAddress| {
            let disk = &self.shelf.disks[copy.disk.index()];
            !disk.is_troubled(self.now)
                && disk.failed_at.is_none_or(long_before)
                && all
                    .iter()
                    .all(|m| m.disks[copy.disk.index()].state == DiskState::Normal)
        };
        let rstores = if command.op == HostOp::Read {
            let end = command.start + u64::from(command.blocks);
            command.start / PSEG_BLOCKS..end.div_ceil(PSEG_BLOCKS)
        } else {
            0..Lun::rstores_for(lun.blocks)
        };
        if rstores.into_iter().all(|n| lun.rstore(n as usize).iter().any(is_sound)) {
            let Command { op, start, blocks, .. } = command;
            let what = format!("{op:?} {start}+{blocks} on LUN {}", command.lun);
            self.fail(format!(
                "{controller} answers {what} with an error, and its disks are in order"
            ));
        }
    }

    /// Between steps, whoever serves has told hosts of the LUNs as they are.
    pub(super) fn check_view(&mut self, controller: Controller) {
        let Some(process) = self.processes[controller.index()].as_ref().filter(|p| p.serves) else {
            return;
        };
        if process.core.luns().ne(process.told.iter().copied()) {
            let untold: Vec<_> = process.core.luns().filter(|lun| !process.told.contains(lun)).collect();
            self.fail(format!(
                "{controller} has not told hosts what has become of the LUNs: {untold:?}"
            ));
        }
    }
}
