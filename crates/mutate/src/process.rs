//! Running a program that may do anything: loop for ever, take all memory, wait for what never comes.

use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// Address space, in KiB.
const MEMORY: u64 = 4 << 20;
/// What is kept of an output: its end.
const KEPT: usize = 64 << 10;
/// A program on a busy machine may take so many times its processor time.
const PATIENCE: u32 = 20;

/// How a program ended.
#[derive(Debug)]
pub struct Ended {
    /// The ends of both outputs.
    pub text: String,
    pub success: bool,
    /// It used up its processor time, or waited for ever.
    pub out_of_time: bool,
    /// Processor time, also that of whatever else has ended meanwhile.
    pub took: Duration,
}

/// Runs a command within limits of memory and processor time, in whole seconds.
pub fn run(command: &Command, limit: Duration) -> Ended {
    let seconds = limit.as_secs().max(1);
    let mut limited = Command::new("sh");
    // No core: there may be thousands of them.
    limited.args([
        "-c",
        "ulimit -c 0; ulimit -v \"$1\"; ulimit -t \"$2\"; shift 2; exec \"$@\"",
        "limits",
    ]);
    limited.args([MEMORY.to_string(), seconds.to_string()]);
    limited.arg(command.get_program()).args(command.get_args());
    limited.current_dir(command.get_current_dir().unwrap_or(".".as_ref()));
    for (key, value) in command.get_envs() {
        limited.env(key, value.unwrap_or_default());
    }
    limited.env("RUST_BACKTRACE", "0");
    let quiet = limited
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let begun = Instant::now();
    match quiet.spawn() {
        Ok(child) => finish(child, begun, limit * PATIENCE),
        Err(e) => panic!("{limited:?} does not start: {e}"),
    }
}

fn finish(mut child: Child, begun: Instant, limit: Duration) -> Ended {
    let before = processor_time();
    let outputs: [Option<Box<dyn Read + Send>>; 2] = [
        child.stdout.take().map(|o| Box::new(o) as _),
        child.stderr.take().map(|o| Box::new(o) as _),
    ];
    std::thread::scope(|scope| {
        let (closed, is_closed) = mpsc::channel();
        let readers = outputs.map(|output| {
            let closed = closed.clone();
            scope.spawn(move || {
                let text = output.map_or_else(String::new, end_of);
                let _ = closed.send(());
                text
            })
        });
        let in_time = (0..readers.len()).all(|_| {
            let left = limit.saturating_sub(begun.elapsed());
            is_closed.recv_timeout(left).is_ok()
        });
        if !in_time {
            let _ = child.kill();
        }
        let status = child.wait();
        let texts = readers.map(|r| r.join().unwrap_or_default());
        Ended {
            text: texts.join("\n"),
            success: status.as_ref().is_ok_and(ExitStatus::success),
            out_of_time: !in_time || status.is_ok_and(|s| matches!(s.signal(), Some(9 | 24))),
            took: processor_time().saturating_sub(before),
        }
    })
}

/// What the programs that have ended took of the processors.
fn processor_time() -> Duration {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The name of this program comes before, and may have anything in it.
    let fields = text.rsplit(") ").next().unwrap_or_default().split(' ').skip(13);
    let ticks: u64 = fields.take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 10)
}

/// Reads all of it, and keeps its end.
fn end_of(mut output: Box<dyn Read + Send>) -> String {
    let mut kept = Vec::new();
    let mut piece = vec![0; 16 << 10];
    while let Ok(n @ 1..) = output.read(&mut piece) {
        kept.extend_from_slice(&piece[..n]);
        if kept.len() > 2 * KEPT {
            kept.drain(..kept.len() - KEPT);
        }
    }
    String::from_utf8_lossy(&kept).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Ended {
        run(Command::new("sh").args(["-c", script]), Duration::from_secs(1))
    }

    #[test]
    fn output_and_success_are_seen() {
        let ended = shell("echo out; echo err >&2");
        assert!(ended.success && !ended.out_of_time);
        assert_eq!(ended.text, "out\n\nerr\n");
        assert!(!shell("exit 3").success);
    }

    #[test]
    fn who_never_ends_is_ended() {
        let ended = shell("while :; do :; done");
        assert!(!ended.success && ended.out_of_time);
        assert!(ended.took >= Duration::from_millis(500), "{ended:?}");
    }
}
