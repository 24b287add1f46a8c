//! What the state machine and its application say to each other.

use std::fmt;

/// Which end of the channel this is. The host opens streams with even numbers, the guest with odd
/// ones, so the two never meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Begins each epoch.
    Host,
    /// Waits for an epoch to begin.
    Guest,
}

/// Names a stream within one epoch; never given out twice in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub(super) u32);

impl StreamId {
    /// The number in the frames.
    #[must_use]
    pub fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// Why a stream was cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ResetReason {
    /// Nobody listens on the port.
    Refused,
    /// An end gave the stream up.
    Closed,
    /// Too many streams are open.
    Busy,
    /// A reason of a later generation.
    Other(u32),
}

impl ResetReason {
    pub(super) fn code(self) -> u32 {
        match self {
            Self::Refused => 1,
            Self::Closed => 2,
            Self::Busy => 3,
            Self::Other(code) => code,
        }
    }

    pub(super) fn from_code(code: u32) -> Self {
        match code {
            1 => Self::Refused,
            2 => Self::Closed,
            3 => Self::Busy,
            code => Self::Other(code),
        }
    }
}

/// What came in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MuxEvent {
    /// A new epoch began (guest) or was confirmed (host). On the guest every stream of the epoch
    /// before is gone without further notice.
    Epoch {
        /// The epoch from here on.
        epoch: u32,
    },
    /// The peer opens a stream; answer with [`accept`](super::Mux::accept) or
    /// [`refuse`](super::Mux::refuse).
    Opened {
        /// The new stream.
        id: StreamId,
        /// The port that the peer wants.
        port: u32,
    },
    /// The peer took the stream that we opened.
    Accepted {
        /// The stream.
        id: StreamId,
    },
    /// Bytes of a stream, in order. Call [`consumed`](super::Mux::consumed) when they have gone on.
    Data {
        /// The stream.
        id: StreamId,
        /// The bytes; never empty.
        bytes: Vec<u8>,
    },
    /// The peer granted credit: [`send_room`](super::Mux::send_room) has grown.
    Writable {
        /// The stream.
        id: StreamId,
    },
    /// The peer sends no more on this stream; it may still receive.
    Finished {
        /// The stream.
        id: StreamId,
    },
    /// The peer cut the stream off, both ways.
    Reset {
        /// The stream.
        id: StreamId,
        /// Why.
        reason: ResetReason,
    },
}

impl MuxEvent {
    /// The stream that the event is about.
    #[must_use]
    pub fn stream(&self) -> Option<StreamId> {
        match *self {
            Self::Epoch { .. } => None,
            Self::Opened { id, .. }
            | Self::Accepted { id }
            | Self::Data { id, .. }
            | Self::Writable { id }
            | Self::Finished { id }
            | Self::Reset { id, .. } => Some(id),
        }
    }
}
