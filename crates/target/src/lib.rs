//! The host protocols of twincell without I/O: SCSI, iSCSI, NBD
pub mod nbd;
pub mod session;
