//! What an engine is told when it starts.

use std::net::SocketAddr;
use std::path::PathBuf;
use twincell_core::ids::{Controller, Uuid};

/// What an engine is told when it starts. Everything but `controller` and `nv_memory` is the same on both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Which of the two controllers this is.
    pub controller: Controller,
    /// Name of the cell, as operators know it.
    pub cell_name: String,
    /// The cell, as the labels of its disks know it.
    pub cell: Uuid,
    /// iSCSI target name, the same on both controllers.
    pub target_name: String,
    /// The disks in the order of their labels: block devices, or files.
    pub disks: Vec<PathBuf>,
    /// NV memory for data in bytes, half of it for each segment pair.
    pub cache_bytes: u64,
    /// Where NV memory is: a file on tmpfs or hugetlbfs, made if it is missing.
    pub nv_memory: PathBuf,
    /// Addresses of the link between the controllers, by controller. A listens on its own, B connects to A's first.
    pub link: [Vec<SocketAddr>; 2],
    /// iSCSI portals by controller. Each listens on its own and tells hosts both.
    pub iscsi: [Vec<SocketAddr>; 2],
    /// NBD addresses by controller.
    pub nbd: [Vec<SocketAddr>; 2],
}
