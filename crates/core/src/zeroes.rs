//! What a LUN is to have is zeroed before the metadata name it: nobody reads what was there before.

use crate::event::DiskError;
use crate::ids::{DiskIndex, PSEG_BLOCKS, QUORUM_SPACE_BLOCKS};
use crate::layout::metadata::{DiskState, Lun, Metadata, Name, PsegAddress};
use crate::mutant;

/// Pieces that are zeroed at a time.
const IN_FLIGHT: usize = 16;
/// PSEGs of a piece, 128 MiB: less than a disk writes before anybody takes it for stalled.
const PIECE_PSEGS: u64 = 64;

/// What the metadata are to have once it is zeroed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Zeroed {
    /// A LUN.
    Lun(Lun),
    /// A LUN has more blocks.
    More { name: Name, blocks: u64 },
}

/// New PSEGs being zeroed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Zeroes {
    psegs: Vec<PsegAddress>,
    zeroed: Zeroed,
    /// Pieces that are left: disk, first block, blocks.
    left: Vec<(DiskIndex, u64, u64)>,
    in_flight: usize,
    failed: bool,
}

impl Zeroes {
    pub(crate) fn new(psegs: Vec<PsegAddress>, zeroed: Zeroed) -> Zeroes {
        let zeroes = !mutant::is("new-luns-are-not-zeroed");
        let left = if zeroes { pieces(&psegs) } else { Vec::new() };
        Zeroes {
            psegs,
            zeroed,
            left,
            in_flight: 0,
            failed: false,
        }
    }

    /// The next piece, if it may begin.
    pub(crate) fn next(&mut self) -> Option<(DiskIndex, u64, u64)> {
        if self.failed || self.in_flight >= IN_FLIGHT {
            return None;
        }
        let piece = self.left.pop()?;
        self.in_flight += 1;
        Some(piece)
    }

    /// A piece is zeroed, or cannot be.
    pub(crate) fn answered(&mut self, result: Result<(), DiskError>) {
        self.in_flight -= 1;
        self.failed |= result.is_err();
    }

    /// Whether a piece is on its way to a disk.
    pub(crate) fn are_on_their_way(&self) -> bool {
        self.in_flight > 0
    }

    /// Whether nothing is on its way any more: all is done, or it failed.
    pub(crate) fn are_over(&self) -> bool {
        self.in_flight == 0 && (self.failed || self.left.is_empty())
    }

    /// The next metadata, with what was zeroed; `None` if it failed, or if one of the disks is not in order any more.
    pub(crate) fn applied_to(&self, mut next: Metadata) -> Option<Metadata> {
        let is_normal = |p: &PsegAddress| next.disks[p.disk.index()].state == DiskState::Normal;
        if self.failed || !self.psegs.iter().all(is_normal) {
            return None;
        }
        match &self.zeroed {
            Zeroed::Lun(lun) => {
                next.next_noid = lun.noid.next();
                let at = next.luns.partition_point(|l| l.ncae < lun.ncae);
                next.luns.insert(at, lun.clone());
            }
            Zeroed::More { name, blocks } => {
                let lun = next.luns.iter_mut().find(|l| l.name == *name)?;
                lun.blocks = *blocks;
                lun.psegs.extend(&self.psegs);
            }
        }
        Some(next)
    }
}

/// The PSEGs as runs of blocks, disk by disk, none of them too long.
fn pieces(psegs: &[PsegAddress]) -> Vec<(DiskIndex, u64, u64)> {
    let mut sorted = psegs.to_vec();
    sorted.sort();
    let mut pieces: Vec<(DiskIndex, u64, u64)> = Vec::new();
    for pseg in sorted {
        let block = QUORUM_SPACE_BLOCKS + u64::from(pseg.pseg.0) * PSEG_BLOCKS;
        match pieces.last_mut() {
            Some((disk, first, blocks))
                if *disk == pseg.disk && *first + *blocks == block && *blocks < PIECE_PSEGS * PSEG_BLOCKS =>
            {
                *blocks += PSEG_BLOCKS
            }
            _ => pieces.push((pseg.disk, block, PSEG_BLOCKS)),
        }
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::PsegIndex;

    fn at(disk: u16, pseg: u32) -> PsegAddress {
        let (disk, pseg) = (DiskIndex(disk), PsegIndex(pseg));
        PsegAddress { disk, pseg }
    }

    fn block(pseg: u64) -> u64 {
        QUORUM_SPACE_BLOCKS + pseg * PSEG_BLOCKS
    }

    #[test]
    fn what_lies_side_by_side_is_one_piece() {
        let found = pieces(&[at(1, 5), at(0, 3), at(0, 2), at(1, 4), at(0, 5)]);
        let expected = [
            (DiskIndex(0), block(2), 2 * PSEG_BLOCKS),
            (DiskIndex(0), block(5), PSEG_BLOCKS),
            (DiskIndex(1), block(4), 2 * PSEG_BLOCKS),
        ];
        assert_eq!(found, expected);
        assert_eq!(pieces(&[at(0, 1), at(1, 2)]).len(), 2, "two disks are not side by side");
    }

    #[test]
    fn no_piece_is_too_long() {
        let psegs: Vec<_> = (0..2 * PIECE_PSEGS as u32 + 1).map(|n| at(0, n)).collect();
        let lengths: Vec<_> = pieces(&psegs)
            .iter()
            .map(|(_, _, blocks)| blocks / PSEG_BLOCKS)
            .collect();
        assert_eq!(lengths, [PIECE_PSEGS, PIECE_PSEGS, 1]);
    }

    #[test]
    fn so_many_pieces_are_on_their_way_and_none_after_an_error() {
        let psegs: Vec<_> = (0..40).map(|n| at(0, 2 * n)).collect();
        let name = Name::new("lun").expect("a name");
        let mut zeroes = Zeroes::new(psegs, Zeroed::More { name, blocks: 1 });
        let begin = |zeroes: &mut Zeroes| std::iter::from_fn(|| zeroes.next()).count();
        assert_eq!(begin(&mut zeroes), IN_FLIGHT);
        zeroes.answered(Ok(()));
        assert_eq!(begin(&mut zeroes), 1);
        zeroes.answered(Err(DiskError));
        zeroes.answered(Ok(()));
        assert_eq!(begin(&mut zeroes), 0);
        for left in (0..IN_FLIGHT - 2).rev() {
            assert!(zeroes.are_on_their_way() && !zeroes.are_over());
            zeroes.answered(Ok(()));
            assert_eq!(zeroes.are_over(), left == 0);
        }
        assert!(!zeroes.are_on_their_way());
    }
}
