//! Commands of hosts: each is tried until there is an answer, on either path.

use super::operators::is_made;
use super::queue::Happening;
use super::{LUNS, MS, SLOWEST_HOST, SeenLun, US, World};
use crate::history::value_at;
use crate::hosts::{Attempt, Command};
use crate::plan::LONG_PAUSES;
use std::collections::VecDeque;
use twincell_core::Event;
use twincell_core::host::{HostCommand, HostOp, Status};
use twincell_core::ids::{ATOMIC_BLOCKS, BlockCount, CommandId, Controller, PSEG_BLOCKS, Vba};
use twincell_core::memory::Memory;

/// A host waits less than this power of two of milliseconds before it tries again.
const LONGEST_PATIENCE: u32 = 6;
/// What is in the memory of a host before the data of a read come: no write has it.
const NOTHING: u64 = u64::MAX;
/// Where hosts may be gone, one in so many is before it has sent the data of a write.
const HALF_OPEN: u64 = 32;

impl World {
    pub(super) fn next_command(&mut self, host: usize) {
        if self.commands.len() as u32 >= self.plan.commands || self.healing && !self.goes_on {
            return;
        }
        // Those that are not used are between those that are and those that were made.
        let unused = LUNS - self.plan.luns;
        let lun = self.random.below((self.luns.len() - unused) as u64) as usize;
        let lun = if lun < self.plan.luns { lun } else { lun + unused };
        let lun = self.leave_the_dead(lun);
        let tag = self.commands.len() as u64 + 1;
        let command = crate::hosts::draw(&mut self.random, &self.plan.hot, host, lun, tag, self.number);
        let command = self.shifted(command);
        let command = self.moved_anywhere(command);
        let both_ways = command.op == HostOp::Read && self.random.one_in(4);
        let path = if self.random.one_in(4) {
            1 - self.paths[host]
        } else {
            self.paths[host]
        };
        self.issue(command.clone(), path);
        if both_ways {
            self.issue(Command { extra: true, ..command }, 1 - path);
        }
    }

    /// Of LUNs that are about to be gone hosts of a busy cell mostly use none.
    fn leave_the_dead(&mut self, lun: usize) -> usize {
        if self.plan.busy && self.luns[lun].doomed && !self.random.one_in(4) {
            return self.random.below(self.plan.luns as u64) as usize;
        }
        lun
    }

    /// How far what hosts use of a LUN may be moved within it: LUNs that operators made are used in each of their RStores.
    pub(super) fn shifts(&self, lun: usize) -> impl Iterator<Item = u64> + use<> {
        let SeenLun { blocks, group, .. } = self.luns[lun];
        let end = self.plan.hot.end;
        let most = if is_made(group) { blocks.saturating_sub(end) } else { 0 };
        (0..=most / PSEG_BLOCKS).map(|n| n * PSEG_BLOCKS)
    }

    /// A command, somewhere in its LUN.
    fn shifted(&mut self, command: Command) -> Command {
        let count = self.shifts(command.lun).count() as u64;
        if count == 1 {
            return command;
        }
        let start = command.start + self.random.below(count) * PSEG_BLOCKS;
        Command { start, ..command }
    }

    /// Now and then the same command for blocks anywhere on the LUN, or not all on it. Of a LUN whose size changes nobody can say
    /// what is on it.
    fn moved_anywhere(&mut self, command: Command) -> Command {
        let counts = self.plan.odd_ranges && command.lun < LUNS && command.op != HostOp::Sync;
        if !counts || !self.aside.one_in(4) {
            return command;
        }
        let Command {
            host,
            lun,
            op,
            tag,
            begun,
            once,
            ..
        } = command;
        let (start, blocks) = crate::hosts::draw_range(&mut self.aside, self.luns[lun].blocks);
        Command {
            once,
            ..Command::new(host, lun, op, start, blocks, tag, begun)
        }
    }

    /// Whether a command is for blocks that are not on its LUN, whoever is asked.
    pub(super) fn is_out_of_range(&self, command: usize) -> bool {
        let Command { lun, start, blocks, .. } = self.commands[command];
        lun < LUNS && start + u64::from(blocks) > self.luns[lun].blocks
    }

    /// A host sends a command, first to the controller of this index. Returns the index of the command.
    pub(super) fn issue(&mut self, command: Command, path: usize) -> usize {
        if matches!(command.op, HostOp::Write { .. }) {
            self.histories[command.lun].submit(command.tag, command.start, command.blocks, self.number);
        }
        let index = self.commands.len();
        let since = self.now;
        self.commands.push(Command { since, ..command });
        self.in_flight += 1;
        self.try_on(index, path);
        index
    }

    fn try_on(&mut self, command: usize, controller: usize) {
        self.try_later(command, controller, 0);
    }

    fn try_later(&mut self, command: usize, controller: usize, later: u64) {
        self.attempts.push(Attempt {
            command,
            controller,
            process: 0,
            refused: false,
            has_no_place: false,
            begun: 0,
            given_up: false,
            withdrawn: false,
            fetching: false,
            half_open: false,
        });
        let attempt = self.attempts.len() as u64;
        // What an earlier attempt has brought is not what this one brings.
        let Command {
            attempt: last, data, ..
        } = &mut self.commands[command];
        *last = attempt;
        data.fill(NOTHING);
        let delay = later + self.random.between(20 * US, 200 * US);
        self.after(delay, Happening::Arrive(attempt));
    }

    pub(super) fn arrive(&mut self, number: u64) {
        let attempt = self.attempts[at(number)];
        let controller = Controller::BOTH[attempt.controller];
        let command = &self.commands[attempt.command];
        let Some(process) = &mut self.processes[attempt.controller] else {
            return self.after(MS, Happening::PathFails(number));
        };
        if !process.serves {
            return self.after(MS, Happening::PathFails(number));
        }
        let id = CommandId {
            index: attempt.command as u32,
            generation: number as u32,
        };
        let process_id = process.id;
        process.commands.insert(id, number);
        let attempt = &mut self.attempts[at(number)];
        (attempt.process, attempt.begun) = (process_id, self.now);
        let writes = matches!(command.op, HostOp::Write { .. });
        attempt.half_open = writes && self.plan.half_open && !self.healing && self.aside.one_in(HALF_OPEN);
        let half_open = attempt.half_open;
        let drawn = if self.random.one_in(3) { 0 } else { command.blocks };
        let in_hand = if half_open { 0 } else { command.in_hand.unwrap_or(drawn) };
        let event = Event::HostCommand(HostCommand {
            id,
            ncae: self.luns[command.lun].ncae,
            noid: self.luns[command.lun].noid,
            op: command.op,
            start: Vba(command.start),
            blocks: BlockCount(command.blocks),
            in_hand: BlockCount(in_hand),
        });
        if !half_open {
            self.after(self.host_timeout, Happening::TimeOut(number));
        }
        if self.random.one_in(self.plan.withdrawn) && !self.healing {
            let delay = self.random.below(3 * MS);
            self.after(delay, Happening::Withdraw(number));
        }
        self.deliver(controller, process_id, event);
    }

    pub(super) fn fetch(
        &mut self,
        controller: Controller,
        process: u32,
        id: CommandId,
        offset: BlockCount,
        into: Memory,
        ready: &mut VecDeque<Event>,
    ) {
        let Some(number) = self.processes[controller.index()]
            .as_ref()
            .and_then(|p| p.commands.get(&id).copied())
        else {
            return self.fail(format!("{controller}: fetches for a command that is over"));
        };
        let attempt = self.attempts[at(number)];
        if attempt.half_open && !attempt.given_up {
            self.attempts[at(number)].fetching = true;
            return;
        }
        if attempt.given_up || attempt.withdrawn {
            ready.push_back(Event::HostData { id, complete: false });
            return;
        }
        if self.random.one_in(2) {
            self.send_to(controller, attempt.command, offset, &into);
            ready.push_back(Event::HostData { id, complete: true });
        } else {
            self.attempts[at(number)].fetching = true;
            let mut delay = self.fetch_delay + self.random.between(20 * US, 3 * MS);
            if self.plan.slow_hosts && self.random.one_in(10) {
                delay += self.random.below(SLOWEST_HOST);
            }
            self.after(
                delay,
                Happening::HostData {
                    attempt: number,
                    process,
                    id,
                    offset,
                    into: Box::new(into),
                },
            );
        }
    }

    /// The data of a write from block `offset` of them on are put where a controller wants them.
    fn send_to(&mut self, controller: Controller, command: usize, offset: BlockCount, into: &Memory) {
        let tag = self.commands[command].tag;
        let values: Vec<u64> = (offset.0..)
            .take(into.blocks() as usize)
            .map(|n| value_at(tag, n))
            .collect();
        self.write_memory(controller.index(), into, &values);
    }

    pub(super) fn host_data(&mut self, number: u64, process: u32, id: CommandId, offset: BlockCount, into: &Memory) {
        let attempt = self.attempts[at(number)];
        if !attempt.fetching {
            return;
        }
        let controller = Controller::BOTH[attempt.controller];
        let now = self.now;
        let Some(p) = self.process(controller, process) else {
            return;
        };
        if p.paused_until > now {
            let delay = p.paused_until - now + 1;
            return self.after(
                delay,
                Happening::HostData {
                    attempt: number,
                    process,
                    id,
                    offset,
                    into: Box::new(*into),
                },
            );
        }
        self.attempts[at(number)].fetching = false;
        let complete = !(attempt.given_up || attempt.withdrawn);
        if complete {
            self.send_to(controller, attempt.command, offset, into);
        }
        self.deliver(controller, process, Event::HostData { id, complete });
    }

    /// A controller closes the connection of a host that does not send its data.
    pub(super) fn end_host(&mut self, controller: Controller, id: CommandId, ready: &mut VecDeque<Event>) {
        let process = self.processes[controller.index()].as_ref();
        let Some(number) = process.and_then(|p| p.commands.get(&id).copied()) else {
            return self.fail(format!("{controller}: ends the host of a command that is over"));
        };
        let attempt = &mut self.attempts[at(number)];
        attempt.given_up = true;
        ready.push_back(Event::HostAbort { id });
        if std::mem::take(&mut attempt.fetching) {
            ready.push_back(Event::HostData { id, complete: false });
        }
    }

    /// The connection of an attempt is closed: a fetch that is under way answers when it would have come; what would never
    /// come fails at once.
    pub(super) fn fetch_fails(&mut self, number: u64, id: CommandId, ready: &mut VecDeque<Event>) {
        let attempt = &mut self.attempts[at(number)];
        attempt.given_up = true;
        if attempt.half_open && std::mem::take(&mut attempt.fetching) {
            ready.push_back(Event::HostData { id, complete: false });
        }
    }

    /// A command is over, once: its status is on its way to the host. What a fetch of it has posted must not land any more:
    /// the memory is somebody else's from now on.
    pub(super) fn complete(&mut self, controller: Controller, id: CommandId, status: Status) {
        let process = self.processes[controller.index()].as_mut();
        let Some(attempt) = process.and_then(|p| p.commands.remove(&id)) else {
            return self.fail(format!("{controller}: {status:?} for a command that is over"));
        };
        if self.attempts[at(attempt)].fetching {
            self.fail(format!(
                "{controller}: {status:?} for a command whose data are still awaited"
            ));
        }
        match status {
            Status::Good => self.check_good(controller, attempt),
            Status::ReadError | Status::WriteError => self.check_error(controller, attempt),
            Status::Busy => self.attempts[at(attempt)].has_no_place = self.has_no_place(controller),
            _ => {}
        }
        let delay = self.random.between(20 * US, 200 * US);
        self.after(delay, Happening::Answer { attempt, status });
    }

    pub(super) fn send_data(&mut self, controller: Controller, id: CommandId, offset: BlockCount, tags: &[u64]) {
        let Some(number) = self.processes[controller.index()]
            .as_ref()
            .and_then(|p| p.commands.get(&id).copied())
        else {
            return self.fail(format!("{controller}: sends data for a command that is over"));
        };
        let attempt = self.attempts[at(number)];
        let command = &mut self.commands[attempt.command];
        if command.attempt == number {
            let at = offset.0 as usize;
            command.data[at..at + tags.len()].copy_from_slice(tags);
        }
    }

    /// A status reaches the host.
    pub(super) fn answer(&mut self, number: u64, status: Status) {
        let attempt = self.attempts[at(number)];
        let command = &mut self.commands[attempt.command];
        if command.done || command.attempt != number {
            return;
        }
        command.status = Some(status);
        self.attempts[at(number)].refused = says_not_done(status, self.commands[attempt.command].blocks);
        self.check_calm_status(number, status);
        let Command { lun, host, .. } = self.commands[attempt.command];
        match status {
            Status::Good => {
                if let Err(what) = self.good(attempt.command) {
                    self.fail_of(attempt.command, &what);
                }
                self.paths[host] = attempt.controller;
                self.done(attempt.command);
            }
            Status::Aborted if attempt.withdrawn => {
                self.never_done(attempt.command);
                self.done(attempt.command);
            }
            Status::Aborted if attempt.given_up => self.after(MS, Happening::PathFails(number)),
            Status::OutOfRange if self.is_out_of_range(attempt.command) => {
                self.never_done(attempt.command);
                self.done(attempt.command);
            }
            Status::NoSuchLun if self.luns[lun].doomed => self.done(attempt.command),
            // A LUN that was just made or made larger, of which this controller does not know yet.
            Status::NoSuchLun | Status::OutOfRange if lun >= LUNS => {
                let delay = self.random.between(MS, 20 * MS);
                self.after(delay, Happening::PathFails(number));
            }
            Status::Busy | Status::Transitioning | Status::ReadError | Status::WriteError => {
                if self.attempts[at(number)].has_no_place {
                    // Who asks next gets the next place: it is a matter of luck how long that takes.
                    self.commands[attempt.command].since = self.now;
                }
                let delay = self.random.between(MS, 20 * MS);
                self.after(delay, Happening::PathFails(number));
            }
            status => self.fail_of(attempt.command, &format!("{status:?}")),
        }
    }

    /// The host is told that its command had no effect.
    fn never_done(&mut self, command: usize) {
        let Command { lun, tag, .. } = self.commands[command];
        if let Err(what) = self.histories[lun].abort(tag) {
            self.fail_of(command, &what);
        }
    }

    pub(super) fn fail_of(&mut self, command: usize, what: &str) {
        let Command {
            op, start, blocks, lun, ..
        } = self.commands[command];
        self.fail(format!("{op:?} {start}+{blocks} on LUN {lun}: {what}"));
    }

    fn good(&mut self, at: usize) -> Result<(), String> {
        if self.is_out_of_range(at) {
            return Err("it is not all on the LUN, and is answered with good".into());
        }
        let (command, moment) = (&self.commands[at], self.number);
        let history = &mut self.histories[command.lun];
        match command.op {
            HostOp::Write { .. } => {
                history.acknowledge(command.tag, moment);
                self.report.writes += 1;
            }
            HostOp::Read => {
                history.read(command.start, &command.data, command.begun, moment)?;
                self.report.reads += 1;
            }
            HostOp::Sync => {}
        }
        Ok(())
    }

    pub(super) fn done(&mut self, command: usize) {
        self.commands[command].done = true;
        self.check_duration(command);
        self.in_flight -= 1;
        if self.commands[command].extra {
            return;
        }
        let delay = if self.random.one_in(LONG_PAUSES) {
            self.random.below(self.plan.idle)
        } else {
            self.random.below(2 * MS)
        };
        self.after(delay, Happening::NextCommand(self.commands[command].host));
    }

    /// The host tries on the other path, or the same again.
    pub(super) fn path_fails(&mut self, number: u64) {
        let attempt = self.attempts[at(number)];
        let command = &self.commands[attempt.command];
        if command.done || command.attempt != number {
            return;
        }
        if attempt.withdrawn || command.once || attempt.half_open {
            return self.done(attempt.command);
        }
        self.attempts[at(number)].given_up = true;
        let (lun, tag) = (command.lun, command.tag);
        if attempt.process > 0 && !attempt.refused {
            self.histories[lun].retry(tag);
        }
        let later = self.patience(attempt.command);
        let path = if self.random.one_in(4) {
            attempt.controller
        } else {
            1 - attempt.controller
        };
        self.try_later(attempt.command, path, later);
    }

    /// How long the host waits before it tries a command again: first not at all, then longer and longer, so that many
    /// meet a cell that begins to serve, and few one that does not yet.
    fn patience(&mut self, command: usize) -> u64 {
        if self.plan.retry_after > 0 {
            return self.plan.retry_after;
        }
        let tries = &mut self.commands[command].tries;
        *tries += 1;
        match *tries {
            ..=4 => 0,
            n => self.random.below(MS << (n - 4).min(LONGEST_PATIENCE)),
        }
    }

    /// The host closes a connection on which nothing comes. Its next attempt begins once the controller knows.
    pub(super) fn time_out(&mut self, number: u64) {
        let attempt = self.attempts[at(number)];
        let command = &self.commands[attempt.command];
        if command.done || command.attempt != number || attempt.given_up {
            return;
        }
        self.check_calm_patience(number);
        self.check_patience(number);
        self.attempts[at(number)].given_up = true;
        self.abort(number);
        self.after(5 * MS, Happening::PathFails(number));
    }

    pub(super) fn withdraw(&mut self, number: u64) {
        let attempt = self.attempts[at(number)];
        let command = &self.commands[attempt.command];
        if command.done || command.attempt != number || attempt.given_up || attempt.half_open {
            return;
        }
        self.attempts[at(number)].withdrawn = true;
        self.abort(number);
    }

    pub(super) fn abort(&mut self, number: u64) {
        let attempt = self.attempts[at(number)];
        let controller = Controller::BOTH[attempt.controller];
        let id = CommandId {
            index: attempt.command as u32,
            generation: number as u32,
        };
        let known = self
            .process(controller, attempt.process)
            .is_some_and(|p| p.commands.contains_key(&id));
        if known {
            self.deliver(controller, attempt.process, Event::HostAbort { id });
        }
    }
}

/// Whether a status says for certain that nothing of a command was done. What is longer than a portion may have been done in
/// part before it is withdrawn, or found to be refused.
fn says_not_done(status: Status, blocks: u32) -> bool {
    match status {
        Status::Busy => true,
        Status::Aborted | Status::NoSuchLun | Status::OutOfRange => blocks <= ATOMIC_BLOCKS,
        _ => false,
    }
}

/// Where an attempt is, by its number.
fn at(number: u64) -> usize {
    number as usize - 1
}
