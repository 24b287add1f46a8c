//! A process is killed before every step of every act, so that no cleanup of its own runs.

use std::env;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::process::{Signal, getpid, kill_process};
use vmrepl_snapshots::Store;

use crate::acts::{ACTS, Act, act};
use crate::ground::{Scene, spawned};

const ACT: &str = "VMREPL_TEST_ACT";
const STEP: &str = "VMREPL_TEST_STEP";
const FOLDER: &str = "VMREPL_TEST_FOLDER";

fn run_and_die(act: &str, at: usize, folder: &Path) -> ExitStatus {
    let mut command = Command::new(env::current_exe().unwrap());
    command
        .args(["--exact", "deaths::the_one_that_dies", "--ignored"])
        .env(ACT, act)
        .env(STEP, at.to_string())
        .env(FOLDER, folder)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    spawned(&mut command).wait_with_output().unwrap().status
}

#[test]
#[ignore = "the others start it as a process of its own, to be killed"]
fn the_one_that_dies() {
    let folder = PathBuf::from(env::var_os(FOLDER).unwrap());
    let at: usize = env::var(STEP).unwrap().parse().unwrap();
    let act = act(&env::var(ACT).unwrap());
    let scene = Scene::found(folder);
    let steps = AtomicUsize::new(0);
    let store = Store::open_observed(&scene.root(), move |_, _| {
        if steps.fetch_add(1, Ordering::Relaxed) + 1 == at {
            kill_process(getpid(), Signal::KILL).unwrap();
        }
        Ok(())
    });
    (act.run)(&scene, &store.unwrap()).unwrap();
}

fn die_everywhere(act: Act) {
    let original = tempfile::tempdir().unwrap();
    let original = Scene::new(original.path());
    for at in 1.. {
        let folder = tempfile::tempdir().unwrap();
        let scene = original.copy(folder.path());
        let status = run_and_die(act.name, at, folder.path());
        let place = format!("{} killed at step {at}", act.name);
        scene.check();
        let store = Store::open(&scene.root()).unwrap();
        let is_done = (act.is_done)(&scene, &store);
        if status.success() {
            assert!(is_done, "{place}");
            assert!(at > 2, "{place}: it has no steps");
            return;
        }
        assert_eq!(status.signal(), Some(9), "{place}");
        if !is_done {
            (act.run)(&scene, &store).unwrap();
            assert!((act.is_done)(&scene, &store), "{place}");
        }
        scene.check();
        store.set_name("scene", "tip", &scene.tip).unwrap();
        scene.check_collection();
        scene.check();
    }
}

#[test]
fn while_publishing_a_base() {
    die_everywhere(act("base"));
}

#[test]
fn while_publishing_a_layer() {
    die_everywhere(act("layer"));
}

#[test]
fn while_naming() {
    for name in ["name", "rename", "unname"] {
        die_everywhere(act(name));
    }
}

#[test]
fn while_removing() {
    for name in ["remove", "collect"] {
        die_everywhere(act(name));
    }
}

#[test]
fn while_importing() {
    die_everywhere(act("import"));
}

#[test]
fn while_flattening() {
    die_everywhere(act("flatten"));
}

#[test]
fn while_encoding() {
    die_everywhere(act("encode"));
}

#[test]
fn every_act_dies_above() {
    let above = [
        "base", "layer", "name", "rename", "unname", "remove", "collect", "import", "flatten",
        "encode",
    ];
    assert!(ACTS.iter().all(|act| above.contains(&act.name)));
}
