//! A takeover, in the one order that is safe (R10):
//!
//! 1. **ballot**: the record says `ALONE(self)` (`decide`),
//! 2. **fence and drain**: the partner writes no disk any more, and what it had submitted is over,
//! 3. **resolve** what NV memory holds, the partner's segment included,
//! 4. **path state**: this controller owns every LUN,
//! 5. **serve**.
//!
//! A controller that starts under `ALONE(self)` goes the same way from step 2: the record does not say that the fence
//! happened (R5).

use super::{Fence, Joiner, Phase};
use crate::controller::Core;
use crate::effect::{Effect, Note};
use crate::host::{HostOp, Status};
use crate::htb::Stage;
use crate::ids::{Controller, Nanos};
use crate::mirror::MnodeStage;
use crate::mutant;
use crate::nv::resolve::{ValidBuffer, final_bmae, ultimate};
use crate::nv::word::{Rie, RieState};

/// What resolving a pair found.
#[derive(Clone, Copy, Debug, Default)]
struct Found {
    valid: u32,
    absorbed: u32,
    dropped: u32,
}

impl Core {
    /// Step 2.
    pub(crate) fn fence(&mut self) {
        self.phase = Phase::Fencing;
        self.fence = Fence::Open;
        if mutant::is("serve-before-the-fence") {
            self.take_over();
            return;
        }
        if self.leaver_may_go_until.is_none() {
            self.issue_fence();
        }
        // A partner that runs already, and waits, hears that it is out and gives its locks back.
        self.say_hello();
    }

    /// Who serves alone keeps its partner out, from here until that is let in.
    pub(crate) fn issue_fence(&mut self) {
        self.fence = Fence::Asked;
        let process = self.partner_process;
        self.effects.push(Effect::Fence { process });
    }

    /// A partner that leaves by itself is not killed on its way.
    pub(crate) fn fence_leaver(&mut self) {
        let gone = self
            .leaver_may_go_until
            .is_some_and(|until| self.now >= until || !self.link.is_up());
        if gone && self.phase == Phase::Fencing {
            self.leaver_may_go_until = None;
            self.issue_fence();
        }
    }

    /// The partner is fenced. The fence did not wait for disks that are missing: of those nothing is known before they answer anew.
    pub(crate) fn on_fenced(&mut self) {
        if self.fence != Fence::Asked {
            return;
        }
        self.fence = Fence::Proven;
        self.forget_answers_of_missing_disks();
        match self.phase {
            Phase::Fencing => self.take_over(),
            Phase::Serving => self.let_in_who_waits(),
            _ => {}
        }
    }

    /// Steps 3 to 5.
    pub(crate) fn take_over(&mut self) {
        self.note(Note::PartnerFenced);
        self.resolve_all();
        self.effects.push(Effect::ViewChanged);
        self.serve();
    }

    fn resolve_all(&mut self) {
        self.joiner = Joiner::None;
        self.cache.forget_twins();
        // The own segment is known to a controller that was serving: its cache and its writes in progress are alive.
        let mut found = Found::default();
        let pairs = Controller::BOTH.into_iter().filter(|p| self.is_to_resolve(*p));
        let pairs: Vec<Controller> = pairs.collect();
        // All BMAEs before any RIE: a write of one pair may name old data of the other.
        for pair in &pairs {
            self.resolve_buffers(*pair, &mut found);
            if mutant::is("one-pair-after-the-other") {
                self.release_ries(*pair, &mut found);
            }
        }
        for pair in &pairs {
            self.release_ries(*pair, &mut found);
        }
        for mnode in &mut self.mnodes {
            mnode.stage = MnodeStage::AwaitRqr;
        }
        self.store_nca();
        self.note(Note::Resolved {
            valid: found.valid,
            absorbed: found.absorbed,
            dropped: found.dropped,
        });
        self.go_on_without_mirror();
    }

    fn is_to_resolve(&self, pair: Controller) -> bool {
        if mutant::is("ignore-the-mirror-segment") && pair == self.partner() {
            return false;
        }
        pair == self.partner() || !self.has_served
    }

    /// [0085]: every BMAE gets its ultimate state. A crash in between changes nothing of what is true.
    fn resolve_buffers(&mut self, pair: Controller, found: &mut Found) {
        for buffer in self.geometry().buffers_of(pair) {
            let before = self.bmae(buffer);
            let valid = self.live(ultimate(&self.words, buffer).expect("the image was checked when it was found"));
            let after = final_bmae(valid);
            if before != after {
                self.store_bmae(buffer, after);
            }
            if let Some(valid) = valid {
                found.valid += 1;
                let copies = self.disks_of_block(valid.ncae, valid.start.0);
                self.cache.adopt(valid, copies, mutant::is("a-takeover-finds-twins"));
            }
        }
    }

    /// Data of a LUN that is gone are nothing, also if another LUN has its place by now [0093].
    pub(crate) fn live(&self, valid: Option<ValidBuffer>) -> Option<ValidBuffer> {
        valid.filter(|v| {
            let named = self
                .words
                .ncae(v.ncae)
                .expect("the image was checked when it was found");
            self.lun(v.ncae)
                .is_some_and(|lun| named.noid.is_none_or(|noid| noid == lun.noid))
        })
    }

    fn release_ries(&mut self, pair: Controller, found: &mut Found) {
        for rie in self.geometry().ries_of(pair) {
            let was = self.words.rie(rie).expect("the image was checked when it was found");
            match was.state {
                RieState::Unused => continue,
                RieState::Free => found.dropped += 1,
                RieState::Valid => found.absorbed += 1,
            }
            let state = RieState::Unused;
            self.store_rie(rie, Rie { state, ..was });
        }
    }

    /// R3: writes in flight finish under their RIEs, write-through.
    pub(crate) fn go_on_without_mirror(&mut self) {
        for at in 0..self.order.len() {
            let h = self.order[at];
            // What was asked of the mirror it has forgotten.
            let portion = &mut self.htb_mut(h).portion;
            (portion.mirrored, portion.requested) = (false, false);
            if self.htb(h).stage == Stage::AwaitMirror && !mutant::is("writes-in-flight-hang") {
                self.join_commit(h);
            } else if self.is_good_write(h) && !mutant::is("what-waits-for-leave-is-not-on-disk") {
                // R3: it was mirrored, and is in one memory only now.
                self.await_disk(h);
            }
        }
        // Nobody waits for room on the link any more, or for old data that a joiner lacked.
        self.turn_may_have_come |= !mutant::is("a-lost-joiner-wakes-nobody");
    }

    /// Whether a write is done and waits for nothing but leave to say so.
    fn is_good_write(&self, h: u32) -> bool {
        let htb = self.htb(h);
        let write = matches!(htb.op, HostOp::Write { .. });
        write && htb.stage == Stage::AwaitLeave && htb.status == Status::Good
    }

    /// Step 5.
    pub(crate) fn serve(&mut self) {
        self.phase = Phase::Serving;
        self.has_served = true;
        self.renew_at = self.now + Nanos(self.config.timing.grant.0 / 4);
        // The lease counts from the ballot; a fence that took longer has used it up, and the next renewal decides.
        if self.is_write_through() && self.lease_until <= self.now {
            self.renew_at = self.now;
        }
        self.last_write = self.now;
        self.turn_may_have_come = true;
        if !self.is_stopping() {
            self.effects.push(Effect::Serve);
        }
        let mirrored = !self.is_write_through();
        self.note(Note::Serving { mirrored });
        self.let_in_who_waits();
    }

    /// The partner is out of reach while both are in: nothing is acknowledged until a ballot has decided (R3).
    pub(crate) fn lose_partner(&mut self) {
        self.note(Note::PartnerUnreachable);
        self.phase = Phase::Deciding;
        if mutant::is("acknowledge-before-the-ballot") {
            self.go_on_without_mirror();
        }
        self.end_ballot();
    }
}
