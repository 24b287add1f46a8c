//! Workers as a parent has them, one after the other: each is a process with a machine, and nothing of it stays.

use std::io::{Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::FileExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

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
    let ground = Ground::new(&Program::new().count_for_ever(0x20_0000)).expect("a moment ago");
    let is_long = std::env::var_os("VMREPL_SLOW").is_some_and(|value| !value.is_empty());
    let many = if is_long { 10_000 } else { 60 };
    let mut early = None;
    for number in 0..many {
        let mut worker = ground.worker(number % 3);
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

/// What workers restore.
struct Ground {
    config: Config,
    state: Vec<u8>,
    _folder: tempfile::TempDir,
}

impl Ground {
    fn new(program: &Program) -> Option<Self> {
        let template = Template::new(&kvm()?, program);
        let folder = tempfile::tempdir().unwrap();
        let (memory_file, root) = (folder.path().join("memory"), folder.path().join("root"));
        let bytes = crate::mapping::length(&template.memory).unwrap();
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
        Some(Self {
            config,
            state: template.state,
            _folder: folder,
        })
    }

    fn restore(&self, spare: SpareWorker, run: bool) -> Worker {
        let restore = Restore {
            state: &self.state,
            hot: &[],
            purpose: crate::Purpose::Freeze,
            claims: &[],
            run,
        };
        spare
            .restore(&self.config, &restore, std::iter::empty())
            .unwrap()
    }

    /// A running machine: from nothing, in an empty one, or from its rest.
    fn worker(&self, way: usize) -> Worker {
        let mut spare = SpareWorker::start(&program()).unwrap();
        if way > 0 {
            let bytes = self.config.memory_bytes;
            spare.prepare(bytes, 1, crate::Purpose::Freeze).unwrap();
            spare.settle().unwrap();
        }
        let mut worker = self.restore(spare, way < 2);
        if way == 2 {
            worker.run().unwrap();
        }
        worker
    }
}

#[test]
fn a_guest_that_ends_by_itself_closes_its_streams() {
    let Some(ground) = Ground::new(&Program::new().fault()) else {
        return;
    };
    let mut worker = ground.restore(SpareWorker::start(&program()).unwrap(), false);
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    let opener = worker.opener().unwrap();
    opener.open(7, &theirs, false, Vec::new()).unwrap();
    drop(theirs);
    worker.run().unwrap();
    ours.set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    assert_eq!(ours.read(&mut [0; 8]).unwrap(), 0, "whoever waits is told");
    let why = worker.ended().expect("it has ended");
    assert!(why.contains("triple fault"), "{why}");
}

#[test]
fn asking_whether_it_lives_loses_no_answer() {
    let Some(ground) = Ground::new(&Program::new().count_for_ever(0x20_0000)) else {
        return;
    };
    let mut worker = ground.restore(SpareWorker::start(&program()).unwrap(), true);
    while worker.phases().run_ns == 0 {
        assert_eq!(worker.ended(), None);
        std::thread::yield_now();
    }
    worker.settle().unwrap();
    worker.rest().unwrap();
}
