//! The oracle of the data: what a read may return, block by block, and that no write is torn.
//!
//! Every write has its own tag. For each block the writes are known with the moments of their first submission and of
//! their acknowledgement. A read may return a value unless another write certainly took its place: one that was
//! submitted after the value's write was acknowledged, and acknowledged before the read began; or one that an earlier
//! read has shown to be newer ("no going back").

use std::collections::{BTreeMap, HashMap};

/// A moment in the order of everything that happens.
pub type Moment = u64;

#[derive(Clone, Debug)]
struct Write {
    start: u64,
    blocks: u32,
    submitted: Moment,
    acknowledged: Option<Moment>,
    /// The host tried more than once: until it has an answer, a value that was superseded may come again.
    retried: bool,
}

#[derive(Clone, Debug, Default)]
struct Block {
    /// Tags written to it, in order of submission; the first is 0, "never written".
    tags: Vec<u64>,
    /// Values that a read has shown to be superseded: when that read began, and when it ended.
    dead: HashMap<u64, (Moment, Moment)>,
    /// What reads returned: value, and the moment at which the first read that returned it ended.
    seen: Vec<(u64, Moment)>,
}

/// The history of one LUN.
#[derive(Clone, Debug, Default)]
pub struct History {
    writes: HashMap<u64, Write>,
    blocks: BTreeMap<u64, Block>,
}

impl History {
    /// A write is submitted for the first time.
    pub fn submit(&mut self, tag: u64, start: u64, blocks: u32, now: Moment) {
        let acknowledged = None;
        self.writes.insert(
            tag,
            Write {
                start,
                blocks,
                submitted: now,
                acknowledged,
                retried: false,
            },
        );
        for block in start..start + u64::from(blocks) {
            self.blocks.entry(block).or_default().tags.push(tag);
        }
    }

    /// A write without an answer is tried again.
    pub fn retry(&mut self, tag: u64) {
        if let Some(write) = self.writes.get_mut(&tag) {
            write.retried = true;
        }
    }

    /// Whether the write of `tag` cannot be executed any more after `moment`.
    fn is_final(&self, tag: u64, moment: Moment) -> bool {
        let write = self.writes.get(&tag);
        write.is_none_or(|w| !w.retried || w.acknowledged.is_some_and(|a| a < moment))
    }

    /// A write is acknowledged.
    pub fn acknowledge(&mut self, tag: u64, now: Moment) {
        let write = self.writes.get_mut(&tag).expect("a write that was submitted");
        write.acknowledged.get_or_insert(now);
    }

    /// When the write of `tag` was acknowledged; "never written" was so from the beginning.
    fn acknowledged(&self, tag: u64) -> Option<Moment> {
        if tag == 0 {
            Some(0)
        } else {
            self.writes[&tag].acknowledged
        }
    }

    fn submitted(&self, tag: u64) -> Moment {
        if tag == 0 { 0 } else { self.writes[&tag].submitted }
    }

    /// Whether `older` certainly came before `newer`.
    fn precedes(&self, older: u64, newer: u64) -> bool {
        self.acknowledged(older).is_some_and(|a| a < self.submitted(newer))
    }

    /// A read of `start..` that began at `begun` and ended at `now` returned `tags`. `atomic` reads see whole writes.
    pub fn read(&mut self, start: u64, tags: &[u64], begun: Moment, now: Moment, atomic: bool) -> Result<(), String> {
        for (block, tag) in (start..).zip(tags) {
            self.check_value(block, *tag, begun)?;
        }
        if atomic {
            self.check_whole(start, tags)?;
        }
        for (block, tag) in (start..).zip(tags) {
            self.note_seen(block, *tag, begun, now);
        }
        Ok(())
    }

    fn check_value(&self, block: u64, tag: u64, begun: Moment) -> Result<(), String> {
        let Some(known) = self.blocks.get(&block) else {
            return if tag == 0 {
                Ok(())
            } else {
                Err(format!("block {block}: {tag}, but nothing was written"))
            };
        };
        if tag != 0 && !known.tags.contains(&tag) {
            return Err(format!("block {block}: {tag}, which was never written there"));
        }
        let displaced =
            |newer: &&u64| self.acknowledged(**newer).is_some_and(|a| a < begun) && self.precedes(tag, **newer);
        if let Some(newer) = known.tags.iter().find(displaced) {
            return Err(format!("block {block}: {tag}, but {newer} was acknowledged after it"));
        }
        if known
            .dead
            .get(&tag)
            .is_some_and(|(from, to)| *to < begun && self.is_final(tag, *from))
        {
            return Err(format!(
                "block {block}: {tag}, which an earlier read has shown to be superseded"
            ));
        }
        Ok(())
    }

    fn check_whole(&self, start: u64, tags: &[u64]) -> Result<(), String> {
        let end = start + tags.len() as u64;
        for tag in tags.iter().filter(|t| **t != 0) {
            let write = &self.writes[tag];
            let (from, to) = (write.start.max(start), (write.start + u64::from(write.blocks)).min(end));
            if write.blocks > 256 {
                continue;
            }
            for block in from..to {
                let there = tags[(block - start) as usize];
                if there != *tag && self.precedes(there, *tag) {
                    return Err(format!("write {tag} is torn: block {block} still has {there}"));
                }
            }
        }
        Ok(())
    }

    fn note_seen(&mut self, block: u64, tag: u64, begun: Moment, now: Moment) {
        let Some(known) = self.blocks.get(&block) else {
            return;
        };
        let first = !known.seen.iter().any(|(t, _)| *t == tag);
        let seen_before = known.seen.iter().filter(|(t, ended)| *t != tag && *ended < begun);
        let mut dead: Vec<u64> = seen_before.map(|(t, _)| *t).collect();
        if first {
            // Whatever was acknowledged before this write was submitted is older, seen or not.
            let written = known.tags.iter().copied().chain([0]);
            dead.extend(written.filter(|t| *t != tag && self.precedes(*t, tag)));
        }
        let known = self.blocks.get_mut(&block).expect("looked at");
        for older in dead {
            known.dead.entry(older).or_insert((begun, now));
        }
        if first {
            known.seen.push((tag, now));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(history: &mut History, tag: u64, start: u64, blocks: u32, from: Moment, to: Option<Moment>) {
        history.submit(tag, start, blocks, from);
        if let Some(to) = to {
            history.acknowledge(tag, to);
        }
    }

    #[test]
    fn an_acknowledged_write_must_be_there() {
        let mut history = History::default();
        written(&mut history, 1, 0, 1, 1, Some(2));
        assert!(history.read(0, &[0], 3, 4, true).is_err());
        assert!(history.read(0, &[1], 3, 4, true).is_ok());
    }

    #[test]
    fn an_unacknowledged_write_may_be_there_or_not_but_not_both() {
        let mut history = History::default();
        written(&mut history, 1, 0, 1, 1, Some(2));
        written(&mut history, 2, 0, 1, 3, None);
        assert!(history.read(0, &[1], 4, 5, true).is_ok());
        assert!(history.read(0, &[2], 6, 7, true).is_ok());
        assert!(history.read(0, &[1], 8, 9, true).is_err(), "going back");
    }

    #[test]
    fn an_unacknowledged_write_that_was_seen_stays() {
        let mut history = History::default();
        written(&mut history, 1, 0, 1, 1, Some(2));
        written(&mut history, 2, 0, 1, 3, None);
        assert!(history.read(0, &[2], 4, 5, true).is_ok());
        assert!(history.read(0, &[1], 6, 7, true).is_err(), "nobody has read 1 before");
    }

    #[test]
    fn a_torn_write_is_noticed() {
        let mut history = History::default();
        written(&mut history, 1, 0, 4, 1, Some(2));
        written(&mut history, 2, 0, 4, 3, None);
        assert!(history.read(0, &[2, 2, 1, 2], 4, 5, true).is_err());
        assert!(history.read(0, &[2, 2, 2, 2], 6, 7, true).is_ok());
    }
}
