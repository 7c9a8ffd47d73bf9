//! The queue of what happens next.

use super::World;
use super::shelf::Landing;
use super::wire::Arrival;
use crate::fault::Fault;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use twincell_core::Event;
use twincell_core::host::Status;
use twincell_core::ids::{CommandId, Controller};
use twincell_core::memory::Memory;

#[derive(Clone)]
pub(super) enum Happening {
    Start(Controller),
    Event(Controller, u32, Event),
    Tick(Controller, u32, u64),
    Resume(Controller, u32),
    Land(Landing),
    /// A disk I/O, by its number, has taken long.
    Overdue(u64),
    OpenLine(usize),
    Frame {
        connection: u64,
        to: Controller,
        arrival: Arrival,
    },
    NextCommand(usize),
    Arrive(u64),
    HostData {
        attempt: u64,
        process: u32,
        id: CommandId,
        into: Memory,
    },
    Answer {
        attempt: u64,
        status: Status,
    },
    PathFails(u64),
    TimeOut(u64),
    Withdraw(u64),
    Fault(Fault),
    Heal(Fault),
}

/// What happens next, in order of time, and of the order in which it was put there.
#[derive(Clone, Default)]
pub(super) struct Queue {
    order: BinaryHeap<Reverse<(u64, u64, u32)>>,
    /// What happens, where the order says; it is large, and stays in its place.
    places: Vec<Option<Happening>>,
    free: Vec<u32>,
}

impl Queue {
    /// What comes `number`-th happens at `at`.
    fn push(&mut self, at: u64, number: u64, what: Happening) {
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
        self.order.push(Reverse((at, number, place)));
    }

    /// When the next thing happens.
    pub(super) fn next_at(&self) -> Option<u64> {
        self.order.peek().map(|next| next.0.0)
    }

    /// What happens next, and when.
    pub(super) fn pop(&mut self) -> Option<(u64, Happening)> {
        let Reverse((at, _, place)) = self.order.pop()?;
        self.free.push(place);
        let what = self.places[place as usize].take();
        Some((at, what.expect("every place in the order is taken")))
    }
}

impl World {
    pub(super) fn after(&mut self, delay: u64, what: Happening) {
        self.number += 1;
        self.queue.push(self.now + delay, self.number, what);
    }
}
