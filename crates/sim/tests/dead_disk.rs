//! A disk dies under a LUN without redundancy. That LUN may suffer; nothing else may.

use twincell_core::ids::Controller::{A, B};
use twincell_core::ids::DiskIndex;
use twincell_core::manage::ManageOp;
use twincell_sim::Scenario;

/// LUN 1 has no redundancy and its third part lies on disk 2. An acknowledged write of it waits for that disk. LUN 0's
/// first part lies on disks 0 and 1, which are in order.
fn a_dead_disk() -> Scenario {
    let mut s = Scenario::new().both_serving();
    s.fail_disk(Some(2));
    s.use_lun(1);
    s.written(A, 8192, 8);
    s.use_lun(0);
    s.pass(5_000);
    s
}

#[test]
fn plain_writes_of_another_lun() {
    let mut s = a_dead_disk();
    s.written(A, 0, 8);
}

/// FUA on the redundant LUN.
#[test]
fn fua_of_another_lun() {
    let mut s = a_dead_disk();
    let w = s.write_fua(A, 0, 8);
    s.good(w);
}

/// The partner is lost: every write waits for the disks now, and those of LUN 0 are in order.
#[test]
fn writes_of_another_lun_without_the_partner() {
    let mut s = a_dead_disk();
    s.crash(B);
    s.until_alone(A, true);
    let w = s.write(A, 0, 8);
    s.good(w);
}

/// The partner comes back.
/// The operator gives the LUN up.
/// The operator stops the controller.
/// An operator says that a disk is missing which has unflushed data of a LUN that has no other copy. They must be
/// flushed all the same.
#[test]
fn what_was_written_to_a_disk_that_is_given_up_is_flushed() {
    let mut s = Scenario::new().both_serving();
    s.use_lun(1);
    // On disk 1, and slow: while it is under way no flush begins.
    s.disk_writes_take(500);
    s.written(A, 4096, 8);
    s.until("A -> disk 1: write");
    // On disk 0.
    s.disk_writes_take(0);
    let w = s.written(A, 0, 8);
    s.until("A -> disk 0: write");
    s.pass(5);
    s.manage(A, ManageOp::DiskMissing { disk: DiskIndex(0) });
    s.until("A -> operator: Ok");
    s.pass(1_000);
    println!("{}", s.story());
    s.power_loss();
    s.start_when_down();
    s.until_both_serve();
    s.reads(A, 0, 8, w);
    s.end();
}

/// The same without the power loss: nothing is left to be flushed, and nobody frees the buffers.
#[test]
fn buffers_of_a_disk_that_is_given_up_come_free() {
    let mut s = Scenario::new().both_serving();
    s.use_lun(1);
    s.fail_disk(Some(1));
    s.written(A, 4096, 8);
    s.written(A, 0, 8);
    s.until("A -> disk 0: write");
    s.pass(5);
    s.manage(A, ManageOp::DiskMissing { disk: DiskIndex(0) });
    s.until("A -> operator: Ok");
    println!("{}", s.story());
    s.fail_disk(None);
    s.end();
}
