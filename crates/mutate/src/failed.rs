//! What ends the tool.

use std::fmt;
use std::path::Path;
use std::process::{Command, Stdio};

/// In words.
#[derive(Debug)]
pub struct Failed(pub String);

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// For `map_err`: what happened to a file.
pub fn at(path: &Path) -> impl FnOnce(std::io::Error) -> Failed {
    move |e| Failed(format!("{}: {e}", path.display()))
}

/// The output of a command that succeeds.
pub fn output(command: &mut Command) -> Result<String, Failed> {
    let told = format!("{command:?}");
    let output = command.stderr(Stdio::inherit()).output();
    let output = output.map_err(|e| Failed(format!("{told} did not start: {e}")))?;
    if !output.status.success() {
        return Err(Failed(format!("{told} ended with {}", output.status)));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
