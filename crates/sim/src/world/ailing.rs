//! Hardware falls ill, and is cured.

use super::{MS, World};
use crate::ailment::Ailment;
use crate::disks::SimDisk;
use twincell_core::ids::QUORUM_SPACE_BLOCKS;

/// Until no time that any run sees.
const FOR_EVER: u64 = u64::MAX / 2;
/// Blocks that cannot be read.
const BAD: u64 = 4;
/// Blocks that take no writes.
const REGION: u64 = 64;

impl World {
    /// This disk, or the link, has it from now on.
    pub(super) fn fall_ill(&mut self, ailment: Ailment, disk: usize) {
        self.log(|| format!("*** for good, disk {disk} or the link: {ailment:?}"));
        self.report.marks.ailment(ailment);
        let at = &mut self.shelf.disks[disk];
        let trouble = &mut at.trouble;
        match ailment {
            Ailment::Hangs => trouble.stalled_until = FOR_EVER,
            Ailment::Fails => trouble.fails = true,
            Ailment::FailsWrites => trouble.fails_writes = true,
            Ailment::FailsFlushes => trouble.fails_flushes = true,
            Ailment::FailsReads => trouble.fails_reads = true,
            Ailment::FailsSlots => trouble.fails_slots = true,
            Ailment::UnseenBy(c) => trouble.unseen[c.index()] = true,
            Ailment::Slow(ms) => trouble.slow = ms * MS,
            Ailment::BadRegion(block) => {
                let first = QUORUM_SPACE_BLOCKS + block;
                trouble.bad_region = Some(first..first + REGION);
            }
            Ailment::BadBlock(block, ms) => {
                at.spoil(QUORUM_SPACE_BLOCKS + block, BAD);
                self.shelf.bad_blocks_take = ms * MS;
            }
            Ailment::LateWrites(ms) => self.shelf.late_writes = Some((disk, ms * MS)),
            Ailment::LateFlushes(ms) => self.shelf.late_flushes = Some((disk, ms * MS)),
            Ailment::WeakBlock(block, ms) => self.shelf.weak_block = Some((disk, QUORUM_SPACE_BLOCKS + block, ms * MS)),
            Ailment::Lossy => self.wire.lossy = true,
            Ailment::SlowLink(ms) => self.wire.delay = ms * MS,
            Ailment::CutPath(path) => {
                self.wire.lines[path].cut = true;
                self.close_line(path, None);
            }
            Ailment::DeafPath(path, to) => self.wire.lines[path].deaf[to.index()] = true,
            Ailment::SpoilingPath(path) => self.wire.lines[path].spoils = true,
        }
    }

    /// All hardware is sound again.
    pub(super) fn cure(&mut self) {
        self.shelf.disks.iter_mut().for_each(SimDisk::heal);
        self.shelf.disks.iter_mut().for_each(SimDisk::recover);
        self.shelf.bad_blocks_take = 0;
        self.shelf.late_writes = None;
        self.shelf.late_flushes = None;
        self.shelf.weak_block = None;
        self.release_held();
        self.wire.heal();
        // The end of a connection may not be known to both yet.
        self.wire.troubled_at = self.now;
        self.maybe_open_link();
    }
}
