//! A script for each rule of the design that a mutant drops and that the failure traces (`traces.rs`) do not meet.

use twincell_core::cell::record::Mode;
use twincell_core::ids::Controller::{A, B};
use twincell_core::ids::Time;
use twincell_core::layout::metadata::Name;
use twincell_core::manage::ManageOp;
use twincell_core::{Core, Effect, Event};
use twincell_sim::{Scenario, Sent, trace};

fn both() -> Scenario {
    Scenario::new().both_serving()
}

/// FUA means that the disks have the data, flushed, before the status goes out; so does SYNCHRONIZE CACHE.
#[test]
fn status_of_fua_waits_for_the_disks() {
    trace(&["fua-from-memory"], || {
        let mut s = both();
        s.disk_writes_take(1000);
        let write = s.write_fua(A, 0, 8);
        s.pass(500);
        assert!(!s.is_good(write), "it is in memory only");
        s.good(write);
        assert!(s.tells("A -> disk 0: flush"));
        s.disk_writes_take(0);
        s.end();
    });
}

/// Without a partner a write counts once it is on the disks.
#[test]
fn status_of_a_write_alone_waits_for_the_disks() {
    trace(&["write-back-while-alone"], || {
        let mut s = both();
        s.crash(B);
        s.until_alone(A, true);
        s.disk_writes_take(1000);
        let write = s.write(A, 0, 8);
        s.pass(500);
        assert!(!s.is_good(write), "it is in memory only");
        s.good(write);
        s.disk_writes_take(0);
        s.end();
    });
}

/// SYNCHRONIZE CACHE waits also for what has taken the place of data that were dirty when it came.
#[test]
fn sync_waits_for_the_heirs_of_what_was_dirty() {
    trace(&["age-not-inherited", "sync-does-not-wait"], || {
        let mut s = both();
        s.disk_writes_take(1000);
        s.written(A, 0, 8);
        s.until("A -> disk 1: write");
        // v1 cannot go to the disks while v0 is on its way there; then v2 takes its place.
        s.written(A, 0, 8);
        let sync = s.sync(A);
        s.pass(10);
        s.written(A, 0, 8);
        s.pass(1500);
        assert!(!s.is_good(sync), "neither v1 nor what took its place is on disk");
        s.good(sync);
        s.disk_writes_take(0);
        s.end();
    });
}

/// A flush that failed has made nothing durable: the data are written again.
#[test]
fn a_flush_that_failed_counts_for_nothing() {
    trace(&["failed-flushes-forgotten"], || {
        let mut s = both();
        let v1 = s.written(A, 0, 8);
        s.until("A -> disk 0: flush");
        s.fail_disk(Some(0));
        s.pass(40);
        s.fail_disk(None);
        s.power_loss();
        s.start(A);
        s.start(B);
        s.until_both_serve();
        s.reads(A, 0, 8, v1);
        s.end();
    });
}

/// R12: a command that waits for its turn when its host goes away does not begin any more.
#[test]
fn a_command_without_a_host_does_not_begin() {
    trace(&["commands-of-the-gone-run"], || {
        let mut s = both();
        s.host_data_takes(200);
        let first = s.write_long(A, 0, 8);
        s.until("A -> host: fetch");
        let second = s.write_long(A, 0, 8);
        s.until("A <- host: write");
        s.withdraw(second);
        s.until("A -> host: Aborted");
        assert!(!s.tells("A -> host: Good"), "it has waited for the first");
        s.good(first);
        s.end();
    });
}

/// R6: what the allocator has freed does not stay valid at the mirror after a restart of both.
#[test]
fn surplus_twins_are_freed_when_images_are_leveled() {
    trace(&["surplus-twins-stay"], || {
        let mut s = both();
        s.written(A, 0, 8);
        s.crash_at(A, "A nv: BMAE 0 Free");
        s.until("A ends");
        s.crash(B);
        s.start(A);
        s.start(B);
        s.until_both_serve();
        let v2 = s.written(A, 0, 8);
        s.crash(A);
        s.until("B serves");
        s.reads(B, 0, 8, v2);
        s.end();
    });
}

/// R2: alone, a controller that cannot read the record any more says nothing once its lease is over.
#[test]
fn nothing_is_said_past_the_lease() {
    trace(&["serve-past-the-lease"], || {
        let mut s = both();
        s.crash(B);
        s.until_alone(A, true);
        s.fail_disks(&[0, 1, 2]);
        s.pass(3000);
        // These blocks lie on disk 3, too, which does not vote.
        let read = s.read(A, 4096, 8);
        s.pass(300);
        assert!(!s.is_good(read), "A does not know whether it is still in");
        s.fail_disks(&[]);
        s.good(read);
        s.end();
    });
}

/// R2: with both in, nothing is said before the partner has granted it.
#[test]
fn nothing_is_said_without_a_grant() {
    trace(&["serve-past-the-grant"], || {
        let mut s = both();
        s.crash(B);
        s.until_alone(A, true);
        s.start(B);
        s.until("A notes: Mirrored");
        s.pause(B, 1000);
        let read = s.read(A, 4096, 8);
        s.pass(900);
        assert!(!s.is_good(read), "B has granted nothing");
        s.good(read);
        s.end();
    });
}

/// R7: clean is not proposed while a disk write is in flight, however long that takes.
#[test]
fn clean_waits_for_the_disks() {
    trace(&["clean-with-data-in-flight"], || {
        let mut s = both();
        s.crash(B);
        s.until_alone(A, true);
        s.disk_writes_take(4000);
        let write = s.write(A, 0, 8);
        s.pass(3500);
        let dirty = Mode::Alone {
            controller: A,
            dirty: true,
        };
        assert_eq!(
            s.mode(A),
            Some(dirty),
            "the write is neither in memory only nor on disk for good"
        );
        s.good(write);
        s.disk_writes_take(0);
        s.end();
    });
}

/// R7: a write that comes while "clean" is voted on waits for the record to say "dirty" again.
#[test]
fn nothing_is_staged_while_clean_is_voted_on() {
    trace(&["stage-during-a-clean-ballot", "stage-while-clean"], || {
        let mut s = both();
        s.crash(B);
        s.until_alone(A, true);
        s.until("votes for ALONE(A, clean)");
        s.mark();
        let write = s.written(A, 0, 8);
        let story = s.story();
        let staged = story.find("A nv: RIE").expect("it was staged");
        let dirty = story.find("votes for ALONE(A, dirty)").expect("it was voted on");
        assert!(dirty < staged, "a write is staged under a record that may say clean");
        s.reads(A, 0, 8, write);
        s.end();
    });
}

/// R12: what waited while a controller was stopped may have been done through its partner since: it does not begin.
#[test]
fn what_waited_while_a_controller_was_stopped() {
    trace(&["late-commands-run"], || {
        let mut s = both();
        s.crash(B);
        s.until_alone(A, true);
        s.pause(A, 2500);
        let write = s.write(A, 0, 8);
        s.pass(4000);
        assert!(!s.is_good(write), "its host has long gone to the other path");
        assert!(s.tells("A closes host connections"));
        s.end();
    });
}

/// R10: a write of one pair names old data of the other: all buffers are resolved before any RIE is released.
#[test]
fn old_data_of_the_other_pair() {
    trace(&["one-pair-after-the-other"], || {
        let mut s = both();
        let name = Name::new("lun0").expect("a name");
        s.manage(A, ManageOp::LunMove { name, to: B });
        s.until("A -> operator: Ok");
        s.pass(100);
        s.disk_writes_take(2000);
        let v1 = s.written(B, 0, 8);
        s.crash(B);
        s.until_alone(A, true);
        s.host_data_takes(500);
        s.write_long(A, 0, 8);
        s.until("A nv: RIE 0 Free");
        s.crash(A);
        s.start(A);
        s.until_alone(A, true);
        s.disk_writes_take(0);
        s.reads(A, 0, 8, v1);
        s.end();
    });
}

/// R6: images are not made level while a vote is undecided: it could still put one of them out.
#[test]
fn no_leveling_before_the_vote_is_decided() {
    trace(&["level-while-undecided"], || {
        let mut s = both();
        let v1 = s.written(A, 0, 8);
        s.crash(A);
        s.crash(B);
        s.cut();
        s.start(A);
        s.start(B);
        s.until("-> disk 0: votes for ALONE(");
        s.fail_disks(&[0, 1, 2]);
        s.mend();
        s.pass(1000);
        assert!(!s.tells("notes: Leveled"), "one of them may still be alone");
        s.fail_disks(&[]);
        s.start_when_down();
        s.until_both_serve();
        s.reads(A, 0, 8, v1);
        s.end();
    });
}

/// R9: a write that began before the partner joined has no mirror: BOTH waits for its end.
#[test]
fn both_waits_for_writes_without_a_mirror() {
    trace(&["both-while-a-write-has-no-mirror"], || {
        let mut s = both();
        s.crash(B);
        s.until_alone(A, true);
        s.host_data_takes(3000);
        let write = s.write_long(A, 0, 8);
        s.until("A -> host: fetch");
        s.start(B);
        s.until("A -> B: attached");
        s.pass(1000);
        assert_ne!(s.mode(A), Some(Mode::Both), "the write is nowhere but here");
        s.good(write);
        s.until_both_serve();
        s.end();
    });
}

/// R9: from proposing BOTH until the result is known nothing is said without the joiner.
#[test]
fn nothing_is_said_while_both_is_voted_on_without_a_link() {
    trace(&["forget-a-proposed-both"], || {
        let mut s = both();
        s.crash(B);
        s.until_alone(A, true);
        s.start(B);
        s.until("A -> disk 0: votes for BOTH");
        s.cut();
        s.fail_disks(&[0, 1, 2]);
        s.pass(50);
        // These blocks lie on disk 3, too, which does not vote.
        let read = s.read(A, 4096, 8);
        s.pass(200);
        assert!(!s.is_good(read), "B may be in");
        s.fail_disks(&[]);
        s.mend();
        s.start_when_down();
        s.until_both_serve();
        s.end();
    });
}

/// R11: a LUN moves only once the new owner has heard of every release.
#[test]
fn a_move_waits_for_the_releases() {
    trace(&["move-before-the-releases"], || {
        let mut s = both();
        s.written(A, 0, 8);
        s.until("A -> B: release");
        s.pause(B, 1000);
        s.mark();
        let name = Name::new("lun0").expect("a name");
        s.manage(A, ManageOp::LunMove { name, to: B });
        s.pass(500);
        assert!(!s.story().contains("votes for"), "B still has data of the LUN");
        s.until("A -> operator: Ok");
        s.end();
    });
}

/// Metadata count once a majority of the quorum disks has them.
#[test]
fn metadata_need_a_majority() {
    trace(&["metadata-without-a-majority"], || {
        let mut s = both();
        s.fail_disks(&[0, 1]);
        let (name, to) = (Name::new("lun1").expect("a name"), Name::new("other").expect("a name"));
        s.manage(A, ManageOp::LunRename { name, to });
        s.pass(100);
        s.fail_disks(&[]);
        s.until("A -> operator: Err");
        s.end();
    });
}

/// R9: BOTH names the joiner's image, so it waits until the joiner has one. Else the one that was in could fall, and the
/// other, though the record says that it is in, would have nothing to serve from.
#[test]
fn both_waits_until_the_joiner_has_its_image() {
    trace(&[], || {
        let mut s = both();
        s.crash(B);
        s.until_alone(A, true);
        s.start(B);
        s.until("A -> B: attached");
        s.pause(B, 1000);
        s.pass(900);
        assert_ne!(s.mode(A), Some(Mode::Both), "B has not heard yet that it joins");
        s.until_both_serve();
        s.end();
    });
}

/// A write that was forwarded, and whose owner fell before it could answer, may be done: when its host withdraws it now, the
/// answer is not that it never was.
#[test]
fn what_may_be_done_is_not_withdrawn() {
    trace(&["withdraw-what-may-be-done"], || {
        let mut s = both();
        let write = s.write(B, 0, 8);
        s.crash_at(A, "A -> B: forwarded Good");
        s.until("A ends");
        s.withdraw(write);
        s.good(write);
        s.reads(B, 0, 8, write);
        s.end();
    });
}

/// A controller whose partner was voted in while it stood still finds that by reading, though no slot can be written.
#[test]
fn who_cannot_vote_looks_whether_it_is_out() {
    trace(&["vote-without-looking"], || {
        let mut s = Scenario::apart().both_serving();
        s.pause(A, 3000);
        s.until("B fences A");
        // B tells what was decided.
        s.pass(100);
        s.fail_slot_writes(&[0, 1, 2]);
        s.cut();
        s.until("A notes: Out");
        s.fail_slot_writes(&[]);
        s.mend();
        s.end();
    });
}

/// R3: a write that was mirrored, and not yet acknowledged when the mirror fell, counts once it is on the disks.
#[test]
fn what_waits_for_leave_is_brought_to_disk() {
    trace(&["what-waits-for-leave-is-not-on-disk"], || {
        let mut s = both();
        // B's grants are over when they arrive: A has what it needs but leave to speak.
        s.link_takes(1100);
        let write = s.write(A, 0, 8);
        s.until("A <- B: MDA");
        assert!(!s.is_good(write), "B may have gone on alone");
        s.disk_writes_take(1000);
        s.crash(B);
        s.link_takes(0);
        s.until_alone(A, true);
        s.pass(10);
        assert!(!s.is_good(write), "it is in one memory only");
        s.good(write);
        s.disk_writes_take(0);
        s.end();
    });
}

/// A controller that waits for its locks under a record that says that it is in may be fenced meanwhile, and nobody ends it
/// where its process cannot be seen: it looks whether it is still in.
#[test]
fn who_waits_for_its_locks_looks_whether_it_is_in() {
    trace(&["wait-for-locks-without-looking"], || {
        for vote in 0..3 {
            let mut s = Scenario::apart().both_serving();
            s.crash(B);
            for _ in 0..=vote {
                s.until("votes for ALONE(A");
            }
            s.start(B);
            s.until("A fences B");
            s.until_both_serve();
            s.end();
        }
    });
}

/// R11: who stops keeps its LUNs while a write is in progress, though all that is in memory is on disk.
#[test]
fn a_write_that_has_begun_keeps_its_owner() {
    trace(&["move-under-commands"], || {
        let mut s = both();
        s.host_data_takes(500);
        let slow = s.write_long(A, 0, 8);
        s.until("A -> host: fetch");
        s.host_data_takes(0);
        s.manage(A, ManageOp::Stop);
        s.pass(200);
        assert_eq!(s.owner(), A, "the write is not over");
        let other = s.write(B, 0, 8);
        s.good(slow);
        s.until("A exits");
        s.good(other);
        s.end();
    });
}

/// A controller for which another event always waits, so that messages share frames.
fn crowded(core: &mut Core, now: Time, event: Event, effects: &mut Vec<Effect>) {
    core.expect_more(event != Event::Tick);
    core.step(now, event, effects);
}

/// Hosts withdraw two long writes before a frame leaves, once old data that they name have reached the disks; those stay in memory
/// because the writes name them. `fetched` says that both have begun.
fn two_are_withdrawn_at_once(s: &mut Scenario, fetched: &str) {
    s.host_data_takes(500);
    let both = [s.write_long(A, 0, 8), s.write_long(A, 64, 8)];
    s.until(fetched);
    s.host_data_takes(0);
    s.disk_writes_take(0);
    s.until("A -> disk 1: flush");
    both.into_iter().for_each(|write| s.withdraw(write));
}

/// The mirror hears that a write is withdrawn before it hears that the old data it named are released, even if the release
/// of other data still waits for its frame.
#[test]
fn what_a_withdrawn_write_named_is_released_after_it() {
    trace(&["releases-join-an-earlier-request"], || {
        let mut s = Scenario::new().each_step(crowded).both_serving();
        s.disk_writes_take(100);
        s.written(A, 0, 8);
        s.written(A, 64, 8);
        s.until("A -> disk 1: write 16448+8");
        two_are_withdrawn_at_once(&mut s, "A -> host: fetch into buffers [3]");
        s.until("withdraw RIE 0, release [0], withdraw RIE 1, release [1]");
        s.end();
    });
}

/// Two writes are withdrawn before a frame leaves, and the second named no old data: nothing is to be released after it. The
/// LUN moves when the mirror has heard of what is.
#[test]
fn a_write_that_named_nothing_is_withdrawn_after_one_that_did() {
    trace(&["a-release-of-nothing-is-requested"], || {
        let mut s = Scenario::new().each_step(crowded).both_serving();
        s.disk_writes_take(100);
        s.written(A, 0, 8);
        s.until("A -> disk 1: write 16384+8");
        two_are_withdrawn_at_once(&mut s, "A -> host: fetch into buffers [2]");
        s.until("withdraw RIE 0, release [0], withdraw RIE 1");
        let name = Name::new("lun0").expect("a name");
        s.manage(A, ManageOp::LunMove { name, to: B });
        s.until("A -> operator: Ok");
        s.end();
    });
}

/// B falls and is back while A cannot write its slot: A does not greet it before it has decided, and sends it nothing.
#[test]
fn nothing_is_sent_before_both_have_said_hello() {
    trace(&["one-hello-is-a-link"], || {
        let mut s = both();
        s.use_lun(1);
        s.write_fua(A, 8192, 8);
        s.until("A -> disk 2: flush");
        s.stall_disks(&[2]);
        s.fail_slot_writes(&[0, 1]);
        s.crash(B);
        s.start(B);
        s.until("A <- B: hello");
        s.unstall_disk(2, 0);
        s.until("A nv: BMAE 0 Free");
        s.pass(5);
        s.fail_slot_writes(&[]);
        s.start_when_down();
        s.until_both_serve();
        s.end();
    });
}

/// B falls, and is back while A waits for the end of what it had submitted. To the writes that began before the fall B was
/// the mirror; now it is nobody's, and is neither asked to mirror one nor told that one is withdrawn.
#[test]
fn who_returns_before_the_fence_is_asked_nothing() {
    trace(&["ask-whoever-returns"], || {
        let mut s = both();
        let name = Name::new("lun1").expect("a name");
        s.manage(A, ManageOp::LunMove { name, to: B });
        s.until("A -> operator: Ok");
        s.host_data_takes(1_200);
        let begun = s.now();
        let (express, long) = (s.write(A, 0, 8), s.write_long(A, 8, 8));
        s.pass(5);
        s.use_lun(1);
        s.host_data_takes(0);
        s.stall_disks(&[0]);
        s.mark();
        s.write_fua(B, 0, 8);
        s.until("B -> disk 0: write");
        s.crash(B);
        s.until("A notes: ballot won");
        // Its first words are lost, so that it is greeted and not yet refused.
        s.link_loses_every(1);
        s.start(B);
        s.until("B <- A: hello");
        s.pass(begun + 1_199 - s.now());
        s.link_loses_every(0);
        s.withdraw(long);
        s.until("A nv: RIE 0 Valid");
        s.pass(50);
        assert!(!s.is_over(express), "the fence waits for disk 0");
        s.stall_disks(&[]);
        s.good(express);
        s.start_when_down();
        s.until_both_serve();
        s.end();
    });
}

/// A joiner falls when the one that is in has voted for both, and is back before it is known what became of the vote: the record
/// may name the process that fell. The new one is not greeted, and is asked nothing.
#[test]
fn who_returns_before_the_vote_is_decided_is_asked_nothing() {
    trace(&["greet-a-lost-mirror"], || {
        let mut s = both();
        s.crash(B);
        s.until_alone(A, true);
        s.start(B);
        s.until("A -> disk 0: votes for BOTH");
        s.fail_slot_writes(&[0, 1, 2]);
        s.pass(20);
        s.crash(B);
        // Its first words are lost, so that whoever greets it does not refuse it at once.
        s.link_loses_every(1);
        s.start(B);
        s.pass(300);
        s.link_loses_every(0);
        s.mark();
        s.write(A, 0, 8);
        s.pass(50);
        s.fail_slot_writes(&[]);
        s.start_when_down();
        s.until_both_serve();
        s.end();
    });
}

/// A left everything clean. B takes over with a fresh image, and falls when it has voted for that; it is back, and finishes the
/// vote of its predecessor. What it serves from must be what the record names, or the next fall costs it its memory.
#[test]
fn who_finishes_a_vote_serves_from_the_image_that_it_names() {
    trace(&["serve-from-an-image-unnamed"], || {
        for at in ["B -> disk 0: votes for ALONE(B", "B -> disk 1: votes for ALONE(B"] {
            let mut s = both();
            s.crash(B);
            s.until_alone(A, true);
            s.manage(A, ManageOp::Stop);
            s.until("A exits");
            s.crash_at(B, at);
            s.start(B);
            s.until("B ends");
            s.start(B);
            s.until("B serves");
            let write = s.written(B, 0, 8);
            s.crash(B);
            s.start_when_down();
            s.until("B serves");
            s.reads(B, 0, 8, write);
            s.until_both_serve();
            s.end();
        }
    });
}

/// A owns the LUN. v1 through B waits there for a frame, behind much that is lost again and again; its host withdraws it, and
/// writes v2 through A (R12).
fn a_write_waits_for_a_frame() -> (Scenario, Sent) {
    let mut s = both();
    let name = Name::new("lun1").expect("a name");
    s.manage(A, ManageOp::LunMove { name, to: B });
    s.pass(500);
    s.link_takes(50);
    s.pass(500);
    s.disk_reads_take(600);
    s.use_lun(1);
    (0..4).for_each(|n| {
        s.read(A, 256 * n, 256);
    });
    s.pass(300);
    (0..4).for_each(|n| {
        s.write(B, 2048 + 256 * n, 256);
    });
    s.pass(10);
    s.link_loses_every(1);
    s.pass(100);
    s.disk_reads_take(0);
    s.use_lun(0);
    (0..3).for_each(|n| {
        s.write(B, 4096 + 256 * n, 256);
    });
    s.pass(5);
    let v1 = s.write(B, 0, 8);
    s.pass(900);
    s.withdraw(v1);
    s.link_loses_every(0);
    let v2 = s.written(A, 0, 8);
    (s, v2)
}

/// v1 must not be sent when its host has withdrawn it.
#[test]
fn what_waits_for_a_frame_is_recalled() {
    trace(&["send-what-was-withdrawn"], || {
        let (mut s, v2) = a_write_waits_for_a_frame();
        s.reads(A, 0, 8, v2);
        s.pass(3000);
        s.reads(A, 0, 8, v2);
        s.end();
    });
}

/// The same; A falls before v1 could be sent, and B, which has it, is alone.
#[test]
fn what_was_recalled_is_not_done_alone() {
    trace(&["send-what-was-withdrawn"], || {
        let (mut s, v2) = a_write_waits_for_a_frame();
        s.crash(A);
        s.until_alone(B, true);
        s.pass(1000);
        s.reads(B, 0, 8, v2);
        s.end();
    });
}

/// A command for no blocks is nobody's: it is answered where it comes, and no owner has to make sense of it.
#[test]
fn commands_for_no_blocks() {
    trace(&["forward-nothing-at-all"], || {
        let mut s = both();
        for path in [A, B] {
            let write = s.write(path, 0, 0);
            s.good(write);
            let read = s.read(path, 8, 0);
            s.good(read);
        }
        s.end();
    });
}

/// Nor does such a command wait for what it does not need, behind others that wait for it.
#[test]
fn a_write_of_nothing_waits_for_no_memory() {
    trace(&["who-wants-nothing-waits-for-memory"], || {
        let mut s = Scenario::small().both_serving();
        s.host_data_takes(1_000);
        for n in 0..3 {
            // There are two RIEs.
            s.write_long(A, 64 * n, 8);
        }
        let nothing = s.write(A, 512, 0);
        s.pass(100);
        assert!(s.is_good(nothing), "{}", s.story());
        s.end();
    });
}

/// What was posted for the data of a write may land whatever its host has said since: the write ends only once they came, or
/// will not. Until then nobody else gets the memory.
#[test]
fn a_withdrawn_write_waits_for_its_data() {
    trace(&["withdraw-before-the-data", "recall-before-the-data"], || {
        for path in [A, B] {
            let mut s = both();
            s.host_data_takes(1000);
            let write = s.write_long(path, 0, 8);
            s.until(&format!("{path} -> host: fetch"));
            s.withdraw(write);
            s.pass(500);
            assert!(!s.is_over(write), "its data may still land");
            s.until(&format!("{path} -> host: Aborted"));
            s.host_data_takes(0);
            s.end();
        }
    });
}

/// A lease is for who shows that it is alive: whoever only reads the slots, because it cannot write its own, may be taken for gone.
#[test]
fn who_cannot_write_its_slot_has_no_lease() {
    trace(&["a-look-is-a-lease"], || {
        let mut s = Scenario::new().alone(A);
        s.until_alone(A, false);
        s.fail_slot_writes(&[0, 1, 2]);
        // It needs a ballot, and before that is tried again the slots are read.
        let write = s.write(A, 0, 8);
        s.pass(3000);
        let read = s.read(A, 100, 8);
        s.pass(500);
        assert!(!s.is_over(read), "A answers without a lease");
        s.fail_slot_writes(&[]);
        s.good(write);
        s.good(read);
    });
}

/// A write is withdrawn before the mirror is armed for it, and another has its RIE when the RTR arrives: that is not for this one.
#[test]
fn an_rtr_is_of_one_use_of_an_rie() {
    trace(&["an-rtr-of-an-earlier-use"], || {
        let mut s = both();
        s.link_takes(5);
        let withdrawn = s.write_long(A, 0, 8);
        s.until("A -> B: RQR");
        s.withdraw(withdrawn);
        s.until("A -> host: Aborted");
        let written = s.write_long(A, 64, 8);
        s.until("A <- host: data");
        s.mark();
        s.until("A <- B: RTR");
        assert!(!s.story().contains("A -> B: data"), "{}", s.story());
        s.until("A <- B: RTR");
        s.good(written);
        s.end();
    });
}

/// R12: a write waits at B, which does not own its LUN, for what others have forwarded, for as long as a disk takes for their reads.
/// Its host has lost that path, of which B hears nothing, and writes the same blocks through A.
#[test]
fn an_old_write_that_waits_to_be_forwarded() {
    trace(&["what-waits-to-be-forwarded-has-no-deadline"], || {
        let mut s = Scenario::new().both_serving();
        s.disk_reads_take(4_600);
        for n in 0..16 {
            s.read(B, 2048 + 8 * n, 8);
        }
        s.pass(50);
        s.write(B, 0, 8);
        s.disk_reads_take(0);
        s.pass(4_300);
        let newer = s.written(A, 0, 8);
        s.pass(3_000);
        s.reads(A, 0, 8, newer);
        s.end();
    });
}

/// R12: an old write waits at A, which owns its LUN, behind one whose data do not come; its host has lost that path. The LUN goes to B,
/// and newer data are written there, while the old write waits for a transfer buffer of B to be forwarded.
fn an_old_write_at_a_former_owner(late: u64) {
    let mut s = Scenario::new().both_serving();
    let lun = |n: &str| Name::new(n).expect("a name");
    s.manage(
        A,
        ManageOp::LunMove {
            name: lun("lun1"),
            to: B,
        },
    );
    s.until("A -> operator: Ok");
    s.pass(1_000);
    s.host_data_takes(4_250);
    s.write_long(A, 0, 8);
    s.pass(20);
    s.host_data_takes(0);
    s.write(A, 0, 8);
    s.pass(3_600);
    s.manage(
        A,
        ManageOp::LunMove {
            name: lun("lun0"),
            to: B,
        },
    );
    s.pass(20);
    s.disk_reads_take(500 + late);
    s.use_lun(1);
    [0, 8, 4096, 4104].into_iter().for_each(|at| _ = s.read(A, at, 8));
    s.use_lun(0);
    s.pass(5);
    s.disk_reads_take(0);
    s.until("A -> operator: Ok");
    let newer = s.written(B, 0, 8);
    s.pass(1_000);
    s.reads(B, 0, 8, newer);
    s.end();
}

#[test]
fn a_write_that_is_late_when_its_turn_comes() {
    trace(&["who-is-late-is-looked-for-now-and-then"], || {
        (0..20).for_each(|n| an_old_write_at_a_former_owner(10 * n));
    });
}
