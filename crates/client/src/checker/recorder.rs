//! The history of a run in progress: judged as it grows, and kept in a file if that is wanted.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write as _};
use std::path::Path;
use std::time::Instant;

use super::history::{Event, History, INITIAL, Nanos};
use super::stamp::{Content, look};
use crate::device::BLOCK_BYTES;

/// Records a run. All workers share one, under a lock.
pub struct Recorder {
    history: History,
    seed: u64,
    began: Instant,
    file: Option<BufWriter<File>>,
    /// The first thing that went wrong with the recording itself.
    failure: Option<String>,
}

impl Recorder {
    /// An empty history that begins now, written to `path` if there is one.
    pub fn new(seed: u64, path: Option<&Path>) -> std::io::Result<Recorder> {
        Ok(Recorder {
            history: History::new(),
            seed,
            began: Instant::now(),
            file: path.map(File::create).transpose()?.map(BufWriter::new),
            failure: None,
        })
    }

    /// The history so far.
    pub fn history(&self) -> &History {
        &self.history
    }

    /// What went wrong with the recording itself.
    pub fn failure(&self) -> Option<&str> {
        self.failure.as_deref()
    }

    /// A write is submitted now; its number.
    pub fn write(&mut self, writer: u32, start: u64, blocks: u32) -> u32 {
        let write = self.history.next_write();
        let at = self.at(Instant::now());
        self.add(&Event::Write {
            write,
            writer,
            start,
            blocks,
            at,
        });
        write
    }

    /// A write was acknowledged, after the tries `failed`, which are over with that.
    pub fn acked(&mut self, write: u32, at: Instant, path: usize, failed: &[u32]) {
        let at = self.at(at);
        self.add(&Event::Acked { write, at, path });
        for write in failed {
            self.add(&Event::Over { write: *write, at });
        }
    }

    /// A write will never be acknowledged.
    pub fn failed(&mut self, write: u32) {
        let at = self.at(Instant::now());
        self.add(&Event::Failed { write, at });
    }

    /// No write is in progress anywhere: none of those that failed takes effect any more.
    pub fn quiet(&mut self) {
        let at = self.at(Instant::now());
        for write in self.history.failed_writes() {
            self.add(&Event::Over { write, at });
        }
    }

    /// A read is submitted now; its number.
    pub fn read(&mut self, start: u64, blocks: u32) -> u32 {
        let read = self.history.next_read();
        let at = self.at(Instant::now());
        self.add(&Event::Read {
            read,
            start,
            blocks,
            at,
        });
        read
    }

    /// A read of blocks from `start` on returned `data`.
    pub fn values(&mut self, read: u32, start: u64, at: Instant, path: usize, data: &[u8]) {
        let mut runs: Vec<(u32, u32)> = Vec::new();
        for (block, bytes) in (start..).zip(data.chunks_exact(BLOCK_BYTES)) {
            let write = self.origin(block, bytes);
            match runs.last_mut() {
                Some((last, count)) if *last == write => *count += 1,
                _ => runs.push((write, 1)),
            }
        }
        let at = self.at(at);
        self.add(&Event::Values { read, at, path, runs });
    }

    /// A read failed.
    pub fn no_values(&mut self, read: u32) {
        self.add(&Event::NoValues { read });
    }

    /// Writes out what is in memory of the file.
    pub fn flush(&mut self) {
        if let Some(Err(e)) = self.file.as_mut().map(|f| f.flush()) {
            self.failure.get_or_insert(format!("the history file: {e}"));
        }
    }

    /// The write that a block came from.
    fn origin(&mut self, block: u64, bytes: &[u8]) -> u32 {
        let wrong = match look(bytes, block, self.seed) {
            Content::Stamped(stamp) => return stamp.write,
            // Whether it may still be there is for the history to judge.
            Content::Zero | Content::OtherRun(_) | Content::Unknown => return INITIAL,
            Content::Corrupt(what) => what,
        };
        self.history.violate(format!("block {block}: {wrong}"));
        INITIAL
    }

    fn add(&mut self, event: &Event) {
        if let Some(Err(e)) = self.file.as_mut().map(|f| writeln!(f, "{event}")) {
            self.failure.get_or_insert(format!("the history file: {e}"));
        }
        if let Err(e) = self.history.add(event) {
            self.failure.get_or_insert(e);
        }
    }

    fn at(&self, at: Instant) -> Nanos {
        at.saturating_duration_since(self.began).as_nanos() as Nanos
    }
}

/// Judges a history file again.
pub fn replay(path: &Path) -> Result<History, String> {
    let name = path.display();
    let file = File::open(path).map_err(|e| format!("{name}: {e}"))?;
    let mut history = History::new();
    for (number, line) in (1..).zip(BufReader::new(file).lines()) {
        let line = line.map_err(|e| format!("{name}: {e}"))?;
        let event: Event = line.parse().map_err(|e| format!("{name}:{number}: {e}"))?;
        history.add(&event).map_err(|e| format!("{name}:{number}: {e}"))?;
    }
    Ok(history)
}
