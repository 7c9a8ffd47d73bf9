//! What can go wrong, and what an operator does.

use twincell_core::Effect;
use twincell_core::ids::Controller;
use twincell_core::memory::Memory;

/// A point at which a process may end: just before it carries out an effect of this kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Point {
    /// Mirror data go to their buffers.
    Absorb,
    /// Old data are merged.
    Merge,
    /// A status goes to a host.
    Complete,
    /// Data go to a disk.
    DiskWrite,
    /// A disk is flushed.
    DiskFlush,
    /// The own slot is written: a ballot.
    SlotWrite,
    /// Metadata are written.
    MetadataWrite,
    /// A new LUN's blocks are zeroed.
    DiskZero,
    /// A piece is written to a disk that is made level.
    DiskCopy,
    /// The partner is fenced.
    Fence,
    /// Hosts are accepted.
    Serve,
}

impl Point {
    /// All.
    pub const ALL: [Point; 11] = [
        Point::Absorb,
        Point::Merge,
        Point::Complete,
        Point::DiskWrite,
        Point::DiskFlush,
        Point::SlotWrite,
        Point::MetadataWrite,
        Point::DiskZero,
        Point::DiskCopy,
        Point::Fence,
        Point::Serve,
    ];

    /// Whether this effect is of the kind.
    pub fn is_at(self, effect: &Effect) -> bool {
        match self {
            Point::Absorb => matches!(effect, Effect::Absorb { .. }),
            Point::Merge => matches!(effect, Effect::Merge { .. }),
            Point::Complete => matches!(effect, Effect::Complete { .. }),
            Point::DiskWrite => matches!(effect, Effect::DiskWrite { .. }),
            Point::DiskFlush => matches!(effect, Effect::DiskFlush { .. }),
            Point::SlotWrite => matches!(effect, Effect::SlotWrite { .. }),
            Point::MetadataWrite => matches!(effect, Effect::MetadataWrite { .. }),
            Point::DiskZero => matches!(effect, Effect::DiskZero { .. }),
            Point::DiskCopy => matches!(
                effect,
                Effect::DiskWrite {
                    from: Memory::Transfer { .. },
                    ..
                }
            ),
            Point::Fence => matches!(effect, Effect::Fence { .. }),
            Point::Serve => matches!(effect, Effect::Serve),
        }
    }
}

/// A fault, or something that an operator does. Times are in milliseconds unless their name says otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    // ---- controllers ----
    /// The process ends at once; NV memory stays.
    Crash(Controller),
    /// The process ends in the middle of the effects of a step.
    CrashAfterEffects(Controller, u32),
    /// Both processes end.
    CrashBoth,
    /// Both processes end, each in the middle of the effects of a step.
    CrashBothAfterEffects(u32, u32),
    /// The process ends just before it carries out an effect of this kind.
    CrashBefore(Controller, Point),
    /// The same, and the partner's process ends so many microseconds later.
    CrashBothAround(Controller, Point, u64),
    /// Both end around a point, as above; and when they are back, the one that did not end at the point ends again so
    /// many microseconds after it serves: what it alone had is needed.
    CrashBothThenOne(Controller, Point, u64, u64),
    /// The process ends, and ends again so many microseconds after it was started: in the middle of its recovery.
    CrashInRecovery(Controller, u64),
    /// The process ends so many microseconds after it next begins to serve.
    CrashAfterServing(Controller, u64),
    /// The process is stopped for so long.
    Pause(Controller, u64),
    /// Both processes are stopped, each for so long.
    PauseBoth(u64, u64),
    /// Both processes end, and the shelf loses power.
    PowerLoss,
    /// The controller is lost with its NV memory; what is started in its place has an empty one.
    LoseNv(Controller),
    /// Both are.
    LoseBothNv,
    /// One bit of the words of an NV memory flips; nobody notices before the process ends.
    FlipNv(Controller, u64),
    /// The same, and the process ends at once.
    FlipNvAndCrash(Controller, u64),
    /// The clock of a controller runs at so many thousandths of true time.
    ClockRate(Controller, u64),
    /// The clock of a controller jumps forward.
    ClockJump(Controller, u64),

    // ---- the link ----
    /// The link is cut.
    CutLink(u64),
    /// The link carries nothing, and says nothing.
    SilentLink(u64),
    /// What is sent to this controller is lost; the other direction works.
    DeafLink(Controller, u64),
    /// One path is cut.
    CutPath(usize, u64),
    /// One path carries nothing, and says nothing.
    SilentPath(usize, u64),
    /// One path carries nothing to this controller.
    DeafPath(usize, Controller, u64),
    /// Frames are lost, doubled and late.
    LossyLink(u64),
    /// Bits flip in some frames: a checksum tells, and the connection ends.
    GarbledLink(u64),
    /// One path carries what is small; of what has data in it the data are spoiled, each time.
    SpoilingPath(usize, u64),
    /// The next frame to this controller is lost.
    LoseFrame(Controller),
    /// The next frame to this controller comes twice.
    DoubleFrame(Controller),
    /// The next frame to this controller has a flipped bit.
    GarbleFrame(Controller),

    // ---- disks ----
    /// A disk answers with errors.
    FailDisk(usize, u64),
    /// Writes of data to a disk end with errors; some of them land all the same.
    FailWrites(usize, u64),
    /// Flushes of a disk end with errors.
    FailFlushes(usize, u64),
    /// Reads of data of a disk end with errors.
    FailReads(usize, u64),
    /// Slots cannot be written to a disk.
    FailSlots(usize, u64),
    /// A disk answers one controller with errors, and the other as ever.
    LoseSight(Controller, usize, u64),
    /// All disks do.
    LoseSightOfAll(Controller, u64),
    /// All disks answer with errors.
    FailAll(u64),
    /// All disks answer nothing, and then everything.
    StallAll(u64),
    /// A disk answers nothing, and then everything.
    StallDisk(usize, u64),
    /// Whatever a disk is asked for takes so much longer, for so long.
    SlowDisk(usize, u64, u64),
    /// Writes of data to a part of a disk end with errors: from which block of its first PSEG on.
    BadRegion(usize, u64, u64),
    /// A disk is gone for good.
    LoseDisk(usize),
    /// Some blocks of a disk cannot be read until they are written anew: from which block of its first PSEG on, and how
    /// many.
    BadBlocks(usize, u64, u64),

    // ---- hosts and operators ----
    /// Every host withdraws what it has under way.
    WithdrawAll,
    /// An operator moves a LUN.
    MoveLun(u16, Controller),
    /// An operator makes, and later deletes, a LUN.
    CreateLun,
    /// The same, and the controller that is asked ends just before it carries out an effect of this kind.
    CreateLunAndCrash(Controller, Point),
    /// An operator makes the LUN that was made larger.
    GrowLun,
    /// An operator gives a LUN another name, or its old one again.
    RenameLun(u16),
    /// An operator deletes the LUN that was made.
    DeleteLun,
    /// An operator of a busy cell makes a LUN: its number, its size in blocks, whether it has two copies.
    MakeLun(u16, u64, bool),
    /// The operator makes it larger.
    EnlargeLun(u16, u64),
    /// The operator deletes it.
    DropLun(u16),
    /// An empty disk takes the place of one that is gone.
    ReplaceDisk(usize),
    /// An operator stops a controller cleanly.
    Stop(Controller),
    /// An operator tells a controller that its partner's memory will not come back.
    AcceptLoss(Controller),
}

impl Fault {
    /// Which path it is about, if it is about one.
    pub fn path(&self) -> Option<usize> {
        match self {
            Fault::CutPath(path, _)
            | Fault::SilentPath(path, _)
            | Fault::DeafPath(path, ..)
            | Fault::SpoilingPath(path, _) => Some(*path),
            _ => None,
        }
    }

    /// The same, on another disk, if it is about one.
    #[must_use]
    pub fn on_disk(self, other: impl Fn(usize) -> usize) -> Fault {
        match self {
            Fault::FailDisk(d, ms) => Fault::FailDisk(other(d), ms),
            Fault::FailWrites(d, ms) => Fault::FailWrites(other(d), ms),
            Fault::FailFlushes(d, ms) => Fault::FailFlushes(other(d), ms),
            Fault::FailReads(d, ms) => Fault::FailReads(other(d), ms),
            Fault::FailSlots(d, ms) => Fault::FailSlots(other(d), ms),
            Fault::LoseSight(c, d, ms) => Fault::LoseSight(c, other(d), ms),
            Fault::StallDisk(d, ms) => Fault::StallDisk(other(d), ms),
            Fault::SlowDisk(d, by, ms) => Fault::SlowDisk(other(d), by, ms),
            Fault::BadRegion(d, at, ms) => Fault::BadRegion(other(d), at, ms),
            Fault::LoseDisk(d) => Fault::LoseDisk(other(d)),
            Fault::BadBlocks(d, at, blocks) => Fault::BadBlocks(other(d), at, blocks),
            Fault::ReplaceDisk(d) => Fault::ReplaceDisk(other(d)),
            _ => self,
        }
    }

    /// The same, but milder, if there is such a thing: for whoever looks for the least that still fails.
    pub fn milder(self) -> Option<Fault> {
        let less = |n: u64| (n > 1).then_some(n / 2);
        Some(match self {
            Fault::Pause(c, ms) => Fault::Pause(c, less(ms)?),
            Fault::PauseBoth(a, b) => Fault::PauseBoth(less(a)?, less(b)?),
            Fault::CutLink(ms) => Fault::CutLink(less(ms)?),
            Fault::SilentLink(ms) => Fault::SilentLink(less(ms)?),
            Fault::DeafLink(c, ms) => Fault::DeafLink(c, less(ms)?),
            Fault::CutPath(n, ms) => Fault::CutPath(n, less(ms)?),
            Fault::SilentPath(n, ms) => Fault::SilentPath(n, less(ms)?),
            Fault::DeafPath(n, c, ms) => Fault::DeafPath(n, c, less(ms)?),
            Fault::SpoilingPath(n, ms) => Fault::SpoilingPath(n, less(ms)?),
            Fault::LossyLink(ms) => Fault::LossyLink(less(ms)?),
            Fault::GarbledLink(ms) => Fault::GarbledLink(less(ms)?),
            Fault::FailDisk(d, ms) => Fault::FailDisk(d, less(ms)?),
            Fault::FailWrites(d, ms) => Fault::FailWrites(d, less(ms)?),
            Fault::StallDisk(d, ms) => Fault::StallDisk(d, less(ms)?),
            Fault::SlowDisk(d, by, ms) => Fault::SlowDisk(d, by, less(ms)?),
            Fault::BadRegion(d, at, ms) => Fault::BadRegion(d, at, less(ms)?),
            Fault::FailFlushes(d, ms) => Fault::FailFlushes(d, less(ms)?),
            Fault::FailReads(d, ms) => Fault::FailReads(d, less(ms)?),
            Fault::FailSlots(d, ms) => Fault::FailSlots(d, less(ms)?),
            Fault::LoseSight(c, d, ms) => Fault::LoseSight(c, d, less(ms)?),
            Fault::LoseSightOfAll(c, ms) => Fault::LoseSightOfAll(c, less(ms)?),
            Fault::FailAll(ms) => Fault::FailAll(less(ms)?),
            Fault::StallAll(ms) => Fault::StallAll(less(ms)?),
            Fault::BadBlocks(d, at, blocks) => Fault::BadBlocks(d, at, less(blocks)?),
            Fault::ClockJump(c, ms) => Fault::ClockJump(c, less(ms)?),
            Fault::CrashInRecovery(c, _) | Fault::CrashAfterServing(c, _) => Fault::Crash(c),
            Fault::CrashAfterEffects(c, _) | Fault::CrashBefore(c, _) => Fault::Crash(c),
            Fault::CrashBothThenOne(c, point, us, _) => Fault::CrashBothAround(c, point, us),
            Fault::CrashBothAround(..) | Fault::CrashBothAfterEffects(..) | Fault::PowerLoss => Fault::CrashBoth,
            Fault::LoseNv(c) | Fault::FlipNvAndCrash(c, _) => Fault::Crash(c),
            Fault::CrashBoth => Fault::Crash(Controller::A),
            _ => return None,
        })
    }
}
