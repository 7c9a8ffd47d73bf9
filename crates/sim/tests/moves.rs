//! Tasks of operators in each other's way, or in that of a disk that dies or a partner that joins.

use twincell_core::ids::Controller::{self, A, B};
use twincell_core::layout::metadata::Name;
use twincell_core::manage::ManageOp;
use twincell_sim::fault::{Fault, Point};
use twincell_sim::{Scenario, trace};

fn moved(name: &str, to: Controller) -> ManageOp {
    let name = Name::new(name).expect("a name");
    ManageOp::LunMove { name, to }
}

fn renamed(name: &str, to: &str) -> ManageOp {
    let [name, to] = [name, to].map(|n| Name::new(n).expect("a name"));
    ManageOp::LunRename { name, to }
}

fn deleted(name: &str) -> ManageOp {
    let name = Name::new(name).expect("a name");
    ManageOp::LunDelete { name }
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

/// B owns LUN 0 and has dirty data of it, one of whose two disks has just died: nothing of it drains until that disk is given
/// up, which A decides.
fn a_disk_dies_under_a_lun_of_b() -> Scenario {
    let mut s = Scenario::new().both_serving();
    s.manage(A, moved("lun0", B));
    s.until("A -> operator: Ok");
    s.fail_disk(Some(0));
    s.written(B, 0, 8);
    s.mark();
    s
}

/// A waits for B with the move that its operator asked for, and must give the disk up meanwhile.
#[test]
fn a_lun_is_fetched_while_one_of_its_disks_dies() {
    trace(&["deaf-while-the-partner-moves"], || {
        let mut s = a_disk_dies_under_a_lun_of_b();
        s.manage(A, moved("lun0", A));
        s.until("A -> operator: Ok");
        assert_eq!(s.owner(), A);
        s.fail_disk(None);
        s.end();
    });
}

/// The same for a LUN that is fetched to be deleted.
#[test]
fn a_lun_is_fetched_to_be_deleted_while_one_of_its_disks_dies() {
    let mut s = a_disk_dies_under_a_lun_of_b();
    let name = Name::new("lun0").expect("a name");
    s.manage(A, ManageOp::LunDelete { name });
    s.until("A -> operator: Ok");
    s.fail_disk(None);
    s.end();
}

/// B asks A for it: A fetches the LUN from B, which must have the disk given up meanwhile.
#[test]
fn a_lun_is_deleted_from_its_owner_while_one_of_its_disks_dies() {
    trace(&["deaf-while-a-lun-is-fetched"], || {
        let mut s = a_disk_dies_under_a_lun_of_b();
        let name = Name::new("lun0").expect("a name");
        s.manage(B, ManageOp::LunDelete { name });
        s.until("B -> operator: Ok");
        s.fail_disk(None);
        s.end();
    });
}

/// B asks A to delete it, and A asks B to move it, at the same time. A is busy then, and says so to B, which already moves the
/// LUN; later B asks for something else, the disk, and that is what it has an answer to next.
#[test]
fn a_lun_is_deleted_and_moved_while_one_of_its_disks_dies() {
    trace(&["who-is-answered-still-waits"], || {
        let mut s = a_disk_dies_under_a_lun_of_b();
        let name = Name::new("lun0").expect("a name");
        s.mark();
        s.manage(B, ManageOp::LunDelete { name });
        s.manage(A, moved("lun0", A));
        s.until("B -> operator: Err(Busy)");
        s.until("A -> operator: Ok");
        s.fail_disk(None);
        s.end();
    });
}

/// The partner falls when A has given up the disk, and is about to: it cannot move the LUN any more, and A says so.
#[test]
fn the_owner_falls_while_a_disk_is_given_up_for_it() {
    for step in ["manage DiskMissing", "record is BOTH"] {
        let mut s = a_disk_dies_under_a_lun_of_b();
        s.crash_at(B, step);
        s.manage(A, moved("lun0", A));
        s.until("A -> operator: Err");
        s.until_alone(A, true);
        s.fail_disk(None);
        s.start(B);
        s.until_both_serve();
        s.end();
    }
}

/// B stops when A is just in, and A still reads the metadata from a disk that is slow.
#[test]
fn who_stops_is_heard_by_a_partner_that_has_just_joined() {
    trace(&["leave-unheard"], || {
        let mut s = Scenario::new().both_serving();
        s.crash(A);
        s.until_alone(B, true);
        s.start(A);
        s.until("A -> B: attach");
        s.mark();
        let (name, to) = (Name::new("lun0").expect("a name"), Name::new("other").expect("a name"));
        s.manage(B, ManageOp::LunRename { name, to });
        s.until("votes for ALONE(B");
        s.stall_disks(&[0]);
        s.until("B -> operator: Ok");
        s.until("votes for BOTH");
        s.manage(B, ManageOp::Stop);
        s.pass(50);
        s.unstall_disk(0, 0);
        s.until_alone(A, true);
        s.until("B exits");
    });
}

/// The same when there is nothing to move: A owns everything, and both have just started.
#[test]
fn who_owns_nothing_stops() {
    trace(&["level-unheard"], || {
        let mut s = Scenario::new().both_serving();
        s.power_loss();
        s.start(A);
        s.start(B);
        s.until_both_serve();
        s.manage(B, ManageOp::Stop);
        s.until_alone(A, true);
        s.until("B exits");
    });
}

/// Both end, and start again: whatever the metadata are by now, they are there.
fn begin_again(mut s: Scenario) {
    Controller::BOTH.iter().for_each(|c| s.crash(*c));
    s.start_when_down();
    s.until_both_serve();
    s.end();
}

/// A comes back while B is alone. When B has voted for both an operator asks it for a change, and as soon as A is in another asks
/// A: only one of them may write new metadata.
#[test]
fn the_partner_that_comes_back_decides_next() {
    trace(&["both-change-the-metadata"], || {
        let mut s = Scenario::new().both_serving();
        s.crash(A);
        s.until_alone(B, true);
        s.start(A);
        s.until("votes for BOTH");
        s.mark();
        s.manage(B, renamed("lun1", "x"));
        s.until_both_serve();
        s.manage(A, renamed("lun0", "y"));
        s.pass(3_000);
        assert_eq!((replies(&s, A), replies(&s, B)), (1, 1));
        begin_again(s);
    });
}

/// B, alone, drains a LUN to delete it when A comes back, and A changes something else: whoever decides when the LUN is drained
/// deletes it.
#[test]
fn a_lun_drains_when_the_partner_comes_back() {
    trace(&["both-change-the-metadata"], || {
        for ms in (0..120).step_by(7) {
            let mut s = Scenario::new().both_serving();
            s.crash(A);
            s.until_alone(B, true);
            s.start(A);
            s.until("A <- B: attached");
            s.disk_writes_take(100);
            s.use_lun(1);
            s.write(B, 0, 8);
            s.until("B -> disk 0: write");
            s.disk_writes_take(0);
            s.mark();
            s.manage(B, deleted("lun1"));
            s.until_both_serve();
            s.pass(ms);
            s.manage(A, renamed("lun0", "y"));
            s.pass(3_000);
            assert_eq!((replies(&s, A), replies(&s, B)), (1, 1), "after {ms} ms");
            s.use_lun(0);
            begin_again(s);
        }
    });
}

/// B is asked to delete a LUN of its own. A deletes it, for which B has to give it away while it waits for that.
#[test]
fn the_partner_deletes_a_lun_for_its_owner() {
    trace(&["busy-with-what-the-partner-does"], || {
        let mut s = Scenario::new().both_serving();
        s.manage(A, moved("lun1", B));
        s.until("A -> operator: Ok");
        s.pass(200);
        s.manage(B, deleted("lun1"));
        s.until("B -> operator: Ok");
        s.use_lun(0);
        s.end();
    });
}

/// B stops and has given all away. A, which has not heard of that yet, moves a LUN to it: B must not leave with it.
#[test]
fn who_stops_is_given_a_lun_back() {
    trace(&["leave-with-a-lun"], || {
        let mut s = Scenario::new().both_serving();
        s.manage(A, moved("lun1", B));
        s.until("A -> operator: Ok");
        s.pass(200);
        s.link_takes(30);
        s.mark();
        s.manage(B, ManageOp::Stop);
        s.until("B -> A: record is BOTH");
        s.manage(A, moved("lun0", B));
        s.until("A notes: LunMoved");
        s.link_takes(0);
        s.until("B -> operator: Ok");
        let given = s.story().matches("B -> A: record is BOTH").count();
        assert_eq!(given, 2, "it gives that back, too, before it leaves");
        s.until("B exits");
        s.start_when_down();
        s.until_both_serve();
        s.end();
    });
}

/// A ends when its vote for other metadata is on most disks. It starts again, finishes the vote and serves; an operator wants
/// something else, and A ends once more when the metadata for that are written, over those that the record names which was in
/// force before. Whoever starts next must find the metadata of a record that the slots tell.
#[test]
fn a_vote_that_was_finished_is_told_before_other_metadata_are_written() {
    trace(&["metadata-before-the-record-is-told"], || {
        let mut s = Scenario::new().alone(A);
        s.crash_at(A, "A -> disk 2: votes for");
        s.manage(A, renamed("lun0", "x"));
        s.until("A ends");
        s.start(A);
        s.until("A serves");
        s.manage(A, renamed("lun1", "y"));
        s.until("A -> disk 2: metadata");
        s.fault(Fault::CrashBefore(A, Point::SlotWrite));
        s.until("A ends");
        s.start_when_down();
        s.until("A serves");
        s.until_both_serve();
        s.end();
    });
}

/// B, alone, changes the metadata while A joins; it votes for both as soon as that is decided, and before it has told what was
/// decided A changes the metadata once more. What B has done is done: it does not want it again, for ever.
#[test]
fn a_change_that_was_committed_is_not_wanted_again() {
    trace(&["want-again-what-was-committed"], || {
        let mut s = Scenario::new().both_serving();
        s.crash(A);
        s.until_alone(B, true);
        s.start(A);
        s.until("A holds its own locks");
        s.mark();
        s.manage(B, renamed("lun1", "x"));
        // The ballot takes so long that A is ready by then.
        s.until("A nv: a fresh image");
        s.fault(Fault::LoseSightOfAll(B, 20));
        s.until("A serves");
        // B cannot tell at once that both are in. What A does next it hears when it sees the disks again.
        s.fault(Fault::LoseSightOfAll(B, 1));
        s.link_takes(2);
        s.manage(A, renamed("lun0", "y"));
        s.pass(5_000);
        assert_eq!((replies(&s, A), replies(&s, B)), (1, 1));
        s.end();
    });
}

/// A LUN of B is enlarged, and B reads from a slow disk how large it is by now. Hosts of A know already.
#[test]
fn a_lun_is_larger_than_its_owner_knows() {
    trace(&["refuse-by-another-record"], || {
        let mut s = Scenario::new().both_serving();
        s.manage(A, moved("lun0", B));
        s.until("A -> operator: Ok");
        s.mark();
        s.link_takes(5);
        let name = Name::new("lun0").expect("a name");
        s.manage(A, ManageOp::LunGrow { name, blocks: 16_384 });
        s.until("A -> B: record is BOTH");
        s.stall_disks(&[0]);
        s.until("B <- A: record is BOTH");
        let write = s.write(A, 12_288, 8);
        s.pass(100);
        assert!(!s.is_over(write), "{}", s.story());
        s.unstall_disk(0, 0);
        s.good(write);
        s.end();
    });
}
