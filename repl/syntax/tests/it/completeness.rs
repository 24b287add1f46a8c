//! The host's answers against the guest's own: a table of cells, and functions as they grow line by line.

use crate::{python, table};
use vmrepl_syntax::{Completeness, completeness};

const FUNCTIONS_MIN: usize = 300;
const UNSURE_MAX_PERCENT: usize = 5;

/// The guest's word: a status and an indent.
type Told = (String, String);

fn told_by_guest(texts: &[String]) -> Vec<Told> {
    let folder = python::root();
    let script = folder.join("repl/syntax/tests/it/python/is_complete.py");
    let runner = folder.join("runner-py/runner");
    let arguments = ["-B".as_ref(), script.as_path(), runner.as_path()];
    let input = serde_json::json!(texts).to_string() + "\n";
    let told: Vec<Told> =
        serde_json::from_str(&python::run(&arguments, input)).expect("a JSON list");
    assert_eq!(told.len(), texts.len(), "an answer a text");
    told
}

fn ours(text: &str) -> Option<Told> {
    let (status, indent) = match completeness(text) {
        Completeness::Complete => ("complete", String::new()),
        Completeness::Incomplete { indent } => ("incomplete", indent),
        Completeness::Invalid(fault) => {
            assert!(
                text.get(..fault.offset).is_some(),
                "a fault outside of {text:?}: {fault:?}"
            );
            assert!(
                fault.line >= 1 && fault.column >= 1 && !fault.message.is_empty(),
                "{fault:?}"
            );
            ("invalid", String::new())
        }
        Completeness::Unsure => return None,
    };
    Some((status.to_owned(), indent))
}

/// Compares all answers; returns the texts of which the host is unsure.
fn compare(texts: &[String]) -> Vec<&String> {
    let mut unsure = Vec::new();
    let mut different = Vec::new();
    for (text, theirs) in texts.iter().zip(told_by_guest(texts)) {
        match ours(text) {
            None => unsure.push(text),
            Some(ours) if ours == theirs => {}
            Some(ours) => different.push(format!("{text:?}: we {ours:?}, the guest {theirs:?}")),
        }
    }
    assert!(
        different.is_empty(),
        "{} of {} answers differ:\n{}",
        different.len(),
        texts.len(),
        different[..different.len().min(20)].join("\n")
    );
    unsure
}

#[test]
fn the_table() {
    let texts: Vec<String> = table::CELLS
        .iter()
        .map(|(text, _)| (*text).to_owned())
        .collect();
    let surprises: Vec<String> = table::CELLS
        .iter()
        .filter_map(|(text, expected)| {
            let told = ours(text);
            let status = told.as_ref().map_or("unsure", |(status, _)| status);
            (status != *expected).then(|| format!("{text:?}: {status} instead of {expected}"))
        })
        .collect();
    assert!(surprises.is_empty(), "{}", surprises.join("\n"));
    compare(&texts);
}

/// Functions and classes of the standard library.
fn functions() -> Vec<String> {
    let library = python::library();
    let all = python::files_below(&library);
    let step = (all.len() / 250).max(1);
    let files: String = all
        .iter()
        .step_by(step)
        .map(|path| format!("{}\n", path.display()))
        .collect();
    let script = python::root().join("repl/syntax/tests/it/python/functions.py");
    let functions: Vec<String> =
        serde_json::from_str(&python::run(&["-B".as_ref(), &script], files)).expect("a JSON list");
    assert!(
        functions.len() >= FUNCTIONS_MIN,
        "only {} functions",
        functions.len()
    );
    functions
}

/// Cells as they grow at a terminal: at each Enter the text so far, without and with an empty last line.
#[test]
fn growing_functions() {
    let functions = functions();
    let mut texts = Vec::new();
    for function in &functions {
        for (end, _) in function.match_indices('\n') {
            texts.push(function[..end].to_owned());
            texts.push(function[..=end].to_owned());
        }
        texts.push(function.clone());
        texts.push(format!("{function}\n"));
    }
    let unsure = compare(&texts);
    println!(
        "{} texts of {} functions: unsure of {} ({:.2} %)",
        texts.len(),
        functions.len(),
        unsure.len(),
        100.0 * unsure.len() as f64 / texts.len() as f64
    );
    assert!(
        unsure.len() * 100 <= texts.len() * UNSURE_MAX_PERCENT,
        "unsure of {unsure:#?}"
    );
}

/// The same with a line missing, a character missing, or Enter pressed in the middle of a line.
#[test]
fn damaged_functions() {
    let mut texts = Vec::new();
    for function in functions() {
        let ends = function.match_indices('\n').map(|(end, _)| end);
        let starts: Vec<usize> = std::iter::once(0).chain(ends.map(|end| end + 1)).collect();
        for lines in starts.windows(2) {
            let (start, end) = (lines[0], lines[1]);
            let middle = function.floor_char_boundary(start + (end - start) / 2);
            let next = function.ceil_char_boundary(middle + 1);
            texts.push(format!("{}{}", &function[..start], &function[end..]));
            texts.push(format!("{}{}", &function[..middle], &function[next..]));
            texts.push(function[..middle].to_owned());
            texts.push(function[middle..].to_owned());
        }
    }
    let unsure = compare(&texts);
    println!("{} damaged texts: unsure of {}", texts.len(), unsure.len());
}

/// The cells of the table, broken at every character.
#[test]
fn cut_and_broken_lines() {
    let mut texts = Vec::new();
    for (text, _) in table::CELLS {
        for (at, character) in text.char_indices() {
            texts.push(text[..at].to_owned());
            texts.push(text[at..].to_owned());
            texts.push(format!(
                "{}{}",
                &text[..at],
                &text[at + character.len_utf8()..]
            ));
            texts.push(format!("{}\n{}", &text[..at], &text[at..]));
            texts.push(format!("{}:\n{}", &text[..at], &text[at..]));
            texts.push(format!("{}({}", &text[..at], &text[at..]));
            texts.push(format!("{}){}", &text[..at], &text[at..]));
            texts.push(format!("{}'{}", &text[..at], &text[at..]));
        }
    }
    texts.sort();
    texts.dedup();
    let unsure = compare(&texts);
    println!("{} broken texts: unsure of {}", texts.len(), unsure.len());
}
