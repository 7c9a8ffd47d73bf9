//! A small iSCSI and NBD initiator, and the history checker
