//! Commands that arrive at the controller that does not own the LUN: forwarded to the owner by an extended call
//! [0072], in portions of at most 256 blocks, and answered by it.
//!
//! The data lie meanwhile in a transfer buffer here; the owner's transfer buffer is named by this side [0070].

use crate::cache::Copies;
use crate::controller::{Core, Violation};
use crate::effect::Effect;
use crate::host::{HostOp, Status};
use crate::htb::{Htb, Origin, Portion, Stage};
use crate::ids::{ATOMIC_BLOCKS, BlockCount, LUNS_MAX, Nanos, TransferIndex};
use crate::link::frame::{Request, Response, XmfcId};
use crate::link::mfcd::Mfcd;
use crate::mark::mark;
use crate::memory::Memory;
use crate::mutant;
use crate::read::read_memory;
use crate::write::Lacks;

/// An extended call that awaits its response: an entry of the system-wide list [0073].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Call {
    /// A forwarded portion of this command; with the owner's transfer buffer.
    Forward {
        /// The command.
        htb: u32,
        /// The owner's transfer buffer.
        remote: TransferIndex,
    },
    /// An operator's request that the partner carries out.
    Manage,
}

/// How long nothing is forwarded after the owner could not take a command: it is between two records.
const FORWARDS_REST: Nanos = Nanos::from_millis(1);

impl Core {
    /// The next portion of a command goes to the owner, once there is memory for it on both sides.
    pub(crate) fn admit_forward(&mut self, h: u32) -> Lacks {
        if !self.link.is_up() || self.calls.free() == 0 || self.forwards_rest_until.is_some() {
            return Lacks::Leave;
        }
        if self.remote_transfers.is_empty() {
            // What is read here needs none of the owner's. It must not wait for this: the partner's commands may wait for it.
            mark!("a forwarded command waits for a transfer buffer");
            return if mutant::is("reads-wait-for-forwards") {
                Lacks::Transfer
            } else {
                Lacks::Leave
            };
        }
        if self.free_transfers.is_empty() && self.htb(h).transfer.is_none() {
            return Lacks::Transfer;
        }
        // One whose data are here has a part of the share, and waits for none of the others.
        if !self.htb(h).data_in_transfer && self.disks_have_their_share(h) {
            return Lacks::Leave;
        }
        if self.htb(h).transfer.is_none() && self.is_last_transfer() {
            return Lacks::Spare;
        }
        if self.htb(h).transfer.is_none() {
            self.htb_mut(h).transfer = self.free_transfers.pop();
        }
        let htb = self.htb_mut(h);
        htb.portion = Portion {
            start: htb.next_block(),
            blocks: htb.left().min(ATOMIC_BLOCKS),
            ..Portion::default()
        };
        htb.stage = Stage::AwaitOwner;
        let (origin, offset, blocks) = (htb.origin, htb.done, htb.portion.blocks);
        let fetch = matches!(htb.op, HostOp::Write { .. }) && !htb.data_in_transfer;
        match origin {
            Origin::Host(id) if fetch => {
                let again = mutant::is("forward-the-beginning-again");
                let offset = if again { 0 } else { offset };
                let into = self.forward_memory(h, blocks);
                self.fetch(h, id, BlockCount(offset), into);
            }
            _ => self.call_owner(h),
        }
        Lacks::Nothing
    }

    /// Whether only one transfer buffer is left, of several: it is for reads here. The partner's commands may wait behind one that
    /// lacks it, and what is forwarded from here behind one of the partner's.
    fn is_last_transfer(&self) -> bool {
        let own = usize::from(self.geometry().transfers) - self.partners_transfers();
        own > 1 && self.free_transfers.len() == 1 && !mutant::is("forward-with-the-last-transfer")
    }

    /// Whether so much was forwarded that lies on the same disks that of the owner's transfer buffers too few would be left for
    /// what lies on others, if those disks do not answer.
    fn disks_have_their_share(&mut self, h: u32) -> bool {
        let wanted = self.next_disks(h);
        if self.disks_with_their_share.contains(&wanted) {
            return true;
        }
        let is_same = |other: u32| self.next_disks(other).iter().any(|d| wanted.contains(d));
        let all = self.partners_transfers();
        let share = (all - (all / 4).max(1)).max(1);
        // One that came later may wait for this one, although its data are here already.
        let mut earlier = true;
        let has_part = |o: &&u32| {
            earlier &= **o != h;
            **o != h && self.has_part_of_what_is_lent(**o, earlier)
        };
        let has = self.order.iter().filter(has_part).filter(|o| is_same(**o)).count();
        let is_out = has >= share && !mutant::is("one-disk-has-all-that-is-lent");
        if is_out {
            // Until all have had their turn nobody's part comes free. Of more than fit some are counted once more.
            _ = self.disks_with_their_share.try_push(wanted);
        }
        is_out
    }

    /// The disks on which the next block of a command lies. None if its LUN went while the owner still has it.
    fn next_disks(&self, h: u32) -> Copies {
        let htb = self.htb(h);
        let at = if htb.op == HostOp::Sync {
            htb.start.0
        } else {
            htb.next_block()
        };
        let lun = self.lun(htb.ncae).filter(|l| l.noid == htb.noid && at < l.blocks);
        lun.map_or(Copies::new(), |_| self.disks_of_block(htb.ncae, at))
    }

    /// Whether a command has one of the owner's transfer buffers, or takes one as soon as its data are here; or is to have one next.
    fn has_part_of_what_is_lent(&self, h: u32, earlier: bool) -> bool {
        let htb = self.htb(h);
        let has = htb.stage == Stage::AwaitOwner && (htb.fetching.is_none() || !mutant::is("who-fetches-has-no-share"));
        let is_next = earlier && htb.stage == Stage::AwaitTurn && htb.data_in_transfer && !self.owns(htb.ncae);
        has || is_next
    }

    pub(crate) fn forward_memory(&self, h: u32, blocks: u32) -> Memory {
        let htb = self.htb(h);
        let transfer = htb.transfer.expect("admit_forward took it");
        match htb.op {
            HostOp::Read => read_memory(transfer, htb.portion.start, blocks),
            _ => Memory::Transfer {
                transfer,
                first: 0,
                blocks: blocks as u16,
            },
        }
    }

    /// The data of a forwarded write are here, or will not come.
    pub(crate) fn on_forward_data(&mut self, h: u32, complete: bool) {
        if !complete || self.may_be_withdrawn(h) {
            // It leaves its part of the share to others.
            self.turn_may_have_come = true;
            return self.finish(h, Status::Aborted);
        }
        let came_at = self.may_have_come_at();
        let htb = self.htb_mut(h);
        htb.data_in_transfer = true;
        if htb.done + htb.portion.blocks > htb.in_hand.0 {
            // Its host has sent them since it was asked, and so shown that this path works.
            htb.waits_since = htb.waits_since.max(came_at);
        }
        if self.owns(self.htb(h).ncae)
            || !self.link.is_up()
            || self.remote_transfers.is_empty()
            || self.calls.free() == 0
        {
            // Meanwhile the owner changed, the link broke, or others were quicker.
            self.await_turn_again(h);
        } else {
            self.call_owner(h);
        }
    }

    fn call_owner(&mut self, h: u32) {
        let remote = self.remote_transfers.pop().expect("the caller looked");
        // Who waits for a spare transfer buffer waits for one of the owner's now, and nobody behind it for that.
        self.turn_may_have_come |= self.remote_transfers.is_empty();
        let (index, generation) = self.calls.take(Call::Forward { htb: h, remote });
        let id = XmfcId {
            index: index as u16,
            generation: generation as u16,
        };
        let write = matches!(self.htb(h).op, HostOp::Write { .. });
        self.link.request(Mfcd::Forward { call: id, write });
    }

    /// R12: what waits for a frame is not sent any more once its host has withdrawn it.
    pub(crate) fn recall(&mut self, h: u32) {
        let htb = self.htb(h);
        let left = htb.portion.requested || mutant::is("send-what-was-withdrawn");
        if htb.stage != Stage::AwaitOwner || left || htb.may_be_done {
            return;
        }
        if self.take_back_call(h) {
            mark!("a command is recalled before it was sent");
            self.finish(h, Status::Aborted);
        }
    }

    /// The call of a command that was not sent, if it has one, is void.
    pub(crate) fn take_back_call(&mut self, h: u32) -> bool {
        let of = |(_, c): &(u32, &Call)| matches!(c, Call::Forward { htb, .. } if *htb == h);
        let Some((index, Call::Forward { remote, .. })) = self.calls.iter().find(of).map(|(n, call)| (n, *call)) else {
            return false;
        };
        self.calls.give_back(index);
        self.remote_transfers.push(remote);
        self.turn_may_have_come = true;
        true
    }

    /// The owner has answered.
    pub(crate) fn on_response(&mut self, id: XmfcId, response: Response, payload: BlockCount) -> Result<(), Violation> {
        let index = u32::from(id.index);
        let known = self.calls.get(index).copied();
        let Some(call) = known.filter(|_| self.calls.is_current_16(index, id.generation)) else {
            return Err(Violation("a response to a call that was not made"));
        };
        match (call, response) {
            (Call::Forward { htb, remote }, Response::Forwarded(status)) => {
                self.calls.give_back(index);
                if !mutant::is("leak-a-remote-transfer") {
                    self.remote_transfers.push(remote);
                }
                self.turn_may_have_come = true;
                self.on_forwarded(htb, status, payload)
            }
            (Call::Manage, Response::Managed(result)) => {
                self.calls.give_back(index);
                self.turn_may_have_come = true;
                self.on_managed_by_partner(index, result);
                Ok(())
            }
            _ => Err(Violation("a response of the wrong kind")),
        }
    }

    fn on_forwarded(&mut self, h: u32, status: Status, payload: BlockCount) -> Result<(), Violation> {
        let htb = self.htb(h);
        let (blocks, is_read) = (htb.portion.blocks, htb.op == HostOp::Read);
        match status {
            Status::Good => {}
            // The owner changed; where to, this controller hears or has heard.
            Status::Transitioning | Status::Busy => {
                self.forwards_rest_until = Some(self.now + FORWARDS_REST);
                self.await_turn_again(h);
                return Ok(());
            }
            status => {
                self.finish(h, status);
                return Ok(());
            }
        }
        if is_read {
            if payload.0 != blocks {
                self.await_turn_again(h);
                return Err(Violation("a read was answered with another length"));
            }
            let into = self.forward_memory(h, blocks);
            self.effects.push(Effect::Absorb { into });
            if let Origin::Host(id) = self.htb(h).origin {
                let offset = BlockCount(self.htb(h).done);
                self.effects.push(Effect::SendData { id, offset, from: into });
            }
        }
        let now = self.now;
        let htb = self.htb_mut(h);
        htb.done += blocks;
        htb.data_in_transfer = false;
        htb.may_be_done = false;
        if htb.left() > 0 {
            htb.await_next_turn(now);
            self.turn_may_have_come = true;
        } else if htb.withdrawn && mutant::is("withdrawn-though-done") {
            self.finish(h, Status::Aborted);
        } else {
            self.finish(h, Status::Good);
        }
        Ok(())
    }

    /// The owner may be able to take commands again.
    pub(crate) fn settle_forwards(&mut self) {
        if self.forwards_rest_until.take_if(|at| *at <= self.now).is_some() {
            self.turn_may_have_come = true;
        }
    }

    fn await_turn_again(&mut self, h: u32) {
        self.htb_mut(h).stage = Stage::AwaitTurn;
        self.turn_may_have_come = true;
    }

    /// The partner's host has a command for a LUN that this controller owns.
    pub(crate) fn on_forward(&mut self, id: XmfcId, request: Request, payload: BlockCount) -> Result<(), Violation> {
        let Request::Forward {
            op,
            noid,
            ncae,
            start,
            blocks,
            transfer,
            epoch,
        } = request
        else {
            return Err(Violation("not a forwarded command"));
        };
        let is_write = matches!(op, HostOp::Write { .. });
        let here = self.named_by_partner(transfer);
        let sound = ncae.index() < LUNS_MAX
            && blocks.0 <= ATOMIC_BLOCKS
            && !(is_write && blocks.0 == 0)
            && payload.0 == if is_write { blocks.0 } else { 0 };
        let Some(transfer) = here.filter(|_| sound) else {
            return Err(Violation("a forwarded command that makes no sense"));
        };
        if is_write {
            let into = Memory::Transfer {
                transfer,
                first: 0,
                blocks: blocks.0 as u16,
            };
            self.effects.push(Effect::Absorb { into });
        }
        let stale = epoch != self.epoch() || !self.owns(ncae) || !self.is_serving() || self.htbs.free() == 0;
        let stale = stale.then_some(Status::Transitioning);
        let refusal = self.refusal(ncae, noid, start, blocks);
        // By another record the LUN may be another, or larger.
        let status = match stale {
            Some(_) if mutant::is("refuse-by-another-record") => refusal.or(stale),
            _ => stale.or(refusal),
        };
        if let Some(status) = status {
            let (call, read) = (id, None);
            self.link.request(Mfcd::Forwarded { call, status, read });
            return Ok(());
        }
        self.enqueue(Htb {
            in_hand: blocks,
            transfer: Some(transfer),
            data_in_transfer: is_write,
            ..Htb::new(Origin::Partner(id), ncae, noid, op, start, blocks)
        });
        Ok(())
    }

    /// The partner is out of reach: calls of both directions are void [0073]. Commands that it was to carry out wait
    /// for their turn again, with their data still here.
    pub(crate) fn forget_calls(&mut self) {
        self.forget_asker();
        let open: Vec<u32> = self.calls.iter().map(|(index, _)| index).collect();
        for index in open {
            if mutant::is("leak-a-call") {
                continue;
            }
            match self.calls.give_back(index) {
                Call::Forward { htb, remote } => {
                    self.remote_transfers.push(remote);
                    let h = self.htb_mut(htb);
                    h.may_be_done |= matches!(h.op, HostOp::Write { .. }) && h.portion.requested;
                    self.await_turn_again(htb);
                }
                Call::Manage => self.on_managed_by_partner(index, Err(crate::manage::ManageError::Unknown)),
            }
        }
        for at in 0..self.order.len() {
            let h = self.order[at];
            if let Origin::Partner(_) = self.htb(h).origin
                && !mutant::is("answer-a-call-of-before")
            {
                self.htb_mut(h).origin = Origin::Nobody;
            }
        }
    }
}
