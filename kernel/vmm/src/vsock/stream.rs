//! One stream between a client's socket and a port of the guest.

use std::collections::VecDeque;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;

use rustix::io::Errno;
use vm_memory::VolatileSlice;
use vm_memory::bitmap::BitmapSlice;

use super::credit::Credit;
use super::header::Header;
use super::limits::{BUFFER_BYTES, PACKET_BYTES};
use super::socket::Socket;
use super::spec::{
    HOST_CID, OP_CREDIT_REQUEST, OP_CREDIT_UPDATE, OP_REQUEST, OP_RESPONSE, OP_RST, OP_RW,
    OP_SHUTDOWN, SHUTDOWN_RECEIVE, SHUTDOWN_SEND, TYPE_STREAM,
};
use super::state::Connection;

/// How a stream begins.
#[derive(Debug, Default)]
pub struct Greeting {
    /// What the client has sent already; the guest gets it first.
    pub early: Vec<u8>,
    /// Whether the client waits for `OK <host port>\n`, which it gets when the guest accepts.
    pub answer: bool,
}

/// How far a stream has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// The guest knows nothing of it.
    Waiting,
    /// The guest has been asked.
    Requested,
    /// The guest has accepted.
    Open,
    /// The guest is done with it; the client has yet to take the rest.
    Draining,
}

/// What there is to do with a stream after something happened to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Lives,
    /// It ends, and the guest gets a RST: it broke the rules, or it closed and all is delivered.
    Reset,
    /// Both directions have ended on the host's side: the guest gets its last SHUTDOWN.
    HungUp,
    /// It ends, and the guest need not hear of it.
    Gone,
}

/// A packet without data that the guest is to get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Due {
    Request,
    Shutdown(u32),
    CreditUpdate,
    CreditRequest,
}

/// What came of an attempt to read from the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// This many bytes are in the packet.
    Data(u32),
    Nothing,
    /// The client sends no more.
    Ended,
}

#[derive(Debug)]
pub(super) struct Stream {
    pub(super) guest_port: u32,
    pub(super) host_port: u32,
    pub(super) socket: Socket,
    pub(super) phase: Phase,
    /// Whether the poller waits until the socket takes bytes again.
    pub(super) watched: bool,
    pub(super) credit: Credit,
    /// The client's bytes that came before the stream.
    early: VecDeque<u8>,
    answer: bool,
    /// The socket may have bytes, or their end, for the guest.
    readable: bool,
    /// The client sends no more, and the guest has all of it.
    host_ended: bool,
    guest_ended: bool,
    guest_deaf: bool,
    /// The guest broke the rules.
    offended: bool,
    /// Which ends the guest has heard of, as SHUTDOWN flags.
    told_ends: u32,
    update_asked: bool,
    /// The guest was asked for credit and has given none yet.
    credit_asked: bool,
}

impl Stream {
    /// A stream that the guest has yet to hear of.
    pub(super) fn new(
        guest_port: u32,
        host_port: u32,
        socket: UnixStream,
        greeting: Greeting,
    ) -> Self {
        Self {
            guest_port,
            host_port,
            socket: Socket::new(socket),
            phase: Phase::Waiting,
            watched: false,
            credit: Credit::default(),
            early: greeting.early.into(),
            answer: greeting.answer,
            // Nobody knows yet; the first attempt to read will tell.
            readable: true,
            host_ended: false,
            guest_ended: false,
            guest_deaf: false,
            offended: false,
            told_ends: 0,
            update_asked: false,
            credit_asked: false,
        }
    }

    /// Goes on where a saved connection stood.
    pub(super) fn resume(&mut self, saved: &Connection) {
        // Of a time that has not been; the accounts below do not know of them.
        self.socket.drop_pending();
        self.phase = Phase::Open;
        self.credit = Credit {
            received: saved.fwd_cnt,
            forwarded: saved.fwd_cnt,
            told: saved.told_fwd_cnt,
            sent: saved.tx_cnt,
            peer_buf_alloc: saved.peer_buf_alloc,
            peer_fwd_cnt: saved.peer_fwd_cnt,
        };
        self.readable = true;
        self.update_asked = false;
        self.credit_asked = false;
    }

    /// The connection as it can be resumed; `None` when something is under way that would be lost.
    pub(super) fn settled(&self) -> Option<Connection> {
        let settled = self.is_whole() && self.is_flushed() && self.early.is_empty();
        settled.then_some(Connection {
            guest_port: self.guest_port,
            host_port: self.host_port,
            fwd_cnt: self.credit.forwarded,
            told_fwd_cnt: self.credit.told,
            tx_cnt: self.credit.sent,
            peer_buf_alloc: self.credit.peer_buf_alloc,
            peer_fwd_cnt: self.credit.peer_fwd_cnt,
        })
    }

    /// Open, and no direction has ended.
    pub(super) fn is_whole(&self) -> bool {
        let ended = self.host_ended || self.socket.is_deaf() || self.guest_ended || self.guest_deaf;
        self.phase == Phase::Open && !ended
    }

    /// Whether the guest has, or may have, a socket for it.
    pub(super) fn is_known_to_guest(&self) -> bool {
        matches!(self.phase, Phase::Requested | Phase::Open)
    }

    /// Nothing under way in either direction, as far as the last attempts to read tell.
    #[cfg(test)]
    pub(super) fn is_quiet(&self) -> bool {
        let open = self.phase == Phase::Open && self.due(true).is_none();
        open && self.is_flushed() && !self.has_bytes()
    }

    pub(super) fn fate(&self) -> Fate {
        let flushed = self.is_flushed();
        let outward_over = self.socket.is_deaf() || self.guest_ended && flushed;
        let inward_over = self.host_ended || self.guest_deaf;
        match self.phase {
            // A client that left before its answer has asked for nothing.
            Phase::Waiting if self.socket.is_deaf() && self.answer => Fate::Gone,
            Phase::Requested if self.offended || self.socket.is_deaf() && self.answer => {
                Fate::Reset
            }
            Phase::Open if self.offended => Fate::Reset,
            Phase::Open if outward_over && inward_over => {
                // A guest that has closed waits for the RST, and only then forgets the stream.
                if self.guest_ended && self.guest_deaf {
                    Fate::Reset
                } else {
                    Fate::HungUp
                }
            }
            Phase::Draining if flushed => Fate::Gone,
            _ => Fate::Lives,
        }
    }

    // From the guest.

    /// Takes one packet of the guest for this stream; without a payload its length was a lie.
    pub(super) fn handle(&mut self, header: &Header, payload: Option<&[u8]>) {
        self.credit.learn(header);
        if self.credit.room() > 0 {
            self.credit_asked = false;
        }
        match (self.phase, header.op) {
            (_, OP_RST) => {
                // What came before is still the client's.
                self.phase = Phase::Draining;
                self.flush();
            }
            (Phase::Requested, OP_RESPONSE) => self.accept(),
            (Phase::Open, OP_RW) => match payload {
                Some(bytes) if !self.guest_ended => self.take(bytes),
                _ => self.offended = true,
            },
            (Phase::Open, OP_SHUTDOWN) => self.guest_leaves(header.flags),
            (Phase::Open, OP_CREDIT_REQUEST) => self.update_asked = true,
            (Phase::Open, OP_CREDIT_UPDATE) => {}
            _ => self.offended = true,
        }
    }

    fn accept(&mut self) {
        self.phase = Phase::Open;
        if self.answer {
            self.answer = false;
            self.socket.answer(&format!("OK {}\n", self.host_port));
        }
    }

    fn take(&mut self, bytes: &[u8]) {
        if self.credit.receive(counted(bytes.len())) {
            self.credit.forward(self.socket.give(bytes));
        } else {
            self.offended = true;
        }
    }

    fn guest_leaves(&mut self, flags: u32) {
        if flags & SHUTDOWN_RECEIVE != 0 && !self.guest_deaf {
            self.guest_deaf = true;
            self.early = VecDeque::new();
            // The client's next write fails.
            self.socket.end(Shutdown::Read);
        }
        if flags & SHUTDOWN_SEND != 0 && !self.guest_ended {
            self.guest_ended = true;
            self.flush();
        }
    }

    // From the client.

    /// The socket has bytes or their end.
    pub(super) fn now_readable(&mut self) {
        self.readable = true;
    }

    /// Nobody reads at the other end of the socket. What was written there before still counts.
    pub(super) fn host_leaves(&mut self) {
        self.readable = true;
        self.credit.forward(self.socket.leave());
    }

    /// Gives the client what waits for it, as far as it takes it.
    pub(super) fn flush(&mut self) {
        self.credit.forward(self.socket.flush());
        if self.guest_ended && self.is_flushed() {
            self.socket.end(Shutdown::Write);
        }
    }

    fn is_flushed(&self) -> bool {
        self.socket.pending_bytes() == 0
    }

    // To the guest.

    /// Whether a packet without data waits; `awake` when somebody in the guest listens.
    pub(super) fn has_control(&self, awake: bool) -> bool {
        self.due(awake).is_some()
    }

    /// The next packet without data.
    pub(super) fn next_control(&mut self, awake: bool) -> Option<Header> {
        let due = self.due(awake)?;
        Some(match due {
            Due::Request => {
                self.phase = Phase::Requested;
                self.header(OP_REQUEST)
            }
            Due::Shutdown(ends) => {
                self.told_ends |= ends;
                Header {
                    flags: self.told_ends,
                    ..self.header(OP_SHUTDOWN)
                }
            }
            Due::CreditUpdate => {
                self.update_asked = false;
                self.header(OP_CREDIT_UPDATE)
            }
            Due::CreditRequest => {
                self.credit_asked = true;
                self.header(OP_CREDIT_REQUEST)
            }
        })
    }

    fn due(&self, awake: bool) -> Option<Due> {
        match self.phase {
            Phase::Waiting => awake.then_some(Due::Request),
            Phase::Requested | Phase::Draining => None,
            Phase::Open => {
                let mut ends = 0;
                if self.socket.is_deaf() && !self.guest_ended {
                    ends |= SHUTDOWN_RECEIVE;
                }
                if self.host_ended {
                    ends |= SHUTDOWN_SEND;
                }
                let news = ends & !self.told_ends;
                let drained = self.is_flushed();
                if news != 0 {
                    Some(Due::Shutdown(news))
                } else if self.update_asked || self.credit.update_is_due(drained) {
                    Some(Due::CreditUpdate)
                } else if self.has_bytes() && self.credit.room() == 0 && !self.credit_asked {
                    Some(Due::CreditRequest)
                } else {
                    None
                }
            }
        }
    }

    /// Whether an attempt to read makes sense.
    pub(super) fn can_send(&self) -> bool {
        self.phase == Phase::Open && self.has_bytes() && self.credit.room() > 0
    }

    /// Bytes, or their end, that the guest may want.
    fn has_bytes(&self) -> bool {
        let known = self.readable || !self.early.is_empty();
        known && !self.host_ended && !self.guest_deaf
    }

    /// Reads the client's bytes into the guest's memory, as many as fit and its credit allows.
    ///
    /// They pass through `scratch`: an attempt that finds nothing must not touch guest memory, or a page
    /// that did not change would count as changed.
    pub(super) fn read<B: BitmapSlice>(
        &mut self,
        space: &VolatileSlice<'_, B>,
        scratch: &mut [u8],
    ) -> Progress {
        let room = (self.credit.room() as usize).min(space.len());
        let count = if self.early.is_empty() {
            let room = room.min(scratch.len());
            match self.socket.read(&mut scratch[..room]) {
                Ok(0) => {
                    self.host_ended = true;
                    return Progress::Ended;
                }
                Ok(count) => {
                    space.copy_from(&scratch[..count]);
                    count
                }
                Err(Errno::AGAIN) => {
                    self.readable = false;
                    return Progress::Nothing;
                }
                Err(_) => {
                    self.host_leaves();
                    self.host_ended = true;
                    return Progress::Ended;
                }
            }
        } else {
            let (front, _) = self.early.as_slices();
            let count = front.len().min(room).min(PACKET_BYTES);
            space.copy_from(&front[..count]);
            self.early.drain(..count);
            count
        };
        self.credit.send(counted(count));
        Progress::Data(counted(count))
    }

    /// The header of a data packet.
    pub(super) fn data_header(&mut self, len: u32) -> Header {
        Header {
            len,
            ..self.header(OP_RW)
        }
    }

    /// The header of the packet that ends the stream.
    pub(super) fn last_header(&mut self, fate: Fate) -> Option<Header> {
        match fate {
            Fate::Lives | Fate::Gone => None,
            Fate::Reset => Some(self.header(OP_RST)),
            Fate::HungUp => Some(Header {
                flags: SHUTDOWN_RECEIVE | SHUTDOWN_SEND,
                ..self.header(OP_SHUTDOWN)
            }),
        }
    }

    /// Every packet carries our side of the accounts. The guest's address is the caller's to fill in.
    fn header(&mut self, op: u16) -> Header {
        Header {
            src_cid: HOST_CID,
            src_port: self.host_port,
            dst_port: self.guest_port,
            kind: TYPE_STREAM,
            op,
            buf_alloc: BUFFER_BYTES,
            fwd_cnt: self.credit.tell(),
            ..Header::default()
        }
    }
}

/// A count of bytes that one call moved; never near 2^32.
fn counted(bytes: usize) -> u32 {
    u32::try_from(bytes).expect("a stream holds less than 4 GiB")
}
