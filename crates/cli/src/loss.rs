//! `twincell controller accept-loss`: going on without the memory of a controller that does not come back (R8).

use crate::config::CellConfig;
use crate::confirm::confirm;
use crate::control::{Answer, Client, ControllerStatus, NoAnswer, Request, RoleName};
use crate::daemon::{START_TIMEOUT, lacks};
use crate::events::utc;
use crate::exit::{Code, Failure, Result};
use crate::journal::{last_event, last_mode};
use crate::output::Report;
use crate::size::Size;
use crate::status::{Seen, look, look_at_both, summarize};
use serde::Serialize;
use std::fmt::Write;
use std::time::{Duration, Instant};
use twincell_core::ids::Controller;

/// How long the one that is to go on may take to find that nobody else is alive.
const PATIENCE: Duration = Duration::from_secs(10);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(100);

/// What is lost if the memory of a controller is given up, as far as anybody can know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Loss {
    /// Whose memory.
    missing: String,
    /// Who goes on.
    survivor: String,
    /// The epoch of the membership record.
    epoch: Option<u64>,
    /// Who is in, as the record says.
    members: Vec<String>,
    /// Since when, by the word of the missing one: milliseconds since 1970, UTC. `None` where it told nothing here.
    since_ms: Option<u64>,
    /// When the missing one told something last: milliseconds since 1970, UTC.
    last_told_ms: Option<u64>,
    /// What it told.
    last_told: Option<String>,
    /// For how many milliseconds the survivor has seen no sign of life of it.
    silent_ms: Option<u64>,
    /// No more bytes than this can be lost.
    bytes_max: u64,
    /// The LUNs that they can be of.
    luns: Vec<String>,
}

impl Loss {
    fn new(config: &CellConfig, missing: Controller, survivor: Controller, waiting: &ControllerStatus) -> Loss {
        let alone = waiting.members.first().filter(|_| waiting.members.len() == 1);
        let mode = last_mode(config, missing).filter(|m| m.alone.as_ref() == alone);
        let last = last_event(config, missing, |_| true);
        Loss {
            missing: missing.to_string(),
            survivor: survivor.to_string(),
            epoch: waiting.epoch,
            members: waiting.members.clone(),
            since_ms: mode.map(|m| m.since_ms),
            last_told_ms: last.as_ref().map(|e| e.time_ms),
            last_told: last.map(|e| e.event),
            silent_ms: waiting.partner_silent_ms.filter(|_| survivor != missing),
            bytes_max: config.cache.0,
            luns: waiting.luns.iter().map(|l| l.name.clone()).collect(),
        }
    }

    fn was_alone(&self) -> bool {
        self.members.len() == 1
    }

    fn text(&self) -> String {
        let Loss { missing, survivor, .. } = self;
        let size = Size(self.bytes_max);
        let mut text = String::new();
        let _ = match self.was_alone() {
            true => writeln!(
                text,
                "The record says that {missing} was in alone, with data in its memory that the disks lack.\n\
                 What it acknowledged while it was alone is on the disks. Lost is what hosts had written before that, without\n\
                 flushing it, and {missing} had not brought to the disks yet: at most {size}, the size of its cache. A write that was\n\
                 under way at its end, and was never acknowledged, may be on the disks in part."
            ),
            false => writeln!(
                text,
                "The record says that both were in, and {survivor} has lost its own memory.\n\
                 Lost is what hosts had written without flushing it, and was not on the disks yet: at most {size}, the size of\n\
                 its cache, acknowledged writes among it."
            ),
        };
        if let Some(since) = self.since_ms {
            let _ = writeln!(text, "It was so since {}, by the word of {missing}.", utc(since));
        }
        let _ = match (&self.last_told, self.last_told_ms) {
            (Some(told), Some(at)) => writeln!(text, "The last that {missing} told was at {}: {told}.", utc(at)),
            _ => writeln!(
                text,
                "{missing} has told nothing on this machine: when it was alive last is not known here."
            ),
        };
        if let Some(ms) = self.silent_ms {
            let _ = writeln!(
                text,
                "{survivor} has seen no sign of life of it for {} s, on the link or on the disks.",
                ms / 1000
            );
        }
        let _ = match &self.luns[..] {
            [] => writeln!(text, "There are no LUNs."),
            luns => writeln!(text, "LUNs that may be affected: {}.", luns.join(", ")),
        };
        text
    }
}

/// The command.
pub fn accept(config: &CellConfig, missing: Controller, yes: bool) -> Result<Report> {
    let (survivor, waiting) = await_call(config, missing)?;
    let loss = Loss::new(config, missing, survivor, &waiting);
    let told = loss.text();
    let instead = if survivor == missing {
        format!("{missing} runs, and its memory is empty: what was in it is not there any more.")
    } else {
        format!(
            "If {missing} can still be started where it ran, and that machine was not booted since, nothing is lost: do that instead."
        )
    };
    let lost = format!("{told}{instead}");
    confirm(
        &missing.to_string(),
        yes,
        &format!("the memory of {missing} is not given up"),
        &lost,
    )?;
    ask(config, missing, survivor)?;
    let deadline = Instant::now() + START_TIMEOUT;
    while let Some(what) = lacks(config, survivor) {
        if Instant::now() > deadline {
            let what = format!("the loss is accepted, and controller {survivor} does not serve yet: {what}");
            return Err(Failure::new(Code::TimedOut, what).next("`twincell status` says what it waits for"));
        }
        std::thread::sleep(PAUSE);
    }
    let back = if survivor == missing {
        String::new()
    } else {
        format!(" {missing} may come back with an empty memory.")
    };
    let text = format!(
        "{told}That is accepted: controller {survivor} goes on without it, and serves.\n\
         Check what is on the LUNs (a file system check, a database's own).{back}\n"
    );
    let mut report = Report::new(text, "loss", &loss);
    let status = summarize(config, &look_at_both(config));
    report
        .fields
        .insert("cell".to_owned(), serde_json::json!({ "state": status.cell.state }));
    Ok(report)
}

/// The one that goes on, and its status, once it has called for an operator: the partner of the one whose memory is missing, or
/// that one itself, with an empty memory.
fn await_call(config: &CellConfig, missing: Controller) -> Result<(Controller, ControllerStatus)> {
    let survivor = missing.other();
    let deadline = Instant::now() + PATIENCE;
    let conflict = |what: String| Err(Failure::new(Code::Conflict, what).next("`twincell status` shows its state"));
    loop {
        let seen = look(config, survivor);
        let own = look(config, missing);
        for (controller, seen) in [(survivor, &seen), (missing, &own)] {
            let waits = |s: &&ControllerStatus| s.awaited_memory == Some(missing.to_string());
            if let Some(status) = seen.status().filter(waits) {
                return Ok((controller, status.clone()));
            }
        }
        let Some(status) = seen.status() else {
            let what = format!("controller {survivor}, which is to go on without {missing}, does not answer");
            let next = match seen {
                Seen::Elsewhere => "ask on the machine of that controller".to_owned(),
                _ => format!("`twincell cell start --config {}` starts it", config.file.display()),
            };
            return Err(Failure::new(Code::Unreachable, what).next(next));
        };
        if status.role != RoleName::Starting {
            return conflict(format!(
                "controller {survivor} does not wait for the memory of {missing}"
            ));
        }
        if own.status().is_some_and(|s| s.image_current) || matches!(own, Seen::Opening { .. }) {
            return conflict(format!("controller {missing} runs: its memory is not lost"));
        }
        if Instant::now() > deadline {
            return conflict(format!(
                "controller {survivor} waits, but not because the memory of {missing} is missing"
            ));
        }
        std::thread::sleep(PAUSE);
    }
}

fn ask(config: &CellConfig, missing: Controller, survivor: Controller) -> Result<()> {
    let request = Request::AcceptLoss {
        missing: missing.to_string(),
    };
    let answer = Client::connect(&config.control(survivor)).and_then(|mut c| c.ask(&request, ANSWER_TIMEOUT));
    match answer {
        Ok(Answer::Done { .. }) => Ok(()),
        Ok(Answer::Error(refusal)) => Err(refusal.failure()),
        Ok(other) => Err(Failure::new(
            Code::Refused,
            format!("an answer to another question: {other:?}"),
        )),
        Err(why) => {
            let why = match why {
                NoAnswer::NotRunning => "it does not run any more".to_owned(),
                NoAnswer::Silent(why) => why,
            };
            let what = format!("controller {survivor} does not answer: {why}");
            Err(Failure::new(Code::Unreachable, what).next("`twincell status` says what became of it"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::tests::{alter, answer, config, lun};

    fn loss(members: &[&str]) -> Loss {
        let mut seen = answer("B", members, vec![lun("a", "vraid1", "A"), lun("b", "none", "A")]);
        alter(&mut seen, |s| {
            (s.awaits_operator, s.partner_silent_ms) = (true, Some(61_500))
        });
        Loss::new(&config(), Controller::A, Controller::B, seen.status().unwrap())
    }

    #[test]
    fn what_is_lost_is_told_before_it_is_given_up() {
        let alone = loss(&["A"]).text();
        for word in [
            "A was in alone",
            "at most 64M",
            "acknowledged while it was alone is on the disks",
            "no sign of life of it for 61 s",
            "a, b",
        ] {
            assert!(alone.contains(word), "{word:?} is missing in {alone}");
        }
        let both = loss(&["A", "B"]).text();
        for word in [
            "both were in",
            "B has lost its own memory",
            "acknowledged writes among it",
        ] {
            assert!(both.contains(word), "{word:?} is missing in {both}");
        }
    }
}
