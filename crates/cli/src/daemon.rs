//! Controllers in the background: starting them, waiting for them, and their last words.

use crate::config::{CellConfig, resolve};
use crate::exit::{Code, Failure, Result};
use crate::lock::{Holder, holder};
use crate::status::{Seen, look};
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use twincell_client::iscsi::discover;
use twincell_core::ids::Controller;

/// How long both controllers may take until they serve every protocol.
pub const START_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a controller may take to flush its memory and end.
pub const STOP_TIMEOUT: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(40);
const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);
/// How long a portal may take until it has said something.
const GREETING_TIMEOUT: Duration = Duration::from_secs(1);
/// What an NBD server says first.
const NBD_GREETING: &[u8; 8] = b"NBDMAGIC";

/// Starts a controller, detached from the caller's terminal and session.
pub fn spawn(config: &CellConfig, controller: Controller) -> Result<Child> {
    crate::config::make_private_dir(&config.controller_dir(controller))?;
    let log_path = config.log(controller);
    let failed = |e: &std::io::Error| Failure::io("write the log", log_path.display(), e);
    let log = OpenOptions::new()
        .create(true)
        .append(true)
        .open(&log_path)
        .map_err(|e| failed(&e))?;
    let errors = log.try_clone().map_err(|e| failed(&e))?;
    // A pipe of the caller's caller would stay open for as long as the controller runs.
    twincell_engine::close_on_exec().map_err(|e| Failure::io("close", "the descriptors of the caller", &e))?;
    let program = std::env::current_exe().map_err(|e| Failure::io("find", "this program", &e))?;
    Command::new(&program)
        .args([
            "controller",
            "run",
            "--detach",
            "--name",
            &controller.to_string(),
            "--config",
        ])
        .arg(&config.file)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(errors)
        .spawn()
        .map_err(|e| Failure::io("start", program.display(), &e))
}

/// How long a process may take to die, or to begin to serve, before it counts as running.
const DYING: Duration = Duration::from_secs(2);

/// Whether a controller runs on this machine.
pub fn is_running(config: &CellConfig, controller: Controller) -> bool {
    matches!(holder(&config.controller_dir(controller)), Holder::Process(_))
}

/// Whether a process was stopped by a signal and waits for another to go on (proc_pid_stat(5), field 3).
pub fn is_paused(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The second field is the program's name in parentheses and may hold anything.
    let state = stat
        .rsplit_once(')')
        .and_then(|(_, rest)| rest.trim_start().chars().next());
    matches!(state, Some('T' | 't'))
}

/// A process that was killed keeps its lock until the kernel has ended what it had posted. One that holds the lock and does
/// not serve is given a moment: either it serves then, or it is gone.
pub fn await_end_of_dying(config: &CellConfig, controller: Controller) {
    let deadline = Instant::now() + DYING;
    while is_running(config, controller) && Instant::now() < deadline && lacks(config, controller).is_some() {
        std::thread::sleep(PAUSE);
    }
}

/// What a controller does not serve yet; `None` when it serves every protocol.
pub fn lacks(config: &CellConfig, controller: Controller) -> Option<String> {
    let seen = look(config, controller);
    if !seen.serves() {
        return Some(match &seen {
            Seen::Answered { status, .. } => format!("controller {controller} is {:?}", status.role).to_lowercase(),
            Seen::Silent { why, .. } => format!("does not answer: {why}"),
            Seen::Opening { .. } => "has not opened its disks and memory yet".to_owned(),
            Seen::Stopped | Seen::Elsewhere => "does not run".to_owned(),
        });
    }
    let section = config.section(controller);
    let silent_iscsi = section.iscsi.iter().find(|p| !greets_iscsi(p)).map(|p| ("iSCSI", p));
    let silent = || section.nbd.iter().find(|p| !greets_nbd(p)).map(|p| ("NBD", p));
    silent_iscsi
        .or_else(silent)
        .map(|(protocol, portal)| format!("does not serve {protocol} on {portal}"))
}

/// Whether a portal logs a host in. That it can be connected to says nothing: the kernel does that, and who listens may end
/// each connection at once.
fn greets_iscsi(portal: &str) -> bool {
    discover(portal, GREETING_TIMEOUT).is_ok()
}

/// Whether a portal says first what an NBD server does.
fn greets_nbd(portal: &str) -> bool {
    let Ok(address) = resolve(portal) else { return false };
    let greeting = || -> std::io::Result<[u8; 8]> {
        let mut stream = TcpStream::connect_timeout(&address, CONNECT_TIMEOUT)?;
        stream.set_read_timeout(Some(GREETING_TIMEOUT))?;
        let mut greeting = [0; 8];
        stream.read_exact(&mut greeting)?;
        Ok(greeting)
    };
    greeting().is_ok_and(|said| said == *NBD_GREETING)
}

/// Waits until all of `controllers` serve every protocol. `started` are those of them that this process started: one that
/// has ended is not waited for, unless another process is that controller: somebody else has started it at the same time, and
/// ours found its lock taken.
pub fn wait_until_serving(
    config: &CellConfig,
    controllers: &[Controller],
    started: &mut [(Controller, Child)],
) -> Result<()> {
    let deadline = Instant::now() + START_TIMEOUT;
    loop {
        let mut waits_for = Vec::new();
        let mut lacking = Vec::new();
        for controller in controllers {
            let Some(what) = lacks(config, *controller) else {
                continue;
            };
            let child = started.iter_mut().find(|(c, _)| c == controller);
            let ended = child.and_then(|(_, child)| child.try_wait().ok().flatten());
            let ended = ended.filter(|_| !is_running(config, *controller));
            match ended {
                Some(status) => lacking.push((*controller, format!("ended ({status})"))),
                None => {
                    waits_for.push(*controller);
                    lacking.push((*controller, what));
                }
            }
        }
        if lacking.is_empty() {
            return Ok(());
        }
        if waits_for.is_empty() || Instant::now() > deadline {
            return Err(not_serving(config, &lacking));
        }
        std::thread::sleep(PAUSE);
    }
}

fn not_serving(config: &CellConfig, lacking: &[(Controller, String)]) -> Failure {
    let told = lacking.iter().map(|(c, what)| {
        let last = last_line(&config.log(*c)).unwrap_or_else(|| "nothing".to_owned());
        format!("controller {c} {what}; the last line of its log: {last}")
    });
    let told = told.collect::<Vec<_>>().join("\n  ");
    let logs: Vec<_> = lacking
        .iter()
        .map(|(c, _)| config.log(*c).display().to_string())
        .collect();
    Failure::new(Code::Unreachable, told).next(format!("all of it: {}", logs.join(", ")))
}

/// The last line of a log that says anything.
pub fn last_line(log: &Path) -> Option<String> {
    tail(log)
        .lines()
        .rev()
        .map(str::trim)
        .find(|l| !l.is_empty())
        .map(str::to_owned)
}

/// The last `count` lines of a log.
pub fn last_lines(log: &Path, count: usize) -> String {
    let tail = tail(log);
    let lines: Vec<&str> = tail.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

/// The end of a log; nothing if it cannot be read.
fn tail(log: &Path) -> String {
    const LENGTH: i64 = 8192;
    let Ok(mut file) = File::open(log) else {
        return String::new();
    };
    // A log shorter than that is read whole.
    let _ = file.seek(SeekFrom::End(-LENGTH));
    let mut tail = Vec::new();
    // What could be read until an error is what there is to tell.
    let _ = file.read_to_end(&mut tail);
    String::from_utf8_lossy(&tail).into_owned()
}

/// Waits until a controller's process has ended.
pub fn wait_until_ended(config: &CellConfig, controller: Controller) -> Result<()> {
    let deadline = Instant::now() + STOP_TIMEOUT;
    while is_running(config, controller) {
        if Instant::now() > deadline {
            let what = format!(
                "controller {controller} is still stopping after {} s",
                STOP_TIMEOUT.as_secs()
            );
            let next = format!("it goes on; {} says what it does", config.log(controller).display());
            return Err(Failure::new(Code::TimedOut, what).next(next));
        }
        std::thread::sleep(PAUSE);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::net::TcpListener;

    #[test]
    fn the_last_line_is_the_last_that_says_anything() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        assert_eq!(last_line(&log), None);
        for (text, last) in [
            ("", None),
            ("\n \n", None),
            ("one\ntwo\n\n", Some("two")),
            ("one", Some("one")),
        ] {
            std::fs::write(&log, text).unwrap();
            assert_eq!(last_line(&log).as_deref(), last);
        }
        std::fs::write(&log, "x".repeat(9000) + "\nthe end\n").unwrap();
        assert_eq!(last_line(&log).as_deref(), Some("the end"));
    }

    /// A portal that takes one connection and does `then` with it.
    fn portal(then: impl FnOnce(TcpStream) + Send + 'static) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        std::thread::spawn(move || then(listener.accept().unwrap().0));
        address
    }

    #[test]
    fn a_portal_that_ends_each_connection_does_not_serve() {
        assert!(!greets_nbd(&portal(drop)));
        assert!(!greets_iscsi(&portal(drop)));
        let free = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .to_string();
        assert!(!greets_nbd(&free) && !greets_iscsi(&free));
        // The kernel connects, and nobody accepts.
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = silent.local_addr().unwrap().to_string();
        assert!(!greets_nbd(&address) && !greets_iscsi(&address));
    }

    #[test]
    fn an_nbd_portal_serves_that_says_so() {
        let says = |words: &'static [u8]| portal(move |mut host| host.write_all(words).unwrap());
        assert!(greets_nbd(&says(b"NBDMAGICIHAVEOPT")));
        assert!(!greets_nbd(&says(b"HTTP/1.1 200 OK")));
    }
}
