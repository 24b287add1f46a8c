//! Programs in the guest: what is typed goes in, what they print comes out, their end is told.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, TryLockError};
use std::time::Instant;

use rustix::process::Signal;
use vmrepl_wire::exec::{BY_SIGNAL, ExecEnd, ExecInput, ExecStart, ExecUsage, WindowSize};
use vmrepl_wire::files::{FilesDecoder, FilesOp, FilesReply, FilesRequest, Tag, encode};
use vmrepl_wire::limits::FILES_CHUNK_BYTES;
use vmrepl_wire::port;

use crate::error::SessionError;
use crate::limits::LOOK_EVERY;
use crate::session::Session;

/// A program that runs in the guest. It is killed, with all that it has started, when this is dropped before its end.
#[derive(Debug)]
pub struct Exec {
    stream: UnixStream,
    decoder: FilesDecoder,
    buffer: Vec<u8>,
    inputs: ExecInputs,
}

/// What a program says next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExecEvent {
    /// It wrote to its standard output, or to its terminal.
    Stdout(Vec<u8>),
    /// It wrote to its standard error.
    Stderr(Vec<u8>),
    /// It has ended.
    Ended(ExecEnded),
    /// Nothing yet.
    Quiet,
}

/// How a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExecEnded {
    /// What a shell would tell: its own code; 124, 126, 127; 128 and the number of a signal.
    pub exit_code: i32,
    /// Why it ended.
    pub end: ExecEnd,
    /// What it took; none when it was not started.
    pub usage: Option<ExecUsage>,
}

/// The way to a running program's input, from any thread.
#[derive(Debug, Clone)]
pub struct ExecInputs(Arc<Way>);

#[derive(Debug)]
struct Way {
    writer: Mutex<UnixStream>,
    /// The same stream, for whoever cannot wait for the writer.
    stream: UnixStream,
    is_cut: AtomicBool,
}

impl ExecInputs {
    /// Sends bytes for its input; waits while it does not read.
    ///
    /// # Errors
    /// When it has ended.
    pub fn bytes(&self, bytes: &[u8]) -> io::Result<()> {
        for chunk in bytes.chunks(FILES_CHUNK_BYTES) {
            self.send(Tag::Stdin, chunk)?;
        }
        Ok(())
    }

    /// There is no more input.
    ///
    /// # Errors
    /// When it has ended.
    pub fn end(&self) -> io::Result<()> {
        self.send(Tag::End, &[])
    }

    /// Its terminal has another size.
    ///
    /// # Errors
    /// When it has ended.
    pub fn resize(&self, size: WindowSize) -> io::Result<()> {
        self.say(ExecInput::Resize(size))
    }

    /// Sends a signal to its process group.
    ///
    /// # Errors
    /// When it has ended.
    pub fn signal(&self, number: i32) -> io::Result<()> {
        self.say(ExecInput::Signal { number })
    }

    /// Sends a signal, or ends a program whose input is so full that no signal gets there.
    pub(crate) fn signal_or_end(&self, number: i32) -> bool {
        match self.0.writer.try_lock() {
            Ok(mut stream) => write_frame(&mut stream, Tag::Control, &signal(number)).is_ok(),
            Err(TryLockError::Poisoned(_) | TryLockError::WouldBlock) => {
                self.0.is_cut.store(true, Ordering::Relaxed);
                self.0.stream.shutdown(Shutdown::Both).is_ok()
            }
        }
    }

    fn say(&self, input: ExecInput) -> io::Result<()> {
        self.send(Tag::Control, &serde_json::to_vec(&input)?)
    }

    fn send(&self, tag: Tag, payload: &[u8]) -> io::Result<()> {
        let mut stream = self.0.writer.lock().unwrap_or_else(PoisonError::into_inner);
        write_frame(&mut stream, tag, payload)
    }
}

fn signal(number: i32) -> Vec<u8> {
    serde_json::to_vec(&ExecInput::Signal { number }).unwrap_or_default()
}

fn write_frame(stream: &mut UnixStream, tag: Tag, payload: &[u8]) -> io::Result<()> {
    let mut bytes = Vec::with_capacity(payload.len() + 8);
    encode(tag, payload, &mut bytes).map_err(io::Error::other)?;
    stream.write_all(&bytes)
}

impl Session {
    /// Starts a program in the guest. What it does to files and processes is the machine's, and so in the next checkpoint.
    ///
    /// # Errors
    /// When the machine is lost, or the guest refuses the request.
    pub fn exec(&mut self, start: &ExecStart) -> Result<Exec, SessionError> {
        self.exec_op(FilesOp::Exec(start.clone()))
    }

    pub(crate) fn exec_op(&mut self, op: FilesOp) -> Result<Exec, SessionError> {
        self.stand_up()?;
        // Not before the machine knows that it is a copy: a program would draw random numbers of another one.
        self.await_resumed(Instant::now())?;
        let failed = |source| SessionError::Guest {
            step: "start a program in the guest",
            source,
        };
        let stream = self.connect(port::FILES)?;
        let mut way = stream.try_clone().map_err(failed)?;
        let third = stream.try_clone().map_err(failed)?;
        stream.set_read_timeout(Some(LOOK_EVERY)).map_err(failed)?;
        let request = FilesRequest::from(op);
        let request = serde_json::to_vec(&request).map_err(|error| failed(error.into()))?;
        write_frame(&mut way, Tag::Control, &request).map_err(failed)?;
        Ok(Exec {
            stream,
            decoder: FilesDecoder::default(),
            buffer: vec![0; FILES_CHUNK_BYTES],
            inputs: ExecInputs(Arc::new(Way {
                writer: Mutex::new(way),
                stream: third,
                is_cut: AtomicBool::new(false),
            })),
        })
    }
}

impl Session {
    /// Whoever interrupts this session now interrupts this program.
    pub fn runs_program(&mut self, exec: &Exec) {
        let id = self.next_id("e");
        self.running.set_program(&id, exec.inputs());
    }

    /// The program has ended.
    pub fn runs_nothing(&self) {
        self.running.set(None);
    }

    /// Whether nobody wants the machine any more.
    #[must_use]
    pub fn is_given_up(&self) -> bool {
        self.running.is_given_up()
    }
}

impl Exec {
    /// The way to its input.
    #[must_use]
    pub fn inputs(&self) -> ExecInputs {
        self.inputs.clone()
    }

    /// Waits a moment for what it says.
    ///
    /// # Errors
    /// When the guest refuses the request, speaks nonsense or is lost.
    pub fn hear(&mut self) -> Result<ExecEvent, SessionError> {
        let failed = |source| SessionError::Guest {
            step: "hear of a program in the guest",
            source,
        };
        loop {
            let frame = self.decoder.frame();
            match frame.map_err(|error| failed(io::Error::other(error)))? {
                None => {}
                Some(frame) => {
                    let payload = frame.payload;
                    return match frame.tag {
                        Tag::Stdout => Ok(ExecEvent::Stdout(payload.to_vec())),
                        Tag::Stderr => Ok(ExecEvent::Stderr(payload.to_vec())),
                        Tag::Control => ended(payload).map(ExecEvent::Ended),
                        tag => Err(failed(io::Error::other(format!(
                            "a {tag:?} frame where output should be"
                        )))),
                    };
                }
            }
            match self.stream.read(&mut self.buffer) {
                Ok(0) if self.inputs.0.is_cut.load(Ordering::Relaxed) => {
                    return Ok(ExecEvent::Ended(ExecEnded {
                        exit_code: BY_SIGNAL + Signal::KILL.as_raw(),
                        end: ExecEnd::Signalled,
                        usage: None,
                    }));
                }
                Ok(0) => {
                    return Err(SessionError::MachineLost {
                        why: "the guest closed the stream of a program".to_owned(),
                    });
                }
                Ok(count) => self.decoder.push(&self.buffer[..count]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if is_timeout(&error) => return Ok(ExecEvent::Quiet),
                Err(error) => return Err(failed(error)),
            }
        }
    }

    /// Kills the program, and all that it has started.
    pub fn kill(self) {
        drop(self);
    }
}

impl Drop for Exec {
    fn drop(&mut self) {
        // Others may hold the way to its input; it has ended all the same.
        self.stream.shutdown(Shutdown::Both).ok();
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
    )
}

fn ended(payload: &[u8]) -> Result<ExecEnded, SessionError> {
    let reply: FilesReply =
        serde_json::from_slice(payload).map_err(|source| SessionError::Answer {
            line: String::from_utf8_lossy(&payload[..payload.len().min(200)]).into_owned(),
            source,
        })?;
    match (reply.ok, reply.exit_code, reply.end) {
        (true, Some(exit_code), Some(end)) => Ok(ExecEnded {
            exit_code,
            end,
            usage: reply.usage,
        }),
        _ => Err(SessionError::Refused {
            message: reply
                .error
                .unwrap_or_else(|| "it gave no reason".to_owned()),
        }),
    }
}
