//! What compilers have made, by the sum of its source: the same source is compiled once.
//!
//! Lies where the administrator alone may look, and is guest memory: a checkpoint holds it, and what was compiled before a
//! fork is there after it. Whoever compiles might be one who tampers with what the compiler leaves, so each keeps to its own
//! part: what the machine's user has compiled is never run for a stranger.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use sha2::{Digest as _, Sha256};
use vmrepl_wire::languages::Language;

use crate::limits;

/// Whose programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Strangers,
    Owner,
}

impl Part {
    fn name(self) -> &'static str {
        match self {
            Self::Strangers => "strangers",
            Self::Owner => "owner",
        }
    }
}

/// The compiled programs of one part.
#[derive(Debug)]
pub(super) struct Cache {
    folder: PathBuf,
    most_bytes: u64,
}

/// The name of what a source is compiled to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Key(String);

impl Key {
    /// The toolchain is the machine's, and so is the cache: neither changes without the other.
    pub(super) fn of(language: Language, code: &[u8]) -> Self {
        let mut hasher = Sha256::new();
        hasher.update(language.name());
        hasher.update([0]);
        hasher.update(code);
        let sum = hasher.finalize();
        Self(sum.iter().map(|byte| format!("{byte:02x}")).collect())
    }
}

impl Cache {
    pub(super) fn of(part: Part) -> Self {
        Self {
            folder: Path::new("/run/vmrepl/compiled").join(part.name()),
            most_bytes: limits::COMPILED_BYTES,
        }
    }

    /// Puts what was made of this source before to where it is run from; false when there is nothing.
    pub(super) fn fetch(&self, key: &Key, target: &Path) -> io::Result<bool> {
        let mut kept = match File::open(self.folder.join(&key.0)) {
            Ok(kept) => kept,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        };
        // The one that was used longest ago is the first to go.
        kept.set_modified(SystemTime::now())?;
        let mut copy = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o755)
            .open(target)?;
        io::copy(&mut kept, &mut copy)?;
        Ok(true)
    }

    /// Keeps what a compiler has left. What is no plain file, or is too large, is not kept.
    pub(super) fn keep(&self, key: &Key, made: &Path) -> io::Result<()> {
        // Whoever compiled may have put something else in its place: a link is not followed, a pipe not waited for.
        let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
        let made = OpenOptions::new()
            .read(true)
            .custom_flags(flags)
            .open(made)?;
        let facts = made.metadata()?;
        if !facts.is_file() || facts.len() > self.most_bytes / 2 {
            return Ok(());
        }
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.folder)?;
        self.make_room(facts.len())?;
        let unfinished = self.folder.join(format!("{}.new", std::process::id()));
        let mut copy = File::create(&unfinished)?;
        let copied = io::copy(&mut made.take(facts.len()), &mut copy)
            .and_then(|_| copy.flush())
            .and_then(|()| fs::rename(&unfinished, self.folder.join(&key.0)));
        if copied.is_err() {
            fs::remove_file(&unfinished).ok();
        }
        copied
    }

    fn make_room(&self, wanted: u64) -> io::Result<()> {
        let mut kept = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            // One that another process removes meanwhile is no loss.
            if let Ok(facts) = entry.metadata() {
                kept.push((facts.modified()?, facts.len(), entry.path()));
            }
        }
        kept.sort_unstable();
        let mut total: u64 = kept.iter().map(|(_, bytes, _)| bytes).sum();
        for (_, bytes, path) in kept {
            if total + wanted <= self.most_bytes {
                break;
            }
            fs::remove_file(path).ok();
            total -= bytes;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn cache(folder: &Path) -> Cache {
        Cache {
            folder: folder.join("compiled"),
            most_bytes: 100,
        }
    }

    fn key(code: &str) -> Key {
        Key::of(Language::Go, code.as_bytes())
    }

    #[test]
    fn the_same_source_is_compiled_once() {
        let folder = tempfile::tempdir().unwrap();
        let cache = cache(folder.path());
        let (made, target) = (folder.path().join("made"), folder.path().join("target"));
        fs::write(&made, "program").unwrap();
        assert!(!cache.fetch(&key("a"), &target).unwrap());
        cache.keep(&key("a"), &made).unwrap();
        assert!(cache.fetch(&key("a"), &target).unwrap());
        assert_eq!(fs::read_to_string(&target).unwrap(), "program");
        assert!(!cache.fetch(&key("b"), &folder.path().join("b")).unwrap());
        assert_ne!(key("a"), Key::of(Language::Rust, b"a"));
    }

    #[test]
    fn what_was_used_longest_ago_goes_first() {
        let folder = tempfile::tempdir().unwrap();
        let cache = cache(folder.path());
        let made = folder.path().join("made");
        fs::write(&made, [0; 40]).unwrap();
        for name in ["a", "b"] {
            cache.keep(&key(name), &made).unwrap();
        }
        let used = File::open(cache.folder.join(&key("b").0)).unwrap();
        used.set_modified(SystemTime::now() - Duration::from_secs(9))
            .unwrap();
        cache.keep(&key("c"), &made).unwrap();
        let is_there = |name: &str| cache.fetch(&key(name), &folder.path().join(name)).unwrap();
        assert!(is_there("a") && !is_there("b") && is_there("c"));
    }

    #[test]
    fn what_is_no_plain_file_of_fair_size_is_not_kept() {
        let folder = tempfile::tempdir().unwrap();
        let cache = cache(folder.path());
        let (secret, link) = (folder.path().join("secret"), folder.path().join("link"));
        fs::write(&secret, "secret").unwrap();
        std::os::unix::fs::symlink(&secret, &link).unwrap();
        cache.keep(&key("link"), &link).unwrap_err();
        cache.keep(&key("folder"), folder.path()).unwrap();
        fs::write(&secret, [0; 51]).unwrap();
        cache.keep(&key("large"), &secret).unwrap();
        for name in ["link", "folder", "large"] {
            assert!(!cache.fetch(&key(name), &folder.path().join(name)).unwrap());
        }
    }
}
