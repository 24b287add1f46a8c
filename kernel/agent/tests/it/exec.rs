//! The operation `exec` of the files port: programs with input, terminals, signals and limits.

use std::io::{ErrorKind, Write as _};
use std::net::Shutdown;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use vmrepl_wire::files::{Tag, encode};

use crate::agent::{Agent, DEADLINE, wait_for_end};
use crate::files::Client;

fn shell(script: &str) -> Value {
    json!({"op": "exec", "command": ["/bin/sh", "-c", script]})
}

fn with(mut request: Value, more: &Value) -> Value {
    for (name, value) in more.as_object().unwrap() {
        request[name] = value.clone();
    }
    request
}

/// Output up to and with `end`.
fn read_to(client: &mut Client, end: &str) -> String {
    let mut seen = String::new();
    while !seen.contains(end) {
        let (tag, payload) = client.frame().expect("the agent has hung up");
        assert_eq!(tag, Tag::Stdout, "{}", String::from_utf8_lossy(&payload));
        seen.push_str(&String::from_utf8_lossy(&payload));
    }
    seen
}

#[test]
fn input_output_and_the_end_are_told() {
    let agent = Agent::start();
    let request = with(shell("cat; echo err >&2; exit 3"), &json!({"stdin": true}));
    // All at once: what comes right behind the request must not be left lying.
    let mut client = Client::new(&agent);
    let mut bytes = Vec::new();
    encode(Tag::Control, request.to_string().as_bytes(), &mut bytes).unwrap();
    encode(Tag::Stdin, b"in", &mut bytes).unwrap();
    encode(Tag::Stdin, b"put", &mut bytes).unwrap();
    encode(Tag::End, b"", &mut bytes).unwrap();
    client.stream.write_all(&bytes).unwrap();
    let (stdout, stderr, reply) = client.output();
    assert_eq!((stdout.as_str(), stderr.as_str()), ("input", "err\n"));
    assert_eq!(
        (&reply["exit_code"], &reply["end"]),
        (&json!(3), &json!("exited"))
    );
    assert!(reply["usage"]["wall_us"].as_u64().unwrap() > 0, "{reply}");
    assert!(
        reply["usage"]["peak_memory_bytes"].as_u64().unwrap() > 100_000,
        "{reply}"
    );

    // The end of the connection's sending side is the end of the input, too; and without input it is empty.
    let mut client = Client::ask(&agent, &request);
    client.send(Tag::Stdin, b"half");
    client.stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(client.output().0, "half");
    assert_eq!(
        Client::ask(&agent, &shell("cat")).output().2["exit_code"],
        0
    );
}

#[test]
fn every_end_has_its_number() {
    let agent = Agent::start();
    let cases = [
        (
            json!({"op": "exec", "command": ["no-such-program"]}),
            127,
            "not_started",
        ),
        (
            json!({"op": "exec", "command": ["/etc/passwd"]}),
            126,
            "not_started",
        ),
        (
            with(shell("true"), &json!({"cwd": "/no/such/folder"})),
            126,
            "not_started",
        ),
        (shell("exit 1"), 1, "exited"),
        (shell("kill -9 $$"), 137, "signalled"),
        (
            with(shell("sleep 600"), &json!({"timeout": 0.2})),
            124,
            "timed_out",
        ),
        // Each process has a whole second and some more where there is no group to count them together.
        (
            with(
                shell("while :; do :; done"),
                &json!({"limits": {"cpu_ms": 1}}),
            ),
            137,
            "cpu_exceeded",
        ),
    ];
    for (request, code, end) in cases {
        let (_, stderr, reply) = Client::ask(&agent, &request).output();
        assert_eq!(
            (&reply["exit_code"], &reply["end"]),
            (&json!(code), &json!(end)),
            "{request}"
        );
        assert_eq!(
            end == "not_started",
            !stderr.is_empty(),
            "{request}: {stderr}"
        );
    }
    for (request, error) in [
        (
            with(shell("true"), &json!({"user": "root"})),
            "user root: without a machine there is one user",
        ),
        (
            with(shell("true"), &json!({"env": {"A=B": "1"}})),
            "env: \"A=B\" is no name of a variable",
        ),
        (
            with(shell("true"), &json!({"timeout": -1.0})),
            "timeout: cannot convert float seconds to Duration: value is negative",
        ),
    ] {
        let reply = Client::ask(&agent, &request).reply();
        assert_eq!(
            (&reply["ok"], &reply["error"]),
            (&json!(false), &json!(error)),
            "{request}"
        );
    }
}

#[test]
fn limits_environment_and_folder_are_as_asked() {
    let agent = Agent::start();
    let more = json!({
        "env": {"A": "ä b"}, "cwd": "/usr/bin",
        "limits": {"open_files": 64, "file_bytes": 4096},
    });
    let script = "ulimit -n; echo \"$A\"; pwd; ulimit -f";
    let (stdout, ..) = Client::ask(&agent, &with(shell(script), &more)).output();
    assert_eq!(stdout, "64\nä b\n/usr/bin\n8\n");
    let more = json!({"limits": {"memory_bytes": 1 << 20}});
    let (_, stderr, reply) = Client::ask(&agent, &with(shell("true"), &more)).output();
    assert_eq!(
        (stderr.as_str(), &reply["end"]),
        (
            "limits of memory and processes need a machine\n",
            &json!("not_started")
        )
    );
}

#[test]
fn a_terminal_is_one() {
    let agent = Agent::start();
    let terminal = json!({"tty": true, "window": {"rows": 30, "cols": 100}});
    let script = "test -t 0 && test -t 1 && test -t 2 && stty size && test -w $(tty) && echo $TERM; echo ready; \
                  while [ \"$(stty size)\" != '40 120' ]; do sleep 0.1; done; echo resized; \
                  while ! read line; do :; done; echo got $line >&2; exit 7";
    let mut client = Client::ask(&agent, &with(shell(script), &terminal));
    let seen = read_to(&mut client, "ready");
    assert!(seen.starts_with("30 100\r\nxterm-256color\r\n"), "{seen:?}");
    client.send(Tag::Control, br#"{"op":"resize","rows":40,"cols":120}"#);
    read_to(&mut client, "resized");
    client.send(Tag::Stdin, "héllo 🦀\r".as_bytes());
    let (stdout, stderr, reply) = client.output();
    assert!(stdout.ends_with("got héllo 🦀\r\n"), "{stdout:?}");
    assert_eq!((stderr.as_str(), &reply["exit_code"]), ("", &json!(7)));

    // Ctrl-C reaches the program, whenever it comes; what is typed as the end ends its input.
    let script = "trap 'echo heard; exit 5' INT; echo ready; while :; do sleep 0.1; done";
    let mut client = Client::ask(&agent, &with(shell(script), &terminal));
    read_to(&mut client, "ready");
    client.send(Tag::Stdin, &[3]);
    let (stdout, _, reply) = client.output();
    assert!(stdout.contains("heard"), "{stdout:?}");
    assert_eq!(
        (&reply["end"], &reply["exit_code"]),
        (&json!("exited"), &json!(5))
    );
    let mut client = Client::ask(&agent, &with(shell("cat; exit 6"), &terminal));
    client.send(Tag::End, b"");
    assert_eq!(client.output().2["exit_code"], 6);
}

#[test]
fn signals_reach_the_program() {
    let agent = Agent::start();
    let mut client = Client::ask(
        &agent,
        &with(
            shell("trap 'exit 9' USR1; echo ready; while :; do sleep 0.1; done"),
            &json!({"stdin": true}),
        ),
    );
    read_to(&mut client, "ready");
    client.send(Tag::Control, br#"{"op":"signal","number":10}"#);
    assert_eq!(client.output().2["exit_code"], 9);
    // Also one that gets no input.
    let mut client = Client::ask(&agent, &shell("echo ready; sleep 600"));
    read_to(&mut client, "ready");
    client.send(Tag::Control, br#"{"op":"signal","number":4711}"#);
    client.send(Tag::Control, br#"{"op":"signal","number":15}"#);
    assert_eq!(client.output().2["exit_code"], 143);
}

/// By a client that goes, one that talks nonsense, and at the end of the time: nothing is left, whatever it has done to get away.
#[test]
fn all_that_a_program_started_goes_with_it() {
    let agent = Agent::start();
    let script = "setsid sh -c 'setsid sleep 600 & echo $!; sleep 600' & echo $!; (sleep 600 & echo $!); echo $$; sleep 600";
    let begin = |more: &Value| {
        let mut client = Client::ask(&agent, &with(shell(script), more));
        let mut seen = String::new();
        while seen.lines().count() < 4 || !seen.ends_with('\n') {
            seen += &read_to(&mut client, "\n");
        }
        let pids: Vec<String> = seen.lines().map(str::to_owned).collect();
        (client, pids)
    };
    let all_gone = |pids: &[String]| pids.iter().for_each(|pid| wait_for_end(pid));
    for more in [json!({}), json!({"stdin": true}), json!({"tty": true})] {
        let (client, pids) = begin(&more);
        drop(client);
        all_gone(&pids);
    }
    let (mut client, pids) = begin(&json!({"stdin": true}));
    client.send(Tag::File, b"nonsense");
    all_gone(&pids);
    assert!(
        client.frame().is_none(),
        "nothing is said to one who has lost step"
    );
    let (mut client, pids) = begin(&json!({"timeout": 1.0}));
    assert_eq!(client.output().2["end"], "timed_out");
    all_gone(&pids);
}

#[test]
fn what_a_program_leaves_lives_on() {
    let agent = Agent::start();
    let mut client = Client::ask(&agent, &shell("sleep 600 > /dev/null 2>&1 & echo $!"));
    let (stdout, ..) = client.output();
    let pid = stdout.trim();
    let (_, _, reply) =
        Client::ask(&agent, &shell(&format!("kill -0 {pid} && kill {pid}"))).output();
    assert_eq!(reply["exit_code"], 0, "it was gone already");
    wait_for_end(pid);
}

#[test]
fn neither_side_has_to_hold_what_the_other_does_not_take() {
    let agent = Agent::start();
    // A program that reads nothing: its client can send no more at some time.
    let mut client = Client::ask(
        &agent,
        &with(shell("echo ready; sleep 600"), &json!({"stdin": true})),
    );
    read_to(&mut client, "ready");
    client
        .stream
        .set_write_timeout(Some(Duration::from_millis(500)))
        .unwrap();
    let mut chunk = Vec::new();
    encode(Tag::Stdin, &[7; 65_536], &mut chunk).unwrap();
    let mut sent = 0;
    let error = loop {
        match client.stream.write_all(&chunk) {
            Ok(()) => sent += chunk.len(),
            Err(error) => break error,
        }
        assert!(sent < 16 << 20, "all of it is taken");
    };
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    drop(client);

    // One that reads slowly and one that writes much: all of it arrives.
    let mut client = Client::ask(
        &agent,
        &with(
            shell("sha256sum; seq 1 300000 | tail -n 1"),
            &json!({"stdin": true}),
        ),
    );
    for _ in 0..400 {
        client.stream.write_all(&chunk).unwrap();
    }
    client.send(Tag::End, b"");
    let (stdout, ..) = client.output();
    let sum = {
        let local = std::process::Command::new("sh")
            .args([
                "-c",
                "head -c 26214400 /dev/zero | tr '\\0' '\\7' | sha256sum",
            ])
            .output()
            .unwrap();
        String::from_utf8(local.stdout).unwrap()
    };
    assert_eq!(stdout, format!("{sum}300000\n"));
}

#[test]
fn a_client_that_does_not_read_stops_its_program_only() {
    let agent = Agent::start();
    let began = Instant::now();
    let mut flood = Client::ask(&agent, &shell("exec yes"));
    assert_eq!(
        Client::ask(&agent, &shell("echo still here")).output().0,
        "still here\n"
    );
    // What it was sent is there, and the rest comes as it reads.
    let mut seen = 0;
    while seen < 8 << 20 {
        let (tag, payload) = flood.frame().unwrap();
        assert_eq!(tag, Tag::Stdout);
        seen += payload.len();
    }
    assert!(began.elapsed() < DEADLINE);
}
