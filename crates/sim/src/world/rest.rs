//! What must hold when all is at rest: both controllers know the same, it makes sense, and they do next to nothing.

use super::{MS, World};
use crate::process::Process;
use std::collections::BTreeSet;
use twincell_core::ids::{Controller, DiskIndex, Noid};
use twincell_core::layout::metadata::Metadata;

/// So long nothing happens.
const REST: u64 = 4_000 * MS;
/// Most effects of one controller in that time: heartbeats on two paths, and their answers.
const EFFECTS: u64 = 400;
/// So often that is tried.
const TRIES: u32 = 10;

impl World {
    /// Nobody wants anything. A disk that failed during the storm may be given up, and be found again, only now.
    pub(super) fn check_rest(&mut self) -> Result<(), String> {
        let mut restless = Ok(());
        for _ in 0..TRIES {
            restless = self.check_is_idle()?;
            if restless.is_ok() {
                return self.check_common_knowledge();
            }
        }
        restless
    }

    /// Whether next to nothing happens for a while.
    fn check_is_idle(&mut self) -> Result<Result<(), String>, String> {
        let (effects, slots) = (self.effects_done, self.slots_written);
        let end = self.now + REST;
        while self.now < end && self.advance()? {}
        if self.slots_written > slots {
            let times = self.slots_written - slots;
            return Ok(Err(format!(
                "at rest slots are written {times} times: {}",
                self.state()
            )));
        }
        for c in Controller::BOTH {
            let done = self.effects_done[c.index()] - effects[c.index()];
            if done > EFFECTS {
                return Ok(Err(format!("at rest {c} does {done} things in {} ms", REST / MS)));
            }
        }
        Ok(Ok(()))
    }

    fn check_common_knowledge(&self) -> Result<(), String> {
        let [Some(a), Some(b)] = &self.processes else {
            return Err("not both run".into());
        };
        let record = |p: &Process| p.core.cell_view().record;
        if record(a) != record(b) {
            return Err(format!(
                "at rest the records differ: {:?} and {:?}",
                record(a),
                record(b)
            ));
        }
        let (of_a, of_b) = (a.core.metadata(), b.core.metadata());
        if of_a != of_b {
            return Err(format!("at rest the metadata differ: {of_a:?} and {of_b:?}"));
        }
        if a.core.luns().ne(b.core.luns()) {
            return Err("at rest the owners of LUNs differ".into());
        }
        if let Some(lun) = a.core.luns().find(|l| l.moving) {
            return Err(format!("at rest a LUN is taken out of service: {lun:?}"));
        }
        if a.core.metadata_to_write().or(b.core.metadata_to_write()).is_some() {
            return Err("at rest somebody is about to write metadata".into());
        }
        let metadata = of_a.ok_or("no metadata")?;
        make_sense(metadata)?;
        self.are_on_disks(metadata)
    }

    /// Every disk that votes and is in order has the metadata, or none of them that says that it has.
    fn are_on_disks(&self, metadata: &Metadata) -> Result<(), String> {
        let Some((_, record)) = self.records.last_key_value() else {
            return Ok(());
        };
        for disk in record.quorum.iter() {
            let there = &self.shelf.disks[disk.index()].metadata[usize::from(record.metadata.copy)];
            let same_name = there.as_ref().filter(|m| m.generation == metadata.generation);
            if same_name.is_some_and(|m| m != metadata) {
                return Err(format!("{disk:?} has other metadata of the same name: {there:?}"));
            }
        }
        Ok(())
    }
}

/// Each LUN is there once, each PSEG is used once, and both copies of an RStore lie on a pair of disks.
fn make_sense(metadata: &Metadata) -> Result<(), String> {
    let (mut used, mut known) = (BTreeSet::new(), BTreeSet::new());
    for lun in &metadata.luns {
        let Noid(noid) = lun.noid;
        let unique = [
            format!("{:?}", lun.name),
            format!("{:?}", lun.ncae),
            format!("noid {noid}"),
        ];
        if let Some(twice) = unique.into_iter().find(|u| !known.insert(u.clone())) {
            return Err(format!("two LUNs are {twice}: {metadata:?}"));
        }
        if noid >= metadata.next_noid.0 {
            return Err(format!("the next LUN would be as {:?}", lun.name));
        }
        let width = lun.redundancy.width();
        if lun.psegs.len() as u64 != twincell_core::layout::metadata::Lun::rstores_for(lun.blocks) * width as u64 {
            return Err(format!("{:?} has not as many PSEGs as it has blocks", lun.name));
        }
        for at in &lun.psegs {
            let there = metadata.disks.get(at.disk.index()).is_some_and(|d| at.pseg.0 < d.psegs);
            if !there || !used.insert(*at) {
                return Err(format!("{at:?} is not there, or of two LUNs: {metadata:?}"));
            }
        }
        if width == 2 && !lun.psegs.chunks(2).all(|c| are_pair(metadata, c[0].disk, c[1].disk)) {
            return Err(format!("copies of {:?} do not lie on a pair of disks", lun.name));
        }
    }
    Ok(())
}

/// Whether two disks are an even one of an RSS and the next.
fn are_pair(metadata: &Metadata, a: DiskIndex, b: DiskIndex) -> bool {
    let (a, b) = (&metadata.disks[a.index()], &metadata.disks[b.index()]);
    a.rss == b.rss && a.rss_offset ^ 1 == b.rss_offset
}
