//! What could not be read while a disk was made level: it is passed over, and tried again when all else is there.

use super::{LONGEST_REST, Position, REST};
use crate::ids::{Nanos, Noid, Time};
use crate::mutant;

/// The longest rest of a piece that the disk took long to say it cannot read: meanwhile hosts did not get the disk, either.
const LONGEST_REST_OF_HOSTS: Nanos = Nanos::from_millis(3_600_000);
/// So many pieces that could not be read are passed over. The next one is waited for.
const MAX: usize = 256;

/// Where pieces begin that could not be read: as long as one is here the disk is no full copy.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct Lacking {
    /// The first of them that can be is tried next.
    pieces: Vec<Position>,
    /// When that is.
    pub(super) at: Time,
    /// How long it rested before; longer each time, for hosts may not get the disk while it is tried.
    rest: Nanos,
    /// The one that is being tried: the position is in it, and nothing else is copied.
    pub(super) again: Option<Position>,
}

impl Lacking {
    /// Nothing.
    pub(super) fn new() -> Lacking {
        Lacking {
            pieces: Vec::with_capacity(MAX),
            at: Time(0),
            rest: REST,
            again: None,
        }
    }

    /// Another disk is made level: what was known says nothing of that.
    pub(super) fn clear(&mut self) {
        self.pieces.clear();
        (self.rest, self.again) = (REST, None);
    }

    /// Whether something of this LUN is lacking.
    pub(super) fn has(&self, noid: Noid) -> bool {
        self.pieces.iter().any(|p| p.noid == noid)
    }

    /// Only of these LUNs does it matter any more.
    pub(super) fn retain(&mut self, is: impl Fn(Noid) -> bool) {
        self.pieces.retain(|p| is(p.noid));
    }

    /// The pieces of which one may be tried again now.
    pub(super) fn due(&self, now: Time) -> &[Position] {
        if now < self.at { &[] } else { &self.pieces }
    }

    /// A piece cannot be read, maybe not again, and the disk maybe took its time to say so. Whether there was room to note it.
    pub(super) fn note(&mut self, position: Position, late: bool, now: Time) -> bool {
        let again = self.again.take().is_some();
        self.remove(&position);
        if self.pieces.len() >= MAX || mutant::is("a-bad-block-holds-all") {
            return false;
        }
        self.rest = self.next_rest(again, late);
        self.at = now + self.rest;
        self.pieces.push(Position { pass: 0, ..position });
        true
    }

    /// The one that was tried again is there: so may the next one be.
    pub(super) fn is_there(&mut self, piece: &Position, now: Time) {
        self.remove(piece);
        (self.at, self.rest) = (now, REST);
    }

    fn remove(&mut self, piece: &Position) {
        self.pieces.retain(|p| (p.noid, p.block) != (piece.noid, piece.block));
    }

    /// Twice as long after each time that something is tried again, and longer at the least where the disk took its time.
    fn next_rest(&self, again: bool, late: bool) -> Nanos {
        if mutant::is("a-bad-block-is-tried-at-once") {
            return Nanos(0);
        }
        let times = if again { 2 } else { 1 };
        let (least, most) = if late {
            (LONGEST_REST, LONGEST_REST_OF_HOSTS)
        } else {
            (REST, LONGEST_REST)
        };
        Nanos((self.rest.0 * times).clamp(least.0, most.0))
    }
}
