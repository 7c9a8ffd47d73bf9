//! Two paths between the controllers: messages move to the other and back, and no host notices.

use twincell_core::ids::Controller::{A, B};
use twincell_sim::fault::Fault;
use twincell_sim::{Scenario, trace};

/// Both serve, and both paths work.
fn two_paths() -> Scenario {
    let mut s = Scenario::two_paths().both_serving();
    s.pass(2_000);
    for c in [A, B] {
        assert_eq!(s.paths(c), (2, Some(0)));
    }
    s.mark();
    s
}

/// Writes and reads go on while `fault` lasts and after it, and nobody is taken over.
fn goes_on(fault: Fault) -> Scenario {
    let mut s = two_paths();
    s.fault(fault);
    for n in 0..200 {
        for path in [A, B] {
            let write = s.write_long(path, n * 16, 16);
            s.good(write);
            s.reads(path, n * 16, 16, write);
        }
        s.pass(20);
    }
    for c in [A, B] {
        assert!(
            s.serves(c) && !s.tells(&format!("{c} notes: PartnerUnreachable")),
            "{c} {fault:?}"
        );
    }
    s
}

#[test]
fn a_path_that_is_cut_and_comes_back() {
    for path in 0..2 {
        let mut s = goes_on(Fault::CutPath(path, 1500));
        s.pass(2_000);
        assert_eq!((s.paths(A), s.paths(B)), ((2, Some(0)), (2, Some(0))));
        s.end();
    }
}

#[test]
fn a_path_that_is_silent() {
    for path in 0..2 {
        let s = goes_on(Fault::SilentPath(path, 2000));
        assert!(path == 1 || s.resent(A) + s.resent(B) > 0, "nothing was sent again");
        s.end();
    }
}

/// Heartbeats are answered on the path, and data never arrive on it: no silence shows that.
#[test]
fn a_path_that_spoils_data() {
    trace(&["resend-for-ever"], || {
        for path in 0..2 {
            let s = goes_on(Fault::SpoilingPath(path, 60_000));
            assert!(path == 1 || s.paths(A).1 == Some(1), "messages came back to it");
            s.end();
        }
    });
}

/// There is no other: one controller goes on alone.
#[test]
fn the_only_path_spoils_data() {
    let mut s = Scenario::new().both_serving();
    s.start_when_down();
    s.fault(Fault::SpoilingPath(0, 20_000));
    for n in 0..20 {
        for path in [A, B] {
            let write = s.write_long(path, n * 16, 16);
            s.retries(write);
            s.good(write);
        }
    }
    // The path is left alone for as long as that takes, from when it spoiled data last.
    s.pass(20_000);
    s.until_both_serve();
    s.end();
}

#[test]
fn a_path_that_works_one_way() {
    for c in [A, B] {
        for path in 0..2 {
            goes_on(Fault::DeafPath(path, c, 2000)).end();
        }
    }
}

#[test]
fn without_any_path_the_partner_is_unreachable() {
    let mut s = two_paths();
    s.fault(Fault::CutPath(0, 60_000));
    s.pass(500);
    assert_eq!((s.paths(A), s.paths(B)), ((1, Some(1)), (1, Some(1))));
    assert!(!s.tells("PartnerUnreachable"));
    s.fault(Fault::CutPath(1, 60_000));
    s.until("notes: PartnerUnreachable");
    s.end();
}

/// All that is sent takes longer than a path may be silent for. The one on which both have said hello first does not end the other, on
/// which they are about to: the partner comes back.
#[test]
fn two_slow_paths_are_no_worse_than_one() {
    trace(&["a-path-answers-since-it-was-opened"], || {
        for ms in [301, 310, 350] {
            let mut s = Scenario::two_paths().both_serving();
            s.link_takes(ms);
            s.pass(3_000);
            s.crash(B);
            s.until_alone(A, true);
            s.start_when_down();
            s.until_both_serve();
            s.pass(2_000);
            assert!(s.serves(A) && s.serves(B));
            s.link_takes(0);
            s.end();
        }
    });
}
