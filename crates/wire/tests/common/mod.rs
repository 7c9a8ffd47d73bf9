//! Any value of every type that has bytes.
#![allow(dead_code, reason = "each test program uses a part of it")]

use proptest::array::{uniform8, uniform16};
use proptest::collection::{btree_set, vec};
use proptest::prelude::*;
use proptest::sample::select;
use twincell_core::cell::record::{MetadataName, Mode, Owners, Record, Slot};
use twincell_core::host::{HostOp, Status};
use twincell_core::ids::*;
use twincell_core::layout::metadata::{Disk, DiskState, Lun, Metadata, Name, PsegAddress, Redundancy};
use twincell_core::link::frame::*;
use twincell_core::list::List;
use twincell_core::manage::{ManageError, ManageOp, ManageReply};
use twincell_wire::frame::{FrameHeader, decode_body, decode_mfcs};
use twincell_wire::label::Label;
use twincell_wire::nv::NvHeader;
use twincell_wire::{Error, layout};

fn list<T: Copy + Default, const N: usize>(items: Vec<T>) -> List<T, N> {
    List::from_slice(&items)
}

pub fn uuid() -> impl Strategy<Value = Uuid> {
    any::<u128>().prop_map(|x| Uuid(x | 1))
}

pub fn controller() -> impl Strategy<Value = Controller> {
    select(Controller::BOTH.to_vec())
}

pub fn name() -> impl Strategy<Value = Name> {
    let letters: Vec<char> = ('a'..='z').chain('A'..='Z').chain('0'..='9').collect();
    let more: Vec<char> = letters.iter().copied().chain("-_.".chars()).collect();
    (select(letters), vec(select(more), 0..64)).prop_map(|(first, rest)| {
        let text: String = std::iter::once(first).chain(rest).collect();
        Name::new(&text).expect("it is of the form of a name")
    })
}

pub fn process() -> impl Strategy<Value = ProcessId> {
    (uuid(), any::<u64>(), any::<u32>(), any::<u64>()).prop_map(|(boot, pid_namespace, pid, start_time)| ProcessId {
        boot,
        pid_namespace,
        pid,
        start_time,
    })
}

pub fn record() -> impl Strategy<Value = Record> {
    let mode = prop_oneof![
        Just(Mode::Both),
        (controller(), any::<bool>()).prop_map(|(controller, dirty)| Mode::Alone { controller, dirty }),
    ];
    let quorum = vec(any::<u16>().prop_map(DiskIndex), 0..=QUORUM_MAX).prop_map(list);
    let metadata = (any::<u64>(), 0..2u8).prop_map(|(generation, copy)| MetadataName { generation, copy });
    let owners = uniform16(any::<u64>()).prop_map(Owners);
    let images = [any::<u128>().prop_map(Uuid), any::<u128>().prop_map(Uuid)];
    (any::<u64>(), mode, images, owners, metadata, quorum).prop_map(
        |(epoch, mode, images, owners, metadata, quorum)| Record {
            epoch: Epoch(epoch),
            mode,
            images,
            owners,
            metadata,
            quorum,
        },
    )
}

pub fn slot() -> impl Strategy<Value = Slot> {
    let numbers = (any::<u64>(), any::<u64>(), any::<u64>());
    (controller(), process(), numbers, record(), record()).prop_map(
        |(controller, process, (heartbeat, begun, voted), record, proposal)| Slot {
            controller,
            process,
            heartbeat,
            record,
            begun,
            voted,
            proposal,
        },
    )
}

fn hello() -> impl Strategy<Value = Hello> {
    let ids = (any::<u128>().prop_map(Uuid), uuid(), uuid());
    (controller(), ids, process(), any::<u32>(), any::<u64>(), any::<bool>()).prop_map(
        |(controller, (image, cell, instance), process, incarnation, epoch, undecided)| Hello {
            controller,
            cell,
            instance,
            process,
            incarnation: Incarnation(incarnation),
            epoch: Epoch(epoch),
            image,
            session: Incarnation(incarnation / 2),
            met: Uuid(instance.0.rotate_left(7)),
            undecided,
            buffers: incarnation.rotate_left(9),
        },
    )
}

fn rie() -> impl Strategy<Value = (RieIndex, RieGeneration)> {
    (any::<u16>(), any::<u16>()).prop_map(|(rie, generation)| (RieIndex(rie), RieGeneration(generation)))
}

fn buffers(most: usize) -> impl Strategy<Value = Vec<BufferIndex>> {
    vec(any::<u32>().prop_map(BufferIndex), 0..=most)
}

fn lun_and_range() -> impl Strategy<Value = (Noid, NcaeIndex, Vba, BlockCount)> {
    (any::<u32>(), any::<u16>(), any::<u64>(), any::<u32>())
        .prop_map(|(noid, ncae, start, blocks)| (Noid(noid), NcaeIndex(ncae), Vba(start), BlockCount(blocks)))
}

fn rqr() -> impl Strategy<Value = Rqr> {
    let (new, old) = (buffers(ATOMIC_GRANULES), buffers(ATOMIC_GRANULES));
    (rie(), lun_and_range(), any::<u8>(), new, old, any::<bool>()).prop_map(
        |((rie, generation), (noid, ncae, start, blocks), valid, new, old, express)| Rqr {
            rie,
            generation,
            noid,
            ncae,
            start,
            blocks,
            valid,
            new: list(new),
            old: list(old),
            express,
        },
    )
}

fn redundancy() -> impl Strategy<Value = Redundancy> {
    select(vec![Redundancy::None, Redundancy::Vraid1])
}

fn manage_op() -> impl Strategy<Value = ManageOp> {
    prop_oneof![
        (name(), uuid(), any::<u64>(), redundancy()).prop_map(|(name, uuid, blocks, redundancy)| {
            ManageOp::LunCreate {
                name,
                uuid,
                blocks,
                redundancy,
            }
        }),
        (name(), any::<u64>()).prop_map(|(name, blocks)| ManageOp::LunGrow { name, blocks }),
        (name(), name()).prop_map(|(name, to)| ManageOp::LunRename { name, to }),
        name().prop_map(|name| ManageOp::LunDelete { name }),
        (name(), controller()).prop_map(|(name, to)| ManageOp::LunMove { name, to }),
        Just(ManageOp::Stop),
        Just(ManageOp::SeesDisks),
        controller().prop_map(|missing| ManageOp::AcceptLoss { missing }),
        any::<u16>().prop_map(|disk| ManageOp::DiskMissing { disk: DiskIndex(disk) }),
        any::<u16>().prop_map(|disk| ManageOp::DiskReturned { disk: DiskIndex(disk) }),
        (any::<u16>(), uuid(), any::<u32>()).prop_map(|(disk, uuid, psegs)| ManageOp::DiskReplace {
            disk: DiskIndex(disk),
            uuid,
            psegs,
        }),
        (any::<u16>(), any::<u64>()).prop_map(|(disk, epoch)| ManageOp::DiskLevel {
            disk: DiskIndex(disk),
            epoch: Epoch(epoch),
        }),
    ]
}

fn request() -> impl Strategy<Value = Request> {
    let op = prop_oneof![
        Just(HostOp::Read),
        any::<bool>().prop_map(|fua| HostOp::Write { fua }),
        Just(HostOp::Sync),
    ];
    prop_oneof![
        (op, lun_and_range(), any::<u16>(), any::<u64>()).prop_map(
            |(op, (noid, ncae, start, blocks), transfer, epoch)| Request::Forward {
                op,
                noid,
                ncae,
                start,
                blocks,
                transfer: TransferIndex(transfer),
                epoch: Epoch(epoch),
            }
        ),
        manage_op().prop_map(Request::Manage),
    ]
}

fn response() -> impl Strategy<Value = Response> {
    let status = select(vec![
        Status::Good,
        Status::Aborted,
        Status::Busy,
        Status::Transitioning,
        Status::NoSuchLun,
        Status::OutOfRange,
        Status::ReadError,
        Status::WriteError,
    ]);
    let reply = prop_oneof![
        (any::<u32>(), any::<u16>(), any::<bool>()).prop_map(|(noid, ncae, already)| ManageReply::Lun {
            noid: Noid(noid),
            ncae: NcaeIndex(ncae),
            already
        }),
        Just(ManageReply::Done),
        Just(ManageReply::Stopping),
    ];
    prop_oneof![
        status.prop_map(Response::Forwarded),
        reply.prop_map(|reply| Response::Managed(Ok(reply))),
        manage_error().prop_map(|error| Response::Managed(Err(error))),
    ]
}

fn manage_error() -> impl Strategy<Value = ManageError> {
    let plain = select(vec![
        ManageError::NotServing,
        ManageError::Unknown,
        ManageError::Busy,
        ManageError::NoSuchLun,
        ManageError::NameTaken,
        ManageError::TooManyLuns,
        ManageError::ControllerOut,
        ManageError::DiskError,
        ManageError::LastCopy,
        ManageError::NothingToAccept,
        ManageError::DiskNotReady,
    ]);
    prop_oneof![
        plain,
        (any::<u64>(), any::<u64>()).prop_map(|(needed, free)| ManageError::PoolFull { needed, free }),
        any::<u64>().prop_map(|blocks| ManageError::Shrink { blocks }),
    ]
}

fn xmfc_id() -> impl Strategy<Value = XmfcId> {
    (any::<u16>(), any::<u16>()).prop_map(|(index, generation)| XmfcId { index, generation })
}

fn write_path_mfc() -> impl Strategy<Value = Mfc> {
    prop_oneof![
        rqr().prop_map(Mfc::Rqr),
        (rie(), any::<u8>()).prop_map(|((rie, generation), attempt)| Mfc::Rtr {
            rie,
            generation,
            attempt
        }),
        (rie(), any::<u8>()).prop_map(|((rie, generation), attempt)| Mfc::MirrorData {
            rie,
            generation,
            attempt
        }),
        (rie(), any::<u8>()).prop_map(|((rie, generation), attempt)| Mfc::Dto {
            rie,
            generation,
            attempt
        }),
        (
            rie(),
            any::<u8>(),
            select(vec![SendStatus::NotYetSent, SendStatus::Sent, SendStatus::Aborted])
        )
            .prop_map(|((rie, generation), attempt, status)| Mfc::Dss {
                rie,
                generation,
                attempt,
                status
            }),
        rie().prop_map(|(rie, generation)| Mfc::Mda { rie, generation }),
        rie().prop_map(|(rie, generation)| Mfc::Withdraw { rie, generation }),
        buffers(RELEASE_MAX).prop_map(|b| Mfc::Release(list(b))),
    ]
}

fn membership_mfc() -> impl Strategy<Value = Mfc> {
    let ries = || vec(rie(), 0..=LEVEL_RIES_MAX);
    prop_oneof![
        ries().prop_map(|r| Mfc::LevelRies(list(r))),
        ries().prop_map(|r| Mfc::LevelLacks(list(r))),
        (any::<u32>(), uniform8(any::<u64>())).prop_map(|(first, valid)| Mfc::LevelBuffers {
            first: BufferIndex(first),
            valid
        }),
        Just(Mfc::LevelEnd),
        any::<bool>().prop_map(Mfc::Leveled),
        uuid().prop_map(|image| Mfc::Attach { image }),
        Just(Mfc::Unfenced),
        Just(Mfc::Attached),
        record().prop_map(Mfc::RecordIs),
        any::<u64>().prop_map(|epoch| Mfc::RecordAdopted(Epoch(epoch))),
        Just(Mfc::Leaving),
    ]
}

pub fn mfc() -> impl Strategy<Value = Mfc> {
    prop_oneof![
        write_path_mfc(),
        membership_mfc(),
        (xmfc_id(), request()).prop_map(|(id, request)| Mfc::Request { id, request }),
        (xmfc_id(), response()).prop_map(|(id, response)| Mfc::Response { id, response }),
    ]
}

/// As many of `mfcs` as fit one frame.
fn fitting(mfcs: Vec<Mfc>) -> Mfcs {
    let mut room = twincell_wire::frame::MFCS_BYTES_MAX;
    let mut fitting = List::new();
    for mfc in mfcs {
        let Some(left) = room.checked_sub(twincell_wire::frame::mfc_bytes(&mfc)) else {
            break;
        };
        room = left;
        fitting.push(mfc);
    }
    fitting
}

/// A frame, and the messages in it.
pub fn frame() -> impl Strategy<Value = (Frame, Mfcs)> {
    let incarnation = || any::<u32>().prop_map(Incarnation);
    let alone = prop_oneof![
        1 => hello().prop_map(Frame::Hello),
        1 => (incarnation(), any::<u64>()).prop_map(|(incarnation, sent)| Frame::Heartbeat {
            incarnation,
            sent: Time(sent),
        }),
        1 => (incarnation(), any::<u64>(), any::<u64>()).prop_map(|(incarnation, sent, grant)| Frame::HeartbeatAnswer {
            incarnation,
            sent: Time(sent),
            grant: Nanos(grant),
        }),
        1 => (incarnation(), any::<u32>(), any::<u32>(), any::<u64>()).prop_map(
            |(incarnation, acknowledged, seen, held)| Frame::Ack {
                incarnation,
                acknowledged,
                missing: Missing { seen, held },
            }
        ),
    ];
    prop_oneof![
        4 => alone.prop_map(|frame| (frame, Mfcs::new())),
        6 => messages(),
    ]
}

fn messages() -> impl Strategy<Value = (Frame, Mfcs)> {
    let mfcs = vec(mfc(), 1..=FRAME_MFCS_MAX).prop_map(fitting);
    (any::<u32>(), any::<u32>(), any::<u32>(), mfcs).prop_map(|(incarnation, sequence, acknowledged, mfcs)| {
        let sequenced = Sequenced {
            incarnation: Incarnation(incarnation),
            sequence,
            acknowledged,
        };
        (Frame::Messages(sequenced), mfcs)
    })
}

/// Reads the body of a frame, with its messages.
pub fn read_body(header: &FrameHeader, body: &[u8]) -> Result<(Frame, Mfcs), Error> {
    let (frame, bytes) = decode_body(header, body)?;
    let mut mfcs = Mfcs::new();
    decode_mfcs(bytes, &mut mfcs)?;
    Ok((frame, mfcs))
}

pub fn label() -> impl Strategy<Value = Label> {
    let disks = 1..=1000u16;
    let sizes = disks.prop_flat_map(|disks| {
        let votes = select(vec![1, 3, 5]).prop_filter("there are as many disks", move |n| *n <= usize::from(disks));
        let quorum = votes.prop_flat_map(move |n| btree_set(0..disks, n));
        (Just(disks), 0..disks, quorum)
    });
    let blocks = layout::QUORUM_BLOCKS..1 << 40;
    (uuid(), name(), uuid(), sizes, blocks, any::<u16>(), 0..12u8).prop_map(
        |(cell, cell_name, disk, (disks, index, quorum), blocks, rss, rss_offset)| Label {
            cell,
            cell_name,
            disk,
            index: DiskIndex(index),
            disks,
            blocks,
            quorum: quorum.into_iter().map(DiskIndex).collect(),
            rss: RssIndex(rss),
            rss_offset,
            psegs: layout::psegs_for(blocks),
        },
    )
}

pub fn nv_header() -> impl Strategy<Value = NvHeader> {
    (uuid(), controller(), uuid(), 1..=1u32 << 18, 1..=4096u16).prop_map(|(cell, controller, boot, groups, ries)| {
        NvHeader {
            cell,
            controller,
            boot,
            buffers: groups * 64,
            ries,
        }
    })
}

const STATES: [DiskState; 5] = [
    DiskState::Normal,
    DiskState::Missing,
    DiskState::Merging,
    DiskState::Replace,
    DiskState::Regen,
];

/// How a LUN of the metadata under test gets its PSEGs.
#[derive(Clone, Copy, Debug)]
pub enum Allocation {
    /// The next of each disk in turn.
    InTurn,
    /// From one disk as long as it has any.
    OneDisk,
    /// Now here, now there.
    Scattered,
}

#[derive(Clone, Debug)]
struct Wish {
    name: Name,
    uuid: Uuid,
    rstores: usize,
    redundancy: Redundancy,
    allocation: Allocation,
}

fn wish() -> impl Strategy<Value = Wish> {
    let allocation = select(vec![Allocation::InTurn, Allocation::OneDisk, Allocation::Scattered]);
    (name(), uuid(), 1..200usize, redundancy(), allocation).prop_map(|(name, uuid, rstores, redundancy, allocation)| {
        Wish {
            name,
            uuid,
            rstores,
            redundancy,
            allocation,
        }
    })
}

pub fn metadata() -> impl Strategy<Value = Metadata> {
    let disks = vec(
        (uuid(), 0..300u32, any::<u16>(), any::<u8>(), select(STATES.to_vec())),
        0..20,
    );
    (any::<u64>(), disks, vec(wish(), 0..12), any::<u64>()).prop_map(|(generation, disks, wishes, seed)| {
        let disks: Vec<Disk> = disks
            .into_iter()
            .map(|(uuid, psegs, rss, rss_offset, state)| Disk {
                uuid,
                psegs,
                rss: RssIndex(rss),
                rss_offset,
                state,
            })
            .collect();
        let luns = luns(&disks, wishes, seed);
        let next_noid = Noid(luns.last().map_or(0, |lun| lun.noid.0 + 1));
        Metadata {
            generation,
            next_noid,
            disks,
            luns,
        }
    })
}

/// The LUNs that are wished for, as far as there is space.
fn luns(disks: &[Disk], wishes: Vec<Wish>, mut seed: u64) -> Vec<Lun> {
    let mut used = vec![0; disks.len()];
    let mut luns: Vec<Lun> = Vec::new();
    for (place, wish) in wishes.into_iter().enumerate() {
        let needed = wish.rstores * wish.redundancy.width();
        let psegs = allocate(disks, &mut used, needed, wish.allocation, &mut seed);
        if psegs.len() < needed || luns.iter().any(|lun| lun.name == wish.name) {
            continue;
        }
        luns.push(Lun {
            noid: Noid(place as u32 * 3),
            ncae: NcaeIndex(place as u16 * 2),
            name: wish.name,
            uuid: wish.uuid,
            blocks: (wish.rstores as u64 - 1) * PSEG_BLOCKS + 1 + seed % PSEG_BLOCKS,
            redundancy: wish.redundancy,
            psegs,
        });
    }
    luns
}

fn allocate(disks: &[Disk], used: &mut [u32], n: usize, how: Allocation, seed: &mut u64) -> Vec<PsegAddress> {
    let mut psegs = Vec::new();
    let mut disk = 0;
    while psegs.len() < n {
        *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let free = |d: &usize| used[*d] < disks[*d].psegs;
        let from = match how {
            Allocation::InTurn => disk + 1,
            Allocation::OneDisk => disk,
            Allocation::Scattered => (*seed >> 33) as usize,
        };
        let Some(found) = (0..disks.len()).map(|d| (from + d) % disks.len()).find(free) else {
            break;
        };
        disk = found;
        psegs.push(PsegAddress {
            disk: DiskIndex(disk as u16),
            pseg: PsegIndex(used[disk]),
        });
        used[disk] += 1;
    }
    psegs
}

/// Metadata with one mirrored LUN of `rstores` RStores that lies on `disks` disks in turn.
pub fn in_turn(disks: u16, rstores: u64) -> Metadata {
    let psegs = (rstores * 2).div_ceil(disks.into()) as u32;
    let disk = |n: u16| Disk {
        uuid: Uuid(u128::from(n) + 1),
        psegs,
        rss: RssIndex(0),
        rss_offset: n as u8,
        state: DiskState::Normal,
    };
    let place = |n: u64| PsegAddress {
        disk: DiskIndex((n % u64::from(disks)) as u16),
        pseg: PsegIndex((n / u64::from(disks)) as u32),
    };
    let lun = Lun {
        noid: Noid(7),
        ncae: NcaeIndex(3),
        name: Name::new("vol-1").expect("it is a name"),
        uuid: Uuid(0x1234),
        blocks: rstores * PSEG_BLOCKS,
        redundancy: Redundancy::Vraid1,
        psegs: (0..rstores * 2).map(place).collect(),
    };
    Metadata {
        generation: 5,
        next_noid: Noid(8),
        disks: (0..disks).map(disk).collect(),
        luns: vec![lun],
    }
}
