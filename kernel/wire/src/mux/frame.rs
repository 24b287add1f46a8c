//! Frames: 16 bytes of header, big-endian, then the payload.

use std::borrow::Cow;

use super::error::MuxError;
use super::event::ResetReason;
use super::kind::{HEADER_BYTES, Kind, MAGIC};
use crate::GENERATION;
use crate::limits::MUX_PAYLOAD_BYTES;

/// A header that has passed the checks which need no state.
#[derive(Debug, Clone, Copy)]
pub(super) struct Header {
    pub(super) kind: Kind,
    pub(super) epoch: u32,
    pub(super) stream: u32,
    pub(super) length_bytes: usize,
}

impl Header {
    pub(super) fn parse(bytes: &[u8; HEADER_BYTES]) -> Result<Self, MuxError> {
        let [
            m0,
            m1,
            kind,
            reserved,
            e0,
            e1,
            e2,
            e3,
            s0,
            s1,
            s2,
            s3,
            length @ ..,
        ] = *bytes;
        let magic = u16::from_be_bytes([m0, m1]);
        if magic != MAGIC {
            return Err(MuxError::Magic { magic });
        }
        let kind = Kind::from_byte(kind).ok_or(MuxError::Kind { kind })?;
        if reserved != 0 {
            return Err(MuxError::Reserved { value: reserved });
        }
        let length = u32::from_be_bytes(length);
        let length_bytes = usize::try_from(length)
            .ok()
            .filter(|length| *length <= MUX_PAYLOAD_BYTES)
            .ok_or(MuxError::TooLong {
                length_bytes: length,
            })?;
        let epoch = u32::from_be_bytes([e0, e1, e2, e3]);
        let stream = u32::from_be_bytes([s0, s1, s2, s3]);
        Ok(Self {
            kind,
            epoch,
            stream,
            length_bytes,
        })
    }

    /// The number that the payload begins with; what follows it belongs to later additions.
    pub(super) fn number(self, payload: &[u8]) -> Result<u32, MuxError> {
        let bytes = payload.first_chunk::<4>().ok_or(MuxError::Payload {
            kind: self.kind,
            length_bytes: payload.len(),
        })?;
        Ok(u32::from_be_bytes(*bytes))
    }

    pub(super) fn unexpected(self) -> MuxError {
        MuxError::Unexpected {
            kind: self.kind,
            stream: self.stream,
        }
    }
}

/// A whole frame; the payload is borrowed where it came in one piece.
pub(super) type Frame<'a> = (Header, Cow<'a, [u8]>);

/// Appends a header to `out`.
pub(super) fn encode_header(
    kind: Kind,
    epoch: u32,
    stream: u32,
    length_bytes: usize,
    out: &mut Vec<u8>,
) {
    let length = u32::try_from(length_bytes).expect("payloads are at most 64 KiB");
    out.extend_from_slice(&MAGIC.to_be_bytes());
    out.extend_from_slice(&[kind as u8, 0]);
    out.extend_from_slice(&epoch.to_be_bytes());
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(&length.to_be_bytes());
}

/// A frame without data that waits for its turn; the epoch is put in when it leaves.
#[derive(Debug, Clone, Copy)]
pub(super) struct Control {
    kind: Kind,
    stream: u32,
    number: Option<u32>,
}

impl Control {
    pub(super) const MAX_BYTES: usize = HEADER_BYTES + 4;

    pub(super) fn hello() -> Self {
        Self {
            kind: Kind::Hello,
            stream: 0,
            number: Some(GENERATION),
        }
    }

    pub(super) fn open(stream: u32, port: u32) -> Self {
        Self {
            kind: Kind::Open,
            stream,
            number: Some(port),
        }
    }

    pub(super) fn accept(stream: u32) -> Self {
        Self {
            kind: Kind::Accept,
            stream,
            number: None,
        }
    }

    pub(super) fn credit(stream: u32, bytes: u32) -> Self {
        Self {
            kind: Kind::Credit,
            stream,
            number: Some(bytes),
        }
    }

    pub(super) fn reset(stream: u32, reason: ResetReason) -> Self {
        Self {
            kind: Kind::Reset,
            stream,
            number: Some(reason.code()),
        }
    }

    /// Appends the frame to `out` and returns its length.
    pub(super) fn encode(self, epoch: u32, out: &mut Vec<u8>) -> usize {
        let before = out.len();
        let length_bytes = if self.number.is_some() { 4 } else { 0 };
        encode_header(self.kind, epoch, self.stream, length_bytes, out);
        if let Some(number) = self.number {
            out.extend_from_slice(&number.to_be_bytes());
        }
        out.len() - before
    }
}
