//! How long hosts wait while only one thing goes wrong. What the bounds follow from: a partner is silent for 1.5 s before it
//! counts as unreachable, a controller that restarts waits 3 s for its partner, a ballot and a fence take less than one, a disk is
//! given up after 1 s of errors, or 4 s without an answer, and a host gives up an attempt after 8 s.

use super::{HOST_TIMEOUT, MS, World};
use crate::fault::Fault;
use crate::plan::{Mode as Promised, Plan};
use crate::process::Process;
use twincell_core::controller::Role;
use twincell_core::ids::Controller;

/// Every command ends within this, and the time that the fault itself keeps it.
const COMMAND: u64 = 15_000 * MS;
/// After a controller has gone, its partner serves within this.
const SERVICE: u64 = 8_000 * MS;

/// What hosts may expect of a seed in which one thing goes wrong.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Patience {
    /// Every command ends within this; `None`: nothing is said of this seed.
    command: Option<u64>,
    /// A controller has gone whose partner was in and sound.
    is_partner_sound: bool,
    /// Since when nobody serves.
    idle_since: Option<u64>,
}

impl Patience {
    pub(super) fn of(plan: &Plan) -> Patience {
        let usual = plan.is_link_quick()
            && plan.triggers.is_empty()
            && !plan.busy
            && !plan.hasty
            && !plan.slow_hosts
            && !plan.half_open;
        let command = match plan.faults[..] {
            [(_, fault)] if usual && plan.mode == Promised::Promise => keeps_hosts(fault, plan.apart),
            _ => None,
        };
        // Who ends is away for a while before it is started again, and nobody else may be in.
        let away = plan.restart.map_or(0, |(_, most)| most);
        Patience {
            command: command.map(|ms| COMMAND + away + ms * MS),
            ..Patience::default()
        }
    }
}

/// How many milliseconds a fault by itself keeps hosts waiting; `None` for what may keep them for ever.
fn keeps_hosts(fault: Fault, apart: bool) -> Option<u64> {
    match fault {
        // One that sees some of the disks counts the others as failed.
        Fault::LoseSight(..) => None,
        // Where nobody can end who stands still, it keeps its locks.
        Fault::Pause(_, ms) if apart => Some(ms),
        Fault::PauseBoth(a, b) => Some(a.max(b)),
        // A LUN without redundancy waits for its disk.
        Fault::FailDisk(_, ms) | Fault::FailWrites(_, ms) | Fault::StallDisk(_, ms) => Some(ms),
        Fault::FailFlushes(_, ms) | Fault::FailReads(_, ms) | Fault::FailSlots(_, ms) => Some(ms),
        Fault::FailAll(ms) | Fault::StallAll(ms) | Fault::SlowDisk(_, _, ms) | Fault::BadRegion(_, _, ms) => Some(ms),
        // Of a LUN without redundancy it takes the data: some hosts have errors until they are written anew.
        Fault::BadBlocks(..) => None,
        _ => Some(0),
    }
}

impl World {
    /// A controller goes, or stands still and may keep its locks.
    pub(super) fn note_loss(&mut self, c: Controller, keeps_locks: bool) {
        if !self.partner_has_everything(c) {
            // Nobody else can serve until it is back.
            self.end_patience();
        }
        if self.patience.command.is_some() {
            self.patience.is_partner_sound = !keeps_locks;
        }
    }

    /// More than one thing goes wrong from now on: hosts may expect less.
    pub(super) fn end_patience(&mut self) {
        self.patience.command = None;
    }

    /// Somebody serves, or will soon.
    pub(super) fn check_service(&mut self) {
        if self.patience.command.is_none() {
            return;
        }
        let now = self.now;
        let serves = |p: &Process| p.serves && p.paused_until <= now && p.core.cell_view().role == Role::Serving;
        if !self.patience.is_partner_sound || self.processes.iter().flatten().any(serves) {
            self.patience.idle_since = None;
            return;
        }
        let since = *self.patience.idle_since.get_or_insert(now);
        if now > since + SERVICE {
            let what = format!(
                "nobody serves for {} s after one fault: {}",
                SERVICE / MS / 1000,
                self.state()
            );
            self.fail(what);
        }
    }

    /// A command has ended.
    pub(super) fn check_duration(&mut self, command: usize) {
        let Some(most) = self.patience.command else { return };
        let took = self.now - self.commands[command].since;
        if took > most {
            let what = format!("a command took {} ms, and only one thing went wrong", took / MS);
            self.fail_of(command, &what);
        }
    }

    /// A host gives up: not on a controller that has served all the time.
    pub(super) fn check_patience(&mut self, number: u64) {
        let attempt = self.attempts[number as usize - 1];
        let usual = COMMAND + self.plan.restart.map_or(0, |r| r.1);
        let excused = self.patience.command.is_none_or(|most| most > usual) || self.plan.may_hosts_give_up_in_line();
        let now = self.now;
        let served = |p: &Process| {
            let steady = p.serving_since > 0 && now > p.serving_since + HOST_TIMEOUT + 1000 * MS;
            steady && p.serves && p.paused_until == 0 && p.core.cell_view().role == Role::Serving
        };
        let alone = self.processes[1 - attempt.controller].is_none();
        let all_served = self.processes.iter().flatten().all(served) && (alone || self.is_well());
        if !excused && all_served && self.wire.is_sound_for(now, HOST_TIMEOUT) {
            let what = format!("it has served all the time, and kept a host waiting: {}", self.state());
            self.fail_of(attempt.command, &what);
        }
    }
}
