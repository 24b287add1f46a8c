//! Every limit of copying, by name.

/// What one read or write moves, in bytes.
pub(crate) const CHUNK_BYTES: usize = 64 << 10;

/// The unit of holes, in bytes: a page of memory, a block of most file systems.
pub(crate) const BLOCK_BYTES: usize = 4096;

/// Names, link targets and times of one entry of an archive, in bytes.
pub(crate) const RECORDS_BYTES: u64 = 64 << 10;

/// Entries that were left out and are named; the others are only counted.
pub(crate) const SKIPPED_NAMED: usize = 100;

/// Characters of a name in that list.
pub(crate) const SKIPPED_NAME_CHARS: usize = 1024;

/// Characters of a file's name that its draft's name keeps: it must stay within the file system's limit.
pub(crate) const DRAFT_NAME_CHARS: usize = 32;
