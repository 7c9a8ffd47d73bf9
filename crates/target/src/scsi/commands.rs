//! The commands that this device server supports: one table for those who check a CDB and for those who report
//! what is supported (SPC-4, 6.35).

use super::sense::Sense;

/// A supported command.
#[derive(Debug)]
pub struct Command {
    /// Operation code.
    pub operation_code: u8,
    /// Service action, where the operation code has some. It is in byte 1.
    pub service_action: Option<u8>,
    /// CDB usage data: its length is that of the CDB, and each bit that is evaluated is one, except that the
    /// operation code and service action stand for themselves.
    pub usage: &'static [u8],
}

/// Operation codes by name, as far as they are supported.
pub mod code {
    pub const TEST_UNIT_READY: u8 = 0x00;
    pub const REQUEST_SENSE: u8 = 0x03;
    pub const READ_6: u8 = 0x08;
    pub const WRITE_6: u8 = 0x0a;
    pub const INQUIRY: u8 = 0x12;
    pub const MODE_SELECT_6: u8 = 0x15;
    pub const MODE_SENSE_6: u8 = 0x1a;
    pub const START_STOP_UNIT: u8 = 0x1b;
    pub const READ_CAPACITY_10: u8 = 0x25;
    pub const READ_10: u8 = 0x28;
    pub const WRITE_10: u8 = 0x2a;
    pub const WRITE_AND_VERIFY_10: u8 = 0x2e;
    pub const VERIFY_10: u8 = 0x2f;
    pub const SYNCHRONIZE_CACHE_10: u8 = 0x35;
    pub const MODE_SELECT_10: u8 = 0x55;
    pub const MODE_SENSE_10: u8 = 0x5a;
    pub const READ_16: u8 = 0x88;
    pub const WRITE_16: u8 = 0x8a;
    pub const WRITE_AND_VERIFY_16: u8 = 0x8e;
    pub const VERIFY_16: u8 = 0x8f;
    pub const SYNCHRONIZE_CACHE_16: u8 = 0x91;
    pub const SERVICE_ACTION_IN_16: u8 = 0x9e;
    pub const REPORT_LUNS: u8 = 0xa0;
    pub const MAINTENANCE_IN: u8 = 0xa3;
    pub const READ_12: u8 = 0xa8;
    pub const WRITE_12: u8 = 0xaa;
    pub const WRITE_AND_VERIFY_12: u8 = 0xae;
    pub const VERIFY_12: u8 = 0xaf;
}

/// Service action of SERVICE ACTION IN (16).
pub const READ_CAPACITY_16: u8 = 0x10;
/// Service action of MAINTENANCE IN.
pub const REPORT_TARGET_PORT_GROUPS: u8 = 0x0a;
/// Service action of MAINTENANCE IN.
pub const REPORT_SUPPORTED_OPERATION_CODES: u8 = 0x0c;

const fn plain(usage: &'static [u8]) -> Command {
    Command {
        operation_code: usage[0],
        service_action: None,
        usage,
    }
}

const fn with_service_action(service_action: u8, usage: &'static [u8]) -> Command {
    Command {
        operation_code: usage[0],
        service_action: Some(service_action),
        usage,
    }
}

/// All supported commands. The frequent ones come first.
#[rustfmt::skip]
pub static COMMANDS: &[Command] = &[
    plain(&[code::WRITE_10, 0x18, 0xff, 0xff, 0xff, 0xff, 0, 0xff, 0xff, 0]),
    plain(&[code::READ_10, 0x18, 0xff, 0xff, 0xff, 0xff, 0, 0xff, 0xff, 0]),
    plain(&[code::WRITE_16, 0x18, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0]),
    plain(&[code::READ_16, 0x18, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0]),
    plain(&[code::TEST_UNIT_READY, 0, 0, 0, 0, 0]),
    plain(&[code::REQUEST_SENSE, 0x01, 0, 0, 0xff, 0]),
    plain(&[code::READ_6, 0x1f, 0xff, 0xff, 0xff, 0]),
    plain(&[code::WRITE_6, 0x1f, 0xff, 0xff, 0xff, 0]),
    plain(&[code::INQUIRY, 0x01, 0xff, 0xff, 0xff, 0]),
    plain(&[code::MODE_SELECT_6, 0x11, 0, 0, 0xff, 0]),
    plain(&[code::MODE_SENSE_6, 0x08, 0xff, 0xff, 0xff, 0]),
    plain(&[code::START_STOP_UNIT, 0x01, 0, 0x0f, 0xf7, 0]),
    plain(&[code::READ_CAPACITY_10, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
    plain(&[code::WRITE_AND_VERIFY_10, 0x12, 0xff, 0xff, 0xff, 0xff, 0, 0xff, 0xff, 0]),
    plain(&[code::VERIFY_10, 0x12, 0xff, 0xff, 0xff, 0xff, 0, 0xff, 0xff, 0]),
    plain(&[code::SYNCHRONIZE_CACHE_10, 0x02, 0xff, 0xff, 0xff, 0xff, 0, 0xff, 0xff, 0]),
    plain(&[code::MODE_SELECT_10, 0x11, 0, 0, 0, 0, 0, 0xff, 0xff, 0]),
    plain(&[code::MODE_SENSE_10, 0x18, 0xff, 0xff, 0, 0, 0, 0xff, 0xff, 0]),
    plain(&[code::WRITE_AND_VERIFY_16, 0x12, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0]),
    plain(&[code::VERIFY_16, 0x12, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0]),
    plain(&[code::SYNCHRONIZE_CACHE_16, 0x02, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0]),
    with_service_action(READ_CAPACITY_16,
        &[code::SERVICE_ACTION_IN_16, READ_CAPACITY_16, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0]),
    plain(&[code::REPORT_LUNS, 0, 0xff, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0]),
    with_service_action(REPORT_TARGET_PORT_GROUPS,
        &[code::MAINTENANCE_IN, 0xe0 | REPORT_TARGET_PORT_GROUPS, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0]),
    with_service_action(REPORT_SUPPORTED_OPERATION_CODES,
        &[code::MAINTENANCE_IN, REPORT_SUPPORTED_OPERATION_CODES, 0x87, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0]),
    plain(&[code::READ_12, 0x18, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0]),
    plain(&[code::WRITE_12, 0x18, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0]),
    plain(&[code::WRITE_AND_VERIFY_12, 0x12, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0]),
    plain(&[code::VERIFY_12, 0x12, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0]),
];

/// The command that `cdb` is, if all its bits that are one have a meaning here.
///
/// # Errors
/// INVALID COMMAND OPERATION CODE for a command that is not supported, also where only its service action is not;
/// INVALID FIELD IN CDB for a bit that is reserved, obsolete or asks for a feature that is not supported
/// (protection information, grouping, NACA).
pub fn find(cdb: &[u8; 16]) -> Result<&'static Command, Sense> {
    let is_it = |c: &&Command| {
        c.operation_code == cdb[0]
            && c.service_action
                .is_none_or(|service_action| service_action == cdb[1] & 0x1f)
    };
    let command = COMMANDS.iter().find(is_it).ok_or(Sense::INVALID_OPERATION_CODE)?;
    for (byte, (value, usage)) in cdb.iter().zip(command.usage).enumerate() {
        if value & !usage != 0 {
            return Err(Sense::invalid_field_in_cdb(byte as u16));
        }
    }
    Ok(command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_length_is_that_of_the_group_of_the_operation_code() {
        for command in COMMANDS {
            let length = match command.operation_code >> 5 {
                0 => 6,
                1 | 2 => 10,
                4 => 16,
                5 => 12,
                other => panic!("group {other}"),
            };
            assert_eq!(command.usage.len(), length, "{command:x?}");
            assert_eq!(command.usage[length - 1], 0, "NACA is not supported: {command:x?}");
        }
    }

    #[test]
    fn no_command_is_listed_twice() {
        let mut names: Vec<_> = COMMANDS.iter().map(|c| (c.operation_code, c.service_action)).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), COMMANDS.len());
    }

    #[test]
    fn features_that_are_missing_are_refused_with_the_byte_that_asked() {
        let mut cdb = [0; 16];
        cdb[0] = code::READ_10;
        cdb[1] = 0x20;
        assert_eq!(find(&cdb).unwrap_err(), Sense::invalid_field_in_cdb(1));
        cdb[1] = 0;
        cdb[9] = 0x04;
        assert_eq!(find(&cdb).unwrap_err(), Sense::invalid_field_in_cdb(9));
        cdb[9] = 0;
        cdb[10] = 1; // not a byte of this CDB
        assert!(find(&cdb).is_ok());
        cdb[0] = 0x42; // UNMAP
        assert_eq!(find(&cdb).unwrap_err(), Sense::INVALID_OPERATION_CODE);
    }
}
