//! Where sockets come from when there is no channel: a Unix socket on a host.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;

use rustix::io::Errno;
use rustix::net::{SocketFlags, accept_with};

use crate::inherited;
use crate::log;
use crate::options::Place;
use crate::poller::{Poller, Token};

/// A listening socket whose clients say `CONNECT <port>` first.
#[derive(Debug)]
pub(crate) struct Listener {
    socket: OwnedFd,
    pub(crate) readable: bool,
    /// Removed at the end.
    path: Option<PathBuf>,
}

impl Listener {
    pub(crate) fn new(place: &Place, token: Token, poller: &Poller) -> io::Result<Self> {
        let (socket, path) = match place {
            Place::Path(path) => (OwnedFd::from(UnixListener::bind(path)?), Some(path.clone())),
            Place::Descriptor(number) => (inherited::take(*number)?, None),
        };
        rustix::io::ioctl_fionbio(&socket, true)?;
        poller.add(&socket, token)?;
        Ok(Self {
            socket,
            readable: true,
            path,
        })
    }

    /// The next connection that waits; it does not block.
    pub(crate) fn accept(&mut self) -> Option<OwnedFd> {
        while self.readable {
            match accept_with(&self.socket, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
                Ok(socket) => return Some(socket),
                Err(Errno::INTR | Errno::CONNABORTED) => {}
                Err(error) => {
                    self.readable = false;
                    if error != Errno::AGAIN {
                        log::warn(format_args!("accept: {error}"));
                    }
                }
            }
        }
        None
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            fs::remove_file(path).ok();
        }
    }
}
