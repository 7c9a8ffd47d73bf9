//! The device server (SAM-5, 4.10): from a CDB to an answer, or to what the array must do for it.

use super::cdb::{Cdb, Range};
use super::commands::code;
use super::inquiry::TRANSFER_BLOCKS_MAX;
use super::sense::Sense;
use super::unit_attention::Nexus;
use super::{alua, capacity, inquiry, mode, operation_codes, report_luns};
use crate::session::View;
use twincell_core::host::HostOp;
use twincell_core::ids::{BLOCK_BYTES, NcaeIndex, Noid};
use twincell_core::manage::LunView;

/// The most blocks that are kept in memory to be compared: VERIFY and WRITE AND VERIFY with BYTCHK.
pub const COMPARE_BLOCKS_MAX: u32 = 512;

/// What becomes of the blocks that a step reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadBlocks {
    /// They are sent to the host.
    Send,
    /// They are dropped: it matters only that they can be read.
    Discard,
    /// They are compared with what came from the host.
    Compare,
    /// They complete what came from the host, which ends within the last block.
    Complete,
}

/// One thing that the array does for a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Read the range.
    Read(ReadBlocks),
    /// Write the range.
    Write {
        /// Status only when it is on disk.
        fua: bool,
    },
    /// Bring the cache to disk.
    Sync,
}

impl Step {
    /// The array's word for it.
    pub fn op(self) -> HostOp {
        match self {
            Step::Read(_) => HostOp::Read,
            Step::Write { fua } => HostOp::Write { fua },
            Step::Sync => HostOp::Sync,
        }
    }
}

/// What moves between host and target because of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transfer {
    /// Nothing.
    None,
    /// Data-In.
    In,
    /// Data-Out that the array fetches as it likes.
    Out,
    /// Data-Out that must be in hand, whole, before the first step.
    OutFirst,
}

/// What the array must do for a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Work {
    /// The LUN's place.
    pub ncae: NcaeIndex,
    /// The LUN's identity.
    pub noid: Noid,
    /// The blocks.
    pub range: Range,
    /// What moves, all of the range's bytes.
    pub transfer: Transfer,
    /// What is done first.
    pub step: Step,
    /// What is done after it, one after the other, as long as it goes well.
    pub then: [Option<Step>; 2],
}

impl Work {
    /// Goes on to the next step, if there is one.
    pub fn advance(&mut self) -> bool {
        let [next, last] = self.then;
        self.then = [last, None];
        next.is_some_and(|step| {
            self.step = step;
            true
        })
    }

    /// The initiator has only `bytes` of the data that the CDB names. Of a write those are written, and the
    /// residual count says that it was not all (RFC 7143, 11.4.5.1; FCP-4, 9.5.8).
    ///
    /// # Errors
    /// INVALID FIELD IN COMMAND INFORMATION UNIT for everything that is not a write, and for a large write that
    /// would end within a block.
    pub fn truncate(&mut self, bytes: u32) -> Result<(), Sense> {
        if !matches!(self.step, Step::Write { .. }) {
            return Err(Sense::INVALID_INFORMATION_UNIT);
        }
        self.range.blocks = bytes.div_ceil(BLOCK_BYTES as u32);
        if bytes.is_multiple_of(BLOCK_BYTES as u32) {
            return Ok(());
        }
        if self.range.blocks > COMPARE_BLOCKS_MAX {
            return Err(Sense::INVALID_INFORMATION_UNIT);
        }
        self.transfer = Transfer::OutFirst;
        self.then = [Some(self.step), self.then[0]];
        self.step = Step::Read(ReadBlocks::Complete);
        Ok(())
    }
}

/// What a command comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plan {
    /// It is done; the answer's data, if any, are where they were to go.
    Done,
    /// It needs a parameter list of so many bytes; [`parameters`] takes it.
    Parameters(usize),
    /// The array has to do something.
    Array(Work),
}

/// The LUN with this number.
pub fn find(view: &View, ncae: Option<NcaeIndex>) -> Option<&LunView> {
    let ncae = ncae?;
    let place = view.luns.binary_search_by_key(&ncae, |lun| lun.ncae).ok()?;
    Some(&view.luns[place])
}

/// Executes a command for the logical unit `lun` as far as it goes without the array. Data-In of an answer is put
/// into `answer`, no longer than the allocation length.
///
/// # Errors
/// The sense data of a CHECK CONDITION.
pub fn execute(
    cdb: &[u8; 16],
    lun: Option<NcaeIndex>,
    view: &View,
    nexus: &mut Nexus,
    answer: &mut Vec<u8>,
) -> Result<Plan, Sense> {
    answer.clear();
    let lun = find(view, lun);
    if matches!(cdb[0], code::INQUIRY | code::REPORT_LUNS | code::REQUEST_SENSE) {
        return execute_anywhere(Cdb::parse(cdb)?, lun, view, nexus, answer);
    }
    let lun = lun.ok_or(Sense::NO_SUCH_LUN)?;
    if let Some(attention) = nexus.take(lun, view) {
        return Err(attention);
    }
    execute_on(cdb, lun, view, answer)
}

/// The commands that work for absent logical units also, and that no unit attention condition stops
/// (SAM-5, 5.14; SPC-4, 4.6.4).
fn execute_anywhere(
    cdb: Cdb,
    lun: Option<&LunView>,
    view: &View,
    nexus: &mut Nexus,
    answer: &mut Vec<u8>,
) -> Result<Plan, Sense> {
    let allocation = match cdb {
        Cdb::Inquiry { page: None, allocation } => {
            inquiry::standard(lun, answer);
            allocation
        }
        Cdb::Inquiry {
            page: Some(page),
            allocation,
        } => {
            let lun = lun.ok_or(Sense::invalid_field_in_cdb(1))?;
            inquiry::vital_product_data(page, lun, view, answer)?;
            allocation
        }
        Cdb::ReportLuns { select, allocation } => {
            report_luns::report(select, &view.luns, answer)?;
            nexus.luns_reported(view);
            allocation
        }
        Cdb::RequestSense { descriptor, allocation } => {
            let sense = match lun {
                Some(lun) => nexus.take(lun, view).unwrap_or(Sense::NONE),
                None => Sense::NO_SUCH_LUN,
            };
            if descriptor {
                answer.extend_from_slice(&sense.descriptor());
            } else {
                answer.extend_from_slice(&sense.fixed());
            }
            allocation
        }
        _ => return Err(Sense::INVALID_OPERATION_CODE),
    };
    answer.truncate(allocation);
    Ok(Plan::Done)
}

fn execute_on(cdb: &[u8; 16], lun: &LunView, view: &View, answer: &mut Vec<u8>) -> Result<Plan, Sense> {
    let allocation = match Cdb::parse(cdb)? {
        Cdb::TestUnitReady if lun.moving => return Err(Sense::TRANSITION),
        Cdb::TestUnitReady => 0,
        Cdb::StartStopUnit {
            power_condition,
            load_or_eject,
            start,
        } => {
            start_stop(power_condition, load_or_eject, start)?;
            0
        }
        Cdb::ReadCapacity10 => {
            capacity::short(lun.blocks, answer);
            answer.len()
        }
        Cdb::ReadCapacity16 { allocation } => {
            capacity::long(lun.blocks, answer);
            allocation
        }
        Cdb::ReportTargetPortGroups { format, allocation } => {
            alua::report_target_port_groups(format, lun, view, answer);
            allocation
        }
        Cdb::ReportOperationCodes(asked) => {
            operation_codes::report(&asked, answer)?;
            asked.allocation
        }
        Cdb::ModeSense(asked) => {
            mode::sense(&asked, lun.blocks, answer)?;
            asked.allocation
        }
        Cdb::ModeSelect { length, .. } => return Ok(Plan::Parameters(length)),
        parsed => return medium_access(parsed, cdb[0], lun),
    };
    answer.truncate(allocation);
    Ok(Plan::Done)
}

/// A LUN is always started and has no power conditions but *active*, and no medium that could be ejected.
fn start_stop(power_condition: u8, load_or_eject: bool, start: bool) -> Result<(), Sense> {
    const START_VALID: u8 = 0;
    const ACTIVE: u8 = 1;
    match power_condition {
        START_VALID if start && !load_or_eject => Ok(()),
        ACTIVE => Ok(()),
        _ => Err(Sense::invalid_field_in_cdb(4)),
    }
}

fn medium_access(cdb: Cdb, operation_code: u8, lun: &LunView) -> Result<Plan, Sense> {
    use ReadBlocks::{Compare, Discard, Send};
    let (range, transfer, step, then) = match cdb {
        Cdb::Read { range, fua: false } => (range, Transfer::In, Step::Read(Send), None),
        // What is newer in the cache goes to disk first.
        Cdb::Read { range, fua: true } => (range, Transfer::In, Step::Sync, Some(Step::Read(Send))),
        Cdb::Write { range, fua } => (range, Transfer::Out, Step::Write { fua }, None),
        Cdb::WriteAndVerify { range, compare: false } => {
            let then = Step::Read(Discard);
            (range, Transfer::Out, Step::Write { fua: true }, Some(then))
        }
        Cdb::WriteAndVerify { range, compare: true } => {
            let then = Step::Read(Compare);
            (range, Transfer::OutFirst, Step::Write { fua: true }, Some(then))
        }
        Cdb::Verify { range, compare: false } => (range, Transfer::None, Step::Sync, Some(Step::Read(Discard))),
        Cdb::Verify { range, compare: true } => (range, Transfer::OutFirst, Step::Sync, Some(Step::Read(Compare))),
        Cdb::SynchronizeCache { range } => (range, Transfer::None, Step::Sync, None),
        _ => return Err(Sense::INVALID_OPERATION_CODE),
    };
    let end = range.start.checked_add(range.blocks.into());
    if end.is_none_or(|end| end > lun.blocks) {
        return Err(Sense::OUT_OF_RANGE);
    }
    let most = match transfer {
        Transfer::OutFirst => COMPARE_BLOCKS_MAX,
        Transfer::None => u32::MAX,
        Transfer::In | Transfer::Out => TRANSFER_BLOCKS_MAX,
    };
    if range.blocks > most {
        return Err(Sense::invalid_field_in_cdb(transfer_length_at(operation_code)));
    }
    Ok(Plan::Array(Work {
        ncae: lun.ncae,
        noid: lun.noid,
        range,
        transfer,
        step,
        then: [then, None],
    }))
}

/// Which byte of a CDB the transfer length begins at.
fn transfer_length_at(operation_code: u8) -> u16 {
    match operation_code >> 5 {
        0 => 4,
        1 | 2 => 7,
        5 => 6,
        _ => 10,
    }
}

/// Takes the parameter list that a command asked for.
///
/// # Errors
/// The sense data of a CHECK CONDITION.
pub fn parameters(cdb: &[u8; 16], lun: Option<NcaeIndex>, view: &View, list: &[u8]) -> Result<(), Sense> {
    let lun = find(view, lun).ok_or(Sense::NO_SUCH_LUN)?;
    match Cdb::parse(cdb)? {
        Cdb::ModeSelect { long, .. } => mode::select(list, long, lun.blocks),
        _ => Err(Sense::INVALID_OPERATION_CODE),
    }
}
