//! A connection of length-prefixed messages.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use vmrepl_wire::languages::{LanguagesDecoder, Reply, encode};

use crate::blocking::{read_some, write_all};
use crate::exec::Hangup;
use crate::limits;

/// A socket that blocks, and the decoder of what came.
#[derive(Debug)]
pub(super) struct Connection {
    socket: OwnedFd,
    decoder: LanguagesDecoder,
    scratch: Vec<u8>,
}

/// What came.
#[derive(Debug)]
pub(super) enum Message {
    Payload(Vec<u8>),
    /// A frame over the limit, and what to say of it.
    TooLong(String),
}

impl Connection {
    pub(super) fn new(socket: OwnedFd) -> Self {
        Self {
            socket,
            decoder: LanguagesDecoder::default(),
            scratch: vec![0; limits::READ_BYTES],
        }
    }

    /// The next message; `None` when the peer sends no more.
    pub(super) fn message(&mut self) -> Result<Option<Message>, Hangup> {
        loop {
            match self.decoder.frame() {
                Ok(Some(payload)) => return Ok(Some(Message::Payload(payload.to_vec()))),
                Ok(None) => {}
                Err(error) => return Ok(Some(Message::TooLong(error.to_string()))),
            }
            match read_some(&self.socket, &mut self.scratch)? {
                0 => return Ok(None),
                count => self.decoder.push(&self.scratch[..count]),
            }
        }
    }

    pub(super) fn say(&mut self, reply: &Reply) -> Result<(), Hangup> {
        let mut out = Vec::new();
        encode(&reply.to_json(), &mut out).map_err(|_| Hangup)?;
        write_all(&self.socket, &out)
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
