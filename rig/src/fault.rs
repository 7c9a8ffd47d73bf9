//! What is done to a cell: the kinds of faults, and what each of them is exactly in one cycle.

use crate::bed::Ground;
use crate::proxy::Way;
use crate::shelf::Trouble;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;
use twincell_client::checker::Random;

/// The disks of a cell that faults are done to.
pub const DISKS: usize = 6;

/// Controllers, by what they are to the LUN at that moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// The one that owns it.
    Owner,
    /// The other.
    Mirror,
    /// Both, at the same moment as far as one process can.
    Both,
}

/// How a link fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkFault {
    /// Its connection ends; a new one may be made at once.
    Close,
    /// One direction of its connection ends.
    CloseHalf(Way),
    /// There is no connection for a while.
    Cut(Duration),
    /// Nothing comes through for a while. After that all of it comes, late, or the connection ends.
    Silent {
        /// In which directions.
        ways: &'static [Way],
        /// For how long.
        lasts: Duration,
        /// Whether what was held comes after all.
        comes_late: bool,
    },
    /// Each piece comes later by the first, for as long as the second.
    Slow(Duration, Duration),
    /// One bit is flipped.
    Garble(Way, u64),
}

/// What the second of two faults hits, while the cell recovers from the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Second {
    /// `kill -9` of the one that survived.
    KillSurvivor,
    /// `kill -9` of the one that comes back.
    KillJoiner,
    /// SIGSTOP of the one that survived, for so long.
    StopSurvivor(Duration),
    /// SIGSTOP of the one that comes back, for so long.
    StopJoiner(Duration),
    /// The link's connection ends.
    CloseLink,
    /// The link says nothing for so long.
    SilentLink(Duration),
}

/// When the second of two faults comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// So long after the survivor has become the only one, before the other is started.
    Alone(Duration),
    /// So long after the other was started.
    Starting(Duration),
    /// So long after the other has begun to be brought level.
    Joining(Duration),
}

/// One fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// `kill -9`.
    Kill(Who),
    /// SIGSTOP, and SIGCONT so much later.
    Stop(Who, Duration),
    /// Of the link.
    Link(LinkFault),
    /// A controller is stopped in good order, and started again.
    Restart(Who),
    /// The LUN goes to the other controller.
    Move,
    /// A disk, by its number, is in trouble for so long.
    Disk(usize, Trouble, Duration),
    /// A controller is killed; in the recovery from that, something else happens.
    Again(Who, Moment, Second),
}

/// A kind of faults: what is counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// `kill -9` of the owner.
    KillOwner,
    /// `kill -9` of the mirror.
    KillMirror,
    /// `kill -9` of both.
    KillBoth,
    /// The owner stands still for less than the partner's patience.
    PauseOwner,
    /// The mirror does.
    PauseMirror,
    /// The owner stands still for longer than a grant.
    StopOwner,
    /// The mirror does.
    StopMirror,
    /// Both do.
    StopBoth,
    /// The link's connection ends.
    LinkClose,
    /// One direction of it ends.
    LinkHalf,
    /// There is no link for a while.
    LinkCut,
    /// The link says nothing for a while.
    LinkSilent,
    /// It says nothing in one direction.
    LinkOneWay,
    /// It is slow.
    LinkSlow,
    /// It flips a bit.
    LinkGarble,
    /// A controller is stopped in good order and started again.
    RestartOne,
    /// Both are.
    RestartBoth,
    /// The LUN goes to the other controller.
    Move,
    /// A second fault when one controller is alone.
    AgainAlone,
    /// A second fault while the other starts.
    AgainStarting,
    /// A second fault while the other is brought level.
    AgainJoining,
    /// A disk answers with errors.
    DiskErrors,
    /// It answers writes with errors, and some of them land.
    DiskWriteErrors,
    /// It answers nothing.
    DiskStall,
    /// It is slow.
    DiskSlow,
}

/// All kinds, how they are called, and how often each is drawn.
const KINDS: [(Kind, &str, u64); 25] = [
    (Kind::KillOwner, "kill-owner", 12),
    (Kind::KillMirror, "kill-mirror", 8),
    (Kind::KillBoth, "kill-both", 6),
    (Kind::PauseOwner, "pause-owner", 6),
    (Kind::PauseMirror, "pause-mirror", 6),
    (Kind::StopOwner, "stop-owner", 6),
    (Kind::StopMirror, "stop-mirror", 6),
    (Kind::StopBoth, "stop-both", 4),
    (Kind::LinkClose, "link-close", 5),
    (Kind::LinkHalf, "link-half", 5),
    (Kind::LinkCut, "link-cut", 5),
    (Kind::LinkSilent, "link-silent", 6),
    (Kind::LinkOneWay, "link-one-way", 6),
    (Kind::LinkSlow, "link-slow", 3),
    (Kind::LinkGarble, "link-garble", 5),
    (Kind::RestartOne, "restart-one", 4),
    (Kind::RestartBoth, "restart-both", 3),
    (Kind::Move, "move", 4),
    (Kind::AgainAlone, "again-alone", 3),
    (Kind::AgainStarting, "again-starting", 4),
    (Kind::AgainJoining, "again-joining", 6),
    (Kind::DiskErrors, "disk-errors", 5),
    (Kind::DiskWriteErrors, "disk-write-errors", 5),
    (Kind::DiskStall, "disk-stall", 5),
    (Kind::DiskSlow, "disk-slow", 3),
];

impl Kind {
    /// All of them.
    pub fn all() -> impl Iterator<Item = Kind> {
        KINDS.iter().map(|k| k.0)
    }

    fn entry(self) -> &'static (Kind, &'static str, u64) {
        KINDS.iter().find(|k| k.0 == self).expect("every kind is in the table")
    }

    /// How often this is drawn, beside the others.
    pub fn weight(self) -> u64 {
        self.entry().2
    }

    /// One of `kinds`, by weight. Panics if there are none.
    pub fn draw(kinds: &[Kind], random: &mut Random) -> Kind {
        let mut at = random.below(kinds.iter().map(|k| k.weight()).sum());
        for kind in kinds {
            match at.checked_sub(kind.weight()) {
                Some(rest) => at = rest,
                None => return *kind,
            }
        }
        unreachable!("the weights were summed up")
    }

    /// How long hosts may wait at most: the median and the worst, where something is promised.
    pub fn limits(self) -> [Option<Duration>; 2] {
        use Kind::{KillMirror, KillOwner, LinkOneWay, LinkSilent, Move, StopMirror, StopOwner};
        let ms = |n| Some(Duration::from_millis(n));
        match self {
            KillOwner | KillMirror => [ms(200), ms(1000)],
            StopOwner | StopMirror | LinkSilent | LinkOneWay => [None, ms(3000)],
            Move => [None, ms(200)],
            _ => [None, None],
        }
    }

    /// Whether it needs disks that fail when they are told to.
    pub fn needs_shelf(self) -> bool {
        use Kind::{DiskErrors, DiskSlow, DiskStall, DiskWriteErrors};
        matches!(self, DiskErrors | DiskWriteErrors | DiskStall | DiskSlow)
    }

    /// Whether it can be done there. What is in the way of nobody is done where pauses are measured.
    pub fn fits(self, ground: Ground) -> bool {
        let again = matches!(self, Kind::AgainAlone | Kind::AgainStarting | Kind::AgainJoining);
        match ground {
            Ground::Plain => !self.needs_shelf(),
            Ground::Shelf => self.needs_shelf(),
            // The second fault has to find the process that the first left.
            Ground::Apart => !self.needs_shelf() && !again,
        }
    }

    /// A fault of this kind.
    pub fn fault(self, random: &mut Random) -> Fault {
        match self {
            Kind::KillOwner => Fault::Kill(Who::Owner),
            Kind::KillMirror => Fault::Kill(Who::Mirror),
            Kind::KillBoth => Fault::Kill(Who::Both),
            Kind::PauseOwner => Fault::Stop(Who::Owner, one_of(random, &[200, 500, 1000])),
            Kind::PauseMirror => Fault::Stop(Who::Mirror, one_of(random, &[200, 500, 1000])),
            Kind::StopOwner => Fault::Stop(Who::Owner, one_of(random, &[1400, 1600, 2000, 2500, 5000, 20_000])),
            Kind::StopMirror => Fault::Stop(Who::Mirror, one_of(random, &[1400, 1600, 2000, 2500, 5000, 20_000])),
            Kind::StopBoth => Fault::Stop(Who::Both, one_of(random, &[300, 1000, 2000, 2500, 5000])),
            Kind::LinkClose => Fault::Link(LinkFault::Close),
            Kind::LinkHalf => Fault::Link(LinkFault::CloseHalf(way(random))),
            Kind::LinkCut => Fault::Link(LinkFault::Cut(one_of(random, &[100, 1000, 3000]))),
            Kind::LinkSilent => {
                let lasts = one_of(random, &[500, 1400, 1600, 2500, 5000]);
                let comes_late = random.below(2) == 0;
                let ways = &Way::BOTH;
                Fault::Link(LinkFault::Silent {
                    ways,
                    lasts,
                    comes_late,
                })
            }
            Kind::LinkOneWay => {
                let lasts = one_of(random, &[500, 1400, 1600, 2500, 5000]);
                let comes_late = random.below(2) == 0;
                let ways: &[Way] = match way(random) {
                    Way::ToA => &[Way::ToA],
                    Way::ToB => &[Way::ToB],
                };
                Fault::Link(LinkFault::Silent {
                    ways,
                    lasts,
                    comes_late,
                })
            }
            Kind::LinkSlow => {
                let lasts = one_of(random, &[1000, 2000]);
                Fault::Link(LinkFault::Slow(one_of(random, &[2, 20, 100, 400]), lasts))
            }
            Kind::LinkGarble => Fault::Link(LinkFault::Garble(way(random), random.below(1 << 32))),
            Kind::RestartOne => Fault::Restart(one(random)),
            Kind::RestartBoth => Fault::Restart(Who::Both),
            Kind::Move => Fault::Move,
            Kind::AgainAlone => again(random, |r| Moment::Alone(one_of(r, &[0, 5, 100]))),
            Kind::AgainStarting => again(random, |r| Moment::Starting(one_of(r, &[0, 20, 50, 100, 150, 200]))),
            Kind::AgainJoining => again(random, |r| Moment::Joining(one_of(r, &[0, 0, 1, 2, 5, 10]))),
            Kind::DiskErrors => disk(random, Trouble::Errors),
            Kind::DiskWriteErrors => disk(random, Trouble::WriteErrors),
            Kind::DiskStall => disk(random, Trouble::Stall),
            Kind::DiskSlow => {
                let by = one_of(random, &[5, 50, 200]);
                disk(random, Trouble::Slow(by))
            }
        }
    }
}

fn again(random: &mut Random, moment: impl Fn(&mut Random) -> Moment) -> Fault {
    let moment = moment(random);
    let survives = matches!(moment, Moment::Alone(_));
    let lasts = one_of(random, &[200, 1000, 1600, 2500]);
    let second = match random.below(if survives { 2 } else { 6 }) {
        0 => Second::KillSurvivor,
        1 => Second::StopSurvivor(lasts),
        2 => Second::KillJoiner,
        3 => Second::StopJoiner(lasts),
        4 => Second::CloseLink,
        _ => Second::SilentLink(lasts),
    };
    Fault::Again(one(random), moment, second)
}

fn disk(random: &mut Random, trouble: Trouble) -> Fault {
    let n = random.below(DISKS as u64) as usize;
    Fault::Disk(n, trouble, one_of(random, &[100, 500, 1000, 3000]))
}

fn one_of(random: &mut Random, milliseconds: &[u64]) -> Duration {
    let chosen = random.below(milliseconds.len() as u64) as usize;
    Duration::from_millis(milliseconds[chosen])
}

fn way(random: &mut Random) -> Way {
    Way::BOTH[random.below(2) as usize]
}

fn one(random: &mut Random) -> Who {
    [Who::Owner, Who::Mirror][random.below(2) as usize]
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.entry().1)
    }
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(text: &str) -> Result<Kind, String> {
        let found = KINDS.iter().find(|k| k.1 == text);
        found.map(|k| k.0).ok_or_else(|| {
            let all: Vec<_> = KINDS.iter().map(|k| k.1).collect();
            format!("{text:?} is no kind of faults; there are {}", all.join(", "))
        })
    }
}
