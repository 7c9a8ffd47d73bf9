//! What an operator sees of a controller: it follows from what happens, and nothing follows from it.

use std::cell::RefCell;
use twincell_core::cell::record::Mode;
use twincell_core::controller::{CellView, Role};
use twincell_core::ids::Controller::{A, B};
use twincell_core::ids::{DiskIndex, Nanos, PSEG_BLOCKS, Time, Uuid};
use twincell_core::layout::metadata::DiskState::{Merging, Missing, Normal};
use twincell_core::layout::metadata::{Name, Redundancy};
use twincell_core::link::path::{PathState, PathView, Why};
use twincell_core::manage::ManageOp;
use twincell_core::merge::MergeView;
use twincell_core::{Core, Effect, Event};
use twincell_sim::Scenario;

/// What was seen after a step.
#[derive(Clone)]
struct Look {
    cell: CellView,
    commands: Vec<String>,
    paths: Vec<PathView>,
    link_is_up: bool,
    merging: Option<MergeView>,
    now: Time,
}

thread_local! {
    static LOOKS: RefCell<Vec<Look>> = const { RefCell::new(Vec::new()) };
}

fn step_and_look(core: &mut Core, now: Time, event: Event, effects: &mut Vec<Effect>) {
    core.step(now, event, effects);
    let look = Look {
        cell: core.cell_view(),
        commands: core.work_in_words(),
        paths: core.paths().collect(),
        link_is_up: core.link().is_up(),
        merging: core.merging(),
        now,
    };
    assert_eq!(look.cell.linked, look.link_is_up);
    LOOKS.with_borrow_mut(|l| l.push(look));
}

/// All that was seen since the last time.
fn looks() -> Vec<Look> {
    LOOKS.take()
}

/// The roles in order, each once for as long as it lasts.
fn roles(looks: &[Look]) -> Vec<Role> {
    let mut roles: Vec<Role> = looks.iter().map(|l| l.cell.role).collect();
    roles.dedup();
    roles
}

#[test]
fn one_that_serves_alone() {
    let mut s = Scenario::new().each_step(step_and_look).alone(A);
    let start = looks();
    assert_eq!(start[0].cell.role, Role::Starting);
    assert_eq!(start[0].cell.record, None, "it is still to be read");
    let last = start.last().expect("it has started");
    assert_eq!(
        (last.cell.role, last.cell.linked, last.cell.joining),
        (Role::Serving, false, false)
    );
    assert!(last.cell.image_current && last.cell.awaited_memory.is_none() && last.cell.partner_last_seen.is_none());
    assert!(
        last.paths
            .iter()
            .all(|p| p.state == PathState::Down && !p.works() && p.round_trip.is_none())
    );
    assert!(last.commands.is_empty());

    s.written(A, 0, 8);
    let written = looks();
    let during = written
        .iter()
        .find(|l| l.cell.open_ries > 0)
        .expect("a write in progress");
    let words = during.commands.first().expect("its command");
    assert!(words.contains("Write") && words.contains(":0+8"), "{words}");
    let sync = s.sync(A);
    s.good(sync);
    s.pass(2_000);
    let written = looks();
    let last = written.last().expect("it goes on");
    assert_eq!((last.cell.dirty_buffers, last.cell.open_ries), (0, 0));

    s.manage(A, ManageOp::Stop);
    s.pass(2_000);
    let stops = roles(&looks());
    assert_eq!(stops.first(), Some(&Role::Stopping), "{stops:?}");
}

#[test]
fn one_that_joins_and_one_that_takes_over() {
    let mut s = Scenario::new().each_step(step_and_look).both_serving();
    s.pass(1_000);
    let start = looks();
    assert!(start.iter().any(|l| l.cell.role == Role::Joining && !l.cell.joining));
    assert!(start.iter().any(|l| l.cell.role == Role::Serving && l.cell.joining));
    let last = start.last().expect("both serve");
    assert_eq!(
        (last.cell.role, last.cell.linked, last.cell.joining),
        (Role::Serving, true, false)
    );
    let path = last.paths[0];
    assert_eq!((path.path, path.state, path.why), (0, PathState::Active, Why::Joined));
    assert!(path.works() && path.since > Time(0) && path.since < last.now);
    assert!(
        path.round_trip
            .is_some_and(|r| r > Nanos(0) && r < Nanos::from_millis(100)),
        "{path:?}"
    );
    assert!(
        start
            .iter()
            .any(|l| l.paths[0].state == PathState::Opening && !l.paths[0].works())
    );

    let write = s.written(A, 0, 8);
    assert!(
        looks().iter().any(|l| l.cell.dirty_buffers > 0),
        "what is written stays for a while"
    );
    s.crash(A);
    s.until("B serves");
    let takeover = looks();
    assert!(
        takeover.iter().any(|l| l.cell.role == Role::Deciding),
        "nothing is acknowledged meanwhile"
    );
    let last = takeover.last().expect("B serves");
    assert!(matches!(
        last.cell.record.map(|r| r.mode),
        Some(Mode::Alone { controller: B, .. })
    ));
    assert_eq!((last.paths[0].state, last.paths[0].why), (PathState::Down, Why::Ended));
    s.reads(B, 0, 8, write);
    s.end();
}

#[test]
fn one_that_waits_for_an_operator() {
    let mut s = Scenario::new().each_step(step_and_look).both_serving();
    s.crash(B);
    s.until_alone(A, true);
    s.written(A, 0, 8);
    s.crash(A);
    looks();
    s.start(B);
    s.pass(20_000);
    let start = looks();
    assert_eq!(roles(&start), [Role::Starting]);
    let last = start.last().expect("B runs");
    assert!(last.cell.awaited_memory == Some(A) && !last.cell.image_current);
    assert!(
        start.iter().any(|l| l.cell.awaited_memory.is_none()),
        "not before it has read the record"
    );
    s.manage(B, ManageOp::AcceptLoss { missing: A });
    s.until("B serves");
    let last = looks().pop().expect("B serves");
    assert!(last.cell.awaited_memory.is_none() && last.cell.role == Role::Serving);
}

/// Disk 1 comes back. A owns two LUNs with two PSEGs on it each, and sees how far they are; B owns none, and sees that one merges.
#[test]
fn one_that_makes_a_disk_level() {
    let mut s = Scenario::new().each_step(step_and_look).both_serving();
    let name = Name::new("lun2").expect("a name");
    let create = ManageOp::LunCreate {
        name,
        uuid: Uuid(4711),
        blocks: 4 * PSEG_BLOCKS,
        redundancy: Redundancy::Vraid1,
    };
    s.manage(A, create);
    s.until("A -> operator: Ok");
    s.manage(A, ManageOp::LunMove { name, to: A });
    s.until("A -> operator: Ok");
    s.fail_disk(Some(1));
    s.write_fua(A, 0, 256);
    s.until_disk(A, 1, Missing);
    s.until_disk(B, 1, Missing);
    assert!(looks().iter().all(|l| l.merging.is_none()), "none merges");
    s.fail_disk(None);
    s.until_disk(A, 1, Merging);
    s.until_disk(A, 1, Normal);
    s.until_disk(B, 1, Normal);
    s.pass(100);
    let looks = looks();
    let (ours, theirs): (Vec<MergeView>, Vec<MergeView>) =
        looks.iter().filter_map(|l| l.merging).partition(|m| m.all > 0);
    assert!(ours.iter().chain(&theirs).all(|m| m.disk == DiskIndex(1)));
    assert!(ours.iter().all(|m| m.all == 4), "{ours:?}");
    let mut done: Vec<u64> = ours.iter().map(|m| m.done).collect();
    assert!(done.is_sorted(), "{done:?}");
    done.dedup();
    assert_eq!(done, [0, 1, 2, 3, 4]);
    assert!(!theirs.is_empty() && theirs.iter().all(|m| m.done == 0));
    assert!(looks.last().is_some_and(|l| l.merging.is_none()), "it is level");
    s.end();
}
