//! A controller to which nothing happened for two seconds was not stopped (R12).

use twincell_core::ids::Controller::{A, B};
use twincell_core::manage::ManageOp;
use twincell_sim::{Scenario, trace};

/// B takes over while A is stopped: the fence takes as long as A holds its locks. B was never stopped; the command that
/// waited in it is done when it serves, and its host keeps its connection.
#[test]
fn a_long_fence_is_no_pause() {
    let mut s = Scenario::apart().both_serving();
    s.cut();
    s.pause(A, 7_000);
    s.until("B fences A");
    s.mark();
    let waiting = s.write(B, 0, 8);
    s.pass(12_000);
    assert!(!s.story().contains("B closes host connections"), "{}", s.story());
    assert!(s.is_good(waiting));
}

/// A starts under its own record, and the fence takes long. Hosts are let in when the takeover is over (R10), not before.
#[test]
fn hosts_are_let_in_after_the_fence() {
    let mut s = Scenario::apart().both_serving();
    s.crash(B);
    s.until_alone(A, true);
    s.start(B);
    s.until("B holds its own locks");
    s.pause(B, 30_000);
    s.crash(A);
    s.cut();
    s.start(A);
    s.until("A fences B");
    s.pass(4_000);
    s.mark();
    s.mend();
    s.pass(4_000);
    let story = s.story();
    assert!(
        !story.contains("A serves") || story.contains("A holds the locks of B"),
        "hosts are let in before the fence: {story}"
    );
}

/// A controller that stops lets no host in again, not even after a pause.
#[test]
fn who_stops_lets_nobody_in() {
    let mut s = Scenario::new().both_serving();
    s.crash(B);
    s.until_alone(A, true);
    s.disk_writes_take(6_000);
    s.write(A, 0, 8);
    s.until("A -> disk 0: write");
    s.manage(A, ManageOp::Stop);
    s.until("A closes host connections");
    s.mark();
    s.pause(A, 3_000);
    s.pass(4_000);
    assert!(!s.story().contains("A serves"), "{}", s.story());
}

/// Both stand still for longer than a partner may be silent, and go on at once: neither takes that for the other's silence.
#[test]
fn a_pause_of_both_is_nobodys_silence() {
    trace(&["silence-while-stopped"], || {
        let mut s = Scenario::new().both_serving();
        let before = s.record(A);
        s.pause(A, 1_800);
        s.pause(B, 1_800);
        s.pass(4_000);
        assert_eq!(s.record(A), before, "nobody is voted out");
    });
}

/// Both stand still for a little less than a partner may be silent, at any time after they heard of each other.
#[test]
fn a_short_pause_of_both_is_nobodys_silence() {
    trace(&["silence-while-stopped", "silence-while-stopped-for-a-moment"], || {
        let mut s = Scenario::new().both_serving();
        let before = s.record(A);
        for wait in [0, 50, 100, 150, 200] {
            s.pass(3_000 + wait);
            s.pause(A, 1_450);
            s.pause(B, 1_450);
        }
        s.pass(3_000);
        assert_eq!(s.record(A), before, "nobody is voted out");
    });
}
