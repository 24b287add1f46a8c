//! Checksums of the bulk: one per mebibyte of the memory or of the stored pages. Those of memory are read by `verify` and
//! transfers only.

use crate::fields::Fields;
use crate::limits::SUM_CHUNK_BYTES;

/// Sums of a base's memory: only the chunks that are not all zero.
pub(crate) const MEMORY_SECTION: &str = "memory-sums";
/// Sums of a layer's stored pages: every chunk.
pub(crate) const PAGES_SECTION: &str = "page-sums";
pub(crate) const VERSION: u32 = 1;
const ENTRY_BYTES: usize = 36;

/// One chunk: which, and the BLAKE3 of its bytes (holes count as zeros; the last chunk may be shorter).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sum {
    pub(crate) chunk: u32,
    pub(crate) hash: [u8; 32],
}

/// The sums of one file in chunk order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sums(pub(crate) Vec<Sum>);

/// Why a section of checksums was refused.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum SumsError {
    #[error("version {found} of the checksums; this program reads version {VERSION}")]
    Version { found: u32 },
    #[error("checksums over chunks of {bytes} bytes (this program reads {SUM_CHUNK_BYTES})")]
    Chunk { bytes: u32 },
    #[error("a section of {bytes} bytes that says {count} checksums")]
    Length { bytes: usize, count: u32 },
    #[error("chunk {chunk} is out of order or outside the file")]
    Place { chunk: u32 },
    #[error("{count} checksums for a file of {file_bytes} bytes")]
    Missing { count: usize, file_bytes: u64 },
}

/// How many chunks a file of `file_bytes` has.
pub(crate) fn chunk_count(file_bytes: u64) -> u64 {
    file_bytes.div_ceil(SUM_CHUNK_BYTES as u64)
}

/// Place and length of a chunk in a file of `file_bytes`.
pub(crate) fn chunk_range(chunk: u32, file_bytes: u64) -> (u64, usize) {
    let offset = u64::from(chunk) * SUM_CHUNK_BYTES as u64;
    let left = usize::try_from(file_bytes.saturating_sub(offset)).unwrap_or(usize::MAX);
    (offset, left.min(SUM_CHUNK_BYTES))
}

impl Sums {
    pub(crate) fn push(&mut self, chunk: u32, content: &[u8]) {
        self.0.push(Sum {
            chunk,
            hash: *blake3::hash(content).as_bytes(),
        });
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(8 + self.0.len() * ENTRY_BYTES);
        let chunk_bytes = u32::try_from(SUM_CHUNK_BYTES).expect("a mebibyte");
        let count = u32::try_from(self.0.len()).expect("chunks are distinct 32-bit numbers");
        out.extend_from_slice(&chunk_bytes.to_le_bytes());
        out.extend_from_slice(&count.to_le_bytes());
        for sum in &self.0 {
            out.extend_from_slice(&sum.chunk.to_le_bytes());
            out.extend_from_slice(&sum.hash);
        }
        out
    }

    pub(crate) fn decode(bytes: &[u8], version: u32, file_bytes: u64) -> Result<Self, SumsError> {
        if version != VERSION {
            return Err(SumsError::Version { found: version });
        }
        let mut fields = Fields::new(bytes);
        let short = || SumsError::Length {
            bytes: bytes.len(),
            count: 0,
        };
        let chunk_bytes = fields.u32().ok_or_else(short)?;
        let count = fields.u32().ok_or_else(short)?;
        if usize::try_from(chunk_bytes) != Ok(SUM_CHUNK_BYTES) {
            return Err(SumsError::Chunk { bytes: chunk_bytes });
        }
        if !fields.left().is_multiple_of(ENTRY_BYTES)
            || u32::try_from(fields.left() / ENTRY_BYTES) != Ok(count)
        {
            return Err(SumsError::Length {
                bytes: bytes.len(),
                count,
            });
        }
        let mut sums: Vec<Sum> = Vec::with_capacity(fields.left() / ENTRY_BYTES);
        while fields.left() > 0 {
            let chunk = fields.u32().ok_or_else(short)?;
            let hash = fields.array().ok_or_else(short)?;
            if u64::from(chunk) >= chunk_count(file_bytes)
                || sums.last().is_some_and(|last| last.chunk >= chunk)
            {
                return Err(SumsError::Place { chunk });
            }
            sums.push(Sum { chunk, hash });
        }
        Ok(Self(sums))
    }

    /// Like [`Sums::decode`], for a file of which every chunk must be there.
    pub(crate) fn decode_dense(
        bytes: &[u8],
        version: u32,
        file_bytes: u64,
    ) -> Result<Self, SumsError> {
        let sums = Self::decode(bytes, version, file_bytes)?;
        if sums.0.len() as u64 != chunk_count(file_bytes) {
            return Err(SumsError::Missing {
                count: sums.0.len(),
                file_bytes,
            });
        }
        Ok(sums)
    }
}
