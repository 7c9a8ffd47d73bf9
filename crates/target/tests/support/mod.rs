//! An initiator that builds PDUs by hand and takes the answers apart, and an array in RAM that it can hold back.
#![allow(dead_code, reason = "each test uses a part of it")]

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::num::NonZeroU16;
use twincell_core::host::{HostOp, Status};
use twincell_core::ids::{ATOMIC_BLOCKS, BLOCK_BYTES, BlockCount, Controller, NcaeIndex, Noid, Time, Uuid};
use twincell_core::layout::metadata::{Name, Redundancy};
use twincell_core::manage::LunView;
use twincell_target::iscsi::IscsiSession;
use twincell_target::session::{Command, Outside, Session, Tag, View};

pub const INITIATOR: &str = "iqn.2026-11.example:host";
pub const TARGET: &str = "iqn.2026-11.io.twincell:test";
pub const BLOCKS: u64 = 1024;

/// What happened at the array, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    Submit(Tag, Command),
    Abort(Tag),
    Data(Tag, u64, Vec<u8>),
    Fetched(Tag, bool),
}

/// The array: it keeps what it is told, and [`Array::work`] carries it out.
pub struct Array {
    pub view: View,
    pub disk: Vec<u8>,
    pub seen: Vec<Seen>,
    todo: VecDeque<Seen>,
    writes: BTreeMap<Tag, (Command, u32)>,
    /// Writes whose data are awaited.
    pub fetching: BTreeSet<Tag>,
    aborted: Vec<Tag>,
    /// What the session has said and the initiator has not taken.
    pub unsent: usize,
    /// It stands still, unless a test lets it go on.
    pub now: Time,
    /// When the session was given something of the initiator's last.
    heard: Time,
}

pub fn lun(number: u16) -> LunView {
    LunView {
        ncae: NcaeIndex(number),
        noid: Noid(u32::from(number) + 100),
        name: Name::new("test").expect("a name"),
        uuid: Uuid(0x0123_4567_89ab_4def_8fed_cba9_8765_4321),
        blocks: BLOCKS,
        redundancy: Redundancy::Vraid1,
        owner: Controller::A,
        moving: false,
    }
}

impl Array {
    pub fn new() -> Array {
        let view = View {
            controller: Controller::A,
            cell_name: "test".to_owned(),
            target_name: TARGET.to_owned(),
            portals: [vec!["10.0.0.1:3260".to_owned()], vec!["10.0.0.2:3260".to_owned()]],
            luns: vec![lun(0), lun(3)],
            luns_generation: 5,
            paths_generation: 7,
            partner_in: true,
        };
        let disk = (0..BLOCKS as usize * BLOCK_BYTES)
            .map(|i| (i / BLOCK_BYTES + i) as u8)
            .collect();
        Array {
            view,
            disk,
            seen: Vec::new(),
            todo: VecDeque::new(),
            writes: BTreeMap::new(),
            fetching: BTreeSet::new(),
            aborted: Vec::new(),
            unsent: 0,
            now: Time(0),
            heard: Time(0),
        }
    }

    fn see(&mut self, what: Seen) {
        self.seen.push(what.clone());
        self.todo.push_back(what);
    }

    /// Carries out everything that was asked for.
    pub fn work(&mut self, session: &mut IscsiSession) {
        while let Some(what) = self.todo.pop_front() {
            match what {
                Seen::Submit(tag, command) => self.begin(tag, command, session),
                Seen::Abort(tag) => self.aborted.push(tag),
                Seen::Data(tag, offset, bytes) => {
                    let (command, _) = self.writes[&tag];
                    let start = command.start.index() * BLOCK_BYTES + offset as usize;
                    self.disk[start..start + bytes.len()].copy_from_slice(&bytes);
                }
                Seen::Fetched(tag, true) => self.fetch_next(tag, session),
                Seen::Fetched(tag, false) => self.end_write(tag, Status::Aborted, session),
            }
        }
    }

    /// Leaves out what was asked for and not yet carried out.
    pub fn forget(&mut self) {
        self.todo.clear();
    }

    fn begin(&mut self, tag: Tag, command: Command, session: &mut IscsiSession) {
        match command.op {
            HostOp::Sync => session.complete(tag, Status::Good, self),
            HostOp::Read => {
                let start = command.start.index() * BLOCK_BYTES;
                let bytes = self.disk[start..start + command.blocks.index() * BLOCK_BYTES].to_vec();
                for (n, piece) in bytes.chunks(ATOMIC_BLOCKS as usize * BLOCK_BYTES).enumerate() {
                    session.send_data(tag, BlockCount(n as u32 * ATOMIC_BLOCKS), piece);
                }
                session.complete(tag, Status::Good, self);
            }
            HostOp::Write { .. } => {
                self.writes.insert(tag, (command, 0));
                self.fetch_next(tag, session);
            }
        }
    }

    fn fetch_next(&mut self, tag: Tag, session: &mut IscsiSession) {
        let (command, fetched) = self.writes.get_mut(&tag).expect("a write in progress");
        let (offset, blocks) = (*fetched, (command.blocks.0 - *fetched).min(ATOMIC_BLOCKS));
        *fetched += blocks;
        if blocks == 0 {
            self.end_write(tag, Status::Good, session);
        } else {
            self.fetching.insert(tag);
            session.fetch(tag, BlockCount(offset), BlockCount(blocks), self);
        }
    }

    fn end_write(&mut self, tag: Tag, status: Status, session: &mut IscsiSession) {
        self.writes.remove(&tag).expect("a write in progress");
        session.complete(tag, status, self);
    }
}

impl Outside for Array {
    fn view(&self) -> &View {
        &self.view
    }

    fn now(&self) -> Time {
        self.now
    }

    fn heard(&self) -> Time {
        self.heard
    }

    fn submit(&mut self, tag: Tag, command: Command) {
        self.see(Seen::Submit(tag, command));
    }

    fn abort(&mut self, tag: Tag) {
        self.see(Seen::Abort(tag));
    }

    fn data(&mut self, tag: Tag, offset: u64, bytes: &[u8]) {
        self.see(Seen::Data(tag, offset, bytes.to_vec()));
    }

    fn fetched(&mut self, tag: Tag, complete: bool) {
        self.fetching.remove(&tag);
        self.see(Seen::Fetched(tag, complete));
    }

    fn unsent(&self) -> usize {
        self.unsent
    }
}

/// A PDU in either direction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pdu {
    pub header: [u8; 48],
    pub data: Vec<u8>,
}

impl Pdu {
    pub fn new(opcode: u8, flags: u8, task_tag: u32) -> Pdu {
        let mut header = [0; 48];
        header[0] = opcode;
        header[1] = flags;
        header[16..20].copy_from_slice(&task_tag.to_be_bytes());
        Pdu {
            header,
            data: Vec::new(),
        }
    }

    /// A SCSI command in order. `flags` without the F bit; `expected` is the expected data transfer length.
    pub fn command(lun: u8, flags: u8, expected: u32, cdb: &[u8], data: &[u8]) -> Pdu {
        let mut pdu = Pdu::new(0x01, 0x80 | flags, 0).set32(20, expected).with(data);
        pdu.header[9] = lun;
        pdu.header[32..32 + cdb.len()].copy_from_slice(cdb);
        pdu
    }

    pub fn data_out(task_tag: u32, transfer_tag: u32, data_sn: u32, offset: u32, is_final: bool, data: &[u8]) -> Pdu {
        let pdu = Pdu::new(0x05, u8::from(is_final) << 7, task_tag).set32(20, transfer_tag);
        pdu.set32(36, data_sn).set32(40, offset).with(data)
    }

    pub fn with(mut self, data: &[u8]) -> Pdu {
        self.data = data.to_vec();
        let length = data.len() as u32;
        self.header[5..8].copy_from_slice(&length.to_be_bytes()[1..]);
        self
    }

    pub fn set32(mut self, at: usize, value: u32) -> Pdu {
        self.header[at..at + 4].copy_from_slice(&value.to_be_bytes());
        self
    }

    pub fn set8(mut self, at: usize, value: u8) -> Pdu {
        self.header[at] = value;
        self
    }

    pub fn get32(&self, at: usize) -> u32 {
        u32::from_be_bytes(self.header[at..at + 4].try_into().expect("four bytes"))
    }

    pub fn opcode(&self) -> u8 {
        self.header[0] & 0x3f
    }

    pub fn flags(&self) -> u8 {
        self.header[1]
    }

    /// Status class and detail of a login response.
    pub fn login_status(&self) -> u16 {
        assert_eq!(self.opcode(), 0x23, "{self:x?}");
        u16::from_be_bytes([self.header[36], self.header[37]])
    }

    /// Sense key, ASC and ASCQ of a SCSI response with CHECK CONDITION.
    pub fn sense(&self) -> (u8, u8, u8) {
        assert_eq!((self.opcode(), self.header[3]), (0x21, 2), "{self:x?}");
        assert_eq!(self.data[..2], [0, 18], "sense length");
        (self.data[4], self.data[14], self.data[15])
    }

    pub fn to_bytes(&self, digests: bool) -> Vec<u8> {
        let mut bytes = self.header.to_vec();
        if digests {
            bytes.extend_from_slice(&twincell_wire::crc32c(&self.header).to_le_bytes());
        }
        let mut data = self.data.clone();
        data.resize(data.len().next_multiple_of(4), 0);
        bytes.extend_from_slice(&data);
        if digests && !data.is_empty() {
            bytes.extend_from_slice(&twincell_wire::crc32c(&data).to_le_bytes());
        }
        bytes
    }
}

/// Takes PDUs apart; all of them must be whole.
pub fn pdus(mut bytes: &[u8], digests: bool) -> Vec<Pdu> {
    let mut pdus = Vec::new();
    let digest = if digests { 4 } else { 0 };
    while !bytes.is_empty() {
        let (header, rest) = bytes.split_first_chunk::<48>().expect("a whole header");
        if digests {
            assert_eq!(rest[..4], twincell_wire::crc32c(header).to_le_bytes(), "header digest");
        }
        let rest = &rest[digest..];
        let length = u32::from_be_bytes([0, header[5], header[6], header[7]]) as usize;
        let padded = length.next_multiple_of(4);
        let data = rest[..length].to_vec();
        bytes = &rest[padded..];
        if digests && length > 0 {
            assert_eq!(
                bytes[..4],
                twincell_wire::crc32c(&rest[..padded]).to_le_bytes(),
                "data digest"
            );
            bytes = &bytes[4..];
        }
        pdus.push(Pdu { header: *header, data });
    }
    pdus
}

/// `key=value` lines as they are on the wire.
pub fn text(lines: &[&str]) -> Vec<u8> {
    lines.iter().flat_map(|line| line.bytes().chain([0])).collect()
}

/// A session with both its sides.
pub struct Host {
    pub session: IscsiSession,
    pub array: Array,
    pub cmd_sn: u32,
    pub task_tag: u32,
    pub digests: bool,
}

impl Host {
    /// A connection before the login.
    pub fn connect() -> Host {
        Host {
            session: IscsiSession::new(NonZeroU16::MIN),
            array: Array::new(),
            cmd_sn: 10,
            task_tag: 0x100,
            digests: false,
        }
    }

    /// A session after a login that goes straight to the operational stage, with these keys besides the names, and
    /// after the unit attention of LUN 0 was taken.
    pub fn login(keys: &[&str]) -> Host {
        let mut host = Host::connect();
        let names = [format!("InitiatorName={INITIATOR}"), format!("TargetName={TARGET}")];
        let lines: Vec<&str> = names.iter().map(String::as_str).chain(keys.iter().copied()).collect();
        let reply = host.exchange(&Host::login_pdu(1, 3, &lines));
        assert_eq!(reply[0].login_status(), 0, "login");
        assert_eq!(reply[0].flags(), 0x87);
        host.digests = keys.contains(&"HeaderDigest=CRC32C");
        let attention = host.command(Pdu::command(0, 0, 0, &[0; 6], &[]));
        assert_eq!(attention[0].sense(), (6, 0x29, 0));
        host
    }

    /// A login request from stage `csg`, with the T bit, to stage `nsg`.
    pub fn login_pdu(csg: u8, nsg: u8, lines: &[&str]) -> Pdu {
        let mut pdu = Pdu::new(0x43, 0x80 | csg << 2 | nsg, 0xabcd)
            .set32(24, 10)
            .set32(28, 0)
            .with(&text(lines));
        pdu.header[8..14].copy_from_slice(&[0x80, 1, 2, 3, 4, 5]);
        pdu
    }

    /// Sends bytes; what the session answers at once.
    pub fn receive(&mut self, bytes: &[u8]) -> Vec<Pdu> {
        self.array.heard = self.array.now;
        self.session.receive(bytes, &mut self.array);
        self.answers()
    }

    /// Takes the output.
    pub fn answers(&mut self) -> Vec<Pdu> {
        let output = std::mem::take(self.session.output());
        pdus(&output, self.digests)
    }

    /// Sends a PDU as it is; the answers of the session alone.
    pub fn send(&mut self, pdu: &Pdu) -> Vec<Pdu> {
        self.receive(&pdu.to_bytes(self.digests))
    }

    /// Sends a PDU as it is and lets the array work; all answers.
    pub fn exchange(&mut self, pdu: &Pdu) -> Vec<Pdu> {
        self.array.heard = self.array.now;
        self.session.receive(&pdu.to_bytes(self.digests), &mut self.array);
        self.work()
    }

    /// Lets the array work; all answers.
    pub fn work(&mut self) -> Vec<Pdu> {
        self.array.work(&mut self.session);
        self.answers()
    }

    /// Gives a command the next CmdSN and a new task tag.
    pub fn number(&mut self, pdu: Pdu) -> Pdu {
        self.task_tag += 1;
        let numbered = pdu.set32(16, self.task_tag).set32(24, self.cmd_sn);
        if numbered.header[0] & 0x40 == 0 {
            self.cmd_sn += 1;
        }
        numbered
    }

    /// Numbers a command, sends it and lets the array work; all answers.
    pub fn command(&mut self, pdu: Pdu) -> Vec<Pdu> {
        let pdu = self.number(pdu);
        self.exchange(&pdu)
    }

    /// The Data-In of a command that ends well in one PDU.
    pub fn data_of(&mut self, lun: u8, cdb: &[u8]) -> Vec<u8> {
        let answers = self.command(Pdu::command(lun, 0x40, 0x10000, cdb, &[]));
        let [answer] = answers.as_slice() else {
            panic!("one PDU: {answers:x?}")
        };
        assert_eq!((answer.opcode(), answer.flags() & 0x81), (0x25, 0x81), "{answer:x?}");
        answer.data.clone()
    }

    /// The sense of a command that fails.
    pub fn sense_of(&mut self, lun: u8, cdb: &[u8]) -> (u8, u8, u8) {
        let answers = self.command(Pdu::command(lun, 0x40, 512, cdb, &[]));
        let [answer] = answers.as_slice() else {
            panic!("one PDU: {answers:x?}")
        };
        answer.sense()
    }
}
