//! Canonical runs as text, one line for each event and effect: a change of the protocol is reviewed as a difference of
//! these files. `UPDATE_EXPECT=1 cargo test -p twincell-sim --test stories` writes them anew.

use expect_test::{ExpectFile, expect_file};
use twincell_core::ids::Controller::{A, B};
use twincell_sim::Scenario;

fn check(story: &str, expected: &ExpectFile) {
    expected.assert_eq(story);
}

/// Both serve, and nothing is going on.
fn quiet() -> Scenario {
    Scenario::new().both_serving()
}

#[test]
fn an_express_write() {
    let mut s = quiet();
    s.written(A, 8, 8);
    check(&s.story(), &expect_file!["stories/express-write.txt"]);
    s.end();
}

#[test]
fn a_write_in_the_long_form() {
    let mut s = quiet();
    let write = s.write_long(A, 8, 16);
    s.good(write);
    check(&s.story(), &expect_file!["stories/long-form-write.txt"]);
    s.end();
}

#[test]
fn a_write_over_old_data() {
    let mut s = quiet();
    s.written(A, 8, 8);
    s.mark();
    s.written(A, 10, 4);
    check(&s.story(), &expect_file!["stories/write-over-old-data.txt"]);
    s.end();
}

#[test]
fn a_destage() {
    let mut s = quiet();
    s.written(A, 8, 8);
    s.mark();
    s.until("B <- A: release");
    check(&s.story(), &expect_file!["stories/destage.txt"]);
    s.end();
}

#[test]
fn a_read_from_the_cache() {
    let mut s = quiet();
    let write = s.written(A, 8, 8);
    s.mark();
    s.reads(A, 8, 8, write);
    check(&s.story(), &expect_file!["stories/cached-read.txt"]);
    s.end();
}

#[test]
fn a_write_and_a_read_at_the_other_controller() {
    let mut s = quiet();
    let write = s.written(B, 8, 8);
    s.reads(B, 8, 8, write);
    check(&s.story(), &expect_file!["stories/forwarded.txt"]);
    s.end();
}

#[test]
fn a_takeover() {
    let mut s = quiet();
    let write = s.written(A, 8, 8);
    s.mark();
    s.crash(A);
    s.until("B serves");
    s.reads(B, 8, 8, write);
    check(&s.story(), &expect_file!["stories/takeover.txt"]);
    s.end();
}

#[test]
fn a_return() {
    let mut s = quiet();
    s.crash(A);
    s.until("B serves");
    s.written(B, 8, 8);
    s.mark();
    s.start(A);
    s.until("B -> A: attached");
    s.written(B, 16, 8);
    s.until_both_serve();
    check(&s.story(), &expect_file!["stories/return.txt"]);
    s.end();
}

#[test]
fn a_restart_of_both() {
    let mut s = quiet();
    let write = s.written(A, 8, 8);
    s.mark();
    s.crash(A);
    s.crash(B);
    s.start(A);
    s.start(B);
    s.until_both_serve();
    s.reads(A, 8, 8, write);
    check(&s.story(), &expect_file!["stories/restart-of-both.txt"]);
    s.end();
}

#[test]
fn the_page_on_fig_5_has_the_stories() {
    let page = include_str!("../../../docs/fig5.md");
    for story in [
        include_str!("stories/express-write.txt"),
        include_str!("stories/long-form-write.txt"),
    ] {
        assert!(page.contains(story), "docs/fig5.md has not the story:\n{story}");
    }
}
