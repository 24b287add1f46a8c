//! Preparing that is killed at any moment, while others read: they find the old template or the new one.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use rustix::process::Signal;

use crate::chance::Random;
use crate::disk::Copy;
use crate::ground::{DEADLINE, TEMPLATE, count, folder};
use crate::process::Run;

/// How many read at the same time.
const READERS: usize = 2;

#[test]
fn readers_find_the_old_template_or_the_new_one() {
    let copy = Copy::new();
    let runs = folder();
    let at = |run: Run| {
        run.env("VMREPL_HOME", copy.home())
            .env("VMREPL_RUN_DIR", runs.path())
    };
    let prepare = || at(Run::bare(["prepare", TEMPLATE, "--force"]));
    let whole = prepare().deadline(DEADLINE * 2).finish();
    assert_eq!(whole.exit(), 0, "{whole}");
    let is_over = AtomicBool::new(false);
    let answers = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let over = Over(&is_over);
        for _ in 0..READERS {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    at(Run::code("1 + 1")).finish().says("2\n");
                    answers.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let seed = u64::from(std::process::id());
        let mut random = Random(seed);
        for number in 0..count(6, 40) {
            // A little more than the whole takes when nobody reads, so that some come to their end.
            let most = u64::try_from(whole.took.as_micros()).unwrap() * 5 / 4;
            let moment = Duration::from_micros(random.below(most));
            let running = prepare().start();
            if !running.ends_within(moment) {
                running.signal(Signal::KILL);
            }
            let ended = running.finish();
            let case = format!("kill {number} after {moment:?}, seed {seed}");
            assert!([0, 137].contains(&ended.exit()), "{case}: {ended}");
        }
        drop(over);
    });
    assert!(answers.into_inner() >= READERS);
    let last = prepare().deadline(DEADLINE * 2).finish();
    assert_eq!(last.exit(), 0, "{last}");
    let verified = at(Run::bare(["verify"])).finish();
    assert_eq!(verified.exit(), 0, "{verified}");
    let staged = copy.store().join("staging").read_dir().unwrap();
    assert_eq!(staged.count(), 0);
}

/// Ends the readers, however the test ends.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
