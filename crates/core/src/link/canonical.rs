//! For the model checker: places of the window that hold nothing in flight mean nothing. How long nothing was heard, or a
//! path has worked, does not matter either, where silence has no end and there is one path; nor does what is only counted
//! and told.

use super::path::Path;
use super::{Established, Link};
use crate::ids::Time;
use std::hash::{Hash, Hasher};

const EVER: Time = Time(0);

impl Hash for Link {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.paths.map(|p| p.map(Path::timeless)), self.partner).hash(state);
        self.incarnation.hash(state);
        (&self.control, &self.data, &self.prepared).hash(state);
        let Some(e) = &self.established else { return };
        let heard = EVER;
        Established { heard, ..e.clone() }.hash(state);
        for n in 0..e.in_flight() {
            self.sent[super::place(e.oldest.wrapping_add(n))].hash(state);
        }
        for n in (0..super::WINDOW as u32).filter(|n| e.held >> n & 1 == 1) {
            self.arrived[super::place(e.expected.wrapping_add(n))].hash(state);
        }
    }
}
