//! Disks that fail, or do not answer: hosts go on where there is another copy, LUNs on other disks go on in any case, and
//! nothing that a late write could spoil is used again before it has ended.
//!
//! LUN 0 is mirrored, its first RStore on disks 0 and 1, the second on 2 and 3. LUN 1 has one copy: its first RStore is on
//! disk 0, the second on disk 1, the third on disk 2.

use twincell_core::ids::Controller::{A, B};
use twincell_core::ids::Uuid;
use twincell_core::layout::metadata::{DiskState, Name, Redundancy};
use twincell_core::manage::ManageOp;
use twincell_sim::fault::Fault;
use twincell_sim::{Scenario, trace};

fn both() -> Scenario {
    Scenario::new().both_serving()
}

/// A disk answers nothing for ever. Writes that waited for it are done once it is missing, and it is so for good.
#[test]
fn a_stalled_disk_goes_missing() {
    trace(&[], || {
        let mut s = both();
        s.stall_disks(&[1]);
        let before = s.now();
        let written = s.write_fua(A, 0, 256);
        s.good(written);
        assert!(s.now() - before < 5_000, "the host waited {} ms", s.now() - before);
        assert_eq!(s.disk_state(A, 1), DiskState::Missing);
        s.reads(A, 0, 256, written);
        s.reads(B, 0, 256, written);
        let again = s.write_fua(B, 0, 8);
        s.good(again);
        s.end();
    });
}

/// Reads that a disk does not answer are done from the other copy, into other memory, before it is given up.
#[test]
fn reads_leave_a_stalled_disk() {
    trace(&["forget-an-overdue-read"], reads_of_a_stalled_disk);
}

fn reads_of_a_stalled_disk() {
    let mut s = both();
    let written = s.write_fua(A, 0, 8);
    s.good(written);
    s.pass(100);
    s.stall_disks(&[0]);
    for path in [A, B] {
        let before = s.now();
        let read = s.read(path, 0, 8);
        s.good(read);
        assert!(s.now() - before < 1_300, "the host waited {} ms", s.now() - before);
    }
    let before = s.now();
    s.reads(A, 0, 8, written);
    assert!(s.now() - before < 50, "a disk that does not answer is read again");
    s.stall_disks(&[]);
    s.pass(100);
    s.reads(A, 0, 8, written);
    s.reads(B, 0, 8, written);
    s.end();
}

/// Reads of one disk that hang do not take the memory that reads of others need.
#[test]
fn hung_reads_leave_memory_for_others() {
    trace(&["wait-for-a-full-disk-that-stalls"], || {
        let mut s = Scenario::small().both_serving();
        let written = s.write_fua(A, 4096, 8);
        s.good(written);
        s.pass(100);
        s.stall_disks(&[0]);
        s.use_lun(1);
        let hung: Vec<_> = (0..12).map(|n| s.read(A, n * 8, 8)).collect();
        s.pass(10);
        s.use_lun(0);
        let before = s.now();
        s.reads(A, 4096, 8, written);
        assert!(s.now() - before < 50, "the host waited {} ms", s.now() - before);
        s.pass(6_000);
        assert!(hung.iter().all(|h| s.is_read_error(*h)), "nobody can answer these");
        s.end();
    });
}

/// A LUN whose only disk does not answer takes neither all memory nor the destager: the other goes on, also alone.
#[test]
fn a_lun_without_its_disk_does_not_stop_the_other() {
    for alone in [false, true] {
        let mut s = if alone {
            Scenario::small().alone(A)
        } else {
            Scenario::small().both_serving()
        };
        s.stall_disks(&[2]);
        s.use_lun(1);
        for n in 0..30 {
            s.write(A, 8192 + n * 16, 8);
        }
        s.pass(6_000);
        s.use_lun(0);
        for n in 0..60 {
            let before = s.now();
            let written = s.write_fua(A, n * 16, 8);
            s.good(written);
            assert!(s.now() - before < 300, "the host waited {} ms", s.now() - before);
        }
        s.stall_disks(&[]);
        s.end();
    }
}

/// More dirty data than one search looks at wait for a disk that fails; those for others go to disk all the same.
#[test]
fn data_for_a_failing_disk_hide_no_others() {
    let mut s = both();
    s.fail_writes(Some(2));
    s.use_lun(1);
    for n in 0..100 {
        s.write(A, 8192 + n * 16, 8);
    }
    s.pass(400);
    s.use_lun(0);
    let before = s.now();
    let written = s.write_fua(A, 0, 8);
    s.good(written);
    assert!(s.now() - before < 100, "the host waited {} ms", s.now() - before);
    s.end();
}

/// Nothing is expected of the only disk any more: hosts hear of it. What was acknowledged before stays in NV memory, is
/// read from there, and reaches the disk once it answers.
#[test]
fn without_its_only_disk_a_lun_answers_errors() {
    trace(&[], || {
        let mut s = both();
        s.use_lun(1);
        let kept = s.written(A, 0, 8);
        s.stall_disks(&[0]);
        let hung = s.write_fua(A, 8, 8);
        s.pass(6_000);
        assert!(s.is_write_error(hung));
        let refused = s.write(A, 16, 8);
        s.pass(100);
        assert!(s.is_write_error(refused));
        s.reads(A, 0, 8, kept);
        let read = s.read(A, 24, 8);
        s.pass(100);
        assert!(s.is_read_error(read));
        s.stall_disks(&[]);
        s.pass(1_000);
        let written = s.write_fua(B, 16, 8);
        s.good(written);
        s.reads(B, 0, 8, kept);
        s.end();
    });
}

/// A write that a disk does not answer lands late, and newer data lie on the other copy. The disk is missing by then: the buffer holds
/// something else, and that lands in its place. All of that is copied over before the disk is read again.
#[test]
fn a_late_write_spoils_nothing() {
    trace(&[], || {
        let mut s = Scenario::small().both_serving();
        s.stall_disks(&[1]);
        let first = s.write_fua(A, 0, 256);
        s.good(first);
        for n in 0..12 {
            let written = s.write_fua(A, 4096 + n * 256, 256);
            s.good(written);
        }
        let last = s.write_fua(A, 0, 256);
        s.good(last);
        s.stall_disks(&[]);
        s.reads(A, 0, 256, last);
        s.end();
    });
}

/// The same where the disk has the only copy: what lands there counts, so the buffer must not hold anything else.
#[test]
fn a_late_write_of_the_only_copy_spoils_nothing() {
    trace(&["forget-an-overdue-write"], || {
        let mut s = Scenario::small().both_serving();
        s.stall_disks(&[2]);
        s.use_lun(1);
        s.written(A, 8192, 8);
        s.pass(1_500);
        let last = s.written(A, 8192, 8);
        s.use_lun(0);
        for n in 0..12 {
            let written = s.write_fua(A, n * 256, 256);
            s.good(written);
        }
        s.stall_disks(&[]);
        s.use_lun(1);
        s.reads(A, 8192, 8, last);
        s.end();
    });
}

/// A disk hangs with data of the partner's LUN on their way there, after the partner fell, and is given up: the other copy has them. The
/// partner comes back all the same, and uses the memory from which that write may still be done.
fn the_partner_returns_though_a_missing_disk_hangs(s: &mut Scenario) {
    s.use_lun(0);
    let name = Name::new("lun0").expect("a name");
    s.manage(A, ManageOp::LunMove { name, to: B });
    s.until("A -> operator: Ok");
    s.pass(100);
    let kept = s.written(B, 0, 8);
    s.crash(B);
    s.until("A serves");
    s.stall_disks(&[1]);
    s.until_disk(A, 1, DiskState::Missing);
    s.reads(A, 0, 8, kept);
    s.start(B);
    s.until_both_serve();
    let name = Name::new("lun0").expect("a name");
    s.mark();
    s.manage(A, ManageOp::LunMove { name, to: B });
    s.until("A -> operator: Ok");
    // It takes the place of what hangs.
    (0..16).for_each(|n| _ = s.written(B, 1024 + n * 8, 8));
    s.stall_disks(&[]);
    s.until_disk(A, 1, DiskState::Normal);
    s.reads(B, 0, 8, kept);
}

#[test]
fn the_partner_returns_though_a_missing_disk_hangs_and_there_is_room() {
    let mut s = both();
    the_partner_returns_though_a_missing_disk_hangs(&mut s);
    s.end();
}

/// The same, and what waits for another disk leaves no room for copies of what the partner left.
#[test]
fn the_partner_returns_though_a_missing_disk_hangs_and_there_is_no_room() {
    trace(&["a-missing-disk-holds-the-partners-memory"], || {
        let mut s = Scenario::small().both_serving();
        let name = Name::new("new").expect("a name");
        s.manage(
            A,
            ManageOp::LunCreate {
                name,
                uuid: Uuid(4711),
                blocks: 4 * 4096,
                redundancy: Redundancy::None,
            },
        );
        s.until("A -> operator: Ok");
        s.manage(A, ManageOp::LunMove { name, to: A });
        s.until("A -> operator: Ok");
        s.fail_disk(Some(3));
        s.use_lun(2);
        s.written(A, 0, 256);
        s.written(A, 256, 128);
        the_partner_returns_though_a_missing_disk_hangs(&mut s);
        s.fail_disk(None);
        s.end();
    });
}

/// A disk that does not answer for a moment only is not given up, and has everything in the end.
#[test]
fn a_short_stall_is_forgiven() {
    let mut s = both();
    s.stall_disks(&[1]);
    let written = s.write_fua(A, 0, 8);
    s.pass(1_500);
    s.stall_disks(&[]);
    s.good(written);
    s.pass(1_000);
    assert_eq!(s.disk_state(A, 1), DiskState::Normal);
    s.fail_disk(Some(0));
    s.reads(A, 0, 8, written);
    s.fail_disk(None);
    s.end();
}

/// A disk that failed for less than a second, and works again when it is tried next, is not given up.
#[test]
fn short_errors_are_forgiven() {
    let mut s = both();
    s.fail_disk(Some(1));
    let written = s.write_fua(A, 0, 8);
    s.pass(800);
    s.fail_disk(None);
    s.good(written);
    s.pass(1_000);
    assert_eq!(s.disk_state(A, 1), DiskState::Normal);
    s.end();
}

/// The only disk takes no writes any more. It can be read, and is: hosts hear of errors only where they write.
#[test]
fn the_only_disk_takes_no_writes() {
    trace(&["who-takes-no-writes-is-not-read"], || {
        let mut s = both();
        s.use_lun(1);
        let old = s.write_fua(A, 8192, 64);
        s.good(old);
        s.pass(1_000);
        s.fail_writes(Some(2));
        let kept = s.written(A, 8704, 8);
        s.pass(5_000);
        // The disk is tried again now and then, and is left alone meanwhile.
        for n in 0..50 {
            let read = s.read(if n % 2 == 0 { A } else { B }, 8192 + n % 8 * 8, 8);
            s.pass(37);
            assert!(s.is_good(read), "{}", s.story());
        }
        s.reads(A, 8192, 64, old);
        s.reads(B, 8704, 8, kept);
        let refused = s.write_fua(A, 8192, 8);
        s.pass(1_000);
        assert!(s.is_write_error(refused));
        s.fail_writes(None);
        s.end();
    });
}

/// No disk with a copy answers for a moment: reads wait, those too that begin when it is known.
#[test]
fn reads_wait_out_a_short_stall_of_all_copies() {
    let mut s = both();
    let written = s.write_fua(A, 0, 8);
    s.good(written);
    s.pass(100);
    s.stall_disks(&[0, 1]);
    let early = s.read(A, 0, 8);
    let other = s.read(B, 0, 8);
    // One disk is overdue after a second, the other a second later.
    s.pass(2_300);
    let late = s.read(A, 0, 8);
    s.pass(200);
    s.stall_disks(&[]);
    for read in [early, other, late] {
        s.good(read);
        assert!(!s.is_read_error(read));
    }
    s.reads(A, 0, 8, written);
    s.end();
}

/// One copy cannot be read, and the disk with the other does not answer for a moment.
#[test]
fn a_read_that_failed_waits_for_the_other_copy() {
    let mut s = both();
    let written = s.write_fua(A, 0, 8);
    s.good(written);
    s.pass(100);
    s.stall_disks(&[1]);
    let hung = s.write_fua(A, 8, 8);
    s.pass(1_300);
    s.fail_disk(Some(0));
    let read = s.read(A, 0, 8);
    s.pass(200);
    s.stall_disks(&[]);
    s.good(read);
    s.fail_disk(None);
    s.good(hung);
    s.end();
}

/// One part of a read fails on both copies, which is soon over; the other hangs, and the read begins anew for that. Then all of it ends
/// well. A is alone: beside a partner it would look first whose fault it is.
#[test]
fn a_read_that_begins_anew_has_not_failed() {
    trace(&["an-error-outlives-its-reads"], || {
        let mut s = both();
        let written = s.write_fua(A, 4088, 16);
        s.good(written);
        s.crash(B);
        s.until_alone(A, false);
        s.stall_disks(&[0]);
        s.fail_disks(&[2, 3]);
        let read = s.read(A, 4088, 16);
        s.pass(5);
        s.fail_disks(&[]);
        s.good(read);
        s.reads(A, 4088, 16, written);
        s.stall_disks(&[]);
        s.start(B);
        s.end();
    });
}

/// A disk whose flushes fail, or hang, is given up like one whose writes do; only what it holds is written again.
#[test]
fn a_disk_that_makes_nothing_durable_goes_missing() {
    let mut s = both();
    s.fail_flushes(Some(1));
    let written = s.write_fua(A, 0, 8);
    s.good(written);
    assert_eq!(s.disk_state(A, 1), DiskState::Missing);
    s.power_loss();
    s.fail_flushes(None);
    s.start_when_down();
    s.until_both_serve();
    s.reads(A, 0, 8, written);
    s.end();
}

/// When most disks are in trouble at once it is not the disks: none is given up.
#[test]
fn all_disks_in_trouble_are_not_given_up() {
    let mut s = both();
    s.stall_disks(&[0, 1, 2, 3]);
    let writes = [0, 4096].map(|at| s.write_fua(A, at, 8));
    s.pass(6_500);
    s.stall_disks(&[]);
    for write in writes {
        s.good(write);
    }
    s.pass(2_000);
    for disk in 0..4 {
        assert_eq!(s.disk_state(A, disk), DiskState::Normal, "disk {disk}");
    }
    s.end();
}

/// A disk is gone while a controller is asked to stop: it is given up all the same, and the controller stops.
#[test]
fn a_disk_is_given_up_while_a_controller_stops() {
    for partner in [false, true] {
        let mut s = if partner { both() } else { Scenario::new().alone(A) };
        s.fail_disk(Some(0));
        let written = s.write(A, 0, 8);
        s.pass(5);
        s.manage(A, ManageOp::Stop);
        s.until("A exits, without its image");
        s.fail_disk(None);
        if !partner {
            s.start(A);
        }
        s.until(" serves");
        s.reads(if partner { B } else { A }, 0, 8, written);
        s.start(A);
        s.start(B);
        s.end();
    }
}

/// A flush fails, and the disk has lost what was to be flushed. What was written there after the flush had begun is lost, too,
/// and must be written again.
#[test]
fn a_failed_flush_takes_along_what_came_later() {
    trace(&["a-failed-flush-is-of-its-round"], || {
        for lun in 0..2 {
            let mut s = Scenario::new().both_serving();
            s.use_lun(lun);
            s.written(A, 0, 8);
            s.written(A, 512, 8);
            let sync = s.sync(A);
            s.good(sync);
            s.pass(1000);
            s.fail_flushes(Some(0));
            let (first, second) = (s.written(A, 0, 8), s.written(A, 512, 8));
            let sync = s.sync(A);
            s.until("A notes: DiskFailed");
            s.fail_flushes(None);
            s.good(sync);
            s.pass(3000);
            s.reads(A, 0, 8, first);
            s.reads(A, 512, 8, second);
            s.end();
        }
    });
}

/// Whatever a disk is asked for takes a second and a half: it is no more use than one that answers nothing, and is given up like that.
#[test]
fn a_disk_that_is_always_late_is_given_up() {
    trace(&["each-trouble-is-the-first"], || {
        let mut s = both();
        let slow = Fault::SlowDisk(1, 1_500, 100_000);
        s.fault(slow);
        let written = s.write_fua(A, 0, 8);
        s.pass(7_000);
        assert!(s.is_good(written), "{}", s.story());
        assert_eq!(s.disk_state(A, 1), DiskState::Missing);
        s.heal(slow);
        s.end();
    });
}

/// A part of a disk takes no writes, and all others end well: what has to be there is on the other copy.
#[test]
fn a_disk_of_which_a_part_is_broken_is_given_up() {
    trace(&["each-trouble-is-the-first"], || {
        let mut s = both();
        let broken = Fault::BadRegion(1, 0, 100_000);
        s.fault(broken);
        let written = s.write_fua(A, 0, 8);
        for n in 0..50 {
            s.pass(100);
            s.write(A, 512 + n * 8, 8);
        }
        assert!(s.is_good(written), "{}", s.story());
        s.heal(broken);
        s.end();
    });
}

/// New metadata cannot be made durable on a disk, and what it had taken before and not flushed is lost with that. A flush later ends
/// well, and says nothing of it.
#[test]
fn a_flush_that_fails_is_everybodys() {
    trace(&["only-its-own-flush-can-fail"], || {
        let mut s = both();
        s.stall_disks(&[1]);
        let written = s.written(A, 0, 8);
        s.until("A -> disk 0: write");
        s.pass(2);
        s.fail_flushes(Some(0));
        let [name, to] = ["lun1", "other"].map(|n| Name::new(n).expect("a name"));
        s.manage(A, ManageOp::LunRename { name, to });
        s.pass(5);
        s.fail_flushes(None);
        s.unstall_disk(1, 0);
        s.until("A -> operator: Ok");
        s.pass(500);
        s.reads(A, 0, 8, written);
        s.end();
    });
}

/// A disk takes a second and a half for whatever it is asked, and there is no other copy: its hosts wait, and all is done. If it takes five
/// seconds they hear of an error in the end, and wait no longer.
#[test]
fn the_only_disk_of_a_lun_is_always_late() {
    for (late, is_done) in [(1_500, true), (5_000, false)] {
        let mut s = both();
        s.use_lun(1);
        let slow = Fault::SlowDisk(2, late, 100_000);
        s.fault(slow);
        let write = s.write_fua(A, 8192, 8);
        s.use_lun(0);
        let other = s.write_fua(A, 0, 8);
        s.good(other);
        s.pass(9_000);
        assert_eq!(
            (s.is_good(write), s.is_write_error(write)),
            (is_done, !is_done),
            "{}",
            s.story()
        );
        s.heal(slow);
        s.end();
    }
}

/// A disk hangs while a large write waits for its share of NV memory, and another lies half there: what lies elsewhere goes on.
#[test]
fn who_waits_for_one_disk_holds_up_no_other() {
    let mut s = Scenario::small().both_serving();
    s.stall_disks(&[1]);
    for n in 0..48 {
        s.write(A, n * 16, 8);
    }
    s.pass(50);
    s.write(A, 1024, 256);
    s.write(A, 4080, 32);
    let elsewhere = s.write_fua(A, 5000, 8);
    s.pass(2_000);
    assert!(s.is_good(elsewhere), "{}", s.story());
    s.stall_disks(&[]);
    s.end();
}

/// One read in two is late, on a disk that has the only copy: the others say that it is worth waiting for.
#[test]
fn the_only_disk_of_a_lun_is_late_now_and_then() {
    trace(&["reads-in-time-are-nothing"], || {
        let mut s = both();
        s.use_lun(1);
        let slow = Fault::SlowDisk(2, 1_500, 1_600);
        for _ in 0..10 {
            s.fault(slow);
            let late = s.read(A, 8192, 8);
            s.pass(10);
            s.heal(slow);
            let read = s.read(A, 8200, 8);
            s.good(read);
            s.good(late);
        }
        s.end();
    });
}

/// Two disks of different pairs hang, one after the other, each with all under way that there may be. Each is given up, each LUN has a
/// good copy, and all goes on: writes, and reads of what is not in the cache.
#[test]
fn two_hung_disks_hold_neither_all_places_nor_all_memory() {
    trace(&["each-hung-disk-holds-as-much"], || {
        let mut s = Scenario::new().both_serving();
        let hung = [1, 3];
        for (n, first) in [0, 4096].into_iter().enumerate() {
            s.stall_disks(&hung[..=n]);
            let sent: Vec<_> = (0..30)
                .map(|k| {
                    let write = s.write_fua(A, first + k * 16, 8);
                    s.pass(1);
                    write
                })
                .collect();
            s.until_disk(A, hung[n], DiskState::Missing);
            sent.into_iter().for_each(|w| s.good(w));
            s.pass(1_000);
        }
        let last = s.write_fua(A, 0, 8);
        s.good(last);
        s.stall_disks(&[]);
        s.end();
    });
}

/// The same of reads.
#[test]
fn two_hung_disks_hold_not_all_transfer_buffers() {
    trace(&["each-hung-disk-holds-as-much"], || {
        let mut s = Scenario::new().both_serving();
        for start in (0..16).flat_map(|n| [n * 16, 4096 + n * 16]) {
            let write = s.write_fua(A, start, 8);
            s.good(write);
        }
        s.pass(100);
        let hung = [0, 3];
        for (n, first) in [0, 4096].into_iter().enumerate() {
            s.stall_disks(&hung[..=n]);
            (0..16).for_each(|k| _ = s.read(A, first + k * 16, 8));
            s.pass(1_500);
            let write = s.write_fua(A, first + 2048, 8);
            s.until_disk(A, hung[n], DiskState::Missing);
            s.good(write);
            s.pass(1_000);
        }
        let last = s.read(A, 0, 8);
        s.good(last);
        s.stall_disks(&[]);
        s.end();
    });
}

/// A disk hangs, and many writes for it come through B at once. What others want of B, from other disks, waits for nothing.
#[test]
fn a_burst_of_forwarded_writes_leaves_others_room() {
    trace(&["who-fetches-has-no-share"], || {
        let mut s = Scenario::new().both_serving();
        s.pass(1_000);
        s.stall_disks(&[2]);
        s.use_lun(1);
        (0..10).for_each(|n| _ = s.write_fua(B, 8192 + n * 8, 8));
        s.pass(50);
        s.use_lun(0);
        let others = [s.read(B, 0, 8), s.write(B, 64, 8)];
        s.pass(200);
        assert!(others.iter().all(|o| s.is_good(*o)), "{}", s.story());
        s.stall_disks(&[]);
        s.end();
    });
}

/// A disk hangs with a large batch on its way, in a small NV memory: the largest write there is fits all the same.
#[test]
fn a_hung_batch_leaves_room_for_the_largest_write() {
    trace(&["a-batch-takes-what-is-left"], || {
        let mut s = Scenario::small().both_serving();
        s.stall_disks(&[0]);
        s.write(A, 0, 256);
        s.pass(12_000);
        let large = s.write(A, 4099, 256);
        s.pass(100);
        let small = s.write(A, 4096 + 1024, 8);
        s.pass(1_000);
        assert!(s.is_good(large) && s.is_good(small), "{}", s.story());
        s.stall_disks(&[]);
        s.end();
    });
}

/// Both disks of a pair die, one after the other: the second has the last copy, and is not given up, however often that is asked.
/// Then another disk dies, whose partner has all that it has: it is given up all the same.
#[test]
fn a_disk_is_given_up_beside_one_that_cannot_be() {
    trace(&["a-last-copy-hides-other-disks"], || {
        let mut s = Scenario::eight_disks().both_serving();
        s.stall_disks(&[2]);
        let written = s.write_fua(A, 0, 8);
        s.good(written);
        assert_eq!(s.disk_state(A, 2), DiskState::Missing);
        s.pass(2_000);
        s.stall_disks(&[2, 0]);
        s.write_fua(A, 0, 8);
        s.pass(10_000);
        s.mark();
        s.stall_disks(&[2, 0, 5]);
        let before = s.now();
        let written = s.write_fua(A, 8192, 8);
        s.good(written);
        assert!(s.now() - before < 8_000, "the host waited {} ms", s.now() - before);
        assert_eq!(s.disk_state(A, 5), DiskState::Missing);
        assert_eq!(s.disk_state(A, 0), DiskState::Normal);
        s.stall_disks(&[]);
        s.end();
    });
}
