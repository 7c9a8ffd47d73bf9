//! I/O to the shared disks, and the locks on them.

use super::queue::Happening;
use super::{MS, US, World};
use crate::disks::SimDisk;
use crate::fault::Fault;
use crate::instant::Instant;
use crate::process::Process;
use std::ops::Range;
use twincell_core::Event;
use twincell_core::cell::record::Slot;
use twincell_core::event::DiskError;
use twincell_core::ids::{Controller, DiskIndex, IoId, ProcessId, Uuid};
use twincell_core::layout::metadata::{DiskState, Metadata};
use twincell_core::memory::{Memory, Segment};
use twincell_core::nv::word::Bmae;

#[derive(Clone)]
pub(super) struct Landing {
    pub(super) controller: Controller,
    pub(super) process: u32,
    pub(super) io: IoId,
    pub(super) what: Io,
    /// The process was told of an error, though it had not ended.
    pub(super) answered: bool,
    /// When it was submitted, by the clock of its controller.
    pub(super) submitted: u64,
    /// What was in memory when a write of data was submitted, or on the disk when a read was that took it at once.
    pub(super) tags: Vec<u64>,
    /// What was written to the disk when a flush was submitted.
    pub(super) written: u64,
    /// The disk is so slow that it does not answer before this.
    pub(super) ready_at: u64,
}

#[derive(Clone)]
pub(super) enum Io {
    Read { disk: DiskIndex, block: u64, into: Memory },
    Write { disk: DiskIndex, block: u64, from: Memory },
    Flush(DiskIndex),
    Probe(DiskIndex, Uuid),
    Zero { disk: DiskIndex, block: u64, blocks: u64 },
    SlotRead(DiskIndex),
    SlotWrite(DiskIndex, Box<Slot>),
    MetadataRead(DiskIndex, u8),
    MetadataWrite(DiskIndex, u8, Box<Metadata>),
}

/// An I/O that a disk does not answer.
#[derive(Clone)]
pub(super) struct Held {
    number: u64,
    landing: Box<Landing>,
    /// It has taken so long that its process was told.
    overdue: bool,
}

/// Which blocks of a write land: those whose number, in bits of this, is one.
#[derive(Clone, Copy)]
struct Part(u64);

impl Part {
    fn has(self, block: u64) -> bool {
        self.0 >> (block % 64) & 1 == 1
    }
}

/// An I/O that takes longer is overdue.
const OVERDUE: u64 = 1_000 * MS;

impl Io {
    fn writes(&self) -> bool {
        !matches!(
            self,
            Io::Read { .. } | Io::SlotRead(_) | Io::MetadataRead(..) | Io::Flush(_) | Io::Probe(..)
        )
    }

    /// Whether a process that has died keeps its locks until it ends: the kernel still works for it, on its open file.
    fn keeps_locks(&self) -> bool {
        self.writes() || matches!(self, Io::Flush(_))
    }

    /// Whether it is not answered before it ends: the memory that it uses is the core's, or it writes what the partner may write.
    fn is_known_until_it_ends(&self) -> bool {
        matches!(
            self,
            Io::Read { .. } | Io::Write { .. } | Io::Flush(_) | Io::Zero { .. } | Io::MetadataWrite(..)
        )
    }

    /// Whether it ends with a flush.
    fn flushes(&self) -> bool {
        matches!(
            self,
            Io::Flush(_) | Io::Zero { .. } | Io::SlotWrite(..) | Io::MetadataWrite(..)
        )
    }

    fn error(&self, io: IoId) -> Event {
        let result = Err(DiskError);
        match self {
            Io::SlotRead(_) => Event::SlotRead { io, result },
            Io::MetadataRead(..) => Event::MetadataRead {
                io,
                metadata: Err(DiskError),
            },
            _ => Event::DiskDone { io, result },
        }
    }

    fn disk(&self) -> DiskIndex {
        match self {
            Io::Read { disk, .. } | Io::Write { disk, .. } | Io::Zero { disk, .. } => *disk,
            Io::Flush(disk) | Io::Probe(disk, _) | Io::SlotRead(disk) | Io::SlotWrite(disk, _) => *disk,
            Io::MetadataRead(disk, _) | Io::MetadataWrite(disk, ..) => *disk,
        }
    }
}

impl World {
    pub(super) fn submit(&mut self, controller: Controller, process: u32, io: IoId, what: Io) {
        let disk = what.disk();
        let behind = |h: &Held| h.overdue && h.landing.process == process && h.landing.what.disk() == disk;
        if self.held.iter().any(behind) || self.is_set_aside(controller, process, disk) {
            self.shelf.disks[disk.index()].may_fail_until(self.now);
            return self.after(10 * US, Happening::Event(controller, process, Box::new(what.error(io))));
        }
        if what.keeps_locks() {
            self.shelf.submitted(controller, process, disk);
        }
        // Some reads take their data at once, and end late.
        let late = matches!(what, Io::Read { .. }) && self.plan.slow_writes && self.random.one_in(6);
        let tags = match &what {
            Io::Write { from, .. } => {
                self.check_seals(controller, from);
                self.read_memory(controller.index(), from)
            }
            Io::Read { disk, block, into } if self.shelf.read_delay > 0 || late => {
                let at = &self.shelf.disks[disk.index()];
                (*block..*block + u64::from(into.blocks()))
                    .map(|b| at.read(b))
                    .collect()
            }
            _ => Vec::new(),
        };
        let mut delay = if self.random.one_in(20) {
            self.random.between(2 * MS, 30 * MS)
        } else {
            self.random.between(30 * US, 800 * US)
        };
        delay += self.slowness_of(&what);
        if matches!(what, Io::Read { .. }) {
            delay += self.shelf.read_delay;
            if late {
                delay += self.random.below(600 * MS);
            }
        }
        if matches!(what, Io::Zero { .. }) {
            delay += self.shelf.zero_delay;
        }
        if matches!(what, Io::SlotRead(_) | Io::SlotWrite(..)) {
            delay += self.shelf.slot_delay;
        }
        if matches!(what, Io::Write { .. }) {
            delay += self.shelf.write_delay;
            if self.plan.slow_writes && self.random.one_in(6) {
                delay += self.random.below(600 * MS);
            }
        }
        let late_by = self.late_by(&what);
        let at = &mut self.shelf.disks[disk.index()];
        let (written, ready_at) = (at.written(), self.now + delay + at.trouble.slow + late_by);
        if at.trouble.slow > 0 {
            // So long it may be late, also when it is not slow any more.
            at.may_fail_until(ready_at);
        }
        self.after(
            delay,
            Happening::Land(Box::new(Landing {
                controller,
                process,
                io,
                what,
                answered: false,
                submitted: self.clocks[controller.index()].at(self.now),
                tags,
                written,
                ready_at,
            })),
        );
    }

    /// How much later than usual a disk answers, whatever else is the matter with it.
    fn late_by(&self, what: &Io) -> u64 {
        let shelf = &self.shelf;
        let of = |late: Option<(usize, u64)>| late.filter(|l| l.0 == what.disk().index()).map_or(0, |l| l.1);
        match what {
            Io::Write { .. } => of(shelf.late_writes),
            Io::Flush(_) => of(shelf.late_flushes),
            Io::Read { disk, block, into } => {
                let blocks = *block..*block + u64::from(into.blocks());
                let weak = shelf.weak_block.filter(|w| blocks.contains(&w.1));
                // A disk tries a block that it cannot read again and again before it says so.
                let is_readable = shelf.disks[disk.index()].is_readable(*block, into.blocks().into());
                let bad = if is_readable { 0 } else { shelf.bad_blocks_take };
                bad + of(weak.map(|(disk, _, takes)| (disk, takes)))
            }
            _ => 0,
        }
    }

    /// What goes to a disk was sealed: all that is valid of a buffer, or of one for which a free one stands in.
    fn check_seals(&mut self, controller: Controller, from: &Memory) {
        let (Memory::Buffers(sgl), Some(nv)) = (from, &self.nv[controller.index()]) else {
            return;
        };
        let written = |s: &Segment| (((1u32 << s.count) - 1) << s.first) as u8;
        let is_sealed = |s: &Segment| match nv.words().bmae(s.buffer) {
            Ok(Bmae::FREE) => nv.is_sealed(s.buffer, nv.sealed(s.buffer) | written(s)),
            bmae => nv.is_sealed(s.buffer, bmae.map_or(0, |b| b.mask)),
        };
        if let Some(what) = sgl.iter().filter_map(|s| is_sealed(s).err()).next() {
            self.fail(format!("{controller} writes to disk, and {what}"));
        }
    }

    /// How much longer than usual an I/O takes.
    fn slowness_of(&mut self, what: &Io) -> u64 {
        let slow = self.plan.slow;
        self.up_to(match what {
            Io::SlotRead(_) | Io::SlotWrite(..) => slow.slots,
            Io::MetadataRead(..) | Io::MetadataWrite(..) => slow.metadata,
            Io::Flush(_) => slow.flushes,
            Io::Zero { .. } => slow.zeroes,
            _ => 0,
        })
    }

    /// In half of all cases nothing, else some time of at most so much.
    fn up_to(&mut self, most: u64) -> u64 {
        if most > 0 && self.random.one_in(2) {
            self.random.below(most)
        } else {
            0
        }
    }

    /// Disks that answered nothing may do so again: all that they were asked for is done, in some order.
    pub(super) fn release_held(&mut self) {
        let answers = |disks: &[SimDisk], now, h: &Held| {
            let trouble = &disks[h.landing.what.disk().index()].trouble;
            let late = if h.overdue && h.landing.what.writes() {
                trouble.late
            } else {
                0
            };
            trouble.stalled_until.saturating_add(late).max(h.landing.ready_at) <= now
        };
        loop {
            let ready = |h: &Held| answers(&self.shelf.disks, self.now, h);
            let places: Vec<usize> = (0..self.held.len()).filter(|n| ready(&self.held[*n])).collect();
            if places.is_empty() {
                return;
            }
            let next = places[self.random.below(places.len() as u64) as usize];
            let held = self.held.remove(next);
            self.shelf.disks[held.landing.what.disk().index()].may_fail_until(self.now);
            if held.overdue && held.landing.what.writes() {
                self.notice(held.landing.controller, Instant::LateLanding);
            }
            self.land(held.landing);
        }
    }

    /// The process hears of an I/O that takes long. What is not on memory of the core is answered, though it has not ended.
    pub(super) fn overdue(&mut self, number: u64) {
        let Some(held) = self.held.iter_mut().find(|h| h.number == number) else {
            return;
        };
        held.overdue = true;
        let Landing {
            controller,
            process,
            io,
            ref what,
            ref mut answered,
            ..
        } = *held.landing;
        let event = if what.is_known_until_it_ends() {
            Event::DiskOverdue { io }
        } else {
            *answered = true;
            what.error(io)
        };
        self.notice(controller, Instant::Overdue);
        self.deliver(controller, process, event);
    }

    pub(super) fn land(&mut self, landing: Box<Landing>) {
        let disk = landing.what.disk().index();
        let until = self.shelf.disks[disk].trouble.stalled_until;
        if landing.ready_at > self.now {
            let wait = landing.ready_at - self.now;
            self.after(wait, Happening::Heal(Fault::StallDisk(disk, 0)));
        }
        if until.max(landing.ready_at) > self.now {
            self.after(OVERDUE, Happening::Overdue(self.number + 1));
            let (number, overdue) = (self.number, false);
            return self.held.push(Held {
                number,
                landing,
                overdue,
            });
        }
        let Landing {
            controller,
            process,
            io,
            ref what,
            answered,
            submitted,
            ref tags,
            written,
            ..
        } = *landing;
        let alive = self.processes[controller.index()]
            .as_ref()
            .is_some_and(|p| p.id == process);
        let writes = what.writes();
        let disk = what.disk().index();
        let result = self.result_of(controller, disk, what);
        if result.is_err() {
            self.shelf.disks[disk].may_fail_until(self.now);
        }
        if writes {
            self.check_landing(controller, process, what.disk());
        }
        if what.keeps_locks() {
            self.shelf.landed(controller, process, what.disk());
        }
        // Of what ends with a flush that is what fails, unless all of it does.
        let flush_fails = what.flushes() && self.shelf.disks[disk].trouble.fails_flushes;
        let is_lost = result.is_err() && (flush_fails || matches!(what, Io::Flush(_)));
        if is_lost && self.plan.drops_unflushed() {
            self.shelf.disks[disk].drop_unflushed(controller);
        }
        if is_lost && alive && !matches!(what, Io::Flush(_)) {
            let disk = what.disk();
            self.deliver(controller, process, Event::FlushFailed { disk });
        }
        let event = match *what {
            Io::Read { block, ref into, .. } => {
                if alive && result.is_ok() {
                    let at = &self.shelf.disks[disk];
                    let now = || (block..block + u64::from(into.blocks())).map(|b| at.read(b)).collect();
                    let now: Vec<u64> = if tags.is_empty() { now() } else { Vec::new() };
                    let tags = if tags.is_empty() { &now } else { tags };
                    self.write_memory(controller.index(), into, tags);
                }
                Event::DiskDone { io, result }
            }
            Io::Write { block, ref from, .. } => {
                let is_used_again = alive && self.read_memory(controller.index(), from) != *tags;
                if is_used_again && !self.is_missing(controller, disk) {
                    self.fail(format!(
                        "{controller}: what a disk write names was used again before it ended"
                    ));
                }
                let gone = self.shelf.disks[disk].trouble.gone;
                if result.is_ok() || !gone && self.random.one_in(2) {
                    let part = self.part_that_lands(alive && result.is_ok());
                    self.land_write(controller, disk, block, from, tags, part);
                }
                Event::DiskDone { io, result }
            }
            Io::Probe(..) => Event::DiskDone { io, result },
            Io::Flush(_) => {
                if result.is_ok() {
                    self.shelf.disks[disk].flush(written);
                }
                Event::DiskDone { io, result }
            }
            Io::Zero { block, blocks, .. } => {
                if result.is_ok() || self.lands_though_it_fails(disk) {
                    let blocks = if result.is_ok() {
                        blocks
                    } else {
                        self.damage.below(blocks + 1)
                    };
                    self.shelf.disks[disk].zero(block, blocks);
                }
                Event::DiskDone { io, result }
            }
            Io::SlotRead(_) => {
                if alive
                    && !answered
                    && result.is_ok()
                    && let Some(process) = &mut self.processes[controller.index()]
                    && let Some(slots) = process.core.slots_read_by(io)
                {
                    *slots = self.shelf.disks[disk].slots;
                    process.licence.has_read(disk, submitted);
                }
                Event::SlotRead { io, result }
            }
            Io::SlotWrite(_, ref slot) => {
                if result.is_ok() || self.lands_though_it_fails(disk) {
                    self.shelf.disks[disk].slots[controller.index()] = Some(**slot);
                    if slot.voted > 0 {
                        self.notice(controller, Instant::VoteLands);
                    }
                    if alive && let Some(process) = &mut self.processes[controller.index()] {
                        process.licence.has_written(disk, submitted);
                    }
                }
                Event::DiskDone { io, result }
            }
            Io::MetadataRead(_, copy) => {
                let found = self.shelf.disks[disk].metadata[usize::from(copy)].clone();
                let metadata = result.and(found.ok_or(DiskError)).map(Box::new);
                Event::MetadataRead { io, metadata }
            }
            Io::MetadataWrite(_, copy, ref metadata) => {
                let is_torn = self.tears_metadata(alive && result.is_ok(), copy, metadata);
                if result.is_ok() || self.lands_though_it_fails(disk) {
                    let whole = (!is_torn).then(|| (**metadata).clone());
                    self.shelf.disks[disk].metadata[usize::from(copy)] = whole;
                    self.check_metadata();
                    self.notice(controller, Instant::MetadataLand);
                }
                Event::DiskDone { io, result }
            }
        };
        if alive && !answered {
            self.deliver(controller, process, event);
        }
    }

    /// Whether a disk is missing for a controller: what lies there counts for nothing, so it does not matter what of its memory lands.
    fn is_missing(&self, controller: Controller, disk: usize) -> bool {
        let process = self.processes[controller.index()].as_ref();
        // One that does not run, or has not read them yet, has none.
        let metadata = process
            .and_then(|p| p.core.metadata())
            .or_else(|| self.metadata_in_force());
        metadata.is_some_and(|m| m.disks[disk].state == DiskState::Missing)
    }

    /// Of a write that fails, or whose process has died, some blocks may land and others not: a bit for each.
    fn part_that_lands(&mut self, is_sound: bool) -> Part {
        if is_sound || !self.damage.one_in(3) {
            return Part(u64::MAX);
        }
        Part(self.damage.bits())
    }

    /// What answers with an error may have been done all the same.
    fn lands_though_it_fails(&mut self, disk: usize) -> bool {
        !self.shelf.disks[disk].trouble.gone && self.damage.one_in(2)
    }

    /// Metadata are longer than a sector. Of a write that fails, or whose process has died, only some of them may land: what
    /// is there then cannot be read. So it is only with those that no record names: those that one names are on a majority of
    /// the disks, and a process that has died meanwhile does not write them again.
    fn tears_metadata(&mut self, is_sound: bool, copy: u8, metadata: &Metadata) -> bool {
        let named = self.records.last_key_value().map(|(_, record)| record.metadata);
        let in_force = named.is_some_and(|n| (n.copy, n.generation) == (copy, metadata.generation));
        !is_sound && !in_force && self.damage.one_in(2)
    }

    fn result_of(&self, controller: Controller, disk: usize, what: &Io) -> Result<(), DiskError> {
        let disk = &self.shelf.disks[disk];
        let good = match what {
            Io::Write { block, from, .. } => {
                let in_region = |r: &Range<u64>| r.start < block + u64::from(from.blocks()) && *block < r.end;
                !disk.trouble.fails_writes && !disk.trouble.bad_region.as_ref().is_some_and(in_region)
            }
            Io::Flush(_) | Io::Zero { .. } | Io::MetadataWrite(..) => !disk.trouble.fails_flushes,
            Io::SlotWrite(..) => !disk.trouble.fails_slots && !disk.trouble.fails_flushes,
            Io::Read { block, into, .. } => !disk.trouble.fails_reads && disk.is_readable(*block, into.blocks().into()),
            Io::Probe(_, uuid) => disk.uuid == *uuid,
            _ => true,
        };
        let seen = !disk.trouble.unseen[controller.index()];
        if good && seen && !disk.trouble.fails && !disk.trouble.gone {
            Ok(())
        } else {
            Err(DiskError)
        }
    }

    /// The bytes of NV memory are taken when the write lands, not when it was submitted: memory must not change until the
    /// answer. Those of volatile memory may be gone by then, with their process; they were `tags`.
    fn land_write(&mut self, controller: Controller, disk: usize, block: u64, from: &Memory, tags: &[u64], part: Part) {
        let Memory::Buffers(sgl) = from else {
            let landing = (block..).zip(tags).filter(|(at, _)| part.has(*at));
            for (at, tag) in landing {
                self.shelf.disks[disk].write(at, *tag, controller);
            }
            return;
        };
        let Some(nv) = &self.nv[controller.index()] else { return };
        let mut at = block;
        let mut unsound = None;
        for s in sgl.iter() {
            if !nv.is_sound(s.buffer.0) {
                unsound = Some(s.buffer);
            }
            for n in s.first..s.first + s.count {
                if part.has(at) {
                    self.shelf.disks[disk].write(at, nv.buffer(s.buffer)[usize::from(n)], controller);
                }
                at += 1;
            }
        }
        if let Some(buffer) = unsound.filter(|_| !self.is_missing(controller, disk)) {
            self.fail(format!("{controller}: {buffer:?} changed while it was written to disk"));
        }
    }

    /// The fence: the partner's process is killed, and its locks are awaited.
    pub(super) fn fence(&mut self, controller: Controller, partner: ProcessId) {
        let other = controller.other();
        // Whoever is not the partner any more ends no more, and the one that is may stand still with its locks.
        let process = self.processes[controller.index()].as_ref().expect("it wants something");
        if process.partner > partner.pid && self.shelf.locks[other.index()] == Some(process.partner) {
            let what = format!(
                "{controller} fences process {} of {other}, and has met {}",
                partner.pid, process.partner
            );
            return self.fail(what);
        }
        // A process without its lock neither writes to disks nor serves, and is left alone.
        let holds = self.shelf.locks[other.index()] == Some(partner.pid);
        let is_seen = |p: &Process| p.id == partner.pid && !self.plan.apart;
        if holds && self.processes[other.index()].as_ref().is_some_and(is_seen) {
            self.log(|| format!("{controller}: kills {other}"));
            self.kill(other);
        }
        self.process_mut(controller).wants_fence = true;
    }

    /// Locks of dead processes without writes or flushes in flight, but for those to disks that were given up, are free; who waits gets
    /// them.
    pub(super) fn poll_locks(&mut self) {
        for controller in Controller::BOTH {
            let Some(process) = &self.processes[controller.index()] else {
                continue;
            };
            let (id, wants_locks, wants_fence) = (process.id, process.wants_locks, process.wants_fence);
            if wants_locks && self.may_lock(id, controller) {
                self.process_mut(controller).wants_locks = false;
                self.locked(controller, id, Event::LocksTaken);
            }
            if wants_fence && self.may_lock(id, controller.other()) {
                self.process_mut(controller).wants_fence = false;
                self.locked(controller, id, Event::Fenced);
            }
        }
    }

    fn locked(&mut self, controller: Controller, process: u32, event: Event) {
        let delay = 10 * US + self.up_to(self.plan.slow.locks);
        self.after(delay, Happening::Event(controller, process, Box::new(event)));
    }

    /// Whether a process has the lock of `of` now, on all disks that count.
    fn may_lock(&mut self, process: u32, of: Controller) -> bool {
        let mut all = self.processes.iter().flatten();
        let Some(metadata) = all.find(|p| p.id == process).and_then(|p| p.core.metadata()) else {
            return false;
        };
        let mut in_flight = self.shelf.in_flight.keys();
        let is_over =
            |holder: u32| !self.lives(holder) && !in_flight.any(|(_, by, on)| *by == holder && metadata.counts(*on));
        if self.shelf.locks[of.index()].is_some_and(is_over) {
            self.shelf.locks[of.index()] = None;
        }
        self.shelf.try_lock(of, process)
    }

    /// Whether a process has not got on this disk what it has on the others: something of who had the lock before is on its way there.
    fn is_set_aside(&self, controller: Controller, process: u32, disk: DiskIndex) -> bool {
        let has = |of: Controller| self.shelf.locks[of.index()] == Some(process);
        let keeps =
            |(of, by, on): &(Controller, u32, DiskIndex)| *on == disk && *by != process && !self.lives(*by) && has(*of);
        has(controller) && self.shelf.in_flight.keys().any(keeps)
    }

    fn lives(&self, process: u32) -> bool {
        self.processes.iter().flatten().any(|p| p.id == process)
    }

    fn process_mut(&mut self, controller: Controller) -> &mut Process {
        self.processes[controller.index()].as_mut().expect("it wants something")
    }
}
