//! Data that come late, or not at all: from a host, and from the primary to its mirror.

use twincell_core::ids::Controller::{A, B};
use twincell_core::layout::metadata::Name;
use twincell_core::manage::ManageOp;
use twincell_sim::{Scenario, trace};

/// The host takes its time: the mirror asks, hears that nothing was sent yet, and waits on.
#[test]
fn not_yet_sent() {
    let mut s = Scenario::new().both_serving();
    s.host_data_takes(1_300);
    let written = s.write_long(A, 0, 8);
    s.until("B -> A: DTO");
    s.until("A -> B: DSS RIE 0 NotYetSent");
    s.good(written);
    s.reads(B, 0, 8, written);
    s.end();
}

/// The data are under way for so long that the mirror asks for them: they come again, once, and what came first counts
/// for nothing.
#[test]
fn sent_and_late() {
    let mut s = Scenario::new().both_serving();
    let written = s.write_long(A, 0, 8);
    s.until("B -> A: RTR");
    s.link_takes(700);
    s.until("B -> A: DTO");
    s.until("A -> B: DSS RIE 0 Sent");
    s.link_takes(0);
    s.until("B -> A: RTR");
    s.until("A -> B: data");
    s.until("B -> A: MDA");
    s.good(written);
    assert!(s.stale(B) > 0, "the late data are refused and counted");
    s.crash(A);
    s.until("B serves");
    s.reads(B, 0, 8, written);
    s.end();
}

/// A link that is always slow: asking again and again must not keep the data from ever being taken.
#[test]
fn a_link_that_stays_slow() {
    let mut s = Scenario::new().both_serving();
    s.link_takes(600);
    let written = s.write_long(A, 0, 8);
    s.good(written);
    s.end();
}

/// A host that never sends the data of its write loses its connection: the range is free, and the LUN can move.
#[test]
fn a_host_that_sends_nothing() {
    let mut s = Scenario::new().both_serving();
    s.host_data_takes(60_000);
    let silent = s.write_long(A, 0, 8);
    s.until("A closes the host's connection");
    s.host_data_takes(0);
    let written = s.written(B, 0, 8);
    assert!(!s.is_good(silent));
    s.reads(A, 0, 8, written);
    s.end();
}

/// It keeps nobody from joining, either: its write began before the partner came back, and the joiner lacks it.
#[test]
fn a_host_that_sends_nothing_while_the_partner_joins() {
    let mut s = Scenario::new().both_serving();
    s.crash(B);
    s.until_alone(A, true);
    s.written(A, 0, 8);
    s.host_data_takes(60_000);
    s.write_long(A, 8, 8);
    s.until("A -> host: fetch");
    s.start(B);
    s.until_both_serve();
    assert!(s.tells("A closes the host's connection"));
    s.host_data_takes(0);
    s.end();
}

/// A write whose host sends nothing was asked of a mirror that has fallen since. The one that took its place knows nothing
/// of it, and is not told that it is withdrawn.
#[test]
fn withdrawn_after_the_mirror_has_changed() {
    let mut s = Scenario::new().both_serving();
    s.host_data_takes(4_000);
    let silent = s.write_long(A, 0, 8);
    s.until("B -> A: RTR");
    s.crash(B);
    s.until_alone(A, true);
    s.start(B);
    s.until("A -> B: attached");
    s.withdraw(silent);
    s.until("A -> host: Aborted");
    s.until_both_serve();
    s.end();
}

/// A host sends a long write portion by portion, each of them late, and an operator moves the LUN: others do not wait for the end
/// of it.
#[test]
fn a_slow_host_and_a_lun_that_moves() {
    trace(&["a-slow-host-holds-up-a-lun"], || {
        let mut s = Scenario::new().both_serving();
        s.host_data_takes(4_500);
        s.write_long(A, 0, 1_024);
        s.pass(100);
        let name = Name::new("lun0").expect("a name");
        s.manage(A, ManageOp::LunMove { name, to: B });
        let other = s.read(B, 4096, 8);
        s.pass(4_000);
        assert!(s.is_good(other), "{}", s.story());
        s.host_data_takes(0);
        s.until("A -> operator: Ok");
        s.end();
    });
}

/// B's writes for its own LUN are large, the link is slow, and a write for A's LUN waits behind them for its frame. Its host loses that
/// path without a sign, and writes newer data through A. The old write is not sent any more.
#[test]
fn a_write_that_waits_for_its_frame_has_a_deadline() {
    trace(&["what-waits-for-a-frame-has-no-deadline"], || {
        let mut s = Scenario::large().both_serving();
        let name = Name::new("lun1").expect("a name");
        s.manage(A, ManageOp::LunMove { name, to: B });
        s.until("A -> operator: Ok");
        s.pass(1_000);
        s.link_takes(600);
        s.pass(2_000);
        s.use_lun(1);
        for n in 0..14 {
            let _ = s.write(B, 512 * n, 256);
        }
        s.use_lun(0);
        s.mark();
        let _ = s.write(B, 0, 8);
        s.pass(4_300);
        assert!(!s.story().contains("B -> A: forward write 0:0+8"), "it was sent");
        let newer = s.written(A, 0, 8);
        s.pass(6_000);
        s.reads(A, 0, 8, newer);
        s.end();
    });
}

/// B stands still for a moment. What comes meanwhile it sees only then; but it has waited since it may have come, at the earliest.
#[test]
fn a_write_that_came_while_its_controller_stood_still() {
    trace(&["what-came-while-it-stood-still-is-new"], || {
        let mut s = Scenario::new().both_serving();
        s.disk_reads_take(4_600);
        for n in 0..16 {
            let _ = s.read(B, 2048 + 8 * n, 8);
        }
        s.pass(50);
        s.disk_reads_take(0);
        s.pause(B, 1_400);
        s.pass(10);
        let _ = s.write(B, 0, 8);
        s.pass(4_300);
        let newer = s.written(A, 0, 8);
        s.pass(3_000);
        s.reads(A, 0, 8, newer);
        s.end();
    });
}
