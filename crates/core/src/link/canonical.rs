//! For the model checker: places of the window that hold nothing in flight mean nothing.

use super::Link;
use std::hash::{Hash, Hasher};

impl Hash for Link {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.connection, self.opened_at, &self.established, self.partner).hash(state);
        (self.incarnation, self.last_incarnation, &self.waiting).hash(state);
        let Some(e) = &self.established else { return };
        for sequence in e.oldest..e.next {
            self.sent[sequence as usize % self.sent.len()].hash(state);
        }
    }
}
