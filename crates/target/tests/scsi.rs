//! SCSI commands byte by byte (SPC-4, SBC-3), through an iSCSI session

mod support;

use support::{BLOCKS, Host, Pdu, Seen, TARGET, lun};
use twincell_core::host::{HostOp, Status};
use twincell_core::ids::{BlockCount, Controller, Noid, Vba};
use twincell_target::session::Session;

const TEST_UNIT_READY: [u8; 6] = [0; 6];

fn inquiry(page: Option<u8>, allocation: u16) -> [u8; 6] {
    let [high, low] = allocation.to_be_bytes();
    [0x12, u8::from(page.is_some()), page.unwrap_or(0), high, low, 0]
}

#[test]
fn standard_inquiry() {
    let mut host = Host::login(&[]);
    let mut expected = vec![0, 0, 6, 0x12, 91, 0x10, 0x10, 0x02];
    expected.extend_from_slice(b"TWINCELLLUN             0001");
    expected.resize(58, 0);
    expected.extend_from_slice(&[0x00, 0xa0, 0x09, 0x60, 0x04, 0x60, 0x04, 0xc0]);
    expected.resize(96, 0);
    assert_eq!(host.data_of(0, &inquiry(None, 255)), expected);
    assert_eq!(host.data_of(3, &inquiry(None, 5)), expected[..5]);
    expected[0] = 0x7f;
    assert_eq!(host.data_of(9, &inquiry(None, 96)), expected, "no such LUN");
    assert_eq!(
        host.sense_of(0, &[0x12, 0, 0x83, 0, 96, 0]),
        (5, 0x24, 0),
        "a page without EVPD"
    );
}

#[test]
fn vital_product_data() {
    let mut host = Host::login(&[]);
    let mut page = |code| host.data_of(0, &inquiry(Some(code), 0x1000));
    let uuid = b"01234567-89ab-4def-8fed-cba987654321";
    assert_eq!(page(0x00), [0, 0, 0, 7, 0x00, 0x80, 0x83, 0x86, 0xb0, 0xb1, 0xb2]);
    assert_eq!(page(0x80), [&[0, 0x80, 0, 36][..], uuid].concat());
    let mut limits = vec![0; 64];
    limits[1..4].copy_from_slice(&[0xb0, 0, 0x3c]);
    limits[6..8].copy_from_slice(&[0, 8]); // granularity
    limits[8..12].copy_from_slice(&[0, 0, 0x40, 0]); // maximum: 8 MiB
    limits[12..16].copy_from_slice(&[0, 0, 1, 0]); // optimum
    assert_eq!(page(0xb0), limits);
    assert_eq!(page(0xb1)[..8], [0, 0xb1, 0, 0x3c, 0, 1, 0, 0]);
    assert_eq!(page(0xb2), [0, 0xb2, 0, 4, 0, 0, 0, 0]);
    assert_eq!(page(0x86)[..8], [0, 0x86, 0, 0x3c, 0, 7, 1, 0]);
    assert_eq!(host.sense_of(0, &inquiry(Some(0xb3), 64)), (5, 0x24, 0));
}

#[test]
fn device_identification() {
    let mut host = Host::login(&[]);
    host.array.view.controller = Controller::B;
    let mut expected = vec![0, 0x83, 0, 0];
    expected.extend_from_slice(&[0x01, 0x03, 0, 8]); // NAA, of the LUN
    expected.extend_from_slice(
        &(3 << 60 | (0x0123_4567_89ab_4def ^ 0x8fed_cba9_8765_4321_u64) & (u64::MAX >> 4)).to_be_bytes(),
    );
    expected.extend_from_slice(&[0x02, 0x01, 0, 44]); // T10 vendor identification
    expected.extend_from_slice(b"TWINCELL01234567-89ab-4def-8fed-cba987654321");
    expected.extend_from_slice(&[0x51, 0x94, 0, 4, 0, 0, 0, 2]); // relative target port
    expected.extend_from_slice(&[0x51, 0x95, 0, 4, 0, 0, 0, 2]); // target port group
    let port = format!("{TARGET},t,0x0002\0");
    assert_eq!((port.len(), TARGET.len()), (38, 28), "both are to be filled up");
    expected.extend_from_slice(&[0x53, 0x98, 0, 40]);
    expected.extend_from_slice(port.as_bytes());
    expected.extend_from_slice(&[0; 2]);
    expected.extend_from_slice(&[0x53, 0xa8, 0, 32]); // target device
    expected.extend_from_slice(TARGET.as_bytes());
    expected.extend_from_slice(&[0; 4]);
    let length = expected.len() - 4;
    expected[3] = length as u8;
    assert_eq!(host.data_of(0, &inquiry(Some(0x83), 0x1000)), expected);
}

#[test]
fn capacity() {
    let mut host = Host::login(&[]);
    let last = (BLOCKS - 1).to_be_bytes();
    let short = host.data_of(0, &[0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(short, [&last[4..], &[0, 0, 2, 0]].concat());
    let mut long = [0; 32];
    long[..8].copy_from_slice(&last);
    long[10] = 2;
    long[13] = 3;
    let mut cdb = [0; 16];
    (cdb[0], cdb[1], cdb[13]) = (0x9e, 0x10, 32);
    assert_eq!(host.data_of(0, &cdb), long);
    cdb[13] = 12;
    assert_eq!(host.data_of(0, &cdb), long[..12]);
    cdb[1] = 0x12; // GET LBA STATUS
    assert_eq!(host.sense_of(0, &cdb), (5, 0x20, 0));
}

#[test]
fn report_luns() {
    let mut host = Host::login(&[]);
    host.array.view.luns.push(lun(300));
    let report = |select| [0xa0, 0, select, 0, 0, 0, 0, 0, 1, 0, 0, 0];
    let mut all = vec![0, 0, 0, 24, 0, 0, 0, 0];
    all.extend_from_slice(&[0, 0, 0, 0, 0, 0, 0, 0]);
    all.extend_from_slice(&[0, 3, 0, 0, 0, 0, 0, 0]);
    all.extend_from_slice(&[0x41, 44, 0, 0, 0, 0, 0, 0]);
    for select in [0, 2, 0x11] {
        assert_eq!(host.data_of(0, &report(select)), all);
        assert_eq!(host.data_of(77, &report(select)), all, "through a LUN that is absent");
    }
    for select in [1, 0x10, 0x12] {
        assert_eq!(host.data_of(0, &report(select)), [0; 8]);
    }
    assert_eq!(host.sense_of(0, &report(3)), (5, 0x24, 0));
}

#[test]
fn target_port_groups() {
    let mut host = Host::login(&[]);
    let mut rtpg = [0xa3, 0x0a, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0];
    let groups = |a, b| {
        let group_a = [a, 0x8b, 0, 1, 0, 2, 0, 1, 0, 0, 0, 1];
        let group_b = [b, 0x8b, 0, 2, 0, 2, 0, 1, 0, 0, 0, 2];
        [[0, 0, 0, 24].as_slice(), &group_a, &group_b].concat()
    };
    assert_eq!(host.data_of(0, &rtpg), groups(0, 1));
    host.array.view.luns[0].owner = Controller::B;
    assert_eq!(host.data_of(0, &rtpg), groups(1, 0));
    host.array.view.luns[0].moving = true;
    assert_eq!(host.data_of(0, &rtpg), groups(0xf, 0xf));
    assert_eq!(host.sense_of(0, &TEST_UNIT_READY), (2, 0x04, 0x0a));
    host.array.view.luns[0].moving = false;
    host.array.view.partner_in = false;
    host.array.view.luns[0].owner = Controller::A;
    assert_eq!(host.data_of(0, &rtpg), groups(0, 3));
    rtpg[1] = 0x2a; // extended header
    let extended = host.data_of(0, &rtpg);
    assert_eq!(extended[..8], [0, 0, 0, 28, 0x10, 60, 0, 0]);
    assert_eq!(extended[8..], groups(0, 3)[4..]);
    rtpg[1] = 0x4a;
    assert_eq!(host.sense_of(0, &rtpg), (5, 0x24, 0));
}

#[test]
fn supported_operation_codes() {
    let mut host = Host::login(&[]);
    let cdb = |options, code, action: u8| [0xa3, 0x0c, options, code, 0, action, 0, 0, 0x10, 0, 0, 0];
    let all = host.data_of(0, &cdb(0, 0, 0));
    assert_eq!(
        u32::from_be_bytes([all[0], all[1], all[2], all[3]]) as usize,
        all.len() - 4
    );
    assert!(
        all[4..].chunks(8).any(|d| d == [0x28, 0, 0, 0, 0, 0, 0, 10]),
        "READ (10)"
    );
    assert!(
        all[4..].chunks(8).any(|d| d == [0xa3, 0, 0, 0x0a, 0, 1, 0, 12]),
        "REPORT TARGET PORT GROUPS"
    );
    let timed = host.data_of(0, &cdb(0x80, 0, 0));
    assert_eq!(timed.len() - 4, (all.len() - 4) / 8 * 20);
    assert_eq!(timed[4 + 5] & 0x02, 0x02, "CTDP");
    let read = [0, 3, 0, 10, 0x28, 0x18, 0xff, 0xff, 0xff, 0xff, 0, 0xff, 0xff, 0];
    assert_eq!(host.data_of(0, &cdb(1, 0x28, 0)), read);
    assert_eq!(host.data_of(0, &cdb(3, 0x28, 0)), read);
    assert_eq!(host.data_of(0, &cdb(1, 0x42, 0)), [0, 1, 0, 0], "UNMAP");
    assert_eq!(host.data_of(0, &cdb(3, 0x28, 1)), [0, 1, 0, 0]);
    assert_eq!(host.data_of(0, &cdb(2, 0x9e, 0x10))[..6], [0, 3, 0, 16, 0x9e, 0x10]);
    assert_eq!(host.data_of(0, &cdb(2, 0x9e, 0x12)), [0, 1, 0, 0]);
    for (options, code) in [(1, 0x9e), (2, 0x28), (4, 0)] {
        assert_eq!(host.sense_of(0, &cdb(options, code, 0)), (5, 0x24, 0));
    }
}

#[test]
fn mode_pages_and_what_cannot_be_changed() {
    let mut host = Host::login(&[]);
    let caching = host.data_of(0, &[0x1a, 0x08, 0x08, 0, 255, 0]);
    assert_eq!(caching[..7], [23, 0, 0x10, 0, 0x08, 18, 0x04]);
    let select = |list: &[u8]| {
        Pdu::command(
            0,
            0x20,
            list.len() as u32,
            &[0x15, 0x10, 0, 0, list.len() as u8, 0],
            list,
        )
    };
    let mut list = caching.clone();
    list[0] = 0;
    let answers = host.command(select(&list));
    assert_eq!((answers[0].opcode(), answers[0].header[3]), (0x21, 0));
    list[6] = 0; // WCE off
    assert_eq!(host.command(select(&list))[0].sense(), (5, 0x26, 0));
    assert_eq!(host.command(select(&list[..5]))[0].sense(), (5, 0x1a, 0));
    assert_eq!(
        host.sense_of(0, &[0x1a, 0x08, 0xc8, 0, 255, 0]),
        (5, 0x39, 0),
        "saved values"
    );
    assert_eq!(host.sense_of(0, &[0x15, 0x11, 0, 0, 0, 0]), (5, 0x24, 0), "save pages");
    // The list is asked for if it does not come with the command.
    list[6] = 0x04;
    let cdb = [0x55, 0x10, 0, 0, 0, 0, 0, 0, 28, 0];
    let answers = host.command(Pdu::command(0, 0x20, 28, &cdb, &[]));
    assert_eq!(
        (answers[0].opcode(), answers[0].get32(40), answers[0].get32(44)),
        (0x31, 0, 28)
    );
    let long = [&[0, 0, 0, 0x10, 0, 0, 0, 0], &list[4..]].concat();
    let data = Pdu::data_out(host.task_tag, answers[0].get32(20), 0, 0, true, &long);
    let answers = host.exchange(&data);
    assert_eq!((answers[0].opcode(), answers[0].header[3]), (0x21, 0));
}

#[test]
fn request_sense() {
    let mut host = Host::login(&[]);
    let sense = |descriptor| [0x03, descriptor, 0, 0, 252, 0];
    let fixed = |key, asc| [0x70, 0, key, 0, 0, 0, 0, 10, 0, 0, 0, 0, asc, 0, 0, 0, 0, 0];
    assert_eq!(
        host.data_of(3, &sense(0)),
        fixed(6, 0x29),
        "it takes the unit attention"
    );
    assert_eq!(host.data_of(3, &sense(0)), fixed(0, 0));
    assert_eq!(host.data_of(9, &sense(1)), [0x72, 5, 0x25, 0, 0, 0, 0, 0]);
}

#[test]
fn start_stop_unit() {
    let mut host = Host::login(&[]);
    let mut start_stop = |byte4| {
        host.command(Pdu::command(0, 0, 0, &[0x1b, 0, 0, 0, byte4, 0], &[]))
            .remove(0)
    };
    assert_eq!(start_stop(0x01).header[3], 0);
    assert_eq!(start_stop(0x10).header[3], 0, "ACTIVE");
    for refused in [0x00, 0x02, 0x03, 0x20, 0x30, 0xb0] {
        assert_eq!(start_stop(refused).sense(), (5, 0x24, 0), "{refused:x}");
    }
}

#[test]
fn what_is_not_there() {
    let mut host = Host::login(&[]);
    for code in [
        0x16, 0x17, 0x1e, 0x34, 0x41, 0x42, 0x56, 0x5e, 0x5f, 0x83, 0x89, 0x8b, 0x93, 0x9c, 0xff,
    ] {
        assert_eq!(
            host.sense_of(0, &[code, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
            (5, 0x20, 0),
            "{code:x}"
        );
    }
    assert_eq!(
        host.sense_of(0, &[0xa4, 0x0a, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        (5, 0x20, 0),
        "SET TARGET PORT GROUPS"
    );
    assert_eq!(host.sense_of(9, &TEST_UNIT_READY), (5, 0x25, 0));
    let answers = host.command(Pdu::command(0, 0x40, 512, &[0x28, 0x20, 0, 0, 0, 0, 0, 0, 1, 0], &[]));
    assert_eq!(
        answers[0].data[2 + 15..],
        [0xc0, 0, 1],
        "the field pointer names RDPROTECT"
    );
    assert_eq!(host.sense_of(0, &[0x00, 0, 0, 0, 0, 0x04]), (5, 0x24, 0), "NACA");
    let mut aca = Pdu::command(0, 0, 0, &TEST_UNIT_READY, &[]);
    aca.header[1] |= 4;
    assert_eq!(host.command(aca)[0].sense(), (5, 0x49, 0));
}

#[test]
fn unit_attentions_in_order() {
    let mut host = Host::login(&[]);
    host.array.view.luns_generation += 1;
    host.array.view.paths_generation += 1;
    host.array.view.luns[0].blocks += 8;
    assert_eq!(host.data_of(0, &inquiry(None, 1)), [0], "INQUIRY is not stopped");
    let mut tur = || host.command(Pdu::command(0, 0, 0, &TEST_UNIT_READY, &[])).remove(0);
    assert_eq!(tur().sense(), (6, 0x3f, 0x0e));
    assert_eq!(tur().sense(), (6, 0x2a, 0x06));
    assert_eq!(tur().sense(), (6, 0x2a, 0x09));
    assert_eq!(tur().header[3], 0);
    // Another LUN has its own; REPORT LUNS clears only what it tells.
    assert_eq!(host.sense_of(3, &TEST_UNIT_READY), (6, 0x29, 0));
    host.array.view.luns_generation += 1;
    host.data_of(0, &[0xa0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0]);
    for lun in [0, 3] {
        assert_eq!(
            host.command(Pdu::command(lun, 0, 0, &TEST_UNIT_READY, &[]))[0].header[3],
            0
        );
    }
    // A LUN that took the place of another is met for the first time.
    host.array.view.luns[0].noid = Noid(999);
    assert_eq!(host.sense_of(0, &TEST_UNIT_READY), (6, 0x29, 0));
}

#[test]
fn ranges() {
    let mut host = Host::login(&[]);
    let end = (BLOCKS as u32).to_be_bytes();
    let read = |start: [u8; 4], blocks| [0x28, 0, start[0], start[1], start[2], start[3], 0, 0, blocks, 0];
    assert_eq!(host.sense_of(0, &read(end, 1)), (5, 0x21, 0));
    assert_eq!(host.sense_of(0, &read([0xff; 4], 0)), (5, 0x21, 0));
    let none = host.command(Pdu::command(0, 0x40, 0, &read(end, 0), &[]));
    assert_eq!(
        (none[0].opcode(), none[0].header[3]),
        (0x21, 0),
        "no blocks at the very end"
    );
    let mut long = [0; 16];
    (long[0], long[12]) = (0x88, 0x40);
    long[13] = 1; // 16,385 blocks
    host.array.view.luns[0].blocks = 1 << 40;
    assert_eq!(host.sense_of(0, &TEST_UNIT_READY), (6, 0x2a, 0x09));
    let answers = host.command(Pdu::command(0, 0x40, 512, &long, &[]));
    assert_eq!(
        answers[0].sense(),
        (5, 0x24, 0),
        "more than the maximum transfer length"
    );
    assert_eq!(answers[0].data[2 + 15..], [0xc0, 0, 10]);
    long = [0xff; 16];
    (long[0], long[1], long[14], long[15]) = (0x88, 0, 0, 0);
    assert_eq!(host.sense_of(0, &long), (5, 0x21, 0), "the end does not fit 64 bits");
}

/// What the array is asked to do for a command, one after the other.
fn steps(cdb: &[u8], flags: u8, data: &[u8]) -> Vec<(HostOp, u64, u32, u32)> {
    let mut host = Host::login(&[]);
    let expected = if data.is_empty() { 0x10000 } else { data.len() as u32 };
    let answers = host.command(Pdu::command(0, flags, expected, cdb, data));
    let last = answers.last().expect("an answer");
    assert_eq!(last.header[3], 0, "{last:x?}");
    let submitted = host.array.seen.iter().filter_map(|seen| match seen {
        Seen::Submit(_, c) => Some((c.op, c.start.0, c.blocks.0, c.in_hand.0)),
        _ => None,
    });
    submitted.collect()
}

#[test]
fn what_commands_ask_of_the_array() {
    use HostOp::{Read, Sync, Write};
    let block = [7; 512];
    assert_eq!(steps(&[0x08, 0, 0, 9, 0, 0], 0x40, &[]), [(Read, 9, 256, 0)]);
    assert_eq!(
        steps(&[0x28, 0x08, 0, 0, 0, 9, 0, 0, 1, 0], 0x40, &[]),
        [(Sync, 9, 1, 0), (Read, 9, 1, 0)]
    );
    assert_eq!(
        steps(&[0x0a, 0, 0, 9, 1, 0], 0x20, &block),
        [(Write { fua: false }, 9, 1, 1)]
    );
    assert_eq!(
        steps(&[0x2a, 0x18, 0, 0, 0, 9, 0, 0, 1, 0], 0x20, &block),
        [(Write { fua: true }, 9, 1, 1)]
    );
    assert_eq!(steps(&[0x35, 0x02, 0, 0, 0, 9, 0, 0, 0, 0], 0, &[]), [(Sync, 9, 0, 0)]);
    assert_eq!(
        steps(&[0x2f, 0, 0, 0, 0, 9, 0, 0, 4, 0], 0, &[]),
        [(Sync, 9, 4, 0), (Read, 9, 4, 0)]
    );
    let write_and_verify = [(Write { fua: true }, 9, 1, 1), (Read, 9, 1, 0)];
    assert_eq!(
        steps(&[0x2e, 0, 0, 0, 0, 9, 0, 0, 1, 0], 0x20, &block),
        write_and_verify
    );
    assert_eq!(
        steps(&[0x2e, 0x02, 0, 0, 0, 9, 0, 0, 1, 0], 0x20, &block),
        write_and_verify
    );
}

#[test]
fn verify_compares() {
    let mut host = Host::login(&[]);
    let verify = [0xaf, 0x02, 0, 0, 0, 4, 0, 0, 0, 2, 0, 0];
    let mut data = host.array.disk[4 * 512..6 * 512].to_vec();
    let good = host.command(Pdu::command(0, 0x20, 1024, &verify, &data));
    assert_eq!((good[0].opcode(), good[0].header[3]), (0x21, 0));
    data[1023] ^= 1;
    assert_eq!(
        host.command(Pdu::command(0, 0x20, 1024, &verify, &data))[0].sense(),
        (0xe, 0x1d, 0)
    );
}

#[test]
fn status_of_the_array() {
    let read = [0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0];
    for (status, sense) in [
        (Status::Transitioning, (2, 0x04, 0x0a)),
        (Status::NoSuchLun, (5, 0x25, 0)),
        (Status::OutOfRange, (5, 0x21, 0)),
        (Status::ReadError, (3, 0x11, 0)),
        (Status::WriteError, (3, 0x0c, 0)),
    ] {
        let (mut host, tag) = submitted(&read);
        host.session.complete(tag, status, &mut host.array);
        let answers = host.answers();
        assert_eq!(answers[0].sense(), sense);
        assert_eq!(
            (answers[0].flags(), answers[0].get32(44)),
            (0x82, 512),
            "nothing was transferred"
        );
    }
    let (mut host, tag) = submitted(&read);
    host.session.complete(tag, Status::Busy, &mut host.array);
    let answers = host.answers();
    assert_eq!((answers[0].opcode(), answers[0].header[3]), (0x21, 8));
    let (mut host, tag) = submitted(&read);
    host.session.complete(tag, Status::Aborted, &mut host.array);
    assert_eq!(host.answers(), []);
}

/// A host with a command that the array has, and its tag.
fn submitted(cdb: &[u8]) -> (Host, twincell_target::session::Tag) {
    let mut host = Host::login(&[]);
    let command = host.number(Pdu::command(0, 0x40, 512, cdb, &[]));
    assert_eq!(host.send(&command), []);
    let Some(Seen::Submit(tag, command)) = host.array.seen.last().cloned() else {
        panic!("submitted")
    };
    assert_eq!(
        (command.start, command.blocks, command.noid),
        (Vba(0), BlockCount(1), Noid(100))
    );
    (host, tag)
}
