//! Layers that were encoded, some before and some after others, against a plain array of pages; and who reads them
//! meanwhile.

use std::fs;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use proptest::prelude::*;
use vmrepl_snapshots::{PAGE_BYTES, Page, Policy, SnapshotId, Step, Store, StoreError};

use crate::forge::snapshot_folder;
use crate::ground::{files, memory, page, publish_base, publish_layer};

/// A page that no compression makes smaller.
pub(crate) fn noise(seed: u64) -> Page {
    let mut state = seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut page = [0; PAGE_BYTES];
    for bytes in page.chunks_mut(8) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.copy_from_slice(&state.to_le_bytes());
    }
    page
}

#[derive(Clone, Debug)]
enum Change {
    Nothing,
    Zero,
    Noise(u64),
    /// One byte, over and over.
    Flat(u8),
    /// A few bytes of what is there.
    Words(Vec<(usize, [u8; 5])>),
}

impl Change {
    fn make(&self, page: &mut Page) {
        match self {
            Self::Nothing => {}
            Self::Zero => page.fill(0),
            Self::Noise(seed) => *page = noise(*seed),
            Self::Flat(byte) => page.fill(*byte),
            Self::Words(words) => {
                for (at, bytes) in words {
                    page[*at..at + 5].copy_from_slice(bytes);
                }
            }
        }
    }
}

#[derive(Clone, Debug)]
struct Layer {
    changes: Vec<(usize, Change)>,
    /// Encoded when it is published, or as number so many of those that are encoded later.
    at_once: bool,
    turn: u8,
}

const PAGES: usize = 12;

fn layer() -> impl Strategy<Value = Layer> {
    let words = prop::collection::vec((0..PAGE_BYTES - 5, any::<[u8; 5]>()), 1..6);
    let change = prop_oneof![
        2 => Just(Change::Nothing),
        1 => Just(Change::Zero),
        1 => (0..3_u64).prop_map(Change::Noise),
        1 => (0..3_u8).prop_map(Change::Flat),
        8 => words.prop_map(Change::Words),
    ];
    let changes = prop::collection::btree_map(0..PAGES, change, 0..PAGES);
    (changes, any::<bool>(), 0..4_u8).prop_map(|(changes, at_once, turn)| Layer {
        changes: changes.into_iter().collect(),
        at_once,
        turn,
    })
}

fn check(store: &Store, id: &SnapshotId, model: &[Page]) {
    assert!(store.verify(id).unwrap().is_sound());
    assert!(memory(store, id).unwrap() == model, "{id}");
    let chain = store.chain(id).unwrap();
    let base = memory(store, &chain.base().id()).unwrap();
    let mut laid = base.clone();
    let pages = chain.pages().unwrap();
    let mut indices = Vec::new();
    pages
        .for_each(|page, content| {
            laid[usize::try_from(page).unwrap()] = *content;
            indices.push(page);
            Ok::<(), StoreError>(())
        })
        .unwrap();
    assert!(laid == model, "{id}");
    assert_eq!(indices, pages.indices().collect::<Vec<_>>());
    assert_eq!(indices.len(), pages.count());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn a_chain_reads_the_same_however_its_layers_are_stored(
        layers in prop::collection::vec(layer(), 1..20),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("store")).unwrap();
        let mut model: Vec<Page> = (0..PAGES as u64).map(noise).collect();
        model[0] = page(0);
        let all = |model: &[Page]| (0..).zip(model.iter().copied()).collect::<Vec<_>>();
        let base = publish_base(&store, PAGES as u64, &all(&model)).unwrap();
        let mut published = vec![(base, model.clone())];
        for layer in &layers {
            for (at, change) in &layer.changes {
                change.make(&mut model[*at]);
            }
            let draft = store.layer_draft(&published.last().unwrap().0).unwrap();
            let pages = layer.changes.iter().map(|(at, _)| (*at as u64, &model[*at]));
            let id = if layer.at_once { draft.publish_encoded(pages) } else { draft.publish(pages) };
            published.push((id.unwrap(), model.clone()));
        }
        let mut plain = Vec::new();
        store.export(&published.last().unwrap().0, &mut plain).unwrap();
        let mut later: Vec<(u8, SnapshotId)> = layers
            .iter()
            .zip(&published[1..])
            .filter(|(layer, _)| !layer.at_once)
            .map(|(layer, (id, _))| (layer.turn, *id))
            .collect();
        later.sort();
        for (turn, id) in &later {
            // The last turn never comes.
            if *turn < 3 {
                prop_assert!(store.encode(id).unwrap());
                prop_assert!(!store.encode(id).unwrap());
                prop_assert_eq!(files(&store, id), ["encoded", "snapshot"]);
            }
        }
        for (id, model) in &published {
            check(&store, id, model);
        }
        let (tip, model) = published.last().unwrap();
        let flat = store.flatten(tip, &[]).unwrap();
        check(&store, &flat, model);
        // Elsewhere some of the same layers are stored in another way.
        let mut encoded = Vec::new();
        store.export(tip, &mut encoded).unwrap();
        for [first, second] in [[&plain, &encoded], [&encoded, &plain]] {
            let elsewhere = tempfile::tempdir().unwrap();
            let elsewhere = Store::open(&elsewhere.path().join("store")).unwrap();
            prop_assert_eq!(elsewhere.import(first.as_slice()).unwrap(), *tip);
            prop_assert_eq!(elsewhere.import(second.as_slice()).unwrap(), *tip);
            for (id, model) in &published {
                check(&elsewhere, id, model);
            }
        }
    }
}

/// A base of noise and a layer with a page of each kind, one of them as in the base.
pub(crate) fn base_and_layer(store: &Store) -> [SnapshotId; 2] {
    let base_pages: Vec<(u64, Page)> = (0..8).map(|at| (at, noise(at))).collect();
    let base = publish_base(store, 8, &base_pages).unwrap();
    let mut changed = noise(3);
    changed[100] ^= 1;
    let pages = [
        (0, page(0)),
        (1, noise(1)),
        (2, page(2)),
        (3, changed),
        (4, noise(40)),
    ];
    [base, publish_layer(store, &base, &pages).unwrap()]
}

fn stored_bytes(store: &Store, id: &SnapshotId, file: &str) -> u64 {
    fs::metadata(snapshot_folder(store, id).join(file))
        .unwrap()
        .len()
}

#[test]
fn each_page_is_stored_in_its_shortest_way() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("store")).unwrap();
    let [_, layer] = base_and_layer(&store);
    let before = memory(&store, &layer).unwrap();
    let header = store.snapshot(&layer).unwrap().header().clone();
    assert_eq!(stored_bytes(&store, &layer, "pages"), 4 * 4096);
    assert!(store.encode(&layer).unwrap());
    assert!(memory(&store, &layer).unwrap() == before);
    // Noise, one byte in a difference, and a page of one byte but for another: some tens of bytes.
    let bytes = stored_bytes(&store, &layer, "encoded");
    assert!((4096 + 4..4096 + 60).contains(&bytes), "{bytes}");
    let chain = store.chain(&layer).unwrap();
    let indices: Vec<u64> = chain.pages().unwrap().indices().collect();
    assert_eq!(indices, [0, 2, 3, 4]);
    let now = chain.tip().header();
    assert_eq!(
        (now.id, now.kind, now.created_ms),
        (header.id, header.kind, header.created_ms)
    );
    assert_eq!(
        (&now.facts, &now.sections[0]),
        (&header.facts, &header.sections[0])
    );
}

#[test]
fn a_base_is_not_encoded() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("store")).unwrap();
    let [base, _] = base_and_layer(&store);
    assert!(!store.encode(&base).unwrap());
    assert_eq!(files(&store, &base), ["memory", "snapshot"]);
}

#[test]
fn a_damaged_layer_is_not_encoded() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("store")).unwrap();
    let [_, layer] = base_and_layer(&store);
    let path = snapshot_folder(&store, &layer).join("pages");
    let mut bytes = fs::read(&path).unwrap();
    bytes[9] ^= 1;
    fs::write(&path, bytes).unwrap();
    let refused = store.encode(&layer);
    assert!(matches!(refused, Err(StoreError::Damaged { path: named, .. }) if named == path));
    assert_eq!(files(&store, &layer), ["pages", "snapshot"]);
    assert_eq!(store.sweep().unwrap(), 0);
}

/// What a death between the two renames leaves, and what one before the removal leaves.
#[test]
fn pages_that_no_index_means_are_swept() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("store")).unwrap();
    let [base, layer] = base_and_layer(&store);
    store.set_name("the", "tip", &layer).unwrap();
    let path = snapshot_folder(&store, &layer);
    for (is_encoded, stray, left) in [
        (false, "encoded", ["pages", "snapshot"]),
        (true, "pages", ["encoded", "snapshot"]),
    ] {
        if is_encoded {
            assert!(store.encode(&layer).unwrap());
        }
        fs::write(path.join(stray), b"half").unwrap();
        let read = memory(&store, &layer).unwrap();
        let dry = Policy {
            dry_run: true,
            ..Policy::default()
        };
        assert_eq!(store.collect(&dry).unwrap().swept, 0);
        assert_eq!(store.collect(&Policy::default()).unwrap().swept, 1);
        assert_eq!(files(&store, &layer), left);
        assert!(memory(&store, &layer).unwrap() == read);
    }
    fs::write(path.join("pages"), b"half").unwrap();
    assert!(!store.encode(&layer).unwrap());
    assert_eq!(files(&store, &layer), ["encoded", "snapshot"]);
    assert!(store.contains(&base));
}

#[test]
fn what_was_opened_before_an_encoding_is_read_to_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("store")).unwrap();
    let [_, layer] = base_and_layer(&store);
    let hold = store.snapshot(&layer).unwrap().hold().unwrap();
    let before = memory(&store, &layer).unwrap();
    let chain = store.chain(&layer).unwrap();
    let pages = chain.pages().unwrap();
    assert!(store.encode(&layer).unwrap());
    let reads = |pages: &vmrepl_snapshots::Pages| {
        (0..8)
            .map(|page| chain.read_page(pages, page).unwrap())
            .collect::<Vec<_>>()
    };
    assert!(reads(&pages) == before);
    // The chain was opened before, its pages are only now.
    assert!(reads(&chain.pages().unwrap()) == before);
    // And it is held as it was.
    assert!(matches!(
        store.remove(&layer),
        Err(StoreError::InUse { .. })
    ));
    drop(hold);
    store.remove(&layer).unwrap();
}

#[test]
fn who_reads_during_an_encoding_sees_all_of_it_and_two_encode_at_once() {
    for round in 0..20 {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("store")).unwrap();
        let [_, layer] = base_and_layer(&store);
        let before = memory(&store, &layer).unwrap();
        let is_done = AtomicBool::new(false);
        let all = Barrier::new(3);
        thread::scope(|scope| {
            let encoding = [(); 2].map(|()| {
                scope.spawn(|| {
                    all.wait();
                    let encoded = store.encode(&layer).unwrap();
                    is_done.store(true, Ordering::SeqCst);
                    encoded
                })
            });
            all.wait();
            loop {
                let was_done = is_done.load(Ordering::SeqCst);
                assert!(memory(&store, &layer).unwrap() == before, "round {round}");
                assert!(store.verify(&layer).unwrap().is_sound(), "round {round}");
                store.export(&layer, std::io::sink()).unwrap();
                if was_done {
                    break;
                }
            }
            let encoded = encoding.map(|one| one.join().unwrap());
            assert_eq!(encoded.iter().filter(|encoded| **encoded).count(), 1);
        });
        assert_eq!(files(&store, &layer), ["encoded", "snapshot"]);
        assert_eq!(store.sweep().unwrap(), 0);
    }
}

/// A collection between the two renames would take the new pages for a leftover; it waits.
#[test]
fn nothing_is_collected_between_the_two_renames() {
    use rustix::fs::{FlockOperation, flock};
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("store");
    let layer = base_and_layer(&Store::open(&root).unwrap())[1];
    let lock = root.join("lock");
    let store = Store::open_observed(&root, move |step, path| {
        if step == Step::Rename && path.ends_with("snapshot") {
            let file = fs::File::open(&lock).unwrap();
            let locked = flock(&file, FlockOperation::NonBlockingLockExclusive);
            assert_eq!(locked, Err(rustix::io::Errno::WOULDBLOCK));
        }
        Ok(())
    });
    assert!(store.unwrap().encode(&layer).unwrap());
}

#[test]
fn a_long_chain_is_read_through_all_its_differences() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("store")).unwrap();
    let mut model = [noise(0), noise(1)];
    let mut tip = publish_base(&store, 2, &[(0, model[0]), (1, model[1])]).unwrap();
    let mut largest = 0;
    for number in 1..=256_usize {
        // One page in every layer, the other in some, and there a little.
        model[0][number * 8 % 4096] = model[0][number * 8 % 4096].wrapping_add(1);
        model[1][number] ^= u8::from(number % 3 == 0);
        let draft = store.layer_draft(&tip).unwrap();
        tip = draft
            .publish_encoded([(0, &model[0]), (1, &model[1])])
            .unwrap();
        largest = largest.max(stored_bytes(&store, &tip, "encoded"));
    }
    // No layer reaches over more than eight, and a changed byte takes three or four.
    assert!(largest < 50, "{largest}");
    assert!(memory(&store, &tip).unwrap() == model);
    let full = store.layer_draft(&tip);
    assert!(matches!(full, Err(StoreError::ChainFull { .. })));
}
