//! Starting QEMU in its jail, and its end.
#![expect(
    unsafe_code,
    reason = "between fork and exec only raw system calls are allowed, and std offers no safe door for them"
)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

/// What the child is given beside its arguments.
#[derive(Debug)]
pub(crate) struct Inheritance<'a> {
    /// Descriptors that stay open across exec, under the same numbers.
    pub(crate) fds: Vec<BorrowedFd<'a>>,
    /// The Landlock rules to enter.
    pub(crate) rules: Option<OwnedFd>,
    /// Where its error text goes.
    pub(crate) stderr: Stdio,
}

/// Starts `command` with the inherited descriptors, in a session of its own, jailed, and bound to the
/// life of the calling *thread*: the parent-death signal is sent when the thread that spawned ends.
pub(crate) fn spawn(mut command: Command, inheritance: Inheritance<'_>) -> io::Result<Child> {
    let kept: Vec<RawFd> = inheritance.fds.iter().map(AsRawFd::as_raw_fd).collect();
    let rules = inheritance.rules;
    let parent = rustix::process::getpid();
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(inheritance.stderr);
    let enter = move || {
        for &fd in &kept {
            keep_across_exec(fd)?;
        }
        // A terminal's Ctrl-C is for the cell, not for the machine.
        rustix::process::setsid()?;
        rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
        // The parent may have died before the line above took effect.
        if rustix::process::getppid() != Some(parent) {
            return Err(io::Error::other("the parent process is gone"));
        }
        no_core_dump()?;
        rustix::thread::set_no_new_privs(true)?;
        if let Some(rules) = &rules {
            restrict_self(rules.as_raw_fd())?;
        }
        Ok(())
    };
    // SAFETY: the closure makes system calls on captured numbers only; it neither allocates nor locks,
    // so it is sound in the child of a process that may have had other threads.
    unsafe { command.pre_exec(enter) };
    command.spawn()
}

/// Guest memory never lands in a core file.
fn no_core_dump() -> io::Result<()> {
    let none = rustix::process::Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    Ok(rustix::process::setrlimit(
        rustix::process::Resource::Core,
        none,
    )?)
}

fn keep_across_exec(fd: RawFd) -> io::Result<()> {
    // SAFETY: the caller holds `fd` open: `spawn` borrows it for as long as the child is being made.
    let fd = unsafe { BorrowedFd::borrow_raw(fd) };
    Ok(rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::empty())?)
}

fn restrict_self(rules: RawFd) -> io::Result<()> {
    // SAFETY: landlock_restrict_self(2) takes a descriptor and flags, and touches no memory of ours.
    let status = unsafe { libc::syscall(libc::SYS_landlock_restrict_self, rules, 0) };
    if status == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
