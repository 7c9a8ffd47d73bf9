//! The disks of the cell: opened past the page cache where the medium allows, and only if their labels say that they
//! are what the settings say.

use crate::error::OpenError;
use crate::memory::Pages;
use crate::settings::Settings;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tracing::{info, warn};
use twincell_core::ids::{BLOCK_BYTES, DiskIndex, QUORUM_MAX};
use twincell_core::list::List;
use twincell_wire::label::{self, LABEL_BYTES, Label};
use twincell_wire::layout::LABEL_OFFSETS;

/// How long a disk that is not there is waited for at the start.
const PATIENCE: Duration = Duration::from_secs(3);

/// A disk that belongs to this cell, at its place.
pub(crate) struct Disk {
    /// Where it is.
    pub path: PathBuf,
    /// What it says of itself.
    pub label: Label,
    /// Which device it is, or which file.
    pub identity: Identity,
    file: File,
}

impl Disk {
    /// The descriptor that all I/O and all locks go through.
    pub(crate) fn fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }

    /// The same open file once more.
    pub(crate) fn try_clone_file(&self) -> io::Result<File> {
        self.file.try_clone()
    }

    pub(crate) fn is_block_device(&self) -> bool {
        self.file.metadata().is_ok_and(|m| m.file_type().is_block_device())
    }

    /// Its size in bytes, as its label says.
    pub(crate) fn bytes(&self) -> u64 {
        self.label.blocks * BLOCK_BYTES as u64
    }
}

/// Opens all disks of the settings and checks them: `None` where one is missing. A disk that is lost is one fault, and a
/// controller starts all the same; but a majority of the disks that vote must be there.
pub(crate) fn open_all(settings: &Settings) -> Result<Vec<Option<Disk>>, OpenError> {
    let mut disks: Vec<Option<Disk>> = Vec::new();
    for path in &settings.disks {
        let disk = match open(path) {
            Err(e) if is_missing(&e) => {
                warn!("goes on without a disk: {e}");
                disks.push(None);
                continue;
            }
            opened => opened?,
        };
        let same = |other: &&Disk| other.label.disk == disk.label.disk || other.identity == disk.identity;
        if let Some(first) = disks.iter().flatten().find(same) {
            return Err(OpenError::DiskTwice {
                first: first.path.clone(),
                second: path.clone(),
            });
        }
        check(&disk, disks.len() as u16, settings)?;
        disks.push(Some(disk));
    }
    check_votes(settings, &disks)?;
    Ok(disks)
}

/// Opens the disk at place `n` of the settings, while the cell runs.
///
/// # Errors
/// It is not there, does not answer, or is not the disk of that place.
pub(crate) fn open_at(n: u16, settings: &Settings) -> Result<Disk, OpenError> {
    let disk = open(&settings.disks[usize::from(n)])?;
    check(&disk, n, settings)?;
    Ok(disk)
}

/// Waits a moment for disks that are not there: when a machine starts, they may come later than the controller.
pub(crate) fn await_paths(paths: &[PathBuf]) {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline && paths.iter().any(|p| !p.exists()) {
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The disks that vote.
pub(crate) type Voters = List<DiskIndex, QUORUM_MAX>;

/// Whether something is so on most of the disks that vote.
pub(crate) fn is_majority(voters: &Voters, is_so: impl Fn(usize) -> bool) -> bool {
    let votes = voters.iter().filter(|disk| is_so(disk.index())).count();
    votes > voters.len() / 2
}

/// Whether the disk is gone: not there, or not answering even to who it is.
fn is_missing(error: &OpenError) -> bool {
    const GONE: [i32; 4] = [libc::EIO, libc::ENXIO, libc::ENODEV, libc::EREMOTEIO];
    match error {
        OpenError::DiskMissing { .. } => true,
        OpenError::Disk { source, .. } => source.raw_os_error().is_some_and(|e| GONE.contains(&e)),
        _ => false,
    }
}

/// Those that vote, as the labels have it.
pub(crate) fn voters(disks: &[Option<Disk>]) -> Voters {
    let first = disks.iter().flatten().next();
    first.map_or_else(List::new, |disk| disk.label.quorum)
}

/// Whether enough is there to decide anything.
fn check_votes(settings: &Settings, disks: &[Option<Disk>]) -> Result<(), OpenError> {
    let Some(first) = disks.iter().flatten().next() else {
        return Err(match settings.disks.first() {
            Some(path) => OpenError::DiskMissing { path: path.clone() },
            None => OpenError::Settings("the settings list no disk".into()),
        });
    };
    let votes = first.label.quorum;
    let there = votes
        .iter()
        .filter(|d| matches!(disks.get(d.index()), Some(Some(_))))
        .count();
    let needed = votes.len() / 2 + 1;
    if there >= needed {
        return Ok(());
    }
    let missing = settings.disks.iter().zip(disks).filter(|(_, disk)| disk.is_none());
    Err(OpenError::VotesMissing {
        missing: missing.map(|(path, _)| path.clone()).collect(),
        there,
        needed,
    })
}

fn open(path: &Path) -> Result<Disk, OpenError> {
    let failed = |what| {
        move |source| OpenError::Disk {
            path: path.into(),
            what,
            source,
        }
    };
    let medium = Medium::open(path).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => OpenError::DiskMissing { path: path.into() },
        _ => failed("cannot be opened")(source),
    })?;
    if medium.sector_bytes as usize > BLOCK_BYTES {
        return Err(OpenError::SectorSize {
            path: path.into(),
            bytes: medium.sector_bytes,
        });
    }
    let label = match read_labels(&medium.file).map_err(failed("its label cannot be read"))? {
        [Ok(label), _] | [_, Ok(label)] => label,
        [Err(a), Err(b)] => match (a, b) {
            (twincell_wire::Error::Blank { .. }, twincell_wire::Error::Blank { .. }) => {
                return Err(OpenError::NotLabelled { path: path.into() });
            }
            (a, b) => {
                return Err(OpenError::LabelDamaged {
                    path: path.into(),
                    first: a.to_string(),
                    second: b.to_string(),
                });
            }
        },
    };
    if medium.bytes < label.blocks * BLOCK_BYTES as u64 {
        return Err(OpenError::DiskShort {
            path: path.into(),
            has: medium.bytes,
            label: label.blocks * BLOCK_BYTES as u64,
        });
    }
    if !medium.direct {
        info!(disk = %path.display(), "the medium offers no direct I/O; the page cache is in between");
    }
    let disk = Disk {
        path: path.into(),
        label,
        identity: medium.identity,
        file: medium.file,
    };
    Ok(disk)
}

/// Whether the disk belongs to this cell, at place `listed`.
fn check(disk: &Disk, listed: u16, settings: &Settings) -> Result<(), OpenError> {
    let label = &disk.label;
    if label.cell != settings.cell {
        return Err(OpenError::AnotherCell {
            path: disk.path.clone(),
            theirs: label.cell,
            theirs_name: label.cell_name.as_str().into(),
            ours: settings.cell,
            ours_name: settings.cell_name.clone(),
        });
    }
    if label.index.0 != listed {
        return Err(OpenError::DiskOrder {
            path: disk.path.clone(),
            label: label.index.0,
            listed,
        });
    }
    if usize::from(label.disks) != settings.disks.len() {
        return Err(OpenError::DiskCount {
            listed: settings.disks.len(),
            label: label.disks,
        });
    }
    Ok(())
}

/// Both copies of the label of a disk.
pub(crate) type Labels = [Result<Label, twincell_wire::Error>; 2];

/// Reads both copies of the label of a disk.
pub(crate) fn read_labels(file: &File) -> io::Result<Labels> {
    let read = |offset| -> io::Result<Result<Label, twincell_wire::Error>> {
        let mut page = Pages::new(LABEL_BYTES);
        file.read_exact_at(page.bytes_mut(), offset)?;
        let bytes = page.bytes().first_chunk().expect("a page is as long as a label");
        Ok(label::decode(bytes))
    };
    Ok([read(LABEL_OFFSETS[0])?, read(LABEL_OFFSETS[1])?])
}

/// What tells whether two paths are one disk: device and inode, or of a block device the device that it is.
pub(crate) type Identity = (u64, u64);

pub(crate) fn identity_of(metadata: &Metadata) -> Identity {
    if metadata.file_type().is_block_device() {
        (u64::MAX, metadata.rdev())
    } else {
        (metadata.dev(), metadata.ino())
    }
}

/// A file or block device, whatever is on it.
pub(crate) struct Medium {
    pub file: File,
    pub bytes: u64,
    /// Whether I/O goes past the page cache.
    pub direct: bool,
    /// Bytes of the smallest write.
    pub sector_bytes: u32,
    pub identity: Identity,
}

impl Medium {
    /// Opens what is at `path`.
    pub(crate) fn open(path: &Path) -> io::Result<Medium> {
        Medium::open_with(path, 0)
    }

    /// Opens what is at `path` to make a disk of it. A block device that something has for its own (what is mounted there, md,
    /// device-mapper, swap) is refused with EBUSY, and is had by nobody else while this is open.
    pub(crate) fn open_alone(path: &Path) -> io::Result<Medium> {
        // Without O_CREAT it says something of block devices only (open(2)).
        let identity = |m: &Metadata| (identity_of(m), m.file_type().is_block_device());
        let seen = identity(&fs::metadata(path)?);
        let medium = Medium::open_with(path, if seen.1 { libc::O_EXCL } else { 0 })?;
        if identity(&medium.file.metadata()?) != seen {
            return Err(io::Error::other("it was replaced while it was opened"));
        }
        Ok(medium)
    }

    fn open_with(path: &Path, more: libc::c_int) -> io::Result<Medium> {
        let open = |flags| {
            let mut options = OpenOptions::new();
            options.read(true).write(true).custom_flags(flags | more).open(path)
        };
        let mut direct = true;
        let mut file = open(libc::O_DIRECT).or_else(|e| {
            direct = false;
            if e.raw_os_error() == Some(libc::EINVAL) {
                open(0)
            } else {
                Err(e)
            }
        })?;
        let kind = file.metadata()?.file_type();
        if !kind.is_file() && !kind.is_block_device() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "neither a file nor a block device",
            ));
        }
        let mut sector_bytes = BLOCK_BYTES as u32;
        if kind.is_block_device() {
            sector_bytes = logical_sector_bytes(&file)?;
        } else if direct && direct_alignment(&file).is_some_and(|bytes| bytes > BLOCK_BYTES as u32) {
            // A file on larger sectors: the page cache writes blocks, and both controllers share it.
            file = open(0)?;
            direct = false;
        }
        let bytes = file.seek(SeekFrom::End(0))?;
        let identity = identity_of(&file.metadata()?);
        Ok(Medium {
            file,
            bytes,
            direct,
            sector_bytes,
            identity,
        })
    }
}

fn logical_sector_bytes(device: &File) -> io::Result<u32> {
    // <linux/fs.h>: _IO(0x12, 104)
    const BLKSSZGET: libc::Ioctl = 0x1268;
    let mut bytes: libc::c_int = 0;
    // SAFETY: the pointer is that of a local of the type that this request stores. It is needed because std does not
    // tell the sector size.
    let result = unsafe { libc::ioctl(device.as_raw_fd(), BLKSSZGET, &mut bytes) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(bytes as u32)
    }
}

/// What the offsets of direct I/O must be multiples of, where the kernel tells (6.1).
fn direct_alignment(file: &File) -> Option<u32> {
    // SAFETY: all zero is a `statx`.
    let mut out: libc::statx = unsafe { std::mem::zeroed() };
    // SAFETY: the path is a static C string and `out` a local. It is needed because std does not tell the alignment.
    let result = unsafe {
        libc::statx(
            file.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            libc::STATX_DIOALIGN,
            &mut out,
        )
    };
    (result == 0 && out.stx_mask & libc::STATX_DIOALIGN != 0).then_some(out.stx_dio_offset_align)
}
