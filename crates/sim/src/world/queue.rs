//! The queue of what happens next.

use super::shelf::Landing;
use super::wire::Arrival;
use super::{MS, World};
use crate::fault::Fault;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use twincell_core::Event;
use twincell_core::host::Status;
use twincell_core::ids::{BlockCount, CommandId, Controller};
use twincell_core::manage::ManageOp;
use twincell_core::memory::Memory;

#[derive(Clone)]
pub(super) enum Happening {
    Start(Controller),
    Event(Controller, u32, Box<Event>),
    Tick(Controller, u32, u64),
    Resume(Controller, u32),
    Land(Box<Landing>),
    /// A disk I/O, by its number, has taken long.
    Overdue(u64),
    OpenLine(usize),
    /// The end of a connection arrives at a process.
    LineCloses(Controller, u32, u64),
    Frame {
        connection: u64,
        to: Controller,
        arrival: Box<Arrival>,
    },
    NextCommand(usize),
    Arrive(u64),
    HostData {
        attempt: u64,
        process: u32,
        id: CommandId,
        offset: BlockCount,
        into: Box<Memory>,
    },
    Answer {
        attempt: u64,
        status: Status,
    },
    PathFails(u64),
    TimeOut(u64),
    Withdraw(u64),
    /// An operator asks again.
    Ask(Box<ManageOp>),
    Fault(Fault),
    Heal(Fault),
}

// Most are hosts that try again, and each is moved several times: what is large is kept elsewhere.
const _: () = assert!(size_of::<Happening>() <= 40);

/// When, in which order among what happens at the same time, and the place where it says what.
type Order = BinaryHeap<Reverse<(u64, u64, u32)>>;

/// What is put there so long before it happens is kept apart, so that the next thing is found among few.
const FAR: u64 = 100 * MS;

/// What happens next, in order of time, and of the order in which it was put there.
#[derive(Clone, Default)]
pub(super) struct Queue {
    order: Order,
    /// The same, of what was put there long before it happens: mostly the patience of hosts, which rarely ends.
    far: Order,
    /// What happens, where the order says.
    places: Vec<Option<Happening>>,
    free: Vec<u32>,
}

impl Queue {
    /// What comes `number`-th happens at `at`.
    fn push(&mut self, now: u64, at: u64, number: u64, what: Happening) {
        let place = match self.free.pop() {
            Some(place) => {
                self.places[place as usize] = Some(what);
                place
            }
            None => {
                self.places.push(Some(what));
                self.places.len() as u32 - 1
            }
        };
        let order = if at - now < FAR { &mut self.order } else { &mut self.far };
        order.push(Reverse((at, number, place)));
    }

    /// When the next thing happens.
    pub(super) fn next_at(&mut self) -> Option<u64> {
        self.next_order().peek().map(|next| next.0.0)
    }

    /// Where the next thing is: the earliest is the greatest of `Reverse`, and nothing is less than anything.
    fn next_order(&mut self) -> &mut Order {
        if self.far.peek() > self.order.peek() {
            &mut self.far
        } else {
            &mut self.order
        }
    }

    /// What happens next, and when.
    pub(super) fn pop(&mut self) -> Option<(u64, Happening)> {
        let Reverse((at, _, place)) = self.next_order().pop()?;
        self.free.push(place);
        let what = self.places[place as usize].take();
        Some((at, what.expect("every place in the order is taken")))
    }
}

impl World {
    pub(super) fn after(&mut self, delay: u64, what: Happening) {
        self.number += 1;
        self.queue.push(self.now, self.now + delay, self.number, what);
    }
}
