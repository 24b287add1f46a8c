//! The colours of a text that is being typed.
//!
//! They come from the tokens alone, so they are there at every key, whatever is still missing.

mod words;

use std::ops::Range;

use crate::scan::{Kind, Token, scan};

/// A piece of source and what it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// In bytes, on character boundaries, never empty.
    pub range: Range<usize>,
    /// What it is.
    pub class: Class,
}

/// What a piece of source is. White space has no span.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Class {
    /// A keyword, also `match`, `case` and `type` where they are meant as such.
    Keyword,
    /// A string with its prefix and quotes; of an f-string what is not code.
    String,
    /// A number.
    Number,
    /// A comment with its `#`.
    Comment,
    /// The name after `def`, `class` or `type`.
    Definition,
    /// A name that Python has from the start.
    Builtin,
    /// Any other name.
    Name,
    /// A decorator's `@` and its dotted name.
    Decorator,
    /// A bracket, also the braces of an f-string's code.
    Bracket,
    /// Any other sign.
    Operator,
    /// A character that Python has no use for.
    Unknown,
}

/// Cuts `source` into coloured pieces, sorted and without overlap. Takes any text, in linear time.
pub fn spans(source: &str) -> Vec<Span> {
    let tokens = scan(source).tokens;
    let mut spans = Vec::with_capacity(tokens.len());
    let mut line = Line::default();
    for (at, token) in tokens.iter().enumerate() {
        let text = &source[token.range.clone()];
        if let Some(class) = line.class_of(source, &tokens, at) {
            spans.push(Span {
                range: token.range.clone(),
                class,
            });
        }
        line.advance(token.kind, text);
    }
    spans
}

/// What of the current statement matters to the tokens that follow.
#[derive(Default)]
struct Line<'s> {
    /// The token before this one, without comments; empty at the start of a statement.
    before: &'s str,
    is_decorator: bool,
}

impl<'s> Line<'s> {
    fn advance(&mut self, kind: Kind, text: &'s str) {
        match kind {
            Kind::Comment => {}
            Kind::Newline => *self = Line::default(),
            Kind::Operator if self.before.is_empty() && text == "@" => {
                *self = Line {
                    before: text,
                    is_decorator: true,
                };
            }
            Kind::Operator if text == ";" => *self = Line::default(),
            Kind::Word | Kind::Operator => {
                self.is_decorator &= kind == Kind::Word || text == ".";
                self.before = text;
            }
            _ => {
                *self = Line {
                    before: text,
                    is_decorator: false,
                }
            }
        }
    }

    fn class_of(&self, source: &str, tokens: &[Token], at: usize) -> Option<Class> {
        let text = &source[tokens[at].range.clone()];
        Some(match tokens[at].kind {
            Kind::Newline => return None,
            Kind::String | Kind::InterpolatedStart => Class::String,
            Kind::Number => Class::Number,
            Kind::Comment => Class::Comment,
            Kind::Open | Kind::Close => Class::Bracket,
            Kind::Unknown => Class::Unknown,
            Kind::Operator if text == "@" && self.before.is_empty() => Class::Decorator,
            Kind::Operator if self.is_decorator && text == "." => Class::Decorator,
            Kind::Operator => Class::Operator,
            Kind::Word => self.class_of_word(text, source, tokens.get(at + 1)),
        })
    }

    fn class_of_word(&self, text: &str, source: &str, next: Option<&Token>) -> Class {
        let next = next.map(|token| (token.kind, &source[token.range.clone()]));
        if self.is_decorator {
            Class::Decorator
        } else if self.before == "." {
            Class::Name
        } else if words::KEYWORDS.contains(&text) {
            Class::Keyword
        // A word right behind `type` makes that a keyword.
        } else if matches!(self.before, "def" | "class" | "type") {
            Class::Definition
        } else if self.before.is_empty() && words::is_soft_keyword(text, next) {
            Class::Keyword
        } else if words::BUILTINS.binary_search(&text).is_ok() {
            Class::Builtin
        } else {
            Class::Name
        }
    }
}

#[cfg(test)]
mod tests;
