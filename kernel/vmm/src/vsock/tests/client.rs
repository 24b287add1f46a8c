//! A client of the host: the other end of a stream's socket.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;

#[derive(Debug)]
pub(super) struct Client {
    pub(super) socket: UnixStream,
    pub(super) received: Vec<u8>,
    pub(super) outgoing: VecDeque<u8>,
    /// Whether it reads at all.
    pub(super) reads: bool,
    pub(super) ended: bool,
    /// Its writes fail.
    pub(super) refused: bool,
}

impl Client {
    /// A client, and the end that the device gets.
    pub(super) fn pair() -> (Self, UnixStream) {
        let (near, far) = UnixStream::pair().unwrap();
        near.set_nonblocking(true).unwrap();
        let client = Self {
            socket: near,
            received: Vec::new(),
            outgoing: VecDeque::new(),
            reads: true,
            ended: false,
            refused: false,
        };
        (client, far)
    }

    pub(super) fn send(&mut self, bytes: &[u8]) {
        self.outgoing.extend(bytes);
    }

    pub(super) fn end(&self) {
        self.socket.shutdown(Shutdown::Write).unwrap();
    }

    /// Writes and reads what goes without waiting. Whether anything went.
    pub(super) fn pump(&mut self) -> bool {
        let mut moved = false;
        while !self.outgoing.is_empty() && !self.refused {
            let (front, _) = self.outgoing.as_slices();
            match self.socket.write(front) {
                Ok(count) => {
                    self.outgoing.drain(..count);
                    moved = true;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => self.refused = true,
            }
        }
        let mut buffer = [0; 16 << 10];
        while self.reads && !self.ended {
            match self.socket.read(&mut buffer) {
                Ok(0) => self.ended = true,
                Ok(count) => self.received.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => self.ended = true,
            }
            moved = true;
        }
        moved
    }
}
