//! Where connections come from, apart from a channel: a Unix socket on a host, the vsock device of a
//! machine.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::net::{SocketFlags, accept_with};
use vmrepl_wire::port;
use vsock::{VMADDR_CID_ANY, VMADDR_CID_HOST, VsockListener};

use crate::inherited;
use crate::log;
use crate::options::Place;
use crate::poller::{Poller, Token};

/// The device that a machine's host is reached by.
const VSOCK_DEVICE: &str = "/dev/vsock";

/// The first address that a machine can have; below are the hypervisor, itself and the host.
const FIRST_MACHINE_CID: u32 = 3;

/// Who may connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trust {
    /// The host alone: a cell could else reach the control port from within.
    Host,
    /// Whoever can: without a machine.
    Anybody,
}

/// A listening socket.
#[derive(Debug)]
pub(crate) struct Listener {
    door: Door,
    token: Token,
    readable: bool,
}

#[derive(Debug)]
enum Door {
    /// Its clients say `CONNECT <port>` first. The path, if any, is removed at the end.
    Unix {
        socket: OwnedFd,
        path: Option<PathBuf>,
    },
    /// One port's own.
    Vsock {
        socket: VsockListener,
        port: u32,
        trust: Trust,
    },
}

/// A connection that does not block.
#[derive(Debug)]
pub(crate) struct Accepted {
    pub(crate) socket: OwnedFd,
    /// The port, when the client does not have to say it.
    pub(crate) port: Option<u32>,
}

/// Tells the host that somebody listens here. The host has nothing to open, so it refuses; what counts is
/// that it was asked: until then it holds its own streams back.
pub(crate) fn knock() {
    if let Ok(stream) = vsock::VsockStream::connect_with_cid_port(VMADDR_CID_HOST, port::CONTROL) {
        drop(stream);
    }
}

/// Whether the machine has a vsock device that leads to a host. The driver alone makes the file.
pub(crate) fn has_vsock() -> bool {
    Path::new(VSOCK_DEVICE).exists()
        && vsock::get_local_cid()
            .is_ok_and(|own| (FIRST_MACHINE_CID..VMADDR_CID_ANY).contains(&own))
}

impl Listener {
    /// Listens at a place, with the first of `tokens` and those behind it.
    pub(crate) fn open(
        place: &Place,
        trust: Trust,
        tokens: Token,
        poller: &Poller,
    ) -> io::Result<Vec<Self>> {
        let doors = match place {
            Place::Path(path) => vec![Door::Unix {
                socket: OwnedFd::from(UnixListener::bind(path)?),
                path: Some(path.clone()),
            }],
            Place::Descriptor(number) => vec![Door::Unix {
                socket: inherited::take(*number)?,
                path: None,
            }],
            Place::Vsock { shift } => [
                port::CONTROL,
                port::CELLS,
                port::FILES,
                port::EXEC,
                port::LANGUAGES,
            ]
            .into_iter()
            .map(|port| vsock_door(port, *shift, trust))
            .collect::<io::Result<_>>()?,
        };
        (tokens..)
            .zip(doors)
            .map(|(token, door)| {
                rustix::io::ioctl_fionbio(&door, true)?;
                poller.add(&door, token)?;
                Ok(Self {
                    door,
                    token,
                    readable: true,
                })
            })
            .collect()
    }

    /// Notes an event, if it is this one's.
    pub(crate) fn note(&mut self, token: Token) {
        self.readable |= self.token == token;
    }

    /// The next connection that waits; it does not block.
    pub(crate) fn accept(&mut self) -> Option<Accepted> {
        while self.readable {
            match self.door.accept() {
                Ok(Some(accepted)) => return Some(accepted),
                Ok(None) | Err(Errno::INTR | Errno::CONNABORTED) => {}
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

fn vsock_door(port: u32, shift: u32, trust: Trust) -> io::Result<Door> {
    let own = port.saturating_add(shift);
    let socket = VsockListener::bind_with_cid_port(VMADDR_CID_ANY, own)
        .map_err(|error| io::Error::new(error.kind(), format!("vsock port {own}: {error}")))?;
    Ok(Door::Vsock {
        socket,
        port,
        trust,
    })
}

impl Door {
    /// `None` for somebody who was turned away.
    fn accept(&self) -> Result<Option<Accepted>, Errno> {
        match self {
            Self::Unix { socket, .. } => {
                let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
                let socket = accept_with(socket, flags)?;
                Ok(Some(Accepted { socket, port: None }))
            }
            Self::Vsock {
                socket,
                port,
                trust,
            } => {
                let (stream, peer) = socket
                    .accept()
                    .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
                let welcome = *trust == Trust::Anybody || peer.cid() == VMADDR_CID_HOST;
                if !welcome {
                    return Ok(None);
                }
                stream
                    .set_nonblocking(true)
                    .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
                Ok(Some(Accepted {
                    socket: OwnedFd::from(stream),
                    port: Some(*port),
                }))
            }
        }
    }
}

impl AsFd for Door {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Unix { socket, .. } => socket.as_fd(),
            Self::Vsock { socket, .. } => socket.as_fd(),
        }
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        if let Self::Unix {
            path: Some(path), ..
        } = self
        {
            fs::remove_file(path).ok();
        }
    }
}
