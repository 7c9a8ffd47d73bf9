//! Task management and logout (RFC 7143, 11.5, 11.6, 11.14, 11.15)

use super::pdu::{FINAL, Header, Reason, opcode};
use super::session::{COMMAND_WINDOW, IscsiSession};
use super::task::{State, Task};
use crate::scsi::{device, lun};
use crate::session::{Outside, Tag};
use twincell_core::ids::NcaeIndex;

/// Requests of a session that wait for tasks to end; more are refused. It is one for each command of the window, so an initiator may
/// abort all of them one by one.
const DRAINS_MAX: usize = COMMAND_WINDOW as usize;

/// Task management functions.
mod function {
    pub const ABORT_TASK: u8 = 1;
    pub const ABORT_TASK_SET: u8 = 2;
    pub const CLEAR_TASK_SET: u8 = 4;
    pub const LOGICAL_UNIT_RESET: u8 = 5;
    pub const TARGET_WARM_RESET: u8 = 6;
    pub const TARGET_COLD_RESET: u8 = 7;
    pub const TASK_REASSIGN: u8 = 8;
}

/// Responses to task management.
mod response {
    pub const COMPLETE: u8 = 0;
    pub const NO_SUCH_TASK: u8 = 1;
    pub const NO_SUCH_LUN: u8 = 2;
    pub const NO_REASSIGNMENT: u8 = 4;
    pub const NOT_SUPPORTED: u8 = 5;
    pub const REJECTED: u8 = 255;
}

/// A response that is not sent before certain tasks are over in the array.
#[derive(Debug)]
pub(super) struct Drain {
    waits_for: Vec<Tag>,
    task_tag: u32,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Management,
    ColdReset,
    Logout,
}

impl IscsiSession {
    pub(super) fn task_management(&mut self, header: &Header, outside: &mut dyn Outside) {
        if !self.accept(header) {
            return;
        }
        let task_tag = header.task_tag();
        if self.drains.len() >= DRAINS_MAX {
            return match header.is_immediate() {
                true => self.reject(Reason::TooManyImmediate),
                false => self.management_response(task_tag, response::REJECTED),
            };
        }
        let lun = lun::parse(header.lun());
        let is_there = device::find(outside.view(), lun).is_some();
        let of_lun = |task: &Task| lun::parse(task.lun) == lun;
        let mut kind = Kind::Management;
        let waits_for = match header.flags() & 0x7f {
            function::ABORT_TASK => {
                let referenced = header.transfer_tag();
                if self.tasks.find(referenced).is_none() {
                    return self.management_response(task_tag, response::NO_SUCH_TASK);
                }
                self.abort_tasks(|task| task.task_tag == referenced, outside)
            }
            function::ABORT_TASK_SET | function::CLEAR_TASK_SET | function::LOGICAL_UNIT_RESET if !is_there => {
                return self.management_response(task_tag, response::NO_SUCH_LUN);
            }
            // Each nexus has a task set of its own (mode page 0Ah, TST 001b).
            function::ABORT_TASK_SET | function::CLEAR_TASK_SET => self.abort_tasks(of_lun, outside),
            function::LOGICAL_UNIT_RESET => {
                self.nexus.reset(lun);
                self.abort_tasks(of_lun, outside)
            }
            function::TARGET_WARM_RESET => {
                self.nexus.reset(None::<NcaeIndex>);
                self.abort_tasks(|_| true, outside)
            }
            function::TARGET_COLD_RESET => {
                kind = Kind::ColdReset;
                self.stop_receiving();
                self.abort_tasks(|_| true, outside)
            }
            function::TASK_REASSIGN => return self.management_response(task_tag, response::NO_REASSIGNMENT),
            _ => return self.management_response(task_tag, response::NOT_SUPPORTED),
        };
        self.drain(Drain {
            waits_for,
            task_tag,
            kind,
        });
    }

    pub(super) fn logout(&mut self, header: &Header, outside: &mut dyn Outside) {
        const RECOVERY: u8 = 2;
        const RECOVERY_NOT_SUPPORTED: u8 = 2;
        if !self.accept(header) {
            return;
        }
        if header.flags() & 0x7f == RECOVERY {
            return self.logout_response(header.task_tag(), RECOVERY_NOT_SUPPORTED);
        }
        self.stop_receiving();
        let waits_for = self.abort_tasks(|_| true, outside);
        self.drain(Drain {
            waits_for,
            task_tag: header.task_tag(),
            kind: Kind::Logout,
        });
    }

    /// Aborts tasks: they get no response. Those that the array has are over only when it says so; their tags. What waited for the
    /// others begins.
    pub(super) fn abort_tasks(&mut self, which: impl Fn(&Task) -> bool, outside: &mut dyn Outside) -> Vec<Tag> {
        let all: Vec<Tag> = self
            .tasks
            .iter()
            .filter(|(_, task)| which(task))
            .map(|(tag, _)| tag)
            .collect();
        let (mut in_array, mut ended) = (Vec::new(), Vec::new());
        for tag in all {
            let Some(task) = self.tasks.get_mut(tag) else { continue };
            if task.state != State::InArray {
                ended.push(self.tasks.end(tag));
                continue;
            }
            in_array.push(tag);
            task.burst = None;
            if task.fetch.take().is_some() {
                outside.fetched(tag, false);
            }
            if !task.is_aborted {
                task.is_aborted = true;
                outside.abort(tag);
            }
        }
        for lun in ended {
            self.task_ended(lun, outside);
        }
        in_array
    }

    fn drain(&mut self, drain: Drain) {
        if drain.waits_for.is_empty() {
            self.drain_done(&drain);
        } else {
            self.drains.push(drain);
        }
    }

    /// An aborted task is over: answers whoever waited for that.
    pub(super) fn drained(&mut self, tag: Tag) {
        for drain in &mut self.drains {
            drain.waits_for.retain(|t| *t != tag);
        }
        let is_ready = |drain: &mut Drain| drain.waits_for.is_empty();
        let ready: Vec<Drain> = self.drains.extract_if(.., is_ready).collect();
        for drain in &ready {
            self.drain_done(drain);
        }
    }

    fn drain_done(&mut self, drain: &Drain) {
        match drain.kind {
            Kind::Management => self.management_response(drain.task_tag, response::COMPLETE),
            Kind::ColdReset => {
                self.management_response(drain.task_tag, response::COMPLETE);
                self.finish();
            }
            Kind::Logout => {
                self.logout_response(drain.task_tag, 0);
                self.finish();
            }
        }
    }

    fn management_response(&mut self, task_tag: u32, response: u8) {
        let mut header = self.status_header(opcode::TASK_MANAGEMENT_RESPONSE, FINAL, task_tag);
        header.0[2] = response;
        self.send(header, &[]);
    }

    fn logout_response(&mut self, task_tag: u32, response: u8) {
        let mut header = self.status_header(opcode::LOGOUT_RESPONSE, FINAL, task_tag);
        header.0[2] = response;
        self.send(header, &[]);
    }
}
