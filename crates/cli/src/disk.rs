//! `twincell disk`.

use crate::config::CellConfig;
use crate::control::{ControllerStatus, DiskStatus, Merged};
use crate::exit::{Code, Failure, Result};
use crate::output::{Report, table};
use crate::size::Size;
use crate::status::{Seen, look_at_both};
use clap::Subcommand;

/// What can be done with disks.
#[derive(Debug, Subcommand)]
pub enum DiskVerb {
    /// The disks of the cell, and their states.
    List,
    /// One disk.
    Show {
        /// Its name, as `disk list` gives it.
        name: String,
    },
    /// Add a disk while the cell runs (not built yet).
    Add {
        /// A block device or file.
        paths: Vec<String>,
    },
    /// Take a disk out while the cell runs (not built yet).
    Remove {
        /// Its name.
        names: Vec<String>,
    },
}

/// The command.
pub fn run(config: &CellConfig, verb: &DiskVerb) -> Result<Report> {
    match verb {
        DiskVerb::List => {
            let disks = disks(config)?;
            Ok(Report::new(list(&disks), "disks", &disks))
        }
        DiskVerb::Show { name } => {
            let disk = disks(config)?.into_iter().find(|d| d.name == *name).ok_or_else(|| {
                Failure::new(Code::NotFound, format!("there is no disk {name}"))
                    .next("`twincell disk list` shows which there are")
            })?;
            Ok(Report::new(list(std::slice::from_ref(&disk)), "disk", &disk))
        }
        DiskVerb::Add { .. } => Err(Failure::not_built("adding a disk to a cell")),
        DiskVerb::Remove { .. } => Err(Failure::not_built("taking a disk out of a cell")),
    }
}

/// The disks, as the controller knows them that knows best.
fn disks(config: &CellConfig) -> Result<Vec<DiskStatus>> {
    let seen = look_at_both(config);
    let best = seen
        .iter()
        .filter(|s| s.status().is_some())
        .max_by_key(|s| (s.serves(), s.status().map(|s| s.epoch)));
    let mut disks = best
        .and_then(Seen::status)
        .map(|s| s.disks.clone())
        .ok_or_else(|| no_controller(config))?;
    for disk in &mut disks {
        disk.merged = merged(seen.iter().filter_map(Seen::status), &disk.name);
    }
    Ok(disks)
}

/// How far a disk is that is made level: each controller knows it of what it owns.
pub fn merged<'a>(seen: impl Iterator<Item = &'a ControllerStatus>, disk: &str) -> Option<Merged> {
    let of = |s: &ControllerStatus| s.disks.iter().find(|d| d.name == disk).and_then(|d| d.merged);
    seen.filter_map(of).reduce(Merged::and)
}

/// No controller answers.
pub fn no_controller(config: &CellConfig) -> Failure {
    Failure::new(
        Code::Unreachable,
        format!("no controller of cell {} answers", config.name),
    )
    .next(format!(
        "`twincell cell start --config {}` starts them",
        config.file.display()
    ))
}

fn list(disks: &[DiskStatus]) -> String {
    let row = |d: &DiskStatus| {
        let size = Size(d.size_bytes).to_string();
        let state = match d.merged {
            Some(merged) => format!("{}, {} %", d.state, merged.percent()),
            None if d.works => d.state.clone(),
            None => format!("{}, fails", d.state),
        };
        let votes = if d.quorum { "yes" } else { "no" };
        [
            d.name.clone(),
            size,
            state,
            votes.to_owned(),
            d.path.display().to_string(),
        ]
    };
    table(
        ["DISK", "SIZE", "STATE", "VOTES", "PATH"],
        &disks.iter().map(row).collect::<Vec<_>>(),
    )
}
