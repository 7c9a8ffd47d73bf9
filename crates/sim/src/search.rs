//! `twincell-sim enumerate`: all workers, and what they found.

use crate::refused;
use crate::state::State;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use twincell_sim::enumerate::{Done, Moment, Share, first_faults, pairs, singles};
use twincell_sim::play::{Script, scripts};

/// How many workers.
pub fn workers() -> u64 {
    std::thread::available_parallelism().map_or(2, |n| n.get() as u64)
}

/// The scenarios whose name has `only`.
fn scripts_with(only: &str) -> Result<Vec<Script>, String> {
    let found: Vec<Script> = scripts().into_iter().filter(|s| s.name.contains(only)).collect();
    if found.is_empty() {
        return Err(format!("no scenario has {only:?} in its name"));
    }
    Ok(found)
}

/// Every single fault in the scenarios whose name has `only`.
pub fn every_single(only: &str) -> ExitCode {
    let begun = Instant::now();
    let scripts = match scripts_with(only) {
        Ok(scripts) => scripts,
        Err(why) => return refused(&why),
    };
    let (mut runs, mut events, mut found) = (0, 0, 0);
    for script in &scripts {
        let began = Instant::now();
        match single_faults(script) {
            Ok(done) => {
                for f in &done.found {
                    println!("FAILED {f}");
                }
                println!(
                    "{}: {} events, {} runs, {} failed, {:.1} s",
                    script.name,
                    done.events,
                    done.runs,
                    done.found.len(),
                    began.elapsed().as_secs_f64()
                );
                runs += done.runs;
                events += done.events;
                found += done.found.len();
            }
            Err(what) => {
                println!("FAILED {} without any fault: {what}", script.name);
                found += 1;
            }
        }
    }
    println!(
        "{} scenarios, {events} events, {runs} runs with a single fault in {:.1} s: {found} failed",
        scripts.len(),
        begun.elapsed().as_secs_f64()
    );
    ExitCode::from(u8::from(found > 0))
}

fn single_faults(script: &Script) -> Result<Done, String> {
    let all = Mutex::new(Ok(Done::default()));
    let next = AtomicU64::new(0);
    let of = workers();
    std::thread::scope(|scope| {
        for _ in 0..of {
            scope.spawn(|| {
                let worker = next.fetch_add(1, Ordering::Relaxed);
                let done = singles(script, Share { worker, of });
                let mut all = all.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                match (done, &mut *all) {
                    (Ok(done), Ok(all)) => {
                        all.events = done.events;
                        all.runs += done.runs;
                        all.found.extend(done.found);
                    }
                    (Err(what), all) => *all = Err(what),
                    (Ok(_), Err(_)) => {}
                }
            });
        }
    });
    all.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// One run of a scenario with faults, as `every_single` prints them, and its story.
pub fn show(name: &str, moments: &[&str]) -> ExitCode {
    let parsed: Option<Vec<Moment>> = moments.iter().map(|m| Moment::parse(m)).collect();
    let Some(parsed) = parsed else {
        eprintln!("a fault is written as in 12:f7, 12:A3 or 12:A3+, not as in {moments:?}");
        return ExitCode::from(2);
    };
    match twincell_sim::enumerate::show(name, &parsed) {
        Ok((story, result)) => {
            println!("{story}{result:?}");
            ExitCode::from(u8::from(result.is_err()))
        }
        Err(what) => {
            eprintln!("{what}");
            ExitCode::from(2)
        }
    }
}

/// What is asked of a search for pairs.
#[derive(Default)]
pub struct Pairs<'a> {
    /// Only scenarios whose name has this.
    pub only: &'a str,
    /// Second faults come at every so many-th event.
    pub stride: u64,
    /// It ends after so many minutes.
    pub minutes: u64,
    /// Where it is kept how far it has come.
    pub state: Option<&'a str>,
}

/// Pairs of faults: a first one at every event, and second ones at every `stride`-th event after it.
pub fn every_pair(asked: &Pairs) -> ExitCode {
    let begun = Instant::now();
    let scripts = match scripts_with(asked.only) {
        Ok(scripts) => scripts,
        Err(why) => return refused(&why),
    };
    let what = format!("pairs in scenarios with {:?}, stride {}", asked.only, asked.stride);
    let mut state = match State::load(asked.state, &what, 0) {
        Ok(state) => state,
        Err(why) => return refused(&why),
    };
    let mut units = Vec::new();
    for script in scripts {
        match first_faults(&script) {
            Ok(count) => units.extend((0..count).map(|n| (script.clone(), n))),
            Err(what) => {
                println!("FAILED {} without any fault: {what}", script.name);
                return ExitCode::FAILURE;
            }
        }
    }
    let limit = Duration::from_secs(asked.minutes.saturating_mul(60));
    while state.next < units.len() as u64 && begun.elapsed() < limit {
        let to = (state.next + 4 * workers()).min(units.len() as u64);
        let done = some_pairs(&units[state.next as usize..to as usize], asked.stride);
        for f in &done.found {
            println!("FAILED {f}");
        }
        state.runs += done.runs;
        state.failed += done.found.len() as u64;
        state.next = to;
        state.save();
    }
    println!(
        "{state}, of {} first faults; {:.1} s",
        units.len(),
        begun.elapsed().as_secs_f64()
    );
    ExitCode::from(u8::from(state.failed > 0))
}

fn some_pairs(units: &[(Script, u64)], stride: u64) -> Done {
    let all = Mutex::new(Done::default());
    let next = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..workers() {
            scope.spawn(|| {
                while let Some((script, n)) = units.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
                    // The clean run was good when the first faults were counted.
                    let done = pairs(script, *n, stride).unwrap_or_default();
                    let mut all = all.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                    all.runs += done.runs;
                    all.found.extend(done.found);
                }
            });
        }
    });
    all.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner)
}
