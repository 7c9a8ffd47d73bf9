//! The metadata of the cell in the form that is in force in memory: disks, and for each LUN where it lies.
//!
//! Everything is written whole, beside the metadata in force, and committed by the membership record that names
//! it: a crash at any disk write leaves the old or the new state. The map of a LUN is an array, so a look-up
//! is O(1) [0015].

use crate::ids::{DiskIndex, LUNS_MAX, NcaeIndex, Noid, PSEG_BLOCKS, PsegIndex, RssIndex, Uuid};
use crate::list::List;

/// Most copies of a block.
pub const COPIES_MAX: usize = 2;

/// Longest name of a LUN in bytes.
pub const NAME_BYTES_MAX: usize = 64;

/// The name of a LUN: 1 to 64 bytes of letters, digits, `-`, `_` and `.`, beginning with a letter or digit.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Name(List<u8, NAME_BYTES_MAX>);

impl Name {
    /// The name `text`, or `None` if it is not of the form of a name.
    pub fn new(text: &str) -> Option<Name> {
        let bytes = text.as_bytes();
        let first = bytes.first()?;
        let ordinary = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        (bytes.len() <= NAME_BYTES_MAX && first.is_ascii_alphanumeric() && bytes.iter().all(ordinary))
            .then(|| Name(List::from_slice(bytes)))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("a name is ASCII")
    }
}

impl std::fmt::Debug for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.as_str())
    }
}

/// The redundancy of a LUN [0034] [0036].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Redundancy {
    /// One copy.
    None,
    /// Two copies, on the two disks of a pair [0037].
    Vraid1,
}

impl Redundancy {
    /// PSEGs in one RStore.
    pub fn width(self) -> usize {
        match self {
            Redundancy::None => 1,
            Redundancy::Vraid1 => 2,
        }
    }
}

/// State of a disk [0040].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DiskState {
    /// Operating as expected.
    Normal,
    /// Unavailable; what was written meanwhile is not on it.
    Missing,
    /// A missing disk that has reappeared and must be made level before use.
    Merging,
    /// Marked for removal; its data are being copied elsewhere.
    Replace,
    /// Unavailable; its data are being made again elsewhere.
    Regen,
}

/// A disk of the cell.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Disk {
    /// What its label says.
    pub uuid: Uuid,
    /// PSEGs after the quorum space.
    pub psegs: u32,
    /// The redundant store set that it belongs to.
    pub rss: RssIndex,
    /// Its index in that set; an even one and the next are a pair [0037].
    pub rss_offset: u8,
    /// Its state.
    pub state: DiskState,
}

/// A PSEG of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct PsegAddress {
    /// The disk.
    pub disk: DiskIndex,
    /// The PSEG on it.
    pub pseg: PsegIndex,
}

/// A LUN and the virtual disk (SCVD) behind it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Lun {
    /// Never given twice.
    pub noid: Noid,
    /// Its place in the NCA; hosts see it as the logical unit number.
    pub ncae: NcaeIndex,
    /// Its name, unique in the cell.
    pub name: Name,
    /// Unique in the world; hosts know the LUN by it.
    pub uuid: Uuid,
    /// Size in blocks.
    pub blocks: u64,
    /// Its redundancy.
    pub redundancy: Redundancy,
    /// RStore k is `psegs[k * width .. (k + 1) * width]` and holds the LUN's k-th 2 MiB. For `Vraid1` its two
    /// PSEGs are copies of each other.
    pub psegs: Vec<PsegAddress>,
}

impl Lun {
    /// How many RStores hold `blocks` blocks.
    pub fn rstores_for(blocks: u64) -> u64 {
        blocks.div_ceil(PSEG_BLOCKS)
    }

    /// Whether it has more than one copy, and one of them, in part or as a whole, on `disk`.
    pub fn has_copies_on(&self, disk: DiskIndex) -> bool {
        self.redundancy.width() > 1 && self.psegs.iter().any(|p| p.disk == disk)
    }

    /// The PSEGs of RStore `k`.
    pub fn rstore(&self, k: usize) -> &[PsegAddress] {
        let width = self.redundancy.width();
        &self.psegs[k * width..(k + 1) * width]
    }
}

/// All metadata of the cell.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Metadata {
    /// Counts the changes; the membership record names the one in force.
    pub generation: u64,
    /// The next NOID to give.
    pub next_noid: Noid,
    /// The disks, by [`DiskIndex`].
    pub disks: Vec<Disk>,
    /// The LUNs, in order of their NCAE index.
    pub luns: Vec<Lun>,
}

impl DiskState {
    /// Whether what has copies is written to the one on such a disk.
    pub fn is_written(self) -> bool {
        matches!(self, DiskState::Normal | DiskState::Merging)
    }
}

impl Metadata {
    /// The state of `disk`, if there is such a disk.
    pub fn state_of(&self, disk: DiskIndex) -> Option<DiskState> {
        self.disks.get(disk.index()).map(|d| d.state)
    }

    /// Whether anything on `disk` counts: it was not given up, or a LUN without redundancy lies there.
    pub fn counts(&self, disk: DiskIndex) -> bool {
        self.state_of(disk) != Some(DiskState::Missing) || self.has_single_copies(disk)
    }

    /// Whether a LUN without redundancy lies on `disk`.
    pub fn has_single_copies(&self, disk: DiskIndex) -> bool {
        let single = self.luns.iter().filter(|l| l.redundancy.width() == 1);
        single.flat_map(|l| &l.psegs).any(|p| p.disk == disk)
    }

    /// The LUN called `name`.
    pub fn lun_named(&self, name: &Name) -> Option<&Lun> {
        self.luns.iter().find(|l| l.name == *name)
    }

    /// The LUN with the place `ncae`.
    pub fn lun(&self, ncae: NcaeIndex) -> Option<&Lun> {
        self.luns.iter().find(|l| l.ncae == ncae)
    }

    /// The lowest free place for a LUN.
    pub fn free_ncae(&self) -> Option<NcaeIndex> {
        (0..LUNS_MAX as u16).map(NcaeIndex).find(|n| self.lun(*n).is_none())
    }
}
