//! Disks that fail when they are told to: a small file system in this process (FUSE), whose files are the disks and
//! which passes everything on to files below it.
//!
//! Locks on the disks are the kernel's own, as on any local file system. Each disk has a thread of its own, so a disk
//! that stalls keeps no other from working. One thing is unlike a block device: the kernel locks a file of FUSE for as
//! long as a flush of it is under way, so a flush that stalls holds up even who only submits a write to that disk.

use crate::keeper::Keeper;
use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo,
    InitFlags, KernelConfig, LockOwner, MountOption, OpenFlags, ReplyAttr, ReplyData, ReplyEmpty, ReplyEntry,
    ReplyOpen, ReplyWrite, Request, WriteFlags,
};
use rustix::fs::{FallocateFlags, fallocate};
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant, SystemTime};
use tempfile::TempDir;

/// The kernel need not ask again.
const FOR_EVER: Duration = Duration::from_secs(1 << 20);
const BLOCK: usize = 512;

/// What is wrong with a disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Trouble {
    /// Nothing.
    #[default]
    None,
    /// Every read, write and flush is answered with an error, and nothing lands.
    Errors,
    /// Every write and flush is answered with an error. Of the writes some land whole, some half, some not at all.
    WriteErrors,
    /// Nothing is answered before this is over. Then all of it is carried out.
    Stall,
    /// Each answer comes so long after it was asked for, at the earliest.
    Slow(Duration),
}

/// What one disk is told.
#[derive(Default)]
struct Order {
    trouble: Mutex<Trouble>,
    changed: Condvar,
}

impl Order {
    fn trouble(&self) -> MutexGuard<'_, Trouble> {
        self.trouble.lock().expect("no thread of a disk panics with the lock")
    }

    /// What is wrong, as soon as that is no stall.
    fn after_stall(&self) -> Trouble {
        let stalled = |t: &mut Trouble| *t == Trouble::Stall;
        let trouble = self.changed.wait_while(self.trouble(), stalled);
        *trouble.expect("no thread of a disk panics with the lock")
    }
}

/// Disks under one directory, which are told what to suffer.
pub struct Shelf {
    // Taken apart from the top: first the mount goes, then what is below it.
    session: Option<BackgroundSession>,
    keeper: Keeper,
    orders: Vec<Arc<Order>>,
    dir: TempDir,
}

impl Shelf {
    /// Makes `disks` disks of `bytes` bytes in a directory of their own in `parent`.
    pub fn mount(parent: &Path, disks: usize, bytes: u64) -> Result<Shelf, String> {
        let failed = |e: io::Error| format!("a file system for disks in {}: {e}", parent.display());
        let dir = tempfile::Builder::new()
            .prefix("shelf-")
            .tempdir_in(parent)
            .map_err(failed)?;
        let (below, above) = (dir.path().join("below"), dir.path().join("disks"));
        std::fs::create_dir(&below).map_err(failed)?;
        std::fs::create_dir(&above).map_err(failed)?;
        let orders: Vec<Arc<Order>> = (0..disks).map(|_| Arc::default()).collect();
        let mut files = Files { bytes, disks: vec![] };
        for (n, order) in orders.iter().enumerate() {
            let path = below.join(n.to_string());
            let file = File::options().read(true).write(true).create_new(true).open(path);
            let file = file.map_err(failed)?;
            file.set_len(bytes).map_err(failed)?;
            let (sender, jobs) = channel();
            let order = Arc::clone(order);
            std::thread::spawn(move || work(&file, &order, &jobs));
            files.disks.push(Mutex::new(sender));
        }
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("twincell-shelf".to_owned())];
        let session = fuser::spawn_mount(files, &above, &config).map_err(failed)?;
        let keeper = Keeper::new(r#"umount -l "$1" 2>/dev/null || fusermount3 -uqz "$1""#, &[&above]);
        Ok(Shelf {
            session: Some(session),
            keeper,
            orders,
            dir,
        })
    }

    /// The disks.
    pub fn paths(&self) -> Vec<PathBuf> {
        let disks = self.dir.path().join("disks");
        (0..self.orders.len()).map(|n| disks.join(n.to_string())).collect()
    }

    /// Tells disk `n` what to suffer from now on.
    pub fn tell(&self, n: usize, trouble: Trouble) {
        *self.orders[n].trouble() = trouble;
        self.orders[n].changed.notify_all();
    }

    /// Leaves the files below the disks where they are when this goes; where that is.
    pub fn keep(&mut self) -> PathBuf {
        self.dir.disable_cleanup(true);
        self.dir.path().join("below")
    }
}

impl Drop for Shelf {
    fn drop(&mut self) {
        // What still waits is let go, or its processes could not end.
        (0..self.orders.len()).for_each(|n| self.tell(n, Trouble::None));
        self.keeper.end();
        if let Some(session) = self.session.take() {
            // It is not mounted any more; its thread has nobody to listen to.
            let _ = session.umount_and_join();
        }
    }
}

/// Something that a disk is to do.
enum Job {
    Read(u64, u32, ReplyData),
    Write(u64, Vec<u8>, ReplyWrite),
    Flush(ReplyEmpty),
    Punch(u64, u64, ReplyEmpty),
}

/// One disk at work.
fn work(file: &File, order: &Order, jobs: &Receiver<(Instant, Job)>) {
    let mut writes = 0;
    for (asked, job) in jobs {
        let trouble = order.after_stall();
        if let Trouble::Slow(by) = trouble {
            std::thread::sleep(by.saturating_sub(asked.elapsed()));
        }
        let fails = trouble == Trouble::Errors;
        let fails_writes = fails || trouble == Trouble::WriteErrors;
        match job {
            Job::Read(_, _, reply) if fails => reply.error(Errno::EIO),
            Job::Read(offset, size, reply) => {
                let mut bytes = vec![0; size as usize];
                match read_at(file, &mut bytes, offset) {
                    Ok(length) => reply.data(&bytes[..length]),
                    Err(e) => reply.error(e.into()),
                }
            }
            Job::Write(offset, bytes, reply) if fails_writes => {
                writes += 1;
                let blocks = bytes.len() / BLOCK;
                let landed = if fails { 0 } else { blocks * (writes % 3) / 2 };
                // It is an error whatever becomes of this.
                let _ = file.write_all_at(&bytes[..landed * BLOCK], offset);
                reply.error(Errno::EIO);
            }
            Job::Write(offset, bytes, reply) => match file.write_all_at(&bytes, offset) {
                Ok(()) => reply.written(bytes.len() as u32),
                Err(e) => reply.error(e.into()),
            },
            Job::Flush(reply) | Job::Punch(_, _, reply) if fails_writes => reply.error(Errno::EIO),
            Job::Flush(reply) => answer(reply, file.sync_data()),
            Job::Punch(offset, length, reply) => {
                let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                answer(reply, fallocate(file, flags, offset, length).map_err(Into::into));
            }
        }
    }
}

fn answer(reply: ReplyEmpty, result: io::Result<()>) {
    match result {
        Ok(()) => reply.ok(),
        Err(e) => reply.error(e.into()),
    }
}

/// Reads until `bytes` is full or the file ends; how much that was.
fn read_at(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut length = 0;
    while length < bytes.len() {
        match file.read_at(&mut bytes[length..], offset + length as u64)? {
            0 => break,
            more => length += more,
        }
    }
    Ok(length)
}

/// The file system: one directory, whose files are called by their numbers. File n is inode n + 2.
struct Files {
    bytes: u64,
    disks: Vec<Mutex<Sender<(Instant, Job)>>>,
}

impl Files {
    fn attributes(&self, ino: INodeNo) -> Option<FileAttr> {
        let is_root = ino == INodeNo::ROOT;
        if !is_root && self.disk(ino).is_none() {
            return None;
        }
        let epoch = SystemTime::UNIX_EPOCH;
        let size = if is_root { 0 } else { self.bytes };
        Some(FileAttr {
            ino,
            size,
            blocks: size / BLOCK as u64,
            atime: epoch,
            mtime: epoch,
            ctime: epoch,
            crtime: epoch,
            kind: if is_root {
                FileType::Directory
            } else {
                FileType::RegularFile
            },
            perm: if is_root { 0o700 } else { 0o600 },
            nlink: 1,
            uid: rustix::process::getuid().as_raw(),
            gid: rustix::process::getgid().as_raw(),
            rdev: 0,
            blksize: 4096,
            flags: 0,
        })
    }

    fn disk(&self, ino: INodeNo) -> Option<&Mutex<Sender<(Instant, Job)>>> {
        let n = u64::from(ino).checked_sub(2)?;
        self.disks.get(usize::try_from(n).ok()?)
    }

    /// Gives a job to a disk. If there is no such disk, the job is dropped, and its reply is an error by itself.
    fn give(&self, ino: INodeNo, job: Job) {
        if let Some(disk) = self.disk(ino) {
            let _ = disk
                .lock()
                .expect("nobody panics with the lock")
                .send((Instant::now(), job));
        }
    }
}

impl Filesystem for Files {
    /// Direct I/O keeps nobody waiting who does not want to wait, whatever the disk does; and no disk's requests use up
    /// what the kernel allows for all of them.
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        let lacking = |_| io::Error::from(io::ErrorKind::Unsupported);
        config.add_capabilities(InitFlags::FUSE_ASYNC_DIO).map_err(lacking)?;
        config
            .set_max_background(u16::MAX)
            .map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let n = name.to_str().and_then(|n| n.parse::<u64>().ok());
        let found = n
            .filter(|_| parent == INodeNo::ROOT)
            .and_then(|n| self.attributes(INodeNo(n + 2)));
        match found {
            Some(attributes) => reply.entry(&FOR_EVER, &attributes, Generation(0)),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.attributes(ino) {
            Some(attributes) => reply.attr(&FOR_EVER, &attributes),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let flags = FopenFlags::FOPEN_DIRECT_IO | FopenFlags::FOPEN_PARALLEL_DIRECT_WRITES | FopenFlags::FOPEN_NOFLUSH;
        reply.opened(FileHandle(0), flags);
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        self.give(ino, Job::Read(offset, size, reply));
    }

    fn write(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        self.give(ino, Job::Write(offset, data.to_vec(), reply));
    }

    fn fsync(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        self.give(ino, Job::Flush(reply));
    }

    fn fallocate(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        if mode as u32 == punch.bits() {
            self.give(ino, Job::Punch(offset, length, reply));
        } else {
            reply.error(Errno::EOPNOTSUPP);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::FlockOperation;
    use std::os::unix::fs::OpenOptionsExt;

    const BYTES: u64 = 1 << 20;

    fn shelf() -> Shelf {
        Shelf::mount(&std::env::temp_dir(), 2, BYTES).expect("disks")
    }

    fn open(path: &Path) -> File {
        let direct = rustix::fs::OFlags::DIRECT.bits() as i32;
        let file = File::options().read(true).write(true).custom_flags(direct).open(path);
        file.expect("a disk that does direct I/O")
    }

    #[test]
    fn a_sound_disk_keeps_what_is_written() {
        let shelf = shelf();
        let paths = shelf.paths();
        let disk = open(&paths[1]);
        assert_eq!(disk.metadata().expect("its size").len(), BYTES);
        disk.write_all_at(&[7; 4096], 8192).expect("written");
        disk.sync_data().expect("flushed");
        let mut bytes = vec![0; 4096];
        open(&paths[1]).read_exact_at(&mut bytes, 8192).expect("read");
        assert_eq!(bytes, [7; 4096]);
    }

    #[test]
    fn a_disk_fails_when_it_is_told_to_and_the_other_does_not() {
        let shelf = shelf();
        let disks: Vec<File> = shelf.paths().iter().map(|p| open(p)).collect();
        let mut bytes = vec![0; 512];
        shelf.tell(0, Trouble::Errors);
        assert!(disks[0].read_at(&mut bytes, 0).is_err());
        assert!(disks[0].write_at(&bytes, 0).is_err());
        assert!(disks[0].sync_data().is_err());
        disks[1].write_all_at(&bytes, 0).expect("written");
        shelf.tell(0, Trouble::WriteErrors);
        assert!(disks[0].write_at(&bytes, 0).is_err());
        disks[0].read_exact_at(&mut bytes, 0).expect("read");
        shelf.tell(0, Trouble::None);
        disks[0].write_all_at(&bytes, 0).expect("written");
    }

    #[test]
    fn a_stall_ends_with_what_was_asked_for() {
        let shelf = shelf();
        let disk = open(&shelf.paths()[0]);
        shelf.tell(0, Trouble::Stall);
        let stall = Duration::from_millis(100);
        let begun = Instant::now();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(stall);
                shelf.tell(0, Trouble::None);
            });
            disk.write_all_at(&[1; 512], 0).expect("written");
        });
        assert!(begun.elapsed() >= stall);
    }

    #[test]
    fn a_lock_keeps_others_out() {
        let shelf = shelf();
        let path = &shelf.paths()[0];
        let first = open(path);
        rustix::fs::flock(&first, FlockOperation::NonBlockingLockExclusive).expect("locked");
        let second = open(path);
        assert!(rustix::fs::flock(&second, FlockOperation::NonBlockingLockExclusive).is_err());
        drop(first);
        rustix::fs::flock(&second, FlockOperation::NonBlockingLockExclusive).expect("locked");
    }
}
