//! The checksum that both ends of a copy compare: XXH3, 64 bits, seed 0 (<https://xxhash.com>).

use std::hash::Hasher as _;
use std::io::{self, Read, Write};

use twox_hash::XxHash3_64;

/// The checksum of the bytes so far. It tells damage, not malice.
#[derive(Clone)]
pub struct Sum {
    hasher: XxHash3_64,
    bytes: u64,
}

impl std::fmt::Debug for Sum {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Sum({} of {} bytes)", self.hex(), self.bytes)
    }
}

impl Default for Sum {
    fn default() -> Self {
        Self {
            hasher: XxHash3_64::new(),
            bytes: 0,
        }
    }
}

impl Sum {
    /// Takes further bytes.
    pub fn add(&mut self, bytes: &[u8]) {
        self.hasher.write(bytes);
        self.bytes += bytes.len() as u64;
    }

    /// How many bytes there were.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The sum as 16 hexadecimal digits.
    #[must_use]
    pub fn hex(&self) -> String {
        format!("{:016x}", self.hasher.finish())
    }
}

/// A stream whose bytes are summed up as they pass.
#[derive(Debug)]
pub struct Summed<T> {
    /// The stream.
    pub inner: T,
    /// Of what has passed.
    pub sum: Sum,
}

impl<T> Summed<T> {
    /// Begins at nothing.
    pub fn new(inner: T) -> Self {
        Self {
            inner,
            sum: Sum::default(),
        }
    }
}

impl<T: Read> Read for Summed<T> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(into)?;
        self.sum.add(&into[..count]);
        Ok(count)
    }
}

impl<T: Write> Write for Summed<T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(bytes)?;
        self.sum.add(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_is_that_of_the_reference() {
        assert_eq!(Sum::default().hex(), "2d06800538d394c2");
        let mut sum = Sum::default();
        sum.add(b"a");
        sum.add(b"bc");
        assert_eq!((sum.hex().as_str(), sum.bytes()), ("78af5f94892f3950", 3));
    }
}
