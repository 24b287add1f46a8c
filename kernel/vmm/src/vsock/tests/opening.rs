//! How streams begin.

use super::client::Client;
use super::guest::{CID, Guest};
use crate::vsock::spec::*;
use crate::vsock::{Greeting, Vsock};

#[test]
fn a_stream_carries_bytes_both_ways() {
    for split in [false, true] {
        let mut guest = Guest::up_with(&[1024], split);
        let mut client = guest.connect(1024);
        client.send(b"ping");
        guest.run(&mut [&mut client]);
        assert_eq!(guest.end(1024).received, b"ping");
        guest.end(1024).outgoing.extend(b"pong");
        guest.run(&mut [&mut client]);
        assert_eq!(client.received, b"pong");
        assert!(!client.ended);
        assert!(guest.device.quiet());
    }
}

#[test]
fn a_refused_port_closes_the_socket_without_an_answer() {
    let mut guest = Guest::up(&[]);
    let mut client = guest.connect_with(
        7,
        Greeting {
            early: b"hello".to_vec(),
            answer: true,
        },
    );
    guest.run(&mut [&mut client]);
    assert!(client.ended);
    assert_eq!(client.received, b"");
    assert!(guest.device.quiet());
}

#[test]
fn streams_wait_for_the_knock() {
    let mut guest = Guest::booting(&[9]);
    let mut client = guest.connect(9);
    client.send(b"early bird");
    guest.run(&mut [&mut client]);
    assert_eq!(guest.count_seen(OP_REQUEST), 0);
    assert!(!guest.device.save().awake);
    guest.knock();
    guest.run(&mut [&mut client]);
    assert!(guest.device.save().awake);
    assert_eq!(guest.end(9).received, b"early bird");
    // The knock itself is refused, as every stream of the guest is, the first and the later ones.
    assert_eq!(guest.count_seen(OP_RST), 1);
    guest.knock();
    guest.run(&mut [&mut client]);
    assert_eq!(guest.count_seen(OP_RST), 2);
}

#[test]
fn early_bytes_go_first_and_the_answer_comes_first() {
    let mut guest = Guest::up(&[10_000]);
    let early = vec![b'e'; 10_000];
    let mut client = guest.connect_with(
        10_000,
        Greeting {
            early: early.clone(),
            answer: true,
        },
    );
    client.send(b" and late");
    guest.run(&mut [&mut client]);
    let host_port = guest.ends.keys().next().unwrap().1;
    assert_eq!(client.received, format!("OK {host_port}\n").as_bytes());
    assert_eq!(
        guest.end(10_000).received,
        [&early[..], b" and late"].concat()
    );
    guest.end(10_000).outgoing.extend(b"data");
    guest.run(&mut [&mut client]);
    assert!(client.received.ends_with(b"\ndata"));
    // The answer costs the guest no credit.
    assert_eq!(guest.device.save().connections[0].fwd_cnt, 4);
}

#[test]
fn a_client_that_leaves_before_its_answer_leaves_no_trace() {
    let mut guest = Guest::booting(&[9]);
    let answered = || Greeting {
        early: b"x".to_vec(),
        answer: true,
    };
    drop(guest.connect_with(9, answered()));
    guest.run(&mut []);
    guest.knock();
    guest.run(&mut []);
    assert_eq!(guest.count_seen(OP_REQUEST), 0);

    // The guest is silent, then the client leaves.
    guest.silent = true;
    let client = guest.connect_with(9, answered());
    guest.run(&mut []);
    drop(client);
    guest.run(&mut []);
    guest.silent = false;
    guest.run(&mut []);
    assert_eq!(guest.count_seen(OP_REQUEST), 1);
    assert!(guest.end(9).reset);
    assert!(guest.device.quiet());
}

#[test]
fn a_client_without_an_answer_may_write_and_leave() {
    let mut guest = Guest::booting(&[9]);
    let mut client = guest.connect(9);
    client.send(b"fire and forget");
    client.pump();
    drop(client);
    guest.run(&mut []);
    guest.knock();
    guest.run(&mut []);
    assert_eq!(guest.end(9).received, b"fire and forget");
    assert!(guest.end(9).gone);
    assert!(guest.device.quiet());
}

#[test]
fn more_streams_than_the_limit_are_turned_away() {
    let mut guest = Guest::up(&[9]);
    let mut clients: Vec<Client> = (0..300).map(|_| guest.connect(9)).collect();
    guest.run(&mut clients.iter_mut().collect::<Vec<_>>());
    assert_eq!(guest.ends.len(), 256);
    assert_eq!(clients.iter().filter(|client| client.ended).count(), 44);
    // A place is free again once a stream has ended.
    clients.remove(0);
    guest.run(&mut []);
    let mut late = guest.connect(9);
    guest.run(&mut [&mut late]);
    assert_eq!(guest.ends.len(), 257);
}

#[test]
fn a_guest_has_a_possible_address() {
    let device = Vsock::new(CID).unwrap();
    assert_eq!(device.config(), [52, 0, 0, 0, 0, 0, 0, 0]);
    for reserved in [0, 1, 2, u32::MAX] {
        Vsock::new(reserved).unwrap_err();
    }
}

#[test]
fn the_poller_is_ready_only_with_news() {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let ready = |guest: &Guest| {
        let mut fds = [PollFd::from_borrowed_fd(
            guest.device.poller(),
            PollFlags::IN,
        )];
        poll(&mut fds, Some(&Timespec::default())).unwrap() == 1
    };
    let mut guest = Guest::up(&[9]);
    assert!(!ready(&guest));
    let mut client = guest.connect(9);
    guest.run(&mut [&mut client]);
    assert!(!ready(&guest));
    client.send(b"x");
    client.pump();
    assert!(ready(&guest));
    assert!(guest.device.on_host());
    // Collected, though not read yet: nobody spins.
    assert!(!ready(&guest));
    guest.run(&mut [&mut client]);
    assert_eq!(guest.end(9).received, b"x");
    // What the client reads is no news, unless something waits for that.
    guest.end(9).outgoing.extend(b"y");
    guest.run(&mut []);
    client.pump();
    assert_eq!(client.received, b"y");
    assert!(!ready(&guest));
}

#[test]
fn a_reset_of_the_device_ends_what_the_guest_knew() {
    let mut guest = Guest::booting(&[9]);
    let mut held = guest.connect(9);
    // The driver's first act is a reset; a client that waits for the boot loses nothing by it.
    guest.device.reset();
    guest.knock();
    guest.run(&mut [&mut held]);
    assert!(!held.ended && guest.end(9).reads);
    guest.device.reset();
    guest.ends.clear();
    let mut second = guest.connect(9);
    guest.run(&mut [&mut held, &mut second]);
    assert!(held.ended && !second.ended);
    assert!(guest.ends.is_empty(), "the guest has to knock again");
}
