//! The conformance suite of another project, against both controllers. What it finds wrong must be what the list in
//! the target's tests says, no more and no less: the list only shrinks.

use std::collections::BTreeSet;
use std::time::Duration;
use twincell_rig::cell::{Cell, Shape};
use twincell_rig::tool::run;

const EXPECTED: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../crates/target/tests/iscsi-test-cu.expected"
);
const LIMIT: Duration = Duration::from_secs(600);
/// Tests that the suite has; fewer means that it did not run to its end.
const TESTS_MIN: usize = 200;

/// The tests that are expected to fail, as `Suite.Test`; `#` begins a comment.
fn expected() -> BTreeSet<String> {
    let text = std::fs::read_to_string(EXPECTED).unwrap_or_else(|e| panic!("{EXPECTED}: {e}"));
    let lines = text.lines().map(|l| l.split('#').next().unwrap_or_default().trim());
    lines
        .filter(|l| !l.is_empty())
        .map(|l| l.trim_start_matches("ALL.").to_owned())
        .collect()
}

/// Every test that ran, and those that failed, by what the suite wrote. A test's result comes at the end of its own
/// line, or on a line of its own after what the test had to say.
fn results(output: &str) -> (BTreeSet<String>, BTreeSet<String>) {
    let (mut all, mut failed) = (BTreeSet::new(), BTreeSet::new());
    let (mut suite, mut test) = (String::new(), String::new());
    for line in output.lines() {
        if let Some(name) = line.strip_prefix("Suite: ") {
            suite = name.trim().to_owned();
        } else if let Some((name, _)) = line.strip_prefix("  Test: ").and_then(|l| l.split_once(" ...")) {
            test = format!("{suite}.{name}");
            all.insert(test.clone());
        }
        if line.ends_with("FAILED") {
            failed.insert(test.clone());
        }
    }
    (all, failed)
}

fn conform(first: &str, second: &str) {
    let cell = Cell::start(Shape::default());
    let lun = cell.lun("data", "128M", "vraid1");
    let urls = [cell.iscsi_url(&lun, first), cell.iscsi_url(&lun, second)];
    let ended = run("iscsi-test-cu", &["--dataloss", "-t", "ALL", &urls[0], &urls[1]], LIMIT);
    let (all, failed) = results(&ended.stdout);
    assert!(
        all.len() >= TESTS_MIN,
        "only {} tests ran\n{}{}",
        all.len(),
        ended.stdout,
        ended.stderr
    );
    let expected = expected();
    let unexpected: Vec<_> = failed.difference(&expected).collect();
    assert!(
        unexpected.is_empty(),
        "failed, and is not on the list: {unexpected:#?}\n{}",
        ended.stdout
    );
    let passed: Vec<_> = expected.difference(&failed).collect();
    assert!(
        passed.is_empty(),
        "does not fail any more; remove it from the list: {passed:#?}"
    );
}

#[test]
fn through_a() {
    conform("A", "B");
}

#[test]
fn through_b() {
    conform("B", "A");
}

#[test]
fn results_are_read_wherever_they_stand() {
    let output = "Suite: Read\n  Test: One ...passed\n  Test: Two ...    [FAILED] why\nFAILED\n    1. file.c:50\n\
                  Suite: Write\n  Test: One ...    [SKIPPED] no\npassed\n  Test: Two ...FAILED\n";
    let (all, failed) = results(output);
    assert_eq!(all.len(), 4);
    assert_eq!(
        failed.iter().map(String::as_str).collect::<Vec<_>>(),
        ["Read.Two", "Write.Two"]
    );
}
