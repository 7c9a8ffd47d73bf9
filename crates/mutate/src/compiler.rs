//! What the compiler says of a tree.

use crate::failed::Failed;
use crate::tree::Tree;
use serde::Deserialize;
use std::ops::Range;
use std::process::Stdio;

/// An error of the compiler.
#[derive(Debug)]
pub struct CompileError {
    /// As in `E0277`; none for a lint's.
    pub code: String,
    pub text: String,
    /// File and bytes that it is about, the main ones.
    pub places: Vec<(String, Range<usize>)>,
}

#[derive(Deserialize)]
struct Line {
    message: Option<Message>,
}

#[derive(Deserialize)]
struct Message {
    level: String,
    message: String,
    code: Option<Code>,
    spans: Vec<Place>,
}

#[derive(Deserialize)]
struct Code {
    code: String,
}

#[derive(Deserialize)]
struct Place {
    file_name: String,
    byte_start: usize,
    byte_end: usize,
    is_primary: bool,
}

/// Checks the library of a package; no errors if it builds.
pub fn check(tree: &Tree, package: &str) -> Result<Vec<CompileError>, Failed> {
    let mut cargo = tree.cargo(&[
        "check",
        "--quiet",
        "--locked",
        "--lib",
        "-p",
        package,
        "--message-format=json",
    ]);
    let output = cargo.stderr(Stdio::null()).output();
    let output = output.map_err(|e| Failed(format!("cargo check did not start: {e}")))?;
    let errors = errors(&String::from_utf8_lossy(&output.stdout));
    if errors.is_empty() && !output.status.success() {
        return Err(Failed(format!(
            "cargo check in {} ended with {}",
            tree.dir.display(),
            output.status
        )));
    }
    Ok(errors)
}

fn errors(json: &str) -> Vec<CompileError> {
    let lines = json.lines().filter_map(|line| serde_json::from_str::<Line>(line).ok());
    let messages = lines.filter_map(|line| line.message);
    // The last one only counts the others.
    let errors = messages.filter(|m| m.level == "error" && !m.spans.is_empty());
    errors
        .map(|m| CompileError {
            code: m.code.map(|c| c.code).unwrap_or_default(),
            text: m.message,
            places: m
                .spans
                .into_iter()
                .filter(|s| s.is_primary)
                .map(|s| (s.file_name, s.byte_start..s.byte_end))
                .collect(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_read_and_warnings_are_not() {
        let json = r#"{"reason":"compiler-artifact"}
{"reason":"compiler-message","message":{"level":"warning","message":"w","code":null,"spans":[]}}
{"reason":"compiler-message","message":{"level":"error","message":"no","code":{"code":"E0277"},"spans":[
 {"file_name":"a.rs","byte_start":3,"byte_end":5,"is_primary":true},
 {"file_name":"a.rs","byte_start":0,"byte_end":9,"is_primary":false}]}}
{"reason":"compiler-message","message":{"level":"error","message":"aborting","code":null,"spans":[]}}"#;
        let json = json.replace(",\"spans\":[\n ", ",\"spans\":[").replace(",\n ", ",");
        let found = errors(&json);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].code, "E0277");
        assert_eq!(found[0].places, [("a.rs".to_owned(), 3..5)]);
    }
}
