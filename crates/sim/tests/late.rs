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
