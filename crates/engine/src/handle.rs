//! How other threads of the process talk to the engine: a queue, and an eventfd that wakes it.

use crate::snapshot::Snapshot;
use crate::story::{Story, StoryLine};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::FromRawFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::time::Duration;
use twincell_core::manage::{ManageError, ManageOp, ManageReply};

/// How long a snapshot may take: the engine answers between two completions.
const SNAPSHOT_TIMEOUT: Duration = Duration::from_millis(1500);

/// An answer that did not come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HandleError {
    /// The engine does not run any more.
    #[error("the controller has stopped")]
    Stopped,
    /// It runs, and the task may still go on.
    #[error("the controller has not answered in time; the task may still go on")]
    TimedOut,
}

/// What is asked of the engine, and where the answer goes.
pub(crate) enum Request {
    /// Of the core.
    Manage {
        op: ManageOp,
        reply: SyncSender<Result<ManageReply, ManageError>>,
    },
    /// Where the disks are, by number.
    Disks {
        paths: Vec<PathBuf>,
        reply: SyncSender<bool>,
    },
    /// That the controller stops.
    Stop,
    /// Of the engine itself.
    Snapshot { reply: SyncSender<Box<Snapshot>> },
}

/// A way to an engine, from any thread.
#[derive(Clone)]
pub struct Handle {
    requests: Sender<Request>,
    wake: Arc<File>,
    story: Arc<Story>,
}

/// The engine's end.
pub(crate) struct Inbox {
    pub requests: Receiver<Request>,
    pub wake: Arc<File>,
    pub story: Arc<Story>,
}

/// Both ends.
pub(crate) fn pair() -> io::Result<(Handle, Inbox)> {
    // SAFETY: `eventfd` takes no pointer. It is needed as something that io_uring can read and a thread can write.
    let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was just made and nobody else has it.
    let wake = Arc::new(unsafe { File::from_raw_fd(fd) });
    let (sender, receiver) = channel();
    let story = Arc::new(Story::default());
    let handle = Handle {
        requests: sender,
        wake: wake.clone(),
        story: story.clone(),
    };
    let inbox = Inbox {
        requests: receiver,
        wake,
        story,
    };
    Ok((handle, inbox))
}

impl Handle {
    /// Asks the core for `op` and waits up to `timeout` for its answer.
    pub fn manage(&self, op: ManageOp, timeout: Duration) -> Result<Result<ManageReply, ManageError>, HandleError> {
        let (reply, answer) = sync_channel(1);
        self.send(Request::Manage { op, reply })?;
        wait(&answer, timeout)
    }

    /// Has the controller stop as soon as it can, whatever it does now: it serves nobody from now on whom it does not serve
    /// yet. It is not asked twice, and cannot refuse; when it has stopped is for the engine's end to say.
    ///
    /// # Errors
    /// The engine does not run any more.
    pub fn stop(&self) -> Result<(), HandleError> {
        self.send(Request::Stop)
    }

    /// Has disks that are missing looked for at these paths, one for each disk of the cell, from now on. One that is found
    /// there, and is the one that is meant, is used at once. False, and nothing is changed, where the cell has another number of
    /// disks.
    ///
    /// # Errors
    /// The engine does not run, or does not answer within 1.5 seconds.
    pub fn look_for_disks(&self, paths: Vec<PathBuf>) -> Result<bool, HandleError> {
        let (reply, answer) = sync_channel(1);
        self.send(Request::Disks { paths, reply })?;
        wait(&answer, SNAPSHOT_TIMEOUT)
    }

    /// The state of the controller now. It answers within 1.5 seconds or not at all.
    pub fn snapshot(&self) -> Result<Snapshot, HandleError> {
        let (reply, answer) = sync_channel(1);
        self.send(Request::Snapshot { reply })?;
        wait(&answer, SNAPSHOT_TIMEOUT).map(|snapshot| *snapshot)
    }

    /// What happened from line `from` on, oldest first, and the number of the line after the last; waits until something
    /// has. Only the last lines are kept. `None` when the engine has ended and everything was told.
    pub fn story(&self, from: u64) -> Option<(Vec<StoryLine>, u64)> {
        self.story.follow(from)
    }

    fn send(&self, request: Request) -> Result<(), HandleError> {
        self.requests.send(request).map_err(|_| HandleError::Stopped)?;
        // An eventfd refuses a write only at its largest count, and then the engine is awake anyway.
        let _ = (&*self.wake).write(&1u64.to_ne_bytes());
        Ok(())
    }
}

fn wait<T>(answer: &Receiver<T>, timeout: Duration) -> Result<T, HandleError> {
    answer.recv_timeout(timeout).map_err(|e| match e {
        RecvTimeoutError::Timeout => HandleError::TimedOut,
        RecvTimeoutError::Disconnected => HandleError::Stopped,
    })
}
