//! All is well again; then a disk dies for good, or has something that it keeps, or the link has; a controller ends around that and comes
//! back. The cell must become whole with that: what breaks in a storm is healed before anybody asks for it.

use super::queue::Happening;
use super::{HOSTS, LIVENESS, MS, World};
use crate::ailment::Ailment;
use crate::disks::SimDisk;
use crate::plan::Mode;
use crate::process::Process;
use crate::wishes;
use twincell_core::controller::Role;
use twincell_core::ids::{Controller, DiskIndex};
use twincell_core::layout::metadata::DiskState;

/// One run in so many has it.
const ONE_IN: u64 = 8;
/// So many more commands of hosts come meanwhile.
const COMMANDS: u32 = 40;
/// Hardware and controller fall within this; and so long at most the controller is away.
const WITHIN: u64 = 6_000 * MS;

/// What happens.
#[derive(Clone, Copy)]
enum Loss {
    Hardware(Ailment),
    Controller,
    /// An operator wants something.
    Wish,
}

impl World {
    pub(super) fn lose_one_more(&mut self) -> Result<(), String> {
        let Some(disk) = self.disk_to_lose() else {
            return Ok(());
        };
        let controller = Controller::BOTH[self.aside.below(2) as usize];
        let ailment = Ailment::draw(&mut self.aside, self.plan.paths);
        let mut losses = [Loss::Hardware(ailment), Loss::Controller, Loss::Wish, Loss::Wish].map(|loss| {
            let at = self.now + self.aside.below(WITHIN);
            (at, loss)
        });
        losses.sort_by_key(|l| l.0);
        self.log(|| format!("--- disk {disk} has {ailment:?} for good, and {controller} is lost for a while"));
        self.end_patience();
        self.plan.commands = self.commands.len() as u32 + COMMANDS;
        self.plan.idle = self.plan.idle.min(WITHIN);
        self.goes_on = true;
        for host in 0..HOSTS {
            let delay = self.aside.below(WITHIN / 2);
            self.after(delay, Happening::NextCommand(host));
        }
        for (at, loss) in losses {
            while self.now < at && self.advance()? {}
            self.lose(loss, disk, controller);
        }
        self.becomes_well_with(ailment, disk)?;
        self.goes_on = false;
        self.cure();
        Ok(())
    }

    /// One that is no last copy, if all are in.
    fn disk_to_lose(&mut self) -> Option<usize> {
        if self.plan.mode != Mode::Promise || self.calm_since.is_some() || !self.aside.one_in(ONE_IN) {
            return None;
        }
        let disk = self.aside.below(self.shelf.disks.len() as u64) as usize;
        let serving = self.processes.iter().flatten().find(|p| p.serves);
        let metadata = serving.and_then(|p| p.core.metadata())?;
        let all_in = metadata.disks.iter().all(|d| d.state == DiskState::Normal);
        let is_sound = |d: &SimDisk| !d.has_bad_blocks() && !d.is_troubled(self.now);
        let can =
            all_in && self.shelf.disks.iter().all(is_sound) && !metadata.has_single_copies(DiskIndex(disk as u16));
        can.then_some(disk)
    }

    fn lose(&mut self, loss: Loss, disk: usize, controller: Controller) {
        match loss {
            Loss::Hardware(ailment) => self.fall_ill(ailment, disk),
            Loss::Controller if self.processes[controller.index()].is_some() => {
                self.fall(controller);
                let delay = self.aside.below(WITHIN);
                self.after(delay, Happening::Start(controller));
            }
            Loss::Controller => {}
            Loss::Wish => {
                let wish = wishes::draw(&mut self.aside, true);
                self.fault(wish);
            }
        }
    }

    /// Hosts and operators have their answers, and both controllers serve. Who takes over waits for what a process that has ended
    /// had on its way to the disk before that was given up: no longer than that hangs.
    fn becomes_well_with(&mut self, ailment: Ailment, disk: usize) -> Result<(), String> {
        let limit = self.now + LIVENESS;
        let whole = |w: &World| {
            let all_sent = w.commands.len() as u32 >= w.plan.commands;
            all_sent && w.in_flight == 0 && !w.keeps_operators_waiting() && w.is_well()
        };
        while !whole(self) && !self.waits_for_what_hangs(disk) {
            if !self.advance()? || self.now > limit {
                return Err(format!(
                    "not well {} s with {ailment:?} of disk {disk}: disks {:?}, {}",
                    LIVENESS / MS / 1000,
                    self.disk_states(),
                    self.state()
                ));
            }
        }
        Ok(())
    }

    fn waits_for_what_hangs(&self, disk: usize) -> bool {
        let is_gone = |c: Controller, process: u32| self.processes[c.index()].as_ref().is_none_or(|p| p.id != process);
        let mut in_flight = self.shelf.in_flight.iter();
        let serves = |p: &Process| p.core.cell_view().role == Role::Serving;
        let is_down = self.now > self.newest_record_at + WITHIN && !self.processes.iter().flatten().any(serves);
        is_down && in_flight.any(|((c, process, d), count)| d.index() == disk && *count > 0 && is_gone(*c, *process))
    }
}
