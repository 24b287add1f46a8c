//! Lines of JSON: messages into lines, and lines out of chunks of bytes.

use serde::Serialize;

use crate::buffer::Buffer;
use crate::limits;

/// Splits bytes into lines and bounds what one line may cost.
///
/// Feed it with [`push`](Self::push), then take lines until there is none. A line longer than the
/// limit gives one [`TooLong`] as soon as it is known to be, and is then dropped up to its newline.
#[derive(Debug)]
pub struct LineDecoder {
    buffer: Buffer,
    /// How much of the buffer holds no newline for certain.
    scanned: usize,
    limit_bytes: usize,
    /// Inside an over-long line that was already reported.
    skipping: bool,
}

/// A line was longer than the limit; its bytes were dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a line is longer than {limit_bytes} bytes")]
pub struct TooLong {
    /// The limit that the line passed, in bytes.
    pub limit_bytes: usize,
}

impl Default for LineDecoder {
    fn default() -> Self {
        Self::new(limits::LINE_BYTES)
    }
}

impl LineDecoder {
    /// A decoder for lines of at most `limit_bytes`, newline not counted.
    #[must_use]
    pub fn new(limit_bytes: usize) -> Self {
        Self {
            buffer: Buffer::default(),
            scanned: 0,
            limit_bytes,
            skipping: false,
        }
    }

    /// Adds bytes as they came.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.tidy();
        self.buffer.push(bytes);
    }

    /// The next complete line without its `\n` or `\r\n`; `None` until more bytes come.
    pub fn line(&mut self) -> Option<Result<&[u8], TooLong>> {
        loop {
            let unscanned = &self.buffer.as_slice()[self.scanned..];
            let Some(at) = memchr::memchr(b'\n', unscanned) else {
                self.scanned = self.buffer.len();
                return self.unfinished();
            };
            let length = self.scanned + at;
            self.buffer.consume(length + 1);
            self.scanned = 0;
            if std::mem::take(&mut self.skipping) {
                continue;
            }
            if length > self.limit_bytes {
                return Some(Err(self.too_long()));
            }
            let line = self.buffer.passed(length + 1);
            let line = &line[..length];
            return Some(Ok(line.strip_suffix(b"\r").unwrap_or(line)));
        }
    }

    /// What stands in the buffer holds no newline.
    fn unfinished(&mut self) -> Option<Result<&[u8], TooLong>> {
        let over = self.buffer.len() > self.limit_bytes;
        if !self.skipping && !over {
            return None;
        }
        self.buffer.clear();
        self.scanned = 0;
        if std::mem::replace(&mut self.skipping, true) {
            return None;
        }
        Some(Err(self.too_long()))
    }

    /// The bytes after the last newline, when the peer has ended the stream without one. Call it
    /// after [`line`](Self::line) has given `None`.
    pub fn rest(&mut self) -> Option<&[u8]> {
        let length = self.buffer.len();
        if self.skipping || length == 0 {
            return None;
        }
        self.buffer.consume(length);
        self.scanned = 0;
        let rest = self.buffer.passed(length);
        Some(rest.strip_suffix(b"\r").unwrap_or(rest))
    }

    /// Whether no bytes of an unfinished line are held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.buffer.len() == 0 && !self.skipping
    }

    fn too_long(&self) -> TooLong {
        TooLong {
            limit_bytes: self.limit_bytes,
        }
    }
}

/// One message as a line, newline included.
#[must_use]
pub fn to_line<T: Serialize>(message: &T) -> Vec<u8> {
    let mut line = serde_json::to_vec(message)
        .expect("messages of this crate hold only text keys and plain values");
    line.push(b'\n');
    line
}
