//! Disk I/O in flight. Each is a short list of steps, one posted at a time.

use crate::clock;
use crate::complaints::Complaints;
use crate::disk::Disk;
use crate::failures::Asked;
use crate::memory::{Pages, Piece};
use crate::ring::{Ring, Token};
use io_uring::{opcode, squeue, types};
use slab::Slab;
use std::io;
use std::mem;
use tracing::warn;
use twincell_core::cell::quorum::Slots;
use twincell_core::cell::record::Slot;
use twincell_core::event::{DiskError, Event};
use twincell_core::ids::{BLOCK_BYTES, Controller, DiskIndex, IoId, Nanos, Time, Uuid};
use twincell_core::layout::metadata::Metadata;
use twincell_wire::label::{self, LABEL_BYTES};
use twincell_wire::layout::{
    LABEL_OFFSETS, METADATA_AREA_BYTES, METADATA_OFFSETS, PAGE_BYTES, SLOT_OFFSETS, slot_offsets,
};
use twincell_wire::{metadata, slot};

/// A step of an I/O that takes longer is overdue.
const OVERDUE: Nanos = Nanos::from_millis(1000);
/// The same of one that zeroes: a medium may do that slowly.
const ZERO_OVERDUE: Nanos = Nanos::from_millis(30_000);
/// Whoever looks later than planned by this much has stood still, and with it what answers for the disks: a process that
/// was stopped, or a machine that was. The disks get this much again to be heard.
const STOOD_STILL: Nanos = Nanos::from_millis(200);
/// A write of this much is handed to a thread of the kernel: to post it takes longer than to wake that thread, and this
/// one has hosts to serve.
const LARGE_BYTES: usize = 64 << 10;
/// Zeroes that are written at a time where the medium cannot zero by itself.
const ZEROES_BYTES: usize = 1 << 20;

/// What an I/O is for.
#[derive(Debug)]
enum Kind {
    Read,
    Write,
    Flush,
    /// From this byte, this many; what is not zero yet.
    Zero {
        from: u64,
        bytes: u64,
        /// The medium zeroes by itself, as far as is known.
        punch: bool,
    },
    /// Which of the four pages could not be read.
    SlotRead {
        unreadable: [bool; 4],
    },
    SlotWrite {
        controller: Controller,
    },
    MetadataRead,
    MetadataWrite,
    /// A look at both copies of the label, which have to name this disk.
    Probe {
        uuid: Uuid,
    },
}

/// One thing for the kernel to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Fill the rest of the iovecs.
    Read,
    /// Write the rest of the iovecs.
    Write,
    /// Make durable.
    Flush,
    /// Zero what is left of a `Zero`.
    Punch,
}

/// An I/O in flight.
struct Io {
    id: IoId,
    disk: DiskIndex,
    kind: Kind,
    /// How many steps are done.
    done: usize,
    /// Memory of the current step, where it was not yet moved.
    iovecs: Vec<libc::iovec>,
    moved: usize,
    /// Byte of the disk where the rest of the current step is.
    offset: u64,
    /// Memory of its own.
    pages: Option<Pages>,
    /// When the current step was posted.
    posted: Time,
    /// The current step takes too long.
    overdue: bool,
    /// It was answered with an error before it ended.
    answered: bool,
    /// Another flush of its disk has failed: what it has written may be lost, though its own flush ends well.
    void: bool,
}

impl Io {
    /// Whether the core goes on by itself when this is overdue, and keeps the memory that is posted, or the place that is written,
    /// from being used again until the answer. All else is answered with an error.
    fn is_known_until_it_ends(&self) -> bool {
        matches!(
            self.kind,
            Kind::Read | Kind::Write | Kind::Flush | Kind::Zero { .. } | Kind::MetadataWrite
        )
    }

    /// Whether it writes, and makes that durable before it ends.
    fn flushes_itself(&self) -> bool {
        matches!(
            self.kind,
            Kind::Zero { .. } | Kind::SlotWrite { .. } | Kind::MetadataWrite
        )
    }

    /// When the current step is overdue.
    fn due(&self) -> Time {
        let patience = match self.kind {
            Kind::Zero { .. } => ZERO_OVERDUE,
            _ => OVERDUE,
        };
        self.posted + patience
    }

    /// The step after those that are done.
    fn step(&self) -> Option<Step> {
        match (&self.kind, self.done) {
            (Kind::Read | Kind::MetadataRead, 0) | (Kind::SlotRead { .. }, 0..4) => Some(Step::Read),
            (Kind::Probe { .. }, 0..2) => Some(Step::Read),
            (Kind::Write | Kind::MetadataWrite, 0) | (Kind::SlotWrite { .. }, 0 | 2) => Some(Step::Write),
            // The second copy is written when the first is durable: at no instant are both in doubt.
            (Kind::Flush, 0) | (Kind::MetadataWrite, 1) | (Kind::SlotWrite { .. }, 1 | 3) => Some(Step::Flush),
            (Kind::Zero { punch: true, .. }, 0) => Some(Step::Punch),
            (Kind::Zero { punch: false, .. }, 0) => Some(Step::Write),
            (Kind::Zero { .. }, 1) => Some(Step::Flush),
            _ => None,
        }
    }

    /// Sets up memory and offset for the next step, where it moves bytes.
    fn prepare(&mut self) {
        let page = self.pages.as_ref().map(Pages::as_ptr);
        let one = |start: *mut u8, bytes: usize| libc::iovec {
            iov_base: start.cast(),
            iov_len: bytes,
        };
        let (iovec, offset) = match (&self.kind, self.done, page) {
            (Kind::SlotRead { .. }, n @ 0..4, Some(page)) => {
                // SAFETY: the memory of a slot read has four pages.
                let page = unsafe { page.add(n * PAGE_BYTES) };
                (one(page, PAGE_BYTES), SLOT_OFFSETS[n / 2][n % 2])
            }
            (Kind::Probe { .. }, n @ 0..2, Some(page)) => {
                // SAFETY: the memory of a probe has two labels.
                let label = unsafe { page.add(n * LABEL_BYTES) };
                (one(label, LABEL_BYTES), LABEL_OFFSETS[n])
            }
            (Kind::SlotWrite { controller }, n @ (0 | 2), Some(page)) => {
                (one(page, PAGE_BYTES), slot_offsets(*controller)[n / 2])
            }
            (
                Kind::Zero {
                    from,
                    bytes,
                    punch: false,
                },
                0,
                Some(page),
            ) => (one(page, (*bytes).min(ZEROES_BYTES as u64) as usize), *from),
            _ => return,
        };
        self.iovecs.clear();
        self.iovecs.push(iovec);
        self.moved = 0;
        self.offset = offset;
    }

    fn entry(&self, fd: types::Fd) -> Option<squeue::Entry> {
        let iovecs = &self.iovecs[self.moved..];
        let (start, count) = (iovecs.as_ptr(), iovecs.len() as u32);
        Some(match self.step()? {
            Step::Read => opcode::Readv::new(fd, start, count).offset(self.offset).build(),
            Step::Write => {
                let bytes: usize = iovecs.iter().map(|iovec| iovec.iov_len).sum();
                let flags = if bytes >= LARGE_BYTES {
                    squeue::Flags::ASYNC
                } else {
                    squeue::Flags::empty()
                };
                opcode::Writev::new(fd, start, count)
                    .offset(self.offset)
                    .build()
                    .flags(flags)
            }
            Step::Flush => opcode::Fsync::new(fd).flags(types::FsyncFlags::DATASYNC).build(),
            Step::Punch => {
                let Kind::Zero { from, bytes, .. } = self.kind else {
                    return None;
                };
                let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
                opcode::Fallocate::new(fd, bytes).offset(from).mode(mode).build()
            }
        })
    }

    /// Takes in how the current step ended; an error ends the whole.
    fn advance(&mut self, result: i32) -> io::Result<()> {
        if matches!(result.checked_neg(), Some(libc::EINTR | libc::EAGAIN)) {
            return Ok(());
        }
        let ended = match self.step() {
            Some(Step::Read | Step::Write) => self.move_on(result),
            _ => check(result).map(|_| true),
        };
        match (ended, &mut self.kind) {
            (Ok(false), _) => {}
            (
                Ok(true),
                Kind::Zero {
                    from,
                    bytes,
                    punch: false,
                },
            ) if self.done == 0 => {
                let written = (*bytes).min(ZEROES_BYTES as u64);
                *from += written;
                *bytes -= written;
                self.done += usize::from(*bytes == 0);
                self.prepare();
            }
            (Ok(true), _) => self.next(),
            (Err(_), Kind::SlotRead { unreadable }) => {
                unreadable[self.done] = true;
                self.next();
            }
            (
                Err(e),
                Kind::Zero {
                    punch: punch @ true, ..
                },
            ) if self.done == 0 && matches!(e.raw_os_error(), Some(libc::EOPNOTSUPP | libc::ENOSYS)) => {
                *punch = false;
                self.pages = Some(Pages::new(ZEROES_BYTES));
                self.prepare();
            }
            (Err(e), _) => return Err(e),
        }
        Ok(())
    }

    fn next(&mut self) {
        self.done += 1;
        self.prepare();
    }

    /// Whether all bytes of the current step are moved, `result` more of them being so now.
    fn move_on(&mut self, result: i32) -> io::Result<bool> {
        let mut bytes = check(result)?;
        if bytes == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.offset += bytes as u64;
        while let Some(iovec) = self.iovecs.get_mut(self.moved) {
            if bytes < iovec.iov_len {
                // SAFETY: stays inside the memory of this iovec.
                iovec.iov_base = unsafe { iovec.iov_base.add(bytes) };
                iovec.iov_len -= bytes;
                return Ok(false);
            }
            bytes -= iovec.iov_len;
            self.moved += 1;
        }
        Ok(true)
    }

    /// How it ended.
    fn ended(&self, result: io::Result<()>, cell: Uuid) -> Ended {
        let io = self.id;
        let result = result.map_err(|_| DiskError);
        match (&self.kind, &self.pages) {
            (Kind::SlotRead { unreadable }, Some(pages)) => {
                let slots = result.and_then(|()| slots(pages.bytes(), unreadable, cell));
                let result = slots.map(|_| ());
                Ended {
                    event: Event::SlotRead { io, result },
                    slots: slots.ok(),
                }
            }
            (Kind::MetadataRead, Some(pages)) => Ended::without_slots(Event::MetadataRead {
                io,
                metadata: result.and_then(|()| decode_metadata(pages.bytes(), cell, self.disk)),
            }),
            (Kind::Probe { uuid }, Some(pages)) => {
                let result = result.and_then(|()| check_labels(pages.bytes(), cell, *uuid));
                Ended::without_slots(Event::DiskDone { io, result })
            }
            _ => Ended::without_slots(Event::DiskDone { io, result }),
        }
    }
}

/// Whether both labels are good, and say that this is disk `uuid` of `cell`.
fn check_labels(labels: &[u8], cell: Uuid, uuid: Uuid) -> Result<(), DiskError> {
    let names = |bytes: &[u8; LABEL_BYTES]| match label::decode(bytes) {
        Ok(label) if label.cell == cell && label.disk == uuid => true,
        Ok(label) => {
            warn!(is = %label.disk, wanted = %uuid, "a disk answers that is another one");
            false
        }
        Err(e) => {
            warn!("a disk answers whose label cannot be used: {e}");
            false
        }
    };
    let good = labels
        .chunks(LABEL_BYTES)
        .all(|bytes| bytes.try_into().is_ok_and(names));
    if good { Ok(()) } else { Err(DiskError) }
}

/// How an I/O ended.
pub(crate) struct Ended {
    /// What the core is told.
    pub event: Event,
    /// What a read of slots found: put where the core wants it before it is told.
    pub slots: Option<Slots>,
}

impl Ended {
    fn without_slots(event: Event) -> Ended {
        Ended { event, slots: None }
    }
}

fn check(result: i32) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::from_raw_os_error(-result))
}

/// The slots of both controllers. A controller whose slot was written once and has no good copy now makes the whole
/// disk bad: what it had promised there is not known.
fn slots(pages: &[u8], unreadable: &[bool; 4], cell: Uuid) -> Result<Slots, DiskError> {
    let copy = |n: usize| {
        let sector = pages[n * PAGE_BYTES..]
            .first_chunk()
            .expect("a page is longer than a slot");
        if unreadable[n] {
            Err(None)
        } else {
            slot::decode(sector, cell).map_err(Some)
        }
    };
    let of = |controller: Controller| {
        let first = controller.index() * 2;
        match (copy(first), copy(first + 1)) {
            (Ok(a), Ok(b)) => Ok(Some(if age(&b) > age(&a) { b } else { a })),
            (Ok(slot), Err(_)) | (Err(_), Ok(slot)) => Ok(Some(slot)),
            (Err(Some(twincell_wire::Error::Blank { .. })), Err(Some(twincell_wire::Error::Blank { .. }))) => Ok(None),
            (Err(a), Err(b)) => {
                warn!(%controller, first = ?a, second = ?b, "neither copy of a slot is good");
                Err(DiskError)
            }
        }
    };
    let [a, b] = Controller::BOTH.map(of);
    match (a?, b?) {
        (Some(slot), _) if slot.controller != Controller::A => Err(DiskError),
        (_, Some(slot)) if slot.controller != Controller::B => Err(DiskError),
        slots => Ok(slots.into()),
    }
}

/// What only grows from one write of a slot to the next.
fn age(slot: &Slot) -> impl Ord {
    (slot.record.epoch, slot.begun, slot.voted, slot.heartbeat)
}

fn decode_metadata(area: &[u8], cell: Uuid, disk: DiskIndex) -> Result<Box<Metadata>, DiskError> {
    metadata::decode(area, cell).map(Box::new).map_err(|e| {
        warn!(%disk, "a copy of the metadata cannot be used: {e}");
        DiskError
    })
}

/// All disk I/O in flight.
pub(crate) struct DiskIos {
    cell: Uuid,
    controller: Controller,
    ios: Slab<Io>,
    /// Used again, so that a read or write allocates nothing.
    spare: Vec<Vec<libc::iovec>>,
    /// No further step is begun.
    stopped: bool,
    /// How many are overdue.
    overdue: usize,
    /// When to look for what is overdue.
    look_at: Option<Time>,
    /// The disk of which a flush has failed that was not the core's own, until it is told.
    failed_flush: Option<DiskIndex>,
    complaints: Complaints,
}

// SAFETY: what the iovecs point to belongs to the process, not to a thread: NV memory, transfer buffers and pages
// of the I/O itself, all of which move with the engine.
unsafe impl Send for DiskIos {}

impl DiskIos {
    pub(crate) fn new(cell: Uuid, controller: Controller) -> DiskIos {
        DiskIos {
            cell,
            controller,
            ios: Slab::new(),
            spare: Vec::new(),
            stopped: false,
            overdue: 0,
            look_at: None,
            failed_flush: None,
            complaints: Complaints::default(),
        }
    }

    /// Whether something on this disk takes too long. Until it ends nothing else may be begun there: it could be
    /// carried out after what is begun later, and undo it.
    pub(crate) fn is_overdue(&self, disk: DiskIndex) -> bool {
        self.overdue > 0 && self.ios.iter().any(|(_, io)| io.overdue && io.disk == disk)
    }

    /// Whether anything is in flight on this disk.
    pub(crate) fn is_busy(&self, disk: DiskIndex) -> bool {
        self.ios.iter().any(|(_, io)| io.disk == disk)
    }

    /// Whether this I/O is a look at what disk it is.
    pub(crate) fn is_probe(&self, key: u32) -> bool {
        matches!(self.ios[key as usize].kind, Kind::Probe { .. })
    }

    /// What this I/O asks of its disk.
    pub(crate) fn asked(&self, key: u32) -> Asked {
        match self.ios[key as usize].kind {
            Kind::Read | Kind::SlotRead { .. } | Kind::MetadataRead | Kind::Probe { .. } => Asked::Read,
            Kind::Write | Kind::Flush | Kind::Zero { .. } | Kind::SlotWrite { .. } | Kind::MetadataWrite => {
                Asked::Write
            }
        }
    }

    /// When the oldest step in flight was posted.
    pub(crate) fn oldest(&self) -> Option<Time> {
        self.ios.iter().map(|(_, io)| io.posted).min()
    }

    /// When to poll next.
    pub(crate) fn next_deadline(&self) -> Option<Time> {
        self.look_at
    }

    /// Tells of what is overdue. What is on memory of the I/O itself is answered with an error, and its memory stays until
    /// it really ends.
    pub(crate) fn poll(&mut self, now: Time, mut tell: impl FnMut(Event)) {
        let Some(planned) = self.look_at.filter(|at| *at <= now) else {
            return;
        };
        if now.since(planned) >= STOOD_STILL {
            self.look_at = Some(now + STOOD_STILL);
            return;
        }
        for (_, io) in self.ios.iter_mut().filter(|(_, io)| !io.overdue && io.due() <= now) {
            if let Some(untold) = self.complaints.tell(io.disk, now) {
                warn!(disk = %io.disk, io = ?io.kind, untold, "a disk does not answer");
            }
            io.overdue = true;
            self.overdue += 1;
            io.answered = !io.is_known_until_it_ends();
            tell(if io.answered {
                io.ended(Err(io::ErrorKind::TimedOut.into()), self.cell).event
            } else {
                Event::DiskOverdue { io: io.id }
            });
        }
        let waiting = self.ios.iter().filter(|(_, io)| !io.overdue);
        self.look_at = waiting.map(|(_, io)| io.due()).min();
    }

    /// Lets what is posted end, and begins no further step: as a crash would.
    pub(crate) fn stop(&mut self) {
        self.stopped = true;
    }

    /// Reads into `pieces`, which stay valid and untouched until the answer.
    pub(crate) fn read(
        &mut self,
        ring: &mut Ring,
        disk: (DiskIndex, &Disk),
        io: IoId,
        block: u64,
        pieces: impl Iterator<Item = Piece>,
    ) {
        self.move_pieces(ring, disk, io, Kind::Read, block, pieces);
    }

    /// Writes `pieces`, which stay valid and unchanged until the answer.
    pub(crate) fn write(
        &mut self,
        ring: &mut Ring,
        disk: (DiskIndex, &Disk),
        io: IoId,
        block: u64,
        pieces: impl Iterator<Item = Piece>,
    ) {
        self.move_pieces(ring, disk, io, Kind::Write, block, pieces);
    }

    fn move_pieces(
        &mut self,
        ring: &mut Ring,
        disk: (DiskIndex, &Disk),
        io: IoId,
        kind: Kind,
        block: u64,
        pieces: impl Iterator<Item = Piece>,
    ) {
        let mut iovecs = self.spare.pop().unwrap_or_default();
        iovecs.extend(pieces.map(Piece::iovec));
        self.start(ring, disk, io, kind, block * BLOCK_BYTES as u64, iovecs, None);
    }

    /// Makes durable what is written.
    pub(crate) fn flush(&mut self, ring: &mut Ring, disk: (DiskIndex, &Disk), io: IoId) {
        self.start(ring, disk, io, Kind::Flush, 0, Vec::new(), None);
    }

    /// Makes blocks zero, durably.
    pub(crate) fn zero(&mut self, ring: &mut Ring, disk: (DiskIndex, &Disk), io: IoId, block: u64, blocks: u64) {
        let kind = Kind::Zero {
            from: block * BLOCK_BYTES as u64,
            bytes: blocks * BLOCK_BYTES as u64,
            punch: true,
        };
        self.start(ring, disk, io, kind, 0, Vec::new(), None);
    }

    /// Reads the slots of both controllers.
    pub(crate) fn read_slots(&mut self, ring: &mut Ring, disk: (DiskIndex, &Disk), io: IoId) {
        let kind = Kind::SlotRead { unreadable: [false; 4] };
        self.start(ring, disk, io, kind, 0, Vec::new(), Some(Pages::new(4 * PAGE_BYTES)));
    }

    /// Writes this controller's own slot.
    pub(crate) fn write_slot(&mut self, ring: &mut Ring, disk: (DiskIndex, &Disk), io: IoId, slot: &Slot) {
        let controller = self.controller;
        let mut pages = Pages::new(PAGE_BYTES);
        let sector = slot::encode(slot, self.cell);
        pages.bytes_mut()[..sector.len()].copy_from_slice(&sector);
        self.start(
            ring,
            disk,
            io,
            Kind::SlotWrite { controller },
            0,
            Vec::new(),
            Some(pages),
        );
    }

    /// Looks whether this is disk `uuid`.
    pub(crate) fn probe(&mut self, ring: &mut Ring, disk: (DiskIndex, &Disk), io: IoId, uuid: Uuid) {
        let pages = Pages::new(2 * LABEL_BYTES);
        self.start(ring, disk, io, Kind::Probe { uuid }, 0, Vec::new(), Some(pages));
    }

    /// Reads a copy of the metadata.
    pub(crate) fn read_metadata(&mut self, ring: &mut Ring, disk: (DiskIndex, &Disk), io: IoId, copy: u8) {
        let pages = Pages::new(METADATA_AREA_BYTES);
        self.move_own(ring, disk, io, Kind::MetadataRead, copy, pages);
    }

    /// Writes a copy of the metadata. Not even begun where they do not fit their area.
    pub(crate) fn write_metadata(
        &mut self,
        ring: &mut Ring,
        disk: (DiskIndex, &Disk),
        io: IoId,
        copy: u8,
        metadata: &Metadata,
    ) -> Result<(), twincell_wire::Error> {
        let bytes = metadata::encode(metadata, self.cell)?;
        let mut pages = Pages::new(bytes.len().next_multiple_of(PAGE_BYTES));
        pages.bytes_mut()[..bytes.len()].copy_from_slice(&bytes);
        self.move_own(ring, disk, io, Kind::MetadataWrite, copy, pages);
        Ok(())
    }

    fn move_own(&mut self, ring: &mut Ring, disk: (DiskIndex, &Disk), io: IoId, kind: Kind, copy: u8, pages: Pages) {
        let iovec = libc::iovec {
            iov_base: pages.as_ptr().cast(),
            iov_len: pages.len(),
        };
        let offset = METADATA_OFFSETS[usize::from(copy)];
        self.start(ring, disk, io, kind, offset, vec![iovec], Some(pages));
    }

    #[allow(clippy::too_many_arguments, reason = "an I/O is all of these")]
    fn start(
        &mut self,
        ring: &mut Ring,
        (index, disk): (DiskIndex, &Disk),
        id: IoId,
        kind: Kind,
        offset: u64,
        iovecs: Vec<libc::iovec>,
        pages: Option<Pages>,
    ) {
        let mut io = Io {
            id,
            disk: index,
            kind,
            done: 0,
            iovecs,
            moved: 0,
            offset,
            pages,
            posted: Time(0),
            overdue: false,
            answered: false,
            void: false,
        };
        io.prepare();
        let key = self.ios.insert(io);
        self.post(ring, key, disk);
    }

    /// Posts the current step; whether there is one.
    fn post(&mut self, ring: &mut Ring, key: usize, disk: &Disk) -> bool {
        let Some(entry) = self.ios[key].entry(types::Fd(disk.fd())) else {
            return false;
        };
        // SAFETY: the iovecs are on the heap and change only when the completion is popped. What they point to is
        // either `pages`, which lives as long as the I/O, or memory of which the caller of `read` and `write`
        // promised that it is valid and used by nobody else. `drop` leaks all of it otherwise.
        unsafe { ring.post(Token::Disk(key as u32), entry) };
        let now = clock::now();
        self.ios[key].posted = now;
        let due = self.ios[key].due();
        self.look_at = Some(self.look_at.map_or(due, |at| at.min(due)));
        true
    }

    /// The disk of an I/O in flight.
    pub(crate) fn disk_of(&self, key: u32) -> DiskIndex {
        self.ios[key as usize].disk
    }

    /// The completion of a step: the event, if it was the last and there was none yet.
    pub(crate) fn completed(&mut self, ring: &mut Ring, key: u32, disk: &Disk, result: i32) -> Option<Ended> {
        let key = key as usize;
        let io = &mut self.ios[key];
        let flushes = io.step() == Some(Step::Flush);
        let mut ended = io.advance(result);
        if flushes && ended.is_err() {
            let (disk, alone) = (io.disk, matches!(io.kind, Kind::Flush));
            self.flush_fails(disk, alone);
        }
        let io = &mut self.ios[key];
        if mem::take(&mut io.void) {
            ended = Err(io::ErrorKind::WriteZero.into());
        }
        if mem::take(&mut io.overdue) {
            if let Some(untold) = self.complaints.tell(io.disk, clock::now()) {
                warn!(disk = %disk.path.display(), io = ?io.kind, untold, "a disk answers after all");
            }
            self.overdue -= 1;
            if matches!(io.kind, Kind::Zero { .. } | Kind::MetadataWrite) {
                // The core has given it up: what is left of the place may be somebody else's soon.
                ended = Err(io::ErrorKind::TimedOut.into());
            }
        }
        if ended.is_ok() && !self.stopped && !io.answered && self.post(ring, key, disk) {
            return None;
        }
        let mut io = self.ios.remove(key);
        if io.answered {
            return None;
        }
        if let Err(e) = &ended
            && let Some(untold) = self.complaints.tell(io.disk, clock::now())
        {
            let path = disk.path.display();
            warn!(disk = %path, io = ?io.kind, offset = io.offset, untold, "a disk I/O failed: {e}");
        }
        let ended = io.ended(ended, self.cell);
        io.iovecs.clear();
        if io.iovecs.capacity() > 1 {
            self.spare.push(mem::take(&mut io.iovecs));
        }
        Some(ended)
    }

    /// A flush has failed. What others have written to this disk, and are to flush yet, may be lost with it; and what the core has,
    /// of which it hears where it was not its own flush.
    fn flush_fails(&mut self, disk: DiskIndex, is_of_core: bool) {
        let others = self.ios.iter_mut().map(|(_, io)| io);
        // What was posted may have been taken by the disk before it failed, though nobody has heard of that yet.
        let written = |io: &&mut Io| io.disk == disk && io.flushes_itself();
        others.filter(written).for_each(|io| io.void = true);
        if !is_of_core {
            self.failed_flush = Some(disk);
        }
    }

    /// The disk of which a flush has just failed that was not the core's own.
    pub(crate) fn take_failed_flush(&mut self) -> Option<DiskIndex> {
        self.failed_flush.take()
    }

    /// Whether nothing is in flight.
    pub(crate) fn is_reaped(&self) -> bool {
        self.ios.is_empty()
    }
}

impl Drop for DiskIos {
    fn drop(&mut self) {
        if !self.is_reaped() {
            mem::forget(mem::take(&mut self.ios));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::open_all;
    use crate::testing::{TempDir, settings_with_disks};
    use std::fs::OpenOptions;
    use std::os::unix::fs::FileExt;
    use std::time::Duration;
    use twincell_core::cell::record::{Mode, Record};
    use twincell_core::ids::{Epoch, ProcessId};

    const IO: IoId = IoId {
        index: 3,
        generation: 4,
    };

    /// A cell of one disk.
    struct World {
        _dir: TempDir,
        ring: Ring,
        ios: DiskIos,
        disk: Disk,
    }

    impl World {
        fn new() -> World {
            let dir = TempDir::on_disk("disk-io");
            let settings = settings_with_disks(&dir, Controller::B, 1);
            let ring = Ring::new().expect("a ring");
            ring.enable().expect("enabled");
            World {
                ring,
                ios: DiskIos::new(settings.cell, Controller::B),
                disk: open_all(&settings).expect("the disks").remove(0).expect("the disk"),
                _dir: dir,
            }
        }

        fn run(&mut self, start: impl FnOnce(&mut DiskIos, &mut Ring, (DiskIndex, &Disk))) -> Event {
            self.run_to_end(start).event
        }

        fn run_to_end(&mut self, start: impl FnOnce(&mut DiskIos, &mut Ring, (DiskIndex, &Disk))) -> Ended {
            start(&mut self.ios, &mut self.ring, (DiskIndex(0), &self.disk));
            let mut completions = Vec::new();
            loop {
                self.ring
                    .submit_and_wait(Some(Duration::from_secs(10)))
                    .expect("submitted");
                self.ring.reap(&mut completions);
                assert!(!completions.is_empty(), "waited 10 s for the disk");
                for completion in completions.drain(..) {
                    let Token::Disk(key) = completion.token else {
                        panic!("{completion:?} was never posted")
                    };
                    if let Some(ended) = self.ios.completed(&mut self.ring, key, &self.disk, completion.result) {
                        assert!(self.ios.is_reaped());
                        return ended;
                    }
                }
            }
        }

        fn slots(&mut self) -> Result<Slots, DiskError> {
            let ended = self.run_to_end(|ios, ring, disk| ios.read_slots(ring, disk, IO));
            match ended.event {
                Event::SlotRead { io: IO, result } => result.map(|()| ended.slots.expect("what was found")),
                other => panic!("{other:?} answers a read of slots"),
            }
        }

        fn write_slot(&mut self, slot: &Slot) {
            let event = self.run(|ios, ring, disk| ios.write_slot(ring, disk, IO, slot));
            assert_eq!(event, Event::DiskDone { io: IO, result: Ok(()) });
        }

        fn metadata(&mut self, copy: u8) -> Result<Box<Metadata>, DiskError> {
            match self.run(|ios, ring, disk| ios.read_metadata(ring, disk, IO, copy)) {
                Event::MetadataRead { io: IO, metadata } => metadata,
                other => panic!("{other:?} answers a read of metadata"),
            }
        }

        fn damage(&self, offset: u64) {
            let file = OpenOptions::new().write(true).open(&self.disk.path).expect("the disk");
            file.write_all_at(b"damage", offset + 64).expect("written");
            file.sync_all().expect("synced");
        }
    }

    fn slot(epoch: u64) -> Slot {
        let record = Record {
            epoch: Epoch(epoch),
            mode: Mode::Both,
            ..Record::first(&[DiskIndex(0)])
        };
        Slot::idle(Controller::B, ProcessId::default(), record)
    }

    #[test]
    fn a_fresh_disk_has_the_first_record_and_the_first_metadata() {
        let mut world = World::new();
        let first = Record::first(&[DiskIndex(0)]);
        let slots = world.slots().expect("slots");
        assert_eq!(
            slots,
            Controller::BOTH.map(|c| Some(Slot::idle(c, ProcessId::default(), first)))
        );
        let metadata = world.metadata(0).expect("metadata");
        assert_eq!(
            (metadata.generation, metadata.disks.len(), metadata.luns.len()),
            (1, 1, 0)
        );
        assert_eq!(metadata.disks[0].uuid, world.disk.label.disk);
        assert_eq!(world.metadata(1), Err(DiskError), "there is no second copy yet");
    }

    #[test]
    fn the_newest_good_copy_of_a_slot_counts() {
        let mut world = World::new();
        world.write_slot(&slot(7));
        assert_eq!(world.slots().expect("slots")[1], Some(slot(7)));
        let [first, second] = slot_offsets(Controller::B);
        world.damage(first);
        assert_eq!(world.slots().expect("slots")[1], Some(slot(7)));
        world.damage(second);
        assert_eq!(
            world.slots(),
            Err(DiskError),
            "what was promised on this disk is not known"
        );
        world.write_slot(&slot(8));
        assert_eq!(world.slots().expect("slots")[1], Some(slot(8)));
    }

    #[test]
    fn metadata_come_back() {
        let mut world = World::new();
        let mut metadata = *world.metadata(0).expect("metadata");
        metadata.generation = 2;
        let event = world.run(|ios, ring, disk| {
            ios.write_metadata(ring, disk, IO, 1, &metadata).expect("fits");
        });
        assert_eq!(event, Event::DiskDone { io: IO, result: Ok(()) });
        assert_eq!(world.metadata(1).map(|m| *m), Ok(metadata));
        world.damage(METADATA_OFFSETS[1]);
        assert_eq!(world.metadata(1), Err(DiskError));
    }

    #[test]
    fn blocks_are_written_read_flushed_and_zeroed() {
        let mut world = World::new();
        let (from, into) = (Pages::new(3 * PAGE_BYTES), Pages::new(3 * PAGE_BYTES));
        let mut from = from;
        from.bytes_mut()
            .iter_mut()
            .enumerate()
            .for_each(|(i, b)| *b = (i / 512) as u8 + 1);
        // From block 5 of one page over a whole one to 2 blocks of a third.
        let pieces = |pages: &Pages| {
            [(5 * 512, 3 * 512), (PAGE_BYTES, PAGE_BYTES), (2 * PAGE_BYTES, 1024)]
                .map(|(offset, bytes)| Piece::of(pages, offset, bytes))
        };
        let done = Event::DiskDone { io: IO, result: Ok(()) };
        let event = world.run(|ios, ring, disk| ios.write(ring, disk, IO, 20_003, pieces(&from).into_iter()));
        assert_eq!(event, done);
        assert_eq!(world.run(|ios, ring, disk| ios.flush(ring, disk, IO)), done);
        let event = world.run(|ios, ring, disk| ios.read(ring, disk, IO, 20_003, pieces(&into).into_iter()));
        assert_eq!(event, done);
        assert!(into.bytes()[5 * 512..][..13 * 512] == from.bytes()[5 * 512..][..13 * 512]);

        assert_eq!(world.run(|ios, ring, disk| ios.zero(ring, disk, IO, 20_004, 11)), done);
        let event = world.run(|ios, ring, disk| ios.read(ring, disk, IO, 20_003, pieces(&into).into_iter()));
        assert_eq!(event, done);
        let read: Vec<u8> = into.bytes()[5 * 512..][..13 * 512]
            .iter()
            .step_by(512)
            .copied()
            .collect();
        assert_eq!(read, [6, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 18]);
    }

    #[test]
    fn a_medium_that_cannot_zero_is_written() {
        let mut io = Io {
            id: IO,
            disk: DiskIndex(0),
            kind: Kind::Zero {
                from: 4096,
                bytes: ZEROES_BYTES as u64 + 512,
                punch: true,
            },
            done: 0,
            iovecs: Vec::new(),
            moved: 0,
            offset: 0,
            pages: None,
            posted: Time(0),
            overdue: false,
            answered: false,
            void: false,
        };
        assert!(matches!(io.step(), Some(Step::Punch)));
        io.advance(-libc::EOPNOTSUPP).expect("goes on");
        assert!(matches!(io.step(), Some(Step::Write)));
        assert_eq!((io.offset, io.iovecs[0].iov_len), (4096, ZEROES_BYTES));
        io.advance(ZEROES_BYTES as i32).expect("goes on");
        assert!(matches!(io.step(), Some(Step::Write)));
        assert_eq!((io.offset, io.iovecs[0].iov_len), (4096 + ZEROES_BYTES as u64, 512));
        io.advance(512).expect("goes on");
        assert!(matches!(io.step(), Some(Step::Flush)));
        io.advance(0).expect("goes on");
        assert!(io.step().is_none());
    }

    /// The disk does not answer because nobody submits what is posted.
    #[test]
    fn a_disk_that_never_answers_is_given_up_and_its_memory_is_not() {
        let mut world = World::new();
        let World { ring, ios, disk, .. } = &mut world;
        let pages = Pages::new(PAGE_BYTES);
        let piece = [Piece::of(&pages, 0, PAGE_BYTES)];
        let id = |index| IoId { index, generation: 1 };
        let on = (DiskIndex(0), &*disk);
        assert_eq!(ios.next_deadline(), None);
        ios.write_slot(ring, on, id(1), &slot(7));
        ios.read(ring, on, id(2), 20_000, piece.into_iter());
        ios.flush(ring, on, id(3));
        let due = ios.next_deadline().expect("somebody looks");
        let poll = |ios: &mut DiskIos, now| {
            let mut told = Vec::new();
            ios.poll(now, |event| told.push(event));
            told
        };
        let result = Err(DiskError);
        assert_eq!(poll(ios, Time(due.0 - 1)), [], "nothing is overdue yet");
        assert!(!ios.is_overdue(DiskIndex(0)));
        let stopped = due + OVERDUE;
        assert_eq!(poll(ios, stopped), [], "it was this process that stood still");
        let later = ios.next_deadline().expect("somebody looks again");
        assert_eq!(later, stopped + STOOD_STILL);
        let told = [
            Event::DiskDone { io: id(1), result },
            Event::DiskOverdue { io: id(2) },
            Event::DiskOverdue { io: id(3) },
        ];
        assert_eq!(poll(ios, later), told);
        assert!(ios.is_overdue(DiskIndex(0)) && !ios.is_overdue(DiskIndex(1)));
        assert_eq!(poll(ios, later + OVERDUE), [], "told once");
        assert_eq!(ios.next_deadline(), None);
        assert_eq!(ios.ios.len(), 3, "memory that is posted was given back");

        // It answers after all: the core hears of what it still waits for, and no second copy of the slot is written.
        let (mut told, mut completions) = (Vec::new(), Vec::new());
        while ring.outstanding() > 0 {
            ring.submit_and_wait(Some(Duration::from_secs(10))).expect("submitted");
            ring.reap(&mut completions);
            assert!(!completions.is_empty(), "waited 10 s for the disk");
            for completion in completions.drain(..) {
                let Token::Disk(key) = completion.token else {
                    panic!("{completion:?} was never posted")
                };
                told.extend(
                    ios.completed(ring, key, disk, completion.result)
                        .map(|ended| ended.event),
                );
            }
        }
        told.sort_by_key(|event| format!("{event:?}"));
        let result = Ok(());
        assert_eq!(told, [2, 3].map(|io| Event::DiskDone { io: id(io), result }));
        assert!(ios.is_reaped() && !ios.is_overdue(DiskIndex(0)));
    }

    /// What of the disk has ended, once `count` have.
    fn reap(ring: &mut Ring, count: usize) -> Vec<(u32, i32)> {
        let mut completions = Vec::new();
        while completions.len() < count {
            ring.submit_and_wait(Some(Duration::from_secs(10))).expect("submitted");
            let before = completions.len();
            ring.reap(&mut completions);
            assert!(completions.len() > before, "waited 10 s for the disk");
        }
        let of_disks = completions.iter().map(|c| match c.token {
            Token::Disk(key) => (key, c.result),
            _ => panic!("{c:?} was never posted"),
        });
        of_disks.collect()
    }

    fn failed(ended: Option<Ended>) -> bool {
        matches!(ended.map(|e| e.event), Some(Event::DiskDone { result: Err(_), .. }))
    }

    /// Two write slots; the flush of the first fails. The core is to hear of that, and the second does not count, either, though its
    /// own flush ends well: what it had written may be lost with that of the first.
    #[test]
    fn a_flush_that_fails_is_everybodys() {
        let mut world = World::new();
        let World { ring, ios, disk, .. } = &mut world;
        let id = |index| IoId { index, generation: 1 };
        for index in [1, 2] {
            ios.write_slot(ring, (DiskIndex(0), &*disk), id(index), &slot(7));
        }
        for (key, result) in reap(ring, 2) {
            assert!(ios.completed(ring, key, disk, result).is_none(), "it is to be flushed");
        }
        let [(first, _), (second, result)] = reap(ring, 2)[..] else {
            panic!("two were posted")
        };
        assert!(failed(ios.completed(ring, first, disk, -libc::EIO)));
        assert_eq!(ios.take_failed_flush(), Some(DiskIndex(0)));
        assert!(failed(ios.completed(ring, second, disk, result)));
        assert_eq!(ios.take_failed_flush(), None);
        assert!(ios.is_reaped());
    }

    /// Zeroes that are written piece by piece, and are flushed only when all are: a flush that fails meanwhile takes along the
    /// pieces before it, and the one that is on its way.
    #[test]
    fn a_flush_that_fails_takes_along_half_of_the_zeroes() {
        let mut world = World::new();
        let World { ring, ios, disk, .. } = &mut world;
        let id = |index| IoId { index, generation: 1 };
        let first = (disk.bytes() - 2 * ZEROES_BYTES as u64) / BLOCK_BYTES as u64;
        let blocks = 2 * (ZEROES_BYTES / BLOCK_BYTES) as u64;
        ios.zero(ring, (DiskIndex(0), &*disk), id(1), first, blocks);
        let [(zeroes, _)] = reap(ring, 1)[..] else {
            panic!("one was posted")
        };
        assert!(
            ios.completed(ring, zeroes, disk, -libc::EOPNOTSUPP).is_none(),
            "then they are written"
        );
        let [(_, result)] = reap(ring, 1)[..] else {
            panic!("one was posted")
        };
        assert!(
            ios.completed(ring, zeroes, disk, result).is_none(),
            "it is the first of two pieces"
        );
        let [(_, result)] = reap(ring, 1)[..] else {
            panic!("one was posted")
        };
        ios.write_slot(ring, (DiskIndex(0), &*disk), id(2), &slot(7));
        let [(other, written)] = reap(ring, 1)[..] else {
            panic!("one was posted")
        };
        assert!(
            ios.completed(ring, other, disk, written).is_none(),
            "it is to be flushed"
        );
        reap(ring, 1);
        assert!(failed(ios.completed(ring, other, disk, -libc::EIO)));
        assert!(failed(ios.completed(ring, zeroes, disk, result)));
        assert!(ios.is_reaped());
    }

    #[test]
    fn beyond_the_end_is_an_error() {
        let mut world = World::new();
        let pages = Pages::new(PAGE_BYTES);
        let end = world.disk.bytes() / 512;
        let event =
            world.run(|ios, ring, disk| ios.read(ring, disk, IO, end, [Piece::of(&pages, 0, PAGE_BYTES)].into_iter()));
        let result = Err(DiskError);
        assert_eq!(event, Event::DiskDone { io: IO, result });
    }
}
