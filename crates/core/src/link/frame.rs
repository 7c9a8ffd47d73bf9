//! What travels on the link: frames, and the message function calls in them [0061] [0063].

use crate::cell::record::Record;
use crate::host::{HostOp, Status};
use crate::ids::{
    ATOMIC_GRANULES, BlockCount, BufferIndex, Controller, Epoch, Incarnation, Nanos, NcaeIndex, Noid, ProcessId,
    RieGeneration, RieIndex, Time, TransferIndex, Uuid, Vba,
};
use crate::list::List;
use crate::manage::{ManageError, ManageOp, ManageReply};
use crate::memory::Memory;

/// Bytes of a frame, without its payload: "approximately 2000" [0061].
pub const FRAME_BYTES_MAX: usize = 2000;
/// Most messages in one frame.
pub const FRAME_MFCS_MAX: usize = 8;
/// Most buffers that one `Release` names.
pub const RELEASE_MAX: usize = 32;
/// Most RIEs that one `LevelRies` names.
pub const LEVEL_RIES_MAX: usize = 32;
/// Buffers that one `LevelBuffers` covers: 64 for each word.
pub const LEVEL_BUFFERS: u32 = 512;

/// A frame of the link, without the messages in it: those are in the place of the window that the frame names. Everything
/// but `Hello` belongs to the incarnation that it names, and is ignored in another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Frame {
    /// The first on a connection, in both directions.
    Hello(Hello),
    /// "I am here": answered at once, outside the window, so that an answer shows a controller that serves its DFQ.
    Heartbeat {
        /// The incarnation.
        incarnation: Incarnation,
        /// The sender's clock; comes back in the answer.
        sent: Time,
    },
    /// The answer, and with it a grant: its receiver may serve for `grant` from `sent` on (R2).
    HeartbeatAnswer {
        /// The incarnation.
        incarnation: Incarnation,
        /// From the heartbeat that is answered.
        sent: Time,
        /// How long the grant lasts; zero where the sender grants nothing.
        grant: Nanos,
    },
    /// Acknowledges frames while there is nothing to send.
    Ack {
        /// The incarnation.
        incarnation: Incarnation,
        /// All frames before this sequence number were handled.
        acknowledged: u32,
        /// What has come since.
        missing: Missing,
    },
    /// Messages, in the window.
    Messages(Sequenced),
}

/// What a controller says of itself when a connection opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Hello {
    /// Who it is.
    pub controller: Controller,
    /// The cell that it belongs to.
    pub cell: Uuid,
    /// Fresh at each start of the process: a restarted controller is another instance.
    pub instance: Uuid,
    /// The process, for the fence.
    pub process: ProcessId,
    /// Its last incarnation; a new one is the larger of both, plus one.
    pub incarnation: Incarnation,
    /// The incarnation that goes on, on other paths, and the partner's instance that it goes on with; 0 and `NIL` if none.
    pub session: Incarnation,
    /// See `session`.
    pub met: Uuid,
    /// The epoch of the record that it has just read.
    pub epoch: Epoch,
    /// Its NV image.
    pub image: Uuid,
    /// Whether it has proposed a change of the record and does not know the result (R6).
    pub undecided: bool,
    /// NV buffers of each of its segment pairs: both must have as many, because the primary names those of the mirror.
    pub buffers: u32,
}

impl Hello {
    /// Whether it says the same of the record and of the image: what follows from `other` follows from this one, too.
    pub fn stands_as(&self, other: &Hello) -> bool {
        (self.epoch, self.image, self.undecided) == (other.epoch, other.image, other.undecided)
    }
}

/// What an acknowledgement says of frames that came before their turn; all others before the last of them are missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Missing {
    /// The frame after the last that came; the acknowledged one where none is missing.
    pub seen: u32,
    /// Those that are kept: bit n for frame `acknowledged + n`.
    pub held: u64,
}

/// Names a frame of the window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Sequenced {
    /// The incarnation.
    pub incarnation: Incarnation,
    /// Its place in the order; wraps.
    pub sequence: u32,
    /// All of the partner's frames before this sequence number were handled.
    pub acknowledged: u32,
}

/// The messages of one frame, handled in this order.
pub type Mfcs = List<Mfc, FRAME_MFCS_MAX>;

/// What is in a place of the window at the sender: messages, and at most one piece of payload, which belongs to the last
/// of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Messages {
    /// The messages.
    pub mfcs: Mfcs,
    /// Where the payload is.
    pub payload: Option<Memory>,
}

/// Request read [0080]: the primary names everything that the mirror needs, and the mirror allocates nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rqr {
    /// The RIE, and by its index the mirror RIE and the MNODE.
    pub rie: RieIndex,
    /// This use of the RIE.
    pub generation: RieGeneration,
    /// The virtual disk.
    pub noid: Noid,
    /// Its place in the NCA of both.
    pub ncae: NcaeIndex,
    /// First block.
    pub start: Vba,
    /// How many.
    pub blocks: BlockCount,
    /// Of a request for data that are carried to a joiner, which are one granule: its valid blocks, bit n for block n. All of
    /// them of any other.
    pub valid: u8,
    /// The new buffers, one for each granule of the range, in order.
    pub new: List<BufferIndex, ATOMIC_GRANULES>,
    /// The old buffers, in any order.
    pub old: List<BufferIndex, ATOMIC_GRANULES>,
    /// The data come with this very frame: no RTR.
    pub express: bool,
}

/// Names an extended call and its use [0073].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct XmfcId {
    /// The caller's index.
    pub index: u16,
    /// Counts the uses of the index.
    pub generation: u16,
}

/// What an extended call asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Request {
    /// A host command that came to the controller that does not own the LUN. A write's data are the payload.
    Forward {
        /// What to do.
        op: HostOp,
        /// The virtual disk.
        noid: Noid,
        /// Its place in the NCA.
        ncae: NcaeIndex,
        /// First block.
        start: Vba,
        /// How many: at most [`crate::ids::ATOMIC_BLOCKS`].
        blocks: BlockCount,
        /// The owner's transfer buffer, allocated by the caller: a named remote resource [0070].
        transfer: TransferIndex,
        /// Refused in another epoch (R12).
        epoch: Epoch,
    },
    /// An operator's request that the partner has to carry out.
    Manage(ManageOp),
}

/// The answer to an extended call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Response {
    /// To `Forward`. The data of a read are the payload, for the caller's transfer buffer.
    Forwarded(Status),
    /// To `Manage`.
    Managed(Result<ManageReply, ManageError>),
}

/// What became of the data of a write, as its primary knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SendStatus {
    /// The host has not sent them yet: keep waiting.
    NotYetSent,
    /// They were sent: arm again, and say so.
    Sent,
    /// The write is over: release what it holds.
    Aborted,
}

/// A message function call: what is to be done at the receiver, with all that it takes to do it [0061].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Mfc {
    /// Prepare for the data of a write [0080].
    Rqr(Rqr),
    /// Ready to receive [0081].
    Rtr {
        /// The RIE.
        rie: RieIndex,
        /// Its use.
        generation: RieGeneration,
        /// Which arming of the reception: data for an earlier one are refused.
        attempt: u8,
    },
    /// The data of a write; they are the frame's payload.
    MirrorData {
        /// The RIE.
        rie: RieIndex,
        /// Its use.
        generation: RieGeneration,
        /// From the RTR.
        attempt: u8,
    },
    /// Mirror data absorbed [0083].
    Mda {
        /// The RIE.
        rie: RieIndex,
        /// Its use.
        generation: RieGeneration,
    },
    /// Data timed out: the mirror has waited too long for the data that it is armed for. Until the answer it says no
    /// MDA (DESIGN section 4).
    Dto {
        /// The RIE.
        rie: RieIndex,
        /// Its use.
        generation: RieGeneration,
        /// Which arming.
        attempt: u8,
    },
    /// Data send status, the answer to `Dto`.
    Dss {
        /// The RIE.
        rie: RieIndex,
        /// Its use.
        generation: RieGeneration,
        /// From the `Dto`.
        attempt: u8,
        /// What became of the data.
        status: SendStatus,
    },
    /// The write will not happen: the host withdrew it before its data came.
    Withdraw {
        /// The RIE.
        rie: RieIndex,
        /// Its use.
        generation: RieGeneration,
    },
    /// These twins are free: their data are on disk.
    Release(List<BufferIndex, RELEASE_MAX>),
    /// R6: of these RIEs of the sender's pair, all Valid in its image, which are not Valid at the receiver?
    LevelRies(List<(RieIndex, RieGeneration), LEVEL_RIES_MAX>),
    /// R6, the answer: these are not; the asker drops them.
    LevelLacks(List<(RieIndex, RieGeneration), LEVEL_RIES_MAX>),
    /// R6: the buffers of the sender's pair that are valid in its image, one bit each; the receiver frees the others.
    LevelBuffers {
        /// The first buffer that it covers.
        first: BufferIndex,
        /// Bit n of word w is buffer `first + 64 * w + n`.
        valid: [u64; LEVEL_BUFFERS as usize / 64],
    },
    /// R6: that was all of the sender's pair.
    #[default]
    LevelEnd,
    /// R6: the sender's copy of the receiver's pair is level (`true`), or lacks what it must have (`false`).
    Leveled(bool),
    /// R9: the sender, whose image is empty, wants to join.
    Attach {
        /// Its fresh image.
        image: Uuid,
    },
    /// R9: the fence is lifted; once the joiner holds its disk locks it says `Attach` again with them.
    Unfenced,
    /// R9: the joiner holds its locks; from here on every write is mirrored to it.
    Attached,
    /// The record as committed; the receiver adopts it if it is newer, once it has the metadata that it names.
    RecordIs(Record),
    /// The sender has adopted the record of this epoch.
    RecordAdopted(Epoch),
    /// The sender means to stop: ballot `ALONE(self)` without waiting for its silence.
    Leaving,
    /// An extended call.
    Request {
        /// Which.
        id: XmfcId,
        /// What is asked.
        request: Request,
    },
    /// The answer to one.
    Response {
        /// Which.
        id: XmfcId,
        /// The answer.
        response: Response,
    },
}

impl Mfc {
    /// An upper bound of the bytes of the message in a frame, its 4-byte header included.
    pub fn bytes(&self) -> usize {
        4 + match self {
            Mfc::Rqr(rqr) => 32 + 4 * (rqr.new.len() + rqr.old.len()),
            Mfc::Rtr { .. } | Mfc::MirrorData { .. } | Mfc::Dto { .. } | Mfc::Dss { .. } => 8,
            Mfc::Mda { .. } | Mfc::Withdraw { .. } | Mfc::Leveled(_) => 8,
            Mfc::Release(buffers) => 4 + 4 * buffers.len(),
            Mfc::LevelRies(ries) | Mfc::LevelLacks(ries) => 4 + 4 * ries.len(),
            Mfc::LevelBuffers { .. } => 8 + LEVEL_BUFFERS as usize / 8,
            Mfc::LevelEnd | Mfc::Unfenced | Mfc::Attached | Mfc::Leaving => 0,
            Mfc::Attach { .. } => 16,
            Mfc::RecordIs(_) => 256,
            Mfc::RecordAdopted(_) => 8,
            Mfc::Request { .. } => 256,
            Mfc::Response { .. } => 64,
        }
    }
}
