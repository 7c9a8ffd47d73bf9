//! What happens to a controller: one half of the core's interface. The other is [`crate::effect::Effect`].

use crate::host::HostCommand;
use crate::ids::{BlockCount, CommandId, ConnectionId, DiskIndex, IoId, RequestId};
use crate::layout::metadata::Metadata;
use crate::link::frame::Frame;
use crate::manage::ManageOp;

/// A disk I/O failed: the device said so, or does not answer any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DiskError;

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// The first event: the process has started.
    Start,
    /// Nothing but time has passed.
    Tick,
    /// This controller's lock byte is held on every disk that can be reached: all disk writes of its
    /// predecessors are over (R5). Answers `TakeLocks`.
    LocksTaken,
    /// The partner can write no disk any more, and all that it had submitted is over (R5). Answers `Fence`.
    Fenced,
    /// Answers `SlotRead`: what was found is where [`crate::Core::slots_read_by`] said.
    SlotRead {
        /// Which read.
        io: IoId,
        /// How it ended.
        result: Result<(), DiskError>,
    },
    /// Answers `MetadataRead`.
    MetadataRead {
        /// Which read.
        io: IoId,
        /// What it found; an error also where the copy is damaged.
        metadata: Result<Box<Metadata>, DiskError>,
    },
    /// Answers every other effect with an `io`.
    DiskDone {
        /// Which.
        io: IoId,
        /// How it ended.
        result: Result<(), DiskError>,
    },
    /// A `DiskRead`, `DiskWrite`, `DiskFlush` or `MetadataWrite` has not ended for about a second, or a `DiskZero` for half a
    /// minute. Its memory may be used, and its place written, until its answer, which may come at any time, or never. Until all
    /// that is overdue on a disk has ended, whatever else is asked of the disk is answered with an error.
    DiskOverdue {
        /// Which.
        io: IoId,
    },
    /// A flush has failed that was part of another effect (a slot, metadata or zeroes), also of one that was answered before.
    /// What this controller had written to the disk and not flushed may be lost.
    FlushFailed {
        /// Which disk.
        disk: DiskIndex,
    },
    /// Answers `Persist`: every NV store made before it is durable.
    Persisted {
        /// From the effect.
        token: u64,
    },
    /// A connection to the partner is open.
    LinkOpened {
        /// On which path: below [`crate::link::path::PATHS_MAX`].
        path: u8,
        /// Which.
        connection: ConnectionId,
    },
    /// A connection to the partner is over, and everything posted on it was reaped.
    LinkClosed {
        /// Which.
        connection: ConnectionId,
    },
    /// A frame arrived, and its checks were good. Its messages are where [`crate::Core::place_of`] said. Its payload stays
    /// where the engine has it until the effects of this step are carried out.
    LinkFrame {
        /// Where.
        connection: ConnectionId,
        /// The frame.
        frame: Frame,
        /// Blocks of payload that came with it; 0 for none.
        payload: BlockCount,
    },
    /// A host sent a command.
    HostCommand(HostCommand),
    /// A host withdrew a command, or its connection is gone. The core still completes it, once.
    HostAbort {
        /// Which.
        id: CommandId,
    },
    /// Answers `Fetch`: the data are where they were wanted, or (`false`) will not come.
    HostData {
        /// Which command.
        id: CommandId,
        /// Whether all of it came.
        complete: bool,
    },
    /// An operator asks.
    Manage {
        /// Names the request in the answer.
        request: RequestId,
        /// What is asked.
        op: ManageOp,
    },
}

// Small enough to be moved through the queue of the engine.
const _: () = assert!(size_of::<Event>() <= 160);
