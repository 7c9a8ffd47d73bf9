//! The SCSI device server: what each command of a host comes to, without I/O.
//!
//! [`device::execute`] is the way in. It answers from the [`crate::session::View`] what needs no array, and says
//! what to do with the array for the rest. Standards: SAM-5, SPC-4, SBC-3.

pub mod alua;
pub mod capacity;
pub mod cdb;
pub mod commands;
pub mod device;
pub mod identity;
pub mod inquiry;
pub mod lun;
pub mod mode;
pub mod operation_codes;
pub mod report_luns;
pub mod sense;
pub mod unit_attention;

/// Status codes (SAM-5, 5.3.1) that this device server returns.
pub mod status {
    /// GOOD
    pub const GOOD: u8 = 0x00;
    /// CHECK CONDITION
    pub const CHECK_CONDITION: u8 = 0x02;
    /// BUSY
    pub const BUSY: u8 = 0x08;
}
