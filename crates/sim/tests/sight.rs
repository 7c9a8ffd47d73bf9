//! A controller loses its way to the disks, and its partner has not: the one that sees them goes on.

use twincell_core::ids::Controller;
use twincell_core::ids::Controller::{A, B};
use twincell_core::layout::metadata::{DiskState, Name};
use twincell_core::manage::ManageOp;
use twincell_sim::fault::Fault;
use twincell_sim::{Scenario, trace};

/// For ever, as far as these scripts go.
const LONG: u64 = 100_000;

/// Both serve, and there are data; from now on `c` sees no disk.
fn blind(c: Controller) -> Scenario {
    let mut s = Scenario::new().both_serving();
    s.start_when_down();
    s.written(A, 0, 8);
    s.pass(500);
    s.mark();
    s.fault(Fault::LoseSightOfAll(c, LONG));
    s
}

/// Hosts of the owner write through to disk: what they wait for the partner does.
#[test]
fn the_owner_is_blind_and_written_to() {
    trace(&["blind-for-ever"], || {
        let mut s = blind(A);
        let write = s.write_fua(B, 0, 8);
        s.retries(write);
        s.pass(8_000);
        assert!(s.is_good(write) && s.serves(B), "{}", s.story());
        s.reads(B, 0, 8, write);
        s.heal(Fault::LoseSightOfAll(A, LONG));
        s.until_both_serve();
        s.end();
    });
}

/// They only read: none of them sees an error.
#[test]
fn the_owner_is_blind_and_read_from() {
    trace(&["blind-for-ever"], || {
        let mut s = blind(A);
        let reads = [A, B].map(|path| s.read(path, 64, 8));
        reads.into_iter().for_each(|r| s.retries(r));
        s.pass(8_000);
        assert!(reads.iter().all(|r| s.is_good(*r)), "{}", s.story());
        assert!(!s.tells("ReadError"), "{}", s.story());
        s.heal(Fault::LoseSightOfAll(A, LONG));
        s.until_both_serve();
        s.end();
    });
}

/// The other one is blind. It owns nothing; what an operator wants and hosts write goes on.
#[test]
fn the_mirror_is_blind() {
    trace(&["blind-for-ever"], || {
        let mut s = blind(B);
        let (name, to) = (Name::new("lun1").expect("a name"), Name::new("other").expect("a name"));
        s.manage(A, ManageOp::LunRename { name, to });
        s.until("A -> operator: Ok");
        let write = s.write_fua(A, 0, 8);
        s.good(write);
        s.heal(Fault::LoseSightOfAll(B, LONG));
        s.until_both_serve();
        s.end();
    });
}

/// All disks fail for both: nobody gives way, and all goes on when they work again.
#[test]
fn all_disks_fail() {
    let mut s = Scenario::new().both_serving();
    s.fault(Fault::FailAll(20_000));
    let write = s.write_fua(A, 0, 8);
    s.retries(write);
    s.pass(19_000);
    assert!(!s.tells("Blind") && s.serves(A) && s.serves(B), "{}", s.story());
    s.good(write);
    s.end();
}

/// A block cannot be read on any copy: its reader hears of it soon, and nobody gives way.
#[test]
fn what_no_disk_has_is_an_error_at_once() {
    let mut s = Scenario::new().both_serving();
    let written = s.written(A, 0, 16);
    s.pass(1_000);
    (0..2).for_each(|disk| s.spoil(disk, 0, 8));
    let read = s.read(A, 0, 8);
    s.pass(1_000);
    assert!(s.is_read_error(read) && !s.tells("Blind"), "{}", s.story());
    s.reads(A, 8, 8, written);
    let again = s.written(A, 0, 8);
    s.reads(A, 0, 8, again);
    assert_eq!(s.disk_state(A, 0), DiskState::Normal);
    s.end();
}

/// One part of a read fails at once, and it is soon known that this is the disk's fault. Another part takes longer.
#[test]
fn a_part_of_a_read_fails_before_the_rest_is_there() {
    trace(&["a-read-waits-for-what-is-known"], || {
        let mut s = Scenario::new().both_serving();
        s.use_lun(1);
        s.mark();
        s.fault(Fault::FailReads(1, LONG));
        s.stall_disks(&[0]);
        // Eight blocks are on disk 0, eight on disk 1.
        let read = s.read(A, 4088, 16);
        s.pass(100);
        s.unstall_disk(0, 0);
        s.pass(1_000);
        assert!(s.is_read_error(read), "{}", s.story());
        s.heal(Fault::FailReads(1, LONG));
        s.end();
    });
}

/// The owner has nothing to do and sees no disk; an operator moves its LUN. What hosts want meanwhile the partner does.
#[test]
fn the_owner_is_blind_and_to_give_a_lun_away() {
    trace(&["only-disks-that-fail-are-doubted"], || {
        let mut s = blind(A);
        let name = Name::new("lun0").expect("a name");
        s.manage(A, ManageOp::LunMove { name, to: B });
        s.pass(100);
        let read = s.read(A, 0, 8);
        s.retries(read);
        s.pass(8_000);
        assert!(s.is_good(read), "{}", s.story());
        s.heal(Fault::LoseSightOfAll(A, LONG));
        s.until_both_serve();
        s.end();
    });
}

/// The owner sees no disk and is to stop: it does, and its partner goes on.
#[test]
fn the_owner_is_blind_and_stops() {
    trace(&["only-disks-that-fail-are-doubted"], || {
        let mut s = blind(A);
        s.manage(A, ManageOp::Stop);
        s.until_alone(B, true);
        let written = s.written(B, 0, 8);
        s.heal(Fault::LoseSightOfAll(A, LONG));
        s.start(A);
        s.until_both_serve();
        s.reads(A, 0, 8, written);
        s.end();
    });
}

/// The partner of the one that is to stop sees no disk, which it does not know yet. It must not be left alone.
#[test]
fn who_stops_asks_whether_its_partner_sees_the_disks() {
    trace(&["leave-all-to-a-blind-partner"], || {
        let mut s = blind(A);
        s.manage(B, ManageOp::Stop);
        s.until("B -> operator: Err(DiskError)");
        let write = s.write_fua(B, 0, 8);
        s.retries(write);
        s.pass(8_000);
        assert!(s.is_good(write) && s.serves(B), "{}", s.story());
        s.heal(Fault::LoseSightOfAll(A, LONG));
        s.until_both_serve();
        s.manage(B, ManageOp::Stop);
        s.until("B -> operator: Ok");
        s.end();
    });
}

/// Who stops asks its partner first whether it sees the disks. That is no reason to go on blind later, when who stopped is back and
/// can be asked.
#[test]
fn the_partner_of_one_that_was_stopped_goes_blind() {
    trace(&["who-was-asked-by-one-that-stops-is-deaf"], || {
        let mut s = Scenario::new().both_serving();
        s.manage(B, ManageOp::Stop);
        s.until("B -> operator: Ok");
        s.pass(1_000);
        s.start(B);
        s.until_both_serve();
        s.start_when_down();
        s.fault(Fault::LoseSightOfAll(A, LONG));
        let read = s.read(B, 64, 8);
        s.retries(read);
        let write = s.write_fua(B, 0, 8);
        s.retries(write);
        s.pass(8_000);
        assert!(s.is_good(read) && s.is_good(write), "{}", s.story());
        s.heal(Fault::LoseSightOfAll(A, LONG));
        s.until_both_serve();
        s.end();
    });
}

/// The answer that the partner sees the disks is lost, and comes again when there is a request to mirror behind it: who is blind
/// goes for the one, and has nothing to say to the other.
#[test]
fn who_gives_way_hears_nothing_more() {
    trace(&["who-is-out-hears-the-rest"], || {
        let mut s = Scenario::new().both_serving();
        s.start_when_down();
        let name = Name::new("lun1").expect("a name");
        s.manage(A, ManageOp::LunMove { name, to: B });
        s.until("A -> operator: Ok");
        s.mark();
        s.fault(Fault::LoseSightOfAll(A, LONG));
        let read = s.read(A, 64, 8);
        s.retries(read);
        s.until("B <- A: manage SeesDisks");
        s.fault(Fault::LoseFrame(A));
        s.until("B -> A: managed Ok(Done)");
        s.use_lun(1);
        let write = s.write_long(B, 0, 8);
        s.until("A restarts");
        s.good(read);
        s.good(write);
        s.heal(Fault::LoseSightOfAll(A, LONG));
        s.until_both_serve();
        s.end();
    });
}

/// A is to stop and asks B, which sees no disk for the moment. A stands still before the answer comes, and shuts out its hosts; it does
/// not stop, and lets them in again.
#[test]
fn a_stop_is_refused_after_a_pause() {
    trace(&["closed-after-a-refused-stop"], || {
        let mut s = Scenario::new().both_serving();
        s.written(A, 0, 8);
        s.mark();
        s.link_takes(20);
        s.pass(500);
        s.fail_disks(&[0, 1, 2, 3]);
        s.manage(A, ManageOp::Stop);
        s.pass(5);
        s.fault(Fault::ClockJump(A, 3_000));
        s.pass(100);
        s.fail_disks(&[]);
        s.until("A -> operator: Err(DiskError)");
        s.link_takes(0);
        s.pass(1_000);
        assert!(s.serves(A), "{}", s.story());
        let write = s.write(A, 0, 8);
        s.good(write);
        s.end();
    });
}
