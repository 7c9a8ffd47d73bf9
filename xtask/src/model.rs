//! The model checker. It is a workspace of its own, because it builds the core with small pools.

use crate::run::{Failed, cargo, step};

const MANIFEST: &str = "--manifest-path=crates/model/Cargo.toml";
const TARGET: &str = "--target-dir=target/model";

/// Explores one scope or all, up to so many states each; with a seeded bug, if one is named: then it must be found.
pub fn model(states: Option<u64>, scope: Option<String>, mutant: Option<String>) -> Result<(), Failed> {
    step(&mut cargo([
        "test",
        "--quiet",
        "--locked",
        "--release",
        MANIFEST,
        TARGET,
    ]))?;
    let mut run = cargo(["run", "--quiet", "--locked", "--release", MANIFEST, TARGET]);
    if mutant.is_some() {
        run.args(["--features", "mutants"]);
    }
    run.arg("--");
    if let Some(mutant) = mutant {
        run.args(["--mutant", &mutant]);
    }
    if let Some(states) = states {
        run.args(["--states", &states.to_string()]);
    }
    if let Some(scope) = scope {
        run.args(["--scope", &scope]);
    }
    step(&mut run)
}
