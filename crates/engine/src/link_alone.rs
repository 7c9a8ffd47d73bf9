//! The link alone, for its figures: two processes with the link of the core and that of the engine, and nothing else.
//! Each sends the other mirror data of 128 KiB, which go straight into named buffers and are answered with an MDA; and,
//! between them, messages without data whose answers are timed.
//!
//! The data were sealed before, as those of a host's write are when they are sent; the receiver checks them.

use crate::clock;
use crate::in_place::Place;
use crate::link::Link;
use crate::memory::Memories;
use crate::nv::NvMemory;
use crate::queue::{Body, Happening, Queue};
use crate::ring::{Completion, Ring, Token};
use crate::settings::{FenceChoice, Settings};
use crate::snapshot::Counters;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use twincell_core::config::{Geometry, Timing};
use twincell_core::effect::Effect;
use twincell_core::event::Event;
use twincell_core::ids::{
    ATOMIC_BLOCKS, BUFFER_BLOCKS, BlockCount, BufferIndex, ConnectionId, Controller, Epoch, Nanos, ProcessId,
    RieGeneration, RieIndex, Time, Uuid,
};
use twincell_core::link::frame::{Frame, Hello, Mfc, Mfcs, Sequenced};
use twincell_core::link::mfcd::Mfcd;
use twincell_core::link::path::Why;
use twincell_core::link::{Greeting, Link as CoreLink};
use twincell_core::memory::{Memory, Segment};

/// The cell of both.
const CELL: Uuid = Uuid(0x0a10_5e11);
/// Requests that wait for a frame.
const WAITING: usize = 256;
/// Granules of a transfer.
const GRANULES: u32 = ATOMIC_BLOCKS / BUFFER_BLOCKS;
/// A message without data whose answer is timed has this generation, others 0.
const TIMED: RieGeneration = RieGeneration(1);

/// What a process of the two does.
#[derive(Clone, Debug)]
pub struct Party {
    /// `A` listens, `B` connects and goes on until the connection ends.
    pub controller: Controller,
    /// Where A listens.
    pub address: SocketAddr,
    /// A file for NV memory, on tmpfs.
    pub nv_memory: PathBuf,
    /// Transfers of 128 KiB that it keeps in flight, 0 to 64.
    pub transfers: u16,
    /// Bytes of data that may stand before a message without: the link's own bound, or none.
    pub paced: bool,
    /// How often it sends a message whose answer is timed.
    pub timed_every: Option<Duration>,
    /// How long it goes on.
    pub duration: Duration,
}

/// What was measured.
#[derive(Clone, Debug, Default)]
pub struct Done {
    /// Transfers that were answered, and in how long.
    pub transfers: u64,
    /// See `transfers`.
    pub elapsed: Duration,
    /// How long each answer took.
    pub answers: Vec<Duration>,
}

struct Alone {
    party: Party,
    ring: Ring,
    wire: Link,
    link: CoreLink,
    memories: Memories,
    queue: Queue,
    completions: Vec<Completion>,
    counters: Counters,
    effects: Vec<Effect>,
    mfcs: Mfcs,
    /// When the message was sent whose answer is awaited, and when the next is to be sent.
    timed: Option<Time>,
    timed_next: Time,
    done: Done,
    ended: bool,
}

/// Goes on for as long as the party says, from the first transfer on.
pub fn run(party: Party) -> io::Result<Done> {
    let mut alone = Alone::open(party)?;
    alone.until_met()?;
    let begun = clock::now();
    let end = begun + Nanos(alone.party.duration.as_nanos() as u64);
    alone.timed_next = begun;
    for n in 0..alone.party.transfers {
        alone.link.request(transfer(RieIndex(n)));
    }
    while !alone.ended && clock::now() < end {
        alone.turn()?;
    }
    alone.done.elapsed = Duration::from_nanos(clock::now().since(begun).0);
    if alone.ended && alone.party.controller == Controller::A {
        return Err(io::Error::other("the connection has ended before its time"));
    }
    Ok(alone.done)
}

fn transfer(rie: RieIndex) -> Mfcd {
    let generation = RieGeneration(0);
    Mfcd::MirrorData { rie, generation }
}

/// The buffers of a transfer: A sends from the first half and receives into the second.
fn buffers(rie: RieIndex, from: Controller) -> Memory {
    let first = (u32::from(rie.0) + 64 * from.index() as u32) * GRANULES;
    let segment = |n| Segment {
        buffer: BufferIndex(first + n),
        first: 0,
        count: BUFFER_BLOCKS as u8,
    };
    Memory::Buffers((0..GRANULES).map(segment).collect())
}

impl Alone {
    fn open(party: Party) -> io::Result<Alone> {
        let settings = Settings {
            controller: party.controller,
            cell_name: "alone".to_owned(),
            cell: CELL,
            target_name: String::new(),
            disks: Vec::new(),
            fence: FenceChoice::Kill,
            cache_bytes: 64 << 20,
            nv_memory: party.nv_memory.clone(),
            link: [vec![party.address], Vec::new()],
            iscsi: [Vec::new(), Vec::new()],
            nbd: [Vec::new(), Vec::new()],
        };
        let ring = Ring::new().map_err(io::Error::other)?;
        ring.enable()?;
        let geometry = Geometry::for_cache(settings.cache_bytes);
        let nv = NvMemory::open(&settings, &geometry, Uuid(1)).map_err(io::Error::other)?;
        let mut alone = Alone {
            wire: Link::open(&settings).map_err(io::Error::other)?,
            link: CoreLink::new(Timing::default().retransmit, WAITING),
            memories: Memories::new(nv, 1),
            queue: Queue::default(),
            completions: Vec::new(),
            counters: Counters::default(),
            effects: Vec::new(),
            mfcs: Mfcs::new(),
            timed: None,
            timed_next: Time(0),
            done: Done::default(),
            ended: false,
            ring,
            party,
        };
        if !alone.party.paced {
            alone.link.do_not_pace();
        }
        for n in 0..alone.party.transfers {
            let Memory::Buffers(sgl) = buffers(RieIndex(n), alone.party.controller) else {
                continue;
            };
            sgl.iter().for_each(|s| alone.memories.nv.seal(s.buffer, u8::MAX));
        }
        alone.wire.start(clock::now(), &mut alone.ring);
        Ok(alone)
    }

    fn until_met(&mut self) -> io::Result<()> {
        let limit = clock::now() + Nanos::from_millis(10_000);
        while !self.link.is_up() {
            if clock::now() > limit {
                return Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    "waited 10 s for the other process",
                ));
            }
            self.turn()?;
        }
        Ok(())
    }

    /// Waits until something happens, and does what follows from it: one turn of the engine.
    fn turn(&mut self) -> io::Result<()> {
        match self.queue.is_empty() {
            true => self.ring.submit_and_wait(Some(Duration::from_micros(200)))?,
            false => self.ring.submit()?,
        }
        let mut completions = std::mem::take(&mut self.completions);
        self.ring.reap(&mut completions);
        let now = clock::now();
        completions.drain(..).for_each(|c| self.completed(c, now));
        self.completions = completions;
        self.wire.poll(now, &mut self.ring);
        while let Some(happening) = self.queue.pop() {
            self.link.expect_more(true);
            self.happened(&happening, clock::now());
            self.flush(clock::now());
        }
        self.request_timed();
        self.link.expect_more(false);
        self.flush(clock::now());
        self.finish();
        Ok(())
    }

    fn completed(&mut self, completion: Completion, now: Time) {
        let (result, queue) = (completion.result, &mut self.queue);
        match completion.token {
            Token::LinkAccept(n) => self.wire.accepted(n, completion, now, &mut self.ring),
            Token::LinkConnect(path) => self.wire.connected(path, completion, now, true, queue),
            Token::LinkReceive(key) => self.wire.received(key, result, queue, &mut self.counters),
            Token::LinkSend(key) => self.wire.sent(key, result),
            _ => {}
        }
    }

    fn finish(&mut self) {
        let (link, mfcs, own) = (&mut self.link, &mut self.mfcs, self.party.controller);
        let place: Place = &mut |_, frame, messages, blocks| {
            let Frame::Messages(sequenced) = frame else { return None };
            twincell_wire::frame::decode_mfcs(messages, mfcs).ok()?;
            match mfcs.last() {
                Some(Mfc::MirrorData { rie, .. }) if link.is_next(sequenced) && blocks.0 == ATOMIC_BLOCKS => {
                    Some(buffers(*rie, own.other()))
                }
                _ => None,
            }
        };
        let memories = (&self.memories, &mut self.counters);
        self.wire
            .finish(clock::now(), &mut self.ring, &mut self.queue, memories, place);
    }

    fn happened(&mut self, happening: &Happening, now: Time) {
        match happening.event {
            Event::LinkOpened { path, connection } => {
                self.link.opened(path.into(), connection, now);
                self.say_hello();
            }
            Event::LinkClosed { connection } => {
                self.ended |= self.link.is_up();
                // One that ends before both have met was to somebody else: another is opened.
                if self.link.closed(connection, Why::Ended, now) {
                    self.link.all_closed(now);
                }
            }
            Event::LinkFrame {
                connection,
                frame,
                payload,
            } => {
                let body = happening.body.as_ref();
                self.framed(connection, &frame, payload, body, now);
            }
            _ => {}
        }
    }

    fn say_hello(&mut self) {
        while let Some((connection, own)) = self.link.unsaid() {
            let hello = Hello {
                controller: self.party.controller,
                cell: CELL,
                instance: Uuid(1 + self.party.controller.index() as u128),
                process: ProcessId::default(),
                incarnation: own.last,
                session: own.session,
                met: Uuid::NIL,
                epoch: Epoch(1),
                image: Uuid(1),
                undecided: false,
                buffers: 0,
            };
            let frame = Frame::Hello(hello);
            self.effects.push(Effect::LinkSend { connection, frame });
        }
    }

    fn framed(&mut self, on: ConnectionId, frame: &Frame, payload: BlockCount, body: Option<&Body>, now: Time) {
        match *frame {
            Frame::Hello(hello) => {
                let own = Uuid(1 + self.party.controller.index() as u128);
                self.ended |= self.link.greet(on, hello, own, now) != Greeting::Joined;
            }
            Frame::Ack {
                incarnation,
                acknowledged,
                missing,
            } => self.link.receive_ack(incarnation, acknowledged, missing, now),
            Frame::Messages(sequenced) => self.messages(on, &sequenced, payload, body, now),
            Frame::Heartbeat { .. } | Frame::HeartbeatAnswer { .. } => {}
        }
        while self.link.next_acknowledged().is_some() {}
    }

    fn messages(
        &mut self,
        on: ConnectionId,
        sequenced: &Sequenced,
        payload: BlockCount,
        body: Option<&Body>,
        now: Time,
    ) {
        let (Some(body), Some(place)) = (body, self.link.place_of(sequenced)) else {
            return;
        };
        if !self.wire.read_messages(body, place) || !self.link.receive(on, sequenced, payload.0, now) {
            return;
        }
        self.handle(sequenced.sequence, Some(body), now);
        while let Some(sequence) = self.link.next_held() {
            self.handle(sequence, None, now);
        }
    }

    fn handle(&mut self, sequence: u32, body: Option<&Body>, now: Time) {
        let mfcs: Mfcs = *self.link.arrived(sequence);
        for mfc in mfcs.iter() {
            match *mfc {
                Mfc::MirrorData { rie, generation, .. } => {
                    if let Some(body) = body {
                        let into = buffers(rie, self.party.controller.other());
                        let copied = self.wire.absorb(body, &into, &self.memories);
                        self.counters.copied_on_the_link(copied);
                    }
                    self.link.request(Mfcd::Mda { rie, generation });
                }
                Mfc::Withdraw { rie, generation } => self.link.request(Mfcd::Mda { rie, generation }),
                Mfc::Mda { generation: TIMED, .. } => {
                    let sent = self.timed.take();
                    let answer = sent.map(|at| Duration::from_nanos(now.since(at).0));
                    self.done.answers.extend(answer);
                }
                Mfc::Mda { rie, .. } => {
                    self.done.transfers += 1;
                    self.link.request(transfer(rie));
                }
                _ => {}
            }
        }
    }

    /// Requests the next message whose answer is timed, if it is time and the last was answered.
    fn request_timed(&mut self) {
        let now = clock::now();
        if let Some(every) = self.party.timed_every
            && self.timed.is_none()
            && now >= self.timed_next
            && self.timed_next > Time(0)
        {
            self.timed = Some(now);
            self.timed_next = now + Nanos(every.as_nanos() as u64);
            let (rie, generation) = (RieIndex(0), TIMED);
            self.link.request(Mfcd::Withdraw { rie, generation });
        }
    }

    /// As the core's own `flush_link` does it.
    fn flush(&mut self, now: Time) {
        if !self.link.may_wait() {
            self.link.send_again(now, &mut self.effects);
            while let Some(mfcd) = self.link.next_request() {
                let Some((mfc, payload)) = self.built(mfcd) else {
                    self.link.take_request();
                    continue;
                };
                if mfc.bytes() > self.link.room() {
                    self.link.end_frame(now, &mut self.effects);
                    continue;
                }
                self.link.put(mfc, payload, true);
                if payload.is_some() {
                    self.link.end_frame(now, &mut self.effects);
                }
            }
            self.link.end_frame(now, &mut self.effects);
            self.link.send_acknowledgement(now, &mut self.effects);
        }
        for effect in std::mem::take(&mut self.effects) {
            if let Effect::LinkSend { connection, frame } = effect {
                let messages = match &frame {
                    Frame::Messages(sequenced) => Some(self.link.messages(sequenced.sequence)),
                    _ => None,
                };
                self.wire
                    .send(connection, &frame, messages, &self.memories, &mut self.counters);
            }
        }
    }

    fn built(&self, mfcd: Mfcd) -> Option<(Mfc, Option<Memory>)> {
        Some(match mfcd {
            Mfcd::MirrorData { rie, generation } => {
                let attempt = 0;
                let mfc = Mfc::MirrorData {
                    rie,
                    generation,
                    attempt,
                };
                (mfc, Some(buffers(rie, self.party.controller)))
            }
            Mfcd::Mda { rie, generation } => (Mfc::Mda { rie, generation }, None),
            Mfcd::Withdraw { rie, generation } => (Mfc::Withdraw { rie, generation }, None),
            _ => return None,
        })
    }
}
