//! Snapshots in the making: sections are gathered, the bulk is staged, and `publish` does the rest in order.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::encoding::Encoding;
use crate::header::{self, Facts, Header, HeaderError, Kind, SectionEntry};
use crate::layer_encoder::LayerEncoder;
use crate::limits;
use crate::page_index::{self, IndexVersion, PageIndex};
use crate::page_writer::PageWriter;
use crate::snapshot::{FILE, MEMORY_FILE, Snapshot};
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

/// The sections that only the store writes.
pub(crate) const OWN_SECTIONS: [&str; 3] = [
    sums::MEMORY_SECTION,
    sums::PAGES_SECTION,
    page_index::SECTION,
];

/// Name, version and content of every section, in file order.
#[derive(Debug, Default)]
pub(crate) struct Sections(Vec<(String, u32, Vec<u8>)>);

/// What a snapshot file says of itself: the id, the kind, and when it was made, in milliseconds since 1970.
type Made = (SnapshotId, Kind, u64);

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
        let made = (id, Kind::Base, now_ms());
        write_snapshot_file(&self.staging, made, facts.clone(), &self.sections)?;
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

    /// Publishes the layer with these pages (page index, content), in any order, as they are; [`Store::encode`] makes them
    /// smaller later.
    ///
    /// # Errors
    /// When a page is given twice or lies outside the memory, or a step fails; then the store is as before, with the
    /// exception of [`BaseDraft::publish`].
    pub fn publish<'a>(
        self,
        pages: impl IntoIterator<Item = (u64, &'a Page)>,
    ) -> Result<SnapshotId, StoreError> {
        self.publish_all(Form::Plain, pages)
    }

    /// Publishes the layer as [`Store::encode`] would leave it, without the pages that are as they were in the parent.
    ///
    /// Takes some 10 µs a page more than [`LayerDraft::publish`], most of it for the compression.
    ///
    /// # Errors
    /// As [`LayerDraft::publish`], and when the chain of the parent cannot be read.
    pub fn publish_encoded<'a>(
        self,
        pages: impl IntoIterator<Item = (u64, &'a Page)>,
    ) -> Result<SnapshotId, StoreError> {
        self.publish_all(Form::Encoded, pages)
    }

    fn publish_all<'a>(
        self,
        form: Form,
        pages: impl IntoIterator<Item = (u64, &'a Page)>,
    ) -> Result<SnapshotId, StoreError> {
        let pages = in_order(pages, self.parent.page_count())?;
        self.publish_from(form, |layer| {
            pages
                .into_iter()
                .try_for_each(|(page, content)| layer.push(page, content).map(drop))
        })
    }

    /// Publishes the layer with pages that `give` hands over one by one, in rising order.
    ///
    /// # Errors
    /// As [`LayerDraft::publish_encoded`], and when `give` fails.
    pub fn publish_from<E: From<StoreError>>(
        mut self,
        form: Form,
        give: impl FnOnce(&mut LayerPages<'_>) -> Result<(), E>,
    ) -> Result<SnapshotId, E> {
        let (index, sums) = match form {
            Form::Plain => {
                let index = PageIndex::new(IndexVersion::Plain, None);
                let writer = PageWriter::create(&self.staging, index)?;
                self.write(Writer::Plain(writer), 0, give)?
            }
            Form::Encoded => {
                let chain = self.staging.store().chain(&self.parent.id)?;
                let below = chain.pages()?;
                let encoder = LayerEncoder::create(&self.staging, &chain, &below, 0)?;
                self.write(Writer::Encoded(Box::new(encoder)), below.count(), give)?
            }
        };
        self.sections.push_pages(&index, &sums);
        Ok(self.publish_written()?)
    }

    fn write<E: From<StoreError>>(
        &self,
        writer: Writer<'_>,
        laid_below: usize,
        give: impl FnOnce(&mut LayerPages<'_>) -> Result<(), E>,
    ) -> Result<(PageIndex, Sums), E> {
        let mut pages = LayerPages {
            writer,
            page_count: self.parent.page_count(),
            laid_below,
        };
        give(&mut pages)?;
        Ok(match pages.writer {
            Writer::Plain(writer) => writer.finish()?,
            Writer::Encoded(encoder) => encoder.finish()?,
        })
    }

    /// How many layers the parent has below it and itself.
    #[must_use]
    pub fn parent_depth(&self) -> u32 {
        self.parent.depth()
    }

    fn publish_written(self) -> Result<SnapshotId, StoreError> {
        let id = random_id(self.staging.store())?;
        let kind = Kind::Layer {
            parent: self.parent.id,
            depth: self.parent.depth() + 1,
        };
        let made = (id, kind, now_ms());
        write_snapshot_file(&self.staging, made, self.parent.facts, &self.sections)?;
        self.staging.publish(&id, Some(self.parent.id))?;
        Ok(id)
    }
}

/// How the pages of a layer are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// As they are.
    Plain,
    /// As what differs from an ancestor, or compressed, and not at all where they are what they were in the parent.
    Encoded,
}

/// Takes the pages of a layer.
pub struct LayerPages<'a> {
    writer: Writer<'a>,
    page_count: u64,
    laid_below: usize,
}

enum Writer<'a> {
    Plain(PageWriter<'a>),
    Encoded(Box<LayerEncoder<'a>>),
}

impl std::fmt::Debug for LayerPages<'_> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("LayerPages").finish_non_exhaustive()
    }
}

impl LayerPages<'_> {
    /// Adds a page; each lies behind the one before. Returns whether it is stored.
    ///
    /// # Errors
    /// When it does not, or lies outside the memory, or cannot be written.
    pub fn push(&mut self, page: u64, content: &Page) -> Result<bool, StoreError> {
        check_within(page, self.page_count)?;
        let writer = match &mut self.writer {
            Writer::Encoded(encoder) => return encoder.push(page, content),
            Writer::Plain(writer) => writer,
        };
        match Encoding::plain(content) {
            Encoding::Zero => writer.push(page, Encoding::Zero, &[])?,
            plain => writer.push(page, plain, content)?,
        }
        Ok(true)
    }

    /// How many pages lie over the base below; known where they are looked at, for [`Form::Encoded`].
    #[must_use]
    pub fn laid_below(&self) -> usize {
        self.laid_below
    }
}

fn check_within(page: u64, page_count: u64) -> Result<(), StoreError> {
    if page >= page_count {
        return Err(StoreError::PageOutside { page, page_count });
    }
    Ok(())
}

/// The pages in rising order, each once and within the memory.
fn in_order<'a>(
    pages: impl IntoIterator<Item = (u64, &'a Page)>,
    page_count: u64,
) -> Result<Vec<(u64, &'a Page)>, StoreError> {
    let mut pages: Vec<(u64, &Page)> = pages.into_iter().collect();
    pages.sort_unstable_by_key(|(page, _)| *page);
    if let Some((page, _)) = pages.last() {
        check_within(*page, page_count)?;
    }
    if let Some(twice) = pages.windows(2).find(|two| two[0].0 == two[1].0) {
        return Err(StoreError::PageTwice { page: twice[0].0 });
    }
    Ok(pages)
}

impl Sections {
    /// Those of a snapshot but for what describes its memory or its pages.
    pub(crate) fn of(snapshot: &Snapshot) -> Result<Self, StoreError> {
        let entries = snapshot.header().sections.iter();
        let others = entries.filter(|entry| !OWN_SECTIONS.contains(&entry.name.as_str()));
        let read = others.map(|entry| {
            let section = snapshot.read_section(&entry.name)?;
            Ok((entry.name.clone(), section.version, section.bytes))
        });
        read.collect::<Result<_, StoreError>>().map(Self)
    }

    /// Adds what describes the pages of a layer.
    pub(crate) fn push_pages(&mut self, index: &PageIndex, sums: &Sums) {
        let page_index = (page_index::SECTION, index.version as u32, index.encode());
        let page_sums = (sums::PAGES_SECTION, sums::VERSION, sums.encode());
        for (name, version, bytes) in [page_index, page_sums] {
            self.0.push((name.to_owned(), version, bytes));
        }
    }

    fn add(&mut self, name: &str, version: u32, bytes: &[u8]) -> Result<(), StoreError> {
        let refused = |source| StoreError::Facts { source };
        header::check_section_name(name).map_err(refused)?;
        if OWN_SECTIONS.contains(&name) {
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
pub(crate) fn write_snapshot_file(
    staging: &Staging,
    made: Made,
    facts: Facts,
    sections: &Sections,
) -> Result<(), StoreError> {
    let (header, bytes) = encode_snapshot_file(made, facts, sections)?;
    debug_assert_eq!(header.file_bytes(), bytes.len() as u64);
    write_synced(staging.store(), &staging.path(FILE), &bytes)
}

fn encode_snapshot_file(
    (id, kind, created_ms): Made,
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

fn now_ms() -> u64 {
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

/// Creates a file with this content and makes it last.
pub(crate) fn write_synced(store: &Store, path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let file: File = store.disk().create(path)?;
    store.disk().write(&file, path, bytes)?;
    store.disk().sync_file(&file, path)
}
