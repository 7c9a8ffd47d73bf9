//! The end of a run: everything is healed, must become well, is read back, and must be quiet.

use super::queue::Happening;
use super::{LIVENESS, LUNS, MS, SLOWEST_HOST, SeenLun, World};
use crate::disks::SimDisk;
use crate::hosts::Command;
use crate::plan::Mode;
use crate::process::Process;
use crate::shape::PLAIN;
use crate::slowness::Slowness;
use twincell_core::cell::record::Mode as RecordMode;
use twincell_core::controller::Role;
use twincell_core::host::HostOp;
use twincell_core::ids::{Controller, DiskIndex, PSEG_BLOCKS, QUORUM_SPACE_BLOCKS, Uuid};
use twincell_core::layout::metadata::{DiskState, PsegAddress, Redundancy};
use twincell_core::manage::ManageOp;
use twincell_core::nv::resolve::resolve;

/// Nothing else may happen for so long: the operator looks by the clock.
const OPERATOR_LOOKS_EVERY: u64 = 1000 * MS;

impl World {
    /// After the storm: all is healed, becomes well, and what is on the LUNs is read back; then nothing is left over.
    /// In chaos nothing has to become well: it is enough that nothing that is read is wrong.
    pub(crate) fn end_well(&mut self) -> Result<(), String> {
        self.heal_all();
        if self.plan.mode == Mode::Chaos {
            self.look_around()?;
        } else {
            self.drain()?;
            self.lose_one_more()?;
            self.drain()?;
            self.awaits_calm = self.calm_since.is_none();
            self.scan()?;
            self.check_quiet()?;
            self.check_rest()?;
            self.check_copies()?;
            self.end_calm();
            self.scan_without_each_disk()?;
        }
        self.check_histories()
    }

    fn heal_all(&mut self) {
        self.log(|| "--- healing".into());
        self.healing = true;
        self.wire.heal();
        self.plan.slow = Slowness::default();
        self.plan.slow_paths = [0; 2];
        self.shelf.disks.iter_mut().for_each(SimDisk::heal);
        if self.plan.shape != PLAIN {
            // There the faulty place may be the only copy of what nobody writes any more, and is read again and again.
            self.shelf.disks.iter_mut().for_each(SimDisk::recover);
        }
        self.release_held();
        self.ends_after_start = [None; 2];
        self.ends_after_serving = [None; 2];
        self.partner_follows = [None; 2];
        for controller in Controller::BOTH {
            self.clocks[controller.index()].heal(self.now);
            self.stopped[controller.index()] = false;
            if let Some(process) = &mut self.processes[controller.index()] {
                process.crash_after = None;
                process.crash_before = None;
            } else {
                self.after(MS, Happening::Start(controller));
            }
        }
        self.maybe_open_link();
    }

    fn drain(&mut self) -> Result<(), String> {
        let limit = self.now + LIVENESS;
        let mut operator_looks_at = self.now;
        while self.in_flight > 0 || self.keeps_operators_waiting() || !self.is_well() || !self.have_disks_come_back() {
            if self.now >= operator_looks_at {
                operator_looks_at = self.now + OPERATOR_LOOKS_EVERY;
                self.replace_gone_disks();
            }
            if !self.advance()? || self.now > limit {
                return Err(format!(
                    "not well {} s after healing: disks {:?}, {}",
                    LIVENESS / MS / 1000,
                    self.disk_states(),
                    self.state()
                ));
            }
        }
        Ok(())
    }

    /// Whoever serves is read from, as far as that goes; an operator gives up what does not come back.
    fn look_around(&mut self) -> Result<(), String> {
        for _ in 0..3 {
            let limit = self.now + 12_000 * MS;
            while self.now < limit && self.advance()? {}
            self.accept_losses();
        }
        for path in 0..2 {
            self.read_all(path, |_| true);
            let limit = self.now + 12_000 * MS;
            while self.in_flight > 0 && self.now < limit && self.advance()? {}
        }
        Ok(())
    }

    /// An operator accepts that a memory does not come back, where a controller waits for that.
    fn accept_losses(&mut self) {
        for controller in Controller::BOTH {
            let view = self.processes[controller.index()].as_ref().map(|p| p.core.cell_view());
            if let Some(missing) = view.and_then(|v| v.awaited_memory) {
                self.manage_on(controller, ManageOp::AcceptLoss { missing });
            }
        }
    }

    /// Whether an operator has no answer yet.
    pub(super) fn keeps_operators_waiting(&self) -> bool {
        self.processes.iter().flatten().any(|p| !p.requests.is_empty())
    }

    pub(crate) fn is_well(&self) -> bool {
        let well = |p: &Option<Process>| {
            let view = p.as_ref().filter(|p| p.serves).map(|p| p.core.cell_view());
            view.is_some_and(|v| v.role == Role::Serving && v.record.is_some_and(|r| r.mode == RecordMode::Both))
        };
        self.processes.iter().all(well)
    }

    /// Whether every disk that works is a full copy again, but for those that cannot be: something of theirs cannot be read.
    pub(crate) fn have_disks_come_back(&self) -> bool {
        let partner_has_bad_blocks = |n: usize| {
            let partner = self.plan.shape.partner(n);
            partner.is_some_and(|p| self.shelf.disks[p].has_bad_blocks())
        };
        let back = |(n, state): (usize, &DiskState)| {
            *state == DiskState::Normal || self.shelf.disks[n].trouble.gone || partner_has_bad_blocks(n)
        };
        self.disk_states().iter().enumerate().all(back)
    }

    pub(crate) fn has_merging_disk(&self) -> bool {
        self.disk_states().contains(&DiskState::Merging)
    }

    /// An operator puts an empty disk in the place of one that is gone, where nothing is lost by that.
    fn replace_gone_disks(&mut self) {
        (0..self.shelf.disks.len()).for_each(|n| self.replace_gone_disk(n));
    }

    /// The same of one.
    pub(super) fn replace_gone_disk(&mut self, n: usize) {
        let serving = self.processes.iter().flatten().find(|p| p.serves);
        let Some(metadata) = serving.and_then(|p| p.core.metadata()).cloned() else {
            return;
        };
        let (known, disk) = (&metadata.disks[n], DiskIndex(n as u16));
        let at = &mut self.shelf.disks[n];
        if at.trouble.gone && known.state == DiskState::Missing && !metadata.has_single_copies(disk) {
            *at = SimDisk::empty(Uuid(500 + n as u128));
        }
        let (uuid, mut psegs) = (at.uuid, known.psegs);
        if uuid != known.uuid {
            // Mostly as large as before, sometimes larger or smaller; one that is too small is refused, and another taken.
            if self.damage.one_in(3) {
                psegs = self.damage.between(4, 40) as u32;
            }
            self.manage(ManageOp::DiskReplace { disk, uuid, psegs });
        }
    }

    pub(super) fn disk_states(&self) -> Vec<DiskState> {
        let serving = self.processes.iter().flatten().find(|p| p.serves);
        let metadata = serving.and_then(|p| p.core.metadata());
        metadata.map_or(Vec::new(), |m| m.disks.iter().map(|d| d.state).collect())
    }

    pub(super) fn state(&self) -> String {
        let view = |p: &Option<Process>| match p {
            Some(p) => {
                let v = p.core.cell_view();
                let mode = v.record.map(|r| (r.epoch, r.mode));
                format!(
                    "process {} {:?} {:?} {mode:?} linked {} joining {} dirty {} ries {} serves {} locks {} fence {} commands {}",
                    p.id,
                    v.role,
                    v.phase,
                    v.linked,
                    v.joining,
                    v.dirty_buffers,
                    v.open_ries,
                    p.serves,
                    p.wants_locks,
                    p.wants_fence,
                    p.commands.len()
                ) + "\n    "
                    + &p.core.work_in_words().join("\n    ")
            }
            None => "down".into(),
        };
        let waiting: Vec<_> = self.commands.iter().filter(|c| !c.done).take(4).collect();
        format!(
            "\n  A: {}\n  B: {}\n  locks {:?} in flight {:?}\n  waiting: {waiting:?}",
            view(&self.processes[0]),
            view(&self.processes[1]),
            self.shelf.locks,
            self.shelf.in_flight
        )
    }

    /// Reads everything back through both controllers.
    fn scan(&mut self) -> Result<(), String> {
        for path in 0..2 {
            self.scan_through(path, |_| true)?;
        }
        Ok(())
    }

    /// Reads every LUN that `which` says through one controller.
    fn scan_through(&mut self, path: usize, which: impl Fn(usize) -> bool) -> Result<(), String> {
        self.read_all(path, which);
        let limit = self.now + LIVENESS;
        while self.in_flight > 0 {
            if !self.advance()? || self.now > limit {
                return Err(format!("the scan does not end: {}", self.state()));
            }
        }
        Ok(())
    }

    fn read_all(&mut self, path: usize, which: impl Fn(usize) -> bool) {
        let hot = self.plan.hot.clone();
        for lun in (0..self.luns.len()).filter(|l| which(*l)) {
            if self.luns[lun].doomed || lun >= self.plan.luns && lun < LUNS {
                continue;
            }
            for shift in self.shifts(lun) {
                let end = hot.end + shift;
                let mut start = hot.start + shift;
                while start < end {
                    let blocks = (end - start).min(200) as u32;
                    self.issue(Command::new(0, lun, HostOp::Read, start, blocks, 0, self.number), path);
                    start += u64::from(blocks);
                }
            }
            if self.plan.odd_ranges && lun < LUNS {
                self.read_far_places(path, lun);
            }
        }
    }

    /// Reads what was written where hosts usually write nothing.
    fn read_far_places(&mut self, path: usize, lun: usize) {
        let (size, hot) = (self.luns[lun].blocks, self.plan.hot.clone());
        let is_far = |c: &&Command| {
            let end = c.start + u64::from(c.blocks);
            let writes = c.lun == lun && c.tag > 0 && c.op != HostOp::Read && c.blocks > 0;
            writes && end <= size && !(hot.contains(&c.start) && end <= hot.end)
        };
        let far = self.commands.iter().filter(is_far);
        let ranges: Vec<(u64, u32)> = far.map(|c| (c.start, c.blocks)).collect();
        for (start, blocks) in ranges {
            self.issue(Command::new(0, lun, HostOp::Read, start, blocks, 0, self.number), path);
        }
    }

    /// With each disk removed in turn, what is mirrored is still there. Nothing is in the caches any more.
    fn scan_without_each_disk(&mut self) -> Result<(), String> {
        let mirrored = self.mirrored_luns();
        for disk in 0..self.shelf.disks.len() {
            if !self.others_count(disk) {
                continue;
            }
            self.shelf.disks[disk].trouble.fails_reads = true;
            self.log(|| format!("--- without disk {disk}"));
            let result = self.scan_through(disk % 2, |lun| mirrored.contains(&lun));
            // A disk that failed during the storm may be given up only now.
            if let Err(what) = result
                && self.others_count(disk)
            {
                return Err(format!("without disk {disk}: {what}"));
            }
            self.shelf.disks[disk].trouble.fails_reads = false;
        }
        Ok(())
    }

    /// Whether all disks but this one are in order, for the disks and for the cell.
    fn others_count(&self, disk: usize) -> bool {
        (0..self.shelf.disks.len())
            .filter(|d| *d != disk)
            .all(|d| self.is_in(DiskIndex(d as u16)))
    }

    /// The LUNs that are mirrored, as hosts count them.
    fn mirrored_luns(&self) -> Vec<usize> {
        let process = self.processes.iter().flatten().next();
        let luns = process.and_then(|p| p.core.metadata()).map_or(&[][..], |m| &m.luns);
        let mirrored = |seen: &SeenLun| {
            let lun = luns.iter().find(|l| l.noid == seen.noid);
            lun.is_some_and(|l| l.redundancy == Redundancy::Vraid1)
        };
        (0..self.luns.len()).filter(|n| mirrored(&self.luns[*n])).collect()
    }

    /// When all is quiet, both copies of what is mirrored are the same, block by block.
    fn check_copies(&mut self) -> Result<(), String> {
        let process = self.processes.iter().flatten().next().ok_or("nobody runs")?;
        let metadata = process.core.metadata().ok_or("no metadata")?;
        for lun in metadata.luns.iter().filter(|l| l.redundancy == Redundancy::Vraid1) {
            for copies in lun.psegs.chunks(2) {
                if !copies.iter().all(|c| self.is_in(c.disk)) {
                    continue;
                }
                let block = |c: &PsegAddress, n: u64| {
                    let at = QUORUM_SPACE_BLOCKS + u64::from(c.pseg.0) * PSEG_BLOCKS + n;
                    self.shelf.disks[c.disk.index()].read(at)
                };
                let differs = (0..PSEG_BLOCKS).find(|n| block(&copies[0], *n) != block(&copies[1], *n));
                if let Some(n) = differs {
                    return Err(format!(
                        "block {n} of {:?} is {}, and {} in its copy {:?}",
                        copies[0],
                        block(&copies[0], n),
                        block(&copies[1], n),
                        copies[1]
                    ));
                }
            }
        }
        Ok(())
    }

    /// When all is quiet, both images hold the same, and nothing is held by nobody.
    pub(super) fn check_quiet(&mut self) -> Result<(), String> {
        self.until_quiet()?;
        // Data that a host was asked for may still be on their way, though it has given up.
        let settle = self.now + 500 * MS + if self.plan.slow_hosts { SLOWEST_HOST } else { 0 };
        let in_progress = |w: &World| {
            let mut processes = w.processes.iter().flatten();
            processes.any(|p| !p.core.work_in_words().is_empty())
        };
        while (self.now < settle || self.now < settle + LIVENESS && in_progress(self)) && self.advance()? {}
        // A controller that stood still when all was healed may have been given up only meanwhile.
        self.until_quiet()?;
        for process in self.processes.iter().flatten() {
            if let Some(command) = process.core.work_in_words().first() {
                return Err(format!("nobody waits, and there still is a command: {command}"));
            }
        }
        for controller in Controller::BOTH {
            let image = &self.nv[controller.index()].as_ref().ok_or("no NV memory")?.image;
            let valid = resolve(image, self.geometry).map_err(|_| "a damaged image")?;
            if !valid.is_empty() {
                return Err(format!("{controller} still holds {valid:?} though all is on disk"));
            }
        }
        Ok(())
    }

    fn until_quiet(&mut self) -> Result<(), String> {
        let limit = self.now + LIVENESS;
        let clean = |p: &Option<Process>| p.as_ref().is_some_and(|p| p.core.cell_view().dirty_buffers == 0);
        while !(self.is_well() && self.processes.iter().all(clean)) {
            if !self.advance()? || self.now > limit {
                return Err(format!("never quiet: {}", self.state()));
            }
        }
        Ok(())
    }

    /// For every block there was one order of all that was done.
    pub(super) fn check_histories(&self) -> Result<(), String> {
        for (lun, history) in self.histories.iter().enumerate() {
            history
                .check_linearizable()
                .map_err(|what| format!("LUN {lun}: {what}"))?;
        }
        Ok(())
    }
}
