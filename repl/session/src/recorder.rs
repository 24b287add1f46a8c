//! A sink that passes everything on and keeps what the record wants.

use std::time::{Duration, Instant};

use vmrepl_history::Outcome;
use vmrepl_wire::cell::{Answer, Event, Status};

use crate::cell::{Input, InputRequest, Sink};
use crate::error::SessionError;
use crate::limits::{RECORDED_OUTPUT_BYTES_MAX, RECORDED_SHOWN_BYTES_MAX};

/// Keeps what a cell says, up to a bound.
pub(crate) struct Recorder<'a> {
    sink: &'a mut dyn Sink,
    began: Instant,
    output: Vec<u8>,
    dropped: u64,
    /// Values, displays, tables and errors, in order, as the wire has them.
    shown: Vec<Event>,
    shown_bytes: usize,
}

/// What the record keeps beside the output.
#[derive(serde::Serialize)]
struct Kept<'a> {
    answer: Option<&'a Answer>,
    shown: &'a [Event],
}

impl<'a> Recorder<'a> {
    pub(crate) fn new(sink: &'a mut dyn Sink) -> Self {
        Self {
            sink,
            began: Instant::now(),
            output: Vec::new(),
            dropped: 0,
            shown: Vec::new(),
            shown_bytes: 0,
        }
    }

    fn keep(&mut self, bytes: &[u8]) {
        let room = RECORDED_OUTPUT_BYTES_MAX - self.output.len();
        let kept = &bytes[..bytes.len().min(room)];
        self.output.extend_from_slice(kept);
        self.dropped += (bytes.len() - kept.len()) as u64;
    }

    /// How the cell ended, for the record.
    pub(crate) fn outcome(self, answer: &Result<Answer, SessionError>) -> Outcome {
        let status = match answer {
            Ok(answer) => answer.status.unwrap_or(Status::Ok),
            Err(SessionError::Stopped) => Status::Interrupted,
            Err(_) => Status::MachineLost,
        };
        let kept = Kept {
            answer: answer.as_ref().ok(),
            shown: &self.shown,
        };
        let took = |took: Duration| u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        Outcome {
            status: name(status),
            exit_code: answer
                .as_ref()
                .map_or(1, |answer| i64::from(answer.exit_code)),
            took_us: took(self.began.elapsed()),
            output: String::from_utf8_lossy(&self.output).into_owned(),
            output_dropped: self.dropped,
            answer: serde_json::to_string(&kept).unwrap_or_else(|_| "{}".to_owned()),
        }
    }
}

/// A status as the wire names it.
fn name(status: Status) -> String {
    serde_json::to_value(status)
        .ok()
        .and_then(|value| value.as_str().map(str::to_owned))
        .unwrap_or_else(|| "unknown".to_owned())
}

impl Sink for Recorder<'_> {
    fn event(&mut self, event: &Event) {
        match event {
            Event::Stdout(output) | Event::Stderr(output) => self.keep(output.as_bytes()),
            other => {
                let bytes = serde_json::to_vec(other).map_or(0, |line| line.len());
                self.shown_bytes += bytes;
                if self.shown_bytes <= RECORDED_SHOWN_BYTES_MAX {
                    self.shown.push(other.clone());
                }
            }
        }
        self.sink.event(event);
    }

    fn input(&mut self, request: &InputRequest) -> Input {
        self.sink.input(request)
    }
}
