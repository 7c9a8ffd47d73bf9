//! A host's write, mirror side: Fig. 5 of the seed, from top to bottom.
//!
//! The mirror allocates nothing: buffers, RIE and MNODE are named by the primary [0054] [0070]. It is armed by an RQR,
//! absorbs the data by one store, and says so.

use crate::controller::{Core, Violation};
use crate::effect::Effect;
use crate::htb::{granules, sgl};
use crate::ids::{
    ATOMIC_BLOCKS, ATOMIC_GRANULES, BUFFER_BLOCKS, BlockCount, BufferIndex, ConnectionId, Nanos, RieGeneration,
    RieIndex, Time,
};
use crate::link::frame::{Mfc, RELEASE_MAX, Rqr, SendStatus, Sequenced};
use crate::link::mfcd::Mfcd;
use crate::list::List;
use crate::mark::mark;
use crate::memory::Memory;
use crate::mutant;
use crate::nv::word::{Bmae, BmaeState, Rie, RieState};

/// What an MNODE waits for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum MnodeStage {
    /// A request.
    #[default]
    AwaitRqr,
    /// The data.
    AwaitMirrorData,
    /// That the commit is durable.
    AwaitPersist,
}

/// The mirror's context for one RIE of the partner [0070].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Mnode {
    /// What it waits for.
    pub stage: MnodeStage,
    /// The request.
    pub rqr: Option<Rqr>,
    /// For each granule the old buffer, if there is one.
    old: List<Option<BufferIndex>, ATOMIC_GRANULES>,
    /// Which arming of the reception this is.
    pub(crate) attempt: u8,
    /// When it was armed, or last heard that the data are still to come.
    pub(crate) armed: Time,
    /// How often it said that the data are late.
    late: u8,
    /// It said so, and has no answer yet.
    dto: bool,
}

/// The attempt before the first: soon they wrap, so that this is nothing special.
const BEFORE_THE_FIRST: u8 = u8::MAX - 2;

impl Mnode {
    /// One that was never used.
    pub(crate) fn new() -> Mnode {
        Mnode {
            attempt: BEFORE_THE_FIRST,
            ..Mnode::default()
        }
    }

    /// Whether it is armed, at this attempt, for the data of this use of the RIE.
    fn awaits(&self, generation: RieGeneration, attempt: u8) -> bool {
        self.stage == MnodeStage::AwaitMirrorData
            && self.attempt == attempt
            && self.rqr.is_some_and(|r| r.generation == generation)
    }
}

impl Core {
    /// 660: the primary asks for reception.
    pub(crate) fn on_rqr(&mut self, rqr: Rqr, payload: BlockCount) -> Result<(), Violation> {
        let old = self.check_rqr(&rqr)?;
        let m = self.local_rie(rqr.rie);
        let attempt = self.mnodes[m].attempt.wrapping_add(1);
        // 665: everything that later steps need is in the MNODE, nothing in the message.
        self.mnodes[m] = Mnode {
            stage: MnodeStage::AwaitMirrorData,
            rqr: Some(rqr),
            old,
            attempt,
            armed: self.now,
            late: 0,
            dto: false,
        };
        self.stage_mirror_nv(m)?;
        if rqr.express {
            return self.absorb(m, payload);
        }
        self.send_rtr(m);
        self.watch_for_overdue();
        if mutant::is("mda-before-the-data") {
            self.send_mda(rqr.rie, rqr.generation);
        }
        Ok(())
    }

    /// Where the payload of a frame would go that has begun to arrive, and whose messages are where [`Core::place_of`]
    /// said: a hint for whoever moves the bytes, good until the next step. The memory is that of new buffers of a write
    /// that is not committed here, so whatever is put there means nothing before the frame itself is handled. `None` where
    /// that cannot be told, or is somewhere else.
    pub fn place_of_payload(&self, connection: ConnectionId, frame: &Sequenced, payload: BlockCount) -> Option<Memory> {
        if !self.link.is_incoming(connection) || !self.link.is_next(frame) || !self.mirrors() {
            return None;
        }
        let rqr = match *self.link.arrived(frame.sequence).last()? {
            Mfc::Rqr(rqr) if rqr.express => self.check_rqr(&rqr).ok().map(|_| rqr)?,
            Mfc::MirrorData {
                rie,
                generation,
                attempt,
            } if self.is_armed(rie, generation, attempt) => self.mnodes[self.local_rie(rie)].rqr?,
            _ => return None,
        };
        (payload == rqr.blocks).then(|| Memory::Buffers(sgl(rqr.start.0, rqr.blocks.0, &rqr.new)))
    }

    /// Whether these are the data that a request of the primary waits for. With a DTO on its way they come again: the
    /// primary sent these before it could hear of it.
    fn is_armed(&self, rie: RieIndex, generation: RieGeneration, attempt: u8) -> bool {
        if self.geometry().pair_of_rie(rie) != Some(self.partner()) {
            return false;
        }
        let mnode = &self.mnodes[self.local_rie(rie)];
        mnode.awaits(generation, attempt) && !mnode.dto
    }

    /// The request must fit what this controller knows; the primary is checked as any outside is.
    fn check_rqr(&self, rqr: &Rqr) -> Result<List<Option<BufferIndex>, ATOMIC_GRANULES>, Violation> {
        let partner = self.partner();
        if rqr.start.0 >= 1 << 48 || rqr.blocks.0 == 0 || rqr.blocks.0 > ATOMIC_BLOCKS {
            return Err(Violation("a request to mirror that makes no sense"));
        }
        let count = granules(rqr.start.0, rqr.blocks.0);
        let carried = rqr.valid != 0 && count == 1 && rqr.old.is_empty();
        let sound = self.mirrors()
            && (rqr.valid == u8::MAX || carried)
            && self.geometry().pair_of_rie(rqr.rie) == Some(partner)
            && rqr.new.len() == count
            && rqr.ncae.index() < crate::ids::LUNS_MAX;
        if !sound {
            return Err(Violation("a request to mirror that makes no sense"));
        }
        if self.mnodes[self.local_rie(rqr.rie)].stage != MnodeStage::AwaitRqr {
            return Err(Violation("a request for an RIE in use"));
        }
        for new in rqr.new.iter() {
            let free = self.geometry().pair_of(*new) == Some(partner)
                && self.words.bmae(*new).is_ok_and(|b| b.state == BmaeState::Free);
            if !free {
                return Err(Violation("a new buffer that is not free"));
            }
        }
        self.place_old(rqr, count)
    }

    fn place_old(&self, rqr: &Rqr, count: usize) -> Result<List<Option<BufferIndex>, ATOMIC_GRANULES>, Violation> {
        let mut placed = [None; ATOMIC_GRANULES];
        let first = rqr.start.0 / u64::from(BUFFER_BLOCKS);
        for old in rqr.old.iter() {
            let valid = self.geometry().pair_of(*old).is_some()
                && self
                    .words
                    .bmae(*old)
                    .is_ok_and(|b| b.state == BmaeState::WbValid && b.index == rqr.ncae.0);
            let start = valid.then(|| self.words.bmae_start(*old).ok()).flatten();
            let at = start.map_or(usize::MAX, |s| {
                (s.0 / u64::from(BUFFER_BLOCKS)).wrapping_sub(first) as usize
            });
            if at >= count || placed[at].is_some() {
                return Err(Violation("an old buffer that holds nothing of the range"));
            }
            placed[at] = Some(*old);
        }
        Ok(placed[..count].iter().copied().collect())
    }

    /// [0098] on the mirror: from here to its commit a crash leaves the old data.
    fn stage_mirror_nv(&mut self, m: usize) -> Result<(), Violation> {
        let Mnode { rqr, old, .. } = self.mnodes[m];
        let rqr = rqr.expect("a request");
        // The metadata that bring the LUN may still be on their way here.
        self.store_ncae(rqr.ncae, Some(rqr.noid));
        self.stage_rie(rqr.rie, rqr.generation, rqr.ncae, rqr.start, rqr.blocks);
        let first = rqr.start.0 / u64::from(BUFFER_BLOCKS);
        for (number, (new, old)) in (first..).zip(rqr.new.iter().zip(old.iter())) {
            let mut mask = crate::htb::mask_in_granule(number, rqr.start.0, rqr.blocks.0) & rqr.valid;
            if let Some(old) = old {
                let merged = self.words.bmae(*old).map_err(|_| Violation("a damaged word"))?.mask;
                mask |= merged;
                self.store_bmae(*old, Bmae::provisional_wb_not(rqr.rie, merged));
            }
            if self.bmae(*new).state != BmaeState::Free {
                return Err(Violation("a new buffer that is named twice"));
            }
            self.store_start(*new, crate::ids::Vba(number * u64::from(BUFFER_BLOCKS)));
            self.store_bmae(*new, Bmae::provisional_wb(rqr.rie, mask));
        }
        Ok(())
    }

    /// 675: ready to receive.
    fn send_rtr(&mut self, m: usize) {
        let rqr = self.mnodes[m].rqr.expect("a request");
        let (rie, generation) = (rqr.rie, rqr.generation);
        self.link.request(Mfcd::Rtr { rie, generation });
    }

    /// 710: the data are here.
    pub(crate) fn on_mirror_data(
        &mut self,
        rie: RieIndex,
        generation: RieGeneration,
        attempt: u8,
        payload: BlockCount,
    ) -> Result<(), Violation> {
        if self.geometry().pair_of_rie(rie) != Some(self.partner()) {
            return Err(Violation("data for an RIE that is not the primary's"));
        }
        if !self.is_armed(rie, generation, attempt) {
            // For an exchange that is over: refused, counted, harmless.
            mark!("mirror data are stale");
            self.stale += 1;
            return Ok(());
        }
        self.absorb(self.local_rie(rie), payload)
    }

    fn absorb(&mut self, m: usize, payload: BlockCount) -> Result<(), Violation> {
        let Mnode { rqr, old, .. } = self.mnodes[m];
        let rqr = rqr.expect("a request");
        if payload != rqr.blocks {
            return Err(Violation("data of another length than requested"));
        }
        let into = Memory::Buffers(sgl(rqr.start.0, rqr.blocks.0, &rqr.new));
        if mutant::is("commit-before-the-last-buffer") {
            self.commit_mirror(m);
        }
        self.effects.push(Effect::Absorb { into });
        let old = if mutant::is("mirror-does-not-merge") {
            old.iter().map(|_| None).collect()
        } else {
            old
        };
        self.merge_and_seal(rqr.start.0, rqr.blocks.0, &rqr.new, &old);
        if !mutant::is("commit-before-the-last-buffer") {
            self.commit_mirror(m);
        }
        Ok(())
    }

    /// The commit on the mirror: one store.
    fn commit_mirror(&mut self, m: usize) {
        let rqr = self.mnodes[m].rqr.expect("a request");
        let rie = Rie {
            state: RieState::Valid,
            generation: rqr.generation,
            ncae: rqr.ncae,
        };
        self.store_rie(rqr.rie, rie);
        self.mnodes[m].stage = MnodeStage::AwaitPersist;
        let token = self.mnode_token(m, rqr.generation);
        self.effects.push(Effect::Persist { token });
        if mutant::is("mda-before-it-is-durable") {
            self.on_mirror_persisted(m);
        }
    }

    /// The commit is durable: the BMAEs get their final state, and the primary hears of it. The RIE stays Valid, which
    /// says that this use of it was absorbed (R6 asks for that).
    pub(crate) fn on_mirror_persisted(&mut self, m: usize) {
        let Mnode { rqr, old, .. } = self.mnodes[m];
        let rqr = rqr.expect("a request");
        for (new, old) in rqr.new.iter().zip(old.iter()) {
            let mask = self.bmae(*new).mask;
            self.store_bmae(*new, Bmae::wb_valid(rqr.ncae, mask));
            if let Some(old) = old.filter(|_| !mutant::is("mirror-keeps-old-valid")) {
                self.store_bmae(old, Bmae::FREE);
            }
        }
        self.mnodes[m].stage = MnodeStage::AwaitRqr;
        self.send_mda(rqr.rie, rqr.generation);
    }

    fn send_mda(&mut self, rie: RieIndex, generation: RieGeneration) {
        // R3: a mirror that suspects its partner says nothing that would let it acknowledge.
        if self.mirrors() {
            self.link.request(Mfcd::Mda { rie, generation });
        }
    }

    /// The write will not happen: the old data stay.
    pub(crate) fn on_withdraw(&mut self, rie: RieIndex, generation: RieGeneration) -> Result<(), Violation> {
        if self.geometry().pair_of_rie(rie) != Some(self.partner()) {
            return Err(Violation("a withdrawal of an RIE that is not the primary's"));
        }
        let m = self.local_rie(rie);
        let Mnode { stage, rqr, .. } = self.mnodes[m];
        if stage != MnodeStage::AwaitMirrorData || rqr.is_none_or(|r| r.generation != generation) {
            return Err(Violation("a withdrawal of a write that is not in progress"));
        }
        self.disarm(m);
        Ok(())
    }

    /// The reception is given up, and with it the write: the old data stay.
    fn disarm(&mut self, m: usize) {
        let Mnode { rqr, old, .. } = self.mnodes[m];
        let rqr = rqr.expect("a request");
        for (new, old) in rqr.new.iter().zip(old.iter()) {
            self.store_bmae(*new, Bmae::FREE);
            if let Some(old) = old {
                let mask = self.bmae(*old).mask;
                self.store_bmae(*old, Bmae::wb_valid(rqr.ncae, mask));
            }
        }
        let unused = Rie {
            state: RieState::Unused,
            generation: rqr.generation,
            ncae: rqr.ncae,
        };
        self.store_rie(rqr.rie, unused);
        if !mutant::is("leak-an-mnode") {
            self.mnodes[m].stage = MnodeStage::AwaitRqr;
        }
    }

    /// Says which data are late (DTO). Each time it waits twice as long before it asks again, so that a slow link does
    /// not make the same data come over and over.
    pub(crate) fn ask_for_late_data(&mut self) {
        if !self.mirrors() || !self.link.is_up() {
            return;
        }
        for m in 0..self.mnodes.len() {
            let mnode = self.mnodes[m];
            let limit = Nanos(self.config.timing.mirror_data.0 << mnode.late.min(6));
            if mnode.stage != MnodeStage::AwaitMirrorData || mnode.dto || self.now.since(mnode.armed) < limit {
                continue;
            }
            let rqr = mnode.rqr.expect("a request");
            self.mnodes[m].dto = true;
            self.mnodes[m].late = mnode.late.saturating_add(1);
            let (rie, generation) = (rqr.rie, rqr.generation);
            self.link.request(Mfcd::Dto { rie, generation });
        }
    }

    /// What became of the late data (DSS).
    pub(crate) fn on_dss(
        &mut self,
        rie: RieIndex,
        generation: RieGeneration,
        attempt: u8,
        status: SendStatus,
    ) -> Result<(), Violation> {
        if self.geometry().pair_of_rie(rie) != Some(self.partner()) {
            return Err(Violation("a send status of an RIE that is not the primary's"));
        }
        let m = self.local_rie(rie);
        let mnode = &mut self.mnodes[m];
        if !mnode.dto || !mnode.awaits(generation, attempt) {
            mark!("a DSS is stale");
            self.stale += 1;
            return Ok(());
        }
        mnode.dto = false;
        mnode.armed = self.now;
        match status {
            SendStatus::NotYetSent => {}
            SendStatus::Sent => {
                mnode.attempt = attempt.wrapping_add(1);
                self.send_rtr(m);
            }
            SendStatus::Aborted => self.disarm(m),
        }
        Ok(())
    }

    /// Whether any reception is armed.
    pub(crate) fn awaits_mirror_data(&self) -> bool {
        self.mnodes.iter().any(|m| m.stage == MnodeStage::AwaitMirrorData)
    }

    /// The data of these buffers are on disk for good: their twins are free.
    pub(crate) fn on_release(&mut self, buffers: &List<BufferIndex, RELEASE_MAX>) -> Result<(), Violation> {
        for buffer in buffers.iter() {
            let valid = self.geometry().pair_of(*buffer) == Some(self.partner())
                && self.words.bmae(*buffer).is_ok_and(|b| b.state == BmaeState::WbValid);
            if !valid {
                return Err(Violation("a release of a buffer that is not valid"));
            }
            self.store_bmae(*buffer, Bmae::FREE);
        }
        Ok(())
    }
}
