//! What must hold when a controller tells a host that all is well: it may speak, and what it promises is so.

use super::World;
use crate::history::tag_of;
use twincell_core::cell::record::Mode;
use twincell_core::controller::Role;
use twincell_core::host::HostOp;
use twincell_core::ids::{Controller, DiskIndex, PSEG_BLOCKS, QUORUM_SPACE_BLOCKS};
use twincell_core::layout::metadata::Lun;

impl World {
    /// A command ends well: whoever says so may speak, and what it says is true.
    pub(super) fn check_good(&mut self, controller: Controller, attempt: u64) {
        self.check_answer(controller);
        self.check_licence(controller);
        self.check_durable(controller, attempt);
    }

    /// Both in: within the partner's grant. Alone: within the lease that reading the record gives (R2).
    fn check_licence(&mut self, controller: Controller) {
        let now = self.clocks[controller.index()].at(self.now);
        let Some(process) = &self.processes[controller.index()] else {
            return;
        };
        let until = match process.core.cell_view().record.map(|r| r.mode) {
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

    /// What FUA, SYNCHRONIZE CACHE, or a controller that has no partner says to be on disk is there, and stays there whatever becomes of both NV memories and of the caches of the disks: of each block one disk at least has that or
    /// something that is not older.
    fn check_durable(&mut self, controller: Controller, attempt: u64) {
        let Some(process) = &self.processes[controller.index()] else {
            return;
        };
        let attempt = self.attempts[attempt as usize - 1];
        let command = &self.commands[attempt.command];
        let view = process.core.cell_view();
        let alone = view.role == Role::Serving && view.record.is_some_and(|r| r.mode != Mode::Both);
        let range = match command.op {
            HostOp::Write { fua } if fua || alone => command.start..command.start + u64::from(command.blocks),
            HostOp::Sync => self.plan.hot.clone(),
            _ => return,
        };
        let noid = self.luns[command.lun].noid;
        let Some(lun) = process
            .core
            .metadata()
            .and_then(|m| m.luns.iter().find(|l| l.noid == noid))
        else {
            return;
        };
        let history = &self.histories[command.lun];
        let lost = range.clone().find(|block| {
            let newest = match command.op {
                HostOp::Sync => history.newest_acknowledged(*block, command.begun),
                _ => history.submitted(command.tag),
            };
            let is_bad = |v: u64| history.is_older(tag_of(v), newest) || !history.is_in_its_place(*block, v);
            newest > 0 && !self.is_durable(lun, *block, is_bad)
        });
        if let Some(block) = lost {
            let what = format!("{:?} {range:?} on LUN {}", command.op, command.lun);
            self.fail(format!(
                "{controller} answers {what}, and block {block} could still be lost"
            ));
        }
    }

    /// Whether there is a copy of a block of which nothing that its disk could be left with is older than it may be, or in the wrong place.
    fn is_durable(&self, lun: &Lun, block: u64, is_bad: impl Fn(u64) -> bool) -> bool {
        let copies = lun.rstore((block / PSEG_BLOCKS) as usize);
        copies.iter().any(|copy| {
            let DiskIndex(disk) = copy.disk;
            let at = QUORUM_SPACE_BLOCKS + u64::from(copy.pseg.0) * PSEG_BLOCKS + block % PSEG_BLOCKS;
            !self.shelf.disks[usize::from(disk)].after_power_loss(at).any(&is_bad)
        })
    }
}
