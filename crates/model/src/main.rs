//! The model checker: the product's own core, two of them, with a wire, a disk, NV memories and hosts; every order of what
//! can happen within small bounds.
//!
//! `twincell-model [--states N] [--scope NAME]`: without a number the scopes that are known to close, each of which must; with
//! one all of them, up to so many states each. With the feature `mutants` also `--mutant NAME`, which must be found.
//! `docs/model.md` says what is within reach of it, and what is not.
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

/// States of a scope, if nobody says otherwise: the largest that closes has a third of them. Whoever asks for fewer may find
/// that it does not close.
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
    let mut ends = scopes.iter().filter(wanted).map(|s| run(s, states.unwrap_or(STATES)));
    // Every scope of the sound core must be good; of a broken one the first finding is enough.
    let good = if is_sound {
        ends.fold(true, |all, end| all & (end == End::Good))
    } else {
        ends.any(|end| end == End::Found)
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

/// How a search has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// As it should.
    Good,
    /// A scope that is known to close has not.
    Open,
    /// It has found what may not happen.
    Found,
}

fn run(scope: &Scope, states: usize) -> End {
    let begun = Instant::now();
    let explored = std::panic::catch_unwind(|| explore::explore(scope, states));
    match explored.unwrap_or_else(|_| Err(format!("the core panicked\n--- the way there\n{}", explore::path()))) {
        Ok(report) => {
            let (end, words) = end_of(report.closed, scope.closes, states);
            println!(
                "{}: {} states, {} actions, depth {}, {} reads at rest, {words}; {:.1} s ({})",
                scope.name,
                report.states,
                report.actions,
                report.depth,
                report.probes,
                begun.elapsed().as_secs_f64(),
                scope.about
            );
            end
        }
        Err(what) => {
            println!("{}: FAILED: {what}", scope.name);
            End::Found
        }
    }
}

/// What it means that a search without a finding has closed, or has not.
fn end_of(has_closed: bool, closes: bool, states: usize) -> (End, &'static str) {
    match (has_closed, closes) {
        (true, _) => (End::Good, "closed"),
        (false, false) => (End::Good, "NOT closed: only a part of it was explored"),
        (false, true) if states < STATES => (
            End::Good,
            "NOT closed within so few states: only a part of it was explored",
        ),
        (false, true) => (End::Open, "NOT closed, and it is known to close: FAILED"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_to_close_must() {
        assert_eq!(end_of(true, true, STATES).0, End::Good);
        assert_eq!(end_of(false, false, STATES).0, End::Good);
        assert_eq!(end_of(false, true, STATES).0, End::Open);
        assert_eq!(end_of(false, true, 2 * STATES).0, End::Open);
    }

    #[test]
    fn what_is_given_few_states_need_not_close_and_says_so() {
        let (end, words) = end_of(false, true, STATES - 1);
        assert!(end == End::Good && words.contains("NOT closed"));
    }

    #[test]
    fn a_scope_closes_or_runs_out_of_states() {
        let scopes = Scope::all();
        let smallest = scopes.iter().find(|s| s.name == "drop").expect("the scope");
        assert_eq!(run(smallest, STATES), End::Good);
        assert!(explore::explore(smallest, 100).is_ok_and(|report| !report.closed));
    }
}
