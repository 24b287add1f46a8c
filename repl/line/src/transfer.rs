//! Copies between the host and the guest, by the commands `:put` and `:get`.

use std::path::Path;

use vmrepl_session::{Copied, Session, SessionError, copy_in, copy_out};

use crate::screen::Screen;

/// Copies in. In a session with a name it is written down like a cell, and undone like one.
pub(crate) fn put(
    session: &mut Session,
    screen: &mut Screen<'_>,
    words: &str,
) -> Result<(), SessionError> {
    let Some((source, target)) = two(words) else {
        screen.say("say what to copy, and where to, such as :put data.csv /tmp");
        return Ok(());
    };
    let target = target.unwrap_or_else(|| ".".to_owned());
    let aside = session.begin_aside(&format!(":put {words}"))?;
    let copied = copy_in(session, Path::new(&source), &target, &mut |_| {});
    let (code, said) = match &copied {
        Ok(copied) => (0, summary(copied)),
        Err(error) => (1, error.to_string()),
    };
    session.end_aside(&aside, code, said)?;
    tell(screen, &copied?);
    Ok(())
}

/// Copies out.
pub(crate) fn get(
    session: &mut Session,
    screen: &mut Screen<'_>,
    words: &str,
) -> Result<(), SessionError> {
    let Some((source, target)) = two(words) else {
        screen.say("say what to copy, and where to, such as :get result.csv .");
        return Ok(());
    };
    session.make_ready()?;
    let target = target.unwrap_or_else(|| ".".to_owned());
    let copied = copy_out(session, &source, Path::new(&target), &mut |_| {})?;
    tell(screen, &copied);
    Ok(())
}

fn tell(screen: &mut Screen<'_>, copied: &Copied) {
    screen.say(&summary(copied));
    for skipped in &copied.skipped {
        screen.say(&format!("left out {}: {}", skipped.path, skipped.why));
    }
}

fn summary(copied: &Copied) -> String {
    let files = match copied.files {
        1 => "1 file".to_owned(),
        files => format!("{files} files"),
    };
    format!("{files}, {} bytes", copied.bytes)
}

/// One or two words; one with a space in it stands in quotes.
fn two(words: &str) -> Option<(String, Option<String>)> {
    let mut rest = words.trim();
    let mut next = || {
        let (word, behind) = match rest.chars().next()? {
            quote @ ('"' | '\'') => rest[1..].split_once(quote)?,
            _ => rest.split_once(char::is_whitespace).unwrap_or((rest, "")),
        };
        rest = behind.trim_start();
        Some(word.to_owned())
    };
    let first = next()?;
    let second = next();
    rest.is_empty().then_some((first, second))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_may_be_quoted() {
        let said =
            |first: &str, second: Option<&str>| Some((first.to_owned(), second.map(str::to_owned)));
        assert_eq!(two("a"), said("a", None));
        assert_eq!(two("'a b' /tmp"), said("a b", Some("/tmp")));
        assert_eq!(two("a \"c d\""), said("a", Some("c d")));
        assert_eq!(two("a b c"), None);
        assert_eq!(two(""), None);
        assert_eq!(two("'a"), None);
    }
}
