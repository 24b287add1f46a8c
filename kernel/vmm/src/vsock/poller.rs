//! The set of the clients' sockets.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};

use super::limits::STREAMS_MAX;
use super::socket::Socket;

/// What happened to one socket.
#[derive(Debug, Clone, Copy)]
pub(super) struct Readiness {
    pub(super) host_port: u32,
    /// There may be bytes, or their end.
    pub(super) readable: bool,
    pub(super) writable: bool,
    /// The client is gone: nobody reads there any more.
    pub(super) gone: bool,
}

/// An epoll set, edge-triggered: a socket that must wait for the guest's credit wakes nobody.
#[derive(Debug)]
pub(super) struct Poller {
    epoll: OwnedFd,
}

impl Poller {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            epoll: epoll::create(CreateFlags::CLOEXEC)?,
        })
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }

    pub(super) fn add(&self, socket: &Socket, host_port: u32) -> io::Result<()> {
        epoll::add(&self.epoll, socket, token(host_port), interest(false))?;
        Ok(())
    }

    /// Asks for an event when the socket takes bytes again, at once if it does already, or ends that.
    pub(super) fn watch_output(&self, socket: &Socket, host_port: u32, output: bool) {
        epoll::modify(&self.epoll, socket, token(host_port), interest(output))
            .expect("a socket in the set can be changed without new memory");
    }

    /// Takes the socket out, also when its owner in another process holds it open.
    pub(super) fn remove(&self, socket: &Socket) {
        epoll::delete(&self.epoll, socket).expect("the socket is in the set");
    }

    /// Adds what has happened since the last call, without waiting.
    pub(super) fn collect(&self, ready: &mut Vec<Readiness>) {
        const NO_WAIT: Timespec = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let mut space = [MaybeUninit::<Event>::uninit(); STREAMS_MAX];
        // A signal loses nothing: the events stay in the set, and the set stays ready.
        let Ok((events, _)) = epoll::wait(&self.epoll, &mut space[..], Some(&NO_WAIT)) else {
            return;
        };
        ready.extend(events.iter().filter_map(|event| {
            let (flags, data) = (event.flags, event.data);
            Some(Readiness {
                host_port: u32::try_from(data.u64()).ok()?,
                readable: flags.intersects(
                    EventFlags::IN | EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR,
                ),
                writable: flags.contains(EventFlags::OUT),
                gone: flags.intersects(EventFlags::HUP | EventFlags::ERR),
            })
        }));
    }
}

fn token(host_port: u32) -> EventData {
    EventData::new_u64(u64::from(host_port))
}

fn interest(output: bool) -> EventFlags {
    let mut flags = EventFlags::IN | EventFlags::RDHUP | EventFlags::ET;
    flags.set(EventFlags::OUT, output);
    flags
}
