//! Cells that are no Python: `!` and a command line runs in the guest's shell; `%%`, the name of a language and a program below
//! compile and run that. Both run in the user's home, as the user.

use std::str::FromStr as _;
use std::time::Instant;

use vmrepl_wire::cell::{Answer, Event, Output, Status};
use vmrepl_wire::exec::{ExecEnd, ExecLimits, ExecSource, ExecStart};
use vmrepl_wire::files::FilesOp;
use vmrepl_wire::languages::Language;

use crate::cell::{Cell, Sink};
use crate::cell_limits::milliseconds;
use crate::error::SessionError;
use crate::exec::{ExecEnded, ExecEvent};
use crate::session::Session;

/// What a cell that is no Python says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command<'a> {
    /// `!`: a command line.
    Shell(&'a str),
    /// `%%`: a program in another language.
    Program {
        /// What it is written in.
        language: Language,
        /// What stands behind the language's name, as a shell splits it.
        arguments: Vec<String>,
        /// All lines below.
        code: &'a str,
    },
    /// `%%` and a first line that cannot be understood.
    Unknown {
        /// The line.
        line: &'a str,
        /// What is wrong with it.
        why: String,
    },
}

/// What a cell says when it is no Python. No Python begins so.
#[must_use]
pub fn command_of(code: &str) -> Option<Command<'_>> {
    let text = code.trim_start();
    if let Some(line) = text.strip_prefix('!') {
        return Some(Command::Shell(line.trim()));
    }
    let text = text.strip_prefix("%%")?;
    let (line, code) = text.split_once('\n').unwrap_or((text, ""));
    let unknown = |why: &str| Command::Unknown {
        line: line.trim_end(),
        why: why.to_owned(),
    };
    let Some(mut words) = shlex::split(line) else {
        return Some(unknown("a quote does not end"));
    };
    let name = match words.is_empty() {
        true => String::new(),
        false => words.remove(0),
    };
    Some(match Language::from_str(&name) {
        Ok(language) => Command::Program {
            language,
            arguments: words,
            code,
        },
        Err(error) => unknown(&error.to_string()),
    })
}

/// A cell that holds a program of this language, with its arguments.
#[must_use]
pub fn program_cell(language: Language, arguments: &[String], code: &str) -> String {
    let words = arguments.iter().map(String::as_str);
    // A zero byte, which no argument holds.
    let line = shlex::try_join(words).unwrap_or_default();
    let gap = if line.is_empty() { "" } else { " " };
    format!("%%{language}{gap}{line}\n{code}")
}

/// Whether a cell of the record is no code but what else was done to the machine: see
/// [`begin_aside`](Session::begin_aside).
#[must_use]
pub fn is_aside(code: &str) -> bool {
    code.starts_with(':')
}

impl Session {
    /// Runs a command as a cell: its output is the cell's, its exit code the answer's.
    pub(crate) fn run_command(
        &mut self,
        id: &str,
        command: &Command<'_>,
        cell: &Cell,
        sink: &mut dyn Sink,
    ) -> Result<Answer, SessionError> {
        let began = Instant::now();
        let Some(op) = self.order_of(command, cell) else {
            return Ok(unknown(id, command, cell));
        };
        self.running.check()?;
        let mut exec = self.exec_op(op)?;
        if let Some(feed) = cell.feed {
            let inputs = exec.inputs();
            // Ends with the input, or with the process.
            let _detached = std::thread::spawn(move || feed(&inputs));
        }
        self.running.set_program(id, exec.inputs());
        let mut left = self.limits.output_bytes.unwrap_or(u64::MAX);
        let heard = loop {
            if self.running.is_given_up() {
                break Ok(None);
            }
            let (event, mut bytes): (fn(Output) -> Event, _) = match exec.hear() {
                Ok(ExecEvent::Quiet) => continue,
                Ok(ExecEvent::Ended(ended)) => break Ok(Some(ended)),
                Ok(ExecEvent::Stdout(bytes)) => (Event::Stdout, bytes),
                Ok(ExecEvent::Stderr(bytes)) => (Event::Stderr, bytes),
                Err(error) => break Err(error),
            };
            let rest = left.checked_sub(bytes.len() as u64);
            if rest.is_none() {
                // It fits in memory, as the longer one did.
                bytes.truncate(usize::try_from(left).unwrap_or(usize::MAX));
            }
            if !bytes.is_empty() {
                sink.event(&event(Output::new(Some(id.to_owned()), bytes)));
            }
            match rest {
                Some(rest) => left = rest,
                None => break Ok(None),
            }
        };
        let was_interrupted = self.running.was_interrupted();
        self.running.set(None);
        drop(exec);
        let mut answer = match heard? {
            Some(ended) => answer(&ended, was_interrupted),
            None if self.running.is_given_up() => return Err(SessionError::Stopped),
            None => Answer {
                exit_code: 1,
                status: Some(Status::OutputExceeded),
                error: Some("the command was stopped: it wrote more than it may".to_owned()),
                ..Answer::default()
            },
        };
        answer.id = Some(id.to_owned());
        answer.execution_count = cell.number.map(u64::from);
        let run_ms = began.elapsed().as_secs_f64() * 1000.0;
        answer.timing = Some([("run_ms".to_owned(), run_ms)].into());
        Ok(answer)
    }

    /// What to ask the guest for; nothing when the command is none.
    fn order_of(&self, command: &Command<'_>, cell: &Cell) -> Option<FilesOp> {
        let timeout = cell.timeout.or(self.limits.time);
        let start = ExecStart {
            stdin: cell.feed.is_some(),
            timeout: timeout.map(|time| time.as_secs_f64()),
            limits: ExecLimits {
                cpu_ms: self.limits.cpu.map(milliseconds),
                memory_bytes: self.limits.memory_bytes,
                processes: self.limits.processes,
                ..ExecLimits::default()
            },
            ..ExecStart::default()
        };
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        Some(match command {
            Command::Unknown { .. } => return None,
            Command::Shell(line) => FilesOp::Exec(ExecStart {
                command: words(&["/bin/sh", "-c", line]),
                ..start
            }),
            Command::Program {
                language,
                arguments,
                code,
            } => FilesOp::ExecSource(ExecSource {
                language: *language,
                code: (*code).to_owned(),
                start: ExecStart {
                    command: arguments.clone(),
                    ..start
                },
            }),
        })
    }
}

fn unknown(id: &str, command: &Command<'_>, cell: &Cell) -> Answer {
    let error = match command {
        Command::Unknown { line, why } => format!("%%{line}: {why}"),
        Command::Shell(_) | Command::Program { .. } => String::new(),
    };
    Answer {
        id: Some(id.to_owned()),
        execution_count: cell.number.map(u64::from),
        exit_code: USAGE,
        status: Some(Status::Error),
        error: Some(error),
        ..Answer::default()
    }
}

/// The code of a cell that could not be understood.
const USAGE: i32 = 2;

fn answer(ended: &ExecEnded, was_interrupted: bool) -> Answer {
    let (status, error) = match (ended.end, ended.exit_code) {
        (ExecEnd::TimedOut, _) => (Status::Timeout, Some("the command ran out of time")),
        (ExecEnd::CpuExceeded, _) => (
            Status::Timeout,
            Some("the command used its processor time up"),
        ),
        (ExecEnd::MemoryExceeded, _) => (
            Status::MemoryExceeded,
            Some("the command took more memory than it may"),
        ),
        (ExecEnd::CompilationFailed, _) => (Status::Error, Some("the compiler refused it")),
        (_, 0) => (Status::Ok, None),
        _ if was_interrupted => (Status::Interrupted, None),
        _ => (Status::Error, None),
    };
    Answer {
        exit_code: ended.exit_code,
        status: Some(status),
        error: error.map(str::to_owned),
        ..Answer::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_begins_with_an_exclamation_mark() {
        assert_eq!(command_of("!ls -l\n"), Some(Command::Shell("ls -l")));
        assert_eq!(command_of("\n  !a\nb"), Some(Command::Shell("a\nb")));
        assert_eq!(command_of("x != 1"), None);
        assert_eq!(command_of("x %% 1"), None);
    }

    #[test]
    fn a_program_begins_with_its_language() {
        let program = |language, arguments: &[&str], code| {
            Some(Command::Program {
                language,
                arguments: arguments.iter().map(|word| (*word).to_owned()).collect(),
                code,
            })
        };
        let cell = program_cell(Language::Cpp, &[], "int main() {}\n");
        assert_eq!(cell, "%%cpp\nint main() {}\n");
        assert_eq!(
            command_of(&cell),
            program(Language::Cpp, &[], "int main() {}\n")
        );
        let words = ["a", "b c", "it's", ""];
        let cell = program_cell(Language::Bash, &words.map(str::to_owned), "\necho");
        assert_eq!(command_of(&cell), program(Language::Bash, &words, "\necho"));
        assert_eq!(command_of("%%go"), program(Language::Go, &[], ""));
        for (cell, line, told) in [
            ("%%timeit x", "timeit x", "known are python"),
            ("%%\nx", "", "known are python"),
            ("%%bash 'a\nx", "bash 'a", "a quote does not end"),
        ] {
            let Some(Command::Unknown { line: found, why }) = command_of(cell) else {
                panic!("{cell}");
            };
            assert!(found == line && why.contains(told), "{found}: {why}");
        }
    }
}
