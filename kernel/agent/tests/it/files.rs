//! The files port: run, put, get.

use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::{Value, json};
use vmrepl_wire::files::{FilesDecoder, Tag, encode};

use crate::agent::{Agent, DEADLINE, wait_for_end};

/// One connection, one request.
pub(crate) struct Client {
    pub(crate) stream: UnixStream,
    decoder: FilesDecoder,
}

impl Client {
    pub(crate) fn new(agent: &Agent) -> Self {
        let mut stream = agent.dial();
        stream.write_all(b"CONNECT 1024\n").unwrap();
        let mut line = Vec::new();
        while !line.ends_with(b"\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            line.push(byte[0]);
        }
        assert!(line.starts_with(b"OK "));
        let decoder = FilesDecoder::default();
        Self { stream, decoder }
    }

    pub(crate) fn ask(agent: &Agent, request: &Value) -> Self {
        let mut client = Self::new(agent);
        client.send(Tag::Control, request.to_string().as_bytes());
        client
    }

    pub(crate) fn send(&mut self, tag: Tag, payload: &[u8]) {
        let mut bytes = Vec::new();
        encode(tag, payload, &mut bytes).unwrap();
        self.stream.write_all(&bytes).unwrap();
    }

    pub(crate) fn frame(&mut self) -> Option<(Tag, Vec<u8>)> {
        loop {
            if let Some(frame) = self.decoder.frame().unwrap() {
                return Some((frame.tag, frame.payload.to_vec()));
            }
            let mut chunk = [0; 65536];
            match self.stream.read(&mut chunk).unwrap_or(0) {
                0 => return None,
                count => self.decoder.push(&chunk[..count]),
            }
        }
    }

    pub(crate) fn is_answered_within(&self, patience: Duration) -> bool {
        let patience = Timespec::try_from(patience).unwrap();
        let mut source = [PollFd::new(&self.stream, PollFlags::IN)];
        poll(&mut source, Some(&patience)).unwrap() > 0
    }

    pub(crate) fn reply(&mut self) -> Value {
        let (tag, payload) = self.frame().unwrap();
        assert_eq!(tag, Tag::Control);
        serde_json::from_slice(&payload).unwrap()
    }

    /// Output of both streams up to the reply.
    pub(crate) fn output(&mut self) -> (String, String, Value) {
        let (mut stdout, mut stderr) = (String::new(), String::new());
        loop {
            let (tag, payload) = self.frame().unwrap();
            match tag {
                Tag::Stdout => stdout.push_str(std::str::from_utf8(&payload).unwrap()),
                Tag::Stderr => stderr.push_str(std::str::from_utf8(&payload).unwrap()),
                Tag::Control => {
                    return (stdout, stderr, serde_json::from_slice(&payload).unwrap());
                }
                other => panic!("{other:?}"),
            }
        }
    }
}

#[test]
fn ping_tells_the_versions() {
    let agent = Agent::start();
    let reply = Client::ask(&agent, &json!({"v": 1, "op": "ping"})).reply();
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(
        reply,
        json!({"ok": true, "op": "pong", "agent_version": version, "proto": 1})
    );
}

#[test]
fn bad_requests_are_refused_and_the_next_one_is_served() {
    let agent = Agent::start();
    let refused = |request: Value| {
        let reply = Client::ask(&agent, &request).reply();
        assert_eq!(reply["ok"], false, "{request}");
        (
            reply["op"].clone(),
            reply["error"].as_str().unwrap().to_owned(),
        )
    };
    assert_eq!(refused(json!({"op": "run"})).0, "error");
    assert_eq!(
        refused(json!({"op": "run", "cmd": "true", "timeout": -1})).0,
        "error"
    );
    assert_eq!(refused(json!({"op": "dance"})).0, json!(null));
    let (_, error) = refused(json!({"v": 2, "op": "ping"}));
    assert_eq!(error, "version 2 is not spoken here, version 1 is");
    let mut garbage = Client::new(&agent);
    garbage.stream.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    assert_eq!(garbage.frame(), None);
    assert_eq!(
        Client::ask(&agent, &json!({"op": "ping"})).reply()["ok"],
        true
    );
}

#[test]
fn a_file_goes_there_and_back() {
    let agent = Agent::start();
    let folder = tempfile::tempdir().unwrap();
    let content: Vec<u8> = (0..=255).cycle().take(3_000_000).collect();
    let path = folder.path().join("data");
    let size = content.len();
    let mut put = Client::ask(
        &agent,
        &json!({"op": "put_file", "path": path, "mode": 0o640, "size": size}),
    );
    for chunk in content.chunks(65536) {
        put.send(Tag::File, chunk);
    }
    assert_eq!(put.reply(), json!({"ok": true}));
    assert_eq!(std::fs::read(&path).unwrap(), content);
    assert_eq!(
        std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777,
        0o640
    );
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 1);

    let mut get = Client::ask(&agent, &json!({"op": "get_file", "path": path}));
    assert_eq!(
        get.reply(),
        json!({"ok": true, "mode": 0o640, "size": size})
    );
    let mut back = Vec::new();
    loop {
        match get.frame().unwrap() {
            (Tag::File, chunk) => back.extend_from_slice(&chunk),
            (tag, _) => break assert_eq!(tag, Tag::End),
        }
    }
    assert_eq!(back, content);
}

#[test]
fn a_put_cannot_leave_its_folder_nor_half_a_file() {
    let agent = Agent::start();
    let folder = tempfile::tempdir().unwrap();
    let inner = folder.path().join("inner");
    std::fs::create_dir(&inner).unwrap();
    let put = |path: &std::path::Path, name: Option<&str>, size: usize, sent: &[u8]| {
        let request = json!({"op": "put_file", "path": path, "name": name, "size": size});
        let mut client = Client::ask(&agent, &request);
        let mut content = Vec::new();
        encode(Tag::File, sent, &mut content).unwrap();
        encode(Tag::End, b"", &mut content).unwrap();
        // The answer may come, and the end of the connection, before all is said.
        drop(client.stream.write_all(&content));
        client.reply()
    };
    assert_eq!(put(&inner, Some("../../escaped"), 1, b"x")["ok"], true);
    assert_eq!(std::fs::read(inner.join("escaped")).unwrap(), b"x");
    for name in [None, Some(".."), Some("."), Some("a/..")] {
        assert_eq!(put(&inner, name, 1, b"x")["ok"], false, "{name:?}");
    }
    let target = folder.path().join("target");
    assert_eq!(
        put(&target, None, 10, b"short")["error"],
        format!("5 of 10 bytes came")
    );
    assert_eq!(
        put(&target, None, 1, b"long")["error"],
        "more than 1 bytes came"
    );
    // The bytes of a file that cannot be made are taken all the same.
    let nowhere = folder.path().join("missing/target");
    assert!(
        put(&nowhere, None, 1, b"x")["error"]
            .as_str()
            .unwrap()
            .contains("No such file")
    );
    assert!(!target.exists());
    let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().collect();
    assert_eq!(left.len(), 1);
    assert_eq!(std::fs::read_dir(inner).unwrap().count(), 1);
}

#[test]
fn only_regular_files_are_given() {
    let agent = Agent::start();
    let folder = tempfile::tempdir().unwrap();
    let fifo = folder.path().join("fifo");
    assert!(
        std::process::Command::new("mkfifo")
            .arg(&fifo)
            .status()
            .unwrap()
            .success()
    );
    for path in [
        folder.path(),
        &fifo,
        &folder.path().join("missing"),
        std::path::Path::new("/dev/zero"),
    ] {
        let mut get = Client::ask(&agent, &json!({"op": "get_file", "path": path}));
        let reply = get.reply();
        assert_eq!(reply["ok"], false, "{path:?}");
        assert!(
            reply["error"]
                .as_str()
                .unwrap()
                .starts_with(path.to_str().unwrap())
        );
        assert_eq!(get.frame(), None);
    }
}

#[test]
fn commands_run_and_tell_how_they_ended() {
    let agent = Agent::start();
    let run = |cmd: &str| {
        Client::ask(
            &agent,
            &json!({"op": "run", "cmd": cmd, "shell": "raw", "env": {"A": "b c"}}),
        )
        .output()
    };
    let exit = |code: i32| json!({"ok": true, "op": "exit", "exit_code": code});
    assert_eq!(
        run("echo \"$A\"; echo err >&2; exit 3"),
        ("b c\n".into(), "err\n".into(), exit(3))
    );
    assert_eq!(
        run("kill -TERM $$"),
        (String::new(), String::new(), exit(-15))
    );
    assert_eq!(run("cat"), (String::new(), String::new(), exit(0)));
    // A background process that keeps the pipe open is not waited for.
    assert_eq!(run("sleep 1000 & echo done").0, "done\n");
    let (stdout, ..) = run("yes 0123456789 | head -c 20000000");
    assert_eq!(stdout.len(), 20_000_000);
    let login = Client::ask(&agent, &json!({"op": "run", "cmd": "echo $0"})).output();
    assert_eq!(login.2, exit(0));
}

#[test]
fn a_command_out_of_time_goes_with_its_group() {
    let agent = Agent::start();
    let folder = tempfile::tempdir().unwrap();
    let pid_file = folder.path().join("pid");
    let cmd = format!(
        "sleep 1000 & echo $! > {}; echo go; wait",
        pid_file.display()
    );
    // The shortest time in which the command gets as far as its wait.
    for timeout in [0.1, 1.0, 10.0, 60.0] {
        let request = json!({"op": "run", "cmd": cmd, "shell": "raw", "timeout": timeout});
        let (stdout, _, reply) = Client::ask(&agent, &request).output();
        let expected = json!({"ok": true, "op": "timeout", "timeout": timeout});
        assert_eq!(reply, expected);
        if stdout == "go\n" {
            return wait_for_end(&std::fs::read_to_string(pid_file).unwrap());
        }
    }
    panic!("the command did not start");
}

#[test]
fn a_command_goes_when_its_client_hangs_up() {
    let agent = Agent::start();
    let folder = tempfile::tempdir().unwrap();
    let pid_file = folder.path().join("pid");
    let cmd = format!(
        "sleep 1000 & echo $! > {}; echo go; wait",
        pid_file.display()
    );
    let mut client = Client::ask(&agent, &json!({"op": "run", "cmd": cmd, "shell": "raw"}));
    assert_eq!(client.frame(), Some((Tag::Stdout, b"go\n".to_vec())));
    drop(client);
    wait_for_end(&std::fs::read_to_string(pid_file).unwrap());
}

#[test]
fn sixty_four_requests_are_served_at_once_and_others_wait() {
    let agent = Agent::start();
    let request = json!({"op": "run", "cmd": "echo on; sleep 1000", "shell": "raw"});
    let mut clients: Vec<Client> = (0..64).map(|_| Client::ask(&agent, &request)).collect();
    for client in &mut clients {
        assert_eq!(client.frame(), Some((Tag::Stdout, b"on\n".to_vec())));
    }
    let ping = json!({"op": "ping"});
    let mut waiting: Vec<Client> = (0..8).map(|_| Client::ask(&agent, &ping)).collect();
    // Other ports have places of their own.
    assert_eq!(agent.cells().run("1")["exit_code"], 0);
    for client in &mut waiting {
        assert!(!client.is_answered_within(Duration::from_millis(20)));
    }
    // One that goes leaves its place in the line; one that sends no more keeps it.
    drop(waiting.remove(0));
    waiting[0].stream.shutdown(Shutdown::Write).unwrap();
    drop(clients.pop());
    // One place serves them all, one behind the other.
    for client in &mut waiting {
        assert_eq!(client.reply()["op"], "pong");
    }
    let mut last = Client::ask(&agent, &ping);
    assert_eq!(last.reply()["op"], "pong");
}

#[test]
fn half_a_request_holds_up_nobody() {
    let agent = Agent::start();
    let request = json!({"op": "ping"}).to_string();
    let mut bytes = Vec::new();
    encode(Tag::Control, request.as_bytes(), &mut bytes).unwrap();
    let mut halves: Vec<Client> = (0..8).map(|_| Client::new(&agent)).collect();
    for (length, client) in halves.iter_mut().enumerate() {
        client.stream.write_all(&bytes[..length]).unwrap();
    }
    let ping = json!({"op": "ping"});
    assert_eq!(Client::ask(&agent, &ping).reply()["op"], "pong");
    for (length, client) in halves.iter_mut().enumerate() {
        client.stream.write_all(&bytes[length..]).unwrap();
        assert_eq!(client.reply()["op"], "pong");
    }
}

#[test]
fn a_peer_that_does_not_read_stops_its_command_and_nobody_else() {
    let agent = Agent::start();
    let folder = tempfile::tempdir().unwrap();
    let pid_file = folder.path().join("pid");
    let cmd = format!("echo $$ > {}; exec yes 0123456789", pid_file.display());
    let mut client = Client::ask(&agent, &json!({"op": "run", "cmd": cmd, "shell": "raw"}));
    // It runs; from here on nothing is read, and its pipe fills up.
    assert_eq!(client.frame().unwrap().0, Tag::Stdout);
    let pid = std::fs::read_to_string(pid_file).unwrap();
    let stat = format!("/proc/{}/stat", pid.trim());
    let is_asleep = || std::fs::read_to_string(&stat).unwrap().contains(") S ");
    while !is_asleep() {
        assert_eq!(agent.cells().run("1")["exit_code"], 0);
    }
    let mut lines = 0;
    while lines < 10_000_000 {
        lines += client.frame().unwrap().1.len();
    }
    drop(client);
    wait_for_end(&pid);
}

#[test]
fn a_connection_cut_anywhere_leaves_nothing() {
    let agent = Agent::start();
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("target");
    let request = json!({"op": "put_file", "path": target, "size": 12}).to_string();
    let mut frames = vec![(Tag::Control, request.as_bytes())];
    frames.extend([
        (Tag::File, &b"abcde"[..]),
        (Tag::File, b"fghij"),
        (Tag::File, b"kl"),
    ]);
    let (mut bytes, mut cuts) = (Vec::new(), vec![0]);
    for (tag, payload) in frames {
        let start = bytes.len();
        encode(tag, payload, &mut bytes).unwrap();
        // Within the header, behind it, within the content, and behind that.
        cuts.extend([start + 1, start + 5, start + 6, bytes.len()]);
    }
    let whole = cuts.pop().unwrap();
    for cut in &cuts {
        let mut client = Client::new(&agent);
        client.stream.write_all(&bytes[..*cut]).unwrap();
        client.stream.shutdown(Shutdown::Write).unwrap();
        // Nothing was asked, or half a file came: there is nobody to tell.
        assert_eq!(client.frame(), None, "cut at {cut}");
        let left = std::fs::read_dir(&folder).unwrap().count();
        assert_eq!(left, 0, "cut at {cut}");
    }
    for cut in cuts {
        let mut gone = Client::new(&agent);
        gone.stream.write_all(&bytes[..cut]).unwrap();
    }
    let mut client = Client::new(&agent);
    client.stream.write_all(&bytes[..whole]).unwrap();
    assert_eq!(client.reply(), json!({"ok": true}));
    assert_eq!(std::fs::read(&target).unwrap(), b"abcdefghijkl");
    // A receiver that goes after so many frames.
    let large = folder.path().join("large");
    std::fs::write(&large, vec![7; 1 << 20]).unwrap();
    for heard in 0..4 {
        let mut get = Client::ask(&agent, &json!({"op": "get_file", "path": large}));
        for _ in 0..heard {
            get.frame().unwrap();
        }
    }
    let pong = Client::ask(&agent, &json!({"op": "ping"})).reply();
    assert_eq!(pong["op"], "pong");
    // Those that were cut without a word are noticed in their own time.
    let until = Instant::now() + DEADLINE;
    while std::fs::read_dir(&folder).unwrap().count() > 2 {
        assert!(Instant::now() < until, "a file is left");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn what_a_sender_says_behind_its_answer_costs_it_nothing() {
    let agent = Agent::start();
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("target");
    let request = json!({"op": "put_file", "path": target, "size": 1});
    for _ in 0..20 {
        let mut client = Client::ask(&agent, &request);
        client.send(Tag::File, b"x");
        for _ in 0..20 {
            client.send(Tag::File, &[0; 65536]);
        }
        client.send(Tag::End, b"");
        assert_eq!(client.reply(), json!({"ok": true}));
    }
}
