//! How long this machine keeps a thread from running: what no program on it can be faster than.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long the thread asks to sleep each time.
const TICK: Duration = Duration::from_millis(1);

#[derive(Default)]
struct Shared {
    ended: AtomicBool,
    /// Microseconds, since `take_longest`.
    longest: AtomicU64,
}

/// An idle thread that measures by how much its timer is late.
pub struct Noise {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Noise {
    /// Begins to measure.
    pub fn start() -> Noise {
        let shared = Arc::new(Shared::default());
        let thread = std::thread::spawn({
            let shared = Arc::clone(&shared);
            move || {
                while !shared.ended.load(Ordering::Relaxed) {
                    let begun = Instant::now();
                    std::thread::sleep(TICK);
                    let late = begun.elapsed().saturating_sub(TICK).as_micros();
                    shared.longest.fetch_max(late as u64, Ordering::Relaxed);
                }
            }
        });
        Noise {
            shared,
            thread: Some(thread),
        }
    }

    /// The longest delay since this was last asked.
    pub fn take_longest(&self) -> Duration {
        Duration::from_micros(self.shared.longest.swap(0, Ordering::Relaxed))
    }
}

impl Drop for Noise {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
