//! Both controllers restarted while the record said `BOTH`, and both images are current: before anything is served they
//! are made level (R6). Each controller is the one to decide for the pair that it allocates.
//!
//! A write in progress is valid at the allocator before it is at the mirror, never the other way round, and it was
//! acknowledged only if it is valid at both. So what the mirror lacks is dropped at the allocator, which loses nothing
//! that was acknowledged; then what the allocator does not have is freed at the mirror. No data need to travel.

use super::Phase;
use crate::controller::{Core, Violation};
use crate::effect::{Effect, Note};
use crate::ids::{BufferIndex, RieGeneration, RieIndex};
use crate::link::frame::{LEVEL_BUFFERS, LEVEL_RIES_MAX, Mfc};
use crate::list::List;
use crate::mark::mark;
use crate::mirror::MnodeStage;
use crate::mutant;
use crate::nv::resolve::{final_bmae, ultimate};
use crate::nv::word::{Bmae, BmaeState, Rie, RieState};

/// How far it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Leveling {
    /// Questions about RIEs that the partner has not answered.
    questions: u16,
    /// The own pair: the partner has said that its copy is level.
    own_done: bool,
    /// The partner's pair: this controller's copy is level.
    partners_done: bool,
    /// The partner's pair: its writes in progress were decided here.
    resolved: bool,
    /// The partner's pair: something that it has is missing here.
    lacks: bool,
}

impl Core {
    /// Both are here, of the same epoch, with current images and nothing undecided.
    pub(crate) fn begin_leveling(&mut self) {
        self.phase = Phase::Leveling;
        self.leveling = Leveling::default();
        self.grant_until = self.now;
        if mutant::is("level-nothing") {
            self.finalize_pair(self.own());
            self.finalize_pair(self.partner());
            (self.leveling.own_done, self.leveling.partners_done) = (true, true);
            return self.finish_leveling();
        }
        let mut ries = List::new();
        for rie in self.geometry().ries_of(self.own()) {
            let Rie { state, generation, .. } = self.rie(rie);
            if state == RieState::Valid {
                ries.push((rie, generation));
            }
            if ries.is_full() {
                self.ask_for_ries(std::mem::take(&mut ries));
            }
        }
        self.ask_for_ries(ries);
    }

    fn ask_for_ries(&mut self, ries: List<(RieIndex, RieGeneration), LEVEL_RIES_MAX>) {
        self.leveling.questions += 1;
        self.link.send(Mfc::LevelRies(ries));
    }

    pub(crate) fn rie(&self, rie: RieIndex) -> Rie {
        self.words.rie(rie).expect("the controller's own words are sound")
    }

    /// The allocator asks which of these writes were not absorbed here.
    pub(crate) fn on_level_ries(&mut self, ries: &[(RieIndex, RieGeneration)]) -> Result<(), Violation> {
        self.expect_leveling()?;
        let mut lacks = List::new();
        for (rie, generation) in ries {
            if self.geometry().pair_of_rie(*rie) != Some(self.partner()) {
                return Err(Violation("a question about an RIE of the wrong pair"));
            }
            let here = self.rie(*rie);
            let lacking = (here.state, here.generation) != (RieState::Valid, *generation);
            if lacking || mutant::is("leveling-drops-all-writes") {
                mark!("the mirror lacks a write in progress");
                lacks.push((*rie, *generation));
            }
        }
        self.link.send(Mfc::LevelLacks(lacks));
        Ok(())
    }

    fn expect_leveling(&self) -> Result<(), Violation> {
        if self.phase == Phase::Leveling {
            Ok(())
        } else {
            Err(Violation("leveling at the wrong time"))
        }
    }

    /// What the mirror lacks was never acknowledged, and is dropped.
    pub(crate) fn on_level_lacks(&mut self, ries: &[(RieIndex, RieGeneration)]) -> Result<(), Violation> {
        self.expect_leveling()?;
        for (rie, generation) in ries {
            if self.geometry().pair_of_rie(*rie) != Some(self.own()) {
                return Err(Violation("an answer to a question that was not asked"));
            }
            let here = self.rie(*rie);
            if here.generation != *generation {
                return Err(Violation("an answer to a question that was not asked"));
            }
            let state = RieState::Free;
            self.store_rie(*rie, Rie { state, ..here });
        }
        if self.leveling.questions == 0 {
            return Err(Violation("an answer to a question that was not asked"));
        }
        self.leveling.questions -= 1;
        if self.leveling.questions == 0 {
            self.finalize_pair(self.own());
            self.send_valid_buffers();
        }
        Ok(())
    }

    /// Every BMAE of a pair gets its ultimate state.
    fn finalize_pair(&mut self, pair: crate::ids::Controller) {
        for buffer in self.geometry().buffers_of(pair) {
            let valid = ultimate(&self.words, buffer).expect("the controller's own words are sound");
            let after = final_bmae(self.live(valid));
            if self.bmae(buffer) != after {
                self.store_bmae(buffer, after);
            }
        }
        for rie in self.geometry().ries_of(pair) {
            let was = self.rie(rie);
            if was.state != RieState::Unused {
                let state = RieState::Unused;
                self.store_rie(rie, Rie { state, ..was });
            }
        }
    }

    fn send_valid_buffers(&mut self) {
        let buffers: Vec<BufferIndex> = self.geometry().buffers_of(self.own()).collect();
        for group in buffers.chunks(LEVEL_BUFFERS as usize) {
            let mut valid = [0u64; LEVEL_BUFFERS as usize / 64];
            for (n, buffer) in group.iter().enumerate() {
                valid[n / 64] |= u64::from(self.bmae(*buffer).state == BmaeState::WbValid) << (n % 64);
            }
            let first = group[0];
            self.link.send(Mfc::LevelBuffers { first, valid });
        }
        self.link.send(Mfc::LevelEnd);
    }

    /// The allocator's buffers are these; others are surplus here.
    pub(crate) fn on_level_buffers(&mut self, first: BufferIndex, valid: &[u64]) -> Result<(), Violation> {
        self.expect_leveling()?;
        if !std::mem::replace(&mut self.leveling.resolved, true) {
            self.finalize_pair(self.partner());
        }
        let count = LEVEL_BUFFERS.min(self.geometry().buffers_of_both().saturating_sub(first.0));
        for n in 0..count {
            let buffer = BufferIndex(first.0 + n);
            if self.geometry().pair_of(buffer) != Some(self.partner()) {
                break;
            }
            let wanted = valid[n as usize / 64] >> (n % 64) & 1 == 1;
            let here = self.bmae(buffer).state == BmaeState::WbValid;
            self.leveling.lacks |= wanted && !here;
            if here && !wanted && !mutant::is("surplus-twins-stay") {
                mark!("a twin is surplus");
                self.store_bmae(buffer, Bmae::FREE);
            }
        }
        Ok(())
    }

    /// That was all of the allocator's pair.
    pub(crate) fn on_level_end(&mut self) -> Result<(), Violation> {
        self.expect_leveling()?;
        self.leveling.partners_done = !self.leveling.lacks;
        self.link.send(Mfc::Leveled(!self.leveling.lacks));
        self.finish_leveling();
        Ok(())
    }

    /// The partner's copy of the own pair is level, or cannot be.
    pub(crate) fn on_leveled(&mut self, level: bool) -> Result<(), Violation> {
        self.expect_leveling()?;
        if !level {
            // It lost what it must have. This controller has it, and goes on alone.
            self.drop_link();
            self.phase = Phase::AwaitPartner { until: self.now };
            return Ok(());
        }
        self.leveling.own_done = true;
        self.finish_leveling();
        Ok(())
    }

    fn finish_leveling(&mut self) {
        if !(self.leveling.own_done && self.leveling.partners_done) {
            return;
        }
        for buffer in self.geometry().buffers_of(self.own()) {
            let valid = ultimate(&self.words, buffer).expect("the controller's own words are sound");
            if let Some(valid) = valid {
                let copies = self.disks_of_block(valid.ncae, valid.start.0);
                self.cache.adopt(valid, copies, true);
            }
        }
        for mnode in &mut self.mnodes {
            mnode.stage = MnodeStage::AwaitRqr;
        }
        self.store_nca();
        self.note(Note::Leveled);
        self.effects.push(Effect::ViewChanged);
        self.link.beat_now();
        self.serve();
        if !mutant::is("level-unheard") {
            self.confirm_record();
        }
    }
}
