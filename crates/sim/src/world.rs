//! Everything, and the queue of what happens next.

use crate::disks::Shelf;
use crate::history::History;
use crate::hosts::{self, Attempt, Command, HOT};
use crate::plan::{Fault, Plan};
use crate::process::{NvMemory, Process};
use crate::random::Random;
use std::collections::hash_map::DefaultHasher;
use std::collections::{BinaryHeap, HashMap};
use std::hash::{Hash, Hasher};
use twincell_core::cell::record::{Mode, Record, Slot};
use twincell_core::config::{Config, Geometry, Timing};
use twincell_core::controller::Role;
use twincell_core::event::DiskError;
use twincell_core::host::{HostCommand, HostOp, Status};
use twincell_core::ids::{
    BlockCount, CommandId, ConnectionId, Controller, DiskIndex, IoId, NcaeIndex, Noid, ProcessId, PsegIndex, RequestId,
    RssIndex, Time, Uuid, Vba,
};
use twincell_core::layout::metadata::{Disk, DiskState, Lun, Metadata, Name, PsegAddress, Redundancy};
use twincell_core::link::frame::Frame;
use twincell_core::manage::ManageOp;
use twincell_core::memory::Memory;
use twincell_core::nv::resolve::resolve;
use twincell_core::{Core, Effect, Event};

const US: u64 = 1_000;
const MS: u64 = 1_000_000;
const DISKS: usize = 4;
const LUNS: usize = 2;
const HOSTS: usize = 3;
/// A host gives an attempt up after this.
const HOST_TIMEOUT: u64 = 8_000 * MS;
/// After the last fault is healed, everything must be well again within this.
const LIVENESS: u64 = 120_000 * MS;

/// What a run came to.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// A digest of everything that happened, in order.
    pub digest: u64,
    /// Things that happened.
    pub happenings: u64,
    /// Writes that were acknowledged.
    pub writes: u64,
    /// Reads that were checked.
    pub reads: u64,
    /// Takeovers.
    pub takeovers: u64,
}

enum Happening {
    Start(Controller),
    Event(Controller, u32, Event),
    Tick(Controller, u32, u64),
    Resume(Controller, u32),
    Land(Landing),
    OpenLink,
    Frame {
        connection: u64,
        to: Controller,
        frame: Box<Frame>,
        payload: Vec<u64>,
    },
    NextCommand(usize),
    Arrive(u64),
    HostData {
        attempt: u64,
        process: u32,
        id: CommandId,
        offset: u32,
        into: Memory,
    },
    Answer {
        attempt: u64,
        status: Status,
    },
    PathFails(u64),
    TimeOut(u64),
    Withdraw(u64),
    Fault(Fault),
    Heal(Fault),
}

struct Landing {
    controller: Controller,
    process: u32,
    io: IoId,
    what: Io,
}

enum Io {
    Read { disk: DiskIndex, block: u64, into: Memory },
    Write { disk: DiskIndex, block: u64, from: Memory },
    Flush(DiskIndex),
    Zero { disk: DiskIndex, block: u64, blocks: u64 },
    SlotRead(DiskIndex),
    SlotWrite(DiskIndex, Box<Slot>),
    MetadataRead(DiskIndex, u8),
    MetadataWrite(DiskIndex, u8, Box<Metadata>),
}

impl Io {
    fn writes(&self) -> bool {
        !matches!(
            self,
            Io::Read { .. } | Io::SlotRead(_) | Io::MetadataRead(..) | Io::Flush(_)
        )
    }

    fn disk(&self) -> DiskIndex {
        match self {
            Io::Read { disk, .. } | Io::Write { disk, .. } | Io::Zero { disk, .. } => *disk,
            Io::Flush(disk) | Io::SlotRead(disk) | Io::SlotWrite(disk, _) => *disk,
            Io::MetadataRead(disk, _) | Io::MetadataWrite(disk, ..) => *disk,
        }
    }
}

struct Queued {
    at: u64,
    number: u64,
    what: Happening,
}

impl PartialEq for Queued {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}
impl Eq for Queued {}
impl PartialOrd for Queued {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Queued {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (other.at, other.number).cmp(&(self.at, self.number))
    }
}

/// The wire between the controllers.
#[derive(Default)]
struct Wire {
    connection: u64,
    open: bool,
    opening: bool,
    cut: bool,
    silent: bool,
    lossy: bool,
    /// When the last frame in each direction arrives: order is kept unless the wire is lossy.
    last: [u64; 2],
}

struct World {
    now: u64,
    number: u64,
    random: Random,
    queue: BinaryHeap<Queued>,
    geometry: Geometry,
    processes: [Option<Process>; 2],
    nv: [Option<NvMemory>; 2],
    next_process: u32,
    shelf: Shelf,
    wire: Wire,
    plan: Plan,
    commands: Vec<Command>,
    attempts: HashMap<u64, Attempt>,
    next_attempt: u64,
    in_flight: usize,
    paths: [usize; HOSTS],
    histories: Vec<History>,
    stopped: [bool; 2],
    digest: DefaultHasher,
    report: Report,
    verbose: bool,
    next_request: u64,
    check_every_store: bool,
    healing: bool,
    failure: Option<String>,
}

/// Runs a seed.
///
/// # Errors
/// What was found, in words. A broken invariant of the core panics.
pub fn run(seed: u64, verbose: bool) -> Result<Report, String> {
    let mut world = World::new(seed, verbose);
    world.work()?;
    world.heal_and_drain()?;
    world.scan()?;
    world.check_quiet()?;
    world.report.digest = world.digest.finish();
    world.report.happenings = world.number;
    Ok(world.report)
}

impl World {
    fn new(seed: u64, verbose: bool) -> World {
        let mut random = Random::new(seed);
        let plan = Plan::new(&mut random);
        let geometry = Geometry {
            buffers: if plan.small { 64 } else { 192 },
            ries: if plan.small { 2 } else { 16 },
            htbs: 48,
            transfers: if plan.small { 4 } else { 16 },
            destages: if plan.small { 2 } else { 8 },
        };
        let quorum: Vec<_> = (0..3).map(DiskIndex).collect();
        let mut shelf = Shelf::new(DISKS);
        let (record, metadata) = (Record::first(&quorum), first_metadata());
        for disk in &mut shelf.disks[..quorum.len()] {
            for controller in Controller::BOTH {
                disk.slots[controller.index()] = Some(Slot::idle(controller, ProcessId::default(), record));
            }
            disk.metadata[0] = Some(metadata.clone());
        }
        let check_every_store = random.one_in(8);
        World {
            now: 1_000 * MS,
            number: 0,
            random,
            queue: BinaryHeap::new(),
            geometry,
            processes: [None, None],
            nv: [None, None],
            next_process: 1,
            shelf,
            wire: Wire::default(),
            plan,
            commands: Vec::new(),
            attempts: HashMap::new(),
            next_attempt: 1,
            in_flight: 0,
            paths: [0; HOSTS],
            histories: vec![History::default(); LUNS],
            stopped: [false; 2],
            digest: DefaultHasher::new(),
            report: Report::default(),
            verbose,
            next_request: 1,
            check_every_store,
            healing: false,
            failure: None,
        }
    }

    // ---- the queue ----

    fn after(&mut self, delay: u64, what: Happening) {
        self.number += 1;
        self.queue.push(Queued {
            at: self.now + delay,
            number: self.number,
            what,
        });
    }

    fn log(&self, text: impl FnOnce() -> String) {
        if self.verbose {
            println!("{:>12.3} ms  {}", self.now as f64 / MS as f64 - 1000.0, text());
        }
    }

    /// Takes the next happening. `false` when there is none.
    fn advance(&mut self) -> Result<bool, String> {
        let Some(next) = self.queue.pop() else { return Ok(false) };
        self.now = self.now.max(next.at);
        self.number += 1;
        self.now.hash(&mut self.digest);
        self.happen(next.what);
        self.poll_locks();
        match self.failure.take() {
            Some(failure) => Err(failure),
            None => Ok(true),
        }
    }

    fn work(&mut self) -> Result<(), String> {
        for controller in Controller::BOTH {
            let delay = self.random.below(20 * MS);
            self.after(delay, Happening::Start(controller));
        }
        let begin = self.random.between(1, 300) * MS;
        for (at, fault) in self.plan.faults.clone() {
            self.after(begin + at, Happening::Fault(fault));
        }
        for host in 0..HOSTS {
            for _ in 0..self.plan.depth {
                let delay = self.random.below(200 * MS);
                self.after(delay, Happening::NextCommand(host));
            }
        }
        let end = self.now + begin + self.plan.faults.last().map_or(0, |f| f.0) + 100 * MS;
        let limit = self.now + LIVENESS;
        while self.now < end || (self.commands.len() as u32) < self.plan.commands {
            if !self.advance()? || self.now > limit {
                return Err(format!(
                    "stuck after {} of {} commands: {}",
                    self.commands.len(),
                    self.plan.commands,
                    self.state()
                ));
            }
        }
        Ok(())
    }

    fn heal_and_drain(&mut self) -> Result<(), String> {
        self.log(|| "--- healing".into());
        self.healing = true;
        self.wire = Wire {
            connection: self.wire.connection,
            open: self.wire.open,
            opening: self.wire.opening,
            last: self.wire.last,
            ..Wire::default()
        };
        self.shelf.failing = None;
        for controller in Controller::BOTH {
            self.stopped[controller.index()] = false;
            if let Some(process) = &mut self.processes[controller.index()] {
                process.crash_after = None;
            } else {
                self.after(MS, Happening::Start(controller));
            }
        }
        self.maybe_open_link();
        let limit = self.now + LIVENESS;
        while self.in_flight > 0 || !self.is_well() {
            if !self.advance()? || self.now > limit {
                return Err(format!(
                    "not well {} s after healing: {}",
                    LIVENESS / MS / 1000,
                    self.state()
                ));
            }
        }
        Ok(())
    }

    fn is_well(&self) -> bool {
        let well = |p: &Option<Process>| {
            let view = p.as_ref().filter(|p| p.serves).map(|p| p.core.cell_view());
            view.is_some_and(|v| v.role == Role::Serving && v.record.is_some_and(|r| r.mode == Mode::Both))
        };
        self.processes.iter().all(well)
    }

    fn state(&self) -> String {
        let view = |p: &Option<Process>| match p {
            Some(p) => {
                let v = p.core.cell_view();
                let mode = v.record.map(|r| (r.epoch, r.mode));
                format!(
                    "process {} {:?} {mode:?} linked {} joining {} dirty {} ries {} serves {} locks {} fence {} commands {}",
                    p.id,
                    v.role,
                    v.linked,
                    v.joining,
                    v.dirty_buffers,
                    v.open_ries,
                    p.serves,
                    p.wants_locks,
                    p.wants_fence,
                    p.commands.len()
                ) + "\n    "
                    + &p.core.commands_in_words().join("\n    ")
            }
            None => "down".into(),
        };
        let waiting: Vec<_> = self.commands.iter().filter(|c| !c.done).take(4).collect();
        format!(
            "\n  A: {}\n  B: {}\n  locks {:?} in flight {:?}\n  waiting: {waiting:?}",
            view(&self.processes[0]),
            view(&self.processes[1]),
            self.shelf.locks,
            self.shelf.in_flight
        )
    }

    /// Reads everything back through both controllers.
    fn scan(&mut self) -> Result<(), String> {
        for path in 0..2 {
            for lun in 0..LUNS {
                let mut start = HOT.start;
                while start < HOT.end {
                    let blocks = (HOT.end - start).min(200) as u32;
                    let begun = self.number;
                    let command = self.commands.len();
                    self.commands.push(Command {
                        host: 0,
                        lun,
                        op: HostOp::Read,
                        start,
                        blocks,
                        tag: 0,
                        begun,
                        attempt: 0,
                        data: vec![0; blocks as usize],
                        done: false,
                    });
                    self.in_flight += 1;
                    self.try_on(command, path);
                    start += u64::from(blocks);
                }
            }
            let limit = self.now + LIVENESS;
            while self.in_flight > 0 {
                if !self.advance()? || self.now > limit {
                    return Err(format!("the scan does not end: {}", self.state()));
                }
            }
        }
        Ok(())
    }

    /// When all is quiet, both images hold the same, and nothing is held by nobody.
    fn check_quiet(&mut self) -> Result<(), String> {
        let limit = self.now + LIVENESS;
        let quiet = |w: &World| {
            let clean = |p: &Option<Process>| p.as_ref().is_some_and(|p| p.core.cell_view().dirty_buffers == 0);
            w.processes.iter().all(clean)
        };
        while !quiet(self) {
            if !self.advance()? || self.now > limit {
                return Err(format!("never quiet: {}", self.state()));
            }
        }
        let settle = self.now + 500 * MS;
        while self.now < settle && self.advance()? {}
        for controller in Controller::BOTH {
            let image = &self.nv[controller.index()].as_ref().ok_or("no NV memory")?.image;
            let valid = resolve(image, self.geometry).map_err(|_| "a damaged image")?;
            if !valid.is_empty() {
                return Err(format!("{controller} still holds {valid:?} though all is on disk"));
            }
        }
        Ok(())
    }

    // ---- what happens ----

    fn happen(&mut self, what: Happening) {
        match what {
            Happening::Start(controller) => self.start(controller),
            Happening::Event(controller, process, event) => self.deliver(controller, process, event),
            Happening::Tick(controller, process, at) => {
                let current = self.process(controller, process).filter(|p| p.tick_at == at);
                if let Some(p) = current {
                    p.tick_at = 0;
                    self.deliver(controller, process, Event::Tick);
                }
            }
            Happening::Resume(controller, process) => self.resume(controller, process),
            Happening::Land(landing) => self.land(landing),
            Happening::OpenLink => self.open_link(),
            Happening::Frame {
                connection,
                to,
                frame,
                payload,
            } => self.frame_arrives(connection, to, frame, payload),
            Happening::NextCommand(host) => self.next_command(host),
            Happening::Arrive(attempt) => self.arrive(attempt),
            Happening::HostData {
                attempt,
                process,
                id,
                offset,
                into,
            } => self.host_data(attempt, process, id, offset, &into),
            Happening::Answer { attempt, status } => self.answer(attempt, status),
            Happening::PathFails(attempt) => self.path_fails(attempt),
            Happening::TimeOut(attempt) => self.time_out(attempt),
            Happening::Withdraw(attempt) => self.withdraw(attempt),
            Happening::Fault(fault) => self.fault(fault),
            Happening::Heal(fault) => self.heal(fault),
        }
    }

    fn process(&mut self, controller: Controller, id: u32) -> Option<&mut Process> {
        self.processes[controller.index()].as_mut().filter(|p| p.id == id)
    }

    fn start(&mut self, controller: Controller) {
        let c = controller.index();
        if self.processes[c].is_some() || self.stopped[c] {
            return;
        }
        let id = self.next_process;
        self.next_process += 1;
        let process = ProcessId {
            boot: Uuid(1),
            pid_namespace: 1,
            pid: id,
            start_time: u64::from(id),
        };
        let config = Config {
            controller,
            cell: Uuid(7),
            instance: Uuid(u128::from(id)),
            process,
            fresh_image: Uuid(1000 + u128::from(id)),
            geometry: self.geometry,
            timing: Timing::default(),
            disks: DISKS as u16,
            quorum: (0..3).map(DiskIndex).collect(),
        };
        self.log(|| format!("{controller}: process {id} starts"));
        let nv = self.nv[c].get_or_insert_with(|| NvMemory::new(self.geometry));
        let image = (!nv.image.uuid.is_nil()).then(|| nv.image.clone());
        let core = Core::new(config, image);
        self.processes[c] = Some(Process::new(id, core, self.geometry));
        self.deliver(controller, id, Event::Start);
        self.maybe_open_link();
    }

    /// Hands an event to a process, and carries out what it wants.
    fn deliver(&mut self, controller: Controller, id: u32, event: Event) {
        let now = self.now;
        let Some(process) = self.process(controller, id) else {
            return;
        };
        if process.paused_until > now {
            process.backlog.push_back(event);
            return;
        }
        let mut ready = std::collections::VecDeque::from([event]);
        while let Some(event) = ready.pop_front() {
            event.hash(&mut self.digest);
            if self.verbose && !matches!(event, Event::Tick) {
                self.log(|| format!("{controller} <- {}", short(&event)));
            }
            let Some(process) = self.process(controller, id) else {
                return;
            };
            let mut effects = Vec::new();
            process.core.step(Time(now), event, &mut effects);
            for effect in effects {
                effect.hash(&mut self.digest);
                if self.verbose
                    && !matches!(
                        effect,
                        Effect::Store { .. } | Effect::Seal { .. } | Effect::Persist { .. }
                    )
                {
                    self.log(|| format!("{controller} -> {}", short(&effect)));
                }
                self.carry_out(controller, id, effect, &mut ready);
                let Some(process) = self.process(controller, id) else {
                    return;
                };
                if let Some(left) = &mut process.crash_after {
                    if *left == 0 {
                        self.crash(controller);
                        return;
                    }
                    *left -= 1;
                }
            }
        }
        self.schedule_tick(controller, id);
    }

    fn schedule_tick(&mut self, controller: Controller, id: u32) {
        let now = self.now;
        let Some(process) = self.process(controller, id) else {
            return;
        };
        if let Some(Time(at)) = process.core.next_deadline() {
            let at = at.max(now);
            if process.tick_at == 0 || at < process.tick_at {
                process.tick_at = at;
                self.after(at - now, Happening::Tick(controller, id, at));
            }
        }
    }

    fn carry_out(
        &mut self,
        controller: Controller,
        id: u32,
        effect: Effect,
        ready: &mut std::collections::VecDeque<Event>,
    ) {
        let c = controller.index();
        match effect {
            Effect::Store { address, word } => {
                self.nv_mut(c).store(address, word);
                if self.check_every_store {
                    self.check_image(controller);
                }
            }
            Effect::NewImage { uuid } => self.nv_mut(c).renew(uuid),
            Effect::Persist { token } => ready.push_back(Event::Persisted { token }),
            Effect::Seal { buffer, mask } => self.nv_mut(c).seal(buffer.0, mask),
            Effect::Merge { from, to, mask } => {
                let nv = self.nv_mut(c);
                for n in (0..8).filter(|n| mask >> n & 1 == 1) {
                    nv.buffers[to.index()][n] = nv.buffers[from.index()][n];
                }
            }
            Effect::Copy { from, to } => {
                let tags = self.read_memory(c, &from);
                self.write_memory(c, &to, &tags);
            }
            Effect::Absorb { .. } => unreachable!("handled where the frame arrives"),
            Effect::Fetch {
                id: command,
                offset,
                into,
            } => self.fetch(controller, id, command, offset, into, ready),
            Effect::SendData {
                id: command,
                offset,
                from,
            } => {
                let tags = self.read_memory(c, &from);
                self.send_data(controller, command, offset, &tags);
            }
            Effect::Complete { id: command, status } => {
                if let Some(attempt) = self.processes[c].as_mut().and_then(|p| p.commands.remove(&command)) {
                    let delay = self.random.between(20 * US, 200 * US);
                    self.after(delay, Happening::Answer { attempt, status });
                }
            }
            Effect::LinkSend { connection, frame } => self.link_send(controller, connection, frame),
            Effect::LinkClose { connection } => {
                if self.wire.open && self.wire.connection == connection.0 {
                    self.close_link();
                }
            }
            Effect::DiskRead { io, disk, block, into } => {
                self.submit(controller, id, io, Io::Read { disk, block, into })
            }
            Effect::DiskWrite { io, disk, block, from } => {
                self.submit(controller, id, io, Io::Write { disk, block, from })
            }
            Effect::DiskFlush { io, disk } => self.submit(controller, id, io, Io::Flush(disk)),
            Effect::DiskZero {
                io,
                disk,
                block,
                blocks,
            } => self.submit(controller, id, io, Io::Zero { disk, block, blocks }),
            Effect::SlotRead { io, disk } => self.submit(controller, id, io, Io::SlotRead(disk)),
            Effect::SlotWrite { io, disk, slot } => self.submit(controller, id, io, Io::SlotWrite(disk, slot)),
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
            Effect::Serve => self.processes[c].as_mut().expect("it wants something").serves = true,
            Effect::ViewChanged | Effect::Reply { .. } => {}
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
            Effect::Note(note) => {
                if matches!(note, twincell_core::effect::Note::PartnerFenced) {
                    self.report.takeovers += 1;
                }
            }
        }
    }

    fn nv_mut(&mut self, c: usize) -> &mut NvMemory {
        self.nv[c].as_mut().expect("a process has NV memory")
    }

    fn read_memory(&mut self, c: usize, memory: &Memory) -> Vec<u64> {
        let nv = self.nv[c].as_ref().expect("a process has NV memory");
        self.processes[c].as_mut().expect("a process").read(nv, memory)
    }

    fn write_memory(&mut self, c: usize, memory: &Memory, tags: &[u64]) {
        let nv = self.nv[c].as_mut().expect("a process has NV memory");
        self.processes[c].as_mut().expect("a process").write(nv, memory, tags);
    }

    /// After a crash right here, what `resolve` says must make sense: no damage, and one valid buffer for each granule.
    fn check_image(&mut self, controller: Controller) {
        let image = &self.nv[controller.index()]
            .as_ref()
            .expect("a process has NV memory")
            .image;
        let granules = resolve(image, self.geometry).map(|valid| {
            let mut granules: Vec<_> = valid.iter().map(|v| (v.ncae, v.start)).collect();
            granules.sort();
            granules
        });
        match granules {
            Err(_) => self.fail(format!("{controller}: the image is damaged")),
            Ok(granules) => {
                if let Some(twice) = granules.windows(2).find(|w| w[0] == w[1]) {
                    self.fail(format!("{controller}: two valid buffers for {twice:?}"));
                }
            }
        }
    }

    fn fail(&mut self, what: String) {
        self.failure.get_or_insert(what);
    }

    // ---- processes ----

    fn crash(&mut self, controller: Controller) {
        if self.processes[controller.index()].is_none() {
            return;
        }
        self.log(|| format!("{controller}: crashes"));
        self.end(controller);
        self.check_image(controller);
        self.restart_later(controller);
    }

    fn restart_later(&mut self, controller: Controller) {
        let (low, high) = if self.healing { (MS, 10 * MS) } else { self.plan.restart };
        let delay = self.random.between(low, high);
        self.after(delay, Happening::Start(controller));
    }

    /// The process is gone: its connections break; what it has submitted to disks still lands.
    fn end(&mut self, controller: Controller) {
        let Some(process) = self.processes[controller.index()].take() else {
            return;
        };
        for attempt in process.commands.values() {
            let delay = self.random.between(50 * US, 2 * MS);
            self.after(delay, Happening::PathFails(*attempt));
        }
        if self.wire.open {
            self.close_link();
        }
    }

    fn close_hosts(&mut self, controller: Controller, ready: &mut std::collections::VecDeque<Event>) {
        let process = self.processes[controller.index()].as_mut().expect("it wants something");
        process.serves = false;
        let commands = process.commands.clone();
        for (id, attempt) in commands {
            ready.push_back(Event::HostAbort { id });
            self.fetch_fails(attempt, id, ready);
            let delay = self.random.between(50 * US, 2 * MS);
            self.after(delay, Happening::PathFails(attempt));
        }
    }

    fn resume(&mut self, controller: Controller, id: u32) {
        let Some(process) = self.process(controller, id) else {
            return;
        };
        process.paused_until = 0;
        let backlog = std::mem::take(&mut process.backlog);
        self.log(|| format!("{controller}: resumes"));
        for event in backlog {
            self.deliver(controller, id, event);
        }
        self.deliver(controller, id, Event::Tick);
    }

    /// The fence: the partner's process is killed, and its locks are awaited.
    fn fence(&mut self, controller: Controller, partner: ProcessId) {
        let other = controller.other();
        let victim = self.processes[other.index()]
            .as_ref()
            .filter(|p| p.id == partner.pid && !self.plan.apart)
            .map(|p| p.id);
        if victim.is_some() {
            self.log(|| format!("{controller}: kills {other}"));
            self.crash(other);
        }
        self.processes[controller.index()]
            .as_mut()
            .expect("it wants something")
            .wants_fence = true;
    }

    /// Locks of dead processes without writes in flight are free; who waits gets them.
    fn poll_locks(&mut self) {
        for holder in 0..2 {
            let Some(id) = self.shelf.locks[holder] else { continue };
            let alive = self.processes.iter().flatten().any(|p| p.id == id);
            if !alive && !self.shelf.has_in_flight(id) {
                self.shelf.locks[holder] = None;
            }
        }
        for controller in Controller::BOTH {
            let Some(process) = &mut self.processes[controller.index()] else {
                continue;
            };
            let id = process.id;
            if process.wants_locks && self.shelf.try_lock(controller, id) {
                process.wants_locks = false;
                self.after(10 * US, Happening::Event(controller, id, Event::LocksTaken));
            }
            let Some(process) = &mut self.processes[controller.index()] else {
                continue;
            };
            if process.wants_fence && self.shelf.try_lock(controller.other(), id) {
                process.wants_fence = false;
                self.after(10 * US, Happening::Event(controller, id, Event::Fenced));
            }
        }
    }

    // ---- disks ----

    fn submit(&mut self, controller: Controller, process: u32, io: IoId, what: Io) {
        if what.writes() {
            self.shelf.submitted(process);
        }
        let delay = match self.random.below(20) {
            0 => self.random.between(2 * MS, 30 * MS),
            _ => self.random.between(30 * US, 800 * US),
        };
        self.after(
            delay,
            Happening::Land(Landing {
                controller,
                process,
                io,
                what,
            }),
        );
    }

    fn land(&mut self, landing: Landing) {
        let Landing {
            controller,
            process,
            io,
            what,
        } = landing;
        let alive = self.processes[controller.index()]
            .as_ref()
            .is_some_and(|p| p.id == process);
        let writes = what.writes();
        let disk = what.disk().index();
        let result = if self.shelf.failing == Some(disk) {
            Err(DiskError)
        } else {
            Ok(())
        };
        if writes {
            self.shelf.landed(process);
        }
        let event = match what {
            Io::Read { block, into, .. } => {
                if alive && result.is_ok() {
                    let at = &self.shelf.disks[disk];
                    let tags: Vec<u64> = (block..block + u64::from(into.blocks())).map(|b| at.read(b)).collect();
                    self.write_memory(controller.index(), &into, &tags);
                }
                Event::DiskDone { io, result }
            }
            Io::Write { block, from, .. } => {
                if result.is_ok() || self.random.one_in(2) {
                    self.land_write(controller, disk, block, &from);
                }
                Event::DiskDone { io, result }
            }
            Io::Flush(_) => {
                if result.is_ok() {
                    self.shelf.disks[disk].flush();
                }
                Event::DiskDone { io, result }
            }
            Io::Zero { block, blocks, .. } => {
                self.shelf.disks[disk].zero(block, blocks);
                Event::DiskDone { io, result }
            }
            Io::SlotRead(_) => Event::SlotRead {
                io,
                slots: result.map(|()| self.shelf.disks[disk].slots),
            },
            Io::SlotWrite(_, slot) => {
                if result.is_ok() {
                    self.shelf.disks[disk].slots[controller.index()] = Some(*slot);
                }
                Event::DiskDone { io, result }
            }
            Io::MetadataRead(_, copy) => {
                let found = self.shelf.disks[disk].metadata[usize::from(copy)].clone();
                let metadata = result.and(found.ok_or(DiskError)).map(Box::new);
                Event::MetadataRead { io, metadata }
            }
            Io::MetadataWrite(_, copy, metadata) => {
                if result.is_ok() {
                    self.shelf.disks[disk].metadata[usize::from(copy)] = Some(*metadata);
                }
                Event::DiskDone { io, result }
            }
        };
        if alive {
            self.deliver(controller, process, event);
        }
    }

    /// The bytes are taken when the write lands, not when it was submitted: memory must not change until the answer.
    fn land_write(&mut self, controller: Controller, disk: usize, block: u64, from: &Memory) {
        let Memory::Buffers(sgl) = from else {
            return self.fail("a disk write from volatile memory".into());
        };
        let Some(nv) = &self.nv[controller.index()] else { return };
        let mut at = block;
        let mut unsound = None;
        for s in sgl.iter() {
            if !nv.is_sound(s.buffer.0) {
                unsound = Some(s.buffer);
            }
            for n in s.first..s.first + s.count {
                self.shelf.disks[disk].write(at, nv.buffers[s.buffer.index()][usize::from(n)]);
                at += 1;
            }
        }
        if let Some(buffer) = unsound {
            self.fail(format!("{controller}: {buffer:?} changed while it was written to disk"));
        }
    }

    // ---- the wire ----

    fn maybe_open_link(&mut self) {
        let both = self.processes.iter().all(Option::is_some);
        if both && !self.wire.open && !self.wire.opening && !self.wire.cut {
            self.wire.opening = true;
            let delay = self.random.between(100 * US, 50 * MS);
            self.after(delay, Happening::OpenLink);
        }
    }

    fn open_link(&mut self) {
        self.wire.opening = false;
        if self.wire.open || self.wire.cut || self.processes.iter().any(Option::is_none) {
            return self.maybe_open_link();
        }
        self.wire.open = true;
        self.wire.connection += 1;
        let connection = ConnectionId(self.wire.connection);
        for controller in Controller::BOTH {
            let delay = self.random.between(20 * US, 500 * US);
            self.wire.last[controller.index()] = self.now + delay;
            let id = self.processes[controller.index()].as_ref().expect("looked at").id;
            self.after(
                delay,
                Happening::Event(controller, id, Event::LinkOpened { connection }),
            );
        }
    }

    fn close_link(&mut self) {
        self.wire.open = false;
        let connection = ConnectionId(self.wire.connection);
        for controller in Controller::BOTH {
            if let Some(id) = self.processes[controller.index()].as_ref().map(|p| p.id) {
                let delay = self.random.between(20 * US, 3 * MS);
                let at = (self.now + delay).max(self.wire.last[controller.index()] + 1);
                self.after(
                    at - self.now,
                    Happening::Event(controller, id, Event::LinkClosed { connection }),
                );
            }
        }
        self.maybe_open_link();
    }

    fn link_send(&mut self, from: Controller, connection: ConnectionId, frame: Box<Frame>) {
        let payload = match &*frame {
            Frame::Messages(m) => m.payload.map(|p| self.read_memory(from.index(), &p)),
            _ => None,
        };
        if !self.wire.open || self.wire.connection != connection.0 || self.wire.silent {
            return;
        }
        let mut frame = frame;
        if let Frame::Messages(m) = &mut *frame {
            m.payload = None;
        }
        let to = from.other();
        let payload = payload.unwrap_or_default();
        let hello = matches!(*frame, Frame::Hello(_));
        let copies = match self.random.below(10) {
            0 if self.wire.lossy && !hello => 0,
            1 if self.wire.lossy && !hello => 2,
            _ => 1,
        };
        for _ in 0..copies {
            let mut delay = self.random.between(15 * US, 120 * US);
            if self.wire.lossy && !hello {
                delay += self.random.below(2 * MS);
            } else {
                let at = (self.now + delay).max(self.wire.last[to.index()] + 1);
                self.wire.last[to.index()] = at;
                delay = at - self.now;
            }
            let (frame, payload) = (frame.clone(), payload.clone());
            self.after(
                delay,
                Happening::Frame {
                    connection: connection.0,
                    to,
                    frame,
                    payload,
                },
            );
        }
    }

    fn frame_arrives(&mut self, connection: u64, to: Controller, frame: Box<Frame>, payload: Vec<u64>) {
        if !self.wire.open || self.wire.connection != connection || self.wire.silent {
            return;
        }
        let Some(process) = &mut self.processes[to.index()] else {
            return;
        };
        let id = process.id;
        if process.paused_until > self.now {
            // The bytes wait in the socket.
            let delay = process.paused_until - self.now + 1;
            return self.after(
                delay,
                Happening::Frame {
                    connection,
                    to,
                    frame,
                    payload,
                },
            );
        }
        let event = Event::LinkFrame {
            connection: ConnectionId(connection),
            frame,
            payload: BlockCount(payload.len() as u32),
        };
        self.deliver_frame(to, id, event, &payload);
    }

    /// Like `deliver`, with the payload at hand for `Absorb`.
    fn deliver_frame(&mut self, to: Controller, id: u32, event: Event, payload: &[u64]) {
        event.hash(&mut self.digest);
        self.log(|| format!("{to} <- {}", short(&event)));
        let now = self.now;
        let mut ready = std::collections::VecDeque::new();
        let mut effects = Vec::new();
        let Some(process) = self.process(to, id) else { return };
        process.core.step(Time(now), event, &mut effects);
        for effect in effects {
            effect.hash(&mut self.digest);
            if self.verbose
                && !matches!(
                    effect,
                    Effect::Store { .. } | Effect::Seal { .. } | Effect::Persist { .. }
                )
            {
                self.log(|| format!("{to} -> {}", short(&effect)));
            }
            match effect {
                Effect::Absorb { into } => self.write_memory(to.index(), &into, payload),
                effect => self.carry_out(to, id, effect, &mut ready),
            }
            let Some(process) = self.process(to, id) else { return };
            if let Some(left) = &mut process.crash_after {
                if *left == 0 {
                    return self.crash(to);
                }
                *left -= 1;
            }
        }
        for event in ready {
            self.deliver(to, id, event);
        }
        self.schedule_tick(to, id);
    }

    // ---- hosts ----

    fn next_command(&mut self, host: usize) {
        if self.commands.len() as u32 >= self.plan.commands || self.healing {
            return;
        }
        let lun = self.random.below(LUNS as u64) as usize;
        let tag = self.commands.len() as u64 + 1;
        let mut command = hosts::draw(&mut self.random, host, lun, tag, self.number);
        command.data = vec![0; command.blocks as usize];
        if matches!(command.op, HostOp::Write { .. }) {
            self.histories[lun].submit(tag, command.start, command.blocks, self.number);
        }
        self.commands.push(command);
        self.in_flight += 1;
        let path = if self.random.one_in(4) {
            1 - self.paths[host]
        } else {
            self.paths[host]
        };
        self.try_on(self.commands.len() - 1, path);
    }

    fn try_on(&mut self, command: usize, controller: usize) {
        let attempt = self.next_attempt;
        self.next_attempt += 1;
        self.commands[command].attempt = attempt;
        self.attempts.insert(
            attempt,
            Attempt {
                command,
                controller,
                process: 0,
                given_up: false,
                withdrawn: false,
            },
        );
        let delay = self.random.between(20 * US, 200 * US);
        self.after(delay, Happening::Arrive(attempt));
    }

    fn arrive(&mut self, number: u64) {
        let attempt = self.attempts[&number];
        let controller = Controller::BOTH[attempt.controller];
        let command = self.commands[attempt.command].clone();
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
        self.attempts.get_mut(&number).expect("known").process = process_id;
        let in_hand = if self.random.one_in(3) { 0 } else { command.blocks };
        let event = Event::HostCommand(HostCommand {
            id,
            ncae: NcaeIndex(command.lun as u16),
            noid: Noid(command.lun as u32 + 1),
            op: command.op,
            start: Vba(command.start),
            blocks: BlockCount(command.blocks),
            in_hand: BlockCount(in_hand),
        });
        self.after(HOST_TIMEOUT, Happening::TimeOut(number));
        if self.random.one_in(60) && !self.healing {
            let delay = self.random.below(3 * MS);
            self.after(delay, Happening::Withdraw(number));
        }
        self.deliver(controller, process_id, event);
    }

    fn fetch(
        &mut self,
        controller: Controller,
        process: u32,
        id: CommandId,
        offset: BlockCount,
        into: Memory,
        ready: &mut std::collections::VecDeque<Event>,
    ) {
        let Some(number) = self.processes[controller.index()]
            .as_ref()
            .and_then(|p| p.commands.get(&id).copied())
        else {
            return self.fail(format!("{controller}: fetches for a command that is over"));
        };
        let attempt = self.attempts[&number];
        if attempt.given_up || attempt.withdrawn {
            ready.push_back(Event::HostData { id, complete: false });
            return;
        }
        if self.random.one_in(2) {
            let tag = self.commands[attempt.command].tag;
            let tags = vec![tag; into.blocks() as usize];
            self.write_memory(controller.index(), &into, &tags);
            ready.push_back(Event::HostData { id, complete: true });
        } else {
            let delay = self.random.between(20 * US, 3 * MS);
            let offset = offset.0;
            self.after(
                delay,
                Happening::HostData {
                    attempt: number,
                    process,
                    id,
                    offset,
                    into,
                },
            );
        }
    }

    fn host_data(&mut self, number: u64, process: u32, id: CommandId, offset: u32, into: &Memory) {
        let attempt = self.attempts[&number];
        let controller = Controller::BOTH[attempt.controller];
        let _ = offset;
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
                    into: *into,
                },
            );
        }
        if !p.commands.contains_key(&id) {
            return;
        }
        let complete = !(attempt.given_up || attempt.withdrawn);
        if complete {
            let tags = vec![self.commands[attempt.command].tag; into.blocks() as usize];
            self.write_memory(attempt.controller, into, &tags);
        }
        self.deliver(controller, process, Event::HostData { id, complete });
    }

    /// The connection of an attempt is closed: a fetch that is under way answers when it would have come.
    fn fetch_fails(&mut self, number: u64, _id: CommandId, _ready: &mut std::collections::VecDeque<Event>) {
        self.attempts.get_mut(&number).expect("known").given_up = true;
    }

    fn send_data(&mut self, controller: Controller, id: CommandId, offset: BlockCount, tags: &[u64]) {
        let Some(number) = self.processes[controller.index()]
            .as_ref()
            .and_then(|p| p.commands.get(&id).copied())
        else {
            return self.fail(format!("{controller}: sends data for a command that is over"));
        };
        let attempt = self.attempts[&number];
        let command = &mut self.commands[attempt.command];
        if command.attempt == number {
            let at = offset.0 as usize;
            command.data[at..at + tags.len()].copy_from_slice(tags);
        }
    }

    /// A status reaches the host.
    fn answer(&mut self, number: u64, status: Status) {
        let attempt = self.attempts[&number];
        let command = self.commands[attempt.command].clone();
        if command.done || command.attempt != number {
            return;
        }
        let moment = self.number;
        match status {
            Status::Good => {
                if let Err(what) = self.good(&command, moment) {
                    self.fail(format!(
                        "{:?} {}+{} on LUN {}: {what}",
                        command.op, command.start, command.blocks, command.lun
                    ));
                }
                self.paths[command.host] = attempt.controller;
                self.done(attempt.command);
            }
            Status::Aborted if attempt.withdrawn => self.done(attempt.command),
            Status::Aborted if attempt.given_up => self.after(MS, Happening::PathFails(number)),
            Status::Busy | Status::Transitioning | Status::ReadError | Status::WriteError => {
                let delay = self.random.between(MS, 20 * MS);
                self.after(delay, Happening::PathFails(number));
            }
            status => self.fail(format!("{status:?} for {command:?}")),
        }
    }

    fn good(&mut self, command: &Command, moment: u64) -> Result<(), String> {
        let history = &mut self.histories[command.lun];
        match command.op {
            HostOp::Write { .. } => {
                history.acknowledge(command.tag, moment);
                self.report.writes += 1;
            }
            HostOp::Read => {
                let atomic = command.blocks <= 256;
                history.read(command.start, &command.data, command.begun, moment, atomic)?;
                self.report.reads += 1;
            }
            HostOp::Sync => {}
        }
        Ok(())
    }

    fn done(&mut self, command: usize) {
        self.commands[command].done = true;
        self.in_flight -= 1;
        let delay = match self.random.below(8) {
            0 => self.random.between(MS, 300 * MS),
            _ => self.random.below(2 * MS),
        };
        self.after(delay, Happening::NextCommand(self.commands[command].host));
    }

    /// The host tries on the other path, or the same again.
    fn path_fails(&mut self, number: u64) {
        let attempt = self.attempts[&number];
        let command = &self.commands[attempt.command];
        if command.done || command.attempt != number {
            return;
        }
        if attempt.withdrawn {
            return self.done(attempt.command);
        }
        self.attempts.get_mut(&number).expect("known").given_up = true;
        let (lun, tag) = (command.lun, command.tag);
        self.histories[lun].retry(tag);
        let path = if self.random.one_in(4) {
            attempt.controller
        } else {
            1 - attempt.controller
        };
        self.try_on(attempt.command, path);
    }

    /// The host closes a connection on which nothing comes. Its next attempt begins once the controller knows.
    fn time_out(&mut self, number: u64) {
        let attempt = self.attempts[&number];
        let command = &self.commands[attempt.command];
        if command.done || command.attempt != number || attempt.given_up {
            return;
        }
        self.attempts.get_mut(&number).expect("known").given_up = true;
        self.abort(number);
        self.after(5 * MS, Happening::PathFails(number));
    }

    fn withdraw(&mut self, number: u64) {
        let attempt = self.attempts[&number];
        let command = &self.commands[attempt.command];
        if command.done || command.attempt != number || attempt.given_up {
            return;
        }
        self.attempts.get_mut(&number).expect("known").withdrawn = true;
        self.abort(number);
    }

    fn abort(&mut self, number: u64) {
        let attempt = self.attempts[&number];
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

    // ---- faults ----

    fn fault(&mut self, fault: Fault) {
        self.log(|| format!("*** {fault:?}"));
        let heal_after = |ms: u64| ms * MS;
        match fault {
            Fault::Crash(c) => self.crash(c),
            Fault::CrashAfterEffects(c, n) => {
                if let Some(process) = &mut self.processes[c.index()] {
                    process.crash_after = Some(n);
                }
            }
            Fault::CrashBoth => Controller::BOTH.into_iter().for_each(|c| self.crash(c)),
            Fault::CrashBothAfterEffects(a, b) => {
                for (process, effects) in self.processes.iter_mut().zip([a, b]) {
                    if let Some(process) = process {
                        process.crash_after = Some(effects);
                    }
                }
            }
            Fault::PowerLoss => {
                Controller::BOTH.into_iter().for_each(|c| self.crash(c));
                for disk in &mut self.shelf.disks {
                    disk.lose_power(&mut self.random);
                }
            }
            Fault::LoseNv(c) => {
                if self.partner_has_everything(c) {
                    self.crash(c);
                    self.nv[c.index()] = None;
                }
            }
            Fault::Pause(c, ms) => {
                let until = self.now + ms * MS;
                if let Some(process) = &mut self.processes[c.index()] {
                    process.paused_until = until;
                    let id = process.id;
                    self.after(ms * MS, Happening::Resume(c, id));
                }
            }
            Fault::CutLink(ms) => {
                self.wire.cut = true;
                if self.wire.open {
                    self.close_link();
                }
                self.after(heal_after(ms), Happening::Heal(fault));
            }
            Fault::SilentLink(ms) => {
                self.wire.silent = true;
                self.after(heal_after(ms), Happening::Heal(fault));
            }
            Fault::LossyLink(ms) => {
                self.wire.lossy = true;
                self.after(heal_after(ms), Happening::Heal(fault));
            }
            Fault::FailDisk(disk, ms) => {
                self.shelf.failing = Some(disk);
                self.after(heal_after(ms), Happening::Heal(fault));
            }
            Fault::MoveLun(lun, to) => self.manage(ManageOp::LunMove {
                name: lun_name(lun.into()),
                to,
            }),
            Fault::CreateLun => self.manage(ManageOp::LunCreate {
                name: lun_name(9),
                uuid: Uuid(99),
                blocks: 5000,
                redundancy: Redundancy::Vraid1,
            }),
            Fault::DeleteLun => self.manage(ManageOp::LunDelete { name: lun_name(9) }),
            Fault::Stop(c) => self.manage_on(c, ManageOp::Stop),
        }
    }

    fn heal(&mut self, fault: Fault) {
        match fault {
            Fault::CutLink(_) => self.wire.cut = false,
            Fault::SilentLink(_) => self.wire.silent = false,
            Fault::LossyLink(_) => self.wire.lossy = false,
            Fault::FailDisk(..) => self.shelf.failing = None,
            _ => {}
        }
        self.maybe_open_link();
    }

    /// The fault atlas: the NV memory of `c` may go only while its partner serves, and the record names its image.
    fn partner_has_everything(&self, c: Controller) -> bool {
        let other = c.other();
        let Some(process) = &self.processes[other.index()] else {
            return false;
        };
        let Some(nv) = &self.nv[other.index()] else {
            return false;
        };
        let view = process.core.cell_view();
        process.crash_after.is_none()
            && process.paused_until <= self.now
            && view.role == Role::Serving
            && view
                .record
                .is_some_and(|r| r.has(other) && r.is_current(other, nv.image.uuid))
            && view.linked
            && self.wire.open
            && !self.wire.silent
    }

    fn manage(&mut self, op: ManageOp) {
        let c = Controller::BOTH[self.random.below(2) as usize];
        self.manage_on(c, op);
    }

    fn manage_on(&mut self, controller: Controller, op: ManageOp) {
        let Some(id) = self.processes[controller.index()].as_ref().map(|p| p.id) else {
            return;
        };
        let request = RequestId(self.next_request);
        self.next_request += 1;
        self.deliver(controller, id, Event::Manage { request, op });
    }
}

fn lun_name(n: usize) -> Name {
    Name::new(&format!("lun{n}")).expect("a name")
}

fn short(what: &impl std::fmt::Debug) -> String {
    let text = format!("{what:?}");
    if text.len() > 400 {
        format!("{}…", &text[..text.char_indices().take(400).last().map_or(0, |c| c.0)])
    } else {
        text
    }
}

/// Four disks, and two LUNs of three RStores each: one mirrored, one not.
fn first_metadata() -> Metadata {
    let disk = |n: u8| Disk {
        uuid: Uuid(100 + u128::from(n)),
        psegs: 16,
        rss: RssIndex(0),
        rss_offset: n,
        state: DiskState::Normal,
    };
    let at = |disk: u16, pseg: u32| PsegAddress {
        disk: DiskIndex(disk),
        pseg: PsegIndex(pseg),
    };
    let lun = |n: usize, redundancy, psegs| Lun {
        noid: Noid(n as u32 + 1),
        ncae: NcaeIndex(n as u16),
        name: lun_name(n),
        uuid: Uuid(200 + n as u128),
        blocks: 3 * 4096,
        redundancy,
        psegs,
    };
    Metadata {
        generation: 1,
        next_noid: Noid(3),
        disks: (0..DISKS as u8).map(disk).collect(),
        luns: vec![
            lun(
                0,
                Redundancy::Vraid1,
                vec![at(0, 0), at(1, 0), at(2, 0), at(3, 0), at(0, 1), at(1, 1)],
            ),
            lun(1, Redundancy::None, vec![at(0, 3), at(1, 3), at(2, 3)]),
        ],
    }
}
