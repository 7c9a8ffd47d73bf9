//! The paths to the partner: connections over different networks. One carries the messages; all are watched.

use super::frame::Hello;
use crate::ids::{ConnectionId, Incarnation, Nanos, Time};

/// Most paths between two controllers.
pub const PATHS_MAX: usize = 4;
/// How long a path must have worked before messages come back to it.
const TRUSTED_AFTER: Nanos = Nanos::from_millis(1000);

/// What a controller says of the link in its hello. It is fixed when the connection opens: both ends must go by the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Standing {
    /// The incarnation that goes on, on other paths; 0 if none does.
    pub session: Incarnation,
    /// The last incarnation.
    pub last: Incarnation,
}

/// A path whose connection is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Path {
    pub connection: ConnectionId,
    pub opened_at: Time,
    /// What this controller says on it, and whether it has.
    pub own: Standing,
    pub said_hello: bool,
    /// It belongs to the incarnation that goes on, since then.
    pub joined: Option<Time>,
    /// When the last heartbeat was sent on it, and when the last was answered.
    pub beat: Time,
    pub answered: Time,
    /// From a heartbeat to its answer, the last time.
    pub round_trip: Nanos,
}

impl Path {
    pub fn new(connection: ConnectionId, own: Standing, now: Time) -> Path {
        Path {
            connection,
            opened_at: now,
            own,
            said_hello: false,
            joined: None,
            beat: now,
            answered: now,
            round_trip: Nanos(0),
        }
    }

    /// Whether it has worked for so long that messages come back to it.
    pub fn is_trusted(&self, every: Nanos, now: Time) -> bool {
        let old = self.joined.is_some_and(|since| now.since(since) >= TRUSTED_AFTER);
        old && now.since(self.answered) <= Nanos(every.0 * 2)
    }
}

/// The incarnation that both ends of a path mean by what they have said; `None` where they do not agree.
///
/// Neither goes on with one: the next begins. One does, and the other has not heard of it yet: that one. It has heard
/// of it and lost it: none.
pub(super) fn agreed(own: Standing, theirs: &Hello, met: bool) -> Option<Incarnation> {
    let (last, session) = (theirs.incarnation, theirs.session);
    match (own.session.0, session.0) {
        (0, 0) => Some(Incarnation(own.last.0.max(last.0).saturating_add(1))),
        (s, 0) => (last.0 < s).then_some(own.session),
        (0, t) => (met && own.last.0 < t).then_some(session),
        (s, t) => (s == t).then_some(session),
    }
}

/// A path as an operator may see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PathView {
    /// Its number, from 0: the place of its addresses in the configuration.
    pub path: usize,
    /// The partner answers on it.
    pub works: bool,
    /// It carries the messages.
    pub active: bool,
    /// From a heartbeat to its answer, the last time.
    pub round_trip: Nanos,
}
