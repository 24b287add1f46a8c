//! Pages on their way to a snapshot that are too many to be held in memory.

use std::fs::File;
use std::path::PathBuf;

use crate::disk;
use crate::error::StoreError;
use crate::limits::SUM_CHUNK_BYTES;
use crate::staging::Staging;
use crate::store::Store;
use crate::{PAGE_BYTES, Page};

/// Pages in a file of the store's file system, which goes with this.
#[derive(Debug)]
pub struct Scratch {
    staging: Staging,
    file: File,
    path: PathBuf,
    indices: Vec<u64>,
    /// What was not written yet: less than a chunk.
    chunk: Vec<u8>,
}

impl Store {
    /// Makes room for pages.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub fn scratch(&self) -> Result<Scratch, StoreError> {
        let staging = Staging::create(self)?;
        let path = staging.path("scratch");
        Ok(Scratch {
            file: self.disk().create(&path)?,
            staging,
            path,
            indices: Vec::new(),
            chunk: Vec::with_capacity(SUM_CHUNK_BYTES),
        })
    }
}

impl Scratch {
    /// Adds a page.
    ///
    /// # Errors
    /// When it cannot be written; what is there then is of no use.
    pub fn push(&mut self, page: u64, content: &Page) -> Result<(), StoreError> {
        self.indices.push(page);
        self.chunk.extend_from_slice(content);
        if self.chunk.len() >= SUM_CHUNK_BYTES {
            self.write_chunk()?;
        }
        Ok(())
    }

    fn write_chunk(&mut self) -> Result<(), StoreError> {
        let disk = self.staging.store().disk();
        disk.write(&self.file, &self.path, &self.chunk)?;
        self.chunk.clear();
        Ok(())
    }

    /// How many pages there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.indices.len()
    }

    /// Calls `each` with every page, in the order in which they came; stops at the first error.
    ///
    /// # Errors
    /// When they cannot be written or read, or `each` fails.
    pub fn for_each<E: From<StoreError>>(
        &mut self,
        mut each: impl FnMut(u64, &Page) -> Result<(), E>,
    ) -> Result<(), E> {
        if !self.chunk.is_empty() {
            self.write_chunk()?;
        }
        let (mut bytes, mut offset) = (vec![0; SUM_CHUNK_BYTES], 0);
        for indices in self.indices.chunks(SUM_CHUNK_BYTES / PAGE_BYTES) {
            let read = &mut bytes[..indices.len() * PAGE_BYTES];
            disk::read_at(&self.file, &self.path, read, offset)?;
            offset += read.len() as u64;
            for (page, content) in indices.iter().zip(read.as_chunks::<PAGE_BYTES>().0) {
                each(*page, content)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_come_back_in_their_order_and_leave_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        for count in [0, 1, 255, 256, 257, 1000_u64] {
            let mut scratch = store.scratch().unwrap();
            let byte = |page: u64| u8::try_from(page % 251).unwrap();
            for page in (0..count).rev() {
                scratch.push(page, &[byte(page); PAGE_BYTES]).unwrap();
            }
            assert_eq!(scratch.count() as u64, count);
            for _ in 0..2 {
                let mut expected = (0..count).rev();
                let read = scratch.for_each(|page, content| {
                    assert_eq!(Some(page), expected.next());
                    assert!(*content == [byte(page); PAGE_BYTES]);
                    Ok::<_, StoreError>(())
                });
                read.unwrap();
                assert_eq!(expected.next(), None);
            }
        }
        let left = std::fs::read_dir(store.staging_folder()).unwrap();
        assert_eq!(left.count(), 0);
    }
}
