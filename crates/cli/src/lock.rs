//! Which process is a controller: the one that holds the lock of its directory. A lock goes with its process, so
//! unlike a pid in a file it is never wrong.

use crate::config::make_private_dir;
use crate::exit::{Code, Failure, Result};
use rustix::fs::{FlockOperation, fcntl_lock};
use rustix::process::{Flock, FlockType, fcntl_getlk};
use std::fs::{File, OpenOptions};
use std::path::Path;

const FILE_NAME: &str = "lock";

/// The right to be a controller. Kept until the process ends.
///
/// This is a record lock (`fcntl`), because such a lock can be asked for without being taken. It would be lost if
/// the process opened the file once more and closed it, so nothing else opens it.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

/// Who holds a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    /// There never was one on this machine: the directory or the lock is not there.
    Never,
    /// Nobody now.
    Nobody,
    /// This process; `None` where it is in another PID namespace.
    Process(Option<u32>),
}

impl Lock {
    /// Takes the lock of a controller's directory, which is made if it is not there.
    pub fn take(dir: &Path, whose: &str) -> Result<Lock> {
        make_private_dir(dir)?;
        let path = dir.join(FILE_NAME);
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
        let file = file.map_err(|e| Failure::io("open", path.display(), &e))?;
        if fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() {
            return Ok(Lock { _file: file });
        }
        let pid = match holder(dir) {
            Holder::Process(Some(pid)) => format!(" as process {pid}"),
            _ => String::new(),
        };
        Err(Failure::new(Code::Conflict, format!("{whose} is running already{pid}"))
            .next("`twincell status` shows its state; `twincell controller stop` stops it"))
    }
}

/// Who holds the lock of a controller's directory.
pub fn holder(dir: &Path) -> Holder {
    let Ok(file) = OpenOptions::new().write(true).open(dir.join(FILE_NAME)) else {
        return Holder::Never;
    };
    match fcntl_getlk(&file, &Flock::from(FlockType::WriteLock)) {
        Ok(Some(lock)) => Holder::Process(lock.pid.map(|p| p.as_raw_nonzero().get() as u32)),
        _ => Holder::Nobody,
    }
}
