//! What CPython would say of a text in which the host's parser finds a fault.
//!
//! CPython reads a token at a time. It calls a text incomplete when its parser fails after the last line has been
//! read to its end, so the place of the first fault decides: behind the last statement's line, or before.

use ruff_python_parser::{
    InterpolatedStringErrorType, LexicalErrorType, ParseError, ParseErrorType,
};
use ruff_text_size::Ranged;

use super::{Completeness, Fault, blocks, goes_on};
use crate::parse::Reading;
use crate::scan::{Kind, Token};

/// How the parser says that a block is missing.
const BLOCK_MISSING: &str = "Expected an indented block";
/// How the parser says that a `try` has neither `except` nor `finally`.
const EXCEPT_MISSING: &str = "Expected `except` or `finally`";

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
    if ends_in_interpolated_text(reading, &error.error) {
        return goes_on(source);
    }
    if is_magic(text, offset) || is_in_interpolated(reading, offset) {
        return Completeness::Unsure;
    }
    if is_newer_syntax_before(reading, offset) {
        return Completeness::Unsure;
    }
    let end = end_of_code(&reading.scan.tokens);
    match &error.error {
        ParseErrorType::Lexical(LexicalErrorType::Eof) => at_the_end(source, text, reading),
        ParseErrorType::Lexical(LexicalErrorType::UnclosedStringError) => {
            unclosed_string(source, text, offset)
        }
        _ if reading.scan.open_string => Completeness::Unsure,
        kind if offset >= end || is_block_missing(kind, offset, end, text) => {
            at_the_end(source, text, reading)
        }
        _ if reading.scan.unmatched == Some(offset) => Completeness::Invalid(fault(source, error)),
        // CPython may blame a bracket that is open there, and call the text incomplete.
        _ if !reading.scan.open_brackets.is_empty() || has_unclosed_string(reading) => {
            Completeness::Unsure
        }
        kind if is_doubtful(kind) => Completeness::Unsure,
        _ => Completeness::Invalid(fault(source, error)),
    }
}

/// Whether a string has no end, behind another fault: looking for it, CPython's versions forget that fault or not.
fn has_unclosed_string(reading: &Reading) -> bool {
    let unclosed = ParseErrorType::Lexical(LexicalErrorType::UnclosedStringError);
    reading
        .parsed
        .errors()
        .iter()
        .any(|error| error.error == unclosed)
}

/// Whether the text of an f-string in triple quotes runs to the end.
fn ends_in_interpolated_text(reading: &Reading, kind: &ParseErrorType) -> bool {
    let is_unterminated = matches!(
        kind,
        ParseErrorType::Lexical(LexicalErrorType::FStringError(
            InterpolatedStringErrorType::UnterminatedTripleQuotedString
        ))
    );
    is_unterminated && reading.scan.open_string
}

fn unclosed_string(source: &str, text: &str, offset: usize) -> Completeness {
    let quotes = text[offset..].trim_start_matches(|c: char| c.is_ascii_alphabetic());
    if quotes.starts_with("\"\"\"") || quotes.starts_with("'''") {
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

/// Judges a text whose first fault is its end. At the `else` of a `try` without `except` CPython stops, while the
/// parser goes on.
fn at_the_end(source: &str, text: &str, reading: &Reading) -> Completeness {
    let lacks_except = |error: &ParseError| matches!(&error.error, ParseErrorType::OtherError(message) if message.starts_with(EXCEPT_MISSING));
    let ends_in_else = || {
        reading.parsed.errors().iter().any(lacks_except)
            && blocks::ends_in_else(text, &reading.scan.tokens)
    };
    if blocks::has_else_without_except(reading) || ends_in_else() {
        return Completeness::Unsure;
    }
    goes_on(source)
}

/// Whether the text ends where a block should begin. The parser puts this fault at the end of the line before it.
fn is_block_missing(kind: &ParseErrorType, offset: usize, end: usize, text: &str) -> bool {
    matches!(kind, ParseErrorType::OtherError(message) if message.starts_with(BLOCK_MISSING))
        && text[offset..end]
            .trim_start_matches(['\r', '\n'])
            .is_empty()
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
fn is_in_interpolated(reading: &Reading, offset: usize) -> bool {
    let strings = &reading.scan.interpolated;
    strings
        .iter()
        .any(|string| string.start <= offset && offset <= string.end)
}

fn is_newer_syntax_before(reading: &Reading, offset: usize) -> bool {
    reading
        .parsed
        .unsupported_syntax_errors()
        .iter()
        .any(|newer| newer.range.start().to_usize() <= offset)
}

/// Faults about which Pythons differ: by their Unicode data, or by what the parser leaves to the compiler.
fn is_doubtful(kind: &ParseErrorType) -> bool {
    match kind {
        ParseErrorType::InvalidStarredExpressionUsage
        | ParseErrorType::InvalidYieldExpressionUsage
        | ParseErrorType::StringAnnotationError(_)
        | ParseErrorType::Lexical(LexicalErrorType::UnicodeError) => true,
        ParseErrorType::Lexical(LexicalErrorType::UnrecognizedToken { tok }) => !tok.is_ascii(),
        _ => false,
    }
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
