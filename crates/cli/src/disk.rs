//! `twincell disk`.

use crate::cell::disks_refused;
use crate::config::CellConfig;
use crate::confirm::confirm;
use crate::control::{Answer, Client, ControllerStatus, DiskStatus, Merged, NoAnswer, RefusalKind, Request};
use crate::exit::{Code, Failure, Result};
use crate::output::{Report, table};
use crate::size::Size;
use crate::status::{Seen, look_at_both};
use clap::Subcommand;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use twincell_core::ids::{Controller, DiskIndex, RssIndex};
use twincell_engine::label_replacement;

/// How long controllers may take to agree on another disk.
const PATIENCE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(200);

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
    /// Have the controllers that run on this machine look for missing disks at the paths that `cell.toml` has for them now.
    /// They do so by themselves at the paths that they know.
    Rescan,
    /// Put an empty disk in the place of one that is missing. Hosts go on meanwhile.
    Replace {
        /// The name of the missing one.
        name: String,
        /// The new one: a block device or file, whose content is lost. It may have the path of the old one.
        path: PathBuf,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
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
        DiskVerb::Rescan => {
            let asked = look_for_disks(config)?;
            let text = format!(
                "Asked: {}. `twincell disk list` shows what they have found.\n",
                asked.join(", ")
            );
            Ok(Report::new(text, "asked", &asked))
        }
        DiskVerb::Replace { name, path, yes } => replace(config, name, path, *yes),
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

/// Labels the new disk, has the controllers take it for the old one, and writes its path to `cell.toml`. What was done of that
/// by an earlier run is found again.
fn replace(config: &CellConfig, name: &str, path: &Path, yes: bool) -> Result<Report> {
    let path = std::path::absolute(path).map_err(|e| Failure::io("find", path.display(), &e))?;
    let disk = disks(config)?.into_iter().find(|d| d.name == name);
    let disk = disk.ok_or_else(|| Failure::new(Code::NotFound, format!("there is no disk {name}")))?;
    let index: u16 = name
        .parse()
        .map_err(|_| Failure::usage(format!("{name:?} is not a disk")))?;
    if disk.state != "missing" {
        return Err(
            Failure::new(Code::Refused, format!("disk {name} is {}, not missing", disk.state))
                .next("only a missing disk is replaced: `twincell disk list`"),
        );
    }
    let lost = format!(
        "Disk {name} ({}) must not be used in this cell again, and all that is on {} will be lost.",
        disk.path.display(),
        path.display()
    );
    confirm(name, yes, &format!("disk {name} is not replaced"), &lost)?;
    let others: Vec<PathBuf> = config
        .disks
        .iter()
        .filter(|d| **d != disk.path && **d != path)
        .cloned()
        .collect();
    let place = (RssIndex(disk.rss), disk.rss_offset);
    let new = label_replacement(config.uuid, DiskIndex(index), place, &path, &others).map_err(|e| disks_refused(&e))?;
    let (uuid, psegs) = (new.uuid.to_string(), new.psegs);
    make(config, &Request::ReplaceDisk { index, uuid, psegs })?;
    let config = rename(config, &disk.path, &path)?;
    let asked = look_for_disks(&config)?;
    let elsewhere = match asked.len() {
        2 => String::new(),
        _ => format!(
            "A controller on another server needs the same path in its {}, and `twincell disk rescan` there.\n",
            config.file.display()
        ),
    };
    let text = format!(
        "Disk {name} is {} now. It is made level by itself; `twincell disk list` shows how far it is.\n{elsewhere}",
        path.display()
    );
    Ok(Report::new(text, "replaced", name))
}

/// Tells the controllers on this machine where the disks are; those that were told.
fn look_for_disks(config: &CellConfig) -> Result<Vec<String>> {
    let paths = config.disks.clone();
    let request = Request::LookForDisks { paths };
    let mut asked = Vec::new();
    for c in Controller::BOTH {
        let client = Client::connect(&config.control(c));
        match client.and_then(|mut client| client.ask(&request, PATIENCE)) {
            Ok(Answer::Done { .. }) => asked.push(c.to_string()),
            Ok(Answer::Error(refusal)) if refusal.kind == RefusalKind::Final => return Err(refusal.failure()),
            _ => {}
        }
    }
    if asked.is_empty() {
        return Err(no_controller(config));
    }
    Ok(asked)
}

/// Asks one controller after the other, until one has done it.
fn make(config: &CellConfig, request: &Request) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut last = no_controller(config);
        for controller in Controller::BOTH {
            let client = Client::connect(&config.control(controller));
            match client.and_then(|mut c| c.ask(request, PATIENCE)) {
                Ok(Answer::Done { .. }) => return Ok(()),
                Ok(Answer::Error(refusal)) if refusal.kind == RefusalKind::Final => return Err(refusal.failure()),
                Ok(Answer::Error(refusal)) => last = refusal.failure(),
                Ok(_) | Err(NoAnswer::NotRunning) => {}
                Err(NoAnswer::Silent(why)) => {
                    last = Failure::new(
                        Code::Unreachable,
                        format!("controller {controller} does not answer: {why}"),
                    );
                }
            }
        }
        if Instant::now() > deadline {
            return Err(last);
        }
        std::thread::sleep(PAUSE);
    }
}

/// Names another path for a disk in `cell.toml`, and leaves all else there as it is. What is there then.
fn rename(config: &CellConfig, old: &Path, new: &Path) -> Result<CellConfig> {
    let mut renamed = config.clone();
    if old == new || config.disks.iter().any(|d| d == new) {
        return Ok(renamed);
    }
    for disk in renamed.disks.iter_mut().filter(|d| *d == old) {
        *disk = new.to_owned();
    }
    let io = |what: &'static str| move |e: std::io::Error| Failure::io(what, config.file.display(), &e);
    let text = std::fs::read_to_string(&config.file).map_err(io("read"))?;
    let quoted = |path: &Path| toml::Value::from(path.display().to_string()).to_string();
    let forms = [Some(old), old.strip_prefix(config.dir()).ok()];
    let form = forms
        .into_iter()
        .flatten()
        .map(quoted)
        .find(|q| text.contains(q.as_str()));
    let form = form.ok_or_else(|| {
        Failure::new(
            Code::Refused,
            format!("{} does not name {}", config.file.display(), old.display()),
        )
        .next(format!("write {} there in its place", new.display()))
    })?;
    let written = config.file.with_extension("toml.new");
    std::fs::write(&written, text.replacen(&form, &quoted(new), 1)).map_err(io("write"))?;
    std::fs::rename(&written, &config.file).map_err(io("write"))?;
    Ok(renamed)
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
