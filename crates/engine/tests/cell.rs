//! Two controllers with real disks, sockets and NV memory, in one process: a cell from its creation to its end.

mod support;

use std::time::Duration;
use support::{Cell, NbdClient};
use twincell_core::controller::Role;
use twincell_core::effect::Note;
use twincell_core::ids::Controller;
use twincell_core::manage::{ManageError, ManageOp};
use twincell_engine::{Copies, StoryLine, Told};

#[test]
fn a_cell_serves_a_lun_through_both_controllers_and_keeps_it() {
    let mut cell = Cell::new("keeps", 4);
    cell.start(Controller::A);
    cell.start(Controller::B);
    cell.await_mirrored();
    cell.create_lun("one", 16 << 20);

    let pattern = |seed: u8| {
        (0..128 * 1024)
            .map(|i: u32| (i / 512) as u8 ^ seed)
            .collect::<Vec<u8>>()
    };
    let mut through_a = NbdClient::connect(cell.nbd(Controller::A), "one");
    let mut through_b = NbdClient::connect(cell.nbd(Controller::B), "one");
    through_a.write(0, &pattern(1));
    through_b.write(1 << 20, &pattern(2));
    assert!(
        through_b.read(0, 128 * 1024) == pattern(1),
        "B reads what A did not write"
    );
    assert!(
        through_a.read(1 << 20, 128 * 1024) == pattern(2),
        "A reads what B did not write"
    );
    through_a.flush();

    cell.stop(Controller::B);
    assert!(through_a.read(0, 128 * 1024) == pattern(1));
    through_a.write(2 << 20, &pattern(3));
    cell.stop(Controller::A);

    cell.start(Controller::A);
    cell.await_serving(Controller::A);
    let mut through_a = NbdClient::connect(cell.nbd(Controller::A), "one");
    for (offset, seed) in [(0, 1), (1 << 20, 2), (2 << 20, 3)] {
        assert!(
            through_a.read(offset, 128 * 1024) == pattern(seed),
            "data at {offset} differ after a restart"
        );
    }
    assert!(
        through_a.read(8 << 20, 4096) == vec![0; 4096],
        "what was never written reads as zero"
    );
    cell.stop(Controller::A);
}

#[test]
fn a_snapshot_tells_what_there_is() {
    let mut cell = Cell::new("snapshot", 3);
    cell.start(Controller::A);
    cell.await_serving(Controller::A);
    cell.create_lun("one", 5 << 20);
    let snapshot = cell.handle(Controller::A).snapshot().expect("a snapshot");
    assert_eq!(snapshot.cell.role, Role::Serving);
    assert!(snapshot.serving_hosts);
    assert_eq!(snapshot.luns.len(), 1);
    assert_eq!(snapshot.disks.len(), 3);
    let taken: u32 = snapshot.disks.iter().map(|d| d.psegs - d.psegs_free).sum();
    // Three RStores of 2 MiB, each twice.
    assert_eq!(taken, 6);
    assert!(snapshot.disks.iter().all(|d| d.works));
    assert_eq!(snapshot.copies, [Copies { wanted: 2, left: 2 }]);
    let (story, next) = cell.handle(Controller::A).story(0).expect("a story");
    assert_eq!(story.len() as u64, next);
    let serving = |l: &StoryLine| matches!(l.told, Told::Note(Note::Serving { mirrored: false }));
    assert!(story.iter().any(serving), "{story:?}");
    let again = cell.handle(Controller::A).manage(
        ManageOp::LunDelete {
            name: support::name("two"),
        },
        Duration::from_secs(5),
    );
    assert_eq!(again, Ok(Err(ManageError::NoSuchLun)));
    cell.stop(Controller::A);
    assert!(cell.handle_is_stopped(Controller::A));
}
