//! Why bytes were refused.

use std::fmt;
use twincell_core::ids::Uuid;

/// Why bytes were refused. Nothing of them was believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// Nothing but zeroes: it was never written.
    Blank {
        /// What was expected there.
        what: &'static str,
    },
    /// It does not begin as this format does.
    Magic {
        /// What was expected there.
        what: &'static str,
    },
    /// A format version that this program does not know.
    Version {
        /// Of what.
        what: &'static str,
        /// What was found.
        found: u16,
        /// The newest that this program reads.
        newest: u16,
    },
    /// The partner speaks none of the versions of the link protocol that this program speaks.
    NoCommonVersion {
        /// The oldest version that the partner speaks.
        oldest: u16,
        /// The newest version that the partner speaks.
        newest: u16,
    },
    /// It uses features that this program does not know, and says that it cannot be read without them.
    Features {
        /// Of what.
        what: &'static str,
        /// The bits that are not known.
        unknown: u32,
    },
    /// A checksum is wrong: it was damaged, or written only in part.
    Checksum {
        /// Of what.
        what: &'static str,
    },
    /// It ends too early.
    Short {
        /// What ends.
        what: &'static str,
    },
    /// There is more of it than its fields account for.
    Trailing {
        /// What goes on.
        what: &'static str,
    },
    /// It belongs to another cell.
    OtherCell {
        /// What belongs there.
        what: &'static str,
        /// The cell that it names.
        found: Uuid,
    },
    /// A field has a value that means nothing.
    Value {
        /// The field.
        field: &'static str,
        /// Its value, or the low 64 bits of it.
        value: u64,
    },
    /// A field or list is larger than it may be.
    TooLarge {
        /// The field.
        field: &'static str,
        /// Its value or length.
        value: u64,
        /// The most that it may be.
        most: u64,
    },
    /// Every field means something, but together they do not.
    Contradiction {
        /// What must hold and does not.
        rule: &'static str,
        /// Where: the index of the disk or of the LUN in its list, or 0.
        at: u64,
    },
}

/// What a decoder gives.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Error::Blank { what } => write!(f, "the {what} is blank: it was never written"),
            Error::Magic { what } => write!(f, "not a twincell {what}: the magic is wrong"),
            Error::Version { what, found, newest } if found > newest => write!(
                f,
                "the {what} has format version {found}, newer than version {newest} that this program reads"
            ),
            Error::Version { what, found, .. } => write!(f, "the {what} has format version {found}, which never was"),
            Error::NoCommonVersion { oldest, newest } => write!(
                f,
                "the partner speaks versions {oldest} to {newest} of the link protocol, this program none of them"
            ),
            Error::Features { what, unknown } => {
                write!(
                    f,
                    "the {what} uses features that this program does not know (bits {unknown:#x})"
                )
            }
            Error::Checksum { what } => write!(f, "the {what} is damaged: its checksum is wrong"),
            Error::Short { what } => write!(f, "the {what} ends too early"),
            Error::Trailing { what } => write!(f, "the {what} has more bytes than its fields account for"),
            Error::OtherCell { what, found } => write!(f, "the {what} belongs to another cell, {found}"),
            Error::Value { field, value } => write!(f, "{field}: {value:#x} means nothing here"),
            Error::TooLarge { field, value, most } => write!(f, "{field}: {value}, and {most} is the most"),
            Error::Contradiction { rule, at } => write!(f, "{rule} (not so at {at})"),
        }
    }
}

impl std::error::Error for Error {}
