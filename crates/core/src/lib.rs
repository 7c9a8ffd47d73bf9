//! The controller of a twincell: a deterministic state machine with no I/O in it.
//!
//! [`event::Event`]s go in, [`effect::Effect`]s come out of [`controller::Core::step`]. Three programs drive this
//! same code: the engine with real sockets, disks and NV memory; the simulator; the model checker.
//!
//! Read `write` first (the primary side of a host's write, in the order of the seed's Fig. 5), then `mirror`.
#![forbid(unsafe_code)]
#![warn(missing_docs)]
// Messages, events and lists live in place, because the I/O path allocates nothing; states are named for what they await.
#![allow(clippy::large_enum_variant, clippy::enum_variant_names)]

mod cache;
#[cfg(feature = "model")]
pub mod canonical;
mod carry;
pub mod cell;
pub mod config;
pub mod controller;
mod destage;
mod disk;
pub mod effect;
pub mod event;
mod forward;
pub mod host;
mod htb;
pub mod ids;
pub mod layout;
pub mod link;
pub mod list;
pub mod manage;
pub mod mark;
pub mod memory;
pub mod merge;
mod mirror;
pub mod mutant;
pub mod nv;
mod overdue;
mod pool;
mod read;
mod sight;
mod task;
mod write;
mod zeroes;

pub use controller::Core;
pub use effect::Effect;
pub use event::Event;
