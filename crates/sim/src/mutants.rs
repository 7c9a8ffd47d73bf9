//! How strong the simulator is: each mutant runs in processes of its own, first in every script, then seed after seed,
//! until an oracle catches it.
//!
//! What was found is kept in a file, so that a run that was interrupted goes on where it stopped. The file counts only for
//! the program that wrote it, with the same scripts.

use crate::state::{foreign, is_digest, text_of};
use crate::{SEED, refused};
use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use twincell_core::mutant::{CANARY, MUTANTS, Mutant, NULL, activate};
use twincell_sim::run;

/// Seeds within which the canary must be caught.
const CANARY_SEEDS: u64 = 5;
/// Seeds of the null mutant that one process runs.
const NULL_CHUNK: u64 = 500;
/// A mutant that a script has caught gets this part of the seeds of the others.
const AFTER_A_SCRIPT: u64 = 5;
/// A seed that has kept the processor busy for longer than this does not end.
const SEED_LIMIT: Duration = Duration::from_secs(60);
/// A set of scripts that takes longer than this does not end, even on a busy machine.
const SCRIPTS_LIMIT: Duration = Duration::from_secs(600);
/// How often it is looked whether a process has ended.
const POLL: Duration = Duration::from_millis(20);

/// What is asked for.
pub struct Settings {
    /// Seeds that each mutant gets at most.
    pub seeds: u64,
    /// Seeds that the null mutant gets.
    pub null_seeds: u64,
    /// Only this mutant.
    pub only: Option<String>,
    /// Programs with scripts: tests that were built with the feature `mutants`.
    pub scripts: Vec<PathBuf>,
    /// Where what was found is kept.
    pub state: Option<PathBuf>,
}

/// What became of a mutant.
#[derive(Clone, Debug, Default)]
struct Found {
    /// The scripts that caught it.
    scripts: Vec<String>,
    /// How many seeds ran, the one that caught it included.
    seeds: u64,
    /// What caught it in the last of them, if anything did.
    oracle: Option<String>,
}

impl Found {
    fn is_caught(&self) -> bool {
        self.oracle.is_some() || !self.scripts.is_empty()
    }

    /// As one line of the state file.
    fn line(&self, name: &str) -> String {
        let oracle = self.oracle.as_deref().unwrap_or_default();
        format!("{name}\t{}\t{}\t{oracle}\n", self.seeds, self.scripts.join(","))
    }

    fn from_line(line: &str) -> Option<(String, Found)> {
        let mut fields = line.splitn(4, '\t');
        let (name, seeds, scripts, oracle) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
        let found = Found {
            scripts: scripts
                .split(',')
                .filter(|s| !s.is_empty())
                .map(str::to_owned)
                .collect(),
            seeds: seeds.parse().ok()?,
            oracle: Some(oracle.to_owned()).filter(|o| !o.is_empty()),
        };
        Some((name.to_owned(), found))
    }
}

/// One mutant over `seeds` seeds from `start` on, in this process, until one catches it. For `measure`.
pub fn hunt(name: &str, start: u64, seeds: u64) -> ExitCode {
    if !activate(name) {
        return refused(&format!("there is no mutant {name}"));
    }
    static PROGRESS: AtomicU64 = AtomicU64::new(0);
    std::thread::spawn(|| {
        let mut last = (0, processor_time());
        loop {
            std::thread::sleep(POLL);
            let now = PROGRESS.load(Ordering::Relaxed);
            if now != last.0 {
                last = (now, processor_time());
            } else if processor_time() - last.1 > SEED_LIMIT {
                println!("seed {now}: FAILED: it does not end");
                std::process::exit(1);
            }
        }
    });
    for seed in start..start + seeds {
        SEED.set(seed);
        PROGRESS.store(seed, Ordering::Relaxed);
        if let Err(what) = run(seed, false) {
            println!("seed {seed}: FAILED: {what}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

/// How long the main thread, which runs the seeds, has had a processor; zero where the kernel does not say.
fn processor_time() -> Duration {
    let text = std::fs::read_to_string("/proc/self/schedstat").unwrap_or_default();
    let nanoseconds = text.split(' ').next().and_then(|n| n.parse().ok());
    Duration::from_nanos(nanoseconds.unwrap_or(0))
}

/// Measures every mutant. All but the null mutant must be caught, and that one never.
pub fn measure(settings: &Settings) -> ExitCode {
    let wanted = |m: &&Mutant| settings.only.as_ref().is_none_or(|only| only == m.name);
    let mutants: Vec<&Mutant> = MUTANTS.iter().filter(wanted).collect();
    if mutants.is_empty() {
        return refused("there is no such mutant");
    }
    match Measurement::new(settings, &mutants) {
        Ok(measurement) => measurement.run(&mutants),
        Err(why) => refused(&why),
    }
}

/// Runs one program with scripts, with a mutant.
fn run_script(program: &Path, mutant: &str) -> Ended {
    let mut command = Command::new(program);
    command.args(["--test-threads=1"]).env("TWINCELL_MUTANT", mutant);
    finish(command.spawn_quietly(), SCRIPTS_LIMIT)
}

/// The scripts of a program that failed; if none says so, the last that began, in which the whole program ended, or was
/// ended.
fn tests_that_failed(ended: &Ended) -> Vec<String> {
    let tests = |text| str::lines(text).filter_map(|l| l.strip_prefix("test ")?.split_once(" ... "));
    let failed = tests(&ended.text).filter(|(_, how)| *how == "FAILED");
    let mut names: Vec<String> = failed.map(|(name, _)| name.to_owned()).collect();
    if !ended.success && (names.is_empty() || !ended.in_time) {
        let last = tests(&ended.text).next_back();
        names.push(last.map_or("?", |(name, _)| name).to_owned());
    }
    names
}

/// A piece of work for one process.
enum Job {
    Mutant(&'static Mutant),
    Null { start: u64, seeds: u64 },
}

struct Measurement<'a> {
    settings: &'a Settings,
    program: PathBuf,
    begun: Instant,
    /// What the state file begins with, if it counts for nothing so far.
    begins_anew: Option<String>,
    jobs: Mutex<VecDeque<Job>>,
    found: Mutex<BTreeMap<String, Found>>,
}

impl<'a> Measurement<'a> {
    fn new(settings: &'a Settings, mutants: &[&'static Mutant]) -> Result<Measurement<'a>, String> {
        let program = std::env::current_exe().expect("this program has a path");
        let digest = digest(&program, &settings.scripts)?;
        let known = settings
            .state
            .as_deref()
            .map(|s| known(s, &digest))
            .transpose()?
            .flatten();
        let begins_anew = known.is_none().then_some(digest);
        let found = known.unwrap_or_default();
        let broken = mutants.iter().filter(|m| m.name != NULL);
        let mut jobs: VecDeque<Job> = broken.map(|m| Job::Mutant(m)).collect();
        if mutants.iter().any(|m| m.name == NULL) {
            let starts = (0..settings.null_seeds).step_by(NULL_CHUNK as usize);
            jobs.extend(starts.map(|start| Job::Null {
                start,
                seeds: NULL_CHUNK.min(settings.null_seeds - start),
            }));
        }
        let is_open = |job: &Job| match job {
            Job::Mutant(m) => found.get(m.name).is_none_or(|f: &Found| !f.is_caught()),
            Job::Null { start, seeds } => !found.contains_key(&null_key(*start, *seeds)),
        };
        jobs.retain(is_open);
        Ok(Measurement {
            settings,
            program,
            begun: Instant::now(),
            begins_anew,
            jobs: Mutex::new(jobs),
            found: Mutex::new(found),
        })
    }

    fn run(&self, mutants: &[&Mutant]) -> ExitCode {
        if let Err(why) = self.can_be_trusted(mutants) {
            println!("{why}: nothing here can be trusted.");
            return ExitCode::FAILURE;
        }
        self.begin_file();
        self.tell_what_is_kept(mutants);
        let threads = std::thread::available_parallelism().map_or(2, usize::from);
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| while self.one() {});
            }
        });
        self.summary(mutants)
    }

    /// Before anything is measured: what breaks nothing passes, and what breaks everything is caught.
    fn can_be_trusted(&self, mutants: &[&Mutant]) -> Result<(), String> {
        self.control()?;
        match mutants.iter().any(|m| m.name == CANARY) {
            true => self.canary_sings(),
            false => Ok(()),
        }
    }

    /// Every script must pass with the mutant that breaks nothing. Else what it says of the others means nothing.
    fn control(&self) -> Result<(), String> {
        for program in &self.settings.scripts {
            let ended = run_script(program, NULL);
            if !ended.success {
                let name = program.file_name().unwrap_or_default().display();
                let tests = tests_that_failed(&ended).join(", ");
                return Err(format!(
                    "With the mutant that breaks nothing, {name} fails or does not end ({tests})"
                ));
            }
        }
        Ok(())
    }

    fn canary_sings(&self) -> Result<(), String> {
        match self.hunt(CANARY, 0, CANARY_SEEDS) {
            Ok(()) => Err(format!("The canary was not caught within {CANARY_SEEDS} seeds")),
            Err(_) => Ok(()),
        }
    }

    /// The file of others is written over only now that this run can be trusted.
    fn begin_file(&self) {
        let (Some(state), Some(digest)) = (&self.settings.state, &self.begins_anew) else {
            return;
        };
        if let Err(e) = std::fs::write(state, format!("{digest}\n")) {
            eprintln!("{}: {e}", state.display());
        }
    }

    /// What an earlier run has found, and is not measured again.
    fn tell_what_is_kept(&self, mutants: &[&Mutant]) {
        let found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        for mutant in mutants.iter().filter(|m| m.name != NULL) {
            if let Some(found) = found.get(mutant.name).filter(|f| f.is_caught()) {
                println!("{}", in_words(mutant, found));
            }
        }
    }

    /// Does one job. `false` when none is left.
    fn one(&self) -> bool {
        let job = self.jobs.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        match job {
            None => return false,
            Some(Job::Mutant(mutant)) => self.mutant(mutant),
            Some(Job::Null { start, seeds }) => {
                let found = match self.hunt(NULL, start, seeds) {
                    Ok(()) => Found {
                        seeds,
                        ..Found::default()
                    },
                    Err((seed, oracle)) => Found {
                        seeds: seed - start + 1,
                        oracle: Some(format!("seed {seed}: {oracle}")),
                        ..Found::default()
                    },
                };
                self.keep(null_key(start, seeds), found);
            }
        }
        true
    }

    fn mutant(&self, mutant: &Mutant) {
        let scripts = self.scripts_that_catch(mutant.name);
        let seeds = if scripts.is_empty() {
            self.settings.seeds
        } else {
            self.settings.seeds / AFTER_A_SCRIPT
        };
        let (seeds, oracle) = match self.hunt(mutant.name, 0, seeds) {
            Ok(()) => (seeds, None),
            Err((seed, oracle)) => (seed + 1, Some(oracle)),
        };
        let found = Found { scripts, seeds, oracle };
        println!("{}", in_words(mutant, &found));
        self.keep(mutant.name.to_owned(), found);
    }

    fn keep(&self, key: String, found: Found) {
        if let Some(state) = &self.settings.state {
            let line = found.line(&key);
            let file = std::fs::OpenOptions::new().append(true).open(state);
            if let Err(e) = file.and_then(|mut f| std::io::Write::write_all(&mut f, line.as_bytes())) {
                eprintln!("{}: {e}", state.display());
            }
        }
        self.found
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(key, found);
    }

    /// Runs seeds in a process of its own; an error is the first seed that failed, and what it said.
    fn hunt(&self, name: &str, start: u64, seeds: u64) -> Result<(), (u64, String)> {
        let mut command = Command::new(&self.program);
        command.args(["hunt", name, &start.to_string(), &seeds.to_string()]);
        let ended = finish(command.spawn_quietly(), Duration::MAX);
        if ended.success {
            return Ok(());
        }
        let seed = ended
            .text
            .lines()
            .find_map(|l| l.strip_prefix("seed ")?.split_once(':'));
        let seed = seed.and_then(|(seed, _)| seed.parse().ok()).unwrap_or(start);
        Err((seed, oracle(&ended.text)))
    }

    /// The scripts that end in another way with the mutant.
    fn scripts_that_catch(&self, name: &str) -> Vec<String> {
        let scripts = self.settings.scripts.iter();
        scripts
            .flat_map(|program| tests_that_failed(&run_script(program, name)))
            .collect()
    }

    fn summary(&self, mutants: &[&Mutant]) -> ExitCode {
        let found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        let of = |m: &&&Mutant| found.get(m.name).cloned().unwrap_or_default();
        let broken: Vec<&&Mutant> = mutants.iter().filter(|m| m.name != NULL).collect();
        let survivors: Vec<_> = broken.iter().filter(|m| !of(m).is_caught()).map(|m| m.name).collect();
        let mut by_seeds: Vec<u64> = broken
            .iter()
            .filter(|m| of(m).oracle.is_some())
            .map(|m| of(m).seeds)
            .collect();
        by_seeds.sort_unstable();
        let by_script = broken.iter().filter(|m| !of(m).scripts.is_empty()).count();
        let ruled = broken.iter().filter(|m| m.rule.is_some()).count();
        println!(
            "\n{} mutants, {ruled} of them from the description alone: {} caught by seeds (median {}, most {}), {by_script} by \
             scripts, {} by neither; {} s",
            broken.len(),
            by_seeds.len(),
            by_seeds.get(by_seeds.len() / 2).unwrap_or(&0),
            by_seeds.last().unwrap_or(&0),
            survivors.len(),
            self.begun.elapsed().as_secs()
        );
        if !survivors.is_empty() {
            println!("NOT CAUGHT: {}", survivors.join(", "));
        }
        let nulls: Vec<&Found> = found
            .iter()
            .filter(|(key, _)| is_null_key(key))
            .map(|(_, f)| f)
            .collect();
        let alarms: Vec<_> = nulls.iter().filter_map(|f| f.oracle.as_deref()).collect();
        println!(
            "the null mutant: {} seeds, {} alarms",
            nulls.iter().map(|f| f.seeds).sum::<u64>(),
            alarms.len()
        );
        for alarm in &alarms {
            println!("FALSE ALARM: {alarm}");
        }
        if survivors.is_empty() && alarms.is_empty() {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        }
    }
}

fn null_key(start: u64, seeds: u64) -> String {
    format!("{NULL}+{start}+{seeds}")
}

fn is_null_key(key: &str) -> bool {
    key.strip_prefix(NULL).is_some_and(|rest| rest.starts_with('+'))
}

fn in_words(mutant: &Mutant, found: &Found) -> String {
    let mut text = format!("{}: {}", mutant.name, mutant.breaks);
    if let Some(rule) = mutant.rule {
        let _ = write!(text, " [{rule}]");
    }
    let _ = match &found.oracle {
        Some(oracle) => write!(text, "\n    caught by seed {}: {oracle}", found.seeds),
        None => write!(text, "\n    not caught in {} seeds", found.seeds),
    };
    if !found.scripts.is_empty() {
        let _ = write!(text, "\n    caught by {}", found.scripts.join(", "));
    }
    text
}

/// A digest of the simulator and of all scripts, in their order.
fn digest(program: &Path, scripts: &[PathBuf]) -> Result<String, String> {
    let mut hasher = DefaultHasher::new();
    for path in std::iter::once(program).chain(scripts.iter().map(PathBuf::as_path)) {
        let bytes = std::fs::read(path).map_err(|e| format!("{}: {e}", path.display()))?;
        bytes.hash(&mut hasher);
    }
    Ok(format!("{:016x}", hasher.finish()))
}

/// What was found before by these very programs, if they have written the file.
fn known(state: &Path, digest: &str) -> Result<Option<BTreeMap<String, Found>>, String> {
    let failed = |why: String| format!("{}: {why}", state.display());
    let Some(text) = text_of(state).map_err(failed)? else {
        return Ok(None);
    };
    let (first, rest) = text.split_once('\n').unwrap_or((&text, ""));
    if first == digest {
        return Ok(Some(rest.lines().filter_map(Found::from_line).collect()));
    }
    if !is_digest(first) {
        return Err(failed(foreign()));
    }
    println!("{} is of other programs: all begins anew", state.display());
    Ok(None)
}

/// What a process said, and how it ended.
struct Ended {
    text: String,
    success: bool,
    in_time: bool,
}

trait SpawnQuietly {
    fn spawn_quietly(&mut self) -> Child;
}

impl SpawnQuietly for Command {
    fn spawn_quietly(&mut self) -> Child {
        let quiet = self.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        quiet.spawn().expect("this program, or a test beside it, can be run")
    }
}

/// Waits for a process, and ends it if it takes too long.
fn finish(mut child: Child, limit: Duration) -> Ended {
    let begun = Instant::now();
    let (mut out, mut err) = (child.stdout.take(), child.stderr.take());
    std::thread::scope(|scope| {
        let read = scope.spawn(move || {
            let mut text = Vec::new();
            let _ = out.as_mut().map(|o| o.read_to_end(&mut text));
            text
        });
        let errors = scope.spawn(move || {
            let mut text = Vec::new();
            let _ = err.as_mut().map(|e| e.read_to_end(&mut text));
            text
        });
        let mut in_time = true;
        let success = loop {
            match child.try_wait() {
                Ok(Some(status)) => break status.success(),
                Ok(None) if in_time && begun.elapsed() > limit => {
                    in_time = false;
                    let _ = child.kill();
                }
                Ok(None) => std::thread::sleep(POLL),
                Err(_) => break false,
            }
        };
        let mut text = read.join().unwrap_or_default();
        text.push(b'\n');
        text.extend(errors.join().unwrap_or_default());
        let text = String::from_utf8_lossy(&text).into_owned();
        Ended { text, success, in_time }
    })
}

/// The words of the oracle: the failure of a seed, or the panic of the core.
fn oracle(text: &str) -> String {
    let mut lines = text.lines();
    let failure = lines
        .clone()
        .find_map(|l| l.split_once("FAILED: ").map(|(_, what)| what.to_owned()));
    let panicked = lines.find(|l| l.contains("panicked at")).map(|l| {
        let place = l.split("panicked at ").nth(1).unwrap_or_default().trim_end_matches(':');
        let what = lines.next().unwrap_or_default();
        format!("{what} ({place})")
    });
    let words = failure.or(panicked).unwrap_or_else(|| "it ended".to_owned());
    words.chars().filter(|c| !c.is_control()).take(140).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(text: &str, success: bool, in_time: bool) -> Vec<String> {
        let text = text.to_owned();
        tests_that_failed(&Ended { text, success, in_time })
    }

    #[test]
    fn who_has_failed_is_named() {
        let both = "test a ... ok\ntest b ... FAILED\ntest c ... FAILED\n";
        assert_eq!(failed(both, false, true), ["b", "c"]);
        assert!(failed("test a ... ok\n", true, true).is_empty());
    }

    #[test]
    fn the_last_that_began_has_ended_the_program() {
        let cut = "test a ... ok\ntest b ... \n";
        assert_eq!(failed(cut, false, true), ["b"]);
        assert_eq!(failed(cut, false, false), ["b"]);
        assert_eq!(failed("", false, true), ["?"]);
    }

    #[test]
    fn what_was_found_comes_back_from_its_line() {
        let found = Found {
            scripts: vec!["a".to_owned(), "b".to_owned()],
            seeds: 7,
            oracle: None,
        };
        let (name, back) = Found::from_line(found.line("m").trim_end_matches('\n')).expect("a line");
        assert_eq!(
            (name.as_str(), back.scripts.len(), back.seeds, back.oracle),
            ("m", 2, 7, None)
        );
    }
}
