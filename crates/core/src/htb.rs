//! The context of one host command, the Host Transfer Block of the seed [0079], and where it stands.

use crate::host::{HostOp, Status};
use crate::ids::{
    ATOMIC_GRANULES, BUFFER_BLOCKS, BlockCount, BufferIndex, CommandId, DiskIndex, NcaeIndex, Noid, RieGeneration,
    RieIndex, Time, TransferIndex, Vba,
};
use crate::link::frame::XmfcId;
use crate::list::List;
use crate::memory::{Segment, Sgl};
use std::hash::{Hash, Hasher};
use std::ops::Range;

/// Who waits for the command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Origin {
    /// A host of this controller.
    Host(CommandId),
    /// A host of the partner, which forwarded it.
    Partner(XmfcId),
    /// Nobody any more: the partner that forwarded it is out.
    Nobody,
}

/// What a command waits for. In the order in which a write goes through them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stage {
    /// Its turn: the cache lock, memory, an RIE, or leave to begin at all.
    AwaitTurn,
    /// A write: the host's data.
    AwaitHostData,
    /// A write: the partner's MDA (and in the long form its RTR before that), and that the commit is durable.
    AwaitMirror,
    /// A read: the disks.
    AwaitDiskRead,
    /// That everything up to its age is on disk.
    AwaitDisk,
    /// The owner of the LUN, to which it was forwarded.
    AwaitOwner,
    /// Leave to acknowledge (R2, R3).
    AwaitLeave,
}

/// The part of a command that is worked on: of a write, what one RIE covers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Portion {
    /// First block on the LUN.
    pub start: u64,
    /// How many; 0 while there is no portion.
    pub blocks: u32,
    /// The RIE.
    pub rie: RieIndex,
    /// Its use.
    pub generation: RieGeneration,
    /// The new buffers, one for each granule.
    pub new: List<BufferIndex, ATOMIC_GRANULES>,
    /// For each granule the old buffer, if there is one.
    pub old: List<Option<BufferIndex>, ATOMIC_GRANULES>,
    /// Of a read: the buffers that are pinned.
    pub pinned: List<BufferIndex, ATOMIC_GRANULES>,
    /// Disk reads that are not answered.
    pub reads: u8,
    /// Part of it could not be read, and may be later.
    pub again: bool,
    /// The partner mirrors it.
    pub mirrored: bool,
    /// Request and data go in one frame.
    pub express: bool,
    /// The request was sent.
    pub requested: bool,
    /// The reception that the partner armed.
    pub attempt: Option<u8>,
    /// The commit is made: the RIE is Valid.
    pub committed: bool,
    /// The commit is durable.
    pub persisted: bool,
    /// The partner has absorbed the data.
    pub absorbed: bool,
}

impl Portion {
    /// Where the blocks of the portion lie in its new buffers.
    pub fn sgl(&self) -> Sgl {
        sgl(self.start, self.blocks, &self.new)
    }
}

/// The scatter/gather list of `blocks` blocks from `start` on, in buffers that hold one granule each.
pub fn sgl(start: u64, blocks: u32, buffers: &[BufferIndex]) -> Sgl {
    let mut list = Sgl::new();
    let end = start + u64::from(blocks);
    let mut at = start;
    for buffer in buffers {
        let first = at % u64::from(BUFFER_BLOCKS);
        let count = (u64::from(BUFFER_BLOCKS) - first).min(end - at);
        list.push(Segment {
            buffer: *buffer,
            first: first as u8,
            count: count as u8,
        });
        at += count;
    }
    assert_eq!(at, end, "one buffer for each granule");
    list
}

/// How many granules `blocks` blocks from `start` on touch.
pub fn granules(start: u64, blocks: u32) -> usize {
    if blocks == 0 {
        return 0;
    }
    let size = u64::from(BUFFER_BLOCKS);
    ((start + u64::from(blocks) - 1) / size - start / size + 1) as usize
}

/// Which blocks of granule `number` the range covers, bit n for block n.
pub fn mask_in_granule(number: u64, start: u64, blocks: u32) -> u8 {
    let size = u64::from(BUFFER_BLOCKS);
    let first = start.max(number * size) - number * size;
    let end = (start + u64::from(blocks)).min((number + 1) * size) - number * size;
    (((1u32 << end) - 1) & !((1u32 << first) - 1)) as u8
}

/// The context of one host command.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Htb {
    /// Who waits for it.
    pub origin: Origin,
    /// The LUN.
    pub ncae: NcaeIndex,
    /// Its identity.
    pub noid: Noid,
    /// What to do.
    pub op: HostOp,
    /// First block.
    pub start: Vba,
    /// How many.
    pub blocks: BlockCount,
    /// Of a write: how many the session has in hand.
    pub in_hand: BlockCount,
    /// What it waits for.
    pub stage: Stage,
    /// Whether it holds the cache lock on its range.
    pub locked: bool,
    /// Blocks of earlier portions, which are done.
    pub done: u32,
    /// The present portion.
    pub portion: Portion,
    /// Volatile memory that it holds.
    pub transfer: Option<TransferIndex>,
    /// The data of the present portion of a write are in `transfer`.
    pub data_in_transfer: bool,
    /// Since when its host is asked for data.
    pub fetching: Option<Time>,
    /// Since when it waits for its turn: since it came, or since its last portion ended.
    pub waits_since: Time,
    /// It has waited here while the LUN was the partner's: what its host sends again may be done there meanwhile.
    pub may_be_overtaken: bool,
    /// The host does not want it any more.
    pub withdrawn: bool,
    /// The present portion of a write was forwarded, and the owner fell silent: it may be done, or not.
    pub may_be_done: bool,
    /// It is no host's: old data are written once more, for a joiner that lacks them.
    pub carries: bool,
    /// What `AwaitDisk` waits for: all that is not younger, of the LUN or of its own granules.
    pub age: u64,
    /// Of a write in `AwaitDisk`: its own granules before this number are on disk.
    pub lacks_from: u64,
    /// Of a read: it has begun anew once, because all copies failed and this controller might have been blind.
    pub suspected: bool,
    /// How it ended, for `AwaitLeave`.
    pub status: Status,
    /// Of a read in `AwaitTurn`: the disk that had no room for it when that was looked at last.
    pub full_disk: Option<DiskIndex>,
    /// The command that was found last which this one must not overtake.
    pub behind: Behind,
}

/// A command that another must not overtake. Remembered only to be quick, it makes no difference: all of them are alike.
#[derive(Clone, Copy, Debug, Default)]
pub struct Behind(pub Option<Blocker>);

/// Which use of which HTB, and whether it came before the one that waits.
#[derive(Clone, Copy, Debug)]
pub struct Blocker {
    pub h: u32,
    pub generation: u32,
    pub is_earlier: bool,
}

impl PartialEq for Behind {
    fn eq(&self, _: &Behind) -> bool {
        true
    }
}

impl Eq for Behind {}

impl Hash for Behind {
    fn hash<H: Hasher>(&self, _: &mut H) {}
}

impl Htb {
    /// A command that waits for its turn.
    pub fn new(origin: Origin, ncae: NcaeIndex, noid: Noid, op: HostOp, start: Vba, blocks: BlockCount) -> Htb {
        Htb {
            origin,
            ncae,
            noid,
            op,
            start,
            blocks,
            in_hand: BlockCount(0),
            stage: Stage::AwaitTurn,
            locked: false,
            done: 0,
            portion: Portion::default(),
            transfer: None,
            data_in_transfer: false,
            fetching: None,
            waits_since: Time(0),
            may_be_overtaken: false,
            withdrawn: false,
            may_be_done: false,
            carries: false,
            age: 0,
            lacks_from: 0,
            suspected: false,
            status: Status::Good,
            full_disk: None,
            behind: Behind::default(),
        }
    }

    /// The numbers of the granules that it touches.
    pub fn granules(&self) -> Range<u64> {
        let first = self.start.0 / u64::from(BUFFER_BLOCKS);
        first..first + granules(self.start.0, self.blocks.0) as u64
    }

    /// The blocks that are left after the portions that are done.
    pub fn left(&self) -> u32 {
        self.blocks.0 - self.done
    }

    /// The first block that is left.
    pub fn next_block(&self) -> u64 {
        self.start.0 + u64::from(self.done)
    }

    /// A portion is done, and there are more.
    pub fn await_next_turn(&mut self, now: Time) {
        self.stage = Stage::AwaitTurn;
        self.waits_since = now;
    }

    fn granule_range(&self) -> (u64, u64) {
        let size = u64::from(BUFFER_BLOCKS);
        let end = self.start.0 + u64::from(self.blocks.0);
        if crate::mutant::is("lock-blocks-not-granules") {
            return (self.start.0, end);
        }
        (self.start.0 / size, end.div_ceil(size))
    }

    /// Whether both may not be worked on at once: they share a granule, and one of them writes. Whole granules,
    /// because a buffer holds one, and a granule has at most one valid buffer.
    pub fn conflicts_with(&self, other: &Htb) -> bool {
        let writes = |h: &Htb| matches!(h.op, HostOp::Write { .. });
        let locks = |h: &Htb| !matches!(h.op, HostOp::Sync);
        let ((a, a_end), (b, b_end)) = (self.granule_range(), other.granule_range());
        self.ncae == other.ncae
            && (writes(self) || writes(other))
            && locks(self)
            && locks(other)
            && a < b_end
            && b < a_end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_cover_the_range_and_nothing_else() {
        for start in 0..20u64 {
            for blocks in 1..40u32 {
                let covered: u32 = (0..10)
                    .map(|g| {
                        if (g + 1) * 8 <= start || g * 8 >= start + u64::from(blocks) {
                            0
                        } else {
                            mask_in_granule(g, start, blocks).count_ones()
                        }
                    })
                    .sum();
                assert_eq!(covered, blocks);
                assert_eq!(
                    granules(start, blocks),
                    sgl(start, blocks, &vec![BufferIndex(0); granules(start, blocks)]).len()
                );
            }
        }
    }
}
