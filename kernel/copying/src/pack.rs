//! A folder as a tar stream: ustar headers, with records of pax for what they have no room for.

use std::collections::HashMap;
use std::fs::{self, File, Metadata};
use std::io::{self, Read as _, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, open};
use tar::{EntryType, Header};

use crate::limits::CHUNK_BYTES;
use crate::mtime::Mtime;
use crate::record::{push_record, records_header};
use crate::tally::{Tally, Watch};

/// The unit of a tar stream, in bytes.
const RECORD_BYTES: usize = 512;

/// What a name may have in a header; longer ones stand in records.
const HEADER_NAME_BYTES: usize = 100;

/// The bytes of all files below a folder, as of now; files that cannot be looked at count nothing.
///
/// # Errors
/// When the folder itself cannot be read.
pub fn measure(folder: &Path) -> io::Result<u64> {
    fs::read_dir(folder)?;
    let (mut bytes, mut seen) = (0_u64, HashMap::new());
    for found in Walk::new(folder) {
        if let Ok(metadata) = found.metadata
            && metadata.is_file()
            && (metadata.nlink() == 1
                || seen.insert((metadata.dev(), metadata.ino()), ()).is_none())
        {
            bytes = bytes.saturating_add(metadata.len());
        }
    }
    Ok(bytes)
}

/// Writes the tar stream of a folder, which stands in it as `./`. Links are kept as links, files with many names as one file.
/// What vanishes meanwhile, cannot be read, or is neither file, folder nor link is left out and named in the tally; a file that
/// shrinks is filled up with zeros and named.
///
/// # Errors
/// When the folder itself cannot be read, or `out` fails.
pub fn pack(folder: &Path, out: &mut dyn Write, watch: &mut Watch<'_>) -> io::Result<Tally> {
    fs::read_dir(folder)?;
    let mut packing = Packing {
        out,
        watch,
        tally: Tally::default(),
        seen: HashMap::new(),
        chunk: vec![0; CHUNK_BYTES],
    };
    for found in Walk::new(folder) {
        packing.entry(folder, found)?;
    }
    packing.out.write_all(&[0; 2 * RECORD_BYTES])?;
    packing.out.flush()?;
    Ok(packing.tally)
}

/// Something below a folder.
struct Found {
    /// Below the folder; empty for itself.
    path: PathBuf,
    metadata: io::Result<Metadata>,
    /// Why its content is not known, if it is a folder.
    closed: Option<io::Error>,
}

/// Everything below a folder, each folder before its content, in the order of names.
struct Walk<'a> {
    folder: &'a Path,
    rest: Vec<PathBuf>,
}

impl<'a> Walk<'a> {
    fn new(folder: &'a Path) -> Self {
        Self {
            folder,
            rest: vec![PathBuf::new()],
        }
    }

    fn list(&mut self, path: &Path) -> io::Result<()> {
        let mut names = Vec::new();
        for entry in fs::read_dir(at(self.folder, path))? {
            names.push(entry?.file_name());
        }
        names.sort();
        self.rest
            .extend(names.iter().rev().map(|name| path.join(name)));
        Ok(())
    }
}

impl Iterator for Walk<'_> {
    type Item = Found;

    fn next(&mut self) -> Option<Found> {
        let path = self.rest.pop()?;
        let metadata = if path.as_os_str().is_empty() {
            fs::metadata(self.folder)
        } else {
            fs::symlink_metadata(at(self.folder, &path))
        };
        let is_folder = metadata.as_ref().is_ok_and(Metadata::is_dir);
        let closed = is_folder.then(|| self.list(&path).err()).flatten();
        Some(Found {
            path,
            metadata,
            closed,
        })
    }
}

/// Joined without a slash behind the folder: a name with one is looked at as a folder.
fn at(folder: &Path, path: &Path) -> PathBuf {
    if path.as_os_str().is_empty() {
        folder.to_owned()
    } else {
        folder.join(path)
    }
}

struct Packing<'a> {
    out: &'a mut dyn Write,
    watch: &'a mut Watch<'a>,
    tally: Tally,
    /// Files with many names, and the first of them.
    seen: HashMap<(u64, u64), PathBuf>,
    chunk: Vec<u8>,
}

impl Packing<'_> {
    fn entry(&mut self, folder: &Path, found: Found) -> io::Result<()> {
        let Found {
            path,
            metadata,
            closed,
        } = found;
        (self.watch)(&path, self.tally.bytes);
        let metadata = match metadata {
            Ok(metadata) => metadata,
            Err(error) => {
                self.skip(&path, &error);
                return Ok(());
            }
        };
        let kind = metadata.file_type();
        if kind.is_dir() {
            self.header(EntryType::Directory, &path, None, &metadata, 0)?;
            self.tally.folders += 1;
            if let Some(error) = closed {
                self.skip(&path, &error);
            }
        } else if kind.is_file() {
            self.file(folder, path, &metadata)?;
        } else if kind.is_symlink() {
            match fs::read_link(at(folder, &path)) {
                Ok(target) => {
                    self.header(EntryType::Symlink, &path, Some(&target), &metadata, 0)?;
                    self.tally.links += 1;
                }
                Err(error) => self.skip(&path, &error),
            }
        } else {
            let what = if kind.is_socket() {
                "a socket"
            } else if kind.is_fifo() {
                "a named pipe"
            } else {
                "a device"
            };
            self.tally.skip(&path, what);
        }
        Ok(())
    }

    fn file(&mut self, folder: &Path, path: PathBuf, metadata: &Metadata) -> io::Result<()> {
        let key = (metadata.dev(), metadata.ino());
        if let Some(first) = self.seen.get(&key).cloned() {
            self.header(EntryType::Link, &path, Some(&first), metadata, 0)?;
            self.tally.links += 1;
            return Ok(());
        }
        let flags =
            OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let opened = open(at(folder, &path), flags, Mode::empty()).map_err(io::Error::from);
        let opened = opened
            .map(File::from)
            .and_then(|file| match file.metadata()? {
                metadata if metadata.is_file() => Ok((metadata, file)),
                _ => Err(io::Error::other("it became something else")),
            });
        let (metadata, mut file) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                self.skip(&path, &error);
                return Ok(());
            }
        };
        let size = metadata.len();
        self.header(EntryType::Regular, &path, None, &metadata, size)?;
        let mut rest = size;
        while rest > 0 {
            let wanted = usize::try_from(rest).map_or(CHUNK_BYTES, |rest| rest.min(CHUNK_BYTES));
            let count = match file.read(&mut self.chunk[..wanted]) {
                Ok(count @ 1..) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                ended => {
                    let came = size - rest;
                    let why = ended
                        .err()
                        .map_or("it shrank".to_owned(), |error| error.to_string());
                    self.tally
                        .skip(&path, &format!("{why}: zeros after {came} of {size} bytes"));
                    io::copy(&mut io::repeat(0).take(rest), self.out)?;
                    break;
                }
            };
            self.out.write_all(&self.chunk[..count])?;
            rest -= count as u64;
            self.tally.bytes += count as u64;
            (self.watch)(&path, self.tally.bytes);
        }
        self.pad(size)?;
        self.tally.files += 1;
        if metadata.nlink() > 1 {
            self.seen.insert(key, path);
        }
        Ok(())
    }

    fn skip(&mut self, path: &Path, error: &io::Error) {
        match error.kind() {
            io::ErrorKind::NotFound => self.tally.skip(path, "it vanished"),
            _ => self.tally.skip(path, &error.to_string()),
        }
    }

    fn header(
        &mut self,
        kind: EntryType,
        path: &Path,
        link: Option<&Path>,
        metadata: &Metadata,
        size: u64,
    ) -> io::Result<()> {
        let mut name = path.as_os_str().as_bytes().to_vec();
        if kind == EntryType::Directory {
            name.extend_from_slice(if name.is_empty() { b"./" } else { b"/" });
        }
        let link = link.map_or(&b""[..], |link| link.as_os_str().as_bytes());
        let mtime = Mtime::from(metadata);
        let mut records = Vec::new();
        if name.len() > HEADER_NAME_BYTES {
            push_record("path", &name, &mut records);
        }
        if link.len() > HEADER_NAME_BYTES {
            push_record("linkpath", link, &mut records);
        }
        if Mtime::from_seconds(mtime.seconds()) != mtime {
            push_record("mtime", mtime.to_decimal().as_bytes(), &mut records);
        }
        if !records.is_empty() {
            self.out
                .write_all(records_header(records.len()).as_bytes())?;
            self.out.write_all(&records)?;
            self.pad(records.len() as u64)?;
        }
        let mut header = Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(metadata.mode() & 0o7777);
        header.set_mtime(mtime.seconds());
        header.set_size(size);
        // Owners mean nothing on the other side.
        header.set_uid(0);
        header.set_gid(0);
        let fields = header.as_old_mut();
        for (bytes, field) in [(&name[..], &mut fields.name), (link, &mut fields.linkname)] {
            let length = bytes.len().min(field.len());
            field[..length].copy_from_slice(&bytes[..length]);
        }
        header.set_cksum();
        self.out.write_all(header.as_bytes())
    }

    /// Fills the last record of `bytes` bytes up.
    fn pad(&mut self, bytes: u64) -> io::Result<()> {
        let over = usize::try_from(bytes % RECORD_BYTES as u64).unwrap_or(0);
        match over {
            0 => Ok(()),
            over => self.out.write_all(&[0; RECORD_BYTES][over..]),
        }
    }
}
