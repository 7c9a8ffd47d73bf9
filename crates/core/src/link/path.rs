//! The paths to the partner: connections over different networks. One carries the messages; all are watched.

use super::frame::Hello;
use crate::ids::{ConnectionId, Incarnation, Nanos, Time};
use crate::mutant;

/// Most paths between two controllers.
pub const PATHS_MAX: usize = 4;
/// How long a path must have worked before messages come back to it.
const TRUSTED_AFTER: Nanos = Nanos::from_millis(1000);

/// A path that has not answered for this long begins anew to answer.
const GAP: Nanos = Nanos::from_millis(450);
/// How long one must have answered before another that does not is given up.
const SETTLED_AFTER: Nanos = Nanos::from_millis(150);

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
    /// Since when it has answered without a gap.
    answers_since: Time,
    /// From a heartbeat to its answer, the last time.
    pub round_trip: Option<Nanos>,
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
            answers_since: now,
            round_trip: None,
        }
    }

    /// Without what only tells how long it has worked.
    #[cfg(feature = "model")]
    pub fn timeless(self) -> Path {
        let ever = Time(0);
        Path {
            opened_at: ever,
            joined: self.joined.map(|_| ever),
            answered: ever,
            answers_since: ever,
            round_trip: None,
            ..self
        }
    }

    /// Whether both have said hello on it, and it belongs to the incarnation that goes on.
    pub fn is_mutual(&self) -> bool {
        self.joined.is_some() && self.said_hello
    }

    /// Both have said hello. It has answered from now on: until here it was only opened, however long that took.
    pub fn joins(&mut self, now: Time) {
        self.joined = Some(now);
        (self.beat, self.answered) = (now, now);
        if !mutant::is("a-path-answers-since-it-was-opened") {
            self.answers_since = now;
        }
    }

    /// A heartbeat was answered now, or counts as answered.
    pub fn answered_now(&mut self, now: Time) {
        if now.since(self.answered) >= GAP {
            self.answers_since = now;
        }
        self.answered = now;
    }

    /// Whether it answers, and has done so for so long that others should have answered, too, if nothing were wrong with them:
    /// after a pause of the partner the answers on all paths come one after the other.
    pub fn answers(&self, every: Nanos, now: Time) -> bool {
        let lately = now.since(self.answered) <= Nanos(every.0 * 3 / 2);
        self.joined.is_some() && lately && now >= self.settled_at()
    }

    /// From when on it has answered for long enough.
    pub fn settled_at(&self) -> Time {
        self.answers_since + SETTLED_AFTER
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

/// What a path can be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PathState {
    /// No connection.
    Down,
    /// A connection on which not both have said hello.
    Opening,
    /// The partner answers on it.
    Works,
    /// It works, and carries the messages.
    Active,
}

/// Why the state of a path last changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Why {
    /// There never was a connection.
    #[default]
    NotYet,
    /// A connection was opened.
    Opened,
    /// Both have said hello.
    Joined,
    /// The path that carried the messages failed, and this one works.
    TookOver,
    /// Messages have come back to it: it comes first.
    Preferred,
    /// A path that comes first works again, and carries the messages.
    Rests,
    /// The connection ended.
    Ended,
    /// It did not answer for too long, while another path did.
    Silent,
    /// It answered, and what is large did not arrive whole on it, however often it was sent.
    Spoils,
    /// What the partner said in its hello does not fit to what goes on here.
    Refused,
    /// The partner's cache has another size: neither can mirror the other.
    OtherCache,
    /// The link was given up, with all of its paths: nothing was heard on any of them, or what was heard made no sense.
    LinkLost,
}

/// A path as an operator may see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PathView {
    /// Its number, from 0: the place of its addresses in the configuration.
    pub path: usize,
    /// What it can be used for.
    pub state: PathState,
    /// From a heartbeat to its answer, the last time; `None` where none was answered since the connection was opened.
    pub round_trip: Option<Nanos>,
    /// Why its state last changed, and when.
    pub why: Why,
    /// `Time(0)` where it never did.
    pub since: Time,
}

impl PathView {
    /// Whether the partner answers on it.
    pub fn works(&self) -> bool {
        matches!(self.state, PathState::Works | PathState::Active)
    }
}
