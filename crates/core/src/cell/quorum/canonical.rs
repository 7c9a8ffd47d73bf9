//! For the model checker: rounds have no number, only "this one" and "an earlier one"; how often a slot was written does
//! not matter, and neither does what an earlier round has found.

use super::{Quorum, Slot, Slots};
use crate::ids::Time;
use std::hash::{Hash, Hasher};

fn timeless(slot: Option<Slot>) -> Option<Slot> {
    slot.map(|s| Slot { heartbeat: 0, ..s })
}

impl Hash for Quorum {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.kind, self.open, self.began).hash(state);
        timeless(self.slot).hash(state);
        for disk in &self.disks[..self.members.len()] {
            let in_flight = disk.in_flight.map(|(_, round, step)| (round == self.round, step));
            let written = in_flight.and(timeless(disk.written));
            let answered = disk.answered.filter(|(round, _)| self.open && *round == self.round);
            let found: Option<Slots> = answered.map(|_| disk.found.map(timeless));
            (in_flight, written, answered.map(|(_, good)| good), found).hash(state);
        }
    }
}

impl Quorum {
    /// Forgets when the last round began.
    pub fn forget_when(&mut self, now: Time) {
        self.began = now;
    }
}
