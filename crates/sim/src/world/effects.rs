//! What a core wants done is done.

use super::queue::Happening;
use super::shelf::Io;
use super::{MS, US, World};
use crate::fault::Fault;
use crate::plan::Mode as Promised;
use crate::process::{Commit, NvMemory, Stored};
use std::collections::VecDeque;
use twincell_core::cell::record::{Mode, Record};
use twincell_core::effect::Note;
use twincell_core::ids::Controller;
use twincell_core::memory::Memory;
use twincell_core::nv::resolve::resolve;
use twincell_core::{Effect, Event};

impl World {
    /// An epoch has one record, whoever says so (R1).
    fn check_record(&mut self, record: &Record) {
        let is_new = !self.records.contains_key(&record.epoch);
        let known = *self.records.entry(record.epoch).or_insert(*record);
        if known != *record {
            self.fail(format!("two records of one epoch: {known:?} and {record:?}"));
        }
        if is_new {
            self.newest_record_at = self.now;
            if record.mode == Mode::Both {
                self.memories_lost = [false; 2];
            }
            self.check_metadata();
        }
    }

    /// Carries out one effect. `payload` came with the frame that is being handled; `ready` takes answers that are there
    /// at once.
    pub(super) fn carry_out(
        &mut self,
        controller: Controller,
        id: u32,
        effect: &Effect,
        payload: &[u64],
        ready: &mut VecDeque<Event>,
    ) {
        let c = controller.index();
        match *effect {
            Effect::Store { address, word } => match self.nv_mut(c).store(address, word) {
                Ok(stored) => self.note_stored(controller, stored),
                Err(what) => self.fail(format!("{controller}: after this store to NV memory {what}")),
            },
            Effect::NewImage { uuid } => self.nv_mut(c).renew(uuid),
            Effect::Persist { token } => self.persist(controller, id, token, ready),
            Effect::Seal { buffer, mask } => self.nv_mut(c).seal(buffer.0, mask),
            Effect::Merge { from, to, mask } => self.nv_mut(c).merge(from, to, mask),
            Effect::Gather { from, transfer, first } => {
                let tags = self.read_memory(c, &Memory::Buffers(from));
                let to = Memory::transfer(transfer, first, &from);
                self.write_memory(c, &to, &tags);
            }
            Effect::Scatter { transfer, first, into } => {
                let from = Memory::transfer(transfer, first, &into);
                let tags = self.read_memory(c, &from);
                self.write_memory(c, &Memory::Buffers(into), &tags);
            }
            Effect::Absorb { into } => self.write_memory(c, &into, payload),
            Effect::Fetch {
                id: command,
                offset,
                into,
            } => self.fetch(controller, id, command, offset, into, ready),
            Effect::EndHost { id } => self.end_host(controller, id, ready),
            Effect::SendData {
                id: command,
                offset,
                from,
            } => {
                let tags = self.read_memory(c, &from);
                self.send_data(controller, command, offset, &tags);
            }
            Effect::Complete { id: command, status } => self.complete(controller, command, status),
            Effect::LinkSend { connection, frame } => self.link_send(controller, connection, frame),
            Effect::LinkClose { connection } => self.close_connection(connection, controller),
            Effect::DiskRead { io, disk, block, into } => {
                self.submit(controller, id, io, Io::Read { disk, block, into })
            }
            Effect::DiskWrite { io, disk, block, from } => {
                self.submit(controller, id, io, Io::Write { disk, block, from })
            }
            Effect::DiskFlush { io, disk } => self.submit(controller, id, io, Io::Flush(disk)),
            Effect::DiskProbe { io, disk, uuid } => self.submit(controller, id, io, Io::Probe(disk, uuid)),
            Effect::DiskZero {
                io,
                disk,
                block,
                blocks,
            } => self.submit(controller, id, io, Io::Zero { disk, block, blocks }),
            Effect::SlotRead { io, disk } => self.submit(controller, id, io, Io::SlotRead(disk)),
            Effect::SlotWrite { io, disk } => {
                let process = self.processes[c].as_ref().expect("it wants something");
                let slot = *process.core.slot_written_by(io).expect("what to write");
                self.check_record(&slot.record);
                self.slots_written += 1;
                if slot.voted > 0 {
                    self.be_hasty(&slot.proposal);
                }
                self.submit(controller, id, io, Io::SlotWrite(disk, Box::new(slot)));
            }
            Effect::MetadataRead { io, disk, copy } => self.submit(controller, id, io, Io::MetadataRead(disk, copy)),
            Effect::MetadataWrite { io, disk, copy } => {
                let process = self.processes[c].as_ref().expect("it wants something");
                let metadata = process.core.metadata_to_write().expect("what to write").clone();
                self.submit(controller, id, io, Io::MetadataWrite(disk, copy, Box::new(metadata)));
            }
            Effect::TakeLocks => self.processes[c].as_mut().expect("it wants something").wants_locks = true,
            Effect::Fence { process } => self.fence(controller, process),
            Effect::Unfence => {
                self.processes[c].as_mut().expect("it wants something").wants_fence = false;
                self.shelf.unlock(controller.other(), id);
            }
            Effect::CloseHosts => self.close_hosts(controller, ready),
            Effect::Serve => {
                self.serve(controller);
                if let Some(delay) = self.ends_after_serving[c].take() {
                    self.after(delay, Happening::Fault(Fault::Crash(controller)));
                }
            }
            Effect::ViewChanged => self.look_at_luns(controller),
            Effect::Reply { request, ref result } => {
                let process = self.processes[c].as_mut().expect("it wants something");
                if !process.requests.remove(&request) {
                    self.fail(format!("{controller} answers an operator's request that is over"));
                }
                self.check_reply(controller, request, result);
            }
            Effect::Restart => {
                self.end(controller);
                self.after(MS, Happening::Start(controller));
            }
            Effect::Exit => {
                self.end(controller);
                self.nv[c] = None;
                self.restart_later(controller);
            }
            Effect::Halt => {
                self.end(controller);
                self.restart_later(controller);
            }
            Effect::Note(ref note) => match note {
                Note::PartnerFenced => self.report.takeovers += 1,
                Note::Serving { mirrored } => self.note_alone(controller, !mirrored),
                Note::Mirrored => self.note_alone(controller, false),
                Note::LossAccepted { .. } => self.forget(self.is_loss_accepted),
                Note::ImageLost { both: true } => self.forget(self.memories_lost == [true; 2]),
                _ => {}
            },
        }
    }

    fn note_stored(&mut self, controller: Controller, stored: Stored) {
        if let Some(freed) = stored.freed {
            self.check_freed(controller, &freed);
        }
        let process = self.processes[controller.index()].as_mut().expect("it wants something");
        process
            .commits
            .extend(stored.committed.map(|(rie, tag)| Commit { rie, tag, token: None }));
    }

    /// All that was stored so far is durable, at once or some time later.
    fn persist(&mut self, controller: Controller, id: u32, token: u64, ready: &mut VecDeque<Event>) {
        let process = self.processes[controller.index()].as_mut().expect("it wants something");
        for commit in &mut process.commits {
            commit.token.get_or_insert(token);
        }
        let answer = Event::Persisted { token };
        if self.plan.slow_nv && !self.healing {
            let delay = self.damage.below(300 * US);
            self.after(delay, Happening::Event(controller, id, Box::new(answer)));
        } else {
            ready.push_back(answer);
        }
    }

    /// Hosts are accepted.
    fn serve(&mut self, controller: Controller) {
        let process = self.processes[controller.index()].as_mut().expect("it wants something");
        (process.serves, process.serving_since) = (true, self.now);
        self.note_serving(controller);
    }

    fn note_alone(&mut self, controller: Controller, is_alone: bool) {
        let process = self.processes[controller.index()].as_mut().expect("it wants something");
        process.alone_since = is_alone.then_some(self.now);
    }

    /// The cell has said that what was acknowledged until now may be lost. Within the promise it says so only where a script has
    /// lost that much, and nothing is forgotten.
    fn forget(&mut self, entitled: bool) {
        self.log(|| "--- the cell says that it may have lost data".into());
        if self.plan.mode != Promised::Chaos {
            if !entitled {
                self.fail("the cell says that it may have lost data, and had no reason to".into());
            }
            return;
        }
        let now = self.number;
        self.histories.iter_mut().for_each(|h| h.forget(now));
    }

    pub(super) fn nv_mut(&mut self, c: usize) -> &mut NvMemory {
        self.nv[c].as_mut().expect("a process has NV memory")
    }

    pub(super) fn read_memory(&mut self, c: usize, memory: &Memory) -> Vec<u64> {
        let nv = self.nv[c].as_ref().expect("a process has NV memory");
        self.processes[c].as_mut().expect("a process").read(nv, memory)
    }

    pub(super) fn write_memory(&mut self, c: usize, memory: &Memory, tags: &[u64]) {
        let nv = self.nv[c].as_mut().expect("a process has NV memory");
        self.processes[c].as_mut().expect("a process").write(nv, memory, tags);
    }

    /// After a crash right here, what `resolve` says must make sense: no damage, one valid buffer for each granule, and a seal on each.
    pub(super) fn check_image(&mut self, controller: Controller) {
        let nv = self.nv[controller.index()].as_ref().expect("a process has NV memory");
        if nv.is_flipped {
            return;
        }
        let resolved = resolve(&nv.image, self.geometry);
        let seals = resolved.iter().flatten().map(|v| nv.is_sealed(v.buffer, v.mask));
        let unsealed = seals.filter_map(Result::err).next();
        let granules = resolved.map(|valid| {
            let mut granules: Vec<_> = valid.iter().map(|v| (v.ncae, v.start)).collect();
            granules.sort();
            granules
        });
        if let Some(what) = unsealed {
            self.fail(format!("{controller}: in what a crash leaves {what}"));
        }
        match granules {
            Err(_) => self.fail(format!("{controller}: the image is damaged")),
            Ok(granules) => {
                if let Some(twice) = granules.windows(2).find(|w| w[0] == w[1]) {
                    self.fail(format!("{controller}: two valid buffers for {twice:?}"));
                }
            }
        }
    }
}
