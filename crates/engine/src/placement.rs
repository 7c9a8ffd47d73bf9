//! Where the copies of each LUN lie, as sets of disks: what is left of a LUN without some of the disks.

use std::collections::BTreeSet;
use twincell_core::ids::DiskIndex;
use twincell_core::layout::metadata::{Lun, Metadata, PsegAddress};

/// How many copies each part of a LUN has, in the part that has fewest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Copies {
    /// As it should be.
    pub wanted: u8,
    /// As it is: on disks that are in order and answer.
    pub left: u8,
}

/// The sets of disks that the RStores of each LUN lie on, found once for each generation of the metadata.
#[derive(Default)]
pub(crate) struct Placement {
    generation: Option<u64>,
    /// By LUN, in the order of the metadata: width, and the sets.
    luns: Vec<(usize, BTreeSet<Vec<DiskIndex>>)>,
}

impl Placement {
    /// The copies of each LUN, in the order of the metadata, where only the disks count that are `good`.
    pub(crate) fn copies(&mut self, metadata: &Metadata, good: impl Fn(DiskIndex) -> bool) -> Vec<Copies> {
        if self.generation != Some(metadata.generation) {
            self.generation = Some(metadata.generation);
            let sets = |lun: &Lun| {
                let width = lun.redundancy.width();
                let disks = |r: &[PsegAddress]| r.iter().map(|p| p.disk).collect();
                (width, lun.psegs.chunks(width).map(disks).collect())
            };
            self.luns = metadata.luns.iter().map(sets).collect();
        }
        let copies = |(width, sets): &(usize, BTreeSet<Vec<DiskIndex>>)| {
            let of_set = |set: &Vec<DiskIndex>| set.iter().filter(|d| good(**d)).count();
            Copies {
                wanted: *width as u8,
                left: sets.iter().map(of_set).min().unwrap_or(*width) as u8,
            }
        };
        self.luns.iter().map(copies).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use twincell_core::ids::{NcaeIndex, Noid, PsegIndex, Uuid};
    use twincell_core::layout::metadata::{Name, Redundancy};

    fn lun(name: &str, redundancy: Redundancy, disks: &[u16]) -> Lun {
        let place = |(n, disk): (usize, &u16)| PsegAddress {
            disk: DiskIndex(*disk),
            pseg: PsegIndex(n as u32),
        };
        Lun {
            noid: Noid(1),
            ncae: NcaeIndex(0),
            name: Name::new(name).expect("a name"),
            uuid: Uuid(1),
            blocks: 4096,
            redundancy,
            psegs: disks.iter().enumerate().map(place).collect(),
        }
    }

    #[test]
    fn a_lun_has_as_many_copies_as_its_poorest_part() {
        let metadata = Metadata {
            generation: 7,
            next_noid: Noid(2),
            disks: Vec::new(),
            luns: vec![
                lun("a", Redundancy::Vraid1, &[0, 1, 2, 3, 0, 1]),
                lun("b", Redundancy::None, &[2, 2]),
            ],
        };
        let mut placement = Placement::default();
        let mut left = |bad: &[u16]| -> Vec<u8> {
            let copies = placement.copies(&metadata, |d| !bad.contains(&d.0));
            copies.iter().map(|c| c.left).collect()
        };
        assert_eq!(left(&[]), [2, 1]);
        assert_eq!(left(&[3]), [1, 1]);
        assert_eq!(left(&[0, 2]), [1, 0]);
        assert_eq!(left(&[0, 1]), [0, 1]);
        assert_eq!(left(&[7]), [2, 1]);
    }
}
