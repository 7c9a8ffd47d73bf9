//! How much is explored: what hosts do, how many faults come, and where it begins.

use crate::spec::WRITES;
use twincell_core::ids::Controller;

/// One write of a host.
#[derive(Clone, Copy, Debug)]
pub struct Write {
    /// First block on the LUN.
    pub start: u64,
    /// How many.
    pub blocks: u32,
    /// Through which controller.
    pub path: Controller,
    /// Whether the data come with the command (the express form), or are fetched (the long form).
    pub in_hand: bool,
}

/// Where a run begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beginning {
    /// Both controllers serve.
    Both,
    /// A serves alone, and B may start at any time.
    AloneA,
}

/// The bounds of a run.
#[derive(Clone, Debug)]
pub struct Scope {
    /// What it is called.
    pub name: &'static str,
    /// What it covers.
    pub about: &'static str,
    /// Whether all of it is explored within minutes.
    pub closes: bool,
    /// Where it begins.
    pub beginning: Beginning,
    /// What hosts write; each once, in any order, at any time.
    pub writes: Vec<Write>,
    /// Through which controller a host reads both blocks, once, at any time.
    pub read: Option<Controller>,
    /// How often a process may end: between any two effects of a step.
    pub crashes: u8,
    /// How often a frame may be lost.
    pub drops: u8,
    /// How often the link may break.
    pub cuts: u8,
    /// How often a process may start after the first two.
    pub starts: u32,
    /// How often a connection may open after the first.
    pub opens: u64,
}

/// The two blocks: the last of one granule and the first of the next, so that a write of both needs two buffers.
pub const FIRST_BLOCK: u64 = 7;

const WHOLE: Write = Write {
    start: FIRST_BLOCK,
    blocks: 2,
    path: Controller::A,
    in_hand: true,
};
const LONG: Write = Write {
    in_hand: false,
    ..WHOLE
};
const SECOND_BLOCK: Write = Write {
    start: FIRST_BLOCK + 1,
    blocks: 1,
    ..WHOLE
};

impl Scope {
    /// Every scope.
    pub fn all() -> Vec<Scope> {
        let small = Scope {
            name: "small",
            about: "both serve; two writes of two blocks; one crash, one lost frame",
            closes: false,
            beginning: Beginning::Both,
            writes: vec![WHOLE, LONG],
            read: None,
            crashes: 1,
            drops: 1,
            cuts: 0,
            starts: 2,
            opens: 3,
        };
        assert!(small.writes.len() <= WRITES);
        vec![
            Scope {
                name: "tiny",
                about: "both serve; one write of two blocks; one crash",
                closes: true,
                writes: vec![WHOLE],
                drops: 0,
                ..small.clone()
            },
            Scope {
                name: "drop",
                about: "both serve; two writes of two blocks; one lost frame",
                closes: true,
                crashes: 0,
                ..small.clone()
            },
            Scope {
                name: "crash",
                about: "both serve; two writes of two blocks; one crash",
                closes: true,
                drops: 0,
                ..small.clone()
            },
            Scope {
                name: "read",
                about: "both serve; one write of two blocks and a read; one crash, one lost frame",
                closes: true,
                writes: vec![LONG],
                read: Some(Controller::A),
                ..small.clone()
            },
            Scope {
                name: "recovery",
                about: "both serve; one write of two blocks; two crashes, of which one may be within the recovery from the other",
                writes: vec![WHOLE],
                crashes: 2,
                starts: 3,
                drops: 0,
                ..small.clone()
            },
            Scope {
                name: "join",
                about: "A serves alone, B joins; a write of two blocks and one of one; one crash",
                beginning: Beginning::AloneA,
                writes: vec![WHOLE, SECOND_BLOCK],
                drops: 0,
                ..small.clone()
            },
            Scope {
                name: "cut",
                about: "both serve; a write of two blocks and one of one; the link breaks once, one crash",
                writes: vec![WHOLE, SECOND_BLOCK],
                drops: 0,
                cuts: 1,
                ..small.clone()
            },
            small,
        ]
    }

    /// Which of the two blocks a write covers.
    pub fn covers(&self) -> [[bool; 2]; WRITES] {
        std::array::from_fn(|n| {
            let covered = |block: u64| {
                self.writes
                    .get(n)
                    .is_some_and(|w| (w.start..w.start + u64::from(w.blocks)).contains(&block))
            };
            [covered(FIRST_BLOCK), covered(FIRST_BLOCK + 1)]
        })
    }
}
