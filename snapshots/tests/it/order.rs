//! The order of publication: nothing is renamed into sight before all of it is synced, and nothing is told as done
//! before the rename is.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use vmrepl_snapshots::{Step, Store};

use crate::acts::{Act, act};
use crate::ground::Scene;

type Steps = Vec<(Step, PathBuf)>;

fn steps(act: Act) -> (Steps, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let scene = Scene::new(folder.path());
    let steps = Arc::new(Mutex::new(Steps::new()));
    let seen = steps.clone();
    let store = Store::open_observed(&scene.root(), move |step, path| {
        // A lock keeps others away and changes nothing that lasts.
        if step != Step::Lock {
            seen.lock().unwrap().push((step, path.to_owned()));
        }
        Ok(())
    });
    (act.run)(&scene, &store.unwrap()).unwrap();
    let steps = std::mem::take(&mut *steps.lock().unwrap());
    (steps, scene.root())
}

/// What a power cut at the end of `steps` could still lose.
#[derive(Debug, Default)]
struct Unsynced {
    files: BTreeSet<PathBuf>,
    folders: BTreeSet<PathBuf>,
}

impl Unsynced {
    fn take(&mut self, step: Step, path: &Path) {
        let above = path.parent().unwrap().to_owned();
        match step {
            Step::MakeFolder => {
                self.folders.insert(above);
            }
            Step::Create => {
                self.files.insert(path.to_owned());
                self.folders.insert(above);
            }
            Step::Write | Step::Punch | Step::Open => {
                self.files.insert(path.to_owned());
            }
            Step::SyncFile => assert!(self.files.remove(path), "{path:?} synced for nothing"),
            Step::SyncFolder => {
                self.folders.remove(path);
            }
            Step::Rename | Step::Remove => {
                self.folders.insert(above);
            }
            other => panic!("{other} is no change"),
        }
    }
}

#[test]
fn a_rename_into_sight_comes_after_all_syncs_and_before_the_last() {
    for name in ["base", "layer", "name", "rename", "import", "flatten"] {
        let (steps, root) = steps(act(name));
        let staging = root.join("staging");
        let mut unsynced = Unsynced::default();
        for (at, (step, path)) in steps.iter().enumerate() {
            if *step == Step::Rename {
                let last = &steps[at - 1];
                assert!(
                    unsynced.files.is_empty(),
                    "{name}: {unsynced:?} after {last:?}"
                );
                // Of an unpublished thing, only its own place in `staging` may still be lost; a pointer is renamed as a
                // file, so its old folder needs no sync.
                unsynced
                    .folders
                    .retain(|folder| !folder.starts_with(&staging));
                assert!(unsynced.folders.is_empty(), "{name}: {unsynced:?}");
                let next = &steps[at + 1];
                let above = path.parent().unwrap().to_owned();
                assert_eq!(*next, (Step::SyncFolder, above), "{name}");
            }
            unsynced.take(*step, path);
        }
        unsynced
            .folders
            .retain(|folder| !folder.starts_with(&staging));
        assert!(
            unsynced.files.is_empty() && unsynced.folders.is_empty(),
            "{name}: {unsynced:?}"
        );
    }
}

#[test]
fn the_files_of_a_snapshot_are_named_for_good_before_it_is() {
    for name in ["base", "layer", "import", "flatten"] {
        let (steps, root) = steps(act(name));
        let place = root.join("snapshots");
        let renames = steps
            .iter()
            .enumerate()
            .filter(|(_, (step, path))| *step == Step::Rename && path.starts_with(&place));
        let mut published = 0;
        for (at, _) in renames {
            let (step, synced) = &steps[at - 1];
            assert!(
                *step == Step::SyncFolder && synced.parent() == Some(&root.join("staging")),
                "{name}"
            );
            published += 1;
        }
        assert_eq!(published, if name == "import" { 2 } else { 1 }, "{name}");
    }
}

#[test]
fn a_removal_goes_out_of_sight_first_and_for_good() {
    for name in ["remove", "collect"] {
        let (steps, root) = steps(act(name));
        let place = root.join("snapshots");
        let staging = root.join("staging");
        let renames: Vec<usize> = (0..steps.len())
            .filter(|at| steps[*at].0 == Step::Rename)
            .collect();
        assert_eq!(renames.first(), Some(&0), "{name}: {steps:?}");
        for (nth, at) in renames.iter().enumerate() {
            let (_, dead) = &steps[*at];
            assert!(dead.starts_with(&staging), "{name}: {dead:?}");
            assert_eq!(steps[at + 1], (Step::SyncFolder, place.clone()), "{name}");
            let next = renames.get(nth + 1).copied().unwrap_or(steps.len());
            let removals = &steps[at + 2..next];
            assert!(
                removals
                    .iter()
                    .all(|(step, path)| *step == Step::Remove && path.starts_with(dead)),
                "{name}: {removals:?}"
            );
            assert_eq!(removals.last().map(|(_, path)| path), Some(dead), "{name}");
        }
    }
}

#[test]
fn encoded_pages_last_before_what_names_them_and_the_old_ones_go_last() {
    let (steps, root) = steps(act("encode"));
    let staging = root.join("staging");
    let seen = |step: Step, name: &str| {
        let is_it = |(found, path): &&(Step, PathBuf)| *found == step && path.ends_with(name);
        assert_eq!(steps.iter().filter(is_it).count(), 1, "{step} {name}");
        steps.iter().position(|one| is_it(&one)).unwrap()
    };
    let pages = seen(Step::Rename, "encoded");
    let file = seen(Step::Rename, "snapshot");
    assert!(seen(Step::SyncFile, "encoded") < seen(Step::SyncFile, "snapshot"));
    assert!(seen(Step::SyncFile, "snapshot") < pages);
    let folder = steps[pages].1.parent().unwrap().to_owned();
    assert!(folder.starts_with(root.join("snapshots")));
    let sync = (Step::SyncFolder, folder.clone());
    let removal = (Step::Remove, folder.join("pages"));
    let expected = [&steps[pages], &sync, &steps[file], &sync, &removal];
    let found: Vec<_> = steps[pages..].iter().take(5).collect();
    assert_eq!(found, expected);
    // What is left is the emptied folder.
    let rest = &steps[pages + 5..];
    assert!(
        rest.iter()
            .all(|(step, path)| *step == Step::Remove && path.starts_with(&staging))
    );
}

#[test]
fn a_new_store_lasts_before_anything_is_published_in_it() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("above/store");
    let steps = Arc::new(Mutex::new(Steps::new()));
    let seen = steps.clone();
    Store::open_observed(&root, move |step, path| {
        seen.lock().unwrap().push((step, path.to_owned()));
        Ok(())
    })
    .unwrap();
    let steps = steps.lock().unwrap();
    let (last, before) = steps.split_last().unwrap();
    assert_eq!(*last, (Step::MakeFolder, root.join("staging")));
    for gained in [root.as_path(), &folder.path().join("above"), folder.path()] {
        assert!(
            before.contains(&(Step::SyncFolder, gained.to_owned())),
            "{gained:?} in {before:?}"
        );
    }
}
