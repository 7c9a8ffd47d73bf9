//! What the tests of several modules need.

use crate::create::{DISK_BYTES_MIN, NewDisk, create_disks};
use crate::settings::{FenceChoice, Settings};
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::RwLock;
use std::sync::atomic::{AtomicU32, Ordering};
use twincell_core::ids::{Controller, Uuid};

/// Between fork and exec a child has every descriptor of its parent, and with them the locks. So a test that starts
/// a process writes here meanwhile, and a test that waits for a lock to be given back reads.
pub(crate) static FORKS: RwLock<()> = RwLock::new(());

/// A directory that is removed at the end of a test.
pub(crate) struct TempDir(PathBuf);

impl TempDir {
    /// On the disk that the build is on.
    pub(crate) fn on_disk(name: &str) -> TempDir {
        let exe = std::env::current_exe().expect("the path of this program");
        TempDir::under(exe.parent().expect("its directory"), name)
    }

    /// On tmpfs.
    pub(crate) fn in_memory(name: &str) -> TempDir {
        TempDir::under(Path::new("/dev/shm"), name)
    }

    fn under(parent: &Path, name: &str) -> TempDir {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = parent.join(format!("twincell-test-{name}-{}-{count}", std::process::id()));
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&path);
        made.expect("a directory for the test");
        TempDir(path)
    }

    /// A path in it.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// An address of this machine that nobody uses: below the ports that the kernel gives away, so that it stays free.
pub(crate) fn free_address() -> SocketAddr {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    loop {
        let n = std::process::id().wrapping_mul(97) + COUNT.fetch_add(1, Ordering::Relaxed);
        let address = SocketAddr::from(([127, 0, 0, 1], 10_000 + (n % 20_000) as u16));
        if std::net::TcpListener::bind(address).is_ok() {
            return address;
        }
    }
}

/// Settings of a cell called `test`, without disks, in `dir`.
pub(crate) fn settings(dir: &TempDir, controller: Controller) -> Settings {
    Settings {
        controller,
        cell_name: "test".into(),
        cell: Uuid(0xce11),
        target_name: "iqn.2026-11.io.twincell:test".into(),
        disks: Vec::new(),
        fence: FenceChoice::Kill,
        cache_bytes: 1 << 20,
        nv_memory: dir.path(&format!("nv-{controller}")),
        link: [vec![free_address()], Vec::new()],
        iscsi: [Vec::new(), Vec::new()],
        nbd: [Vec::new(), Vec::new()],
    }
}

/// Settings of a cell called `test` with `count` disks in `dir`, which are made.
pub(crate) fn settings_with_disks(dir: &TempDir, controller: Controller, count: usize) -> Settings {
    let mut settings = settings(dir, controller);
    settings.disks = (0..count).map(|i| dir.path(&format!("disk{i}"))).collect();
    let disk = |path: &PathBuf| NewDisk {
        path: path.clone(),
        size_bytes: Some(DISK_BYTES_MIN),
    };
    let disks: Vec<NewDisk> = settings.disks.iter().map(disk).collect();
    create_disks(settings.cell, &settings.cell_name, &disks, false).expect("disks");
    settings
}
