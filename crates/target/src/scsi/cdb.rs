//! Command descriptor blocks: bytes become a [`Cdb`] once, and nothing looks at the bytes again.

use super::commands::{self, READ_CAPACITY_16, REPORT_TARGET_PORT_GROUPS, code};
use super::sense::Sense;

/// A range of logical blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// First block.
    pub start: u64,
    /// How many; may be 0.
    pub blocks: u32,
}

/// How MODE SENSE wants its answer (SPC-4, 6.11 and 6.12).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModeSense {
    /// The ten-byte form, with the longer header.
    pub long: bool,
    /// Leave out block descriptors (DBD).
    pub no_block_descriptor: bool,
    /// Long block descriptors are accepted (LLBAA).
    pub long_block_descriptor: bool,
    /// Page control, 0 to 3: current, changeable, default, saved.
    pub control: u8,
    /// Page code.
    pub page: u8,
    /// Subpage code.
    pub subpage: u8,
    /// Allocation length.
    pub allocation: usize,
}

/// What REPORT SUPPORTED OPERATION CODES asks (SPC-4, 6.35).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OperationCodes {
    /// With command timeouts descriptors (RCTD).
    pub timeouts: bool,
    /// Reporting options, 0 to 7.
    pub options: u8,
    /// Requested operation code.
    pub operation_code: u8,
    /// Requested service action.
    pub service_action: u16,
    /// Allocation length.
    pub allocation: usize,
}

/// A command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cdb {
    /// TEST UNIT READY
    TestUnitReady,
    /// REQUEST SENSE
    RequestSense {
        /// In descriptor format.
        descriptor: bool,
        /// Allocation length.
        allocation: usize,
    },
    /// INQUIRY
    Inquiry {
        /// The vital product data page, or the standard data.
        page: Option<u8>,
        /// Allocation length.
        allocation: usize,
    },
    /// MODE SELECT
    ModeSelect {
        /// The ten-byte form, with the longer header.
        long: bool,
        /// Parameter list length.
        length: usize,
    },
    /// MODE SENSE
    ModeSense(ModeSense),
    /// START STOP UNIT
    StartStopUnit {
        /// Power condition.
        power_condition: u8,
        /// LOEJ
        load_or_eject: bool,
        /// START
        start: bool,
    },
    /// READ CAPACITY (10)
    ReadCapacity10,
    /// READ CAPACITY (16)
    ReadCapacity16 {
        /// Allocation length.
        allocation: usize,
    },
    /// REPORT LUNS
    ReportLuns {
        /// Select report.
        select: u8,
        /// Allocation length.
        allocation: usize,
    },
    /// REPORT TARGET PORT GROUPS
    ReportTargetPortGroups {
        /// Parameter data format: 0 or 1 (extended header).
        format: u8,
        /// Allocation length.
        allocation: usize,
    },
    /// REPORT SUPPORTED OPERATION CODES
    ReportOperationCodes(OperationCodes),
    /// READ
    Read {
        /// What.
        range: Range,
        /// Force unit access.
        fua: bool,
    },
    /// WRITE
    Write {
        /// Where.
        range: Range,
        /// Force unit access.
        fua: bool,
    },
    /// WRITE AND VERIFY
    WriteAndVerify {
        /// Where.
        range: Range,
        /// Compare byte by byte (BYTCHK).
        compare: bool,
    },
    /// VERIFY
    Verify {
        /// What.
        range: Range,
        /// Compare with data from the host byte by byte (BYTCHK).
        compare: bool,
    },
    /// SYNCHRONIZE CACHE; 0 blocks mean all from the first on.
    SynchronizeCache {
        /// What.
        range: Range,
    },
}

const FUA: u8 = 0x08;
const BYTCHK: u8 = 0x02;

impl Cdb {
    /// The command that these bytes are.
    ///
    /// # Errors
    /// What [`commands::find`] says, and INVALID FIELD IN CDB for values that make no sense together.
    pub fn parse(bytes: &[u8; 16]) -> Result<Cdb, Sense> {
        let command = commands::find(bytes)?;
        let fua = bytes[1] & FUA != 0;
        let compare = bytes[1] & BYTCHK != 0;
        Ok(match bytes[0] {
            code::TEST_UNIT_READY => Cdb::TestUnitReady,
            code::REQUEST_SENSE => Cdb::RequestSense {
                descriptor: bytes[1] & 1 != 0,
                allocation: bytes[4].into(),
            },
            code::READ_6 | code::READ_10 | code::READ_12 | code::READ_16 => Cdb::Read {
                range: range(bytes, command.usage.len()),
                fua: fua && bytes[0] != code::READ_6,
            },
            code::WRITE_6 | code::WRITE_10 | code::WRITE_12 | code::WRITE_16 => Cdb::Write {
                range: range(bytes, command.usage.len()),
                fua: fua && bytes[0] != code::WRITE_6,
            },
            code::WRITE_AND_VERIFY_10 | code::WRITE_AND_VERIFY_12 | code::WRITE_AND_VERIFY_16 => Cdb::WriteAndVerify {
                range: range(bytes, command.usage.len()),
                compare,
            },
            code::VERIFY_10 | code::VERIFY_12 | code::VERIFY_16 => Cdb::Verify {
                range: range(bytes, command.usage.len()),
                compare,
            },
            code::SYNCHRONIZE_CACHE_10 | code::SYNCHRONIZE_CACHE_16 => Cdb::SynchronizeCache {
                range: range(bytes, command.usage.len()),
            },
            code::INQUIRY => inquiry(bytes)?,
            code::MODE_SELECT_6 | code::MODE_SELECT_10 => mode_select(bytes)?,
            code::MODE_SENSE_6 | code::MODE_SENSE_10 => Cdb::ModeSense(mode_sense(bytes)),
            code::START_STOP_UNIT => Cdb::StartStopUnit {
                power_condition: bytes[4] >> 4,
                load_or_eject: bytes[4] & 2 != 0,
                start: bytes[4] & 1 != 0,
            },
            code::READ_CAPACITY_10 => Cdb::ReadCapacity10,
            code::REPORT_LUNS => Cdb::ReportLuns {
                select: bytes[2],
                allocation: be32(bytes, 6) as usize,
            },
            _ => service_action(bytes, command.service_action)?,
        })
    }
}

fn service_action(bytes: &[u8; 16], service_action: Option<u8>) -> Result<Cdb, Sense> {
    match (bytes[0], service_action) {
        (code::SERVICE_ACTION_IN_16, Some(READ_CAPACITY_16)) => Ok(Cdb::ReadCapacity16 {
            allocation: be32(bytes, 10) as usize,
        }),
        (code::MAINTENANCE_IN, Some(REPORT_TARGET_PORT_GROUPS)) => match bytes[1] >> 5 {
            format @ 0..=1 => Ok(Cdb::ReportTargetPortGroups {
                format,
                allocation: be32(bytes, 6) as usize,
            }),
            _ => Err(Sense::invalid_field_in_cdb(1)),
        },
        (code::MAINTENANCE_IN, Some(_)) => Ok(Cdb::ReportOperationCodes(OperationCodes {
            timeouts: bytes[2] & 0x80 != 0,
            options: bytes[2] & 7,
            operation_code: bytes[3],
            service_action: be16(bytes, 4),
            allocation: be32(bytes, 6) as usize,
        })),
        _ => Err(Sense::INVALID_OPERATION_CODE),
    }
}

fn inquiry(bytes: &[u8; 16]) -> Result<Cdb, Sense> {
    let page = (bytes[1] & 1 != 0).then_some(bytes[2]);
    if page.is_none() && bytes[2] != 0 {
        return Err(Sense::invalid_field_in_cdb(2));
    }
    Ok(Cdb::Inquiry {
        page,
        allocation: be16(bytes, 3).into(),
    })
}

fn mode_select(bytes: &[u8; 16]) -> Result<Cdb, Sense> {
    let (page_format, save) = (bytes[1] & 0x10 != 0, bytes[1] & 1 != 0);
    if save || !page_format {
        return Err(Sense::invalid_field_in_cdb(1));
    }
    let long = bytes[0] == code::MODE_SELECT_10;
    Ok(Cdb::ModeSelect {
        long,
        length: if long { be16(bytes, 7).into() } else { bytes[4].into() },
    })
}

fn mode_sense(bytes: &[u8; 16]) -> ModeSense {
    let long = bytes[0] == code::MODE_SENSE_10;
    ModeSense {
        long,
        no_block_descriptor: bytes[1] & 0x08 != 0,
        long_block_descriptor: long && bytes[1] & 0x10 != 0,
        control: bytes[2] >> 6,
        page: bytes[2] & 0x3f,
        subpage: bytes[3],
        allocation: if long { be16(bytes, 7).into() } else { bytes[4].into() },
    }
}

/// The block range of a CDB of `length` bytes. In a CDB of 6 bytes no blocks means 256 of them.
fn range(bytes: &[u8; 16], length: usize) -> Range {
    let (start, blocks) = match length {
        6 => {
            let blocks = if bytes[4] == 0 { 256 } else { bytes[4].into() };
            (u64::from(be32(bytes, 0) & 0x1f_ffff), blocks)
        }
        10 => (be32(bytes, 2).into(), be16(bytes, 7).into()),
        12 => (be32(bytes, 2).into(), be32(bytes, 6)),
        _ => (
            u64::from(be32(bytes, 2)) << 32 | u64::from(be32(bytes, 6)),
            be32(bytes, 10),
        ),
    };
    Range { start, blocks }
}

fn be16(bytes: &[u8; 16], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn be32(bytes: &[u8; 16], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(bytes: &[u8]) -> Result<Cdb, Sense> {
        let mut cdb = [0; 16];
        cdb[..bytes.len()].copy_from_slice(bytes);
        Cdb::parse(&cdb)
    }

    #[test]
    fn every_supported_command_parses() {
        for command in commands::COMMANDS {
            let mut cdb = [0; 16];
            cdb[0] = command.operation_code;
            cdb[1] = command.service_action.unwrap_or(0);
            if matches!(cdb[0], code::MODE_SELECT_6 | code::MODE_SELECT_10) {
                cdb[1] = 0x10; // PF
            }
            Cdb::parse(&cdb).unwrap_or_else(|sense| panic!("{command:x?}: {sense:?}"));
        }
    }

    #[test]
    fn ranges_of_all_lengths() {
        let read = |start, blocks, fua| {
            Ok(Cdb::Read {
                range: Range { start, blocks },
                fua,
            })
        };
        assert_eq!(parse(&[0x08, 0x1f, 0xff, 0xfe, 0, 0]), read(0x1f_fffe, 256, false));
        assert_eq!(
            parse(&[0x28, 8, 1, 2, 3, 4, 0, 0xff, 0xfe, 0]),
            read(0x0102_0304, 0xfffe, true)
        );
        assert_eq!(
            parse(&[0xa8, 0x10, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0]),
            read(0x0102_0304, 0x0506_0708, false)
        );
        assert_eq!(
            parse(&[0x88, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 0, 0]),
            read(0x0102_0304_0506_0708, 0x090a_0b0c, false)
        );
    }

    #[test]
    fn inquiry_with_a_page_and_without_evpd_is_wrong() {
        assert_eq!(parse(&[0x12, 0, 0x80, 0, 255, 0]), Err(Sense::invalid_field_in_cdb(2)));
        assert_eq!(
            parse(&[0x12, 1, 0x80, 1, 4, 0]),
            Ok(Cdb::Inquiry {
                page: Some(0x80),
                allocation: 260
            })
        );
    }
}
