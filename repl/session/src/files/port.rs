//! Connections to the guest's files port: one for each request.

use std::io::{self, IoSlice, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use vmrepl_wire::files::{FilesDecoder, FilesOp, FilesReply, FilesRequest, Tag, header};
use vmrepl_wire::limits::FILES_CHUNK_BYTES;
use vmrepl_wire::port;

use crate::error::SessionError;
use crate::interrupt::Running;
use crate::limits::{LOOK_EVERY, STALL_DEADLINE};
use crate::session::Session;

type Dial<'a> = dyn Fn() -> Result<UnixStream, SessionError> + 'a;

/// How to reach the files of a guest.
pub(super) struct Port<'a> {
    dial: Box<Dial<'a>>,
    running: Arc<Running>,
}

impl<'a> Port<'a> {
    pub(super) fn of(session: &'a Session) -> Self {
        Self {
            dial: Box::new(|| session.connect(port::FILES)),
            running: Arc::clone(session.running()),
        }
    }

    #[cfg(test)]
    pub(super) fn to(dial: impl Fn() -> Result<UnixStream, SessionError> + 'a) -> Self {
        Self {
            dial: Box::new(dial),
            running: Arc::default(),
        }
    }

    /// Opens a connection with its request.
    pub(super) fn ask(&self, op: FilesOp) -> Result<Frames, SessionError> {
        let failed = |source| SessionError::Guest {
            step: "reach the guest's files",
            source,
        };
        let stream = (self.dial)()?;
        stream.set_read_timeout(Some(LOOK_EVERY)).map_err(failed)?;
        stream.set_write_timeout(Some(LOOK_EVERY)).map_err(failed)?;
        let mut frames = Frames {
            stream: Patient {
                stream,
                running: Arc::clone(&self.running),
            },
            decoder: FilesDecoder::default(),
            buffer: vec![0; FILES_CHUNK_BYTES],
        };
        let request =
            serde_json::to_vec(&FilesRequest::from(op)).map_err(|error| failed(error.into()))?;
        frames.send(Tag::Control, &request).map_err(failed)?;
        Ok(frames)
    }
}

/// A stream that gives up when nobody wants the machine any more, or when nothing moves.
struct Patient {
    stream: UnixStream,
    running: Arc<Running>,
}

impl Patient {
    fn patiently<T>(&self, mut act: impl FnMut(&UnixStream) -> io::Result<T>) -> io::Result<T> {
        let until = Instant::now() + STALL_DEADLINE;
        loop {
            match act(&self.stream) {
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
                    ) =>
                {
                    if self.running.is_given_up() {
                        return Err(io::Error::other(SessionError::Stopped));
                    }
                    if Instant::now() > until {
                        let still =
                            format!("the guest did not move for {} s", STALL_DEADLINE.as_secs());
                        return Err(io::Error::new(io::ErrorKind::TimedOut, still));
                    }
                }
                done => return done,
            }
        }
    }
}

impl Read for Patient {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.patiently(|mut stream| stream.read(into))
    }
}

impl Write for Patient {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.patiently(|mut stream| stream.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// One connection, in frames.
pub(super) struct Frames {
    stream: Patient,
    decoder: FilesDecoder,
    buffer: Vec<u8>,
}

impl Frames {
    pub(super) fn send(&mut self, tag: Tag, payload: &[u8]) -> io::Result<()> {
        let header = header(tag, payload.len()).map_err(io::Error::other)?;
        let (mut head, mut rest) = (&header[..], payload);
        // In one call as a rule: a header by itself would wake the other side for nothing.
        while !head.is_empty() {
            let parts = [IoSlice::new(head), IoSlice::new(rest)];
            let sent = self
                .stream
                .patiently(|mut stream| stream.write_vectored(&parts))?;
            let of_head = sent.min(head.len());
            head = &head[of_head..];
            rest = &rest[sent - of_head..];
        }
        self.stream.write_all(rest)
    }

    /// Whether the guest has said something that was not read yet, or has gone.
    pub(super) fn has_word(&self) -> bool {
        let mut source = [PollFd::new(&self.stream.stream, PollFlags::IN)];
        !self.decoder.is_empty() || poll(&mut source, Some(&Timespec::default())) == Ok(1)
    }

    /// Calls `each` with frames until it says that it has had enough.
    pub(super) fn until(
        &mut self,
        mut each: impl FnMut(Tag, &[u8]) -> io::Result<bool>,
    ) -> io::Result<()> {
        loop {
            while let Some(frame) = self.decoder.frame().map_err(io::Error::other)? {
                if each(frame.tag, frame.payload)? {
                    return Ok(());
                }
            }
            match self.stream.read(&mut self.buffer)? {
                0 => {
                    let gone = "the guest closed the connection";
                    return Err(io::Error::new(io::ErrorKind::UnexpectedEof, gone));
                }
                count => self.decoder.push(&self.buffer[..count]),
            }
        }
    }

    /// The next frame, which must be an answer.
    pub(super) fn reply(&mut self) -> io::Result<FilesReply> {
        let mut found = FilesReply::default();
        self.until(|tag, payload| {
            if tag != Tag::Control {
                let what = format!("a {tag:?} frame where an answer should be");
                return Err(io::Error::other(what));
            }
            found = serde_json::from_slice(payload)?;
            Ok(true)
        })?;
        Ok(found)
    }
}

/// A reply that says yes.
pub(super) fn expect_ok(
    reply: FilesReply,
    verb: &'static str,
    path: &str,
) -> Result<FilesReply, SessionError> {
    if reply.ok {
        return Ok(reply);
    }
    let message = reply.error.unwrap_or("it gave no reason".to_owned());
    Err(SessionError::GuestFile {
        verb,
        path: path.to_owned(),
        message,
    })
}
