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
    /// How the partner is kept out when it is out.
    pub fence: FenceChoice,
    /// NV memory for data in bytes, half of it for each segment pair.
    pub cache_bytes: u64,
    /// Where NV memory is: a file on tmpfs or hugetlbfs, made if it is missing, in a directory of this user alone.
    pub nv_memory: PathBuf,
    /// Addresses of the link between the controllers, by controller. The n-th of both are a path: A
    /// listens on its own, and B connects to it from its own.
    pub link: [Vec<SocketAddr>; 2],
    /// iSCSI portals by controller, as hosts reach them. Each listens on its own and tells hosts both.
    pub iscsi: [Vec<SocketAddr>; 2],
    /// NBD addresses by controller.
    pub nbd: [Vec<SocketAddr>; 2],
}

/// How a controller keeps a partner out that is out (R5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FenceChoice {
    /// Its process is ended where it can be seen, and its locks on the disks are taken.
    Kill,
    /// The disks refuse its writes: SCSI-3 persistent reservations.
    Pr,
    /// It is given the time to end by itself.
    Own {
        /// The watchdog that resets the machine of one that hangs; `None` where the operator accepts that a late write of
        /// such a one may land.
        watchdog: Option<PathBuf>,
    },
}
