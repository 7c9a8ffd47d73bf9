//! What earlier runs have done, in a file: it counts only for the same sources of core and simulator.

use std::fmt;
use std::path::PathBuf;
use twincell_sim::marks::Marks;

/// The sources that this program was built from.
const SOURCES: &str = env!("TWINCELL_SOURCES");

/// How far a long run has come.
#[derive(Clone, Debug, Default)]
pub struct State {
    path: Option<PathBuf>,
    /// What is run, in words: another run begins anew.
    what: String,
    /// All before this was done.
    pub next: u64,
    /// Runs so far.
    pub runs: u64,
    /// Those that failed.
    pub failed: u64,
    /// What they have seen.
    pub marks: Marks,
}

impl State {
    /// What the file says of `what`, if it is of the same sources; else, and without a file, nothing was done before
    /// `start`.
    pub fn load(path: Option<&str>, what: &str, start: u64) -> State {
        let fresh = State {
            path: path.map(PathBuf::from),
            what: what.to_owned(),
            next: start,
            ..State::default()
        };
        let text = fresh.path.as_ref().and_then(|p| std::fs::read_to_string(p).ok());
        match text.as_deref().and_then(|t| fresh.parse(t)) {
            Some(state) => {
                println!("going on: {state}");
                state
            }
            None => fresh,
        }
    }

    fn parse(&self, text: &str) -> Option<State> {
        let mut lines = text.lines();
        if lines.next()? != SOURCES || lines.next()? != self.what {
            return None;
        }
        let mut number = || lines.next()?.parse().ok();
        let (next, runs, failed) = (number()?, number()?, number()?);
        let marks = Marks::from_text(lines.next()?)?;
        Some(State {
            next,
            runs,
            failed,
            marks,
            ..self.clone()
        })
    }

    /// Writes the file, if there is one. A run that cannot keep its state goes on, and says so.
    pub fn save(&self) {
        let Some(path) = &self.path else { return };
        let State {
            what,
            next,
            runs,
            failed,
            marks,
            ..
        } = self;
        let text = format!("{SOURCES}\n{what}\n{next}\n{runs}\n{failed}\n{}\n", marks.to_text());
        let beside = path.with_extension("new");
        if let Err(e) = std::fs::write(&beside, text).and_then(|()| std::fs::rename(&beside, path)) {
            eprintln!("{}: {e}", path.display());
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} runs so far with sources {SOURCES}, {} failed; next is {}",
            self.runs, self.failed, self.next
        )
    }
}
