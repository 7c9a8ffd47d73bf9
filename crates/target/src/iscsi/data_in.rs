//! Data-In: what a read sends to the initiator (RFC 7143, 11.7)

use super::pdu::{FINAL, NO_TAG, opcode};
use super::session::IscsiSession;
use crate::scsi::device::{ReadBlocks, Step};
use crate::scsi::sense::Sense;
use crate::session::Tag;
use twincell_core::ids::{BLOCK_BYTES, BlockCount};

impl IscsiSession {
    /// The array has read blocks for a command.
    pub(super) fn blocks_read(&mut self, tag: Tag, offset: BlockCount, bytes: &[u8]) {
        let Some(task) = self.tasks.get_mut(tag) else { return };
        if task.is_aborted {
            return;
        }
        let at = offset.index().saturating_mul(BLOCK_BYTES);
        match task.work.map(|work| work.step) {
            Some(Step::Read(ReadBlocks::Send)) => self.data_in(tag, at as u32, bytes),
            Some(Step::Read(ReadBlocks::Compare)) => {
                let from_host = task.data.get(at..).and_then(|data| data.get(..bytes.len()));
                if from_host != Some(bytes) {
                    task.fault = Some(Sense::MISCOMPARE);
                }
            }
            Some(Step::Read(ReadBlocks::Complete)) => {
                let from_host = task.data.len().saturating_sub(at).min(bytes.len());
                task.data.extend_from_slice(&bytes[from_host..]);
            }
            _ => {}
        }
    }

    /// Sends Data-In PDUs, as far as the initiator is ready for so much. `bytes` belong at byte `offset`.
    pub(super) fn data_in(&mut self, tag: Tag, mut offset: u32, bytes: &[u8]) {
        let segment_max = self.parameters.max_recv_data_segment_length;
        let burst_max = self.parameters.max_burst_length;
        let plain = self.plain_header(opcode::DATA_IN, 0, NO_TAG);
        let Some(task) = self.tasks.get_mut(tag) else { return };
        let limit = task.transfer.min(task.expects_in);
        let mut rest = &bytes[..bytes.len().min((limit - task.sent) as usize)];
        self.tasks.gave(tag, rest.len());
        while !rest.is_empty() {
            let Some(task) = self.tasks.get_mut(tag) else { return };
            let most = segment_max.min(burst_max - task.sent_of_burst) as usize;
            let (piece, after) = rest.split_at(rest.len().min(most));
            rest = after;
            let mut header = plain;
            header.set32(16, task.task_tag);
            header.set32(20, NO_TAG);
            header.set32(36, task.sequence);
            header.set32(40, offset);
            task.sequence += 1;
            task.sent += piece.len() as u32;
            task.sent_of_burst += piece.len() as u32;
            offset += piece.len() as u32;
            if task.sent == limit || task.sent_of_burst == burst_max {
                header.0[1] = FINAL;
                task.sent_of_burst = 0;
            }
            self.send_tail(tag, header, piece);
        }
    }
}
