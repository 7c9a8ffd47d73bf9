//! Every mutant of the core that cargo-mutants knows, all of them in one build and each switched on by its number.
//!
//! The list is that of `cargo mutants --list`. A copy of the workspace gets all of them ([`sites`], [`render`]); what does
//! not compile is taken out again ([`schema`]). Then each is hunted ([`hunt`]) by seeds of the simulator and by the tests
//! that come to its place ([`baseline`]). What no switch can express is built by itself. `docs/mutants.md` says what came
//! of it.

mod baseline;
mod cfg;
mod compiler;
mod failed;
mod hunt;
mod list;
mod modules;
mod process;
mod programs;
mod render;
mod report;
mod run;
mod schema;
mod sites;
mod state;
mod tree;

use clap::Parser;
use std::process::ExitCode;

#[derive(Parser)]
#[command(about = "Every mutant of the core that cargo-mutants knows, in one build")]
struct Cli {
    /// Mutants that run at the same time.
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// Seeds that each gets first.
    #[arg(long, default_value_t = 10)]
    seeds: u64,
    /// Seeds that it gets after the tests.
    #[arg(long, default_value_t = 300)]
    more_seeds: u64,
    /// Only mutants whose name has this in it; `cargo mutants --list` prints the names.
    #[arg(long)]
    only: Option<String>,
    /// Only those that the last run has missed, whatever has changed since then.
    #[arg(long)]
    survivors: bool,
    /// Nothing runs: what was found so far is told, and the survivors are listed.
    #[arg(long)]
    report: bool,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let settings = run::Settings {
        jobs: cli.jobs.max(1),
        seeds: cli.seeds,
        more_seeds: cli.more_seeds,
        only: cli.only,
        survivors: cli.survivors,
        report: cli.report,
    };
    let root = std::env::current_dir().map_err(|e| failed::Failed(format!("the current directory: {e}")));
    match root.and_then(|root| run::run(&root, &settings)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failed) => {
            eprintln!("mutate: {failed}");
            ExitCode::FAILURE
        }
    }
}
