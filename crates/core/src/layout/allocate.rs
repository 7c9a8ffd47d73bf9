//! Which PSEGs a new RStore gets: those of the disk, or pair of disks, with the most room, so that a LUN is spread over
//! the whole pool [0036].

use super::metadata::{Disk, DiskState, Metadata, PsegAddress, Redundancy};
use crate::ids::{DiskIndex, PsegIndex};
use crate::mutant;

/// There is not enough room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full {
    /// PSEGs that were wanted.
    pub needed: u64,
    /// PSEGs that could be had with that redundancy.
    pub free: u64,
}

struct FreeList {
    disk: DiskIndex,
    free: Vec<PsegIndex>,
}

/// PSEGs for `rstores` RStores, or how much is missing.
pub fn allocate(metadata: &Metadata, redundancy: Redundancy, rstores: u64) -> Result<Vec<PsegAddress>, Full> {
    let mut groups = groups(metadata, redundancy);
    let width = redundancy.width() as u64;
    let room = |group: &Vec<FreeList>| group.iter().map(|d| d.free.len()).min().unwrap_or(0);
    let free: u64 = groups.iter().map(|g| room(g) as u64).sum();
    if free < rstores {
        return Err(Full {
            needed: rstores * width,
            free: free * width,
        });
    }
    let mut psegs = Vec::with_capacity((rstores * width) as usize);
    for _ in 0..rstores {
        // The first of those with the most room: on equal disks that goes round.
        let most = groups.iter().map(room).max().unwrap_or(0);
        let group = groups.iter_mut().find(|g| room(g) == most).expect("there is room");
        for list in group {
            let pseg = list.free.pop().expect("there is room on each");
            psegs.push(PsegAddress { disk: list.disk, pseg });
        }
    }
    Ok(psegs)
}

/// The disks that an RStore may lie on together: each alone, or the pairs of adjacent even and odd index [0037].
fn groups(metadata: &Metadata, redundancy: Redundancy) -> Vec<Vec<FreeList>> {
    let lists = free_lists(metadata);
    let usable = |n: &usize| metadata.disks[*n].state == DiskState::Normal;
    match redundancy {
        Redundancy::None => {
            let each = lists.into_iter().enumerate().filter(|(n, _)| usable(n));
            each.map(|(_, list)| vec![list]).collect()
        }
        Redundancy::Vraid1 => {
            let mut lists: Vec<Option<FreeList>> = lists.into_iter().map(Some).collect();
            let mut pairs = Vec::new();
            for (even, disk) in metadata.disks.iter().enumerate() {
                let odd = partner_of(metadata, disk).filter(|odd| usable(&even) && usable(odd));
                if let Some(odd) = odd {
                    pairs.push(lists[even].take().into_iter().chain(lists[odd].take()).collect());
                }
            }
            pairs
        }
    }
}

/// The disk with the odd index next to the even one of `disk`.
fn partner_of(metadata: &Metadata, disk: &Disk) -> Option<usize> {
    let odd = |d: &Disk| (d.rss == disk.rss || mutant::is("pairs-across-rss")) && d.rss_offset == disk.rss_offset + 1;
    if disk.rss_offset.is_multiple_of(2) {
        metadata.disks.iter().position(odd)
    } else {
        None
    }
}

/// The free PSEGs of each disk, the lowest last.
fn free_lists(metadata: &Metadata) -> Vec<FreeList> {
    let mut used: Vec<Vec<bool>> = metadata.disks.iter().map(|d| vec![false; d.psegs as usize]).collect();
    for pseg in metadata.luns.iter().flat_map(|l| &l.psegs) {
        used[pseg.disk.index()][pseg.pseg.index()] = true;
    }
    let free = |used: Vec<bool>| {
        let psegs = (0..used.len()).rev().filter(|n| !used[*n]);
        psegs.map(|n| PsegIndex(n as u32)).collect()
    };
    let disks = used.into_iter().enumerate();
    disks
        .map(|(n, used)| FreeList {
            disk: DiskIndex(n as u16),
            free: free(used),
        })
        .collect()
}

/// PSEGs that no LUN uses, by disk.
pub fn free_psegs(metadata: &Metadata) -> Vec<u32> {
    free_lists(metadata).into_iter().map(|l| l.free.len() as u32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{Noid, RssIndex, Uuid};

    fn pool(psegs: &[u32]) -> Metadata {
        let disk = |(n, psegs): (usize, &u32)| Disk {
            uuid: Uuid(n as u128 + 1),
            psegs: *psegs,
            rss: RssIndex(0),
            rss_offset: n as u8,
            state: DiskState::Normal,
        };
        Metadata {
            generation: 1,
            next_noid: Noid(1),
            disks: psegs.iter().enumerate().map(disk).collect(),
            luns: Vec::new(),
        }
    }

    #[test]
    fn copies_lie_on_pairs_and_spread_over_them() {
        let psegs = allocate(&pool(&[4, 4, 4, 4]), Redundancy::Vraid1, 4).unwrap();
        for copy in psegs.chunks(2) {
            assert_eq!(copy[0].disk.0 / 2, copy[1].disk.0 / 2);
            assert_ne!(copy[0].disk, copy[1].disk);
        }
        let on_first_pair = psegs.chunks(2).filter(|c| c[0].disk.0 < 2).count();
        assert_eq!(on_first_pair, 2);
    }

    #[test]
    fn a_full_pool_says_how_much_it_has() {
        let full = allocate(&pool(&[4, 2, 5]), Redundancy::Vraid1, 3).unwrap_err();
        assert_eq!(full, Full { needed: 6, free: 4 });
        assert_eq!(allocate(&pool(&[4, 2, 5]), Redundancy::None, 11).unwrap().len(), 11);
    }
}
