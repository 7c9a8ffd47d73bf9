//! What must hold between the two controllers: one of them acts, and both images hold the same.

use super::World;
use crate::process::{NvMemory, Process};
use twincell_core::cell::record::Mode;
use twincell_core::controller::Role;
use twincell_core::ids::{Controller, DiskIndex, Epoch};
use twincell_core::nv::resolve::ValidBuffer;

impl World {
    /// Whoever answers hosts does so from an image that the record names (R8). A controller that serves alone is the only one:
    /// nobody who is not in the record answers a host any more, or knows no newer one (R2, R3).
    pub(super) fn check_answer(&mut self, controller: Controller) {
        let view = self.processes[controller.index()].as_ref().map(|p| p.core.cell_view());
        let image = self.nv[controller.index()].as_ref().map(|nv| nv.image.uuid);
        let newest = self.newest_that_names(controller);
        if !newest
            .zip(image)
            .is_some_and(|(r, image)| r.is_current(controller, image))
        {
            self.fail(format!(
                "{controller} answers a host from an image that the record does not name"
            ));
        }
        let Some((epoch, alone)) = self.served_alone else {
            return;
        };
        let own = view.and_then(|v| v.record).map_or(Epoch(0), |r| r.epoch);
        if alone != controller && own < epoch {
            self.fail(format!(
                "{controller} answers a host under {own:?}, and {alone} serves alone since {epoch:?}"
            ));
        }
    }

    /// A controller begins to serve.
    pub(super) fn note_serving(&mut self, controller: Controller) {
        let view = self.processes[controller.index()].as_ref().map(|p| p.core.cell_view());
        let Some(record) = view.and_then(|v| v.record) else {
            return self.fail(format!("{controller} serves without a record"));
        };
        let alone = matches!(record.mode, Mode::Alone { .. });
        if alone && self.served_alone.is_none_or(|(epoch, _)| epoch < record.epoch) {
            self.served_alone = Some((record.epoch, controller));
        }
    }

    /// A write, of whatever it is, lands only while its process holds its lock bytes: a fence waits for it (R5). But for disks that
    /// were given up, where nothing counts.
    pub(super) fn check_landing(&mut self, controller: Controller, process: u32, disk: DiskIndex) {
        let has_its_locks = self.shelf.locks[controller.index()] == Some(process);
        if !has_its_locks && self.metadata_in_force().is_none_or(|m| m.counts(disk)) {
            self.fail(format!(
                "a disk write of process {process} of {controller} lands after its locks are gone"
            ));
        }
    }

    /// Most of the disks that vote have the metadata that the newest record names: nobody writes anything else there.
    pub(super) fn check_metadata(&mut self) {
        let Some((epoch, record)) = self.records.last_key_value() else {
            return;
        };
        let named = record.metadata;
        let has = |disk: &&DiskIndex| {
            let there = &self.shelf.disks[disk.index()].metadata[usize::from(named.copy)];
            there.as_ref().is_some_and(|m| m.generation == named.generation)
        };
        let (have, all) = (record.quorum.iter().filter(has).count(), record.quorum.len());
        if 2 * have <= all {
            self.fail(format!("{have} of {all} disks have the metadata of {epoch:?}"));
        }
    }

    /// When both are in, no write is under way and each has handled all that the other had to say, both images hold the same
    /// data.
    pub(super) fn check_agreement(&mut self) {
        let changes = || [0, 1].map(|c| self.nv[c].as_ref().map(NvMemory::changes));
        // Whatever was the same, and has not changed since, still is.
        if self.agreed.is_some_and(|agreed| agreed == changes()) || !self.is_settled() {
            return;
        }
        self.agreed = Some(changes());
        let [Some(a), Some(b)] = &self.nv else { return };
        let same =
            |v: &ValidBuffer| (0..8).all(|n| v.mask >> n & 1 == 0 || a.buffer(v.buffer)[n] == b.buffer(v.buffer)[n]);
        let differs = a
            .valid_buffers()
            .zip(b.valid_buffers())
            .find(|(a, b)| a != b || a.as_ref().is_some_and(|v| !same(v)));
        if let Some(valid) = differs {
            let what = format!("the images differ though nothing is under way: {valid:?}");
            self.fail(what);
        }
    }

    fn is_settled(&self) -> bool {
        let [Some(a), Some(b)] = &self.processes else {
            return false;
        };
        let in_both = |p: &Process| {
            let view = p.core.cell_view();
            let both = view.record.is_some_and(|r| r.mode == Mode::Both);
            both && view.role == Role::Serving && view.open_ries == 0
        };
        let told_all = || {
            let positions = a.core.link_position().zip(b.core.link_position());
            positions.is_some_and(|(a, b)| a.has_told_all(&b))
        };
        in_both(a) && in_both(b) && told_all() && self.nv.iter().flatten().all(|nv| !nv.is_flipped)
    }
}
