//! A file whose zero blocks take no room.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt as _;

use crate::limits::BLOCK_BYTES;

/// Writes a new, empty file from its beginning; aligned blocks of zeros become holes. In a guest, whose files are memory,
/// that is what a sparse file saves.
#[derive(Debug)]
pub struct HoleWriter {
    file: File,
    /// Where the next block goes.
    position: u64,
    /// Less than a block.
    rest: Vec<u8>,
}

impl HoleWriter {
    /// Takes a file that is empty.
    #[must_use]
    pub fn new(file: File) -> Self {
        Self {
            file,
            position: 0,
            rest: Vec::new(),
        }
    }

    /// Writes what is left and sets the length: a hole at the end has no bytes that would.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn finish(mut self) -> io::Result<File> {
        let rest = std::mem::take(&mut self.rest);
        self.put(&rest)?;
        self.file.set_len(self.position)?;
        Ok(self.file)
    }

    /// Writes blocks, of which the last one may be short.
    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let is_hole = is_zero(block(rest));
            let mut length = 0;
            while length < rest.len() && is_zero(block(&rest[length..])) == is_hole {
                length += block(&rest[length..]).len();
            }
            if !is_hole {
                self.file.write_all_at(&rest[..length], self.position)?;
            }
            self.position += length as u64;
            rest = &rest[length..];
        }
        Ok(())
    }
}

impl Write for HoleWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut left = bytes;
        if !self.rest.is_empty() {
            let wanted = (BLOCK_BYTES - self.rest.len()).min(left.len());
            self.rest.extend_from_slice(&left[..wanted]);
            left = &left[wanted..];
            if self.rest.len() == BLOCK_BYTES {
                let mut rest = std::mem::take(&mut self.rest);
                self.put(&rest)?;
                rest.clear();
                self.rest = rest;
            }
        }
        let (blocks, tail) = left.split_at(left.len() / BLOCK_BYTES * BLOCK_BYTES);
        self.put(blocks)?;
        self.rest.extend_from_slice(tail);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn block(bytes: &[u8]) -> &[u8] {
    &bytes[..bytes.len().min(BLOCK_BYTES)]
}

/// By words: the static binary's own comparison of memory goes by bytes.
fn is_zero(bytes: &[u8]) -> bool {
    let (words, rest) = bytes.as_chunks::<8>();
    words.iter().all(|word| u64::from_ne_bytes(*word) == 0) && rest.iter().all(|byte| *byte == 0)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use proptest::prelude::*;

    use super::*;

    fn written(pieces: &[Vec<u8>]) -> (Vec<u8>, u64) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let mut writer = HoleWriter::new(File::create(&path).unwrap());
        for piece in pieces {
            writer.write_all(piece).unwrap();
        }
        let file = writer.finish().unwrap();
        let room = file.metadata().unwrap().blocks() * 512;
        (std::fs::read(path).unwrap(), room)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100))]

        #[test]
        fn what_goes_in_lies_there(pieces in prop::collection::vec((any::<bool>(), 0..10_000_usize), 0..20)) {
            let pieces: Vec<Vec<u8>> = pieces.iter().map(|(full, length)| vec![u8::from(*full); *length]).collect();
            prop_assert_eq!(written(&pieces).0, pieces.concat());
        }
    }

    #[test]
    fn zeros_take_no_room() {
        let (content, room) = written(&[vec![0; 10 << 20], vec![1], vec![0; 5 << 20]]);
        assert_eq!(content.len(), (15 << 20) + 1);
        assert!(room <= 64 << 10, "{room} bytes");
        assert_eq!(written(&[vec![0; 4097]]).0, vec![0; 4097]);
    }
}
