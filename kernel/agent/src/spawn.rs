//! New processes: what they inherit, and what they lose before they run anything.
#![expect(unsafe_code, reason = "fork, and the closure between fork and exec")]

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;

use rustix::fs::{Mode, OFlags, open};
use rustix::io::{Errno, FdFlags, fcntl_setfd};
use rustix::process::{Gid, Pid, Resource, Rlimit, Signal, Uid, setrlimit, setsid};
use rustix::thread;

use crate::{limits, signals};

/// Whom a new process runs as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Identity {
    /// Whoever the agent is: without a machine.
    Same,
    /// An ordinary user who can never become another: in a machine.
    User { user: u32, group: u32 },
    /// The machine's administrator: in a machine, for whoever owns it and asks for it.
    Root,
}

impl Identity {
    /// Gives somebody what the agent has opened for them, so that they can open it again by its name, as `/dev/stderr` is.
    pub(crate) fn own(self, descriptor: impl AsFd) -> io::Result<()> {
        if let Self::User { user, group } = self {
            let (user, group) = (Uid::from_raw(user), Gid::from_raw(group));
            rustix::fs::fchown(descriptor, Some(user), Some(group))?;
        }
        Ok(())
    }
}

/// What is done to a new process before it runs its program.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Descent<'a> {
    pub(crate) identity: Identity,
    /// `cgroup.procs` of the group it joins.
    pub(crate) cgroup: Option<&'a File>,
}

/// Starts `command` with those of `kept` inherited at their own numbers; the rest of the agent's descriptors
/// close at exec. The caller reaps.
pub(crate) fn spawn(
    mut command: Command,
    kept: &[BorrowedFd<'_>],
    descent: Descent<'_>,
) -> io::Result<Pid> {
    let kept: Vec<RawFd> = kept.iter().map(|kept| kept.as_raw_fd()).collect();
    let cgroup = descent.cgroup.map(|file| file.as_raw_fd());
    let parent = rustix::process::getpid();
    let before_exec = move || -> io::Result<()> {
        for kept in &kept {
            // SAFETY: the number is of a descriptor that the caller's borrow keeps open across the fork.
            let kept = unsafe { BorrowedFd::borrow_raw(*kept) };
            fcntl_setfd(kept, FdFlags::empty())?;
        }
        setsid()?;
        descend(descent.identity, cgroup)?;
        die_with(parent)?;
        Ok(())
    };
    // SAFETY: the closure makes system calls only; it neither allocates nor takes a lock, and the
    // agent has one thread, so no lock is held by another at the fork.
    unsafe { command.pre_exec(before_exec) };
    let child = command.spawn()?;
    let number = i32::try_from(child.id()).map_err(io::Error::other)?;
    // Dropping the child does not wait for it: waiting has one owner.
    Pid::from_raw(number).ok_or_else(|| io::Error::other("process 0"))
}

/// Which of two processes this is.
#[derive(Debug)]
pub(crate) enum Forked {
    /// The agent, with the other's number.
    Agent(Pid),
    /// The new process. It must end by [`leave`].
    Worker,
}

/// Splits off a copy of the agent that goes on in this program, with the agent's rights.
pub(crate) fn fork(cgroup: Option<&File>, kept: &OwnedFd) -> io::Result<Forked> {
    let parent = rustix::process::getpid();
    // SAFETY: the agent has one thread, so the child finds every lock free and may go on at will.
    let number = unsafe { libc::fork() };
    if number < 0 {
        return Err(io::Error::last_os_error());
    }
    if let Some(child) = Pid::from_raw(number) {
        return Ok(Forked::Agent(child));
    }
    let cgroup = cgroup.map(|file| file.as_raw_fd());
    let ready = setsid()
        .map_err(io::Error::from)
        .and_then(|_| join(cgroup))
        .and_then(|()| die_with(parent))
        .and_then(|()| close_others(kept.as_raw_fd()));
    if ready.is_err() {
        leave(126);
    }
    Ok(Forked::Worker)
}

/// Has a worker give up the agent's rights for good.
pub(crate) fn give_rights_up(identity: Identity) -> io::Result<()> {
    let parent = rustix::process::getppid().ok_or(Errno::SRCH)?;
    descend(identity, None)?;
    die_with(parent)
}

/// Has a worker do its work, and ends it. A fault ends it, too: it must never come to where the agent goes on after its own.
pub(crate) fn work(serve: impl FnOnce() -> i32) -> ! {
    const FAULT: i32 = 101;
    leave(catch_unwind(AssertUnwindSafe(serve)).unwrap_or(FAULT))
}

/// Ends a worker at once: nothing of the agent's state may be dropped twice.
pub(crate) fn leave(code: i32) -> ! {
    // SAFETY: `_exit` has no preconditions.
    unsafe { libc::_exit(code) }
}

/// A worker holds its connection, and none of the agent's channels.
fn close_others(kept: RawFd) -> io::Result<()> {
    let kept = kept.cast_unsigned();
    for (first, last) in [(3, kept.saturating_sub(1)), (kept + 1, u32::MAX)] {
        if first <= last {
            // SAFETY: the worker uses no descriptor but `kept`; those closed here belong to state
            // that it never touches again, since it ends by `leave`.
            let result = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
            if result != 0 {
                return Err(io::Error::last_os_error());
            }
        }
    }
    Ok(())
}

/// Order matters: joining the group and lowering the OOM score need the agent's rights; the limits
/// come before the new user, whose hard limits they are; capabilities leave the bounding set while
/// that is still allowed.
pub(crate) fn descend(identity: Identity, cgroup: Option<RawFd>) -> io::Result<()> {
    join(cgroup)?;
    if identity != Identity::Same {
        lose_protection()?;
    }
    become_ordinary(identity)
}

/// Linux may choose it when memory is short.
pub(crate) fn lose_protection() -> io::Result<()> {
    let score = open(c"/proc/self/oom_score_adj", OFlags::WRONLY, Mode::empty())?;
    rustix::io::write(score.as_fd(), b"0")?;
    Ok(())
}

pub(crate) fn become_ordinary(identity: Identity) -> io::Result<()> {
    set_limits()?;
    if identity != Identity::Root {
        thread::set_no_new_privs(true)?;
    }
    if let Identity::User { user, group } = identity {
        lose_capabilities()?;
        become_user(user, group)?;
    }
    Ok(())
}

/// Out of the agent's ways: its blocked signals, its group, its place in the schedule.
pub(crate) fn join(cgroup: Option<RawFd>) -> io::Result<()> {
    signals::unblock_all()?;
    if let Some(cgroup) = cgroup {
        // SAFETY: whoever names a group keeps its file open meanwhile.
        let cgroup = unsafe { BorrowedFd::borrow_raw(cgroup) };
        rustix::io::write(cgroup, b"0")?;
    }
    ordinary_schedule()
}

/// The agent lets others run before itself; see `schedule_behind_others`.
fn ordinary_schedule() -> io::Result<()> {
    schedule(libc::SCHED_OTHER)
}

/// Makes the agent a batch process: waking it does not interrupt the runner, so the frames that the
/// runner sends in a row cost one switch instead of one each.
pub(crate) fn schedule_behind_others() -> io::Result<()> {
    schedule(libc::SCHED_BATCH)
}

fn schedule(policy: libc::c_int) -> io::Result<()> {
    // SAFETY: all bytes zero is a valid sched_param: priority 0, the only one of these policies.
    let parameters: libc::sched_param = unsafe { std::mem::zeroed() };
    // SAFETY: the call reads three numbers and one sched_param. It is made directly because musl's
    // own function of this name always fails.
    let result = unsafe {
        libc::syscall(
            libc::SYS_sched_setscheduler,
            0,
            policy,
            &raw const parameters,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

fn set_limits() -> io::Result<()> {
    set_limit(Resource::Core, 0)?;
    set_limit(Resource::Nofile, limits::OPEN_FILES)
}

/// Lowers a limit; one that is lower already stays.
pub(crate) fn set_limit(resource: Resource, most: u64) -> io::Result<()> {
    let hard = rustix::process::getrlimit(resource).maximum;
    let most = Some(hard.map_or(most, |hard| hard.min(most)));
    setrlimit(
        resource,
        Rlimit {
            current: most,
            maximum: most,
        },
    )?;
    Ok(())
}

fn lose_capabilities() -> io::Result<()> {
    thread::clear_ambient_capability_set()?;
    for bit in 0..64 {
        let capability = thread::CapabilitySet::from_bits_retain(1 << bit);
        match thread::remove_capability_from_bounding_set(capability) {
            Ok(()) => {}
            // Past the last capability that this Linux knows.
            Err(Errno::INVAL) => break,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn become_user(user: u32, group: u32) -> io::Result<()> {
    let (user, group) = (Uid::from_raw(user), Gid::from_raw(group));
    thread::set_thread_groups(&[])?;
    thread::set_thread_res_gid(group, group, group)?;
    // Leaving user 0 empties the permitted and effective capabilities.
    thread::set_thread_res_uid(user, user, user)?;
    Ok(())
}

/// No process of ours outlives the agent. Set last: a change of user clears it.
pub(crate) fn die_with(parent: Pid) -> io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    if rustix::process::getppid() == Some(parent) {
        return Ok(());
    }
    Err(Errno::SRCH.into())
}
