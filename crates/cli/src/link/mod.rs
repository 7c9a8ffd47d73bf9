//! `twincell link`.

mod decode;
mod words;

use crate::config::CellConfig;
use crate::control::{Answer, Client, LinkCounters, LinkStatus, PathStatus, Request};
use crate::disk::no_controller;
use crate::exit::Result;
use crate::output::{Report, table};
use clap::Subcommand;
use serde::Serialize;
use std::path::PathBuf;
use std::time::Duration;
use twincell_core::ids::Controller;

/// How long a controller may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(1700);

/// What can be done with the link.
#[derive(Debug, Subcommand)]
pub enum LinkVerb {
    /// The paths between the controllers, as each controller that answers here sees them.
    List,
    /// Print what a capture of the link holds: what tcpdump has written (`tcpdump -i any -w FILE port PORT`), or the plain
    /// bytes of one direction of one connection.
    Decode {
        /// The capture.
        file: PathBuf,
    },
}

/// The paths of all controllers that answer.
pub fn list(config: &CellConfig) -> Result<Report> {
    let seen: Vec<LinkStatus> = Controller::BOTH.into_iter().filter_map(|c| ask(config, c)).collect();
    if seen.is_empty() {
        return Err(no_controller(config));
    }
    Ok(Report::of(text(&seen), Links::new(&seen)))
}

/// What a capture holds.
pub fn decode(file: &std::path::Path) -> Result<Report> {
    decode::run(file)
}

fn ask(config: &CellConfig, controller: Controller) -> Option<LinkStatus> {
    let mut client = Client::connect(&config.control(controller)).ok()?;
    match client.ask(&Request::Link, ANSWER_TIMEOUT) {
        Ok(Answer::Link(status)) => Some(*status),
        _ => None,
    }
}

#[derive(Serialize)]
struct Links<'a> {
    paths: Vec<OfController<'a, PathStatus>>,
    counters: Vec<OfController<'a, LinkCounters>>,
}

/// What one controller sees.
#[derive(Serialize)]
struct OfController<'a, T> {
    controller: &'a str,
    #[serde(flatten)]
    of: &'a T,
}

impl Links<'_> {
    fn new(seen: &[LinkStatus]) -> Links<'_> {
        let mut links = Links {
            paths: Vec::new(),
            counters: Vec::new(),
        };
        for LinkStatus {
            controller,
            paths,
            counters,
        } in seen
        {
            let of_path = |of| OfController { controller, of };
            links.paths.extend(paths.iter().map(of_path));
            links.counters.push(OfController {
                controller,
                of: counters,
            });
        }
        links
    }
}

fn text(seen: &[LinkStatus]) -> String {
    let row = |s: &LinkStatus, p: &PathStatus| {
        [
            p.path.to_string(),
            s.controller.clone(),
            p.own.clone(),
            p.partner.clone(),
            p.state.clone(),
            p.round_trip_us.map_or("-".to_owned(), |us| format!("{us} us")),
            p.since_ms.map_or("-".to_owned(), ago),
            p.why.clone(),
        ]
    };
    let rows: Vec<_> = seen
        .iter()
        .flat_map(|s| s.paths.iter().map(move |p| row(s, p)))
        .collect();
    let head = [
        "PATH",
        "SEEN BY",
        "OWN END",
        "PARTNER",
        "STATE",
        "ROUND TRIP",
        "SINCE",
        "WHY",
    ];
    let counts = |s: &LinkStatus| {
        let c = &s.counters;
        format!(
            "{} has sent {} messages in {} frames, {} of them again; it has dropped {} frames that came out of turn and {} \
             that were garbled. Messages have moved to another path {} times.\n",
            s.controller, c.messages, c.frames, c.resent, c.dropped, c.garbled, c.moves
        )
    };
    table(head, &rows) + "\n" + &seen.iter().map(counts).collect::<String>()
}

/// A time that has passed, in the largest unit that says enough.
fn ago(ms: u64) -> String {
    match ms / 1000 {
        0 => format!("{ms} ms"),
        s @ 1..120 => format!("{s} s"),
        s @ 120..7200 => format!("{} min", s / 60),
        s => format!("{} h", s / 3600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen() -> [LinkStatus; 1] {
        let path = |path, state: &str, round_trip_us, why: &str| PathStatus {
            path,
            own: format!("10.0.{path}.1:7000"),
            partner: format!("10.0.{path}.2:7000"),
            state: state.to_owned(),
            round_trip_us,
            since_ms: Some(3_000),
            why: why.to_owned(),
        };
        [LinkStatus {
            controller: "A".to_owned(),
            paths: vec![
                path(0, "down", None, "the connection ended: by the partner"),
                path(1, "active", Some(120), "took over when another path failed"),
            ],
            counters: LinkCounters {
                messages: 20,
                frames: 10,
                resent: 3,
                moves: 1,
                ..LinkCounters::default()
            },
        }]
    }

    #[test]
    fn each_path_has_a_line_and_each_controller_its_counts() {
        let text = text(&seen());
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[1].contains("down") && lines[1].contains(" -  ") && lines[1].ends_with("by the partner"));
        assert!(lines[2].contains("active") && lines[2].contains("120 us") && lines[2].contains("3 s"));
        assert!(
            text.contains("A has sent 20 messages in 10 frames, 3 of them again"),
            "{text}"
        );
    }

    #[test]
    fn scripts_see_the_same() {
        let links = serde_json::to_value(Links::new(&seen())).unwrap();
        assert_eq!(links["paths"][1]["state"], "active");
        assert_eq!(links["paths"][1]["controller"], "A");
        assert_eq!(links["paths"][0]["round_trip_us"], serde_json::Value::Null);
        assert_eq!(links["counters"][0]["resent"], 3);
    }

    #[test]
    fn times_are_told_in_fitting_units() {
        let told = [999, 1000, 119_999, 120_000, 7_200_000].map(ago);
        assert_eq!(told, ["999 ms", "1 s", "119 s", "2 min", "2 h"]);
    }
}
