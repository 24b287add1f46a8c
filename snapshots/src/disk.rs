//! Everything that the store does to a file system, one step at a time.
//!
//! Each change passes through here, so that an error names its step and its path, and a test can fail or stop any step.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{FallocateFlags, OFlags};
use rustix::io::Errno;

use crate::error::{Step, StoreError};

type Observer = dyn Fn(Step, &Path) -> io::Result<()> + Send + Sync;

/// The steps. The observer hears of each change before it is made, and may fail it.
#[derive(Clone, Default)]
pub(crate) struct Disk {
    observer: Option<Arc<Observer>>,
}

impl std::fmt::Debug for Disk {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Disk")
            .field("observed", &self.observer.is_some())
            .finish()
    }
}

impl Disk {
    pub(crate) fn observed(observer: Arc<Observer>) -> Self {
        Self {
            observer: Some(observer),
        }
    }

    fn before(&self, step: Step, path: &Path) -> Result<(), StoreError> {
        match &self.observer {
            Some(observer) => observer(step, path).map_err(StoreError::disk(step, path)),
            None => Ok(()),
        }
    }

    pub(crate) fn make_folder(&self, path: &Path) -> Result<(), StoreError> {
        self.before(Step::MakeFolder, path)?;
        DirBuilder::new()
            .mode(0o700)
            .create(path)
            .map_err(StoreError::disk(Step::MakeFolder, path))
    }

    /// Makes `path` and what is missing above it; content with what is there.
    pub(crate) fn make_folders(&self, path: &Path) -> Result<(), StoreError> {
        self.before(Step::MakeFolder, path)?;
        DirBuilder::new()
            .mode(0o700)
            .recursive(true)
            .create(path)
            .map_err(StoreError::disk(Step::MakeFolder, path))
    }

    /// Creates a file that is not there yet, for reading and writing by its owner alone.
    pub(crate) fn create(&self, path: &Path) -> Result<File, StoreError> {
        self.before(Step::Create, path)?;
        OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
            .map_err(StoreError::disk(Step::Create, path))
    }

    /// Opens a file that somebody else has filled, to change it.
    pub(crate) fn open_filled(&self, path: &Path) -> Result<File, StoreError> {
        self.before(Step::Open, path)?;
        OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
            .open(path)
            .map_err(StoreError::disk(Step::Open, path))
    }

    pub(crate) fn set_length(
        &self,
        file: &File,
        path: &Path,
        bytes: u64,
    ) -> Result<(), StoreError> {
        self.before(Step::Write, path)?;
        file.set_len(bytes)
            .map_err(StoreError::disk(Step::Write, path))
    }

    pub(crate) fn write(
        &self,
        mut file: &File,
        path: &Path,
        bytes: &[u8],
    ) -> Result<(), StoreError> {
        self.before(Step::Write, path)?;
        file.write_all(bytes)
            .map_err(StoreError::disk(Step::Write, path))
    }

    pub(crate) fn write_at(
        &self,
        file: &File,
        path: &Path,
        bytes: &[u8],
        offset: u64,
    ) -> Result<(), StoreError> {
        self.before(Step::Write, path)?;
        file.write_all_at(bytes, offset)
            .map_err(StoreError::disk(Step::Write, path))
    }

    /// Gives the bytes back to the file system; they read as zeros. False where the file system has no holes.
    pub(crate) fn punch(
        &self,
        file: &File,
        path: &Path,
        offset: u64,
        bytes: u64,
    ) -> Result<bool, StoreError> {
        self.before(Step::Punch, path)?;
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        match rustix::fs::fallocate(file, flags, offset, bytes) {
            Ok(()) => Ok(true),
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(false),
            Err(error) => Err(StoreError::disk(Step::Punch, path)(error)),
        }
    }

    pub(crate) fn sync_file(&self, file: &File, path: &Path) -> Result<(), StoreError> {
        self.before(Step::SyncFile, path)?;
        file.sync_all()
            .map_err(StoreError::disk(Step::SyncFile, path))
    }

    /// Makes the names in a folder last.
    pub(crate) fn sync_folder(&self, path: &Path) -> Result<(), StoreError> {
        self.before(Step::SyncFolder, path)?;
        File::open(path)
            .and_then(|folder| folder.sync_all())
            .map_err(StoreError::disk(Step::SyncFolder, path))
    }

    pub(crate) fn rename(&self, from: &Path, to: &Path) -> Result<(), StoreError> {
        self.before(Step::Rename, to)?;
        fs::rename(from, to).map_err(StoreError::disk(Step::Rename, to))
    }

    pub(crate) fn remove_file(&self, path: &Path) -> Result<(), StoreError> {
        self.before(Step::Remove, path)?;
        fs::remove_file(path).map_err(StoreError::disk(Step::Remove, path))
    }

    /// Opens the file that locks are taken on; makes it if it is not there.
    pub(crate) fn open_lock(&self, path: &Path) -> Result<File, StoreError> {
        self.before(Step::Lock, path)?;
        OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .mode(0o600)
            .open(path)
            .map_err(StoreError::disk(Step::Lock, path))
    }

    /// Removes a folder with all it holds, file by file; content with what is gone already.
    pub(crate) fn remove_tree(&self, path: &Path) -> Result<(), StoreError> {
        let listing = match fs::read_dir(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
                return self.remove_one(path, |path| fs::remove_file(path));
            }
            listing => listing.map_err(StoreError::disk(Step::List, path))?,
        };
        for entry in listing {
            let entry = entry.map_err(StoreError::disk(Step::List, path))?;
            // The store puts only files into its folders; whatever else is there goes too, in one step.
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                self.remove_one(&entry.path(), |path| fs::remove_dir_all(path))?;
            } else {
                self.remove_one(&entry.path(), |path| fs::remove_file(path))?;
            }
        }
        self.remove_one(path, |path| fs::remove_dir(path))
    }

    /// Removes a file; content if it is gone already.
    pub(crate) fn remove_present_file(&self, path: &Path) -> Result<(), StoreError> {
        self.remove_one(path, |path| fs::remove_file(path))
    }

    fn remove_one(
        &self,
        path: &Path,
        remove: impl FnOnce(&Path) -> io::Result<()>,
    ) -> Result<(), StoreError> {
        self.before(Step::Remove, path)?;
        match remove(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(StoreError::disk(Step::Remove, path)(error))
            }
            _ => Ok(()),
        }
    }
}

/// Opens a file for reading; never through a symbolic link.
pub(crate) fn open(path: &Path) -> Result<File, StoreError> {
    OpenOptions::new()
        .read(true)
        .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
        .open(path)
        .map_err(StoreError::disk(Step::Open, path))
}

/// Length of an open regular file.
pub(crate) fn length(file: &File, path: &Path) -> Result<u64, StoreError> {
    file.metadata()
        .map(|data| data.len())
        .map_err(StoreError::disk(Step::Read, path))
}

pub(crate) fn read_at(
    file: &File,
    path: &Path,
    out: &mut [u8],
    offset: u64,
) -> Result<(), StoreError> {
    file.read_exact_at(out, offset)
        .map_err(StoreError::disk(Step::Read, path))
}
