//! What the QEMU process may still do: its own files, nothing else.
//!
//! Isolation under emulation rests on this jail, since QEMU's upstream does not count an escape from
//! emulation as a security bug. It has three walls: QEMU's own seccomp filter (`-sandbox on`), no new
//! privileges, and Landlock rules for files and TCP.

use std::os::fd::OwnedFd;
use std::path::Path;

use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset,
    RulesetAttr, RulesetCreatedAttr, RulesetError,
};

use crate::command::{Boot, Config};

/// Folders with QEMU's program text, its libraries and its firmware.
const PROGRAM: [&str; 5] = [
    "/usr",
    "/lib",
    "/lib64",
    "/etc/ld.so.cache",
    "/etc/ld.so.preload",
];

/// One wall of the jail, for the doctor: its name and whether this host has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JailFact {
    /// What the wall is.
    pub name: &'static str,
    /// Whether it stands on this host.
    pub holds: bool,
}

/// The walls that this host can build.
#[must_use]
pub fn jail_facts() -> Vec<JailFact> {
    let files = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(ABI::V1))
        .and_then(Ruleset::create);
    let tcp = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessNet::from_all(ABI::V4))
        .and_then(Ruleset::create);
    vec![
        JailFact {
            name: "landlock files",
            holds: files.is_ok(),
        },
        JailFact {
            name: "landlock tcp",
            holds: tcp.is_ok(),
        },
    ]
}

/// Builds the rules for one machine. `None` where the host's Linux has no Landlock.
///
/// The rules are made in the parent, since the child may only make system calls between fork and exec.
pub(crate) fn rules(
    binary: &Path,
    config: &Config,
    boot: Option<&Boot>,
) -> Result<Option<OwnedFd>, RulesetError> {
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    let mut rules = Ruleset::default()
        .handle_access(AccessFs::from_all(ABI::V5))?
        .handle_access(AccessNet::from_all(ABI::V4))?
        .create()?;
    let mut allow = |path: &Path, access| -> Result<(), RulesetError> {
        let Ok(fd) = PathFd::new(path) else {
            return Ok(()); // not on this host: nothing to allow
        };
        (&mut rules)
            .add_rule(PathBeneath::new(fd, access))
            .map(|_| ())
    };
    for path in PROGRAM {
        allow(Path::new(path), read | AccessFs::Execute)?;
    }
    allow(binary, AccessFs::ReadFile | AccessFs::Execute)?;
    allow(
        Path::new("/dev/null"),
        AccessFs::ReadFile | AccessFs::WriteFile,
    )?;
    allow(Path::new("/dev/urandom"), AccessFs::ReadFile.into())?;
    allow(
        &config.memory_file,
        AccessFs::ReadFile | AccessFs::WriteFile,
    )?;
    allow(&config.root, AccessFs::ReadFile.into())?;
    if let Some(boot) = boot {
        allow(&boot.vmlinux, AccessFs::ReadFile.into())?;
        allow(&boot.initramfs, AccessFs::ReadFile.into())?;
    }
    Ok(rules.into())
}
