//! `twincell-sim run`, `repro`, `shrink`, `enumerate` and `digests`: the usage says more. With the feature `mutants` also
//! `twincell-sim mutants [--seeds N] [--null-seeds N] [--only NAME] [--state FILE] [--scripts PROGRAM]...`.

mod batch;
#[cfg(feature = "mutants")]
mod mutants;
mod search;
mod state;

use std::cell::Cell;
use std::process::ExitCode;

thread_local! {
    static SEED: Cell<u64> = const { Cell::new(0) };
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        eprintln!(
            "seed {}: the core panicked; see it with: cargo xtask repro {}",
            SEED.get(),
            SEED.get()
        );
        before(info);
    }));
    #[cfg(feature = "mutants")]
    if let Ok(name) = std::env::var("TWINCELL_MUTANT") {
        assert!(twincell_core::mutant::activate(&name), "no such mutant");
    }
    match words.as_slice() {
        ["run", "--seeds", seeds] => batch::run_many(number(seeds), 0, None),
        ["run", "--seeds", seeds, "--start", start] => batch::run_many(number(seeds), number(start), None),
        ["run", "--seeds", seeds, "--start", start, "--state", file] => {
            batch::run_many(number(seeds), number(start), Some(file))
        }
        ["digests", "--seeds", seeds, "--start", start] => batch::digests(number(seeds), number(start)),
        ["shrink", seed] => batch::shrunk(number(seed)),
        #[cfg(feature = "mutants")]
        ["mutants", options @ ..] => measure(options),
        #[cfg(feature = "mutants")]
        ["hunt", name, start, seeds] => mutants::hunt(name, number(start), number(seeds)),
        ["enumerate", "--show", name, moments @ ..] => search::show(name, moments),
        ["enumerate", options @ ..] => enumerate(options),
        ["repro", seed] => batch::repro(number(seed)),
        _ => {
            eprintln!(
                "usage: twincell-sim run --seeds N [--start S [--state FILE]] | digests --seeds N --start S | repro SEED | shrink SEED\n\
                 | enumerate [--only NAME] [--pairs [--stride N] [--minutes N] [--state FILE]] | enumerate --show NAME EVENT:FAULT...\n\
                 | mutants [OPTION]... (built with --features mutants)"
            );
            ExitCode::from(2)
        }
    }
}

fn enumerate(mut options: &[&str]) -> ExitCode {
    let mut asked = search::Pairs {
        stride: 1,
        minutes: u64::MAX / 60,
        ..search::Pairs::default()
    };
    let mut in_pairs = false;
    loop {
        options = match options {
            [] if in_pairs => return search::every_pair(&asked),
            [] => return search::every_single(asked.only),
            ["--pairs", rest @ ..] => {
                in_pairs = true;
                rest
            }
            ["--only", name, rest @ ..] => {
                asked.only = name;
                rest
            }
            ["--stride", n, rest @ ..] => {
                asked.stride = number(n).max(1);
                rest
            }
            ["--minutes", n, rest @ ..] => {
                asked.minutes = number(n);
                rest
            }
            ["--state", file, rest @ ..] => {
                asked.state = Some(file);
                rest
            }
            [option, ..] => {
                eprintln!("enumerate: what is meant by {option}?");
                return ExitCode::from(2);
            }
        };
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
        eprintln!("mutants: what is meant by {option}?");
        return ExitCode::from(2);
    }
    mutants::measure(&settings)
}

fn number(text: &str) -> u64 {
    text.parse().unwrap_or_else(|_| {
        eprintln!("not a number: {text}");
        std::process::exit(2)
    })
}
