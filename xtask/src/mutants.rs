//! Seeded protocol bugs: the simulator and its scripts must catch each.

use crate::run::{Failed, cargo, output, step};
use std::path::PathBuf;
use std::process::Command;

/// The scripts that every mutant meets: the tests of the simulator that name mutants, and others that take only seconds.
const SCRIPTS: [&str; 22] = [
    "traces",
    "rules",
    "merging",
    "merging_faults",
    "disks",
    "stuck",
    "moves",
    "rounds",
    "greetings",
    "window",
    "zeroes",
    "sight",
    "hostile",
    "refusals",
    "late",
    "paths",
    "pauses",
    "fences",
    "operator",
    "kept_seeds",
    "restart",
    "undone",
];

/// Every mutant: which scripts catch it, how many seeds it takes, and which oracle says so.
pub fn mutants(seeds: u64, null_seeds: u64, only: Option<String>) -> Result<(), Failed> {
    let mut build = cargo(["build", "--profile", "sim", "--quiet", "--locked", "-p", "twincell-sim"]);
    let built = output(build.args(["--features", "mutants", "--message-format", "json"]))?;
    let program = executables(&built)
        .pop()
        .ok_or_else(|| Failed("the build has left no simulator".to_owned()))?;
    let mut build = cargo([
        "test",
        "--profile",
        "sim",
        "--quiet",
        "--locked",
        "-p",
        "twincell-sim",
        "--no-run",
    ]);
    build.args(["--features", "mutants", "--message-format", "json"]);
    let built = output(build.args(SCRIPTS.iter().flat_map(|script| ["--test", script])))?;
    let mut measure = Command::new(&program);
    measure.args([
        "mutants",
        "--seeds",
        &seeds.to_string(),
        "--null-seeds",
        &null_seeds.to_string(),
    ]);
    measure.arg("--state").arg(program.with_file_name("mutants.state"));
    if let Some(only) = only {
        measure.args(["--only", &only]);
    }
    for script in executables(&built) {
        measure.arg("--scripts").arg(script);
    }
    step(&mut measure)
}

/// The programs that cargo's messages name.
fn executables(messages: &str) -> Vec<PathBuf> {
    let key = "\"executable\":\"";
    let rests = messages
        .lines()
        .filter_map(|line| line.split_once(key))
        .map(|(_, rest)| rest);
    rests
        .filter_map(|rest| rest.split_once('"'))
        .map(|(path, _)| path.into())
        .collect()
}
