//! The mutants that a tool makes: the tests must catch most of them.

use crate::run::{Failed, cargo, step, succeeds};

/// Lists them, puts all of them into one build, and tests each.
pub fn mutate(options: &[String]) -> Result<(), Failed> {
    if !succeeds(&mut cargo(["mutants", "--version"])) {
        step(&mut cargo(["install", "--locked", "cargo-mutants"]))?;
    }
    step(cargo(["run", "--quiet", "--locked", "-p", "twincell-mutate", "--"]).args(options))
}
