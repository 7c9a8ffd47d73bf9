//! For the model checker: a moment before which nothing was to be done says nothing once it is over.

use super::Merger;
use crate::ids::Time;

impl Merger {
    /// Forgets what is over at `now`.
    pub fn forget_when(&mut self, now: Time) {
        self.not_before = self.not_before.max(now);
        self.lacking.at = self.lacking.at.max(now);
        self.ask_at = self.ask_at.max(now);
    }
}
