//! Encoded layers under true checksums that say what is not so.

use std::fs;

use proptest::prelude::*;
use vmrepl_snapshots::{SnapshotId, Store, StoreError};

use crate::encoded::{base_and_layer, noise};
use crate::forge::{
    FIXED_BYTES, ROW_BYTES, overwrite, page_index, patched, snapshot_file, snapshot_folder, sums,
    told, with_section,
};
use crate::ground::{memory, publish_layer};

const VERSION: usize = FIXED_BYTES + ROW_BYTES + 24;

/// A base and three layers on it, the second one encoded.
struct Honest {
    _folder: tempfile::TempDir,
    store: Store,
    ids: [SnapshotId; 4],
    file: Vec<u8>,
}

impl Honest {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("store")).unwrap();
        let [base, first] = base_and_layer(&store);
        let mut changed = noise(3);
        changed[7] ^= 1;
        let pages = [(3, changed), (5, noise(5))];
        let second = publish_layer(&store, &first, &pages).unwrap();
        let third = publish_layer(&store, &second, &[(6, noise(60))]).unwrap();
        assert!(store.encode(&second).unwrap());
        let ids = [base, first, second, third];
        Self {
            file: fs::read(snapshot_file(&store, &second)).unwrap(),
            _folder: folder,
            store,
            ids,
        }
    }

    fn set(&self, index: &[u8], stored: &[u8]) {
        let true_sums = match stored {
            [] => sums(1 << 20, 0, &[]),
            _ => sums(1 << 20, 1, &[(0, *blake3::hash(stored).as_bytes())]),
        };
        let file = with_section(&self.file, "page-index", index);
        let file = with_section(&file, "page-sums", &true_sums);
        overwrite(&snapshot_file(&self.store, &self.ids[2]), &file);
        overwrite(
            &snapshot_folder(&self.store, &self.ids[2]).join("encoded"),
            stored,
        );
    }

    /// Every way to read both layers that depend on these bytes.
    fn read_all(&self) -> Vec<Result<(), StoreError>> {
        let mut results = Vec::new();
        for id in &self.ids[2..] {
            self.store.verify(id).unwrap();
            let pages = self.store.chain(id).and_then(|chain| chain.pages());
            results.push(pages.and_then(|pages| {
                let each = pages.for_each(|_, _| Ok::<(), StoreError>(()));
                for page in 0..8 {
                    drop(pages.get(page));
                }
                each
            }));
            results.push(memory(&self.store, id).map(drop));
        }
        results
    }
}

fn index(ancestor: &[u8; 16], pages: &[(u32, u16, u8)]) -> Vec<u8> {
    let mut index = page_index(u32::try_from(pages.len()).unwrap(), pages);
    index[..16].copy_from_slice(ancestor);
    index
}

#[test]
fn an_index_that_lies_is_refused() {
    let honest = Honest::new();
    let [base, first, second, third] = honest.ids.map(|id| *id.as_bytes());
    let nobody = [7; 16];
    let not_below = |id: SnapshotId| format!("against snapshot {id}, which the layer does not");
    let lies = [
        (
            index(&[0; 16], &[(3, 5, 3)]),
            "names no ancestor".to_owned(),
        ),
        (index(&second, &[]), not_below(honest.ids[2])),
        (index(&third, &[]), not_below(honest.ids[3])),
        (
            index(&nobody, &[]),
            "against snapshot 0707070707".to_owned(),
        ),
        (index(&first, &[(3, 0, 2)]), "as Lz4 in 0 bytes".to_owned()),
        (
            index(&first, &[(3, 4096, 2)]),
            "as Lz4 in 4096 bytes".to_owned(),
        ),
        (
            index(&first, &[(3, 4096, 3)]),
            "as Difference in 4096 bytes".to_owned(),
        ),
        (
            index(&first, &[(3, u16::MAX, 3)]),
            "as Difference in 65535".to_owned(),
        ),
        (index(&first, &[(3, 5, 4)]), "the unknown way 4".to_owned()),
        (
            index(&first, &[(8, 5, 2)]),
            "page 8 lies outside".to_owned(),
        ),
        (
            index(&first, &[(3, 5, 2), (3, 5, 2)]),
            "page 3 does not come after".to_owned(),
        ),
        (index(&first, &[(3, 5, 2)]), "instead of 5".to_owned()),
    ];
    for (index, what) in lies {
        // As long as the index says, but for the last.
        let entries = index[24..].chunks(8);
        let length = |entry: &[u8]| usize::from(u16::from_le_bytes([entry[4], entry[5]]));
        let bytes: usize = entries.map(length).sum();
        let missing = usize::from(what.contains("instead of"));
        honest.set(&index, &vec![1; bytes - missing]);
        for read in honest.read_all() {
            let text = told(&read.expect_err(&what));
            assert!(text.contains(&what), "{what:?} is not in {text:?}");
        }
        let report = honest.store.verify(&honest.ids[2]).unwrap();
        assert!(!report.is_sound(), "{what}");
    }
    // In version 1 there is no ancestor, and no page that needs one.
    honest.set(&index(&first, &[]), &[]);
    let path = snapshot_file(&honest.store, &honest.ids[2]);
    let old = patched(&fs::read(&path).unwrap(), VERSION, &[1]);
    overwrite(&path, &old);
    let text = told(&honest.read_all().remove(0).unwrap_err());
    assert!(text.contains("reserved"), "{text}");
    // Any snapshot below will do.
    for ancestor in [base, first] {
        honest.set(&index(&ancestor, &[(3, 0, 3)]), &[]);
        assert!(honest.read_all().iter().all(Result::is_ok));
        assert!(honest.store.verify(&honest.ids[2]).unwrap().is_sound());
    }
}

#[test]
fn stored_pages_that_lie_are_refused_by_their_number() {
    let honest = Honest::new();
    let first = *honest.ids[1].as_bytes();
    let short = lz4_flex::block::compress(&[1; 4095]);
    let long = lz4_flex::block::compress(&[1; 1 << 20]);
    let lies: [(u8, &[u8], &str); 11] = [
        (2, &short, "an lz4 block of 4095 bytes"),
        (2, &long[..4095], "not an lz4 block"),
        (2, &[0x1f, 0, 0xff, 0xff, 1, 0], "not an lz4 block"),
        (2, &[0xff; 5], "not an lz4 block"),
        (2, &[0xf0], "not an lz4 block"),
        (2, &[0], "an lz4 block of 0 bytes"),
        (3, &[0, 0], "a run of 0 bytes at byte 0"),
        (3, &[0xff, 0x1f, 2, 1, 1], "a run of 2 bytes at byte 4095"),
        (3, &[0, 5, 1], "ends within"),
        (3, &[0x80, 0x80, 1], "more than two bytes"),
        (3, &[0xff; 5], "more than two bytes"),
    ];
    for (tag, stored, what) in lies {
        let length = u16::try_from(stored.len()).unwrap();
        honest.set(&index(&first, &[(3, length, tag)]), stored);
        for read in honest.read_all() {
            let text = told(&read.expect_err(what));
            assert!(
                text.contains("page 3 in") && text.contains(what),
                "{what:?}: {text}"
            );
        }
        let report = honest.store.verify(&honest.ids[2]).unwrap();
        let [damage] = report.damage.as_slice() else {
            panic!("{what}: {report:?}");
        };
        assert!(
            damage.part == "pages" && damage.what.contains(what),
            "{damage:?}"
        );
    }
}

#[test]
fn an_export_with_differences_against_what_is_not_in_it_is_refused() {
    let honest = Honest::new();
    honest.set(&index(honest.ids[3].as_bytes(), &[]), &[]);
    let mut file = Vec::new();
    honest.store.export(&honest.ids[3], &mut file).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let elsewhere = Store::open(&folder.path().join("store")).unwrap();
    let text = told(&elsewhere.import(file.as_slice()).unwrap_err());
    assert!(text.contains("which the layer does not lie on"), "{text}");
    assert_eq!(elsewhere.ids().unwrap(), []);
}

thread_local! {
    static HONEST: Honest = Honest::new();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn any_stored_bytes_under_any_index_are_read_or_refused(
        pages in prop::collection::btree_map(0..9_u32, (0..40_u16, 0..5_u8), 0..6),
        stored in prop::collection::vec(prop_oneof![0..4_u8, any::<u8>()], 0..200),
        which in 0..5_usize,
    ) {
        HONEST.with(|honest| {
            let ancestor = honest.ids.get(which).map_or([0; 16], |id| *id.as_bytes());
            let pages: Vec<(u32, u16, u8)> =
                pages.into_iter().map(|(page, (length, tag))| (page, length, tag)).collect();
            let bytes: usize = pages.iter().map(|(_, length, _)| usize::from(*length)).sum();
            let mut stored = stored;
            stored.resize(bytes, 1);
            honest.set(&index(&ancestor, &pages), &stored);
            honest.read_all();
        });
    }
}
