//! A script for the world: what hosts and operators do, which faults come, and at which line of the story.
//!
//! Nothing is left to chance, and no controller starts or host tries again unless the script says so. Every step panics
//! with the story so far when what it waits for does not come, or when an oracle of the simulator objects.

use super::{HOSTS, MS, Step, World};
use crate::disks::SimDisk;
use crate::fault::Fault;
use crate::history::tag_of;
use crate::hosts::Command;
use crate::plan::{Plan, Pools};
use crate::random::Random;
use twincell_core::cell::record::{Mode, Record};
use twincell_core::controller::Role;
use twincell_core::host::{HostOp, Status};
use twincell_core::ids::{Controller, DiskIndex, QUORUM_SPACE_BLOCKS, Uuid};
use twincell_core::layout::metadata::{DiskState, Name};
use twincell_core::link::path::PathState;
use twincell_core::manage::ManageOp;

/// What a script waits for must come within this.
const PATIENCE: u64 = 30_000 * MS;

/// A command that a host has sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent(usize);

/// A script and its world.
pub struct Scenario {
    world: World,
    /// Lines of the story that the script has seen.
    seen: usize,
    /// Where what `story` tells begins.
    mark: usize,
    /// Which LUN commands are for.
    lun: usize,
}

impl Default for Scenario {
    fn default() -> Self {
        Scenario::new()
    }
}

impl Scenario {
    /// A cell that was just created; no controller runs.
    pub fn new() -> Scenario {
        Scenario::with(Plan::scripted())
    }

    /// The same, with two paths between the controllers.
    pub fn two_paths() -> Scenario {
        Scenario::with(Plan {
            paths: 2,
            ..Plan::scripted()
        })
    }

    /// The same, with pools that run short soon.
    pub fn small() -> Scenario {
        Scenario::with(Plan {
            pools: Pools::Small,
            ..Plan::scripted()
        })
    }

    /// The same, with pools of which the link can have only a part under way.
    pub fn large() -> Scenario {
        Scenario::with(Plan {
            pools: Pools::Large,
            ..Plan::scripted()
        })
    }

    /// Eight disks in two RSS; pairs are (0, 2), (4, 6), (1, 3) and (5, 7).
    pub fn eight_disks() -> Scenario {
        Scenario::with(Plan {
            shape: crate::shape::OTHERS[1],
            ..Plan::scripted()
        })
    }

    fn with(plan: Plan) -> Scenario {
        let verbose = std::env::var_os("TWINCELL_VERBOSE").is_some();
        let mut world = World::with(Random::calm(), plan, verbose);
        world.story = Some(Vec::new());
        Scenario {
            world,
            seen: 0,
            mark: 0,
            lun: 0,
        }
    }

    /// A cell whose controllers cannot see each other's processes: a fence has only the lock byte (R5).
    pub fn apart() -> Scenario {
        let mut scenario = Scenario::new();
        scenario.world.plan.apart = true;
        scenario
    }

    /// Each step is taken by `step`: a test may look at what is around it.
    pub fn each_step(mut self, step: Step) -> Scenario {
        self.world.step = step;
        self
    }

    // ---- controllers ----

    /// Starts both, and waits until both are in. A owns every LUN.
    pub fn both_serving(mut self) -> Self {
        self.start(Controller::A);
        self.until("A serves");
        self.start(Controller::B);
        self.until_both_serve();
        self.pass(10);
        self.mark();
        self
    }

    /// Deletes the LUN that has one copy of everything, on disks 0 to 2: as long as it is there those count whatever becomes of them.
    pub fn all_mirrored(mut self) -> Self {
        let name = Name::new("lun1").expect("a name");
        self.manage(Controller::A, ManageOp::LunDelete { name });
        self.until("A -> operator: Ok");
        self
    }

    /// Starts `c` alone, and waits until it serves.
    pub fn alone(mut self, c: Controller) -> Self {
        self.start(c);
        self.until(&format!("{c} serves"));
        self.mark();
        self
    }

    /// Starts a process.
    pub fn start(&mut self, c: Controller) {
        self.world.start(c);
    }

    /// Starts whoever is down now, and whoever ends by itself from now on a millisecond later, as a supervisor does.
    pub fn start_when_down(&mut self) {
        self.world.plan.restart = Some((MS, MS));
        for c in Controller::BOTH {
            self.start(c);
        }
    }

    /// Ends a process; its NV memory stays.
    pub fn crash(&mut self, c: Controller) {
        self.world.crash(c);
    }

    /// Ends a process as soon as a line of the story that it causes has `text`, before anything else that it wants.
    pub fn crash_at(&mut self, c: Controller, text: &str) {
        self.world.traps.push((c, text.into()));
    }

    /// Stops a process for so many milliseconds. What arrives waits.
    pub fn pause(&mut self, c: Controller, ms: u64) {
        self.world.fault(Fault::Pause(c, ms));
    }

    /// Ends a process, and its NV memory is gone.
    pub fn lose(&mut self, c: Controller) {
        self.world.crash(c);
        self.world.nv[c.index()] = None;
    }

    /// Whether a process runs and hosts are accepted by it.
    pub fn serves(&self, c: Controller) -> bool {
        let process = self.world.processes[c.index()].as_ref();
        process.is_some_and(|p| p.serves && p.core.cell_view().role == Role::Serving)
    }

    /// The membership record as `c` knows it.
    pub fn record(&self, c: Controller) -> Option<Record> {
        self.world.processes[c.index()]
            .as_ref()
            .and_then(|p| p.core.cell_view().record)
    }

    /// How many messages `c` has refused because their exchange is over.
    pub fn stale(&self, c: Controller) -> u64 {
        let process = self.world.processes[c.index()].as_ref();
        process.map_or(0, |p| p.core.link_counts().1)
    }

    /// The mode of the record as `c` knows it.
    pub fn mode(&self, c: Controller) -> Option<Mode> {
        self.record(c).map(|r| r.mode)
    }

    /// The owner of LUN 0, as a controller that serves knows it.
    ///
    /// # Panics
    /// If none serves.
    pub fn owner(&self) -> Controller {
        let view = |c: Controller| self.world.processes[c.index()].as_ref();
        let serving = Controller::BOTH.into_iter().find(|c| self.serves(*c));
        let lun = serving.and_then(view).and_then(|p| p.core.luns().next());
        lun.expect("a controller serves").owner
    }

    /// Who owns the LUN of that name, as a controller that serves says.
    ///
    /// # Panics
    /// If none serves, or there is no such LUN.
    pub fn owner_of(&self, name: Name) -> Controller {
        let view = |c: Controller| self.world.processes[c.index()].as_ref();
        let serving = Controller::BOTH.into_iter().find(|c| self.serves(*c));
        let mut luns = serving.and_then(view).into_iter().flat_map(|p| p.core.luns());
        luns.find(|l| l.name == name).expect("there is such a LUN").owner
    }

    /// Asks a controller for something, as an operator.
    pub fn manage(&mut self, c: Controller, op: ManageOp) {
        if let ManageOp::LunDelete { name } = op {
            self.world.doom_lun(name);
        }
        self.world.manage_on(c, op);
    }

    // ---- link and disks ----

    /// Cuts the link: what is on it is lost.
    pub fn cut(&mut self) {
        self.world.tell(Controller::A, "the link is cut".into());
        self.world.cut_link(true);
    }

    /// Something happens to a path, or to anything else.
    pub fn fault(&mut self, fault: Fault) {
        self.world.fault(fault);
    }

    /// It is over before its time.
    pub fn heal(&mut self, fault: Fault) {
        self.world.heal(fault);
    }

    /// On how many paths the partner answers `c`, and which carries the messages.
    pub fn paths(&self, c: Controller) -> (usize, Option<usize>) {
        let process = self.world.processes[c.index()].as_ref();
        let paths: Vec<_> = process.map_or(Vec::new(), |p| p.core.paths().collect());
        let works = paths.iter().filter(|p| p.works()).count();
        let active = paths.iter().find(|p| p.state == PathState::Active);
        (works, active.map(|p| p.path))
    }

    /// Each frame that is sent from now on takes so many milliseconds longer.
    pub fn link_takes(&mut self, ms: u64) {
        self.world.wire.delay = ms * MS;
    }

    /// Of the frames with messages that are sent from now on every so many is lost; 0 for none.
    pub fn link_loses_every(&mut self, frames: u64) {
        self.world.wire.loses_every = frames;
    }

    /// How many frames `c` has sent again.
    pub fn resent(&self, c: Controller) -> u64 {
        let process = self.world.processes[c.index()].as_ref();
        process.map_or(0, |p| p.core.link_counts().0)
    }

    /// Mends the link.
    pub fn mend(&mut self) {
        self.world.cut_link(false);
        self.world.maybe_open_link();
    }

    /// Disk writes that are submitted from now on take so many milliseconds longer.
    pub fn disk_writes_take(&mut self, ms: u64) {
        self.world.shelf.write_delay = ms * MS;
    }

    /// Writes of data to a disk that are submitted from now on are so many milliseconds late.
    pub fn writes_are_late(&mut self, disk: usize, ms: u64) {
        self.world.shelf.late_writes = Some((disk, ms * MS));
    }

    /// Flushes of a disk that are submitted from now on are so many milliseconds late.
    pub fn flushes_are_late(&mut self, disk: usize, ms: u64) {
        self.world.shelf.late_flushes = Some((disk, ms * MS));
    }

    /// Reads of a block of the PSEGs of a disk are so many milliseconds late.
    pub fn weaken(&mut self, disk: usize, block: u64, ms: u64) {
        self.world.shelf.weak_block = Some((disk, QUORUM_SPACE_BLOCKS + block, ms * MS));
    }

    /// Hosts give nothing up that they have sent.
    pub fn hosts_are_patient(&mut self) {
        self.world.host_timeout = 3_600_000 * MS;
    }

    /// What a new LUN is to have takes so many milliseconds to be zeroed.
    pub fn zeroes_take(&mut self, ms: u64) {
        self.world.shelf.zero_delay = ms * MS;
    }

    /// Slots take so many milliseconds to be read, and as many to be written.
    pub fn slots_take(&mut self, ms: u64) {
        self.world.shelf.slot_delay = ms * MS;
    }

    /// Disk reads that are submitted from now on take their data at once, and end so many milliseconds later.
    pub fn disk_reads_take(&mut self, ms: u64) {
        self.world.shelf.read_delay = ms * MS;
    }

    /// A disk answers with errors, or does so no more.
    pub fn fail_disk(&mut self, disk: Option<usize>) {
        for (n, of) in self.world.shelf.disks.iter_mut().enumerate() {
            of.trouble.fails = disk == Some(n);
        }
    }

    /// Data cannot be written to a disk, or can again; some land all the same.
    pub fn fail_writes(&mut self, disk: Option<usize>) {
        for (n, of) in self.world.shelf.disks.iter_mut().enumerate() {
            of.trouble.fails_writes = disk == Some(n);
        }
    }

    /// Some blocks of a disk, from one of its PSEGs on, take no writes; or all do again.
    pub fn break_part(&mut self, part: Option<(usize, u64)>) {
        for (n, of) in self.world.shelf.disks.iter_mut().enumerate() {
            let first = part.filter(|(disk, _)| *disk == n).map(|p| QUORUM_SPACE_BLOCKS + p.1);
            of.trouble.bad_region = first.map(|first| first..first + 64);
        }
    }

    /// Flushes of a disk end with errors, or do so no more.
    pub fn fail_flushes(&mut self, disk: Option<usize>) {
        for (n, of) in self.world.shelf.disks.iter_mut().enumerate() {
            of.trouble.fails_flushes = disk == Some(n);
        }
    }

    /// These disks answer nothing from now on; of the others all that was asked for is done.
    pub fn stall_disks(&mut self, disks: &[usize]) {
        for (n, of) in self.world.shelf.disks.iter_mut().enumerate() {
            of.trouble.stalled_until = if disks.contains(&n) { u64::MAX } else { 0 };
        }
        self.world.release_held();
    }

    /// So many milliseconds it takes until a disk says that it cannot read a block.
    pub fn bad_blocks_take(&mut self, ms: u64) {
        self.world.shelf.bad_blocks_take = ms * MS;
    }

    /// Blocks of a PSEG, the first of a disk, cannot be read until they are written anew.
    pub fn spoil(&mut self, disk: usize, block: u64, blocks: u64) {
        self.world.shelf.disks[disk].spoil(QUORUM_SPACE_BLOCKS + block, blocks);
    }

    /// The same for one disk, of which nothing is stalled any more; but writes that are overdue land so many milliseconds later.
    pub fn unstall_disk(&mut self, disk: usize, late: u64) {
        let trouble = &mut self.world.shelf.disks[disk].trouble;
        (trouble.stalled_until, trouble.late) = (self.world.now, late * MS);
        self.world.release_held();
        self.world.heal_after(late, Fault::StallDisk(disk, late));
    }

    /// An empty medium takes the place of a disk, and an operator tells `c` so.
    pub fn replace_disk(&mut self, c: Controller, disk: usize) {
        let uuid = Uuid(500 + disk as u128);
        self.world.shelf.disks[disk] = SimDisk::empty(uuid);
        let (disk, psegs) = (DiskIndex(disk as u16), 16);
        self.manage(c, ManageOp::DiskReplace { disk, uuid, psegs });
    }

    /// The state of a disk in the metadata as `c` knows them.
    ///
    /// # Panics
    /// If `c` does not run, or has not read them.
    pub fn disk_state(&self, c: Controller, disk: usize) -> DiskState {
        let process = self.world.processes[c.index()].as_ref();
        let metadata = process.and_then(|p| p.core.metadata());
        metadata.expect("the metadata were read").disks[disk].state
    }

    /// Waits until a disk is of this state in the metadata as `c` knows them.
    pub fn until_disk(&mut self, c: Controller, disk: usize, state: DiskState) {
        let what = format!("disk {disk} being {state:?} for {c}");
        self.wait(&what, |s| s.disk_state(c, disk) == state);
    }

    /// From now on these disks, and no others, answer with errors.
    pub fn fail_disks(&mut self, disks: &[usize]) {
        for (n, of) in self.world.shelf.disks.iter_mut().enumerate() {
            of.trouble.fails = disks.contains(&n);
        }
    }

    /// From now on slots cannot be written to these disks, and no others; they can be read.
    pub fn fail_slot_writes(&mut self, disks: &[usize]) {
        for (n, disk) in self.world.shelf.disks.iter_mut().enumerate() {
            disk.trouble.fails_slots = disks.contains(&n);
        }
    }

    /// Both processes end, and the disks lose all that was not flushed.
    pub fn power_loss(&mut self) {
        self.world.fault(Fault::PowerLoss);
    }

    // ---- hosts ----

    /// A host writes through `path`, its data with the command.
    pub fn write(&mut self, path: Controller, start: u64, blocks: u32) -> Sent {
        self.send(path, HostOp::Write { fua: false }, start, blocks, Some(blocks))
    }

    /// The same, without the data: the controller has to ask for them.
    pub fn write_long(&mut self, path: Controller, start: u64, blocks: u32) -> Sent {
        self.send(path, HostOp::Write { fua: false }, start, blocks, Some(0))
    }

    /// The same, with status only when the data are on disk.
    pub fn write_fua(&mut self, path: Controller, start: u64, blocks: u32) -> Sent {
        self.send(path, HostOp::Write { fua: true }, start, blocks, Some(blocks))
    }

    /// Waits until everything that was acknowledged is on disk.
    pub fn sync(&mut self, path: Controller) -> Sent {
        self.send(path, HostOp::Sync, 0, 0, None)
    }

    /// A host reads through `path`.
    pub fn read(&mut self, path: Controller, start: u64, blocks: u32) -> Sent {
        self.send(path, HostOp::Read, start, blocks, None)
    }

    /// Commands from now on are for LUN `lun`, by the order in which hosts have found the LUNs; 0 and 1 are there from the
    /// beginning.
    pub fn use_lun(&mut self, lun: usize) {
        self.lun = lun;
    }

    /// Data that controllers ask for from now on come so many milliseconds later.
    pub fn host_data_takes(&mut self, ms: u64) {
        self.world.fetch_delay = ms * MS;
    }

    /// The host withdraws a command.
    pub fn withdraw(&mut self, sent: Sent) {
        let attempt = self.world.commands[sent.0].attempt;
        self.world.withdraw(attempt);
    }

    /// From now on the host tries a command again, through the other path first, when its path fails.
    pub fn retries(&mut self, sent: Sent) {
        self.world.commands[sent.0].once = false;
    }

    fn send(&mut self, path: Controller, op: HostOp, start: u64, blocks: u32, in_hand: Option<u32>) -> Sent {
        let world = &mut self.world;
        let at = world.commands.len();
        let tag = at as u64 + 1;
        let command = Command {
            once: true,
            in_hand,
            ..Command::new(at % HOSTS, self.lun, op, start, blocks, tag, world.number)
        };
        Sent(world.issue(command, path.index()))
    }

    /// Whether a command was answered with "good".
    pub fn is_good(&self, sent: Sent) -> bool {
        self.world.commands[sent.0].status == Some(Status::Good)
    }

    /// Whether a command was answered, however.
    pub fn is_over(&self, sent: Sent) -> bool {
        self.world.commands[sent.0].status.is_some()
    }

    /// Whether a command was answered with a read error.
    pub fn is_read_error(&self, sent: Sent) -> bool {
        self.world.commands[sent.0].status == Some(Status::ReadError)
    }

    /// Whether a command was answered with a write error.
    pub fn is_write_error(&self, sent: Sent) -> bool {
        self.world.commands[sent.0].status == Some(Status::WriteError)
    }

    /// Waits until a command is answered with "good".
    pub fn good(&mut self, sent: Sent) {
        let what = format!("a good end of {:?}", self.world.commands[sent.0]);
        self.wait(&what, |s| s.is_good(sent));
    }

    /// Writes, and waits for the end.
    pub fn written(&mut self, path: Controller, start: u64, blocks: u32) -> Sent {
        let sent = self.write(path, start, blocks);
        self.good(sent);
        sent
    }

    /// Reads, and expects the data of `write` in every block.
    pub fn reads(&mut self, path: Controller, start: u64, blocks: u32, write: Sent) {
        let sent = self.read(path, start, blocks);
        self.good(sent);
        let (data, tag) = (&self.world.commands[sent.0].data, self.world.commands[write.0].tag);
        if data.iter().any(|d| tag_of(*d) != tag) {
            self.panic(&format!("a read through {path} returns {data:?}, not {tag}"));
        }
    }

    // ---- time ----

    /// Milliseconds since some moment in the past.
    pub fn now(&self) -> u64 {
        self.world.now / MS
    }

    /// Waits until a line of the story that the script has not seen yet has `text`; what is after it is not seen.
    pub fn until(&mut self, text: &str) {
        self.wait(&format!("{text:?} in the story"), |s| s.look_for(text));
    }

    fn look_for(&mut self, text: &str) -> bool {
        let story = self.lines();
        let found = story[self.seen..].iter().position(|l| l.contains(text));
        self.seen = found.map_or(story.len(), |at| self.seen + at + 1);
        found.is_some()
    }

    /// Waits until both serve under a record that says `BOTH`.
    pub fn until_both_serve(&mut self) {
        self.wait("both controllers serving", |s| s.world.is_well());
        self.seen = self.lines().len();
    }

    /// Waits until `c` serves under a record that says so of it alone; `dirty` as given.
    pub fn until_alone(&mut self, c: Controller, dirty: bool) {
        let alone = Mode::Alone { controller: c, dirty };
        let what = format!("{c} serving under {alone:?}");
        self.wait(&what, |s| s.serves(c) && s.mode(c) == Some(alone));
    }

    /// Lets so many milliseconds pass.
    pub fn pass(&mut self, ms: u64) {
        let end = self.world.now + ms * MS;
        while self.world.queue.next_at().is_some_and(|at| at <= end) {
            self.advance();
        }
        self.world.now = end;
    }

    fn wait(&mut self, what: &str, mut is_there: impl FnMut(&mut Scenario) -> bool) {
        let limit = self.world.now + PATIENCE;
        while !is_there(self) {
            if self.world.now > limit || !self.advance() {
                self.panic(&format!("waited for {what}: {}", self.world.state()));
            }
        }
    }

    fn advance(&mut self) -> bool {
        match self.world.advance() {
            Ok(more) => more,
            Err(what) => self.panic(&what),
        }
    }

    /// The end: all faults are healed, everything must become well, what is on all LUNs is read back through both
    /// controllers, and all must come to rest.
    pub fn end(mut self) {
        if let Err(what) = self.world.end_well() {
            self.panic(&what);
        }
    }

    // ---- the story ----

    /// The story that `story` tells begins here.
    pub fn mark(&mut self) {
        self.mark = self.lines().len();
        self.seen = self.mark;
    }

    /// What has happened since `mark`, one line for each event and effect that matters.
    pub fn story(&self) -> String {
        self.lines()[self.mark..].iter().map(|l| format!("{l}\n")).collect()
    }

    /// Whether a line of the whole story has `text`.
    pub fn tells(&self, text: &str) -> bool {
        self.lines().iter().any(|l| l.contains(text))
    }

    fn lines(&self) -> &[String] {
        self.world.story.as_deref().expect("a scenario has a story")
    }

    fn panic(&self, what: &str) -> ! {
        panic!("{what}\n--- the story\n{}", self.story());
    }
}
