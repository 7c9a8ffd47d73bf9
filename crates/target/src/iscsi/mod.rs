//! iSCSI target sessions without I/O (RFC 7143)
//!
//! [`IscsiSession`] is one connection, which is a whole session here: MaxConnections is 1 and ErrorRecoveryLevel 0.

mod command;
mod data_in;
mod data_out;
mod keys;
mod login;
mod management;
mod pdu;
mod receiver;
mod session;
mod task;
mod text;

pub use session::{COMMAND_WINDOW, DATA_IN_BYTES_MAX, IscsiSession};
