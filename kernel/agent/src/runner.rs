//! The runner's process: its start, its socket, its two output pipes. What the frames mean is in
//! `relay`.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};
use rustix::process::{Pid, Signal, kill_process};
use rustix::time::{ClockId, clock_gettime};
use vmrepl_wire::cell::OutputStream;
use vmrepl_wire::runner::{Kind, RunnerDecoder, encode};

use crate::bounds::Over;
use crate::environment::{Person, surroundings};
use crate::limits;
use crate::outbox::Outbox;
use crate::poller::{Poller, Readiness, Token};
use crate::spawn::{Descent, Identity, spawn};

/// The variable that tells the runner its socket's number.
const SOCKET_VARIABLE: &str = "VMREPL_RUNNER_FD";

/// How runners are started.
#[derive(Debug)]
pub(crate) struct Recipe {
    pub(crate) python: PathBuf,
    /// The package: a folder with a `__main__.py`.
    pub(crate) package: PathBuf,
    pub(crate) identity: Identity,
    /// Whose home the runner starts in; `None` where the agent is.
    pub(crate) person: Option<Person>,
    /// Added to the environment.
    pub(crate) environment: Vec<(OsString, OsString)>,
}

impl Recipe {
    fn command(&self) -> Command {
        let mut command = Command::new(&self.python);
        command.args(["-I", "-B", "-X", "utf8"]).arg(&self.package);
        surroundings(&mut command, self.person.as_ref());
        if let Some(person) = &self.person {
            command.current_dir(&person.home);
        }
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }
}

/// One of the runner's output pipes, read end.
#[derive(Debug)]
struct Pipe {
    end: OwnedFd,
    readiness: Readiness,
}

/// A live runner. It is killed when this is dropped; reaping is the loop's.
#[derive(Debug)]
pub(crate) struct Runner {
    pub(crate) pid: Pid,
    socket: OwnedFd,
    readiness: Readiness,
    pub(crate) frames: RunnerDecoder,
    outbox: Outbox,
    stdout: Pipe,
    stderr: Pipe,
    tokens: Token,
    scratch: Vec<u8>,
}

/// Sources of one runner: the socket's token, then those of the pipes.
pub(crate) const TOKENS: Token = 3;

impl Runner {
    /// Starts one. Its sources report with `tokens` and the two tokens behind.
    pub(crate) fn start(
        recipe: &Recipe,
        descent: Descent<'_>,
        poller: &Poller,
        tokens: Token,
    ) -> io::Result<Self> {
        let (socket, theirs) = socketpair(
            AddressFamily::UNIX,
            SocketType::STREAM,
            SocketFlags::CLOEXEC,
            None,
        )?;
        rustix::io::ioctl_fionbio(&socket, true)?;
        let (stdout, their_stdout) = output_pipe(recipe.identity)?;
        let (stderr, their_stderr) = output_pipe(recipe.identity)?;
        let mut command = recipe.command();
        command.env(SOCKET_VARIABLE, theirs.as_raw_fd().to_string());
        command
            .stdin(Stdio::null())
            .stdout(their_stdout)
            .stderr(their_stderr);
        poller.add(&socket, tokens)?;
        poller.add(&stdout.end, tokens + 1)?;
        poller.add(&stderr.end, tokens + 2)?;
        let pid = spawn(command, &[theirs.as_fd()], descent)?;
        Ok(Self {
            pid,
            socket,
            readiness: Readiness::default(),
            frames: RunnerDecoder::default(),
            outbox: Outbox::default(),
            stdout,
            stderr,
            tokens,
            scratch: vec![0; limits::READ_BYTES],
        })
    }

    /// Notes an event of one of this runner's sources. Those of a runner before it are passed over.
    pub(crate) fn note(&mut self, token: Token, flags: EventFlags) {
        match token.checked_sub(self.tokens) {
            Some(0) => self.readiness.note(flags),
            Some(1) => self.stdout.readiness.note(flags),
            Some(2) => self.stderr.readiness.note(flags),
            _ => {}
        }
    }

    /// Queues a frame.
    pub(crate) fn send(&mut self, kind: Kind, connection: u32, payload: &[u8]) {
        // Lines are cut at a lower limit than frames, so a payload always fits.
        encode(kind, connection, payload, self.outbox.buffer()).ok();
    }

    /// Queues the frame by which the runner learns that an answer's output is out of the pipes.
    pub(crate) fn send_taken(&mut self) {
        self.send(Kind::Taken, 0, &[]);
    }

    /// Requests that the runner has not taken yet, in bytes.
    pub(crate) fn waiting_bytes(&self) -> usize {
        self.outbox.len()
    }

    /// Writes what is queued, as far as the socket takes it. A broken socket is found by reading.
    pub(crate) fn flush(&mut self, poller: &Poller) -> Result<(), Errno> {
        if self.readiness.writable && !self.outbox.is_empty() {
            match self.outbox.write_to(&self.socket) {
                Ok(all) => self.readiness.writable = all,
                Err(_) => self.outbox.clear(),
            }
        }
        poller.watch_writable(&self.socket, self.tokens, &mut self.readiness)
    }

    /// Whether the socket may hold more.
    pub(crate) fn is_readable(&self) -> bool {
        self.readiness.readable
    }

    /// Reads from the socket into `frames`; false when the runner has closed it.
    pub(crate) fn read(&mut self) -> bool {
        let mut taken = 0;
        while self.readiness.readable && taken < limits::TURN_BYTES {
            match rustix::io::read(&self.socket, self.scratch.as_mut_slice()) {
                Ok(0) => return false,
                Ok(count) => {
                    self.frames.push(&self.scratch[..count]);
                    self.readiness.read(count, self.scratch.len());
                    taken += count;
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => self.readiness.readable = false,
                Err(_) => return false,
            }
        }
        true
    }

    /// Reads what a runner which has ended left in its socket; a fork of it that still writes there
    /// is not listened to for ever.
    pub(crate) fn read_to_end(&mut self) {
        self.readiness.readable = true;
        for _ in 0..limits::LAST_TURNS {
            if !self.readiness.readable || !self.read() {
                break;
            }
        }
    }

    /// Whether a pipe may hold output.
    pub(crate) fn has_output(&self) -> bool {
        self.stdout.readiness.readable || self.stderr.readiness.readable
    }

    /// Reads once from each pipe that may hold output.
    pub(crate) fn read_output(&mut self, take: &mut dyn FnMut(OutputStream, &[u8])) {
        let Self {
            stdout,
            stderr,
            scratch,
            ..
        } = self;
        for (pipe, stream) in [
            (stdout, OutputStream::Stdout),
            (stderr, OutputStream::Stderr),
        ] {
            if pipe.readiness.readable {
                take(stream, pipe.read(scratch));
            }
        }
    }

    /// Reads from each pipe what it holds at this moment, and not what is added meanwhile: a thread
    /// that prints without end cannot hold an answer back.
    pub(crate) fn drain_output(&mut self, take: &mut dyn FnMut(OutputStream, &[u8])) {
        let Self {
            stdout,
            stderr,
            scratch,
            ..
        } = self;
        for (pipe, stream) in [
            (stdout, OutputStream::Stdout),
            (stderr, OutputStream::Stderr),
        ] {
            let held = rustix::io::ioctl_fionread(&pipe.end).unwrap_or(0);
            let mut rest = usize::try_from(held).unwrap_or(0);
            while rest > 0 {
                let wanted = rest.min(scratch.len());
                let bytes = pipe.read(&mut scratch[..wanted]);
                if bytes.is_empty() {
                    break;
                }
                take(stream, bytes);
                rest -= bytes.len();
            }
            // What came since then makes a new event.
            pipe.readiness.readable &= pipe.readiness.ending;
        }
    }

    /// Sends SIGINT for this cell, and tells the runner that it did.
    pub(crate) fn interrupt(&mut self, cell: &str) -> bool {
        let now = clock_gettime(ClockId::Monotonic);
        let sent_ns = i128::from(now.tv_sec) * 1_000_000_000 + i128::from(now.tv_nsec);
        let sent = kill_process(self.pid, Signal::INT).is_ok();
        let message = serde_json::json!({ "cell": cell, "sent_ns": sent_ns }).to_string();
        self.send(Kind::Signalled, 0, message.as_bytes());
        sent
    }

    /// Has the runner stop a cell that went over a limit.
    pub(crate) fn exceeded(&mut self, cell: &str, over: &Over) {
        let (status, message) = (over.status, &over.message);
        let message = serde_json::json!({ "cell": cell, "status": status, "message": message });
        self.send(Kind::Exceeded, 0, message.to_string().as_bytes());
    }

    /// Asks the runner to stop a cell of which it has not said that it has begun. The answer has no client.
    pub(crate) fn forestall(&mut self, cell: &str) {
        let message = serde_json::json!({ "op": "interrupt", "cell": cell }).to_string();
        self.send(Kind::Request, 0, message.as_bytes());
    }

    pub(crate) fn kill(&self) -> bool {
        kill_process(self.pid, Signal::KILL).is_ok()
    }
}

impl Pipe {
    fn read<'a>(&mut self, scratch: &'a mut [u8]) -> &'a [u8] {
        loop {
            match rustix::io::read(&self.end, &mut *scratch) {
                // All writers are gone: nothing will ever come again.
                Ok(0) => {
                    self.readiness.readable = false;
                    return &[];
                }
                Ok(count) => {
                    self.readiness.read(count, scratch.len());
                    return &scratch[..count];
                }
                Err(Errno::INTR) => {}
                Err(_) => {
                    self.readiness.readable = false;
                    return &[];
                }
            }
        }
    }
}

/// A pipe whose reads never block and whose writes do.
fn output_pipe(identity: Identity) -> io::Result<(Pipe, OwnedFd)> {
    let (end, theirs) = pipe_with(PipeFlags::CLOEXEC)?;
    rustix::io::ioctl_fionbio(&end, true)?;
    if let Err(error) = fcntl_setpipe_size(&end, limits::PIPE_BYTES) {
        crate::log::note(format_args!(
            "pipe of {} bytes: {error}",
            limits::PIPE_BYTES
        ));
    }
    identity.own(&theirs)?;
    Ok((
        Pipe {
            end,
            readiness: Readiness::default(),
        },
        theirs,
    ))
}
