//! What was found so far, in a file, so that a run that was interrupted goes on.

use crate::failed::{Failed, at};
use crate::hunt::{Outcome, Seen};
use std::collections::BTreeMap;
use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;
use std::path::Path;

/// The outcomes, by the names of the mutants.
pub struct State {
    file: File,
    pub found: BTreeMap<String, Outcome>,
}

/// A word for what the file counts for.
pub fn key<'p>(files: impl Iterator<Item = &'p Path>, settings: impl Hash) -> Result<String, Failed> {
    let mut hasher = DefaultHasher::new();
    settings.hash(&mut hasher);
    for file in files {
        std::fs::read(file).map_err(at(file))?.hash(&mut hasher);
    }
    Ok(format!("{:016x}", hasher.finish()))
}

/// What a file has, whatever it counts for.
pub fn known(path: &Path) -> BTreeMap<String, Outcome> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().skip(1).filter_map(parse).collect()
}

impl State {
    /// What the file has, if it was written for the same key. Otherwise it begins anew; with `keep`, only those that were
    /// missed do.
    pub fn load(path: &Path, key: &str, keep: bool) -> Result<State, Failed> {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let head = text.lines().next();
        let mut found = known(path);
        if keep {
            found.retain(|_, outcome| !matches!(outcome, Outcome::Missed(..)));
        } else if head != Some(key) {
            found.clear();
        }
        let mut file = File::create(path).map_err(at(path))?;
        let known: String = found.iter().map(|(name, outcome)| line(name, outcome)).collect();
        file.write_all(format!("{key}\n{known}").as_bytes()).map_err(at(path))?;
        Ok(State { file, found })
    }

    /// Keeps an outcome.
    pub fn keep(&mut self, name: &str, outcome: Outcome) -> Result<(), Failed> {
        let written = self.file.write_all(line(name, &outcome).as_bytes());
        written.map_err(|e| Failed(format!("the state: {e}")))?;
        self.found.insert(name.to_owned(), outcome);
        Ok(())
    }
}

fn line(name: &str, outcome: &Outcome) -> String {
    let (word, by) = match outcome {
        Outcome::Caught(by) => ("caught", by.clone()),
        Outcome::Missed(Seen::Unreached, checks) => ("unreached", checks.to_string()),
        Outcome::Missed(Seen::Same, checks) => ("same", checks.to_string()),
        Outcome::Missed(Seen::Different, checks) => ("different", checks.to_string()),
        Outcome::DoesNotBuild => ("broken", String::new()),
        Outcome::NotCompiled => ("absent", String::new()),
    };
    format!("{word}\t{name}\t{by}\n")
}

fn parse(line: &str) -> Option<(String, Outcome)> {
    let (word, rest) = line.split_once('\t')?;
    let (name, by) = rest.split_once('\t')?;
    let missed = |seen| Some(Outcome::Missed(seen, by.parse().ok()?));
    let outcome = match word {
        "caught" => Outcome::Caught(by.to_owned()),
        "unreached" => missed(Seen::Unreached)?,
        "same" => missed(Seen::Same)?,
        "different" => missed(Seen::Different)?,
        "broken" => Outcome::DoesNotBuild,
        "absent" => Outcome::NotCompiled,
        _ => return None,
    };
    Some((name.to_owned(), outcome))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_kept_is_found_again_for_the_same_key() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("state");
        let caught = Outcome::Caught("seed 3: a read".to_owned());
        let missed = Outcome::Missed(Seen::Different, 3);
        let mut state = State::load(&path, "k", false).expect("a state");
        state.keep("a", caught.clone()).expect("kept");
        state.keep("b", missed.clone()).expect("kept");
        let again = State::load(&path, "k", false).expect("a state").found;
        assert_eq!(
            again,
            BTreeMap::from([("a".to_owned(), caught.clone()), ("b".to_owned(), missed)])
        );
        let survivors = State::load(&path, "other", true).expect("a state").found;
        assert_eq!(survivors, BTreeMap::from([("a".to_owned(), caught)]));
        assert!(State::load(&path, "third", false).expect("a state").found.is_empty());
    }
}
