//! What the fuzz target and the tests run on bytes that may be a snapshot. Panics when the format's readers do something
//! that they must not do, and returns otherwise.

#[cfg(test)]
mod tests;

use crate::header::{Header, LONGEST_HEADER_BYTES, header_bytes};
use crate::limits::SECTIONS;
use crate::page_index::{self, IndexVersion, PageIndex};
use crate::sums::{self, Sum, Sums, chunk_count, chunk_range};
use crate::{PAGE_BYTES, SnapshotId, encoding, transfer};

const FIXED_BYTES: usize = 384;
const SUM_BYTES: usize = 32;

/// What the first byte of an input may ask for.
const LAID_OUT: u8 = 1;
const SEALED: u8 = 2;

/// The row of a section.
mod row {
    pub(super) const BYTES: usize = 80;
    pub(super) const OFFSET: usize = 32;
    pub(super) const LENGTH: usize = 40;
    pub(super) const CHECKSUM: usize = 48;
}

/// Reads a snapshot file behind one byte that says which of its lengths and checksums are to be made true first; then
/// the same bytes as each part of the format. What is taken comes back as the same bytes, and lies where it can.
pub fn snapshot(input: &[u8]) {
    let Some((how, bytes)) = input.split_first() else {
        return;
    };
    let mut file = bytes.to_vec();
    if file.len() >= FIXED_BYTES + SUM_BYTES {
        if how & LAID_OUT != 0 {
            lay_out(&mut file);
        }
        if how & SEALED != 0 {
            seal(&mut file);
        }
    }
    read(&file);
    for version in [IndexVersion::Plain, IndexVersion::Encoded] {
        page_index(bytes, version as u32, 1 << 20);
    }
    pages(bytes);
    sums(bytes, sums::VERSION, 1 << 40);
    let (Ok(_) | Err(_)) = transfer::decode_head(bytes);
    if let Some(Ok(id)) = str::from_utf8(bytes).ok().map(str::parse::<SnapshotId>) {
        assert_eq!(id.to_string().as_bytes(), bytes);
    }
}

fn number(file: &[u8], at: usize) -> usize {
    let bytes = file[at..].first_chunk().expect("in the header");
    u32::from_le_bytes(*bytes) as usize
}

fn put(file: &mut [u8], at: usize, value: usize) {
    file[at..at + 8].copy_from_slice(&(value as u64).to_le_bytes());
}

/// Puts the sections one behind the other as far as the file goes, and makes their checksums true.
fn lay_out(file: &mut [u8]) {
    let fits = (file.len() - FIXED_BYTES - SUM_BYTES) / row::BYTES;
    let count = number(file, 84).min(fits).min(SECTIONS as usize);
    let count_bytes = u32::try_from(count).expect("few").to_le_bytes();
    file[84..88].copy_from_slice(&count_bytes);
    let header = u32::try_from(header_bytes(count)).expect("short");
    file[12..16].copy_from_slice(&header.to_le_bytes());
    let length = file.len();
    put(file, 16, length);
    let mut offset = header_bytes(count);
    for number_of_row in 0..count {
        let at = FIXED_BYTES + number_of_row * row::BYTES;
        let is_last = number_of_row + 1 == count;
        let left = length - offset;
        let bytes = if is_last {
            left
        } else {
            number(file, at + row::LENGTH).min(left)
        };
        put(file, at + row::OFFSET, offset);
        put(file, at + row::LENGTH, bytes);
        let hash = blake3::hash(&file[offset..offset + bytes]);
        file[at + row::CHECKSUM..at + row::BYTES].copy_from_slice(hash.as_bytes());
        offset += bytes;
    }
}

/// Makes the header's checksum true.
fn seal(file: &mut [u8]) {
    let end = number(file, 12);
    if let Some(header) = file.get_mut(..end)
        && let Some((covered, sum)) = header.split_last_chunk_mut::<SUM_BYTES>()
    {
        sum.copy_from_slice(blake3::hash(covered).as_bytes());
    }
}

fn read(file: &[u8]) {
    let head = &file[..file.len().min(LONGEST_HEADER_BYTES)];
    let header = Header::decode(head, file.len() as u64);
    let exported = [&(file.len() as u64).to_le_bytes(), file].concat();
    let imported = transfer::read_snapshot_file(1, &mut &exported[..]);
    let (Ok(header), Ok((imported, bytes))) = (&header, &imported) else {
        assert!(
            header.is_err() && imported.is_err(),
            "one answer for one file"
        );
        return;
    };
    assert!(header == imported && bytes == file);
    assert!(file.starts_with(&header.encode()), "a header is its bytes");
    let mut end = header_bytes(header.sections.len()) as u64;
    for entry in &header.sections {
        assert_eq!(entry.offset, end, "sections follow each other");
        end += entry.length;
    }
    assert_eq!(end, file.len() as u64, "and end with the file");
    if let Ok(bulk) = transfer::check_sections(header, file) {
        for sum in &bulk.sums.0 {
            let (offset, length) = chunk_range(sum.chunk, bulk.bytes);
            assert!(length > 0 && offset + length as u64 <= bulk.bytes);
        }
    }
    for entry in &header.sections {
        let range = entry.offset..entry.offset + entry.length;
        let range = [range.start, range.end].map(|at| usize::try_from(at).expect("in memory"));
        let content = &file[range[0]..range[1]];
        match entry.name.as_str() {
            page_index::SECTION => page_index(content, entry.version, header.page_count()),
            sums::MEMORY_SECTION => sums(content, entry.version, header.facts.memory_bytes),
            _ => {}
        }
    }
}

fn page_index(bytes: &[u8], version: u32, page_count: u64) {
    let Ok(index) = PageIndex::decode(bytes, version, page_count) else {
        return;
    };
    assert_eq!(index.encode(), bytes, "an index is its bytes");
    let mut next = (0, 0);
    for entry in &index.entries {
        let page = u64::from(entry.page);
        assert!(next.0 <= page && page < page_count);
        assert_eq!(entry.offset, next.1, "pages follow each other");
        next = (page + 1, entry.offset + u64::from(entry.length));
    }
    assert_eq!(index.stored_bytes, next.1);
}

/// What a page may be stored as: decoded into a page, or refused.
fn pages(bytes: &[u8]) {
    let mut page = [0x5a; PAGE_BYTES];
    let stored = &bytes[..bytes.len().min(PAGE_BYTES)];
    let unpacked = encoding::unpack(stored, &mut page);
    assert!(unpacked.is_err() || !stored.is_empty());
    let before = page;
    if encoding::apply(stored, &mut page).is_ok() {
        let changed = page.iter().zip(before).filter(|(now, then)| *now != then);
        assert!(changed.count() <= stored.len(), "what changes is stored");
    }
}

fn sums(bytes: &[u8], version: u32, file_bytes: u64) {
    if let Ok(sums) = Sums::decode(bytes, version, file_bytes) {
        assert_eq!(sums.encode(), bytes, "sums are their bytes");
        assert!(sums.0.is_sorted_by(|one, next| one.chunk < next.chunk));
        let inside = |sum: &Sum| u64::from(sum.chunk) < chunk_count(file_bytes);
        assert!(sums.0.last().is_none_or(inside));
    }
}
