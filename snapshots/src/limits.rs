//! Every limit that the format puts on bytes from elsewhere, with its name.

/// Largest guest memory that a snapshot may describe.
pub const MEMORY_BYTES: u64 = 1 << 40;

/// Most sections in one snapshot file.
pub const SECTIONS: u32 = 64;

/// Largest single section.
pub const SECTION_BYTES: u64 = 64 << 20;

/// Largest snapshot file: header, table and all sections.
pub const SNAPSHOT_FILE_BYTES: u64 = 256 << 20;

/// Longest section name.
pub const SECTION_NAME_BYTES: usize = 24;

/// Longest name of an engine or an architecture.
pub const TAG_BYTES: usize = 16;

/// Longest compatibility string and longest CPU tag.
pub const COMPAT_BYTES: usize = 128;

/// Most layers between a snapshot and its base. Each costs a restore two opened files.
pub const CHAIN_LAYERS: u32 = 256;

/// Bytes of memory or of stored pages under one checksum.
pub const SUM_CHUNK_BYTES: usize = 1 << 20;

/// Longest name and longest kind of a name.
pub const NAME_BYTES: usize = 64;

/// Fewest hexadecimal digits that are accepted as the beginning of an id.
pub const ID_PREFIX_DIGITS: usize = 4;

/// Most candidates that an ambiguous id or a refused removal names.
pub const NAMED_IN_ERRORS: usize = 8;
