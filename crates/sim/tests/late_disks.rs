//! Disks that do something right and always late, or never in one place. Who waits for that goes on, or hears that it is in vain.

#[allow(dead_code)]
mod disk_away;

use disk_away::without_disk;
use twincell_core::cell::record::Mode;
use twincell_core::ids::Controller::{self, A, B};
use twincell_core::layout::metadata::DiskState::{Missing, Normal};
use twincell_core::layout::metadata::Name;
use twincell_core::manage::ManageOp;
use twincell_sim::{Scenario, Sent, trace};

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

/// LUN 1 has one copy, this part of it on disk 2.
const ON_DISK_2: u64 = 8192;
/// A long time for a host, in milliseconds.
const PATIENCE: u64 = 40_000;

/// Disk 2 has the last copy of other LUNs, too.
fn with_last_copies() -> Scenario {
    let (mut s, _) = without_disk(3);
    s.hosts_are_patient();
    s.use_lun(1);
    s
}

/// How long it takes until all of these are over.
fn wait_for(s: &mut Scenario, sent: &[Sent]) -> u64 {
    let began = s.now();
    while !sent.iter().all(|w| s.is_over(*w)) {
        assert!(s.now() < began + PATIENCE, "a host waits for ever");
        s.pass(20);
    }
    s.now() - began
}

/// Nothing is the matter with any disk any more, and all becomes well.
fn is_mended(mut s: Scenario) {
    s.break_part(None);
    s.writes_are_late(2, 0);
    s.flushes_are_late(2, 0);
    s.stall_disks(&[]);
    s.fail_disk(None);
    s.end();
}

/// Each flush of the only copy is late, or each write is, or both are. It is slow, and all is done.
#[test]
fn the_only_copy_is_on_a_slow_disk() {
    trace(&["what-is-overdue-has-failed"], || {
        for late in [900, 1_200, 2_000, 3_000] {
            for (writes, flushes) in [(late, 0), (0, late), (late, late)] {
                let mut s = with_last_copies();
                s.writes_are_late(2, writes);
                s.flushes_are_late(2, flushes);
                for _ in 0..2 {
                    // Not at once, and not as one: what ends first is flushed while others are overdue.
                    let sent = [0, 16, 32, 33, 64].map(|n| {
                        s.pass(70);
                        s.write_fua(A, ON_DISK_2 + n * 8, 8)
                    });
                    wait_for(&mut s, &sent);
                    assert!(sent.iter().all(|w| s.is_good(*w)), "{writes} {flushes}: {}", s.story());
                }
                is_mended(s);
            }
        }
    });
}

/// The same of what cannot be mirrored now, while others read from that disk.
#[test]
fn the_last_copy_is_on_a_slow_disk_that_is_read() {
    trace(&["what-is-overdue-has-failed"], || {
        for late in [1_200, 3_000] {
            let (mut s, _) = without_disk(3);
            s.hosts_are_patient();
            s.writes_are_late(2, late);
            let write = s.write_fua(A, 4096 + 100, 8);
            let began = s.now();
            while !s.is_over(write) {
                assert!(s.now() < began + PATIENCE, "the host waits for ever");
                s.read(A, 4096 + 2048, 8);
                s.pass(100);
            }
            assert!(s.is_good(write));
            is_mended(s);
        }
    });
}

/// A disk that is known to flush slowly, and a flush of it is on its way.
fn a_slow_flush(s: &mut Scenario, lun: usize, disk: usize, block: u64) -> Sent {
    s.use_lun(lun);
    s.flushes_are_late(disk, 1_500);
    let first = s.write_fua(A, block, 8);
    wait_for(s, &[first]);
    assert!(s.is_good(first));
    s.pass(2_000);
    s.mark();
    let next = s.write_fua(A, block, 8);
    s.until(&format!("A -> disk {disk}: flush"));
    next
}

/// It hangs for ever, then: others wait for as long as it may only be slow.
#[test]
fn a_slow_disk_hangs() {
    let mut s = with_last_copies();
    let hung = a_slow_flush(&mut s, 1, 2, ON_DISK_2);
    s.stall_disks(&[2]);
    s.use_lun(0);
    for _ in 0..2 {
        let other = s.write_fua(A, 0, 8);
        let waited = wait_for(&mut s, &[other]);
        assert!(s.is_good(other) && waited < 4_300, "{waited}");
    }
    wait_for(&mut s, &[hung]);
    assert!(s.is_write_error(hung));
    let other = s.write_fua(A, 0, 8);
    let waited = wait_for(&mut s, &[other]);
    assert!(s.is_good(other) && waited < 300, "{waited}");
    is_mended(s);
}

/// The same where there is another copy: the disk is given up.
#[test]
fn a_slow_disk_with_another_copy_hangs() {
    let mut s = with_last_copies();
    let hung = a_slow_flush(&mut s, 0, 1, 0);
    s.stall_disks(&[1]);
    let waited = wait_for(&mut s, &[hung]);
    assert!(s.is_good(hung) && waited < 5_000, "{waited}");
    assert_eq!(s.disk_state(A, 1), Missing);
    s.stall_disks(&[]);
    s.flushes_are_late(1, 0);
    s.until_disk(A, 1, Normal);
    s.reads(A, 0, 8, hung);
    is_mended(s);
}

/// A flush is waited for, and fails: all that it was for is written again.
#[test]
fn a_flush_of_a_slow_disk_fails() {
    trace(&["failed-flushes-forgotten"], || {
        let mut s = with_last_copies();
        let write = a_slow_flush(&mut s, 1, 2, ON_DISK_2);
        s.pass(1_200);
        s.fail_flushes(Some(2));
        s.until("A <- disk: error");
        assert!(!s.is_over(write));
        s.fail_flushes(None);
        wait_for(&mut s, &[write]);
        assert!(s.is_good(write));
        s.flushes_are_late(2, 0);
        s.power_loss();
        s.start_when_down();
        s.until_both_serve();
        s.reads(A, ON_DISK_2, 8, write);
        is_mended(s);
    });
}

/// Its owner falls while a flush is waited for. The partner has the data.
#[test]
fn the_owner_falls_while_a_late_flush_is_waited_for() {
    for after in [500, 1_100, 1_400, 1_600] {
        let mut s = with_last_copies();
        let write = a_slow_flush(&mut s, 1, 2, ON_DISK_2);
        s.pass(after);
        s.crash(A);
        s.until_alone(B, true);
        s.reads(B, ON_DISK_2, 8, write);
        s.start(A);
        s.until_both_serve();
        s.reads(A, ON_DISK_2, 8, write);
        is_mended(s);
    }
}

/// The first part of LUN 1, of which there is one copy, takes no writes; others of disk 0 do, which has the last copy of much else.
fn with_a_broken_part() -> Scenario {
    let (mut s, _) = without_disk(1);
    s.hosts_are_patient();
    s.use_lun(1);
    s.break_part(Some((0, 12_288)));
    s
}

/// Who waits for the broken part hears that it is in vain, however often others are written well. They never hear of it.
#[test]
fn a_part_of_the_only_copy_takes_no_writes() {
    trace(&["a-part-that-takes-nothing-is-waited-for"], || {
        for every in [100, 300, 500] {
            let mut s = with_a_broken_part();
            // Neighbours, on both sides of where it ends.
            let (write, beside) = (s.write_fua(A, 56, 8), s.write_fua(A, 64, 8));
            let (mut sound, began) = (vec![beside], s.now());
            while !s.is_over(write) {
                assert!(s.now() < began + 8_000, "{every}: the host never hears");
                if (s.now() - began).is_multiple_of(every) {
                    sound.push(s.write_fua(A, 2048, 8));
                }
                s.pass(100);
            }
            assert!(s.is_write_error(write), "{every}");
            let again = [s.write_fua(B, 56, 8), s.sync(A)];
            wait_for(&mut s, &again);
            assert!(again.iter().all(|w| s.is_write_error(*w)));
            wait_for(&mut s, &sound);
            assert!(sound.iter().all(|w| s.is_good(*w)), "{every}");
            is_mended(s);
        }
    });
}

/// Such a LUN is not moved, nobody is kept from stopping, and it can be deleted. Others are written to the same disk meanwhile.
#[test]
fn a_lun_with_a_broken_part_is_moved_or_deleted_or_its_owner_stops() {
    trace(&["a-part-that-takes-nothing-is-waited-for"], || {
        let name = Name::new("lun1").expect("a name");
        let (mut s, kept) = ends_with_a_broken_part(ManageOp::LunMove { name, to: B }, "Err(AwaitsDisk)");
        s.reads(A, 0, 8, kept);
        is_mended(s);
        let (s, _) = ends_with_a_broken_part(ManageOp::LunDelete { name }, "Ok");
        is_mended(s);
        let (mut s, kept) = ends_with_a_broken_part(ManageOp::Stop, "Ok");
        s.until_alone(B, true);
        s.reads(B, 0, 8, kept);
        s.start(A);
        s.until_both_serve();
        is_mended(s);
    });
}

fn ends_with_a_broken_part(op: ManageOp, answer: &str) -> (Scenario, Sent) {
    let mut s = with_a_broken_part();
    let kept = s.written(A, 0, 8);
    s.pass(500);
    s.mark();
    s.manage(A, op);
    let began = s.now();
    s.use_lun(0);
    while !s.tells(&format!("A -> operator: {answer}")) {
        assert!(s.now() < began + 15_000, "{op:?} never ends");
        s.write_fua(A, 2048, 8);
        s.pass(100);
    }
    s.use_lun(1);
    (s, kept)
}

/// What cannot be written does not keep a partner out.
#[test]
fn the_partner_returns_to_a_broken_part() {
    trace(&["a-part-that-takes-nothing-is-waited-for"], || {
        let mut s = with_a_broken_part();
        let kept = s.written(A, 0, 8);
        s.crash(B);
        s.until_alone(A, true);
        s.start(B);
        s.use_lun(0);
        let began = s.now();
        while s.mode(A) != Some(Mode::Both) {
            assert!(s.now() < began + 15_000, "it is kept out");
            s.write_fua(A, 2048, 8);
            s.pass(100);
        }
        s.until_both_serve();
        s.use_lun(1);
        s.crash(A);
        s.until_alone(B, true);
        s.reads(B, 0, 8, kept);
        s.start(A);
        is_mended(s);
    });
}
