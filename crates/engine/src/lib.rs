//! The engine: io_uring, sockets, disks and NV memory for the twincell core
