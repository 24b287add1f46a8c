//! The ports as the clients of other projects see them, unmodified: `smolvm`'s on port 1024, gRPC's on port 2222, against the
//! agent that ships and against a live machine.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use vmrepl_session::{Cell, EngineChoice, Purpose, Session, TemplateName, engine_for};
use vmrepl_wire::files::{Tag, encode};

use crate::ground::{DEADLINE, TEMPLATE, count, folder, home, root, skip};
use crate::homes::Home;
use crate::lanes::{AgentLane, engine_choice, places_in};
use crate::sessions::{Quiet, opened};

/// A file of many chunks, in bytes.
const LARGE: usize = 32 << 20;

#[test]
fn a_foreign_client_works_with_the_agent() {
    if !is_there("smolvm.comm.vsock_channel") {
        return;
    }
    let (agent, guest) = (AgentLane::start().unwrap(), folder());
    conforms(&agent.socket(), guest.path(), count(LARGE, 1_000_000_000));
}

#[test]
fn a_foreign_client_works_with_a_machine() {
    if is_there("smolvm.comm.vsock_channel") {
        conforms(&restored().info().socket, Path::new("/tmp"), LARGE);
    }
}

/// Port 2222: gRPC's own client for Python, with the definitions that ship.
#[test]
fn a_foreign_client_of_grpc_works_with_a_machine() {
    if !is_there("grpc_tools") {
        return;
    }
    let session = restored();
    let ended = Command::new("python3")
        .arg(root().join("tests/clients/exec.py"))
        .arg(&session.info().socket)
        .arg("/tmp")
        .arg(root().join("kernel/exec/proto"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&ended.stdout);
    assert!(ended.status.success(), "{ended:?}");
    let checks = "commands\ninput\nterminal\nenvironment\ncrowd\ncancel\nrefusals\nguest\n";
    assert_eq!(said, checks);
}

pub(crate) fn restored() -> Session {
    restored_from(TEMPLATE)
}

pub(crate) fn restored_from(template: &str) -> Session {
    let places = places_in(home());
    let name = TemplateName::new(template).unwrap();
    let engine = engine_for(&places, engine_choice(), &name).unwrap();
    Session::restore(&places, &engine, &name, Purpose::Freeze).unwrap()
}

/// A stream that never ends, to a port beside the cells', costs no cell its checkpoint.
#[test]
fn cells_are_kept_while_streams_flow() {
    let home = Home::new();
    let mut session = opened(&home);
    let run = |session: &mut Session, code: &str| {
        let answer = session.run(&Cell::new(code), &mut Quiet).unwrap();
        assert_eq!(answer.exit_code, 0, "{answer:?}");
        answer.result_repr.unwrap_or_default()
    };
    run(&mut session, "x = 1");
    let ask = |request: &Value| {
        let mut stream = UnixStream::connect(&session.info().socket).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        let mut bytes = b"CONNECT 1024\n".to_vec();
        encode(Tag::Control, request.to_string().as_bytes(), &mut bytes).unwrap();
        stream.write_all(&bytes).unwrap();
        stream
    };
    let flood = json!({"op": "run", "shell": "raw", "cmd": "echo $$ > /tmp/flood; exec yes"});
    // One that is read as it comes, one that nobody reads, and a file that comes slowly and for ever.
    let mut read = ask(&flood);
    let _unread = ask(&json!({"op": "run", "shell": "raw", "cmd": "exec yes unread"}));
    let mut sent = ask(&json!({"op": "put_file", "path": "/tmp/sent", "size": 1_u64 << 40}));
    let flowed = AtomicU64::new(0);
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut buffer = vec![0; 1 << 16];
            while !is_over.load(Ordering::Relaxed) {
                let count = read.read(&mut buffer).unwrap();
                assert!(count > 0, "the stream has ended");
                flowed.fetch_add(count as u64, Ordering::Relaxed);
            }
        });
        scope.spawn(|| {
            let mut chunk = Vec::new();
            encode(Tag::File, &[7; 65536], &mut chunk).unwrap();
            while !is_over.load(Ordering::Relaxed) {
                sent.write_all(&chunk).unwrap();
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        let mut moved = 0;
        for _ in 0..5 {
            run(&mut session, "x += 1");
            session.book().unwrap();
            let (until, before) = (Instant::now() + DEADLINE, moved);
            while moved <= before + (1 << 17) {
                assert!(Instant::now() < until, "the stream stands still");
                std::thread::sleep(Duration::from_millis(5));
                moved = flowed.load(Ordering::Relaxed);
            }
        }
        is_over.store(true, Ordering::Relaxed);
    });
    assert_eq!(run(&mut session, "x"), "6");
    session.leave().unwrap();
    // Every checkpoint is one to go back to, and in none of them is anything of the streams left.
    for (cell, value) in [("4", "4"), ("6", "6"), ("7", "6")] {
        let code = "import os, time\ntime.sleep(0.5)\nleft = [name for name in os.listdir('/tmp') if 'sent' in name]\n\
                    flood = int(open('/tmp/flood').read())\nprint(x, left, os.path.exists(f'/proc/{flood}'))";
        let restored = home.run(&["-s", "t", "--at", cell, "-c", code]).finish();
        restored.says(&format!("{value} [] False\n"));
    }
}

/// Whether Python has the client of somebody else's. The lane of KVM has no packages.
fn is_there(module: &str) -> bool {
    let found = Command::new("python3")
        .args(["-c", &format!("import {module}")])
        .stderr(Stdio::null())
        .status();
    let is_there = found.is_ok_and(|status| status.success());
    if !is_there && engine_choice() != EngineChoice::Kvm {
        skip(&format!("a foreign client: Python has no {module}"));
    }
    is_there
}

/// With a file of `large` bytes, too.
fn conforms(socket: &Path, guest: &Path, large: usize) {
    let local = folder();
    let ended = Command::new("python3")
        .arg(root().join("tests/clients/files.py"))
        .args([socket, guest, local.path()])
        .arg(large.to_string())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&ended.stdout);
    assert!(ended.status.success(), "{ended:?}");
    assert_eq!(said, "commands\nfiles\nlarge\ntargets\nrefusals\ncrowd\n");
}
