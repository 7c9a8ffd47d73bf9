//! A host and an array in memory on both sides of an [`NbdSession`]. The numbers here are written out again from the
//! protocol document: a wrong constant must not pass because both sides share it.

use std::collections::BTreeMap;

use twincell_core::host::{HostOp, Status};
use twincell_core::ids::{BlockCount, Controller, NcaeIndex, Noid, Time, Uuid, Vba};
use twincell_core::layout::metadata::{Name, Redundancy};
use twincell_core::manage::LunView;

use super::NbdSession;
use crate::session::{Command, OUTPUT_BYTES_MAX, Outside, STRANGER_OUTPUT_BYTES_MAX, Session, Tag, View};

/// What a session did to the array, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Call {
    Submit(Tag, Command),
    Abort(Tag),
    Data(Tag, u64, Vec<u8>),
    Fetched(Tag, bool),
}

struct Recorder {
    view: View,
    calls: Vec<Call>,
    unsent: usize,
    now: Time,
    heard: Time,
    /// What the session keeps, and what it may.
    kept: usize,
    keeps_at_most: usize,
}

impl Outside for Recorder {
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
        self.calls.push(Call::Submit(tag, command));
    }

    fn abort(&mut self, tag: Tag) {
        self.calls.push(Call::Abort(tag));
    }

    fn data(&mut self, tag: Tag, offset: u64, bytes: &[u8]) {
        self.calls.push(Call::Data(tag, offset, bytes.to_vec()));
    }

    fn fetched(&mut self, tag: Tag, complete: bool) {
        self.calls.push(Call::Fetched(tag, complete));
    }

    fn unsent(&self) -> usize {
        self.unsent
    }

    fn keep(&mut self, bytes: usize) -> bool {
        let may = self.kept == 0 || self.kept + bytes <= self.keeps_at_most;
        self.kept += if may { bytes } else { 0 };
        may
    }

    fn let_go(&mut self, bytes: usize) {
        self.kept -= bytes;
    }
}

fn lun(number: u16, name: &str, blocks: u64) -> LunView {
    LunView {
        ncae: NcaeIndex(number),
        noid: Noid(u32::from(number) + 100),
        name: Name::new(name).unwrap(),
        uuid: Uuid(u128::from(number) + 1),
        blocks,
        redundancy: Redundancy::Vraid1,
        owner: Controller::A,
        moving: false,
    }
}

fn outside_with(luns: Vec<LunView>) -> Recorder {
    let view = View {
        controller: Controller::A,
        cell_name: "test".into(),
        target_name: "iqn.2026-11.io.twincell:test".into(),
        portals: [vec![], vec![]],
        luns,
        luns_generation: 1,
        paths_generation: 1,
        partner_in: true,
    };
    Recorder {
        view,
        calls: vec![],
        unsent: 0,
        now: Time(0),
        heard: Time(0),
        kept: 0,
        keeps_at_most: usize::MAX,
    }
}

const BLOCKS: u64 = 0x20000;

/// A session and its surroundings.
struct Rig {
    session: NbdSession,
    outside: Recorder,
}

impl Rig {
    /// Before the handshake; two LUNs.
    fn greeted() -> Rig {
        let mut rig = Rig {
            session: NbdSession::new(),
            outside: outside_with(vec![lun(0, "one", BLOCKS), lun(1, "two", 8)]),
        };
        assert_eq!(rig.sent(), b"NBDMAGICIHAVEOPT\x00\x03");
        rig
    }

    /// In transmission with LUN `one`.
    fn transmitting() -> Rig {
        let mut rig = Rig::greeted();
        rig.receive(&[0, 0, 0, 3]);
        rig.receive(&option(1, b"one"));
        assert_eq!(rig.sent(), hex("0000000004000000 010d"));
        rig
    }

    /// The session takes all of it, if it does not end.
    fn receive(&mut self, bytes: &[u8]) {
        self.outside.heard = self.outside.now;
        let taken = self.offer(bytes);
        assert!(taken == bytes.len() || self.session.is_over(), "{taken} were taken");
    }

    /// What came already. Returns how much the session takes.
    fn offer(&mut self, bytes: &[u8]) -> usize {
        self.session.receive(bytes, &mut self.outside)
    }

    fn sent(&mut self) -> Vec<u8> {
        std::mem::take(self.session.output())
    }

    fn calls(&mut self) -> Vec<Call> {
        std::mem::take(&mut self.outside.calls)
    }

    fn complete(&mut self, tag: Tag, status: Status) {
        self.session.complete(tag, status, &mut self.outside);
    }

    fn fetch(&mut self, tag: Tag, offset: u32, blocks: u32) {
        self.session
            .fetch(tag, BlockCount(offset), BlockCount(blocks), &mut self.outside);
    }

    /// The one command that was submitted since the last look.
    fn submitted(&mut self) -> (Tag, Command) {
        match self.calls().as_slice() {
            [Call::Submit(tag, command)] => (*tag, *command),
            other => panic!("one command expected: {other:?}"),
        }
    }
}

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}

fn option(number: u32, data: &[u8]) -> Vec<u8> {
    let mut bytes = b"IHAVEOPT".to_vec();
    bytes.extend(number.to_be_bytes());
    bytes.extend((data.len() as u32).to_be_bytes());
    bytes.extend(data);
    bytes
}

fn request(flags: u16, kind: u16, cookie: u64, offset: u64, length: u32) -> Vec<u8> {
    let mut bytes = hex("25609513");
    bytes.extend(flags.to_be_bytes());
    bytes.extend(kind.to_be_bytes());
    bytes.extend(cookie.to_be_bytes());
    bytes.extend(offset.to_be_bytes());
    bytes.extend(length.to_be_bytes());
    bytes
}

fn write(cookie: u64, offset: u64, data: &[u8]) -> Vec<u8> {
    let mut bytes = request(0, 1, cookie, offset, data.len() as u32);
    bytes.extend(data);
    bytes
}

fn simple_reply(error: u32, cookie: u64) -> Vec<u8> {
    let mut bytes = hex("67446698");
    bytes.extend(error.to_be_bytes());
    bytes.extend(cookie.to_be_bytes());
    bytes
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|i| (i * 7 + i / 512) as u8).collect()
}

#[test]
fn old_clients_get_zeroes_after_the_export() {
    let mut rig = Rig::greeted();
    rig.receive(&[0, 0, 0, 1]);
    rig.receive(&option(1, b"two"));
    let mut expected = hex("0000000000001000 010d");
    expected.resize(10 + 124, 0);
    assert_eq!(rig.sent(), expected);
}

#[test]
fn an_unknown_export_ends_the_old_way_in() {
    let mut rig = Rig::greeted();
    rig.receive(&[0, 0, 0, 3]);
    rig.receive(&option(1, b"three"));
    assert!(rig.session.is_over());
    assert_eq!(rig.sent(), b"");
}

#[test]
fn unknown_client_flags_end_the_connection() {
    let mut rig = Rig::greeted();
    rig.receive(&[0, 0, 0, 4]);
    assert!(rig.session.is_over());
}

#[test]
fn go_describes_the_export_byte_for_byte() {
    let mut rig = Rig::greeted();
    rig.receive(&[0, 0, 0, 3]);
    rig.receive(&option(7, &hex("00000003 6f6e65 0003 0001 0002 0003")));
    let mut expected = hex("0003e889045565a9 00000007 00000003 0000000c 0000 0000000004000000 010d");
    expected.extend(hex("0003e889045565a9 00000007 00000003 00000005 0001 6f6e65"));
    expected.extend(hex("0003e889045565a9 00000007 00000003 00000014 0002"));
    expected.extend(b"LUN 0 of cell test");
    expected.extend(hex(
        "0003e889045565a9 00000007 00000003 0000000e 0003 00000200 00001000 02000000",
    ));
    expected.extend(hex("0003e889045565a9 00000007 00000001 00000000"));
    assert_eq!(rig.sent(), expected);
    rig.receive(&request(0, 0, 1, 0, 512));
    assert_eq!(rig.submitted().1.noid, Noid(100), "transmission has begun");
}

#[test]
fn list_names_every_lun() {
    let mut rig = Rig::greeted();
    rig.receive(&[0, 0, 0, 3]);
    rig.receive(&option(3, b""));
    let mut expected = hex("0003e889045565a9 00000003 00000002 00000007 00000003 6f6e65");
    expected.extend(hex("0003e889045565a9 00000003 00000002 00000007 00000003 74776f"));
    expected.extend(hex("0003e889045565a9 00000003 00000001 00000000"));
    assert_eq!(rig.sent(), expected);
    rig.receive(&option(3, b"x"));
    assert_eq!(rig.sent(), hex("0003e889045565a9 00000003 80000003 00000000"));
}

#[test]
fn info_leaves_the_handshake_open() {
    let mut rig = Rig::greeted();
    rig.receive(&[0, 0, 0, 3]);
    rig.receive(&option(6, &hex("00000003 74776f 0000")));
    let mut expected = hex("0003e889045565a9 00000006 00000003 0000000c 0000 0000000000001000 010d");
    expected.extend(hex(
        "0003e889045565a9 00000006 00000003 0000000e 0003 00000200 00001000 02000000",
    ));
    expected.extend(hex("0003e889045565a9 00000006 00000001 00000000"));
    assert_eq!(rig.sent(), expected);
    rig.receive(&option(2, b""));
    assert_eq!(rig.sent(), hex("0003e889045565a9 00000002 00000001 00000000"));
    assert!(rig.session.is_over());
}

#[test]
fn refused_options_are_answered_and_the_handshake_goes_on() {
    let mut rig = Rig::greeted();
    rig.receive(&[0, 0, 0, 3]);
    // STARTTLS, STRUCTURED_REPLY and one that does not exist: unsupported. Unknown export. Lengths that lie.
    let cases = [
        (5, hex(""), "80000001"),
        (8, hex(""), "80000001"),
        (0x7777, hex("0102"), "80000001"),
        (7, hex("00000005 7468726565 0000"), "80000006"),
        (7, hex("00000000 0000"), "80000006"),
        (7, hex("00000009 6f6e65 0000"), "80000003"),
        (7, hex("00000003 6f6e65 0002 0001"), "80000003"),
        (6, hex("00000003 6f6e65 0001 0001 00"), "80000003"),
        (6, hex("ffffffff"), "80000003"),
        (6, hex("00"), "80000003"),
    ];
    for (number, data, error) in cases {
        rig.receive(&option(number, &data));
        let expected = hex(&format!("0003e889045565a9 {number:08x} {error} 00000000"));
        assert_eq!(rig.sent(), expected, "option {number}, data {data:02x?}");
        assert!(!rig.session.is_over());
    }
}

#[test]
fn the_empty_name_is_the_only_lun() {
    let mut rig = Rig::greeted();
    rig.outside = outside_with(vec![lun(5, "lonely", 16)]);
    rig.receive(&[0, 0, 0, 3]);
    rig.receive(&option(1, b""));
    assert_eq!(rig.sent(), hex("0000000000002000 010d"));
}

#[test]
fn options_without_magic_or_bound_end_the_connection() {
    for bad in [
        hex("49484156454f5055 00000003 00000000"),
        hex("49484156454f5054 00000003 00004001"),
    ] {
        let mut rig = Rig::greeted();
        rig.receive(&[0, 0, 0, 3]);
        rig.receive(&bad);
        assert!(rig.session.is_over(), "{bad:02x?}");
    }
}

#[test]
fn a_read_is_answered_when_all_its_data_are_there() {
    let mut rig = Rig::transmitting();
    rig.receive(&request(0, 0, 0x1122334455667788, 1024, 2048));
    let (tag, command) = rig.submitted();
    let expected = Command {
        ncae: NcaeIndex(0),
        noid: Noid(100),
        op: HostOp::Read,
        start: Vba(2),
        blocks: BlockCount(4),
        in_hand: BlockCount(0),
    };
    assert_eq!(command, expected);
    let data = pattern(2048);
    rig.session.send_data(tag, BlockCount(0), &data[..512]);
    rig.session.send_data(tag, BlockCount(1), &data[512..]);
    assert_eq!(rig.sent(), b"");
    rig.complete(tag, Status::Good);
    let mut expected = hex("67446698 00000000 1122334455667788");
    expected.extend(&data);
    assert_eq!(rig.sent(), expected);
}

#[test]
fn a_failed_read_sends_no_data() {
    let mut rig = Rig::transmitting();
    rig.receive(&request(0, 0, 9, 0, 1024));
    let (tag, _) = rig.submitted();
    rig.session.send_data(tag, BlockCount(0), &pattern(512));
    rig.complete(tag, Status::ReadError);
    assert_eq!(rig.sent(), simple_reply(5, 9));
}

#[test]
fn a_small_write_begins_when_its_data_are_in_hand() {
    let mut rig = Rig::transmitting();
    let data = pattern(4096);
    let bytes = {
        let mut bytes = request(1, 1, 7, 512, 4096);
        bytes.extend(&data);
        bytes
    };
    rig.receive(&bytes[..bytes.len() - 1]);
    assert_eq!(rig.calls(), []);
    rig.receive(&bytes[bytes.len() - 1..]);
    let (tag, command) = rig.submitted();
    assert_eq!(command.op, HostOp::Write { fua: true });
    assert_eq!(
        (command.start, command.blocks, command.in_hand),
        (Vba(1), BlockCount(8), BlockCount(8))
    );
    rig.fetch(tag, 0, 8);
    assert_eq!(rig.calls(), [Call::Data(tag, 0, data), Call::Fetched(tag, true)]);
    rig.complete(tag, Status::Good);
    assert_eq!(rig.sent(), simple_reply(0, 7));
}

#[test]
fn a_large_write_begins_at_its_header_and_hands_over_what_comes() {
    let mut rig = Rig::transmitting();
    let data = pattern(128 << 10);
    rig.receive(&request(0, 1, 8, 0, 128 << 10));
    let (tag, command) = rig.submitted();
    assert_eq!((command.blocks, command.in_hand), (BlockCount(256), BlockCount(0)));
    rig.receive(&data[..1000]);
    assert_eq!(rig.calls(), [], "nobody has asked yet");
    rig.fetch(tag, 0, 128);
    assert_eq!(rig.calls(), [Call::Data(tag, 0, data[..1000].to_vec())]);
    rig.receive(&data[1000..100_000]);
    assert_eq!(
        rig.calls(),
        [
            Call::Data(tag, 1000, data[1000..65536].to_vec()),
            Call::Fetched(tag, true)
        ]
    );
    rig.receive(&data[100_000..]);
    assert_eq!(rig.calls(), []);
    rig.fetch(tag, 128, 128);
    assert_eq!(
        rig.calls(),
        [Call::Data(tag, 65536, data[65536..].to_vec()), Call::Fetched(tag, true)]
    );
    rig.complete(tag, Status::Good);
    assert_eq!(rig.sent(), simple_reply(0, 8));
}

#[test]
fn a_write_that_fails_early_is_answered_after_its_data() {
    let mut rig = Rig::transmitting();
    let data = pattern(128 << 10);
    rig.receive(&request(0, 1, 8, 1 << 60, 128 << 10));
    let (tag, _) = rig.submitted();
    rig.receive(&data[..70_000]);
    rig.complete(tag, Status::OutOfRange);
    assert_eq!(rig.sent(), b"");
    rig.receive(&data[70_000..]);
    assert_eq!(rig.sent(), simple_reply(28, 8));
    assert_eq!(rig.calls(), []);
    rig.receive(&request(0, 3, 9, 0, 0));
    assert_eq!(rig.submitted().1.op, HostOp::Sync);
}

#[test]
fn a_flush_is_for_the_whole_lun() {
    let mut rig = Rig::transmitting();
    rig.receive(&request(0, 3, 3, 0, 0));
    let (tag, command) = rig.submitted();
    assert_eq!(
        (command.op, command.start, command.blocks),
        (HostOp::Sync, Vba(0), BlockCount(0))
    );
    rig.complete(tag, Status::Good);
    assert_eq!(rig.sent(), simple_reply(0, 3));
}

#[test]
fn senseless_requests_are_refused_and_the_next_one_is_found() {
    let mut rig = Rig::transmitting();
    let mut unaligned_write = request(0, 1, 4, 0, 513);
    unaligned_write.extend([0xee; 513]);
    let cases = [
        request(0, 0, 4, 1, 512),
        request(0, 0, 4, 0, 100),
        request(0, 0, 4, 0, 0),
        request(0, 1, 4, 0, 0),
        request(0, 0, 4, 0, (32 << 20) + 512),
        request(0, 0, 4, 0, u32::MAX),
        request(2, 0, 4, 0, 512),
        request(0, 4, 4, 0, 512),
        request(0, 6, 4, 0, 512),
        request(0, 99, 4, 0, 512),
        unaligned_write,
    ];
    for bytes in cases {
        rig.receive(&bytes);
        assert_eq!(rig.sent(), simple_reply(22, 4), "{:02x?}", &bytes[..28]);
        assert_eq!(rig.calls(), []);
    }
    rig.receive(&request(1, 0, 5, 0, 512));
    assert_eq!(
        rig.submitted().1.op,
        HostOp::Read,
        "FUA on a read means nothing, and is no error"
    );
}

#[test]
fn a_write_longer_than_any_may_be_ends_the_connection() {
    let mut rig = Rig::transmitting();
    rig.receive(&request(0, 1, 4, 0, (32 << 20) + 512));
    assert!(rig.session.is_over());
}

#[test]
fn a_request_without_magic_ends_the_connection() {
    let mut rig = Rig::transmitting();
    let mut bytes = request(0, 0, 4, 0, 512);
    bytes[0] = 0;
    rig.receive(&bytes);
    assert!(rig.session.is_over());
    assert_eq!(rig.calls(), []);
}

#[test]
fn statuses_become_errors() {
    let cases = [
        (0, Status::Aborted, 108),
        (0, Status::NoSuchLun, 108),
        (0, Status::OutOfRange, 22),
        (1, Status::OutOfRange, 28),
        (1, Status::WriteError, 5),
        (1, Status::Aborted, 108),
        (3, Status::WriteError, 5),
    ];
    for (kind, status, error) in cases {
        let mut rig = Rig::transmitting();
        let mut bytes = request(0, kind, 1, 0, 512);
        if kind == 1 {
            bytes.extend([0; 512]);
        }
        rig.receive(&bytes);
        let (tag, _) = rig.submitted();
        rig.complete(tag, status);
        assert_eq!(rig.sent(), simple_reply(error, 1), "{kind} {status:?}");
    }
}

/// A client asks for far more than it reads. What comes after a read that waits for room waits behind it; all comes in the end.
#[test]
fn reads_wait_for_a_client_that_reads_nothing() {
    let mut rig = Rig::transmitting();
    let long = 8 << 20;
    for cookie in 1..=3 {
        rig.receive(&request(0, 0, cookie, 0, long));
    }
    rig.receive(&write(4, 0, &pattern(512)));
    let calls = rig.calls();
    let [Call::Submit(first, _), Call::Submit(second, _)] = calls[..] else {
        panic!("two have room: {calls:?}")
    };
    let data = vec![7; long as usize];
    rig.session.send_data(first, BlockCount(0), &data);
    rig.complete(first, Status::Good);
    assert_eq!(rig.calls(), [], "the reply is held");
    rig.outside.unsent = rig.sent().len();
    rig.session.sent(&mut rig.outside);
    assert_eq!(rig.calls(), [], "the client has not taken it");
    rig.outside.unsent = 0;
    rig.session.sent(&mut rig.outside);
    assert_eq!(rig.calls().len(), 2, "the third read and the write");
    rig.session.send_data(second, BlockCount(0), &data);
    rig.complete(second, Status::Good);
    assert_eq!(rig.sent().len(), 16 + long as usize);
}

#[test]
fn what_is_refused_for_the_moment_is_tried_again() {
    let mut rig = Rig::transmitting();
    let data = pattern(512);
    rig.receive(&write(1, 0, &data));
    let (tag, first) = rig.submitted();
    for _ in 0..4 {
        rig.complete(tag, Status::Busy);
        assert_eq!(rig.submitted(), (tag, first), "at once");
    }
    assert!(!rig.session.wants_view_changed());
    rig.complete(tag, Status::Transitioning);
    assert_eq!(rig.calls(), [], "not for ever");
    assert!(rig.session.wants_view_changed());
    rig.session.view_changed(&mut rig.outside);
    assert!(!rig.session.wants_view_changed());
    assert_eq!(rig.submitted(), (tag, first));
    rig.complete(tag, Status::Transitioning);
    assert_eq!(rig.calls(), []);
    rig.offer(&[]);
    assert_eq!(rig.calls(), [], "nothing has happened");
    rig.outside.now = Time(1);
    rig.receive(&request(0, 3, 2, 0, 0));
    let calls = rig.calls();
    assert_eq!((calls.len(), &calls[0]), (2, &Call::Submit(tag, first)));
    rig.fetch(tag, 0, 1);
    assert_eq!(rig.calls(), [Call::Data(tag, 0, data), Call::Fetched(tag, true)]);
    rig.complete(tag, Status::Good);
    assert_eq!(rig.sent(), simple_reply(0, 1));
}

/// Reads and writes that the array refuses for long. A host of which nothing is heard may have sent its write again elsewhere.
#[test]
fn a_write_is_not_tried_again_when_its_host_may_be_gone() {
    let ms = |ms: u64| Time(ms * 1_000_000);
    let refused = |bytes: &[u8]| {
        let mut rig = Rig::transmitting();
        rig.outside.now = ms(1_000);
        rig.receive(bytes);
        for _ in 0..5 {
            let (tag, _) = rig.submitted();
            rig.complete(tag, Status::Busy);
        }
        rig
    };
    let is_tried_again = |rig: &mut Rig, now| {
        rig.outside.now = now;
        rig.session.view_changed(&mut rig.outside);
        assert_eq!(rig.session.is_over(), rig.calls().is_empty());
        !rig.session.is_over()
    };
    let write = write(1, 0, &pattern(512));
    assert!(is_tried_again(&mut refused(&write), ms(5_199)));
    assert!(!is_tried_again(&mut refused(&write), ms(5_200)));
    assert!(
        is_tried_again(&mut refused(&request(0, 0, 1, 0, 512)), ms(60_000)),
        "a read"
    );
    let mut alive = refused(&write);
    alive.outside.now = ms(5_199);
    alive.receive(&request(0, 0, 2, 0, 512));
    for _ in 0..2 {
        let Some(Call::Submit(tag, _)) = alive.calls().pop() else {
            panic!("nothing is tried again");
        };
        alive.complete(tag, Status::Busy);
    }
    assert!(is_tried_again(&mut alive, ms(9_398)), "the host is there");
}

/// What waits behind 128 others waits as long as these.
#[test]
fn a_write_behind_others_is_not_begun_when_its_host_may_be_gone() {
    let mut rig = Rig::transmitting();
    for cookie in 0..129 {
        rig.receive(&write(cookie, 0, &pattern(512)));
    }
    let calls = rig.calls();
    let [Call::Submit(first, _), .., Call::Submit(second, _)] = calls[..] else {
        panic!("{calls:?}")
    };
    rig.outside.now = Time(4_200_000_000);
    rig.complete(first, Status::Good);
    assert!(rig.session.is_over() && rig.calls().is_empty());
    rig.session.disconnected(&mut rig.outside);
    rig.complete(second, Status::Good);
    assert_eq!(rig.calls().len(), 127, "what the array has is withdrawn");
}

/// The array wants a later portion of a long write, whose data are here, and its host may be gone.
#[test]
fn a_later_portion_is_not_begun_when_the_host_may_be_gone() {
    let mut rig = Rig::transmitting();
    rig.receive(&write(1, 0, &pattern(256 << 10)));
    let (tag, _) = rig.submitted();
    rig.fetch(tag, 0, 256);
    assert!(matches!(rig.calls()[..], [Call::Data(..), Call::Fetched(_, true)]));
    rig.outside.now = Time(4_200_000_000);
    rig.fetch(tag, 256, 256);
    assert_eq!(rig.calls(), [Call::Fetched(tag, false)]);
    assert!(rig.session.is_over());
}

#[test]
fn a_read_that_is_tried_again_begins_anew() {
    let mut rig = Rig::transmitting();
    rig.receive(&request(0, 0, 1, 0, 1024));
    let (tag, _) = rig.submitted();
    rig.session.send_data(tag, BlockCount(0), &[1; 512]);
    rig.complete(tag, Status::Busy);
    rig.session.send_data(tag, BlockCount(0), &[2; 1024]);
    rig.complete(tag, Status::Good);
    let mut expected = simple_reply(0, 1);
    expected.extend([2; 1024]);
    assert_eq!(rig.sent(), expected);
}

#[test]
fn the_array_gets_128_commands_at_a_time_and_the_rest_in_turn() {
    let mut rig = Rig::transmitting();
    for cookie in 0..200 {
        rig.receive(&request(0, 0, cookie, cookie * 512, 512));
    }
    let calls = rig.calls();
    assert_eq!(calls.len(), 128);
    let Call::Submit(tag, _) = calls[0] else {
        panic!("{:?}", calls[0])
    };
    rig.complete(tag, Status::ReadError);
    let (reused, next) = rig.submitted();
    assert_eq!(next.start, Vba(128));
    assert_ne!(reused, tag, "the next had its tag already");
}

/// Names as long as they may be, so that a list of them is long too.
fn many_luns() -> Vec<LunView> {
    (0..200).map(|n| lun(n, &format!("{n:064}"), 8)).collect()
}

/// Anybody can ask for lists, and read none: each costs a thousand times as much as the question.
#[test]
fn a_stranger_who_reads_nothing_gets_few_answers_and_all_when_it_reads() {
    let mut rig = Rig::greeted();
    rig.outside = outside_with(many_luns());
    rig.receive(&[0, 0, 0, 3]);
    rig.receive(&option(3, b""));
    let answer = rig.sent();
    let questions = option(3, b"").repeat(1000);
    let mut rest = &questions[..];
    let mut answers = 0;
    while !rest.is_empty() {
        let taken = rig.offer(rest);
        assert!(taken > 0, "nothing is taken though all is read");
        rest = &rest[taken..];
        assert_eq!(rig.offer(rest), 0, "before anything is read");
        let output = rig.sent();
        assert!(output.len() <= STRANGER_OUTPUT_BYTES_MAX + answer.len());
        rig.outside.unsent = output.len();
        assert_eq!(rig.offer(rest), 0, "before all is read");
        rig.outside.unsent = 0;
        answers += output.len();
    }
    assert_eq!(answers, 1000 * answer.len());
}

#[test]
fn requests_that_are_answered_at_once_wait_for_a_client_that_reads_nothing() {
    let mut rig = Rig::transmitting();
    let senseless = request(0, 99, 4, 0, 512).repeat(OUTPUT_BYTES_MAX / 16 + 10);
    let taken = rig.offer(&senseless);
    assert_eq!(taken, 28 * (OUTPUT_BYTES_MAX / 16 + 1));
    assert_eq!(rig.sent().len(), OUTPUT_BYTES_MAX + 16);
    rig.receive(&senseless[taken..]);
    assert_eq!(rig.sent().len(), 9 * 16);
}

#[test]
fn requests_of_one_connection_are_taken_as_others_are_answered() {
    let mut rig = Rig::transmitting();
    let requests: Vec<u8> = (0..300).flat_map(|cookie| request(0, 0, cookie, 0, 512)).collect();
    let taken = rig.offer(&requests);
    assert_eq!(taken, 28 * 256);
    let Call::Submit(tag, _) = rig.calls()[0] else {
        panic!("the first was not submitted")
    };
    rig.complete(tag, Status::ReadError);
    assert_eq!(rig.offer(&requests[taken..]), 28);
    assert_eq!(rig.sent(), simple_reply(5, 0), "nothing else is answered");
}

/// A client sends as many of the longest writes as it likes. They are kept in pieces, as there is room for them.
#[test]
fn long_writes_need_little_room() {
    let (length, count) = (8 << 20, 4);
    for most in [0, 3 << 20, usize::MAX] {
        let mut rig = Rig::transmitting();
        rig.outside.keeps_at_most = most;
        let data: Vec<u8> = (0..count * length).map(|i| (i / 4099 + i) as u8).collect();
        let cookies = (0..).zip(data.chunks(length));
        let stream: Vec<u8> = cookies
            .flat_map(|(n, data)| write(n, n * length as u64, data))
            .collect();
        let (mut rest, mut kept) = (&stream[..], 0);
        let mut array = Array {
            blocks: vec![0; count * length],
            running: BTreeMap::new(),
            fetches_at_most: 256,
        };
        let mut random = Random(1);
        let mut sent = vec![];
        while sent.len() < 16 * count {
            let taken = rig.offer(&rest[..rest.len().min(256 << 10)]);
            rest = &rest[taken..];
            kept = kept.max(rig.outside.kept);
            let works = array.work(&mut rig, &mut random);
            rig.session.view_changed(&mut rig.outside);
            assert!(taken > 0 || works || !rig.outside.calls.is_empty(), "nothing goes on");
            sent.extend(rig.sent());
        }
        let expected: Vec<u8> = (0..count as u64).flat_map(|n| simple_reply(0, n)).collect();
        let mut replies: Vec<&[u8]> = sent.chunks(16).collect();
        replies.sort();
        assert!(replies.concat() == expected, "{sent:x?}");
        assert!(array.blocks == data, "other data on the array");
        assert_eq!(rig.outside.kept, 0);
        assert!(kept <= most.max(1 << 20), "{kept} bytes were kept");
    }
}

/// There is room for one at a time: the other is not begun, or the array would wait for what is not taken.
#[test]
fn a_write_begins_when_there_is_room_for_its_data() {
    let mut rig = Rig::transmitting();
    rig.outside.keeps_at_most = 128 << 10;
    let data = pattern(128 << 10);
    rig.receive(&write(1, 0, &data));
    let (first, _) = rig.submitted();
    let second = write(2, 0, &data);
    assert_eq!(rig.offer(&second), 28);
    assert_eq!(rig.calls(), []);
    rig.complete(first, Status::Good);
    rig.receive(&second[28..]);
    let (second, _) = rig.submitted();
    rig.fetch(second, 0, 256);
    assert_eq!(rig.calls(), [Call::Data(second, 0, data), Call::Fetched(second, true)]);
}

/// The array does not do that. If it did, other data must not be written in the place of those that are gone.
#[test]
fn a_write_whose_data_are_gone_is_not_submitted_again() {
    let mut rig = Rig::transmitting();
    rig.receive(&write(1, 0, &pattern(256 << 10)));
    let (tag, _) = rig.submitted();
    rig.fetch(tag, 0, 256);
    rig.fetch(tag, 256, 256);
    rig.calls();
    rig.fetch(tag, 0, 256);
    assert_eq!(rig.calls(), [Call::Fetched(tag, false)]);
    rig.complete(tag, Status::Busy);
    assert_eq!(rig.calls(), []);
    assert_eq!(rig.sent(), simple_reply(108, 1));
}

/// What is taken late counts from when it came.
#[test]
fn a_write_that_was_not_taken_in_time_is_not_begun() {
    let full = || {
        let mut rig = Rig::transmitting();
        for cookie in 0..256 {
            rig.receive(&request(0, 0, cookie, 0, 512));
        }
        let Call::Submit(tag, _) = rig.calls()[0] else {
            panic!("the first was not submitted")
        };
        rig.outside.now = Time(4_200_000_000);
        rig.complete(tag, Status::ReadError);
        rig.calls();
        rig
    };
    let mut rig = full();
    rig.offer(&request(0, 0, 1000, 0, 512));
    assert!(!rig.session.is_over(), "a read");
    let mut rig = full();
    assert_eq!(rig.offer(&write(1000, 0, &pattern(512))), 28 + 512);
    (1..256).for_each(|index| rig.complete(Tag(index), Status::ReadError));
    assert!(rig.session.is_over());
    let is_write = |call: &Call| matches!(call, Call::Submit(_, command) if command.op != HostOp::Read);
    assert!(!rig.calls().iter().any(is_write));
}

#[test]
fn a_fetch_ends_with_the_command_that_is_refused() {
    let mut rig = Rig::transmitting();
    rig.receive(&request(0, 1, 8, 0, 128 << 10));
    let (tag, _) = rig.submitted();
    rig.fetch(tag, 0, 256);
    rig.complete(tag, Status::Busy);
    rig.submitted();
    rig.receive(&[5; 128 << 10]);
    assert_eq!(rig.calls(), [], "the command that is tried again has not asked yet");
    rig.fetch(tag, 0, 256);
    assert_eq!(
        rig.calls(),
        [Call::Data(tag, 0, vec![5; 128 << 10]), Call::Fetched(tag, true)]
    );
}

#[test]
fn a_disconnect_waits_for_what_is_in_progress() {
    let mut rig = Rig::transmitting();
    rig.receive(&request(0, 3, 3, 0, 0));
    let (tag, _) = rig.submitted();
    let mut bytes = request(0, 2, 0, 0, 0);
    bytes.extend(request(0, 3, 4, 0, 0));
    rig.receive(&bytes);
    assert!(!rig.session.is_over());
    assert_eq!(rig.calls(), [], "nothing is begun after it");
    rig.complete(tag, Status::Good);
    assert_eq!(rig.sent(), simple_reply(0, 3));
    assert!(rig.session.is_over());
}

#[test]
fn a_host_that_is_gone_leaves_nothing_running() {
    let mut rig = Rig::transmitting();
    rig.receive(&request(0, 0, 1, 0, 512));
    let (read, _) = rig.submitted();
    rig.receive(&request(0, 1, 2, 0, 128 << 10));
    let (large, _) = rig.submitted();
    rig.fetch(large, 0, 256);
    rig.session.disconnected(&mut rig.outside);
    assert_eq!(
        rig.calls(),
        [Call::Abort(read), Call::Fetched(large, false), Call::Abort(large)]
    );
    rig.complete(read, Status::Busy);
    rig.fetch(large, 0, 256);
    assert_eq!(rig.calls(), [Call::Fetched(large, false)]);
    rig.complete(large, Status::Aborted);
    assert_eq!(rig.calls(), []);
    assert_eq!(rig.sent(), b"");
    assert!(rig.session.is_over());
}

#[test]
fn a_small_write_whose_end_never_came_is_forgotten() {
    let mut rig = Rig::transmitting();
    rig.receive(&request(0, 1, 2, 0, 1024));
    rig.receive(&[0; 600]);
    rig.session.disconnected(&mut rig.outside);
    assert_eq!(rig.calls(), []);
}

/// Small, fast, repeatable.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (self.0 >> 33) % n
    }
}

/// An array that carries out everything, in its own order, in pieces, with refusals now and then.
struct Array {
    blocks: Vec<u8>,
    /// With what was fetched of a write, or was given of a read.
    running: BTreeMap<Tag, (Command, u32)>,
    /// Blocks.
    fetches_at_most: u32,
}

/// Data of a write are on their way.
const FETCHING: u32 = 1 << 31;

impl Array {
    /// Takes what the session did, then carries on with one command. `false` if there is nothing to do.
    fn work(&mut self, rig: &mut Rig, random: &mut Random) -> bool {
        for call in rig.calls() {
            match call {
                Call::Submit(tag, command) => assert!(self.running.insert(tag, (command, 0)).is_none()),
                Call::Data(tag, offset, bytes) => {
                    let at = (self.running[&tag].0.start.0 * 512 + offset) as usize;
                    self.blocks[at..at + bytes.len()].copy_from_slice(&bytes);
                }
                Call::Fetched(tag, complete) => {
                    assert!(complete);
                    self.running.get_mut(&tag).unwrap().1 &= !FETCHING;
                }
                Call::Abort(tag) => panic!("{tag:?} aborted"),
            }
        }
        let ready: Vec<Tag> = self.running.keys().copied().collect();
        if ready.is_empty() {
            return false;
        }
        self.advance(ready[random.below(ready.len() as u64) as usize], rig, random);
        true
    }

    fn advance(&mut self, tag: Tag, rig: &mut Rig, random: &mut Random) {
        let (command, progress) = self.running[&tag];
        if progress == 0 && random.below(4) == 0 {
            self.running.remove(&tag);
            return rig.complete(tag, Status::Busy);
        }
        match command.op {
            HostOp::Write { .. } if progress & FETCHING != 0 => {}
            HostOp::Write { .. } if progress < command.blocks.0 => {
                let blocks = self.fetches_at_most.min(command.blocks.0 - progress);
                self.running.get_mut(&tag).unwrap().1 = FETCHING | (progress + blocks);
                rig.fetch(tag, progress, blocks);
            }
            HostOp::Read if progress < command.blocks.0 => {
                let piece = 1 + random.below(u64::from(command.blocks.0 - progress)) as u32;
                let at = (command.start.0 as usize + progress as usize) * 512;
                let bytes = &self.blocks[at..at + piece as usize * 512];
                rig.session.send_data(tag, BlockCount(progress), bytes);
                self.running.get_mut(&tag).unwrap().1 += piece;
            }
            _ => {
                self.running.remove(&tag);
                rig.complete(tag, Status::Good);
            }
        }
    }
}

/// Whatever the pieces that the stream arrives in, and whatever the order in which the array works.
#[test]
fn random_splits_change_nothing() {
    for seed in 0..200 {
        let mut random = Random(seed);
        let mut rig = Rig::transmitting();
        let mut array = Array {
            blocks: vec![0; 12 * 300 * 512],
            running: BTreeMap::new(),
            fetches_at_most: [256, u32::MAX][(seed % 2) as usize],
        };
        // Writes to places of their own, then, when all are answered, a read of each.
        let mut stream = vec![];
        let mut expected = vec![0; array.blocks.len()];
        for cookie in 0..12_u64 {
            let length = 512 * [1, 3, 8, 128, 129, 300][random.below(6) as usize];
            let at = cookie as usize * 300 * 512;
            let data: Vec<u8> = (0..length).map(|_| random.below(256) as u8).collect();
            expected[at..at + length].copy_from_slice(&data);
            stream.extend(write(cookie, at as u64, &data));
        }
        let replies = play(&mut rig, &mut array, &mut random, &stream, &[0; 12]);
        assert!(
            replies.values().all(|r| r == &Some(vec![])),
            "seed {seed}: {:?}",
            replies.keys()
        );
        assert!(array.blocks == expected, "seed {seed}: other data on the array");

        let reads: Vec<usize> = (0..12).map(|_| 512 * (1 + random.below(200) as usize)).collect();
        let mut stream = vec![];
        for (cookie, length) in reads.iter().enumerate() {
            stream.extend(request(0, 0, cookie as u64, cookie as u64 * 300 * 512, *length as u32));
        }
        let replies = play(&mut rig, &mut array, &mut random, &stream, &reads);
        for (cookie, length) in reads.iter().enumerate() {
            let at = cookie * 300 * 512;
            let data = replies[&(cookie as u64)].as_deref();
            assert!(
                data == Some(&expected[at..at + length]),
                "seed {seed}: read {cookie} differs"
            );
        }
    }
}

/// Feeds `stream` in random pieces while the array works, and takes the replies apart: cookie -> data, or `None` for
/// an error. `lengths` says how much data the reply to each cookie carries.
fn play(
    rig: &mut Rig,
    array: &mut Array,
    random: &mut Random,
    stream: &[u8],
    lengths: &[usize],
) -> BTreeMap<u64, Option<Vec<u8>>> {
    let mut rest = stream;
    let mut sent = vec![];
    while !rest.is_empty() {
        let longest = [30, 600, 100_000][random.below(3) as usize];
        let length = 1 + random.below(longest) as usize;
        let (piece, after) = rest.split_at(length.min(rest.len()));
        rig.receive(piece);
        rest = after;
        for _ in 0..random.below(8) {
            array.work(rig, random);
        }
        sent.extend(rig.sent());
    }
    for _ in 0..100_000 {
        if !array.work(rig, random) {
            rig.session.view_changed(&mut rig.outside);
            if rig.outside.calls.is_empty() {
                break;
            }
        }
    }
    sent.extend(rig.sent());
    let mut replies = BTreeMap::new();
    let mut at = 0;
    while at < sent.len() {
        assert_eq!(sent[at..at + 4], hex("67446698"));
        let good = sent[at + 4..at + 8] == [0; 4];
        let cookie = u64::from_be_bytes(sent[at + 8..at + 16].try_into().unwrap());
        let end = at + 16 + if good { lengths[cookie as usize] } else { 0 };
        let before = replies.insert(cookie, good.then(|| sent[at + 16..end].to_vec()));
        assert!(before.is_none(), "cookie {cookie} answered twice");
        at = end;
    }
    assert_eq!(replies.len(), lengths.len(), "every request is answered");
    replies
}

/// Nothing that a host sends makes the session panic, whatever its phase.
#[test]
fn garbage_is_survived() {
    for seed in 0..2000 {
        let mut random = Random(seed);
        let mut rig = if random.below(2) == 0 {
            Rig::transmitting()
        } else {
            Rig::greeted()
        };
        let mut bytes = vec![];
        for _ in 0..1 + random.below(8) {
            let mut part = match random.below(5) {
                0 => option(random.below(12) as u32, &[0, 0, 0, 3, b'o', b'n', b'e', 0, 0]),
                1 => request(0, random.below(8) as u16, seed, 0, 512 * random.below(5) as u32),
                2 => write(seed, 512, &[3; 1536]),
                3 => vec![0, 0, 0, 3],
                _ => (0..random.below(80)).map(|_| random.below(256) as u8).collect(),
            };
            if !part.is_empty() && random.below(3) == 0 {
                let at = random.below(part.len() as u64) as usize;
                part[at] ^= 1 << random.below(8);
            }
            bytes.extend(part);
        }
        for piece in bytes.chunks(1 + random.below(100) as usize) {
            rig.receive(piece);
        }
        rig.session.disconnected(&mut rig.outside);
        assert!(rig.session.is_over(), "seed {seed}");
    }
}
