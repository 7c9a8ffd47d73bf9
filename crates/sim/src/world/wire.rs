//! The wire between the controllers.

use super::queue::Happening;
use super::{MS, US, World};
use crate::frame_order::FrameOrder;
use std::collections::BTreeMap;
use twincell_core::Event;
use twincell_core::ids::{BlockCount, ConnectionId, Controller, Epoch, Incarnation};
use twincell_core::link::frame::{Frame, Mfc};
use twincell_core::list::List;

/// What happens to the next frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Next {
    /// Nothing.
    #[default]
    Arrives,
    IsLost,
    ComesTwice,
    IsGarbled,
}

/// How long B waits at least after a connection that was over at once.
const DIAL_AGAIN: u64 = 50 * MS;

/// One path of the wire.
#[derive(Clone, Copy, Default)]
pub(super) struct Line {
    connection: u64,
    open: bool,
    opening: bool,
    /// When it was opened last.
    opened_at: Option<u64>,
    pub(super) cut: bool,
    /// A has heard of the connection: whoever connects to it is a stranger until it has said hello.
    met: bool,
    /// What is sent to this controller is lost.
    pub(super) deaf: [bool; 2],
    /// Frames with data do not arrive whole.
    pub(super) spoils: bool,
    /// When the last frame in each direction arrives: order is kept unless the wire is lossy.
    last: [u64; 2],
}

/// A connection that its other end has ended: what was sent on it before arrives at this process, and then the end.
#[derive(Clone, Copy)]
struct Drain {
    connection: u64,
    line: usize,
    to: Controller,
    process: u32,
    /// See `Line::met`.
    met: bool,
}

/// The wire between the controllers: one path or two.
#[derive(Clone, Default)]
pub(super) struct Wire {
    pub(super) lines: Vec<Line>,
    connections: u64,
    pub(super) lossy: bool,
    /// Some frames have a flipped bit.
    pub(super) garbled: bool,
    /// What happens to the next frame to each controller.
    pub(super) next: [Next; 2],
    /// Every so many frame with messages is lost; and how many were sent.
    pub(super) loses_every: u64,
    frames: u64,
    /// How much longer than usual each frame takes, in nanoseconds.
    pub(super) delay: u64,
    /// Frames that are under way, and when one was last lost or late.
    under_way: usize,
    pub(super) troubled_at: u64,
    /// What was sent on connections that are over, and is still to arrive.
    draining: Vec<Drain>,
    /// The order of the frames of each incarnation, since no connection was open.
    orders: BTreeMap<Incarnation, FrameOrder>,
}

impl Wire {
    /// A wire of so many paths.
    pub(super) fn new(paths: usize) -> Wire {
        Wire {
            lines: vec![Line::default(); paths],
            ..Wire::default()
        }
    }

    /// Whether what is sent arrives.
    pub(super) fn is_sound(&self) -> bool {
        let sound = |l: &Line| l.open && l.deaf == [false; 2] && !l.spoils;
        self.lines.iter().all(sound) && !self.garbled && self.next == [Next::Arrives; 2]
    }

    /// Makes every path deaf in this direction, or heals it.
    pub(super) fn set_deaf(&mut self, c: Controller, deaf: bool) {
        self.lines.iter_mut().for_each(|l| l.deaf[c.index()] = deaf);
    }

    fn line_of(&self, connection: u64) -> Option<usize> {
        self.lines.iter().position(|l| l.open && l.connection == connection)
    }

    /// What still arrives at this controller on a connection that is over.
    fn drain_of(&mut self, connection: u64, to: Controller) -> Option<&mut Drain> {
        let is = |d: &&mut Drain| d.connection == connection && d.to == to;
        self.draining.iter_mut().find(is)
    }

    /// Whether what is sent on a connection still arrives at this controller.
    fn reaches(&self, connection: u64, to: Controller) -> bool {
        let drains = |d: &Drain| d.connection == connection && d.to == to;
        self.line_of(connection).is_some() || self.draining.iter().any(drains)
    }

    /// Nothing more arrives there.
    fn end_drain(&mut self, connection: u64, to: Controller) {
        self.draining.retain(|d| d.connection != connection || d.to != to);
    }

    /// Nothing arrives at a process that is gone.
    pub(super) fn process_is_gone(&mut self, c: Controller) {
        self.draining.retain(|d| d.to != c);
    }

    /// Whether A hears of a connection for the first time.
    fn meets(&mut self, connection: u64, line: usize) -> bool {
        let drain = self.drain_of(connection, Controller::A).map(|d| &mut d.met);
        let met = match drain {
            Some(met) => met,
            None => &mut self.lines[line].met,
        };
        !std::mem::replace(met, true)
    }

    /// B connects once it knows that the last connection is over.
    fn is_awaited_by_b(&self, line: usize) -> bool {
        self.draining.iter().any(|d| d.line == line && d.to == Controller::B)
    }

    /// Whether this frame is one of those that are lost.
    fn loses(&mut self, frame: &Frame) -> bool {
        let counts = self.loses_every > 0 && matches!(frame, Frame::Messages(_));
        self.frames += u64::from(counts);
        counts && self.frames.is_multiple_of(self.loses_every)
    }

    /// Whether everything has arrived for so long.
    pub(super) fn is_sound_for(&self, now: u64, time: u64) -> bool {
        self.is_sound() && !self.lossy && now > self.troubled_at + time
    }

    /// All faults are over; what is open stays open.
    pub(super) fn heal(&mut self) {
        for line in &mut self.lines {
            line.cut = false;
            line.deaf = [false; 2];
            line.spoils = false;
        }
        self.lossy = false;
        self.garbled = false;
        self.next = [Next::Arrives; 2];
        self.delay = 0;
    }
}

fn incarnation_of(frame: &Frame) -> Option<Incarnation> {
    match frame {
        Frame::Messages(sequenced) => Some(sequenced.incarnation),
        Frame::Ack { incarnation, .. } => Some(*incarnation),
        _ => None,
    }
}

/// What arrives: a frame, its messages, and the tags of its payload.
#[derive(Clone)]
pub(super) struct Arrival {
    /// The process that has sent it.
    pub(super) process: u32,
    pub(super) frame: Frame,
    pub(super) mfcs: Vec<Mfc>,
    pub(super) payload: Vec<u64>,
    /// It has a flipped bit.
    pub(super) garbled: bool,
}

impl World {
    pub(super) fn maybe_open_link(&mut self) {
        let both = self.processes.iter().all(Option::is_some);
        for n in 0..self.wire.lines.len() {
            let awaited = self.wire.is_awaited_by_b(n);
            let line = &mut self.wire.lines[n];
            if both && !line.open && !line.opening && !line.cut && !awaited {
                line.opening = true;
                // What ends at once is not tried again at once.
                let is_over_at_once = line.opened_at.is_some_and(|at| self.now < at + DIAL_AGAIN);
                let delay = self.random.between(100 * US, 50 * MS) + u64::from(is_over_at_once) * DIAL_AGAIN;
                self.after(delay, Happening::OpenLine(n));
            }
        }
    }

    pub(super) fn open_line(&mut self, n: usize) {
        let line = &mut self.wire.lines[n];
        line.opening = false;
        if line.open || line.cut || self.processes.iter().any(Option::is_none) {
            return self.maybe_open_link();
        }
        // Who has not heard yet that the last line broke goes on with its incarnation on this one.
        let goes_on = self.processes.iter().flatten().any(|p| p.core.cell_view().linked);
        if self.wire.lines.iter().all(|l| !l.open) && !goes_on {
            self.wire.orders.clear();
        }
        self.wire.connections += 1;
        let line = &mut self.wire.lines[n];
        (line.open, line.met, line.opened_at) = (true, false, Some(self.now));
        line.connection = self.wire.connections;
        let (path, connection) = (n as u8, ConnectionId(line.connection));
        let delay = self.random.between(20 * US, 500 * US);
        self.wire.lines[n].last = [self.now + delay; 2];
        // B connects.
        let id = self.processes[1].as_ref().expect("looked at").id;
        let event = Event::LinkOpened { path, connection };
        self.after(delay, Happening::Event(Controller::B, id, Box::new(event)));
    }

    /// Cuts every path, or lets them open again.
    pub(super) fn cut_link(&mut self, cut: bool) {
        self.wire.lines.iter_mut().for_each(|l| l.cut = cut);
        if cut {
            self.close_link(None);
        }
    }

    /// Closes every path; `by`: see `close_line`.
    pub(super) fn close_link(&mut self, by: Option<Controller>) {
        for n in 0..self.wire.lines.len() {
            self.close_line(n, by);
        }
    }

    /// A controller closes the path with this connection.
    pub(super) fn close_connection(&mut self, connection: ConnectionId, by: Controller) {
        self.wire.end_drain(connection.0, by);
        if let Some(n) = self.wire.line_of(connection.0) {
            self.close_line(n, Some(by));
        }
    }

    /// Closes a path. If `by` has ended it, what it had sent may still arrive before the end does; if the wire is cut, what is
    /// under way is lost.
    pub(super) fn close_line(&mut self, n: usize, by: Option<Controller>) {
        let line = &mut self.wire.lines[n];
        if !std::mem::take(&mut line.open) {
            return;
        }
        let (connection, met) = (line.connection, line.met);
        for to in Controller::BOTH {
            let Some(process) = self.processes[to.index()].as_ref().map(|p| p.id) else {
                continue;
            };
            if self.plan.drains && by == Some(to.other()) {
                self.wire.draining.push(Drain {
                    connection,
                    line: n,
                    to,
                    process,
                    met,
                });
            }
            let delay = self.random.between(20 * US, 3 * MS);
            let last = self.wire.lines[n].last[to.index()];
            let at = (self.now + delay).max(last + 1);
            self.after(at - self.now, Happening::LineCloses(to, process, connection));
        }
        self.maybe_open_link();
    }

    /// The end of a connection arrives, after all that was sent on it: a process that is stopped finds that first.
    pub(super) fn line_closes(&mut self, to: Controller, process: u32, connection: u64) {
        let until = self.process(to, process).map_or(0, |p| p.paused_until);
        let drains = self.wire.drain_of(connection, to).is_some();
        if drains && until > self.now {
            let delay = until - self.now + 2;
            return self.after(delay, Happening::LineCloses(to, process, connection));
        }
        self.wire.end_drain(connection, to);
        let connection = ConnectionId(connection);
        self.deliver(to, process, Event::LinkClosed { connection });
        // B may have waited for it, or have closed the connection meanwhile.
        if self.plan.drains {
            self.maybe_open_link();
        }
    }

    /// The oracle: a hello is the first frame on a connection, in both directions.
    fn check_hello(&mut self, from: Controller, connection: u64, frame: &Frame) {
        let process = self.processes[from.index()].as_mut().expect("it wants something");
        if matches!(frame, Frame::Hello(_)) {
            process.greeted.insert(connection);
        } else if !process.greeted.contains(&connection) {
            self.fail(format!("{from} sends on a connection on which it has not said hello"));
        }
    }

    pub(super) fn link_send(&mut self, from: Controller, connection: ConnectionId, frame: Frame) {
        let mut arrival = Arrival {
            process: self.processes[from.index()].as_ref().expect("it wants something").id,
            frame,
            mfcs: Vec::new(),
            payload: Vec::new(),
            garbled: false,
        };
        if let Frame::Messages(sequenced) = &frame {
            let process = self.processes[from.index()].as_ref().expect("it wants something");
            let messages = process.core.messages(sequenced).clone();
            arrival.mfcs = messages.mfcs.to_vec();
            arrival.payload = messages
                .payload
                .map_or(Vec::new(), |p| self.read_memory(from.index(), &p));
        }
        let Some(line) = self.wire.line_of(connection.0) else {
            return;
        };
        self.check_hello(from, connection.0, &frame);
        self.check_grant(from, &frame);
        self.check_frame(from, &arrival);
        self.check_mda(from, &arrival.mfcs);
        let to = from.other();
        let fate = self.fate(line, to, &arrival);
        if fate != Next::Arrives || self.wire.lossy {
            self.wire.troubled_at = self.now;
        }
        let copies = match fate {
            Next::Arrives => 1,
            Next::ComesTwice => 2,
            Next::IsLost => 0,
            Next::IsGarbled => {
                arrival.garbled = true;
                1
            }
        };
        for _ in 0..copies {
            let delay = self.travel_time(line, to, &arrival.frame);
            self.wire.under_way += 1;
            let (connection, arrival) = (connection.0, Box::new(arrival.clone()));
            self.after(
                delay,
                Happening::Frame {
                    connection,
                    to,
                    arrival,
                },
            );
        }
    }

    fn check_frame(&mut self, from: Controller, arrival: &Arrival) {
        if let Some(incarnation) = incarnation_of(&arrival.frame) {
            let order = self.wire.orders.entry(incarnation).or_default();
            match order.send(from.index(), &arrival.frame, &arrival.mfcs, &arrival.payload) {
                Ok(true) => self.check_owner(from, &arrival.mfcs),
                Ok(false) => {}
                Err(what) => self.fail(format!("{from}: {what}")),
            }
        }
    }

    /// Under one record one controller writes to a LUN as its owner.
    fn check_owner(&mut self, from: Controller, mfcs: &[Mfc]) {
        for mfc in mfcs {
            let Mfc::Rqr(rqr) = mfc else { continue };
            let process = self.processes[from.index()].as_ref().expect("it wants something");
            let epoch = process.core.cell_view().record.map_or(Epoch(0), |r| r.epoch);
            let owner = *self.owners.entry((epoch, rqr.noid)).or_insert(from);
            if owner != from {
                self.fail(format!(
                    "both controllers write to {:?} as its owners under {epoch:?}",
                    rqr.noid
                ));
            }
        }
    }

    /// What becomes of a frame. Whoever says hello has a connection that works at this moment.
    fn fate(&mut self, line: usize, to: Controller, arrival: &Arrival) -> Next {
        let frame = &arrival.frame;
        match self.random.below(10) {
            _ if self.wire.lines[line].deaf[to.index()] => Next::IsLost,
            // Its header is sound: it is dropped, and the connection goes on.
            _ if self.wire.lines[line].spoils && !arrival.payload.is_empty() => Next::IsLost,
            _ if self.wire.loses(frame) => Next::IsLost,
            _ if matches!(frame, Frame::Hello(_)) => Next::Arrives,
            0 if self.wire.lossy => Next::IsLost,
            1 if self.wire.lossy => Next::ComesTwice,
            2 if self.wire.garbled => Next::IsGarbled,
            _ => std::mem::take(&mut self.wire.next[to.index()]),
        }
    }

    fn travel_time(&mut self, line: usize, to: Controller, frame: &Frame) -> u64 {
        let delay = self.wire.delay
            + self.plan.slow.frames
            + self.plan.slow_paths[line]
            + self.random.between(15 * US, 120 * US);
        if self.wire.lossy && !matches!(frame, Frame::Hello(_)) {
            return delay + self.random.below(2 * MS);
        }
        let last = &mut self.wire.lines[line].last[to.index()];
        let at = (self.now + delay).max(*last + 1);
        *last = at;
        at - self.now
    }

    pub(super) fn frame_arrives(&mut self, connection: u64, to: Controller, arrival: Box<Arrival>) {
        let process = self.processes[to.index()].as_ref();
        let (id, until) = process.map_or((0, 0), |p| (p.id, p.paused_until));
        let drain = self.wire.drain_of(connection, to).filter(|d| d.process == id);
        let line = drain.map(|d| d.line).or_else(|| self.wire.line_of(connection));
        if line.is_some() && until > self.now {
            // The bytes wait in the socket.
            let delay = until - self.now + 1;
            return self.after(
                delay,
                Happening::Frame {
                    connection,
                    to,
                    arrival,
                },
            );
        }
        self.wire.under_way -= 1;
        let Some(line) = line.filter(|l| !self.wire.lines[*l].deaf[to.index()]) else {
            return;
        };
        if self.processes[to.index()].is_none() {
            return;
        }
        if arrival.garbled {
            // Where its header is damaged nobody knows where the next frame begins; else only this one is dropped.
            let header = self.random.below(4) == 0;
            self.log(|| format!("{to}: a garbled {}", if header { "header" } else { "frame" }));
            if header {
                self.close_connection(ConnectionId(connection), to);
            }
            return;
        }
        let order = incarnation_of(&arrival.frame).and_then(|i| self.wire.orders.get_mut(&i));
        if let Some(order) = order {
            order.arrive(to.other().index(), &arrival.frame);
        }
        let is_hello = matches!(arrival.frame, Frame::Hello(_));
        let stranger = to == Controller::A && is_hello && self.wire.meets(connection, line);
        if stranger {
            let (path, connection) = (line as u8, ConnectionId(connection));
            self.deliver(to, id, Event::LinkOpened { path, connection });
        }
        // Who has refused a connection reads nothing of it.
        let process = self.processes[to.index()].as_mut();
        let Some(process) = process.filter(|_| self.wire.reaches(connection, to)) else {
            return;
        };
        let connection = ConnectionId(connection);
        if let Frame::Messages(sequenced) = &arrival.frame
            && let Some(place) = process.core.place_of(connection, sequenced)
        {
            *place = List::from_slice(&arrival.mfcs);
            process.partner = arrival.process;
        }
        process.licence.hears(arrival.process, &arrival.frame);
        let event = Event::LinkFrame {
            connection,
            frame: arrival.frame,
            payload: BlockCount(arrival.payload.len() as u32),
        };
        self.deliver_with(to, id, event, &arrival.mfcs, &arrival.payload);
    }
}
