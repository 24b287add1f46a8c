//! The header of a snapshot file: fixed fields, section table, checksum. Nothing is used before the checksum held.

use std::time::{Duration, SystemTime};

use crate::fields::{Fields, is_text, put_text, text};
use crate::{PAGE_BYTES, SnapshotId, limits};

pub(crate) const MAGIC: [u8; 8] = *b"VMREPLSN";
pub(crate) const FORMAT_VERSION: u32 = 1;
const FIXED_BYTES: usize = 384;
const ENTRY_BYTES: usize = 80;
const SUM_BYTES: usize = 32;

/// Longest header that a valid file can have; one read of this many bytes always holds all of it.
pub(crate) const LONGEST_HEADER_BYTES: usize =
    FIXED_BYTES + limits::SECTIONS as usize * ENTRY_BYTES + SUM_BYTES;

/// What must be the same to restore a snapshot, and how large its memory is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The engine that made the state, for example `qemu`; at most 16 bytes.
    pub engine: String,
    /// What of the engine must match, for example `qemu 7.2 microvm`; at most 128 bytes.
    pub compat: String,
    /// The guest's architecture, for example `x86_64`; at most 16 bytes.
    pub architecture: String,
    /// The guest's CPU as far as it must match; at most 128 bytes.
    pub cpu: String,
    /// Size of the guest's memory.
    pub memory_bytes: u64,
}

/// One fact that differs between a snapshot and the place where it should be restored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Which fact: `engine`, `compat`, `architecture`, `cpu` or `memory`.
    pub fact: &'static str,
    /// What the snapshot says.
    pub stored: String,
    /// What was found here.
    pub here: String,
}

impl Facts {
    /// Names what differs from `here`, with both values; empty if a restore may go on.
    pub fn differences(&self, here: &Self) -> Vec<Difference> {
        let memory = (self.memory_bytes.to_string(), here.memory_bytes.to_string());
        [
            ("engine", &self.engine, &here.engine),
            ("compat", &self.compat, &here.compat),
            ("architecture", &self.architecture, &here.architecture),
            ("cpu", &self.cpu, &here.cpu),
            ("memory", &memory.0, &memory.1),
        ]
        .into_iter()
        .filter(|(_, stored, here)| stored != here)
        .map(|(fact, stored, here)| Difference {
            fact,
            stored: stored.clone(),
            here: here.clone(),
        })
        .collect()
    }

    /// Refuses facts that the fixed fields cannot hold.
    pub(crate) fn check(&self) -> Result<(), HeaderError> {
        let texts = [
            ("engine", &self.engine, limits::TAG_BYTES),
            ("architecture", &self.architecture, limits::TAG_BYTES),
            ("cpu", &self.cpu, limits::COMPAT_BYTES),
            ("compat", &self.compat, limits::COMPAT_BYTES),
        ];
        for (field, value, limit) in texts {
            if !is_text(value, limit) {
                return Err(HeaderError::Text { field });
            }
        }
        let bytes = self.memory_bytes;
        if bytes == 0 || bytes > limits::MEMORY_BYTES || !bytes.is_multiple_of(PAGE_BYTES as u64) {
            return Err(HeaderError::Memory { bytes });
        }
        Ok(())
    }
}

/// Whether a snapshot stands alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A whole memory, beside the snapshot file.
    Base,
    /// Pages over the memory of another snapshot.
    Layer {
        /// The snapshot that the pages lie over.
        parent: SnapshotId,
        /// How many layers there are down to the base, this one included.
        depth: u32,
    },
}

/// One row of the section table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SectionEntry {
    /// Name: lower-case letters, digits and `-`; at most 24 bytes.
    pub name: String,
    /// Version of the section's content, for whoever parses it.
    pub version: u32,
    /// First byte in the snapshot file.
    pub offset: u64,
    /// Length in bytes.
    pub length: u64,
    pub(crate) checksum: [u8; SUM_BYTES],
}

/// What the header of a snapshot says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// The snapshot's own id.
    pub id: SnapshotId,
    /// Base or layer.
    pub kind: Kind,
    /// What must match to restore it.
    pub facts: Facts,
    /// When it was made, milliseconds since 1970.
    pub created_ms: u64,
    /// The sections in file order.
    pub sections: Vec<SectionEntry>,
}

/// Why a header was refused.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum HeaderError {
    #[error("the file ends within its header")]
    Short,
    #[error("not a snapshot: the file does not begin with VMREPLSN")]
    Magic,
    #[error("snapshot format version {found}; this program reads version {FORMAT_VERSION}")]
    Version { found: u32 },
    #[error("header of {bytes} bytes (it has {FIXED_BYTES} to {LONGEST_HEADER_BYTES})")]
    HeaderLength { bytes: u32 },
    #[error("the checksum of the header does not match")]
    Checksum,
    #[error("the header says {said} bytes for a file of {found}")]
    FileLength { said: u64, found: u64 },
    #[error("unknown kind of snapshot {tag}")]
    Kind { tag: u8 },
    #[error("pages of {bytes} bytes (this program reads {PAGE_BYTES})")]
    PageSize { bytes: u32 },
    #[error(
        "memory of {bytes} bytes (it is a multiple of {PAGE_BYTES}, at most {})",
        limits::MEMORY_BYTES
    )]
    Memory { bytes: u64 },
    #[error("the parent or the depth {depth} does not fit a snapshot of this kind")]
    Lineage { depth: u32 },
    #[error("the field {field} is too long or not printable")]
    Text { field: &'static str },
    #[error("a reserved field is not zero")]
    Reserved,
    #[error("{count} sections (at most {})", limits::SECTIONS)]
    SectionCount { count: u32 },
    #[error("the section name {name:?} is not 1 to 24 lower-case letters, digits and '-'")]
    SectionName { name: String },
    #[error("two sections are named {name:?}")]
    SectionTwice { name: String },
    #[error(
        "section {name:?} of {bytes} bytes (at most {})",
        limits::SECTION_BYTES
    )]
    SectionLength { name: String, bytes: u64 },
    #[error("section {name:?} is not where the one before it ends")]
    SectionPlace { name: String },
}

pub(crate) fn check_section_name(name: &str) -> Result<(), HeaderError> {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if name.is_empty() || name.len() > limits::SECTION_NAME_BYTES || !name.bytes().all(allowed) {
        return Err(HeaderError::SectionName {
            name: name.chars().take(64).collect(),
        });
    }
    Ok(())
}

impl Header {
    /// The parent, if this is a layer.
    pub fn parent(&self) -> Option<SnapshotId> {
        match self.kind {
            Kind::Base => None,
            Kind::Layer { parent, .. } => Some(parent),
        }
    }

    /// How many layers there are down to the base; 0 for a base.
    pub fn depth(&self) -> u32 {
        match self.kind {
            Kind::Base => 0,
            Kind::Layer { depth, .. } => depth,
        }
    }

    /// When it was made.
    pub fn created(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(self.created_ms)
    }

    /// The row of the section `name`.
    pub fn section(&self, name: &str) -> Option<&SectionEntry> {
        self.sections.iter().find(|entry| entry.name == name)
    }

    /// Pages of the memory.
    pub(crate) fn page_count(&self) -> u64 {
        self.facts.memory_bytes / PAGE_BYTES as u64
    }

    /// Bytes of the whole snapshot file.
    pub(crate) fn file_bytes(&self) -> u64 {
        self.sections
            .last()
            .map_or(header_bytes(0) as u64, |last| last.offset + last.length)
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let length = header_bytes(self.sections.len());
        let mut out = Vec::with_capacity(length);
        let (kind, parent) = match self.kind {
            Kind::Base => (1, [0; 16]),
            Kind::Layer { parent, .. } => (2, *parent.as_bytes()),
        };
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
        out.extend_from_slice(&as_u32(length).to_le_bytes());
        out.extend_from_slice(&self.file_bytes().to_le_bytes());
        out.extend_from_slice(&[kind, 0, 0, 0]);
        out.extend_from_slice(&as_u32(PAGE_BYTES).to_le_bytes());
        out.extend_from_slice(&self.facts.memory_bytes.to_le_bytes());
        out.extend_from_slice(&self.created_ms.to_le_bytes());
        out.extend_from_slice(self.id.as_bytes());
        out.extend_from_slice(&parent);
        out.extend_from_slice(&self.depth().to_le_bytes());
        out.extend_from_slice(&as_u32(self.sections.len()).to_le_bytes());
        out.extend_from_slice(&[0; 8]);
        put_text::<{ limits::TAG_BYTES }>(&mut out, &self.facts.engine);
        put_text::<{ limits::TAG_BYTES }>(&mut out, &self.facts.architecture);
        put_text::<{ limits::COMPAT_BYTES }>(&mut out, &self.facts.cpu);
        put_text::<{ limits::COMPAT_BYTES }>(&mut out, &self.facts.compat);
        debug_assert_eq!(out.len(), FIXED_BYTES);
        for entry in &self.sections {
            put_text::<{ limits::SECTION_NAME_BYTES }>(&mut out, &entry.name);
            out.extend_from_slice(&entry.version.to_le_bytes());
            out.extend_from_slice(&[0; 4]);
            out.extend_from_slice(&entry.offset.to_le_bytes());
            out.extend_from_slice(&entry.length.to_le_bytes());
            out.extend_from_slice(&entry.checksum);
        }
        let checksum = blake3::hash(&out);
        out.extend_from_slice(checksum.as_bytes());
        out
    }

    /// Parses the header at the beginning of `bytes`, the first bytes of a file of `file_bytes`.
    pub(crate) fn decode(bytes: &[u8], file_bytes: u64) -> Result<Self, HeaderError> {
        let mut fields = Fields::new(checked(bytes)?);
        // Magic, version and header length were read by `checked`.
        fields.array::<16>().ok_or(HeaderError::Short)?;
        let header = decode_fixed(&mut fields, file_bytes).ok_or(HeaderError::Short)??;
        header.facts.check()?;
        if header.file_bytes() != file_bytes {
            return Err(HeaderError::FileLength {
                said: header.file_bytes(),
                found: file_bytes,
            });
        }
        Ok(header)
    }
}

/// Length of a header with that many sections.
pub(crate) fn header_bytes(sections: usize) -> usize {
    FIXED_BYTES + sections * ENTRY_BYTES + SUM_BYTES
}

/// Checks magic, version, length and checksum, in this order; returns what the checksum covers.
fn checked(bytes: &[u8]) -> Result<&[u8], HeaderError> {
    let mut fields = Fields::new(bytes);
    if fields.array::<8>().ok_or(HeaderError::Short)? != MAGIC {
        return Err(HeaderError::Magic);
    }
    let found = fields.u32().ok_or(HeaderError::Short)?;
    if found != FORMAT_VERSION {
        return Err(HeaderError::Version { found });
    }
    let said = fields.u32().ok_or(HeaderError::Short)?;
    let length = usize::try_from(said).map_err(|_| HeaderError::HeaderLength { bytes: said })?;
    if !(FIXED_BYTES + SUM_BYTES..=LONGEST_HEADER_BYTES).contains(&length) {
        return Err(HeaderError::HeaderLength { bytes: said });
    }
    let header = bytes.get(..length).ok_or(HeaderError::Short)?;
    let (covered, checksum) = header.split_at(length - SUM_BYTES);
    if blake3::hash(covered).as_bytes().as_slice() != checksum {
        return Err(HeaderError::Checksum);
    }
    Ok(covered)
}

/// `None` if the fields end too early, which a header of a valid length cannot do.
fn decode_fixed(fields: &mut Fields<'_>, file_bytes: u64) -> Option<Result<Header, HeaderError>> {
    let said = fields.u64()?;
    let [tag, reserved @ ..] = fields.array::<4>()?;
    let page_bytes = fields.u32()?;
    let memory_bytes = fields.u64()?;
    let created_ms = fields.u64()?;
    let id = SnapshotId::from_bytes(fields.array()?);
    let parent = SnapshotId::from_bytes(fields.array()?);
    let depth = fields.u32()?;
    let count = fields.u32()?;
    let reserved_too = fields.array::<8>()?;
    let engine = text(&fields.array::<{ limits::TAG_BYTES }>()?);
    let architecture = text(&fields.array::<{ limits::TAG_BYTES }>()?);
    let cpu = text(&fields.array::<{ limits::COMPAT_BYTES }>()?);
    let compat = text(&fields.array::<{ limits::COMPAT_BYTES }>()?);
    let validate = || {
        if said != file_bytes || said > limits::SNAPSHOT_FILE_BYTES {
            return Err(HeaderError::FileLength {
                said,
                found: file_bytes,
            });
        }
        if reserved != [0; 3] || reserved_too != [0; 8] {
            return Err(HeaderError::Reserved);
        }
        if usize::try_from(page_bytes) != Ok(PAGE_BYTES) {
            return Err(HeaderError::PageSize { bytes: page_bytes });
        }
        let kind = match tag {
            1 if parent.is_nil() && depth == 0 => Kind::Base,
            2 if !parent.is_nil()
                && parent != id
                && (1..=limits::CHAIN_LAYERS).contains(&depth) =>
            {
                Kind::Layer { parent, depth }
            }
            1 | 2 => return Err(HeaderError::Lineage { depth }),
            _ => return Err(HeaderError::Kind { tag }),
        };
        let facts = Facts {
            engine: engine.ok_or(HeaderError::Text { field: "engine" })?,
            compat: compat.ok_or(HeaderError::Text { field: "compat" })?,
            architecture: architecture.ok_or(HeaderError::Text {
                field: "architecture",
            })?,
            cpu: cpu.ok_or(HeaderError::Text { field: "cpu" })?,
            memory_bytes,
        };
        let sections = decode_sections(fields, count)?;
        Ok(Header {
            id,
            kind,
            facts,
            created_ms,
            sections,
        })
    };
    Some(validate())
}

fn decode_sections(fields: &mut Fields<'_>, count: u32) -> Result<Vec<SectionEntry>, HeaderError> {
    let table = usize::try_from(count)
        .ok()
        .and_then(|count| count.checked_mul(ENTRY_BYTES));
    if count > limits::SECTIONS || table != Some(fields.left()) {
        return Err(HeaderError::SectionCount { count });
    }
    let mut sections: Vec<SectionEntry> = Vec::new();
    let mut offset = (FIXED_BYTES + fields.left() + SUM_BYTES) as u64;
    for _ in 0..count {
        let (entry, reserved) = decode_entry(fields).ok_or(HeaderError::Short)?;
        let name = entry.name.clone();
        check_section_name(&name)?;
        if reserved != 0 {
            return Err(HeaderError::Reserved);
        }
        if sections.iter().any(|earlier| earlier.name == name) {
            return Err(HeaderError::SectionTwice { name });
        }
        if entry.length > limits::SECTION_BYTES {
            return Err(HeaderError::SectionLength {
                name,
                bytes: entry.length,
            });
        }
        // Sections follow each other without a gap, so that every byte of the file is under some checksum.
        if entry.offset != offset {
            return Err(HeaderError::SectionPlace { name });
        }
        offset += entry.length;
        sections.push(entry);
    }
    Ok(sections)
}

fn decode_entry(fields: &mut Fields<'_>) -> Option<(SectionEntry, u32)> {
    let name = fields.array::<{ limits::SECTION_NAME_BYTES }>()?;
    let version = fields.u32()?;
    let reserved = fields.u32()?;
    let offset = fields.u64()?;
    let length = fields.u64()?;
    let checksum = fields.array()?;
    // A name that is no text becomes an empty one, which the caller refuses.
    let name = text(&name).unwrap_or_default();
    Some((
        SectionEntry {
            name,
            version,
            offset,
            length,
            checksum,
        },
        reserved,
    ))
}

/// For lengths that limits keep far below 4 GiB.
fn as_u32(length: usize) -> u32 {
    u32::try_from(length).expect("limits keep lengths of a header below 4 GiB")
}
