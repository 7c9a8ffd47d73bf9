//! Unit attention conditions of one I_T nexus (SAM-5, 5.14)
//!
//! Changes of the cell are found by comparing the [`View`] with what the nexus has been told, so no change is lost
//! and nothing has to be queued when the view changes.

use super::sense::Sense;
use crate::session::View;
use twincell_core::ids::{NcaeIndex, Noid};
use twincell_core::manage::LunView;

/// What a nexus knows about one logical unit.
#[derive(Clone, Debug)]
struct Known {
    noid: Noid,
    /// A power on or reset that is still to be told.
    reset: Option<Sense>,
    luns_generation: u64,
    paths_generation: u64,
    blocks: u64,
}

/// What one I_T nexus knows about the logical units.
#[derive(Clone, Debug, Default)]
pub struct Nexus {
    known: Vec<Option<Known>>,
}

impl Nexus {
    /// What is known of `lun`. A logical unit that the nexus meets for the first time has been powered on.
    fn known(&mut self, lun: &LunView, view: &View) -> &mut Known {
        let place = lun.ncae.index();
        if self.known.len() <= place {
            self.known.resize_with(place + 1, || None);
        }
        let met = &mut self.known[place];
        if met.as_ref().is_some_and(|known| known.noid != lun.noid) {
            *met = None;
        }
        met.get_or_insert_with(|| Known {
            noid: lun.noid,
            reset: Some(Sense::POWER_ON),
            luns_generation: view.luns_generation,
            paths_generation: view.paths_generation,
            blocks: lun.blocks,
        })
    }

    /// Takes the next unit attention condition of `lun` that is to be told, most important first.
    pub fn take(&mut self, lun: &LunView, view: &View) -> Option<Sense> {
        let known = self.known(lun, view);
        if let Some(reset) = known.reset.take() {
            return Some(reset);
        }
        if known.luns_generation != view.luns_generation {
            known.luns_generation = view.luns_generation;
            return Some(Sense::LUNS_CHANGED);
        }
        if known.paths_generation != view.paths_generation {
            known.paths_generation = view.paths_generation;
            return Some(Sense::ACCESS_STATE_CHANGED);
        }
        if known.blocks != lun.blocks {
            known.blocks = lun.blocks;
            return Some(Sense::CAPACITY_CHANGED);
        }
        None
    }

    /// REPORT LUNS tells the whole inventory: no logical unit has to any more (SPC-4, 6.33.1).
    pub fn luns_reported(&mut self, view: &View) {
        for known in self.known.iter_mut().flatten() {
            known.luns_generation = view.luns_generation;
        }
    }

    /// A reset of one logical unit, or of all of them.
    pub fn reset(&mut self, which: Option<NcaeIndex>) {
        for (place, known) in self.known.iter_mut().enumerate() {
            if let Some(known) = known
                && which.is_none_or(|ncae| ncae.index() == place)
                && known.reset.is_none()
            {
                known.reset = Some(Sense::RESET);
            }
        }
    }
}
