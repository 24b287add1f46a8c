//! A guest that sends any packets and lies about its rings, and clients that do anything.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;

use rustix::net::sockopt::set_socket_send_buffer_size;
use virtio_queue::desc::split::Descriptor;
use virtio_queue::{Queue, QueueT as _};
use vm_memory::{Bytes as _, GuestAddress};

use super::header::Header;
use super::limits::{BUFFER_BYTES, PACKET_BYTES, SAVED_RESETS_MAX, STREAMS_MAX};
use super::spec::{HEADER_BYTES, HOST_CID, OP_REQUEST, OP_RW, TYPE_STREAM};
use super::stream::Greeting;
use super::{Vsock, VsockState};
use crate::fuzzing::{NEXT, Ring, Script, WRITE};
use crate::ram::Memory;

const CID: u32 = 3;
const MEMORY_BYTES: usize = 1 << 20;
const RECEIVE_BUFFERS: u64 = 0x1_0000;
const RECEIVE_BYTES: u64 = 0x1000;
const RECEIVE_SLOTS: u16 = 32;
const TRANSMIT_BUFFERS: u64 = 0x4_0000;
const TRANSMIT_BYTES: u64 = 0x1_1000;
const TRANSMIT_SLOTS: u16 = 8;
/// What all floods of one input may cost: as much a packet, and one a byte.
const FLOOD_COST: u64 = 1_500_000;
const PACKET_COST: u64 = 300;
const CLIENTS_MAX: usize = 48;
/// The longest line that a client gets from the device itself.
const ANSWER_BYTES: u64 = 20;

/// Lets a guest and clients act on a device, as the input says. A guest that keeps to the rules of the queues is never
/// broken; what is held has its bounds; the accounts of every stream are right; nobody gets what nobody sent.
pub fn vsock(input: &[u8]) {
    let mut script = Script::new(input);
    let mut bench = Bench::new();
    if script.byte() & 1 == 0 {
        let knock = Header {
            op: OP_REQUEST,
            ..packet()
        };
        bench.put(&knock, 0, 0);
    }
    while !script.is_over() {
        if bench.act(&mut script).is_none() {
            // The guest broke the rules: its machine has ended.
            break;
        }
        bench.check();
        for queue in [&bench.rx_queue, &bench.tx_queue] {
            let (taken, back) = (queue.next_avail(), queue.next_used());
            assert_eq!(taken, back, "what was taken came back");
        }
    }
    bench.clients.clear();
    bench.device.on_host();
    bench.check();
    let streams = bench.device.streams.streams.values();
    let held: usize = streams.map(|stream| stream.socket.pending_bytes()).sum();
    assert_eq!(held, 0, "nothing is kept for clients that are gone");
}

#[derive(Debug)]
struct Bench {
    memory: Memory,
    device: Vsock,
    rx: Ring,
    tx: Ring,
    rx_queue: Queue,
    tx_queue: Queue,
    /// Chains that the device has not given back.
    rx_waiting: u16,
    tx_waiting: u16,
    rx_slot: u16,
    tx_slot: u16,
    /// The guest has lied about a ring: it may be broken from here on, and its packets can be anything.
    has_lied: bool,
    clients: Vec<UnixStream>,
    opened: usize,
    flood_left: u64,
    saved: VsockState,
    guest_bytes: u64,
    answers: u64,
    delivered_bytes: u64,
}

impl Bench {
    fn new() -> Self {
        let memory = Memory::from_ranges(&[(GuestAddress(0), MEMORY_BYTES)]).expect("memory");
        let device = Vsock::new(CID).expect("descriptors");
        let (rx, tx) = (Ring::new(0x1000), Ring::new(0x2000));
        Self {
            memory,
            saved: device.save(),
            device,
            rx_queue: rx.queue(),
            tx_queue: tx.queue(),
            rx,
            tx,
            rx_waiting: 0,
            tx_waiting: 0,
            rx_slot: 0,
            tx_slot: 0,
            has_lied: false,
            clients: Vec::new(),
            opened: 0,
            flood_left: FLOOD_COST,
            guest_bytes: 0,
            answers: 0,
            delivered_bytes: 0,
        }
    }

    /// `None` when the machine has ended.
    fn act(&mut self, script: &mut Script<'_>) -> Option<()> {
        match script.byte() % 20 {
            0..=4 => return self.packet(script),
            5 => self.open(script.byte(), None),
            6 | 7 => self.write(script),
            8 => self.read(script.byte()),
            9 => self.leave(script),
            10 | 11 => self.offer_buffers(script),
            12 | 13 => return self.receive(),
            14 => {
                let wants = self.device.on_host();
                assert_eq!(wants, self.device.wants_to_send());
            }
            15 => {
                self.saved = self.device.save();
                let again = VsockState::decode(&self.saved.encode());
                assert_eq!(again.as_ref(), Ok(&self.saved));
            }
            16 => {
                self.device.rollback(&self.saved);
                goes_on(&self.saved, &self.device.save());
            }
            17 => self.restore(script),
            18 => self.device.reset(),
            _ => self.lie(script),
        }
        Some(())
    }

    /// A packet in whole descriptors; what it says is another matter.
    fn packet(&mut self, script: &mut Script<'_>) -> Option<()> {
        let (odd, times) = (script.byte(), script.byte());
        let (op, port) = (script.byte(), script.byte());
        let streams = &self.device.streams.streams;
        let stream = streams
            .values()
            .nth(usize::from(port) % streams.len().max(1));
        let stream = stream.filter(|_| port < 224);
        let none = (u32::from(port % 8), 1024, 0);
        let (guest_port, host_port, fwd_cnt) = stream.map_or(none, |stream| {
            let credit = &stream.credit;
            // All has been read, or nothing since the last packet.
            let is_read = op / 9 < 14;
            let read = if is_read {
                credit.sent
            } else {
                credit.peer_fwd_cnt
            };
            (stream.guest_port, stream.host_port, read)
        });
        let mut header = Header {
            src_port: guest_port,
            dst_port: host_port,
            op: u16::from(op % 9),
            flags: u32::from(op / 9) & 3,
            fwd_cnt,
            ..packet()
        };
        let payload_bytes = match odd & 3 {
            0 => 0,
            1 => u32::from(script.byte()),
            _ => u32::from(script.u16()),
        };
        header.len = payload_bytes;
        match odd >> 4 {
            8 => header.src_cid = script.u64(),
            9 => header.dst_cid = script.u64(),
            10 => header.kind = script.u16(),
            11 => header.len = script.u32(),
            6 | 7 => header.buf_alloc = u32::from(script.u16()),
            12 => header.buf_alloc = script.u32(),
            13 => header.fwd_cnt = script.u32(),
            14 => header.op = script.u16(),
            15 => header.dst_port = script.u32(),
            _ => {}
        }
        // More than once when the guest floods, which takes time.
        for _ in 0..u16::from(times).saturating_sub(0xe0) * 16 {
            let cost = PACKET_COST + u64::from(payload_bytes);
            let Some(left) = self.flood_left.checked_sub(cost) else {
                break;
            };
            self.flood_left = left;
            self.put(&header, payload_bytes, odd >> 2 & 3);
            if self.tx_waiting == TRANSMIT_SLOTS {
                self.transmit()?;
            }
        }
        self.put(&header, payload_bytes, odd >> 2 & 3);
        if self.tx_waiting == TRANSMIT_SLOTS || odd & 8 == 0 {
            return self.transmit();
        }
        Some(())
    }

    /// Makes a packet available, cut into one, two or three descriptors.
    fn put(&mut self, header: &Header, payload_bytes: u32, cut: u8) {
        let slot = self.tx_slot % TRANSMIT_SLOTS;
        self.tx_slot = self.tx_slot.wrapping_add(1);
        let at = TRANSMIT_BUFFERS + TRANSMIT_BYTES * u64::from(slot);
        let write = |bytes: &[u8], at: u64| {
            let written = self.memory.write_slice(bytes, GuestAddress(at));
            written.expect("the slots lie in memory");
        };
        write(&header.encode(), at);
        write(&vec![0x55; payload_bytes as usize], at + 44);
        let cuts = match cut {
            0 => [44 + payload_bytes, 0, 0],
            1 => [44, payload_bytes, 0],
            2 => [44 + payload_bytes / 3, payload_bytes - payload_bytes / 3, 0],
            _ => [44, payload_bytes / 2, payload_bytes - payload_bytes / 2],
        };
        let (mut at, head) = (at, 4 * slot);
        let parts = usize::from(cut.min(3)).min(2) + 1;
        for (place, bytes) in (head..).zip(&cuts[..parts]) {
            let is_last = usize::from(place - head) + 1 == parts;
            let flags = if is_last { 0 } else { NEXT };
            let descriptor = Descriptor::new(at, *bytes, flags, place + 1);
            self.tx.describe(&self.memory, place, descriptor);
            at += u64::from(*bytes);
        }
        self.tx.offer(&self.memory, head);
        self.tx_waiting += 1;
        if header.op == OP_RW {
            self.guest_bytes += u64::from(payload_bytes);
        }
    }

    fn transmit(&mut self) -> Option<()> {
        let outcome = self.device.transmit(&self.memory, &mut self.tx_queue);
        assert!(outcome.is_ok() || self.has_lied, "{outcome:?}");
        let used = outcome.ok()?;
        let mut count = 0_u16;
        while let Some((_, written)) = self.tx.take_used(&self.memory) {
            assert!(written == 0 || self.has_lied);
            count += 1;
            if self.has_lied && count > Ring::SIZE {
                return None;
            }
        }
        assert!(self.has_lied || used == (count > 0));
        assert!(self.has_lied || count == self.tx_waiting, "all come back");
        self.tx_waiting = self.tx_waiting.saturating_sub(count);
        Some(())
    }

    fn offer_buffers(&mut self, script: &mut Script<'_>) {
        let (count, odd) = (u16::from(script.byte()) % 8 + 1, script.byte());
        for _ in 0..count.min(RECEIVE_SLOTS - self.rx_waiting.min(RECEIVE_SLOTS)) {
            let slot = self.rx_slot % RECEIVE_SLOTS;
            self.rx_slot = self.rx_slot.wrapping_add(1);
            let at = RECEIVE_BUFFERS + RECEIVE_BYTES * u64::from(slot);
            let bytes = 45 + u32::from(odd >> 1) * 31;
            let head = 2 * slot;
            if odd & 1 == 0 {
                let only = Descriptor::new(at, bytes, WRITE, 0);
                self.rx.describe(&self.memory, head, only);
            } else {
                let first = Descriptor::new(at, 44, WRITE | NEXT, head + 1);
                self.rx.describe(&self.memory, head, first);
                let second = Descriptor::new(at + 44, bytes - 44, WRITE, 0);
                self.rx.describe(&self.memory, head + 1, second);
            }
            self.rx.offer(&self.memory, head);
            self.rx_waiting += 1;
        }
    }

    fn receive(&mut self) -> Option<()> {
        let outcome = self.device.receive(&self.memory, &mut self.rx_queue);
        assert!(outcome.is_ok() || self.has_lied, "{outcome:?}");
        outcome.ok()?;
        let mut count = 0_u16;
        while let Some((head, written)) = self.rx.take_used(&self.memory) {
            count += 1;
            if !self.has_lied {
                self.check_packet(head, written);
            } else if count > Ring::SIZE {
                return None;
            }
        }
        assert!(
            self.has_lied || count <= self.rx_waiting,
            "no more than there were"
        );
        self.rx_waiting = self.rx_waiting.saturating_sub(count);
        Some(())
    }

    /// What the guest has just got.
    fn check_packet(&self, head: u32, written: u32) {
        let at = RECEIVE_BUFFERS + RECEIVE_BYTES * u64::from(head / 2);
        let mut bytes = [0; HEADER_BYTES];
        let read = self.memory.read_slice(&mut bytes, GuestAddress(at));
        read.expect("the slots lie in memory");
        let header = Header::decode(&bytes);
        assert_eq!(
            u64::from(written),
            HEADER_BYTES as u64 + u64::from(header.len)
        );
        assert!(u64::from(written) <= RECEIVE_BYTES * 2);
        assert_eq!(header.dst_cid, u64::from(CID));
        assert!(header.op == OP_RW || header.len == 0);
        if header.op != OP_RW {
            return;
        }
        assert!(header.len > 0 && header.len as usize <= PACKET_BYTES);
        if let Some(stream) = self.device.streams.streams.get(&header.src_port) {
            let credit = &stream.credit;
            let under_way = credit.sent.wrapping_sub(credit.peer_fwd_cnt);
            assert!(
                under_way <= credit.peer_buf_alloc,
                "no more than the credit"
            );
        }
    }

    fn open(&mut self, how: u8, claims: Option<&mut Vec<(u32, UnixStream)>>) {
        if self.opened >= CLIENTS_MAX {
            return;
        }
        self.opened += 1;
        let (near, far) = UnixStream::pair().expect("descriptors");
        near.set_nonblocking(true).expect("a socket");
        // A client that does not read is soon full.
        set_socket_send_buffer_size(&far, 0).expect("a socket");
        self.clients.push(near);
        let port = match how & 3 {
            0 => 9,
            port => u32::from(port),
        };
        match claims {
            Some(claims) => claims.push((port, far)),
            None => {
                let answer = how & 4 != 0;
                self.answers += u64::from(answer);
                let early = vec![0xe0; usize::from(how >> 3) * 100];
                self.device.open(port, far, Greeting { early, answer });
            }
        }
    }

    fn write(&mut self, script: &mut Script<'_>) {
        let (which, bytes) = (script.pick(self.clients.len()), script.u16());
        if let Some(client) = self.clients.get_mut(which) {
            // A socket that is full, or has no other end any more, takes less.
            drop(client.write(&vec![0xc1; usize::from(bytes)]));
        }
    }

    fn read(&mut self, which: u8) {
        let which = usize::from(which) % self.clients.len().max(1);
        let Some(client) = self.clients.get_mut(which) else {
            return;
        };
        let mut buffer = [0; 16 << 10];
        while let Ok(count @ 1..) = client.read(&mut buffer) {
            self.delivered_bytes += count as u64;
        }
        let most = self.guest_bytes + ANSWER_BYTES * self.answers;
        assert!(self.has_lied || self.delivered_bytes <= most);
    }

    fn leave(&mut self, script: &mut Script<'_>) {
        let (which, way) = (script.pick(self.clients.len()), script.byte() % 3);
        if which >= self.clients.len() {
            return;
        }
        match way {
            0 => drop(self.clients.swap_remove(which)),
            // Of a socket without another end there is nothing to end.
            1 => drop(self.clients[which].shutdown(Shutdown::Write)),
            _ => drop(self.clients[which].shutdown(Shutdown::Read)),
        }
    }

    /// Another device goes on from what this one saves, with new clients for some of its streams.
    fn restore(&mut self, script: &mut Script<'_>) {
        let state = self.device.save();
        let mut claims = Vec::new();
        let (count, how) = (script.byte() % 4, script.byte());
        for number in 0..count {
            self.open(how.wrapping_add(number), Some(&mut claims));
        }
        let claimed = claims.len();
        self.device = Vsock::restore(&state, claims).expect("descriptors");
        assert!(self.device.streams.streams.len() <= claimed);
        goes_on(&state, &self.device.save());
    }

    /// Something in the rings that no driver writes.
    fn lie(&mut self, script: &mut Script<'_>) {
        self.has_lied = true;
        let what = script.byte();
        let ring = if what & 1 == 0 {
            &mut self.rx
        } else {
            &mut self.tx
        };
        match what >> 1 & 3 {
            0 => ring.set_index(&self.memory, script.u16()),
            1 => ring.offer(&self.memory, script.u16()),
            _ => {
                let (place, near) = (u16::from(script.byte()), script.u32());
                let at = match what >> 3 & 3 {
                    0 => RECEIVE_BUFFERS + u64::from(near % 0x8_0000),
                    1 => MEMORY_BYTES as u64 - u64::from(near % 100),
                    2 => u64::from(near % 0x4000),
                    _ => script.u64(),
                };
                let bytes = if what & 0x80 == 0 {
                    u32::from(script.byte())
                } else {
                    script.u32()
                };
                let (flags, next) = (u16::from(script.byte() & 7), u16::from(script.byte()));
                let descriptor = Descriptor::new(at, bytes, flags, next);
                ring.describe(&self.memory, place, descriptor);
                ring.offer(&self.memory, place % Ring::SIZE);
            }
        }
    }

    fn check(&self) {
        let streams = &self.device.streams;
        assert!(streams.streams.len() <= STREAMS_MAX);
        assert!(streams.last_words.len() <= SAVED_RESETS_MAX + STREAMS_MAX);
        for stream in streams.streams.values() {
            let credit = &stream.credit;
            let held = stream.socket.pending_bytes();
            let booked = credit.received.wrapping_sub(credit.forwarded);
            assert_eq!(booked as usize, held, "what waits is what was booked");
            assert!(held <= BUFFER_BYTES as usize, "a window bounds what waits");
            let told = credit.received.wrapping_sub(credit.told);
            assert!(told <= BUFFER_BYTES, "no more than the guest was allowed");
        }
    }
}

/// Every connection of a state goes on as it was, or is reset; nothing else is.
fn goes_on(before: &VsockState, after: &VsockState) {
    let head = |state: &VsockState| (state.guest_cid, state.awake);
    assert_eq!(head(after), head(before));
    for connection in &after.connections {
        assert!(before.connections.contains(connection), "as it was");
    }
    let known = |state: &VsockState| -> BTreeSet<(u32, u32)> {
        let connections = state.connections.iter();
        let ports = connections.map(|one| (one.guest_port, one.host_port));
        ports.chain(state.resets.iter().copied()).collect()
    };
    let (known_before, known_after) = (known(before), known(after));
    // The longest lists are cut.
    if known_before.len() < SAVED_RESETS_MAX {
        assert_eq!(known_after, known_before);
    }
}

/// A packet of a guest that keeps to the rules, without an operation.
fn packet() -> Header {
    Header {
        src_cid: u64::from(CID),
        dst_cid: HOST_CID,
        src_port: 700,
        dst_port: 1,
        kind: TYPE_STREAM,
        buf_alloc: BUFFER_BYTES,
        ..Header::default()
    }
}
