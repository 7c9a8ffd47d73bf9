//! Both controllers are asked for something at the same moment.

use twincell_core::ids::Controller::{self, A, B};
use twincell_core::layout::metadata::Name;
use twincell_core::manage::ManageOp;
use twincell_sim::Scenario;

fn moved(name: &str, to: Controller) -> ManageOp {
    let name = Name::new(name).expect("a name");
    ManageOp::LunMove { name, to }
}

fn replies(s: &Scenario, c: Controller) -> usize {
    s.story()
        .lines()
        .filter(|l| l.contains(&format!("{c} -> operator:")))
        .count()
}

/// A has voted for its own move; B, whose ballot has the higher number, finds the vote and completes it. A hears of the
/// success of its own change from B. Its operator must hear of it, too, and A must take the next task.
fn a_move_that_the_partner_completes() -> Scenario {
    let mut s = Scenario::new().both_serving();
    s.manage(A, moved("lun1", B));
    s.pass(50);
    // Once in each other's way: from here on B's ballot numbers are the higher ones.
    s.mark();
    s.manage(A, moved("lun0", B));
    s.until("A -> disk 0: votes for");
    s.manage(B, moved("lun1", A));
    s.pass(100);
    // Again.
    s.mark();
    s.manage(A, moved("lun1", B));
    s.until("A -> disk 0: votes for");
    s.manage(B, moved("lun0", A));
    s.pass(60_000);
    s
}

#[test]
fn both_operators_hear() {
    let s = a_move_that_the_partner_completes();
    assert_eq!(replies(&s, B), 1, "B's operator hears");
    assert_eq!(replies(&s, A), 1, "A's operator hears");
}

#[test]
fn the_next_task_is_not_refused() {
    let mut s = a_move_that_the_partner_completes();
    s.mark();
    s.manage(A, moved("lun0", B));
    s.pass(1_000);
    assert!(s.story().contains("A -> operator: Ok"), "{}", s.story());
}

/// Not even a clean stop of A is possible any more.
#[test]
fn the_coordinator_can_be_stopped() {
    let mut s = a_move_that_the_partner_completes();
    s.mark();
    s.manage(A, ManageOp::Stop);
    s.until("A exits");
}
