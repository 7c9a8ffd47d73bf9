//! Everything, and the queue of what happens next.

mod aftermath;
mod agreement;
mod ailing;
mod answers;
mod atlas;
mod calm;
mod cell;
mod commands;
mod controllers;
mod effects;
mod ending;
mod faults;
mod instants;
mod operators;
mod patience;
mod queue;
mod rest;
mod scenario;
mod shelf;
mod stage;
mod story;
mod wire;

pub use scenario::{Scenario, Sent};

use crate::clock::Clock;
use crate::digest::Digest;
use crate::disks::Shelf;
use crate::history::History;
use crate::hosts::{Attempt, Command};
use crate::marks::Marks;
use crate::plan::{Mode, Plan};
use crate::process::{NvMemory, Process};
use crate::random::Random;
use crate::trigger::Trigger;
use cell::first_metadata;
use operators::Asked;
use patience::Patience;
use queue::{Happening, Queue};
use shelf::Held;
use std::collections::{BTreeMap, VecDeque};
use std::hash::{Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use twincell_core::cell::record::{Record, Slot};
use twincell_core::config::{Geometry, Timing};
use twincell_core::ids::{Controller, Epoch, NcaeIndex, Noid, PSEG_BLOCKS, ProcessId, Time};
use twincell_core::{Core, Effect, Event};
use wire::Wire;

const US: u64 = 1_000;
const MS: u64 = 1_000_000;
const LUNS: usize = 2;
const HOSTS: usize = crate::hosts::HOSTS as usize;
/// From which that is drawn.
const DAMAGE: u64 = 0xda3a6e;
/// When it begins.
const BEGINNING: u64 = 1_000 * MS;
/// The data of a write come within this.
const SLOWEST_HOST: u64 = 5_000 * MS;
/// A host gives an attempt up after this, unless a script wants it to be patient.
const HOST_TIMEOUT: u64 = 8_000 * MS;
/// After the last fault is healed, everything must be well again within this.
const LIVENESS: u64 = 120_000 * MS;

/// What a run came to.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// A digest of everything that happened, in order.
    pub digest: u64,
    /// Things that happened.
    pub happenings: u64,
    /// Writes that were acknowledged.
    pub writes: u64,
    /// Reads that were checked.
    pub reads: u64,
    /// Takeovers.
    pub takeovers: u64,
    /// What was seen at least once.
    pub marks: Marks,
}

/// A LUN as hosts know it. Its place in the list is what commands and histories go by.
#[derive(Clone, Copy, Debug)]
struct SeenLun {
    ncae: NcaeIndex,
    noid: Noid,
    /// An operator wants it deleted: it may be gone at any time.
    doomed: bool,
    /// Its size, as far as anybody knows.
    blocks: u64,
    /// The number in its name.
    group: Option<u16>,
}

impl SeenLun {
    fn first(n: u16) -> SeenLun {
        SeenLun {
            ncae: NcaeIndex(n),
            noid: Noid(u32::from(n) + 1),
            doomed: false,
            blocks: 3 * PSEG_BLOCKS,
            group: Some(n),
        }
    }
}

/// How an event is handed to a core.
pub type Step = fn(&mut Core, Time, Event, &mut Vec<Effect>);

/// Everything.
#[derive(Clone)]
pub(crate) struct World {
    step: Step,
    now: u64,
    number: u64,
    random: Random,
    /// For what some seeds draw, and the others go on as if there were no such thing.
    aside: Random,
    /// For what disks do with a write that fails, or whose process has died, and for how long NV memory takes.
    damage: Random,
    queue: Queue,
    geometry: Geometry,
    timing: Timing,
    processes: [Option<Process>; 2],
    nv: [Option<NvMemory>; 2],
    next_process: u32,
    /// Of the two machines.
    clocks: [Clock; 2],
    shelf: Shelf,
    /// A host gives an attempt up after so many nanoseconds.
    host_timeout: u64,
    /// What a disk that answers nothing was asked for.
    held: Vec<Held>,
    wire: Wire,
    plan: Plan,
    /// What waits for a moment in what a controller does, and is still to come.
    triggers: Vec<Trigger>,
    commands: Vec<Command>,
    /// By number; there is no attempt 0.
    attempts: Vec<Attempt>,
    in_flight: usize,
    paths: [usize; HOSTS],
    histories: Vec<History>,
    stopped: [bool; 2],
    digest: Digest,
    report: Report,
    verbose: bool,
    next_request: u64,
    /// What operators have asked for, whatever became of it.
    asked: Vec<Asked>,
    luns: Vec<SeenLun>,
    /// Nanoseconds from the start of each process, or from its beginning to serve, to its end.
    ends_after_start: [Option<u64>; 2],
    ends_after_serving: [Option<u64>; 2],
    /// When one ends at its point, the partner ends so many nanoseconds later.
    partner_follows: [Option<u64>; 2],
    /// The record of each epoch that a controller said to be committed.
    records: BTreeMap<Epoch, Record>,
    /// When the last of them was first said to be so.
    newest_record_at: u64,
    /// The newest record under which a controller began to serve alone, and who.
    served_alone: Option<(Epoch, Controller)>,
    /// Which NV memories were lost since both were in, and whether an operator was asked to accept that.
    memories_lost: [bool; 2],
    is_loss_accepted: bool,
    /// Who has written to a LUN as its owner, by epoch.
    owners: BTreeMap<(Epoch, Noid), Controller>,
    healing: bool,
    /// Hosts go on all the same: see `aftermath.rs`.
    goes_on: bool,
    /// Everything is expected to become well, and to stay so: see `calm.rs`.
    awaits_calm: bool,
    /// How many attempts of hosts had begun when all had become well.
    calm_since: Option<u64>,
    /// How long hosts wait at most.
    patience: Patience,
    /// How often each NV memory had changed when both were last seen to hold the same.
    agreed: Option<[Option<u64>; 2]>,
    /// Data that a controller asks for come so many nanoseconds later.
    fetch_delay: u64,
    /// What happened, in compact words, if anybody wants to know.
    story: Option<Vec<String>>,
    /// A controller that ends at once when a line of the story that it causes has this text.
    traps: Vec<(Controller, String)>,
    /// That has just happened.
    trapped: bool,
    failure: Option<String>,
    /// Effects that each controller has carried out.
    effects_done: [u64; 2],
    /// Slots that were written.
    slots_written: u64,
    /// Memory that every step uses again.
    effects: Vec<Effect>,
    ready: VecDeque<Event>,
}

/// Runs a seed.
///
/// # Errors
/// What was found, in words. A broken invariant of the core panics.
pub fn run(seed: u64, verbose: bool) -> Result<Report, String> {
    run_plan(Plan::of_seed(seed), verbose)
}

/// Runs a plan: storm, heal, drain, and a scan of everything.
///
/// # Errors
/// What was found, in words. A broken invariant of the core panics.
pub fn run_plan(plan: Plan, verbose: bool) -> Result<Report, String> {
    let mut world = World::with(Random::new(plan.stream), plan, verbose);
    world.work()?;
    world.end_well()?;
    world.report.digest = world.digest.finish();
    world.report.happenings = world.number;
    Ok(world.report)
}

/// Runs a plan, and tells its story.
pub fn run_told(plan: Plan, verbose: bool) -> (Vec<String>, Result<(), String>) {
    let random = Random::new(plan.stream);
    let mut world = World::with(random, plan, verbose);
    world.tell_all();
    let run = AssertUnwindSafe(|| world.work().and_then(|()| world.end_well()));
    let result = catch_unwind(run).unwrap_or_else(|_| Err("the core panicked".into()));
    (world.story.take().unwrap_or_default(), result)
}

impl World {
    fn with(random: Random, plan: Plan, verbose: bool) -> World {
        let geometry = plan.pools.geometry(plan.stream);
        let patience = Patience::of(&plan);
        let awaits_calm = plan.mode == Mode::Calm;
        let quorum = plan.shape.voters();
        let mut shelf = Shelf::new(plan.shape.disks());
        let (record, metadata) = (Record::first(&quorum), first_metadata(&plan.shape));
        for voter in &quorum {
            let disk = &mut shelf.disks[voter.index()];
            for controller in Controller::BOTH {
                disk.slots[controller.index()] = Some(Slot::idle(controller, ProcessId::default(), record));
            }
            disk.metadata[0] = Some(metadata.clone());
        }
        World {
            step: Core::step,
            now: BEGINNING,
            number: 0,
            damage: random.apart(DAMAGE),
            random,
            aside: Random::new(!plan.stream),
            queue: Queue::default(),
            geometry,
            timing: Timing::default(),
            processes: [None, None],
            nv: [None, None],
            next_process: 1,
            // No two machines were started at the same moment.
            clocks: [Clock::ahead(0), Clock::ahead(7_000 * MS)],
            shelf,
            host_timeout: HOST_TIMEOUT,
            held: Vec::new(),
            wire: Wire::new(plan.paths),
            triggers: plan.triggers.clone(),
            plan,
            commands: Vec::new(),
            attempts: Vec::new(),
            in_flight: 0,
            paths: [0; HOSTS],
            histories: vec![History::default(); LUNS],
            stopped: [false; 2],
            digest: Digest::default(),
            report: Report::default(),
            verbose,
            next_request: 1,
            asked: Vec::new(),
            luns: (0..LUNS as u16).map(SeenLun::first).collect(),
            ends_after_start: [None; 2],
            ends_after_serving: [None; 2],
            partner_follows: [None; 2],
            records: BTreeMap::new(),
            newest_record_at: 0,
            served_alone: None,
            memories_lost: [false; 2],
            is_loss_accepted: false,
            owners: BTreeMap::new(),
            healing: false,
            goes_on: false,
            awaits_calm,
            calm_since: None,
            patience,
            agreed: None,
            fetch_delay: 0,
            story: None,
            traps: Vec::new(),
            trapped: false,
            failure: None,
            effects_done: [0; 2],
            slots_written: 0,
            effects: Vec::new(),
            ready: VecDeque::new(),
        }
    }

    /// Takes the next happening. `false` when there is none.
    pub(crate) fn advance(&mut self) -> Result<bool, String> {
        let Some((at, what)) = self.queue.pop() else {
            return Ok(false);
        };
        self.now = self.now.max(at);
        self.number += 1;
        self.now.hash(&mut self.digest);
        self.happen(what);
        self.poll_locks();
        // Not at each event: it costs as much as many of them.
        if self.number.is_multiple_of(16) {
            self.check_agreement();
            Controller::BOTH.into_iter().for_each(|c| self.check_view(c));
            self.look_for_calm();
            self.check_service();
        }
        match self.failure.take() {
            Some(failure) => Err(failure),
            None => Ok(true),
        }
    }

    pub(super) fn work(&mut self) -> Result<(), String> {
        for controller in Controller::BOTH {
            let delay = self.random.below(20 * MS);
            self.after(delay, Happening::Start(controller));
        }
        let begin = self.random.between(1, 300) * MS;
        for (at, fault) in self.plan.faults.clone() {
            self.after(begin + at, Happening::Fault(fault));
        }
        for host in 0..HOSTS {
            for _ in 0..self.plan.depth {
                let delay = self.random.below(200 * MS);
                self.after(delay, Happening::NextCommand(host));
            }
        }
        let end = self.now + begin + self.plan.faults.last().map_or(0, |f| f.0) + 100 * MS;
        let limit = end + LIVENESS;
        while self.now < end || (self.commands.len() as u32) < self.plan.commands {
            if !self.advance()? || self.now > limit {
                if self.plan.mode == Mode::Chaos {
                    return Ok(());
                }
                return Err(format!(
                    "stuck after {} of {} commands: {}",
                    self.commands.len(),
                    self.plan.commands,
                    self.state()
                ));
            }
        }
        Ok(())
    }

    fn happen(&mut self, what: Happening) {
        match what {
            Happening::Start(controller) => self.start(controller),
            Happening::Event(controller, process, event) => self.deliver(controller, process, *event),
            Happening::Tick(controller, process, at) => {
                let current = self.process(controller, process).filter(|p| p.tick_at == at);
                if let Some(p) = current {
                    p.tick_at = 0;
                    self.deliver(controller, process, Event::Tick);
                }
            }
            Happening::Resume(controller, process) => self.resume(controller, process),
            Happening::Land(landing) => self.land(landing),
            Happening::Overdue(number) => self.overdue(number),
            Happening::OpenLine(n) => self.open_line(n),
            Happening::LineCloses(to, process, connection) => self.line_closes(to, process, connection),
            Happening::Frame {
                connection,
                to,
                arrival,
            } => self.frame_arrives(connection, to, arrival),
            Happening::NextCommand(host) => self.next_command(host),
            Happening::Arrive(attempt) => self.arrive(attempt),
            Happening::HostData {
                attempt,
                process,
                id,
                offset,
                into,
            } => self.host_data(attempt, process, id, offset, &into),
            Happening::Answer { attempt, status } => self.answer(attempt, status),
            Happening::PathFails(attempt) => self.path_fails(attempt),
            Happening::TimeOut(attempt) => self.time_out(attempt),
            Happening::Withdraw(attempt) => self.withdraw(attempt),
            Happening::Ask(_) if self.healing => {}
            Happening::Ask(op) => self.manage(*op),
            // A crash that was drawn before the healing, and would come after it.
            Happening::Fault(_) if self.healing => {}
            Happening::Fault(fault) => self.fault(fault),
            Happening::Heal(fault) => self.heal(fault),
        }
    }

    pub(super) fn fail(&mut self, what: String) {
        self.failure.get_or_insert(what);
    }
}
