//! From a plan that fails to a small one that still does.

use crate::hosts::NARROW;
use crate::plan::{Mode, Plan, Pools};
use crate::slowness::Slowness;
use crate::world::run_plan;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// A smaller plan that fails in the same way, and how; `None` if this one does not fail. At most `runs` runs are made, and
/// `tell` hears of each that helped.
pub fn shrink(plan: &Plan, mut runs: u32, mut tell: impl FnMut(&Plan)) -> Option<(Plan, String)> {
    let mut least = plan.clone();
    let mut what = failure(&least)?;
    let mut progress = true;
    while progress {
        progress = false;
        for candidate in smaller(&least) {
            if runs == 0 {
                return Some((least, what));
            }
            runs -= 1;
            if let Some(same) = failure(&candidate).filter(|w| kind(w) == kind(&what)) {
                tell(&candidate);
                (least, what, progress) = (candidate, same, true);
                break;
            }
        }
    }
    Some((least, what))
}

/// How a plan fails, if it does.
fn failure(plan: &Plan) -> Option<String> {
    let run = AssertUnwindSafe(|| run_plan(plan.clone(), false));
    match catch_unwind(run) {
        Ok(result) => result.err(),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|t| (*t).to_owned()));
            Some(format!("panic: {}", text.unwrap_or_default()))
        }
    }
}

/// The beginning of what was found, without its numbers: shrinking must not slip from one failure to another.
fn kind(what: &str) -> String {
    let letters = what.chars().filter(|c| !c.is_ascii_digit());
    letters.take(24).collect()
}

/// Plans with a little less in them, those first that take away most.
fn smaller(plan: &Plan) -> Vec<Plan> {
    let mut all = Vec::new();
    let mut with = |change: &dyn Fn(&mut Plan)| {
        let mut next = plan.clone();
        change(&mut next);
        if next != *plan {
            all.push(next);
        }
    };
    for n in (0..plan.faults.len()).rev() {
        with(&|p| {
            p.faults.remove(n);
        });
    }
    for n in (0..plan.triggers.len()).rev() {
        with(&|p| {
            p.triggers.remove(n);
        });
    }
    with(&|p| p.commands = (p.commands / 2).max(4));
    with(&|p| p.commands = (p.commands * 3 / 4).max(4));
    with(&|p| p.commands = (p.commands - 1).max(4));
    with(&|p| p.depth = (p.depth / 2).max(1));
    with(&|p| p.luns = 1);
    with(&|p| p.hot = NARROW);
    with(&|p| p.pools = Pools::Ample);
    with(&|p| p.slow_writes = false);
    with(&|p| p.slow = Slowness::default());
    with(&|p| p.in_a_row = false);
    with(&|p| p.insistent = false);
    with(&|p| p.long_absence = None);
    with(&|p| p.slow_hosts = false);
    with(&|p| p.apart = false);
    with(&|p| p.crowded = false);
    with(&|p| p.hasty = false);
    with(&|p| p.withdrawn = u64::MAX);
    with(&|p| p.idle = (p.idle / 2).max(1));
    if plan.mode == Mode::Chaos {
        with(&|p| p.mode = Mode::Promise);
    }
    for n in 0..plan.faults.len() {
        with(&|p| {
            if let Some(milder) = p.faults[n].1.milder() {
                p.faults[n].1 = milder;
            }
        });
        // The time before it, with all that comes after it moved along.
        with(&|p| {
            let before = n.checked_sub(1).map_or(0, |n| p.faults[n].0);
            let less = (p.faults[n].0 - before) / 2;
            p.faults[n..].iter_mut().for_each(|f| f.0 -= less);
        });
    }
    // The same with another course of all that is left to chance.
    for stream in 1..4 {
        with(&|p| p.stream = p.stream.wrapping_add(stream));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::Fault;

    #[test]
    fn a_plan_that_does_not_fail_is_not_shrunk() {
        assert!(shrink(&Plan::of_seed(1), 10, |_| ()).is_none());
    }

    #[test]
    fn every_smaller_plan_is_another_one() {
        let plan = Plan {
            faults: vec![
                (5, Fault::Pause(twincell_core::ids::Controller::A, 1000)),
                (9, Fault::CrashBoth),
            ],
            ..Plan::of_seed(3)
        };
        let smaller = smaller(&plan);
        assert!(smaller.len() > 8);
        assert!(smaller.iter().all(|p| *p != plan));
        assert_eq!(smaller[0].faults.len(), 1);
        assert!(smaller.iter().all(|p| p.faults.is_sorted_by_key(|f| f.0)));
    }
}
