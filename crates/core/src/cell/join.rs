//! The partner comes back (R9).
//!
//! ```text
//! joiner (AwaitAttach)                     the one that is in (Serving, alone)
//! Attach ------------------------------->  lifts the fence
//! takes its locks  <---------------------  RecordIs, Unfenced
//! Attach ------------------------------->  from here on every write is mirrored: RQR, MDA, disk, status
//! empty image      <---------------------  Attached
//! (Joining)                                what is older drains to disk; what cannot is carried (carry.rs)
//!                                          ballot BOTH, once the images are equal
//! serves           <---------------------  RecordIs
//! ```

use super::{Fence, Joiner, Phase};
use crate::controller::{Core, Violation};
use crate::effect::{Effect, Note};
use crate::htb::{Origin, Stage};
use crate::ids::Uuid;
use crate::link::frame::Mfc;
use crate::link::mfcd::Mfcd;
use crate::mark::mark;
use crate::mutant;

impl Core {
    /// The joiner asks to be let in; the second time with its locks held.
    pub(crate) fn attach(&mut self) {
        let image = self.config.fresh_image;
        self.link.send(Mfc::Attach { image });
    }

    /// The partner asks to be let in.
    pub(crate) fn on_attach(&mut self, image: Uuid) -> Result<(), Violation> {
        match (self.phase, self.joiner) {
            // Who stops will not serve again: it is waited for until it has gone.
            (Phase::Serving, Joiner::None) if self.is_stopping() && !mutant::is("attach-now-or-never") => return Ok(()),
            (_, Joiner::None) if self.lets_in_later() => {
                self.attach_waits = true;
                return Ok(());
            }
            (Phase::Serving, _) if self.is_write_through() && !self.is_stopping() => {}
            _ => return Err(Violation("the partner wants to join where it cannot")),
        }
        match self.joiner {
            Joiner::None => {
                self.let_in();
                Ok(())
            }
            Joiner::Unfenced => {
                if self.has_orphans() && !mutant::is("orphans-share-their-memory") {
                    // What it forwarded before its fall still uses its transfer buffers here.
                    return Err(Violation("the partner returns too soon"));
                }
                let incarnation = self.link.incarnation();
                let heard = false;
                self.joiner = Joiner::Attached {
                    image,
                    incarnation,
                    heard,
                };
                self.link.request(Mfcd::Attached);
                Ok(())
            }
            Joiner::Attached { .. } => Err(Violation("the partner joins twice")),
        }
    }

    /// Whether whoever asks to be let in is let in once this controller serves, or once the fence is up that it has asked for.
    fn lets_in_later(&self) -> bool {
        match self.phase {
            Phase::AwaitAttach | Phase::Deciding | Phase::Fencing if !mutant::is("attach-now-or-never") => {
                mark!("who wants to join waits until its partner serves");
                true
            }
            // The joiner was lost on its way in, and what it had submitted is not known to be over yet.
            Phase::Serving if self.fence == Fence::Asked => {
                mark!("who wants to join again waits for the fence");
                true
            }
            _ => false,
        }
    }

    /// Who has asked to be let in too soon, see `lets_in_later`.
    pub(crate) fn let_in_who_waits(&mut self) {
        if std::mem::take(&mut self.attach_waits) && self.is_write_through() && !self.is_stopping() {
            self.let_in();
        }
    }

    /// The partner gets its locks back, and asks again once it has them.
    fn let_in(&mut self) {
        self.note(Note::PartnerJoins);
        self.joiner = Joiner::Unfenced;
        self.fence = Fence::Open;
        self.effects.push(Effect::Unfence);
        let record = self.record.expect("a serving controller has a record");
        self.link.send(Mfc::RecordIs(record));
        self.link.send(Mfc::Unfenced);
    }

    /// It has heard that it joins, and has its image.
    pub(crate) fn joiner_is_attached(&mut self) {
        if let Joiner::Attached { heard, .. } = &mut self.joiner {
            *heard = true;
        }
    }

    fn has_orphans(&self) -> bool {
        self.order.iter().any(|h| self.htb(*h).origin == Origin::Nobody)
    }

    /// The fence is lifted.
    pub(crate) fn on_unfenced(&mut self) -> Result<(), Violation> {
        if self.phase != Phase::AwaitAttach {
            return Err(Violation("a fence lifted at the wrong time"));
        }
        self.phase = Phase::Attaching;
        self.take_locks();
        if self.own_slot_known {
            self.attach();
        }
        Ok(())
    }

    /// From here on the partner mirrors every write to this controller.
    pub(crate) fn on_attached(&mut self) -> Result<(), Violation> {
        if self.phase != Phase::Attaching {
            return Err(Violation("attached at the wrong time"));
        }
        self.fresh_image();
        self.store_nca();
        self.phase = Phase::Joining;
        Ok(())
    }

    /// The images of both, once the joiner has one and they are equal: nothing valid here lacks its twin, no write in progress does, and the
    /// partner's own pair is empty (R9).
    pub(crate) fn images_of_both(&self) -> Option<[Uuid; 2]> {
        let Joiner::Attached { image, heard: true, .. } = self.joiner else {
            return None;
        };
        let untwinned = |h: &u32| {
            let htb = self.htb(*h);
            matches!(htb.stage, Stage::AwaitHostData | Stage::AwaitMirror) && !htb.portion.mirrored
        };
        let equal = (self.cache.untwinned() == 1 && mutant::is("both-one-buffer-early")
            || self.cache.untwinned() == 0
            || mutant::is("both-while-untwinned"))
            && (!self.order.iter().any(untwinned) || mutant::is("both-while-a-write-has-no-mirror"))
            && self.cache.in_use(self.partner()) == 0
            && self.is_joiner_linked();
        let mut images = [self.image; 2];
        images[self.partner().index()] = image;
        equal.then_some(images)
    }

    /// Whether old data have to reach the disks so that something can go on.
    pub(crate) fn is_draining(&self) -> bool {
        self.joiner != Joiner::None || self.is_task_draining()
    }

    pub(crate) fn settle_joiner(&mut self) {
        let gone = self.joiner != Joiner::None && !self.is_joiner_linked() && self.phase == Phase::Serving;
        let open = self.may_have_proposed_both() && !mutant::is("forget-a-proposed-both");
        if gone && !open && self.is_write_through() {
            self.lose_joiner();
            self.cache.forget_twins();
            self.go_on_without_mirror();
            self.say_hello();
        }
    }

    /// The joiner is gone, or begins anew: it is out again, and has to be kept out.
    pub(crate) fn lose_joiner(&mut self) {
        self.joiner = Joiner::None;
        if !mutant::is("a-lost-joiner-is-not-fenced") {
            self.issue_fence();
        }
    }

    /// Whether the link is the one over which the partner joins.
    fn is_joiner_linked(&self) -> bool {
        let same = match self.joiner {
            Joiner::Attached { incarnation, .. } => incarnation == self.link.incarnation(),
            _ => true,
        };
        same && self.link.is_up()
    }

    /// The record says `BOTH`: the fault is repaired.
    pub(crate) fn on_both_committed(&mut self) {
        let linked = self.is_joiner_linked();
        self.joiner = Joiner::None;
        if !linked && !mutant::is("both-behind-a-broken-link") {
            // It won although the link broke meanwhile: the joiner may be serving, or gone (R9).
            return self.lose_partner();
        }
        self.grant_until = self.now;
        self.link.beat_now();
        self.note(Note::Mirrored);
    }

    /// The joiner is in.
    pub(crate) fn joined(&mut self) {
        self.announce = true;
        self.link.beat_now();
        self.serve();
    }
}
