//! What happened and was not yet told to the core: the data flow queue [0058].

use std::collections::VecDeque;
use std::ops::Range;
use twincell_core::event::Event;

/// Where messages and payload of a link frame are: in the input of a connection, or, of a large frame, the messages beside
/// it and the payload already where the core is going to want it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Body {
    /// The connection, as the link knows it.
    pub key: usize,
    /// Whether the payload is in place.
    pub in_place: bool,
    /// The bytes of the messages.
    pub messages: Range<usize>,
    /// Those of the payload; none if it is in place.
    pub payload: Range<usize>,
    /// The first CRC of the payload among those of the connection: one for each granule, or for each segment of its place.
    pub crcs: usize,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Happening {
    /// What the core is told.
    pub event: Event,
    /// What comes with a link frame.
    pub body: Option<Body>,
}

/// What happened, in order.
#[derive(Default)]
pub(crate) struct Queue(VecDeque<Happening>);

impl Queue {
    /// Appends an event.
    pub(crate) fn push(&mut self, event: Event) {
        self.0.push_back(Happening { event, body: None });
    }

    /// Appends a link frame.
    pub(crate) fn push_frame(&mut self, event: Event, body: Body) {
        let body = Some(body);
        self.0.push_back(Happening { event, body });
    }

    /// The oldest.
    pub(crate) fn pop(&mut self) -> Option<Happening> {
        self.0.pop_front()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }
}
