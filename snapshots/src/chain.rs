//! A snapshot with its parents down to the base, and the pages that they lay over it.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::disk;
use crate::error::StoreError;
use crate::page_index::{Encoding, PageEntry};
use crate::snapshot::{PAGES_FILE, Snapshot};
use crate::store::Store;
use crate::{Header, PAGE_BYTES, Page, SnapshotId, memory};

/// How much of a layer one read brings.
const WINDOW_BYTES: usize = 256 << 10;

/// A snapshot and all that it needs, checked to fit together.
#[derive(Debug)]
pub struct Chain {
    /// The newest first, the base last.
    snapshots: Vec<Snapshot>,
    memory_path: PathBuf,
}

/// The pages over a base, the newest content of each, in page order.
#[derive(Clone, Debug)]
pub struct Pages {
    live: Vec<LivePage>,
    layers: Arc<[Layer]>,
}

#[derive(Clone, Copy, Debug)]
struct LivePage {
    entry: PageEntry,
    /// Which of the layers; the newest is 0.
    layer: u32,
}

#[derive(Debug)]
struct Layer {
    file: File,
    path: PathBuf,
    /// Its snapshot file, for errors about the index.
    snapshot_path: PathBuf,
    stored_bytes: u64,
}

/// Reads a layer's pages; each lies after the one before, so every read goes forward.
struct Window<'a> {
    layer: &'a Layer,
    bytes: Vec<u8>,
    start: u64,
}

impl Store {
    /// Opens a snapshot with its parents. Reads their headers; of their memory and pages nothing.
    ///
    /// # Errors
    /// When one is missing or refused, or does not fit its parent.
    pub fn chain(&self, id: &SnapshotId) -> Result<Chain, StoreError> {
        let mut snapshots = vec![self.snapshot(id)?];
        while let Some(header) = snapshots.last().map(Snapshot::header)
            && let Some(parent) = header.parent()
        {
            let parent = self.snapshot(&parent)?;
            check_fit(header, parent.header())?;
            snapshots.push(parent);
        }
        let base = snapshots
            .last()
            .expect("there is at least the snapshot itself");
        let memory_path = base
            .memory_path()
            .expect("a snapshot without a parent is a base");
        let (found, expected) = (
            disk::length(&disk::open(&memory_path)?, &memory_path)?,
            base.header().facts.memory_bytes,
        );
        if found != expected {
            return Err(StoreError::FileLength {
                path: memory_path,
                found,
                expected,
            });
        }
        Ok(Chain {
            snapshots,
            memory_path,
        })
    }
}

/// Whether a layer belongs on this parent. The depth falls by one a step, so that no chain is endless.
pub(crate) fn check_fit(layer: &Header, parent: &Header) -> Result<(), StoreError> {
    let what = if layer.parent() != Some(parent.id) {
        "it names another parent"
    } else if layer.depth() != parent.depth() + 1 {
        "their depths do not follow each other"
    } else if layer.facts != parent.facts {
        "engine, CPU or memory differ"
    } else {
        return Ok(());
    };
    Err(StoreError::ChainBroken {
        layer: layer.id,
        parent: parent.id,
        what,
    })
}

impl Chain {
    /// The snapshot that was asked for.
    pub fn tip(&self) -> &Snapshot {
        &self.snapshots[0]
    }

    /// The base at the other end; the same as the tip if that is a base.
    pub fn base(&self) -> &Snapshot {
        self.snapshots
            .last()
            .expect("there is at least the snapshot itself")
    }

    /// All snapshots, the newest first, the base last.
    pub fn snapshots(&self) -> &[Snapshot] {
        &self.snapshots
    }

    /// The base's memory file: there and of the right size.
    pub fn memory_path(&self) -> &Path {
        &self.memory_path
    }

    /// The pages that the layers lay over the base.
    ///
    /// # Errors
    /// When a page index is refused, or the file of its pages has another length.
    pub fn pages(&self) -> Result<Pages, StoreError> {
        let (mut live, mut layers) = (Vec::new(), Vec::new());
        for snapshot in self
            .snapshots
            .iter()
            .filter(|snapshot| snapshot.header().parent().is_some())
        {
            let index = snapshot.page_index()?;
            let layer = u32::try_from(layers.len()).expect("chains are bounded");
            live.extend(
                index
                    .entries
                    .into_iter()
                    .map(|entry| LivePage { entry, layer }),
            );
            layers.push(Layer::open(snapshot, index.stored_bytes)?);
        }
        // Stable, and the newest layer was added first: the first of each page wins.
        live.sort_by_key(|place| place.entry.page);
        live.dedup_by_key(|place| place.entry.page);
        Ok(Pages {
            live,
            layers: layers.into(),
        })
    }

    /// Reads one page as the machine would see it: from the newest layer that has it, else from the base.
    ///
    /// # Errors
    /// When the page lies outside the memory, or cannot be read.
    pub fn read_page(&self, pages: &Pages, page: u64) -> Result<Page, StoreError> {
        let page_count = self.base().header().page_count();
        if page >= page_count {
            return Err(StoreError::PageOutside { page, page_count });
        }
        if let Some(content) = pages.get(page)? {
            return Ok(content);
        }
        let mut content = [0; PAGE_BYTES];
        memory::read_page(
            &disk::open(&self.memory_path)?,
            &self.memory_path,
            page,
            &mut content,
        )?;
        Ok(content)
    }
}

impl Layer {
    fn open(snapshot: &Snapshot, stored_bytes: u64) -> Result<Self, StoreError> {
        let path = snapshot.folder().join(PAGES_FILE);
        let file = disk::open(&path)?;
        let found = disk::length(&file, &path)?;
        if found != stored_bytes {
            return Err(StoreError::FileLength {
                path,
                found,
                expected: stored_bytes,
            });
        }
        Ok(Self {
            file,
            path,
            snapshot_path: snapshot.path(),
            stored_bytes,
        })
    }

    fn decode<'a>(&self, entry: &PageEntry, stored: &'a [u8]) -> Result<&'a Page, StoreError> {
        entry
            .decode(stored)
            .map_err(|source| StoreError::PageIndex {
                path: self.snapshot_path.clone(),
                source,
            })
    }
}

impl Window<'_> {
    fn stored(&mut self, entry: &PageEntry) -> Result<&[u8], StoreError> {
        let length = usize::from(entry.length);
        let within = |window: &Self| usize::try_from(entry.offset.checked_sub(window.start)?).ok();
        let here = within(self).filter(|from| from + length <= self.bytes.len());
        let from = match here {
            Some(from) => from,
            None => {
                self.refill(entry.offset)?;
                0
            }
        };
        Ok(&self.bytes[from..from + length])
    }

    fn refill(&mut self, offset: u64) -> Result<(), StoreError> {
        let left = usize::try_from(self.layer.stored_bytes - offset).unwrap_or(usize::MAX);
        self.bytes.resize(left.min(WINDOW_BYTES), 0);
        self.start = offset;
        disk::read_at(&self.layer.file, &self.layer.path, &mut self.bytes, offset)
    }
}

impl Pages {
    /// How many pages there are.
    pub fn count(&self) -> usize {
        self.live.len()
    }

    /// The page indices in order.
    pub fn indices(&self) -> impl Iterator<Item = u64> {
        self.live.iter().map(|place| u64::from(place.entry.page))
    }

    /// Calls `each` with every page index and its content, in page order; stops at the first error.
    ///
    /// # Errors
    /// When a page cannot be read, or `each` fails.
    pub fn for_each<E: From<StoreError>>(
        &self,
        mut each: impl FnMut(u64, &Page) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut windows: Vec<Window<'_>> = self
            .layers
            .iter()
            .map(|layer| Window {
                layer,
                bytes: Vec::new(),
                start: 0,
            })
            .collect();
        for LivePage { entry, layer } in &self.live {
            let window = &mut windows[*layer as usize];
            let layer = window.layer;
            let stored = if entry.encoding == Encoding::Zero {
                &[]
            } else {
                window.stored(entry)?
            };
            each(u64::from(entry.page), layer.decode(entry, stored)?)?;
        }
        Ok(())
    }

    /// Calls `each` with the first page index and the bytes of every run of neighbouring pages, at most `most_pages`
    /// a run, in page order; stops at the first error.
    ///
    /// # Errors
    /// When a page cannot be read, or `each` fails.
    pub fn for_each_run<E: From<StoreError>>(
        &self,
        most_pages: usize,
        mut each: impl FnMut(u64, &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let most_bytes = most_pages.max(1) * PAGE_BYTES;
        let (mut first, mut run): (u64, Vec<u8>) = (0, Vec::new());
        self.for_each(|page, content| {
            let next = first + (run.len() / PAGE_BYTES) as u64;
            if !run.is_empty() && (page != next || run.len() >= most_bytes) {
                each(first, &run)?;
                run.clear();
            }
            if run.is_empty() {
                first = page;
            }
            run.extend_from_slice(content);
            Ok::<(), E>(())
        })?;
        if run.is_empty() {
            Ok(())
        } else {
            each(first, &run)
        }
    }

    /// The content of one page; nothing if no layer has it.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn get(&self, page: u64) -> Result<Option<Page>, StoreError> {
        let Ok(at) = self
            .live
            .binary_search_by_key(&page, |place| u64::from(place.entry.page))
        else {
            return Ok(None);
        };
        let LivePage { entry, layer } = self.live[at];
        let layer = &self.layers[layer as usize];
        let mut stored = vec![0; usize::from(entry.length)];
        disk::read_at(&layer.file, &layer.path, &mut stored, entry.offset)?;
        layer.decode(&entry, &stored).map(|content| Some(*content))
    }
}
