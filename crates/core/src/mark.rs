//! Coverage marks: rare places that a batch of simulated runs must have come through. No release build has them.

/// Every mark.
#[rustfmt::skip]
pub const MARKS: &[&str] = &[
    "a write waits for buffers or an RIE",
    "a write waits for its disk's share of NV memory",
    "a read waits for a transfer buffer",
    "a forwarded command waits for a transfer buffer",
    "the uses of an RIE wrap",
    "an RTR is stale",
    "mirror data are stale",
    "a DSS is stale",
    "data that were sent are asked for again",
    "a write is withdrawn before its data came",
    "data are superseded on their way to disk",
    "old data of a write in progress reach the disk",
    "a write is withdrawn after its old data reached the disk",
    "a flush failed",
    "what is overdue on a slow disk is waited for",
    "who wants to join waits until its partner serves",
    "who wants to join again waits for the fence",
    "who was voted in finishes the vote of its partner",
    "what a controller did not hear while it was stopped is no silence",
    "a task is left to the partner",
    "a command is recalled before it was sent",
    "a disk is given up",
    "a controller that is blind gives way",
    "a write has waited for too long to be forwarded",
    "reads wait until it is known whose fault it is",
    "a merging disk is given up",
    "a missing disk is made level",
    "a merging disk is level",
    "a piece for a merging disk cannot be copied now",
    "data that cannot drain are carried to a joiner",
    "the mirror lacks a write in progress",
    "a twin is surplus",
    "a ballot is outbid",
    "another's record overtakes a ballot",
    "somebody may have voted where nobody sees it",
    "the record becomes dirty",
    "a long pause closes host connections",
    "a frame is sent again",
];

#[cfg(feature = "marks")]
mod hits {
    use std::sync::atomic::{AtomicU64, Ordering};

    static HITS: AtomicU64 = AtomicU64::new(0);

    /// The marks that were hit in this process, bit n for mark n.
    pub fn hits() -> u64 {
        HITS.load(Ordering::Relaxed)
    }

    pub(crate) fn hit(number: usize) {
        let bit = 1 << number;
        if HITS.load(Ordering::Relaxed) & bit == 0 {
            HITS.fetch_or(bit, Ordering::Relaxed);
        }
    }

    /// The number of a mark, when the core is built: a name that is not in the list does not build.
    pub(crate) const fn number(name: &str) -> usize {
        let mut n = 0;
        while n < super::MARKS.len() {
            let (a, b) = (super::MARKS[n].as_bytes(), name.as_bytes());
            let mut same = a.len() == b.len();
            let mut at = 0;
            while same && at < a.len() {
                same = a[at] == b[at];
                at += 1;
            }
            if same {
                return n;
            }
            n += 1;
        }
        panic!("no such mark")
    }
}

#[cfg(feature = "marks")]
pub use hits::hits;
#[cfg(feature = "marks")]
pub(crate) use hits::{hit, number};

/// The run has come here.
macro_rules! mark {
    ($name:literal) => {
        #[cfg(feature = "marks")]
        {
            const NUMBER: usize = $crate::mark::number($name);
            $crate::mark::hit(NUMBER);
        }
    };
}

pub(crate) use mark;
