//! A session: what its connection receives is cut into PDUs here and goes to whoever handles each kind.

use super::keys::{self, Parameters};
use super::login::{Failure, Login, Reply};
use super::management::Drain;
use super::pdu::{self, BHS_BYTES, Digests, FINAL, Header, NO_TAG, Reason, opcode};
use super::receiver::{Part, Receiver};
use super::task::Tasks;
use super::text::Exchange;
use crate::scsi::unit_attention::Nexus;
use crate::session::{Incoming, Outside, Session, Tag};
use std::num::NonZeroU16;
use twincell_core::host::Status;
use twincell_core::ids::BlockCount;

/// How many commands a session may have in progress.
pub const COMMAND_WINDOW: u32 = 128;
/// Bytes of Data-In that a session holds, or that the array is about to give it: reads beyond it wait. An initiator that
/// reads nothing could else have a whole window of the longest commands in memory.
pub const DATA_IN_BYTES_MAX: usize = 16 << 20;
/// Data segments that this target takes during login (13.12).
const LOGIN_SEGMENT_BYTES_MAX: u32 = 8192;

/// Where a session is.
#[derive(Debug)]
enum Phase {
    Login(Box<Login>),
    FullFeature,
    /// A logout waits for tasks to end; nothing more is received.
    LoggingOut,
    Over,
}

/// Where the data segment of the PDU goes that is being received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sink {
    /// Nowhere.
    Discard,
    /// To `segment`.
    Keep,
    /// To a task, if it is still that one: at once, or kept until the digest was seen.
    Task { tag: Tag, generation: u16 },
}

/// The Data-In PDU that is last in the output. As long as it is, the status can still be put into it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tail {
    pub tag: Tag,
    /// From its header to the end of the output.
    pub bytes: usize,
}

/// One iSCSI session of one connection.
#[derive(Debug)]
pub struct IscsiSession {
    phase: Phase,
    receiver: Receiver,
    sink: Sink,
    /// The data segment of a PDU, where it is needed whole.
    pub(super) segment: Vec<u8>,
    /// Data-In of a command that is answered without the array.
    pub(super) answer: Vec<u8>,
    output: Vec<u8>,
    pub(super) tail: Option<Tail>,
    handle: NonZeroU16,
    pub(super) parameters: Parameters,
    pub(super) initiator_name: String,
    isid: [u8; 6],
    pub(super) is_discovery: bool,
    stat_sn: u32,
    exp_cmd_sn: u32,
    pub(super) tasks: Tasks,
    pub(super) nexus: Nexus,
    pub(super) drains: Vec<Drain>,
    pub(super) exchange: Exchange,
}

impl IscsiSession {
    /// At the beginning of a connection. `handle` is the target session identifying handle (TSIH) that the session
    /// gets; no other session of the same initiator may have it.
    pub fn new(handle: NonZeroU16) -> IscsiSession {
        IscsiSession {
            phase: Phase::Login(Box::new(Login::new())),
            receiver: Receiver::new(),
            sink: Sink::Discard,
            segment: Vec::new(),
            answer: Vec::new(),
            output: Vec::new(),
            tail: None,
            handle,
            parameters: Parameters::default(),
            initiator_name: String::new(),
            isid: [0; 6],
            is_discovery: false,
            stat_sn: 0,
            exp_cmd_sn: 0,
            tasks: Tasks::default(),
            nexus: Nexus::default(),
            drains: Vec::new(),
            exchange: Exchange::default(),
        }
    }

    fn part(&mut self, part: Part<'_>, outside: &mut dyn Outside) {
        match part {
            Part::Header => self.begin_pdu(outside),
            Part::Payload(bytes) => self.payload(bytes, outside),
            Part::End { is_intact: true } => self.end_pdu(outside),
            Part::End { is_intact: false } => {
                self.reject(Reason::DataDigest);
                self.phase = Phase::Over;
            }
            Part::HeaderDigestWrong => self.phase = Phase::Over,
        }
    }

    /// Decides where the data segment goes, and begins what a task needs before it comes.
    fn begin_pdu(&mut self, outside: &mut dyn Outside) {
        let header = *self.receiver.header();
        self.segment.clear();
        self.sink = Sink::Keep;
        let most = match &self.phase {
            Phase::Login(_) if header.opcode() != opcode::LOGIN => {
                return self.refuse_login(&header, Failure::InvalidDuringLogin);
            }
            Phase::Login(_) => LOGIN_SEGMENT_BYTES_MAX,
            _ => keys::MAX_RECV_DATA_SEGMENT_LENGTH,
        };
        if header.data_bytes() > most {
            return self.violation();
        }
        match header.opcode() {
            opcode::SCSI_COMMAND => self.sink = self.begin_command(&header, outside),
            opcode::DATA_OUT => self.sink = self.begin_data_out(&header, outside),
            _ if header.ahs_bytes() > 0 => self.violation(),
            _ => {}
        }
    }

    fn payload(&mut self, bytes: &[u8], outside: &mut dyn Outside) {
        match self.sink {
            Sink::Discard => {}
            Sink::Task { tag, generation } if !self.parameters.data_digest => {
                self.task_data(tag, generation, bytes, outside);
            }
            Sink::Keep | Sink::Task { .. } => self.segment.extend_from_slice(bytes),
        }
    }

    fn end_pdu(&mut self, outside: &mut dyn Outside) {
        let header = *self.receiver.header();
        match self.sink {
            Sink::Discard => {}
            Sink::Task { tag, generation } => {
                let segment = std::mem::take(&mut self.segment);
                self.task_data(tag, generation, &segment, outside);
                self.segment = segment;
                self.end_data_pdu(tag, generation, header.is_final(), outside);
            }
            Sink::Keep => {
                let segment = std::mem::take(&mut self.segment);
                self.whole_pdu(&header, &segment, outside);
                self.segment = segment;
            }
        }
    }

    /// A PDU whose data segment is handled as a whole.
    fn whole_pdu(&mut self, header: &Header, segment: &[u8], outside: &mut dyn Outside) {
        match (&self.phase, header.opcode()) {
            (Phase::Login(_), _) => self.login(header, segment, outside),
            (_, opcode::NOP_OUT) => self.nop_out(header, segment),
            (_, opcode::TASK_MANAGEMENT) => self.task_management(header, outside),
            (_, opcode::TEXT) => self.text(header, segment, outside),
            (_, opcode::LOGOUT) => self.logout(header, outside),
            (_, opcode::SNACK) => self.reject(Reason::Snack),
            // A login in the full feature phase, and what nobody knows.
            (_, opcode::LOGIN) => self.violation(),
            _ => self.reject(Reason::NotSupported),
        }
    }

    fn login(&mut self, header: &Header, text: &[u8], outside: &mut dyn Outside) {
        let Phase::Login(login) = &mut self.phase else { return };
        self.exp_cmd_sn = header.cmd_sn();
        match login.request(header, text, outside.view()) {
            Err(failure) => self.refuse_login(header, failure),
            Ok(reply) => {
                if reply.is_last {
                    self.parameters = login.parameters().clone();
                    self.initiator_name = std::mem::take(&mut login.initiator_name);
                    self.isid = login.isid;
                    self.is_discovery = login.is_discovery;
                }
                self.login_response(header, &reply);
                if reply.is_last {
                    self.receiver.digests = self.digests();
                    self.phase = Phase::FullFeature;
                }
            }
        }
    }

    fn login_response(&mut self, request: &Header, reply: &Reply) {
        let mut header = self.status_header(opcode::LOGIN_RESPONSE, reply.flags, request.task_tag());
        header.0[8..14].copy_from_slice(&request.array::<6>(8));
        if reply.is_last {
            header.0[14..16].copy_from_slice(&self.handle.get().to_be_bytes());
        }
        self.tail = None;
        pdu::put(header, &reply.text, Digests::default(), &mut self.output);
    }

    fn refuse_login(&mut self, request: &Header, failure: Failure) {
        let mut header = self.status_header(opcode::LOGIN_RESPONSE, 0, request.task_tag());
        header.0[8..16].copy_from_slice(&request.array::<8>(8));
        header.0[36..38].copy_from_slice(&(failure as u16).to_be_bytes());
        pdu::put(header, &[], Digests::default(), &mut self.output);
        self.phase = Phase::Over;
    }

    fn nop_out(&mut self, header: &Header, data: &[u8]) {
        if !self.accept(header) || header.task_tag() == NO_TAG {
            return;
        }
        let mut reply = self.status_header(opcode::NOP_IN, FINAL, header.task_tag());
        reply.0[8..16].copy_from_slice(&header.lun());
        reply.set32(20, NO_TAG);
        let most = self.parameters.max_recv_data_segment_length as usize;
        self.send(reply, &data[..data.len().min(most)]);
    }

    /// Whether a command is the next in order, or outside of the order; its CmdSN is then used up (4.2.2.1).
    ///
    /// What is outside of the window, and what comes again, is to be ignored. A gap cannot be filled any more: all
    /// commands come through this connection, in order.
    pub(super) fn accept(&mut self, header: &Header) -> bool {
        if header.is_immediate() {
            return true;
        }
        let number = header.cmd_sn();
        if number == self.exp_cmd_sn && !pdu::before(self.max_cmd_sn(), number) {
            self.exp_cmd_sn = number.wrapping_add(1);
            return true;
        }
        if pdu::before(self.exp_cmd_sn, number) && !pdu::before(self.max_cmd_sn(), number) {
            self.violation();
        }
        false
    }

    /// The highest CmdSN that may come.
    fn max_cmd_sn(&self) -> u32 {
        let room = COMMAND_WINDOW - self.tasks.in_window.min(COMMAND_WINDOW);
        self.exp_cmd_sn.wrapping_add(room).wrapping_sub(1)
    }

    fn digests(&self) -> Digests {
        Digests {
            header: self.parameters.header_digest,
            data: self.parameters.data_digest,
        }
    }

    /// Sets the numbers that every PDU from the target carries, all but StatSN.
    pub(super) fn set_numbers(&self, header: &mut Header) {
        header.set32(28, self.exp_cmd_sn);
        header.set32(32, self.max_cmd_sn());
    }

    /// A header of a PDU that does not carry a status.
    pub(super) fn plain_header(&self, opcode: u8, flags: u8, task_tag: u32) -> Header {
        let mut header = Header::new(opcode, flags, task_tag);
        self.set_numbers(&mut header);
        header
    }

    /// A header of a PDU that carries a status: it takes a StatSN.
    pub(super) fn status_header(&mut self, opcode: u8, flags: u8, task_tag: u32) -> Header {
        let mut header = self.plain_header(opcode, flags, task_tag);
        header.set32(24, self.next_stat_sn());
        header
    }

    /// Takes a StatSN.
    fn next_stat_sn(&mut self) -> u32 {
        let number = self.stat_sn;
        self.stat_sn = number.wrapping_add(1);
        number
    }

    /// The StatSN that the next status will have.
    pub(super) fn stat_sn(&self) -> u32 {
        self.stat_sn
    }

    /// Whether the array may be asked for so many bytes of Data-In now. For as long as there are others, something is still
    /// to happen after which that is looked at again.
    pub(super) fn has_room(&self, bytes: u32, outside: &dyn Outside) -> bool {
        let held = self.output.len() + outside.unsent() + self.tasks.due;
        bytes == 0 || held == 0 || held + bytes as usize <= DATA_IN_BYTES_MAX
    }

    /// Appends a PDU to the output.
    pub(super) fn send(&mut self, header: Header, data: &[u8]) {
        self.tail = None;
        let digests = self.digests();
        pdu::put(header, data, digests, &mut self.output);
    }

    /// Appends the Data-In PDU to the output that may turn out to be the last of its task.
    pub(super) fn send_tail(&mut self, tag: Tag, header: Header, data: &[u8]) {
        let start = self.output.len();
        self.send(header, data);
        self.tail = Some(Tail {
            tag,
            bytes: self.output.len() - start,
        });
    }

    /// Whether the last PDU of the output is a Data-In of this task, and whole.
    pub(super) fn has_tail(&self, tag: Tag) -> bool {
        self.tail
            .is_some_and(|tail| tail.tag == tag && tail.bytes <= self.output.len())
    }

    /// Changes the header of the last PDU of the output, which must be there (`has_tail`).
    pub(super) fn change_tail(&mut self, change: impl FnOnce(&mut Header)) {
        let Some(tail) = self.tail.take() else { return };
        let Some(start) = self.output.len().checked_sub(tail.bytes) else {
            return;
        };
        let Some(bytes) = self.output[start..].first_chunk_mut::<BHS_BYTES>() else {
            return;
        };
        let mut header = Header(*bytes);
        change(&mut header);
        *bytes = header.0;
        if self.parameters.header_digest {
            let digest = pdu::digest(twincell_wire::crc32c(&header.0));
            self.output[start + BHS_BYTES..start + BHS_BYTES + 4].copy_from_slice(&digest);
        }
    }

    /// Rejects the PDU that is being received; the session goes on.
    pub(super) fn reject(&mut self, reason: Reason) {
        let bad = *self.receiver.header();
        let mut header = self.status_header(opcode::REJECT, FINAL, NO_TAG);
        header.0[2] = reason as u8;
        self.send(header, &bad.0);
    }

    /// The PDU that is being received breaks the protocol in a way that this session cannot recover from.
    pub(super) fn violation(&mut self) {
        if !matches!(self.phase, Phase::Login(_)) {
            self.reject(Reason::Protocol);
        }
        self.phase = Phase::Over;
    }

    /// Nothing more is received; a logout or reset waits for tasks to end.
    pub(super) fn stop_receiving(&mut self) {
        self.phase = Phase::LoggingOut;
    }

    /// The connection should end.
    pub(super) fn finish(&mut self) {
        self.phase = Phase::Over;
    }

    /// Whether answers still make sense.
    pub(super) fn answers(&self) -> bool {
        !self.is_over()
    }

    /// Whether the PDU that is being received is a SCSI command.
    pub(super) fn receives_command(&self) -> bool {
        self.receiver.header().opcode() == opcode::SCSI_COMMAND
    }
}

impl Session for IscsiSession {
    fn receive(&mut self, bytes: &[u8], outside: &mut dyn Outside) -> usize {
        let mut rest = bytes;
        while matches!(self.phase, Phase::Login(_) | Phase::FullFeature) {
            if self.receiver.is_between() && !self.may_answer(outside) {
                return bytes.len() - rest.len();
            }
            let Some(part) = self.receiver.next(&mut rest) else {
                break;
            };
            self.part(part, outside);
        }
        bytes.len()
    }

    fn incoming(&self) -> Option<Incoming> {
        let (left, Sink::Task { tag, generation }) = (self.receiver.payload_left(), self.sink) else {
            return None;
        };
        let task = self.tasks.get(tag).filter(|task| task.generation == generation)?;
        let bytes = task.wants_next().map_or(left, |(_, wanted)| left.min(wanted));
        let burst = task.burst.filter(|_| bytes > 0)?;
        Some(Incoming {
            tag,
            offset: burst.next.into(),
            bytes,
            whole: self.receiver.header().data_bytes() as usize,
        })
    }

    fn placed(&mut self, bytes: usize, outside: &mut dyn Outside) {
        let Sink::Task { tag, .. } = self.sink else { return };
        self.receiver.skip_payload(bytes);
        self.fetch_goes_on(tag, bytes as u32, outside);
        // It may have been the end of the PDU.
        self.receive(&[], outside);
    }

    fn fetch(&mut self, tag: Tag, offset: BlockCount, blocks: BlockCount, outside: &mut dyn Outside) {
        self.fetch_data(tag, offset, blocks, outside);
    }

    fn send_data(&mut self, tag: Tag, offset: BlockCount, bytes: &[u8]) {
        self.blocks_read(tag, offset, bytes);
    }

    fn sent(&mut self, outside: &mut dyn Outside) {
        self.give_room(outside);
    }

    fn complete(&mut self, tag: Tag, status: Status, outside: &mut dyn Outside) {
        self.step_done(tag, status, outside);
    }

    fn view_changed(&mut self, _: &mut dyn Outside) {
        // The nexus compares the view with what it has told the host at each command.
    }

    fn disconnected(&mut self, outside: &mut dyn Outside) {
        self.phase = Phase::Over;
        self.drains.clear();
        self.abort_tasks(|_| true, outside);
    }

    fn output(&mut self) -> &mut Vec<u8> {
        &mut self.output
    }

    fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Over)
    }

    fn is_stranger(&self) -> bool {
        matches!(self.phase, Phase::Login(_))
    }

    fn initiator(&self) -> Option<(&str, [u8; 6])> {
        let is_normal = !matches!(self.phase, Phase::Login(_)) && !self.is_discovery;
        is_normal.then_some((&self.initiator_name, self.isid))
    }
}
