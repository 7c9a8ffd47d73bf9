//! A small iSCSI and NBD initiator, and what is built on it: a volume over several paths, a load generator that checks
//! every byte it reads, and benchmarks. Blocking calls and threads; no `unsafe`.
#![forbid(unsafe_code)]

pub mod bench;
mod bytes;
pub mod checker;
pub mod device;
mod error;
pub mod iscsi;
pub mod multipath;
pub mod nbd;
mod transport;
pub mod two_hop;
mod url;

pub use error::{Error, Refusal};
pub use url::{BadUrl, Url};
