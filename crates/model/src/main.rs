//! The model checker: the product's own core, two of them, with a wire, a disk, NV memories and hosts; every order of what
//! can happen within small bounds.
//!
//! `twincell-model [--states N] [--scope NAME]`: without a number the scopes that are known to close, with one all of them, up to
//! so many states each. With the feature `mutants` also `--mutant NAME`, which must be found.
//!
//! | file | what it is |
//! |---|---|
//! | `scope` | the bounds |
//! | `world` | a state, and its fingerprint |
//! | `action` | what can happen next |
//! | `carry_out` | a core handles an event, and what it wants done is done |
//! | `spec` | what hosts may see |
//! | `explore` | the search |
//! | `nv`, `fingerprint` | what their names say |
#![forbid(unsafe_code)]

mod action;
mod carry_out;
mod explore;
mod fingerprint;
mod nv;
mod scope;
mod spec;
mod world;

use scope::Scope;
use std::process::ExitCode;
use std::time::Instant;

/// States of a scope, if nobody says otherwise: the largest that closes has a third of them.
const STATES: usize = 10_000_000;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let mut states = None;
    let mut only = None;
    #[cfg_attr(not(feature = "mutants"), expect(unused_mut))]
    let mut is_sound = true;
    let mut words = arguments.iter().map(String::as_str);
    while let Some(word) = words.next() {
        let value = words.next().unwrap_or_default();
        match (word, value.parse()) {
            ("--states", Ok(n)) => states = Some(n),
            ("--scope", _) if Scope::all().iter().any(|s| s.name == value) => only = Some(value.to_owned()),
            #[cfg(feature = "mutants")]
            ("--mutant", _) if twincell_core::mutant::activate(value) => is_sound = false,
            _ => return usage(),
        }
    }
    let wanted = |scope: &&Scope| match &only {
        Some(name) => name == scope.name,
        None => scope.closes || states.is_some(),
    };
    let scopes = Scope::all();
    let mut sound = scopes.iter().filter(wanted).map(|s| run(s, states.unwrap_or(STATES)));
    // Every scope of the sound core must be; of a broken one the first that is not is enough.
    let good = if is_sound {
        sound.fold(true, |all, one| all & one)
    } else {
        sound.any(|one| !one)
    };
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn usage() -> ExitCode {
    eprintln!("usage: twincell-model [--states N] [--scope NAME], where NAME is one of");
    for scope in Scope::all() {
        eprintln!("  {:10} {}", scope.name, scope.about);
    }
    ExitCode::from(2)
}

fn run(scope: &Scope, states: usize) -> bool {
    let begun = Instant::now();
    let explored = std::panic::catch_unwind(|| explore::explore(scope, states));
    match explored.unwrap_or_else(|_| Err(format!("the core panicked\n--- the way there\n{}", explore::path()))) {
        Ok(report) => {
            println!(
                "{}: {} states, {} actions, depth {}, {} reads at rest, {}; {:.1} s ({})",
                scope.name,
                report.states,
                report.actions,
                report.depth,
                report.probes,
                if report.closed { "closed" } else { "NOT closed" },
                begun.elapsed().as_secs_f64(),
                scope.about
            );
            true
        }
        Err(what) => {
            println!("{}: FAILED: {what}", scope.name);
            false
        }
    }
}
