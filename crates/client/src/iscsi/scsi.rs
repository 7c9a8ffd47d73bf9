//! The SCSI commands that the client uses, and what their answers mean (SPC-5, SBC-4).

use crate::bytes::{put, u16_at, u32_at, u64_at};

/// A command descriptor block, padded with zeroes.
pub type Cdb = [u8; 16];

/// Why a command got CHECK CONDITION (SPC-5 4.4): the conditions that a client acts on have names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Sense {
    /// 02/04/0A: the path changes its state; try again.
    Transitioning,
    /// 02/04/0B: the path is in standby; use another.
    Standby,
    /// 02/04/0C: the path is unavailable; use another.
    Unavailable,
    /// 03/11/xx: a block cannot be read.
    ReadError,
    /// 03/0C/xx: a block cannot be written.
    WriteError,
    /// 05/20/00: no such command.
    InvalidCommand,
    /// 05/21/00: beyond the end.
    OutOfRange,
    /// 05/24/00: a field of the command makes no sense.
    InvalidField,
    /// 05/25/00: no such LUN.
    NoSuchLun,
    /// 06/29/xx: power on, or a reset.
    Reset,
    /// 06/2A/06: the asymmetric access state changed.
    PathsChanged,
    /// 06/2A/09: the capacity changed.
    CapacityChanged,
    /// 06/3F/0E: the set of LUNs changed.
    LunsChanged,
    /// Any other unit attention.
    OtherAttention {
        /// Additional sense code.
        asc: u8,
        /// Its qualifier.
        ascq: u8,
    },
    /// Anything else.
    Other {
        /// Sense key.
        key: u8,
        /// Additional sense code.
        asc: u8,
        /// Its qualifier.
        ascq: u8,
    },
}

impl Sense {
    /// Decodes sense data of fixed or descriptor format; what is too short is all zeroes.
    pub fn decode(data: &[u8]) -> Sense {
        let at = |i: usize| data.get(i).copied().unwrap_or(0);
        match at(0) & 0x7f {
            0x72 | 0x73 => Sense::from_codes(at(1) & 0xf, at(2), at(3)),
            _ => Sense::from_codes(at(2) & 0xf, at(12), at(13)),
        }
    }

    /// From sense key, additional sense code and its qualifier.
    pub fn from_codes(key: u8, asc: u8, ascq: u8) -> Sense {
        match (key, asc, ascq) {
            (2, 0x04, 0x0a) => Sense::Transitioning,
            (2, 0x04, 0x0b) => Sense::Standby,
            (2, 0x04, 0x0c) => Sense::Unavailable,
            (3, 0x11, _) => Sense::ReadError,
            (3, 0x0c, _) => Sense::WriteError,
            (5, 0x20, 0) => Sense::InvalidCommand,
            (5, 0x21, 0) => Sense::OutOfRange,
            (5, 0x24, 0) => Sense::InvalidField,
            (5, 0x25, 0) => Sense::NoSuchLun,
            (6, 0x29, _) => Sense::Reset,
            (6, 0x2a, 0x06) => Sense::PathsChanged,
            (6, 0x2a, 0x09) => Sense::CapacityChanged,
            (6, 0x3f, 0x0e) => Sense::LunsChanged,
            (6, asc, ascq) => Sense::OtherAttention { asc, ascq },
            (key, asc, ascq) => Sense::Other { key, asc, ascq },
        }
    }

    /// Whether it is a unit attention: the command was not executed, and the condition is cleared by telling it.
    pub fn is_unit_attention(self) -> bool {
        matches!(
            self,
            Sense::Reset
                | Sense::PathsChanged
                | Sense::CapacityChanged
                | Sense::LunsChanged
                | Sense::OtherAttention { .. }
        )
    }

    /// Whether the same command may well succeed later, or on another path.
    pub fn is_transient(self) -> bool {
        // 0B: ABORTED COMMAND.
        self.is_unit_attention()
            || matches!(
                self,
                Sense::Transitioning | Sense::Standby | Sense::Unavailable | Sense::Other { key: 2 | 0xb, .. }
            )
    }
}

/// TEST UNIT READY.
pub fn test_unit_ready() -> Cdb {
    [0; 16]
}

/// INQUIRY; `page` is a page of vital product data.
pub fn inquiry(page: Option<u8>, length: u16) -> Cdb {
    let mut cdb = [0; 16];
    cdb[0] = 0x12;
    cdb[1] = u8::from(page.is_some());
    cdb[2] = page.unwrap_or(0);
    put(&mut cdb, 3, &length.to_be_bytes());
    cdb
}

/// READ CAPACITY (16).
pub fn read_capacity() -> Cdb {
    let mut cdb = [0; 16];
    cdb[0] = 0x9e;
    cdb[1] = 0x10;
    put(&mut cdb, 10, &32u32.to_be_bytes());
    cdb
}

/// REPORT LUNS, all that the host may use.
pub fn report_luns(length: u32) -> Cdb {
    let mut cdb = [0; 16];
    cdb[0] = 0xa0;
    put(&mut cdb, 6, &length.to_be_bytes());
    cdb
}

/// REPORT TARGET PORT GROUPS.
pub fn report_target_port_groups(length: u32) -> Cdb {
    let mut cdb = [0; 16];
    cdb[0] = 0xa3;
    cdb[1] = 0x0a;
    put(&mut cdb, 6, &length.to_be_bytes());
    cdb
}

/// READ (16).
pub fn read(start: u64, blocks: u32) -> Cdb {
    ranged(0x88, 0, start, blocks)
}

/// WRITE (16).
pub fn write(start: u64, blocks: u32, fua: bool) -> Cdb {
    ranged(0x8a, u8::from(fua) << 3, start, blocks)
}

/// SYNCHRONIZE CACHE (16) of the whole LUN.
pub fn synchronize_cache() -> Cdb {
    ranged(0x91, 0, 0, 0)
}

fn ranged(operation: u8, flags: u8, start: u64, blocks: u32) -> Cdb {
    let mut cdb = [0; 16];
    cdb[0] = operation;
    cdb[1] = flags;
    put(&mut cdb, 2, &start.to_be_bytes());
    put(&mut cdb, 10, &blocks.to_be_bytes());
    cdb
}

/// What INQUIRY says (SPC-5 6.7.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inquiry {
    /// 0 for a disk; with qualifier 3 (`0x7f`) there is no such LUN.
    pub peripheral: u8,
    /// Vendor, without trailing blanks.
    pub vendor: String,
    /// Product.
    pub product: String,
    /// Revision.
    pub revision: String,
    /// TPGS: 1 implicit, 2 explicit, 3 both kinds of asymmetric access; 0 none.
    pub tpgs: u8,
}

impl Inquiry {
    /// `None` if it is too short.
    pub fn decode(data: &[u8]) -> Option<Inquiry> {
        let text = |from: usize, to: usize| {
            let bytes = data.get(from..to)?;
            Some(String::from_utf8_lossy(bytes).trim_end().to_string())
        };
        Some(Inquiry {
            peripheral: *data.first()?,
            vendor: text(8, 16)?,
            product: text(16, 32)?,
            revision: text(32, 36)?,
            tpgs: data[5] >> 4 & 3,
        })
    }
}

/// What READ CAPACITY (16) says (SBC-4 5.20.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// Number of logical blocks.
    pub blocks: u64,
    /// Bytes in a logical block.
    pub block_bytes: u32,
    /// Bytes in a physical block.
    pub physical_bytes: u32,
}

impl Capacity {
    /// `None` if it is too short, or the last block has the largest number there is.
    pub fn decode(data: &[u8]) -> Option<Capacity> {
        let data = data.get(..14)?;
        let block_bytes = u32_at(data, 8);
        Some(Capacity {
            blocks: u64_at(data, 0).checked_add(1)?,
            block_bytes,
            physical_bytes: block_bytes.checked_shl(u32::from(data[13] & 0xf))?,
        })
    }
}

/// The eight bytes that name a LUN (SAM-5 4.7): peripheral addressing below 256, flat space above.
pub fn lun_bytes(lun: u16) -> [u8; 8] {
    let mut bytes = [0; 8];
    bytes[1] = lun as u8;
    if lun > 255 {
        bytes[0] = 0x40 | (lun >> 8 & 0x3f) as u8;
    }
    bytes
}

/// The LUNs of REPORT LUNS; those of other forms of addressing are left out. `None` if the data are not whole.
pub fn decode_luns(data: &[u8]) -> Option<Vec<u16>> {
    let length = u32_at(data.get(..8)?, 0) as usize;
    let (luns, rest) = data.get(8..8 + length)?.as_chunks::<8>();
    let number = |l: &[u8; 8]| match l[0] >> 6 {
        0 | 1 => Some(u16_at(l, 0) & 0x3fff),
        _ => None,
    };
    rest.is_empty().then(|| luns.iter().filter_map(number).collect())
}

/// State of a target port group (SPC-5 table 277).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessState {
    /// The path to use.
    ActiveOptimized,
    /// Works, by a detour.
    ActiveNonOptimized,
    /// Only some commands work.
    Standby,
    /// Only the inquiring commands work.
    Unavailable,
    /// Not reachable through this port.
    Offline,
    /// Changing.
    Transitioning,
    /// Another number.
    Unknown(u8),
}

/// A target port group as RTPG shows it (SPC-5 6.36).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortGroup {
    /// Its number: 1 is controller A, 2 is B.
    pub number: u16,
    /// Its state.
    pub state: AccessState,
    /// Preferred.
    pub preferred: bool,
    /// Its relative target ports.
    pub ports: Vec<u16>,
}

/// The answer to RTPG. `None` if it is not whole.
pub fn decode_port_groups(data: &[u8]) -> Option<Vec<PortGroup>> {
    let length = u32_at(data.get(..4)?, 0) as usize;
    let mut rest = data.get(4..4 + length)?;
    let mut groups = Vec::new();
    while !rest.is_empty() {
        let (head, after) = rest.split_at_checked(8)?;
        let (ports, after) = after.split_at_checked(usize::from(head[7]) * 4)?;
        groups.push(PortGroup {
            number: u16_at(head, 2),
            state: access_state(head[0] & 0xf),
            preferred: head[0] & 0x80 != 0,
            ports: ports.as_chunks::<4>().0.iter().map(|p| u16_at(p, 2)).collect(),
        });
        rest = after;
    }
    Some(groups)
}

fn access_state(code: u8) -> AccessState {
    match code {
        0 => AccessState::ActiveOptimized,
        1 => AccessState::ActiveNonOptimized,
        2 => AccessState::Standby,
        3 => AccessState::Unavailable,
        0xe => AccessState::Offline,
        0xf => AccessState::Transitioning,
        other => AccessState::Unknown(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_formats_of_sense_data() {
        let mut fixed = [0; 18];
        (fixed[0], fixed[2], fixed[12], fixed[13]) = (0x70, 2, 4, 0x0a);
        assert_eq!(Sense::decode(&fixed), Sense::Transitioning);
        assert_eq!(Sense::decode(&[0x72, 6, 0x3f, 0x0e]), Sense::LunsChanged);
        assert_eq!(
            Sense::decode(&[]),
            Sense::Other {
                key: 0,
                asc: 0,
                ascq: 0
            }
        );
    }

    #[test]
    fn luns_above_255_are_flat() {
        assert_eq!(lun_bytes(7), [0, 7, 0, 0, 0, 0, 0, 0]);
        assert_eq!(lun_bytes(0x123), [0x41, 0x23, 0, 0, 0, 0, 0, 0]);
        let mut data = vec![0, 0, 0, 16, 0, 0, 0, 0];
        data.extend(lun_bytes(7));
        data.extend(lun_bytes(0x123));
        assert_eq!(decode_luns(&data), Some(vec![7, 0x123]));
        data.pop();
        assert_eq!(decode_luns(&data), None);
    }

    #[test]
    fn port_groups() {
        let data = [
            0, 0, 0, 24, 0x80, 0x8f, 0, 1, 0, 0, 0, 1, 0, 0, 0, 9, 0x0f, 0x8f, 0, 2, 0, 0, 0, 1, 0, 0, 0, 10,
        ];
        let groups = decode_port_groups(&data).unwrap();
        assert_eq!(groups[0].state, AccessState::ActiveOptimized);
        assert!(groups[0].preferred);
        assert_eq!((groups[1].number, groups[1].state), (2, AccessState::Transitioning));
        assert_eq!(groups[1].ports, [10]);
        assert_eq!(decode_port_groups(&data[..27]), None);
    }

    #[test]
    fn read_16_byte_for_byte() {
        let cdb = read(0x0102030405060708, 0x0a0b0c0d);
        assert_eq!(cdb, [0x88, 0, 1, 2, 3, 4, 5, 6, 7, 8, 0xa, 0xb, 0xc, 0xd, 0, 0]);
        assert_eq!(write(0, 1, true)[1], 8);
    }
}
