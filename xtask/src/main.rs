//! Every developer command: `cargo xtask`.

mod fuzz;
mod install;
mod model;
mod mutants;
mod mutate;
mod run;
mod soak;
mod test;
mod tidy;

use clap::{Parser, Subcommand};
use run::{Failed, step};
use std::process::ExitCode;

#[derive(Parser)]
#[command(about = "Developer commands of twincell")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Everything that must hold before a merge. Installs what is missing, and says so first.
    Test {
        /// Install nothing; a missing tool is a failure.
        #[arg(long)]
        no_install: bool,
    },
    /// Format, lint, licences, and what does not belong into the sources.
    Tidy,
    /// The simulator, over many seeds.
    Sim {
        /// How many seeds.
        #[arg(long, default_value_t = 1000)]
        seeds: u64,
        /// The first seed.
        #[arg(long, default_value_t = 1)]
        start: u64,
        /// Keeps in this file how far it has come, and goes on from there as long as the sources are the same.
        #[arg(long)]
        state: Option<String>,
    },
    /// The smallest plan that still fails as a seed of the simulator does.
    Shrink {
        /// The seed, as a failing run printed it.
        seed: u64,
    },
    /// Every single fault at every event of the canonical scenarios; with `--pairs`, pairs of faults.
    Enumerate {
        /// What the simulator's `enumerate` takes: `--only NAME`, `--pairs [--stride N] [--minutes N] [--state FILE]`,
        /// `--show NAME EVENT:FAULT...`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        options: Vec<String>,
    },
    /// Seeded protocol bugs: the simulator must catch each, and never the one that breaks nothing. A run that was
    /// interrupted goes on where it stopped.
    Mutants {
        /// How many seeds each gets at most.
        #[arg(long, default_value_t = 10_000)]
        seeds: u64,
        /// How many seeds the one gets that breaks nothing.
        #[arg(long, default_value_t = 20_000)]
        null_seeds: u64,
        /// Only this one.
        #[arg(long)]
        only: Option<String>,
    },
    /// Every mutant of the core that cargo-mutants knows, all of them in one build. A run that was interrupted goes on where
    /// it stopped.
    Mutate {
        /// What the tool takes: `--jobs N`, `--seeds N`, `--more-seeds N`, `--only PART-OF-A-NAME`, `--survivors`,
        /// `--report`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        options: Vec<String>,
    },
    /// The model checker: every order of what can happen, within small bounds (`docs/model.md`). Without options, every scope
    /// that is known to close, and each must.
    Model {
        /// Explore all scopes, or the one that is named, up to so many states each. Without it ten million, within which those
        /// that are known to close must.
        #[arg(long)]
        states: Option<u64>,
        /// Only this scope; a wrong name lists them.
        #[arg(long)]
        scope: Option<String>,
        /// With this seeded bug, which must be found.
        #[arg(long)]
        mutant: Option<String>,
    },
    /// One seed of the simulator, with its whole story.
    Repro {
        /// The seed, as a failing run printed it.
        seed: u64,
    },
    /// The figures, with real processes: beside what the machine can do in the same run.
    Bench {
        /// Those of the link between the controllers.
        #[arg(long)]
        link: bool,
    },
    /// Real processes: faults of processes, link and operators, one after the other, under a verifying load.
    Soak(Box<soak::Asked>),
    /// Every fuzz target for a while.
    Fuzz {
        /// How long each.
        #[arg(long, default_value_t = 60)]
        seconds: u64,
    },
}

fn main() -> ExitCode {
    if let Err(error) = run::enter_workspace() {
        eprintln!("xtask: {error}");
        return ExitCode::FAILURE;
    }
    match dispatch(Cli::parse().task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failed) => {
            eprintln!("\nxtask: {failed}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(task: Task) -> Result<(), Failed> {
    match task {
        Task::Test { no_install } => test::test(no_install),
        Task::Tidy => tidy::tidy(),
        Task::Sim { seeds, start, state } => test::simulate(seeds, start, state.as_deref()),
        Task::Shrink { seed } => step(test::simulator("sim").arg("shrink").arg(seed.to_string())),
        Task::Enumerate { options } => test::enumerate(&options),
        Task::Mutants {
            seeds,
            null_seeds,
            only,
        } => mutants::mutants(seeds, null_seeds, only),
        Task::Mutate { options } => mutate::mutate(&options),
        Task::Model { states, scope, mutant } => model::model(states, scope, mutant),
        Task::Repro { seed } => step(test::simulator("sim").arg("repro").arg(seed.to_string())),
        Task::Bench { link } => test::bench(if link { "link" } else { "figures" }),
        Task::Soak(asked) => soak::soak(&asked),
        Task::Fuzz { seconds } => fuzz::fuzz(seconds),
    }
}
