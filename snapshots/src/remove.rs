//! Removing one snapshot, if nothing needs it.

use crate::error::StoreError;
use crate::staging::named_in_error;
use crate::store::Store;
use crate::{Header, SnapshotId};

impl Store {
    /// Removes a snapshot that no layer, no name and no live machine needs.
    ///
    /// # Errors
    /// When it is not there, something needs it (the error names what), or a step fails. After the first step, the
    /// rename, it is gone, and what failed to go with it is left for [`Store::sweep`].
    pub fn remove(&self, id: &SnapshotId) -> Result<(), StoreError> {
        let _lock = self.lock_to_remove()?;
        if !self.snapshot_folder(id).exists() {
            return Err(StoreError::NotFound {
                id: *id,
                store: self.root().into(),
            });
        }
        let dependents = self.dependents(id)?;
        if !dependents.is_empty() {
            return Err(StoreError::Needed {
                id: *id,
                dependents: named_in_error(dependents),
            });
        }
        let claim = self.claim(id)?.ok_or(StoreError::InUse { id: *id })?;
        self.unpublish(&claim)
    }

    /// What needs a snapshot: names as `kind/name`, layers on it by their ids.
    ///
    /// # Errors
    /// When the store cannot be read. A damaged snapshot needs nothing: it cannot be restored.
    pub fn dependents(&self, id: &SnapshotId) -> Result<Vec<String>, StoreError> {
        let names = self
            .all_names()?
            .into_iter()
            .filter(|named| named.id == *id);
        let names = names.map(|named| format!("{}/{}", named.kind, named.name));
        let layers = self
            .list()?
            .into_iter()
            .filter_map(|listed| listed.header.ok());
        let layers = layers.filter(|header: &Header| header.parent() == Some(*id));
        Ok(names
            .chain(layers.map(|header| format!("layer {}", header.id)))
            .collect())
    }
}
