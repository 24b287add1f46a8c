//! A disk that is really full: a small one, mounted for the test.
//!
//! Where the test may not mount, it says so on stderr; then the failed steps of `it/faults.rs` are all there is.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on says where, and that is all it needs to say"
)]

use std::error::Error as _;
use std::ffi::CString;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use vmrepl_snapshots::{Facts, PAGE_BYTES, Page, Policy, SnapshotId, Step, Store, StoreError};

const PAGE_COUNT: u64 = 16;
/// What the disks here hold; a memory and its headers take a tenth of it.
const DISK_PAGES: u64 = 256;

/// A tmpfs, gone with the value.
#[derive(Debug)]
struct SmallDisk {
    folder: tempfile::TempDir,
}

impl SmallDisk {
    /// Nothing where this process may not mount.
    fn new(options: &str) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let size = DISK_PAGES * PAGE_BYTES as u64;
        let options = CString::new(format!("size={size},mode=0700{options}")).unwrap();
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        match mount("none", folder.path(), "tmpfs", flags, options.as_c_str()) {
            Ok(()) => Some(Self { folder }),
            Err(error @ (Errno::PERM | Errno::ACCESS | Errno::NODEV)) => {
                tell(&format!(
                    "full disks are tested by failed steps alone: cannot mount ({error})"
                ));
                None
            }
            Err(error) => panic!("mount: {error}"),
        }
    }

    fn root(&self) -> PathBuf {
        self.folder.path().join("store")
    }

    fn free_pages(&self) -> u64 {
        let stat = rustix::fs::statvfs(self.folder.path()).unwrap();
        stat.f_bfree * stat.f_bsize / PAGE_BYTES as u64
    }

    fn free_inodes(&self) -> u64 {
        rustix::fs::statvfs(self.folder.path()).unwrap().f_ffree
    }

    /// Leaves room for so many pages and no more.
    fn fill(&self, room_pages: u64) {
        let filler = self.folder.path().join("filler");
        fs::write(&filler, b"").unwrap();
        let pages = usize::try_from(self.free_pages() - room_pages).unwrap();
        fs::write(&filler, vec![1; pages * PAGE_BYTES]).unwrap();
        assert_eq!(self.free_pages(), room_pages);
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        if let Err(error) = unmount(self.folder.path(), UnmountFlags::DETACH) {
            tell(&format!(
                "{} stays mounted: {error}",
                self.folder.path().display()
            ));
        }
    }
}

/// Past the harness, which keeps to itself what a test that passes prints.
fn tell(line: &str) {
    io::stderr()
        .write_all(format!("{line}\n").as_bytes())
        .unwrap();
}

fn facts() -> Facts {
    Facts {
        engine: "test".to_owned(),
        compat: "test engine 1".to_owned(),
        architecture: "x86_64".to_owned(),
        cpu: "any".to_owned(),
        memory_bytes: PAGE_COUNT * PAGE_BYTES as u64,
    }
}

fn page(number: u64) -> Page {
    [u8::try_from(number % 251 + 1).unwrap(); PAGE_BYTES]
}

/// As an engine fills it: an error of the disk is the engine's, and the draft is dropped.
fn fill_memory(path: &Path) -> io::Result<()> {
    let file = OpenOptions::new().write(true).open(path)?;
    (0..PAGE_COUNT).try_for_each(|at| file.write_all_at(&page(at), at * PAGE_BYTES as u64))
}

fn publish_base(store: &Store) -> Result<SnapshotId, StoreError> {
    let draft = store.base_draft(facts().memory_bytes)?;
    let path = draft.memory_path();
    fill_memory(&path).map_err(|source| StoreError::Disk {
        step: Step::Write,
        path,
        source,
    })?;
    draft.publish(&facts())
}

fn publish_layer(store: &Store, parent: &SnapshotId) -> Result<SnapshotId, StoreError> {
    let pages: Vec<(u64, Page)> = (0..PAGE_COUNT).map(|at| (at, page(at + 100))).collect();
    let mut draft = store.layer_draft(parent)?;
    draft.section("machine", 1, &[7; 3 * PAGE_BYTES])?;
    draft.publish(pages.iter().map(|(at, content)| (*at, content)))
}

fn check_full(error: &StoreError, root: &Path) {
    let StoreError::Disk { step, path, source } = error else {
        panic!("{error:?}");
    };
    assert_eq!(source.kind(), io::ErrorKind::StorageFull, "{error:?}");
    assert!(path.starts_with(root), "{}", path.display());
    let text = error.to_string();
    assert!(
        text.contains(&step.to_string()) && text.contains(path.to_str().unwrap()),
        "{text}"
    );
    assert!(error.source().is_some());
}

fn check_template(root: &Path, template: SnapshotId) {
    let store = Store::open(root).unwrap();
    assert_eq!(store.resolve("templates", "base").unwrap(), Some(template));
    for id in store.ids().unwrap() {
        let report = store.verify(&id).unwrap();
        assert!(report.is_sound(), "{report:?}");
    }
    let chain = store.chain(&template).unwrap();
    let pages = chain.pages().unwrap();
    for at in 0..PAGE_COUNT {
        assert!(
            chain.read_page(&pages, at).unwrap() == page(at),
            "page {at}"
        );
    }
}

fn left_in_staging(root: &Path) -> usize {
    fs::read_dir(root.join("staging")).unwrap().count()
}

type Publication = fn(&Store, &SnapshotId) -> Result<SnapshotId, StoreError>;

const PUBLICATIONS: [Publication; 3] = [
    |store, _| publish_base(store),
    publish_layer,
    |store, template| store.flatten(template, &[]),
];

/// Publishes on `disk` until nothing more fits, and then makes room.
fn publish_until_full(disk: &SmallDisk, publish: Publication) {
    let root = disk.root();
    let store = Store::open(&root).unwrap();
    let template = publish_base(&store).unwrap();
    store.set_name("templates", "base", &template).unwrap();
    let mut published = 0;
    let error = loop {
        let free = (disk.free_pages(), disk.free_inodes());
        match publish(&store, &template) {
            Ok(_) => published += 1,
            Err(error) => {
                assert_eq!((disk.free_pages(), disk.free_inodes()), free, "{error}");
                break error;
            }
        }
    };
    check_full(&error, &root);
    assert!(published > 2, "{published}");
    assert_eq!(left_in_staging(&root), 0);
    assert_eq!(store.ids().unwrap().len(), published + 1);
    check_template(&root, template);

    // A full disk can be emptied.
    let collected = store.collect(&Policy::default()).unwrap();
    assert_eq!(collected.removed.len(), published);
    check_template(&root, template);
    publish(&store, &template).unwrap();
}

#[test]
fn the_room_ends() {
    for publish in PUBLICATIONS {
        let Some(disk) = SmallDisk::new("") else {
            return;
        };
        publish_until_full(&disk, publish);
    }
}

#[test]
fn the_inodes_end() {
    for publish in PUBLICATIONS {
        let Some(disk) = SmallDisk::new(",nr_inodes=40") else {
            return;
        };
        publish_until_full(&disk, publish);
    }
}

/// The disk ends after each page in turn, so in each file that is written.
#[test]
fn the_room_ends_anywhere() {
    let Some(disk) = SmallDisk::new("") else {
        return;
    };
    let root = disk.root();
    let store = Store::open(&root).unwrap();
    let template = publish_base(&store).unwrap();
    store.set_name("templates", "base", &template).unwrap();
    for publish in PUBLICATIONS {
        let mut room_pages = 0;
        loop {
            disk.fill(room_pages);
            match publish(&store, &template) {
                Ok(id) => {
                    store.remove(&id).unwrap();
                    break;
                }
                Err(error) => check_full(&error, &root),
            }
            assert_eq!(disk.free_pages(), room_pages);
            assert_eq!(left_in_staging(&root), 0);
            assert_eq!(store.ids().unwrap(), [template]);
            room_pages += 1;
        }
        // The memory or its pages, and what describes them.
        assert!(room_pages > PAGE_COUNT, "{room_pages}");
        check_template(&root, template);
    }
}

#[test]
fn a_name_stays_where_it_is_on_a_full_disk() {
    let Some(disk) = SmallDisk::new("") else {
        return;
    };
    let root = disk.root();
    let store = Store::open(&root).unwrap();
    let template = publish_base(&store).unwrap();
    store.set_name("templates", "base", &template).unwrap();
    let newer = publish_base(&store).unwrap();
    let mut exported = Vec::new();
    store.export(&newer, &mut exported).unwrap();
    disk.fill(0);
    check_full(
        &store.set_name("templates", "base", &newer).unwrap_err(),
        &root,
    );
    check_full(&store.set_name("other", "base", &newer).unwrap_err(), &root);
    check_template(&root, template);
    assert_eq!(store.all_names().unwrap().len(), 1);
    // Removing needs no room, and gives it back.
    store.remove(&newer).unwrap();
    assert!(disk.free_pages() > PAGE_COUNT);
    disk.fill(PAGE_COUNT / 2);
    match store.import(&exported[..]).unwrap_err() {
        vmrepl_snapshots::TransferError::Store(error) => check_full(&error, &root),
        error => panic!("{error:?}"),
    }
    assert_eq!(disk.free_pages(), PAGE_COUNT / 2);
    check_template(&root, template);
}
