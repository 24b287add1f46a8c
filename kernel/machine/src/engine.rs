//! The engines that exist, and what a snapshot of each must match.

use std::ffi::OsStr;
use std::path::PathBuf;

use vmrepl_qemu::{Binary, MACHINE_TYPE, Version};

use crate::error::MachineError;

/// What runs machines on this host.
#[derive(Debug, Clone)]
pub enum Engine {
    /// Emulation by a QEMU process.
    Qemu(Binary),
}

impl Engine {
    /// Finds QEMU in the folders of `search_path` (the form of `$PATH`).
    ///
    /// # Errors
    /// When there is none, or too old a one.
    pub fn qemu(search_path: &OsStr) -> Result<Self, MachineError> {
        Binary::find(search_path)
            .map(Self::Qemu)
            .map_err(MachineError::NoQemu)
    }

    /// Where a QEMU would be taken from, without starting it.
    ///
    /// # Errors
    /// When there is none.
    pub fn locate_qemu(search_path: &OsStr) -> Result<PathBuf, MachineError> {
        Binary::locate(search_path).map_err(MachineError::NoQemu)
    }

    /// A QEMU whose version (major, minor) the caller has remembered, which saves starting it to ask.
    ///
    /// # Errors
    /// When the version is too old.
    pub fn known_qemu(path: PathBuf, (major, minor): (u32, u32)) -> Result<Self, MachineError> {
        Binary::known(path, Version { major, minor })
            .map(Self::Qemu)
            .map_err(MachineError::NoQemu)
    }

    /// `kvm` or `qemu`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Qemu(_) => "qemu",
        }
    }

    /// The version (major, minor) of what runs machines.
    #[must_use]
    pub fn version(&self) -> (u32, u32) {
        match self {
            Self::Qemu(binary) => (binary.version().major, binary.version().minor),
        }
    }

    /// What a snapshot must match to be restored by this engine: for qemu the version and the machine
    /// type, never a distribution's point release.
    #[must_use]
    pub fn compat(&self) -> String {
        match self {
            Self::Qemu(binary) => format!("qemu {} {MACHINE_TYPE}", binary.version()),
        }
    }

    /// What of the processor a snapshot must match. Emulation brings its own.
    #[must_use]
    pub fn cpu(&self) -> &'static str {
        match self {
            Self::Qemu(_) => vmrepl_qemu::CPU,
        }
    }
}
