//! Tasks: the commands of a session that are in progress

use crate::scsi::device::{Transfer, Work};
use crate::scsi::lun;
use crate::scsi::sense::Sense;
use crate::session::Tag;
use std::collections::HashMap;
use twincell_core::ids::{NcaeIndex, Time};

/// Buffers up to this size are kept for the next task of a slot.
const KEPT_BYTES_MAX: usize = 262_144;

/// What a task waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The slot is free.
    Free,
    /// The rest of its unsolicited data.
    AwaitsUnsolicited,
    /// Other tasks that an ORDERED one keeps it apart from.
    AwaitsOrder,
    /// All of its data, of which the answer depends.
    AwaitsData,
    /// That the initiator takes Data-In of earlier commands.
    AwaitsRoom,
    /// The array.
    InArray,
}

/// Task attributes (11.3.1; SAM-5, 8.6) that make a difference here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attribute {
    /// SIMPLE, and untagged.
    Simple,
    /// ORDERED
    Ordered,
    /// HEAD OF QUEUE
    HeadOfQueue,
    /// ACA, and those that do not exist.
    NotSupported,
}

/// A sequence of data that the initiator was asked for (R2T), or that it sends unasked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Burst {
    /// Target transfer tag.
    pub transfer_tag: u32,
    /// Offset of the next byte.
    pub next: u32,
    /// Offset behind the last byte; of unsolicited data, behind the last that may come.
    pub end: u32,
    /// DataSN of the next PDU.
    pub data_sn: u32,
}

/// One command.
#[derive(Debug)]
pub struct Task {
    pub state: State,
    /// Counts the uses of the slot; part of target transfer tags, so that late data are not taken for new.
    pub generation: u16,
    pub task_tag: u32,
    pub lun: [u8; 8],
    pub cdb: [u8; 16],
    pub attribute: Attribute,
    /// Since when it could have begun.
    pub waits_since: Time,
    /// Counts the commands of the session: the lower came first.
    pub arrival: u64,
    /// Does not count for the command window.
    pub is_immediate: bool,
    /// The initiator is ready for so many bytes of Data-In.
    pub expects_in: u32,
    /// The initiator has so many bytes of Data-Out.
    pub expects_out: u32,
    /// Data-Out in hand.
    pub data: Vec<u8>,
    /// Where in the command's data `data` begins: what came before went to the array at once.
    pub data_from: u32,
    /// What the array does for it.
    pub work: Option<Work>,
    /// Data-Out that comes now.
    pub burst: Option<Burst>,
    /// The end of what the array has asked for and does not have yet, as an offset.
    pub fetch: Option<u32>,
    /// Bytes of Data-In that were sent.
    pub sent: u32,
    /// Bytes of Data-In that the array may still give it. `Tasks` has the sum.
    due: u32,
    /// Bytes of Data-In in the current sequence.
    pub sent_of_burst: u32,
    /// Data-In or R2T PDUs that were sent.
    pub sequence: u32,
    /// Bytes that the command moves according to its CDB, once that is known.
    pub transfer: u32,
    /// Bytes of Data-Out that are taken: no more than the initiator has.
    pub wanted: u32,
    /// It moves Data-Out.
    pub is_out: bool,
    /// It was aborted: there will be no response.
    pub is_aborted: bool,
    /// It has failed already; the response waits for the array, or for data that are still to come.
    pub fault: Option<Sense>,
}

impl Task {
    fn new() -> Task {
        Task {
            state: State::Free,
            generation: 0,
            task_tag: 0,
            lun: [0; 8],
            cdb: [0; 16],
            attribute: Attribute::Simple,
            waits_since: Time(0),
            arrival: 0,
            is_immediate: false,
            expects_in: 0,
            expects_out: 0,
            data: Vec::new(),
            data_from: 0,
            work: None,
            burst: None,
            fetch: None,
            sent: 0,
            due: 0,
            sent_of_burst: 0,
            sequence: 0,
            transfer: 0,
            wanted: 0,
            is_out: false,
            is_aborted: false,
            fault: None,
        }
    }

    /// Bytes of Data-In that the array is to give it: no more than the initiator is ready for.
    pub fn data_in(&self) -> u32 {
        match self.work.map(|work| work.transfer) {
            Some(Transfer::In) => self.transfer.min(self.expects_in),
            _ => 0,
        }
    }

    /// Where what is in hand ends, as an offset in the command's data.
    pub fn data_end(&self) -> usize {
        self.data_from as usize + self.data.len()
    }

    /// Keeps data that the array does not want yet. They follow what is in hand.
    pub fn keep(&mut self, offset: u32, bytes: &[u8]) {
        if self.data.is_empty() {
            self.data_from = offset;
        }
        if let Some(burst) = &self.burst {
            // Once for the whole burst: it comes in many pieces.
            self.data.reserve(burst.end.saturating_sub(offset) as usize);
        }
        self.data.extend_from_slice(bytes);
    }

    /// Which byte of its data comes next, and how many from there on the array waits for.
    pub fn wants_next(&self) -> Option<(u32, usize)> {
        let (burst, end) = (self.burst?, self.fetch?);
        let is_sound = self.state == State::InArray && !self.is_aborted && self.fault.is_none();
        is_sound.then(|| (burst.next, end.saturating_sub(burst.next) as usize))
    }

    /// Makes the slot free for another command; its buffer is kept.
    fn clear(&mut self) {
        let mut data = std::mem::take(&mut self.data);
        data.clear();
        if data.capacity() > KEPT_BYTES_MAX {
            data = Vec::new();
        }
        *self = Task {
            generation: self.generation.wrapping_add(1),
            data,
            ..Task::new()
        };
    }
}

/// All tasks of a session.
#[derive(Debug, Default)]
pub struct Tasks {
    slots: Vec<Task>,
    free: Vec<Tag>,
    by_task_tag: HashMap<u32, Tag>,
    /// Tasks in progress that count for the command window.
    pub in_window: u32,
    /// Tasks in progress that do not.
    pub immediate: u32,
    /// ORDERED tasks in progress.
    ordered: u32,
    /// Tasks that wait for room.
    waiting: u32,
    /// Bytes of Data-In that the array may still give to tasks.
    pub due: usize,
    arrivals: u64,
}

impl Tasks {
    /// A task for a new command; `None` if there is one with this initiator task tag.
    pub fn begin(&mut self, task_tag: u32, is_immediate: bool, attribute: Attribute) -> Option<Tag> {
        if self.by_task_tag.contains_key(&task_tag) {
            return None;
        }
        let tag = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Task::new());
            Tag(self.slots.len() as u32 - 1)
        });
        self.by_task_tag.insert(task_tag, tag);
        let task = &mut self.slots[tag.0 as usize];
        task.state = State::AwaitsUnsolicited;
        task.task_tag = task_tag;
        task.is_immediate = is_immediate;
        task.attribute = attribute;
        task.arrival = self.arrivals;
        self.arrivals += 1;
        self.ordered += u32::from(attribute == Attribute::Ordered);
        *self.counter(is_immediate) += 1;
        Some(tag)
    }

    /// Makes the slot of a task free; the logical unit that it was for, if there is such a one.
    pub fn end(&mut self, tag: Tag) -> Option<NcaeIndex> {
        let task = self.get_mut(tag)?;
        let lun = lun::parse(task.lun);
        let (task_tag, is_immediate, attribute) = (task.task_tag, task.is_immediate, task.attribute);
        let (due, waits) = (task.due, task.state == State::AwaitsRoom);
        task.clear();
        self.due -= due as usize;
        self.waiting -= u32::from(waits);
        self.ordered -= u32::from(attribute == Attribute::Ordered);
        self.by_task_tag.remove(&task_tag);
        self.free.push(tag);
        *self.counter(is_immediate) -= 1;
        lun
    }

    fn counter(&mut self, is_immediate: bool) -> &mut u32 {
        if is_immediate {
            &mut self.immediate
        } else {
            &mut self.in_window
        }
    }

    /// A task in progress.
    pub fn get(&self, tag: Tag) -> Option<&Task> {
        self.slots.get(tag.0 as usize).filter(|task| task.state != State::Free)
    }

    /// A task in progress.
    pub fn get_mut(&mut self, tag: Tag) -> Option<&mut Task> {
        self.slots
            .get_mut(tag.0 as usize)
            .filter(|task| task.state != State::Free)
    }

    /// The task with an initiator task tag.
    pub fn find(&self, task_tag: u32) -> Option<Tag> {
        self.by_task_tag.get(&task_tag).copied()
    }

    /// Whether a task has to wait for earlier ones (SAM-5, 8.6): an ORDERED task for all of its logical unit, and a
    /// SIMPLE one for those of them that are ORDERED.
    pub fn must_wait(&self, tag: Tag) -> bool {
        if self.ordered == 0 {
            return false;
        }
        let Some(task) = self.slots.get(tag.0 as usize) else {
            return false;
        };
        let is_ordered = match task.attribute {
            Attribute::Ordered => true,
            Attribute::Simple => false,
            Attribute::HeadOfQueue | Attribute::NotSupported => return false,
        };
        let lun = lun::parse(task.lun);
        self.iter().any(|(_, other)| {
            other.arrival < task.arrival
                && (is_ordered || other.attribute == Attribute::Ordered)
                && lun::parse(other.lun) == lun
        })
    }

    /// The first task of `lun` that waited for earlier ones, if it need not any more: while it has to, so have those behind it.
    pub fn next_in_order(&self, lun: Option<NcaeIndex>) -> Option<Tag> {
        let waits = |task: &Task| task.state == State::AwaitsOrder && lun::parse(task.lun) == lun;
        let waiting = self.iter().filter(|(_, task)| waits(task));
        let (first, _) = waiting.min_by_key(|(_, task)| task.arrival)?;
        (!self.must_wait(first)).then_some(first)
    }

    /// A task waits for room from now on.
    pub fn wait_for_room(&mut self, tag: Tag) {
        let Some(task) = self.get_mut(tag) else { return };
        if std::mem::replace(&mut task.state, State::AwaitsRoom) != State::AwaitsRoom {
            self.waiting += 1;
        }
    }

    /// Whether a task waits for room.
    pub fn any_waits_for_room(&self) -> bool {
        self.waiting > 0
    }

    /// The task that is the next to have room: HEAD OF QUEUE before others, and then as they came.
    pub fn next_for_room(&self) -> Option<Tag> {
        if self.waiting == 0 {
            return None;
        }
        let waiting = self.iter().filter(|(_, task)| task.state == State::AwaitsRoom);
        let place = |task: &Task| (task.attribute != Attribute::HeadOfQueue, task.arrival);
        waiting.min_by_key(|(_, task)| place(task)).map(|(tag, _)| tag)
    }

    /// The array has a task from now on, if it has not yet: what it may give it is due.
    pub fn enter_array(&mut self, tag: Tag) {
        let Some(task) = self.get_mut(tag) else { return };
        let before = std::mem::replace(&mut task.state, State::InArray);
        if before == State::InArray {
            return;
        }
        task.due = task.data_in();
        let due = task.due as usize;
        self.due += due;
        self.waiting -= u32::from(before == State::AwaitsRoom);
    }

    /// So many bytes of Data-In of a task are in the output.
    pub fn gave(&mut self, tag: Tag, bytes: usize) {
        let Some(task) = self.get_mut(tag) else { return };
        let given = bytes.min(task.due as usize);
        task.due -= given as u32;
        self.due -= given;
    }

    /// All tasks in progress.
    pub fn iter(&self) -> impl Iterator<Item = (Tag, &Task)> {
        let tags = (0..).map(Tag);
        tags.zip(&self.slots).filter(|(_, task)| task.state != State::Free)
    }
}
