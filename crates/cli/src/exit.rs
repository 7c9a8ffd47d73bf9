//! How a command ends: the exit codes that scripts rely on, and what an error tells a person.

use std::fmt;

/// The exit codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// Done.
    Done = 0,
    /// The command line or a file it names is wrong.
    Usage = 2,
    /// There is no such thing.
    NotFound = 3,
    /// A controller cannot be reached, or does not serve.
    Unreachable = 4,
    /// What is asked for contradicts what is there.
    Conflict = 5,
    /// It was understood and not done.
    Refused = 6,
    /// The time is up; the work goes on.
    TimedOut = 7,
    /// The operating system or the cell does not allow it.
    NotAllowed = 8,
}

/// The result of a command.
pub type Result<T> = std::result::Result<T, Failure>;

/// Why a command did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The exit code.
    pub code: Code,
    /// What happened, to what.
    pub what: String,
    /// What to do next; empty where `what` says it all.
    pub next: String,
}

impl Failure {
    /// A failure with nothing more to say.
    pub fn new(code: Code, what: impl Into<String>) -> Failure {
        Failure {
            code,
            what: what.into(),
            next: String::new(),
        }
    }

    /// With advice.
    #[must_use]
    pub fn next(mut self, next: impl Into<String>) -> Failure {
        self.next = next.into();
        self
    }

    /// The command line or a file is wrong.
    pub fn usage(what: impl Into<String>) -> Failure {
        Failure::new(Code::Usage, what)
    }

    /// An I/O error: what was being done, to what.
    pub fn io(doing: &str, to: impl fmt::Display, error: &std::io::Error) -> Failure {
        let code = match error.kind() {
            std::io::ErrorKind::NotFound => Code::NotFound,
            std::io::ErrorKind::PermissionDenied => Code::NotAllowed,
            std::io::ErrorKind::AddrInUse | std::io::ErrorKind::AlreadyExists => Code::Conflict,
            _ => Code::Refused,
        };
        Failure::new(code, format!("cannot {doing} {to}: {error}"))
    }

    /// A part of the surface that is not there yet.
    pub fn not_built(what: impl fmt::Display) -> Failure {
        Failure::new(Code::Refused, format!("{what} is not built yet"))
            .next("README.md has a table of what works in this version")
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        if !self.next.is_empty() {
            write!(f, "\n  {}", self.next)?;
        }
        Ok(())
    }
}
