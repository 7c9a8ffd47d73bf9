//! `twincell lun`.

use crate::config::{CellConfig, controller_named};
use crate::confirm::confirm;
use crate::control::{Answer, Client, ControllerStatus, LunChange, NoAnswer, RefusalKind, Request};
use crate::disk::no_controller;
use crate::exit::{Code, Failure, Result};
use crate::output::Report;
use crate::server::redundancy;
use crate::size::Size;
use crate::status::{CellStatus, LunLine, Seen, look_at_both, lun_table, summarize};
use clap::Subcommand;
use std::time::{Duration, Instant};
use twincell_core::ids::Controller;

/// How long a change may take, a takeover included.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(30);
/// How long to wait before asking again.
const PAUSE: Duration = Duration::from_millis(50);

/// What can be done with LUNs.
#[derive(Debug, Subcommand)]
pub enum LunVerb {
    /// Make a LUN; returns when both controllers serve it.
    Create {
        /// Its name.
        name: String,
        /// Its size: 64M, 1G, 2T.
        #[arg(long)]
        size: Size,
        /// none, vraid0, vraid1 or vraid5.
        #[arg(long, default_value = "vraid1")]
        redundancy: String,
    },
    /// All LUNs.
    List,
    /// One LUN, with its addresses.
    Show {
        /// Its name.
        name: String,
    },
    /// Make a LUN larger.
    Grow {
        /// Its name.
        name: String,
        /// Its new size.
        #[arg(long)]
        size: Size,
    },
    /// Give a LUN another name.
    Rename {
        /// Its name.
        name: String,
        /// Its new name.
        to: String,
    },
    /// Delete a LUN and all that is on it.
    Delete {
        /// Its name.
        name: String,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
    },
    /// Make a controller the owner of a LUN.
    Move {
        /// Its name.
        name: String,
        /// A or B.
        #[arg(long, value_parser = controller_named)]
        to: Controller,
    },
    /// Snapshots (not built yet).
    Snapshot {
        /// What would be needed.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        rest: Vec<String>,
    },
    /// Clones (not built yet).
    Clone {
        /// What would be needed.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        rest: Vec<String>,
    },
}

/// The command.
pub fn run(config: &CellConfig, verb: &LunVerb) -> Result<Report> {
    match verb {
        LunVerb::Create { name, size, redundancy } => {
            let (lun, already) = create(config, name, *size, redundancy)?;
            Ok(Report::new(created_text(&lun, already), "lun", &lun))
        }
        LunVerb::List => {
            let luns = status(config)?.luns;
            Ok(Report::new(lun_table(&luns), "luns", &luns))
        }
        LunVerb::Show { name } => {
            let lun = find(config, name)?;
            Ok(Report::new(
                lun_table(std::slice::from_ref(&lun)) + &addresses(&lun),
                "lun",
                &lun,
            ))
        }
        LunVerb::Grow { name, size } => {
            make(
                config,
                &LunChange::Grow {
                    name: name.clone(),
                    size_bytes: size.0,
                },
            )?;
            wait_until(config, &format!("the new size of LUN {name}"), |s| {
                s.luns.iter().any(|l| l.name == *name && l.size_bytes >= size.0)
            })?;
            let lun = find(config, name)?;
            Ok(Report::new(
                format!("LUN {name} has {}.\n", Size(lun.size_bytes)),
                "lun",
                &lun,
            ))
        }
        LunVerb::Rename { name, to } => {
            make(
                config,
                &LunChange::Rename {
                    name: name.clone(),
                    to: to.clone(),
                },
            )?;
            wait_until(config, &format!("LUN {to}"), |s| s.luns.iter().any(|l| l.name == *to))?;
            let lun = find(config, to)?;
            Ok(Report::new(format!("LUN {name} is called {to} now.\n"), "lun", &lun))
        }
        LunVerb::Delete { name, yes } => {
            let not_done = format!("LUN {name} is not deleted");
            confirm(
                name,
                *yes,
                &not_done,
                &format!("All that is on LUN {name} will be lost."),
            )?;
            make(config, &LunChange::Delete { name: name.clone() })?;
            wait_until(config, &format!("the end of LUN {name}"), |s| {
                s.luns.iter().all(|l| l.name != *name)
            })?;
            Ok(Report::new(format!("LUN {name} is deleted.\n"), "deleted", name))
        }
        LunVerb::Move { name, to } => {
            make(
                config,
                &LunChange::Move {
                    name: name.clone(),
                    to: to.to_string(),
                },
            )?;
            wait_until(config, &format!("controller {to} as the owner of LUN {name}"), |s| {
                s.luns
                    .iter()
                    .any(|l| l.name == *name && l.owner == to.to_string() && !l.moving)
            })?;
            let lun = find(config, name)?;
            Ok(Report::new(format!("LUN {name} is owned by {to}.\n"), "lun", &lun))
        }
        LunVerb::Snapshot { .. } => Err(Failure::not_built("a snapshot of a LUN")),
        LunVerb::Clone { .. } => Err(Failure::not_built("a clone of a LUN")),
    }
}

/// Makes a LUN, and waits until both controllers serve it. Says whether it was there already.
pub fn create(config: &CellConfig, name: &str, size: Size, kind: &str) -> Result<(LunLine, bool)> {
    redundancy(kind)?;
    let change = LunChange::Create {
        name: name.to_owned(),
        size_bytes: size.0,
        redundancy: kind.to_owned(),
    };
    let already = make(config, &change)?;
    wait_until(config, &format!("LUN {name}"), |s| {
        s.luns.iter().any(|l| l.name == *name)
    })?;
    Ok((find(config, name)?, already))
}

fn status(config: &CellConfig) -> Result<CellStatus> {
    let seen = look_at_both(config);
    if seen.iter().all(|s| s.status().is_none()) {
        return Err(no_controller(config));
    }
    Ok(summarize(config, &seen))
}

/// The LUN called `name`.
pub fn find(config: &CellConfig, name: &str) -> Result<LunLine> {
    let lun = status(config)?.luns.into_iter().find(|l| l.name == name);
    lun.ok_or_else(|| {
        Failure::new(Code::NotFound, format!("there is no LUN {name}"))
            .next("`twincell lun list` shows which there are")
    })
}

fn created_text(lun: &LunLine, already: bool) -> String {
    let what = if already {
        "exists already, just like that"
    } else {
        "is there"
    };
    let size = Size(lun.size_bytes);
    format!(
        "LUN {} {what}: {size}, {}, owned by {}.\n{}",
        lun.name,
        lun.redundancy,
        lun.owner,
        addresses(lun)
    )
}

fn addresses(lun: &LunLine) -> String {
    lun.iscsi_urls
        .iter()
        .chain(&lun.nbd_urls)
        .map(|url| format!("  {url}\n"))
        .collect()
}

/// Asks the controllers, in turn, until one has made the change. Says whether it was made already.
fn make(config: &CellConfig, change: &LunChange) -> Result<bool> {
    let deadline = Instant::now() + CHANGE_TIMEOUT;
    // Whether a request may have been carried out whose answer did not come.
    let mut uncertain = false;
    loop {
        let mut last = None;
        for controller in Controller::BOTH {
            match ask(config, controller, change, deadline) {
                Ok(Answer::Done { already }) => return Ok(already),
                Ok(Answer::Error(refusal)) => match refusal.kind {
                    RefusalKind::NotFound if uncertain && is_settled(config, change) => return Ok(false),
                    RefusalKind::NotFound | RefusalKind::Final => return Err(refusal.failure()),
                    kind => {
                        uncertain |= kind == RefusalKind::Unknown;
                        last = Some(refusal.failure());
                    }
                },
                Ok(other) => {
                    return Err(Failure::new(
                        Code::Refused,
                        format!("an answer to another question: {other:?}"),
                    ));
                }
                Err(NoAnswer::NotRunning) => {}
                Err(NoAnswer::Silent(why)) => {
                    uncertain = true;
                    let what = format!("controller {controller} does not answer: {why}");
                    last.get_or_insert(Failure::new(Code::Unreachable, what));
                }
            }
        }
        let Some(failure) = last else {
            return Err(no_controller(config));
        };
        if Instant::now() > deadline {
            return Err(failure);
        }
        std::thread::sleep(PAUSE);
    }
}

fn ask(
    config: &CellConfig,
    controller: Controller,
    change: &LunChange,
    deadline: Instant,
) -> std::result::Result<Answer, NoAnswer> {
    // A controller may take long to answer because it takes over; one that takes very long leaves time for the other.
    let most = deadline
        .saturating_duration_since(Instant::now())
        .max(Duration::from_secs(1));
    Client::connect(&config.control(controller))?.ask(&Request::Lun(change.clone()), most.min(CHANGE_TIMEOUT * 3 / 4))
}

/// Whether a change of a LUN that is not there (any more) has been made: an earlier request did it.
fn is_settled(config: &CellConfig, change: &LunChange) -> bool {
    match change {
        LunChange::Delete { .. } => true,
        LunChange::Rename { to, .. } => find(config, to).is_ok(),
        _ => false,
    }
}

/// Waits until every controller that serves sees it so.
fn wait_until(config: &CellConfig, what: &str, is_so: impl Fn(&ControllerStatus) -> bool) -> Result<()> {
    let deadline = Instant::now() + CHANGE_TIMEOUT;
    loop {
        let seen = look_at_both(config);
        let serving: Vec<_> = seen.iter().filter(|s| s.serves()).filter_map(Seen::status).collect();
        if !serving.is_empty() && serving.iter().all(|s| is_so(s)) {
            return Ok(());
        }
        if Instant::now() > deadline {
            let what = format!("{what} is decided, but not seen by every controller yet");
            return Err(
                Failure::new(Code::TimedOut, what).next("`twincell status` shows which controller does not serve")
            );
        }
        std::thread::sleep(PAUSE);
    }
}
