//! Keeps the story of a controller in its journal, in words.

use crate::config::CellConfig;
use crate::exit::{Failure, Result};
use crate::journal::{EventLine, Journal, LastMode, Takeover, ms_of};
use crate::log::log;
use crate::size::Size;
use std::path::PathBuf;
use std::thread::JoinHandle;
use std::time::SystemTime;
use twincell_core::cell::record::Mode;
use twincell_core::effect::Note;
use twincell_core::ids::{BUFFER_BYTES, Controller};
use twincell_core::layout::metadata::DiskState;
use twincell_engine::{Handle, StoryLine, Told};

/// Starts a thread that keeps what the engine tells, until the engine ends. Joining it makes sure that all is kept.
pub fn start(config: &CellConfig, controller: Controller, handle: Handle) -> Result<JoinHandle<()>> {
    let dir = config.controller_dir(controller);
    let journal = Journal::open(&dir).map_err(|e| Failure::io("open the journal in", dir.display(), &e))?;
    let mut recorder = Recorder {
        journal,
        controller,
        disks: config.disks.clone(),
        takeover: None,
    };
    let thread = std::thread::Builder::new().name("journal".to_owned());
    let thread = thread.spawn(move || {
        recorder.keep_own("started", format!("started, as process {}", std::process::id()));
        let mut from = 0;
        while let Some((lines, next)) = handle.story(from) {
            from = next;
            for line in &lines {
                recorder.keep(line);
            }
        }
        recorder.keep_own("ended", "ended, as it was asked to".to_owned());
    });
    thread.map_err(|e| Failure::io("start", "a thread", &e))
}

struct Recorder {
    journal: Journal,
    controller: Controller,
    disks: Vec<PathBuf>,
    /// The takeover under way, as far as it has come.
    takeover: Option<Takeover>,
}

impl Recorder {
    fn keep_own(&mut self, kind: &str, event: String) {
        let time = SystemTime::now();
        self.write(&EventLine {
            time_ms: ms_of(time),
            controller: self.controller.to_string(),
            kind: kind.to_owned(),
            event,
            since_noticed_ms: None,
            takeover: None,
        });
    }

    fn keep(&mut self, line: &StoryLine) {
        let takeover = self.time_takeover(line);
        if let Told::Mode { epoch, mode } = line.told {
            let (alone, dirty) = match mode {
                Mode::Both => (None, false),
                Mode::Alone { controller, dirty } => (Some(controller.to_string()), dirty),
            };
            let mode = LastMode {
                epoch: epoch.0,
                alone,
                dirty,
                since_ms: ms_of(line.time),
            };
            if let Err(e) = self.journal.keep_mode(&mode) {
                log(&format!("the state of the record was not kept: {e}"));
            }
            return;
        }
        let (kind, mut event) = self.words(&line.told);
        if let Some(t) = takeover {
            let Takeover {
                ballot_ms,
                fence_ms,
                resolve_ms,
                serve_ms,
                ..
            } = t;
            event += &format!(
                "; {serve_ms} ms after the loss of the partner was noticed \
                 (ballot {ballot_ms}, fence {fence_ms}, memory resolved {resolve_ms})"
            );
        }
        self.write(&EventLine {
            time_ms: ms_of(line.time),
            controller: self.controller.to_string(),
            kind: kind.to_owned(),
            event,
            since_noticed_ms: line.since_noticed.map(|d| d.as_millis() as u64),
            takeover,
        });
    }

    fn write(&mut self, event: &EventLine) {
        if let Err(e) = self.journal.append(event) {
            log(&format!("an event was not kept ({e}): {}", event.event));
        }
    }

    /// Notes the times of the steps of a takeover; the whole of it with the line that ends it.
    fn time_takeover(&mut self, line: &StoryLine) -> Option<Takeover> {
        let ms = line.since_noticed.map_or(0, |d| d.as_millis() as u64);
        let own = self.controller;
        match (line.told, &mut self.takeover) {
            (Told::Note(Note::PartnerUnreachable | Note::AwaitsPartner), takeover) => {
                *takeover = Some(Takeover {
                    noticed_time_ms: ms_of(line.time),
                    ..Takeover::default()
                });
            }
            (
                Told::Mode {
                    mode: Mode::Alone { controller, .. },
                    ..
                },
                Some(t),
            ) if controller == own => t.ballot_ms = ms,
            (Told::Note(Note::PartnerFenced), Some(t)) => t.fence_ms = ms,
            (Told::Note(Note::Resolved { .. }), Some(t)) => t.resolve_ms = ms,
            (Told::Note(Note::Serving { mirrored: false }), Some(t)) => {
                t.serve_ms = ms;
                return self.takeover.take();
            }
            (Told::Note(Note::Serving { .. } | Note::Out | Note::Leveled), takeover) => *takeover = None,
            _ => {}
        }
        None
    }

    /// The kind of an event, and the event in words.
    fn words(&self, told: &Told) -> (&'static str, String) {
        match told {
            Told::Note(note) => self.words_of_note(note),
            Told::LunMoved { name, to } => {
                let name = name.as_ref().map_or("that is gone by now", |n| n.as_str());
                ("lun_moved", format!("LUN {name} is owned by {to} now"))
            }
            Told::Mode { epoch, .. } => ("record", format!("the record has epoch {epoch}")),
            Told::Disk { disk, state } => {
                let (disk, path) = (disk.to_string(), self.path(disk.index()));
                match state {
                    DiskState::Normal => ("disk_normal", format!("disk {disk} ({path}) is in order")),
                    DiskState::Missing => (
                        "disk_missing",
                        format!(
                            "disk {disk} ({path}) is given up: what it had is on other disks, and it gets nothing new"
                        ),
                    ),
                    DiskState::Merging => ("disk_merging", format!("disk {disk} ({path}) is being made level")),
                    DiskState::Replace => ("disk_replace", format!("disk {disk} ({path}) is being emptied")),
                    DiskState::Regen => (
                        "disk_regen",
                        format!("what disk {disk} ({path}) had is being made anew"),
                    ),
                }
            }
        }
    }

    fn path(&self, disk: usize) -> String {
        self.disks
            .get(disk)
            .map_or_else(String::new, |p| p.display().to_string())
    }

    fn words_of_note(&self, note: &Note) -> (&'static str, String) {
        let own = |kind, event: &str| (kind, event.to_owned());
        match note {
            Note::AwaitsPartner => own("awaits_partner", "waits for its partner"),
            Note::PartnerUnreachable => own(
                "noticed",
                "cannot reach its partner; acknowledges nothing until a ballot has decided",
            ),
            Note::BallotBegun => own("ballot_begun", "began a ballot"),
            Note::BallotWon { epoch } => ("ballot_won", format!("won the ballot: epoch {epoch}")),
            Note::BallotLost { epoch } => (
                "ballot_lost",
                format!("lost the ballot: epoch {epoch} is the partner's"),
            ),
            Note::PartnerFenced => own("fenced", "the partner is fenced: it can write no disk"),
            Note::Resolved {
                valid,
                absorbed,
                dropped,
            } => (
                "resolved",
                format!(
                    "NV memory resolved: {valid} buffers of data, {absorbed} unfinished writes absorbed, \
                     {dropped} never acknowledged and dropped"
                ),
            ),
            Note::Serving { mirrored: true } => own("serving", "serves hosts, mirrored by its partner"),
            Note::Serving { mirrored: false } => own(
                "serving",
                "serves hosts alone, with every write on disk before its status",
            ),
            Note::OtherCache { buffers } => (
                "other_cache",
                format!(
                    "has another size of its cache than its partner, whose is {}: there is no link between them until \
                     `cache` in cell.toml is the same on both",
                    Size(u64::from(*buffers) * 2 * BUFFER_BYTES as u64)
                ),
            ),
            Note::PartnerJoins => own("partner_joins", "the partner is joining"),
            Note::Mirrored => own("mirrored", "the partner is in: writes are mirrored"),
            Note::Leveled => own("leveled", "both NV memories are level"),
            Note::Blind => own(
                "blind",
                "sees most of its disks no more, and its partner does: gives way to it",
            ),
            Note::Out => own("out", "is out, and starts anew"),
            Note::AwaitsOperator { missing } => (
                "awaits_operator",
                format!("serves nothing: it needs what is in the memory of {missing}"),
            ),
            Note::LossAccepted { missing } => (
                "loss_accepted",
                format!("an operator has given up what only the memory of {missing} had"),
            ),
            Note::ImageLost { both: false } => own(
                "image_lost",
                "comes without the NV memory that the record names: its server was restarted, or the memory is damaged",
            ),
            Note::ImageLost { both: true } => own(
                "image_lost",
                "neither controller has its NV memory: what was acknowledged and not yet on disk is lost",
            ),
            Note::DiskFailed { disk } => (
                "disk_failed",
                format!("disk {disk} ({}) failed a write", self.path(disk.index())),
            ),
            Note::LunMoved { lun, to } => ("lun_moved", format!("LUN number {lun} is owned by {to} now")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::Reader;
    use std::time::{Duration, UNIX_EPOCH};
    use twincell_core::ids::{DiskIndex, Epoch};

    fn line(ms: u64, told: Told) -> StoryLine {
        StoryLine {
            time: UNIX_EPOCH + Duration::from_millis(1000 + ms),
            since_noticed: Some(Duration::from_millis(ms)),
            told,
        }
    }

    fn recorder(dir: &std::path::Path) -> Recorder {
        Recorder {
            journal: Journal::open(dir).unwrap(),
            controller: Controller::B,
            disks: vec!["/c/0".into()],
            takeover: None,
        }
    }

    #[test]
    fn the_line_that_ends_a_takeover_has_all_its_times() {
        let dir = tempfile::tempdir().unwrap();
        let mut recorder = recorder(dir.path());
        let mode = Mode::Alone {
            controller: Controller::B,
            dirty: true,
        };
        let epoch = Epoch(9);
        for (ms, told) in [
            (0, Told::Note(Note::PartnerUnreachable)),
            (1, Told::Note(Note::BallotBegun)),
            (20, Told::Mode { epoch, mode }),
            (20, Told::Note(Note::BallotWon { epoch })),
            (45, Told::Note(Note::PartnerFenced)),
            (46, Told::Note(Note::Serving { mirrored: false })),
        ] {
            recorder.keep(&line(ms, told));
        }
        let events = Reader::new(dir.path().into()).read().unwrap();
        let kinds: Vec<&str> = events.iter().map(|e| e.kind.as_str()).collect();
        assert_eq!(kinds, ["noticed", "ballot_begun", "ballot_won", "fenced", "serving"]);
        let takeover = Takeover {
            noticed_time_ms: 1000,
            ballot_ms: 20,
            fence_ms: 45,
            resolve_ms: 0,
            serve_ms: 46,
        };
        assert_eq!(events[4].takeover, Some(takeover));
        assert!(events[4].event.contains("46 ms after"), "{}", events[4].event);
        assert!(events[..4].iter().all(|e| e.takeover.is_none()));
        assert!(recorder.takeover.is_none());
    }

    #[test]
    fn a_partner_that_comes_in_time_is_no_takeover() {
        let dir = tempfile::tempdir().unwrap();
        let mut recorder = recorder(dir.path());
        recorder.keep(&line(0, Told::Note(Note::AwaitsPartner)));
        recorder.keep(&line(9, Told::Note(Note::Serving { mirrored: true })));
        recorder.keep(&line(9, Told::Note(Note::Serving { mirrored: false })));
        let events = Reader::new(dir.path().into()).read().unwrap();
        assert!(events.iter().all(|e| e.takeover.is_none()), "{events:?}");
    }

    #[test]
    fn a_disk_is_named_with_its_path() {
        let dir = tempfile::tempdir().unwrap();
        let mut recorder = recorder(dir.path());
        let disk = DiskIndex(0);
        recorder.keep(&line(
            1,
            Told::Disk {
                disk,
                state: DiskState::Missing,
            },
        ));
        recorder.keep(&line(2, Told::Note(Note::DiskFailed { disk })));
        let events = Reader::new(dir.path().into()).read().unwrap();
        assert!(events.iter().all(|e| e.event.contains("/c/0")), "{events:?}");
    }
}
