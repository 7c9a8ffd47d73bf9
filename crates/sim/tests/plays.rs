//! The clean runs of the canonical scenarios as text. `UPDATE_EXPECT=1 cargo test -p twincell-sim --test plays` writes
//! them anew.

use expect_test::expect_file;
use twincell_sim::play::{Play, scripts};

#[test]
fn clean_runs_are_as_they_were() {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/stories/plays");
    for script in scripts() {
        let name = script.name;
        let mut play = Play::begin(script).unwrap_or_else(|what| panic!("{name}: {what}"));
        play.tell();
        let story = play.story().unwrap_or_else(|what| panic!("{name}: {what}"));
        expect_file![format!("{directory}/{name}.txt")].assert_eq(&story);
    }
}
