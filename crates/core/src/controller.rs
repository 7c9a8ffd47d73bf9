//! The core as its drivers see it.

use crate::config::Config;
use crate::effect::Effect;
use crate::event::Event;
use crate::ids::Time;
use crate::layout::metadata::Metadata;
use crate::manage::LunView;
use crate::nv::Image;

/// A controller.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Core {
    config: Config,
}

/// What a controller is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Reading the record, or waiting for the partner, a lock, or an operator.
    Starting,
    /// Serves nothing; the partner brings it level.
    Joining,
    /// Serves hosts.
    Serving,
    /// Was serving; nothing is acknowledged until a ballot has decided.
    Deciding,
    /// On its way out.
    Stopping,
}

/// The state of the cell as this controller sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CellView {
    /// What this controller is doing.
    pub role: Role,
    /// The membership record; `None` while it was not yet read.
    pub record: Option<crate::cell::record::Record>,
    /// Whether the link to the partner works.
    pub linked: bool,
    /// Whether the partner is joining.
    pub joining: bool,
    /// `ALONE(c, dirty)` without c: an operator has to accept the loss of c's memory.
    pub awaits_operator: bool,
    /// Valid NV buffers: data that the disks may lack.
    pub dirty_buffers: u32,
    /// RIEs in use.
    pub open_ries: u32,
}

impl Core {
    /// A controller that has just started. `image` is what its predecessor left in NV memory, of the same geometry,
    /// if it left anything that may be used at all.
    pub fn new(config: Config, image: Option<Image>) -> Core {
        let _ = image;
        Core { config }
    }

    /// Handles one event, then everything that this makes possible. Appends to `effects`, which are to be carried
    /// out in order. `now` never goes back.
    pub fn step(&mut self, now: Time, event: Event, effects: &mut Vec<Effect>) {
        let _ = (now, event, effects, &self.config);
    }

    /// When to call `step` with `Tick` if nothing else happens.
    pub fn next_deadline(&self) -> Option<Time> {
        None
    }

    /// The LUNs, in order of their number.
    pub fn luns(&self) -> impl Iterator<Item = LunView> + '_ {
        std::iter::empty()
    }

    /// The state of the cell.
    pub fn cell_view(&self) -> CellView {
        todo!()
    }

    /// The metadata in force; `None` while not yet read.
    pub fn metadata(&self) -> Option<&Metadata> {
        None
    }

    /// What the `MetadataWrite` effects of the last step mean.
    pub fn metadata_to_write(&self) -> Option<&Metadata> {
        None
    }
}
