//! Hosts: each keeps some commands in flight, on either path, and tries again on the other when a path fails.

use crate::history::Moment;
use crate::random::Random;
use std::ops::Range;
use twincell_core::host::{HostOp, Status};

/// A command of a host, whatever the attempts that it takes.
#[derive(Clone, Debug)]
pub struct Command {
    /// The host.
    pub host: usize,
    /// The LUN, as its index.
    pub lun: usize,
    /// What to do.
    pub op: HostOp,
    /// First block.
    pub start: u64,
    /// How many.
    pub blocks: u32,
    /// Of a write: what it writes.
    pub tag: u64,
    /// When it was first submitted.
    pub begun: Moment,
    /// The same in nanoseconds, or when it was last refused for want of a place.
    pub since: u64,
    /// The present attempt.
    pub attempt: u64,
    /// Data of a read.
    pub data: Vec<u64>,
    /// Attempts that failed.
    pub tries: u32,
    /// The host does not try again when its path fails: whether a write was done is never known.
    pub once: bool,
    /// Sent beside another one: its end brings no next one.
    pub extra: bool,
    /// Blocks of a write that come with the command; `None` leaves it to chance.
    pub in_hand: Option<u32>,
    /// How it ended, if there was an answer.
    pub status: Option<Status>,
    /// It is over.
    pub done: bool,
}

impl Command {
    /// A command that is tried until it has an answer.
    pub fn new(host: usize, lun: usize, op: HostOp, start: u64, blocks: u32, tag: u64, begun: Moment) -> Command {
        Command {
            host,
            lun,
            op,
            start,
            blocks,
            tag,
            begun,
            since: 0,
            attempt: 0,
            data: vec![0; blocks as usize],
            tries: 0,
            once: false,
            extra: false,
            in_hand: None,
            status: None,
            done: false,
        }
    }
}

/// One attempt at a command, on one path.
#[derive(Clone, Copy, Debug)]
pub struct Attempt {
    /// The command, as its index.
    pub command: usize,
    /// The controller, as its index.
    pub controller: usize,
    /// The process that it was sent to; 0 while it is on its way.
    pub process: u32,
    /// The answer says that nothing was done.
    pub refused: bool,
    /// The controller had more commands than HTBs when it answered.
    pub has_no_place: bool,
    /// When it was sent.
    pub begun: u64,
    /// It was given up: the host has closed the connection, or withdrawn it.
    pub given_up: bool,
    /// The host has withdrawn it, and wants no other attempt.
    pub withdrawn: bool,
    /// The controller waits for data.
    pub fetching: bool,
    /// The host is gone, and nobody knows: it sends no data, and does not close its connection.
    pub half_open: bool,
}

/// How many hosts there are.
pub const HOSTS: u64 = 3;
/// Blocks of each LUN that hosts use: they lie across the border of two RStores, and are few, so that commands overlap.
pub const HOT: std::ops::Range<u64> = 3900..4500;
/// So many that few commands overlap.
pub const WIDE: std::ops::Range<u64> = 1000..4500;
/// So few that almost every command overlaps with others.
pub const NARROW: std::ops::Range<u64> = 4084..4108;

/// Most blocks of a command.
const LONGEST: u64 = 800;

/// The next command of a host.
pub fn draw(random: &mut Random, hot: &Range<u64>, host: usize, lun: usize, tag: u64, begun: Moment) -> Command {
    let blocks = match random.below(10) {
        0..=4 => 8 * random.between(1, 4),
        5..=7 => random.between(1, 40),
        8 => random.between(200, 256),
        _ => random.between(257, 400),
    } as u32;
    let blocks = blocks.min((hot.end - hot.start) as u32);
    let room = hot.end - hot.start - u64::from(blocks);
    let mut start = hot.start + random.below(room + 1);
    if random.one_in(2) {
        start = (start / 8 * 8).max(hot.start);
    }
    let op = match random.below(20) {
        0 => HostOp::Sync,
        1 => HostOp::Write { fua: true },
        2..=12 => HostOp::Write { fua: false },
        _ => HostOp::Read,
    };
    Command {
        once: random.one_in(4),
        ..Command::new(host, lun, op, start, blocks, tag, begun)
    }
}

/// A range anywhere on a LUN of `size` blocks, most of all at its ends, and across the last.
pub fn draw_range(random: &mut Random, size: u64) -> (u64, u32) {
    let blocks = match random.below(8) {
        0 => 0,
        1 => random.between(257, LONGEST),
        2 => random.between(200, 256),
        _ => random.between(1, 40),
    };
    let start = match random.below(8) {
        0 => 0,
        1..=2 => size - blocks,
        3 => size + 1 - blocks,
        _ => random.below(size + 9),
    };
    (start, blocks as u32)
}
