//! Moments in what a controller does. A fault that comes just then meets what thousands of faults at random times miss.

use crate::fault::Point;
use twincell_core::cell::record::{Mode, Record, Slot};
use twincell_core::effect::Note;
use twincell_core::link::frame::{Frame, Mfc, Request, Response};
use twincell_core::{Core, Effect};

/// The moments, and all of them in a row.
macro_rules! instants {
    ($($(#[$what:meta])* $name:ident,)*) => {
        /// A moment at one controller.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Instant {
            $($(#[$what])* $name,)*
        }

        impl Instant {
            /// All.
            pub const ALL: &[Instant] = &[$(Instant::$name,)*];
        }
    };
}

instants! {
    // ---- ballots ----
    /// It writes the number of a ballot that it begins.
    BallotBegins,
    /// It writes a vote: that it is alone.
    VoteForAlone,
    /// That both are in.
    VoteForBoth,
    /// That it is clean, or dirty.
    VoteForClean,
    /// That a LUN has another owner.
    VoteForOwner,
    /// That other metadata are in force.
    VoteForMetadata,
    /// A vote of its reaches a disk.
    VoteLands,
    /// It tells its partner of a new record.
    RecordTold,
    /// It says that it goes by a new record.
    RecordAdopted,
    // ---- membership ----
    /// It wants its locks.
    LocksWanted,
    /// It fences its partner.
    Fence,
    /// It lifts the fence.
    Unfenced,
    /// It asks to be let in.
    Attach,
    /// It begins to mirror to a joiner.
    Attached,
    /// It asks a joiner to mirror a write.
    MirroredToJoiner,
    /// A joiner absorbs the data of a write.
    JoinerAbsorbs,
    /// It has an empty image.
    FreshImage,
    /// It begins to make both images level.
    LevelBegins,
    /// It has said all of its pair.
    LevelEnd,
    /// It says that its copy is level.
    Leveled,
    /// It resolves its image.
    Resolved,
    /// It begins to serve.
    Serve,
    /// It loses sight of its partner.
    PartnerUnreachable,
    /// It says that it leaves.
    Leaving,
    /// It closes the connections of hosts.
    HostsClosed,
    // ---- tasks ----
    /// It asks its partner to do something for an operator, or about a disk.
    TaskAsked,
    /// It answers that.
    TaskAnswered,
    /// It zeroes what a LUN is to have.
    Zeroes,
    /// It writes metadata.
    MetadataWritten,
    /// Metadata of its reach a disk.
    MetadataLand,
    /// It takes a LUN out of service for a moment.
    Quiesced,
    // ---- disks ----
    /// It finds a disk to be out of order.
    DiskFails,
    /// It looks at a missing disk.
    Probe,
    /// It writes a piece to a disk that is made level.
    Copy,
    /// It flushes a disk.
    Flush,
    /// An I/O of its has taken long.
    Overdue,
    /// A write of its lands that has taken long.
    LateLanding,
    // ---- data ----
    /// It says that buffers are free.
    Release,
    /// It withdraws a write.
    Withdraw,
    /// It has waited too long for data.
    DataTimedOut,
    /// It hands a command to the owner of its LUN.
    Forward,
}

impl Instant {
    /// The moments that an effect of `core` is.
    pub fn of_effect(effect: &Effect, core: &Core, mut found: impl FnMut(Instant)) {
        let instant = match effect {
            Effect::SlotWrite { io, .. } => core.slot_written_by(*io).and_then(of_slot),
            Effect::LinkSend {
                frame: Frame::Messages(sequenced),
                ..
            } => {
                let joining = core.cell_view().joining;
                let messages = &core.messages(sequenced).mfcs;
                messages
                    .iter()
                    .filter_map(|m| of_message(m, joining))
                    .for_each(&mut found);
                None
            }
            Effect::Absorb { .. } => {
                let joins = core.cell_view().phase == twincell_core::cell::Phase::Joining;
                joins.then_some(Instant::JoinerAbsorbs)
            }
            Effect::ViewChanged => core.luns().any(|l| l.moving).then_some(Instant::Quiesced),
            effect => of_other(effect),
        };
        instant.into_iter().for_each(found);
    }
}

/// What a slot that is written says.
fn of_slot(slot: &Slot) -> Option<Instant> {
    if slot.voted > 0 {
        Some(of_vote(&slot.record, &slot.proposal))
    } else {
        (slot.begun > 0).then_some(Instant::BallotBegins)
    }
}

fn of_vote(now: &Record, next: &Record) -> Instant {
    match next.mode {
        Mode::Both if now.mode != Mode::Both => Instant::VoteForBoth,
        Mode::Alone { .. } if now.mode == Mode::Both => Instant::VoteForAlone,
        _ if now.metadata != next.metadata => Instant::VoteForMetadata,
        _ if now.owners != next.owners => Instant::VoteForOwner,
        Mode::Alone { controller, .. } if now.is_alone(controller) => Instant::VoteForClean,
        _ => Instant::VoteForAlone,
    }
}

fn of_message(mfc: &Mfc, joining: bool) -> Option<Instant> {
    Some(match mfc {
        Mfc::RecordIs(_) => Instant::RecordTold,
        Mfc::RecordAdopted(_) => Instant::RecordAdopted,
        Mfc::Unfenced => Instant::Unfenced,
        Mfc::Attach { .. } => Instant::Attach,
        Mfc::Attached => Instant::Attached,
        Mfc::Rqr(_) if joining => Instant::MirroredToJoiner,
        Mfc::LevelRies(_) => Instant::LevelBegins,
        Mfc::LevelEnd => Instant::LevelEnd,
        Mfc::Leveled(_) => Instant::Leveled,
        Mfc::Leaving => Instant::Leaving,
        Mfc::Release(_) => Instant::Release,
        Mfc::Withdraw { .. } => Instant::Withdraw,
        Mfc::Dto { .. } => Instant::DataTimedOut,
        Mfc::Request {
            request: Request::Manage(_),
            ..
        } => Instant::TaskAsked,
        Mfc::Request { .. } => Instant::Forward,
        Mfc::Response {
            response: Response::Managed(_),
            ..
        } => Instant::TaskAnswered,
        _ => return None,
    })
}

fn of_other(effect: &Effect) -> Option<Instant> {
    Some(match effect {
        Effect::TakeLocks => Instant::LocksWanted,
        Effect::Fence { .. } => Instant::Fence,
        Effect::NewImage { .. } => Instant::FreshImage,
        Effect::Serve => Instant::Serve,
        Effect::CloseHosts => Instant::HostsClosed,
        Effect::DiskZero { .. } => Instant::Zeroes,
        Effect::MetadataWrite { .. } => Instant::MetadataWritten,
        Effect::DiskProbe { .. } => Instant::Probe,
        Effect::DiskFlush { .. } => Instant::Flush,
        Effect::Note(Note::Resolved { .. }) => Instant::Resolved,
        Effect::Note(Note::PartnerUnreachable) => Instant::PartnerUnreachable,
        Effect::Note(Note::DiskFailed { .. }) => Instant::DiskFails,
        effect if Point::DiskCopy.is_at(effect) => Instant::Copy,
        _ => return None,
    })
}
