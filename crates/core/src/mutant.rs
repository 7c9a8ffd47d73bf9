//! Seeded protocol bugs, for measuring the simulator: each must be caught. No release build has them.

use std::cell::Cell;

/// Every mutant, with what it breaks.
pub const MUTANTS: &[(&str, &str)] = &[
    ("null", "nothing: it must never be caught"),
    ("acknowledge-before-mda", "the primary does not wait for the mirror"),
    (
        "commit-before-the-last-buffer",
        "the mirror's RIE becomes Valid before the data are absorbed",
    ),
    (
        "trust-own-image-on-return",
        "a controller that returns resolves its image though the record names another",
    ),
    (
        "serve-before-the-fence",
        "a takeover serves without waiting for the fence",
    ),
    (
        "free-before-the-flush",
        "a buffer and its twin are freed when the disk write completes",
    ),
    ("read-without-the-lock", "a read does not wait for a write in progress"),
    ("both-while-untwinned", "BOTH is proposed before old data have drained"),
    ("drop-releases", "the release of a twin is not sent"),
    (
        "ignore-the-mirror-segment",
        "a takeover does not resolve the partner's segment",
    ),
    (
        "acknowledge-without-a-grant",
        "statuses go out while nobody has granted it",
    ),
    (
        "level-nothing",
        "after a restart of both, the images are taken as they are",
    ),
    (
        "merge-nothing",
        "old data that a write covers only in part are not merged",
    ),
];

thread_local! {
    static ACTIVE: Cell<usize> = const { Cell::new(0) };
}

/// Makes the mutant `name` the active one on this thread. Returns whether there is such a mutant.
pub fn activate(name: &str) -> bool {
    let found = MUTANTS.iter().position(|(n, _)| *n == name);
    ACTIVE.set(found.unwrap_or(0));
    found.is_some()
}

/// Whether the mutant `name` is active.
pub fn is(name: &str) -> bool {
    MUTANTS[ACTIVE.get()].0 == name
}
