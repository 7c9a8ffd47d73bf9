//! What happened and was not yet told to the core: the data flow queue [0058].

use std::collections::VecDeque;
use std::ops::Range;
use twincell_core::event::Event;

/// Where the payload of a link frame is: in the input of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Payload {
    /// The connection, as the link knows it.
    pub key: usize,
    /// The bytes of its input.
    pub bytes: Range<usize>,
    /// The first of its CRCs there, one for each granule from the beginning of the payload.
    pub crcs: usize,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Happening {
    /// What the core is told.
    pub event: Event,
    /// What comes with a link frame.
    pub payload: Option<Payload>,
}

/// What happened, in order.
#[derive(Default)]
pub(crate) struct Queue(VecDeque<Happening>);

impl Queue {
    /// Appends an event.
    pub(crate) fn push(&mut self, event: Event) {
        self.0.push_back(Happening { event, payload: None });
    }

    /// Appends a link frame with payload.
    pub(crate) fn push_with_payload(&mut self, event: Event, payload: Option<Payload>) {
        self.0.push_back(Happening { event, payload });
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
