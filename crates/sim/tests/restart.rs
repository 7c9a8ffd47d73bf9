//! Both were in when both ended, and both come back (R6).

use twincell_core::ids::Controller::{A, B};
use twincell_sim::Scenario;

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
