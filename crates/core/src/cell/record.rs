//! The membership record (R1): the one thing that both controllers agree on by ballot.

use crate::ids::{Controller, DiskIndex, Epoch, LUNS_MAX, NcaeIndex, ProcessId, QUORUM_MAX, Uuid};
use crate::list::List;

/// Who is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Both controllers are in; every acknowledged write is in both NV memories or on disk.
    Both,
    /// One controller is in, the other is inoperative.
    Alone {
        /// The one that is in.
        controller: Controller,
        /// Whether its NV memory may hold what the disks do not (R7).
        dirty: bool,
    },
}

/// Which controller owns each LUN: one bit by NCAE index, set for B.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Owners(pub [u64; LUNS_MAX / 64]);

impl Owners {
    /// The owner of LUN `lun`.
    pub fn get(&self, lun: NcaeIndex) -> Controller {
        if self.0[lun.index() / 64] >> (lun.index() % 64) & 1 == 1 {
            Controller::B
        } else {
            Controller::A
        }
    }

    /// Makes `owner` the owner of LUN `lun`.
    pub fn set(&mut self, lun: NcaeIndex, owner: Controller) {
        let bit = 1u64 << (lun.index() % 64);
        match owner {
            Controller::A => self.0[lun.index() / 64] &= !bit,
            Controller::B => self.0[lun.index() / 64] |= bit,
        }
    }

    /// `owner` owns every LUN.
    pub fn all(owner: Controller) -> Self {
        match owner {
            Controller::A => Owners([0; LUNS_MAX / 64]),
            Controller::B => Owners([u64::MAX; LUNS_MAX / 64]),
        }
    }
}

impl std::fmt::Debug for Owners {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let last = self.0.iter().rposition(|w| *w != 0).map_or(0, |i| i + 1);
        write!(f, "Owners{:x?}", &self.0[..last])
    }
}

/// Which copy of the metadata counts: metadata are written whole beside the ones in force, and the record that
/// names them commits them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct MetadataName {
    /// Counts the changes of the metadata, in the upper 32 bits; the lower 32 tell apart what different processes wrote
    /// for the same change, of which only one came into force.
    pub generation: u64,
    /// Which of the two areas on each quorum disk holds it: 0 or 1.
    pub copy: u8,
}

impl MetadataName {
    /// The generation after this one, as a writer with this `stamp` calls it.
    pub fn next_generation(self, stamp: u32) -> u64 {
        ((self.generation >> 32) + 1) << 32 | u64::from(stamp)
    }

    /// Whether this is a change of what `base` names.
    pub fn follows(self, base: MetadataName) -> bool {
        self.generation >> 32 == (base.generation >> 32) + 1
    }
}

/// The membership record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Record {
    /// One more than that of the record before it.
    pub epoch: Epoch,
    /// Who is in.
    pub mode: Mode,
    /// The NV images that are current, by controller; nil where none is. No other may be resolved (R8).
    pub images: [Uuid; 2],
    /// The owner of each LUN. In `Alone` it is what will hold when both are in; until then the one serves all.
    pub owners: Owners,
    /// The metadata in force.
    pub metadata: MetadataName,
    /// The disks that vote: an odd number, so that there is one majority.
    pub quorum: List<DiskIndex, QUORUM_MAX>,
}

impl Record {
    /// The record of a cell that was just created: A may start alone and lacks nothing.
    pub fn first(quorum: &[DiskIndex]) -> Self {
        Record {
            epoch: Epoch(1),
            mode: Mode::Alone {
                controller: Controller::A,
                dirty: false,
            },
            images: [Uuid::NIL; 2],
            owners: Owners::default(),
            metadata: MetadataName { generation: 1, copy: 0 },
            quorum: List::from_slice(quorum),
        }
    }

    /// `controller` goes on by itself, with `image` as the only current one, and owns every LUN.
    pub fn become_alone(&mut self, controller: Controller, dirty: bool, image: Uuid) {
        self.mode = Mode::Alone { controller, dirty };
        self.images = [Uuid::NIL; 2];
        self.images[controller.index()] = image;
        self.owners = Owners::all(controller);
    }

    /// Whether `controller` is in by itself.
    pub fn is_alone(&self, controller: Controller) -> bool {
        matches!(self.mode, Mode::Alone { controller: c, .. } if c == controller)
    }

    /// Whether `controller` is in.
    pub fn has(&self, controller: Controller) -> bool {
        match self.mode {
            Mode::Both => true,
            Mode::Alone { controller: c, .. } => c == controller,
        }
    }

    /// Whether `image` of `controller` may be resolved (R8).
    pub fn is_current(&self, controller: Controller, image: Uuid) -> bool {
        !image.is_nil() && self.images[controller.index()] == image
    }
}

/// A controller's own slot on a quorum disk: Disk Paxos (Gafni and Lamport) over one sector, which only its
/// controller writes. The instance that it votes on is the record after `record`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Slot {
    /// Whose slot.
    pub controller: Controller,
    /// The process that wrote it: what a fence kills (R5).
    pub process: ProcessId,
    /// Grows while the controller is alone and alive (R8).
    pub heartbeat: u64,
    /// The newest record that this controller knows to be committed.
    pub record: Record,
    /// The highest ballot that this controller began (Disk Paxos: mbal); 0 for none.
    pub begun: u64,
    /// The ballot in which it last wrote a proposal (Disk Paxos: bal); 0 for none.
    pub voted: u64,
    /// That proposal (Disk Paxos: inp); meaningless while `voted` is 0.
    pub proposal: Record,
}

impl Slot {
    /// A slot of `controller` that knows `record` and votes on nothing.
    pub fn idle(controller: Controller, process: ProcessId, record: Record) -> Self {
        Slot {
            controller,
            process,
            heartbeat: 0,
            record,
            begun: 0,
            voted: 0,
            proposal: record,
        }
    }
}
