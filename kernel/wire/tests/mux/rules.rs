//! One rule of the multiplexer a test.

use vmrepl_wire::limits::{MUX_STREAMS, MUX_TURN_BYTES, MUX_WINDOW_BYTES};
use vmrepl_wire::mux::{HEADER_BYTES, Kind, Mux, MuxError, MuxEvent, ResetReason, Role};
use vmrepl_wire::port;

use crate::pair::{CLOSED_PORT, Pair};

/// The (kind, stream, payload length) of each frame in `bytes`.
fn frames(mut bytes: &[u8]) -> Vec<(u8, u32, usize)> {
    let mut frames = Vec::new();
    while let Some((header, rest)) = bytes.split_first_chunk::<HEADER_BYTES>() {
        let stream = u32::from_be_bytes(header[8..12].try_into().expect("four bytes"));
        let length = u32::from_be_bytes(header[12..].try_into().expect("four bytes"));
        let length = usize::try_from(length).expect("a length");
        frames.push((header[2], stream, length));
        bytes = &rest[length..];
    }
    frames
}

#[test]
fn the_first_cell_needs_no_round_trip() {
    let mut host = Mux::new(Role::Host, 7);
    let control = host.open(port::CONTROL).unwrap();
    host.send(control, b"resumed\n");
    let cells = host.open(port::CELLS).unwrap();
    host.send(cells, b"cell\n");
    let mut bytes = Vec::new();
    host.take_output(&mut bytes, usize::MAX);

    let mut guest = Mux::new(Role::Guest, 3);
    guest.receive(&bytes).unwrap();
    let events: Vec<MuxEvent> = std::iter::from_fn(|| guest.event()).collect();
    assert_eq!(
        events,
        [
            MuxEvent::Epoch { epoch: 7 },
            MuxEvent::Opened {
                id: control,
                port: port::CONTROL
            },
            MuxEvent::Opened {
                id: cells,
                port: port::CELLS
            },
            MuxEvent::Data {
                id: control,
                bytes: b"resumed\n".to_vec()
            },
            MuxEvent::Data {
                id: cells,
                bytes: b"cell\n".to_vec()
            },
        ]
    );
}

#[test]
fn a_slow_reader_blocks_nobody_else() {
    let mut pair = Pair::ready();
    let slow = pair.host.open(port::FILES).unwrap();
    assert_eq!(pair.host.send(slow, MUX_WINDOW_BYTES + 1), MUX_WINDOW_BYTES);
    pair.move_all();
    assert_eq!(pair.host.mux.send_room(slow), 0, "nothing was consumed");

    let quick = pair.host.open(port::CELLS).unwrap();
    let control = pair.host.open(port::CONTROL).unwrap();
    for _ in 0..32 {
        assert_eq!(pair.host.send(quick, MUX_TURN_BYTES), MUX_TURN_BYTES);
        assert_eq!(pair.host.send(control, 100), 100);
        pair.move_all();
        pair.guest.consume(quick, usize::MAX);
        pair.guest.consume(control, usize::MAX);
        pair.move_all();
    }
    assert_eq!(pair.guest.streams[&quick].received, 32 * MUX_TURN_BYTES);
    assert_eq!(pair.guest.streams[&control].received, 3200);
    assert_eq!(pair.host.mux.send_room(slow), 0);

    pair.settle();
    assert_eq!(pair.host.mux.send_room(slow), MUX_WINDOW_BYTES);
}

#[test]
fn control_goes_first_and_the_others_take_turns() {
    let mut pair = Pair::ready();
    let one = pair.host.open(port::CELLS).unwrap();
    let two = pair.host.open(port::FILES).unwrap();
    let control = pair.host.open(port::CONTROL).unwrap();
    pair.settle();
    pair.host.send(one, 3 * MUX_TURN_BYTES);
    pair.host.send(two, MUX_TURN_BYTES + 1);
    pair.host.send(control, 10);
    pair.host.finish(one);
    pair.host.open(port::CELLS).unwrap();

    let mut bytes = Vec::new();
    pair.host.mux.take_output(&mut bytes, usize::MAX);
    let order: Vec<(u8, u32, usize)> = frames(&bytes);
    let data = Kind::Data as u8;
    assert_eq!(
        order,
        [
            (Kind::Open as u8, control.get() + 2, 4),
            (data, control.get(), 10),
            (data, one.get(), MUX_TURN_BYTES),
            (data, two.get(), MUX_TURN_BYTES),
            (data, one.get(), MUX_TURN_BYTES),
            (data, two.get(), 1),
            (data, one.get(), MUX_TURN_BYTES),
            (Kind::Fin as u8, one.get(), 0),
        ]
    );
}

#[test]
fn output_is_cut_to_any_size_that_holds_a_frame() {
    let mut pair = Pair::ready();
    let id = pair.host.open(port::CELLS).unwrap();
    pair.host.send(id, 1000);
    pair.host.finish(id);
    while pair.host.mux.has_output() {
        pair.transmit(Role::Host, 64);
    }
    pair.settle();
    pair.check();
    assert_eq!(pair.guest.streams[&id].received, 1000);
}

#[test]
fn each_direction_ends_by_itself() {
    let mut pair = Pair::ready();
    let id = pair.host.open(port::CELLS).unwrap();
    pair.host.send(id, 10);
    pair.host.finish(id);
    assert_eq!(pair.host.send(id, 10), 0, "nothing may follow the end");
    pair.settle();
    assert!(pair.guest.streams[&id].peer_finished);
    assert_eq!(pair.guest.send(id, 600), 600);
    pair.guest.finish(id);
    pair.settle();
    pair.check();
    assert_eq!(
        pair.host.mux.stream_count() + pair.guest.mux.stream_count(),
        0
    );
}

#[test]
fn a_closed_port_is_refused_and_what_was_pipelined_is_dropped() {
    let mut pair = Pair::ready();
    let id = pair.host.open(CLOSED_PORT).unwrap();
    pair.host.send(id, 100_000);
    pair.host.finish(id);
    pair.settle();
    assert_eq!(
        pair.host.streams[&id].reset_there,
        Some(ResetReason::Refused)
    );
    assert_eq!(
        pair.host.mux.stream_count() + pair.guest.mux.stream_count(),
        0
    );
}

#[test]
fn a_reset_reaches_the_peer_and_drops_what_waits() {
    let mut pair = Pair::ready();
    let id = pair.host.open(port::CELLS).unwrap();
    pair.settle();
    pair.guest.send(id, MUX_WINDOW_BYTES);
    pair.host.reset(id);
    pair.settle();
    assert_eq!(
        pair.guest.streams[&id].reset_there,
        Some(ResetReason::Closed)
    );
    assert_eq!(
        pair.host.mux.stream_count() + pair.guest.mux.stream_count(),
        0
    );
}

#[test]
fn a_closed_stream_still_sends_what_is_queued_and_hears_nothing() {
    let mut pair = Pair::ready();
    let id = pair.host.open(port::FILES).unwrap();
    pair.settle();
    pair.host.send(id, MUX_WINDOW_BYTES);
    pair.guest.send(id, 1000);
    pair.host.close(id);
    assert_eq!(pair.host.send(id, 1), 0);
    pair.settle();
    assert_eq!(pair.guest.streams[&id].received, MUX_WINDOW_BYTES);
    assert_eq!(
        pair.guest.streams[&id].reset_there,
        Some(ResetReason::Closed)
    );
    assert_eq!(pair.host.streams[&id].received, 0);
    assert_eq!(
        pair.host.mux.stream_count() + pair.guest.mux.stream_count(),
        0
    );
}

#[test]
fn credit_comes_back_in_steps() {
    let mut pair = Pair::ready();
    let id = pair.host.open(port::CELLS).unwrap();
    pair.host.send(id, MUX_WINDOW_BYTES);
    pair.move_all();
    pair.guest.consume(id, MUX_TURN_BYTES - 1);
    assert!(!pair.guest.mux.has_output(), "not worth a frame yet");
    pair.guest.consume(id, 1);
    pair.move_all();
    assert_eq!(pair.host.mux.send_room(id), MUX_TURN_BYTES);
    assert_eq!(pair.host.streams[&id].writable, 1);
}

#[test]
fn the_last_stream_opens_and_one_more_does_not() {
    let mut pair = Pair::ready();
    for _ in 0..MUX_STREAMS {
        pair.host.open(port::CELLS).unwrap();
    }
    assert_eq!(pair.host.open(port::CELLS), Err(MuxError::TooManyStreams));
    pair.settle();
    let first = pair.host.nth(0).unwrap();
    pair.host.reset(first);
    pair.host.open(port::CELLS).unwrap();
    pair.settle();
    pair.check();
}

#[test]
fn streams_of_the_peer_count_too() {
    let mut pair = Pair::ready();
    for _ in 0..MUX_STREAMS {
        pair.host.open(port::CELLS).unwrap();
    }
    // The guest has not heard of those yet.
    let one_too_many = pair.guest.open(port::CELLS).unwrap();
    pair.settle();
    assert_eq!(
        pair.guest.streams[&one_too_many].reset_there,
        Some(ResetReason::Busy)
    );
}

#[test]
fn an_epoch_that_is_not_new_is_passed_over() {
    let mut pair = Pair::ready();
    let mut stale = Vec::new();
    Mux::new(Role::Host, 1).take_output(&mut stale, usize::MAX);
    let id = pair.host.open(port::CELLS).unwrap();
    pair.settle();
    pair.guest.inbox.extend(stale);
    pair.settle();
    assert_eq!(pair.guest.epochs, [1]);
    pair.host.send(id, 5);
    pair.settle();
    assert_eq!(pair.guest.streams[&id].received, 5);
}

#[test]
fn a_guest_hears_nothing_before_it_is_greeted() {
    let mut host = Mux::new(Role::Host, 4);
    let mut bytes = Vec::new();
    host.take_output(&mut bytes, usize::MAX);
    bytes.clear();
    host.open(port::CELLS).unwrap();
    host.take_output(&mut bytes, usize::MAX);
    let mut guest = Mux::new(Role::Guest, 0);
    guest.receive(&bytes).unwrap();
    assert_eq!(guest.event(), None);
    assert!(guest.is_quiet());
}

#[test]
fn half_a_frame_is_not_quiet() {
    let mut host = Mux::new(Role::Host, 1);
    assert!(!host.is_quiet(), "the greeting waits");
    let mut bytes = Vec::new();
    host.take_output(&mut bytes, usize::MAX);
    assert!(host.is_quiet());
    let mut guest = Mux::new(Role::Guest, 0);
    guest.receive(&bytes[..bytes.len() - 1]).unwrap();
    assert!(!guest.is_quiet());
    guest.receive(&bytes[bytes.len() - 1..]).unwrap();
    assert_eq!(guest.event(), Some(MuxEvent::Epoch { epoch: 1 }));
    assert!(!guest.is_quiet(), "the answer waits");
}
