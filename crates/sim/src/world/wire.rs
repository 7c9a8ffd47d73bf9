//! The wire between the controllers.

use super::queue::Happening;
use super::{MS, US, World};
use twincell_core::Event;
use twincell_core::ids::{BlockCount, ConnectionId, Controller};
use twincell_core::link::frame::{Frame, Mfc};
use twincell_core::list::List;

/// The wire between the controllers.
#[derive(Default)]
pub(super) struct Wire {
    pub(super) connection: u64,
    pub(super) open: bool,
    pub(super) opening: bool,
    pub(super) cut: bool,
    pub(super) silent: bool,
    pub(super) lossy: bool,
    /// How much longer than usual each frame takes, in nanoseconds.
    pub(super) delay: u64,
    /// When the last frame in each direction arrives: order is kept unless the wire is lossy.
    pub(super) last: [u64; 2],
}

/// What arrives: a frame, its messages, and the tags of its payload.
#[derive(Clone)]
pub(super) struct Arrival {
    pub(super) frame: Frame,
    pub(super) mfcs: Vec<Mfc>,
    pub(super) payload: Vec<u64>,
}

impl World {
    pub(super) fn maybe_open_link(&mut self) {
        let both = self.processes.iter().all(Option::is_some);
        if both && !self.wire.open && !self.wire.opening && !self.wire.cut {
            self.wire.opening = true;
            let delay = self.random.between(100 * US, 50 * MS);
            self.after(delay, Happening::OpenLink);
        }
    }

    pub(super) fn open_link(&mut self) {
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

    pub(super) fn close_link(&mut self) {
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

    pub(super) fn link_send(&mut self, from: Controller, connection: ConnectionId, frame: Frame) {
        let mut arrival = Arrival {
            frame,
            mfcs: Vec::new(),
            payload: Vec::new(),
        };
        if let Frame::Messages(sequenced) = &frame {
            let process = self.processes[from.index()].as_ref().expect("it wants something");
            let messages = process.core.messages(sequenced).clone();
            arrival.mfcs = messages.mfcs.to_vec();
            arrival.payload = messages
                .payload
                .map_or(Vec::new(), |p| self.read_memory(from.index(), &p));
        }
        if !self.wire.open || self.wire.connection != connection.0 || self.wire.silent {
            return;
        }
        let to = from.other();
        let hello = matches!(frame, Frame::Hello(_));
        let copies = match self.random.below(10) {
            0 if self.wire.lossy && !hello => 0,
            1 if self.wire.lossy && !hello => 2,
            _ => 1,
        };
        for _ in 0..copies {
            let mut delay = self.wire.delay + self.random.between(15 * US, 120 * US);
            if self.wire.lossy && !hello {
                delay += self.random.below(2 * MS);
            } else {
                let at = (self.now + delay).max(self.wire.last[to.index()] + 1);
                self.wire.last[to.index()] = at;
                delay = at - self.now;
            }
            let (connection, arrival) = (connection.0, arrival.clone());
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

    pub(super) fn frame_arrives(&mut self, connection: u64, to: Controller, arrival: Arrival) {
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
                    arrival,
                },
            );
        }
        let connection = ConnectionId(connection);
        if let Frame::Messages(sequenced) = &arrival.frame
            && let Some(place) = process.core.place_of(connection, sequenced)
        {
            *place = List::from_slice(&arrival.mfcs);
        }
        let event = Event::LinkFrame {
            connection,
            frame: arrival.frame,
            payload: BlockCount(arrival.payload.len() as u32),
        };
        self.deliver_with(to, id, event, &arrival.mfcs, &arrival.payload);
    }
}
