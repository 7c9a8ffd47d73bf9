//! The connections to the partner (DESIGN section 7): A listens, B connects. What arrives is checked before the core
//! sees it, and stays in the input of its connection until the end of the drain; what leaves in one drain leaves in
//! one send. Whoever connects to A is a stranger, of whom the core knows nothing, until a hello of the partner has come. Large payload is received straight into the buffers where the core is going to want it
//! (docs/decisions/0004).

use crate::crc;
use crate::error::OpenError;
use crate::in_place::{InPlace, Place};
use crate::link_view::{Ends, LinkSnapshot, PathSnapshot};
use crate::listener::Listener;
use crate::memory::Memories;
use crate::queue::{Body, Queue};
use crate::ring::{Completion, Ring, Token};
use crate::settings::Settings;
use crate::snapshot::Counters;
use crate::stream::{Came, IN_PLACE_BYTES, Stream};
use io_uring::{opcode, types};
use slab::Slab;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;
use std::time::Duration;
use tracing::{debug, info, warn};
use twincell_core::Core;
use twincell_core::event::Event;
use twincell_core::ids::{BLOCK_BYTES, BUFFER_BYTES, BlockCount, ConnectionId, Controller, Nanos, Time, Uuid};
use twincell_core::link::frame::{Frame, Messages, Mfcs, Sequenced};
use twincell_core::link::path::PATHS_MAX;
use twincell_core::memory::Memory;
use twincell_wire::crc32c;
use twincell_wire::frame::{self, BODY_BYTES_MAX, FrameHeader, HEADER_BYTES, PAYLOAD_BLOCKS_MAX};

/// Bytes of the largest frame with its payload.
const FRAME_BYTES: usize = HEADER_BYTES + BODY_BYTES_MAX + PAYLOAD_BLOCKS_MAX as usize * 512;
/// Bytes of the input of a connection: several of the largest frames.
const INPUT_BYTES: usize = 4 * FRAME_BYTES;
/// Bytes that are received with what is large, or before it: room for a header and the messages behind it.
const AHEAD_BYTES: usize = 512;
/// From this many bytes of payload on a frame is sent at once: a copy costs more than a system call.
const SENT_AT_ONCE_BYTES: u64 = 32 << 10;
/// How long B waits before it connects again.
const DIAL_AGAIN: Nanos = Nanos::from_millis(50);
/// How long B waits for an answer to its connect.
const DIAL_TIMEOUT: Nanos = Nanos::from_millis(1000);
/// How long a stranger may take to say hello.
const HELLO_WITHIN: Nanos = Nanos::from_millis(5000);
/// Strangers at a time; one more, and the oldest goes.
const STRANGERS_MAX: usize = 8;
/// Connections that A keeps, those that are about to end included.
const CONNECTIONS_MAX: usize = 2 * STRANGERS_MAX + 2 * PATHS_MAX;

/// A connection to the partner, or to somebody who claims to be it.
struct Connection {
    id: ConnectionId,
    path: u8,
    stream: Stream,
    /// What the next send sends.
    output: Vec<u8>,
    /// How much of the input is in the queue already.
    parsed: usize,
    /// CRCs of payload that is in the queue, granule by granule.
    crcs: Vec<u32>,
    /// Bytes that are missing of the frame that the input ends in; 0 if not even its header is there.
    missing: usize,
    /// The frame whose payload is being received in place, or is there and was queued in this drain.
    in_place: Option<InPlace>,
    /// Memory of the last such frame.
    spare: Vec<u8>,
    /// It was accepted, and no hello of the partner has come.
    stranger: Option<Stranger>,
    /// Why it ended, where that was found here.
    why: Option<String>,
}

/// Somebody who has connected, and of whom the core knows nothing.
struct Stranger {
    /// It must say hello before this,
    until: Time,
    /// as a controller of this cell,
    cell: Uuid,
    /// and as this one.
    partner: Controller,
}

impl Stranger {
    /// Whether it is the partner after all: this is what it says first.
    fn is_partner(&self, first: &Frame) -> bool {
        matches!(first, Frame::Hello(hello) if hello.cell == self.cell && hello.controller == self.partner)
    }
}

/// What is next in the input.
#[allow(clippy::large_enum_variant, reason = "it is looked at once, and at once")]
enum Next {
    /// Not all of it is there.
    Nothing,
    /// A frame that was damaged on its way; its header is sound, so it is known where it ended.
    Garbled,
    /// A frame, and its blocks of payload.
    Frame(Frame, BlockCount, Body),
}

/// B's attempt to reach A.
enum Dial {
    /// At this time again.
    Waiting(Time),
    /// Until this time.
    Connecting {
        socket: Socket,
        _address: Box<SockAddr>,
        until: Option<Time>,
    },
    /// A connection is there.
    Connected,
    /// Not wanted now.
    Idle,
}

/// A path, as B sees it.
struct Line {
    /// Where B connects to, and from which of its own addresses.
    to: SocketAddr,
    from: Option<IpAddr>,
    dial: Dial,
}

/// All connections to the partner.
pub(crate) struct Link {
    /// Of A, one for each path.
    listeners: Vec<Listener>,
    /// Of B, one for each path.
    lines: Vec<Line>,
    connections: Slab<Connection>,
    last_id: u64,
    /// The cell, and which of its controllers the partner is.
    cell: Uuid,
    partner: Controller,
    /// By path: why its last connection ended.
    ends: [Ends; PATHS_MAX],
    /// The newest frame with messages that was sent.
    newest: Option<Sequenced>,
}

impl Link {
    /// Binds what A listens on.
    pub(crate) fn open(settings: &Settings) -> Result<Link, OpenError> {
        let [of_a, of_b] = &settings.link;
        if of_a.is_empty() || of_a.len() > PATHS_MAX {
            return Err(OpenError::Settings(format!(
                "the settings name {} link addresses of controller A: it must be 1 to {PATHS_MAX}",
                of_a.len()
            )));
        }
        let is_a = settings.controller == Controller::A;
        let bind = |(i, address): (usize, &SocketAddr)| {
            let listener = Listener::bind(*address, "link", Token::LinkAccept(i as u32))?;
            without_pacing(listener.socket());
            Ok(listener)
        };
        let listeners = of_a
            .iter()
            .enumerate()
            .filter(|_| is_a)
            .map(bind)
            .collect::<Result<_, _>>()?;
        let line = |(i, to): (usize, &SocketAddr)| Line {
            to: *to,
            from: of_b.get(i).map(SocketAddr::ip),
            dial: Dial::Idle,
        };
        let lines = of_a.iter().enumerate().filter(|_| !is_a).map(line).collect();
        Ok(Link {
            listeners,
            lines,
            connections: Slab::new(),
            last_id: 0,
            cell: settings.cell,
            partner: settings.controller.other(),
            ends: Default::default(),
            newest: None,
        })
    }

    /// The link as the core and this engine know it.
    pub(crate) fn snapshot(&self, core: &Core, settings: &Settings, now: Time) -> LinkSnapshot {
        let [own, partner] = [settings.controller, self.partner].map(|c| &settings.link[c.index()]);
        let paths = core.paths().zip(own.iter().zip(partner));
        let link = core.link();
        LinkSnapshot {
            paths: paths
                .map(|(path, (own, partner))| PathSnapshot {
                    own: *own,
                    partner: *partner,
                    state: path.state,
                    round_trip: path.round_trip.map(|d| Duration::from_nanos(d.0)),
                    since: (path.since > Time(0)).then(|| Duration::from_nanos(now.since(path.since).0)),
                    why: self.ends[path.path].told(path.why),
                })
                .collect(),
            messages: link.messages,
            frames: link.frames,
            resent: link.resent,
            dropped: link.dropped,
            stale: core.link_counts().1,
            moves: link.moves,
        }
    }

    /// Lets the partner in, or begins to look for it.
    pub(crate) fn start(&mut self, now: Time, ring: &mut Ring) {
        self.listeners.iter_mut().for_each(|listener| listener.open(ring));
        self.lines.iter_mut().for_each(|line| line.dial = Dial::Waiting(now));
        self.poll(now, ring);
    }

    /// Closes everything. It is reaped later.
    pub(crate) fn stop(&mut self, ring: &mut Ring) {
        self.listeners.iter_mut().for_each(Listener::close);
        self.connections.iter_mut().for_each(|(_, c)| c.stream.close());
        for (path, line) in (0..).zip(&mut self.lines) {
            match &mut line.dial {
                Dial::Connecting { until, .. } => {
                    *until = None;
                    ring.cancel(Token::LinkConnect(path));
                }
                dial => *dial = Dial::Idle,
            }
        }
    }

    /// Forgets the connections that are reaped, and tells nobody.
    pub(crate) fn forget(&mut self) {
        self.connections.retain(|_, c| !c.stream.is_reaped());
    }

    /// When to poll next.
    pub(crate) fn next_deadline(&self) -> Option<Time> {
        let dial = |line: &Line| match line.dial {
            Dial::Waiting(at) => Some(at),
            Dial::Connecting { until, .. } => until,
            Dial::Connected | Dial::Idle => None,
        };
        let strangers = self.connections.iter().filter(|(_, c)| c.is_stranger());
        self.listeners
            .iter()
            .filter_map(Listener::next_deadline)
            .chain(self.lines.iter().filter_map(dial))
            .chain(strangers.filter_map(|(_, c)| Some(c.stranger.as_ref()?.until)))
            .min()
    }

    /// Does what is due.
    pub(crate) fn poll(&mut self, now: Time, ring: &mut Ring) {
        self.listeners.iter_mut().for_each(|listener| listener.poll(now, ring));
        for ((path, line), ends) in (0..).zip(&mut self.lines).zip(&mut self.ends) {
            match &mut line.dial {
                Dial::Waiting(at) if *at <= now => {
                    if let Err(e) = line.connect(path, now, ring) {
                        // It is tried again and again: what is news is logged.
                        let why = Some(format!("no socket from {:?}: {e}", line.from));
                        if ends.refused != why {
                            warn!(path, from = ?line.from, "no socket for the link, trying again: {e}");
                        }
                        ends.refused = why;
                    }
                }
                Dial::Connecting { until, .. } if until.is_some_and(|until| until <= now) => {
                    *until = None;
                    ring.cancel(Token::LinkConnect(path));
                }
                _ => {}
            }
        }
        for (_, connection) in &mut self.connections {
            let late = connection.stranger.as_ref().is_some_and(|s| s.until <= now);
            if late && connection.is_stranger() {
                debug!(connection = %connection.id, "whoever connected has not said hello");
                connection.stream.close();
            }
        }
    }

    /// The completion of B's connect. `wanted`: connections are let in at all.
    pub(crate) fn connected(&mut self, path: u32, completion: Completion, now: Time, wanted: bool, queue: &mut Queue) {
        let line = &mut self.lines[path as usize];
        let Dial::Connecting { socket, .. } = std::mem::replace(&mut line.dial, Dial::Idle) else {
            return;
        };
        match completion.io_result() {
            _ if !wanted => {}
            Ok(_) => {
                line.dial = Dial::Connected;
                self.ends[path as usize].refused = None;
                let path = path as u8;
                let connection = self.add(path, socket, None);
                queue.push(Event::LinkOpened { path, connection });
            }
            Err(e) => {
                debug!(path, "the partner does not answer: {e}");
                self.ends[path as usize].refused = Some(e.to_string());
                line.dial = Dial::Waiting(now + DIAL_AGAIN);
            }
        }
    }

    /// The completion of an accept.
    pub(crate) fn accepted(&mut self, listener: u32, completion: Completion, now: Time, ring: &mut Ring) {
        let Some(socket) = self.listeners[listener as usize].accepted(completion, ring) else {
            return;
        };
        let strangers = self.connections.iter_mut().map(|(_, c)| c);
        let mut strangers: Vec<_> = strangers.filter(|c| c.is_stranger()).collect();
        strangers.sort_unstable_by_key(|c| c.id);
        if strangers.len() >= STRANGERS_MAX {
            warn!("too many connections on the link that say nothing: the oldest ends");
            strangers[0].stream.close();
        }
        if self.connections.len() >= CONNECTIONS_MAX {
            warn!("too many connections on the link; one more is refused");
            return;
        }
        let stranger = Stranger {
            until: now + HELLO_WITHIN,
            cell: self.cell,
            partner: self.partner,
        };
        self.add(listener as u8, socket, Some(stranger));
    }

    fn add(&mut self, path: u8, socket: Socket, stranger: Option<Stranger>) -> ConnectionId {
        self.last_id += 1;
        let id = ConnectionId(self.last_id);
        debug!(connection = %id, path, peer = ?socket.peer_addr().ok().and_then(|a| a.as_socket()), "link connection open");
        self.connections.insert(Connection {
            id,
            path,
            stream: Stream::new(socket, INPUT_BYTES, AHEAD_BYTES),
            output: Vec::new(),
            parsed: 0,
            crcs: Vec::new(),
            missing: 0,
            in_place: None,
            spare: Vec::new(),
            stranger,
            why: None,
        });
        id
    }

    /// The completion of a receive: queues the frames that came.
    pub(crate) fn received(&mut self, key: u32, result: i32, queue: &mut Queue, counters: &mut Counters) {
        let key = key as usize;
        let connection = &mut self.connections[key];
        let before = connection.stream.input().len();
        if !connection.stream.received(result) {
            return connection.ended(result);
        }
        counters.link_bytes_received += (connection.stream.input().len() - before) as u64;
        connection.parse_all(key, queue, counters);
    }

    /// The completion of a send.
    pub(crate) fn sent(&mut self, key: u32, result: i32) {
        let connection = &mut self.connections[key as usize];
        if !connection.stream.sent(result) {
            connection.ended(result);
        }
    }

    /// Sends a frame and its payload, or takes a copy of what is to be sent at the end of the drain.
    pub(crate) fn send(
        &mut self,
        to: ConnectionId,
        frame: &Frame,
        messages: Option<&Messages>,
        memories: &Memories,
        counters: &mut Counters,
    ) {
        if let Frame::Messages(sequenced) = frame
            && !self.is_sent_again(sequenced)
        {
            self.newest = Some(*sequenced);
        }
        let Some((_, connection)) = self.connections.iter_mut().find(|(_, c)| c.id == to) else {
            return;
        };
        if connection.stream.is_closed() {
            return;
        }
        let output = &mut connection.output;
        let before = output.len();
        let mfcs = messages.map_or(&[][..], |m| &m.mfcs);
        let payload = messages.and_then(|m| m.payload.as_ref());
        let (blocks, crc) = payload.map_or((0, 0), |p| (p.blocks(), memories.crc(p)));
        frame::encode(frame, mfcs, blocks, crc, output);
        let payload_bytes = u64::from(blocks) * BLOCK_BYTES as u64;
        counters.frames_sent += 1;
        counters.link_bytes_sent += (output.len() - before) as u64 + payload_bytes;
        let Some(payload) = payload else { return };
        let pieces = memories.slices(payload);
        let copied = if payload_bytes >= SENT_AT_ONCE_BYTES {
            connection.stream.send_at_once(output, pieces)
        } else {
            pieces.for_each(|piece| output.extend_from_slice(piece));
            payload_bytes as usize
        };
        counters.copied_on_the_link(copied);
    }

    /// Whether this frame was sent before, on whatever connection.
    pub(crate) fn is_sent_again(&self, frame: &Sequenced) -> bool {
        let of_this = self.newest.filter(|n| n.incarnation == frame.incarnation);
        // They wrap: what is less than half of all behind the newest is not newer.
        of_this.is_some_and(|newest| newest.sequence.wrapping_sub(frame.sequence) < u32::MAX / 2)
    }

    /// Ends a connection; `LinkClosed` follows when it is reaped.
    pub(crate) fn close(&mut self, connection: ConnectionId) {
        if let Some((_, connection)) = self.connections.iter_mut().find(|(_, c)| c.id == connection) {
            connection.stream.close();
        }
    }

    /// Reads the messages of a queued frame. Returns whether they make sense; if not, the connection ends.
    pub(crate) fn read_messages(&mut self, body: &Body, into: &mut Mfcs) -> bool {
        let connection = &mut self.connections[body.key];
        let bytes = match &connection.in_place {
            Some(there) if body.in_place => there.messages(),
            _ => &connection.stream.input()[body.messages.clone()],
        };
        let result = frame::decode_mfcs(bytes, into);
        if let Err(e) = &result {
            connection.fail(&e.to_string());
        }
        result.is_ok()
    }

    /// Puts the payload of the frame that is being handled where the core wants it. Returns how many bytes were copied.
    pub(crate) fn absorb(&self, body: &Body, into: &Memory, memories: &Memories) -> usize {
        let connection = &self.connections[body.key];
        let crcs = &connection.crcs[body.crcs..];
        match &connection.in_place {
            Some(there) if body.in_place && there.into == *into => {
                memories.expect(into, crcs);
                return 0;
            }
            Some(there) if body.in_place => {
                memories.unseal(into);
                memories.copy(&there.into, into);
            }
            _ => {
                let bytes = &connection.stream.input()[body.payload.clone()];
                memories.absorb(into, bytes, &crcs[..bytes.len().div_ceil(BUFFER_BYTES)]);
            }
        }
        into.blocks() as usize * BLOCK_BYTES
    }

    /// Posts what is to be sent. It does not wait until large payload was received: that takes longer than to send it.
    fn post_sends(&mut self, ring: &mut Ring) {
        for (key, connection) in &mut self.connections {
            let token = Token::LinkSend(key as u32);
            connection.stream.post_send(ring, token, &mut connection.output);
        }
        if self.connections.iter().any(|(_, c)| c.is_about_to_receive()) {
            // What is wrong with the ring shows when it is waited for.
            let _ = ring.submit();
        }
    }

    /// The end of a drain: every queued frame was handled. Posts what can be posted, and queues `LinkClosed` for what
    /// is reaped.
    pub(crate) fn finish(
        &mut self,
        now: Time,
        ring: &mut Ring,
        queue: &mut Queue,
        (memories, counters): (&Memories, &mut Counters),
        place: Place,
    ) {
        self.post_sends(ring);
        let (lines, ends) = (&mut self.lines, &mut self.ends);
        self.connections.retain(|key, connection| {
            connection.stream.consume(std::mem::take(&mut connection.parsed));
            connection.crcs.clear();
            let token = Token::LinkReceive(key as u32);
            let in_place = connection.receive_in_place(key, queue, (memories, counters), place);
            let is_queued = connection.in_place.as_ref().is_some_and(|p| p.is_queued);
            // What came behind such a frame may be in the queue, too, and lies in the input.
            let is_used = is_queued || connection.parsed > 0;
            let stream = &mut connection.stream;
            if !in_place {
                let large = connection.missing >= IN_PLACE_BYTES;
                let room = connection.missing.max(HEADER_BYTES);
                stream.post_receive(ring, token, room, if large { room } else { 0 });
            } else if !is_queued {
                stream.post_poll(ring, token);
            }
            if !stream.is_reaped() || is_used {
                return true;
            }
            if connection.stranger.is_none() {
                ends[usize::from(connection.path)].ended = connection.why.take();
                queue.push(Event::LinkClosed {
                    connection: connection.id,
                });
            }
            if let Some(line) = lines.get_mut(usize::from(connection.path))
                && matches!(line.dial, Dial::Connected)
            {
                line.dial = Dial::Waiting(now + DIAL_AGAIN);
            }
            false
        });
    }
}

impl Line {
    fn connect(&mut self, path: u32, now: Time, ring: &mut Ring) -> io::Result<()> {
        self.dial = Dial::Waiting(now + DIAL_AGAIN);
        let socket = self.socket()?;
        without_pacing(&socket);
        let address = Box::new(SockAddr::from(self.to));
        let fd = types::Fd(socket.as_raw_fd());
        let entry = opcode::Connect::new(fd, address.as_ptr().cast(), address.len()).build();
        // SAFETY: the address is on the heap and kept in `dial` until the completion; `drop` leaks it otherwise.
        unsafe { ring.post(Token::LinkConnect(path), entry) };
        self.dial = Dial::Connecting {
            socket,
            _address: address,
            until: Some(now + DIAL_TIMEOUT),
        };
        Ok(())
    }

    /// A socket with its own end on the network of this path.
    fn socket(&self) -> io::Result<Socket> {
        let socket = Socket::new(Domain::for_address(self.to), Type::STREAM, Some(Protocol::TCP))?;
        if let Some(from) = self.from.filter(|ip| ip.is_ipv4() == self.to.is_ipv4()) {
            socket.bind(&SocketAddr::new(from, 0).into())?;
        }
        Ok(socket)
    }
}

/// A congestion control that paces, as BBR does, sets a timer for each large segment: more work than to send it. Every
/// kernel has Reno; where that is not allowed the system's choice stays. To be called before the socket is connected:
/// what has paced once does so for good.
fn without_pacing(socket: &Socket) {
    let _ = socket.set_tcp_congestion(b"reno");
}

impl Drop for Link {
    fn drop(&mut self) {
        for line in &mut self.lines {
            if matches!(line.dial, Dial::Connecting { .. }) {
                std::mem::forget(std::mem::replace(&mut line.dial, Dial::Idle));
            }
        }
    }
}

impl Connection {
    /// Whether it is open, and the core knows nothing of it.
    fn is_stranger(&self) -> bool {
        self.stranger.is_some() && !self.stream.is_closed()
    }

    /// Whether large payload comes next, and is not waited for.
    fn is_about_to_receive(&self) -> bool {
        let is_large = self.in_place.is_some() || self.missing >= IN_PLACE_BYTES;
        is_large && !self.stream.is_receiving()
    }

    /// Queues the frames of the input.
    fn parse_all(&mut self, key: usize, queue: &mut Queue, counters: &mut Counters) {
        loop {
            match self.parse(key) {
                Ok(Next::Nothing) => return,
                Ok(Next::Garbled) => self.drop_garbled(counters),
                Ok(Next::Frame(frame, payload, body)) => {
                    let connection = self.id;
                    if let Some(stranger) = self.stranger.take_if(|s| s.is_partner(&frame)) {
                        debug!(%connection, partner = %stranger.partner, "it is the partner");
                        let path = self.path;
                        queue.push(Event::LinkOpened { path, connection });
                    }
                    if self.stranger.is_some() {
                        return self.fail("whoever connected is not the partner");
                    }
                    counters.frames_received += 1;
                    if payload.0 as usize * BLOCK_BYTES >= IN_PLACE_BYTES {
                        self.stream.expect_large();
                    }
                    let event = Event::LinkFrame {
                        connection,
                        frame,
                        payload,
                    };
                    queue.push_frame(event, body);
                }
                Err(e) => return self.fail(&e.to_string()),
            }
        }
    }

    /// A frame was damaged on its way, but not its header: the next begins behind it, and if it was one that must arrive
    /// it comes again.
    fn drop_garbled(&self, counters: &mut Counters) {
        warn!(connection = %self.id, "a garbled frame is dropped");
        counters.frames_garbled += 1;
    }

    fn fail(&mut self, why: &str) {
        warn!(connection = %self.id, "the link connection is closed: {why}");
        self.close(why.to_owned());
    }

    /// Sending or receiving has failed.
    fn ended(&mut self, result: i32) {
        if self.stream.is_closed() {
            return;
        }
        let why = match result {
            0.. => "by the partner".to_owned(),
            error => io::Error::from_raw_os_error(-error).to_string(),
        };
        info!(connection = %self.id, "the link connection has ended: {why}");
        self.close(why);
    }

    fn close(&mut self, why: String) {
        self.why.get_or_insert(why);
        self.stream.close();
    }

    /// Receives payload straight into its place, if that is what comes next and the core knows the place; returns
    /// whether it is. Called when every event was handled, and the core handles the frame before this is called again:
    /// so nobody else gets the same place in between.
    fn receive_in_place(
        &mut self,
        key: usize,
        queue: &mut Queue,
        (memories, counters): (&Memories, &mut Counters),
        place: Place,
    ) -> bool {
        if let Some(done) = self.in_place.take_if(|p| p.is_queued) {
            self.spare = done.into_head();
        }
        if self.stream.is_closed() || self.stream.is_receiving() {
            return self.in_place.is_some();
        }
        // What was right may be so no more.
        if let Some(lost) = self.in_place.take_if(|p| !p.is_right(place)) {
            counters.copied_on_the_link(lost.placed());
            self.missing = lost.put_back(&mut self.stream, memories);
            return false;
        }
        if self.in_place.is_none() {
            let (stream, spare) = (&mut self.stream, &mut self.spare);
            self.in_place = InPlace::begin(self.id, stream, self.missing, spare, memories, place);
            counters.copied_on_the_link(self.in_place.as_ref().map_or(0, InPlace::placed));
        }
        let Some(in_place) = &mut self.in_place else {
            return false;
        };
        self.missing = 0;
        match in_place.receive(&mut self.stream, memories) {
            Came::Nothing => {}
            Came::End => self.ended(0),
            Came::Bytes(bytes) => {
                counters.link_bytes_received += (bytes + self.stream.input().len()) as u64;
                if in_place.missing() == 0 {
                    self.end_in_place(key, queue, memories, counters);
                }
            }
        }
        true
    }

    /// All of the payload is there: queues the frame, if the payload is what was sent, and what came behind it. What is
    /// wrong stays in its place, which nobody reads before it comes again.
    fn end_in_place(&mut self, key: usize, queue: &mut Queue, memories: &Memories, counters: &mut Counters) {
        let Some(in_place) = &mut self.in_place else { return };
        match in_place.finish(key, &mut self.crcs, memories) {
            Some((event, body)) => {
                counters.frames_received += 1;
                queue.push_frame(event, body);
            }
            None => {
                self.spare = self.in_place.take().map_or(Vec::new(), InPlace::into_head);
                self.drop_garbled(counters);
            }
        }
        self.parse_all(key, queue, counters);
    }

    /// The next frame of the input, if all of it is there.
    fn parse(&mut self, key: usize) -> Result<Next, twincell_wire::Error> {
        let input = &self.stream.input()[self.parsed..];
        self.missing = 0;
        let Some(head) = input.first_chunk::<HEADER_BYTES>() else {
            return Ok(Next::Nothing);
        };
        let header = FrameHeader::decode(head)?;
        if self.stranger.is_some() && !header.is_hello() {
            let rule = "the first frame of a connection is a hello";
            return Err(twincell_wire::Error::Contradiction { rule, at: 0 });
        }
        let (body_end, end) = (HEADER_BYTES + header.body_len, header.frame_bytes());
        self.missing = end.saturating_sub(input.len());
        if self.missing > 0 {
            return Ok(Next::Nothing);
        }
        let start = self.parsed;
        let (frame, messages) = match frame::decode_body(&header, &input[HEADER_BYTES..body_end]) {
            // A hello is said only once.
            Err(twincell_wire::Error::Checksum { .. }) if !header.is_hello() => {
                self.parsed += end;
                return Ok(Next::Garbled);
            }
            decoded => decoded?,
        };
        let crcs = self.crcs.len();
        self.crcs.extend(input[body_end..end].chunks(BUFFER_BYTES).map(crc32c));
        let granules = input[body_end..end].chunks(BUFFER_BYTES).zip(&self.crcs[crcs..]);
        let crc = granules.fold(0, |crc, (granule, next)| {
            crc::joined(crc, *next, granule.len() / BLOCK_BYTES)
        });
        self.parsed += end;
        if header.payload_blocks > 0 && crc != header.payload_crc {
            self.crcs.truncate(crcs);
            return Ok(Next::Garbled);
        }
        let (body_end, end) = (start + body_end, start + end);
        let body = Body {
            key,
            in_place: false,
            messages: body_end - messages.len()..body_end,
            payload: body_end..end,
            crcs,
        };
        Ok(Next::Frame(frame, BlockCount(header.payload_blocks), body))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;
    use crate::nv::NvMemory;
    use crate::queue::Happening;
    use crate::testing::{TempDir, settings};
    use std::io::{Read, Write};
    use std::net::TcpStream;
    use std::time::Instant;
    use twincell_core::config::Geometry;
    use twincell_core::ids::{BufferIndex, Epoch, Incarnation, ProcessId, RieGeneration, RieIndex, TransferIndex};
    use twincell_core::link::frame::{Hello, Mfc, Sequenced};
    use twincell_core::list::List;
    use twincell_core::memory::Segment;

    /// A controller that has nothing but a link.
    struct Side {
        ring: Ring,
        link: Link,
        memories: Memories,
        queue: Queue,
        counters: Counters,
        /// Where payload of that length goes.
        place: Option<Memory>,
    }

    impl Side {
        fn new(settings: &Settings) -> Side {
            let ring = Ring::new().expect("a ring");
            ring.enable().expect("enabled");
            let nv = NvMemory::open(settings, &Geometry::for_cache(0), Uuid(1)).expect("NV memory");
            let mut side = Side {
                ring,
                link: Link::open(settings).expect("a link"),
                memories: Memories::new(nv, 2),
                queue: Queue::default(),
                counters: Counters::default(),
                place: None,
            };
            side.link.start(clock::now(), &mut side.ring);
            side
        }

        /// Runs until something happens.
        fn next(&mut self, what: &str) -> Happening {
            let begun = Instant::now();
            loop {
                if let Some(happening) = self.queue.pop() {
                    return happening;
                }
                assert!(begun.elapsed() < Duration::from_secs(5), "waited 5 s for {what}");
                self.turn();
            }
        }

        fn finish(&mut self) {
            let memories = (&self.memories, &mut self.counters);
            let place: Place = &mut |_, _, _, blocks| self.place.filter(|p| p.blocks() == blocks.0);
            self.link
                .finish(clock::now(), &mut self.ring, &mut self.queue, memories, place);
        }

        fn turn(&mut self) {
            self.finish();
            self.ring
                .submit_and_wait(Some(Duration::from_millis(5)))
                .expect("submitted");
            let mut completions = Vec::new();
            self.ring.reap(&mut completions);
            for completion in completions {
                let (result, queue) = (completion.result, &mut self.queue);
                match completion.token {
                    Token::LinkAccept(i) => self.link.accepted(i, completion, clock::now(), &mut self.ring),
                    Token::LinkConnect(path) => {
                        self.link.connected(path, completion, clock::now(), true, queue);
                    }
                    Token::LinkReceive(key) => self.link.received(key, result, queue, &mut self.counters),
                    Token::LinkSend(key) => self.link.sent(key, result),
                    Token::Cancel => {}
                    other => panic!("{other:?} was never posted"),
                }
            }
            self.link.poll(clock::now(), &mut self.ring);
        }

        fn opened(&mut self) -> ConnectionId {
            match self.next("a connection").event {
                Event::LinkOpened { connection, .. } => connection,
                other => panic!("{other:?} before a connection"),
            }
        }

        /// The next connection, and the hello on it.
        fn met(&mut self) -> ConnectionId {
            let opened = self.opened();
            match self.next("a hello").event {
                Event::LinkFrame {
                    connection,
                    frame: Frame::Hello(_),
                    ..
                } if connection == opened => opened,
                other => panic!("{other:?} before a hello"),
            }
        }

        /// Turns until `is_so`.
        fn turn_until(&mut self, what: &str, is_so: impl Fn(&Side) -> bool) {
            let begun = Instant::now();
            while !is_so(self) {
                assert!(begun.elapsed() < Duration::from_secs(5), "waited 5 s for {what}");
                self.turn();
            }
        }

        /// What of a payload is in a transfer buffer after it was absorbed there.
        fn absorbed(&mut self, body: &Body, blocks: u16) -> Vec<u8> {
            let into = transfer(0, blocks);
            self.link.absorb(body, &into, &self.memories);
            self.memories.slices(&into).flatten().copied().collect()
        }

        /// Says hello as B.
        fn say_hello(&mut self, to: ConnectionId) {
            let (memories, counters) = (&self.memories, &mut self.counters);
            self.link
                .send(to, &hello(Controller::B, CELL), None, memories, counters);
        }

        fn send(&mut self, to: ConnectionId, (frame, messages): &(Frame, Messages)) {
            let (memories, counters) = (&self.memories, &mut self.counters);
            self.link.send(to, frame, Some(messages), memories, counters);
            self.turn();
        }
    }

    fn pair(dir: &TempDir) -> (Side, Side) {
        let of_a = settings(dir, Controller::A);
        let of_b = Settings {
            controller: Controller::B,
            nv_memory: dir.path("nv-B"),
            ..of_a.clone()
        };
        (Side::new(&of_a), Side::new(&of_b))
    }

    /// What `of` says first.
    fn hello(of: Controller, cell: Uuid) -> Frame {
        Frame::Hello(Hello {
            controller: of,
            cell,
            instance: Uuid(1),
            process: ProcessId::default(),
            incarnation: Incarnation(0),
            session: Incarnation(0),
            met: Uuid::NIL,
            epoch: Epoch(1),
            image: Uuid(2),
            undecided: false,
            buffers: 64,
        })
    }

    /// The cell of the tests' settings.
    const CELL: Uuid = Uuid(0xce11);

    fn bytes_of(frame: &Frame) -> Vec<u8> {
        let mut bytes = Vec::new();
        frame::encode(frame, &[], 0, 0, &mut bytes);
        bytes
    }

    /// Turns both until B's connection is open, and A knows by its hello whose it is.
    fn connect(a: &mut Side, b: &mut Side) -> (ConnectionId, ConnectionId) {
        let begun = Instant::now();
        let mut to_a = None;
        while a.queue.is_empty() {
            assert!(begun.elapsed() < Duration::from_secs(5), "waited 5 s for the link");
            a.turn();
            b.turn();
            if !b.queue.is_empty() {
                let connection = b.opened();
                b.say_hello(connection);
                to_a = Some(connection);
            }
        }
        (a.met(), to_a.expect("B opens it"))
    }

    /// A connection to A that has said hello as B does.
    fn partner(a: &mut Side) -> (TcpStream, ConnectionId) {
        let mut client = TcpStream::connect(a.link.listeners[0].address()).expect("connected");
        client.write_all(&bytes_of(&hello(Controller::B, CELL))).expect("sent");
        (client, a.met())
    }

    fn transfer(transfer: u16, blocks: u16) -> Memory {
        Memory::Transfer {
            transfer: TransferIndex(transfer),
            first: 0,
            blocks,
        }
    }

    fn data(sequence: u32, blocks: u16) -> (Frame, Messages) {
        let mda = Mfc::MirrorData {
            rie: RieIndex(3),
            generation: RieGeneration(4),
            attempt: 5,
        };
        let frame = Frame::Messages(Sequenced {
            incarnation: Incarnation(9),
            sequence,
            acknowledged: 0,
        });
        let messages = Messages {
            mfcs: List::from_slice(&[mda]),
            payload: (blocks > 0).then(|| transfer(1, blocks)),
        };
        (frame, messages)
    }

    #[test]
    fn frames_and_their_payload_arrive_as_they_were_sent() {
        let dir = TempDir::in_memory("link");
        let (mut a, mut b) = pair(&dir);
        let (_, to_a) = connect(&mut a, &mut b);
        for (sequence, blocks) in [(0, 0), (1, 1), (2, 256), (3, 264)] {
            let sent = data(sequence, blocks);
            let bytes: Vec<u8> = (0..usize::from(blocks) * 512)
                .map(|i| (i * 7 + blocks as usize) as u8)
                .collect();
            if let Some(payload) = &sent.1.payload {
                b.memories.copy_in(payload, 0, &bytes);
            }
            b.send(to_a, &sent);
            let happening = a.next("a frame");
            let Event::LinkFrame { frame, payload, .. } = happening.event else {
                panic!("{happening:?} is no frame")
            };
            assert_eq!(payload, BlockCount(blocks.into()));
            assert_eq!(frame, sent.0);
            let body = happening.body.expect("a frame has a body");
            let mut mfcs = Mfcs::new();
            assert!(a.link.read_messages(&body, &mut mfcs));
            assert_eq!(mfcs, sent.1.mfcs);
            assert!(
                blocks == 0 || a.absorbed(&body, blocks) == bytes,
                "{blocks} blocks of payload differ"
            );
        }
        assert_eq!((b.counters.frames_sent, a.counters.frames_received), (5, 5));
        assert_eq!(b.counters.link_bytes_sent, a.counters.link_bytes_received);
    }

    #[test]
    fn many_frames_in_one_drain_all_arrive_in_order() {
        let dir = TempDir::in_memory("link");
        let (mut a, mut b) = pair(&dir);
        let (_, to_a) = connect(&mut a, &mut b);
        for sequence in 0..64 {
            let (frame, messages) = data(sequence, 264);
            b.link.send(to_a, &frame, Some(&messages), &b.memories, &mut b.counters);
        }
        for expected in 0..64 {
            while a.queue.is_empty() {
                b.turn();
                a.turn();
            }
            let Event::LinkFrame { frame, .. } = a.next("a frame").event else {
                panic!("no frame")
            };
            assert!(
                matches!(frame, Frame::Messages(m) if m.sequence == expected),
                "frame {expected}"
            );
        }
    }

    #[test]
    fn a_closed_connection_is_told_once_and_comes_again() {
        let dir = TempDir::in_memory("link");
        let (mut a, mut b) = pair(&dir);
        let (to_b, to_a) = connect(&mut a, &mut b);
        a.link.close(to_b);
        assert_eq!(a.next("its end").event, Event::LinkClosed { connection: to_b });
        assert_eq!(b.next("its end").event, Event::LinkClosed { connection: to_a });
        let (again_b, again_a) = connect(&mut a, &mut b);
        assert!(again_b != to_b && again_a != to_a, "a connection number was used again");
    }

    /// Whether the other end of a connection has ended it.
    fn is_ended(client: &mut TcpStream) -> bool {
        client.set_nonblocking(true).expect("a socket");
        !matches!(client.read(&mut [0; 64]), Err(e) if e.kind() == std::io::ErrorKind::WouldBlock)
    }

    #[test]
    fn a_stranger_is_nobody_to_the_core() {
        let dir = TempDir::in_memory("link");
        let (mut a, mut b) = pair(&dir);
        let (_, to_a) = connect(&mut a, &mut b);
        let garbled_hello = {
            let mut bytes = bytes_of(&hello(Controller::B, CELL));
            bytes[40] ^= 1;
            bytes
        };
        let first_words = [
            vec![0x55; 4096],
            b"GET / HTTP/1.1\r\nHost: array.example\r\n\r\n".to_vec(),
            bytes_of(&hello(Controller::B, Uuid(0xbad))),
            bytes_of(&hello(Controller::A, CELL)),
            bytes_of(&Frame::Heartbeat {
                incarnation: Incarnation(1),
                sent: Time(7),
            }),
            bytes_of(&data(0, 0).0),
            garbled_hello,
        ];
        for words in first_words {
            let mut stranger = TcpStream::connect(b.link.lines[0].to).expect("connected");
            stranger.write_all(&words).expect("sent");
            let begun = Instant::now();
            while !is_ended(&mut stranger) {
                assert!(
                    begun.elapsed() < Duration::from_secs(5),
                    "waited 5 s for its end: {words:?}"
                );
                a.turn();
            }
        }
        assert!(a.queue.is_empty(), "the core hears of strangers: {:?}", a.queue.pop());
        // One that says nothing is still there when the partner is heard.
        let _silent = TcpStream::connect(b.link.lines[0].to).expect("connected");
        a.turn_until("the silent one", |a| a.link.connections.len() == 2);
        b.send(to_a, &data(0, 0));
        assert!(matches!(a.next("a frame").event, Event::LinkFrame { .. }));
    }

    #[test]
    fn a_stranger_that_says_nothing_has_to_go() {
        let dir = TempDir::in_memory("link");
        let mut a = Side::new(&settings(&dir, Controller::A));
        let mut silent = TcpStream::connect(a.link.listeners[0].address()).expect("connected");
        a.turn_until("it", |a| a.link.connections.len() == 1);
        let until = a.link.next_deadline().expect("it may not stay for ever");
        assert!(until <= clock::now() + HELLO_WITHIN);
        a.link.poll(until, &mut a.ring);
        a.turn_until("its end", |a| a.link.connections.is_empty());
        assert!(is_ended(&mut silent) && a.queue.is_empty());
    }

    #[test]
    fn strangers_are_few_and_the_oldest_goes() {
        let dir = TempDir::in_memory("link");
        let mut a = Side::new(&settings(&dir, Controller::A));
        let address = a.link.listeners[0].address();
        let mut strangers = Vec::new();
        for n in 1..=3 * STRANGERS_MAX {
            strangers.push(TcpStream::connect(address).expect("connected"));
            a.turn_until("a stranger", |a| a.link.last_id == n as u64);
        }
        a.turn_until("few of them", |a| a.link.connections.len() == STRANGERS_MAX);
        let left = strangers.iter_mut().map(|s| !is_ended(s)).collect::<Vec<_>>();
        let newest = |n| n >= left.len() - STRANGERS_MAX;
        assert!((0..left.len()).all(|n| left[n] == newest(n)), "{left:?}");
        let (_partner, _) = partner(&mut a);
    }

    /// Appends a frame with its payload, with one bit of it flipped.
    fn encode_garbled(sequence: u32, blocks: u16, bit: usize, out: &mut Vec<u8>) {
        let start = out.len();
        encode(sequence, blocks, &vec![7; usize::from(blocks) * 512], out);
        out[start + bit / 8] ^= 1 << (bit % 8);
    }

    #[test]
    fn a_garbled_frame_is_dropped_and_the_next_is_heard() {
        let dir = TempDir::in_memory("link");
        let mut a = Side::new(&settings(&dir, Controller::A));
        let (mut client, _) = partner(&mut a);
        let mut bytes = Vec::new();
        // In the CRC of the frame, in its messages, in its payload.
        let places = [(0, HEADER_BYTES * 8 - 1), (0, HEADER_BYTES * 8 + 70), (2, 8 * 700)];
        for (n, (blocks, bit)) in (0..).zip(places) {
            encode_garbled(n, blocks, bit, &mut bytes);
        }
        encode(9, 1, &[3; 512], &mut bytes);
        client.write_all(&bytes).expect("sent");
        let heard = a.next("the frame behind them");
        assert!(matches!(heard.event, Event::LinkFrame { frame: Frame::Messages(m), .. } if m.sequence == 9));
        assert_eq!(a.absorbed(&heard.body.expect("its payload"), 1), [3; 512]);
        assert_eq!(a.counters.frames_garbled, 3);
    }

    #[test]
    fn a_damaged_header_ends_the_connection() {
        for bit in (0..(HEADER_BYTES - 4) * 8).step_by(13) {
            let dir = TempDir::in_memory("link");
            let mut a = Side::new(&settings(&dir, Controller::A));
            let (mut client, connection) = partner(&mut a);
            let mut bytes = Vec::new();
            encode_garbled(0, 1, bit, &mut bytes);
            encode(1, 0, &[], &mut bytes);
            client.write_all(&bytes).expect("sent");
            assert_eq!(a.next("its end").event, Event::LinkClosed { connection }, "bit {bit}");
        }
    }

    /// Appends a frame with its payload.
    fn encode(sequence: u32, blocks: u16, payload: &[u8], out: &mut Vec<u8>) {
        let (frame, messages) = data(sequence, blocks);
        frame::encode(&frame, &messages.mfcs, u32::from(blocks), crc32c(payload), out);
        out.extend_from_slice(payload);
    }

    /// A frame with 128 KiB of payload, in bytes, and where its payload is to go.
    fn large() -> (Vec<u8>, Vec<u8>, Memory) {
        let payload: Vec<u8> = (0..256 * 512u32).map(|i| (i / 11) as u8).collect();
        let mut bytes = Vec::new();
        encode(0, 256, &payload, &mut bytes);
        let segments = (0..32).map(|n| Segment {
            buffer: BufferIndex(n),
            first: 0,
            count: 8,
        });
        (bytes, payload, Memory::Buffers(segments.collect()))
    }

    /// A with a connection on which the beginning of a large frame has come, and its client.
    fn begun(dir: &TempDir) -> (Side, ConnectionId, TcpStream) {
        let mut a = Side::new(&settings(dir, Controller::A));
        let (mut client, connection) = partner(&mut a);
        let before = a.counters.link_bytes_received;
        let (bytes, _, place) = large();
        a.place = Some(place);
        client.write_all(&bytes[..50_000]).expect("sent");
        let begun = Instant::now();
        while a.counters.link_bytes_received < before + 50_000 {
            assert!(begun.elapsed() < Duration::from_secs(5), "waited 5 s for the beginning");
            a.turn();
        }
        a.turn();
        assert!(
            a.link.connections.iter().all(|(_, c)| c.in_place.is_some()),
            "it has not begun"
        );
        (a, connection, client)
    }

    #[test]
    fn large_payload_is_received_into_its_place() {
        let dir = TempDir::in_memory("link");
        let (mut a, _, mut client) = begun(&dir);
        let (bytes, payload, into) = large();
        client.write_all(&bytes[50_000..]).expect("sent");
        // What comes behind it goes the usual way.
        let mut next = Vec::new();
        encode(1, 1, &[3; 512], &mut next);
        client.write_all(&next).expect("sent");
        let there = a.next("the large frame").body.expect("its payload");
        assert!(there.in_place, "the payload took the long way");
        let mut mfcs = Mfcs::new();
        assert!(a.link.read_messages(&there, &mut mfcs) && mfcs == data(0, 256).1.mfcs);
        assert_eq!(a.link.absorb(&there, &into, &a.memories), 0, "bytes were copied");
        let Memory::Buffers(sgl) = &into else { panic!("buffers") };
        for (segment, bytes) in sgl.iter().zip(payload.chunks(4096)) {
            a.memories.nv.seal(segment.buffer, 0xff);
            assert!(a.memories.nv.sealed_crc(*segment) == Some(crc32c(bytes)) && a.memories.nv.is_intact(*segment));
        }
        assert_eq!(a.absorbed(&there, 256), payload, "wanted somewhere else after all");
        let small = a.next("the small frame").body.expect("its payload");
        assert_eq!(a.absorbed(&small, 1), [3; 512]);
        let hello = bytes_of(&hello(Controller::B, CELL));
        assert_eq!(
            a.counters.link_bytes_received,
            (hello.len() + bytes.len() + next.len()) as u64
        );
    }

    /// Of what is large only what came with its header is copied; nothing is copied to be sent.
    #[test]
    fn large_payload_is_not_copied() {
        let dir = TempDir::in_memory("link");
        let (mut a, mut b) = pair(&dir);
        let (_, to_a) = connect(&mut a, &mut b);
        a.place = Some(large().2);
        let transfers = 64;
        for sequence in 0..transfers {
            b.send(to_a, &data(sequence, 256));
            while a.queue.is_empty() {
                a.turn();
                b.turn();
            }
            let body = a.next("a large frame").body.expect("its payload");
            let copied = a.link.absorb(&body, &large().2, &a.memories);
            a.counters.copied_on_the_link(copied);
        }
        assert_eq!(b.counters.link_bytes_copied, 0, "to send");
        // The first may come in one piece: nobody knew that it would be large.
        let most = (transfers as usize * AHEAD_BYTES + 256 * 512) as u64;
        assert!(
            a.counters.link_bytes_copied <= most,
            "{} bytes",
            a.counters.link_bytes_copied
        );
    }

    /// Payload takes long: an answer that is ready does not wait for it.
    #[test]
    fn an_answer_leaves_before_the_next_large_payload_is_received() {
        let dir = TempDir::in_memory("link");
        let (mut a, connection, mut client) = begun(&dir);
        let (bytes, ..) = large();
        let answer = Frame::Heartbeat {
            incarnation: Incarnation(1),
            sent: Time(7),
        };
        client.write_all(&bytes[50_000..]).expect("sent");
        a.turn_until("the poll that tells of it", |a| {
            a.link.connections.iter().all(|(_, c)| !c.stream.is_receiving())
        });
        let (memories, counters) = (&a.memories, &mut a.counters);
        a.link.send(connection, &answer, None, memories, counters);
        // The ring is not waited for any more.
        a.finish();
        assert!(!a.queue.is_empty(), "the payload is there, too");
        let mut came = vec![0; bytes_of(&answer).len()];
        client.set_read_timeout(Some(Duration::from_secs(5))).expect("a socket");
        client.read_exact(&mut came).expect("the answer within 5 s");
        assert_eq!(came, bytes_of(&answer));
    }

    #[test]
    fn large_payload_that_is_wrong_is_dropped_and_comes_again() {
        let dir = TempDir::in_memory("link");
        let (mut a, _, mut client) = begun(&dir);
        let (bytes, payload, _) = large();
        let mut wrong = bytes.clone();
        wrong[60_000] ^= 1;
        client.write_all(&wrong[50_000..]).expect("sent");
        a.turn_until("its end", |a| a.counters.frames_garbled == 1);
        assert!(a.queue.is_empty());
        client.write_all(&bytes).expect("sent");
        let there = a.next("the same frame").body.expect("its payload");
        assert_eq!(a.absorbed(&there, 256), payload);
    }

    #[test]
    fn what_came_behind_a_wrong_payload_is_handled_before_the_connection_goes() {
        let dir = TempDir::in_memory("link");
        let (mut a, connection, mut client) = begun(&dir);
        let (mut bytes, _, _) = large();
        bytes[60_000] ^= 1;
        // A frame, and then what is none.
        encode(1, 0, &[], &mut bytes);
        bytes.extend([0xaa; HEADER_BYTES]);
        client.write_all(&bytes[50_000..]).expect("sent");
        let frame = a.next("the frame behind it");
        assert!(
            a.link
                .read_messages(&frame.body.expect("its messages"), &mut Mfcs::new())
        );
        assert_eq!(a.next("its end").event, Event::LinkClosed { connection });
    }

    #[test]
    fn payload_whose_place_is_gone_takes_the_long_way_if_it_is_still_what_was_sent() {
        for overwritten in [false, true] {
            let dir = TempDir::in_memory("link");
            let (mut a, _, mut client) = begun(&dir);
            let (bytes, payload, place) = large();
            a.place = None;
            if overwritten {
                a.memories.copy_in(&place, 4096, b"of somebody else");
            }
            client.write_all(&bytes[50_000..]).expect("sent");
            if overwritten {
                a.turn_until("its end", |a| a.counters.frames_garbled == 1);
                assert!(a.queue.is_empty());
            } else {
                let body = a.next("the frame").body.expect("its payload");
                assert!(!body.in_place && a.absorbed(&body, 256) == payload);
            }
        }
    }

    #[test]
    fn large_payload_whose_place_is_not_known_arrives_all_the_same() {
        let dir = TempDir::in_memory("link");
        let mut a = Side::new(&settings(&dir, Controller::A));
        let (mut client, _) = partner(&mut a);
        let (bytes, payload, _) = large();
        for piece in bytes.chunks(30_000) {
            client.write_all(piece).expect("sent");
            a.turn();
        }
        let there = a.next("the frame").body.expect("its payload");
        assert_eq!(a.absorbed(&there, 256), payload);
    }

    #[test]
    fn each_path_has_its_own_connection_which_comes_again() {
        let dir = TempDir::in_memory("link");
        let mut of_a = settings(&dir, Controller::A);
        of_a.link[0].push(crate::testing::free_address());
        of_a.link[1] = vec![crate::testing::free_address(); 2];
        let of_b = Settings {
            controller: Controller::B,
            nv_memory: dir.path("nv-B"),
            ..of_a.clone()
        };
        let (mut a, mut b) = (Side::new(&of_a), Side::new(&of_b));
        let opened = |a: &mut Side, b: &mut Side, count: usize| -> Vec<u8> {
            let begun = Instant::now();
            let mut paths = Vec::new();
            while paths.len() < count {
                assert!(
                    begun.elapsed() < Duration::from_secs(5),
                    "waited 5 s for {count} connections"
                );
                a.turn();
                b.turn();
                while let Some(happening) = b.queue.pop() {
                    if let Event::LinkOpened { connection, .. } = happening.event {
                        b.say_hello(connection);
                    }
                }
                while let Some(happening) = a.queue.pop() {
                    if let Event::LinkOpened { path, .. } = happening.event {
                        paths.push(path);
                    }
                }
            }
            paths.sort();
            paths
        };
        assert_eq!(opened(&mut a, &mut b, 2), [0, 1]);
        let second = a
            .link
            .connections
            .iter()
            .find(|(_, c)| c.path == 1)
            .expect("it is open");
        let second = second.1.id;
        a.link.close(second);
        assert_eq!(opened(&mut a, &mut b, 1), [1]);
    }
}
