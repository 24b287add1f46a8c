//! Looking at processes: which exist, since when, and how much memory they hold.
#![expect(unsafe_code, reason = "what children have used has no safe wrapper")]

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use rustix::process::Pid;
use rustix::time::{ClockId, clock_gettime};

/// Linux tells the start of a process in hundredths of a second since boot.
const TICKS_PER_SECOND: u64 = 100;

/// Time since boot in the unit in which processes tell their start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct StartTicks(u64);

impl StartTicks {
    pub(crate) fn now() -> Self {
        let now = clock_gettime(ClockId::Boottime);
        let hundredths = now.tv_nsec / 10_000_000;
        Self(
            u64::try_from(now.tv_sec).unwrap_or(0) * TICKS_PER_SECOND
                + u64::try_from(hundredths).unwrap_or(0),
        )
    }
}

/// Milliseconds since boot; stands still while the machine is frozen.
pub(crate) fn uptime_ms() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let whole = u64::try_from(now.tv_sec).unwrap_or(0) * 1000;
    whole + u64::try_from(now.tv_nsec / 1_000_000).unwrap_or(0)
}

/// One line of the process table.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Process {
    pub(crate) pid: Pid,
    parent: Option<Pid>,
    started: StartTicks,
    ended: bool,
}

impl Process {
    /// Reads `/proc/PID/stat`; `None` when the process is gone.
    pub(crate) fn read(pid: Pid) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok()?;
        Self::parse(pid, &stat)
    }

    /// Fields are counted behind the name, which may hold anything but ends at the last `)`.
    fn parse(pid: Pid, stat: &str) -> Option<Self> {
        let (_, fields) = stat.rsplit_once(')')?;
        let mut fields = fields.split_ascii_whitespace();
        let state = fields.next()?;
        let parent = Pid::from_raw(fields.next()?.parse().ok()?);
        let started = StartTicks(fields.nth(17)?.parse().ok()?);
        Some(Self {
            pid,
            parent,
            started,
            ended: matches!(state, "Z" | "X"),
        })
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.ended
    }

    /// Whether it lives and was started at or after `since`.
    pub(crate) fn lives_since(&self, since: StartTicks) -> bool {
        !self.ended && self.started >= since
    }
}

/// Whether a process has ended, is ending, or has been sent the signal that ends it.
pub(crate) fn is_dying(pid: Pid) -> bool {
    /// `PF_EXITING` and `PF_SIGNALED` of `linux/sched.h`.
    const ENDING: u64 = 0x4 | 0x400;
    /// `SIGKILL`, as a bit of the signals that wait.
    const KILL: u64 = 1 << (libc::SIGKILL - 1);
    let folder = format!("/proc/{}", pid.as_raw_nonzero());
    let (Ok(stat), Ok(status)) = (
        fs::read_to_string(format!("{folder}/stat")),
        fs::read_to_string(format!("{folder}/status")),
    ) else {
        return true;
    };
    let mut fields = stat
        .rsplit_once(')')
        .map_or("", |(_, fields)| fields)
        .split_ascii_whitespace();
    let state = fields.next();
    let flags: Option<u64> = fields.nth(5).and_then(|flags| flags.parse().ok());
    let waits = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
            .is_none_or(|mask| mask & KILL != 0)
    };
    matches!(state, None | Some("Z" | "X"))
        || flags.is_none_or(|flags| flags & ENDING != 0)
        || waits("SigPnd:")
        || waits("ShdPnd:")
}

/// All that descends from `root`, without those in `except` and what descends from these.
pub(crate) fn descendants(root: Pid, except: &[Pid]) -> Vec<Process> {
    let mut rest: Vec<Process> = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| Pid::from_raw(entry.file_name().to_str()?.parse().ok()?))
        .filter_map(Process::read)
        .filter(|process| !except.contains(&process.pid))
        .collect();
    let mut family = BTreeSet::from([root.as_raw_nonzero()]);
    let mut found = Vec::new();
    loop {
        let before = found.len();
        rest.retain(|process| {
            let related = process
                .parent
                .is_some_and(|parent| family.contains(&parent.as_raw_nonzero()));
            if related {
                family.insert(process.pid.as_raw_nonzero());
                found.push(*process);
            }
            !related
        });
        if found.len() == before {
            return found;
        }
    }
}

/// Resident memory of a process.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Resident {
    pub(crate) total_bytes: u64,
    /// The part that belongs to no file.
    pub(crate) anonymous_bytes: u64,
}

/// Resident memory of a process; zeros when it is gone.
pub(crate) fn resident(pid: Pid) -> Resident {
    let path = format!("/proc/{}/status", pid.as_raw_nonzero());
    let text = fs::read_to_string(path).unwrap_or_default();
    Resident {
        total_bytes: kilobytes_field(&text, "VmRSS:"),
        anonymous_bytes: kilobytes_field(&text, "RssAnon:"),
    }
}

/// Resident memory of a process, the cheaper way; none when it is gone.
pub(crate) fn resident_bytes(pid: Pid) -> Option<u64> {
    let path = format!("/proc/{}/statm", pid.as_raw_nonzero());
    let text = fs::read_to_string(path).ok()?;
    let pages: u64 = text.split_ascii_whitespace().nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

/// What the children that were reaped have used: time in programs, time in Linux for them, the most memory of one in bytes.
pub(crate) fn children_usage() -> (Duration, Duration, u64) {
    // SAFETY: a usage is made of numbers, for which all bytes zero is valid.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: `usage` is writable and of the type that the call fills.
    let result = unsafe { libc::getrusage(libc::RUSAGE_CHILDREN, &raw mut usage) };
    if result != 0 {
        return (Duration::ZERO, Duration::ZERO, 0);
    }
    let time = |value: libc::timeval| {
        let seconds = u64::try_from(value.tv_sec).unwrap_or(0);
        let micros = u64::try_from(value.tv_usec).unwrap_or(0);
        Duration::from_secs(seconds) + Duration::from_micros(micros)
    };
    let most = u64::try_from(usage.ru_maxrss).unwrap_or(0) * 1024;
    (time(usage.ru_utime), time(usage.ru_stime), most)
}

/// Memory of the machine: all of it, and what new processes could have.
pub(crate) fn memory() -> (u64, u64) {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    (
        kilobytes_field(&text, "MemTotal:"),
        kilobytes_field(&text, "MemAvailable:"),
    )
}

/// A line like `VmRSS:     1234 kB`, in bytes.
fn kilobytes_field(text: &str, name: &str) -> u64 {
    text.lines()
        .find_map(|line| {
            line.strip_prefix(name)?
                .split_ascii_whitespace()
                .next()?
                .parse()
                .ok()
        })
        .map_or(0, |kilobytes: u64| kilobytes.saturating_mul(1024))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_does_not_shift_the_fields() {
        let stat = "7 (a) S 9 (b) S 3 7 7 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4711 0 0";
        let pid = Pid::from_raw(7).unwrap();
        let process = Process::parse(pid, stat).unwrap();
        assert_eq!(process.parent, Pid::from_raw(3));
        assert_eq!(process.started, StartTicks(4711));
        assert!(process.lives_since(StartTicks(4711)));
        assert!(!process.lives_since(StartTicks(4712)));
    }

    #[test]
    fn this_process_started_before_now() {
        let process = Process::read(rustix::process::getpid()).unwrap();
        assert!(process.started <= StartTicks::now());
        assert!(resident(process.pid).total_bytes > 0);
    }
}
