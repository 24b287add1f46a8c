//! Guest memory seen from outside the QEMU process: which pages it changed, reading and laying them.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::limits::PAGE_BYTES;

/// Why guest memory could not be reached.
#[expect(missing_docs, reason = "the messages say it")]
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    #[error("could not read {path}")]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("process {pid} does not map {path} as {bytes} bytes of guest memory")]
    NotMapped { pid: u32, path: PathBuf, bytes: u64 },
    #[error("could not open /proc/{pid}/mem; does yama's ptrace_scope forbid it?")]
    Open {
        pid: u32,
        #[source]
        source: std::io::Error,
    },
    #[error("page {index} is beyond guest memory of {bytes} bytes")]
    Beyond { index: u64, bytes: u64 },
    #[error("could not {verb} guest page {index}")]
    Page {
        verb: &'static str,
        index: u64,
        #[source]
        source: std::io::Error,
    },
}

/// The guest memory of one process that maps a memory file privately and for writing.
#[derive(Debug)]
pub struct GuestMemory {
    memory: File,
    pagemap: File,
    address: u64,
    bytes: u64,
}

/// Page entry bits of `/proc/PID/pagemap`: see pagemap.rst of Linux's admin guide.
const PRESENT: u64 = 1 << 63;
const SWAPPED: u64 = 1 << 62;
const FILE_BACKED: u64 = 1 << 61;

impl GuestMemory {
    /// Finds where process `pid` maps `file` and opens the doors to it.
    ///
    /// # Errors
    /// When the process does not map it (yet, or no more) or it may not be opened.
    pub fn open(pid: u32, file: &Path, bytes: u64) -> Result<Self, MemoryError> {
        let address = Self::locate(pid, file, bytes)?;
        let open = |name: &str, write: bool| {
            OpenOptions::new()
                .read(true)
                .write(write)
                .open(format!("/proc/{pid}/{name}"))
                .map_err(|source| MemoryError::Open { pid, source })
        };
        Ok(Self {
            memory: open("mem", true)?,
            pagemap: open("pagemap", false)?,
            address,
            bytes,
        })
    }

    /// The address of the mapping, found by the file's device and inode, not by its name.
    fn locate(pid: u32, file: &Path, bytes: u64) -> Result<u64, MemoryError> {
        let read = |path: &Path, source| MemoryError::Read {
            path: path.to_owned(),
            source,
        };
        let facts = file.metadata().map_err(|source| read(file, source))?;
        let maps = PathBuf::from(format!("/proc/{pid}/maps"));
        let lines = BufReader::new(File::open(&maps).map_err(|source| read(&maps, source))?);
        for line in lines.lines() {
            let line = line.map_err(|source| read(&maps, source))?;
            if let Some((from, to, inode)) = parse_mapping(&line)
                && inode == facts.ino()
                && to - from == bytes
            {
                return Ok(from);
            }
        }
        Err(MemoryError::NotMapped {
            pid,
            path: file.to_owned(),
            bytes,
        })
    }

    /// Writes pages (index, content). Only sound before the first instruction: emulation keeps
    /// translated code that it would not know to drop.
    ///
    /// # Errors
    /// When an index is beyond memory or the write fails.
    pub fn lay<'a>(
        &self,
        pages: impl Iterator<Item = (u64, &'a [u8; PAGE_BYTES])>,
    ) -> Result<u64, MemoryError> {
        let mut count = 0;
        for (index, page) in pages {
            self.memory
                .write_all_at(page, self.at(index)?)
                .map_err(|source| MemoryError::Page {
                    verb: "write",
                    index,
                    source,
                })?;
            count += 1;
        }
        Ok(count)
    }

    /// Reads one page.
    ///
    /// # Errors
    /// When the index is beyond memory or the read fails.
    pub fn read(&self, index: u64, page: &mut [u8; PAGE_BYTES]) -> Result<(), MemoryError> {
        self.memory
            .read_exact_at(page, self.at(index)?)
            .map_err(|source| MemoryError::Page {
                verb: "read",
                index,
                source,
            })
    }

    /// The pages written since the process started, in order: private copies of the mapped file,
    /// present or swapped out. Laid pages are among them.
    ///
    /// # Errors
    /// When the page map cannot be read.
    pub fn written(&self) -> Result<Vec<u64>, MemoryError> {
        self.entries(|entry| entry & (PRESENT | SWAPPED) != 0 && entry & FILE_BACKED == 0)
    }

    /// The pages that the process has mapped, in order: those that were touched, and what Linux mapped along.
    ///
    /// # Errors
    /// When the page map cannot be read.
    pub fn touched(&self) -> Result<Vec<u64>, MemoryError> {
        self.entries(|entry| entry & (PRESENT | SWAPPED) != 0)
    }

    fn entries(&self, wanted: impl Fn(u64) -> bool) -> Result<Vec<u64>, MemoryError> {
        const ENTRIES: usize = 16 << 10;
        let mut found = Vec::new();
        let mut buffer = vec![0_u8; ENTRIES * 8];
        let pages = self.bytes / PAGE_BYTES as u64;
        let first = self.address / PAGE_BYTES as u64;
        let mut index = 0;
        while index < pages {
            let entries = usize::try_from(pages - index)
                .unwrap_or(ENTRIES)
                .min(ENTRIES);
            let part = &mut buffer[..entries * 8];
            self.pagemap
                .read_exact_at(part, (first + index) * 8)
                .map_err(|source| MemoryError::Page {
                    verb: "find",
                    index,
                    source,
                })?;
            for (offset, entry) in part.as_chunks::<8>().0.iter().enumerate() {
                let entry = u64::from_ne_bytes(*entry);
                if wanted(entry) {
                    found.push(index + offset as u64);
                }
            }
            index += entries as u64;
        }
        Ok(found)
    }

    /// Guest memory in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    fn at(&self, index: u64) -> Result<u64, MemoryError> {
        index
            .checked_mul(PAGE_BYTES as u64)
            .filter(|offset| *offset < self.bytes)
            .map(|offset| self.address + offset)
            .ok_or(MemoryError::Beyond {
                index,
                bytes: self.bytes,
            })
    }
}

/// Reads `from-to perms offset dev inode path` of `/proc/PID/maps`, where the mapping may be written.
fn parse_mapping(line: &str) -> Option<(u64, u64, u64)> {
    let mut words = line.split_ascii_whitespace();
    let (from, to) = words.next()?.split_once('-')?;
    words.next().filter(|perms| perms.starts_with("rw"))?;
    let inode = words.nth(2)?.parse().ok()?;
    Some((
        u64::from_str_radix(from, 16).ok()?,
        u64::from_str_radix(to, 16).ok()?,
        inode,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mappings_are_read() {
        let line = "7f0000000000-7f0010000000 rw-p 00000000 fe:00 1234 /store/a b";
        assert_eq!(
            parse_mapping(line),
            Some((0x7f00_0000_0000, 0x7f00_1000_0000, 1234))
        );
        assert_eq!(parse_mapping(&line.replace("rw-p", "r--s")), None);
        assert_eq!(parse_mapping("garbage"), None);
    }
}
