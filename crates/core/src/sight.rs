//! Disks fail here: it is they, or this controller's way to them. It looks whether it sees a majority of those that vote. If not,
//! the partner looks; if that sees them it goes on, and this controller gives way. What it has in NV memory the partner has, too.

use crate::cell::Phase;
use crate::cell::record::Mode;
use crate::controller::Core;
use crate::effect::{Effect, Note};
use crate::ids::{Nanos, Time};
use crate::link::frame::XmfcId;
use crate::list::List;
use crate::manage::{ManageError, ManageOp, ManageReply};
use crate::mark::mark;
use crate::mutant;

/// How long a disk must have failed before this controller looks whether it sees the others, and between two looks.
const LOOK_AFTER: Nanos = Nanos::from_millis(1_000);
/// How long a partner that does not see them either is not asked again.
const ASK_AGAIN_AFTER: Nanos = Nanos::from_millis(2_000);
/// How long who sees them does not ask itself: if it was other disks after all, controllers do not give way to each other in turn.
const GO_ON_FOR: Nanos = Nanos::from_millis(30_000);

/// What is known of this controller's way to the disks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Sight {
    /// When this controller looks next, while there is a reason to.
    look_at: Option<Time>,
    /// The next round over the slots is a look.
    pub looks: bool,
    /// A read has failed on all of its copies, and reads wait until it is known whose fault that is.
    pub suspects: bool,
    /// It was not this controller's, shortly before this time.
    trusted_until: Time,
    /// The last round over the slots has found no majority.
    failed: bool,
    /// It has not, and there were doubts before.
    blind: bool,
    /// The call by which the partner was asked, and when it may be asked again.
    call: Option<u32>,
    not_before: Time,
    /// The calls of a partner that asks, to give way or to stop: the next round over the slots answers them.
    pub asked: List<XmfcId, 2>,
}

impl Sight {
    /// The partner stops: it did not ask because it is blind.
    pub(crate) fn asker_stopped(&mut self, now: Time) {
        if !mutant::is("who-was-asked-by-one-that-stops-is-deaf") {
            self.not_before = now;
        }
    }
}

impl Core {
    /// Looks while something fails, and asks the partner when there is nothing to be seen.
    pub(crate) fn settle_sight(&mut self) {
        if !self.serves_beside_partner() || !self.doubts() {
            (self.sight.look_at, self.sight.looks, self.sight.blind) = (None, false, false);
            self.trust();
            return;
        }
        if mutant::is("blind-for-ever") {
            return;
        }
        let at = *self.sight.look_at.get_or_insert(self.now + LOOK_AFTER);
        if at <= self.now {
            self.sight.look_at = Some(self.now + LOOK_AFTER);
            self.sight.looks = true;
        }
        if !self.sight.blind || self.sight.call.is_some() {
            return;
        }
        if self.now < self.sight.not_before {
            self.trust();
        } else if self.calls.free() > 0 {
            self.sight.not_before = self.now + ASK_AGAIN_AFTER;
            self.sight.call = Some(self.call_partner(ManageOp::SeesDisks));
        }
    }

    /// Whether there is a partner to give way to.
    fn serves_beside_partner(&self) -> bool {
        self.phase == Phase::Serving && self.mode() == Some(Mode::Both) && self.link.is_up()
    }

    /// When to look though nothing happens.
    pub(crate) fn sight_deadline(&self) -> Option<Time> {
        self.sight.look_at.map(|at| at.max(self.now + Nanos::from_micros(100)))
    }

    /// Whether something fails that may be this controller's fault: a disk, or a round over the slots, or none gives the metadata
    /// that are to be adopted.
    fn doubts(&self) -> bool {
        let cannot_adopt = self.to_adopt.is_some() && self.metadata_tries as usize >= self.quorum.members().len();
        let has_failed = self.sight.failed && !mutant::is("only-disks-that-fail-are-doubted");
        self.disks.any_in_trouble() || self.sight.suspects || cannot_adopt || has_failed
    }

    /// A read has failed on all of its copies. Returns whether it waits until it is known whose fault that is.
    pub(crate) fn suspects_itself(&mut self) -> bool {
        if !self.serves_beside_partner() || self.now < self.sight.trusted_until || mutant::is("blind-for-ever") {
            return false;
        }
        mark!("reads wait until it is known whose fault it is");
        (self.sight.suspects, self.sight.looks) = (true, true);
        true
    }

    /// It is the disks, or nobody can tell: reads that fail do so.
    fn trust(&mut self) {
        if std::mem::take(&mut self.sight.suspects) {
            self.sight.trusted_until = self.now + LOOK_AFTER;
            self.turn_may_have_come = true;
        }
    }

    /// The partner has said whether it sees the disks, if this is the call by which it was asked.
    pub(crate) fn on_sight(&mut self, call: u32, result: Result<ManageReply, ManageError>) -> bool {
        let is_it = self.sight.call.take_if(|c| *c == call).is_some();
        if is_it && result.is_err() {
            self.trust();
        } else if is_it && self.sight.blind && self.phase == Phase::Serving {
            mark!("a controller that is blind gives way");
            self.note(Note::Blind);
            if self.is_stopping() {
                self.halt();
                return is_it;
            }
            self.phase = Phase::Out;
            self.effects.push(Effect::CloseHosts);
            self.effects.push(Effect::Restart);
        }
        is_it
    }

    /// A round over the slots has ended, with a majority or without.
    pub(crate) fn looked(&mut self, sees: bool) {
        // Where nothing was in doubt yet, it may be only disturbed.
        let blind = !sees && self.sight.look_at.is_some();
        (self.sight.looks, self.sight.failed, self.sight.blind) = (false, !sees, blind);
        if sees {
            self.trust();
        }
        for id in std::mem::take(&mut self.sight.asked).iter() {
            let word = if sees && self.is_serving() {
                self.sight.not_before = self.now + GO_ON_FOR;
                Ok(ManageReply::Done)
            } else {
                Err(ManageError::DiskError)
            };
            self.answer_partner(*id, word);
        }
    }
}
