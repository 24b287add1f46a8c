//! The content of a request or an answer: file frames up to the end, and their sum.

use std::io::{self, Read, Write};

use vmrepl_copying::Sum;
use vmrepl_wire::files::{FilesReply, Tag};
use vmrepl_wire::limits::FILES_CHUNK_BYTES;

use super::connection::Connection;
use super::failure;
use crate::exec::Hangup;

/// Why a content was not taken.
#[derive(Debug)]
pub(super) enum Fault {
    /// There is nobody to tell.
    Hangup,
    /// What the peer is told.
    Told(String),
}

impl From<Hangup> for Fault {
    fn from(Hangup: Hangup) -> Self {
        Self::Hangup
    }
}

/// What comes.
#[derive(Debug)]
pub(super) struct Incoming<'a> {
    connection: &'a mut Connection,
    chunk: Vec<u8>,
    /// How much of the chunk was read.
    read: usize,
    has_ended: bool,
    is_broken: bool,
    sum: Sum,
}

impl<'a> Incoming<'a> {
    pub(super) fn new(connection: &'a mut Connection) -> Self {
        Self {
            connection,
            chunk: Vec::new(),
            read: 0,
            has_ended: false,
            is_broken: false,
            sum: Sum::default(),
        }
    }

    /// The next bytes; `None` at the end.
    pub(super) fn chunk(&mut self) -> Result<Option<&[u8]>, Hangup> {
        if self.has_ended {
            return Ok(None);
        }
        match self.connection.frame() {
            Ok(Some((Tag::File, bytes))) => {
                self.sum.add(&bytes);
                self.chunk = bytes;
                self.read = self.chunk.len();
                Ok(Some(&self.chunk))
            }
            Ok(Some((Tag::End, _))) => {
                self.has_ended = true;
                Ok(None)
            }
            _ => {
                self.is_broken = true;
                Err(Hangup)
            }
        }
    }

    /// Takes what is left, and says length and sum of it all.
    pub(super) fn finish(&mut self) -> Result<FilesReply, Hangup> {
        while self.chunk()?.is_some() {}
        Ok(summed(&self.sum))
    }

    /// Whether the peer has gone: its silence is then why anything failed.
    pub(super) fn is_broken(&self) -> bool {
        self.is_broken
    }

    /// Says how it went. A refusal is said at once, so that who listens need not send the rest; who does not may.
    pub(super) fn answer(mut self, done: Result<FilesReply, Fault>) -> Result<(), Hangup> {
        match done {
            Ok(reply) => self.connection.reply(&reply),
            Err(Fault::Hangup) => Err(Hangup),
            Err(Fault::Told(error)) => {
                self.connection.reply(&failure(error))?;
                self.finish().map(drop)
            }
        }
    }
}

impl Read for Incoming<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.read == self.chunk.len() {
            match self.chunk() {
                Ok(Some(_)) => self.read = 0,
                Ok(None) => return Ok(0),
                Err(Hangup) => return Err(io::ErrorKind::ConnectionAborted.into()),
            }
        }
        let rest = &self.chunk[self.read..];
        let count = rest.len().min(into.len());
        into[..count].copy_from_slice(&rest[..count]);
        self.read += count;
        Ok(count)
    }
}

/// What goes.
#[derive(Debug)]
pub(super) struct Outgoing<'a> {
    connection: &'a mut Connection,
    is_broken: bool,
    sum: Sum,
}

impl<'a> Outgoing<'a> {
    pub(super) fn new(connection: &'a mut Connection) -> Self {
        Self {
            connection,
            is_broken: false,
            sum: Sum::default(),
        }
    }

    /// Whether the peer has gone.
    pub(super) fn is_broken(&self) -> bool {
        self.is_broken
    }

    /// Ends the content and says how it went: with its length and sum, or why there is no more.
    pub(super) fn finish(self, done: Result<FilesReply, String>) -> Result<(), Hangup> {
        self.connection.send(Tag::End, &[])?;
        let reply = match done {
            Ok(reply) => FilesReply {
                tree: reply.tree,
                ..summed(&self.sum)
            },
            Err(error) => failure(error),
        };
        self.connection.reply(&reply)
    }
}

impl Write for Outgoing<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let bytes = &bytes[..bytes.len().min(FILES_CHUNK_BYTES)];
        if self.connection.send(Tag::File, bytes).is_err() {
            self.is_broken = true;
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        self.sum.add(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn summed(sum: &Sum) -> FilesReply {
    FilesReply {
        ok: true,
        size: Some(sum.bytes()),
        xxh3: Some(sum.hex()),
        ..FilesReply::default()
    }
}
