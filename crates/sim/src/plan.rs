//! Which faults a seed brings, and when. All are within the promise of DESIGN section 9: NV memory is lost only while the
//! partner has everything.

use crate::hosts::{HOSTS, HOT, NARROW};
use crate::random::Random;
use std::ops::Range;
use twincell_core::Effect;
use twincell_core::ids::Controller;

const MS: u64 = 1_000_000;
/// One pause of a host in so many is long.
pub const LONG_PAUSES: u64 = 8;

/// A point at which a process may end: just before it carries out an effect of this kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
    /// The partner is fenced.
    Fence,
    /// Hosts are accepted.
    Serve,
}

impl Point {
    /// All.
    pub const ALL: [Point; 10] = [
        Point::Absorb,
        Point::Merge,
        Point::Complete,
        Point::DiskWrite,
        Point::DiskFlush,
        Point::SlotWrite,
        Point::MetadataWrite,
        Point::DiskZero,
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
            Point::Fence => matches!(effect, Effect::Fence { .. }),
            Point::Serve => matches!(effect, Effect::Serve),
        }
    }
}

/// A fault, or something that an operator does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
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
    /// Both processes are stopped, each for so many milliseconds.
    PauseBoth(u64, u64),
    /// Both processes end, and the shelf loses power.
    PowerLoss,
    /// The process ends, and its NV memory is gone.
    LoseNv(Controller),
    /// The process is stopped for so many milliseconds.
    Pause(Controller, u64),
    /// The link is cut for so many milliseconds.
    CutLink(u64),
    /// The link carries nothing, and says nothing, for so many milliseconds.
    SilentLink(u64),
    /// Frames are lost, doubled and late for so many milliseconds.
    LossyLink(u64),
    /// A disk answers with errors for so many milliseconds.
    FailDisk(usize, u64),
    /// Writes of data to a disk end with errors for so many milliseconds; some of them land all the same.
    FailWrites(usize, u64),
    /// An operator moves a LUN.
    MoveLun(u16, Controller),
    /// An operator makes, and later deletes, a LUN.
    CreateLun,
    /// The same, and the controller that is asked ends just before it carries out an effect of this kind.
    CreateLunAndCrash(Controller, Point),
    /// An operator makes the LUN that was made larger.
    GrowLun,
    /// An operator deletes the LUN that was made.
    DeleteLun,
    /// An operator stops a controller cleanly.
    Stop(Controller),
}

/// What a seed brings.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Moments in nanoseconds, and what happens then; in order.
    pub faults: Vec<(u64, Fault)>,
    /// When a controller that is down is started again, in nanoseconds after it went down; least and most. `None`:
    /// a script says when.
    pub restart: Option<(u64, u64)>,
    /// How many host commands.
    pub commands: u32,
    /// Host commands in flight for each host.
    pub depth: u32,
    /// How long a host pauses at most between bursts, in nanoseconds: so long that commands last as long as faults come.
    pub idle: u64,
    /// Blocks of each LUN that hosts use.
    pub hot: Range<u64>,
    /// Size of the pools: small ones run short.
    pub small: bool,
    /// Some writes of data stay on their way to the disks for long: they outlive processes.
    pub slow_writes: bool,
    /// The controllers cannot see each other's processes: a fence has only the lock byte (R5).
    pub apart: bool,
}

impl Plan {
    /// Nothing happens by itself: a script brings it all.
    pub fn scripted() -> Plan {
        Plan {
            faults: Vec::new(),
            restart: None,
            commands: 0,
            depth: 0,
            idle: MS,
            hot: HOT,
            small: false,
            slow_writes: false,
            apart: false,
        }
    }

    /// The plan of a seed.
    pub fn new(random: &mut Random) -> Plan {
        let mut faults = Vec::new();
        let mut at = 0;
        // Some seeds stay with one kind: what takes two of it is found more often.
        let kind = random
            .one_in(3)
            .then(|| Kind::ALL[random.below(Kind::ALL.len() as u64) as usize]);
        for _ in 0..random.below(7) {
            at += match random.below(4) {
                0 => random.between(1, 20) * MS,
                1 => random.between(20, 200) * MS,
                2 => random.between(200, 1500) * MS,
                _ => random.between(1, 3000) * MS / 10,
            };
            faults.push((at, kind.unwrap_or_else(|| Kind::draw(random)).fault(random)));
        }
        let restart = match random.below(3) {
            0 => (MS / 10, 5 * MS),
            1 => (10 * MS, 300 * MS),
            _ => (500 * MS, 6000 * MS),
        };
        let commands = random.between(60, 400);
        let depth = random.between(1, 8);
        Plan {
            faults,
            restart: Some(restart),
            commands: commands as u32,
            depth: depth as u32,
            idle: LONG_PAUSES * 2 * (at + 200 * MS) * depth * HOSTS / commands,
            hot: if random.one_in(3) { NARROW } else { HOT },
            small: random.one_in(3),
            slow_writes: random.one_in(3),
            apart: random.one_in(3),
        }
    }
}

/// What a fault is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Crash,
    CrashBoth,
    Recovery,
    Pause,
    Link,
    Disk,
    Operator,
    Loss,
}

impl Kind {
    const ALL: [Kind; 8] = [
        Kind::Crash,
        Kind::CrashBoth,
        Kind::Recovery,
        Kind::Pause,
        Kind::Link,
        Kind::Disk,
        Kind::Operator,
        Kind::Loss,
    ];

    fn draw(random: &mut Random) -> Kind {
        match random.below(32) {
            0..=7 => Kind::Crash,
            8..=11 => Kind::CrashBoth,
            12..=15 => Kind::Recovery,
            16..=17 => Kind::Pause,
            18..=22 => Kind::Link,
            23..=24 => Kind::Disk,
            25..=30 => Kind::Operator,
            _ => Kind::Loss,
        }
    }

    fn fault(self, random: &mut Random) -> Fault {
        let controller = Controller::BOTH[random.below(2) as usize];
        let point = Point::ALL[random.below(Point::ALL.len() as u64) as usize];
        match self {
            Kind::Crash => match random.below(4) {
                0 => Fault::Crash(controller),
                1 => Fault::CrashBefore(controller, point),
                _ => Fault::CrashAfterEffects(controller, random.below(120) as u32),
            },
            Kind::CrashBoth => match random.below(8) {
                0 => Fault::CrashBoth,
                1 => Fault::PowerLoss,
                2 => Fault::CrashBothAround(controller, point, random.below(300)),
                3..=5 => Fault::CrashBothThenOne(controller, Point::Absorb, random.below(60), random.below(25_000)),
                6 => Fault::CrashBothThenOne(controller, point, random.below(300), random.below(25_000)),
                _ => Fault::CrashBothAfterEffects(random.below(60) as u32, random.below(60) as u32),
            },
            Kind::Recovery => match random.below(3) {
                0 => Fault::CrashInRecovery(controller, random.below(20_000)),
                1 => Fault::CrashInRecovery(controller, random.below(1_000_000)),
                _ => Fault::CrashAfterServing(controller, random.below(30_000)),
            },
            Kind::Pause => match random.below(3) {
                0 => Fault::PauseBoth(random.between(1, 6000), random.between(1, 6000)),
                _ => Fault::Pause(controller, random.between(1, 6000)),
            },
            Kind::Link => match random.below(7) {
                0..=1 => Fault::CutLink(random.between(1, 4000)),
                2 => Fault::SilentLink(random.between(1, 6000)),
                _ => Fault::LossyLink(random.between(10, 3000)),
            },
            Kind::Disk => match random.below(3) {
                0 => Fault::FailDisk(random.below(4) as usize, random.between(1, 800)),
                1 => Fault::FailDisk(random.below(4) as usize, random.between(1, 8000)),
                _ => Fault::FailWrites(random.below(4) as usize, random.between(1, 4000)),
            },
            Kind::Operator => match random.below(10) {
                0..=2 => Fault::MoveLun(random.below(2) as u16, controller),
                3..=4 => Fault::CreateLun,
                5 => Fault::CreateLunAndCrash(controller, point),
                6 => Fault::GrowLun,
                7 => Fault::DeleteLun,
                _ => Fault::Stop(controller),
            },
            Kind::Loss => Fault::LoseNv(controller),
        }
    }
}
