//! Several threads and processes in one store at once.

use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::{env, fs, thread};

use rustix::fs::FlockOperation;
use rustix::io::Errno;
use vmrepl_snapshots::{Policy, SnapshotId, Step, Store, StoreError};

use crate::forge::snapshot_folder;
use crate::ground::{Scene, memory, page, publish_base, publish_layer, spawned};

const FOLDER: &str = "VMREPL_TEST_FOLDER";
const ROUNDS: usize = 30;

#[test]
#[ignore = "the other starts it as two processes of their own, to publish at once"]
fn the_one_that_publishes() {
    let root = PathBuf::from(env::var_os(FOLDER).unwrap());
    let store = Store::open(&root).unwrap();
    let base = store.resolve("scene", "base").unwrap().unwrap();
    for _ in 0..ROUNDS {
        let layer = publish_layer(&store, &base, &[(1, page(1))]).unwrap();
        store.set_name("scene", "tip", &layer).unwrap();
    }
}

fn start_publishing(root: &Path) -> Child {
    let mut command = Command::new(env::current_exe().unwrap());
    command
        .args(["--exact", "together::the_one_that_publishes", "--ignored"])
        .env(FOLDER, root)
        .stdout(std::process::Stdio::null());
    spawned(&mut command)
}

#[test]
fn two_processes_publish_the_same_name_while_others_read_and_collect() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("store");
    let store = Store::open(&root).unwrap();
    let base = publish_base(&store, 4, &[(0, page(2))]).unwrap();
    store.set_name("scene", "base", &base).unwrap();
    store.set_name("scene", "tip", &base).unwrap();
    let mut children = [start_publishing(&root), start_publishing(&root)];
    // A layer that has no name yet is kept by being fresh, as the policy of every collection says.
    let policy = Policy {
        fresh: std::time::Duration::from_secs(3600),
        ..Policy::default()
    };
    let mut is_running = true;
    while is_running {
        // Looked at before the reads, so that the last of them sees what the last process left.
        is_running = children
            .iter_mut()
            .any(|child| child.try_wait().unwrap().is_none());
        let tip = store.resolve("scene", "tip").unwrap().unwrap();
        let read = memory(&store, &tip).unwrap();
        assert!(read[0] == page(2) && (tip == base) == (read[1] == page(0)));
        store.collect(&policy).unwrap();
    }
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    assert_eq!(store.ids().unwrap().len(), 2 * ROUNDS + 1);
    assert_eq!(store.sweep().unwrap(), 0);
    let collected = store.collect(&Policy::default()).unwrap();
    assert_eq!(collected.removed.len(), 2 * ROUNDS - 1);
    let tip = store.resolve("scene", "tip").unwrap().unwrap();
    assert!(store.verify(&tip).unwrap().is_sound());
}

#[test]
fn a_reader_during_a_removal_sees_all_or_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("store")).unwrap();
    let base = publish_base(&store, 64, &[(0, page(1)), (63, page(2))]).unwrap();
    let told = AtomicUsize::new(0);
    for _ in 0..ROUNDS {
        let layer = publish_layer(&store, &base, &[(0, page(3)), (5, page(4))]).unwrap();
        let is_removed = AtomicBool::new(false);
        let both = Barrier::new(2);
        thread::scope(|scope| {
            scope.spawn(|| {
                both.wait();
                store.remove(&layer).unwrap();
                is_removed.store(true, Ordering::SeqCst);
            });
            both.wait();
            loop {
                let was_removed = is_removed.load(Ordering::SeqCst);
                match memory(&store, &layer) {
                    Ok(read) => {
                        assert!(!was_removed, "{layer} was read after its removal");
                        assert!(read[0] == page(3) && read[5] == page(4) && read[63] == page(2));
                    }
                    Err(StoreError::NotFound { id, .. }) => {
                        assert_eq!(id, layer);
                        told.fetch_add(1, Ordering::Relaxed);
                    }
                    // Gone between its header and its pages.
                    Err(StoreError::Disk { source, .. }) => {
                        assert_eq!(source.kind(), std::io::ErrorKind::NotFound);
                        told.fetch_add(1, Ordering::Relaxed);
                    }
                    Err(error) => panic!("{error:?}"),
                }
                if was_removed {
                    break;
                }
            }
        });
    }
    assert!(told.load(Ordering::Relaxed) >= ROUNDS);
    assert_eq!(store.ids().unwrap(), [base]);
}

#[test]
fn what_was_opened_before_a_removal_is_read_to_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("store")).unwrap();
    let base = publish_base(&store, 4, &[]).unwrap();
    let layer = publish_layer(&store, &base, &[(0, page(3)), (2, page(4))]).unwrap();
    let pages = store.chain(&layer).unwrap().pages().unwrap();
    store.remove(&layer).unwrap();
    let mut read = Vec::new();
    pages
        .for_each(|at, content| {
            read.push((at, content[0]));
            Ok::<(), StoreError>(())
        })
        .unwrap();
    assert_eq!(read, [(0, 3), (2, 4)]);
}

#[test]
fn nobody_takes_hold_of_what_is_being_removed() {
    let folder = tempfile::tempdir().unwrap();
    let scene = Scene::new(folder.path());
    let plain = Store::open(&scene.root()).unwrap();
    let tried = Arc::new(AtomicUsize::new(0));
    let counted = tried.clone();
    let folders: Vec<PathBuf> = [scene.loose, scene.looser]
        .iter()
        .map(|id| snapshot_folder(&plain, id))
        .collect();
    // What `hold` does, at the last moment before the folder is renamed away: the deeper one goes first.
    let store = Store::open_observed(&scene.root(), move |step, _| {
        if step == Step::Rename {
            let which = 1 - counted.fetch_add(1, Ordering::SeqCst);
            let folder = fs::File::open(&folders[which]).unwrap();
            let locked = rustix::fs::flock(&folder, FlockOperation::NonBlockingLockShared);
            assert_eq!(locked, Err(Errno::WOULDBLOCK));
        }
        Ok(())
    })
    .unwrap();
    let collected = store.collect(&Policy::default()).unwrap();
    assert_eq!(collected.removed, [scene.looser, scene.loose]);
    assert_eq!(tried.load(Ordering::SeqCst), 2);
}

#[test]
fn what_a_machine_holds_stays_with_all_below_it() {
    let folder = tempfile::tempdir().unwrap();
    let scene = Scene::new(folder.path());
    let store = Store::open(&scene.root()).unwrap();
    let hold = store.snapshot(&scene.looser).unwrap().hold().unwrap();
    let second = store.snapshot(&scene.looser).unwrap().hold().unwrap();
    assert!(
        store
            .collect(&Policy::default())
            .unwrap()
            .removed
            .is_empty()
    );
    let refused = store.remove(&scene.looser);
    assert!(matches!(refused, Err(StoreError::InUse { id }) if id == scene.looser));
    drop(hold);
    assert!(matches!(
        store.remove(&scene.looser),
        Err(StoreError::InUse { .. })
    ));
    drop(second);
    let gone = store.snapshot(&scene.looser).unwrap();
    store.remove(&scene.looser).unwrap();
    gone.hold().unwrap_err();
    scene.check();
}

/// A machine takes hold of the deeper of two snapshots after the collection looked who is held, and before it goes.
#[test]
fn a_hold_in_the_middle_of_a_collection_keeps_what_it_needs() {
    let folder = tempfile::tempdir().unwrap();
    let scene = Scene::new(folder.path());
    let plain = Store::open(&scene.root()).unwrap();
    let top = publish_layer(&plain, &scene.looser, &[(1, page(1))]).unwrap();
    let (looser, held) = (scene.looser, Arc::new(std::sync::Mutex::new(None)));
    let holder = held.clone();
    let store = Store::open_observed(&scene.root(), move |step, _| {
        if step == Step::Rename {
            // The first to go is `top`.
            *holder.lock().unwrap() = Some(plain.snapshot(&looser).unwrap().hold().unwrap());
        }
        Ok(())
    })
    .unwrap();
    let collected = store.collect(&Policy::default()).unwrap();
    assert_eq!(collected.removed, [top]);
    assert_eq!(collected.kept, 4);
    assert!(held.lock().unwrap().is_some());
    assert!(store.contains(&scene.looser) && store.contains(&scene.loose));
    scene.check();
}

#[test]
fn the_same_export_is_imported_by_many_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let scene = Scene::new(folder.path());
    let exported = fs::read(folder.path().join("exported")).unwrap();
    let store = Store::open(&folder.path().join("another")).unwrap();
    let readers = 6;
    let all = Barrier::new(readers);
    thread::scope(|scope| {
        let importing: Vec<_> = (0..readers)
            .map(|_| {
                scope.spawn(|| {
                    all.wait();
                    store.import(exported.as_slice())
                })
            })
            .collect();
        for one in importing {
            assert_eq!(one.join().unwrap().unwrap(), scene.foreign[1]);
        }
    });
    let mut ids: Vec<SnapshotId> = scene.foreign.to_vec();
    ids.sort();
    assert_eq!(store.ids().unwrap(), ids);
    assert!(store.verify(&scene.foreign[1]).unwrap().is_sound());
    assert_eq!(store.sweep().unwrap(), 0);
}

#[test]
fn a_sweep_leaves_the_living_alone() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("store")).unwrap();
    let facts = crate::ground::facts(2);
    let draft = store.base_draft(facts.memory_bytes).unwrap();
    assert_eq!(store.sweep().unwrap(), 0);
    let dead = store.root().join("staging").join("left by somebody");
    fs::create_dir(&dead).unwrap();
    fs::write(dead.join("memory"), b"half").unwrap();
    assert_eq!(store.sweep().unwrap(), 1);
    let id = draft.publish(&facts).unwrap();
    assert!(store.verify(&id).unwrap().is_sound());
}
