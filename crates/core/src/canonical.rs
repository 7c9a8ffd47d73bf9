//! For the model checker: two states that differ only in when they are reached have the same hash. No other build has it.

use crate::controller::Core;
use crate::ids::{Nanos, Time};
use std::cell::Cell;
use std::hash::{Hash, Hasher};

/// Moments longer ago than this are all alike: no timer looks back further.
const PAST: i64 = 4_000_000_000;
/// Moments further away than this never come.
const FUTURE: i64 = 1 << 40;

thread_local! {
    static NOW: Cell<Option<Time>> = const { Cell::new(None) };
}

/// From now on moments count by how far they are from `now`; `None`: as they are.
pub fn set_now(now: Option<Time>) {
    NOW.set(now);
}

impl Hash for Time {
    fn hash<H: Hasher>(&self, state: &mut H) {
        match NOW.get() {
            Some(now) => (self.0.wrapping_sub(now.0) as i64).clamp(-PAST, FUTURE).hash(state),
            None => self.0.hash(state),
        }
    }
}

/// A step looks at least so far ahead when it says when the next one is due.
const SOON: Nanos = Nanos::from_micros(100);

fn before(now: Time, length: Nanos) -> Time {
    Time(now.0.saturating_sub(length.0))
}

impl Core {
    /// Forgets when something was, where it makes no difference any more, at `now` or later. In the scopes of the model
    /// checker grants, leases and the patience with a partner, a path, a host or data have no end: a moment that only they
    /// look back to is as good as any.
    pub fn forget_when(&mut self, now: Time) {
        // Looked back to by the idle timers only: longer ago is as good as just long enough.
        let idle = self.config.timing.clean_idle.max(self.config.timing.destage_idle);
        self.last_write = self.last_write.max(before(now, idle));
        // Pauses have no limit, and what is due "soon" after the last step is due by now.
        self.now = self.now.max(before(now, SOON));
        // What was not to be before a moment that is over.
        self.ballot_not_before = self.ballot_not_before.max(now);
        self.merger.forget_when(now);
        // The slots were read after the locks were there: what was when is looked at only until then.
        if self.own_slot_known {
            self.locks_taken_at = now;
            self.quorum.forget_when(now);
        }
        // How long the partner's slot has stood still, a mirror, a host and a turn have been waited for.
        self.partners_pulse.begin(now);
        self.mnodes.iter_mut().for_each(|m| m.armed = now);
        for h in self.order.clone() {
            let htb = self.htb_mut(h);
            htb.waits_since = now;
            if let Some(since) = &mut htb.fetching {
                *since = now;
            }
        }
    }
}
