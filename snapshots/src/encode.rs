//! Encoding: a layer's pages stored as what differs from an older snapshot, off the way of the cells.

use rustix::fs::FlockOperation;

use crate::disk;
use crate::draft::{Sections, write_snapshot_file};
use crate::error::{Step, StoreError};
use crate::layer_encoder::LayerEncoder;
use crate::page_index::{IndexVersion, PAGES_FILE};
use crate::snapshot::Snapshot;
use crate::staging::Staging;
use crate::store::Store;
use crate::{PAGE_BYTES, SnapshotId, verify};

impl Store {
    /// Stores the pages of a layer anew, in less space: those not at all that are what they were in the parent, the
    /// others as what differs from an ancestor, or compressed. Id, sections and content stay, and whoever has the old
    /// file open reads it to its end. False if there was nothing to do: a base, or a layer that was encoded before.
    ///
    /// # Errors
    /// When the layer cannot be read or is damaged, or a step fails: then the layer is as before, or encoded with the
    /// old file still beside it, which the next try or a collection removes.
    pub fn encode(&self, id: &SnapshotId) -> Result<bool, StoreError> {
        let snapshot = self.snapshot(id)?;
        if snapshot.header().parent().is_none() {
            return Ok(false);
        }
        // Nobody removes it from here on.
        let _hold = snapshot.hold()?;
        // Of two that encode the same layer, one waits here and then finds it done.
        let _turn = take_turn(&snapshot)?;
        let chain = self.chain(id)?;
        if chain.tip().index_version() == Some(IndexVersion::Encoded) {
            self.remove_other_pages(chain.tip())?;
            return Ok(false);
        }
        // The encoded pages get checksums of their own: over damage, they would call it sound.
        verify::check_bulk(chain.tip())?;
        let staging = Staging::create(self)?;
        let mut sections = Sections::of(chain.tip())?;
        let pages = chain.pages()?;
        let mut encoder = LayerEncoder::create(&staging, &chain, &pages, 1)?;
        let (mut reader, mut content) = (pages.reader(), [0; PAGE_BYTES]);
        for page in pages.indices_of_newest() {
            reader.page(page, 0, &mut content)?;
            encoder.push(page, &content)?;
        }
        let (index, sums) = encoder.finish()?;
        sections.push_pages(&index, &sums);
        let header = chain.tip().header();
        let made = (header.id, header.kind, header.created_ms);
        write_snapshot_file(&staging, made, header.facts.clone(), &sections)?;
        staging.replace_pages(id)?;
        Ok(true)
    }

    /// Removes the pages that the index of a layer does not mean: what a death between two steps left. True if there
    /// were any.
    pub(crate) fn remove_other_pages(&self, snapshot: &Snapshot) -> Result<bool, StoreError> {
        let Some(version) = snapshot.index_version() else {
            return Ok(false);
        };
        let path = snapshot.folder().join(version.other().file());
        if !path.exists() {
            return Ok(false);
        }
        // Whoever died may not have lived to sync the rename after which these are the others.
        self.disk().sync_folder(snapshot.folder())?;
        self.disk().remove_present_file(&path)?;
        Ok(true)
    }
}

/// Waits until nobody else encodes this layer. The file that it locks goes when that is done; nothing else locks it.
fn take_turn(snapshot: &Snapshot) -> Result<Option<std::fs::File>, StoreError> {
    let path = snapshot.folder().join(PAGES_FILE);
    let file = match disk::open(&path) {
        Err(StoreError::Disk { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            return Ok(None);
        }
        file => file?,
    };
    rustix::io::retry_on_intr(|| rustix::fs::flock(&file, FlockOperation::LockExclusive))
        .map_err(StoreError::disk(Step::Lock, path))?;
    Ok(Some(file))
}
