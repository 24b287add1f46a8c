//! What a worker is told to make a machine of, and the files behind it, opened on its behalf.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use rustix::fs::MemfdFlags;

use crate::limits::PAGE_BYTES;
use crate::parts::Purpose;
use crate::worker::error::WorkerError;

/// The content of one page.
pub type Page = [u8; PAGE_BYTES];

/// The program that a worker is: it must call [`crate::work`] with its standard input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// The file.
    pub path: PathBuf,
    /// Its arguments.
    pub arguments: Vec<OsString>,
}

/// What a machine is made of.
#[derive(Debug, Clone)]
pub struct Config {
    /// Guest memory in bytes; the size of `memory_file`.
    pub memory_bytes: u64,
    /// Number of virtual processors.
    pub vcpus: u8,
    /// The file behind guest memory: written to when booting, mapped private when restoring.
    pub memory_file: PathBuf,
    /// The read-only disk image.
    pub root: PathBuf,
}

/// What a first boot needs beside the machine.
#[derive(Debug, Clone)]
pub struct Boot {
    /// Uncompressed ELF with a PVH entry.
    pub vmlinux: PathBuf,
    /// The initial RAM file system.
    pub initramfs: PathBuf,
    /// Linux's command line.
    pub command_line: String,
}

/// What a machine is restored from.
#[derive(Debug)]
pub struct Restore<'a> {
    /// The saved state.
    pub state: &'a [u8],
    /// The pages to map ahead, see [`crate::encode_hot_pages`]; may be empty.
    pub hot: &'a [u8],
    /// What the machine is for.
    pub purpose: Purpose,
    /// Sockets that become streams: a guest port and a socket each.
    pub claims: &'a [(u32, UnixStream)],
    /// Whether the guest runs at once, or rests.
    pub run: bool,
}

/// Writes pages as a slab: contents first, then their indices.
pub(crate) fn write_pages<'a>(
    file: &File,
    pages: impl Iterator<Item = (u64, &'a Page)>,
) -> io::Result<u64> {
    let mut out = io::BufWriter::with_capacity(256 << 10, file);
    let mut indices = Vec::new();
    for (index, page) in pages {
        out.write_all(page)?;
        indices.extend_from_slice(&index.to_le_bytes());
    }
    out.write_all(&indices)?;
    out.flush()?;
    Ok(indices.len() as u64 / 8)
}

pub(crate) fn open_kvm() -> Result<File, WorkerError> {
    let both = File::options().read(true).write(true).clone();
    open(Path::new("/dev/kvm"), &both)
}

pub(crate) fn open_read(path: &Path) -> Result<File, WorkerError> {
    open(path, File::options().read(true))
}

pub(crate) fn open(path: &Path, options: &std::fs::OpenOptions) -> Result<File, WorkerError> {
    options.open(path).map_err(|source| WorkerError::Open {
        path: path.to_owned(),
        source,
    })
}

pub(crate) fn memory_backed(name: &str) -> io::Result<File> {
    let file = rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC)?;
    Ok(File::from(file))
}
