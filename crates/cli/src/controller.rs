//! `twincell controller`: one of the two, in the foreground as a service manager runs it, or asked to stop.

use crate::config::{CellConfig, controller_named};
use crate::control::{Answer, Client, NoAnswer, Request};
use crate::daemon::wait_until_ended;
use crate::exit::{Code, Failure, Result};
use crate::lock::Lock;
use crate::log::{self, log};
use crate::output::Report;
use crate::recorder;
use crate::server;
use crate::status::{Seen, controller_table, look, look_at_both, summarize};
use clap::Subcommand;
use rustix::fs::Mode;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::io::ErrorKind;
use std::time::Duration;
use twincell_core::ids::Controller;
use twincell_engine::{Engine, Handle, OpenError, Outcome};

/// How long a stop may take before it is only waited for: flushing a whole cache to slow disks.
pub const STOP_ANSWER: Duration = Duration::from_secs(20);

/// What can be done with controllers.
#[derive(Debug, Subcommand)]
pub enum ControllerVerb {
    /// Be a controller, in the foreground, until a signal or `controller stop`.
    Run {
        /// A or B.
        #[arg(long, value_parser = controller_named)]
        name: Controller,
        /// In a session of its own, away from the caller's terminal.
        #[arg(long, hide = true)]
        detach: bool,
    },
    /// Stop one controller, with its LUNs moved to the other first.
    Stop {
        /// A or B.
        #[arg(value_parser = controller_named)]
        name: Controller,
    },
    /// Both controllers.
    List,
    /// One controller.
    Show {
        /// A or B.
        #[arg(value_parser = controller_named)]
        name: Controller,
    },
    /// Go on without what only the memory of a controller had, which does not come back. Says first what is lost.
    AcceptLoss {
        /// The controller whose memory is lost: A or B.
        #[arg(value_parser = controller_named)]
        name: Controller,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
    },
}

/// `controller run`.
pub fn run(config: &CellConfig, controller: Controller, detach: bool) -> Result<Report> {
    if detach {
        // Fails only for the leader of a process group, which a child that was just started is not.
        rustix::process::setsid().map_err(|e| Failure::io("leave", "the session", &e.into()))?;
    }
    // The control socket is for its owner only, from its first moment on.
    rustix::process::umask(Mode::from_raw_mode(0o077));
    let _lock = Lock::take(
        &config.controller_dir(controller),
        &format!("controller {controller} of cell {}", config.name),
    )?;
    config.prepare_nv_directory(controller)?;
    // Signals first: one that comes while the disks are opened ends the process, which is always safe.
    let signals = Signals::new([SIGTERM, SIGINT]).map_err(|e| Failure::io("watch for", "signals", &e))?;
    let (engine, handle) = Engine::open(config.settings(controller)?).map_err(|e| refused(&e))?;
    watch(signals, handle.clone())?;
    let recorder = recorder::start(config, controller, handle.clone())?;
    let socket = config.control(controller);
    server::serve(&socket, controller, handle).map_err(|e| Failure::io("listen on", socket.display(), &e))?;
    match engine.run() {
        Ok(Outcome::Exit) => {
            // A journal that panicked has said so.
            let _ = recorder.join();
            Ok(Report::new("", "controller", controller.to_string()))
        }
        Err(e) => Err(Failure::new(
            Code::Refused,
            format!("controller {controller} ended: {e}"),
        )),
    }
}

/// Stops the controller at the first signal, and ends the process at the second.
fn watch(mut signals: Signals, handle: Handle) -> Result<()> {
    let watcher = move || {
        for (count, signal) in signals.forever().enumerate() {
            if count > 0 {
                log::exit(128 + signal);
            }
            if handle.stop().is_ok() {
                std::thread::spawn(|| {
                    // The process may be gone by then, and this thread with it.
                    std::thread::sleep(STOP_ANSWER);
                    log("the controller is still to stop; a second signal ends it at once");
                });
            }
        }
    };
    let thread = std::thread::Builder::new().name("signals".to_owned()).spawn(watcher);
    thread.map(|_| ()).map_err(|e| Failure::io("start", "a thread", &e))
}

/// What an operator is told when a controller cannot start.
fn refused(error: &OpenError) -> Failure {
    let (code, next) = match error {
        OpenError::Kernel { .. } => (Code::NotAllowed, "`sysctl kernel.io_uring_disabled` must be 0"),
        OpenError::Settings(_) => (Code::Usage, "correct cell.toml"),
        OpenError::DiskMissing { .. } | OpenError::VotesMissing { .. } => {
            (Code::NotFound, "attach it, or correct `disks` in cell.toml")
        }
        OpenError::Disk { source, .. } | OpenError::Nv { source, .. } | OpenError::System { source, .. } => {
            let code = if source.kind() == ErrorKind::PermissionDenied {
                Code::NotAllowed
            } else {
                Code::Refused
            };
            (code, "nothing was changed")
        }
        OpenError::AnotherCell { .. }
        | OpenError::DiskOrder { .. }
        | OpenError::DiskTwice { .. }
        | OpenError::DiskCount { .. } => (Code::Conflict, "correct `disks` in cell.toml; nothing was changed"),
        OpenError::DiskShort { .. }
        | OpenError::NotLabelled { .. }
        | OpenError::LabelDamaged { .. }
        | OpenError::SectorSize { .. } => (Code::Refused, "nothing was written to it"),
        OpenError::Fence { .. } => (
            Code::Refused,
            "choose another `fence` in cell.toml; docs/operating.md says which fits",
        ),
        OpenError::NvMedium { .. } => (Code::Refused, "set nv_memory of the controller in cell.toml"),
        OpenError::NvNotPrivate { .. } => (
            Code::Refused,
            "set nv_memory of the controller in cell.toml to a directory of its own, with mode 0700",
        ),
        OpenError::NvForeign { .. } => (
            Code::Refused,
            "nothing was changed: move that away, or set nv_memory of the controller in cell.toml",
        ),
        OpenError::NvSizes { .. } => (
            Code::Conflict,
            "it may have data that the disks lack: set `cache` back, start the cell, `twincell cell stop` it, then change `cache`",
        ),
        OpenError::NvNewer { .. } => (
            Code::Conflict,
            "it may have data that the disks lack: start the newer program again, `twincell cell stop` it, then start this one",
        ),
        OpenError::NvTooLittle { .. } => (
            Code::Refused,
            "make that tmpfs larger, set nv_memory to another, or make the cache of a new cell smaller",
        ),
        OpenError::Running { .. } => (Code::Conflict, "`twincell status` shows its state"),
        OpenError::Listen { source, .. } => match source.kind() {
            ErrorKind::AddrInUse => (
                Code::Conflict,
                "another process listens there; change cell.toml or end it",
            ),
            ErrorKind::PermissionDenied => (Code::NotAllowed, "ports below 1024 need CAP_NET_BIND_SERVICE"),
            _ => (Code::Refused, "correct the address in cell.toml"),
        },
    };
    Failure::new(code, error.to_string()).next(next)
}

/// Asks a controller to stop and waits until its process has ended. Says whether it ran.
pub fn stop_and_wait(config: &CellConfig, controller: Controller) -> Result<bool> {
    let silent = |why: String| {
        let what = format!("controller {controller} runs and does not answer: {why}");
        let next = format!(
            "see {}; what its memory holds stays safe if it is ended",
            config.log(controller).display()
        );
        Failure::new(Code::Unreachable, what).next(next)
    };
    match look(config, controller) {
        Seen::Stopped => return Ok(false),
        Seen::Elsewhere => {
            let what = format!("controller {controller} is not on this machine");
            return Err(Failure::new(Code::Unreachable, what).next("stop it on its own"));
        }
        Seen::Opening { .. } => return Err(silent("it has not opened its disks and memory yet".to_owned())),
        Seen::Silent { why, .. } => return Err(silent(why)),
        Seen::Answered { .. } => {}
    }
    let mut client = match Client::connect(&config.control(controller)) {
        Ok(client) => client,
        Err(NoAnswer::NotRunning) => return Ok(true),
        Err(NoAnswer::Silent(why)) => return Err(silent(why)),
    };
    match client.ask(&Request::Stop, STOP_ANSWER + Duration::from_secs(5)) {
        // A controller that ends may not get round to its answer.
        Ok(Answer::Done { .. }) | Err(_) => wait_until_ended(config, controller).map(|()| true),
        Ok(Answer::Error(refusal)) => Err(refusal.failure()),
        Ok(other) => Err(silent(format!("its answer is to another question: {other:?}"))),
    }
}

/// `controller stop`.
pub fn run_stop(config: &CellConfig, controller: Controller) -> Result<Report> {
    let ran = stop_and_wait(config, controller)?;
    let text = if ran { "is stopped" } else { "was not running" };
    let mut report = Report::new(
        format!("Controller {controller} {text}.\n"),
        "controller",
        controller.to_string(),
    );
    report.fields.insert("state".to_owned(), "stopped".into());
    Ok(report)
}

/// `controller list`.
pub fn run_list(config: &CellConfig) -> Report {
    let controllers = summarize(config, &look_at_both(config)).controllers;
    Report::new(controller_table(&controllers), "controllers", &controllers)
}

/// `controller show`.
pub fn run_show(config: &CellConfig, controller: Controller) -> Result<Report> {
    let seen = look_at_both(config);
    let line = summarize(config, &seen).controllers.swap_remove(controller.index());
    let Seen::Answered { status, .. } = &seen[controller.index()] else {
        return Ok(Report::new(
            controller_table(std::slice::from_ref(&line)),
            "controller",
            &line,
        ));
    };
    let text = format!(
        "{}\nIt calls itself {:?}. Its NV memory holds {} buffers that the disks may lack, and {} writes in progress.\n",
        controller_table(std::slice::from_ref(&line)),
        status.role,
        status.dirty_buffers,
        status.open_ries
    );
    let mut report = Report::new(text, "controller", &line);
    report
        .fields
        .insert("dirty_buffers".to_owned(), status.dirty_buffers.into());
    report.fields.insert("open_writes".to_owned(), status.open_ries.into());
    Ok(report)
}
