//! The engine: drives the core with real sockets, disks and NV memory, on one thread and one io_uring.
//!
//! Read `engine` first: its loop reaps completions into events, steps the core with each, and carries out the
//! effects in order. Each of the other modules is one thing that the loop holds.
#![warn(missing_docs)]

mod clock;
mod commands;
mod complaints;
mod content;
mod crc;
mod create;
mod disk;
mod disk_io;
mod engine;
mod error;
mod failures;
mod fence;
mod handle;
mod hosts;
mod in_place;
mod link;
#[cfg(feature = "figures")]
pub mod link_alone;
mod link_view;
mod listener;
mod locks;
mod memory;
mod nv;
mod placement;
mod private;
mod process;
mod queue;
mod random;
mod reopen;
mod ring;
mod settings;
mod snapshot;
mod space;
mod stop;
mod story;
mod stream;
#[cfg(test)]
mod testing;
mod view;

pub use create::{DISK_BYTES_MIN, NewDisk, Replacement, create_disks, label_replacement};
pub use engine::{Engine, Outcome};
pub use error::{CreateError, OpenError, RunError};
pub use handle::{Handle, HandleError};
pub use link_view::{LinkSnapshot, PathSnapshot};
pub use placement::Copies;
pub use private::{NotPrivate, PrivateDir};
pub use process::close_on_exec;
pub use random::random_uuid;
pub use settings::{FenceChoice, Settings};
pub use snapshot::{Counters, DiskSnapshot, Snapshot};
pub use story::{StoryLine, Told};
