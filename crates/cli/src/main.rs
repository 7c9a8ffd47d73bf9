//! `twincell`: the controller, and the commands of its operator.

mod cell;
mod claim;
mod config;
mod confirm;
mod control;
mod controller;
mod daemon;
mod demo;
mod disk;
mod events;
mod exit;
mod health;
mod journal;
mod link;
mod lock;
mod log;
mod loss;
mod lun;
mod output;
mod recorder;
mod server;
mod size;
mod status;

use clap::error::ErrorKind;
use clap::{Parser, Subcommand};
use config::{CellConfig, locate};
use exit::{Code, Failure, Result};
use output::Report;
use std::path::PathBuf;
use std::process::ExitCode;

/// A dual-controller storage array from two Linux servers.
#[derive(Debug, Parser)]
#[command(name = "twincell", version, about, args_conflicts_with_subcommands = false)]
struct Cli {
    /// The directory of the cell.
    #[arg(long, global = true, value_name = "DIR", conflicts_with = "config")]
    dir: Option<PathBuf>,
    /// The configuration file of the cell.
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// One JSON object instead of text.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    noun: Option<Noun>,
}

/// What a command is about.
#[derive(Debug, Subcommand)]
enum Noun {
    /// The cell: create, start, stop.
    #[command(subcommand)]
    Cell(cell::CellVerb),
    /// One controller: run, stop, show.
    #[command(subcommand)]
    Controller(controller::ControllerVerb),
    /// LUNs.
    #[command(subcommand)]
    Lun(lun::LunVerb),
    /// Disks.
    #[command(subcommand)]
    Disk(disk::DiskVerb),
    /// The state of the cell.
    Status,
    /// What happened, and how long each takeover took.
    Events(events::Events),
    /// A cell in a directory, a load, the end of a controller, and what became of it.
    Demo(demo::Demo),
    /// The pool of disks (not built yet).
    Pool(NotBuilt),
    /// Redundant store sets (not built yet).
    Rss(NotBuilt),
    /// Hosts and what they may use (not built yet).
    Host(NotBuilt),
    /// Long work (not built yet).
    Task(NotBuilt),
    /// The link between the controllers.
    #[command(subcommand)]
    Link(link::LinkVerb),
}

/// The verbs of a noun that is not built yet: any.
#[derive(Debug, clap::Args)]
struct NotBuilt {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    rest: Vec<String>,
}

fn main() -> ExitCode {
    let json = std::env::args_os()
        .skip(1)
        .take_while(|a| a != "--")
        .any(|a| a == "--json");
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error, json),
    };
    if let Some(Noun::Controller(controller::ControllerVerb::Run { name, detach })) = &cli.noun {
        return serve(&cli, *name, *detach);
    }
    ExitCode::from(output::print(dispatch(&cli), json) as u8)
}

/// A command line that is not understood, or asks for help.
fn usage(error: &clap::Error, json: bool) -> ExitCode {
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        let _ = error.print();
        return ExitCode::SUCCESS;
    }
    if !json {
        let _ = error.print();
        return ExitCode::from(Code::Usage as u8);
    }
    let text = error.to_string();
    let what = match error.kind() {
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            "the command is not complete: a verb is missing".to_owned()
        }
        _ => {
            let lines = text.lines().map(str::trim).take_while(|l| !l.starts_with("Usage:"));
            let what = lines.filter(|l| !l.is_empty()).collect::<Vec<_>>().join(" ");
            what.trim_start_matches("error: ").to_owned()
        }
    };
    ExitCode::from(output::print(
        Err(Failure::usage(what).next("`twincell --help` shows the commands")),
        true,
    ) as u8)
}

/// `controller run` writes a log, in which an error is one line.
fn serve(cli: &Cli, name: twincell_core::ids::Controller, detach: bool) -> ExitCode {
    let started = log::start().map_err(|e| Failure::io("start", "a thread", &e));
    let result = started
        .and_then(|()| load(cli))
        .and_then(|config| controller::run(&config, name, detach));
    let code = result.as_ref().map_or_else(|failure| failure.code, |_| Code::Done);
    if let Err(failure) = result {
        tell_failure(failure, cli.json);
    }
    log::flush();
    ExitCode::from(code as u8)
}

fn tell_failure(failure: Failure, json: bool) {
    if json {
        return log::within_last_words(move || _ = output::print(Err(failure), true));
    }
    let Failure { what, next, .. } = failure;
    let what = what.split_whitespace().collect::<Vec<_>>().join(" ");
    log::log(&format!("{what}{}{next}", if next.is_empty() { "" } else { "; " }));
}

fn load(cli: &Cli) -> Result<CellConfig> {
    CellConfig::load(&locate(cli.dir.as_deref(), cli.config.as_deref())?)
}

fn dispatch(cli: &Cli) -> Result<Report> {
    let not_built = |noun: &str, verb: &NotBuilt| {
        let verb = verb
            .rest
            .iter()
            .find(|v| !v.starts_with('-'))
            .map_or("", String::as_str);
        Err(Failure::not_built(
            format!("`twincell {noun} {verb}`").replace(" `", "`"),
        ))
    };
    match cli.noun.as_ref().unwrap_or(&Noun::Status) {
        Noun::Pool(verb) => not_built("pool", verb),
        Noun::Rss(verb) => not_built("rss", verb),
        Noun::Host(verb) => not_built("host", verb),
        Noun::Task(verb) => not_built("task", verb),
        Noun::Link(link::LinkVerb::List) => link::list(&load(cli)?),
        Noun::Link(link::LinkVerb::Decode { file }) => link::decode(file),
        Noun::Cell(verb) => run_cell(cli, verb),
        Noun::Controller(verb) => run_controller(&load(cli)?, verb),
        Noun::Lun(verb) => lun::run(&load(cli)?, verb),
        Noun::Disk(verb) => disk::run(&load(cli)?, verb),
        Noun::Demo(asked) => demo::run(cli.dir.as_deref(), asked, cli.json),
        Noun::Status => Ok(status::run(&load(cli)?)),
        Noun::Events(asked) => events::run(&load(cli)?, asked, cli.json),
    }
}

fn run_cell(cli: &Cli, verb: &cell::CellVerb) -> Result<Report> {
    match verb {
        cell::CellVerb::Create(asked) => {
            if cli.config.is_some() {
                return Err(Failure::usage(
                    "a cell is created in a directory: --dir DIR, not --config FILE",
                ));
            }
            cell::create(&cell::directory(cli.dir.as_deref())?, asked)
        }
        cell::CellVerb::Start => cell::start(&load(cli)?),
        cell::CellVerb::Stop => cell::stop(&load(cli)?),
        cell::CellVerb::Delete { .. } => Err(Failure::not_built("deleting a cell")),
    }
}

fn run_controller(config: &CellConfig, verb: &controller::ControllerVerb) -> Result<Report> {
    match verb {
        controller::ControllerVerb::Run { name, detach } => controller::run(config, *name, *detach),
        controller::ControllerVerb::Stop { name } => controller::run_stop(config, *name),
        controller::ControllerVerb::List => Ok(controller::run_list(config)),
        controller::ControllerVerb::Show { name } => controller::run_show(config, *name),
        controller::ControllerVerb::AcceptLoss { name, yes } => loss::accept(config, *name, *yes),
    }
}
