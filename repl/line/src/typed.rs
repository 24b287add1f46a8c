//! What Enter means: the cell is whole, or it goes on.

use vmrepl_session::{Command, Completeness as Told, CompletenessStatus, Language, command_of};
use vmrepl_syntax::Completeness;

/// What to do with the text at Enter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Typed {
    /// It is a cell, a command, or something whose fault the guest will name.
    Whole,
    /// It goes on in a new line that starts with this.
    More { indent: String },
}

/// Whether the line is for the face and not for Python.
pub(crate) fn is_for_the_face(text: &str) -> bool {
    let line = text.trim();
    let name = line.trim_end_matches('?').trim_end();
    line.starts_with([':', '?'])
        || (line.ends_with('?')
            && !name
                .contains(|sign: char| sign.is_whitespace() || matches!(sign, '#' | '"' | '\'')))
}

/// Decides by the host's parser; asks the guest when that cannot tell, or knows Python alone.
pub(crate) fn decide(
    text: &str,
    language: Language,
    ask: impl FnOnce(&str) -> Option<Told>,
) -> Typed {
    if text.trim().is_empty() || is_for_the_face(text) {
        return Typed::Whole;
    }
    match command_of(text) {
        // What ends a program only its author knows: a blank line does here.
        Some(Command::Program { .. }) if !text.ends_with('\n') => {
            return Typed::More {
                indent: String::new(),
            };
        }
        Some(_) => return Typed::Whole,
        None => {}
    }
    let told = match language {
        Language::Python => vmrepl_syntax::completeness(text),
        _ => Completeness::Unsure,
    };
    match told {
        Completeness::Complete | Completeness::Invalid(_) => Typed::Whole,
        Completeness::Incomplete { indent } => Typed::More { indent },
        Completeness::Unsure => match ask(text) {
            Some(told) if told.status == CompletenessStatus::Incomplete => Typed::More {
                indent: told.indent,
            },
            _ => Typed::Whole,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_and_questions_are_whole() {
        for text in [
            "",
            "  ",
            ":help",
            ":time for x in y:",
            "df?",
            "?df",
            "a.b??",
            "!ls (",
            "!for x in a b",
        ] {
            assert_eq!(
                decide(text, Language::Python, |_| None),
                Typed::Whole,
                "{text:?}"
            );
        }
        assert!(!is_for_the_face("print('why?')"));
        assert!(!is_for_the_face("x = 1  # why?"));
        assert!(!is_for_the_face("ls file?"));
    }

    #[test]
    fn a_program_goes_on_until_its_blank_line() {
        let more = Typed::More {
            indent: String::new(),
        };
        assert_eq!(decide("%%cpp", Language::Python, |_| None), more);
        assert_eq!(
            decide("%%cpp\nint main() {}", Language::Python, |_| None),
            more
        );
        assert_eq!(
            decide("%%cpp\nint main() {}\n", Language::Python, |_| None),
            Typed::Whole
        );
        assert_eq!(decide("%%perl", Language::Python, |_| None), Typed::Whole);
    }

    #[test]
    fn a_block_goes_on_until_its_blank_line() {
        let more = |text: &str| decide(text, Language::Python, |_| None);
        let indent = |text: &str| Typed::More {
            indent: text.to_owned(),
        };
        assert_eq!(more("def f():"), indent("    "));
        assert_eq!(more("def f():\n    return 1"), indent(""));
        assert_eq!(more("def f():\n    return 1\n"), Typed::Whole);
        assert_eq!(more("f(1,"), indent(""));
        assert_eq!(more("1 +"), Typed::Whole);
        assert_eq!(more("1 + 1"), Typed::Whole);
    }
}
