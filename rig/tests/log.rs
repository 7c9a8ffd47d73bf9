//! A log whose reader stands still: a pager, a stopped terminal, a logger whose own disk hangs.

use rustix::process::Signal;
use serde_json::Value;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::str::FromStr;
use std::time::Duration;
use twincell_client::Url;
use twincell_client::device::{Request, execute};
use twincell_rig::cell::{Cell, SETTLE, Shape, binary, signal, wait_until_gone};
use twincell_rig::poll_for;

/// So many lines are more than a pipe and the queue before it have room for.
const STRANGERS: usize = 3000;
/// How long anybody waits for a controller.
const LIMIT: Duration = Duration::from_secs(20);
/// The port, of those that a cell has, where A listens for B.
const LINK_PORT: u16 = 4;
/// Of the line that says that lines are missing.
const DROPPED: &str = "nobody took them: ";

/// A cell, and the end of A's log that nobody reads.
struct Bed {
    cell: Cell,
    lun: Value,
    a: Child,
    b: Child,
}

impl Drop for Bed {
    fn drop(&mut self) {
        for child in [&mut self.a, &mut self.b] {
            // It may have ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Bed {
    fn start() -> Bed {
        let cell = Cell::create(Shape {
            disks: 4,
            disk_size: "64M",
            cache: "4M",
        });
        let run = |name: &str, log: Stdio| {
            let mut command = Command::new(binary());
            command.args(["controller", "run", "--detach", "--name", name]);
            command.env("TWINCELL_DIR", cell.dir());
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
            command.spawn().unwrap()
        };
        let a = run("A", Stdio::piped());
        let log = File::create(cell.dir().join("B").join("log")).unwrap();
        let b = run("B", log.into());
        cell.wait_until_mirrored();
        let lun = cell.lun("data", "8M", "vraid1");
        Bed { cell, lun, a, b }
    }

    /// Somebody connects to the port of the link, says what makes no sense, and is sent away: a line of the log.
    fn stranger(&self) {
        let port = self.cell.ports().get(LINK_PORT);
        let mut stranger = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stranger.set_read_timeout(Some(LIMIT)).unwrap();
        stranger.write_all(&[b'?'; 200]).unwrap();
        match stranger.read_to_end(&mut Vec::new()) {
            Ok(_) => {}
            Err(e) => assert_eq!(e.kind(), std::io::ErrorKind::ConnectionReset, "A is at a standstill"),
        }
    }

    /// Hosts write and read through A.
    fn serves(&self, byte: u8) {
        let url = Url::from_str(&self.cell.nbd_url(&self.lun, "A")).unwrap();
        let mut device = url.connect(LIMIT).unwrap();
        let (start, blocks, data) = (0, 8, vec![byte; 8 * 512]);
        let write = Request::Write {
            start,
            data: data.clone().into(),
            fua: false,
        };
        execute(device.as_mut(), write).unwrap();
        let read = execute(device.as_mut(), Request::Read { start, blocks }).unwrap();
        assert!(read == data, "what was written is not there");
    }

    /// Strangers come until A has more to say than anybody takes. Nobody else notices.
    fn fill(&self) {
        let record = self.cell.status()["cell"]["epoch"].clone();
        for n in 0..STRANGERS {
            self.stranger();
            if n % 500 == 0 {
                self.serves(n as u8);
            }
        }
        self.serves(3);
        let status = self.cell.status();
        assert_eq!(status["cell"]["mirroring"], "on", "{status}");
        assert_eq!(status["cell"]["epoch"], record, "somebody was out: {status}");
    }
}

#[test]
fn a_log_that_nobody_reads_keeps_nobody_waiting() {
    let mut bed = Bed::start();
    bed.fill();
    // The reader goes on.
    let mut log = BufReader::new(bed.a.stderr.take().unwrap());
    let (mut closed, mut dropped) = (0, None);
    while dropped.is_none() {
        let mut line = String::new();
        assert!(log.read_line(&mut line).unwrap() > 0, "A has ended");
        closed += usize::from(line.contains("the link connection is closed"));
        dropped = line
            .split_once(DROPPED)
            .map(|(_, count)| count.trim().parse::<usize>().unwrap());
    }
    let all = closed + dropped.unwrap();
    assert!(closed > 0 && all >= STRANGERS, "{closed} lines, {dropped:?} dropped");
    // From here on all of it comes again, and the end does.
    bed.stranger();
    signal(bed.a.id(), Signal::TERM);
    let rest: Vec<String> = log.lines().map(Result::unwrap).collect();
    assert!(
        rest.iter().any(|l| l.contains("the link connection is closed")),
        "{rest:?}"
    );
    assert!(!rest.iter().any(|l| l.contains(DROPPED)), "{rest:?}");
    assert!(rest.last().unwrap().contains("the controller ends"), "{rest:?}");
    assert_eq!(bed.a.wait().unwrap().code(), Some(0));
}

#[test]
fn a_controller_ends_though_nobody_reads_its_log() {
    let mut bed = Bed::start();
    bed.fill();
    signal(bed.a.id(), Signal::TERM);
    wait_until_gone(bed.a.id());
    assert_eq!(bed.a.wait().unwrap().code(), Some(0));
    let alone = poll_for("B alone", SETTLE, || {
        let status = bed.cell.status();
        (status["luns"][0]["owner"] == "B")
            .then_some(())
            .ok_or(status.to_string())
    });
    alone.unwrap_or_else(|e| panic!("{e}\n{}", bed.cell.logs()));
}
