//! What goes wrong in the record.

use std::path::PathBuf;

use rusqlite::ErrorCode;

/// What goes wrong in the record.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// The file cannot be opened or is no database.
    #[error("could not open the record of sessions {path}")]
    Open {
        /// Its place.
        path: PathBuf,
        /// Why.
        #[source]
        source: rusqlite::Error,
    },
    /// The file was written by a later version of this program.
    #[error("the record of sessions {path} has version {found}, this program knows {known}")]
    Version {
        /// Its place.
        path: PathBuf,
        /// What the file says.
        found: u32,
        /// The newest that is known here.
        known: u32,
    },
    /// A step failed.
    #[error("could not {step}")]
    Step {
        /// What was being done.
        step: &'static str,
        /// Why it failed.
        #[source]
        source: rusqlite::Error,
    },
    /// No session has this name.
    #[error("there is no session {name:?}")]
    NoSession {
        /// The name.
        name: String,
    },
    /// The name is taken.
    #[error("there is a session {name:?} already")]
    Taken {
        /// The name.
        name: String,
    },
    /// The session has no such cell.
    #[error("the session has no cell {number}")]
    NoCell {
        /// The number asked for.
        number: u32,
    },
    /// There are fewer steps that way.
    #[error("cannot go {way} by {asked}: only {found} cells are there")]
    TooFar {
        /// Back or forward.
        way: &'static str,
        /// How many were asked for.
        asked: u32,
        /// How many there are.
        found: u32,
    },
}

impl HistoryError {
    /// Whether the disk failed, as one without room does.
    #[must_use]
    pub fn is_of_the_disk(&self) -> bool {
        let (Self::Open { source, .. } | Self::Step { source, .. }) = self else {
            return false;
        };
        matches!(
            source.sqlite_error_code(),
            Some(ErrorCode::DiskFull | ErrorCode::SystemIoFailure | ErrorCode::CannotOpen)
        )
    }
}

/// Names the step that failed.
pub(crate) fn failed(step: &'static str) -> impl Fn(rusqlite::Error) -> HistoryError {
    move |source| HistoryError::Step { step, source }
}
