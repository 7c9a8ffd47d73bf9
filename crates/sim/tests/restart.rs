//! Both were in when both ended, and both come back (R6).

use twincell_core::ids::Controller::{A, B};
use twincell_sim::fault::Fault;
use twincell_sim::{Scenario, trace};

/// Both wait for each other while they stand still, so that the patience of one ends just as the link opens: it begins
/// a ballot, and says so by a link of its own incarnation, not by refusing what it is sent.
#[test]
fn patience_that_ends_as_the_link_opens() {
    for (a, b) in [(2_600, 2_700), (2_700, 2_600), (2_900, 3_100)] {
        for between in (0..500).step_by(10) {
            let mut s = Scenario::new().both_serving();
            let written = s.written(A, 0, 8);
            s.cut();
            s.crash(A);
            s.crash(B);
            s.start(B);
            s.pass(between);
            s.start(A);
            s.until("A notes: AwaitsPartner");
            s.pause(A, a);
            s.pause(B, b);
            s.mend();
            s.start_when_down();
            s.until_both_serve();
            s.reads(B, 0, 8, written);
            s.end();
        }
    }
}

/// A bit of A's memory has flipped, in whatever word, and both end in the middle of a write that A has committed and B has
/// not: leveling decides it the other way, and needs words that said nothing before.
#[test]
fn damage_in_what_leveling_comes_to() {
    trace(&["damage-is-sought-in-what-is-valid"], || {
        for word in 0..12 {
            let mut s = Scenario::new().both_serving();
            let before = s.written(A, 8, 8);
            s.mark();
            s.link_takes(5);
            let _ = s.write(A, 8, 8);
            s.until("A nv: RIE 0 Valid");
            s.fault(Fault::FlipNvAndCrash(A, word * 64 + 3));
            s.crash(B);
            s.start(A);
            s.start_when_down();
            s.link_takes(0);
            s.until_both_serve();
            s.reads(A, 8, 8, before);
            s.end();
        }
    });
}

/// A has voted, starts anew, and can read nothing for a while, neither metadata nor slots: it reads the record again, and finishes
/// its vote when it knows it.
#[test]
fn who_has_voted_reads_the_record_twice() {
    trace(&["a-ballot-while-the-record-is-read"], || {
        for stalled in (2_000..3_000).step_by(125) {
            let mut s = Scenario::new();
            s.start(A);
            s.until("A serves");
            s.crash_at(A, "A -> disk 1: votes for BOTH");
            s.start(B);
            s.until("A ends");
            s.crash(B);
            s.start(A);
            s.until("A -> disk 0: votes for BOTH");
            s.stall_disks(&[0, 1, 2]);
            s.pass(stalled);
            (0..3).for_each(|disk| s.unstall_disk(disk, 0));
            s.until_alone(A, true);
            s.start(B);
            s.until_both_serve();
            s.end();
        }
    });
}

/// A voted for itself alone, on one disk, and ended. Both start, do not see that vote, because the disk does not answer just then, and
/// serve. Then A is lost: the vote that it has forgotten must not win, or B, which has everything, would be out. The same if A had
/// been back in between, had seen its vote, and ended when it had begun to finish it.
#[test]
fn a_vote_that_nobody_has_seen_is_void_when_both_have_served() {
    trace(&["a-forgotten-vote-counts"], || {
        for sees_it_once in [false, true] {
            let mut s = Scenario::new().both_serving();
            s.crash_at(A, "A -> disk 0: votes for ALONE(A");
            s.crash(B);
            s.until("A ends");
            s.pass(5);
            if sees_it_once {
                s.crash_at(A, "A -> disk 0: votes for ALONE(A");
                s.start(A);
                s.until("A ends");
                s.pass(5);
            }
            s.stall_disks(&[0]);
            s.start(A);
            s.start(B);
            s.until_both_serve();
            let written = s.written(A, 0, 8);
            s.unstall_disk(0, 0);
            s.pass(5);
            s.lose(A);
            s.until_alone(B, true);
            s.reads(B, 0, 8, written);
            s.start_when_down();
            s.until_both_serve();
            s.end();
        }
    });
}

/// A voted for `BOTH` on one disk, and ended. When it comes back it does not see that disk, goes on alone, and acknowledges a write that
/// B does not have. Its next process sees the vote: what B has is not in force any more. The same if A had been back in between.
#[test]
fn a_vote_for_both_that_was_forgotten_brings_no_old_data_back() {
    trace(&["a-forgotten-vote-counts"], || {
        for sees_it_once in [false, true] {
            let mut s = Scenario::new().both_serving();
            s.use_lun(1);
            s.crash(B);
            s.until("A serves");
            s.written(A, 4096, 8);
            s.disk_writes_take(300);
            s.crash_at(A, "A -> disk 0: votes for BOTH");
            s.start(B);
            s.until("A -> B: attached");
            let _ = s.write(A, 4096, 8);
            s.until("A ends");
            s.cut();
            s.disk_writes_take(0);
            s.pass(400);
            s.start(B);
            if sees_it_once {
                s.crash_at(A, "A -> disk 0: votes for BOTH");
                s.start(A);
                s.until("A ends");
                s.pass(5);
            }
            s.fault(Fault::LoseSight(A, 0, 1_000_000));
            s.start(A);
            s.until("A notes: Serving");
            let written = s.written(A, 4096, 8);
            s.crash(A);
            s.heal(Fault::LoseSight(A, 0, 1_000_000));
            s.pass(5);
            s.start_when_down();
            s.pass(100);
            s.crash(A);
            s.pass(10_000);
            assert!(!s.serves(B), "A alone has what was written last");
            s.mend();
            s.start_when_down();
            s.until_both_serve();
            s.reads(B, 4096, 8, written);
            s.end();
        }
    });
}
