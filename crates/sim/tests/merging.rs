//! A disk that was given up comes back: it is made level, and is a full copy again. Whatever happens meanwhile, what is read
//! is right, with either disk of the pair alone.
//!
//! LUN 0 is mirrored, its first RStore on disks 0 and 1, the second on 2 and 3, the third on 0 and 1. LUN 1 has one copy: its
//! first RStore is on disk 0, the second on disk 1, the third on disk 2.

mod disk_away;

use disk_away::{ends_level, move_lun_0, without_disk};
use twincell_core::ids::Controller::{A, B};
use twincell_core::ids::{DiskIndex, Uuid};
use twincell_core::layout::metadata::DiskState::{Merging, Missing, Normal};
use twincell_core::layout::metadata::Name;
use twincell_core::manage::ManageOp;
use twincell_sim::fault::{Fault, Point};
use twincell_sim::{Scenario, trace};

/// A disk fails for some seconds. What was written meanwhile is on it in the end, what is written while it is made level, too,
/// and the other disk may go.
#[test]
fn a_disk_comes_back() {
    trace(
        &["a-merging-disk-gets-no-writes", "normal-before-the-last-piece"],
        || {
            let (mut s, _) = without_disk(1);
            let before = s.write_fua(A, 3840, 256);
            s.good(before);
            s.fail_disk(None);
            s.until_disk(A, 1, Merging);
            s.until("A -> disk 1: write 16640+256");
            let during = s.write_fua(B, 0, 256);
            s.good(during);
            ends_level(s, 1, &[(3840, 256, before), (0, 256, during)]);
        },
    );
}

/// What a disk had when it was given up is not read while it is made level.
#[test]
fn a_merging_disk_is_not_read() {
    trace(&["a-merging-disk-is-read"], || {
        let (mut s, _) = without_disk(0);
        let newer = s.write_fua(A, 0, 256);
        s.good(newer);
        s.pass(100);
        s.fail_disk(None);
        s.disk_writes_take(300);
        s.until_disk(A, 0, Merging);
        s.reads(A, 0, 256, newer);
        s.disk_writes_take(0);
        ends_level(s, 0, &[(0, 256, newer)]);
    });
}

/// A host writes while a piece with the old data is on its way to the disk: the new data go there after it.
#[test]
fn data_wait_for_the_piece_that_is_copied() {
    trace(&["disk-writes-under-a-merge"], || {
        let (mut s, _) = without_disk(1);
        s.fail_disk(None);
        s.disk_writes_take(100);
        s.until("A -> disk 1: write 16384+256");
        s.disk_writes_take(0);
        let newer = s.write_fua(A, 0, 8);
        s.good(newer);
        ends_level(s, 1, &[(0, 8, newer)]);
    });
}

/// Data that began to go to disk when only one disk took them are not there yet when the piece with them is to be read.
#[test]
fn a_piece_waits_for_data_on_their_way_to_disk() {
    trace(&["merge-under-a-disk-write"], || {
        let (mut s, _) = without_disk(1);
        s.fail_disk(None);
        s.disk_writes_take(3_000);
        let newer = s.write_fua(A, 0, 8);
        s.until("A -> disk 0: write 16384+8");
        s.disk_writes_take(0);
        s.until_disk(A, 1, Merging);
        s.good(newer);
        ends_level(s, 1, &[(0, 8, newer)]);
    });
}

/// The shelf loses power when the disk has just become Normal.
#[test]
fn a_disk_is_normal_only_when_all_is_there_for_good() {
    trace(&["merge-without-a-flush"], || {
        let (mut s, first) = without_disk(1);
        let newer = s.write_fua(A, 3840, 256);
        s.good(newer);
        s.pass(100);
        s.fail_disk(None);
        s.until_disk(A, 1, Normal);
        s.power_loss();
        s.start_when_down();
        s.until_both_serve();
        ends_level(s, 1, &[(0, 256, first), (3840, 256, newer)]);
    });
}

/// The controller that decides owns nothing of what lies on the disk: it asks the other.
#[test]
fn both_say_when_a_disk_is_level() {
    trace(&["nobody-asks-whether-all-is-level"], || {
        let (mut s, _) = without_disk(1);
        move_lun_0(&mut s, B);
        s.pass(100);
        assert_eq!(s.owner(), B);
        let newer = s.write_fua(A, 0, 256);
        s.good(newer);
        s.fail_disk(None);
        s.until_disk(A, 1, Merging);
        s.disk_writes_take(100);
        s.until_disk(A, 1, Normal);
        s.disk_writes_take(0);
        ends_level(s, 1, &[(0, 256, newer)]);
    });
}

/// B's write hangs on a disk that does not vote, so that nothing else does, and its data go to the other copy. The LUN moves to A. When the disk answers again, the write
/// of B is still on its way.
#[test]
fn both_say_when_nothing_is_on_its_way_any_more() {
    trace(&["nobody-asks-the-partner-of-disks"], || {
        let mut s = Scenario::new().both_serving();
        move_lun_0(&mut s, B);
        s.pass(100);
        s.stall_disks(&[3]);
        let old = s.write_fua(B, 4096, 8);
        s.good(old);
        s.until_disk(A, 3, Missing);
        s.until_disk(B, 3, Missing);
        move_lun_0(&mut s, A);
        s.pass(200);
        assert_eq!(s.owner(), A);
        let newer = s.write_fua(A, 4096, 8);
        s.good(newer);
        s.unstall_disk(3, 9_000);
        s.pass(8_000);
        ends_level(s, 3, &[(4096, 8, newer)]);
    });
}

/// A piece is on its way to the disk while its LUN is moved: the next owner must not be overtaken by it.
#[test]
fn a_lun_moves_after_the_piece_that_is_copied() {
    trace(&["move-under-a-merge"], || {
        let (mut s, _) = without_disk(1);
        s.fail_disk(None);
        s.disk_writes_take(3_000);
        s.until("A -> disk 1: write 16384+256");
        s.disk_writes_take(0);
        s.pass(50);
        move_lun_0(&mut s, B);
        s.pass(500);
        let newer = s.write_fua(B, 0, 8);
        s.retries(newer);
        s.good(newer);
        s.pass(3_000);
        assert_eq!(s.owner(), B);
        ends_level(s, 1, &[(0, 8, newer)]);
    });
}

/// A controller, or both, end in the middle of the copying: it is done all the same.
#[test]
fn a_controller_ends_while_a_disk_is_made_level() {
    let copy = Point::DiskCopy;
    for fault in [
        Fault::CrashBefore(A, copy),
        Fault::CrashBothAround(A, copy, 100),
        Fault::CrashBefore(A, Point::MetadataWrite),
    ] {
        let (mut s, first) = without_disk(1);
        let newer = s.write_fua(A, 3840, 256);
        s.good(newer);
        s.start_when_down();
        s.fail_disk(None);
        s.fault(fault);
        s.until("A starts");
        s.until_both_serve();
        ends_level(s, 1, &[(0, 256, first), (3840, 256, newer)]);
    }
}

/// The LUN is B's, and B ends: A takes it over, and copies it from its beginning.
#[test]
fn the_survivor_copies_what_the_other_had_begun() {
    let (mut s, first) = without_disk(1);
    move_lun_0(&mut s, B);
    s.pass(100);
    s.fail_disk(None);
    s.fault(Fault::CrashBefore(B, Point::DiskCopy));
    s.until_alone(A, false);
    s.until_disk(A, 1, Normal);
    s.start(B);
    s.until_both_serve();
    ends_level(s, 1, &[(0, 256, first)]);
}

/// The disk fails again while it is made level, and comes back again. It is left alone for longer each time.
#[test]
fn a_disk_fails_again_while_it_is_made_level() {
    let (mut s, first) = without_disk(1);
    for _ in 0..3 {
        s.fail_disk(None);
        s.disk_writes_take(300);
        s.until_disk(A, 1, Merging);
        s.disk_writes_take(0);
        s.fail_disk(Some(1));
        s.until_disk(A, 1, Missing);
    }
    let failed = s.now();
    s.fail_disk(None);
    s.until_disk(A, 1, Merging);
    assert!(
        s.now() - failed >= 3_900,
        "it was left alone for {} ms",
        s.now() - failed
    );
    ends_level(s, 1, &[(0, 256, first)]);
}

/// The disk stalls with a piece on its way: hosts go on once it is given up, and the piece spoils nothing when it lands.
#[test]
fn a_disk_stalls_while_it_is_made_level() {
    let (mut s, _) = without_disk(1);
    s.fail_disk(None);
    s.disk_writes_take(100);
    s.until("A -> disk 1: write 16384+256");
    s.disk_writes_take(0);
    s.stall_disks(&[1]);
    let before = s.now();
    let newer = s.write_fua(A, 0, 8);
    s.good(newer);
    assert!(s.now() - before < 5_000, "the host waited {} ms", s.now() - before);
    s.until_disk(A, 1, Missing);
    s.unstall_disk(1, 2_000);
    ends_level(s, 1, &[(0, 8, newer)]);
}

/// Something cannot be read from the only copy: the disk does not become Normal until it is written anew.
#[test]
fn what_cannot_be_read_keeps_a_disk_merging() {
    let (mut s, _) = without_disk(1);
    s.spoil(0, 100, 8);
    s.fail_disk(None);
    s.until_disk(A, 1, Merging);
    s.pass(10_000);
    assert_eq!(s.disk_state(A, 1), Merging);
    let newer = s.write_fua(A, 96, 16);
    s.good(newer);
    ends_level(s, 1, &[(96, 16, newer)]);
}

/// A LUN without redundancy works again as soon as its disk answers.
#[test]
fn what_has_one_copy_works_again_with_its_disk() {
    let mut s = Scenario::new().both_serving();
    s.use_lun(1);
    let kept = s.write_fua(A, 0, 8);
    s.good(kept);
    s.stall_disks(&[0]);
    s.use_lun(0);
    let written = s.write_fua(A, 0, 8);
    s.good(written);
    s.until_disk(A, 0, Missing);
    s.stall_disks(&[]);
    s.use_lun(1);
    s.pass(100);
    s.reads(A, 0, 8, kept);
    s.use_lun(0);
    ends_level(s, 0, &[(0, 8, written)]);
}

/// Alone a controller makes a disk level by itself.
#[test]
fn a_disk_comes_back_to_a_controller_alone() {
    let (mut s, first) = without_disk(1);
    s.crash(B);
    s.until_alone(A, true);
    s.fail_disk(None);
    s.until_disk(A, 1, Normal);
    s.start(B);
    s.until_both_serve();
    ends_level(s, 1, &[(0, 256, first)]);
}

/// It is there again when both controllers start.
#[test]
fn a_disk_is_back_at_the_start() {
    let (mut s, first) = without_disk(1);
    s.crash(A);
    s.crash(B);
    s.fail_disk(None);
    s.start(A);
    s.start(B);
    s.until_both_serve();
    ends_level(s, 1, &[(0, 256, first)]);
}

/// A disk is gone for good; an empty one takes its place, and becomes a full copy.
#[test]
fn an_empty_disk_takes_the_place_of_one_that_is_gone() {
    let mut s = Scenario::new().both_serving();
    let first = s.write_fua(A, 4096, 256);
    s.good(first);
    s.fail_disk(Some(3));
    let newer = s.write_fua(A, 4096, 8);
    s.good(newer);
    s.until_disk(A, 3, Missing);
    s.until_disk(B, 3, Missing);
    s.pass(1_000);
    s.fail_disk(None);
    s.replace_disk(B, 3);
    ends_level(s, 3, &[(4096, 8, newer), (4104, 248, first)]);
}

/// What has its only copy on a disk would be lost with it; and a disk that is in order is not replaced.
#[test]
fn a_disk_with_the_only_copy_of_something_is_not_replaced() {
    let (mut s, _) = without_disk(1);
    s.replace_disk(A, 1);
    s.until("A -> operator: Err(LastCopy)");
    let (disk, uuid, psegs) = (DiskIndex(3), Uuid(9), 16);
    s.manage(A, ManageOp::DiskReplace { disk, uuid, psegs });
    s.until("A -> operator: Err(DiskNotReady)");
    let name = Name::new("lun1").expect("a name");
    s.manage(A, ManageOp::LunDelete { name });
    s.until("A -> operator: Ok");
    let (disk, psegs) = (DiskIndex(1), 1);
    s.manage(A, ManageOp::DiskReplace { disk, uuid, psegs });
    s.until("A -> operator: Err(PoolFull");
    s.replace_disk(A, 1);
    s.until("A -> operator: Ok");
    s.fail_disk(None);
    ends_level(s, 1, &[]);
}

/// A disk that votes is replaced by an empty one. What was decided on the old one and on another only must not be forgotten: the
/// empty one counts for nothing until both have written their slots there.
#[test]
fn an_empty_disk_does_not_vote() {
    trace(&["an-empty-disk-votes"], || {
        let (mut s, _) = without_disk(1);
        let name = Name::new("lun1").expect("a name");
        s.manage(A, ManageOp::LunDelete { name });
        s.until("A -> operator: Ok");
        s.crash(B);
        s.until_alone(A, true);
        // What was decided until now is on disks 0 and 2.
        s.fail_disk(None);
        s.replace_disk(A, 1);
        s.until("A -> operator: Ok");
        s.pass(100);
        // Disk 0 does not answer: disk 2 alone is no majority, and the empty one has no slot of B.
        s.fail_disk(Some(0));
        s.pass(5_000);
        let written = s.write(A, 4096, 8);
        s.pass(1_000);
        assert!(!s.is_good(written), "without a majority");
        s.fail_disk(None);
        s.start(B);
        s.until_both_serve();
        ends_level(s, 1, &[]);
    });
}
