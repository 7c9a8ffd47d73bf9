//! The oracle of the data: what a read may return, block by block, and that no write is torn.
//!
//! Every write has its own tag, and what it puts into a block tells the place in its data, too: 0 was never written. For each
//! block the writes are known with the moments of their first submission and of their acknowledgement. A read may return a
//! value unless another write certainly took its place: one that was submitted after the value's write was acknowledged, and
//! acknowledged before the read began; or one that an earlier read has shown to be newer ("no going back").

use twincell_core::ids::ATOMIC_BLOCKS;

/// A moment in the order of everything that happens.
pub type Moment = u64;

/// No moment at all, so far.
const NEVER: Moment = Moment::MAX;
/// Bits of a block's value that tell its place in the data of the write.
const PLACE_BITS: u32 = 10;

/// Blocks of the portions in which longer commands are carried out.
const PORTION: u64 = ATOMIC_BLOCKS as u64;

/// What the write of `tag` puts into the block at this place of its data.
pub fn value_at(tag: u64, place: u32) -> u64 {
    debug_assert!(place < 1 << PLACE_BITS, "no write is longer");
    tag << PLACE_BITS | u64::from(place)
}

/// The write that a value is of; 0 for "never written".
pub fn tag_of(value: u64) -> u64 {
    value >> PLACE_BITS
}

fn place_of(value: u64) -> u64 {
    value & ((1 << PLACE_BITS) - 1)
}

#[derive(Clone, Debug)]
struct Write {
    start: u64,
    blocks: u32,
    submitted: Moment,
    acknowledged: Option<Moment>,
    /// The host tried more than once: until it has an answer, a value that was superseded may come again.
    retried: bool,
    /// The answer was that it was withdrawn before it took effect.
    aborted: bool,
}

impl Write {
    /// The blocks of this write that take effect together with one of them.
    fn portion_of(&self, block: u64) -> std::ops::Range<u64> {
        let start = self.start + (block - self.start) / PORTION * PORTION;
        start..(start + PORTION).min(self.start + u64::from(self.blocks))
    }
}

/// One value that a block may have.
#[derive(Clone, Copy, Debug)]
struct Value {
    tag: u64,
    /// The end of the first read that returned it, and the beginning of the last; `NEVER` and 0 if none did.
    first_end: Moment,
    last_begin: Moment,
    /// A read has shown it to be superseded: when that read began, and when it ended.
    dead: Option<(Moment, Moment)>,
}

impl Value {
    fn new(tag: u64) -> Value {
        Value {
            tag,
            first_end: NEVER,
            last_begin: 0,
            dead: None,
        }
    }

    fn was_seen(&self) -> bool {
        self.first_end < NEVER
    }
}

#[derive(Clone, Debug)]
struct Block {
    number: u64,
    /// What was written to it, in order of submission, which is that of the tags; the first is 0, "never written".
    values: Vec<Value>,
    /// Where those are that were returned by a read, and by a later one not yet shown to be superseded.
    alive: Vec<u32>,
}

impl Block {
    fn new(number: u64) -> Block {
        let mut values = Vec::with_capacity(16);
        values.push(Value::new(0));
        Block {
            number,
            values,
            alive: Vec::new(),
        }
    }

    fn place(&self, tag: u64) -> Option<usize> {
        // Most reads return what the last one did.
        let again = self.alive.iter().find(|at| self.values[**at as usize].tag == tag);
        match again {
            Some(at) => Some(*at as usize),
            None => self.values.binary_search_by_key(&tag, |v| v.tag).ok(),
        }
    }
}

/// The time in which a block certainly had one value (`from < to`), or must have had it for a moment (`to <= from`).
#[derive(Clone, Copy, Debug)]
struct Zone {
    tag: u64,
    from: Moment,
    to: Moment,
}

/// The history of one LUN.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// By tag.
    writes: Vec<Option<Write>>,
    /// For each block of the LUN, where it is among `blocks`, plus one.
    places: Vec<u32>,
    blocks: Vec<Block>,
    /// What was written before this moment may be lost: the cell has said so.
    forgotten: Moment,
}

impl History {
    /// A write is submitted for the first time.
    pub fn submit(&mut self, tag: u64, start: u64, blocks: u32, now: Moment) {
        if self.writes.len() <= tag as usize {
            self.writes.resize(tag as usize + 1, None);
        }
        self.writes[tag as usize] = Some(Write {
            start,
            blocks,
            submitted: now,
            acknowledged: None,
            retried: false,
            aborted: false,
        });
        for block in start..start + u64::from(blocks) {
            let values = &mut self.block_mut(block).values;
            assert!(values.last().is_some_and(|v| v.tag < tag), "tags are given in order");
            values.push(Value::new(tag));
        }
    }

    fn block_mut(&mut self, number: u64) -> &mut Block {
        let at = number as usize;
        if self.places.len() <= at {
            self.places.resize(at + 1, 0);
        }
        if self.places[at] == 0 {
            self.blocks.push(Block::new(number));
            self.places[at] = self.blocks.len() as u32;
        }
        &mut self.blocks[self.places[at] as usize - 1]
    }

    fn place(&self, number: u64) -> Option<usize> {
        let place = *self.places.get(number as usize)?;
        (place as usize).checked_sub(1)
    }

    fn write(&self, tag: u64) -> Option<&Write> {
        self.writes.get(tag as usize)?.as_ref()
    }

    fn write_mut(&mut self, tag: u64) -> &mut Write {
        self.writes[tag as usize].as_mut().expect("a write that was submitted")
    }

    /// A write without an answer is tried again.
    pub fn retry(&mut self, tag: u64) {
        if self.write(tag).is_some() {
            self.write_mut(tag).retried = true;
        }
    }

    /// Whether the write of `tag` cannot be executed any more after `moment`.
    fn is_final(&self, tag: u64, moment: Moment) -> bool {
        let write = self.write(tag);
        write.is_none_or(|w| !w.retried || w.acknowledged.is_some_and(|a| a < moment))
    }

    /// A write is acknowledged.
    pub fn acknowledge(&mut self, tag: u64, now: Moment) {
        self.write_mut(tag).acknowledged.get_or_insert(now);
    }

    /// The answer to a write is that it was withdrawn before it took effect: nobody may ever see it. One that was tried
    /// more than once, or is no atomic write, may have taken effect in another attempt, or in part.
    ///
    /// # Errors
    /// A read has returned it already.
    pub fn abort(&mut self, tag: u64) -> Result<(), String> {
        let Some(write) = self.write(tag).filter(|w| !w.retried && w.blocks <= ATOMIC_BLOCKS) else {
            return Ok(());
        };
        let (start, end) = (write.start, write.start + u64::from(write.blocks));
        for number in start..end {
            let block = &self.blocks[self.place(number).expect("written")];
            if block.place(tag).is_some_and(|at| block.values[at].was_seen()) {
                return Err(format!(
                    "write {tag} was withdrawn, but a read of block {number} has it"
                ));
            }
        }
        self.write_mut(tag).aborted = true;
        Ok(())
    }

    /// The cell has said that what was acknowledged until now may be lost: any of it may be there, or not, or in part.
    pub fn forget(&mut self, now: Moment) {
        self.forgotten = now;
        for block in &mut self.blocks {
            block.values.iter_mut().for_each(|v| *v = Value::new(v.tag));
            block.alive.clear();
        }
    }

    /// When the write of `tag` was acknowledged; "never written" was so from the beginning.
    fn acknowledged(&self, tag: u64) -> Option<Moment> {
        if tag == 0 {
            Some(0)
        } else {
            self.write(tag)?.acknowledged
        }
    }

    /// When the write of `tag` was first submitted.
    pub fn submitted(&self, tag: u64) -> Moment {
        self.write(tag).map_or(0, |w| w.submitted)
    }

    /// The blocks that anybody ever wrote to.
    pub fn blocks(&self) -> impl Iterator<Item = u64> {
        self.blocks.iter().map(|b| b.number)
    }

    /// Whether the write of `tag` was over before `moment`.
    pub fn is_older(&self, tag: u64, moment: Moment) -> bool {
        self.acknowledged(tag).is_some_and(|a| a < moment)
    }

    /// When the newest write of a block was submitted that was acknowledged before `moment`; 0 if none was.
    pub fn newest_acknowledged(&self, block: u64, moment: Moment) -> Moment {
        let values = self.place(block).map_or(&[][..], |at| &self.blocks[at].values);
        let writes = values.iter().filter_map(|v| self.write(v.tag));
        let counts = writes.filter(|w| w.submitted >= self.forgotten && w.acknowledged.is_some_and(|a| a < moment));
        counts.map(|w| w.submitted).max().unwrap_or(0)
    }

    /// Whether `older` certainly came before `newer`.
    fn precedes(&self, older: u64, newer: u64) -> bool {
        self.acknowledged(older).is_some_and(|a| a < self.submitted(newer))
    }

    /// Whether a value is what its write put into this block, and not what it put somewhere else. "Never written" has no place.
    pub fn is_in_its_place(&self, block: u64, value: u64) -> bool {
        value == 0
            || self
                .write(tag_of(value))
                .is_some_and(|w| w.start + place_of(value) == block)
    }

    /// A read of `start..` that began at `begun` and ended at `now` returned `values`. What is longer than 256 blocks is read
    /// and written in portions of so many, and each portion of a read sees whole portions of writes.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(&mut self, start: u64, values: &[u64], begun: Moment, now: Moment) -> Result<(), String> {
        let tags: Vec<u64> = values.iter().map(|v| tag_of(*v)).collect();
        for (block, tag) in (start..).zip(&tags) {
            self.check_value(block, *tag, begun)?;
        }
        let is_out_of_place = |(block, value): &(u64, &u64)| !self.is_in_its_place(*block, **value);
        if let Some((block, value)) = (start..).zip(values).find(is_out_of_place) {
            let (tag, place) = (tag_of(*value), place_of(*value));
            return Err(format!(
                "block {block}: block {place} of the data of {tag}, which belongs elsewhere"
            ));
        }
        for (start, tags) in (start..).step_by(PORTION as usize).zip(tags.chunks(PORTION as usize)) {
            self.check_whole(start, tags)?;
        }
        for (block, tag) in (start..).zip(&tags) {
            self.note_seen(block, *tag, begun, now);
        }
        Ok(())
    }

    fn check_value(&self, block: u64, tag: u64, begun: Moment) -> Result<(), String> {
        let Some(place) = self.place(block) else {
            return if tag == 0 {
                Ok(())
            } else {
                Err(format!("block {block}: {tag}, but nothing was written"))
            };
        };
        let known = &self.blocks[place];
        // Those that count, the newest first: of them the newest is the one that can rule a value out.
        let counts = |w: &&Write| w.submitted >= self.forgotten && w.acknowledged.is_some_and(|a| a < begun);
        let is_counted = |v: &&Value| self.write(v.tag).as_ref().is_some_and(counts);
        let newest = known.values.iter().rev().find(is_counted);
        if let Some(newer) = newest.filter(|newer| self.precedes(tag, newer.tag)) {
            let newer = newer.tag;
            return Err(format!("block {block}: {tag}, but {newer} was acknowledged after it"));
        }
        let is_of = |w: &Write| (w.start..w.start + u64::from(w.blocks)).contains(&block);
        if tag != 0 && !self.write(tag).is_some_and(is_of) {
            return Err(format!("block {block}: {tag}, which was never written there"));
        }
        if self.write(tag).is_some_and(|w| w.aborted) {
            return Err(format!(
                "block {block}: {tag}, which was withdrawn before it took effect"
            ));
        }
        let dead = known.place(tag).and_then(|at| known.values[at].dead);
        if dead.is_some_and(|(from, to)| to < begun && self.is_final(tag, from)) {
            return Err(format!(
                "block {block}: {tag}, which an earlier read has shown to be superseded"
            ));
        }
        Ok(())
    }

    fn check_whole(&self, start: u64, tags: &[u64]) -> Result<(), String> {
        let end = start + tags.len() as u64;
        // Neighbours mostly are of the same portion.
        let mut seen = (0, 0..0);
        for (block, tag) in (start..).zip(tags) {
            if *tag == 0 || seen.0 == *tag && seen.1.contains(&block) {
                continue;
            }
            let write = self.write(*tag).expect("a value that was written");
            let portion = write.portion_of(block);
            seen = (*tag, portion.clone());
            if write.submitted < self.forgotten {
                continue;
            }
            for block in portion.start.max(start)..portion.end.min(end) {
                let there = tags[(block - start) as usize];
                if there != *tag && self.precedes(there, *tag) {
                    return Err(format!("write {tag} is torn: block {block} still has {there}"));
                }
            }
        }
        Ok(())
    }

    fn note_seen(&mut self, block: u64, tag: u64, begun: Moment, now: Moment) {
        let Some(place) = self.place(block) else {
            return;
        };
        if self.submitted(tag) < self.forgotten {
            // What was on its way to the disks when all memory was lost may have reached one copy, and not the other.
            return;
        }
        let Some(at) = self.blocks[place].place(tag) else {
            return;
        };
        if !self.blocks[place].values[at].was_seen() {
            // Whatever was acknowledged before this write was submitted is older, seen or not.
            let submitted = self.submitted(tag);
            for older in 0..at {
                let Value { tag, dead, .. } = self.blocks[place].values[older];
                if dead.is_none() && self.is_older(tag, submitted) {
                    self.blocks[place].values[older].dead = Some((begun, now));
                }
            }
        }
        let Block { values, alive, .. } = &mut self.blocks[place];
        alive.retain(|other| {
            let other = &mut values[*other as usize];
            let is_over = other.tag != tag && other.first_end < begun;
            if is_over {
                other.dead.get_or_insert((begun, now));
            }
            !is_over
        });
        let value = &mut values[at];
        if !value.was_seen() {
            alive.push(at as u32);
        }
        value.first_end = value.first_end.min(now);
        value.last_begin = value.last_begin.max(begun);
    }

    /// Whether there is one order of all writes and reads of each block that explains every answer (linearizability).
    /// Every value is written once, so it is enough to look at the time in which each value must have been there: two
    /// such times must not overlap, and none may lie within another. A write that was tried more than once may be
    /// executed more than once until it is answered; it takes no part.
    ///
    /// # Errors
    /// Two values of which one must have been there while the other was.
    pub fn check_linearizable(&self) -> Result<(), String> {
        let mut zones: Vec<Zone> = Vec::new();
        for block in &self.blocks {
            zones.clear();
            zones.extend(block.values.iter().filter_map(|v| self.zone(v)));
            zones.sort_by_key(|z| z.from.min(z.to));
            // Of the times so far in which a value certainly was there, the one that ends last.
            let mut held: Option<Zone> = None;
            for zone in zones.iter().copied() {
                let within = held.filter(|h| h.from < zone.to && h.to > zone.from.max(zone.to));
                let overlaps = held.filter(|h| zone.from < zone.to && h.to > zone.from);
                if let Some(other) = within.or(overlaps) {
                    return Err(format!(
                        "block {}: no order of its writes and reads explains both {} and {}",
                        block.number, other.tag, zone.tag
                    ));
                }
                if zone.from < zone.to && held.is_none_or(|h| h.to < zone.to) {
                    held = Some(zone);
                }
            }
        }
        Ok(())
    }

    fn zone(&self, value: &Value) -> Option<Zone> {
        let Value {
            tag,
            first_end,
            last_begin,
            ..
        } = *value;
        if tag == 0 {
            return (self.forgotten == 0).then_some(Zone {
                tag,
                from: 0,
                to: last_begin,
            });
        }
        let write = self
            .write(tag)
            .filter(|w| !w.retried && w.submitted >= self.forgotten)?;
        let from = write.acknowledged.unwrap_or(NEVER).min(first_end);
        (from < NEVER).then_some(Zone {
            tag,
            from,
            to: write.submitted.max(last_begin),
        })
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

    /// A read of block 0 and on that returned the right blocks of these writes, of which each began there.
    fn read(history: &mut History, tags: &[u64], begun: Moment, now: Moment) -> Result<(), String> {
        let value = |(place, tag): (u32, &u64)| if *tag == 0 { 0 } else { value_at(*tag, place) };
        let values: Vec<u64> = (0..).zip(tags).map(value).collect();
        history.read(0, &values, begun, now)
    }

    #[test]
    fn a_block_has_what_was_written_there_and_not_elsewhere() {
        let mut history = History::default();
        written(&mut history, 1, 4, 4, 1, Some(2));
        let values = |places: [u32; 4]| places.map(|place| value_at(1, place));
        assert!(history.read(4, &values([0, 1, 2, 3]), 3, 4).is_ok());
        for wrong in [[0, 2, 1, 3], [1, 2, 3, 3], [0, 0, 1, 2]] {
            assert!(history.read(4, &values(wrong), 5, 6).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn an_acknowledged_write_must_be_there() {
        let mut history = History::default();
        written(&mut history, 1, 0, 1, 1, Some(2));
        assert!(read(&mut history, &[0], 3, 4).is_err());
        assert!(read(&mut history, &[1], 3, 4).is_ok());
    }

    #[test]
    fn an_unacknowledged_write_may_be_there_or_not_but_not_both() {
        let mut history = History::default();
        written(&mut history, 1, 0, 1, 1, Some(2));
        written(&mut history, 2, 0, 1, 3, None);
        assert!(read(&mut history, &[1], 4, 5).is_ok());
        assert!(read(&mut history, &[2], 6, 7).is_ok());
        assert!(read(&mut history, &[1], 8, 9).is_err(), "going back");
    }

    #[test]
    fn an_unacknowledged_write_that_was_seen_stays() {
        let mut history = History::default();
        written(&mut history, 1, 0, 1, 1, Some(2));
        written(&mut history, 2, 0, 1, 3, None);
        assert!(read(&mut history, &[2], 4, 5).is_ok());
        assert!(read(&mut history, &[1], 6, 7).is_err(), "nobody has read 1 before");
    }

    #[test]
    fn a_torn_write_is_noticed() {
        let mut history = History::default();
        written(&mut history, 1, 0, 4, 1, Some(2));
        written(&mut history, 2, 0, 4, 3, None);
        assert!(read(&mut history, &[2, 2, 1, 2], 4, 5).is_err());
        assert!(read(&mut history, &[2, 2, 2, 2], 6, 7).is_ok());
    }

    #[test]
    fn what_is_long_is_read_and_written_in_portions() {
        let long = |new: std::ops::Range<u32>| -> Vec<u64> {
            let value = |n: u32| value_at(if new.contains(&n) { 2 } else { 1 }, n);
            (0..600).map(value).collect()
        };
        let mut history = History::default();
        written(&mut history, 1, 0, 600, 1, Some(2));
        written(&mut history, 2, 0, 600, 3, None);
        for torn in [0..255, 1..256, 256..511, 600 - 87..600] {
            assert!(history.read(0, &long(torn.clone()), 4, 5).is_err(), "{torn:?}");
        }
        for whole in [0..256, 256..512, 0..512, 512..600] {
            assert!(history.clone().read(0, &long(whole.clone()), 4, 5).is_ok(), "{whole:?}");
        }
    }

    #[test]
    fn what_was_withdrawn_is_never_seen() {
        let mut history = History::default();
        written(&mut history, 1, 0, 4, 1, None);
        assert!(history.abort(1).is_ok());
        assert!(read(&mut history, &[0, 0, 1, 0], 2, 3).is_err());
        let mut history = History::default();
        written(&mut history, 1, 0, 1, 1, None);
        assert!(read(&mut history, &[1], 2, 3).is_ok());
        assert!(history.abort(1).is_err());
    }

    #[test]
    fn what_the_cell_has_said_to_be_lost_may_be_there_or_not() {
        let mut history = History::default();
        written(&mut history, 1, 0, 2, 1, Some(2));
        written(&mut history, 2, 0, 2, 3, Some(4));
        history.forget(5);
        assert!(read(&mut history, &[1, 2], 6, 7).is_ok());
        written(&mut history, 3, 0, 2, 8, Some(9));
        assert!(read(&mut history, &[3, 2], 10, 11).is_err());
        assert!(read(&mut history, &[3, 3], 10, 11).is_ok());
    }

    #[test]
    fn two_reads_that_disagree_on_an_order_have_none() {
        let mut history = History::default();
        // Both writes are under way from 1 to 20; one reader sees 1 then 2, another one 2 then 1.
        written(&mut history, 1, 0, 1, 1, Some(20));
        written(&mut history, 2, 0, 1, 1, Some(20));
        for (tag, begun, now) in [(1, 2, 3), (2, 4, 9), (1, 10, 11)] {
            history.note_seen(0, tag, begun, now);
        }
        assert!(history.check_linearizable().is_err());
    }

    #[test]
    fn overlapping_writes_have_an_order() {
        let mut history = History::default();
        written(&mut history, 1, 0, 1, 1, Some(20));
        written(&mut history, 2, 0, 1, 2, Some(19));
        assert!(read(&mut history, &[1], 3, 4).is_ok());
        assert!(read(&mut history, &[2], 5, 6).is_ok());
        assert!(read(&mut history, &[2], 30, 31).is_ok());
        assert!(history.check_linearizable().is_ok());
    }

    #[test]
    fn a_value_between_two_reads_of_another_has_no_place() {
        let mut history = History::default();
        written(&mut history, 1, 0, 1, 1, Some(2));
        written(&mut history, 2, 0, 1, 5, Some(6));
        history.note_seen(0, 1, 3, 4);
        history.note_seen(0, 1, 8, 9);
        assert!(history.check_linearizable().is_err());
    }
}
