//! What a cell says, kept for the one JSON object: bounded, head and tail.

use std::collections::VecDeque;

use vmrepl_session::{Answer, Event, Truncated};

/// So much of the start and so much of the end of each output.
const HALF_BYTES: usize = 512 << 10;

#[derive(Debug, Default)]
struct Output {
    head: Vec<u8>,
    tail: VecDeque<u8>,
    cut_bytes: u64,
}

impl Output {
    fn push(&mut self, bytes: &[u8]) {
        let room = (HALF_BYTES - self.head.len()).min(bytes.len());
        self.head.extend_from_slice(&bytes[..room]);
        self.tail.extend(&bytes[room..]);
        let over = self.tail.len().saturating_sub(HALF_BYTES);
        self.tail.drain(..over);
        self.cut_bytes += over as u64;
    }

    fn into_text(mut self) -> String {
        if self.cut_bytes > 0 {
            self.head.extend_from_slice(b"\n[...]\n");
        }
        self.head.extend(self.tail);
        String::from_utf8_lossy(&self.head).into_owned()
    }
}

/// Events of one cell on their way into its answer.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    stdout: Output,
    stderr: Output,
    rest: Answer,
}

impl Kept {
    pub(crate) fn take(&mut self, event: &Event) {
        match event {
            Event::Stdout(output) => self.stdout.push(output.as_bytes()),
            Event::Stderr(output) => self.stderr.push(output.as_bytes()),
            Event::Display(display) => self
                .rest
                .displays
                .get_or_insert_default()
                .push(display.bundle.clone()),
            Event::Result(result) => self.rest.result = Some(result.bundle.clone()),
            Event::Table(_)
            | Event::Error(_)
            | Event::InputRequest(_)
            | Event::Done(_)
            | Event::Unknown => {}
        }
    }

    /// The answer with everything in it that was streamed.
    pub(crate) fn complete(self, answer: Answer) -> Answer {
        let truncated = Truncated {
            stdout: self.stdout.cut_bytes > 0,
            stderr: self.stderr.cut_bytes > 0,
        };
        let cut = [
            ("stdout", self.stdout.cut_bytes),
            ("stderr", self.stderr.cut_bytes),
        ];
        let mut stderr = self.stderr.into_text();
        for (name, bytes) in cut {
            if bytes > 0 {
                stderr.push_str(&format!("[vmrepl: {bytes} bytes of {name} left out]\n"));
            }
        }
        // A lost runner's answer brings its output itself.
        let stdout = self.stdout.into_text() + &answer.stdout;
        Answer {
            stdout,
            stderr: stderr + &answer.stderr,
            id: None,
            displays: self.rest.displays.or(answer.displays),
            result: self.rest.result.or(answer.result),
            truncated: Some(truncated),
            ..answer
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_cut_in_the_middle_and_says_so() {
        let mut output = Output::default();
        for _ in 0..30 {
            output.push(&[b'x'; 100_000]);
        }
        assert_eq!(output.cut_bytes, 3_000_000 - 2 * (512 << 10));
        assert_eq!(output.into_text().len(), 2 * (512 << 10) + 7);
    }
}
