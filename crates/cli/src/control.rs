//! The control socket of a controller: a request and an answer, each one JSON object on one line.
//!
//! Both carry the number of the protocol, so that an older command and a newer controller understand that they do
//! not understand each other.

use crate::exit::{Code, Failure};
use rustix::fs::{Mode, OFlags, open};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with, sockopt};
use serde::{Deserialize, Serialize};
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The number of the protocol.
pub const SCHEMA: u32 = 1;
/// The version of this binary.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The longest path of a Unix socket, without the zero at its end (`unix(7)`).
const SUN_PATH_MAX: usize = 107;
/// The longest request.
pub const REQUEST_MAX: u64 = 64 << 10;
/// The longest answer: a thousand LUNs and 240 disks are some 300 KiB.
const ANSWER_MAX: u64 = 16 << 20;

/// What is asked of a controller.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Request {
    /// What it sees of the cell.
    Status,
    /// What it sees of the link to its partner.
    Link,
    /// Stop.
    Stop,
    /// Go on without the memory of the partner, which is lost.
    AcceptLoss {
        /// The partner: `A` or `B`.
        missing: String,
    },
    /// Change a LUN.
    Lun(LunChange),
    /// Another medium, which has its label, takes the place of a disk that is missing.
    ReplaceDisk {
        /// Which place.
        index: u16,
        /// The identity of the new one.
        uuid: String,
        /// How many PSEGs it has.
        psegs: u32,
    },
    /// Look for disks that are missing.
    LookForDisks {
        /// Where each disk of the cell is.
        paths: Vec<PathBuf>,
    },
}

/// A change of a LUN.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "snake_case")]
pub enum LunChange {
    /// Make it.
    Create {
        /// Its name.
        name: String,
        /// Its size.
        size_bytes: u64,
        /// Its redundancy.
        redundancy: String,
    },
    /// Make it larger.
    Grow {
        /// Which.
        name: String,
        /// Its new size.
        size_bytes: u64,
    },
    /// Give it another name.
    Rename {
        /// Which.
        name: String,
        /// The new name.
        to: String,
    },
    /// Delete it.
    Delete {
        /// Which.
        name: String,
    },
    /// Make a controller its owner.
    Move {
        /// Which.
        name: String,
        /// `A` or `B`.
        to: String,
    },
}

/// A request as it travels.
#[derive(Debug, Serialize, Deserialize)]
pub struct Envelope {
    /// The number of the protocol.
    pub schema: u32,
    /// The version of the asking binary.
    pub version: String,
    /// What is asked.
    #[serde(flatten)]
    pub request: Request,
}

/// An answer as it travels.
#[derive(Debug, Serialize, Deserialize)]
pub struct Reply {
    /// The number of the protocol.
    pub schema: u32,
    /// The version of the controller's binary.
    pub version: String,
    /// The answer.
    #[serde(flatten)]
    pub answer: Answer,
}

/// What a controller answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// To `Status`.
    Status(Box<ControllerStatus>),
    /// To `Link`.
    Link(Box<LinkStatus>),
    /// It is done.
    Done {
        /// It was so already.
        already: bool,
    },
    /// It is not done.
    Error(Refusal),
}

/// Why a controller did not do it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Refusal {
    /// Whether to ask again, and whom.
    pub kind: RefusalKind,
    /// The exit code.
    pub code: u8,
    /// What happened.
    pub what: String,
    /// What to do next.
    pub next: String,
}

/// What the asker can do about a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusalKind {
    /// This controller does not serve now; the partner may.
    NotServing,
    /// Another change is under way; ask again.
    Busy,
    /// It may or may not have been done; ask again.
    Unknown,
    /// There is no such LUN.
    NotFound,
    /// Asking again changes nothing.
    Final,
}

/// What a controller sees of the cell.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ControllerStatus {
    /// `A` or `B`.
    pub controller: String,
    /// What it is doing.
    pub role: RoleName,
    /// Whether its host ports are open.
    pub serving_hosts: bool,
    /// The epoch of the membership record; `None` while it was not yet read.
    pub epoch: Option<u64>,
    /// The controllers that are in.
    pub members: Vec<String>,
    /// Whether the link to the partner works.
    pub linked: bool,
    /// Whether a controller is being brought level.
    pub joining: bool,
    /// Whether an operator has to accept a loss.
    pub awaits_operator: bool,
    /// Whose memory that would give up.
    pub awaited_memory: Option<String>,
    /// What it waits for, in words; `None` where it serves.
    pub waits_for: Option<String>,
    /// For how many milliseconds a partner that is in, and that it waits for, has given no sign of life.
    pub partner_silent_ms: Option<u64>,
    /// Whether it has the NV memory that the record names.
    pub image_current: bool,
    /// NV buffers with data that the disks may lack.
    pub dirty_buffers: u32,
    /// Writes in progress.
    pub open_ries: u32,
    /// The LUNs.
    pub luns: Vec<LunStatus>,
    /// The disks.
    pub disks: Vec<DiskStatus>,
}

/// What a controller is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RoleName {
    /// Reading the record, or waiting.
    Starting,
    /// Being brought level.
    Joining,
    /// Serves hosts.
    Serving,
    /// Served, and waits for a ballot.
    Deciding,
    /// On its way out.
    Stopping,
}

/// A LUN.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LunStatus {
    /// Its name.
    pub name: String,
    /// Its logical unit number.
    pub lun: u16,
    /// Its identity.
    pub uuid: String,
    /// Its size.
    pub size_bytes: u64,
    /// `none` or `vraid1`.
    pub redundancy: String,
    /// `A` or `B`.
    pub owner: String,
    /// Whether it is between owners.
    pub moving: bool,
    /// Copies of each of its data, as it should be.
    pub copies_wanted: u8,
    /// Copies of those of its data that have fewest, on disks that are in order.
    pub copies: u8,
}

/// A disk.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DiskStatus {
    /// Its name: its place in the cell.
    pub name: String,
    /// Where it is; absolute.
    pub path: PathBuf,
    /// Its size.
    pub size_bytes: u64,
    /// `normal`, `missing`, `merging`, `replace` or `regen`.
    pub state: String,
    /// Whether it does what is asked of it, as far as was tried of late.
    pub works: bool,
    /// Whether it votes.
    pub quorum: bool,
    /// The redundant store set that it belongs to.
    #[serde(default)]
    pub rss: u16,
    /// Its index there: an even one and the next are a pair.
    #[serde(default)]
    pub rss_offset: u8,
    /// How far it is, of what the answering controllers own, while it is being made level.
    #[serde(default)]
    pub merged: Option<Merged>,
}

/// How much of a disk is level.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Merged {
    /// PSEGs that are level.
    pub psegs: u64,
    /// All that have a copy there.
    pub of: u64,
}

impl Merged {
    /// In percent, rounded down.
    pub fn percent(self) -> u64 {
        (self.psegs * 100).checked_div(self.of).unwrap_or(100)
    }

    /// With what another controller has to say.
    pub fn and(self, other: Merged) -> Merged {
        Merged {
            psegs: self.psegs + other.psegs,
            of: self.of + other.of,
        }
    }
}

/// What a controller sees of the link to its partner.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LinkStatus {
    /// `A` or `B`.
    pub controller: String,
    /// The paths, in the order of the configuration.
    pub paths: Vec<PathStatus>,
    /// What was sent and received.
    pub counters: LinkCounters,
}

/// A path to the partner.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PathStatus {
    /// Its number, from 0.
    pub path: usize,
    /// `HOST:PORT` of this controller's end.
    pub own: String,
    /// Of the partner's.
    pub partner: String,
    /// `down`; `opening`, until both have said hello; `works`; `active`: it works, and carries the messages.
    pub state: String,
    /// From a heartbeat to its answer, the last time.
    pub round_trip_us: Option<u64>,
    /// How long ago its state changed; `None` where it never did.
    pub since_ms: Option<u64>,
    /// Why.
    pub why: String,
}

/// What was sent and received on the link. Messages and frames are counted since the controller last started, in place or
/// as a process; frames and bytes on the wire since the process did.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LinkCounters {
    /// Messages that were built.
    pub messages: u64,
    /// Frames with messages, each counted once.
    pub frames: u64,
    /// Of them, sent again.
    pub resent: u64,
    /// Frames with messages that came out of turn and were dropped; they come again.
    pub dropped: u64,
    /// Messages of exchanges that are over, which were refused.
    pub stale: u64,
    /// How often messages moved to another path.
    pub moves: u64,
    /// Frames that were damaged on their way and dropped.
    pub garbled: u64,
    /// Frames of all kinds on the wire.
    pub frames_sent: u64,
    /// The same, received.
    pub frames_received: u64,
    /// Their bytes, with payload.
    pub bytes_sent: u64,
    /// The same, received.
    pub bytes_received: u64,
    /// Bytes of payload that were copied in memory, to be sent or after they came.
    #[serde(default)]
    pub bytes_copied: u64,
}

/// Why there is no answer.
#[derive(Debug)]
pub enum NoAnswer {
    /// Nobody listens.
    NotRunning,
    /// Somebody listens and does not answer, or not in this protocol.
    Silent(String),
}

/// The path by which to reach a socket whose own path may be too long for `sun_path`: through a descriptor of its
/// directory. The descriptor must stay open while the path is used.
pub fn short_path(socket: &Path) -> std::io::Result<(PathBuf, Option<OwnedFd>)> {
    if socket.as_os_str().len() <= SUN_PATH_MAX {
        return Ok((socket.to_owned(), None));
    }
    let (Some(dir), Some(name)) = (socket.parent(), socket.file_name()) else {
        return Err(std::io::ErrorKind::InvalidInput.into());
    };
    let dir = open(dir, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    Ok((
        Path::new("/proc/self/fd").join(dir.as_raw_fd().to_string()).join(name),
        Some(dir),
    ))
}

/// A connection to a controller.
#[derive(Debug)]
pub struct Client {
    stream: UnixStream,
    /// The process at the other end; `None` where it is in another PID namespace.
    pub pid: Option<u32>,
}

impl Client {
    /// Connects. Does not wait: a controller that is stopped and has a full queue is `Silent`.
    pub fn connect(socket: &Path) -> Result<Client, NoAnswer> {
        let connected = || -> std::io::Result<UnixStream> {
            let (path, _dir) = short_path(socket)?;
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let fd = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
            connect(&fd, &SocketAddrUnix::new(path)?)?;
            let stream = UnixStream::from(fd);
            stream.set_nonblocking(false)?;
            Ok(stream)
        };
        let stream = connected().map_err(|e| match e.kind() {
            // Where the directory of a controller is none, no controller can be.
            ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::ConnectionRefused => NoAnswer::NotRunning,
            _ => NoAnswer::Silent(e.to_string()),
        })?;
        let pid = sockopt::socket_peercred(&stream)
            .ok()
            .map(|c| c.pid.as_raw_nonzero().get() as u32);
        Ok(Client { stream, pid })
    }

    /// Asks, and waits for the answer for at most `timeout`.
    pub fn ask(&mut self, request: &Request, timeout: Duration) -> Result<Answer, NoAnswer> {
        let silent = |e: std::io::Error| NoAnswer::Silent(e.to_string());
        let envelope = Envelope {
            schema: SCHEMA,
            version: VERSION.to_owned(),
            request: request.clone(),
        };
        let mut line = serde_json::to_string(&envelope).expect("a request is JSON");
        line.push('\n');
        self.stream.set_read_timeout(Some(timeout)).map_err(silent)?;
        self.stream.set_write_timeout(Some(timeout)).map_err(silent)?;
        self.stream.write_all(line.as_bytes()).map_err(silent)?;
        let mut answer = String::new();
        let read = BufReader::new((&self.stream).take(ANSWER_MAX)).read_line(&mut answer);
        match read {
            Ok(0) => Err(NoAnswer::Silent("it closed the connection".to_owned())),
            Ok(_) => parse_reply(&answer),
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                Err(NoAnswer::Silent(format!("no answer within {timeout:?}")))
            }
            Err(e) => Err(silent(e)),
        }
    }
}

fn parse_reply(line: &str) -> Result<Answer, NoAnswer> {
    #[derive(Deserialize)]
    struct Head {
        schema: u32,
        version: String,
    }
    let head: Head = serde_json::from_str(line).map_err(|e| NoAnswer::Silent(format!("its answer is garbled: {e}")))?;
    if head.schema != SCHEMA {
        return Err(NoAnswer::Silent(format!(
            "it is twincell {} and speaks control protocol {}, this is {VERSION} and speaks {SCHEMA}",
            head.version, head.schema
        )));
    }
    serde_json::from_str::<Reply>(line)
        .map(|r| r.answer)
        .map_err(|e| NoAnswer::Silent(format!("its answer is garbled: {e}")))
}

impl Refusal {
    /// The refusal as the failure of a command.
    pub fn failure(&self) -> Failure {
        let codes = [
            Code::Usage,
            Code::NotFound,
            Code::Unreachable,
            Code::Conflict,
            Code::TimedOut,
            Code::NotAllowed,
        ];
        let code = codes
            .into_iter()
            .find(|c| *c as u8 == self.code)
            .unwrap_or(Code::Refused);
        Failure::new(code, self.what.clone()).next(self.next.clone())
    }

    /// A failure as a refusal.
    pub fn new(kind: RefusalKind, failure: Failure) -> Refusal {
        Refusal {
            kind,
            code: failure.code as u8,
            what: failure.what,
            next: failure.next,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    #[test]
    fn requests_and_answers_survive_the_wire() {
        let request = Request::Lun(LunChange::Create {
            name: "a".into(),
            size_bytes: 5,
            redundancy: "none".into(),
        });
        let envelope = Envelope {
            schema: SCHEMA,
            version: "1".into(),
            request: request.clone(),
        };
        let line = serde_json::to_string(&envelope).unwrap();
        assert_eq!(
            line,
            r#"{"schema":1,"version":"1","op":"lun","verb":"create","name":"a","size_bytes":5,"redundancy":"none"}"#
        );
        assert_eq!(serde_json::from_str::<Envelope>(&line).unwrap().request, request);

        let refusal = Refusal::new(RefusalKind::Busy, Failure::new(Code::Conflict, "busy").next("wait"));
        assert_eq!(refusal.failure(), Failure::new(Code::Conflict, "busy").next("wait"));
        for answer in [Answer::Done { already: true }, Answer::Error(refusal)] {
            let reply = Reply {
                schema: SCHEMA,
                version: "1".into(),
                answer: answer.clone(),
            };
            assert_eq!(parse_reply(&serde_json::to_string(&reply).unwrap()).unwrap(), answer);
        }
    }

    #[test]
    fn a_newer_protocol_is_named_not_guessed_at() {
        let Err(NoAnswer::Silent(why)) = parse_reply(r#"{"schema":9,"version":"8.0.0","tea":{}}"#) else {
            panic!()
        };
        assert!(why.contains("8.0.0") && why.contains('9'), "{why}");
    }

    #[test]
    fn a_socket_in_a_deep_directory_is_reached() {
        let root = tempfile::tempdir().unwrap();
        let deep = root.path().join("d".repeat(100)).join("e".repeat(100));
        std::fs::create_dir_all(&deep).unwrap();
        let socket = deep.join("control.sock");
        assert!(matches!(Client::connect(&socket), Err(NoAnswer::NotRunning)));
        let (path, _dir) = short_path(&socket).unwrap();
        let listener = UnixListener::bind(path).unwrap();
        assert_eq!(Client::connect(&socket).unwrap().pid, Some(std::process::id()));
        drop(listener);
        assert!(matches!(Client::connect(&socket), Err(NoAnswer::NotRunning)));
    }
}
