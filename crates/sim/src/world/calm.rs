//! What must hold where nothing is wrong, and nothing was for a while: nobody waits, fails, or doubts its partner.

use super::World;
use super::answers::MEMORY;
use crate::plan::{Mode, Pools};
use twincell_core::Effect;
use twincell_core::effect::Note;
use twincell_core::host::Status;
use twincell_core::ids::Controller;
use twincell_core::link::path::{PathState, PathView};

/// So long after the last trouble of the wire its paths are in order: more than a path or a partner may be silent.
const SETTLES: u64 = 2_000 * super::MS;

impl World {
    /// Calm begins when everything is well. Attempts that began before it do not count.
    pub(super) fn look_for_calm(&mut self) {
        if self.awaits_calm && self.nothing_is_wrong() {
            self.awaits_calm = false;
            self.calm_since = Some(self.attempts.len() as u64);
            self.log(|| "--- calm".into());
        }
    }

    /// Something is about to be wrong.
    pub(super) fn end_calm(&mut self) {
        self.awaits_calm = false;
        self.calm_since = None;
    }

    fn nothing_is_wrong(&self) -> bool {
        let mut processes = self.processes.iter().flatten();
        let at_work = processes.all(|p| {
            let paused = p.paused_until > self.now || !p.backlog.is_empty();
            // A hello may still wait for the end of a pause that another one has cut short.
            let works = |p: &PathView| matches!(p.state, PathState::Active | PathState::Works);
            let paths = p.core.paths().filter(works).count();
            !paused && p.core.cell_view().linked && paths == self.wire.lines.len()
        });
        let settles = if self.plan.mode == Mode::Calm { 0 } else { SETTLES };
        at_work && self.is_well() && self.disks_are_well() && self.wire.is_sound_for(self.now, settles)
    }

    /// A disk that has just failed is left alone for a while.
    fn disks_are_well(&self) -> bool {
        let mut disks = self.shelf.disks.iter();
        disks.all(|d| d.failed_at.is_none_or(|at| at + MEMORY < self.now))
    }

    fn is_calm_for(&self, attempt: u64) -> bool {
        self.calm_since.is_some_and(|before| attempt > before)
    }

    /// A controller gives up neither its partner nor a path to it.
    pub(super) fn check_calm(&mut self, controller: Controller, effect: &Effect) {
        let doubts = match effect {
            Effect::LinkClose { .. } => "ends a connection",
            Effect::Note(Note::PartnerUnreachable) => "does not reach its partner",
            _ => return,
        };
        if self.calm_since.is_some() {
            self.fail(format!("{controller} {doubts}, and nothing is wrong"));
        }
    }

    /// A host has its answer in time. Hosts that send no data keep their locks, and others waiting.
    pub(super) fn check_calm_patience(&mut self, attempt: u64) {
        let quick = self.plan.is_link_quick() && !self.plan.slow_hosts && !self.plan.half_open;
        if quick && !self.plan.may_hosts_give_up_in_line() && self.is_calm_for(attempt) {
            let what = format!("a host gives up, and nothing is wrong: {}", self.state());
            self.fail(what);
        }
    }

    /// What a host asks for is done, unless it withdraws it, does not send its data, or the LUN changes its owner just then.
    pub(super) fn check_calm_status(&mut self, attempt: u64, status: Status) {
        if !self.is_calm_for(attempt) {
            return;
        }
        let of_host = self.attempts[attempt as usize - 1];
        let permitted = match status {
            Status::Good => true,
            Status::Aborted => of_host.withdrawn || of_host.given_up,
            Status::OutOfRange => self.is_out_of_range(of_host.command),
            Status::Busy => self.plan.pools == Pools::Tiny || of_host.has_no_place || self.luns_move(),
            Status::Transitioning => self.luns_move(),
            _ => false,
        };
        if !permitted {
            let controller = of_host.controller;
            self.fail(format!(
                "controller {controller} answers {status:?}, and nothing is wrong"
            ));
        }
    }

    /// Whether there are more commands than HTBs: those of the partner have some of them.
    pub(super) fn has_no_place(&self, controller: Controller) -> bool {
        let of_partner = usize::from(self.geometry.transfers / 4).max(1);
        let commands = self.processes[controller.index()]
            .as_ref()
            .map_or(0, |p| p.commands.len());
        commands + 2 * of_partner >= usize::from(self.geometry.htbs)
    }

    /// Whether a LUN is changing its owner.
    fn luns_move(&self) -> bool {
        let mut processes = self.processes.iter().flatten();
        processes.any(|p| p.core.luns().any(|l| l.moving))
    }
}
