//! Who keeps others waiting: a host that does not send the data of its write, data that the mirror is armed for, and a
//! disk that does not answer; and who has waited for so long that its host may be gone.

use crate::controller::Core;
use crate::effect::Effect;
use crate::host::{HostOp, Status};
use crate::htb::{Origin, Stage};
use crate::ids::{Nanos, Time};
use crate::mark::mark;
use crate::mutant;

/// How often it is looked. The limits are several times as long.
const LOOK_EVERY: Nanos = Nanos::from_millis(100);

/// A write that has waited for so long while its LUN was the partner's is not begun any more: longer than it takes to take over, or to
/// give up a disk, and no longer than a host takes to give up a path that is silent (measured: 4.3 s for one that asks every second,
/// waits two for an answer, and one more for the path to come back).
const NOT_BEGUN_AFTER: Nanos = Nanos::from_millis(4200);

impl Core {
    /// Somebody waits from now on.
    pub(crate) fn watch_for_overdue(&mut self) {
        self.look_for_overdue.get_or_insert(self.now + LOOK_EVERY);
    }

    /// Looks now and then while anybody waits.
    pub(crate) fn settle_overdue(&mut self) {
        if self.look_for_overdue.is_none_or(|at| self.now < at) {
            return;
        }
        self.end_silent_hosts();
        self.end_overtaken_hosts();
        self.ask_for_late_data();
        let troubled = self.disks.any_in_trouble();
        if troubled {
            self.leave_overdue_reads();
            self.leave_overdue_writes();
            // Some may wait for a disk of which nothing is expected any more.
            self.turn_may_have_come = true;
        }
        let waits = self.awaits_host_data() || self.awaits_mirror_data() || troubled;
        let next = waits.then_some(self.now + LOOK_EVERY);
        self.look_for_overdue = [next, self.next_overtaken()].into_iter().flatten().min();
    }

    /// R12: a write of a host that waits here for its turn while its LUN is the partner's. What the host sends again, once it has lost this
    /// path, may be done there before this is. At the owner it waits behind it.
    pub(crate) fn look_whether_it_is_overtaken(&mut self, h: u32) {
        let htb = self.htb(h);
        let is_hosts = matches!((htb.origin, htb.op), (Origin::Host(_), HostOp::Write { .. }));
        if is_hosts && !htb.may_be_done && (htb.may_be_overtaken || !self.owns(htb.ncae)) {
            let at = self.too_late_at(h);
            self.htb_mut(h).may_be_overtaken = true;
            self.look_for_overdue = Some(self.look_for_overdue.map_or(at, |before| before.min(at)));
        }
    }

    /// When the first of them is too late.
    fn next_overtaken(&self) -> Option<Time> {
        let waiting = self.order.iter().filter(|h| self.may_be_overtaken(**h));
        waiting.map(|h| self.too_late_at(*h)).min()
    }

    fn too_late_at(&self, h: u32) -> Time {
        let at = self.htb(h).waits_since + NOT_BEGUN_AFTER;
        if at > self.now { at } else { self.now + LOOK_EVERY }
    }

    /// Whether it is one of these, and nothing of its present portion may be done already.
    fn may_be_overtaken(&self, h: u32) -> bool {
        let htb = self.htb(h);
        let is_unsent = htb.stage == Stage::AwaitOwner && htb.data_in_transfer && !htb.portion.requested;
        let waits_here = is_unsent && !mutant::is("what-waits-for-a-frame-has-no-deadline");
        (htb.stage == Stage::AwaitTurn || waits_here) && htb.may_be_overtaken && !htb.may_be_done
    }

    fn end_overtaken_hosts(&mut self) {
        let late: Vec<u32> = self.order.iter().copied().filter(|h| self.is_too_late(*h)).collect();
        late.into_iter().for_each(|h| self.end_overtaken(h));
    }

    /// Whether such a write is not begun any more: its host may have given this path up.
    pub(crate) fn is_too_late(&self, h: u32) -> bool {
        let waited = self.now.since(self.htb(h).waits_since);
        let has_no_deadline = mutant::is("what-waits-to-be-forwarded-has-no-deadline");
        self.may_be_overtaken(h) && waited >= NOT_BEGUN_AFTER && !has_no_deadline
    }

    /// The host is told nothing of it, and tries again.
    pub(crate) fn end_overtaken(&mut self, h: u32) {
        mark!("a write has waited for too long to be forwarded");
        if let Origin::Host(id) = self.htb(h).origin {
            self.effects.push(Effect::EndHost { id });
        }
        self.take_back_call(h);
        self.finish(h, Status::Aborted);
    }

    fn awaits_host_data(&self) -> bool {
        self.order.iter().any(|h| self.htb(*h).fetching.is_some())
    }

    fn end_silent_hosts(&mut self) {
        for at in 0..self.order.len() {
            let h = self.order[at];
            let htb = self.htb(h);
            let patience = if self.is_held_back_for_long(htb.ncae) {
                Nanos(0)
            } else {
                self.config.timing.host_data
            };
            let overdue = htb.fetching.is_some_and(|since| self.now.since(since) >= patience);
            if let (Origin::Host(id), true) = (htb.origin, overdue) {
                self.htb_mut(h).fetching = None;
                if !mutant::is("wait-for-a-silent-host") {
                    self.effects.push(Effect::EndHost { id });
                }
            }
        }
    }
}
