//! Everything that reads foreign bytes, given bytes that mean nothing: none panics, none believes them.

use std::fs;

use proptest::prelude::*;
use vmrepl_snapshots::{SnapshotId, Store, StoreError};

use crate::forge::{exported, overwrite, patched, snapshot_file, with_section};
use crate::ground::{memory, page, publish_base, publish_layer};

/// A store with a base and a layer, their files as they are, and an export of both.
struct Honest {
    _folder: tempfile::TempDir,
    store: Store,
    ids: [SnapshotId; 2],
    files: [Vec<u8>; 2],
    exported: Vec<u8>,
}

impl Honest {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("store")).unwrap();
        let base = publish_base(&store, 4, &[(1, page(1))]).unwrap();
        let layer = publish_layer(&store, &base, &[(0, page(2)), (2, page(0))]).unwrap();
        let ids = [base, layer];
        let mut exported = Vec::new();
        store.export(&layer, &mut exported).unwrap();
        Self {
            files: ids.map(|id| fs::read(snapshot_file(&store, &id)).unwrap()),
            ids,
            exported,
            _folder: folder,
            store,
        }
    }

    /// Reads a snapshot with another file in every way; then puts the file right.
    fn read_with(&self, which: usize, file: &[u8]) {
        let path = snapshot_file(&self.store, &self.ids[which]);
        overwrite(&path, file);
        for id in &self.ids {
            self.store.verify(id).unwrap();
            drop(self.store.export(id, std::io::sink()));
            if let Ok(read) = memory(&self.store, id) {
                // Nothing but the base says how much memory there is.
                assert_eq!(read.len(), 4);
            }
        }
        assert_eq!(self.store.list().unwrap().len(), 2);
        overwrite(&path, &self.files[which]);
        memory(&self.store, &self.ids[1]).unwrap();
    }
}

thread_local! {
    /// One for each test, which is a thread of its own.
    static HONEST: Honest = Honest::new();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn a_snapshot_file(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        HONEST.with(|honest| {
            honest.read_with(1, &bytes);
            let mut begun = honest.files[1].clone();
            let length = bytes.len().min(begun.len() - 16);
            begun[16..16 + length].copy_from_slice(&bytes[..length]);
            honest.read_with(1, &begun);
        });
    }

    #[test]
    fn a_header_under_a_true_checksum(
        at in 16_usize..384 + 160,
        bytes in prop::collection::vec(any::<u8>(), 1..24),
    ) {
        HONEST.with(|honest| {
            let length = bytes.len().min(384 + 160 - at);
            honest.read_with(1, &patched(&honest.files[1], at, &bytes[..length]));
        });
    }

    #[test]
    fn a_section_under_a_true_checksum(
        which in 0_usize..3,
        bytes in prop::collection::vec(prop_oneof![0..3_u8, any::<u8>()], 0..100),
    ) {
        HONEST.with(|honest| {
            let (of, name) = [(0, "memory-sums"), (1, "page-index"), (1, "page-sums")][which];
            honest.read_with(of, &with_section(&honest.files[of], name, &bytes));
        });
    }
}

proptest! {
    // Fewer: these write what must last, and wait for the disk.
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn an_exported_file(bytes in prop::collection::vec(any::<u8>(), 0..300), count in 0_u32..4) {
        HONEST.with(|honest| {
            honest.store.import(bytes.as_slice()).unwrap_err();
            let file = exported(count, &honest.ids[1], &bytes);
            honest.store.import(file.as_slice()).unwrap_err();
            assert_eq!(honest.store.sweep().unwrap(), 0);
        });
    }

    #[test]
    fn an_exported_file_with_a_changed_bit(at in any::<prop::sample::Index>(), bit in 0_u8..8) {
        HONEST.with(|honest| {
            let folder = tempfile::tempdir().unwrap();
            let store = Store::open(&folder.path().join("store")).unwrap();
            let mut file = honest.exported.clone();
            *at.get_mut(&mut file) ^= 1 << bit;
            match store.import(file.as_slice()) {
                // Some bits of a compressed frame mean nothing.
                Ok(tip) => {
                    assert_eq!(tip, honest.ids[1]);
                    assert!(memory(&store, &tip).unwrap() == memory(&honest.store, &tip).unwrap());
                }
                Err(_) => assert_eq!(store.ids().unwrap(), []),
            }
            assert_eq!(store.sweep().unwrap(), 0);
        });
    }

    #[test]
    fn a_name(kind in ".{0,70}", name in "\\PC{0,70}") {
        HONEST.with(|honest| match honest.store.set_name(&kind, &name, &honest.ids[0]) {
            Ok(()) => {
                assert_eq!(honest.store.resolve(&kind, &name).unwrap(), Some(honest.ids[0]));
                assert!(honest.store.remove_name(&kind, &name).unwrap());
            }
            Err(StoreError::Name { .. }) => {}
            Err(error) => panic!("{error:?}"),
        });
    }

    #[test]
    fn a_pointer(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
        HONEST.with(|honest| {
            let folder = honest.store.root().join("names/kind");
            fs::create_dir_all(&folder).unwrap();
            overwrite(&folder.join("name"), &bytes);
            let refused = honest.store.resolve("kind", "name");
            assert!(matches!(refused, Err(StoreError::Pointer { .. })), "{refused:?}");
            honest.store.collect(&vmrepl_snapshots::Policy::default()).unwrap_err();
        });
    }
}
