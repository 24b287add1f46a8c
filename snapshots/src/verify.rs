//! Verification: every byte of a snapshot against its checksums.

use std::path::Path;

use crate::disk;
use crate::encoding::{self, Encoding};
use crate::error::StoreError;
use crate::page_index::PageIndex;
use crate::snapshot::{MEMORY_FILE, Snapshot};
use crate::store::Store;
use crate::sums::{Sums, chunk_range};
use crate::{PAGE_BYTES, SnapshotId, chain, memory, page_index, sums};

/// What verification found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The snapshot.
    pub id: SnapshotId,
    /// Bytes that were read and compared.
    pub checked_bytes: u64,
    /// What is wrong; nothing if the snapshot is sound.
    pub damage: Vec<Damage>,
}

/// One damaged place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// `header`, the name of a section, `memory`, `pages` or `parent`.
    pub part: String,
    /// First byte of the damage in its file, as exactly as the checksums tell (memory and pages: to the mebibyte).
    pub offset: u64,
    /// What is wrong, with the error's causes.
    pub what: String,
}

impl Report {
    fn new(id: SnapshotId) -> Self {
        Self {
            id,
            checked_bytes: 0,
            damage: Vec::new(),
        }
    }

    /// Whether nothing is wrong.
    pub fn is_sound(&self) -> bool {
        self.damage.is_empty()
    }

    fn add(&mut self, part: &str, offset: u64, what: impl Into<String>) {
        self.damage.push(Damage {
            part: part.to_owned(),
            offset,
            what: what.into(),
        });
    }

    fn add_error(&mut self, part: &str, offset: u64, error: &StoreError) {
        let mut what = error.to_string();
        let mut cause = std::error::Error::source(error);
        while let Some(inner) = cause {
            what = format!("{what}: {inner}");
            cause = inner.source();
        }
        self.add(part, offset, what);
    }
}

impl Store {
    /// Verifies one snapshot: header, sections, every byte of memory or pages, and that it fits its parent.
    ///
    /// # Errors
    /// When there is no such snapshot. All else that is wrong is in the report.
    pub fn verify(&self, id: &SnapshotId) -> Result<Report, StoreError> {
        let snapshot = match self.snapshot(id) {
            Ok(snapshot) => snapshot,
            Err(error @ StoreError::NotFound { .. }) if !self.snapshot_folder(id).exists() => {
                return Err(error);
            }
            Err(error) => {
                let mut report = Report::new(*id);
                report.add_error("header", 0, &error);
                return Ok(report);
            }
        };
        let report = self.verify_opened(&snapshot);
        match snapshot.if_changed().filter(|_| !report.is_sound()) {
            Some(now) => Ok(self.verify_opened(&now)),
            None => Ok(report),
        }
    }

    fn verify_opened(&self, snapshot: &Snapshot) -> Report {
        let mut report = Report::new(snapshot.id());
        report.checked_bytes += snapshot.header().file_bytes();
        for entry in &snapshot.header().sections {
            if let Err(error) = snapshot.read_section(&entry.name) {
                report.add_error(&entry.name, entry.offset, &error);
            }
        }
        match snapshot.header().parent() {
            None => verify_memory(snapshot, &mut report),
            Some(parent) => {
                let index = verify_pages(snapshot, &mut report);
                let fit = self
                    .snapshot(&parent)
                    .and_then(|parent| chain::check_fit(snapshot.header(), parent.header()));
                if let Err(error) = fit {
                    report.add_error("parent", 0, &error);
                } else if let Some(index) = index.filter(|index| index.ancestor.is_some()) {
                    self.verify_ancestor(snapshot, &index, &mut report);
                }
            }
        }
        report
    }

    /// Whether what the differences are against is there. What is wrong with the snapshots between is not this one's.
    fn verify_ancestor(&self, snapshot: &Snapshot, index: &PageIndex, report: &mut Report) {
        let found = match self.chain(&snapshot.id()) {
            Ok(chain) => chain.ancestor(0, index).map(drop),
            Err(error) => return report.add_error("parent", 0, &error),
        };
        if let Err(error) = found {
            let section = page_index::SECTION;
            report.add_error(section, offset_of(snapshot, section), &error);
        }
    }
}

/// Compares the memory or the pages of a snapshot with their checksums, for who is about to copy them.
pub(crate) fn check_bulk(snapshot: &Snapshot) -> Result<(), StoreError> {
    snapshot.settled(|snapshot| {
        let mut report = Report::new(snapshot.id());
        let file = if snapshot.header().parent().is_none() {
            compare_memory(snapshot, &snapshot.memory_sums()?, &mut report)?;
            MEMORY_FILE
        } else {
            let index = snapshot.page_index()?;
            let sums = snapshot.page_sums(index.stored_bytes)?;
            compare_pages(snapshot, &index, &sums, &mut report)?;
            index.version.file()
        };
        match report.damage.first() {
            None => Ok(()),
            Some(damage) => Err(StoreError::Damaged {
                path: snapshot.folder().join(file),
                offset: damage.offset,
            }),
        }
    })
}

fn compare_memory(snapshot: &Snapshot, sums: &Sums, report: &mut Report) -> Result<(), StoreError> {
    let path = snapshot.folder().join(MEMORY_FILE);
    let bytes = snapshot.header().facts.memory_bytes;
    compare(&path, sums, bytes, "memory", report)
}

fn compare_pages(
    snapshot: &Snapshot,
    index: &PageIndex,
    sums: &Sums,
    report: &mut Report,
) -> Result<(), StoreError> {
    let path = snapshot.folder().join(index.version.file());
    compare(&path, sums, index.stored_bytes, "pages", report)
}

fn verify_memory(snapshot: &Snapshot, report: &mut Report) {
    let section = sums::MEMORY_SECTION;
    match snapshot.memory_sums() {
        // A damaged section was reported with the others.
        Err(StoreError::SectionDamaged { .. }) => {}
        Err(error) => report.add_error(section, offset_of(snapshot, section), &error),
        Ok(sums) => {
            if let Err(error) = compare_memory(snapshot, &sums, report) {
                report.add_error("memory", 0, &error);
            }
        }
    }
}

/// Returns the index, if it can be read.
fn verify_pages(snapshot: &Snapshot, report: &mut Report) -> Option<PageIndex> {
    let index = match snapshot.page_index() {
        // A damaged section was reported with the others.
        Err(StoreError::SectionDamaged { .. }) => return None,
        Err(error) => {
            let section = page_index::SECTION;
            report.add_error(section, offset_of(snapshot, section), &error);
            return None;
        }
        Ok(index) => index,
    };
    let section = sums::PAGES_SECTION;
    match snapshot.page_sums(index.stored_bytes) {
        Err(StoreError::SectionDamaged { .. }) => {}
        Err(error) => report.add_error(section, offset_of(snapshot, section), &error),
        Ok(sums) => {
            let before = report.damage.len();
            let mut compared = compare_pages(snapshot, &index, &sums, report);
            // Damage is told by the checksums, and what they cannot tell, a lie, by what does not decode.
            if compared.is_ok() && report.damage.len() == before {
                compared = decode_pages(snapshot, &index, report);
            }
            if let Err(error) = compared {
                report.add_error("pages", 0, &error);
            }
        }
    }
    Some(index)
}

/// Decodes every page by itself. Whether a difference can be applied does not depend on what it is applied to.
fn decode_pages(
    snapshot: &Snapshot,
    index: &PageIndex,
    report: &mut Report,
) -> Result<(), StoreError> {
    let path = snapshot.folder().join(index.version.file());
    let file = disk::open(&path)?;
    let mut page = [0; PAGE_BYTES];
    let mut buffer = [0; PAGE_BYTES];
    for entry in &index.entries {
        let decode = match entry.encoding {
            Encoding::Zero | Encoding::Raw => continue,
            Encoding::Lz4 => encoding::unpack,
            Encoding::Difference => encoding::apply,
        };
        let stored = &mut buffer[..usize::from(entry.length)];
        disk::read_at(&file, &path, stored, entry.offset)?;
        if let Err(source) = decode(stored, &mut page) {
            let (page, path) = (entry.page.into(), path.clone());
            let refused = StoreError::Page { page, path, source };
            report.add_error("pages", entry.offset, &refused);
        }
    }
    Ok(())
}

fn offset_of(snapshot: &Snapshot, section: &str) -> u64 {
    snapshot
        .header()
        .section(section)
        .map_or(0, |entry| entry.offset)
}

/// Compares a file with its sums: the chunks that have one, and that all others are zero.
fn compare(
    path: &Path,
    sums: &Sums,
    expected: u64,
    part: &str,
    report: &mut Report,
) -> Result<(), StoreError> {
    let file = disk::open(path)?;
    let found = disk::length(&file, path)?;
    if found != expected {
        return Err(StoreError::FileLength {
            path: path.to_owned(),
            found,
            expected,
        });
    }
    let mut left = sums.0.iter().peekable();
    memory::for_each_data_chunk(&file, path, expected, |chunk, content| {
        // Chunks with a sum that are passed over are holes now.
        while let Some(sum) = left.next_if(|sum| sum.chunk < chunk) {
            report.add(
                part,
                chunk_range(sum.chunk, expected).0,
                "there is a hole instead of data",
            );
        }
        let offset = chunk_range(chunk, expected).0;
        report.checked_bytes += content.len() as u64;
        match left.next_if(|sum| sum.chunk == chunk) {
            Some(sum) if sum.hash != *blake3::hash(content).as_bytes() => {
                report.add(
                    part,
                    offset,
                    format!("the checksum of {} bytes does not match", content.len()),
                );
            }
            Some(_) => {}
            None => {
                if let Some(at) = memory::first_data(content) {
                    let page = (offset + at as u64) / PAGE_BYTES as u64;
                    report.add(
                        part,
                        offset + at as u64,
                        format!("page {page} should be zero"),
                    );
                }
            }
        }
        Ok(())
    })?;
    for sum in left {
        report.add(
            part,
            chunk_range(sum.chunk, expected).0,
            "there is a hole instead of data",
        );
    }
    Ok(())
}
