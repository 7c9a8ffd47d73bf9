//! Every kind of fault once, under a load that checks every byte. `cargo xtask soak` does the same for longer.

use twincell_rig::campaign::{Campaign, Order, Until};
use twincell_rig::fault::Kind;

#[test]
fn every_kind_once_under_load() {
    let dir = tempfile::tempdir().expect("a directory");
    let kinds: Vec<Kind> = Kind::all().collect();
    let mut campaign = Campaign::new(dir.path(), 1, &kinds, Order::InTurn).expect("a campaign");
    let result = campaign.run(Until::Counted(kinds.len() as u64));
    println!("{}", campaign.tally);
    if let Err(e) = result {
        panic!("{e}\n{} is left", dir.keep().display());
    }
    for kind in kinds {
        let line = campaign.tally.lines.get(&kind.to_string());
        assert!(line.is_some_and(|l| l.cycles > 0), "{kind} was left out");
    }
}

#[test]
fn what_fills_the_memory_of_both_survives_their_restart() {
    let dir = tempfile::tempdir().expect("a directory");
    let restart = twincell_rig::restart::measure(dir.path(), 32).unwrap_or_else(|e| panic!("{e}"));
    println!("{restart}");
    // A part stays free of what disks that do not answer hold up.
    assert!(restart.dirty >= 16 << 20, "{restart:?}");
}
