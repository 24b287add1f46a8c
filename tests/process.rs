//! The program under test as a process: what goes in, what comes out, how it ends, and when.

use std::ffi::OsStr;
use std::fmt;
use std::io::{Read, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};

use crate::ground::{DEADLINE, TEMPLATE, home};

/// The engine that `VMREPL_TEST_ENGINE` wants tested; without it, the program's own choice.
pub(crate) fn engine() -> Option<String> {
    std::env::var("VMREPL_TEST_ENGINE")
        .ok()
        .filter(|name| !name.is_empty())
}

/// What a run may take. Where KVM is tested, the host itself may be emulated.
fn deadline() -> Duration {
    match engine().as_deref() {
        Some("kvm") => 4 * DEADLINE,
        _ => DEADLINE,
    }
}

/// The program under test.
pub(crate) const VMREPL: &str = env!("CARGO_BIN_EXE_vmrepl");

/// A run to be started.
#[derive(Debug)]
pub(crate) struct Run {
    command: Command,
    input: Option<Vec<u8>>,
    deadline: Duration,
}

/// A run that goes on.
pub(crate) struct Running {
    child: Child,
    stdout: Option<JoinHandle<Vec<u8>>>,
    stderr: Option<JoinHandle<Vec<u8>>>,
    began: Instant,
    deadline: Duration,
}

/// A run that has ended.
#[derive(Debug)]
pub(crate) struct Ended {
    status: ExitStatus,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
    pub(crate) took: Duration,
}

impl Run {
    /// With the tests' template.
    pub(crate) fn new<A: AsRef<OsStr>>(args: impl IntoIterator<Item = A>) -> Self {
        Self::on(TEMPLATE, args)
    }

    /// With another template.
    pub(crate) fn on<A: AsRef<OsStr>>(template: &str, args: impl IntoIterator<Item = A>) -> Self {
        let mut run = Self::bare(["--template", template]);
        run.command.args(args).env("VMREPL_HOME", home());
        run
    }

    /// `-c CODE`
    pub(crate) fn code(code: &str) -> Self {
        Self::new(["-c", code])
    }

    /// With no template and no home.
    pub(crate) fn bare<A: AsRef<OsStr>>(args: impl IntoIterator<Item = A>) -> Self {
        Self::of(VMREPL, args)
    }

    /// Of a program that becomes the one under test, or of a copy of it.
    pub(crate) fn of<A: AsRef<OsStr>>(
        program: impl AsRef<OsStr>,
        args: impl IntoIterator<Item = A>,
    ) -> Self {
        let mut command = Command::new(program);
        command.args(args).env("NO_COLOR", "1");
        for name in ["VMREPL_TEMPLATE", "VMREPL_ENGINE", "VMREPL_RUN_DIR"] {
            command.env_remove(name);
        }
        if let Some(engine) = engine() {
            command.env("VMREPL_ENGINE", engine);
        }
        Self {
            command,
            input: None,
            deadline: deadline(),
        }
    }

    pub(crate) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    pub(crate) fn within(mut self, folder: &Path) -> Self {
        self.command.current_dir(folder);
        self
    }

    /// Stdin is a pipe that says this and ends.
    pub(crate) fn input(mut self, input: impl Into<Vec<u8>>) -> Self {
        self.input = Some(input.into());
        self
    }

    pub(crate) fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Starts it; its output is read as it comes.
    pub(crate) fn start(self) -> Running {
        let mut running = self.start_silent();
        running.stdout = running.child.stdout.take().map(drain);
        running
    }

    /// Starts it and leaves its stdout to the caller.
    pub(crate) fn start_silent(mut self) -> Running {
        let input = if self.input.is_some() {
            Stdio::piped()
        } else {
            Stdio::null()
        };
        self.command
            .stdin(input)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = self.command.spawn().expect("the program starts");
        if let (Some(bytes), Some(mut stdin)) = (self.input, child.stdin.take()) {
            // It may end before it has read everything.
            let _writer = std::thread::spawn(move || stdin.write_all(&bytes).ok());
        }
        Running {
            stdout: None,
            stderr: child.stderr.take().map(drain),
            child,
            began: Instant::now(),
            deadline: self.deadline,
        }
    }

    pub(crate) fn finish(self) -> Ended {
        self.start().finish()
    }
}

fn drain(mut pipe: impl Read + Send + 'static) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        pipe.read_to_end(&mut bytes).expect("a pipe can be read");
        bytes
    })
}

impl Running {
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Its stdout, when it was started for the caller to read.
    pub(crate) fn take_stdout(&mut self) -> impl Read + use<> {
        self.child.stdout.take().expect("stdout was left to us")
    }

    pub(crate) fn signal(&self, signal: Signal) {
        // It may have ended by itself, and is not reaped before `finish`.
        kill_process(Pid::from_child(&self.child), signal).expect("a child can be signalled");
    }

    /// Whether it ended within this time.
    pub(crate) fn ends_within(&self, time: Duration) -> bool {
        let descriptor = pidfd_open(Pid::from_child(&self.child), PidfdFlags::empty()).unwrap();
        let mut waited = [PollFd::new(&descriptor, PollFlags::IN)];
        let time = Timespec::try_from(time).unwrap();
        poll(&mut waited, Some(&time)).is_ok_and(|count| count > 0)
    }

    pub(crate) fn finish(mut self) -> Ended {
        let in_time = self.ends_within(self.deadline.saturating_sub(self.began.elapsed()));
        if !in_time {
            self.child.kill().ok();
        }
        let status = self.child.wait().unwrap();
        let text = |thread: Option<JoinHandle<Vec<u8>>>| {
            thread.map_or_else(Vec::new, |thread| thread.join().unwrap())
        };
        let ended = Ended {
            status,
            stdout: text(self.stdout.take()),
            stderr: String::from_utf8_lossy(&text(self.stderr.take())).into_owned(),
            took: self.began.elapsed(),
        };
        assert!(
            in_time,
            "it did not end within {:?}: {ended}",
            self.deadline
        );
        ended
    }
}

impl Ended {
    /// Its exit code; a signal counts as a shell counts it.
    pub(crate) fn exit(&self) -> i32 {
        self.status
            .code()
            .or_else(|| self.status.signal().map(|signal| 128 + signal))
            .expect("it has ended")
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// It said exactly this on stdout, nothing on stderr, and succeeded.
    #[track_caller]
    pub(crate) fn says(&self, stdout: &str) {
        assert_eq!(self.text(), stdout, "{self}");
        assert_eq!((self.exit(), self.stderr.as_str()), (0, ""), "{self}");
    }

    /// It failed with this code, and stderr names all of these.
    #[track_caller]
    pub(crate) fn fails(&self, exit: i32, words: &[&str]) {
        assert_eq!(self.exit(), exit, "{self}");
        for word in words {
            assert!(self.stderr.contains(word), "no {word:?} in: {self}");
        }
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.text();
        let start: String = text.chars().take(600).collect();
        write!(
            to,
            "{} after {:?}, {} bytes on stdout: {start:?}, stderr: {:?}",
            self.status,
            self.took,
            self.stdout.len(),
            self.stderr
        )
    }
}
