//! Verification: every byte of a snapshot against its checksums.

use std::path::Path;

use crate::disk;
use crate::error::StoreError;
use crate::snapshot::{MEMORY_FILE, PAGES_FILE, Snapshot};
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
        let mut report = Report {
            id: *id,
            checked_bytes: 0,
            damage: Vec::new(),
        };
        let snapshot = match self.snapshot(id) {
            Ok(snapshot) => snapshot,
            Err(error @ StoreError::NotFound { .. }) if !self.snapshot_folder(id).exists() => {
                return Err(error);
            }
            Err(error) => {
                report.add_error("header", 0, &error);
                return Ok(report);
            }
        };
        report.checked_bytes += snapshot.header().file_bytes();
        for entry in &snapshot.header().sections {
            if let Err(error) = snapshot.read_section(&entry.name) {
                report.add_error(&entry.name, entry.offset, &error);
            }
        }
        match snapshot.header().parent() {
            None => verify_memory(&snapshot, &mut report),
            Some(parent) => {
                verify_pages(&snapshot, &mut report);
                let fit = self
                    .snapshot(&parent)
                    .and_then(|parent| chain::check_fit(snapshot.header(), parent.header()));
                if let Err(error) = fit {
                    report.add_error("parent", 0, &error);
                }
            }
        }
        Ok(report)
    }
}

/// Compares the memory or the pages of a snapshot with their checksums, for who is about to copy them.
pub(crate) fn check_bulk(snapshot: &Snapshot) -> Result<(), StoreError> {
    let mut report = Report {
        id: snapshot.id(),
        checked_bytes: 0,
        damage: Vec::new(),
    };
    let file = if snapshot.header().parent().is_none() {
        compare_memory(snapshot, &snapshot.memory_sums()?, &mut report)?;
        MEMORY_FILE
    } else {
        let stored_bytes = snapshot.page_index()?.stored_bytes;
        let sums = snapshot.page_sums(stored_bytes)?;
        compare_pages(snapshot, &sums, stored_bytes, &mut report)?;
        PAGES_FILE
    };
    match report.damage.first() {
        None => Ok(()),
        Some(damage) => Err(StoreError::Damaged {
            path: snapshot.folder().join(file),
            offset: damage.offset,
        }),
    }
}

fn compare_memory(snapshot: &Snapshot, sums: &Sums, report: &mut Report) -> Result<(), StoreError> {
    let path = snapshot.folder().join(MEMORY_FILE);
    let bytes = snapshot.header().facts.memory_bytes;
    compare(&path, sums, bytes, "memory", report)
}

fn compare_pages(
    snapshot: &Snapshot,
    sums: &Sums,
    stored_bytes: u64,
    report: &mut Report,
) -> Result<(), StoreError> {
    let path = snapshot.folder().join(PAGES_FILE);
    compare(&path, sums, stored_bytes, "pages", report)
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

fn verify_pages(snapshot: &Snapshot, report: &mut Report) {
    let index = match snapshot.page_index() {
        Err(StoreError::SectionDamaged { .. }) => return,
        Err(error) => {
            return report.add_error(
                page_index::SECTION,
                offset_of(snapshot, page_index::SECTION),
                &error,
            );
        }
        Ok(index) => index,
    };
    let section = sums::PAGES_SECTION;
    match snapshot.page_sums(index.stored_bytes) {
        Err(StoreError::SectionDamaged { .. }) => {}
        Err(error) => report.add_error(section, offset_of(snapshot, section), &error),
        Ok(sums) => {
            if let Err(error) = compare_pages(snapshot, &sums, index.stored_bytes, report) {
                report.add_error("pages", 0, &error);
            }
        }
    }
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
