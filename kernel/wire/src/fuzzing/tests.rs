//! The fuzz targets in the ordinary test run: over the inputs that are kept, over these with changes, and over noise.

use std::fs;
use std::path::PathBuf;

use proptest::prelude::*;

use super::{channel, languages, lines};
use crate::files::{self, Tag};
use crate::languages::encode;
use crate::runner::{self, Kind};

/// Files of a target that came from these tests or from a finding.
fn folder(target: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../../fuzz/seeds")
        .join(target)
}

fn kept(target: &str) -> Vec<Vec<u8>> {
    let entries = fs::read_dir(folder(target)).unwrap();
    entries
        .map(|entry| fs::read(entry.unwrap().path()).unwrap())
        .collect()
}

/// Whether the kept file is what the code makes today; `VMREPL_BLESS=1` writes it.
fn is_current(target: &str, name: &str, bytes: &[u8]) -> bool {
    let path = folder(target).join(name);
    if std::env::var_os("VMREPL_BLESS").is_some() {
        fs::create_dir_all(folder(target)).unwrap();
        fs::write(&path, bytes).unwrap();
    }
    fs::read(path).is_ok_and(|found| found == bytes)
}

fn line_seeds() -> Vec<(String, Vec<u8>)> {
    let goldens = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/wire");
    let mut seeds = Vec::new();
    for entry in fs::read_dir(goldens).unwrap() {
        let path = entry.unwrap().path();
        if path
            .extension()
            .is_some_and(|extension| extension == "jsonl")
        {
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            let text = fs::read(&path).unwrap();
            seeds.push((name, [&[64, 255], &text[..text.len().min(2000)]].concat()));
        }
    }
    let numbers =
        br#"{"type":"result","data":{"application/json":[1137227.4914744233,-4.7e-178]}}"#;
    seeds.push((
        "numbers".to_owned(),
        [&[64, 255], &numbers[..], b"\n"].concat(),
    ));
    let mut frames = vec![5, 20];
    runner::encode(Kind::Done, 3, b"\0\0\0\x01{}", &mut frames).unwrap();
    runner::encode(Kind::Line, 3, b"{}\n", &mut frames).unwrap();
    seeds.push(("runner-frames".to_owned(), frames));
    let mut frames = vec![200, 20];
    files::encode(Tag::Control, b"{\"op\":\"ping\"}", &mut frames).unwrap();
    files::encode(Tag::End, b"", &mut frames).unwrap();
    seeds.push(("files-frames".to_owned(), frames));
    seeds.push((
        "request".to_owned(),
        b"\x03\x01CONNECT 10000\nrest".to_vec(),
    ));
    let text = "\x09\x05caf\u{e9} \u{20ac} \u{1f600}".as_bytes();
    seeds.push(("text".to_owned(), text.to_vec()));
    seeds.push(("text-of-three".to_owned(), text[..text.len() - 5].to_vec()));
    seeds.push(("answer".to_owned(), b"\x09\x01OK 1024\r\n\xe2\x82".to_vec()));
    seeds
}

/// Golden messages as they are, and in frames.
fn language_seeds() -> Vec<(String, Vec<u8>)> {
    let goldens = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/wire");
    let mut seeds = Vec::new();
    for name in ["requests", "replies", "refusals"] {
        let text = fs::read_to_string(goldens.join(format!("languages-{name}.jsonl"))).unwrap();
        let mut frames = vec![7];
        for (number, line) in (1..).zip(text.lines()) {
            encode(line.as_bytes(), &mut frames).unwrap();
            let whole = [&[255], line.as_bytes()].concat();
            seeds.push((format!("{name}-{number}"), whole));
        }
        seeds.push((format!("{name}-frames"), frames));
    }
    seeds
}

/// Scripts of `channel`: which end, then acts.
const CHANNELS: [(&str, &[&[u8]]); 3] = [
    // Greeted, opened, accepted; data comes and is taken; data goes, and a grant lets more go; both ends finish.
    (
        "guest",
        &[
            &[0, 1, 1, 0xdd, 0],
            &[1, 2, 0, 2, 0, 0, 0x27, 0x10, 5, 0],
            &[1, 4, 0, 2, 0xff, 0xff, 9, 0, 0x20, 0],
            &[7, 0, 0x20, 0, 11, 1, 5, 0, 2, 0x10, 0, 6, 0, 3, 11],
            &[1, 6, 0, 2, 0, 0, 0, 0],
        ],
    ),
    // Confirmed, opens, is accepted, sends, ends.
    (
        "host",
        &[
            &[1, 1, 1, 0, 0, 4, 9, 11],
            &[1, 3, 0, 2, 0, 0, 0, 0, 7, 0, 0x20, 0, 10, 1, 0, 6, 0, 3, 11],
            &[1, 6, 0, 2, 0, 0, 0, 0],
        ],
    ),
    // Opened and closed; then another epoch, a frame of the one before, and a stream that is refused.
    (
        "epochs",
        &[
            &[0, 1, 1, 0xdd, 0],
            &[1, 2, 0, 4, 0, 0, 0, 9, 6, 0, 2, 11],
            &[1, 1, 0xde, 0, 1, 4, 0xdb, 4, 0, 8],
            &[1, 2, 0, 2, 0, 0, 0, 9, 6, 0, 0, 11],
        ],
    ),
];

fn check(name: &str, run: fn(&[u8]), seeds: &[(String, Vec<u8>)]) {
    for (file, bytes) in seeds {
        assert!(is_current(name, file, bytes), "fuzz/seeds/{name}/{file}");
    }
    for input in kept(name) {
        run(&input);
    }
}

#[test]
fn kept_lines_pass() {
    check("lines", lines, &line_seeds());
}

#[test]
fn kept_channels_pass() {
    let seeds = CHANNELS.map(|(name, bytes)| (name.to_owned(), bytes.concat()));
    check("channel", channel, &seeds);
}

#[test]
fn kept_languages_pass() {
    check("languages", languages, &language_seeds());
}

/// Changes of an input's bytes: where, how many of the old ones go, and what comes.
type Changes = Vec<(prop::sample::Index, usize, Vec<u8>)>;

fn changes() -> impl Strategy<Value = Changes> {
    let change = (
        any::<prop::sample::Index>(),
        0..20_usize,
        prop::collection::vec(any::<u8>(), 0..20),
    );
    prop::collection::vec(change, 0..6)
}

fn changed(inputs: &[Vec<u8>], which: prop::sample::Index, changes: Changes) -> Vec<u8> {
    let mut bytes = which.get(inputs).clone();
    for (at, gone, new) in changes {
        let at = at.index(bytes.len() + 1);
        let end = bytes.len().min(at + gone);
        bytes.splice(at..end, new);
    }
    bytes
}

thread_local! {
    /// One for each test, which is a thread of its own.
    static LINES: Vec<Vec<u8>> = kept("lines");
    static CHANNEL: Vec<Vec<u8>> = kept("channel");
    static LANGUAGES: Vec<Vec<u8>> = kept("languages");
}

/// A finding belongs into `fuzz/seeds`, not into a file of its own.
fn config() -> ProptestConfig {
    ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(4000)
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn lines_with_changes_pass(which: prop::sample::Index, changes in changes()) {
        lines(&LINES.with(|inputs| changed(inputs, which, changes)));
    }

    #[test]
    fn channels_with_changes_pass(which: prop::sample::Index, changes in changes()) {
        channel(&CHANNEL.with(|inputs| changed(inputs, which, changes)));
    }

    #[test]
    fn languages_with_changes_pass(which: prop::sample::Index, changes in changes()) {
        languages(&LANGUAGES.with(|inputs| changed(inputs, which, changes)));
    }

    #[test]
    fn noise_passes(bytes in prop::collection::vec(any::<u8>(), 0..1000)) {
        lines(&bytes);
        channel(&bytes);
        languages(&bytes);
    }
}
