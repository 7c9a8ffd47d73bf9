//! Any split of a stream gives the same session, and garbage gives no panic

mod support;

use support::{Host, INITIATOR, Pdu, TARGET};
use twincell_target::session::Session;

/// Small and repeatable (xorshift64*).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() >> 33) as usize % n
    }
}

/// What an initiator sends in a session that uses everything, PDU by PDU. The answers need not be known beforehand, but for
/// the transfer tags: they are predictable for a session.
fn stream(digests: bool) -> Vec<Vec<u8>> {
    let mut host = Host::connect();
    let mut stream = Vec::new();
    let names = [format!("InitiatorName={INITIATOR}"), format!("TargetName={TARGET}")];
    let digest = if digests { "CRC32C" } else { "None" };
    let keys = [format!("HeaderDigest={digest}"), format!("DataDigest={digest}")];
    let lines = [
        &names[0],
        &names[1],
        &keys[0],
        &keys[1],
        "InitialR2T=No",
        "FirstBurstLength=1024",
    ];
    let login = Host::login_pdu(1, 3, &lines);
    stream.push(login.to_bytes(false));
    host.exchange(&login);
    host.digests = digests;
    let data: Vec<u8> = (0..4096).map(|i| (i * 3) as u8).collect();
    let mut send = |host: &mut Host, pdu: Pdu| {
        stream.push(pdu.to_bytes(digests));
        host.exchange(&pdu)
    };
    let ordinary = [
        Pdu::command(0, 0, 0, &[0; 6], &[]),
        Pdu::command(0, 0x40, 255, &[0x12, 1, 0x83, 0, 255, 0], &[]),
        Pdu::command(0, 0x40, 8192, &[0x28, 0, 0, 0, 0, 8, 0, 0, 16, 0], &[]),
        Pdu::command(0, 0x20, 512, &[0x2a, 0, 0, 0, 0, 1, 0, 0, 1, 0], &data[..512]),
        Pdu::command(9, 0x20, 512, &[0x2a, 0, 0, 0, 0, 1, 0, 0, 1, 0], &data[..512]),
        Pdu::new(0x00, 0x80, 0).with(b"abc"),
        Pdu::new(0x04, 0x80, 0).set32(20, 0xffff_ffff).with(b"SendTargets=\0"),
        Pdu::new(0x42, 0x85, 0),
        Pdu::command(0, 0, 0, &[0; 6], &[]),
    ];
    for pdu in ordinary {
        let pdu = host.number(pdu);
        send(&mut host, pdu);
    }
    let mut write = Pdu::command(0, 0x20, 4096, &[0x2a, 0, 0, 0, 0, 4, 0, 0, 8, 0], &data[..100]);
    write.header[1] &= 0x7f;
    let write = host.number(write);
    send(&mut host, write);
    let itt = host.task_tag;
    let r2t = send(
        &mut host,
        Pdu::data_out(itt, 0xffff_ffff, 0, 100, true, &data[100..1024]),
    );
    assert_eq!(r2t[0].opcode(), 0x31, "{r2t:x?}");
    let ttt = r2t[0].get32(20);
    send(&mut host, Pdu::data_out(itt, ttt, 0, 1024, false, &data[1024..2000]));
    let done = send(&mut host, Pdu::data_out(itt, ttt, 1, 2000, true, &data[2000..]));
    assert_eq!((done[0].opcode(), done[0].header[3]), (0x21, 0));
    send(&mut host, Pdu::new(0x10, 0x80, 0));
    let logout = host.number(Pdu::new(0x06, 0x80, 0));
    send(&mut host, logout);
    assert!(host.session.is_over());
    stream
}

/// The output of a session, and the disk afterwards. The array works after each of the `turns`; the session receives
/// each of them as `split` cuts it.
fn run(turns: &[Vec<u8>], mut split: impl FnMut(&[u8]) -> Vec<&[u8]>) -> (Vec<u8>, Vec<u8>) {
    let mut host = Host::connect();
    let mut output = Vec::new();
    for turn in turns {
        for piece in split(turn) {
            host.session.receive(piece, &mut host.array);
        }
        host.array.work(&mut host.session);
        output.append(host.session.output());
    }
    host.session.disconnected(&mut host.array);
    host.array.work(&mut host.session);
    (output, host.array.disk)
}

fn split<'a>(mut bytes: &'a [u8], random: &mut Random, most: usize) -> Vec<&'a [u8]> {
    let mut pieces = Vec::new();
    while !bytes.is_empty() {
        let (piece, rest) = bytes.split_at((1 + random.below(most)).min(bytes.len()));
        pieces.push(piece);
        bytes = rest;
    }
    pieces
}

#[test]
fn any_split_gives_the_same_session() {
    for digests in [false, true] {
        let stream = stream(digests);
        let whole = run(&stream, |turn| vec![turn]);
        let single = run(&stream, |turn| turn.chunks(1).collect());
        assert!(whole == single, "byte by byte, digests {digests}");
        let mut random = Random(1);
        for round in 0..200 {
            let pieces = run(&stream, |turn| split(turn, &mut random, 1 + round * 3));
            assert!(whole == pieces, "round {round}, digests {digests}");
        }
    }
}

#[test]
fn garbage_ends_sessions_and_nothing_else() {
    let mut random = Random(2);
    for _ in 0..2000 {
        let length = 1 + random.below(2000);
        let bytes: Vec<u8> = (0..length).map(|_| random.next() as u8).collect();
        run(&[bytes], |turn| vec![turn]);
    }
}

#[test]
fn damaged_streams_do_no_harm() {
    let good = stream(false).concat();
    let mut random = Random(3);
    for _ in 0..5000 {
        let mut bytes = good.clone();
        for _ in 0..1 + random.below(4) {
            let at = random.below(bytes.len());
            match random.below(4) {
                0 => bytes[at] = random.next() as u8,
                1 => bytes[at] ^= 1 << random.below(8),
                2 => {
                    let end = (at + random.below(200)).min(bytes.len());
                    bytes.drain(at..end);
                }
                _ => {
                    let from = random.below(bytes.len());
                    let piece = bytes[from..(from + random.below(200)).min(bytes.len())].to_vec();
                    bytes.splice(at..at, piece);
                }
            }
            if bytes.is_empty() {
                break;
            }
        }
        let turns: Vec<Vec<u8>> = split(&bytes, &mut random, 400)
            .into_iter()
            .map(<[u8]>::to_vec)
            .collect();
        run(&turns, |turn| vec![turn]);
    }
}
