//! A host's write, primary side: Fig. 5 of the seed, from top to bottom.
//!
//! ```text
//! on_host_command   610-625  an HTB, posted to the data flow queue            (controller.rs)
//! admit_write                valid? cache lock? buffers? leave to begin?
//! acquire           630-645  buffers and twins, RIE and by its index mirror RIE and MNODE
//! stage_nv                   RIE Free; old -> Provisional WB Not, new -> Provisional WB
//! request_mirror    655      RQR (in the express form it goes with the data)
//! fetch_host_data
//! on_rtr                     the mirror is armed                               } in either
//! on_host_data               the data are in the new buffers                   } order
//! commit_primary             RIE := Valid, one store
//! send_mirror_data
//! on_mda            720      the mirror has absorbed the data
//! settle_nv                  BMAEs to their final state, RIE released
//! finish_write      725      status, cache lock, HTB                           (controller.rs)
//! ```

use crate::cache::Granule;
use crate::controller::Core;
use crate::effect::Effect;
use crate::host::{HostOp, Status};
use crate::htb::{Origin, Portion, Stage, granules, mask_in_granule};
use crate::ids::{
    ATOMIC_BLOCKS, ATOMIC_GRANULES, BUFFER_BLOCKS, BlockCount, BufferIndex, CommandId, DiskIndex, NcaeIndex,
    RieGeneration, RieIndex, Vba,
};
use crate::layout::metadata::COPIES_MAX;
use crate::link::frame::{Rqr, SendStatus};
use crate::link::mfcd::Mfcd;
use crate::list::List;
use crate::mark::mark;
use crate::memory::Memory;
use crate::mutant;
use crate::nv::word::{Bmae, Rie, RieState};
use crate::read::extents;

/// A portion lies in two PSEGs of each copy at most.
const DISKS_OF_A_PORTION: usize = 2 * COPIES_MAX;

/// What a command could not get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lacks {
    /// Nothing: it goes on.
    Nothing,
    /// Leave to begin, or the cache lock.
    Leave,
    /// A transfer buffer, here or at the partner.
    Transfer,
    /// A transfer buffer besides the last one: who needs one and comes later waits behind it, as long as others come free.
    Spare,
    /// NV memory, or an RIE: whoever comes later and needs the same waits behind it.
    Memory,
}

/// How it stands while turns are given: what no more are left of, and to whom that has happened.
#[derive(Default)]
pub(crate) struct Turns {
    pub memory_is_short: bool,
    pub transfers_are_short: bool,
    /// A command to be forwarded waits for one more than the last, and one that is in use will come free.
    pub spare_is_awaited: bool,
    /// Somebody has begun.
    pub begun: bool,
    /// Somebody waits only because another before it waits for memory, or for a spare transfer buffer.
    pub passed_over: bool,
}

impl Core {
    /// The next portion of a write begins, if everything that it needs is there.
    pub(crate) fn admit_write(&mut self, h: u32) -> Lacks {
        if mutant::is("canary") {
            self.finish(h, Status::Good);
            return Lacks::Nothing;
        }
        if !self.may_stage() {
            return Lacks::Leave;
        }
        let htb = self.htb(h);
        let (ncae, start) = (htb.ncae, htb.next_block());
        let blocks = htb.left().min(ATOMIC_BLOCKS);
        if !self.can_be_written(ncae, start, blocks) {
            self.finish(h, Status::WriteError);
            return Lacks::Nothing;
        }
        let mirrored = self.is_mirroring();
        let first = start / u64::from(BUFFER_BLOCKS);
        let count = granules(start, blocks);
        let mut old = List::new();
        for number in first..first + count as u64 {
            let current = self.cache.current(Granule { ncae, number });
            let lacks = |b| !self.cache.get(b).twinned && !mutant::is("name-old-data-that-the-joiner-lacks");
            if mirrored && current.is_some_and(lacks) {
                // The joiner lacks the old data; they are on their way to the disk (R9).
                self.cache.hasten(Granule { ncae, number });
                return Lacks::Leave;
            }
            old.push(current);
        }
        if mirrored && !self.link.has_room() {
            return Lacks::Leave;
        }
        if self.has_its_share(ncae, start, blocks) {
            mark!("a write waits for its disk's share of NV memory");
            self.short_of_memory = true;
            return Lacks::Leave;
        }
        if self.cache.free() < count || self.free_ries.is_empty() {
            mark!("a write waits for buffers or an RIE");
            self.short_of_memory = true;
            // Nobody waits behind one that may wait for as long as a disk is dead.
            let in_vain = count > self.may_come_free() && !mutant::is("all-wait-behind-what-cannot-come-free");
            return if in_vain { Lacks::Leave } else { Lacks::Memory };
        }
        let htb = self.htb_mut(h);
        htb.locked = true;
        htb.portion = Portion {
            start,
            blocks,
            old,
            mirrored,
            express: htb.data_in_transfer || htb.in_hand.0 >= htb.done + blocks,
            ..Portion::default()
        };
        self.acquire(h);
        self.stage_nv(h);
        self.request_mirror(h);
        self.fetch_host_data(h);
        Lacks::Nothing
    }

    /// Buffers that carried data leave to others: a quarter of what disks that do not answer have left.
    pub(crate) fn kept_for_other_disks(&self) -> usize {
        self.buffers_left() / 4
    }

    fn buffers_left(&self) -> usize {
        let all = self.geometry().buffers as usize;
        if mutant::is("each-hung-disk-holds-as-much") {
            return all;
        }
        all - self.cache.posted()
    }

    /// How many buffers will be free if no disk that is in trouble now does what it should: at least, for what lies on two of them
    /// counts twice.
    fn may_come_free(&self) -> usize {
        let stuck: usize = self
            .disks
            .in_trouble()
            .map(|d| self.cache.count_of_disk(d) as usize)
            .sum();
        self.buffers_left().saturating_sub(stuck)
    }

    /// Most buffers that data of one disk would ever have if all others had none. The largest portion fits.
    fn largest_share(&self) -> usize {
        (self.buffers_left() - self.kept_for_other_disks()).max(ATOMIC_GRANULES)
    }

    /// Whether `count` more buffers are too many for the data of a disk. It may be dead, and nobody knows yet: so they never get more than
    /// three times as many as they leave free. What is left then is shared out in the same way, and however many disks die,
    /// something is left for the rest. A portion fits wherever its disk has nothing else; and where there are not that many free
    /// it only matters who waits behind whom.
    fn is_too_much_of(&self, disk: DiskIndex, count: usize) -> bool {
        let has = self.cache.count_of_disk(disk) as usize;
        let is_plain = mutant::is("each-hung-disk-holds-as-much") || mutant::is("what-dead-disks-hold-is-left");
        match self.cache.free().checked_sub(count) {
            Some(free) if has > 0 && !is_plain => has + count > (3 * free).max(self.least_share()),
            _ => has + count > self.largest_share(),
        }
    }

    /// Where there are so few buffers that one portion may take all nothing is shared out.
    fn least_share(&self) -> usize {
        let all = self.geometry().buffers as usize;
        if all < ATOMIC_GRANULES { all } else { 0 }
    }

    /// What is written to one disk never has all of NV memory: if the disk does not answer, what lies on others goes on. Whoever
    /// comes later and needs the same disk waits behind it, or many small writes would keep a large one waiting for ever.
    fn has_its_share(&mut self, ncae: NcaeIndex, start: u64, blocks: u32) -> bool {
        let count = granules(start, blocks);
        if mutant::is("a-lun-has-one-share") {
            return self.cache.count_of_lun(ncae) as usize + count > self.largest_share();
        }
        let mut disks: List<DiskIndex, DISKS_OF_A_PORTION> = List::new();
        for extent in extents(start, blocks) {
            self.places(ncae, extent.start)
                .iter()
                .for_each(|(disk, _)| disks.push(*disk));
        }
        let has = |disk: DiskIndex| self.is_too_much_of(disk, count);
        let waits = disks.iter().any(|d| has(*d) || self.disks_awaited.contains(d));
        if waits && !mutant::is("small-writes-overtake-a-large-one") {
            // Those that are short, and no others: what lies on these waits for nothing.
            let new = disks.iter().filter(|d| has(**d) && !self.disks_awaited.contains(d));
            // Of more than fit some are overtaken once more.
            let new: List<DiskIndex, DISKS_OF_A_PORTION> = new.copied().collect();
            new.iter().for_each(|d| _ = self.disks_awaited.try_push(*d));
        }
        waits
    }

    /// Allocates the new buffers, with their twins, and an RIE, with mirror RIE and MNODE.
    pub(crate) fn acquire(&mut self, h: u32) {
        let (ncae, portion) = (self.htb(h).ncae, self.htb(h).portion);
        let first = portion.start / u64::from(BUFFER_BLOCKS);
        let mut new = List::new();
        for (number, old) in (first..).zip(portion.old.iter()) {
            let merged = old.map_or(0, |o| self.cache.get(o).mask);
            let written = if self.htb(h).carries {
                0
            } else {
                mask_in_granule(number, portion.start, portion.blocks)
            };
            let mask = written | merged;
            let mask = if mutant::is("whole-mask") { u8::MAX } else { mask };
            let granule = Granule { ncae, number };
            let copies = self.disks_of_block(ncae, granule.start().0);
            new.push(self.cache.allocate(granule, copies, mask));
        }
        let rie = self.free_ries.pop().expect("admit_write looked");
        let local = self.local_rie(rie);
        self.rie_htb[local] = Some(h);
        let last = self.words.rie(rie).map_or(RieGeneration(0), |r| r.generation);
        if last == RieGeneration(u16::MAX) {
            mark!("the uses of an RIE wrap");
        }
        let htb = self.htb_mut(h);
        htb.portion.new = new;
        htb.portion.rie = rie;
        htb.portion.generation = RieGeneration(last.0.wrapping_add(u16::from(!mutant::is("rie-uses-uncounted"))));
    }

    /// [0098]: from here to the commit a crash leaves the old data.
    pub(crate) fn stage_nv(&mut self, h: u32) {
        let (ncae, p) = (self.htb(h).ncae, self.htb(h).portion);
        self.stage_rie(p.rie, p.generation, ncae, Vba(p.start), BlockCount(p.blocks));
        for old in p.old.iter().flatten() {
            let mask = self.cache.get(*old).mask;
            if !mutant::is("old-data-unheld") {
                self.cache.hold(*old);
            }
            if mutant::is("free-old-at-staging") {
                self.store_bmae(*old, Bmae::FREE);
                continue;
            }
            self.store_bmae(*old, Bmae::provisional_wb_not(p.rie, mask));
        }
        for new in p.new.iter() {
            let buffer = *self.cache.get(*new);
            self.store_start(*new, buffer.granule.start());
            self.store_bmae(*new, Bmae::provisional_wb(p.rie, buffer.mask));
        }
    }

    /// The long form asks the mirror to prepare while the data are fetched from the host.
    fn request_mirror(&mut self, h: u32) {
        let portion = self.htb(h).portion;
        if portion.mirrored && !portion.express {
            self.send_rqr(h);
        }
    }

    /// Releases go before any request that could use the same buffers again.
    fn send_rqr(&mut self, h: u32) {
        if !mutant::is("releases-after-the-request") {
            self.send_releases();
        }
        let p = &self.htb(h).portion;
        let (rie, generation, express) = (p.rie, p.generation, p.express);
        self.link.request(Mfcd::Rqr {
            rie,
            generation,
            express,
        });
    }

    pub(crate) fn rqr(&self, h: u32) -> Rqr {
        let htb = self.htb(h);
        let portion = &htb.portion;
        let (mut valid, mut old) = (u8::MAX, portion.old.iter().flatten().copied().collect());
        if htb.carries {
            // The joiner has none of these data yet.
            (valid, old) = (self.cache.get(portion.new[0]).mask, List::new());
        }
        if mutant::is("carry-whole-granules") {
            valid = u8::MAX;
        }
        Rqr {
            rie: portion.rie,
            generation: portion.generation,
            noid: htb.noid,
            ncae: htb.ncae,
            start: Vba(portion.start),
            blocks: BlockCount(portion.blocks),
            valid,
            new: portion.new,
            old,
            express: portion.express,
        }
    }

    fn fetch_host_data(&mut self, h: u32) {
        let htb = self.htb_mut(h);
        htb.stage = Stage::AwaitHostData;
        let (portion, offset, origin) = (htb.portion, htb.done, htb.origin);
        let into = portion.sgl();
        if htb.data_in_transfer {
            let transfer = htb.transfer.expect("the data are in it");
            let first = u16::from(mutant::is("scatter-from-the-second-block"));
            self.effects.push(Effect::Scatter { transfer, first, into });
            self.on_data(h);
        } else if let Origin::Host(id) = origin {
            let offset = if mutant::is("fetch-from-the-beginning") {
                0
            } else {
                offset
            };
            self.fetch(h, id, BlockCount(offset), Memory::Buffers(into));
        }
    }

    /// Data of a write are fetched from its host.
    pub(crate) fn fetch(&mut self, h: u32, id: CommandId, offset: BlockCount, into: Memory) {
        self.htb_mut(h).fetching = Some(self.now);
        self.watch_for_overdue();
        self.effects.push(Effect::Fetch { id, offset, into });
    }

    /// The host's data are in the new buffers, or will not come.
    pub(crate) fn on_host_data(&mut self, h: u32, complete: bool) {
        self.htb_mut(h).fetching = None;
        match self.htb(h).stage {
            Stage::AwaitHostData if complete => self.on_data(h),
            Stage::AwaitHostData => {
                mark!("a write is withdrawn before its data came");
                self.withdraw(h);
            }
            Stage::AwaitOwner => self.on_forward_data(h, complete),
            stage => panic!("host data while {stage:?}"),
        }
    }

    /// Nothing: what was posted for the data of a withdrawn write may still land, so it ends only once they came, or will not.
    /// Two mutants do not wait for that.
    pub(crate) fn withdraw_before_its_data(&mut self, h: u32) {
        let htb = self.htb(h);
        match htb.stage {
            _ if htb.fetching.is_none() => {}
            Stage::AwaitHostData if mutant::is("withdraw-before-the-data") => self.withdraw(h),
            Stage::AwaitOwner if mutant::is("recall-before-the-data") => self.finish(h, Status::Aborted),
            _ => {}
        }
    }

    fn on_data(&mut self, h: u32) {
        let p = self.htb(h).portion;
        self.merge_and_seal(p.start, p.blocks, &p.new, &p.old);
        self.commit_primary(h);
    }

    /// The commit: one store makes the new data valid and the old data free.
    pub(crate) fn commit_primary(&mut self, h: u32) {
        let (ncae, p) = (self.htb(h).ncae, self.htb(h).portion);
        let rie = Rie {
            state: RieState::Valid,
            generation: p.generation,
            ncae,
        };
        self.store_rie(p.rie, rie);
        let token = self.htb_token(h);
        self.effects.push(Effect::Persist { token });
        let htb = self.htb_mut(h);
        htb.stage = Stage::AwaitMirror;
        htb.portion.committed = true;
        if p.mirrored && p.express {
            self.send_rqr(h);
        } else if p.mirrored && p.attempt.is_some() {
            self.send_mirror_data(h);
        }
        if mutant::is("acknowledge-before-mda") {
            self.htb_mut(h).portion.absorbed = true;
        }
    }

    /// The commit is durable.
    pub(crate) fn on_persisted(&mut self, h: u32) {
        self.htb_mut(h).portion.persisted = true;
        self.join_commit(h);
    }

    /// The mirror is armed; the data go as soon as they are here.
    pub(crate) fn on_rtr(&mut self, rie: RieIndex, generation: RieGeneration, attempt: u8) {
        let any = |_: &u32| mutant::is("an-rtr-of-an-earlier-use");
        let earlier = self.rie_htb.get(self.local_rie(rie)).copied().flatten().filter(any);
        let Some(h) = self.htb_of_rie(rie, generation).or(earlier) else {
            mark!("an RTR is stale");
            self.stale += 1;
            return;
        };
        self.htb_mut(h).portion.attempt = Some(attempt);
        if self.htb(h).portion.committed || mutant::is("send-before-the-commit") {
            self.send_mirror_data(h);
        }
    }

    fn send_mirror_data(&mut self, h: u32) {
        let p = &self.htb(h).portion;
        let (rie, generation) = (p.rie, p.generation);
        self.link.request(Mfcd::MirrorData { rie, generation });
    }

    /// The mirror waits for the data: what became of them (DTO, answered by DSS).
    pub(crate) fn on_dto(&mut self, rie: RieIndex, generation: RieGeneration, attempt: u8) {
        let status = match self.htb_of_rie(rie, generation).map(|h| &mut self.htb_mut(h).portion) {
            None => SendStatus::Aborted,
            // They go again with the RTR that follows.
            Some(p) if p.committed && p.attempt == Some(attempt) => {
                mark!("data that were sent are asked for again");
                p.attempt = None;
                SendStatus::Sent
            }
            Some(_) => SendStatus::NotYetSent,
        };
        self.link.request(Mfcd::Dss {
            rie,
            generation,
            attempt,
            status,
        });
    }

    /// The mirror has absorbed the data [0083].
    pub(crate) fn on_mda(&mut self, rie: RieIndex, generation: RieGeneration) {
        let Some(h) = self.htb_of_rie(rie, generation) else {
            self.stale += 1;
            return;
        };
        if !self.htb(h).portion.committed {
            self.stale += 1;
            return;
        }
        self.htb_mut(h).portion.absorbed = true;
        self.join_commit(h);
    }

    /// Goes on once the commit is durable and the mirror has absorbed the data, or the record says that there is none.
    pub(crate) fn join_commit(&mut self, h: u32) {
        let p = &self.htb(h).portion;
        let no_wait = mutant::is("disk-before-mda-while-joining") && self.is_write_through();
        let persisted = p.persisted || mutant::is("status-before-the-commit-is-durable");
        if p.committed && persisted && (p.absorbed || !p.mirrored || no_wait) {
            self.settle_nv(h);
            self.finish_portion(h);
        }
    }

    /// [0099]: the BMAEs get their final state, then the RIE is released.
    fn settle_nv(&mut self, h: u32) {
        let (ncae, p) = (self.htb(h).ncae, self.htb(h).portion);
        for (new, old) in p.new.iter().zip(p.old.iter()) {
            let mask = self.cache.get(*new).mask;
            self.store_bmae(*new, Bmae::wb_valid(ncae, mask));
            if let Some(old) = old.filter(|_| !mutant::is("old-stays-valid")) {
                self.store_bmae(old, Bmae::FREE);
            }
            self.cache.absorb(*new, *old, p.mirrored);
        }
        self.release_rie(h);
    }

    fn release_rie(&mut self, h: u32) {
        let (ncae, p) = (self.htb(h).ncae, self.htb(h).portion);
        let rie = Rie {
            state: RieState::Unused,
            generation: p.generation,
            ncae,
        };
        self.store_rie(p.rie, rie);
        let local = self.local_rie(p.rie);
        self.rie_htb[local] = None;
        if !mutant::is("leak-an-rie") {
            self.free_ries.push(p.rie);
        }
        self.htb_mut(h).portion = Portion::default();
        self.turn_may_have_come = true;
        self.last_write = self.now;
    }

    /// The host withdrew the write before its data came: the old data stay.
    fn withdraw(&mut self, h: u32) {
        let (ncae, p) = (self.htb(h).ncae, self.htb(h).portion);
        if p.requested && !mutant::is("withdraw-unsaid") {
            let (rie, generation) = (p.rie, p.generation);
            // What is released now was named by this write: the mirror must hear first that it is over.
            self.destager.close_release();
            self.link.request(Mfcd::Withdraw { rie, generation });
        }
        for (new, old) in p.new.iter().zip(p.old.iter()) {
            self.store_bmae(*new, Bmae::FREE);
            if let Some(old) = *old {
                self.let_go_of_old(old, ncae);
            }
            self.cache.unstage(*new);
        }
        self.send_releases();
        self.release_rie(h);
        self.finish(h, Status::Aborted);
    }

    /// The old data are valid again, unless they reached the disk meanwhile.
    fn let_go_of_old(&mut self, old: BufferIndex, ncae: NcaeIndex) {
        let held = *self.cache.get(old);
        if self.cache.let_go(old) {
            self.store_bmae(old, Bmae::FREE);
            if held.twinned && self.is_mirroring() {
                self.release_twin(old);
            }
        } else if !mutant::is("old-not-restored") {
            self.store_bmae(old, Bmae::wb_valid(ncae, held.mask));
        }
    }

    fn finish_portion(&mut self, h: u32) {
        let now = self.now;
        let htb = self.htb_mut(h);
        htb.done += htb.left().min(ATOMIC_BLOCKS);
        htb.data_in_transfer = false;
        if htb.carries {
            return self.finish(h, Status::Good);
        }
        if htb.left() > 0 {
            return htb.await_next_turn(now);
        }
        let fua = matches!(htb.op, HostOp::Write { fua: true }) && !mutant::is("fua-from-memory");
        let alone = self.is_write_through() && !mutant::is("write-back-while-alone");
        if fua || alone || self.is_lun_draining(self.htb(h).ncae) {
            self.await_disk(h);
        } else {
            self.finish(h, Status::Good);
        }
    }
}
