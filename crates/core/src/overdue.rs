//! Who keeps others waiting: a host that does not send the data of its write, data that the mirror is armed for, and a
//! disk that does not answer.

use crate::controller::Core;
use crate::effect::Effect;
use crate::htb::Origin;
use crate::ids::Nanos;
use crate::mutant;

/// How often it is looked. The limits are several times as long.
const LOOK_EVERY: Nanos = Nanos::from_millis(100);

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
        self.ask_for_late_data();
        let troubled = self.disks.any_in_trouble();
        if troubled {
            self.leave_overdue_reads();
            // Some may wait for a disk of which nothing is expected any more.
            self.turn_may_have_come = true;
        }
        let waits = self.awaits_host_data() || self.awaits_mirror_data() || troubled;
        self.look_for_overdue = waits.then_some(self.now + LOOK_EVERY);
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
