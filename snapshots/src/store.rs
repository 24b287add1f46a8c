//! The folders of a store, its lock, and what lies in it.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::FlockOperation;

use crate::disk::Disk;
use crate::error::{Step, StoreError};
use crate::snapshot::{self, Snapshot};
use crate::{Header, SnapshotId, limits};

/// A folder of snapshots. Cheap to open and to clone.
#[derive(Clone, Debug)]
pub struct Store {
    root: Arc<Path>,
    disk: Disk,
}

/// What a snapshot takes up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// Bytes that its files are long.
    pub apparent_bytes: u64,
    /// Bytes that they occupy on the disk.
    pub disk_bytes: u64,
}

impl std::ops::AddAssign for Size {
    fn add_assign(&mut self, other: Self) {
        self.apparent_bytes += other.apparent_bytes;
        self.disk_bytes += other.disk_bytes;
    }
}

/// One snapshot of [`Store::list`].
#[derive(Debug)]
pub struct Listed {
    /// Its id, from the name of its folder.
    pub id: SnapshotId,
    /// Its header, or why it cannot be read.
    pub header: Result<Header, StoreError>,
    /// What it takes up.
    pub size: Size,
}

/// The lock that publishing shares and removing holds alone; reading takes no lock.
#[derive(Debug)]
pub(crate) struct StoreLock {
    _file: File,
}

impl Store {
    /// Opens the store at `root`, making what is missing, for its owner alone (mode 0700).
    ///
    /// Costs two system calls when the store is there.
    ///
    /// # Errors
    /// When folders cannot be made, or when other users could write into the store.
    pub fn open(root: &Path) -> Result<Self, StoreError> {
        Self::open_with(root, Disk::default())
    }

    /// Like [`Store::open`]; `observer` hears of every change to the file system before it is made, and an error of
    /// its own stands for a failure of that change.
    ///
    /// For tests that fail each step, or stop a process at it.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn open_observed(
        root: &Path,
        observer: impl Fn(Step, &Path) -> io::Result<()> + Send + Sync + 'static,
    ) -> Result<Self, StoreError> {
        Self::open_with(root, Disk::observed(Arc::new(observer)))
    }

    fn open_with(root: &Path, disk: Disk) -> Result<Self, StoreError> {
        let store = Self {
            root: root.into(),
            disk,
        };
        // `staging` is made last: where it is, the others are, and last.
        if !store.staging_folder().exists() {
            store.make_lasting_folders()?;
            store.disk.make_folders(&store.staging_folder())?;
        }
        let mode = fs::metadata(root)
            .map_err(StoreError::disk(Step::Open, root))?
            .mode()
            & 0o7777;
        if mode & 0o022 != 0 {
            return Err(StoreError::Exposed {
                path: root.into(),
                mode,
            });
        }
        Ok(store)
    }

    /// Makes what snapshots and names lie in. Syncing a folder keeps the names in it, not its own, so every folder
    /// that gained a name here is synced, up to the first that was there before.
    fn make_lasting_folders(&self) -> Result<(), StoreError> {
        let mut gaining = vec![self.root.to_path_buf()];
        while let Some(path) = gaining.last()
            && !path.exists()
            && let Some(above) = path.parent()
        {
            let above = if above.as_os_str().is_empty() {
                Path::new(".")
            } else {
                above
            };
            gaining.push(above.to_path_buf());
        }
        self.disk.make_folders(&self.snapshots_folder())?;
        self.disk.make_folders(&self.names_folder())?;
        gaining
            .iter()
            .try_for_each(|folder| self.disk.sync_folder(folder))
    }

    /// The folder that the store lies in.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Opens a snapshot: one read, however large it is.
    ///
    /// # Errors
    /// When there is none with this id, or its header is refused.
    pub fn snapshot(&self, id: &SnapshotId) -> Result<Snapshot, StoreError> {
        match Snapshot::open(&self.snapshot_folder(id), *id) {
            Err(StoreError::Disk {
                step: Step::Open,
                source,
                ..
            }) if source.kind() == io::ErrorKind::NotFound => Err(StoreError::NotFound {
                id: *id,
                store: self.root.to_path_buf(),
            }),
            opened => opened,
        }
    }

    /// Finds a snapshot by its id or by the beginning of it, at least four digits.
    ///
    /// # Errors
    /// When no id or more than one begins so; the error names the candidates.
    pub fn find(&self, text: &str) -> Result<SnapshotId, StoreError> {
        let no_match = || StoreError::NoMatch {
            text: text.chars().take(64).collect(),
        };
        if let Ok(id) = text.parse::<SnapshotId>() {
            return self.contains(&id).then_some(id).ok_or_else(no_match);
        }
        if text.len() < limits::ID_PREFIX_DIGITS {
            return Err(no_match());
        }
        let mut found = self.ids()?;
        found.retain(|id| id.to_string().starts_with(text));
        match found.as_slice() {
            [] => Err(no_match()),
            [id] => Ok(*id),
            many => Err(StoreError::Ambiguous {
                text: text.to_owned(),
                candidates: many
                    .iter()
                    .take(limits::NAMED_IN_ERRORS)
                    .map(SnapshotId::to_string)
                    .collect(),
            }),
        }
    }

    /// Whether the store holds a snapshot.
    pub fn contains(&self, id: &SnapshotId) -> bool {
        self.snapshot_folder(id).join(snapshot::FILE).exists()
    }

    /// The ids of all snapshots, sorted.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn ids(&self) -> Result<Vec<SnapshotId>, StoreError> {
        let mut ids: Vec<SnapshotId> = entries(&self.snapshots_folder())?
            .iter()
            .filter_map(|name| name.parse().ok())
            .collect();
        ids.sort_unstable();
        Ok(ids)
    }

    /// All snapshots with what they take up; a damaged one comes with the reason.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn list(&self) -> Result<Vec<Listed>, StoreError> {
        let listed = |id| Listed {
            id,
            header: self.snapshot(&id).map(|snapshot| snapshot.header().clone()),
            size: self.size(&id).unwrap_or_default(),
        };
        Ok(self.ids()?.into_iter().map(listed).collect())
    }

    /// What one snapshot takes up, without its parents.
    ///
    /// # Errors
    /// When its folder cannot be read.
    pub fn size(&self, id: &SnapshotId) -> Result<Size, StoreError> {
        folder_size(&self.snapshot_folder(id))
    }

    pub(crate) fn disk(&self) -> &Disk {
        &self.disk
    }

    pub(crate) fn snapshots_folder(&self) -> PathBuf {
        self.root.join("snapshots")
    }

    pub(crate) fn snapshot_folder(&self, id: &SnapshotId) -> PathBuf {
        self.snapshots_folder().join(id.to_string())
    }

    pub(crate) fn staging_folder(&self) -> PathBuf {
        self.root.join("staging")
    }

    pub(crate) fn names_folder(&self) -> PathBuf {
        self.root.join("names")
    }

    /// Waits until nothing is being removed; until the lock is dropped, nothing will be.
    pub(crate) fn lock_to_publish(&self) -> Result<StoreLock, StoreError> {
        self.lock(FlockOperation::LockShared)
    }

    /// Waits until nobody publishes or removes; until the lock is dropped, nobody else will.
    pub(crate) fn lock_to_remove(&self) -> Result<StoreLock, StoreError> {
        self.lock(FlockOperation::LockExclusive)
    }

    fn lock(&self, operation: FlockOperation) -> Result<StoreLock, StoreError> {
        let path = self.root.join("lock");
        let file = self.disk.open_lock(&path)?;
        rustix::io::retry_on_intr(|| rustix::fs::flock(&file, operation))
            .map_err(StoreError::disk(Step::Lock, &path))?;
        Ok(StoreLock { _file: file })
    }
}

/// Names in a folder; none if the folder is not there.
pub(crate) fn entries(folder: &Path) -> Result<Vec<String>, StoreError> {
    let listing = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        listing => listing.map_err(StoreError::disk(Step::List, folder))?,
    };
    let mut names = Vec::new();
    for entry in listing {
        let entry = entry.map_err(StoreError::disk(Step::List, folder))?;
        names.extend(entry.file_name().into_string());
    }
    Ok(names)
}

fn folder_size(folder: &Path) -> Result<Size, StoreError> {
    let mut size = Size::default();
    for name in entries(folder)? {
        let path = folder.join(name);
        let data = fs::symlink_metadata(&path).map_err(StoreError::disk(Step::Read, path))?;
        size += Size {
            apparent_bytes: data.len(),
            disk_bytes: data.blocks() * 512,
        };
    }
    Ok(size)
}
