//! Cells that are no Python: `!` and a command line runs in the guest's shell, in the user's home.

use std::time::Instant;

use vmrepl_wire::cell::{Answer, Event, Output, Status};
use vmrepl_wire::exec::{ExecEnd, ExecLimits, ExecStart};

use crate::cell::{Cell, Sink};
use crate::cell_limits::milliseconds;
use crate::error::SessionError;
use crate::exec::{ExecEnded, ExecEvent};
use crate::session::Session;

/// The command line of a cell that is one. No Python begins so.
#[must_use]
pub fn command_of(code: &str) -> Option<&str> {
    let line = code.trim_start().strip_prefix('!')?;
    Some(line.trim())
}

/// Whether a cell of the record is no code but what else was done to the machine: see
/// [`begin_aside`](Session::begin_aside).
#[must_use]
pub fn is_aside(code: &str) -> bool {
    code.starts_with(':')
}

impl Session {
    /// Runs a command line as a cell: its output is the cell's, its exit code the answer's.
    pub(crate) fn run_command(
        &mut self,
        id: &str,
        line: &str,
        cell: &Cell,
        sink: &mut dyn Sink,
    ) -> Result<Answer, SessionError> {
        let began = Instant::now();
        let timeout = cell.timeout.or(self.limits.time);
        let start = ExecStart {
            command: ["/bin/sh", "-c", line].map(str::to_owned).to_vec(),
            timeout: timeout.map(|time| time.as_secs_f64()),
            limits: ExecLimits {
                cpu_ms: self.limits.cpu.map(milliseconds),
                memory_bytes: self.limits.memory_bytes,
                processes: self.limits.processes,
                ..ExecLimits::default()
            },
            ..ExecStart::default()
        };
        self.running.check()?;
        let mut exec = self.exec(&start)?;
        self.running.set_program(id, exec.inputs());
        let mut left = self.limits.output_bytes.unwrap_or(u64::MAX);
        let heard = loop {
            if self.running.is_given_up() {
                break Ok(None);
            }
            let (event, bytes): (fn(Output) -> Event, _) = match exec.hear() {
                Ok(ExecEvent::Quiet) => continue,
                Ok(ExecEvent::Ended(ended)) => break Ok(Some(ended)),
                Ok(ExecEvent::Stdout(bytes)) => (Event::Stdout, bytes),
                Ok(ExecEvent::Stderr(bytes)) => (Event::Stderr, bytes),
                Err(error) => break Err(error),
            };
            match left.checked_sub(bytes.len() as u64) {
                Some(rest) => left = rest,
                None => break Ok(None),
            }
            sink.event(&event(Output::new(Some(id.to_owned()), bytes)));
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
}

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
        assert_eq!(command_of("!ls -l\n"), Some("ls -l"));
        assert_eq!(command_of("\n  !a\nb"), Some("a\nb"));
        assert_eq!(command_of("x != 1"), None);
    }
}
