//! Staging folders: where a thing lies until it is published by one rename.
//!
//! A staging folder is locked by the process that fills it. The lock goes with the process, so a folder that nobody
//! locks was left by a dead one, and the sweep removes it.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use rustix::rand::{GetRandomFlags, getrandom};

use crate::error::{Step, StoreError};
use crate::page_index::{ENCODED_FILE, PAGES_FILE};
use crate::store::{self, Store};
use crate::{SnapshotId, limits, snapshot};

/// A locked folder in `staging`; removed when dropped, unless it was published.
#[derive(Debug)]
pub(crate) struct Staging {
    store: Store,
    folder: PathBuf,
    /// The lock; gone once the folder is published.
    lock: Option<File>,
}

/// A new id from the system's random generator.
pub(crate) fn random_id(store: &Store) -> Result<SnapshotId, StoreError> {
    let mut bytes = [0; 16];
    // Up to 256 bytes come whole or not at all.
    getrandom(&mut bytes, GetRandomFlags::empty())
        .map_err(StoreError::disk(Step::Random, store.root()))?;
    Ok(SnapshotId::from_bytes(bytes))
}

impl Staging {
    pub(crate) fn create(store: &Store) -> Result<Self, StoreError> {
        loop {
            let folder = store.staging_folder().join(random_id(store)?.to_string());
            store.disk().make_folder(&folder)?;
            // Between these two steps a sweep may have taken the folder for a dead one: then begin again.
            if let Some(lock) = try_lock(&folder)? {
                return Ok(Self {
                    store: store.clone(),
                    folder,
                    lock: Some(lock),
                });
            }
        }
    }

    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Publishes the folder as the snapshot `id`. Its files must be written and synced.
    pub(crate) fn publish(
        mut self,
        id: &SnapshotId,
        parent: Option<SnapshotId>,
    ) -> Result<(), StoreError> {
        let store = self.store.clone();
        let disk = store.disk();
        // The files' names last before the folder gets its own.
        disk.sync_folder(&self.folder)?;
        {
            // The parent cannot vanish between the look and the rename.
            let _lock = store.lock_to_publish()?;
            if let Some(parent) = parent.filter(|parent| !store.contains(parent)) {
                return Err(StoreError::NotFound {
                    id: parent,
                    store: store.root().into(),
                });
            }
            disk.rename(&self.folder, &store.snapshot_folder(id))?;
        }
        self.lock = None;
        // Only now may anything that lasts name the snapshot.
        disk.sync_folder(&store.snapshots_folder())
    }
}

impl Staging {
    /// Puts the encoded pages of the layer `id`, and the snapshot file that describes them, in the place of its pages.
    /// Both must be written and synced, and the layer held.
    pub(crate) fn replace_pages(&self, id: &SnapshotId) -> Result<(), StoreError> {
        let (disk, folder) = (self.store.disk(), self.store.snapshot_folder(id));
        // Between the two renames no index means the new pages: no collection may take them for a leftover.
        let _lock = self.store.lock_to_publish()?;
        disk.rename(&self.path(ENCODED_FILE), &folder.join(ENCODED_FILE))?;
        // They last before what describes them is there,
        disk.sync_folder(&folder)?;
        // in the one step at which readers begin to use them,
        disk.rename(&self.path(snapshot::FILE), &folder.join(snapshot::FILE))?;
        // and that lasts before the old pages go.
        disk.sync_folder(&folder)?;
        disk.remove_file(&folder.join(PAGES_FILE))
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if self.lock.is_some()
            && let Err(_left_for_the_sweep) = self.store.disk().remove_tree(&self.folder)
        {}
    }
}

/// Locks a folder, unless somebody else holds it or it has gone.
fn try_lock(folder: &Path) -> Result<Option<File>, StoreError> {
    let Some(file) = present(File::open(folder)).map_err(StoreError::disk(Step::Open, folder))?
    else {
        return Ok(None);
    };
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
        Err(error) => return Err(StoreError::disk(Step::Lock, folder)(error)),
    }
    let read = StoreError::disk(Step::Read, folder);
    let locked = file.metadata();
    let named = present(fs::symlink_metadata(folder));
    match (locked, named) {
        (Ok(locked), Ok(Some(named))) if locked.ino() == named.ino() => Ok(Some(file)),
        (Ok(_), Ok(_)) => Ok(None),
        (Err(error), _) | (_, Err(error)) => Err(read(error)),
    }
}

/// Whether a live machine holds the snapshot in `folder`. To be asked under the lock for removal.
pub(crate) fn is_held(folder: &Path) -> Result<bool, StoreError> {
    Ok(folder.exists() && try_lock(folder)?.is_none())
}

/// The right to remove a snapshot: while it lives, nobody can begin to hold it.
#[derive(Debug)]
pub(crate) struct Claim {
    id: SnapshotId,
    _folder: File,
}

fn present<T>(result: std::io::Result<T>) -> std::io::Result<Option<T>> {
    match result {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        result => result.map(Some),
    }
}

impl Store {
    /// Removes what dead processes left in `staging`; returns how many folders that were.
    ///
    /// # Errors
    /// When the folder cannot be read, or a leftover cannot be removed.
    pub fn sweep(&self) -> Result<usize, StoreError> {
        let mut removed = 0;
        for name in store::entries(&self.staging_folder())? {
            let folder = self.staging_folder().join(name);
            if let Some(_lock) = try_lock(&folder)? {
                self.disk().remove_tree(&folder)?;
                removed += 1;
            }
        }
        Ok(removed)
    }

    /// Claims a snapshot for removal; nothing if a live machine holds it. To be called under the lock for removal.
    pub(crate) fn claim(&self, id: &SnapshotId) -> Result<Option<Claim>, StoreError> {
        let folder = try_lock(&self.snapshot_folder(id))?;
        Ok(folder.map(|folder| Claim {
            id: *id,
            _folder: folder,
        }))
    }

    /// Takes a snapshot out of sight in one step, then deletes it. To be called under the lock for removal.
    ///
    /// The claim outlives the rename, so that no machine takes hold of what goes, and the deletion, so that no sweep
    /// takes what is being deleted for a leftover.
    pub(crate) fn unpublish(&self, claim: &Claim) -> Result<(), StoreError> {
        let dead = self.staging_folder().join(random_id(self)?.to_string());
        self.disk()
            .rename(&self.snapshot_folder(&claim.id), &dead)?;
        self.disk().sync_folder(&self.snapshots_folder())?;
        self.disk().remove_tree(&dead)
    }
}

/// The first few, and how many more.
pub(crate) fn named_in_error(mut names: Vec<String>) -> Vec<String> {
    let more = names.len().saturating_sub(limits::NAMED_IN_ERRORS);
    names.truncate(limits::NAMED_IN_ERRORS);
    if more > 0 {
        names.push(format!("{more} more"));
    }
    names
}
