//! The controller's end of the control socket: threads that ask the engine.

use crate::control::{
    Answer, ControllerStatus, DiskStatus, Envelope, LinkCounters, LinkStatus, LunChange, LunStatus, Merged, PathStatus,
    REQUEST_MAX, Refusal, RefusalKind, Reply, Request, RoleName, SCHEMA, VERSION, short_path,
};
use crate::controller::STOP_ANSWER;
use crate::exit::{Code, Failure};
use crate::size::Size;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use twincell_core::cell::Phase;
use twincell_core::cell::record::Mode;
use twincell_core::controller::Role;
use twincell_core::ids::{BLOCK_BYTES, Controller, DiskIndex, PSEG_BLOCKS};
use twincell_core::layout::metadata::{DiskState, Name, Redundancy};
use twincell_core::link::path::PathState;
use twincell_core::manage::{LunView, ManageError, ManageOp, ManageReply};
use twincell_engine::{Copies, Handle, HandleError, PathSnapshot, Snapshot, random_uuid};

/// Connections at a time: more than any operator needs, and no way to fill memory.
const CONNECTIONS_MAX: usize = 64;
/// A connection on which nothing is asked for this long ends.
const IDLE: Duration = Duration::from_secs(60);
/// How long a change may take: a ballot after a silent partner, twice.
const MANAGE_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a busy controller is left alone before it is asked again to stop.
const ASK_AGAIN: Duration = Duration::from_millis(20);
/// How long the answer to something that cannot even begin may take.
const ANSWER_AT_ONCE: Duration = Duration::from_millis(1500);

/// Opens the control socket and serves it on threads of its own for as long as the process lives. The caller holds
/// the controller's lock, so a socket that is there is of a dead predecessor.
pub fn serve(socket: &Path, controller: Controller, handle: Handle) -> std::io::Result<()> {
    let (path, _dir) = short_path(socket)?;
    match std::fs::remove_file(&path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let listener = UnixListener::bind(&path)?;
    let open = Arc::new(AtomicUsize::new(0));
    std::thread::Builder::new().name("control".to_owned()).spawn(move || {
        for stream in listener.incoming() {
            let Ok(stream) = stream else {
                // Out of descriptors: the ones in use will come back.
                std::thread::sleep(Duration::from_millis(100));
                continue;
            };
            if open.fetch_add(1, Ordering::Relaxed) >= CONNECTIONS_MAX {
                open.fetch_sub(1, Ordering::Relaxed);
                continue;
            }
            let (handle, counted) = (handle.clone(), open.clone());
            let thread = std::thread::Builder::new().name("control".to_owned()).spawn(move || {
                // A connection that breaks is the asker's affair.
                let _ = converse(&stream, controller, &handle);
                counted.fetch_sub(1, Ordering::Relaxed);
            });
            if thread.is_err() {
                open.fetch_sub(1, Ordering::Relaxed);
            }
        }
    })?;
    Ok(())
}

fn converse(stream: &UnixStream, controller: Controller, handle: &Handle) -> std::io::Result<()> {
    stream.set_read_timeout(Some(IDLE))?;
    stream.set_write_timeout(Some(IDLE))?;
    let mut reader = BufReader::new(stream);
    loop {
        let mut line = Vec::new();
        (&mut reader).take(REQUEST_MAX).read_until(b'\n', &mut line)?;
        if line.last() != Some(&b'\n') {
            return Ok(());
        }
        let answer = match understand(&line) {
            Ok(request) => answer(request, controller, handle),
            Err(refusal) => Answer::Error(refusal),
        };
        let reply = Reply {
            schema: SCHEMA,
            version: VERSION.to_owned(),
            answer,
        };
        let mut text = serde_json::to_vec(&reply)?;
        text.push(b'\n');
        let mut writer = stream;
        writer.write_all(&text)?;
    }
}

fn understand(line: &[u8]) -> Result<Request, Refusal> {
    let usage = |what: String| Refusal::new(RefusalKind::Final, Failure::usage(what));
    let value: serde_json::Value =
        serde_json::from_slice(line).map_err(|e| usage(format!("the request is not JSON: {e}")))?;
    if value["schema"] != SCHEMA {
        return Err(usage(format!(
            "the request is of control protocol {}, and controller {VERSION} speaks {SCHEMA}",
            value["schema"]
        )));
    }
    let envelope: Envelope =
        serde_json::from_value(value).map_err(|e| usage(format!("the request is not understood: {e}")))?;
    Ok(envelope.request)
}

fn answer(request: Request, controller: Controller, handle: &Handle) -> Answer {
    match request {
        Request::Status => ask_snapshot(handle, |s| Answer::Status(Box::new(status(controller, &s)))),
        Request::Link => ask_snapshot(handle, |s| Answer::Link(Box::new(link_status(controller, &s)))),
        Request::Stop => stop(controller, handle),
        Request::AcceptLoss { missing } => accept_loss(&missing, controller, handle),
        Request::Lun(change) => make_change(&change, controller, handle),
        Request::ReplaceDisk { index, uuid, psegs } => replace_disk(DiskIndex(index), &uuid, psegs, controller, handle),
        Request::LookForDisks { paths } => match handle.look_for_disks(paths) {
            Ok(true) => Answer::Done { already: false },
            Ok(false) => Answer::Error(Refusal::new(
                RefusalKind::Final,
                Failure::new(Code::Conflict, "the cell has another number of disks")
                    .next("in `cell.toml` only the path of a disk may change"),
            )),
            Err(error) => Answer::Error(no_answer(error)),
        },
    }
}

/// Stops the controller. One that is busy, because its partner has just left or another task runs, and one that has just
/// started anew, are asked again for a while. Whoever asked is there to hear that it did not stop, and nothing of it is kept.
fn stop(controller: Controller, handle: &Handle) -> Answer {
    let deadline = Instant::now() + STOP_ANSWER;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        // What cannot begin is said at once.
        match handle.manage(ManageOp::Stop, left.max(ANSWER_AT_ONCE)) {
            Ok(Ok(_)) | Err(HandleError::Stopped) => return Answer::Done { already: false },
            Ok(Err(ManageError::Busy | ManageError::Unknown)) if !left.is_zero() => std::thread::sleep(ASK_AGAIN),
            Ok(Err(error)) => return Answer::Error(not_stopped(error, controller)),
            Err(HandleError::TimedOut) => {
                let what = format!(
                    "controller {controller} has not stopped within {} s",
                    STOP_ANSWER.as_secs()
                );
                let failure = Failure::new(Code::TimedOut, what)
                    .next("it was asked to, and does when it can; `twincell status` says what it waits for");
                return Answer::Error(Refusal::new(RefusalKind::Unknown, failure));
            }
        }
    }
}

/// What an operator is told whose controller goes on.
fn not_stopped(error: ManageError, controller: Controller) -> Refusal {
    let (kind, code, why) = match error {
        ManageError::Busy | ManageError::Unknown => (
            RefusalKind::Busy,
            Code::Conflict,
            "what it is to be is still being decided, or another change is under way",
        ),
        ManageError::DiskError => (RefusalKind::Final, Code::Refused, "its partner does not see the disks"),
        _ => (RefusalKind::Final, Code::Refused, "it refuses"),
    };
    let failure = Failure::new(
        code,
        format!("controller {controller} is not stopped, and goes on: {why}"),
    );
    Refusal::new(
        kind,
        failure.next("`twincell status` says what it waits for; SIGTERM stops it as soon as it can be stopped"),
    )
}

fn accept_loss(missing: &str, controller: Controller, handle: &Handle) -> Answer {
    let missing = match crate::config::controller_named(missing) {
        Ok(missing) => missing,
        Err(why) => return Answer::Error(Refusal::new(RefusalKind::Final, Failure::usage(why))),
    };
    match handle.manage(ManageOp::AcceptLoss { missing }, MANAGE_TIMEOUT) {
        Ok(Ok(_)) => Answer::Done { already: false },
        Ok(Err(error)) => Answer::Error(refusal(error, &format!("the memory of {missing}"), None, controller)),
        Err(error) => Answer::Error(no_answer(error)),
    }
}

fn replace_disk(disk: DiskIndex, uuid: &str, psegs: u32, controller: Controller, handle: &Handle) -> Answer {
    let refused = |what: String, next: &str| {
        let failure = Failure::new(Code::Refused, what).next(next);
        Answer::Error(Refusal::new(RefusalKind::Final, failure))
    };
    let Some(uuid) = crate::config::parse_uuid(uuid) else {
        return Answer::Error(Refusal::new(
            RefusalKind::Final,
            Failure::usage(format!("{uuid:?} is not the identity of a disk")),
        ));
    };
    match handle.manage(ManageOp::DiskReplace { disk, uuid, psegs }, MANAGE_TIMEOUT) {
        Ok(Ok(_)) => Answer::Done { already: false },
        Ok(Err(ManageError::LastCopy)) => refused(
            format!("disk {disk} has the only copy of LUNs without redundancy, which would be lost with it"),
            "bring the disk back, or `twincell lun delete` them first",
        ),
        Ok(Err(ManageError::DiskNotReady)) => refused(
            format!("disk {disk} is not missing, or there is no such disk"),
            "`twincell disk list` says what state it is in",
        ),
        Ok(Err(ManageError::PoolFull { needed, free })) => refused(
            format!("the new disk {disk} is too small: the LUNs use {needed} PSEGs of the old one, and it has {free}"),
            "take a larger one",
        ),
        Ok(Err(error)) => Answer::Error(refusal(error, &format!("disk {disk}"), None, controller)),
        Err(error) => Answer::Error(no_answer(error)),
    }
}

fn make_change(change: &LunChange, controller: Controller, handle: &Handle) -> Answer {
    let operation = match operation(change) {
        Ok(operation) => operation,
        Err(failure) => return Answer::Error(Refusal::new(RefusalKind::Final, failure)),
    };
    match handle.manage(operation, MANAGE_TIMEOUT) {
        Ok(Ok(ManageReply::Lun { already, .. })) => Answer::Done { already },
        Ok(Ok(ManageReply::Done | ManageReply::Stopping)) => Answer::Done { already: false },
        Ok(Err(error)) => Answer::Error(refusal(error, &subject(change), new_name(change), controller)),
        Err(error) => Answer::Error(no_answer(error)),
    }
}

fn ask_snapshot(handle: &Handle, then: impl FnOnce(Snapshot) -> Answer) -> Answer {
    handle.snapshot().map_or_else(|e| Answer::Error(no_answer(e)), then)
}

fn no_answer(error: HandleError) -> Refusal {
    let (kind, code) = match error {
        HandleError::Stopped => (RefusalKind::NotServing, Code::Unreachable),
        HandleError::TimedOut => (RefusalKind::Unknown, Code::TimedOut),
    };
    Refusal::new(kind, Failure::new(code, error.to_string()))
}

fn name(text: &str) -> Result<Name, Failure> {
    Name::new(text).ok_or_else(|| {
        Failure::usage(format!(
            "{text:?} is not the name of a LUN: 1 to 64 letters, digits, `-`, `_` and `.`, a letter or digit first"
        ))
    })
}

fn blocks(size_bytes: u64) -> Result<u64, Failure> {
    let block = BLOCK_BYTES as u64;
    if size_bytes == 0 || !size_bytes.is_multiple_of(block) {
        return Err(Failure::usage(format!(
            "a LUN of {size_bytes} bytes: the size is a multiple of {block}, and not 0"
        )));
    }
    Ok(size_bytes / block)
}

/// The redundancy called `text`.
pub fn redundancy(text: &str) -> Result<Redundancy, Failure> {
    match text {
        "none" => Ok(Redundancy::None),
        "vraid1" => Ok(Redundancy::Vraid1),
        "vraid0" | "vraid5" => Err(Failure::not_built(format!("redundancy {text}"))),
        _ => Err(Failure::usage(format!(
            "{text:?} is not a redundancy: none, vraid0, vraid1 or vraid5"
        ))),
    }
}

fn operation(change: &LunChange) -> Result<ManageOp, Failure> {
    Ok(match change {
        LunChange::Create {
            name: n,
            size_bytes,
            redundancy: r,
        } => ManageOp::LunCreate {
            name: name(n)?,
            uuid: random_uuid(),
            blocks: blocks(*size_bytes)?,
            redundancy: redundancy(r)?,
        },
        LunChange::Grow { name: n, size_bytes } => ManageOp::LunGrow {
            name: name(n)?,
            blocks: blocks(*size_bytes)?,
        },
        LunChange::Rename { name: n, to } => ManageOp::LunRename {
            name: name(n)?,
            to: name(to)?,
        },
        LunChange::Delete { name: n } => ManageOp::LunDelete { name: name(n)? },
        LunChange::Move { name: n, to } => ManageOp::LunMove {
            name: name(n)?,
            to: crate::config::controller_named(to).map_err(Failure::usage)?,
        },
    })
}

fn subject(change: &LunChange) -> String {
    match change {
        LunChange::Create { name, .. }
        | LunChange::Grow { name, .. }
        | LunChange::Rename { name, .. }
        | LunChange::Delete { name }
        | LunChange::Move { name, .. } => format!("LUN {name}"),
    }
}

fn new_name(change: &LunChange) -> Option<&str> {
    match change {
        LunChange::Rename { to, .. } => Some(to),
        _ => None,
    }
}

/// What an operator is told who asked for a change of `lun`, which is to be called `to` where that was asked for.
fn refusal(error: ManageError, lun: &str, to: Option<&str>, controller: Controller) -> Refusal {
    let of = |kind, code, what: String, next: &str| Refusal::new(kind, Failure::new(code, what).next(next));
    match error {
        ManageError::NotServing => of(
            RefusalKind::NotServing,
            Code::Unreachable,
            format!("controller {controller} does not serve now"),
            "`twincell status` says why",
        ),
        ManageError::Unknown => of(
            RefusalKind::Unknown,
            Code::TimedOut,
            format!("{lun}: the link broke while the change was being decided"),
            "`twincell lun list` shows what became of it",
        ),
        ManageError::Busy => of(
            RefusalKind::Busy,
            Code::Conflict,
            format!("{lun}: another change is under way"),
            "ask again",
        ),
        ManageError::NoSuchLun => of(
            RefusalKind::NotFound,
            Code::NotFound,
            format!("there is no {lun}"),
            "`twincell lun list` shows which there are",
        ),
        ManageError::NameTaken => {
            let taken = to.map_or_else(|| lun.to_owned(), |to| format!("LUN {to}"));
            let what = format!("{taken} exists already, and differs");
            of(
                RefusalKind::Final,
                Code::Conflict,
                what,
                "choose another name, or `twincell lun show` it",
            )
        }
        ManageError::PoolFull { needed, free } => {
            let bytes = |psegs: u64| Size(psegs.saturating_mul(PSEG_BLOCKS * BLOCK_BYTES as u64));
            let what = format!(
                "{lun} needs {} on the disks, and only {} can be had",
                bytes(needed),
                bytes(free)
            );
            of(
                RefusalKind::Final,
                Code::Refused,
                what,
                "make it smaller, or delete LUNs that are not needed",
            )
        }
        ManageError::TooManyLuns => of(
            RefusalKind::Final,
            Code::Refused,
            format!("{lun}: the cell has as many LUNs as it can"),
            "",
        ),
        ManageError::Shrink { blocks } => {
            let what = format!("{lun} has {} bytes, and does not shrink", blocks * BLOCK_BYTES as u64);
            of(RefusalKind::Final, Code::Refused, what, "")
        }
        ManageError::ControllerOut => of(
            RefusalKind::Final,
            Code::Refused,
            format!("{lun}: the controller that should own it is not in"),
            "start it, and wait until `twincell status` says that mirroring is on",
        ),
        ManageError::LastCopy => of(
            RefusalKind::Final,
            Code::Refused,
            format!("{lun}: that disk has the last copy of something"),
            "`twincell disk list` says which disks are missing; bring one of them back first",
        ),
        ManageError::DiskNotReady => of(
            RefusalKind::Final,
            Code::Refused,
            format!("{lun}: the disk is not ready for that"),
            "`twincell disk list` says what state it is in",
        ),
        ManageError::NothingToAccept => of(
            RefusalKind::Final,
            Code::Conflict,
            format!("controller {controller} does not wait for {lun}"),
            "`twincell status` says what it waits for",
        ),
        ManageError::AwaitsDisk => of(
            RefusalKind::Final,
            Code::Refused,
            format!("{lun}: data that hosts have written wait in memory for a disk that is out of order"),
            "bring the disk back, see `twincell disk list`; or, to lose them, stop the controller that owns the LUN, and \
             delete it through the other",
        ),
        ManageError::DiskError => of(
            RefusalKind::Final,
            Code::Refused,
            format!("{lun}: the metadata could not be written, nothing was changed"),
            "`twincell disk list` and the controllers' logs say which disk failed",
        ),
    }
}

fn status(controller: Controller, snapshot: &Snapshot) -> ControllerStatus {
    let cell = &snapshot.cell;
    let members = |mode: Mode| {
        Controller::BOTH.into_iter().filter(move |c| match mode {
            Mode::Both => true,
            Mode::Alone { controller, .. } => controller == *c,
        })
    };
    ControllerStatus {
        controller: controller.to_string(),
        role: match cell.role {
            Role::Starting => RoleName::Starting,
            Role::Joining => RoleName::Joining,
            Role::Serving => RoleName::Serving,
            Role::Deciding => RoleName::Deciding,
            Role::Stopping => RoleName::Stopping,
        },
        serving_hosts: snapshot.serving_hosts,
        epoch: cell.record.as_ref().map(|r| r.epoch.0),
        members: cell
            .record
            .iter()
            .flat_map(|r| members(r.mode))
            .map(|c| c.to_string())
            .collect(),
        linked: cell.linked,
        joining: cell.joining,
        awaits_operator: cell.awaited_memory.is_some(),
        awaited_memory: cell.awaited_memory.map(|c| c.to_string()),
        waits_for: waits_for(cell.phase).map(str::to_owned),
        partner_silent_ms: snapshot.partner_silent.map(|d| d.as_millis() as u64),
        image_current: cell.image_current,
        dirty_buffers: cell.dirty_buffers,
        open_ries: cell.open_ries,
        luns: snapshot.luns.iter().zip(&snapshot.copies).map(lun_status).collect(),
        disks: snapshot
            .disks
            .iter()
            .enumerate()
            .map(|(i, d)| DiskStatus {
                name: i.to_string(),
                path: d.path.clone(),
                size_bytes: d.size_bytes,
                state: disk_state(d.state).to_owned(),
                works: d.works,
                quorum: d.quorum,
                rss: d.place.0.0,
                rss_offset: d.place.1,
                merged: snapshot.merging.filter(|m| m.disk.index() == i).map(|m| Merged {
                    psegs: m.done,
                    of: m.all,
                }),
            })
            .collect(),
    }
}

fn link_status(controller: Controller, snapshot: &Snapshot) -> LinkStatus {
    let (link, counters) = (&snapshot.link, &snapshot.counters);
    let path = |(path, p): (usize, &PathSnapshot)| PathStatus {
        path,
        own: p.own.to_string(),
        partner: p.partner.to_string(),
        state: match p.state {
            PathState::Down => "down",
            PathState::Opening => "opening",
            PathState::Works => "works",
            PathState::Active => "active",
        }
        .to_owned(),
        round_trip_us: p.round_trip.map(|d| d.as_micros() as u64),
        since_ms: p.since.map(|d| d.as_millis() as u64),
        why: p.why.clone(),
    };
    LinkStatus {
        controller: controller.to_string(),
        paths: link.paths.iter().enumerate().map(path).collect(),
        counters: LinkCounters {
            messages: link.messages,
            frames: link.frames,
            resent: link.resent,
            dropped: link.dropped,
            stale: link.stale,
            moves: link.moves,
            garbled: counters.frames_garbled,
            frames_sent: counters.frames_sent,
            frames_received: counters.frames_received,
            bytes_sent: counters.link_bytes_sent,
            bytes_received: counters.link_bytes_received,
            bytes_copied: counters.link_bytes_copied,
        },
    }
}

/// What a controller waits for that does not serve.
fn waits_for(phase: Phase) -> Option<&'static str> {
    Some(match phase {
        Phase::AwaitRecord => "for the membership record on a majority of the disks that vote",
        Phase::AwaitMetadata => "for the metadata that the record names",
        Phase::AwaitLocks => "until the last disk writes of the process before it are over",
        Phase::Undecided => "for the result of a ballot that was begun before it started",
        Phase::AwaitPartner { .. } => "for its partner, and goes on alone if that does not come",
        Phase::Leveling => "until its memory and its partner's are level",
        Phase::AwaitAttach => "for its partner, which is in, to let it join",
        Phase::Attaching => "for its own locks, which its partner has lifted its fence from",
        Phase::Joining => "until its partner has brought it level",
        Phase::Deciding => "for the ballot that decides who goes on",
        Phase::Fencing => "until its partner is fenced and the last disk writes of that are over",
        Phase::Leaving => "until its partner goes by the record that it is out",
        Phase::Yielding => "until the disks say that it is out",
        Phase::Serving | Phase::Out => return None,
    })
}

fn lun_status((lun, copies): (&LunView, &Copies)) -> LunStatus {
    LunStatus {
        name: lun.name.as_str().to_owned(),
        lun: lun.ncae.0,
        uuid: lun.uuid.to_string(),
        size_bytes: lun.blocks * BLOCK_BYTES as u64,
        redundancy: match lun.redundancy {
            Redundancy::None => "none",
            Redundancy::Vraid1 => "vraid1",
        }
        .to_owned(),
        owner: lun.owner.to_string(),
        moving: lun.moving,
        copies_wanted: copies.wanted,
        copies: copies.left,
    }
}

fn disk_state(state: DiskState) -> &'static str {
    match state {
        DiskState::Normal => "normal",
        DiskState::Missing => "missing",
        DiskState::Merging => "merging",
        DiskState::Replace => "replace",
        DiskState::Regen => "regen",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_that_is_not_understood_is_answered_with_why() {
        for (line, why) in [
            (&b"garbage"[..], "not JSON"),
            (br#"{"schema":2,"version":"9","op":"status"}"#, "protocol 2"),
            (br#"{"version":"9","op":"status"}"#, "protocol null"),
            (br#"{"schema":1,"version":"9","op":"dance"}"#, "dance"),
            (br#"{"schema":1,"version":"9","op":"lun","verb":"delete"}"#, "name"),
            (b"\xff\xfe", "not JSON"),
        ] {
            let refusal = understand(line).unwrap_err();
            assert!(refusal.what.contains(why), "{why}: {}", refusal.what);
            assert_eq!(refusal.code, Code::Usage as u8);
        }
    }

    #[test]
    fn what_an_operator_gives_is_checked_before_the_core_sees_it() {
        let create = |name: &str, size_bytes, redundancy: &str| {
            operation(&LunChange::Create {
                name: name.into(),
                size_bytes,
                redundancy: redundancy.into(),
            })
        };
        assert!(matches!(
            create("a", 1024, "none"),
            Ok(ManageOp::LunCreate { blocks: 2, .. })
        ));
        for (result, code) in [
            (create("", 1024, "none"), Code::Usage),
            (create("a b", 1024, "none"), Code::Usage),
            (create("a", 0, "none"), Code::Usage),
            (create("a", 1000, "none"), Code::Usage),
            (create("a", 1024, "vraid5"), Code::Refused),
            (create("a", 1024, "raid"), Code::Usage),
            (
                operation(&LunChange::Move {
                    name: "a".into(),
                    to: "C".into(),
                }),
                Code::Usage,
            ),
        ] {
            assert_eq!(result.unwrap_err().code, code);
        }
    }
}
