//! `twincell-sim run --seeds N [--start S]`, `twincell-sim repro SEED`; with the feature `mutants` also
//! `twincell-sim mutants [--seeds N] [--null-seeds N] [--only NAME] [--state FILE] [--scripts PROGRAM]...`.

#[cfg(feature = "mutants")]
mod mutants;
mod search;

use std::cell::Cell;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;
use twincell_sim::{Report, run};

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
        ["run", "--seeds", seeds] => run_many(number(seeds), 0),
        ["run", "--seeds", seeds, "--start", start] => run_many(number(seeds), number(start)),
        #[cfg(feature = "mutants")]
        ["mutants", options @ ..] => measure(options),
        #[cfg(feature = "mutants")]
        ["hunt", name, start, seeds] => mutants::hunt(name, number(start), number(seeds)),
        ["enumerate"] => search::every_single(""),
        ["enumerate", "--show", name, moments @ ..] => search::show(name, moments),
        ["enumerate", "--only", name] => search::every_single(name),
        ["repro", seed] => repro(number(seed)),
        _ => {
            eprintln!(
                "usage: twincell-sim run --seeds N [--start S] | repro SEED | mutants [OPTION]... (built with --features mutants)"
            );
            ExitCode::from(2)
        }
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

fn repro(seed: u64) -> ExitCode {
    SEED.set(seed);
    match run(seed, true) {
        Ok(report) => {
            println!("seed {seed}: {report:?}");
            ExitCode::SUCCESS
        }
        Err(what) => {
            println!("seed {seed} FAILED: {what}");
            ExitCode::FAILURE
        }
    }
}

/// One seed in a hundred is run twice: the same seed must give the same run.
fn run_one(seed: u64) -> Result<Report, String> {
    SEED.set(seed);
    let report = caught(seed)?;
    if seed.is_multiple_of(100) && caught(seed)?.digest != report.digest {
        return Err("two runs of the same seed differ".into());
    }
    Ok(report)
}

/// A broken invariant of the core is a failure of its seed.
fn caught(seed: u64) -> Result<Report, String> {
    std::panic::catch_unwind(|| run(seed, false)).unwrap_or_else(|_| Err("the core panicked".into()))
}

fn run_many(seeds: u64, start: u64) -> ExitCode {
    let begun = Instant::now();
    let next = Arc::new(AtomicU64::new(start));
    let total = Arc::new(Mutex::new((Report::default(), Vec::new())));
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    let workers: Vec<_> = (0..threads)
        .map(|_| {
            let (next, total) = (next.clone(), total.clone());
            std::thread::spawn(move || {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= start + seeds {
                        return;
                    }
                    let result = run_one(seed);
                    let mut total = total.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                    match result {
                        Ok(report) => {
                            total.0.happenings += report.happenings;
                            total.0.writes += report.writes;
                            total.0.reads += report.reads;
                            total.0.takeovers += report.takeovers;
                        }
                        Err(what) => total.1.push((seed, what)),
                    }
                    if total.1.len() >= 10 {
                        next.store(u64::MAX / 2, Ordering::Relaxed);
                    }
                }
            })
        })
        .collect();
    for worker in workers {
        if worker.join().is_err() {
            return ExitCode::FAILURE;
        }
    }
    let total = total.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let (sum, failures) = &*total;
    for (seed, what) in failures {
        println!("seed {seed} FAILED: {what}");
    }
    println!(
        "{seeds} seeds in {:.1} s: {} failed; {} happenings, {} writes acknowledged, {} reads checked, {} takeovers",
        begun.elapsed().as_secs_f64(),
        failures.len(),
        sum.happenings,
        sum.writes,
        sum.reads,
        sum.takeovers
    );
    if failures.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
