//! What a play can do with the world.

use super::queue::Happening;
use super::{HOSTS, MS, World};
use crate::fault::Fault;
use crate::hosts::Command;
use crate::plan::Plan;
use crate::play::Op;
use crate::random::Random;
use twincell_core::host::HostOp;
use twincell_core::ids::Controller;

impl World {
    /// A world in which nothing is left to chance.
    pub(crate) fn calm(plan: Plan) -> World {
        World::with(Random::calm(), plan, false)
    }

    pub(crate) fn now(&self) -> u64 {
        self.now
    }

    /// How many effects each controller has carried out.
    pub(crate) fn effects_done(&self) -> [u64; 2] {
        self.effects_done
    }

    /// Both controllers are started, A first: it owns every LUN.
    pub(crate) fn bring_up(&mut self) {
        self.start(Controller::A);
        self.after(100 * MS, Happening::Start(Controller::B));
    }

    /// Something goes wrong now.
    pub(crate) fn inject(&mut self, fault: Fault) {
        self.fault(fault);
    }

    /// A controller's process ends after so many effects, and its partner's with it.
    pub(crate) fn crash_after(&mut self, c: Controller, effects: u32, partner_follows: bool) {
        self.tell(Controller::A, format!("*** {c} ends after {effects} more effects"));
        self.partner_follows[c.index()] = partner_follows.then_some(0);
        self.fault(Fault::CrashAfterEffects(c, effects));
    }

    pub(crate) fn put_down(&mut self, c: Controller) {
        self.stopped[c.index()] = true;
        self.crash(c);
    }

    pub(crate) fn put_up(&mut self, c: Controller) {
        self.stopped[c.index()] = false;
        self.start(c);
    }

    pub(crate) fn set_link(&mut self, works: bool) {
        self.cut_link(!works);
        self.maybe_open_link();
    }

    pub(crate) fn slow_disks(&mut self, ms: u64) {
        self.shelf.write_delay = ms * MS;
    }

    pub(crate) fn serves(&self, c: Controller) -> bool {
        self.processes[c.index()].as_ref().is_some_and(|p| p.serves)
    }

    pub(crate) fn all_answered(&self) -> bool {
        self.in_flight == 0
    }

    /// Whether no controller that runs has dirty data.
    pub(crate) fn is_clean(&self) -> bool {
        let mut running = self.processes.iter().flatten();
        running.all(|p| p.core.cell_view().dirty_buffers == 0)
    }

    /// A host sends a command to LUN 0, and tries again as often as it must.
    pub(crate) fn send(&mut self, path: Controller, op: Op, lun: usize, start: u64, blocks: u32) {
        let command = self.commands.len();
        let tag = command as u64 + 1;
        let (op, in_hand) = match op {
            Op::Write => (HostOp::Write { fua: false }, Some(blocks)),
            Op::LongWrite => (HostOp::Write { fua: false }, Some(0)),
            Op::Fua => (HostOp::Write { fua: true }, Some(blocks)),
            Op::Read => (HostOp::Read, None),
            Op::Sync => (HostOp::Sync, None),
        };
        let command = Command {
            in_hand,
            ..Command::new(command % HOSTS, lun, op, start, blocks, tag, self.number)
        };
        self.issue(command, path.index());
    }

    /// The story begins here, if anybody wants to know it.
    pub(crate) fn begin_story(&mut self) {
        if let Some(story) = &mut self.story {
            story.clear();
        }
    }

    /// From now on what happens is told.
    pub(crate) fn tell_all(&mut self) {
        self.story = Some(Vec::new());
    }

    /// What has happened since the story began.
    pub(crate) fn story(&self) -> String {
        self.story.iter().flatten().map(|line| format!("{line}\n")).collect()
    }
}
