//! The link between the controllers (DESIGN section 7): messages exactly once and in order within one incarnation.

#[cfg(feature = "model")]
mod canonical;
pub mod frame;
pub mod mfcd;
pub mod path;
mod routines;

use crate::effect::Effect;
use crate::ids::{ConnectionId, Incarnation, Nanos, Time, Uuid};
use crate::list::List;
use crate::mark::mark;
use crate::memory::Memory;
use crate::mutant;
use frame::{FRAME_BYTES_MAX, FRAME_MFCS_MAX, Frame, Hello, Messages, Mfc, Mfcs, Missing, Sequenced};
use mfcd::Mfcd;
use path::{PATHS_MAX, Path, PathState, PathView, Standing, Why, agreed};
use std::collections::VecDeque;

/// Most frames in flight. Limiting them also encourages that messages share a frame [0063].
pub const WINDOW: usize = if cfg!(feature = "model") { 8 } else { 64 };
/// Frames that arrive before an acknowledgement of its own is sent for them.
const ACK_AFTER: u32 = 8;
/// How long an acknowledgement waits for a frame to travel with.
const ACK_DELAY: Nanos = Nanos::from_millis(20);
/// Bytes of a frame that are not messages.
const FRAME_OVERHEAD: usize = 64;
/// The first sequence number of an incarnation: soon they wrap, so that this is nothing special.
pub const FIRST: u32 = u32::MAX - 40;
/// Places of the window that only frames without data may take [0101].
const RESERVED: u32 = WINDOW as u32 / 8;
/// A frame with data leaves only while fewer blocks than these are unacknowledged. With the blocks of one more frame, it
/// is all that a frame without data ever waits for on its way, what waits in the socket included [0101].
pub const PACE_BLOCKS: u32 = 768;
/// How long after it was sent again a frame is not sent again because the partner misses it.
const AGAIN_AFTER: Nanos = Nanos::from_millis(2);

/// A path on which the oldest frame was sent again so often, and that answers heartbeats all the while, spoils what is large.
const SPOILS_AFTER: u32 = 3;
/// How long such a path is left alone.
const DISTRUST: Nanos = Nanos::from_millis(30_000);

/// What the window knows of a frame in flight.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Flight {
    /// The requests whose messages it ends: their ack routines are to be called.
    mfcds: List<Mfcd, FRAME_MFCS_MAX>,
    /// Blocks of its payload.
    blocks: u32,
    /// When it was sent again.
    again: Option<Time>,
}

/// A connection over which both have said hello.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Established {
    incarnation: Incarnation,
    /// The oldest frame that is not acknowledged, and the next frame to send.
    oldest: u32,
    next: u32,
    /// The next frame to be received.
    expected: u32,
    /// The frame after the last that has come, in whatever order; and those that are kept until their turn comes, bit n for
    /// frame `expected + n`.
    seen: u32,
    held: u64,
    /// What the partner was last told that is missing.
    missed: Option<(u32, u32)>,
    /// Frames that were received and not yet acknowledged, and blocks of payload in them.
    unacknowledged: u32,
    unacknowledged_blocks: u32,
    ack_at: Option<Time>,
    resend_at: Option<Time>,
    resends: u32,
    /// Frames that are to be sent again: bit n for frame `oldest + n`.
    wanted: u64,
    /// Blocks of payload in flight.
    blocks: u32,
    choked: bool,
    /// The path that messages leave on, and the one that they last came on.
    active: usize,
    incoming: usize,
    /// Both have said hello, on one path at least.
    mutual: bool,
    /// What was awaited of the partner when it said hello was done.
    met: bool,
    /// When anything was last heard, on any path.
    heard: Time,
}

/// How far both directions of the link have come, as one end sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    incarnation: Incarnation,
    next: u32,
    expected: u32,
    is_empty: bool,
}

impl Position {
    /// Whether everything that either end has to say was handled by the other.
    pub fn has_told_all(&self, partner: &Position) -> bool {
        let heard = (self.next, self.expected) == (partner.expected, partner.next);
        heard && self.incarnation == partner.incarnation && self.is_empty && partner.is_empty
    }
}

/// What a hello came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Greeting {
    /// The path belongs to the link.
    Joined,
    /// The connection is of no use: another is to be opened.
    Refused,
    /// What goes on here is over for the partner: so is the link.
    Void,
}

/// The link.
#[derive(Clone, PartialEq, Eq)]
#[cfg_attr(not(feature = "model"), derive(Hash))]
pub struct Link {
    paths: [Option<Path>; PATHS_MAX],
    /// Why the state of each path last changed, and when.
    changes: [(Why, Time); PATHS_MAX],
    /// Until when each path is not used, because it spoils what it carries.
    distrusted: [Time; PATHS_MAX],
    established: Option<Established>,
    partner: Option<Hello>,
    /// Frames in flight, and frames that have arrived: that of sequence number s in place s modulo the window. Both ends
    /// know these places from the establishment on, and use them round-robin [0056].
    sent: Vec<Messages>,
    flights: Vec<Flight>,
    arrived: Vec<Mfcs>,
    /// Requests that wait for a frame: those without data, which go first, and those with data. In order each.
    control: VecDeque<Mfcd>,
    data: VecDeque<Mfcd>,
    waiting_max: usize,
    /// The messages of `Mfcd::Prepared`, in order.
    prepared: VecDeque<Mfc>,
    /// Requests that were acknowledged, for their ack routines.
    acknowledged: VecDeque<Mfcd>,
    /// More is about to happen that may request messages.
    more: bool,
    /// A frame with data leaves only while fewer blocks than these are unacknowledged.
    pace: u32,
    incarnation: Incarnation,
    retransmit: Nanos,
    /// Frames that were sent again, since the start.
    pub resent: u64,
    /// Frames that came before, or too early to be kept, since the start.
    pub dropped: u64,
    /// How often messages left on another path than before, since the start.
    pub moves: u64,
    /// Messages that were built, since the start; and the frames that they left in, what was sent again not counted.
    pub messages: u64,
    /// See `messages`.
    pub frames: u64,
}

impl Link {
    /// No connection. A frame that is not acknowledged within `retransmit` is sent again. At most `waiting` requests of each
    /// kind wait for a frame. The only allocations that it ever makes, but for what the cell machine says.
    pub fn new(retransmit: Nanos, waiting: usize) -> Link {
        Link {
            retransmit,
            sent: vec![Messages::default(); WINDOW],
            arrived: vec![Mfcs::new(); WINDOW],
            flights: vec![Flight::default(); WINDOW],
            control: VecDeque::with_capacity(waiting),
            data: VecDeque::with_capacity(waiting),
            waiting_max: waiting,
            prepared: VecDeque::with_capacity(64),
            acknowledged: VecDeque::with_capacity(WINDOW * FRAME_MFCS_MAX),
            more: false,
            pace: PACE_BLOCKS,
            paths: [None; PATHS_MAX],
            changes: [(Why::NotYet, Time(0)); PATHS_MAX],
            distrusted: [Time(0); PATHS_MAX],
            established: None,
            partner: None,
            incarnation: Incarnation(0),
            resent: 0,
            dropped: 0,
            moves: 0,
            messages: 0,
            frames: 0,
        }
    }

    /// Lets as many data leave as the window takes: to measure what pacing is worth.
    pub fn do_not_pace(&mut self) {
        self.pace = u32::MAX;
    }

    /// The connection that messages leave on.
    fn active(&self) -> Option<ConnectionId> {
        Some(self.paths[self.established.as_ref()?.active]?.connection)
    }

    /// Whether messages are taken from this connection straight into their place: those that last came, came on it.
    pub fn is_incoming(&self, connection: ConnectionId) -> bool {
        let incoming = self.established.as_ref().and_then(|e| self.paths[e.incoming]);
        incoming.is_some_and(|p| p.connection == connection)
    }

    /// The open connections.
    pub fn connections(&self) -> impl Iterator<Item = ConnectionId> + use<> {
        self.paths.into_iter().flatten().map(|p| p.connection)
    }

    fn path_of(&self, connection: ConnectionId) -> Option<usize> {
        let is = |p: &Option<Path>| p.is_some_and(|p| p.connection == connection);
        self.paths.iter().position(is)
    }

    /// Whether this connection is open as far as the link knows.
    pub fn has(&self, connection: ConnectionId) -> bool {
        self.path_of(connection).is_some()
    }

    /// Whether any connection is open.
    pub fn is_open(&self) -> bool {
        self.paths.iter().flatten().next().is_some()
    }

    /// What the partner said of itself when this incarnation began.
    pub fn partner(&self) -> Option<&Hello> {
        self.partner.as_ref()
    }

    /// Whether both have said hello, on one path at least: what is said is heard by who is meant.
    pub fn is_up(&self) -> bool {
        self.established
            .as_ref()
            .is_some_and(|e| e.mutual || mutant::is("one-hello-is-a-link"))
    }

    fn hello_was_said(&mut self, path: usize) {
        let both = self.paths[path].is_some_and(|p| p.is_mutual());
        if let Some(e) = self.established.as_mut().filter(|_| both) {
            e.mutual = true;
        }
    }

    /// Whether this is the first time that it is asked in this incarnation.
    pub fn meets(&mut self) -> bool {
        self.established
            .as_mut()
            .is_some_and(|e| !std::mem::replace(&mut e.met, true))
    }

    /// The open connection of a path.
    pub fn connection_of(&self, path: usize) -> Option<ConnectionId> {
        Some(self.paths[path]?.connection)
    }

    /// A connection is open. The caller says hello.
    pub fn opened(&mut self, path: usize, connection: ConnectionId, now: Time) {
        let own = Standing {
            session: self.established.as_ref().map_or(Incarnation(0), |e| e.incarnation),
            last: self.incarnation,
        };
        self.paths[path] = Some(Path::new(connection, own, now));
        self.changes[path] = (Why::Opened, now);
    }

    /// The next connection on which no hello was said, and what is to be said on it.
    pub fn unsaid(&mut self) -> Option<(ConnectionId, Standing)> {
        let unsaid = |p: &Option<Path>| p.is_some_and(|p| !p.said_hello);
        let n = self.paths.iter().position(unsaid)?;
        let path = self.paths[n].as_mut()?;
        path.said_hello = true;
        let said = (path.connection, path.own);
        self.hello_was_said(n);
        Some(said)
    }

    /// Whether a hello was said on any connection that is open.
    pub fn has_said_hello(&self) -> bool {
        self.paths.iter().flatten().any(|p| p.said_hello)
    }

    /// A connection is over. Returns whether the link is, or never was: no path is left. Otherwise what was in flight on it
    /// leaves again on another.
    pub fn closed(&mut self, connection: ConnectionId, why: Why, now: Time) -> bool {
        let Some(path) = self.path_of(connection) else {
            return false;
        };
        let was = self.paths[path].take();
        self.changes[path] = (why, now);
        let Some(e) = &self.established else {
            return self.paths.iter().all(Option::is_none);
        };
        if was.is_none_or(|p| p.joined.is_none()) {
            return false;
        }
        let next = self.paths.iter().position(|p| p.is_some_and(|p| p.joined.is_some()));
        match next {
            None => return true,
            Some(next) if e.active == path => self.leave_on(next, Why::TookOver, now),
            Some(_) => {}
        }
        false
    }

    /// Messages leave on another path from now on, those in flight once more.
    fn leave_on(&mut self, path: usize, why: Why, now: Time) {
        if let Some(e) = &mut self.established {
            let before = std::mem::replace(&mut e.active, path);
            self.changes[path] = (why, now);
            if why == Why::Preferred {
                self.changes[before] = (Why::Rests, now);
            }
            e.wanted = u64::MAX;
            e.resends = 0;
            e.resend_at = (e.in_flight() > 0).then_some(now + self.retransmit);
            self.moves += 1;
        }
    }

    /// All is over.
    pub fn all_closed(&mut self, now: Time) {
        for (path, change) in self.paths.iter_mut().zip(&mut self.changes) {
            if path.take().is_some() {
                *change = (Why::LinkLost, now);
            }
        }
        self.forget();
    }

    /// A path that does not answer while another does, or on which no hello comes while the link is up elsewhere.
    pub fn silent_path(&self, every: Nanos, path_silence: Nanos, now: Time) -> Option<ConnectionId> {
        self.established.as_ref()?;
        if !self.paths.iter().flatten().any(|p| p.answers(every, now)) {
            return None;
        }
        let silent = |p: &&Path| now.since(p.answered) >= path_silence;
        self.paths.iter().flatten().find(silent).map(|p| p.connection)
    }

    /// A path that answers heartbeats, and on which a frame does not arrive whole, however often it is sent. It is left alone for a
    /// while.
    pub fn spoiling_path(&mut self, every: Nanos, now: Time) -> Option<ConnectionId> {
        self.spoils_at().filter(|at| *at <= now)?;
        let active = self.established.as_ref()?.active;
        let path = self.paths[active].filter(|p| p.answers(every, now))?;
        self.distrusted[active] = now + DISTRUST;
        Some(path.connection)
    }

    /// When the path that messages leave on counts as one that spoils them: what was sent again is given time to arrive, and the path
    /// to show that it works.
    fn spoils_at(&self) -> Option<Time> {
        let e = self.established.as_ref().filter(|e| e.resends >= SPOILS_AFTER)?;
        let sent = e.resend_at?.0 - resend_after(self.retransmit, e.resends).0;
        let settled = self.paths[e.active].map_or(Time(0), |path| path.settled_at());
        Some((Time(sent) + self.retransmit).max(settled))
    }

    /// Whether a path is left alone because it spoils what it carries.
    pub fn is_distrusted(&self, path: usize, now: Time) -> bool {
        now < self.distrusted[path]
    }

    /// Messages come back to the first path, once it has worked for a while.
    pub fn prefer_first(&mut self, every: Nanos, now: Time) {
        let Some(e) = &self.established else { return };
        let trusted = |p: &Option<Path>| p.is_some_and(|p| p.is_trusted(every, now));
        if let Some(first) = self.paths[..e.active].iter().position(trusted) {
            self.leave_on(first, Why::Preferred, now);
        }
    }

    /// All paths that there may be.
    pub fn path_views(&self) -> impl Iterator<Item = PathView> + '_ {
        let active = self.established.as_ref().map(|e| e.active);
        self.paths
            .iter()
            .zip(self.changes)
            .enumerate()
            .map(move |(n, (path, (why, since)))| PathView {
                path: n,
                state: match path {
                    None => PathState::Down,
                    Some(Path { joined: None, .. }) => PathState::Opening,
                    Some(_) if active == Some(n) => PathState::Active,
                    Some(_) => PathState::Works,
                },
                round_trip: path.and_then(|p| p.round_trip),
                why,
                since,
            })
    }

    fn forget(&mut self) {
        self.established = None;
        self.partner = None;
        self.control.clear();
        self.data.clear();
        self.prepared.clear();
        self.acknowledged.clear();
        for (messages, flight) in self.sent.iter_mut().zip(&mut self.flights) {
            empty(messages, flight);
        }
    }

    /// The partner said hello on a connection of this link. `own` is this controller's instance.
    pub fn greet(&mut self, connection: ConnectionId, hello: Hello, own: Uuid, now: Time) -> Greeting {
        let Some(n) = self.path_of(connection) else {
            return Greeting::Refused;
        };
        let Some(path) = self.paths[n].filter(|p| p.joined.is_none()) else {
            return Greeting::Refused;
        };
        let same = self.partner.is_some_and(|p| p.instance == hello.instance);
        let agreed = agreed(path.own, &hello, hello.met == own);
        let goes_on = hello.session.0 > 0;
        let stands_as_met = self.partner.is_some_and(|p| p.stands_as(&hello));
        match &self.established {
            // Another process, or one that has lost what goes on here.
            Some(_) if !same => return Greeting::Void,
            Some(e) if !goes_on && hello.incarnation >= e.incarnation => return Greeting::Void,
            // One that never heard of what goes on here, and has moved on since it said hello.
            Some(_) if !goes_on && !stands_as_met && !mutant::is("goes-on-with-who-moved-on") => return Greeting::Void,
            Some(e) if agreed != Some(e.incarnation) => return Greeting::Refused,
            Some(_) => {}
            None => match agreed.filter(|a| *a > self.incarnation) {
                None => return Greeting::Refused,
                Some(incarnation) => self.establish(n, incarnation, hello, now),
            },
        }
        if let Some(path) = &mut self.paths[n] {
            path.joins(now);
            self.changes[n] = (Why::Joined, now);
        }
        self.hello_was_said(n);
        Greeting::Joined
    }

    /// A new incarnation begins.
    fn establish(&mut self, path: usize, incarnation: Incarnation, partner: Hello, now: Time) {
        self.incarnation = incarnation;
        self.partner = Some(partner);
        self.established = Some(Established {
            incarnation: self.incarnation,
            oldest: FIRST,
            next: FIRST,
            expected: FIRST,
            seen: FIRST,
            held: 0,
            missed: None,
            unacknowledged: 0,
            unacknowledged_blocks: 0,
            ack_at: None,
            resend_at: None,
            resends: 0,
            wanted: 0,
            blocks: 0,
            choked: false,
            active: path,
            incoming: path,
            mutual: false,
            met: false,
            heard: now,
        });
    }

    /// Requests that a message be sent, in order after all of its kind that were requested before: those with data, or
    /// those without. Dropped while the link is down.
    pub fn request(&mut self, mfcd: Mfcd) {
        if !self.is_up() {
            return;
        }
        let Some(e) = &mut self.established else { return };
        let lane = if mfcd.has_data() {
            &mut self.data
        } else {
            &mut self.control
        };
        let most = self.waiting_max / if mutant::is("choke-early") { 1024 } else { 1 };
        if lane.len() < most {
            lane.push_back(mfcd);
        } else {
            e.choked = true;
        }
    }

    /// Whether more is about to happen: messages without data may wait for others to share their frame.
    pub fn expect_more(&mut self, more: bool) {
        self.more = more;
    }

    /// What `expect_more` was told last.
    pub fn awaits_more(&self) -> bool {
        self.more
    }

    /// Whether what is requested may wait: others may come, and would fit into the same frame.
    pub fn may_wait(&self) -> bool {
        self.more && self.data.is_empty() && self.control.len() < FRAME_MFCS_MAX
    }

    /// Requests that this message be sent, which the cell machine has built: there is always room for it.
    pub fn send(&mut self, mfc: Mfc) {
        if self.is_up() {
            self.prepared.push_back(mfc);
            self.control.push_back(Mfcd::Prepared);
        }
    }

    /// Whether there is room for what begins now. The other half is for what has begun.
    pub fn has_room(&self) -> bool {
        self.control.len().max(self.data.len()) < self.waiting_max / 2
    }

    /// Whether more had to wait than can: the partner takes nothing, and has missed something.
    pub fn is_choked(&self) -> bool {
        self.established.as_ref().is_some_and(|e| e.choked)
    }

    /// The messages in flight in the frame of this sequence number.
    pub fn messages(&self, sequence: u32) -> &Messages {
        &self.sent[place(sequence)]
    }

    /// Where the messages of a frame that arrives are put; `None` where it is not awaited.
    pub fn place_of(&mut self, frame: &Sequenced) -> Option<&mut Mfcs> {
        let e = self
            .established
            .as_ref()
            .filter(|e| e.incarnation == frame.incarnation)?;
        let ahead = frame.sequence.wrapping_sub(e.expected);
        let again = mutant::is("execute-frames-twice") && ahead == u32::MAX;
        (ahead < WINDOW as u32 || again).then_some(&mut self.arrived[place(frame.sequence)])
    }

    /// The messages that were put where [`Link::place_of`] said.
    pub fn arrived(&self, sequence: u32) -> &Mfcs {
        &self.arrived[place(sequence)]
    }

    /// A frame of messages arrived, with so many blocks of payload. If it is the next in order it is to be handled, and
    /// after it whatever `next_held` returns. Without payload it is kept if it comes too early; payload would have to be
    /// kept, too, so it comes again.
    pub fn receive(&mut self, connection: ConnectionId, frame: &Sequenced, blocks: u32, now: Time) -> bool {
        let incoming = self.path_of(connection);
        let Some(e) = self.established.as_mut().filter(|e| e.incarnation == frame.incarnation) else {
            return false;
        };
        e.heard = now;
        e.unacknowledged += 1;
        e.unacknowledged_blocks += blocks;
        e.ack_at.get_or_insert(now + ACK_DELAY);
        self.acknowledge(frame.acknowledged, now);
        let Some(e) = self.established.as_mut() else {
            return false;
        };
        let ahead = frame.sequence.wrapping_sub(e.expected);
        if ahead < WINDOW as u32 {
            let after = frame.sequence.wrapping_add(1);
            if after.wrapping_sub(e.expected) > e.seen.wrapping_sub(e.expected) {
                e.seen = after;
            }
        }
        if mutant::is("lost-frames-are-skipped") && (1..WINDOW as u32).contains(&ahead) {
            e.advance(ahead);
            e.advance(1);
            return true;
        }
        match ahead {
            0 => {
                e.advance(1);
                e.incoming = incoming.unwrap_or(e.incoming);
            }
            1.. if (blocks == 0 || mutant::is("keep-without-the-payload")) && ahead < WINDOW as u32 => {
                e.held |= 1 << ahead
            }
            _ => self.dropped += 1,
        }
        ahead == 0 || mutant::is("execute-frames-twice") && ahead == u32::MAX
    }

    /// Whether `receive` would say that this frame is to be handled.
    pub fn is_next(&self, frame: &Sequenced) -> bool {
        let next = self.established.as_ref().map(|e| (e.incarnation, e.expected));
        next == Some((frame.incarnation, frame.sequence))
    }

    /// Whether frames that came too early are kept.
    pub fn holds_frames(&self) -> bool {
        self.established.as_ref().is_some_and(|e| e.held != 0)
    }

    /// The next frame in order, if it has come already: it is to be handled.
    pub fn next_held(&mut self) -> Option<u32> {
        let e = self.established.as_mut().filter(|e| e.held & 1 == 1)?;
        let sequence = e.expected;
        e.advance(1);
        Some(sequence)
    }

    /// An acknowledgement arrived, and what the partner misses.
    pub fn receive_ack(&mut self, incarnation: Incarnation, acknowledged: u32, missing: Missing, now: Time) {
        let Some(e) = self.established.as_mut().filter(|e| e.incarnation == incarnation) else {
            return;
        };
        e.heard = now;
        self.acknowledge(acknowledged, now);
        let Some(e) = self.established.as_mut().filter(|e| e.oldest == acknowledged) else {
            return;
        };
        // Of the frames that it must have passed over, those that it does not keep.
        for n in 0..missing.seen.wrapping_sub(acknowledged).min(e.in_flight()) {
            let flight = &mut self.flights[place(acknowledged.wrapping_add(n))];
            let lately = flight.again.is_some_and(|at| now.since(at) < AGAIN_AFTER);
            if missing.held >> n & 1 == 0 && !lately {
                flight.again = Some(now);
                e.wanted |= 1 << n;
            }
        }
    }

    /// Frames before `acknowledged` need not be kept; their requests are to hear of it.
    fn acknowledge(&mut self, acknowledged: u32, now: Time) {
        let Some(e) = &mut self.established else { return };
        // Sequence numbers wrap: what matters is the distance from the oldest in flight.
        let count = acknowledged.wrapping_sub(e.oldest);
        if count == 0 || count > e.in_flight() {
            return;
        }
        let too_many = count < e.in_flight() && mutant::is("one-frame-too-many-is-heard");
        let count = count + u32::from(too_many);
        for _ in 0..count {
            let at = place(e.oldest);
            self.acknowledged.extend(self.flights[at].mfcds.iter());
            e.blocks -= self.flights[at].blocks;
            empty(&mut self.sent[at], &mut self.flights[at]);
            e.oldest = e.oldest.wrapping_add(1);
        }
        e.wanted = e.wanted.checked_shr(count).unwrap_or(0);
        e.resends = 0;
        e.resend_at = (e.in_flight() > 0).then_some(now + self.retransmit);
    }

    /// A request whose message was handled by the partner, once each.
    pub fn next_acknowledged(&mut self) -> Option<Mfcd> {
        self.acknowledged.pop_front()
    }

    /// Something of this incarnation arrived. Returns whether it is of the present one.
    pub fn heard(&mut self, incarnation: Incarnation, now: Time) -> bool {
        match self.established.as_mut().filter(|e| e.incarnation == incarnation) {
            Some(e) => {
                e.heard = now;
                true
            }
            None => false,
        }
    }

    /// This controller was stopped for so long: that it heard nothing meanwhile says nothing of the partner, nor of one path
    /// rather than another.
    pub fn excuse(&mut self, stopped: Nanos, now: Time) {
        for path in self.paths.iter_mut().flatten() {
            path.opened_at = path.opened_at + stopped;
            path.answered_now(now);
        }
        if let Some(e) = &mut self.established {
            e.heard = e.heard + stopped;
        }
    }

    /// How long nothing was heard, though a connection is open.
    pub fn silence(&self, now: Time) -> Nanos {
        let opened = self.paths.iter().flatten().map(|p| p.opened_at).min();
        let heard = self.established.as_ref().map_or(opened, |e| Some(e.heard));
        heard.map_or(Nanos(0), |at| now.since(at))
    }

    /// A heartbeat that was sent on this connection at `sent` is answered. Returns whether it is of the present
    /// incarnation.
    pub fn answered(&mut self, connection: ConnectionId, incarnation: Incarnation, sent: Time, now: Time) -> bool {
        if !self.heard(incarnation, now) {
            return false;
        }
        if let Some(n) = self.path_of(connection)
            && let Some(path) = &mut self.paths[n]
        {
            path.answered_now(now);
            path.round_trip = Some(now.since(sent));
        }
        true
    }

    /// The present incarnation, or the last one.
    pub fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// The next heartbeat that is due, and where.
    pub fn beat(&mut self, every: Nanos, now: Time) -> Option<(ConnectionId, Frame)> {
        let incarnation = self.established.as_ref()?.incarnation;
        let due = |p: &&mut Path| p.is_mutual() && now.since(p.beat) >= every;
        let path = self.paths.iter_mut().flatten().find(due)?;
        path.beat = now;
        let sent = now;
        Some((path.connection, Frame::Heartbeat { incarnation, sent }))
    }

    /// Heartbeats are due now.
    pub fn beat_now(&mut self) {
        self.paths.iter_mut().flatten().for_each(|p| p.beat = Time(0));
    }

    /// Sends again what was not acknowledged in time, and what the partner misses.
    pub fn send_again(&mut self, now: Time, effects: &mut Vec<Effect>) {
        let (Some(connection), Some(e)) = (self.active(), self.established.as_mut()) else {
            return;
        };
        if e.resend_at.is_some_and(|at| at <= now) {
            e.wanted = u64::MAX;
            e.resends += 1;
            e.resend_at = Some(now + resend_after(self.retransmit, e.resends));
        }
        let wanted = std::mem::take(&mut e.wanted);
        if mutant::is("never-send-again") {
            return;
        }
        for n in (0..e.in_flight()).filter(|n| wanted >> n & 1 == 1) {
            let frame = e.frame(e.oldest.wrapping_add(n));
            effects.push(Effect::LinkSend { connection, frame });
            mark!("a frame is sent again");
            self.resent += 1;
        }
    }

    /// The next request, if there is room for its message: in the window, and, where it has data, before the next frame
    /// that has none.
    pub fn next_request(&self) -> Option<Mfcd> {
        let e = self.established.as_ref()?;
        let room = WINDOW as u32 - e.in_flight();
        if room == 0 {
            return None;
        }
        let data = || {
            let first = self.data.front();
            first.filter(|_| room > RESERVED && e.blocks < self.pace)
        };
        self.control.front().or_else(data).copied()
    }

    /// The message that `Mfcd::Prepared` stands for.
    fn next_prepared(&self) -> Option<&Mfc> {
        self.prepared.front()
    }

    /// Bytes that a message may take in the frame that is being built.
    pub fn room(&self) -> usize {
        let Some(e) = &self.established else { return 0 };
        let open = &self.sent[place(e.next)].mfcs;
        if open.is_full() {
            return 0;
        }
        FRAME_BYTES_MAX - FRAME_OVERHEAD - open.iter().map(Mfc::bytes).sum::<usize>()
    }

    /// Puts a message of the next request into the frame that is being built; `last`: it is its last one.
    pub fn put(&mut self, mfc: Mfc, payload: Option<Memory>, last: bool) {
        let Some(e) = &mut self.established else { return };
        let (messages, flight) = (&mut self.sent[place(e.next)], &mut self.flights[place(e.next)]);
        messages.mfcs.push(mfc);
        messages.payload = payload;
        self.messages += 1;
        flight.blocks = payload.map_or(0, |p| p.blocks());
        if last && let Some(mfcd) = self.take_request() {
            self.flights[place(self.established.as_ref().map_or(0, |e| e.next))]
                .mfcds
                .push(mfcd);
        }
    }

    /// The next request is done.
    pub fn take_request(&mut self) -> Option<Mfcd> {
        let mfcd = self.control.pop_front().or_else(|| self.data.pop_front())?;
        if mfcd == Mfcd::Prepared {
            self.prepared.pop_front();
        }
        Some(mfcd)
    }

    /// The frame that is being built leaves, if there is anything in it.
    pub fn end_frame(&mut self, now: Time, effects: &mut Vec<Effect>) {
        let (Some(connection), Some(e)) = (self.active(), self.established.as_mut()) else {
            return;
        };
        // With a full window the place is that of the oldest frame in flight: none is being built.
        if e.in_flight() >= WINDOW as u32 || self.sent[place(e.next)].mfcs.is_empty() {
            return;
        }
        let frame = e.frame(e.next);
        effects.push(Effect::LinkSend { connection, frame });
        e.blocks += self.flights[place(e.next)].blocks;
        e.next = e.next.wrapping_add(1);
        self.frames += 1;
        e.resend_at.get_or_insert(now + self.retransmit);
        e.has_acknowledged();
    }

    /// Acknowledges what had no frame to travel with, and says what is missing.
    pub fn send_acknowledgement(&mut self, now: Time, effects: &mut Vec<Effect>) {
        let (Some(connection), Some(e)) = (self.active(), self.established.as_mut()) else {
            return;
        };
        let gap = (e.seen != e.expected).then_some((e.expected, e.seen));
        if gap.is_some() {
            // What was sent again may be lost again: it is asked for until it is there.
            e.ack_at.get_or_insert(now + ACK_DELAY);
        }
        let due = e.unacknowledged >= ACK_AFTER
            || e.unacknowledged_blocks >= PACE_BLOCKS / 2
            || e.ack_at.is_some_and(|at| at <= now);
        if !due && (gap.is_none() || gap == e.missed) {
            return;
        }
        e.missed = gap;
        e.has_acknowledged();
        let frame = Frame::Ack {
            incarnation: e.incarnation,
            acknowledged: e.expected,
            missing: Missing {
                seen: e.seen,
                held: e.held,
            },
        };
        effects.push(Effect::LinkSend { connection, frame });
    }

    /// The frame that is sent next, the one that is received next, and whether nothing waits to be sent.
    pub fn position(&self) -> Option<Position> {
        let e = self.established.as_ref()?;
        Some(Position {
            incarnation: e.incarnation,
            next: e.next,
            expected: e.expected,
            is_empty: self.control.is_empty() && self.data.is_empty(),
        })
    }

    /// When `flush` or `beat` has something to do though nothing happens.
    pub fn next_deadline(&self, every: Nanos, silence: Nanos, now: Time) -> Option<Time> {
        let Some(e) = self.established.as_ref() else {
            let opened = self.paths.iter().flatten().map(|p| p.opened_at).min();
            return opened.map(|at| at + silence);
        };
        let mutual = self.paths.iter().flatten().filter(|p| p.is_mutual());
        let beat = mutual.map(|p| p.beat + every).min();
        let silent = Some(e.heard + silence);
        let spoils = self.spoils_at().filter(|at| *at > now);
        [e.resend_at, e.ack_at, beat, silent, spoils]
            .into_iter()
            .flatten()
            .min()
    }
}

/// How long after it was sent so often again a frame is sent once more.
fn resend_after(retransmit: Nanos, resends: u32) -> Nanos {
    Nanos(retransmit.0 << resends.min(4))
}

impl Established {
    /// How many frames are in flight.
    fn in_flight(&self) -> u32 {
        self.next.wrapping_sub(self.oldest)
    }

    /// So many frames, the next in order, have come.
    fn advance(&mut self, frames: u32) {
        self.expected = self.expected.wrapping_add(frames);
        self.held = self.held.checked_shr(frames).unwrap_or(0);
    }

    /// Whatever leaves now says what is acknowledged.
    fn has_acknowledged(&mut self) {
        self.unacknowledged = 0;
        self.unacknowledged_blocks = 0;
        self.ack_at = None;
    }

    /// The frame of this sequence number, with what is to be acknowledged now.
    fn frame(&self, sequence: u32) -> Frame {
        Frame::Messages(Sequenced {
            incarnation: self.incarnation,
            sequence,
            acknowledged: self.expected,
        })
    }
}

/// The place of a frame.
fn place(sequence: u32) -> usize {
    sequence as usize % WINDOW
}

/// A place of the window becomes free.
fn empty(messages: &mut Messages, flight: &mut Flight) {
    messages.mfcs.clear();
    messages.payload = None;
    flight.mfcds.clear();
    flight.blocks = 0;
    flight.again = None;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{Controller, Epoch, ProcessId};

    fn established() -> Link {
        let mut link = Link::new(Nanos::from_millis(200), 1024);
        let partner = Hello {
            controller: Controller::B,
            cell: Uuid(1),
            instance: Uuid(2),
            process: ProcessId::default(),
            incarnation: Incarnation(0),
            session: Incarnation(0),
            met: Uuid::NIL,
            epoch: Epoch(1),
            image: Uuid(3),
            undecided: false,
            buffers: 64,
        };
        link.opened(0, ConnectionId(1), Time(1));
        link.unsaid();
        let greeting = link.greet(ConnectionId(1), partner, Uuid(4), Time(1));
        assert_eq!(greeting, Greeting::Joined);
        link
    }

    #[test]
    fn messages_wait_for_what_is_about_to_happen_and_share_a_frame() {
        let mut link = established();
        link.send(Mfc::LevelEnd);
        assert!(!link.may_wait());
        link.expect_more(true);
        assert!(link.may_wait());
        (1..FRAME_MFCS_MAX).for_each(|_| link.send(Mfc::LevelEnd));
        assert!(!link.may_wait(), "the frame is full");
        link.control.clear();
        link.request(Mfcd::MirrorData {
            rie: crate::ids::RieIndex(0),
            generation: crate::ids::RieGeneration(0),
        });
        assert!(!link.may_wait(), "data take long: they do not wait");
    }

    /// The window is full to the last frame when the flush ends: the frame that comes next has the place of the oldest one
    /// in flight, which is not being built.
    #[test]
    fn a_window_that_is_just_full() {
        let (mut link, mut effects) = (established(), Vec::new());
        for _ in 0..2 * WINDOW {
            link.send(Mfc::LevelEnd);
        }
        while link.next_request().is_some() {
            link.put(Mfc::LevelEnd, None, true);
            link.end_frame(Time(2), &mut effects);
        }
        assert_eq!(effects.len(), WINDOW);
        link.end_frame(Time(2), &mut effects);
        assert_eq!(effects.len(), WINDOW, "no frame leaves beyond the window");
        link.send_again(Time(2) + Nanos::from_millis(500), &mut effects);
        assert_eq!(effects.len(), 2 * WINDOW);
    }

    /// However much data wait, what is on its way before a message without stays below the bound of pacing [0101], and such
    /// a message leaves all the same.
    #[test]
    fn data_before_a_message_without_are_bounded() {
        let (mut link, mut effects) = (established(), Vec::new());
        let payload = |blocks| Memory::Transfer {
            transfer: crate::ids::TransferIndex(0),
            first: 0,
            blocks,
        };
        let data = Mfcd::MirrorData {
            rie: crate::ids::RieIndex(0),
            generation: crate::ids::RieGeneration(0),
        };
        (0..WINDOW).for_each(|_| link.request(data));
        let largest = 264;
        let mut blocks = 0;
        // As near to the bound as can be, and then the largest frame.
        for size in [PACE_BLOCKS - 1, largest, largest] {
            if link.next_request() != Some(data) {
                break;
            }
            link.put(Mfc::LevelEnd, Some(payload(size as u16)), true);
            link.end_frame(Time(2), &mut effects);
            blocks += size;
        }
        assert_eq!(blocks, PACE_BLOCKS - 1 + largest, "what stands before it");
        assert_eq!(link.next_request(), None, "data wait");
        link.send(Mfc::LevelEnd);
        assert_eq!(link.next_request(), Some(Mfcd::Prepared));
    }
}
