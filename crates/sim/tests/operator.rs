//! What only an operator can decide: to go on without a memory that may have what the disks lack (R8); and what needs none. What hangs
//! of a change that an operator wanted.

use twincell_core::ids::Controller::{A, B};
use twincell_core::ids::{PSEG_BLOCKS, Uuid};
use twincell_core::layout::metadata::{DiskState, Name, Redundancy};
use twincell_core::manage::ManageOp;
use twincell_sim::fault::Fault;
use twincell_sim::{Scenario, trace};

/// A was alone and dirty when it died for good.
fn only_b_is_left() -> Scenario {
    let mut s = Scenario::new().both_serving();
    s.crash(B);
    s.until_alone(A, true);
    s
}

#[test]
fn nothing_is_served_before_the_operator_accepts() {
    let mut s = only_b_is_left();
    let written = s.written(A, 0, 8);
    s.crash(A);
    s.start(B);
    s.pass(20_000);
    assert!(!s.serves(B));
    s.manage(B, ManageOp::AcceptLoss { missing: A });
    s.until("B serves");
    s.reads(B, 0, 8, written);
    s.end();
}

/// The one that was given up comes back: its image is worth nothing any more, whatever it holds.
#[test]
fn who_was_given_up_returns_empty() {
    let mut s = only_b_is_left();
    s.written(A, 0, 8);
    s.crash(A);
    s.start(B);
    s.pass(20_000);
    s.manage(B, ManageOp::AcceptLoss { missing: A });
    s.until("B serves");
    let newer = s.written(B, 0, 8);
    s.start(A);
    s.until_both_serve();
    s.crash(B);
    s.until("A serves");
    s.reads(A, 0, 8, newer);
    s.end();
}

/// The operator is wrong: A runs. Only one of them goes on, and it is A or nobody who lost anything.
#[test]
fn a_partner_that_shows_signs_of_life_is_not_given_up() {
    let mut s = only_b_is_left();
    let written = s.written(A, 0, 8);
    s.cut();
    s.start(B);
    s.pass(20_000);
    s.manage(B, ManageOp::AcceptLoss { missing: A });
    s.pass(5_000);
    assert!(s.serves(A) && !s.serves(B), "A's slots show that it is alive");
    s.mend();
    s.until_both_serve();
    s.reads(B, 0, 8, written);
    s.end();
}

/// It is wrong, and B has voted on one disk when it ends. A does not see that disk when it comes back, and serves: the vote must not win
/// when A wants the record changed later.
#[test]
fn who_was_nearly_given_up_goes_on() {
    trace(&["a-vote-of-who-gave-up-counts"], || {
        let mut s = only_b_is_left();
        // Its data are on disk 1.
        s.use_lun(1);
        s.crash(A);
        s.start(B);
        s.pass(20_000);
        s.crash_at(B, "B -> disk 0: votes for ALONE(B");
        s.manage(B, ManageOp::AcceptLoss { missing: A });
        s.until("B ends");
        s.pass(5);
        s.fault(Fault::LoseSight(A, 0, 1_000_000));
        s.start(A);
        s.until("A notes: Serving");
        s.pass(1);
        let written = s.written(A, 4096, 8);
        s.heal(Fault::LoseSight(A, 0, 1_000_000));
        s.until_alone(A, false);
        assert!(!s.tells("A notes: Out"), "nobody was to take over");
        s.start(B);
        s.until_both_serve();
        s.reads(B, 4096, 8, written);
        s.end();
    });
}

/// It is wrong by a hair: A starts in the moment at which its memory is given up.
#[test]
fn a_partner_that_returns_while_it_is_given_up() {
    for after in 0..40 {
        let mut s = only_b_is_left();
        let written = s.written(A, 0, 8);
        s.crash(A);
        s.start(B);
        s.pass(20_000);
        s.manage(B, ManageOp::AcceptLoss { missing: A });
        s.pass(after * 10);
        // B may be fenced: somebody starts it again.
        s.start_when_down();
        s.until_both_serve();
        s.reads(A, 0, 8, written);
        s.end();
    }
}

/// What the operator has accepted is over with the ballot that followed. The next takeover is one as any other: the record says
/// that the disks lack something, for as long as they do (R7).
#[test]
fn what_was_accepted_once_is_not_accepted_for_ever() {
    trace(&["acceptance-outlives-its-ballot"], || {
        let mut s = only_b_is_left();
        s.crash(A);
        s.start(B);
        s.pass(20_000);
        s.manage(B, ManageOp::AcceptLoss { missing: A });
        s.until("B serves");
        s.start(A);
        s.until_both_serve();
        s.disk_writes_take(3_000);
        let written = s.written(B, 0, 8);
        s.cut();
        s.crash(A);
        s.until_alone(B, true);
        s.crash(B);
        s.mend();
        s.start(A);
        s.pass(10_000);
        assert!(!s.serves(A), "A has nothing of what B has acknowledged");
        s.start(B);
        s.until_both_serve();
        s.reads(A, 0, 8, written);
        s.end();
    });
}

/// A changes its record all the time. That, too, is a sign of life.
#[test]
fn a_partner_that_changes_its_record_is_not_given_up() {
    trace(&["a-newer-record-is-no-sign-of-life"], || {
        let mut s = only_b_is_left();
        s.cut();
        s.start(B);
        s.pass(12_000);
        let names = [Name::new("lun0").unwrap(), Name::new("lun20").unwrap()];
        let mut written = s.written(A, 0, 8);
        for n in 0..16 {
            let (name, to) = (names[n % 2], names[(n + 1) % 2]);
            s.manage(A, ManageOp::LunRename { name, to });
            s.pass(250);
            written = s.written(A, 0, 8);
        }
        s.manage(B, ManageOp::AcceptLoss { missing: A });
        s.pass(5_000);
        assert!(s.serves(A) && !s.serves(B), "A's records show that it is alive");
        s.mend();
        s.until_both_serve();
        s.reads(B, 0, 8, written);
        s.end();
    });
}

/// A was alone and dirty, and starts with an empty memory while B waits: it is A's memory that is lost, and whoever is told so goes
/// on. B joins.
#[test]
fn who_has_lost_its_own_memory_says_so() {
    trace(&["the-partner-has-what-is-missing"], || {
        let mut s = only_b_is_left();
        s.written(A, 0, 8);
        s.lose(A);
        s.start(B);
        s.start(A);
        s.pass(10_000);
        assert!(!s.serves(A) && !s.serves(B));
        s.until("A notes: AwaitsOperator { missing: A }");
        s.manage(A, ManageOp::AcceptLoss { missing: B });
        s.until("A -> operator: Err(NothingToAccept)");
        s.manage(A, ManageOp::AcceptLoss { missing: A });
        s.until_both_serve();
        let newer = s.written(B, 0, 8);
        s.reads(A, 0, 8, newer);
        s.end();
    });
}

/// The same, and the machine of A is given up with its memory: B goes on.
#[test]
fn who_has_lost_its_memory_is_given_up() {
    let mut s = only_b_is_left();
    s.written(A, 0, 8);
    s.lose(A);
    s.start(A);
    s.pass(5_000);
    s.crash(A);
    s.start(B);
    s.pass(10_000);
    s.manage(B, ManageOp::AcceptLoss { missing: A });
    s.until("B serves");
    s.start(A);
    s.until_both_serve();
    s.end();
}

/// A is alone. It lets B join, and is lost with its memory when its vote for that reaches this disk.
fn lose_a_as_it_votes(s: &mut Scenario, disk: usize) {
    s.mark();
    s.crash_at(A, &format!("A -> disk {disk}: votes for BOTH"));
    s.start(B);
    s.until("A ends");
    s.lose(A);
}

/// A lets B join, and is lost with its memory when it has voted for that on some disks: B finishes the vote with the image that it has,
/// which the vote names, and serves.
#[test]
fn who_was_voted_in_serves() {
    trace(&["wipe-what-a-vote-names"], || {
        for disk in 0..3 {
            let mut s = Scenario::new().both_serving();
            let written = s.written(A, 0, 8);
            s.crash(B);
            s.until_alone(A, true);
            s.until_alone(A, false);
            lose_a_as_it_votes(&mut s, disk);
            s.until("B serves");
            s.reads(B, 0, 8, written);
            s.start(A);
            s.until_both_serve();
            s.reads(A, 0, 8, written);
            s.end();
        }
    });
}

/// The same where A had data in memory that wait for a dead disk: B has all of them.
#[test]
fn who_was_voted_in_has_what_the_disks_lack() {
    trace(&["wipe-what-a-vote-names"], || {
        for disk in 1..3 {
            let mut s = Scenario::new().both_serving();
            s.use_lun(1);
            s.fail_disk(Some(2));
            let written = s.written(A, 8192, 8);
            s.pass(5_000);
            s.crash(B);
            s.until_alone(A, true);
            lose_a_as_it_votes(&mut s, disk);
            s.fail_disk(None);
            s.until("B serves");
            s.reads(B, 8192, 8, written);
            s.start(A);
            s.until_both_serve();
            s.end();
        }
    });
}

/// B says hello to A's next process, which waits for the locks of the one before, and then finishes the vote: it says hello anew.
#[test]
fn who_was_voted_in_says_hello_anew() {
    trace(&["greeted-by-the-record-before-the-vote"], || {
        let mut s = Scenario::new().both_serving();
        s.crash(B);
        s.until_alone(A, true);
        s.stall_disks(&[0]);
        s.write_fua(A, 0, 8);
        s.until("A -> disk 0: write");
        s.crash_at(A, "A -> disk 1: votes for BOTH");
        s.start(B);
        s.until("A ends");
        s.start(A);
        s.until("B notes: AwaitsPartner");
        s.stall_disks(&[]);
        s.until_both_serve();
        s.end();
    });
}

/// B is alone, and everything has two copies.
fn b_is_alone_with_copies() -> Scenario {
    let mut s = Scenario::new().both_serving().all_mirrored();
    s.pass(500);
    s.crash(A);
    s.until_alone(B, true);
    s
}

/// B is alone, everything has two copies, and an operator changes the metadata just as a disk begins to hang for good, which is given
/// up. A comes back all the same.
fn a_returns_though_it_hangs(disk: usize, asked: ManageOp) {
    let mut s = b_is_alone_with_copies();
    s.pass(500);
    s.stall_disks(&[disk]);
    s.manage(B, asked);
    s.until_disk(B, disk, DiskState::Missing);
    let written = s.write_fua(B, 0, 8);
    s.good(written);
    s.start(A);
    s.until_both_serve();
    s.stall_disks(&[]);
    s.end();
}

#[test]
fn metadata_that_hang_on_a_missing_disk_keep_nobody_out() {
    trace(&["what-a-missing-disk-is-to-take-counts"], || {
        let [name, to] = ["lun0", "x"].map(|n| Name::new(n).expect("a name"));
        a_returns_though_it_hangs(0, ManageOp::LunRename { name, to });
        a_returns_though_it_hangs(2, ManageOp::LunRename { name, to });
    });
}

/// The same where the disk was missing before, because it failed, and hangs since.
#[test]
fn metadata_that_hang_where_a_disk_was_missing_already_keep_nobody_out() {
    trace(&["what-a-missing-disk-is-to-take-counts"], || {
        for disk in [0, 2] {
            let mut s = b_is_alone_with_copies();
            s.fail_disk(Some(disk));
            let written = s.write_fua(B, if disk < 2 { 0 } else { 4_096 }, 8);
            s.until_disk(B, disk, DiskState::Missing);
            s.good(written);
            s.pass(3_000);
            s.stall_disks(&[disk]);
            s.fail_disk(None);
            let [name, to] = ["lun0", "x"].map(|n| Name::new(n).expect("a name"));
            s.mark();
            s.manage(B, ManageOp::LunRename { name, to });
            s.until("B -> operator: Ok");
            s.pass(5_000);
            s.start(A);
            s.until_both_serve();
            s.stall_disks(&[]);
            s.end();
        }
    });
}

#[test]
fn zeroes_that_hang_on_a_missing_disk_keep_nobody_out() {
    trace(&["what-a-missing-disk-is-to-take-counts"], || {
        let (name, uuid) = (Name::new("new").expect("a name"), Uuid(4711));
        let (blocks, redundancy) = (3 * PSEG_BLOCKS, Redundancy::None);
        a_returns_though_it_hangs(
            3,
            ManageOp::LunCreate {
                name,
                uuid,
                blocks,
                redundancy,
            },
        );
    });
}
