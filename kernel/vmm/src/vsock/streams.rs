//! All streams of the machine: which one a packet is for, and whose turn it is.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::ops::Bound::{Excluded, Unbounded};
use std::os::unix::net::UnixStream;

use super::chain::{Broken, Packet};
use super::header::Header;
use super::limits::{HOST_PORT_MIN, REFUSALS_MAX, STREAMS_MAX, URGENT_GUEST_PORT};
use super::poller::{Poller, Readiness};
use super::spec::{ANY, HEADER_BYTES, HOST_CID, OP_CREDIT_UPDATE, OP_REQUEST, OP_RST, TYPE_STREAM};
use super::stream::{Fate, Greeting, Progress, Stream};

#[derive(Debug)]
pub(super) struct Streams {
    pub(super) guest_cid: u32,
    /// The guest has knocked: somebody listens there.
    pub(super) awake: bool,
    pub(super) next_host_port: u32,
    pub(super) poller: Poller,
    /// By the host's port, which no two share.
    pub(super) streams: BTreeMap<u32, Stream>,
    /// Last packets of streams that are gone, and refusals of those that never were.
    pub(super) last_words: VecDeque<Header>,
    /// The host port that was served last.
    turn: u32,
    /// What happened to the sockets; empty between calls.
    ready: Vec<Readiness>,
}

impl Streams {
    pub(super) fn new(guest_cid: u32) -> io::Result<Self> {
        Ok(Self {
            guest_cid,
            awake: false,
            next_host_port: HOST_PORT_MIN,
            poller: Poller::new()?,
            streams: BTreeMap::new(),
            last_words: VecDeque::new(),
            turn: 0,
            ready: Vec::with_capacity(STREAMS_MAX),
        })
    }

    /// Adds a stream that the guest has yet to hear of; without a place for it, its socket closes.
    pub(super) fn open(&mut self, guest_port: u32, socket: UnixStream, greeting: Greeting) {
        let host_port = self.free_host_port();
        self.insert(Stream::new(guest_port, host_port, socket, greeting));
    }

    /// Adds a stream; without a place for it, its socket closes. Whether it was added.
    pub(super) fn insert(&mut self, stream: Stream) -> bool {
        let possible = self.streams.len() < STREAMS_MAX
            && self.poller.add(&stream.socket, stream.host_port).is_ok();
        if possible {
            self.streams.insert(stream.host_port, stream);
        }
        possible
    }

    fn free_host_port(&mut self) -> u32 {
        loop {
            let port = self.next_host_port;
            self.next_host_port = match port.wrapping_add(1) {
                0..HOST_PORT_MIN | ANY => HOST_PORT_MIN,
                next => next,
            };
            if !self.streams.contains_key(&port) {
                return port;
            }
        }
    }

    // From the guest.

    /// Takes one packet of the guest; without a payload its length was a lie.
    pub(super) fn handle(&mut self, header: &Header, payload: Option<&[u8]>) {
        if header.src_cid != u64::from(self.guest_cid) {
            // Nobody could get an answer.
            return;
        }
        if header.dst_cid != HOST_CID || header.kind != TYPE_STREAM {
            self.refuse(header);
            return;
        }
        if header.op == OP_REQUEST {
            // The guest has nothing to open here, but it is up.
            self.awake = true;
        }
        let host_port = header.dst_port;
        let stream = self
            .streams
            .get_mut(&host_port)
            .filter(|stream| stream.guest_port == header.src_port && stream.is_known_to_guest());
        match stream {
            Some(stream) => {
                stream.handle(header, payload);
                self.settle(host_port);
            }
            None => self.refuse(header),
        }
    }

    /// Answers a packet for a stream that is not there with a RST.
    fn refuse(&mut self, header: &Header) {
        // A reader that catches up after the end of its stream has done nothing wrong, and a RST is
        // never answered, or two ends would never stop.
        let silent = matches!(header.op, OP_RST | OP_CREDIT_UPDATE);
        if silent || self.last_words.len() >= REFUSALS_MAX {
            return;
        }
        self.last_words.push_back(Header {
            src_cid: header.dst_cid,
            src_port: header.dst_port,
            dst_cid: header.src_cid,
            dst_port: header.src_port,
            kind: header.kind,
            op: OP_RST,
            ..Header::default()
        });
    }

    /// Ends a connection of which the guest may still have its half.
    pub(super) fn reset(&mut self, guest_port: u32, host_port: u32) {
        self.last_words.push_back(Header {
            src_cid: HOST_CID,
            src_port: host_port,
            dst_cid: u64::from(self.guest_cid),
            dst_port: guest_port,
            kind: TYPE_STREAM,
            op: OP_RST,
            ..Header::default()
        });
    }

    /// Drops all that the guest knew of.
    pub(super) fn forget_guest(&mut self) {
        self.awake = false;
        self.last_words.clear();
        let known = self.streams.values().filter(|s| s.is_known_to_guest());
        let known: Vec<u32> = known.map(|stream| stream.host_port).collect();
        for host_port in known {
            self.remove(host_port);
        }
    }

    /// Drops everything.
    pub(super) fn close_all(&mut self) {
        self.awake = false;
        self.last_words.clear();
        let all: Vec<u32> = self.streams.keys().copied().collect();
        for host_port in all {
            self.remove(host_port);
        }
    }

    // From the clients.

    /// Takes in what has happened to the sockets.
    pub(super) fn on_host(&mut self) {
        let mut ready = std::mem::take(&mut self.ready);
        self.poller.collect(&mut ready);
        for readiness in ready.drain(..) {
            // An event may outlive its stream.
            let Some(stream) = self.streams.get_mut(&readiness.host_port) else {
                continue;
            };
            if readiness.gone {
                stream.host_leaves();
            }
            if readiness.readable {
                stream.now_readable();
            }
            if readiness.writable {
                stream.flush();
            }
            self.settle(readiness.host_port);
        }
        self.ready = ready;
    }

    /// Brings a stream to its end when it has come to it, and the poller up to date when not.
    pub(super) fn settle(&mut self, host_port: u32) {
        let Some(stream) = self.streams.get_mut(&host_port) else {
            return;
        };
        let fate = stream.fate();
        if fate == Fate::Lives {
            let watch = stream.socket.pending_bytes() > 0;
            if watch != stream.watched {
                stream.watched = watch;
                self.poller.watch_output(&stream.socket, host_port, watch);
            }
            return;
        }
        let last = stream.last_header(fate);
        self.remove(host_port);
        self.last_words
            .extend(last.map(|header| self.addressed(header)));
    }

    /// Closes a stream towards its client.
    pub(super) fn remove(&mut self, host_port: u32) {
        if let Some(stream) = self.streams.remove(&host_port) {
            self.poller.remove(&stream.socket);
        }
    }

    // To the guest.

    pub(super) fn wants_to_send(&self) -> bool {
        let wants = |stream: &Stream| stream.has_control(self.awake) || stream.can_send();
        !self.last_words.is_empty() || self.streams.values().any(wants)
    }

    /// Writes the next packet; returns its length, or `None` when there is nothing to say after all.
    pub(super) fn fill(
        &mut self,
        packet: &mut Packet<'_>,
        scratch: &mut [u8],
    ) -> Result<Option<u32>, Broken> {
        loop {
            if let Some(header) = self.next_control() {
                return write_header(packet, header).map(Some);
            }
            let Some(host_port) = self.next_sender() else {
                return Ok(None);
            };
            let space = *packet.data_slice().ok_or(Broken::NoRoom)?;
            self.turn = host_port;
            let Some(stream) = self.streams.get_mut(&host_port) else {
                return Ok(None);
            };
            if let Progress::Data(len) = stream.read(&space, scratch) {
                let header = stream.data_header(len);
                return write_header(packet, self.addressed(header)).map(Some);
            }
            self.settle(host_port);
        }
    }

    /// Packets without data come before all data.
    fn next_control(&mut self) -> Option<Header> {
        if let Some(header) = self.last_words.pop_front() {
            return Some(header);
        }
        let awake = self.awake;
        let mut streams = self.streams.values_mut();
        let header = streams.find_map(|stream| stream.next_control(awake))?;
        Some(self.addressed(header))
    }

    /// The stream that may read: urgent ones first, each kind in turn.
    fn next_sender(&self) -> Option<u32> {
        let urgent = |stream: &&Stream| stream.guest_port == URGENT_GUEST_PORT;
        let ready = |stream: &&Stream| stream.can_send();
        let first = self.in_turn().filter(urgent).find(ready);
        let stream = first.or_else(|| self.in_turn().find(ready))?;
        Some(stream.host_port)
    }

    fn in_turn(&self) -> impl Iterator<Item = &Stream> {
        let later = self.streams.range((Excluded(self.turn), Unbounded));
        let earlier = self.streams.range(..=self.turn);
        later.chain(earlier).map(|(_, stream)| stream)
    }

    fn addressed(&self, header: Header) -> Header {
        Header {
            dst_cid: u64::from(self.guest_cid),
            ..header
        }
    }
}

fn write_header(packet: &mut Packet<'_>, header: Header) -> Result<u32, Broken> {
    packet
        .set_header_from_raw(&header.encode())
        .map_err(|source| Broken::Buffer { source })?;
    let header_bytes = u32::try_from(HEADER_BYTES).expect("44");
    Ok(header_bytes + header.len)
}
