//! The connection of one request, in frames.

use std::io::IoSlice;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use vmrepl_wire::files::{FilesDecoder, FilesReply, Frame, Tag, encode, header};

use crate::blocking::{read_some, write_all};
use crate::exec::Hangup;
use crate::limits;

/// A socket that blocks, and the decoder of what came.
#[derive(Debug)]
pub(super) struct Connection {
    socket: OwnedFd,
    decoder: FilesDecoder,
    scratch: Vec<u8>,
    /// Whether the last reply told that what was asked for was done.
    pub(super) succeeded: bool,
}

impl Connection {
    pub(super) fn new(socket: OwnedFd) -> Self {
        let decoder = FilesDecoder::default();
        Self {
            socket,
            decoder,
            scratch: vec![0; limits::READ_BYTES],
            succeeded: false,
        }
    }

    /// The next frame; `None` when the peer sends no more.
    pub(super) fn frame(&mut self) -> Result<Option<(Tag, Vec<u8>)>, Hangup> {
        loop {
            if let Some(frame) = self.decoder.frame().map_err(|_| Hangup)? {
                return Ok(Some((frame.tag, frame.payload.to_vec())));
            }
            match read_some(&self.socket, &mut self.scratch)? {
                0 => return Ok(None),
                count => self.decoder.push(&self.scratch[..count]),
            }
        }
    }

    /// Takes what has come, without waiting. False when the peer sends no more.
    pub(super) fn receive(&mut self) -> Result<bool, Hangup> {
        match rustix::io::read(&self.socket, self.scratch.as_mut_slice()) {
            Ok(0) => Ok(false),
            Ok(count) => {
                self.decoder.push(&self.scratch[..count]);
                Ok(true)
            }
            Err(Errno::INTR | Errno::AGAIN) => Ok(true),
            Err(_) => Err(Hangup),
        }
    }

    /// The next frame of what was taken.
    pub(super) fn taken(&mut self) -> Result<Option<Frame<'_>>, Hangup> {
        self.decoder.frame().map_err(|_| Hangup)
    }

    pub(super) fn reply(&mut self, reply: &FilesReply) -> Result<(), Hangup> {
        let mut out = Vec::new();
        self.push_reply(reply, &mut out);
        write_all(&self.socket, &out)
    }

    /// Appends a reply as a frame to what is to be sent.
    pub(super) fn push_reply(&mut self, reply: &FilesReply, out: &mut Vec<u8>) {
        let op = reply.op.as_deref();
        let is_done = reply.ok && op != Some("timeout") && reply.exit_code.unwrap_or(0) == 0;
        self.succeeded = is_done;
        let json = serde_json::to_vec(reply).expect("text and numbers: nothing can fail");
        // A reply names at most a path and an error: far below a frame's limit.
        encode(Tag::Control, &json, out).ok();
    }

    pub(super) fn send(&mut self, tag: Tag, payload: &[u8]) -> Result<(), Hangup> {
        let header = header(tag, payload.len()).map_err(|_| Hangup)?;
        let (mut head, mut rest) = (&header[..], payload);
        // In one call as a rule: a header by itself would wake the agent for nothing.
        while !head.is_empty() {
            match rustix::io::writev(&self.socket, &[IoSlice::new(head), IoSlice::new(rest)]) {
                Ok(sent) => {
                    let of_head = sent.min(head.len());
                    head = &head[of_head..];
                    rest = &rest[sent - of_head..];
                }
                Err(Errno::INTR) => {}
                Err(_) => return Err(Hangup),
            }
        }
        write_all(&self.socket, rest)
    }

    /// Takes what the sender of a file had still to say up to its end, a while and a bound long: one that still sends when
    /// the socket is closed would lose its answer.
    pub(super) fn linger(&mut self) {
        let until = Instant::now() + limits::LINGER;
        let mut taken = 0;
        while taken < limits::LINGER_BYTES {
            match self.decoder.frame() {
                Ok(Some(frame)) if frame.tag == Tag::End => return,
                Ok(Some(_)) => continue,
                Ok(None) => {}
                Err(_) => return,
            }
            let left = until.saturating_duration_since(Instant::now());
            let mut source = [PollFd::new(&self.socket, PollFlags::IN)];
            let wait = Timespec::try_from(left).unwrap_or_default();
            if poll(&mut source, Some(&wait)) != Ok(1) {
                return;
            }
            match rustix::io::read(&self.socket, self.scratch.as_mut_slice()) {
                Ok(count @ 1..) => {
                    taken += count;
                    self.decoder.push(&self.scratch[..count]);
                }
                Ok(0) | Err(_) => return,
            }
        }
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
