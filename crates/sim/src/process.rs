//! One controller's process, and its NV memory, which outlives it.

use crate::fault::Point;
use crate::image_check::ImageCheck;
use crate::licence::Licence;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use twincell_core::cell::Phase;
use twincell_core::config::Geometry;
use twincell_core::ids::{
    BufferIndex, CommandId, DiskIndex, NvAddress, RequestId, RieGeneration, RieIndex, TransferIndex, Uuid,
};
use twincell_core::manage::LunView;
use twincell_core::memory::Memory;
use twincell_core::nv::resolve::ValidBuffer;
use twincell_core::nv::word::{BmaeState, Rie, RieState};
use twincell_core::nv::{Image, Words};
use twincell_core::{Core, Event};

/// Blocks of a transfer buffer.
const TRANSFER_BLOCKS: usize = 264;

/// What a store has done.
#[derive(Clone, Copy, Debug)]
pub struct Stored {
    /// It has made this valid buffer free, and the image has no other for its granule.
    pub freed: Option<ValidBuffer>,
    /// It was the commit of a write: by which RIE, and of which tag.
    pub committed: Option<(RieIndex, u64)>,
}

/// A commit that may not be durable yet.
#[derive(Clone, Copy, Debug)]
pub struct Commit {
    /// Its RIE.
    pub rie: RieIndex,
    /// What was written.
    pub tag: u64,
    /// What was asked for after it: once that is answered it is durable.
    pub token: Option<u64>,
}

/// NV memory: words and buffers.
#[derive(Clone)]
pub struct NvMemory {
    /// Identity and words.
    pub image: Image,
    /// One tag a block.
    buffers: Vec<[u64; 8]>,
    /// Counts what was stored and written.
    changes: u64,
    /// What was sealed: mask and the tags under it.
    seals: Vec<Option<(u8, u64)>>,
    /// What a crash would leave.
    check: ImageCheck,
    /// Bits have flipped since the image was fresh.
    pub is_flipped: bool,
}

impl NvMemory {
    /// An empty image.
    pub fn new(geometry: Geometry) -> NvMemory {
        NvMemory {
            image: Image {
                uuid: Uuid::NIL,
                words: vec![0; geometry.words() as usize],
            },
            buffers: vec![[0; 8]; geometry.buffers_of_both() as usize],
            changes: 0,
            seals: vec![None; geometry.buffers_of_both() as usize],
            check: ImageCheck::new(geometry),
            is_flipped: false,
        }
    }

    /// One store.
    ///
    /// # Errors
    /// What a crash right after it would leave wrong.
    pub fn store(&mut self, address: NvAddress, word: u64) -> Result<Stored, String> {
        self.changes += 1;
        self.image.words[address.index()] = word;
        let freed = self.check.store(address, word)?;
        let rie = self.check.committed_by(address);
        for (buffer, mask) in rie
            .into_iter()
            .flat_map(|r| self.check.named_by(r, BmaeState::ProvisionalWb))
        {
            self.is_sealed(buffer, mask)?;
        }
        let committed = rie.and_then(|rie| Some((rie, self.new_tag(rie)?)));
        Ok(Stored { freed, committed })
    }

    /// What the write of an RIE writes: in its new buffers, and not in the old.
    fn new_tag(&self, rie: RieIndex) -> Option<u64> {
        let mut new = self.tags_of(rie, BmaeState::ProvisionalWb);
        new.find(|tag| self.tags_of(rie, BmaeState::ProvisionalWbNot).all(|old| old != *tag))
    }

    fn tags_of(&self, rie: RieIndex, state: BmaeState) -> impl Iterator<Item = u64> + '_ {
        let buffers = self.check.named_by(rie, state);
        buffers.flat_map(move |(b, mask)| {
            (0..8)
                .filter(move |n| mask >> n & 1 == 1)
                .map(move |n| self.buffer(b)[n])
        })
    }

    /// The blocks of a buffer.
    pub fn buffer(&self, buffer: BufferIndex) -> &[u64; 8] {
        &self.buffers[buffer.index()]
    }

    fn buffer_mut(&mut self, buffer: BufferIndex) -> &mut [u64; 8] {
        self.changes += 1;
        &mut self.buffers[buffer.index()]
    }

    /// Copies the blocks of `mask`.
    pub fn merge(&mut self, from: BufferIndex, to: BufferIndex, mask: u8) {
        let old = *self.buffer(from);
        let new = self.buffer_mut(to);
        for n in (0..8).filter(|n| mask >> n & 1 == 1) {
            new[n] = old[n];
        }
    }

    /// The words, as long as none has flipped.
    pub fn words(&self) -> &Words {
        self.check.words()
    }

    /// By buffer: what a crash would leave in it, if anything.
    pub fn valid_buffers(&self) -> impl Iterator<Item = Option<ValidBuffer>> {
        self.check.valid_buffers()
    }

    /// How often a word or a buffer has changed.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// The RIEs that are not in use have been used so often that the count of their uses soon wraps.
    ///
    /// # Errors
    /// What a crash right after that would leave wrong.
    pub fn age_ries(&mut self, geometry: Geometry) -> Result<(), String> {
        let words = Words::new(geometry, Some(&self.image.words));
        for rie in (0..geometry.ries * 2).map(RieIndex) {
            let Some(unused) = words.rie(rie).ok().filter(|r| r.state == RieState::Unused) else {
                continue;
            };
            let generation = RieGeneration(u16::MAX - rie.0 % 2);
            let (address, word) = words.rie_store(rie, Rie { generation, ..unused });
            self.store(address, word)?;
        }
        Ok(())
    }

    /// Empties the image.
    pub fn renew(&mut self, uuid: Uuid) {
        self.changes += 1;
        self.image.uuid = uuid;
        self.image.words.fill(0);
        self.check.clear();
        self.is_flipped = false;
        self.seals.fill(None);
    }

    /// One bit of a word that is in use flips, and nobody notices; `bit` chooses among them.
    pub fn flip(&mut self, bit: u64) {
        let used: Vec<usize> = (0..self.image.words.len())
            .filter(|n| self.image.words[*n] != 0)
            .collect();
        if let Some(word) = used.get((bit / 64) as usize % used.len().max(1)) {
            self.image.words[*word] ^= 1 << (bit % 64);
            self.is_flipped = true;
        }
    }

    fn sum(&self, buffer: usize, mask: u8) -> u64 {
        let blocks = self.buffers[buffer].iter().enumerate();
        let valid = blocks.filter(|(n, _)| mask >> n & 1 == 1);
        valid.fold(u64::from(mask), |sum, (n, tag)| {
            sum.wrapping_mul(31).wrapping_add(tag ^ n as u64)
        })
    }

    /// Notes the checksum of a buffer.
    pub fn seal(&mut self, buffer: u32, mask: u8) {
        let sum = self.sum(buffer as usize, mask);
        self.seals[buffer as usize] = Some((mask, sum));
    }

    /// Which blocks of a buffer were sealed.
    pub fn sealed(&self, buffer: BufferIndex) -> u8 {
        self.seals[buffer.index()].map_or(0, |(mask, _)| mask)
    }

    /// Whether a buffer still has what was sealed, if anything was since the image is new: a write of a process that has died
    /// may land when there is another.
    pub fn is_sound(&self, buffer: u32) -> bool {
        self.seals[buffer as usize].is_none_or(|(mask, sum)| self.sum(buffer as usize, mask) == sum)
    }

    /// Whether a buffer still has what was sealed, and that are the blocks which its BMAE says to be valid.
    ///
    /// # Errors
    /// What is wrong.
    pub fn is_sealed(&self, buffer: BufferIndex, valid: u8) -> Result<(), String> {
        match self.seals[buffer.index()] {
            Some((mask, sum)) if mask == valid && self.sum(buffer.index(), mask) == sum => Ok(()),
            Some((mask, _)) if mask == valid => Err(format!("{buffer:?} has changed since it was sealed")),
            Some((mask, _)) => Err(format!("of {buffer:?} {valid:#x} is valid and {mask:#x} sealed")),
            None => Err(format!("{buffer:?} has no seal")),
        }
    }
}

/// A process.
#[derive(Clone)]
pub struct Process {
    /// Its number; no other process ever has it.
    pub id: u32,
    /// The controller's core.
    pub core: Core,
    /// Whether hosts are accepted.
    pub serves: bool,
    /// When it last began to accept them.
    pub serving_since: u64,
    /// Since when it has served without a mirror.
    pub alone_since: Option<u64>,
    /// It is stopped until then.
    pub paused_until: u64,
    /// What arrived while it was stopped.
    pub backlog: VecDeque<Event>,
    /// It waits for its own locks.
    pub wants_locks: bool,
    /// It waits for the partner's locks.
    pub wants_fence: bool,
    /// It crashes after so many effects.
    pub crash_after: Option<u32>,
    /// It crashes before it carries out an effect of this kind.
    pub crash_before: Option<Point>,
    /// Commands of hosts that are not completed: the attempt that each is.
    pub commands: BTreeMap<CommandId, u64>,
    /// What operators have asked for, and have no answer to.
    pub requests: BTreeSet<RequestId>,
    /// Volatile memory.
    transfers: Vec<[u64; TRANSFER_BLOCKS]>,
    /// The deadline for which a tick is under way.
    pub tick_at: u64,
    /// The LUNs as hosts were last told of them.
    pub told: Vec<LunView>,
    /// What it was about before its last step.
    pub phase: Phase,
    /// Commits that may not be durable yet.
    pub commits: Vec<Commit>,
    /// How long it may answer hosts.
    pub licence: Licence,
    /// Among the frames that came too early and wait for their turn is one with messages that may end the link.
    pub holds_what_may_end_a_link: bool,
    /// The process whose messages it has last taken; 0 for none.
    pub partner: u32,
    /// The connections to its partner on which it has said hello.
    pub greeted: BTreeSet<u64>,
}

impl Process {
    /// A process that has just started.
    pub fn new(id: u32, core: Core, geometry: Geometry, voters: &[DiskIndex]) -> Process {
        Process {
            id,
            core,
            serves: false,
            serving_since: 0,
            alone_since: None,
            paused_until: 0,
            backlog: VecDeque::new(),
            wants_locks: false,
            wants_fence: false,
            crash_after: None,
            crash_before: None,
            commands: BTreeMap::new(),
            requests: BTreeSet::new(),
            transfers: vec![[0; TRANSFER_BLOCKS]; usize::from(geometry.transfers) + 1],
            tick_at: 0,
            told: Vec::new(),
            phase: Phase::AwaitRecord,
            commits: Vec::new(),
            licence: Licence::new(voters),
            holds_what_may_end_a_link: false,
            partner: 0,
            greeted: BTreeSet::new(),
        }
    }

    fn transfer(&mut self, transfer: TransferIndex, first: u16, blocks: u16) -> &mut [u64] {
        let first = usize::from(first);
        &mut self.transfers[transfer.index()][first..first + usize::from(blocks)]
    }

    /// The tags in a memory.
    pub fn read(&mut self, nv: &NvMemory, memory: &Memory) -> Vec<u64> {
        match memory {
            Memory::Buffers(sgl) => {
                let mut tags = Vec::with_capacity(memory.blocks() as usize);
                for s in sgl.iter() {
                    let first = usize::from(s.first);
                    tags.extend_from_slice(&nv.buffer(s.buffer)[first..first + usize::from(s.count)]);
                }
                tags
            }
            Memory::Transfer {
                transfer,
                first,
                blocks,
            } => self.transfer(*transfer, *first, *blocks).to_vec(),
        }
    }

    /// Puts tags into a memory.
    pub fn write(&mut self, nv: &mut NvMemory, memory: &Memory, tags: &[u64]) {
        assert_eq!(memory.blocks() as usize, tags.len(), "the length of the data");
        match memory {
            Memory::Buffers(sgl) => {
                let mut tags = tags;
                for s in sgl.iter() {
                    let (here, rest) = tags.split_at(s.count.into());
                    let first = usize::from(s.first);
                    nv.buffer_mut(s.buffer)[first..first + here.len()].copy_from_slice(here);
                    tags = rest;
                }
            }
            Memory::Transfer {
                transfer,
                first,
                blocks,
            } => {
                self.transfer(*transfer, *first, *blocks).copy_from_slice(tags);
            }
        }
    }
}
