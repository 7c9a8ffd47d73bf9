//! A disk dies under a LUN that has no other copy, and an acknowledged write waits for it in NV memory. That LUN suffers;
//! it can be deleted, nobody is kept from stopping, and what was acknowledged is there again when the disk is.

use twincell_core::ids::Controller::{A, B};
use twincell_core::ids::Uuid;
use twincell_core::layout::metadata::{Name, Redundancy};
use twincell_core::manage::ManageOp;
use twincell_sim::{Scenario, Sent, trace};

fn lun1() -> Name {
    Name::new("lun1").expect("a name")
}

/// LUN 1 has no redundancy, A owns it, and its third part lies on disk 2.
fn a_dead_disk() -> (Scenario, Sent) {
    let mut s = Scenario::new().both_serving();
    s.fail_disk(Some(2));
    s.use_lun(1);
    let kept = s.written(A, 8192, 8);
    s.pass(5_000);
    s.mark();
    (s, kept)
}

#[test]
fn the_lun_is_deleted_and_nothing_of_it_comes_back() {
    trace(&["deleted-data-keep-their-twins"], || {
        let (mut s, _) = a_dead_disk();
        s.manage(A, ManageOp::LunDelete { name: lun1() });
        s.until("A -> operator: Ok");
        s.fail_disk(None);
        s.manage(
            A,
            ManageOp::LunCreate {
                name: lun1(),
                uuid: Uuid(4711),
                blocks: 3 * 4096,
                redundancy: Redundancy::None,
            },
        );
        s.mark();
        s.until("A -> operator: Ok");
        s.crash(A);
        s.until_alone(B, true);
        // Each read is checked: a new LUN is zero.
        s.use_lun(2);
        let read = s.read(B, 8192, 8);
        s.good(read);
        s.start(A);
        s.end();
    });
}

/// The owner falls when the record has no LUN any more, and the partner's image still has data of it.
#[test]
fn the_owner_falls_while_the_lun_is_deleted() {
    for step in ["metadata 0", "votes for BOTH", "BMAE 0 Free", "release [0]"] {
        let (mut s, _) = a_dead_disk();
        s.crash_at(A, step);
        s.manage(A, ManageOp::LunDelete { name: lun1() });
        s.fail_disk(None);
        s.until_alone(B, true);
        s.start(A);
        s.until_both_serve();
        s.end();
    }
}

#[test]
fn the_lun_does_not_move() {
    let (mut s, kept) = a_dead_disk();
    s.manage(A, ManageOp::LunMove { name: lun1(), to: B });
    s.until("A -> operator: Err(AwaitsDisk)");
    s.fail_disk(None);
    s.reads(B, 8192, 8, kept);
    s.end();
}

/// The partner takes over what the one that stops could not bring to disk.
#[test]
fn a_controller_stops() {
    let (mut s, kept) = a_dead_disk();
    s.manage(A, ManageOp::Stop);
    s.until("A -> operator: Ok");
    s.until_alone(B, true);
    s.reads(B, 8192, 8, kept);
    s.use_lun(0);
    let written = s.write_fua(B, 0, 8);
    s.good(written);
    s.use_lun(1);
    s.fail_disk(None);
    s.start(A);
    s.until_both_serve();
    s.reads(A, 8192, 8, kept);
    s.end();
}

/// What only the memory of the last one has is there again when it starts.
#[test]
fn both_stop() {
    let (mut s, kept) = a_dead_disk();
    s.manage(A, ManageOp::Stop);
    s.until("A -> operator: Ok");
    s.until_alone(B, true);
    s.manage(B, ManageOp::Stop);
    s.until("B -> operator: Ok");
    s.fail_disk(None);
    s.start_when_down();
    s.until_both_serve();
    s.reads(A, 8192, 8, kept);
    s.end();
}
