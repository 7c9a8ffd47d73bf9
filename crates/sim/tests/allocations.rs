//! The core allocates nothing on the I/O path after `new` (DESIGN section 1): every step of two controllers is counted,
//! while hosts write, overwrite, read, forward and flush, and the link beats and loses frames.
//!
//! The memory that `step` is given for its effects is the driver's, and large enough beforehand.

use std::cell::Cell;
use twincell_core::ids::Controller::{self, A, B};
use twincell_core::ids::Time;
use twincell_core::{Core, Effect, Event};
use twincell_sim::Scenario;

/// More effects than one step ever has.
const EFFECTS_MAX: usize = 16 << 10;

thread_local! {
    /// Steps that were counted; `None` while none is.
    static STEPS: Cell<Option<u64>> = const { Cell::new(None) };
}

fn counted(core: &mut Core, now: Time, event: Event, effects: &mut Vec<Effect>) {
    step_and_count(event, effects, |event, effects| core.step(now, event, effects));
}

/// Takes a step, which must not allocate if it is counted.
fn step_and_count(event: Event, effects: &mut Vec<Effect>, step: impl FnOnce(Event, &mut Vec<Effect>)) {
    effects.reserve(EFFECTS_MAX);
    let Some(before) = STEPS.get() else {
        return step(event, effects);
    };
    let what = format!("{event:?}");
    let found = allocation_counter::measure(|| step(event, effects));
    STEPS.set(Some(before + 1));
    assert_eq!(found.count_total, 0, "allocations in the step of {what}");
    assert!(effects.len() <= EFFECTS_MAX, "{} effects of {what}", effects.len());
}

/// What hosts do, again and again, through both controllers: every way that a command can take.
fn round(s: &mut Scenario, n: u64) {
    let place = n % 40 * 24;
    for path in [A, B] {
        let express = s.write(path, place, 8);
        let long = s.write_long(path, place + 8, 16);
        s.good(express);
        s.good(long);
        let over = s.written(path, place + 3, 2);
        s.reads(path, place + 3, 2, over);
        if n.is_multiple_of(50) {
            write_much(s, path);
        }
    }
}

/// What ends only when the disks have it, of more than an atomic write, and withdrawn.
fn write_much(s: &mut Scenario, path: Controller) {
    let large = s.write_long(path, 1000, 300);
    s.good(large);
    let durable = s.write_fua(path, 1001, 300);
    s.good(durable);
    s.reads(path, 1001, 300, durable);
    let withdrawn = s.write_long(path, 2000, 8);
    s.withdraw(withdrawn);
    s.pass(500);
    s.reads(path, 1001, 300, durable);
}

/// Counts the steps of `work`.
fn counting(work: impl FnOnce()) -> u64 {
    STEPS.set(Some(0));
    work();
    STEPS.take().expect("it was set")
}

#[test]
fn no_step_of_the_io_path_allocates() {
    let mut s = Scenario::new().each_step(counted).both_serving();
    let steps = counting(|| {
        for n in 0..400 {
            round(&mut s, n);
        }
        s.pass(2_000);
    });
    for told in [
        "RQR express",
        "RTR",
        "forward write",
        "forward read",
        "release",
        "flush",
        "merge",
        "withdraw",
    ] {
        assert!(s.tells(told), "nothing of {told:?}");
    }
    assert!(steps > 20_000, "{steps} steps");

    s.link_loses_every(7);
    counting(|| (0..40).for_each(|n| round(&mut s, n)));
    assert!(s.resent(A) > 10 && s.resent(B) > 10, "frames were not sent again");
    s.link_loses_every(0);

    s.crash(B);
    s.until_alone(A, true);
    let steps = counting(|| {
        for n in 0..100 {
            s.written(A, n * 8, 8);
            s.pass(100);
        }
    });
    assert!(s.tells("B ends") && steps > 500, "{steps} steps alone");
    s.end();
}

/// The counter counts: a step with one allocation is noticed.
#[test]
#[should_panic(expected = "allocations in the step of Tick")]
fn an_allocation_in_a_step_is_noticed() {
    counting(|| {
        step_and_count(Event::Tick, &mut Vec::new(), |_, _| {
            std::hint::black_box(Box::new(0u64));
        });
    });
}
