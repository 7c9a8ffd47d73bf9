//! What is wrong with a cell, what it survives next, and what its operator should do.

use crate::config::CellConfig;
use crate::control::{ControllerStatus, DiskStatus, LunStatus, RoleName};
use crate::daemon::is_paused;
use crate::disk::merged;
use crate::events::utc;
use crate::journal::{last_event, last_mode};
use crate::status::Seen;
use serde::Serialize;
use twincell_core::ids::Controller;

/// How many more may fail, of each kind and one kind at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Survives {
    /// Controllers.
    pub controllers: u32,
    /// Disks.
    pub disks: u32,
}

/// Something that is wrong, or not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// What kind of thing, in one word.
    pub kind: &'static str,
    /// What is wrong.
    pub what: String,
    /// What to do.
    pub next: String,
}

/// What is known of a cell at one moment.
pub struct Look<'a> {
    /// Its configuration.
    pub config: &'a CellConfig,
    /// What was seen of both.
    pub seen: &'a [Seen; 2],
    /// What `status` calls their states.
    pub states: [&'static str; 2],
    /// The answer of the one that knows best.
    pub best: Option<&'a ControllerStatus>,
    /// Whether that one serves hosts.
    pub serving: bool,
}

/// Whether a disk does all that it is there for.
pub fn is_good(disk: &DiskStatus) -> bool {
    disk.state == "normal" && disk.works
}

/// How many disks may fail: of each LUN a copy must be left, and of the disks that vote a majority.
pub fn disks_survived(status: &ControllerStatus) -> u32 {
    let spare_copies = |l: &LunStatus| u32::from(l.copies).saturating_sub(1);
    let copies = status.luns.iter().map(spare_copies).min().unwrap_or(u32::MAX);
    let (good, majority) = votes(status);
    good.saturating_sub(majority).min(copies)
}

/// Whether enough of the disks that vote work for anybody to take over.
pub fn can_decide(status: &ControllerStatus) -> bool {
    let (good, majority) = votes(status);
    good >= majority
}

/// How many of the disks that vote are good, and how many have to be.
fn votes(status: &ControllerStatus) -> (u32, u32) {
    let voters = status.disks.iter().filter(|d| d.quorum);
    let good = voters.clone().filter(|d| is_good(d)).count() as u32;
    (good, voters.count() as u32 / 2 + 1)
}

/// The state of a LUN.
pub fn lun_state(serving: bool, lun: &LunStatus) -> &'static str {
    match lun.copies {
        _ if !serving => "failed",
        0 => "failed",
        copies if copies < lun.copies_wanted => "degraded",
        _ => "ok",
    }
}

/// Everything that is wrong, the worst first.
pub fn problems(look: &Look) -> Vec<Problem> {
    let mut found = Vec::new();
    found.extend(look.awaited_memory());
    found.extend(look.luns("failed"));
    found.extend(look.quorum());
    found.extend(Controller::BOTH.into_iter().filter_map(|c| look.controller(c)));
    found.extend(look.link());
    found.extend(look.mirroring());
    found.extend(look.disks());
    found.extend(look.luns("degraded"));
    found
}

fn problem(kind: &'static str, what: impl Into<String>, next: impl Into<String>) -> Option<Problem> {
    Some(Problem {
        kind,
        what: what.into(),
        next: next.into(),
    })
}

fn waits_for(status: &ControllerStatus) -> &str {
    status.waits_for.as_deref().unwrap_or("for nothing")
}

impl Look<'_> {
    fn command(&self, verb: &str) -> String {
        format!("`twincell {verb} --config {}`", self.config.file.display())
    }

    fn start(&self) -> String {
        self.command("cell start")
    }

    /// `ALONE(c, dirty)` without c, or `BOTH` without either image: nothing is served.
    fn awaited_memory(&self) -> Option<Problem> {
        let waiting = self.seen.iter().filter_map(Seen::status).find(|s| s.awaits_operator)?;
        let named = |c: &Controller| waiting.awaited_memory == Some(c.to_string());
        let missing = Controller::BOTH.into_iter().find(named)?;
        let was = last_mode(self.config, missing).and_then(|mode| mode.in_words(missing));
        let was = was.map_or_else(String::new, |was| format!(" By its own word {was}."));
        let accept = format!("`twincell controller accept-loss {missing}` says what is lost, and asks.");
        if waiting.controller == missing.to_string() {
            let what = format!(
                "Nothing is served: data that the disks lack were in the memory of controller {missing}, which has lost it.{was}"
            );
            return problem("awaits_operator", what, format!("Go on without them: {accept}"));
        }
        problem(
            "awaits_operator",
            format!(
                "Nothing is served: data that the disks lack may be in the memory of controller {missing}, which shows no sign of life.{was}"
            ),
            format!(
                "Start {missing} on the machine that it ran on, before that machine is booted again ({}). \
                 Only if its memory is gone for good: {accept}",
                self.start()
            ),
        )
    }

    fn controller(&self, c: Controller) -> Option<Problem> {
        let log = self.config.log(c).display().to_string();
        match &self.seen[c.index()] {
            Seen::Stopped => self.stopped(c),
            Seen::Silent { pid: Some(pid), .. } if is_paused(*pid) => problem(
                "controller_paused",
                format!("Controller {c} (process {pid}) is paused: somebody sent it a SIGSTOP."),
                format!("`kill -CONT {pid}` lets it go on; it joins again by itself."),
            ),
            Seen::Silent { pid, why } => {
                let process = pid.map_or_else(String::new, |p| format!(" (process {p})"));
                problem(
                    "controller_silent",
                    format!("Controller {c}{process} runs but does not answer: {why}."),
                    format!(
                        "Look at {log}; if it hangs, end that process and start it again with {}.",
                        self.start()
                    ),
                )
            }
            Seen::Elsewhere if self.states[c.index()] == "unreachable" => problem(
                "controller_unreachable",
                format!("Controller {c} is not on this machine, and the link to it does not work."),
                "Look at it on its own machine with `twincell status`; check the network between the two.",
            ),
            Seen::Elsewhere if self.states[c.index()] == "joining" => problem(
                "controller_joining",
                format!("Controller {c} joins: its partner brings it level."),
                "Nothing; it is in as soon as older data are on the disks.",
            ),
            Seen::Elsewhere => None,
            Seen::Opening { .. } => problem(
                "controller_opening",
                format!("Controller {c} opens its disks and its memory, and does not answer yet."),
                format!("Wait; if it stays so, {log} says why."),
            ),
            Seen::Answered { status, .. } => self.answered(c, status, &log),
        }
    }

    fn stopped(&self, c: Controller) -> Option<Problem> {
        let Some(last) = last_event(self.config, c, |_| true).filter(|e| e.kind != "ended") else {
            return problem(
                "controller_stopped",
                format!("Controller {c} is stopped."),
                format!("{} starts it.", self.start()),
            );
        };
        let fenced = last_event(self.config, c.other(), |e| e.kind == "fenced").filter(|f| f.time_ms >= last.time_ms);
        let how = match fenced {
            Some(f) => format!(
                "its partner could not reach it any more, and made sure of its end at {}",
                utc(f.time_ms)
            ),
            None => "nobody has asked it to end".to_owned(),
        };
        let (when, told, log) = (utc(last.time_ms), last.event, self.config.log(c));
        problem(
            "controller_ended",
            format!("Controller {c} does not run: {how}. The last that it told was at {when}: {told}."),
            format!("{} starts it; {} may say why it ended.", self.start(), log.display()),
        )
    }

    fn answered(&self, c: Controller, status: &ControllerStatus, log: &str) -> Option<Problem> {
        match status.role {
            RoleName::Serving if status.serving_hosts => None,
            RoleName::Serving => problem(
                "controller_starting",
                format!("Controller {c} is in, and its host ports are not open."),
                format!("Wait; if it stays so, {log} says why."),
            ),
            RoleName::Deciding => problem(
                "controller_deciding",
                format!(
                    "Controller {c} has lost its partner, and hosts wait: it waits {}.",
                    waits_for(status)
                ),
                format!("It goes on by itself within seconds; if not, {log} says more."),
            ),
            RoleName::Starting if status.awaits_operator => None,
            RoleName::Starting => {
                let without = match status.image_current || status.epoch.is_none() {
                    true => "",
                    false => " It has no NV memory that the record names, so it joins with an empty one.",
                };
                problem(
                    "controller_starting",
                    format!("Controller {c} is not in yet: it waits {}.{without}", waits_for(status)),
                    format!(
                        "It goes on by itself; if not, look at its partner, the link, the disks that vote, and {log}."
                    ),
                )
            }
            RoleName::Joining => problem(
                "controller_joining",
                format!("Controller {c} joins: its partner brings it level."),
                "Nothing; it is in as soon as older data are on the disks.",
            ),
            RoleName::Stopping => problem(
                "controller_stopping",
                format!(
                    "Controller {c} stops; {} buffers and {} writes are still to be finished.",
                    status.dirty_buffers, status.open_ries
                ),
                "Nothing; `twincell controller stop` waits for its end.",
            ),
        }
    }

    /// Both run and do not reach each other.
    fn link(&self) -> Option<Problem> {
        let answers: Vec<&ControllerStatus> = self.seen.iter().filter_map(Seen::status).collect();
        let down = answers.len() == 2 && answers.iter().any(|s| !s.linked && s.role != RoleName::Stopping);
        if !down {
            return None;
        }
        let addresses = |c: Controller| self.config.section(c).link.join(", ");
        problem(
            "link_down",
            "Both controllers run, and the link between them does not work.",
            format!(
                "Check the network between {} (A) and {} (B), and both logs.",
                addresses(Controller::A),
                addresses(Controller::B)
            ),
        )
    }

    fn mirroring(&self) -> Option<Problem> {
        let status = self.best.filter(|s| self.serving && s.members.len() == 1)?;
        let only = &status.members[0];
        let left = match status.dirty_buffers {
            0 => String::new(),
            n => format!(" {n} buffers of older data are still to be written."),
        };
        problem(
            "write_through",
            format!(
                "Controller {only} serves alone: each write is on the disks before it is acknowledged, which is slower.{left}"
            ),
            "Nothing; writes are mirrored again as soon as both controllers are in.",
        )
    }

    /// Disks that vote and do not work.
    fn quorum(&self) -> Option<Problem> {
        let status = self.best?;
        let (good, majority) = votes(status);
        let voters = status.disks.iter().filter(|d| d.quorum);
        let total = voters.clone().count();
        let bad: Vec<&str> = voters.filter(|d| !is_good(d)).map(|d| d.name.as_str()).collect();
        if bad.is_empty() {
            return None;
        }
        let names = bad.join(", ");
        let lost = bad.len();
        if good < majority {
            return problem(
                "quorum_lost",
                format!(
                    "{lost} of the {total} disks that vote do not work (disk {names}): no controller can take over, start, or change a LUN."
                ),
                "Bring one of them back before anything else.",
            );
        }
        problem(
            "quorum_degraded",
            format!(
                "{lost} of the {total} disks that vote do not work (disk {names}); {} more may fail.",
                good - majority
            ),
            "Bring them back.",
        )
    }

    fn disks(&self) -> Vec<Problem> {
        let bad = self.best.iter().flat_map(|s| &s.disks).filter(|d| !is_good(d));
        bad.filter_map(|disk| {
            let (name, path) = (&disk.name, disk.path.display());
            match disk.state.as_str() {
                "normal" => problem(
                    "disk_failing",
                    format!("Disk {name} ({path}) does not do what is asked of it: it fails, or does not answer."),
                    "Look at its cable and at the kernel's log. If it goes on, the LUNs go on without it where they have another copy.",
                ),
                "missing" => problem(
                    "disk_missing",
                    format!("Disk {name} ({path}) is missing: nothing is read from it or written to it any more."),
                    "It is used again by itself once it answers: look at its cable, its power, and the kernel's log. What it had is on other disks, once: make a backup of what matters.",
                ),
                "merging" => problem(
                    "disk_merging",
                    format!(
                        "Disk {name} ({path}) is back, and is being made level{}.",
                        merged(self.seen.iter().filter_map(Seen::status), name)
                            .map_or(String::new(), |m| format!(": {} %", m.percent()))
                    ),
                    "Nothing; it is a full copy again when that is done.",
                ),
                state => problem(
                    "disk_at_work",
                    format!("Disk {name} ({path}) is in state {state}."),
                    "Nothing; it is being worked on.",
                ),
            }
        })
        .collect()
    }

    fn luns(&self, state: &'static str) -> Option<Problem> {
        let luns = &self.best.filter(|_| self.serving)?.luns;
        let names: Vec<&str> = luns
            .iter()
            .filter(|l| lun_state(true, l) == state)
            .map(|l| l.name.as_str())
            .collect();
        let shown = match names.len() {
            0 => return None,
            1..=5 => names.join(", "),
            n => format!("{} and {} more", names[..5].join(", "), n - 5),
        };
        match state {
            "failed" => problem(
                "lun_failed",
                format!("No disk that works has some of the data of LUN {shown}: reads and writes there fail."),
                "Bring the disks back that are named below.",
            ),
            _ => problem(
                "lun_degraded",
                format!("Some of the data of LUN {shown} have only one copy left."),
                "Another disk must not fail now. Bring back the disk that is named above, or make a backup.",
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::EventLine;
    use crate::status::summarize;
    use crate::status::tests::{alter, answer, config, lun};

    const BOTH: &[&str] = &["A", "B"];

    fn kinds(seen: &[Seen; 2]) -> Vec<&'static str> {
        summarize(&config(), seen).problems.iter().map(|p| p.kind).collect()
    }

    /// Both controllers of a whole cell, changed alike.
    fn both(change: impl Fn(&mut ControllerStatus)) -> [Seen; 2] {
        ["A", "B"].map(|c| {
            let mut seen = answer(c, BOTH, vec![lun("a", "vraid1", "A")]);
            alter(&mut seen, &change);
            seen
        })
    }

    #[test]
    fn a_whole_cell_has_no_problem() {
        assert_eq!(kinds(&both(|_| {})), [""; 0]);
    }

    #[test]
    fn disks_survive_by_the_weakest_of_copies_and_quorum() {
        let survived = |luns: &[(u8, u8)], bad: Option<usize>| {
            let luns = luns.iter().map(|(wanted, left)| {
                let mut lun = lun("a", "vraid1", "A");
                (lun.copies_wanted, lun.copies) = (*wanted, *left);
                lun
            });
            let mut seen = answer("A", BOTH, luns.collect());
            alter(&mut seen, |s| bad.into_iter().for_each(|n| s.disks[n].works = false));
            disks_survived(seen.status().unwrap())
        };
        assert_eq!(survived(&[], None), 2);
        assert_eq!(survived(&[], Some(0)), 1);
        assert_eq!(survived(&[], Some(7)), 2, "disk 7 does not vote");
        assert_eq!(survived(&[(2, 2)], None), 1);
        assert_eq!(survived(&[(2, 2)], Some(0)), 1);
        assert_eq!(survived(&[(2, 1)], None), 0);
        assert_eq!(survived(&[(2, 2), (1, 1)], None), 0);
        assert_eq!(survived(&[(1, 0)], None), 0);
    }

    #[test]
    fn a_missing_disk_costs_a_copy_and_perhaps_a_vote() {
        let seen = both(|s| {
            s.disks[0].state = "missing".into();
            s.luns[0].copies = 1;
        });
        assert_eq!(kinds(&seen), ["quorum_degraded", "disk_missing", "lun_degraded"]);
        let status = summarize(&config(), &seen);
        assert_eq!((status.cell.state, status.luns[0].state), ("degraded", "degraded"));
        assert_eq!((status.cell.survives.controllers, status.cell.survives.disks), (1, 0));
    }

    #[test]
    fn a_lun_without_a_copy_has_failed_and_comes_first() {
        let seen = both(|s| {
            s.disks[7].works = false;
            s.luns[0].copies = 0;
        });
        assert_eq!(kinds(&seen), ["lun_failed", "disk_failing"]);
        assert_eq!(summarize(&config(), &seen).luns[0].state, "failed");
    }

    #[test]
    fn a_lost_majority_is_told_as_what_it_means() {
        let seen = both(|s| s.disks[..3].iter_mut().for_each(|d| d.works = false));
        let status = summarize(&config(), &seen);
        assert!(kinds(&seen).contains(&"quorum_lost"), "{:?}", kinds(&seen));
        assert_eq!((status.cell.survives.controllers, status.cell.survives.disks), (0, 0));
    }

    #[test]
    fn a_link_that_is_down_between_two_that_run_is_told() {
        let mut seen = [answer("A", &["A"], vec![]), answer("B", &["A"], vec![])];
        alter(&mut seen[1], |s| {
            (s.role, s.serving_hosts) = (RoleName::Starting, false);
            s.waits_for = Some("for its partner".into());
            s.image_current = false;
        });
        assert_eq!(kinds(&seen), ["controller_starting", "link_down", "write_through"]);
        let problems = summarize(&config(), &seen).problems;
        assert!(
            problems[0].what.contains("waits for its partner") && problems[0].what.contains("no NV memory"),
            "{problems:?}"
        );
        assert!(problems[1].next.contains("127.0.0.1:7000"), "{problems:?}");
    }

    #[test]
    fn a_controller_that_decides_makes_hosts_wait() {
        let mut seen = [Seen::Stopped, answer("B", BOTH, vec![])];
        alter(&mut seen[1], |s| s.role = RoleName::Deciding);
        assert!(kinds(&seen).contains(&"controller_deciding"));
    }

    #[test]
    fn one_that_ended_unasked_is_told_apart_from_one_that_was_stopped() {
        let dir = tempfile::tempdir().unwrap();
        let mut config = config();
        config.file = dir.path().join("cell.toml");
        std::fs::create_dir(dir.path().join("A")).unwrap();
        let mut journal = crate::journal::Journal::open(&dir.path().join("A")).unwrap();
        let mut tell = |kind: &str| {
            let event = EventLine {
                time_ms: 0,
                controller: "A".into(),
                kind: kind.into(),
                event: format!("is {kind}"),
                since_noticed_ms: None,
                takeover: None,
            };
            journal.append(&event).unwrap();
            let seen = [Seen::Stopped, answer("B", &["B"], vec![])];
            summarize(&config, &seen).problems.remove(0)
        };
        let ended = tell("mirrored");
        assert_eq!(ended.kind, "controller_ended");
        assert!(
            ended.what.contains("1970-01-01T00:00:00.000Z: is mirrored"),
            "{ended:?}"
        );
        assert!(ended.what.contains("nobody has asked"), "{ended:?}");
        assert_eq!(tell("ended").kind, "controller_stopped");
    }
}
