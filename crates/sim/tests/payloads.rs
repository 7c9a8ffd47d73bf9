//! The core tells whoever moves the bytes where the payload of a frame will go, before the frame is handled: what it says is where
//! the payload then goes, and what cannot be told, or will not be taken, it does not name.

use std::cell::RefCell;
use twincell_core::ids::Controller::{A, B};
use twincell_core::ids::Time;
use twincell_core::link::frame::Frame;
use twincell_core::memory::Memory;
use twincell_core::{Core, Effect, Event};
use twincell_sim::Scenario;
use twincell_sim::fault::Fault;

/// A frame with a payload.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Came {
    /// Where the payload would go, as the core said before.
    told: Option<Memory>,
    /// Where it went.
    went: Option<Memory>,
}

thread_local! {
    static CAME: RefCell<Vec<Came>> = const { RefCell::new(Vec::new()) };
}

fn step_and_compare(core: &mut Core, now: Time, event: Event, effects: &mut Vec<Effect>) {
    let told = match &event {
        Event::LinkFrame {
            connection,
            frame: Frame::Messages(frame),
            payload,
        } if payload.0 > 0 => Some(core.place_of_payload(*connection, frame, *payload)),
        _ => None,
    };
    core.step(now, event, effects);
    let Some(told) = told else { return };
    let went = effects.iter().find_map(|e| match e {
        Effect::Absorb { into } => Some(*into),
        _ => None,
    });
    CAME.with_borrow_mut(|c| c.push(Came { told, went }));
}

/// Both serve, and nothing has come yet.
fn compared(s: Scenario) -> Scenario {
    CAME.take();
    s.each_step(step_and_compare).both_serving()
}

/// What came, all of it as it was told. Data that go on to the partner or a host do not go into NV buffers, and are not told.
fn as_told() -> Vec<Came> {
    let came = CAME.take();
    for c in &came {
        let buffers = c.went.filter(|m| matches!(m, Memory::Buffers(_)));
        assert_eq!(c.told, buffers);
    }
    came
}

fn told(came: &[Came]) -> usize {
    came.iter().filter(|c| c.told.is_some()).count()
}

/// A short write comes with its request, a long one after it.
#[test]
fn a_write_in_either_form() {
    let mut s = compared(Scenario::new());
    s.written(A, 0, 8);
    assert_eq!(told(&as_told()), 1);
    let long = s.write_long(A, 3, 250);
    s.good(long);
    assert_eq!(told(&as_told()), 1);
    s.end();
}

/// Data that are forwarded go into volatile memory first.
#[test]
fn what_is_forwarded_is_not_told() {
    let mut s = compared(Scenario::new());
    let written = s.written(B, 0, 8);
    s.reads(B, 0, 8, written);
    let came = as_told();
    assert_eq!(told(&came), 1, "the mirror is told of its own: {came:?}");
    assert!(came.iter().any(|c| matches!(c.went, Some(Memory::Transfer { .. }))));
    s.end();
}

/// A frame that comes too early is not taken, whatever it has.
#[test]
fn what_comes_too_early_is_not_told() {
    let mut s = compared(Scenario::new());
    s.link_loses_every(3);
    let writes: Vec<_> = (0..12).map(|n| s.write(A, 8 * n, 8)).collect();
    writes.into_iter().for_each(|w| s.good(w));
    let came = as_told();
    assert!(told(&came) >= 12);
    assert!(came.iter().any(|c| c.went.is_none()), "none came too early");
    s.link_loses_every(0);
    s.end();
}

/// Data that come when they were asked for again are refused, and are not told.
#[test]
fn what_is_refused_is_not_told() {
    let mut s = compared(Scenario::new());
    let written = s.write_long(A, 0, 8);
    s.until("B -> A: RTR");
    s.link_takes(700);
    s.until("B -> A: DTO");
    s.until("A -> B: DSS RIE 0 Sent");
    s.link_takes(0);
    s.good(written);
    assert!(s.stale(B) > 0);
    let came = as_told();
    assert_eq!(told(&came), 1, "{came:?}");
    assert!(came.len() > 1);
    s.end();
}

/// Messages move to the other path: what comes there is told as well, as soon as the first has come.
#[test]
fn a_path_that_is_left() {
    let mut s = compared(Scenario::two_paths());
    s.pass(2_000);
    s.written(A, 0, 8);
    assert_eq!(told(&as_told()), 1);
    s.fault(Fault::CutPath(0, 1_500));
    s.written(A, 8, 8);
    for c in CAME.take() {
        assert!(c.told.is_none() || c.told == c.went, "{c:?}");
    }
    assert_eq!(s.paths(B), (1, Some(1)));
    s.written(A, 16, 8);
    assert_eq!(told(&as_told()), 1);
    s.end();
}
