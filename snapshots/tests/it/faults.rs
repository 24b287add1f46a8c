//! Every step of every act fails once, and then with all that come after it, as on a full or a broken disk.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use rustix::io::Errno;
use vmrepl_snapshots::{Step, Store, StoreError};

use crate::acts::{ACTS, Act};
use crate::ground::Scene;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Lasting {
    /// One step fails, the next ones succeed: what was begun can be cleaned up.
    Once,
    /// All steps from there on fail: nothing can be cleaned up.
    FromThere,
}

/// The step that failed first, and how many there were.
#[derive(Debug, Default)]
struct Seen {
    steps: usize,
    failed: Option<(Step, PathBuf)>,
}

fn failing(root: &Path, at: usize, errno: Errno, lasting: Lasting) -> (Store, Arc<Mutex<Seen>>) {
    let seen = Arc::new(Mutex::new(Seen::default()));
    let observed = seen.clone();
    let store = Store::open_observed(root, move |step, path| {
        let mut seen = observed.lock().unwrap();
        seen.steps += 1;
        if seen.steps == at {
            seen.failed = Some((step, path.to_owned()));
        }
        if seen.steps == at || seen.steps > at && lasting == Lasting::FromThere {
            return Err(errno.into());
        }
        Ok(())
    });
    (store.unwrap(), seen)
}

/// Fails step after step until there is none left to fail; returns how many there are.
fn fail_everywhere(original: &Scene, act: Act, errno: Errno, lasting: Lasting) -> usize {
    for at in 1.. {
        let folder = tempfile::tempdir().unwrap();
        let scene = original.copy(folder.path());
        let (store, seen) = failing(&scene.root(), at, errno, lasting);
        let place = format!("{} {errno:?} {lasting:?} at step {at}", act.name);
        let ended = (act.run)(&scene, &store);
        drop(store);
        let seen = seen.lock().unwrap();
        let Some((step, path)) = &seen.failed else {
            ended.unwrap();
            return seen.steps;
        };
        match ended {
            Err(error) => {
                let text = error.to_string();
                assert!(
                    text.contains(&step.to_string()) && text.contains(path.to_str().unwrap()),
                    "{place}: {text}"
                );
                let source = io::Error::from(errno).kind();
                assert!(
                    matches!(&error, StoreError::Disk { step: said, path: named, source: inner }
                        if said == step && named == path && inner.kind() == source),
                    "{place}: {error:?}"
                );
            }
            // Only what has no bearing on the outcome may fail unheard: taking away an emptied staging folder.
            Ok(()) => {
                let staging = scene.root().join("staging");
                assert!(
                    *step == Step::Remove && path.starts_with(staging),
                    "{place}: nobody heard of it"
                );
            }
        }
        if lasting == Lasting::Once && *step != Step::Remove && act.name != "collect" {
            // What was renamed away to be deleted is a leftover; a draft that failed is not.
            let dead = usize::from(act.name == "remove" && *step == Step::SyncFolder);
            assert_eq!(scene.leftovers(), dead, "{place}");
        }
        scene.check();
        let plain = Store::open(&scene.root()).unwrap();
        if !(act.is_done)(&scene, &plain) {
            (act.run)(&scene, &plain).unwrap();
            assert!((act.is_done)(&scene, &plain), "{place}");
        }
        scene.check();
        if act.name != "unname" && act.name != "rename" {
            assert!(plain.contains(&scene.tip), "{place}");
        }
        plain.set_name("scene", "tip", &scene.tip).unwrap();
        scene.check_collection();
        scene.check();
    }
    unreachable!("an act ends")
}

fn fail_all(errno: Errno, lasting: Lasting) {
    let original = tempfile::tempdir().unwrap();
    let original = Scene::new(original.path());
    for act in ACTS {
        let steps = fail_everywhere(&original, act, errno, lasting);
        let least = match act.name {
            "unname" => 2,
            "remove" => 3,
            _ => 5,
        };
        assert!(steps >= least, "{} has {steps} steps", act.name);
    }
}

#[test]
fn the_disk_is_full_for_one_step() {
    fail_all(Errno::NOSPC, Lasting::Once);
}

#[test]
fn the_disk_breaks_and_stays_so() {
    fail_all(Errno::IO, Lasting::FromThere);
}

#[test]
fn a_store_that_cannot_be_made_is_made_later() {
    for at in 1.. {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("above/store");
        let steps = Mutex::new(0);
        let opened = Store::open_observed(&root, move |_, _| {
            let mut steps = steps.lock().unwrap();
            *steps += 1;
            if *steps == at {
                return Err(Errno::NOSPC.into());
            }
            Ok(())
        });
        let is_last = opened.is_ok();
        drop(opened);
        let store = Store::open(&root).unwrap();
        assert_eq!(store.ids().unwrap(), [], "step {at}");
        crate::ground::publish_base(&store, 1, &[]).unwrap();
        if is_last {
            assert!(at > 5, "{at}");
            return;
        }
    }
}
