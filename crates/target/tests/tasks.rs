//! The command window, task management, task attributes and what breaks the protocol

mod support;

use support::{Host, Pdu, Seen};
use twincell_core::host::Status;
use twincell_core::ids::{BlockCount, Nanos, Time};
use twincell_target::iscsi::COMMAND_WINDOW;
use twincell_target::session::{OUTPUT_BYTES_MAX, Session, Tag};

const READ: u8 = 0x40;
const WRITE: u8 = 0x20;
const READ_ONE: [u8; 10] = [0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0];
const WRITE_ONE: [u8; 10] = [0x2a, 0, 0, 0, 0, 0, 0, 0, 1, 0];

fn read() -> Pdu {
    Pdu::command(0, READ, 512, &READ_ONE, &[])
}

fn tur() -> Pdu {
    Pdu::command(0, 0, 0, &[0; 6], &[])
}

fn management(function: u8, referenced: u32) -> Pdu {
    Pdu::new(0x42, 0x80 | function, 0).set32(20, referenced)
}

fn submitted(host: &Host) -> Vec<Tag> {
    let tags = host.array.seen.iter().filter_map(|seen| match seen {
        Seen::Submit(tag, _) => Some(*tag),
        _ => None,
    });
    tags.collect()
}

fn aborted(host: &Host) -> Vec<Tag> {
    let tags = host.array.seen.iter().filter_map(|seen| match seen {
        Seen::Abort(tag) => Some(*tag),
        _ => None,
    });
    tags.collect()
}

/// Sends a command without letting the array work; its task tag.
fn begin(host: &mut Host, pdu: Pdu) -> u32 {
    let pdu = host.number(pdu);
    assert_eq!(host.send(&pdu), []);
    host.task_tag
}

#[test]
fn commands_outside_of_the_window_are_ignored() {
    let mut host = Host::login(&[]);
    let next = host.cmd_sn;
    for wrong in [next - 1, next.wrapping_sub(500), next + COMMAND_WINDOW, next + 100_000] {
        assert_eq!(host.exchange(&tur().set32(16, 1).set32(24, wrong)), [], "{wrong}");
    }
    assert_eq!(host.command(tur())[0].header[3], 0);
    let answers = host.exchange(&tur().set32(16, 1).set32(24, host.cmd_sn + 1));
    assert_eq!(
        (answers[0].opcode(), answers[0].header[2]),
        (0x3f, 4),
        "a gap cannot be filled"
    );
    assert!(host.session.is_over());
}

/// What is answered at once is answered as the initiator reads, and all of it in the end.
#[test]
fn an_initiator_that_reads_nothing_gets_few_answers() {
    let mut host = Host::login(&[]);
    let ping = Pdu::new(0x40, 0x80, 5).set32(24, host.cmd_sn).with(&[7; 4096]);
    let ping = ping.to_bytes(host.digests);
    let flood = ping.repeat(2500);
    let (mut rest, mut answers) = (&flood[..], 0);
    while !rest.is_empty() {
        let taken = host.session.receive(rest, &mut host.array);
        assert!(taken > 0, "nothing is taken though all is read");
        rest = &rest[taken..];
        assert_eq!(
            host.session.receive(rest, &mut host.array),
            0,
            "before anything is read"
        );
        let output = std::mem::take(host.session.output());
        assert!(output.len() <= OUTPUT_BYTES_MAX + ping.len());
        answers += output.len();
    }
    assert_eq!(answers, flood.len());
}

#[test]
fn the_window_closes_and_opens() {
    let mut host = Host::login(&[]);
    let max = host.command(tur())[0].get32(32);
    for _ in 0..COMMAND_WINDOW {
        begin(&mut host, read());
    }
    assert_eq!(submitted(&host).len(), COMMAND_WINDOW as usize);
    assert_eq!(max + 1, host.cmd_sn, "all of the window is used");
    let nop = host.send(&Pdu::new(0x40, 0x80, 5).set32(24, host.cmd_sn));
    assert_eq!((nop[0].get32(28), nop[0].get32(32)), (host.cmd_sn, max), "it is closed");
    begin(&mut host, read());
    assert_eq!(
        submitted(&host).len(),
        COMMAND_WINDOW as usize,
        "one too many is ignored"
    );
    host.cmd_sn -= 1;
    let answers = host.work();
    assert_eq!(answers.len(), COMMAND_WINDOW as usize);
    assert_eq!(
        answers.last().expect("an answer").get32(32),
        host.cmd_sn + COMMAND_WINDOW - 1
    );
}

#[test]
fn immediate_commands_do_not_count_but_have_a_bound() {
    let mut host = Host::login(&[]);
    let immediate = |n: u32, cmd_sn| read().set8(0, 0x41).set32(16, n).set32(24, cmd_sn);
    for n in 0..16 {
        assert_eq!(host.send(&immediate(n, host.cmd_sn)), []);
    }
    let answers = host.send(&immediate(16, host.cmd_sn));
    assert_eq!((answers[0].opcode(), answers[0].header[2]), (0x3f, 6));
    assert_eq!(answers[0].get32(32), host.cmd_sn + COMMAND_WINDOW - 1);
    assert_eq!(host.work().len(), 16);
}

#[test]
fn a_task_tag_is_used_once_at_a_time() {
    let mut host = Host::login(&[]);
    let itt = begin(&mut host, read());
    let again = read().set32(16, itt).set32(24, host.cmd_sn);
    let answers = host.send(&again);
    assert_eq!((answers[0].opcode(), answers[0].header[2]), (0x3f, 7));
    assert_eq!(host.work().len(), 1);
}

#[test]
fn pings() {
    let mut host = Host::login(&["MaxRecvDataSegmentLength=512"]);
    let answers = host.command(Pdu::new(0x00, 0x80, 0).set32(20, 0xffff_ffff).with(b"ping"));
    assert_eq!((answers[0].opcode(), answers[0].flags()), (0x20, 0x80));
    assert_eq!(
        (answers[0].get32(16), answers[0].get32(20)),
        (host.task_tag, 0xffff_ffff)
    );
    assert_eq!(answers[0].data, b"ping");
    assert_eq!(host.command(Pdu::new(0x00, 0x80, 0).with(&[9; 600]))[0].data, [9; 512]);
    assert_eq!(host.exchange(&Pdu::new(0x40, 0x80, 0xffff_ffff).with(b"no answer")), []);
}

#[test]
fn abort_task_is_answered_when_the_array_has_let_go() {
    let mut host = Host::login(&[]);
    let itt = begin(&mut host, read());
    let tag = submitted(&host)[0];
    let abort = host.number(management(1, itt));
    assert_eq!(host.send(&abort), []);
    assert_eq!(aborted(&host), [tag]);
    host.session.send_data(tag, BlockCount(0), &[0; 512]);
    assert_eq!(host.answers(), [], "no data of an aborted task");
    host.session.complete(tag, Status::Good, &mut host.array);
    let answers = host.answers();
    assert_eq!(answers.len(), 1, "no response to an aborted task");
    assert_eq!(
        (answers[0].opcode(), answers[0].header[2], answers[0].get32(16)),
        (0x22, 0, host.task_tag)
    );
    let late = host.number(management(1, itt));
    assert_eq!(host.send(&late)[0].header[2], 1, "task does not exist");
}

#[test]
fn requests_that_wait_for_a_task_have_a_bound() {
    let mut host = Host::login(&[]);
    let itt = begin(&mut host, read());
    let tag = submitted(&host)[0];
    for _ in 0..COMMAND_WINDOW {
        begin(&mut host, management(1, itt));
    }
    let one_more = host.number(management(2, 0xffff_ffff));
    let answers = host.send(&one_more);
    assert_eq!((answers[0].opcode(), answers[0].header[2]), (0x3f, 6), "immediate");
    let not_immediate = host.number(management(2, 0xffff_ffff).set8(0, 0x02));
    let answers = host.send(&not_immediate);
    assert_eq!(
        (answers[0].opcode(), answers[0].header[2]),
        (0x22, 255),
        "function rejected"
    );

    host.session.complete(tag, Status::Aborted, &mut host.array);
    let answers = host.answers();
    let tags: Vec<u32> = answers.iter().map(|pdu| pdu.get32(16)).collect();
    assert_eq!(tags, (itt + 1..=itt + COMMAND_WINDOW).collect::<Vec<_>>(), "in order");
    assert!(answers.iter().all(|pdu| (pdu.opcode(), pdu.header[2]) == (0x22, 0)));
    let again = host.number(management(2, 0xffff_ffff));
    assert_eq!(host.send(&again)[0].header[2], 0, "there is room again");
}

#[test]
fn an_aborted_write_gives_its_fetch_up() {
    let mut host = Host::login(&["ImmediateData=No"]);
    let r2t = host.command(Pdu::command(0, WRITE, 512, &WRITE_ONE, &[])).remove(0);
    let itt = host.task_tag;
    let tag = submitted(&host)[0];
    host.array.seen.clear();
    let abort = host.number(management(1, itt));
    let answers = host.exchange(&abort);
    assert_eq!(host.array.seen, [Seen::Fetched(tag, false), Seen::Abort(tag)]);
    assert_eq!((answers[0].opcode(), answers[0].header[2]), (0x22, 0));
    assert_eq!(
        host.exchange(&Pdu::data_out(itt, r2t.get32(20), 0, 0, true, &[1; 512])),
        [],
        "late data"
    );
    assert_ne!(host.array.disk[..512], [1; 512]);
}

#[test]
fn a_fetch_of_an_aborted_write_is_refused() {
    let mut host = Host::login(&[]);
    let itt = begin(&mut host, Pdu::command(0, WRITE, 512, &WRITE_ONE, &[1; 512]));
    let tag = submitted(&host)[0];
    let abort = host.number(management(1, itt));
    assert_eq!(host.send(&abort), []);
    host.session.fetch(tag, BlockCount(0), BlockCount(1), &mut host.array);
    assert_eq!(host.array.seen.last(), Some(&Seen::Fetched(tag, false)));
}

#[test]
fn a_task_that_still_awaits_its_data_is_aborted_at_once() {
    let mut host = Host::login(&["InitialR2T=No"]);
    let mut write = Pdu::command(0, WRITE, 1024, &WRITE_ONE, &[]);
    write.header[1] &= 0x7f;
    let itt = begin(&mut host, write);
    let abort = host.number(management(1, itt));
    assert_eq!(host.send(&abort)[0].header[2], 0);
    assert_eq!(
        host.exchange(&Pdu::data_out(itt, 0xffff_ffff, 0, 0, true, &[1; 1024])),
        []
    );
    assert_eq!(submitted(&host), []);
}

#[test]
fn logical_unit_reset() {
    let mut host = Host::login(&[]);
    assert_eq!(host.sense_of(3, &[0; 6]), (6, 0x29, 0));
    begin(&mut host, read());
    let other = begin(&mut host, Pdu::command(3, READ, 512, &READ_ONE, &[]));
    let tags = submitted(&host);
    let reset = host.number(management(5, 0xffff_ffff));
    assert_eq!(host.send(&reset), []);
    assert_eq!(aborted(&host), tags[..1]);
    host.session.complete(tags[0], Status::Aborted, &mut host.array);
    let answers = host.answers();
    assert_eq!((answers[0].opcode(), answers[0].header[2]), (0x22, 0));
    host.session.send_data(tags[1], BlockCount(0), &[0; 512]);
    host.session.complete(tags[1], Status::Good, &mut host.array);
    assert_eq!(host.answers()[0].get32(16), other, "another LUN");
    assert_eq!(host.sense_of(0, &[0; 6]), (6, 0x29, 3));
    assert_eq!(host.command(tur())[0].header[3], 0);
    assert_eq!(host.command(Pdu::command(3, 0, 0, &[0; 6], &[]))[0].header[3], 0);
}

#[test]
fn other_functions() {
    let mut host = Host::login(&[]);
    let mut answer = |function, lun| {
        let pdu = host.number(management(function, 0).set8(9, lun));
        host.send(&pdu)[0].header[2]
    };
    assert_eq!(answer(2, 0), 0, "ABORT TASK SET");
    assert_eq!(answer(4, 0), 0, "CLEAR TASK SET");
    assert_eq!(answer(5, 9), 2, "no such LUN");
    assert_eq!(answer(3, 0), 5, "CLEAR ACA");
    assert_eq!(answer(8, 0), 4, "TASK REASSIGN");
    assert_eq!(answer(14, 0), 5);
    assert_eq!(answer(6, 0), 0, "TARGET WARM RESET");
    assert_eq!(host.sense_of(0, &[0; 6]), (6, 0x29, 3));
}

#[test]
fn a_cold_reset_ends_the_session_when_all_is_over() {
    let mut host = Host::login(&[]);
    begin(&mut host, read());
    let reset = host.number(management(7, 0));
    assert_eq!(host.send(&reset), []);
    let late = host.number(tur());
    assert_eq!(host.send(&late), [], "nothing is received any more");
    assert!(!host.session.is_over());
    let tag = submitted(&host)[0];
    host.session.complete(tag, Status::Aborted, &mut host.array);
    assert_eq!(host.answers()[0].opcode(), 0x22);
    assert!(host.session.is_over());
}

#[test]
fn a_logout_waits_for_tasks() {
    let mut host = Host::login(&[]);
    begin(&mut host, read());
    let logout = host.number(Pdu::new(0x46, 0x80, 0));
    assert_eq!(host.send(&logout), []);
    let tag = submitted(&host)[0];
    assert_eq!(aborted(&host), [tag]);
    host.session.complete(tag, Status::Good, &mut host.array);
    let answers = host.answers();
    assert_eq!((answers.len(), answers[0].opcode(), answers[0].header[2]), (1, 0x26, 0));
    assert!(host.session.is_over());
}

#[test]
fn ordered_tasks_keep_apart_what_comes_before_and_after() {
    let attribute = |attribute: u8, pdu: Pdu| pdu.set8(1, 0x80 | READ | attribute);
    let mut host = Host::login(&[]);
    assert_eq!(host.sense_of(3, &[0; 6]), (6, 0x29, 0));
    begin(&mut host, attribute(1, read()));
    begin(&mut host, attribute(2, read())); // ORDERED
    begin(&mut host, attribute(1, read()));
    begin(&mut host, attribute(1, Pdu::command(3, READ, 512, &READ_ONE, &[])));
    begin(&mut host, attribute(3, read())); // HEAD OF QUEUE
    let tags = submitted(&host);
    assert_eq!(
        tags.len(),
        3,
        "the first, the other LUN's and the one at the head of the queue"
    );
    // A SIMPLE task in front and the HEAD OF QUEUE task behind: only the former holds the ORDERED one up.
    host.session.complete(tags[0], Status::Good, &mut host.array);
    let tags = submitted(&host);
    assert_eq!(tags.len(), 4, "the ORDERED one");
    host.session.complete(tags[3], Status::Good, &mut host.array);
    assert_eq!(submitted(&host).len(), 5, "the one behind it");
}

#[test]
fn what_waits_for_an_ordered_task_goes_on_when_that_is_aborted() {
    let mut host = Host::login(&[]);
    begin(&mut host, read());
    let ordered = begin(&mut host, read().set8(1, 0xc2));
    begin(&mut host, read());
    assert_eq!(submitted(&host).len(), 1);
    let abort = host.number(management(1, ordered));
    assert_eq!(host.exchange(&abort).len(), 3, "two reads and the abort");
}

#[test]
fn what_waits_for_an_ordered_task_goes_on_when_that_is_aborted_without_the_array() {
    let mut host = Host::login(&["InitialR2T=No"]);
    // ORDERED, and its data do not come.
    let ordered = begin(&mut host, Pdu::command(0, 0, 512, &WRITE_ONE, &[]).set8(1, WRITE | 2));
    let simple = begin(&mut host, read());
    assert_eq!(submitted(&host), []);
    let abort = host.number(management(1, ordered));
    let answers = host.send(&abort);
    assert_eq!((answers[0].opcode(), answers[0].header[2]), (0x22, 0));
    assert_eq!(submitted(&host).len(), 1, "the read");
    assert_eq!(host.work()[0].get32(16), simple);
}

#[test]
fn each_logical_unit_has_an_order_of_its_own() {
    let ordered = |lun| Pdu::command(lun, READ | 2, 512, &READ_ONE, &[]);
    let mut host = Host::login(&[]);
    assert_eq!(host.sense_of(3, &[0; 6]), (6, 0x29, 0));
    for lun in [3, 0, 3, 0, 0, 3] {
        begin(&mut host, ordered(lun));
    }
    let first = submitted(&host);
    assert_eq!(first.len(), 2, "one of each");
    host.session.complete(first[1], Status::Good, &mut host.array);
    assert_eq!(submitted(&host).len(), 3);
    host.session.complete(first[0], Status::Good, &mut host.array);
    let lun_of = |seen: &Seen| match seen {
        Seen::Submit(_, command) => Some(command.ncae.0),
        _ => None,
    };
    let luns: Vec<u16> = host.array.seen.iter().filter_map(lun_of).collect();
    assert_eq!(luns, [3, 0, 0, 3]);
}

/// A write that has waited for so long is not begun, if nothing was heard of its host.
const TOO_LONG: Nanos = Nanos::from_millis(4200);

/// A read in the array, an ORDERED write that waits for it, and a read behind; the first read's tag.
fn an_ordered_write_waits() -> (Host, Tag) {
    let mut host = Host::login(&[]);
    host.array.now = Time(1_000_000_000);
    begin(&mut host, read());
    begin(&mut host, Pdu::command(0, WRITE | 2, 512, &WRITE_ONE, &[7; 512]));
    begin(&mut host, read());
    let tags = submitted(&host);
    assert_eq!(tags.len(), 1);
    (host, tags[0])
}

#[test]
fn a_write_that_waited_for_its_turn_for_too_long_is_not_begun() {
    let (mut host, first) = an_ordered_write_waits();
    host.array.now = host.array.now + TOO_LONG;
    host.session.complete(first, Status::Good, &mut host.array);
    assert_eq!(submitted(&host), [first], "neither it nor what is behind it");
    assert_eq!(host.answers().len(), 1, "of the read");
    assert!(host.session.is_over());
    host.session.disconnected(&mut host.array);
    assert_eq!((submitted(&host), aborted(&host)), (vec![first], vec![]));
}

#[test]
fn a_write_that_waited_for_its_turn_not_as_long_is_begun() {
    let (mut host, first) = an_ordered_write_waits();
    host.array.now = Time(host.array.now.0 + TOO_LONG.0 - 1);
    host.session.complete(first, Status::Good, &mut host.array);
    assert_eq!(submitted(&host).len(), 2);
    assert!(!host.session.is_over());
}

#[test]
fn a_write_waits_for_its_turn_as_long_as_its_host_pings() {
    let (mut host, first) = an_ordered_write_waits();
    for _ in 0..3 {
        host.array.now = Time(host.array.now.0 + TOO_LONG.0 - 1);
        host.send(&Pdu::new(0x40, 0x80, 0xffff_ffff));
    }
    host.array.now = Time(host.array.now.0 + TOO_LONG.0 - 1);
    host.session.complete(first, Status::Good, &mut host.array);
    assert_eq!(submitted(&host).len(), 2);
    assert!(!host.session.is_over());
}

#[test]
fn a_write_of_a_part_of_a_block_that_was_read_for_too_long_is_not_begun() {
    let mut host = Host::login(&[]);
    begin(&mut host, Pdu::command(0, WRITE, 100, &WRITE_ONE, &[7; 100]));
    host.array.now = host.array.now + TOO_LONG;
    assert_eq!(host.work(), []);
    assert_eq!(submitted(&host).len(), 1, "the read");
    assert!(host.session.is_over());
}

#[test]
fn protocol_errors() {
    let reject_of = |pdu: Pdu| {
        let mut host = Host::login(&[]);
        let pdu = host.number(pdu);
        let answers = host.exchange(&pdu);
        assert_eq!(answers[0].opcode(), 0x3f, "{answers:x?}");
        assert_eq!(answers[0].get32(16), 0xffff_ffff);
        assert_eq!(answers[0].data, pdu.header);
        (answers[0].header[2], host.session.is_over())
    };
    assert_eq!(reject_of(Pdu::new(0x10, 0x80, 0)), (3, false), "SNACK");
    assert_eq!(
        reject_of(Pdu::new(0x1e, 0x80, 0)),
        (5, false),
        "an unknown operation code"
    );
    assert_eq!(
        reject_of(Pdu::command(0, READ | WRITE, 512, &READ_ONE, &[])),
        (5, false),
        "bidirectional"
    );
    assert_eq!(
        reject_of(Pdu::command(0, READ, 512, &READ_ONE, &[1; 4])),
        (9, false),
        "data with a read"
    );
    assert_eq!(
        reject_of(Pdu::command(0, WRITE, 4, &WRITE_ONE, &[1; 512])),
        (9, false),
        "more data than expected"
    );
    let huge = Pdu::new(0x00, 0x80, 0).set8(5, 4).set8(7, 1); // 262,145 bytes
    assert_eq!(reject_of(huge), (4, true));
    let with_ahs = Pdu::new(0x00, 0x80, 0).set8(4, 1).with(&[0; 4]);
    let mut host = Host::login(&[]);
    let answers = host.exchange(&with_ahs.set8(7, 0));
    assert_eq!(
        (answers[0].header[2], host.session.is_over()),
        (4, true),
        "AHS where none belongs"
    );
}

#[test]
fn a_command_may_have_additional_header_segments() {
    let mut host = Host::login(&[]);
    let mut bytes = host.number(read().set8(4, 2)).to_bytes(false);
    bytes.extend_from_slice(&[0, 5, 1, 0, 1, 2, 3, 4]);
    host.receive(&bytes);
    assert_eq!(host.work()[0].data, host.array.disk[..512]);
}

#[test]
fn a_lost_connection_gives_everything_up() {
    let mut host = Host::login(&["ImmediateData=No", "InitialR2T=No"]);
    assert_eq!(
        host.command(Pdu::command(0, WRITE, 512, &WRITE_ONE, &[]))[0].opcode(),
        0x31
    );
    begin(&mut host, read());
    let mut unsolicited = Pdu::command(0, WRITE, 512, &WRITE_ONE, &[]);
    unsolicited.header[1] &= 0x7f;
    begin(&mut host, unsolicited);
    let tags = submitted(&host);
    host.array.seen.clear();
    host.session.disconnected(&mut host.array);
    let expected = [
        Seen::Fetched(tags[0], false),
        Seen::Abort(tags[0]),
        Seen::Abort(tags[1]),
    ];
    assert_eq!(host.array.seen, expected);
    assert!(host.session.is_over());
    for tag in tags {
        host.session.complete(tag, Status::Aborted, &mut host.array);
    }
    assert_eq!(host.answers(), []);
}
