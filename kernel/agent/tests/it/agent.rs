//! A live agent without a machine, and connections to it.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde_json::{Value, json};

/// Nothing here takes longer; what does is broken.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// The binary under test.
pub(crate) const AGENT: &str = env!("CARGO_BIN_EXE_vmrepl-agent");

/// The real runner.
pub(crate) fn runner() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../runner-py/runner")
}

/// A process that listens on a socket in a folder of its own.
pub(crate) struct Agent {
    pub(crate) child: Child,
    folder: tempfile::TempDir,
}

impl Agent {
    /// With the real runner.
    pub(crate) fn start() -> Self {
        Self::with(AGENT, |command| {
            command.arg("--runner").arg(runner());
        })
    }

    /// With a runner that lies in the given way.
    pub(crate) fn with_liar(lie: &str) -> Self {
        Self::with(AGENT, |command| {
            let liar = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/liar");
            command.arg("--runner").arg(liar).env("LIE", lie);
        })
    }

    pub(crate) fn with(binary: &str, arguments: impl FnOnce(&mut Command)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join("agent.sock")).unwrap();
        let mut command = Command::new(binary);
        arguments(&mut command);
        command.arg("--listen").arg(inherit(&listener));
        command.stdin(Stdio::null()).stderr(Stdio::piped());
        let child = command.spawn().unwrap();
        Self { child, folder }
    }

    /// A connection on which nothing was said yet.
    pub(crate) fn dial(&self) -> UnixStream {
        let stream = UnixStream::connect(self.folder.path().join("agent.sock")).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.set_write_timeout(Some(DEADLINE)).unwrap();
        stream
    }

    pub(crate) fn connect(&self, port: u32) -> Connection {
        let mut connection = Connection::new(self.dial());
        connection.send(format!("CONNECT {port}\n").as_bytes());
        let line = connection.text();
        assert!(line.starts_with("OK "), "{line}");
        connection
    }

    pub(crate) fn cells(&self) -> Connection {
        self.connect(10_000)
    }

    /// A control connection, once the runner is ready.
    pub(crate) fn control(&self) -> Connection {
        let mut control = self.connect(9);
        assert_eq!(control.json()["op"], "runner_ready");
        control
    }

    /// Something for a cell to wait for, until the test has seen what it wants to see.
    pub(crate) fn gate(&self, name: &str) -> Gate {
        let path = self.folder.path().join(name);
        mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        Gate { path }
    }

    /// A field of `/proc/PID/status`, in bytes.
    pub(crate) fn memory_bytes(&self, field: &str) -> u64 {
        let path = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(path).unwrap();
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix(field))
            .unwrap();
        let number = line.trim_start_matches(':').trim().trim_end_matches(" kB");
        number.parse::<u64>().unwrap() * 1024
    }

    /// Asks the agent to leave and returns what it logged.
    pub(crate) fn shut_down(mut self) -> String {
        let mut control = self.connect(9);
        control.say(&json!({"op": "shutdown"}));
        assert!(self.child.wait().unwrap().success());
        let mut log = String::new();
        self.child
            .stderr
            .take()
            .unwrap()
            .read_to_string(&mut log)
            .unwrap();
        log
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// A named pipe: who opens it to read waits for who opens it to write.
pub(crate) struct Gate {
    path: PathBuf,
}

impl Gate {
    /// An expression of Python that ends when the gate is opened.
    pub(crate) fn wait(&self) -> String {
        format!("open({:?}).read()", self.path.to_str().unwrap())
    }

    /// Waits for the one who waits, and lets it go on.
    pub(crate) fn open(self) {
        drop(File::options().write(true).open(&self.path).unwrap());
    }
}

/// Waits until a process has ended; one that is gone has.
pub(crate) fn wait_for_end(pid: &str) {
    let pid = Pid::from_raw(pid.trim().parse().unwrap()).unwrap();
    let Ok(descriptor) = pidfd_open(pid, PidfdFlags::empty()) else {
        return;
    };
    let mut ended = [PollFd::new(&descriptor, PollFlags::IN)];
    let timeout = Timespec::try_from(DEADLINE).unwrap();
    assert_eq!(poll(&mut ended, Some(&timeout)), Ok(1));
}

/// Lets the next programs that are started inherit a descriptor, and names it for the agent.
pub(crate) fn inherit(descriptor: &(impl AsFd + std::os::fd::AsRawFd)) -> String {
    fcntl_setfd(descriptor, FdFlags::empty()).unwrap();
    format!("fd:{}", descriptor.as_raw_fd())
}

/// A connection that speaks in lines.
pub(crate) struct Connection {
    reader: BufReader<UnixStream>,
}

impl Connection {
    pub(crate) fn new(stream: UnixStream) -> Self {
        Self {
            reader: BufReader::new(stream),
        }
    }

    pub(crate) fn stream(&self) -> &UnixStream {
        self.reader.get_ref()
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.reader.get_mut().write_all(bytes).unwrap();
    }

    pub(crate) fn say(&mut self, message: &Value) {
        self.send(format!("{message}\n").as_bytes());
    }

    /// The next line with its newline; empty at the end.
    pub(crate) fn text(&mut self) -> String {
        let mut line = String::new();
        match self.reader.read_line(&mut line) {
            Ok(_) => {}
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset),
        }
        line
    }

    pub(crate) fn json(&mut self) -> Value {
        let line = self.text();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"))
    }

    /// Skips what is said unasked until a message names `op`.
    pub(crate) fn until(&mut self, op: &str) -> Value {
        loop {
            let message = self.json();
            if message["op"] == op {
                return message;
            }
        }
    }

    pub(crate) fn ask(&mut self, message: &Value) -> Value {
        self.say(message);
        self.json()
    }

    /// Runs a cell in the plain form.
    pub(crate) fn run(&mut self, code: &str) -> Value {
        self.ask(&json!({"code": code}))
    }

    /// Reads events up to the last; returns the output and the last event.
    pub(crate) fn events(&mut self) -> (Vec<u8>, Value) {
        let mut output = Vec::new();
        loop {
            let event = self.json();
            match event["type"].as_str().unwrap() {
                "stdout" => output.extend_from_slice(event["text"].as_str().unwrap().as_bytes()),
                "done" => return (output, event),
                _ => {}
            }
        }
    }

    pub(crate) fn half_close(&self) {
        self.stream().shutdown(Shutdown::Write).unwrap();
    }

    /// Everything up to the end of the connection.
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        match self.reader.read_to_end(&mut rest) {
            Ok(_) => {}
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset),
        }
        rest
    }
}

/// Whether this answers a quiesce of a guest that has a runner and is silent now.
pub(crate) fn is_quiet(reply: &Value) -> bool {
    reply["op"] == "quiesced"
        && reply["busy"].is_null()
        && reply["runner_rss_bytes"].as_u64() > Some(1 << 20)
}
