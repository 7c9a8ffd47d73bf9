//! The shape of a cell: its disks, how large they are, which of them vote, and which are pairs.

use crate::random::Random;
use twincell_core::ids::{DiskIndex, PsegIndex, RssIndex, Uuid};
use twincell_core::layout::metadata::{Disk, DiskState, PsegAddress};

/// In one cell of so many the disks are others than ever.
const RARE: u64 = 16;

/// A disk: its RSS, its place in it, and its PSEGs.
type Place = (u16, u8, u32);

/// The disks of a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Shape {
    disks: &'static [Place],
    voters: &'static [u16],
    /// The pairs of disks on which the first LUN lies, one for each of its RStores.
    pairs: [(u16, u16); 3],
    /// Faults of disk n come to the disk that is so many later.
    pub shift: usize,
}

/// Four equal disks, of which three vote.
pub const PLAIN: Shape = Shape {
    disks: &[(0, 0, 16), (0, 1, 16), (0, 2, 16), (0, 3, 16)],
    voters: &[0, 1, 2],
    pairs: [(0, 1), (2, 3), (0, 1)],
    shift: 0,
};

/// Others: of six to eight disks five vote.
pub(crate) const OTHERS: [Shape; 3] = [
    // Unequal disks.
    Shape {
        disks: &[(0, 0, 8), (0, 1, 24), (0, 2, 16), (0, 3, 11), (0, 4, 6), (0, 5, 40)],
        voters: &[0, 1, 2, 3, 4],
        pairs: [(0, 1), (2, 3), (4, 5)],
        shift: 0,
    },
    // Two RSS, the disks of which take turns.
    Shape {
        disks: &[
            (0, 0, 16),
            (1, 0, 12),
            (0, 1, 16),
            (1, 1, 20),
            (0, 2, 16),
            (1, 2, 9),
            (0, 3, 10),
            (1, 3, 16),
        ],
        voters: &[0, 1, 3, 4, 7],
        pairs: [(0, 2), (1, 3), (5, 7)],
        shift: 0,
    },
    // Two RSS of three disks, the last of which has no partner.
    Shape {
        disks: &[(0, 0, 16), (0, 1, 16), (0, 2, 16), (1, 0, 16), (1, 1, 16), (1, 2, 16)],
        voters: &[5, 4, 2, 1, 0],
        pairs: [(0, 1), (3, 4), (0, 1)],
        shift: 0,
    },
];

impl Shape {
    /// That of the cell of a seed: mostly the plain one.
    pub fn draw(random: &mut Random) -> Shape {
        if !random.one_in(RARE) {
            return PLAIN;
        }
        let shape = OTHERS[random.below(OTHERS.len() as u64) as usize];
        // Faults are drawn for four disks.
        let shift = random.below(shape.disks.len() as u64 - 3) as usize;
        Shape { shift, ..shape }
    }

    /// How many disks there are.
    pub fn disks(&self) -> usize {
        self.disks.len()
    }

    /// The disks that vote.
    pub fn voters(&self) -> Vec<DiskIndex> {
        self.voters.iter().copied().map(DiskIndex).collect()
    }

    /// PSEGs of a disk.
    pub fn psegs(&self, disk: usize) -> u32 {
        self.disks[disk].2
    }

    /// The other disk of its pair.
    pub fn partner(&self, disk: usize) -> Option<usize> {
        let (rss, offset, _) = self.disks[disk];
        self.disks.iter().position(|d| (d.0, d.1) == (rss, offset ^ 1))
    }

    /// The disks as the first metadata have them.
    pub fn first_disks(&self) -> Vec<Disk> {
        let disk = |(n, &(rss, rss_offset, psegs)): (usize, &Place)| Disk {
            uuid: Uuid(100 + n as u128),
            psegs,
            rss: RssIndex(rss),
            rss_offset,
            state: DiskState::Normal,
        };
        self.disks.iter().enumerate().map(disk).collect()
    }

    /// Where the first LUN lies: on both disks of a pair.
    pub fn first_mirrored(&self) -> Vec<PsegAddress> {
        let mut next = vec![0; self.disks()];
        let mut at = |disk: u16| {
            let pseg = &mut next[usize::from(disk)];
            *pseg += 1;
            PsegAddress {
                disk: DiskIndex(disk),
                pseg: PsegIndex(*pseg - 1),
            }
        };
        self.pairs.iter().flat_map(|pair| [at(pair.0), at(pair.1)]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_disks_of_a_pair_are_each_others_partners() {
        for shape in OTHERS.iter().chain([&PLAIN]) {
            assert_eq!(shape.voters.len() % 2, 1, "somebody has a majority");
            for (even, odd) in shape.pairs {
                let (even, odd) = (usize::from(even), usize::from(odd));
                assert_eq!((shape.partner(even), shape.partner(odd)), (Some(odd), Some(even)));
            }
        }
        assert_eq!(OTHERS[2].partner(2), None);
    }

    #[test]
    fn the_first_lun_lies_where_it_always_did() {
        let places: Vec<_> = PLAIN.first_mirrored().iter().map(|p| (p.disk.0, p.pseg.0)).collect();
        assert_eq!(places, [(0, 0), (1, 0), (2, 0), (3, 0), (0, 1), (1, 1)]);
    }
}
