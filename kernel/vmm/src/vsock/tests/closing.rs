//! How streams end: each direction by itself, both, and by force.

use std::net::Shutdown;

use super::client::Client;
use super::guest::{Guest, packet, pattern};
use crate::vsock::header::Header;
use crate::vsock::spec::*;

fn connected() -> (Guest, Client) {
    let mut guest = Guest::up(&[1]);
    let mut client = guest.connect(1);
    guest.run(&mut [&mut client]);
    (guest, client)
}

/// Sends a RST for the connection to port 1.
fn reset(guest: &mut Guest) {
    let ports = *guest.ends.keys().next().unwrap();
    let rst = Header {
        op: OP_RST,
        ..packet(ports)
    };
    guest.end(1).gone = true;
    guest.replies.push_back(rst);
}

fn shutdowns(guest: &Guest) -> Vec<u32> {
    let ended = guest.seen.iter().filter(|header| header.op == OP_SHUTDOWN);
    ended.map(|header| header.flags).collect()
}

#[test]
fn the_client_ends_first_and_still_reads() {
    let (mut guest, mut client) = connected();
    client.send(&pattern(1, 100_000));
    client.pump();
    client.end();
    guest.run(&mut [&mut client]);
    assert!(guest.end(1).received == pattern(1, 100_000));
    assert_eq!(shutdowns(&guest), [SHUTDOWN_SEND]);
    assert!(!client.ended);
    assert!(guest.device.quiet(), "half a stream is quiet");
    guest.end(1).outgoing.extend(pattern(2, 100_000));
    guest.end(1).ends = SHUTDOWN_SEND;
    guest.run(&mut [&mut client]);
    assert!(client.received == pattern(2, 100_000));
    assert!(client.ended);
    // Both directions are over: the guest hears that and forgets its half.
    assert_eq!(shutdowns(&guest), [SHUTDOWN_SEND, SHUTDOWN_BOTH]);
    assert!(guest.end(1).gone && !guest.end(1).reset);
    assert!(guest.device.save().resets.is_empty());
    assert!(guest.device.quiet());
}

#[test]
fn the_guest_ends_first_and_still_reads() {
    let (mut guest, mut client) = connected();
    client.reads = false;
    guest.end(1).outgoing.extend(pattern(3, 500_000));
    guest.end(1).ends = SHUTDOWN_SEND;
    guest.run(&mut [&mut client]);
    client.send(b"more");
    guest.run(&mut [&mut client]);
    assert_eq!(guest.end(1).received, b"more");
    client.reads = true;
    guest.run(&mut [&mut client]);
    assert!(client.received == pattern(3, 500_000));
    assert!(client.ended);
    client.send(b" and more");
    guest.run(&mut [&mut client]);
    assert_eq!(guest.end(1).received, b"more and more");
    client.end();
    guest.run(&mut [&mut client]);
    assert_eq!(shutdowns(&guest), [SHUTDOWN_BOTH]);
    assert!(guest.device.quiet());
}

#[test]
fn the_guest_closes_and_gets_its_rst_after_the_last_byte() {
    let (mut guest, mut client) = connected();
    client.reads = false;
    guest.end(1).outgoing.extend(pattern(4, 400_000));
    guest.end(1).ends = SHUTDOWN_BOTH;
    guest.run(&mut [&mut client]);
    assert!(!guest.end(1).reset, "the client has not taken everything");
    client.reads = true;
    guest.run(&mut [&mut client]);
    assert!(client.received == pattern(4, 400_000));
    assert!(client.ended);
    assert!(guest.end(1).reset);
    assert!(guest.device.quiet());
}

#[test]
fn a_guest_that_gives_up_waiting_loses_no_bytes() {
    let (mut guest, mut client) = connected();
    client.reads = false;
    guest.end(1).outgoing.extend(pattern(5, 400_000));
    guest.end(1).ends = SHUTDOWN_BOTH;
    guest.run(&mut [&mut client]);
    reset(&mut guest);
    guest.run(&mut [&mut client]);
    assert!(guest.device.held_bytes() > 0);
    client.reads = true;
    guest.run(&mut [&mut client]);
    assert!(client.received == pattern(5, 400_000));
    assert!(client.ended);
    assert_eq!(guest.count_seen(OP_RST), 0);
    assert!(guest.device.quiet());
}

#[test]
fn a_reset_ends_the_socket() {
    let (mut guest, mut client) = connected();
    guest.end(1).outgoing.extend(b"last words");
    guest.run(&mut []);
    reset(&mut guest);
    guest.run(&mut [&mut client]);
    assert_eq!(client.received, b"last words");
    assert!(client.ended);
    assert_eq!(guest.count_seen(OP_RST), 0);
    assert!(guest.device.quiet());
}

#[test]
fn a_client_that_leaves_hangs_up_once_its_bytes_are_there() {
    let (mut guest, mut client) = connected();
    client.send(&pattern(6, 100_000));
    client.pump();
    drop(client);
    guest.run(&mut []);
    assert!(guest.end(1).received == pattern(6, 100_000));
    assert_eq!(guest.end(1).peer_ends, SHUTDOWN_BOTH);
    assert!(guest.device.quiet());
}

#[test]
fn a_client_that_leaves_frees_a_guest_that_only_writes() {
    let (mut guest, mut client) = connected();
    client.reads = false;
    guest.end(1).reads = false;
    client.send(&pattern(7, 600_000));
    guest.end(1).outgoing.extend(pattern(8, 2 << 20));
    guest.run(&mut [&mut client]);
    assert!(!guest.end(1).outgoing.is_empty(), "the guest is stuck");
    drop(client);
    guest.run(&mut []);
    // It does not read, so not all that the client wrote is there; it may stop writing all the same.
    assert_eq!(guest.end(1).peer_ends, SHUTDOWN_RECEIVE);
    assert_eq!(guest.device.held_bytes(), 0);
    guest.read(1, true);
    guest.run(&mut []);
    assert_eq!(guest.end(1).peer_ends, SHUTDOWN_BOTH);
    assert!(guest.device.quiet());
}

#[test]
fn a_client_that_reads_no_more_frees_a_guest_that_writes() {
    let (mut guest, mut client) = connected();
    client.reads = false;
    client.socket.shutdown(Shutdown::Read).unwrap();
    guest.end(1).outgoing.extend(pattern(9, 2 << 20));
    guest.run(&mut [&mut client]);
    assert_eq!(guest.end(1).peer_ends, SHUTDOWN_RECEIVE);
    client.send(b"still here");
    guest.run(&mut [&mut client]);
    assert_eq!(guest.end(1).received, b"still here");
}

#[test]
fn a_guest_that_reads_no_more_fails_the_clients_writes() {
    let (mut guest, mut client) = connected();
    guest.end(1).ends = SHUTDOWN_RECEIVE;
    guest.run(&mut [&mut client]);
    client.send(b"into the void");
    guest.end(1).outgoing.extend(b"still here");
    guest.run(&mut [&mut client]);
    assert!(client.refused);
    assert_eq!(client.received, b"still here");
    drop(client);
    guest.run(&mut []);
    assert_eq!(guest.end(1).peer_ends, SHUTDOWN_BOTH);
    assert!(guest.device.quiet());
}

#[test]
fn the_last_credit_update_of_a_closed_stream_is_not_answered() {
    let (mut guest, mut client) = connected();
    guest.end(1).reads = false;
    client.send(b"bytes");
    client.pump();
    drop(client);
    guest.run(&mut []);
    guest.read(1, true);
    guest.run(&mut []);
    assert_eq!(guest.count_seen(OP_RST), 0);
}
