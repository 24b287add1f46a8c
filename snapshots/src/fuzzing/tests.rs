//! The fuzz target in the ordinary test run: over the inputs that are kept, over these with changes, and over noise.

use std::fs;
use std::path::PathBuf;

use proptest::prelude::*;

use super::{LAID_OUT, SEALED, snapshot};
use crate::encoding::Encoder;
use crate::page_index::{IndexVersion, PageIndex};
use crate::sums::Sums;
use crate::{Encoding, PAGE_BYTES, SnapshotId};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Files that came from these tests or from a finding.
fn folder() -> PathBuf {
    root().join("fuzz/seeds/snapshot")
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

/// The bytes with others at `at`.
fn with(bytes: &[u8], at: usize, other: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[at..at + other.len()].copy_from_slice(other);
    bytes
}

#[test]
fn kept_inputs_pass() {
    let mut index = PageIndex::default();
    index.push(1, Encoding::Zero, 0);
    index.push(700, Encoding::Raw, PAGE_BYTES);
    let mut encoded = PageIndex::new(IndexVersion::Encoded, Some(SnapshotId::from_bytes([7; 16])));
    encoded.push(3, Encoding::Difference, 0);
    encoded.push(4, Encoding::Lz4, 100);
    // A page of few words, and one that differs from it in three places.
    let words: [u8; PAGE_BYTES] = std::array::from_fn(|at| u8::try_from(at % 7).unwrap());
    let mut other = words;
    other[5] = 200;
    other[100..120].fill(9);
    other[4090..].fill(9);
    let mut encoder = Encoder::new();
    let (difference, runs) = encoder.encode(&other, &words);
    assert_eq!(difference, Encoding::Difference);
    let runs = runs.to_vec();
    let (lz4, block) = encoder.encode(&words, &[0; PAGE_BYTES]);
    assert_eq!(lz4, Encoding::Lz4);
    let block = block.to_vec();
    let mut sums = Sums::default();
    sums.push(0, b"one");
    sums.push(5, b"two");
    let id = SnapshotId::from_bytes([0x1a; 16]);
    let head = [&b"VMREPLEX\x01\0\0\0\x02\0\0\0"[..], id.as_bytes()].concat();
    let mut seeds = vec![
        ("index", 0, index.encode()),
        (
            "index-twice",
            0,
            with(&index.encode(), 24 + 8, &[1, 0, 0, 0]),
        ),
        (
            "index-outside",
            0,
            with(&index.encode(), 24 + 8, &[0, 0, 16, 0]),
        ),
        ("index-reserved", 0, with(&index.encode(), 24 + 15, &[1])),
        ("index-encoded", 0, encoded.encode()),
        ("page-difference", 0, runs),
        ("page-lz4", 0, block),
        ("sums", 0, sums.encode()),
        ("sums-twice", 0, with(&sums.encode(), 8 + 36, &[0])),
        ("id", 0, id.to_string().into_bytes()),
        ("export", 0, head),
    ];
    for entry in fs::read_dir(root().join("tests/golden/snapshots/v1/snapshots")).unwrap() {
        let file = fs::read(entry.unwrap().path().join("snapshot")).unwrap();
        if file[24] == 1 {
            let longer = [&file[..], b"!"].concat();
            let length = (longer.len() as u64).to_le_bytes();
            seeds.extend([
                ("base", 0, file.clone()),
                ("base-place", SEALED, with(&file, 384 + 32, &[0xff])),
                ("base-reserved", SEALED, with(&file, 88, &[1])),
                ("base-longer", SEALED, with(&longer, 16, &length)),
                ("base-made-true", LAID_OUT | SEALED, file),
            ]);
        } else {
            seeds.push(("layer", 0, file.clone()));
            seeds.push(("layer-made-true", LAID_OUT | SEALED, file));
        }
    }
    for (name, how, bytes) in &seeds {
        let input = [&[*how], &bytes[..]].concat();
        assert!(is_current(name, &input), "fuzz/seeds/snapshot/{name}");
    }
    for input in kept() {
        snapshot(&input);
    }
}

/// Changes of an input's bytes: where, how many of the old ones go, and what comes.
type Changes = Vec<(prop::sample::Index, usize, Vec<u8>)>;

fn changes() -> impl Strategy<Value = Changes> {
    let change = (
        any::<prop::sample::Index>(),
        0..20_usize,
        prop::collection::vec(any::<u8>(), 0..20),
    );
    prop::collection::vec(change, 0..6)
}

/// A finding belongs into `fuzz/seeds`, not into a file of its own.
fn config() -> ProptestConfig {
    ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(4000)
    }
}

thread_local! {
    /// One for each test, which is a thread of its own.
    static KEPT: Vec<Vec<u8>> = kept();
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn inputs_with_changes_pass(which: prop::sample::Index, changes in changes()) {
        let mut bytes = KEPT.with(|kept| which.get(kept).clone());
        for (at, gone, new) in changes {
            let at = at.index(bytes.len() + 1);
            let end = bytes.len().min(at + gone);
            bytes.splice(at..end, new);
        }
        snapshot(&bytes);
    }

    #[test]
    fn noise_passes(bytes in prop::collection::vec(any::<u8>(), 0..1000)) {
        snapshot(&bytes);
    }
}
