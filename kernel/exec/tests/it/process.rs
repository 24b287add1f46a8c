//! The program, started as the agent starts it.

use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command};
use std::sync::Mutex;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::client::{Client, DEADLINE};
use crate::core::Core;

const PROGRAM: &str = env!("CARGO_BIN_EXE_vmrepl-exec");

/// One at a time, so that no program inherits what is meant for another.
static STARTING: Mutex<()> = Mutex::new(());

/// The program, alive.
pub(crate) struct Process {
    child: Child,
}

impl Process {
    /// Starts it; the client's end of its connection, and the core that it asks.
    pub(crate) fn start() -> (Self, UnixStream, Core) {
        let (client, connection) = UnixStream::pair().unwrap();
        let (core, way) = UnixStream::pair().unwrap();
        let inherited: [OwnedFd; 2] = [connection.into(), way.into()];
        let alone = STARTING.lock().unwrap();
        let mut command = Command::new(PROGRAM);
        for (name, descriptor) in ["--connection", "--core"].iter().zip(&inherited) {
            fcntl_setfd(descriptor, FdFlags::empty()).unwrap();
            command
                .arg(name)
                .arg(format!("fd:{}", descriptor.as_raw_fd()));
        }
        let child = command.spawn().unwrap();
        drop(inherited);
        drop(alone);
        (Self { child }, client, Core::new(core))
    }

    /// Starts it and connects a client.
    pub(crate) fn serve() -> (Self, Client, Core) {
        let (process, connection, core) = Self::start();
        (process, Client::new(connection), core)
    }

    /// Waits for its end, which must be a good one.
    pub(crate) fn ended(mut self) {
        let pid = Pid::from_raw(self.child.id().try_into().unwrap()).unwrap();
        let handle = pidfd_open(pid, PidfdFlags::empty()).unwrap();
        let mut ended = [PollFd::new(&handle, PollFlags::IN)];
        let deadline = Timespec::try_from(DEADLINE).unwrap();
        assert_eq!(poll(&mut ended, Some(&deadline)), Ok(1), "it still lives");
        let status = self.child.wait().unwrap();
        assert!(status.success(), "{status}");
    }

    /// A line of its status, in bytes.
    pub(crate) fn memory_bytes(&self, field: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix(field))
            .unwrap();
        let number = line.trim_start_matches(':').trim().trim_end_matches(" kB");
        number.parse::<u64>().unwrap() * 1024
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
