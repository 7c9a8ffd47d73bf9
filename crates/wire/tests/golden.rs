//! Bytes that must not change by accident. Where one of these fails, the format has changed: then the version or a
//! feature bit has to change with it, and the byte maps in docs.

use expect_test::{Expect, expect};
use std::fmt::Write;
use twincell_core::cell::record::{MetadataName, Mode, Owners, Record, Slot};
use twincell_core::host::{HostOp, Status};
use twincell_core::ids::*;
use twincell_core::layout::metadata::{Disk, DiskState, Lun, Metadata, Name, PsegAddress, Redundancy};
use twincell_core::link::frame::*;
use twincell_core::list::List;
use twincell_core::manage::{ManageError, ManageOp, ManageReply};
use twincell_wire::{frame, label, metadata, nv, slot};

const CELL: Uuid = Uuid(0xce11_0000_0000_4000_8000_0000_0000_0001);

fn check(bytes: &[u8], expected: Expect) {
    expected.assert_eq(&dump(bytes));
}

/// Sixteen bytes a line, and no line that is all zero.
fn dump(bytes: &[u8]) -> String {
    let mut out = format!("{} bytes\n", bytes.len());
    for (n, line) in bytes.chunks(16).enumerate() {
        if line.iter().all(|b| *b == 0) {
            continue;
        }
        let _ = write!(out, "{:06x}", n * 16);
        for word in line.chunks(4) {
            let _ = write!(out, " ");
            word.iter().for_each(|b| _ = write!(out, "{b:02x}"));
        }
        out.push('\n');
    }
    out
}

fn name(text: &str) -> Name {
    Name::new(text).expect("it is a name")
}

fn process() -> ProcessId {
    ProcessId {
        boot: Uuid(0xb007),
        pid_namespace: 0xf000_0001,
        pid: 4711,
        start_time: 99,
    }
}

fn record() -> Record {
    let mut owners = Owners::default();
    owners.set(NcaeIndex(1), Controller::B);
    owners.set(NcaeIndex(1023), Controller::B);
    Record {
        epoch: Epoch(12),
        mode: Mode::Alone {
            controller: Controller::B,
            dirty: true,
        },
        images: [Uuid::NIL, Uuid(0xbb)],
        owners,
        metadata: MetadataName { generation: 5, copy: 1 },
        quorum: List::from_slice(&[DiskIndex(0), DiskIndex(2), DiskIndex(4)]),
    }
}

fn check_frame(frame: &Frame, expected: Expect) {
    let mut out = Vec::new();
    frame::encode(frame, &[], 0, 0, &mut out);
    check(&out, expected);
}

fn check_messages(mfcs: &[Mfc], payload_blocks: u32, expected: Expect) {
    let sequenced = Sequenced {
        incarnation: Incarnation(3),
        sequence: 70_000,
        acknowledged: 69_999,
    };
    let mut out = Vec::new();
    frame::encode(&Frame::Messages(sequenced), mfcs, payload_blocks, 0x1122_3344, &mut out);
    check(&out, expected);
}

fn rqr(express: bool) -> Mfc {
    Mfc::Rqr(Rqr {
        rie: RieIndex(5),
        generation: RieGeneration(6),
        noid: Noid(7),
        ncae: NcaeIndex(8),
        start: Vba(0x1_0000_0009),
        blocks: BlockCount(10),
        valid: 14,
        new: List::from_slice(&[BufferIndex(11), BufferIndex(12)]),
        old: List::from_slice(&[BufferIndex(13)]),
        express,
    })
}

fn forward(op: HostOp) -> Mfc {
    let request = Request::Forward {
        op,
        noid: Noid(7),
        ncae: NcaeIndex(8),
        start: Vba(9),
        blocks: BlockCount(10),
        transfer: TransferIndex(2),
        epoch: Epoch(12),
    };
    Mfc::Request { id: ID, request }
}

const ID: XmfcId = XmfcId {
    index: 1,
    generation: 2,
};

fn manage(op: ManageOp) -> Mfc {
    let request = Request::Manage(op);
    Mfc::Request { id: ID, request }
}

fn respond(response: Response) -> Mfc {
    Mfc::Response { id: ID, response }
}

#[test]
fn hello() {
    let hello = Hello {
        controller: Controller::B,
        cell: CELL,
        instance: Uuid(0x11),
        process: process(),
        incarnation: Incarnation(2),
        epoch: Epoch(12),
        image: Uuid(0xbb),
        session: Incarnation(4),
        met: Uuid(0xdd),
        undecided: true,
        buffers: 32_768,
    };
    check_frame(
        &Frame::Hello(hello),
        expect![[r#"
            154 bytes
            000000 74634c46 01000000 01007a00 02000000
            000010 00000000 00000000 b37d6951 8b7881d1
            000020 01000100 02010100 00000000 00800040
            000030 00000000 11ce1100 00000000 00000000
            000040 00000000 000007b0 00000000 00000000
            000050 00000000 00000100 00f00000 00006300
            000060 00000000 00006712 00000c00 00000000
            000070 0000bb00 00000000 00000000 00000000
            000080 00000400 0000dd00 00000000 00000000
            000090 00000000 00000080 0000
        "#]],
    );
}

#[test]
fn frames_outside_the_window() {
    let incarnation = Incarnation(3);
    let sent = Time(1000);
    check_frame(
        &Frame::Heartbeat { incarnation, sent },
        expect![[r#"
            40 bytes
            000000 74634c46 01000000 02000800 03000000
            000010 00000000 00000000 a6fbd860 10fc5ff2
            000020 e8030000 00000000
        "#]],
    );
    let grant = Nanos(2_000_000_000);
    check_frame(
        &Frame::HeartbeatAnswer {
            incarnation,
            sent,
            grant,
        },
        expect![[r#"
            48 bytes
            000000 74634c46 01000000 03001000 03000000
            000010 00000000 00000000 df481e6b 50331387
            000020 e8030000 00000000 00943577 00000000
        "#]],
    );
    check_frame(
        &Frame::Ack {
            incarnation,
            acknowledged: 4,
            missing: Missing { seen: 9, held: 0b1010 },
        },
        expect![[r#"
            48 bytes
            000000 74634c46 01000000 04001000 03000000
            000010 00000000 00000000 c784e2be 00079115
            000020 04000000 09000000 0a000000 00000000
        "#]],
    );
}

#[test]
fn the_express_write() {
    check_messages(
        &[rqr(true)],
        10,
        expect![[r#"
            81 bytes
            000000 74634c46 01000000 05003100 03000000
            000010 00140000 44332211 dbaeb494 8e1713ce
            000020 70110100 6f110100 01012900 05000600
            000030 07000000 08000900 00000100 00000a00
            000040 00000e02 010b0000 000c0000 000d0000
        "#]],
    );
}

#[test]
fn the_long_write() {
    let (rie, generation, attempt) = (RieIndex(5), RieGeneration(6), 1);
    let mfcs = [
        rqr(false),
        Mfc::Rtr {
            rie,
            generation,
            attempt,
        },
        Mfc::Mda { rie, generation },
        Mfc::Withdraw { rie, generation },
        Mfc::Dto {
            rie,
            generation,
            attempt,
        },
        Mfc::Dss {
            rie,
            generation,
            attempt,
            status: SendStatus::Sent,
        },
        Mfc::Release(List::from_slice(&[BufferIndex(1), BufferIndex(0x0102_0304)])),
        Mfc::MirrorData {
            rie,
            generation,
            attempt,
        },
    ];
    check_messages(
        &mfcs,
        256,
        expect![[r#"
            147 bytes
            000000 74634c46 01000000 05007300 03000000
            000010 00000200 44332211 4608c293 a9708f74
            000020 70110100 6f110100 01002900 05000600
            000030 07000000 08000900 00000100 00000a00
            000040 00000e02 010b0000 000c0000 000d0000
            000050 00020009 00050006 00010400 08000500
            000060 06000500 08000500 06000600 09000500
            000070 06000107 000a0005 00060001 0208000d
            000080 00020100 00000403 02010300 09000500
            000090 060001
        "#]],
    );
}

#[test]
fn leveling() {
    let ries = List::from_slice(&[(RieIndex(1), RieGeneration(2)), (RieIndex(3), RieGeneration(4))]);
    let first = BufferIndex(512);
    let valid = [1, 2, 3, 4, 5, 6, 7, u64::MAX];
    let mfcs = [
        Mfc::LevelRies(ries),
        Mfc::LevelLacks(List::new()),
        Mfc::LevelBuffers { first, valid },
        Mfc::LevelEnd,
        Mfc::Leveled(false),
        Mfc::Leveled(true),
    ];
    check_messages(
        &mfcs,
        0,
        expect![[r#"
            142 bytes
            000000 74634c46 01000000 05006e00 03000000
            000010 00000000 00000000 d4dfc5a1 1dc3c782
            000020 70110100 6f110100 10000d00 02010002
            000030 00030004 00110005 00001200 48000002
            000040 00000100 00000000 00000200 00000000
            000050 00000300 00000000 00000400 00000000
            000060 00000500 00000000 00000600 00000000
            000070 00000700 00000000 0000ffff ffffffff
            000080 ffff1300 04001400 04001401 0400
        "#]],
    );
}

#[test]
fn membership() {
    let mfcs = [
        Mfc::Attach { image: Uuid(0xbb) },
        Mfc::Unfenced,
        Mfc::Attached,
        Mfc::RecordIs(record()),
        Mfc::RecordAdopted(Epoch(12)),
        Mfc::Leaving,
    ];
    check_messages(
        &mfcs,
        0,
        expect![[r#"
            280 bytes
            000000 74634c46 01000000 0500f800 03000000
            000010 00000000 00000000 ae888d94 0d9f8299
            000020 70110100 6f110100 20001400 bb000000
            000030 00000000 00000000 00000000 21000400
            000040 22000400 2300c400 0c000000 00000000
            000050 05010300 00000200 04000000 00000000
            000060 05000000 00000000 00000000 00000000
            000070 00000000 00000000 bb000000 00000000
            000080 00000000 00000000 02000000 00000000
            000100 00000000 00000080 24000c00 0c000000
            000110 00000000 25000400
        "#]],
    );
}

#[test]
fn forwarded_commands() {
    let mfcs = [
        forward(HostOp::Read),
        forward(HostOp::Sync),
        respond(Response::Forwarded(Status::Good)),
        respond(Response::Forwarded(Status::Aborted)),
        respond(Response::Forwarded(Status::WriteError)),
        forward(HostOp::Write { fua: false }),
        forward(HostOp::Write { fua: true }),
    ];
    check_messages(
        &mfcs,
        10,
        expect![[r#"
            215 bytes
            000000 74634c46 01000000 0500b700 03000000
            000010 00140000 44332211 f400d4f3 a44219ec
            000020 70110100 6f110100 30002500 01000200
            000030 01070000 00080009 00000000 0000000a
            000040 00000002 000c0000 00000000 00300025
            000050 00010002 00030700 00000800 09000000
            000060 00000000 0a000000 02000c00 00000000
            000070 00003800 09000100 02000138 00090001
            000080 00020002 38000900 01000200 08300025
            000090 00010002 00020700 00000800 09000000
            0000a0 00000000 0a000000 02000c00 00000000
            0000b0 00003001 25000100 02000207 00000008
            0000c0 00090000 00000000 000a0000 0002000c
        "#]],
    );
}

#[test]
fn requests_of_operators() {
    let (name, to, blocks) = (name("vol-1"), name("vol-2"), 4096);
    let (uuid, redundancy) = (Uuid(0x1234), Redundancy::Vraid1);
    let create = ManageOp::LunCreate {
        name,
        uuid,
        blocks,
        redundancy,
    };
    let mfcs = [
        manage(create),
        manage(ManageOp::LunGrow { name, blocks }),
        manage(ManageOp::LunRename { name, to }),
        manage(ManageOp::LunDelete { name }),
        manage(ManageOp::LunMove {
            name,
            to: Controller::B,
        }),
        manage(ManageOp::Stop),
    ];
    check_messages(
        &mfcs,
        0,
        expect![[r#"
            164 bytes
            000000 74634c46 01000000 05008400 03000000
            000010 00000000 00000000 cf74a8d1 3b7883fa
            000020 70110100 6f110100 31002800 01000200
            000030 0105766f 6c2d3134 12000000 00000000
            000040 00000000 00000000 10000000 00000003
            000050 31001700 01000200 0205766f 6c2d3100
            000060 10000000 00000031 00150001 00020003
            000070 05766f6c 2d310576 6f6c2d32 31000f00
            000080 01000200 0405766f 6c2d3131 00100001
            000090 00020005 05766f6c 2d310231 00090001
            0000a0 00020006
        "#]],
    );
}

#[test]
fn answers_to_operators() {
    let lun = ManageReply::Lun {
        noid: Noid(7),
        ncae: NcaeIndex(8),
        already: true,
    };
    let mfcs = [
        respond(Response::Managed(Ok(lun))),
        respond(Response::Managed(Ok(ManageReply::Stopping))),
        respond(Response::Managed(Err(ManageError::NotServing))),
        respond(Response::Managed(Err(ManageError::PoolFull { needed: 9, free: 3 }))),
        respond(Response::Managed(Err(ManageError::Shrink { blocks: 77 }))),
        respond(Response::Managed(Err(ManageError::DiskError))),
    ];
    check_messages(
        &mfcs,
        0,
        expect![[r#"
            125 bytes
            000000 74634c46 01000000 05005d00 03000000
            000010 00000000 00000000 e12bb5ab 3369adae
            000020 70110100 6f110100 39001000 01000200
            000030 01070000 00080001 39000900 01000200
            000040 03390009 00010002 00803900 19000100
            000050 02008509 00000000 00000003 00000000
            000060 00000039 00110001 00020087 4d000000
            000070 00000000 39000900 01000200 89
        "#]],
    );
}

#[test]
fn quorum_slot() {
    let slot = Slot {
        controller: Controller::B,
        process: process(),
        heartbeat: 1,
        record: record(),
        begun: 2,
        voted: 3,
        proposal: Record::first(&[DiskIndex(1)]),
    };
    check(
        &slot::encode(&slot, CELL),
        expect![[r#"
            512 bytes
            000000 74632d73 6c6f7400 01000000 00000000
            000010 01000000 00000080 00400000 000011ce
            000020 02000000 07b00000 00000000 00000000
            000030 00000000 010000f0 00000000 63000000
            000040 00000000 67120000 01000000 00000000
            000050 02000000 00000000 03000000 00000000
            000060 0c000000 00000000 05010300 00000200
            000070 04000000 00000000 05000000 00000000
            000090 bb000000 00000000 00000000 00000000
            0000a0 02000000 00000000 00000000 00000000
            000110 00000000 00000000 00000000 00000080
            000120 01000000 00000000 02000100 01000000
            000130 00000000 00000000 01000000 00000000
            0001f0 00000000 00000000 00000000 a341f6f4
        "#]],
    );
}

#[test]
fn disk_label() {
    let label = label::Label {
        cell: CELL,
        cell_name: name("demo"),
        disk: Uuid(0xd15c),
        index: DiskIndex(2),
        disks: 8,
        blocks: 1 << 21,
        quorum: List::from_slice(&[DiskIndex(0), DiskIndex(2), DiskIndex(4)]),
        rss: RssIndex(0),
        rss_offset: 2,
        psegs: twincell_wire::layout::psegs_for(1 << 21),
    };
    check(
        &label::encode(&label).expect("it is a good label"),
        expect![[r#"
            4096 bytes
            000000 7477696e 63656c6c 01000000 00000000
            000010 01000000 00000080 00400000 000011ce
            000020 5cd10000 00000000 00000000 00000000
            000030 02000800 00000203 00000200 04000000
            000040 00000000 00000000 00002000 00000000
            000050 00100000 00000000 fb010000 00000000
            000060 00008000 00000000 00000000 00000000
            000070 00100000 00000000 00000100 00000000
            000080 00100100 00000000 00200100 00000000
            000090 00300100 00000000 00001000 00000000
            0000a0 00004000 00000000 00003000 00000000
            0000b0 00007000 00000000 00001000 00000000
            0000c0 0000e03f 00000000 08000000 00000000
            0000e0 0464656d 6f000000 00000000 00000000
            000ff0 00000000 00000000 00000000 f31f3c6d
        "#]],
    );
}

#[test]
fn metadata() {
    let disk = |uuid, state, rss_offset| Disk {
        uuid: Uuid(uuid),
        psegs: 507,
        rss: RssIndex(0),
        rss_offset,
        state,
    };
    let at = |disk, pseg| PsegAddress {
        disk: DiskIndex(disk),
        pseg: PsegIndex(pseg),
    };
    let lun = |noid, text, uuid, blocks, redundancy, psegs| Lun {
        noid: Noid(noid),
        ncae: NcaeIndex(noid as u16),
        name: name(text),
        uuid: Uuid(uuid),
        blocks,
        redundancy,
        psegs,
    };
    let mirrored = vec![at(0, 0), at(1, 0), at(0, 1), at(1, 1), at(0, 2), at(1, 2)];
    let single = vec![at(1, 9), at(0, 7)];
    let metadata = Metadata {
        generation: 5,
        next_noid: Noid(3),
        disks: vec![disk(0xd0, DiskState::Normal, 0), disk(0xd1, DiskState::Missing, 1)],
        luns: vec![
            lun(1, "vol-1", 0x1234, 3 * 4096, Redundancy::Vraid1, mirrored),
            lun(2, "vol-2", 0x5678, 4097, Redundancy::None, single),
        ],
    };
    check(
        &metadata::encode(&metadata, CELL).expect("it is good metadata"),
        expect![[r#"
            4096 bytes
            000000 74632d6d 65746100 01000000 00000000
            000010 01000000 00000080 00400000 000011ce
            000020 05000000 00000000 d0000000 65575349
            000030 00000000 00000000 00000000 4551505f
            000040 03000000 02000200 d0000000 00000000
            000050 00000000 00000000 fb010000 00000001
            000060 d1000000 00000000 00000000 00000000
            000070 fb010000 00000102 01000000 01000300
            000080 34120000 00000000 00000000 00000000
            000090 00300000 00000000 00000000 00000000
            0000a0 00000000 00000000 05766f6c 2d310100
            0000b0 00000300 00000200 00000000 00000100
            0000c0 00000000 02000000 02000100 78560000
            0000d0 00000000 00000000 00000000 01100000
            0000f0 00000000 05766f6c 2d320100 00000100
            000100 00000200 01000900 00000000 07000000
        "#]],
    );
}

#[test]
fn nv_header() {
    let header = nv::NvHeader {
        cell: CELL,
        controller: Controller::A,
        boot: Uuid(0xb007),
        buffers: 8192,
        ries: 256,
    };
    check(
        &nv::encode(&header, Uuid(0xaa)).expect("the pools are within bounds"),
        expect![[r#"
            4096 bytes
            000000 74632d6e 766d656d 01000000 00000000
            000010 01000000 00000080 00400000 000011ce
            000020 07b00000 00000000 00000000 00000000
            000030 01000001 00200000 008a0000 00100000
            000040 00100000 00000000 00600400 00000000
            000050 00600600 00000000 00600604 00000000
            0001f0 00000000 00000000 00000000 0d7a099d
            000200 74634e49 00000000 aa000000 00000000
            000210 00000000 00000000 00000000 70e25663
        "#]],
    );
}
