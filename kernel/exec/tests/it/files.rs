//! Files and folders in, files out, and paths described.

use tonic::Code;
use vmrepl_wire::copying::{Kind, PutTree, Stat};
use vmrepl_wire::files::{FilesOp, FilesReply, Tag};

use crate::client::Client;
use crate::client::proto::guest::copy_from_guest_response::Response;
use crate::client::proto::guest::copy_to_guest_request::Request;
use crate::client::proto::guest::{
    CopyFromGuestEnd, CopyFromGuestHeader, CopyFromGuestRequest, CopyToGuestEnd,
    CopyToGuestRequest, CopyToGuestResponse, CopyToGuestStart, StatPathRequest,
};
use crate::core::Core;
use crate::process::Process;

fn start(size: i64) -> Request {
    Request::Start(CopyToGuestStart {
        path: "/home/user/file".to_owned(),
        mode: 0o100_640,
        size,
        mtime: 1,
        ..CopyToGuestStart::default()
    })
}

fn data(bytes: &'static [u8]) -> Request {
    Request::Data(bytes.into())
}

/// Sends these; the core's part is played meanwhile.
fn put<T: Send>(
    client: &Client,
    requests: Vec<Request>,
    core: impl FnOnce() -> T + Send,
) -> (Result<CopyToGuestResponse, tonic::Status>, T) {
    let messages: Vec<_> = requests
        .into_iter()
        .map(|request| CopyToGuestRequest {
            request: Some(request),
        })
        .collect();
    std::thread::scope(|scope| {
        let played = scope.spawn(core);
        let response = client.wait(async {
            let mut guest = client.guest();
            guest.copy_to_guest(tokio_stream::iter(messages)).await
        });
        (
            response.map(tonic::Response::into_inner),
            played.join().unwrap(),
        )
    })
}

/// Takes one file.
fn take(core: &Core) -> (FilesOp, Vec<u8>) {
    let (mut conversation, op) = core.accept();
    let FilesOp::PutFile { size, .. } = op else {
        panic!("{op:?}");
    };
    let bytes = conversation.bytes(Tag::File, size.try_into().unwrap());
    if bytes.len() as u64 == size {
        conversation.reply(&FilesReply {
            ok: true,
            ..FilesReply::default()
        });
    } else {
        conversation.refuse("fewer bytes than announced");
    }
    (op, bytes)
}

#[test]
fn a_file_goes_in_whole() {
    let (_process, client, core) = Process::serve();
    let end = || Request::End(CopyToGuestEnd {});
    for requests in [
        vec![start(6), data(b"abc"), data(b"def"), end()],
        vec![start(6), data(b""), data(b"abcdef")],
        vec![start(0), end()],
    ] {
        let length = if requests.len() == 2 { 0 } else { 6 };
        let (response, (op, bytes)) = put(&client, requests, || take(&core));
        let FilesOp::PutFile {
            path, name, mode, ..
        } = op
        else {
            panic!("{op:?}");
        };
        assert_eq!(
            (path.as_str(), name, mode),
            ("/home/user/file", None, Some(0o640))
        );
        assert_eq!(bytes, b"abcdef"[..length]);
        let response = response.unwrap();
        assert!(response.success, "{response:?}");
        assert_eq!(usize::try_from(response.bytes_written), Ok(length));
    }
}

#[test]
fn a_file_of_another_length_is_not_written() {
    let (_process, client, core) = Process::serve();
    let (response, _) = put(&client, vec![start(6), data(b"abc")], || take(&core));
    let response = response.unwrap();
    assert_eq!(
        (response.success, response.error.as_str()),
        (false, "fewer bytes than announced")
    );
    // The last bytes are held back until it is sure that they are.
    let requests = vec![start(6), data(b"abc"), data(b"def"), data(b"g")];
    let (response, rest) = put(&client, requests, || {
        let (mut conversation, _) = core.accept();
        let first = conversation.frame().unwrap();
        (first, conversation.is_closed())
    });
    assert_eq!(rest, ((Tag::File, b"abc".to_vec()), true));
    let response = response.unwrap();
    assert_eq!(
        (response.success, response.error.as_str()),
        (false, "more than the 6 bytes that were announced came")
    );
}

#[test]
fn a_file_comes_out() {
    let (_process, client, core) = Process::serve();
    let get = |path: &str| {
        let request = CopyFromGuestRequest {
            path: path.to_owned(),
            follow_links: false,
        };
        client
            .wait(async { client.guest().copy_from_guest(request).await })
            .unwrap()
            .into_inner()
    };
    let mut responses = get("/home/user/file");
    let (mut conversation, op) = core.accept();
    assert_eq!(
        op,
        FilesOp::GetFile {
            path: "/home/user/file".to_owned()
        }
    );
    conversation.reply(&FilesReply {
        ok: true,
        mode: Some(0o640),
        size: Some(6),
        ..FilesReply::default()
    });
    conversation.say(Tag::File, b"abc");
    conversation.say(Tag::File, b"def");
    conversation.say(Tag::End, b"");
    let header = CopyFromGuestHeader {
        path: "file".to_owned(),
        mode: 0o640,
        size: 6,
        ..CopyFromGuestHeader::default()
    };
    for expected in [
        Response::Header(header),
        Response::Data(b"abc"[..].into()),
        Response::Data(b"def"[..].into()),
        Response::End(CopyFromGuestEnd { r#final: true }),
    ] {
        let message = client.wait(responses.message()).unwrap().unwrap();
        assert_eq!(message.response, Some(expected));
    }
    assert_eq!(client.wait(responses.message()).unwrap(), None);

    let mut responses = get("/missing");
    core.accept().0.refuse("/missing: no such file");
    let message = client.wait(responses.message()).unwrap().unwrap();
    let Some(Response::Error(error)) = message.response else {
        panic!("{message:?}");
    };
    assert_eq!(
        (error.path.as_str(), error.message.as_str()),
        ("/missing", "/missing: no such file")
    );
    assert_eq!(client.wait(responses.message()).unwrap(), None);
}

#[test]
fn a_folder_is_a_tar_stream_of_itself() {
    let (_process, client, core) = Process::serve();
    let folder = Request::Start(CopyToGuestStart {
        path: "/home/user/new".to_owned(),
        mode: 0o40_750,
        mtime: 1_700_000_000,
        is_dir: true,
        ..CopyToGuestStart::default()
    });
    let (response, (op, stream)) = put(&client, vec![folder], || {
        let (mut conversation, op) = core.accept();
        let stream = conversation.bytes(Tag::File, usize::MAX);
        conversation.reply(&FilesReply {
            ok: true,
            ..FilesReply::default()
        });
        (op, stream)
    });
    assert!(response.unwrap().success);
    let expected = PutTree {
        path: "/home/user/new".to_owned(),
        name: None,
    };
    assert_eq!(op, FilesOp::PutTree(expected));
    // As another program reads it.
    let mut archive = tar::Archive::new(stream.as_slice());
    let mut entries = archive.entries().unwrap();
    let entry = entries.next().unwrap().unwrap();
    let header = entry.header();
    assert_eq!(entry.path_bytes().as_ref(), b"./");
    assert!(header.entry_type().is_dir());
    assert_eq!(
        (header.mode().unwrap(), header.mtime().unwrap()),
        (0o750, 1_700_000_000)
    );
    assert!(entries.next().is_none());
}

#[test]
fn a_path_is_described() {
    let (_process, client, core) = Process::serve();
    let describe = |reply: FilesReply| {
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let (mut conversation, op) = core.accept();
                let expected = FilesOp::Stat {
                    path: "/home/user/link".to_owned(),
                    follow: true,
                };
                assert_eq!(op, expected);
                conversation.reply(&reply);
            });
            let request = StatPathRequest {
                path: "/home/user/link".to_owned(),
                follow_links: true,
            };
            let told = client.wait(async { client.guest().stat_path(request).await });
            told.unwrap().into_inner()
        })
    };
    let told = describe(FilesReply {
        ok: true,
        stat: Some(Stat {
            kind: Kind::File,
            size: Some(7),
            mode: Some(0o640),
            mtime_ns: Some(1),
            target: None,
        }),
        ..FilesReply::default()
    });
    assert!(told.exists && told.is_file && !told.is_dir && !told.is_symlink);
    assert_eq!((told.size, told.mode), (7, 0o640));
    let told = describe(FilesReply {
        error: Some("no right".to_owned()),
        ..FilesReply::default()
    });
    assert_eq!((told.exists, told.error.as_str()), (false, "no right"));
}

#[test]
fn what_is_no_copy_is_refused() {
    let (_process, client, _core) = Process::serve();
    let (response, ()) = put(&client, vec![data(b"abc")], || ());
    assert_eq!(response.unwrap_err().code(), Code::InvalidArgument);
    let (response, ()) = put(&client, vec![start(-1)], || ());
    assert_eq!(response.unwrap_err().code(), Code::InvalidArgument);
}
