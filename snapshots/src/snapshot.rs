//! One published snapshot, opened for reading.

use std::fs::File;
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;

use crate::disk;
use crate::error::{Step, StoreError};
use crate::header::{Header, LONGEST_HEADER_BYTES, SectionEntry};
use crate::page_index::{self, IndexVersion, PageIndex};
use crate::sums::{self, Sums};
use crate::{Kind, SnapshotId};

/// Header and sections.
pub(crate) const FILE: &str = "snapshot";
/// A base's memory.
pub(crate) const MEMORY_FILE: &str = "memory";
/// The first read: header and, of an ordinary snapshot, all sections.
const FIRST_READ_BYTES: usize = 64 << 10;
const _: () = assert!(LONGEST_HEADER_BYTES <= FIRST_READ_BYTES);

/// A snapshot whose header is valid.
#[derive(Debug)]
pub struct Snapshot {
    folder: PathBuf,
    header: Header,
    /// The beginning of the file, as the first read brought it.
    head: Vec<u8>,
}

/// The content of a section whose checksum held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    /// Version of the content.
    pub version: u32,
    /// The content.
    pub bytes: Vec<u8>,
}

/// The stored pages of a layer, and what says what they mean.
#[derive(Debug)]
pub(crate) struct StoredPages {
    pub(crate) index: PageIndex,
    /// As long as the index says.
    pub(crate) file: File,
    pub(crate) path: PathBuf,
}

/// Keeps a snapshot, and with it all its parents, from being removed until it is dropped.
#[derive(Debug)]
pub struct Hold {
    _folder: File,
}

impl Snapshot {
    pub(crate) fn open(folder: &Path, id: SnapshotId) -> Result<Self, StoreError> {
        let path = folder.join(FILE);
        let file = disk::open(&path)?;
        let file_bytes = disk::length(&file, &path)?;
        let first = usize::try_from(file_bytes)
            .unwrap_or(usize::MAX)
            .min(FIRST_READ_BYTES);
        let mut head = vec![0; first];
        disk::read_at(&file, &path, &mut head, 0)?;
        let header = Header::decode(&head, file_bytes).map_err(|source| StoreError::Header {
            path: path.clone(),
            source,
        })?;
        if header.id != id {
            return Err(StoreError::WrongId {
                path,
                found: header.id,
            });
        }
        Ok(Self {
            folder: folder.to_owned(),
            header,
            head,
        })
    }

    /// The id.
    pub fn id(&self) -> SnapshotId {
        self.header.id
    }

    /// The header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The memory file of a base; nothing for a layer.
    pub fn memory_path(&self) -> Option<PathBuf> {
        (self.header.kind == Kind::Base).then(|| self.folder.join(MEMORY_FILE))
    }

    /// Reads a section. Its checksum, and no other, is verified.
    ///
    /// # Errors
    /// When there is no such section or it is damaged; the error names it.
    pub fn read_section(&self, name: &str) -> Result<Section, StoreError> {
        let entry = self
            .header
            .section(name)
            .ok_or_else(|| StoreError::SectionMissing {
                section: name.to_owned(),
                path: self.path(),
            })?;
        let bytes = self.section_bytes(entry)?;
        if *blake3::hash(&bytes).as_bytes() != entry.checksum {
            return Err(StoreError::SectionDamaged {
                section: name.to_owned(),
                path: self.path(),
            });
        }
        Ok(Section {
            version: entry.version,
            bytes,
        })
    }

    /// Keeps this snapshot from being removed while a machine runs on it.
    ///
    /// # Errors
    /// When it has been removed meanwhile.
    pub fn hold(&self) -> Result<Hold, StoreError> {
        let folder =
            File::open(&self.folder).map_err(StoreError::disk(Step::Open, &self.folder))?;
        rustix::io::retry_on_intr(|| rustix::fs::flock(&folder, FlockOperation::LockShared))
            .map_err(StoreError::disk(Step::Lock, &self.folder))?;
        // Opened before a removal moved the folder away, locked after it: the lock would guard what is gone.
        disk::open(&self.path())?;
        Ok(Hold { _folder: folder })
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.folder.join(FILE)
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    fn section_bytes(&self, entry: &SectionEntry) -> Result<Vec<u8>, StoreError> {
        let range = usize::try_from(entry.offset)
            .ok()
            .zip(usize::try_from(entry.offset + entry.length).ok());
        if let Some(bytes) = range.and_then(|(from, to)| self.head.get(from..to)) {
            return Ok(bytes.to_vec());
        }
        let path = self.path();
        let file = disk::open(&path)?;
        let length = usize::try_from(entry.length)
            .expect("the header's limits keep sections far below 4 GiB");
        let mut bytes = vec![0; length];
        disk::read_at(&file, &path, &mut bytes, entry.offset)?;
        Ok(bytes)
    }

    /// Looks at how this snapshot is stored; looks again if that failed and was no longer so.
    ///
    /// Between the look at its header and the next one a layer may have been encoded: then the other index counts, and
    /// its file. That happens once to a layer, so the second look is the last.
    pub(crate) fn settled<T, E>(&self, look: impl Fn(&Self) -> Result<T, E>) -> Result<T, E> {
        match look(self) {
            Err(error) => match self.if_changed() {
                Some(now) => look(&now),
                None => Err(error),
            },
            seen => seen,
        }
    }

    /// The snapshot as it is stored now, if that is not as it was.
    pub(crate) fn if_changed(&self) -> Option<Self> {
        let now = Self::open(&self.folder, self.id()).ok()?;
        (now.header != self.header).then_some(now)
    }

    /// Opens the pages of a layer.
    pub(crate) fn stored_pages(&self) -> Result<StoredPages, StoreError> {
        self.settled(Self::open_pages)
    }

    /// How a layer's pages are stored; nothing for a base, or if the header says what this program does not know.
    pub(crate) fn index_version(&self) -> Option<IndexVersion> {
        IndexVersion::from_number(self.header.section(page_index::SECTION)?.version)
    }

    /// Opens the pages that this header means, and no others.
    pub(crate) fn open_pages(&self) -> Result<StoredPages, StoreError> {
        let index = self.page_index()?;
        let path = self.folder.join(index.version.file());
        let file = disk::open(&path)?;
        let found = disk::length(&file, &path)?;
        if found != index.stored_bytes {
            return Err(StoreError::FileLength {
                path,
                found,
                expected: index.stored_bytes,
            });
        }
        Ok(StoredPages { index, file, path })
    }

    pub(crate) fn page_index(&self) -> Result<PageIndex, StoreError> {
        let section = self.read_section(page_index::SECTION)?;
        PageIndex::decode(&section.bytes, section.version, self.header.page_count()).map_err(
            |source| StoreError::PageIndex {
                path: self.path(),
                source,
            },
        )
    }

    pub(crate) fn memory_sums(&self) -> Result<Sums, StoreError> {
        let section = self.read_section(sums::MEMORY_SECTION)?;
        Sums::decode(
            &section.bytes,
            section.version,
            self.header.facts.memory_bytes,
        )
        .map_err(|source| StoreError::Sums {
            section: sums::MEMORY_SECTION,
            path: self.path(),
            source,
        })
    }

    pub(crate) fn page_sums(&self, stored_bytes: u64) -> Result<Sums, StoreError> {
        let section = self.read_section(sums::PAGES_SECTION)?;
        Sums::decode_dense(&section.bytes, section.version, stored_bytes).map_err(|source| {
            StoreError::Sums {
                section: sums::PAGES_SECTION,
                path: self.path(),
                source,
            }
        })
    }
}
