//! Seeds that failed once, each with what was wrong. What else a seed brings changes whenever the simulator draws anything
//! else, so those for which a script could be written are scripts.

use twincell_sim::plan::Plan;
use twincell_sim::{run_plan, trace};

/// As it was then: nothing outlived its connection, and no path was slow.
fn ends_well(seed: u64) {
    let plan = Plan {
        drains: false,
        slow_paths: [0; 2],
        ..Plan::of_seed(seed)
    };
    run(seed, plan);
}

/// As it is now.
fn ends_well_now(seed: u64) {
    run(seed, Plan::of_seed(seed));
}

fn run(seed: u64, plan: Plan) {
    if let Err(what) = run_plan(plan, false) {
        panic!("seed {seed}: {what}");
    }
}

/// A process that had just started was sent what was meant for the one before, which was the mirror.
#[test]
fn a_mirror_that_was_lost_is_met_again() {
    [200_453_746, 200_475_989, 200_863_589].into_iter().for_each(ends_well);
}

/// The same with one that was about to join.
#[test]
fn a_joiner_that_was_lost_is_met_again() {
    ends_well(200_389_301);
}

/// Who had moved on to another record said hello on a second path, and was taken for the one that was met before.
#[test]
fn a_partner_that_has_moved_on() {
    [200_164_113, 200_725_279].into_iter().for_each(ends_well);
}

/// Who had lost a ballot of two wanted to finish its own vote, and never went; its partner waited for its locks for ever.
#[test]
fn who_loses_a_ballot_with_a_vote_of_its_own() {
    ends_well(200_567_096);
}

/// After the loss of all memory the two copies of a block may differ, and reads may find the one or the other.
#[test]
fn copies_differ_when_all_memory_was_lost() {
    ends_well(200_301_643);
}

/// A controller stood still when everything was healed, and was fenced only when hosts had read everything back.
#[test]
fn a_long_pause_when_all_is_healed() {
    [200_528_021, 200_564_341].into_iter().for_each(ends_well);
}

/// A disk was gone, and so little happened that an operator who counted events did not look again within two minutes.
#[test]
fn an_operator_looks_by_the_clock() {
    ends_well(300_399_210);
}

/// A disk died under a LUN while its owner drained it for the partner's operator: the partner, which decides what disks are
/// given up, said that it was busy, for ever.
#[test]
fn a_move_waits_for_a_disk_that_dies() {
    ends_well(400_092_917);
}

/// A controller stopped when its partner had just joined and still read the metadata: it did not hear that the other was
/// leaving, which waited for ever.
#[test]
fn who_stops_while_its_partner_joins() {
    ends_well(400_167_663);
}

/// Who stopped had given all away, and before it could leave its partner moved a LUN back to it: it left with that LUN, and
/// answered one more command when it had said that it was gone.
#[test]
fn who_stops_is_given_a_lun() {
    [500_736_516, 500_974_635].into_iter().for_each(ends_well);
}

/// A disk had been slow, and was about to be given up for it, when another was lost for good: two faults, of which the
/// promise speaks no more.
#[test]
fn a_disk_is_lost_while_another_is_given_up() {
    ends_well(600_257_211);
}

/// A clock jumped over the end of a wait just before a message of the partner came: the ballot that was due broke the link,
/// not the message.
#[test]
fn a_message_comes_when_a_ballot_is_due() {
    ends_well(601_831_898);
}

/// A partner was back before the fence of its old process was complete, and was asked to mirror a write that had begun before
/// it fell.
#[test]
fn who_returns_before_the_fence_is_complete() {
    ends_well(700_345_576);
}

/// Who waited to join had heard of a record whose metadata it could not read; two records later they were nowhere any more, and it
/// waited for them for ever, though it had read the record anew.
#[test]
fn who_reads_the_record_anew_waits_for_nothing_older() {
    ends_well(1_000_003_222);
}

/// A controller stood still for a little less than a partner may be silent, and took it for silence of the partner.
#[test]
fn a_short_pause_when_all_is_well() {
    ends_well(2_200_271_818);
}

/// All hosts want the same few blocks, through a controller that has one transfer buffer of its partner and a slow path to it: who
/// waits there for longer than a host does waits for no more than those before it.
#[test]
fn many_wait_for_one_transfer_buffer_and_a_slow_path() {
    ends_well(2_700_081_455);
}

/// A path that spoils what is large had been silent before, so that it showed only some time after the last of what was sent again that
/// it answers. It was given up with whatever came next.
#[test]
fn a_path_that_spoils_is_given_up_when_it_has_answered_for_long_enough() {
    ends_well(2_900_161_955);
}

/// A large write began, and one behind it that had waited for memory waited for its disk's share from then on: it held up no other any
/// more.
#[test]
fn a_write_is_passed_over_for_one_that_waits_for_something_else() {
    ends_well(3_000_117_933);
}

/// All disks are slow now and then, and all reads of a host wait for one transfer buffer of its controller.
#[test]
fn many_wait_for_one_transfer_buffer_and_slow_disks() {
    ends_well(3_200_095_231);
}

/// The same where nothing is wrong: a read waited its turn at both controllers, behind what disks were slow for.
#[test]
fn hosts_give_up_in_line_in_a_calm_run() {
    ends_well(4_100_058_400);
}

/// A long write that is forwarded in portions waited for its disks' share of what is lent, which those had that wait behind it; and who
/// gave its part of that back before its data came woke nobody.
#[test]
fn who_waits_behind_a_forwarded_write_has_no_part_of_what_is_lent() {
    [3_900_008_889, 3_900_009_802, 3_900_082_075, 3_900_084_640]
        .into_iter()
        .for_each(ends_well);
}

/// What a slow disk was asked for just before it was healed was late all the same.
#[test]
fn a_disk_that_was_slow_is_late_for_a_while() {
    ends_well(4_100_400_902);
}

/// A flush of a process that had died failed, and took what its successor had written: a process keeps its locks until its flushes
/// have ended, too.
#[test]
fn a_flush_of_a_dead_process() {
    ends_well(4_100_473_150);
}

/// A large write waited for its disks' share, and one behind it for that; a third began, and took what the large one lacked from then on,
/// which is no share.
#[test]
fn a_write_that_begins_changes_what_another_lacks() {
    ends_well(4_500_004_913);
}

/// A vote on one disk that nobody had seen since won when its controller was lost, long after both had served again.
#[test]
fn a_vote_that_was_forgotten() {
    ends_well(4_100_473_908);
}

/// The owner of a LUN holds it, so that its partner deletes it: hosts of the partner hear that it takes no more commands.
#[test]
fn hosts_hear_that_a_held_lun_is_deleted() {
    ends_well(4_500_111_814);
}

/// A write waits for its disk's share, which grew when buffers of another disk came free.
#[test]
fn a_share_grows_with_what_is_free() {
    ends_well(4_600_019_228);
}

/// A fence did not wait for a disk that was missing; that came back, and then what the fenced process had written there landed over
/// what had been copied.
#[test]
fn what_a_fence_has_left_keeps_a_disk_away() {
    [4_600_096_384, 4_600_139_144].into_iter().for_each(ends_well_now);
}

/// Who waited for its partner heard of a new record after its hello, and began to level with one that knew it by the record before.
#[test]
fn a_hello_is_of_the_record_in_force() {
    trace(&["hello-of-the-record-before"], || ends_well_now(4_700_332_118));
}

/// One that had stood still, and did not know that it was out, was taken for one that has everything: so its partner lost its memory.
#[test]
fn who_was_out_without_knowing_has_not_everything() {
    ends_well_now(4_800_443_398);
}

/// A path that was refused, because it spoils data, brought the hello of the partner's next process, which ended what had been
/// granted: for the oracle, not for the controller, which had read nothing of it.
#[test]
fn a_path_that_is_refused_tells_nothing() {
    ends_well_now(301_280);
}

/// Two hundred hosts asked for three places, and one of them was out of luck for 15 seconds.
#[test]
fn a_host_that_never_gets_the_next_place() {
    ends_well_now(5_300_266_882);
}

/// What was written to disk took the last buffers from a large write, which had kept others from those disks that it wanted a share of.
#[test]
fn a_share_that_became_smaller() {
    trace(&["a-share-only-grows"], || ends_well_now(157_973));
}
