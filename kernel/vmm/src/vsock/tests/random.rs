//! Anything at all in the queues: no panic, no growth.

use proptest::prelude::*;
use proptest::test_runner::TestCaseResult;
use virtio_queue::desc::split::Descriptor;
use vm_memory::{Bytes, GuestAddress};

use super::client::Client;
use super::guest::{CID, Guest, Ports, packet};
use super::ring::Ring;
use crate::devices::tests::long;
use crate::vsock::header::Header;
use crate::vsock::spec::*;
use crate::vsock::{Greeting, Vsock};

/// One thing that guest or host may do.
#[derive(Debug, Clone)]
enum Action {
    Packet { header: Header, payload: usize },
    Open { port: u32, answer: bool },
    Write { client: usize, bytes: usize },
    Read { client: usize },
    Leave { client: usize },
    End { client: usize },
    Step,
    Save,
    Rollback,
}

fn port() -> impl Strategy<Value = u32> {
    prop_oneof![8 => 1_u32..4, 8 => 1024_u32..1032, 1 => any::<u32>()]
}

fn header() -> impl Strategy<Value = Header> {
    let ends = (
        prop_oneof![20 => Just(u64::from(CID)), 1 => any::<u64>()],
        prop_oneof![20 => Just(HOST_CID), 1 => any::<u64>()],
        port(),
        port(),
    );
    let rest = (
        prop_oneof![20 => Just(TYPE_STREAM), 1 => any::<u16>()],
        prop_oneof![20 => 0_u16..9, 10 => Just(OP_RW), 1 => any::<u16>()],
        prop_oneof![20 => 0_u32..5, 1 => any::<u32>()],
        prop_oneof![10 => Just(0_u32), 10 => 0_u32..70_000, 1 => any::<u32>()],
        prop_oneof![3 => Just(1_u32 << 18), 1 => any::<u32>()],
        prop_oneof![3 => 0_u32..100_000, 1 => any::<u32>()],
    );
    (ends, rest).prop_map(|(ends, rest)| {
        let (src_cid, dst_cid, src_port, dst_port) = ends;
        let (kind, op, flags, len, buf_alloc, fwd_cnt) = rest;
        Header {
            src_cid,
            dst_cid,
            src_port,
            dst_port,
            len,
            kind,
            op,
            flags,
            buf_alloc,
            fwd_cnt,
        }
    })
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        12 => (header(), prop_oneof![Just(0_usize), 0..66_000_usize])
            .prop_map(|(header, payload)| Action::Packet { header, payload }),
        3 => (1_u32..4, any::<bool>()).prop_map(|(port, answer)| Action::Open { port, answer }),
        3 => (0..8_usize, 0..100_000_usize)
            .prop_map(|(client, bytes)| Action::Write { client, bytes }),
        3 => (0..8_usize).prop_map(|client| Action::Read { client }),
        1 => (0..8_usize).prop_map(|client| Action::Leave { client }),
        1 => (0..8_usize).prop_map(|client| Action::End { client }),
        6 => Just(Action::Step),
        1 => Just(Action::Save),
        1 => Just(Action::Rollback),
    ]
}

/// Offers receive buffers and throws away what comes; the packets of the test are the answers.
fn step(guest: &mut Guest, clients: &mut [Client]) {
    let mut clients: Vec<&mut Client> = clients.iter_mut().collect();
    guest.ends.clear();
    guest.replies.clear();
    guest.seen.clear();
    guest.step(&mut clients).unwrap();
    guest.ends.clear();
    guest.replies.clear();
}

fn act(guest: &mut Guest, clients: &mut Vec<Client>, action: &Action) {
    let count = clients.len().max(1);
    match *action {
        Action::Packet { header, payload } => {
            guest.put(&header, &vec![0x55; payload]);
        }
        Action::Open { port, answer } => {
            let early = vec![1; 100];
            let mut client = guest.connect_with(port, Greeting { early, answer });
            client.reads = false;
            clients.push(client);
        }
        Action::Write { client, bytes } => {
            if let Some(client) = clients.get_mut(client % count) {
                client.send(&vec![2; bytes]);
                client.pump();
            }
        }
        Action::Read { client } => {
            if let Some(client) = clients.get_mut(client % count) {
                client.reads = true;
                client.pump();
                client.received.clear();
                client.reads = false;
            }
        }
        Action::Leave { client } => {
            if !clients.is_empty() {
                clients.remove(client % count);
            }
        }
        Action::End { client } => {
            if let Some(client) = clients.get_mut(client % count) {
                drop(client.socket.shutdown(std::net::Shutdown::Write));
            }
        }
        Action::Step | Action::Save | Action::Rollback => {}
    }
}

/// Any packets among what clients do: nothing grows, and nothing is left when everybody has gone.
fn packets(actions: Vec<Action>) -> TestCaseResult {
    let mut guest = Guest::up(&[1, 2, 3]);
    let mut clients = Vec::new();
    let mut saved = guest.device.save();
    for action in actions {
        match action {
            Action::Step => step(&mut guest, &mut clients),
            Action::Save => {
                saved = guest.device.save();
                let claims = Vec::new();
                let again = Vsock::restore(&saved, claims).unwrap();
                prop_assert_eq!(again.save().connections.len(), 0);
            }
            Action::Rollback => guest.device.rollback(&saved),
            ref other => act(&mut guest, &mut clients, other),
        }
        prop_assert!(guest.device.held_bytes() <= (clients.len() + 16) * (256 << 10));
        prop_assert!(guest.device.held_packets() <= 2048);
    }
    // Once everybody has left, nothing is kept for them.
    clients.clear();
    guest.silent = false;
    for _ in 0..8 {
        step(&mut guest, &mut clients);
    }
    prop_assert_eq!(guest.device.held_bytes(), 0);
    Ok(())
}

fn actions() -> impl Strategy<Value = Vec<Action>> {
    proptest::collection::vec(action(), 1..120)
}

/// A descriptor: address, length, flags, next.
type Raw = (u64, u32, u16, u16);
/// A table, the heads of its chains, noise for the memory, headers in it, and the ring's index.
type Queues = (Vec<Raw>, Vec<u16>, Vec<u8>, Vec<Header>, Option<u16>);

fn queues() -> impl Strategy<Value = Queues> {
    let raw = (
        prop_oneof![
            4 => 0x10_0000_u64..0x20_0000,
            1 => 0x7f_ff00_u64..0x80_0100,
            1 => any::<u64>(),
        ],
        prop_oneof![2 => 0_u32..100, 4 => 44_u32..9000, 1 => any::<u32>()],
        prop_oneof![8 => 0_u16..8, 1 => any::<u16>()],
        prop_oneof![8 => 0_u16..128, 1 => any::<u16>()],
    );
    let head = prop_oneof![20 => 0_u16..128, 1 => any::<u16>()];
    (
        proptest::collection::vec(raw, 128),
        proptest::collection::vec(head, 1..40),
        proptest::collection::vec(any::<u8>(), 4096),
        proptest::collection::vec(header(), 16),
        proptest::option::weighted(0.1, any::<u16>()),
    )
}

/// Any table and any ring, with packets among the bytes that they lead to.
fn descriptors((descriptors, heads, noise, headers, index): Queues) -> TestCaseResult {
    let mut guest = Guest::up(&[1]);
    let mut client = guest.connect(1);
    guest.run(&mut [&mut client]);
    let ports: Ports = *guest.ends.keys().next().unwrap();
    let memory = guest.memory.clone();
    memory.write_slice(&noise, GuestAddress(0x10_0000)).unwrap();
    for (slot, header) in (0_u64..).zip(headers) {
        let header = Header {
            src_port: ports.0,
            dst_port: ports.1,
            ..header
        };
        let at = GuestAddress(0x10_1000 + 64 * slot);
        memory.write_slice(&header.encode(), at).unwrap();
    }
    let data = Header {
        op: OP_RW,
        len: 60,
        ..packet(ports)
    };
    memory
        .write_slice(&data.encode(), GuestAddress(0x10_2000))
        .unwrap();
    client.send(&[3; 50_000]);
    client.pump();
    guest.device.on_host();
    for mut ring in [Ring::new(0x2_0000), Ring::new(0x3_0000)] {
        for (slot, (at, len, flags, next)) in (0_u16..).zip(descriptors.iter().copied()) {
            // Mostly where packets lie.
            let at = if slot % 3 == 0 {
                0x10_1000 + u64::from(slot % 65) * 64
            } else {
                at
            };
            ring.describe(&memory, slot, Descriptor::new(at, len, flags, next));
        }
        for head in &heads {
            ring.offer(&memory, *head);
        }
        if let Some(index) = index {
            ring.set_index(&memory, index);
        }
        // Either outcome is right, as long as there is one.
        let (Ok(_) | Err(_)) = guest.device.transmit(&memory, &mut ring.queue);
        let (Ok(_) | Err(_)) = guest.device.receive(&memory, &mut ring.queue);
        prop_assert!(guest.device.held_bytes() <= 256 << 10);
        prop_assert!(guest.device.held_packets() <= 1100);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn packets_of_any_kind(actions in actions()) {
        packets(actions)?;
    }

    #[test]
    fn descriptors_of_any_kind(queues in queues()) {
        descriptors(queues)?;
    }
}

#[test]
fn long_packets() {
    long::run("packets", actions(), packets);
}

#[test]
fn long_descriptors() {
    long::run("descriptors", queues(), descriptors);
}
