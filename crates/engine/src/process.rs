//! Who this process is, and the end of another (R5, driver `kill`).

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use twincell_core::ids::{ProcessId, Uuid};

/// The kernel's boot id.
pub(crate) fn boot_id() -> io::Result<Uuid> {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    let number = u128::from_str_radix(&digits, 16).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
    Ok(Uuid(number))
}

/// This process, as another on the same machine can find it.
pub(crate) fn own_id() -> io::Result<ProcessId> {
    id_of(std::process::id())
}

/// A process of this PID namespace.
pub(crate) fn id_of(pid: u32) -> io::Result<ProcessId> {
    Ok(ProcessId {
        boot: boot_id()?,
        pid_namespace: pid_namespace()?,
        pid,
        start_time: start_time(pid)?,
    })
}

fn pid_namespace() -> io::Result<u64> {
    fs::metadata("/proc/self/ns/pid").map(|m| m.ino())
}

/// Field 22 of `/proc/PID/stat` (proc_pid_stat(5)): clock ticks from boot to the start of the process.
fn start_time(pid: u32) -> io::Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let bad = || io::Error::new(io::ErrorKind::InvalidData, format!("/proc/{pid}/stat: {stat:?}"));
    // The second field is the program's name in parentheses and may hold anything, so count from its end.
    let (_, fields) = stat.rsplit_once(')').ok_or_else(bad)?;
    let field = fields.split_ascii_whitespace().nth(22 - 3).ok_or_else(bad)?;
    field.parse().map_err(|_| bad())
}

/// Closes every descriptor but the first three in the programs that this process becomes or starts: what it was started
/// with is not theirs.
///
/// # Errors
/// The kernel's; `close_range` is there since Linux 5.11.
pub fn close_on_exec() -> io::Result<()> {
    // SAFETY: takes no pointer, and closes nothing in this process. It is needed because std knows only the descriptors
    // that it has opened itself.
    let result = unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// What became of an attempt to end a process.
#[derive(Debug)]
pub(crate) enum Kill {
    /// It was sent SIGKILL.
    Sent,
    /// It does not exist any more.
    Gone,
    /// It is on another machine, in another PID namespace, or unknown.
    OutOfSight,
    /// It may not be ended by this user, or not at all.
    Refused(io::Error),
}

/// Sends SIGKILL to `process`, and to no other that has its pid now.
pub(crate) fn kill(process: ProcessId) -> Kill {
    let Ok(own) = own_id() else { return Kill::OutOfSight };
    let in_sight = process.boot == own.boot && process.pid_namespace == own.pid_namespace && process.pid != 0;
    if !in_sight || process.pid == own.pid {
        return Kill::OutOfSight;
    }
    let is_still_it = || start_time(process.pid).is_ok_and(|t| t == process.start_time);
    if !is_still_it() {
        return Kill::Gone;
    }
    let pidfd = match open_pidfd(process.pid) {
        Ok(pidfd) => pidfd,
        Err(e) if e.raw_os_error() == Some(libc::ESRCH) => return Kill::Gone,
        Err(e) => return Kill::Refused(e),
    };
    // The pid may have been given to another process before the descriptor was opened; from here on it cannot.
    if !is_still_it() {
        return Kill::Gone;
    }
    match send_kill(&pidfd) {
        Ok(()) => Kill::Sent,
        Err(e) if e.raw_os_error() == Some(libc::ESRCH) => Kill::Gone,
        Err(e) => Kill::Refused(e),
    }
}

fn open_pidfd(pid: u32) -> io::Result<OwnedFd> {
    // SAFETY: `pidfd_open` takes no pointer. It is needed because a pid alone may name another process by now.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was just made, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

fn send_kill(pidfd: &OwnedFd) -> io::Result<()> {
    let no_info = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: a null `siginfo_t` is allowed and means that of `kill`. The descriptor is open.
    let result = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            libc::SIGKILL,
            no_info,
            0,
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::FORKS;
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Child, Command};

    fn sleeper() -> (Child, ProcessId) {
        let child = Command::new("sleep").arg("60").spawn().expect("sleep");
        let id = id_of(child.id()).expect("its id");
        (child, id)
    }

    #[test]
    fn the_process_that_is_meant_is_ended() {
        let _forks = FORKS.write();
        let (mut child, id) = sleeper();
        assert!(matches!(kill(id), Kill::Sent));
        assert_eq!(child.wait().expect("its end").signal(), Some(libc::SIGKILL));
        assert!(matches!(kill(id), Kill::Gone));
    }

    #[test]
    fn a_pid_that_was_given_again_is_left_alone() {
        let _forks = FORKS.write();
        let (mut child, id) = sleeper();
        let other = ProcessId {
            start_time: id.start_time + 1,
            ..id
        };
        assert!(matches!(kill(other), Kill::Gone));
        assert!(child.try_wait().expect("a state").is_none(), "the sleeper was ended");
        child.kill().expect("ended");
        child.wait().expect("its end");
    }

    #[test]
    fn what_is_elsewhere_or_is_this_process_is_out_of_sight() {
        let own = own_id().expect("own id");
        assert!(matches!(kill(own), Kill::OutOfSight));
        assert!(matches!(kill(ProcessId::default()), Kill::OutOfSight));
        let elsewhere = ProcessId {
            boot: Uuid(own.boot.0 ^ 1),
            ..own
        };
        assert!(matches!(kill(elsewhere), Kill::OutOfSight));
    }
}
