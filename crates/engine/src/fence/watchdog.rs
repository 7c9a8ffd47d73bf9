//! A hardware watchdog: it resets the machine unless it hears from this process (`linux/watchdog.h`).

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::path::Path;

/// `WDIOC_SETTIMEOUT` and `WDIOC_GETTIMEOUT` with an `int`.
const WDIOC_SETTIMEOUT: libc::Ioctl = 0xc004_5706_u32 as libc::Ioctl;
const WDIOC_GETTIMEOUT: libc::Ioctl = 0x8004_5707_u32 as libc::Ioctl;

/// Something that ends this machine, or not.
pub(super) trait Watchdog: Send {
    /// Puts the reset off by the time-out.
    fn pet(&mut self) -> io::Result<()>;
    /// No reset any more.
    fn disarm(&mut self) -> io::Result<()>;
}

/// A watchdog device. It is armed from the moment that it is opened.
pub(super) struct Device(File);

impl Device {
    /// Arms the watchdog with a time-out of `seconds`, or what the hardware makes of it. Gives the time-out in seconds.
    pub(super) fn open(path: &Path, seconds: i32) -> io::Result<(Device, i32)> {
        let file = OpenOptions::new().write(true).open(path)?;
        let mut timeout: libc::c_int = seconds;
        let set = |request, timeout: &mut libc::c_int| {
            // SAFETY: the pointer is that of a local `int`, which both requests take. It is needed because std has no
            // watchdogs.
            match unsafe { libc::ioctl(file.as_raw_fd(), request, timeout) } {
                0.. => Ok(()),
                _ => Err(io::Error::last_os_error()),
            }
        };
        set(WDIOC_SETTIMEOUT, &mut timeout)?;
        set(WDIOC_GETTIMEOUT, &mut timeout)?;
        Ok((Device(file), timeout))
    }
}

impl Watchdog for Device {
    fn pet(&mut self) -> io::Result<()> {
        self.0.write_all(b"\0")
    }

    /// The "magic close"; a driver without it, or loaded with `nowayout`, resets the machine all the same.
    fn disarm(&mut self) -> io::Result<()> {
        self.0.write_all(b"V")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_watchdog_is_refused() {
        assert!(Device::open(Path::new("/nowhere/watchdog"), 5).is_err());
        assert!(Device::open(Path::new("/dev/null"), 5).is_err());
    }
}
