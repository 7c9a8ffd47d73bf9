//! The simulator: two controllers, a wire, disks, NV memory and hosts in one process, driven by a seed.
//!
//! It drives the product's own core. A block is one 64-bit value, which tells the write and the place in its data: the core never
//! touches payload, so that is as good as 512 bytes. Time jumps from one thing that happens to the next. The same seed gives the same run.
//!
//! | file | what it is |
//! |---|---|
//! | `world` | everything, and the queue of what happens next |
//! | `process` | one controller's process: carries out the effects of its core |
//! | `disks` | the shared disks, and what is in flight to them |
//! | `hosts` | hosts that write, read, abort and retry |
//! | `history` | the oracle: what a read may return |
//! | `licence` | the oracle: how long a process may answer hosts |
//! | `world/answers` | the oracle: what a host is told is so |
//! | `fault` | what can go wrong |
//! | `ailment` | what a disk or the link has for good |
//! | `instant` | moments in what a controller does |
//! | `trigger` | faults that come at such a moment |
//! | `slowness` | what takes long in some cells |
//! | `wishes` | what operators of a busy cell want |
//! | `shape` | which disks a cell has |
//! | `plan` | which faults a seed brings, and when |
//! | `world/atlas` | which copy is the last good one |
//! | `trace` | runs a script, and the mutants that it must catch |
//! | `Scenario` | a script for the same world, in place of a seed |
#![forbid(unsafe_code)]
#![warn(missing_docs)]
#![allow(clippy::large_enum_variant)]

pub mod ailment;
pub mod clock;
pub mod digest;
pub mod disks;
pub mod enumerate;
pub mod fault;
pub mod frame_order;
pub mod history;
pub mod hosts;
pub mod image_check;
pub mod instant;
pub mod licence;
pub mod marks;
pub mod plan;
pub mod play;
pub mod process;
pub mod random;
pub mod shape;
pub mod shrink;
pub mod slowness;
mod trace;
pub mod trigger;
pub mod wishes;
pub mod world;

pub use trace::trace;
pub use world::{Report, Scenario, Sent, Step, run, run_plan, run_told};
