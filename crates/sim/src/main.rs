//! `twincell-sim run`, `repro`, `shrink`, `enumerate` and `digests`: the usage says more. With the feature `mutants` also
//! `twincell-sim mutants [--seeds N] [--null-seeds N] [--only NAME] [--state FILE] [--scripts PROGRAM]...`.

mod batch;
#[cfg(feature = "mutants")]
mod mutants;
mod search;
mod state;

use std::cell::Cell;
use std::ops::Range;
use std::process::ExitCode;

thread_local! {
    static SEED: Cell<u64> = const { Cell::new(0) };
}

const USAGE: &str = "\
usage: twincell-sim run --seeds N [--start S [--state FILE]] | digests --seeds N --start S | repro SEED | shrink SEED
 | enumerate [--only NAME] [--pairs [--stride N] [--minutes N] [--state FILE]] | enumerate --show NAME EVENT:FAULT...
 | mutants [OPTION]... (built with --features mutants)";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    if words.iter().any(|word| matches!(*word, "--help" | "-h")) {
        println!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    #[cfg(feature = "mutants")]
    if let Some(name) = std::env::var_os("TWINCELL_MUTANT")
        && !twincell_core::mutant::activate(&name.to_string_lossy())
    {
        return refused(&format!("TWINCELL_MUTANT: there is no mutant {}", name.display()));
    }
    name_the_seed_of_a_panic();
    match words.as_slice() {
        ["run", "--seeds", seeds] => batch::run_many(range(seeds, "0"), None),
        ["run", "--seeds", seeds, "--start", start] => batch::run_many(range(seeds, start), None),
        ["run", "--seeds", seeds, "--start", start, "--state", file] => {
            batch::run_many(range(seeds, start), Some(file))
        }
        ["digests", "--seeds", seeds, "--start", start] => batch::digests(range(seeds, start)),
        ["shrink", seed] => batch::shrunk(number(seed)),
        #[cfg(feature = "mutants")]
        ["mutants", options @ ..] => measure(options),
        #[cfg(feature = "mutants")]
        ["hunt", name, start, seeds] => mutants::hunt(name, number(start), number(seeds)),
        ["enumerate", "--show", name, moments @ ..] => search::show(name, moments),
        ["enumerate", options @ ..] => enumerate(options),
        ["repro", seed] => batch::repro(number(seed)),
        _ => {
            eprintln!("{USAGE}");
            ExitCode::from(2)
        }
    }
}

fn name_the_seed_of_a_panic() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        eprintln!(
            "seed {}: the core panicked; see it with: cargo xtask repro {}",
            SEED.get(),
            SEED.get()
        );
        before(info);
    }));
}

/// Nothing was done, for this reason.
fn refused(why: &str) -> ExitCode {
    eprintln!("twincell-sim: {why}");
    ExitCode::from(2)
}

fn enumerate(mut options: &[&str]) -> ExitCode {
    let mut asked = search::Pairs {
        stride: 1,
        minutes: u64::MAX,
        ..search::Pairs::default()
    };
    let (mut in_pairs, mut of_pairs) = (false, None);
    while let [option, rest @ ..] = options {
        options = match (*option, rest) {
            ("--pairs", rest) => {
                in_pairs = true;
                rest
            }
            ("--only", [name, rest @ ..]) => {
                asked.only = name;
                rest
            }
            ("--stride" | "--minutes" | "--state", [value, rest @ ..]) => {
                of_pairs = Some(*option);
                match *option {
                    "--stride" => asked.stride = number(value).max(1),
                    "--minutes" => asked.minutes = number(value),
                    _ => asked.state = Some(value),
                }
                rest
            }
            _ => return refused(&format!("enumerate: what is meant by {option}?")),
        };
    }
    match of_pairs {
        _ if in_pairs => search::every_pair(&asked),
        Some(option) => refused(&format!(
            "enumerate: {option} is for pairs of faults; --pairs is missing"
        )),
        None => search::every_single(asked.only),
    }
}

#[cfg(feature = "mutants")]
fn measure(mut options: &[&str]) -> ExitCode {
    let mut settings = mutants::Settings {
        seeds: 5_000,
        null_seeds: 20_000,
        only: None,
        scripts: Vec::new(),
        state: None,
    };
    while let [option, value, rest @ ..] = options {
        match *option {
            "--seeds" => settings.seeds = number(value),
            "--null-seeds" => settings.null_seeds = number(value),
            "--only" => settings.only = Some((*value).to_owned()),
            "--scripts" => settings.scripts.push(value.into()),
            "--state" => settings.state = Some(value.into()),
            _ => break,
        }
        options = rest;
    }
    if let Some(option) = options.first() {
        return refused(&format!("mutants: what is meant by {option}?"));
    }
    mutants::measure(&settings)
}

/// So many seeds, and from which on.
fn range(seeds: &str, start: &str) -> Range<u64> {
    let (seeds, start) = (number(seeds), number(start));
    match start.checked_add(seeds) {
        Some(end) if end > start => start..end,
        _ => {
            eprintln!("there are no {seeds} seeds from {start} on");
            std::process::exit(2)
        }
    }
}

fn number(text: &str) -> u64 {
    text.parse().unwrap_or_else(|_| {
        eprintln!("not a number: {text}");
        std::process::exit(2)
    })
}
