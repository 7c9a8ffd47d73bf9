//! The cell as it is created.

use crate::shape::Shape;
use twincell_core::ids::{DiskIndex, NcaeIndex, Noid, PsegIndex, Uuid};
use twincell_core::layout::metadata::{Lun, Metadata, Name, PsegAddress, Redundancy};

pub(super) fn lun_name(n: usize) -> Name {
    Name::new(&format!("lun{n}")).expect("a name")
}

/// The disks, and two LUNs of three RStores each: one mirrored, one not.
pub(super) fn first_metadata(shape: &Shape) -> Metadata {
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
        disks: shape.first_disks(),
        luns: vec![
            lun(0, Redundancy::Vraid1, shape.first_mirrored()),
            lun(1, Redundancy::None, vec![at(0, 3), at(1, 3), at(2, 3)]),
        ],
    }
}
