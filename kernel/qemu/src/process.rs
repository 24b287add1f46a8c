//! One QEMU process from start to end.
//!
//! Ordering requirements of a restore:
//! 1. The serial port's socket is connected before the state is loaded, or the load tells the guest
//!    that the port was closed. An inherited socket pair is connected from the first moment.
//! 2. Pages are laid before the device state: loading virtio reads its rings in guest memory.
//! 3. Pages are laid before the first instruction: no translated code exists yet.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use serde_json::json;

use crate::binary::Binary;
use crate::command::{Boot, Config, Inherited, Start, arguments};
use crate::limits::{PAGE_BYTES, STATE_BYTES_MAX, TAIL_BYTES};
use crate::memory::{GuestMemory, MemoryError};
use crate::qmp::{Qmp, QmpError};
use crate::spawn::{Inheritance, spawn};

/// What can go wrong with a QEMU process.
#[expect(missing_docs, reason = "the messages say it")]
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    #[error("{path} is no file that can hold {bytes} bytes of guest memory")]
    MemoryFile {
        path: PathBuf,
        bytes: u64,
        #[source]
        source: std::io::Error,
    },
    #[error("{path} has {found} bytes, guest memory needs {bytes}")]
    MemorySize {
        path: PathBuf,
        bytes: u64,
        found: u64,
    },
    #[error("could not make the pipes and files that QEMU inherits")]
    Descriptors(#[source] std::io::Error),
    #[error("could not build QEMU's jail")]
    Jail(#[source] landlock::RulesetError),
    #[error("could not start {path}")]
    Spawn {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("QEMU ended ({exit}) while it was starting: {said}")]
    Ended { exit: Exit, said: String },
    #[error("could not {step}")]
    Monitor {
        step: &'static str,
        #[source]
        source: QmpError,
    },
    #[error("could not lay the snapshot's pages into guest memory")]
    Lay(#[source] MemoryError),
    #[error("could not load the device state: QEMU says {status:?}: {said}")]
    Load { status: String, said: String },
    #[error("could not read the device state back from QEMU")]
    State(#[source] std::io::Error),
    #[error("QEMU saved {bytes} bytes of device state, the limit is {STATE_BYTES_MAX}")]
    StateSize { bytes: u64 },
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit(ExitStatus);

impl Exit {
    /// The exit code, when it was not a signal.
    #[must_use]
    pub fn code(self) -> Option<i32> {
        self.0.code()
    }

    /// The signal that ended it.
    #[must_use]
    pub fn signal(self) -> Option<i32> {
        self.0.signal()
    }
}

impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// A running QEMU. Killed and reaped on drop.
#[derive(Debug)]
pub struct Process {
    child: Child,
    qmp: Qmp,
    config: Config,
    channel: Option<UnixStream>,
    state: File,
    saved: File,
    console: File,
    errors: File,
}

impl Process {
    /// Boots a Linux with the memory file shared, so that the file becomes a base.
    ///
    /// # Errors
    /// When QEMU cannot be started. A guest that does not come up is the caller's to notice: see
    /// [`Process::console`].
    pub fn boot(binary: &Binary, config: &Config, boot: &Boot) -> Result<Self, ProcessError> {
        Self::start(binary, config, Start::Boot(boot), &[])
    }

    /// Restores a machine from its memory file, saved device state and changed pages.
    /// It runs when this returns, or is about to.
    ///
    /// # Errors
    /// When QEMU cannot be started or refuses the state. With no pages the load goes on in the
    /// background, and a refusal shows as the end of the channel: see [`Process::ended`].
    pub fn restore<'a>(
        binary: &Binary,
        config: &Config,
        state: &[u8],
        pages: impl Iterator<Item = (u64, &'a [u8; PAGE_BYTES])>,
    ) -> Result<Self, ProcessError> {
        let mut pages = pages.peekable();
        if pages.peek().is_none() {
            return Self::start(binary, config, Start::Restore, state);
        }
        let mut process = Self::start(binary, config, Start::RestoreDeferred, state)?;
        // The monitor answers when the machine is built, so from here on memory is mapped.
        process.monitor("reach QEMU's monitor", "query-status", &json!({}))?;
        process
            .memory()
            .and_then(|memory| memory.lay(pages))
            .map_err(ProcessError::Lay)?;
        let uri = format!("fd:{}", process.state.as_raw_fd());
        process.monitor(
            "load the device state",
            "migrate-incoming",
            &json!({"uri": uri}),
        )?;
        process.monitor("start the machine", "cont", &json!({}))?;
        Ok(process)
    }

    fn start(
        binary: &Binary,
        config: &Config,
        start: Start<'_>,
        state: &[u8],
    ) -> Result<Self, ProcessError> {
        check_memory_file(&config.memory_file, config.memory_bytes)?;
        let boot = if let Start::Boot(boot) = start {
            Some(boot)
        } else {
            None
        };
        let rules = crate::jail::rules(binary.path(), config, boot).map_err(ProcessError::Jail)?;
        let make = ProcessError::Descriptors;
        let (channel, their_channel) = UnixStream::pair().map_err(make)?;
        let (monitor, their_monitor) = UnixStream::pair().map_err(make)?;
        let state_file = memory_backed("vmrepl-state").map_err(make)?;
        state_file.write_all_at(state, 0).map_err(make)?;
        // QEMU closes the descriptor that it loaded from, so saving has one of its own.
        let saved = memory_backed("vmrepl-saved").map_err(make)?;
        let console = memory_backed("vmrepl-console").map_err(make)?;
        let errors = memory_backed("vmrepl-stderr").map_err(make)?;
        let fds = Inherited {
            channel: their_channel.as_raw_fd(),
            monitor: their_monitor.as_raw_fd(),
            state: state_file.as_raw_fd(),
            console: console.as_raw_fd(),
        };
        let mut command = Command::new(binary.path());
        command.args(arguments(config, start, fds)).env_clear();
        let inheritance = Inheritance {
            fds: vec![
                their_channel.as_fd(),
                their_monitor.as_fd(),
                state_file.as_fd(),
                saved.as_fd(),
                console.as_fd(),
            ],
            rules,
            stderr: Stdio::from(errors.try_clone().map_err(make)?),
        };
        let child = spawn(command, inheritance).map_err(|source| ProcessError::Spawn {
            path: binary.path().to_owned(),
            source,
        })?;
        let qmp = Qmp::new(monitor).map_err(|source| ProcessError::Monitor {
            step: "reach QEMU's monitor",
            source,
        })?;
        Ok(Self {
            child,
            qmp,
            config: config.clone(),
            channel: Some(channel),
            state: state_file,
            saved,
            console,
            errors,
        })
    }

    /// Our end of the guest's serial port; it can be taken once.
    pub fn take_channel(&mut self) -> Option<OwnedFd> {
        self.channel.take().map(OwnedFd::from)
    }

    /// The process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Guest memory, seen from outside.
    ///
    /// # Errors
    /// When the process does not map it (yet, or no more) or it may not be opened.
    pub fn memory(&self) -> Result<GuestMemory, MemoryError> {
        GuestMemory::open(
            self.pid(),
            &self.config.memory_file,
            self.config.memory_bytes,
        )
    }

    /// Stops the virtual processors.
    ///
    /// # Errors
    /// When the monitor fails.
    pub fn stop(&mut self) -> Result<(), ProcessError> {
        self.monitor("stop the machine", "stop", &json!({}))
    }

    /// Lets the virtual processors run.
    ///
    /// # Errors
    /// When the monitor fails.
    pub fn resume(&mut self) -> Result<(), ProcessError> {
        self.monitor("resume the machine", "cont", &json!({}))
    }

    /// The state of all devices and processors, without memory, of a stopped machine. About 10 KB.
    ///
    /// # Errors
    /// When the monitor fails or the state is larger than its limit.
    pub fn save_state(&mut self) -> Result<Vec<u8>, ProcessError> {
        let path = format!("/proc/self/fd/{}", self.saved.as_raw_fd());
        let arguments = json!({"filename": path, "live": false});
        self.monitor(
            "save the device state",
            "xen-save-devices-state",
            &arguments,
        )?;
        let bytes = self.saved.metadata().map_err(ProcessError::State)?.len();
        if bytes > STATE_BYTES_MAX {
            return Err(ProcessError::StateSize { bytes });
        }
        let mut state = vec![0; usize::try_from(bytes).unwrap_or(0)];
        self.saved
            .read_exact_at(&mut state, 0)
            .map_err(ProcessError::State)?;
        Ok(state)
    }

    /// Whether and how the process has ended.
    pub fn ended(&mut self) -> Option<Exit> {
        self.child.try_wait().ok().flatten().map(Exit)
    }

    /// The end of what QEMU wrote to its stderr.
    #[must_use]
    pub fn said(&self) -> String {
        tail(&self.errors)
    }

    /// The end of what the guest wrote to its console while it booted.
    #[must_use]
    pub fn console(&self) -> String {
        tail(&self.console)
    }

    /// Ends the process now and waits for it.
    pub fn kill(&mut self) {
        // An error means that it has ended already.
        if self.child.kill().is_ok() {
            drop(self.child.wait());
        }
    }

    fn monitor(
        &mut self,
        step: &'static str,
        command: &str,
        arguments: &serde_json::Value,
    ) -> Result<(), ProcessError> {
        let Err(source) = self.qmp.execute(command, arguments) else {
            return Ok(());
        };
        // A monitor that closes is a process that ends; its own words tell more than ours.
        if matches!(source, QmpError::Closed)
            && let Ok(status) = self.child.wait()
        {
            return Err(ProcessError::Ended {
                exit: Exit(status),
                said: self.said(),
            });
        }
        Err(ProcessError::Monitor { step, source })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// QEMU 7.2 creates a missing memory file and cuts nothing off a wrong one, so both are refused here.
fn check_memory_file(path: &Path, bytes: u64) -> Result<(), ProcessError> {
    let wrong = |source| ProcessError::MemoryFile {
        path: path.to_owned(),
        bytes,
        source,
    };
    let facts = path.metadata().map_err(wrong)?;
    if !facts.is_file() {
        return Err(wrong(std::io::ErrorKind::InvalidInput.into()));
    }
    if facts.len() != bytes {
        return Err(ProcessError::MemorySize {
            path: path.to_owned(),
            bytes,
            found: facts.len(),
        });
    }
    Ok(())
}

fn memory_backed(name: &str) -> std::io::Result<File> {
    Ok(File::from(rustix::fs::memfd_create(
        name,
        rustix::fs::MemfdFlags::CLOEXEC,
    )?))
}

fn tail(file: &File) -> String {
    let length = file.metadata().map_or(0, |facts| facts.len());
    let from = length.saturating_sub(TAIL_BYTES as u64);
    let mut bytes = vec![0; usize::try_from(length - from).unwrap_or(0)];
    match file.read_exact_at(&mut bytes, from) {
        Ok(()) => String::from_utf8_lossy(&bytes).trim().to_owned(),
        Err(error) => format!("(nothing could be read: {error})"),
    }
}
