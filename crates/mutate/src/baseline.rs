//! What the tests do without a mutant: which places they come to, and how long they take.

use crate::failed::Failed;
use crate::hunt::Check;
use crate::process::Ended;
use crate::programs::{Programs, Tests, digest, recorded, unmutated};
use std::collections::BTreeSet;
use std::ops::Range;
use std::path::Path;
use std::time::Duration;

/// The simulator's own tests: they are of its oracles and its random numbers, take minutes, and have caught nothing of the core.
const OF_OTHERS: [&str; 1] = ["twincell_sim"];

/// Some seeds.
#[derive(Clone, Debug)]
pub struct Seeds {
    pub range: Range<u64>,
    /// The places that they come to.
    pub reached: BTreeSet<u32>,
    /// Of all that happens in them.
    pub digest: String,
    pub takes: Duration,
}

/// One test.
#[derive(Clone, Debug)]
pub struct Test {
    pub name: String,
    /// The places that it comes to; all of them, if that cannot be recorded.
    pub reached: Option<BTreeSet<u32>>,
    pub takes: Duration,
}

/// A program's tests.
#[derive(Debug)]
pub struct Suite {
    pub program: Tests,
    pub tests: Vec<Test>,
}

/// Everything that can catch a mutant: some seeds first, then what takes the least.
pub fn checks(programs: &Programs, seeds: [Range<u64>; 2], scratch: &Path) -> Result<Vec<Check>, Failed> {
    let [first, more] = seeds;
    let mut rest = Vec::new();
    if !more.is_empty() {
        rest.push(Check::Seeds(some_seeds(programs, more, scratch)?));
    }
    for program in programs.tests.iter().filter(|p| !OF_OTHERS.contains(&p.name.as_str())) {
        let names = program.names()?.into_iter();
        let tests = names.map(|name| test(program, name, scratch));
        let tests: Vec<Test> = tests.collect::<Result<_, _>>()?;
        rest.push(Check::Tests(Suite {
            program: program.clone(),
            tests,
        }));
    }
    rest.sort_by_key(Check::takes);
    rest.insert(0, Check::Seeds(some_seeds(programs, first, scratch)?));
    Ok(rest)
}

/// The same for the programs of another tree, of which nobody knows where they come: everywhere, so to this place.
pub fn elsewhere(checks: &[Check], programs: &Programs, place: u32) -> Vec<Check> {
    let moved = |check: &Check| match check {
        Check::Seeds(seeds) => Some(Check::Seeds(Seeds {
            reached: BTreeSet::from([place]),
            ..seeds.clone()
        })),
        Check::Tests(suite) => {
            let program = programs.tests.iter().find(|p| p.name == suite.program.name)?.clone();
            let tests = suite.tests.iter().map(|t| Test {
                reached: None,
                ..t.clone()
            });
            Some(Check::Tests(Suite {
                program,
                tests: tests.collect(),
            }))
        }
    };
    checks.iter().filter_map(moved).collect()
}

fn some_seeds(programs: &Programs, range: Range<u64>, scratch: &Path) -> Result<Seeds, Failed> {
    let (recorded, reached) = recorded(programs.seeds(&range), scratch)?;
    let ended = unmutated(programs.seeds(&range));
    let digest = digest_of(&ended)?;
    // Whoever records runs the functions with the switches in them, all of them off.
    if digest_of(&recorded)? != digest {
        return Err(Failed(
            "the switches change what happens, although no mutant is on".to_owned(),
        ));
    }
    Ok(Seeds {
        range,
        reached,
        digest,
        takes: ended.took,
    })
}

fn digest_of(ended: &Ended) -> Result<String, Failed> {
    let digest = digest(&ended.text).map(str::to_owned);
    digest.ok_or_else(|| Failed(format!("a seed fails without a mutant:\n{}", ended.text)))
}

fn test(program: &Tests, name: String, scratch: &Path) -> Result<Test, Failed> {
    let command = || program.only(std::iter::once(name.as_str()));
    let (ended, reached) = recorded(command(), scratch)?;
    if ended.success {
        let takes = ended.took;
        return Ok(Test {
            name,
            reached: Some(reached),
            takes,
        });
    }
    // Recording may be what it does not stand.
    let ended = unmutated(command());
    if ended.success {
        let takes = ended.took;
        return Ok(Test {
            name,
            reached: None,
            takes,
        });
    }
    Err(Failed(format!(
        "{name} of {} fails without a mutant:\n{}",
        program.name, ended.text
    )))
}

impl Test {
    /// Whether a mutant at this place can matter to it.
    pub fn reaches(&self, place: u32) -> bool {
        self.reached.as_ref().is_none_or(|reached| reached.contains(&place))
    }
}
