//! `twincell events`: what happened, as both controllers keep it.

use crate::config::CellConfig;
use crate::exit::Result;
use crate::journal::{EventLine, Reader, Takeover};
use crate::output::{Report, SCHEMA, table};
use clap::Args;
use std::io::Write;
use std::time::Duration;
use twincell_core::ids::Controller;

/// How often who follows looks for more.
const PAUSE: Duration = Duration::from_millis(200);

/// What of it is wanted.
#[derive(Debug, Args)]
pub struct Events {
    /// Go on, with each event as it happens, until Ctrl-C. With --json, one object on each line.
    #[arg(long)]
    follow: bool,
    /// Only the takeovers, each with its times in milliseconds from the moment that the loss was noticed.
    #[arg(long, conflicts_with = "follow")]
    takeovers: bool,
}

/// The command.
pub fn run(config: &CellConfig, asked: &Events, json: bool) -> Result<Report> {
    let mut readers = Controller::BOTH.map(|c| Reader::of(config, c));
    if asked.follow {
        follow(&mut readers, json)?;
        return Ok(Report::new("", "events", [(); 0]));
    }
    let mut events = read(&mut readers)?;
    if asked.takeovers {
        events.retain(|e| e.takeover.is_some());
        return Ok(Report::new(takeover_table(&events), "events", &events));
    }
    let text = match events.is_empty() {
        true => format!("No controller of cell {} has run on this machine yet.\n", config.name),
        false => events.iter().map(text).collect(),
    };
    Ok(Report::new(text, "events", &events))
}

/// What both have kept since the last time, in order of time.
fn read(readers: &mut [Reader; 2]) -> Result<Vec<EventLine>> {
    let mut events = Vec::new();
    for reader in readers {
        events.extend(reader.read()?);
    }
    // Stable: what one controller tells of the same millisecond stays in its order.
    events.sort_by_key(|e| e.time_ms);
    Ok(events)
}

/// Ends when nobody reads any more.
fn follow(readers: &mut [Reader; 2], json: bool) -> Result<()> {
    let mut out = std::io::stdout();
    loop {
        let events = read(readers)?;
        let mut lines = String::new();
        for event in &events {
            lines += &if json { object(event) } else { text(event) };
        }
        if out.write_all(lines.as_bytes()).and_then(|()| out.flush()).is_err() {
            return Ok(());
        }
        std::thread::sleep(PAUSE);
    }
}

fn object(event: &EventLine) -> String {
    #[derive(serde::Serialize)]
    struct Line<'a> {
        schema: u64,
        #[serde(flatten)]
        event: &'a EventLine,
    }
    let line = Line { schema: SCHEMA, event };
    serde_json::to_string(&line).expect("our own types have string keys, so they are JSON") + "\n"
}

fn text(event: &EventLine) -> String {
    format!("{}  {}  {}\n", utc(event.time_ms), event.controller, event.event)
}

fn takeover_table(events: &[EventLine]) -> String {
    let row = |event: &EventLine| {
        let times = event.takeover.unwrap_or_default();
        let Takeover {
            noticed_time_ms,
            ballot_ms,
            fence_ms,
            resolve_ms,
            serve_ms,
        } = times;
        let [ballot, fence, resolve, serve] = [ballot_ms, fence_ms, resolve_ms, serve_ms].map(|ms| ms.to_string());
        let noticed = utc(noticed_time_ms);
        [noticed, event.controller.clone(), ballot, fence, resolve, serve]
    };
    table(
        ["NOTICED", "BY", "BALLOT", "FENCE", "RESOLVE", "SERVE"],
        &events.iter().map(row).collect::<Vec<_>>(),
    )
}

/// A moment as RFC 3339 has it, in UTC.
pub fn utc(time_ms: u64) -> String {
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
