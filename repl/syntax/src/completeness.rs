//! Whether a text is a whole cell.
//!
//! The truth is the guest's `is_complete`, which asks CPython's compiler whether it met the end of the text before
//! it met a fault. This is the same question put to another parser, so it answers only where both must agree.

mod blocks;
mod faults;
mod indent;

use ruff_text_size::Ranged;

use crate::whitespace::is_blank;

/// Whether a text is a whole cell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Completeness {
    /// It can run as it is.
    Complete,
    /// It goes on.
    Incomplete {
        /// White space to begin the next line with.
        indent: String,
    },
    /// No further line can mend it.
    Invalid(Fault),
    /// The host cannot tell: ask the guest.
    Unsure,
}

/// The first fault of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Where it is, in bytes, on a character boundary.
    pub offset: usize,
    /// Its line, from 1.
    pub line: usize,
    /// Its column in characters, from 1.
    pub column: usize,
    /// The parser's words, without a full stop.
    pub message: String,
}

/// Tells whether `source` is a whole cell, and if not, whether it can become one.
pub fn completeness(source: &str) -> Completeness {
    if is_blank(source) {
        return Completeness::Complete;
    }
    if is_doubtful(source) {
        return Completeness::Unsure;
    }
    // As CPython does: the last line has an end.
    let mut text = source.to_owned();
    if !text.ends_with('\n') {
        text.push('\n');
    }
    let Some(reading) = crate::parse::read(&text) else {
        return Completeness::Unsure;
    };
    // They come in the order in which the parser noticed them.
    let first = reading
        .parsed
        .errors()
        .iter()
        .min_by_key(|error| error.start());
    if let Some(error) = first {
        return faults::judge(source, &text, &reading, error);
    }
    if !reading.parsed.unsupported_syntax_errors().is_empty() {
        return Completeness::Unsure;
    }
    if blocks::is_inside_block(source, &reading) {
        return goes_on(source);
    }
    Completeness::Complete
}

/// Whether Python's versions differ on it, or the two parsers do before they come to the grammar.
fn is_doubtful(source: &str) -> bool {
    source.contains('\0')
        || source.starts_with('\u{feff}')
        || has_mixed_indentation(source)
        || has_huge_number(source)
}

/// Tabs beside spaces: how wide is a tab?
fn has_mixed_indentation(source: &str) -> bool {
    let (mut tabs, mut spaces) = (false, false);
    for line in source.split(['\n', '\r']) {
        match line.bytes().find(|byte| *byte != b'\x0c') {
            Some(b'\t') => tabs = true,
            Some(b' ') => spaces = true,
            _ => {}
        }
        let indentation = &line[..line.len() - line.trim_start_matches([' ', '\t', '\x0c']).len()];
        if indentation.contains('\t') && indentation.contains(' ') {
            return true;
        }
    }
    tabs && spaces
}

/// Python refuses decimal numbers of more digits than a limit that the user can move.
fn has_huge_number(source: &str) -> bool {
    source
        .split(|c: char| !c.is_ascii_digit() && c != '_')
        .any(|digits| digits.len() > 600)
}

fn goes_on(source: &str) -> Completeness {
    Completeness::Incomplete {
        indent: indent::after(source),
    }
}
