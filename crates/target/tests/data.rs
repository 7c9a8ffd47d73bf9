//! Data-In, Data-Out and R2T (RFC 7143, 11.7 and 11.8), residuals and digests

mod support;

use support::{Host, Pdu, Seen};
use twincell_core::host::{HostOp, Status};
use twincell_core::ids::{BLOCK_BYTES, BlockCount};
use twincell_target::session::{Session, Tag};

const READ: u8 = 0x40;
const WRITE: u8 = 0x20;

fn read10(start: u8, blocks: u16) -> [u8; 10] {
    let [high, low] = blocks.to_be_bytes();
    [0x28, 0, 0, 0, 0, start, 0, high, low, 0]
}

fn write10(start: u8, blocks: u16) -> [u8; 10] {
    let [high, low] = blocks.to_be_bytes();
    [0x2a, 0, 0, 0, 0, start, 0, high, low, 0]
}

fn pattern(blocks: usize) -> Vec<u8> {
    (0..blocks * BLOCK_BYTES).map(|i| (i * 7 + i / 512) as u8).collect()
}

#[test]
fn a_read_is_cut_into_segments_and_bursts_and_its_last_pdu_has_the_status() {
    let mut host = Host::login(&["MaxRecvDataSegmentLength=1024", "MaxBurstLength=2560"]);
    let answers = host.command(Pdu::command(0, READ, 4096, &read10(2, 8), &[]));
    let lengths: Vec<_> = answers.iter().map(|pdu| pdu.data.len()).collect();
    assert_eq!(lengths, [1024, 1024, 512, 1024, 512]);
    let flags: Vec<_> = answers.iter().map(Pdu::flags).collect();
    assert_eq!(flags, [0, 0, 0x80, 0, 0x81]);
    assert_eq!(
        answers.iter().map(|pdu| pdu.get32(36)).collect::<Vec<_>>(),
        [0, 1, 2, 3, 4],
        "DataSN"
    );
    let offsets: Vec<_> = answers.iter().map(|pdu| pdu.get32(40)).collect();
    assert_eq!(offsets, [0, 1024, 2048, 2560, 3584]);
    let data: Vec<u8> = answers.iter().flat_map(|pdu| pdu.data.clone()).collect();
    assert_eq!(data, host.array.disk[1024..1024 + 4096]);
    let last = &answers[4];
    assert_eq!(
        (last.opcode(), last.header[3], last.get32(16)),
        (0x25, 0, host.task_tag)
    );
    assert_eq!(
        (last.get32(20), last.get32(24)),
        (0xffff_ffff, 2),
        "no transfer tag; StatSN"
    );
    assert_eq!(
        (last.get32(28), last.get32(32)),
        (12, 12 + 127),
        "the whole window is free again"
    );
    assert_eq!((answers[0].get32(24), answers[0].get32(32)), (0, 12 + 126));
}

/// A host with a read of two blocks that the array has.
fn reading(keys: &[&str]) -> (Host, Tag) {
    let mut host = Host::login(keys);
    let read = host.number(Pdu::command(0, READ, 1024, &read10(0, 2), &[]));
    assert_eq!(host.send(&read), []);
    let Some(Seen::Submit(tag, _)) = host.array.seen.last() else {
        panic!("submitted")
    };
    let tag = *tag;
    (host, tag)
}

#[test]
fn a_status_that_comes_too_late_for_the_data_has_a_pdu_of_its_own() {
    let (mut host, tag) = reading(&[]);
    host.session.send_data(tag, BlockCount(0), &pattern(2));
    let data = host.answers();
    assert_eq!((data[0].opcode(), data[0].flags(), data[0].get32(24)), (0x25, 0x80, 0));
    host.session.complete(tag, Status::Good, &mut host.array);
    let status = host.answers();
    assert_eq!(
        (status[0].opcode(), status[0].flags(), status[0].header[3]),
        (0x21, 0x80, 0)
    );
    assert_eq!((status[0].get32(24), status[0].get32(36)), (2, 1), "StatSN, ExpDataSN");
}

#[test]
fn a_status_is_not_put_into_a_header_that_was_sent_already() {
    let (mut host, tag) = reading(&[]);
    host.session.send_data(tag, BlockCount(0), &pattern(2));
    let all = host.session.output().clone();
    host.session.output().drain(..10);
    host.session.complete(tag, Status::Good, &mut host.array);
    let sent = [&all[..10], host.session.output()].concat();
    let answers = support::pdus(&sent, false);
    assert_eq!(answers.iter().map(Pdu::flags).collect::<Vec<_>>(), [0x80, 0x80]);
    assert_eq!(answers.iter().map(Pdu::opcode).collect::<Vec<_>>(), [0x25, 0x21]);
}

#[test]
fn a_status_goes_into_the_data_of_its_own_task_only() {
    let (mut host, first) = reading(&[]);
    let read = host.number(Pdu::command(0, READ, 512, &read10(0, 1), &[]));
    assert_eq!(host.send(&read), []);
    let Some(Seen::Submit(second, _)) = host.array.seen.last().cloned() else {
        panic!("submitted")
    };
    host.session.send_data(first, BlockCount(0), &pattern(2));
    host.session.send_data(second, BlockCount(0), &pattern(1));
    host.session.complete(first, Status::Good, &mut host.array);
    host.session.complete(second, Status::Good, &mut host.array);
    let kinds: Vec<_> = host
        .answers()
        .iter()
        .map(|pdu| (pdu.opcode(), pdu.get32(16) - 0x100))
        .collect();
    assert_eq!(kinds, [(0x25, 2), (0x25, 3), (0x21, 2), (0x21, 3)]);
}

#[test]
fn a_read_that_fails_after_some_data() {
    let (mut host, tag) = reading(&[]);
    host.session.send_data(tag, BlockCount(0), &pattern(1));
    host.session.complete(tag, Status::ReadError, &mut host.array);
    let answers = host.answers();
    assert_eq!((answers[0].opcode(), answers[0].flags()), (0x25, 0));
    assert_eq!(answers[1].sense(), (3, 0x11, 0));
    assert_eq!((answers[1].flags(), answers[1].get32(44)), (0x82, 512));
}

#[test]
fn residuals_of_reads() {
    let mut host = Host::login(&[]);
    for (expected, length, flags, residual) in [
        (10_000, 512, 0x83, 10_000 - 512),
        (200, 200, 0x85, 312),
        (512, 512, 0x81, 0),
    ] {
        let answers = host.command(Pdu::command(0, READ, expected, &read10(0, 1), &[]));
        assert_eq!(answers.len(), 1);
        assert_eq!(
            (answers[0].data.len(), answers[0].flags(), answers[0].get32(44)),
            (length, flags, residual)
        );
    }
    let answers = host.command(Pdu::command(0, READ, 0, &read10(0, 1), &[]));
    assert_eq!(
        (answers[0].opcode(), answers[0].flags(), answers[0].get32(44)),
        (0x21, 0x84, 512)
    );
    let answers = host.command(Pdu::command(0, WRITE, 512, &read10(0, 1), &pattern(1)));
    assert_eq!(
        (answers[0].opcode(), answers[0].flags(), answers[0].get32(44)),
        (0x21, 0x84, 512)
    );
    let answers = host.command(Pdu::command(0, READ, 64, &[0; 6], &[]));
    assert_eq!(
        (answers[0].opcode(), answers[0].flags(), answers[0].get32(44)),
        (0x21, 0x82, 64)
    );
}

#[test]
fn residuals_of_writes() {
    let mut host = Host::login(&[]);
    let data = pattern(4);
    let more = host.command(Pdu::command(0, WRITE, 2048, &write10(0, 1), &data));
    assert_eq!((more[0].header[3], more[0].flags(), more[0].get32(44)), (0, 0x82, 1536));
    assert_eq!(host.array.disk[..512], data[..512]);
    let after = host.array.disk[512..1024].to_vec();
    let less = host.command(Pdu::command(0, WRITE, 512, &write10(0, 2), &data[1024..1536]));
    assert_eq!((less[0].header[3], less[0].flags(), less[0].get32(44)), (0, 0x84, 512));
    assert_eq!(host.array.disk[..512], data[1024..1536]);
    assert_eq!(host.array.disk[512..1024], after);
    let part = host.command(Pdu::command(0, WRITE, 600, &write10(0, 2), &data[..600]));
    assert_eq!((part[0].header[3], part[0].flags(), part[0].get32(44)), (0, 0x84, 424));
    assert_eq!(host.array.disk[..600], data[..600]);
    assert_eq!(host.array.disk[600..1024], after[88..]);
    let none = host.command(Pdu::command(0, WRITE, 0, &write10(0, 1), &[]));
    assert_eq!((none[0].header[3], none[0].flags(), none[0].get32(44)), (0, 0x84, 512));
    let compare = [0x2f, 2, 0, 0, 0, 0, 0, 0, 2, 0];
    let verify = host.command(Pdu::command(0, WRITE, 512, &compare, &data[..512]));
    assert_eq!(verify[0].sense(), (5, 0x0e, 3));
    assert_eq!((verify[0].flags(), verify[0].get32(44)), (0x84, 512));
}

#[test]
fn immediate_data_is_in_hand_when_the_write_is_submitted() {
    let mut host = Host::login(&[]);
    let data = pattern(2);
    let write = host.number(Pdu::command(0, WRITE, 1024, &write10(3, 2), &data));
    assert_eq!(host.send(&write), []);
    let Some(Seen::Submit(tag, command)) = host.array.seen.pop() else {
        panic!("submitted")
    };
    assert_eq!((command.op, command.start.0), (HostOp::Write { fua: false }, 3));
    assert_eq!((command.blocks, command.in_hand), (BlockCount(2), BlockCount(2)));
    host.session.fetch(tag, BlockCount(1), BlockCount(1), &mut host.array);
    let expected = [Seen::Data(tag, 512, data[512..].to_vec()), Seen::Fetched(tag, true)];
    assert_eq!(host.array.seen[host.array.seen.len() - 2..], expected);
    host.session.complete(tag, Status::Good, &mut host.array);
    let answers = host.answers();
    assert_eq!(
        (answers[0].opcode(), answers[0].header[3], answers[0].get32(36)),
        (0x21, 0, 0)
    );
    // Too late for the array of this test: it must not carry the write out any more.
    assert_eq!(answers.len(), 1);
}

#[test]
fn unsolicited_data_are_awaited_and_the_rest_is_asked_for() {
    let mut host = Host::login(&["InitialR2T=No", "FirstBurstLength=1024", "MaxBurstLength=1536"]);
    let data = pattern(8);
    let mut command = Pdu::command(0, WRITE, 4096, &write10(0, 8), &data[..512]);
    command.header[1] &= 0x7f;
    let command = host.number(command);
    assert_eq!(host.exchange(&command), []);
    assert!(
        !host.array.seen.iter().any(|seen| matches!(seen, Seen::Submit(..))),
        "it awaits the rest"
    );
    let itt = host.task_tag;
    let mut answers = host.exchange(&Pdu::data_out(itt, 0xffff_ffff, 0, 512, true, &data[512..1024]));
    let Some(Seen::Submit(_, submitted)) = host.array.seen.first() else {
        panic!("submitted")
    };
    assert_eq!(submitted.in_hand, BlockCount(2));
    for (r2t_sn, offset) in [(0, 1024), (1, 2560)] {
        let [r2t] = answers.as_slice() else {
            panic!("one R2T: {answers:x?}")
        };
        assert_eq!((r2t.opcode(), r2t.flags(), r2t.get32(16)), (0x31, 0x80, itt));
        assert_eq!(
            (r2t.get32(24), r2t.get32(36)),
            (2, r2t_sn),
            "StatSN is not used up; R2TSN"
        );
        assert_eq!((r2t.get32(40), r2t.get32(44)), (offset, 1536));
        let ttt = r2t.get32(20);
        let at = offset as usize;
        assert_eq!(
            host.exchange(&Pdu::data_out(itt, ttt, 0, offset, false, &data[at..at + 1000])),
            []
        );
        answers = host.exchange(&Pdu::data_out(
            itt,
            ttt,
            1,
            offset + 1000,
            true,
            &data[at + 1000..at + 1536],
        ));
    }
    assert_eq!(
        (answers[0].opcode(), answers[0].header[3], answers[0].get32(36)),
        (0x21, 0, 2)
    );
    assert_eq!(host.array.disk[..4096], data);
}

#[test]
fn a_large_write_is_fetched_in_portions() {
    let mut host = Host::login(&["ImmediateData=No"]);
    let data = pattern(600);
    let mut answers = host.command(Pdu::command(0, WRITE, 600 * 512, &write10(0, 600), &[]));
    let itt = host.task_tag;
    for (offset, blocks) in [(0, 256), (256, 256), (512, 88)] {
        let (offset, bytes) = (offset * 512, blocks * 512);
        assert_eq!(
            (answers[0].opcode(), answers[0].get32(40), answers[0].get32(44)),
            (0x31, offset, bytes)
        );
        let range = offset as usize..(offset + bytes) as usize;
        answers = host.exchange(&Pdu::data_out(itt, answers[0].get32(20), 0, offset, true, &data[range]));
    }
    assert_eq!((answers[0].opcode(), answers[0].header[3]), (0x21, 0));
    assert_eq!(host.array.disk[..600 * 512], data);
}

#[test]
fn solicited_data_are_passed_on_as_they_come() {
    let mut host = Host::login(&["ImmediateData=No"]);
    let data = pattern(2);
    let r2t = host
        .command(Pdu::command(0, WRITE, 1024, &write10(0, 2), &[]))
        .remove(0);
    let bytes = Pdu::data_out(host.task_tag, r2t.get32(20), 0, 0, true, &data).to_bytes(false);
    let before = host.array.seen.len();
    host.receive(&bytes[..48 + 100]);
    host.receive(&bytes[48 + 100..48 + 700]);
    let [Seen::Data(tag, 0, first), Seen::Data(_, 100, second)] = &host.array.seen[before..] else {
        panic!("{:?}", host.array.seen)
    };
    assert_eq!([first.as_slice(), second].concat(), data[..700]);
    let tag = *tag;
    host.receive(&bytes[48 + 700..]);
    assert_eq!(host.array.seen.last(), Some(&Seen::Fetched(tag, true)));
}

/// Sends a PDU in pieces of `size` bytes; after each the array works, if it does so at all. Payload whose place is known
/// is put there, if `in_place`. All answers.
fn send_in_pieces(host: &mut Host, bytes: &[u8], size: usize, works: bool, in_place: bool) -> Vec<Pdu> {
    let mut answers = Vec::new();
    for mut piece in bytes.chunks(size) {
        let incoming = host.session.incoming();
        if let Some(next) = incoming.filter(|next| in_place && host.array.fetching.contains(&next.tag)) {
            let (now, later) = piece.split_at(piece.len().min(next.bytes));
            host.array.disk[next.offset as usize..][..now.len()].copy_from_slice(now);
            host.session.placed(now.len(), &mut host.array);
            piece = later;
        }
        host.session.receive(piece, &mut host.array);
        if works {
            answers.extend(host.work());
        }
    }
    answers.extend(host.work());
    answers
}

#[test]
fn a_large_write_begins_before_its_data_are_there() {
    const IMMEDIATE: usize = 400 * 512 + 100;
    for size in [48, 1000, 4096, 30_000, 100_000, 300_000] {
        for (works, in_place) in [(false, false), (true, false), (true, true)] {
            let case = format!("pieces of {size}, works {works}, in place {in_place}");
            let mut host = Host::login(&["FirstBurstLength=262144"]);
            let data = pattern(600);
            let bytes = Pdu::command(0, WRITE, 600 * 512, &write10(0, 600), &data[..IMMEDIATE]);
            let bytes = host.number(bytes).to_bytes(false);
            let begun = host.array.seen.len();
            host.receive(&bytes[..48]);
            let [Seen::Submit(_, command)] = host.array.seen[begun..] else {
                panic!("{case}: {:?}", host.array.seen)
            };
            assert_eq!((command.blocks.0, command.in_hand.0), (600, 400));
            let mut answers = send_in_pieces(&mut host, &bytes[48..], size, works, in_place);
            let mut asked_for = Vec::new();
            while answers[0].opcode() == 0x31 {
                let (offset, count) = (answers[0].get32(40), answers[0].get32(44));
                asked_for.push((offset as usize, count));
                let range = offset as usize..(offset + count) as usize;
                let transfer_tag = answers[0].get32(20);
                let pdu = Pdu::data_out(host.task_tag, transfer_tag, 0, offset, true, &data[range]);
                answers = send_in_pieces(&mut host, &pdu.to_bytes(false), size, works, in_place);
            }
            assert_eq!(
                asked_for[0].0, IMMEDIATE,
                "{case}: nothing is asked for that came unasked"
            );
            assert_eq!((answers[0].opcode(), answers[0].header[3]), (0x21, 0), "{case}");
            assert!(host.array.disk[..600 * 512] == data, "{case}");
        }
    }
}

#[test]
fn what_comes_in_place_does_not_come_twice() {
    let mut host = Host::login(&["FirstBurstLength=262144"]);
    let data = pattern(256);
    let bytes = Pdu::command(0, WRITE, 256 * 512, &write10(0, 256), &data);
    let bytes = host.number(bytes).to_bytes(false);
    let answers = send_in_pieces(&mut host, &bytes, 10_000, true, true);
    assert_eq!((answers[0].opcode(), answers[0].header[3]), (0x21, 0));
    assert!(host.array.disk[..256 * 512] == data);
    let passed = host.array.seen.iter().map(|seen| match seen {
        Seen::Data(_, _, bytes) => bytes.len(),
        _ => 0,
    });
    // The first piece had the header, and payload that came before anybody could know where to.
    assert_eq!(passed.sum::<usize>(), 10_000 - 48);
}

#[test]
fn a_large_write_that_waits_for_its_order_keeps_what_comes() {
    const ORDERED: u8 = 2;
    for at in [20, 1000, 20_000, 64 * 512 + 48] {
        let (mut host, read) = reading(&["FirstBurstLength=262144"]);
        let data = pattern(64);
        let bytes = Pdu::command(0, WRITE | ORDERED, 64 * 512, &write10(0, 64), &data);
        let bytes = host.number(bytes).to_bytes(false);
        host.receive(&bytes[..at]);
        assert!(!matches!(host.array.seen.last(), Some(Seen::Submit(tag, _)) if *tag != read));
        // The array would do the read itself; it is done here, in the middle of the payload.
        host.array.forget();
        host.session.complete(read, Status::Good, &mut host.array);
        let mut answers = host.work();
        host.session.receive(&bytes[at..], &mut host.array);
        answers.extend(host.work());
        let last = answers.last().expect("the status of the write");
        assert_eq!((last.get32(16), last.header[3]), (host.task_tag, 0), "at {at}");
        assert!(host.array.disk[..64 * 512] == data, "at {at}");
    }
}

#[test]
fn the_rest_of_large_data_that_nobody_wants_any_more_is_dropped() {
    for (start, blocks, what) in [(0, 64, "aborted"), (200, 1000, "out of range")] {
        let mut host = Host::login(&["FirstBurstLength=262144"]);
        let data = pattern(blocks);
        let length = (blocks * 512) as u32;
        let immediate = &data[..data.len().min(100 * 512)];
        let bytes = Pdu::command(0, WRITE, length, &write10(start, blocks as u16), immediate);
        let bytes = host.number(bytes).to_bytes(false);
        let mut answers = host.receive(&bytes[..20_000]);
        answers.extend(host.work());
        if what == "aborted" {
            let id = host.array.seen.iter().find_map(|seen| match seen {
                Seen::Submit(tag, _) => Some(*tag),
                _ => None,
            });
            host.session.disconnected(&mut host.array);
            assert!(host.array.seen.contains(&Seen::Fetched(id.expect("submitted"), false)));
            assert_eq!(host.session.incoming(), None);
            continue;
        }
        assert_eq!(answers[0].sense(), (5, 0x21, 0), "{what}");
        assert_eq!(host.receive(&bytes[20_000..]), [], "{what}");
        assert_eq!(host.data_of(0, &read10(0, 1)), host.array.disk[..512]);
    }
}

#[test]
fn large_data_that_are_compared_are_kept() {
    let mut host = Host::login(&["FirstBurstLength=262144"]);
    let data = pattern(64);
    const BYTCHK: u8 = 2;
    let mut cdb = write10(0, 64);
    (cdb[0], cdb[1]) = (0x2e, BYTCHK);
    let bytes = Pdu::command(0, WRITE, 64 * 512, &cdb, &data);
    let bytes = host.number(bytes).to_bytes(false);
    let answers = send_in_pieces(&mut host, &bytes, 1000, true, true);
    assert_eq!((answers[0].opcode(), answers[0].header[3]), (0x21, 0));
    assert!(host.array.disk[..64 * 512] == data);
}

#[test]
fn with_a_data_digest_nothing_is_passed_on_before_it_was_checked() {
    let mut host = Host::login(&["HeaderDigest=CRC32C", "DataDigest=CRC32C", "ImmediateData=No"]);
    let data = pattern(1);
    let r2t = host.command(Pdu::command(0, WRITE, 512, &write10(0, 1), &[])).remove(0);
    let bytes = Pdu::data_out(host.task_tag, r2t.get32(20), 0, 0, true, &data).to_bytes(true);
    let before = host.array.seen.len();
    host.receive(&bytes[..bytes.len() - 1]);
    assert_eq!(host.array.seen.len(), before);
    let mut bad = bytes[bytes.len() - 1..].to_vec();
    bad[0] ^= 0x80;
    let answers = host.receive(&bad);
    assert_eq!(
        (answers[0].opcode(), answers[0].header[2]),
        (0x3f, 2),
        "data digest error"
    );
    assert_eq!(answers[0].data, bytes[..48], "the header of the bad PDU");
    assert!(host.session.is_over());
    assert_eq!(host.array.seen.len(), before);
}

#[test]
fn digests_of_a_whole_write_and_read() {
    let keys = [
        "HeaderDigest=CRC32C",
        "DataDigest=CRC32C",
        "MaxRecvDataSegmentLength=512",
    ];
    let mut host = Host::login(&keys);
    let data = pattern(3);
    let r2t = host
        .command(Pdu::command(0, WRITE, 1536, &write10(0, 3), &data[..512]))
        .remove(0);
    let done = host.exchange(&Pdu::data_out(host.task_tag, r2t.get32(20), 0, 512, true, &data[512..]));
    assert_eq!((done[0].opcode(), done[0].header[3]), (0x21, 0));
    let answers = host.command(Pdu::command(0, READ, 1536, &read10(0, 3), &[]));
    assert_eq!(answers.iter().map(Pdu::flags).collect::<Vec<_>>(), [0, 0, 0x81]);
    assert_eq!(
        answers.iter().flat_map(|pdu| pdu.data.clone()).collect::<Vec<_>>(),
        data
    );
}

#[test]
fn a_bad_header_digest_ends_the_connection_without_a_word() {
    let mut host = Host::login(&["HeaderDigest=CRC32C", "DataDigest=CRC32C"]);
    let mut bytes = Pdu::command(0, 0, 0, &[0; 6], &[]).to_bytes(true);
    bytes[40] ^= 1;
    assert_eq!(host.receive(&bytes), []);
    assert!(host.session.is_over());
}

/// A host that was asked for two blocks of a write, and the R2T.
fn asked() -> (Host, Pdu) {
    let mut host = Host::login(&["ImmediateData=No"]);
    let r2t = host
        .command(Pdu::command(0, WRITE, 1024, &write10(0, 2), &[]))
        .remove(0);
    assert_eq!(r2t.opcode(), 0x31);
    (host, r2t)
}

#[test]
fn wrong_data_out_fails_the_command() {
    let data = pattern(3);
    for (data_sn, offset, is_final, bytes) in [
        (1, 0, true, 1024), // DataSN
        (0, 4, true, 1020), // offset
        (0, 0, true, 1028), // too much
        (0, 0, true, 512),  // too little
        (0, 0, true, 0),    // nothing
        (0, u32::MAX, true, 4),
    ] {
        let (mut host, r2t) = asked();
        let answers = host.exchange(&Pdu::data_out(
            host.task_tag,
            r2t.get32(20),
            data_sn,
            offset,
            is_final,
            &data[..bytes],
        ));
        assert_eq!(answers[0].sense(), (0xb, 0x0c, 0x0d), "{data_sn} {offset} {bytes}");
        assert!(
            host.array
                .seen
                .iter()
                .any(|seen| matches!(seen, Seen::Fetched(_, false)))
        );
        assert!(host.array.seen.iter().any(|seen| matches!(seen, Seen::Abort(_))));
        let good = host.command(Pdu::command(0, READ, 512, &read10(0, 1), &[]));
        assert_eq!(good[0].flags(), 0x81, "the session goes on");
    }
}

#[test]
fn a_wrong_transfer_tag_is_rejected_and_an_old_one_ignored() {
    let (mut host, r2t) = asked();
    let itt = host.task_tag;
    let answers = host.exchange(&Pdu::data_out(itt, r2t.get32(20) ^ 0x10000, 0, 0, true, &pattern(2)));
    assert_eq!((answers[0].opcode(), answers[0].header[2]), (0x3f, 9));
    let done = host.exchange(&Pdu::data_out(itt, r2t.get32(20), 0, 0, true, &pattern(2)));
    assert_eq!((done[0].opcode(), done[0].header[3]), (0x21, 0));
    assert_eq!(
        host.exchange(&Pdu::data_out(itt, r2t.get32(20), 0, 0, true, &pattern(2))),
        []
    );
}

#[test]
fn data_that_nobody_agreed_to() {
    let mut host = Host::login(&["ImmediateData=No"]);
    let answers = host.command(Pdu::command(0, WRITE, 512, &write10(0, 1), &pattern(1)));
    assert_eq!(answers[0].sense(), (0xb, 0x0c, 0x0c));
    let mut host = Host::login(&["InitialR2T=No", "FirstBurstLength=512"]);
    let answers = host.command(Pdu::command(0, WRITE, 1024, &write10(0, 2), &pattern(2)));
    assert_eq!(answers[0].sense(), (0xb, 0x0c, 0x0c));
    let mut host = Host::login(&[]);
    let mut more_follows = Pdu::command(0, WRITE, 1024, &write10(0, 2), &pattern(1));
    more_follows.header[1] &= 0x7f;
    let answers = host.command(more_follows);
    assert_eq!(
        (answers[0].opcode(), answers[0].header[2]),
        (0x3f, 4),
        "InitialR2T is Yes"
    );
}

#[test]
fn a_failing_write_is_answered_when_its_unsolicited_data_are_there() {
    let mut host = Host::login(&["InitialR2T=No"]);
    let mut bad = Pdu::command(9, WRITE, 1024, &write10(0, 2), &[]);
    bad.header[1] &= 0x7f;
    assert_eq!(host.command(bad), []);
    let answers = host.exchange(&Pdu::data_out(host.task_tag, 0xffff_ffff, 0, 0, true, &pattern(2)));
    assert_eq!(answers[0].sense(), (5, 0x25, 0));
}
