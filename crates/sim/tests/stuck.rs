//! A disk dies under a LUN that has no other copy, and an acknowledged write waits for it in NV memory. That LUN suffers;
//! it can be deleted, nobody is kept from stopping, and what was acknowledged is there again when the disk is.

use twincell_core::ids::Controller::{A, B};
use twincell_core::ids::{PSEG_BLOCKS, Uuid};
use twincell_core::layout::metadata::{DiskState, Name, Redundancy};
use twincell_core::manage::ManageOp;
use twincell_sim::{Scenario, Sent, trace};

fn lun1() -> Name {
    Name::new("lun1").expect("a name")
}

fn create(name: &str, blocks: u64) -> ManageOp {
    ManageOp::LunCreate {
        name: Name::new(name).expect("a name"),
        uuid: Uuid(4711),
        blocks,
        redundancy: Redundancy::None,
    }
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
        s.manage(A, create("lun1", 3 * PSEG_BLOCKS));
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

/// The same, and B owns the LUN, which cannot move to A first. A decides, and B does nothing with the LUN meanwhile.
fn a_dead_disk_of_b() -> Scenario {
    let mut s = Scenario::new().both_serving();
    s.manage(A, ManageOp::LunMove { name: lun1(), to: B });
    s.until("A -> operator: Ok");
    s.fail_disk(Some(2));
    s.use_lun(1);
    s.written(B, 8192, 8);
    s.pass(5_000);
    s.mark();
    s
}

/// Whichever of the two is asked: the LUN is gone, and a new one in its place is zero, also after its owner has fallen.
#[test]
fn the_lun_of_the_one_that_does_not_decide_is_deleted() {
    trace(&["only-its-owner-deletes-a-lun"], || {
        for through in [A, B] {
            let mut s = a_dead_disk_of_b();
            // Hosts that come meanwhile are told in the end that there is no such LUN.
            s.write(B, 0, 8);
            s.write(A, 8, 8);
            s.manage(through, ManageOp::LunDelete { name: lun1() });
            s.until(&format!("{through} -> operator: "));
            assert!(s.tells("operator: Ok(Done)"), "{}", s.story());
            s.fail_disk(None);
            s.manage(A, create("lun1", 3 * PSEG_BLOCKS));
            s.mark();
            s.until("A -> operator: Ok");
            s.crash(B);
            s.until_alone(A, true);
            s.use_lun(2);
            let read = s.read(A, 8192, 8);
            s.good(read);
            s.start(B);
            s.end();
        }
    });
}

/// Either falls, or the link is cut, while B holds the LUN. Whatever becomes of the deletion, all goes on.
#[test]
fn a_controller_falls_while_the_lun_of_the_other_is_deleted() {
    for who in [A, B] {
        for step in [
            "LunDelete",
            "metadata 0",
            "votes for BOTH",
            "BMAE 0 Free",
            "release [0]",
        ] {
            let mut s = a_dead_disk_of_b();
            s.crash_at(who, step);
            s.manage(A, ManageOp::LunDelete { name: lun1() });
            s.pass(2_000);
            s.fail_disk(None);
            s.start_when_down();
            s.until_both_serve();
            s.end();
        }
    }
}

/// A cannot write the metadata without the LUN. B has it still, and goes on with it.
#[test]
fn the_lun_of_the_other_stays_if_it_cannot_be_deleted() {
    let mut s = a_dead_disk_of_b();
    s.link_takes(5);
    s.manage(A, ManageOp::LunDelete { name: lun1() });
    s.until("metadata");
    s.fail_disks(&[0, 1, 2]);
    s.until("A -> operator: Err(DiskError)");
    s.fail_disks(&[]);
    s.pass(1_000);
    let write = s.write(B, 0, 8);
    s.good(write);
    s.end();
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

/// A stops; B, whose LUN waits for the dead disk, falls before it has said that it knows what A has released.
#[test]
fn the_partner_falls_while_a_controller_stops() {
    let mut s = Scenario::new().both_serving();
    s.manage(A, ManageOp::LunMove { name: lun1(), to: B });
    s.until("A -> operator: Ok");
    s.fail_disk(Some(2));
    s.use_lun(1);
    let kept = s.written(B, 8192, 8);
    s.use_lun(0);
    s.written(A, 0, 8);
    s.mark();
    s.crash_at(B, "B <- A: release");
    s.manage(A, ManageOp::Stop);
    s.until("A -> operator: Ok");
    s.fail_disk(None);
    s.start_when_down();
    s.until_both_serve();
    s.use_lun(1);
    s.reads(A, 8192, 8, kept);
    s.end();
}

/// The same; and what waits has gaps: blocks 2, 3 and 6 of one granule, whose others the disk has, and 1 to 3 of another.
fn a_dead_disk_and_gaps() -> (Scenario, [Sent; 5]) {
    let mut s = Scenario::new().both_serving();
    s.use_lun(1);
    let below = s.written(A, 8208, 8);
    let sync = s.sync(A);
    s.good(sync);
    s.fail_disk(Some(2));
    let sent = [(8192, 8), (8210, 2), (8214, 1), (8201, 3)].map(|(start, blocks)| s.written(A, start, blocks));
    s.pass(5_000);
    s.crash(B);
    s.until_alone(A, true);
    s.mark();
    let [whole, two, one, three] = sent;
    (s, [whole, two, one, three, below])
}

fn all_is_read(s: &mut Scenario, path: twincell_core::ids::Controller, [whole, two, one, three, _]: [Sent; 5]) {
    s.reads(path, 8192, 8, whole);
    s.reads(path, 8210, 2, two);
    s.reads(path, 8214, 1, one);
    s.reads(path, 8201, 3, three);
}

/// What cannot drain to its disk is no reason for the partner to stay out: it gets it from memory, valid block by valid block.
#[test]
fn the_partner_returns() {
    trace(&["carry-whole-granules"], || {
        let (mut s, sent) = a_dead_disk_and_gaps();
        s.start(B);
        s.until_both_serve();
        s.crash(A);
        s.until_alone(B, true);
        all_is_read(&mut s, B, sent);
        s.fail_disk(None);
        s.reads(B, 8208, 2, sent[4]);
        s.start(A);
        s.end();
    });
}

/// Either falls while data that cannot drain are on their way to the joiner.
#[test]
fn a_controller_falls_while_the_partner_returns() {
    for (who, at) in [
        (A, "A -> B: RQR"),
        (A, "BMAE"),
        (B, "BMAE"),
        (B, "MDA"),
        (A, "votes for BOTH"),
    ] {
        let (mut s, sent) = a_dead_disk_and_gaps();
        s.start(B);
        s.crash_at(who, at);
        s.until(&format!("{who} ends"));
        s.start_when_down();
        s.until_both_serve();
        all_is_read(&mut s, A, sent);
        all_is_read(&mut s, B, sent);
        s.fail_disk(None);
        s.end();
    }
}

/// The last granule of a LUN may end beyond the LUN.
#[test]
fn the_partner_returns_to_a_lun_of_an_odd_size() {
    for disk in 0..4 {
        let mut s = Scenario::new().both_serving();
        let blocks = 2 * 4096 - 3;
        s.manage(
            A,
            ManageOp::LunCreate {
                name: Name::new("odd").expect("a name"),
                uuid: Uuid(4711),
                blocks,
                redundancy: Redundancy::None,
            },
        );
        s.until("A -> operator: Ok");
        s.fail_disk(Some(disk));
        s.use_lun(2);
        let end = s.written(A, blocks - 5, 5);
        s.pass(5_000);
        s.crash(B);
        s.until_alone(A, true);
        s.start(B);
        s.until_both_serve();
        s.crash(A);
        s.until_alone(B, true);
        s.reads(B, blocks - 5, 5, end);
        s.fail_disk(None);
        s.start(A);
        s.end();
    }
}

/// Two LUNs have data on a disk that does not answer, under load: together they leave memory for what lies on others.
#[test]
fn two_luns_without_their_disk_do_not_stop_a_third() {
    let mut s = Scenario::small().both_serving();
    let name = Name::new("lun2").expect("a name");
    s.manage(
        A,
        ManageOp::LunCreate {
            name,
            uuid: Uuid(4711),
            blocks: 5 * 4096,
            redundancy: Redundancy::None,
        },
    );
    s.until("A -> operator: Ok");
    s.manage(A, ManageOp::LunMove { name, to: A });
    s.pass(200);
    s.stall_disks(&[2]);
    s.use_lun(1);
    (0..3).for_each(|n| {
        s.written(A, 8192 + n * 128, 128);
    });
    s.use_lun(2);
    for n in 0..5 {
        for rstore in 0..5 {
            s.write(A, 4096 * rstore + n * 128, 128);
            s.pass(150);
        }
    }
    s.pass(8_000);
    s.use_lun(0);
    for n in 0..20 {
        let begun = s.now();
        let write = s.write_fua(A, n * 8, 8);
        s.good(write);
        assert!(s.now() - begun < 300, "its host waited for {} ms", s.now() - begun);
    }
    s.stall_disks(&[]);
    s.end();
}

/// One disk of a LUN does not answer, under load: the rest of the LUN goes on.
#[test]
fn a_lun_goes_on_where_its_disks_answer() {
    trace(&["a-lun-has-one-share"], || {
        let mut s = Scenario::small().both_serving();
        s.stall_disks(&[2]);
        s.use_lun(1);
        (0..3).for_each(|n| {
            s.written(A, 8192 + n * 128, 128);
        });
        s.pass(8_000);
        let write = s.write(A, 0, 8);
        s.pass(500);
        assert!(s.is_good(write), "it waits for a disk that it has nothing to do with");
        s.stall_disks(&[]);
        s.end();
    });
}

/// Two disks die one after the other, each with the only copy of something, under more writes than there is memory for. What the first
/// holds is not there to be shared out again: something is left for LUN 0, which lies on others.
fn two_disks_die(mut s: Scenario, all_die: impl Fn(&mut Scenario, &[usize])) {
    s = s.both_serving();
    s.manage(A, create("new", 4 * PSEG_BLOCKS));
    s.until("A -> operator: Ok");
    let name = Name::new("new").expect("a name");
    s.manage(A, ManageOp::LunMove { name, to: A });
    s.until("A -> operator: Ok");
    s.pass(200);
    let dead = [3, 2];
    for (n, (lun, first)) in [(2, 0), (1, 8192)].into_iter().enumerate() {
        all_die(&mut s, &dead[..=n]);
        s.use_lun(lun);
        (0..100).for_each(|k| {
            s.write(A, first + k * 40, 32);
            s.pass(1);
        });
        s.pass(15_000);
    }
    s.use_lun(0);
    let write = s.write(A, 0, 8);
    s.pass(1_000);
    assert!(s.is_good(write), "it waits for disks that it has nothing to do with");
    all_die(&mut s, &[]);
    s.end();
}

#[test]
fn two_disks_hang_and_the_rest_goes_on() {
    trace(&["what-dead-disks-hold-is-left"], || {
        two_disks_die(Scenario::small(), |s, disks| s.stall_disks(disks));
        two_disks_die(Scenario::new(), |s, disks| s.stall_disks(disks));
    });
}

#[test]
fn two_disks_fail_and_the_rest_goes_on() {
    trace(&["what-dead-disks-hold-is-left"], || {
        two_disks_die(Scenario::small(), |s, disks| s.fail_disks(disks));
    });
}

/// A disk with the only copy of something is dead, and leaves too little of a small NV memory for the largest write of others. Smaller
/// ones do not wait behind that.
#[test]
fn small_writes_pass_a_large_one_that_waits_for_a_dead_disk() {
    trace(&["all-wait-behind-what-cannot-come-free"], || {
        let mut s = Scenario::small().both_serving();
        s.stall_disks(&[2]);
        s.use_lun(1);
        (0..60).for_each(|k| {
            s.write(A, 8192 + k * 16, 8);
            s.pass(1);
        });
        s.pass(15_000);
        s.use_lun(0);
        let large = s.write(A, 3, 256);
        s.pass(10);
        let small = s.write(A, 1024, 8);
        s.pass(1_000);
        assert!(!s.is_over(large), "there is no room for it");
        assert!(s.is_good(small), "it waits for a dead disk");
        s.stall_disks(&[]);
        s.good(large);
        s.end();
    });
}

/// Both forward so much that no transfer buffer is left, and each has a read of its own, behind which what the other forwards
/// waits: none of it may wait for the other.
#[test]
fn forwarding_both_ways_behind_reads() {
    trace(&["forward-with-the-last-transfer"], || {
        let mut s = Scenario::small().both_serving();
        let name = Name::new("lun1").expect("a name");
        s.manage(A, ManageOp::LunMove { name, to: B });
        s.until("A -> operator: Ok");
        s.manage(A, create("new", 4 * PSEG_BLOCKS));
        s.until("A -> operator: Ok");
        s.pass(1000);
        s.host_data_takes(100);
        // Each to a disk of its own.
        for psegs in [(0, 0), (1, 1), (2, 3)] {
            for (lun, through, pseg) in [(1, A, psegs.0), (2, B, psegs.1)] {
                s.use_lun(lun);
                s.write_long(through, PSEG_BLOCKS * pseg, 8);
            }
        }
        s.pass(2);
        s.use_lun(2);
        let of_a = s.read(A, 0, 24);
        s.use_lun(1);
        let of_b = s.read(B, 0, 24);
        // Before what waits to be forwarded is given up.
        s.pass(4_000);
        assert!(s.is_good(of_a) && s.is_good(of_b), "they wait for each other");
        s.end();
    });
}

/// A disk does not answer. What is forwarded to other disks does not wait for what was forwarded to this one.
#[test]
fn forwarded_commands_for_other_disks_wait_for_nothing() {
    trace(&["one-disk-has-all-that-is-lent"], || {
        let mut s = Scenario::new().both_serving();
        s.pass(1000);
        s.stall_disks(&[0]);
        s.use_lun(1);
        (0..4).for_each(|_| {
            s.read(B, 0, 8);
        });
        s.pass(10);
        s.use_lun(0);
        let other = s.read(B, 4096, 8);
        s.pass(500);
        assert!(s.is_good(other), "it waits for a disk that it has nothing to do with");
        s.stall_disks(&[]);
        s.end();
    });
}

/// There are always small writes for which a disk's share of NV memory is enough, and a large one that needs half of it has its turn.
#[test]
fn a_large_write_among_many_small_ones() {
    trace(&["small-writes-overtake-a-large-one"], || {
        let mut s = Scenario::small().both_serving();
        s.disk_writes_take(10);
        let small = |s: &mut Scenario, count: u64| {
            for n in 0..count {
                // No neighbours, which would be written together.
                s.write(A, 1024 + n % 190 * 16, 8);
                s.pass(1);
            }
        };
        small(&mut s, 100);
        let large = s.write(A, 0, 256);
        small(&mut s, 1_000);
        assert!(s.is_good(large), "{}", s.story());
        s.disk_writes_take(0);
        s.end();
    });
}

/// A controller that is alone has much to write, and answers for a new write once that is on disk: not when all is.
#[test]
fn a_write_does_not_wait_for_the_backlog() {
    trace(&["who-waits-for-its-data-waits-for-all"], || {
        let mut s = Scenario::large().both_serving();
        s.disk_writes_take(20);
        for n in 0..64 {
            s.write(A, n * 64, 8);
        }
        s.pass(2);
        s.crash(B);
        s.until_alone(A, true);
        let begun = s.now();
        let write = s.write(A, 4032, 4);
        s.good(write);
        assert!(s.now() - begun < 60, "it took {} ms", s.now() - begun);
        s.end();
    });
}

/// A LUN moves while much of it is in NV memory and hosts go on writing: each of them waits for the disk, and none for all of it.
#[test]
fn a_lun_moves_under_load() {
    trace(&["hosts-fill-what-is-drained"], || {
        let mut s = Scenario::large().both_serving();
        s.disk_writes_take(40);
        let mut open: Vec<(u64, Sent)> = Vec::new();
        for n in 0..8_000 {
            if n == 1_000 {
                let name = Name::new("lun0").expect("a name");
                s.manage(A, ManageOp::LunMove { name, to: B });
            }
            open.retain(|(_, write)| !s.is_over(*write));
            if open.len() < 100 {
                open.push((s.now(), s.write(A, n * 7 % 255 * 16, 8)));
            }
            s.pass(1);
            let longest = open.first().map_or(0, |(since, _)| s.now() - since);
            assert!(longest < 450, "a write waits for {longest} ms: {}", s.story());
        }
        s.until("A -> operator: Ok");
        s.disk_writes_take(0);
        s.end();
    });
}

/// Hosts of a controller that is alone write as fast as the disks take it, and each of them is waited for. What was there before
/// reaches the disk all the same, and who waits for all of it has its answer.
#[test]
fn who_is_not_waited_for_is_written_too() {
    trace(&["only-who-is-waited-for-is-written"], || {
        let mut s = Scenario::large().both_serving();
        for n in 0..64 {
            s.write(A, n * 16, 8);
        }
        s.pass(2);
        s.disk_writes_take(10);
        s.crash(B);
        s.until_alone(A, true);
        let sync = s.sync(A);
        let mut open: Vec<Sent> = Vec::new();
        for n in 0..3_000 {
            open.retain(|write| !s.is_over(*write));
            while open.len() < 100 {
                open.push(s.write(A, 2048 + (n + 7 * open.len() as u64) % 125 * 16, 8));
            }
            s.pass(1);
        }
        assert!(s.is_good(sync), "{}", s.story());
        s.disk_writes_take(0);
        s.end();
    });
}

/// More waits for the dead disk than one memory can have. It is not carried to a joiner at the cost of all others: the joiner waits
/// for the disk, and hosts do not.
#[test]
fn the_partner_returns_to_more_than_fits() {
    trace(&["carried-data-fill-the-memory"], || {
        let mut s = Scenario::small().both_serving();
        s.manage(A, create("new", 2 * PSEG_BLOCKS));
        s.until("A -> operator: Ok");
        let name = Name::new("new").expect("a name");
        s.manage(A, ManageOp::LunMove { name, to: B });
        s.until("A -> operator: Ok");
        s.fail_disk(Some(2));
        s.use_lun(1);
        let of_a = s.written(A, 8192, 256);
        s.use_lun(2);
        let of_b = s.written(B, PSEG_BLOCKS, 256);
        s.pass(5_000);
        s.mark();
        s.crash(A);
        s.until_alone(B, true);
        s.start(A);
        s.pass(5_000);
        s.use_lun(0);
        let write = s.write(B, 4, 96);
        s.good(write);
        s.use_lun(1);
        s.reads(B, 8192, 256, of_a);
        s.fail_disk(None);
        s.until_both_serve();
        s.reads(A, 8192, 256, of_a);
        s.use_lun(2);
        s.reads(A, PSEG_BLOCKS, 256, of_b);
        s.end();
    });
}

/// Hosts of A keep more reads of two pairs of disks outstanding than A has transfer buffers. What is to be forwarded to B comes between
/// them all the same.
#[test]
fn forwarding_beside_many_reads() {
    trace(&["forwards-wait-behind-reads"], || {
        let mut s = Scenario::new().both_serving();
        let name = Name::new("lun1").expect("a name");
        s.manage(A, ManageOp::LunMove { name, to: B });
        s.until("A -> operator: Ok");
        s.disk_reads_take(5);
        let (mut open, mut forwarded): (Vec<Sent>, Vec<Sent>) = (Vec::new(), Vec::new());
        for n in 0..500u64 {
            open.retain(|read| !s.is_over(*read));
            s.use_lun(0);
            while open.len() < 24 {
                let i = n * 7 + open.len() as u64 * 3;
                open.push(s.read(A, i % 2 * 4096 + i % 500 * 8, 8));
            }
            if n == 100 {
                s.use_lun(1);
                forwarded = vec![s.read(A, 0, 8), s.write(A, 64, 8)];
            }
            s.pass(1);
        }
        assert!(forwarded.iter().all(|f| s.is_good(*f)), "{}", s.story());
        s.end();
    });
}

/// Hosts keep so many reads of A outstanding: more than it has transfer buffers.
fn keep_reading(s: &mut Scenario, open: &mut Vec<Sent>, seed: u64) {
    open.retain(|read| !s.is_over(*read));
    while open.len() < 30 {
        let i = seed * 7 + open.len() as u64 * 3;
        s.use_lun((i % 2) as usize);
        open.push(s.read(A, 4096 + i % 500 * 8, 8));
    }
}

/// A read that came through B hangs on disk 0, and hosts of A read as much as they can from others. The read needs a transfer buffer
/// to go on from the other copy, and gets it.
#[test]
fn a_forwarded_read_leaves_a_hung_disk_beside_many_reads() {
    trace(&["overdue-reads-get-what-is-left"], || {
        let mut s = Scenario::new().both_serving();
        s.stall_disks(&[0]);
        let forwarded = s.read(B, 0, 8);
        s.pass(5);
        s.disk_reads_take(5);
        let mut open = Vec::new();
        for n in 0..1_500 {
            keep_reading(&mut s, &mut open, n);
            s.pass(1);
        }
        assert!(s.is_good(forwarded), "{}", s.story());
        s.disk_reads_take(0);
        s.stall_disks(&[]);
        s.end();
    });
}

/// No copy answers for good: the same read fails in time, for which it needs a transfer buffer, too.
#[test]
fn a_forwarded_read_fails_beside_many_reads() {
    trace(&["overdue-reads-get-what-is-left"], || {
        let mut s = Scenario::new().both_serving();
        s.stall_disks(&[0]);
        s.use_lun(1);
        let forwarded = s.read(B, 0, 8);
        s.pass(5);
        s.disk_reads_take(5);
        let mut open = Vec::new();
        for n in 0..6_000 {
            keep_reading(&mut s, &mut open, n);
            s.pass(1);
        }
        assert!(s.is_read_error(forwarded), "{}", s.story());
        s.disk_reads_take(0);
        s.stall_disks(&[]);
        s.end();
    });
}

/// The same, and B falls before the read is overdue. B is let in again once nothing of what it forwarded is left at A.
#[test]
fn the_partner_returns_beside_many_reads() {
    trace(&["overdue-reads-get-what-is-left"], || {
        let mut s = Scenario::new().both_serving();
        s.stall_disks(&[0]);
        s.read(B, 0, 8);
        s.pass(5);
        s.disk_reads_take(5);
        let mut open = Vec::new();
        for n in 0..9_000 {
            keep_reading(&mut s, &mut open, n);
            s.pass(1);
            match n {
                500 => s.crash(B),
                3_000 => s.start(B),
                _ => {}
            }
        }
        assert!(s.serves(B), "{}", s.story());
        s.disk_reads_take(0);
        s.stall_disks(&[]);
        s.end();
    });
}

/// B owned LUN 1, and has acknowledged what has to go to disk 2, in part with gaps. B falls, and the disk hangs when A begins to
/// write it there.
fn a_disk_hangs_after_a_takeover(s: &mut Scenario) -> [Sent; 3] {
    s.manage(A, ManageOp::LunMove { name: lun1(), to: B });
    s.until("A -> operator: Ok");
    s.pass(200);
    s.use_lun(1);
    let sent = [(8192, 96), (8402, 2), (8406, 1)].map(|(start, blocks)| s.written(B, start, blocks));
    s.mark();
    s.crash(B);
    s.until("A notes: PartnerFenced");
    s.stall_disks(&[2]);
    s.until_alone(A, true);
    s.pass(5_000);
    sent
}

fn what_waited_is_read(s: &mut Scenario, path: twincell_core::ids::Controller, [large, two, one]: [Sent; 3]) {
    s.use_lun(1);
    s.reads(path, 8192, 96, large);
    s.reads(path, 8402, 2, two);
    s.reads(path, 8406, 1, one);
}

/// B takes the memory of its pair for other data. What hangs must not be written from there.
fn the_partner_uses_its_memory(s: &mut Scenario, lun: usize) {
    let name = Name::new(&format!("lun{lun}")).expect("a name");
    s.manage(A, ManageOp::LunMove { name, to: B });
    s.until("A -> operator: Ok");
    s.use_lun(lun);
    (0..16).for_each(|n| _ = s.written(B, 1024 + n * 8, 8));
}

/// A disk that hangs for ever with what the partner left is no reason for the partner to stay out.
#[test]
fn the_partner_returns_though_a_disk_hangs() {
    trace(&["a-hung-disk-holds-the-partners-memory"], || {
        let mut s = Scenario::new().both_serving();
        let sent = a_disk_hangs_after_a_takeover(&mut s);
        s.start(B);
        s.pass(5_000);
        assert!(s.serves(B), "{}", s.story());
        the_partner_uses_its_memory(&mut s, 0);
        // What hangs may land where another LUN is by then.
        s.manage(A, ManageOp::LunDelete { name: lun1() });
        s.until("A -> operator: Err(AwaitsDisk)");
        what_waited_is_read(&mut s, B, sent);
        s.stall_disks(&[]);
        s.pass(2_000);
        what_waited_is_read(&mut s, A, sent);
        s.manage(A, ManageOp::LunDelete { name: lun1() });
        s.until("A -> operator: Ok(Done)");
        s.end();
    });
}

/// The disk answers while the partner joins, or just before or after; what hung lands then, or later.
#[test]
fn a_disk_answers_while_the_partner_returns() {
    for at in [
        "B starts",
        "A <- B: attach",
        "A merge",
        "A -> B: RQR",
        "B -> A: MDA",
        "votes for BOTH",
        "B serves",
    ] {
        for late in [0, 40] {
            let mut s = Scenario::new().both_serving();
            let sent = a_disk_hangs_after_a_takeover(&mut s);
            s.start(B);
            s.until(at);
            s.unstall_disk(2, late);
            s.until_both_serve();
            the_partner_uses_its_memory(&mut s, 0);
            s.pass(1_000);
            what_waited_is_read(&mut s, A, sent);
            s.end();
        }
    }
}

/// Either falls while the partner joins, or when it is in; the disk hangs all the time.
#[test]
fn a_controller_falls_while_the_partner_returns_and_a_disk_hangs() {
    for (who, at) in [
        (A, "A <- B: attach"),
        (A, "A -> B: RQR"),
        (A, "BMAE"),
        (B, "BMAE"),
        (B, "MDA"),
        (A, "votes for BOTH"),
        (A, "A notes: Mirrored"),
        (B, "B serves"),
    ] {
        let mut s = Scenario::new().both_serving();
        let sent = a_disk_hangs_after_a_takeover(&mut s);
        s.start(B);
        s.crash_at(who, at);
        s.until(&format!("{who} ends"));
        s.pass(3_000);
        s.start_when_down();
        s.pass(10_000);
        s.stall_disks(&[]);
        s.until_both_serve();
        what_waited_is_read(&mut s, A, sent);
        what_waited_is_read(&mut s, B, sent);
        s.end();
    }
}

/// What waits for another disk leaves no room to copy what the partner left. So it waits for the disk that hangs; hosts do not.
#[test]
fn the_partner_returns_once_a_disk_answers_if_there_is_no_room() {
    let mut s = Scenario::small().both_serving();
    s.manage(A, create("new", 4 * PSEG_BLOCKS));
    s.until("A -> operator: Ok");
    let name = Name::new("new").expect("a name");
    s.manage(A, ManageOp::LunMove { name, to: A });
    s.until("A -> operator: Ok");
    s.fail_disk(Some(3));
    s.use_lun(2);
    let of_a = [(0, 256), (256, 128)].map(|(start, blocks)| s.written(A, start, blocks));
    let sent = a_disk_hangs_after_a_takeover(&mut s);
    s.start(B);
    s.pass(5_000);
    assert!(!s.serves(B), "there was room");
    s.use_lun(0);
    let write = s.write(A, 0, 8);
    s.good(write);
    s.stall_disks(&[]);
    s.until_both_serve();
    the_partner_uses_its_memory(&mut s, 0);
    s.use_lun(2);
    s.reads(B, 0, 256, of_a[0]);
    s.reads(B, 256, 128, of_a[1]);
    s.fail_disk(None);
    s.pass(1_000);
    what_waited_is_read(&mut s, A, sent);
    s.end();
}

/// Both disks of a mirrored LUN hang, at once or one after the other, with what the partner left.
#[test]
fn the_partner_returns_though_both_copies_hang() {
    trace(&["a-hung-disk-holds-the-partners-memory"], || {
        for at_once in [true, false] {
            let mut s = Scenario::new().both_serving();
            let name = Name::new("lun0").expect("a name");
            s.manage(A, ManageOp::LunMove { name, to: B });
            s.until("A -> operator: Ok");
            s.pass(200);
            if !at_once {
                s.stall_disks(&[3]);
                s.written(B, 4096, 8);
                s.until_disk(A, 3, DiskState::Missing);
            }
            let kept = s.written(B, 4096, 96);
            s.crash(B);
            s.until("A notes: PartnerFenced");
            s.stall_disks(&[2, 3]);
            s.until_alone(A, true);
            s.pass(10_000);
            s.start(B);
            s.pass(5_000);
            assert!(s.serves(B), "{}", s.story());
            the_partner_uses_its_memory(&mut s, 1);
            s.use_lun(0);
            s.reads(A, 4096, 96, kept);
            s.stall_disks(&[]);
            s.pass(10_000);
            s.reads(B, 4096, 96, kept);
            s.end();
        }
    });
}
