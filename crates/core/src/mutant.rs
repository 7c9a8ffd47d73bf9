//! Seeded protocol bugs, for measuring the simulator: each must be caught. No release build has them.

#[cfg(feature = "mutants")]
use std::sync::atomic::{AtomicUsize, Ordering};

/// Every mutant, with what it breaks.
#[cfg(feature = "mutants")]
#[rustfmt::skip]
pub const MUTANTS: &[(&str, &str)] = &[
    ("null", "nothing: it must never be caught"),
    ("acknowledge-before-mda", "the primary does not wait for the mirror"),
    ("commit-before-the-last-buffer", "the mirror's RIE becomes Valid before the data are absorbed"),
    ("trust-own-image-on-return", "a controller that returns keeps its image though the record names another"),
    ("serve-before-the-fence", "a takeover serves without waiting for the fence"),
    ("free-before-the-flush", "a buffer and its twin are freed when the disk write completes"),
    ("read-without-the-lock", "a read does not wait for a write in progress"),
    ("both-while-untwinned", "BOTH is proposed before old data have drained"),
    ("drop-releases", "the release of a twin is not sent"),
    ("ignore-the-mirror-segment", "a takeover does not resolve the partner's segment"),
    ("level-nothing", "after a restart of both, the images are taken as they are"),
    ("merge-nothing", "old data that a write covers only in part are not merged"),
    ("do-not-drain", "a restarted controller does not wait for its predecessor's disk writes"),
    ("execute-frames-twice", "a frame that arrives twice is handled twice"),
    ("old-data-unheld", "old data are freed when they reach the disk though a write in progress names them"),
    ("accept-any-slot", "a ballot does not look at the partner's slot"),
];

#[cfg(feature = "mutants")]
static ACTIVE: AtomicUsize = AtomicUsize::new(0);

/// Makes the mutant `name` the active one in this process. Returns whether there is such a mutant.
#[cfg(feature = "mutants")]
pub fn activate(name: &str) -> bool {
    let found = MUTANTS.iter().position(|(n, _)| *n == name);
    ACTIVE.store(found.unwrap_or(0), Ordering::Relaxed);
    found.is_some()
}

/// Whether the mutant `name` is active.
#[cfg(feature = "mutants")]
pub(crate) fn is(name: &str) -> bool {
    debug_assert!(MUTANTS.iter().any(|(n, _)| *n == name), "no such mutant: {name}");
    MUTANTS[ACTIVE.load(Ordering::Relaxed)].0 == name
}

/// Never: this build has no mutants.
#[cfg(not(feature = "mutants"))]
#[inline(always)]
pub(crate) fn is(_name: &str) -> bool {
    false
}
