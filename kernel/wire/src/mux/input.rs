//! Frames out of bytes in any chunks.

use std::borrow::Cow;

use super::error::MuxError;
use super::frame::{Frame, Header};
use super::kind::HEADER_BYTES;

/// Holds the part of a frame that has come so far.
#[derive(Debug, Default)]
pub(super) struct Input {
    header: [u8; HEADER_BYTES],
    filled: usize,
    parsed: Option<Header>,
    payload: Vec<u8>,
}

impl Input {
    /// Moves `bytes` on past one frame; `None` when they end before it does. A payload that lies
    /// whole in `bytes` is not copied.
    pub(super) fn next<'a>(&mut self, bytes: &mut &'a [u8]) -> Result<Option<Frame<'a>>, MuxError> {
        let header = match self.parsed {
            Some(header) => header,
            None => {
                let part = split(bytes, HEADER_BYTES - self.filled);
                self.header[self.filled..self.filled + part.len()].copy_from_slice(part);
                self.filled += part.len();
                if self.filled < HEADER_BYTES {
                    return Ok(None);
                }
                *self.parsed.insert(Header::parse(&self.header)?)
            }
        };
        let part = split(bytes, header.length_bytes - self.payload.len());
        let payload = if part.len() == header.length_bytes {
            Cow::Borrowed(part)
        } else {
            self.payload.extend_from_slice(part);
            if self.payload.len() < header.length_bytes {
                return Ok(None);
            }
            Cow::Owned(std::mem::take(&mut self.payload))
        };
        self.parsed = None;
        self.filled = 0;
        Ok(Some((header, payload)))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.filled == 0
    }
}

/// Takes at most `count` bytes from the front.
fn split<'a>(bytes: &mut &'a [u8], count: usize) -> &'a [u8] {
    let (part, rest) = bytes.split_at(count.min(bytes.len()));
    *bytes = rest;
    part
}
