//! Protocol data units (RFC 7143, section 11): the basic header segment and how a PDU is put on the wire

/// Bytes of the basic header segment.
pub const BHS_BYTES: usize = 48;
/// A task or transfer tag that names nothing.
pub const NO_TAG: u32 = 0xffff_ffff;

/// Operation codes of initiator and target, named as the standard does.
pub mod opcode {
    pub const NOP_OUT: u8 = 0x00;
    pub const SCSI_COMMAND: u8 = 0x01;
    pub const TASK_MANAGEMENT: u8 = 0x02;
    pub const LOGIN: u8 = 0x03;
    pub const TEXT: u8 = 0x04;
    pub const DATA_OUT: u8 = 0x05;
    pub const LOGOUT: u8 = 0x06;
    pub const SNACK: u8 = 0x10;
    pub const NOP_IN: u8 = 0x20;
    pub const SCSI_RESPONSE: u8 = 0x21;
    pub const TASK_MANAGEMENT_RESPONSE: u8 = 0x22;
    pub const LOGIN_RESPONSE: u8 = 0x23;
    pub const TEXT_RESPONSE: u8 = 0x24;
    pub const DATA_IN: u8 = 0x25;
    pub const LOGOUT_RESPONSE: u8 = 0x26;
    pub const R2T: u8 = 0x31;
    pub const REJECT: u8 = 0x3f;
}

/// Why a PDU is rejected (11.17.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Data (payload) digest error
    DataDigest = 0x02,
    /// SNACK reject
    Snack = 0x03,
    /// Protocol error
    Protocol = 0x04,
    /// Command not supported
    NotSupported = 0x05,
    /// Immediate command reject: too many of them
    TooManyImmediate = 0x06,
    /// Task in progress
    TaskInProgress = 0x07,
    /// Invalid PDU field
    InvalidField = 0x09,
}

/// A basic header segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header(pub [u8; BHS_BYTES]);

/// Bit 7 of byte 1: the final PDU of its sequence; in a login it is the T bit.
pub const FINAL: u8 = 0x80;
/// Bit 6 of byte 1 of login and text: the text goes on in the next PDU.
pub const CONTINUE: u8 = 0x40;

impl Header {
    /// A header from the target: `opcode`, `flags` in byte 1 and the initiator task tag.
    pub fn new(opcode: u8, flags: u8, task_tag: u32) -> Header {
        let mut header = Header([0; BHS_BYTES]);
        header.0[0] = opcode;
        header.0[1] = flags;
        header.set32(16, task_tag);
        header
    }

    /// Operation code.
    pub fn opcode(&self) -> u8 {
        self.0[0] & 0x3f
    }

    /// I bit: outside of the order of commands.
    pub fn is_immediate(&self) -> bool {
        self.0[0] & 0x40 != 0
    }

    /// Byte 1.
    pub fn flags(&self) -> u8 {
        self.0[1]
    }

    /// F bit.
    pub fn is_final(&self) -> bool {
        self.0[1] & FINAL != 0
    }

    /// Bytes of the additional header segments, at most 1,020.
    pub fn ahs_bytes(&self) -> usize {
        usize::from(self.0[4]) * 4
    }

    /// DataSegmentLength in bytes, below 2^24.
    pub fn data_bytes(&self) -> u32 {
        self.get32(4) & 0x00ff_ffff
    }

    /// The LUN field.
    pub fn lun(&self) -> [u8; 8] {
        self.array(8)
    }

    /// Initiator task tag.
    pub fn task_tag(&self) -> u32 {
        self.get32(16)
    }

    /// Target transfer tag, or in task management the referenced task tag.
    pub fn transfer_tag(&self) -> u32 {
        self.get32(20)
    }

    /// CmdSN.
    pub fn cmd_sn(&self) -> u32 {
        self.get32(24)
    }

    /// The number in bytes `at` to `at + 4`.
    pub fn get32(&self, at: usize) -> u32 {
        u32::from_be_bytes(self.array(at))
    }

    /// Sets the number in bytes `at` to `at + 4`.
    pub fn set32(&mut self, at: usize, value: u32) {
        self.0[at..at + 4].copy_from_slice(&value.to_be_bytes());
    }

    /// `N` bytes from `at` on.
    pub fn array<const N: usize>(&self, at: usize) -> [u8; N] {
        std::array::from_fn(|i| self.0[at + i])
    }

    /// Sets DataSegmentLength, below 2^24.
    pub fn set_data_bytes(&mut self, bytes: usize) {
        self.set32(4, u32::from(self.0[4]) << 24 | bytes as u32);
    }
}

/// Which digests follow header and data (13.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Digests {
    /// CRC-32C after the header segments.
    pub header: bool,
    /// CRC-32C after the data segment.
    pub data: bool,
}

/// A digest in the byte order of the wire: as a number it is little endian (RFC 7143, 13.1 and RFC 3720, B.4).
pub fn digest(crc: u32) -> [u8; 4] {
    crc.to_le_bytes()
}

/// Appends a PDU to `out`. DataSegmentLength is set here; `data` is below 2^24 bytes.
pub fn put(mut header: Header, data: &[u8], digests: Digests, out: &mut Vec<u8>) {
    header.set_data_bytes(data.len());
    out.extend_from_slice(&header.0);
    if digests.header {
        out.extend_from_slice(&digest(twincell_wire::crc32c(&header.0)));
    }
    if data.is_empty() {
        return;
    }
    let start = out.len();
    out.extend_from_slice(data);
    out.resize(start + data.len().next_multiple_of(4), 0);
    if digests.data {
        let crc = twincell_wire::crc32c(&out[start..]);
        out.extend_from_slice(&digest(crc));
    }
}

/// Serial numbers compare modulo 2^32 (RFC 1982; RFC 7143, 4.2.2.1): whether `a` comes before `b`.
pub fn before(a: u32, b: u32) -> bool {
    (a.wrapping_sub(b) as i32) < 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_and_digests() {
        let digests = Digests {
            header: true,
            data: true,
        };
        let mut out = Vec::new();
        put(Header::new(opcode::NOP_IN, FINAL, 7), b"hello", digests, &mut out);
        assert_eq!(out.len(), 48 + 4 + 8 + 4);
        assert_eq!(out[4..8], [0, 0, 0, 5]);
        assert_eq!(out[48..52], twincell_wire::crc32c(&out[..48]).to_le_bytes());
        assert_eq!(&out[52..60], b"hello\0\0\0");
        assert_eq!(out[60..], twincell_wire::crc32c(b"hello\0\0\0").to_le_bytes());
    }

    #[test]
    fn serial_numbers_wrap() {
        assert!(before(0xffff_ffff, 0));
        assert!(before(5, 6));
        assert!(!before(6, 6));
        assert!(!before(0, 0xffff_fff0));
    }
}
