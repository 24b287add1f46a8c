//! From the first instruction of `/init` to a machine in which the runner can be started.
//!
//! Order matters:
//! 1. `/proc`, `/sys`, `/dev`: everything after reads the command line or opens devices.
//! 2. Modules: without them there is no disk and no channel.
//! 3. The root: the disk read-only, a tmpfs above it; all writable state is guest memory.
//! 4. The runner's package is copied before the initramfs is emptied, which gives its memory back.
//! 5. After the switch: the mounts and files that programs expect, then the limits.

mod cgroup;
mod modules;
mod network;
mod root;
mod settle;

use std::io;
use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, mount};

use crate::log;
use crate::options::MachineOptions;

pub(crate) use cgroup::{Cgroups, EXEC_GROUPS};
pub(crate) use settle::{power_off, shell};

/// The ordinary user that runs the cells.
pub(crate) const USER_ID: u32 = 1000;

/// Where that user lives.
pub(crate) const HOME: &str = "/home/user";

/// What boot hands to the agent.
#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) options: MachineOptions,
    pub(crate) cgroups: Cgroups,
    /// The runner's package in the new root.
    pub(crate) runner: PathBuf,
    /// The program of the exec port in the new root.
    pub(crate) grpc: Option<PathBuf>,
}

/// A step of the boot that failed; the machine is of no use.
#[derive(Debug, thiserror::Error)]
#[error("boot: {step}")]
pub(crate) struct BootError {
    step: String,
    #[source]
    source: io::Error,
}

impl BootError {
    fn new(step: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self {
            step: step.into(),
            source: source.into(),
        }
    }
}

/// Boots the machine. The caller is its PID 1.
pub(crate) fn boot() -> Result<Machine, BootError> {
    early_mounts()?;
    log::to_linux_log();
    let command_line = std::fs::read_to_string("/proc/cmdline")
        .map_err(|error| BootError::new("read /proc/cmdline", error))?;
    let (options, passed_over) = MachineOptions::parse(&command_line);
    for option in &passed_over {
        log::warn(format_args!("{option}"));
    }
    modules::load_all(Path::new("/modules"));
    let root::Carried { runner, grpc } = root::switch(&options)?;
    settle::late_mounts()?;
    settle::files(options.hostname.as_deref());
    network::loopback_up();
    let cgroups = Cgroups::set_up(&options)?;
    settle::protect_agent();
    Ok(Machine {
        options,
        cgroups,
        runner,
        grpc,
    })
}

fn early_mounts() -> Result<(), BootError> {
    let plain = MountFlags::NOSUID | MountFlags::NOEXEC | MountFlags::NODEV;
    let dev = MountFlags::NOSUID | MountFlags::NOEXEC;
    attach("proc", "/proc", "proc", plain, "")?;
    attach("sysfs", "/sys", "sysfs", plain, "")?;
    attach("devtmpfs", "/dev", "devtmpfs", dev, "mode=0755")
}

/// Mounts a file system that lives in memory; the mount point is made when missing.
fn attach(
    source: &str,
    target: &str,
    format: &str,
    flags: MountFlags,
    data: &str,
) -> Result<(), BootError> {
    let step = || format!("mount {format} on {target}");
    std::fs::create_dir_all(target).map_err(|error| BootError::new(step(), error))?;
    let data = std::ffi::CString::new(data)
        .map_err(|error| BootError::new(step(), io::Error::from(error)))?;
    mount(source, target, format, flags, data.as_c_str())
        .map_err(|error| BootError::new(step(), error))
}
