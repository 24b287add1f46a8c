//! A tar stream becomes what it says, below one folder. The archive may be anyone's.

use std::ffi::OsStr;
use std::fs::{File, Permissions};
use std::io::{self, Read, Write as _};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags, futimens, openat, symlinkat, utimensat};
use tar::{Archive, Entry, EntryType};

use crate::below::{Below, inside};
use crate::error::UnpackError;
use crate::holes::HoleWriter;
use crate::limits::{CHUNK_BYTES, RECORDS_BYTES};
use crate::mtime::Mtime;
use crate::record::Records;
use crate::tally::{Tally, Watch};

/// What permission bits an archive may set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    /// All.
    Own,
    /// Those of reading, writing and executing: nothing that runs as somebody else.
    Foreign,
}

impl Trust {
    /// The bits that pass.
    #[must_use]
    pub fn mask(self) -> u32 {
        match self {
            Self::Own => 0o7777,
            Self::Foreign => 0o777,
        }
    }
}

/// Unpacks a tar stream below `root`, with modes, times, links and holes; owners stay the caller's. A file that is there is
/// replaced in one step, a folder gone on with. Devices, pipes and what is of no known kind are left out and named in the
/// tally. What follows the archive's end in `stream` is not read.
///
/// # Errors
/// At the first entry with a name that is absolute, has `..` or leads through a link, that cannot be written, or that is damaged.
/// What came before it stays.
pub fn unpack(
    stream: impl Read,
    root: OwnedFd,
    trust: Trust,
    watch: &mut Watch<'_>,
) -> Result<Tally, UnpackError> {
    let mut archive = Archive::new(stream);
    let entries = archive.entries().map_err(UnpackError::Stream)?;
    let mut unpacking = Unpacking {
        below: Below::new(root),
        tally: Tally::default(),
        trust,
        watch,
        chunk: vec![0; CHUNK_BYTES],
    };
    let mut records = Records::default();
    // Raw: long names and records are read here, where their length has a bound.
    for entry in entries.raw(true) {
        let mut entry = entry.map_err(UnpackError::Stream)?;
        match entry.header().entry_type() {
            EntryType::XGlobalHeader => {}
            EntryType::XHeader => {
                let content = bounded(&mut entry)?;
                let damaged =
                    |why| UnpackError::refused(&name_of(&entry, &Records::default()), why);
                records.read(&content).map_err(damaged)?;
            }
            EntryType::GNULongName => records.path = Some(terminated(bounded(&mut entry)?)),
            EntryType::GNULongLink => records.link = Some(terminated(bounded(&mut entry)?)),
            _ => unpacking.entry(&mut entry, &std::mem::take(&mut records))?,
        }
    }
    let Unpacking { below, tally, .. } = unpacking;
    below
        .finish()
        .map_err(|(path, source)| UnpackError::entry(&path, source))?;
    Ok(tally)
}

/// Reads a whole entry that must be short.
fn bounded(entry: &mut Entry<'_, impl Read>) -> Result<Vec<u8>, UnpackError> {
    if entry.size() > RECORDS_BYTES {
        return Err(UnpackError::refused(
            &name_of(entry, &Records::default()),
            "its name is too long",
        ));
    }
    let mut content = Vec::new();
    entry
        .read_to_end(&mut content)
        .map_err(UnpackError::Stream)?;
    if content.len() as u64 != entry.size() {
        return Err(UnpackError::Stream(io::ErrorKind::UnexpectedEof.into()));
    }
    Ok(content)
}

/// GNU's long names end with a zero byte.
fn terminated(mut name: Vec<u8>) -> Vec<u8> {
    if name.last() == Some(&0) {
        name.pop();
    }
    name
}

/// The name as it is given, for errors.
fn name_of(entry: &Entry<'_, impl Read>, records: &Records) -> PathBuf {
    match &records.path {
        Some(name) => PathBuf::from(OsStr::from_bytes(name)),
        None => PathBuf::from(OsStr::from_bytes(&entry.header().path_bytes())),
    }
}

struct Unpacking<'a, 'w> {
    below: Below,
    tally: Tally,
    trust: Trust,
    watch: &'a mut Watch<'w>,
    chunk: Vec<u8>,
}

impl Unpacking<'_, '_> {
    fn entry(
        &mut self,
        entry: &mut Entry<'_, impl Read>,
        records: &Records,
    ) -> Result<(), UnpackError> {
        let given = name_of(entry, records);
        let refused = |why| UnpackError::refused(&given, why);
        let path = inside(given.as_os_str().as_bytes()).map_err(refused)?;
        let header = entry.header();
        let kind = header.entry_type();
        let mode = header
            .mode()
            .map_err(|_| refused("its mode is no number"))?
            & self.trust.mask();
        let seconds = header
            .mtime()
            .map_err(|_| refused("its time is no number"))?;
        let mtime = records.mtime.unwrap_or(Mtime::from_seconds(seconds));
        let link = match &records.link {
            Some(link) => link.clone(),
            None => header
                .link_name_bytes()
                .map(|name| name.into_owned())
                .unwrap_or_default(),
        };
        (self.watch)(&path, self.tally.bytes);
        let done = match kind {
            EntryType::Directory => self
                .below
                .folder(path, mode, Some(mtime))
                .map(|()| self.tally.folders += 1),
            EntryType::Regular | EntryType::Continuous => {
                return self.file(entry, &path, mode, mtime);
            }
            EntryType::Symlink => self.symbolic_link(&path, &link, mtime),
            EntryType::Link => {
                let target =
                    inside(&link).map_err(|_| refused("it is a link out of the target"))?;
                self.below
                    .link(&path, &target)
                    .map(|()| self.tally.links += 1)
            }
            EntryType::GNUSparse => return Err(refused("it is stored sparsely")),
            other => {
                self.tally.skip(&path, what(other));
                Ok(())
            }
        };
        done.map_err(|error| placed(&given, error))
    }

    fn symbolic_link(&mut self, path: &Path, target: &[u8], mtime: Mtime) -> io::Result<()> {
        self.below.replace(path, |folder, draft| {
            symlinkat(OsStr::from_bytes(target), folder, draft)?;
            Ok(utimensat(
                folder,
                draft,
                &mtime.timestamps(),
                AtFlags::SYMLINK_NOFOLLOW,
            )?)
        })?;
        self.tally.links += 1;
        Ok(())
    }

    fn file(
        &mut self,
        entry: &mut Entry<'_, impl Read>,
        path: &Path,
        mode: u32,
        mtime: Mtime,
    ) -> Result<(), UnpackError> {
        let Self {
            below,
            tally,
            watch,
            chunk,
            ..
        } = self;
        // The stream's own failure is told apart from the file system's.
        let mut broken = None;
        let done = below.replace(path, |folder, draft| {
            let mut file = HoleWriter::new(create(folder, draft)?);
            let mut rest = entry.size();
            while rest > 0 {
                let count = match fill(entry, chunk, rest) {
                    Ok(count @ 1..) => count,
                    ended => {
                        let error = ended.err().unwrap_or(io::ErrorKind::UnexpectedEof.into());
                        broken = Some(error);
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                };
                file.write_all(&chunk[..count])?;
                rest -= count as u64;
                tally.bytes += count as u64;
                watch(path, tally.bytes);
            }
            let file = file.finish()?;
            file.set_permissions(Permissions::from_mode(mode))?;
            Ok(futimens(&file, &mtime.timestamps())?)
        });
        if let Some(error) = broken {
            return Err(UnpackError::Stream(error));
        }
        done.map_err(|error| placed(path, error))?;
        self.tally.files += 1;
        Ok(())
    }
}

/// What is left out.
fn what(kind: EntryType) -> &'static str {
    match kind {
        EntryType::Char | EntryType::Block => "a device",
        EntryType::Fifo => "a named pipe",
        _ => "of an unknown kind",
    }
}

fn create(folder: BorrowedFd<'_>, name: &str) -> io::Result<File> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(openat(folder, name, flags, Mode::RUSR | Mode::WUSR)?.into())
}

/// Reads as much as the chunk holds, so that blocks of the file are blocks of what is written.
fn fill(stream: &mut impl Read, chunk: &mut [u8], rest: u64) -> io::Result<usize> {
    let wanted = usize::try_from(rest).map_or(chunk.len(), |rest| rest.min(chunk.len()));
    let mut filled = 0;
    while filled < wanted {
        match stream.read(&mut chunk[filled..wanted]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// A step that met no folder met a link or a file.
fn placed(path: &Path, error: io::Error) -> UnpackError {
    if error.kind() == io::ErrorKind::NotADirectory {
        return UnpackError::refused(path, "it leads through a link or a file");
    }
    UnpackError::entry(path, error)
}
