//! A script for each rule of the design that a mutant drops and that the failure traces (`traces.rs`) do not meet.

use twincell_core::ids::Controller::{A, B};
use twincell_sim::{Scenario, trace};

fn both() -> Scenario {
    Scenario::new().both_serving()
}

/// FUA means that the disks have the data, flushed, before the status goes out; so does SYNCHRONIZE CACHE.
#[test]
fn status_of_fua_waits_for_the_disks() {
    trace(&["fua-from-memory"], || {
        let mut s = both();
        s.disk_writes_take(1000);
        let write = s.write_fua(A, 0, 8);
        s.pass(500);
        assert!(!s.is_good(write), "it is in memory only");
        s.good(write);
        assert!(s.tells("A -> disk 0: flush"));
        s.disk_writes_take(0);
        s.end();
    });
}

/// Without a partner a write counts once it is on the disks.
#[test]
fn status_of_a_write_alone_waits_for_the_disks() {
    trace(&["write-back-while-alone"], || {
        let mut s = both();
        s.crash(B);
        s.until_alone(A, true);
        s.disk_writes_take(1000);
        let write = s.write(A, 0, 8);
        s.pass(500);
        assert!(!s.is_good(write), "it is in memory only");
        s.good(write);
        s.disk_writes_take(0);
        s.end();
    });
}
