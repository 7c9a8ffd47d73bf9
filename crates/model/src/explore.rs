//! The search: depth first through every action of every state, each state once.

use crate::action::Action;
use crate::carry_out::{Outcomes, range_of_read};
use crate::fingerprint::Seen;
use crate::scope::{Beginning, Scope};
use crate::world::{Command, READ, World};
use std::cell::RefCell;
use std::time::Instant;
use twincell_core::ids::Controller;

/// Actions that a run without faults may take to come to rest.
const PATIENCE: usize = 3000;
/// Actions that heartbeats may take until all is well.
const HEARTBEATS: usize = 40;

thread_local! {
    /// The actions that led to where the search is: for whoever hears a panic of the core.
    static PATH: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// The way to the present state, in words.
pub fn path() -> String {
    PATH.with_borrow(|path| path.join("\n"))
}

/// What a search came to.
#[derive(Debug, Default)]
pub struct Report {
    /// States, each counted once.
    pub states: usize,
    /// Actions that were tried.
    pub actions: u64,
    /// The longest way from the beginning.
    pub depth: usize,
    /// States at rest in which both blocks were read through each controller that serves.
    pub probes: u64,
    /// Whether every state within the scope was seen.
    pub closed: bool,
}

/// A state, and what is left to be tried there.
struct Visit {
    world: World,
    actions: Vec<Action>,
    /// Worlds in which a process ended in the middle of an action.
    ended: Vec<World>,
}

/// Explores a scope, up to so many states.
///
/// # Errors
/// What may not happen and did, with the way that leads there.
pub fn explore(scope: &Scope, most: usize) -> Result<Report, String> {
    let mut search = Search {
        scope,
        most,
        seen: Seen::default(),
        stack: Vec::new(),
        report: Report::default(),
        begun: Instant::now(),
    };
    let first = begin(scope).map_err(|what| format!("before the search: {what}"))?;
    let result = search.from(first);
    search.report.states = search.seen.len();
    result
        .map(|()| search.report)
        .map_err(|what| format!("{what}\n--- the way there\n{}", path()))
}

/// The first state: everything at rest.
fn begin(scope: &Scope) -> Result<World, String> {
    PATH.take();
    let mut world = World::new(scope);
    let mut outcomes = quietly(scope);
    world.start(Controller::A, &mut outcomes)?;
    if scope.beginning == Beginning::Both {
        world.start(Controller::B, &mut outcomes)?;
        come_to_rest(&mut world, scope, true, |_| false)?;
        if !world.is_well() {
            return Err("the controllers do not come together".into());
        }
    } else {
        come_to_rest(&mut world, scope, false, |_| false)?;
    }
    Ok(world)
}

fn quietly(scope: &Scope) -> Outcomes<'_> {
    Outcomes {
        scope,
        ended: Vec::new(),
        faults: false,
        story: Vec::new(),
    }
}

/// Lets happen what has to, first come first served, until nothing does any more, or `is_done`. `starts` says whether
/// processes that are down are started.
fn come_to_rest(
    world: &mut World,
    scope: &Scope,
    starts: bool,
    is_done: impl Fn(&World) -> bool,
) -> Result<(), String> {
    let mut outcomes = quietly(scope);
    let mut last = Vec::new();
    for _ in 0..PATIENCE {
        let down = starts && world.processes.iter().any(Option::is_none);
        if is_done(world) || world.is_quiet() && world.is_at_rest() && !down {
            return Ok(());
        }
        let optional = |a: &Action| matches!(a, Action::Start(c) if !world.restarts[c.index()]);
        let next = world.actions(&outcomes).into_iter().find(|a| starts || !optional(a));
        match next {
            Some(action) => {
                world.act(action, &mut outcomes)?;
                last.push(action);
            }
            None => return Ok(()),
        }
    }
    let last = &last[PATIENCE - 12..];
    Err(format!("it does not come to rest; the last actions were {last:?}"))
}

struct Search<'a> {
    scope: &'a Scope,
    most: usize,
    seen: Seen,
    stack: Vec<Visit>,
    report: Report,
    begun: Instant,
}

impl Search<'_> {
    fn from(&mut self, first: World) -> Result<(), String> {
        self.visit(first)?;
        while let Some(top) = self.stack.last_mut() {
            let next = if let Some(ended) = top.ended.pop() {
                note("  a process ends in the middle of it");
                ended
            } else if let Some(action) = top.actions.pop() {
                let mut world = top.world.clone();
                note(&format!("{action:?}"));
                let mut outcomes = Outcomes {
                    scope: self.scope,
                    ended: Vec::new(),
                    faults: true,
                    story: Vec::new(),
                };
                self.report.actions += 1;
                let result = world.act(action, &mut outcomes);
                note_story(&outcomes.story);
                result?;
                top.ended = outcomes.ended;
                world
            } else {
                self.stack.pop();
                unnote();
                continue;
            };
            if self.seen.len() >= self.most {
                return Ok(());
            }
            self.visit(next)?;
        }
        self.report.closed = true;
        Ok(())
    }

    /// Goes on from a state if it is new.
    fn visit(&mut self, world: World) -> Result<(), String> {
        if !self.seen.insert(world.fingerprint()) {
            unnote();
            return Ok(());
        }
        if self.seen.len().is_multiple_of(500_000) {
            eprintln!(
                "{}: {} states, depth {}, {} s",
                self.scope.name,
                self.seen.len(),
                self.stack.len(),
                self.begun.elapsed().as_secs()
            );
        }
        if world.is_quiet() {
            self.probe(&world)?;
        }
        let outcomes = Outcomes {
            scope: self.scope,
            ended: Vec::new(),
            faults: true,
            story: Vec::new(),
        };
        let actions = world.actions(&outcomes);
        self.stack.push(Visit {
            world,
            actions,
            ended: Vec::new(),
        });
        self.report.depth = self.report.depth.max(self.stack.len());
        Ok(())
    }

    /// A state at rest: what is read through a controller that serves must be permitted. Where nothing at all can happen
    /// any more, both must be in, and no command may be open.
    fn probe(&mut self, world: &World) -> Result<(), String> {
        for c in Controller::BOTH {
            if world.process(c).is_some_and(|p| p.serves) {
                self.read_through(world, c)?;
            }
        }
        if world.is_at_rest() && world.processes.iter().all(Option::is_some) {
            self.must_become_well(world.clone())?;
        }
        Ok(())
    }

    /// Both are there, and nothing will happen by itself but heartbeats: with these all must be well.
    fn must_become_well(&self, mut world: World) -> Result<(), String> {
        let mut outcomes = quietly(self.scope);
        for _ in 0..HEARTBEATS {
            if world.is_well() && !world.commands.contains(&Command::Open) {
                return Ok(());
            }
            let Some(action) = world.actions(&outcomes).into_iter().next() else {
                break;
            };
            world.act(action, &mut outcomes)?;
        }
        Err("everything has come to rest, and all is not well".into())
    }

    fn read_through(&mut self, world: &World, c: Controller) -> Result<(), String> {
        if world.commands[READ] == Command::Open {
            return Ok(());
        }
        self.report.probes += 1;
        let mut world = world.clone();
        let (start, blocks) = range_of_read();
        let register = world.register.clone();
        world.register.begin_read();
        world.command(c, READ, start, blocks, false, &mut quietly(self.scope))?;
        let is_over = |w: &World| w.commands[READ] == Command::Over;
        come_to_rest(&mut world, self.scope, false, is_over)
            .map_err(|what| format!("a read through {c}, which began at rest: {what} (permitted: {register:?})"))
    }
}

fn note(what: &str) {
    PATH.with_borrow_mut(|path| path.push(what.to_owned()));
}

/// What the cores did in the last action.
fn note_story(story: &[String]) {
    PATH.with_borrow_mut(|path| {
        for line in story {
            if let Some(last) = path.last_mut() {
                last.push_str("\n    ");
                last.push_str(line);
            }
        }
    });
}

fn unnote() {
    PATH.with_borrow_mut(|path| path.pop());
}
