//! Programs: what is asked of the core, and what comes back.

use std::collections::BTreeMap;

use vmrepl_wire::exec::{self, WindowSize};
use vmrepl_wire::files::{FilesOp, FilesReply, Tag};

use crate::client::proto::exec::ExecStart;
use crate::client::proto::exec::exec_request::Request;
use crate::client::proto::exec::exec_response::Response;
use crate::client::{Name, program};
use crate::process::Process;

#[test]
fn output_comes_as_it_is_written_and_the_exit_code_last_under_both_names() {
    let (process, client, core) = Process::serve();
    for name in [Name::Exec, Name::Guest] {
        let mut call = client.call(name).unwrap();
        call.send(Request::Start(program(&["ls", "-l"])));
        let (mut conversation, op) = core.accept();
        let expected = exec::ExecStart {
            command: vec!["ls".to_owned(), "-l".to_owned()],
            stdin: true,
            ..exec::ExecStart::default()
        };
        assert_eq!(op, FilesOp::Exec(expected));
        for (tag, response) in [
            (Tag::Stdout, Response::Stdout(b"out\xff"[..].into())),
            (Tag::Stderr, Response::Stderr(b"err"[..].into())),
            (Tag::Stdout, Response::Stdout(b"more"[..].into())),
        ] {
            let (Response::Stdout(bytes) | Response::Stderr(bytes)) = &response else {
                unreachable!("only output is said here");
            };
            conversation.say(tag, bytes);
            assert_eq!(call.next().unwrap(), Some(response));
        }
        conversation.exit(3);
        assert_eq!(call.exit_code(), 3);
        assert!(conversation.is_closed());
    }
    drop(client);
    process.ended();
}

#[test]
fn all_of_a_start_is_passed_on() {
    let (_process, client, core) = Process::serve();
    let env = BTreeMap::from([("NAME".to_owned(), "värde".to_owned())]);
    let call = client.start(ExecStart {
        tty: true,
        env: env.clone(),
        cwd: "/tmp".to_owned(),
        timeout_seconds: 7,
        ..ExecStart::default()
    });
    let (_conversation, op) = core.accept();
    let expected = exec::ExecStart {
        tty: true,
        stdin: true,
        env,
        cwd: Some("/tmp".to_owned()),
        timeout: Some(7.0),
        ..exec::ExecStart::default()
    };
    assert_eq!(op, FilesOp::Exec(expected));
    drop(call);
}

#[test]
fn window_sizes_are_passed_on_before_and_after_the_start() {
    let (_process, client, core) = Process::serve();
    let mut call = client.call(Name::Exec).unwrap();
    call.resize(24, 80);
    call.send(Request::Start(ExecStart {
        tty: true,
        ..program(&["sh"])
    }));
    call.resize(50, 132);
    let (mut conversation, op) = core.accept();
    let FilesOp::Exec(start) = op else {
        panic!("{op:?}");
    };
    assert_eq!(start.window, Some(WindowSize { rows: 24, cols: 80 }));
    assert_eq!(
        conversation.object(),
        r#"{"op":"resize","rows":50,"cols":132}"#
    );
    call.stdin(b"\x03");
    assert_eq!(conversation.frame(), Some((Tag::Stdin, b"\x03".to_vec())));
    conversation.exit(130);
    assert_eq!(call.exit_code(), 130);
}

#[test]
fn input_goes_in_and_only_the_end_of_the_requests_ends_it() {
    let (_process, client, core) = Process::serve();
    let mut call = client.start(program(&["cat"]));
    let (mut conversation, _) = core.accept();
    // Neither an empty message nor the size of a terminal that is not there is anything.
    call.resize(24, 80);
    call.stdin(b"");
    call.stdin(b"one");
    call.stdin(b"two");
    assert_eq!(conversation.frame(), Some((Tag::Stdin, b"one".to_vec())));
    assert_eq!(conversation.frame(), Some((Tag::Stdin, b"two".to_vec())));
    call.end();
    assert_eq!(conversation.frame(), Some((Tag::End, Vec::new())));
    // The connection stays open behind the end of the input.
    conversation.say(Tag::Stdout, b"onetwo");
    assert_eq!(
        call.next().unwrap(),
        Some(Response::Stdout(b"onetwo"[..].into()))
    );
    conversation.exit(0);
    assert_eq!(call.exit_code(), 0);
}

#[test]
fn a_program_may_end_before_its_input() {
    let (_process, client, core) = Process::serve();
    let mut call = client.start(program(&["true"]));
    let (mut conversation, _) = core.accept();
    conversation.exit(0);
    drop(conversation);
    assert_eq!(call.exit_code(), 0);
}

#[test]
fn a_program_that_is_not_there_has_an_exit_code() {
    let (_process, client, core) = Process::serve();
    for ok in [true, false] {
        let mut call = client.start(program(&["missing"]));
        let (mut conversation, _) = core.accept();
        conversation.reply(&FilesReply {
            ok,
            error: Some("missing: not found".to_owned()),
            exit_code: Some(exec::NOT_FOUND),
            end: Some(exec::ExecEnd::NotStarted),
            ..FilesReply::default()
        });
        assert_eq!(call.exit_code(), 127);
    }
}

#[test]
fn many_run_at_once_on_one_connection() {
    let (_process, client, core) = Process::serve();
    let mut calls: Vec<_> = (0..20)
        .map(|number| client.start(program(&["n", &number.to_string()])))
        .collect();
    let mut conversations: Vec<_> = (0..20).map(|_| core.accept()).collect();
    for (conversation, op) in &mut conversations {
        let FilesOp::Exec(start) = op else {
            panic!("{op:?}");
        };
        conversation.say(Tag::Stdout, start.command[1].as_bytes());
        conversation.exit(start.command[1].parse().unwrap());
    }
    for (number, call) in calls.iter_mut().enumerate() {
        let said = number.to_string().into_bytes().into();
        assert_eq!(call.next().unwrap(), Some(Response::Stdout(said)));
        assert_eq!(usize::try_from(call.exit_code()), Ok(number));
    }
}
