//! The wire between the controllers.

use super::queue::Happening;
use super::{MS, US, World};
use twincell_core::Event;
use twincell_core::ids::{BlockCount, ConnectionId, Controller};
use twincell_core::link::frame::Frame;

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

    pub(super) fn link_send(&mut self, from: Controller, connection: ConnectionId, frame: Box<Frame>) {
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
            let mut delay = self.wire.delay + self.random.between(15 * US, 120 * US);
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

    pub(super) fn frame_arrives(&mut self, connection: u64, to: Controller, frame: Box<Frame>, payload: Vec<u64>) {
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
        self.deliver_with(to, id, event, &payload);
    }
}
