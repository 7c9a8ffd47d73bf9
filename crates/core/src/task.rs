//! What an operator asks for: one task at a time, in stages, each of which a crash leaves done or undone.
//!
//! Metadata are changed by one controller only, the *coordinator*: A while both are in, else the one that is in. A LUN is
//! moved by its owner. What the partner has to do is asked of it by an extended call [0072].

use crate::cell::Phase;
use crate::cell::ballot::Change;
use crate::cell::record::{MetadataName, Mode};
use crate::controller::{Core, InFlight, Io};
use crate::effect::{Effect, Note};
use crate::event::DiskError;
use crate::forward::Call;
use crate::htb::Stage as HtbStage;
use crate::ids::{Controller, DiskIndex, Epoch, Incarnation, Nanos, NcaeIndex, RequestId, Time, Uuid};
use crate::layout::allocate::allocate;
use crate::layout::metadata::{DiskState, Lun, Metadata, Name, PsegAddress, Redundancy};
use crate::link::frame::{Mfc, Request, Response, XmfcId};
use crate::manage::{ManageError, ManageOp, ManageReply};
use crate::mark::mark;
use crate::mutant;
use crate::zeroes::{Zeroed, Zeroes};

/// A LUN with no more dirty buffers than this is quiesced; the rest takes milliseconds (R11).
const FEW_BUFFERS: u32 = 64;
/// Until then its writes are answered once they are on disk, so that there are fewer and fewer. After this long it is quiesced all the
/// same.
const DRAIN_PATIENCE: Nanos = Nanos::from_millis(5000);
/// A host that is still to send the data of a write when its LUN has been held back for so long loses its connection: it holds up all
/// others.
const HELD_BACK_FOR: Nanos = Nanos::from_millis(2000);

/// Who asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Asker {
    Operator(RequestId),
    Partner(XmfcId),
    /// This controller, of itself.
    Nobody,
}

/// Which LUNs a task takes out of service for a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Luns {
    One(NcaeIndex),
    All,
}

impl Luns {
    fn covers(self, ncae: NcaeIndex) -> bool {
        match self {
            Luns::One(n) => n == ncae,
            Luns::All => true,
        }
    }
}

/// What a task waits for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Stage {
    /// New PSEGs being zeroed.
    AwaitZeroes(Zeroes),
    /// That the slots tell the record in force: then new metadata may go over those of the one before.
    AwaitDecided,
    /// The new metadata on the quorum disks: how many writes are in flight, and how many were good.
    AwaitMetadata { in_flight: usize, good: usize },
    /// The partner, which is to move the LUN here.
    AwaitMove { call: u32 },
    /// The partner, which cannot move the LUN and is to do nothing with it any more: it is to be deleted.
    AwaitHold { call: u32, incarnation: Incarnation },
    /// The partner, which decides and deletes the LUN: this controller, its owner, does nothing with it meanwhile.
    Hold { luns: Luns },
    /// The partner, which is to say whether it sees the disks: it is to go on alone.
    AwaitSight { call: u32 },
    /// That the LUNs have no data in NV memory; once they are quiesced, commands for them wait. Since when they are, or are not.
    AwaitDrain { luns: Luns, since: Time, quiesced: bool },
    /// That the partner has heard of every release: then its image holds nothing of the LUNs, either.
    AwaitReleases {
        luns: Luns,
        sent: u64,
        incarnation: Incarnation,
    },
    /// The ballot.
    AwaitCommit { luns: Option<Luns>, change: Change },
    /// That the partner goes by the new record, too, and has heard of what was discarded with a LUN.
    AwaitAdopted {
        epoch: Epoch,
        sent: u64,
        incarnation: Incarnation,
    },
    /// The partner, which carries it out.
    AwaitPartner { call: u32 },
    /// What the partner says of the disk that is to change its state.
    AwaitWord { call: u32 },
}

/// A task.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Task {
    asker: Asker,
    op: ManageOp,
    stage: Stage,
    reply: ManageReply,
    /// The change that it wants was in force; another may be by now.
    committed: bool,
    /// What the partner has answered while this was interrupted.
    answered: Option<Result<ManageReply, ManageError>>,
}

impl Task {
    fn new(asker: Asker, op: ManageOp, stage: Stage, reply: ManageReply) -> Task {
        Task {
            asker,
            op,
            stage,
            reply,
            committed: false,
            answered: None,
        }
    }

    /// Whether it waits for the answer to this call. One that was answered while it was interrupted does not, for others may
    /// have its call by now.
    fn awaits(&self, answered: u32) -> bool {
        let is_answered = self.answered.is_some() && !mutant::is("who-is-answered-still-waits");
        match self.stage {
            Stage::AwaitMove { call }
            | Stage::AwaitHold { call, .. }
            | Stage::AwaitSight { call }
            | Stage::AwaitPartner { call }
            | Stage::AwaitWord { call } => call == answered && !is_answered,
            _ => false,
        }
    }
}

impl Core {
    /// An operator asks.
    pub(crate) fn on_manage(&mut self, request: RequestId, op: ManageOp) {
        let asker = Asker::Operator(request);
        let decides = matches!(self.phase, Phase::Deciding | Phase::Fencing | Phase::Leaving);
        if op == ManageOp::Stop && !self.is_serving() && !decides {
            // Nothing is served; what NV memory holds stays there.
            self.answer(asker, Ok(ManageReply::Stopping));
            return self.halt();
        }
        if let ManageOp::AcceptLoss { missing } = op {
            let result = self.accept_loss(missing);
            return self.answer(asker, result);
        }
        self.begin_task(asker, op);
    }

    /// The partner asks on behalf of its operator.
    pub(crate) fn on_managed_for_partner(&mut self, id: XmfcId, op: ManageOp) {
        if op == ManageOp::SeesDisks {
            if let Err(id) = self.sight.asked.try_push(id) {
                self.answer(Asker::Partner(id), Err(ManageError::Busy));
            }
            return;
        }
        if let ManageOp::DiskReturned { .. } | ManageOp::DiskLevel { .. } = op {
            let word = self.word_on_disk(&op);
            return self.answer(Asker::Partner(id), word);
        }
        if self.is_given_back(&op) {
            self.end_task(Ok(ManageReply::Done));
        }
        self.begin_task(Asker::Partner(id), op);
    }

    fn begin_task(&mut self, asker: Asker, op: ManageOp) {
        let stage = if op == ManageOp::Stop && !self.is_serving() {
            // What this controller is to be is being decided: soon it can stop cleanly.
            Err(ManageError::Busy)
        } else if !self.is_serving() {
            Err(ManageError::NotServing)
        } else if !self.may_begin(asker, &op) {
            Err(ManageError::Busy)
        } else if self.is_for_partner(asker, &op) {
            self.ask_partner(asker, op)
        } else {
            self.first_stage(op)
        };
        match stage {
            Err(error) => self.answer(asker, Err(error)),
            Ok(Step::Done(reply)) => self.answer(asker, Ok(reply)),
            Ok(Step::Wait(stage, reply)) => {
                self.interrupted
                    .extend(self.task.replace(Task::new(asker, op, stage, reply)));
            }
        }
    }

    fn answer(&mut self, asker: Asker, result: Result<ManageReply, ManageError>) {
        match asker {
            Asker::Operator(request) => {
                self.effects.push(Effect::Reply { request, result });
                if mutant::is("an-operator-hears-twice") {
                    self.effects.push(Effect::Reply { request, result });
                }
            }
            Asker::Partner(id) => self.answer_partner(id, result),
            Asker::Nobody => {}
        }
    }

    pub(crate) fn answer_partner(&mut self, id: XmfcId, result: Result<ManageReply, ManageError>) {
        let response = Response::Managed(result);
        self.link.send(Mfc::Response { id, response });
    }

    /// Those in force, to be changed, under a name of their own: no other process, and no other task of this one, gives the same.
    fn next_metadata(&self) -> Metadata {
        let mixed = (self.config.instance.0 as u64)
            .wrapping_add(self.now.0)
            .wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let name = self.record.map_or(MetadataName::default(), |r| r.metadata);
        let mut next = self.metadata.clone().expect("whoever serves has metadata");
        next.generation = name.next_generation((mixed >> 32) as u32);
        next
    }

    /// Whether a task here is about to change the metadata: who would stop being the coordinator finishes it first.
    pub(crate) fn changes_metadata(&self) -> bool {
        // Where PSEGs are zeroed the partner must not give them away: A decides on.
        let gives_away = self.own() != Controller::A;
        self.new_metadata.is_some() || gives_away && (self.zeroes().is_some() || self.may_more_land())
    }

    /// Whether zeroes or metadata are under way to a disk, though the task that wanted them has ended: the partner knows nothing of
    /// them, and no fence is between the two. Those for a disk that was given up may stay so for ever, and are waited for before
    /// it comes back.
    fn may_more_land(&self) -> bool {
        let is_late = |io: &Io| match io {
            Io::Zero { .. } => !mutant::is("whoever-joins-knows-of-late-zeroes"),
            Io::MetadataWrite { .. } => !mutant::is("whoever-joins-knows-of-late-metadata"),
            _ => false,
        };
        let metadata = self.metadata.as_ref();
        let is_missing = |d| metadata.and_then(|m| m.state_of(d)) == Some(DiskState::Missing);
        let counts =
            |i: &InFlight| !i.io.disk().is_some_and(is_missing) || mutant::is("what-a-missing-disk-is-to-take-counts");
        self.ios.iter().any(|(_, i)| counts(i) && is_late(&i.io))
    }

    /// The partner that asked for the task cannot hear the answer any more.
    pub(crate) fn forget_asker(&mut self) {
        self.sight.asked.clear();
        for task in self.task.iter_mut().chain(&mut self.interrupted) {
            if asker_is_partner(task.asker) {
                task.asker = Asker::Nobody;
            }
        }
    }

    /// Whether a change of the metadata may be begun: this controller decides, and no record that would let its partner decide
    /// can be the next one. Two who write new metadata write them to the same place.
    fn may_change_metadata(&self) -> bool {
        let soon_the_partner = self.own() != Controller::A && self.may_have_proposed_both();
        self.coordinator() == self.own() && !soon_the_partner || mutant::is("both-change-the-metadata")
    }

    pub(crate) fn coordinator(&self) -> Controller {
        match self.mode() {
            Some(Mode::Both) => Controller::A,
            _ => self.own(),
        }
    }

    fn is_for_partner(&self, asker: Asker, op: &ManageOp) -> bool {
        match op {
            ManageOp::Stop | ManageOp::AcceptLoss { .. } | ManageOp::SeesDisks => false,
            ManageOp::LunMove { name, .. } => self.lun_named(name).is_some_and(|l| !self.owns(l.ncae)),
            // The one that decides asks for the owner's part.
            ManageOp::LunDelete { name }
                if asker_is_partner(asker) && self.lun_named(name).is_some_and(|l| self.owns(l.ncae)) =>
            {
                false
            }
            _ => self.coordinator() != self.own(),
        }
    }

    fn lun_named(&self, name: &Name) -> Option<&Lun> {
        self.metadata.as_ref()?.lun_named(name)
    }

    fn ask_partner(&mut self, asker: Asker, op: ManageOp) -> Result<Step, ManageError> {
        if asker_is_partner(asker) || !self.link.is_up() || self.calls.free() == 0 {
            return Err(ManageError::Busy);
        }
        let call = self.call_partner(op);
        Ok(Step::Wait(Stage::AwaitPartner { call }, ManageReply::Done))
    }

    /// Asks the partner; the caller looked whether there is a call left.
    pub(crate) fn call_partner(&mut self, op: ManageOp) -> u32 {
        let (index, generation) = self.calls.take(Call::Manage);
        let id = XmfcId {
            index: index as u16,
            generation: generation as u16,
        };
        let request = Request::Manage(op);
        self.link.send(Mfc::Request { id, request });
        index
    }

    /// The partner has answered a call, or cannot any more.
    pub(crate) fn on_managed_by_partner(&mut self, call: u32, result: Result<ManageReply, ManageError>) {
        if self.on_sight(call, result) {
            return;
        }
        match self.interrupted.iter_mut().find(|t| t.awaits(call)) {
            Some(interrupted) => interrupted.answered = Some(result),
            None if self.task.as_ref().is_some_and(|t| t.awaits(call)) => self.on_answer(result),
            None => {}
        }
    }

    fn on_answer(&mut self, result: Result<ManageReply, ManageError>) {
        let Some(task) = &mut self.task else { return };
        match (&task.stage, result) {
            (Stage::AwaitMove { .. }, Ok(_)) => self.begin_drain_of_task(),
            (Stage::AwaitMove { .. }, Err(ManageError::AwaitsDisk)) => self.ask_to_hold(),
            (Stage::AwaitHold { incarnation, .. }, Ok(_)) => {
                let incarnation = *incarnation;
                self.delete_held_lun(incarnation)
            }
            (Stage::AwaitWord { .. }, Ok(_)) => self.on_word(),
            (Stage::AwaitSight { .. }, Err(ManageError::DiskError)) => self.end_task(result),
            // One that cannot say so is not asked again: whoever has gone does not go on alone.
            (Stage::AwaitSight { .. }, _) => self.stop_anew(),
            _ => self.end_task(result),
        }
    }

    fn end_task(&mut self, result: Result<ManageReply, ManageError>) {
        if let Some(task) = self.task.take() {
            // What was put aside because its LUN would be deleted.
            self.cache.take_up();
            self.new_metadata = None;
            self.task = self.interrupted.pop();
            (self.turn_may_have_come, self.task_moves) = (true, true);
            self.effects.push(Effect::ViewChanged);
            if task.op == ManageOp::Stop
                && result.is_err()
                && self.is_serving()
                && !mutant::is("closed-after-a-refused-stop")
            {
                // Hosts may have been shut out meanwhile.
                self.effects.push(Effect::Serve);
            }
            self.answer(task.asker, result);
        }
    }

    fn first_stage(&mut self, op: ManageOp) -> Result<Step, ManageError> {
        match op {
            ManageOp::LunCreate {
                name,
                uuid,
                blocks,
                redundancy,
            } => self.create_lun(name, uuid, blocks, redundancy),
            ManageOp::LunGrow { name, blocks } => self.grow_lun(name, blocks),
            ManageOp::LunRename { name, to } => self.rename_lun(name, to),
            ManageOp::LunDelete { name } => self.delete_lun(name),
            ManageOp::LunMove { name, to } => self.move_lun(name, to),
            ManageOp::DiskMissing { disk } => self.give_up_disk(disk),
            ManageOp::DiskReturned { .. } | ManageOp::DiskLevel { .. } => self.begin_disk_change(op),
            ManageOp::DiskReplace { disk, uuid, psegs } => self.replace_disk(disk, uuid, psegs),
            ManageOp::AcceptLoss { .. } => Err(ManageError::NothingToAccept),
            // Answered at once where the partner asks; nobody else does.
            ManageOp::SeesDisks => Err(ManageError::Busy),
            ManageOp::Stop => Ok(self.stop()),
        }
    }

    // ---- LUNs ----

    fn create_lun(&mut self, name: Name, uuid: Uuid, blocks: u64, redundancy: Redundancy) -> Result<Step, ManageError> {
        let metadata = self.metadata.as_ref().ok_or(ManageError::NotServing)?;
        if let Some(lun) = metadata.lun_named(&name) {
            let alike = lun.blocks == blocks && lun.redundancy == redundancy;
            let (noid, ncae, already) = (lun.noid, lun.ncae, true);
            return if alike {
                Ok(Step::Done(ManageReply::Lun { noid, ncae, already }))
            } else {
                Err(ManageError::NameTaken)
            };
        }
        let ncae = metadata.free_ncae().ok_or(ManageError::TooManyLuns)?;
        let noid = metadata.next_noid;
        let psegs = allocate(metadata, redundancy, Lun::rstores_for(blocks)).map_err(pool_full)?;
        let lun = Lun {
            noid,
            ncae,
            name,
            uuid,
            blocks,
            redundancy,
            psegs: psegs.clone(),
        };
        let already = false;
        let noid = if mutant::is("reply-with-the-next-noid") {
            noid.next()
        } else {
            noid
        };
        self.zero(psegs, Zeroed::Lun(lun), ManageReply::Lun { noid, ncae, already })
    }

    fn grow_lun(&mut self, name: Name, blocks: u64) -> Result<Step, ManageError> {
        let metadata = self.metadata.as_ref().ok_or(ManageError::NotServing)?;
        let lun = metadata.lun_named(&name).ok_or(ManageError::NoSuchLun)?;
        if blocks == lun.blocks {
            return Ok(Step::Done(ManageReply::Done));
        }
        if blocks < lun.blocks {
            return Err(ManageError::Shrink { blocks: lun.blocks });
        }
        let more = Lun::rstores_for(blocks) - Lun::rstores_for(lun.blocks);
        let psegs = allocate(metadata, lun.redundancy, more).map_err(pool_full)?;
        self.zero(psegs, Zeroed::More { name, blocks }, ManageReply::Done)
    }

    fn rename_lun(&mut self, name: Name, to: Name) -> Result<Step, ManageError> {
        if self.lun_named(&name).is_none() {
            return Err(ManageError::NoSuchLun);
        }
        if name == to {
            return Ok(Step::Done(ManageReply::Done));
        }
        if self.lun_named(&to).is_some() {
            return Err(ManageError::NameTaken);
        }
        let mut next = self.next_metadata();
        let lun = next.luns.iter_mut().find(|l| l.name == name);
        lun.ok_or(ManageError::NoSuchLun)?.name = to;
        self.change_metadata(next, ManageReply::Done)
    }

    /// A LUN is deleted by its owner: it comes here first, then it is quiesced and drained.
    fn delete_lun(&mut self, name: Name) -> Result<Step, ManageError> {
        let lun = self.lun_named(&name).ok_or(ManageError::NoSuchLun)?;
        let ncae = lun.ncae;
        if self.owns(ncae) {
            return Ok(self.drain(Luns::One(ncae), ManageReply::Done));
        }
        if !self.link.is_up() || self.calls.free() == 0 {
            return Err(ManageError::Busy);
        }
        let to = self.own();
        let call = self.call_partner(ManageOp::LunMove { name, to });
        Ok(Step::Wait(Stage::AwaitMove { call }, ManageReply::Done))
    }

    /// The partner has data of the LUN that wait for a dead disk, and so it cannot move it. It need not, if it does nothing with
    /// the LUN any more until that is gone: it takes this as its part of the deletion.
    fn ask_to_hold(&mut self) {
        let can = self.link.is_up() && self.calls.free() > 0;
        match self.task.as_ref().map(|t| t.op) {
            Some(op @ ManageOp::LunDelete { .. }) if can && !mutant::is("only-its-owner-deletes-a-lun") => {
                let call = self.call_partner(op);
                let incarnation = self.link.incarnation();
                self.set_stage(Stage::AwaitHold { call, incarnation });
            }
            _ => self.end_task(Err(ManageError::AwaitsDisk)),
        }
    }

    /// The partner holds the LUN: nothing of it is answered, or written to disk. From here on neither is it here, should the
    /// partner fall (`is_being_deleted`).
    fn delete_held_lun(&mut self, incarnation: Incarnation) {
        let Some(ManageOp::LunDelete { name }) = self.task.as_ref().map(|t| t.op) else {
            return;
        };
        let is_met = self.link.is_up() && self.link.incarnation() == incarnation;
        if !is_met || self.lun_named(&name).is_none() {
            // While this task was interrupted the partner fell, and holds nothing any more.
            return self.end_task(Err(ManageError::Busy));
        }
        let next = self.metadata_without(name);
        match self.change_metadata(next, ManageReply::Done) {
            Ok(Step::Wait(stage, _)) => self.set_stage(stage),
            Ok(Step::Done(reply)) => self.end_task(Ok(reply)),
            Err(error) => self.end_task(Err(error)),
        }
    }

    fn metadata_without(&self, name: Name) -> Metadata {
        let mut next = self.next_metadata();
        next.luns.retain(|l| l.name != name);
        next
    }

    /// The metadata could not be written. A LUN that the partner holds is its again: it hears of that before anything else.
    fn fail_metadata(&mut self) {
        if let Some(ManageOp::LunDelete { name }) = self.task.as_ref().map(|t| t.op)
            && self.lun_named(&name).is_some_and(|l| !self.owns(l.ncae))
            && self.link.is_up()
        {
            if self.calls.free() == 0 {
                // It waits for one.
                return;
            }
            let to = self.partner();
            self.call_partner(ManageOp::LunMove { name, to });
        }
        self.end_task(Err(ManageError::DiskError));
    }

    /// Whether the partner, which was to delete a LUN that this controller holds, says that it stays where it is.
    fn is_given_back(&self, op: &ManageOp) -> bool {
        let ManageOp::LunMove { name, to } = *op else {
            return false;
        };
        let holds = |t: &Task| t.op == ManageOp::LunDelete { name } && matches!(t.stage, Stage::Hold { .. });
        to == self.own() && self.task.as_ref().is_some_and(holds)
    }

    fn move_lun(&mut self, name: Name, to: Controller) -> Result<Step, ManageError> {
        let lun = self.lun_named(&name).ok_or(ManageError::NoSuchLun)?;
        let ncae = lun.ncae;
        if self.owner(ncae) == to {
            return Ok(Step::Done(ManageReply::Done));
        }
        if self.mode() != Some(Mode::Both) {
            return Err(ManageError::ControllerOut);
        }
        Ok(self.drain(Luns::One(ncae), ManageReply::Done))
    }

    /// A disk is missing from here on: nothing is read from it, nothing has to be written to it.
    fn give_up_disk(&mut self, disk: DiskIndex) -> Result<Step, ManageError> {
        let metadata = self.metadata.as_ref().ok_or(ManageError::NotServing)?;
        let Some(state) = metadata.disks.get(disk.index()).map(|d| d.state) else {
            return Err(ManageError::DiskError);
        };
        if !state.is_written() {
            return Ok(Step::Done(ManageReply::Done));
        }
        if has_last_copy(metadata, disk) {
            return Err(ManageError::LastCopy);
        }
        mark!("a disk is given up");
        if state == DiskState::Merging {
            mark!("a merging disk is given up");
        }
        self.set_disk_state(disk, DiskState::Missing)
    }

    fn set_disk_state(&mut self, disk: DiskIndex, state: DiskState) -> Result<Step, ManageError> {
        let mut next = self.next_metadata();
        next.disks[disk.index()].state = state;
        self.change_metadata(next, ManageReply::Done)
    }

    /// Another medium in the place of a missing disk. What had one copy there would be lost with it: such LUNs are deleted
    /// first.
    fn replace_disk(&mut self, disk: DiskIndex, uuid: Uuid, psegs: u32) -> Result<Step, ManageError> {
        let metadata = self.metadata.as_ref().ok_or(ManageError::NotServing)?;
        let old = metadata.disks.get(disk.index()).ok_or(ManageError::DiskNotReady)?;
        if old.uuid == uuid {
            return Ok(Step::Done(ManageReply::Done));
        }
        if old.state != DiskState::Missing || metadata.disks.iter().any(|d| d.uuid == uuid) {
            return Err(ManageError::DiskNotReady);
        }
        if metadata.has_single_copies(disk) {
            return Err(ManageError::LastCopy);
        }
        let used = metadata.luns.iter().flat_map(|l| &l.psegs).filter(|p| p.disk == disk);
        let needed = used.map(|p| p.pseg.0 + 1).max().unwrap_or(0);
        if psegs < needed {
            let (needed, free) = (needed.into(), psegs.into());
            return Err(ManageError::PoolFull { needed, free });
        }
        let mut next = self.next_metadata();
        (next.disks[disk.index()].uuid, next.disks[disk.index()].psegs) = (uuid, psegs);
        self.change_metadata(next, ManageReply::Done)
    }

    /// A missing disk is to be made level, or one that is level to be used. The partner is asked where it has a say: of a disk
    /// that returns always, of one that is level where it owns something.
    fn begin_disk_change(&mut self, op: ManageOp) -> Result<Step, ManageError> {
        let asks = match op {
            ManageOp::DiskLevel { disk, .. } => !self.is_all_level(disk),
            _ => true,
        };
        if !asks || self.mode() != Some(Mode::Both) || mutant::is("nobody-asks-the-partner-of-disks") {
            return self.change_disk(op);
        }
        self.word_on_disk(&op)?;
        if !self.link.is_up() || self.calls.free() == 0 {
            return Err(ManageError::Busy);
        }
        let call = self.call_partner(op);
        Ok(Step::Wait(Stage::AwaitWord { call }, ManageReply::Done))
    }

    /// The partner has nothing against it.
    fn on_word(&mut self) {
        let Some(op) = self.task.as_ref().map(|t| t.op) else {
            return;
        };
        if let ManageOp::DiskLevel { disk, epoch } = op {
            self.partner_is_level(disk, epoch);
        }
        match self.change_disk(op) {
            Ok(Step::Wait(stage, _)) => self.set_stage(stage),
            Ok(Step::Done(reply)) => self.end_task(Ok(reply)),
            Err(error) => self.end_task(Err(error)),
        }
    }

    /// The change itself, if it is still right.
    fn change_disk(&mut self, op: ManageOp) -> Result<Step, ManageError> {
        match op {
            ManageOp::DiskReturned { disk } => {
                self.word_on_disk(&op)?;
                mark!("a missing disk is made level");
                self.set_disk_state(disk, DiskState::Merging)
            }
            ManageOp::DiskLevel { disk, .. } if self.is_all_level(disk) => {
                mark!("a merging disk is level");
                self.set_disk_state(disk, DiskState::Normal)
            }
            _ => Err(ManageError::DiskNotReady),
        }
    }

    /// Metadata that follow those in force: they are written, and then the record names them.
    fn change_metadata(&mut self, next: Metadata, reply: ManageReply) -> Result<Step, ManageError> {
        if !self.may_change_metadata() {
            return Err(ManageError::Busy);
        }
        self.new_metadata = Some(next);
        Ok(Step::Wait(Stage::AwaitDecided, reply))
    }

    /// New PSEGs read as zero before anybody can see them; then the metadata that name them are written.
    fn zero(&mut self, psegs: Vec<PsegAddress>, zeroed: Zeroed, reply: ManageReply) -> Result<Step, ManageError> {
        if !self.do_disks_answer(&psegs) {
            // Earlier zeroes may still be on their way there.
            return Err(ManageError::AwaitsDisk);
        }
        if !self.may_change_metadata() {
            return Err(ManageError::Busy);
        }
        Ok(Step::Wait(Stage::AwaitZeroes(Zeroes::new(psegs, zeroed)), reply))
    }

    fn do_disks_answer(&self, psegs: &[PsegAddress]) -> bool {
        psegs.iter().all(|p| self.disks.answers(p.disk)) || mutant::is("zero-where-zeroes-are-late")
    }

    fn drain(&mut self, luns: Luns, reply: ManageReply) -> Step {
        let (since, quiesced) = (self.now, false);
        Step::Wait(Stage::AwaitDrain { luns, since, quiesced }, reply)
    }

    fn begin_drain_of_task(&mut self) {
        let Some(task) = &self.task else { return };
        let ManageOp::LunDelete { name } = task.op else { return };
        let Some(ncae) = self.lun_named(&name).map(|l| l.ncae) else {
            return self.end_task(Err(ManageError::NoSuchLun));
        };
        self.set_stage(Stage::AwaitDrain {
            luns: Luns::One(ncae),
            since: self.now,
            quiesced: false,
        });
    }

    fn set_stage(&mut self, stage: Stage) {
        if let Some(task) = &mut self.task {
            task.stage = stage;
            self.task_moves = true;
            if matches!(task.op, ManageOp::LunDelete { .. }) {
                // Hosts are told from when on it takes no more commands.
                self.effects.push(Effect::ViewChanged);
            }
        }
    }

    // ---- stopping ----

    /// With the partner in, the LUNs go there, if it sees the disks; alone, everything goes to disk. Hosts use the other path
    /// meanwhile.
    fn stop(&mut self) -> Step {
        if self.is_write_through() {
            self.effects.push(Effect::CloseHosts);
        } else if self.link.is_up() && self.calls.free() > 0 && !mutant::is("leave-all-to-a-blind-partner") {
            let call = self.call_partner(ManageOp::SeesDisks);
            return Step::Wait(Stage::AwaitSight { call }, ManageReply::Stopping);
        }
        self.drain(Luns::All, ManageReply::Stopping)
    }

    /// Whether this controller is about to stop.
    pub(crate) fn is_stopping(&self) -> bool {
        self.tasks().any(|t| t.op == ManageOp::Stop)
    }

    /// Whether the partner fell, or came, or gave this controller a LUN, before it could leave.
    fn is_overtaken(&self, stage: &Stage) -> bool {
        let alone = self.is_write_through();
        match stage {
            Stage::AwaitReleases { .. } => alone,
            Stage::AwaitCommit { change, .. } => self.is_out_of_reach(*change),
            Stage::AwaitAdopted { .. } => alone || !self.owns_nothing(),
            _ => false,
        }
    }

    /// Whether the partner fell, without which a change makes no sense, or came, with which it makes none.
    fn is_out_of_reach(&self, change: Change) -> bool {
        match change {
            Change::Owner { .. } | Change::OwnerOfAll { .. } => self.is_write_through(),
            Change::Dirty(_) => !self.is_write_through(),
            _ => false,
        }
    }

    fn stop_anew(&mut self) {
        let quiesced = !matches!(self.task.as_ref().map(|t| &t.stage), Some(Stage::AwaitSight { .. }));
        if self.is_write_through() {
            self.effects.push(Effect::CloseHosts);
        }
        let (luns, since) = (Luns::All, self.now);
        self.set_stage(Stage::AwaitDrain { luns, since, quiesced });
    }

    /// The partner leaves, too, and first: whoever asked has its answer already.
    pub(crate) fn stop_alone(&mut self) {
        let (luns, since, quiesced) = (Luns::All, self.now, true);
        let stage = Stage::AwaitDrain { luns, since, quiesced };
        self.task = Some(Task::new(Asker::Nobody, ManageOp::Stop, stage, ManageReply::Stopping));
    }

    /// Whoever wants this controller to stop hears that it does.
    pub(crate) fn answer_stop(&mut self) {
        for task in self
            .task
            .take()
            .into_iter()
            .chain(std::mem::take(&mut self.interrupted))
        {
            match task.stage {
                _ if task.op == ManageOp::Stop => self.answer(task.asker, Ok(task.reply)),
                Stage::AwaitZeroes(_) => self.answer(task.asker, Err(ManageError::NotServing)),
                // It may still be done.
                Stage::AwaitPartner { .. } => self.answer(task.asker, Err(ManageError::Unknown)),
                _ => {}
            }
        }
    }

    fn leave(&mut self) {
        self.answer_stop();
        if self.is_write_through() {
            return self.exit();
        }
        self.phase = Phase::Leaving;
        self.effects.push(Effect::CloseHosts);
        self.link.send(Mfc::Leaving);
    }

    // ---- stages ----

    /// The task in progress, and the one that it has interrupted.
    pub(crate) fn tasks(&self) -> impl Iterator<Item = &Task> {
        self.task.iter().chain(&self.interrupted)
    }

    /// Whether commands for a LUN wait because it is being moved, deleted, or stopped.
    pub(crate) fn is_quiesced(&self, ncae: NcaeIndex) -> bool {
        self.tasks().any(|task| match &task.stage {
            Stage::AwaitDrain { luns, quiesced, .. } => *quiesced && luns.covers(ncae),
            Stage::AwaitReleases { luns, .. } => luns.covers(ncae),
            Stage::AwaitCommit { luns: Some(luns), .. } | Stage::Hold { luns } => luns.covers(ncae),
            // A LUN that is being deleted takes no more commands.
            Stage::AwaitDecided | Stage::AwaitMetadata { .. } => self.deletes(task, ncae),
            _ => false,
        })
    }

    fn deletes(&self, task: &Task, ncae: NcaeIndex) -> bool {
        matches!(task.op, ManageOp::LunDelete { name } if self.lun_named(&name).is_some_and(|l| l.ncae == ncae))
    }

    /// Whether a LUN is being deleted, and has been drained as far as it can be: nothing of it is written any more.
    pub(crate) fn is_being_deleted(&self, ncae: NcaeIndex) -> bool {
        self.tasks().any(|task| {
            let at_the_end = matches!(
                task.stage,
                Stage::AwaitDecided | Stage::AwaitMetadata { .. } | Stage::AwaitCommit { .. } | Stage::Hold { .. }
            );
            at_the_end && self.deletes(task, ncae)
        })
    }

    /// Whether a task goes on without a disk other than this one.
    pub(crate) fn is_giving_up_another(&self, but: DiskIndex) -> bool {
        self.tasks()
            .any(|t| matches!(t.op, ManageOp::DiskMissing { disk } if disk != but))
    }

    /// Whether a task waits for data to reach the disks.
    pub(crate) fn is_task_draining(&self) -> bool {
        self.tasks().any(|t| matches!(t.stage, Stage::AwaitDrain { .. }))
    }

    /// Whether a LUN is to have no data in NV memory soon, and still takes commands.
    pub(crate) fn is_lun_draining(&self, ncae: NcaeIndex) -> bool {
        let drains =
            |t: &Task| matches!(&t.stage, Stage::AwaitDrain { luns, quiesced: false, .. } if luns.covers(ncae));
        self.tasks().any(drains) && !mutant::is("hosts-fill-what-is-drained")
    }

    /// Whether a LUN has been held back for so long that whoever keeps it waiting is not waited for any more.
    pub(crate) fn is_held_back_for_long(&self, ncae: NcaeIndex) -> bool {
        let late = |since: Time| self.now.since(since) >= HELD_BACK_FOR && !mutant::is("a-slow-host-holds-up-a-lun");
        self.tasks().any(|task| match task.stage {
            Stage::AwaitDrain { luns, quiesced, since } => quiesced && luns.covers(ncae) && late(since),
            _ => false,
        })
    }

    /// The change of the record that the task wants now.
    pub(crate) fn task_change(&self) -> Option<Change> {
        match self.task.as_ref().filter(|t| !t.committed).map(|t| &t.stage) {
            Some(Stage::AwaitCommit { change, .. }) if !self.is_in_force(*change) => Some(*change),
            _ => None,
        }
    }

    /// Metadata were written, or not.
    pub(crate) fn on_task_io(&mut self, result: Result<(), DiskError>) {
        if let Some(Stage::AwaitMetadata { in_flight, good }) = self.task.as_mut().map(|t| &mut t.stage) {
            *in_flight -= 1;
            *good += usize::from(result.is_ok());
        }
    }

    /// Takes the task as far as it goes.
    pub(crate) fn settle_task(&mut self) {
        loop {
            self.task_moves = false;
            self.move_task();
            if !self.task_moves || mutant::is("a-task-moves-when-something-happens") {
                return;
            }
        }
    }

    /// Takes the task one stage further, or begins one.
    fn move_task(&mut self) {
        if !self.is_serving() {
            return;
        }
        if let Some(disk) = self.disk_to_give_up().filter(|_| self.may_interrupt_task()) {
            self.disks.give_up_later(disk, self.now);
            self.begin_task(Asker::Nobody, ManageOp::DiskMissing { disk });
        }
        if (self.task.is_none() || self.is_zeroing())
            && let Some(op) = self.due_disk_change()
        {
            self.ask_of_disks_later(&op);
            self.begin_task(Asker::Nobody, op);
        }
        if let Some(result) = self.task.as_mut().and_then(|t| t.answered.take()) {
            self.on_answer(result);
        }
        let Some(task) = &self.task else { return };
        match &task.stage {
            stage if task.op == ManageOp::Stop && self.is_overtaken(stage) => self.stop_anew(),
            Stage::AwaitZeroes(_) => self.settle_zeroes(),
            Stage::AwaitDecided if self.may_write_metadata() => self.write_metadata(),
            Stage::AwaitMetadata { in_flight: 0, good } => {
                let majority = *good > self.quorum.members().len() / 2 || mutant::is("metadata-without-a-majority");
                if majority {
                    self.commit_metadata()
                } else {
                    self.fail_metadata()
                }
            }
            Stage::AwaitDrain { .. } => self.settle_drain(),
            Stage::AwaitReleases {
                luns,
                sent,
                incarnation,
            } => {
                let (luns, op) = (*luns, task.op);
                if self.has_heard_releases(*incarnation, *sent) {
                    self.on_drained(luns, op);
                }
            }
            Stage::AwaitCommit { change, .. } => self.settle_commit(*change),
            Stage::Hold { luns } if !self.is_held_for_partner(*luns) => self.end_task(Ok(ManageReply::Done)),
            Stage::AwaitAdopted {
                epoch,
                sent,
                incarnation,
            } => {
                let adopted = self.is_write_through() || *epoch <= self.partner_adopted;
                if adopted && self.has_heard_releases(*incarnation, *sent) {
                    self.succeed()
                }
            }
            _ => {}
        }
    }

    fn may_begin(&self, asker: Asker, op: &ManageOp) -> bool {
        let interrupts = match op {
            ManageOp::DiskMissing { .. } => self.may_interrupt_task(),
            // Zeroing may take hours, and nobody waits for it but who asked for the LUN.
            ManageOp::DiskReturned { .. } | ManageOp::DiskLevel { .. } | ManageOp::Stop => {
                self.is_zeroing() || self.may_partner_be_zeroing()
            }
            // The partner was asked from here to delete the LUN, and needs it for that.
            ManageOp::LunMove { name, .. } => self.awaits_deletion(*name),
            ManageOp::LunDelete { name } => asker_is_partner(asker) && self.awaits_deletion(*name),
            _ => false,
        };
        self.task.is_none() || interrupts
    }

    fn is_zeroing(&self) -> bool {
        let task = self.task.as_ref();
        task.is_some_and(|t| matches!(t.stage, Stage::AwaitZeroes(_))) && !mutant::is("deaf-while-a-lun-is-zeroed")
    }

    /// Whether the partner does something for an operator here: it may be zeroing a LUN. If it cannot do another thing beside it, it
    /// says so.
    fn may_partner_be_zeroing(&self) -> bool {
        let zeroes = |op: &ManageOp| matches!(op, ManageOp::LunCreate { .. } | ManageOp::LunGrow { .. });
        let is_it = |t: &Task| zeroes(&t.op) && matches!(t.stage, Stage::AwaitPartner { .. });
        self.task.as_ref().is_some_and(is_it) && !mutant::is("deaf-while-the-partner-zeroes")
    }

    /// Whether the partner is deleting a LUN for an operator here.
    fn awaits_deletion(&self, lun: Name) -> bool {
        let is_it =
            |t: &Task| t.op == ManageOp::LunDelete { name: lun } && matches!(t.stage, Stage::AwaitPartner { .. });
        self.task.as_ref().is_some_and(is_it) && !mutant::is("busy-with-what-the-partner-does")
    }

    /// Whether a disk can be given up now: nothing else is under way, or only waits for what that disk may hold up, here or
    /// at the partner.
    fn may_interrupt_task(&self) -> bool {
        let decides = self.coordinator() == self.own();
        let waits = |t: &Task| match t.stage {
            Stage::AwaitDrain { .. } => self.interrupted.is_empty() || !mutant::is("deaf-while-a-lun-is-fetched"),
            Stage::AwaitMove { .. } | Stage::AwaitHold { .. } | Stage::AwaitPartner { .. } => {
                decides && !mutant::is("deaf-while-the-partner-moves")
            }
            _ => false,
        };
        self.is_zeroing() || self.may_partner_be_zeroing() || self.task.as_ref().is_none_or(waits)
    }

    fn settle_commit(&mut self, change: Change) {
        if self.is_out_of_reach(change) {
            // A LUN cannot go to a partner that fell.
            self.end_task(Err(ManageError::ControllerOut));
        } else if self.is_committed(change) && self.is_decided() {
            self.on_committed();
        }
    }

    /// The record has changed: it may be what the task wants.
    pub(crate) fn note_committed(&mut self) {
        let wanted = self.task.as_ref().map(|t| &t.stage);
        if let Some(Stage::AwaitCommit {
            change: change @ Change::Metadata { .. },
            ..
        }) = wanted
            && self.is_in_force(*change)
            && !mutant::is("want-again-what-was-committed")
            && let Some(task) = &mut self.task
        {
            task.committed = true;
        }
    }

    /// Whether the change is in force, or was: of metadata another may follow before it is told that the change is decided.
    fn is_committed(&self, change: Change) -> bool {
        self.is_in_force(change) || self.task.as_ref().is_some_and(|t| t.committed)
    }

    fn settle_zeroes(&mut self) {
        while let Some(Stage::AwaitZeroes(zeroes)) = self.task.as_mut().map(|t| &mut t.stage) {
            if zeroes.are_over() {
                return self.on_zeroed();
            }
            let Some((disk, block, blocks)) = zeroes.next() else {
                return;
            };
            let io = self.new_io(Io::Zero { disk });
            self.effects.push(Effect::DiskZero {
                io,
                disk,
                block,
                blocks,
            });
        }
    }

    /// The PSEGs are zeroed, or cannot be. Others may have changed the metadata meanwhile: not what PSEGs are free, but what disks
    /// are in order.
    fn on_zeroed(&mut self) {
        let Some(Task {
            stage: Stage::AwaitZeroes(zeroes),
            reply,
            ..
        }) = self.task.clone()
        else {
            return;
        };
        let next = zeroes.applied_to(self.next_metadata());
        match next
            .ok_or(ManageError::DiskError)
            .and_then(|next| self.change_metadata(next, reply))
        {
            Ok(Step::Wait(stage, _)) => self.set_stage(stage),
            Ok(Step::Done(reply)) => self.end_task(Ok(reply)),
            Err(error) => self.end_task(Err(error)),
        }
    }

    /// What is being zeroed; that task may have been interrupted.
    fn zeroes(&self) -> Option<&Zeroes> {
        self.tasks().find_map(|t| match &t.stage {
            Stage::AwaitZeroes(zeroes) => Some(zeroes),
            _ => None,
        })
    }

    /// A piece is zeroed, or cannot be.
    pub(crate) fn on_zero(&mut self, result: Result<(), DiskError>) {
        for task in self.task.iter_mut().chain(&mut self.interrupted) {
            if let Stage::AwaitZeroes(zeroes) = &mut task.stage {
                zeroes.answered(result);
            }
        }
    }

    /// New metadata go over those of the record before the one in force: whoever starts next must not go by that any more. So the
    /// slots must tell the one in force, not only have it as a vote.
    fn may_write_metadata(&self) -> bool {
        self.is_decided() || mutant::is("metadata-before-the-record-is-told")
    }

    /// The new metadata go beside those in force, on every quorum disk.
    fn write_metadata(&mut self) {
        let copy = 1 - self.record.expect("serving").metadata.copy;
        let members: Vec<DiskIndex> = self.quorum.members().to_vec();
        let in_flight = members.len();
        for disk in members {
            let io = self.new_io(Io::MetadataWrite { disk });
            self.effects.push(Effect::MetadataWrite { io, disk, copy });
        }
        self.set_stage(Stage::AwaitMetadata { in_flight, good: 0 });
    }

    fn commit_metadata(&mut self) {
        let (Some(task), Some(next)) = (&self.task, &self.new_metadata) else {
            return;
        };
        let record = self.record.expect("serving");
        let name = MetadataName {
            generation: next.generation,
            copy: 1 - record.metadata.copy,
        };
        let owner = match task.reply {
            ManageReply::Lun { ncae, .. } => Some((ncae, self.owner_for_new_lun())),
            _ => None,
        };
        let luns = match task.op {
            ManageOp::LunDelete { name } => self.lun_named(&name).map(|l| Luns::One(l.ncae)),
            _ => None,
        };
        let change = Change::Metadata { name, owner };
        self.set_stage(Stage::AwaitCommit { luns, change });
    }

    /// The controller with fewer LUNs; A if both have as many [0053].
    fn owner_for_new_lun(&self) -> Controller {
        if let Some(Mode::Alone { controller, .. }) = self.mode() {
            return controller;
        }
        let luns = self.metadata.iter().flat_map(|m| &m.luns);
        let of_b = luns.clone().filter(|l| self.owner(l.ncae) == Controller::B).count();
        let of_a = luns.count() - of_b;
        if of_b < of_a { Controller::B } else { Controller::A }
    }

    fn settle_drain(&mut self) {
        let Some(Task {
            stage: Stage::AwaitDrain { luns, since, quiesced },
            op,
            ..
        }) = self.task.clone()
        else {
            return;
        };
        if op == ManageOp::Stop && self.zeroes().is_some_and(Zeroes::are_on_their_way) {
            // The partner would wait for their end before it serves.
            return;
        }
        let buffers = match luns {
            Luns::One(ncae) => self.cache.count_of_lun(ncae),
            Luns::All => self.cache.unsettled(),
        };
        if !quiesced && (buffers <= FEW_BUFFERS || self.now.since(since) >= DRAIN_PATIENCE) {
            let (since, quiesced) = (self.now, true);
            self.set_stage(Stage::AwaitDrain { luns, since, quiesced });
            // Whoever waited for memory behind commands that are held back now may have it.
            self.turn_may_have_come |= !mutant::is("others-wait-behind-who-is-held-back");
            if !mutant::is("hosts-hear-of-no-move") {
                self.effects.push(Effect::ViewChanged);
            }
            return self.settle_drain();
        }
        let busy = |h: &u32| {
            let htb = self.htb(*h);
            let begun = htb.locked || !matches!(htb.stage, HtbStage::AwaitTurn | HtbStage::AwaitOwner);
            luns.covers(htb.ncae) && self.owns(htb.ncae) && begun
        };
        let drained = buffers == 0 || mutant::is("move-without-draining");
        let busy = self.order.iter().any(busy) && !mutant::is("move-under-commands");
        let busy = busy || self.has_copy_on_its_way(|ncae| luns.covers(ncae));
        if quiesced && !drained && !busy && self.disks.any_in_trouble() {
            self.settle_stuck(luns, op);
        }
        if quiesced && drained && !busy {
            self.send_releases();
            let (incarnation, sent) = (self.link.incarnation(), self.destager.releases_requested());
            // What a joiner has is nothing as long as it is not in.
            let alone = op == ManageOp::Stop && self.is_write_through();
            if alone || self.has_heard_releases(incarnation, sent) || mutant::is("move-before-the-releases") {
                self.on_drained(luns, op);
            } else {
                self.set_stage(Stage::AwaitReleases {
                    luns,
                    sent,
                    incarnation,
                });
            }
        }
    }

    /// What is left may wait for dead disks for ever.
    fn settle_stuck(&mut self, luns: Luns, op: ManageOp) {
        let ncaes = self.metadata.iter().flat_map(|m| &m.luns).map(|l| l.ncae);
        if !ncaes.filter(|n| luns.covers(*n)).all(|n| self.waits_for_dead_disks(n)) {
            return;
        }
        match (op, luns) {
            (ManageOp::LunDelete { .. }, Luns::One(ncae)) => {
                // A late write must not land on what is somebody else's by then.
                if self.disks_of(ncae).all(|d| self.disks.answers(d)) {
                    self.on_drained(luns, op);
                } else {
                    self.end_task(Err(ManageError::AwaitsDisk));
                }
            }
            (ManageOp::Stop, _) => self.halt(),
            _ => self.end_task(Err(ManageError::AwaitsDisk)),
        }
    }

    fn disks_of(&self, ncae: NcaeIndex) -> impl Iterator<Item = DiskIndex> {
        self.lun(ncae).into_iter().flat_map(|l| &l.psegs).map(|p| p.disk)
    }

    /// Stops as a crash would: the image stays, and the partner takes over.
    pub(crate) fn halt(&mut self) {
        self.answer_stop();
        self.phase = Phase::Out;
        self.effects.push(Effect::Halt);
    }

    fn on_drained(&mut self, luns: Luns, op: ManageOp) {
        let change = match (op, luns) {
            (ManageOp::LunMove { to, .. }, Luns::One(lun)) => Change::Owner { lun, to },
            (ManageOp::LunDelete { .. }, _) if !self.may_change_metadata() => return self.leave_to_partner(luns),
            (ManageOp::LunDelete { .. }, _) if !self.may_write_metadata() => return,
            (ManageOp::LunDelete { name }, _) => {
                self.new_metadata = Some(self.metadata_without(name));
                return self.write_metadata();
            }
            _ if self.is_write_through() && self.is_drained() => Change::Dirty(false),
            _ if self.is_write_through() => return,
            _ => Change::OwnerOfAll { to: self.partner() },
        };
        let luns = Some(luns);
        self.set_stage(Stage::AwaitCommit { luns, change });
    }

    /// A task that has begun while this controller decided, which is the partner's to decide now; or soon, and then it waits.
    fn leave_to_partner(&mut self, luns: Luns) {
        if self.coordinator() == self.own() {
            return;
        }
        if self.task.as_ref().is_some_and(|t| asker_is_partner(t.asker)) {
            return self.hold(luns);
        }
        mark!("a task is left to the partner");
        let Some(Task { asker, op, .. }) = self.task.clone() else {
            return;
        };
        match self.ask_partner(asker, op) {
            Ok(Step::Wait(stage, _)) => {
                self.set_stage(stage);
                self.turn_may_have_come = true;
                self.effects.push(Effect::ViewChanged);
            }
            Ok(Step::Done(reply)) => self.end_task(Ok(reply)),
            Err(error) => self.end_task(Err(error)),
        }
    }

    /// The partner deletes the LUN, and has heard now that this controller has stopped with it.
    fn hold(&mut self, luns: Luns) {
        let Some(task) = &mut self.task else { return };
        let asker = std::mem::replace(&mut task.asker, Asker::Nobody);
        self.answer(asker, Ok(ManageReply::Done));
        self.set_stage(Stage::Hold { luns });
    }

    /// Whether the partner may still delete what this controller holds for it: it is in, and has not done so. A partner that is
    /// out may have, too, but then the record says so.
    fn is_held_for_partner(&self, luns: Luns) -> bool {
        let Luns::One(ncae) = luns else { return false };
        self.mode() == Some(Mode::Both) && self.tasks().any(|t| self.deletes(t, ncae))
    }

    /// Whether the record gives the partner every LUN.
    fn owns_nothing(&self) -> bool {
        self.is_in_force(Change::OwnerOfAll { to: self.partner() }) || mutant::is("leave-with-a-lun")
    }

    fn is_in_force(&self, change: Change) -> bool {
        let Some(record) = self.record else { return false };
        match change {
            Change::Metadata { name, .. } => record.metadata == name,
            Change::Owner { lun, to } => record.owners.get(lun) == to,
            Change::OwnerOfAll { to } => record.owners == crate::cell::record::Owners::all(to),
            Change::Dirty(wanted) => matches!(record.mode, Mode::Alone { dirty, .. } if dirty == wanted),
            Change::Complete | Change::Alone { .. } | Change::AcceptLoss { .. } | Change::Both { .. } => true,
        }
    }

    fn on_committed(&mut self) {
        let Some(task) = &self.task else { return };
        match task.op {
            ManageOp::Stop if self.is_write_through() || mutant::is("leave-unheard") => self.leave(),
            _ => {
                if let Stage::AwaitCommit {
                    change: Change::Owner { lun, to },
                    ..
                } = task.stage
                {
                    self.note(Note::LunMoved { lun, to });
                }
                self.store_nca();
                let stage = Stage::AwaitAdopted {
                    epoch: self.epoch(),
                    sent: self.destager.releases_requested(),
                    incarnation: self.link.incarnation(),
                };
                self.set_stage(stage);
                self.turn_may_have_come = true;
                self.effects.push(Effect::ViewChanged);
            }
        }
    }

    /// The partner goes by the record of `epoch`.
    pub(crate) fn on_record_adopted(&mut self, epoch: Epoch) {
        self.partner_adopted = self.partner_adopted.max(epoch);
    }

    fn succeed(&mut self) {
        match self.task.as_ref().map(|t| (t.op, t.reply)) {
            // The partner goes by the record that gives it everything: it serves, and hears that this controller leaves.
            Some((ManageOp::Stop, _)) => self.leave(),
            Some((_, reply)) => self.end_task(Ok(reply)),
            None => {}
        }
    }
}

/// What the first stage of a task comes to.
enum Step {
    /// Nothing is to be done.
    Done(ManageReply),
    /// It goes on, and ends with this reply.
    Wait(Stage, ManageReply),
}

fn asker_is_partner(asker: Asker) -> bool {
    matches!(asker, Asker::Partner(_))
}

fn pool_full(full: crate::layout::allocate::Full) -> ManageError {
    ManageError::PoolFull {
        needed: full.needed,
        free: full.free,
    }
}

/// Whether `disk` has the only copy in order of something that has two: the other is older than what was written since.
fn has_last_copy(metadata: &Metadata, disk: DiskIndex) -> bool {
    let other = |p: &PsegAddress| p.disk != disk && metadata.disks[p.disk.index()].state == DiskState::Normal;
    let redundant = metadata.luns.iter().filter(|l| l.redundancy.width() > 1);
    let mut rstores = redundant.flat_map(|l| l.psegs.chunks(l.redundancy.width()));
    rstores.any(|r| r.iter().any(|p| p.disk == disk) && !r.iter().any(other))
}
