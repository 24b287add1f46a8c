//! The start of a program for a request: its terminal, its limits, its sandbox, and word of where it failed.
#![expect(unsafe_code, reason = "the closure between fork and exec")]

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command};
use std::sync::Arc;

use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Resource, Signal, setsid};
use vmrepl_wire::exec::ExecLimits;

use crate::sandbox::{Sandbox, tell};
use crate::spawn::{Descent, become_ordinary, descend, die_with, join, lose_protection, set_limit};

/// How a program is started for a request.
#[derive(Debug, Clone)]
pub(crate) struct Launch<'a> {
    pub(crate) descent: Descent<'a>,
    /// Its standard input is a terminal, which is to be its own.
    pub(crate) is_terminal: bool,
    /// Where it starts.
    pub(crate) folder: Option<&'a CStr>,
    pub(crate) limits: ExecLimits,
    /// What it is shut in.
    pub(crate) sandbox: Option<&'a Arc<Sandbox>>,
}

/// A program that was started.
#[derive(Debug)]
pub(crate) struct Launched {
    pub(crate) child: Child,
    /// What its process tells on the way: layers of its sandbox, and the signal that has ended it there.
    pub(crate) words: OwnedFd,
}

/// Where the start of a program failed.
#[derive(Debug)]
pub(crate) enum LaunchError {
    /// In what is done to its process.
    Descent(io::Error),
    /// Its folder cannot be entered.
    Folder(io::Error),
    /// It is not there, or cannot be run.
    Program(io::Error),
}

/// Starts `command` as the leader of a session, and so of a process group, of its own. The caller reaps.
pub(crate) fn launch(mut command: Command, launch: &Launch<'_>) -> Result<Launched, LaunchError> {
    let parent = rustix::process::getpid();
    let (words, told) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)
        .map_err(|error| LaunchError::Descent(error.into()))?;
    let descent = launch.descent;
    let cgroup = descent.cgroup.map(|file| file.as_raw_fd());
    let folder = launch.folder.map(CStr::to_owned);
    let (is_terminal, limits) = (launch.is_terminal, launch.limits);
    let sandbox = launch.sandbox.map(Arc::clone);
    if let Some(sandbox) = &sandbox {
        sandbox.begin().map_err(LaunchError::Descent)?;
    }
    let before_exec = move || -> io::Result<()> {
        setsid()?;
        if is_terminal {
            // SAFETY: the program's standard input is connected by now, and stays so in this closure.
            let input = unsafe { BorrowedFd::borrow_raw(libc::STDIN_FILENO) };
            rustix::process::ioctl_tiocsctty(input)?;
        }
        limit(&limits)?;
        join(cgroup)?;
        if let Some(sandbox) = &sandbox {
            lose_protection()?;
            if cgroup.is_some() {
                tell(told.as_fd(), b'G')?;
            }
            sandbox.isolate(told.as_fd())?;
            become_ordinary(descent.identity)?;
            // Its parent is in another namespace, and has no number here.
            rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
            sandbox.seal(told.as_fd())?;
        } else {
            descend(descent.identity, None)?;
            die_with(parent)?;
        }
        // From here on what fails is the request's fault.
        tell(told.as_fd(), b'f')?;
        if let Some(folder) = &folder {
            rustix::process::chdir(folder.as_c_str())?;
        }
        tell(told.as_fd(), b'p')
    };
    // SAFETY: the closure makes system calls only; it neither allocates nor takes a lock, and the process has one thread.
    unsafe { command.pre_exec(before_exec) };
    match command.spawn() {
        Ok(child) => Ok(Launched { child, words }),
        Err(error) => {
            let told = words_of(&words);
            Err(match (told.contains(&b'p'), told.contains(&b'f')) {
                (true, _) => LaunchError::Program(error),
                (false, true) => LaunchError::Folder(error),
                (false, false) => LaunchError::Descent(error),
            })
        }
    }
}

/// What a started process has told.
pub(crate) fn words_of(words: &OwnedFd) -> Vec<u8> {
    let mut told = [0; 64];
    let count = rustix::io::read(words, &mut told).unwrap_or(0);
    told[..count].to_vec()
}

/// What a request allows each process of its program.
fn limit(wish: &ExecLimits) -> io::Result<()> {
    if let Some(files) = wish.open_files {
        set_limit(Resource::Nofile, files)?;
    }
    if let Some(bytes) = wish.file_bytes {
        set_limit(Resource::Fsize, bytes)?;
    }
    if let Some(milliseconds) = wish.cpu_ms {
        // Whole seconds, and later than whoever counts the time of all processes together.
        set_limit(Resource::Cpu, milliseconds / 1000 + 2)?;
    }
    Ok(())
}
