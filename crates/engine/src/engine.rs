//! The loop that drives the core: reap completions into events, step the core with each, carry out the effects in
//! order, until nothing is left to tell; then submit what was posted and wait, in one system call.

use crate::clock;
use crate::disk::{self, Disk};
use crate::disk_io::{DiskIos, Ended};
use crate::error::{OpenError, RunError};
use crate::failures::Failures;
use crate::fence;
use crate::handle::{self, Handle, Inbox, Request};
use crate::hosts::{Greet, Hosts, Protocol, Shared};
use crate::in_place::Place;
use crate::link::Link;
use crate::locks::Locks;
use crate::memory::Memories;
use crate::nv::NvMemory;
use crate::placement::Placement;
use crate::process;
use crate::queue::{Body, Happening, Queue};
use crate::random::random_uuid;
use crate::reopen::Reopener;
use crate::ring::{Completion, Ring, Token};
use crate::settings::{FenceChoice, Settings};
use crate::snapshot::{Counters, DiskSnapshot, Snapshot};
use crate::space::FreeSpace;
use crate::stop::StopOrder;
use crate::story::Teller;
use crate::view;
use io_uring::{opcode, types};
use std::collections::HashMap;
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::sync::mpsc::SyncSender;
use std::time::Duration;
use tracing::{debug, error, info, trace, warn};
use twincell_core::Core;
use twincell_core::cell::record::Mode;
use twincell_core::config::{Config, Geometry, Timing};
use twincell_core::effect::{Effect, Note};
use twincell_core::event::{DiskError, Event};
use twincell_core::ids::{
    BLOCK_BYTES, BufferIndex, ConnectionId, DiskIndex, IoId, Nanos, PSEG_BLOCKS, ProcessId, QUORUM_SPACE_BLOCKS,
    RequestId, RssIndex, Time, Uuid,
};
use twincell_core::layout::metadata::DiskState;
use twincell_core::link::frame::Frame;
use twincell_core::manage::{ManageError, ManageOp, ManageReply};
use twincell_core::memory::{Memory, Segment, Sgl};
use twincell_target::iscsi::IscsiSession;
use twincell_target::nbd::NbdSession;
use twincell_wire::frame::decode_mfcs;

/// A disk that fails, has another device at its path, and was not given up for this long, is opened by starting anew. So is
/// one that this controller could not enter when it began.
const MOVED: Nanos = Nanos::from_millis(5000);

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// As asked. Where everything is on disk the NV image is removed; else it is kept for the next start.
    Exit,
}

/// Why the loop ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// A fresh core in the same process (R4).
    Restart,
    /// The process ends, and the NV image goes with it.
    Exit,
    /// The process ends, and the NV image stays.
    Halt,
    /// The process ends as in a crash: its memory is damaged, and the partner has what was in it.
    Damaged,
}

/// What is left of a controller in memory.
enum Remains {
    Nothing,
    Image,
    Damage,
}

type Reply = SyncSender<Result<ManageReply, ManageError>>;

/// A controller with everything that it needs.
pub struct Engine {
    settings: Settings,
    geometry: Geometry,
    process: ProcessId,
    core: Core,
    queue: Queue,
    /// Empty between steps; kept so that a step allocates nothing.
    effects: Vec<Effect>,
    completions: Vec<Completion>,
    ending: Option<End>,

    ring: Ring,
    disk_ios: DiskIos,
    locks: Locks,
    link: Link,
    hosts: Hosts,
    memories: Memories,
    /// `None` where a disk is not there.
    disks: Vec<Option<Disk>>,
    /// By disk: what is held on the others is not held there yet. It was opened while the cell runs, or could not be locked
    /// when the others were.
    unheld: Vec<bool>,
    /// When to try again to hold what is held on the others there.
    admit_at: Time,
    /// By disk: it fails, and since then there is another device at its path; or it answers, and lacks what only the next
    /// beginning gives it.
    moved: Vec<Option<Time>>,
    reopener: Reopener,

    inbox: Inbox,
    replies: HashMap<RequestId, Reply>,
    last_request: RequestId,
    stop: StopOrder,
    story: Teller,
    counters: Counters,
    space: FreeSpace,
    placement: Placement,
    /// By disk, what has failed of what was asked of it.
    failures: Vec<Failures>,
    /// The metadata that were looked at last.
    generation: u64,
    /// By disk: it is another one than these metadata mean.
    strange: Vec<bool>,
}

impl Engine {
    /// Opens everything that the controller needs: disks, NV memory, addresses. Nothing of it is changed but NV
    /// memory of another kernel boot or of other sizes, which is emptied.
    pub fn open(settings: Settings) -> Result<(Engine, Handle), OpenError> {
        let system = |what| move |source| OpenError::System { what, source };
        let ring = Ring::new().map_err(|reason| OpenError::Kernel { reason })?;
        let process = process::own_id().map_err(system("cannot tell which process this is from /proc"))?;
        let geometry = Geometry::for_cache(settings.cache_bytes);
        disk::await_paths(&settings.disks);
        let disks = disk::open_all(&settings)?;
        let nv = NvMemory::open(&settings, &geometry, process.boot)?;
        let link = Link::open(&settings)?;
        let hosts = Hosts::open(&addresses(&settings), view::first(&settings), greet())?;
        let (handle, inbox) = handle::pair().map_err(system("eventfd"))?;
        let core = Core::new(config(&settings, &disks, geometry, process), nv.image());
        // Last, because it may arm a watchdog, and all of the above may take longer than that waits.
        let fence = fence::open(&settings, &disks)?;
        let engine = Engine {
            geometry,
            process,
            core,
            queue: Queue::default(),
            effects: Vec::new(),
            completions: Vec::new(),
            ending: None,
            ring,
            disk_ios: DiskIos::new(settings.cell, settings.controller),
            locks: Locks::new(
                settings.controller,
                disks.iter().map(|d| d.as_ref().map(Disk::fd)).collect(),
                &disk::voters(&disks),
                fence,
            ),
            link,
            hosts,
            memories: Memories::new(nv, geometry.transfers + 1),
            failures: vec![Failures::default(); disks.len()],
            generation: 0,
            strange: vec![false; disks.len()],
            unheld: vec![false; disks.len()],
            admit_at: Time(0),
            moved: vec![None; disks.len()],
            reopener: Reopener::new(disks.len(), inbox.wake.clone()),
            disks,
            story: Teller::new(inbox.story.clone()),
            inbox,
            replies: HashMap::new(),
            last_request: RequestId(0),
            stop: StopOrder::default(),
            counters: Counters::default(),
            space: FreeSpace::default(),
            placement: Placement::default(),
            settings,
        };
        Ok((engine, handle))
    }

    /// Runs the controller on this thread until it ends. Must be called on the thread that stays with it.
    pub fn run(mut self) -> Result<Outcome, RunError> {
        match self.run_to_end() {
            Ok(Remains::Nothing) => {
                info!("the controller ends; everything is on disk");
                let path = self.settings.nv_memory.clone();
                self.memories.nv.remove().map_err(|source| OpenError::Nv {
                    path,
                    what: "cannot be removed",
                    source,
                })?;
                Ok(Outcome::Exit)
            }
            Ok(Remains::Image) => {
                info!("the controller ends; its NV memory stays");
                Ok(Outcome::Exit)
            }
            Ok(Remains::Damage) => {
                std::mem::forget(self);
                Err(RunError::Damaged)
            }
            Err(e) => {
                // The kernel may still use memory that is posted: it must stay.
                std::mem::forget(self);
                Err(RunError::Ring(e))
            }
        }
    }

    fn run_to_end(&mut self) -> io::Result<Remains> {
        self.ring.enable()?;
        self.post_wake();
        loop {
            self.link.start(clock::now(), &mut self.ring);
            self.queue.push(Event::Start);
            let end = self.serve()?;
            if !matches!(end, End::Damaged) {
                self.tear_down()?;
            }
            match end {
                End::Exit => return Ok(Remains::Nothing),
                End::Halt => return Ok(Remains::Image),
                End::Restart if self.stop.is_given() => return Ok(Remains::Image),
                End::Restart => self.restart(),
                End::Damaged => return Ok(Remains::Damage),
            }
        }
    }

    /// Drives the core until it wants an end.
    fn serve(&mut self) -> io::Result<End> {
        loop {
            self.drain();
            if let Some(end) = self.ending.take() {
                return Ok(end);
            }
            // A drain may end with something at hand, payload of the link, or much from hosts: it is not waited for, and nobody
            // waits for it.
            match self.queue.is_empty() && !self.hosts.has_more() {
                true => self.ring.submit_and_wait(self.until_deadline())?,
                false => self.ring.submit()?,
            }
            self.reap();
            self.poll();
        }
    }

    /// Steps the core with everything that happened.
    fn drain(&mut self) {
        loop {
            while let Some(happening) = self.queue.pop() {
                self.step(happening);
                if self.ending.is_some() {
                    return;
                }
            }
            if !self.core.awaits_more() {
                return self.finish();
            }
            // The event that was to follow was none: its frame made no sense.
            self.queue.push(Event::Tick);
        }
    }

    fn step(&mut self, happening: Happening) {
        let now = clock::now();
        debug!(event = ?happening.event);
        if !self.put_messages(&happening) {
            return;
        }
        let mut effects = std::mem::take(&mut self.effects);
        self.core.expect_more(!self.queue.is_empty());
        self.core.step(now, happening.event, &mut effects);
        // By reference: an effect is half a KiB, and a write has dozens of them.
        for effect in &effects {
            trace!(?effect);
            self.carry_out(now, effect, happening.body.as_ref());
            if self.ending == Some(End::Damaged) {
                // What follows may send what is damaged, or seal it as if it were sound: it ends here, as in a crash.
                break;
            }
        }
        effects.clear();
        self.effects = effects;
    }

    /// The messages of a frame go where the core wants them. Returns whether it is to be told of the frame.
    fn put_messages(&mut self, happening: &Happening) -> bool {
        let Event::LinkFrame {
            connection,
            frame: Frame::Messages(sequenced),
            ..
        } = &happening.event
        else {
            return true;
        };
        let body = happening.body.as_ref().expect("messages have a body");
        let core = &mut self.core;
        let place = core.place_of(*connection, sequenced);
        place.is_none_or(|place| self.link.read_messages(body, place))
    }

    /// The end of a drain: posts what it has left to be sent and received.
    fn finish(&mut self) {
        let now = clock::now();
        let core = &mut self.core;
        let place: Place = &mut |connection, frame, messages, blocks| {
            let Frame::Messages(sequenced) = frame else { return None };
            decode_mfcs(messages, core.place_of(connection, sequenced)?).ok()?;
            core.place_of_payload(connection, sequenced, blocks)
        };
        let memories = (&self.memories, &mut self.counters);
        self.link.finish(now, &mut self.ring, &mut self.queue, memories, place);
        let (hosts, ring, mut shared) = self.hosts();
        hosts.finish(now, ring, &mut shared);
    }

    /// Hosts, and what they share with the rest.
    fn hosts(&mut self) -> (&mut Hosts, &mut Ring, Shared<'_>) {
        let shared = Shared {
            memories: &self.memories,
            queue: &mut self.queue,
            counters: &mut self.counters,
        };
        (&mut self.hosts, &mut self.ring, shared)
    }

    // ---- What happened. ----

    fn until_deadline(&self) -> Option<Duration> {
        let deadlines = [
            self.core.next_deadline(),
            self.locks.next_deadline(),
            self.link.next_deadline(),
            self.hosts.next_deadline(),
            self.disk_ios.next_deadline(),
            self.next_look_for_disks(),
            self.stop.ask_at(),
        ];
        let now = clock::now();
        deadlines.into_iter().flatten().min().map(|at| clock::until(now, at))
    }

    fn reap(&mut self) {
        let mut completions = std::mem::take(&mut self.completions);
        self.ring.reap(&mut completions);
        for completion in completions.drain(..) {
            self.on_completion(completion);
        }
        self.completions = completions;
    }

    fn on_completion(&mut self, completion: Completion) {
        let result = completion.result;
        let wanted = self.ending.is_none();
        match completion.token {
            // What is asked during the end waits for the next beginning.
            Token::Wake if !wanted => {}
            Token::Wake => self.on_wake(),
            Token::Cancel => {}
            Token::Disk(key) => {
                let of = self.disk_ios.disk_of(key).index();
                if result == -libc::EBADE {
                    self.on_reservation_conflict();
                }
                let (probe, asked) = (self.disk_ios.is_probe(key), self.disk_ios.asked(key));
                let disk = self.disks[of].as_ref().expect("something was posted to it");
                let ended = self.disk_ios.completed(&mut self.ring, key, disk, result);
                if let Some(disk) = self.disk_ios.take_failed_flush() {
                    self.queue.push(Event::FlushFailed { disk });
                }
                if let Some(ended) = ended {
                    if is_error(&ended.event) {
                        self.counters.disk_errors += 1;
                        self.failures[of].failed(asked, clock::now());
                    } else {
                        self.failures[of].done(asked);
                    }
                    if probe && is_error(&ended.event) && wanted {
                        self.reopener.look_for(of, &self.settings, clock::now());
                    }
                    self.put_slots(&ended);
                    self.queue.push(ended.event);
                }
            }
            Token::LinkAccept(listener) => {
                let now = clock::now();
                self.link.accepted(listener, completion, now, &mut self.ring);
            }
            Token::LinkConnect(path) => {
                let now = clock::now();
                self.link.connected(path, completion, now, wanted, &mut self.queue);
            }
            Token::LinkReceive(key) => self.link.received(key, result, &mut self.queue, &mut self.counters),
            Token::LinkSend(key) => self.link.sent(key, result),
            Token::HostAccept(listener) => self.hosts.accepted(listener, completion, &mut self.ring),
            Token::HostReceive(key) => {
                let (hosts, _, mut shared) = self.hosts();
                hosts.received(key, result, &mut shared);
            }
            Token::HostSend(key) => {
                let (hosts, _, mut shared) = self.hosts();
                hosts.sent(key, result, &mut shared);
            }
        }
    }

    /// What a read of slots found goes where the core wants it.
    fn put_slots(&mut self, ended: &Ended) {
        if let (Event::SlotRead { io, .. }, Some(slots)) = (&ended.event, ended.slots)
            && let Some(place) = self.core.slots_read_by(*io)
        {
            *place = slots;
        }
    }

    /// A disk has refused a write because of its reservation: where that is the fence, this controller was fenced. It cannot
    /// find that out by a ballot, which would have to write, so it starts anew, as the loser of a ballot does (R4).
    fn on_reservation_conflict(&mut self) {
        if self.settings.fence == FenceChoice::Pr && self.ending.is_none() {
            warn!("the disks refuse the writes of this controller: its partner has fenced it");
            self.note(Note::Out);
            self.ending = Some(End::Restart);
        }
    }

    /// Does what is due by the clock.
    fn poll(&mut self) {
        let now = clock::now();
        self.poll_locks(now);
        self.look_for_disks(now);
        self.link.poll(now, &mut self.ring);
        let (queue, counters) = (&mut self.queue, &mut self.counters);
        self.disk_ios.poll(now, |event| {
            counters.disk_errors += 1;
            queue.push(event);
        });
        let (hosts, ring, mut shared) = self.hosts();
        hosts.poll(now, ring, &mut shared);
        if self.stop.ask_at().is_some_and(|at| at <= now) && self.ending.is_none() {
            self.ask_to_stop();
        }
        if self.core.next_deadline().is_some_and(|at| at <= now) {
            self.queue.push(Event::Tick);
        }
    }

    fn poll_locks(&mut self, now: Time) {
        let (ios, core, mut happened) = (&self.disk_ios, &self.core, Vec::new());
        let counts = |n: usize| core.metadata().is_none_or(|m| m.counts(DiskIndex(n as u16)));
        self.locks
            .poll(now, counts, || ios.oldest(), |event| happened.push(event));
        for event in happened {
            self.set_aside(&event);
            self.queue.push(event);
        }
    }

    /// A disk that could not be locked when the others were, or where the partner could not be fenced, is not used before it is
    /// as they are: what is on its way to it may still land there.
    fn set_aside(&mut self, event: &Event) {
        for n in 0..self.disks.len() {
            let is_held = match event {
                Event::LocksTaken => self.locks.has_taken(n),
                _ => self.locks.hold(n),
            };
            if let Some(disk) = self.disks[n].as_ref().filter(|_| !is_held) {
                warn!(disk = %disk.path.display(), "a disk is not used: what is held on the others is not held there");
                self.unheld[n] = true;
            }
        }
    }

    // ---- Disks that are not open. ----

    /// Whether disk `n` may be opened, or opened anew, while the cell runs. Persistent reservations do not show that this
    /// controller is still in, as its locks do: there both have to agree first that the disk is written again.
    fn may_open(&self, n: usize) -> bool {
        let missing = state_of(&self.core, n) == Some(DiskState::Missing);
        match &self.disks[n] {
            None => missing || self.settings.fence != FenceChoice::Pr,
            Some(_) => missing && !self.disk_ios.is_busy(DiskIndex(n as u16)),
        }
    }

    fn next_look_for_disks(&self) -> Option<Time> {
        let closed = (0..self.disks.len()).filter(|n| self.disks[*n].is_none() && self.may_open(*n));
        let looks = closed.filter_map(|n| self.reopener.next_look(n));
        let locks = self.unheld.contains(&true).then_some(self.admit_at);
        looks.chain(locks).min()
    }

    fn look_for_disks(&mut self, now: Time) {
        for n in 0..self.disks.len() {
            let fails = self.failures[n].is_now(now);
            if self.disks[n].is_none() && self.may_open(n) || fails {
                self.reopener.look_for(n, &self.settings, now);
            }
            match self.must_enter_anew(n) {
                true => self.moved[n] = self.moved[n].or(Some(now)),
                false => _ = self.moved[n].take_if(|_| !fails),
            }
        }
        if now >= self.admit_at && self.unheld.contains(&true) {
            self.admit_at = now + fence::RETRY;
            self.admit_disks();
        }
        if self.moved.iter().flatten().any(|since| now.since(*since) >= MOVED) && self.ending.is_none() {
            warn!("disks have come back that are used only by starting anew: the controller does");
            self.ending = Some(End::Restart);
        }
    }

    fn admit_disks(&mut self) {
        for n in 0..self.disks.len() {
            if self.unheld[n] {
                self.admit(n);
            }
        }
    }

    /// A disk that was opened while the cell runs, or set aside, is used once what is held on the others is held there. With
    /// persistent reservations both have to say first that it is written.
    fn admit(&mut self, n: usize) {
        let written = self.is_written(n) || self.settings.fence != FenceChoice::Pr;
        self.unheld[n] = !(written && self.locks.admit(n));
    }

    fn is_written(&self, n: usize) -> bool {
        state_of(&self.core, n).is_some_and(DiskState::is_written)
    }

    /// Whether disk `n` was out of reach when this controller entered, answers again, and was not given up: where it is another
    /// way to come back.
    fn must_enter_anew(&self, n: usize) -> bool {
        self.unheld[n] && self.is_written(n) && self.locks.must_enter_anew(n)
    }

    /// The paths of disks may have changed: from now on they are looked for there.
    fn look_anew(&mut self, paths: Vec<PathBuf>) -> bool {
        if paths.len() != self.disks.len() {
            return false;
        }
        self.settings.disks = paths;
        let now = clock::now();
        for n in 0..self.disks.len() {
            if self.may_open(n) {
                self.reopener.look_for(n, &self.settings, now);
            }
        }
        true
    }

    /// Disks that were found take their places.
    fn take_found_disks(&mut self) {
        while let Some((n, disk)) = self.reopener.take(&self.settings) {
            let is_another = self.disks[n].as_ref().is_some_and(|d| d.identity != disk.identity);
            if self.may_open(n) {
                self.open_disk(n, disk);
            } else if is_another {
                self.moved[n] = self.moved[n].or(Some(clock::now()));
            }
        }
    }

    /// Nothing is in flight, and nothing is held: what is at the paths of disks that failed takes their places.
    fn open_moved_disks(&mut self) {
        for n in 0..self.disks.len() {
            if self.moved[n].take().is_none() {
                continue;
            }
            match disk::open_at(n as u16, &self.settings) {
                Ok(disk) => self.open_disk(n, disk),
                Err(e) => warn!("a disk that came back cannot be used: {e}"),
            }
        }
    }

    /// What was open in its place is closed first: its locks would stand against those of the new one, if it is the same.
    fn open_disk(&mut self, n: usize, disk: Disk) {
        if self.disks[n].is_some() {
            self.locks.close(n);
            self.disks[n] = None;
        }
        if let Err(e) = self.locks.open(n, &disk) {
            return warn!("a disk that came back cannot be used: {e}");
        }
        info!(disk = %disk.path.display(), "a disk that came back is open");
        self.disks[n] = Some(disk);
        self.failures[n] = Failures::default();
        self.moved[n] = None;
        self.admit(n);
        self.look_whether_strange(n);
    }

    fn post_wake(&mut self) {
        let fd = types::Fd(self.inbox.wake.as_raw_fd());
        let entry = opcode::PollAdd::new(fd, libc::POLLIN as u32).build();
        // SAFETY: a poll points to no memory.
        unsafe { self.ring.post(Token::Wake, entry) };
    }

    fn on_wake(&mut self) {
        let mut count = [0; 8];
        // It was readable, and nobody else reads it.
        let _ = (&*self.inbox.wake).read(&mut count);
        self.post_wake();
        self.take_found_disks();
        while let Ok(request) = self.inbox.requests.try_recv() {
            match request {
                Request::Manage { op, reply } => {
                    let request = self.manage(op);
                    self.replies.insert(request, reply);
                }
                Request::Stop => self.stop.give(clock::now()),
                Request::Disks { paths, reply } => {
                    // Whoever asked may have given up.
                    let _ = reply.try_send(self.look_anew(paths));
                }
                Request::Snapshot { reply } => {
                    // Whoever asked may have given up.
                    let _ = reply.try_send(Box::new(self.snapshot()));
                }
            }
        }
    }

    /// Asks the core for something.
    fn manage(&mut self, op: ManageOp) -> RequestId {
        self.last_request = self.last_request.next();
        let request = self.last_request;
        self.queue.push(Event::Manage { request, op });
        request
    }

    fn ask_to_stop(&mut self) {
        let request = self.manage(ManageOp::Stop);
        self.stop.ask(request);
    }

    fn snapshot(&mut self) -> Snapshot {
        let cell = self.core.cell_view();
        let metadata = self.core.metadata();
        let free = self.space.of(metadata, self.disks.len());
        let works = self.working_disks();
        let copies = metadata.map_or(Vec::new(), |m| {
            let normal = |d: DiskIndex| m.disks.get(d.index()).is_some_and(|d| d.state == DiskState::Normal);
            self.placement
                .copies(m, |d| normal(d) && works.get(d.index()) == Some(&true))
        });
        let disks = (0..self.disks.len()).map(|n| self.disk_snapshot(n, works[n], free[n]));
        Snapshot {
            luns: self.core.luns().collect(),
            disks: disks.collect(),
            link: self.link.snapshot(&self.core, &self.settings, clock::now()),
            copies,
            merging: self.core.merging(),
            partner_silent: cell.partner_last_seen.map(|seen| clock::until(seen, clock::now())),
            serving_hosts: self.hosts.is_serving(),
            counters: Counters {
                retransmits: self.core.link_counts().0,
                ..self.counters
            },
            cell,
        }
    }

    fn disk_snapshot(&self, n: usize, works: bool, free: Option<u32>) -> DiskSnapshot {
        let disk = self.disks[n].as_ref();
        let known = self.core.metadata().and_then(|m| m.disks.get(n));
        let psegs = disk.map_or(known.map_or(0, |d| d.psegs), |d| d.label.psegs);
        let index = DiskIndex(n as u16);
        let voters = self.core.cell_view().record.map(|r| r.quorum);
        DiskSnapshot {
            path: self.settings.disks[n].clone(),
            size_bytes: disk.map_or_else(|| bytes_of(psegs), Disk::bytes),
            state: match known.map_or(DiskState::Normal, |d| d.state) {
                DiskState::Normal if disk.is_none() => DiskState::Missing,
                state => state,
            },
            uuid: disk.map_or(known.map_or(Uuid::NIL, |d| d.uuid), |d| d.label.disk),
            place: match (known, disk) {
                (Some(known), _) => (known.rss, known.rss_offset),
                (None, Some(disk)) => (disk.label.rss, disk.label.rss_offset),
                (None, None) => (RssIndex(0), 0),
            },
            works,
            quorum: match voters {
                Some(voters) => voters.contains(&index),
                None => disk.is_some_and(|d| d.label.is_quorum()),
            },
            psegs,
            psegs_free: free.unwrap_or(psegs),
        }
    }

    /// Whether each disk works, as far as anybody has tried.
    fn working_disks(&self) -> Vec<bool> {
        let now = clock::now();
        let works = |(n, failures): (usize, &Failures)| {
            self.disks[n].is_some()
                && !self.strange[n]
                && !self.unheld[n]
                && !failures.counts(now)
                && !self.disk_ios.is_overdue(DiskIndex(n as u16))
        };
        self.failures.iter().enumerate().map(works).collect()
    }

    // ---- What the core wants done. ----

    fn carry_out(&mut self, now: Time, effect: &Effect, body: Option<&Body>) {
        match *effect {
            Effect::Store { address, word } => self.memories.nv.store(address, word),
            Effect::NewImage { uuid } => self.memories.nv.new_image(uuid),
            // Mapped memory survives this process from the store on.
            Effect::Persist { token } => self.queue.push(Event::Persisted { token }),
            Effect::Seal { buffer, mask } => self.memories.nv.seal(buffer, mask),
            Effect::Merge { from, to, mask } => self.merge(from, to, mask),
            Effect::Gather { from, transfer, first } => {
                self.copy(&Memory::Buffers(from), &Memory::transfer(transfer, first, &from));
            }
            Effect::Scatter { transfer, first, into } => {
                self.copy(&Memory::transfer(transfer, first, &into), &Memory::Buffers(into));
            }
            Effect::Absorb { ref into } => self.absorb(into, body),
            Effect::Fetch { id, offset, ref into } => {
                let (hosts, _, mut shared) = self.hosts();
                hosts.fetch(id, offset, into, &mut shared);
            }
            Effect::EndHost { id } => {
                let (hosts, _, mut shared) = self.hosts();
                hosts.end_host_of(id, &mut shared);
            }
            Effect::SendData { id, ref from, .. } if !self.check(from) => {
                // Nobody else has these data: the host gets none.
                let (hosts, _, mut shared) = self.hosts();
                hosts.end_host_of(id, &mut shared);
            }
            Effect::SendData { id, offset, ref from } => {
                let (hosts, _, mut shared) = self.hosts();
                hosts.send_data(id, offset, from, &mut shared);
            }
            Effect::Complete { id, status } => {
                let (hosts, _, mut shared) = self.hosts();
                hosts.complete(id, status, &mut shared);
            }
            Effect::LinkSend { connection, ref frame } => self.send_frame(connection, frame),
            Effect::LinkClose { connection } => self.link.close(connection),
            Effect::TakeLocks => {
                self.locks.take_own(now);
                self.poll_locks(now);
            }
            Effect::Fence { process } => {
                self.locks.fence(now, process);
                self.poll_locks(now);
            }
            Effect::Unfence => self.locks.unfence(),
            Effect::CloseHosts => {
                let (hosts, _, mut shared) = self.hosts();
                hosts.close(&mut shared);
            }
            // Nobody comes in who would be sent away at once.
            Effect::Serve if self.stop.is_given() => self.stop.hurry(now),
            Effect::Serve => self.hosts.serve(&mut self.ring),
            Effect::ViewChanged => {
                self.look_at_disk_states();
                self.story.look(clock::now(), &self.core);
                let view = view::next(self.hosts.view(), &self.core);
                let (hosts, _, mut shared) = self.hosts();
                hosts.set_view(view, &mut shared);
            }
            Effect::Reply { request, result } => self.reply(request, result),
            Effect::Restart => self.ending = self.ending.or(Some(End::Restart)),
            Effect::Exit => self.ending = self.ending.or(Some(End::Exit)),
            Effect::Halt => self.ending = self.ending.or(Some(End::Halt)),
            Effect::Note(Note::Serving { .. }) if self.stop.is_given() => {
                info!("could serve now, and stops instead");
            }
            Effect::Note(note) => self.note(note),
            Effect::DiskRead { .. }
            | Effect::DiskWrite { .. }
            | Effect::DiskFlush { .. }
            | Effect::DiskZero { .. }
            | Effect::DiskProbe { .. }
            | Effect::SlotRead { .. }
            | Effect::SlotWrite { .. }
            | Effect::MetadataRead { .. }
            | Effect::MetadataWrite { .. } => self.start_disk_io(effect),
        }
    }

    /// A disk that is made level has answered again: what failed before says nothing any more. One that is not the one that the
    /// metadata mean is left alone.
    fn look_at_disk_states(&mut self) {
        let Some(metadata) = self.core.metadata().filter(|m| m.generation != self.generation) else {
            return;
        };
        self.generation = metadata.generation;
        for (disk, failures) in metadata.disks.iter().zip(&mut self.failures) {
            if disk.state == DiskState::Merging {
                *failures = Failures::default();
            }
        }
        (0..self.disks.len()).for_each(|n| self.look_whether_strange(n));
    }

    /// Whether another disk is in the place of this one than the metadata mean.
    fn look_whether_strange(&mut self, n: usize) {
        let known = self.core.metadata().and_then(|m| m.disks.get(n));
        let (Some(disk), Some(known)) = (&self.disks[n], known) else {
            return;
        };
        self.strange[n] = disk.label.disk != known.uuid;
        if self.strange[n] {
            warn!(disk = %disk.path.display(), "another disk is in the place of this one: it is left alone");
        }
    }

    fn merge(&mut self, from: BufferIndex, to: BufferIndex, mask: u8) {
        let whole = |buffer| Segment {
            buffer,
            first: 0,
            count: 8,
        };
        let is_sound = self.check(&Memory::Buffers(Sgl::from_slice(&[whole(from)])));
        self.memories.nv.unseal(to);
        self.memories.merge(whole(from), whole(to), mask);
        if !is_sound {
            self.memories.nv.damage(to);
        }
        self.counters.bytes_copied += u64::from(mask.count_ones()) * 512;
    }

    /// What is damaged stays so in its copy.
    fn copy(&mut self, from: &Memory, to: &Memory) {
        let is_sound = self.check(from);
        self.memories.unseal(to);
        self.memories.copy(from, to);
        if !is_sound {
            self.memories.damage(to);
        }
        self.counters.bytes_copied += u64::from(to.blocks()) * 512;
    }

    fn absorb(&mut self, into: &Memory, body: Option<&Body>) {
        let body = body.expect("the core absorbs the payload of the frame that it handles");
        let copied = self.link.absorb(body, into, &self.memories);
        self.counters.copied_on_the_link(copied);
    }

    fn start_disk_io(&mut self, effect: &Effect) {
        self.counters.disk_ios += 1;
        let failed = Err(DiskError);
        match *effect {
            Effect::DiskRead {
                io,
                disk,
                block,
                ref into,
            } => {
                self.memories.unseal(into);
                match self.disk(disk) {
                    Some((ios, ring, memories, disk)) => ios.read(ring, disk, io, block, memories.pieces(into)),
                    None => self.queue.push(Event::DiskDone { io, result: failed }),
                }
            }
            Effect::DiskWrite {
                io,
                disk,
                block,
                ref from,
            } if self.check(from) => match self.disk(disk) {
                Some((ios, ring, memories, disk)) => ios.write(ring, disk, io, block, memories.pieces(from)),
                None => self.queue.push(Event::DiskDone { io, result: failed }),
            },
            Effect::DiskWrite { io, .. } => self.queue.push(Event::DiskDone { io, result: failed }),
            Effect::DiskFlush { io, disk } => match self.disk(disk) {
                Some((ios, ring, _, disk)) => ios.flush(ring, disk, io),
                None => self.queue.push(Event::DiskDone { io, result: failed }),
            },
            Effect::DiskZero {
                io,
                disk,
                block,
                blocks,
            } => match self.disk(disk) {
                Some((ios, ring, _, disk)) => ios.zero(ring, disk, io, block, blocks),
                None => self.queue.push(Event::DiskDone { io, result: failed }),
            },
            Effect::DiskProbe { io, disk, uuid } => {
                let n = disk.index();
                let answers = n < self.disks.len() && !self.disk_ios.is_overdue(disk) && !self.strange[n];
                let held = answers && self.locks.hold(n);
                match self.disks.get(n).and_then(Option::as_ref).filter(|_| held) {
                    Some(of) => self.disk_ios.probe(&mut self.ring, (disk, of), io, uuid),
                    None => {
                        self.queue.push(Event::DiskDone { io, result: failed });
                        if n < self.disks.len() {
                            self.reopener.look_for(n, &self.settings, clock::now());
                        }
                    }
                }
            }
            Effect::SlotRead { io, disk } => match self.disk(disk) {
                Some((ios, ring, _, disk)) => ios.read_slots(ring, disk, io),
                None => self.queue.push(Event::SlotRead { io, result: failed }),
            },
            Effect::SlotWrite { io, disk } => {
                let slot = self.core.slot_written_by(io).copied();
                match (self.disk(disk), slot) {
                    (Some((ios, ring, _, disk)), Some(slot)) => ios.write_slot(ring, disk, io, &slot),
                    _ => self.queue.push(Event::DiskDone { io, result: failed }),
                }
            }
            Effect::MetadataRead { io, disk, copy } => match self.disk(disk) {
                Some((ios, ring, _, disk)) => ios.read_metadata(ring, disk, io, copy),
                None => self.queue.push(Event::MetadataRead {
                    io,
                    metadata: Err(DiskError),
                }),
            },
            Effect::MetadataWrite { io, disk, copy } => self.write_metadata(io, disk, copy),
            ref other => unreachable!("{other:?} is no disk I/O"),
        }
    }

    /// What a disk I/O takes; `None` where the metadata name a disk that the cell does not have, and while the disk does
    /// not answer.
    #[allow(clippy::type_complexity, reason = "four fields, borrowed apart")]
    fn disk(&mut self, disk: DiskIndex) -> Option<(&mut DiskIos, &mut Ring, &Memories, (DiskIndex, &Disk))> {
        let of = self
            .disks
            .get(disk.index())
            .and_then(Option::as_ref)
            .filter(|_| self.may_use(disk))?;
        Some((&mut self.disk_ios, &mut self.ring, &self.memories, (disk, of)))
    }

    /// Whether nothing stands against posting to a disk that is open.
    fn may_use(&self, disk: DiskIndex) -> bool {
        let n = disk.index();
        !self.disk_ios.is_overdue(disk) && !self.strange[n] && !self.unheld[n]
    }

    /// Sends a frame, unless what it carries is damaged: then the partner has no part in it any more.
    fn send_frame(&mut self, connection: ConnectionId, frame: &Frame) {
        let sequenced = match frame {
            Frame::Messages(sequenced) => Some(sequenced),
            _ => None,
        };
        let payload = sequenced.and_then(|s| Some((self.core.messages(s).payload?, self.link.is_sent_again(s))));
        if let Some((payload, again)) = payload {
            let doubtful = self.to_be_checked(payload, again);
            if !self.check(&doubtful) {
                return self.link.close(connection);
            }
        }
        let messages = sequenced.map(|s| self.core.messages(s));
        let (memories, counters) = (&self.memories, &mut self.counters);
        self.link.send(connection, frame, messages, memories, counters);
    }

    /// Of what is sent, what the partner could not find to be damaged: it gets the checksum that was sealed with the rest, and drops
    /// what does not fit to it. Sent again, it would be dropped again, and so on for ever.
    fn to_be_checked(&self, payload: Memory, again: bool) -> Memory {
        match payload {
            Memory::Buffers(sgl) if !again => {
                let is_told = |segment: &&Segment| self.memories.nv.sealed_crc(**segment).is_none();
                Memory::Buffers(sgl.iter().filter(is_told).copied().collect())
            }
            payload => payload,
        }
    }

    /// Whether what is about to be used of NV memory, or was copied from there, is what was sealed. If it is not, and the partner
    /// has it too, this controller ends on the spot: its partner takes over, with memory that is sound.
    fn check(&mut self, memory: &Memory) -> bool {
        if self.memories.is_intact(memory) {
            return true;
        }
        error!(?memory, "NV memory is damaged: a checksum is wrong");
        let view = self.core.cell_view();
        if view.linked && view.record.is_some_and(|r| r.mode == Mode::Both) {
            self.ending = Some(End::Damaged);
        }
        false
    }

    fn write_metadata(&mut self, io: IoId, disk: DiskIndex, copy: u8) {
        let of = self.disks.get(disk.index()).and_then(Option::as_ref);
        let of = of.filter(|_| self.may_use(disk));
        let metadata = self.core.metadata_to_write();
        let result = match (metadata, of) {
            (Some(metadata), Some(of)) => self
                .disk_ios
                .write_metadata(&mut self.ring, (disk, of), io, copy, metadata)
                .map_err(|e| e.to_string()),
            (None, _) => Err("the core has no metadata to write".to_owned()),
            (_, None) => Err("there is no such disk, or it does not answer".to_owned()),
        };
        if let Err(e) = result {
            warn!(%disk, "metadata were not written: {e}");
            let result = Err(DiskError);
            self.queue.push(Event::DiskDone { io, result });
        }
    }

    fn reply(&mut self, request: RequestId, result: Result<ManageReply, ManageError>) {
        if let Some(error) = self.stop.answered(request, result, clock::now()) {
            info!(?error, "cannot stop yet, and does as soon as it can");
        }
        if let Some(reply) = self.replies.remove(&request) {
            // Whoever asked may have given up.
            let _ = reply.try_send(result);
        }
    }

    fn note(&mut self, note: Note) {
        info!(?note);
        self.story.note(clock::now(), note, self.core.metadata());
    }

    // ---- The end, and the next beginning. ----

    /// Closes everything, and waits until all that was posted is reaped: disk writes too, which are not for nothing
    /// even now, because the partner waits for the lock that they hold (R4, R5).
    fn tear_down(&mut self) -> io::Result<()> {
        self.queue.clear();
        let (hosts, _, mut shared) = self.hosts();
        hosts.cut(&mut shared);
        self.link.stop(&mut self.ring);
        self.disk_ios.stop();
        self.ring.cancel(Token::Wake);
        self.ending = Some(End::Exit);
        loop {
            self.hosts.forget();
            self.link.forget();
            if self.ring.outstanding() == 0 {
                break;
            }
            // The partner does not wait for a disk that hangs, if that was given up.
            let ios = &self.disk_ios;
            self.locks.release_where(|n| !ios.is_busy(DiskIndex(n as u16)));
            self.ring.submit_and_wait(None)?;
            self.reap();
        }
        self.locks.release_all();
        self.queue.clear();
        for (_, reply) in self.replies.drain() {
            let _ = reply.try_send(Err(ManageError::Unknown));
        }
        Ok(())
    }

    /// A fresh core, as if the process were fresh.
    fn restart(&mut self) {
        info!("the controller starts anew");
        self.ending = None;
        self.open_moved_disks();
        self.generation = 0;
        self.strange.fill(false);
        self.unheld.fill(false);
        self.post_wake();
        let config = config(&self.settings, &self.disks, self.geometry, self.process);
        self.core = Core::new(config, self.memories.nv.image());
        self.disk_ios = DiskIos::new(self.settings.cell, self.settings.controller);
    }
}

/// The state of disk `n`, once the metadata are known.
fn state_of(core: &Core, n: usize) -> Option<DiskState> {
    core.metadata().and_then(|m| m.disks.get(n)).map(|d| d.state)
}

/// The least that a disk of so many PSEGs has.
fn bytes_of(psegs: u32) -> u64 {
    (QUORUM_SPACE_BLOCKS + u64::from(psegs) * PSEG_BLOCKS) * BLOCK_BYTES as u64
}

fn is_error(event: &Event) -> bool {
    matches!(
        event,
        Event::DiskDone { result: Err(_), .. }
            | Event::SlotRead { result: Err(_), .. }
            | Event::MetadataRead { metadata: Err(_), .. }
    )
}

fn config(settings: &Settings, disks: &[Option<Disk>], geometry: Geometry, process: ProcessId) -> Config {
    Config {
        controller: settings.controller,
        cell: settings.cell,
        instance: random_uuid(),
        process,
        fresh_image: random_uuid(),
        geometry,
        timing: Timing::default(),
        disks: disks.len() as u16,
        quorum: disk::voters(disks),
    }
}

fn addresses(settings: &Settings) -> Vec<(Protocol, std::net::SocketAddr)> {
    let own = settings.controller.index();
    let iscsi = settings.iscsi[own].iter().map(|a| (Protocol::Iscsi, *a));
    iscsi
        .chain(settings.nbd[own].iter().map(|a| (Protocol::Nbd, *a)))
        .collect()
}

fn greet() -> Greet {
    Box::new(|protocol, handle| match protocol {
        Protocol::Iscsi => Box::new(IscsiSession::new(handle)),
        Protocol::Nbd => Box::new(NbdSession::new()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::FenceChoice;
    use crate::testing::{TempDir, settings_with_disks};
    use twincell_core::ids::Controller;

    /// What may take long, or fail, comes before the watchdog that it could set off.
    #[test]
    fn the_watchdog_is_opened_last() {
        let dir = TempDir::in_memory("watchdog-last");
        let mut settings = settings_with_disks(&dir, Controller::A, 3);
        let watchdog = Some(dir.path("no-watchdog"));
        settings.fence = FenceChoice::Own { watchdog };
        let opened = Engine::open(settings.clone()).err();
        assert!(matches!(opened, Some(OpenError::Fence { .. })), "{opened:?}");
        settings.nv_memory = dir.path("no-directory/nv");
        assert!(matches!(Engine::open(settings), Err(OpenError::Nv { .. })));
    }
}
