//! The content of a request or an answer: file frames up to the end, and their sum.

use std::io::{self, Read, Write};

use vmrepl_copying::Sum;
use vmrepl_wire::files::{FilesReply, Tag};
use vmrepl_wire::limits::FILES_CHUNK_BYTES;

use super::port::{Frames, expect_ok};
use crate::error::SessionError;

/// What goes to the guest.
pub(super) struct Outgoing {
    frames: Frames,
    sum: Sum,
    /// What the guest said before it had everything.
    refusal: Option<FilesReply>,
}

impl Outgoing {
    pub(super) fn new(frames: Frames) -> Self {
        Self {
            frames,
            sum: Sum::default(),
            refusal: None,
        }
    }

    /// Ends the content, or gives it up where it could not be `given`. The guest's own refusal is what is told; and what it
    /// took must be what was sent.
    pub(super) fn finish<T>(
        mut self,
        given: Result<T, SessionError>,
        target: &str,
    ) -> Result<(T, FilesReply), SessionError> {
        let failed = |source| SessionError::File {
            verb: "send",
            path: target.to_owned(),
            source,
        };
        if let Some(refusal) = self.refusal.take() {
            expect_ok(refusal, "take", target)?;
        }
        let given = given?;
        // One that refuses may not have waited for the end: what it said counts, not that it heard no more.
        self.frames.send(Tag::End, &[]).ok();
        let reply = self.frames.reply().map_err(failed)?;
        let reply = expect_ok(reply, "take", target)?;
        compare(&self.sum, &reply, target)?;
        Ok((given, reply))
    }
}

impl Write for Outgoing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let bytes = &bytes[..bytes.len().min(FILES_CHUNK_BYTES)];
        if self.frames.has_word() {
            self.refusal = Some(self.frames.reply()?);
            return Err(io::Error::other("the guest refused it"));
        }
        if let Err(error) = self.frames.send(Tag::File, bytes) {
            // Whoever closes a connection may have said why.
            self.refusal = self.frames.reply().ok();
            return Err(error);
        }
        self.sum.add(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What comes from the guest.
pub(super) struct Incoming {
    frames: Frames,
    chunk: Vec<u8>,
    /// How much of the chunk was read.
    read: usize,
    has_ended: bool,
    sum: Sum,
}

impl Incoming {
    pub(super) fn new(frames: Frames) -> Self {
        Self {
            frames,
            chunk: Vec::new(),
            read: 0,
            has_ended: false,
            sum: Sum::default(),
        }
    }

    /// The next bytes; `None` at the end.
    pub(super) fn chunk(&mut self) -> io::Result<Option<&[u8]>> {
        if self.has_ended {
            return Ok(None);
        }
        let Self {
            frames,
            chunk,
            has_ended,
            ..
        } = self;
        frames.until(|tag, payload| {
            chunk.clear();
            match tag {
                Tag::File => chunk.extend_from_slice(payload),
                Tag::End => *has_ended = true,
                tag => return Err(io::Error::other(format!("a {tag:?} frame inside a file"))),
            }
            Ok(true)
        })?;
        self.read = self.chunk.len();
        self.sum.add(&self.chunk);
        Ok((!self.has_ended).then_some(&self.chunk))
    }

    /// Takes what is left; what came must be what was sent.
    pub(super) fn finish(mut self, source: &str) -> Result<FilesReply, SessionError> {
        let failed = |error| receive(source, error);
        while self.chunk().map_err(failed)?.is_some() {}
        let reply = self.frames.reply().map_err(failed)?;
        let reply = expect_ok(reply, "give", source)?;
        compare(&self.sum, &reply, source)?;
        Ok(reply)
    }
}

impl Read for Incoming {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.read == self.chunk.len() {
            if self.chunk()?.is_none() {
                return Ok(0);
            }
            self.read = 0;
        }
        let rest = &self.chunk[self.read..];
        let count = rest.len().min(into.len());
        into[..count].copy_from_slice(&rest[..count]);
        self.read += count;
        Ok(count)
    }
}

/// A connection that broke while something came from the guest.
pub(super) fn receive(path: &str, source: io::Error) -> SessionError {
    SessionError::File {
        verb: "receive",
        path: path.to_owned(),
        source,
    }
}

fn compare(ours: &Sum, reply: &FilesReply, path: &str) -> Result<(), SessionError> {
    let theirs = reply.xxh3.as_deref().unwrap_or("no sum");
    let ours = ours.hex();
    if theirs == ours {
        return Ok(());
    }
    Err(SessionError::Damaged {
        path: path.to_owned(),
        host: ours,
        guest: theirs.to_owned(),
    })
}
