//! What a freeze hands over.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use crate::limits::PAGE_BYTES;
use crate::worker::error::WorkerError;
use crate::worker::parts::Page;

/// Pages that a freeze has found changed.
///
/// They are read and never mapped: a worker that a guest has taken over could change the file under a mapping, or
/// cut it off.
#[derive(Debug)]
pub struct Changed {
    /// The number of the moment.
    pub mark: u64,
    pub(super) indices: Vec<u64>,
    pub(super) contents: File,
}

impl Changed {
    /// Gives each page with its index to `each`, in rising order, and returns how many there were.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn for_each(&self, mut each: impl FnMut(u64, &Page)) -> Result<u64, WorkerError> {
        let mut page = [0; PAGE_BYTES];
        for (place, index) in (0..).zip(&self.indices) {
            self.contents
                .read_exact_at(&mut page, place * PAGE_BYTES as u64)
                .map_err(WorkerError::Read)?;
            each(*index, &page);
        }
        Ok(self.indices.len() as u64)
    }
}
