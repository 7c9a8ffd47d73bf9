//! Membership: who is in, decided by ballot and by nothing else (DESIGN section 6, rules R1 to R11).
//!
//! | file | what it does |
//! |---|---|
//! | `record` | the membership record and the slots that it is voted on in |
//! | `quorum`, `ballot` | how the record changes (R1) |
//! | `start` | from the start of the process to a role |
//! | `decide` | which ballot is wanted now, and what its result means (R3, R4, R7) |
//! | `takeover` | ballot, fence, resolve, serve: in this order (R10) |
//! | `level` | both restarted with current images (R6) |
//! | `join` | the partner comes back (R9) |
//! | `partner` | connections, heartbeats, grants, and the messages of the partner (R2) |

pub mod ballot;
mod decide;
mod join;
mod level;
mod partner;
pub(crate) mod pulse;
pub mod quorum;
pub mod record;
mod start;
mod takeover;

pub use level::Leveling;

use crate::ids::{Incarnation, Time, Uuid};

/// What a controller waits for, as a member of the cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// The slots of a majority of the quorum disks.
    AwaitRecord,
    /// The metadata that the record names.
    AwaitMetadata,
    /// The own locks, and the own slot as it is once they are held (R5).
    AwaitLocks,
    /// The result of a ballot that somebody had begun before this process started.
    Undecided,
    /// The record says `BOTH`, and the own image is current: the partner, or that it does not come (R6).
    AwaitPartner {
        /// Then a ballot.
        until: Time,
    },
    /// Both images are being made level (R6).
    Leveling,
    /// The partner is in and this controller is not: that it lets it join.
    AwaitAttach,
    /// The partner has lifted its fence: the own locks.
    Attaching,
    /// The partner mirrors to this controller, which the record does not name yet (R9).
    Joining,
    /// The result of the ballot for `ALONE(self)` (R3).
    Deciding,
    /// That the partner is fenced (R5).
    Fencing,
    /// Nothing: this controller serves, with the partner or alone, as the record says.
    Serving,
    /// That the partner's record says that this controller is out, so that it may stop.
    Leaving,
    /// That its slots say what was decided, which is that it is out.
    Yielding,
    /// Nothing any more: the process ends or starts anew.
    Out,
}

/// What keeps the partner out while it is not in (R5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fence {
    /// Nothing.
    Open,
    /// A fence that is not proven yet.
    Asked,
    /// A fence: what the partner had submitted is over, but for disks of which nothing counted. A missing disk that answers
    /// while it holds is one of which the same is true.
    Proven,
}

/// How far the partner has come back, as the one that is in sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Joiner {
    /// Not at all.
    None,
    /// It said `Attach` and the fence was lifted; it takes its locks.
    Unfenced,
    /// Every write is mirrored to it.
    Attached {
        /// Its image.
        image: Uuid,
        /// The incarnation of the link in which it joins: in another one it has begun anew.
        incarnation: Incarnation,
        /// It has heard that it joins.
        heard: bool,
    },
}
