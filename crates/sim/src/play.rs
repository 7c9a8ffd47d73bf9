//! The canonical scenarios: short scripts that are data, so that a run can be copied at any event and go on with a fault.
//!
//! Nothing is left to chance. Hosts try again when their path fails, controllers that end are started again 20 ms later,
//! and no wait is for ever: so every script comes to its end, whatever happens in it.

use crate::fault::Fault;
use crate::plan::{Mode, Plan, Pools};
use crate::world::World;
use std::sync::Arc;
use twincell_core::ids::Controller::{self, A, B};

const MS: u64 = 1_000_000;
/// What a script waits for comes within this, or the script goes on without it: the end of the run looks whether all
/// becomes well.
const PATIENCE: u64 = 20_000 * MS;
/// A controller that ends by itself is started again after this.
const RESTART: u64 = 20 * MS;

/// What a host does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// A write, its data with the command.
    Write,
    /// A write, whose data the controller has to ask for.
    LongWrite,
    /// A write with FUA.
    Fua,
    /// A read.
    Read,
    /// SYNCHRONIZE CACHE.
    Sync,
}

/// One step of a script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Commands from now on are for this LUN: 0, which has two copies, or 1, which has one.
    Lun(usize),
    /// A host sends a command through a controller.
    Host(Controller, Op, u64, u32),
    /// All commands have ended.
    Answers,
    /// Both serve under a record that says `BOTH`.
    Both,
    /// This one serves.
    Serves(Controller),
    /// Nothing is dirty in a controller that runs.
    Clean,
    /// A disk is being made level.
    Merging,
    /// Every disk is a full copy.
    Level,
    /// So many milliseconds pass.
    Pass(u64),
    /// A fault comes, or an operator asks for something.
    Fault(Fault),
    /// A controller ends and stays down.
    Down(Controller),
    /// It is started again.
    Up(Controller),
    /// The link is cut, or mended.
    Link(bool),
    /// Disk writes take so many milliseconds longer.
    SlowDisks(u64),
    /// What is told and enumerated begins here.
    Mark,
}

/// A script and what it runs in.
#[derive(Clone, Debug)]
pub struct Script {
    /// Its name.
    pub name: &'static str,
    /// How large the pools are.
    pub pools: Pools,
    /// The controllers cannot see each other's processes.
    pub apart: bool,
    /// Paths between the controllers.
    pub paths: usize,
    /// What happens once both serve.
    pub steps: Vec<Step>,
}

impl Script {
    fn with(self, pools: Pools) -> Script {
        Script { pools, ..self }
    }

    fn apart(self) -> Script {
        Script { apart: true, ..self }
    }

    fn two_paths(self) -> Script {
        Script { paths: 2, ..self }
    }

    /// Whether a fault is within the promise here: it does not take the only copy of something.
    pub fn permits(&self, fault: &Fault) -> bool {
        let one_copy = self.steps.contains(&Step::Lun(1));
        let takes_it = one_copy && matches!(fault, Fault::LoseDisk(2));
        !takes_it && fault.path().is_none_or(|path| self.paths > 1 && path < self.paths)
    }
}

fn script(name: &'static str, steps: Vec<Step>) -> Script {
    Script {
        name,
        pools: Pools::Ample,
        apart: false,
        paths: 1,
        steps,
    }
}

/// All canonical scenarios: what a cell does, and the failure traces that shaped it.
pub fn scripts() -> Vec<Script> {
    let mut all = writes();
    all.extend(cells());
    all.extend(traces());
    all
}

fn writes() -> Vec<Script> {
    use Op::{Fua, LongWrite, Read, Sync, Write};
    use Step::{Answers, Clean, Fault as F, Host, Mark, Pass, SlowDisks};
    vec![
        script("clean-write", vec![Mark, Host(A, Write, 8, 8), Answers, Clean]),
        script("long-form-write", vec![Mark, Host(A, LongWrite, 8, 16), Answers, Clean]),
        script(
            "write-over-old-data",
            vec![
                Host(A, Write, 8, 8),
                Answers,
                Mark,
                Host(A, Write, 8, 8),
                Answers,
                Clean,
            ],
        ),
        script(
            "write-while-destaging",
            vec![
                Host(A, Write, 8, 16),
                Answers,
                Mark,
                SlowDisks(5),
                Pass(22),
                Host(A, Write, 8, 16),
                Answers,
                Clean,
            ],
        ),
        script(
            "partial-overlap",
            vec![
                Host(A, Write, 8, 16),
                Answers,
                Mark,
                Host(A, LongWrite, 10, 9),
                Answers,
                Host(A, Read, 8, 16),
                Answers,
                Clean,
            ],
        ),
        script(
            "two-writers",
            vec![
                Mark,
                Host(A, Write, 8, 16),
                Host(B, LongWrite, 12, 16),
                Host(A, Read, 8, 20),
                Answers,
                Host(B, Read, 8, 20),
                Answers,
                Clean,
            ],
        ),
        script(
            "forwarded",
            vec![
                Mark,
                Host(B, LongWrite, 8, 8),
                Answers,
                Host(B, Read, 8, 8),
                Answers,
                Clean,
            ],
        ),
        script(
            "large-write",
            vec![
                Mark,
                Host(A, Write, 4, 300),
                Answers,
                Host(B, Read, 0, 310),
                Answers,
                Clean,
            ],
        ),
        script(
            "fua-and-sync",
            vec![
                Mark,
                Host(A, Fua, 8, 8),
                Host(A, Write, 16, 4),
                Answers,
                Host(B, Sync, 0, 8),
                Answers,
            ],
        ),
        script("host-abort", {
            let withdraw = F(Fault::WithdrawAll);
            vec![
                Host(A, Write, 8, 8),
                Answers,
                Mark,
                Host(A, LongWrite, 8, 8),
                Host(B, LongWrite, 12, 8),
                withdraw,
                Answers,
                Clean,
            ]
        }),
        script(
            "tiny-pools",
            vec![
                Mark,
                Host(A, Write, 8, 8),
                Host(B, LongWrite, 20, 8),
                Host(A, Read, 8, 8),
                Host(B, Write, 12, 8),
                Answers,
                Clean,
            ],
        )
        .with(Pools::Tiny),
    ]
}

fn cells() -> Vec<Script> {
    use Op::{Fua, LongWrite, Read, Write};
    use Step::{Answers, Both, Clean, Down, Fault as F, Host, Level, Lun, Mark, Merging, Pass, Serves, Up};
    vec![
        script(
            "two-paths",
            vec![
                Host(A, Write, 8, 8),
                Answers,
                Mark,
                Host(A, LongWrite, 8, 16),
                Host(B, Write, 40, 8),
                Answers,
                Host(B, Read, 8, 16),
                Answers,
                Clean,
            ],
        )
        .two_paths(),
        script(
            "two-paths-return",
            vec![
                Down(B),
                Serves(A),
                Host(A, Write, 8, 8),
                Answers,
                Mark,
                Up(B),
                Host(A, LongWrite, 12, 8),
                Both,
                Host(B, Write, 16, 8),
                Answers,
            ],
        )
        .two_paths(),
        script(
            "disk-returns",
            vec![
                Host(A, Fua, 8, 8),
                Answers,
                F(Fault::FailDisk(1, 1500)),
                Host(A, Fua, 8, 8),
                Answers,
                Pass(1500),
                Mark,
                Merging,
                Host(A, Fua, 12, 8),
                Answers,
                Level,
            ],
        ),
        script(
            "lun-move",
            vec![
                Host(A, Write, 8, 8),
                Answers,
                Mark,
                F(Fault::MoveLun(0, B)),
                Host(A, Write, 12, 8),
                Host(B, Read, 8, 8),
                Answers,
                Clean,
            ],
        ),
        script(
            "lun-made-and-deleted",
            vec![
                Mark,
                F(Fault::CreateLun),
                Host(A, Write, 8, 8),
                Answers,
                F(Fault::RenameLun(0)),
                Answers,
                F(Fault::DeleteLun),
                Clean,
            ],
        ),
        script(
            "takeover",
            vec![
                Host(A, Write, 8, 8),
                Answers,
                Mark,
                Host(A, LongWrite, 12, 8),
                Down(A),
                Serves(B),
                Host(B, Read, 8, 16),
                Host(B, Write, 8, 8),
                Answers,
                Clean,
            ],
        ),
        script(
            "mirror-lost",
            vec![
                Mark,
                Host(A, LongWrite, 8, 8),
                Down(B),
                Answers,
                Host(A, Write, 8, 8),
                Answers,
                Clean,
            ],
        ),
        script(
            "return",
            vec![
                Down(A),
                Serves(B),
                Host(B, Write, 8, 8),
                Answers,
                Mark,
                Up(A),
                Host(B, Write, 12, 8),
                Both,
                Host(A, Write, 16, 8),
                Answers,
                Clean,
            ],
        ),
        script(
            "re-mirroring",
            vec![
                Down(B),
                Serves(A),
                Mark,
                Host(A, Write, 0, 64),
                Up(B),
                Host(A, LongWrite, 32, 64),
                Host(A, Write, 100, 16),
                Both,
                Answers,
                Down(A),
                Serves(B),
                Host(B, Read, 0, 120),
                Answers,
            ],
        )
        .with(Pools::Small),
        script(
            "carried-to-a-joiner",
            vec![
                Lun(1),
                F(Fault::FailDisk(2, 20_000)),
                Host(A, Write, 8192, 8),
                Host(A, Write, 8210, 2),
                Host(A, Write, 8214, 1),
                Answers,
                Pass(3000),
                Down(B),
                Serves(A),
                Mark,
                Up(B),
                Both,
                Host(B, Read, 8192, 8),
                Answers,
                Down(A),
                Serves(B),
                Host(B, Read, 8192, 8),
                Host(B, Read, 8210, 2),
                Answers,
            ],
        ),
        script(
            "both-restart",
            vec![
                Host(A, Write, 8, 8),
                Answers,
                Host(A, Write, 12, 8),
                Mark,
                F(Fault::CrashBoth),
                Both,
                Host(A, Read, 8, 16),
                Answers,
                Clean,
            ],
        ),
        script(
            "stop",
            vec![
                Host(A, Write, 8, 8),
                Answers,
                Mark,
                F(Fault::Stop(A)),
                Host(B, Write, 12, 8),
                Answers,
                Both,
            ],
        ),
    ]
}

/// The traces of the design that such a script can tell; the others are in `tests/traces.rs` alone.
fn traces() -> Vec<Script> {
    use Op::{Fua, LongWrite, Read, Write};
    use Step::{Answers, Both, Clean, Down, Fault as F, Host, Link, Mark, Pass, Serves, SlowDisks, Up};
    vec![
        script(
            "trace-1-lost-release",
            vec![
                Host(A, Write, 0, 8),
                Answers,
                Mark,
                Clean,
                Link(false),
                Pass(5),
                Link(true),
                Both,
                Host(A, Write, 0, 8),
                Answers,
            ],
        ),
        script(
            "trace-2-late-write",
            vec![
                Mark,
                SlowDisks(40),
                Host(A, Write, 0, 8),
                Answers,
                Pass(25),
                Host(A, Write, 0, 8),
                Answers,
                SlowDisks(0),
                F(Fault::CrashBoth),
                Both,
                Host(A, Read, 0, 8),
                Pass(100),
                Host(B, Read, 0, 8),
                Answers,
            ],
        ),
        script(
            "trace-3-duel",
            vec![
                Host(A, Write, 0, 8),
                Answers,
                Mark,
                Link(false),
                Pass(4000),
                Link(true),
                Both,
            ],
        )
        .apart(),
        script(
            "trace-4-ballot-and-fence",
            vec![
                SlowDisks(30),
                Host(A, Write, 0, 8),
                Answers,
                Pass(22),
                SlowDisks(0),
                Mark,
                F(Fault::Pause(A, 3000)),
                Pass(1600),
                Host(B, Write, 0, 8),
                Answers,
                Both,
            ],
        )
        .apart(),
        script(
            "trace-5-clean-is-not-clean",
            vec![
                Down(B),
                Serves(A),
                Pass(1100),
                Mark,
                SlowDisks(10),
                Host(A, Write, 0, 64),
                Pass(5),
                Down(A),
                Up(B),
                Pass(3000),
                Up(A),
                Both,
                Answers,
            ],
        ),
        script(
            "trace-6-zombie",
            vec![
                Host(A, Write, 0, 8),
                Answers,
                Down(B),
                Serves(A),
                Pass(1200),
                Link(false),
                Up(B),
                Mark,
                F(Fault::Pause(A, 5000)),
                Host(A, Read, 0, 8),
                Pass(5100),
                Link(true),
                Both,
            ],
        )
        .apart(),
        script(
            "trace-7-joining",
            vec![
                Host(A, Write, 0, 8),
                Answers,
                Down(B),
                Serves(A),
                Host(A, Write, 0, 8),
                Answers,
                Mark,
                SlowDisks(3),
                Host(A, Write, 4, 8),
                Up(B),
                Pass(60),
                Host(A, LongWrite, 4, 8),
                Both,
                Down(A),
                Serves(B),
                Host(B, Read, 0, 12),
                Answers,
            ],
        ),
        script(
            "trace-8-undecided",
            vec![
                Mark,
                Host(A, Write, 0, 8),
                Link(false),
                Pass(2),
                Link(true),
                Both,
                Host(A, Write, 0, 8),
                Answers,
            ],
        ),
        script(
            "trace-9-losing-alive",
            vec![
                Host(A, Write, 0, 8),
                Answers,
                Clean,
                SlowDisks(3000),
                Host(A, Write, 0, 8),
                Answers,
                Pass(25),
                SlowDisks(0),
                Mark,
                Link(false),
                F(Fault::Pause(A, 1700)),
                Pass(2500),
                Link(true),
                Both,
                Host(B, Read, 0, 8),
                Host(A, Write, 4, 8),
                Answers,
                Clean,
            ],
        )
        .apart(),
        script(
            "trace-10-alone-and-forgotten",
            vec![
                Host(A, Write, 0, 8),
                Answers,
                Mark,
                Link(false),
                Serves(A),
                Host(A, Fua, 0, 8),
                Answers,
                Down(A),
                Link(true),
                Pass(100),
                Up(A),
                Both,
                Host(B, Read, 0, 8),
                Answers,
            ],
        ),
        script(
            "trace-12-going-back",
            vec![
                Host(A, Write, 0, 8),
                Answers,
                Mark,
                Host(A, LongWrite, 0, 8),
                F(Fault::CrashBoth),
                Serves(A),
                Host(A, Read, 0, 8),
                Answers,
                Down(A),
                Serves(B),
                Host(B, Read, 0, 8),
                Answers,
            ],
        ),
        script(
            "trace-14-freed-too-early",
            vec![
                Host(A, Write, 0, 8),
                Answers,
                Mark,
                Pass(21),
                F(Fault::PowerLoss),
                Both,
                Host(A, Read, 0, 8),
                Answers,
            ],
        ),
        script(
            "trace-15-two-allocators",
            vec![
                Host(A, Write, 0, 8),
                Answers,
                Down(A),
                Serves(B),
                Mark,
                Host(B, Write, 4, 8),
                Up(A),
                Both,
                Host(A, Write, 0, 8),
                Host(B, Write, 16, 8),
                Answers,
                Down(B),
                Serves(A),
                Host(A, Read, 0, 24),
                Answers,
            ],
        ),
        script(
            "trace-18-late-command",
            vec![
                Mark,
                F(Fault::Pause(A, 2500)),
                Host(A, Write, 0, 8),
                Pass(2400),
                Host(B, Write, 0, 8),
                Answers,
                Both,
                Host(A, Read, 0, 8),
                Answers,
                Clean,
            ],
        )
        .apart(),
    ]
}

/// A run of a script; a copy of it goes its own way.
#[derive(Clone)]
pub struct Play {
    /// The world in which it runs.
    pub(crate) world: World,
    script: Arc<Script>,
    /// The next step.
    at: usize,
    /// When the wait of the present step ends, come what may.
    until: u64,
    /// The script has come to its mark.
    marked: bool,
    /// Which LUN commands are for.
    lun: usize,
}

impl Play {
    /// Both controllers run and serve; nothing of the script has happened yet.
    ///
    /// # Errors
    /// What was found before the script begins.
    pub fn begin(script: Script) -> Result<Play, String> {
        let plan = Plan {
            mode: Mode::Promise,
            restart: Some((RESTART, RESTART)),
            pools: script.pools,
            apart: script.apart,
            paths: script.paths,
            hot: 0..328,
            luns: 1,
            retry_after: 30 * MS,
            ..Plan::scripted()
        };
        let mut play = Play {
            world: World::calm(plan),
            script: Arc::new(script),
            at: 0,
            until: 0,
            marked: false,
            lun: 0,
        };
        play.world.bring_up();
        let limit = play.world.now() + PATIENCE;
        while !play.world.is_well() && play.world.now() < limit {
            play.world.advance()?;
        }
        Ok(play)
    }

    /// Lets the next thing happen. `false`: the script has come to its end.
    ///
    /// # Errors
    /// What an oracle objects to.
    pub fn advance(&mut self) -> Result<bool, String> {
        while self.at < self.script.steps.len() {
            if self.until == 0 {
                self.until = self.world.now() + PATIENCE;
                let step = self.script.steps[self.at].clone();
                self.begin_step(&step);
            }
            if !self.is_over() {
                return Ok(self.world.advance()? || self.give_up_waiting());
            }
            self.at += 1;
            self.until = 0;
        }
        Ok(false)
    }

    /// Nothing happens any more by itself: the wait is over.
    fn give_up_waiting(&mut self) -> bool {
        self.until = self.world.now();
        true
    }

    fn begin_step(&mut self, step: &Step) {
        let world = &mut self.world;
        match step {
            Step::Host(path, op, start, blocks) => world.send(*path, *op, self.lun, *start, *blocks),
            Step::Lun(lun) => self.lun = *lun,
            Step::Fault(fault) => world.inject(*fault),
            Step::Down(c) => world.put_down(*c),
            Step::Up(c) => world.put_up(*c),
            Step::Link(works) => world.set_link(*works),
            Step::SlowDisks(ms) => world.slow_disks(*ms),
            Step::Pass(ms) => self.until = world.now() + ms * MS,
            Step::Mark => {
                self.marked = true;
                world.begin_story();
            }
            Step::Answers | Step::Both | Step::Serves(_) | Step::Clean | Step::Merging | Step::Level => {}
        }
    }

    fn is_over(&self) -> bool {
        let world = &self.world;
        world.now() >= self.until
            || match self.script.steps[self.at] {
                Step::Answers => world.all_answered(),
                Step::Both => world.is_well(),
                Step::Serves(c) => world.serves(c),
                Step::Clean => world.is_clean(),
                Step::Merging => world.has_merging_disk(),
                Step::Level => world.have_disks_come_back(),
                Step::Pass(_) => false,
                _ => true,
            }
    }

    /// Whether what is enumerated has begun.
    pub fn is_marked(&self) -> bool {
        self.marked
    }

    /// From now on what happens is told.
    pub fn tell(&mut self) {
        self.world.tell_all();
    }

    /// To the end: the rest of the script, then all is healed, becomes well, and is looked at.
    ///
    /// # Errors
    /// What an oracle objects to.
    pub fn finish(mut self) -> Result<(), String> {
        while self.advance()? {}
        self.world.end_well()
    }

    /// The same, and the story.
    pub(crate) fn finish_told(mut self) -> (String, Result<(), String>) {
        let result = loop {
            match self.advance() {
                Ok(true) => {}
                Ok(false) => break self.world.end_well(),
                Err(what) => break Err(what),
            }
        };
        (self.world.story(), result)
    }

    /// The story since the mark.
    ///
    /// # Errors
    /// What an oracle objects to.
    pub fn story(mut self) -> Result<String, String> {
        while self.advance()? {}
        let story = self.world.story();
        self.world.end_well()?;
        Ok(story)
    }
}
