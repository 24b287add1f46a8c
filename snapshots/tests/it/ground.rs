//! Small memories, and a store with a base, layers on it, names, and something to collect.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use vmrepl_snapshots::{Facts, PAGE_BYTES, Page, Policy, SnapshotId, Store, StoreError};

/// Pages of the memories here.
pub(crate) const PAGE_COUNT: u64 = 12;

/// A page that differs from all others with another number; 0 is the zero page.
pub(crate) fn page(number: u8) -> Page {
    let mut page = [number; PAGE_BYTES];
    if number != 0 {
        page[usize::from(number)] = !number;
    }
    page
}

pub(crate) fn facts(page_count: u64) -> Facts {
    Facts {
        engine: "test".to_owned(),
        compat: "test engine 1".to_owned(),
        architecture: "x86_64".to_owned(),
        cpu: "any".to_owned(),
        memory_bytes: page_count * PAGE_BYTES as u64,
    }
}

/// Publishes a base with one section `state` and these pages.
pub(crate) fn publish_base(
    store: &Store,
    page_count: u64,
    pages: &[(u64, Page)],
) -> Result<SnapshotId, StoreError> {
    let facts = facts(page_count);
    let mut draft = store.base_draft(facts.memory_bytes)?;
    draft.section("state", 3, b"the state of the base")?;
    let memory = fs::OpenOptions::new()
        .write(true)
        .open(draft.memory_path())
        .unwrap();
    for (page, content) in pages {
        memory
            .write_all_at(content, page * PAGE_BYTES as u64)
            .unwrap();
    }
    draft.publish(&facts)
}

/// Publishes a layer with one section `state` and these pages.
pub(crate) fn publish_layer(
    store: &Store,
    parent: &SnapshotId,
    pages: &[(u64, Page)],
) -> Result<SnapshotId, StoreError> {
    let mut draft = store.layer_draft(parent)?;
    draft.section("state", 3, b"the state of the layer")?;
    draft.publish(pages.iter().map(|(page, content)| (*page, content)))
}

/// The whole memory as a machine would see it.
pub(crate) fn memory(store: &Store, id: &SnapshotId) -> Result<Vec<Page>, StoreError> {
    let chain = store.chain(id)?;
    let pages = chain.pages()?;
    let page_count = chain.base().header().facts.memory_bytes / PAGE_BYTES as u64;
    (0..page_count)
        .map(|page| chain.read_page(&pages, page))
        .collect()
}

/// What [`publish_base`] and [`publish_layer`] of a scene lead to.
fn expected(changes: &[&[(u64, Page)]]) -> Vec<Page> {
    let mut memory = vec![page(0); usize::try_from(PAGE_COUNT).unwrap()];
    for (at, content) in changes.iter().copied().flatten() {
        memory[usize::try_from(*at).unwrap()] = *content;
    }
    memory
}

/// The names of the files of a snapshot, sorted.
pub(crate) fn files(store: &Store, id: &SnapshotId) -> Vec<String> {
    let folder = store.root().join("snapshots").join(id.to_string());
    let mut files: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    files.sort();
    files
}

/// Copies files and folders; the folders are their owner's alone, as the store wants them.
pub(crate) fn copy_folder(from: &Path, to: &Path) {
    fs::DirBuilder::new()
        .mode(0o700)
        .recursive(true)
        .create(to)
        .unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Between fork and exec a child of any test has copies of our descriptors, and with them the locks of snapshots that
/// somebody has just let go.
static FORKS: RwLock<()> = RwLock::new(());

/// Starts a process; when this returns, it has only its own descriptors.
pub(crate) fn spawned(command: &mut Command) -> Child {
    let _forks = FORKS.read().unwrap_or_else(PoisonError::into_inner);
    command.spawn().unwrap()
}

/// A store on the disk: `base` <- `tip`, both named, and `base` <- `loose` <- `looser`, which nothing needs; beside it
/// an exported chain from another store.
#[derive(Debug)]
pub(crate) struct Scene {
    folder: PathBuf,
    pub(crate) base: SnapshotId,
    pub(crate) tip: SnapshotId,
    pub(crate) loose: SnapshotId,
    pub(crate) looser: SnapshotId,
    pub(crate) foreign: [SnapshotId; 2],
}

fn base_pages() -> Vec<(u64, Page)> {
    vec![(0, page(1)), (3, page(2)), (4, page(3)), (11, page(4))]
}

fn tip_pages() -> Vec<(u64, Page)> {
    vec![(3, page(0)), (5, page(5)), (11, page(6))]
}

impl Scene {
    pub(crate) fn new(folder: &Path) -> Self {
        let store = Store::open(&folder.join("store")).unwrap();
        let base = publish_base(&store, PAGE_COUNT, &base_pages()).unwrap();
        let tip = publish_layer(&store, &base, &tip_pages()).unwrap();
        let loose = publish_layer(&store, &base, &[(1, page(7))]).unwrap();
        let looser = publish_layer(&store, &loose, &[(2, page(8))]).unwrap();
        store.set_name("scene", "base", &base).unwrap();
        store.set_name("scene", "tip", &tip).unwrap();

        let elsewhere = Store::open(&folder.join("elsewhere")).unwrap();
        let below = publish_base(&elsewhere, PAGE_COUNT, &base_pages()).unwrap();
        let above = publish_layer(&elsewhere, &below, &tip_pages()).unwrap();
        let exported = fs::File::create(folder.join("exported")).unwrap();
        elsewhere.export(&above, exported).unwrap();
        let scene = Self {
            folder: folder.to_owned(),
            base,
            tip,
            loose,
            looser,
            foreign: [below, above],
        };
        fs::write(folder.join("ids"), scene.ids_text()).unwrap();
        scene
    }

    /// The scene that another process built in `folder`.
    pub(crate) fn found(folder: PathBuf) -> Self {
        let text = fs::read_to_string(folder.join("ids")).unwrap();
        let mut ids = text.lines().map(|id| id.parse().unwrap());
        let mut next = || ids.next().unwrap();
        Self {
            base: next(),
            tip: next(),
            loose: next(),
            looser: next(),
            foreign: [next(), next()],
            folder,
        }
    }

    /// The same scene in another folder, so that not each of a hundred interruptions builds one.
    pub(crate) fn copy(&self, folder: &Path) -> Self {
        copy_folder(&self.folder, folder);
        Self::found(folder.to_owned())
    }

    fn ids_text(&self) -> String {
        let own = [self.base, self.tip, self.loose, self.looser];
        own.iter()
            .chain(&self.foreign)
            .map(|id| format!("{id}\n"))
            .collect()
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.folder.join("store")
    }

    /// What every reader must find, whatever was interrupted: all that is there is whole, and what is needed is there.
    pub(crate) fn check(&self) {
        let store = Store::open(&self.root()).unwrap();
        for listed in store.list().unwrap() {
            listed.header.unwrap();
            let report = store.verify(&listed.id).unwrap();
            assert!(report.is_sound(), "{report:?}");
            memory(&store, &listed.id).unwrap();
        }
        let (base, tip) = (base_pages(), tip_pages());
        assert_eq!(memory(&store, &self.base).unwrap(), expected(&[&base]));
        assert_eq!(memory(&store, &self.tip).unwrap(), expected(&[&base, &tip]));
        let named = store.resolve("scene", "base").unwrap();
        assert_eq!(named, Some(self.base));
        for new in self.added(&store) {
            // A base, a layer that an act made on `base`, a flattened `tip`, or one of the imported.
            let found = memory(&store, &new).unwrap();
            let may_be = [
                expected(&[&base]),
                expected(&[&base, &[(6, page(9))]]),
                expected(&[&base, &tip]),
            ];
            assert!(may_be.contains(&found), "{new}");
        }
    }

    /// Snapshots that the scene did not begin with.
    pub(crate) fn added(&self, store: &Store) -> BTreeSet<SnapshotId> {
        let known = [self.base, self.tip, self.loose, self.looser];
        let mut ids: BTreeSet<SnapshotId> = store.ids().unwrap().into_iter().collect();
        ids.retain(|id| !known.contains(id));
        ids
    }

    /// Collects with nothing fresh and nobody between fork and exec; afterwards only what names need is there, and no leftover.
    pub(crate) fn check_collection(&self) {
        let _forks = FORKS.write().unwrap_or_else(PoisonError::into_inner);
        let store = Store::open(&self.root()).unwrap();
        let policy = Policy {
            fresh: Duration::ZERO,
            ..Policy::default()
        };
        store.collect(&policy).unwrap();
        assert_eq!(self.leftovers(), 0);
        let needed: BTreeSet<SnapshotId> = store
            .all_names()
            .unwrap()
            .into_iter()
            .map(|named| named.id)
            .chain([self.base])
            .collect();
        let left: BTreeSet<SnapshotId> = store.ids().unwrap().into_iter().collect();
        assert_eq!(left, needed);
        for id in left.iter().filter(|id| **id != self.base) {
            let files = files(&store, id);
            let flattened = store.snapshot(id).unwrap().header().parent().is_none();
            assert!(
                flattened || files == ["encoded", "snapshot"] || files == ["pages", "snapshot"],
                "{files:?}"
            );
        }
        assert!(store.collect(&policy).unwrap().removed.is_empty());
    }

    pub(crate) fn leftovers(&self) -> usize {
        fs::read_dir(self.root().join("staging")).unwrap().count()
    }
}
