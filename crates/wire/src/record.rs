//! The membership record and what else several formats hold.

use crate::bytes::{Reader, Sink};
use crate::error::{Error, Result};
use twincell_core::cell::record::{MetadataName, Mode, Owners, Record};
use twincell_core::ids::{Controller, DiskIndex, Epoch, ProcessId, QUORUM_MAX, Uuid};
use twincell_core::layout::metadata::{Name, Redundancy};
use twincell_core::list::List;

pub(crate) fn put_record(out: &mut impl Sink, record: &Record) {
    out.u64(record.epoch.0);
    out.u8(mode_code(record.mode));
    out.u8(record.metadata.copy);
    out.u8(record.quorum.len() as u8);
    out.u8(0);
    for n in 0..QUORUM_MAX {
        out.u16(record.quorum.get(n).map_or(0, |d| d.0));
    }
    out.u16(0);
    out.u64(record.metadata.generation);
    for image in record.images {
        out.u128(image.0);
    }
    for word in record.owners.0 {
        out.u64(word);
    }
}

pub(crate) fn record(r: &mut Reader) -> Result<Record> {
    let epoch = Epoch(r.u64()?);
    let mode = mode(r.u8()?)?;
    let copy = r.u8()?;
    if copy > 1 {
        let (field, value) = ("the copy of the metadata", u64::from(copy));
        return Err(Error::Value { field, value });
    }
    let count = r.u8()?;
    r.zeroes(1)?;
    let quorum = list(r, count, "the quorum set", |r| Ok(DiskIndex(r.u16()?)))?;
    r.zeroes(2 * (QUORUM_MAX - quorum.len()) + 2)?;
    let generation = r.u64()?;
    let images = [Uuid(r.u128()?), Uuid(r.u128()?)];
    let mut owners = Owners::default();
    for word in &mut owners.0 {
        *word = r.u64()?;
    }
    Ok(Record {
        epoch,
        mode,
        images,
        owners,
        metadata: MetadataName { generation, copy },
        quorum,
    })
}

fn mode_code(mode: Mode) -> u8 {
    match mode {
        Mode::Both => 1,
        Mode::Alone { controller, dirty } => 2 + 2 * controller.index() as u8 + u8::from(dirty),
    }
}

fn mode(code: u8) -> Result<Mode> {
    let alone = |controller, dirty| Mode::Alone { controller, dirty };
    Ok(match code {
        1 => Mode::Both,
        2 => alone(Controller::A, false),
        3 => alone(Controller::A, true),
        4 => alone(Controller::B, false),
        5 => alone(Controller::B, true),
        _ => return Err(unknown("the mode of the membership record", code)),
    })
}

pub(crate) fn put_process(out: &mut impl Sink, process: &ProcessId) {
    out.u128(process.boot.0);
    out.u64(process.pid_namespace);
    out.u64(process.start_time);
    out.u32(process.pid);
}

pub(crate) fn process(r: &mut Reader) -> Result<ProcessId> {
    Ok(ProcessId {
        boot: Uuid(r.u128()?),
        pid_namespace: r.u64()?,
        start_time: r.u64()?,
        pid: r.u32()?,
    })
}

/// 1 for A, 2 for B, as the target portal groups.
pub(crate) fn put_controller(out: &mut impl Sink, controller: Controller) {
    out.u8(1 + controller.index() as u8);
}

pub(crate) fn controller(r: &mut Reader) -> Result<Controller> {
    match r.u8()? {
        1 => Ok(Controller::A),
        2 => Ok(Controller::B),
        code => Err(unknown("the controller", code)),
    }
}

/// Refuses what names another cell.
pub(crate) fn cell(r: &mut Reader, what: &'static str, cell: Uuid) -> Result<()> {
    let found = Uuid(r.u128()?);
    if found == cell {
        Ok(())
    } else {
        Err(Error::OtherCell { what, found })
    }
}

pub(crate) fn put_name(out: &mut impl Sink, name: &Name) {
    let bytes = name.as_str().as_bytes();
    out.u8(bytes.len() as u8);
    out.put(bytes);
}

pub(crate) fn name(r: &mut Reader) -> Result<Name> {
    let length = r.u8()?;
    let bytes = r.take(usize::from(length))?;
    let refused = unknown("the length of a name, or one of its bytes", length);
    std::str::from_utf8(bytes).ok().and_then(Name::new).ok_or(refused)
}

/// 2 and 4 are kept for Vraid0 and Vraid5.
pub(crate) fn put_redundancy(out: &mut impl Sink, redundancy: Redundancy) {
    out.u8(match redundancy {
        Redundancy::None => 1,
        Redundancy::Vraid1 => 3,
    });
}

pub(crate) fn redundancy(r: &mut Reader) -> Result<Redundancy> {
    match r.u8()? {
        1 => Ok(Redundancy::None),
        3 => Ok(Redundancy::Vraid1),
        code => Err(unknown("the redundancy", code)),
    }
}

/// `count` items; refuses more than fit.
pub(crate) fn list<T: Copy + Default, const N: usize>(
    r: &mut Reader,
    count: u8,
    field: &'static str,
    mut item: impl FnMut(&mut Reader) -> Result<T>,
) -> Result<List<T, N>> {
    if usize::from(count) > N {
        let (value, most) = (u64::from(count), N as u64);
        return Err(Error::TooLarge { field, value, most });
    }
    let mut list = List::new();
    for _ in 0..count {
        list.push(item(r)?);
    }
    Ok(list)
}

/// The error of a code that names nothing.
pub(crate) fn unknown(field: &'static str, code: u8) -> Error {
    let value = u64::from(code);
    Error::Value { field, value }
}
