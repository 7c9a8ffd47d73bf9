//! What can be done at once is done at once: after each step a copy of the core has nothing left to do.

use twincell_core::ids::Controller::{A, B};
use twincell_core::ids::Time;
use twincell_core::layout::metadata::Name;
use twincell_core::manage::ManageOp;
use twincell_core::{Core, Effect, Event};
use twincell_sim::fault::Fault;
use twincell_sim::{Scenario, Sent, trace};

fn in_full(core: &mut Core, now: Time, event: Event, effects: &mut Vec<Effect>) {
    core.step(now, event, effects);
    assert_eq!(core.left_undone(), None);
}

fn move_lun_0_to_b() -> ManageOp {
    let name = Name::new("lun0").expect("a name");
    ManageOp::LunMove { name, to: B }
}

/// A LUN is about to go to B, which falls. Whoever waited for that begins when A is alone.
#[test]
fn who_waits_for_a_task_begins_when_it_ends() {
    trace(&["turns-before-tasks"], || {
        let mut s = Scenario::new().each_step(in_full).both_serving();
        s.disk_writes_take(3_000);
        s.written(A, 0, 8);
        s.until("A -> disk 1: write");
        s.manage(A, move_lun_0_to_b());
        s.pass(10);
        let waits = s.write(A, 64, 8);
        s.crash(B);
        s.until("A -> operator: Err(ControllerOut)");
        s.good(waits);
        s.end();
    });
}

/// What a joiner lacks goes to the disks, and whoever writes over it waits. The joiner goes.
#[test]
fn who_waits_for_a_joiner_begins_when_it_is_gone() {
    trace(&["a-lost-joiner-wakes-nobody"], || {
        let mut s = Scenario::new().each_step(in_full).both_serving();
        s.disk_writes_take(800);
        s.written(A, 0, 8);
        s.crash(B);
        s.until_alone(A, true);
        s.start(B);
        s.until("A -> B: attached");
        let waits = s.write(A, 0, 8);
        s.pass(10);
        s.crash(B);
        s.good(waits);
        s.end();
    });
}

/// A long write waits for memory, and a short one of another LUN behind it, for which there is enough. The LUN of the long one is
/// about to go to B: it is held back.
#[test]
fn who_waits_for_memory_behind_a_lun_that_moves() {
    trace(&["others-wait-behind-who-is-held-back"], || {
        let mut s = Scenario::small().each_step(in_full).both_serving();
        s.disk_writes_take(800);
        // Half of all memory, and a quarter: what is left is too little for the long one.
        s.written(A, 0, 256);
        s.written(A, 4096, 128);
        let long = s.write(A, 4352, 256);
        s.pass(5);
        assert!(!s.is_over(long), "it waits for memory");
        s.use_lun(1);
        let short = s.write(A, 8192, 8);
        s.pass(5);
        assert!(!s.is_over(short), "it waits behind the long one");
        s.manage(A, move_lun_0_to_b());
        s.good(short);
        s.end();
    });
}

/// All transfer buffers are taken, and a read that needs one waits, with one behind it that needs none. Then the disk of the first is
/// busy, too, by a read of the partner: whether the other waits does not change with that.
#[test]
fn who_waits_for_a_transfer_buffer_does_so_whatever_its_disk_does() {
    trace(&["a-full-disk-hides-a-lack"], || {
        let mut s = Scenario::small().each_step(in_full).both_serving();
        s.written(A, 0, 8);
        s.disk_reads_take(20);
        s.use_lun(1);
        let mut sent: Vec<Sent> = [8192, 0, 4096, 8300].map(|start| s.read(A, start, 8)).into();
        s.use_lun(0);
        sent.push(s.read(A, 0, 8));
        s.use_lun(1);
        sent.push(s.read(B, 8400, 8));
        sent.into_iter().for_each(|read| s.good(read));
        s.end();
    });
}

/// A write comes while "clean" is balloted, and no majority of the slots can be written: nothing was voted, and it may begin.
#[test]
fn a_write_waits_for_a_ballot_that_fails() {
    trace(&["a-ballot-that-fails-wakes-nobody"], || {
        let mut s = Scenario::new().each_step(in_full).both_serving();
        s.crash(B);
        s.until_alone(A, true);
        s.pass(250);
        let first = s.write(A, 0, 8);
        s.good(first);
        // After a second without a write.
        s.pass(990);
        s.stall_disks(&[0, 1]);
        s.pass(100);
        let waits = s.write(A, 64, 8);
        s.pass(950);
        s.stall_disks(&[]);
        s.good(waits);
        s.start(B);
        s.end();
    });
}

/// A flush makes room. The first write waits for its disk's share of it; the second begins; the third, for the same disk as that, lacks
/// memory, and the fourth is passed over. Once the second has begun the first needs that disk, too, and the third waits behind it: the
/// fourth, for another disk, waits for nobody.
#[test]
fn a_write_is_passed_over_for_one_that_waits_for_something_else() {
    trace(&["who-is-passed-over-waits-for-an-event"], || {
        let mut s = Scenario::small().each_step(in_full).both_serving();
        s.fault(Fault::SlowDisk(0, 500, 10_000));
        // 34 granules on disks 2 and 3, 20 on disk 0.
        [(0, 4096, 256), (0, 4352, 16), (1, 0, 160)]
            .into_iter()
            .for_each(|(lun, start, blocks)| {
                s.use_lun(lun);
                s.written(A, start, blocks);
            });
        let sent = [(0, 0, 256), (1, 4096, 256), (1, 5120, 128), (1, 8192, 8)].map(|(lun, start, blocks)| {
            s.use_lun(lun);
            s.write(A, start, blocks)
        });
        s.heal(Fault::SlowDisk(0, 500, 10_000));
        sent.into_iter().for_each(|write| s.good(write));
        s.end();
    });
}

/// A is alone, and the disks that vote are so slow that the next sign of life is due when the last has ended. What waits until nothing is
/// asked of them has its turn all the same: a disk is given up, an operator has an answer, and A stops.
#[test]
fn there_is_a_moment_between_two_rounds() {
    trace(&["one-round-after-the-other"], || {
        let mut s = Scenario::new().both_serving();
        s.crash(B);
        s.until_alone(A, true);
        s.slots_take(260);
        s.pass(3_000);
        s.stall_disks(&[3]);
        let written = s.write(A, 4096, 8);
        s.pass(20_000);
        assert!(s.is_good(written), "its other copy is on disk 2");
        let name = |name| Name::new(name).expect("a name");
        let (name, to) = (name("lun0"), name("other"));
        s.manage(A, ManageOp::LunRename { name, to });
        s.until("A -> operator: Ok");
        s.unstall_disk(3, 0);
        s.manage(A, ManageOp::Stop);
        s.until("A exits");
        s.end();
    });
}
