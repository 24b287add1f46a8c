//! Running a command: its output as frames as it comes, then how it ended.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};
use vmrepl_wire::files::{FilesReply, Shell, Tag, encode};
use vmrepl_wire::limits::FILES_CHUNK_BYTES;

use super::connection::{Connection, Hangup, push_reply};
use super::failure;
use crate::client::hears_nothing;
use crate::limits;
use crate::outbox::Outbox;
use crate::runner::surroundings;
use crate::spawn::in_own_session;

/// What the request says.
#[derive(Debug)]
pub(super) struct Order {
    pub(super) cmd: String,
    pub(super) shell: Shell,
    pub(super) timeout: Option<f64>,
    pub(super) env: BTreeMap<String, String>,
}

pub(super) fn run(
    connection: &mut Connection,
    order: &Order,
    home: Option<&Path>,
) -> Result<(), Hangup> {
    let refuse = |error: String| FilesReply {
        op: Some("error".to_owned()),
        ..failure(error)
    };
    let deadline = match order.timeout.map(Duration::try_from_secs_f64) {
        None => None,
        Some(Ok(timeout)) => Instant::now().checked_add(timeout),
        Some(Err(error)) => return connection.reply(&refuse(format!("timeout: {error}"))),
    };
    let mut running = match Running::start(order, home) {
        Ok(running) => running,
        Err(error) => return connection.reply(&refuse(error.to_string())),
    };
    rustix::io::ioctl_fionbio(connection.as_fd(), true).map_err(|_| Hangup)?;
    let end = running.watch(connection, deadline)?;
    let reply = match end {
        End::TimedOut => FilesReply {
            ok: true,
            op: Some("timeout".to_owned()),
            timeout: order.timeout,
            ..FilesReply::default()
        },
        End::Exited(status) => FilesReply {
            ok: true,
            op: Some("exit".to_owned()),
            exit_code: status
                .code()
                .or_else(|| status.signal().map(|signal| -signal)),
            ..FilesReply::default()
        },
    };
    push_reply(&reply, running.out.buffer());
    rustix::io::ioctl_fionbio(connection.as_fd(), false).map_err(|_| Hangup)?;
    running
        .out
        .write_to(connection.as_fd())
        .map(drop)
        .map_err(|_| Hangup)
}

/// How a command ended.
#[derive(Debug)]
enum End {
    Exited(ExitStatus),
    TimedOut,
}

/// A command's process group. It is killed when this is dropped before its end.
#[derive(Debug)]
struct Running {
    child: Child,
    exit: OwnedFd,
    /// The pipes that are still open.
    pipes: Vec<(Tag, OwnedFd)>,
    out: Outbox,
    scratch: Vec<u8>,
    ended: bool,
    /// The peer sends no more, but it listens.
    half_closed: bool,
}

impl Running {
    fn start(order: &Order, home: Option<&Path>) -> io::Result<Self> {
        let own_shell = order
            .env
            .get("SHELL")
            .cloned()
            .or_else(|| std::env::var("SHELL").ok());
        let mut command = match order.shell {
            Shell::Raw => Command::new("/bin/sh"),
            Shell::Login => {
                let known = own_shell.filter(|shell| Path::new(shell).is_file());
                Command::new(known.as_deref().unwrap_or("/bin/sh"))
            }
        };
        surroundings(&mut command, home);
        command.envs(&order.env);
        command
            .arg(if order.shell == Shell::Login {
                "-lc"
            } else {
                "-c"
            })
            .arg(&order.cmd);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = in_own_session(command)?;
        let pid = Pid::from_child(&child);
        let mut pipes = Vec::new();
        pipes.extend(
            child
                .stdout
                .take()
                .map(|pipe| (Tag::Stdout, OwnedFd::from(pipe))),
        );
        pipes.extend(
            child
                .stderr
                .take()
                .map(|pipe| (Tag::Stderr, OwnedFd::from(pipe))),
        );
        for (_, pipe) in &pipes {
            rustix::io::ioctl_fionbio(pipe, true)?;
        }
        let exit = pidfd_open(pid, PidfdFlags::empty())?;
        let scratch = vec![0; FILES_CHUNK_BYTES];
        Ok(Self {
            child,
            exit,
            pipes,
            out: Outbox::default(),
            scratch,
            ended: false,
            half_closed: false,
        })
    }

    /// Passes output on until the command has ended and its output is read, or time is up.
    fn watch(&mut self, peer: &Connection, deadline: Option<Instant>) -> Result<End, Hangup> {
        loop {
            self.out.write_to(peer.as_fd()).map_err(|_| Hangup)?;
            let full = self.out.len() > limits::OUTBOX_SOFT_BYTES;
            let ready = self.wait(peer, full, deadline)?;
            if ready.peer_gone {
                return Err(Hangup);
            }
            if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                self.kill();
                return Ok(End::TimedOut);
            }
            if !full {
                self.read_pipes();
            }
            if ready.exited && !full {
                // What a background process of the command holds open is not waited for.
                let status = self.child.wait().map_err(|_| Hangup)?;
                self.ended = true;
                for _ in 0..limits::LAST_TURNS {
                    if !self.read_pipes() {
                        break;
                    }
                    self.out.write_to(peer.as_fd()).map_err(|_| Hangup)?;
                }
                return Ok(End::Exited(status));
            }
        }
    }

    fn wait(
        &mut self,
        peer: &Connection,
        full: bool,
        deadline: Option<Instant>,
    ) -> Result<Ready, Hangup> {
        let mut to_peer = PollFlags::empty();
        to_peer.set(PollFlags::OUT, !self.out.is_empty());
        to_peer.set(PollFlags::RDHUP, !self.half_closed);
        let mut sources = vec![
            PollFd::new(peer, to_peer),
            PollFd::new(
                &self.exit,
                if full {
                    PollFlags::empty()
                } else {
                    PollFlags::IN
                },
            ),
        ];
        if !full {
            sources.extend(
                self.pipes
                    .iter()
                    .map(|(_, pipe)| PollFd::new(pipe, PollFlags::IN)),
            );
        }
        let timeout = deadline.map(|deadline| {
            let left = deadline.saturating_duration_since(Instant::now());
            Timespec {
                tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: i64::from(left.subsec_nanos()),
            }
        });
        match poll(&mut sources, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(_) => return Err(Hangup),
        }
        let (of_peer, of_child) = (sources[0].revents(), sources[1].revents());
        let gone = of_peer.intersects(PollFlags::HUP | PollFlags::ERR);
        self.half_closed |= of_peer.contains(PollFlags::RDHUP);
        Ok(Ready {
            peer_gone: gone || (of_peer.contains(PollFlags::RDHUP) && hears_nothing(peer)),
            exited: of_child.contains(PollFlags::IN),
        })
    }

    /// Reads once from each open pipe; whether there was anything.
    fn read_pipes(&mut self) -> bool {
        let Self {
            pipes,
            out,
            scratch,
            ..
        } = self;
        let mut any = false;
        pipes.retain(
            |(tag, pipe)| match rustix::io::read(pipe, scratch.as_mut_slice()) {
                Ok(0) => false,
                Ok(count) => {
                    any = true;
                    // A chunk is far below a frame's limit.
                    encode(*tag, &scratch[..count], out.buffer()).ok();
                    true
                }
                Err(Errno::AGAIN | Errno::INTR) => true,
                Err(_) => false,
            },
        );
        any
    }

    /// Kills the whole group and reaps the command.
    fn kill(&mut self) {
        if !std::mem::replace(&mut self.ended, true) {
            kill_process_group(Pid::from_child(&self.child), Signal::KILL).ok();
            self.child.wait().ok();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}

/// What [`Running::wait`] saw.
#[derive(Debug)]
struct Ready {
    peer_gone: bool,
    exited: bool,
}
