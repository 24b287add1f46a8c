use std::sync::mpsc;

use super::*;
use crate::key::KeyBuilder;
use crate::progress::Silent;

fn key(text: &str) -> Key {
    KeyBuilder::new("test", 1).text("input", text).finish()
}

fn step() -> Step {
    Step {
        name: "test",
        detail: String::new(),
        total: None,
    }
}

fn run(
    cache: &Cache,
    input: &str,
    work: impl FnOnce(&mut Work<'_>) -> Result<(), ImageError>,
) -> Result<PathBuf, ImageError> {
    cache.step(&step(), key(input), &mut Silent, &Cancel::new(), work)
}

fn write(work: &mut Work<'_>, text: &str) -> Result<(), ImageError> {
    let path = work.staging.join("result");
    std::fs::write(&path, text).map_err(at("writing", &path))
}

fn entries(cache: &Cache, folder: &str) -> usize {
    std::fs::read_dir(cache.root.join(folder)).unwrap().count()
}

#[test]
fn a_step_runs_once_for_each_key() {
    let dir = tempfile::tempdir().unwrap();
    let cache = Cache::open(dir.path()).unwrap();
    let first = run(&cache, "a", |work| write(work, "1")).unwrap();
    let again = run(&cache, "a", |_| panic!("the result is there")).unwrap();
    let other = run(&cache, "b", |work| write(work, "2")).unwrap();
    assert_eq!(first, again);
    assert_ne!(first, other);
    assert_eq!(std::fs::read_to_string(first.join("result")).unwrap(), "1");
    assert_eq!(cache.find("test", key("b")), Some(other));
    assert_eq!(cache.find("test", key("c")), None);
}

#[test]
fn a_failed_or_cancelled_step_publishes_nothing_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let cache = Cache::open(dir.path()).unwrap();
    let failed = run(&cache, "a", |work| {
        write(work, "half")?;
        Err(ImageError::unusable("testing", "it is bad"))
    });
    assert!(failed.unwrap_err().to_string().contains("it is bad"));
    let cancelled = run(&cache, "a", |work| {
        work.cancel.cancel();
        write(work, "whole, but too late")
    });
    assert!(matches!(cancelled, Err(ImageError::Cancelled)));
    assert_eq!(
        (entries(&cache, "steps"), entries(&cache, "staging")),
        (0, 0)
    );
    run(&cache, "a", |work| write(work, "good")).unwrap();
}

#[test]
fn a_dead_builders_staging_is_swept_and_a_living_ones_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let cache = Cache::open(dir.path()).unwrap();
    for name in ["dead", "alive"] {
        let folder = cache.root.join("staging").join(name).join("deep");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o500)).unwrap();
    }
    let lock = cache.lock_file("alive").unwrap();
    lock.lock().unwrap();
    Cache::open(dir.path()).unwrap();
    assert!(!cache.root.join("staging/dead").exists());
    assert!(cache.root.join("staging/alive").exists());
}

#[test]
fn mount_points_inside_of_a_folder_are_found() {
    let text = "22 28 0:21 / /proc rw,nosuid - proc proc rw\n36 35 98:0 / /mnt/a\\040b/c rw - ext4 /dev/vda rw\n";
    let points: Vec<PathBuf> = mount_points(text).collect();
    assert_eq!(
        points,
        [PathBuf::from("/proc"), PathBuf::from("/mnt/a b/c")]
    );
    let proc = Path::new("/proc");
    assert_eq!(mount_inside(proc).unwrap().as_deref(), Some(proc));
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(mount_inside(dir.path()).unwrap(), None);
}

#[test]
fn a_second_builder_waits_for_the_first_and_takes_its_result() {
    let dir = tempfile::tempdir().unwrap();
    let cache = Cache::open(dir.path()).unwrap();
    let (inside, is_inside) = mpsc::channel();
    let (go_on, may_go_on) = mpsc::channel();
    let (waits, is_waiting) = mpsc::channel();
    std::thread::scope(|scope| {
        let first = scope.spawn(|| {
            run(&cache, "a", move |work| {
                inside.send(()).unwrap();
                may_go_on.recv().unwrap();
                write(work, "first")
            })
        });
        is_inside.recv().unwrap();
        let second = scope.spawn(|| {
            let mut progress = Tells(waits);
            cache.step(&step(), key("a"), &mut progress, &Cancel::new(), |_| {
                panic!("twice")
            })
        });
        assert!(is_waiting.recv().unwrap().contains("waiting"));
        go_on.send(()).unwrap();
        assert_eq!(
            first.join().unwrap().unwrap(),
            second.join().unwrap().unwrap()
        );
    });
}

#[test]
fn a_waiting_builder_can_be_cancelled() {
    let dir = tempfile::tempdir().unwrap();
    let cache = Cache::open(dir.path()).unwrap();
    let lock = cache.lock_file(&name("test", key("a"))).unwrap();
    lock.lock().unwrap();
    let cancel = Cancel::new();
    let mut progress = Cancels(cancel.clone());
    let result = cache.step(&step(), key("a"), &mut progress, &cancel, |_| {
        panic!("locked")
    });
    assert!(matches!(result, Err(ImageError::Cancelled)));
}

/// The builder is this test again, in a process of its own, which is killed where nothing can tidy up after it.
#[test]
fn a_builder_killed_in_the_middle_of_a_step_leaves_nothing_that_counts() {
    const FOLDER: &str = "VMREPL_TEST_KILLED_BUILDER";
    const NAME: &str =
        "cache::tests::a_builder_killed_in_the_middle_of_a_step_leaves_nothing_that_counts";
    if let Some(folder) = std::env::var_os(FOLDER) {
        let cache = Cache::open(Path::new(&folder)).unwrap();
        let never = run(&cache, "a", |work| {
            write(work, "half")?;
            eprintln!("half way");
            std::io::copy(&mut std::io::stdin(), &mut std::io::sink()).unwrap();
            panic!("the other process ended first");
        });
        panic!("{never:?}");
    }
    let dir = tempfile::tempdir().unwrap();
    let mut builder = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", NAME, "--nocapture"])
        .env(FOLDER, dir.path())
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let stderr = std::io::BufReader::new(builder.stderr.take().unwrap());
    let mut lines = std::io::BufRead::lines(stderr).map_while(Result::ok);
    assert!(lines.any(|line| line == "half way"));
    builder.kill().unwrap();
    builder.wait().unwrap();
    let left = dir.path().join("staging").join(name("test", key("a")));
    assert!(left.join("result").exists(), "it was killed in the middle");
    let cache = Cache::open(dir.path()).unwrap();
    assert_eq!(
        (entries(&cache, "steps"), entries(&cache, "staging")),
        (0, 0)
    );
    let made = run(&cache, "a", |work| write(work, "whole")).unwrap();
    assert_eq!(
        std::fs::read_to_string(made.join("result")).unwrap(),
        "whole"
    );
}

struct Tells(mpsc::Sender<String>);

impl Progress for Tells {
    fn started(&mut self, _step: &Step) {}
    fn advanced(&mut self, _done: u64, note: &str) {
        self.0.send(note.to_owned()).unwrap();
    }
    fn finished(&mut self, _cached: bool, _took: Duration) {}
}

struct Cancels(Cancel);

impl Progress for Cancels {
    fn started(&mut self, _step: &Step) {}
    fn advanced(&mut self, _done: u64, _note: &str) {
        self.0.cancel();
    }
    fn finished(&mut self, _cached: bool, _took: Duration) {}
}
