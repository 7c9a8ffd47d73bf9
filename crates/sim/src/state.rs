//! What earlier runs have done, in a file: it counts only for the same sources of core and simulator.

use std::fmt;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use twincell_sim::marks::Marks;

/// The sources that this program was built from.
const SOURCES: &str = env!("TWINCELL_SOURCES");

/// How far a long run has come.
#[derive(Clone, Debug, Default)]
pub struct State {
    path: Option<PathBuf>,
    /// What is run, in words.
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
    ///
    /// # Errors
    /// There is a file, and it is not one that this run may write over.
    pub fn load(path: Option<&str>, what: &str, start: u64) -> Result<State, String> {
        let fresh = State {
            path: path.map(PathBuf::from),
            what: what.to_owned(),
            next: start,
            ..State::default()
        };
        let Some(path) = path else { return Ok(fresh) };
        let Some(text) = text_of(Path::new(path)).map_err(|why| format!("{path}: {why}"))? else {
            return Ok(fresh);
        };
        match fresh.parse(&text).map_err(|why| format!("{path}: {why}"))? {
            Some(state) => {
                println!("going on: {state}");
                Ok(state)
            }
            None => {
                println!("{path} is of other sources: all begins anew");
                Ok(fresh)
            }
        }
    }

    /// The state in `text`; none if it is of other sources.
    fn parse(&self, text: &str) -> Result<Option<State>, String> {
        let lines: Vec<&str> = text.lines().collect();
        let [sources, what, next, runs, failed, marks] = lines[..] else {
            return Err(foreign());
        };
        let numbers = [next, runs, failed].map(|n| n.parse().ok());
        let ([Some(next), Some(runs), Some(failed)], true) = (numbers, is_digest(sources)) else {
            return Err(foreign());
        };
        if what != self.what {
            return Err(format!(
                "it keeps {what}, and this run is {}: name another file",
                self.what
            ));
        }
        if sources != SOURCES {
            return Ok(None);
        }
        let marks = Marks::from_text(marks).ok_or_else(foreign)?;
        Ok(Some(State {
            next,
            runs,
            failed,
            marks,
            ..self.clone()
        }))
    }

    /// Writes the file, if there is one. A run that cannot keep its state goes on, and says so.
    pub fn save(&self) {
        let Some(path) = &self.path else { return };
        let mut beside = path.clone().into_os_string();
        beside.push(".new");
        if let Err(e) = std::fs::write(&beside, self.text()).and_then(|()| std::fs::rename(&beside, path)) {
            eprintln!("{}: {e}", path.display());
        }
    }

    fn text(&self) -> String {
        let State {
            what,
            next,
            runs,
            failed,
            marks,
            ..
        } = self;
        format!("{SOURCES}\n{what}\n{next}\n{runs}\n{failed}\n{}\n", marks.to_text())
    }
}

/// What is in a file; nothing if there is none.
pub fn text_of(path: &Path) -> Result<Option<String>, String> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) if e.kind() == ErrorKind::InvalidData => Err(foreign()),
        Err(e) => Err(e.to_string()),
    }
}

/// Whether a line names sources or programs, as the first line of each state file does.
pub fn is_digest(line: &str) -> bool {
    line.len() == 16 && line.bytes().all(|b| b.is_ascii_hexdigit())
}

/// Why a file is left alone.
pub fn foreign() -> String {
    "this is no state file, and is left as it is".to_owned()
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

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> State {
        State {
            what: "seeds from 7".to_owned(),
            next: 9,
            runs: 2,
            failed: 1,
            ..State::default()
        }
    }

    #[test]
    fn a_state_comes_back_from_its_file() {
        let found = state()
            .parse(&state().text())
            .expect("a state file")
            .expect("of the same sources");
        assert_eq!((found.next, found.runs, found.failed), (9, 2, 1));
    }

    #[test]
    fn what_other_sources_have_done_begins_anew() {
        let text = state().text().replace(SOURCES, "0123456789abcdef");
        assert!(state().parse(&text).expect("a state file").is_none());
    }

    #[test]
    fn the_file_of_another_run_is_refused_and_both_are_named() {
        let text = state().text().replace("seeds from 7", "seeds from 8");
        let why = state().parse(&text).expect_err("it is of another run");
        assert!(why.contains("seeds from 7") && why.contains("seeds from 8"), "{why}");
    }

    #[test]
    fn what_is_no_state_file_is_refused() {
        for text in ["", "a letter\n", "0123456789abcdef\nseeds from 7\n1\n2\n"] {
            assert!(state().parse(text).is_err(), "{text:?}");
        }
        let no_sources = state().text().replace(SOURCES, "a letter of 16 b");
        assert!(state().parse(&no_sources).is_err());
    }
}
