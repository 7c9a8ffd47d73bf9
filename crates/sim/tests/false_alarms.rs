//! What the simulator once took for a failure of the core, or made the core fail at though nothing promises that.

use twincell_core::ids::Controller::{A, B};
use twincell_core::layout::metadata::{DiskState, Name};
use twincell_core::manage::ManageOp;
use twincell_sim::Scenario;
use twincell_sim::fault::Fault;

/// A write hangs on a disk that was given up. It lands when its controller, which was started since, is down: whatever there is in the
/// buffer by then, the disk counts for nothing.
#[test]
fn a_write_to_a_missing_disk_lands_while_its_controller_is_down() {
    let mut s = Scenario::new().both_serving().all_mirrored();
    let before = s.write_fua(A, 4096, 8);
    s.good(before);
    s.pass(500);
    s.stall_disks(&[3]);
    let hangs = s.write_fua(A, 4096, 8);
    s.good(hangs);
    s.until_disk(A, 3, DiskState::Missing);
    s.until_disk(B, 3, DiskState::Missing);
    s.crash(A);
    s.pass(3_000);
    s.start(A);
    s.until_both_serve();
    let (name, to) = (Name::new("lun0").expect("a name"), A);
    s.manage(B, ManageOp::LunMove { name, to });
    s.pass(1_000);
    // Its buffer is used once, and then again.
    s.written(A, 64, 8);
    s.pass(2_000);
    s.crash_at(A, "A <- host: data");
    s.write_long(A, 0, 8);
    s.until("A ends");
    s.unstall_disk(3, 0);
    s.pass(100);
    s.start_when_down();
    s.until_both_serve();
    s.end();
}

/// The disk after which the shelf stands still has been late before: what hangs then ends with the standstill all the same.
#[test]
fn a_stall_of_all_disks_ends_for_all() {
    let mut s = Scenario::new().both_serving();
    let first = s.write_fua(A, 0, 8);
    s.good(first);
    s.stall_disks(&[1]);
    s.pass(100);
    s.unstall_disk(1, 3_000);
    s.pass(10_000);
    s.fault(Fault::StallAll(2_000));
    s.written(A, 16, 8);
    s.pass(30_000);
    s.crash(A);
    s.start_when_down();
    s.until("B serves");
    s.end();
}

/// A disk was slow, and is given up for the next that is late: its pair is not lost just then.
#[test]
fn no_disk_is_lost_right_after_its_pair_was_slow() {
    let mut s = Scenario::new().both_serving().all_mirrored();
    let first = s.write_fua(A, 4096, 8);
    s.good(first);
    s.pass(2_000);
    s.fault(Fault::SlowDisk(3, 2_100, 3_300));
    s.written(A, 4104, 8);
    s.pass(950);
    s.written(A, 4112, 8);
    s.pass(2_500);
    s.fault(Fault::LoseDisk(2));
    s.pass(20_000);
    s.start_when_down();
    s.end();
}

/// Nor while a controller that has not handled the errors of the pair yet stands still.
#[test]
fn no_disk_is_lost_while_a_controller_stands_still() {
    let mut s = Scenario::new().both_serving().all_mirrored();
    let first = s.write_fua(A, 0, 8);
    s.good(first);
    s.pass(500);
    s.mark();
    s.fail_writes(Some(0));
    s.written(A, 8, 8);
    s.until("A <- disk: error");
    s.until("A -> disk 0: write");
    s.pause(A, 1_300);
    s.pass(50);
    s.fail_writes(None);
    s.pass(500);
    s.fault(Fault::LoseDisk(1));
    s.pass(5_000);
    s.reads(B, 0, 8, first);
    s.start_when_down();
    s.end();
}

/// A waits for its partner's memory, or is about to: the word that gives that up would be heard when it goes on, and taken.
#[test]
fn nobody_accepts_a_loss_while_a_controller_stands_still() {
    let waits_after = accepts_loss_in_a_pause(None);
    for before in (0..500).step_by(20) {
        accepts_loss_in_a_pause(Some(waits_after - before));
    }
}

/// How long it takes until B waits for the operator; or B stands still so long after its start, and the word comes meanwhile.
fn accepts_loss_in_a_pause(at: Option<u64>) -> u64 {
    let mut s = Scenario::new().both_serving();
    let written = s.written(A, 0, 8);
    s.crash(B);
    s.until("A notes: ballot won");
    s.crash(A);
    s.start(B);
    s.slots_take(60);
    let started = s.now();
    let Some(at) = at else {
        s.until("B notes: AwaitsOperator");
        return s.now() - started;
    };
    s.pass(at);
    s.pause(B, 280);
    s.pass(250);
    s.fault(Fault::AcceptLoss(B));
    s.pass(10_000);
    s.start_when_down();
    s.until_both_serve();
    s.reads(B, 0, 8, written);
    s.end();
    0
}
