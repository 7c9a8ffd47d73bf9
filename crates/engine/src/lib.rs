//! The engine: drives the core with real sockets, disks and NV memory, on one thread and one io_uring.
//!
//! Read `engine` first: its loop reaps completions into events, steps the core with each, and carries out the
//! effects in order. Each of the other modules is one thing that the loop holds.
#![warn(missing_docs)]

mod create;
mod engine;
mod error;
mod handle;
mod settings;
mod snapshot;

pub use create::{DISK_BYTES_MIN, NewDisk, create_disks, random_uuid};
pub use engine::{Engine, Outcome};
pub use error::{CreateError, OpenError, RunError};
pub use handle::{Handle, HandleError};
pub use settings::Settings;
pub use snapshot::{Counters, DiskSnapshot, Snapshot};
