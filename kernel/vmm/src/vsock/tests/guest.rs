//! A guest that speaks the protocol as Linux does, on rings of its own.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use virtio_queue::desc::split::Descriptor;
use vm_memory::{Bytes, GuestAddress};

use super::client::Client;
use super::ring::{NEXT, Ring, WRITE};
use crate::ram::Memory;
use crate::vsock::header::Header;
use crate::vsock::spec::*;
use crate::vsock::{Broken, Greeting, Vsock};

pub(super) const CID: u32 = 52;
pub(super) const MEMORY_BYTES: usize = 8 << 20;
const RECEIVE: u32 = 0;
const TRANSMIT: u32 = 0x1_0000;
const RECEIVE_BUFFERS: u64 = 0x10_0000;
const TRANSMIT_BUFFERS: u64 = 0x20_0000;
const RECEIVE_BYTES: u32 = 4096;
const TRANSMIT_BYTES: u64 = 0x1_1000;
const SLOTS: u16 = 32;

/// The guest's half of a connection.
#[derive(Debug, Clone, Default)]
pub(super) struct End {
    pub(super) received: Vec<u8>,
    pub(super) outgoing: VecDeque<u8>,
    /// Whether its program reads.
    pub(super) reads: bool,
    pub(super) buf_alloc: u32,
    pub(super) got: u32,
    pub(super) fwd_cnt: u32,
    pub(super) told: u32,
    pub(super) tx_cnt: u32,
    pub(super) peer_buf_alloc: u32,
    pub(super) peer_fwd_cnt: u32,
    /// The host's SHUTDOWN flags.
    pub(super) peer_ends: u32,
    /// Its own, to be sent once everything has gone.
    pub(super) ends: u32,
    pub(super) told_ends: u32,
    pub(super) reset: bool,
    pub(super) gone: bool,
}

/// Guest and host port.
pub(super) type Ports = (u32, u32);

#[derive(Debug)]
pub(super) struct Guest {
    pub(super) memory: Memory,
    pub(super) device: Vsock,
    pub(super) rx: Ring,
    pub(super) tx: Ring,
    pub(super) listening: BTreeSet<u32>,
    pub(super) ends: BTreeMap<Ports, End>,
    /// Every packet of the host, in order.
    pub(super) seen: Vec<Header>,
    pub(super) replies: VecDeque<Header>,
    /// The guest handles nothing that it receives.
    pub(super) silent: bool,
    pub(super) buf_alloc: u32,
    /// Header and data in two descriptors, as Linux did until 6.2.
    split: bool,
    free_rx: Vec<u16>,
    free_tx: Vec<u16>,
}

impl Guest {
    /// A guest that has knocked and listens on these ports.
    pub(super) fn up(ports: &[u32]) -> Self {
        Self::up_with(ports, false)
    }

    /// The same, with the layout of its packets.
    pub(super) fn up_with(ports: &[u32], split: bool) -> Self {
        let mut guest = Self::booting(ports);
        guest.split = split;
        guest.knock();
        guest.run(&mut []);
        guest.seen.clear();
        guest
    }

    pub(super) fn booting(ports: &[u32]) -> Self {
        Self::with_device(Vsock::new(CID).unwrap(), ports)
    }

    pub(super) fn with_device(device: Vsock, ports: &[u32]) -> Self {
        let memory = Memory::from_ranges(&[(GuestAddress(0), MEMORY_BYTES)]).unwrap();
        Self {
            memory,
            device,
            rx: Ring::new(RECEIVE),
            tx: Ring::new(TRANSMIT),
            listening: ports.iter().copied().collect(),
            ends: BTreeMap::new(),
            seen: Vec::new(),
            replies: VecDeque::new(),
            silent: false,
            buf_alloc: 256 << 10,
            split: false,
            free_rx: (0..SLOTS).collect(),
            free_tx: (0..SLOTS).collect(),
        }
    }

    pub(super) fn knock(&mut self) {
        self.replies.push_back(Header {
            op: OP_REQUEST,
            buf_alloc: self.buf_alloc,
            ..packet((700, 1))
        });
    }

    /// Opens a stream from a new client.
    pub(super) fn connect(&mut self, port: u32) -> Client {
        self.connect_with(port, Greeting::default())
    }

    pub(super) fn connect_with(&mut self, port: u32, greeting: Greeting) -> Client {
        let (client, socket) = Client::pair();
        self.device.open(port, socket, greeting);
        client
    }

    /// The only connection to a port.
    pub(super) fn end(&mut self, port: u32) -> &mut End {
        let mut ends = self.ends.iter_mut().filter(|(ports, _)| ports.0 == port);
        let (_, end) = ends.next().expect("a connection to the port");
        assert!(ends.next().is_none(), "one connection to the port");
        end
    }

    /// Moves everything that can move.
    pub(super) fn run(&mut self, clients: &mut [&mut Client]) {
        while self.step(clients).unwrap() {}
    }

    /// One round of everyone. Whether anything moved.
    pub(super) fn step(&mut self, clients: &mut [&mut Client]) -> Result<bool, Broken> {
        let mut moved = false;
        for client in clients {
            moved |= client.pump();
        }
        self.device.on_host();
        self.offer_buffers();
        moved |= self.device.receive(&self.memory, &mut self.rx.queue)?;
        moved |= self.take_packets();
        moved |= self.send_packets();
        moved |= self.device.transmit(&self.memory, &mut self.tx.queue)?;
        while let Some((head, written)) = self.tx.take_used(&self.memory) {
            assert_eq!(written, 0, "nothing is written into a transmit chain");
            self.free_tx.push(head / 2);
        }
        Ok(moved)
    }

    fn offer_buffers(&mut self) {
        while let Some(slot) = self.free_rx.pop() {
            let at = RECEIVE_BUFFERS + 0x2000 * u64::from(slot);
            let header_bytes = u32::try_from(HEADER_BYTES).unwrap();
            let head = 2 * slot;
            if self.split {
                let first = Descriptor::new(at, header_bytes, WRITE | NEXT, head + 1);
                self.rx.describe(&self.memory, head, first);
                let second = Descriptor::new(at + 0x1000, RECEIVE_BYTES, WRITE, 0);
                self.rx.describe(&self.memory, head + 1, second);
            } else {
                let only = Descriptor::new(at, header_bytes + RECEIVE_BYTES, WRITE, 0);
                self.rx.describe(&self.memory, head, only);
            }
            self.rx.offer(&self.memory, head);
        }
    }

    fn take_packets(&mut self) -> bool {
        let mut moved = false;
        if self.silent {
            return false;
        }
        while let Some((head, written)) = self.rx.take_used(&self.memory) {
            moved = true;
            let slot = head / 2;
            let at = RECEIVE_BUFFERS + 0x2000 * u64::from(slot);
            let mut bytes = [0; HEADER_BYTES];
            self.memory
                .read_slice(&mut bytes, GuestAddress(at))
                .unwrap();
            let header = Header::decode(&bytes);
            let expected = u32::try_from(HEADER_BYTES).unwrap() + header.len;
            assert_eq!(written, expected, "the used length is the packet's");
            let data = if self.split { at + 0x1000 } else { at + 44 };
            let mut payload = vec![0; header.len as usize];
            self.memory
                .read_slice(&mut payload, GuestAddress(data))
                .unwrap();
            self.free_rx.push(slot);
            self.seen.push(header);
            self.take(&header, &payload);
        }
        moved
    }

    fn take(&mut self, header: &Header, payload: &[u8]) {
        assert_eq!(header.dst_cid, u64::from(CID));
        let ports = (header.dst_port, header.src_port);
        if header.op == OP_REQUEST {
            let listening = self.listening.contains(&ports.0);
            let fresh = !self.ends.contains_key(&ports);
            assert!(fresh, "a port of the host is not used twice");
            if listening {
                self.ends.insert(ports, End::new(self.buf_alloc, header));
                let reply = self
                    .ends
                    .get_mut(&ports)
                    .unwrap()
                    .header(ports, OP_RESPONSE);
                self.replies.push_back(reply);
            } else {
                self.replies.push_back(rst(ports));
            }
            return;
        }
        let Some(end) = self.ends.get_mut(&ports).filter(|end| !end.gone) else {
            if header.op != OP_RST {
                self.replies.push_back(rst(ports));
            }
            return;
        };
        end.peer_buf_alloc = header.buf_alloc;
        end.peer_fwd_cnt = header.fwd_cnt;
        match header.op {
            OP_RW => {
                end.take(payload);
                if end.reads {
                    end.read_all();
                }
                if end.buf_alloc - end.got.wrapping_sub(end.told) < 64 << 10
                    && end.told != end.fwd_cnt
                {
                    let update = end.header(ports, OP_CREDIT_UPDATE);
                    self.replies.push_back(update);
                }
            }
            OP_SHUTDOWN => {
                end.peer_ends |= header.flags;
                if end.peer_ends == SHUTDOWN_BOTH {
                    end.gone = true;
                    self.replies.push_back(rst(ports));
                }
            }
            OP_RST => {
                end.reset = true;
                end.gone = true;
            }
            OP_CREDIT_UPDATE => {}
            OP_CREDIT_REQUEST => {
                let update = end.header(ports, OP_CREDIT_UPDATE);
                self.replies.push_back(update);
            }
            op => panic!("the host sent operation {op}"),
        }
    }

    /// The guest's program reads all that is there, and goes on reading or not.
    pub(super) fn read(&mut self, port: u32, goes_on: bool) {
        let end = self.end(port);
        end.reads = goes_on;
        end.read_all();
        let ports = *self.ends.keys().find(|ports| ports.0 == port).unwrap();
        let update = self.end(port).header(ports, OP_CREDIT_UPDATE);
        self.replies.push_back(update);
    }

    fn send_packets(&mut self) -> bool {
        let mut moved = false;
        while let Some(header) = self.free_tx.last().and_then(|_| self.replies.pop_front()) {
            moved |= self.put(&header, &[]);
        }
        let mut ports: Vec<Ports> = self.ends.keys().copied().collect();
        ports.retain(|ports| !self.ends[ports].gone);
        for ports in ports {
            while !self.free_tx.is_empty() {
                let Some(end) = self.ends.get_mut(&ports) else {
                    break;
                };
                let Some((header, payload)) = end.next_packet(ports) else {
                    break;
                };
                moved |= self.put(&header, &payload);
            }
        }
        moved
    }

    /// Puts a packet into the transmit queue, whatever it says. False without a free slot.
    pub(super) fn put(&mut self, header: &Header, payload: &[u8]) -> bool {
        let Some(slot) = self.free_tx.pop() else {
            return false;
        };
        let at = TRANSMIT_BUFFERS + TRANSMIT_BYTES * u64::from(slot);
        let header_bytes = u32::try_from(HEADER_BYTES).unwrap();
        let payload_bytes = u32::try_from(payload.len()).unwrap();
        self.memory
            .write_slice(&header.encode(), GuestAddress(at))
            .unwrap();
        let head = 2 * slot;
        if self.split && !payload.is_empty() {
            self.memory
                .write_slice(payload, GuestAddress(at + 0x100))
                .unwrap();
            let first = Descriptor::new(at, header_bytes, NEXT, head + 1);
            self.tx.describe(&self.memory, head, first);
            let second = Descriptor::new(at + 0x100, payload_bytes, 0, 0);
            self.tx.describe(&self.memory, head + 1, second);
        } else {
            self.memory
                .write_slice(payload, GuestAddress(at + 44))
                .unwrap();
            let only = Descriptor::new(at, header_bytes + payload_bytes, 0, 0);
            self.tx.describe(&self.memory, head, only);
        }
        self.tx.offer(&self.memory, head);
        true
    }

    pub(super) fn count_seen(&self, op: u16) -> usize {
        self.seen.iter().filter(|header| header.op == op).count()
    }

    pub(super) fn count_seen_by(&self, port: u32, op: u16) -> usize {
        let by_port = self.seen.iter().filter(|header| header.dst_port == port);
        by_port.filter(|header| header.op == op).count()
    }
}

impl End {
    fn new(buf_alloc: u32, request: &Header) -> Self {
        Self {
            reads: true,
            buf_alloc,
            peer_buf_alloc: request.buf_alloc,
            peer_fwd_cnt: request.fwd_cnt,
            ..Self::default()
        }
    }

    pub(super) fn header(&mut self, ports: Ports, op: u16) -> Header {
        self.told = self.fwd_cnt;
        Header {
            op,
            buf_alloc: self.buf_alloc,
            fwd_cnt: self.fwd_cnt,
            ..packet(ports)
        }
    }

    fn take(&mut self, payload: &[u8]) {
        let bytes = u32::try_from(payload.len()).unwrap();
        assert_eq!(self.peer_ends & SHUTDOWN_SEND, 0, "no data after its end");
        self.got = self.got.wrapping_add(bytes);
        let waiting = self.got.wrapping_sub(self.told);
        assert!(waiting <= self.buf_alloc, "the host kept to its credit");
        self.received.extend_from_slice(payload);
    }

    fn read_all(&mut self) {
        self.fwd_cnt = self.got;
    }

    fn next_packet(&mut self, ports: Ports) -> Option<(Header, Vec<u8>)> {
        let under_way = self.tx_cnt.wrapping_sub(self.peer_fwd_cnt);
        let room = self.peer_buf_alloc.checked_sub(under_way)?;
        if self.peer_ends & SHUTDOWN_RECEIVE != 0 {
            self.outgoing.clear();
        }
        if self.outgoing.is_empty() {
            let news = self.ends & !self.told_ends;
            if news == 0 {
                return None;
            }
            self.told_ends = self.ends;
            let header = Header {
                flags: self.ends,
                ..self.header(ports, OP_SHUTDOWN)
            };
            return Some((header, Vec::new()));
        }
        let count = (room as usize).min(self.outgoing.len()).min(64 << 10);
        if count == 0 {
            return None;
        }
        let payload: Vec<u8> = self.outgoing.drain(..count).collect();
        let len = u32::try_from(count).unwrap();
        self.tx_cnt = self.tx_cnt.wrapping_add(len);
        let header = Header {
            len,
            ..self.header(ports, OP_RW)
        };
        Some((header, payload))
    }
}

/// A packet of the guest without an operation.
pub(super) fn packet(ports: Ports) -> Header {
    Header {
        src_cid: CID.into(),
        dst_cid: HOST_CID,
        src_port: ports.0,
        dst_port: ports.1,
        kind: TYPE_STREAM,
        ..Header::default()
    }
}

fn rst(ports: Ports) -> Header {
    Header {
        op: OP_RST,
        ..packet(ports)
    }
}

/// Bytes that show a lost, doubled or moved part.
pub(super) fn pattern(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..length)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[3]
        })
        .collect()
}
