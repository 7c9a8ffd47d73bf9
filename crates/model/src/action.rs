//! What can happen next.
//!
//! Time passes only when nothing else has to happen: no frame is on its way, no I/O of a process that runs, nothing that a
//! host was asked for. What hosts, operators and faults do can happen at any moment, or never.

use crate::carry_out::{Failure, Outcomes, range_of_read};
use crate::world::{Arrival, Command, Inbound, Io, READ, World, op_of};
use twincell_core::Event;
use twincell_core::host::HostCommand;
use twincell_core::ids::{BlockCount, CommandId, ConnectionId, Controller, NcaeIndex, Noid, Vba};
use twincell_core::link::frame::{Frame, Mfcs};

/// One thing that can happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// A controller gets what the link brings next.
    Receive(Controller),
    /// The link was closed: what was still on its way to a controller is lost.
    LoseTail(Controller),
    /// The next frame for a controller is lost.
    Drop(Controller),
    /// The link breaks.
    Cut,
    /// A connection opens.
    Open,
    /// The I/O at this place takes effect and is answered.
    Land(usize),
    /// A write of a process that is gone never reaches the disk.
    Vanish(usize),
    /// A controller hears that it has its own locks.
    LocksTaken(Controller),
    /// A controller hears that its partner is fenced.
    Fenced(Controller),
    /// A host's data arrive.
    HostData(Controller),
    /// A host sends a command.
    Send(usize),
    /// A process starts.
    Start(Controller),
    /// A process ends.
    Crash(Controller),
    /// The earliest timer of a controller fires.
    Tick(Controller),
}

impl World {
    /// What has to happen, in any order: what takes no time at all.
    fn urgent(&self, actions: &mut Vec<Action>) {
        for c in Controller::BOTH {
            if self.restarts[c.index()] {
                actions.push(Action::Start(c));
            }
            let Some(process) = self.process(c) else { continue };
            if let Some(next) = self.inbound[c.index()].front() {
                actions.push(Action::Receive(c));
                if matches!(next, Inbound::Frame(connection, ..) if self.connection != Some(*connection)) {
                    actions.push(Action::LoseTail(c));
                }
            }
            if process.locks_taken {
                actions.push(Action::LocksTaken(c));
            }
            if process.fenced {
                actions.push(Action::Fenced(c));
            }
            if !process.fetches.is_empty() {
                actions.push(Action::HostData(c));
            }
        }
        self.disk(actions, |io| !io.is_data());
    }

    /// What has to happen, and takes a while.
    fn slow(&self, actions: &mut Vec<Action>) {
        self.disk(actions, Io::is_data);
    }

    fn disk(&self, actions: &mut Vec<Action>, which: impl Fn(&Io) -> bool) {
        for (at, io) in self.in_flight.iter().enumerate() {
            if which(&io.what) && self.process(io.controller).is_some_and(|p| p.id == io.process) {
                actions.push(Action::Land(at));
            }
        }
    }

    /// A connection opens only when nothing else happens at once: it takes longer than that.
    fn connection(&self, actions: &mut Vec<Action>) {
        let idle = self.inbound.iter().all(std::collections::VecDeque::is_empty);
        if self.connection.is_none() && idle && self.processes.iter().all(Option::is_some) {
            actions.push(Action::Open);
        }
    }

    /// Whether nothing has to happen.
    pub fn is_quiet(&self) -> bool {
        let mut urgent = Vec::new();
        self.urgent(&mut urgent);
        self.slow(&mut urgent);
        self.connection(&mut urgent);
        urgent.is_empty()
    }

    /// Everything that can happen.
    pub fn actions(&self, outcomes: &Outcomes) -> Vec<Action> {
        let mut actions = Vec::new();
        self.urgent(&mut actions);
        if actions.is_empty() {
            self.connection(&mut actions);
        }
        self.slow(&mut actions);
        let time_passes = actions.is_empty();
        // First, for a run that takes what comes first: whatever waits for the end of these writes waits no longer then.
        self.orphans(&mut actions);
        if time_passes {
            self.timers(&mut actions);
        }
        for c in Controller::BOTH {
            if self.process(c).is_none() && !self.restarts[c.index()] {
                actions.push(Action::Start(c));
            }
        }
        let may_start = self.next_process <= outcomes.scope.starts + 2;
        let may_open = self.next_connection <= outcomes.scope.opens + 1;
        actions.retain(|a| match a {
            Action::Start(_) => may_start,
            Action::Open => may_open,
            _ => true,
        });
        if outcomes.faults {
            self.outside(outcomes, &mut actions);
        }
        actions
    }

    fn timers(&self, actions: &mut Vec<Action>) {
        let Some(earliest) = self.deadline() else { return };
        for c in Controller::BOTH {
            let deadline = self.process(c).and_then(|p| p.hosted.core.next_deadline());
            if deadline.is_some_and(|d| d.0 <= earliest) {
                actions.push(Action::Tick(c));
            }
        }
    }

    /// Writes of processes that are gone.
    fn orphans(&self, actions: &mut Vec<Action>) {
        for (at, io) in self.in_flight.iter().enumerate() {
            if self.process(io.controller).is_none_or(|p| p.id != io.process) {
                actions.push(Action::Land(at));
                actions.push(Action::Vanish(at));
            }
        }
    }

    fn outside(&self, outcomes: &Outcomes, actions: &mut Vec<Action>) {
        let scope = outcomes.scope;
        for (n, command) in self.commands.iter().enumerate() {
            let path = if n == READ {
                scope.read
            } else {
                scope.writes.get(n).map(|w| w.path)
            };
            let served = path.is_some_and(|c| self.process(c).is_some_and(|p| p.serves));
            if *command == Command::Unsent && served {
                actions.push(Action::Send(n));
            }
        }
        for c in Controller::BOTH {
            if self.crashes < scope.crashes && self.process(c).is_some() {
                actions.push(Action::Crash(c));
            }
            let droppable = |inbound: &Inbound| matches!(inbound, Inbound::Frame(_, a) if matches!(a.frame, Frame::Messages(_) | Frame::Ack { .. }));
            if self.drops < scope.drops && self.inbound[c.index()].front().is_some_and(droppable) {
                actions.push(Action::Drop(c));
            }
        }
        if self.cuts < scope.cuts && self.connection.is_some() {
            actions.push(Action::Cut);
        }
    }

    /// Does one thing.
    pub fn act(&mut self, action: Action, outcomes: &mut Outcomes) -> Result<(), Failure> {
        match action {
            Action::Receive(c) => self.receive(c, outcomes)?,
            Action::LoseTail(c) => {
                self.inbound[c.index()].retain(|inbound| !matches!(inbound, Inbound::Frame(..)));
            }
            Action::Drop(c) => {
                self.drops += 1;
                self.inbound[c.index()].pop_front();
            }
            Action::Cut => {
                self.cuts += 1;
                self.close_link();
            }
            Action::Open => {
                let connection = ConnectionId(self.next_connection);
                self.next_connection += 1;
                self.connection = Some(connection);
                for inbound in &mut self.inbound {
                    inbound.push_back(Inbound::Opened(connection));
                }
            }
            Action::Land(at) => {
                if let (c, Some(event)) = self.land(at)? {
                    self.deliver(c, event, &[], outcomes)?;
                }
            }
            Action::Vanish(at) => {
                self.in_flight.swap_remove(at);
            }
            Action::LocksTaken(c) => {
                self.process_mut(c).locks_taken = false;
                self.deliver(c, Event::LocksTaken, &[], outcomes)?;
            }
            Action::Fenced(c) => {
                self.process_mut(c).fenced = false;
                self.deliver(c, Event::Fenced, &[], outcomes)?;
            }
            Action::HostData(c) => self.fetched(c, outcomes)?,
            Action::Send(n) => self.send(n, outcomes)?,
            Action::Start(c) => self.start(c, outcomes)?,
            Action::Crash(c) => {
                self.crashes += 1;
                self.end(c);
            }
            Action::Tick(c) => {
                self.now = self.deadline().unwrap_or(self.now);
                self.deliver(c, Event::Tick, &[], outcomes)?;
            }
        }
        self.poll_locks();
        self.forget_when();
        Ok(())
    }

    fn receive(&mut self, c: Controller, outcomes: &mut Outcomes) -> Result<(), Failure> {
        match self.inbound[c.index()].pop_front() {
            Some(Inbound::Opened(connection)) => {
                self.deliver(c, Event::LinkOpened { path: 0, connection }, &[], outcomes)
            }
            Some(Inbound::Closed(connection)) => self.deliver(c, Event::LinkClosed { connection }, &[], outcomes),
            Some(Inbound::Frame(connection, arrival)) => self.take_frame(c, connection, &arrival, outcomes),
            None => Ok(()),
        }
    }

    fn take_frame(
        &mut self,
        c: Controller,
        connection: ConnectionId,
        arrival: &Arrival,
        outcomes: &mut Outcomes,
    ) -> Result<(), Failure> {
        if let Frame::Messages(sequenced) = &arrival.frame
            && let Some(place) = self.process_mut(c).core_mut().place_of(connection, sequenced)
        {
            *place = Mfcs::from_slice(&arrival.mfcs);
        }
        let event = Event::LinkFrame {
            connection,
            frame: arrival.frame,
            payload: BlockCount(arrival.payload.len() as u32),
        };
        self.deliver(c, event, &arrival.payload, outcomes)
    }

    /// A host sends command `n` on its path.
    pub fn send(&mut self, n: usize, outcomes: &mut Outcomes) -> Result<(), Failure> {
        let scope = outcomes.scope;
        let (path, (start, blocks), in_hand) = if n == READ {
            (scope.read.unwrap_or(Controller::A), range_of_read(), false)
        } else {
            let write = &scope.writes[n];
            (write.path, (write.start, write.blocks), write.in_hand)
        };
        if n == READ {
            self.register.begin_read();
        } else {
            self.register.begin_write(n);
        }
        self.command(path, n, start, blocks, in_hand, outcomes)
    }

    /// Hands command `n` to a controller.
    pub fn command(
        &mut self,
        path: Controller,
        n: usize,
        start: u64,
        blocks: u32,
        in_hand: bool,
        outcomes: &mut Outcomes,
    ) -> Result<(), Failure> {
        self.commands[n] = Command::Open;
        let id = CommandId {
            index: n as u32,
            generation: 0,
        };
        self.process_mut(path).commands.push(id);
        let command = HostCommand {
            id,
            ncae: NcaeIndex(0),
            noid: Noid(1),
            op: op_of(n),
            start: Vba(start),
            blocks: BlockCount(blocks),
            in_hand: BlockCount(if in_hand { blocks } else { 0 }),
        };
        self.deliver(path, Event::HostCommand(command), &[], outcomes)
    }
}
