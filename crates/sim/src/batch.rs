//! `twincell-sim run`, `repro` and `shrink`: many seeds, or one.

use crate::search::workers;
use crate::state::State;
use crate::{SEED, refused};
use std::collections::BTreeMap;
use std::ops::Range;
use std::panic::catch_unwind;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;
use twincell_sim::marks::Marks;
use twincell_sim::plan::Plan;
use twincell_sim::shrink::shrink;
use twincell_sim::{Report, run, run_told};

/// A batch of so many seeds hits every mark, or something is not looked at any more.
const ALL_MARKS_AFTER: u64 = 10_000;
/// Seeds after which the state is kept.
const STEP: u64 = 2_000;
/// Failures after which a batch ends.
const ENOUGH: usize = 10;
/// One seed in so many is run twice. What kind a seed is follows from what is left after divisions by small numbers, such as
/// 8 and 16: with a prime that is none of them, seeds of every kind are met.
pub const TWICE: u64 = 97;
/// Runs that shrinking may take.
const SHRINKING: u32 = 3_000;

/// What a batch came to.
#[derive(Default)]
struct Batch {
    sum: Report,
    failures: usize,
}

/// Runs a range of seeds; with a state, those of them that were not run before with the same sources.
pub fn run_many(seeds: Range<u64>, state: Option<&str>) -> ExitCode {
    let begun = Instant::now();
    let mut state = match State::load(state, &format!("seeds from {}", seeds.start), seeds.start) {
        Ok(state) => state,
        Err(why) => return refused(&why),
    };
    let first = state.next;
    let mut batch = Batch::default();
    while state.next < seeds.end && batch.failures < ENOUGH {
        let to = (state.next + STEP).min(seeds.end);
        let failed = batch.failures;
        let next = run_some(state.next..to, &mut batch);
        state.runs += next - state.next;
        state.failed += (batch.failures - failed) as u64;
        state.marks.add(&batch.sum.marks);
        #[cfg(feature = "marks")]
        state.marks.add_those_of_the_core();
        state.next = next;
        state.save();
    }
    let sum = &batch.sum;
    println!(
        "{} seeds in {:.1} s: {} failed; {} happenings, {} writes acknowledged, {} reads checked, {} takeovers",
        state.next - first,
        begun.elapsed().as_secs_f64(),
        batch.failures,
        sum.happenings,
        sum.writes,
        sum.reads,
        sum.takeovers
    );
    if state.next < seeds.end {
        println!("so many failures are enough: no seed from {} on was run", state.next);
    }
    println!("{state}");
    let flaw = flaw(&state.marks);
    match &flaw {
        None => println!("every mark was hit: the batch counts"),
        Some(flaw) => println!("the batch does not count: {flaw}"),
    }
    let does_not_count = state.runs >= ALL_MARKS_AFTER && flaw.is_some();
    ExitCode::from(u8::from(state.failed > 0 || does_not_count))
}

/// Why a batch that has hit these marks does not count.
fn flaw(marks: &Marks) -> Option<String> {
    let missing = marks.missing();
    let in_words = || format!("marks not hit: {}", missing.join(", "));
    let own = (!missing.is_empty()).then(in_words);
    let cores = (!cfg!(feature = "marks")).then(|| "the core's marks are not in this build".to_owned());
    let all: Vec<String> = cores.into_iter().chain(own).collect();
    (!all.is_empty()).then(|| all.join("; "))
}

/// Runs seeds until there were enough failures; returns the first that was not run.
fn run_some(seeds: Range<u64>, batch: &mut Batch) -> u64 {
    let next = AtomicU64::new(seeds.start);
    let enough = AtomicBool::new(false);
    let shared = Mutex::new(batch);
    let locked = || shared.lock().unwrap_or_else(PoisonError::into_inner);
    std::thread::scope(|scope| {
        for _ in 0..workers() {
            scope.spawn(|| {
                let mut own = Report::default();
                // Whoever has taken a seed runs it: all before `next` are run in the end.
                while !enough.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        break;
                    }
                    match run_one(seed) {
                        Ok(report) => add(&mut own, &report),
                        Err(what) => {
                            println!("seed {seed} FAILED: {what}");
                            let mut batch = locked();
                            batch.failures += 1;
                            enough.store(batch.failures >= ENOUGH, Ordering::Relaxed);
                        }
                    }
                }
                add(&mut locked().sum, &own);
            });
        }
    });
    next.into_inner().min(seeds.end)
}

fn add(sum: &mut Report, report: &Report) {
    sum.happenings += report.happenings;
    sum.writes += report.writes;
    sum.reads += report.reads;
    sum.takeovers += report.takeovers;
    sum.marks.add(&report.marks);
}

/// One seed in `TWICE` is run twice: the same seed must give the same run.
fn run_one(seed: u64) -> Result<Report, String> {
    let report = caught(seed)?;
    if seed.is_multiple_of(TWICE) && caught(seed)?.digest != report.digest {
        return Err("two runs of the same seed differ".into());
    }
    Ok(report)
}

/// A broken invariant of the core is a failure of its seed.
fn caught(seed: u64) -> Result<Report, String> {
    SEED.set(seed);
    catch_unwind(|| run(seed, false)).unwrap_or_else(|_| Err("the core panicked".into()))
}

/// The digest of one seed in `TWICE`: another build must print the same.
pub fn digests(seeds: Range<u64>) -> ExitCode {
    let chosen: Vec<u64> = seeds.clone().filter(|s| s.is_multiple_of(TWICE)).collect();
    if chosen.is_empty() {
        eprintln!("too few seeds to compare: none of {seeds:?} is a multiple of {TWICE}");
    }
    for seed in chosen {
        match caught(seed) {
            Ok(report) => println!("{seed} {:016x}", report.digest),
            Err(what) => println!("{seed} FAILED: {}", what.lines().next().unwrap_or_default()),
        }
    }
    ExitCode::SUCCESS
}

/// One seed with its whole story, and what is in it that is not in the same run without faults.
pub fn repro(seed: u64) -> ExitCode {
    SEED.set(seed);
    let plan = Plan::of_seed(seed);
    println!("{plan:#?}");
    let (story, result) = run_told(plan.clone(), true);
    let (clean, _) = run_told(plan.without_faults(), false);
    println!("--- what a run without faults has not, or has less often (times, times there, line)");
    for (line, (times, there)) in differences(&story, &clean) {
        println!("{times:>6} {there:>6}  {line}");
    }
    match result {
        Ok(()) => {
            println!("seed {seed}: good");
            ExitCode::SUCCESS
        }
        Err(what) => {
            println!("seed {seed} FAILED: {what}");
            ExitCode::FAILURE
        }
    }
}

/// Lines without their numbers that are more than twice as frequent as in the clean run, by how often each comes.
fn differences(story: &[String], clean: &[String]) -> Vec<(String, (u32, u32))> {
    let mut lines: BTreeMap<String, (u32, u32)> = BTreeMap::new();
    for line in story {
        lines.entry(shape(line)).or_default().0 += 1;
    }
    for line in clean {
        lines.entry(shape(line)).or_default().1 += 1;
    }
    let mut all: Vec<_> = lines
        .into_iter()
        .filter(|(_, (times, there))| *times > there * 2)
        .collect();
    all.sort_by_key(|(_, (times, there))| (*there, *times));
    all
}

fn shape(line: &str) -> String {
    let mut shape = String::with_capacity(line.len());
    for c in line.chars() {
        let c = if c.is_ascii_digit() { '#' } else { c };
        if c != '#' || !shape.ends_with('#') {
            shape.push(c);
        }
    }
    shape
}

/// The smallest plan that still fails as the seed does, and its story.
pub fn shrunk(seed: u64) -> ExitCode {
    SEED.set(seed);
    let tell = |p: &Plan| eprintln!("still fails: {} faults, {} commands", p.faults.len(), p.commands);
    match shrink(&Plan::of_seed(seed), SHRINKING, tell) {
        Some((plan, what)) => {
            let (story, _) = run_told(plan.clone(), false);
            for line in story {
                println!("{line}");
            }
            println!("{plan:#?}\nseed {seed}, shrunk, FAILED: {what}");
            ExitCode::FAILURE
        }
        None => {
            println!("seed {seed}: good; there is nothing to shrink");
            ExitCode::SUCCESS
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_of_every_kind_are_run_twice() {
        let twice = (0..TWICE * 256).step_by(TWICE as usize);
        let kinds: std::collections::BTreeSet<u64> = twice.map(|seed| seed % 256).collect();
        assert_eq!(kinds.len(), 256);
    }

    #[test]
    fn numbers_do_not_make_a_difference() {
        let lines = |l: &[&str]| l.iter().map(|l| (*l).to_owned()).collect::<Vec<_>>();
        let clean = lines(&["A -> disk 0: write 12+8", "A serves"]);
        let story = lines(&["A -> disk 3: write 400+16", "A serves", "B notes: ballot won"]);
        let found = differences(&story, &clean);
        assert_eq!(found, vec![("B notes: ballot won".to_owned(), (1, 0))]);
    }
}
