//! The simulator: two controllers, a wire, disks and hosts in one process, driven by a seed
