//! Everything that is cut into lines or frames, and every message in a line.

use std::fmt::Debug;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Script;
use crate::cell::{
    Acted, Answer, Completeness, Completions, Event, Inspection, Output, OutputStream, Pong,
    Request, Variables, text_boundary, write_output,
};
use crate::connect::HandshakeParser;
use crate::control::{ControlReply, ControlRequest};
use crate::files::{self, FilesDecoder, FilesReply, FilesRequest};
use crate::line::{LineDecoder, TooLong, to_line};
use crate::runner::{self, Kind, RunnerDecoder, split_done};

/// Cuts the input into lines, frames and messages: the first byte is the size of the pieces it comes in, the second
/// the limit of a line.
pub fn lines(input: &[u8]) {
    let mut script = Script(input);
    let piece_bytes = usize::from(script.byte()).max(1);
    let limit_bytes = 16 * usize::from(script.byte());
    let bytes = script.0;
    for line in cut_lines(bytes, piece_bytes, limit_bytes)
        .into_iter()
        .flatten()
    {
        messages(&line);
    }
    runner_frames(bytes, piece_bytes);
    files_frames(bytes, piece_bytes);
    handshake(bytes, piece_bytes);
    output(bytes);
}

fn cut_lines(
    bytes: &[u8],
    piece_bytes: usize,
    limit_bytes: usize,
) -> Vec<Result<Vec<u8>, TooLong>> {
    let mut decoder = LineDecoder::new(limit_bytes);
    let mut found = Vec::new();
    for piece in bytes.chunks(piece_bytes) {
        decoder.push(piece);
        while let Some(line) = decoder.line() {
            found.push(line.map(<[u8]>::to_vec));
        }
    }
    let mut expected: Vec<_> = bytes
        .split(|byte| *byte == b'\n')
        .map(|line| {
            if line.len() > limit_bytes {
                return Err(TooLong { limit_bytes });
            }
            Ok(line.strip_suffix(b"\r").unwrap_or(line).to_vec())
        })
        .collect();
    // What has no newline yet is a line only when it is too long already.
    let rest = expected.pop_if(|last| last.is_ok()).and_then(Result::ok);
    assert_eq!(found, expected);
    assert_eq!(decoder.rest().unwrap_or_default(), rest.unwrap_or_default());
    found
}

fn messages(line: &[u8]) {
    message::<Request>(line);
    message::<Event>(line);
    message::<Answer>(line);
    message::<Completions>(line);
    message::<Inspection>(line);
    message::<Completeness>(line);
    message::<Variables>(line);
    message::<Pong>(line);
    message::<Acted>(line);
    message::<ControlRequest>(line);
    message::<ControlReply>(line);
    message::<FilesRequest>(line);
    message::<FilesReply>(line);
    if let Ok(Event::Result(event)) = serde_json::from_slice(line)
        && let Some(table) = event.bundle.table()
    {
        message::<crate::cell::Table>(&to_line(&table));
    }
}

/// A line that is a message comes back from its own line.
pub(super) fn message<T: Serialize + DeserializeOwned + PartialEq + Debug>(line: &[u8]) {
    if let Ok(message) = serde_json::from_slice::<T>(line) {
        let again = to_line(&message);
        let (newline, json) = again.split_last().expect("a line has its newline");
        assert_eq!(*newline, b'\n');
        assert!(!json.contains(&b'\n'), "a message is one line");
        let back: T = serde_json::from_slice(json).expect("what was written can be read");
        assert_eq!(back, message);
    }
}

fn runner_frames(bytes: &[u8], piece_bytes: usize) {
    let mut decoder = RunnerDecoder::default();
    let mut passed = Vec::new();
    for piece in bytes.chunks(piece_bytes) {
        decoder.push(piece);
        loop {
            match decoder.frame() {
                Ok(Some(frame)) => {
                    runner::encode(frame.kind, frame.connection, frame.payload, &mut passed)
                        .expect("what came in may go out");
                    if frame.kind == Kind::Done
                        && let Ok((before, after)) = split_done(frame.payload)
                    {
                        assert_eq!(4 + before.len() + after.len(), frame.payload.len());
                    }
                }
                Ok(None) => break,
                Err(_) => return assert!(bytes.starts_with(&passed)),
            }
        }
    }
    assert!(bytes.starts_with(&passed));
    assert_eq!(decoder.is_empty(), passed.len() == bytes.len());
}

fn files_frames(bytes: &[u8], piece_bytes: usize) {
    let mut decoder = FilesDecoder::default();
    let mut passed = Vec::new();
    for piece in bytes.chunks(piece_bytes) {
        decoder.push(piece);
        loop {
            match decoder.frame() {
                Ok(Some(frame)) => files::encode(frame.tag, frame.payload, &mut passed)
                    .expect("what came in may go out"),
                Ok(None) => break,
                Err(_) => return assert!(bytes.starts_with(&passed)),
            }
        }
    }
    assert!(bytes.starts_with(&passed));
    assert_eq!(decoder.is_empty(), passed.len() == bytes.len());
}

fn handshake(bytes: &[u8], piece_bytes: usize) {
    for (mut parser, word) in [
        (HandshakeParser::request(), "CONNECT"),
        (HandshakeParser::answer(), "OK"),
    ] {
        let mut used = 0;
        for piece in bytes.chunks(piece_bytes) {
            match parser.push(piece) {
                Ok(None) => used += piece.len(),
                Ok(Some(shaken)) => {
                    used += shaken.used_bytes;
                    let line = bytes[..used].trim_ascii_end();
                    assert!(line.starts_with(word.as_bytes()));
                    let digits = shaken.number.to_string();
                    assert!(line.ends_with(digits.as_bytes()));
                    assert_eq!(bytes[used - 1], b'\n');
                    break;
                }
                Err(_) => break,
            }
        }
    }
}

fn output(bytes: &[u8]) {
    let boundary = text_boundary(bytes);
    assert!(boundary <= bytes.len() && bytes.len() - boundary <= 3);
    if std::str::from_utf8(bytes).is_ok() {
        assert_eq!(boundary, bytes.len(), "no whole character is held back");
    }
    let output = Output::new(None, bytes.to_vec());
    assert_eq!(output.as_bytes(), bytes);
    let mut line = Vec::new();
    write_output(OutputStream::Stdout, None, bytes, &mut line);
    let event: Event = serde_json::from_slice(&line).expect("what was written can be read");
    assert_eq!(event, Event::Stdout(output));
}
