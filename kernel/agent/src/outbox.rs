//! Bytes on their way out.

use std::os::fd::AsFd;

use rustix::io::Errno;

/// An emptied outbox keeps at most this much memory, in bytes.
const KEPT_BYTES: usize = 128 * 1024;

/// A queue of bytes, contiguous, so that one write takes all it can.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    bytes: Vec<u8>,
    start: usize,
}

/// The descriptor can never take bytes again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Broken(pub(crate) Errno);

impl Outbox {
    pub(crate) fn len(&self) -> usize {
        self.bytes.len() - self.start
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.buffer().extend_from_slice(bytes);
    }

    /// The vector to append to, for writers that make their bytes in place.
    pub(crate) fn buffer(&mut self) -> &mut Vec<u8> {
        // Moving the rest down is paid for by the bytes that have gone since the last move.
        if self.start > 0 && self.start >= self.len() {
            self.bytes.copy_within(self.start.., 0);
            self.bytes.truncate(self.bytes.len() - self.start);
            self.start = 0;
        }
        &mut self.bytes
    }

    pub(crate) fn consume(&mut self, count: usize) {
        self.start += count;
        if self.is_empty() {
            self.clear();
        }
    }

    pub(crate) fn clear(&mut self) {
        self.start = 0;
        if self.bytes.capacity() > KEPT_BYTES {
            self.bytes = Vec::new();
        } else {
            self.bytes.clear();
        }
    }

    /// Writes until all is gone (true) or the descriptor would block (false).
    pub(crate) fn write_to(&mut self, target: impl AsFd) -> Result<bool, Broken> {
        while !self.is_empty() {
            match rustix::io::write(&target, self.as_slice()) {
                Ok(count) => self.consume(count),
                Err(Errno::AGAIN) => return Ok(false),
                Err(Errno::INTR) => {}
                Err(error) => return Err(Broken(error)),
            }
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_leave_in_order_and_memory_is_given_back() {
        let mut outbox = Outbox::default();
        let sent: Vec<u8> = (0..=255).cycle().take(1_000_000).collect();
        let mut seen = Vec::new();
        for (round, chunk) in sent.chunks(997).enumerate() {
            outbox.push(chunk);
            let take = (round * 37 % 1500).min(outbox.len());
            seen.extend_from_slice(&outbox.as_slice()[..take]);
            outbox.consume(take);
        }
        seen.extend_from_slice(outbox.as_slice());
        outbox.consume(outbox.len());
        assert_eq!(seen, sent);
        assert!(outbox.bytes.capacity() <= KEPT_BYTES);
    }
}
