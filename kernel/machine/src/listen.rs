//! The machine's Unix socket: clients that say `CONNECT <port>` before they get their stream.

use std::io::{self, Read};
use std::os::unix::net::{UnixListener, UnixStream};

use vmrepl_wire::connect::HandshakeParser;

/// Clients that have not finished their line. More than an honest host has; a new one beyond it is
/// turned away.
const WAITING_MAX: usize = 64;

/// The listener and the clients at its door.
#[derive(Debug, Default)]
pub(crate) struct Door {
    pub(crate) listener: Option<UnixListener>,
    pub(crate) waiting: Vec<Client>,
    /// No more descriptors: a listener that is polled now would wake us again and again.
    closed: bool,
}

/// A client that has not finished its line.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) socket: UnixStream,
    parser: HandshakeParser,
}

/// A client that asked for a port, with what it sent behind its line.
#[derive(Debug)]
pub(crate) struct Wish {
    pub(crate) socket: UnixStream,
    pub(crate) port: u32,
    pub(crate) early: Vec<u8>,
}

impl Door {
    /// Lets new clients in.
    pub(crate) fn accept(&mut self) {
        let Some(listener) = &self.listener else {
            return;
        };
        loop {
            let socket = match listener.accept() {
                Ok((socket, _)) => socket,
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => return,
                    io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted => continue,
                    _ => {
                        self.closed = true;
                        return;
                    }
                },
            };
            if self.waiting.len() < WAITING_MAX && socket.set_nonblocking(true).is_ok() {
                self.waiting.push(Client {
                    socket,
                    parser: HandshakeParser::request(),
                });
            }
        }
    }

    /// The listener, while there are descriptors for its clients.
    pub(crate) fn open_listener(&self) -> Option<&UnixListener> {
        self.listener.as_ref().filter(|_| !self.closed)
    }

    /// A stream has ended: there may be descriptors again.
    pub(crate) fn reopen(&mut self) {
        self.closed = false;
    }

    /// Reads from the client at `index`. It leaves the door with its wish, or without one when it
    /// closed, spoke nonsense or only looked; then its connection just ends.
    pub(crate) fn listen_to(&mut self, index: usize) -> Option<Wish> {
        let client = self.waiting.get_mut(index)?;
        let mut buffer = [0; 4096];
        let heard = match (&client.socket).read(&mut buffer) {
            Ok(0) => None,
            Ok(count) => match client.parser.push(&buffer[..count]) {
                Ok(None) => return None,
                Ok(Some(line)) => Some((line.number, buffer[line.used_bytes..count].to_vec())),
                Err(_) => None,
            },
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                ) =>
            {
                return None;
            }
            Err(_) => None,
        };
        self.reopen();
        let client = self.waiting.remove(index);
        heard.map(|(port, early)| Wish {
            socket: client.socket,
            port,
            early,
        })
    }
}
