//! What a machine is made from: files, a saved state, and what can be built before either is known.

use std::fs::File;

use kvm_ioctls::Kvm;
use serde::{Deserialize, Serialize};

use crate::shell::{Shape, Shell, ShellError, Tracking};

/// What a machine is made of.
#[derive(Debug)]
pub struct Parts {
    /// Guest memory: as long as the machine's memory.
    pub memory: File,
    /// The read-only disk image.
    pub root: File,
    /// Where the console's words go while the guest boots.
    pub console: File,
}

/// What a machine is restored from, beside its memory file.
#[derive(Debug)]
pub struct Saved<'a> {
    /// The state of everything but memory.
    pub state: &'a [u8],
    /// The pages that lie over the memory file: contents first, then their indices.
    pub laid: &'a File,
    /// How many they are.
    pub laid_pages: u64,
    /// The pages to map ahead, see [`crate::encode_hot_pages`].
    pub hot: &'a [u8],
    /// What the machine is for.
    pub purpose: Purpose,
}

/// What a restored machine is for, which decides what is paid for ahead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Purpose {
    /// To run and be thrown away: no book is kept of what it writes, so it cannot be frozen or go back.
    Run,
    /// To be frozen and to go back.
    Freeze,
    /// To find out which pages a restored guest touches.
    Record,
}

/// What a first boot needs.
#[derive(Debug)]
pub struct BootFiles<'a> {
    /// Uncompressed ELF with a PVH entry.
    pub vmlinux: &'a File,
    /// The initial RAM file system.
    pub initramfs: &'a File,
    /// Linux's command line.
    pub command_line: &'a str,
}

impl Purpose {
    pub(crate) fn tracking(self) -> Tracking {
        match self {
            Self::Freeze => Tracking::On,
            Self::Run | Self::Record => Tracking::Off,
        }
    }
}

/// A machine without memory, state and files: what KVM takes its time for, done before anybody waits.
#[derive(Debug)]
pub struct EmptyMachine(pub(crate) Shell);

impl EmptyMachine {
    /// Builds one. Only a restore of a machine with as much memory, as many processors and the same purpose
    /// can use it.
    ///
    /// # Errors
    /// When KVM cannot be used.
    pub fn build(
        kvm: &Kvm,
        memory_bytes: u64,
        vcpus: u8,
        purpose: Purpose,
    ) -> Result<Self, ShellError> {
        let tracking = purpose.tracking();
        let shape = Shape {
            memory_bytes,
            vcpus,
            tracking,
        };
        Shell::build(kvm, shape).map(Self)
    }
}
