//! Disks that are not open: not there when the controller started, gone since, or replaced by another medium. Each is opened
//! anew at its path, by a thread, for that may take as long as the disk likes.

use crate::disk::{self, Disk};
use crate::error::OpenError;
use crate::settings::Settings;
use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use tracing::warn;
use twincell_core::ids::{Nanos, Time};

/// How long a disk that cannot be opened is left alone.
const AGAIN_AFTER: Nanos = Nanos::from_millis(1000);

/// One disk that is looked for.
#[derive(Clone, Debug, Default)]
struct Search {
    /// A thread tries to open what is at this path, which may take for ever.
    running: Option<PathBuf>,
    not_before: Time,
    /// Why it could not be opened the last time: what is news is logged.
    why: String,
}

/// What a thread has found at the path of disk `n`.
struct Found {
    n: usize,
    path: PathBuf,
    disk: Result<Disk, OpenError>,
}

/// The search for disks that are not open.
pub(crate) struct Reopener {
    searches: Vec<Search>,
    found: Receiver<Found>,
    tell: Sender<Found>,
    /// Wakes the engine.
    wake: Arc<File>,
}

impl Reopener {
    /// For `disks` disks.
    pub(crate) fn new(disks: usize, wake: Arc<File>) -> Reopener {
        let (tell, found) = channel();
        Reopener {
            searches: vec![Search::default(); disks],
            found,
            tell,
            wake,
        }
    }

    /// Looks for disk `n` where the settings have it, unless that was tried just now. `take` gives what is found.
    pub(crate) fn look_for(&mut self, n: usize, settings: &Settings, now: Time) {
        let (search, path) = (&mut self.searches[n], &settings.disks[n]);
        let elsewhere = search.running.as_ref().is_some_and(|p| p != path);
        if !elsewhere && (search.running.is_some() || now < search.not_before) {
            return;
        }
        search.not_before = now + AGAIN_AFTER;
        let (tell, wake, settings) = (self.tell.clone(), self.wake.clone(), settings.clone());
        let look = move || {
            let path = settings.disks[n].clone();
            let disk = disk::open_at(n as u16, &settings);
            // The engine may have ended.
            let _ = tell.send(Found { n, path, disk });
            let _ = (&*wake).write(&1u64.to_ne_bytes());
        };
        let thread = std::thread::Builder::new().name(format!("disk {n}")).spawn(look);
        search.running = thread.is_ok().then(|| path.clone());
    }

    /// When a disk that is not open is to be looked for again.
    pub(crate) fn next_look(&self, n: usize) -> Option<Time> {
        let search = &self.searches[n];
        search.running.is_none().then_some(search.not_before)
    }

    /// A disk that was found where the settings have it now, with its number.
    pub(crate) fn take(&mut self, settings: &Settings) -> Option<(usize, Disk)> {
        while let Ok(Found { n, path, disk }) = self.found.try_recv() {
            let search = &mut self.searches[n];
            search.running.take_if(|p| *p == path);
            match disk {
                Ok(disk) if path == settings.disks[n] => {
                    search.why.clear();
                    return Some((n, disk));
                }
                Ok(_) => {}
                Err(e) => {
                    let why = e.to_string();
                    if search.why != why {
                        warn!("a disk is looked for, and cannot be used: {why}");
                    }
                    search.why = why;
                }
            }
        }
        None
    }
}
