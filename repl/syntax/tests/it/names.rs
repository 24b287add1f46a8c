//! The host's names against the guest's own, over the standard library and our hard cases.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::python;
use vmrepl_syntax::{Names, completeness, names, spans};

const FILES_MIN: usize = 500;
const UNKNOWN_MAX_PERCENT: usize = 2;

/// How one parser did.
#[derive(Debug, Default)]
struct Tally {
    /// Files that Python parses.
    valid: usize,
    equal: usize,
    unknown: Vec<PathBuf>,
    different: Vec<String>,
    /// Files that Python does not parse, and the host does.
    bold: usize,
}

impl Tally {
    fn count(&mut self, path: &Path, ours: Option<&Names>, theirs: Option<&BTreeSet<String>>) {
        let Some(theirs) = theirs else {
            self.bold += usize::from(ours.is_some());
            return;
        };
        self.valid += 1;
        match ours {
            None => self.unknown.push(path.to_owned()),
            Some(ours) if ours.bound == *theirs => self.equal += 1,
            Some(ours) => {
                let extra: Vec<_> = ours.bound.difference(theirs).take(5).collect();
                let missing: Vec<_> = theirs.difference(&ours.bound).take(5).collect();
                self.different.push(format!(
                    "{}: extra {extra:?}, missing {missing:?}",
                    path.display()
                ));
            }
        }
    }

    fn summary(&self, backend: &str) -> String {
        let mut lines = vec![format!(
            "{backend}: of {} files that Python parses {} agree, the host cannot tell {}, {} differ; it parses {} that \
             Python does not",
            self.valid,
            self.equal,
            self.unknown.len(),
            self.different.len(),
            self.bold
        )];
        lines.extend(
            self.unknown
                .iter()
                .map(|path| format!("  cannot tell: {}", path.display())),
        );
        lines.join("\n")
    }
}

fn cases() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases")
}

/// The guest's word on each file; `None` for what it does not parse.
fn told_by_guest(files: &[PathBuf]) -> Vec<Option<BTreeSet<String>>> {
    let script = python::root().join("runner-py/tests/names_of.py");
    let list: String = files
        .iter()
        .map(|path| format!("{}\n", path.display()))
        .collect();
    let answers: Vec<_> = python::run(&["-B".as_ref(), &script], list)
        .lines()
        .map(|line| serde_json::from_str(line).expect("a JSON list a line"))
        .collect();
    assert_eq!(answers.len(), files.len(), "an answer a file");
    answers
}

fn compare(files: &[PathBuf], backend: fn(&str) -> Option<Names>) -> Tally {
    let mut tally = Tally::default();
    for (path, theirs) in files.iter().zip(told_by_guest(files)) {
        // The rest is no UTF-8: a cell is text already.
        if let Ok(source) = fs::read_to_string(path) {
            tally.count(path, backend(&source).as_ref(), theirs.as_ref());
        }
    }
    tally
}

#[test]
fn the_library_binds_the_same_names() {
    let library = python::library();
    let mut files = python::files_below(&library);
    println!("{} files in {}", files.len(), library.display());
    assert!(
        files.len() >= FILES_MIN,
        "only {} Python files in {}: fewer than {FILES_MIN} prove little",
        files.len(),
        library.display()
    );
    files.extend(python::files_below(&cases()));
    let tally = compare(&files, names);
    println!("{}", tally.summary("default parser"));
    assert!(
        tally.different.is_empty(),
        "names differ:\n{}",
        tally.different.join("\n")
    );
    assert!(
        tally.unknown.len() * 100 <= tally.valid * UNKNOWN_MAX_PERCENT,
        "the host cannot tell {} of {} files",
        tally.unknown.len(),
        tally.valid
    );
}

#[cfg(feature = "rustpython")]
#[test]
fn the_second_parser_binds_the_same_names() {
    let mut files = python::files_below(&python::library());
    files.extend(python::files_below(&cases()));
    let tally = compare(&files, vmrepl_syntax::rustpython::names);
    println!("{}", tally.summary("rustpython"));
    assert!(
        tally.different.is_empty(),
        "names differ:\n{}",
        tally.different.join("\n")
    );
}

/// Each case says in its first lines what it binds and deletes, so that it needs no Python to be checked.
#[test]
fn the_cases_say_what_they_bind() {
    let files = python::files_below(&cases());
    assert!(!files.is_empty());
    for path in files {
        let source = fs::read_to_string(&path).unwrap();
        let list = |key: &str| -> BTreeSet<String> {
            let line = source.lines().find_map(|line| line.strip_prefix(key));
            line.unwrap_or_default()
                .split_whitespace()
                .map(str::to_owned)
                .collect()
        };
        let found = names(&source).unwrap_or_else(|| panic!("{}: cannot tell", path.display()));
        assert_eq!(found.bound, list("# binds:"), "{}", path.display());
        assert_eq!(found.deleted, list("# deletes:"), "{}", path.display());
        assert_eq!(
            found.star,
            source.contains("import *"),
            "{}",
            path.display()
        );
    }
}

/// Deleted names and stars too are the guest's, over the cases.
#[test]
fn the_guest_agrees_on_the_cases() {
    let files = python::files_below(&cases());
    let script = python::root().join("repl/syntax/tests/it/python/names.py");
    let runner = python::root().join("runner-py/runner");
    let list: String = files
        .iter()
        .map(|path| format!("{}\n", path.display()))
        .collect();
    let answers = python::run(&["-B".as_ref(), &script, &runner], list);
    let mut compared = 0;
    for (path, answer) in files.iter().zip(answers.lines()) {
        let told: Option<(BTreeSet<String>, BTreeSet<String>, bool)> =
            serde_json::from_str(answer).unwrap();
        if let Some((bound, deleted, star)) = told {
            let ours = names(&fs::read_to_string(path).unwrap());
            assert_eq!(
                ours,
                Some(Names {
                    bound,
                    deleted,
                    star
                }),
                "{}",
                path.display()
            );
            compared += 1;
        }
    }
    // All but the cases with syntax that this Python may not know.
    assert!(
        compared >= files.len() - 2,
        "only {compared} of {} cases",
        files.len()
    );
}

/// Whatever Python thinks of a file, no question about it takes the host down.
#[test]
fn every_file_can_be_asked_about() {
    for path in python::files_below(&python::library()) {
        let source = String::from_utf8_lossy(&fs::read(&path).unwrap()).into_owned();
        // `Unsure` is a fair answer: that it comes is what counts.
        std::hint::black_box(completeness(&source));
        let mut at = 0;
        for span in spans(&source) {
            assert!(
                span.range.start >= at && span.range.end > span.range.start,
                "{}",
                path.display()
            );
            assert!(
                source.get(span.range.clone()).is_some(),
                "{}",
                path.display()
            );
            at = span.range.end;
        }
    }
}
