//! Flattening makes checksums of its own, so it must not call damage sound; and it keeps what it reads.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on says where, and that is all it needs to say"
)]

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use vmrepl_snapshots::{Facts, PAGE_BYTES, SnapshotId, Step, Store, StoreError};

/// More than one chunk.
const PAGE_COUNT: u64 = 300;

fn base_and_layer(store: &Store) -> [SnapshotId; 2] {
    let facts = Facts {
        engine: "test".to_owned(),
        compat: "test engine 1".to_owned(),
        architecture: "x86_64".to_owned(),
        cpu: "any".to_owned(),
        memory_bytes: PAGE_COUNT * PAGE_BYTES as u64,
    };
    let base = store.base_draft(facts.memory_bytes).unwrap();
    let memory = OpenOptions::new()
        .write(true)
        .open(base.memory_path())
        .unwrap();
    for at in [3, PAGE_COUNT - 1] {
        memory
            .write_all_at(&[1; PAGE_BYTES], at * PAGE_BYTES as u64)
            .unwrap();
    }
    let base = base.publish(&facts).unwrap();
    let layer = store.layer_draft(&base).unwrap();
    let layer = layer.publish([(3, &[2; PAGE_BYTES]), (7, &[3; PAGE_BYTES])]);
    [base, layer.unwrap()]
}

fn flip(path: &Path, at: u64) {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[!byte[0]], at).unwrap();
}

#[test]
fn damage_is_refused_with_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("store")).unwrap();
    let [base, layer] = base_and_layer(&store);
    let memory = store.snapshot(&base).unwrap().memory_path().unwrap();
    let pages = store.root().join(format!("snapshots/{layer}/pages"));
    // In data, in a hole, under a page that the layer replaces, and in the layer itself.
    let last = (PAGE_COUNT - 1) * PAGE_BYTES as u64;
    for (path, at) in [
        (&memory, last),
        (&memory, 5),
        (&memory, 3 << 12),
        (&pages, 4097),
    ] {
        flip(path, at);
        let error = store.flatten(&layer, &[]).unwrap_err();
        assert!(
            matches!(&error, StoreError::Damaged { path: named, offset } if named == path && *offset <= at),
            "{error:?}"
        );
        flip(path, at);
    }
    let flat = store.flatten(&layer, &[]).unwrap();
    assert_eq!(store.ids().unwrap().len(), 3);
    assert!(store.verify(&flat).unwrap().is_sound());
}

#[test]
fn what_is_flattened_cannot_be_removed_meanwhile() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("store");
    let store = Store::open(&root).unwrap();
    let [_, layer] = base_and_layer(&store);
    let remover = store.clone();
    let refused = std::sync::Arc::new(std::sync::Mutex::new(None));
    let tried = refused.clone();
    let watched = Store::open_observed(&root, move |step, _| {
        if step == Step::MakeFolder {
            *tried.lock().unwrap() = Some(remover.remove(&layer));
        }
        Ok(())
    });
    watched.unwrap().flatten(&layer, &[]).unwrap();
    let refused = refused.lock().unwrap().take().unwrap();
    assert!(
        matches!(refused, Err(StoreError::InUse { id }) if id == layer),
        "{refused:?}"
    );
    store.remove(&layer).unwrap();
}
