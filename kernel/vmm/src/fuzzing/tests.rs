//! The fuzz targets in the ordinary test run: over the inputs that are kept, over these with changes, and over noise.

use std::fs;
use std::path::PathBuf;

use proptest::prelude::*;

use super::{block, devices, saved, vsock};
use crate::devices::fuzzing::{Board, machine};
use crate::hot::encode_hot_pages;
use crate::vsock::{Connection, VsockState};
use crate::worker::message::{Order, Report};

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

fn check(target: &str, run: fn(&[u8]), seeds: &[(&str, Vec<u8>)]) {
    for (file, bytes) in seeds {
        assert!(
            is_current(target, file, bytes),
            "fuzz/seeds/{target}/{file}"
        );
    }
    for input in kept(target) {
        run(&input);
    }
}

/// Acts of the script of `vsock`.
mod act {
    pub(super) const KNOCKED: &[u8] = &[0, 0, 0, 0, 7, 255];
    pub(super) const OPEN: &[u8] = &[5, 0x05];
    pub(super) const OFFER: &[u8] = &[10, 7, 0xfe];
    pub(super) const OFFER_IN_TWO: &[u8] = &[11, 7, 0x05];
    pub(super) const RECEIVE: &[u8] = &[12];
    pub(super) const ACCEPT: &[u8] = &[0, 0, 0, 2, 0];
    pub(super) const SEND: &[u8] = &[0, 0x06, 0, 5, 0, 0x10, 0x27];
    pub(super) const SHUTDOWN: &[u8] = &[1, 0, 0, 4 + 27, 0];
    pub(super) const CREDIT: &[u8] = &[2, 0, 0, 6, 0];
    /// A small window, and nothing read.
    pub(super) const SHRINK: &[u8] = &[2, 0x60, 0, 6 + 9 * 14, 0, 0, 0x10];
    /// More than a window.
    pub(super) const FLOOD: &[u8] = &[2, 0x06, 0xe1, 5, 0, 0xff, 0xff];
    /// For no stream.
    pub(super) const REFUSED: &[u8] = &[2, 0, 0xff, 5, 0xff];
    pub(super) const READ: &[u8] = &[8, 0];
    pub(super) const WRITE: &[u8] = &[6, 0, 0x10, 0x27];
    pub(super) const LEAVE: &[u8] = &[9, 0, 0];
    pub(super) const HOST: &[u8] = &[14];
    pub(super) const SAVE: &[u8] = &[15];
    pub(super) const ROLL_BACK: &[u8] = &[16];
    pub(super) const RESTORE: &[u8] = &[17, 2, 1];
    pub(super) const LIE: &[u8] = &[19, 0x05, 0, 0, 0, 0, 0, 50, 1, 1];
}

#[test]
fn kept_vsock_inputs_pass() {
    use act::*;
    let opened = [KNOCKED, OPEN, OFFER, RECEIVE, ACCEPT].concat();
    let talk = [SEND, CREDIT, READ, WRITE, HOST, RECEIVE].concat();
    let ended = [SHUTDOWN, RECEIVE, LEAVE, HOST].concat();
    let again = [ROLL_BACK, OFFER_IN_TWO, RECEIVE, RESTORE].concat();
    let shrunk = [SHRINK, WRITE, HOST, RECEIVE, SEND, SAVE].concat();
    let held = [SAVE, SEND, SEND, SEND, READ, HOST, ROLL_BACK, SEND].concat();
    let seeds = [
        ("talk", [&opened[..], &talk, &ended].concat()),
        ("saved", [&opened[..], SAVE, &talk, &again, &talk].concat()),
        ("window", [&opened[..], &shrunk, FLOOD].concat()),
        ("refused", [&opened[..], &REFUSED.repeat(6), SAVE].concat()),
        ("held", [opened.clone(), held].concat()),
        ("lies", [&opened[..], LIE, SEND, RECEIVE].concat()),
    ];
    check("vsock", vsock, &seeds);
}

#[test]
fn kept_block_inputs_pass() {
    // A header; its descriptor, that of three sectors, that of the status; one head.
    let read = [
        1, 0, 1, 3, 0, 1, 0, 0, 1, 1, 107, 0, 0, 3, 2, 2, 74, 0, 0x20, 0, 0, 0, 0,
    ];
    let mut others = vec![3, 8, 0, 4, 0, 1, 0];
    others.extend([
        6, 0, 1, 0, 0, 1, 1, 202, 0, 0, 0, 4, 1, 1, 0, 3, 3, 74, 0, 0x20, 0,
    ]);
    others.extend([6, 1, 2, 0, 7, 7, 155, 0, 0x80, 47, 0, 2, 0, 4, 6, 0]);
    let seeds = [
        ("read", read.to_vec()),
        ("others", others),
        ("twice", read.repeat(2)),
    ];
    check("block", block, &seeds);
}

#[test]
fn kept_device_inputs_pass() {
    let ask = [15, 0, 3, 16];
    let stream = [
        17, 0x1d, 16, 1, 1, 0, 0, 0, 16, 2, 1, 0, 0, 0, 16, 5, 1, 200, 0, 0,
    ];
    let client = [18, 0, 30, 18, 0, 1, 16, 6, 1, 0, 0, 0];
    let features = [0, 2, 0, 1, 0, 1, 0, 1, 0, 2, 0, 0, 0, 1, 0, 0];
    let status = [0, 8, 0, 3, 0, 8, 0, 7, 0, 8, 0, 11, 0, 8, 0, 15];
    // Ready, and beyond memory.
    let queue = [
        0, 4, 6, 0, 0, 10, 5, 0, 0, 11, 0, 1, 0, 12, 13, 0, 0, 14, 21, 0, 0, 5, 0, 1,
    ];
    let ports = [
        8, 0, 1, 65, 8, 1, 1, 2, 5, 4, 0, 0, 4, 6, 5, 0, 0, 4, 1, 0, 0, 0,
    ];
    let seeds = [
        (
            "block",
            [&[1], &ask[..], &[20, 2], &ask, &[14, 0], &ask].concat(),
        ),
        (
            "streams",
            [&[3], &stream[..], &client, &[20, 0], &client, &[20, 1, 21]].concat(),
        ),
        ("registers", [&[0], &features[..], &status, &ports].concat()),
    ];
    let outside = [&[0], &features[..], &status[..12], &queue, &status[12..]].concat();
    check(
        "devices",
        devices,
        &[&seeds[..], &[("outside", outside)]].concat(),
    );
}

#[test]
fn kept_saved_inputs_pass() {
    let fresh = machine(Board::fresh().state());
    let mut up = Board::fresh();
    up.start(0).unwrap();
    up.start(1).unwrap();
    let mut settled = up.state();
    let connection = Connection {
        guest_port: 9,
        host_port: 1024,
        fwd_cnt: 10,
        told_fwd_cnt: 10,
        tx_cnt: 20,
        peer_buf_alloc: 1 << 18,
        peer_fwd_cnt: 20,
    };
    let streams = VsockState {
        awake: true,
        next_host_port: 1025,
        connections: vec![connection],
        resets: vec![(1, 1030)],
        ..VsockState::decode(&settled.vsock).unwrap()
    };
    settled.vsock = streams.encode();
    // The ring of the first queue begins with the state's own bytes: one chain is available.
    let mut waits = machine(up.state()).encode();
    waits[0x402] = 1;
    let report = Report::Failed {
        chain: vec!["one".to_owned(), "two".to_owned()],
    };
    let order = Order::Open {
        port: 9,
        answer: true,
        early: vec![1, 2, 3],
    };
    let seeds = [
        ("fresh", fresh.encode()),
        ("up", machine(up.state()).encode()),
        ("waits", waits),
        ("settled", machine(settled).encode()),
        ("streams", streams.encode()),
        (
            "hot-pages",
            encode_hot_pages(&[1, 2, 3, 9, 10, 700], &[2, 3, 9]),
        ),
        ("report", postcard::to_stdvec(&report).unwrap()),
        ("order", postcard::to_stdvec(&order).unwrap()),
    ];
    check("saved", saved, &seeds);
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

/// A finding belongs into `fuzz/seeds`, not into a file of its own.
fn config() -> ProptestConfig {
    ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(300)
    }
}

thread_local! {
    /// One for each test, which is a thread of its own.
    static KEPT: [Vec<Vec<u8>>; 4] = ["vsock", "block", "devices", "saved"].map(kept);
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn vsock_inputs_with_changes_pass(which: prop::sample::Index, changes in changes()) {
        vsock(&KEPT.with(|kept| changed(&kept[0], which, changes)));
    }

    #[test]
    fn block_inputs_with_changes_pass(which: prop::sample::Index, changes in changes()) {
        block(&KEPT.with(|kept| changed(&kept[1], which, changes)));
    }

    #[test]
    fn device_inputs_with_changes_pass(which: prop::sample::Index, changes in changes()) {
        devices(&KEPT.with(|kept| changed(&kept[2], which, changes)));
    }

    #[test]
    fn saved_inputs_with_changes_pass(which: prop::sample::Index, changes in changes()) {
        saved(&KEPT.with(|kept| changed(&kept[3], which, changes)));
    }

    #[test]
    fn noise_passes(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        vsock(&bytes);
        block(&bytes);
        devices(&bytes);
        saved(&bytes);
    }
}
