//! One stream between a socket of the host and a guest port.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;

/// What there is to do with a stream after it was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It goes on.
    Lives,
    /// The host's side gave it up: tell the guest.
    GivenUp,
    /// Both sides have ended.
    Over,
}

#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) socket: UnixStream,
    /// Bytes of the guest that the socket has not taken; at most one window of the multiplexer.
    pending: VecDeque<u8>,
    /// How many of them, at the front, are our own and cost the guest no credit.
    own_bytes: usize,
    /// The socket's owner sends no more.
    pub(crate) host_ended: bool,
    guest_ended: bool,
    closed_to_host: bool,
    /// Of the session itself, to the control port.
    pub(crate) is_control: bool,
}

impl Stream {
    pub(crate) fn new(socket: UnixStream) -> Self {
        Self {
            socket,
            pending: VecDeque::new(),
            own_bytes: 0,
            host_ended: false,
            guest_ended: false,
            closed_to_host: false,
            is_control: false,
        }
    }

    /// Queues the answer to a handshake. The guest has sent nothing before that.
    pub(crate) fn answer(&mut self, bytes: &[u8]) {
        self.pending.extend(bytes);
        self.own_bytes += bytes.len();
    }

    /// Gives bytes of the guest to the socket; what it does not take waits. Returns how many of the
    /// guest's bytes went.
    pub(crate) fn deliver(&mut self, mut bytes: &[u8]) -> (usize, Fate) {
        let mut written = 0;
        while self.pending.is_empty() && !bytes.is_empty() {
            match (&self.socket).write(bytes) {
                Ok(count) => {
                    written += count;
                    bytes = &bytes[count..];
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => return (written, Fate::GivenUp),
            }
        }
        self.pending.extend(bytes);
        (written, Fate::Lives)
    }

    /// The guest sends no more.
    pub(crate) fn guest_finished(&mut self) {
        self.guest_ended = true;
    }

    /// The guest sends no more and hears no more.
    pub(crate) fn guest_closed(&mut self) {
        self.guest_ended = true;
        self.host_ended = true;
    }

    pub(crate) fn wants_to_write(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Writes what the socket takes. Returns how many of the guest's bytes went.
    pub(crate) fn flush(&mut self) -> (usize, Fate) {
        let mut written = 0;
        while !self.pending.is_empty() {
            let (front, _) = self.pending.as_slices();
            match (&self.socket).write(front) {
                Ok(count) => {
                    self.pending.drain(..count);
                    let own = self.own_bytes.min(count);
                    self.own_bytes -= own;
                    written += count - own;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return (written, Fate::Lives);
                }
                Err(_) => return (written, Fate::GivenUp),
            }
        }
        if self.guest_ended && !self.closed_to_host {
            self.closed_to_host = true;
            // A socket that is closed already needs no shutdown.
            drop(self.socket.shutdown(Shutdown::Write));
        }
        let over = self.closed_to_host && self.host_ended;
        (written, if over { Fate::Over } else { Fate::Lives })
    }

    /// Reads at most `room` bytes for the guest; `room` is not zero, or it would look like the end.
    /// `None` when the socket's owner sends no more.
    pub(crate) fn read<'a>(
        &mut self,
        buffer: &'a mut [u8],
        room: usize,
    ) -> io::Result<Option<&'a [u8]>> {
        let room = room.min(buffer.len());
        loop {
            return match (&self.socket).read(&mut buffer[..room]) {
                Ok(0) => {
                    self.host_ended = true;
                    Ok(None)
                }
                Ok(count) => Ok(Some(&buffer[..count])),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Some(&[])),
                Err(error) => Err(error),
            };
        }
    }
}
