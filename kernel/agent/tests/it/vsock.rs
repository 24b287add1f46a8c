//! The vsock device, by its loopback, which not every host has (module `vsock_loopback`).

use std::io::{ErrorKind, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

use serde_json::json;
use vmrepl_wire::files::{FilesDecoder, Tag, encode};
use vsock::{VMADDR_CID_ANY, VMADDR_CID_LOCAL, VsockListener, VsockStream};

use crate::agent::{AGENT, Connection, DEADLINE, runner, wait_for_end};

/// Above all that others use; a second run on the same host has another.
fn shift() -> u32 {
    0x1000_0000 + std::process::id() * 64
}

/// Whether the host connects to itself. Without the module a connection waits for an answer in vain.
fn has_loopback() -> bool {
    std::fs::read_to_string("/proc/modules").is_ok_and(|text| text.contains("vsock_loopback"))
}

/// Says that a test did not run, past the capture of the harness.
fn skip(why: &str) {
    let line = format!("SKIPPED: {why}\n");
    std::io::stderr().write_all(line.as_bytes()).unwrap();
}

/// Dials until the agent listens.
fn dial(port: u32) -> VsockStream {
    loop {
        match VsockStream::connect_with_cid_port(VMADDR_CID_LOCAL, port) {
            Ok(stream) => {
                stream.set_read_timeout(Some(DEADLINE)).unwrap();
                return stream;
            }
            Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}"),
        }
    }
}

#[test]
fn each_port_is_a_vsock_port() {
    if !has_loopback() {
        return skip("no vsock loopback: the module vsock_loopback is not loaded");
    }
    let shift = shift();
    let mut agent = Command::new(AGENT)
        .arg("--runner")
        .arg(runner())
        .args(["--listen", &format!("vsock:{shift}")])
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    // No handshake: what is served is known by the port.
    let mut control = Connection::new(UnixStream::from(OwnedFd::from(dial(shift + 9))));
    control.say(&json!({"op": "stats"}));
    assert!(control.until("stats")["agent_rss_bytes"].is_u64());
    files(shift + 1024);
    control.say(&json!({"op": "shutdown"}));
    assert!(agent.wait().unwrap().success());
}

/// A command goes when its client hangs up, although a vsock socket tells no hang-up.
fn files(port: u32) {
    let mut stream = dial(port);
    let mut request = Vec::new();
    let run = json!({"op": "run", "cmd": "echo $$; exec sleep 1000", "shell": "raw"});
    encode(Tag::Control, run.to_string().as_bytes(), &mut request).unwrap();
    stream.write_all(&request).unwrap();
    let mut decoder = FilesDecoder::default();
    let pid = loop {
        if let Some(frame) = decoder.frame().unwrap() {
            assert_eq!(frame.tag, Tag::Stdout);
            break String::from_utf8(frame.payload.to_vec()).unwrap();
        }
        let mut chunk = [0; 4096];
        let count = stream.read(&mut chunk).unwrap();
        decoder.push(&chunk[..count]);
    };
    drop(stream);
    wait_for_end(&pid);
}

#[test]
fn a_port_that_is_taken_is_told() {
    let shift = shift() + 32;
    // The device may be somebody else's, or missing: then there is nothing to be taken.
    let Ok(_taken) = VsockListener::bind_with_cid_port(VMADDR_CID_ANY, shift + 1024) else {
        return skip("no vsock sockets");
    };
    let mut command = Command::new(AGENT);
    command.arg("--runner").arg(runner());
    command.args(["--listen", &format!("vsock:{shift}")]);
    let output = command.output().unwrap();
    assert!(!output.status.success());
    let told = String::from_utf8(output.stderr).unwrap();
    let expected = format!("listen: vsock port {}: ", shift + 1024);
    let line: serde_json::Value = serde_json::from_str(&told).unwrap();
    assert_eq!(line["level"], "error");
    let message = line["message"].as_str().unwrap();
    assert!(message.starts_with(&expected), "{told}");
}
