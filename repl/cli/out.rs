//! The only door to stdout and stderr.
#![expect(clippy::print_stderr, reason = "this is the door")]

use std::error::Error;
use std::io::{self, IsTerminal, Write};

/// Writes bytes to stdout at once.
pub(crate) fn raw(bytes: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(bytes)?;
    out.flush()
}

/// Writes bytes to stderr at once.
pub(crate) fn raw_error(bytes: &[u8]) -> io::Result<()> {
    io::stderr().lock().write_all(bytes)
}

/// Writes a line to stdout.
pub(crate) fn line(text: &str) -> io::Result<()> {
    let mut bytes = text.as_bytes().to_vec();
    bytes.push(b'\n');
    raw(&bytes)
}

/// A remark to the person, on stderr.
pub(crate) fn note(text: &str) {
    eprintln!("{}", harmless(text));
}

/// The text without bytes that a terminal obeys: some of it may be a guest's.
pub(crate) fn harmless(text: &str) -> String {
    let shown = |sign: char| !sign.is_control() || matches!(sign, '\n' | '\t');
    let kept = text
        .chars()
        .map(|sign| if shown(sign) { sign } else { '\u{fffd}' });
    kept.collect()
}

/// A hint, on stderr.
pub(crate) fn hint(text: &str) {
    eprintln!("hint: {}", harmless(text));
}

/// An error with all its causes, once.
pub(crate) fn error(error: &dyn Error) {
    eprintln!("vmrepl: {}", harmless(&chain(error)));
}

/// An error and its causes as one line.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}

/// Whether a person sits before stdin and stderr.
pub(crate) fn is_interactive() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// Asks a yes-or-no question; yes is the default.
pub(crate) fn ask(question: &str) -> bool {
    eprint!("{question} [Y/n] ");
    let mut answer = String::new();
    io::stdin()
        .read_line(&mut answer)
        .is_ok_and(|count| count > 0)
        && matches!(answer.trim().to_lowercase().as_str(), "" | "y" | "yes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_a_terminal_obeys_is_left() {
        assert_eq!(harmless("a\tb\nß €"), "a\tb\nß €");
        assert_eq!(
            harmless("\x1b[2J\r\u{9b}31m\x07"),
            "\u{fffd}[2J\u{fffd}\u{fffd}31m\u{fffd}"
        );
    }
}
