//! A block device without a disk: a file behind a loop device. Takes root.

use crate::keeper::Keeper;
use crate::tool::{Ended, run};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(30);

/// A loop device. When it goes, what is mounted of it goes too.
#[derive(Debug)]
pub struct LoopDevice {
    path: PathBuf,
    mount_point: PathBuf,
    keeper: Keeper,
}

impl LoopDevice {
    /// A device of `bytes` bytes, all zero, on a file in `dir`.
    #[track_caller]
    pub fn new(dir: &Path, bytes: u64) -> LoopDevice {
        let (file, mount_point) = (dir.join("loop"), dir.join("mounted"));
        File::create(&file).and_then(|f| f.set_len(bytes)).expect("a file");
        std::fs::create_dir(&mount_point).expect("a directory");
        let made = run("losetup", &["--find", "--show", file.to_str().expect("a path")], LIMIT).success();
        let path = PathBuf::from(made.stdout.trim());
        let script = r#"umount "$2" 2>/dev/null; losetup --detach "$1""#;
        LoopDevice {
            keeper: Keeper::new(script, &[&path, &mount_point]),
            path,
            mount_point,
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes an ext4 file system on it.
    #[track_caller]
    pub fn make_file_system(&self) {
        self.run("mkfs.ext4", &["-q"], &[]).success();
    }

    /// Mounts it; where.
    #[track_caller]
    pub fn mount(&self) -> &Path {
        self.run("mount", &[], &[self.mount_point()]).success();
        &self.mount_point
    }

    /// The opposite.
    #[track_caller]
    pub fn unmount(&self) {
        run("umount", &[self.mount_point()], LIMIT).success();
    }

    /// Whether the file system on it is whole.
    #[track_caller]
    pub fn check_file_system(&self) {
        self.run("fsck.ext4", &["-f", "-n"], &[]).success();
    }

    fn run(&self, program: &str, before: &[&str], after: &[&str]) -> Ended {
        let device = [self.path.to_str().expect("a path")];
        run(program, &[before, &device, after].concat(), LIMIT)
    }

    fn mount_point(&self) -> &str {
        self.mount_point.to_str().expect("a path")
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        self.keeper.end();
    }
}
