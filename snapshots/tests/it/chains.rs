//! Chains of layers against a plain array of pages, also flattened and carried elsewhere.

use proptest::prelude::*;
use vmrepl_snapshots::{PAGE_BYTES, Page, SnapshotId, Store, StoreError};

use crate::ground::{memory, page, publish_base, publish_layer};

/// Page indices and the number of their content, 0 for zeros.
type Pages = Vec<(u64, u8)>;

#[derive(Clone, Debug)]
struct History {
    page_count: u64,
    /// The base first.
    layers: Vec<Pages>,
}

/// Pages at the ends and around the border of two chunks more often than others, so that layers overlap; few contents,
/// so that some pages are unchanged.
fn history() -> impl Strategy<Value = History> {
    (1_u64..520).prop_flat_map(|page_count| {
        let last = page_count - 1;
        let place = prop_oneof![
            0..page_count,
            page_count.saturating_sub(4)..page_count,
            (0..8_u64).prop_map(move |at| at.min(last)),
            (250..262_u64).prop_map(move |at| at.min(last)),
        ];
        let pages = prop::collection::btree_map(place, 0..4_u8, 0..30)
            .prop_map(|pages| pages.into_iter().collect());
        prop::collection::vec(pages, 1..7).prop_map(move |layers| History { page_count, layers })
    })
}

fn contents(pages: &Pages) -> Vec<(u64, Page)> {
    pages
        .iter()
        .map(|(at, number)| (*at, page(*number)))
        .collect()
}

fn check(store: &Store, id: &SnapshotId, model: &[Page], layers: &[Pages]) {
    assert!(store.verify(id).unwrap().is_sound());
    assert!(memory(store, id).unwrap() == model, "{id}");
    let chain = store.chain(id).unwrap();
    let pages = chain.pages().unwrap();
    let mut touched: Vec<u64> = layers.iter().flatten().map(|(at, _)| *at).collect();
    touched.sort_unstable();
    touched.dedup();
    assert_eq!(pages.indices().collect::<Vec<_>>(), touched);
    let at = |page: u64| usize::try_from(page).unwrap();
    let mut seen = Vec::new();
    pages
        .for_each(|page, content| {
            assert!(*content == model[at(page)], "page {page}");
            seen.push(page);
            Ok::<(), StoreError>(())
        })
        .unwrap();
    assert_eq!(seen, touched);
    for most in [1, 3, 1000] {
        let mut seen = Vec::new();
        pages
            .for_each_run(most, |first, run| {
                let count = run.len() / PAGE_BYTES;
                assert!((1..=most).contains(&count));
                assert!(run == model[at(first)..at(first) + count].as_flattened());
                seen.extend(first..first + count as u64);
                Ok::<(), StoreError>(())
            })
            .unwrap();
        assert_eq!(seen, touched);
    }
    let beyond = model.len() as u64;
    assert!(matches!(
        chain.read_page(&pages, beyond),
        Err(StoreError::PageOutside { .. })
    ));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn a_chain_reads_as_what_was_written(history in history()) {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("store")).unwrap();
        let mut model = vec![page(0); usize::try_from(history.page_count).unwrap()];
        let mut published: Vec<(SnapshotId, Vec<Page>)> = Vec::new();
        for layer in &history.layers {
            let mut pages = contents(layer);
            for (at, content) in &pages {
                model[usize::try_from(*at).unwrap()] = *content;
            }
            // Given backwards: the order of the pages is the store's business.
            pages.reverse();
            let id = match published.last() {
                None => publish_base(&store, history.page_count, &pages),
                Some((parent, _)) => publish_layer(&store, parent, &pages),
            };
            published.push((id.unwrap(), model.clone()));
        }
        for (number, (id, model)) in published.iter().enumerate() {
            check(&store, id, model, &history.layers[1..=number]);
        }
        let (tip, model) = published.last().unwrap();
        let flat = store.flatten(tip, &[]).unwrap();
        check(&store, &flat, model, &[]);

        let mut file = Vec::new();
        store.export(tip, &mut file).unwrap();
        let elsewhere = Store::open(&folder.path().join("elsewhere")).unwrap();
        prop_assert_eq!(elsewhere.import(file.as_slice()).unwrap(), *tip);
        for (number, (id, model)) in published.iter().enumerate() {
            check(&elsewhere, id, model, &history.layers[1..=number]);
        }
        // What came that way goes on in the same bytes.
        let mut again = Vec::new();
        elsewhere.export(tip, &mut again).unwrap();
        prop_assert!(file == again);
    }
}

#[test]
fn zero_pages_take_no_room() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("store")).unwrap();
    let zeros: Vec<(u64, Page)> = (0..2000).map(|at| (at, page(0))).collect();
    let mut pages = zeros.clone();
    pages[1000].1 = page(1);
    let base = publish_base(&store, 1 << 20, &pages).unwrap();
    let layer = publish_layer(&store, &base, &zeros).unwrap();
    let flat = store.flatten(&layer, &[]).unwrap();
    for id in [base, layer, flat] {
        let size = store.size(&id).unwrap();
        assert!(size.disk_bytes < 100_000, "{size:?}");
    }
}

#[test]
fn a_page_outside_or_given_twice_publishes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("store")).unwrap();
    let base = publish_base(&store, 4, &[]).unwrap();
    for outside in [4, u64::MAX] {
        let refused = publish_layer(&store, &base, &[(outside, page(1))]);
        assert!(matches!(refused, Err(StoreError::PageOutside { page, .. }) if page == outside));
    }
    let twice = publish_layer(&store, &base, &[(2, page(1)), (1, page(1)), (2, page(1))]);
    assert!(matches!(twice, Err(StoreError::PageTwice { page: 2 })));
    assert_eq!(store.ids().unwrap(), [base]);
    assert_eq!(store.sweep().unwrap(), 0);
}
