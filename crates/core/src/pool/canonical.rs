//! For the model checker: which of the free places comes next does not matter, and neither does how often a place was
//! used: nothing in its scopes names a place that is not in use any more.

use super::Pool;
use std::hash::{Hash, Hasher};

impl<T: Hash> Hash for Pool<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        for (index, item) in self.iter() {
            (index, item).hash(state);
        }
        self.free.len().hash(state);
    }
}
