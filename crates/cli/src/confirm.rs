//! The question before something that cannot be undone.

use crate::exit::{Code, Failure, Result};
use std::io::{IsTerminal, Write};

/// Asks for `name`, unless the operator has said `--yes`. `not_done` is what is refused without it, `lost` what is lost by it.
pub fn confirm(name: &str, yes: bool, not_done: &str, lost: &str) -> Result<()> {
    if yes {
        return Ok(());
    }
    let refused = |why: &str| {
        Err(Failure::new(Code::Refused, format!("{not_done}: {why}"))
            .next(format!("{lost}\n  --yes says that this is meant")))
    };
    if !std::io::stdin().is_terminal() {
        return refused("there is no terminal to ask on");
    }
    let mut out = std::io::stderr();
    let _ = write!(out, "{lost}\n{name} to go on, anything else to leave it: ");
    let _ = out.flush();
    let mut typed = String::new();
    match std::io::stdin().read_line(&mut typed) {
        Ok(_) if typed.trim() == name => Ok(()),
        _ => refused("its name was not given"),
    }
}
