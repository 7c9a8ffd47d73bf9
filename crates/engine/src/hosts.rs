//! Host connections: bytes between sockets and sessions, commands between sessions and the core.

use crate::clock;
use crate::commands::{Commands, Fetch};
use crate::error::OpenError;
use crate::listener::Listener;
use crate::memory::Memories;
use crate::queue::Queue;
use crate::ring::{Completion, Ring, Token};
use crate::snapshot::Counters;
use crate::stream::{Came, IN_PLACE_BYTES, Stream};
use slab::Slab;
use socket2::{Socket, TcpKeepalive};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::time::Duration;
use tracing::{debug, info, warn};
use twincell_core::event::Event;
use twincell_core::host::{HostCommand, HostOp, Status};
use twincell_core::ids::{BLOCK_BYTES, BlockCount, CommandId, Nanos, Time};
use twincell_core::memory::Memory;
use twincell_target::session::{Command, Incoming, Outside, Session, Tag, View};

/// Bytes of the input of a connection.
const INPUT_BYTES: usize = 256 << 10;
/// Bytes that are received with what is large, or before it: requests, and small data.
const AHEAD_BYTES: usize = 4 << 10;
/// Bytes that are handled, in and out, before the link and the clock have their turn again: hosts that say much must not keep a
/// controller from saying that it is alive.
const TURN_BYTES_MAX: usize = 1 << 20;
/// Bytes of hosts' data that all sessions keep. One that keeps none may begin to all the same, so that nobody starves.
const KEPT_BYTES_MAX: usize = 256 << 20;
/// Those that one session keeps.
const KEPT_BYTES_MAX_OF_ONE: usize = 32 << 20;
/// Host connections at a time.
const CONNECTIONS_MAX: usize = 256;
/// A host of which something came so short a time ago is there, and what it said before is not late.
const ALIVE: Nanos = Nanos::from_millis(1000);
/// A session that waits for a change of the view is told after this long that there may have been one.
const REMIND: Nanos = Nanos::from_millis(20);

/// A host's protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// RFC 7143.
    Iscsi,
    /// The NBD protocol.
    Nbd,
}

impl Protocol {
    /// The setting with its addresses.
    fn option(self) -> &'static str {
        match self {
            Protocol::Iscsi => "iscsi",
            Protocol::Nbd => "nbd",
        }
    }
}

/// Makes the session of a fresh connection, given a number that no other connection has now.
pub(crate) type Greet = Box<dyn Fn(Protocol, NonZeroU16) -> Box<dyn Session + Send> + Send>;

struct Connection {
    session: Box<dyn Session + Send>,
    stream: Stream,
    /// When something came from the host last.
    heard: Time,
    /// The session has left some of its input, so that more may have come than was received.
    was_held: bool,
    /// Bytes of the host's data that the session keeps.
    kept: usize,
    /// Its commands in progress.
    tags: HashMap<Tag, CommandId>,
    /// Nothing more is received or sent. The socket is closed when the core has completed every command: a host that
    /// waits for that knows that nothing of the connection is executed any more (R12).
    ending: bool,
    /// Counts connections.
    serial: u64,
    /// Whose session it is, where the protocol has such names.
    initiator: Option<Initiator>,
    /// Sessions of the same initiator that this one took the place of, by serial number. Nothing is said to the host
    /// while commands of theirs are in progress.
    replaced: Vec<u64>,
}

/// A name, and the initiator's part of a session identifier.
type Initiator = (String, [u8; 6]);

/// What sessions and the core share.
pub(crate) struct Shared<'a> {
    pub memories: &'a Memories,
    pub queue: &'a mut Queue,
    pub counters: &'a mut Counters,
}

/// All host connections.
pub(crate) struct Hosts {
    listeners: Vec<(Protocol, Listener)>,
    greet: Greet,
    connections: Slab<Connection>,
    last_serial: u64,
    commands: Commands,
    /// Bytes of data that the sessions keep.
    kept: usize,
    /// How much may still be handled in this turn.
    turn_bytes: usize,
    /// The connection that was next when nothing more might be handled.
    next: Option<usize>,
    view: View,
    serving: bool,
    remind_at: Option<Time>,
}

impl Hosts {
    /// Binds the addresses.
    pub(crate) fn open(addresses: &[(Protocol, SocketAddr)], view: View, greet: Greet) -> Result<Hosts, OpenError> {
        let bind = |(i, (protocol, address)): (usize, &(Protocol, SocketAddr))| {
            let listener = Listener::bind(*address, protocol.option(), Token::HostAccept(i as u32))?;
            Ok((*protocol, listener))
        };
        Ok(Hosts {
            listeners: addresses.iter().enumerate().map(bind).collect::<Result<_, _>>()?,
            greet,
            connections: Slab::new(),
            last_serial: 0,
            commands: Commands::default(),
            kept: 0,
            turn_bytes: TURN_BYTES_MAX,
            next: None,
            view,
            serving: false,
            remind_at: None,
        })
    }

    /// Whether hosts are let in.
    pub(crate) fn is_serving(&self) -> bool {
        self.serving
    }

    /// Lets hosts in.
    pub(crate) fn serve(&mut self, ring: &mut Ring) {
        self.serving = true;
        self.listeners.iter_mut().for_each(|(_, listener)| listener.open(ring));
    }

    /// Ends every connection, each when its commands are completed, and lets nobody in. Nothing more is sent.
    pub(crate) fn close(&mut self, shared: &mut Shared) {
        self.serving = false;
        self.listeners.iter_mut().for_each(|(_, listener)| listener.close());
        let keys: Vec<usize> = self.connections.iter().map(|(key, _)| key).collect();
        for key in keys {
            self.disconnect(key, shared);
        }
    }

    /// Ends every connection at once: the core that had the commands is gone.
    pub(crate) fn cut(&mut self, shared: &mut Shared) {
        self.close(shared);
        self.connections.iter_mut().for_each(|(_, c)| c.stream.close());
    }

    /// Gives the sessions another view.
    pub(crate) fn set_view(&mut self, view: View, shared: &mut Shared) {
        self.view = view;
        self.tell_view_changed(|_| true, shared);
    }

    /// The view that sessions have.
    pub(crate) fn view(&self) -> &View {
        &self.view
    }

    fn tell_view_changed(&mut self, whom: impl Fn(&dyn Session) -> bool, shared: &mut Shared) {
        let told = |(_, c): &(usize, &Connection)| !c.ending && whom(&*c.session);
        let keys: Vec<usize> = self.connections.iter().filter(told).map(|(key, _)| key).collect();
        for key in keys {
            self.with_session(key, shared, |session, outside| session.view_changed(outside));
        }
    }

    /// When to poll next.
    pub(crate) fn next_deadline(&self) -> Option<Time> {
        let listeners = self
            .listeners
            .iter()
            .filter_map(|(_, listener)| listener.next_deadline());
        listeners.chain(self.remind_at).min()
    }

    /// Does what is due.
    pub(crate) fn poll(&mut self, now: Time, ring: &mut Ring, shared: &mut Shared) {
        self.listeners
            .iter_mut()
            .for_each(|(_, listener)| listener.poll(now, ring));
        if self.remind_at.is_some_and(|at| at <= now) {
            self.remind_at = None;
            self.tell_view_changed(|session| session.wants_view_changed(), shared);
        }
    }

    /// The completion of an accept.
    pub(crate) fn accepted(&mut self, listener: u32, completion: Completion, ring: &mut Ring) {
        let (protocol, listener) = &mut self.listeners[listener as usize];
        let Some(socket) = listener.accepted(completion, ring) else {
            return;
        };
        if self.connections.len() >= CONNECTIONS_MAX && !end_a_stranger(&mut self.connections) {
            warn!("{CONNECTIONS_MAX} hosts are connected; one more is refused");
            return;
        }
        let protocol = *protocol;
        keep_alive(&socket);
        debug!(?protocol, peer = ?socket.peer_addr().ok().and_then(|a| a.as_socket()), "host connection open");
        self.last_serial += 1;
        let connection = self.connections.vacant_entry();
        let handle = NonZeroU16::MIN.saturating_add(connection.key() as u16);
        connection.insert(Connection {
            session: (self.greet)(protocol, handle),
            stream: Stream::new(socket, INPUT_BYTES, AHEAD_BYTES),
            heard: clock::now(),
            was_held: false,
            kept: 0,
            tags: HashMap::new(),
            ending: false,
            serial: self.last_serial,
            initiator: None,
            replaced: Vec::new(),
        });
    }

    /// The completion of a receive.
    pub(crate) fn received(&mut self, key: u32, result: i32, shared: &mut Shared) {
        let key = key as usize;
        let connection = &mut self.connections[key];
        if !connection.stream.received(result) {
            self.disconnect(key, shared);
            return;
        }
        if connection.holds_input() {
            connection.hear();
        }
        if self.turn_bytes > 0 {
            self.pass_input(key, shared);
        }
    }

    /// The session gets what was received, and takes as much of it as it has room for.
    fn pass_input(&mut self, key: usize, shared: &mut Shared) {
        let connection = &mut self.connections[key];
        if connection.ending || !connection.holds_input() {
            return;
        }
        let before = connection.session.output().len();
        let (taken, is_overtaken) = self.with_all(key, shared, |session, stream, outside| {
            outside.takes_input = true;
            (session.receive(stream.input(), outside), outside.is_overtaken)
        });
        let connection = &mut self.connections[key];
        connection.stream.consume(taken);
        connection.was_held |= connection.holds_input();
        let said = connection.session.output().len().saturating_sub(before);
        self.turn_bytes = self.turn_bytes.saturating_sub(taken + said);
        if is_overtaken {
            warn!(key, "a write of a host was held back for too long: its connection ends");
            self.disconnect(key, shared);
        }
        self.reinstate(key, shared);
    }

    /// Takes payload that is there now straight to where it belongs, and returns whether that is what comes next. What
    /// follows it goes its usual way.
    fn receive_in_place(&mut self, key: usize, incoming: &Incoming, shared: &mut Shared) -> bool {
        let connection = &mut self.connections[key];
        let id = connection.tags.get(&incoming.tag);
        let fetch = id.and_then(|id| self.commands.get(*id)).and_then(|task| task.fetch);
        let Some((fetch, at)) = fetch.and_then(|fetch| Some((fetch, fetch.place(incoming.offset, incoming.bytes)?)))
        else {
            return false;
        };
        let pieces = shared.memories.pieces_of(&fetch.into, at, incoming.bytes);
        match connection.stream.receive_at_once(pieces) {
            Came::Nothing => {}
            Came::End => self.disconnect(key, shared),
            Came::Bytes(bytes) => {
                connection.hear();
                self.turn_bytes = self.turn_bytes.saturating_sub(bytes);
                self.with_session(key, shared, |session, outside| session.placed(bytes, outside));
                self.pass_input(key, shared);
            }
        }
        true
    }

    /// Once a session has said whose it is, it takes the place of those of the same initiator (RFC 7143, 6.3.5).
    fn reinstate(&mut self, key: usize, shared: &mut Shared) {
        let connection = &mut self.connections[key];
        if connection.initiator.is_some() || connection.ending || connection.session.is_over() {
            return;
        }
        let Some((name, isid)) = connection.session.initiator() else {
            return;
        };
        let initiator = Some((name.to_owned(), isid));
        let is_older = |(other, c): &(usize, &Connection)| *other != key && c.initiator == initiator;
        let older: Vec<usize> = self.connections.iter().filter(is_older).map(|(key, _)| key).collect();
        let serials = older.iter().map(|key| self.connections[*key].serial).collect();
        let connection = &mut self.connections[key];
        connection.replaced = serials;
        connection.initiator = initiator;
        for older in older {
            info!(
                connection = older,
                by = key,
                "a session is reinstated: the older one ends"
            );
            self.disconnect(older, shared);
        }
    }

    /// The completion of a send.
    pub(crate) fn sent(&mut self, key: u32, result: i32, shared: &mut Shared) {
        let key = key as usize;
        let connection = &mut self.connections[key];
        if !connection.stream.sent(result) {
            self.disconnect(key, shared);
        } else if !connection.ending {
            self.with_session(key, shared, |session, outside| session.sent(outside));
        }
    }

    /// Effect `Fetch`.
    pub(crate) fn fetch(&mut self, id: CommandId, offset: BlockCount, into: &Memory, shared: &mut Shared) {
        let Some(task) = self.commands.get(id) else {
            return;
        };
        let (key, tag) = (task.connection, task.tag);
        shared.memories.unseal(into);
        task.fetch = Some(Fetch {
            offset: u64::from(offset.0) * BLOCK_BYTES as u64,
            into: *into,
        });
        if self.connections[key].ending {
            end_fetch(&mut self.commands, id, false, shared.queue);
            return;
        }
        let blocks = BlockCount(into.blocks());
        self.with_session(key, shared, |session, outside| {
            session.fetch(tag, offset, blocks, outside)
        });
    }

    /// Effect `EndHost`.
    pub(crate) fn end_host_of(&mut self, id: CommandId, shared: &mut Shared) {
        if let Some(task) = self.commands.get(id) {
            let key = task.connection;
            warn!(
                key,
                "a host does not send the data of its write, or its write has waited for too long: its connection ends"
            );
            self.disconnect(key, shared);
        }
    }

    /// Effect `SendData`.
    pub(crate) fn send_data(&mut self, id: CommandId, offset: BlockCount, from: &Memory, shared: &mut Shared) {
        let Some(task) = self.commands.get(id) else {
            return;
        };
        let (key, tag) = (task.connection, task.tag);
        let connection = &mut self.connections[key];
        if connection.ending {
            return;
        }
        let mut offset = offset.0;
        for piece in shared.memories.pieces(from) {
            connection.session.send_data(tag, BlockCount(offset), piece.read());
            offset += (piece.len() / BLOCK_BYTES) as u32;
            shared.counters.bytes_copied += piece.len() as u64;
            shared.counters.bytes_read += piece.len() as u64;
        }
    }

    /// Effect `Complete`.
    pub(crate) fn complete(&mut self, id: CommandId, status: Status, shared: &mut Shared) {
        let Some(task) = self.commands.remove(id) else {
            return;
        };
        self.connections[task.connection].tags.remove(&task.tag);
        self.with_session(task.connection, shared, |session, outside| {
            session.complete(task.tag, status, outside);
        });
    }

    /// Nothing more comes from or goes to this host: aborts its commands, once each.
    fn disconnect(&mut self, key: usize, shared: &mut Shared) {
        if std::mem::replace(&mut self.connections[key].ending, true) {
            return;
        }
        debug!(key, "host connection ends");
        self.with_session(key, shared, |session, outside| {
            // Its commands may take a while to end; what it had to say is not kept for so long.
            *session.output() = Vec::new();
            session.disconnected(outside);
        });
        for id in self.connections[key].tags.values() {
            abort(&mut self.commands, *id, shared.queue);
            end_fetch(&mut self.commands, *id, false, shared.queue);
        }
    }

    /// The end of a drain: posts what can be posted, and forgets what is over and reaped.
    pub(crate) fn finish(&mut self, now: Time, ring: &mut Ring, shared: &mut Shared) {
        self.let_go_on();
        self.receive(ring, shared);
        let (mut over, mut wants_view_changed) = (Vec::new(), false);
        for (key, connection) in &mut self.connections {
            connection.post_send(key as u32, ring);
            if connection.is_over() {
                over.push(key);
            }
            wants_view_changed |= !connection.ending && connection.session.wants_view_changed();
        }
        self.remind_at = wants_view_changed.then(|| self.remind_at.unwrap_or(now + REMIND));
        for key in over {
            self.disconnect(key, shared);
        }
        self.connections.retain(|_, connection| {
            let is_idle = connection.tags.is_empty();
            if connection.ending && is_idle {
                connection.stream.close();
            }
            let is_left = connection.stream.is_reaped() && is_idle;
            self.kept -= if is_left { connection.kept } else { 0 };
            !is_left
        });
    }

    /// Goes on with those of which nothing is being received, as far as that goes in one turn.
    fn receive(&mut self, ring: &mut Ring, shared: &mut Shared) {
        self.turn_bytes = TURN_BYTES_MAX;
        let first = self.next.take().unwrap_or(0);
        for key in (first..self.connections.capacity()).chain(0..first) {
            if !self.connections.get_mut(key).is_some_and(Connection::may_receive) {
                continue;
            }
            if self.turn_bytes == 0 {
                self.next = Some(key);
                return;
            }
            self.pass_input(key, shared);
            self.receive_more(key, ring, shared);
        }
    }

    /// Whether something is at hand for which there was no time in this turn.
    pub(crate) fn has_more(&self) -> bool {
        self.next.is_some()
    }

    /// Posts a receive, if the session has room for more, and where payload whose place is known does not come first: that is taken
    /// at once, and what it makes happen is told before more is received.
    fn receive_more(&mut self, key: usize, ring: &mut Ring, shared: &mut Shared) {
        let connection = &mut self.connections[key];
        if !connection.may_receive() || connection.holds_input() {
            return;
        }
        let incoming = connection.session.incoming().filter(|i| i.whole >= IN_PLACE_BYTES);
        let in_place = incoming.is_some_and(|incoming| self.receive_in_place(key, &incoming, shared));
        let connection = &mut self.connections[key];
        let token = Token::HostReceive(key as u32);
        if !in_place {
            let missing = incoming.map_or(0, |i| i.bytes);
            connection.stream.post_receive(ring, token, 1, missing);
        } else if shared.queue.is_empty() && !connection.holds_input() {
            connection.stream.post_poll(ring, token);
        }
    }

    /// Who took the place of sessions goes on when the last of their commands is completed.
    fn let_go_on(&mut self) {
        let connections = &self.connections;
        let is_busy = |serial: u64| {
            connections
                .iter()
                .any(|(_, c)| c.serial == serial && !c.tags.is_empty())
        };
        let waiting = connections.iter().filter(|(_, c)| !c.replaced.is_empty());
        let free = waiting.filter(|(_, c)| !c.replaced.iter().any(|serial| is_busy(*serial)));
        let keys: Vec<usize> = free.map(|(key, _)| key).collect();
        for key in keys {
            self.connections[key].replaced.clear();
        }
    }

    /// Forgets all commands, and the connections that are reaped: the core that had them is gone.
    pub(crate) fn forget(&mut self) {
        self.commands = Commands::default();
        self.connections.retain(|_, c| !c.stream.is_reaped());
        self.kept = self.connections.iter().map(|(_, c)| c.kept).sum();
    }

    fn with_session(&mut self, key: usize, shared: &mut Shared, f: impl FnOnce(&mut dyn Session, &mut dyn Outside)) {
        self.with_all(key, shared, |session, _, outside| f(session, outside));
    }

    fn with_all<R>(
        &mut self,
        key: usize,
        shared: &mut Shared,
        f: impl FnOnce(&mut dyn Session, &Stream, &mut HostOutside) -> R,
    ) -> R {
        let connection = &mut self.connections[key];
        let mut outside = HostOutside {
            view: &self.view,
            connection: key,
            unsent: connection.stream.unsent(),
            heard: connection.heard,
            kept: (&mut connection.kept, &mut self.kept),
            tags: &mut connection.tags,
            commands: &mut self.commands,
            shared,
            takes_input: false,
            is_overtaken: false,
        };
        f(&mut *connection.session, &connection.stream, &mut outside)
    }
}

impl Connection {
    /// Posts a send of what there is to be sent.
    fn post_send(&mut self, key: u32, ring: &mut Ring) {
        if !self.ending && self.replaced.is_empty() {
            self.stream.post_send(ring, Token::HostSend(key), self.session.output());
        }
    }

    /// Something was received. It came when the kernel got it: that was not now, if nothing was received for a while.
    fn hear(&mut self) {
        let now = clock::now();
        self.heard = now;
        if self.was_held {
            let silence = self.stream.silence();
            self.was_held = silence >= ALIVE;
            self.heard = Time(now.0.saturating_sub(silence.0));
        }
    }

    /// Whether something was received that the session has not taken.
    fn holds_input(&self) -> bool {
        !self.stream.input().is_empty()
    }

    /// Whether more may be received, and nothing is posted for it yet.
    fn may_receive(&mut self) -> bool {
        !self.ending && self.replaced.is_empty() && !self.session.is_over() && !self.stream.is_receiving()
    }

    fn unsent(&mut self) -> usize {
        self.session.output().len() + self.stream.unsent()
    }

    /// Whether the session wants an end, and everything that it had to say is sent.
    fn is_over(&mut self) -> bool {
        !self.ending && self.session.is_over() && self.unsent() == 0
    }
}

/// Tells the core, once, that a command was withdrawn.
fn abort(commands: &mut Commands, id: CommandId, queue: &mut Queue) {
    if let Some(task) = commands.get(id)
        && !std::mem::replace(&mut task.aborted, true)
    {
        queue.push(Event::HostAbort { id });
    }
}

/// Answers a fetch, if one is not yet answered.
fn end_fetch(commands: &mut Commands, id: CommandId, complete: bool, queue: &mut Queue) {
    if commands.get(id).and_then(|task| task.fetch.take()).is_some() {
        queue.push(Event::HostData { id, complete });
    }
}

/// Ends the oldest connection of which nobody knows whose it is, so that those who only connect keep no host out. Returns whether
/// there is one.
fn end_a_stranger(connections: &mut Slab<Connection>) -> bool {
    let open = connections.iter_mut().map(|(_, c)| c);
    let strangers = open.filter(|c| !c.ending && !c.stream.is_closed() && c.session.is_stranger());
    let oldest = strangers.min_by_key(|c| c.serial);
    oldest.map(|stranger| stranger.stream.close()).is_some()
}

/// A host that vanished without a word is noticed after a minute.
fn keep_alive(socket: &Socket) {
    let keepalive = TcpKeepalive::new()
        .with_time(Duration::from_secs(30))
        .with_interval(Duration::from_secs(10))
        .with_retries(3);
    // A connection without it works all the same.
    let _ = socket.set_tcp_keepalive(&keepalive);
}

/// What a session calls.
struct HostOutside<'a, 'b> {
    view: &'a View,
    connection: usize,
    unsent: usize,
    heard: Time,
    /// What the session keeps, and what all do.
    kept: (&'a mut usize, &'a mut usize),
    tags: &'a mut HashMap<Tag, CommandId>,
    commands: &'a mut Commands,
    shared: &'a mut Shared<'b>,
    /// The session is given input: a write that it begins has waited for as long as that.
    takes_input: bool,
    /// Such a write has waited for too long, and was not begun.
    is_overtaken: bool,
}

impl HostOutside<'_, '_> {
    /// Whether a write of its host, of which nothing was heard since, is not to be begun any more (R12).
    fn is_late(&self, command: &Command) -> bool {
        let is_write = matches!(command.op, HostOp::Write { .. });
        self.takes_input && is_write && self.is_too_late(self.heard)
    }
}

impl Outside for HostOutside<'_, '_> {
    fn view(&self) -> &View {
        self.view
    }

    fn now(&self) -> Time {
        clock::now()
    }

    fn heard(&self) -> Time {
        self.heard
    }

    fn submit(&mut self, tag: Tag, command: Command) {
        if self.is_late(&command) {
            self.is_overtaken = true;
            return;
        }
        let counters = &mut *self.shared.counters;
        counters.commands += 1;
        match command.op {
            HostOp::Read => counters.reads += 1,
            HostOp::Write { .. } => {
                counters.writes += 1;
                counters.bytes_written += u64::from(command.blocks.0) * BLOCK_BYTES as u64;
            }
            HostOp::Sync => {}
        }
        let id = self.commands.add(self.connection, tag);
        let before = self.tags.insert(tag, id);
        assert!(before.is_none(), "a session used {tag:?} twice at a time");
        self.shared.queue.push(Event::HostCommand(HostCommand {
            id,
            ncae: command.ncae,
            noid: command.noid,
            op: command.op,
            start: command.start,
            blocks: command.blocks,
            in_hand: command.in_hand,
        }));
    }

    fn abort(&mut self, tag: Tag) {
        if let Some(id) = self.tags.get(&tag) {
            abort(self.commands, *id, self.shared.queue);
        }
    }

    fn data(&mut self, tag: Tag, offset: u64, bytes: &[u8]) {
        let fetch = self
            .tags
            .get(&tag)
            .and_then(|id| self.commands.get(*id))
            .and_then(|task| task.fetch);
        let Some(fetch) = fetch else {
            return;
        };
        let Some(at) = fetch.place(offset, bytes.len()) else {
            warn!(
                offset,
                length = bytes.len(),
                "a session gave data that nobody asked for"
            );
            return;
        };
        self.shared.memories.copy_in(&fetch.into, at, bytes);
        self.shared.counters.bytes_copied += bytes.len() as u64;
    }

    fn fetched(&mut self, tag: Tag, complete: bool) {
        if let Some(id) = self.tags.get(&tag) {
            end_fetch(self.commands, *id, complete, self.shared.queue);
        }
    }

    fn unsent(&self) -> usize {
        self.unsent
    }

    fn keep(&mut self, bytes: usize) -> bool {
        let (kept, kept_by_all) = &mut self.kept;
        let fits = **kept + bytes <= KEPT_BYTES_MAX_OF_ONE && **kept_by_all + bytes <= KEPT_BYTES_MAX;
        let may = fits || **kept == 0;
        if may {
            **kept += bytes;
            **kept_by_all += bytes;
        }
        may
    }

    fn let_go(&mut self, bytes: usize) {
        let (kept, kept_by_all) = &mut self.kept;
        **kept -= bytes;
        **kept_by_all -= bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nv::NvMemory;
    use crate::testing::{TempDir, free_address, settings};
    use crate::view;
    use std::io::{ErrorKind, Read, Write};
    use std::net::TcpStream;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Instant;
    use twincell_core::config::Geometry;
    use twincell_core::ids::{BufferIndex, Controller, NcaeIndex, Noid, TransferIndex, Uuid, Vba};
    use twincell_core::memory::Segment;
    use twincell_target::session::{NOT_BEGUN_AFTER, OUTPUT_BYTES_MAX};

    /// A protocol of single letters: `r` reads 2 blocks, `w` writes 2 blocks of zeroes, `n` writes 2 blocks whose
    /// data never come, `m` asks for a mebibyte, `i` says that this is initiator `i`, `q` ends. The answers: data, and
    /// then a letter for the status; after a bad one the session wants to know of a change of the view.
    #[derive(Default)]
    struct Letters {
        last: u32,
        never: Vec<Tag>,
        output: Vec<u8>,
        over: bool,
        initiator: Option<&'static str>,
        /// How often it still wants to be told.
        wants_view_changed: u32,
        /// Bytes that were asked for.
        said: Arc<AtomicUsize>,
    }

    impl Letters {
        fn submit(&mut self, op: HostOp, outside: &mut dyn Outside) -> Tag {
            self.last += 1;
            let command = Command {
                ncae: NcaeIndex(0),
                noid: Noid(1),
                op,
                start: Vba(0),
                blocks: BlockCount(2),
                in_hand: BlockCount(0),
            };
            outside.submit(Tag(self.last), command);
            Tag(self.last)
        }
    }

    impl Session for Letters {
        fn is_stranger(&self) -> bool {
            false
        }

        fn receive(&mut self, bytes: &[u8], outside: &mut dyn Outside) -> usize {
            for (taken, letter) in bytes.iter().enumerate() {
                if !self.may_answer(outside) {
                    return taken;
                }
                match letter {
                    b'r' => _ = self.submit(HostOp::Read, outside),
                    b'w' => _ = self.submit(HostOp::Write { fua: false }, outside),
                    b'n' => {
                        let tag = self.submit(HostOp::Write { fua: false }, outside);
                        self.never.push(tag);
                    }
                    b'm' => {
                        self.output.extend_from_slice(&[b'm'; 1 << 20]);
                        self.said.fetch_add(1 << 20, Ordering::Relaxed);
                    }
                    b'i' => {
                        self.initiator = Some("i");
                        self.output.push(b'I');
                    }
                    b'q' => {
                        self.output.extend_from_slice(b"bye");
                        self.over = true;
                    }
                    other => panic!("{other} is no letter of this protocol"),
                }
            }
            bytes.len()
        }

        fn fetch(&mut self, tag: Tag, offset: BlockCount, blocks: BlockCount, outside: &mut dyn Outside) {
            if self.never.contains(&tag) {
                return;
            }
            let begin = u64::from(offset.0) * 512;
            for i in 0..u64::from(blocks.0) * 2 {
                outside.data(tag, begin + i * 256, &[i as u8 + 1; 256]);
            }
            outside.data(tag, begin + u64::from(blocks.0) * 512, b"too much");
            outside.fetched(tag, true);
            outside.fetched(tag, false);
        }

        fn send_data(&mut self, _: Tag, _: BlockCount, bytes: &[u8]) {
            self.output.extend_from_slice(bytes);
        }

        fn complete(&mut self, _: Tag, status: Status, _: &mut dyn Outside) {
            self.output.push(if status == Status::Good { b'G' } else { b'B' });
            self.wants_view_changed = if status == Status::Good { 0 } else { 2 };
        }

        fn view_changed(&mut self, _: &mut dyn Outside) {
            self.output.push(b'V');
            self.wants_view_changed = self.wants_view_changed.saturating_sub(1);
        }

        fn wants_view_changed(&self) -> bool {
            self.wants_view_changed > 0
        }

        fn initiator(&self) -> Option<(&str, [u8; 6])> {
            self.initiator.map(|name| (name, [1; 6]))
        }

        fn disconnected(&mut self, outside: &mut dyn Outside) {
            (1..=self.last).for_each(|tag| outside.abort(Tag(tag)));
        }

        fn output(&mut self) -> &mut Vec<u8> {
            &mut self.output
        }

        fn is_over(&self) -> bool {
            self.over
        }
    }

    /// Writes of 64 blocks: a byte that says so, and then the data.
    #[derive(Default)]
    struct Bulk {
        last: u32,
        /// How much of the data has come, and whether it is wanted.
        came: Option<usize>,
        wanted: bool,
        output: Vec<u8>,
    }

    const BULK_BYTES: usize = 64 * 512;

    impl Session for Bulk {
        fn is_stranger(&self) -> bool {
            false
        }

        fn receive(&mut self, mut bytes: &[u8], outside: &mut dyn Outside) -> usize {
            let all = bytes.len();
            while !bytes.is_empty() {
                let Some(came) = self.came else {
                    self.last += 1;
                    self.came = Some(0);
                    let command = Command {
                        ncae: NcaeIndex(0),
                        noid: Noid(1),
                        op: HostOp::Write { fua: false },
                        start: Vba(0),
                        blocks: BlockCount(64),
                        in_hand: BlockCount(64),
                    };
                    outside.submit(Tag(self.last), command);
                    bytes = &bytes[1..];
                    continue;
                };
                let count = bytes.len().min(BULK_BYTES - came);
                assert!(self.wanted, "no test sends data that are not wanted yet");
                outside.data(Tag(self.last), came as u64, &bytes[..count]);
                self.placed(count, outside);
                bytes = &bytes[count..];
            }
            all
        }

        fn incoming(&self) -> Option<Incoming> {
            self.came.filter(|_| self.wanted).map(|came| Incoming {
                tag: Tag(self.last),
                offset: came as u64,
                bytes: BULK_BYTES - came,
                whole: BULK_BYTES,
            })
        }

        fn placed(&mut self, bytes: usize, outside: &mut dyn Outside) {
            self.came = self.came.map(|came| came + bytes).filter(|came| *came < BULK_BYTES);
            if self.came.is_none() {
                self.wanted = false;
                outside.fetched(Tag(self.last), true);
            }
        }

        fn fetch(&mut self, _: Tag, _: BlockCount, _: BlockCount, _: &mut dyn Outside) {
            self.wanted = true;
        }

        fn send_data(&mut self, _: Tag, _: BlockCount, _: &[u8]) {}

        fn complete(&mut self, _: Tag, _: Status, _: &mut dyn Outside) {}

        fn view_changed(&mut self, _: &mut dyn Outside) {}

        fn disconnected(&mut self, outside: &mut dyn Outside) {
            outside.abort(Tag(self.last));
        }

        fn output(&mut self) -> &mut Vec<u8> {
            &mut self.output
        }

        fn is_over(&self) -> bool {
            false
        }
    }

    /// A controller that has nothing but hosts.
    struct Side {
        ring: Ring,
        hosts: Hosts,
        memories: Memories,
        queue: Queue,
        counters: Counters,
        address: SocketAddr,
    }

    macro_rules! shared {
        ($side:ident) => {
            &mut Shared {
                memories: &$side.memories,
                queue: &mut $side.queue,
                counters: &mut $side.counters,
            }
        };
    }

    impl Side {
        fn new(dir: &TempDir) -> Side {
            Side::with(dir, Box::new(|_, _| Box::new(Letters::default())))
        }

        fn with(dir: &TempDir, greet: Greet) -> Side {
            let settings = settings(dir, Controller::A);
            let ring = Ring::new().expect("a ring");
            ring.enable().expect("enabled");
            let nv = NvMemory::open(&settings, &Geometry::for_cache(0), Uuid(1)).expect("NV memory");
            let address = free_address();
            Side {
                ring,
                hosts: Hosts::open(&[(Protocol::Nbd, address)], view::first(&settings), greet).expect("bound"),
                memories: Memories::new(nv, 1),
                queue: Queue::default(),
                counters: Counters::default(),
                address,
            }
        }

        fn serving(dir: &TempDir) -> (Side, TcpStream) {
            let mut side = Side::new(dir);
            side.hosts.serve(&mut side.ring);
            let client = side.connect();
            (side, client)
        }

        fn connect(&mut self) -> TcpStream {
            let client = TcpStream::connect(self.address).expect("connected");
            client
                .set_read_timeout(Some(Duration::from_millis(1)))
                .expect("a timeout");
            client
        }

        fn turn(&mut self) {
            let shared = shared!(self);
            self.hosts.finish(clock::now(), &mut self.ring, shared);
            self.ring
                .submit_and_wait(Some(Duration::from_millis(2)))
                .expect("submitted");
            let mut completions = Vec::new();
            self.ring.reap(&mut completions);
            for completion in completions {
                match completion.token {
                    Token::HostAccept(i) => self.hosts.accepted(i, completion, &mut self.ring),
                    Token::HostReceive(key) => self.hosts.received(key, completion.result, shared),
                    Token::HostSend(key) => self.hosts.sent(key, completion.result, shared),
                    other => panic!("{other:?} was never posted"),
                }
            }
            self.hosts.poll(clock::now(), &mut self.ring, shared);
        }

        fn until(&mut self, what: &str, mut done: impl FnMut(&mut Side) -> bool) {
            let begun = Instant::now();
            while !done(self) {
                assert!(begun.elapsed() < Duration::from_secs(5), "waited 5 s for {what}");
                self.turn();
            }
        }

        fn next(&mut self, what: &str) -> Event {
            let mut next = None;
            self.until(what, |side| {
                next = side.queue.pop().map(|h| h.event);
                next.is_some()
            });
            next.expect("just found")
        }

        fn command(&mut self) -> CommandId {
            match self.next("a command") {
                Event::HostCommand(command) => command.id,
                other => panic!("{other:?} is no command"),
            }
        }

        fn complete(&mut self, id: CommandId, status: Status) {
            self.hosts.complete(id, status, shared!(self));
        }

        /// Whether the client has been sent exactly this.
        fn expect(&mut self, client: &mut TcpStream, expected: &[u8]) {
            let mut got = Vec::new();
            self.until("an answer", |_| {
                let mut bytes = [0; 4096];
                match client.read(&mut bytes) {
                    Ok(n) => got.extend_from_slice(&bytes[..n]),
                    Err(e) => assert_eq!(e.kind(), ErrorKind::WouldBlock),
                }
                got.len() >= expected.len()
            });
            assert!(
                got == expected,
                "{:?} instead of {:?}",
                got.escape_ascii(),
                expected.escape_ascii()
            );
        }

        fn expect_end(&mut self, client: &mut TcpStream) {
            self.until("the end of the connection", |_| match client.read(&mut [0; 64]) {
                Ok(0) => true,
                Ok(_) => false,
                Err(e) => e.kind() != ErrorKind::WouldBlock,
            });
        }
    }

    fn transfer() -> Memory {
        Memory::Transfer {
            transfer: TransferIndex(0),
            first: 1,
            blocks: 2,
        }
    }

    /// 64 blocks, not all of them at the beginning of a buffer.
    fn buffers() -> Memory {
        let counts = std::iter::once(3).chain([8; 7]).chain(std::iter::once(5));
        let segments = counts.zip(0..).map(|(count, n)| Segment {
            buffer: BufferIndex(n),
            first: if n == 0 { 5 } else { 0 },
            count,
        });
        Memory::Buffers(segments.collect())
    }

    #[test]
    fn large_payload_is_received_into_its_place() {
        let dir = TempDir::in_memory("hosts");
        let mut side = Side::with(&dir, Box::new(|_, _| Box::new(Bulk::default())));
        side.hosts.serve(&mut side.ring);
        let mut client = side.connect();
        for round in 0..3u8 {
            client.write_all(b"w").expect("sent");
            let id = side.command();
            side.hosts.fetch(id, BlockCount(0), &buffers(), shared!(side));
            let bytes: Vec<u8> = (0..BULK_BYTES).map(|i| (i / 77) as u8 ^ round).collect();
            client.write_all(&bytes[..20_001]).expect("sent");
            side.turn();
            client.write_all(&bytes[20_001..]).expect("sent");
            assert_eq!(side.next("the data"), Event::HostData { id, complete: true });
            let there: Vec<u8> = side.memories.slices(&buffers()).flatten().copied().collect();
            assert!(there == bytes, "round {round}");
            side.complete(id, Status::Good);
        }
        assert!(
            side.counters.bytes_copied < BULK_BYTES as u64,
            "{} bytes were copied",
            side.counters.bytes_copied
        );
    }

    #[test]
    fn a_connection_that_ends_within_payload_gives_the_write_up() {
        let dir = TempDir::in_memory("hosts");
        let mut side = Side::with(&dir, Box::new(|_, _| Box::new(Bulk::default())));
        side.hosts.serve(&mut side.ring);
        let mut client = side.connect();
        client.write_all(b"w").expect("sent");
        let id = side.command();
        side.hosts.fetch(id, BlockCount(0), &buffers(), shared!(side));
        client.write_all(&[1; 20_000]).expect("sent");
        side.turn();
        drop(client);
        assert_eq!(side.next("the end"), Event::HostAbort { id });
        assert_eq!(side.next("the data"), Event::HostData { id, complete: false });
        side.complete(id, Status::Aborted);
        side.until("the connection to be forgotten", |s| s.hosts.connections.is_empty());
    }

    #[test]
    fn hosts_are_refused_until_they_are_served_and_again_after() {
        let dir = TempDir::in_memory("hosts");
        let mut side = Side::new(&dir);
        for _ in 0..2 {
            let error = TcpStream::connect(side.address).expect_err("refused").kind();
            assert_eq!(error, ErrorKind::ConnectionRefused);
            side.hosts.serve(&mut side.ring);
            let mut client = side.connect();
            client.write_all(b"r").expect("sent");
            let id = side.command();
            side.hosts.close(shared!(side));
            assert_eq!(side.next("an abort"), Event::HostAbort { id });
            side.complete(id, Status::Aborted);
            side.expect_end(&mut client);
            side.until("the connection to be forgotten", |s| s.hosts.connections.is_empty());
            side.until("everything to be reaped", |s| s.ring.outstanding() == 0);
        }
    }

    #[test]
    fn an_address_that_is_taken_is_named() {
        let dir = TempDir::in_memory("hosts");
        let mut side = Side::new(&dir);
        for serving in [false, true] {
            let greet: Greet = Box::new(|_, _| Box::new(Letters::default()));
            let again = Hosts::open(&[(Protocol::Iscsi, side.address)], side.hosts.view().clone(), greet);
            let text = again.err().expect("refused").to_string();
            let expected = format!("cannot listen on {} (option iscsi): ", side.address);
            assert!(text.starts_with(&expected), "serving {serving}: {text}");
            side.hosts.serve(&mut side.ring);
        }
    }

    #[test]
    fn data_of_a_write_go_where_the_core_wants_them() {
        let dir = TempDir::in_memory("hosts");
        let (mut side, mut client) = Side::serving(&dir);
        client.write_all(b"w").expect("sent");
        let id = side.command();
        side.hosts.fetch(id, BlockCount(0), &transfer(), shared!(side));
        assert_eq!(side.next("the data"), Event::HostData { id, complete: true });
        assert!(side.queue.is_empty(), "a fetch was answered twice");
        let bytes: Vec<u8> = side
            .memories
            .pieces(&transfer())
            .flat_map(|p| p.read().to_vec())
            .collect();
        let expected: Vec<u8> = (1..=4).flat_map(|i| [i; 256]).collect();
        assert!(bytes == expected, "the data differ");
        side.complete(id, Status::Good);
        side.expect(&mut client, b"G");
        assert_eq!((side.counters.writes, side.counters.bytes_written), (1, 1024));
    }

    #[test]
    fn data_of_a_read_reach_the_host() {
        let dir = TempDir::in_memory("hosts");
        let (mut side, mut client) = Side::serving(&dir);
        client.write_all(b"r").expect("sent");
        let id = side.command();
        side.memories.copy_in(&transfer(), 0, &[7; 1024]);
        side.hosts.send_data(id, BlockCount(0), &transfer(), shared!(side));
        side.complete(id, Status::Good);
        let mut expected = vec![7; 1024];
        expected.push(b'G');
        side.expect(&mut client, &expected);
        client.write_all(b"q").expect("sent");
        side.expect(&mut client, b"bye");
        side.expect_end(&mut client);
    }

    #[test]
    fn data_of_a_host_that_went_never_come() {
        let dir = TempDir::in_memory("hosts");
        let (mut side, mut client) = Side::serving(&dir);
        client.write_all(b"n").expect("sent");
        let id = side.command();
        side.hosts.fetch(id, BlockCount(0), &transfer(), shared!(side));
        drop(client);
        assert_eq!(side.next("an abort"), Event::HostAbort { id });
        assert_eq!(side.next("no data"), Event::HostData { id, complete: false });
        side.hosts.fetch(id, BlockCount(1), &transfer(), shared!(side));
        assert_eq!(side.next("no data"), Event::HostData { id, complete: false });
        assert!(side.queue.is_empty());
        side.complete(id, Status::Aborted);
        side.until("the connection to be forgotten", |s| s.hosts.connections.is_empty());
    }

    /// What waits to be sent to all hosts.
    fn unsent(side: &mut Side) -> usize {
        side.hosts.connections.iter_mut().map(|(_, c)| c.unsent()).sum()
    }

    /// Whether a session has left something of what was received.
    fn holds_input(side: &mut Side) -> bool {
        side.hosts.connections.iter().any(|(_, c)| c.holds_input())
    }

    #[test]
    fn a_host_that_does_not_read_is_not_listened_to() {
        let dir = TempDir::in_memory("hosts");
        let (mut side, mut client) = Side::serving(&dir);
        client.set_nonblocking(true).expect("set");
        // Some of it the sockets in between take.
        client.write_all(&[b'm'; 100]).expect("sent");
        client.write_all(b"q").expect("sent");
        side.until("input that is held", holds_input);
        for _ in 0..20 {
            side.turn();
            let unsent = unsent(&mut side);
            assert!(unsent <= OUTPUT_BYTES_MAX + (1 << 20), "{unsent} bytes wait to be sent");
        }
        let (mut all, mut last) = (0, Vec::new());
        side.until("all of the answer", |_| {
            let mut bytes = vec![0; 1 << 16];
            while let Ok(n @ 1..) = client.read(&mut bytes) {
                last = bytes[..n].to_vec();
                all += n;
            }
            last.ends_with(b"bye")
        });
        assert_eq!(all, (100 << 20) + 3);
    }

    /// 16 hosts ask for much at once: the link and the clock have their turn in between.
    #[test]
    fn one_turn_handles_not_more_than_so_much() {
        let dir = TempDir::in_memory("hosts");
        let said = Arc::new(AtomicUsize::new(0));
        let of_all = said.clone();
        let letters = move |_, _| -> Box<dyn Session + Send> {
            Box::new(Letters {
                said: of_all.clone(),
                ..Letters::default()
            })
        };
        let mut side = Side::with(&dir, Box::new(letters));
        side.hosts.serve(&mut side.ring);
        let mut clients: Vec<TcpStream> = (0..16).map(|_| side.connect()).collect();
        side.until("connections", |side| side.hosts.connections.len() == 16);
        clients.iter_mut().for_each(|c| c.write_all(b"mm").expect("sent"));
        let mut before = 0;
        side.until("all answers", |_| {
            let now = said.load(Ordering::Relaxed);
            assert!(now - before <= 4 << 20, "{} bytes in one turn", now - before);
            before = now;
            now == 32 << 20
        });
    }

    /// A host has sent a command, and what it sent before kept the session from taking it.
    fn held(side: &mut Side, client: &mut TcpStream, letter: u8) {
        client.write_all(&[b'm'; 20]).expect("sent");
        client.write_all(&[letter]).expect("sent");
        side.until("input that is held", holds_input);
        let (_, connection) = side.hosts.connections.iter_mut().next().expect("the connection");
        connection.heard = Time(clock::now().0 - NOT_BEGUN_AFTER.0);
    }

    fn read_all(client: &mut TcpStream) {
        while client.read(&mut vec![0; 1 << 16]).is_ok_and(|n| n > 0) {}
    }

    #[test]
    fn a_write_that_was_held_back_for_long_is_not_begun() {
        let dir = TempDir::in_memory("hosts");
        let (mut side, mut client) = Side::serving(&dir);
        held(&mut side, &mut client, b'w');
        side.until("the end of the connection", |side| {
            read_all(&mut client);
            side.hosts.connections.is_empty()
        });
        assert!(
            side.queue.is_empty(),
            "a write that its host may have sent again elsewhere"
        );
        let mut client = side.connect();
        held(&mut side, &mut client, b'r');
        side.until("a read", |side| {
            read_all(&mut client);
            !side.queue.is_empty()
        });
    }

    /// It was not even received: nothing is, while something is held.
    #[test]
    fn a_write_that_the_kernel_had_for_long_is_not_begun() {
        let dir = TempDir::in_memory("hosts");
        let (mut side, mut client) = Side::serving(&dir);
        client.write_all(&[b'm'; 20]).expect("sent");
        side.until("input that is held", holds_input);
        client.write_all(b"w").expect("sent");
        let silence = |side: &Side| side.hosts.connections.iter().next().map(|(_, c)| c.stream.silence());
        while silence(&side).is_some_and(|silence| silence < NOT_BEGUN_AFTER) {
            side.turn();
        }
        side.until("the end of the connection", |side| {
            read_all(&mut client);
            side.hosts.connections.is_empty()
        });
        assert!(
            side.queue.is_empty(),
            "a write that its host may have sent again elsewhere"
        );
    }

    /// Whether the session of a connection may keep so many bytes.
    fn keep(side: &mut Side, key: usize, bytes: usize) -> bool {
        let shared = shared!(side);
        side.hosts.with_all(key, shared, |_, _, outside| outside.keep(bytes))
    }

    #[test]
    fn all_hosts_share_the_room_for_data_and_nobody_starves() {
        let dir = TempDir::in_memory("hosts");
        let (mut side, first) = Side::serving(&dir);
        let mut clients = vec![first];
        clients.extend((1..9).map(|_| side.connect()));
        side.until("connections", |side| side.hosts.connections.len() == 9);
        for key in 0..8 {
            assert!(keep(&mut side, key, 32 << 20));
            assert!(!keep(&mut side, key, 1), "more than one host may");
        }
        assert!(keep(&mut side, 8, 1 << 20), "the ninth gets on");
        assert!(!keep(&mut side, 8, 1), "more than all hosts may");
        drop(clients.pop());
        drop(clients.remove(0));
        side.until("two to be forgotten", |side| side.hosts.connections.len() == 7);
        let shared = shared!(side);
        side.hosts.with_all(1, shared, |_, _, outside| outside.let_go(32 << 20));
        assert!(keep(&mut side, 1, 1) && keep(&mut side, 1, (32 << 20) - 1));
        assert_eq!(side.hosts.kept, 7 * (32 << 20));
    }

    #[test]
    fn who_is_refused_for_the_moment_is_told_of_a_change_until_it_wants_no_more() {
        let dir = TempDir::in_memory("hosts");
        let (mut side, mut client) = Side::serving(&dir);
        let mut other = side.connect();
        client.write_all(b"r").expect("sent");
        let id = side.command();
        assert_eq!(side.hosts.next_deadline(), None, "a wake-up that nobody needs");
        side.complete(id, Status::Busy);
        side.expect(&mut client, b"BVV");
        side.turn();
        assert_eq!(side.hosts.next_deadline(), None, "a wake-up that nobody needs");
        other.write_all(b"q").expect("sent");
        side.expect(&mut other, b"bye");
    }

    #[test]
    fn a_socket_is_closed_when_the_last_of_its_commands_is_over() {
        let dir = TempDir::in_memory("hosts");
        let (mut side, mut client) = Side::serving(&dir);
        client.write_all(b"rn").expect("sent");
        client.shutdown(std::net::Shutdown::Write).expect("half closed");
        let (first, second) = (side.command(), side.command());
        side.hosts.fetch(second, BlockCount(0), &transfer(), shared!(side));
        let mut aborts = [side.next("an abort"), side.next("no data"), side.next("an abort")];
        aborts.sort_by_key(|event| format!("{event:?}"));
        let mut expected = [
            Event::HostAbort { id: first },
            Event::HostAbort { id: second },
            Event::HostData {
                id: second,
                complete: false,
            },
        ];
        expected.sort_by_key(|event| format!("{event:?}"));
        assert_eq!(aborts, expected);
        for id in [second, first] {
            (0..10).for_each(|_| side.turn());
            let error = client
                .read(&mut [0; 64])
                .expect_err("closed before its commands were over");
            assert_eq!(error.kind(), ErrorKind::WouldBlock);
            side.complete(id, Status::Aborted);
        }
        side.until("the end", |_| matches!(client.read(&mut [0; 64]), Ok(0)));
        side.until("the connection to be forgotten", |s| s.hosts.connections.is_empty());
        assert!(side.queue.is_empty());
    }

    #[test]
    fn a_session_takes_the_place_of_an_older_one_when_its_commands_are_over() {
        let dir = TempDir::in_memory("hosts");
        let (mut side, mut older) = Side::serving(&dir);
        older.write_all(b"i").expect("sent");
        side.expect(&mut older, b"I");
        older.write_all(b"r").expect("sent");
        let id = side.command();
        let mut stranger = side.connect();
        stranger.write_all(b"r").expect("sent");
        let strangers = side.command();

        let mut newer = side.connect();
        newer.write_all(b"i").expect("sent");
        assert_eq!(side.next("an abort"), Event::HostAbort { id });
        (0..10).for_each(|_| side.turn());
        let error = newer.read(&mut [0; 64]).expect_err("goes on before the older is over");
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
        side.complete(id, Status::Aborted);
        side.expect(&mut newer, b"I");
        side.expect_end(&mut older);
        assert!(side.queue.is_empty(), "a session of somebody else was ended");
        side.complete(strangers, Status::Good);
        side.expect(&mut stranger, b"G");

        // One that has ended already, and whose command goes on.
        newer.write_all(b"r").expect("sent");
        let id = side.command();
        drop(newer);
        assert_eq!(side.next("an abort"), Event::HostAbort { id });
        let mut newest = side.connect();
        newest.write_all(b"i").expect("sent");
        (0..10).for_each(|_| side.turn());
        let error = newest.read(&mut [0; 64]).expect_err("goes on before the older is over");
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
        side.complete(id, Status::Good);
        side.expect(&mut newest, b"I");
    }
}
