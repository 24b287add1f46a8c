//! What a machine is made of and restored from, and what a freeze gives: plain data for every engine.

use std::path::PathBuf;

use vmrepl_qemu::PAGE_BYTES;
use vmrepl_vmm::Purpose;

/// The content of one page.
pub type Page = [u8; PAGE_BYTES];

/// What a machine is made of.
#[derive(Debug, Clone)]
pub struct Hardware {
    /// Guest memory in bytes; the size of `memory_file`.
    pub memory_bytes: u64,
    /// Number of virtual processors.
    pub vcpus: u8,
    /// The file behind guest memory: written to when booting, mapped private when restoring.
    pub memory_file: PathBuf,
    /// The read-only disk image.
    pub root: PathBuf,
}

/// What a first boot needs beside the hardware.
#[derive(Debug, Clone)]
pub struct Boot {
    /// Uncompressed ELF with a PVH entry.
    pub vmlinux: PathBuf,
    /// The initial RAM file system.
    pub initramfs: PathBuf,
    /// Words for Linux's command line beside the engine's own.
    pub command_line: String,
}

/// A moment of a live machine that it can go back to in place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark(pub(crate) u64);

impl Mark {
    /// What the machine was restored from.
    pub const RESTORED: Self = Self(0);
}

/// What a freeze gives beside the pages.
#[derive(Debug, Clone)]
pub struct Frozen {
    /// The state of everything but memory, as bytes for a later restore.
    pub state: Vec<u8>,
    /// How many pages were given.
    pub pages: u64,
    /// The moment, where the engine can go back to it in place.
    pub mark: Option<Mark>,
}

/// What a machine is restored from, and what for.
#[derive(Debug, Clone, Copy)]
pub struct Restore<'a> {
    /// The saved state.
    pub state: &'a [u8],
    /// The pages that the engine maps ahead, where it can; may be empty.
    pub hot: &'a [u8],
    /// What is paid for ahead.
    pub purpose: Purpose,
    /// Guest ports to which streams are open from the start.
    pub ports: &'a [u32],
}
