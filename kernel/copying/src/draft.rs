//! Files and folders that come under another name, beside their target, and are removed unless they are published.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{Mode, OFlags, futimens, open};

use crate::holes::HoleWriter;
use crate::limits::DRAFT_NAME_CHARS;
use crate::mtime::Mtime;

/// A name that no other draft of this host has: process, number.
pub(crate) fn draft_name() -> String {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    format!(".vmrepl-{}-{number}", std::process::id())
}

fn beside(target: &Path) -> io::Result<PathBuf> {
    let name = target
        .file_name()
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "not a file's name"))?;
    let mut draft = OsString::from(draft_name());
    draft.push("-");
    draft.push(
        name.to_string_lossy()
            .chars()
            .take(DRAFT_NAME_CHARS)
            .collect::<String>(),
    );
    Ok(target.with_file_name(draft))
}

/// A file to be.
#[derive(Debug)]
pub struct DraftFile {
    /// `None` once it is closed.
    content: Option<HoleWriter>,
    path: PathBuf,
    target: PathBuf,
    is_published: bool,
}

impl DraftFile {
    /// Makes an empty file beside `target`.
    ///
    /// # Errors
    /// When the target's folder is missing or cannot be written.
    pub fn begin(target: &Path) -> io::Result<Self> {
        let path = beside(target)?;
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)?;
        Ok(Self {
            content: Some(HoleWriter::new(file)),
            path,
            target: target.to_owned(),
            is_published: false,
        })
    }

    /// Gives the file its name. Order matters: nobody may see it there before it is whole and has its mode.
    ///
    /// # Errors
    /// When the file cannot be written, or something else than a file has its name.
    pub fn publish(mut self, mode: u32, mtime: Option<Mtime>) -> io::Result<()> {
        let content = self.content.take().ok_or(io::ErrorKind::BrokenPipe)?;
        let file = content.finish()?;
        file.set_permissions(fs::Permissions::from_mode(mode & 0o7777))?;
        if let Some(mtime) = mtime {
            futimens(&file, &mtime.timestamps())?;
        }
        fs::rename(&self.path, &self.target)?;
        self.is_published = true;
        Ok(())
    }
}

impl Write for DraftFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.content
            .as_mut()
            .ok_or(io::ErrorKind::BrokenPipe)?
            .write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for DraftFile {
    fn drop(&mut self) {
        if !self.is_published {
            fs::remove_file(&self.path).ok();
        }
    }
}

/// A folder to be.
#[derive(Debug)]
pub struct DraftFolder {
    path: PathBuf,
    target: PathBuf,
    is_published: bool,
}

impl DraftFolder {
    /// Makes an empty folder beside `target`.
    ///
    /// # Errors
    /// When the target's folder is missing or cannot be written.
    pub fn begin(target: &Path) -> io::Result<Self> {
        let path = beside(target)?;
        fs::DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self {
            path,
            target: target.to_owned(),
            is_published: false,
        })
    }

    /// The folder, to write below.
    ///
    /// # Errors
    /// When it has gone.
    pub fn open(&self) -> io::Result<OwnedFd> {
        Ok(File::open(&self.path)?.into())
    }

    /// Gives the folder its name.
    ///
    /// # Errors
    /// When something that is no empty folder has the name meanwhile.
    pub fn publish(mut self) -> io::Result<()> {
        fs::rename(&self.path, &self.target)?;
        self.is_published = true;
        Ok(())
    }
}

/// Where a folder is written to: a draft of it, or the folder that is there.
#[derive(Debug)]
pub struct Ground {
    root: OwnedFd,
    draft: Option<DraftFolder>,
}

impl Ground {
    /// Takes what is at `target` if it is a folder, and begins a draft if nothing is. A link there is not followed: whoever
    /// sent the last copy may have laid it.
    ///
    /// # Errors
    /// When something else is there, or a draft cannot be made.
    pub fn begin(target: &Path) -> io::Result<Self> {
        match fs::symlink_metadata(target) {
            Ok(there) if there.is_dir() => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let root = open(target, flags, Mode::empty())?;
                Ok(Self { root, draft: None })
            }
            Ok(_) => Err(io::Error::new(
                io::ErrorKind::NotADirectory,
                "is there and no folder",
            )),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let draft = DraftFolder::begin(target)?;
                Ok(Self {
                    root: draft.open()?,
                    draft: Some(draft),
                })
            }
            Err(error) => Err(error),
        }
    }

    /// The folder to write below.
    ///
    /// # Errors
    /// When this process may open no further files.
    pub fn root(&self) -> io::Result<OwnedFd> {
        self.root.try_clone()
    }

    /// Gives a draft its name; a folder that was there has it.
    ///
    /// # Errors
    /// When something that is no empty folder has the name meanwhile.
    pub fn publish(self) -> io::Result<()> {
        self.draft.map_or(Ok(()), DraftFolder::publish)
    }
}

impl Drop for DraftFolder {
    fn drop(&mut self) {
        if !self.is_published && fs::remove_dir_all(&self.path).is_err() {
            // Folders that got their modes already may deny it.
            open_up(&self.path);
            fs::remove_dir_all(&self.path).ok();
        }
    }
}

/// Makes every folder below, and this one, one that its owner may empty. Links are not followed.
fn open_up(folder: &Path) {
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).ok();
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                folders.push(entry.path());
            }
        }
    }
}
