//! SCSI commands: from the command PDU to the SCSI response (RFC 7143, 11.3 and 11.4)

use super::pdu::{FINAL, Header, NO_TAG, Reason, opcode};
use super::session::{IscsiSession, Sink};
use super::task::{Attribute, Burst, State, Task};
use crate::scsi::device::{self, Plan, Step, Transfer, Work};
use crate::scsi::sense::Sense;
use crate::scsi::{lun, status};
use crate::session::{Command, Outside, Tag};
use twincell_core::host::{HostOp, Status};
use twincell_core::ids::{BLOCK_BYTES, BlockCount, NcaeIndex, Vba};

/// Immediate commands are not bounded by the command window, so there is a bound of their own.
const IMMEDIATE_MAX: u32 = 16;

/// With so much data in its PDU a command begins before they are there: they can then go at once where they belong.
const EARLY_BYTES: u32 = 16 << 10;

const READ: u8 = 0x40;
const WRITE: u8 = 0x20;
const ATTRIBUTE: u8 = 0x07;
/// Residual overflow and underflow.
const OVERFLOW: u8 = 0x04;
const UNDERFLOW: u8 = 0x02;
/// The Data-In PDU carries the status.
const STATUS: u8 = 0x01;

impl IscsiSession {
    /// A command PDU begins: makes a task of it. The sink is for its immediate data.
    pub(super) fn begin_command(&mut self, header: &Header, outside: &mut dyn Outside) -> Sink {
        if !self.accept(header) {
            return Sink::Discard;
        }
        match self.begin_task(header) {
            Ok(sink) => {
                self.start_early(sink, header, outside);
                sink
            }
            Err(reason) => {
                self.reject(reason);
                Sink::Discard
            }
        }
    }

    fn begin_task(&mut self, header: &Header) -> Result<Sink, Reason> {
        let (reads, writes) = (header.flags() & READ != 0, header.flags() & WRITE != 0);
        let (expected, immediate_data) = (header.get32(20), header.data_bytes());
        let more_follows = !header.is_final();
        if self.is_discovery || more_follows && self.parameters.initial_r2t {
            return Err(Reason::Protocol);
        }
        if reads && writes {
            return Err(Reason::NotSupported); // bidirectional
        }
        if header.task_tag() == NO_TAG || (more_follows || immediate_data > 0) && !writes || immediate_data > expected {
            return Err(Reason::InvalidField);
        }
        if header.is_immediate() && self.tasks.immediate >= IMMEDIATE_MAX {
            return Err(Reason::TooManyImmediate);
        }
        let attribute = match header.flags() & ATTRIBUTE {
            0 | 1 => Attribute::Simple,
            2 => Attribute::Ordered,
            3 => Attribute::HeadOfQueue,
            _ => Attribute::NotSupported,
        };
        let tag = self.tasks.begin(header.task_tag(), header.is_immediate(), attribute);
        let tag = tag.ok_or(Reason::TaskInProgress)?;
        let first_burst = self.parameters.first_burst_length;
        let unexpected = immediate_data > 0 && (!self.parameters.immediate_data || immediate_data > first_burst);
        let Some(task) = self.tasks.get_mut(tag) else {
            return Ok(Sink::Discard);
        };
        task.lun = header.lun();
        task.cdb = header.array(32);
        task.expects_in = if reads { expected } else { 0 };
        task.expects_out = if writes { expected } else { 0 };
        task.fault = unexpected.then_some(Sense::UNEXPECTED_UNSOLICITED_DATA);
        task.burst = Some(Burst {
            transfer_tag: NO_TAG,
            next: 0,
            end: first_burst.min(expected),
            data_sn: 0,
        });
        let generation = task.generation;
        Ok(Sink::Task { tag, generation })
    }

    /// Starts a command whose unsolicited data are all in its PDU, and much, before they are there. Not where a digest
    /// has to be seen first.
    fn start_early(&mut self, sink: Sink, header: &Header, outside: &mut dyn Outside) {
        let Sink::Task { tag, .. } = sink else { return };
        let is_early = header.is_final() && header.data_bytes() >= EARLY_BYTES && !self.parameters.data_digest;
        let Some(task) = self.tasks.get_mut(tag) else { return };
        if let (true, None, Some(burst)) = (is_early, task.fault, &mut task.burst) {
            burst.end = header.data_bytes();
            self.start(tag, outside);
        }
    }

    /// Everything that the initiator sends unasked is there, or comes with the PDU that is being received.
    pub(super) fn start(&mut self, tag: Tag, outside: &mut dyn Outside) {
        let must_wait = self.tasks.must_wait(tag);
        let Some(task) = self.tasks.get_mut(tag) else { return };
        task.waits_since = outside.now();
        if let Some(sense) = task.fault {
            self.fail(tag, sense, outside);
        } else if must_wait {
            task.state = State::AwaitsOrder;
        } else {
            self.execute(tag, outside);
        }
    }

    fn execute(&mut self, tag: Tag, outside: &mut dyn Outside) {
        let Some(task) = self.tasks.get_mut(tag) else { return };
        if task.attribute == Attribute::NotSupported {
            return self.fail(tag, Sense::TASK_ATTRIBUTE, outside);
        }
        let lun = lun::parse(task.lun);
        let plan = device::execute(&task.cdb, lun, outside.view(), &mut self.nexus, &mut self.answer);
        let prepared = match plan {
            Err(sense) => Err(sense),
            Ok(Plan::Done) => return self.answer_now(tag, outside),
            Ok(Plan::Parameters(bytes)) => task.take_parameters(bytes),
            Ok(Plan::Array(work)) => task.take_work(work),
        };
        match prepared {
            Err(sense) => self.fail(tag, sense, outside),
            Ok(()) => self.proceed(tag, outside),
        }
    }

    /// Does what can be done now of a task that has a plan: gathers its data, or gives it to the array.
    pub(super) fn proceed(&mut self, tag: Tag, outside: &mut dyn Outside) {
        let Some(task) = self.tasks.get_mut(tag) else { return };
        match task.work {
            Some(work) if work.range.blocks == 0 && work.step != Step::Sync => self.succeed(tag, outside),
            Some(Work {
                transfer: Transfer::OutFirst,
                ..
            })
            | None
                if task.data.len() < task.wanted as usize =>
            {
                task.state = State::AwaitsData;
                if task.burst.is_none() {
                    let (next, end) = (task.data.len() as u32, task.wanted);
                    self.request_data(tag, next, end);
                }
            }
            Some(_) => self.submit_if_room(tag, outside),
            None => {
                task.data.truncate(task.wanted as usize);
                match device::parameters(&task.cdb, lun::parse(task.lun), outside.view(), &task.data) {
                    Ok(()) => self.succeed(tag, outside),
                    Err(sense) => self.fail(tag, sense, outside),
                }
            }
        }
    }

    /// Gives a command to the array, unless its Data-In have to wait until the initiator has taken earlier ones. Tasks that
    /// move none pass those that wait: SIMPLE tasks are done in any order (mode page 0Ah), and ORDERED ones wait for them.
    fn submit_if_room(&mut self, tag: Tag, outside: &mut dyn Outside) {
        let bytes = self.tasks.get(tag).map_or(0, Task::data_in);
        let is_in_turn = bytes == 0 || !self.tasks.any_waits_for_room();
        if is_in_turn && self.has_room(bytes, outside) {
            self.submit(tag, outside);
        } else {
            self.tasks.wait_for_room(tag);
        }
    }

    /// Gives the array what waited for room and need not any more.
    pub(super) fn give_room(&mut self, outside: &mut dyn Outside) {
        while self.answers()
            && let Some(next) = self.tasks.next_for_room()
            && self.has_room(self.tasks.get(next).map_or(0, Task::data_in), outside)
        {
            self.submit(next, outside);
        }
    }

    fn submit(&mut self, tag: Tag, outside: &mut dyn Outside) {
        if self.may_be_overtaken(tag, outside) {
            self.tasks.end(tag);
            return self.finish();
        }
        self.tasks.enter_array(tag);
        let Some(task) = self.tasks.get_mut(tag) else { return };
        let Some(work) = task.work else { return };
        let op = work.step.op();
        let in_hand = match op {
            HostOp::Write { .. } => task.burst.map_or(task.data_end(), |burst| burst.end as usize),
            HostOp::Read | HostOp::Sync => 0,
        };
        let in_hand = (in_hand / BLOCK_BYTES) as u32;
        let command = Command {
            ncae: work.ncae,
            noid: work.noid,
            op,
            start: Vba(work.range.start),
            blocks: BlockCount(work.range.blocks),
            in_hand: BlockCount(in_hand.min(work.range.blocks)),
        };
        outside.submit(tag, command);
    }

    /// Whether it is too late to begin a write: it waited for earlier tasks, or for a block of which it writes a part.
    fn may_be_overtaken(&self, tag: Tag, outside: &dyn Outside) -> bool {
        let write = |task: &&Task| task.work.is_some_and(|work| matches!(work.step, Step::Write { .. }));
        let write = self.tasks.get(tag).filter(write);
        write.is_some_and(|task| outside.is_too_late(task.waits_since))
    }

    /// The array has done a step of a command.
    pub(super) fn step_done(&mut self, tag: Tag, result: Status, outside: &mut dyn Outside) {
        let answers = self.answers();
        let Some(task) = self.tasks.get_mut(tag).filter(|task| task.state == State::InArray) else {
            return;
        };
        task.fetch = None;
        task.burst = None;
        if task.is_aborted || !answers {
            return self.end_task(tag, outside);
        }
        if let Some(sense) = task.fault {
            return self.fail(tag, sense, outside);
        }
        match result {
            Status::Good => {
                if task.work.as_mut().is_some_and(Work::advance) {
                    self.submit(tag, outside);
                } else {
                    self.succeed(tag, outside);
                }
            }
            Status::Aborted => self.end_task(tag, outside),
            Status::Busy => self.respond(tag, status::BUSY, None, outside),
            Status::Transitioning => self.fail(tag, Sense::TRANSITION, outside),
            Status::NoSuchLun => self.fail(tag, Sense::NO_SUCH_LUN, outside),
            Status::OutOfRange => self.fail(tag, Sense::OUT_OF_RANGE, outside),
            Status::ReadError => self.fail(tag, Sense::READ_ERROR, outside),
            Status::WriteError => self.fail(tag, Sense::WRITE_ERROR, outside),
        }
    }

    /// The command is answered already: its Data-In is in `answer`.
    fn answer_now(&mut self, tag: Tag, outside: &mut dyn Outside) {
        let answer = std::mem::take(&mut self.answer);
        if let Some(task) = self.tasks.get_mut(tag) {
            task.transfer = answer.len() as u32;
        }
        self.data_in(tag, 0, &answer);
        self.answer = answer;
        self.succeed(tag, outside);
    }

    /// Status GOOD, in the last Data-In PDU where that is still possible.
    fn succeed(&mut self, tag: Tag, outside: &mut dyn Outside) {
        let Some(task) = self.tasks.get_mut(tag) else { return };
        let (flags, residual) = task.residual(true);
        let sent_all = task.sent > 0 && task.sent == task.transfer.min(task.expects_in);
        if !sent_all || !self.has_tail(tag) {
            return self.respond(tag, status::GOOD, None, outside);
        }
        let lun = self.tasks.end(tag); // with its status its place in the command window is free
        let numbers = self.status_header(opcode::DATA_IN, 0, NO_TAG);
        self.change_tail(|header| {
            header.0[1] |= STATUS | flags;
            header.0[24..36].copy_from_slice(&numbers.0[24..36]);
            header.set32(44, residual);
        });
        self.task_ended(lun, outside);
    }

    /// Status CHECK CONDITION.
    pub(super) fn fail(&mut self, tag: Tag, sense: Sense, outside: &mut dyn Outside) {
        self.respond(tag, status::CHECK_CONDITION, Some(sense), outside);
    }

    /// Sends a SCSI response; the task is over.
    fn respond(&mut self, tag: Tag, status: u8, sense: Option<Sense>, outside: &mut dyn Outside) {
        let Some(task) = self.tasks.get_mut(tag) else { return };
        let (flags, residual) = task.residual(status == status::GOOD);
        let (task_tag, sequence) = (task.task_tag, task.sequence);
        let lun = self.tasks.end(tag);
        let mut header = self.status_header(opcode::SCSI_RESPONSE, FINAL | flags, task_tag);
        header.0[3] = status;
        header.set32(36, sequence); // ExpDataSN
        header.set32(44, residual);
        match sense {
            None => self.send(header, &[]),
            Some(sense) => {
                let fixed = sense.fixed();
                let mut segment = [0; 2 + crate::scsi::sense::FIXED_BYTES];
                segment[1] = fixed.len() as u8;
                segment[2..].copy_from_slice(&fixed);
                self.send(header, &segment);
            }
        }
        self.task_ended(lun, outside);
    }

    /// A task is over without a response.
    pub(super) fn end_task(&mut self, tag: Tag, outside: &mut dyn Outside) {
        let lun = self.tasks.end(tag);
        self.drained(tag);
        self.task_ended(lun, outside);
    }

    /// Begins what waited for a task of `lun` that is over.
    pub(super) fn task_ended(&mut self, lun: Option<NcaeIndex>, outside: &mut dyn Outside) {
        while self.answers()
            && let Some(next) = self.tasks.next_in_order(lun)
        {
            self.execute(next, outside);
        }
        self.give_room(outside);
    }
}

impl Task {
    /// The command needs a parameter list of `bytes` bytes.
    fn take_parameters(&mut self, bytes: usize) -> Result<(), Sense> {
        self.transfer = bytes as u32;
        self.is_out = true;
        self.wanted = self.transfer;
        match self.expects_out < self.wanted {
            true => Err(Sense::INVALID_INFORMATION_UNIT),
            false => Ok(()),
        }
    }

    fn take_work(&mut self, mut work: Work) -> Result<(), Sense> {
        let bytes = work.range.blocks.saturating_mul(BLOCK_BYTES as u32);
        self.transfer = match work.transfer {
            Transfer::None => 0,
            Transfer::In | Transfer::Out | Transfer::OutFirst => bytes,
        };
        self.is_out = matches!(work.transfer, Transfer::Out | Transfer::OutFirst);
        if self.is_out {
            self.wanted = bytes.min(self.expects_out);
            if self.wanted < bytes {
                work.truncate(self.wanted)?;
            }
            // Data beyond what the CDB names are none of its business.
            self.data.truncate(self.wanted as usize);
        }
        self.work = Some(work);
        Ok(())
    }

    /// Residual flag and count (11.4.5): how what was moved differs from what the initiator expected.
    fn residual(&self, is_good: bool) -> (u8, u32) {
        let expected = match (self.transfer, self.is_out) {
            (0, _) => self.expects_in.max(self.expects_out),
            (_, true) => self.expects_out,
            (_, false) => self.expects_in,
        };
        let moved = if is_good || self.is_out {
            self.transfer
        } else {
            self.sent
        };
        match moved.cmp(&expected) {
            std::cmp::Ordering::Equal => (0, 0),
            std::cmp::Ordering::Greater => (OVERFLOW, moved - expected),
            std::cmp::Ordering::Less => (UNDERFLOW, expected - moved),
        }
    }
}
