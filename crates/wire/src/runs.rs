//! The PSEGs of a LUN in short form.
//!
//! Space is mostly given in order: a LUN takes the next PSEG of each of some disks, in turn, again and again. So a
//! run is a row of PSEGs and a number of rows: row `n` is the first row with every PSEG moved on by `n` on its own
//! disk. A mirrored LUN over four pairs is one run of eight columns; a PSEG by itself is a run of one by one.

use crate::bytes::{Reader, Sink};
use crate::error::{Error, Result};
use twincell_core::ids::{DiskIndex, PsegIndex};
use twincell_core::layout::metadata::PsegAddress;

/// Most PSEGs in a row: the disks of the largest cell [0049], with something to spare. It also bounds the search for
/// a pattern where there is none.
const ROW_MAX: usize = 256;

/// Rows of PSEGs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    /// How many rows, at least 1.
    rows: u32,
    /// The first row: 1 to [`ROW_MAX`] PSEGs.
    first: Vec<PsegAddress>,
}

/// Consecutive PSEGs of one disk, from `first` up to but not including `end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Extent {
    pub disk: DiskIndex,
    pub first: u64,
    pub end: u64,
}

impl Run {
    /// What the run covers of each disk.
    pub fn extents(&self) -> impl Iterator<Item = Extent> + '_ {
        self.first.iter().map(|at| {
            let first = u64::from(at.pseg.0);
            let end = first + u64::from(self.rows);
            Extent {
                disk: at.disk,
                first,
                end,
            }
        })
    }
}

/// How many PSEGs `runs` stand for.
pub(crate) fn length(runs: &[Run]) -> u64 {
    runs.iter()
        .map(|run| u64::from(run.rows) * run.first.len() as u64)
        .sum()
}

/// The PSEG after `at`.
fn after(at: PsegAddress) -> Option<PsegAddress> {
    let pseg = PsegIndex(at.pseg.0.checked_add(1)?);
    Some(PsegAddress { pseg, ..at })
}

/// The runs that stand for `psegs`.
pub(crate) fn pack(psegs: &[PsegAddress]) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    let mut alone: Vec<PsegAddress> = Vec::new();
    let mut rest = 0;
    while rest < psegs.len() {
        let (row, rows) = rows_at(&psegs[rest..]).unwrap_or((1, 1));
        if rows == 1 {
            alone.push(psegs[rest]);
        }
        if rows > 1 || alone.len() == ROW_MAX {
            flush(&mut alone, &mut runs);
        }
        if rows > 1 {
            let first = psegs[rest..rest + row].to_vec();
            runs.push(Run {
                rows: rows as u32,
                first,
            });
        }
        rest += row * rows;
    }
    flush(&mut alone, &mut runs);
    runs
}

/// PSEGs that follow no pattern make one row.
fn flush(alone: &mut Vec<PsegAddress>, runs: &mut Vec<Run>) {
    if !alone.is_empty() {
        let first = std::mem::take(alone);
        runs.push(Run { rows: 1, first });
    }
}

/// Length of a row and number of rows, where `psegs` begin with two rows or more.
fn rows_at(psegs: &[PsegAddress]) -> Option<(usize, usize)> {
    let second = after(psegs[0])?;
    let row = psegs.iter().take(ROW_MAX + 1).position(|at| *at == second)?;
    let moved_on = |(here, below): &(&PsegAddress, &PsegAddress)| after(**here) == Some(**below);
    let matching = psegs.iter().zip(&psegs[row..]).take_while(moved_on).count();
    let rows = 1 + matching / row;
    (rows > 1 && u32::try_from(rows).is_ok()).then_some((row, rows))
}

/// The PSEGs that `runs` stand for. All of them exist, as [`Run::extents`] has told the caller.
pub(crate) fn unpack(runs: &[Run]) -> Vec<PsegAddress> {
    let mut psegs = Vec::with_capacity(length(runs) as usize);
    for run in runs {
        for n in 0..run.rows {
            psegs.extend(run.first.iter().map(|at| PsegAddress {
                disk: at.disk,
                pseg: PsegIndex(at.pseg.0 + n),
            }));
        }
    }
    psegs
}

pub(crate) fn put(out: &mut impl Sink, runs: &[Run]) {
    out.u32(runs.len() as u32);
    for run in runs {
        out.u32(run.rows);
        out.u16(run.first.len() as u16);
        for at in &run.first {
            out.u16(at.disk.0);
            out.u32(at.pseg.0);
        }
    }
}

pub(crate) fn read(r: &mut Reader) -> Result<Vec<Run>> {
    let count = r.u32()?;
    let mut runs = Vec::new();
    for _ in 0..count {
        runs.push(run(r)?);
    }
    Ok(runs)
}

fn run(r: &mut Reader) -> Result<Run> {
    let rows = r.u32()?;
    let row = r.u16()?;
    if rows == 0 || row == 0 {
        let (field, value) = ("the size of a run of PSEGs", 0);
        return Err(Error::Value { field, value });
    }
    if usize::from(row) > ROW_MAX {
        let (field, value, most) = ("the length of a row of PSEGs", row.into(), ROW_MAX as u64);
        return Err(Error::TooLarge { field, value, most });
    }
    let mut first = Vec::with_capacity(row.into());
    for _ in 0..row {
        let (disk, pseg) = (DiskIndex(r.u16()?), PsegIndex(r.u32()?));
        first.push(PsegAddress { disk, pseg });
    }
    Ok(Run { rows, first })
}
