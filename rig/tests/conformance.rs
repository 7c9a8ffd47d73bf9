//! The conformance suite of another project, through both controllers. What it does not run or finds wrong must be what
//! the list in the target's tests says, no more and no less: the list only shrinks.

use std::collections::BTreeMap;
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
/// What the tests of two portals find, which the list cannot say: it is of one portal.
const MULTIPATH: [(&str, &str); 2] = [
    // A LUN RESET through one controller raises no unit attention on the sessions of the other yet.
    ("MultipathIO.Reset", "fail"),
    ("MultipathIO.CompareAndWriteAsync", "skip"),
];

/// Test, by its suite and name, and `skip` or `fail`. What is not there passes.
type Outcomes = BTreeMap<String, String>;

/// The list: a test, what it comes to, and why. `#` begins a comment.
fn expected() -> Outcomes {
    let text = std::fs::read_to_string(EXPECTED).unwrap_or_else(|e| panic!("{EXPECTED}: {e}"));
    let lines = text.lines().map(|l| l.split('#').next().unwrap_or_default());
    let entry = |line: &str| {
        let mut words = line.split_whitespace();
        Some((words.next()?.to_owned(), words.next()?.to_owned()))
    };
    lines.filter_map(entry).collect()
}

/// How many tests ran, and which did not pass, by what the suite wrote. A test's result follows its name, or begins a
/// line after what the test had to say. What comes after it is the suite cleaning up.
fn outcomes(output: &str) -> (usize, Outcomes) {
    let (mut count, mut found) = (0, Outcomes::new());
    let (mut suite, mut test) = (String::new(), None);
    for line in output.lines() {
        let mut told = line;
        if let Some(name) = line.strip_prefix("Suite: ") {
            name.trim().clone_into(&mut suite);
        } else if let Some((name, rest)) = line.strip_prefix("  Test: ").and_then(|l| l.split_once(" ...")) {
            count += 1;
            test = Some(format!("{suite}.{name}"));
            told = rest;
        }
        let Some(current) = test.clone() else { continue };
        if told.starts_with("FAILED") {
            found.insert(current, "fail".to_owned());
            test = None;
        } else if told.starts_with("passed") {
            test = None;
        } else if told.contains("[SKIPPED]") {
            found.insert(current, "skip".to_owned());
        }
    }
    (count, found)
}

/// Fails the test unless what was found is what is expected.
#[track_caller]
fn compare(found: &Outcomes, expected: &Outcomes, output: &str) {
    let worse: Vec<_> = found
        .iter()
        .filter(|(test, is)| expected.get(*test) != Some(is))
        .collect();
    assert!(worse.is_empty(), "not as the list says: {worse:#?}\n{output}");
    let better: Vec<_> = expected.keys().filter(|test| !found.contains_key(*test)).collect();
    assert!(better.is_empty(), "passes now; remove it from the list: {better:#?}");
}

fn conform(controller: &str) {
    let cell = Cell::start(Shape::default());
    let lun = cell.lun("data", "128M", "vraid1");
    let url = cell.iscsi_url(&lun, controller);
    let ended = run("iscsi-test-cu", &["--dataloss", "-t", "ALL", &url], LIMIT);
    let (count, found) = outcomes(&ended.stdout);
    assert!(
        count >= TESTS_MIN,
        "only {count} tests ran\n{}{}",
        ended.stdout,
        ended.stderr
    );
    compare(&found, &expected(), &ended.stdout);
}

#[test]
fn through_a() {
    conform("A");
}

#[test]
fn through_b() {
    conform("B");
}

#[test]
fn through_both_at_once() {
    let cell = Cell::start(Shape::default());
    let lun = cell.lun("data", "128M", "vraid1");
    let urls = ["A", "B"].map(|c| cell.iscsi_url(&lun, c));
    let test = "ALL.MultipathIO";
    let ended = run("iscsi-test-cu", &["--dataloss", "-t", test, &urls[0], &urls[1]], LIMIT);
    let (count, found) = outcomes(&ended.stdout);
    assert_eq!(count, 4, "{}{}", ended.stdout, ended.stderr);
    let expected = MULTIPATH.map(|(test, is)| (test.to_owned(), is.to_owned()));
    compare(&found, &Outcomes::from(expected), &ended.stdout);
}

#[test]
fn results_are_read_wherever_they_stand() {
    let output = "Suite: Read\n  Test: One ...passed    [SKIPPED] cleaning up\n  Test: Two ...    [FAILED] why\nFAILED\n    1. file.c:50\n\
                  Suite: Write\n  Test: One ...    [SKIPPED] no\npassed    [SKIPPED] cleaning up\n    [SKIPPED] more\n  \
                  Test: Two ...FAILED\n  Test: Three ...    [WARNING] odd\npassed\n";
    let (count, found) = outcomes(output);
    assert_eq!(count, 5);
    let found: Vec<_> = found.iter().map(|(test, is)| (test.as_str(), is.as_str())).collect();
    assert_eq!(
        found,
        [("Read.Two", "fail"), ("Write.One", "skip"), ("Write.Two", "fail")]
    );
}
