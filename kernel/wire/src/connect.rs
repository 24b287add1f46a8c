//! The handshake on a machine's Unix socket: `CONNECT <port>\n`, answered `OK <n>\n`, then raw bytes.
//!
//! The parsers stop at the newline and tell how many bytes they used, so that what a client sent
//! behind its line is not lost.

use crate::limits::CONNECT_LINE_BYTES;

/// Why a handshake line was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// No newline within the limit.
    #[error("the handshake line is longer than {CONNECT_LINE_BYTES} bytes")]
    TooLong,
    /// A line, but not the one expected here.
    #[error("expected `{expected} <number>`, got `{got}`")]
    Malformed {
        /// The word that must come first.
        expected: &'static str,
        /// The line, made printable.
        got: String,
    },
}

/// The line that asks for a guest's port.
#[must_use]
pub fn request(port: u32) -> String {
    format!("CONNECT {port}\n")
}

/// The line that says the guest has accepted.
#[must_use]
pub fn accepted(number: u32) -> String {
    format!("OK {number}\n")
}

/// A line that has come to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Handshake {
    /// The number in the line: a port in a request, any number in an answer.
    pub number: u32,
    /// How many of the bytes pushed last belong to the line; the rest is payload.
    pub used_bytes: usize,
}

/// Reads one handshake line from bytes in any chunks.
#[derive(Debug)]
pub struct HandshakeParser {
    word: &'static str,
    line: [u8; CONNECT_LINE_BYTES],
    filled: usize,
}

impl HandshakeParser {
    /// Reads `CONNECT <port>\n`: the listening side.
    #[must_use]
    pub fn request() -> Self {
        Self {
            word: "CONNECT",
            line: [0; CONNECT_LINE_BYTES],
            filled: 0,
        }
    }

    /// Reads `OK <n>\n`: the connecting side.
    #[must_use]
    pub fn answer() -> Self {
        Self {
            word: "OK",
            line: [0; CONNECT_LINE_BYTES],
            filled: 0,
        }
    }

    /// Whether no byte has come yet: a peer that leaves now was only looking.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.filled == 0
    }

    /// Takes bytes up to the newline; `None` while the line has no end.
    pub fn push(&mut self, bytes: &[u8]) -> Result<Option<Handshake>, ConnectError> {
        for (index, byte) in bytes.iter().enumerate() {
            if self.filled == CONNECT_LINE_BYTES {
                return Err(ConnectError::TooLong);
            }
            self.line[self.filled] = *byte;
            self.filled += 1;
            if *byte == b'\n' {
                let number = self.number()?;
                return Ok(Some(Handshake {
                    number,
                    used_bytes: index + 1,
                }));
            }
        }
        Ok(None)
    }

    fn number(&self) -> Result<u32, ConnectError> {
        let line = self.line[..self.filled].trim_ascii_end();
        std::str::from_utf8(line)
            .ok()
            .and_then(|text| text.strip_prefix(self.word)?.strip_prefix(' '))
            .filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))
            .and_then(|digits| digits.parse().ok())
            .ok_or_else(|| ConnectError::Malformed {
                expected: self.word,
                got: line.escape_ascii().to_string(),
            })
    }
}
