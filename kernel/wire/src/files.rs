//! Run, put and get on port 1024: `tag u8, length u32 big-endian, payload`, one request a connection.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::buffer::Buffer;
use crate::copying::{PutStream, PutTree, Stat, Tree};
use crate::exec::{ExecEnd, ExecSource, ExecStart, ExecUsage};
use crate::limits::FILES_PAYLOAD_BYTES;

/// Bytes before the payload.
pub const HEADER_BYTES: usize = 5;

/// The version that requests name in `v`; a request without one is taken as this.
pub const VERSION: u32 = 1;

/// What a frame holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Tag {
    /// A JSON object: a [`FilesRequest`] or a [`FilesReply`].
    Control = 1,
    /// Bytes that a command wrote to its standard output.
    Stdout = 2,
    /// Bytes that a command wrote to its standard error.
    Stderr = 3,
    /// Bytes of a file.
    File = 4,
    /// The end of a file, or of a program's input; empty.
    End = 5,
    /// Bytes for a program's input.
    Stdin = 6,
}

impl TryFrom<u8> for Tag {
    type Error = FilesFrameError;

    fn try_from(value: u8) -> Result<Self, FilesFrameError> {
        Ok(match value {
            1 => Self::Control,
            2 => Self::Stdout,
            3 => Self::Stderr,
            4 => Self::File,
            5 => Self::End,
            6 => Self::Stdin,
            tag => return Err(FilesFrameError::Tag { tag }),
        })
    }
}

/// One frame; the payload lies in the decoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// What it holds.
    pub tag: Tag,
    /// Its content.
    pub payload: &'a [u8],
}

/// Bytes that are no frame. The stream has lost step: nothing after it can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FilesFrameError {
    /// A tag that this generation does not know.
    #[error("unknown files frame tag {tag}")]
    Tag {
        /// The byte that came.
        tag: u8,
    },
    /// A payload over the limit.
    #[error("a files frame of {length_bytes} bytes is over {FILES_PAYLOAD_BYTES}")]
    TooLong {
        /// The length that the header (or the caller) gave.
        length_bytes: usize,
    },
}

/// The header for a payload of `length_bytes`, for writers that send the payload from where it is.
pub fn header(tag: Tag, length_bytes: usize) -> Result<[u8; HEADER_BYTES], FilesFrameError> {
    let too_long = FilesFrameError::TooLong { length_bytes };
    if length_bytes > FILES_PAYLOAD_BYTES {
        return Err(too_long);
    }
    let [l0, l1, l2, l3] = u32::try_from(length_bytes)
        .map_err(|_| too_long)?
        .to_be_bytes();
    Ok([tag as u8, l0, l1, l2, l3])
}

/// Appends one frame to `out`.
pub fn encode(tag: Tag, payload: &[u8], out: &mut Vec<u8>) -> Result<(), FilesFrameError> {
    out.extend_from_slice(&header(tag, payload.len())?);
    out.extend_from_slice(payload);
    Ok(())
}

/// Frames out of bytes in any chunks.
#[derive(Debug, Default)]
pub struct FilesDecoder {
    buffer: Buffer,
}

impl FilesDecoder {
    /// Adds bytes as they came.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.tidy();
        self.buffer.push(bytes);
    }

    /// The next complete frame; `None` until more bytes come. After an error the stream is lost.
    pub fn frame(&mut self) -> Result<Option<Frame<'_>>, FilesFrameError> {
        let Some((header, rest)) = self.buffer.as_slice().split_first_chunk::<HEADER_BYTES>()
        else {
            return Ok(None);
        };
        let [tag, length @ ..] = *header;
        let tag = Tag::try_from(tag)?;
        let length_bytes = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
        if length_bytes > FILES_PAYLOAD_BYTES {
            return Err(FilesFrameError::TooLong { length_bytes });
        }
        if rest.len() < length_bytes {
            return Ok(None);
        }
        self.buffer.consume(HEADER_BYTES + length_bytes);
        Ok(Some(Frame {
            tag,
            payload: self.buffer.passed(length_bytes),
        }))
    }

    /// Whether no bytes of an unfinished frame are held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.buffer.len() == 0
    }
}

/// The first frame of a connection.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FilesRequest {
    /// The protocol version; absent means [`VERSION`].
    #[serde(default = "version")]
    pub v: u32,
    /// What to do.
    #[serde(flatten)]
    pub op: FilesOp,
}

impl From<FilesOp> for FilesRequest {
    fn from(op: FilesOp) -> Self {
        Self { v: VERSION, op }
    }
}

fn version() -> u32 {
    VERSION
}

/// What a connection to the files port asks for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum FilesOp {
    /// Are you there?
    Ping,
    /// Runs a command; its output comes as frames.
    Run {
        /// The command line.
        cmd: String,
        /// Which shell takes it.
        #[serde(default)]
        shell: Shell,
        /// Wall time, in seconds.
        #[serde(default)]
        timeout: Option<f64>,
        /// Added to the environment.
        #[serde(default)]
        env: BTreeMap<String, String>,
    },
    /// Takes a file; exactly `size` bytes follow.
    PutFile {
        /// Where it goes; a folder takes the file under the base name of `name`.
        path: String,
        /// The name at the sender.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
        /// Permission bits.
        #[serde(default)]
        mode: Option<u32>,
        /// Bytes that follow.
        size: u64,
    },
    /// Runs a program with input, or on a terminal; see [`exec`](crate::exec).
    Exec(ExecStart),
    /// Compiles and runs a program that comes as its source.
    ExecSource(ExecSource),
    /// Gives a file.
    GetFile {
        /// Where it is.
        path: String,
    },
    /// Takes a file of unknown length; see [`copying`](crate::copying).
    PutStream(PutStream),
    /// Gives a file, with its time and a checksum behind it.
    GetStream {
        /// Where it is.
        path: String,
    },
    /// Takes a folder as a tar stream.
    PutTree(PutTree),
    /// Gives a folder as a tar stream.
    GetTree {
        /// Where it is.
        path: String,
    },
    /// Tells what stands at a path.
    Stat {
        /// Where to look.
        path: String,
        /// Where the path is a link, what it leads to is told.
        #[serde(default)]
        follow: bool,
    },
}

impl FilesOp {
    /// The operation by its name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Ping => "ping",
            Self::Run { .. } => "run",
            Self::PutFile { .. } => "put_file",
            Self::Exec(_) => "exec",
            Self::ExecSource(_) => "exec_source",
            Self::GetFile { .. } => "get_file",
            Self::PutStream(_) => "put_stream",
            Self::GetStream { .. } => "get_stream",
            Self::PutTree(_) => "put_tree",
            Self::GetTree { .. } => "get_tree",
            Self::Stat { .. } => "stat",
        }
    }
}

/// How [`FilesOp::Run`] reads its command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Shell {
    /// `$SHELL -lc`.
    #[default]
    Login,
    /// `/bin/sh -c`.
    Raw,
}

/// The JSON object that answers or ends a request; which fields are set depends on the operation.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct FilesReply {
    /// Whether it was done.
    pub ok: bool,
    /// What is answered: `pong`, `exit`, `timeout`, `error`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub op: Option<String>,
    /// What went wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The command's own code, or minus the number of the signal that ended it; of `exec` the shell's number for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// The wall time that ran out, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<f64>,
    /// Permission bits of the file that follows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<u32>,
    /// Bytes of the file that follows, of the files of the folder that follows, or of the content that came or went.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// The agent's version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_version: Option<String>,
    /// The protocol's version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proto: Option<u32>,
    /// Why the program of `exec` ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<ExecEnd>,
    /// What the program of `exec` took.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<ExecUsage>,
    /// When the file that follows was changed, in nanoseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtime_ns: Option<i64>,
    /// XXH3 (64 bits, seed 0) of the content that came or went: 16 hexadecimal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub xxh3: Option<String>,
    /// What the folder that came or went held.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tree: Option<Tree>,
    /// What stands at the path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stat: Option<Stat>,
}
