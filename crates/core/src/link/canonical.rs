//! For the model checker: places of the window that hold nothing in flight mean nothing.

use super::Link;
use std::hash::{Hash, Hasher};

impl Hash for Link {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.paths, &self.established, self.partner).hash(state);
        self.incarnation.hash(state);
        (&self.control, &self.data, &self.prepared).hash(state);
        let Some(e) = &self.established else { return };
        for n in 0..e.in_flight() {
            self.sent[super::place(e.oldest.wrapping_add(n))].hash(state);
        }
        for n in (0..super::WINDOW as u32).filter(|n| e.held >> n & 1 == 1) {
            self.arrived[super::place(e.expected.wrapping_add(n))].hash(state);
        }
    }
}
