//! Data-Out: what a write needs from the initiator, unasked or asked for with R2T (RFC 7143, 11.7 and 11.8)

use super::pdu::{FINAL, Header, Reason, opcode};
use super::session::{IscsiSession, Sink};
use super::task::{Burst, State};
use crate::scsi::device::Transfer;
use crate::scsi::sense::Sense;
use crate::session::{Outside, Tag};
use twincell_core::ids::{BLOCK_BYTES, BlockCount};

/// A target transfer tag: the task's slot and its generation, of which the top bit is left out so that no tag is
/// the reserved one.
fn transfer_tag(tag: Tag, generation: u16) -> u32 {
    u32::from(generation & 0x7fff) << 16 | tag.0 & 0xffff
}

impl IscsiSession {
    /// A Data-Out PDU begins. What belongs to a task that is over is dropped: it was aborted while data were on
    /// their way.
    pub(super) fn begin_data_out(&mut self, header: &Header, outside: &mut dyn Outside) -> Sink {
        let Some(tag) = self.tasks.find(header.task_tag()) else {
            return Sink::Discard;
        };
        let Some(task) = self.tasks.get_mut(tag) else {
            return Sink::Discard;
        };
        if task.is_aborted || task.fault.is_some() {
            return Sink::Discard;
        }
        let generation = task.generation;
        let Some(burst) = task.burst.filter(|burst| burst.transfer_tag == header.transfer_tag()) else {
            self.reject(Reason::InvalidField);
            return Sink::Discard;
        };
        let end = header.get32(40).checked_add(header.data_bytes());
        let is_next = header.get32(36) == burst.data_sn && header.get32(40) == burst.next;
        if !is_next || end.is_none_or(|end| end > burst.end) {
            self.data_fault(tag, outside);
            return Sink::Discard;
        }
        Sink::Task { tag, generation }
    }

    /// Data of a task that is still the one of `generation`.
    pub(super) fn task_data(&mut self, tag: Tag, generation: u16, bytes: &[u8], outside: &mut dyn Outside) {
        let Some(task) = self.tasks.get_mut(tag).filter(|task| task.generation == generation) else {
            return;
        };
        if task.is_aborted || task.fault.is_some() || bytes.is_empty() {
            return;
        }
        let Some(burst) = &mut task.burst else { return };
        let offset = burst.next;
        match task.state {
            State::AwaitsUnsolicited | State::AwaitsOrder => {
                burst.next += bytes.len() as u32;
                task.keep(offset, bytes);
            }
            State::AwaitsData | State::InArray => {
                let of_fetch = task.wants_next().map_or(0, |(_, wanted)| wanted.min(bytes.len()));
                let (now, later) = bytes.split_at(of_fetch);
                if !now.is_empty() {
                    outside.data(tag, offset.into(), now);
                    self.fetch_goes_on(tag, of_fetch as u32, outside);
                }
                self.keep_wanted(tag, later);
            }
            State::AwaitsRoom | State::Free => {}
        }
    }

    /// So many more bytes of what the array waits for have come, and are where they belong.
    pub(super) fn fetch_goes_on(&mut self, tag: Tag, bytes: u32, outside: &mut dyn Outside) {
        let Some(task) = self.tasks.get_mut(tag) else { return };
        let Some(burst) = &mut task.burst else { return };
        burst.next += bytes;
        if task.fetch.is_some_and(|end| end <= burst.next) {
            task.fetch = None;
            outside.fetched(tag, true);
        }
    }

    /// Keeps data that are not wanted yet. Those beyond what the CDB names are none of its business.
    fn keep_wanted(&mut self, tag: Tag, bytes: &[u8]) {
        let Some(task) = self.tasks.get_mut(tag).filter(|_| !bytes.is_empty()) else {
            return;
        };
        let Some(burst) = &mut task.burst else { return };
        let offset = burst.next;
        burst.next += bytes.len() as u32;
        let wanted = task.wanted.saturating_sub(offset) as usize;
        task.keep(offset, &bytes[..wanted.min(bytes.len())]);
    }

    /// The end of a command PDU or a Data-Out PDU.
    pub(super) fn end_data_pdu(&mut self, tag: Tag, generation: u16, is_final: bool, outside: &mut dyn Outside) {
        let is_command = self.receives_command();
        let Some(task) = self.tasks.get_mut(tag).filter(|task| task.generation == generation) else {
            return;
        };
        let Some(burst) = &mut task.burst else { return };
        if !is_command {
            burst.data_sn += 1;
        }
        let is_whole = burst.next == burst.end;
        match task.state {
            State::AwaitsUnsolicited if is_final || task.fault.is_some() => {
                task.burst = None;
                self.start(tag, outside);
            }
            State::AwaitsData | State::InArray if is_whole => {
                let next = burst.next;
                task.burst = None;
                self.burst_done(tag, next, outside);
            }
            State::AwaitsData | State::InArray if is_final => {
                self.data_fault(tag, outside);
            }
            State::AwaitsOrder => task.burst = None,
            _ => {}
        }
    }

    /// What was asked for is there, up to `next`.
    fn burst_done(&mut self, tag: Tag, next: u32, outside: &mut dyn Outside) {
        let Some(task) = self.tasks.get_mut(tag) else { return };
        match (task.state, task.fetch) {
            (State::AwaitsData, _) => self.proceed(tag, outside),
            (_, Some(end)) => self.request_data(tag, next, end),
            (_, None) => {}
        }
    }

    /// The initiator does not send what it should: the command fails.
    fn data_fault(&mut self, tag: Tag, outside: &mut dyn Outside) {
        let Some(task) = self.tasks.get_mut(tag) else { return };
        task.burst = None;
        if task.state != State::InArray {
            return self.fail(tag, Sense::INCORRECT_AMOUNT_OF_DATA, outside);
        }
        task.fault = Some(Sense::INCORRECT_AMOUNT_OF_DATA);
        if task.fetch.take().is_some() {
            outside.fetched(tag, false);
        }
        outside.abort(tag);
    }

    /// The array wants data of a write: it gets what is in hand, and the initiator is asked for the rest.
    pub(super) fn fetch_data(&mut self, tag: Tag, offset: BlockCount, blocks: BlockCount, outside: &mut dyn Outside) {
        let start = offset.index().saturating_mul(BLOCK_BYTES);
        let end = start.saturating_add(blocks.index().saturating_mul(BLOCK_BYTES));
        let Some(task) = self.tasks.get_mut(tag) else {
            return outside.fetched(tag, false);
        };
        let all = task.work.map_or(0, |work| work.range.blocks as usize * BLOCK_BYTES);
        if task.is_aborted || task.fault.is_some() || !task.is_out || end > all {
            return outside.fetched(tag, false);
        }
        let (from, data_end) = (task.data_from as usize, task.data_end());
        let is_here = (from..data_end).contains(&start);
        let in_hand = if is_here { end.min(data_end) } else { start };
        if in_hand > start {
            outside.data(tag, start as u64, &task.data[start - from..in_hand - from]);
        }
        if in_hand == data_end && task.work.is_some_and(|work| work.transfer == Transfer::Out) {
            // What comes from now on need not follow it.
            task.data.clear();
        }
        if in_hand == end {
            return outside.fetched(tag, true);
        }
        task.fetch = Some(end as u32);
        if task.burst.is_none() {
            self.request_data(tag, in_hand as u32, end as u32);
        }
    }

    /// Asks the initiator for data from byte `next` on, not beyond `end` and no more than a burst (R2T).
    pub(super) fn request_data(&mut self, tag: Tag, next: u32, end: u32) {
        let end = end.min(next.saturating_add(self.parameters.max_burst_length));
        let mut header = self.plain_header(opcode::R2T, FINAL, 0);
        header.set32(24, self.stat_sn());
        let Some(task) = self.tasks.get_mut(tag) else { return };
        let transfer_tag = transfer_tag(tag, task.generation);
        task.burst = Some(Burst {
            transfer_tag,
            next,
            end,
            data_sn: 0,
        });
        header.0[8..16].copy_from_slice(&task.lun);
        header.set32(16, task.task_tag);
        header.set32(20, transfer_tag);
        header.set32(36, task.sequence);
        header.set32(40, next);
        header.set32(44, end - next);
        task.sequence += 1;
        self.send(header, &[]);
    }
}
