//! The routines of messages: by its function each message finds the one that builds it and the one that hears of its end
//! at the sender [0062], and the one that is called at the receiver [0061].

use super::frame::XmfcId;
use super::frame::{Mfc, Request, Response, Sequenced};
use super::mfcd::{Built, Mfcd, ReadData};
use crate::cell::Phase;
use crate::controller::{Core, Violation};
use crate::forward::Call;
use crate::host::{HostOp, Status};
use crate::ids::{BlockCount, ConnectionId, RieGeneration, RieIndex, TransferIndex, Vba};
use crate::list::List;
use crate::memory::Memory;
use crate::mirror::MnodeStage;
use crate::mutant;

impl Core {
    // ---- the sender ----

    /// Builds what is requested into frames, as far as the window has room, and sends again what is missing. Not while more
    /// is about to happen: then the messages of all of it share frames.
    pub(crate) fn flush_link(&mut self) {
        if self.link.may_wait() && self.phase == Phase::Serving {
            return;
        }
        self.link.send_again(self.now, &mut self.effects);
        while let Some(mfcd) = self.link.next_request() {
            match self.build(mfcd, self.link.room()) {
                Built::Message(mfc, payload) => {
                    self.note_requested(mfcd);
                    self.link.put(mfc, payload, true);
                    if payload.is_some() {
                        self.link.end_frame(self.now, &mut self.effects);
                    }
                }
                Built::First(mfc) => self.link.put(mfc, None, false),
                Built::TooLarge => self.link.end_frame(self.now, &mut self.effects),
                Built::Nothing => {
                    self.link.take_request();
                }
            }
        }
        self.link.end_frame(self.now, &mut self.effects);
        self.link.send_acknowledgement(self.now, &mut self.effects);
    }

    /// Builds the message of a request, of at most `room` bytes.
    fn build(&mut self, mfcd: Mfcd, room: usize) -> Built {
        // Until the fence is complete the writes in flight are mirrored still, but the partner that is met is another.
        if mfcd.is_for_mirror() && !self.is_mirroring() && !mutant::is("ask-whoever-returns") {
            return Built::Nothing;
        }
        if mutant::is("requested-before-it-fits") {
            self.note_requested(mfcd);
        }
        let built = match mfcd {
            Mfcd::Rqr { rie, generation, .. } => self.build_rqr(rie, generation),
            Mfcd::MirrorData { rie, generation } => self.build_mirror_data(rie, generation),
            Mfcd::Dss {
                rie,
                generation,
                attempt,
                status,
            } => message(Mfc::Dss {
                rie,
                generation,
                attempt,
                status,
            }),
            Mfcd::Withdraw { rie, generation } => message(Mfc::Withdraw { rie, generation }),
            Mfcd::Rtr { rie, generation } => self.build_for_mnode(rie, generation, |attempt| Mfc::Rtr {
                rie,
                generation,
                attempt,
            }),
            Mfcd::Dto { rie, generation } => self.build_for_mnode(rie, generation, |attempt| Mfc::Dto {
                rie,
                generation,
                attempt,
            }),
            Mfcd::Mda { rie, generation } => message(Mfc::Mda { rie, generation }),
            Mfcd::Release { .. } => return self.build_release(room),
            Mfcd::Attached => message(Mfc::Attached),
            Mfcd::Forward { call, .. } => self.build_forward(call),
            Mfcd::Forwarded { call, status, read } => forwarded(call, status, read),
            Mfcd::Prepared => self.link.next_prepared().map_or(Built::Nothing, |mfc| message(*mfc)),
        };
        match built {
            Built::Message(mfc, _) if mfc.bytes() > room => Built::TooLarge,
            built => built,
        }
    }

    /// The partner hears of a portion: what is requested is in a frame that leaves. One that did not fit may yet be recalled.
    fn note_requested(&mut self, mfcd: Mfcd) {
        let htb = match mfcd {
            Mfcd::Rqr { rie, generation, .. } => self.htb_of_rie(rie, generation),
            Mfcd::Forward { call, .. } => self.forwarded_by(call).map(|(h, _)| h),
            _ => None,
        };
        if let Some(h) = htb {
            self.htb_mut(h).portion.requested = true;
        }
    }

    /// The command that a call forwards, and the transfer buffer of the owner that it has.
    fn forwarded_by(&self, id: XmfcId) -> Option<(u32, TransferIndex)> {
        let index = u32::from(id.index);
        let current = self.calls.is_current_16(index, id.generation);
        match self.calls.get(index).filter(|_| current) {
            Some(Call::Forward { htb, remote }) => Some((*htb, *remote)),
            _ => None,
        }
    }

    fn build_rqr(&mut self, rie: RieIndex, generation: RieGeneration) -> Built {
        let h = self.htb_of_rie(rie, generation);
        let Some(h) = h.filter(|h| self.htb(*h).portion.mirrored) else {
            return Built::Nothing;
        };
        let p = &self.htb(h).portion;
        let payload = p.express.then(|| Memory::Buffers(p.sgl()));
        Built::Message(Mfc::Rqr(self.rqr(h)), payload)
    }

    /// The data for the reception that is armed now, if it is.
    fn build_mirror_data(&mut self, rie: RieIndex, generation: RieGeneration) -> Built {
        let portion = self.htb_of_rie(rie, generation).map(|h| &self.htb(h).portion);
        let Some((p, attempt)) = portion.and_then(|p| Some((p, p.attempt?))) else {
            return Built::Nothing;
        };
        let mfc = Mfc::MirrorData {
            rie,
            generation,
            attempt,
        };
        Built::Message(mfc, Some(Memory::Buffers(p.sgl())))
    }

    /// A message about a reception, if it is still armed.
    fn build_for_mnode(&self, rie: RieIndex, generation: RieGeneration, mfc: impl FnOnce(u8) -> Mfc) -> Built {
        let mnode = &self.mnodes[self.local_rie(rie)];
        let armed = mnode.stage == MnodeStage::AwaitMirrorData && mnode.rqr.is_some_and(|r| r.generation == generation);
        if armed {
            message(mfc(mnode.attempt))
        } else {
            Built::Nothing
        }
    }

    /// As many twins as fit.
    fn build_release(&mut self, room: usize) -> Built {
        let none: Mfc = Mfc::Release(List::new());
        let fit = room.saturating_sub(none.bytes()) / 4;
        if fit == 0 {
            return Built::TooLarge;
        }
        let (buffers, more) = self.destager.next_releases(fit);
        let mfc = Mfc::Release(buffers);
        if more {
            return Built::First(mfc);
        }
        if buffers.is_empty() || mutant::is("drop-releases") {
            return Built::Nothing;
        }
        message(mfc)
    }

    fn build_forward(&mut self, id: XmfcId) -> Built {
        let Some((h, remote)) = self.forwarded_by(id) else {
            return Built::Nothing;
        };
        let htb = self.htb(h);
        let request = Request::Forward {
            op: htb.op,
            noid: htb.noid,
            ncae: htb.ncae,
            start: Vba(htb.portion.start),
            blocks: BlockCount(htb.portion.blocks),
            transfer: remote,
            epoch: self.epoch(),
        };
        let payload = matches!(htb.op, HostOp::Write { .. }).then(|| self.forward_memory(h, htb.portion.blocks));
        Built::Message(Mfc::Request { id, request }, payload)
    }

    /// Calls the ack routines of what the partner has handled.
    pub(crate) fn call_ack_routines(&mut self) {
        while let Some(mfcd) = self.link.next_acknowledged() {
            match mfcd {
                Mfcd::Release { number } => self.destager.releases_are_heard(number),
                Mfcd::Attached => self.joiner_is_attached(),
                _ => {}
            }
        }
    }

    // ---- the receiver ----

    /// A frame of messages arrived: it and what has come before it too early are handled, in order.
    pub(crate) fn on_sequenced(&mut self, connection: ConnectionId, frame: &Sequenced, payload: BlockCount) {
        let next = self.link.receive(connection, frame, payload.0, self.now);
        self.call_ack_routines();
        if next {
            self.on_messages(frame.sequence, payload);
            while let Some(sequence) = self.link.next_held() {
                self.on_messages(sequence, BlockCount(0));
            }
        }
    }

    fn on_messages(&mut self, sequence: u32, payload: BlockCount) {
        let count = self.link.arrived(sequence).len();
        for n in 0..count {
            if !self.link.is_up() || self.is_out_and_hears_no_more() {
                return;
            }
            let mfc = self.link.arrived(sequence)[n];
            let payload = if n + 1 == count { payload } else { BlockCount(0) };
            if self.on_mfc(&mfc, payload).is_err() {
                self.drop_link();
            }
        }
    }

    /// One message may be the reason to go; those that came with it are for whoever comes next, or nobody.
    fn is_out_and_hears_no_more(&self) -> bool {
        self.phase == Phase::Out && !mutant::is("who-is-out-hears-the-rest")
    }

    /// Calls the routine of a message [0061].
    fn on_mfc(&mut self, mfc: &Mfc, payload: BlockCount) -> Result<(), Violation> {
        match mfc {
            Mfc::Rqr(rqr) => return self.on_rqr(*rqr, payload),
            Mfc::Rtr {
                rie,
                generation,
                attempt,
            } => self.on_rtr(*rie, *generation, *attempt),
            Mfc::MirrorData {
                rie,
                generation,
                attempt,
            } => {
                return self.on_mirror_data(*rie, *generation, *attempt, payload);
            }
            Mfc::Mda { rie, generation } => self.on_mda(*rie, *generation),
            Mfc::Dto {
                rie,
                generation,
                attempt,
            } => self.on_dto(*rie, *generation, *attempt),
            Mfc::Dss {
                rie,
                generation,
                attempt,
                status,
            } => return self.on_dss(*rie, *generation, *attempt, *status),
            Mfc::Withdraw { rie, generation } => return self.on_withdraw(*rie, *generation),
            Mfc::Release(buffers) => return self.on_release(buffers),
            Mfc::LevelRies(ries) => return self.on_level_ries(ries),
            Mfc::LevelLacks(ries) => return self.on_level_lacks(ries),
            Mfc::LevelBuffers { first, valid } => return self.on_level_buffers(*first, valid),
            Mfc::LevelEnd => return self.on_level_end(),
            Mfc::Leveled(level) => return self.on_leveled(*level),
            Mfc::Attach { image } => return self.on_attach(*image),
            Mfc::Unfenced => return self.on_unfenced(),
            Mfc::Attached => return self.on_attached(),
            Mfc::RecordIs(record) => self.on_record_is(*record),
            Mfc::RecordAdopted(epoch) => self.on_record_adopted(*epoch),
            Mfc::Leaving => self.on_leaving(),
            Mfc::Request { id, request } => match request {
                Request::Forward { .. } => return self.on_forward(*id, *request, payload),
                Request::Manage(op) => self.on_managed_for_partner(*id, *op),
            },
            Mfc::Response { id, response } => return self.on_response(*id, *response, payload),
        }
        Ok(())
    }
}

fn message(mfc: Mfc) -> Built {
    Built::Message(mfc, None)
}

fn forwarded(id: XmfcId, status: Status, read: Option<ReadData>) -> Built {
    let response = Response::Forwarded(status);
    let payload = read.map(|r| Memory::Transfer {
        transfer: r.transfer,
        first: r.first,
        blocks: r.blocks,
    });
    Built::Message(Mfc::Response { id, response }, payload)
}
