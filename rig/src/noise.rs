//! How long this machine keeps a thread from running, and its file system a write from being durable: what no program on
//! it can be faster than.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long the thread that measures timers asks to sleep each time.
const TICK: Duration = Duration::from_millis(1);
/// The same of the one that measures writes: seldom enough to be no load.
const WRITE_EVERY: Duration = Duration::from_millis(50);

/// The longest delays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delays {
    /// By how much a timer was late.
    pub timer: Duration,
    /// How long a page took to be durable.
    pub disk: Duration,
}

impl Delays {
    /// The longer of both.
    pub fn longer(self) -> Duration {
        self.timer.max(self.disk)
    }
}

/// Microseconds, since `take_longest`.
#[derive(Default)]
struct Shared {
    ended: AtomicBool,
    timer: AtomicU64,
    disk: AtomicU64,
    /// Since the start of the measurement: when the write in flight began, or 0.
    writing: AtomicU64,
}

/// Two nearly idle threads that measure.
pub struct Noise {
    begun: Instant,
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

fn micros(duration: Duration) -> u64 {
    duration.as_micros() as u64
}

impl Noise {
    /// Begins to measure; writes go to a file in `dir`.
    ///
    /// # Errors
    /// The file cannot be made.
    pub fn start(dir: &Path) -> io::Result<Noise> {
        let (begun, shared) = (Instant::now(), Arc::new(Shared::default()));
        let file = File::create(dir.join("noise"))?;
        let timers = std::thread::spawn({
            let shared = Arc::clone(&shared);
            move || {
                while !shared.ended.load(Ordering::Relaxed) {
                    let begun = Instant::now();
                    std::thread::sleep(TICK);
                    let late = begun.elapsed().saturating_sub(TICK);
                    shared.timer.fetch_max(micros(late), Ordering::Relaxed);
                }
            }
        });
        let writes = std::thread::spawn({
            let shared = Arc::clone(&shared);
            move || {
                while !shared.ended.load(Ordering::Relaxed) {
                    let since = begun.elapsed();
                    shared.writing.store(micros(since).max(1), Ordering::Relaxed);
                    if file
                        .write_all_at(&[0; 4096], 0)
                        .and_then(|()| file.sync_data())
                        .is_err()
                    {
                        return;
                    }
                    shared.writing.store(0, Ordering::Relaxed);
                    shared
                        .disk
                        .fetch_max(micros(begun.elapsed() - since), Ordering::Relaxed);
                    std::thread::sleep(WRITE_EVERY);
                }
            }
        });
        let threads = vec![timers, writes];
        Ok(Noise { begun, shared, threads })
    }

    /// The longest delays until now.
    pub fn longest(&self) -> Delays {
        let shared = &self.shared;
        let under_way = match shared.writing.load(Ordering::Relaxed) {
            0 => 0,
            since => micros(self.begun.elapsed()).saturating_sub(since),
        };
        Delays {
            timer: Duration::from_micros(shared.timer.load(Ordering::Relaxed)),
            disk: Duration::from_micros(shared.disk.load(Ordering::Relaxed).max(under_way)),
        }
    }

    /// The same, and begins anew.
    pub fn take_longest(&self) -> Delays {
        let longest = self.longest();
        self.shared.timer.store(0, Ordering::Relaxed);
        self.shared.disk.store(0, Ordering::Relaxed);
        longest
    }
}

impl Drop for Noise {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}
