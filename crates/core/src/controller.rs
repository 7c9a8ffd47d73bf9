//! The core as its drivers see it: `step`, the data flow queue of the seed [0058] [0066]-[0068].
//!
//! One event is handled to the end, then [`Core::settle`] resumes what waited for what has come free. Nothing blocks.

use crate::cache::{Cache, Copies, Granule};
use crate::cell::ballot::Ballot;
use crate::cell::pulse::Pulse;
use crate::cell::quorum::{Quorum, Slots, Want};
use crate::cell::record::{Mode, Record, Slot};
use crate::cell::{Fence, Joiner, Leveling, Phase};
use crate::config::{Config, Geometry};
use crate::destage::Destager;
use crate::disk::Disks;
use crate::effect::{Effect, Note};
use crate::event::{DiskError, Event};
use crate::forward::Call;
use crate::host::{HostCommand, HostOp, Status};
use crate::htb::{Behind, Blocker, Htb, Origin, Stage};
use crate::ids::{
    BlockCount, BufferIndex, CommandId, ConnectionId, Controller, DiskIndex, Epoch, IoId, Nanos, NcaeIndex, Noid,
    NvAddress, ProcessId, QUORUM_MAX, RieGeneration, RieIndex, Time, TransferIndex, Vba,
};
use crate::layout::metadata::{Lun, Metadata};
use crate::link::frame::{Messages, Mfcs, Sequenced};
use crate::link::mfcd::{Mfcd, ReadData};
use crate::link::path::PathView;
use crate::link::{Link, Position};
use crate::list::List;
use crate::manage::LunView;
use crate::mark::mark;
use crate::merge::Merger;
use crate::mirror::{Mnode, MnodeStage};
use crate::mutant;
use crate::nv::resolve::resolve;
use crate::nv::word::{Bmae, Ncae, Rie, RieState};
use crate::nv::{Image, Words};
use crate::pool::Pool;
use crate::read::Extent;
use crate::sight::Sight;
use crate::task::Task;
use crate::write::{Lacks, Turns};
use std::collections::VecDeque;

/// What a controller is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Reading the record, or waiting for the partner, a lock, or an operator.
    Starting,
    /// Serves nothing; the partner brings it level.
    Joining,
    /// Serves hosts.
    Serving,
    /// Was serving; nothing is acknowledged until a ballot has decided.
    Deciding,
    /// On its way out.
    Stopping,
}

/// The state of the cell as this controller sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CellView {
    /// What this controller is doing.
    pub role: Role,
    /// The membership record; `None` while it was not yet read.
    pub record: Option<Record>,
    /// Whether the link to the partner works.
    pub linked: bool,
    /// Whether the partner is joining.
    pub joining: bool,
    /// `ALONE(c, dirty)` without c, or without what c's memory held: an operator has to accept the loss of this memory.
    pub awaited_memory: Option<Controller>,
    /// Valid NV buffers: data that the disks may lack.
    pub dirty_buffers: u32,
    /// RIEs in use.
    pub open_ries: u32,
    /// What it waits for, as a member of the cell.
    pub phase: Phase,
    /// Whether its NV image is one that the record names (R8).
    pub image_current: bool,
    /// Quorum disks whose last answer was an error.
    pub quorum_failing: List<DiskIndex, QUORUM_MAX>,
    /// While it waits for a partner that is in: when that one last gave a sign of life.
    pub partner_last_seen: Option<Time>,
}

/// The partner sent what a sound partner does not send: the connection ends, and a ballot decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Violation(pub &'static str);

/// A disk I/O in flight, and what it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Io {
    /// A round over the quorum disks: the read of member n.
    SlotRead(usize),
    /// Its write.
    SlotWrite(usize),
    /// Metadata that the record names.
    MetadataRead,
    /// New metadata of an operator's task.
    MetadataWrite { disk: DiskIndex },
    /// What a LUN is to have is zeroed.
    Zero { disk: DiskIndex },
    /// A read for a host.
    Read { htb: u32, extent: Extent, disk: DiskIndex },
    /// A read that is overdue and that nobody waits for any more. Its memory is not used again until it ends.
    OldRead { transfer: TransferIndex, disk: DiskIndex },
    /// Dirty data on their way to a disk.
    Destage { batch: u32, disk: DiskIndex },
    /// A flush of what was destaged.
    Flush { disk: DiskIndex },
    /// A look at a disk that is missing.
    Probe { disk: DiskIndex },
    /// A piece for a disk that is made level, from its other copy.
    CopyRead { disk: DiskIndex },
    /// The same, of this LUN, to the disk.
    CopyWrite { ncae: NcaeIndex, disk: DiskIndex },
    /// A flush of what was copied.
    CopyFlush { disk: DiskIndex },
}

impl Io {
    /// The disk, where it matters whether it answers.
    pub(crate) fn disk(&self) -> Option<DiskIndex> {
        match *self {
            Io::Read { disk, .. } | Io::OldRead { disk, .. } | Io::Destage { disk, .. } | Io::Flush { disk } => {
                Some(disk)
            }
            Io::CopyRead { disk } | Io::CopyWrite { disk, .. } | Io::CopyFlush { disk } => Some(disk),
            Io::Zero { disk } | Io::MetadataWrite { disk } => Some(disk),
            Io::SlotRead(_) | Io::SlotWrite(_) | Io::MetadataRead | Io::Probe { .. } => None,
        }
    }

    /// Whether it brings data from NV memory to a disk.
    fn is_of_destager(&self) -> bool {
        matches!(self, Io::Destage { .. } | Io::Flush { .. })
    }
}

/// A disk I/O in flight, and whether it is overdue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct InFlight {
    pub(crate) io: Io,
    pub(crate) overdue: bool,
    /// It is overdue, and counts all the same when it ends: its disk is only slow.
    pub(crate) waited_for: bool,
    /// Its disk was given up since.
    pub(crate) before_missing: bool,
}

/// A controller.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Core {
    pub(crate) config: Config,
    pub(crate) now: Time,
    /// What the present step wants done; empty between steps.
    pub(crate) effects: Vec<Effect>,

    // NV memory and what is in it.
    pub(crate) image: crate::ids::Uuid,
    pub(crate) words: Words,
    pub(crate) cache: Cache,

    // Membership (the cell machine).
    pub(crate) phase: Phase,
    pub(crate) quorum: Quorum,
    pub(crate) record: Option<Record>,
    pub(crate) ballot: Option<Ballot>,
    pub(crate) ballot_not_before: Time,
    pub(crate) ballot_tries: u32,
    /// The own slot could not be written: before that is tried again, the others are read.
    pub(crate) looks_first: bool,
    /// The highest ballot number that was ever seen.
    pub(crate) ballot_seen: u64,
    /// A vote on the next record was seen whose result is not known.
    pub(crate) undecided: bool,
    /// The own slot must be written for others to see.
    pub(crate) announce: bool,
    pub(crate) locks: Locks,
    pub(crate) locks_taken_at: Time,
    /// The own slot was read since the own locks are held.
    pub(crate) own_slot_known: bool,
    /// The record says `BOTH`, and neither image is current (R8).
    pub(crate) both_images_lost: bool,
    pub(crate) partner_process: ProcessId,
    pub(crate) sight: Sight,
    /// The size of the partner's cache, if it is not this one's: see `Hello::buffers`.
    pub(crate) other_cache: Option<u32>,
    pub(crate) grant_until: Time,
    pub(crate) lease_until: Time,
    pub(crate) renew_at: Time,
    pub(crate) fence: Fence,
    pub(crate) joiner: Joiner,
    /// The partner wants to join, and is let in later: see `lets_in_later`.
    pub(crate) attach_waits: bool,
    pub(crate) leveling: Leveling,
    /// This process has served: its cache and its writes in progress are alive.
    pub(crate) has_served: bool,
    /// The partner said that it leaves: it is fenced only after this, or once its connection is over.
    pub(crate) leaver_may_go_until: Option<Time>,
    pub(crate) partners_pulse: Pulse,
    pub(crate) operator_called: bool,
    /// The operator was told that the image of this controller is lost.
    pub(crate) image_loss_told: bool,
    /// An operator has given up the partner's memory (R8).
    pub(crate) loss_accepted: bool,
    pub(crate) metadata: Option<Metadata>,
    pub(crate) metadata_tries: u32,
    /// When the metadata are read again, after none of the quorum disks had them.
    pub(crate) metadata_again: Option<Time>,
    pub(crate) lun_of: Vec<Option<u16>>,
    pub(crate) task: Option<Task>,
    /// The task has come to another stage, or another task is the one in progress.
    pub(crate) task_moves: bool,
    /// Tasks that wait for what may take long, while something else is done: the last one goes on first.
    pub(crate) interrupted: Vec<Task>,
    pub(crate) new_metadata: Option<Metadata>,
    pub(crate) to_adopt: Option<Record>,
    /// The newest record that the partner said it goes by.
    pub(crate) partner_adopted: Epoch,

    // The link.
    pub(crate) link: Link,
    pub(crate) calls: Pool<Call>,
    pub(crate) remote_transfers: Vec<TransferIndex>,
    /// Messages for exchanges that are over: refused and counted.
    pub(crate) stale: u64,

    // Host commands (the shard machine).
    pub(crate) htbs: Pool<Htb>,
    /// HTBs in order of arrival.
    pub(crate) order: VecDeque<u32>,
    pub(crate) free_ries: Vec<RieIndex>,
    pub(crate) rie_htb: Vec<Option<u32>>,
    pub(crate) mnodes: Vec<Mnode>,
    pub(crate) free_transfers: Vec<TransferIndex>,
    /// The transfer buffers here that are the partner's, in the order in which it names them.
    pub(crate) partners: Vec<TransferIndex>,
    /// By transfer buffer: reads that are overdue and that nobody waits for.
    pub(crate) old_reads: Vec<u8>,
    /// A read of the partner's is overdue, and cannot be left for want of a transfer buffer: the next one that comes free is for it.
    pub(crate) read_lacks_memory: bool,
    pub(crate) ios: Pool<InFlight>,
    pub(crate) destager: Destager,
    pub(crate) disks: Disks,
    pub(crate) merger: Merger,
    pub(crate) awaiting_disk: u32,
    pub(crate) turn_may_have_come: bool,
    pub(crate) short_of_memory: bool,
    /// Disks for which a write waits, of those that have had their turn so far.
    pub(crate) disks_awaited: List<DiskIndex, 16>,
    /// How many buffers were free when all had had their turn.
    pub(crate) free_at_turns: usize,
    /// While turns are given: where so much is forwarded to that nothing more is.
    pub(crate) disks_with_their_share: List<Copies, 8>,
    pub(crate) last_write: Time,
    /// When it is looked again who keeps others waiting.
    pub(crate) look_for_overdue: Option<Time>,
    /// Since when this controller stood still, and until when what is handed to it may have come meanwhile.
    pub(crate) stood_still: Option<(Time, Time)>,
    /// The owner could not take what was forwarded: nothing more is forwarded before this.
    pub(crate) forwards_rest_until: Option<Time>,
}

/// So long after a controller stood still it is handed what had come meanwhile.
const HANDED_OVER: Nanos = Nanos::from_millis(100);

/// The own lock bytes (R5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Locks {
    /// Not asked for: this controller is out, and the partner's fence may hold them.
    None,
    /// Asked for.
    Awaited,
    /// Held: all writes of the predecessor are over.
    Held,
}

const PERSIST_MIRROR: u64 = 1 << 63;

/// Most requests for messages of each kind that wait for a frame: half of it for new writes, and half for what follows from
/// what has begun, which is an answer to each message of a window of the partner.
const MESSAGES_MAX: usize = 4096;

impl Core {
    /// A controller that has just started. `image` is what its predecessor left in NV memory, of the same geometry,
    /// if it left anything that may be used at all.
    pub fn new(config: Config, image: Option<Image>) -> Core {
        let geometry = config.geometry;
        let own = config.controller;
        // A damaged image is none: what it says cannot be trusted (R8 decides what that means).
        let image = image.filter(|i| resolve(i, geometry).is_ok());
        let partners = (geometry.transfers / 4).max(1);
        let own_transfers = geometry.transfers - partners;
        let remote: Vec<_> = (own_transfers..geometry.transfers).map(TransferIndex).collect();
        let words = Words::new(geometry, image.as_ref().map(|i| &i.words[..]));
        let mut free_ries: Vec<_> = geometry.ries_of(own).collect();
        free_ries.reverse();
        let ios = usize::from(geometry.destages) * 16 + usize::from(geometry.htbs) * 4 + usize::from(config.disks) + 64;
        let ios = ios + usize::from(geometry.transfers) * 2;
        Core {
            now: Time(0),
            effects: Vec::new(),
            image: image.map_or(crate::ids::Uuid::NIL, |i| i.uuid),
            words,
            cache: Cache::new(geometry, own, config.disks),
            phase: Phase::AwaitRecord,
            quorum: Quorum::new(config.quorum),
            record: None,
            ballot: None,
            ballot_not_before: Time(0),
            ballot_tries: 0,
            looks_first: false,
            ballot_seen: 0,
            undecided: false,
            announce: false,
            locks: Locks::None,
            locks_taken_at: Time(0),
            own_slot_known: false,
            both_images_lost: false,
            partner_process: ProcessId::default(),
            sight: Sight::default(),
            other_cache: None,
            grant_until: Time(0),
            lease_until: Time(0),
            renew_at: Time(0),
            fence: Fence::Open,
            joiner: Joiner::None,
            attach_waits: false,
            leveling: Leveling::default(),
            has_served: false,
            leaver_may_go_until: None,
            partners_pulse: Pulse::seen(0, Time(0)),
            operator_called: false,
            image_loss_told: false,
            loss_accepted: false,
            metadata: None,
            metadata_tries: 0,
            metadata_again: None,
            lun_of: vec![None; crate::ids::LUNS_MAX],
            task: None,
            task_moves: false,
            interrupted: Vec::new(),
            new_metadata: None,
            to_adopt: None,
            partner_adopted: Epoch(0),
            link: Link::new(config.timing.retransmit, MESSAGES_MAX),
            calls: Pool::new(remote.len() + 1),
            remote_transfers: remote.clone(),
            stale: 0,
            htbs: Pool::new(geometry.htbs.into()),
            order: VecDeque::with_capacity(geometry.htbs.into()),
            free_ries,
            rie_htb: vec![None; geometry.ries.into()],
            mnodes: vec![Mnode::new(); geometry.ries.into()],
            free_transfers: (0..own_transfers).rev().map(TransferIndex).collect(),
            partners: remote,
            old_reads: vec![0; geometry.transfers.into()],
            read_lacks_memory: false,
            ios: Pool::new(ios),
            destager: Destager::new(geometry.destages.into(), config.disks.into(), geometry.buffers as usize),
            disks: Disks::new(config.disks.into(), own_transfers),
            merger: Merger::new(config.disks.into()),
            awaiting_disk: 0,
            turn_may_have_come: false,
            short_of_memory: false,
            disks_awaited: List::new(),
            free_at_turns: 0,
            disks_with_their_share: List::new(),
            last_write: Time(0),
            look_for_overdue: None,
            stood_still: None,
            forwards_rest_until: None,
            config,
        }
    }

    /// Whether the next step is followed by another at once: then what it has to say to the partner may wait for that. The
    /// last of them must be told that there is no more.
    pub fn expect_more(&mut self, more: bool) {
        self.link.expect_more(more);
    }

    /// Whether the last step was told that another follows.
    pub fn awaits_more(&self) -> bool {
        self.link.awaits_more()
    }

    /// Handles one event, then everything that this makes possible. Appends to `effects`, which are to be carried
    /// out in order. `now` never goes back.
    pub fn step(&mut self, now: Time, event: Event, effects: &mut Vec<Effect>) {
        std::mem::swap(&mut self.effects, effects);
        let pause = now.since(self.now);
        let timing = &self.config.timing;
        let is_short = pause <= timing.silence && mutant::is("silence-while-stopped-for-a-moment");
        if pause > timing.stopped() && !is_short && !mutant::is("silence-while-stopped") {
            mark!("what a controller did not hear while it was stopped is no silence");
            self.link.excuse(pause, now);
        }
        let stopped = pause > self.config.timing.pause && self.now > Time(0) && self.is_accepting();
        let stopped = stopped && !mutant::is("late-commands-run");
        let was_there = self.now > Time(0) && !mutant::is("what-came-while-it-stood-still-is-new");
        if pause > timing.stopped() && was_there {
            self.stood_still = Some((self.now, now + HANDED_OVER));
        }
        self.now = now;
        if stopped {
            // R12: what hosts sent before may have been done through the partner meanwhile.
            mark!("a long pause closes host connections");
            self.effects.push(Effect::CloseHosts);
            if self.is_serving() && !self.is_stopping() {
                self.effects.push(Effect::Serve);
            }
        }
        if self.phase != Phase::Out {
            self.handle(event);
            self.settle();
            if cfg!(debug_assertions) {
                self.check();
            }
        } else {
            self.handle_when_out(event);
        }
        std::mem::swap(&mut self.effects, effects);
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Start => self.start(),
            Event::Tick => {}
            Event::LocksTaken => self.on_locks_taken(),
            Event::Fenced => self.on_fenced(),
            Event::SlotRead { io, result } => {
                if let Io::SlotRead(n) = self.end_io(io) {
                    self.quorum.read(n, result);
                }
            }
            Event::MetadataRead { io, metadata } => {
                self.end_io(io);
                self.on_metadata_read(metadata);
            }
            Event::DiskDone { io, result } => self.on_disk_done(io, result),
            Event::DiskOverdue { io } => self.on_disk_overdue(io),
            Event::FlushFailed { disk } => self.another_flush_fails(disk),
            Event::Persisted { token } => self.on_any_persisted(token),
            Event::LinkOpened { path, connection } => self.on_link_opened(usize::from(path), connection),
            Event::LinkClosed { connection } => self.on_link_closed(connection),
            Event::LinkFrame {
                connection,
                frame,
                payload,
            } => self.on_frame(connection, frame, payload),
            Event::HostCommand(command) => self.on_host_command(command),
            Event::HostAbort { id } => self.on_host_abort(id),
            Event::HostData { id, complete } => {
                if let Some(h) = self.htb_of_command(id) {
                    self.on_host_data(h, complete);
                }
            }
            Event::Manage { request, op } => self.on_manage(request, op),
        }
    }

    /// After `Restart` or `Exit` the engine still reaps and completes; nothing more is decided here.
    fn handle_when_out(&mut self, event: Event) {
        match event {
            Event::HostCommand(HostCommand { id, .. }) => self.effects.push(Effect::Complete {
                id,
                status: Status::Busy,
            }),
            Event::Manage { request, .. } => self.effects.push(Effect::Reply {
                request,
                result: Err(crate::manage::ManageError::NotServing),
            }),
            _ => {}
        }
    }

    /// Resumes what waited for something that has come free, as far as that goes.
    fn settle(&mut self) {
        self.settle_cell();
        self.settle_overdue();
        self.settle_forwards();
        self.probe_missing_disks();
        self.settle_merging();
        let mut to_carry = crate::carry::AT_ONCE;
        loop {
            self.look_at_shares();
            while std::mem::take(&mut self.turn_may_have_come) {
                self.give_turns();
            }
            if self.awaiting_disk > 0 {
                self.wake_awaiting_disk();
            }
            self.acknowledge_what_may_be();
            self.destage();
            self.carry_to_joiner(&mut to_carry);
            if self.turn_may_have_come {
                continue;
            }
            self.settle_task();
            self.settle_sight();
            self.settle_cell();
            self.look_at_shares();
            if !self.turn_may_have_come || mutant::is("turns-before-tasks") {
                break;
            }
        }
        while let Some((connection, frame)) = self.link.beat(self.config.timing.heartbeat, self.now) {
            self.effects.push(Effect::LinkSend { connection, frame });
        }
        self.flush_link();
    }

    /// When to call `step` with `Tick` if nothing else happens.
    pub fn next_deadline(&self) -> Option<Time> {
        if self.phase == Phase::Out {
            return None;
        }
        let cell = self.cell_deadline();
        let timing = &self.config.timing;
        let link = self.link.next_deadline(timing.heartbeat, timing.silence, self.now);
        // Whoever has hosts or a partner is never without an event for so long that it would take that for a pause (R12).
        let wakes = self.is_accepting() || self.link.is_open();
        let alive = wakes.then(|| self.now + timing.wakes_every());
        let (destage, overdue, forwards) = (self.destage_deadline(), self.look_for_overdue, self.forwards_rest_until);
        let (merger, sight) = (self.merger_deadline(), self.sight_deadline());
        [cell, link, destage, overdue, forwards, alive, merger, sight]
            .into_iter()
            .flatten()
            .min()
    }

    // ---- NV stores ----

    fn store(&mut self, (address, word): (NvAddress, u64)) {
        self.words.note(address, word);
        self.effects.push(Effect::Store { address, word });
    }

    pub(crate) fn store_bmae(&mut self, buffer: BufferIndex, bmae: Bmae) {
        self.store(self.words.bmae_store(buffer, bmae));
    }

    pub(crate) fn store_start(&mut self, buffer: BufferIndex, start: Vba) {
        self.store(self.words.bmae_start_store(buffer, start));
    }

    pub(crate) fn store_rie(&mut self, rie: RieIndex, value: Rie) {
        self.store(self.words.rie_store(rie, value));
    }

    pub(crate) fn store_ncae(&mut self, ncae: NcaeIndex, noid: Option<Noid>) {
        if self.words.ncae(ncae) != Ok(Ncae { noid }) {
            self.store(self.words.ncae_store(ncae, Ncae { noid }));
        }
    }

    /// An RIE for the range, in sub-state Free.
    pub(crate) fn stage_rie(
        &mut self,
        rie: RieIndex,
        generation: RieGeneration,
        ncae: NcaeIndex,
        start: Vba,
        blocks: BlockCount,
    ) {
        for store in self.words.rie_range_stores(rie, start, blocks) {
            self.store(store);
        }
        let early = mutant::is("commit-before-the-data");
        let state = if early { RieState::Valid } else { RieState::Free };
        self.store_rie(
            rie,
            Rie {
                state,
                generation,
                ncae,
            },
        );
    }

    /// A BMAE that this controller wrote itself.
    pub(crate) fn bmae(&self, buffer: BufferIndex) -> Bmae {
        self.words.bmae(buffer).expect("the controller's own words are sound")
    }

    /// Old data that new data cover only in part are merged into the new buffers, so that after the commit the old
    /// buffers are wholly free; then the new buffers get their checksums.
    pub(crate) fn merge_and_seal(&mut self, start: u64, blocks: u32, new: &[BufferIndex], old: &[Option<BufferIndex>]) {
        let first = start / u64::from(crate::ids::BUFFER_BLOCKS);
        for (number, (new, old)) in (first..).zip(new.iter().zip(old.iter())) {
            let written = crate::htb::mask_in_granule(number, start, blocks);
            let mask = self.bmae(*new).mask;
            if let Some(from) = old.filter(|_| mask & !written != 0 && !mutant::is("merge-nothing")) {
                self.effects.push(Effect::Merge {
                    from,
                    to: *new,
                    mask: mask & !written,
                });
            }
            let mask = if mutant::is("seal-what-was-written") {
                written
            } else {
                mask
            };
            if !mutant::is("seal-nothing") {
                self.effects.push(Effect::Seal { buffer: *new, mask });
            }
        }
    }

    // ---- names ----

    pub(crate) fn geometry(&self) -> Geometry {
        self.config.geometry
    }

    pub(crate) fn own(&self) -> Controller {
        self.config.controller
    }

    pub(crate) fn partner(&self) -> Controller {
        self.config.controller.other()
    }

    pub(crate) fn epoch(&self) -> Epoch {
        self.record.map_or(Epoch(0), |r| r.epoch)
    }

    /// The index of an RIE within its pair.
    pub(crate) fn local_rie(&self, rie: RieIndex) -> usize {
        (rie.0 % self.geometry().ries).into()
    }

    pub(crate) fn htb(&self, h: u32) -> &Htb {
        self.htbs.get(h).expect("an HTB in use")
    }

    pub(crate) fn htb_mut(&mut self, h: u32) -> &mut Htb {
        self.htbs.get_mut(h).expect("an HTB in use")
    }

    pub(crate) fn htb_of_rie(&self, rie: RieIndex, generation: RieGeneration) -> Option<u32> {
        if self.geometry().pair_of_rie(rie) != Some(self.own()) {
            return None;
        }
        let h = self.rie_htb[self.local_rie(rie)]?;
        (self.htb(h).portion.generation == generation).then_some(h)
    }

    fn htb_of_command(&self, id: CommandId) -> Option<u32> {
        let mut order = self.order.iter().copied();
        order.find(|h| self.htb(*h).origin == Origin::Host(id))
    }

    pub(crate) fn htb_token(&self, h: u32) -> u64 {
        let p = &self.htb(h).portion;
        u64::from(p.rie.0) << 16 | u64::from(p.generation.0)
    }

    pub(crate) fn mnode_token(&self, m: usize, generation: RieGeneration) -> u64 {
        PERSIST_MIRROR | (m as u64) << 16 | u64::from(generation.0)
    }

    fn on_any_persisted(&mut self, token: u64) {
        let index = ((token & !PERSIST_MIRROR) >> 16) as usize;
        let generation = RieGeneration(token as u16);
        if token & PERSIST_MIRROR == 0 {
            if let Some(h) = self.htb_of_rie(RieIndex(index as u16), generation) {
                self.on_persisted(h);
            }
        } else if self
            .mnodes
            .get(index)
            .is_some_and(|m| m.stage == MnodeStage::AwaitPersist && m.rqr.is_some_and(|r| r.generation == generation))
        {
            self.on_mirror_persisted(index);
        }
    }

    pub(crate) fn note(&mut self, note: Note) {
        self.effects.push(Effect::Note(note));
    }

    // ---- disk I/O ----

    pub(crate) fn new_io(&mut self, io: Io) -> IoId {
        let (index, generation) = self.ios.take(InFlight {
            io,
            overdue: false,
            waited_for: false,
            before_missing: false,
        });
        IoId { index, generation }
    }

    fn end_io(&mut self, io: IoId) -> Io {
        self.take_io(io).io
    }

    fn take_io(&mut self, io: IoId) -> InFlight {
        assert!(
            self.ios.is_current(io.index, io.generation),
            "an answer to an I/O that is not in flight"
        );
        if mutant::is("leak-a-disk-io") {
            return *self.ios.get(io.index).expect("an I/O in flight");
        }
        self.ios.give_back(io.index)
    }

    fn on_disk_done(&mut self, io: IoId, result: Result<(), DiskError>) {
        let InFlight {
            io,
            overdue,
            waited_for,
            before_missing,
        } = self.take_io(io);
        let left = overdue && !waited_for;
        let counts = !matches!(io, Io::Read { .. }) || !mutant::is("reads-in-time-are-nothing");
        if let Some(disk) = io.disk() {
            if overdue {
                self.on_late_end(disk, &io, result);
            }
            if result.is_ok() && counts && !left {
                self.disks.ended_in_time(disk, self.now);
            }
        }
        match io {
            Io::SlotWrite(n) => {
                if self.quorum.written(n, result) {
                    let disk = self.quorum.members()[n];
                    let io = self.new_io(Io::SlotRead(n));
                    self.quorum.reading(n, io);
                    self.effects.push(Effect::SlotRead { io, disk });
                }
            }
            Io::SlotRead(n) => self.quorum.read(n, Err(DiskError)),
            Io::MetadataRead => self.on_metadata_read(Err(DiskError)),
            Io::Zero { .. } | Io::MetadataWrite { .. } if overdue => {}
            Io::MetadataWrite { .. } => self.on_task_io(result),
            Io::Zero { .. } => self.on_zero(result),
            Io::Read { htb, extent, disk } => self.on_read(htb, extent, disk, result),
            Io::OldRead { transfer, disk } => self.on_old_read(transfer, disk),
            Io::Destage { batch, .. } if left => self.on_late_destage(batch),
            Io::Flush { .. } if left => {}
            Io::Destage { batch, disk } => self.on_destaged(batch, disk, result),
            Io::Flush { disk } => self.on_flushed(disk, result),
            Io::Probe { disk } => self.on_probed(disk, result),
            Io::CopyRead { .. } => self.on_copy_read(result, overdue),
            Io::CopyWrite { disk, .. } => self.on_copied(disk, result),
            Io::CopyFlush { disk }
                if before_missing && result.is_err() && !mutant::is("no-copy-is-lost-with-a-missing-disk") =>
            {
                // What has its only copy there is lost with it.
                self.another_flush_fails(disk)
            }
            Io::CopyFlush { .. } if before_missing || overdue && mutant::is("a-late-flush-of-copies-fails") => {}
            Io::CopyFlush { disk } => self.on_copies_flushed(disk, result),
        }
    }

    fn on_disk_overdue(&mut self, io: IoId) {
        if !self.ios.is_current(io.index, io.generation) {
            return;
        }
        let Some(in_flight) = self.ios.get_mut(io.index).filter(|i| !i.overdue) else {
            return;
        };
        let Some(disk) = in_flight.io.disk() else { return };
        in_flight.overdue = true;
        in_flight.waited_for = in_flight.io.is_of_destager() && self.disks.is_only_slow(disk, self.now);
        let InFlight { io, waited_for, .. } = *in_flight;
        self.disks.overdue(disk, self.now);
        match io {
            Io::Destage { .. } | Io::Flush { .. } if waited_for => {
                mark!("what is overdue on a slow disk is waited for");
            }
            Io::Destage { .. } | Io::Flush { .. } => self.leave_overdue_write(io),
            Io::CopyRead { .. } | Io::CopyWrite { .. } => self.on_copy_overdue(),
            Io::CopyFlush { disk } if mutant::is("a-late-flush-of-copies-fails") => {
                self.on_copies_flushed(disk, Err(DiskError))
            }
            Io::Zero { .. } => self.on_zero(Err(DiskError)),
            Io::MetadataWrite { .. } => self.on_task_io(Err(DiskError)),
            _ => {}
        }
        self.look_for_overdue = Some(self.now);
    }

    /// What was overdue on a disk has ended: once all of it has, the disk is used again.
    fn on_late_end(&mut self, disk: DiskIndex, io: &Io, result: Result<(), DiskError>) {
        if io.is_of_destager() {
            self.disks.ended_late(disk, result.is_ok(), self.now);
        }
        if self.disks.ended(disk, self.now) {
            self.cache.take_up();
            self.turn_may_have_come = true;
        }
    }

    /// Issues what the round over the quorum disks wants next.
    pub(crate) fn drive_quorum(&mut self) {
        while let Some((n, disk, want)) = self.quorum.next_want() {
            match want {
                Want::Read => {
                    let io = self.new_io(Io::SlotRead(n));
                    self.quorum.issued(n, io);
                    self.effects.push(Effect::SlotRead { io, disk });
                }
                Want::Write => {
                    let io = self.new_io(Io::SlotWrite(n));
                    self.quorum.issued(n, io);
                    self.effects.push(Effect::SlotWrite { io, disk });
                }
            }
        }
    }

    // ---- host commands ----

    fn on_host_command(&mut self, command: HostCommand) {
        let refusal = if !self.is_accepting() || self.htbs.free() <= self.partners_transfers() {
            Some(Status::Busy)
        } else {
            self.refusal(command.ncae, command.noid, command.start, command.blocks)
        };
        if let Some(status) = refusal {
            let id = command.id;
            return self.effects.push(Effect::Complete { id, status });
        }
        let HostCommand { id, ncae, noid, op, .. } = command;
        let blocks = if op == HostOp::Sync {
            BlockCount(0)
        } else {
            command.blocks
        };
        self.enqueue(Htb {
            in_hand: command.in_hand,
            ..Htb::new(Origin::Host(id), ncae, noid, op, command.start, blocks)
        });
    }

    /// Why a command cannot be carried out, whatever comes.
    pub(crate) fn refusal(&self, ncae: NcaeIndex, noid: Noid, start: Vba, blocks: BlockCount) -> Option<Status> {
        let Some(lun) = self.lun(ncae).filter(|l| l.noid == noid) else {
            return Some(Status::NoSuchLun);
        };
        let end = start.0.checked_add(u64::from(blocks.0));
        let last =
            lun.blocks + u64::from(mutant::is("one-block-too-many")) - u64::from(mutant::is("one-block-too-few"));
        end.is_none_or(|e| e > last).then_some(Status::OutOfRange)
    }

    pub(crate) fn enqueue(&mut self, htb: Htb) {
        let waits_since = self.may_have_come_at();
        let (h, _) = self.htbs.take(Htb { waits_since, ..htb });
        self.order.push_back(h);
        self.turn_may_have_come = true;
    }

    /// When what is handed to this controller now may have come: it may have stood still meanwhile.
    pub(crate) fn may_have_come_at(&self) -> Time {
        let stood_still = self.stood_still.filter(|(_, until)| self.now < *until);
        stood_still.map_or(self.now, |(since, _)| since)
    }

    fn on_host_abort(&mut self, id: CommandId) {
        if let Some(h) = self.htb_of_command(id) {
            self.htb_mut(h).withdrawn = true;
            self.recall(h);
            self.withdraw_before_its_data(h);
            self.turn_may_have_come = true;
        }
    }

    /// Whoever waits for its turn and can begin, begins, in order of arrival.
    fn give_turns(&mut self) {
        self.leave_reads_that_lack_memory();
        let mut turns = Turns::default();
        self.disks_awaited.clear();
        for at in 0..self.order.len() {
            let h = self.order[at];
            if self.htb(h).stage != Stage::AwaitTurn {
                continue;
            }
            if self.may_be_withdrawn(h) && !mutant::is("commands-of-the-gone-run") {
                self.finish(h, Status::Aborted);
                continue;
            }
            self.look_whether_it_is_overtaken(h);
            if self.is_too_late(h) && !mutant::is("who-is-late-is-looked-for-now-and-then") {
                self.end_overtaken(h);
                continue;
            }
            self.give_turn(h, at, &mut turns);
        }
        self.disks_with_their_share.clear();
        self.free_at_turns = self.cache.free();
        // With what they took, those for which others were passed over may wait for something else by now.
        let again = turns.begun && (turns.passed_over || !self.disks_awaited.is_empty());
        self.turn_may_have_come |= again && !mutant::is("who-is-passed-over-waits-for-an-event");
    }

    /// A disk's share goes with what is free: who waits for it has a turn when more is. When less is so have others: who waited for its
    /// share may wait for memory now, behind which they do not wait where it cannot come.
    fn look_at_shares(&mut self) {
        let (free, before) = (self.cache.free(), self.free_at_turns);
        let differs = free > before || free < before && !mutant::is("a-share-only-grows");
        self.turn_may_have_come |= !self.disks_awaited.is_empty() && differs;
    }

    /// Unless somebody before it, at `at` in the order of arrival, waits for the same.
    fn give_turn(&mut self, h: u32, at: usize, turns: &mut Turns) {
        let lacks_memory = turns.memory_is_short && self.needs_memory(h);
        let needs_transfer = self.may_need_transfer(h);
        let lacks_spare = turns.spare_is_awaited && needs_transfer;
        let lacks_transfer = lacks_spare || turns.transfers_are_short && needs_transfer;
        let waits = lacks_memory || lacks_transfer || self.waits_for_a_full_disk(h);
        if waits || !self.may_lock(h, at) {
            turns.passed_over |= lacks_memory || lacks_spare;
            return;
        }
        match self.admit(h) {
            Lacks::Nothing => turns.begun = true,
            Lacks::Leave => {}
            Lacks::Memory => turns.memory_is_short = true,
            Lacks::Transfer => turns.transfers_are_short = true,
            Lacks::Spare => turns.spare_is_awaited |= self.will_read_memory_come_free(),
        }
    }

    /// Whether a transfer buffer is in use for a read that ends soon: its disk answers.
    fn will_read_memory_come_free(&self) -> bool {
        let ends = |i: &InFlight| match i.io {
            Io::Read { htb, disk, .. } => {
                let transfer = self.htb(htb).transfer.filter(|t| !self.is_partners_transfer(*t));
                transfer.is_some() && self.disks.answers(disk)
            }
            _ => false,
        };
        self.ios.iter().any(|(_, i)| ends(i)) && !mutant::is("forwards-wait-behind-reads")
    }

    /// Whether a command that waits for its turn is not wanted any more. A write that may be done is carried out all the same:
    /// its host must not be told that it never was.
    pub(crate) fn may_be_withdrawn(&self, h: u32) -> bool {
        let htb = self.htb(h);
        htb.withdrawn && (!htb.may_be_done || mutant::is("withdraw-what-may-be-done"))
    }

    fn needs_memory(&self, h: u32) -> bool {
        let htb = self.htb(h);
        matches!(htb.op, HostOp::Write { .. }) && (htb.left() > 0 || mutant::is("who-wants-nothing-waits-for-memory"))
    }

    /// A command of the partner brings its transfer buffer along. It must not wait behind one that needs another:
    /// there, too, somebody may wait for this side. Nor must one that has its own, from its portion before.
    fn may_need_transfer(&self, h: u32) -> bool {
        let htb = self.htb(h);
        let host = matches!(htb.origin, Origin::Host(_));
        let has_one = htb.transfer.is_some() && !mutant::is("wait-for-what-one-has");
        host && !has_one && (htb.op == HostOp::Read || !self.owns(htb.ncae))
    }

    fn admit(&mut self, h: u32) -> Lacks {
        if !self.is_serving() {
            return Lacks::Leave;
        }
        let htb = self.htb(h);
        if let Some(status) = self.refusal(htb.ncae, htb.noid, htb.start, htb.blocks) {
            // The LUN was deleted while the command waited.
            self.finish(h, status);
            return Lacks::Nothing;
        }
        if htb.left() == 0 && htb.op != HostOp::Sync && !mutant::is("forward-nothing-at-all") {
            // There is nothing to do, whoever owns the LUN.
            self.finish(h, Status::Good);
            return Lacks::Nothing;
        }
        let blind = mutant::is("execute-what-is-not-owned") && !matches!(htb.origin, Origin::Host(_));
        if !self.owns(htb.ncae) && !blind {
            return match htb.origin {
                Origin::Host(_) => self.admit_forward(h),
                _ => {
                    self.finish(h, Status::Transitioning);
                    Lacks::Nothing
                }
            };
        }
        if self.is_quiesced(htb.ncae) && !htb.locked && !mutant::is("begin-though-quiesced") {
            return Lacks::Leave;
        }
        if htb.carries {
            return self.admit_carried(h);
        }
        match htb.op {
            HostOp::Sync => {
                self.await_disk(h);
                Lacks::Nothing
            }
            HostOp::Read => self.admit_read(h),
            HostOp::Write { .. } => self.admit_write(h),
        }
    }

    /// Whether the disk that had no room for its read has none yet. Many may wait so, and each read that ends gives one a turn.
    /// What it lacks besides comes first, as in `admit_read`.
    fn waits_for_a_full_disk(&self, h: u32) -> bool {
        let answers = |disk: DiskIndex| self.disks.answers(disk) || mutant::is("wait-for-a-full-disk-that-stalls");
        let htb = self.htb(h);
        let has_transfer = htb.transfer.is_some() || !self.free_transfers.is_empty();
        let full = htb.full_disk.filter(|_| has_transfer && self.owns(htb.ncae));
        full.is_some_and(|disk| answers(disk) && !self.disks.may_read(disk))
    }

    /// The cache lock on the range: shared for reads, exclusive for writes, first come first served. `at` is its place in the
    /// order of arrival.
    fn may_lock(&mut self, h: u32, at: usize) -> bool {
        let htb = self.htb(h);
        if htb.locked || (mutant::is("read-without-the-lock") && htb.op == HostOp::Read) {
            return true;
        }
        let is_current = |b: &Blocker| self.htbs.is_current(b.h, b.generation) && self.is_blocked_by(b.h, b.is_earlier);
        if htb.behind.0.as_ref().is_some_and(is_current) {
            return false;
        }
        let blocker = self.blocker(h, at);
        self.htb_mut(h).behind = Behind(blocker);
        blocker.is_none()
    }

    fn blocker(&self, h: u32, at: usize) -> Option<Blocker> {
        let htb = self.htb(h);
        let earlier = self.order.range(..at).map(|o| (*o, true));
        let later = self.order.range(at + 1..).map(|o| (*o, false));
        let mut others = earlier.chain(later);
        let blocks =
            |(o, is_earlier): &(u32, bool)| self.is_blocked_by(*o, *is_earlier) && self.htb(*o).conflicts_with(htb);
        let (h, is_earlier) = others.find(blocks)?;
        let generation = self.htbs.generation(h);
        Some(Blocker {
            h,
            generation,
            is_earlier,
        })
    }

    /// Whether one with which it conflicts is in its way: one that came later only if it holds the lock already.
    fn is_blocked_by(&self, other: u32, is_earlier: bool) -> bool {
        let other = self.htb(other);
        if is_earlier {
            other.stage != Stage::AwaitOwner
        } else {
            other.locked && !mutant::is("overtake-a-lock-holder")
        }
    }

    /// The status waits until the data of a write are on disk, which they reach before those for which nobody waits; or, of
    /// SYNCHRONIZE CACHE, until everything is that is dirty now.
    pub(crate) fn await_disk(&mut self, h: u32) {
        let age = self.cache.age_now();
        let htb = self.htb_mut(h);
        (htb.age, htb.stage) = (age, Stage::AwaitDisk);
        let (ncae, numbers) = (htb.ncae, htb.granules());
        htb.lacks_from = numbers.start;
        self.awaiting_disk += 1;
        if !mutant::is("who-waits-for-its-data-waits-for-all") {
            numbers.for_each(|number| self.cache.hasten(Granule { ncae, number }));
        }
    }

    /// The command is over; its status goes out as soon as it may.
    pub(crate) fn finish(&mut self, h: u32, status: Status) {
        let htb = self.htb_mut(h);
        htb.status = status;
        htb.stage = Stage::AwaitLeave;
    }

    /// 725: statuses go out, locks and HTBs are released.
    pub(crate) fn acknowledge_what_may_be(&mut self) {
        let late = mutant::is("loser-replies") && self.phase == Phase::Out;
        if !self.may_acknowledge() && !late {
            return;
        }
        let mut at = 0;
        while at < self.order.len() {
            let h = self.order[at];
            if self.htb(h).stage == Stage::AwaitLeave {
                self.order.remove(at);
                self.complete(h);
            } else {
                at += 1;
            }
        }
    }

    fn complete(&mut self, h: u32) {
        let htb = if mutant::is("leak-an-htb") {
            self.htb(h).clone()
        } else {
            self.htbs.give_back(h)
        };
        let status = htb.status;
        match htb.origin {
            Origin::Host(id) => {
                self.effects.push(Effect::Complete { id, status });
                if mutant::is("a-status-twice") {
                    self.effects.push(Effect::Complete { id, status });
                }
            }
            Origin::Partner(id) => {
                let data = htb.op == HostOp::Read && status == Status::Good && htb.blocks.0 > 0;
                let begins = !mutant::is("answer-from-the-granules-beginning");
                let first = if begins {
                    htb.portion.start % u64::from(crate::ids::BUFFER_BLOCKS)
                } else {
                    0
                };
                let read = data.then(|| ReadData {
                    transfer: htb.transfer.expect("the partner named one"),
                    first: first as u16,
                    blocks: htb.portion.blocks as u16,
                });
                let call = id;
                self.link.request(Mfcd::Forwarded { call, status, read });
            }
            Origin::Nobody => {}
        }
        if let Some(transfer) = htb
            .transfer
            .filter(|t| !self.is_partners_transfer(*t) && !mutant::is("leak-a-transfer"))
        {
            self.free_transfers.push(transfer);
        }
        self.turn_may_have_come = true;
    }

    /// How many transfer buffers here are the partner's to name, and as many there this controller's.
    pub(crate) fn partners_transfers(&self) -> usize {
        usize::from((self.geometry().transfers / 4).max(1))
    }

    /// Whether this transfer buffer is one of those that the partner names.
    pub(crate) fn is_partners_transfer(&self, transfer: TransferIndex) -> bool {
        self.partners.contains(&transfer)
    }

    /// The transfer buffer that the partner calls `name`: at first the last ones, under their own names.
    pub(crate) fn named_by_partner(&self, name: TransferIndex) -> Option<TransferIndex> {
        let first = usize::from(self.geometry().transfers) - self.partners_transfers();
        let at = usize::from(name.0).checked_sub(first)?;
        self.partners.get(at).copied()
    }

    // ---- what may be done ----

    /// Whether this controller is in and has done all that R10 asks for.
    pub(crate) fn is_serving(&self) -> bool {
        self.phase == Phase::Serving
    }

    /// Whether host commands are taken, if only to wait.
    fn is_accepting(&self) -> bool {
        matches!(self.phase, Phase::Serving | Phase::Deciding | Phase::Fencing)
    }

    /// Whether a status, or data that were read, may leave (R2, R3, R9).
    pub(crate) fn may_acknowledge(&self) -> bool {
        let early = mutant::is("acknowledge-before-the-ballot") && self.phase == Phase::Deciding;
        if !self.is_serving() && !early {
            return false;
        }
        match self.mode() {
            Some(Mode::Both) => self.now < self.grant_until || mutant::is("serve-past-the-grant"),
            Some(Mode::Alone { .. }) => {
                let open = self.may_have_proposed_both() && !mutant::is("forget-a-proposed-both");
                (self.now < self.lease_until || mutant::is("serve-past-the-lease")) && (!open || self.link.is_up())
            }
            None => false,
        }
    }

    /// Whether a write may be staged (R7): alone, the record must say "dirty", and nobody may be about to change that.
    pub(crate) fn may_stage(&self) -> bool {
        match self.mode() {
            Some(Mode::Both) => true,
            Some(Mode::Alone { .. }) if mutant::is("stage-while-clean") => true,
            Some(Mode::Alone { dirty, .. }) if mutant::is("stage-during-a-clean-ballot") => dirty,
            Some(Mode::Alone { dirty, .. }) => dirty && !self.may_have_proposed_clean(),
            None => false,
        }
    }

    /// Whether writes go to the partner: it is in, or it joins.
    pub(crate) fn is_mirroring(&self) -> bool {
        self.mode() == Some(Mode::Both) || matches!(self.joiner, Joiner::Attached { .. })
    }

    /// Whether status waits for the disks: always, unless both are in.
    pub(crate) fn is_write_through(&self) -> bool {
        self.mode() != Some(Mode::Both)
    }

    /// Whether this controller mirrors for its partner.
    pub(crate) fn mirrors(&self) -> bool {
        match self.phase {
            Phase::Joining | Phase::Leveling => true,
            Phase::Serving | Phase::Leaving => self.mode() == Some(Mode::Both),
            _ => false,
        }
    }

    /// Whether data may go to disk: this controller serves, or drains on its way out.
    pub(crate) fn may_write_disks(&self) -> bool {
        self.locks == Locks::Held && matches!(self.phase, Phase::Serving)
    }

    pub(crate) fn mode(&self) -> Option<Mode> {
        self.record.map(|r| r.mode)
    }

    /// Whether this controller owns a LUN now.
    pub(crate) fn owns(&self, ncae: NcaeIndex) -> bool {
        self.owner(ncae) == self.own()
    }

    pub(crate) fn owner(&self, ncae: NcaeIndex) -> Controller {
        match self.record {
            Some(Record {
                mode: Mode::Alone { controller, .. },
                ..
            }) => controller,
            Some(record) => record.owners.get(ncae),
            None => self.own(),
        }
    }

    pub(crate) fn lun(&self, ncae: NcaeIndex) -> Option<&Lun> {
        let at = (*self.lun_of.get(ncae.index())?)?;
        self.metadata.as_ref()?.luns.get(usize::from(at))
    }

    // ---- views ----

    /// The LUNs, in order of their number.
    pub fn luns(&self) -> impl Iterator<Item = LunView> + '_ {
        let luns = self.metadata.iter().flat_map(|m| m.luns.iter());
        luns.map(|lun| LunView {
            ncae: lun.ncae,
            noid: lun.noid,
            name: lun.name,
            uuid: lun.uuid,
            blocks: lun.blocks,
            redundancy: lun.redundancy,
            owner: self.owner(lun.ncae),
            moving: self.is_quiesced(lun.ncae),
        })
    }

    /// The state of the cell.
    pub fn cell_view(&self) -> CellView {
        CellView {
            role: self.role(),
            record: self.record,
            linked: self.link.is_up(),
            joining: self.joiner != Joiner::None,
            awaited_memory: self.awaited_memory(),
            dirty_buffers: self.cache.unsettled(),
            open_ries: self.rie_htb.iter().flatten().count() as u32,
            phase: self.phase,
            image_current: self.record.is_some_and(|r| r.is_current(self.own(), self.image)),
            quorum_failing: self.quorum.failing(),
            partner_last_seen: (self.phase == Phase::AwaitAttach).then(|| self.partners_pulse.last_beat()),
        }
    }

    fn role(&self) -> Role {
        match self.phase {
            Phase::Serving if self.is_stopping() => Role::Stopping,
            Phase::Serving => Role::Serving,
            Phase::Deciding | Phase::Fencing => Role::Deciding,
            Phase::Attaching | Phase::Joining => Role::Joining,
            Phase::Leaving | Phase::Yielding | Phase::Out => Role::Stopping,
            _ => Role::Starting,
        }
    }

    /// The metadata in force; `None` while not yet read.
    pub fn metadata(&self) -> Option<&Metadata> {
        self.metadata.as_ref()
    }

    /// What the `MetadataWrite` effects of the last step mean.
    pub fn metadata_to_write(&self) -> Option<&Metadata> {
        self.new_metadata.as_ref()
    }

    /// Whether any disk but this one does not answer this controller, or is about to be given up by it.
    pub fn doubts_another(&self, disk: DiskIndex) -> bool {
        self.is_giving_up_another(disk) || self.disks.is_another_doubtful(disk, self.now)
    }

    /// Where the messages of a frame that arrived are to be put before `step` is told of it; `None` where they are not
    /// wanted, because the frame came before or is not of this incarnation. That must be told all the same.
    pub fn place_of(&mut self, connection: ConnectionId, frame: &Sequenced) -> Option<&mut Mfcs> {
        let current = self.link.has(connection);
        current.then(|| self.link.place_of(frame))?
    }

    /// The messages of a frame that an effect of the last step wants sent.
    pub fn messages(&self, frame: &Sequenced) -> &Messages {
        self.link.messages(frame.sequence)
    }

    /// All paths to the partner that there may be.
    pub fn paths(&self) -> impl Iterator<Item = PathView> + '_ {
        self.link.path_views()
    }

    /// How far the link has come; `None` where there is none.
    pub fn link_position(&self) -> Option<Position> {
        self.link.position()
    }

    /// Whether frames wait here for one that was sent before them.
    pub fn holds_frames(&self) -> bool {
        self.link.holds_frames()
    }

    /// What the `SlotWrite` effect `io` of the last step means.
    pub fn slot_written_by(&self, io: IoId) -> Option<&Slot> {
        match self.io(io)? {
            Io::SlotWrite(n) => self.quorum.written_slot(*n),
            _ => None,
        }
    }

    /// Where the slots of A and B that the `SlotRead` effect `io` finds are to be put before `step` is told of its end:
    /// `None` for a slot without a valid copy. `None` where nothing is wanted any more.
    pub fn slots_read_by(&mut self, io: IoId) -> Option<&mut Slots> {
        match *self.io(io)? {
            Io::SlotRead(n) => Some(self.quorum.found_mut(n)),
            _ => None,
        }
    }

    fn io(&self, io: IoId) -> Option<&Io> {
        self.ios
            .get(io.index)
            .filter(|_| self.ios.is_current(io.index, io.generation))
            .map(|i| &i.io)
    }

    /// Frames that were sent again, and messages that were refused as stale, since the start.
    pub fn link_counts(&self) -> (u64, u64) {
        (self.link.resent, self.stale)
    }

    /// The link to the partner.
    pub fn link(&self) -> &Link {
        &self.link
    }

    /// The tasks and the host commands in progress, in order of arrival, in words: for whoever looks for what they wait for.
    pub fn work_in_words(&self) -> Vec<String> {
        let tasks = self.tasks().map(|task| format!("{task:?}"));
        tasks.chain(self.order.iter().map(|h| self.htb_in_words(*h))).collect()
    }

    fn htb_in_words(&self, h: u32) -> String {
        let htb = self.htb(h);
        let Htb {
            origin,
            ncae,
            op,
            stage,
            ..
        } = htb;
        format!(
            "{origin:?} {op:?} {ncae}:{}+{} {stage:?} locked {}",
            htb.start, htb.blocks, htb.locked
        )
    }

    /// What the last step has left undone, in words: what could be done at once, and will be only when something else happens.
    /// For checks: it is looked for in a copy of all this.
    pub fn left_undone(&self) -> Option<String> {
        // What is destaged past what is blocked, and carried to a joiner, is so many in each step, and some time later more.
        if self.destager.looks_on() || self.joiner != Joiner::None {
            return None;
        }
        let mut copy = self.clone();
        // While a disk is in trouble whoever waits is looked at again soon.
        copy.turn_may_have_come |= !copy.disks.any_in_trouble();
        let mut effects = Vec::new();
        copy.step(self.now, Event::Tick, &mut effects);
        (!effects.is_empty()).then(|| format!("{effects:?}"))
    }

    /// The words of NV memory as this controller knows them.
    pub fn words(&self) -> &Words {
        &self.words
    }

    /// Checks what must hold between steps. Panics if it does not.
    pub fn check(&self) {
        self.cache.check();
        let clean = matches!(self.mode(), Some(Mode::Alone { controller, dirty: false }) if controller == self.own());
        assert!(
            !clean || !matches!(self.phase, Phase::Fencing | Phase::Serving) || self.is_drained(),
            "the record says that the disks lack nothing, and they do (R7)"
        );
        assert_eq!(self.order.len(), self.htbs.in_use(), "an HTB is lost");
        let open = self.rie_htb.iter().flatten().count();
        assert_eq!(
            open + self.free_ries.len(),
            usize::from(self.geometry().ries),
            "an RIE is lost"
        );
        let held = self.order.iter().filter_map(|h| self.htb(*h).transfer);
        let own_held = held.filter(|t| !self.is_partners_transfer(*t)).count();
        let own_held = own_held + self.old_reads.iter().filter(|n| **n > 0).count();
        let partners = self.partners_transfers();
        let own_transfers = usize::from(self.geometry().transfers) - partners;
        assert_eq!(
            own_held + self.free_transfers.len(),
            own_transfers,
            "a transfer buffer is lost"
        );
        let lent = self
            .calls
            .iter()
            .filter(|(_, c)| matches!(c, Call::Forward { .. }))
            .count();
        assert_eq!(
            lent + self.remote_transfers.len(),
            partners,
            "a transfer buffer of the partner is lost"
        );
    }
}
