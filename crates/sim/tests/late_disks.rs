//! Disks that do something right and always late, or never in one place. Who waits for that goes on, or hears that it is in vain.

#[allow(dead_code)]
mod disk_away;

use disk_away::without_disk;
use twincell_core::ids::Controller::{self, A, B};
use twincell_core::layout::metadata::DiskState::Normal;
use twincell_sim::{Scenario, trace};

/// Until a disk is level at last: how long that takes, and how long a host waits for other blocks in all, in milliseconds.
fn until_level(s: &mut Scenario, disk: usize) -> (u64, u64) {
    let began = s.now();
    let mut waited = 0;
    while s.disk_state(A, disk) != Normal {
        assert!(s.now() < began + 60_000, "it never becomes level");
        let (sent, read) = (s.now(), s.read(A, 2048, 8));
        while !s.is_over(read) && s.disk_state(A, disk) != Normal {
            s.pass(20);
        }
        waited += Some(s.now() - sent).filter(|took| *took > 500).unwrap_or(0);
    }
    (s.now() - began, waited)
}

/// Its only source reads one block well, after many tries: that is waited for, once.
#[test]
fn a_disk_is_level_though_its_source_has_a_weak_block() {
    trace(&["a-piece-is-late-for-good"], || {
        for late in [900, 1_100, 2_000, 3_500] {
            let (mut s, _) = without_disk(1);
            s.weaken(0, 100, late);
            s.fail_disk(None);
            let (took, waited) = until_level(&mut s, 1);
            assert!(took < 20_000 && waited < 2 * late, "{late}: {took}, {waited}");
            s.end();
        }
    });
}

/// It takes its time for each flush.
#[test]
fn a_disk_that_flushes_slowly_becomes_level() {
    trace(&["a-late-flush-of-copies-fails"], || {
        for late in [900, 1_100, 2_000] {
            let (mut s, _) = without_disk(1);
            s.flushes_are_late(1, late);
            s.fail_disk(None);
            until_level(&mut s, 1);
            s.end();
        }
    });
}

/// The only copy has a block that cannot be read, and the disk takes its time to say so: the host hears of that.
#[test]
fn a_bad_block_is_an_error_however_late() {
    trace(&["each-error-is-a-doubt"], || {
        for late in [10, 900, 1_200, 2_000, 3_700, 5_000] {
            for path in [A, B] {
                reads_a_bad_block(path, late);
            }
        }
    });
}

fn reads_a_bad_block(path: Controller, late: u64) {
    let mut s = Scenario::new().both_serving();
    s.hosts_are_patient();
    s.use_lun(1);
    s.spoil(0, 12_288 + 100, 8);
    s.bad_blocks_take(late);
    s.pass(2_000);
    let (read, sent) = (s.read(path, 100, 8), s.now());
    while !s.is_over(read) {
        // The disk does all else well meanwhile.
        s.write_fua(A, 2048, 8);
        s.pass(100);
        assert!(s.now() < sent + 12_000, "{late}: the host never hears");
    }
    assert!(s.is_read_error(read));
    s.end();
}
