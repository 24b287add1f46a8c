//! The multiplexed stream, as a machine's serial port carries it.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use vmrepl_wire::files::{FilesDecoder, Tag, encode};
use vmrepl_wire::mux::{Mux, MuxEvent, Role, StreamId};

use crate::agent::{AGENT, DEADLINE, inherit, is_quiet, runner};

/// The host's end, and the agent behind it.
struct Host {
    agent: Child,
    socket: UnixStream,
    mux: Mux,
    /// What came on each stream.
    received: std::collections::BTreeMap<StreamId, Vec<u8>>,
    over: Vec<StreamId>,
}

impl Host {
    fn start() -> Self {
        let (socket, theirs) = UnixStream::pair().unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        let mut command = Command::new(AGENT);
        command
            .arg("--runner")
            .arg(runner())
            .arg("--channel")
            .arg(inherit(&theirs));
        let agent = command.stdin(Stdio::null()).spawn().unwrap();
        let (received, over) = Default::default();
        Self {
            agent,
            socket,
            mux: Mux::new(Role::Host, 1),
            received,
            over,
        }
    }

    fn open(&mut self, port: u32) -> StreamId {
        self.mux.open(port).unwrap()
    }

    fn say(&mut self, stream: StreamId, message: &Value) {
        let line = format!("{message}\n");
        assert_eq!(self.mux.send(stream, line.as_bytes()), line.len());
    }

    fn flush(&mut self) {
        let mut out = Vec::new();
        while self.mux.take_output(&mut out, 65536) {}
        self.socket.write_all(&out).unwrap();
    }

    fn pump(&mut self) {
        self.flush();
        let mut chunk = [0; 65536];
        let count = self.socket.read(&mut chunk).unwrap();
        assert!(count > 0, "the agent has closed the channel");
        self.mux.receive(&chunk[..count]).unwrap();
        let events: Vec<_> = std::iter::from_fn(|| self.mux.event()).collect();
        for event in events {
            match event {
                MuxEvent::Data { id, bytes } => {
                    self.mux.consumed(id, bytes.len());
                    self.received
                        .entry(id)
                        .or_default()
                        .extend_from_slice(&bytes);
                }
                MuxEvent::Finished { id } | MuxEvent::Reset { id, .. } => self.over.push(id),
                _ => {}
            }
        }
    }

    fn line(&mut self, stream: StreamId) -> Value {
        loop {
            let received = self.received.entry(stream).or_default();
            if let Some(end) = received.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = received.drain(..=end).collect();
                return serde_json::from_slice(&line).unwrap();
            }
            self.pump();
        }
    }

    fn until(&mut self, stream: StreamId, op: &str) -> Value {
        loop {
            let line = self.line(stream);
            if line["op"] == op {
                return line;
            }
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.agent.kill().ok();
        self.agent.wait().ok();
    }
}

fn resumed(generation: u64) -> Value {
    let entropy = format!("{}==", "A".repeat(86));
    json!({"op": "resumed", "generation": generation, "entropy": entropy, "realtime_ns": 0, "rng": "keep"})
}

#[test]
fn a_host_may_say_everything_before_the_agent_says_anything() {
    let mut host = Host::start();
    let control = host.open(9);
    host.say(control, &resumed(5));
    let cells = host.open(10_000);
    host.say(cells, &json!({"code": "6 * 7"}));
    assert_eq!(host.line(cells)["result_repr"], "42");
    assert_eq!(host.until(control, "resumed")["generation"], 5);
}

#[test]
fn a_new_epoch_forgets_the_streams_of_the_old_one() {
    let mut host = Host::start();
    let cells = host.open(10_000);
    host.say(cells, &json!({"code": "x = 1; print('go', flush=True); input()", "stream": true, "id": "old", "allow_stdin": true}));
    assert_eq!(host.line(cells)["text"], "go\n");
    assert_eq!(host.line(cells)["type"], "input_request");
    host.flush();

    // As after a restore: the same numbers mean new streams.
    host.mux = Mux::new(Role::Host, 2);
    host.received.clear();
    let control = host.open(9);
    host.say(control, &resumed(6));
    let again = host.open(10_000);
    assert_eq!(again.get(), cells.get() + 2);
    host.say(again, &json!({"code": "x"}));
    // The old cell's input has ended with its client; its answer goes nowhere.
    assert_eq!(host.line(again)["result_repr"], "1");
    assert_eq!(host.until(control, "resumed")["generation"], 6);
}

#[test]
fn a_stream_that_is_not_read_blocks_no_other() {
    let mut host = Host::start();
    let flood = host.open(10_000);
    let control = host.open(9);
    host.say(
        flood,
        &json!({"code": "while True: print('x' * 1000)", "stream": true, "id": "flood"}),
    );
    host.flush();
    let mut chunk = [0; 65536];
    // Bytes of the flood are not acknowledged: it stops at the end of its credit.
    let mut flooded = 0;
    while flooded < 256 * 1024 {
        let count = host.socket.read(&mut chunk).unwrap();
        host.mux.receive(&chunk[..count]).unwrap();
        while let Some(event) = host.mux.event() {
            if let MuxEvent::Data { id, bytes } = event
                && id == flood
            {
                flooded += bytes.len();
            }
        }
    }
    assert_eq!(flooded, 256 * 1024);
    host.say(control, &json!({"op": "interrupt", "cell": "flood"}));
    assert_eq!(host.until(control, "interrupt")["acted"], true);
    host.say(control, &json!({"op": "stats"}));
    assert!(
        host.until(control, "stats")["agent_anon_bytes"]
            .as_u64()
            .unwrap()
            < 8 * 1024 * 1024
    );
}

#[test]
fn quiesced_is_the_last_word() {
    let mut host = Host::start();
    let control = host.open(9);
    let cells = host.open(10_000);
    host.say(cells, &json!({"code": "import os; os.getpid()"}));
    let answer = host.line(cells);
    let runner = answer["result_repr"].as_str().unwrap();
    host.say(control, &json!({"op": "quiesce"}));
    assert!(is_quiet(&host.until(control, "quiesced")));
    host.flush();
    // The runner dies meanwhile; the host hears it only when it speaks again.
    let pid = Pid::from_raw(runner.parse().unwrap()).unwrap();
    kill_process(pid, Signal::KILL).unwrap();
    let agent = host.agent.id();
    let children = format!("/proc/{agent}/task/{agent}/children");
    // By the time there is another one, the agent knows.
    loop {
        let children = std::fs::read_to_string(&children).unwrap();
        if children
            .split(' ')
            .any(|child| !child.is_empty() && child != runner)
        {
            break;
        }
    }
    host.socket.set_nonblocking(true).unwrap();
    let mut chunk = [0; 64];
    let silent = host.socket.read(&mut chunk).unwrap_err();
    assert_eq!(silent.kind(), std::io::ErrorKind::WouldBlock);
    host.socket.set_nonblocking(false).unwrap();
    host.say(control, &json!({"op": "stats"}));
    assert_eq!(host.until(control, "runner_lost")["signal"], 9);
    host.until(control, "stats");
}

#[test]
fn files_travel_through_a_stream() {
    let mut host = Host::start();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    let files = host.open(1024);
    let mut request = Vec::new();
    let put = json!({"op": "put_file", "path": path, "size": 100_000});
    encode(Tag::Control, put.to_string().as_bytes(), &mut request).unwrap();
    encode(Tag::File, &[7; 100_000], &mut request).unwrap();
    assert_eq!(host.mux.send(files, &request), request.len());
    let mut decoder = FilesDecoder::default();
    let reply: Value = loop {
        if let Some(frame) = decoder.frame().unwrap() {
            break serde_json::from_slice(frame.payload).unwrap();
        }
        host.pump();
        decoder.push(&std::mem::take(host.received.entry(files).or_default()));
    };
    assert_eq!(reply, json!({"ok": true}));
    assert_eq!(std::fs::read(path).unwrap(), [7; 100_000]);
    while !host.over.contains(&files) {
        host.pump();
    }
}

#[test]
fn a_refused_port_is_reset_and_others_go_on() {
    let mut host = Host::start();
    let refused = host.open(4711);
    let cells = host.open(10_000);
    host.say(cells, &json!({"code": "1"}));
    assert_eq!(host.line(cells)["exit_code"], 0);
    assert_eq!(host.over, [refused]);
}

#[test]
fn bytes_that_are_no_frames_are_passed_over_until_the_channel_ends() {
    let mut host = Host::start();
    let control = host.open(9);
    host.say(control, &json!({"op": "stats"}));
    host.until(control, "stats");
    host.socket.write_all(&[b'x'; 100_000]).unwrap();
    host.socket.write_all(&[0; 100_000]).unwrap();
    host.socket.shutdown(std::net::Shutdown::Write).unwrap();
    assert!(host.agent.wait().unwrap().success());
}
