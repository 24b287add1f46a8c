//! Ids of snapshots: 128 random bits, written as 32 hexadecimal digits.

use std::fmt;
use std::str::FromStr;

/// The id of one snapshot.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SnapshotId([u8; 16]);

/// A text that is not the id of a snapshot.
#[derive(Debug, thiserror::Error)]
#[error("{text:?} is not a snapshot id (32 lower-case hexadecimal digits)")]
pub struct IdError {
    text: String,
}

impl SnapshotId {
    /// The 16 bytes, as the format stores them.
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// The id of these bytes, which come from [`Self::as_bytes`].
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Whether these are the bytes that the format stores for "no snapshot".
    pub(crate) fn is_nil(&self) -> bool {
        self.0 == [0; 16]
    }
}

impl fmt::Display for SnapshotId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(out, "{byte:02x}"))
    }
}

impl fmt::Debug for SnapshotId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "SnapshotId({self})")
    }
}

impl FromStr for SnapshotId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let refused = || IdError {
            text: text.chars().take(64).collect(),
        };
        let digits = text.as_bytes();
        if digits.len() != 32 {
            return Err(refused());
        }
        let mut bytes = [0; 16];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            let (Some(high), Some(low)) = (digit(pair[0]), digit(pair[1])) else {
                return Err(refused());
            };
            *byte = high << 4 | low;
        }
        Ok(Self(bytes))
    }
}

fn digit(character: u8) -> Option<u8> {
    match character {
        b'0'..=b'9' => Some(character - b'0'),
        b'a'..=b'f' => Some(character - b'a' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_and_read_back() {
        let id = SnapshotId::from_bytes(*b"\x00\x01\xfe\xff0123456789ab");
        assert_eq!(id.to_string().len(), 32);
        assert_eq!(id.to_string().parse::<SnapshotId>().unwrap(), id);
    }

    #[test]
    fn only_one_spelling() {
        for text in [
            "",
            "00",
            "AA0102030405060708090a0b0c0d0e0f",
            "000102030405060708090a0b0c0d0e0g",
            "000102030405060708090a0b0c0d0e0f0",
        ] {
            assert!(text.parse::<SnapshotId>().is_err(), "{text}");
        }
    }
}
