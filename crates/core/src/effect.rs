//! What a controller wants done: one half of the core's interface. The other is [`crate::event::Event`].
//!
//! Effects are carried out **in order**. In particular the effect of a `Store` is there before anything after it is
//! visible outside the controller: that order is what makes a commit by one store true.

use crate::host::Status;
use crate::ids::{
    BlockCount, BufferIndex, CommandId, ConnectionId, Controller, DiskIndex, Epoch, IoId, NvAddress, ProcessId,
    RequestId, TransferIndex, Uuid,
};
use crate::link::frame::Frame;
use crate::manage::{ManageError, ManageReply};
use crate::memory::{Memory, Sgl};

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Effect {
    /// Store one word of NV memory; 8 bytes, atomic.
    Store {
        /// Where.
        address: NvAddress,
        /// What.
        word: u64,
    },
    /// Empty the whole NV image and give it this identity; the old identity is gone first.
    NewImage {
        /// Fresh.
        uuid: Uuid,
    },
    /// Answer `Persisted` when every NV store before this is durable.
    Persist {
        /// Comes back.
        token: u64,
    },
    /// Note the checksum of the valid blocks of an NV buffer; it is verified when the buffer is written to disk.
    Seal {
        /// Which.
        buffer: BufferIndex,
        /// Its valid blocks, bit n for block n.
        mask: u8,
    },
    /// Copy blocks of one NV buffer to the same places of another: old data that a write covers only in part.
    Merge {
        /// The old.
        from: BufferIndex,
        /// The new.
        to: BufferIndex,
        /// Which blocks, bit n for block n.
        mask: u8,
    },
    /// Copy from NV buffers to a transfer buffer.
    Gather {
        /// Where from.
        from: Sgl,
        /// Where to.
        transfer: TransferIndex,
        /// The first block in it.
        first: u16,
    },
    /// Copy from a transfer buffer to NV buffers.
    Scatter {
        /// Where from.
        transfer: TransferIndex,
        /// The first block in it.
        first: u16,
        /// Where to.
        into: Sgl,
    },
    /// Fetch data of a write from the host: take what is in hand, ask for the rest. Answer `HostData`.
    Fetch {
        /// Which command.
        id: CommandId,
        /// From which block of its data on.
        offset: BlockCount,
        /// Where to; its length says how much.
        into: Memory,
    },
    /// Close the connection that this command came on: its host does not send what it was asked for, and others wait; or it may have
    /// given this path up (R12).
    /// `HostData` and `HostAbort` follow as with any connection that ends.
    EndHost {
        /// Which command.
        id: CommandId,
    },
    /// Send data of a read to the host. The memory may be used again at once: the engine takes a copy.
    SendData {
        /// Which command.
        id: CommandId,
        /// From which block of its data on.
        offset: BlockCount,
        /// Where from.
        from: Memory,
    },
    /// The command is over; its id is not used any more.
    Complete {
        /// Which command.
        id: CommandId,
        /// How it ended.
        status: Status,
    },
    /// Copy the payload of the frame that is being handled.
    Absorb {
        /// Where to; its length is that of the payload.
        into: Memory,
    },
    /// Send a frame. Its messages and payload are what [`crate::Core::messages`] gives now; all of that may be used again
    /// at once.
    LinkSend {
        /// On which connection.
        connection: ConnectionId,
        /// The frame.
        frame: Frame,
    },
    /// End a connection to the partner; `LinkClosed` follows.
    LinkClose {
        /// Which.
        connection: ConnectionId,
    },
    /// Read blocks of a disk. Whole granules.
    DiskRead {
        /// Names it in the answer.
        io: IoId,
        /// The disk.
        disk: DiskIndex,
        /// First block, from the beginning of the disk.
        block: u64,
        /// Where to; its length says how much.
        into: Memory,
    },
    /// Write blocks of a disk. Not durable before a `DiskFlush` that is issued after its answer.
    DiskWrite {
        /// Names it in the answer.
        io: IoId,
        /// The disk.
        disk: DiskIndex,
        /// First block, from the beginning of the disk.
        block: u64,
        /// Where from; its length says how much. Not changed until the answer.
        from: Memory,
    },
    /// Make everything durable whose answer came before.
    DiskFlush {
        /// Names it in the answer.
        io: IoId,
        /// The disk.
        disk: DiskIndex,
    },
    /// Make blocks of a disk read as zero, durably.
    DiskZero {
        /// Names it in the answer.
        io: IoId,
        /// The disk.
        disk: DiskIndex,
        /// First block, from the beginning of the disk.
        block: u64,
        /// How many.
        blocks: u64,
    },
    /// Look whether a disk is there, is the one that is meant, and answers; and whether this controller holds on it the lock
    /// bytes that it holds on the others. Answer `DiskDone`.
    DiskProbe {
        /// Names it in the answer.
        io: IoId,
        /// The disk.
        disk: DiskIndex,
        /// What its label has to say.
        uuid: Uuid,
    },
    /// Read both controllers' slots of a quorum disk, from the medium. Answer `SlotRead`.
    SlotRead {
        /// Names it in the answer.
        io: IoId,
        /// The disk.
        disk: DiskIndex,
    },
    /// Write this controller's own slot of a quorum disk, both copies, durably: what [`crate::Core::slot_written_by`] gives.
    /// Answer `DiskDone`.
    SlotWrite {
        /// Names it in the answer.
        io: IoId,
        /// The disk.
        disk: DiskIndex,
    },
    /// Read a copy of the metadata. Answer `MetadataRead`.
    MetadataRead {
        /// Names it in the answer.
        io: IoId,
        /// The disk.
        disk: DiskIndex,
        /// Which of the two areas.
        copy: u8,
    },
    /// Write the metadata that [`crate::controller::Core::metadata_to_write`] gives, durably. Answer `DiskDone`.
    MetadataWrite {
        /// Names it in the answer.
        io: IoId,
        /// The disk.
        disk: DiskIndex,
        /// Which of the two areas.
        copy: u8,
    },
    /// Take this controller's own lock byte on every disk, waiting for whoever holds it (R5). Answer `LocksTaken`.
    TakeLocks,
    /// Fence the partner (R5): end its process where it can be seen, take its lock byte on every disk, keep them.
    /// Answer `Fenced`.
    Fence {
        /// The process to end, if it is still that one.
        process: ProcessId,
    },
    /// Give the partner's lock bytes back.
    Unfence,
    /// Close every host connection and accept no more until `Serve`. Commands of theirs are still completed.
    CloseHosts,
    /// Accept hosts. The order of a takeover ends here (R10).
    Serve,
    /// What hosts may see has changed: LUNs, sizes, owners, path states.
    ViewChanged,
    /// Answer an operator.
    Reply {
        /// The request.
        request: RequestId,
        /// The answer.
        result: Result<ManageReply, ManageError>,
    },
    /// This controller is out (R4): close host connections without a status, reap every disk I/O, then start anew.
    Restart,
    /// Everything is on disk, the record says so: end the process and remove the NV image.
    Exit,
    /// End the process and keep the NV image: what it holds is still needed, or worth nothing.
    Halt,
    /// For the story of the cell.
    Note(Note),
}

/// What is worth telling an operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Note {
    /// This controller waits for its partner, whose image it needs or which may be ahead of it.
    AwaitsPartner,
    /// The partner cannot be reached; nothing is acknowledged until a ballot has decided.
    PartnerUnreachable,
    /// A ballot is under way.
    BallotBegun,
    /// The record was changed by this controller.
    BallotWon {
        /// To this epoch.
        epoch: Epoch,
    },
    /// The partner's proposal won.
    BallotLost {
        /// The epoch.
        epoch: Epoch,
    },
    /// The partner is fenced.
    PartnerFenced,
    /// The NV image was resolved [0085].
    Resolved {
        /// Buffers with data that the disks may lack.
        valid: u32,
        /// Writes in progress that were absorbed.
        absorbed: u32,
        /// Writes in progress that were dropped, never acknowledged.
        dropped: u32,
    },
    /// This controller serves hosts.
    Serving {
        /// With the partner.
        mirrored: bool,
    },
    /// The partner's cache has another size than this controller's: there can be no link.
    OtherCache {
        /// NV buffers of each of the partner's segment pairs.
        buffers: u32,
    },
    /// The partner joins.
    PartnerJoins,
    /// The partner is in again: writes are mirrored and acknowledged from memory.
    Mirrored,
    /// Both NV images were made level after a restart of both (R6).
    Leveled,
    /// Most disks fail here, and the partner sees them: this controller gives way.
    Blind,
    /// This controller is out and starts anew (R4).
    Out,
    /// `ALONE(c, dirty)` without c: an operator has to accept the loss (R8).
    AwaitsOperator {
        /// The controller whose NV memory is missing.
        missing: Controller,
    },
    /// The record names an NV image of this controller that is not there any more (R8): its server was restarted, or the
    /// memory is damaged.
    ImageLost {
        /// The partner's is not there, either: what was acknowledged and not yet on disk is lost.
        both: bool,
    },
    /// An operator has accepted the loss of what only that memory had.
    LossAccepted {
        /// The controller whose NV memory is given up.
        missing: Controller,
    },
    /// A disk failed.
    DiskFailed {
        /// Which.
        disk: DiskIndex,
    },
    /// The owner of a LUN changed.
    LunMoved {
        /// The LUN.
        lun: crate::ids::NcaeIndex,
        /// The new owner.
        to: Controller,
    },
}

// A write has dozens of effects: they are small enough to be moved.
const _: () = assert!(size_of::<Effect>() <= 304);
