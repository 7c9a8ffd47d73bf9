//! Everything that must hold before a merge.

use crate::run::{Failed, cargo, headline, output, step};
use crate::{install, tidy};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

/// Seeds of the simulator before a merge: so many that the batch fails if it has not hit every mark.
const SEEDS: u64 = 10_000;
/// Packages that are tested with the seeded bugs that their scripts name.
const WITH_MUTANTS: [&str; 2] = ["twincell-core", "twincell-sim"];
/// The locked memory of an ordinary user, in bytes.
const MEMLOCK: u64 = 64 << 10;
/// Names the program that the rig tests.
pub const BINARY: &str = "TWINCELL_BIN";
/// `nobody` and `nogroup` of every distribution.
const NOBODY: u32 = 65_534;

/// The whole of it.
pub fn test(no_install: bool) -> Result<(), Failed> {
    let begin = Instant::now();
    install::ensure(no_install)?;
    tidy::tidy()?;
    headline("Unit tests");
    let others = ["--workspace", "--exclude", "twincell-rig"];
    let mutated = WITH_MUTANTS.iter().flat_map(|package| ["--exclude", package]);
    step(nextest().args(others).args(mutated))?;
    headline("Unit tests and scripts of core and simulator; each script catches the mutants that it names");
    let mutated = WITH_MUTANTS.iter().flat_map(|package| ["--package", package]);
    step(nextest().args(mutated).args(["--features", "twincell-sim/mutants"]))?;
    headline("Simulator");
    simulate(SEEDS, 1, None)?;
    headline("Every single fault at every event of the canonical scenarios");
    enumerate(&[])?;
    headline("The demo, as an ordinary user with 64 KiB of locked memory");
    let twincell = release_binary()?;
    demo(&twincell)?;
    headline("Real processes and real clients");
    let mut rig = nextest();
    rig.args(["--profile", "rig", "--package", "twincell-rig"]);
    step(rig.env(BINARY, twincell))?;
    println!("\nAll of it passed, in {} s.", begin.elapsed().as_secs());
    Ok(())
}

/// Runs tests, each in a process of its own; which ones follows.
fn nextest() -> Command {
    cargo(["nextest", "run", "--config-file=xtask/nextest.toml", "--locked"])
}

/// The simulator over `seeds` seeds; then some of them once more in another build, which must do the same.
pub fn simulate(seeds: u64, start: u64, state: Option<&str>) -> Result<(), Failed> {
    let (seeds, start) = (seeds.to_string(), start.to_string());
    let range = ["--seeds", &seeds, "--start", &start];
    let mut sim = simulator("sim");
    sim.arg("run").args(range);
    if let Some(file) = state {
        sim.args(["--state", file]);
    }
    step(&mut sim)?;
    let digests = |profile| output(simulator(profile).arg("digests").args(range));
    let optimized = digests("sim")?;
    if optimized.is_empty() {
        // It has said that there are too few seeds.
        return Ok(());
    }
    let other = digests("dev")?;
    let differs = optimized.lines().zip(other.lines()).find(|(a, b)| a != b);
    match differs {
        Some((a, b)) => Err(Failed(format!(
            "another build runs a seed in another way: {a}, and {b}"
        ))),
        None if optimized.lines().count() != other.lines().count() => {
            Err(Failed("another build runs other seeds".to_owned()))
        }
        None => {
            println!("{} of them are the same in another build", optimized.lines().count());
            Ok(())
        }
    }
}

/// The simulator's enumeration of faults.
pub fn enumerate(options: &[String]) -> Result<(), Failed> {
    step(simulator("sim").arg("enumerate").args(options))
}

/// The simulator copies whole worlds, and drops them soon after. Without these settings of the C library's allocator, in
/// bytes, each copy is asked of the system anew: pairs of faults take a fifth longer.
const KEEPS_ITS_MEMORY: [(&str, &str); 3] = [
    ("MALLOC_MMAP_THRESHOLD_", "1000000000"),
    ("MALLOC_TRIM_THRESHOLD_", "4000000000"),
    ("MALLOC_TOP_PAD_", "67108864"),
];

/// The simulator, built with a profile; its arguments follow.
pub fn simulator(profile: &str) -> Command {
    let mut sim = cargo(["run", "--quiet", "--locked", "-p", "twincell-sim"]);
    sim.args(["--features", "marks", "--profile", profile, "--"]);
    sim.envs(KEEPS_ITS_MEMORY);
    sim
}

/// The figures; `figures` names the program in `rig/benches`.
pub fn bench(figures: &str) -> Result<(), Failed> {
    let twincell = release_binary()?;
    step(cargo(["bench", "--quiet", "--locked", "-p", "twincell-rig", "--bench", figures]).env(BINARY, twincell))
}

/// Builds the product as it is released, and says where it is.
pub fn release_binary() -> Result<PathBuf, Failed> {
    step(&mut cargo([
        "build",
        "--release",
        "--quiet",
        "--locked",
        "-p",
        "twincell",
    ]))?;
    let metadata = output(&mut cargo(["metadata", "--format-version=1", "--no-deps", "--locked"]))?;
    let key = "\"target_directory\":\"";
    let rest = metadata.split_once(key).map(|(_, rest)| rest);
    let target = rest.and_then(|r| r.split_once('"')).map(|(dir, _)| PathBuf::from(dir));
    let binary = target.map(|t| t.join("release").join("twincell"));
    binary
        .filter(|b| b.is_file())
        .ok_or_else(|| Failed("the release build has left no binary".to_owned()))
}

/// Runs the demo as somebody who owns nothing but a directory.
fn demo(twincell: &Path) -> Result<(), Failed> {
    let failed = |e: std::io::Error| Failed(format!("the demo's directory: {e}"));
    let dir = std::env::temp_dir().join(format!("twincell-demo-{}", std::process::id()));
    std::fs::create_dir(&dir).map_err(failed)?;
    let result = demo_in(&dir, twincell);
    std::fs::remove_dir_all(&dir).map_err(failed)?;
    result
}

fn demo_in(dir: &Path, twincell: &Path) -> Result<(), Failed> {
    use std::os::unix::fs::{PermissionsExt, chown};
    let failed = |e: std::io::Error| Failed(format!("the demo's directory: {e}"));
    // The build may be where nobody else can look.
    let copy = dir.join("twincell");
    std::fs::copy(twincell, &copy).map_err(failed)?;
    std::fs::set_permissions(&copy, std::fs::Permissions::from_mode(0o755)).map_err(failed)?;
    let root = output(Command::new("id").arg("-u"))?.trim() == "0";
    let mut command = Command::new(if root { "setpriv" } else { "prlimit" });
    if root {
        chown(dir, Some(NOBODY), Some(NOBODY)).map_err(failed)?;
        command.args([
            format!("--reuid={NOBODY}"),
            format!("--regid={NOBODY}"),
            "--clear-groups".to_owned(),
        ]);
        command.args(["--no-new-privs", "prlimit"]);
    }
    command
        .arg(format!("--memlock={MEMLOCK}:{MEMLOCK}"))
        .arg(&copy)
        .args(["demo", "--dir"])
        .arg(dir.join("cell"));
    step(command.current_dir(dir).env("HOME", dir).env_remove("XDG_RUNTIME_DIR"))
}
