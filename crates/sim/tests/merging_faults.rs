//! Faults while a disk comes back, or another takes its place: attempts to break the promise of `merging.rs`.

mod disk_away;

use disk_away::{ends_level, move_lun_0, without_disk};
use twincell_core::ids::Controller::{A, B};
use twincell_core::ids::{DiskIndex, Uuid};
use twincell_core::layout::metadata::DiskState::{Merging, Missing, Normal};
use twincell_core::layout::metadata::{Name, Redundancy};
use twincell_core::manage::ManageOp;
use twincell_sim::fault::Fault;
use twincell_sim::{Scenario, Sent, trace};

/// A LUN goes to the partner, which writes to it, while the read of a piece of it takes so many milliseconds.
fn moved_while_a_piece_is_read(ms: u64) -> (Scenario, Sent) {
    let (mut s, _) = without_disk(1);
    s.fail_disk(None);
    s.disk_reads_take(ms);
    s.until("A -> disk 0: read 16384+256");
    s.disk_reads_take(0);
    s.until_disk(B, 1, Merging);
    s.pass(50);
    move_lun_0(&mut s, B);
    s.until("A -> operator: Ok");
    s.pass(20);
    assert_eq!(s.owner(), B);
    let newer = s.write_fua(B, 0, 8);
    s.good(newer);
    (s, newer)
}

/// The read of a piece takes long; its LUN goes to the partner and comes back meanwhile. What the piece has read is old by then.
#[test]
fn a_lun_moves_away_and_back_while_a_piece_is_read() {
    let (mut s, newer) = moved_while_a_piece_is_read(700);
    s.pass(50);
    move_lun_0(&mut s, A);
    s.until("A -> operator: Ok");
    assert_eq!(s.owner(), A);
    ends_level(s, 1, &[(0, 8, newer)]);
}

/// The same, and the partner ends instead.
#[test]
fn a_lun_moves_away_and_its_new_owner_ends_while_a_piece_is_read() {
    let (mut s, newer) = moved_while_a_piece_is_read(950);
    s.pass(20);
    s.crash(B);
    s.until_alone(A, true);
    s.start(B);
    s.until_both_serve();
    ends_level(s, 1, &[(0, 8, newer)]);
}

/// The new voter does not answer just when both announce themselves there. It works ever after; then another voter dies.
#[test]
fn a_replaced_voter_votes_though_the_announcements_failed() {
    let (mut s, _) = without_disk(1);
    let name = Name::new("lun1").expect("a name");
    s.manage(A, ManageOp::LunDelete { name });
    s.until("A -> operator: Ok");
    s.replace_disk(A, 1);
    // The new medium fails for a moment.
    s.fail_disk(Some(1));
    s.until("A -> operator: Ok");
    s.pass(1_000);
    s.fail_disk(None);
    s.until_disk(A, 1, Normal);
    s.until_disk(B, 1, Normal);
    s.pass(10_000);
    s.fail_disk(Some(2));
    let written = s.write_fua(A, 4096, 8);
    s.good(written);
    s.fail_disk(None);
    s.end();
}

/// The same without that failure: what goes wrong is the lost announcement.
#[test]
fn a_replaced_voter_votes() {
    let (mut s, _) = without_disk(1);
    let name = Name::new("lun1").expect("a name");
    s.manage(A, ManageOp::LunDelete { name });
    s.until("A -> operator: Ok");
    s.fail_disk(None);
    s.replace_disk(A, 1);
    s.until("A -> operator: Ok");
    s.until_disk(A, 1, Normal);
    s.until_disk(B, 1, Normal);
    s.pass(10_000);
    s.fail_disk(Some(2));
    let written = s.write_fua(A, 4096, 8);
    s.good(written);
    s.fail_disk(None);
    s.end();
}

/// While a disk is made level the other one dies. The LUN suffers, but nobody is kept from stopping.
#[test]
fn stopping_when_the_last_copy_of_a_merging_pair_dies() {
    let (mut s, _) = without_disk(3);
    s.spoil(2, 100, 8);
    s.fail_disk(None);
    s.until_disk(A, 3, Merging);
    s.until_disk(B, 3, Merging);
    s.fail_disk(Some(2));
    let kept = s.write(A, 4096 + 800, 8);
    s.pass(10_000);
    let _ = s.is_good(kept);
    s.manage(A, ManageOp::Stop);
    s.until("A -> operator: Ok");
}

/// The same with the disk missing.
#[test]
fn stopping_when_the_last_copy_of_a_pair_dies() {
    let (mut s, _) = without_disk(3);
    s.fail_disks(&[2, 3]);
    let kept = s.write(A, 4096 + 800, 8);
    s.pass(10_000);
    let _ = s.is_good(kept);
    s.manage(A, ManageOp::Stop);
    s.until("A -> operator: Ok");
}

/// A LUN is quiesced when its turn comes to be copied, and its deletion fails.
#[test]
fn a_deletion_fails_when_the_lun_is_next_to_be_copied() {
    let mut s = Scenario::new().both_serving();
    let name = Name::new("lun2").expect("a name");
    s.manage(
        A,
        ManageOp::LunCreate {
            name,
            uuid: Uuid(4711),
            blocks: 3 * 4096,
            redundancy: Redundancy::Vraid1,
        },
    );
    s.until("A -> operator: Ok");
    s.manage(A, ManageOp::LunMove { name, to: A });
    s.pass(200);
    s.fail_disk(Some(3));
    let written = s.write_fua(A, 4096, 8);
    s.good(written);
    s.until_disk(A, 3, Missing);
    s.until_disk(B, 3, Missing);
    s.fail_disk(None);
    s.disk_writes_take(20);
    s.until_disk(A, 3, Merging);
    s.until_disk(B, 3, Merging);
    s.pass(50);
    s.mark();
    s.stall_disks(&[0, 1]);
    s.manage(A, ManageOp::LunDelete { name });
    s.until("A -> operator: Err(DiskError)");
    s.stall_disks(&[]);
    s.disk_writes_take(0);
    ends_level(s, 3, &[(4096, 8, written)]);
}

/// A voter is replaced, and a controller ends, or both do, at any moment after that, or the link is cut. In the end the new one
/// votes: another voter may go.
#[test]
fn a_voter_is_replaced_and_controllers_end_at_any_moment() {
    let mut worst = Vec::new();
    for what in 0..5 {
        for ms in (0..60).step_by(3).chain((60..2600).step_by(130)) {
            let run = move || {
                let (mut s, first) = without_disk(1);
                let name = Name::new("lun1").expect("a name");
                s.manage(A, ManageOp::LunDelete { name });
                s.until("A -> operator: Ok");
                s.start_when_down();
                s.fail_disk(None);
                s.replace_disk(A, 1);
                s.pass(ms);
                match what {
                    0 => s.crash(A),
                    1 => s.crash(B),
                    2 => {
                        s.crash(A);
                        s.crash(B);
                    }
                    3 => s.fault(Fault::CutLink(300)),
                    _ => s.fault(Fault::PowerLoss),
                }
                // Whoever was asked may have ended before it was done.
                s.pass(1);
                s.until_both_serve();
                s.pass(500);
                if s.disk_state(A, 1) == Missing {
                    let (disk, uuid, psegs) = (DiskIndex(1), Uuid(501), 16);
                    s.manage(A, ManageOp::DiskReplace { disk, uuid, psegs });
                }
                s.until_disk(A, 1, Normal);
                s.until_disk(B, 1, Normal);
                s.pass(2_000);
                s.fail_disk(Some(0));
                let written = s.write_fua(A, 0, 8);
                s.retries(written);
                s.good(written);
                s.until_disk(A, 0, Missing);
                s.reads(A, 8, 248, first);
                s.reads(B, 8, 248, first);
                s.fail_disk(None);
                s.end();
            };
            if std::panic::catch_unwind(run).is_err() {
                worst.push((what, ms));
            }
        }
    }
    assert!(worst.is_empty(), "{worst:?}");
}

/// Both end in the middle of the copying; when they start the other disk of the pair is gone for a while, and the one that was
/// merging is there. Nothing old is read.
#[test]
fn the_other_disk_is_missing_when_both_start() {
    for ms in [0, 5, 12, 20, 28, 36] {
        let (mut s, _) = without_disk(1);
        let newer = s.write_fua(A, 0, 256);
        s.good(newer);
        s.fail_disk(None);
        s.until_disk(A, 1, Merging);
        s.pass(ms);
        s.crash(A);
        s.crash(B);
        s.fail_disk(Some(0));
        s.start(A);
        s.start(B);
        s.until_both_serve();
        let read = s.read(A, 0, 256);
        let more = s.write(B, 0, 8);
        s.pass(8_000);
        assert!(
            !s.is_good(read) || s.disk_state(A, 1) == Normal,
            "what is good is on the disk that is away"
        );
        s.fail_disk(None);
        s.retries(more);
        s.pass(1_000);
        ends_level(s, 1, &[(8, 248, newer)]);
    }
}

/// A disk on which these blocks have a copy fails for as long as it takes to be given up.
fn fails_for_a_moment(s: &mut Scenario, disk: usize, start: u64, blocks: u32) -> Sent {
    s.fail_disk(Some(disk));
    let written = s.write_fua(A, start, blocks);
    s.good(written);
    s.until_disk(A, disk, Missing);
    s.fail_disk(None);
    written
}

/// A LUN is deleted and made anew, or grows, while its disk is made level.
#[test]
fn luns_are_deleted_made_and_grow_while_a_disk_is_made_level() {
    for ms in [0, 3, 7, 15, 25, 40, 60, 90] {
        let mut s = Scenario::new().both_serving();
        let name = Name::new("lun2").expect("a name");
        let create = ManageOp::LunCreate {
            name,
            uuid: Uuid(4711),
            blocks: 3 * 4096,
            redundancy: Redundancy::Vraid1,
        };
        s.manage(A, create);
        s.until("A -> operator: Ok");
        let written = fails_for_a_moment(&mut s, 1, 0, 256);
        s.until_disk(A, 1, Merging);
        s.disk_writes_take(ms % 4);
        s.pass(ms);
        s.manage(A, ManageOp::LunDelete { name });
        s.pass(400);
        s.manage(A, create);
        s.pass(5);
        s.manage(
            A,
            ManageOp::LunGrow {
                name: Name::new("lun0").expect("a name"),
                blocks: 4 * 4096,
            },
        );
        s.pass(300);
        s.disk_writes_take(0);
        ends_level(s, 1, &[(0, 256, written)]);
    }
}

/// The partner joins while a disk is made level, or is about to be.
#[test]
fn the_partner_joins_at_any_moment() {
    for ms in (0..1500).step_by(37) {
        let (mut s, first) = without_disk(1);
        s.crash(B);
        s.until_alone(A, true);
        let newer = s.write_fua(A, 0, 8);
        s.good(newer);
        s.fail_disk(None);
        s.disk_writes_take(ms % 5);
        s.pass(ms);
        s.start(B);
        s.until_both_serve();
        s.disk_writes_take(0);
        let last = s.write_fua(B, 8, 8);
        s.good(last);
        ends_level(s, 1, &[(0, 8, newer), (8, 8, last), (16, 240, first)]);
    }
}

/// The owner ends at any moment of the copying, with slow writes on their way; the partner goes on, and then it ends, too.
#[test]
fn owners_end_one_after_the_other() {
    for ms in (0..120).step_by(7) {
        for slow in [0, 40, 400] {
            let (mut s, first) = without_disk(1);
            s.start_when_down();
            s.fail_disk(None);
            s.until_disk(A, 1, Merging);
            s.disk_writes_take(slow);
            s.pass(ms);
            let newer = s.write(A, 0, 8);
            s.retries(newer);
            s.pass(2);
            s.crash(A);
            s.disk_writes_take(0);
            s.good(newer);
            s.until_both_serve();
            s.crash(B);
            s.pass(ms);
            s.crash(A);
            s.until_both_serve();
            ends_level(s, 1, &[(0, 8, newer), (8, 248, first)]);
        }
    }
}

/// Any voter is replaced, with both in or with one alone; a controller ends at a line of the story; then another voter goes.
#[test]
fn any_voter_is_replaced_and_a_controller_ends_at_a_line() {
    let lines = [
        "metadata 0",
        "metadata 1",
        "votes for",
        "record is",
        "probe",
        "slot",
        "flush",
        "read 16384+256",
        "Serve",
    ];
    let mut worst = Vec::new();
    for disk in 0..3 {
        for (n, line) in lines.iter().enumerate() {
            for who in [A, B] {
                for alone in [false, true] {
                    let line = *line;
                    if alone && who == B && line == "probe" {
                        // B would end under the last read, which is not tried again.
                        continue;
                    }
                    let run = move || {
                        let (mut s, first) = without_disk(disk);
                        s.pass(300);
                        let name = Name::new("lun1").expect("a name");
                        s.manage(A, ManageOp::LunDelete { name });
                        s.until("A -> operator: Ok");
                        if alone {
                            s.crash(B);
                            s.until_alone(A, true);
                        }
                        s.fail_disk(None);
                        s.crash_at(who, line);
                        s.replace_disk(A, disk);
                        s.pass(700);
                        s.start_when_down();
                        s.until_both_serve();
                        s.pass(2_000);
                        s.until_both_serve();
                        if s.disk_state(A, disk) == Missing {
                            let (disk, uuid, psegs) = (DiskIndex(disk as u16), Uuid(500 + disk as u128), 16);
                            s.manage(A, ManageOp::DiskReplace { disk, uuid, psegs });
                        }
                        s.until_disk(A, disk, Normal);
                        s.until_both_serve();
                        s.until_disk(B, disk, Normal);
                        s.pass(2_000);
                        let other = (disk + 1) % 3;
                        s.fail_disk(Some(other));
                        let written = s.write_fua(A, 0, 8);
                        s.retries(written);
                        s.good(written);
                        let second = s.write_fua(A, 4096, 8);
                        s.retries(second);
                        s.good(second);
                        s.reads(A, 8, 248, first);
                        s.reads(B, 8, 248, first);
                        s.fail_disk(None);
                        s.end();
                    };
                    if std::panic::catch_unwind(run).is_err() {
                        worst.push((disk, n, who, alone));
                    }
                }
            }
        }
    }
    assert!(worst.is_empty(), "{worst:?}");
}

/// The first piece of a LUN is on its way to a disk when a flush of that disk, for something else, is overdue, and then fails: the
/// piece may be lost with it.
#[test]
fn the_first_piece_is_lost_with_a_flush_that_is_late_and_fails() {
    trace(&["a-lost-first-piece-counts"], || {
        let (mut s, _) = without_disk(1);
        let newer = s.write_fua(A, 0, 256);
        s.good(newer);
        s.disk_reads_take(300);
        s.fail_disk(None);
        s.until("A -> disk 0: read 16384+256");
        s.disk_reads_take(0);
        let small = s.write_fua(A, 4000, 8);
        s.until("A -> disk 1: write");
        s.fault(Fault::SlowDisk(1, 1_600, 9_000));
        s.until("A -> disk 1: flush");
        s.heal(Fault::SlowDisk(1, 1_600, 9_000));
        // It lands after the flush is overdue, and before that ends.
        s.disk_writes_take(1_000);
        s.until("A -> disk 1: write 16384+256");
        s.disk_writes_take(0);
        s.until("overdue");
        s.fail_flushes(Some(1));
        s.until("A <- disk: error");
        s.fail_flushes(None);
        s.good(small);
        assert_eq!(s.disk_state(A, 1), Merging);
        ends_level(s, 1, &[(0, 256, newer), (4000, 8, small)]);
    });
}

/// A block of disk 0 cannot be read, and disk 1 has to be made level from there. LUN 1 lies elsewhere.
fn with_a_bad_block() -> (Scenario, Sent) {
    let (mut s, first) = without_disk(1);
    s.spoil(0, 16, 8);
    s.fail_disk(None);
    (s, first)
}

/// All else is copied, and disk 1 is no full copy. Disk 3, which failed only for a moment, need not wait for it. Once hosts have
/// written the block anew disk 1 is level, too.
#[test]
fn a_bad_block_keeps_no_other_disk_out() {
    let mutants = [
        "a-bad-block-holds-all",
        "what-cannot-be-read-is-level",
        "a-disk-that-lacks-keeps-others-out",
    ];
    trace(&mutants, || {
        for owner in [A, B] {
            let (mut s, first) = with_a_bad_block();
            move_lun_0(&mut s, owner);
            s.until("A -> operator: Ok");
            s.until_disk(A, 1, Merging);
            s.pass(10_000);
            assert_eq!(s.disk_state(A, 1), Merging, "it lacks a piece");
            let written = fails_for_a_moment(&mut s, 3, 4096, 8);
            s.until_disk(A, 3, Normal);
            assert_ne!(s.disk_state(A, 1), Normal, "it lacks a piece");
            let anew = s.write_fua(A, 16, 8);
            s.good(anew);
            ends_level(
                s,
                1,
                &[(0, 16, first), (16, 8, anew), (24, 232, first), (4096, 8, written)],
            );
        }
    });
}

/// The disk takes ten seconds to say that it cannot read the block, and hosts do not get it meanwhile. It is not tried again soon.
#[test]
fn a_block_that_is_tried_for_long_holds_up_hosts_once() {
    trace(&["a-bad-block-holds-all", "a-bad-block-is-tried-at-once"], || {
        let (mut s, _) = with_a_bad_block();
        s.bad_blocks_take(10_000);
        s.until_disk(A, 1, Merging);
        s.pass(15_000);
        for n in 0..100 {
            let write = s.write_fua(A, 1024 + n * 8, 8);
            let read = s.read(A, 2048 + n * 8, 8);
            s.pass(500);
            assert!(s.is_good(write) && s.is_good(read), "after {} ms", n * 500);
        }
        let anew = s.write_fua(A, 16, 8);
        s.good(anew);
        s.pass(30_000);
        ends_level(s, 1, &[(16, 8, anew)]);
    });
}

/// Data wait in a round of flushes for a slow disk, which loses them to a flush that somebody else has asked for. A piece takes what is
/// left there to the disk that is made level; the slow one is given up, and the round ends well.
#[test]
fn what_a_failed_flush_has_left_is_no_copy() {
    trace(&["a-round-keeps-what-is-lost"], || {
        let (mut s, _) = without_disk(1);
        s.hosts_are_patient();
        s.disk_reads_take(300);
        s.fail_disk(None);
        s.until_disk(A, 1, Merging);
        // Disk 0 is slow, and known to be.
        s.writes_are_late(0, 1_200);
        s.write_fua(A, 3_800, 8);
        s.until("overdue");
        s.writes_are_late(0, 0);
        s.pass(400);
        s.mark();
        s.flushes_are_late(0, 6_000);
        let written = s.written(A, 2_048, 8);
        s.until("A -> disk 0: write 18432+8");
        s.until("A -> disk 0: flush");
        s.pass(3);
        s.fail_flushes(Some(0));
        let [name, to] = ["lun1", "other"].map(|n| Name::new(n).expect("a name"));
        s.manage(A, ManageOp::LunRename { name, to });
        s.until("A <- disk 0: a flush failed");
        s.pass(1);
        s.fail_flushes(None);
        s.disk_reads_take(0);
        s.pass(9_000);
        s.reads(A, 2_048, 8, written);
        s.flushes_are_late(0, 0);
        s.end();
    });
}

/// A flush of copies fails after its disk was given up. What has its only copy there is lost with it, and is written again.
#[test]
fn only_copies_are_lost_with_a_flush_of_copies() {
    trace(&["no-copy-is-lost-with-a-missing-disk"], || {
        let (mut s, _) = without_disk(2);
        s.hosts_are_patient();
        s.use_lun(1);
        s.fail_disk(None);
        s.until("A -> disk 2: write 20224+256");
        s.mark();
        s.flushes_are_late(2, 1_300);
        s.until("A -> disk 2: flush");
        let flushed = s.now();
        // What is written now is flushed after a round that waits for another disk.
        s.flushes_are_late(0, 960);
        s.write_fua(A, 0, 8);
        s.until("A -> disk 0: flush");
        let kept = s.written(A, 8_192, 8);
        s.pass(10);
        s.fail_writes(Some(2));
        s.use_lun(0);
        while s.disk_state(A, 2) != Missing {
            s.write_fua(A, 4_096 + 512, 8);
            s.pass(20);
        }
        s.fail_writes(None);
        s.flushes_are_late(2, 950);
        s.pass(flushed + 1_200 - s.now());
        s.fail_flushes(Some(2));
        s.pass(200);
        s.fail_flushes(None);
        s.flushes_are_late(2, 0);
        s.pass(3_000);
        s.use_lun(1);
        s.reads(A, 8_192, 8, kept);
        s.end();
    });
}

/// B does not see a disk, for ever, and refuses each time that it comes back. Another one that has failed for a while comes back all the
/// same.
#[test]
fn a_disk_that_one_does_not_see_keeps_no_other_out() {
    trace(&["a-disk-that-is-refused-is-asked-for-first"], || {
        let mut s = Scenario::new().both_serving();
        s.fault(Fault::LoseSight(B, 0, 3_600_000));
        move_lun_0(&mut s, B);
        s.pass(1_000);
        let written = s.write_fua(B, 0, 8);
        s.good(written);
        s.until_disk(A, 0, Missing);
        s.fail_disk(Some(3));
        let written = s.write_fua(B, 4_096, 8);
        s.good(written);
        s.until_disk(A, 3, Missing);
        s.fail_disk(None);
        s.until_disk(A, 3, Normal);
        s.end();
    });
}
