//! Frames: a length and so many bytes of JSON.

use crate::buffer::Buffer;
use crate::limits::LANGUAGES_PAYLOAD_BYTES;

/// Bytes before the payload.
pub const HEADER_BYTES: usize = 4;

/// Bytes that are no frame. The stream has lost step: nothing after it can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LanguagesFrameError {
    /// A payload over the limit.
    #[error("a message of {length_bytes} bytes is over {LANGUAGES_PAYLOAD_BYTES}")]
    TooLong {
        /// The length that the header (or the caller) gave.
        length_bytes: usize,
    },
}

/// The header for a payload of `length_bytes`, for writers that send the payload from where it is.
pub fn header(length_bytes: usize) -> Result<[u8; HEADER_BYTES], LanguagesFrameError> {
    let too_long = LanguagesFrameError::TooLong { length_bytes };
    if length_bytes > LANGUAGES_PAYLOAD_BYTES {
        return Err(too_long);
    }
    let length = u32::try_from(length_bytes).map_err(|_| too_long)?;
    Ok(length.to_be_bytes())
}

/// Appends one frame to `out`.
pub fn encode(payload: &[u8], out: &mut Vec<u8>) -> Result<(), LanguagesFrameError> {
    out.extend_from_slice(&header(payload.len())?);
    out.extend_from_slice(payload);
    Ok(())
}

/// Messages out of bytes in any chunks.
#[derive(Debug, Default)]
pub struct LanguagesDecoder {
    buffer: Buffer,
}

impl LanguagesDecoder {
    /// Adds bytes as they came.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.tidy();
        self.buffer.push(bytes);
    }

    /// The next complete payload; `None` until more bytes come. After an error the stream is lost.
    pub fn frame(&mut self) -> Result<Option<&[u8]>, LanguagesFrameError> {
        let Some((header, rest)) = self.buffer.as_slice().split_first_chunk::<HEADER_BYTES>()
        else {
            return Ok(None);
        };
        let length_bytes = usize::try_from(u32::from_be_bytes(*header)).unwrap_or(usize::MAX);
        if length_bytes > LANGUAGES_PAYLOAD_BYTES {
            return Err(LanguagesFrameError::TooLong { length_bytes });
        }
        if rest.len() < length_bytes {
            return Ok(None);
        }
        self.buffer.consume(HEADER_BYTES + length_bytes);
        Ok(Some(self.buffer.passed(length_bytes)))
    }

    /// Whether no bytes of an unfinished frame are held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.buffer.len() == 0
    }
}
