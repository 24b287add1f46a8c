//! The host's end of the multiplexed channel: its face. The work is done by one thread, see `pump`.

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use vmrepl_wire::mux::MuxError;

use crate::pump::Pump;

/// What can go wrong with the channel to a guest.
#[expect(missing_docs, reason = "the messages say it")]
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    #[error("could not {step}")]
    Io {
        step: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("the channel to the guest is gone: {reason}")]
    Lost { reason: LostReason },
}

/// Why a channel ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LostReason {
    /// The machine closed its end.
    Closed,
    /// The guest broke the rules of the multiplexer.
    Broken(MuxError),
    /// The channel could not be read or written.
    Io(io::ErrorKind),
}

impl fmt::Display for LostReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("the machine closed it"),
            Self::Broken(error) => write!(f, "the guest broke its rules: {error}"),
            Self::Io(kind) => write!(f, "it failed: {kind}"),
        }
    }
}

/// What the face asks of the thread.
#[derive(Debug)]
pub(crate) enum Command {
    Open {
        port: u32,
        socket: UnixStream,
    },
    Listen(UnixListener),
    /// Nothing more is read for the guest but what the control port's streams say. Answered by the end of the channel.
    Hold(SyncSender<()>),
    /// The end of that.
    Go,
    Stop,
}

/// Commands on their way to the thread, and why it ended.
#[derive(Debug)]
pub(crate) struct Shared {
    commands: Mutex<Vec<Command>>,
    lost: Mutex<Option<LostReason>>,
    wake: OwnedFd,
}

impl Shared {
    pub(crate) fn wake(&self) -> &OwnedFd {
        &self.wake
    }

    pub(crate) fn take_commands(&self) -> Vec<Command> {
        std::mem::take(&mut *self.commands.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Notes the end; commands that come later are refused, waiting ones are dropped.
    pub(crate) fn end(&self, reason: LostReason) {
        *self.lost.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason);
        drop(self.take_commands());
    }

    fn lost(&self) -> Option<LostReason> {
        self.lost
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn send(&self, command: Command) -> Result<(), LinkError> {
        // The lock is held across the check: `end` either sees the command or we see the end.
        let lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(reason) = &*lost {
            return Err(LinkError::Lost {
                reason: reason.clone(),
            });
        }
        self.commands
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(command);
        drop(lost);
        rustix::io::write(&self.wake, &1_u64.to_ne_bytes()).map_err(|errno| LinkError::Io {
            step: "wake the channel's thread",
            source: errno.into(),
        })?;
        Ok(())
    }
}

/// The host's end of one machine's channel. Dropped, it closes all streams and ends its thread.
#[derive(Debug)]
pub(crate) struct Link {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Link {
    /// Starts to speak on `channel` in a new `epoch`, which must be larger than any that the guest knows.
    ///
    /// # Errors
    /// When the thread or its wake-up cannot be made.
    pub(crate) fn start(channel: OwnedFd, epoch: u32) -> Result<Self, LinkError> {
        let failed = |step| move |source| LinkError::Io { step, source };
        let wake = rustix::event::eventfd(
            0,
            rustix::event::EventfdFlags::CLOEXEC | rustix::event::EventfdFlags::NONBLOCK,
        )
        .map_err(|errno| failed("make the channel's wake-up")(errno.into()))?;
        let channel = UnixStream::from(channel);
        channel
            .set_nonblocking(true)
            .map_err(failed("prepare the channel"))?;
        let shared = Arc::new(Shared {
            commands: Mutex::default(),
            lost: Mutex::default(),
            wake,
        });
        let pump = Pump::new(channel, epoch, Arc::clone(&shared));
        let thread = std::thread::Builder::new()
            .name("vmrepl-link".to_owned())
            .stack_size(256 << 10)
            .spawn(move || pump.run())
            .map_err(failed("start the channel's thread"))?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    /// Opens a stream to a guest port and returns at once. What is written waits for the guest; a
    /// refusal shows as the end of the stream.
    pub(crate) fn connect(&self, port: u32) -> Result<UnixStream, LinkError> {
        let failed = |source| LinkError::Io {
            step: "make a stream",
            source,
        };
        let (ours, theirs) = UnixStream::pair().map_err(failed)?;
        ours.set_nonblocking(true).map_err(failed)?;
        self.shared.send(Command::Open { port, socket: ours })?;
        Ok(theirs)
    }

    /// Listens at `path`, mode 0600, for `CONNECT <port>\n`.
    pub(crate) fn listen(&self, path: &Path) -> Result<(), LinkError> {
        let failed = |source| LinkError::Io {
            step: "listen",
            source,
        };
        let listener = UnixListener::bind(path).map_err(failed)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        self.shared.send(Command::Listen(listener))
    }

    /// From the return on, nothing reaches the guest but what was on its way, and what the control streams of [`Link::connect`]
    /// say: so whatever the guest answers there, it has had all before it.
    pub(crate) fn hold(&self) -> Result<(), LinkError> {
        let (done, held) = std::sync::mpsc::sync_channel(1);
        self.shared.send(Command::Hold(done))?;
        // A thread that has ended says why elsewhere.
        held.recv().ok();
        Ok(())
    }

    /// Streams go on.
    pub(crate) fn go(&self) {
        // A thread that has ended has no streams.
        drop(self.shared.send(Command::Go));
    }

    /// Why the channel is gone; `None` while it stands.
    pub(crate) fn lost(&self) -> Option<LostReason> {
        self.shared.lost()
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // A thread that has ended already needs no word.
        drop(self.shared.send(Command::Stop));
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

#[cfg(test)]
mod guest_end;
#[cfg(test)]
mod tests;
