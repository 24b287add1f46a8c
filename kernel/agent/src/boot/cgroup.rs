//! Two groups of processes under one limit, so that nothing a cell does takes the agent's memory.
//!
//! `/sys/fs/cgroup/cells` has the limits; `cells/runner` holds the runner and all that its cells
//! start, `cells/exec` a group for each program of the other ports, and `cells/exec/workers` those who look after them.

use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Seek as _, Write as _};
use std::path::Path;
use std::time::Duration;

use rustix::process::Pid;

use super::BootError;
use crate::limits;
use crate::options::MachineOptions;

const ROOT: &str = "/sys/fs/cgroup";
const CELLS: &str = "/sys/fs/cgroup/cells";

/// The group whose parts are the programs' groups.
pub(crate) const EXEC_GROUPS: &str = "/sys/fs/cgroup/cells/exec";

/// The groups of a machine.
#[derive(Debug)]
pub(crate) struct Cgroups {
    /// `cgroup.procs` of the runner's group: a process that writes 0 to it moves in.
    pub(crate) runner: File,
    /// The same of the group for the agent's workers.
    pub(crate) workers: File,
    runner_processes: File,
    runner_kill: File,
    runner_memory_events: File,
    runner_memory_max: File,
    runner_processes_max: File,
    runner_cpu: File,
    /// What cells may have together, in bytes.
    pub(crate) memory_max_bytes: u64,
}

impl Cgroups {
    pub(super) fn set_up(options: &MachineOptions) -> Result<Self, BootError> {
        let total_bytes = memory_total_bytes();
        let memory_max_bytes = options
            .memory_max_bytes
            .unwrap_or_else(|| share(total_bytes));
        write(ROOT, "cgroup.subtree_control", "+memory +pids")?;
        make(CELLS)?;
        write(CELLS, "cgroup.subtree_control", "+memory +pids")?;
        write(CELLS, "memory.max", &memory_max_bytes.to_string())?;
        // The largest process goes, not the whole group: the runner should outlive a greedy child.
        write(CELLS, "memory.oom.group", "0")?;
        write(CELLS, "pids.max", &options.pids_max.to_string())?;
        let (runner, workers) = (format!("{CELLS}/runner"), format!("{EXEC_GROUPS}/workers"));
        make(&runner)?;
        make(EXEC_GROUPS)?;
        write(EXEC_GROUPS, "cgroup.subtree_control", "+memory +pids")?;
        make(&workers)?;
        Ok(Self {
            runner: open(&runner, "cgroup.procs", OpenOptions::new().write(true))?,
            workers: open(&workers, "cgroup.procs", OpenOptions::new().write(true))?,
            runner_processes: open(&runner, "cgroup.procs", OpenOptions::new().read(true))?,
            runner_kill: open(&runner, "cgroup.kill", OpenOptions::new().write(true))?,
            runner_memory_max: open(&runner, "memory.max", OpenOptions::new().write(true))?,
            runner_processes_max: open(&runner, "pids.max", OpenOptions::new().write(true))?,
            runner_cpu: open(&runner, "cpu.stat", OpenOptions::new().read(true))?,
            runner_memory_events: open(&runner, "memory.events", OpenOptions::new().read(true))?,
            memory_max_bytes,
        })
    }

    /// Every process of the runner's group, the runner included.
    pub(crate) fn runner_processes(&self) -> Vec<Pid> {
        let text = reread(&self.runner_processes);
        text.lines()
            .filter_map(|line| Pid::from_raw(line.parse().ok()?))
            .collect()
    }

    /// Kills every process of the runner's group, those being born included.
    pub(crate) fn kill_runner_group(&self) -> std::io::Result<()> {
        (&self.runner_kill).write_all(b"1")
    }

    /// Bounds what the runner's group may hold of memory and processes; `None` leaves what all cells may have.
    pub(crate) fn bound_runner(
        &self,
        memory_bytes: Option<u64>,
        processes: Option<u64>,
    ) -> std::io::Result<()> {
        let word =
            |most: Option<u64>| most.map_or_else(|| "max".to_owned(), |most| most.to_string());
        (&self.runner_memory_max).write_all(word(memory_bytes).as_bytes())?;
        (&self.runner_processes_max).write_all(word(processes).as_bytes())
    }

    /// Processor time that the runner's group has used since boot.
    pub(crate) fn runner_cpu(&self) -> Option<Duration> {
        reread(&self.runner_cpu)
            .lines()
            .find_map(|line| line.strip_prefix("usage_usec ")?.parse().ok())
            .map(Duration::from_micros)
    }

    /// How often Linux has killed a process of the runner's group for lack of memory.
    pub(crate) fn runner_oom_kills(&self) -> u64 {
        reread(&self.runner_memory_events)
            .lines()
            .find_map(|line| line.strip_prefix("oom_kill ")?.parse().ok())
            .unwrap_or(0)
    }
}

/// The agent's reserve, and a little for what Linux does not account to groups. A very small guest
/// still gives cells most of its memory.
fn share(total_bytes: u64) -> u64 {
    let reserve_bytes = limits::RESERVED_MEMORY_BYTES + total_bytes / 64;
    total_bytes - reserve_bytes.min(total_bytes / 4)
}

fn memory_total_bytes() -> u64 {
    let info = rustix::system::sysinfo();
    info.totalram * u64::from(info.mem_unit)
}

fn reread(mut file: &File) -> String {
    let mut text = String::new();
    // An unreadable file counts as an empty one: no process, no kill.
    if file
        .rewind()
        .and_then(|()| file.read_to_string(&mut text))
        .is_err()
    {
        text.clear();
    }
    text
}

fn make(path: &str) -> Result<(), BootError> {
    fs::create_dir(path).map_err(|error| BootError::new(format!("make {path}"), error))
}

fn write(folder: &str, name: &str, value: &str) -> Result<(), BootError> {
    fs::write(Path::new(folder).join(name), value)
        .map_err(|error| BootError::new(format!("write {value} to {folder}/{name}"), error))
}

fn open(folder: &str, name: &str, options: &OpenOptions) -> Result<File, BootError> {
    options
        .open(Path::new(folder).join(name))
        .map_err(|error| BootError::new(format!("open {folder}/{name}"), error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_get_most_of_any_guest() {
        const MIB: u64 = 1024 * 1024;
        assert_eq!(share(512 * MIB), 456 * MIB);
        assert_eq!(share(2048 * MIB), 1968 * MIB);
        assert_eq!(share(64 * MIB), 48 * MIB);
    }
}
