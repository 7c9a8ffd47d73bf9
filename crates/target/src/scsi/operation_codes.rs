//! REPORT SUPPORTED OPERATION CODES (SPC-4, 6.35)

use super::cdb::OperationCodes;
use super::commands::{COMMANDS, Command};
use super::sense::Sense;

/// A command timeouts descriptor that names no time-outs.
const TIMEOUTS: [u8; 12] = [0, 0x0a, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
const NOT_SUPPORTED: u8 = 0x01;
const SUPPORTED_AS_IN_A_STANDARD: u8 = 0x03;

/// Appends what `asked` asks for.
///
/// # Errors
/// INVALID FIELD IN CDB for reporting options that do not exist or do not suit the operation code.
pub fn report(asked: &OperationCodes, out: &mut Vec<u8>) -> Result<(), Sense> {
    let code = asked.operation_code;
    let has_service_actions = COMMANDS
        .iter()
        .any(|c| c.operation_code == code && c.service_action.is_some());
    let wants_service_action = match asked.options {
        0 => {
            all(asked.timeouts, out);
            return Ok(());
        }
        1 if has_service_actions => return Err(Sense::invalid_field_in_cdb(2)),
        1 => false,
        2 if COMMANDS
            .iter()
            .any(|c| c.operation_code == code && c.service_action.is_none()) =>
        {
            return Err(Sense::invalid_field_in_cdb(2));
        }
        2 => true,
        3 => has_service_actions || asked.service_action != 0,
        _ => return Err(Sense::invalid_field_in_cdb(2)),
    };
    let wanted = wants_service_action.then_some(asked.service_action);
    let is_it = |c: &&Command| c.operation_code == code && c.service_action.map(u16::from) == wanted;
    one(COMMANDS.iter().find(is_it), asked.timeouts, out);
    Ok(())
}

fn all(timeouts: bool, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    for command in COMMANDS {
        let flags = if timeouts { 0x02 } else { 0 } | u8::from(command.service_action.is_some());
        let service_action = command.service_action.unwrap_or(0);
        let length = command.usage.len() as u8;
        out.extend_from_slice(&[command.operation_code, 0, 0, service_action, 0, flags, 0, length]);
        if timeouts {
            out.extend_from_slice(&TIMEOUTS);
        }
    }
    let length = (out.len() - start - 4) as u32;
    out[start..start + 4].copy_from_slice(&length.to_be_bytes());
}

fn one(command: Option<&Command>, timeouts: bool, out: &mut Vec<u8>) {
    let Some(command) = command else {
        out.extend_from_slice(&[0, NOT_SUPPORTED, 0, 0]);
        return;
    };
    let flags = if timeouts { 0x80 } else { 0 } | SUPPORTED_AS_IN_A_STANDARD;
    out.extend_from_slice(&[0, flags, 0, command.usage.len() as u8]);
    out.extend_from_slice(command.usage);
    if timeouts {
        out.extend_from_slice(&TIMEOUTS);
    }
}
