//! Requests to send a message (MFCD [0062]).

use super::frame::{Mfc, SendStatus, XmfcId};
use crate::host::Status;
use crate::ids::{RieGeneration, RieIndex, TransferIndex};
use crate::memory::Memory;

/// A request to send a message: not the message, which is built when a frame has room for it [0064], but which routines
/// build it and hear of its end, and their context. What a message says is what is true when it is built.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Mfcd {
    /// The request of a write, of the express form with its data.
    Rqr {
        /// Which.
        rie: RieIndex,
        /// Its use.
        generation: RieGeneration,
        /// With the data.
        express: bool,
    },
    /// The data of a write.
    MirrorData {
        /// Which.
        rie: RieIndex,
        /// Its use.
        generation: RieGeneration,
    },
    /// What became of the data.
    Dss {
        /// Of which write.
        rie: RieIndex,
        /// Its use.
        generation: RieGeneration,
        /// Which arming.
        attempt: u8,
        /// What.
        status: SendStatus,
    },
    /// The write will not happen.
    Withdraw {
        /// Which.
        rie: RieIndex,
        /// Its use.
        generation: RieGeneration,
    },
    /// The mirror is armed.
    Rtr {
        /// For which write.
        rie: RieIndex,
        /// Its use.
        generation: RieGeneration,
    },
    /// The mirror waits for the data.
    Dto {
        /// Of which write.
        rie: RieIndex,
        /// Its use.
        generation: RieGeneration,
    },
    /// The mirror has absorbed the data.
    Mda {
        /// Of which write.
        rie: RieIndex,
        /// Its use.
        generation: RieGeneration,
    },
    /// All twins that are to be released.
    Release {
        /// Counts these requests.
        number: u64,
    },
    /// The joiner is let in.
    Attached,
    /// A portion of a host command, of a write with its data.
    Forward {
        /// The call.
        call: XmfcId,
        /// With data.
        write: bool,
    },
    /// The answer to one, of a read with its data.
    Forwarded {
        /// The partner's call.
        call: XmfcId,
        /// How it ended.
        status: Status,
        /// Where the data of a read are.
        read: Option<ReadData>,
    },
    /// A message of the cell machine, which was built beforehand: there are few, and nothing waits for them that counts.
    #[default]
    Prepared,
}

// Thousands may wait.
const _: () = assert!(size_of::<Mfcd>() <= 16);

/// A part of a transfer buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ReadData {
    /// Which.
    pub transfer: TransferIndex,
    /// The first block in it.
    pub first: u16,
    /// How many blocks.
    pub blocks: u16,
}

impl Mfcd {
    /// Whether data come with it: then it waits its turn behind whatever has none [0101].
    pub fn has_data(&self) -> bool {
        match self {
            Mfcd::Rqr { express, .. } => *express,
            Mfcd::MirrorData { .. } => true,
            Mfcd::Forward { write, .. } => *write,
            Mfcd::Forwarded { read, .. } => read.is_some(),
            _ => false,
        }
    }

    /// Whether only a mirror can be asked, or told, this: for whoever else is at the other end it makes no sense.
    pub fn is_for_mirror(&self) -> bool {
        use Mfcd::{Dss, MirrorData, Rqr, Withdraw};
        matches!(self, Rqr { .. } | MirrorData { .. } | Dss { .. } | Withdraw { .. })
    }
}

/// What a build routine returns [0063].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::large_enum_variant, reason = "it is looked at once, and at once")]
pub enum Built {
    /// The message, and the payload that belongs to it.
    Message(Mfc, Option<Memory>),
    /// The same, and another message is to be built of the same request.
    First(Mfc),
    /// It does not fit: into the next frame.
    TooLarge,
    /// There is nothing to be said any more.
    Nothing,
}
