//! Bytes that arrive in chunks and leave from the front, each moved O(1) times on average.

/// A contiguous queue of bytes.
#[derive(Debug, Default)]
pub(crate) struct Buffer {
    bytes: Vec<u8>,
    start: usize,
}

/// An emptied buffer keeps at most this much memory.
const KEPT_BYTES: usize = 256 * 1024;

impl Buffer {
    pub(crate) fn push(&mut self, chunk: &[u8]) {
        // Moving the rest down is paid for by the bytes consumed since the last move.
        if self.start > 0 && self.start >= self.bytes.len() - self.start {
            self.bytes.copy_within(self.start.., 0);
            self.bytes.truncate(self.bytes.len() - self.start);
            self.start = 0;
        }
        self.bytes.extend_from_slice(chunk);
    }

    pub(crate) fn consume(&mut self, count: usize) {
        self.start += count;
        debug_assert!(
            self.start <= self.bytes.len(),
            "consumed more than was there"
        );
    }

    /// Gives memory back once nothing is left. Called before more is read, never while a slice of
    /// the content is lent out.
    pub(crate) fn tidy(&mut self) {
        if self.start < self.bytes.len() {
            return;
        }
        self.start = 0;
        if self.bytes.capacity() > KEPT_BYTES {
            self.bytes = Vec::new();
        } else {
            self.bytes.clear();
        }
    }

    pub(crate) fn clear(&mut self) {
        self.start = self.bytes.len();
        self.tidy();
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    /// The `count` bytes that `consume(count)` has just passed over.
    pub(crate) fn passed(&self, count: usize) -> &[u8] {
        &self.bytes[self.start - count..self.start]
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.len() - self.start
    }
}
