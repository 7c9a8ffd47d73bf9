//! The failure traces that shaped the protocol, each as a script: the shortest run that a design without its rule allows.
//! Where the core has a mutant that drops the rule (feature `mutants`), the same script must fail with it.

use twincell_core::cell::record::Mode;
use twincell_core::ids::Controller::{A, B};
use twincell_core::ids::Uuid;
use twincell_core::layout::metadata::{Name, Redundancy};
use twincell_core::manage::ManageOp;
use twincell_sim::{Scenario, trace};

fn both() -> Scenario {
    Scenario::new().both_serving()
}

/// B is out, A serves alone and its memory is clean.
fn a_alone_and_clean() -> Scenario {
    let mut s = both();
    s.crash(B);
    s.until_alone(A, true);
    s.until_alone(A, false);
    s
}

/// 1. v1 is on both controllers and destaged; its release is lost with the link. v2 must not meet it again.
#[test]
fn lost_release() {
    trace(&[], || {
        let mut s = both();
        s.written(A, 0, 8);
        s.until("A -> B: release");
        s.cut();
        s.mend();
        s.start_when_down();
        s.until(" serves");
        s.until_both_serve();
        let owner = s.owner();
        let v2 = s.written(owner, 0, 8);
        s.crash(owner);
        s.until_alone(owner.other(), true);
        s.reads(owner.other(), 0, 8, v2);
        s.end();
    });
}

/// 1, without the fault: the release of v1 goes before the request for v2.
#[test]
fn release_before_the_next_request() {
    trace(&["drop-releases"], || {
        let mut s = both();
        s.written(A, 0, 8);
        s.until("A nv: BMAE 0 Free");
        let v2 = s.written(A, 0, 8);
        s.crash(A);
        s.until("B serves");
        s.reads(B, 0, 8, v2);
        s.end();
    });
}

/// 2. The first process's disk write of v1 is still on its way when the second one destages v2.
#[test]
fn ones_own_late_write() {
    trace(&["do-not-drain"], || {
        let mut s = both();
        s.disk_writes_take(400);
        s.written(A, 0, 8);
        s.until("A -> disk 0: write");
        let v2 = s.written(A, 0, 8);
        s.disk_writes_take(0);
        s.crash(A);
        s.crash(B);
        s.start(A);
        s.start(B);
        s.until_both_serve();
        s.reads(A, 0, 8, v2);
        s.pass(1000);
        s.reads(A, 0, 8, v2);
        s.end();
    });
}

/// 3. Both think that the other is gone. One wins, once; the other waits, and does not ballot without end.
#[test]
fn duel() {
    trace(&["accept-any-slot"], || {
        let mut s = Scenario::apart().both_serving();
        s.written(A, 0, 8);
        s.cut();
        s.until(" serves");
        let winner = if s.serves(A) { A } else { B };
        s.until_alone(winner, false);
        s.start_when_down();
        let epoch = s.record(winner).expect("it serves").epoch;
        for _ in 0..20 {
            s.pass(1000);
            assert!(s.serves(winner) && !s.serves(winner.other()));
        }
        assert_eq!(
            s.record(winner).expect("it serves").epoch,
            epoch,
            "a ballot without need"
        );
        s.end();
    });
}

/// 4. B has won the ballot and dies before it fences. The record does not say that the fence happened: A, stopped
///    meanwhile, still has a disk write on its way.
#[test]
fn crash_between_ballot_and_fence() {
    trace(&["serve-before-the-fence"], || {
        let mut s = Scenario::apart().both_serving();
        s.disk_writes_take(6000);
        s.written(A, 0, 8);
        s.until("A -> disk 0: write");
        s.disk_writes_take(0);
        s.pause(A, 5000);
        s.crash_at(B, "B notes: ballot won");
        s.until("B ends");
        s.start(B);
        s.until("B serves");
        let v2 = s.write(B, 0, 8);
        s.good(v2);
        s.pass(10_000);
        s.reads(B, 0, 8, v2);
        s.end();
    });
}

/// 5. A write-through has half landed when the controller that is alone crashes: its record must not say "clean".
#[test]
fn clean_is_not_clean() {
    trace(&["stage-while-clean"], || {
        let mut s = a_alone_and_clean();
        s.start(B);
        s.cut();
        s.disk_writes_take(50);
        s.write(A, 0, 256);
        s.until("A -> disk 0: write");
        s.crash(A);
        s.pass(20_000);
        assert!(!s.serves(B), "B lacks what is in A's memory");
        s.start(A);
        s.until_alone(A, true);
        s.mend();
        s.until_both_serve();
        s.end();
    });
}

/// 6. A controller that is alone and clean is stopped, and goes on much later. Its partner, which could take over from a
///    clean one, waits for its locks; what the stopped one does when it goes on must not reach a host before it has read
///    the record again.
#[test]
fn unbounded_zombie() {
    trace(&["serve-before-the-fence"], || {
        let mut s = Scenario::apart().both_serving();
        let v1 = s.written(A, 0, 8);
        s.crash(B);
        s.until_alone(A, true);
        s.until_alone(A, false);
        s.cut();
        s.start(B);
        s.pass(10);
        s.pause(A, 20_000);
        let late = s.read(A, 0, 8);
        s.pass(19_000);
        assert!(!s.serves(B), "A still holds the locks");
        s.pass(2000);
        assert!(!s.is_good(late), "the host has long gone to the other path");
        s.reads(A, 0, 8, v1);
        s.crash(A);
        s.until("B serves");
        let v2 = s.written(B, 0, 8);
        s.start(A);
        s.mend();
        s.until_both_serve();
        s.reads(A, 0, 8, v2);
        s.end();
    });
}

/// 7a. A proposes BOTH while a write is in progress, and dies with half of it on disk.
#[test]
fn joining_a() {
    trace(&[], || {
        let mut s = both();
        s.crash(B);
        s.until_alone(A, true);
        s.start(B);
        s.until("A -> B: attached");
        s.disk_writes_take(100);
        let v1 = s.write(A, 0, 256);
        s.until("A -> disk 0: write");
        s.crash(A);
        s.pass(5000);
        assert!(
            !s.serves(B)
                || s.mode(B)
                    == Some(Mode::Alone {
                        controller: B,
                        dirty: true
                    })
        );
        s.disk_writes_take(0);
        s.start(A);
        s.start_when_down();
        s.until_both_serve();
        assert!(!s.is_good(v1));
        s.end();
    });
}

/// 7b. What is older than the joiner is not on it: BOTH waits until the disks have it.
#[test]
fn joining_b() {
    trace(&["both-while-untwinned"], || {
        let mut s = both();
        s.crash(B);
        s.until_alone(A, true);
        s.disk_writes_take(3000);
        let v1 = s.write_fua(A, 0, 8);
        s.start(B);
        s.until("A -> B: attached");
        s.pass(1000);
        assert!(!s.serves(B), "v1 is only in A's memory");
        s.disk_writes_take(0);
        s.good(v1);
        s.until_both_serve();
        s.crash(A);
        s.until("B serves");
        s.reads(B, 0, 8, v1);
        s.end();
    });
}

/// 8. A has voted for ALONE(A) and crashes; the vote must not win later behind the back of both.
#[test]
fn undecided_ballot() {
    let mut s = both();
    let v1 = s.written(A, 0, 8);
    s.crash_at(A, "A -> disk 1: votes for ALONE(A");
    s.pause(B, 1000);
    s.cut();
    s.until("A ends");
    s.mend();
    s.start(A);
    s.until("serves");
    s.start_when_down();
    s.until_both_serve();
    s.lose(A);
    s.until("B serves");
    s.reads(B, 0, 8, v1);
    s.end();
}

/// 8, the other way round: what A has voted for is decided, A has served by it, and no slot says so yet.
#[test]
fn a_decided_ballot_that_no_slot_tells() {
    trace(&["forget-the-own-vote"], || {
        // A slot that cannot be written may be there all the same, on some disks.
        for tries in 0..8 {
            let mut s = both();
            s.crash(B);
            s.until("A notes: ballot won");
            s.fail_slot_writes(&[0, 1, 2]);
            s.until("A serves");
            s.pass(60 * tries);
            s.crash(A);
            s.fail_slot_writes(&[]);
            s.start(A);
            s.start(B);
            s.until_both_serve();
            s.end();
        }
    });
}

/// 9. The loser of a ballot is alive, and its disk write lands after it has lost.
#[test]
fn losing_a_ballot_alive() {
    trace(&["serve-before-the-fence"], || {
        let mut s = Scenario::apart().both_serving();
        s.disk_writes_take(4000);
        s.written(A, 0, 8);
        s.until("A -> disk 0: write");
        s.disk_writes_take(0);
        s.pause(A, 3000);
        s.until("B notes: ballot won");
        s.until("B serves");
        let v2 = s.written(B, 0, 8);
        s.pass(5000);
        s.start_when_down();
        s.until_both_serve();
        s.reads(B, 0, 8, v2);
        s.reads(A, 0, 8, v2);
        s.end();
    });
}

/// 10. A goes on alone and dies. B still has v1 in its memory, which v2 on disk has made old.
#[test]
fn alone_and_forgotten() {
    trace(&["trust-own-image-on-return"], || {
        let mut s = both();
        s.written(A, 0, 8);
        s.crash(B);
        s.until_alone(A, true);
        let v2 = s.written(A, 0, 8);
        s.crash(A);
        s.start(B);
        s.pass(10_000);
        assert!(!s.serves(B), "the record says ALONE(A, dirty)");
        s.start(A);
        s.until_both_serve();
        s.crash(A);
        s.until("B serves");
        s.reads(B, 0, 8, v2);
        s.end();
    });
}

/// 12. A has committed v2 and B has not when both die. What a reader has seen must not go back.
#[test]
fn going_back() {
    trace(&["level-nothing"], || {
        let mut s = both();
        s.written(A, 0, 8);
        s.crash_at(A, "A -> B: RQR");
        let v2 = s.write(A, 0, 8);
        s.until("A ends");
        s.crash(B);
        s.start(A);
        s.start(B);
        s.until_both_serve();
        assert!(!s.is_good(v2));
        let seen = s.read(A, 0, 8);
        s.good(seen);
        s.crash(A);
        s.until("B serves");
        let seen = s.read(B, 0, 8);
        s.good(seen);
        s.end();
    });
}

/// 14. A buffer and its twin are freed only after a flush: the shelf loses power after the disk write.
#[test]
fn freed_too_early() {
    trace(&["free-before-the-flush"], || {
        let mut s = both();
        let v1 = s.written(A, 0, 8);
        s.until("A -> disk 1: write");
        s.pass(1);
        s.power_loss();
        s.start(A);
        s.start(B);
        s.until_both_serve();
        s.reads(A, 0, 8, v1);
        s.end();
    });
}

/// 15. After a takeover B's dirty data are in the segment that A allocates from. A returns, and must not use it before
///     it is empty.
#[test]
fn two_allocators() {
    trace(&["ignore-the-mirror-segment"], || {
        let mut s = both();
        let v1 = s.written(A, 0, 256);
        s.disk_writes_take(2000);
        s.crash(A);
        s.until("B serves");
        s.start(A);
        s.until("B -> A: attached");
        s.pass(100);
        assert!(!s.serves(A), "its segment is in use");
        s.disk_writes_take(0);
        s.until_both_serve();
        s.reads(B, 0, 256, v1);
        let v2 = s.written(A, 0, 256);
        s.reads(B, 0, 256, v2);
        s.end();
    });
}

/// 18. v1 waits at A, which is stopped; the host writes v1 through B, and then v2. v1 must not be executed again.
#[test]
fn late_host_command() {
    trace(&[], || {
        let mut s = both();
        s.pause(A, 5000);
        let v1 = s.write(A, 0, 8);
        s.retries(v1);
        s.until("B serves");
        s.good(v1);
        let v2 = s.written(B, 0, 8);
        s.pass(10_000);
        s.reads(B, 0, 8, v2);
        s.end();
    });
}

/// A read of what is being written waits for the write.
#[test]
fn read_under_a_write() {
    trace(&["read-without-the-lock"], || {
        let mut s = both();
        s.written(A, 0, 8);
        s.until("B <- A: release");
        s.disk_writes_take(5);
        s.write_long(A, 0, 8);
        s.until("A nv: RIE 0 Valid");
        let early = s.read(A, 0, 8);
        s.until("A <- host: read");
        assert!(!s.tells("A -> disk 0: read"), "the lock is held");
        s.good(early);
        s.end();
    });
}

/// A mirror's RIE becomes valid only after the data are there: both die in between, and later the owner.
#[test]
fn valid_before_the_data() {
    trace(&["commit-before-the-last-buffer"], || {
        let mut s = both();
        s.written(A, 0, 8);
        s.crash_at(B, "B nv: RIE 0 Valid");
        s.write(A, 0, 8);
        s.until("B nv: RIE 0 Valid");
        s.until("B nv: RIE 0 Valid");
        s.until("B ends");
        s.crash(A);
        s.start(A);
        s.start(B);
        s.until_both_serve();
        s.crash(A);
        s.until("B serves");
        let read = s.read(B, 0, 8);
        s.good(read);
        s.end();
    });
}

/// What a write covers only in part is merged on both sides before the commit.
#[test]
fn partly_covered() {
    trace(&["merge-nothing"], || {
        let mut s = both();
        let v1 = s.written(A, 0, 8);
        s.written(A, 2, 4);
        s.crash(A);
        s.until("B serves");
        s.reads(B, 0, 2, v1);
        s.reads(B, 6, 2, v1);
        s.end();
    });
}

/// Old data reach the disk while a write names them, and the write is withdrawn.
#[test]
fn old_data_on_disk_under_a_write() {
    trace(&["old-data-unheld"], || {
        let mut s = both();
        let v1 = s.written(A, 0, 8);
        let v2 = s.write_long(A, 0, 8);
        s.host_data_takes(200);
        s.until("A nv: BMAE 0 ProvisionalWbNot");
        s.until("A -> disk 1: flush");
        s.pass(10);
        s.withdraw(v2);
        s.pass(300);
        s.reads(A, 0, 8, v1);
        s.end();
    });
}

/// Without the mirror's answer nothing is acknowledged.
#[test]
fn acknowledged_after_the_mirror() {
    trace(&["acknowledge-before-mda", "ignore-the-mirror-segment"], || {
        let mut s = both();
        s.crash_at(B, "B <- A: RQR");
        s.write(A, 0, 8);
        s.until("B ends");
        assert!(!s.tells("A -> host: Good"), "it is on A only");
        s.crash(A);
        s.start(B);
        s.start(A);
        s.until_both_serve();
        let v2 = s.written(A, 0, 8);
        s.lose(A);
        s.until("B serves");
        s.reads(B, 0, 8, v2);
        s.end();
    });
}

/// A command for a LUN that is being deleted waits. When the LUN is gone it has to end as one for no LUN.
#[test]
fn command_waits_for_a_lun_that_is_deleted() {
    trace(&[], || {
        let mut s = both();
        let name = Name::new("made").expect("a name");
        let uuid = Uuid(9);
        let (blocks, redundancy) = (5000, Redundancy::Vraid1);
        s.manage(
            A,
            ManageOp::LunCreate {
                name,
                uuid,
                blocks,
                redundancy,
            },
        );
        s.until("A -> operator: Ok");
        s.use_lun(2);
        s.manage(A, ManageOp::LunDelete { name });
        s.until("A -> disk 0: metadata");
        let late = s.read(A, 0, 8);
        s.until("A <- host: read");
        s.until("A -> host: NoSuchLun");
        assert!(!s.is_good(late));
        s.end();
    });
}

/// Each controller forwards more commands at once than the partner has transfer buffers for. What waits for a transfer
/// buffer of the partner must not hold up what the partner has forwarded.
#[test]
fn forwarding_both_ways() {
    trace(&[], || {
        let mut s = Scenario::small().both_serving();
        let name = Name::new("lun1").expect("a name");
        s.manage(A, ManageOp::LunMove { name, to: B });
        s.until("A -> operator: Ok");
        s.pass(100);
        let mut sent = Vec::new();
        for n in 0..4 {
            s.use_lun(1);
            sent.push(s.read(A, 8 * n, 8));
            s.use_lun(0);
            sent.push(s.read(B, 8 * n, 8));
        }
        for sent in sent {
            s.good(sent);
        }
        s.end();
    });
}
