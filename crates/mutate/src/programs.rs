//! The programs that a tree is tested with: one that runs seeds, and the tests.

use crate::failed::{Failed, at, output};
use crate::process::{Ended, run};
use crate::tree::{SEEDS, Tree};
use serde::Deserialize;
use std::collections::BTreeSet;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// What a program without a mutant may take.
const LONG: Duration = Duration::from_secs(600);

/// A program with tests.
#[derive(Clone, Debug)]
pub struct Tests {
    /// As cargo calls it.
    pub name: String,
    program: PathBuf,
    package: PathBuf,
}

/// All of them.
#[derive(Debug)]
pub struct Programs {
    seeds: PathBuf,
    pub tests: Vec<Tests>,
}

#[derive(Deserialize)]
struct Artifact {
    executable: Option<PathBuf>,
    manifest_path: PathBuf,
    target: Target,
    profile: Profile,
}

#[derive(Deserialize)]
struct Target {
    name: String,
}

#[derive(Deserialize)]
struct Profile {
    test: bool,
}

impl Programs {
    /// Builds them.
    pub fn build(tree: &Tree, packages: &[&str]) -> Result<Programs, Failed> {
        let mut cargo = tree.cargo(&["test", "--no-run", "--quiet", "--locked", "--profile", "sim"]);
        cargo.args(["--message-format", "json"]);
        cargo.args(packages.iter().flat_map(|package| ["-p", package]));
        // There are as many warnings as mutants.
        cargo.env("RUSTFLAGS", "--cap-lints=allow");
        let built = output(&mut cargo)?;
        let artifacts = built
            .lines()
            .filter_map(|line| serde_json::from_str::<Artifact>(line).ok());
        let mut programs = Programs {
            seeds: PathBuf::new(),
            tests: Vec::new(),
        };
        for artifact in artifacts {
            let Some(program) = artifact.executable else {
                continue;
            };
            let package = artifact.manifest_path.with_file_name("");
            if artifact.target.name == SEEDS {
                programs.seeds = program;
            } else if artifact.profile.test {
                programs.tests.push(Tests {
                    name: artifact.target.name,
                    program,
                    package,
                });
            }
        }
        // They come in the order in which they were ready.
        programs.tests.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(programs)
    }

    /// The files, for a hash of them.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        let tests = self.tests.iter().map(|t| t.program.as_path());
        std::iter::once(self.seeds.as_path()).chain(tests)
    }

    /// Some seeds.
    pub fn seeds(&self, seeds: &Range<u64>) -> Command {
        let mut command = Command::new(&self.seeds);
        command.args([seeds.start.to_string(), (seeds.end - seeds.start).to_string()]);
        command
    }
}

impl Tests {
    /// Some of the tests, one after the other.
    pub fn only<'n>(&self, names: impl Iterator<Item = &'n str>) -> Command {
        let mut command = Command::new(&self.program);
        command.args(["--test-threads=1", "--exact"]).args(names);
        // What they compare with is found from there.
        command
            .current_dir(&self.package)
            .env("CARGO_MANIFEST_DIR", &self.package);
        command
    }

    /// The names of all tests.
    pub fn names(&self) -> Result<Vec<String>, Failed> {
        let listed = output(Command::new(&self.program).args(["--list", "--format", "terse"]))?;
        let names = listed.lines().filter_map(|line| line.strip_suffix(": test"));
        Ok(names.map(str::to_owned).collect())
    }
}

/// Switches a mutant on.
pub fn with_mutant(mut command: Command, number: u32) -> Command {
    command.env("TWINCELL_SCHEMA", number.to_string());
    command
}

/// Runs a command without a mutant, and says which places it comes to.
pub fn recorded(mut command: Command, file: &Path) -> Result<(Ended, BTreeSet<u32>), Failed> {
    let _ = std::fs::remove_file(file);
    command
        .env("TWINCELL_SCHEMA", "record")
        .env("TWINCELL_SCHEMA_REACHED", file);
    let ended = run(&command, LONG);
    // It has come to no place of the core if there is none.
    let bytes = if file.exists() {
        std::fs::read(file).map_err(at(file))?
    } else {
        Vec::new()
    };
    let places = bytes
        .chunks_exact(4)
        .map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]));
    Ok((ended, places.collect()))
}

/// Runs a command without a mutant.
pub fn unmutated(command: Command) -> Ended {
    run(&with_mutant(command, 0), LONG)
}

/// The digest that the program with the seeds has printed.
pub fn digest(text: &str) -> Option<&str> {
    text.lines().find_map(|line| line.strip_prefix("digest "))
}
