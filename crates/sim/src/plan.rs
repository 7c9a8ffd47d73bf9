//! Which faults a seed brings, and when. All are within the promise of DESIGN section 9: NV memory is lost only while the
//! partner has everything.

use crate::random::Random;
use twincell_core::Effect;
use twincell_core::ids::Controller;

const MS: u64 = 1_000_000;

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
    /// An operator moves a LUN.
    MoveLun(u16, Controller),
    /// An operator makes, and later deletes, a LUN.
    CreateLun,
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
    /// Size of the pools: small ones run short.
    pub small: bool,
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
            small: false,
            apart: false,
        }
    }

    /// The plan of a seed.
    pub fn new(random: &mut Random) -> Plan {
        let count = random.below(6);
        let mut at = 0;
        let mut faults = Vec::new();
        for _ in 0..count {
            at += match random.below(4) {
                0 => random.between(1, 20) * MS,
                1 => random.between(20, 200) * MS,
                2 => random.between(200, 1500) * MS,
                _ => random.between(1, 3000) * MS / 10,
            };
            faults.push((at, fault(random)));
        }
        let restart = match random.below(3) {
            0 => (MS / 10, 5 * MS),
            1 => (10 * MS, 300 * MS),
            _ => (500 * MS, 6000 * MS),
        };
        Plan {
            faults,
            restart: Some(restart),
            commands: random.between(40, 250) as u32,
            depth: random.between(1, 8) as u32,
            small: random.one_in(3),
            apart: random.one_in(3),
        }
    }
}

fn fault(random: &mut Random) -> Fault {
    let controller = Controller::BOTH[random.below(2) as usize];
    match random.below(28) {
        0..=4 => Fault::Crash(controller),
        5..=9 => Fault::CrashAfterEffects(controller, random.below(120) as u32),
        10 => Fault::CrashBoth,
        11 => Fault::PowerLoss,
        12 => Fault::LoseNv(controller),
        13 => Fault::Pause(controller, random.between(1, 6000)),
        14..=15 => Fault::CutLink(random.between(1, 4000)),
        16 => Fault::SilentLink(random.between(1, 6000)),
        17 => Fault::LossyLink(random.between(10, 2000)),
        18 => Fault::FailDisk(random.below(4) as usize, random.between(1, 800)),
        19..=20 => Fault::MoveLun(random.below(2) as u16, controller),
        24..=25 => Fault::CrashBothAfterEffects(random.below(60) as u32, random.below(60) as u32),
        26..=27 => Fault::LossyLink(random.between(10, 3000)),
        21 => Fault::CreateLun,
        22 => Fault::DeleteLun,
        _ => Fault::Stop(controller),
    }
}
