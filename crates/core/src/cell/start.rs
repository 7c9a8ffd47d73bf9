//! From the start of the process to a role.

use super::Phase;
use super::pulse::Pulse;
use super::quorum::{self, Kind, OptionalSlots};
use super::record::{Mode, Record, Slot};
use crate::controller::{Core, Io, Locks};
use crate::effect::{Effect, Note};
use crate::event::DiskError;
use crate::ids::Controller;
use crate::layout::metadata::Metadata;
use crate::manage::{ManageError, ManageReply};
use crate::mark::mark;
use crate::mutant;

impl Core {
    /// The first event. Every process reads the record before its first disk write (R1).
    pub(crate) fn start(&mut self) {
        self.read_record();
    }

    /// Reads the record, because this is the start or because the partner knows a newer one.
    pub(crate) fn read_record(&mut self) {
        self.phase = Phase::AwaitRecord;
        self.end_ballot();
        if !self.quorum.is_busy() {
            self.quorum.begin(Kind::Read, self.now);
        }
    }

    /// A majority of the slots is here.
    pub(crate) fn on_record_read(&mut self, found: &[OptionalSlots]) {
        let Some(record) = quorum::newest_record(found) else {
            // Disks without a valid slot are no quorum; try again, they may be on their way.
            self.ballot_not_before = self.now + self.config.timing.heartbeat;
            return;
        };
        let own = quorum::furthest_slot(found, self.own());
        let slot = own.unwrap_or(Slot::idle(self.own(), self.config.process, record));
        self.know_own_slot(slot, record);
        self.undecided =
            quorum::last_vote(found, record.epoch).is_some() || self.may_anybody_have_voted(found, &record);
        // One that has said hello may not have written its slot yet.
        let met = self.link.partner().map(|hello| hello.process);
        self.partner_process = met.unwrap_or(quorum::process_of(found, self.partner()));
        self.partners_pulse = Pulse::seen(Pulse::heartbeat_of(found, self.partner()), self.now);
        self.record = Some(record);
        // The metadata of one before it may be nowhere any more.
        let is_newer = |r: &Record| r.epoch > record.epoch || mutant::is("wait-for-what-was-overtaken");
        self.to_adopt = self.to_adopt.filter(is_newer);
        self.phase = Phase::AwaitMetadata;
        self.metadata_tries = 0;
        self.read_metadata();
    }

    /// Whether a predecessor may have voted on fewer disks than a majority, where that is not seen now and may be seen later: it had
    /// begun a ballot, which a majority knows of before anybody votes in it. Or the partner, where this controller goes on without it.
    fn may_anybody_have_voted(&self, found: &[OptionalSlots], record: &Record) -> bool {
        let own = quorum::has_begun(found, self.own(), record) && !mutant::is("a-forgotten-vote-counts");
        let partner = quorum::has_begun(found, self.partner(), record) && !mutant::is("a-vote-of-who-gave-up-counts");
        let may = record.has(self.own()) && own || record.is_alone(self.own()) && partner;
        if may {
            mark!("somebody may have voted where nobody sees it");
        }
        may
    }

    /// Reads the metadata that the record names, from one quorum disk after the other until one has them.
    pub(crate) fn read_metadata(&mut self) {
        self.metadata_again = None;
        let record = self.record_to_adopt();
        let members = self.quorum.members();
        let disk = members[self.metadata_tries as usize % members.len()];
        let io = self.new_io(Io::MetadataRead);
        let copy = record.metadata.copy;
        self.effects.push(Effect::MetadataRead { io, disk, copy });
    }

    /// The record whose metadata are wanted: a newer one of the partner's, or the one in force.
    fn record_to_adopt(&self) -> Record {
        self.to_adopt.or(self.record).expect("a record was read")
    }

    /// A copy of the metadata is here, or damaged.
    pub(crate) fn on_metadata_read(&mut self, result: Result<Box<Metadata>, DiskError>) {
        let wanted = self.record_to_adopt().metadata.generation;
        match result {
            Ok(metadata) if metadata.generation == wanted => self.on_metadata(*metadata),
            _ => {
                self.metadata_tries = self.metadata_tries.wrapping_add(1);
                let tried_all = (self.metadata_tries as usize).is_multiple_of(self.quorum.members().len());
                if tried_all {
                    self.metadata_again = Some(self.now + self.config.timing.heartbeat);
                } else {
                    self.read_metadata();
                }
            }
        }
    }

    /// After every quorum disk was tried in vain it is tried again, but not at once.
    pub(crate) fn settle_metadata(&mut self) {
        if self.metadata_again.take_if(|at| *at <= self.now).is_none() {
            return;
        }
        if self.phase == Phase::AwaitMetadata {
            // The record may have moved on twice, and its metadata with it.
            self.read_record();
        } else {
            self.read_metadata();
        }
    }

    fn on_metadata(&mut self, metadata: Metadata) {
        self.take_metadata(metadata);
        if let Some(record) = self.to_adopt.take() {
            self.adopt(record);
            // The round that followed the decision could not tell it yet.
            let stays = !matches!(self.phase, Phase::Yielding | Phase::Out);
            self.announce |= stays && self.own_slot_known;
            self.confirm_record();
        }
        if self.phase == Phase::AwaitMetadata {
            self.take_role();
        }
    }

    /// The metadata in force in memory.
    pub(crate) fn take_metadata(&mut self, metadata: Metadata) {
        self.discard_deleted(&metadata);
        self.forget_unflushed(&metadata);
        self.note_disk_states(&metadata);
        self.lun_of.fill(None);
        for (at, lun) in metadata.luns.iter().enumerate() {
            self.lun_of[lun.ncae.index()] = Some(at as u16);
        }
        self.metadata = Some(metadata);
        self.effects.push(Effect::ViewChanged);
    }

    /// The NCA says which virtual disk each buffer's index means [0093].
    pub(crate) fn store_nca(&mut self) {
        for n in 0..crate::ids::LUNS_MAX as u16 {
            let ncae = crate::ids::NcaeIndex(n);
            let noid = self.lun(ncae).map(|l| l.noid);
            self.store_ncae(ncae, noid);
        }
    }

    /// What the record says of this controller decides what it may become.
    pub(crate) fn take_role(&mut self) {
        let record = self.record.expect("the record was read");
        let current = record.is_current(self.own(), self.image);
        let own = record.has(self.own());
        self.note_lost_image(&record);
        match record.mode {
            // Whoever is to be in needs its locks first, and its own slot as the predecessor's last write left it.
            _ if self.is_to_be_in(&record) && !self.own_slot_known => {
                self.take_locks();
                self.phase = Phase::AwaitLocks;
            }
            _ if own && self.undecided => self.phase = Phase::Undecided,
            Mode::Both if current => {
                let until = self.now + self.config.timing.await_partner;
                self.phase = Phase::AwaitPartner { until };
                self.note(Note::AwaitsPartner);
            }
            Mode::Alone { .. } if own && current && mutant::is("the-record-is-a-fence") => {
                self.take_over();
            }
            Mode::Alone { .. } if own && current => self.fence(),
            // Nothing is missing on the disks, or nobody has what is missing: a fresh image will do.
            _ if self.is_to_be_in(&record) => {
                self.fresh_image();
                self.phase = Phase::Deciding;
            }
            _ => self.await_attach(),
        }
        if self.phase != Phase::Out {
            self.say_hello();
        }
    }

    /// Tells once that the image is not the one that the record names.
    fn note_lost_image(&mut self, record: &Record) {
        let named = !record.images[self.own().index()].is_nil();
        let lost = record.has(self.own()) && named && !record.is_current(self.own(), self.image);
        if lost && !std::mem::replace(&mut self.image_loss_told, true) {
            let both = mutant::is("one-image-is-both");
            self.note(Note::ImageLost { both });
        }
    }

    /// Whether the record lets this controller in without its partner's leave.
    fn is_to_be_in(&self, record: &Record) -> bool {
        let clean = matches!(record.mode, Mode::Alone { dirty: false, .. });
        let current = record.is_current(self.own(), self.image);
        record.has(self.own()) && (current || clean || self.undecided || self.both_images_lost)
    }

    fn await_attach(&mut self) {
        if self.locks != Locks::None {
            // The partner is in, and its fence needs them.
            return self.start_anew();
        }
        self.phase = Phase::AwaitAttach;
        self.partners_pulse.begin(self.now);
    }

    /// Whose memory only an operator can give up (R8): it may have what the disks lack, and its controller shows no sign of
    /// life, or has lost it and is this one. Who was stopped looks again first.
    pub(crate) fn awaited_memory(&self) -> Option<Controller> {
        let looks = self.now < self.renew_at + self.config.timing.grant;
        let missing = match self.mode()? {
            Mode::Both => self.partner(),
            Mode::Alone { dirty: false, .. } => return None,
            Mode::Alone { .. } if mutant::is("the-partner-has-what-is-missing") => self.partner(),
            Mode::Alone { controller, .. } => controller,
        };
        let is_gone = missing == self.own() || self.is_partner_still();
        (self.phase == Phase::AwaitAttach && looks && is_gone).then_some(missing)
    }

    /// Tells the operator once.
    pub(crate) fn call_operator(&mut self) {
        if let Some(missing) = self.awaited_memory()
            && !std::mem::replace(&mut self.operator_called, true)
        {
            self.note(Note::AwaitsOperator { missing });
        }
    }

    /// The operator gives up what only one memory has (R8). From here on it goes as with a clean partner that
    /// does not run: own locks, ballot, fence, serve. A partner that comes back meanwhile has a say in the ballot.
    pub(crate) fn accept_loss(&mut self, missing: Controller) -> Result<ManageReply, ManageError> {
        let any = missing == self.partner() && mutant::is("accept-any-loss");
        if self.awaited_memory() != Some(missing) && !any {
            return Err(ManageError::NothingToAccept);
        }
        self.loss_accepted = true;
        self.note(Note::LossAccepted { missing });
        Ok(ManageReply::Done)
    }

    /// Asks for the own locks, once: they end what the predecessor had submitted (R5).
    pub(crate) fn take_locks(&mut self) {
        if self.locks == Locks::None {
            self.locks = if mutant::is("do-not-drain") {
                Locks::Held
            } else {
                Locks::Awaited
            };
            self.effects.push(Effect::TakeLocks);
        }
    }

    /// The own locks are held.
    pub(crate) fn on_locks_taken(&mut self) {
        self.locks = Locks::Held;
        self.locks_taken_at = self.now;
    }

    /// A majority of the slots was read while the own locks are held: no write of the predecessor can change the own slot
    /// any more (R5), so what it voted for is known.
    pub(crate) fn take_own_slot(&mut self, found: &[OptionalSlots]) {
        if self.own_slot_known || self.locks != Locks::Held || self.quorum.began() < self.locks_taken_at {
            return;
        }
        self.own_slot_known = true;
        self.announce = true;
        if let (Some(slot), Some(record)) = (quorum::furthest_slot(found, self.own()), self.record) {
            self.know_own_slot(slot, record);
        }
        if self.phase == Phase::Attaching {
            self.attach();
        }
    }

    fn know_own_slot(&mut self, mut slot: Slot, record: Record) {
        slot.process = self.config.process;
        slot.heartbeat += 1;
        if slot.record.epoch < record.epoch {
            super::ballot::learn(&mut slot, record);
        }
        self.quorum.set_slot(slot);
    }

    /// An empty image with a fresh identity takes the place of one that the record does not name (R8).
    pub(crate) fn fresh_image(&mut self) {
        let uuid = self.config.fresh_image;
        if self.image != uuid {
            self.image = uuid;
            if mutant::is("trust-own-image-on-return") {
                return;
            }
            self.words.clear();
            self.effects.push(Effect::NewImage { uuid });
        }
    }
}
