//! The files in which a controller keeps what happened to it: one JSON object on each line, appended, and bounded.
//!
//! They are in the controller's own directory and are read without asking anybody: what happened is known also when
//! nobody runs any more.

use crate::config::CellConfig;
use crate::events::utc;
use crate::exit::{Failure, Result};
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};
use twincell_core::ids::Controller;

/// A file that has grown to this is put aside, and the one put aside before it goes.
const BYTES_MAX: u64 = 1 << 20;
const FILE_NAME: &str = "events";
const ASIDE_NAME: &str = "events.1";
const STATE_NAME: &str = "state";

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventLine {
    /// Milliseconds since 1970, UTC.
    pub time_ms: u64,
    /// Which controller tells it.
    pub controller: String,
    /// What kind of thing, in one word.
    pub kind: String,
    /// What, for people.
    pub event: String,
    /// Milliseconds since this controller noticed that its partner is lost, while that is being dealt with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since_noticed_ms: Option<u64>,
    /// The takeover that this ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub takeover: Option<Takeover>,
}

/// The times of a takeover (R10): when it was noticed, and milliseconds from there to the end of each step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Takeover {
    /// When the loss of the partner was noticed: milliseconds since 1970, UTC.
    pub noticed_time_ms: u64,
    /// The record says that this controller is alone.
    pub ballot_ms: u64,
    /// The partner is fenced, and its writes are over.
    pub fence_ms: u64,
    /// NV memory is resolved.
    pub resolve_ms: u64,
    /// Hosts are served.
    pub serve_ms: u64,
}

/// What a controller knew of the membership record last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastMode {
    /// The record's epoch.
    pub epoch: u64,
    /// The one controller that is in; `None` where both are.
    pub alone: Option<String>,
    /// Whether the memory of the one may hold what the disks lack.
    pub dirty: bool,
    /// Since when the record has this mode, as the controller saw it: milliseconds since 1970, UTC.
    pub since_ms: u64,
}

impl LastMode {
    /// What the record said of the controller that kept this, where it was in.
    pub fn in_words(&self, own: Controller) -> Option<String> {
        let how = match &self.alone {
            None => "with its partner",
            Some(alone) if *alone != own.to_string() => return None,
            Some(_) if self.dirty => "alone, with data in its memory",
            Some(_) => "alone, with everything on disk",
        };
        Some(format!("it was in since {}, {how}", utc(self.since_ms)))
    }
}

/// Milliseconds since 1970, UTC.
pub fn ms_of(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64)
}

/// The end of the files that is written to.
pub struct Journal {
    dir: PathBuf,
    file: File,
    bytes: u64,
    /// The last line may be there in part: its writer was killed, or the file system was full.
    torn: bool,
}

impl Journal {
    /// Opens the files of a controller's directory; only the controller itself does.
    pub fn open(dir: &Path) -> std::io::Result<Journal> {
        let file = open(dir)?;
        let bytes = file.metadata()?.len();
        let mut last = [b'\n'];
        if let Some(at) = bytes.checked_sub(1) {
            File::open(dir.join(FILE_NAME))?.read_exact_at(&mut last, at)?;
        }
        Ok(Journal {
            dir: dir.to_owned(),
            file,
            bytes,
            torn: last != *b"\n",
        })
    }

    /// Adds a line.
    pub fn append(&mut self, event: &EventLine) -> std::io::Result<()> {
        if self.bytes >= BYTES_MAX {
            std::fs::rename(self.dir.join(FILE_NAME), self.dir.join(ASIDE_NAME))?;
            self.file = open(&self.dir)?;
            self.bytes = 0;
            self.torn = false;
        }
        let mut line = if self.torn { vec![b'\n'] } else { Vec::new() };
        serde_json::to_writer(&mut line, event)?;
        line.push(b'\n');
        // One write: who reads meanwhile sees the whole line or nothing of it.
        self.torn = true;
        self.file.write_all(&line)?;
        self.torn = false;
        self.bytes += line.len() as u64;
        Ok(())
    }

    /// Keeps what the record says, in place of what it said before.
    pub fn keep_mode(&self, mode: &LastMode) -> std::io::Result<()> {
        let new = self.dir.join(".state.new");
        std::fs::write(&new, serde_json::to_vec(mode)?)?;
        std::fs::rename(new, self.dir.join(STATE_NAME))
    }
}

fn open(dir: &Path) -> std::io::Result<File> {
    OpenOptions::new().create(true).append(true).open(dir.join(FILE_NAME))
}

/// What a controller on this machine knew of the record last, if it ever knew anything.
pub fn last_mode(config: &CellConfig, controller: Controller) -> Option<LastMode> {
    let text = std::fs::read(config.controller_dir(controller).join(STATE_NAME)).ok()?;
    serde_json::from_slice(&text).ok()
}

/// Reads what a controller keeps, from the beginning on and then on.
pub struct Reader {
    dir: PathBuf,
    /// The file that is being read, and what of its last line was there so far.
    file: Option<File>,
    rest: Vec<u8>,
    begun: bool,
}

impl Reader {
    /// Of a controller's directory.
    pub fn of(config: &CellConfig, controller: Controller) -> Reader {
        Reader::new(config.controller_dir(controller))
    }

    /// Of a directory.
    pub fn new(dir: PathBuf) -> Reader {
        Reader {
            dir,
            file: None,
            rest: Vec::new(),
            begun: false,
        }
    }

    /// What was added since the last time; all of it the first time. Nothing where there are no files.
    pub fn read(&mut self) -> Result<Vec<EventLine>> {
        let mut events = Vec::new();
        if !self.begun {
            self.begun = true;
            self.file = self.open(ASIDE_NAME)?;
        }
        self.read_rest(&mut events)?;
        // What is written now is in another file than the one that was read, the first time and when that is put aside.
        let next = self.open(FILE_NAME)?;
        if next.as_ref().map(identity) != self.file.as_ref().map(identity) && next.is_some() {
            self.read_rest(&mut events)?;
            self.file = next;
            self.rest.clear();
            self.read_rest(&mut events)?;
        }
        Ok(events)
    }

    fn open(&self, name: &str) -> Result<Option<File>> {
        let path = self.dir.join(name);
        match File::open(&path) {
            Ok(file) => Ok(Some(file)),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
            Err(e) => Err(Failure::io("read", path.display(), &e)),
        }
    }

    fn read_rest(&mut self, events: &mut Vec<EventLine>) -> Result<()> {
        let Some(file) = &mut self.file else { return Ok(()) };
        let failed = |e| Failure::io("read the events in", self.dir.display(), &e);
        file.read_to_end(&mut self.rest).map_err(failed)?;
        let whole = self.rest.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
        let lines = self.rest[..whole].split(|b| *b == b'\n');
        // A line that a kill has cut short tells nothing.
        events.extend(lines.filter_map(|line| serde_json::from_slice(line).ok()));
        self.rest.drain(..whole);
        Ok(())
    }
}

fn identity(file: &File) -> Option<(u64, u64)> {
    file.metadata().ok().map(|m| (m.dev(), m.ino()))
}

/// The last event of those that a controller on this machine told of late which is `wanted`.
pub fn last_event(
    config: &CellConfig,
    controller: Controller,
    wanted: impl Fn(&EventLine) -> bool,
) -> Option<EventLine> {
    const LENGTH: i64 = 16 << 10;
    let mut file = File::open(config.controller_dir(controller).join(FILE_NAME)).ok()?;
    // A file shorter than that is read whole.
    let _ = file.seek(SeekFrom::End(-LENGTH));
    let mut end = Vec::new();
    file.read_to_end(&mut end).ok()?;
    let lines = end.rsplit(|b| *b == b'\n');
    lines.filter_map(|line| serde_json::from_slice(line).ok()).find(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(n: u64) -> EventLine {
        EventLine {
            time_ms: n,
            controller: "A".into(),
            kind: "mirrored".into(),
            event: format!("event {n}"),
            since_noticed_ms: None,
            takeover: None,
        }
    }

    fn times(events: &[EventLine]) -> Vec<u64> {
        events.iter().map(|e| e.time_ms).collect()
    }

    #[test]
    fn what_was_written_is_read_once_and_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let mut reader = Reader::new(dir.path().into());
        assert_eq!(reader.read().unwrap(), []);
        let mut journal = Journal::open(dir.path()).unwrap();
        for n in 0..3 {
            journal.append(&event(n)).unwrap();
        }
        assert_eq!(times(&reader.read().unwrap()), [0, 1, 2]);
        assert_eq!(reader.read().unwrap(), []);
        let mut again = Journal::open(dir.path()).unwrap();
        again.append(&event(3)).unwrap();
        assert_eq!(times(&reader.read().unwrap()), [3]);
        assert_eq!(times(&Reader::new(dir.path().into()).read().unwrap()), [0, 1, 2, 3]);
    }

    #[test]
    fn a_line_that_was_cut_short_is_left_out_and_ended() {
        let dir = tempfile::tempdir().unwrap();
        Journal::open(dir.path()).unwrap().append(&event(1)).unwrap();
        let mut file = open(dir.path()).unwrap();
        file.write_all(b"{\"time_ms\":2,\"contr").unwrap();
        let mut reader = Reader::new(dir.path().into());
        assert_eq!(times(&reader.read().unwrap()), [1]);
        Journal::open(dir.path()).unwrap().append(&event(3)).unwrap();
        assert_eq!(times(&reader.read().unwrap()), [3]);
    }

    #[test]
    fn the_files_stay_small_and_a_reader_follows_from_one_to_the_next() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(dir.path()).unwrap();
        let mut reader = Reader::new(dir.path().into());
        let mut followed = Vec::new();
        for n in 0..30_000 {
            journal.append(&event(n)).unwrap();
            if n % 1000 == 0 {
                followed.extend(times(&reader.read().unwrap()));
            }
        }
        followed.extend(times(&reader.read().unwrap()));
        assert!(
            followed.iter().copied().eq(0..30_000),
            "something was left out or told twice"
        );
        for name in [FILE_NAME, ASIDE_NAME] {
            let bytes = std::fs::metadata(dir.path().join(name)).unwrap().len();
            assert!(bytes < BYTES_MAX + 1000, "{name} has {bytes} bytes");
        }
        let kept = times(&Reader::new(dir.path().into()).read().unwrap());
        assert!(kept.len() > 5000 && kept.iter().copied().eq(30_000 - kept.len() as u64..30_000));
    }
}
