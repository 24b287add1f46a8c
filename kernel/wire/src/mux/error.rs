//! How a channel breaks.

use super::kind::{Kind, MAGIC};
use crate::GENERATION;
use crate::limits::{MUX_CONTROL_BACKLOG, MUX_PAYLOAD_BYTES, MUX_STREAMS};

/// The channel has lost step, or the peer breaks the rules: nothing more can be said on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MuxError {
    /// Bytes where a header should be.
    #[error("a frame starts with {magic:#06x} instead of {MAGIC:#06x}")]
    Magic {
        /// The two bytes that came.
        magic: u16,
    },
    /// A kind that this generation does not know.
    #[error("unknown frame kind {kind}")]
    Kind {
        /// The byte that came.
        kind: u8,
    },
    /// The reserved byte is not zero.
    #[error("the reserved byte of a frame is {value}")]
    Reserved {
        /// The byte that came.
        value: u8,
    },
    /// A payload over the limit.
    #[error("a frame of {length_bytes} bytes is over {}", MUX_PAYLOAD_BYTES)]
    TooLong {
        /// The length in the header.
        length_bytes: u32,
    },
    /// A payload too short for its kind.
    #[error("a {kind:?} frame with a payload of {length_bytes} bytes")]
    Payload {
        /// The frame's kind.
        kind: Kind,
        /// Its payload's length.
        length_bytes: usize,
    },
    /// A frame that the stream's state does not allow, or for a stream that never was.
    #[error("unexpected {kind:?} frame on stream {stream}")]
    Unexpected {
        /// The frame's kind.
        kind: Kind,
        /// The stream that it names.
        stream: u32,
    },
    /// More data than was granted.
    #[error("{length_bytes} bytes on stream {stream} with a credit of {credit_bytes}")]
    Credit {
        /// The stream.
        stream: u32,
        /// What came.
        length_bytes: usize,
        /// What was allowed.
        credit_bytes: usize,
    },
    /// A grant of nothing, or beyond the window.
    #[error("a grant of {granted_bytes} bytes on stream {stream}")]
    Grant {
        /// The stream.
        stream: u32,
        /// What was granted.
        granted_bytes: u32,
    },
    /// The peer speaks another generation of this protocol.
    #[error(
        "the peer speaks generation {theirs} of the protocol, this end {}",
        GENERATION
    )]
    Generation {
        /// What the peer said.
        theirs: u32,
    },
    /// All streams are in use.
    #[error("{} streams are open already", MUX_STREAMS)]
    TooManyStreams,
    /// The peer takes nothing while it makes us answer.
    #[error(
        "the channel takes nothing: {} control frames wait",
        MUX_CONTROL_BACKLOG
    )]
    Backlog,
}
