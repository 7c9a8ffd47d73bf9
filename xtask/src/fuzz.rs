//! Every fuzz target for a while.

use crate::run::{Failed, cargo, headline, output, step, succeeds};
use std::process::Command;

/// Runs each target of `fuzz/` for `seconds`.
pub fn fuzz(seconds: u64) -> Result<(), Failed> {
    if !succeeds(&mut cargo(["fuzz", "--version"])) {
        step(&mut cargo(["install", "--locked", "cargo-fuzz"]))?;
    }
    let targets = output(&mut nightly(&["list"]))?;
    if targets.trim().is_empty() {
        return Err(Failed("there are no fuzz targets in fuzz/".to_owned()));
    }
    for target in targets.lines() {
        headline(&format!("Fuzzing {target} for {seconds} s"));
        step(nightly(&["run", target, "--"]).arg(format!("-max_total_time={seconds}")))?;
    }
    Ok(())
}

/// cargo-fuzz needs the sanitizers of a nightly compiler; the product does not.
fn nightly(args: &[&str]) -> Command {
    let mut command = Command::new("rustup");
    command.args(["run", "nightly", "cargo", "fuzz"]).args(args);
    // Of the compiler that runs this.
    command
        .env_remove("RUSTUP_TOOLCHAIN")
        .env_remove("CARGO")
        .env_remove("RUSTC");
    command
}
