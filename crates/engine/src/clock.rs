//! The clock that grants and leases are counted by (R2).

use std::time::Duration;
use twincell_core::ids::Time;

/// Now, by a clock that never steps and also runs while the machine is suspended.
pub(crate) fn now() -> Time {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is that of a local `timespec`. It is needed because std has no `CLOCK_BOOTTIME`.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &mut time) };
    assert_eq!(result, 0, "every kernel since 2.6.39 has CLOCK_BOOTTIME");
    Time(time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64)
}

/// How long from `now` until `then`; zero if it is past.
pub(crate) fn until(now: Time, then: Time) -> Duration {
    Duration::from_nanos(then.since(now).0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_goes_forward() {
        let first = now();
        std::thread::sleep(Duration::from_millis(2));
        let second = now();
        assert!(second.since(first).0 >= 2_000_000);
        assert_eq!(until(second, first), Duration::ZERO);
        assert_eq!(until(first, second).as_nanos() as u64, second.since(first).0);
    }
}
