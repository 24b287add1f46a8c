//! Bytes that were changed at random, on the disk and behind the checksums: whoever restores them gets an error or a
//! machine, and neither a crash nor a hang.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use vmrepl_machine::Machine;
use vmrepl_snapshots::StoreError;

use crate::chance::Random;
use crate::ground::count;
use crate::lanes::tell;
use crate::layers::{Ground, as_a_session};

/// A worker that says nothing for a minute is ended; nothing here may come near that.
const SOON: Duration = Duration::from_secs(30);

fn flip(bytes: &mut [u8], random: &mut Random) {
    let at = usize::try_from(random.below(bytes.len() as u64)).unwrap();
    bytes[at] ^= 1 << random.below(8);
}

#[test]
fn a_state_that_lies_costs_its_machine_alone() {
    let ground = Ground::new();
    let (state, _) = ground.read(&ground.base);
    let mut random = Random(7);
    let (mut refused, mut ended, mut ran) = (0, 0, 0);
    for number in 0..count(20, 1000) {
        let mut lie = state.clone();
        for _ in 0..=random.below(3) {
            flip(&mut lie, &mut random);
        }
        let began = Instant::now();
        let none = std::iter::empty();
        let restore = as_a_session(&lie);
        let restored = Machine::restore(&ground.engine, None, &ground.hardware, &restore, none);
        match restored.and_then(|mut restored| restored.machine.settle().map(|()| restored)) {
            // Some machines end at once, and some never do anything again; whoever asks hears of it.
            Ok(mut restored) => match restored.machine.pause() {
                Ok(_) => ran += 1,
                Err(_) => ended += 1,
            },
            Err(error) => {
                refused += 1;
                assert!(!error.to_string().is_empty());
            }
        }
        let took = began.elapsed();
        assert!(took < SOON, "state {number} took {took:?}");
    }
    tell(&format!(
        "{refused} states were refused, {ended} machines ended, {ran} ran"
    ));
    // The truth still works.
    let mut live = ground.restore(&ground.base, 20);
    assert_eq!(live.value("6 * 7"), "42");
}

#[test]
fn a_layer_with_any_changed_byte_is_refused() {
    let ground = Ground::new();
    let mut live = ground.restore(&ground.base, 10);
    live.value("x = list(range(1000))\nlen(x)");
    let (id, _) = ground.freeze(&mut live, &ground.base);
    drop(live);
    let folder = ground.folder_of(&id);
    let mut random = Random(11);
    for pages_file in ["pages", "encoded"] {
        let whole = ground.read(&id);
        for number in 0..count(100, 1000) {
            let name = ["snapshot", pages_file][number % 2];
            let (path, undo) = flip_file(&folder.join(name), &mut random);
            let error = ground.try_read(&id).expect_err("it was changed");
            let said = chain_of(&error);
            assert!(said.len() > 20, "{name}, byte {}: {said}", undo.0);
            mend(&path, undo);
        }
        assert!(ground.read(&id) == whole, "mended, it is as it was");
        assert_eq!(ground.store.encode(&id).unwrap(), pages_file == "pages");
    }
}

fn flip_file(path: &Path, random: &mut Random) -> (std::path::PathBuf, (u64, u8)) {
    let length = fs::metadata(path).unwrap().len();
    let at = random.below(length);
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ (1 << random.below(8))], at)
        .unwrap();
    (path.to_owned(), (at, byte[0]))
}

fn mend(path: &Path, (at, byte): (u64, u8)) {
    let file = OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(&[byte], at).unwrap();
}

fn chain_of(error: &StoreError) -> String {
    let mut said = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        said.push_str(": ");
        said.push_str(&inner.to_string());
        cause = inner.source();
    }
    said
}
