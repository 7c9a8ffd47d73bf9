//! Faults on real processes, for as long as is asked.

use crate::run::{Failed, cargo, step};
use crate::test::{BINARY, release_binary};
use clap::Args;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Where campaigns are kept unless told.
const DIR: &str = "target/soak";

/// How long, and what.
#[derive(Args)]
pub struct Asked {
    /// How long.
    #[arg(long, conflicts_with = "cycles")]
    minutes: Option<u64>,
    /// How many faults with data at stake.
    #[arg(long, default_value_t = 100)]
    cycles: u64,
    /// What the faults and the load follow from; drawn unless told.
    #[arg(long, conflicts_with = "resume")]
    seed: Option<u64>,
    /// Only these kinds of faults, with commas in between; all of them unless told.
    #[arg(long, conflicts_with = "resume")]
    kinds: Option<String>,
    /// The directory that the campaign is kept in, and what is left of a failure; a new one in target/soak unless told.
    #[arg(long, conflicts_with = "resume")]
    dir: Option<PathBuf>,
    /// Instead of faults: fill so many MiB of cache in each controller, kill both, and measure how long their restart
    /// takes.
    #[arg(long, value_name = "MIB", conflicts_with_all = ["resume", "seed", "kinds", "minutes"])]
    restart: Option<u64>,
    /// Go on with the campaign in this directory.
    #[arg(long, value_name = "DIR")]
    resume: Option<PathBuf>,
}

/// Runs it.
pub fn soak(asked: &Asked) -> Result<(), Failed> {
    let twincell = release_binary()?;
    let mut soak = cargo([
        "run",
        "--release",
        "--quiet",
        "--locked",
        "-p",
        "twincell-rig",
        "--bin",
        "twincell-soak",
        "--",
    ]);
    match (asked.restart, asked.minutes) {
        (Some(mib), _) => soak.args(["--restart", &mib.to_string()]),
        (None, Some(minutes)) => soak.args(["--minutes", &minutes.to_string()]),
        (None, None) => soak.args(["--cycles", &asked.cycles.to_string()]),
    };
    match &asked.resume {
        Some(dir) => soak.arg("--resume").arg(dir),
        None => soak.arg("--dir").arg(asked.dir.clone().map_or_else(new_directory, Ok)?),
    };
    if let Some(seed) = asked.seed {
        soak.args(["--seed", &seed.to_string()]);
    }
    if let Some(kinds) = &asked.kinds {
        soak.args(["--kinds", kinds]);
    }
    step(soak.env(BINARY, twincell))
}

fn new_directory() -> Result<PathBuf, Failed> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let now = now.map_err(|e| Failed(format!("the clock: {e}")))?;
    let dir = Path::new(DIR).join(now.as_secs().to_string());
    std::path::absolute(&dir).map_err(|e| Failed(format!("{}: {e}", dir.display())))
}
