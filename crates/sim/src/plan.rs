//! What a seed brings: how hosts work, which faults come, and when.

use crate::fault::{Fault, Point};
use crate::hosts::{HOSTS, HOT, NARROW, WIDE};
use crate::random::Random;
use crate::shape::{PLAIN, Shape};
use crate::slowness::Slowness;
use crate::trigger::Trigger;
use crate::wishes;
use std::ops::Range;
use twincell_core::config::Geometry;
use twincell_core::ids::Controller;

const MS: u64 = 1_000_000;
/// In one seed of so many operators are hasty.
const HASTY: u64 = 16;
/// In one seed of so many a disk is given up and comes back.
const DISK_RETURNS: u64 = 8;
/// In one seed of so many faults wait for their moments.
const TIMED: u64 = 8;
/// From which the shapes of cells are drawn.
const SHAPES: u64 = 0x5ba9e5;
/// In one seed of so many, and in half of those, the cell is busy with its operators' wishes.
const BUSY: u64 = 16;
/// In one seed of so many some commands are for odd ranges.
const ODD_RANGES: u64 = 7;
/// In one seed of so many some hosts are gone, and their connections stay.
const HALF_OPEN: u64 = 11;
/// What came later is drawn apart, so that the rest of a seed stays as it was.
const DRAINS: u64 = 0x6472_6169_6e73;
const SLOW_PATHS: u64 = 0x736c_6f77;
const GARBLES: u64 = 0x6761_7262_6c65;
/// In one seed of so many operators are rash.
const RASH: u64 = 12;
/// In one seed of so many disks that fail do so in part.
const HALF_BROKEN: u64 = 5;
/// In one seed of so many NV memory is slow.
const SLOW_NV: u64 = 6;
/// In one seed of so many the pools are large, and much is under way.
const LARGE: u64 = 256;
/// One pause of a host in so many is long.
pub const LONG_PAUSES: u64 = 8;

/// What a run may bring, and what must hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// No faults: everything must work at once.
    Calm,
    /// What the promise of DESIGN section 9 is about. The fault atlas knows which copy is the last good one, and nothing
    /// takes it away.
    Promise,
    /// Anything. Only one thing must hold: no silent lie. What is read is right, and what was acknowledged is there,
    /// unless the cell has said that it may be lost, or refuses.
    Chaos,
}

/// How large the pools are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Pools {
    /// More than one message has room for, and than the link can have under way: of RIEs in progress, of buffers.
    Large,
    /// They hardly ever run short.
    Ample,
    /// They run short soon.
    Small,
    /// One to three entries.
    Tiny,
}

impl Pools {
    /// The sizes; `which` chooses among the tiny ones.
    pub fn geometry(self, which: u64) -> Geometry {
        let few = 1 + (which % 3) as u16;
        match self {
            Pools::Large => Geometry {
                buffers: 1088,
                ries: 160,
                htbs: 300,
                transfers: 32,
                destages: 16,
            },
            Pools::Ample => Geometry {
                buffers: 192,
                ries: 16,
                htbs: 48,
                transfers: 16,
                destages: 8,
            },
            Pools::Small => Geometry {
                buffers: 64,
                ries: 2,
                htbs: 48,
                transfers: 4,
                destages: 2,
            },
            Pools::Tiny => Geometry {
                buffers: 64,
                ries: few,
                // One more than those that the partner's commands may take.
                htbs: 1 + few,
                transfers: 1 + few,
                destages: few,
            },
        }
    }
}

/// What a seed brings.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Plan {
    /// What may come, and what must hold.
    pub mode: Mode,
    /// From which everything is drawn that the plan does not say.
    pub stream: u64,
    /// Moments in nanoseconds, and what happens then; in order.
    pub faults: Vec<(u64, Fault)>,
    /// Faults that come at a moment in what a controller does.
    pub triggers: Vec<Trigger>,
    /// Each of those waits for its moment only once the one before has come.
    pub in_a_row: bool,
    /// When a controller that is down is started again, in nanoseconds after it went down; least and most. `None`:
    /// a script says when.
    pub restart: Option<(u64, u64)>,
    /// One in so many is away for longer than that: for so many nanoseconds at most.
    pub long_absence: Option<(u64, u64)>,
    /// How many host commands.
    pub commands: u32,
    /// Host commands in flight for each host.
    pub depth: u32,
    /// How long a host pauses at most between bursts, in nanoseconds: so long that commands last as long as faults come.
    pub idle: u64,
    /// Blocks of each LUN that hosts use.
    pub hot: Range<u64>,
    /// How many of the LUNs that are there from the beginning are used; the first is mirrored, the second is not.
    pub luns: usize,
    /// How long a host waits, in nanoseconds, before it tries a failed command again.
    pub retry_after: u64,
    /// One command in so many is withdrawn.
    pub withdrawn: u64,
    /// Which disks there are.
    pub shape: Shape,
    /// Sizes of the pools.
    pub pools: Pools,
    /// Some writes of data stay on their way to the disks for long: they outlive processes.
    pub slow_writes: bool,
    /// What takes longer than usual.
    pub slow: Slowness,
    /// NV memory says some time later that what was stored is durable.
    pub slow_nv: bool,
    /// Some data of writes come seconds after they were asked for.
    pub slow_hosts: bool,
    /// The controllers cannot see each other's processes: a fence has only the lock byte (R5).
    pub apart: bool,
    /// Paths between the controllers: 1 or 2.
    pub paths: usize,
    /// How much longer each frame takes on each path, in nanoseconds.
    pub slow_paths: [u64; 2],
    /// What was sent on a connection before its end arrives before the end does.
    pub drains: bool,
    /// Steps follow each other so closely that messages wait for the next one to share its frame.
    pub crowded: bool,
    /// Some commands are for blocks anywhere, or across the end of a LUN, for many, or for none.
    pub odd_ranges: bool,
    /// Some hosts are gone before they have sent the data of a write, and their connections stay.
    pub half_open: bool,
    /// Operators ask for changes just when a ballot is under way.
    pub hasty: bool,
    /// Operators make LUNs of many sizes, and hosts use all of them.
    pub busy: bool,
    /// Operators ask again for what a controller cannot do now.
    pub insistent: bool,
}

impl Plan {
    /// Whether messages between the controllers take no longer than usual. Where much waits for one transfer buffer, a slow link
    /// is slow for all of it.
    pub(crate) fn is_link_quick(&self) -> bool {
        self.slow.frames == 0 && self.slow_paths == [0; 2]
    }

    /// Whether hosts may give up behind each other: all wait for few transfer buffers, and each of these for a slow disk.
    pub(crate) fn may_hosts_give_up_in_line(&self) -> bool {
        self.slow_writes && matches!(self.pools, Pools::Small | Pools::Tiny)
    }

    /// Nothing happens by itself: a script brings it all.
    pub fn scripted() -> Plan {
        Plan {
            mode: Mode::Promise,
            stream: 0,
            faults: Vec::new(),
            triggers: Vec::new(),
            in_a_row: false,
            restart: None,
            long_absence: None,
            commands: 0,
            depth: 0,
            idle: MS,
            hot: HOT,
            luns: 2,
            retry_after: 0,
            withdrawn: 60,
            shape: PLAIN,
            pools: Pools::Ample,
            slow_writes: false,
            slow: Slowness::default(),
            slow_nv: false,
            slow_hosts: false,
            apart: false,
            paths: 1,
            slow_paths: [0; 2],
            drains: false,
            crowded: false,
            odd_ranges: false,
            half_open: false,
            hasty: false,
            busy: false,
            insistent: false,
        }
    }

    /// Whether RIEs count as used so often that the count soon wraps, whenever a process finds an image.
    pub fn has_old_ries(&self) -> bool {
        self.stream.is_multiple_of(4)
    }

    /// Whether a disk that fails a flush has lost what was to be flushed.
    pub fn drops_unflushed(&self) -> bool {
        self.stream.is_multiple_of(2)
    }

    /// The plan of a seed.
    pub fn of_seed(seed: u64) -> Plan {
        let random = &mut Random::new(seed);
        let mode = match random.below(16) {
            0 => Mode::Calm,
            1..=2 => Mode::Chaos,
            _ => Mode::Promise,
        };
        let luns = if random.one_in(4) { 1 } else { 2 };
        let draw = Draw {
            mode,
            only_redundant: luns == 1,
        };
        let (mut faults, mut at) = draw.faults(random);
        if mode != Mode::Calm && seed.is_multiple_of(DISK_RETURNS) {
            at = draw.disk_returns(at, &mut Random::new(!seed), &mut faults);
        }
        let is_timed = mode != Mode::Calm && seed % TIMED == 6;
        let mut triggers = Vec::new();
        let busy = mode != Mode::Calm && matches!(seed % BUSY, 6 | 12);
        if is_timed {
            at = draw.timed(at, busy, &mut Random::new(!seed), &mut faults, &mut triggers);
        }
        if busy {
            at = draw.wishes(at, &mut Random::new(!seed ^ BUSY), &mut faults);
        }
        garble(&mut Random::new(seed ^ GARBLES), &mut faults);
        let restart = match random.below(3) {
            0 => (MS / 10, 5 * MS),
            1 => (10 * MS, 300 * MS),
            _ => (500 * MS, 6000 * MS),
        };
        let commands = random.between(60, 400);
        // Where much happens in a short time, fewer do.
        let commands = if is_timed { commands / 3 } else { commands };
        let depth = random.between(1, 8);
        let plan = Plan {
            mode,
            stream: random.bits(),
            faults,
            triggers,
            in_a_row: seed / TIMED % 2 == 1,
            restart: Some(restart),
            long_absence: is_timed.then_some((3, 9000 * MS)),
            commands: commands as u32,
            depth: depth as u32,
            idle: LONG_PAUSES * 2 * (at + 200 * MS) * depth * HOSTS / commands,
            hot: if random.one_in(3) { NARROW } else { HOT },
            luns,
            retry_after: 0,
            withdrawn: if random.one_in(8) { 6 } else { 60 },
            shape: PLAIN,
            pools: match random.below(8) {
                0..=4 => Pools::Ample,
                5..=6 => Pools::Small,
                _ => Pools::Tiny,
            },
            slow_writes: random.one_in(3),
            slow: if is_timed || busy {
                Slowness::draw(&mut Random::new(!seed ^ TIMED))
            } else {
                Slowness::default()
            },
            slow_nv: Random::new(!seed ^ SLOW_NV).one_in(SLOW_NV),
            slow_hosts: random.one_in(8),
            apart: random.one_in(3),
            paths: if random.one_in(2) { 2 } else { 1 },
            slow_paths: slow_paths(&mut Random::new(seed ^ SLOW_PATHS)),
            drains: Random::new(seed ^ DRAINS).one_in(2),
            crowded: random.one_in(2),
            odd_ranges: seed % ODD_RANGES == 4,
            half_open: seed.is_multiple_of(HALF_OPEN),
            hasty: mode != Mode::Calm && seed % HASTY == 1,
            busy,
            insistent: is_timed || busy,
        };
        plan.with_rash_operators(seed)
            .with_half_broken_disks(seed)
            .on_other_disks(seed)
            .with_large_pools(seed)
    }

    /// In some seeds operators give up what is not lost.
    fn with_rash_operators(mut self, seed: u64) -> Plan {
        let random = &mut Random::new(!seed ^ RASH);
        let end = self.faults.last().map_or(0, |(at, _)| *at);
        if end > 0 && random.one_in(RASH) {
            let controller = Controller::BOTH[random.below(2) as usize];
            self.faults.push((random.below(end), Fault::AcceptLoss(controller)));
            self.faults.sort_by_key(|(at, _)| *at);
        }
        self
    }

    /// In some seeds a disk that fails does so in one thing only, or for one controller only.
    fn with_half_broken_disks(mut self, seed: u64) -> Plan {
        let random = &mut Random::new(!seed ^ HALF_BROKEN);
        if random.one_in(HALF_BROKEN) {
            for (_, fault) in &mut self.faults {
                *fault = half_broken(*fault, random);
            }
        }
        self
    }

    /// Some cells have other disks; faults come to those.
    fn on_other_disks(mut self, seed: u64) -> Plan {
        self.shape = Shape::draw(&mut Random::new(!seed ^ SHAPES));
        let shift = self.shape.shift;
        let faults = self.faults.iter_mut().map(|(_, fault)| fault);
        for fault in faults.chain(self.triggers.iter_mut().map(|t| &mut t.fault)) {
            *fault = fault.on_disk(|disk| disk + shift);
        }
        self
    }

    /// Some cells have large pools, and so much under way that both ends of the link are full when both controllers end.
    fn with_large_pools(mut self, seed: u64) -> Plan {
        let random = &mut Random::new(!seed ^ LARGE);
        if self.mode == Mode::Calm || !random.one_in(LARGE) {
            return self;
        }
        self.pools = Pools::Large;
        self.depth = 40;
        self.commands = random.between(250, 500) as u32;
        self.hot = WIDE;
        self.slow.frames = random.between(1, 30) * MS;
        let at = random.between(1, 400) * MS;
        self.faults.push((
            at,
            Fault::CrashBothAfterEffects(random.below(60) as u32, random.below(60) as u32),
        ));
        self.faults.sort_by_key(|(at, _)| *at);
        self
    }

    /// The same without faults.
    #[must_use]
    pub fn without_faults(&self) -> Plan {
        Plan {
            mode: Mode::Calm,
            faults: Vec::new(),
            triggers: Vec::new(),
            slow: Slowness::default(),
            slow_paths: [0; 2],
            slow_writes: false,
            slow_nv: false,
            ..self.clone()
        }
    }
}

/// Now and then one path is much slower than the other.
fn slow_paths(random: &mut Random) -> [u64; 2] {
    let mut slow = [0; 2];
    if random.one_in(4) {
        slow[random.below(2) as usize] = random.between(1, 30) * MS;
    }
    slow
}

/// Some frames that were to be lost, or to come twice, have a flipped bit instead.
fn garble(random: &mut Random, faults: &mut [(u64, Fault)]) {
    for (_, fault) in faults {
        if let Fault::LoseFrame(c) | Fault::DoubleFrame(c) = *fault
            && random.one_in(3)
        {
            *fault = Fault::GarbleFrame(c);
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
    Clock,
    Link,
    Disk,
    Operator,
    Loss,
}

impl Kind {
    const ALL: [Kind; 9] = [
        Kind::Crash,
        Kind::CrashBoth,
        Kind::Recovery,
        Kind::Pause,
        Kind::Clock,
        Kind::Link,
        Kind::Disk,
        Kind::Operator,
        Kind::Loss,
    ];

    fn draw(random: &mut Random) -> Kind {
        match random.below(34) {
            0..=7 => Kind::Crash,
            8..=11 => Kind::CrashBoth,
            12..=15 => Kind::Recovery,
            16..=17 => Kind::Pause,
            18 => Kind::Clock,
            19..=23 => Kind::Link,
            24..=26 => Kind::Disk,
            27..=32 => Kind::Operator,
            _ => Kind::Loss,
        }
    }
}

/// Draws faults.
struct Draw {
    mode: Mode,
    /// Hosts use no LUN without redundancy: disks may go for good.
    only_redundant: bool,
}

impl Draw {
    /// Faults, and the time of the last.
    fn faults(&self, random: &mut Random) -> (Vec<(u64, Fault)>, u64) {
        let mut faults = Vec::new();
        let mut at = 0;
        // Some seeds stay with one kind: what takes two of it is found more often.
        let kind = random
            .one_in(3)
            .then(|| Kind::ALL[random.below(Kind::ALL.len() as u64) as usize]);
        let count = random.below(7);
        for _ in 0..if self.mode == Mode::Calm { 0 } else { count } {
            at += match random.below(4) {
                0 => random.between(1, 20) * MS,
                1 => random.between(20, 200) * MS,
                2 => random.between(200, 1500) * MS,
                _ => random.between(1, 3000) * MS / 10,
            };
            let kind = kind.unwrap_or_else(|| Kind::draw(random));
            faults.push((at, self.fault(kind, random)));
        }
        (faults, at)
    }

    fn fault(&self, kind: Kind, random: &mut Random) -> Fault {
        let controller = Controller::BOTH[random.below(2) as usize];
        let point = Point::ALL[random.below(Point::ALL.len() as u64) as usize];
        match kind {
            Kind::Crash => match random.below(4) {
                0 => Fault::Crash(controller),
                1 => Fault::CrashBefore(controller, point),
                _ => Fault::CrashAfterEffects(controller, random.below(120) as u32),
            },
            Kind::CrashBoth => crash_both(controller, point, random),
            Kind::Recovery => match random.below(3) {
                0 => Fault::CrashInRecovery(controller, random.below(20_000)),
                1 => Fault::CrashInRecovery(controller, random.below(1_000_000)),
                _ => Fault::CrashAfterServing(controller, random.below(30_000)),
            },
            Kind::Pause => match random.below(4) {
                0 => Fault::PauseBoth(random.between(1, 6000), random.between(1, 6000)),
                1 if random.one_in(3) => Fault::Pause(controller, random.between(6000, 60_000)),
                _ => Fault::Pause(controller, random.between(1, 6000)),
            },
            Kind::Clock => self.clock(controller, random),
            Kind::Link => link(controller, random),
            Kind::Disk => self.disk(random),
            Kind::Operator => operator(controller, point, random),
            Kind::Loss => self.loss(controller, random),
        }
    }

    fn clock(&self, controller: Controller, random: &mut Random) -> Fault {
        match random.below(2) {
            0 => Fault::ClockJump(controller, random.between(1, 10_000)),
            _ if self.mode == Mode::Chaos => Fault::ClockRate(controller, random.between(200, 5000)),
            _ => Fault::ClockRate(controller, random.between(950, 1050)),
        }
    }

    fn disk(&self, random: &mut Random) -> Fault {
        let disk = random.below(4) as usize;
        let for_good = self.only_redundant || self.mode == Mode::Chaos;
        match random.below(7) {
            0 => Fault::FailDisk(disk, random.between(1, 800)),
            1 => Fault::FailDisk(disk, random.between(1, 8000)),
            2 => Fault::FailWrites(disk, random.between(1, 4000)),
            3 => Fault::StallDisk(disk, random.between(1, 10_000)),
            4 => {
                // Where the first LUN has what hosts use: at the end of its first RStore, and at the beginning of the
                // next.
                let (from, to) = if disk < 2 {
                    (HOT.start, 4095)
                } else {
                    (0, HOT.end - 4096)
                };
                Fault::BadBlocks(disk, random.between(from, to), random.between(1, 64))
            }
            5 if for_good => Fault::FailDisk(disk, random.between(8000, 60_000)),
            6 if for_good => Fault::LoseDisk(disk),
            _ => Fault::FailDisk(disk, random.between(1, 2000)),
        }
    }

    /// A disk fails for so long that it is given up, and comes back; what is more comes while it is made level, or about then.
    /// Returns when.
    fn disk_returns(&self, at: u64, random: &mut Random, faults: &mut Vec<(u64, Fault)>) -> u64 {
        let disk = random.below(4) as usize;
        let ms = random.between(1000, 5000);
        let fault = match random.below(4) {
            0 => Fault::StallDisk(disk, ms + 2500),
            1 => Fault::FailWrites(disk, ms),
            _ => Fault::FailDisk(disk, ms),
        };
        faults.push((at, fault));
        let back = at + (ms + if matches!(fault, Fault::StallDisk(..)) { 2500 } else { 0 }) * MS;
        let controller = Controller::BOTH[random.below(2) as usize];
        let next = match random.below(12) {
            0..=3 => Fault::CrashBefore(controller, Point::DiskCopy),
            4 => Fault::CrashBothAround(controller, Point::DiskCopy, random.below(3000)),
            5 => Fault::CrashBefore(controller, Point::MetadataWrite),
            6 => Fault::MoveLun(random.below(2) as u16, controller),
            7 => Fault::FailDisk(disk, random.between(1, 3000)),
            8 => Fault::StallDisk(disk ^ 1, random.between(500, 3000)),
            9 => self.fault(Kind::Link, random),
            10 => self.fault(Kind::CrashBoth, random),
            _ => self.fault(Kind::Operator, random),
        };
        // It is made level a second or more after it is back, and that does not take long.
        let then = match random.below(3) {
            0 => back,
            1 => back + random.below(1500) * MS,
            _ => back + random.below(5000) * MS,
        };
        faults.push((then, next));
        then
    }

    /// Wishes of operators during all of it, some of them at once. Returns when the last comes.
    fn wishes(&self, end: u64, random: &mut Random, faults: &mut Vec<(u64, Fault)>) -> u64 {
        for number in wishes::MADE.take(random.below(4) as usize) {
            faults.push((0, wishes::make(number, random, self.only_redundant)));
        }
        let end = end + random.below(1500) * MS;
        for _ in 0..random.between(2, 8) {
            let at = random.below(end + 1);
            for _ in 0..random.between(1, 3) {
                let later = if random.one_in(2) { 3 * MS } else { 60 * MS };
                faults.push((at + random.below(later), wishes::draw(random, self.only_redundant)));
            }
        }
        faults.sort_by_key(|(at, _)| *at);
        faults.last().map_or(end, |(at, _)| *at)
    }

    /// What leads somewhere, and faults that wait for their moments there. Returns when the last of the former comes.
    fn timed(
        &self,
        mut at: u64,
        busy: bool,
        random: &mut Random,
        faults: &mut Vec<(u64, Fault)>,
        triggers: &mut Vec<Trigger>,
    ) -> u64 {
        for _ in 0..random.between(1, 4) {
            let most = if random.one_in(3) { 3000 } else { 300 };
            at += random.below(most) * MS;
            faults.push((at, self.beginning(busy, random)));
        }
        for _ in 0..random.between(1, 4) {
            let any = |random: &mut Random| Controller::BOTH[random.below(2) as usize];
            triggers.extend(Trigger::draw(
                random,
                at,
                |random| self.sudden(busy, random),
                |random| self.wish(busy, any(random), random),
            ));
        }
        // There is time for what follows from it.
        at + random.below(4000) * MS
    }

    /// Something from which much follows: a takeover, a return, a vote, a task.
    fn beginning(&self, busy: bool, random: &mut Random) -> Fault {
        let controller = Controller::BOTH[random.below(2) as usize];
        match random.below(14) {
            0..=2 => Fault::Crash(controller),
            3..=4 => Fault::CrashBoth,
            5 => Fault::CutLink(random.between(1, 4000)),
            6 => Fault::Pause(controller, random.between(1500, 4000)),
            7 => Fault::FailDisk(random.below(4) as usize, random.between(1000, 6000)),
            8 => Fault::StallDisk(random.below(4) as usize, random.between(1500, 6000)),
            9 => hardware(controller, random),
            10 => Fault::Stop(controller),
            11 => Fault::MoveLun(random.below(2) as u16, controller),
            _ => self.wish(busy, controller, random),
        }
    }

    fn wish(&self, busy: bool, controller: Controller, random: &mut Random) -> Fault {
        if busy {
            wishes::draw(random, self.only_redundant)
        } else {
            operator(controller, Point::MetadataWrite, random)
        }
    }

    /// What may come at any moment.
    fn sudden(&self, busy: bool, random: &mut Random) -> Fault {
        let controller = Controller::BOTH[random.below(2) as usize];
        match random.below(26) {
            0..=5 => Fault::CrashAfterEffects(controller, random.below(6) as u32),
            6 => self.fault(Kind::CrashBoth, random),
            7 => self.fault(Kind::Recovery, random),
            8..=10 => Fault::Pause(controller, random.between(1, 4000)),
            11..=12 => Fault::CutLink(random.between(1, 3000)),
            13 => Fault::DeafLink(controller, random.between(1, 3000)),
            14 => Fault::LoseFrame(controller),
            15..=16 => self.disk(random),
            17 => hardware(controller, random),
            18..=21 => self.wish(busy, controller, random),
            22 => Fault::Stop(controller),
            23 => Fault::ClockJump(controller, random.between(1, 4000)),
            24 => Fault::WithdrawAll,
            _ => self.loss(controller, random),
        }
    }

    fn loss(&self, controller: Controller, random: &mut Random) -> Fault {
        match random.below(4) {
            0 if self.mode == Mode::Chaos => Fault::LoseBothNv,
            1 if self.mode == Mode::Chaos => Fault::FlipNv(controller, random.bits()),
            0..=1 => Fault::FlipNvAndCrash(controller, random.bits()),
            _ => Fault::LoseNv(controller),
        }
    }
}

fn crash_both(controller: Controller, point: Point, random: &mut Random) -> Fault {
    match random.below(8) {
        0 => Fault::CrashBoth,
        1 => Fault::PowerLoss,
        2 => Fault::CrashBothAround(controller, point, random.below(300)),
        3..=5 => Fault::CrashBothThenOne(controller, Point::Absorb, random.below(60), random.below(25_000)),
        6 => Fault::CrashBothThenOne(controller, point, random.below(300), random.below(25_000)),
        _ => Fault::CrashBothAfterEffects(random.below(60) as u32, random.below(60) as u32),
    }
}

/// A disk that fails, or something of it.
fn half_broken(fault: Fault, random: &mut Random) -> Fault {
    let (Fault::FailDisk(disk, ms) | Fault::FailWrites(disk, ms)) = fault else {
        return fault;
    };
    let controller = Controller::BOTH[random.below(2) as usize];
    match random.below(7) {
        0 => Fault::FailFlushes(disk, ms),
        1 => Fault::FailReads(disk, ms),
        2 => Fault::FailSlots(disk, ms),
        3 => Fault::LoseSight(controller, disk, ms),
        // Some are only slow, and some so slow that nothing ends in time.
        4 => Fault::SlowDisk(disk, random.between(100, 2500), ms + 3000),
        5 => Fault::BadRegion(disk, random.below(300), ms + 1500),
        _ => fault,
    }
}

/// What else may go wrong with disks and the ways to them.
fn hardware(controller: Controller, random: &mut Random) -> Fault {
    let disk = random.below(4) as usize;
    let ms = random.between(1, 5000);
    match random.below(8) {
        0 => Fault::FailFlushes(disk, ms),
        1 => Fault::FailReads(disk, ms),
        2 => Fault::FailSlots(disk, ms),
        3 => Fault::LoseSight(controller, disk, ms),
        4..=5 => Fault::LoseSightOfAll(controller, ms),
        6 => Fault::FailAll(ms),
        _ => Fault::StallAll(ms),
    }
}

fn link(controller: Controller, random: &mut Random) -> Fault {
    let path = random.below(2) as usize;
    match random.below(18) {
        12..=13 => Fault::CutPath(path, random.between(1, 4000)),
        14..=15 => match random.between(1, 4000) {
            ms if ms % 3 == 0 => Fault::SpoilingPath(path, ms * 2),
            ms => Fault::SilentPath(path, ms),
        },
        16..=17 => Fault::DeafPath(path, controller, random.between(1, 4000)),
        0..=2 => Fault::CutLink(random.between(1, 4000)),
        3 => Fault::SilentLink(random.between(1, 6000)),
        4..=5 => Fault::DeafLink(controller, random.between(1, 6000)),
        6 => Fault::GarbledLink(random.between(1, 3000)),
        7 => Fault::LoseFrame(controller),
        8 => Fault::DoubleFrame(controller),
        _ => Fault::LossyLink(random.between(10, 3000)),
    }
}

fn operator(controller: Controller, point: Point, random: &mut Random) -> Fault {
    match random.below(11) {
        0..=2 => Fault::MoveLun(random.below(2) as u16, controller),
        3..=4 => Fault::CreateLun,
        5 => Fault::CreateLunAndCrash(controller, point),
        6 => Fault::GrowLun,
        7 => Fault::DeleteLun,
        8 => Fault::RenameLun(random.below(2) as u16),
        _ => Fault::Stop(controller),
    }
}
