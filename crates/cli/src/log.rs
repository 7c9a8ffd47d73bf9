//! The log of a controller. Lines wait in a queue for a thread of their own, which alone waits for whoever reads them: a
//! reader that stands still must not keep the engine from its heartbeats. What the queue has no room for is dropped, and
//! counted.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::{self, ErrorKind, Write};
use std::panic::PanicHookInfo;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Bytes that wait at most, beside those that are being written.
const QUEUE_BYTES: usize = 64 << 10;
/// How long the end of the process waits for its last lines to be taken. A controller that has broken an invariant holds
/// its locks for so long.
const LAST_WORDS: Duration = Duration::from_millis(500);
/// How long to wait before a descriptor that somebody else has made non-blocking is tried again.
const TRY_AGAIN: Duration = Duration::from_millis(20);

/// What waits to be written.
struct Queue {
    lines: Vec<u8>,
    /// Lines that there was no room for since `lines` were last taken.
    dropped: u64,
    /// What was taken last is not written yet.
    writing: bool,
    /// There is a thread that writes.
    started: bool,
}

impl Queue {
    const fn new() -> Queue {
        Queue {
            lines: Vec::new(),
            dropped: 0,
            writing: false,
            started: false,
        }
    }

    /// Takes a line in, with its newline, or drops it.
    fn push(&mut self, line: &[u8]) {
        // Once one was dropped the next ones are, too, so that what is missing is missing in one place.
        if self.dropped > 0 || self.lines.len() + line.len() > QUEUE_BYTES {
            self.dropped += 1;
        } else {
            self.lines.extend_from_slice(line);
        }
    }

    /// Everything that waits, and a line that says how much more there was.
    fn take(&mut self) -> Vec<u8> {
        let mut lines = std::mem::take(&mut self.lines);
        let dropped = std::mem::take(&mut self.dropped);
        if dropped > 0 {
            let told =
                format!("twincell: lines of the log that were dropped here, because nobody took them: {dropped}\n");
            lines.extend_from_slice(told.as_bytes());
        }
        lines
    }

    fn is_idle(&self) -> bool {
        self.lines.is_empty() && self.dropped == 0 && !self.writing
    }
}

/// The queue of this process, and what tells of its changes.
static QUEUE: Mutex<Queue> = Mutex::new(Queue::new());
static CHANGED: Condvar = Condvar::new();

/// Nothing that is done with the queue leaves it half done.
fn queue() -> MutexGuard<'static, Queue> {
    QUEUE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Sends everything that is logged from now on through the queue, panics included.
///
/// # Errors
/// There is no thread to be had.
pub fn start() -> io::Result<()> {
    std::thread::Builder::new().name("log".to_owned()).spawn(write_all)?;
    queue().started = true;
    tracing_subscriber::fmt()
        .with_writer(|| Lines)
        .with_ansi(false)
        .with_target(false)
        // It would say so on standard error, which is the log, and panic where that fails, too.
        .log_internal_errors(false)
        .init();
    std::panic::set_hook(Box::new(|panic| {
        tell_panic(panic);
        flush();
    }));
    Ok(())
}

/// A line of the log. One that cannot be written, as on a file system that is full, is no reason to end.
pub fn log(line: &str) {
    push(format!("twincell: {line}\n").as_bytes());
}

/// Waits until everything that was logged is written, but not for long.
pub fn flush() {
    let mut queue = queue();
    if !queue.started {
        // There was no thread to be had, and that is what is to be said.
        return write(&mut io::stderr(), &queue.take());
    }
    // Whether it came to that, or the time was up: the process ends.
    let _ = CHANGED.wait_timeout_while(queue, LAST_WORDS, |queue| !queue.is_idle());
}

/// Ends the process, with what was logged.
pub fn exit(code: i32) -> ! {
    flush();
    std::process::exit(code)
}

/// Does something that may wait for whoever reads what the process says at its end, and waits for that as long as `flush` does.
pub fn within_last_words(say: impl FnOnce() + Send + 'static) {
    let (said, hear) = std::sync::mpsc::sync_channel(1);
    let thread = std::thread::Builder::new().spawn(move || {
        say();
        // Nobody waits any more if that took too long.
        let _ = said.send(());
    });
    if thread.is_ok() {
        let _ = hear.recv_timeout(LAST_WORDS);
    }
}

fn push(line: &[u8]) {
    queue().push(line);
    CHANGED.notify_all();
}

/// What a panic usually says, and in its last line what it means.
fn tell_panic(panic: &PanicHookInfo) {
    let thread = std::thread::current();
    let mut report = format!("\nthread '{}' {panic}\n", thread.name().unwrap_or("<unnamed>"));
    let backtrace = Backtrace::capture();
    if backtrace.status() == BacktraceStatus::Captured {
        report += &format!("stack backtrace:\n{backtrace}");
    }
    push(report.as_bytes());
    let what = panic.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
    log(&format!("the controller ends, the other takes over: {what}"));
}

/// A line of the log at a time, as they are formatted.
struct Lines;

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The thread that writes. It ends with the process.
fn write_all() {
    loop {
        let idle = |queue: &mut Queue| queue.lines.is_empty() && queue.dropped == 0;
        let waiting = CHANGED.wait_while(queue(), idle);
        let mut guard = waiting.unwrap_or_else(PoisonError::into_inner);
        let lines = guard.take();
        guard.writing = true;
        drop(guard);
        write(&mut io::stderr(), &lines);
        queue().writing = false;
        CHANGED.notify_all();
    }
}

/// Writes lines, or what can be written of them.
fn write(out: &mut impl Write, mut lines: &[u8]) {
    while !lines.is_empty() {
        match out.write(lines) {
            Ok(0) => return,
            Ok(written) => lines = &lines[written..],
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) if e.kind() == ErrorKind::WouldBlock => std::thread::sleep(TRY_AGAIN),
            // The file system may have room again later.
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_there_is_no_room_for_is_dropped_and_counted() {
        let mut queue = Queue::new();
        let line = [b'x'; 1 << 10];
        for _ in 0..QUEUE_BYTES / line.len() {
            queue.push(&line);
        }
        assert_eq!((queue.lines.len(), queue.dropped), (QUEUE_BYTES, 0));
        queue.push(b"one too many\n");
        queue.push(b"another\n");
        let taken = queue.take();
        let last = String::from_utf8_lossy(&taken[QUEUE_BYTES..]).into_owned();
        assert!(last.ends_with("nobody took them: 2\n"), "{last}");
        assert!(queue.is_idle());
        queue.push(b"there is room again\n");
        assert_eq!(queue.take(), b"there is room again\n");
    }

    /// Takes three bytes at a time, once it has refused as often as it was told to.
    struct Slow {
        taken: Vec<u8>,
        refusals: Vec<ErrorKind>,
    }

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if let Some(kind) = self.refusals.pop() {
                return Err(kind.into());
            }
            let taken = bytes.len().min(3);
            self.taken.extend_from_slice(&bytes[..taken]);
            Ok(taken)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn all_of_it_is_written_however_little_is_taken_at_a_time() {
        let refusals = vec![ErrorKind::WouldBlock, ErrorKind::Interrupted];
        let mut out = Slow {
            taken: Vec::new(),
            refusals,
        };
        write(&mut out, b"a line of the log\n");
        assert_eq!(out.taken, b"a line of the log\n");
        out.refusals = vec![ErrorKind::StorageFull];
        write(&mut out, b"gone\n");
        assert_eq!(out.taken, b"a line of the log\n");
    }
}
