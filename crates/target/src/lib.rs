//! The host protocols of twincell without I/O: SCSI, iSCSI, NBD
pub mod session;
