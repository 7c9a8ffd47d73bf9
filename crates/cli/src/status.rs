//! `twincell status`: what the cell is doing, what it survives, and what to do next.

use crate::config::CellConfig;
use crate::control::{Answer, Client, ControllerStatus, LunStatus, NoAnswer, Request, RoleName};
use crate::exit::{Code, Failure};
use crate::health::{Look, Problem, Survives, can_decide, disks_survived, is_good, lun_state, problems};
use crate::lock::{Holder, holder};
use crate::output::{Report, table};
use crate::size::Size;
use serde::Serialize;
use std::fmt::Write;
use std::path::Path;
use std::time::Duration;
use twincell_core::ids::Controller;

/// How long a controller may take to answer: `status` promises 2 s, and the engine answers within 1.5 s or never.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(1700);

/// What was seen of a controller.
#[derive(Clone, Debug)]
pub enum Seen {
    /// It answered.
    Answered {
        /// What.
        status: Box<ControllerStatus>,
        /// Its process.
        pid: Option<u32>,
    },
    /// It runs and does not answer.
    Silent {
        /// Its process.
        pid: Option<u32>,
        /// Why not.
        why: String,
    },
    /// It runs and does not listen yet.
    Opening {
        /// Its process.
        pid: Option<u32>,
    },
    /// It does not run.
    Stopped,
    /// It is on another machine.
    Elsewhere,
}

impl Seen {
    /// Its answer, if it gave one.
    pub fn status(&self) -> Option<&ControllerStatus> {
        match self {
            Seen::Answered { status, .. } => Some(status),
            _ => None,
        }
    }

    /// Its process, if it has one that can be seen.
    pub fn pid(&self) -> Option<u32> {
        match self {
            Seen::Answered { pid, .. } | Seen::Silent { pid, .. } | Seen::Opening { pid } => *pid,
            Seen::Stopped | Seen::Elsewhere => None,
        }
    }

    /// Whether it serves hosts, by its own word.
    pub fn serves(&self) -> bool {
        self.status()
            .is_some_and(|s| s.serving_hosts && matches!(s.role, RoleName::Serving | RoleName::Deciding))
    }
}

/// Looks at one controller.
pub fn look(config: &CellConfig, controller: Controller) -> Seen {
    let dir = config.controller_dir(controller);
    let mut client = match Client::connect(&config.control(controller)) {
        Ok(client) => client,
        Err(why) => return without_connection(&dir, holder(&dir), why),
    };
    let pid = client.pid;
    match client.ask(&Request::Status, ANSWER_TIMEOUT) {
        Ok(Answer::Status(status)) => Seen::Answered { status, pid },
        Ok(Answer::Error(refusal)) => Seen::Silent { pid, why: refusal.what },
        Ok(other) => Seen::Silent {
            pid,
            why: format!("its answer is to another question: {other:?}"),
        },
        Err(NoAnswer::Silent(why)) => Seen::Silent { pid, why },
        Err(NoAnswer::NotRunning) => Seen::Stopped,
    }
}

/// What a controller does that cannot be connected to. The lock says whether there is one at all.
fn without_connection(dir: &Path, holder: Holder, why: NoAnswer) -> Seen {
    match (holder, why) {
        (Holder::Nobody, _) => Seen::Stopped,
        (Holder::Process(pid), NoAnswer::NotRunning) => Seen::Opening { pid },
        (Holder::Process(pid), NoAnswer::Silent(why)) => Seen::Silent { pid, why },
        // The lock cannot be looked at either: another user's, for one.
        (Holder::Never, NoAnswer::Silent(why)) => Seen::Silent { pid: None, why },
        (Holder::Never, NoAnswer::NotRunning) if dir.exists() => Seen::Stopped,
        (Holder::Never, NoAnswer::NotRunning) => Seen::Elsewhere,
    }
}

/// Looks at both controllers at the same time.
pub fn look_at_both(config: &CellConfig) -> [Seen; 2] {
    let mut seen = std::thread::scope(|scope| {
        let b = scope.spawn(|| look(config, Controller::B));
        let a = look(config, Controller::A);
        [a, b.join().expect("looking does not panic")]
    });
    agree_on_disks(&mut seen);
    seen
}

/// A disk works if it does so for each controller that serves: one may have had nothing to ask of it.
fn agree_on_disks(seen: &mut [Seen; 2]) {
    if !seen.iter().all(Seen::serves) {
        return;
    }
    let [Seen::Answered { status: a, .. }, Seen::Answered { status: b, .. }] = seen else {
        return;
    };
    for (a, b) in a.disks.iter_mut().zip(&mut b.disks) {
        let works = a.works && b.works;
        (a.works, b.works) = (works, works);
    }
}

/// The state of a cell, as scripts see it.
#[derive(Clone, Debug, Serialize)]
pub struct CellStatus {
    /// The cell.
    pub cell: CellLine,
    /// Both controllers.
    pub controllers: Vec<ControllerLine>,
    /// The LUNs, in order of their number.
    pub luns: Vec<LunLine>,
    /// What is wrong, the worst first.
    pub problems: Vec<Problem>,
}

/// The cell.
#[derive(Clone, Debug, Serialize)]
pub struct CellLine {
    /// Its name.
    pub name: String,
    /// `ok`, `degraded` or `failed`.
    pub state: &'static str,
    /// `on`, `off` or `joining`.
    pub mirroring: &'static str,
    /// The epoch of the membership record; `None` while nobody has read it.
    pub epoch: Option<u64>,
    /// How many more failures it survives.
    pub survives: Survives,
    /// NV buffers with data that the disks may lack, as the controller tells it that has more.
    pub dirty_buffers: u32,
    /// Writes in progress.
    pub open_writes: u32,
}

/// A controller.
#[derive(Clone, Debug, Serialize)]
pub struct ControllerLine {
    /// `A` or `B`.
    pub name: String,
    /// Its process; `None` where it does not run here.
    pub pid: Option<u32>,
    /// `serving`, `joining`, `stopped` or `unreachable`.
    pub state: &'static str,
    /// `HOST:PORT` each.
    pub iscsi_portals: Vec<String>,
    /// `HOST:PORT` each.
    pub nbd_portals: Vec<String>,
}

/// A LUN.
#[derive(Clone, Debug, Serialize)]
pub struct LunLine {
    /// Its name.
    pub name: String,
    /// The target that presents it.
    pub iqn: String,
    /// Its logical unit number.
    pub lun: u16,
    /// Its size.
    pub size_bytes: u64,
    /// Its redundancy.
    pub redundancy: String,
    /// `A` or `B`.
    pub owner: String,
    /// `ok`, `degraded` or `failed`.
    pub state: &'static str,
    /// Where to find it; the owner's first.
    pub iscsi_urls: Vec<String>,
    /// Where to find it; the owner's first.
    pub nbd_urls: Vec<String>,
    /// Its identity.
    pub uuid: String,
}

/// Puts together what both controllers say.
pub fn summarize(config: &CellConfig, seen: &[Seen; 2]) -> CellStatus {
    let best = seen
        .iter()
        .filter(|s| s.status().is_some())
        .max_by_key(|s| (s.serves(), s.status().map(|s| s.epoch)));
    let status = best.and_then(Seen::status);
    let serving = best.is_some_and(Seen::serves);
    let states = Controller::BOTH.map(|c| controller_state(&seen[c.index()], c, status.filter(|_| serving)));
    let disks_are_good = status.is_some_and(|s| s.disks.iter().all(is_good));
    let mirrored = serving && status.is_some_and(|s| s.members.len() == 2);
    let mirroring = match status.filter(|_| serving) {
        Some(s) if s.members.len() == 2 => "on",
        Some(s) if s.joining => "joining",
        _ => "off",
    };
    let state = match serving {
        false => "failed",
        true if mirrored && disks_are_good && states == ["serving"; 2] => "ok",
        true => "degraded",
    };
    let line = |c: Controller| ControllerLine {
        name: c.to_string(),
        pid: seen[c.index()].pid(),
        state: states[c.index()],
        iscsi_portals: config.section(c).iscsi.clone(),
        nbd_portals: config.section(c).nbd.clone(),
    };
    let luns = status.map_or(&[][..], |s| &s.luns);
    let look = Look {
        config,
        seen,
        states,
        best: status,
        serving,
    };
    CellStatus {
        cell: CellLine {
            name: config.name.clone(),
            state,
            mirroring,
            epoch: status.and_then(|s| s.epoch),
            survives: Survives {
                controllers: u32::from(mirrored && states == ["serving"; 2] && status.is_some_and(can_decide)),
                disks: status.filter(|_| serving).map_or(0, disks_survived),
            },
            dirty_buffers: most(seen, |s| s.dirty_buffers),
            open_writes: most(seen, |s| s.open_ries),
        },
        controllers: Controller::BOTH.map(line).to_vec(),
        luns: luns
            .iter()
            .map(|l| lun_line(config, l, lun_state(serving, l)))
            .collect(),
        problems: problems(&look),
    }
}

/// The larger of what both controllers say.
fn most(seen: &[Seen; 2], of: impl Fn(&ControllerStatus) -> u32) -> u32 {
    seen.iter().filter_map(Seen::status).map(of).max().unwrap_or(0)
}

/// The state of a controller: by its own word; failing that, by the word of the one that serves.
fn controller_state(seen: &Seen, controller: Controller, serving: Option<&ControllerStatus>) -> &'static str {
    match seen {
        Seen::Answered { status, .. } => match status.role {
            RoleName::Serving | RoleName::Deciding if status.serving_hosts => "serving",
            RoleName::Stopping => "stopped",
            _ => "joining",
        },
        Seen::Opening { .. } => "joining",
        Seen::Silent { .. } => "unreachable",
        Seen::Stopped => "stopped",
        Seen::Elsewhere => match serving {
            Some(s) if s.linked && s.members.contains(&controller.to_string()) => "serving",
            Some(s) if s.linked && s.joining => "joining",
            _ => "unreachable",
        },
    }
}

/// A LUN with its addresses.
pub fn lun_line(config: &CellConfig, lun: &LunStatus, state: &'static str) -> LunLine {
    let mut order = Controller::BOTH;
    if lun.owner == "B" {
        order.reverse();
    }
    let iscsi = order.iter().flat_map(|c| &config.section(*c).iscsi);
    let nbd = order.iter().flat_map(|c| &config.section(*c).nbd);
    LunLine {
        name: lun.name.clone(),
        iqn: config.target.clone(),
        lun: lun.lun,
        size_bytes: lun.size_bytes,
        redundancy: lun.redundancy.clone(),
        owner: lun.owner.clone(),
        state,
        iscsi_urls: iscsi
            .map(|p| format!("iscsi://{p}/{}/{}", config.target, lun.lun))
            .collect(),
        nbd_urls: nbd.map(|p| format!("nbd://{p}/{}", lun.name)).collect(),
        uuid: lun.uuid.clone(),
    }
}

/// The command.
pub fn run(config: &CellConfig) -> Report {
    let seen = look_at_both(config);
    let summary = summarize(config, &seen);
    let mut report = Report::of(text(&summary), &summary);
    if !seen.iter().any(|s| s.status().is_some()) {
        let what = format!("no controller of cell {} answers", config.name);
        let next = format!("`twincell cell start --config {}` starts them", config.file.display());
        report.failure = Some(Failure::new(Code::Unreachable, what).next(next));
    }
    report
}

fn text(status: &CellStatus) -> String {
    let cell = &status.cell;
    let mut text = String::new();
    let epoch = cell.epoch.map_or_else(String::new, |e| format!(", epoch {e}"));
    let _ = writeln!(
        text,
        "Cell {}: {}. Mirroring is {}{epoch}.",
        cell.name, cell.state, cell.mirroring
    );
    let count = |n: u32, what: &str| match n {
        0 => format!("no more {what}"),
        1 => format!("one more {what}"),
        n => format!("{n} more {what}s"),
    };
    let Survives { controllers, disks } = cell.survives;
    let _ = match cell.state {
        "failed" => writeln!(text, "No controller serves hosts."),
        _ => writeln!(
            text,
            "It survives the failure of {}, and of {}.",
            count(controllers, "controller"),
            count(disks, "disk")
        ),
    };
    if status.problems.is_empty() {
        text.push_str("Nothing is to be done.\n");
    }
    for Problem { what, next, .. } in &status.problems {
        let _ = write!(text, "\n{what}\n  {next}\n");
    }
    text.push('\n');
    text.push_str(&controller_table(&status.controllers));
    if !status.luns.is_empty() {
        text.push('\n');
        text.push_str(&lun_table(&status.luns));
    }
    text
}

/// The controllers as a table.
pub fn controller_table(controllers: &[ControllerLine]) -> String {
    let row = |c: &ControllerLine| {
        let pid = c.pid.map_or_else(|| "-".to_owned(), |p| p.to_string());
        [
            c.name.clone(),
            c.state.to_owned(),
            pid,
            c.iscsi_portals.join(","),
            c.nbd_portals.join(","),
        ]
    };
    let rows: Vec<_> = controllers.iter().map(row).collect();
    table(["CONTROLLER", "STATE", "PID", "ISCSI", "NBD"], &rows)
}

/// The LUNs as a table.
pub fn lun_table(luns: &[LunLine]) -> String {
    let row = |l: &LunLine| {
        let size = Size(l.size_bytes).to_string();
        [
            l.name.clone(),
            l.lun.to_string(),
            size,
            l.redundancy.clone(),
            l.owner.clone(),
            l.state.to_owned(),
        ]
    };
    table(
        ["LUN", "NUMBER", "SIZE", "REDUNDANCY", "OWNER", "STATE"],
        &luns.iter().map(row).collect::<Vec<_>>(),
    )
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::config::Section;
    use crate::control::DiskStatus;
    use std::path::PathBuf;
    use twincell_core::ids::Uuid;

    pub(crate) fn config() -> CellConfig {
        let section = |n: u16| Section {
            link: vec![format!("127.0.0.1:{}", 7000 + n)],
            iscsi: vec![format!("127.0.0.1:{}", 3260 + n)],
            nbd: vec![format!("127.0.0.1:{}", 10809 + n)],
            control: None,
            nv_memory: None,
        };
        let controllers = [section(0), section(1)];
        CellConfig::new(
            "/c/cell.toml".into(),
            "c".into(),
            Uuid(1),
            Size(64 << 20),
            vec!["/c/0".into()],
            controllers,
        )
        .unwrap()
    }

    pub(crate) fn lun(name: &str, redundancy: &str, owner: &str) -> LunStatus {
        LunStatus {
            name: name.into(),
            lun: 3,
            uuid: Uuid(9).to_string(),
            size_bytes: 1 << 30,
            redundancy: redundancy.into(),
            owner: owner.into(),
            moving: false,
            copies_wanted: if redundancy == "vraid1" { 2 } else { 1 },
            copies: if redundancy == "vraid1" { 2 } else { 1 },
        }
    }

    pub(crate) fn answer(controller: &str, members: &[&str], luns: Vec<LunStatus>) -> Seen {
        let disk = |n: usize| DiskStatus {
            name: n.to_string(),
            path: PathBuf::from(format!("/c/{n}")),
            size_bytes: 1 << 30,
            state: "normal".into(),
            works: true,
            quorum: n < 5,
            rss: 0,
            rss_offset: n as u8,
            merged: None,
        };
        let status = ControllerStatus {
            controller: controller.into(),
            role: RoleName::Serving,
            serving_hosts: true,
            epoch: Some(4),
            members: members.iter().map(|m| m.to_string()).collect(),
            linked: members.len() == 2,
            joining: false,
            awaits_operator: false,
            awaited_memory: None,
            waits_for: None,
            partner_silent_ms: None,
            image_current: true,
            dirty_buffers: 0,
            open_ries: 0,
            luns,
            disks: (0..8).map(disk).collect(),
        };
        Seen::Answered {
            status: Box::new(status),
            pid: Some(77),
        }
    }

    pub(crate) fn alter(seen: &mut Seen, change: impl FnOnce(&mut ControllerStatus)) {
        let Seen::Answered { status, .. } = seen else {
            panic!("not answered")
        };
        change(status);
    }

    #[test]
    fn a_controller_that_nobody_is_does_not_run() {
        let dir = tempfile::tempdir().unwrap();
        let text = config().to_text();
        let config = CellConfig::parse(dir.path().join("cell.toml"), &text).unwrap();
        assert!(matches!(look(&config, Controller::A), Seen::Elsewhere));
        let own = dir.path().join("A");
        std::fs::write(&own, "a plain file").unwrap();
        assert!(matches!(look(&config, Controller::A), Seen::Stopped));
        std::fs::remove_file(&own).unwrap();
        std::fs::create_dir(&own).unwrap();
        assert!(matches!(look(&config, Controller::A), Seen::Stopped));
        // Nobody holds the lock, whatever stands in the socket's place.
        std::fs::write(own.join("lock"), "").unwrap();
        std::os::unix::fs::symlink("control.sock", own.join("control.sock")).unwrap();
        assert!(matches!(look(&config, Controller::A), Seen::Stopped));
        // The lock cannot be looked at: then it is not known.
        std::fs::remove_file(own.join("lock")).unwrap();
        assert!(matches!(look(&config, Controller::A), Seen::Silent { .. }));
    }

    #[test]
    fn a_disk_that_fails_for_one_controller_does_not_work() {
        let mut seen = ["A", "B"].map(|c| answer(c, &["A", "B"], Vec::new()));
        alter(&mut seen[1], |s| s.disks[6].works = false);
        agree_on_disks(&mut seen);
        let status = summarize(&config(), &seen);
        let fails = |p: &Problem| p.kind == "disk_failing";
        assert!(status.problems.iter().any(fails), "{:?}", status.problems);
    }

    #[test]
    fn a_whole_cell_is_ok_and_survives_one_of_each() {
        let luns = vec![lun("a", "vraid1", "B")];
        let both = &["A", "B"];
        let seen = [answer("A", both, luns.clone()), answer("B", both, luns)];
        let status = summarize(&config(), &seen);
        assert_eq!(
            (status.cell.state, status.cell.mirroring, status.cell.epoch),
            ("ok", "on", Some(4))
        );
        assert_eq!(
            status.cell.survives,
            Survives {
                controllers: 1,
                disks: 1
            }
        );
        assert!(status.problems.is_empty(), "{:?}", status.problems);
        let line = &status.luns[0];
        assert_eq!(line.iscsi_urls[0], "iscsi://127.0.0.1:3261/iqn.2026-11.io.twincell:c/3");
        assert_eq!(line.nbd_urls, ["nbd://127.0.0.1:10810/a", "nbd://127.0.0.1:10809/a"]);
        assert_eq!(line.state, "ok");
    }

    #[test]
    fn alone_it_is_degraded_and_says_what_to_do() {
        let seen = [Seen::Stopped, answer("B", &["B"], vec![])];
        let status = summarize(&config(), &seen);
        assert_eq!((status.cell.state, status.cell.mirroring), ("degraded", "off"));
        assert_eq!(
            status.cell.survives,
            Survives {
                controllers: 0,
                disks: 2
            }
        );
        assert_eq!(
            (status.controllers[0].state, status.controllers[0].pid),
            ("stopped", None)
        );
        assert_eq!(
            (status.controllers[1].state, status.controllers[1].pid),
            ("serving", Some(77))
        );
        let text = text(&status);
        assert!(
            text.contains("Controller A is stopped.") && text.contains("twincell cell start"),
            "{text}"
        );
        let kinds: Vec<&str> = status.problems.iter().map(|p| p.kind).collect();
        assert_eq!(kinds, ["controller_stopped", "write_through"]);
    }

    #[test]
    fn a_killed_partner_that_is_still_in_the_record_is_not_survived_twice() {
        let seen = [Seen::Stopped, answer("B", &["A", "B"], vec![])];
        let status = summarize(&config(), &seen);
        assert_eq!((status.cell.state, status.cell.survives.controllers), ("degraded", 0));
    }

    #[test]
    fn while_a_controller_joins_mirroring_is_joining() {
        let mut seen = [answer("A", &["A"], vec![]), answer("B", &["A"], vec![])];
        alter(&mut seen[0], |s| s.joining = true);
        alter(&mut seen[1], |s| (s.role, s.serving_hosts) = (RoleName::Joining, false));
        let status = summarize(&config(), &seen);
        assert_eq!((status.cell.state, status.cell.mirroring), ("degraded", "joining"));
        assert_eq!(status.controllers[1].state, "joining");
    }

    #[test]
    fn nobody_serving_is_failed() {
        let mut seen = [answer("A", &["B"], vec![lun("a", "none", "A")]), Seen::Stopped];
        alter(&mut seen[0], |s| {
            (s.role, s.serving_hosts, s.awaits_operator) = (RoleName::Starting, false, true);
            s.awaited_memory = Some("B".to_owned());
        });
        let status = summarize(&config(), &seen);
        assert_eq!((status.cell.state, status.cell.mirroring), ("failed", "off"));
        assert_eq!(status.luns[0].state, "failed");
        let text = text(&status);
        assert!(
            text.contains("memory of controller B") && text.contains("accept-loss B"),
            "{text}"
        );
    }

    #[test]
    fn a_partner_on_another_machine_is_known_by_the_link() {
        let of = |members: &[&str]| summarize(&config(), &[answer("A", members, vec![]), Seen::Elsewhere]);
        assert_eq!(
            (of(&["A", "B"]).cell.state, of(&["A", "B"]).controllers[1].state),
            ("ok", "serving")
        );
        assert_eq!(
            (of(&["A"]).cell.state, of(&["A"]).controllers[1].state),
            ("degraded", "unreachable")
        );
    }
}
