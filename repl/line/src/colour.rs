//! Colours: one place for what looks how.

use vmrepl_session::Language;
use vmrepl_syntax::{Class, Completeness, completeness, javascript_spans, spans};

pub(crate) const RESET: &str = "\x1b[0m";
pub(crate) const RED: &str = "\x1b[31m";
pub(crate) const DIM: &str = "\x1b[2m";
pub(crate) const PROMPT: &str = "\x1b[1;32m";
/// What the parser stumbles over.
const FAULT: &str = "\x1b[4;31m";

/// Source with its colours.
pub(crate) fn paint(source: &str, language: Language) -> String {
    let (spans, fault) = match language {
        Language::Python => (spans(source), fault(source)),
        Language::JavaScript => (javascript_spans(source), None),
        _ => (Vec::new(), None),
    };
    let mut painted = String::with_capacity(source.len() * 2);
    let mut at = 0;
    for span in spans {
        painted.push_str(&source[at..span.range.start]);
        let text = &source[span.range.clone()];
        let colour = if fault.is_some_and(|offset| span.range.contains(&offset)) {
            FAULT
        } else {
            colour_of(span.class)
        };
        if colour.is_empty() {
            painted.push_str(text);
        } else {
            // Line by line: a colour must not run on over the end of a line that is redrawn alone.
            for (number, line) in text.split('\n').enumerate() {
                if number > 0 {
                    painted.push('\n');
                }
                painted.push_str(colour);
                painted.push_str(line);
                painted.push_str(RESET);
            }
        }
        at = span.range.end;
    }
    painted.push_str(&source[at..]);
    painted
}

/// Where the parser stumbles.
fn fault(source: &str) -> Option<usize> {
    match completeness(source) {
        Completeness::Invalid(fault) => Some(fault.offset),
        _ => None,
    }
}

fn colour_of(class: Class) -> &'static str {
    match class {
        Class::Keyword => "\x1b[35m",
        Class::String => "\x1b[32m",
        Class::Number => "\x1b[36m",
        Class::Comment => "\x1b[90m",
        Class::Definition => "\x1b[34;1m",
        Class::Builtin => "\x1b[34m",
        Class::Decorator => "\x1b[33m",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_take_nothing_away() {
        for source in [
            "def f(x): return 'a'  # b",
            "x = '''a\nb'''",
            "é = (1",
            "x =",
        ] {
            let painted = paint(source, Language::Python);
            let mut plain = String::new();
            let mut rest = painted.as_str();
            while let Some((text, colour)) = rest.split_once('\x1b') {
                plain.push_str(text);
                rest = &colour[colour.find('m').unwrap() + 1..];
            }
            plain.push_str(rest);
            assert_eq!(plain, source);
        }
    }
}
