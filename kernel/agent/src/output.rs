//! What cells print: kept for the plain answer, or turned into events.

use std::borrow::Cow;

use vmrepl_wire::cell::{OutputStream, text_boundary, write_output};

use crate::limits;
use crate::outbox::Outbox;

/// Both streams of a cell that has ended.
#[derive(Debug, Default, Clone)]
pub(crate) struct Captured {
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
    pub(crate) stdout_truncated: bool,
    pub(crate) stderr_truncated: bool,
}

impl Captured {
    pub(crate) fn len(&self) -> usize {
        self.stdout.len() + self.stderr.len()
    }
}

/// Where output goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Kept until the cell ends, at most so many bytes of each stream.
    Keep { limit_bytes: usize },
    /// Sent as events as it comes, at most so many bytes of each stream.
    Send { limit_bytes: u64 },
}

/// The output of the running cell, or what waits for the next one.
#[derive(Debug, Default)]
pub(crate) struct Output {
    mode: Option<Mode>,
    stdout: Stream,
    stderr: Stream,
}

impl Output {
    /// From here on output belongs to a new cell. What came since the last one belongs to it too;
    /// events of it, if the mode makes them, are appended to `out`.
    pub(crate) fn begin(&mut self, mode: Mode, id: Option<&str>, out: &mut Vec<u8>) {
        self.mode = Some(mode);
        for stream in [OutputStream::Stdout, OutputStream::Stderr] {
            let waiting = std::mem::take(self.stream(stream)).into_waiting();
            self.take(stream, &waiting, id, out);
        }
    }

    /// Takes bytes that were printed; events are appended to `out`.
    pub(crate) fn take(
        &mut self,
        stream: OutputStream,
        bytes: &[u8],
        id: Option<&str>,
        out: &mut Vec<u8>,
    ) {
        if bytes.is_empty() {
            return;
        }
        let mode = self.mode;
        let kept = self.stream(stream);
        match mode {
            None => kept.keep(bytes, 0, limits::BETWEEN_CELLS_BYTES),
            Some(Mode::Keep { limit_bytes }) => {
                let head_bytes = (limit_bytes / 2).min(limits::CAPTURE_HEAD_BYTES);
                let tail_bytes = (limit_bytes - head_bytes).min(limits::CAPTURE_TAIL_BYTES);
                kept.keep(bytes, head_bytes, tail_bytes);
            }
            Some(Mode::Send { limit_bytes }) => kept.send(stream, bytes, limit_bytes, id, out),
        }
    }

    /// The cell has ended. Events for what was held back are appended to `out`.
    pub(crate) fn end(&mut self, id: Option<&str>, out: &mut Vec<u8>) -> Captured {
        let sent = matches!(self.mode.take(), Some(Mode::Send { .. }));
        let (mut stdout, mut stderr) = (
            std::mem::take(&mut self.stdout),
            std::mem::take(&mut self.stderr),
        );
        if !sent {
            stdout.settle();
            stderr.settle();
        }
        let mut notice = String::new();
        let mut captured = Captured {
            stdout_truncated: stdout.notice("stdout", &mut notice),
            stderr_truncated: stderr.notice("stderr", &mut notice),
            ..Captured::default()
        };
        if sent {
            for (name, stream) in [
                (OutputStream::Stdout, stdout),
                (OutputStream::Stderr, stderr),
            ] {
                if !stream.head.is_empty() {
                    write_output(name, id, &stream.head, out);
                }
            }
            if !notice.is_empty() {
                write_output(OutputStream::Stderr, id, notice.as_bytes(), out);
            }
            return captured;
        }
        captured.stdout = stdout.into_kept();
        captured.stderr = stderr.into_kept();
        if !notice.is_empty() {
            if captured.stderr.last().is_some_and(|last| *last != b'\n') {
                captured.stderr.push(b'\n');
            }
            captured.stderr.extend_from_slice(notice.as_bytes());
        }
        captured
    }

    /// Forgets what a dead runner's processes printed.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    fn stream(&mut self, stream: OutputStream) -> &mut Stream {
        match stream {
            OutputStream::Stdout => &mut self.stdout,
            OutputStream::Stderr => &mut self.stderr,
        }
    }
}

/// One of the two: its beginning, its end, and the count of what lay between.
#[derive(Debug, Default)]
struct Stream {
    /// The beginning; in a stream of events, the bytes of an unfinished character.
    head: Vec<u8>,
    /// The end. Grows to twice its limit before the front is cut, so that each byte moves once.
    tail: Vec<u8>,
    /// Sent as events, in bytes.
    sent_bytes: u64,
    left_out_bytes: u64,
    tail_limit_bytes: usize,
}

impl Stream {
    fn keep(&mut self, bytes: &[u8], head_bytes: usize, tail_bytes: usize) {
        self.tail_limit_bytes = tail_bytes;
        let to_head = if self.tail.is_empty() && self.left_out_bytes == 0 {
            bytes.len().min(head_bytes.saturating_sub(self.head.len()))
        } else {
            0
        };
        self.head.extend_from_slice(&bytes[..to_head]);
        self.tail.extend_from_slice(&bytes[to_head..]);
        if self.tail.len() > 2 * tail_bytes {
            self.cut();
        }
    }

    /// Cuts the tail to its limit, at the start of a character.
    fn cut(&mut self) {
        let over = self.tail.len().saturating_sub(self.tail_limit_bytes);
        if over == 0 {
            return;
        }
        let rest = &self.tail[over..];
        let continued = rest
            .iter()
            .take(3)
            .take_while(|byte| **byte & 0xC0 == 0x80)
            .count();
        let cut = over + continued;
        self.tail.drain(..cut);
        self.left_out_bytes += u64::try_from(cut).unwrap_or(u64::MAX);
    }

    fn send(
        &mut self,
        stream: OutputStream,
        bytes: &[u8],
        limit_bytes: u64,
        id: Option<&str>,
        out: &mut Vec<u8>,
    ) {
        let room = usize::try_from(limit_bytes - self.sent_bytes).unwrap_or(usize::MAX);
        let (taken, left) = bytes.split_at(bytes.len().min(room));
        self.left_out_bytes += u64::try_from(left.len()).unwrap_or(u64::MAX);
        self.sent_bytes += u64::try_from(taken.len()).unwrap_or(u64::MAX);
        let chunk = if self.head.is_empty() {
            Cow::Borrowed(taken)
        } else {
            let mut chunk = std::mem::take(&mut self.head);
            chunk.extend_from_slice(taken);
            Cow::Owned(chunk)
        };
        let (whole, unfinished) = chunk.split_at(text_boundary(&chunk));
        if !whole.is_empty() {
            write_output(stream, id, whole, out);
        }
        self.head = unfinished.to_vec();
    }

    /// Makes both cut edges fall between characters.
    fn settle(&mut self) {
        self.cut();
        if self.left_out_bytes > 0 {
            let whole = text_boundary(&self.head);
            let cut = self.head.len() - whole;
            self.head.truncate(whole);
            self.left_out_bytes += u64::try_from(cut).unwrap_or(u64::MAX);
        }
    }

    /// Says what is missing; whether anything is.
    fn notice(&self, name: &str, notice: &mut String) -> bool {
        let left_out = self.left_out_bytes;
        if left_out > 0 {
            notice.push_str(&format!("[vmrepl: {left_out} bytes of {name} left out]\n"));
        }
        left_out > 0
    }

    fn into_kept(mut self) -> Vec<u8> {
        self.head.append(&mut self.tail);
        self.head
    }

    fn into_waiting(mut self) -> Vec<u8> {
        self.cut();
        self.tail
    }
}

/// Appends the answer's line: `prefix`, the output fields, `suffix`. A suffix that begins with
/// `"truncated": null` asks for that field.
pub(crate) fn write_answer(prefix: &[u8], captured: &Captured, suffix: &[u8], out: &mut Outbox) {
    const TRUNCATED: &[u8] = b"\"truncated\": null";
    let out = out.buffer();
    out.extend_from_slice(prefix);
    out.extend_from_slice(b"\"stdout\": ");
    write_text(&captured.stdout, out);
    out.extend_from_slice(b", \"stderr\": ");
    write_text(&captured.stderr, out);
    out.extend_from_slice(b", ");
    let suffix = match suffix.strip_prefix(TRUNCATED) {
        Some(rest) => {
            let (stdout, stderr) = (captured.stdout_truncated, captured.stderr_truncated);
            let object = format!("\"truncated\": {{\"stdout\": {stdout}, \"stderr\": {stderr}}}");
            out.extend_from_slice(object.as_bytes());
            rest
        }
        None => suffix,
    };
    out.extend_from_slice(suffix);
    out.push(b'\n');
}

fn write_text(bytes: &[u8], out: &mut Vec<u8>) {
    let text = String::from_utf8_lossy(bytes);
    serde_json::to_writer(out, &text).expect("text into a vector: nothing can fail");
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEEP: Mode = Mode::Keep {
        limit_bytes: 1024 * 1024,
    };

    fn captured(chunks: &[&[u8]], mode: Mode) -> (Captured, String) {
        let (mut output, mut events) = (Output::default(), Vec::new());
        output.begin(mode, None, &mut events);
        for chunk in chunks {
            output.take(OutputStream::Stdout, chunk, None, &mut events);
        }
        let captured = output.end(None, &mut events);
        (captured, String::from_utf8(events).unwrap())
    }

    #[test]
    fn a_plain_cell_keeps_head_and_tail() {
        let line = [b'x'; 999];
        let mut bytes = b"first ".to_vec();
        for _ in 0..5000 {
            bytes.extend_from_slice(&line);
        }
        bytes.extend_from_slice(b" last");
        let chunks: Vec<_> = bytes.chunks(60_000).collect();
        let (captured, events) = captured(&chunks, KEEP);
        assert_eq!(events, "");
        assert_eq!(captured.stdout.len(), 1024 * 1024);
        assert!(captured.stdout.starts_with(b"first ") && captured.stdout.ends_with(b" last"));
        assert!(captured.stdout_truncated && !captured.stderr_truncated);
        let left_out = bytes.len() - 1024 * 1024;
        let notice = format!("[vmrepl: {left_out} bytes of stdout left out]\n");
        assert_eq!(String::from_utf8(captured.stderr).unwrap(), notice);
    }

    #[test]
    fn nothing_is_cut_below_the_limit() {
        let bytes = vec![b'y'; 1024 * 1024];
        let (captured, _) = captured(&[&bytes], KEEP);
        assert_eq!(captured.stdout.len(), bytes.len());
        assert!(!captured.stdout_truncated);
        assert!(captured.stderr.is_empty());
    }

    #[test]
    fn a_cut_does_not_split_characters() {
        let text = "é".repeat(20);
        let (captured, _) = captured(&[text.as_bytes()], Mode::Keep { limit_bytes: 11 });
        assert_eq!(String::from_utf8(captured.stdout).unwrap(), "é".repeat(5));
    }

    #[test]
    fn events_hold_whole_characters() {
        let mode = Mode::Send {
            limit_bytes: u64::MAX,
        };
        let (captured, events) = captured(&[b"a\xC3", b"\xA9b", b"\xFF", b"\xE2\x82"], mode);
        assert_eq!(captured.len(), 0);
        let expected = [
            r#"{"type":"stdout","text":"a"}"#,
            r#"{"type":"stdout","text":"éb"}"#,
            r#"{"type":"stdout","base64":"/w=="}"#,
            r#"{"type":"stdout","base64":"4oI="}"#,
        ];
        assert_eq!(events.lines().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn events_stop_at_the_limit() {
        let (captured, events) = captured(&[b"12345", b"67890"], Mode::Send { limit_bytes: 7 });
        assert!(captured.stdout_truncated);
        let expected = [
            r#"{"type":"stdout","text":"12345"}"#,
            r#"{"type":"stdout","text":"67"}"#,
            r#"{"type":"stderr","text":"[vmrepl: 3 bytes of stdout left out]\n"}"#,
        ];
        assert_eq!(events.lines().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn output_between_cells_belongs_to_the_next_one_and_is_bounded() {
        let mut output = Output::default();
        let mut events = Vec::new();
        for _ in 0..40 {
            output.take(OutputStream::Stderr, &[b'z'; 100_000], None, &mut events);
        }
        output.take(OutputStream::Stderr, b"end", None, &mut events);
        output.begin(KEEP, None, &mut events);
        let captured = output.end(None, &mut events);
        assert!(captured.stderr.ends_with(b"end"));
        assert!(captured.len() <= limits::BETWEEN_CELLS_BYTES);
    }

    #[test]
    fn an_answer_tells_what_was_cut_when_it_is_asked() {
        let captured = Captured {
            stdout: b"a\xFF\n".to_vec(),
            stdout_truncated: true,
            ..Captured::default()
        };
        let mut out = Outbox::default();
        write_answer(
            b"{\"exit_code\": 0, ",
            &captured,
            b"\"truncated\": null, \"id\": 1}",
            &mut out,
        );
        write_answer(
            b"{\"exit_code\": 0, ",
            &captured,
            b"\"tables\": []}",
            &mut out,
        );
        let text = String::from_utf8(out.as_slice().to_vec()).unwrap();
        let expected = concat!(
            "{\"exit_code\": 0, \"stdout\": \"a\u{FFFD}\\n\", \"stderr\": \"\", ",
            "\"truncated\": {\"stdout\": true, \"stderr\": false}, \"id\": 1}\n",
            "{\"exit_code\": 0, \"stdout\": \"a\u{FFFD}\\n\", \"stderr\": \"\", \"tables\": []}\n",
        );
        assert_eq!(text, expected);
    }
}
