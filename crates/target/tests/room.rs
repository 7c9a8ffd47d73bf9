//! An initiator that takes nothing of what it reads: how much is kept for it, and what becomes of what waits

mod support;

use support::{BLOCKS, Host, Pdu, Seen};
use twincell_core::ids::BLOCK_BYTES;
use twincell_target::iscsi::{COMMAND_WINDOW, DATA_IN_BYTES_MAX};
use twincell_target::session::{Session, Tag};

const READ: u8 = 0x40;
const WRITE: u8 = 0x20;
const SIMPLE: u8 = 1;
const ORDERED: u8 = 2;
const HEAD_OF_QUEUE: u8 = 3;
const RESPONSE: u8 = 0x21;
const MANAGEMENT_RESPONSE: u8 = 0x22;
const DATA_IN: u8 = 0x25;
/// SCSI status
/// Bytes of the whole LUN.
const ALL: usize = BLOCKS as usize * BLOCK_BYTES;
/// So many reads of it have room.
const FIT: usize = DATA_IN_BYTES_MAX / ALL;

/// Reads the whole of LUN 0.
fn read_all(attribute: u8) -> Pdu {
    let [high, low] = (BLOCKS as u16).to_be_bytes();
    let cdb = [0x28, 0, 0, 0, 0, 0, 0, high, low, 0];
    Pdu::command(0, READ | attribute, ALL as u32, &cdb, &[])
}

/// A session that has begun so many reads; their task tags.
fn reading(count: usize) -> (Host, Vec<u32>) {
    let mut host = Host::login(&[]);
    let tags = (0..count).map(|_| begin(&mut host, read_all(SIMPLE))).collect();
    (host, tags)
}

/// Sends a command without letting the array work; its task tag.
fn begin(host: &mut Host, pdu: Pdu) -> u32 {
    let pdu = host.number(pdu);
    assert_eq!(host.send(&pdu), []);
    host.task_tag
}

fn submitted(host: &Host) -> usize {
    let is_command = |seen: &&Seen| matches!(seen, Seen::Submit(..));
    host.array.seen.iter().filter(is_command).count()
}

/// The array reads what it was asked for, and the initiator takes nothing of it.
fn work_unread(host: &mut Host) -> Vec<Pdu> {
    host.array.work(&mut host.session);
    host.array.unsent += host.session.output().len();
    host.answers()
}

/// The initiator takes everything.
fn take(host: &mut Host) {
    host.array.unsent = 0;
    host.session.sent(&mut host.array);
}

/// The tasks that ended well, in order, with the PDUs of all their data.
fn ended(answers: &[Pdu]) -> Vec<u32> {
    let with_status = |pdu: &&Pdu| pdu.opcode() == DATA_IN && pdu.flags() & 1 != 0 || pdu.opcode() == RESPONSE;
    answers.iter().filter(with_status).map(|pdu| pdu.get32(16)).collect()
}

#[test]
fn reads_wait_until_earlier_ones_were_taken() {
    let (mut host, tags) = reading(COMMAND_WINDOW as usize);
    assert_eq!(submitted(&host), FIT);
    let mut all = work_unread(&mut host);
    assert!(host.array.unsent >= FIT * ALL);
    assert_eq!((submitted(&host), ended(&all).len()), (FIT, FIT), "nothing was taken");
    // Room for one more, headers and all, and not for two.
    host.array.unsent = DATA_IN_BYTES_MAX - ALL;
    host.session.sent(&mut host.array);
    assert_eq!(submitted(&host), FIT + 1);
    while submitted(&host) < tags.len() {
        all.extend(work_unread(&mut host));
        take(&mut host);
    }
    all.extend(work_unread(&mut host));
    assert_eq!(ended(&all), tags, "in the order in which they came");
    let data: usize = all.iter().map(|pdu| pdu.data.len()).sum();
    assert_eq!(data, tags.len() * ALL);
    let max = all.last().expect("an answer").get32(32);
    assert_eq!(max, host.cmd_sn + COMMAND_WINDOW - 1, "the window is open again");
}

#[test]
fn what_reads_nothing_does_not_wait() {
    let (mut host, _) = reading(FIT + 2);
    let write = Pdu::command(0, WRITE, 512, &[0x2a, 0, 0, 0, 0, 0, 0, 0, 1, 0], &[7; 512]);
    begin(&mut host, write);
    begin(
        &mut host,
        Pdu::command(0, 0, 0, &[0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0], &[]),
    );
    assert_eq!(submitted(&host), FIT + 2);
    let small = Pdu::command(0, READ, 512, &[0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0], &[]);
    begin(&mut host, small);
    assert_eq!(submitted(&host), FIT + 2, "a small read waits for its turn");
}

#[test]
fn one_that_waits_is_aborted_at_once() {
    let (mut host, tags) = reading(FIT + 3);
    let abort = Pdu::new(0x42, 0x81, 0).set32(20, tags[FIT + 1]);
    let abort = host.number(abort);
    let answers = host.send(&abort);
    assert_eq!((answers[0].opcode(), answers[0].header[2]), (MANAGEMENT_RESPONSE, 0));
    let mut all = work_unread(&mut host);
    take(&mut host);
    all.extend(work_unread(&mut host));
    let left: Vec<u32> = tags.iter().copied().filter(|tag| *tag != tags[FIT + 1]).collect();
    assert_eq!(ended(&all), left);
}

#[test]
fn a_reset_ends_those_that_wait() {
    let (mut host, tags) = reading(FIT + 3);
    let reset = host.number(Pdu::new(0x42, 0x85, 0));
    assert_eq!(host.send(&reset), [], "the array has some of them");
    let aborted = host.array.seen.iter().filter(|seen| matches!(seen, Seen::Abort(_)));
    assert_eq!(aborted.count(), FIT);
    let answers = work_unread(&mut host);
    let [answer] = answers.as_slice() else {
        panic!("only the reset is answered: {answers:x?}")
    };
    assert_eq!((answer.opcode(), answer.header[2]), (MANAGEMENT_RESPONSE, 0));
    take(&mut host);
    assert_eq!(
        submitted(&host),
        FIT,
        "those that waited are gone, all of {}",
        tags.len()
    );
    let attention = host.command(read_all(SIMPLE));
    assert_eq!(attention[0].sense(), (6, 0x29, 3), "the reset of the LUN");
    assert_eq!(ended(&host.command(read_all(SIMPLE))), [host.task_tag]);
}

#[test]
fn an_ordered_task_waits_for_those_that_wait_and_the_head_of_the_queue_is_first() {
    let (mut host, mut tags) = reading(FIT + 2);
    tags.push(begin(&mut host, read_all(ORDERED)));
    tags.push(begin(&mut host, read_all(SIMPLE)));
    let head = begin(&mut host, read_all(HEAD_OF_QUEUE));
    let mut all = Vec::new();
    for _ in 0..4 {
        all.extend(work_unread(&mut host));
        take(&mut host);
    }
    tags.insert(FIT, head);
    assert_eq!(ended(&all), tags);
}

#[test]
fn a_connection_ends_with_what_waits() {
    let (mut host, _) = reading(FIT + 3);
    host.session.disconnected(&mut host.array);
    host.array.work(&mut host.session);
    host.session.output().clear();
    take(&mut host);
    assert_eq!(submitted(&host), FIT);
    let tags = host.array.seen.iter().filter_map(|seen| match seen {
        Seen::Abort(tag) => Some(*tag),
        _ => None,
    });
    assert_eq!(tags.collect::<Vec<_>>(), (0..FIT as u32).map(Tag).collect::<Vec<_>>());
}
