//! How far a copy is.

use std::path::Path;

/// How far a copy is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress<'a> {
    /// The entry at hand: a name below the copied folder, or the copied file's own. A guest's names may hold anything.
    pub entry: &'a Path,
    /// Bytes of files so far.
    pub done_bytes: u64,
    /// How many there were when the copy began, where that is known.
    pub total_bytes: Option<u64>,
}

/// Passes progress on with the total.
pub(super) fn watch<'a>(
    progress: &'a mut dyn FnMut(Progress<'_>),
    total_bytes: Option<u64>,
) -> impl FnMut(&Path, u64) + 'a {
    move |entry, done_bytes| {
        progress(Progress {
            entry,
            done_bytes,
            total_bytes,
        });
    }
}
