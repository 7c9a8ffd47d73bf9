//! What an engine tells of itself at one moment.

use crate::link_view::LinkSnapshot;
use crate::placement::Copies;
use std::path::PathBuf;
use std::time::Duration;
use twincell_core::controller::CellView;
use twincell_core::ids::{RssIndex, Uuid};
use twincell_core::layout::metadata::DiskState;
use twincell_core::manage::LunView;
use twincell_core::merge::MergeView;

/// What an engine tells of itself at one moment.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The cell as this controller sees it.
    pub cell: CellView,
    /// The LUNs, in order of their number.
    pub luns: Vec<LunView>,
    /// The disks, in the order of the settings.
    pub disks: Vec<DiskSnapshot>,
    /// The link to the partner.
    pub link: LinkSnapshot,
    /// How many copies each of these LUNs has; empty while the metadata were not yet read.
    pub copies: Vec<Copies>,
    /// How far the disk is that is being made level, of what this controller owns.
    pub merging: Option<MergeView>,
    /// For how long a partner that is in, and is waited for, has given no sign of life.
    pub partner_silent: Option<Duration>,
    /// Whether hosts are served.
    pub serving_hosts: bool,
    /// What was done since the process started.
    pub counters: Counters,
}

/// A disk of the cell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskSnapshot {
    /// Where it is.
    pub path: PathBuf,
    /// Its size in bytes, as its label says.
    pub size_bytes: u64,
    /// Its state. A disk whose metadata were not yet read counts as normal.
    pub state: DiskState,
    /// What its label says.
    pub uuid: Uuid,
    /// The redundant store set that it belongs to, and its index there.
    pub place: (RssIndex, u8),
    /// Whether it works: it is there, and what failed of late, if anything did, is done again.
    pub works: bool,
    /// Whether it votes.
    pub quorum: bool,
    /// PSEGs after the quorum space.
    pub psegs: u32,
    /// Those that no LUN has.
    pub psegs_free: u32,
}

/// What was done since the process started. Nothing is ever subtracted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Link frames sent.
    pub frames_sent: u64,
    /// Link frames received.
    pub frames_received: u64,
    /// Link frames that were damaged on their way, and dropped.
    pub frames_garbled: u64,
    /// Link bytes sent, payload included.
    pub link_bytes_sent: u64,
    /// Link bytes received, payload included.
    pub link_bytes_received: u64,
    /// Link frames that were sent again.
    pub retransmits: u64,
    /// Host commands, reads, writes and others.
    pub commands: u64,
    /// Host commands that read.
    pub reads: u64,
    /// Host commands that write.
    pub writes: u64,
    /// Bytes that hosts read.
    pub bytes_read: u64,
    /// Bytes that hosts wrote.
    pub bytes_written: u64,
    /// Bytes of payload that the engine copied in memory.
    pub bytes_copied: u64,
    /// Those of them that were on their way over the link: to be sent, or after they came.
    pub link_bytes_copied: u64,
    /// Disk reads, writes and flushes.
    pub disk_ios: u64,
    /// Disk I/Os that failed.
    pub disk_errors: u64,
}

impl Counters {
    /// Payload of the link was copied.
    pub(crate) fn copied_on_the_link(&mut self, bytes: usize) {
        self.bytes_copied += bytes as u64;
        self.link_bytes_copied += bytes as u64;
    }
}
