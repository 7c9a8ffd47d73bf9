//! What has failed of what was asked of a disk, and whether that still says anything.

use twincell_core::ids::{Nanos, Time};

/// What fails now fails again within this time: the core asks again more often than that. A disk counts as failing for that
/// long at least.
const AGAIN: Nanos = Nanos::from_millis(2000);
/// A disk of which something failed, and which was asked for nothing of the kind since, counts as failing for this long; and
/// one that fails again and again for at most so long after each time.
const UNTRIED: Nanos = Nanos::from_millis(30_000);
/// A disk that fails once more within this time fails now and then.
const NOW_AND_THEN: Nanos = Nanos::from_millis(60_000);

/// What is asked of a disk. One that takes no writes may be read all the same, so that the one says nothing of the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// To be read.
    Read,
    /// To take data, or zeroes, and to keep them.
    Write,
}

/// Of one kind of what is asked.
#[derive(Clone, Copy, Debug, Default)]
struct Last {
    failed: Option<Time>,
    /// The same has been done since.
    done_since: bool,
}

/// The failures of one disk.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Failures {
    kinds: [Last; 2],
    /// How long it must go well until what failed says nothing any more: twice as long each time that it fails again.
    quiet: Nanos,
}

impl Default for Failures {
    fn default() -> Failures {
        Failures {
            kinds: [Last::default(); 2],
            quiet: AGAIN,
        }
    }
}

impl Failures {
    /// Something has failed.
    pub(crate) fn failed(&mut self, asked: Asked, now: Time) {
        let recently = self.last().is_some_and(|at| now.since(at) < NOW_AND_THEN);
        if !recently {
            self.quiet = AGAIN;
        } else if !self.counts(now) {
            self.quiet = Nanos((self.quiet.0 * 2).min(UNTRIED.0));
        }
        self.kinds[asked as usize] = Last {
            failed: Some(now),
            done_since: false,
        };
    }

    /// Something was done as it was asked.
    pub(crate) fn done(&mut self, asked: Asked) {
        self.kinds[asked as usize].done_since = true;
    }

    /// Whether the disk counts as failing: something failed just now, or nothing of the kind has been done since.
    pub(crate) fn counts(&self, now: Time) -> bool {
        self.kinds.iter().any(|kind| {
            let patience = if kind.done_since { self.quiet } else { UNTRIED };
            kind.failed.is_some_and(|at| now.since(at) < patience)
        })
    }

    /// Whether something fails at this moment, whatever else is done.
    pub(crate) fn is_now(&self, now: Time) -> bool {
        self.last().is_some_and(|at| now.since(at) < AGAIN)
    }

    fn last(&self) -> Option<Time> {
        self.kinds.iter().filter_map(|kind| kind.failed).max()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Time {
        Time(0) + Nanos::from_millis(ms)
    }

    #[test]
    fn what_works_again_is_told_for_two_seconds_more() {
        let mut disk = Failures::default();
        assert!(!disk.counts(at(0)) && !disk.is_now(at(0)));
        for ms in (1000..9000).step_by(500) {
            disk.failed(Asked::Write, at(ms));
            disk.done(Asked::Write);
            assert!(disk.counts(at(ms + 400)) && disk.is_now(at(ms + 400)));
        }
        assert!(disk.counts(at(10_499)));
        assert!(!disk.counts(at(10_500)) && !disk.is_now(at(10_500)));
    }

    #[test]
    fn what_nobody_tries_again_is_told_for_half_a_minute() {
        let mut disk = Failures::default();
        disk.failed(Asked::Write, at(0));
        disk.done(Asked::Read);
        assert!(disk.counts(at(29_999)), "reads say nothing of writes");
        assert!(!disk.is_now(at(2000)));
        assert!(!disk.counts(at(30_000)));
        disk.failed(Asked::Write, at(100_000));
        assert!(disk.counts(at(102_000)));
        disk.done(Asked::Write);
        assert!(!disk.counts(at(102_000)));
    }

    #[test]
    fn what_fails_now_and_then_is_told_for_longer_each_time() {
        let mut disk = Failures::default();
        let mut told = Vec::new();
        for n in 0..7 {
            let failed = n * 40_000;
            disk.failed(Asked::Read, at(failed));
            disk.done(Asked::Read);
            let quiet = (0..40).find(|s| !disk.counts(at(failed + s * 1000)));
            told.push(quiet.unwrap());
        }
        assert_eq!(told, [2, 4, 8, 16, 30, 30, 30]);
        // It was well for a minute: what comes then is news.
        disk.failed(Asked::Read, at(6 * 40_000 + 60_000));
        disk.done(Asked::Read);
        assert!(!disk.counts(at(6 * 40_000 + 62_000)));
    }

    #[test]
    fn each_kind_has_to_be_done() {
        let mut disk = Failures::default();
        disk.failed(Asked::Read, at(0));
        disk.failed(Asked::Write, at(0));
        disk.done(Asked::Write);
        assert!(disk.counts(at(5000)));
        disk.done(Asked::Read);
        assert!(!disk.counts(at(5000)));
    }
}
