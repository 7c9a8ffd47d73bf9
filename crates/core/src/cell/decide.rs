//! Which ballot is wanted now, and what its result means. What is wanted follows from the state at each step, so a ballot
//! that lost is simply wanted again, or not any more.

use super::ballot::{self, Ballot, Change, Verdict};
use super::pulse::Pulse;
use super::quorum::{self, Kind, OptionalSlots, Outcome};
use super::record::{Mode, Record};
use super::{Joiner, Phase};
use crate::controller::{Core, Locks};
use crate::effect::{Effect, Note};
use crate::host::HostOp;
use crate::htb::Stage;
use crate::ids::{Controller, Nanos, Time};
use crate::mark::mark;
use crate::mutant;

/// How long after a round the next renewal begins at the earliest.
const BETWEEN_ROUNDS: Nanos = Nanos::from_millis(1);

impl Core {
    /// What the cell machine does at each step.
    pub(crate) fn settle_cell(&mut self) {
        if self.phase == Phase::Out {
            return;
        }
        self.notice_silence();
        self.fence_leaver();
        self.settle_metadata();
        self.finish_round();
        self.settle_joiner();
        self.begin_ballot();
        self.begin_renewal();
        self.drive_quorum();
    }

    /// When the cell machine has something to do though nothing happens.
    pub(crate) fn cell_deadline(&self) -> Option<Time> {
        let leaver = self.leaver_may_go_until.filter(|_| self.phase == Phase::Fencing);
        // What takes a round over the quorum disks waits for the end of the present one.
        let round = (!self.quorum.is_busy()).then(|| self.round_deadline()).flatten();
        [leaver, self.metadata_again, round]
            .into_iter()
            .flatten()
            .map(|t| t.max(self.now + Nanos::from_micros(100)))
            .min()
    }

    fn round_deadline(&self) -> Option<Time> {
        let wait = match self.phase {
            Phase::AwaitPartner { until } => Some(until),
            _ => self
                .may_become_clean()
                .then(|| self.last_write + self.config.timing.clean_idle),
        };
        // A ballot that is wanted waits until the last one is far enough away.
        let wait = wait.map(|t| t.max(self.ballot_not_before));
        let record = (self.phase == Phase::AwaitRecord).then_some(self.ballot_not_before);
        let renewal = (self.watches_record() || self.holds_lease()).then_some(self.renew_at);
        let ballot = (self.ballot_not_before > self.now).then_some(self.ballot_not_before);
        [wait, record, renewal, ballot].into_iter().flatten().min()
    }

    /// Whether this controller is in alone, or will be once the fence is there: it shows that it is alive, and looks
    /// whether it is still in.
    fn holds_lease(&self) -> bool {
        matches!(self.phase, Phase::Serving | Phase::Fencing) && self.is_write_through()
    }

    /// The change of the record that is wanted now, if any.
    fn wanted_change(&self) -> Option<Change> {
        let image = self.image;
        match self.phase {
            // What it has voted for is told as it is: whoever starts anew finishes it.
            Phase::Yielding if !mutant::is("yield-and-vote") => None,
            // A round is a look at the record then, and no ballot's.
            Phase::AwaitRecord | Phase::AwaitLocks if !mutant::is("a-ballot-while-the-record-is-read") => None,
            Phase::Undecided => Some(Change::Complete),
            // What this process voted for is finished before anything new is wanted.
            _ if self.has_voted() && self.phase != Phase::Deciding => Some(Change::Complete),
            Phase::Deciding if self.loss_accepted => Some(Change::AcceptLoss { image }),
            Phase::Deciding => Some(Change::Alone {
                image,
                dirty: self.mode() == Some(Mode::Both) && !self.is_image_fresh(),
            }),
            Phase::AwaitPartner { until } if self.now >= until => Some(Change::Alone { image, dirty: true }),
            Phase::Serving => self.wanted_while_serving(),
            _ => None,
        }
    }

    fn wanted_while_serving(&self) -> Option<Change> {
        if let Some(change) = self.task_change() {
            return Some(change);
        }
        let Some(Mode::Alone { dirty, .. }) = self.mode() else {
            return None;
        };
        let changes_metadata = self.changes_metadata();
        if let Some(images) = self.images_of_both().filter(|_| !changes_metadata) {
            return Some(Change::Both { images });
        }
        if !dirty && self.awaits_dirty() && !self.is_stopping() {
            mark!("the record becomes dirty");
            return Some(Change::Dirty(true));
        }
        let idle = self.now.since(self.last_write) >= self.config.timing.clean_idle;
        (self.may_become_clean() && idle).then_some(Change::Dirty(false))
    }

    /// Whether a write waits for the record to say "dirty".
    fn awaits_dirty(&self) -> bool {
        let waits = |h: &u32| {
            let htb = self.htb(*h);
            htb.stage == Stage::AwaitTurn && matches!(htb.op, HostOp::Write { .. }) && htb.left() > 0
        };
        self.order.iter().any(waits)
    }

    /// R7: no valid BMAE, no open RIE, no disk write in flight, and nobody joins.
    pub(crate) fn may_become_clean(&self) -> bool {
        self.phase == Phase::Serving
            && matches!(self.mode(), Some(Mode::Alone { dirty: true, .. }))
            && self.joiner == Joiner::None
            && (self.is_drained() || mutant::is("clean-with-data-in-flight"))
            && !self.awaits_dirty()
    }

    /// Whether NV memory holds nothing that the disks lack, and nothing is on its way.
    pub(crate) fn is_drained(&self) -> bool {
        self.cache.unsettled() == 0 && self.rie_htb.iter().all(Option::is_none) && self.destager.is_idle()
    }

    fn is_image_fresh(&self) -> bool {
        self.image == self.config.fresh_image && !self.record.is_some_and(|r| r.is_current(self.own(), self.image))
    }

    /// Whether no ballot of this controller is open, and its slots say what was decided last: it may go.
    pub(crate) fn is_decided(&self) -> bool {
        !self.has_open_ballot() && !self.announce && !self.quorum.is_busy()
    }

    /// Whether a ballot of this controller is under way, or its vote may still win.
    pub(crate) fn has_open_ballot(&self) -> bool {
        self.ballot.is_some() || self.has_voted()
    }

    fn has_voted(&self) -> bool {
        self.quorum.is_known() && self.quorum.slot().voted > 0
    }

    /// Whether `BOTH` may be the next record (R9): from the vote on, until the result is known.
    pub(crate) fn may_have_proposed_both(&self) -> bool {
        self.may_have_proposed(|r| r.mode == Mode::Both)
    }

    /// Whether "clean" may be the next record (R7).
    pub(crate) fn may_have_proposed_clean(&self) -> bool {
        self.may_have_proposed(|r| matches!(r.mode, Mode::Alone { dirty: false, .. }))
    }

    fn may_have_proposed(&self, what: impl Fn(&Record) -> bool) -> bool {
        let Some(record) = self.record else { return false };
        let voted = self.has_voted() && what(&self.quorum.slot().proposal);
        let wanted = self.ballot.and_then(|b| b.change.apply(&record, self.own()));
        voted || wanted.is_some_and(|r| what(&r))
    }

    /// It was won, lost, or given up: what waited for its result may begin.
    pub(crate) fn end_ballot(&mut self) -> Option<Ballot> {
        let ended = self.ballot.take();
        self.turn_may_have_come |= ended.is_some() && !mutant::is("a-ballot-that-fails-wakes-nobody");
        ended
    }

    fn begin_ballot(&mut self) {
        if self.ballot.is_some() || self.quorum.is_busy() || !self.own_slot_known {
            return;
        }
        if self.ballot_not_before > self.now {
            return;
        }
        let Some(change) = self.wanted_change() else { return };
        if std::mem::take(&mut self.looks_first) && !mutant::is("vote-without-looking") {
            // A disk that takes nothing may still say that the partner was voted in.
            return self.quorum.begin(Kind::Read, self.now);
        }
        if self.phase == Phase::Deciding {
            self.note(Note::BallotBegun);
        }
        let waits = matches!(self.phase, Phase::AwaitPartner { .. }) && !mutant::is("level-while-undecided");
        if waits && self.link.has_said_hello() {
            // R6: what was said of this controller on the link does not hold any more.
            self.drop_link();
        }
        let (own, seen) = (self.own(), self.ballot_seen);
        self.ballot = Some(Ballot::begin(change, own, self.quorum.slot_mut(), seen));
        self.quorum.begin(Kind::WriteRead, self.now);
    }

    /// Whether the record may change while this controller waits and cannot hear of it: it looks now and then. Whoever waits for
    /// its locks may be fenced meanwhile, and does not say hello.
    fn watches_record(&self) -> bool {
        let awaits_locks = self.phase == Phase::AwaitLocks && self.locks == Locks::Awaited;
        self.phase == Phase::AwaitAttach || awaits_locks && !mutant::is("wait-for-locks-without-looking")
    }

    /// Alone, this controller serves under a lease: it shows that it is alive, and looks whether it is still in (R2).
    /// One that waits to join looks whether its partner is alive (R8).
    fn begin_renewal(&mut self) {
        if self.quorum.is_busy() || self.ballot.is_some() {
            return;
        }
        let alone = self.holds_lease();
        let waits = self.watches_record();
        let due = (alone || waits) && self.now >= self.renew_at;
        // What has just failed is not tried again at once.
        let may_begin = self.ballot_not_before <= self.now;
        let own_slot_wanted = self.locks == Locks::Held && !self.own_slot_known;
        if self.phase == Phase::AwaitRecord || own_slot_wanted {
            if may_begin {
                self.quorum.begin(Kind::Read, self.now);
            }
        } else if (due && alone || self.announce && may_begin) && self.own_slot_known {
            self.announce = false;
            self.quorum.slot_mut().heartbeat += 1;
            self.quorum.begin(Kind::WriteRead, self.now);
        } else if due && waits || (self.sight.looks || !self.sight.asked.is_empty()) && may_begin {
            self.quorum.begin(Kind::Read, self.now);
        }
        if due {
            self.renew_at = self.now + Nanos(self.config.timing.grant.0 / 4);
        }
    }

    fn finish_round(&mut self) {
        let Some(outcome) = self.quorum.outcome() else { return };
        self.looked(matches!(outcome, Outcome::Majority(_)));
        // Even if disks are so slow that the next one is due: what waits for the end of a round has its turn between two.
        if !mutant::is("one-round-after-the-other") {
            self.renew_at = self.renew_at.max(self.now + BETWEEN_ROUNDS);
        }
        let Outcome::Majority(found) = outcome else {
            // What was to be announced is still to be.
            self.announce |= self.end_ballot().is_none() && self.own_slot_known;
            self.looks_first = self.quorum.kind() == Kind::WriteRead;
            self.ballot_not_before = self.now + self.config.timing.heartbeat;
            return;
        };
        self.looks_first = false;
        self.ballot_seen = self.ballot_seen.max(ballot::highest_begun(&found));
        self.take_own_slot(&found);
        match self.ballot {
            _ if self.phase == Phase::AwaitRecord || self.phase == Phase::AwaitLocks && self.own_slot_known => {
                self.on_record_read(&found)
            }
            // A round that was under way already says nothing new.
            _ if self.phase == Phase::Yielding && self.announce => {}
            _ if self.phase == Phase::Yielding => self.start_anew(),
            Some(ballot) => self.on_ballot_round(ballot, &found),
            None => self.on_renewal(&found),
        }
    }

    fn on_ballot_round(&mut self, mut ballot: Ballot, found: &[OptionalSlots]) {
        let verdict = ballot.on_round(found, self.quorum.slot_mut());
        self.end_ballot();
        match verdict {
            Verdict::Again => {
                self.ballot = Some(ballot);
                self.quorum.begin(Kind::WriteRead, self.now);
            }
            Verdict::Decided { record, own } => {
                self.announce = true;
                if self.phase == Phase::Deciding {
                    let epoch = record.epoch;
                    self.note(if own {
                        Note::BallotWon { epoch }
                    } else {
                        Note::BallotLost { epoch }
                    });
                }
                self.lease_until = self.lease_begins() + self.config.timing.grant;
                self.adopt_with_metadata(record);
                if self.epoch() == record.epoch {
                    self.tell_partner(record);
                }
            }
            Verdict::Overtaken(record) => {
                mark!("another's record overtakes a ballot");
                self.adopt_with_metadata(record);
                if self.to_adopt.is_some() {
                    // Until its metadata are here it would overtake the next ballot, too.
                    self.ballot_not_before = self.now + self.config.timing.heartbeat;
                }
            }
            Verdict::Outbid => {
                mark!("a ballot is outbid");
                self.back_off();
            }
            Verdict::Void => {
                if self.phase == Phase::Deciding {
                    // Nothing that it wants makes sense now: it is not tried again at once.
                    self.ballot_not_before = self.now + self.config.timing.heartbeat;
                }
            }
        }
    }

    /// A lease counts from when the round began that has shown this controller to be alive (R2).
    fn lease_begins(&self) -> Time {
        if mutant::is("lease-from-its-end") {
            return self.now;
        }
        self.quorum.began()
    }

    /// A gives way for less time than B: a duel ends.
    fn back_off(&mut self) {
        self.ballot_tries = (self.ballot_tries + 1).min(8);
        let step = match self.own() {
            Controller::A => 3,
            Controller::B => 20,
        };
        self.ballot_not_before = self.now + Nanos::from_millis(step * u64::from(self.ballot_tries));
    }

    fn on_renewal(&mut self, found: &[OptionalSlots]) {
        let newest = quorum::newest_record(found);
        let newer = newest.filter(|r| r.epoch > self.epoch());
        if self.phase == Phase::AwaitAttach {
            self.look_for_life(found, newer.is_some());
        }
        if let Some(newer) = newer {
            return self.adopt_with_metadata(newer);
        }
        let shown = self.quorum.kind() == Kind::WriteRead || mutant::is("a-look-is-a-lease");
        if self.phase == Phase::Serving && self.is_write_through() && shown {
            self.lease_until = self.lease_until.max(self.lease_begins() + self.config.timing.grant);
        }
        if self.phase == Phase::AwaitAttach {
            self.watch_partner(found);
        }
    }

    /// Whether the last vote for the next record has this controller in, with the image that it has: the partner had let it join, and
    /// fell while that was being decided. Whatever was acknowledged since is in this image (R9).
    fn is_voted_in(&self, found: &[OptionalSlots]) -> bool {
        let (own, image) = (self.own(), self.image);
        let last = quorum::last_vote(found, self.epoch());
        last.is_some_and(|s| s.proposal.has(own) && s.proposal.is_current(own, image))
            && !mutant::is("wipe-what-a-vote-names")
            && !mutant::is("serve-from-an-image-unnamed")
    }

    /// A slot that has changed is a sign of life, and so is a link. Whoever lives takes back what was accepted as lost.
    fn look_for_life(&mut self, found: &[OptionalSlots], is_record_newer: bool) {
        let heartbeat = Pulse::heartbeat_of(found, self.partner());
        let lives = self.partners_pulse.has_changed(heartbeat) || self.link.is_up();
        if lives && !(is_record_newer && mutant::is("a-newer-record-is-no-sign-of-life")) {
            self.partners_pulse = Pulse::seen(heartbeat, self.now);
        } else {
            self.partners_pulse.stands_still(self.now);
        }
        self.loss_accepted &= self.awaited_memory().is_some();
    }

    /// R8: a partner that left everything clean, and whose slot has stood still for long enough, does not run. What it has voted for
    /// is finished first, if this controller is in it: with the image that it names, and not with a fresh one.
    fn watch_partner(&mut self, found: &[OptionalSlots]) {
        self.call_operator();
        let is_voted_in = self.is_voted_in(found);
        let clean = matches!(self.mode(), Some(Mode::Alone { dirty: false, .. }));
        let clean = clean || mutant::is("take-over-from-a-dirty-one");
        if self.is_partner_still() && (clean || is_voted_in) || self.loss_accepted {
            self.take_locks();
            if self.own_slot_known && is_voted_in {
                mark!("who was voted in finishes the vote of its partner");
                self.phase = Phase::Undecided;
                if !mutant::is("greeted-by-the-record-before-the-vote") {
                    // What it has said hello by is over then.
                    self.drop_link();
                }
            } else if self.own_slot_known {
                self.fresh_image();
                self.phase = Phase::Deciding;
            }
        } else if self.locks != Locks::None {
            // It runs after all, and its fence needs them.
            self.start_anew();
        }
    }

    /// Whether the partner had shown no sign of life for so long, at the last look for one, that it does not run.
    pub(crate) fn is_partner_still(&self) -> bool {
        self.partners_pulse.is_still(self.config.timing.still)
    }

    /// A newer record, whose metadata may have to be read first.
    pub(crate) fn adopt_with_metadata(&mut self, record: Record) {
        if let Some(known) = self
            .new_metadata
            .take_if(|m| m.generation == record.metadata.generation)
        {
            self.take_metadata(known);
        }
        let have = self.metadata.as_ref().map(|m| m.generation);
        if have == Some(record.metadata.generation) {
            self.adopt(record);
        } else {
            if self.to_adopt.is_some_and(|r| r.epoch >= record.epoch) {
                return;
            }
            let reading = self.to_adopt.replace(record).is_some();
            if !reading {
                self.metadata_tries = 0;
                self.read_metadata();
            }
        }
    }

    /// The record changed, by this controller or the partner. What that means depends on what was waited for.
    pub(crate) fn adopt(&mut self, record: Record) {
        if record.epoch <= self.epoch() {
            return;
        }
        let was_in = self.record.is_some_and(|r| r.has(self.own()));
        let was_both = self.mode() == Some(Mode::Both);
        self.record = Some(record);
        self.note_committed();
        self.look_again_what_is_level();
        // A ballot for a record that is there already is void; its number counts for nothing in the next.
        self.end_ballot();
        self.undecided = false;
        // An operator has accepted what the record before this one meant, and no more.
        self.loss_accepted &= mutant::is("acceptance-outlives-its-ballot");
        self.ballot_tries = 0;
        ballot::learn(self.quorum.slot_mut(), record);
        if !mutant::is("hosts-hear-of-no-record") {
            self.effects.push(Effect::ViewChanged);
        }
        self.turn_may_have_come = true;
        if was_in && !record.has(self.own()) {
            return self.be_out();
        }
        match self.phase {
            Phase::Deciding | Phase::AwaitPartner { .. } if !record.has(self.own()) => self.start_anew(),
            // R8: what this controller wanted to become does not follow from a record that names another image of it, as one that
            // its predecessor has voted for may.
            Phase::Deciding
                if !record.is_current(self.own(), self.image) && !mutant::is("serve-from-an-image-unnamed") =>
            {
                self.start_anew()
            }
            Phase::Deciding if record.mode != Mode::Both => self.fence(),
            Phase::AwaitPartner { .. } if record.mode != Mode::Both => {
                self.drop_link();
                self.fence();
            }
            // The partner may wait, too, and was told of the record before: both say hello anew.
            Phase::AwaitPartner { .. } if !mutant::is("hello-of-the-record-before") => self.drop_link(),
            // Only this controller may have proposed `BOTH`, and what it may have proposed before was decided first.
            Phase::Fencing => assert!(
                record.mode != Mode::Both,
                "the record is BOTH, and the partner is about to be fenced"
            ),
            Phase::Undecided => self.take_role(),
            Phase::Serving if was_both && record.mode != Mode::Both => {
                self.drop_link();
                self.fence();
            }
            Phase::Serving => self.on_record_while_serving(record),
            Phase::Joining if record.mode != Mode::Both => self.store_nca(),
            Phase::Joining if record.mode == Mode::Both => self.joined(),
            Phase::AwaitAttach | Phase::Attaching if record.has(self.own()) => self.start_anew(),
            _ => {}
        }
    }

    fn on_record_while_serving(&mut self, record: Record) {
        self.store_nca();
        if record.mode == Mode::Both && self.joiner != Joiner::None {
            self.on_both_committed();
        } else if record.mode == Mode::Both && !self.link.is_up() {
            self.lose_partner();
        }
    }

    /// R4: the loser ends its host connections, says nothing, reaps its writes, and starts anew.
    fn be_out(&mut self) {
        if self.phase == Phase::Leaving || self.is_stopping() {
            self.answer_stop();
            return self.exit();
        }
        self.note(Note::Out);
        self.start_anew();
    }

    /// Everything from the beginning: hosts are let go, disk writes are reaped, locks are given back.
    pub(crate) fn start_anew(&mut self) {
        if self.announce && self.phase != Phase::Yielding {
            // This controller alone knows what was decided: it tells before it goes, or the next one finds it undecided, and
            // so on for ever.
            self.effects.push(Effect::CloseHosts);
            self.phase = Phase::Yielding;
            self.end_ballot();
            return;
        }
        self.phase = Phase::Out;
        if mutant::is("loser-replies") {
            for at in 0..self.order.len() {
                let h = self.order[at];
                if self.htb(h).stage == Stage::AwaitMirror {
                    self.finish(h, crate::host::Status::Good);
                }
            }
            self.acknowledge_what_may_be();
        }
        self.effects.push(Effect::CloseHosts);
        self.effects.push(Effect::Restart);
    }

    pub(crate) fn exit(&mut self) {
        self.phase = Phase::Out;
        self.effects.push(Effect::CloseHosts);
        self.effects.push(Effect::Exit);
    }
}
