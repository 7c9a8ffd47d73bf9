//! The partner: its connections, its heartbeats and grants (R2), and its messages.

use super::{Joiner, Phase};
use crate::controller::Core;
use crate::effect::{Effect, Note};
use crate::ids::{BlockCount, ConnectionId, Controller, Incarnation, Nanos, Uuid};
use crate::link::Greeting;
use crate::link::frame::{Frame, Hello, Mfc};
use crate::link::path::{PATHS_MAX, Why};
use crate::mutant;

use super::record::{Mode, Record};

impl Core {
    /// A connection is open.
    pub(crate) fn on_link_opened(&mut self, path: usize, connection: ConnectionId) {
        if path >= PATHS_MAX || self.link.is_distrusted(path, self.now) {
            return self.effects.push(Effect::LinkClose { connection });
        }
        if let Some(old) = self.link.connection_of(path) {
            self.close_path(old, Why::Ended);
        }
        self.link.opened(path, connection, self.now);
        self.say_hello();
    }

    /// Says hello once there is something to say: the record has been read, and no ballot of this controller hangs.
    pub(crate) fn say_hello(&mut self) {
        let ready = match self.phase {
            Phase::AwaitPartner { .. } if mutant::is("level-while-undecided") => true,
            Phase::AwaitPartner { until } => self.now < until && !self.has_open_ballot(),
            Phase::AwaitAttach | Phase::Fencing => true,
            // A mirror that was lost may be another process when it is met again: not before the record says that it is out.
            Phase::Serving if !self.is_mirroring() || mutant::is("greet-a-lost-mirror") => true,
            // Another path to a partner that is met.
            _ => self.link.is_up(),
        };
        let Some(record) = self.record.filter(|_| ready) else {
            return;
        };
        while let Some((connection, own)) = self.link.unsaid() {
            let met = self.link.partner().filter(|_| own.session > Incarnation(0));
            let hello = Hello {
                controller: self.own(),
                cell: self.config.cell,
                instance: self.config.instance,
                process: self.config.process,
                incarnation: own.last,
                session: own.session,
                met: met.map_or(Uuid::NIL, |p| p.instance),
                epoch: record.epoch,
                image: self.image,
                undecided: self.undecided,
                buffers: self.geometry().buffers,
            };
            let frame = Frame::Hello(hello);
            self.effects.push(Effect::LinkSend { connection, frame });
        }
        self.meet_partner();
    }

    /// The connection is over.
    pub(crate) fn on_link_closed(&mut self, connection: ConnectionId) {
        self.path_closed(connection, Why::Ended);
    }

    /// Ends one connection. If it was the last the link is over.
    fn close_path(&mut self, connection: ConnectionId, why: Why) {
        self.effects.push(Effect::LinkClose { connection });
        self.path_closed(connection, why);
    }

    fn path_closed(&mut self, connection: ConnectionId, why: Why) {
        if self.link.closed(connection, why, self.now) {
            self.link_lost();
        }
    }

    /// Ends all of them.
    pub(crate) fn drop_link(&mut self) {
        if self.link.connections().next().is_some() {
            self.link_lost();
        }
    }

    /// What a lost link means depends on what the record says of the partner.
    fn link_lost(&mut self) {
        let was_up = self.link.is_up();
        for connection in self.link.connections() {
            self.effects.push(Effect::LinkClose { connection });
        }
        self.link.all_closed(self.now);
        self.forget_calls();
        self.destager.forget_releases();
        self.attach_waits = false;
        if !was_up {
            return;
        }
        match self.phase {
            Phase::Serving if self.mode() == Some(Mode::Both) => self.lose_partner(),
            Phase::Serving if self.joiner == Joiner::Unfenced => self.lose_joiner(),
            Phase::Leveling => {
                let until = self.now + self.config.timing.await_partner;
                self.phase = Phase::AwaitPartner { until };
            }
            // R9: the image is worthless now, unless the record names it; the record knows.
            Phase::Attaching | Phase::Joining => self.start_anew(),
            // The record still says that this controller is in: it may have the only good image. It stops alone.
            Phase::Leaving => {
                self.lose_partner();
                self.stop_alone();
            }
            _ => {}
        }
    }

    /// A partner that has been silent for too long is unreachable; a path that has been is given up while another answers.
    pub(crate) fn notice_silence(&mut self) {
        let timing = self.config.timing;
        if self.link.silence(self.now) >= timing.silence || self.link.is_choked() {
            return self.drop_link();
        }
        while let Some(path) = self.link.silent_path(timing.heartbeat, timing.path_silence, self.now) {
            self.close_path(path, Why::Silent);
        }
        if !mutant::is("resend-for-ever")
            && let Some(path) = self.link.spoiling_path(timing.heartbeat, self.now)
        {
            self.close_path(path, Why::Spoils);
        }
        self.link.prefer_first(timing.heartbeat, self.now);
    }

    /// A frame arrived.
    pub(crate) fn on_frame(&mut self, connection: ConnectionId, frame: Frame, payload: BlockCount) {
        if !self.link.has(connection) {
            return;
        }
        match frame {
            Frame::Hello(hello) => self.on_hello(connection, hello),
            Frame::Heartbeat { incarnation, sent } => {
                if self.link.heard(incarnation, self.now) {
                    let grant = self.grant();
                    let frame = Frame::HeartbeatAnswer {
                        incarnation,
                        sent,
                        grant,
                    };
                    self.effects.push(Effect::LinkSend { connection, frame });
                }
            }
            Frame::HeartbeatAnswer {
                incarnation,
                sent,
                grant,
            } => {
                if self.link.answered(connection, incarnation, sent, self.now) && grant > Nanos(0) {
                    // What the partner says is believed no further than what was agreed.
                    let grant = grant.min(self.config.timing.grant);
                    let late = mutant::is("grant-from-its-arrival");
                    let from = if late { self.now } else { sent.min(self.now) };
                    self.grant_until = self.grant_until.max(from + grant);
                }
            }
            Frame::Ack {
                incarnation,
                acknowledged,
                missing,
            } => {
                self.link.receive_ack(incarnation, acknowledged, missing, self.now);
                self.call_ack_routines();
            }
            Frame::Messages(frame) => self.on_sequenced(connection, &frame, payload),
        }
    }

    /// R2: who is in, or is about to be, lets its partner serve for a while.
    fn grant(&self) -> Nanos {
        let grants = match self.phase {
            Phase::Joining | Phase::Leveling => true,
            Phase::Leaving => self.mode() == Some(Mode::Both),
            Phase::Serving => self.mode() == Some(Mode::Both) || self.may_have_proposed_both(),
            _ => false,
        };
        let grants = grants || mutant::is("grant-whatever-happens");
        if grants { self.config.timing.grant } else { Nanos(0) }
    }

    fn on_hello(&mut self, connection: ConnectionId, hello: Hello) {
        if hello.cell != self.config.cell || hello.controller != self.partner() {
            return self.close_path(connection, Why::Refused);
        }
        if !self.has_a_cache_as_this(hello.buffers) {
            return self.close_path(connection, Why::OtherCache);
        }
        let own = self.config.instance;
        match self.link.greet(connection, hello, own, self.now) {
            Greeting::Joined => {
                if !mutant::is("fence-whoever-it-was") {
                    self.partner_process = hello.process;
                }
                self.meet_partner();
            }
            Greeting::Refused => self.close_path(connection, Why::Refused),
            Greeting::Void => self.drop_link(),
        }
    }

    /// Whether the partner's cache is as large as this one's: each names places in the other's. If it is not, this is noted once.
    fn has_a_cache_as_this(&mut self, buffers: u32) -> bool {
        let other = Some(buffers).filter(|b| *b != self.geometry().buffers);
        if let Some(buffers) = other.filter(|_| self.other_cache != other) {
            self.note(Note::OtherCache { buffers });
        }
        self.other_cache = other;
        other.is_none() || mutant::is("whatever-the-size-of-its-cache")
    }

    /// The partner has said hello, and perhaps this controller has, too: what they are to each other now.
    fn meet_partner(&mut self) {
        let (Some(record), Some(hello)) = (self.record, self.link.partner().copied()) else {
            return;
        };
        if hello.epoch > record.epoch && !self.has_served {
            // Whoever knows less reads again, and both begin anew.
            self.drop_link();
            // Without the link it may have begun anew already.
            if !matches!(self.phase, Phase::Yielding | Phase::Out) {
                self.read_record();
            }
            return;
        }
        if !self.link.is_up() || !self.link.meets() {
            return;
        }
        let undecided = hello.undecided && !mutant::is("level-while-undecided");
        let same = hello.epoch == record.epoch && !undecided;
        let current = record.is_current(self.partner(), hello.image);
        match self.phase {
            // R6: not while a ballot of this controller hangs; what it decides comes first.
            Phase::AwaitPartner { .. } if self.has_open_ballot() && !mutant::is("level-while-undecided") => {}
            Phase::AwaitPartner { .. } if same && current => self.begin_leveling(),
            Phase::AwaitPartner { .. } if same => self.phase = Phase::AwaitPartner { until: self.now },
            Phase::AwaitAttach if same && record.mode == Mode::Both && !current => self.go_on_without_images(),
            Phase::AwaitAttach if !record.has(self.own()) => self.attach(),
            _ => {}
        }
    }

    /// R8: A goes on from what the disks have. Hosts are told, because the record said `BOTH`.
    fn go_on_without_images(&mut self) {
        if self.own() == Controller::A {
            self.both_images_lost = true;
            self.note(Note::ImageLost { both: true });
            self.take_role();
        }
    }

    /// Tells the partner of a new record, if it can hear it.
    pub(crate) fn tell_partner(&mut self, record: Record) {
        if matches!(self.phase, Phase::Serving | Phase::Fencing | Phase::Leaving) {
            self.link.send(Mfc::RecordIs(record));
        }
    }

    pub(crate) fn on_record_is(&mut self, record: Record) {
        // It tells only what it goes by itself.
        self.on_record_adopted(record.epoch);
        if record.epoch > self.epoch() {
            self.adopt_with_metadata(record);
        }
        self.confirm_record();
    }

    /// The partner waits to hear that this controller goes by the record, too: it leaves, for one, only when it knows.
    pub(crate) fn confirm_record(&mut self) {
        if self.to_adopt.is_none() {
            let epoch = self.epoch();
            self.link.send(Mfc::RecordAdopted(epoch));
        }
    }

    /// The partner stops, and has moved its LUNs here.
    pub(crate) fn on_leaving(&mut self) {
        match self.phase {
            Phase::Serving if self.mode() == Some(Mode::Both) => self.lose_partner(),
            // Both want to stop: B goes first, and A leaves everything on disk.
            Phase::Leaving if self.own() == Controller::A => {
                self.lose_partner();
                self.stop_alone();
            }
            _ => return,
        }
        self.sight.asker_stopped(self.now);
        self.leaver_may_go_until = Some(self.now + self.config.timing.silence);
    }
}
