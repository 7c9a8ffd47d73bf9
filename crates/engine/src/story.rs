//! The story of a controller: what the core notes, and what changes in the record and the metadata, each with its time.
//! The engine's thread adds to it; another thread follows it and keeps it in a file.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};
use twincell_core::Core;
use twincell_core::cell::record::Mode;
use twincell_core::effect::Note;
use twincell_core::ids::{Controller, DiskIndex, Epoch, Nanos, NcaeIndex, Time};
use twincell_core::layout::metadata::{DiskState, Metadata, Name};

/// Lines that are kept for who follows: more than happen in a second.
const LINES_MAX: usize = 512;

/// What a line tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// The core says so.
    Note(Note),
    /// The owner of a LUN changed.
    LunMoved {
        /// The LUN; `None` where it is gone by now.
        name: Option<Name>,
        /// The new owner.
        to: Controller,
    },
    /// The membership record has another mode.
    Mode {
        /// Its epoch.
        epoch: Epoch,
        /// The mode.
        mode: Mode,
    },
    /// The metadata give a disk another state.
    Disk {
        /// Which.
        disk: DiskIndex,
        /// Its state now.
        state: DiskState,
    },
}

/// One line of the story.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoryLine {
    /// When.
    pub time: SystemTime,
    /// How long after the loss of the partner was noticed, while that is being dealt with.
    pub since_noticed: Option<Duration>,
    /// What.
    pub told: Told,
}

/// Lines from one number on.
#[derive(Debug, Default)]
struct Lines {
    kept: VecDeque<StoryLine>,
    /// The number of the first that is kept.
    first: u64,
    /// Nothing more will be told.
    ended: bool,
}

/// A story that one thread tells and others follow.
#[derive(Debug, Default)]
pub(crate) struct Story {
    lines: Mutex<Lines>,
    more: Condvar,
}

impl Story {
    fn lines(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, line: StoryLine) {
        let mut lines = self.lines();
        if lines.kept.len() == LINES_MAX {
            lines.kept.pop_front();
            lines.first += 1;
        }
        lines.kept.push_back(line);
        self.more.notify_all();
    }

    fn end(&self) {
        self.lines().ended = true;
        self.more.notify_all();
    }

    /// The lines from number `from` on, and the number after the last; waits until there are any. `None` at the end.
    pub(crate) fn follow(&self, from: u64) -> Option<(Vec<StoryLine>, u64)> {
        let mut lines = self.lines();
        loop {
            let next = lines.first + lines.kept.len() as u64;
            if next > from {
                let skip = from.saturating_sub(lines.first) as usize;
                return Some((lines.kept.iter().skip(skip).copied().collect(), next));
            }
            if lines.ended {
                return None;
            }
            lines = self.more.wait(lines).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Who tells a story: the engine. It ends when this goes.
pub(crate) struct Teller {
    story: Arc<Story>,
    /// Since when the partner is lost, until that is dealt with.
    noticed: Option<Time>,
    mode: Option<Mode>,
    disks: Vec<DiskState>,
}

impl Teller {
    pub(crate) fn new(story: Arc<Story>) -> Teller {
        Teller {
            story,
            noticed: None,
            mode: None,
            disks: Vec::new(),
        }
    }

    /// The core notes something.
    pub(crate) fn note(&mut self, now: Time, note: Note, metadata: Option<&Metadata>) {
        if let Note::PartnerUnreachable | Note::AwaitsPartner = note {
            self.noticed = Some(now);
        }
        let told = match note {
            Note::LunMoved { lun, to } => Told::LunMoved {
                name: name_of(metadata, lun),
                to,
            },
            note => Told::Note(note),
        };
        self.tell(now, told);
        if let Note::Serving { .. } | Note::Out | Note::Leveled = note {
            self.noticed = None;
        }
    }

    /// What hosts may see has changed: perhaps the record or the metadata have, too.
    pub(crate) fn look(&mut self, now: Time, core: &Core) {
        if let Some(record) = core.cell_view().record
            && self.mode.replace(record.mode) != Some(record.mode)
        {
            let (epoch, mode) = (record.epoch, record.mode);
            self.tell(now, Told::Mode { epoch, mode });
        }
        let Some(metadata) = core.metadata() else { return };
        self.disks.resize(metadata.disks.len(), DiskState::Normal);
        for n in 0..metadata.disks.len() {
            let state = metadata.disks[n].state;
            if std::mem::replace(&mut self.disks[n], state) != state {
                let disk = DiskIndex(n as u16);
                self.tell(now, Told::Disk { disk, state });
            }
        }
    }

    fn tell(&self, now: Time, told: Told) {
        let since = |noticed: Time| {
            let Nanos(ns) = now.since(noticed);
            Duration::from_nanos(ns)
        };
        self.story.tell(StoryLine {
            time: SystemTime::now(),
            since_noticed: self.noticed.map(since),
            told,
        });
    }
}

impl Drop for Teller {
    fn drop(&mut self) {
        self.story.end();
    }
}

fn name_of(metadata: Option<&Metadata>, lun: NcaeIndex) -> Option<Name> {
    metadata.and_then(|m| m.lun(lun)).map(|l| l.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Time {
        Time(ms * 1_000_000)
    }

    #[test]
    fn a_takeover_is_timed_from_the_moment_that_it_was_noticed() {
        let story = Arc::new(Story::default());
        let mut teller = Teller::new(story.clone());
        let serving = Note::Serving { mirrored: false };
        teller.note(at(5), Note::PartnerJoins, None);
        for (ms, note) in [
            (10, Note::PartnerUnreachable),
            (12, Note::BallotBegun),
            (30, Note::PartnerFenced),
            (31, serving),
            (90, Note::PartnerJoins),
        ] {
            teller.note(at(ms), note, None);
        }
        let (lines, next) = story.follow(1).expect("lines");
        assert_eq!(next, 6);
        let since: Vec<Option<u128>> = lines.iter().map(|l| l.since_noticed.map(|d| d.as_millis())).collect();
        assert_eq!(since, [Some(0), Some(2), Some(20), Some(21), None]);
        drop(teller);
        assert_eq!(story.follow(6), None, "the story has ended");
    }

    #[test]
    fn who_falls_behind_gets_what_is_kept() {
        let story = Arc::new(Story::default());
        let mut teller = Teller::new(story.clone());
        for _ in 0..LINES_MAX + 10 {
            teller.note(at(1), Note::Mirrored, None);
        }
        let (lines, next) = story.follow(3).expect("lines");
        assert_eq!((lines.len(), next), (LINES_MAX, LINES_MAX as u64 + 10));
    }

    #[test]
    fn who_waits_is_woken() {
        let story = Arc::new(Story::default());
        let mut teller = Teller::new(story.clone());
        let follower = std::thread::spawn(move || story.follow(0));
        teller.note(at(1), Note::Leveled, None);
        let (lines, _) = follower.join().expect("no panic").expect("lines");
        assert_eq!(lines[0].told, Told::Note(Note::Leveled));
    }
}
