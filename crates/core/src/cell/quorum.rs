//! Rounds over the quorum disks: write the own slot, then read both slots, on each disk; a majority decides.
//!
//! A slot has one writer, and at most one of its writes is in flight on each disk, so that no late write of an earlier
//! round lands over a later one (R1).

#[cfg(feature = "model")]
mod canonical;

use super::record::{Record, Slot};
use crate::event::DiskError;
use crate::ids::{Controller, DiskIndex, Epoch, IoId, ProcessId, QUORUM_MAX, Time};
use crate::list::List;
use crate::mutant;

/// Both slots of a disk: that of A and that of B.
pub type Slots = [Option<Slot>; 2];

/// What a round does on each disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Reads both slots.
    Read,
    /// Writes the own slot, then reads both.
    WriteRead,
}

/// What the quorum wants done on a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    /// Read both slots.
    Read,
    /// Write the own slot.
    Write,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Step {
    Reading,
    Writing,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Disk {
    /// What is in flight: for which round, and which step.
    in_flight: Option<(IoId, u64, Step)>,
    /// The last round that this disk has answered, and whether with success.
    answered: Option<(u64, bool)>,
    /// What the last write of the own slot writes.
    written: Option<Slot>,
    found: Slots,
}

/// How a round ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A majority answered: what was found, disk by disk.
    Majority(List<OptionalSlots, QUORUM_MAX>),
    /// No majority can answer any more.
    Failed,
}

/// The slots that one disk had.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct OptionalSlots(pub Slots);

/// The quorum disks, and the round in progress.
#[derive(Clone, PartialEq, Eq)]
#[cfg_attr(not(feature = "model"), derive(Hash))]
pub struct Quorum {
    members: List<DiskIndex, QUORUM_MAX>,
    disks: [Disk; QUORUM_MAX],
    round: u64,
    kind: Kind,
    /// Whether the round has not ended.
    open: bool,
    /// The own slot; what the next write says.
    slot: Option<Slot>,
    /// When the round began.
    began: Time,
}

impl Quorum {
    /// The quorum of `members`.
    pub fn new(members: List<DiskIndex, QUORUM_MAX>) -> Quorum {
        Quorum {
            members,
            disks: [Disk::default(); QUORUM_MAX],
            round: 0,
            kind: Kind::Read,
            open: false,
            slot: None,
            began: Time(0),
        }
    }

    /// The disks that vote.
    pub fn members(&self) -> &[DiskIndex] {
        &self.members
    }

    /// The own slot.
    pub fn slot_mut(&mut self) -> &mut Slot {
        self.slot.as_mut().expect("the slots were read")
    }

    /// The own slot.
    pub fn slot(&self) -> &Slot {
        self.slot.as_ref().expect("the slots were read")
    }

    /// Whether the slots were read.
    pub fn is_known(&self) -> bool {
        self.slot.is_some()
    }

    /// What the own slot says from now on.
    pub fn set_slot(&mut self, slot: Slot) {
        self.slot = Some(slot);
    }

    /// The members whose last answer was an error.
    pub fn failing(&self) -> List<DiskIndex, QUORUM_MAX> {
        let last = self.members.iter().zip(&self.disks);
        last.filter(|(_, d)| matches!(d.answered, Some((_, false))))
            .map(|(disk, _)| *disk)
            .collect()
    }

    /// Whether a round is in progress.
    pub fn is_busy(&self) -> bool {
        self.open
    }

    /// What the last round did on each disk.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// When the last round began.
    pub fn began(&self) -> Time {
        self.began
    }

    /// Begins a round; one at a time.
    pub fn begin(&mut self, kind: Kind, now: Time) {
        assert!(!self.open, "one round at a time");
        self.round += 1;
        self.kind = kind;
        self.open = true;
        self.began = now;
    }

    /// The next thing to do on a disk, if any: give it an I/O by `issued`.
    pub fn next_want(&self) -> Option<(usize, DiskIndex, Want)> {
        if !self.open {
            return None;
        }
        let at = self.members.iter().enumerate().find(|(n, _)| {
            let disk = &self.disks[*n];
            disk.in_flight.is_none() && disk.answered.is_none_or(|(round, _)| round != self.round)
        });
        let (n, disk) = at?;
        let want = match self.kind {
            Kind::Read => Want::Read,
            Kind::WriteRead => Want::Write,
        };
        Some((n, *disk, want))
    }

    /// The I/O `io` does what `next_want` said for member `n`.
    pub fn issued(&mut self, n: usize, io: IoId) {
        let step = match self.kind {
            Kind::Read => Step::Reading,
            Kind::WriteRead => Step::Writing,
        };
        if step == Step::Writing {
            self.disks[n].written = self.slot;
        }
        self.disks[n].in_flight = Some((io, self.round, step));
    }

    /// A write is done. Returns whether the disk is to be read now, by an I/O to be given to `reading`.
    pub fn written(&mut self, n: usize, result: Result<(), DiskError>) -> bool {
        let (_, round, _) = self.disks[n].in_flight.take().expect("a write in flight");
        match result {
            Ok(()) => round == self.round,
            Err(DiskError) => {
                self.disks[n].answered = Some((round, false));
                false
            }
        }
    }

    /// The I/O `io` reads member `n` after the write of this round.
    pub fn reading(&mut self, n: usize, io: IoId) {
        self.disks[n].in_flight = Some((io, self.round, Step::Reading));
    }

    /// What the write in flight on member `n` writes.
    pub fn written_slot(&self, n: usize) -> Option<&Slot> {
        self.disks[n].written.as_ref()
    }

    /// Where what the read in flight on member `n` finds is to be put.
    pub fn found_mut(&mut self, n: usize) -> &mut Slots {
        &mut self.disks[n].found
    }

    /// A read is done. A disk without the slots of both does not vote: it has taken the place of one that had them, and what
    /// was promised there is in no other way known than by the word of both (R1).
    pub fn read(&mut self, n: usize, result: Result<(), DiskError>) {
        let disk = &mut self.disks[n];
        let (_, round, _) = disk.in_flight.take().expect("a read in flight");
        let votes = disk.found.iter().all(Option::is_some) || mutant::is("an-empty-disk-votes");
        disk.answered = Some((round, result.is_ok() && votes));
    }

    /// Whether the round has ended, and how. Ends it.
    pub fn outcome(&mut self) -> Option<Outcome> {
        if !self.open {
            return None;
        }
        let count = self.members.len();
        let good = self.answered(true).count();
        let enough = good > count / 2
            || good > 0 && mutant::is("one-disk-is-a-majority")
            || good > 1 && mutant::is("two-disks-are-a-majority");
        let outcome = if enough {
            Outcome::Majority(self.answered(true).map(|d| OptionalSlots(d.found)).collect())
        } else if self.answered(false).count() >= count.div_ceil(2) {
            Outcome::Failed
        } else {
            return None;
        };
        self.open = false;
        Some(outcome)
    }

    fn answered(&self, good: bool) -> impl Iterator<Item = &Disk> {
        let members = self.disks[..self.members.len()].iter();
        members.filter(move |d| d.answered == Some((self.round, good)))
    }
}

/// The newest record that a majority's slots show to be committed.
pub fn newest_record(found: &[OptionalSlots]) -> Option<Record> {
    let slots = found.iter().flat_map(|OptionalSlots(s)| s.iter().flatten());
    slots.map(|s| s.record).max_by_key(|r| r.epoch)
}

/// The own slot as a predecessor left it: the one that had got furthest.
pub fn furthest_slot(found: &[OptionalSlots], of: Controller) -> Option<Slot> {
    let slots = found.iter().filter_map(|OptionalSlots(s)| s[of.index()]);
    slots.max_by_key(|s| (s.record.epoch, s.begun, s.voted, s.heartbeat))
}

/// The slot with the last vote on the record after that of `epoch`, if any slot shows one (R6: undecided).
pub fn last_vote(found: &[OptionalSlots], epoch: Epoch) -> Option<&Slot> {
    let slots = found.iter().flat_map(|OptionalSlots(s)| s.iter().flatten());
    let votes = slots.filter(|s| s.record.epoch == epoch && s.voted > 0);
    votes.max_by_key(|s| s.voted)
}

/// Whether a slot of a controller shows that it has begun a ballot for the record after `record`.
pub fn has_begun(found: &[OptionalSlots], of: Controller, record: &Record) -> bool {
    let mut slots = found.iter().filter_map(|OptionalSlots(s)| s[of.index()]);
    slots.any(|s| s.record.epoch == record.epoch && s.begun > 0)
}

/// The partner's process, as its newest slot says.
pub fn process_of(found: &[OptionalSlots], of: Controller) -> ProcessId {
    furthest_slot(found, of).map_or(ProcessId::default(), |s| s.process)
}
