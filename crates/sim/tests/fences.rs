//! The fence of each waits for the locks of the other.

use twincell_core::ids::Controller::{A, B};
use twincell_core::layout::metadata::DiskState;
use twincell_core::manage::ManageOp;
use twincell_sim::{Scenario, Sent, trace};

/// A was alone and clean and died; the link is cut and stays so. B takes over in the moment in which A is back. One of
/// them must serve.
#[test]
fn a_clean_one_returns_as_it_is_taken_over() {
    let mut stuck = Vec::new();
    for step in 0..7u64 {
        let mut s = Scenario::apart().both_serving();
        s.written(A, 0, 8);
        s.crash(B);
        s.until_alone(A, true);
        s.until_alone(A, false);
        s.cut();
        s.crash(A);
        s.start(B);
        // B's patience with a partner that stands still.
        s.until("B takes its own locks");
        match step {
            0 => {}
            1 => s.until("B holds its own locks"),
            2 => s.until("B notes: BallotBegun"),
            3 => s.until("B -> disk 0: votes for"),
            4 => s.until("B -> disk 2: votes for"),
            5 => s.until("B notes: ballot won"),
            _ => s.until("B fences A"),
        }
        s.start(A);
        s.pass(20_000);
        if !s.serves(A) && !s.serves(B) {
            stuck.push(step);
        }
    }
    assert!(stuck.is_empty(), "nobody serves, for ever: {stuck:?}");
}

/// The same by an operator's word.
#[test]
fn a_dirty_one_returns_as_it_is_given_up() {
    let mut stuck = Vec::new();
    for step in 0..6u64 {
        let mut s = Scenario::apart().both_serving();
        s.crash(B);
        s.until_alone(A, true);
        s.written(A, 0, 8);
        s.cut();
        s.crash(A);
        s.start(B);
        s.pass(20_000);
        s.manage(B, ManageOp::AcceptLoss { missing: A });
        match step {
            0 => s.until("B takes its own locks"),
            1 => s.until("B holds its own locks"),
            2 => s.until("B notes: BallotBegun"),
            3 => s.until("B -> disk 0: votes for"),
            4 => s.until("B notes: ballot won"),
            _ => s.until("B fences A"),
        }
        s.start(A);
        s.pass(20_000);
        if !s.serves(A) && !s.serves(B) {
            stuck.push(step);
        }
    }
    assert!(stuck.is_empty(), "nobody serves, for ever: {stuck:?}");
}

/// Whoever was met last is ended where it stands still, and not waited for.
fn a_partner_that_stands_still_is_ended(s: &mut Scenario) {
    let before = s.now();
    s.pause(B, 20_000);
    s.until("A serves");
    assert!(s.now() - before < 4_000, "hosts have waited for it");
}

#[test]
fn who_has_joined_is_fenced() {
    trace(&["fence-whoever-it-was"], || {
        let mut s = Scenario::new().both_serving();
        s.written(A, 0, 8);
        a_partner_that_stands_still_is_ended(&mut s);
    });
}

/// A controller heard its partner's hello while it waited for its own locks, and then read the slots, which still told the
/// partner's process of before. It kept to that: when the partner stood still a process was fenced that was long gone, and hosts
/// waited until the partner went on.
#[test]
fn who_has_said_hello_is_fenced() {
    let mut s = Scenario::new().both_serving();
    s.crash(B);
    s.until_alone(A, true);
    s.disk_writes_take(50);
    s.write(A, 0, 8);
    s.pass(1);
    s.crash(A);
    s.start(B);
    s.start(A);
    s.disk_writes_take(0);
    s.until_both_serve();
    a_partner_that_stands_still_is_ended(&mut s);
}

/// B takes over from a controller that is stopped; it is back, as another process, before the fence is complete, and wants to join.
/// It waits on the connection that it has.
#[test]
fn who_returns_before_the_fence_waits_on_its_connection() {
    trace(&["attach-now-or-never"], || {
        let mut s = Scenario::apart().both_serving();
        s.disk_writes_take(3_000);
        s.written(A, 0, 8);
        s.pass(25);
        s.disk_writes_take(0);
        s.pause(A, 1_700);
        s.until("B fences A");
        s.until("A starts");
        s.mark();
        s.until("B <- A: attach");
        s.until("B serves");
        assert!(!s.story().contains("link closed"), "{}", s.story());
        s.until_both_serve();
        s.end();
    });
}

/// A disk on which this block has a copy hangs with a write of A on its way, and is given up. That write is done with the other copy.
fn hangs_with_a_write(s: &mut Scenario, disk: usize, block: u64) -> Sent {
    let before = s.write_fua(A, block, 8);
    s.good(before);
    s.pass(500);
    s.stall_disks(&[disk]);
    let written = s.write_fua(A, block, 8);
    s.good(written);
    s.until_disk(A, disk, DiskState::Missing);
    s.until_disk(B, disk, DiskState::Missing);
    written
}

/// A disk hangs for ever with a write of A on its way, and is given up: its content counts for nothing any more. Nobody waits for A's lock
/// there, whatever becomes of A later; and the disk is used again only when that write is over.
#[test]
fn a_disk_that_was_given_up_holds_up_no_takeover() {
    type Falls = fn(&mut Scenario);
    let falls: [Falls; 5] = [
        |s| s.crash(A),
        |s| {
            s.crash(A);
            s.start_when_down();
        },
        |s| s.manage(A, ManageOp::Stop),
        |s| s.pause(A, 8_000),
        |s| {
            s.cut();
            s.pass(10_000);
            s.mend();
        },
    ];
    // Disk 1 votes, disk 3 does not.
    for (disk, block) in [(1, 0), (3, 4096)] {
        for fall in falls {
            let mut s = Scenario::new().both_serving().all_mirrored();
            let written = hangs_with_a_write(&mut s, disk, block);
            s.pass(5_000);
            fall(&mut s);
            s.pass(20_000);
            assert!(s.serves(A) || s.serves(B), "nobody serves\n{}", s.story());
            s.start_when_down();
            s.until_both_serve();
            s.reads(B, block, 8, written);
            s.unstall_disk(disk, 0);
            s.until_disk(A, disk, DiskState::Normal);
            s.end();
        }
    }
}

/// A missing disk answers again, but a write of A is still on its way there when A ends; and the fence does not wait for it. The disk
/// comes back when that write is over: before, it would land over what has been copied there.
#[test]
fn what_a_fence_has_left_keeps_its_disk_away() {
    let mutants = ["what-answered-before-the-fence-is-ready", "a-lost-joiner-is-not-fenced"];
    trace(&mutants, || {
        type Returns = fn(&mut Scenario);
        let returns: [Returns; 3] = [
            |s| s.pass(20_000),
            |s| {
                s.start_when_down();
                s.until_both_serve();
            },
            // It is lost on its way in, and comes again only afterwards.
            |s| {
                s.start(A);
                s.until("B lifts the fence");
                s.crash(A);
                s.pass(20_000);
            },
        ];
        for comes_back in returns {
            let (mut s, disk) = (Scenario::new().both_serving(), 3);
            let written = hangs_with_a_write(&mut s, disk, 4096);
            s.unstall_disk(disk, 40_000);
            s.pass(5_000);
            s.crash(A);
            comes_back(&mut s);
            assert_eq!(s.disk_state(B, disk), DiskState::Missing, "{}", s.story());
            s.pass(30_000);
            s.until_disk(B, disk, DiskState::Normal);
            s.start_when_down();
            s.until_both_serve();
            s.reads(B, 4096, 8, written);
            s.end();
        }
    });
}

/// Who is lost on its way in is fenced anew, and waits for that when it comes again.
#[test]
fn who_is_lost_on_its_way_in_comes_again() {
    let mut s = Scenario::new().both_serving();
    s.crash(A);
    s.until_alone(B, false);
    s.start_when_down();
    s.until("B lifts the fence");
    s.crash(A);
    s.start(A);
    s.until_both_serve();
    s.end();
}
