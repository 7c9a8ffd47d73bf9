//! Seeded protocol bugs: the simulator and its scripts must catch each.

use crate::run::{Failed, cargo, output, step};
use std::path::PathBuf;
use std::process::Command;

/// The scripts that every mutant meets: the tests of the simulator that name mutants, and others that take only seconds.
const SCRIPTS: [&str; 23] = [
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
    "late_disks",
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
    let program = executables(&built, "bin")
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
    let mut scripts = executables(&built, "test");
    // Cargo names them in the order in which they were ready.
    scripts.sort();
    if scripts.len() != SCRIPTS.len() {
        return Err(Failed("the build has not left one program for each script".to_owned()));
    }
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
    for script in scripts {
        measure.arg("--scripts").arg(script);
    }
    step(&mut measure)
}

/// The programs of a kind that cargo's messages name. Where tests are built, so is the simulator, which is no test.
fn executables(messages: &str, kind: &str) -> Vec<PathBuf> {
    let (kind, key) = (format!("\"kind\":[\"{kind}\"]"), "\"executable\":\"");
    let of_kind = messages.lines().filter(|line| line.contains(&kind));
    let rests = of_kind.filter_map(|line| line.split_once(key)).map(|(_, rest)| rest);
    rests
        .filter_map(|rest| rest.split_once('"'))
        .map(|(path, _)| path.into())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_simulator_is_no_script() {
        let messages = r#"{"target":{"kind":["lib"],"test":true},"executable":null}
{"target":{"kind":["bin"],"test":true},"executable":"/t/twincell-sim"}
{"target":{"kind":["test"],"test":true},"executable":"/t/traces-1"}"#;
        assert_eq!(executables(messages, "test"), [PathBuf::from("/t/traces-1")]);
        assert_eq!(executables(messages, "bin"), [PathBuf::from("/t/twincell-sim")]);
    }
}
