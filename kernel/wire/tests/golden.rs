//! The frozen examples of every message, in `tests/golden/wire/`.
//!
//! Each line must parse and come back as the same JSON, and each kind of message must have a line.
//! `VMREPL_BLESS=1` writes the lines back in this crate's form and the frames anew; lines are only
//! ever added.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::PathBuf;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use vmrepl_wire::cell::{
    Acted, Answer, Completeness, Completions, Event, Inspection, Pong, Request, Variables,
};
use vmrepl_wire::control::{ControlReply, ControlRequest};
use vmrepl_wire::exec::ExecInput;
use vmrepl_wire::files::{FilesReply, FilesRequest, Tag};
use vmrepl_wire::languages::{Execute, Language, Reply};
use vmrepl_wire::mux::{Mux, MuxEvent, Role};
use vmrepl_wire::{files, languages, port, runner};

fn path(file: &str) -> PathBuf {
    PathBuf::from(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../tests/golden/wire"
    ))
    .join(file)
}

fn is_blessing() -> bool {
    std::env::var_os("VMREPL_BLESS").is_some_and(|value| value == "1")
}

/// Reads a file as lines of `T`; `names` are the values that `key` must take somewhere in it.
fn check<T: Serialize + DeserializeOwned>(file: &str, key: &str, names: &[&str]) {
    let text = std::fs::read_to_string(path(file)).expect("a golden file");
    let mut seen = BTreeSet::new();
    let mut blessed = String::new();
    for line in text.lines() {
        let message: T = serde_json::from_str(line).unwrap_or_else(|error| {
            panic!("{file}: {error} in\n{line}");
        });
        let expected: Value = serde_json::from_str(line).expect("it just parsed");
        let actual = serde_json::to_value(&message).expect("messages are JSON");
        if !is_blessing() {
            assert_eq!(actual, expected, "{file}: read and written again");
        }
        if let Some(name) = actual.get(key) {
            seen.insert(name.as_str().unwrap_or("present").to_owned());
        }
        let again = serde_json::to_string(&message).expect("messages are JSON");
        writeln!(blessed, "{again}").expect("a string takes all");
    }
    if is_blessing() {
        std::fs::write(path(file), blessed).expect("a golden file to write");
    }
    for name in names {
        assert!(
            seen.contains(*name),
            "{file} has no line with {key} = {name}"
        );
    }
}

#[test]
fn control() {
    check::<ControlRequest>(
        "control-requests.jsonl",
        "op",
        &[
            "resumed",
            "quiesce",
            "wake",
            "interrupt",
            "kill",
            "stats",
            "logs",
            "log_level",
            "shutdown",
        ],
    );
    check::<ControlReply>(
        "control-replies.jsonl",
        "op",
        &[
            "resumed",
            "quiesced",
            "interrupt",
            "kill",
            "stats",
            "logs",
            "log_level",
            "runner_ready",
            "runner_lost",
            "error",
        ],
    );
}

#[test]
fn cells() {
    check::<Request>(
        "cell-requests.jsonl",
        "op",
        &[
            "run",
            "complete",
            "inspect",
            "is_complete",
            "variables",
            "interrupt",
            "ping",
            "stdin",
            "warm",
        ],
    );
    check::<Answer>(
        "cell-answers.jsonl",
        "status",
        &[
            "ok",
            "error",
            "timeout",
            "interrupted",
            "memory_exceeded",
            "output_exceeded",
            "runner_lost",
            "machine_lost",
        ],
    );
    check::<Event>(
        "cell-events.jsonl",
        "type",
        &[
            "stdout",
            "stderr",
            "display",
            "result",
            "table",
            "error",
            "input_request",
            "done",
        ],
    );
}

#[test]
fn answers_that_run_no_cell() {
    check::<Completions>("completions.jsonl", "matches", &["present"]);
    check::<Inspection>("inspections.jsonl", "found", &["present"]);
    check::<Completeness>(
        "completeness.jsonl",
        "status",
        &["complete", "incomplete", "invalid"],
    );
    check::<Variables>("variables.jsonl", "variables", &["present"]);
    check::<Acted>("interrupts.jsonl", "acted", &["present"]);
    check::<Pong>("pings.jsonl", "pong", &["present"]);
}

#[test]
fn file_transfer() {
    check::<FilesRequest>(
        "files-requests.jsonl",
        "op",
        &[
            "ping",
            "run",
            "put_file",
            "get_file",
            "exec",
            "exec_source",
            "put_stream",
            "get_stream",
            "put_tree",
            "get_tree",
            "stat",
        ],
    );
    check::<ExecInput>("exec-inputs.jsonl", "op", &["resize", "signal"]);
    check::<FilesReply>(
        "files-replies.jsonl",
        "op",
        &["pong", "exit", "timeout", "error"],
    );
    check::<FilesReply>("files-replies.jsonl", "tree", &["present"]);
    check::<FilesReply>("files-replies.jsonl", "stat", &["present"]);
    check::<FilesReply>(
        "files-replies.jsonl",
        "end",
        &[
            "exited",
            "signalled",
            "timed_out",
            "cpu_exceeded",
            "memory_exceeded",
            "not_started",
        ],
    );
}

#[test]
fn programs_in_many_languages() {
    check::<Reply>(
        "languages-replies.jsonl",
        "type",
        &["ack", "result", "error"],
    );
    check::<Reply>(
        "languages-replies.jsonl",
        "status",
        &[
            "received",
            "success",
            "timeout",
            "memory_exceeded",
            "runtime_error",
            "compilation_error",
        ],
    );
    check::<Reply>(
        "languages-replies.jsonl",
        "error",
        &["invalid_request", "internal_error", "unsupported_language"],
    );
    let file = "languages-requests.jsonl";
    let text = std::fs::read_to_string(path(file)).expect("a golden file");
    let mut seen = BTreeSet::new();
    for line in text.lines() {
        let request = Execute::parse(line.as_bytes()).unwrap_or_else(|refusal| {
            panic!("{file}: {refusal} in\n{line}");
        });
        assert_eq!(request.to_json(), line.as_bytes(), "{file}");
        seen.insert(request.language);
    }
    assert!(Language::ALL.iter().all(|language| seen.contains(language)));
}

/// Lines `{"request", "answer"}`: what a client sent, and what it is told.
#[test]
fn programs_that_are_refused() {
    let file = "languages-refusals.jsonl";
    let text = std::fs::read_to_string(path(file)).expect("a golden file");
    let mut blessed = String::new();
    for line in text.lines() {
        let mut pair: Value = serde_json::from_str(line).expect("a line of JSON");
        let request = pair["request"].as_str().expect("a text");
        let refusal = Execute::parse(request.as_bytes()).expect_err(request);
        let answer = serde_json::to_value(Reply::from(refusal)).expect("messages are JSON");
        if !is_blessing() {
            assert_eq!(pair["answer"], answer, "{file}: {request}");
        }
        pair["answer"] = answer;
        writeln!(blessed, "{pair}").expect("a string takes all");
    }
    if is_blessing() {
        std::fs::write(path(file), blessed).expect("a golden file to write");
    }
}

#[test]
fn the_plain_form_is_exact() {
    assert_eq!(Request::plain("1").to_line(), b"{\"code\":\"1\"}\n");
    assert_eq!(
        serde_json::to_string(&Answer::default()).unwrap(),
        r#"{"exit_code":0,"stdout":"","stderr":"","result_repr":null,"error":null,"tables":[]}"#
    );
}

#[test]
fn what_a_later_generation_adds_is_passed_over() {
    let event: Event = serde_json::from_str(r#"{"type":"smell","id":"c-1","of":"roses"}"#).unwrap();
    assert_eq!(event, Event::Unknown);
    let reply: ControlReply = serde_json::from_str(r#"{"op":"weather","rain":true}"#).unwrap();
    assert_eq!(reply, ControlReply::Unknown);
    let event: Event = serde_json::from_str(r#"{"type":"stdout","text":"x","speed":1}"#).unwrap();
    assert!(matches!(event, Event::Stdout(output) if output.as_bytes() == b"x"));
}

#[test]
fn entropy_has_its_length_and_stays_hidden() {
    let text = std::fs::read_to_string(path("control-requests.jsonl")).unwrap();
    let first = text.lines().next().unwrap();
    let request: ControlRequest = serde_json::from_str(first).unwrap();
    assert!(format!("{request:?}").contains("Entropy(..)"));
    let short = first.replace("AAECAwQF", "");
    assert!(short.len() < first.len());
    let error = serde_json::from_str::<ControlRequest>(&short).unwrap_err();
    assert_eq!(error.to_string(), "entropy must be base64 of 64 bytes");
}

type Named = (&'static str, Vec<u8>);

/// One multiplexer frame of every kind.
fn mux_frames() -> Vec<Named> {
    let mut host = Mux::new(Role::Host, 5);
    let mut guest = Mux::new(Role::Guest, 0);
    let mut frames = Vec::new();
    let mut take = |name, from: &mut Mux, to: &mut Mux| {
        let mut bytes = Vec::new();
        assert!(
            from.take_output(&mut bytes, usize::MAX),
            "{name} is something to say"
        );
        to.receive(&bytes).expect("an honest peer");
        frames.push((name, bytes));
    };
    take("hello", &mut host, &mut guest);
    take("hello answered", &mut guest, &mut host);
    let id = host.open(port::CELLS).expect("room for a stream");
    take("open", &mut host, &mut guest);
    guest.accept(id);
    take("accept", &mut guest, &mut host);
    assert_eq!(host.send(id, b"{\"code\": \"1 + 1\"}\n"), 18);
    take("data", &mut host, &mut guest);
    host.send(id, &vec![0; 64 * 1024]);
    let mut bulk = Vec::new();
    host.take_output(&mut bulk, usize::MAX);
    guest.receive(&bulk).expect("an honest peer");
    guest.consumed(id, 64 * 1024);
    take("credit", &mut guest, &mut host);
    host.finish(id);
    take("fin", &mut host, &mut guest);
    guest.reset(id);
    take("reset", &mut guest, &mut host);
    while let Some(event) = host.event() {
        assert!(!matches!(event, MuxEvent::Data { .. }));
    }

    frames
}

/// One frame of every kind between agent and runner.
fn runner_frames() -> Vec<Named> {
    let mut frames = Vec::new();
    let mut framed = |name, kind, connection, payload: &[u8]| {
        let mut bytes = Vec::new();
        runner::encode(kind, connection, payload, &mut bytes).expect("a short payload");
        frames.push((name, bytes));
    };
    framed(
        "runner request",
        runner::Kind::Request,
        7,
        br#"{"code": "1"}"#,
    );
    framed("runner closed", runner::Kind::Closed, 7, b"");
    framed(
        "runner resumed",
        runner::Kind::Resumed,
        0,
        br#"{"generation":1,"rng":"keep"}"#,
    );
    framed("runner exit", runner::Kind::Exit, 0, b"");
    framed("runner taken", runner::Kind::Taken, 0, b"");
    framed(
        "runner signalled",
        runner::Kind::Signalled,
        0,
        br#"{"cell":"c1","sent_ns":12345678901}"#,
    );
    framed(
        "runner exceeded",
        runner::Kind::Exceeded,
        0,
        br#"{"cell":"c1","status":"output_exceeded","message":"it wrote too much"}"#,
    );
    framed(
        "runner ready",
        runner::Kind::Ready,
        0,
        br#"{"python":"3.11.2"}"#,
    );
    framed(
        "runner line",
        runner::Kind::Line,
        7,
        b"{\"exit_code\": 0, \"pong\": true}\n",
    );
    let started =
        br#"{"cell":"cell-1","id":null,"stream":false,"extended":false,"output_bytes":null}"#;
    framed("runner started", runner::Kind::Started, 7, started);
    let mut done = b"\0\0\0\x11{\"exit_code\": 0, ".to_vec();
    done.extend(br#""result_repr": null, "error": null, "tables": []}"#);
    framed("runner done", runner::Kind::Done, 7, &done);
    framed(
        "runner resumed ack",
        runner::Kind::ResumedAck,
        0,
        br#"{"generation":1}"#,
    );
    framed(
        "runner received",
        runner::Kind::Received,
        7,
        br#"{"id":null,"op":"run"}"#,
    );

    frames
}

/// One frame of every tag of the files port.
fn files_frames() -> Vec<Named> {
    let mut frames = Vec::new();
    let mut framed = |name, tag, payload: &[u8]| {
        let mut bytes = Vec::new();
        files::encode(tag, payload, &mut bytes).expect("a short payload");
        frames.push((name, bytes));
    };
    framed("files control", Tag::Control, br#"{"v":1,"op":"ping"}"#);
    framed("files stdout", Tag::Stdout, b"out\n");
    framed("files stderr", Tag::Stderr, b"err\n");
    framed("files file", Tag::File, b"content");
    framed("files end", Tag::End, b"");
    framed("files stdin", Tag::Stdin, b"in\n");
    frames
}

/// One frame of the languages port.
fn languages_frames() -> Vec<Named> {
    let mut bytes = Vec::new();
    languages::encode(&Reply::ack("r-1").to_json(), &mut bytes).expect("a short payload");
    vec![("languages ack", bytes)]
}

/// Frames as lines `name: hex`.
#[test]
fn the_frames_are_what_they_were() {
    let mut text = String::new();
    let frames = [
        mux_frames(),
        runner_frames(),
        files_frames(),
        languages_frames(),
    ];
    for (name, bytes) in frames.concat() {
        write!(text, "{name}: ").expect("a string takes all");
        for byte in bytes {
            write!(text, "{byte:02x}").expect("a string takes all");
        }
        text.push('\n');
    }
    let file = path("frames.txt");
    if is_blessing() {
        std::fs::write(file, text).expect("a golden file to write");
    } else {
        assert_eq!(text, std::fs::read_to_string(file).expect("a golden file"));
    }
}
