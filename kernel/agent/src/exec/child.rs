//! Starting a program.

use std::ffi::{CString, OsStr, OsString};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{self, Command};
use std::sync::Arc;

use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::Pid;
use vmrepl_wire::exec::{CANNOT_RUN, ExecLimits, NOT_FOUND, WindowSize};

use super::Defaults;
use super::account::Account;
use super::group::Group;
use super::terminal::Terminal;
use crate::environment::surroundings;
use crate::launch::{Launch, LaunchError, Launched, launch};
use crate::sandbox::Sandbox;
use crate::spawn::Descent;

/// Where a program's bytes come from and go to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stdio {
    /// A pipe for each stream; without input it is empty.
    Pipes { input: bool },
    /// A terminal.
    Terminal(WindowSize),
}

/// Which of a program's streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    /// Standard output, or a terminal.
    Output,
    /// Standard error.
    Error,
}

/// What to run.
#[derive(Debug)]
pub(crate) struct Program {
    /// The program, looked up where its environment says, and its arguments.
    pub(crate) command: Vec<OsString>,
    /// What the program is told that its name is, if that is another.
    pub(crate) called: Option<OsString>,
    /// Added to the environment.
    pub(crate) env: Vec<(OsString, OsString)>,
    /// Where it starts; the home without it.
    pub(crate) cwd: Option<PathBuf>,
    /// Whom it runs as.
    pub(crate) account: Account,
    pub(crate) stdio: Stdio,
    pub(crate) limits: ExecLimits,
    /// What it is shut in.
    pub(crate) sandbox: Option<Arc<Sandbox>>,
}

/// Why a program did not start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    /// Something of the request cannot be done here.
    #[error("{0}")]
    Refused(String),
    /// Its folder cannot be entered.
    #[error("{}: {source}", folder.display())]
    Folder { folder: PathBuf, source: io::Error },
    /// The program cannot be run.
    #[error("{program}: {source}")]
    Program { program: String, source: io::Error },
    /// What a program needs could not be made.
    #[error("{step}: {source}")]
    Setup {
        step: &'static str,
        source: io::Error,
    },
}

impl StartError {
    /// What a shell would end with.
    pub(crate) fn exit_code(&self) -> i32 {
        match self {
            Self::Program { source, .. } if source.kind() == io::ErrorKind::NotFound => NOT_FOUND,
            _ => CANNOT_RUN,
        }
    }
}

/// A program that was started.
#[derive(Debug)]
pub(super) struct Started {
    pub(super) pid: Pid,
    pub(super) ends: Ends,
    pub(super) group: Option<Group>,
    /// Of one in a sandbox: what its process tells.
    pub(super) words: Option<OwnedFd>,
}

impl Started {
    pub(super) fn start(program: &Program, defaults: &Defaults) -> Result<Self, StartError> {
        let setup = |step| move |source| StartError::Setup { step, source };
        let group = group(program, defaults)?;
        let mut command = command(program, defaults)?;
        let ends =
            Ends::connect(&mut command, program).map_err(setup("open the program's streams"))?;
        let folder = folder(program);
        let entered = folder
            .as_ref()
            .map(|folder| CString::new(folder.as_os_str().as_bytes()))
            .transpose()
            .map_err(|_| StartError::Refused("cwd: it holds a zero byte".to_owned()))?;
        let order = Launch {
            descent: Descent {
                identity: program.account.identity,
                cgroup: group.as_ref().map(|group| &group.entrance),
            },
            is_terminal: ends.is_terminal,
            folder: entered.as_deref(),
            limits: program.limits,
            sandbox: program.sandbox.as_ref(),
        };
        let Launched { child, words } = launch(command, &order).map_err(|error| match error {
            LaunchError::Folder(source) => StartError::Folder {
                folder: folder.unwrap_or_default(),
                source,
            },
            LaunchError::Program(source) => StartError::Program {
                program: program.command[0].to_string_lossy().into_owned(),
                source,
            },
            LaunchError::Descent(source) => StartError::Setup {
                step: "prepare the program's process",
                source,
            },
        })?;
        Ok(Self {
            // Dropping the child does not wait for it: waiting has one owner.
            pid: Pid::from_child(&child),
            ends,
            group,
            words: program.sandbox.is_some().then_some(words),
        })
    }
}

/// Our ends of a program's streams; they do not block.
#[derive(Debug)]
pub(super) struct Ends {
    pub(super) outputs: Vec<(Stream, OwnedFd)>,
    pub(super) input: Option<OwnedFd>,
    pub(super) is_terminal: bool,
}

impl Ends {
    /// Makes the streams, and gives the program its ends.
    fn connect(command: &mut Command, program: &Program) -> io::Result<Self> {
        let identity = program.account.identity;
        let ends = match program.stdio {
            Stdio::Terminal(size) => {
                let Terminal { master, slave } = Terminal::open(size, identity)?;
                command.stdin(slave.try_clone()?).stdout(slave.try_clone()?);
                command.stderr(slave);
                Self {
                    outputs: vec![(Stream::Output, master.try_clone()?)],
                    input: Some(master),
                    is_terminal: true,
                }
            }
            Stdio::Pipes { input } => {
                let (output, their_output) = pipe_with(PipeFlags::CLOEXEC)?;
                let (error, their_error) = pipe_with(PipeFlags::CLOEXEC)?;
                for end in [&their_output, &their_error] {
                    identity.own(end)?;
                }
                command.stdout(their_output).stderr(their_error);
                let mut ours = None;
                if input {
                    let (theirs, end) = pipe_with(PipeFlags::CLOEXEC)?;
                    identity.own(&theirs)?;
                    command.stdin(theirs);
                    ours = Some(end);
                } else {
                    command.stdin(process::Stdio::null());
                }
                Self {
                    outputs: vec![(Stream::Output, output), (Stream::Error, error)],
                    input: ours,
                    is_terminal: false,
                }
            }
        };
        for end in ends.outputs.iter().map(|(_, end)| end).chain(&ends.input) {
            rustix::io::ioctl_fionbio(end, true)?;
        }
        Ok(ends)
    }
}

fn group(program: &Program, defaults: &Defaults) -> Result<Option<Group>, StartError> {
    let limits = &program.limits;
    match &defaults.groups {
        Some(groups) => {
            // One process serves one request, so its number is the group's own.
            let name = rustix::process::getpid().as_raw_nonzero().to_string();
            let made = Group::make(groups, &name, limits);
            made.map(Some).map_err(|source| StartError::Setup {
                step: "make a group for the program",
                source,
            })
        }
        None if limits.memory_bytes.is_some() || limits.processes.is_some() => Err(
            StartError::Refused("limits of memory and processes need a machine".to_owned()),
        ),
        None => Ok(None),
    }
}

fn command(program: &Program, defaults: &Defaults) -> Result<Command, StartError> {
    let Some((name, arguments)) = program.command.split_first() else {
        return Err(StartError::Refused("command: it is empty".to_owned()));
    };
    let mut command = Command::new(name);
    command.args(arguments);
    if let Some(called) = &program.called {
        command.arg0(called);
    }
    surroundings(&mut command, program.account.person.as_ref());
    command.envs(
        defaults
            .environment
            .iter()
            .map(|(name, value)| (name, value)),
    );
    if let Stdio::Terminal(_) = program.stdio {
        command.env("TERM", "xterm-256color");
    }
    command.envs(program.env.iter().map(|(name, value)| (name, value)));
    let holds_zero = |word: &OsStr| word.as_bytes().contains(&0);
    if program.command.iter().any(|word| holds_zero(word)) {
        return Err(StartError::Refused(
            "command: it holds a zero byte".to_owned(),
        ));
    }
    Ok(command)
}

/// Where the program starts: as it is said, from the home if that is where it leads from.
fn folder(program: &Program) -> Option<PathBuf> {
    let home = program
        .account
        .person
        .as_ref()
        .map(|person| person.home.as_path());
    match (&program.cwd, home) {
        (Some(wish), Some(home)) => Some(home.join(wish)),
        (Some(wish), None) => Some(wish.clone()),
        (None, home) => home.map(Path::to_owned),
    }
}
