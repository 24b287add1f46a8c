//! Saving, restoring in a new device, and rolling back in the same one.

use std::io::Read;
use std::os::unix::net::UnixStream;

use proptest::prelude::*;

use super::client::Client;
use super::guest::{Guest, pattern};
use crate::vsock::spec::*;
use crate::vsock::{Connection, Greeting, StateError, Vsock, VsockState};

/// Puts another device under a guest, as a restore does.
fn replace(guest: &mut Guest, state: &VsockState, claims: Vec<(u32, UnixStream)>) {
    let bytes = state.encode();
    let state = VsockState::decode(&bytes).unwrap();
    guest.device = Vsock::restore(&state, claims).unwrap();
    guest.seen.clear();
}

#[test]
fn claimed_connections_go_on_unnoticed() {
    let mut guest = Guest::up(&[9, 10_000]);
    let mut control = guest.connect(9);
    let mut cells = guest.connect(10_000);
    control.send(&pattern(1, 300_000));
    guest.run(&mut [&mut control, &mut cells]);
    guest.end(9).outgoing.extend(pattern(2, 200_000));
    guest.run(&mut [&mut control, &mut cells]);
    assert!(guest.device.quiet());
    let state = guest.device.save();
    assert_eq!((state.connections.len(), state.resets.len()), (2, 0));

    let (mut control, control_end) = Client::pair();
    let (mut cells, cells_end) = Client::pair();
    replace(
        &mut guest,
        &state,
        vec![(10_000, cells_end), (9, control_end)],
    );
    control.send(&pattern(3, 300_000));
    cells.send(b"1 + 1");
    guest.end(9).outgoing.extend(pattern(4, 400_000));
    guest.run(&mut [&mut control, &mut cells]);
    let expected = [pattern(1, 300_000), pattern(3, 300_000)].concat();
    assert!(guest.end(9).received == expected);
    assert_eq!(guest.end(10_000).received, b"1 + 1");
    assert!(control.received == pattern(4, 400_000));
    assert_eq!(guest.count_seen(OP_REQUEST) + guest.count_seen(OP_RST), 0);
}

#[test]
fn unclaimed_and_unsettled_connections_are_reset() {
    let mut guest = Guest::up(&[1, 2, 3, 4, 5, 6]);
    let mut settled = guest.connect(1);
    let mut slow = guest.connect(2);
    let mut half = guest.connect(3);
    let mut early = guest.connect(4);
    let mut deaf = guest.connect(6);
    guest.run(&mut [&mut settled, &mut slow, &mut half, &mut early, &mut deaf]);
    guest.end(6).ends = SHUTDOWN_RECEIVE;
    slow.reads = false;
    guest.end(2).outgoing.extend(pattern(5, 1 << 20));
    half.end();
    guest.run(&mut [&mut settled, &mut slow, &mut half, &mut early]);
    guest.end(4).reads = false;
    guest.silent = true;
    let mut asked = guest.connect(5);
    guest.run(&mut [&mut settled, &mut slow, &mut half, &mut early, &mut asked]);

    let state = guest.device.save();
    let ports: Vec<u32> = state.connections.iter().map(|c| c.guest_port).collect();
    assert_eq!(ports, [1, 4]);
    let ports: Vec<u32> = state.resets.iter().map(|reset| reset.0).collect();
    assert_eq!(ports, [2, 3, 5, 6]);

    guest.silent = false;
    replace(&mut guest, &state, Vec::new());
    // Saved again before the guest has heard of it: nothing is forgotten.
    assert_eq!(guest.device.save().resets.len(), 6);
    guest.end(2).outgoing.clear();
    guest.run(&mut []);
    for port in 1..=4 {
        assert!(guest.end(port).gone, "port {port}");
    }
    // What the guest had accepted meanwhile is reset as well.
    assert!(guest.end(5).gone);
    assert!(guest.device.quiet());
}

#[test]
fn early_bytes_that_the_guest_has_not_taken_are_under_way() {
    let mut guest = Guest::up(&[1]);
    guest.buf_alloc = 10;
    let greeting = Greeting {
        early: vec![1; 30],
        answer: false,
    };
    let mut client = guest.connect_with(1, greeting);
    guest.silent = true;
    guest.run(&mut [&mut client]);
    guest.silent = false;
    // The acceptance and the first ten bytes; the guest has not said yet that it has read them.
    for _ in 0..2 {
        guest.step(&mut [&mut client]).unwrap();
    }
    assert_eq!(guest.end(1).received.len(), 10);
    let state = guest.device.save();
    assert_eq!((state.connections.len(), state.resets.len()), (0, 1));
    assert!(!guest.device.quiet());
}

#[test]
fn a_restored_guest_hears_of_credit_that_it_was_not_told_of() {
    let mut state = example();
    state.connections.truncate(1);
    state.connections[0].fwd_cnt = 200_000;
    state.connections[0].told_fwd_cnt = 0;
    let (_near, far) = UnixStream::pair().unwrap();
    let device = Vsock::restore(&state, vec![(9, far)]).unwrap();
    assert!(device.wants_to_send());
    assert_eq!(device.save().connections, state.connections);
}

#[test]
fn ports_go_on_where_they_stood() {
    let mut state = example();
    state.next_host_port = u32::MAX - 1;
    state.connections.clear();
    let device = Vsock::restore(&state, Vec::new()).unwrap();
    assert_eq!(device.save().next_host_port, u32::MAX - 1);
    let mut device = device;
    let (_near, far) = UnixStream::pair().unwrap();
    device.open(9, far, Greeting::default());
    assert_eq!(device.save().next_host_port, 1024);
}

#[test]
fn a_rollback_forgets_refusals() {
    let mut guest = Guest::up(&[]);
    let state = guest.device.save();
    guest.silent = true;
    guest.knock();
    while guest.device.quiet() {
        guest.step(&mut []).unwrap();
    }
    guest.device.rollback(&state);
    assert!(guest.device.quiet());
}

#[test]
fn a_claim_without_a_connection_is_opened() {
    let mut guest = Guest::up(&[9, 10_000]);
    let first = guest.connect(9);
    guest.run(&mut []);
    let state = guest.device.save();
    drop(first);
    let (mut control, control_end) = Client::pair();
    let (mut second, second_end) = Client::pair();
    let (mut cells, cells_end) = Client::pair();
    let claims = vec![(9, control_end), (9, second_end), (10_000, cells_end)];
    replace(&mut guest, &state, claims);
    second.send(b"second");
    cells.send(b"cells");
    guest.run(&mut [&mut control, &mut second, &mut cells]);
    assert_eq!(guest.count_seen(OP_REQUEST), 2);
    assert_eq!(guest.count_seen(OP_RST), 0);
    assert_eq!(guest.end(10_000).received, b"cells");
    let received: Vec<&[u8]> = guest.ends.values().map(|end| &end.received[..]).collect();
    assert_eq!(received, [&b""[..], b"second", b"cells"]);
}

#[test]
fn a_rollback_keeps_the_sockets_and_sets_the_accounts_back() {
    let mut guest = Guest::up(&[9, 10_000, 3]);
    let mut control = guest.connect(9);
    let mut cells = guest.connect(10_000);
    let mut gone = guest.connect(3);
    control.send(b"before");
    guest.run(&mut [&mut control, &mut cells, &mut gone]);
    let state = guest.device.save();
    let ends = guest.ends.clone();

    // A time that will not have been: traffic, a new stream, one that leaves, one that lags.
    control.send(&pattern(6, 500_000));
    let mut late = guest.connect(3);
    drop(gone);
    guest.run(&mut [&mut control, &mut cells, &mut late]);
    cells.reads = false;
    let port = *guest.ends.keys().find(|ports| ports.0 == 10_000).unwrap();
    let sent = pattern(7, 1 << 20);
    guest.ends.get_mut(&port).unwrap().outgoing.extend(sent);
    guest.run(&mut [&mut control, &mut cells, &mut late]);
    assert!(guest.device.held_bytes() > 0);

    guest.device.rollback(&state);
    guest.ends = ends;
    guest.seen.clear();
    assert_eq!(guest.device.held_bytes(), 0);
    assert!(!guest.device.quiet(), "a RST waits");
    cells.reads = true;
    guest.run(&mut [&mut control, &mut cells, &mut late]);
    assert!(late.ended);
    assert!(guest.end(3).reset);
    assert!(!control.ended && !cells.ended);
    cells.received.clear();
    control.send(b" and after");
    cells.send(&pattern(8, 1 << 20));
    guest.end(10_000).outgoing.extend(pattern(9, 1 << 20));
    guest.run(&mut [&mut control, &mut cells]);
    assert_eq!(guest.end(9).received, b"before and after");
    assert!(guest.end(10_000).received == pattern(8, 1 << 20));
    assert!(cells.received == pattern(9, 1 << 20));
    assert!(guest.device.quiet());
    let ports = |state: &VsockState| -> Vec<_> {
        let connections = state.connections.iter();
        connections.map(|c| (c.guest_port, c.host_port)).collect()
    };
    assert_eq!(ports(&guest.device.save()), ports(&state)[..2]);
}

#[test]
fn a_rollback_resets_what_has_half_ended_since() {
    let mut guest = Guest::up(&[9]);
    let mut control = guest.connect(9);
    guest.run(&mut [&mut control]);
    let state = guest.device.save();
    let ends = guest.ends.clone();
    control.end();
    guest.run(&mut [&mut control]);
    guest.device.rollback(&state);
    guest.ends = ends;
    guest.run(&mut [&mut control]);
    assert!(control.ended);
    assert!(guest.end(9).reset);
}

#[test]
fn a_rollback_to_before_the_knock_waits_for_it_again() {
    let mut guest = Guest::booting(&[9]);
    let state = guest.device.save();
    guest.knock();
    guest.run(&mut []);
    guest.device.rollback(&state);
    let mut client = guest.connect(9);
    guest.run(&mut [&mut client]);
    assert_eq!(guest.count_seen(OP_REQUEST), 0);
    guest.knock();
    guest.run(&mut [&mut client]);
    assert_eq!(guest.count_seen(OP_REQUEST), 1);
}

#[test]
fn a_restored_answer_is_not_given_again() {
    let mut guest = Guest::up(&[1]);
    let answered = Greeting {
        early: Vec::new(),
        answer: true,
    };
    let mut client = guest.connect_with(1, answered);
    guest.run(&mut [&mut client]);
    let state = guest.device.save();
    let (near, far) = UnixStream::pair().unwrap();
    replace(&mut guest, &state, vec![(1, far)]);
    guest.run(&mut []);
    near.set_nonblocking(true).unwrap();
    (&near).read(&mut [0; 8]).unwrap_err();
}

fn example() -> VsockState {
    let connection = |host_port| Connection {
        guest_port: 9,
        host_port,
        fwd_cnt: 1,
        told_fwd_cnt: 2,
        tx_cnt: 3,
        peer_buf_alloc: 4,
        peer_fwd_cnt: 5,
    };
    VsockState {
        guest_cid: 3,
        awake: true,
        next_host_port: 1030,
        connections: vec![connection(1024), connection(1025)],
        resets: vec![(7, 1026)],
    }
}

#[test]
fn the_layout_is_fixed() {
    let bytes = example().encode();
    assert_eq!(&bytes[..8], b"VSCK\x01\0\0\0");
    assert_eq!(bytes.len(), 28 + 2 * 28 + 8);
    assert_eq!(bytes[8..12], 3_u32.to_le_bytes());
    assert_eq!(bytes[28..36], [9, 0, 0, 0, 0, 4, 0, 0]);
    assert_eq!(bytes[84..], [7, 0, 0, 0, 2, 4, 0, 0]);
    assert_eq!(VsockState::decode(&bytes), Ok(example()));
}

#[test]
fn a_bad_state_is_refused() {
    let good = example().encode();
    for length in 0..good.len() {
        VsockState::decode(&good[..length]).unwrap_err();
    }
    let with = |at: usize, value: u32| {
        let mut bytes = good.clone();
        bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
        VsockState::decode(&bytes).unwrap_err()
    };
    assert_eq!(with(0, 0), StateError::Magic);
    assert_eq!(with(4, 2), StateError::Version(2));
    for (at, field, value) in [
        (8, "address", 2),
        (12, "next port", 0),
        (16, "knock", 2),
        (20, "number of connections", 257),
        (24, "number of resets", u32::MAX),
        (32, "host port", u32::MAX),
        // Two connections with one port of the host.
        (60, "host port", 1024),
    ] {
        assert_eq!(with(at, value), StateError::Value { field, value });
    }
    let mut long = good;
    long.push(0);
    assert!(matches!(
        VsockState::decode(&long),
        Err(StateError::Length { got: 93, .. })
    ));
}

proptest! {
    #[test]
    fn any_bytes_are_refused_or_read_as_they_are(
        mut bytes in proptest::collection::vec(any::<u8>(), 0..200),
        claim in any::<bool>(),
    ) {
        let head = example().encode();
        let known = if claim { head.len().min(bytes.len()).min(28) } else { 0 };
        bytes[..known].copy_from_slice(&head[..known]);
        if let Ok(state) = VsockState::decode(&bytes) {
            prop_assert_eq!(state.encode(), bytes);
        }
    }
}
