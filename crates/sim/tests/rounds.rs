//! One core, and quorum disks that fail: driven by hand, because it takes two disks that fail at once.

use std::collections::VecDeque;
use twincell_core::cell::Phase;
use twincell_core::cell::record::{MetadataName, Mode, Record, Slot};
use twincell_core::config::{Config, Geometry, Timing};
use twincell_core::effect::Note;
use twincell_core::event::DiskError;
use twincell_core::ids::{
    BlockCount, ConnectionId, Controller, DiskIndex, Epoch, Incarnation, Noid, ProcessId, RssIndex, Time, Uuid,
};
use twincell_core::layout::metadata::{Disk, DiskState, Metadata};
use twincell_core::link::FIRST;
use twincell_core::link::frame::{Frame, Hello, Mfc, Sequenced};
use twincell_core::list::List;
use twincell_core::{Core, Effect, Event};
use twincell_sim::trace;

const MS: u64 = 1_000_000;
const GEOMETRY: Geometry = Geometry {
    buffers: 64,
    ries: 2,
    htbs: 8,
    transfers: 4,
    destages: 2,
};

struct Bench {
    core: Core,
    now: u64,
    slots: [[Option<Slot>; 2]; 3],
    /// The generation of the metadata on all disks.
    generation: u64,
    fail: bool,
    /// The locks are still held by the process before.
    locked: bool,
    queue: VecDeque<Event>,
    reads: u64,
    writes: u64,
    restarts: u64,
    steps: u64,
}

fn metadata(generation: u64) -> Metadata {
    let disk = |n: u8| Disk {
        uuid: Uuid(u128::from(n) + 1),
        psegs: 16,
        rss: RssIndex(0),
        rss_offset: n,
        state: DiskState::Normal,
    };
    Metadata {
        generation,
        next_noid: Noid(1),
        disks: (0..3).map(disk).collect(),
        luns: Vec::new(),
    }
}

impl Bench {
    fn new(slots: [Option<Slot>; 2]) -> Bench {
        let config = Config {
            controller: Controller::A,
            cell: Uuid(7),
            instance: Uuid(1),
            process: ProcessId::default(),
            fresh_image: Uuid(1000),
            geometry: GEOMETRY,
            timing: Timing::default(),
            disks: 3,
            quorum: (0..3).map(DiskIndex).collect(),
        };
        Bench {
            core: Core::new(config, None),
            now: 1_000 * MS,
            slots: [slots; 3],
            generation: 1,
            fail: false,
            locked: false,
            queue: VecDeque::from([Event::Start]),
            reads: 0,
            writes: 0,
            restarts: 0,
            steps: 0,
        }
    }

    /// Everything that can happen at this moment, as the engine's drain does; at most so many steps.
    fn drain(&mut self, most: u64) {
        let mut left = most;
        while left > 0 {
            let Some(event) = self.queue.pop_front() else { return };
            left -= 1;
            self.steps += 1;
            let mut effects = Vec::new();
            self.core.step(Time(self.now), event, &mut effects);
            for effect in effects {
                self.carry_out(effect);
            }
        }
    }

    fn carry_out(&mut self, effect: Effect) {
        let failed = Err(DiskError);
        match effect {
            Effect::SlotRead { io, disk } => {
                self.reads += 1;
                let result = if self.fail { failed } else { Ok(()) };
                if let (false, Some(place)) = (self.fail, self.core.slots_read_by(io)) {
                    *place = self.slots[disk.index()];
                }
                self.queue.push_back(Event::SlotRead { io, result });
            }
            Effect::SlotWrite { io, disk } => {
                self.writes += 1;
                let result = if self.fail { failed } else { Ok(()) };
                if !self.fail {
                    self.slots[disk.index()][0] = self.core.slot_written_by(io).copied();
                }
                self.queue.push_back(Event::DiskDone { io, result });
            }
            Effect::MetadataRead { io, .. } => {
                let metadata = Ok(Box::new(metadata(self.generation)));
                self.queue.push_back(Event::MetadataRead { io, metadata });
            }
            Effect::TakeLocks if self.locked => {}
            Effect::TakeLocks => self.queue.push_back(Event::LocksTaken),
            Effect::Restart => self.restarts += 1,
            _ => {}
        }
    }

    /// B says this, first of all that it says on this connection.
    fn hears(&mut self, connection: ConnectionId, messages: &[Mfc]) {
        let frame = Sequenced {
            incarnation: Incarnation(6),
            sequence: FIRST,
            acknowledged: FIRST,
        };
        let place = self.core.place_of(connection, &frame).expect("it is awaited");
        *place = List::from_slice(messages);
        self.queue.push_back(Event::LinkFrame {
            connection,
            frame: Frame::Messages(frame),
            payload: BlockCount(0),
        });
    }

    /// Time passes; the core is told at its deadlines.
    fn pass(&mut self, ms: u64) {
        let end = self.now + ms * MS;
        while let Some(Time(at)) = self.core.next_deadline().filter(|t| t.0 <= end) {
            self.now = self.now.max(at);
            self.queue.push_back(Event::Tick);
            self.drain(1_000);
        }
        self.now = end;
    }
}

fn record() -> Record {
    let quorum: Vec<_> = (0..3).map(DiskIndex).collect();
    Record::first(&quorum)
}

fn idle(c: Controller) -> Slot {
    Slot::idle(c, ProcessId::default(), record())
}

/// The own locks are held, and the quorum disks answer every read with an error at once (as the engine does for a disk
/// that is overdue). The core must wait between its tries: the engine drains its queue before it reaps anything.
#[test]
fn the_own_slot_cannot_be_read() {
    let mut b = Bench::new(Controller::BOTH.map(|c| Some(idle(c))));
    // Until the locks are asked for.
    while !b.queue.contains(&Event::LocksTaken) {
        b.drain(1);
        assert!(b.steps < 100);
    }
    b.fail = true;
    let before = b.reads;
    b.drain(10_000);
    let tries = (b.reads - before) / 3;
    assert!(tries < 10, "{tries} rounds in one moment, and no end");
}

/// A finds that B has voted for ALONE(B), and completes it. That it is out must be on a majority of the slots before it
/// starts anew; the quorum disks fail for a moment just then. It must try again: B's fence waits for its locks.
#[test]
fn who_yields_tries_again() {
    let mut theirs = idle(Controller::B);
    theirs.begun = 3;
    theirs.voted = 3;
    theirs.proposal = alone_b();
    theirs.proposal.epoch = record().epoch.next();
    let mut b = Bench::new([Some(idle(Controller::A)), Some(theirs)]);
    // Until its vote is on the disks: three reads of the record, three of the own slot, two rounds of the ballot.
    while b.core.cell_view().record.is_none_or(|r| r.epoch == record().epoch) {
        b.drain(1);
        assert!(b.steps < 1_000);
    }
    b.fail = true;
    b.drain(100);
    b.pass(1_000);
    b.fail = false;
    b.pass(60_000);
    assert_eq!(
        b.restarts,
        1,
        "out, with its locks held, and nothing more will happen: {:?}",
        b.core.next_deadline()
    );
}

/// The record that says that B is in, and has the image.
fn alone_b() -> Record {
    let mut record = record();
    record.mode = Mode::Alone {
        controller: Controller::B,
        dirty: false,
    };
    record.images = [Uuid::NIL, Uuid(5)];
    record
}

/// B says hello, and that its record is the next one.
fn hello_of_b(epoch: Epoch) -> Event {
    said_by_b(ConnectionId(1), hello(epoch))
}

fn said_by_b(connection: ConnectionId, hello: Hello) -> Event {
    Event::LinkFrame {
        connection,
        frame: Frame::Hello(hello),
        payload: BlockCount(0),
    }
}

fn hello(epoch: Epoch) -> Hello {
    Hello {
        controller: Controller::B,
        cell: Uuid(7),
        instance: Uuid(2),
        process: ProcessId::default(),
        incarnation: Incarnation(5),
        session: Incarnation(0),
        met: Uuid::NIL,
        epoch,
        image: Uuid(5),
        undecided: false,
        buffers: GEOMETRY.buffers,
    }
}

/// The record says that either may go on, and A gets its locks late: it has not yet told what it has read when it votes. B
/// outbids it, wins, and says so. A goes at once, without finishing its vote: B's fence waits for its locks.
#[test]
fn who_is_outbid_goes() {
    trace(&["yield-and-vote"], || {
        let last = alone_b();
        let mut b = Bench::new(Controller::BOTH.map(|c| Some(Slot::idle(c, ProcessId::default(), last))));
        b.locked = true;
        b.drain(1_000);
        b.pass(10_000);
        let (path, connection) = (0, ConnectionId(1));
        b.queue.push_back(Event::LinkOpened { path, connection });
        b.queue.push_back(Event::LocksTaken);
        while b.slots[0][0].is_none_or(|own| own.voted == 0) {
            assert!(!b.queue.is_empty(), "it does not vote: {:?}", b.core.cell_view());
            b.drain(1);
        }
        let vote = b.slots[0][0].expect("its vote").voted;
        for [_, theirs] in &mut b.slots {
            theirs.as_mut().expect("B's").begun = vote + 100;
        }
        b.drain(1_000);
        // It is decided, and on no disk yet.
        b.queue.push_back(hello_of_b(last.epoch.next()));
        b.drain(1_000);
        b.pass(60_000);
        assert_eq!(b.restarts, 1, "out, with its locks held");
    });
}

/// What comes of a hello of B on a new connection: whether it is closed, and the notes.
fn greeted(b: &mut Bench, connection: ConnectionId, hello: Hello) -> (bool, Vec<Note>) {
    b.queue.push_back(Event::LinkOpened { path: 0, connection });
    b.drain(1_000);
    let mut effects = Vec::new();
    b.core.step(Time(b.now), said_by_b(connection, hello), &mut effects);
    let closed = effects.contains(&Effect::LinkClose { connection });
    let notes = effects.iter().filter_map(|e| match e {
        Effect::Note(note) => Some(*note),
        _ => None,
    });
    (closed, notes.collect())
}

/// B's cell.toml has another cache than A's. There is no link between them; A tells it once, and again only after B came with
/// the right one, or a third.
#[test]
fn a_partner_with_another_cache_is_not_met() {
    trace(&["whatever-the-size-of-its-cache"], || {
        let mut b = Bench::new(Controller::BOTH.map(|c| Some(idle(c))));
        b.drain(1_000);
        let with = |buffers| Hello {
            buffers,
            ..hello(record().epoch)
        };
        let told = |buffers| vec![Note::OtherCache { buffers }];
        assert_eq!(greeted(&mut b, ConnectionId(1), with(128)), (true, told(128)));
        assert_eq!(greeted(&mut b, ConnectionId(2), with(128)), (true, vec![]));
        assert_eq!(greeted(&mut b, ConnectionId(3), with(192)), (true, told(192)));
        let (closed, _) = greeted(&mut b, ConnectionId(4), with(64));
        assert!(!closed, "the same size is closed");
    });
}

/// A waits to join, and B tells it of a record whose metadata it cannot read. B moves on, and the disks with it: A reads the
/// record anew, and goes by the metadata that this one names.
#[test]
fn who_reads_the_record_anew_reads_its_metadata() {
    trace(&["wait-for-what-was-overtaken"], || {
        let next = |record: Record| Record {
            epoch: record.epoch.next(),
            metadata: MetadataName {
                generation: record.metadata.generation + 1,
                ..record.metadata
            },
            ..record
        };
        // A may not go on with what B has not brought to the disks.
        let mut first = alone_b();
        first.mode = Mode::Alone {
            controller: Controller::B,
            dirty: true,
        };
        let told = next(first);
        let last = next(told);
        let mut b = Bench::new(Controller::BOTH.map(|c| Some(Slot::idle(c, ProcessId::default(), first))));
        b.drain(1_000);
        let (path, connection) = (0, ConnectionId(1));
        b.queue.push_back(Event::LinkOpened { path, connection });
        b.queue.push_back(hello_of_b(first.epoch));
        b.drain(1_000);
        b.hears(ConnectionId(1), &[Mfc::RecordIs(told)]);
        b.drain(1_000);
        assert_eq!(b.core.cell_view().record, Some(first), "the metadata are nowhere");

        b.queue.push_back(Event::LinkClosed {
            connection: ConnectionId(1),
        });
        b.slots = [Controller::BOTH.map(|c| Some(Slot::idle(c, ProcessId::default(), last))); 3];
        b.generation = last.metadata.generation;
        let (path, connection) = (0, ConnectionId(2));
        b.queue.push_back(Event::LinkOpened { path, connection });
        b.queue.push_back(said_by_b(connection, hello(last.epoch)));
        b.drain(1_000);
        b.pass(60_000);
        let view = b.core.cell_view();
        assert_eq!((view.phase, view.record), (Phase::AwaitAttach, Some(last)));
    });
}
