//! `twincell-sim enumerate`: all workers, and what they found.

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;
use twincell_sim::enumerate::{Done, Moment, Share, singles};
use twincell_sim::play::{Script, scripts};

/// How many workers.
pub fn workers() -> u64 {
    std::thread::available_parallelism().map_or(2, |n| n.get() as u64)
}

/// Every single fault in the scenarios whose name has `only`.
pub fn every_single(only: &str) -> ExitCode {
    let begun = Instant::now();
    let scripts: Vec<Script> = scripts().into_iter().filter(|s| s.name.contains(only)).collect();
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
    if found == 0 && !scripts.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
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
