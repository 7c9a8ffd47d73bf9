//! Fence driver `self`: the partner ends by itself, and this controller waits until it must have.
//!
//! A controller that has lost its partner says nothing to hosts once its grant is over, and posts no disk write once it has
//! read that it is out. What it had posted before may be on its way for longer. With a watchdog that is bounded: a
//! controller whose engine hangs, or one of whose disk I/Os takes longer than [`STUCK`], stops petting it, and its machine is
//! reset. Without a watchdog nothing bounds it. That window is outside of the promise (docs/fault-model.md).

use super::watchdog::{Device, Watchdog};
use super::{Fence, Proof};
use crate::disk::Disk;
use crate::error::OpenError;
use std::path::Path;
use tracing::{error, info};
use twincell_core::ids::{Nanos, ProcessId, Time};

/// The time-out that the watchdog is asked for, in seconds, and the longest that is accepted: some hardware knows only
/// certain values.
const TIMEOUT_S: i32 = 5;
const TIMEOUT_MAX_S: i32 = 10;
/// How often it is petted.
const PET: Nanos = Nanos::from_millis(1000);
/// A disk I/O that takes longer keeps it from being petted.
const STUCK: Nanos = Nanos::from_millis(2000);

/// Waiting, and petting the own watchdog.
pub(super) struct OwnFence {
    watchdog: Option<Box<dyn Watchdog>>,
    pet_at: Option<Time>,
    /// How long the partner may take to end.
    wait: Nanos,
    until: Option<Time>,
}

/// The fence with this watchdog. Without one the operator has accepted the window.
pub(super) fn open(watchdog: Option<&Path>, grant: Nanos) -> Result<OwnFence, OpenError> {
    let Some(path) = watchdog else {
        info!("fence = \"self\" without a watchdog: a write of a controller that is out may land late");
        return Ok(OwnFence::new(None, grant));
    };
    let refused = |why: String| OpenError::Fence {
        fence: "self",
        path: path.into(),
        why,
    };
    let (mut device, seconds) =
        Device::open(path, TIMEOUT_S).map_err(|e| refused(format!("it is no watchdog: {e}")))?;
    if seconds > TIMEOUT_MAX_S {
        // Armed as it is, it must not end the machine for that.
        let _ = device.disarm();
        return Err(refused(format!(
            "its time-out is {seconds} s, and no more than {TIMEOUT_MAX_S} s will do"
        )));
    }
    Ok(OwnFence::new(Some(Box::new(device)), grant))
}

impl OwnFence {
    fn new(watchdog: Option<Box<dyn Watchdog>>, grant: Nanos) -> OwnFence {
        let wait = match &watchdog {
            Some(_) => Nanos(grant.0 + STUCK.0 + PET.0 + TIMEOUT_MAX_S as u64 * 1_000_000_000),
            None => grant,
        };
        OwnFence {
            pet_at: watchdog.as_ref().map(|_| Time(0)),
            watchdog,
            wait,
            until: None,
        }
    }

    fn pet(&mut self, now: Time, oldest_io: Option<Time>) {
        let Some(watchdog) = &mut self.watchdog else { return };
        self.pet_at = Some(now + PET);
        if oldest_io.is_some_and(|posted| now.since(posted) > STUCK) {
            error!("a disk I/O does not end: the watchdog is not petted, and will reset this machine");
        } else if let Err(e) = watchdog.pet() {
            error!("the watchdog cannot be petted, and will reset this machine: {e}");
        }
    }
}

impl Fence for OwnFence {
    fn enter(&mut self, _: Time) -> bool {
        true
    }

    fn take(&mut self, now: Time, _: ProcessId) {
        self.until = Some(now + self.wait);
    }

    fn poll(&mut self, now: Time, _: &dyn Fn(usize) -> bool, oldest_io: &dyn Fn() -> Option<Time>) -> Option<Proof> {
        if self.pet_at.is_some_and(|at| now >= at) {
            self.pet(now, oldest_io());
        }
        self.until.take_if(|until| now >= *until)?;
        Some(match self.watchdog {
            Some(_) => Proof::Watchdog,
            None => Proof::Window,
        })
    }

    /// A partner that has stopped, or was reset, writes nowhere.
    fn holds(&mut self, _: usize) -> bool {
        true
    }

    fn close(&mut self, _: usize) {}

    fn open(&mut self, _: usize, _: &Disk) -> Result<(), OpenError> {
        Ok(())
    }

    fn next_deadline(&self) -> Option<Time> {
        [self.pet_at, self.until].into_iter().flatten().min()
    }

    fn release(&mut self) {
        self.until = None;
    }

    fn leave(&mut self) {
        self.release();
    }
}

/// Everything is reaped: nothing can land late.
impl Drop for OwnFence {
    fn drop(&mut self) {
        if let Some(watchdog) = &mut self.watchdog
            && let Err(e) = watchdog.disarm()
        {
            error!("the watchdog cannot be disarmed, and will reset this machine: {e}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;
    use std::sync::{Arc, Mutex};

    const GRANT: Nanos = Nanos::from_millis(2000);

    #[derive(Clone, Default)]
    struct Pets(Arc<Mutex<String>>);

    impl Watchdog for Pets {
        fn pet(&mut self) -> io::Result<()> {
            self.0.lock().expect("no panic").push('p');
            Ok(())
        }

        fn disarm(&mut self) -> io::Result<()> {
            self.0.lock().expect("no panic").push('V');
            Ok(())
        }
    }

    fn at(ms: u64) -> Time {
        Time(ms * 1_000_000)
    }

    #[test]
    fn the_watchdog_hears_nothing_while_a_disk_io_is_stuck_and_of_the_end() {
        let pets = Pets::default();
        let mut fence = OwnFence::new(Some(Box::new(pets.clone())), GRANT);
        for (ms, oldest) in [
            (0, None),
            (500, None),
            (1000, Some(0)),
            (2000, Some(0)),
            (3000, Some(0)),
            (4000, Some(0)),
            (5000, Some(4999)),
        ] {
            fence.poll(at(ms), &|_| true, &|| oldest.map(at));
        }
        assert_eq!(*pets.0.lock().expect("no panic"), "pppp", "at 0, 1, 2 and 5 s");
        drop(fence);
        assert_eq!(*pets.0.lock().expect("no panic"), "ppppV");
    }

    #[test]
    fn a_partner_is_given_the_time_that_its_watchdog_takes() {
        let mut fence = OwnFence::new(Some(Box::<Pets>::default()), GRANT);
        fence.take(at(0), ProcessId::default());
        assert_eq!(fence.poll(at(14_999), &|_| true, &|| None), None);
        assert_eq!(fence.poll(at(15_000), &|_| true, &|| None), Some(Proof::Watchdog));
        assert_eq!(fence.poll(at(30_000), &|_| true, &|| None), None);
    }

    #[test]
    fn without_a_watchdog_only_the_grant_is_waited_out() {
        let mut fence = open(None, GRANT).expect("accepted");
        assert_eq!(fence.next_deadline(), None);
        fence.take(at(0), ProcessId::default());
        assert_eq!(fence.poll(at(1999), &|_| true, &|| None), None);
        assert_eq!(fence.poll(at(2000), &|_| true, &|| None), Some(Proof::Window));
        fence.take(at(3000), ProcessId::default());
        fence.release();
        assert_eq!(fence.poll(at(9000), &|_| true, &|| None), None);
    }

    #[test]
    fn what_is_no_watchdog_is_refused_by_name() {
        let refused = open(Some(Path::new("/dev/null")), GRANT)
            .err()
            .expect("refused")
            .to_string();
        assert!(refused.contains("/dev/null") && refused.contains("self"), "{refused}");
    }
}
