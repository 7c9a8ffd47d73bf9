//! The list of mutants: what cargo-mutants would build, one after the other.

use crate::failed::{Failed, output};
use serde::Deserialize;
use std::path::Path;
use std::process::Command;

/// What kind of change a mutant is.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Hash)]
pub enum Genre {
    /// A function returns a fixed value.
    FnValue,
    /// `==` becomes `!=`, and so on.
    BinaryOperator,
    /// `!` or `-` is taken away.
    UnaryOperator,
    /// An arm of a `match` with a catch-all is taken away.
    MatchArm,
    /// The guard of an arm becomes a fixed value.
    MatchArmGuard,
    /// A field of a struct expression is taken from its base.
    StructField,
}

/// A place in a file as cargo-mutants tells it: both count from one, columns in characters.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    pub line: usize,
    pub column: usize,
}

/// From the first character to behind the last.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct Span {
    pub start: Place,
    pub end: Place,
}

/// The function that a mutant is in.
#[derive(Clone, Debug, Deserialize)]
pub struct Function {
    pub return_type: String,
}

/// A mutant of cargo-mutants.
#[derive(Clone, Debug, Deserialize)]
pub struct Mutant {
    /// Place and change in words; no two mutants have the same.
    pub name: String,
    /// From the root of the workspace.
    pub file: String,
    /// None in a constant.
    pub function: Option<Function>,
    pub genre: Genre,
    pub replacement: String,
    /// What is replaced.
    pub span: Span,
    /// What it is switched on by; from one.
    #[serde(skip)]
    pub number: u32,
}

/// All mutants of a package.
pub fn mutants(root: &Path, package: &str) -> Result<Vec<Mutant>, Failed> {
    let mut command = Command::new("cargo");
    command.args(["mutants", "--list", "--json", "--package", package]);
    parse(&output(command.current_dir(root))?)
}

fn parse(json: &str) -> Result<Vec<Mutant>, Failed> {
    let mut list: Vec<Mutant> =
        serde_json::from_str(json).map_err(|e| Failed(format!("the list of cargo-mutants: {e}")))?;
    for (at, mutant) in list.iter_mut().enumerate() {
        mutant.number = at as u32 + 1;
    }
    Ok(list)
}

/// Where a place is in a text, in bytes.
pub fn offset(text: &str, place: Place) -> usize {
    let before: usize = text.split_inclusive('\n').take(place.line - 1).map(str::len).sum();
    let line = &text[before..];
    let within = line
        .char_indices()
        .nth(place.column - 1)
        .map_or(line.len(), |(at, _)| at);
    before + within
}

impl Mutant {
    /// The text with this mutant in it for good, as cargo-mutants builds it.
    pub fn applied_to(&self, text: &str) -> String {
        let (start, end) = (offset(text, self.span.start), offset(text, self.span.end));
        format!("{}{} {}", &text[..start], self.replacement, &text[end..])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_counts_lines_and_characters_from_one() {
        let text = "a\nöb = c\n";
        assert_eq!(&text[offset(text, Place { line: 2, column: 2 })..], "b = c\n");
        assert_eq!(offset(text, Place { line: 1, column: 1 }), 0);
    }

    #[test]
    fn what_cargo_mutants_lists_is_read_and_applied() {
        let json = r#"[{"name": "n", "file": "a.rs", "package": "p", "function": null, "genre": "BinaryOperator",
            "replacement": "!=", "span": {"start": {"line": 1, "column": 3}, "end": {"line": 1, "column": 5}}}]"#;
        let list = parse(json).expect("a list");
        assert_eq!(list[0].number, 1);
        assert_eq!(list[0].applied_to("a == b"), "a !=  b");
    }
}
