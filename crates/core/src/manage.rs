//! What an operator can ask of a cell, and the answers.

use crate::ids::{Controller, DiskIndex, Epoch, NcaeIndex, Noid, Uuid};
use crate::layout::metadata::{Name, Redundancy};

/// A request of an operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ManageOp {
    /// Make a LUN.
    LunCreate {
        /// Its name.
        name: Name,
        /// Its identity, if it is made.
        uuid: Uuid,
        /// Its size in blocks, at least 1.
        blocks: u64,
        /// Its redundancy.
        redundancy: Redundancy,
    },
    /// Make a LUN larger.
    LunGrow {
        /// Which.
        name: Name,
        /// Its new size in blocks.
        blocks: u64,
    },
    /// Give a LUN another name.
    LunRename {
        /// Which.
        name: Name,
        /// The new name.
        to: Name,
    },
    /// Delete a LUN and all that is on it.
    LunDelete {
        /// Which.
        name: Name,
    },
    /// Make `to` the owner of a LUN (R11).
    LunMove {
        /// Which.
        name: Name,
        /// The new owner.
        to: Controller,
    },
    /// A disk does not answer any more: go on without it where there is another copy. Controllers ask this of
    /// themselves.
    DiskMissing {
        /// Which.
        disk: DiskIndex,
    },
    /// A disk that was missing answers again, and nothing that was to be written there before is on its way any more: bring
    /// it level. Controllers ask this of themselves, and of each other.
    DiskReturned {
        /// Which.
        disk: DiskIndex,
    },
    /// A disk is level: everything that has a copy there. Controllers ask this of themselves, and of each other for what the
    /// other owns.
    DiskLevel {
        /// Which.
        disk: DiskIndex,
        /// The record that says who owns what.
        epoch: Epoch,
    },
    /// Another medium, empty but for its label, takes the place of a missing disk, and is made level as soon as it answers.
    DiskReplace {
        /// Which.
        disk: DiskIndex,
        /// What the label of the new one says.
        uuid: Uuid,
        /// How many PSEGs it has.
        psegs: u32,
    },
    /// Whether the partner sees a majority of the disks that vote. Controllers ask this of each other.
    SeesDisks,
    /// Go on without the partner's memory, which may have what the disks lack: `ALONE(c, dirty)` without c (R8). Only a
    /// controller that waits for exactly this takes it.
    AcceptLoss {
        /// The controller whose memory is given up.
        missing: Controller,
    },
    /// Stop this controller: its LUNs are moved first if the partner is in, else everything is flushed to disk.
    Stop,
}

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ManageReply {
    /// The LUN exists on both controllers that are in.
    Lun {
        /// Its object id.
        noid: Noid,
        /// Its logical unit number.
        ncae: NcaeIndex,
        /// It was so already; nothing was changed.
        already: bool,
    },
    /// Done.
    Done,
    /// The controller stops now.
    Stopping,
}

/// Why it was not done; nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ManageError {
    /// This controller does not serve now.
    NotServing,
    /// The request is being decided with the partner, and the link broke: look what became of it.
    Unknown,
    /// Another change is under way; ask again.
    Busy,
    /// There is no LUN of that name.
    NoSuchLun,
    /// The name is taken by a LUN that differs.
    NameTaken,
    /// The pool has not enough free space on disks that the redundancy can use.
    PoolFull {
        /// PSEGs that are needed.
        needed: u64,
        /// PSEGs that could be had.
        free: u64,
    },
    /// No more than `LUNS_MAX` LUNs.
    TooManyLuns,
    /// A LUN does not shrink.
    Shrink {
        /// Its size in blocks.
        blocks: u64,
    },
    /// The controller that should own the LUN is not in.
    ControllerOut,
    /// Without this disk there would be no copy left of something.
    LastCopy,
    /// The disk is not what it would have to be for that.
    DiskNotReady,
    /// The metadata could not be written.
    DiskError,
    /// Data of the LUN that only NV memory has wait for a disk that is out of order.
    AwaitsDisk,
    /// This controller does not wait for that one's memory.
    NothingToAccept,
}

/// A LUN as hosts may see it now through this controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LunView {
    /// Logical unit number.
    pub ncae: NcaeIndex,
    /// Object id.
    pub noid: Noid,
    /// Name.
    pub name: Name,
    /// Identity.
    pub uuid: Uuid,
    /// Size in blocks.
    pub blocks: u64,
    /// Redundancy.
    pub redundancy: Redundancy,
    /// Which controller owns it now.
    pub owner: Controller,
    /// Whether it is between owners.
    pub moving: bool,
}
