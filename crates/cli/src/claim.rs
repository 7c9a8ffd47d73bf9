//! The right to make a cell in a directory: a file there that only one process at a time can lock, and that becomes
//! `cell.toml`. A lock goes with its process, so a file that nobody has locked is the rest of a `cell create` that was
//! interrupted, and says what that had begun to make.

use crate::config::{CellConfig, FILE_NAME};
use crate::exit::{Code, Failure, Result};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use twincell_core::ids::{Controller, Uuid};

/// What `cell.toml` is called until the cell is there.
const CLAIM_NAME: &str = ".cell.toml.new";
/// How long another that makes a cell in the same directory is waited for.
pub const PATIENCE: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(20);

/// A directory in which this process makes a cell, and nobody else. When this goes before the cell is there, what was made
/// for it goes, and nothing else.
#[derive(Debug)]
pub struct Claim {
    dir: PathBuf,
    path: PathBuf,
    /// Locked.
    file: File,
    /// The directory itself was not there.
    dir_is_new: bool,
    /// Directories in it that were made.
    made: Vec<PathBuf>,
    /// The cell that one that was interrupted had begun on disks that were given: they may have its labels.
    begun: Option<CellConfig>,
    is_cell: bool,
}

impl Claim {
    /// Claims a directory. It is made if it is not there; what an interrupted `cell create` has left in it is removed; then
    /// it must be empty. `None` where a cell is there: another may have just made it, and is waited for.
    pub fn take(dir: &Path, patience: Duration) -> Result<Option<Claim>> {
        let deadline = Instant::now() + patience;
        loop {
            let claim = Claim::try_take(dir)?;
            // Looked for with the lock in hand: whoever had it may have made the cell just now.
            if dir.join(FILE_NAME).exists() {
                return Ok(None);
            }
            if let Some(mut claim) = claim {
                claim.clear()?;
                return Ok(Some(claim));
            }
            if Instant::now() > deadline {
                let what = format!("another `cell create` is making a cell in {}", dir.display());
                return Err(Failure::new(Code::Conflict, what).next("wait until it has ended, and ask again"));
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// `None` where another has it, or has just had it.
    fn try_take(dir: &Path) -> Result<Option<Claim>> {
        let dir_is_new = make_if_missing(dir)?;
        let path = dir.join(CLAIM_NAME);
        let file = match OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
        {
            Ok(file) => file,
            // Another had made the directory, and has removed it.
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(Failure::io("make", path.display(), &e)),
        };
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Ok(None),
            Err(e) => return Err(Failure::io("lock", path.display(), &e.into())),
        }
        let claim = Claim {
            dir: dir.to_owned(),
            path,
            file,
            dir_is_new,
            made: Vec::new(),
            begun: None,
            is_cell: false,
        };
        // Between the open and the lock it may have become a cell, or have been removed.
        Ok(claim.is_at_its_path().then_some(claim))
    }

    fn is_at_its_path(&self) -> bool {
        let identity = |m: std::io::Result<std::fs::Metadata>| m.ok().map(|m| (m.dev(), m.ino()));
        let own = identity(self.file.metadata());
        own.is_some() && own == identity(std::fs::symlink_metadata(&self.path))
    }

    /// Removes what an interrupted `cell create` has left, and makes sure that nothing else is there.
    fn clear(&mut self) -> Result<()> {
        let mut text = String::new();
        // One that is not whole, or says nothing, was left before anything else was made.
        if (&self.file).read_to_string(&mut text).is_ok()
            && let Ok(begun) = CellConfig::parse(self.dir.join(FILE_NAME), &text)
        {
            remove_rest(&begun);
            let given = |disk: &PathBuf| disk.parent() != Some(&disks_dir(&self.dir));
            self.begun = begun.disks.iter().any(given).then_some(begun);
        }
        let failed = |e| Failure::io("look into", self.dir.display(), &e);
        for entry in std::fs::read_dir(&self.dir).map_err(failed)? {
            if entry.map_err(failed)?.file_name() != CLAIM_NAME {
                let what = format!("{} is not empty, and not a cell", self.dir.display());
                return Err(
                    Failure::new(Code::Conflict, what).next("name an empty directory, or one that is not there yet")
                );
            }
        }
        Ok(())
    }

    /// The identity that a cell was begun with on just these disks, which is known by it: the same is begun again.
    pub fn begun_on(&self, disks: &[PathBuf]) -> Option<Uuid> {
        let begun = self.begun.as_ref().filter(|begun| begun.disks == disks);
        begun.map(|begun| begun.uuid)
    }

    /// Says what is about to be made, before anything of it is: the next one can tell from it what is the rest of this.
    pub fn announce(&self, config: &CellConfig) -> Result<()> {
        let text = config.to_text();
        let written = self
            .file
            .set_len(0)
            .and_then(|()| self.file.write_all_at(text.as_bytes(), 0))
            // Before a disk is written: after a power loss it says whose that is.
            .and_then(|()| self.file.sync_all())
            .and_then(|()| sync_dir(&self.dir));
        written.map_err(|e| Failure::io("write", self.path.display(), &e))
    }

    /// Makes a directory that only its owner may enter, and that nobody else has made.
    pub fn make_dir(&mut self, dir: PathBuf) -> Result<()> {
        let made = DirBuilder::new().mode(0o700).create(&dir);
        made.map_err(|e| Failure::io("make the directory", dir.display(), &e))?;
        self.made.push(dir);
        Ok(())
    }

    /// All is made: what was announced is a cell from here on.
    pub fn make_it_a_cell(mut self) -> Result<()> {
        let file = self.dir.join(FILE_NAME);
        let renamed = std::fs::rename(&self.path, &file).and_then(|()| sync_dir(&self.dir));
        renamed.map_err(|e| Failure::io("write", file.display(), &e))?;
        self.is_cell = true;
        Ok(())
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if self.is_cell || !self.is_at_its_path() {
            return;
        }
        // Only what is empty goes: the files of disks were removed by whoever made them.
        for part in self.made.drain(..).rev() {
            let _ = std::fs::remove_dir(part);
        }
        if let Some(begun) = &self.begun {
            // The next one is to know its disks again.
            let _ = self.announce(begun);
            return;
        }
        let _ = std::fs::remove_file(&self.path);
        if self.dir_is_new {
            let _ = std::fs::remove_dir(&self.dir);
        }
    }
}

/// What was made, renamed or removed in a directory stays so from here on.
fn sync_dir(dir: &Path) -> std::io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Whether the directory had to be made.
fn make_if_missing(dir: &Path) -> Result<bool> {
    let failed = |e: &std::io::Error| Failure::io("make", dir.display(), e);
    if let Some(parent) = dir.parent() {
        std::fs::create_dir_all(parent).map_err(|e| failed(&e))?;
    }
    match std::fs::create_dir(dir) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == ErrorKind::AlreadyExists => Ok(false),
        Err(e) => Err(failed(&e)),
    }
}

/// Where the files of disks are that are made with a cell.
pub fn disks_dir(dir: &Path) -> PathBuf {
    dir.join("disks")
}

/// Removes what was begun: of the disks only those that were made with it, of directories only those that are empty then.
fn remove_rest(begun: &CellConfig) {
    let disks = disks_dir(begun.dir());
    for disk in begun.disks.iter().filter(|d| d.parent() == Some(&disks)) {
        let _ = std::fs::remove_file(disk);
    }
    let parts = Controller::BOTH.map(|c| begun.controller_dir(c));
    for part in parts.iter().chain([&disks]) {
        let _ = std::fs::remove_dir(part);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::tests::config;
    use std::sync::Barrier;

    const LONG: Duration = Duration::from_secs(20);

    fn names(dir: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(dir).unwrap();
        entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn one_has_it_and_the_other_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let claim = Claim::take(dir.path(), LONG).unwrap().unwrap();
        let failure = Claim::take(dir.path(), Duration::ZERO).unwrap_err();
        assert_eq!(failure.code, Code::Conflict);
        assert!(failure.what.contains("another `cell create`"), "{}", failure.what);
        claim.announce(&config()).unwrap();
        claim.make_it_a_cell().unwrap();
        assert!(Claim::take(dir.path(), LONG).unwrap().is_none());
        assert_eq!(names(dir.path()), [FILE_NAME]);
    }

    #[test]
    fn who_gives_up_leaves_what_is_not_its_own() {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("deep/cell");
        let mut claim = Claim::take(&dir, LONG).unwrap().unwrap();
        claim.make_dir(dir.join("disks")).unwrap();
        std::fs::create_dir(dir.join("A")).unwrap();
        assert_eq!(claim.make_dir(dir.join("A")).unwrap_err().code, Code::Conflict);
        drop(claim);
        assert_eq!(names(&dir), ["A"]);
        std::fs::remove_dir(dir.join("A")).unwrap();
        drop(Claim::take(&dir, LONG).unwrap().unwrap());
        assert_eq!(names(&dir).len(), 0, "it was there before");
        std::fs::remove_dir(&dir).unwrap();
        drop(Claim::take(&dir, LONG).unwrap().unwrap());
        assert!(!dir.exists());
    }

    /// Each of many makes the cell or finds it, and it is made once.
    #[test]
    fn of_many_one_makes_it() {
        const MANY: usize = 8;
        for _ in 0..20 {
            let parent = tempfile::tempdir().unwrap();
            let dir = parent.path().join("cell");
            let ready = Barrier::new(MANY);
            let make = || {
                ready.wait();
                let Some(mut claim) = Claim::take(&dir, LONG).unwrap() else {
                    return 0;
                };
                claim.announce(&config()).unwrap();
                claim.make_dir(dir.join("A")).unwrap();
                claim.make_it_a_cell().unwrap();
                1
            };
            let made: usize = std::thread::scope(|scope| {
                let threads: Vec<_> = (0..MANY).map(|_| scope.spawn(make)).collect();
                threads.into_iter().map(|t| t.join().unwrap()).sum()
            });
            assert_eq!(made, 1);
            assert!(dir.join(FILE_NAME).exists() && dir.join("A").exists());
        }
    }

    /// Who fails while others wait hands it on.
    #[test]
    fn who_waits_has_it_next() {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("cell");
        let mut first = Claim::take(&dir, LONG).unwrap().unwrap();
        first.make_dir(dir.join("A")).unwrap();
        std::thread::scope(|scope| {
            let second = scope.spawn(|| Claim::take(&dir, LONG).unwrap().is_some());
            drop(first);
            assert!(second.join().unwrap());
        });
    }
}
