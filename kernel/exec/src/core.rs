//! Connections to the agent's core, and the frames on them.
//!
//! The way to the core is one Unix socket. A connection is made here as a pair of sockets, one of which goes over it: the
//! agent serves that as it serves a client of port 1024.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream as BlockingStream;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use serde::Serialize;
use tokio::io::Interest;
use tokio::net::UnixStream;
use vmrepl_wire::files::{
    FilesDecoder, FilesFrameError, FilesOp, FilesReply, FilesRequest, Tag, header,
};
use vmrepl_wire::limits::FILES_CHUNK_BYTES;

use crate::limits::READ_BYTES;

/// Why the core did not do what it was asked for, or did not say so.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CoreError {
    /// No connection could be made.
    #[error("connecting to the agent")]
    Connect(#[source] io::Error),
    /// The connection ended early.
    #[error("the agent ended the connection without an answer")]
    Gone,
    /// The connection broke.
    #[error("reading from the agent")]
    Read(#[source] io::Error),
    /// A request that fits into no frame.
    #[error("the request is too long")]
    TooLong(#[source] FilesFrameError),
    /// A request that is no JSON.
    #[error("writing the request as JSON")]
    Request(#[source] serde_json::Error),
    /// Bytes that are no frame.
    #[error("reading a frame of the agent")]
    Frame(#[source] FilesFrameError),
    /// A frame that has no place here.
    #[error("the agent sent a frame of the kind {0:?} out of turn")]
    OutOfTurn(Tag),
    /// A final object that is none.
    #[error("reading the agent's answer")]
    Reply(#[source] serde_json::Error),
    /// The agent said no; in its words.
    #[error("{0}")]
    Refused(String),
}

/// The way to the agent's core.
#[derive(Debug)]
pub(crate) struct Core {
    socket: UnixStream,
}

impl Core {
    /// Over a Unix socket whose other end the agent reads.
    pub(crate) fn new(socket: OwnedFd) -> io::Result<Self> {
        UnixStream::from_std(socket.into()).map(|socket| Self { socket })
    }

    /// Makes a connection and sends the request on it.
    pub(crate) async fn open(&self, op: FilesOp) -> Result<(Sender, Receiver), CoreError> {
        let (sender, receiver) = self.connect().await.map_err(CoreError::Connect)?;
        sender.control(&FilesRequest::from(op)).await?;
        Ok((sender, receiver))
    }

    async fn connect(&self) -> io::Result<(Sender, Receiver)> {
        // The agent's end blocks, as one does that it has accepted itself.
        let (ours, theirs) = BlockingStream::pair()?;
        self.socket
            .async_io(Interest::WRITABLE, || self.hand_over(&theirs))
            .await?;
        drop(theirs);
        ours.set_nonblocking(true)?;
        let socket = Arc::new(UnixStream::from_std(ours)?);
        Ok((
            Sender {
                socket: Arc::clone(&socket),
            },
            Receiver {
                socket,
                decoder: FilesDecoder::default(),
            },
        ))
    }

    /// One byte carries one descriptor.
    fn hand_over(&self, end: &BlockingStream) -> io::Result<()> {
        let ends = [end.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        control.push(SendAncillaryMessage::ScmRights(&ends));
        let byte = [IoSlice::new(&[0])];
        sendmsg(&self.socket, &byte, &mut control, SendFlags::NOSIGNAL)?;
        Ok(())
    }
}

/// What goes to the core on one connection. The connection is closed when this and its [`Receiver`] are gone.
#[derive(Debug)]
pub(crate) struct Sender {
    socket: Arc<UnixStream>,
}

impl Sender {
    /// Sends an object.
    pub(crate) async fn control(&self, message: &impl Serialize) -> Result<(), CoreError> {
        let payload = serde_json::to_vec(message).map_err(CoreError::Request)?;
        self.frame(Tag::Control, &payload).await
    }

    /// Sends bytes, in frames of the usual size.
    pub(crate) async fn data(&self, tag: Tag, bytes: &[u8]) -> Result<(), CoreError> {
        for chunk in bytes.chunks(FILES_CHUNK_BYTES) {
            self.frame(tag, chunk).await?;
        }
        Ok(())
    }

    /// Says that no more bytes come.
    pub(crate) async fn end(&self) -> Result<(), CoreError> {
        self.frame(Tag::End, &[]).await
    }

    /// A core that takes no more is no error: it has answered, or what [`Receiver`] finds is one.
    async fn frame(&self, tag: Tag, payload: &[u8]) -> Result<(), CoreError> {
        let header = header(tag, payload.len()).map_err(CoreError::TooLong)?;
        let mut slices = [IoSlice::new(&header), IoSlice::new(payload)];
        let mut rest = &mut slices[..];
        while rest.iter().any(|slice| !slice.is_empty()) {
            let ready = self.socket.writable().await;
            match ready.and_then(|()| self.socket.try_write_vectored(rest)) {
                Ok(written) => IoSlice::advance_slices(&mut rest, written),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => break,
            }
        }
        Ok(())
    }
}

/// What comes from the core on one connection.
#[derive(Debug)]
pub(crate) struct Receiver {
    socket: Arc<UnixStream>,
    decoder: FilesDecoder,
}

/// A frame of the core.
#[derive(Debug)]
pub(crate) enum Said {
    /// Output, or bytes of a file.
    Bytes(Tag, Bytes),
    /// The end of a file.
    End,
    /// An object that says yes, or how a program ended.
    Reply(Box<FilesReply>),
}

impl Receiver {
    /// Yields the next frame.
    pub(crate) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<Said, CoreError>> {
        loop {
            if let Some(frame) = self.decoder.frame().map_err(CoreError::Frame)? {
                return Poll::Ready(match frame.tag {
                    Tag::Stdout | Tag::Stderr | Tag::File => Ok(Said::Bytes(
                        frame.tag,
                        Bytes::copy_from_slice(frame.payload),
                    )),
                    Tag::End => Ok(Said::End),
                    Tag::Control => reply(frame.payload),
                    Tag::Stdin => Err(CoreError::OutOfTurn(frame.tag)),
                });
            }
            ready!(self.socket.poll_read_ready(context)).map_err(CoreError::Read)?;
            let mut bytes = [0; READ_BYTES];
            match self.socket.try_read(&mut bytes) {
                Ok(0) => return Poll::Ready(Err(CoreError::Gone)),
                Ok(read) => self.decoder.push(bytes.get(..read).unwrap_or_default()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                    return Poll::Ready(Err(CoreError::Gone));
                }
                Err(error) => return Poll::Ready(Err(CoreError::Read(error))),
            }
        }
    }

    /// Waits for the next frame.
    pub(crate) async fn next(&mut self) -> Result<Said, CoreError> {
        std::future::poll_fn(|context| self.poll(context)).await
    }
}

fn reply(payload: &[u8]) -> Result<Said, CoreError> {
    let reply: FilesReply = serde_json::from_slice(payload).map_err(CoreError::Reply)?;
    // A program that could not be started has a code, as in a shell, whatever else is said of it.
    if reply.ok || reply.exit_code.is_some() {
        Ok(Said::Reply(Box::new(reply)))
    } else {
        Err(CoreError::Refused(reply.error.unwrap_or_else(|| {
            "the agent refused it without a reason".to_owned()
        })))
    }
}
