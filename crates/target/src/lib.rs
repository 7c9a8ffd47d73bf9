//! The host protocols of twincell without I/O: SCSI, iSCSI, NBD
pub mod iscsi;
pub mod nbd;
pub mod scsi;
pub mod session;
