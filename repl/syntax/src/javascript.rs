//! Coloured pieces of JavaScript, by its words and signs alone: whether a slash divides or begins a pattern is told from
//! the sign before it.

use std::ops::Range;

use crate::spans::{Class, Span};

const KEYWORDS: [&str; 40] = [
    "async",
    "await",
    "break",
    "case",
    "catch",
    "class",
    "const",
    "continue",
    "debugger",
    "default",
    "delete",
    "do",
    "else",
    "export",
    "extends",
    "false",
    "finally",
    "for",
    "function",
    "if",
    "import",
    "in",
    "instanceof",
    "let",
    "new",
    "null",
    "of",
    "return",
    "static",
    "super",
    "switch",
    "this",
    "throw",
    "true",
    "try",
    "typeof",
    "var",
    "void",
    "while",
    "yield",
];
const DEFINING: [&str; 2] = ["class", "function"];

/// Cuts `source` into coloured pieces, sorted and without overlap. Takes any text, in linear time.
#[must_use]
pub fn javascript_spans(source: &str) -> Vec<Span> {
    let mut spans = Vec::new();
    let mut before = "";
    let mut at = 0;
    while let Some(first) = source[at..].chars().next() {
        let rest = &source[at..];
        let (length, class) = match first {
            _ if first.is_whitespace() => (first.len_utf8(), None),
            '/' if rest.starts_with("//") => (end_of(rest, "\n", 0), Some(Class::Comment)),
            '/' if rest.starts_with("/*") => (end_of(rest, "*/", 2), Some(Class::Comment)),
            '/' if begins_pattern(before) => match quoted(rest, '/') {
                Some(length) => (length, Some(Class::String)),
                None => (1, Some(Class::Operator)),
            },
            '"' | '\'' | '`' => (
                quoted(rest, first).unwrap_or(rest.len()),
                Some(Class::String),
            ),
            '0'..='9' => (
                run(rest, |c| c.is_alphanumeric() || matches!(c, '_' | '.')),
                Some(Class::Number),
            ),
            _ if is_of_name(first) => {
                let length = run(rest, is_of_name);
                (length, Some(class_of(&rest[..length], before)))
            }
            '(' | ')' | '[' | ']' | '{' | '}' => (1, Some(Class::Bracket)),
            _ => (first.len_utf8(), Some(Class::Operator)),
        };
        let range = at..at + length;
        at = range.end;
        if let Some(class) = class {
            if class != Class::Comment {
                before = &source[range.clone()];
            }
            push(&mut spans, range, class);
        }
    }
    spans
}

fn push(spans: &mut Vec<Span>, range: Range<usize>, class: Class) {
    spans.push(Span { range, class });
}

fn is_of_name(sign: char) -> bool {
    sign.is_alphanumeric() || matches!(sign, '_' | '$' | '#')
}

fn class_of(word: &str, before: &str) -> Class {
    // A property may have any name.
    if before != "." && KEYWORDS.contains(&word) {
        return Class::Keyword;
    }
    if DEFINING.contains(&before) {
        Class::Definition
    } else {
        Class::Name
    }
}

fn run(text: &str, belongs: impl Fn(char) -> bool) -> usize {
    text.find(|sign| !belongs(sign)).unwrap_or(text.len())
}

/// Where a comment is over that begins the text; `from` is what its beginning takes.
fn end_of(text: &str, end: &str, from: usize) -> usize {
    let found = text[from..].find(end);
    // The end of a line is not part of it.
    found.map_or(text.len(), |at| {
        from + at + if from > 0 { end.len() } else { 0 }
    })
}

/// How long a text in quotes is that begins here. None when it does not end; only backquotes may go over lines.
fn quoted(text: &str, quote: char) -> Option<usize> {
    let mut signs = text.char_indices().skip(1);
    while let Some((at, sign)) = signs.next() {
        match sign {
            '\\' => {
                signs.next();
            }
            '\n' if quote != '`' => return (quote != '/').then_some(at),
            _ if sign == quote => return Some(at + sign.len_utf8()),
            _ => {}
        }
    }
    None
}

/// Whether a slash behind this begins a pattern: behind a value it divides.
fn begins_pattern(before: &str) -> bool {
    match before.chars().next_back() {
        None => true,
        Some(')' | ']' | '}' | '"' | '\'' | '`') => false,
        Some(last) if is_of_name(last) => {
            matches!(before, "return" | "typeof" | "case" | "in" | "of")
        }
        Some(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn classes(source: &str) -> Vec<(&str, Class)> {
        let spans = javascript_spans(source);
        let coloured = spans
            .into_iter()
            .map(|span| (&source[span.range], span.class));
        coloured
            .filter(|(_, class)| !matches!(class, Class::Operator | Class::Bracket | Class::Name))
            .collect()
    }

    #[test]
    fn words_texts_and_comments_have_their_class() {
        use Class::{Comment, Definition, Keyword, Number, String};
        assert_eq!(
            classes("let a = 'x\\'y' + `b\n${c}` // d\n/* e\nf */ 0xff"),
            [
                ("let", Keyword),
                ("'x\\'y'", String),
                ("`b\n${c}`", String),
                ("// d", Comment),
                ("/* e\nf */", Comment),
                ("0xff", Number)
            ]
        );
        assert_eq!(
            classes("class A {} function f() { return this.class }"),
            [
                ("class", Keyword),
                ("A", Definition),
                ("function", Keyword),
                ("f", Definition),
                ("return", Keyword),
                ("this", Keyword)
            ]
        );
    }

    #[test]
    fn a_slash_divides_behind_a_value() {
        assert_eq!(classes("a / b / c"), []);
        assert_eq!(classes("(a) / 2 / b"), [("2", Class::Number)]);
        assert_eq!(classes("x = /a\\/b/.test"), [("/a\\/b/", Class::String)]);
        assert_eq!(
            classes("return /[/]"),
            [("return", Class::Keyword), ("/[/", Class::String)]
        );
    }

    #[test]
    fn any_text_is_taken() {
        for source in [
            "",
            "'",
            "`",
            "/*",
            "/",
            "\\",
            "'\\",
            "é$#ß",
            "\u{1F600}",
            "'a\nb'",
        ] {
            let mut end = 0;
            for span in javascript_spans(source) {
                assert!(
                    span.range.start >= end && span.range.end <= source.len(),
                    "{source:?}"
                );
                end = span.range.end;
            }
        }
    }
}
