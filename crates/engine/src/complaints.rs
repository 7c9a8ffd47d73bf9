//! What is told of disks that fail: a disk that is away can fail thousands of I/Os a second, and the log is to stay readable.

use std::collections::HashMap;

use twincell_core::ids::{DiskIndex, Nanos, Time};

/// Of each disk something is told at most once in this time.
const EVERY: Nanos = Nanos::from_millis(1000);

struct Last {
    told: Time,
    untold: u64,
}

/// What was told last of each disk.
#[derive(Default)]
pub(crate) struct Complaints(HashMap<DiskIndex, Last>);

impl Complaints {
    /// There is something to complain of. Returns whether it is to be told now; if so, how often nothing was told since the last time.
    pub(crate) fn tell(&mut self, disk: DiskIndex, now: Time) -> Option<u64> {
        let last = self.0.get_mut(&disk);
        if let Some(last) = last.filter(|last| now.since(last.told) < EVERY) {
            last.untold += 1;
            return None;
        }
        self.0
            .insert(disk, Last { told: now, untold: 0 })
            .map_or(Some(0), |last| Some(last.untold))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_told_and_then_one_a_second() {
        let mut complaints = Complaints::default();
        let mut at = |disk, ms: u64| complaints.tell(DiskIndex(disk), Time(ms * 1_000_000));
        assert_eq!(at(0, 5), Some(0));
        assert_eq!(at(0, 6), None);
        assert_eq!(at(0, 1_004), None);
        assert_eq!(at(1, 1_004), Some(0), "another disk");
        assert_eq!(at(0, 1_005), Some(2));
        assert_eq!(at(0, 9_000), Some(0));
    }
}
