//! What an operator asks that cannot be, and what is just possible.

use twincell_core::ids::Controller::{A, B};
use twincell_core::ids::{Controller, DiskIndex, PSEG_BLOCKS, Uuid};
use twincell_core::layout::metadata::{DiskState, Name, Redundancy};
use twincell_core::manage::ManageOp;
use twincell_sim::Scenario;

/// Blocks of the LUNs that are there from the beginning.
const BLOCKS: u64 = 3 * PSEG_BLOCKS;
/// PSEGs of each of the four disks.
const PSEGS: u32 = 16;

fn name(text: &str) -> Name {
    Name::new(text).expect("a name")
}

fn create(lun: &str, blocks: u64, redundancy: Redundancy) -> ManageOp {
    ManageOp::LunCreate {
        name: name(lun),
        uuid: Uuid(900),
        blocks,
        redundancy,
    }
}

fn grow(lun: &str, blocks: u64) -> ManageOp {
    ManageOp::LunGrow {
        name: name(lun),
        blocks,
    }
}

/// Asks `c`, and wants to hear an answer that begins so.
#[track_caller]
fn hears(s: &mut Scenario, c: Controller, op: ManageOp, answer: &str) {
    s.until_both_serve();
    s.mark();
    s.manage(c, op);
    s.until(&format!("{c} -> operator: "));
    let told = format!("{c} -> operator: {answer}");
    assert!(s.tells(&told), "{op:?} is not answered {answer}:\n{}", s.story());
}

fn both() -> Scenario {
    Scenario::new().both_serving()
}

#[test]
fn a_lun_is_made_once() {
    let mut s = both();
    for c in [A, B] {
        let changes = |s: &Scenario| s.tells("metadata 1") || s.tells("metadata 0");
        hears(&mut s, c, create("lun0", BLOCKS, Redundancy::Vraid1), "Ok(Lun");
        assert!(!changes(&s), "it was there");
        hears(
            &mut s,
            c,
            create("lun0", BLOCKS + 1, Redundancy::Vraid1),
            "Err(NameTaken)",
        );
        hears(&mut s, c, create("lun0", BLOCKS, Redundancy::None), "Err(NameTaken)");
    }
    s.end();
}

/// 64 PSEGs, of which the two LUNs have 9.
#[test]
fn a_pool_is_full_when_it_is_full() {
    let mut s = both();
    hears(
        &mut s,
        A,
        create("big", 56 * PSEG_BLOCKS, Redundancy::None),
        "Err(PoolFull",
    );
    hears(&mut s, A, create("big", 55 * PSEG_BLOCKS, Redundancy::None), "Ok(Lun");
    hears(&mut s, A, create("small", 1, Redundancy::None), "Err(PoolFull");
    hears(&mut s, A, grow("lun1", BLOCKS + 1), "Err(PoolFull");
}

#[test]
fn a_lun_grows_and_does_not_shrink() {
    let mut s = both();
    for c in [A, B] {
        hears(&mut s, c, grow("none", BLOCKS), "Err(NoSuchLun)");
        hears(&mut s, c, grow("lun0", BLOCKS - 1), "Err(Shrink");
        hears(&mut s, c, grow("lun0", BLOCKS), "Ok(Done)");
        assert!(!s.tells("metadata"), "nothing is to be changed");
    }
    // Within its last PSEG, and beyond.
    hears(&mut s, A, grow("lun0", 3 * PSEG_BLOCKS + 1), "Ok(Done)");
    hears(&mut s, B, grow("lun0", 4 * PSEG_BLOCKS), "Ok(Done)");
    hears(&mut s, A, grow("lun0", 4 * PSEG_BLOCKS - 1), "Err(Shrink");
    let write = s.written(A, 4 * PSEG_BLOCKS - 8, 8);
    s.reads(B, 4 * PSEG_BLOCKS - 8, 8, write);
    s.end();
}

#[test]
fn a_name_is_that_of_one_lun() {
    let mut s = both();
    let rename = |from: &str, to: &str| ManageOp::LunRename {
        name: name(from),
        to: name(to),
    };
    for c in [A, B] {
        hears(&mut s, c, rename("none", "other"), "Err(NoSuchLun)");
        hears(&mut s, c, rename("lun0", "lun1"), "Err(NameTaken)");
        hears(&mut s, c, rename("lun0", "lun0"), "Ok(Done)");
        hears(&mut s, c, ManageOp::LunDelete { name: name("none") }, "Err(NoSuchLun)");
    }
    s.end();
}

/// The controller with fewer LUNs gets the next one; A where both have as many.
#[test]
fn new_luns_are_shared_out() {
    let mut s = both();
    let owner = |s: &Scenario, lun: &str| s.owner_of(name(lun));
    for (lun, expected) in [("c", B), ("d", B), ("e", A), ("f", B)] {
        hears(&mut s, A, create(lun, 1, Redundancy::None), "Ok(Lun");
        assert_eq!(owner(&s, lun), expected, "{lun}");
    }
}

/// Only another medium in the place of a missing disk, large enough for what is there, and nothing that has one copy.
#[test]
fn a_disk_is_replaced_by_one_that_fits() {
    let mut s = both();
    let replace = |disk: u16, uuid: u128, psegs: u32| ManageOp::DiskReplace {
        disk: DiskIndex(disk),
        uuid: Uuid(uuid),
        psegs,
    };
    hears(&mut s, A, replace(9, 500, PSEGS), "Err(DiskNotReady)");
    hears(&mut s, A, replace(0, 100, PSEGS), "Ok(Done)");
    hears(&mut s, A, replace(0, 500, PSEGS), "Err(DiskNotReady)");
    s.fail_disk(Some(0));
    let write = s.write_fua(A, 0, 8);
    s.good(write);
    s.until_disk(A, 0, DiskState::Missing);
    s.pass(500);
    // LUN 1 has a PSEG there, and no other copy of it.
    hears(&mut s, A, replace(0, 500, PSEGS), "Err(LastCopy)");
    hears(&mut s, A, ManageOp::LunDelete { name: name("lun1") }, "Ok(Done)");
    hears(&mut s, A, replace(0, 101, PSEGS), "Err(DiskNotReady)");
    // LUN 0 has PSEGs 0 and 1 there.
    hears(&mut s, A, replace(0, 500, 1), "Err(PoolFull");
    hears(&mut s, B, replace(0, 500, 2), "Ok(Done)");
    s.fail_disk(None);
}

/// The other copy of what is on it is not in order: it is the last one.
#[test]
fn the_last_copy_is_not_given_up() {
    let mut s = both();
    let missing = |disk: u16| ManageOp::DiskMissing { disk: DiskIndex(disk) };
    hears(&mut s, A, missing(9), "Err(DiskError)");
    s.fail_disk(Some(0));
    hears(&mut s, A, missing(0), "Ok(Done)");
    hears(&mut s, A, missing(0), "Ok(Done)");
    hears(&mut s, A, missing(1), "Err(LastCopy)");
    hears(&mut s, B, missing(2), "Ok(Done)");
    hears(&mut s, B, missing(3), "Err(LastCopy)");
    s.fail_disk(None);
    s.end();
}

/// A LUN moves while both are in, and to where it is it has moved.
#[test]
fn a_lun_moves_to_who_is_in() {
    let mut s = both();
    let moved = |lun: &str, to| ManageOp::LunMove { name: name(lun), to };
    for c in [A, B] {
        hears(&mut s, c, moved("none", B), "Err(NoSuchLun)");
        hears(&mut s, c, moved("lun0", A), "Ok(Done)");
    }
    s.crash(B);
    s.until_alone(A, true);
    s.mark();
    s.manage(A, moved("lun0", B));
    s.until("A -> operator: Err(ControllerOut)");
    s.start(B);
    s.until_both_serve();
    s.end();
}
