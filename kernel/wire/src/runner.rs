//! Frames between the agent and the runner on their private socket pair.
//!
//! `kind u8, connection u32, length u32, payload`, numbers big-endian. The connection is the agent's
//! number for a client of port 10000; 0 stands for none.

use crate::buffer::Buffer;
use crate::limits::RUNNER_PAYLOAD_BYTES;

/// Bytes before the payload.
pub const HEADER_BYTES: usize = 9;

/// What a frame says. 1 to 15 go to the runner, 16 and up come from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// To the runner: a request line, as the client sent it.
    Request = 1,
    /// To the runner: the client of this connection went away.
    Closed = 2,
    /// To the runner: the machine was resumed; JSON `{"generation","rng"}`.
    Resumed = 3,
    /// To the runner: end.
    Exit = 4,
    /// To the runner: the last answer's output is out of the pipes.
    Taken = 5,
    /// To the runner: SIGINT was sent to it; JSON `{"cell","sent_ns"}`, the time by `CLOCK_MONOTONIC`. A
    /// signal that arrives just before a system call that waits is not noticed until the call ends; the
    /// runner sends itself another until the first one was heard.
    Signalled = 6,
    /// To the runner: its cell went over a limit and is to stop; JSON `{"cell","status","message"}`.
    Exceeded = 7,
    /// From the runner: warm and waiting; JSON `{"python"}`.
    Ready = 16,
    /// From the runner: one complete line for the client, newline included.
    Line = 17,
    /// From the runner: a cell's code is about to start; JSON.
    Started = 18,
    /// From the runner: a cell has ended; prefix and suffix of its answer, see [`split_done`].
    Done = 19,
    /// From the runner: generators reseeded; JSON `{"generation"}`.
    ResumedAck = 20,
    /// From the runner: a request that will be answered was read; JSON `{"id","op"}`.
    Received = 21,
}

impl TryFrom<u8> for Kind {
    type Error = RunnerFrameError;

    fn try_from(value: u8) -> Result<Self, RunnerFrameError> {
        Ok(match value {
            1 => Self::Request,
            2 => Self::Closed,
            3 => Self::Resumed,
            4 => Self::Exit,
            5 => Self::Taken,
            6 => Self::Signalled,
            7 => Self::Exceeded,
            16 => Self::Ready,
            17 => Self::Line,
            18 => Self::Started,
            19 => Self::Done,
            20 => Self::ResumedAck,
            21 => Self::Received,
            kind => return Err(RunnerFrameError::Kind { kind }),
        })
    }
}

/// One frame; the payload lies in the decoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// What it says.
    pub kind: Kind,
    /// The client it is about; 0 for none.
    pub connection: u32,
    /// Its content.
    pub payload: &'a [u8],
}

/// Bytes that are no frame. The stream has lost step: nothing after it can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RunnerFrameError {
    /// A kind that this generation does not know.
    #[error("unknown runner frame kind {kind}")]
    Kind {
        /// The byte that came.
        kind: u8,
    },
    /// A payload over the limit.
    #[error("a runner frame of {length_bytes} bytes is over {RUNNER_PAYLOAD_BYTES}")]
    TooLong {
        /// The length that the header (or the caller) gave.
        length_bytes: usize,
    },
    /// A DONE whose lengths do not fit.
    #[error("a done frame of {length_bytes} bytes cannot be split into prefix and suffix")]
    Done {
        /// The payload's length.
        length_bytes: usize,
    },
}

/// The header for a payload of `length_bytes`, for writers that send the payload from where it is.
pub fn header(
    kind: Kind,
    connection: u32,
    length_bytes: usize,
) -> Result<[u8; HEADER_BYTES], RunnerFrameError> {
    let too_long = RunnerFrameError::TooLong { length_bytes };
    if length_bytes > RUNNER_PAYLOAD_BYTES {
        return Err(too_long);
    }
    let length = u32::try_from(length_bytes).map_err(|_| too_long)?;
    let mut header = [0; HEADER_BYTES];
    header[0] = kind as u8;
    header[1..5].copy_from_slice(&connection.to_be_bytes());
    header[5..].copy_from_slice(&length.to_be_bytes());
    Ok(header)
}

/// Appends one frame to `out`.
pub fn encode(
    kind: Kind,
    connection: u32,
    payload: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), RunnerFrameError> {
    out.extend_from_slice(&header(kind, connection, payload.len())?);
    out.extend_from_slice(payload);
    Ok(())
}

/// Splits the payload of a [`Kind::Done`] into the answer's text before and after the output fields.
pub fn split_done(payload: &[u8]) -> Result<(&[u8], &[u8]), RunnerFrameError> {
    let error = RunnerFrameError::Done {
        length_bytes: payload.len(),
    };
    let (length, rest) = payload.split_first_chunk::<4>().ok_or(error)?;
    let length = usize::try_from(u32::from_be_bytes(*length)).map_err(|_| error)?;
    rest.split_at_checked(length).ok_or(error)
}

/// Frames out of bytes in any chunks.
#[derive(Debug, Default)]
pub struct RunnerDecoder {
    buffer: Buffer,
}

impl RunnerDecoder {
    /// Adds bytes as they came.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.tidy();
        self.buffer.push(bytes);
    }

    /// The next complete frame; `None` until more bytes come. After an error the stream is lost.
    pub fn frame(&mut self) -> Result<Option<Frame<'_>>, RunnerFrameError> {
        let Some((header, rest)) = self.buffer.as_slice().split_first_chunk::<HEADER_BYTES>()
        else {
            return Ok(None);
        };
        let [kind, c0, c1, c2, c3, length @ ..] = *header;
        let kind = Kind::try_from(kind)?;
        let connection = u32::from_be_bytes([c0, c1, c2, c3]);
        let length_bytes = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
        if length_bytes > RUNNER_PAYLOAD_BYTES {
            return Err(RunnerFrameError::TooLong { length_bytes });
        }
        if rest.len() < length_bytes {
            return Ok(None);
        }
        self.buffer.consume(HEADER_BYTES + length_bytes);
        Ok(Some(Frame {
            kind,
            connection,
            payload: self.buffer.passed(length_bytes),
        }))
    }

    /// Whether no bytes of an unfinished frame are held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.buffer.len() == 0
    }
}
