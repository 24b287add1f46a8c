//! What can go wrong with an archive.

use std::io;
use std::path::Path;

/// Why an archive was not unpacked.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// The stream broke, or is no archive.
    #[error("could not read the archive")]
    Stream(#[source] io::Error),
    /// An entry that would not stay in the target, or that cannot be understood.
    #[error("entry {path:?} is refused: {why}")]
    Refused {
        /// Its name.
        path: String,
        /// What it did.
        why: &'static str,
    },
    /// An entry could not be written.
    #[error("could not write {path}")]
    Entry {
        /// Its name below the target.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl UnpackError {
    pub(crate) fn refused(path: &Path, why: &'static str) -> Self {
        Self::Refused {
            path: path.to_string_lossy().into_owned(),
            why,
        }
    }

    pub(crate) fn entry(path: &Path, source: impl Into<io::Error>) -> Self {
        Self::Entry {
            path: path.to_string_lossy().into_owned(),
            source: source.into(),
        }
    }
}
