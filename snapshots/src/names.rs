//! Names of snapshots: small files that hold an id, replaced by rename.

use std::fs;
use std::path::PathBuf;

use crate::draft::write_synced;
use crate::error::{Step, StoreError};
use crate::staging::Staging;
use crate::store::{self, Store};
use crate::{SnapshotId, limits};

/// A name and what it stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// The kind of name, for example `templates`.
    pub kind: String,
    /// The name.
    pub name: String,
    /// The snapshot.
    pub id: SnapshotId,
}

impl Store {
    /// Gives a snapshot a name, taking it from the one that had it.
    ///
    /// # Errors
    /// When kind or name is not allowed, the snapshot is not there, or a step fails; then the name is as before. Only
    /// after the last sync failed can it be the new one: then nobody knows which of the two a power cut would leave.
    pub fn set_name(&self, kind: &str, name: &str, id: &SnapshotId) -> Result<(), StoreError> {
        let path = self.name_path(kind, name)?;
        let folder = self.kind_folder(kind)?;
        let staging = Staging::create(self)?;
        let pointer = staging.path("name");
        write_synced(self, &pointer, format!("{id}\n").as_bytes())?;
        // The snapshot cannot vanish between the look and the rename.
        let _lock = self.lock_to_publish()?;
        if !self.contains(id) {
            return Err(StoreError::NotFound {
                id: *id,
                store: self.root().into(),
            });
        }
        self.disk().make_folders(&folder)?;
        // Even if the folder was there: who made it may have died before this sync.
        self.disk().sync_folder(&self.names_folder())?;
        self.disk().rename(&pointer, &path)?;
        self.disk().sync_folder(&folder)
    }

    /// The snapshot that a name stands for; nothing if there is no such name.
    ///
    /// # Errors
    /// When kind or name is not allowed, or the pointer cannot be read.
    pub fn resolve(&self, kind: &str, name: &str) -> Result<Option<SnapshotId>, StoreError> {
        let path = self.name_path(kind, name)?;
        let text = match fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            read => read.map_err(StoreError::disk(Step::Read, &path))?,
        };
        let id = str::from_utf8(&text)
            .ok()
            .and_then(|text| text.strip_suffix('\n'))
            .and_then(|id| id.parse().ok());
        id.map(Some).ok_or(StoreError::Pointer { path })
    }

    /// All names of a kind, sorted.
    ///
    /// # Errors
    /// When the folder or a pointer cannot be read.
    pub fn names(&self, kind: &str) -> Result<Vec<Named>, StoreError> {
        let mut names = store::entries(&self.kind_folder(kind)?)?;
        names.sort_unstable();
        let mut named = Vec::with_capacity(names.len());
        for name in names {
            // A name that was removed meanwhile is none.
            if let Some(id) = self.resolve(kind, &name)? {
                named.push(Named {
                    kind: kind.to_owned(),
                    name,
                    id,
                });
            }
        }
        Ok(named)
    }

    /// All names of all kinds.
    ///
    /// # Errors
    /// As [`Store::names`].
    pub fn all_names(&self) -> Result<Vec<Named>, StoreError> {
        let mut kinds = store::entries(&self.names_folder())?;
        kinds.sort_unstable();
        let mut all = Vec::new();
        for kind in kinds {
            all.extend(self.names(&kind)?);
        }
        Ok(all)
    }

    /// Takes a name away; false if there was none. The snapshot stays.
    ///
    /// # Errors
    /// When kind or name is not allowed, or a step fails.
    pub fn remove_name(&self, kind: &str, name: &str) -> Result<bool, StoreError> {
        let path = self.name_path(kind, name)?;
        match self.disk().remove_file(&path) {
            Err(StoreError::Disk { source, .. })
                if source.kind() == std::io::ErrorKind::NotFound =>
            {
                return Ok(false);
            }
            removed => removed?,
        }
        self.disk().sync_folder(&self.kind_folder(kind)?)?;
        Ok(true)
    }

    fn kind_folder(&self, kind: &str) -> Result<PathBuf, StoreError> {
        check(kind)?;
        Ok(self.names_folder().join(kind))
    }

    fn name_path(&self, kind: &str, name: &str) -> Result<PathBuf, StoreError> {
        check(name)?;
        Ok(self.kind_folder(kind)?.join(name))
    }
}

/// Letters, digits and a few signs; nothing that a path, a shell or a listing could take for something else.
fn check(text: &str) -> Result<(), StoreError> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._+-".contains(&byte);
    let begins = text
        .bytes()
        .next()
        .is_some_and(|byte| byte.is_ascii_alphanumeric());
    if !begins || text.len() > limits::NAME_BYTES || !text.bytes().all(allowed) {
        return Err(StoreError::Name {
            text: text.chars().take(limits::NAME_BYTES).collect(),
        });
    }
    Ok(())
}
