//! The handshake: from the greeting to the choice of an export.

use twincell_core::ids::BLOCK_BYTES;
use twincell_core::manage::LunView;

use super::protocol::{
    CLIENT_FIXED_NEWSTYLE, CLIENT_NO_ZEROES, FLAG_FIXED_NEWSTYLE, FLAG_NO_ZEROES, INIT_MAGIC, OPTION_MAGIC,
    OPTION_REPLY_MAGIC, flag, info, option, reply, u16_at, u32_at,
};
use super::{BLOCK_PREFERRED, REQUEST_BYTES_MAX};
use crate::session::View;

/// Zeroes that the oldest clients expect after the answer to `NBD_OPT_EXPORT_NAME`.
const LEGACY_ZEROES: usize = 124;
/// What an export can do.
const TRANSMISSION_FLAGS: u16 = flag::HAS_FLAGS | flag::SEND_FLUSH | flag::SEND_FUA | flag::CAN_MULTI_CONN;

/// What an option leads to.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The next option.
    Continue,
    /// Transmission, with this export.
    Chosen(LunView),
    /// The end of the connection.
    End,
}

/// The server's greeting.
pub fn greet(output: &mut Vec<u8>) {
    output.extend(INIT_MAGIC.to_be_bytes());
    output.extend(OPTION_MAGIC.to_be_bytes());
    output.extend((FLAG_FIXED_NEWSTYLE | FLAG_NO_ZEROES).to_be_bytes());
}

/// Whether the client wants the zeroes after `NBD_OPT_EXPORT_NAME`; `None` if it set a flag that nobody knows: the
/// protocol wants the connection to end then.
pub fn wants_zeroes(client_flags: u32) -> Option<bool> {
    let unknown = client_flags & !(CLIENT_FIXED_NEWSTYLE | CLIENT_NO_ZEROES);
    (unknown == 0).then_some(client_flags & CLIENT_NO_ZEROES == 0)
}

/// Answers one option.
pub fn answer(option: u32, data: &[u8], zeroes: bool, view: &View, output: &mut Vec<u8>) -> Outcome {
    match option {
        option::EXPORT_NAME => export_name(data, zeroes, view, output),
        option::LIST => list(data, view, output),
        option::INFO | option::GO => info_or_go(option, data, view, output),
        option::ABORT => {
            put_reply(output, option, reply::ACK, &[]);
            Outcome::End
        }
        _ => {
            put_reply(output, option, reply::ERR_UNSUP, &[]);
            Outcome::Continue
        }
    }
}

/// The export of that name. The empty name is the default export: the LUN, where there is only one.
fn find(name: &[u8], view: &View) -> Option<LunView> {
    match (name, view.luns.as_slice()) {
        ([], [only]) => Some(*only),
        ([], _) => None,
        _ => view.luns.iter().find(|l| l.name.as_str().as_bytes() == name).copied(),
    }
}

fn export_name(name: &[u8], zeroes: bool, view: &View, output: &mut Vec<u8>) -> Outcome {
    let Some(lun) = find(name, view) else {
        return Outcome::End;
    };
    output.extend(size_and_flags(&lun));
    if zeroes {
        output.resize(output.len() + LEGACY_ZEROES, 0);
    }
    Outcome::Chosen(lun)
}

fn list(data: &[u8], view: &View, output: &mut Vec<u8>) -> Outcome {
    if !data.is_empty() {
        put_reply(output, option::LIST, reply::ERR_INVALID, &[]);
        return Outcome::Continue;
    }
    for lun in &view.luns {
        let name = lun.name.as_str().as_bytes();
        let length = (name.len() as u32).to_be_bytes();
        put_reply(output, option::LIST, reply::SERVER, &[&length, name]);
    }
    put_reply(output, option::LIST, reply::ACK, &[]);
    Outcome::Continue
}

fn info_or_go(option: u32, data: &[u8], view: &View, output: &mut Vec<u8>) -> Outcome {
    let Some((name, wanted)) = parse_info(data) else {
        put_reply(output, option, reply::ERR_INVALID, &[]);
        return Outcome::Continue;
    };
    let Some(lun) = find(name, view) else {
        put_reply(output, option, reply::ERR_UNKNOWN, &[]);
        return Outcome::Continue;
    };
    put_info(output, option, info::EXPORT, &size_and_flags(&lun));
    if wanted.contains(&info::NAME) {
        put_info(output, option, info::NAME, lun.name.as_str().as_bytes());
    }
    if wanted.contains(&info::DESCRIPTION) {
        let text = format!("LUN {} of cell {}", lun.ncae, view.cell_name);
        put_info(output, option, info::DESCRIPTION, text.as_bytes());
    }
    // Sent whether asked for or not: a request that is not whole blocks is refused.
    put_info(output, option, info::BLOCK_SIZE, &block_sizes());
    put_reply(output, option, reply::ACK, &[]);
    match option {
        option::GO => Outcome::Chosen(lun),
        _ => Outcome::Continue,
    }
}

/// The data of `INFO` and `GO`: a name with its length, then a counted list of types of information.
fn parse_info(data: &[u8]) -> Option<(&[u8], Vec<u16>)> {
    let (length, rest) = data.split_at_checked(4)?;
    let (name, rest) = rest.split_at_checked(u32_at(length, 0) as usize)?;
    let (count, types) = rest.split_at_checked(2)?;
    let (pairs, odd) = types.as_chunks::<2>();
    let wanted: Vec<u16> = pairs.iter().map(|p| u16::from_be_bytes(*p)).collect();
    (odd.is_empty() && wanted.len() == usize::from(u16_at(count, 0))).then_some((name, wanted))
}

fn size_and_flags(lun: &LunView) -> [u8; 10] {
    let mut bytes = [0; 10];
    bytes[..8].copy_from_slice(&(lun.blocks * BLOCK_BYTES as u64).to_be_bytes());
    bytes[8..].copy_from_slice(&TRANSMISSION_FLAGS.to_be_bytes());
    bytes
}

fn block_sizes() -> [u8; 12] {
    let mut bytes = [0; 12];
    bytes[..4].copy_from_slice(&(BLOCK_BYTES as u32).to_be_bytes());
    bytes[4..8].copy_from_slice(&BLOCK_PREFERRED.to_be_bytes());
    bytes[8..].copy_from_slice(&REQUEST_BYTES_MAX.to_be_bytes());
    bytes
}

fn put_info(output: &mut Vec<u8>, option: u32, kind: u16, content: &[u8]) {
    put_reply(output, option, reply::INFO, &[&kind.to_be_bytes(), content]);
}

fn put_reply(output: &mut Vec<u8>, option: u32, kind: u32, parts: &[&[u8]]) {
    let length: usize = parts.iter().map(|p| p.len()).sum();
    output.extend(OPTION_REPLY_MAGIC.to_be_bytes());
    output.extend(option.to_be_bytes());
    output.extend(kind.to_be_bytes());
    output.extend((length as u32).to_be_bytes());
    for part in parts {
        output.extend_from_slice(part);
    }
}
