//! `twincell events`: what happened, as both controllers tell it.

use crate::config::CellConfig;
use crate::control::{Answer, Client, EventLine, Request};
use crate::disk::no_controller;
use crate::exit::Result;
use crate::output::Report;
use std::fmt::Write;
use std::time::Duration;
use twincell_core::ids::Controller;

const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// The command.
pub fn run(config: &CellConfig) -> Result<Report> {
    let answers = Controller::BOTH.map(|c| {
        let mut client = Client::connect(&config.control(c)).ok()?;
        match client.ask(&Request::Events, ANSWER_TIMEOUT) {
            Ok(Answer::Events(events)) => Some(events),
            _ => None,
        }
    });
    if answers.iter().all(Option::is_none) {
        return Err(no_controller(config));
    }
    let mut events: Vec<EventLine> = answers.into_iter().flatten().flatten().collect();
    // Stable: what one controller tells of the same millisecond stays in its order.
    events.sort_by_key(|e| e.time_ms);
    let mut text = String::new();
    for EventLine {
        time_ms,
        controller,
        event,
    } in &events
    {
        let _ = writeln!(text, "{}  {controller}  {event}", utc(*time_ms));
    }
    Ok(Report::new(text, "events", &events))
}

/// A moment as RFC 3339 has it, in UTC.
fn utc(time_ms: u64) -> String {
    let (seconds, ms) = (time_ms / 1000, time_ms % 1000);
    let (mut days, second) = (seconds / 86_400, seconds % 86_400);
    let mut year = 1970;
    while days >= days_of_year(year) {
        days -= days_of_year(year);
        year += 1;
    }
    let mut month = 1;
    while days >= days_of_month(year, month) {
        days -= days_of_month(year, month);
        month += 1;
    }
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!(
        "{year:04}-{month:02}-{:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z",
        days + 1
    )
}

fn is_leap(year: u64) -> bool {
    year.is_multiple_of(4) && !year.is_multiple_of(100) || year.is_multiple_of(400)
}

fn days_of_year(year: u64) -> u64 {
    365 + u64::from(is_leap(year))
}

fn days_of_month(year: u64, month: u64) -> u64 {
    match month {
        2 => 28 + u64::from(is_leap(year)),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_shown_in_utc() {
        for (ms, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_795_435_199_123, "2026-11-23T11:59:59.123Z"),
            (4_107_542_399_999, "2100-02-28T23:59:59.999Z"),
        ] {
            assert_eq!(utc(ms), text);
        }
    }
}
