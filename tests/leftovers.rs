//! Killed at any moment, a run leaves no engine, no socket, no file.

use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open};

use crate::chance::Random;
use crate::disk::Copy;
use crate::ground::{TEMPLATE, count, folder};
use crate::process::{Run, VMREPL};
use crate::processes::engines_of;

/// How long an engine may outlive its run.
const PATIENCE: Duration = Duration::from_secs(2);

const SIGNALS: [Signal; 3] = [Signal::KILL, Signal::TERM, Signal::INT];

#[test]
fn killed_at_any_moment() {
    // A store of our own, so that its engines are ours.
    let copy = Copy::new();
    let run = folder();
    let seed = u64::from(std::process::id());
    let mut random = Random(seed);
    for number in 0..count(12, 100) {
        let signal = SIGNALS[number % SIGNALS.len()];
        let moment = Duration::from_micros(random.below(700_000));
        let case = format!("run {number}, {signal:?} after {moment:?}, seed {seed}");
        // Whoever runs the tests in the background may have made Ctrl-C ignored, and we would inherit that.
        let words = ["--default-signal=INT", VMREPL, "--template", TEMPLATE];
        let running = Run::of("env", words.into_iter().chain(["-c", "while True: pass"]))
            .env("VMREPL_HOME", copy.home())
            .env("VMREPL_RUN_DIR", run.path())
            .start();
        assert!(!running.ends_within(moment), "{case}: it ended by itself");
        running.signal(signal);
        let ended = running.finish();
        let code = if signal == Signal::KILL { 137 } else { 130 };
        let by_default = 128 + signal.as_raw();
        assert!(
            [code, by_default].contains(&ended.exit()),
            "{case}: {ended}"
        );
        assert_no_engine(&copy.store(), &case);
    }
    Run::code("'next'")
        .env("VMREPL_HOME", copy.home())
        .env("VMREPL_RUN_DIR", run.path())
        .finish()
        .says("'next'\n");
    let left = names(run.path());
    assert!(left.is_empty(), "left in the folder of runs: {left:?}");
    let staged = names(&copy.store().join("staging"));
    assert!(staged.is_empty(), "left in the store: {staged:?}");
}

#[test]
fn a_run_that_ends_well_leaves_nothing() {
    let copy = Copy::new();
    let run = folder();
    for code in ["1", "1 / 0", "import os; os._exit(3)"] {
        Run::code(code)
            .env("VMREPL_HOME", copy.home())
            .env("VMREPL_RUN_DIR", run.path())
            .finish();
        assert_no_engine(&copy.store(), code);
        let left = names(run.path());
        assert!(
            left.is_empty(),
            "{code}: left in the folder of runs: {left:?}"
        );
    }
}

fn names(folder: &Path) -> Vec<String> {
    let Ok(entries) = folder.read_dir() else {
        return Vec::new();
    };
    let name = |entry: std::fs::DirEntry| entry.file_name().to_string_lossy().into_owned();
    entries.flatten().map(name).collect()
}

#[track_caller]
fn assert_no_engine(store: &Path, case: &str) {
    let began = Instant::now();
    for id in engines_of(store) {
        let pid = Pid::from_raw(i32::try_from(id).unwrap()).unwrap();
        // Gone between the look and now: well.
        let Ok(descriptor) = pidfd_open(pid, PidfdFlags::empty()) else {
            continue;
        };
        let left = Timespec::try_from(PATIENCE.saturating_sub(began.elapsed())).unwrap();
        let ended = poll(&mut [PollFd::new(&descriptor, PollFlags::IN)], Some(&left));
        assert!(
            ended.is_ok_and(|count| count > 0),
            "{case}: engine {id} lives on"
        );
    }
    let late = engines_of(store);
    assert!(late.is_empty(), "{case}: engines {late:?} live");
}
