//! Writes the stored pages of a layer, with their index and their checksums.

use std::fs::File;
use std::path::PathBuf;

use crate::disk::Disk;
use crate::encoding::Encoding;
use crate::error::StoreError;
use crate::limits::SUM_CHUNK_BYTES;
use crate::page_index::PageIndex;
use crate::staging::Staging;
use crate::sums::Sums;

/// The file of a layer's pages in the making.
pub(crate) struct PageWriter<'a> {
    disk: &'a Disk,
    file: File,
    path: PathBuf,
    index: PageIndex,
    sums: Sums,
    /// What was not written yet: less than a chunk.
    chunk: Vec<u8>,
}

impl<'a> PageWriter<'a> {
    /// Makes the file that `index`, which has no page yet, will describe.
    pub(crate) fn create(staging: &'a Staging, index: PageIndex) -> Result<Self, StoreError> {
        let (disk, path) = (staging.store().disk(), staging.path(index.version.file()));
        Ok(Self {
            disk,
            file: disk.create(&path)?,
            path,
            index,
            sums: Sums::default(),
            chunk: Vec::new(),
        })
    }

    /// Appends a page. They come in order.
    pub(crate) fn push(
        &mut self,
        page: u64,
        encoding: Encoding,
        stored: &[u8],
    ) -> Result<(), StoreError> {
        if !self.index.push(page, encoding, stored.len()) {
            return Err(StoreError::PageTwice { page });
        }
        let room = SUM_CHUNK_BYTES - self.chunk.len();
        let (now, later) = stored.split_at(stored.len().min(room));
        self.chunk.extend_from_slice(now);
        if self.chunk.len() == SUM_CHUNK_BYTES {
            self.write_chunk()?;
        }
        self.chunk.extend_from_slice(later);
        Ok(())
    }

    /// Writes the rest and syncs the file.
    pub(crate) fn finish(mut self) -> Result<(PageIndex, Sums), StoreError> {
        if !self.chunk.is_empty() {
            self.write_chunk()?;
        }
        self.disk.sync_file(&self.file, &self.path)?;
        Ok((self.index, self.sums))
    }

    fn write_chunk(&mut self) -> Result<(), StoreError> {
        self.disk.write(&self.file, &self.path, &self.chunk)?;
        let number = u32::try_from(self.sums.0.len()).expect("pages are 32-bit numbers");
        self.sums.push(number, &self.chunk);
        self.chunk.clear();
        Ok(())
    }
}
