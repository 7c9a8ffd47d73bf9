//! All mutants, from the list to the figures.

use crate::baseline::{checks, elsewhere};
use crate::failed::{Failed, at};
use crate::hunt::{Check, Outcome, Seen};
use crate::list::{self, Mutant};
use crate::programs::Programs;
use crate::report;
use crate::schema::{Fate, Schema, check_apart};
use crate::state::{State, key, known};
use crate::tree::Tree;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Where the mutants are.
const MUTATED: &str = "twincell-core";
/// Where the tests are.
const TESTED: [&str; 2] = ["twincell-core", "twincell-sim"];
/// Everything of this tool is there.
const TARGET: &str = "target/mutate";

/// What is asked for.
pub struct Settings {
    /// Mutants that run at the same time.
    pub jobs: usize,
    /// Seeds that come first, before the tests.
    pub seeds: u64,
    /// Seeds for who survives them.
    pub more_seeds: u64,
    /// Only mutants whose name has this in it.
    pub only: Option<String>,
    /// Only those that were missed before.
    pub survivors: bool,
    /// Only says what was found so far.
    pub report: bool,
}

/// Tests every mutant that is asked for.
pub fn run(root: &Path, settings: &Settings) -> Result<(), Failed> {
    let begun = Instant::now();
    let target = root.join(TARGET);
    std::fs::create_dir_all(&target).map_err(at(&target))?;
    let mutants = list::mutants(root, MUTATED)?;
    let state_file = target.join("state");
    if settings.report {
        return tell(&mutants, &known(&state_file), &target);
    }
    let schema = Schema::settle(&Tree::copy(root, &target, "attempt", &[])?, MUTATED, &mutants)?;
    let tree = Tree::copy(root, &target, "tree", &schema.files())?;
    schema.write(&tree)?;
    let fates = schema.fates();
    let programs = Programs::build(&tree, &TESTED)?;
    println!("{} mutants, built after {} s", mutants.len(), begun.elapsed().as_secs());
    let seeds = [0..settings.seeds, settings.seeds..settings.seeds + settings.more_seeds];
    let checks = checks(&programs, seeds, &target.join("reached"))?;
    println!(
        "{} checks without a mutant, after {} s",
        checks.len(),
        begun.elapsed().as_secs()
    );
    let key = key(programs.files(), (settings.seeds, settings.more_seeds))?;
    let state = State::load(&state_file, &key, settings.survivors)?;
    let is_asked = |m: &&Mutant| settings.only.as_ref().is_none_or(|only| m.name.contains(only));
    let run = Run {
        mutants: mutants.iter().filter(is_asked).collect(),
        fates,
        programs,
        checks,
        state: Mutex::new(state),
    };
    run.those_that_are_none()?;
    for check in 0..run.checks.len() {
        run.check(check, settings.jobs)?;
    }
    run.apart(&Tree::copy(root, &target, "apart", &[])?)?;
    println!("{} s", begun.elapsed().as_secs());
    tell(&mutants, &run.state().found, &target)
}

fn tell(mutants: &[Mutant], found: &BTreeMap<String, Outcome>, target: &Path) -> Result<(), Failed> {
    report::summary(mutants, found);
    report::survivors(mutants, found, &target.join("survivors.txt"))
}

struct Run<'r> {
    /// Those that are asked for.
    mutants: Vec<&'r Mutant>,
    fates: BTreeMap<u32, Fate>,
    programs: Programs,
    checks: Vec<Check>,
    state: Mutex<State>,
}

impl Run<'_> {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Those that no build has.
    fn those_that_are_none(&self) -> Result<(), Failed> {
        let known: BTreeSet<String> = self.state().found.keys().cloned().collect();
        for mutant in self.mutants.iter().filter(|m| !known.contains(&m.name)) {
            match self.fates[&mutant.number] {
                Fate::DoesNotBuild => self.state().keep(&mutant.name, Outcome::DoesNotBuild)?,
                Fate::NotCompiled => self.state().keep(&mutant.name, Outcome::NotCompiled)?,
                Fate::Switched { .. } | Fate::Apart => {}
            }
        }
        Ok(())
    }

    /// One check, for all that are in the one build and were not caught before.
    fn check(&self, check: usize, jobs: usize) -> Result<(), Failed> {
        let open: Vec<_> = self.mutants.iter().filter_map(|m| self.open(m, check)).collect();
        let (next, begun) = (AtomicUsize::new(0), Instant::now());
        let work = || -> Result<usize, Failed> {
            let mut caught = 0;
            while let Some((mutant, place, seen)) = open.get(next.fetch_add(1, Ordering::Relaxed)) {
                let outcome = match self.checks[check].hunt(&self.programs, mutant.number, *place) {
                    Ok(now) => Outcome::Missed(now.max(*seen), check + 1),
                    Err(by) => Outcome::Caught(by),
                };
                caught += usize::from(matches!(outcome, Outcome::Caught(_)));
                self.state().keep(&mutant.name, outcome)?;
            }
            Ok(caught)
        };
        let caught = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..jobs).map(|_| scope.spawn(work)).collect();
            let caught = workers
                .into_iter()
                .map(|w| w.join().unwrap_or_else(|_| Err(Failed("a worker panicked".to_owned()))));
            caught.sum::<Result<usize, Failed>>()
        })?;
        let seconds = begun.elapsed().as_secs();
        println!(
            "{}: {caught} of {} caught, {seconds} s",
            self.checks[check].name(),
            open.len()
        );
        Ok(())
    }

    /// A mutant with its place, and what was seen of it, unless it was caught or has met this check before.
    fn open<'m>(&self, mutant: &'m Mutant, check: usize) -> Option<(&'m Mutant, u32, Seen)> {
        let Fate::Switched { place } = self.fates[&mutant.number] else {
            return None;
        };
        match self.state().found.get(&mutant.name) {
            None => Some((mutant, place, Seen::Unreached)),
            Some(Outcome::Missed(seen, checks)) if *checks <= check => Some((mutant, place, *seen)),
            Some(_) => None,
        }
    }

    /// Those that have to be built by themselves.
    fn apart(&self, tree: &Tree) -> Result<(), Failed> {
        let is_open = |m: &Mutant| self.fates[&m.number] == Fate::Apart && !self.state().found.contains_key(&m.name);
        let open: Vec<&Mutant> = self.mutants.iter().copied().filter(|m| is_open(m)).collect();
        let broken = check_apart(tree, MUTATED, &open)?;
        println!(
            "{} are built by themselves, {} do not build",
            open.len() - broken.len(),
            broken.len()
        );
        for mutant in open {
            let outcome = if broken.contains(&mutant.number) {
                Outcome::DoesNotBuild
            } else {
                self.one_apart(tree, mutant)?
            };
            self.state().keep(&mutant.name, outcome)?;
        }
        Ok(())
    }

    fn one_apart(&self, tree: &Tree, mutant: &Mutant) -> Result<Outcome, Failed> {
        let text = tree.original(&mutant.file)?;
        tree.write(&mutant.file, mutant.applied_to(&text).as_bytes())?;
        let outcome = match Programs::build(tree, &TESTED) {
            Ok(programs) => self.every_check(&programs),
            // The tests may not be able to do without a constant.
            Err(_) => Outcome::DoesNotBuild,
        };
        tree.write(&mutant.file, text.as_bytes())?;
        println!("{}: {outcome:?}", mutant.name);
        Ok(outcome)
    }

    /// Whether these programs, which have a mutant without a switch, are caught.
    fn every_check(&self, programs: &Programs) -> Outcome {
        let mut seen = Seen::Unreached;
        let place = 0;
        for check in elsewhere(&self.checks, programs, place) {
            match check.hunt(programs, 0, place) {
                Ok(now) => seen = seen.max(now),
                Err(by) => return Outcome::Caught(by),
            }
        }
        Outcome::Missed(seen, self.checks.len())
    }
}
