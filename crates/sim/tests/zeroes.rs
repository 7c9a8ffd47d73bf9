//! What a new LUN is to have is zeroed, which may take hours: nothing waits for it but the LUN.

use twincell_core::ids::Controller::{A, B};
use twincell_core::ids::{Controller, PSEG_BLOCKS, Uuid};
use twincell_core::layout::metadata::{DiskState, Name, Redundancy};
use twincell_core::manage::ManageOp;
use twincell_sim::{Scenario, trace};

fn create(redundancy: Redundancy) -> ManageOp {
    ManageOp::LunCreate {
        name: Name::new("new").expect("a name"),
        uuid: Uuid(77),
        blocks: 2 * PSEG_BLOCKS,
        redundancy,
    }
}

/// A zeroes what a new LUN is to have, for a minute.
fn zeroing(mut s: Scenario, asked: Controller) -> Scenario {
    s.zeroes_take(60_000);
    s.manage(asked, create(Redundancy::Vraid1));
    s.pass(100);
    s.mark();
    s
}

/// A disk fails or stalls meanwhile: it is given up as at any other time, whoever notices.
#[test]
fn a_disk_is_given_up() {
    trace(&["deaf-while-a-lun-is-zeroed"], || {
        for stalls in [false, true] {
            let mut s = zeroing(Scenario::new().both_serving(), B);
            if stalls {
                s.stall_disks(&[0]);
            } else {
                s.fail_disk(Some(0));
            }
            let write = s.write_fua(B, 0, 8);
            s.pass(8_000);
            assert!(s.is_good(write), "stalls: {stalls}");
            assert_eq!(s.disk_state(A, 0), DiskState::Missing);
            s.fail_disk(None);
            s.unstall_disk(0, 0);
            s.end();
        }
    });
}

/// The LUN is not made if one of its disks was given up meanwhile, and it is if another was.
#[test]
fn the_lun_is_made_if_its_disks_are_in_order() {
    let (mut made, mut failed) = (0, 0);
    for disk in 0..4 {
        let mut s = Scenario::new().both_serving();
        s.zeroes_take(20_000);
        s.manage(A, create(Redundancy::None));
        s.pass(100);
        s.mark();
        s.fail_disk(Some(disk));
        let write = s.write_fua(A, 0, 8);
        s.good(write);
        s.pass(30_000);
        made += usize::from(s.tells("A -> operator: Ok"));
        failed += usize::from(s.tells("A -> operator: Err"));
        s.fail_disk(None);
        s.end();
    }
    assert!(
        made > 0 && failed > 0 && made + failed == 4,
        "{made} made, {failed} failed"
    );
}

/// The partner comes back meanwhile: A decides before and after, and lets it in.
#[test]
fn a_partner_joins() {
    let mut s = zeroing(Scenario::new().alone(A), A);
    s.start(B);
    s.pass(10_000);
    assert!(s.serves(A) && s.serves(B));
    s.pass(60_000);
    assert!(s.tells("A -> operator: Ok"), "{}", s.story());
    s.end();
}

/// The controller is stopped meanwhile: it does not finish first, but what is on its way, for which its partner would wait.
#[test]
fn it_is_stopped() {
    let mut s = Scenario::new().both_serving();
    s.zeroes_take(5_000);
    s.manage(A, create(Redundancy::Vraid1));
    s.pass(100);
    s.mark();
    s.manage(A, ManageOp::Stop);
    s.pass(4_000);
    let written = s.written(A, 0, 8);
    s.pass(3_000);
    assert!(s.tells("Ok(Stopping)") && s.tells("Err(NotServing)"), "{}", s.story());
    assert!(s.serves(B) && !s.serves(A));
    s.reads(B, 0, 8, written);
    s.end();
}

/// Zeroes do not end in time, and the task is given up. The same place is not zeroed again while they may still land.
#[test]
fn nothing_is_zeroed_where_zeroes_are_late() {
    trace(&["zero-where-zeroes-are-late"], || {
        let mut s = Scenario::new().both_serving();
        s.stall_disks(&[2]);
        s.manage(A, create(Redundancy::None));
        s.until("A <- disk: overdue");
        s.until("A -> operator: Err(DiskError)");
        s.manage(A, create(Redundancy::None));
        s.until("A -> operator: Err(AwaitsDisk)");
        s.stall_disks(&[]);
        s.end();
    });
}

/// Zeroes of B do not end in time; A comes back, decides from now on, and is to make what B could not. The same place is its own
/// only once nothing of B's may land there.
#[test]
fn nobody_joins_whom_late_zeroes_would_surprise() {
    trace(&["whoever-joins-knows-of-late-zeroes"], || {
        let mut s = Scenario::new().alone(B);
        s.stall_disks(&[3]);
        s.manage(B, create(Redundancy::None));
        s.until("B -> operator: Err(DiskError)");
        s.mark();
        s.unstall_disk(3, 4_000);
        s.start(A);
        s.until_both_serve();
        s.manage(A, create(Redundancy::None));
        s.until("A -> operator: Ok");
        s.use_lun(2);
        let kept = s.write_fua(A, 0, 8);
        s.good(kept);
        s.pass(5_000);
        s.crash(A);
        s.until_alone(B, true);
        s.reads(B, 0, 8, kept);
        s.start(A);
        s.end();
    });
}

/// New metadata of B do not end in time on one disk. A, which comes back and decides from now on, could write newer ones there before
/// they land: it is no partner until they have, or the disk is given up, where they count for nothing.
#[test]
fn nobody_joins_whom_late_metadata_would_surprise() {
    trace(&["whoever-joins-knows-of-late-metadata"], || {
        let mut s = Scenario::new().alone(B);
        s.stall_disks(&[2]);
        let [name, to] = ["lun0", "other"].map(|n| Name::new(n).expect("a name"));
        s.manage(B, ManageOp::LunRename { name, to });
        s.until("B -> operator: Ok");
        s.unstall_disk(2, 10_000);
        s.mark();
        s.start(A);
        s.pass(1_000);
        assert!(s.serves(B) && !s.serves(A));
        s.until_both_serve();
        s.end();
    });
}

/// A zeroes what an operator of B wants, and B has a LUN of its own: it gives up a disk that only it uses, and stops when it is told to.
#[test]
fn a_disk_of_the_one_that_has_it_zeroed_is_given_up() {
    trace(&["deaf-while-the-partner-zeroes"], || {
        let b_owns = || {
            let mut s = Scenario::new().both_serving();
            let name = Name::new("lun0").expect("a name");
            s.manage(A, ManageOp::LunMove { name, to: B });
            s.until("A -> operator: Ok");
            zeroing(s, B)
        };
        let mut s = b_owns();
        s.fail_disk(Some(0));
        let write = s.write_fua(B, 0, 8);
        s.pass(8_000);
        assert!(s.is_good(write), "{}", s.story());
        assert_eq!(s.disk_state(A, 0), DiskState::Missing);
        s.fail_disk(None);
        s.end();
    });
}

#[test]
fn the_one_that_has_a_lun_zeroed_stops() {
    trace(&["deaf-while-the-partner-zeroes"], || {
        let mut s = zeroing(Scenario::new().both_serving(), B);
        s.manage(B, ManageOp::Stop);
        s.until("B -> operator: Ok(Stopping)");
        s.until("B -> operator: Err(Unknown)");
        s.until("A serves");
        s.start(B);
        s.until_both_serve();
        s.end();
    });
}
