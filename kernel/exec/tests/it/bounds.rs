//! Limits, and sides that do not read.

use std::time::Duration;

use bytes::Bytes;
use tonic::Code;
use vmrepl_wire::files::Tag;

use crate::client::proto::exec::ExecStart;
use crate::client::proto::exec::exec_request::Request;
use crate::client::proto::exec::exec_response::Response;
use crate::client::{Call, Name, program};
use crate::process::Process;

const MIB: usize = 1024 * 1024;

/// What the process may have held at any moment.
const MEMORY_BYTES: u64 = 24 * 1024 * 1024;

/// How long a side that takes nothing is believed to be stalled: more than it needs to take what it can.
const STALLED: Duration = Duration::from_millis(500);

/// Sends until nothing more is taken; how many messages were.
fn fill(call: &Call, most: usize, message: impl Fn() -> Request) -> usize {
    (0..most)
        .take_while(|_| call.try_send(message(), STALLED))
        .count()
}

#[test]
fn a_program_that_does_not_read_stalls_its_client_and_nobody_else() {
    let (process, client, core) = Process::serve();
    let call = client.start(program(&["sleep"]));
    let (mut stalled, _) = core.accept();
    let chunk = Bytes::from(vec![7; MIB]);
    let sent = fill(&call, 100, || Request::Stdin(chunk.clone()));
    assert!(sent < 20, "{sent} MiB went nowhere");
    // Another program has all the room that it wants.
    let mut other = client.start(program(&["cat"]));
    let (mut reads, _) = core.accept();
    other.send(Request::Stdin(chunk.clone()));
    assert_eq!(reads.bytes(Tag::Stdin, MIB).len(), MIB);
    reads.exit(0);
    assert_eq!(other.exit_code(), 0);
    assert!(process.memory_bytes("VmHWM") < MEMORY_BYTES);
    // Once it reads, all of it arrives.
    let mut call = call;
    call.end();
    let bytes = stalled.bytes(Tag::Stdin, usize::MAX);
    assert!(bytes.len() >= sent * MIB && bytes.iter().all(|byte| *byte == 7));
    stalled.exit(0);
    assert_eq!(call.exit_code(), 0);
}

#[test]
fn a_client_that_does_not_read_stalls_its_program_and_still_speaks() {
    let (process, client, core) = Process::serve();
    let mut call = client.start(ExecStart {
        tty: true,
        ..program(&["yes"])
    });
    let (mut conversation, _) = core.accept();
    let stream = conversation.stream();
    stream.set_write_timeout(Some(STALLED)).unwrap();
    let mut written: usize = 0;
    let mut frame = vec![2, 0, 1, 0, 0];
    frame.resize(5 + 64 * 1024, b'y');
    // The part of a frame that was taken last counts.
    let rest = loop {
        match std::io::Write::write(stream, &frame[written % frame.len()..]) {
            Ok(bytes) => written += bytes,
            Err(_) => break frame.len() - written % frame.len(),
        }
        assert!(written < 100 * MIB, "it goes nowhere");
    };
    call.resize(1, 2);
    assert_eq!(
        conversation.object(),
        r#"{"op":"resize","rows":1,"cols":2}"#
    );
    assert!(process.memory_bytes("VmHWM") < MEMORY_BYTES);
    let frames = written.div_ceil(frame.len());
    let last = std::thread::spawn(move || {
        let stream = conversation.stream();
        stream
            .set_write_timeout(Some(crate::client::DEADLINE))
            .unwrap();
        if rest < frame.len() {
            let from = frame.len() - rest;
            std::io::Write::write_all(stream, &frame[from..]).unwrap();
        }
        conversation.exit(0);
    });
    let mut came = 0;
    loop {
        match call.next().unwrap().unwrap() {
            Response::Stdout(bytes) => came += bytes.len(),
            Response::ExitCode(code) => break assert_eq!(code, 0),
            Response::Stderr(_) => panic!("nothing was said there"),
        }
    }
    last.join().unwrap();
    assert_eq!(came, frames * 64 * 1024);
}

#[test]
fn a_hundred_megabytes_flow_each_way_in_little_memory() {
    let (process, client, core) = Process::serve();
    let mut call = client.start(program(&["cat"]));
    let (mut conversation, _) = core.accept();
    let echo = std::thread::spawn(move || {
        while let Some((Tag::Stdin, payload)) = conversation.frame() {
            conversation.say(Tag::Stdout, &payload);
        }
        conversation.exit(0);
    });
    let chunk = Bytes::from(vec![7; MIB]);
    let mut came = 0;
    for _ in 0..100 {
        call.send(Request::Stdin(chunk.clone()));
        let enough = came + MIB;
        while came < enough {
            let Some(Response::Stdout(bytes)) = call.next().unwrap() else {
                panic!("only output comes before the end of the input");
            };
            came += bytes.len();
        }
    }
    call.end();
    assert_eq!(call.exit_code(), 0);
    assert_eq!(came, 100 * MIB);
    echo.join().unwrap();
    assert!(process.memory_bytes("VmHWM") < MEMORY_BYTES);
}

#[test]
fn one_call_too_many_hears_why_and_the_next_has_the_place_of_one_that_ended() {
    let (_process, client, core) = Process::serve();
    let calls: Vec<_> = (0..64).map(|_| client.start(program(&["sleep"]))).collect();
    let mut conversations: Vec<_> = calls.iter().map(|_| core.accept().0).collect();
    let refused = client.call(Name::Exec).err().unwrap();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    let mut ends = conversations.pop().unwrap();
    ends.exit(0);
    assert!(ends.is_closed());
    let _call = client.start(program(&["next"]));
    core.accept();
}

#[test]
fn a_message_over_the_limit_ends_its_call() {
    let (_process, client, core) = Process::serve();
    let mut call = client.start(program(&["cat"]));
    let (mut conversation, _) = core.accept();
    let long = Bytes::from(vec![0; 4 * MIB + 1]);
    call.send(Request::Stdin(long));
    assert_eq!(call.next().unwrap_err().code(), Code::OutOfRange);
    assert!(conversation.is_closed());
}
