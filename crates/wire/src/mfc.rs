//! Message function calls as bytes: function code, flags, size of the whole message, then the fields [0061].
//! Function codes are never used again for something else.

use crate::bytes::{Count, Reader, Sink};
use crate::error::{Error, Result};
use crate::record::{self, list, unknown};
use twincell_core::host::{HostOp, Status};
use twincell_core::ids::{
    BlockCount, BufferIndex, DiskIndex, Epoch, NcaeIndex, Noid, RieGeneration, RieIndex, TransferIndex, Uuid, Vba,
};
use twincell_core::link::frame::{LEVEL_BUFFERS, Mfc, Request, Response, Rqr, SendStatus, XmfcId};
use twincell_core::list::List;
use twincell_core::manage::{ManageError, ManageOp, ManageReply};

/// Bytes of the header of a message.
pub(crate) const MFC_HEADER_BYTES: usize = 4;
const WHAT: &str = "message";

/// Function codes.
mod function {
    pub const RQR: u8 = 0x01;
    pub const RTR: u8 = 0x02;
    pub const MIRROR_DATA: u8 = 0x03;
    pub const MDA: u8 = 0x04;
    pub const WITHDRAW: u8 = 0x05;
    pub const DTO: u8 = 0x06;
    pub const DSS: u8 = 0x07;
    pub const RELEASE: u8 = 0x08;
    pub const LEVEL_RIES: u8 = 0x10;
    pub const LEVEL_LACKS: u8 = 0x11;
    pub const LEVEL_BUFFERS: u8 = 0x12;
    pub const LEVEL_END: u8 = 0x13;
    pub const LEVELED: u8 = 0x14;
    pub const ATTACH: u8 = 0x20;
    pub const UNFENCED: u8 = 0x21;
    pub const ATTACHED: u8 = 0x22;
    pub const RECORD_IS: u8 = 0x23;
    pub const RECORD_ADOPTED: u8 = 0x24;
    pub const LEAVING: u8 = 0x25;
    pub const FORWARD: u8 = 0x30;
    pub const MANAGE: u8 = 0x31;
    pub const FORWARDED: u8 = 0x38;
    pub const MANAGED: u8 = 0x39;
}

/// The one flag of a message, where it has one: express, leveled, or force unit access.
const YES: u8 = 1;

/// How many bytes `mfc` takes in a frame, its header included.
pub fn mfc_bytes(mfc: &Mfc) -> usize {
    let mut count = Count(MFC_HEADER_BYTES);
    put_fields(&mut count, mfc);
    count.0
}

/// Appends `mfc`.
pub(crate) fn put_mfc(out: &mut impl Sink, mfc: &Mfc) {
    let (function, yes) = head(mfc);
    out.u8(function);
    out.u8(u8::from(yes));
    out.u16(mfc_bytes(mfc) as u16);
    put_fields(out, mfc);
}

/// Function code and flag.
fn head(mfc: &Mfc) -> (u8, bool) {
    match mfc {
        Mfc::Rqr(rqr) => (function::RQR, rqr.express),
        Mfc::Rtr { .. } => (function::RTR, false),
        Mfc::MirrorData { .. } => (function::MIRROR_DATA, false),
        Mfc::Mda { .. } => (function::MDA, false),
        Mfc::Dto { .. } => (function::DTO, false),
        Mfc::Dss { .. } => (function::DSS, false),
        Mfc::Withdraw { .. } => (function::WITHDRAW, false),
        Mfc::Release(_) => (function::RELEASE, false),
        Mfc::LevelRies(_) => (function::LEVEL_RIES, false),
        Mfc::LevelLacks(_) => (function::LEVEL_LACKS, false),
        Mfc::LevelBuffers { .. } => (function::LEVEL_BUFFERS, false),
        Mfc::LevelEnd => (function::LEVEL_END, false),
        Mfc::Leveled(level) => (function::LEVELED, *level),
        Mfc::Attach { .. } => (function::ATTACH, false),
        Mfc::Unfenced => (function::UNFENCED, false),
        Mfc::Attached => (function::ATTACHED, false),
        Mfc::RecordIs(_) => (function::RECORD_IS, false),
        Mfc::RecordAdopted(_) => (function::RECORD_ADOPTED, false),
        Mfc::Leaving => (function::LEAVING, false),
        Mfc::Request { request, .. } => match request {
            Request::Forward { op, .. } => (function::FORWARD, *op == HostOp::Write { fua: true }),
            Request::Manage(_) => (function::MANAGE, false),
        },
        Mfc::Response { response, .. } => match response {
            Response::Forwarded(_) => (function::FORWARDED, false),
            Response::Managed(_) => (function::MANAGED, false),
        },
    }
}

fn put_fields(out: &mut impl Sink, mfc: &Mfc) {
    match mfc {
        Mfc::Rqr(rqr) => put_rqr(out, rqr),
        Mfc::Rtr {
            rie,
            generation,
            attempt,
        }
        | Mfc::MirrorData {
            rie,
            generation,
            attempt,
        }
        | Mfc::Dto {
            rie,
            generation,
            attempt,
        } => {
            put_rie(out, *rie, *generation);
            out.u8(*attempt);
        }
        Mfc::Dss {
            rie,
            generation,
            attempt,
            status,
        } => {
            put_rie(out, *rie, *generation);
            out.u8(*attempt);
            out.u8(match status {
                SendStatus::NotYetSent => 1,
                SendStatus::Sent => 2,
                SendStatus::Aborted => 3,
            });
        }
        Mfc::Mda { rie, generation } | Mfc::Withdraw { rie, generation } => put_rie(out, *rie, *generation),
        Mfc::Release(buffers) => {
            out.u8(buffers.len() as u8);
            buffers.iter().for_each(|b| out.u32(b.0));
        }
        Mfc::LevelRies(ries) | Mfc::LevelLacks(ries) => {
            out.u8(ries.len() as u8);
            ries.iter()
                .for_each(|(rie, generation)| put_rie(out, *rie, *generation));
        }
        Mfc::LevelBuffers { first, valid } => {
            out.u32(first.0);
            valid.iter().for_each(|word| out.u64(*word));
        }
        Mfc::LevelEnd | Mfc::Leveled(_) | Mfc::Unfenced | Mfc::Attached | Mfc::Leaving => {}
        Mfc::Attach { image } => out.u128(image.0),
        Mfc::RecordIs(record) => record::put_record(out, record),
        Mfc::RecordAdopted(epoch) => out.u64(epoch.0),
        Mfc::Request { id, request } => {
            put_xmfc_id(out, *id);
            put_request(out, request);
        }
        Mfc::Response { id, response } => {
            put_xmfc_id(out, *id);
            put_response(out, response);
        }
    }
}

/// Reads one message.
pub(crate) fn mfc(r: &mut Reader) -> Result<Mfc> {
    let function = r.u8()?;
    let flags = r.u8()?;
    let size = usize::from(r.u16()?);
    let fields = size.checked_sub(MFC_HEADER_BYTES).ok_or(Error::Short { what: WHAT })?;
    let mut r = Reader::new(r.take(fields)?, WHAT);
    let mfc = fields_of(function, flags & YES != 0, &mut r)?;
    r.end()?;
    // No flag may be set but that of the message, where it has one.
    if flags != u8::from(head(&mfc).1) {
        return Err(unknown("the flags of a message", flags));
    }
    Ok(mfc)
}

fn fields_of(function: u8, yes: bool, r: &mut Reader) -> Result<Mfc> {
    Ok(match function {
        function::RQR => Mfc::Rqr(rqr(r, yes)?),
        function::RTR | function::MIRROR_DATA | function::DTO => {
            let (rie, generation) = rie(r)?;
            let attempt = r.u8()?;
            match function {
                function::RTR => Mfc::Rtr {
                    rie,
                    generation,
                    attempt,
                },
                function::DTO => Mfc::Dto {
                    rie,
                    generation,
                    attempt,
                },
                _ => Mfc::MirrorData {
                    rie,
                    generation,
                    attempt,
                },
            }
        }
        function::DSS => {
            let (rie, generation) = rie(r)?;
            let attempt = r.u8()?;
            let status = match r.u8()? {
                1 => SendStatus::NotYetSent,
                2 => SendStatus::Sent,
                3 => SendStatus::Aborted,
                code => return Err(unknown("the status of sent data", code)),
            };
            Mfc::Dss {
                rie,
                generation,
                attempt,
                status,
            }
        }
        function::MDA => {
            let (rie, generation) = rie(r)?;
            Mfc::Mda { rie, generation }
        }
        function::WITHDRAW => {
            let (rie, generation) = rie(r)?;
            Mfc::Withdraw { rie, generation }
        }
        function::RELEASE => Mfc::Release(counted(r, "the buffers of a release", buffer)?),
        function::LEVEL_RIES => Mfc::LevelRies(counted(r, "the RIEs to level", rie)?),
        function::LEVEL_LACKS => Mfc::LevelLacks(counted(r, "the RIEs that are lacking", rie)?),
        function::LEVEL_BUFFERS => {
            let first = buffer(r)?;
            let mut valid = [0; LEVEL_BUFFERS as usize / 64];
            for word in &mut valid {
                *word = r.u64()?;
            }
            Mfc::LevelBuffers { first, valid }
        }
        function::LEVEL_END => Mfc::LevelEnd,
        function::LEVELED => Mfc::Leveled(yes),
        function::ATTACH => Mfc::Attach { image: Uuid(r.u128()?) },
        function::UNFENCED => Mfc::Unfenced,
        function::ATTACHED => Mfc::Attached,
        function::RECORD_IS => Mfc::RecordIs(record::record(r)?),
        function::RECORD_ADOPTED => Mfc::RecordAdopted(Epoch(r.u64()?)),
        function::LEAVING => Mfc::Leaving,
        function::FORWARD | function::MANAGE => {
            let id = xmfc_id(r)?;
            let request = match function {
                function::FORWARD => forward(r, yes)?,
                _ => Request::Manage(manage_op(r)?),
            };
            Mfc::Request { id, request }
        }
        function::FORWARDED | function::MANAGED => {
            let id = xmfc_id(r)?;
            let response = match function {
                function::FORWARDED => Response::Forwarded(status(r)?),
                _ => Response::Managed(managed(r)?),
            };
            Mfc::Response { id, response }
        }
        code => return Err(unknown("the function code of a message", code)),
    })
}

/// A list that begins with its length.
fn counted<T: Copy + Default, const N: usize>(
    r: &mut Reader,
    field: &'static str,
    item: impl FnMut(&mut Reader) -> Result<T>,
) -> Result<List<T, N>> {
    let count = r.u8()?;
    list(r, count, field, item)
}

fn put_rie(out: &mut impl Sink, rie: RieIndex, generation: RieGeneration) {
    out.u16(rie.0);
    out.u16(generation.0);
}

fn rie(r: &mut Reader) -> Result<(RieIndex, RieGeneration)> {
    Ok((RieIndex(r.u16()?), RieGeneration(r.u16()?)))
}

fn buffer(r: &mut Reader) -> Result<BufferIndex> {
    Ok(BufferIndex(r.u32()?))
}

fn put_rqr(out: &mut impl Sink, rqr: &Rqr) {
    put_rie(out, rqr.rie, rqr.generation);
    out.u32(rqr.noid.0);
    out.u16(rqr.ncae.0);
    out.u64(rqr.start.0);
    out.u32(rqr.blocks.0);
    out.u8(rqr.valid);
    out.u8(rqr.new.len() as u8);
    out.u8(rqr.old.len() as u8);
    rqr.new.iter().chain(rqr.old.iter()).for_each(|b| out.u32(b.0));
}

fn rqr(r: &mut Reader, express: bool) -> Result<Rqr> {
    let (rie, generation) = rie(r)?;
    let noid = Noid(r.u32()?);
    let ncae = NcaeIndex(r.u16()?);
    let start = Vba(r.u64()?);
    let blocks = BlockCount(r.u32()?);
    let (valid, new, old) = (r.u8()?, r.u8()?, r.u8()?);
    Ok(Rqr {
        rie,
        generation,
        noid,
        ncae,
        start,
        blocks,
        valid,
        new: list(r, new, "the new buffers of an RQR", buffer)?,
        old: list(r, old, "the old buffers of an RQR", buffer)?,
        express,
    })
}

fn put_xmfc_id(out: &mut impl Sink, id: XmfcId) {
    out.u16(id.index);
    out.u16(id.generation);
}

fn xmfc_id(r: &mut Reader) -> Result<XmfcId> {
    let (index, generation) = (r.u16()?, r.u16()?);
    Ok(XmfcId { index, generation })
}

fn put_request(out: &mut impl Sink, request: &Request) {
    match *request {
        Request::Forward {
            op,
            noid,
            ncae,
            start,
            blocks,
            transfer,
            epoch,
        } => {
            out.u8(match op {
                HostOp::Read => 1,
                HostOp::Write { .. } => 2,
                HostOp::Sync => 3,
            });
            out.u32(noid.0);
            out.u16(ncae.0);
            out.u64(start.0);
            out.u32(blocks.0);
            out.u16(transfer.0);
            out.u64(epoch.0);
        }
        Request::Manage(ref op) => put_manage_op(out, op),
    }
}

fn forward(r: &mut Reader, fua: bool) -> Result<Request> {
    let op = match r.u8()? {
        1 => HostOp::Read,
        2 => HostOp::Write { fua },
        3 => HostOp::Sync,
        code => return Err(unknown("the operation of a forwarded command", code)),
    };
    Ok(Request::Forward {
        op,
        noid: Noid(r.u32()?),
        ncae: NcaeIndex(r.u16()?),
        start: Vba(r.u64()?),
        blocks: BlockCount(r.u32()?),
        transfer: TransferIndex(r.u16()?),
        epoch: Epoch(r.u64()?),
    })
}

fn put_manage_op(out: &mut impl Sink, op: &ManageOp) {
    match op {
        ManageOp::LunCreate {
            name,
            uuid,
            blocks,
            redundancy,
        } => {
            out.u8(1);
            record::put_name(out, name);
            out.u128(uuid.0);
            out.u64(*blocks);
            record::put_redundancy(out, *redundancy);
        }
        ManageOp::LunGrow { name, blocks } => {
            out.u8(2);
            record::put_name(out, name);
            out.u64(*blocks);
        }
        ManageOp::LunRename { name, to } => {
            out.u8(3);
            record::put_name(out, name);
            record::put_name(out, to);
        }
        ManageOp::LunDelete { name } => {
            out.u8(4);
            record::put_name(out, name);
        }
        ManageOp::LunMove { name, to } => {
            out.u8(5);
            record::put_name(out, name);
            record::put_controller(out, *to);
        }
        ManageOp::Stop => out.u8(6),
        ManageOp::AcceptLoss { missing } => {
            out.u8(8);
            record::put_controller(out, *missing);
        }
        ManageOp::DiskMissing { disk } => {
            out.u8(7);
            out.u16(disk.0);
        }
        ManageOp::DiskReturned { disk } => {
            out.u8(9);
            out.u16(disk.0);
        }
        ManageOp::DiskReplace { disk, uuid, psegs } => {
            out.u8(11);
            out.u16(disk.0);
            out.u128(uuid.0);
            out.u32(*psegs);
        }
        ManageOp::SeesDisks => out.u8(12),
        ManageOp::DiskLevel { disk, epoch } => {
            out.u8(10);
            out.u16(disk.0);
            out.u64(epoch.0);
        }
    }
}

fn manage_op(r: &mut Reader) -> Result<ManageOp> {
    Ok(match r.u8()? {
        1 => ManageOp::LunCreate {
            name: record::name(r)?,
            uuid: Uuid(r.u128()?),
            blocks: r.u64()?,
            redundancy: record::redundancy(r)?,
        },
        2 => ManageOp::LunGrow {
            name: record::name(r)?,
            blocks: r.u64()?,
        },
        3 => ManageOp::LunRename {
            name: record::name(r)?,
            to: record::name(r)?,
        },
        4 => ManageOp::LunDelete { name: record::name(r)? },
        5 => ManageOp::LunMove {
            name: record::name(r)?,
            to: record::controller(r)?,
        },
        6 => ManageOp::Stop,
        7 => ManageOp::DiskMissing {
            disk: DiskIndex(r.u16()?),
        },
        8 => ManageOp::AcceptLoss {
            missing: record::controller(r)?,
        },
        9 => ManageOp::DiskReturned {
            disk: DiskIndex(r.u16()?),
        },
        10 => ManageOp::DiskLevel {
            disk: DiskIndex(r.u16()?),
            epoch: Epoch(r.u64()?),
        },
        11 => ManageOp::DiskReplace {
            disk: DiskIndex(r.u16()?),
            uuid: Uuid(r.u128()?),
            psegs: r.u32()?,
        },
        12 => ManageOp::SeesDisks,
        code => return Err(unknown("the operation of an operator's request", code)),
    })
}

/// Results and errors of operators' requests share one set of codes: errors from 0x80 on.
fn put_response(out: &mut impl Sink, response: &Response) {
    match response {
        Response::Forwarded(status) => out.u8(status_code(*status)),
        Response::Managed(Ok(reply)) => put_reply(out, *reply),
        Response::Managed(Err(error)) => put_error(out, *error),
    }
}

fn put_reply(out: &mut impl Sink, reply: ManageReply) {
    match reply {
        ManageReply::Lun { noid, ncae, already } => {
            out.u8(1);
            out.u32(noid.0);
            out.u16(ncae.0);
            out.u8(u8::from(already));
        }
        ManageReply::Done => out.u8(2),
        ManageReply::Stopping => out.u8(3),
    }
}

fn put_error(out: &mut impl Sink, error: ManageError) {
    match error {
        ManageError::NotServing => out.u8(0x80),
        ManageError::Unknown => out.u8(0x81),
        ManageError::Busy => out.u8(0x82),
        ManageError::NoSuchLun => out.u8(0x83),
        ManageError::NameTaken => out.u8(0x84),
        ManageError::PoolFull { needed, free } => {
            out.u8(0x85);
            out.u64(needed);
            out.u64(free);
        }
        ManageError::TooManyLuns => out.u8(0x86),
        ManageError::Shrink { blocks } => {
            out.u8(0x87);
            out.u64(blocks);
        }
        ManageError::ControllerOut => out.u8(0x88),
        ManageError::DiskError => out.u8(0x89),
        ManageError::LastCopy => out.u8(0x8a),
        ManageError::NothingToAccept => out.u8(0x8b),
        ManageError::AwaitsDisk => out.u8(0x8c),
        ManageError::DiskNotReady => out.u8(0x8d),
    }
}

fn managed(r: &mut Reader) -> Result<Result<ManageReply, ManageError>> {
    Ok(match r.u8()? {
        1 => Ok(ManageReply::Lun {
            noid: Noid(r.u32()?),
            ncae: NcaeIndex(r.u16()?),
            already: flag(r)?,
        }),
        2 => Ok(ManageReply::Done),
        3 => Ok(ManageReply::Stopping),
        0x80 => Err(ManageError::NotServing),
        0x81 => Err(ManageError::Unknown),
        0x82 => Err(ManageError::Busy),
        0x83 => Err(ManageError::NoSuchLun),
        0x84 => Err(ManageError::NameTaken),
        0x85 => Err(ManageError::PoolFull {
            needed: r.u64()?,
            free: r.u64()?,
        }),
        0x86 => Err(ManageError::TooManyLuns),
        0x87 => Err(ManageError::Shrink { blocks: r.u64()? }),
        0x88 => Err(ManageError::ControllerOut),
        0x89 => Err(ManageError::DiskError),
        0x8a => Err(ManageError::LastCopy),
        0x8b => Err(ManageError::NothingToAccept),
        0x8c => Err(ManageError::AwaitsDisk),
        0x8d => Err(ManageError::DiskNotReady),
        code => return Err(unknown("the result of an operator's request", code)),
    })
}

/// A byte that is 0 or 1.
pub(crate) fn flag(r: &mut Reader) -> Result<bool> {
    match r.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        code => Err(unknown("a truth value", code)),
    }
}

fn status_code(status: Status) -> u8 {
    match status {
        Status::Good => 1,
        Status::Aborted => 2,
        Status::Busy => 3,
        Status::Transitioning => 4,
        Status::NoSuchLun => 5,
        Status::OutOfRange => 6,
        Status::ReadError => 7,
        Status::WriteError => 8,
    }
}

fn status(r: &mut Reader) -> Result<Status> {
    Ok(match r.u8()? {
        1 => Status::Good,
        2 => Status::Aborted,
        3 => Status::Busy,
        4 => Status::Transitioning,
        5 => Status::NoSuchLun,
        6 => Status::OutOfRange,
        7 => Status::ReadError,
        8 => Status::WriteError,
        code => return Err(unknown("the status of a forwarded command", code)),
    })
}
