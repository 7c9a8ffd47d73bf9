//! What a campaign did, and how long hosts had to wait: counted by kind, kept in a file, printed as a table.

use crate::fault::Kind;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// What was done of one kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// Cycles.
    pub cycles: u64,
    /// Those with dirty buffers or open RIEs just before, whose second fault, if any, came in time: only they say
    /// anything.
    pub counted: u64,
    /// Those after which the membership record was another.
    pub changed: u64,
    /// Of each counted cycle, the longest time without an acknowledged write, in microseconds.
    pub pauses: Vec<u64>,
    /// Of each counted cycle, the longest time by which the machine itself was late, in microseconds.
    pub noise: Vec<u64>,
}

/// What a campaign did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// By what was done.
    pub lines: BTreeMap<String, Line>,
    /// Writes that were acknowledged.
    pub writes: u64,
    /// How long it took, in milliseconds.
    pub milliseconds: u64,
}

/// One cycle.
#[derive(Clone, Copy, Debug)]
pub struct Cycle {
    /// Whether there was data at stake, and the fault what it was meant to be.
    pub counts: bool,
    /// Whether the membership record changed.
    pub changed: bool,
    /// The longest time without an acknowledged write.
    pub pause: Duration,
    /// The longest time by which the machine itself was late: a timer, or a page that was to be durable.
    pub noise: Duration,
}

impl Tally {
    /// Counts a cycle.
    pub fn count(&mut self, what: &str, cycle: Cycle) {
        let line = self.lines.entry(what.to_owned()).or_default();
        line.cycles += 1;
        if cycle.counts {
            line.counted += 1;
            line.changed += u64::from(cycle.changed);
            line.pauses.push(cycle.pause.as_micros() as u64);
            line.noise.push(cycle.noise.as_micros() as u64);
        }
    }

    /// Cycles that count.
    pub fn counted(&self) -> u64 {
        self.lines.values().map(|l| l.counted).sum()
    }

    /// All cycles.
    pub fn cycles(&self) -> u64 {
        self.lines.values().map(|l| l.cycles).sum()
    }
}

/// The value that `percent` of the values are not above, in milliseconds; of none, 0.
fn quantile(values: &[u64], percent: usize) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    let at = (sorted.len() * percent).div_ceil(100).max(1) - 1;
    sorted.get(at).map_or(0.0, |v| *v as f64 / 1000.0)
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} cycles in {} s, {} of them with data at stake; {} writes acknowledged",
            self.cycles(),
            self.milliseconds / 1000,
            self.counted(),
            self.writes
        )?;
        let head = [
            "cycles", "counted", "changed", "median", "p99", "worst", "noise", "worst",
        ];
        let row = |first: &str, cells: [String; 8], last: &str| {
            let [cycles, counted, changed, median, p99, worst, noise, most] = cells;
            format!(
                "{first:34} {cycles:>6} {counted:>7} {changed:>7} | {median:>6} {p99:>6} {worst:>6} | {noise:>5} {most:>5} {last}"
            )
        };
        let title = "longest time without a write, ms";
        writeln!(f, "{}", row(title, head.map(str::to_owned), ""))?;
        for (what, line) in &self.lines {
            let at = |values: &[u64], percent| format!("{:.0}", quantile(values, percent));
            let cells = [
                line.cycles.to_string(),
                line.counted.to_string(),
                line.changed.to_string(),
                at(&line.pauses, 50),
                at(&line.pauses, 99),
                at(&line.pauses, 100),
                at(&line.noise, 50),
                at(&line.noise, 100),
            ];
            writeln!(f, "{}", row(what, cells, &promise(what, line)))?;
        }
        Ok(())
    }
}

/// What is promised of a kind of faults, and whether it was kept.
fn promise(what: &str, line: &Line) -> String {
    let Ok(kind) = what.parse::<Kind>() else {
        return String::new();
    };
    let told = kind.limits().into_iter().zip([("median", 50), ("worst", 100)]);
    let told = told.filter_map(|(limit, (name, percent))| {
        let limit = limit?.as_millis() as f64;
        let verdict = if quantile(&line.pauses, percent) <= limit {
            "kept"
        } else {
            "MISSED"
        };
        Some(format!("| {name} {limit:.0}: {verdict} "))
    });
    told.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_values_that_were_there() {
        let hundred: Vec<u64> = (1..=100).rev().map(|n| n * 1000).collect();
        assert_eq!(quantile(&hundred, 50), 50.0);
        assert_eq!(quantile(&hundred, 99), 99.0);
        assert_eq!(quantile(&hundred, 100), 100.0);
        assert_eq!(quantile(&[7000], 50), 7.0);
        assert_eq!(quantile(&[], 50), 0.0);
    }

    #[test]
    fn a_cycle_without_data_at_stake_says_nothing() {
        let mut tally = Tally::default();
        let ms = Duration::from_millis;
        let cycle = Cycle {
            counts: true,
            changed: true,
            pause: ms(3),
            noise: ms(1),
        };
        tally.count("kill-owner", cycle);
        let idle = Cycle {
            counts: false,
            pause: ms(900),
            ..cycle
        };
        tally.count("kill-owner", idle);
        let line = &tally.lines["kill-owner"];
        assert_eq!((line.cycles, line.counted, line.pauses.as_slice()), (2, 1, &[3000][..]));
        assert_eq!(
            serde_json::from_str::<Tally>(&serde_json::to_string(&tally).unwrap()).unwrap(),
            tally
        );
    }
}
