//! A disk that was given up comes back: it is found, confirmed by both controllers, brought level, and used again [0040].
//!
//! ```text
//! Missing   each controller probes it; once it answers, and nothing that either had posted there before is on its way any
//!           more, the coordinator commits
//! Merging   what has copies is written there, too, and never read from there; the owner of each LUN copies it, piece by
//!           piece; once every LUN is level the coordinator commits
//! Normal
//! ```
//!
//! A piece that cannot be read where it is whole is passed over, and tried again when all others are there: until then, or until hosts
//! have written it anew, the disk stays `Merging`. It does not keep another disk from coming back: it is missing again meanwhile.
//!
//! How far it is nobody writes down: a LUN that is level stays so, whoever owns it, as long as the disk is `Merging`; who does
//! not know that it is copies it again. So a controller may end at any point of this (docs/decisions/0010).

#[cfg(feature = "model")]
mod canonical;
mod lacking;

use crate::cache::Granule;
use crate::cell::record::Mode;
use crate::cell::{Fence, Joiner};
use crate::controller::{Core, InFlight, Io};
use crate::disk::Duty;
use crate::effect::Effect;
use crate::event::DiskError;
use crate::ids::{
    ATOMIC_BLOCKS, BUFFER_BLOCKS, DiskIndex, LUNS_MAX, Nanos, NcaeIndex, Noid, PSEG_BLOCKS, Time, TransferIndex,
};
use crate::layout::metadata::{DiskState, Lun, Metadata};
use crate::manage::{ManageError, ManageOp, ManageReply};
use crate::mark::mark;
use crate::memory::Memory;
use crate::mutant;
use crate::read::Place;
use lacking::Lacking;

/// Between two looks at a disk that has answered.
const PROBE_EVERY: Nanos = Nanos::from_millis(500);
/// The same at one that has not for long.
const PROBE_AT_LEAST_EVERY: Nanos = Nanos::from_millis(4000);
/// A disk has to answer so often in a row.
const ANSWERS: u8 = 2;
/// A disk that fails again while it is made level is left alone for so long: first, and at most.
const REST: Nanos = Nanos::from_millis(1000);
const LONGEST_REST: Nanos = Nanos::from_millis(60_000);
/// What could not be copied, or asked, is tried again after this.
const AGAIN_AFTER: Nanos = Nanos::from_millis(500);

/// A missing disk, as this controller sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Missing {
    /// How often in a row it has answered.
    answers: u8,
    /// Between two looks at it; grows while it does not answer.
    every: Nanos,
    /// When it is looked at next.
    look_at: Time,
    /// How long it is left alone when it fails again, and until when it is.
    rest: Nanos,
    rests_until: Time,
}

impl Default for Missing {
    fn default() -> Missing {
        Missing {
            answers: 0,
            every: PROBE_EVERY,
            look_at: Time(0),
            rest: Nanos(0),
            rests_until: Time(0),
        }
    }
}

/// Where the copying is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Position {
    ncae: NcaeIndex,
    noid: Noid,
    /// The next block of the LUN.
    block: u64,
    /// How often copying has begun anew since: what was on its way before counts for nothing.
    pass: u32,
}

/// What a piece waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Step {
    /// The end of writes to disk that were on their way.
    Wait,
    /// Its read.
    Read,
    /// Its write.
    Write,
    /// The end of one of them that is overdue.
    Late,
}

/// The blocks that are being copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Piece {
    position: Position,
    step: Step,
    since: Time,
}

/// How much of what this controller owns is on a disk that is made level: PSEGs that are, and all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MergeView {
    /// Which disk.
    pub disk: DiskIndex,
    /// PSEGs that are level.
    pub done: u64,
    /// All that have a copy there.
    pub all: u64,
}

/// The disk that is being made level, one at a time, and those that are missing.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Merger {
    missing: Vec<Missing>,
    /// How many are missing: mostly none.
    count: usize,
    /// A missing disk is being looked at.
    probing: bool,
    /// The disk that is being made level.
    disk: Option<DiskIndex>,
    /// By place in the NCA: the LUN whose copies there are level, as far as this controller knows.
    level: Vec<Option<Noid>>,
    position: Option<Position>,
    piece: Option<Piece>,
    lacking: Lacking,
    /// What was copied is being flushed.
    flushing: bool,
    /// Another flush of the disk has failed since that one began.
    flush_is_void: bool,
    /// Nothing is begun before this.
    not_before: Time,
    /// Everything that this controller owns was level when it was looked last.
    own_is_level: bool,
    /// The next question whether a disk is ready, or level, comes no earlier.
    ask_at: Time,
}

impl Merger {
    /// For `disks` disks.
    pub fn new(disks: usize) -> Merger {
        Merger {
            missing: vec![Missing::default(); disks],
            count: 0,
            probing: false,
            disk: None,
            level: vec![None; LUNS_MAX],
            position: None,
            piece: None,
            lacking: Lacking::new(),
            flushing: false,
            flush_is_void: false,
            not_before: Time(0),
            own_is_level: false,
            ask_at: Time(0),
        }
    }

    fn is_busy(&self) -> bool {
        self.piece.is_some() || self.flushing
    }

    fn is_level(&self, lun: &Lun) -> bool {
        let lacks = self.lacking.has(lun.noid);
        self.is_copied(lun) && (!lacks || mutant::is("what-cannot-be-read-is-level"))
    }

    /// Whether it has been copied to its end, but for what could not be read.
    fn is_copied(&self, lun: &Lun) -> bool {
        self.level[lun.ncae.index()] == Some(lun.noid)
    }
}

impl Core {
    // ---- states ----

    /// The states of disks change with these metadata.
    pub(crate) fn note_disk_states(&mut self, next: &Metadata) {
        for (n, state) in next
            .disks
            .iter()
            .map(|d| d.state)
            .enumerate()
            .take(self.merger.missing.len())
        {
            let disk = DiskIndex(n as u16);
            let known = self.metadata.as_ref().and_then(|m| m.disks.get(n));
            let before = known.map(|d| d.state);
            if known.is_some_and(|d| d.uuid != next.disks[n].uuid) {
                // Another medium, on which the own slot has to be before it may vote.
                self.merger.missing[n] = Missing::default();
                self.announce |= self.own_slot_known;
            }
            match (before, state) {
                (Some(old), DiskState::Missing) if old.is_written() => self.disk_goes_missing(disk, old),
                (None, DiskState::Missing) => self.merger.missing[n] = Missing::default(),
                (Some(DiskState::Missing), state) if state.is_written() => {
                    self.disks.forgive(disk, self.now);
                    // It answers now: an own slot that it did not take is written there again, or it would not vote.
                    self.announce |= self.own_slot_known;
                }
                (Some(DiskState::Merging), DiskState::Normal) => self.merger.missing[n] = Missing::default(),
                _ => {}
            }
        }
        self.merger
            .lacking
            .retain(|noid| next.luns.iter().any(|l| l.noid == noid));
        self.merger.count = next.disks.iter().filter(|d| d.state == DiskState::Missing).count();
        let mut disks = next.disks.iter().take(self.merger.missing.len());
        let merging = disks.position(|d| d.state == DiskState::Merging);
        self.merge_to(merging.map(|n| DiskIndex(n as u16)));
    }

    /// What was posted to it until now must be over before it may come back.
    fn disk_goes_missing(&mut self, disk: DiskIndex, old: DiskState) {
        for place in 0..self.ios.capacity() {
            if let Some(in_flight) = self.ios.get_mut(place)
                && in_flight.io.disk() == Some(disk)
            {
                in_flight.before_missing = true;
            }
        }
        self.give_the_partner_all_its_memory();
        let missing = &mut self.merger.missing[disk.index()];
        let rest = match old {
            DiskState::Merging => Nanos((missing.rest.0 * 2).clamp(REST.0, LONGEST_REST.0)),
            _ => Nanos(0),
        };
        *missing = Missing {
            rest,
            rests_until: self.now + rest,
            ..Missing::default()
        };
    }

    /// From now on this is the disk that is made level. What was known of another, or of this one before it was missing, is
    /// worth nothing.
    fn merge_to(&mut self, disk: Option<DiskIndex>) {
        if self.merger.disk != disk {
            self.merger.disk = disk;
            // Nobody waits for one that is still on its way to another.
            (self.merger.flushing, self.merger.flush_is_void) = (false, false);
            self.merger.level.fill(None);
            self.merger.lacking.clear();
            self.merger.position = None;
        }
        self.merger.own_is_level = false;
        self.merger.not_before = self.now;
    }

    fn leave_position(&mut self) {
        (self.merger.position, self.merger.lacking.again) = (None, None);
    }

    /// Who owns what may have changed.
    pub(crate) fn look_again_what_is_level(&mut self) {
        self.merger.own_is_level = false;
    }

    /// When the merger has something to do though nothing happens.
    pub(crate) fn merger_deadline(&self) -> Option<Time> {
        if !self.may_write_disks() {
            return None;
        }
        let merger = &self.merger;
        let idle = merger.disk.is_some() && !merger.is_busy();
        let next = (idle && !merger.own_is_level).then_some(merger.not_before);
        let ask = Some(merger.ask_at).filter(|at| *at > self.now);
        let look = self.missing_disks().map(|d| self.merger.missing[d.index()].look_at);
        let probe = look.min().filter(|_| !merger.probing);
        let soon = |t: Time| t.max(self.now + Nanos::from_micros(100));
        [next, ask, probe].into_iter().flatten().min().map(soon)
    }

    fn missing_disks(&self) -> impl Iterator<Item = DiskIndex> + '_ {
        let metadata = self.metadata.iter().filter(|_| self.merger.count > 0);
        let disks = metadata.flat_map(|m| m.disks.iter().enumerate());
        disks
            .filter(|(n, d)| d.state == DiskState::Missing && *n < self.merger.missing.len())
            .map(|(n, _)| DiskIndex(n as u16))
    }

    // ---- missing ----

    /// Looks at the missing disks, one at a time.
    pub(crate) fn probe_missing_disks(&mut self) {
        if self.merger.probing || !self.may_write_disks() {
            return;
        }
        let due = |d: &DiskIndex| self.merger.missing[d.index()].look_at <= self.now;
        let Some(disk) = self.missing_disks().find(due) else {
            return;
        };
        let uuid = self.metadata.as_ref().expect("a disk of it is missing").disks[disk.index()].uuid;
        self.merger.probing = true;
        let io = self.new_io(Io::Probe { disk });
        self.effects.push(Effect::DiskProbe { io, disk, uuid });
    }

    /// A missing disk was looked at.
    pub(crate) fn on_probed(&mut self, disk: DiskIndex, result: Result<(), DiskError>) {
        self.merger.probing = false;
        let missing = &mut self.merger.missing[disk.index()];
        if result.is_ok() {
            missing.answers = missing.answers.saturating_add(1);
            missing.every = PROBE_EVERY;
        } else {
            missing.answers = 0;
            missing.every = Nanos((missing.every.0 * 2).min(PROBE_AT_LEAST_EVERY.0));
        }
        missing.look_at = self.now + missing.every;
    }

    /// The partner was fenced, but not from the disks that are missing: what they have answered so far says nothing of what it had
    /// posted there.
    pub(crate) fn forget_answers_of_missing_disks(&mut self) {
        if mutant::is("what-answered-before-the-fence-is-ready") {
            return;
        }
        self.merger.missing.iter_mut().for_each(|m| m.answers = 0);
    }

    /// Whether a disk may come back, for all that this controller knows: it is missing, answers, and nothing that was posted
    /// there before is on its way any more. That of its partner is not if the fence has it (R5); a partner that is in is asked.
    fn is_ready(&self, disk: DiskIndex) -> bool {
        if self.is_write_through() && self.fence != Fence::Proven {
            return false;
        }
        let state = self.metadata.as_ref().and_then(|m| m.state_of(disk));
        let answers = self
            .merger
            .missing
            .get(disk.index())
            .is_some_and(|m| m.answers >= ANSWERS);
        // Metadata are written also while it is missing.
        let is_old = |i: &InFlight| i.before_missing || matches!(i.io, Io::MetadataWrite { .. });
        let old = self.ios.iter().any(|(_, i)| is_old(i) && i.io.disk() == Some(disk));
        state == Some(DiskState::Missing) && answers && !old && self.disks.answers(disk)
    }

    // ---- the tasks ----

    /// The change of a disk's state that is due: for a coordinator, but for what only the owner of a LUN knows.
    pub(crate) fn due_disk_change(&self) -> Option<ManageOp> {
        let merger = &self.merger;
        let decides = self.coordinator() == self.own();
        let settled = match self.mode() {
            Some(Mode::Both) => self.link.is_up(),
            _ => self.joiner == Joiner::None,
        };
        if self.now < merger.ask_at || !settled {
            return None;
        }
        let Some(disk) = merger.disk else {
            let disk = self.disk_to_return().filter(|_| decides)?;
            return Some(ManageOp::DiskReturned { disk });
        };
        if self.only_lacks(disk) && self.disk_to_return().is_some() {
            return Some(ManageOp::DiskMissing { disk });
        }
        let epoch = self.epoch();
        (decides && merger.own_is_level).then_some(ManageOp::DiskLevel { disk, epoch })
    }

    /// The missing disk that may come back, and has waited for longest.
    fn disk_to_return(&self) -> Option<DiskIndex> {
        let rests_until = |d: &DiskIndex| self.merger.missing[d.index()].rests_until;
        let ready = self
            .missing_disks()
            .filter(|d| rests_until(d) <= self.now && self.is_ready(*d));
        ready.min_by_key(rests_until)
    }

    /// Whether all that can be copied to `disk` has been, and what is left may never be read: it would keep others from coming back for
    /// ever. It is tried anew after them.
    fn only_lacks(&self, disk: DiskIndex) -> bool {
        let merger = &self.merger;
        let waits = !merger.is_busy() && merger.position.is_none() && self.now < merger.lacking.at;
        let own = || self.luns_with_copies(disk).filter(|l| self.owns(l.ncae));
        let lacks = own().all(|l| merger.is_copied(l)) && own().any(|l| !merger.is_level(l));
        waits && lacks && !mutant::is("a-disk-that-lacks-keeps-others-out")
    }

    /// Such a change is tried again, but not at once.
    pub(crate) fn ask_of_disks_later(&mut self, op: &ManageOp) {
        self.merger.ask_at = self.now + AGAIN_AFTER;
        if let ManageOp::DiskReturned { disk } = *op
            && !mutant::is("a-disk-that-is-refused-is-asked-for-first")
        {
            // The partner may refuse it for ever: the next question is for another one that is ready.
            self.merger.missing[disk.index()].rests_until = self.now;
        }
    }

    /// What this controller says of a disk that is to change its state: whether that is right as far as it knows.
    ///
    /// # Errors
    /// It is not, or not yet.
    pub(crate) fn word_on_disk(&self, op: &ManageOp) -> Result<ManageReply, ManageError> {
        let good = match *op {
            ManageOp::DiskReturned { disk } => self.is_ready(disk),
            ManageOp::DiskLevel { disk, epoch } => {
                let all = self
                    .luns_with_copies(disk)
                    .all(|l| !self.owns(l.ncae) || self.merger.is_level(l));
                self.merger.disk == Some(disk)
                    && self.epoch() == epoch
                    && self.to_adopt.is_none()
                    && all
                    && !self.has_copy_on_its_way(|_| true)
            }
            _ => false,
        };
        if good && self.is_serving() {
            Ok(ManageReply::Done)
        } else {
            Err(ManageError::DiskNotReady)
        }
    }

    /// The partner has said that everything is level that it owned under the record of `epoch`.
    pub(crate) fn partner_is_level(&mut self, disk: DiskIndex, epoch: crate::ids::Epoch) {
        if self.epoch() != epoch || self.merger.disk != Some(disk) {
            return;
        }
        let theirs: Vec<_> = self
            .luns_with_copies(disk)
            .filter(|l| !self.owns(l.ncae))
            .map(|l| (l.ncae, l.noid))
            .collect();
        for (ncae, noid) in theirs {
            self.merger.level[ncae.index()] = Some(noid);
            self.merger.lacking.retain(|lacks| lacks != noid);
        }
    }

    /// Whether everything that has a copy on `disk` is level.
    pub(crate) fn is_all_level(&self, disk: DiskIndex) -> bool {
        let all = self.luns_with_copies(disk).all(|l| self.merger.is_level(l));
        self.merger.disk == Some(disk) && (all || mutant::is("nobody-asks-whether-all-is-level"))
    }

    fn luns_with_copies(&self, disk: DiskIndex) -> impl Iterator<Item = &Lun> {
        let luns = self.metadata.iter().flat_map(|m| &m.luns);
        luns.filter(move |l| l.has_copies_on(disk))
    }

    // ---- the copying ----

    /// Goes on with the piece that waits, or begins the next one, if it is time.
    pub(crate) fn settle_merging(&mut self) {
        if let Some(piece) = self.merger.piece {
            if piece.step == Step::Read && self.is_quiesced(piece.position.ncae) {
                // The next owner may write before this read ends: what it has read is worth nothing.
                self.merger.piece = Some(Piece {
                    step: Step::Late,
                    ..piece
                });
            }
            if piece.step == Step::Wait {
                return self.read_piece();
            }
        }
        let Some(disk) = self.merger.disk else { return };
        let busy = self.merger.is_busy() || self.now < self.merger.not_before;
        if busy || !self.may_write_disks() || self.merger.own_is_level {
            return;
        }
        if self.disks.is_blocked(disk, self.now) {
            return self.merge_later(AGAIN_AFTER);
        }
        match self.next_position(disk) {
            Some(position) => {
                self.merger.position = Some(position);
                let (step, since) = (Step::Wait, self.now);
                self.merger.piece = Some(Piece { position, step, since });
                self.read_piece();
            }
            None if self.merger.position.is_some() => self.flush_copies(disk),
            None => {
                let is_level = |l: &Lun| !self.owns(l.ncae) || self.merger.is_level(l);
                let all = self.luns_with_copies(disk).all(is_level);
                self.merger.own_is_level = all;
                self.merge_later(AGAIN_AFTER);
            }
        }
    }

    fn merge_later(&mut self, after: Nanos) {
        self.merger.not_before = self.now + after;
    }

    /// The next blocks of the LUN that is being copied, or of the next that is to be. `None` where there are none: the LUN is
    /// copied to its end, or every LUN is.
    fn next_position(&mut self, disk: DiskIndex) -> Option<Position> {
        if let Some(p) = self.merger.position {
            match self.lun_of(&p) {
                Some(lun) => {
                    let only = self.merger.lacking.again.map(|again| again.block);
                    let block = next_on(lun, disk, p.block).filter(|block| only.is_none_or(|o| o == *block));
                    return block.map(|block| Position { block, ..p });
                }
                // It has gone, or another controller copies it from its beginning.
                None => self.leave_position(),
            }
        }
        let is_next = |l: &&Lun| self.owns(l.ncae) && !self.merger.is_copied(l) && !self.is_quiesced(l.ncae);
        let Some(lun) = self.luns_with_copies(disk).find(is_next) else {
            return self.next_lacking();
        };
        let (ncae, noid) = (lun.ncae, lun.noid);
        next_on(lun, disk, 0).map(|block| Position {
            ncae,
            noid,
            block,
            pass: 0,
        })
    }

    /// A piece that could not be read, if it is time to try it again.
    fn next_lacking(&mut self) -> Option<Position> {
        let can = |p: &&Position| self.lun_of(p).is_some() && !self.is_quiesced(p.ncae);
        let next = self.merger.lacking.due(self.now).iter().find(can).copied();
        self.merger.lacking.again = next;
        next
    }

    /// The LUN of a position, if it is still there, and this controller's.
    fn lun_of(&self, position: &Position) -> Option<&Lun> {
        let lun = self.lun(position.ncae).filter(|l| l.noid == position.noid);
        lun.filter(|_| self.owns(position.ncae) && self.may_write_disks())
    }

    /// Where a piece is read from and where it is written, if it can be copied now.
    fn places_of_piece(&self, position: &Position) -> Option<(Place, Place)> {
        self.lun_of(position).filter(|_| !self.is_quiesced(position.ncae))?;
        let copies = |wanted| self.copies(position.ncae, position.block, |state| state == wanted);
        let from = copies(DiskState::Normal).first().copied()?;
        let to = copies(DiskState::Merging).first().copied()?;
        let good =
            Some(to.0) == self.merger.disk && self.disks.answers(from.0) && !self.disks.is_blocked(to.0, self.now);
        good.then_some((from, to))
    }

    /// From the moment at which a piece waits until it is there no other data of its range begin to go to disk: they would be
    /// older, or newer, than what it has read. Those that are on their way end first. Hosts wait for none of that.
    fn read_piece(&mut self) {
        let Some(piece) = self.merger.piece else { return };
        let Some(((disk, block), _)) = self.places_of_piece(&piece.position) else {
            return self.leave_piece(AGAIN_AFTER);
        };
        if self.is_being_written(&piece.position) {
            return;
        }
        self.merger.piece = Some(Piece {
            step: Step::Read,
            ..piece
        });
        let io = self.new_io(Io::CopyRead { disk });
        let into = self.piece_memory();
        self.effects.push(Effect::DiskRead { io, disk, block, into });
    }

    fn is_being_written(&self, position: &Position) -> bool {
        let ncae = position.ncae;
        let size = u64::from(BUFFER_BLOCKS);
        let mut numbers = position.block / size..(position.block + u64::from(ATOMIC_BLOCKS)) / size;
        let written = |number| self.cache.is_being_written(Granule { ncae, number });
        numbers.any(written) && !mutant::is("merge-under-a-disk-write")
    }

    /// Whether data of a granule may not go to disk now because a piece with them is being copied.
    pub(crate) fn is_being_copied(&self, granule: Granule) -> bool {
        let Some(piece) = self.merger.piece.filter(|p| p.step != Step::Late) else {
            return false;
        };
        let Position { ncae, block, .. } = piece.position;
        let blocks = block..block + u64::from(ATOMIC_BLOCKS);
        ncae == granule.ncae && blocks.contains(&granule.start().0) && !mutant::is("disk-writes-under-a-merge")
    }

    /// The merger's own transfer buffer, after all others.
    fn piece_memory(&self) -> Memory {
        Memory::Transfer {
            transfer: TransferIndex(self.geometry().transfers),
            first: 0,
            blocks: ATOMIC_BLOCKS as u16,
        }
    }

    /// The piece was read.
    pub(crate) fn on_copy_read(&mut self, result: Result<(), DiskError>, late: bool) {
        let Some(piece) = self.merger.piece else { return };
        let places = self.places_of_piece(&piece.position);
        match places {
            Some((_, (disk, block))) if result.is_ok() && piece.step == Step::Read => {
                let io = self.new_io(Io::CopyWrite {
                    ncae: piece.position.ncae,
                    disk,
                });
                let from = self.piece_memory();
                self.merger.piece = Some(Piece {
                    step: Step::Write,
                    ..piece
                });
                self.effects.push(Effect::DiskWrite { io, disk, block, from });
            }
            _ => {
                mark!("a piece for a merging disk cannot be copied now");
                if result.is_err() && self.merger.position == Some(piece.position) {
                    self.pass_over(piece.position, late || piece.step == Step::Late);
                }
                self.leave_piece(AGAIN_AFTER);
            }
        }
    }

    /// A piece cannot be read: the others are copied first, and it is tried again later.
    fn pass_over(&mut self, position: Position, late: bool) {
        let again = self.merger.lacking.again.is_some();
        if self.merger.lacking.note(position, late, self.now) {
            self.merger.position = (!again).then_some(Position {
                block: position.block + u64::from(ATOMIC_BLOCKS),
                ..position
            });
        }
    }

    /// The piece was written.
    pub(crate) fn on_copied(&mut self, disk: DiskIndex, result: Result<(), DiskError>) {
        let Some(piece) = self.merger.piece else { return };
        if piece.step == Step::Late {
            return self.leave_piece(AGAIN_AFTER);
        }
        if result.is_err() {
            self.disk_failed(disk, Duty::Write);
            return self.leave_piece(AGAIN_AFTER);
        }
        self.disks.worked(disk, Duty::Write, self.now);
        if let Some(p) = self.merger.position.as_mut().filter(|p| **p == piece.position) {
            p.block += u64::from(ATOMIC_BLOCKS);
        }
        // Hosts get the disks for at least as long.
        let took = self.now.since(piece.since);
        self.leave_piece(if self.order.is_empty() { Nanos(0) } else { took });
    }

    /// The write of a piece is not answered in time. It is not waited for; but its memory is not used again before it has ended, and
    /// nothing else is written to the disk. What a read brings is good however late: nothing is written there before it has ended.
    pub(crate) fn on_copy_overdue(&mut self) {
        let is_read = |p: &Piece| p.step == Step::Read && !mutant::is("a-piece-is-late-for-good");
        if let Some(piece) = self.merger.piece.as_mut().filter(|p| !is_read(p)) {
            piece.step = Step::Late;
        }
    }

    /// The piece is over, done or not.
    fn leave_piece(&mut self, rest: Nanos) {
        self.merger.piece = None;
        self.merge_later(rest);
    }

    /// Whether a piece of such a LUN may still be written to a disk, over what its next owner writes there.
    pub(crate) fn has_copy_on_its_way(&self, is: impl Fn(NcaeIndex) -> bool) -> bool {
        let writes = |i: &InFlight| matches!(i.io, Io::CopyWrite { ncae, .. } if is(ncae)) && !i.before_missing;
        self.merger.piece.is_some() && self.ios.iter().any(|(_, i)| writes(i)) && !mutant::is("move-under-a-merge")
    }

    /// A LUN is copied to its end, or a piece is that could not be read before.
    fn flush_copies(&mut self, disk: DiskIndex) {
        if mutant::is("merge-without-a-flush") {
            return self.on_copies_flushed(disk, Ok(()));
        }
        self.merger.flushing = true;
        let io = self.new_io(Io::CopyFlush { disk });
        self.effects.push(Effect::DiskFlush { io, disk });
    }

    /// What was copied is there for good.
    pub(crate) fn on_copies_flushed(&mut self, disk: DiskIndex, result: Result<(), DiskError>) {
        let mut is_void = false;
        if self.merger.disk == Some(disk) {
            self.merger.flushing = false;
            is_void = std::mem::take(&mut self.merger.flush_is_void);
        }
        match result {
            Ok(()) if is_void => self.merge_later(AGAIN_AFTER),
            Ok(()) => {
                self.disks.worked(disk, Duty::Flush, self.now);
                if let Some(p) = self.merger.position.filter(|_| self.merger.disk == Some(disk)) {
                    self.note_copied(p);
                }
            }
            Err(DiskError) => {
                self.disk_failed(disk, Duty::Flush);
                self.another_flush_fails(disk);
                self.merge_later(AGAIN_AFTER);
            }
        }
    }

    /// All up to this position is there for good; or one piece that could not be read before.
    fn note_copied(&mut self, position: Position) {
        let merger = &mut self.merger;
        if let Some(again) = merger.lacking.again {
            merger.lacking.is_there(&again, self.now);
        } else {
            merger.level[position.ncae.index()] = Some(position.noid);
        }
        self.leave_position();
    }

    /// A flush of the disk failed: what was copied and not flushed may not be there.
    pub(crate) fn copies_may_be_lost(&mut self, disk: DiskIndex) {
        if self.merger.disk == Some(disk)
            && let Some(p) = &mut self.merger.position
        {
            p.block = self.merger.lacking.again.map_or(0, |again| again.block);
            p.pass = p.pass.wrapping_add(u32::from(!mutant::is("a-lost-first-piece-counts")));
            self.merger.flush_is_void = self.merger.flushing;
        }
    }

    // ---- views ----

    /// How far the disk that is made level is, of what this controller owns.
    pub fn merging(&self) -> Option<MergeView> {
        let disk = self.merger.disk?;
        let (mut done, mut all) = (0, 0);
        for lun in self.luns_with_copies(disk).filter(|l| self.owns(l.ncae)) {
            let of =
                |psegs: &[crate::layout::metadata::PsegAddress]| psegs.iter().filter(|p| p.disk == disk).count() as u64;
            all += of(&lun.psegs);
            done += match self.merger.position {
                _ if self.merger.is_level(lun) => of(&lun.psegs),
                Some(p) if p.noid == lun.noid => {
                    let rstores = (p.block / PSEG_BLOCKS) as usize;
                    of(&lun.psegs[..(rstores * lun.redundancy.width()).min(lun.psegs.len())])
                }
                _ => 0,
            };
        }
        Some(MergeView { disk, done, all })
    }
}

/// The first block from `block` on of an RStore that has a copy on `disk`.
fn next_on(lun: &Lun, disk: DiskIndex, block: u64) -> Option<u64> {
    let width = lun.redundancy.width();
    let first = (block / PSEG_BLOCKS) as usize;
    let mut rstores = lun.psegs.chunks(width).enumerate().skip(first);
    let last =
        mutant::is("normal-before-the-last-piece") && block % PSEG_BLOCKS == PSEG_BLOCKS - u64::from(ATOMIC_BLOCKS);
    let (k, _) = rstores.find(|(k, r)| r.iter().any(|p| p.disk == disk) && !(last && *k == first))?;
    Some(block.max(k as u64 * PSEG_BLOCKS))
}
