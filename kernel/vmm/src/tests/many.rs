//! Workers as a parent has them, one after the other: each is a process with a machine, and nothing of it stays.

use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::ExitCode;

use super::program::Program;
use super::tiny::{Template, kvm};
use crate::worker::{Config, Restore, SpareWorker, Worker, work};

/// This test program, as a worker.
fn program() -> crate::Program {
    crate::Program {
        path: std::env::current_exe().unwrap(),
        arguments: [
            "--exact",
            "tests::many::as_worker",
            "--ignored",
            "--nocapture",
        ]
        .map(Into::into)
        .to_vec(),
    }
}

#[test]
#[ignore = "not a test: what the others start as their worker"]
fn as_worker() {
    let socket = std::io::stdin().as_fd().try_clone_to_owned().unwrap();
    assert_eq!(work(socket), ExitCode::SUCCESS);
}

/// Kilobytes of memory of its own, and open descriptors.
fn held() -> (u64, usize) {
    let rollup = std::fs::read_to_string("/proc/self/smaps_rollup").unwrap();
    let line = rollup
        .lines()
        .find_map(|line| line.strip_prefix("Private_Dirty:"));
    let number = line.unwrap().trim().trim_end_matches(" kB").parse();
    let descriptors = Path::new("/proc/self/fd").read_dir().unwrap();
    (number.unwrap(), descriptors.count())
}

/// In a process of its own: other tests would count.
#[test]
fn nothing_stays_of_many_workers() {
    if kvm().is_none() {
        return;
    }
    let status = std::process::Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "tests::many::many_workers",
            "--ignored",
            "--nocapture",
        ])
        .status()
        .unwrap();
    assert!(status.success(), "{status}");
}

#[test]
#[ignore = "run by nothing_stays_of_many_workers, alone in its process"]
fn many_workers() {
    let kvm = kvm().expect("it was there a moment ago");
    let counter = 0x20_0000;
    let template = Template::new(&kvm, &Program::new().count_for_ever(counter));
    let folder = tempfile::tempdir().unwrap();
    let memory_file = folder.path().join("memory");
    let root = folder.path().join("root");
    let bytes = crate::machine::length(&template.memory).unwrap();
    let mut content = vec![0; usize::try_from(bytes).unwrap()];
    template.memory.read_exact_at(&mut content, 0).unwrap();
    std::fs::write(&memory_file, content).unwrap();
    std::fs::write(&root, []).unwrap();
    let config = Config {
        memory_bytes: bytes,
        vcpus: 1,
        memory_file,
        root,
    };
    let is_long = std::env::var_os("VMREPL_SLOW").is_some_and(|value| !value.is_empty());
    let many = if is_long { 10_000 } else { 60 };
    let mut early = None;
    for number in 0..many {
        let mut worker = one(&config, &template.state, number % 3);
        worker.rest().unwrap();
        let (_, changed) = worker.freeze().unwrap();
        assert!(changed.mark == 1 && worker.ended().is_none());
        let pid = worker.pid();
        drop(worker);
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
        if number == many / 10 {
            early = Some(held());
        }
    }
    let (early, now) = (early.unwrap(), held());
    writeln!(
        std::io::stderr(),
        "{many} workers: {early:?}, then {now:?} (kB of its own, descriptors)"
    )
    .unwrap();
    assert!(now.0 <= early.0 + 512, "memory grows: {early:?}, {now:?}");
    assert!(now.1 <= early.1, "descriptors stay: {early:?}, {now:?}");
}

/// A running machine: from nothing, in an empty one, or from its rest.
fn one(config: &Config, state: &[u8], way: usize) -> Worker {
    let purpose = crate::Purpose::Freeze;
    let mut spare = SpareWorker::start(&program()).unwrap();
    if way > 0 {
        spare.prepare(config.memory_bytes, 1, purpose).unwrap();
        spare.settle().unwrap();
    }
    let restore = Restore {
        state,
        hot: &[],
        purpose,
        claims: &[],
        run: way < 2,
    };
    let mut worker = spare.restore(config, &restore, std::iter::empty()).unwrap();
    if way == 2 {
        worker.run().unwrap();
    }
    worker
}
