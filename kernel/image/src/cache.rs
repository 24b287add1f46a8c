//! The cache of steps: each result is a folder named by its key, published whole or not at all.
//!
//! ```text
//! steps/KIND-KEY/     what a step made; immutable once it is there
//! staging/KIND-KEY/   what a builder is making; its own while it holds the lock
//! locks/KIND-KEY      locked (flock) by the builder that makes this step; the lock ends with the process
//! ```

use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::error::{ImageError, at};
use crate::key::Key;
use crate::limits::CANCEL_POLL_MS;
use crate::progress::{Cancel, Progress, Step};

/// A cache folder that exists. Several builders, also in several processes, may use it at once.
#[derive(Debug, Clone)]
pub(crate) struct Cache {
    root: PathBuf,
}

/// What a step's work is given.
pub(crate) struct Work<'a> {
    /// An empty folder; what is in it afterwards becomes the result.
    pub(crate) staging: &'a Path,
    pub(crate) progress: &'a mut dyn Progress,
    pub(crate) cancel: &'a Cancel,
}

impl Work<'_> {
    /// Fails when the build was told to stop.
    pub(crate) fn checkpoint(&self) -> Result<(), ImageError> {
        if self.cancel.is_cancelled() {
            return Err(ImageError::Cancelled);
        }
        Ok(())
    }
}

impl Cache {
    /// Opens the cache, makes its folders, and removes what builders that died were at.
    pub(crate) fn open(root: &Path) -> Result<Self, ImageError> {
        for name in ["steps", "staging", "locks"] {
            let path = root.join(name);
            std::fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&path)
                .map_err(at("making the folder", &path))?;
        }
        // The tools' own working folders must be absolute paths.
        let root = root
            .canonicalize()
            .map_err(at("opening the folder", root))?;
        let cache = Self { root };
        cache.sweep()?;
        Ok(cache)
    }

    /// Returns a published result, if it is there.
    pub(crate) fn find(&self, kind: &str, key: Key) -> Option<PathBuf> {
        Some(self.published(&name(kind, key))).filter(|path| path.is_dir())
    }

    /// Returns the step's result: the published one, or what `work` makes now. A second builder of the same key waits
    /// for the first and takes its result.
    pub(crate) fn step(
        &self,
        step: &Step,
        key: Key,
        progress: &mut dyn Progress,
        cancel: &Cancel,
        work: impl FnOnce(&mut Work<'_>) -> Result<(), ImageError>,
    ) -> Result<PathBuf, ImageError> {
        let started = Instant::now();
        progress.started(step);
        let name = name(step.name, key);
        let published = self.published(&name);
        let mut cached = published.is_dir();
        if !cached {
            let lock = self.lock(&name, progress, cancel)?;
            cached = published.is_dir();
            if !cached {
                self.make(&name, progress, cancel, work)?;
            }
            drop(lock);
        }
        progress.finished(cached, started.elapsed());
        Ok(published)
    }

    fn make(
        &self,
        name: &str,
        progress: &mut dyn Progress,
        cancel: &Cancel,
        work: impl FnOnce(&mut Work<'_>) -> Result<(), ImageError>,
    ) -> Result<(), ImageError> {
        let staging = self.root.join("staging").join(name);
        remove(&staging)?;
        std::fs::create_dir(&staging).map_err(at("making the folder", &staging))?;
        let mut given = Work {
            staging: &staging,
            progress,
            cancel,
        };
        let made = work(&mut given).and_then(|()| given.checkpoint());
        let made = made.and_then(|()| self.publish(&staging, name));
        if made.is_err() {
            // The first error is the one that matters; what stays behind is swept by the next builder.
            drop(remove(&staging));
        }
        made
    }

    /// The content must be on the disk before the name is: a result that is found is complete, also after a power cut.
    fn publish(&self, staging: &Path, name: &str) -> Result<(), ImageError> {
        let published = self.published(name);
        let folder = File::open(staging).map_err(at("opening", staging))?;
        rustix::fs::syncfs(&folder).map_err(at("syncing", staging))?;
        std::fs::rename(staging, &published).map_err(at("publishing", &published))?;
        let steps = self.root.join("steps");
        File::open(&steps)
            .and_then(|folder| folder.sync_all())
            .map_err(at("syncing", &steps))
    }

    fn published(&self, name: &str) -> PathBuf {
        self.root.join("steps").join(name)
    }

    fn lock_file(&self, name: &str) -> Result<File, ImageError> {
        let path = self.root.join("locks").join(name);
        OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(at("opening the lock", &path))
    }

    fn lock(
        &self,
        name: &str,
        progress: &mut dyn Progress,
        cancel: &Cancel,
    ) -> Result<File, ImageError> {
        let file = self.lock_file(name)?;
        let mut told = false;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::WouldBlock) if cancel.is_cancelled() => {
                    return Err(ImageError::Cancelled);
                }
                Err(TryLockError::WouldBlock) => {
                    if !told {
                        progress.advanced(0, "another builder is at it; waiting");
                        told = true;
                    }
                    std::thread::sleep(Duration::from_millis(CANCEL_POLL_MS));
                }
                Err(TryLockError::Error(source)) => {
                    return Err(at("locking", &self.root.join("locks").join(name))(source));
                }
            }
        }
    }

    fn sweep(&self) -> Result<(), ImageError> {
        let staging = self.root.join("staging");
        for entry in std::fs::read_dir(&staging).map_err(at("reading the folder", &staging))? {
            let entry = entry.map_err(at("reading the folder", &staging))?;
            let lock = self.lock_file(&entry.file_name().to_string_lossy())?;
            // Whoever builds there holds the lock; a dead one holds none.
            if lock.try_lock().is_ok() {
                remove(&entry.path())?;
            }
        }
        Ok(())
    }
}

fn name(kind: &str, key: Key) -> String {
    format!("{kind}-{}", key.short())
}

/// Removes a folder with all that is in it, also where its own modes forbid that to an ordinary user. Where something
/// is mounted inside, it refuses: that is somebody else's, perhaps the host's own `/proc`.
pub(crate) fn remove(path: &Path) -> Result<(), ImageError> {
    if let Some(mounted) = mount_inside(path)? {
        return Err(ImageError::unusable(
            format!("removing `{}`", path.display()),
            format!("`{}` is mounted there", mounted.display()),
        ));
    }
    let gone = |result: std::io::Result<()>| match result {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        result => result,
    };
    if gone(std::fs::remove_dir_all(path)).is_ok() {
        return Ok(());
    }
    unlock_folders(path).map_err(at("removing", path))?;
    gone(std::fs::remove_dir_all(path)).map_err(at("removing", path))
}

/// Returns a mount point in a folder, or the folder itself if it is one.
fn mount_inside(path: &Path) -> Result<Option<PathBuf>, ImageError> {
    let table = Path::new("/proc/self/mountinfo");
    let text = std::fs::read_to_string(table).map_err(at("reading", table))?;
    Ok(mount_points(&text).find(|point| point.starts_with(path)))
}

/// The fifth field of a line; a blank in it is written as `\040`.
fn mount_points(mountinfo: &str) -> impl Iterator<Item = PathBuf> {
    mountinfo.lines().filter_map(|line| {
        let point = line.split(' ').nth(4)?;
        Some(PathBuf::from(point.replace("\\040", " ")))
    })
}

fn unlock_folders(path: &Path) -> std::io::Result<()> {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700))?;
    for entry in std::fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            unlock_folders(&entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
