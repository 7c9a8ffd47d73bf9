//! What was written and read, when, and whether a LUN could have behaved like that.
//!
//! Each block is a register, and each write has a value of its own, so that the values which were read tell which
//! writes took effect. The operations on one value (its write, and the reads that returned it) form a *cluster*. Let
//! `finished` be the earliest end of an operation of a cluster and `started` the latest beginning. Then a history of
//! such a register is linearizable exactly if no two clusters conflict, where a and b conflict if
//! `a.finished < b.started && b.finished < a.started`: a was over before b's last operation began, and b was over before
//! a's last operation began, so each would have to come before the other (Gibbons and Korach, "Testing shared
//! memories", 1997). This one rule finds lost writes, stale reads and values that come back.
//!
//! - A write without an acknowledgement may have taken effect or not. It counts only when it is seen, and is over when
//!   it was seen, or when a later try of it was acknowledged ([`Event::Over`]).
//! - A write of up to [`ATOMIC_BLOCKS`] takes effect whole or not at all: when one of its blocks is seen, the write is
//!   over for all of them, so that an older value of another block is a conflict.
//! - A cluster that no later read may return is forgotten; to read it later is a violation like any other.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::str::FromStr;

/// The array promises that a write of up to this many blocks is not torn.
pub const ATOMIC_BLOCKS: u32 = 256;
/// What a block held before the run; the number of the first write is 1.
pub const INITIAL: u32 = 0;
/// Violations that are told in words; all are counted.
const TOLD_MAX: usize = 20;

/// Nanoseconds since the start of the run.
pub type Nanos = u64;

/// One thing that happened. As text it is a line of a history file: a letter and numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// `W write writer start blocks at`: a write was submitted. Writes are numbered from 1 without gaps.
    Write {
        /// Its number.
        write: u32,
        /// Who.
        writer: u32,
        /// First block.
        start: u64,
        /// How many.
        blocks: u32,
        /// When.
        at: Nanos,
    },
    /// `A write at path`: it was acknowledged.
    Acked {
        /// Which.
        write: u32,
        /// When.
        at: Nanos,
        /// Through which path.
        path: usize,
    },
    /// `F write at`: it will never be acknowledged. Whether it takes effect is open.
    Failed {
        /// Which.
        write: u32,
        /// When that was known.
        at: Nanos,
    },
    /// `O write at`: a failed write does not take effect after this.
    Over {
        /// Which.
        write: u32,
        /// When.
        at: Nanos,
    },
    /// `R read start blocks at`: a read was submitted. Reads are numbered from 1 without gaps.
    Read {
        /// Its number.
        read: u32,
        /// First block.
        start: u64,
        /// How many.
        blocks: u32,
        /// When.
        at: Nanos,
    },
    /// `V read at path write*blocks ...`: what it returned, as runs of blocks of the same write.
    Values {
        /// Which.
        read: u32,
        /// When.
        at: Nanos,
        /// Through which path.
        path: usize,
        /// Number of a write, and of how many blocks in a row it was.
        runs: Vec<(u32, u32)>,
    },
    /// `X read`: a read failed; it says nothing.
    NoValues {
        /// Which.
        read: u32,
    },
}

/// The operations on one value of one block.
#[derive(Clone, Copy, Debug)]
struct Cluster {
    write: u32,
    submitted: Nanos,
    started: Nanos,
    finished: Nanos,
}

impl Cluster {
    fn conflicts(&self, other: &Cluster) -> bool {
        self.finished < other.started && other.finished < self.started
    }
}

#[derive(Clone, Copy, Debug)]
struct Write {
    start: u64,
    blocks: u32,
    submitted: Nanos,
    /// When it was over for all its blocks, if it took effect.
    finished: Nanos,
    acked: bool,
    over: Option<Nanos>,
    seen: bool,
}

impl Write {
    fn is_atomic(&self) -> bool {
        self.blocks <= ATOMIC_BLOCKS
    }

    fn range(&self) -> std::ops::Range<u64> {
        self.start..self.start + u64::from(self.blocks)
    }
}

#[derive(Clone, Copy, Debug)]
struct Read {
    start: u64,
    blocks: u32,
    at: Nanos,
}

/// A history and its judgement so far.
#[derive(Default)]
pub struct History {
    /// Write n is `writes[n - 1]`.
    writes: Vec<Write>,
    reads: HashMap<u32, Read>,
    reads_begun: u32,
    blocks: HashMap<u64, Vec<Cluster>>,
    /// When the operations in progress began: (time, is a write, number).
    in_progress: BTreeSet<(Nanos, bool, u32)>,
    now: Nanos,
    violations: u64,
    told: Vec<String>,
}

impl History {
    /// An empty history.
    pub fn new() -> History {
        History::default()
    }

    /// The number that the next write must have.
    pub fn next_write(&self) -> u32 {
        self.writes.len() as u32 + 1
    }

    /// The number that the next read must have.
    pub fn next_read(&self) -> u32 {
        self.reads_begun + 1
    }

    /// Writes that failed and are not over.
    pub fn failed_writes(&self) -> Vec<u32> {
        let open = |w: &Write| !w.acked && w.over.is_none();
        let numbered = self.writes.iter().enumerate();
        numbered.filter(|(_, w)| open(w)).map(|(n, _)| n as u32 + 1).collect()
    }

    /// How many violations there are.
    pub fn violations(&self) -> u64 {
        self.violations
    }

    /// The first violations, in words.
    pub fn told(&self) -> &[String] {
        &self.told
    }

    /// Adds what was found wrong otherwise: damaged blocks.
    pub fn violate(&mut self, text: String) {
        self.violations += 1;
        if self.told.len() < TOLD_MAX {
            self.told.push(text);
        }
    }

    /// Adds one event and judges it. An error if the event makes no sense after those before it.
    pub fn add(&mut self, event: &Event) -> Result<(), String> {
        match event {
            Event::Write {
                write,
                writer: _,
                start,
                blocks,
                at,
            } => self.on_write(*write, *start, *blocks, *at),
            Event::Acked { write, at, .. } => {
                let entry = self.write_mut(*write)?;
                entry.acked = true;
                let submitted = entry.submitted;
                self.in_progress.remove(&(submitted, true, *write));
                self.settle(*write, *at);
                Ok(())
            }
            Event::Failed { write, .. } => {
                let submitted = self.write_mut(*write)?.submitted;
                self.in_progress.remove(&(submitted, true, *write));
                Ok(())
            }
            Event::Over { write, at } => {
                let entry = self.write_mut(*write)?;
                entry.over = Some(*at);
                if entry.seen {
                    self.settle(*write, *at);
                }
                Ok(())
            }
            Event::Read {
                read,
                start,
                blocks,
                at,
            } => self.on_read(*read, *start, *blocks, *at),
            Event::Values { read, at, runs, .. } => self.on_values(*read, *at, runs),
            Event::NoValues { read } => self.end_read(*read).map(|_| ()),
        }
    }

    fn on_write(&mut self, write: u32, start: u64, blocks: u32, at: Nanos) -> Result<(), String> {
        if write != self.next_write() || blocks == 0 {
            return Err(format!(
                "write {write} of {blocks} blocks, after write {}",
                self.writes.len()
            ));
        }
        self.now = at;
        let entry = Write {
            start,
            blocks,
            submitted: at,
            finished: Nanos::MAX,
            acked: false,
            over: None,
            seen: false,
        };
        self.writes.push(entry);
        self.in_progress.insert((at, true, write));
        for block in entry.range() {
            self.forget(block);
            self.clusters(block).push(Cluster {
                write,
                submitted: at,
                started: at,
                finished: Nanos::MAX,
            });
        }
        Ok(())
    }

    fn on_read(&mut self, read: u32, start: u64, blocks: u32, at: Nanos) -> Result<(), String> {
        if read != self.next_read() {
            return Err(format!("read {read} after read {}", self.reads_begun));
        }
        self.now = at;
        self.reads_begun = read;
        self.reads.insert(read, Read { start, blocks, at });
        self.in_progress.insert((at, false, read));
        Ok(())
    }

    fn end_read(&mut self, read: u32) -> Result<Read, String> {
        let entry = self
            .reads
            .remove(&read)
            .ok_or_else(|| format!("read {read} is not in progress"))?;
        self.in_progress.remove(&(entry.at, false, read));
        Ok(entry)
    }

    fn on_values(&mut self, read: u32, at: Nanos, runs: &[(u32, u32)]) -> Result<(), String> {
        let entry = self.end_read(read)?;
        let total: u64 = runs.iter().map(|(_, blocks)| u64::from(*blocks)).sum();
        if total != u64::from(entry.blocks) {
            return Err(format!("read {read} of {} blocks returned {total}", entry.blocks));
        }
        let mut block = entry.start;
        for (write, blocks) in runs {
            for block in block..block + u64::from(*blocks) {
                self.on_value(block, *write, entry.at, at);
            }
            block += u64::from(*blocks);
        }
        Ok(())
    }

    /// A read from `began` to `ended` returned the value of `write`.
    fn on_value(&mut self, block: u64, write: u32, began: Nanos, ended: Nanos) {
        let known = write.checked_sub(1).and_then(|n| self.writes.get(n as usize)).copied();
        if write != INITIAL && !known.is_some_and(|w| w.range().contains(&block)) {
            return self.violate(format!(
                "block {block}: write {write} never wrote it, read at {began}..{ended}"
            ));
        }
        let Some(cluster) = self.clusters(block).iter_mut().find(|c| c.write == write) else {
            let newest = self.clusters(block).iter().map(|c| c.write).max().unwrap_or(INITIAL);
            return self.violate(format!(
                "block {block}: the value of write {write} is back, read at {began}..{ended}; it was long overwritten, \
                 the newest write is {newest}"
            ));
        };
        cluster.started = cluster.started.max(began);
        let over = known.and_then(|w| w.over).unwrap_or(Nanos::MAX).min(ended);
        cluster.finished = cluster.finished.min(over);
        self.judge(block, write);
        if let Some(w) = known
            && !w.seen
        {
            self.writes[write as usize - 1].seen = true;
            if w.is_atomic() {
                self.settle(write, over);
            }
        }
    }

    /// A write has taken effect on all its blocks, by `at` at the latest.
    fn settle(&mut self, write: u32, at: Nanos) {
        let entry = &mut self.writes[write as usize - 1];
        let whole = entry.acked || entry.is_atomic();
        if at >= entry.finished || !whole {
            return;
        }
        entry.finished = at;
        for block in entry.range() {
            if let Some(cluster) = self.clusters(block).iter_mut().find(|c| c.write == write) {
                cluster.finished = cluster.finished.min(at);
                self.judge(block, write);
            }
        }
    }

    /// Compares the cluster of `write` with all others of its block.
    fn judge(&mut self, block: u64, write: u32) {
        let clusters = self.clusters(block);
        let Some(changed) = clusters.iter().find(|c| c.write == write).copied() else {
            return;
        };
        let others = clusters.iter().filter(|c| c.write != write);
        let conflict = others.copied().find(|c| c.conflicts(&changed));
        if let Some(other) = conflict {
            self.violate(format!(
                "block {block}: writes {} and {} each come before the other: {:?} {:?}",
                changed.write, other.write, changed, other
            ));
        }
    }

    /// Drops the clusters of `block` that no read may return any more: a later write, begun after everything of theirs,
    /// was over before anything in progress began.
    fn forget(&mut self, block: u64) {
        let horizon = self.in_progress.first().map_or(self.now, |first| first.0);
        let clusters = self.clusters(block);
        let over = clusters.iter().filter(|c| c.finished < horizon);
        if let Some(cut) = over.map(|c| c.submitted).max() {
            clusters.retain(|c| c.finished.max(c.started) >= cut);
        }
    }

    fn clusters(&mut self, block: u64) -> &mut Vec<Cluster> {
        self.blocks.entry(block).or_insert_with(|| {
            vec![Cluster {
                write: INITIAL,
                submitted: 0,
                started: 0,
                finished: 0,
            }]
        })
    }

    fn write_mut(&mut self, write: u32) -> Result<&mut Write, String> {
        let index = write.checked_sub(1).ok_or("there is no write 0")?;
        self.writes
            .get_mut(index as usize)
            .ok_or_else(|| format!("there is no write {write}"))
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Event::Write {
                write,
                writer,
                start,
                blocks,
                at,
            } => write!(f, "W {write} {writer} {start} {blocks} {at}"),
            Event::Acked { write, at, path } => write!(f, "A {write} {at} {path}"),
            Event::Failed { write, at } => write!(f, "F {write} {at}"),
            Event::Over { write, at } => write!(f, "O {write} {at}"),
            Event::Read {
                read,
                start,
                blocks,
                at,
            } => write!(f, "R {read} {start} {blocks} {at}"),
            Event::Values { read, at, path, runs } => {
                write!(f, "V {read} {at} {path}")?;
                runs.iter()
                    .try_for_each(|(write, blocks)| write!(f, " {write}*{blocks}"))
            }
            Event::NoValues { read } => write!(f, "X {read}"),
        }
    }
}

impl FromStr for Event {
    type Err = String;

    fn from_str(line: &str) -> Result<Event, String> {
        parse(line).ok_or_else(|| format!("not an event: {line:?}"))
    }
}

fn parse(line: &str) -> Option<Event> {
    let mut words = line.split(' ');
    let letter = words.next()?;
    let mut number = || words.next()?.parse::<u64>().ok();
    let event = match letter {
        "W" => Event::Write {
            write: number()?.try_into().ok()?,
            writer: number()?.try_into().ok()?,
            start: number()?,
            blocks: number()?.try_into().ok()?,
            at: number()?,
        },
        "A" => Event::Acked {
            write: number()?.try_into().ok()?,
            at: number()?,
            path: number()?.try_into().ok()?,
        },
        "F" => Event::Failed {
            write: number()?.try_into().ok()?,
            at: number()?,
        },
        "O" => Event::Over {
            write: number()?.try_into().ok()?,
            at: number()?,
        },
        "R" => Event::Read {
            read: number()?.try_into().ok()?,
            start: number()?,
            blocks: number()?.try_into().ok()?,
            at: number()?,
        },
        "V" => Event::Values {
            read: number()?.try_into().ok()?,
            at: number()?,
            path: number()?.try_into().ok()?,
            runs: words.by_ref().map(parse_run).collect::<Option<_>>()?,
        },
        "X" => Event::NoValues {
            read: number()?.try_into().ok()?,
        },
        _ => return None,
    };
    words.next().is_none().then_some(event)
}

fn parse_run(word: &str) -> Option<(u32, u32)> {
    let (write, blocks) = word.split_once('*')?;
    Some((write.parse().ok()?, blocks.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Plays a history of lines; how many violations it has.
    fn violations(lines: &str) -> u64 {
        let mut history = History::new();
        for line in lines.lines().map(str::trim).filter(|l| !l.is_empty()) {
            let event: Event = line.parse().unwrap();
            assert_eq!(event.to_string(), line);
            history.add(&event).unwrap();
        }
        history.violations()
    }

    #[test]
    fn the_last_acknowledged_write_is_read() {
        let history = "W 1 0 0 4 10\n A 1 20 0\n W 2 0 1 2 30\n A 2 40 0\n R 1 0 4 50\n V 1 60 0 1*1 2*2 1*1";
        assert_eq!(violations(history), 0);
    }

    #[test]
    fn a_lost_write_is_found() {
        assert_eq!(violations("W 1 0 0 1 10\n A 1 20 0\n R 1 0 1 30\n V 1 40 0 0*1"), 1);
        let overwritten = "W 1 0 0 1 10\n A 1 20 0\n W 2 0 0 1 30\n A 2 40 0\n R 1 0 1 50\n V 1 60 0 1*1";
        assert_eq!(violations(overwritten), 1);
    }

    #[test]
    fn a_write_in_progress_may_be_seen_or_not() {
        let either = "W 1 0 0 1 10\n R 1 0 1 20\n V 1 30 0 0*1\n R 2 0 1 40\n V 2 50 0 1*1\n A 1 60 0";
        assert_eq!(violations(either), 0);
    }

    #[test]
    fn no_going_back() {
        let back = "W 1 0 0 1 10\n R 1 0 1 20\n V 1 30 0 1*1\n R 2 0 1 40\n V 2 50 0 0*1";
        assert_eq!(violations(back), 1);
    }

    #[test]
    fn reads_that_overlap_may_disagree() {
        let disagree = "W 1 0 0 1 10\n R 1 0 1 20\n R 2 0 1 21\n V 1 30 0 1*1\n V 2 31 0 0*1";
        assert_eq!(violations(disagree), 0);
    }

    #[test]
    fn concurrent_writes_end_in_either_order_but_in_one() {
        let common = "W 1 0 0 1 10\n W 2 1 0 1 11\n A 1 20 0\n A 2 21 0\n";
        for last in [1, 2] {
            assert_eq!(violations(&format!("{common} R 1 0 1 30\n V 1 40 0 {last}*1")), 0);
        }
        assert_eq!(
            violations(&format!(
                "{common} R 1 0 1 30\n V 1 40 0 1*1\n R 2 0 1 50\n V 2 60 0 2*1"
            )),
            1
        );
        assert_eq!(
            violations(&format!(
                "{common} R 1 0 1 30\n V 1 40 0 2*1\n R 2 0 1 50\n V 2 60 0 2*1"
            )),
            0
        );
    }

    #[test]
    fn a_failed_write_is_there_whole_or_not_at_all() {
        let common = "W 1 0 0 2 10\n A 1 20 0\n W 2 0 0 2 30\n F 2 40\n O 2 45\n R 1 0 2 50\n";
        assert_eq!(violations(&format!("{common} V 1 60 0 1*2")), 0);
        assert_eq!(violations(&format!("{common} V 1 60 0 2*2")), 0);
        assert_ne!(violations(&format!("{common} V 1 60 0 2*1 1*1")), 0);
        assert_ne!(violations(&format!("{common} V 1 60 0 1*1 2*1")), 0);
    }

    #[test]
    fn a_torn_write_is_found_by_two_reads_too() {
        let common = "W 1 0 0 2 10\n F 1 20\n R 1 0 1 30\n V 1 40 0 1*1\n R 2 1 1 50\n";
        assert_eq!(violations(&format!("{common} V 2 60 0 1*1")), 0);
        assert_eq!(violations(&format!("{common} V 2 60 0 0*1")), 1);
    }

    #[test]
    fn a_large_write_may_be_there_in_part() {
        let history = "W 1 0 0 300 10\n F 1 20\n O 1 25\n R 1 0 300 30\n V 1 40 0 1*256 0*44";
        assert_eq!(violations(history), 0);
        assert_ne!(
            violations("W 1 0 0 300 10\n A 1 20 0\n R 1 0 300 30\n V 1 40 0 1*256 0*44"),
            0
        );
    }

    #[test]
    fn a_try_that_takes_effect_after_its_retry_was_acknowledged_is_found() {
        let common =
            "W 1 0 0 1 10\n F 1 20\n W 2 0 0 1 21\n A 2 30 1\n O 1 30\n W 3 0 0 1 40\n A 3 50 1\n R 1 0 1 60\n";
        assert_eq!(violations(&format!("{common} V 1 70 1 3*1")), 0);
        assert_ne!(violations(&format!("{common} V 1 70 1 1*1")), 0);
    }

    #[test]
    fn what_is_forgotten_is_missed_when_it_comes_back() {
        let mut lines = String::new();
        for n in 1..=50 {
            lines += &format!("W {n} 0 0 1 {}\nA {n} {} 0\n", n * 10, n * 10 + 5);
        }
        assert_eq!(violations(&format!("{lines} R 1 0 1 1000\n V 1 1001 0 50*1")), 0);
        assert_eq!(violations(&format!("{lines} R 1 0 1 1000\n V 1 1001 0 3*1")), 1);
        assert_eq!(violations(&format!("{lines} R 1 0 1 1000\n V 1 1001 0 0*1")), 1);
    }

    #[test]
    fn what_no_read_may_return_takes_no_memory() {
        let mut history = History::new();
        for write in 1..=1000 {
            let at = u64::from(write) * 10;
            let (writer, start, blocks) = (0, 0, 1);
            history
                .add(&Event::Write {
                    write,
                    writer,
                    start,
                    blocks,
                    at,
                })
                .unwrap();
            history
                .add(&Event::Acked {
                    write,
                    at: at + 5,
                    path: 0,
                })
                .unwrap();
        }
        assert!(history.blocks[&0].len() <= 3, "{:?}", history.blocks[&0]);
    }

    #[test]
    fn a_slow_read_may_return_what_was_current_when_it_began() {
        let mut lines = String::from("W 1 0 0 1 1\nA 1 5 0\nR 1 0 1 6\n");
        for n in 2..=50 {
            lines += &format!("W {n} 0 0 1 {}\nA {n} {} 0\n", n * 10, n * 10 + 5);
        }
        assert_eq!(violations(&format!("{lines} V 1 1000 0 1*1")), 0);
        assert_eq!(violations(&format!("{lines} V 1 1000 0 25*1")), 0);
    }

    #[test]
    fn values_out_of_nowhere_are_found() {
        assert_eq!(violations("W 1 0 0 1 10\n A 1 20 0\n R 1 5 1 30\n V 1 40 0 1*1"), 1);
        assert_eq!(violations("R 1 5 1 30\n V 1 40 0 7*1"), 1);
    }

    #[test]
    fn events_that_make_no_sense_are_errors() {
        for line in [
            "W 2 0 0 1 10",
            "W 1 0 0 0 10",
            "A 1 20 0",
            "A 0 20 0",
            "R 2 0 1 5",
            "V 1 40 0 0*1",
            "X 1",
        ] {
            assert!(History::new().add(&line.parse().unwrap()).is_err(), "{line}");
        }
        for line in ["", "W", "W 1 0 0 1 10 11", "V 1 40 0 0", "Z 1", "F 1 x"] {
            assert!(line.parse::<Event>().is_err(), "{line}");
        }
    }

    /// Random histories of a register that is in fact atomic have no violation; the same with one read falsified to a
    /// value that was overwritten before that read began have one.
    #[test]
    fn sound_histories_pass_and_falsified_ones_do_not() {
        for seed in 0..300 {
            let (events, stale) = simulate(seed);
            let judge = |events: &[Event]| {
                let mut history = History::new();
                events.iter().for_each(|e| history.add(e).unwrap());
                (history.violations(), history.told().to_vec())
            };
            assert_eq!(judge(&events), (0, vec![]), "seed {seed}");
            if let Some((index, event)) = stale {
                let mut events = events;
                events[index] = event;
                assert_ne!(judge(&events).0, 0, "seed {seed}: event {index}");
            }
        }
    }

    /// Operations of several clients on eight blocks. Each takes effect at one moment between its beginning and end.
    fn simulate(seed: u64) -> (Vec<Event>, Option<(usize, Event)>) {
        let mut state = seed;
        let mut below = move |n: u64| {
            state = state
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            (state >> 33) % n
        };
        let mut memory = [INITIAL; 8];
        // Per client: its operation, whether it has taken effect, and what it read.
        let mut clients: Vec<Option<(Event, bool, Vec<u32>)>> = vec![None; 4];
        let (mut writes, mut reads, mut events, mut stale) = (0, 0, vec![], None);
        // Value of block 0 and when it was overwritten by a write acknowledged since.
        let mut overwritten: Vec<(u32, Nanos)> = vec![];
        for at in 1..400 {
            let n = below(4) as usize;
            let (start, blocks) = (below(8), 1 + below(8) as u32);
            let blocks = blocks.min(8 - start as u32);
            match clients[n].take() {
                None => {
                    let event = if below(2) == 0 {
                        writes += 1;
                        Event::Write {
                            write: writes,
                            writer: n as u32,
                            start,
                            blocks,
                            at,
                        }
                    } else {
                        reads += 1;
                        Event::Read {
                            read: reads,
                            start,
                            blocks,
                            at,
                        }
                    };
                    events.push(event.clone());
                    clients[n] = Some((event, false, vec![]));
                }
                Some((event, false, _)) => {
                    let seen = match &event {
                        Event::Write {
                            write, start, blocks, ..
                        } => {
                            let range = *start as usize..*start as usize + *blocks as usize;
                            memory[range].fill(*write);
                            vec![]
                        }
                        Event::Read { start, blocks, .. } => {
                            memory[*start as usize..*start as usize + *blocks as usize].to_vec()
                        }
                        other => panic!("{other:?}"),
                    };
                    clients[n] = Some((event, true, seen));
                }
                Some((
                    Event::Write {
                        write,
                        start,
                        at: submitted,
                        ..
                    },
                    true,
                    _,
                )) => {
                    events.push(Event::Acked { write, at, path: 0 });
                    if start == 0 {
                        for event in &events {
                            let Event::Acked {
                                write: older,
                                at: acked,
                                ..
                            } = event
                            else {
                                continue;
                            };
                            let covers =
                                |e: &Event| matches!(e, Event::Write { write, start: 0, .. } if write == older);
                            if *acked < submitted && *older != write && events.iter().any(covers) {
                                overwritten.push((*older, at));
                            }
                        }
                    }
                }
                Some((
                    Event::Read {
                        read, start, at: began, ..
                    },
                    true,
                    seen,
                )) => {
                    let runs: Vec<(u32, u32)> = seen.iter().map(|w| (*w, 1)).collect();
                    let event = Event::Values {
                        read,
                        at,
                        path: 0,
                        runs: runs.clone(),
                    };
                    let old = overwritten.iter().rev().find(|(_, gone)| *gone < began);
                    if start == 0
                        && let Some((old, _)) = old
                    {
                        let mut runs = runs;
                        runs[0].0 = *old;
                        stale = Some((
                            events.len(),
                            Event::Values {
                                read,
                                at,
                                path: 0,
                                runs,
                            },
                        ));
                    }
                    events.push(event);
                }
                Some((other, ..)) => panic!("{other:?}"),
            }
        }
        (events, stale)
    }
}
