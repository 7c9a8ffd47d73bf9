//! The queue of what happens next.

use super::World;
use super::shelf::Landing;
use crate::plan::Fault;
use twincell_core::Event;
use twincell_core::host::Status;
use twincell_core::ids::{CommandId, Controller};
use twincell_core::link::frame::Frame;
use twincell_core::memory::Memory;

pub(super) enum Happening {
    Start(Controller),
    Event(Controller, u32, Event),
    Tick(Controller, u32, u64),
    Resume(Controller, u32),
    Land(Landing),
    OpenLink,
    Frame {
        connection: u64,
        to: Controller,
        frame: Box<Frame>,
        payload: Vec<u64>,
    },
    NextCommand(usize),
    Arrive(u64),
    HostData {
        attempt: u64,
        process: u32,
        id: CommandId,
        offset: u32,
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

pub(super) struct Queued {
    pub(super) at: u64,
    pub(super) number: u64,
    pub(super) what: Happening,
}

impl PartialEq for Queued {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}
impl Eq for Queued {}
impl PartialOrd for Queued {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Queued {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (other.at, other.number).cmp(&(self.at, self.number))
    }
}

impl World {
    pub(super) fn after(&mut self, delay: u64, what: Happening) {
        self.number += 1;
        self.queue.push(Queued {
            at: self.now + delay,
            number: self.number,
            what,
        });
    }
}
