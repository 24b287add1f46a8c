//! Transcripts: Markdown that is run. Each `## heading` is a test with a fresh session. A `python` block is
//! a cell; the blocks behind it say all that it comes to:
//!
//! - `out`: stdout, whole (control bytes as `\xNN`); `out-bytes N`: only its length;
//! - `err`: what stderr contains; `result`: the `repr` of the value;
//! - `error`: lines that the traceback has, in this order; `exit N`: the exit code;
//! - `table NAME ROWS`: a table that the cell binds, its columns and its preview;
//! - `display MIME`: something shown, with its text.
//!
//! What is not said must not be: no output, no value, no traceback, no table, nothing shown, and exit
//! code 0 (1 with an `error`). A line `Template: NAME` before the first heading names the template that a
//! file is for; such files run in machines alone.

use std::fmt::Write as _;
use std::path::Path;

use vmrepl_session::{Bundle, Table};

use crate::ground::{TEMPLATE, has_template, root};
use crate::lanes::{AgentLane, Lane, MachineLane, Outcome};

#[derive(Debug, Default)]
struct Transcript {
    /// File, line and heading.
    name: String,
    /// When it is not the usual one.
    template: Option<String>,
    steps: Vec<Step>,
}

#[derive(Debug, Default)]
struct Step {
    line: usize,
    code: String,
    out: String,
    out_bytes: Option<usize>,
    err: Vec<String>,
    result: Option<String>,
    error: Vec<String>,
    exit: Option<i64>,
    tables: Vec<String>,
    displays: Vec<String>,
}

#[test]
fn without_a_machine() {
    let transcripts = read_all(|template| template.is_none());
    run_all(&transcripts, |_| AgentLane::start().map(boxed));
}

#[test]
fn in_a_machine() {
    let transcripts = read_all(|template| template.is_none_or(has_template));
    run_all(&transcripts, |transcript| {
        MachineLane::start(transcript.template.as_deref().unwrap_or(TEMPLATE)).map(boxed)
    });
}

/// Runs all in lanes of another kind, each made for the template that a transcript is for.
pub(crate) fn in_lanes<L: Lane + 'static>(start: impl Fn(Option<&str>) -> L) {
    let transcripts = read_all(|template| template.is_none_or(has_template));
    run_all(&transcripts, |transcript| {
        Ok(boxed(start(transcript.template.as_deref())))
    });
}

fn boxed(lane: impl Lane + 'static) -> Box<dyn Lane> {
    Box::new(lane)
}

fn run_all(
    transcripts: &[Transcript],
    start: impl Fn(&Transcript) -> Result<Box<dyn Lane>, String>,
) {
    assert!(
        transcripts.len() > 20,
        "only {} were found",
        transcripts.len()
    );
    let mut failures = String::new();
    for transcript in transcripts {
        if let Err(why) = run_one(transcript, &start) {
            writeln!(failures, "{}: {why}", transcript.name).unwrap();
        }
    }
    assert!(failures.is_empty(), "\n{failures}");
}

fn run_one(
    transcript: &Transcript,
    start: &impl Fn(&Transcript) -> Result<Box<dyn Lane>, String>,
) -> Result<(), String> {
    let mut lane = start(transcript)?;
    for step in &transcript.steps {
        let outcome = lane
            .run(&step.code)
            .map_err(|why| format!("line {}: {why}", step.line))?;
        let differences = step.differences(&outcome);
        if !differences.is_empty() {
            let differences = differences.join("\n    ");
            return Err(format!("line {}\n    {differences}", step.line));
        }
    }
    Ok(())
}

impl Step {
    fn differences(&self, outcome: &Outcome) -> Vec<String> {
        let mut found = Vec::new();
        let stdout = shown(&outcome.stdout);
        match self.out_bytes {
            Some(bytes) if bytes == outcome.stdout.len() => {}
            Some(bytes) => found.push(format!(
                "stdout: {} bytes, not {bytes}",
                outcome.stdout.len()
            )),
            None if stdout == self.out => {}
            None => found.push(format!("stdout: {:?}, not {:?}", start(&stdout), self.out)),
        }
        let stderr_is_right = if self.err.is_empty() {
            outcome.stderr.is_empty()
        } else {
            self.err.iter().all(|text| outcome.stderr.contains(text))
        };
        if !stderr_is_right {
            found.push(format!(
                "stderr: {:?}, not {:?}",
                start(&outcome.stderr),
                self.err
            ));
        }
        if outcome.result != self.result {
            found.push(format!(
                "result: {:?}, not {:?}",
                outcome.result, self.result
            ));
        }
        let error = outcome.error.as_deref().unwrap_or("");
        if !has_lines(error, &self.error) || (self.error.is_empty() && !error.is_empty()) {
            found.push(format!("error: {error:?}, without {:?}", self.error));
        }
        let exit = self.exit.unwrap_or(i64::from(!self.error.is_empty()));
        if outcome.exit != exit {
            found.push(format!("exit: {}, not {exit}", outcome.exit));
        }
        let tables: Vec<_> = outcome.tables.iter().map(table_block).collect();
        if tables != self.tables {
            found.push(format!("tables: {tables:?}, not {:?}", self.tables));
        }
        let displays: Vec<_> = outcome.displays.iter().map(display_block).collect();
        if displays != self.displays {
            found.push(format!("displays: {displays:?}, not {:?}", self.displays));
        }
        found
    }

    fn expect(&mut self, kind: &str, body: &str) -> Result<(), String> {
        let lines = || body.lines().map(str::to_owned);
        let (kind, number) = kind.split_once(' ').unwrap_or((kind, ""));
        match kind {
            "out" => body.clone_into(&mut self.out),
            "out-bytes" => self.out_bytes = Some(parse(number)?),
            "err" => self.err.extend(lines()),
            "result" => self.result = Some(body.to_owned()),
            "error" => self.error.extend(lines()),
            "exit" => self.exit = Some(parse(number)?),
            "table" => self.tables.push(format!("{number}\n{body}")),
            "display" => self.displays.push(format!("{number}\n{body}")),
            _ => return Err(format!("no block is called {kind:?}")),
        }
        Ok(())
    }
}

/// A table as its block says it.
fn table_block(table: &Table) -> String {
    let rows = table
        .row_count
        .map_or("?".to_owned(), |rows| rows.to_string());
    format!("{} {rows}\n{}", table.name, table.preview)
}

/// What is shown as its block says it: by the richest form that it has.
fn display_block(bundle: &Bundle) -> String {
    let richest = ["image/png", "image/svg+xml", "text/html"]
        .into_iter()
        .find(|mime| bundle.get_str(mime).is_some_and(|data| !data.is_empty()));
    let mime = richest.unwrap_or("text/plain");
    format!("{mime}\n{}", bundle.text().unwrap_or(""))
}

fn parse<T: std::str::FromStr>(number: &str) -> Result<T, String> {
    number
        .parse()
        .map_err(|_| format!("{number:?} is no number"))
}

/// Whether the text has these lines in this order, others between them allowed.
fn has_lines(text: &str, wanted: &[String]) -> bool {
    let mut lines = text.lines();
    wanted
        .iter()
        .all(|wanted| lines.any(|line| line.contains(wanted.as_str())))
}

/// Output as a transcript writes it: without its last newline, control bytes visible.
fn shown(output: &str) -> String {
    let mut text = String::new();
    for character in output.strip_suffix('\n').unwrap_or(output).chars() {
        if character.is_control() && !"\n\t".contains(character) {
            write!(text, "\\x{:02x}", u32::from(character)).unwrap();
        } else {
            text.push(character);
        }
    }
    text
}

fn start(text: &str) -> String {
    text.chars().take(300).collect()
}

fn read_all(is_wanted: impl Fn(Option<&str>) -> bool) -> Vec<Transcript> {
    let folder = root().join("tests/transcripts");
    let mut paths: Vec<_> = folder
        .read_dir()
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    paths
        .iter()
        .flat_map(|path| read(path, &is_wanted))
        .collect()
}

fn read(path: &Path, is_wanted: impl Fn(Option<&str>) -> bool) -> Vec<Transcript> {
    let file = path.file_name().unwrap().to_string_lossy();
    let text = std::fs::read_to_string(path).unwrap();
    if !is_wanted(template_of(&text)) {
        return Vec::new();
    }
    parse_markdown(&file, &text).unwrap_or_else(|why| panic!("{file}: {why}"))
}

/// The template that a file is for, when it says one.
fn template_of(text: &str) -> Option<&str> {
    let before = text.lines().take_while(|line| !line.starts_with("## "));
    let mut named = before.filter_map(|line| line.strip_prefix("Template: "));
    named.next()
}

fn parse_markdown(file: &str, text: &str) -> Result<Vec<Transcript>, String> {
    let mut found: Vec<Transcript> = Vec::new();
    let mut lines = text.lines().enumerate();
    while let Some((at, line)) = lines.next() {
        let number = at + 1;
        if let Some(heading) = line.strip_prefix("## ") {
            found.push(Transcript {
                name: format!("{file}:{number} {heading}"),
                template: template_of(text).map(str::to_owned),
                steps: Vec::new(),
            });
        }
        let Some(kind) = line.strip_prefix("```") else {
            continue;
        };
        let body: Vec<&str> = lines
            .by_ref()
            .map(|(_, line)| line)
            .take_while(|line| *line != "```")
            .collect();
        let body = body.join("\n");
        let steps = &mut found
            .last_mut()
            .ok_or(format!("line {number}: no heading yet"))?
            .steps;
        if kind == "python" {
            steps.push(Step {
                line: number,
                code: body,
                ..Step::default()
            });
        } else {
            let step = steps
                .last_mut()
                .ok_or(format!("line {number}: no cell yet"))?;
            step.expect(kind, &body)
                .map_err(|why| format!("line {number}: {why}"))?;
        }
    }
    Ok(found)
}

#[test]
fn a_transcript_that_says_less_than_happened_fails() {
    let text = "## a\n```python\nx\n```\n```out\nhello\n```\n";
    let found = parse_markdown("t.md", text).unwrap();
    let mut outcome = Outcome {
        stdout: "hello\n".to_owned(),
        ..Outcome::default()
    };
    let step = &found[0].steps[0];
    assert_eq!(step.differences(&outcome), Vec::<String>::new());
    outcome.result = Some("1".to_owned());
    outcome.exit = 1;
    assert_eq!(step.differences(&outcome).len(), 2);
    outcome.displays.push(Bundle::default());
    assert_eq!(step.differences(&outcome).len(), 3);
    parse_markdown("t.md", "## a\n```out\n").unwrap_err();
    parse_markdown("t.md", "## a\n```python\n```\n```outt\n").unwrap_err();
}
