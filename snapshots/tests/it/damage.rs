//! Every byte of a snapshot is flipped: what is read is refused with its name, and `verify` finds the rest.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use vmrepl_snapshots::{PAGE_BYTES, Page, SnapshotId, Store, StoreError};

use crate::forge::{header_bytes, sections, snapshot_file, snapshot_folder};
use crate::ground::{page, publish_base, publish_layer};

const CHUNK_BYTES: u64 = 1 << 20;

fn flip(path: &Path, at: u64, bit: u8) {
    let file = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ bit], at).unwrap();
}

struct Small {
    _folder: tempfile::TempDir,
    store: Store,
    base: SnapshotId,
    layer: SnapshotId,
}

fn small() -> Small {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("store")).unwrap();
    let base = publish_base(&store, 4, &[(1, page(1)), (3, page(2))]).unwrap();
    let layer = publish_layer(&store, &base, &[(0, page(3)), (1, page(0))]).unwrap();
    Small {
        _folder: folder,
        store,
        base,
        layer,
    }
}

/// What `verify` names, which must be one thing.
fn found_by_verify(store: &Store, id: &SnapshotId) -> (String, u64) {
    let report = store.verify(id).unwrap();
    let [damage] = report.damage.as_slice() else {
        panic!("one damage: {report:?}");
    };
    (damage.part.clone(), damage.offset)
}

#[test]
fn a_flipped_byte_of_a_header_is_refused() {
    let small = small();
    for id in [small.base, small.layer] {
        let path = snapshot_file(&small.store, &id);
        let header = header_bytes(&fs::read(&path).unwrap());
        for at in 0..header as u64 {
            let bit = 1 << (at % 8);
            flip(&path, at, bit);
            let refused = small.store.snapshot(&id).unwrap_err();
            assert!(
                matches!(&refused, StoreError::Header { path: named, .. } if *named == path),
                "byte {at}: {refused:?}"
            );
            assert!(small.store.chain(&small.layer).is_err(), "byte {at}");
            assert_eq!(
                found_by_verify(&small.store, &id),
                ("header".to_owned(), 0),
                "byte {at}"
            );
            flip(&path, at, bit);
        }
        assert!(small.store.verify(&id).unwrap().is_sound());
    }
}

#[test]
fn a_flipped_byte_of_a_section_is_refused_with_its_name_and_harms_no_other() {
    let small = small();
    for id in [small.base, small.layer] {
        let path = snapshot_file(&small.store, &id);
        let bytes = fs::read(&path).unwrap();
        let mut at = header_bytes(&bytes) as u64;
        let sections = sections(&bytes);
        assert!(sections.len() > 1);
        for (name, content) in &sections {
            let begin = at;
            for _ in content {
                let bit = 1 << (at % 8);
                flip(&path, at, bit);
                let snapshot = small.store.snapshot(&id).unwrap();
                for (other, content) in &sections {
                    match snapshot.read_section(other) {
                        Ok(read) => assert!(other != name && read.bytes == *content, "byte {at}"),
                        Err(StoreError::SectionDamaged {
                            section,
                            path: named,
                        }) => {
                            assert!(
                                other == name && section == *name && named == path,
                                "byte {at}: {section}"
                            );
                        }
                        Err(error) => panic!("byte {at}: {error:?}"),
                    }
                }
                let pages = small.store.chain(&id).and_then(|chain| chain.pages());
                assert_eq!(pages.is_err(), name == "page-index", "byte {at}");
                assert_eq!(
                    found_by_verify(&small.store, &id),
                    (name.clone(), begin),
                    "byte {at}"
                );
                assert!(small.store.export(&id, std::io::sink()).is_err());
                flip(&path, at, bit);
                at += 1;
            }
        }
        assert_eq!(at, bytes.len() as u64);
    }
}

#[test]
fn a_snapshot_file_that_ends_early_or_late_is_refused() {
    let small = small();
    let path = snapshot_file(&small.store, &small.layer);
    let bytes = fs::read(&path).unwrap();
    for length in 0..bytes.len() {
        fs::write(&path, &bytes[..length]).unwrap();
        assert!(small.store.snapshot(&small.layer).is_err(), "{length}");
    }
    fs::write(&path, [bytes.as_slice(), &[0]].concat()).unwrap();
    small.store.snapshot(&small.layer).unwrap_err();
    fs::write(&path, &bytes).unwrap();
    small.store.snapshot(&small.layer).unwrap();
}

/// Numbers without a pattern, the same in every run.
fn scattered(count: usize, below: u64) -> Vec<u64> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % below
    })
    .take(count)
    .collect()
}

/// The first and last byte of every page, and 200 others.
fn places(bytes: u64) -> Vec<u64> {
    let page_bytes = PAGE_BYTES as u64;
    let pages = 0..bytes / page_bytes;
    let mut places: Vec<u64> = pages
        .flat_map(|page| [page * page_bytes, (page + 1) * page_bytes - 1])
        .collect();
    places.extend(scattered(200, bytes));
    places
}

fn large(store: &Store) -> [(SnapshotId, &'static str, PathBuf); 2] {
    // Two chunks and a piece: data, a hole of a whole chunk, data at the very end.
    let full =
        |from: u64, to: u64| -> Vec<(u64, Page)> { (from..to).map(|at| (at, page(7))).collect() };
    let base_pages = [full(0, 20), full(100, 130), full(512, 530)].concat();
    let base = publish_base(store, 530, &base_pages).unwrap();
    let layer = publish_layer(store, &base, &full(10, 290)).unwrap();
    [(base, "memory"), (layer, "pages")]
        .map(|(id, name)| (id, name, snapshot_folder(store, &id).join(name)))
}

#[test]
fn a_flipped_byte_of_the_bulk_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("store")).unwrap();
    for (id, part, path) in large(&store) {
        let bytes = fs::metadata(&path).unwrap().len();
        assert!(bytes > CHUNK_BYTES);
        for at in places(bytes) {
            let bit = 1 << (at % 8);
            flip(&path, at, bit);
            let (named, offset) = found_by_verify(&store, &id);
            assert_eq!(named, part, "byte {at}");
            assert_eq!(offset / CHUNK_BYTES, at / CHUNK_BYTES, "byte {at}");
            assert!(offset <= at, "byte {at}");
            flip(&path, at, bit);
        }
        assert!(store.verify(&id).unwrap().is_sound());
    }
}

#[test]
fn a_lost_chunk_or_tail_of_the_bulk_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("store")).unwrap();
    let bulks = large(&store);
    for (id, part, path) in &bulks {
        let file = fs::OpenOptions::new().write(true).open(path).unwrap();
        let bytes = fs::metadata(path).unwrap().len();
        let content = fs::read(path).unwrap();
        // All of it a hole: every chunk that had data is named.
        file.set_len(0).unwrap();
        file.set_len(bytes).unwrap();
        let report = store.verify(id).unwrap();
        assert_eq!(report.damage.len(), 2, "{report:?}");
        assert!(report.damage.iter().all(|damage| damage.part == *part));
        for length in [0, bytes - 1, bytes + 1] {
            file.set_len(length).unwrap();
            assert_eq!(found_by_verify(&store, id), ((*part).to_owned(), 0));
            // Nothing is restored over a file of the wrong length.
            let opened = store.chain(id).and_then(|chain| chain.pages());
            assert!(
                matches!(opened, Err(StoreError::FileLength { .. })),
                "{length}"
            );
        }
        file.set_len(bytes).unwrap();
        file.write_all_at(&content, 0).unwrap();
        assert!(store.verify(id).unwrap().is_sound());
    }
    let [(_, _, _), (layer, _, _)] = &bulks;
    fs::remove_dir_all(snapshot_folder(&store, &bulks[0].0)).unwrap();
    assert_eq!(found_by_verify(&store, layer), ("parent".to_owned(), 0));
}
