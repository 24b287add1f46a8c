//! Where things are kept. The program's entry reads the environment and fills this in.

use std::fs::File;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::SessionError;

/// The folders of one user.
#[derive(Debug, Clone)]
pub struct Places {
    /// Snapshots: templates and the checkpoints of sessions.
    pub store: PathBuf,
    /// The record of sessions, and their locks.
    pub sessions: PathBuf,
    /// Built images; templates name root file systems in here.
    pub images: PathBuf,
    /// Private folders of live machines.
    pub run: PathBuf,
    /// Folders searched for QEMU, in the form of `$PATH`.
    pub search_path: std::ffi::OsString,
    /// The program that runs a machine under KVM, with its arguments: it calls
    /// [`vmrepl_machine::kvm_worker`].
    pub worker: (PathBuf, Vec<std::ffi::OsString>),
}

/// The private folder of one live machine, removed on drop. A folder whose owner was killed is removed
/// by the next one that is made.
#[derive(Debug)]
pub struct RunFolder {
    path: PathBuf,
    _lock: File,
}

const LOCK: &str = "lock";

/// How names of folders begin that their makers have not locked yet.
const UNLOCKED: &str = ".";

/// Nobody takes as long as this to lock a folder.
const UNLOCKED_MAX: Duration = Duration::from_secs(60);

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
        let name = crate::hygiene::random_name().map_err(failed(run))?;
        let (unlocked, path) = (run.join(format!("{UNLOCKED}{name}")), run.join(name));
        std::fs::DirBuilder::new()
            .mode(0o700)
            .create(&unlocked)
            .map_err(failed(&unlocked))?;
        let lock = lock_file(&unlocked.join(LOCK), true).map_err(failed(&unlocked))?;
        rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive)
            .map_err(|errno| failed(&unlocked)(errno.into()))?;
        // Whoever sweeps sees it locked from its first moment under this name.
        std::fs::rename(&unlocked, &path).map_err(failed(&path))?;
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

/// Removes folders whose lock nobody holds. Those that are being made are left alone while they are new.
fn sweep(run: &Path) {
    let Ok(entries) = run.read_dir() else { return };
    for entry in entries.flatten() {
        if entry
            .file_name()
            .as_encoded_bytes()
            .starts_with(UNLOCKED.as_bytes())
            && !is_old(&entry)
        {
            continue;
        }
        let is_dead = match lock_file(&entry.path().join(LOCK), false) {
            Ok(lock) => {
                rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive)
                    .is_ok()
            }
            Err(_) => is_old(&entry),
        };
        if is_dead {
            drop(std::fs::remove_dir_all(entry.path()));
        }
    }
}

fn is_old(entry: &std::fs::DirEntry) -> bool {
    let changed = entry.metadata().and_then(|facts| facts.modified());
    changed.is_ok_and(|at| at.elapsed().is_ok_and(|age| age > UNLOCKED_MAX))
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

    #[test]
    fn many_are_made_at_once_and_none_is_swept() {
        let run = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        let folder = RunFolder::create(run.path()).unwrap();
                        assert!(folder.path().join(LOCK).exists());
                    }
                });
            }
        });
        assert_eq!(run.path().read_dir().unwrap().count(), 0);
    }
}
