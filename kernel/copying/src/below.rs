//! A folder, and names below it that cannot leave it.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, chmodat, fchmod, futimens, linkat, mkdirat, openat, renameat,
};
use rustix::fs::{statat, unlinkat, utimensat};
use rustix::io::Errno;

use crate::draft::draft_name;
use crate::mtime::Mtime;

/// What folders get that no entry speaks of.
const UNNAMED_FOLDER_MODE: u32 = 0o755;

const FOLDER: OFlags = OFlags::PATH
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// A name out of an archive as a path of ordinary parts alone; empty for the folder itself. Says what is wrong with others.
pub(crate) fn inside(name: &[u8]) -> Result<PathBuf, &'static str> {
    if name.starts_with(b"/") {
        return Err("its name is absolute");
    }
    if name.contains(&0) {
        return Err("its name has a zero byte");
    }
    let mut path = PathBuf::new();
    for part in name.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => return Err("its name leads out of the target"),
            part => path.push(OsStr::from_bytes(part)),
        }
    }
    Ok(path)
}

/// A folder that is written to. Every step down is one system call that follows no link, so no entry leads further than
/// the folder, whatever was made before it or stood there.
#[derive(Debug)]
pub(crate) struct Below {
    root: OwnedFd,
    /// The folder that was last gone to: most entries lie beside the one before.
    near: Option<(PathBuf, OwnedFd)>,
    /// Folders, and what they get when all is written: until then they must be writable.
    folders: BTreeMap<PathBuf, (u32, Option<Mtime>)>,
}

impl Below {
    pub(crate) fn new(root: OwnedFd) -> Self {
        Self {
            root,
            near: None,
            folders: BTreeMap::new(),
        }
    }

    /// Makes a folder, or goes on with one that is there.
    pub(crate) fn folder(
        &mut self,
        path: PathBuf,
        mode: u32,
        mtime: Option<Mtime>,
    ) -> io::Result<()> {
        self.enter(&path)?;
        self.folders.insert(path, (mode, mtime));
        Ok(())
    }

    /// Puts what `make` makes under a name of its own into the place of `path`, in one step.
    pub(crate) fn replace(
        &mut self,
        path: &Path,
        make: impl FnOnce(BorrowedFd<'_>, &str) -> io::Result<()>,
    ) -> io::Result<()> {
        let (folder, name) = split(path)?;
        let folder = self.enter(folder)?;
        let draft = draft_name();
        let done = make(folder, &draft).and_then(|()| Ok(renameat(folder, &draft, folder, name)?));
        // Also after success: a rename onto another name of the same file does nothing.
        unlinkat(folder, &draft, AtFlags::empty()).ok();
        done
    }

    /// Gives the file `target` below here the further name `path`.
    pub(crate) fn link(&mut self, path: &Path, target: &Path) -> io::Result<()> {
        let (folder, name) = split(target)?;
        let folder = self.find(folder)?;
        // Of a link's own link nobody knows where it leads.
        let found = statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW)?;
        if FileType::from_raw_mode(found.st_mode) != FileType::RegularFile {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "its target is no regular file",
            ));
        }
        self.replace(path, |here, draft| {
            Ok(linkat(&folder, name, here, draft, AtFlags::empty())?)
        })
    }

    /// Gives the folders their modes and times, the deepest first: one that is closed cannot be gone through.
    pub(crate) fn finish(mut self) -> Result<(), (PathBuf, io::Error)> {
        let folders = std::mem::take(&mut self.folders);
        for (path, (mode, mtime)) in folders.into_iter().rev() {
            self.finish_folder(&path, mode, mtime)
                .map_err(|error| (path, error))?;
        }
        Ok(())
    }

    fn finish_folder(&mut self, path: &Path, mode: u32, mtime: Option<Mtime>) -> io::Result<()> {
        let mode = Mode::from_raw_mode(mode);
        if path.as_os_str().is_empty() {
            fchmod(&self.root, mode)?;
            if let Some(mtime) = mtime {
                futimens(&self.root, &mtime.timestamps())?;
            }
            return Ok(());
        }
        let (folder, name) = split(path)?;
        let folder = self.enter(folder)?;
        // No link: this name was gone through, and entries never take the place of a folder.
        chmodat(folder, name, mode, AtFlags::empty())?;
        if let Some(mtime) = mtime {
            utimensat(folder, name, &mtime.timestamps(), AtFlags::SYMLINK_NOFOLLOW)?;
        }
        Ok(())
    }

    /// Goes to a folder and makes those that are missing.
    fn enter(&mut self, path: &Path) -> io::Result<BorrowedFd<'_>> {
        if path.as_os_str().is_empty() {
            return Ok(self.root.as_fd());
        }
        let (mut at, mut here) = match self.near.take() {
            Some((near, folder)) if path.starts_with(&near) => (near, Some(folder)),
            _ => (PathBuf::new(), None),
        };
        let rest = path.strip_prefix(&at).map_err(io::Error::other)?;
        for part in rest {
            at.push(part);
            let from = here.as_ref().map_or(self.root.as_fd(), AsFd::as_fd);
            let found = match openat(from, part, FOLDER, Mode::empty()) {
                Err(Errno::NOENT) => {
                    mkdirat(from, part, Mode::RWXU)?;
                    self.folders.insert(at.clone(), (UNNAMED_FOLDER_MODE, None));
                    openat(from, part, FOLDER, Mode::empty())?
                }
                found => found?,
            };
            here = Some(found);
        }
        let here = here.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.near.insert((at, here)).1.as_fd())
    }

    /// Goes to a folder that is there.
    fn find(&self, path: &Path) -> io::Result<OwnedFd> {
        let mut here = self.root.try_clone()?;
        for part in path {
            here = openat(&here, part, FOLDER, Mode::empty())?;
        }
        Ok(here)
    }
}

fn split(path: &Path) -> io::Result<(&Path, &OsStr)> {
    let name = path
        .file_name()
        .ok_or_else(|| io::Error::new(io::ErrorKind::IsADirectory, "is the folder itself"))?;
    Ok((path.parent().unwrap_or(Path::new("")), name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_inside() {
        assert_eq!(inside(b"./a//b/./c/"), Ok(PathBuf::from("a/b/c")));
        assert_eq!(inside(b"./"), Ok(PathBuf::new()));
        assert_eq!(inside(b"..a/..."), Ok(PathBuf::from("..a/...")));
        for name in [&b"/a"[..], b"..", b"a/../b", b"a/..", b"a\0b", b"//"] {
            inside(name).unwrap_err();
        }
    }
}
