//! What was copied, and what was left out.

use std::path::Path;

use crate::limits::{SKIPPED_NAME_CHARS, SKIPPED_NAMED};

/// Hears of progress: the name of the entry at hand, and the bytes of files so far.
pub type Watch<'a> = dyn FnMut(&Path, u64) + 'a;

/// What was copied.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tally {
    /// Regular files.
    pub files: u64,
    /// Folders; the copied folder itself is one.
    pub folders: u64,
    /// Symbolic links, and further names of files.
    pub links: u64,
    /// Bytes of files.
    pub bytes: u64,
    /// How many entries were left out, or are not what they were.
    pub skipped_count: u64,
    /// The first 100 of them.
    pub skipped: Vec<Skipped>,
}

/// An entry that was left out, or that is not what it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    /// Its name below the folder, cut where it is very long.
    pub path: String,
    /// Why.
    pub why: String,
}

impl Tally {
    pub(crate) fn skip(&mut self, path: &Path, why: &str) {
        self.skipped_count += 1;
        if self.skipped.len() < SKIPPED_NAMED {
            let path = path
                .to_string_lossy()
                .chars()
                .take(SKIPPED_NAME_CHARS)
                .collect();
            self.skipped.push(Skipped {
                path,
                why: why.to_owned(),
            });
        }
    }
}
