//! What can go wrong between a host and an array.

use std::fmt;

use crate::iscsi::scsi::Sense;

/// An error of a connection or of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// The connection could not be made, or is gone. What was outstanding on it may or may not have happened.
    Connection(String),
    /// Nothing came in time. What was outstanding may still happen until the connection is closed.
    TimedOut(String),
    /// The other side does not follow the protocol. The connection is of no use any more.
    Protocol(String),
    /// A command was refused; the connection goes on.
    Refused(Refusal),
}

/// Why the array did not carry out a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// SCSI CHECK CONDITION.
    Sense(Sense),
    /// Another SCSI status (SAM-5 5.3.1): `0x08` BUSY, `0x18` RESERVATION CONFLICT, `0x28` TASK SET FULL, `0x40` TASK ABORTED.
    Status(u8),
    /// An error number of an NBD reply.
    Nbd(u32),
    /// The device does not offer this.
    Unsupported,
}

impl Refusal {
    /// Whether the same command may well succeed later, or on another path.
    pub fn is_transient(self) -> bool {
        match self {
            Refusal::Sense(sense) => sense.is_transient(),
            Refusal::Status(status) => matches!(status, 0x08 | 0x28 | 0x40),
            // ESHUTDOWN: this path ends.
            Refusal::Nbd(error) => error == 108,
            Refusal::Unsupported => false,
        }
    }
}

impl Error {
    /// Whether the same command may well succeed later, or on another path.
    pub fn is_transient(&self) -> bool {
        match self {
            Error::Connection(_) | Error::TimedOut(_) | Error::Protocol(_) => true,
            Error::Refused(refusal) => refusal.is_transient(),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::Sense(sense) => write!(f, "CHECK CONDITION, {sense:?}"),
            Refusal::Status(0x08) => f.write_str("BUSY"),
            Refusal::Status(0x18) => f.write_str("RESERVATION CONFLICT"),
            Refusal::Status(0x28) => f.write_str("TASK SET FULL"),
            Refusal::Status(0x40) => f.write_str("TASK ABORTED"),
            Refusal::Status(status) => write!(f, "SCSI status {status:#04x}"),
            Refusal::Nbd(error) => write!(f, "NBD error {error}"),
            Refusal::Unsupported => f.write_str("not offered by this device"),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Connection(what) => write!(f, "connection: {what}"),
            Error::TimedOut(what) => write!(f, "time-out: {what}"),
            Error::Protocol(what) => write!(f, "protocol error: {what}"),
            Error::Refused(refusal) => write!(f, "refused: {refusal}"),
        }
    }
}

impl std::error::Error for Error {}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Error {
        Error::Refused(refusal)
    }
}
