//! Faults come and are healed; operators ask for things.

use super::cell::lun_name;
use super::queue::Happening;
use super::{LUNS, MS, SeenLun, US, World};
use crate::history::History;
use crate::plan::{Fault, Point};
use twincell_core::Event;
use twincell_core::controller::Role;
use twincell_core::ids::{Controller, RequestId, Uuid};
use twincell_core::layout::metadata::Redundancy;
use twincell_core::manage::ManageOp;

impl World {
    pub(super) fn fault(&mut self, fault: Fault) {
        self.log(|| format!("*** {fault:?}"));
        let heal_after = |ms: u64| ms * MS;
        match fault {
            Fault::Crash(c) => self.crash(c),
            Fault::CrashAfterEffects(c, n) => {
                if let Some(process) = &mut self.processes[c.index()] {
                    process.crash_after = Some(n);
                }
            }
            Fault::CrashBefore(c, point) => self.crash_before(c, point),
            Fault::CrashBothAround(c, point, us) => {
                self.partner_follows[c.index()] = Some(us * US);
                self.crash_before(c, point);
            }
            Fault::CrashBothThenOne(c, point, us, later) => {
                self.partner_follows[c.index()] = Some(us * US);
                self.ends_after_serving[c.other().index()] = Some(later * US);
                self.crash_before(c, point);
            }
            Fault::CrashInRecovery(c, us) => {
                self.ends_after_start[c.index()] = Some(us * US);
                self.crash(c);
            }
            Fault::CrashAfterServing(c, us) => self.ends_after_serving[c.index()] = Some(us * US),
            Fault::CrashBoth => Controller::BOTH.into_iter().for_each(|c| self.crash(c)),
            Fault::CrashBothAfterEffects(a, b) => {
                for (process, effects) in self.processes.iter_mut().zip([a, b]) {
                    if let Some(process) = process {
                        process.crash_after = Some(effects);
                    }
                }
            }
            Fault::PowerLoss => {
                Controller::BOTH.into_iter().for_each(|c| self.crash(c));
                for disk in &mut self.shelf.disks {
                    disk.lose_power(&mut self.random);
                }
            }
            Fault::LoseNv(c) => {
                if self.partner_has_everything(c) {
                    self.crash(c);
                    self.nv[c.index()] = None;
                }
            }
            Fault::Pause(c, ms) => self.pause(c, ms),
            Fault::PauseBoth(a, b) => {
                self.pause(Controller::A, a);
                self.pause(Controller::B, b);
            }
            Fault::CutLink(ms) => {
                self.wire.cut = true;
                if self.wire.open {
                    self.close_link();
                }
                self.after(heal_after(ms), Happening::Heal(fault));
            }
            Fault::SilentLink(ms) => {
                self.wire.silent = true;
                self.after(heal_after(ms), Happening::Heal(fault));
            }
            Fault::LossyLink(ms) => {
                self.wire.lossy = true;
                self.after(heal_after(ms), Happening::Heal(fault));
            }
            Fault::FailDisk(disk, ms) => {
                self.shelf.failing = Some(disk);
                self.after(heal_after(ms), Happening::Heal(fault));
            }
            Fault::MoveLun(lun, to) => self.manage(ManageOp::LunMove {
                name: lun_name(lun.into()),
                to,
            }),
            Fault::FailWrites(disk, ms) => {
                self.shelf.failing_writes = Some(disk);
                self.after(heal_after(ms), Happening::Heal(fault));
            }
            Fault::CreateLun => self.manage(create_lun()),
            Fault::CreateLunAndCrash(c, point) => {
                self.manage_on(c, create_lun());
                self.crash_before(c, point);
            }
            Fault::GrowLun => self.manage(ManageOp::LunGrow {
                name: lun_name(9),
                blocks: 9000,
            }),
            Fault::DeleteLun => {
                self.doom_luns();
                self.manage(ManageOp::LunDelete { name: lun_name(9) });
            }
            Fault::Stop(c) => self.manage_on(c, ManageOp::Stop),
        }
    }

    fn crash_before(&mut self, c: Controller, point: Point) {
        if let Some(process) = &mut self.processes[c.index()] {
            process.crash_before = Some(point);
        }
    }

    fn pause(&mut self, c: Controller, ms: u64) {
        let until = self.now + ms * MS;
        if let Some(process) = &mut self.processes[c.index()] {
            process.paused_until = until;
            let id = process.id;
            self.after(ms * MS, Happening::Resume(c, id));
        }
    }

    /// The LUNs that were made may be gone at any time.
    pub(super) fn doom_luns(&mut self) {
        for lun in &mut self.luns[LUNS..] {
            lun.doomed = true;
        }
    }

    /// Hosts find the LUNs that a controller has.
    pub(super) fn look_at_luns(&mut self, c: Controller) {
        let Some(process) = &self.processes[c.index()] else {
            return;
        };
        for lun in process.core.luns() {
            if !self.luns.iter().any(|l| l.noid == lun.noid) {
                self.luns.push(SeenLun {
                    ncae: lun.ncae,
                    noid: lun.noid,
                    doomed: false,
                });
                self.histories.push(History::default());
            }
        }
    }

    pub(super) fn heal(&mut self, fault: Fault) {
        match fault {
            Fault::CutLink(_) => self.wire.cut = false,
            Fault::SilentLink(_) => self.wire.silent = false,
            Fault::LossyLink(_) => self.wire.lossy = false,
            Fault::FailDisk(..) => self.shelf.failing = None,
            Fault::FailWrites(..) => self.shelf.failing_writes = None,
            _ => {}
        }
        self.maybe_open_link();
    }

    /// The fault atlas: the NV memory of `c` may go only while its partner serves, and the record names its image.
    pub(super) fn partner_has_everything(&self, c: Controller) -> bool {
        let other = c.other();
        let Some(process) = &self.processes[other.index()] else {
            return false;
        };
        let Some(nv) = &self.nv[other.index()] else {
            return false;
        };
        let view = process.core.cell_view();
        process.crash_after.is_none()
            && process.crash_before.is_none()
            && self.ends_after_serving[other.index()].is_none()
            && process.paused_until <= self.now
            && view.role == Role::Serving
            && view
                .record
                .is_some_and(|r| r.has(other) && r.is_current(other, nv.image.uuid))
            && view.linked
            && self.wire.open
            && !self.wire.silent
    }

    pub(super) fn manage(&mut self, op: ManageOp) {
        let c = Controller::BOTH[self.random.below(2) as usize];
        self.manage_on(c, op);
    }

    pub(super) fn manage_on(&mut self, controller: Controller, op: ManageOp) {
        let Some(id) = self.processes[controller.index()].as_ref().map(|p| p.id) else {
            return;
        };
        let request = RequestId(self.next_request);
        self.next_request += 1;
        self.deliver(controller, id, Event::Manage { request, op });
    }
}

fn create_lun() -> ManageOp {
    ManageOp::LunCreate {
        name: lun_name(9),
        uuid: Uuid(99),
        blocks: 5000,
        redundancy: Redundancy::Vraid1,
    }
}
