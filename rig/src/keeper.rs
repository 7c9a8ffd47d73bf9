//! What is to be done at the end of a test, even if the test itself is killed.

use std::ffi::OsStr;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

/// A shell that waits for the end of its input, and then carries out a script.
#[derive(Debug)]
pub(crate) struct Keeper(Child);

impl Keeper {
    /// The script finds its arguments in `$1` and so on.
    pub(crate) fn new<S: AsRef<OsStr>>(script: &str, args: &[S]) -> Keeper {
        let mut command = Command::new("sh");
        command
            .args(["-c", &format!("cat >/dev/null\n{script}"), "sh"])
            .args(args);
        // A process group of its own, so that Ctrl-C does not end it with the test.
        Keeper(command.process_group(0).stdin(Stdio::piped()).spawn().expect("a shell"))
    }

    /// Carries out the script now, and waits for that.
    pub(crate) fn end(&mut self) {
        self.0.stdin = None;
        // Its errors are on the test's own standard error.
        let _ = self.0.wait();
    }
}
