//! A directory in which nobody but its owner puts anything. What is in it is opened through its descriptor, so that nobody
//! leads this process elsewhere by a link, or by another directory in its place.

use rustix::fs::{AtFlags, Mode, OFlags, fstat, open, openat, statat, unlinkat};
use rustix::io::Errno;
use rustix::process::geteuid;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// Write access for the group and for all others. An access list that gives more shows in the bits of the group.
const OTHERS_WRITE: u32 = 0o022;

/// Why a directory is not taken for private.
#[derive(Debug, thiserror::Error)]
pub enum NotPrivate {
    /// It cannot be opened.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// Somebody else decides what is in it.
    #[error("{0}")]
    Refused(String),
}

/// A directory that is this user's own, and that nobody else may write to. Held open.
#[derive(Debug)]
pub struct PrivateDir(OwnedFd);

impl PrivateDir {
    /// Opens the directory at `path`.
    ///
    /// # Errors
    /// It cannot be opened, or is not private.
    pub fn open(path: &Path) -> Result<PrivateDir, NotPrivate> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        // Without a slash at its end, which would have a link followed.
        let dir = match open(path.components().as_path(), flags, Mode::empty()) {
            Ok(dir) => dir,
            Err(Errno::NOTDIR | Errno::LOOP) => {
                let why = "it is no directory; a symbolic link to one is not followed";
                return Err(NotPrivate::Refused(why.into()));
            }
            Err(e) => return Err(NotPrivate::Io(e.into())),
        };
        let stat = fstat(&dir).map_err(io::Error::from)?;
        check(stat.st_uid, stat.st_mode, geteuid().as_raw()).map_err(NotPrivate::Refused)?;
        Ok(PrivateDir(dir))
    }

    /// Opens the file `name` in it for reading and writing, or makes it; a link is not followed.
    pub(crate) fn open_or_make(&self, name: &OsStr) -> io::Result<File> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(openat(&self.0, name, flags, Mode::RUSR | Mode::WUSR)?.into())
    }

    /// Device and inode of what is called `name` in it.
    pub(crate) fn identity_of(&self, name: &OsStr) -> io::Result<(u64, u64)> {
        let stat = statat(&self.0, name, AtFlags::SYMLINK_NOFOLLOW)?;
        Ok((stat.st_dev, stat.st_ino))
    }

    /// Removes the file `name`.
    pub(crate) fn remove(&self, name: &OsStr) -> io::Result<()> {
        Ok(unlinkat(&self.0, name, AtFlags::empty())?)
    }
}

impl AsFd for PrivateDir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Whether a directory of `owner` with `mode` is that of user `own` alone.
fn check(owner: u32, mode: u32, own: u32) -> Result<(), String> {
    if owner != own {
        return Err(format!("it belongs to user {owner}, and this is user {own}"));
    }
    if mode & OTHERS_WRITE != 0 {
        return Err(format!("others may write to it: its mode is {:04o}", mode & 0o7777));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TempDir;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn who_else_may_write_is_told() {
        assert_eq!(check(7, 0o40700, 7), Ok(()));
        assert_eq!(check(7, 0o40755, 7), Ok(()));
        for mode in [0o40770, 0o40702, 0o41777] {
            assert!(check(7, mode, 7).is_err_and(|why| why.contains("others may write")));
        }
        let why = check(7, 0o40700, 0).expect_err("another's");
        assert!(why.contains("user 7") && why.contains("user 0"), "{why}");
    }

    #[test]
    fn a_directory_of_all_and_a_link_to_a_private_one_are_refused() {
        let dir = TempDir::in_memory("private");
        let (own, link) = (dir.path("own"), dir.path("link"));
        fs::create_dir(&own).expect("a directory");
        fs::set_permissions(&own, PermissionsExt::from_mode(0o700)).expect("a mode");
        symlink(&own, &link).expect("a link");
        PrivateDir::open(&own).expect("private");
        for not in [&link, &dir.path("link/"), &dir.path("link/.")] {
            let error = PrivateDir::open(not).expect_err("refused");
            assert!(matches!(error, NotPrivate::Refused(_)), "{}: {error}", not.display());
        }
        fs::set_permissions(&own, PermissionsExt::from_mode(0o1777)).expect("a mode");
        assert!(matches!(PrivateDir::open(&own), Err(NotPrivate::Refused(_))));
        // For root it is a directory that others may write to, for all others it is root's.
        assert!(matches!(
            PrivateDir::open(Path::new("/dev/shm")),
            Err(NotPrivate::Refused(_))
        ));
        assert!(matches!(PrivateDir::open(&dir.path("nowhere")), Err(NotPrivate::Io(_))));
    }
}
