//! Calls and connections that do not end well.

use std::io::{ErrorKind, Read as _, Write as _};

use tonic::Code;
use vmrepl_wire::files::Tag;

use crate::client::proto::exec::exec_request::Request;
use crate::client::proto::exec::{ExecRequest, ExecResponse, ExecStart};
use crate::client::{DEADLINE, Name, program};
use crate::process::Process;

#[test]
fn what_is_no_start_is_refused_before_the_core_hears_of_it() {
    let (_process, client, core) = Process::serve();
    let timeless = ExecStart {
        timeout_seconds: -1,
        ..program(&["sh"])
    };
    for (request, message) in [
        (
            Request::Stdin(b"in"[..].into()),
            "the first message must be a start",
        ),
        (Request::Start(timeless), "timeout_seconds: -1 is negative"),
    ] {
        let mut call = client.call(Name::Exec).unwrap();
        call.send(request);
        let status = call.next().unwrap_err();
        assert_eq!(
            (status.code(), status.message()),
            (Code::InvalidArgument, message)
        );
    }
    let mut call = client.call(Name::Exec).unwrap();
    call.end();
    assert_eq!(call.next().unwrap_err().code(), Code::InvalidArgument);
    // The first that the core hears of is the one that was in order.
    let _call = client.start(program(&["fine"]));
    let (_, op) = core.accept();
    assert!(format!("{op:?}").contains("fine"), "{op:?}");
}

#[test]
fn what_comes_out_of_turn_ends_the_call_and_the_program() {
    let (_process, client, core) = Process::serve();
    let mut call = client.start(program(&["sh"]));
    let (mut conversation, _) = core.accept();
    call.send(Request::Start(program(&["sh"])));
    assert_eq!(call.next().unwrap_err().code(), Code::InvalidArgument);
    assert!(conversation.is_closed());

    let mut call = client.start(program(&["sh"]));
    let (mut conversation, _) = core.accept();
    call.resize(65_536, 80);
    let status = call.next().unwrap_err();
    assert_eq!(status.message(), "rows: 65536 is over 65535");
    assert!(conversation.is_closed());
}

#[test]
fn a_refusal_of_the_core_is_an_invalid_argument_in_its_words() {
    let (_process, client, core) = Process::serve();
    let mut call = client.start(program(&["sh"]));
    let (mut conversation, _) = core.accept();
    conversation.refuse("cwd: /nowhere is no folder");
    let status = call.next().unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (Code::InvalidArgument, "cwd: /nowhere is no folder")
    );
}

#[test]
fn a_core_that_goes_without_a_word_is_unavailable() {
    let (_process, client, core) = Process::serve();
    let mut call = client.start(program(&["sh"]));
    let (mut conversation, _) = core.accept();
    conversation.say(Tag::Stdout, b"half");
    drop(conversation);
    assert!(call.next().unwrap().is_some());
    assert_eq!(call.next().unwrap_err().code(), Code::Unavailable);
    // The way to the core itself.
    drop(core);
    let mut call = client.start(program(&["sh"]));
    assert_eq!(call.next().unwrap_err().code(), Code::Unavailable);
}

#[test]
fn a_core_that_loses_step_is_an_internal_error() {
    let (_process, client, core) = Process::serve();
    for nonsense in [&b"\x09\0\0\0\0"[..], b"\x01\0\0\0\x02no", b"\x05\0\0\0\0"] {
        let mut call = client.start(program(&["sh"]));
        let (mut conversation, _) = core.accept();
        conversation.stream().write_all(nonsense).unwrap();
        assert_eq!(call.next().unwrap_err().code(), Code::Internal);
        assert!(conversation.is_closed());
    }
}

#[test]
fn a_cancelled_call_closes_its_connection_to_the_core_and_no_other() {
    let (_process, client, core) = Process::serve();
    let mut stays = client.start(program(&["stays"]));
    let (mut other, _) = core.accept();
    for ends_input in [false, true] {
        let mut call = client.start(program(&["sleep"]));
        let (mut conversation, _) = core.accept();
        if ends_input {
            call.end();
            assert_eq!(conversation.frame(), Some((Tag::End, Vec::new())));
        }
        drop(call);
        assert!(conversation.is_closed());
    }
    other.exit(0);
    assert_eq!(stays.exit_code(), 0);
}

#[test]
fn a_client_that_vanishes_closes_all_of_them_and_ends_the_process() {
    let (process, client, core) = Process::serve();
    let calls = [(); 3].map(|()| client.start(program(&["sleep"])));
    let mut conversations = [(); 3].map(|()| core.accept().0);
    drop(calls);
    drop(client);
    assert!(
        conversations
            .iter_mut()
            .all(super::core::Conversation::is_closed)
    );
    process.ended();
}

#[test]
fn a_probe_and_garbage_end_the_process() {
    let (process, connection, _core) = Process::start();
    drop(connection);
    process.ended();

    let (process, mut connection, _core) = Process::start();
    connection.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    connection.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut answer = Vec::new();
    match connection.read_to_end(&mut answer) {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
    }
    process.ended();
}

#[test]
fn unknown_methods_and_services_are_unimplemented() {
    let (_process, client, _core) = Process::serve();
    for path in ["/exec.ExecService/Dance", "/dance.DanceService/Exec", "/x"] {
        let mut grpc = tonic::client::Grpc::new(client.channel());
        let status = client.wait(async {
            grpc.ready().await.unwrap();
            let codec = tonic_prost::ProstCodec::<ExecRequest, ExecResponse>::default();
            let request = tonic::Request::new(ExecRequest { request: None });
            grpc.unary(request, path.parse().unwrap(), codec).await
        });
        assert_eq!(status.unwrap_err().code(), Code::Unimplemented, "{path}");
    }
}
