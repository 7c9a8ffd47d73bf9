//! Programs of others, and how they ended.

use std::process::{Command, Output, Stdio};
use std::time::Duration;

/// How a program ended.
#[derive(Clone, Debug)]
pub struct Ended {
    /// What was run.
    pub told: String,
    /// The exit code; `None` after a signal.
    pub code: Option<i32>,
    /// What it wrote.
    pub stdout: String,
    /// What it wrote to its standard error.
    pub stderr: String,
}

impl Ended {
    /// An error in words unless the program succeeded.
    pub fn ok(self) -> Result<Ended, String> {
        match self.code {
            Some(0) => Ok(self),
            code => Err(format!(
                "`{}` ended with {code:?}\n{}{}",
                self.told, self.stdout, self.stderr
            )),
        }
    }

    /// Fails the test unless the program ended with this exit code and said all of this on its standard error.
    #[track_caller]
    pub fn expect(&self, code: i32, said: &[&str]) {
        assert_eq!(self.code, Some(code), "{self:?}");
        for word in said {
            assert!(self.stderr.contains(word), "{word:?} is missing in: {}", self.stderr);
        }
    }

    /// Fails the test unless the program succeeded.
    #[track_caller]
    pub fn success(self) -> Ended {
        self.ok().unwrap_or_else(|e| panic!("{e}"))
    }
}

/// Runs a program to its end, for at most `limit`: it gets SIGTERM then, and SIGKILL five seconds later.
#[track_caller]
pub fn run(program: &str, args: &[&str], limit: Duration) -> Ended {
    run_command(
        Command::new("timeout")
            .arg("--kill-after=5")
            .arg(limit.as_secs().to_string())
            .arg(program)
            .args(args),
    )
}

/// Runs a command to its end.
#[track_caller]
pub fn run_command(command: &mut Command) -> Ended {
    let told = format!("{command:?}");
    let output = command.stdin(Stdio::null()).output();
    let Output { status, stdout, stderr } = output.unwrap_or_else(|e| panic!("{told} did not start: {e}"));
    Ended {
        told,
        code: status.code(),
        stdout: String::from_utf8_lossy(&stdout).into_owned(),
        stderr: String::from_utf8_lossy(&stderr).into_owned(),
    }
}
