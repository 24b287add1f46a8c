//! Much data, little room: credit, fairness and priorities.

use super::client::Client;
use super::guest::{Guest, pattern};
use crate::vsock::spec::*;
use crate::vsock::{Connection, Vsock, VsockState};

const MIB: usize = 1 << 20;
/// What a Unix socket may hold besides what the device holds.
const SOCKET_BYTES: usize = 512 << 10;
const WINDOW_BYTES: usize = 256 << 10;

fn all(clients: &mut [Client]) -> Vec<&mut Client> {
    clients.iter_mut().collect()
}

#[test]
fn sixteen_streams_do_not_mix() {
    let mut guest = Guest::up(&(100..116).collect::<Vec<u32>>());
    let mut clients: Vec<Client> = (100..116).map(|port| guest.connect(port)).collect();
    guest.run(&mut all(&mut clients));
    for round in 0..8 {
        for (index, client) in clients.iter_mut().enumerate() {
            client.send(&pattern(index as u64 * 8 + round, 20_000));
        }
        for port in 100..116_u32 {
            let bytes = pattern(u64::from(port) * 8 + round, 30_000);
            guest.end(port).outgoing.extend(bytes);
        }
        guest.run(&mut all(&mut clients));
    }
    for (port, client) in (100..116_u32).zip(&clients) {
        let index = u64::from(port - 100);
        let to_guest: Vec<u8> = (0..8)
            .flat_map(|r| pattern(index * 8 + r, 20_000))
            .collect();
        let to_client: Vec<u8> = (0..8)
            .flat_map(|r| pattern(u64::from(port) * 8 + r, 30_000))
            .collect();
        assert!(guest.end(port).received == to_guest);
        assert!(client.received == to_client);
    }
    assert!(guest.device.quiet());
}

#[test]
fn eight_mebibytes_each_way_through_a_small_window() {
    for (split, buf_alloc) in [(false, 5_000), (true, 64 << 10)] {
        let mut guest = Guest::up_with(&[1024], split);
        guest.buf_alloc = buf_alloc;
        let mut client = guest.connect(1024);
        client.send(&pattern(1, 8 * MIB));
        guest.run(&mut [&mut client]);
        guest.end(1024).outgoing.extend(pattern(2, 8 * MIB));
        guest.run(&mut [&mut client]);
        assert!(guest.end(1024).received == pattern(1, 8 * MIB));
        assert!(client.received == pattern(2, 8 * MIB));
        assert!(guest.device.quiet());
    }
}

#[test]
fn both_ways_at_once() {
    let mut guest = Guest::up(&[1024]);
    let mut client = guest.connect(1024);
    guest.run(&mut [&mut client]);
    client.send(&pattern(3, 4 * MIB));
    guest.end(1024).outgoing.extend(pattern(4, 4 * MIB));
    guest.run(&mut [&mut client]);
    assert!(guest.end(1024).received == pattern(3, 4 * MIB));
    assert!(client.received == pattern(4, 4 * MIB));
}

#[test]
fn a_slow_client_stops_its_writer_and_nobody_else() {
    let mut guest = Guest::up(&[1, 2]);
    let mut slow = guest.connect(1);
    let mut fast = guest.connect(2);
    guest.run(&mut [&mut slow, &mut fast]);
    slow.reads = false;
    guest.end(1).outgoing.extend(pattern(5, 4 * MIB));
    guest.end(2).outgoing.extend(pattern(6, 4 * MIB));
    guest.run(&mut [&mut slow, &mut fast]);
    assert!(fast.received == pattern(6, 4 * MIB));
    let sent = 4 * MIB - guest.end(1).outgoing.len();
    assert!(sent >= WINDOW_BYTES, "{sent} bytes went");
    assert!(sent <= WINDOW_BYTES + SOCKET_BYTES, "{sent} bytes went");
    assert!(guest.device.held_bytes() <= WINDOW_BYTES);
    assert!(!guest.device.quiet());
    slow.reads = true;
    guest.run(&mut [&mut slow, &mut fast]);
    assert!(slow.received == pattern(5, 4 * MIB));
    assert!(guest.device.quiet());
}

#[test]
fn a_slow_program_in_the_guest_stops_its_client_and_nobody_else() {
    let mut guest = Guest::up(&[1, 2]);
    let mut stuck = guest.connect(1);
    let mut fast = guest.connect(2);
    guest.run(&mut [&mut stuck, &mut fast]);
    guest.end(1).reads = false;
    stuck.send(&pattern(7, 2 * MIB));
    fast.send(&pattern(8, 2 * MIB));
    guest.run(&mut [&mut stuck, &mut fast]);
    assert!(guest.end(2).received == pattern(8, 2 * MIB));
    assert_eq!(guest.end(1).received.len(), WINDOW_BYTES);
    assert_eq!(guest.device.held_bytes(), 0);
    // It asked for credit once, not again and again.
    assert_eq!(guest.count_seen_by(1, OP_CREDIT_REQUEST), 1);
    guest.run(&mut [&mut stuck, &mut fast]);
    assert_eq!(guest.count_seen_by(1, OP_CREDIT_REQUEST), 1);
    guest.read(1, true);
    guest.run(&mut [&mut stuck, &mut fast]);
    assert!(guest.end(1).received == pattern(7, 2 * MIB));
    assert!(guest.device.quiet());
}

#[test]
fn a_silent_guest_holds_nobody_and_nothing() {
    let mut guest = Guest::up(&[1]);
    let mut client = guest.connect(1);
    guest.run(&mut [&mut client]);
    guest.silent = true;
    client.send(&pattern(9, 4 * MIB));
    guest.run(&mut [&mut client]);
    assert!(!client.outgoing.is_empty(), "the socket filled up");
    assert_eq!(guest.device.held_bytes(), 0);
    guest.silent = false;
    guest.run(&mut [&mut client]);
    assert!(guest.end(1).received == pattern(9, 4 * MIB));
}

#[test]
fn credit_updates_come_before_the_window_closes_and_not_for_each_packet() {
    let mut guest = Guest::up(&[1]);
    let mut client = guest.connect(1);
    guest.run(&mut [&mut client]);
    guest.end(1).outgoing.extend(pattern(10, 4 * MIB));
    guest.run(&mut [&mut client]);
    let updates = guest.count_seen(OP_CREDIT_UPDATE);
    assert!((16..=64).contains(&updates), "{updates} updates for 4 MiB");
}

#[test]
fn a_guest_whose_client_keeps_up_always_sees_half_the_window() {
    let mut guest = Guest::up(&[1]);
    let mut client = guest.connect(1);
    guest.run(&mut [&mut client]);
    for _ in 0..100 {
        guest.end(1).outgoing.extend(pattern(15, 30_000));
        guest.run(&mut [&mut client]);
        let end = guest.end(1);
        let window = end.peer_buf_alloc - end.tx_cnt.wrapping_sub(end.peer_fwd_cnt);
        assert!(window as usize >= WINDOW_BYTES / 2, "{window} bytes");
    }
}

#[test]
fn every_buffer_comes_back_once() {
    use virtio_queue::QueueT;
    let mut guest = Guest::up(&[1]);
    let mut client = guest.connect(1);
    guest.run(&mut [&mut client]);
    for round in 0..500 {
        client.send(b"ping");
        guest.run(&mut [&mut client]);
        let queue = &guest.rx.queue;
        assert_eq!(queue.next_avail(), queue.next_used(), "round {round}");
    }
    assert_eq!(guest.end(1).received.len(), 2000);
    // One packet each, and nothing for the attempts to read that found nothing.
    assert_eq!(guest.count_seen(OP_RW), 500);
}

#[test]
fn a_credit_request_is_answered() {
    let mut guest = Guest::up(&[1]);
    let mut client = guest.connect(1);
    guest.run(&mut [&mut client]);
    let ports = *guest.ends.keys().next().unwrap();
    let request = guest.end(1).header(ports, OP_CREDIT_REQUEST);
    guest.replies.push_back(request);
    guest.run(&mut [&mut client]);
    let answer = guest.seen.last().unwrap();
    assert_eq!((answer.op, answer.buf_alloc), (OP_CREDIT_UPDATE, 256 << 10));
}

#[test]
fn the_control_port_passes_a_flood() {
    let mut guest = Guest::up(&[9, 10_000, 10_001]);
    let mut flood = guest.connect(10_000);
    let mut other = guest.connect(10_001);
    let mut control = guest.connect(9);
    guest.run(&mut [&mut flood, &mut other, &mut control]);
    flood.send(&pattern(11, MIB));
    other.send(&pattern(12, MIB));
    flood.pump();
    other.pump();
    control.send(b"interrupt");
    guest.seen.clear();
    guest.run(&mut [&mut flood, &mut other, &mut control]);
    let data: Vec<u32> = guest
        .seen
        .iter()
        .filter(|header| header.op == OP_RW)
        .map(|header| header.dst_port)
        .collect();
    assert_eq!(data[0], 9);
    // The others take turns.
    let first = &data[1..17];
    assert_eq!(first.iter().filter(|port| **port == 10_000).count(), 8);
    assert_eq!(first.iter().filter(|port| **port == 10_001).count(), 8);
}

#[test]
fn counters_wrap() {
    let near = u32::MAX - 100_000;
    let state = VsockState {
        guest_cid: 52,
        awake: true,
        next_host_port: 2000,
        connections: vec![Connection {
            guest_port: 9,
            host_port: 1024,
            fwd_cnt: near,
            told_fwd_cnt: near - 10,
            tx_cnt: near + 50_000,
            peer_buf_alloc: 70_000,
            peer_fwd_cnt: near + 50_000,
        }],
        resets: Vec::new(),
    };
    let (mut client, socket) = Client::pair();
    let device = Vsock::restore(&state, vec![(9, socket)]).unwrap();
    let mut guest = Guest::with_device(device, &[9]);
    let end = super::guest::End {
        reads: true,
        buf_alloc: 70_000,
        got: near + 50_000,
        fwd_cnt: near + 50_000,
        told: near + 50_000,
        tx_cnt: near,
        peer_buf_alloc: 256 << 10,
        peer_fwd_cnt: near - 10,
        ..Default::default()
    };
    guest.ends.insert((9, 1024), end);
    client.send(&pattern(13, MIB));
    guest.end(9).outgoing.extend(pattern(14, MIB));
    guest.run(&mut [&mut client]);
    assert!(guest.end(9).received == pattern(13, MIB));
    assert!(client.received == pattern(14, MIB));
    let saved = guest.device.save();
    assert!(
        saved.connections[0].fwd_cnt < near,
        "the counter has wrapped"
    );
}
