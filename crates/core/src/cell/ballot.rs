//! A ballot: how the record changes (R1). Disk Paxos of Gafni and Lamport, with one instance for each epoch.
//!
//! Phase 1 writes the ballot's number into the own slot on every quorum disk and reads the partner's; a majority without
//! a higher number wins it. Then a proposal that anyone voted for is adopted, the one with the highest ballot first, and
//! only if there is none the own. Phase 2 does the same with the vote; a majority without a higher number decides.

use super::quorum::OptionalSlots;
use super::record::{MetadataName, Mode, Record, Slot};
use crate::ids::{Controller, NcaeIndex, Uuid};
use crate::mutant;

/// A change of the record that a controller wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Change {
    /// Only finish what somebody has begun (R6). Where no vote is found the record stays as it is and has the next epoch, so that a
    /// vote that was not seen is void.
    Complete,
    /// The partner is out (R3); or this controller takes over from a clean one that does not run (R8), or starts anew
    /// from its own clean state.
    Alone {
        /// Its own current image.
        image: Uuid,
        /// Whether that image may hold what the disks do not.
        dirty: bool,
    },
    /// The memory of who was in is given up by the operator's word (R8): what it alone had is lost.
    AcceptLoss {
        /// A fresh image.
        image: Uuid,
    },
    /// R7.
    Dirty(bool),
    /// Both are in (R9).
    Both {
        /// Their images.
        images: [Uuid; 2],
    },
    /// Another owner of one LUN (R11).
    Owner {
        /// Which.
        lun: NcaeIndex,
        /// The new owner.
        to: Controller,
    },
    /// Another owner of all that `to`'s partner owns.
    OwnerOfAll {
        /// The new owner.
        to: Controller,
    },
    /// Other metadata.
    Metadata {
        /// Which.
        name: MetadataName,
        /// The owner of a LUN that they bring.
        owner: Option<(NcaeIndex, Controller)>,
    },
}

impl Change {
    /// The record after `base`, or `None` where this change makes no sense any more.
    pub fn apply(self, base: &Record, own: Controller) -> Option<Record> {
        let mut next = Record {
            epoch: base.epoch.next(),
            ..*base
        };
        match self {
            Change::Complete => {}
            Change::Alone { image, dirty } => {
                let from_clean = matches!(base.mode, Mode::Alone { controller, dirty: false } if controller != own)
                    || mutant::is("take-over-from-a-dirty-one");
                let from_own = base.is_alone(own);
                if !(base.mode == Mode::Both || from_clean || from_own) {
                    return None;
                }
                next.become_alone(own, dirty, image);
            }
            Change::AcceptLoss { image } => {
                // Its own memory may be what is lost.
                if base.is_alone(own) && (base.is_current(own, image) || mutant::is("the-partner-has-what-is-missing"))
                {
                    return None;
                }
                next.become_alone(own, false, image);
            }
            Change::Dirty(dirty) => {
                if !base.is_alone(own) {
                    return None;
                }
                next.mode = Mode::Alone { controller: own, dirty };
            }
            Change::Both { images } => {
                if !base.is_alone(own) {
                    return None;
                }
                next.mode = Mode::Both;
                next.images = images;
            }
            Change::Owner { .. } | Change::OwnerOfAll { .. } if base.mode != Mode::Both => return None,
            Change::Owner { lun, to } => next.owners.set(lun, to),
            Change::OwnerOfAll { to } => next.owners = super::record::Owners::all(to),
            Change::Metadata { name, owner } => {
                if !base.has(own) || !name.follows(base.metadata) {
                    return None;
                }
                next.metadata = name;
                if let Some((lun, to)) = owner {
                    // Who has come to be alone since the owner was chosen owns every LUN.
                    let to = if base.mode == Mode::Both { to } else { own };
                    next.owners.set(lun, to);
                }
            }
        }
        Some(next)
    }
}

/// Where a ballot stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Phase {
    /// Awaits a majority that has heard of the ballot.
    Begin,
    /// Awaits a majority that has the vote.
    Vote,
}

/// What a ballot wants after a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Write the slot as it is now, and read again.
    Again,
    /// The record changed; `own` says whether it is the change that this controller wanted.
    Decided {
        /// The new record.
        record: Record,
        /// By this ballot's own wish.
        own: bool,
    },
    /// The partner knows a newer record.
    Overtaken(Record),
    /// The partner has a ballot with a higher number under way: try again a little later.
    Outbid,
    /// The change makes no sense any more.
    Void,
}

/// A ballot in progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ballot {
    /// What is wanted.
    pub change: Change,
    own: Controller,
    phase: Phase,
}

impl Ballot {
    /// Begins a ballot of `own` with a number higher than any in `seen`; writes it into `slot`.
    pub fn begin(change: Change, own: Controller, slot: &mut Slot, seen: u64) -> Ballot {
        let last = slot.begun.max(slot.voted).max(seen);
        // Numbers of A are even, those of B odd: no two ballots have the same.
        slot.begun = (last / 2 + 1) * 2
            + if mutant::is("same-ballot-numbers") {
                0
            } else {
                own.index() as u64
            };
        Ballot {
            change,
            own,
            phase: Phase::Begin,
        }
    }

    /// A majority has the own slot, and this is what was found on it.
    pub fn on_round(&mut self, found: &[OptionalSlots], slot: &mut Slot) -> Verdict {
        let partner = self.own.other().index();
        let blind = mutant::is("accept-any-slot");
        let theirs = || {
            found
                .iter()
                .filter_map(|OptionalSlots(s)| s[partner].filter(|_| !blind))
        };
        if let Some(newer) = theirs()
            .map(|s| s.record)
            .filter(|r| r.epoch > slot.record.epoch)
            .max_by_key(|r| r.epoch)
        {
            return Verdict::Overtaken(newer);
        }
        let rivals = || theirs().filter(|s| s.record.epoch == slot.record.epoch);
        if rivals().any(|s| s.begun > slot.begun) && !mutant::is("ignore-a-higher-ballot") {
            return Verdict::Outbid;
        }
        match self.phase {
            Phase::Begin => self.vote(rivals().filter(|s| s.voted > 0).max_by_key(|s| s.voted), slot),
            Phase::Vote => self.decide(slot),
        }
    }

    fn vote(&mut self, rival: Option<Slot>, slot: &mut Slot) -> Verdict {
        let rival = rival.filter(|_| !mutant::is("ignore-the-rivals-vote"));
        let own = (slot.voted > 0 && !mutant::is("forget-the-own-vote")).then_some((slot.voted, slot.proposal));
        let voted = own
            .into_iter()
            .chain(rival.map(|s| (s.voted, s.proposal)))
            .max_by_key(|(number, _)| *number);
        let proposal = match voted {
            Some((_, proposal)) => Some(proposal),
            None => self.change.apply(&slot.record, self.own),
        };
        let Some(proposal) = proposal else {
            return Verdict::Void;
        };
        assert!(slot.begun > 0, "a vote in a ballot that was begun");
        slot.voted = slot.begun;
        slot.proposal = proposal;
        self.phase = Phase::Vote;
        if mutant::is("decide-before-a-majority-has-the-vote") {
            return self.decide(slot);
        }
        Verdict::Again
    }

    fn decide(&mut self, slot: &mut Slot) -> Verdict {
        let record = slot.proposal;
        let own = self.change.apply(&slot.record, self.own) == Some(record);
        Verdict::Decided { record, own }
    }
}

/// The highest ballot number in what was found.
pub fn highest_begun(found: &[OptionalSlots]) -> u64 {
    let slots = found.iter().flat_map(|OptionalSlots(s)| s.iter().flatten());
    slots.map(|s| s.begun).max().unwrap_or(0)
}

/// The slot of a controller that has learned `record`: it votes on nothing yet.
pub fn learn(slot: &mut Slot, record: Record) {
    slot.record = record;
    slot.begun = 0;
    slot.voted = 0;
    slot.proposal = record;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{DiskIndex, ProcessId};

    fn record() -> Record {
        Record {
            mode: Mode::Both,
            images: [Uuid(1), Uuid(2)],
            ..Record::first(&[DiskIndex(0)])
        }
    }

    fn alone(image: u128) -> Change {
        Change::Alone {
            image: Uuid(image),
            dirty: true,
        }
    }

    /// One disk, two controllers: whatever the order of their steps, both learn the same record.
    #[test]
    fn every_order_of_two_ballots_decides_one_record() {
        for order in 0..1u32 << 12 {
            let idle = |c| Slot::idle(c, ProcessId::default(), record());
            let mut slots = [idle(Controller::A), idle(Controller::B)];
            let mut disk: [Option<Slot>; 2] = [None; 2];
            let mut ballots: [Option<Ballot>; 2] = [None; 2];
            let mut learned: [Option<Record>; 2] = [None; 2];
            for bit in 0..64 {
                let own = if bit < 12 { order >> bit & 1 } else { bit & 1 } as usize;
                if learned[own].is_some() {
                    continue;
                }
                let controller = Controller::BOTH[own];
                let seen = highest_begun(&[OptionalSlots(disk)]);
                let slot = &mut slots[own];
                let ballot =
                    ballots[own].get_or_insert_with(|| Ballot::begin(alone(own as u128), controller, slot, seen));
                disk[own] = Some(*slot);
                match ballot.on_round(&[OptionalSlots(disk)], slot) {
                    Verdict::Again => {}
                    Verdict::Decided { record, .. } | Verdict::Overtaken(record) => {
                        learned[own] = Some(record);
                        learn(slot, record);
                        disk[own] = Some(*slot);
                    }
                    Verdict::Outbid => ballots[own] = None,
                    Verdict::Void => panic!("order {order:b}"),
                }
            }
            assert!(
                learned[0].is_some() && learned[0] == learned[1],
                "order {order:b}: {learned:?}"
            );
        }
    }
}
