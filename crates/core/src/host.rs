//! Host commands in a form that no protocol owns (DESIGN section 1, rule 6).

use crate::ids::{BlockCount, CommandId, NcaeIndex, Noid, Vba};

/// What a host wants done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HostOp {
    /// Read the range.
    Read,
    /// Write the range.
    Write {
        /// Status only when the data are on disk (force unit access).
        fua: bool,
    },
    /// Status when everything that was acknowledged before is on disk (SYNCHRONIZE CACHE). The range is ignored:
    /// the whole LUN is meant.
    Sync,
}

/// A host command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct HostCommand {
    /// The engine's name for it.
    pub id: CommandId,
    /// The LUN's place in the NCA.
    pub ncae: NcaeIndex,
    /// The virtual disk that the session meant: a LUN that took the place of another is not it.
    pub noid: Noid,
    /// What to do.
    pub op: HostOp,
    /// First block.
    pub start: Vba,
    /// How many; may be 0.
    pub blocks: BlockCount,
    /// Of a write: how many blocks, from the first on, the session has in hand already.
    pub in_hand: BlockCount,
}

/// How a host command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Status {
    /// Done.
    Good,
    /// Withdrawn by the host, or its connection is gone. Whether it took effect is not said: a command that is known to
    /// have done so ends `Good` despite its abort.
    Aborted,
    /// Not done; the host should try again, here or on another path (SCSI: BUSY).
    Busy,
    /// The LUN is between owners for a moment (SCSI: 02/04/0A).
    Transitioning,
    /// There is no such LUN, or not any more (SCSI: 05/25/00).
    NoSuchLun,
    /// The range is not on the LUN (SCSI: 05/21/00).
    OutOfRange,
    /// A disk could not be read, and no other copy could (SCSI: 03/11/00).
    ReadError,
    /// A disk could not be written (SCSI: 03/0C/00).
    WriteError,
}
