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

/// A voted for `BOTH` on one disk, and ended. B, which was to join, decides that vote when it wants to go on from the disks, and begins
/// anew for it; A is back, has not seen its vote, and waits for the fence of B when it reads what was decided.
fn a_vote_that_the_voter_has_not_seen(started_after: u64, paused: u64) {
    let mut s = Scenario::apart().both_serving();
    s.crash(B);
    s.until_alone(A, false);
    s.crash_at(A, "A -> disk 0: votes for");
    s.mark();
    s.start(B);
    s.until("A ends");
    s.until("B takes its own locks");
    // Of the first round of its ballot disk 1 is the last to answer, of those of A it is disk 0.
    s.fail_disk(Some(1));
    s.until("B notes: BallotBegun");
    // What A has voted is read now, and B hears of it when A is back.
    s.pass_us(45);
    s.pause(B, paused);
    s.pass_us(started_after);
    s.fail_disk(Some(0));
    s.start(A);
    s.until("A fences B");
    s.fail_disk(None);
    s.start_when_down();
    s.until_both_serve();
    let written = s.written(A, 0, 8);
    s.reads(B, 0, 8, written);
    s.end();
}

#[test]
fn a_vote_for_both_that_the_voter_has_not_seen() {
    trace(&["go-on-alone-under-both"], || {
        for started_after in (2_000..3_000).step_by(20) {
            (500..505).for_each(|paused| a_vote_that_the_voter_has_not_seen(started_after, paused));
        }
    });
}

/// A voted for itself alone, on one disk, and ended. Both start, do not see that vote, because the disk does not answer just then, and
/// serve. Then A is lost: the vote that it has forgotten must not win, or B, which has everything, would be out.
#[test]
fn a_vote_that_nobody_has_seen_is_void_when_both_have_served() {
    trace(&["a-forgotten-vote-counts"], || {
        let mut s = Scenario::new().both_serving();
        s.crash_at(A, "A -> disk 0: votes for ALONE(A");
        s.crash(B);
        s.until("A ends");
        s.pass(5);
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
    });
}
