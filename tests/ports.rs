//! Many streams to the guest at once, through the machine's socket: all bytes come, whoever reads slowly, says
//! nothing, ends half or goes away.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use vmrepl_session::{Cell, Purpose, Session, TemplateName, engine_for};
use vmrepl_wire::files::{FilesDecoder, Tag, encode};

use crate::chance::Random;
use crate::ground::{DEADLINE, TEMPLATE, home};
use crate::lanes::{Heard, engine_choice, places_in};

/// Streams at once, and what each carries in either direction: a hundred megabytes in all.
const STREAMS: usize = 16;
const BYTES: usize = 100_000_000 / STREAMS;
const CHUNK: usize = 64 << 10;

fn session() -> Session {
    let places = places_in(home());
    let name = TemplateName::new(TEMPLATE).unwrap();
    let engine = engine_for(&places, engine_choice(), &name).unwrap();
    Session::restore(&places, &engine, &name, Purpose::Freeze).unwrap()
}

/// A connection to the guest's port for files, with its greeting done.
struct Files {
    stream: UnixStream,
    decoder: FilesDecoder,
}

impl Files {
    fn open(socket: &Path) -> Self {
        let mut stream = UnixStream::connect(socket).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.set_write_timeout(Some(DEADLINE)).unwrap();
        stream.write_all(b"CONNECT 1024\n").unwrap();
        let mut line = Vec::new();
        while line.last() != Some(&b'\n') {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            line.extend(byte);
        }
        assert!(line.starts_with(b"OK "), "{line:?}");
        Self {
            stream,
            decoder: FilesDecoder::default(),
        }
    }

    fn ask(&mut self, request: &Value) {
        let mut bytes = Vec::new();
        encode(Tag::Control, request.to_string().as_bytes(), &mut bytes).unwrap();
        self.stream.write_all(&bytes).unwrap();
    }

    /// The next frame: its tag and what it carries.
    fn frame(&mut self) -> (Tag, Vec<u8>) {
        let mut buffer = vec![0; CHUNK];
        loop {
            if let Some(frame) = self.decoder.frame().unwrap() {
                return (frame.tag, frame.payload.to_vec());
            }
            let count = self.stream.read(&mut buffer).unwrap();
            assert!(count > 0, "the guest closed the stream");
            self.decoder.push(&buffer[..count]);
        }
    }

    fn reply(&mut self) -> Value {
        let (tag, payload) = self.frame();
        assert_eq!(tag, Tag::Control);
        serde_json::from_slice(&payload).unwrap()
    }

    fn put(&mut self, path: &str, content: &[u8]) {
        self.ask(&json!({"v": 1, "op": "put_file", "path": path, "size": content.len()}));
        for chunk in content.chunks(CHUNK) {
            let mut bytes = Vec::new();
            encode(Tag::File, chunk, &mut bytes).unwrap();
            self.stream.write_all(&bytes).unwrap();
        }
        assert_eq!(self.reply()["ok"], true);
    }

    fn get(&mut self, path: &str) -> Vec<u8> {
        self.ask(&json!({"v": 1, "op": "get_file", "path": path}));
        assert_eq!(self.reply()["ok"], true);
        let mut content = Vec::new();
        loop {
            match self.frame() {
                (Tag::File, bytes) => content.extend(bytes),
                (Tag::End, _) => return content,
                (tag, _) => panic!("{tag:?} in the middle of a file"),
            }
        }
    }
}

/// Bytes that no two streams share.
fn content(seed: usize) -> Vec<u8> {
    let mut chance = Random(seed as u64);
    let words = (0..BYTES.div_ceil(8)).flat_map(|_| chance.below(u64::MAX).to_le_bytes());
    words.take(BYTES).collect()
}

#[track_caller]
fn answers(session: &mut Session) {
    let answer = session
        .run(&Cell::new("6 * 7"), &mut Heard::default())
        .unwrap();
    assert_eq!(answer.result_repr.as_deref(), Some("42"));
}

#[test]
fn a_hundred_megabytes_each_way_through_sixteen_streams() {
    let mut session = session();
    let socket: PathBuf = session.info().socket.clone();
    std::thread::scope(|scope| {
        for number in 0..STREAMS {
            let socket = &socket;
            scope.spawn(move || {
                let sent = content(number);
                let path = format!("/tmp/part-{number}");
                Files::open(socket).put(&path, &sent);
                let mut back = Files::open(socket);
                let got = back.get(&path);
                assert!(
                    got == sent,
                    "stream {number}: {} bytes came back",
                    got.len()
                );
                let mut gone = Files::open(socket);
                gone.ask(
                    &json!({"v": 1, "op": "run", "cmd": format!("rm {path}"), "shell": "raw"}),
                );
                assert_eq!(gone.reply()["exit_code"], 0);
            });
        }
    });
    answers(&mut session);
}

#[test]
fn streams_that_stand_still_hold_nobody_up() {
    let mut session = session();
    let socket = session.info().socket.clone();
    let sent = content(99);
    Files::open(&socket).put("/tmp/big", &sent);
    // A reader that asks and never reads, clients that say nothing, one that leaves in the middle.
    let mut deaf = Files::open(&socket);
    deaf.ask(&json!({"v": 1, "op": "get_file", "path": "/tmp/big"}));
    let silent: Vec<Files> = (0..8).map(|_| Files::open(&socket)).collect();
    let mut leaver = Files::open(&socket);
    leaver.ask(&json!({"v": 1, "op": "put_file", "path": "/tmp/half", "size": BYTES}));
    let mut bytes = Vec::new();
    encode(Tag::File, &sent[..CHUNK], &mut bytes).unwrap();
    leaver.stream.write_all(&bytes).unwrap();
    drop(leaver);
    answers(&mut session);
    assert!(Files::open(&socket).get("/tmp/big") == sent);
    // A client that has said all it has to say still hears the answer.
    let mut half = Files::open(&socket);
    half.ask(&json!({"v": 1, "op": "get_file", "path": "/tmp/big"}));
    half.stream.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(half.reply()["ok"], true);
    // The one that did not read can begin at any time.
    assert_eq!(deaf.reply()["size"], BYTES);
    drop((silent, half, deaf));
    answers(&mut session);
}

#[test]
fn a_port_that_nobody_serves_closes_without_a_word() {
    let mut session = session();
    let mut stream = UnixStream::connect(&session.info().socket).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.write_all(b"CONNECT 4711\n").unwrap();
    let mut said = Vec::new();
    stream.read_to_end(&mut said).unwrap();
    assert!(said.is_empty(), "{said:?}");
    answers(&mut session);
}
