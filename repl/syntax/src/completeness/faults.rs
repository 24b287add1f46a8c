//! What CPython would say of a text in which the host's parser finds a fault.
//!
//! CPython reads a token at a time. It calls a text incomplete when its parser fails after the last line has been
//! read to its end, so the place of the first fault decides: behind the last statement's line, or before.

use ruff_python_parser::{LexicalErrorType, ParseError, ParseErrorType};
use ruff_text_size::Ranged;

use super::{Completeness, Fault, goes_on};
use crate::parse::Reading;
use crate::scan::{Kind, Token};

/// Judges the first fault of `source`; `text` is the same with an end to its last line, and `reading` is of that.
pub(super) fn judge(
    source: &str,
    text: &str,
    reading: &Reading,
    error: &ParseError,
) -> Completeness {
    let offset = error.start().to_usize();
    if source.ends_with('\\') {
        return goes_on(source);
    }
    if is_magic(text, offset) || is_in_interpolated(text, &reading.scan.tokens, offset) {
        return Completeness::Unsure;
    }
    if is_newer_syntax_before(reading, offset) {
        return Completeness::Unsure;
    }
    let end = end_of_code(&reading.scan.tokens);
    let has_open_bracket = !reading.scan.open_brackets.is_empty();
    match &error.error {
        ParseErrorType::Lexical(LexicalErrorType::Eof) => goes_on(source),
        ParseErrorType::Lexical(LexicalErrorType::UnclosedStringError) => {
            unclosed_string(source, text, reading, offset)
        }
        _ if reading.scan.open_string => Completeness::Unsure,
        _ if offset >= end => goes_on(source),
        // CPython may go on to look for what is not closed.
        _ if has_open_bracket => Completeness::Unsure,
        kind if is_certain(kind) => Completeness::Invalid(fault(source, error)),
        _ => Completeness::Unsure,
    }
}

fn unclosed_string(source: &str, text: &str, reading: &Reading, offset: usize) -> Completeness {
    if reading.scan.open_string {
        return goes_on(source);
    }
    // A backslash may have carried the string to the end of the text.
    let line = text[offset..].split('\n').next().unwrap_or_default();
    if line.ends_with('\\') {
        return Completeness::Unsure;
    }
    Completeness::Invalid(Fault {
        message: "string without its closing quote".to_owned(),
        ..place(source, offset)
    })
}

/// Where the last statement's line has ended: behind it only comments and empty lines follow.
fn end_of_code(tokens: &[Token]) -> usize {
    tokens
        .iter()
        .rev()
        .find(|token| token.kind != Kind::Comment)
        .map_or(0, |token| token.range.end)
}

/// Whether the fault is in a line that IPython would understand.
fn is_magic(text: &str, offset: usize) -> bool {
    let start = text[..offset].rfind('\n').map_or(0, |at| at + 1);
    let line = text[start..].lines().next().unwrap_or_default().trim();
    line.starts_with(['%', '!', '?']) || line.ends_with('?') || text.trim_start().starts_with("%%")
}

/// Before 3.12 an f-string was a string first, and code later.
fn is_in_interpolated(text: &str, tokens: &[Token], offset: usize) -> bool {
    let line_start = text[..offset].rfind('\n').map_or(0, |at| at + 1);
    tokens
        .iter()
        .filter(|token| token.kind == Kind::InterpolatedStart)
        .any(|token| token.range.start <= offset && token.range.start >= line_start)
}

fn is_newer_syntax_before(reading: &Reading, offset: usize) -> bool {
    reading
        .parsed
        .unsupported_syntax_errors()
        .iter()
        .any(|newer| newer.range.start().to_usize() <= offset)
}

/// Faults that every Python has found while parsing.
fn is_certain(kind: &ParseErrorType) -> bool {
    matches!(
        kind,
        ParseErrorType::ExpectedExpression
            | ParseErrorType::ExpectedToken { .. }
            | ParseErrorType::SimpleStatementsOnSameLine
            | ParseErrorType::SimpleAndCompoundStatementOnSameLine
            | ParseErrorType::UnexpectedIndentation
            | ParseErrorType::InvalidAssignmentTarget
            | ParseErrorType::OtherError(_)
            | ParseErrorType::EmptyImportNames
            | ParseErrorType::EmptySlice
            | ParseErrorType::Lexical(
                LexicalErrorType::IndentationError
                    | LexicalErrorType::UnrecognizedToken { .. }
                    | LexicalErrorType::LineContinuationError
            )
    )
}

fn fault(source: &str, error: &ParseError) -> Fault {
    let mut message = error.error.to_string();
    if let Some(first) = message.get_mut(..1) {
        first.make_ascii_lowercase();
    }
    Fault {
        message,
        ..place(source, error.start().to_usize())
    }
}

fn place(source: &str, offset: usize) -> Fault {
    let offset = source.floor_char_boundary(offset);
    let before = &source[..offset];
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    Fault {
        offset,
        line: before.matches('\n').count() + 1,
        column: before[line_start..].chars().count() + 1,
        message: String::new(),
    }
}
