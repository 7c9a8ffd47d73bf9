//! Format, lint, licences, and what does not belong into the sources.

use crate::run::{Failed, cargo, headline, output, step};
use std::path::Path;
use std::process::Command;

/// Checks all of it.
pub fn tidy() -> Result<(), Failed> {
    headline("Format and lint");
    step(&mut cargo(["fmt", "--all", "--check"]))?;
    step(&mut cargo([
        "clippy",
        "--quiet",
        "--locked",
        "--workspace",
        "--all-targets",
        "--",
        "-D",
        "warnings",
    ]))?;
    step(&mut cargo([
        "fmt",
        "--check",
        "--manifest-path=crates/model/Cargo.toml",
    ]))?;
    step(&mut cargo([
        "clippy",
        "--quiet",
        "--locked",
        "--manifest-path=crates/model/Cargo.toml",
        "--target-dir=target/model",
        "--all-targets",
        "--",
        "-D",
        "warnings",
    ]))?;
    headline("Licences and sources of dependencies");
    step(&mut cargo([
        "deny",
        "--log-level",
        "error",
        "check",
        "bans",
        "licenses",
        "sources",
    ]))?;
    headline("Words and keywords");
    words()
}

/// What no source has, and why. Written in two parts, so that this file has none of it either.
const WORDS: [([&str; 2], &str); 7] = [
    (["todo", "!("], "unfinished"),
    (["unimplemented", "!("], "unfinished"),
    (["dbg", "!("], "left over from a search for a bug"),
    (["FIX", "ME"], "say it in an issue"),
    (["TO", "DO"], "say it in an issue"),
    (["XX", "X:"], "say it in an issue"),
    (["#[ig", "nore"], "a test that does not run proves nothing"),
];
/// Where `unsafe` may be.
const UNSAFE: &str = "crates/engine/";

fn words() -> Result<(), Failed> {
    let files = output(Command::new("git").args(["ls-files", "--cached", "--others", "--exclude-standard"]))?;
    let mut found = Vec::new();
    for file in files.lines().filter(|f| f.ends_with(".rs") && Path::new(f).is_file()) {
        let text = std::fs::read_to_string(file).map_err(|e| Failed(format!("{file}: {e}")))?;
        for (number, line) in text.lines().enumerate() {
            found.extend(complaints(file, line).map(|why| format!("{file}:{}: {why}: {}", number + 1, line.trim())));
        }
    }
    if found.is_empty() {
        return Ok(());
    }
    Err(Failed(found.join("\n")))
}

/// What is wrong with a line.
fn complaints(file: &str, line: &str) -> impl Iterator<Item = String> {
    let words = WORDS.iter().filter(|(word, _)| line.contains(&word.concat()));
    let words = words
        .map(|(word, why)| format!("`{}` ({why})", word.concat()))
        .collect::<Vec<_>>();
    let code = line.split("//").next().unwrap_or_default();
    let keyword = ["unsa", "fe "].concat();
    let misplaced = !file.starts_with(UNSAFE) && code.split_inclusive(' ').any(|w| w.trim_start() == keyword);
    words
        .into_iter()
        .chain(misplaced.then(|| format!("`{}` outside {UNSAFE}", keyword.trim())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(file: &str, line: &str) -> usize {
        complaints(file, line).count()
    }

    #[test]
    fn what_does_not_belong_is_found() {
        assert_eq!(count("crates/core/src/a.rs", &["    to", "do!()"].concat()), 1);
        assert_eq!(
            count("crates/core/src/a.rs", &["let x = uns", "afe { f() };"].concat()),
            1
        );
        assert_eq!(
            count("crates/engine/src/a.rs", &["let x = uns", "afe { f() };"].concat()),
            0
        );
        assert_eq!(count("crates/core/src/a.rs", "// this is not unsafe at all"), 0);
        assert_eq!(count("crates/core/src/a.rs", "let todos = 3;"), 0);
    }
}
