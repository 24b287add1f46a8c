//! Everything that changes a store, as acts that can be interrupted at any step.

use std::fs;
use std::time::Duration;

use vmrepl_snapshots::{Policy, Store, StoreError, TransferError};

use crate::ground::{PAGE_COUNT, Scene, files, page, publish_base, publish_layer};

/// Something that changes a store.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Act {
    pub(crate) name: &'static str,
    pub(crate) run: fn(&Scene, &Store) -> Result<(), StoreError>,
    /// Whether all that the act is about has happened.
    pub(crate) is_done: fn(&Scene, &Store) -> bool,
}

pub(crate) const ACTS: [Act; 10] = [
    Act {
        name: "base",
        run: |_, store| {
            let pages = [(0, page(1)), (3, page(2)), (4, page(3)), (11, page(4))];
            publish_base(store, PAGE_COUNT, &pages).map(drop)
        },
        is_done: |scene, store| scene.added(store).len() == 1,
    },
    Act {
        name: "layer",
        run: |scene, store| publish_layer(store, &scene.base, &[(6, page(9))]).map(drop),
        is_done: |scene, store| scene.added(store).len() == 1,
    },
    Act {
        name: "name",
        run: |scene, store| store.set_name("new", "one", &scene.tip),
        is_done: |scene, store| store.resolve("new", "one").unwrap() == Some(scene.tip),
    },
    Act {
        name: "rename",
        run: |scene, store| store.set_name("scene", "tip", &scene.base),
        is_done: |scene, store| {
            let named = store.resolve("scene", "tip").unwrap();
            // The old or the new, never none.
            assert!([scene.base, scene.tip].contains(&named.unwrap()));
            named == Some(scene.base)
        },
    },
    Act {
        name: "unname",
        run: |_, store| store.remove_name("scene", "tip").map(drop),
        is_done: |_, store| store.resolve("scene", "tip").unwrap().is_none(),
    },
    Act {
        name: "remove",
        run: |scene, store| store.remove(&scene.looser),
        is_done: |scene, store| !store.contains(&scene.looser),
    },
    Act {
        name: "import",
        run: |scene, store| {
            let exported = fs::File::open(scene.folder().join("exported")).unwrap();
            match store.import(exported) {
                Ok(_) => Ok(()),
                Err(TransferError::Store(error)) => Err(error),
                Err(error) => panic!("{error}"),
            }
        },
        is_done: |scene, store| {
            let here = scene.foreign.map(|id| store.contains(&id));
            assert!(here[0] || !here[1], "a layer without its base");
            here == [true, true]
        },
    },
    Act {
        name: "flatten",
        run: |scene, store| store.flatten(&scene.tip, &[]).map(drop),
        is_done: |scene, store| scene.added(store).len() == 1,
    },
    Act {
        name: "encode",
        run: |scene, store| store.encode(&scene.tip).map(drop),
        is_done: |scene, store| {
            let files = files(store, &scene.tip);
            // One of them at least, whatever was interrupted.
            assert!(
                files
                    .iter()
                    .any(|file| file == "pages" || file == "encoded")
            );
            files == ["encoded", "snapshot"]
        },
    },
    Act {
        name: "collect",
        run: |_, store| {
            let policy = Policy {
                fresh: Duration::ZERO,
                ..Policy::default()
            };
            store.collect(&policy).map(drop)
        },
        is_done: |scene, store| {
            let here = [scene.loose, scene.looser].map(|id| store.contains(&id));
            assert!(here[0] || !here[1], "a layer without its base");
            here == [false, false]
        },
    },
];

pub(crate) fn act(name: &str) -> Act {
    *ACTS.iter().find(|act| act.name == name).unwrap()
}
