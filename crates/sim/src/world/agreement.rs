//! What must hold between the two controllers: one of them acts, and both images hold the same.

use super::World;
use crate::process::Process;
use twincell_core::cell::record::Mode;
use twincell_core::controller::Role;
use twincell_core::ids::{Controller, Epoch};
use twincell_core::nv::resolve::{ValidBuffer, resolve};

/// Lossy links deliver what was lost within this, in nanoseconds, once they are sound.
const SETTLES: u64 = 5_000_000_000;

impl World {
    /// A controller that serves alone is the only one: nobody who is not in the record answers a host any more, or knows
    /// no newer one (R2, R3).
    pub(super) fn check_answer(&mut self, controller: Controller) {
        let Some((epoch, alone)) = self.served_alone else {
            return;
        };
        let view = self.processes[controller.index()].as_ref().map(|p| p.core.cell_view());
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

    /// A write of data lands only while its process holds its lock bytes: a fence waits for it (R5).
    pub(super) fn check_landing(&mut self, controller: Controller, process: u32) {
        if self.shelf.locks[controller.index()] != Some(process) {
            self.fail(format!(
                "a disk write of process {process} of {controller} lands after its locks are gone"
            ));
        }
    }

    /// When both are in, no write is under way and nothing is on the link, both images hold the same data.
    pub(super) fn check_agreement(&mut self) {
        if !self.is_settled() {
            return;
        }
        let [a, b] = [0, 1].map(|c| self.contents(c));
        if a != b {
            let differs = a
                .iter()
                .find(|x| !b.contains(x))
                .or_else(|| b.iter().find(|x| !a.contains(x)));
            self.fail(format!("the images differ though nothing is under way: {differs:?}"));
        }
    }

    fn is_settled(&self) -> bool {
        let quiet = |p: &Option<Process>| {
            p.as_ref().is_some_and(|p| {
                let view = p.core.cell_view();
                let both = view.record.is_some_and(|r| r.mode == Mode::Both);
                let at_work = p.paused_until <= self.now && p.backlog.is_empty();
                both && at_work && view.role == Role::Serving && view.linked && view.open_ries == 0
            })
        };
        self.processes.iter().all(quiet)
            && self.nv.iter().flatten().all(|nv| !nv.is_flipped)
            && self.wire.is_empty()
            && !self.processes.iter().flatten().any(|p| p.core.awaits_more())
            && self.wire.is_sound_for(self.now, SETTLES)
    }

    /// What an image holds: which buffer, of which block, with which data.
    fn contents(&self, c: usize) -> Vec<(ValidBuffer, Vec<u64>)> {
        let Some(nv) = &self.nv[c] else { return Vec::new() };
        let tags = |v: ValidBuffer| {
            let blocks = nv.buffers[v.buffer.index()].iter().enumerate();
            let valid = blocks.filter(|(n, _)| v.mask >> n & 1 == 1);
            (v, valid.map(|(_, tag)| *tag).collect())
        };
        resolve(&nv.image, self.geometry).map_or(Vec::new(), |valid| valid.into_iter().map(tags).collect())
    }
}
