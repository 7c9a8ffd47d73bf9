//! Everything at one moment: both controllers, their NV memories, the wire, the disk and the hosts.

use crate::fingerprint::{self, Fingerprint};
use crate::nv::Nv;
use crate::scope::Scope;
use crate::spec::{Register, WRITES};
use std::cell::Cell;
use std::collections::VecDeque;
use std::hash::{Hash, Hasher};
use std::rc::Rc;
use twincell_core::Core;
use twincell_core::cell::record::{Mode, Record, Slot};
use twincell_core::config::{Geometry, Timing};
use twincell_core::controller::Role;
use twincell_core::host::HostOp;
use twincell_core::ids::{
    BlockCount, CommandId, ConnectionId, Controller, DiskIndex, IoId, Nanos, NcaeIndex, Noid, ProcessId, PsegIndex,
    RssIndex, Time, Uuid,
};
use twincell_core::layout::metadata::{Disk, DiskState, Lun, Metadata, Name, PsegAddress, Redundancy};
use twincell_core::link::frame::{Frame, Mfc};
use twincell_core::memory::Memory;

/// Blocks of the LUN: two granules.
pub const LUN_BLOCKS: u64 = 16;
/// Blocks of a transfer buffer that are used.
const TRANSFER_BLOCKS: usize = 24;
/// Timers as long as this never fire.
pub const NEVER: Nanos = Nanos(1 << 50);
/// A heartbeat comes once everything else has come to rest.
const HEARTBEAT: Nanos = Nanos::from_millis(100_000);
/// A timer further away than this is a heartbeat: everything has come to rest.
pub const REST: Nanos = Nanos::from_millis(10_000);

/// Pools as small as two writes allow.
pub const GEOMETRY: Geometry = Geometry {
    buffers: 4,
    ries: 2,
    htbs: 4,
    transfers: 2,
    destages: 1,
};

/// Grants and leases do not run out, and nobody is silent for too long: what such timers do is left to the simulator.
pub fn timing() -> Timing {
    Timing {
        heartbeat: HEARTBEAT,
        silence: NEVER,
        path_silence: NEVER,
        grant: NEVER,
        still: NEVER,
        mirror_data: NEVER,
        host_data: NEVER,
        pause: NEVER,
        ..Timing::default()
    }
}

/// The commands of hosts: the writes, then the read.
pub const COMMANDS: usize = WRITES + 1;
/// The number of the read.
pub const READ: usize = WRITES;

/// What became of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Command {
    /// Not sent yet.
    Unsent,
    /// Sent, and without an answer.
    Open,
    /// Answered, or given up.
    Over,
}

/// A core, which has forgotten when things were that make no difference at `canonical_at`; and its fingerprint at some
/// moment, once that was wanted.
#[derive(Clone)]
pub struct Hosted {
    pub core: Core,
    canonical_at: Option<Time>,
    pub fingerprint: Cell<Option<(Time, Fingerprint)>>,
}

/// A controller's process.
#[derive(Clone)]
pub struct Process {
    pub id: u32,
    pub hosted: Rc<Hosted>,
    pub serves: bool,
    pub wants_locks: bool,
    pub wants_fence: bool,
    /// Which commands it has not completed.
    pub commands: Vec<CommandId>,
    /// Data that it wants from hosts.
    pub fetches: Vec<(CommandId, BlockCount, Memory)>,
    /// It has got locks, and will hear of it.
    pub locks_taken: bool,
    pub fenced: bool,
    pub transfers: Vec<[u8; TRANSFER_BLOCKS]>,
}

impl Process {
    pub fn new(id: u32, core: Core) -> Process {
        Process {
            id,
            hosted: Rc::new(Hosted {
                core,
                canonical_at: None,
                fingerprint: Cell::new(None),
            }),
            serves: false,
            wants_locks: false,
            wants_fence: false,
            commands: Vec::new(),
            fetches: Vec::new(),
            locks_taken: false,
            fenced: false,
            transfers: vec![[0; TRANSFER_BLOCKS]; GEOMETRY.transfers.into()],
        }
    }

    /// The core, which is about to change.
    pub fn core_mut(&mut self) -> &mut Core {
        let hosted = Rc::make_mut(&mut self.hosted);
        hosted.canonical_at = None;
        hosted.fingerprint.set(None);
        &mut hosted.core
    }
}

/// What the link brings to a controller.
#[derive(Clone, Hash)]
pub enum Inbound {
    Opened(ConnectionId),
    Frame(ConnectionId, Rc<Arrival>),
    Closed(ConnectionId),
}

/// A frame on its way.
#[derive(Hash)]
pub struct Arrival {
    pub frame: Frame,
    pub mfcs: Vec<Mfc>,
    pub payload: Vec<u8>,
}

/// How often a slot was written does not matter: nobody watches it for long enough.
#[derive(Clone)]
pub struct Written(pub Rc<Slot>);

impl Hash for Written {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Slot {
            heartbeat: 0,
            ..*self.0
        }
        .hash(state);
    }
}

/// An I/O to the disk that takes a while. Flushes, and reads of slots and metadata, take no time.
#[derive(Clone, Hash)]
pub enum Io {
    Read { block: u64, into: Memory },
    Write { block: u64, from: Memory },
    SlotWrite(Written),
}

impl Io {
    pub fn writes(&self) -> bool {
        matches!(self, Io::Write { .. } | Io::SlotWrite(_))
    }

    /// Whether it is about the data of a LUN.
    pub fn is_data(&self) -> bool {
        matches!(self, Io::Read { .. } | Io::Write { .. })
    }
}

/// An I/O in flight.
#[derive(Clone, Hash)]
pub struct InFlight {
    pub controller: Controller,
    pub process: u32,
    pub io: IoId,
    pub what: Io,
}

/// Everything.
#[derive(Clone)]
pub struct World {
    pub now: u64,
    pub processes: [Option<Process>; 2],
    pub nv: [Rc<Nv>; 2],
    /// The core wants to be started anew.
    pub restarts: [bool; 2],
    pub next_process: u32,
    pub blocks: [u8; LUN_BLOCKS as usize],
    pub slots: [Option<Written>; 2],
    pub locks: [Option<u32>; 2],
    pub in_flight: Vec<InFlight>,
    pub connection: Option<ConnectionId>,
    pub next_connection: u64,
    pub inbound: [VecDeque<Inbound>; 2],
    pub commands: [Command; COMMANDS],
    /// What the read has found so far.
    pub found: [u8; 2],
    pub register: Register,
    pub crashes: u8,
    pub drops: u8,
    pub cuts: u8,
}

pub fn lun_name() -> Name {
    Name::new("lun").expect("a name")
}

/// One disk and one LUN on it.
pub fn metadata() -> Metadata {
    let pseg = PsegAddress {
        disk: DiskIndex(0),
        pseg: PsegIndex(0),
    };
    Metadata {
        generation: 1,
        next_noid: Noid(2),
        disks: vec![Disk {
            uuid: Uuid(100),
            psegs: 1,
            rss: RssIndex(0),
            rss_offset: 0,
            state: DiskState::Normal,
        }],
        luns: vec![Lun {
            noid: Noid(1),
            ncae: NcaeIndex(0),
            name: lun_name(),
            uuid: Uuid(200),
            blocks: LUN_BLOCKS,
            redundancy: Redundancy::None,
            psegs: vec![pseg],
        }],
    }
}

impl World {
    /// A cell that was just created, and nothing runs.
    pub fn new(scope: &Scope) -> World {
        let record = Record::first(&[DiskIndex(0)]);
        let slot = |c| Some(Written(Rc::new(Slot::idle(c, ProcessId::default(), record))));
        World {
            // So late that what was never done is longer ago than any timer waits.
            now: NEVER.0 * 2,
            processes: [None, None],
            nv: [Rc::new(Nv::new(GEOMETRY)), Rc::new(Nv::new(GEOMETRY))],
            restarts: [false; 2],
            next_process: 1,
            blocks: [0; LUN_BLOCKS as usize],
            slots: Controller::BOTH.map(slot),
            locks: [None; 2],
            in_flight: Vec::new(),
            connection: None,
            next_connection: 1,
            inbound: [VecDeque::new(), VecDeque::new()],
            commands: [Command::Unsent; COMMANDS],
            found: [0; 2],
            register: Register::new(scope.covers()),
            crashes: 0,
            drops: 0,
            cuts: 0,
        }
    }

    pub fn process(&self, c: Controller) -> Option<&Process> {
        self.processes[c.index()].as_ref()
    }

    pub fn process_mut(&mut self, c: Controller) -> &mut Process {
        self.processes[c.index()].as_mut().expect("a process that runs")
    }

    pub fn nv_mut(&mut self, c: Controller) -> &mut Nv {
        Rc::make_mut(&mut self.nv[c.index()])
    }

    /// Whether both serve under a record that says `BOTH`.
    pub fn is_well(&self) -> bool {
        let well = |p: &Option<Process>| {
            let view = p.as_ref().filter(|p| p.serves).map(|p| p.hosted.core.cell_view());
            view.is_some_and(|v| v.role == Role::Serving && v.record.is_some_and(|r| r.mode == Mode::Both))
        };
        self.processes.iter().all(well)
    }

    /// The earliest timer, if any will ever fire.
    pub fn deadline(&self) -> Option<u64> {
        let deadlines = self
            .processes
            .iter()
            .flatten()
            .filter_map(|p| p.hosted.core.next_deadline());
        let earliest = deadlines.map(|t| t.0.max(self.now)).min()?;
        (earliest - self.now < NEVER.0 / 8).then_some(earliest)
    }

    /// Whether nothing but heartbeats will happen by itself.
    pub fn is_at_rest(&self) -> bool {
        self.in_flight.is_empty() && self.deadline().is_none_or(|at| at - self.now > REST.0)
    }

    /// Whatever was when it makes no difference any more is forgotten, so that such states are one.
    pub fn forget_when(&mut self) {
        let now = Some(Time(self.now));
        for process in self.processes.iter_mut().flatten() {
            if process.hosted.canonical_at != now {
                process.core_mut().forget_when(Time(self.now));
                Rc::make_mut(&mut process.hosted).canonical_at = now;
            }
        }
    }

    /// The fingerprint of everything. Moments count by how far away they are, and I/Os by what they are for.
    pub fn fingerprint(&self) -> Fingerprint {
        twincell_core::canonical::set_now(Some(Time(self.now)));
        let mut hasher = fingerprint::Fingerprinter::default();
        for (c, process) in self.processes.iter().enumerate() {
            let Some(p) = process else {
                hasher.write_u8(0);
                continue;
            };
            hasher.write_u32(p.id);
            self.fingerprint_of(p).hash(&mut hasher);
            (p.serves, p.wants_locks, p.wants_fence, p.locks_taken, p.fenced).hash(&mut hasher);
            (&p.commands, &p.fetches, &p.transfers, c).hash(&mut hasher);
        }
        (&self.nv, self.restarts, self.blocks, &self.slots, self.locks).hash(&mut hasher);
        (
            &self.inbound,
            self.connection,
            &self.register,
            self.commands,
            self.found,
        )
            .hash(&mut hasher);
        (self.crashes, self.drops, self.cuts).hash(&mut hasher);
        // The order in which they were submitted means nothing.
        let in_flight = self
            .in_flight
            .iter()
            .map(|io| fingerprint::of(&(io.process, io.io.index, &io.what)));
        in_flight.fold(0, u128::wrapping_add).hash(&mut hasher);
        twincell_core::canonical::set_now(None);
        hasher.fingerprint()
    }

    fn fingerprint_of(&self, process: &Process) -> Fingerprint {
        let now = Time(self.now);
        match process.hosted.fingerprint.get() {
            Some((then, fingerprint)) if then == now => fingerprint,
            _ => {
                let fingerprint = fingerprint::of(&process.hosted.core);
                process.hosted.fingerprint.set(Some((now, fingerprint)));
                fingerprint
            }
        }
    }

    /// The tags in a memory of a process.
    pub fn read_memory(&self, c: Controller, memory: &Memory) -> Vec<u8> {
        match memory {
            Memory::Buffers(sgl) => self.nv[c.index()].read(sgl),
            Memory::Transfer {
                transfer,
                first,
                blocks,
            } => {
                let first = usize::from(*first);
                let process = self.process(c).expect("a process that runs");
                process.transfers[transfer.index()][first..first + usize::from(*blocks)].to_vec()
            }
        }
    }

    /// Puts tags into a memory of a process.
    pub fn write_memory(&mut self, c: Controller, memory: &Memory, tags: &[u8]) {
        assert_eq!(memory.blocks() as usize, tags.len(), "the length of the data");
        match memory {
            Memory::Buffers(sgl) => self.nv_mut(c).write(sgl, tags),
            Memory::Transfer { transfer, first, .. } => {
                let first = usize::from(*first);
                self.process_mut(c).transfers[transfer.index()][first..first + tags.len()].copy_from_slice(tags);
            }
        }
    }
}

/// What a host's command asks for, in a scope.
pub fn op_of(command: usize) -> HostOp {
    if command == READ {
        HostOp::Read
    } else {
        HostOp::Write { fua: false }
    }
}
