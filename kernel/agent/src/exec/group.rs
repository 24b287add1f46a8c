//! A control group of one program and all that it starts.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Pid;
use vmrepl_wire::exec::ExecLimits;

/// The group of one program. It is removed when this is dropped, unless something that the program left behind lives in it:
/// the agent does it then.
#[derive(Debug)]
pub(super) struct Group {
    path: PathBuf,
    /// A process that writes 0 to it moves in.
    pub(super) entrance: File,
}

impl Group {
    /// Makes a group of this name among `groups`.
    pub(super) fn make(groups: &Path, name: &str, limits: &ExecLimits) -> io::Result<Self> {
        let path = groups.join(name);
        fs::create_dir(&path)?;
        let group = Self {
            entrance: OpenOptions::new()
                .write(true)
                .open(path.join("cgroup.procs"))
                .inspect_err(|_| drop(fs::remove_dir(&path)))?,
            path,
        };
        if let Some(bytes) = limits.memory_bytes {
            group.write("memory.max", &bytes.to_string())?;
            // Half a program is of no use, and its other half would go on for nothing.
            group.write("memory.oom.group", "1")?;
        }
        if let Some(processes) = limits.processes {
            group.write("pids.max", &processes.to_string())?;
        }
        Ok(group)
    }

    fn write(&self, name: &str, value: &str) -> io::Result<()> {
        fs::write(self.path.join(name), value)
    }

    /// The number behind `key`, or the whole file when it is one number; 0 when it cannot be read.
    fn number(&self, file: &str, key: Option<&str>) -> u64 {
        let text = fs::read_to_string(self.path.join(file)).unwrap_or_default();
        let found = match key {
            None => text.trim().parse().ok(),
            Some(key) => text
                .lines()
                .find_map(|line| line.strip_prefix(key)?.trim().parse().ok()),
        };
        found.unwrap_or(0)
    }

    /// Kills every process in it, those being born included.
    pub(super) fn kill(&self) -> io::Result<()> {
        self.write("cgroup.kill", "1")
    }

    pub(super) fn is_empty(&self) -> bool {
        self.number("cgroup.events", Some("populated ")) == 0
    }

    /// Processor time in programs, and in Linux for them.
    pub(super) fn cpu(&self) -> (Duration, Duration) {
        let time = |key| Duration::from_micros(self.number("cpu.stat", Some(key)));
        (time("user_usec "), time("system_usec "))
    }

    /// The most memory that it has held, in bytes.
    pub(super) fn peak_memory_bytes(&self) -> u64 {
        self.number("memory.peak", None)
    }

    /// Whether Linux has killed a process of it for lack of memory.
    pub(super) fn ran_out_of_memory(&self) -> bool {
        self.number("memory.events", Some("oom_kill ")) > 0
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        fs::remove_dir(&self.path).ok();
    }
}

/// Kills what runs in the group of a worker that has died by accident: it has ended nothing itself.
pub(crate) fn kill_group_of(groups: &Path, worker: Pid) {
    let path = groups.join(worker.as_raw_nonzero().to_string());
    fs::write(path.join("cgroup.kill"), "1").ok();
}

/// Removes the groups of workers that have ended, unless what a program has left lives in them. To be called when a process
/// was reaped: it may have been the last of one.
pub(crate) fn sweep_groups(groups: &Path) {
    for entry in fs::read_dir(groups).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let is_number = |name: &str| name.bytes().all(|byte| byte.is_ascii_digit());
        let is_abandoned = name
            .to_str()
            .is_some_and(|name| is_number(name) && !Path::new("/proc").join(name).exists());
        if is_abandoned {
            // One that is not empty stays until it is.
            fs::remove_dir(entry.path()).ok();
        }
    }
}
