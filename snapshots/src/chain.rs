//! A snapshot with its parents down to the base, and the pages that they lay over it.

use std::path::{Path, PathBuf};

use crate::disk;
use crate::error::StoreError;
use crate::page_index::{PageIndex, PageIndexError};
use crate::pages::{Base, Layer, Pages, Place};
use crate::snapshot::Snapshot;
use crate::store::Store;
use crate::{Header, PAGE_BYTES, Page, SnapshotId};

/// A snapshot and all that it needs, checked to fit together.
#[derive(Debug)]
pub struct Chain {
    /// The newest first, the base last.
    snapshots: Vec<Snapshot>,
    memory_path: PathBuf,
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

    /// The pages that the layers lay over the base. Of what is stored of them, lengths and encodings are checked.
    ///
    /// # Errors
    /// When a page index is refused, or the file of its pages has another length.
    pub fn pages(&self) -> Result<Pages, StoreError> {
        let (mut places, mut layers) = (Vec::new(), Vec::new());
        let above_base = &self.snapshots[..self.snapshots.len() - 1];
        for (number, snapshot) in above_base.iter().enumerate() {
            let stored = snapshot.stored_pages()?;
            let ancestor = self.ancestor(number, &stored.index)?;
            let layer = u32::try_from(number).expect("chains are bounded");
            places.extend(
                stored
                    .index
                    .entries
                    .into_iter()
                    .map(|entry| Place { entry, layer }),
            );
            layers.push(Layer {
                file: stored.file,
                path: stored.path,
                stored_bytes: stored.index.stored_bytes,
                ancestor,
            });
        }
        let base = Base {
            file: disk::open(&self.memory_path)?,
            path: self.memory_path.clone(),
        };
        Ok(Pages::new(places, layers, base))
    }

    /// Which snapshot of the chain the differences of number `layer` are against; one below it, or they would have no
    /// end. Without an ancestor there are no differences, and the base does as well as any.
    pub(crate) fn ancestor(&self, layer: usize, index: &PageIndex) -> Result<u32, StoreError> {
        let below = &self.snapshots[layer + 1..];
        let at = match index.ancestor {
            None => below.len().checked_sub(1),
            Some(ancestor) => below.iter().position(|one| one.id() == ancestor),
        };
        let number = at.and_then(|at| u32::try_from(layer + 1 + at).ok());
        number.ok_or_else(|| StoreError::PageIndex {
            path: self.snapshots[layer].path(),
            source: PageIndexError::Ancestor {
                ancestor: index.ancestor.unwrap_or(self.base().id()),
            },
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
        pages.read_base(page, &mut content)?;
        Ok(content)
    }
}
