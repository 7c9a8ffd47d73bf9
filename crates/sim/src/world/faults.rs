//! Faults come and are healed; operators ask for things.

use super::cell::lun_name;
use super::operators::{group, is_made};
use super::queue::Happening;
use super::wire::Next;
use super::{LUNS, MS, SeenLun, US, World};
use crate::disks::Trouble;
use crate::fault::{Fault, Point};
use crate::history::History;
use twincell_core::Event;
use twincell_core::cell::record::{Mode, Record};
use twincell_core::ids::{Controller, Noid, QUORUM_SPACE_BLOCKS, RequestId, Uuid};
use twincell_core::layout::metadata::{Name, Redundancy};
use twincell_core::manage::{LunView, ManageOp};

/// Blocks of a part of a disk that takes no writes.
const REGION: u64 = 64;

impl World {
    pub(super) fn fault(&mut self, fault: Fault) {
        if !self.may_come(fault) {
            return self.log(|| format!("*** not {fault:?}: it would take the last good copy"));
        }
        self.log(|| format!("*** {fault:?}"));
        self.tell(Controller::A, format!("*** {fault:?}"));
        self.report.marks.fault(fault);
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
            Fault::LoseNv(c) => self.lose_nv(c),
            Fault::LoseBothNv => Controller::BOTH.into_iter().for_each(|c| self.lose_nv(c)),
            Fault::FlipNv(c, bit) => self.flip_nv(c, bit),
            Fault::FlipNvAndCrash(c, bit) => {
                self.flip_nv(c, bit);
                self.crash(c);
            }
            Fault::Pause(c, ms) => self.pause(c, ms),
            Fault::PauseBoth(a, b) => {
                self.pause(Controller::A, a);
                self.pause(Controller::B, b);
            }
            Fault::ClockRate(c, rate) => self.clocks[c.index()].set_rate(self.now, rate),
            Fault::ClockJump(c, ms) => self.clocks[c.index()].jump(self.now, ms * MS),
            Fault::CutLink(ms) => {
                self.cut_link(true);
                self.heal_after(ms, fault);
            }
            Fault::SilentLink(ms) => {
                Controller::BOTH.iter().for_each(|c| self.wire.set_deaf(*c, true));
                self.heal_after(ms, fault);
            }
            Fault::CutPath(n, ms) => {
                if let Some(line) = self.wire.lines.get_mut(n) {
                    line.cut = true;
                    self.close_line(n, None);
                    self.heal_after(ms, fault);
                }
            }
            Fault::SilentPath(n, ms) => {
                if let Some(line) = self.wire.lines.get_mut(n) {
                    line.deaf = [true; 2];
                    self.heal_after(ms, fault);
                }
            }
            Fault::SpoilingPath(n, ms) => {
                if let Some(line) = self.wire.lines.get_mut(n) {
                    line.spoils = true;
                    self.heal_after(ms, fault);
                }
            }
            Fault::DeafPath(n, c, ms) => {
                if let Some(line) = self.wire.lines.get_mut(n) {
                    line.deaf[c.index()] = true;
                    self.heal_after(ms, fault);
                }
            }
            Fault::DeafLink(c, ms) => {
                self.wire.set_deaf(c, true);
                self.heal_after(ms, fault);
            }
            Fault::LossyLink(ms) => {
                self.wire.lossy = true;
                self.heal_after(ms, fault);
            }
            Fault::GarbledLink(ms) => {
                self.wire.garbled = true;
                self.heal_after(ms, fault);
            }
            Fault::LoseFrame(c) => self.wire.next[c.index()] = Next::IsLost,
            Fault::DoubleFrame(c) => self.wire.next[c.index()] = Next::ComesTwice,
            Fault::GarbleFrame(c) => self.wire.next[c.index()] = Next::IsGarbled,
            Fault::FailDisk(disk, ms) => {
                self.shelf.disks[disk].trouble.fails = true;
                self.heal_after(ms, fault);
            }
            Fault::FailFlushes(disk, ms) => {
                self.shelf.disks[disk].trouble.fails_flushes = true;
                self.heal_after(ms, fault);
            }
            Fault::FailReads(disk, ms) => {
                self.shelf.disks[disk].trouble.fails_reads = true;
                self.heal_after(ms, fault);
            }
            Fault::FailSlots(disk, ms) => {
                self.shelf.disks[disk].trouble.fails_slots = true;
                self.heal_after(ms, fault);
            }
            Fault::LoseSight(c, disk, ms) => {
                self.shelf.disks[disk].trouble.unseen[c.index()] = true;
                self.heal_after(ms, fault);
            }
            Fault::LoseSightOfAll(c, ms) => {
                self.every_disk(|t| t.unseen[c.index()] = true);
                self.heal_after(ms, fault);
            }
            Fault::FailAll(ms) => {
                self.every_disk(|t| t.fails = true);
                self.heal_after(ms, fault);
            }
            Fault::StallAll(ms) => {
                let until = self.now + ms * MS;
                self.every_disk(|t| (t.stalled_until, t.late) = (until, 0));
                self.heal_after(ms, fault);
            }
            Fault::FailWrites(disk, ms) => {
                self.shelf.disks[disk].trouble.fails_writes = true;
                self.heal_after(ms, fault);
            }
            Fault::StallDisk(disk, ms) => {
                let late = if self.random.one_in(2) {
                    self.random.below(4000)
                } else {
                    0
                };
                let trouble = &mut self.shelf.disks[disk].trouble;
                (trouble.stalled_until, trouble.late) = (self.now + ms * MS, late * MS);
                self.heal_after(ms, fault);
                self.heal_after(ms + late, fault);
            }
            Fault::SlowDisk(disk, by, ms) => {
                self.shelf.disks[disk].trouble.slow = by * MS;
                self.heal_after(ms, fault);
            }
            Fault::BadRegion(disk, block, ms) => {
                let first = QUORUM_SPACE_BLOCKS + block;
                self.shelf.disks[disk].trouble.bad_region = Some(first..first + REGION);
                self.heal_after(ms, fault);
            }
            Fault::LoseDisk(disk) => self.shelf.disks[disk].trouble.gone = true,
            Fault::BadBlocks(disk, block, blocks) => self.shelf.disks[disk].spoil(QUORUM_SPACE_BLOCKS + block, blocks),
            Fault::WithdrawAll => self.withdraw_all(),
            Fault::MoveLun(lun, to) => self.manage(ManageOp::LunMove {
                name: lun_name(lun.into()),
                to,
            }),
            Fault::RenameLun(lun) => {
                let names = [lun_name(lun.into()), lun_name(usize::from(lun) + 20)];
                let old = self.random.one_in(2);
                self.manage(ManageOp::LunRename {
                    name: names[usize::from(old)],
                    to: names[usize::from(!old)],
                });
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
            Fault::MakeLun(..) | Fault::EnlargeLun(..) | Fault::DropLun(_) => self.wish(fault),
            Fault::ReplaceDisk(disk) => self.replace_gone_disk(disk),
            Fault::Stop(c) => self.manage_on(c, ManageOp::Stop),
            Fault::AcceptLoss(c) => self.manage_on(c, ManageOp::AcceptLoss { missing: c.other() }),
        }
    }

    fn every_disk(&mut self, change: impl Fn(&mut Trouble)) {
        self.shelf.disks.iter_mut().for_each(|d| change(&mut d.trouble));
    }

    pub(super) fn heal_after(&mut self, ms: u64, fault: Fault) {
        self.after(ms * MS, Happening::Heal(fault));
    }

    fn lose_nv(&mut self, c: Controller) {
        self.crash(c);
        self.nv[c.index()] = None;
        self.memories_lost[c.index()] = true;
    }

    fn flip_nv(&mut self, c: Controller, bit: u64) {
        self.memories_lost[c.index()] = true;
        if let Some(nv) = &mut self.nv[c.index()] {
            nv.flip(bit);
        }
    }

    fn withdraw_all(&mut self) {
        for command in 0..self.commands.len() {
            if !self.commands[command].done {
                self.withdraw(self.commands[command].attempt);
            }
        }
    }

    fn crash_before(&mut self, c: Controller, point: Point) {
        if let Some(process) = &mut self.processes[c.index()] {
            process.crash_before = Some(point);
        }
    }

    fn pause(&mut self, c: Controller, ms: u64) {
        let until = self.now + ms * MS;
        self.note_loss(c, self.plan.apart);
        let drains = self.plan.drains;
        if let Some(process) = &mut self.processes[c.index()] {
            let until = if drains { until.max(process.paused_until) } else { until };
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

    /// This one may be gone at any time.
    pub(super) fn doom_lun(&mut self, name: Name) {
        let named = |l: &LunView| l.name == name;
        let luns = self.processes.iter().flatten().flat_map(|p| p.core.luns());
        let noids: Vec<Noid> = luns.filter(named).map(|l| l.noid).collect();
        for lun in self.luns.iter_mut().filter(|l| noids.contains(&l.noid)) {
            lun.doomed = true;
        }
    }

    /// Hosts find the LUNs that a controller has.
    pub(super) fn look_at_luns(&mut self, c: Controller) {
        let Some(process) = &mut self.processes[c.index()] else {
            return;
        };
        process.told = process.core.luns().collect();
        let mut found = Vec::new();
        for lun in process.told.clone() {
            let group = group(&lun.name);
            if let Some(known) = self.luns.iter_mut().find(|l| l.noid == lun.noid) {
                known.blocks = known.blocks.max(lun.blocks);
            } else {
                found.push(SeenLun {
                    ncae: lun.ncae,
                    noid: lun.noid,
                    doomed: is_made(group) && self.is_doomed(group),
                    blocks: lun.blocks,
                    group,
                });
            }
        }
        for lun in found {
            self.luns.push(lun);
            self.histories.push(History::default());
        }
    }

    pub(super) fn heal(&mut self, fault: Fault) {
        match fault {
            Fault::CutLink(_) => self.cut_link(false),
            Fault::CutPath(n, _) => self.wire.lines[n].cut = false,
            Fault::SilentPath(n, _) => self.wire.lines[n].deaf = [false; 2],
            Fault::SpoilingPath(n, _) => self.wire.lines[n].spoils = false,
            Fault::DeafPath(n, c, _) => self.wire.lines[n].deaf[c.index()] = false,
            Fault::SilentLink(_) => {
                Controller::BOTH.iter().for_each(|c| self.wire.set_deaf(*c, false));
            }
            Fault::DeafLink(c, _) => self.wire.set_deaf(c, false),
            Fault::LossyLink(_) => self.wire.lossy = false,
            Fault::GarbledLink(_) => self.wire.garbled = false,
            Fault::FailDisk(d, _) => self.shelf.disks[d].trouble.fails = false,
            Fault::FailWrites(d, _) => self.shelf.disks[d].trouble.fails_writes = false,
            Fault::FailFlushes(d, _) => self.shelf.disks[d].trouble.fails_flushes = false,
            // In the end it is the scan that lets reads fail.
            Fault::FailReads(d, _) if !self.healing => self.shelf.disks[d].trouble.fails_reads = false,
            Fault::FailSlots(d, _) => self.shelf.disks[d].trouble.fails_slots = false,
            Fault::LoseSight(c, d, _) => self.shelf.disks[d].trouble.unseen[c.index()] = false,
            Fault::LoseSightOfAll(c, _) => self.every_disk(|t| t.unseen[c.index()] = false),
            Fault::FailAll(_) => self.every_disk(|t| t.fails = false),
            Fault::StallDisk(..) | Fault::StallAll(_) => self.release_held(),
            Fault::SlowDisk(d, ..) => self.shelf.disks[d].trouble.slow = 0,
            Fault::BadRegion(d, ..) => self.shelf.disks[d].trouble.bad_region = None,
            _ => {}
        }
        self.maybe_open_link();
    }

    /// A vote is being written: now and then operators ask for something just then, most of all when the partner is about to
    /// be in.
    pub(super) fn be_hasty(&mut self, proposal: &Record) {
        if !self.plan.hasty {
            return;
        }
        let wishes = if proposal.mode == Mode::Both {
            self.random.below(4)
        } else {
            u64::from(self.random.one_in(8))
        };
        for _ in 0..wishes {
            let fault = match self.random.below(6) {
                0 => Fault::CreateLun,
                1 => Fault::GrowLun,
                2 => Fault::DeleteLun,
                n => Fault::RenameLun((n % 2) as u16),
            };
            let delay = self.random.below(8 * MS);
            self.after(delay, Happening::Fault(fault));
        }
    }

    pub(super) fn manage(&mut self, op: ManageOp) {
        let c = Controller::BOTH[self.random.below(2) as usize];
        self.manage_on(c, op);
    }

    pub(super) fn manage_on(&mut self, controller: Controller, op: ManageOp) {
        let request = RequestId(self.next_request);
        let Some(process) = &mut self.processes[controller.index()] else {
            return;
        };
        self.next_request += 1;
        self.is_loss_accepted |= matches!(op, ManageOp::AcceptLoss { .. });
        process.requests.insert(request);
        let id = process.id;
        self.note_asked(request, op);
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
