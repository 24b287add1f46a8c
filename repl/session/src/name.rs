//! Names that people give.

use crate::error::SessionError;
use crate::limits::NAME_CHARS_MAX;

/// Whether this is a name: it becomes a file's name, and part of `NAME@CELL`.
pub(crate) fn check(name: &str) -> Result<(), SessionError> {
    let fine = |c: char| c.is_ascii_alphanumeric() || "._+-".contains(c);
    if name.is_empty()
        || name.len() > NAME_CHARS_MAX
        || name.starts_with(['.', '-'])
        || !name.chars().all(fine)
    {
        return Err(SessionError::Name {
            name: name.to_owned(),
        });
    }
    Ok(())
}

/// The name of a session.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionName(String);

impl SessionName {
    /// Checks a name.
    ///
    /// # Errors
    /// When it is empty, too long, starts with a dot or a dash, or holds anything but letters, digits and `._+-`.
    pub fn new(name: &str) -> Result<Self, SessionError> {
        check(name)?;
        Ok(Self(name.to_owned()))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for SessionName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}
