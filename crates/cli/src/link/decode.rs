//! `twincell link decode`: what a capture of the link holds.

use super::words;
use crate::exit::{Code, Failure, Result};
use crate::output::Report;
use serde::Serialize;
use std::fmt::Write;
use std::path::Path;
use std::time::Duration;
use twincell_core::ids::Controller;
use twincell_core::link::frame::Frame;
use twincell_wire::capture::{Direction, Found, What, is_capture, read_capture, read_plain};

/// Something in a capture, as scripts see it.
#[derive(Serialize)]
struct Line {
    /// Who has sent it, `HOST:PORT`, and to whom; `None` of plain bytes.
    from: Option<String>,
    to: Option<String>,
    /// `A` or `B`, where its hello or its partner's is in the capture.
    sender: Option<String>,
    /// Since the beginning of the capture; 0 of plain bytes.
    time_us: u64,
    /// Its first byte, counted from the first that was sent in this direction or that was captured.
    offset: u64,
    /// How many bytes it takes, payload included.
    bytes: u64,
    /// `hello`, `heartbeat`, `heartbeat-answer`, `ack` or `messages`; `bad`, `garbage`, `skipped`, `lost` or `unfinished`.
    kind: &'static str,
    payload_bytes: u64,
    /// In words.
    text: String,
    /// Each message of it in words.
    messages: Vec<String>,
}

/// Reads the file and says what is in it.
pub fn run(file: &Path) -> Result<Report> {
    let bytes = std::fs::read(file).map_err(|e| Failure::io("read", file.display(), &e))?;
    let directions = if is_capture(&bytes) {
        read_capture(&bytes).map_err(|bad| Failure::new(Code::Refused, format!("{}: {bad}", file.display())))?
    } else {
        vec![read_plain(&bytes)]
    };
    let lines = lines(&directions);
    if lines.is_empty() {
        let what = format!("{}: there is nothing of a link in it", file.display());
        return Err(Failure::new(Code::Refused, what));
    }
    let failure = lines.iter().find(|l| matches!(l.kind, "bad" | "garbage")).map(|l| {
        let what = format!("{}: byte {}: {}", file.display(), l.offset, l.text);
        Failure::new(Code::Refused, what)
    });
    Ok(Report {
        failure,
        ..Report::new(text(&lines), "frames", &lines)
    })
}

/// What was found, in the order in which it came.
fn lines(directions: &[Direction]) -> Vec<Line> {
    let mut lines: Vec<(Duration, Line)> = Vec::new();
    for direction in directions {
        let sender = sender(direction, directions).map(|c| c.to_string());
        let line = |f: &Found| (f.time, line(direction, sender.clone(), f));
        lines.extend(direction.found.iter().map(line));
    }
    lines.sort_by_key(|(time, _)| *time);
    lines.into_iter().map(|(_, line)| line).collect()
}

/// Who sends in this direction: whoever says hello in it, or does not in the other one of the same connection.
fn sender(direction: &Direction, all: &[Direction]) -> Option<Controller> {
    let hello = |d: &Direction| {
        d.found.iter().find_map(|f| match &f.what {
            What::Frame {
                frame: Frame::Hello(hello),
                ..
            } => Some(hello.controller),
            _ => None,
        })
    };
    let back = direction.ends.map(|(from, to)| (to, from));
    let other = || all.iter().find(|d| d.ends.is_some() && d.ends == back).and_then(hello);
    hello(direction).or_else(|| other().map(Controller::other))
}

fn line(direction: &Direction, sender: Option<String>, found: &Found) -> Line {
    let bytes = found.bytes.end - found.bytes.start;
    let (kind, text, messages, blocks) = match &found.what {
        What::Frame {
            frame,
            mfcs,
            payload_blocks,
        } => {
            let messages = mfcs.iter().map(words::message).collect();
            let text = words::frame(frame, mfcs, *payload_blocks);
            (words::kind(frame), text, messages, *payload_blocks)
        }
        What::Bad(e) => ("bad", format!("a bad frame: {e}"), Vec::new(), 0),
        What::Garbage(e) => ("garbage", format!("{e}; nothing behind it can be read"), Vec::new(), 0),
        What::Skipped => (
            "skipped",
            format!("{bytes} bytes before the first whole frame"),
            Vec::new(),
            0,
        ),
        What::Lost => ("lost", format!("{bytes} bytes are not in the capture"), Vec::new(), 0),
        What::Unfinished => (
            "unfinished",
            format!("the first {bytes} bytes of a frame"),
            Vec::new(),
            0,
        ),
    };
    Line {
        from: direction.ends.map(|(from, _)| from.to_string()),
        to: direction.ends.map(|(_, to)| to.to_string()),
        sender,
        time_us: found.time.as_micros() as u64,
        offset: found.bytes.start,
        bytes,
        kind,
        payload_bytes: u64::from(blocks) * 512,
        text,
        messages,
    }
}

fn text(lines: &[Line]) -> String {
    let mut text = String::new();
    for l in lines {
        let time = Duration::from_micros(l.time_us).as_secs_f64();
        let sender = l.sender.as_deref().unwrap_or("?");
        // Writing to a string does not fail.
        let _ = match (&l.from, &l.to) {
            (Some(from), Some(to)) => writeln!(text, "{time:.6} {sender} {from} > {to} [{}] {}", l.offset, l.text),
            _ => writeln!(text, "{sender} [{}] {}", l.offset, l.text),
        };
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use twincell_core::ids::{Incarnation, Time};

    fn heartbeat() -> Vec<u8> {
        let mut bytes = Vec::new();
        let frame = Frame::Heartbeat {
            incarnation: Incarnation(3),
            sent: Time(17),
        };
        twincell_wire::frame::encode(&frame, &[], 0, 0, &mut bytes);
        bytes
    }

    fn decoded(bytes: &[u8]) -> Result<Report> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("capture");
        std::fs::write(&file, bytes).unwrap();
        run(&file)
    }

    #[test]
    fn plain_bytes_are_read_up_to_what_is_no_frame() {
        let good = decoded(&heartbeat().repeat(2)).unwrap();
        assert_eq!(good.failure, None);
        assert_eq!(
            good.text,
            "? [0] heartbeat 17 of incarnation 3\n? [40] heartbeat 17 of incarnation 3\n"
        );
        assert_eq!(good.fields["frames"][1]["offset"], 40);

        let bad = decoded(&[heartbeat(), b"something else".to_vec()].concat()).unwrap();
        let failure = bad.failure.unwrap();
        assert!(
            failure.what.contains("byte 40: not a twincell link frame"),
            "{}",
            failure.what
        );
        assert!(bad.text.starts_with("? [0] heartbeat 17"));
    }

    #[test]
    fn what_is_no_capture_is_refused_with_the_place() {
        assert!(decoded(b"").unwrap_err().what.contains("nothing of a link"));
        let short = [&0xa1b2_c3d4_u32.to_le_bytes()[..], &[0; 30]].concat();
        let failure = decoded(&short).unwrap_err();
        assert!(failure.what.contains("byte 24:"), "{}", failure.what);
        assert!(
            decoded(&[0x0a, 0x0d, 0x0d, 0x0a, 1])
                .unwrap_err()
                .what
                .contains("pcapng")
        );
    }
}
