//! What a command prints: tables and sentences for people, one JSON object for scripts.

use crate::exit::{Code, Failure};
use serde_json::{Map, Value};
use std::io::Write;

/// The number of the JSON shapes. It grows when a field goes away or changes its meaning, not when one is added.
pub const SCHEMA: u64 = 1;

/// What a command found or did, in both forms.
#[derive(Debug)]
pub struct Report {
    /// For people; may be empty.
    pub text: String,
    /// For scripts: the fields beside `schema`.
    pub fields: Map<String, Value>,
    /// What else is to be said, and the exit code that goes with it.
    pub failure: Option<Failure>,
}

impl Report {
    /// A report of one field.
    pub fn new(text: impl Into<String>, field: &str, value: impl serde::Serialize) -> Report {
        let fields = Map::from_iter([(field.to_owned(), json(value))]);
        Report {
            text: text.into(),
            fields,
            failure: None,
        }
    }

    /// A report of a structure's fields.
    pub fn of(text: impl Into<String>, value: impl serde::Serialize) -> Report {
        let Value::Object(fields) = json(value) else {
            unreachable!("reports are structures")
        };
        Report {
            text: text.into(),
            fields,
            failure: None,
        }
    }
}

fn json(value: impl serde::Serialize) -> Value {
    serde_json::to_value(value).expect("our own types have string keys, so they are JSON")
}

/// Prints the result of a command and says how the process ends.
pub fn print(result: Result<Report, Failure>, as_json: bool) -> Code {
    let report = result.unwrap_or_else(|failure| Report {
        text: String::new(),
        fields: Map::new(),
        failure: Some(failure),
    });
    let code = report.failure.as_ref().map_or(Code::Done, |f| f.code);
    let mut out = std::io::stdout().lock();
    // A reader that went away (`twincell status | head -1`) is not an error of ours.
    if as_json {
        let _ = writeln!(out, "{:#}", Value::Object(object(&report)));
        return code;
    }
    let _ = out.write_all(report.text.as_bytes());
    let _ = out.flush();
    if let Some(failure) = &report.failure {
        let _ = writeln!(std::io::stderr(), "twincell: {failure}");
    }
    code
}

fn object(report: &Report) -> Map<String, Value> {
    let mut object = Map::from_iter([("schema".to_owned(), SCHEMA.into())]);
    object.extend(report.fields.clone());
    if let Some(failure) = &report.failure {
        object.insert("error".to_owned(), failure.what.clone().into());
        object.insert("code".to_owned(), (failure.code as u8).into());
        if !failure.next.is_empty() {
            object.insert("next".to_owned(), failure.next.clone().into());
        }
    }
    object
}

/// Lines up `rows` under `head`.
pub fn table<const N: usize>(head: [&str; N], rows: &[[String; N]]) -> String {
    let mut width = head.map(|h| h.chars().count());
    for row in rows {
        for (w, cell) in width.iter_mut().zip(row) {
            *w = (*w).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for row in std::iter::once(head.map(str::to_owned)).chain(rows.iter().cloned()) {
        let line: String = row.iter().zip(width).map(|(cell, w)| format!("{cell:w$}  ")).collect();
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_lines_up() {
        let rows = [["a".to_owned(), "1G".to_owned()], ["longer".to_owned(), "2".to_owned()]];
        assert_eq!(table(["NAME", "SIZE"], &rows), "NAME    SIZE\na       1G\nlonger  2\n");
    }

    #[test]
    fn an_error_is_an_object_with_its_code_and_the_schema() {
        let failure = Failure::new(Code::NotFound, "there is no LUN x").next("look");
        let report = Report {
            text: String::new(),
            fields: Map::new(),
            failure: Some(failure),
        };
        let expected = serde_json::json!({ "schema": 1, "error": "there is no LUN x", "code": 3, "next": "look" });
        assert_eq!(Value::Object(object(&report)), expected);
    }
}
