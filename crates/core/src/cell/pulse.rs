//! Whether the partner lives, as far as its slots and the link show it.

use super::quorum::{self, OptionalSlots};
use crate::ids::{Controller, Nanos, Time};

/// What the partner's slot showed at the last look for it, and since when (R8).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Pulse {
    heartbeat: u64,
    /// When the slot had last changed, or the link was last up.
    beaten_at: Time,
    looked_at: Time,
}

impl Pulse {
    /// As if it had been seen alive at this time.
    pub(crate) fn seen(heartbeat: u64, at: Time) -> Pulse {
        Pulse {
            heartbeat,
            beaten_at: at,
            looked_at: at,
        }
    }

    /// The heartbeat of the slot that got furthest of this controller's; 0 if it has none.
    pub(crate) fn heartbeat_of(found: &[OptionalSlots], of: Controller) -> u64 {
        quorum::furthest_slot(found, of).map_or(0, |s| s.heartbeat)
    }

    /// Whether a slot with this heartbeat has changed since the last look.
    pub(crate) fn has_changed(&self, heartbeat: u64) -> bool {
        heartbeat != self.heartbeat
    }

    /// It was looked for, and nothing has moved.
    pub(crate) fn stands_still(&mut self, now: Time) {
        self.looked_at = now;
    }

    /// As of now, without another look, it is alive.
    pub(crate) fn begin(&mut self, now: Time) {
        (self.beaten_at, self.looked_at) = (now, now);
    }

    pub(crate) fn last_beat(&self) -> Time {
        self.beaten_at
    }

    /// Whether it had shown no sign of life for so long at the last look for one. Time that has passed since does not count:
    /// nobody has looked.
    pub(crate) fn is_still(&self, for_long: Nanos) -> bool {
        self.looked_at.since(self.beaten_at) >= for_long
    }
}
