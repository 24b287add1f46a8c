//! Snapshot files and exports written by hand, from FORMAT.md and not from the code: honest, or with lies in them.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use vmrepl_snapshots::{SnapshotId, Store};

pub(crate) const FIXED_BYTES: usize = 384;
pub(crate) const ROW_BYTES: usize = 80;
const SUM_BYTES: usize = 32;

/// Where the fields of a row of the section table lie in it.
pub(crate) mod row {
    pub(crate) const NAME: usize = 0;
    pub(crate) const RESERVED: usize = 28;
    pub(crate) const OFFSET: usize = 32;
    pub(crate) const LENGTH: usize = 40;
    pub(crate) const CHECKSUM: usize = 48;
}

pub(crate) fn snapshot_folder(store: &Store, id: &SnapshotId) -> PathBuf {
    store.root().join("snapshots").join(id.to_string())
}

pub(crate) fn snapshot_file(store: &Store, id: &SnapshotId) -> PathBuf {
    snapshot_folder(store, id).join("snapshot")
}

fn u32_at(bytes: &[u8], at: usize) -> usize {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize
}

pub(crate) fn header_bytes(file: &[u8]) -> usize {
    u32_at(file, 12)
}

pub(crate) fn section_count(file: &[u8]) -> usize {
    u32_at(file, 84)
}

/// Names and contents of the sections.
pub(crate) fn sections(file: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut contents = &file[header_bytes(file)..];
    (0..section_count(file))
        .map(|number| {
            let row = &file[FIXED_BYTES + number * ROW_BYTES..];
            let name = row[..24].iter().take_while(|byte| **byte != 0);
            let name = name.map(|byte| char::from(*byte)).collect();
            let (content, rest) = contents.split_at(u32_at(row, row::LENGTH));
            contents = rest;
            (name, content.to_vec())
        })
        .collect()
}

/// Makes the header's checksum true again.
pub(crate) fn seal(file: &mut [u8], header_bytes: usize) {
    let (covered, rest) = file.split_at_mut(header_bytes - SUM_BYTES);
    rest[..SUM_BYTES].copy_from_slice(blake3::hash(covered).as_bytes());
}

/// The file with other bytes at `at` in its header, under a true checksum.
pub(crate) fn patched(file: &[u8], at: usize, bytes: &[u8]) -> Vec<u8> {
    let header = header_bytes(file);
    let mut file = file.to_vec();
    file[at..at + bytes.len()].copy_from_slice(bytes);
    seal(&mut file, header);
    file
}

/// The file with other content in one section, and everything that depends on it put right.
pub(crate) fn with_section(file: &[u8], name: &str, content: &[u8]) -> Vec<u8> {
    let header = header_bytes(file);
    let mut out = file[..header].to_vec();
    for (number, (found, old)) in sections(file).into_iter().enumerate() {
        let content = if found == name { content } else { &old };
        let at = FIXED_BYTES + number * ROW_BYTES;
        let offset = (out.len() as u64).to_le_bytes();
        out[at + row::OFFSET..at + row::LENGTH].copy_from_slice(&offset);
        let length = (content.len() as u64).to_le_bytes();
        out[at + row::LENGTH..at + row::CHECKSUM].copy_from_slice(&length);
        out[at + row::CHECKSUM..at + ROW_BYTES].copy_from_slice(blake3::hash(content).as_bytes());
        out.extend_from_slice(content);
    }
    let length = (out.len() as u64).to_le_bytes();
    out[16..24].copy_from_slice(&length);
    seal(&mut out, header);
    out
}

/// A page index; `pages` are page number, stored length and encoding.
pub(crate) fn page_index(count: u32, pages: &[(u32, u16, u8)]) -> Vec<u8> {
    let mut out = vec![0; 16];
    out.extend_from_slice(&count.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    for (page, length, tag) in pages {
        out.extend_from_slice(&page.to_le_bytes());
        out.extend_from_slice(&length.to_le_bytes());
        out.extend_from_slice(&[*tag, 0]);
    }
    out
}

/// Checksums over chunks of a mebibyte.
pub(crate) fn sums(chunk_bytes: u32, count: u32, sums: &[(u32, [u8; 32])]) -> Vec<u8> {
    let mut out = chunk_bytes.to_le_bytes().to_vec();
    out.extend_from_slice(&count.to_le_bytes());
    for (chunk, hash) in sums {
        out.extend_from_slice(&chunk.to_le_bytes());
        out.extend_from_slice(hash);
    }
    out
}

/// An exported file: its head, then everything else compressed.
pub(crate) fn exported(count: u32, tip: &SnapshotId, content: &[u8]) -> Vec<u8> {
    let mut out = b"VMREPLEX".to_vec();
    out.extend_from_slice(&1_u32.to_le_bytes());
    out.extend_from_slice(&count.to_le_bytes());
    out.extend_from_slice(tip.as_bytes());
    out.extend_from_slice(&zstd::encode_all(content, 3).unwrap());
    out
}

/// What an exported file says of one snapshot: length and content of its file, and the chunks that are not zero.
pub(crate) fn exported_snapshot(file: &[u8], bulk: &[u8]) -> Vec<u8> {
    let mut out = (file.len() as u64).to_le_bytes().to_vec();
    out.extend_from_slice(file);
    out.extend_from_slice(bulk);
    out
}

/// A frame that asks its reader to keep a window of `2^log` bytes.
pub(crate) fn wide_frame(log: u32, content: &[u8]) -> Vec<u8> {
    let mut encoder = zstd::Encoder::new(Vec::new(), 3).unwrap();
    encoder.window_log(log).unwrap();
    encoder.write_all(content).unwrap();
    // Flushed before the end, so that the frame cannot be cut to the length of its content.
    encoder.flush().unwrap();
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

/// An error with all its causes.
pub(crate) fn told(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}

pub(crate) fn overwrite(path: &Path, bytes: &[u8]) {
    fs::write(path, bytes).unwrap();
}
