//! Snapshots in the making: sections are gathered, the bulk is staged, and `publish` does the rest in order.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::header::{self, Facts, Header, HeaderError, Kind, SectionEntry};
use crate::limits::{self, SUM_CHUNK_BYTES};
use crate::page_index::{self, Encoding, PageIndex};
use crate::snapshot::{FILE, MEMORY_FILE, PAGES_FILE};
use crate::staging::{Staging, random_id};
use crate::store::Store;
use crate::sums::{self, Sums};
use crate::{Page, SnapshotId, StoreError, disk, memory};

/// A base in the making: an engine fills the memory file, the caller gives the sections.
///
/// Dropped without `publish`, it leaves nothing.
#[derive(Debug)]
pub struct BaseDraft {
    staging: Staging,
    memory_bytes: u64,
    sections: Sections,
}

/// A layer in the making.
///
/// Dropped without `publish`, it leaves nothing.
#[derive(Debug)]
pub struct LayerDraft {
    staging: Staging,
    parent: Header,
    sections: Sections,
}

#[derive(Debug, Default)]
struct Sections(Vec<(String, u32, Vec<u8>)>);

impl Store {
    /// Begins a base with an empty memory file of `memory_bytes`.
    ///
    /// # Errors
    /// When the file cannot be made, or no snapshot can have such a memory.
    pub fn base_draft(&self, memory_bytes: u64) -> Result<BaseDraft, StoreError> {
        if memory_bytes == 0
            || memory_bytes > limits::MEMORY_BYTES
            || !memory_bytes.is_multiple_of(size_of::<Page>() as u64)
        {
            return Err(StoreError::Facts {
                source: HeaderError::Memory {
                    bytes: memory_bytes,
                },
            });
        }
        let staging = Staging::create(self)?;
        let path = staging.path(MEMORY_FILE);
        let file = self.disk().create(&path)?;
        self.disk().set_length(&file, &path, memory_bytes)?;
        Ok(BaseDraft {
            staging,
            memory_bytes,
            sections: Sections::default(),
        })
    }

    /// Begins a layer over `parent`, which says what of engine, CPU and memory the layer belongs to.
    ///
    /// # Errors
    /// When the parent cannot be read, or its chain can take no more layers.
    pub fn layer_draft(&self, parent: &SnapshotId) -> Result<LayerDraft, StoreError> {
        let parent = self.snapshot(parent)?.header().clone();
        if parent.depth() >= limits::CHAIN_LAYERS {
            return Err(StoreError::ChainFull {
                id: parent.id,
                layers: parent.depth(),
            });
        }
        Ok(LayerDraft {
            staging: Staging::create(self)?,
            parent,
            sections: Sections::default(),
        })
    }
}

impl BaseDraft {
    /// The file that holds the memory: there, of the right size, all holes, readable and writable by its owner.
    pub fn memory_path(&self) -> PathBuf {
        self.staging.path(MEMORY_FILE)
    }

    /// Adds a section.
    ///
    /// # Errors
    /// When name or size is not allowed.
    pub fn section(&mut self, name: &str, version: u32, bytes: &[u8]) -> Result<(), StoreError> {
        self.sections.add(name, version, bytes)
    }

    /// Publishes the base. The engine must have exited, so that nothing writes into the memory any more.
    ///
    /// # Errors
    /// When a step fails; the error names the step and the path, and the store is as before. Only after the last sync
    /// failed can the snapshot be there: whole, needed by nothing, and left to [`Store::collect`].
    pub fn publish(mut self, facts: &Facts) -> Result<SnapshotId, StoreError> {
        facts
            .check()
            .map_err(|source| StoreError::Facts { source })?;
        let (store, path) = (self.staging.store().clone(), self.memory_path());
        let file = store.disk().open_filled(&path)?;
        let found = disk::length(&file, &path)?;
        if found != self.memory_bytes || found != facts.memory_bytes {
            return Err(StoreError::FileLength {
                path,
                found,
                expected: facts.memory_bytes,
            });
        }
        let sums = memory::punch_and_sum(store.disk(), &file, &path, found)?;
        self.sections.0.push((
            sums::MEMORY_SECTION.to_owned(),
            sums::VERSION,
            sums.encode(),
        ));
        store.disk().sync_file(&file, &path)?;
        let id = random_id(&store)?;
        write_snapshot_file(&self.staging, id, Kind::Base, facts.clone(), &self.sections)?;
        self.staging.publish(&id, None)?;
        Ok(id)
    }
}

impl LayerDraft {
    /// Adds a section.
    ///
    /// # Errors
    /// When name or size is not allowed.
    pub fn section(&mut self, name: &str, version: u32, bytes: &[u8]) -> Result<(), StoreError> {
        self.sections.add(name, version, bytes)
    }

    /// Publishes the layer with these pages (page index, content), in any order.
    ///
    /// # Errors
    /// When a page is given twice or lies outside the memory, or a step fails; then the store is as before, with the
    /// exception of [`BaseDraft::publish`].
    pub fn publish<'a>(
        mut self,
        pages: impl IntoIterator<Item = (u64, &'a Page)>,
    ) -> Result<SnapshotId, StoreError> {
        let mut pages: Vec<(u64, &Page)> = pages.into_iter().collect();
        pages.sort_unstable_by_key(|(page, _)| *page);
        let page_count = self.parent.page_count();
        if let Some((page, _)) = pages.last().filter(|(page, _)| *page >= page_count) {
            return Err(StoreError::PageOutside {
                page: *page,
                page_count,
            });
        }
        let store = self.staging.store().clone();
        let (index, sums) = self.write_pages(&pages)?;
        self.sections.0.push((
            page_index::SECTION.to_owned(),
            page_index::VERSION,
            index.encode(),
        ));
        self.sections
            .0
            .push((sums::PAGES_SECTION.to_owned(), sums::VERSION, sums.encode()));
        let id = random_id(&store)?;
        let kind = Kind::Layer {
            parent: self.parent.id,
            depth: self.parent.depth() + 1,
        };
        write_snapshot_file(
            &self.staging,
            id,
            kind,
            self.parent.facts.clone(),
            &self.sections,
        )?;
        self.staging.publish(&id, Some(self.parent.id))?;
        Ok(id)
    }

    fn write_pages(&self, pages: &[(u64, &Page)]) -> Result<(PageIndex, Sums), StoreError> {
        let (disk, path) = (self.staging.store().disk(), self.staging.path(PAGES_FILE));
        let file = disk.create(&path)?;
        let (mut index, mut sums) = (PageIndex::default(), Sums::default());
        let mut chunk: Vec<u8> = Vec::new();
        let mut write = |chunk: &mut Vec<u8>, number: usize| {
            disk.write(&file, &path, chunk)?;
            sums.push(
                u32::try_from(number).expect("pages are 32-bit numbers"),
                chunk,
            );
            chunk.clear();
            Ok::<(), StoreError>(())
        };
        let mut written = 0;
        for (page, content) in pages {
            let encoding = Encoding::of(content);
            let stored = encoding.stored(content);
            if !index.push(*page, encoding, stored.len()) {
                return Err(StoreError::PageTwice { page: *page });
            }
            // Whole pages fill a chunk exactly.
            chunk.extend_from_slice(stored);
            if chunk.len() == SUM_CHUNK_BYTES {
                write(&mut chunk, written)?;
                written += 1;
            }
        }
        if !chunk.is_empty() {
            write(&mut chunk, written)?;
        }
        disk.sync_file(&file, &path)?;
        Ok((index, sums))
    }
}

impl Sections {
    fn add(&mut self, name: &str, version: u32, bytes: &[u8]) -> Result<(), StoreError> {
        let refused = |source| StoreError::Facts { source };
        header::check_section_name(name).map_err(refused)?;
        if [
            sums::MEMORY_SECTION,
            sums::PAGES_SECTION,
            page_index::SECTION,
        ]
        .contains(&name)
        {
            return Err(StoreError::SectionReserved {
                name: name.to_owned(),
            });
        }
        if self.0.iter().any(|(earlier, ..)| earlier == name) {
            return Err(refused(HeaderError::SectionTwice {
                name: name.to_owned(),
            }));
        }
        check_section_length(name, bytes)?;
        self.0.push((name.to_owned(), version, bytes.to_vec()));
        Ok(())
    }
}

fn check_section_length(name: &str, bytes: &[u8]) -> Result<(), StoreError> {
    if bytes.len() as u64 > limits::SECTION_BYTES {
        return Err(StoreError::SectionTooLong {
            name: name.to_owned(),
            bytes: bytes.len(),
            limit: limits::SECTION_BYTES,
        });
    }
    Ok(())
}

/// Writes and syncs the snapshot file; it holds the sums of all else and so comes last.
fn write_snapshot_file(
    staging: &Staging,
    id: SnapshotId,
    kind: Kind,
    facts: Facts,
    sections: &Sections,
) -> Result<(), StoreError> {
    let (header, bytes) = encode_snapshot_file(id, kind, facts, sections)?;
    debug_assert_eq!(header.file_bytes(), bytes.len() as u64);
    write_synced(staging.store(), &staging.path(FILE), &bytes)
}

fn encode_snapshot_file(
    id: SnapshotId,
    kind: Kind,
    facts: Facts,
    sections: &Sections,
) -> Result<(Header, Vec<u8>), StoreError> {
    let count = sections.0.len();
    if u32::try_from(count).is_ok_and(|count| count > limits::SECTIONS) {
        let count = limits::SECTIONS.saturating_add(1);
        return Err(StoreError::Facts {
            source: HeaderError::SectionCount { count },
        });
    }
    // What is written must be readable: a header that says more is refused.
    let file_bytes = sections
        .0
        .iter()
        .fold(header::header_bytes(count) as u64, |sum, (_, _, bytes)| {
            sum.saturating_add(bytes.len() as u64)
        });
    if file_bytes > limits::SNAPSHOT_FILE_BYTES {
        return Err(StoreError::FileTooLong { bytes: file_bytes });
    }
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let created_ms = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
    let mut header = Header {
        id,
        kind,
        facts,
        created_ms,
        sections: Vec::with_capacity(count),
    };
    let mut offset = header::header_bytes(count) as u64;
    for (name, version, bytes) in &sections.0 {
        let length = bytes.len() as u64;
        check_section_length(name, bytes)?;
        let checksum = *blake3::hash(bytes).as_bytes();
        header.sections.push(SectionEntry {
            name: name.clone(),
            version: *version,
            offset,
            length,
            checksum,
        });
        offset += length;
    }
    let mut file = header.encode();
    for (_, _, bytes) in &sections.0 {
        file.extend_from_slice(bytes);
    }
    Ok((header, file))
}

/// Creates a file with this content and makes it last.
pub(crate) fn write_synced(store: &Store, path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let file: File = store.disk().create(path)?;
    store.disk().write(&file, path, bytes)?;
    store.disk().sync_file(&file, path)
}
