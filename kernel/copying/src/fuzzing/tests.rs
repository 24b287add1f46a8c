//! The fuzz target in the ordinary test run: over the inputs that are kept, over these with changes, and over noise.

use std::fs;
use std::path::PathBuf;

use proptest::prelude::*;
use tar::{EntryType, Header};

use super::copying;
use crate::record::push_record;

/// Inputs that came from these tests or from a finding.
fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds/copying")
}

fn kept() -> Vec<Vec<u8>> {
    let entries = fs::read_dir(folder()).unwrap();
    entries
        .map(|entry| fs::read(entry.unwrap().path()).unwrap())
        .collect()
}

/// Whether the kept file is what the code makes today; `VMREPL_BLESS=1` writes it.
fn is_current(name: &str, bytes: &[u8]) -> bool {
    let path = folder().join(name);
    if std::env::var_os("VMREPL_BLESS").is_some() {
        fs::create_dir_all(folder()).unwrap();
        fs::write(&path, bytes).unwrap();
    }
    fs::read(path).is_ok_and(|found| found == bytes)
}

fn entry(kind: EntryType, name: &[u8], link: &[u8], content: &[u8]) -> Vec<u8> {
    let mut header = Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(0o7755);
    header.set_mtime(1);
    header.set_size(content.len() as u64);
    header.as_old_mut().name[..name.len()].copy_from_slice(name);
    header.as_old_mut().linkname[..link.len()].copy_from_slice(link);
    header.set_cksum();
    let padding = vec![0; content.len().next_multiple_of(512) - content.len()];
    [header.as_bytes(), content, &padding].concat()
}

fn seeds() -> [(&'static str, Vec<u8>); 3] {
    let mut records = Vec::new();
    push_record("path", b"inner/long", &mut records);
    push_record("mtime", b"1.5", &mut records);
    [
        (
            "plain",
            [
                vec![1],
                entry(EntryType::Directory, b"inner/", b"", b""),
                entry(EntryType::Regular, b"inner/file", b"", b"content"),
                entry(EntryType::Link, b"name", b"inner/file", b""),
                entry(EntryType::Symlink, b"link", b"inner", b""),
            ]
            .concat(),
        ),
        (
            "records",
            [
                vec![1],
                entry(EntryType::XHeader, b"@", b"", &records),
                entry(EntryType::Regular, b"x", b"", b"content"),
                entry(EntryType::GNULongName, b"@", b"", b"inner/longer\0"),
                entry(EntryType::GNULongLink, b"@", b"", b"../beside\0"),
                entry(EntryType::Symlink, b"x", b"x", b""),
            ]
            .concat(),
        ),
        (
            "outward",
            [
                vec![1],
                entry(EntryType::Regular, b"out", b"", b"over the link"),
                entry(EntryType::Symlink, b"a", b"up", b""),
                entry(EntryType::Regular, b"a/beside", b"", b"through the link"),
            ]
            .concat(),
        ),
    ]
}

#[test]
fn kept_archives_pass() {
    for (name, bytes) in seeds() {
        assert!(is_current(name, &bytes), "fuzz/seeds/copying/{name}");
    }
    for input in kept() {
        copying(&input);
    }
}

/// A finding belongs into `fuzz/seeds`, not into a file of its own.
fn config() -> ProptestConfig {
    ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(400)
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn archives_with_changes_pass(
        which in 0..3_usize,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
    ) {
        let mut bytes = seeds()[which].1.clone();
        for (at, new) in changes {
            let at = at.index(bytes.len());
            bytes[at] = new;
        }
        copying(&bytes);
    }

    #[test]
    fn noise_passes(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        copying(&bytes);
    }
}
