//! Export and import: a snapshot with all its parents as one file.
//!
//! The file needs no framing of its own: each snapshot file comes first and its sums say which chunks follow.

use std::fs::File;
use std::io::{self, Read, Write};

use crate::disk;
use crate::draft::write_synced;
use crate::error::{Step, StoreError};
use crate::fields::Fields;
use crate::header::{Header, HeaderError, LONGEST_HEADER_BYTES};
use crate::limits::{CHAIN_LAYERS, SNAPSHOT_FILE_BYTES, SUM_CHUNK_BYTES};
use crate::page_index::{self, IndexVersion, PageIndex};
use crate::snapshot::{FILE, MEMORY_FILE, Snapshot};
use crate::staging::Staging;
use crate::store::Store;
use crate::sums::{self, Sum, Sums, chunk_range};
use crate::{PageIndexError, SnapshotId, SumsError, chain, memory};

const MAGIC: [u8; 8] = *b"VMREPLEX";
const VERSION: u32 = 1;
const HEAD_BYTES: usize = 32;
/// zstd's own default: about 400 MB/s, and memory shrinks to a third.
const LEVEL: i32 = 3;
/// What a frame may make its reader keep, as a power of two: 8 MiB, which every encoder may use, and level 3 does not.
const WINDOW_LOG: u32 = 23;

/// Why an export or an import failed.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum TransferError {
    #[error("cannot read the exported file")]
    Read { source: io::Error },
    #[error("cannot write the exported file")]
    Write { source: io::Error },
    #[error("not an exported snapshot: the file does not begin with VMREPLEX")]
    Magic,
    #[error("export format version {found}; this program reads version {VERSION}")]
    Version { found: u32 },
    #[error("{found} snapshots in one file (1 to {})", CHAIN_LAYERS + 1)]
    Count { found: u32 },
    #[error("a snapshot file of {bytes} bytes (at most {SNAPSHOT_FILE_BYTES})")]
    SnapshotLength { bytes: u64 },
    #[error("the header of snapshot {number} in the file is refused")]
    Header { number: usize, source: HeaderError },
    #[error("snapshot {number} in the file is not a {expected}")]
    Lineage {
        number: usize,
        expected: &'static str,
    },
    #[error("section {section:?} of snapshot {id} is missing or damaged")]
    Section { id: SnapshotId, section: String },
    #[error("section \"page-index\" of snapshot {id} is refused")]
    PageIndex {
        id: SnapshotId,
        source: PageIndexError,
    },
    #[error("section {section:?} of snapshot {id} is refused")]
    Sums {
        id: SnapshotId,
        section: &'static str,
        source: SumsError,
    },
    #[error("the {part} of snapshot {id} is damaged at byte {offset}")]
    Damaged {
        id: SnapshotId,
        part: &'static str,
        offset: u64,
    },
    #[error("the file says that it ends with snapshot {said}, and ends with {found}")]
    Tip { said: SnapshotId, found: SnapshotId },
    #[error("there are bytes after the last snapshot")]
    Trailing,
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What follows a snapshot file: the file's name, its length, and the chunks of it that are not zero.
pub(crate) struct Bulk {
    name: &'static str,
    pub(crate) bytes: u64,
    pub(crate) sums: Sums,
    /// What the pages are differences against.
    ancestor: Option<SnapshotId>,
}

impl Store {
    /// Writes a snapshot and all its parents into one file. Every byte is compared with its checksum on the way.
    ///
    /// # Errors
    /// When something cannot be read, is damaged, or `out` fails.
    pub fn export(&self, id: &SnapshotId, mut out: impl Write) -> Result<(), TransferError> {
        let write = |source| TransferError::Write { source };
        let chain = self.chain(id)?;
        let _hold = chain.tip().hold()?;
        let count = u32::try_from(chain.snapshots().len()).expect("chains are bounded");
        let head = [
            &MAGIC[..],
            &VERSION.to_le_bytes(),
            &count.to_le_bytes(),
            id.as_bytes(),
        ]
        .concat();
        out.write_all(&head).map_err(write)?;
        let mut out = zstd::Encoder::new(out, LEVEL).map_err(write)?;
        for snapshot in chain.snapshots().iter().rev() {
            let (bytes, bulk, file) = snapshot.settled(open_whole)?;
            out.write_all(&(bytes.len() as u64).to_le_bytes())
                .map_err(write)?;
            out.write_all(&bytes).map_err(write)?;
            export_bulk(snapshot, &bulk, &file, &mut out)?;
        }
        out.finish().and_then(|mut out| out.flush()).map_err(write)
    }

    /// Publishes what [`Store::export`] wrote, with the same ids; what is already here is left as it is.
    ///
    /// Everything is read and compared with its checksums before the first snapshot is published.
    ///
    /// # Errors
    /// When the file is damaged or refused, or a step fails; then nothing of it is published, or, if publishing itself
    /// failed, only snapshots that are whole.
    pub fn import(&self, mut input: impl Read) -> Result<SnapshotId, TransferError> {
        let read = |source| TransferError::Read { source };
        let mut head = [0; HEAD_BYTES];
        input.read_exact(&mut head).map_err(read)?;
        let (count, tip) = decode_head(&head)?;
        let mut input = zstd::Decoder::new(input).map_err(read)?.single_frame();
        input.window_log_max(WINDOW_LOG).map_err(read)?;
        let mut staged: Vec<(Header, Option<Staging>)> = Vec::new();
        for number in 1..=count {
            let one = self.import_one(number, &staged, &mut input)?;
            staged.push(one);
        }
        let found = staged.last().map_or(tip, |(header, _)| header.id);
        if found != tip {
            return Err(TransferError::Tip { said: tip, found });
        }
        let mut rest = [0];
        if input.read(&mut rest).map_err(read)? != 0
            || input.finish().read(&mut rest).map_err(read)? != 0
        {
            return Err(TransferError::Trailing);
        }
        for (header, staging) in staged {
            if let Some(staging) = staging {
                self.publish_imported(&header, staging)?;
            }
        }
        Ok(tip)
    }

    fn publish_imported(&self, header: &Header, staging: Staging) -> Result<(), StoreError> {
        match staging.publish(&header.id, header.parent()) {
            // Somebody else imported it since the look in `import_one`.
            Err(StoreError::Disk {
                step: Step::Rename, ..
            }) if self.contains(&header.id) => {
                if !says_the_same(self.snapshot(&header.id)?.header(), header) {
                    return Err(StoreError::IdTaken { id: header.id });
                }
                Ok(())
            }
            published => published,
        }
    }

    /// Reads, verifies and stages one snapshot; no staging if it is here already.
    fn import_one(
        &self,
        number: usize,
        below: &[(Header, Option<Staging>)],
        input: &mut impl Read,
    ) -> Result<(Header, Option<Staging>), TransferError> {
        let (header, bytes) = read_snapshot_file(number, input)?;
        match below.last().map(|(header, _)| header) {
            None if header.parent().is_some() => {
                return Err(TransferError::Lineage {
                    number,
                    expected: "base",
                });
            }
            Some(before) => chain::check_fit(&header, before)?,
            None => {}
        }
        let bulk = check_sections(&header, &bytes)?;
        if let Some(ancestor) = bulk.ancestor
            && below.iter().all(|(header, _)| header.id != ancestor)
        {
            return Err(TransferError::PageIndex {
                id: header.id,
                source: PageIndexError::Ancestor { ancestor },
            });
        }
        let staging = if self.contains(&header.id) {
            if !says_the_same(self.snapshot(&header.id)?.header(), &header) {
                return Err(StoreError::IdTaken { id: header.id }.into());
            }
            None
        } else {
            let staging = Staging::create(self)?;
            write_synced(self, &staging.path(FILE), &bytes)?;
            Some(staging)
        };
        self.import_bulk(header.id, &bulk, staging.as_ref(), input)?;
        Ok((header, staging))
    }

    fn import_bulk(
        &self,
        id: SnapshotId,
        bulk: &Bulk,
        staging: Option<&Staging>,
        input: &mut impl Read,
    ) -> Result<(), TransferError> {
        let mut target = None;
        if let Some(staging) = staging {
            let path = staging.path(bulk.name);
            let file = self.disk().create(&path)?;
            self.disk().set_length(&file, &path, bulk.bytes)?;
            target = Some((file, path));
        }
        let mut buffer = vec![0; SUM_CHUNK_BYTES];
        for sum in &bulk.sums.0 {
            let (offset, length) = chunk_range(sum.chunk, bulk.bytes);
            let content = &mut buffer[..length];
            input
                .read_exact(content)
                .map_err(|source| TransferError::Read { source })?;
            check_chunk(id, bulk.name, sum, offset, content)?;
            if let Some((file, path)) = &target {
                memory::write_sparse(self.disk(), file, path, content, offset)?;
            }
        }
        if let Some((file, path)) = &target {
            self.disk().sync_file(file, path)?;
        }
        Ok(())
    }
}

/// Whether two headers are those of one snapshot. Its pages may be stored in another way here and there, and then also
/// their checksums differ; all else may not.
fn says_the_same(one: &Header, other: &Header) -> bool {
    let version = |header: &Header| {
        header
            .section(page_index::SECTION)
            .map(|entry| entry.version)
    };
    let lasting = |header: &Header| {
        let sections = header.sections.iter().cloned();
        let fixed = sections.filter(|entry| {
            ![page_index::SECTION, sums::PAGES_SECTION].contains(&entry.name.as_str())
        });
        Header {
            sections: fixed.collect(),
            ..header.clone()
        }
    };
    if version(one) == Some(IndexVersion::Plain as u32) && version(one) == version(other) {
        return one == other;
    }
    lasting(one) == lasting(other)
}

pub(crate) fn decode_head(head: &[u8]) -> Result<(usize, SnapshotId), TransferError> {
    let mut fields = Fields::new(head);
    let (magic, version, count, tip) = (fields.array(), fields.u32(), fields.u32(), fields.array());
    if magic != Some(MAGIC) {
        return Err(TransferError::Magic);
    }
    let found = version.unwrap_or(0);
    if found != VERSION {
        return Err(TransferError::Version { found });
    }
    let found = count.unwrap_or(0);
    match usize::try_from(found) {
        Ok(count) if (1..=CHAIN_LAYERS + 1).contains(&found) => {
            Ok((count, SnapshotId::from_bytes(tip.unwrap_or_default())))
        }
        _ => Err(TransferError::Count { found }),
    }
}

/// The header comes first and is checked before the sections are read: a few compressed bytes can promise, and
/// keep, megabytes.
pub(crate) fn read_snapshot_file(
    number: usize,
    input: &mut impl Read,
) -> Result<(Header, Vec<u8>), TransferError> {
    let read = |source| TransferError::Read { source };
    let mut length = [0; 8];
    input.read_exact(&mut length).map_err(read)?;
    let length = u64::from_le_bytes(length);
    if length > SNAPSHOT_FILE_BYTES {
        return Err(TransferError::SnapshotLength { bytes: length });
    }
    // Grows with what comes, not with what the length promises.
    let mut bytes = Vec::new();
    let mut input = input.take(length);
    input
        .by_ref()
        .take(LONGEST_HEADER_BYTES as u64)
        .read_to_end(&mut bytes)
        .map_err(read)?;
    let header = Header::decode(&bytes, length)
        .map_err(|source| TransferError::Header { number, source })?;
    input.read_to_end(&mut bytes).map_err(read)?;
    if bytes.len() as u64 != length {
        return Err(read(io::ErrorKind::UnexpectedEof.into()));
    }
    Ok((header, bytes))
}

/// The snapshot file, verified, and what lies beside it, open: the two belong together, whatever happens to them now.
fn open_whole(snapshot: &Snapshot) -> Result<(Vec<u8>, Bulk, File), TransferError> {
    let bytes = read_whole(snapshot)?;
    let bulk = check_sections(snapshot.header(), &bytes)?;
    let file = disk::open(&snapshot.folder().join(bulk.name))?;
    Ok((bytes, bulk, file))
}

fn read_whole(snapshot: &Snapshot) -> Result<Vec<u8>, StoreError> {
    let path = snapshot.path();
    let file = disk::open(&path)?;
    let length =
        usize::try_from(snapshot.header().file_bytes()).expect("the header's limits keep it small");
    let mut bytes = vec![0; length];
    disk::read_at(&file, &path, &mut bytes, 0)?;
    Ok(bytes)
}

/// Verifies all sections of a snapshot file and says what belongs beside it.
pub(crate) fn check_sections(header: &Header, file: &[u8]) -> Result<Bulk, TransferError> {
    let id = header.id;
    let section = |name: &str| {
        let refused = || TransferError::Section {
            id,
            section: name.to_owned(),
        };
        let entry = header.section(name).ok_or_else(refused)?;
        let from = usize::try_from(entry.offset).map_err(|_| refused())?;
        let to = usize::try_from(entry.offset + entry.length).map_err(|_| refused())?;
        let bytes = file.get(from..to).ok_or_else(refused)?;
        if *blake3::hash(bytes).as_bytes() != entry.checksum {
            return Err(refused());
        }
        Ok((bytes, entry.version))
    };
    for entry in &header.sections {
        section(&entry.name)?;
    }
    let sums_refused = |section| {
        move |source| TransferError::Sums {
            id,
            section,
            source,
        }
    };
    if header.parent().is_none() {
        let (bytes, version) = section(sums::MEMORY_SECTION)?;
        let memory_bytes = header.facts.memory_bytes;
        let sums = Sums::decode(bytes, version, memory_bytes)
            .map_err(sums_refused(sums::MEMORY_SECTION))?;
        return Ok(Bulk {
            name: MEMORY_FILE,
            bytes: memory_bytes,
            sums,
            ancestor: None,
        });
    }
    let (bytes, version) = section(page_index::SECTION)?;
    let index = PageIndex::decode(bytes, version, header.page_count())
        .map_err(|source| TransferError::PageIndex { id, source })?;
    let (bytes, version) = section(sums::PAGES_SECTION)?;
    let sums = Sums::decode_dense(bytes, version, index.stored_bytes)
        .map_err(sums_refused(sums::PAGES_SECTION))?;
    Ok(Bulk {
        name: index.version.file(),
        bytes: index.stored_bytes,
        sums,
        ancestor: index.ancestor,
    })
}

fn export_bulk(
    snapshot: &Snapshot,
    bulk: &Bulk,
    file: &File,
    out: &mut impl Write,
) -> Result<(), TransferError> {
    let path = snapshot.folder().join(bulk.name);
    let mut buffer = vec![0; SUM_CHUNK_BYTES];
    for sum in &bulk.sums.0 {
        let (offset, length) = chunk_range(sum.chunk, bulk.bytes);
        let content = &mut buffer[..length];
        disk::read_at(file, &path, content, offset)?;
        check_chunk(snapshot.id(), bulk.name, sum, offset, content)?;
        out.write_all(content)
            .map_err(|source| TransferError::Write { source })?;
    }
    Ok(())
}

fn check_chunk(
    id: SnapshotId,
    part: &'static str,
    sum: &Sum,
    offset: u64,
    content: &[u8],
) -> Result<(), TransferError> {
    if sum.hash == *blake3::hash(content).as_bytes() {
        return Ok(());
    }
    Err(TransferError::Damaged { id, part, offset })
}
