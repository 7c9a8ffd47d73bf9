//! For the model checker: two states that differ only in when they are reached have the same hash. No other build has it.

use crate::ids::Time;
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
