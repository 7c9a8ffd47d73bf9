//! A core handles an event, and what it wants done is done. A process may end between any two of its effects.

use crate::scope::{FIRST_BLOCK, Scope};
use crate::world::{
    Arrival, Command, GEOMETRY, InFlight, Inbound, Io, Process, READ, World, Written, metadata, timing,
};
use std::collections::VecDeque;
use std::rc::Rc;
use twincell_core::config::Config;
use twincell_core::host::Status;
use twincell_core::ids::{
    BlockCount, CommandId, ConnectionId, Controller, DiskIndex, IoId, ProcessId, QUORUM_SPACE_BLOCKS, Time, Uuid,
};
use twincell_core::link::frame::Frame;
use twincell_core::list::List;
use twincell_core::memory::Memory;
use twincell_core::{Core, Effect, Event};

/// What a step can lead to: all goes well, or the process ends somewhere in it.
pub struct Outcomes<'a> {
    pub scope: &'a Scope,
    /// Worlds in which a process has ended on the way.
    pub ended: Vec<World>,
    /// Whether ends are wanted at all.
    pub faults: bool,
    /// What the cores did that is worth telling.
    pub story: Vec<String>,
}

/// What may not happen, in words.
pub type Failure = String;

impl World {
    /// Starts a controller's process.
    pub fn start(&mut self, c: Controller, outcomes: &mut Outcomes) -> Result<(), Failure> {
        let id = self.next_process;
        self.next_process += 1;
        self.restarts[c.index()] = false;
        let process = ProcessId {
            boot: Uuid(1),
            pid_namespace: 1,
            pid: id,
            start_time: u64::from(id),
        };
        let config = Config {
            controller: c,
            cell: Uuid(7),
            instance: Uuid(u128::from(id)),
            process,
            fresh_image: Uuid(1000 + u128::from(id)),
            geometry: GEOMETRY,
            timing: timing(),
            disks: 1,
            quorum: List::from_slice(&[DiskIndex(0)]),
        };
        let image = &self.nv[c.index()].image;
        let image = (!image.uuid.is_nil()).then(|| image.clone());
        self.processes[c.index()] = Some(Process::new(id, Core::new(config, image)));
        self.deliver(c, Event::Start, &[], outcomes)
    }

    /// A process ends: what it has submitted may still land, and what it has sent may still arrive.
    pub fn end(&mut self, c: Controller) {
        let Some(process) = self.processes[c.index()].take() else {
            return;
        };
        for id in &process.commands {
            self.give_up(id.index as usize);
        }
        if self.connection.is_some() {
            self.close_link();
        }
        self.inbound[c.index()].clear();
        let reads = |io: &InFlight| io.process == process.id && !io.what.writes();
        self.in_flight.retain(|io| !reads(io));
        self.poll_locks();
    }

    fn give_up(&mut self, command: usize) {
        if self.commands[command] == Command::Open {
            self.commands[command] = Command::Over;
            if command == READ {
                self.register.give_up_read();
            }
        }
    }

    /// The connection is over for both. What was sent and has not arrived may still arrive before its end does.
    pub fn close_link(&mut self) {
        if let Some(connection) = self.connection.take() {
            for inbound in &mut self.inbound {
                inbound.push_back(Inbound::Closed(connection));
            }
        }
    }

    /// Locks of processes that are gone, with nothing in flight, are free; who waits gets them.
    pub fn poll_locks(&mut self) {
        for holder in 0..2 {
            let Some(id) = self.locks[holder] else { continue };
            let alive = self.processes.iter().flatten().any(|p| p.id == id);
            if !alive && !self.in_flight.iter().any(|io| io.process == id) {
                self.locks[holder] = None;
            }
        }
        for c in Controller::BOTH {
            let Some(p) = &mut self.processes[c.index()] else {
                continue;
            };
            let own = &mut self.locks[c.index()];
            if p.wants_locks && (own.is_none() || *own == Some(p.id)) {
                *own = Some(p.id);
                (p.wants_locks, p.locks_taken) = (false, true);
            }
            let partners = &mut self.locks[c.other().index()];
            if p.wants_fence && (partners.is_none() || *partners == Some(p.id)) {
                *partners = Some(p.id);
                (p.wants_fence, p.fenced) = (false, true);
            }
        }
    }

    /// Hands an event to a core, and carries out what it wants. `payload` came with a frame.
    pub fn deliver(
        &mut self,
        c: Controller,
        event: Event,
        payload: &[u8],
        outcomes: &mut Outcomes,
    ) -> Result<(), Failure> {
        let mut ready = VecDeque::from([event]);
        while let Some(event) = ready.pop_front() {
            let now = Time(self.now);
            let Some(process) = &mut self.processes[c.index()] else {
                return Ok(());
            };
            let id = process.id;
            let core = process.core_mut();
            let mut effects = Vec::new();
            core.step(now, event, &mut effects);
            let told = effects.iter().filter_map(|effect| in_words(c, core, effect));
            outcomes.story.extend(told);
            for effect in effects {
                if outcomes.faults && self.crashes < outcomes.scope.crashes && is_visible(&effect) {
                    let mut ended = self.clone();
                    ended.crashes += 1;
                    ended.end(c);
                    outcomes.ended.push(ended);
                }
                self.carry_out(c, effect, payload, &mut ready)?;
                if self.process(c).is_none_or(|p| p.id != id) {
                    return Ok(());
                }
            }
        }
        self.poll_locks();
        Ok(())
    }

    fn carry_out(
        &mut self,
        c: Controller,
        effect: Effect,
        payload: &[u8],
        ready: &mut VecDeque<Event>,
    ) -> Result<(), Failure> {
        match effect {
            Effect::Store { address, word } => {
                self.nv_mut(c).store(address, word);
                self.nv[c.index()]
                    .check(GEOMETRY)
                    .map_err(|what| format!("{c}: {what}"))?;
            }
            Effect::NewImage { uuid } => self.nv_mut(c).renew(uuid),
            Effect::Persist { token } => ready.push_back(Event::Persisted { token }),
            Effect::Seal { buffer, mask } => self.nv_mut(c).seal(buffer, mask),
            Effect::Merge { from, to, mask } => self.nv_mut(c).merge(from, to, mask),
            Effect::Gather { from, transfer, first } => {
                let tags = self.nv[c.index()].read(&from);
                let blocks = tags.len() as u16;
                let to = Memory::Transfer {
                    transfer,
                    first,
                    blocks,
                };
                self.write_memory(c, &to, &tags);
            }
            Effect::Scatter { transfer, first, into } => {
                let blocks = into.iter().map(|s| u16::from(s.count)).sum();
                let from = Memory::Transfer {
                    transfer,
                    first,
                    blocks,
                };
                let tags = self.read_memory(c, &from);
                self.nv_mut(c).write(&into, &tags);
            }
            Effect::Absorb { into } => self.write_memory(c, &into, payload),
            Effect::Fetch { id, offset, into } => self.process_mut(c).fetches.push((id, offset, into)),
            Effect::SendData { id, offset, from } => self.send_data(c, id, offset, &from),
            Effect::EndHost { id } => ready.push_back(Event::HostAbort { id }),
            Effect::Complete { id, status } => self.complete(c, id, status)?,
            Effect::LinkSend { connection, frame } => self.link_send(c, connection, frame),
            Effect::LinkClose { connection } => {
                if self.connection == Some(connection) {
                    self.close_link();
                }
            }
            Effect::DiskRead { io, block, into, .. } => self.submit(c, io, Io::Read { block, into })?,
            Effect::DiskWrite { io, block, from, .. } => self.submit(c, io, Io::Write { block, from })?,
            Effect::DiskFlush { io, .. } => ready.push_back(Event::DiskDone { io, result: Ok(()) }),
            Effect::SlotRead { io, .. } => self.read_slots(c, io, ready),
            Effect::SlotWrite { io, .. } => {
                let core = &self.process(c).expect("a process that runs").hosted.core;
                let slot = *core.slot_written_by(io).expect("what to write");
                self.submit(c, io, Io::SlotWrite(Written(Rc::new(slot))))?;
            }
            Effect::MetadataRead { io, .. } => {
                let metadata = Ok(Box::new(metadata()));
                ready.push_back(Event::MetadataRead { io, metadata });
            }
            Effect::DiskZero { .. } | Effect::MetadataWrite { .. } | Effect::DiskProbe { .. } => {
                return Err(format!("{c} changes the layout, which nobody asked for"));
            }
            Effect::TakeLocks => self.process_mut(c).wants_locks = true,
            Effect::Fence { process } => {
                if self.process(c.other()).is_some_and(|p| p.id == process.pid) {
                    self.end(c.other());
                }
                self.process_mut(c).wants_fence = true;
            }
            Effect::Unfence => {
                let id = self.process(c).map(|p| p.id);
                self.process_mut(c).wants_fence = false;
                if self.locks[c.other().index()] == id {
                    self.locks[c.other().index()] = None;
                }
            }
            Effect::CloseHosts => {
                let process = self.process_mut(c);
                process.serves = false;
                ready.extend(process.commands.iter().map(|id| Event::HostAbort { id: *id }));
            }
            Effect::Serve => self.process_mut(c).serves = true,
            Effect::Restart => {
                self.end(c);
                self.restarts[c.index()] = true;
            }
            Effect::Exit | Effect::Halt => return Err(format!("{c} stops, which nobody asked for")),
            Effect::ViewChanged | Effect::Reply { .. } | Effect::Note(_) => {}
        }
        Ok(())
    }

    fn submit(&mut self, c: Controller, io: IoId, what: Io) -> Result<(), Failure> {
        let process = self.process(c).expect("a process that runs").id;
        if matches!(what, Io::Write { .. }) && self.locks[c.index()] != Some(process) {
            return Err(format!("{c} writes to the disk without its lock"));
        }
        if let Io::SlotWrite(slot) = &what {
            let differs =
                |other: &Written| other.0.record.epoch == slot.0.record.epoch && other.0.record != slot.0.record;
            if self.slots.iter().flatten().any(differs) {
                return Err(format!("two records of one epoch: {:?}", slot.0.record));
            }
        }
        self.in_flight.push(InFlight {
            controller: c,
            process,
            io,
            what,
        });
        Ok(())
    }

    /// An I/O takes effect on the disk; returns what its process hears.
    pub fn land(&mut self, at: usize) -> Result<(Controller, Option<Event>), Failure> {
        let InFlight {
            controller: c,
            process,
            io,
            what,
        } = self.in_flight.swap_remove(at);
        let alive = self.process(c).is_some_and(|p| p.id == process);
        let done = Event::DiskDone { io, result: Ok(()) };
        let event = match what {
            Io::Read { block, into } => {
                let first = (block - QUORUM_SPACE_BLOCKS) as usize;
                let tags = self.blocks[first..first + into.blocks() as usize].to_vec();
                self.write_memory(c, &into, &tags);
                done
            }
            Io::Write { block, from } => {
                self.land_write(c, block, &from)?;
                done
            }
            Io::SlotWrite(slot) => {
                self.slots[c.index()] = Some(slot);
                done
            }
        };
        Ok((c, alive.then_some(event)))
    }

    /// What is read is what is there at once.
    fn read_slots(&mut self, c: Controller, io: IoId, ready: &mut VecDeque<Event>) {
        let found = [0, 1].map(|n| self.slots[n].as_ref().map(|s| *s.0));
        if let Some(slots) = self.process_mut(c).core_mut().slots_read_by(io) {
            *slots = found;
        }
        ready.push_back(Event::SlotRead { io, result: Ok(()) });
    }

    /// The bytes are taken when the write lands: memory must not change until the answer.
    fn land_write(&mut self, c: Controller, block: u64, from: &Memory) -> Result<(), Failure> {
        let Memory::Buffers(sgl) = from else {
            return Err(format!("{c} writes to the disk from volatile memory"));
        };
        if sgl.iter().any(|s| !self.nv[c.index()].is_sound(s.buffer)) {
            return Err(format!("{c}: a buffer changed while it was written to disk"));
        }
        let first = (block - QUORUM_SPACE_BLOCKS) as usize;
        for (n, tag) in self.nv[c.index()].read(sgl).into_iter().enumerate() {
            self.blocks[first + n] = tag;
        }
        Ok(())
    }

    fn link_send(&mut self, from: Controller, connection: ConnectionId, frame: Frame) {
        if self.connection != Some(connection) {
            return;
        }
        let (mut mfcs, mut payload) = (Vec::new(), Vec::new());
        if let Frame::Messages(sequenced) = &frame {
            let core = &self.process(from).expect("a process that runs").hosted.core;
            let messages = core.messages(sequenced);
            mfcs = messages.mfcs.to_vec();
            payload = messages.payload.map(|p| self.read_memory(from, &p)).unwrap_or_default();
        }
        let arrival = Arrival { frame, mfcs, payload };
        self.inbound[from.other().index()].push_back(Inbound::Frame(connection, Rc::new(arrival)));
    }

    fn send_data(&mut self, c: Controller, id: CommandId, offset: BlockCount, from: &Memory) {
        for (n, tag) in self.read_memory(c, from).into_iter().enumerate() {
            if id.index as usize == READ {
                self.found[offset.index() + n] = tag;
            }
        }
    }

    fn complete(&mut self, c: Controller, id: CommandId, status: Status) -> Result<(), Failure> {
        let process = self.process_mut(c);
        process.commands.retain(|known| *known != id);
        process.fetches.retain(|(known, ..)| *known != id);
        if process.commands.is_empty() {
            // What is left in volatile memory means nothing any more.
            process.transfers.iter_mut().for_each(|t| t.fill(0));
        }
        let command = id.index as usize;
        if self.commands[command] != Command::Open {
            return Ok(());
        }
        if status != Status::Good {
            self.give_up(command);
            return Ok(());
        }
        self.commands[command] = Command::Over;
        if command == READ {
            let found = std::mem::take(&mut self.found);
            self.register.end_read(found)
        } else {
            self.register.acknowledge(command)
        }
    }

    /// The data of a write reach the controller that wants them.
    pub fn fetched(&mut self, c: Controller, outcomes: &mut Outcomes) -> Result<(), Failure> {
        let (id, offset, into) = self.process_mut(c).fetches.remove(0);
        let _ = offset;
        let complete = self.commands[id.index as usize] == Command::Open;
        if complete {
            let tags = vec![id.index as u8 + 1; into.blocks() as usize];
            self.write_memory(c, &into, &tags);
        }
        self.deliver(c, Event::HostData { id, complete }, &[], outcomes)
    }
}

/// Whether it makes a difference if a process ends before or after this.
fn is_visible(effect: &Effect) -> bool {
    !matches!(
        effect,
        Effect::Note(_) | Effect::ViewChanged | Effect::Persist { .. } | Effect::Fetch { .. } | Effect::Reply { .. }
    )
}

/// What a reader of the way to a failure wants to know.
fn in_words(c: Controller, core: &Core, effect: &Effect) -> Option<String> {
    Some(match effect {
        Effect::Note(note) => format!("{c}: {note:?}"),
        Effect::Complete { id, status } => format!("{c}: command {} ends {status:?}", id.index),
        Effect::LinkClose { .. } => format!("{c} closes the link"),
        Effect::Fence { .. } => format!("{c} fences its partner"),
        Effect::Restart => format!("{c} starts anew"),
        Effect::SlotWrite { io, .. } => {
            let slot = core.slot_written_by(*io).filter(|s| s.voted > 0)?;
            format!(
                "{c} votes in ballot {} for {:?} {:?}",
                slot.voted, slot.proposal.epoch, slot.proposal.mode
            )
        }
        _ => return None,
    })
}

/// The two blocks as a host's command names them.
pub fn range_of_read() -> (u64, u32) {
    (FIRST_BLOCK, 2)
}
