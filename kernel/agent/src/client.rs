//! One connection from the host: a stream of the channel, or a socket.

use std::os::fd::{AsFd, OwnedFd};

use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown, recv, send, shutdown};
use vmrepl_wire::connect::{self, HandshakeParser};
use vmrepl_wire::limits::{CONNECT_LINE_BYTES, MUX_WINDOW_BYTES};
use vmrepl_wire::line::LineDecoder;
use vmrepl_wire::mux::StreamId;
use vmrepl_wire::port;

use crate::channel::Channel;
use crate::limits;
use crate::outbox::Outbox;
use crate::poller::{Poller, Readiness, Token};

/// Numbers a connection; never given out twice. The runner knows it by the same number.
pub(crate) type Number = u32;

/// How the bytes travel.
#[derive(Debug)]
pub(crate) enum Peer {
    /// A stream of the channel. `owed_bytes` were received and not yet acknowledged.
    Stream { id: StreamId, owed_bytes: usize },
    /// A stream that the channel has forgotten. Its number may be another client's by now.
    Forgotten,
    /// A socket of its own.
    Socket {
        socket: OwnedFd,
        readiness: Readiness,
        token: Token,
    },
}

/// What the connection is for.
#[derive(Debug)]
pub(crate) enum Service {
    /// A socket that has not said its port.
    Greeting,
    Control,
    Cells,
    /// A port of workers, until one is free.
    Waiting,
    /// A port of workers over a stream of the channel: bytes pass to and from a worker's socket.
    Bridge {
        socket: OwnedFd,
        readiness: Readiness,
        token: Token,
        to_worker: Outbox,
    },
}

/// A connection.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) peer: Peer,
    pub(crate) service: Service,
    pub(crate) lines: LineDecoder,
    /// `lines` may hold a complete line.
    pub(crate) has_lines: bool,
    /// Bytes of an unfinished line.
    pub(crate) held_bytes: usize,
    pub(crate) out: Outbox,
    /// The client sends no more.
    pub(crate) ended: bool,
    /// The client is gone, both ways.
    pub(crate) gone: bool,
    /// To be closed as soon as all is sent.
    pub(crate) closing: bool,
    /// What a stream brought behind its opening, before it had a service.
    pub(crate) early: Vec<u8>,
}

/// Ports that are served, as services. Others are refused.
pub(crate) fn is_served(number: u32) -> bool {
    matches!(
        number,
        port::CONTROL | port::CELLS | port::FILES | port::EXEC | port::LANGUAGES
    )
}

/// Whether a peer that sends no more does not listen either. A vsock socket tells no hang-up, but it
/// refuses to send, even nothing.
pub(crate) fn hears_nothing(socket: impl AsFd) -> bool {
    matches!(
        send(socket, &[], SendFlags::NOSIGNAL | SendFlags::DONTWAIT),
        Err(Errno::PIPE | Errno::CONNRESET | Errno::NOTCONN)
    )
}

impl Client {
    pub(crate) fn new(peer: Peer, service: Service) -> Self {
        let lines = match service {
            Service::Control => LineDecoder::new(limits::CONTROL_LINE_BYTES),
            _ => LineDecoder::default(),
        };
        Self {
            peer,
            service,
            lines,
            has_lines: false,
            held_bytes: 0,
            out: Outbox::default(),
            ended: false,
            gone: false,
            closing: false,
            early: Vec::new(),
        }
    }

    /// Gives a greeted socket its service.
    pub(crate) fn serve(&mut self, service: Service) {
        // What was sent behind the opening has come already and must not be lost.
        if let Service::Control = service
            && self.lines.is_empty()
        {
            self.lines = LineDecoder::new(limits::CONTROL_LINE_BYTES);
        }
        self.service = service;
        if let Service::Waiting = self.service {
            return;
        }
        let early = std::mem::take(&mut self.early);
        if early.is_empty() {
            return;
        }
        match &mut self.service {
            Service::Bridge { to_worker, .. } => to_worker.push(&early),
            _ => self.push_lines(&early),
        }
    }

    pub(crate) fn note(&mut self, token: Token, flags: EventFlags) {
        if let Peer::Socket {
            readiness,
            token: own,
            ..
        } = &mut self.peer
            && *own == token
        {
            readiness.note(flags);
            let is_read = !matches!(self.service, Service::Waiting);
            self.gone |= readiness.hung_up && (self.ended || !is_read);
        } else if let Service::Bridge {
            readiness,
            token: own,
            ..
        } = &mut self.service
            && *own == token
        {
            readiness.note(flags);
        }
    }

    /// Reads the handshake: the port that is asked for, `None` while the line is incomplete.
    pub(crate) fn greet(&mut self) -> Option<u32> {
        let Peer::Socket {
            socket, readiness, ..
        } = &mut self.peer
        else {
            return None;
        };
        let mut line = [0; CONNECT_LINE_BYTES];
        // The bytes behind the line belong to the service, so they are left where they are.
        let (_, count) = match recv(&*socket, line.as_mut_slice(), RecvFlags::PEEK) {
            Ok(received) => received,
            Err(Errno::AGAIN | Errno::INTR) => {
                readiness.readable = false;
                return None;
            }
            Err(_) => (0, 0),
        };
        let parsed = HandshakeParser::request().push(&line[..count]);
        match parsed {
            Ok(Some(handshake)) => {
                let own_line = &mut line[..handshake.used_bytes];
                recv(&*socket, own_line, RecvFlags::empty()).ok();
                Some(handshake.number)
            }
            Ok(None) if count > 0 && !readiness.ending => {
                readiness.readable = false;
                None
            }
            // A line of something else; or a client that was only looking, which is no error.
            Ok(None) | Err(_) => {
                self.gone = true;
                None
            }
        }
    }

    /// Says that the port is taken, ahead of everything else.
    pub(crate) fn welcome(&mut self, number: Number) {
        self.out.push(connect::accepted(number).as_bytes());
    }

    /// Reads a socket into `lines`, a turn at most.
    pub(crate) fn read_socket(&mut self, scratch: &mut [u8]) {
        let mut taken = 0;
        while !self.ended && taken < limits::TURN_BYTES {
            let Peer::Socket {
                socket, readiness, ..
            } = &mut self.peer
            else {
                return;
            };
            if !readiness.readable {
                return;
            }
            match rustix::io::read(&*socket, &mut *scratch) {
                Ok(0) => self.end(),
                Ok(count) => {
                    readiness.read(count, scratch.len());
                    taken += count;
                    self.push_lines(&scratch[..count]);
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => readiness.readable = false,
                Err(_) => {
                    self.end();
                    self.gone = true;
                }
            }
        }
    }

    /// Takes bytes of a service that speaks in lines.
    pub(crate) fn push_lines(&mut self, bytes: &[u8]) {
        self.held_bytes += bytes.len();
        self.lines.push(bytes);
        self.has_lines = true;
    }

    /// The client sends no more.
    pub(crate) fn end(&mut self) {
        self.ended = true;
        self.has_lines = true;
        if let Peer::Socket {
            readiness, socket, ..
        } = &mut self.peer
        {
            readiness.readable = false;
            self.gone |= readiness.hung_up || hears_nothing(&*socket);
        }
    }

    /// The channel has forgotten the stream, and so must be forgotten all that came on it.
    pub(crate) fn forgotten(&mut self) {
        self.peer = Peer::Forgotten;
        self.gone = true;
        self.lines = LineDecoder::default();
        self.has_lines = false;
        self.out.clear();
    }

    /// Whether a socket may hold more for us.
    pub(crate) fn is_readable(&self) -> bool {
        match &self.peer {
            Peer::Socket { readiness, .. } => readiness.readable && !self.ended,
            Peer::Stream { .. } | Peer::Forgotten => false,
        }
    }

    /// Whether its bytes come from a worker, over the channel.
    pub(crate) fn is_bridged(&self) -> bool {
        matches!(self.service, Service::Bridge { .. })
    }

    /// Whether there is more to do for it now, although no new event will tell.
    pub(crate) fn wants_turn(&self) -> bool {
        match &self.service {
            Service::Bridge { readiness, .. } => {
                readiness.readable && !self.closing && self.out.len() < MUX_WINDOW_BYTES
            }
            Service::Control => self.has_lines && self.out.len() <= limits::OUTBOX_SOFT_BYTES,
            Service::Greeting | Service::Waiting | Service::Cells => false,
        }
    }

    /// Moves what is to be sent towards the client, as far as it goes.
    pub(crate) fn flush(
        &mut self,
        channel: Option<&mut Channel>,
        poller: &Poller,
    ) -> Result<(), Errno> {
        match &mut self.peer {
            Peer::Forgotten => Ok(()),
            Peer::Stream { id, .. } => {
                if let Some(channel) = channel {
                    channel.send(*id, &mut self.out);
                }
                Ok(())
            }
            Peer::Socket {
                socket,
                readiness,
                token,
            } => {
                if readiness.hung_up {
                    self.out.clear();
                } else if readiness.writable && !self.out.is_empty() {
                    match self.out.write_to(&*socket) {
                        Ok(all) => readiness.writable = all,
                        Err(_) => {
                            self.out.clear();
                            self.gone = true;
                        }
                    }
                }
                poller.watch_writable(&*socket, *token, readiness)
            }
        }
    }

    /// Acknowledges what a stream has received, so that its client may send on.
    pub(crate) fn acknowledge(&mut self, channel: Option<&mut Channel>) {
        if let Peer::Stream { id, owed_bytes } = &mut self.peer
            && let Some(channel) = channel
        {
            channel.consumed(*id, std::mem::take(owed_bytes));
        }
    }

    /// Moves bytes between a stream and the worker behind it.
    pub(crate) fn pump_bridge(
        &mut self,
        scratch: &mut [u8],
        channel: Option<&mut Channel>,
        poller: &Poller,
    ) -> Result<(), Errno> {
        let Service::Bridge {
            socket,
            readiness,
            token,
            to_worker,
        } = &mut self.service
        else {
            return Ok(());
        };
        if readiness.writable {
            match to_worker.write_to(&*socket) {
                Ok(all) => readiness.writable = all,
                // The worker has heard enough; what it says is still passed on.
                Err(_) => to_worker.clear(),
            }
        }
        let all_written = to_worker.is_empty();
        while readiness.readable && !self.closing && self.out.len() < MUX_WINDOW_BYTES {
            match rustix::io::read(&*socket, &mut *scratch) {
                Ok(0) => self.closing = true,
                Ok(count) => self.out.push(&scratch[..count]),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => readiness.readable = false,
                Err(_) => self.closing = true,
            }
        }
        poller.watch_writable(&*socket, *token, readiness)?;
        if all_written && self.ended {
            // Once more does no harm.
            shutdown(&*socket, Shutdown::Write).ok();
        }
        if all_written {
            self.acknowledge(channel);
        }
        Ok(())
    }
}
