//! What can go wrong, in words for an operator.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use twincell_core::ids::{Controller, Uuid};

/// Why a controller does not start.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The kernel is too old, or its io_uring is switched off.
    #[error("this kernel offers no usable io_uring ({reason}); twincell needs Linux 5.15 or newer")]
    Kernel {
        /// What is missing.
        reason: String,
    },
    /// The settings contradict themselves.
    #[error("{0}")]
    Settings(String),
    /// A disk is not there.
    #[error("disk {} is missing", path.display())]
    DiskMissing {
        /// Which.
        path: PathBuf,
    },
    /// Too many disks are not there.
    #[error(
        "{} missing; {there} of the disks that vote are there, and {needed} are needed",
        named(missing)
    )]
    VotesMissing {
        /// Which.
        missing: Vec<PathBuf>,
        /// Disks that vote and are there.
        there: usize,
        /// How many have to be.
        needed: usize,
    },
    /// A disk cannot be opened or read.
    #[error("disk {}: {what}: {source}", path.display())]
    Disk {
        /// Which.
        path: PathBuf,
        /// What failed.
        what: &'static str,
        /// How.
        source: io::Error,
    },
    /// A disk became smaller.
    #[error("disk {} has {has} bytes, but its label says {label}; it was cut short or replaced", path.display())]
    DiskShort {
        /// Which.
        path: PathBuf,
        /// Bytes that it has.
        has: u64,
        /// Bytes that it had.
        label: u64,
    },
    /// A disk carries no label at all.
    #[error("disk {} carries no twincell label", path.display())]
    NotLabelled {
        /// Which.
        path: PathBuf,
    },
    /// Neither copy of a label can be used.
    #[error("disk {}: neither copy of its label can be used: {first}; {second}", path.display())]
    LabelDamaged {
        /// Which.
        path: PathBuf,
        /// What is wrong with the first.
        first: String,
        /// What is wrong with the second.
        second: String,
    },
    /// A disk of another cell.
    #[error("disk {} belongs to another cell: {theirs_name} ({theirs}); this is {ours_name} ({ours})", path.display())]
    AnotherCell {
        /// Which.
        path: PathBuf,
        /// Its cell.
        theirs: Uuid,
        /// The name of its cell.
        theirs_name: String,
        /// This cell.
        ours: Uuid,
        /// This cell's name.
        ours_name: String,
    },
    /// A disk at another's place.
    #[error("disk {} is disk {label} of the cell, but it is listed as disk {listed}; list the disks in their order", path.display())]
    DiskOrder {
        /// Which.
        path: PathBuf,
        /// Its index as its label says.
        label: u16,
        /// Its index in the settings.
        listed: u16,
    },
    /// The same disk twice.
    #[error("disk {} and disk {} are the same disk", first.display(), second.display())]
    DiskTwice {
        /// One path.
        first: PathBuf,
        /// The other.
        second: PathBuf,
    },
    /// The cell has another number of disks.
    #[error("{listed} disks are listed, but the cell has {label}")]
    DiskCount {
        /// As listed.
        listed: usize,
        /// As the labels say.
        label: u16,
    },
    /// A disk whose sectors are larger than a block.
    #[error("disk {} has sectors of {bytes} bytes; only 512 are supported", path.display())]
    SectorSize {
        /// Which.
        path: PathBuf,
        /// Bytes of a sector.
        bytes: u32,
    },
    /// NV memory on a medium whose pages are written back in any order.
    #[error("NV memory {} is not on tmpfs or hugetlbfs; put it in /dev/shm", path.display())]
    NvMedium {
        /// Where.
        path: PathBuf,
    },
    /// NV memory where somebody else could put a file, or a link, in its place.
    #[error("NV memory in {} is refused: {why}", path.display())]
    NvNotPrivate {
        /// The directory.
        path: PathBuf,
        /// Why not.
        why: String,
    },
    /// What is at the place of NV memory is something else.
    #[error("NV memory {} is not there: {what} is in its place", path.display())]
    NvForeign {
        /// Where.
        path: PathBuf,
        /// What is there.
        what: &'static str,
    },
    /// Too little memory.
    #[error("NV memory {} needs {needed} bytes, and there is not as much: {source}", path.display())]
    NvTooLittle {
        /// Where.
        path: PathBuf,
        /// Bytes needed.
        needed: u64,
        /// How it failed.
        source: io::Error,
    },
    /// NV memory has an image of other sizes, which may have what the disks lack.
    #[error("NV memory {} has an image of a cache of {image} bytes, and the settings say {settings}", path.display())]
    NvSizes {
        /// Where.
        path: PathBuf,
        /// Bytes of cache of the image.
        image: u64,
        /// Bytes of cache wanted.
        settings: u64,
    },
    /// NV memory has an image of a format that this program does not know, which may have what the disks lack.
    #[error("NV memory {}: {why}", path.display())]
    NvNewer {
        /// Where.
        path: PathBuf,
        /// Which format.
        why: twincell_wire::Error,
    },
    /// NV memory cannot be opened.
    #[error("NV memory {}: {what}: {source}", path.display())]
    Nv {
        /// Where.
        path: PathBuf,
        /// What failed.
        what: &'static str,
        /// How.
        source: io::Error,
    },
    /// It runs already.
    #[error("controller {controller} of cell {cell} is already running, pid {pid}")]
    Running {
        /// Which.
        controller: Controller,
        /// Name of the cell.
        cell: String,
        /// Its process; 0 where it is not known.
        pid: u32,
    },
    /// The fence that was chosen cannot work here.
    #[error("fence = {fence:?} cannot work with {}: {why}", path.display())]
    Fence {
        /// Which.
        fence: &'static str,
        /// The disk, or the watchdog.
        path: PathBuf,
        /// Why not.
        why: String,
    },
    /// An address is taken, or is not one of this machine.
    #[error("cannot listen on {address} (option {option}): {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The setting that names it.
        option: &'static str,
        /// How.
        source: io::Error,
    },
    /// The kernel refuses something that has nothing to do with the settings.
    #[error("{what}: {source}")]
    System {
        /// What failed.
        what: &'static str,
        /// How.
        source: io::Error,
    },
}

fn named(disks: &[PathBuf]) -> String {
    let names: Vec<String> = disks.iter().map(|d| d.display().to_string()).collect();
    match &names[..] {
        [one] => format!("disk {one} is"),
        _ => format!("disks {} are", names.join(", ")),
    }
}

fn contents(disks: &[(PathBuf, &'static str)]) -> String {
    let one = |(path, what): &(PathBuf, &str)| format!("{} has {what} on it", path.display());
    disks.iter().map(one).collect::<Vec<_>>().join("; ")
}

/// Why a running controller ended without being asked.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The ring refuses work.
    #[error("io_uring failed: {0}")]
    Ring(#[source] io::Error),
    /// NV memory cannot be opened again, or removed.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// What is in NV memory is not what was put there; the partner has it, and takes over.
    #[error(
        "NV memory is damaged, and the partner has what was in it; check the memory of this machine, then start again"
    )]
    Damaged,
}

/// Why disks of a new cell were not made. Nothing is left behind that would count as a disk of a cell.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// No disks, or too many.
    #[error("a cell has 1 to {max} disks, not {count}")]
    Count {
        /// How many were asked for.
        count: usize,
        /// How many are possible.
        max: usize,
    },
    /// A disk that belongs to a cell already.
    #[error(
        "{0} already carries a twincell label ({label}); if its data are not needed, \
         `dd if=/dev/zero of={0} bs=1M count=8 conv=notrunc` wipes it",
        path.display()
    )]
    Labelled {
        /// Which.
        path: PathBuf,
        /// Whose.
        label: String,
    },
    /// A block device that is in use.
    #[error(
        "{0} is in use: it is mounted, or part of md, device-mapper, swap or another cell that is being made; \
         `lsblk {0}` shows which: end that first, or name another disk",
        path.display()
    )]
    InUse {
        /// Which.
        path: PathBuf,
    },
    /// Disks with something on them, which is not overwritten unless that is meant.
    #[error("{}", contents(disks))]
    NotBlank {
        /// Which, and what is there.
        disks: Vec<(PathBuf, &'static str)>,
    },
    /// Too small.
    #[error("{} has {bytes} bytes; a disk needs at least {min}", path.display())]
    TooSmall {
        /// Which.
        path: PathBuf,
        /// Its size.
        bytes: u64,
        /// The smallest size.
        min: u64,
    },
    /// A name that labels cannot hold.
    #[error("{name:?} is no name: 1 to 64 letters, digits, '-', '_' and '.', beginning with a letter or digit")]
    Name {
        /// As given.
        name: String,
    },
    /// A disk whose sectors are larger than a block.
    #[error("{} has sectors of {sector} bytes; only 512 are supported", path.display())]
    SectorSize {
        /// Which.
        path: PathBuf,
        /// Bytes of a sector.
        sector: u32,
    },
    /// No other disk of the cell has a label to go by.
    #[error("no other disk of the cell can be read, and without one nobody knows what the new one is to be")]
    NoOther,
    /// The same disk twice.
    #[error("{} and {} are the same disk", first.display(), second.display())]
    Twice {
        /// One path.
        first: PathBuf,
        /// The other.
        second: PathBuf,
    },
    /// It cannot be made or written.
    #[error("{}: {what}: {source}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// What failed.
        what: &'static str,
        /// How.
        source: io::Error,
    },
}
