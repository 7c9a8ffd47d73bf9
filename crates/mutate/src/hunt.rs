//! One check after the other, the cheapest first, each for every mutant that nothing has caught before. Every mutant runs
//! in processes of its own.

use crate::baseline::{Seeds, Suite};
use crate::process::{Ended, run};
use crate::programs::{Programs, digest, with_mutant};
use std::time::Duration;

/// A program with a mutant may take so many times what it takes without,
const TIMES: u32 = 4;
/// and this.
const MORE: Duration = Duration::from_secs(1);

/// What became of a mutant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// What caught it.
    Caught(String),
    /// So many checks have not caught it, and this is what they saw of it.
    Missed(Seen, usize),
    DoesNotBuild,
    NotCompiled,
}

/// What checks that catch nothing see of a mutant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Seen {
    /// They do not come to its place.
    Unreached,
    /// All that happens in the seeds is the same, to the last bit.
    Same,
    /// Something happens in another way.
    Different,
}

/// Something that can catch a mutant.
#[derive(Debug)]
pub enum Check {
    Seeds(Seeds),
    Tests(Suite),
}

impl Check {
    /// What it takes without a mutant.
    pub fn takes(&self) -> Duration {
        match self {
            Check::Seeds(seeds) => seeds.takes,
            Check::Tests(suite) => suite.tests.iter().map(|t| t.takes).sum(),
        }
    }

    /// In words.
    pub fn name(&self) -> String {
        match self {
            Check::Seeds(seeds) => format!("seeds {} to {}", seeds.range.start, seeds.range.end - 1),
            Check::Tests(suite) => format!("tests of {}", suite.program.name),
        }
    }

    /// What catches the mutant with this number at this place, or else what is seen of it.
    pub fn hunt(&self, programs: &Programs, number: u32, place: u32) -> Result<Seen, String> {
        match self {
            Check::Seeds(seeds) => by_seeds(programs, seeds, number, place),
            Check::Tests(suite) => by_tests(suite, number, place),
        }
    }
}

fn by_seeds(programs: &Programs, seeds: &Seeds, number: u32, place: u32) -> Result<Seen, String> {
    if !seeds.reached.contains(&place) {
        return Ok(Seen::Unreached);
    }
    let ended = run(
        &with_mutant(programs.seeds(&seeds.range), number),
        seeds.takes * TIMES + MORE,
    );
    if !ended.success {
        return Err(seed_in_words(&ended));
    }
    let is_same = digest(&ended.text) == Some(&seeds.digest);
    Ok(if is_same { Seen::Same } else { Seen::Different })
}

fn by_tests(suite: &Suite, number: u32, place: u32) -> Result<Seen, String> {
    let tests: Vec<_> = suite.tests.iter().filter(|t| t.reaches(place)).collect();
    if tests.is_empty() {
        return Ok(Seen::Unreached);
    }
    let command = suite.program.only(tests.iter().map(|t| t.name.as_str()));
    let takes: Duration = tests.iter().map(|t| t.takes).sum();
    let ended = run(&with_mutant(command, number), takes * TIMES + MORE);
    if !ended.success {
        return Err(test_in_words(&suite.program.name, &ended));
    }
    // Those of which nobody knows where they come say nothing.
    let is_known = tests.iter().any(|t| t.reached.is_some());
    Ok(if is_known { Seen::Same } else { Seen::Unreached })
}

fn seed_in_words(ended: &Ended) -> String {
    let mut lines = ended.text.lines();
    let seed = lines.clone().rev().find_map(|line| line.strip_prefix("seed "));
    let failure = lines.clone().find_map(|line| line.strip_prefix("FAILED: "));
    let panicked = lines
        .find(|line| line.contains("panicked at"))
        .and_then(|_| lines.next());
    let words = match failure.or(panicked) {
        _ if ended.out_of_time => "it does not end",
        Some(words) => words,
        None => ended.text.lines().last().unwrap_or_default(),
    };
    let words: String = words.chars().filter(|c| !c.is_control()).take(100).collect();
    format!("seed {}: {words}", seed.unwrap_or("?"))
}

fn test_in_words(program: &str, ended: &Ended) -> String {
    let mut tests = ended
        .text
        .lines()
        .filter_map(|line| line.strip_prefix("test ")?.split_once(" ... "));
    // The name of a test that never ends is the last that is printed.
    let failed = tests
        .clone()
        .find(|(_, how)| *how == "FAILED")
        .or_else(|| tests.next_back());
    let failed = failed.map_or("?", |(name, _)| name);
    let end = if ended.out_of_time { ", which does not end" } else { "" };
    format!("test {program}::{failed}{end}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(text: &str, out_of_time: bool) -> Ended {
        Ended {
            text: text.to_owned(),
            success: false,
            out_of_time,
            took: Duration::ZERO,
        }
    }

    #[test]
    fn what_catches_a_mutant_is_said_in_words() {
        let failed = ended("FAILED: a read was wrong\n\nseed 0\nseed 1", false);
        assert_eq!(seed_in_words(&failed), "seed 1: a read was wrong");
        let panicked = ended("\nseed 3\nthread 'main' panicked at a.rs:1:2:\nno", false);
        assert_eq!(seed_in_words(&panicked), "seed 3: no");
        assert_eq!(seed_in_words(&ended("\nseed 4", true)), "seed 4: it does not end");
        let failed = ended("test a ... ok\ntest b ... FAILED\ntest c ... ok", false);
        assert_eq!(test_in_words("rules", &failed), "test rules::b");
        let hung = ended("test a ... ok\ntest b ... ", true);
        assert_eq!(test_in_words("rules", &hung), "test rules::b, which does not end");
    }
}
