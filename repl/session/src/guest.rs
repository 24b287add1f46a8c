//! The guest's two conversations: control and cells.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use vmrepl_wire::control::{ControlReply, ControlRequest};
use vmrepl_wire::line::{LineDecoder, to_line};

use crate::error::SessionError;
use crate::interrupt::Running;
use crate::limits::{CONTROL_DEADLINE, LOOK_EVERY};

const READ_BYTES: usize = 64 << 10;

/// A stream of lines with bounded length.
#[derive(Debug)]
pub(crate) struct Lines {
    stream: UnixStream,
    decoder: LineDecoder,
    buffer: Vec<u8>,
}

/// What a wait for a line came to.
#[derive(Debug)]
pub(crate) enum Waited {
    Line(Vec<u8>),
    TimedOut,
    Closed,
}

impl Lines {
    pub(crate) fn new(stream: UnixStream) -> Self {
        Self {
            stream,
            decoder: LineDecoder::default(),
            buffer: vec![0; READ_BYTES],
        }
    }

    /// Sends all of it, unless the guest does not read or the machine is given up.
    pub(crate) fn send(&mut self, bytes: &[u8], running: &Running) -> Result<(), SessionError> {
        send(&self.stream, bytes, running)
    }

    /// The next line, waiting until `deadline` at most (for ever without one).
    pub(crate) fn next(&mut self, deadline: Option<Instant>) -> Result<Waited, SessionError> {
        loop {
            match self.decoder.line() {
                Some(Ok(line)) => return Ok(Waited::Line(line.to_vec())),
                Some(Err(long)) => {
                    return Err(SessionError::LongAnswer {
                        limit_bytes: long.limit_bytes,
                    });
                }
                None => {}
            }
            let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
            if left == Some(Duration::ZERO) {
                return Ok(Waited::TimedOut);
            }
            let failed = |source| SessionError::Guest {
                step: "listen to the guest",
                source,
            };
            self.stream.set_read_timeout(left).map_err(failed)?;
            match (&self.stream).read(&mut self.buffer) {
                Ok(0) => return Ok(Waited::Closed),
                Ok(count) => self.decoder.push(&self.buffer[..count]),
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
                    ) =>
                {
                    return Ok(Waited::TimedOut);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                    return Ok(Waited::Closed);
                }
                Err(error) => return Err(failed(error)),
            }
        }
    }

    /// Takes what has come by now, and loses it.
    pub(crate) fn forget(&mut self) -> Result<(), SessionError> {
        self.decoder = LineDecoder::default();
        loop {
            match recv(&self.stream, &mut self.buffer[..], RecvFlags::DONTWAIT) {
                Ok((0, _)) => {
                    return Err(SessionError::MachineLost {
                        why: "the guest closed a stream".to_owned(),
                    });
                }
                Ok(_) | Err(Errno::INTR) => {}
                Err(Errno::WOULDBLOCK) => return Ok(()),
                Err(source) => {
                    return Err(SessionError::Guest {
                        step: "listen to the guest",
                        source: source.into(),
                    });
                }
            }
        }
    }
}

/// Writes all of it. A guest that does not read holds nobody up for longer than [`CONTROL_DEADLINE`] a piece.
fn send(mut stream: &UnixStream, bytes: &[u8], running: &Running) -> Result<(), SessionError> {
    let failed = |source| SessionError::Guest {
        step: "speak to the guest",
        source,
    };
    stream.set_write_timeout(Some(LOOK_EVERY)).map_err(failed)?;
    let (mut left, mut until) = (bytes, Instant::now() + CONTROL_DEADLINE);
    while !left.is_empty() {
        match stream.write(left) {
            Ok(count) => {
                left = &left[count..];
                until = Instant::now() + CONTROL_DEADLINE;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                running.check()?;
                if Instant::now() > until {
                    return Err(SessionError::Slow {
                        what: "read what it was sent",
                        seconds: CONTROL_DEADLINE.as_secs(),
                        console: "-".to_owned(),
                    });
                }
            }
            Err(error) => return Err(failed(error)),
        }
    }
    Ok(())
}

/// The control conversation: one question at a time, requests from any thread.
#[derive(Debug, Clone)]
pub(crate) struct Control(Arc<Ends>);

/// Apart, so that nobody who waits for a reply holds up an interrupt.
#[derive(Debug)]
struct Ends {
    requests: Mutex<UnixStream>,
    replies: Mutex<Lines>,
    running: Arc<Running>,
    /// The agent has said that the runner died.
    has_lost_runner: AtomicBool,
}

impl Control {
    pub(crate) fn new(stream: UnixStream, running: Arc<Running>) -> Result<Self, SessionError> {
        let requests = stream.try_clone().map_err(|source| SessionError::Guest {
            step: "speak to the guest's agent",
            source,
        })?;
        Ok(Self(Arc::new(Ends {
            requests: Mutex::new(requests),
            replies: Mutex::new(Lines::new(stream)),
            running,
            has_lost_runner: AtomicBool::new(false),
        })))
    }

    /// Sends without waiting for an answer.
    pub(crate) fn tell(&self, request: &ControlRequest) -> Result<(), SessionError> {
        let requests = self
            .0
            .requests
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        send(&requests, &to_line(request), &self.0.running)
    }

    /// The first reply that `wanted` takes; others (told unasked) pass by. Ends early when the machine
    /// is given up.
    pub(crate) fn wait<T>(
        &self,
        deadline: Duration,
        mut wanted: impl FnMut(ControlReply) -> Option<T>,
    ) -> Result<Option<T>, SessionError> {
        let until = Instant::now() + deadline;
        let mut lines = self
            .0
            .replies
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        loop {
            self.0.running.check()?;
            match lines.next(Some(until.min(Instant::now() + LOOK_EVERY)))? {
                Waited::TimedOut if Instant::now() >= until => return Ok(None),
                Waited::TimedOut => {}
                Waited::Closed => {
                    return Err(SessionError::MachineLost {
                        why: "the guest's agent is gone".to_owned(),
                    });
                }
                Waited::Line(line) => match parse(&line)? {
                    ControlReply::Error { message } => {
                        return Err(SessionError::Refused { message });
                    }
                    reply => {
                        if matches!(reply, ControlReply::RunnerLost { .. }) {
                            self.0.has_lost_runner.store(true, Ordering::Relaxed);
                        }
                        if let Some(found) = wanted(reply) {
                            return Ok(Some(found));
                        }
                    }
                },
            }
        }
    }

    /// Has the guest fall silent, so that it can be paused. It stays so until it is spoken to.
    ///
    /// Returns the resident memory of its interpreter.
    pub(crate) fn quiesce(&self) -> Result<Option<u64>, SessionError> {
        self.quiesce_within(CONTROL_DEADLINE)
    }

    /// The same, for somebody who can do without it.
    pub(crate) fn quiesce_within(&self, deadline: Duration) -> Result<Option<u64>, SessionError> {
        let wanted = |reply| match reply {
            ControlReply::Quiesced {
                busy,
                runner_rss_bytes,
            } => Some((busy, runner_rss_bytes)),
            _ => None,
        };
        let (is_busy, memory_bytes) =
            self.ask_within(deadline, &ControlRequest::Quiesce, wanted)?;
        // Its interpreter has died since the answer, or somebody talks with it on another port.
        if is_busy || self.has_lost_runner()? {
            return Err(SessionError::Busied);
        }
        Ok(memory_bytes)
    }

    /// Whether a state that was frozen just now is one to go on from: the guest, which has gone on, tells whether its
    /// interpreter was dying.
    pub(crate) fn confirm(&self) -> Result<(), SessionError> {
        self.quiesce()?;
        self.tell(&ControlRequest::Wake)
    }

    /// Whether the runner has died since the restore, by all that the agent has said so far: another one may run cells now,
    /// without the names of before.
    pub(crate) fn has_lost_runner(&self) -> Result<bool, SessionError> {
        self.wait(Duration::ZERO, |_| None::<()>)?;
        Ok(self.0.has_lost_runner.load(Ordering::Relaxed))
    }

    /// Takes what the agent has said by now, and loses it.
    pub(crate) fn forget(&self) -> Result<(), SessionError> {
        let replies = self.0.replies.lock();
        replies.unwrap_or_else(PoisonError::into_inner).forget()
    }

    /// Asks and waits for the answer.
    pub(crate) fn ask<T>(
        &self,
        request: &ControlRequest,
        wanted: impl FnMut(ControlReply) -> Option<T>,
    ) -> Result<T, SessionError> {
        self.ask_within(CONTROL_DEADLINE, request, wanted)
    }

    fn ask_within<T>(
        &self,
        deadline: Duration,
        request: &ControlRequest,
        wanted: impl FnMut(ControlReply) -> Option<T>,
    ) -> Result<T, SessionError> {
        self.tell(request)?;
        self.wait(deadline, wanted)?
            .ok_or_else(|| SessionError::Slow {
                what: "answer",
                seconds: deadline.as_secs(),
                console: "-".to_owned(),
            })
    }
}

/// Reads one JSON line.
pub(crate) fn parse<T: serde::de::DeserializeOwned>(line: &[u8]) -> Result<T, SessionError> {
    serde_json::from_slice(line).map_err(|source| {
        let shown = &line[..line.len().min(200)];
        SessionError::Answer {
            line: String::from_utf8_lossy(shown).into_owned(),
            source,
        }
    })
}
