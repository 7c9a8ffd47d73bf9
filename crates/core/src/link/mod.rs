//! The link between the controllers (DESIGN section 7): messages exactly once and in order within one incarnation.

#[cfg(feature = "model")]
mod canonical;
pub mod frame;

use crate::effect::Effect;
use crate::ids::{ConnectionId, Incarnation, Nanos, Time};
use crate::memory::Memory;
use crate::mutant;
use frame::{FRAME_BYTES_MAX, Frame, Hello, Messages, Mfc, Mfcs, Sequenced};
use std::collections::VecDeque;

/// Most frames in flight. Limiting them also encourages that messages share a frame [0063].
pub const WINDOW: usize = if cfg!(feature = "model") { 8 } else { 64 };
/// Frames that arrive before an acknowledgement of its own is sent for them.
const ACK_AFTER: u32 = 8;
/// How long an acknowledgement waits for a frame to travel with.
const ACK_DELAY: Nanos = Nanos::from_millis(20);
/// Bytes of a frame that are not messages.
const FRAME_OVERHEAD: usize = 64;

/// A message that waits for a frame, with the payload that belongs to it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Waiting {
    mfc: Mfc,
    payload: Option<Memory>,
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
    /// Frames that were received and not yet acknowledged.
    unacknowledged: u32,
    ack_at: Option<Time>,
    resend_at: Option<Time>,
    resends: u32,
    /// Messages that were requested, and of them those that the partner has handled.
    requested: u64,
    handled: u64,
    choked: bool,
    /// When the last heartbeat was sent, and when anything was last heard.
    beat: Time,
    heard: Time,
}

/// The link.
#[derive(Clone, PartialEq, Eq)]
#[cfg_attr(not(feature = "model"), derive(Hash))]
pub struct Link {
    connection: Option<ConnectionId>,
    opened_at: Time,
    established: Option<Established>,
    partner: Option<Hello>,
    /// Frames in flight, and frames that have arrived: that of sequence number s in place s modulo the window. Both ends
    /// know these places from the establishment on, and use them round-robin [0056].
    sent: Vec<Messages>,
    arrived: Vec<Mfcs>,
    waiting: VecDeque<Waiting>,
    waiting_max: usize,
    incarnation: Incarnation,
    /// What both go by when they agree on the next one: the last before this connection.
    last_incarnation: Incarnation,
    retransmit: Nanos,
    /// Frames that were sent again, since the start.
    pub resent: u64,
}

impl Link {
    /// No connection. A frame that is not acknowledged within `retransmit` is sent again. At most `waiting` messages wait
    /// for a frame. The only allocations that it ever makes.
    pub fn new(retransmit: Nanos, waiting: usize) -> Link {
        Link {
            retransmit,
            sent: vec![Messages::default(); WINDOW],
            arrived: vec![Mfcs::new(); WINDOW],
            waiting: VecDeque::with_capacity(waiting),
            waiting_max: waiting,
            connection: None,
            opened_at: Time(0),
            established: None,
            partner: None,
            incarnation: Incarnation(0),
            last_incarnation: Incarnation(0),
            resent: 0,
        }
    }

    /// The last incarnation before the present connection: what a hello says.
    pub fn last_incarnation(&self) -> Incarnation {
        self.last_incarnation
    }

    /// The open connection.
    pub fn connection(&self) -> Option<ConnectionId> {
        self.connection
    }

    /// What the partner said of itself on this connection.
    pub fn partner(&self) -> Option<&Hello> {
        self.partner.as_ref()
    }

    /// Whether messages can be sent.
    pub fn is_up(&self) -> bool {
        self.established.is_some()
    }

    /// A connection is open. The caller says hello.
    pub fn opened(&mut self, connection: ConnectionId, now: Time) {
        self.connection = Some(connection);
        self.last_incarnation = self.incarnation;
        self.opened_at = now;
        self.forget();
    }

    /// The connection is over, and with it everything that was in flight on it.
    pub fn closed(&mut self) {
        self.connection = None;
        self.forget();
    }

    fn forget(&mut self) {
        self.established = None;
        self.partner = None;
        self.waiting.clear();
    }

    /// The partner said hello: a new incarnation begins.
    pub fn establish(&mut self, partner: Hello, now: Time) {
        self.incarnation = Incarnation(self.last_incarnation.0.max(partner.incarnation.0).saturating_add(1));
        self.partner = Some(partner);
        self.established = Some(Established {
            incarnation: self.incarnation,
            oldest: 0,
            next: 0,
            expected: 0,
            unacknowledged: 0,
            ack_at: None,
            resend_at: None,
            resends: 0,
            requested: 0,
            handled: 0,
            choked: false,
            beat: now,
            heard: now,
        });
    }

    /// Requests that a message be sent, in order after all that were requested before; dropped while the link is down.
    pub fn send(&mut self, mfc: Mfc, payload: Option<Memory>) {
        if let Some(established) = &mut self.established {
            established.requested += 1;
            if self.waiting.len() < self.waiting_max {
                self.waiting.push_back(Waiting { mfc, payload });
            } else {
                established.choked = true;
            }
        }
    }

    /// Whether there is room for what begins now. The other half is for what has begun.
    pub fn has_room(&self) -> bool {
        self.waiting.len() < self.waiting_max / 2
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

    /// A frame of messages arrived: they are to be handled, if it is the next in order; otherwise nothing.
    pub fn receive(&mut self, frame: &Sequenced, now: Time) -> bool {
        let Some(e) = self.established.as_mut().filter(|e| e.incarnation == frame.incarnation) else {
            return false;
        };
        e.heard = now;
        acknowledge(e, &mut self.sent, frame.acknowledged, now + self.retransmit);
        e.unacknowledged += 1;
        e.ack_at.get_or_insert(now + ACK_DELAY);
        if mutant::is("lost-frames-are-skipped") && frame.sequence > e.expected {
            e.expected = frame.sequence;
        }
        if frame.sequence != e.expected {
            return mutant::is("execute-frames-twice") && e.expected.wrapping_sub(frame.sequence) == 1;
        }
        e.expected = e.expected.wrapping_add(1);
        true
    }

    /// Whether `receive` would say that this frame is to be handled.
    pub fn is_next(&self, frame: &Sequenced) -> bool {
        let next = self.established.as_ref().map(|e| (e.incarnation, e.expected));
        next == Some((frame.incarnation, frame.sequence))
    }

    /// An acknowledgement arrived.
    pub fn receive_ack(&mut self, incarnation: Incarnation, acknowledged: u32, now: Time) {
        if let Some(e) = self.established.as_mut().filter(|e| e.incarnation == incarnation) {
            e.heard = now;
            acknowledge(e, &mut self.sent, acknowledged, now + self.retransmit);
        }
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

    /// This controller was stopped for a while: silence until now says nothing of the partner.
    pub fn excuse_silence(&mut self, now: Time) {
        self.opened_at = now;
        if let Some(e) = &mut self.established {
            e.heard = now;
        }
    }

    /// How long nothing was heard on a connection that is open.
    pub fn silence(&self, now: Time) -> Nanos {
        let heard = self.established.as_ref().map_or(self.opened_at, |e| e.heard);
        self.connection.map_or(Nanos(0), |_| now.since(heard))
    }

    /// The present incarnation, or the last one.
    pub fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// How many messages were requested in this incarnation.
    pub fn position(&self) -> (Incarnation, u64) {
        (self.incarnation, self.established.as_ref().map_or(0, |e| e.requested))
    }

    /// Whether the partner has handled the first `requested` messages of `incarnation`. True also where that incarnation
    /// is over: nothing of it arrives any more.
    pub fn has_heard(&self, incarnation: Incarnation, requested: u64) -> bool {
        let heard = |e: &Established| e.incarnation != incarnation || e.handled >= requested;
        self.established.as_ref().is_none_or(heard)
    }

    /// A heartbeat, if one is due.
    pub fn beat(&mut self, every: Nanos, now: Time) -> Option<Frame> {
        let e = self.established.as_mut()?;
        if now.since(e.beat) < every {
            return None;
        }
        e.beat = now;
        Some(Frame::Heartbeat {
            incarnation: e.incarnation,
            sent: now,
        })
    }

    /// A heartbeat is due now.
    pub fn beat_now(&mut self) {
        if let Some(e) = &mut self.established {
            e.beat = Time(0);
        }
    }

    /// Builds frames from what waits while the window has room, sends again what was not acknowledged in time, and
    /// acknowledges what had no frame to travel with.
    pub fn flush(&mut self, now: Time, effects: &mut Vec<Effect>) {
        let (Some(connection), Some(e)) = (self.connection, self.established.as_mut()) else {
            return;
        };
        let mut send = |frame| effects.push(Effect::LinkSend { connection, frame });
        if e.resend_at.is_some_and(|at| at <= now) && !mutant::is("never-send-again") {
            for n in 0..e.in_flight() {
                send(e.frame(e.oldest.wrapping_add(n)));
            }
            self.resent += u64::from(e.in_flight());
            e.resends += 1;
            e.resend_at = Some(now + Nanos(self.retransmit.0 << e.resends.min(4)));
        }
        while !self.waiting.is_empty() && e.in_flight() < WINDOW as u32 {
            build(&mut self.waiting, &mut self.sent[place(e.next)]);
            send(e.frame(e.next));
            e.next = e.next.wrapping_add(1);
            e.resend_at.get_or_insert(now + self.retransmit);
            e.unacknowledged = 0;
            e.ack_at = None;
        }
        if e.unacknowledged >= ACK_AFTER || e.ack_at.is_some_and(|at| at <= now) {
            e.unacknowledged = 0;
            e.ack_at = None;
            send(Frame::Ack {
                incarnation: e.incarnation,
                acknowledged: e.expected,
            });
        }
    }

    /// When `flush` or `beat` has something to do though nothing happens.
    pub fn next_deadline(&self, every: Nanos, silence: Nanos) -> Option<Time> {
        let Some(e) = self.established.as_ref() else {
            return self.connection.map(|_| self.opened_at + silence);
        };
        [e.resend_at, e.ack_at, Some(e.beat + every)]
            .into_iter()
            .flatten()
            .min()
    }
}

impl Established {
    /// How many frames are in flight.
    fn in_flight(&self) -> u32 {
        self.next.wrapping_sub(self.oldest)
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

/// Frames before `acknowledged` need not be kept; the others are sent again at `again`.
fn acknowledge(e: &mut Established, sent: &mut [Messages], acknowledged: u32, again: Time) {
    // Sequence numbers wrap: what matters is the distance from the oldest in flight.
    let count = acknowledged.wrapping_sub(e.oldest);
    if count == 0 || count > e.in_flight() {
        return;
    }
    let too_many = count < e.in_flight() && mutant::is("one-frame-too-many-is-heard");
    let count = count + u32::from(too_many);
    for _ in 0..count {
        let place = &mut sent[place(e.oldest)];
        e.handled += place.mfcs.len() as u64;
        place.mfcs.clear();
        place.payload = None;
        e.oldest = e.oldest.wrapping_add(1);
    }
    e.resends = 0;
    e.resend_at = (e.in_flight() > 0).then_some(again);
}

/// The next frame: as many messages as fit, and at most one payload, which belongs to the last of them.
fn build(waiting: &mut VecDeque<Waiting>, into: &mut Messages) {
    into.mfcs.clear();
    into.payload = None;
    let mut room = FRAME_BYTES_MAX - FRAME_OVERHEAD;
    while let Some(next) = waiting.front() {
        let bytes = next.mfc.bytes();
        if bytes > room || into.mfcs.is_full() {
            break;
        }
        room -= bytes;
        into.mfcs.push(next.mfc);
        into.payload = next.payload;
        waiting.pop_front();
        if into.payload.is_some() {
            break;
        }
    }
    assert!(!into.mfcs.is_empty(), "a message larger than a frame");
}
