//! Frames and messages of the link in words.

use twincell_core::cell::record::Mode;
use twincell_core::host::HostOp;
use twincell_core::ids::{BlockCount, BufferIndex, RieGeneration, RieIndex, Vba};
use twincell_core::link::frame::{Frame, Hello, Mfc, Mfcs, Request, Response, Rqr, SendStatus, XmfcId};
use twincell_core::manage::ManageOp;

/// What kind of frame it is.
pub fn kind(frame: &Frame) -> &'static str {
    match frame {
        Frame::Hello(_) => "hello",
        Frame::Heartbeat { .. } => "heartbeat",
        Frame::HeartbeatAnswer { .. } => "heartbeat-answer",
        Frame::Ack { .. } => "ack",
        Frame::Messages(_) => "messages",
    }
}

/// A frame and its messages, on one line.
pub fn frame(frame: &Frame, mfcs: &Mfcs, payload_blocks: u32) -> String {
    match frame {
        Frame::Hello(hello) => format!("hello: {}", said(hello)),
        Frame::Heartbeat { incarnation, sent } => format!("heartbeat {} of incarnation {incarnation}", sent.0),
        Frame::HeartbeatAnswer {
            incarnation,
            sent,
            grant,
        } => format!(
            "answer to heartbeat {} of incarnation {incarnation}, grants {} ms",
            sent.0,
            grant.0 / 1_000_000
        ),
        Frame::Ack {
            incarnation,
            acknowledged,
            missing,
        } => {
            let ahead = missing.seen.wrapping_sub(*acknowledged);
            let lacks = match ahead {
                0 => String::new(),
                _ => format!(", has come as far as {}, keeps {:#b}", missing.seen, missing.held),
            };
            format!("ack: all before {acknowledged} of incarnation {incarnation}{lacks}")
        }
        Frame::Messages(s) => {
            let all: Vec<String> = mfcs.iter().map(message).collect();
            let payload = match payload_blocks {
                0 => String::new(),
                blocks => format!("; {} of payload", self::blocks(BlockCount(blocks))),
            };
            format!(
                "frame {} of incarnation {}, all before {} came: {}{payload}",
                s.sequence,
                s.incarnation,
                s.acknowledged,
                all.join("; ")
            )
        }
    }
}

fn said(h: &Hello) -> String {
    let goes_on = match h.session.0 {
        0 => String::new(),
        session => format!(", goes on with incarnation {session}"),
    };
    let undecided = if h.undecided { ", has an undecided ballot" } else { "" };
    format!(
        "{} of cell {}, instance {}, epoch {}, NV image {}, last incarnation {}{goes_on}{undecided}",
        h.controller, h.cell, h.instance, h.epoch, h.image, h.incarnation
    )
}

/// A message.
pub fn message(mfc: &Mfc) -> String {
    match mfc {
        Mfc::Rqr(rqr) => request_read(rqr),
        Mfc::Rtr {
            rie,
            generation,
            attempt,
        } => format!("RTR {}, attempt {attempt}", of(*rie, *generation)),
        Mfc::MirrorData {
            rie,
            generation,
            attempt,
        } => format!("mirror data {}, attempt {attempt}", of(*rie, *generation)),
        Mfc::Mda { rie, generation } => format!("MDA {}", of(*rie, *generation)),
        Mfc::Dto {
            rie,
            generation,
            attempt,
        } => format!("DTO {}, attempt {attempt}", of(*rie, *generation)),
        Mfc::Dss {
            rie,
            generation,
            attempt,
            status,
        } => {
            let status = match status {
                SendStatus::NotYetSent => "not yet sent",
                SendStatus::Sent => "sent",
                SendStatus::Aborted => "aborted",
            };
            format!("DSS {}, attempt {attempt}: {status}", of(*rie, *generation))
        }
        Mfc::Withdraw { rie, generation } => format!("withdraw {}", of(*rie, *generation)),
        Mfc::Release(buffers) => format!("release {}", named(buffers)),
        Mfc::LevelRies(ries) => format!("level: valid are {}", uses(ries)),
        Mfc::LevelLacks(ries) => format!("level: lacks {}", uses(ries)),
        Mfc::LevelBuffers { first, valid } => {
            let count: u32 = valid.iter().map(|w| w.count_ones()).sum();
            format!("level: {count} valid buffers of those from {first} on")
        }
        Mfc::LevelEnd => "level: that is all".to_owned(),
        Mfc::Leveled(true) => "leveled".to_owned(),
        Mfc::Leveled(false) => "not level".to_owned(),
        Mfc::Attach { image } => format!("attach NV image {image}"),
        Mfc::Unfenced => "unfenced".to_owned(),
        Mfc::Attached => "attached".to_owned(),
        Mfc::RecordIs(record) => {
            let mode = match record.mode {
                Mode::Both => "BOTH".to_owned(),
                Mode::Alone { controller, dirty } => {
                    format!("ALONE({controller}, {})", if dirty { "dirty" } else { "clean" })
                }
            };
            format!("record is epoch {}, {mode}", record.epoch)
        }
        Mfc::RecordAdopted(epoch) => format!("record of epoch {epoch} adopted"),
        Mfc::Leaving => "leaving".to_owned(),
        Mfc::Request { id, request } => format!("request {}: {}", call(*id), asked(request)),
        Mfc::Response { id, response } => match response {
            Response::Forwarded(status) => format!("response {}: forwarded, {status:?}", call(*id)),
            Response::Managed(Ok(reply)) => format!("response {}: managed, {reply:?}", call(*id)),
            Response::Managed(Err(error)) => format!("response {}: not managed, {error:?}", call(*id)),
        },
    }
}

fn request_read(rqr: &Rqr) -> String {
    let form = if rqr.express { "RQR with its data" } else { "RQR" };
    format!(
        "{form} {}: LUN {} (NOID {}), {}; new {}, old {}",
        of(rqr.rie, rqr.generation),
        rqr.ncae,
        rqr.noid,
        range(rqr.start, rqr.blocks),
        named(&rqr.new),
        named(&rqr.old)
    )
}

fn asked(request: &Request) -> String {
    let op = match request {
        Request::Forward {
            op,
            noid,
            ncae,
            start,
            blocks,
            transfer,
            epoch,
        } => {
            let op = match op {
                HostOp::Read => "read",
                HostOp::Write { fua: false } => "write",
                HostOp::Write { fua: true } => "write with FUA",
                HostOp::Sync => "sync",
            };
            return format!(
                "forward {op} of LUN {ncae} (NOID {noid}), {}; transfer buffer {transfer}, epoch {epoch}",
                range(*start, *blocks)
            );
        }
        Request::Manage(op) => op,
    };
    match op {
        ManageOp::LunCreate {
            name,
            uuid,
            blocks,
            redundancy,
        } => format!("create LUN {}, {uuid}, {blocks} blocks, {redundancy:?}", name.as_str()),
        ManageOp::LunGrow { name, blocks } => format!("grow LUN {} to {blocks} blocks", name.as_str()),
        ManageOp::LunRename { name, to } => format!("rename LUN {} to {}", name.as_str(), to.as_str()),
        ManageOp::LunDelete { name } => format!("delete LUN {}", name.as_str()),
        ManageOp::LunMove { name, to } => format!("move LUN {} to {to}", name.as_str()),
        ManageOp::DiskMissing { disk } => format!("disk {disk} is missing"),
        ManageOp::DiskReturned { disk } => format!("disk {disk} may come back"),
        ManageOp::DiskReplace { disk, uuid, psegs } => format!("disk {disk} is {uuid} now, of {psegs} PSEGs"),
        ManageOp::DiskLevel { disk, epoch } => format!("disk {disk} is level, under epoch {epoch}"),
        ManageOp::SeesDisks => "do you see the disks".to_owned(),
        ManageOp::AcceptLoss { missing } => format!("accept the loss of the memory of {missing}"),
        ManageOp::Stop => "stop".to_owned(),
    }
}

/// An RIE and its use.
fn of(rie: RieIndex, generation: RieGeneration) -> String {
    format!("RIE {rie}.{generation}")
}

fn call(id: XmfcId) -> String {
    format!("{}.{}", id.index, id.generation)
}

fn range(start: Vba, count: BlockCount) -> String {
    format!("{} from {start} on", blocks(count))
}

fn blocks(count: BlockCount) -> String {
    format!("{count} block{}", if count.0 == 1 { "" } else { "s" })
}

fn uses(ries: &[(RieIndex, RieGeneration)]) -> String {
    let all: Vec<String> = ries.iter().map(|(rie, generation)| of(*rie, *generation)).collect();
    if all.is_empty() {
        "none".to_owned()
    } else {
        all.join(", ")
    }
}

/// Buffers, those that follow each other as a range.
fn named(buffers: &[BufferIndex]) -> String {
    let runs = buffers.chunk_by(|a, b| a.0.checked_add(1) == Some(b.0));
    let run = |run: &[BufferIndex]| match run {
        [one] => one.to_string(),
        [first, .., last] => format!("{first}-{last}"),
        [] => String::new(),
    };
    let all: Vec<String> = runs.map(run).collect();
    if all.is_empty() {
        "none".to_owned()
    } else {
        all.join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use twincell_core::ids::{Incarnation, NcaeIndex, Noid};
    use twincell_core::link::frame::Sequenced;
    use twincell_core::list::List;

    #[test]
    fn a_write_of_the_express_form_is_one_line() {
        let numbers = |n: &[u32]| n.iter().copied().map(BufferIndex).collect::<Vec<_>>();
        let rqr = Rqr {
            rie: RieIndex(3),
            generation: RieGeneration(9),
            noid: Noid(7),
            ncae: NcaeIndex(0),
            start: Vba(64),
            blocks: BlockCount(16),
            valid: u8::MAX,
            new: List::from_slice(&numbers(&[5, 6])),
            old: List::from_slice(&numbers(&[1, 2, 9])),
            express: true,
        };
        let frame = Frame::Messages(Sequenced {
            incarnation: Incarnation(2),
            sequence: 11,
            acknowledged: 4,
        });
        let mfcs = List::from_slice(&[Mfc::Release(List::new()), Mfc::Rqr(rqr)]);
        assert_eq!(
            super::frame(&frame, &mfcs, 16),
            "frame 11 of incarnation 2, all before 4 came: release none; RQR with its data RIE 3.9: LUN 0 (NOID 7), \
             16 blocks from 64 on; new 5-6, old 1-2 9; 16 blocks of payload"
        );
    }
}
