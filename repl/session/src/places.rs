//! Where things are kept. The program's entry reads the environment and fills this in.

use std::fs::File;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::error::SessionError;

/// The folders of one user.
#[derive(Debug, Clone)]
pub struct Places {
    /// Snapshots: templates and, later, sessions.
    pub store: PathBuf,
    /// Built images; templates name root file systems in here.
    pub images: PathBuf,
    /// Private folders of live machines.
    pub run: PathBuf,
    /// Folders searched for QEMU, in the form of `$PATH`.
    pub search_path: std::ffi::OsString,
}

/// The private folder of one live machine, removed on drop. A folder whose owner was killed is removed
/// by the next one that is made.
#[derive(Debug)]
pub struct RunFolder {
    path: PathBuf,
    _lock: File,
}

const LOCK: &str = "lock";

impl RunFolder {
    /// Makes a folder with mode 0700 under `run`, after sweeping those of dead owners.
    pub(crate) fn create(run: &Path) -> Result<Self, SessionError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source: std::io::Error| SessionError::RunFolder { path, source }
        };
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(run)
            .map_err(failed(run))?;
        sweep(run);
        let path = run.join(crate::hygiene::random_name().map_err(failed(run))?);
        std::fs::DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .map_err(failed(&path))?;
        let lock = lock_file(&path.join(LOCK), true).map_err(failed(&path))?;
        rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive)
            .map_err(|errno| failed(&path)(errno.into()))?;
        Ok(Self { path, _lock: lock })
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The machine's socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.path.join("vsock.sock")
    }
}

impl Drop for RunFolder {
    fn drop(&mut self) {
        // Left behind, it would be swept by the next run.
        drop(std::fs::remove_dir_all(&self.path));
    }
}

fn lock_file(path: &Path, create: bool) -> std::io::Result<File> {
    std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .create(create)
        .truncate(false)
        .mode(0o600)
        .open(path)
}

/// Removes folders whose lock nobody holds. Between making its folder and taking the lock an owner has
/// no lock file yet, so folders without one are left alone for a minute.
fn sweep(run: &Path) {
    let Ok(entries) = run.read_dir() else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        let dead = match lock_file(&path.join(LOCK), false) {
            Ok(lock) => {
                rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive)
                    .is_ok()
            }
            Err(_) => entry
                .metadata()
                .and_then(|facts| facts.modified())
                .is_ok_and(|at| at.elapsed().is_ok_and(|age| age.as_secs() > 60)),
        };
        if dead {
            drop(std::fs::remove_dir_all(&path));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_of_dead_owners_are_swept_and_live_ones_stay() {
        let run = tempfile::tempdir().unwrap();
        let live = RunFolder::create(run.path()).unwrap();
        let dead = run.path().join("dead");
        std::fs::create_dir(&dead).unwrap();
        std::fs::write(dead.join(LOCK), "").unwrap();
        let other = RunFolder::create(run.path()).unwrap();
        assert!(!dead.exists());
        assert!(live.path().is_dir() && other.path().is_dir());
        let gone = live.path().to_owned();
        drop(live);
        assert!(!gone.exists());
    }
}
