//! The agent's side of the way to the core.

use std::io::{ErrorKind, IoSliceMut, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::os::unix::net::UnixStream;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use vmrepl_wire::files::{FilesDecoder, FilesOp, FilesReply, FilesRequest, Tag, encode};

use crate::client::DEADLINE;

/// Takes connections as the agent does.
pub(crate) struct Core {
    socket: UnixStream,
}

impl Core {
    pub(crate) fn new(socket: UnixStream) -> Self {
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        Self { socket }
    }

    /// The next connection, with its request.
    pub(crate) fn accept(&self) -> (Conversation, FilesOp) {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut byte = [0];
        let mut slices = [IoSliceMut::new(&mut byte)];
        let flags = RecvFlags::CMSG_CLOEXEC;
        let got = recvmsg(&self.socket, &mut slices, &mut control, flags).unwrap();
        assert_eq!(got.bytes, 1);
        let mut rights = control.drain().filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(rights) => Some(rights),
            _ => None,
        });
        let descriptor = rights.next().unwrap().next().unwrap();
        let stream = UnixStream::from(descriptor);
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.set_write_timeout(Some(DEADLINE)).unwrap();
        let mut conversation = Conversation {
            stream,
            decoder: FilesDecoder::default(),
        };
        let (tag, request) = conversation.frame().unwrap();
        assert_eq!(tag, Tag::Control);
        let request: FilesRequest = serde_json::from_slice(&request).unwrap();
        assert_eq!(request.v, 1);
        (conversation, request.op)
    }
}

/// One connection to the core.
pub(crate) struct Conversation {
    stream: UnixStream,
    decoder: FilesDecoder,
}

impl Conversation {
    /// The next frame; none when the connection was closed.
    pub(crate) fn frame(&mut self) -> Option<(Tag, Vec<u8>)> {
        loop {
            if let Some(frame) = self.decoder.frame().unwrap() {
                return Some((frame.tag, frame.payload.to_vec()));
            }
            let mut bytes = [0; 64 * 1024];
            match self.stream.read(&mut bytes) {
                Ok(0) => return None,
                Ok(read) => self.decoder.push(&bytes[..read]),
                // Closed with bytes that were not read.
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// The next frame, which must be an object, as text.
    pub(crate) fn object(&mut self) -> String {
        let (tag, payload) = self.frame().unwrap();
        assert_eq!(tag, Tag::Control);
        String::from_utf8(payload).unwrap()
    }

    /// All bytes of a kind up to the end frame, or `length_bytes` of them.
    pub(crate) fn bytes(&mut self, kind: Tag, length_bytes: usize) -> Vec<u8> {
        let mut all = Vec::new();
        while all.len() < length_bytes {
            match self.frame().unwrap() {
                (Tag::End, _) => break,
                (tag, payload) => {
                    assert_eq!(tag, kind);
                    all.extend(payload);
                }
            }
        }
        all
    }

    pub(crate) fn say(&mut self, tag: Tag, payload: &[u8]) {
        let mut frame = Vec::new();
        encode(tag, payload, &mut frame).unwrap();
        self.stream.write_all(&frame).unwrap();
    }

    pub(crate) fn reply(&mut self, reply: &FilesReply) {
        self.say(Tag::Control, &serde_json::to_vec(reply).unwrap());
    }

    /// Ends a program.
    pub(crate) fn exit(&mut self, exit_code: i32) {
        self.reply(&FilesReply {
            ok: true,
            op: Some("exit".to_owned()),
            exit_code: Some(exit_code),
            ..FilesReply::default()
        });
    }

    /// Says no.
    pub(crate) fn refuse(&mut self, error: &str) {
        self.reply(&FilesReply {
            error: Some(error.to_owned()),
            ..FilesReply::default()
        });
    }

    /// Whether the other side closes it, with nothing more to say. A client that goes may be seen to end its input first.
    pub(crate) fn is_closed(&mut self) -> bool {
        loop {
            match self.frame() {
                Some((Tag::End, _)) => {}
                more => return more.is_none(),
            }
        }
    }

    /// Raw bytes.
    pub(crate) fn stream(&mut self) -> &mut UnixStream {
        &mut self.stream
    }
}
