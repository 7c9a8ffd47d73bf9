//! The cell as it is created.

use super::DISKS;
use twincell_core::ids::{DiskIndex, NcaeIndex, Noid, PsegIndex, RssIndex, Uuid};
use twincell_core::layout::metadata::{Disk, DiskState, Lun, Metadata, Name, PsegAddress, Redundancy};

pub(super) fn lun_name(n: usize) -> Name {
    Name::new(&format!("lun{n}")).expect("a name")
}

/// Four disks, and two LUNs of three RStores each: one mirrored, one not.
pub(super) fn first_metadata() -> Metadata {
    let disk = |n: u8| Disk {
        uuid: Uuid(100 + u128::from(n)),
        psegs: 16,
        rss: RssIndex(0),
        rss_offset: n,
        state: DiskState::Normal,
    };
    let at = |disk: u16, pseg: u32| PsegAddress {
        disk: DiskIndex(disk),
        pseg: PsegIndex(pseg),
    };
    let lun = |n: usize, redundancy, psegs| Lun {
        noid: Noid(n as u32 + 1),
        ncae: NcaeIndex(n as u16),
        name: lun_name(n),
        uuid: Uuid(200 + n as u128),
        blocks: 3 * 4096,
        redundancy,
        psegs,
    };
    Metadata {
        generation: 1,
        next_noid: Noid(3),
        disks: (0..DISKS as u8).map(disk).collect(),
        luns: vec![
            lun(
                0,
                Redundancy::Vraid1,
                vec![at(0, 0), at(1, 0), at(2, 0), at(3, 0), at(0, 1), at(1, 1)],
            ),
            lun(1, Redundancy::None, vec![at(0, 3), at(1, 3), at(2, 3)]),
        ],
    }
}
