//! The engines that exist, and what a snapshot of each must match.

use std::ffi::OsStr;
use std::path::PathBuf;

use std::ffi::OsString;

use vmrepl_qemu::{Binary, MACHINE_TYPE, Version};
use vmrepl_vmm::Program;

use crate::error::MachineError;
use crate::kvm::Kvm;

/// What runs machines on this host.
#[derive(Debug, Clone)]
pub enum Engine {
    /// Emulation by a QEMU process.
    Qemu(Binary),
    /// Hardware virtualisation by our own monitor.
    Kvm(Kvm),
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

    /// The monitor. A machine's worker is `program` with `arguments`, which must call
    /// [`crate::kvm_worker`]; whether KVM works here is seen when a machine is made.
    #[must_use]
    pub fn kvm(program: PathBuf, arguments: Vec<OsString>) -> Self {
        Self::Kvm(Kvm {
            program: Program {
                path: program,
                arguments,
            },
            vendor: vmrepl_vmm::host_vendor(),
        })
    }

    /// `kvm` or `qemu`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Qemu(_) => "qemu",
            Self::Kvm(_) => "kvm",
        }
    }

    /// Whether a guest's clock counts the host's counter, so that a template holds only where that runs at
    /// the same rate. KVM checks and scales by itself.
    #[must_use]
    pub fn counts_host_clock(&self) -> bool {
        matches!(self, Self::Qemu(_))
    }

    /// The version (major, minor) of what runs machines.
    #[must_use]
    pub fn version(&self) -> (u32, u32) {
        match self {
            Self::Qemu(binary) => (binary.version().major, binary.version().minor),
            Self::Kvm(_) => (vmrepl_vmm::STATE_VERSION, 0),
        }
    }

    /// What a snapshot must match to be restored by this engine: for qemu the version and the machine
    /// type, never a distribution's point release.
    #[must_use]
    pub fn compat(&self) -> String {
        match self {
            Self::Qemu(binary) => format!("qemu {} {MACHINE_TYPE}", binary.version()),
            Self::Kvm(_) => format!("kvm {}", vmrepl_vmm::STATE_VERSION),
        }
    }

    /// What of the processor a snapshot must match. Emulation brings its own; of a real one the maker
    /// counts here, and its features are compared one by one at a restore.
    #[must_use]
    pub fn cpu(&self) -> &str {
        match self {
            Self::Qemu(_) => vmrepl_qemu::CPU,
            Self::Kvm(kvm) => &kvm.vendor,
        }
    }

    /// Words for Linux's command line: emulation has no clock of its own, so Linux is told the rate of the
    /// host's; under KVM it asks.
    pub(crate) fn command_line(&self) -> String {
        match self {
            Self::Qemu(_) => format!("tsc_early_khz={} tsc=reliable", vmrepl_qemu::counter_khz()),
            Self::Kvm(_) => "clocksource=kvm-clock no_timer_check".to_owned(),
        }
    }
}
