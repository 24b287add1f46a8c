//! Bytes that no honest peer sends.

use proptest::prelude::*;
use vmrepl_wire::limits::{MUX_CONTROL_BACKLOG, MUX_PAYLOAD_BYTES, MUX_WINDOW_BYTES};
use vmrepl_wire::mux::{Kind, Mux, MuxError, Role};
use vmrepl_wire::port;

fn frame(kind: u8, epoch: u32, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x56, 0x4D, kind, 0];
    bytes.extend(epoch.to_be_bytes());
    bytes.extend(stream.to_be_bytes());
    bytes.extend(
        u32::try_from(payload.len())
            .expect("a short payload")
            .to_be_bytes(),
    );
    bytes.extend(payload);
    bytes
}

fn number(kind: Kind, stream: u32, number: u32) -> Vec<u8> {
    frame(kind as u8, 1, stream, &number.to_be_bytes())
}

/// A guest in epoch 1 with stream 2 open.
fn guest() -> Mux {
    let mut guest = Mux::new(Role::Guest, 0);
    guest
        .receive(&number(Kind::Hello, 0, 1))
        .expect("a greeting");
    guest
        .receive(&number(Kind::Open, 2, port::CELLS))
        .expect("a stream");
    while guest.event().is_some() {}
    guest
}

fn error_of(bytes: &[u8]) -> MuxError {
    let mut guest = guest();
    let error = guest.receive(bytes).expect_err("these bytes break a rule");
    assert_eq!(guest.receive(b""), Err(error), "the channel stays lost");
    error
}

#[test]
fn headers_are_checked() {
    let good = frame(Kind::Data as u8, 1, 2, b"x");
    let with = |at: usize, value: u8| {
        let mut bytes = good.clone();
        bytes[at] = value;
        bytes
    };
    assert_eq!(error_of(&with(0, 0x57)), MuxError::Magic { magic: 0x574D });
    assert_eq!(error_of(&with(2, 0)), MuxError::Kind { kind: 0 });
    assert_eq!(error_of(&with(2, 8)), MuxError::Kind { kind: 8 });
    assert_eq!(error_of(&with(3, 1)), MuxError::Reserved { value: 1 });
    assert_eq!(
        error_of(&with(12, 1)),
        MuxError::TooLong {
            length_bytes: 0x0100_0001
        }
    );
}

#[test]
fn the_longest_payload_passes_and_one_more_byte_does_not() {
    guest()
        .receive(&frame(Kind::Data as u8, 1, 2, &vec![0; MUX_PAYLOAD_BYTES]))
        .unwrap();
    let length_bytes = u32::try_from(MUX_PAYLOAD_BYTES + 1).unwrap();
    let long = frame(Kind::Data as u8, 1, 2, &vec![0; MUX_PAYLOAD_BYTES + 1]);
    assert_eq!(error_of(&long), MuxError::TooLong { length_bytes });
}

#[test]
fn data_within_the_credit_passes_and_one_more_byte_does_not() {
    let mut guest = guest();
    for _ in 0..MUX_WINDOW_BYTES / MUX_PAYLOAD_BYTES {
        guest
            .receive(&frame(Kind::Data as u8, 1, 2, &vec![0; MUX_PAYLOAD_BYTES]))
            .unwrap();
    }
    let error = MuxError::Credit {
        stream: 2,
        length_bytes: 1,
        credit_bytes: 0,
    };
    assert_eq!(
        guest.receive(&frame(Kind::Data as u8, 1, 2, b"x")),
        Err(error)
    );
}

#[test]
fn grants_beyond_the_window_or_of_nothing_are_refused() {
    let grant = |granted_bytes| MuxError::Grant {
        stream: 2,
        granted_bytes,
    };
    assert_eq!(error_of(&number(Kind::Credit, 2, 1)), grant(1));
    assert_eq!(error_of(&number(Kind::Credit, 2, 0)), grant(0));
    assert_eq!(
        error_of(&number(Kind::Credit, 2, u32::MAX)),
        grant(u32::MAX)
    );
}

#[test]
fn frames_must_fit_the_streams_state() {
    let unexpected = |kind, stream| MuxError::Unexpected { kind, stream };
    assert_eq!(
        error_of(&frame(Kind::Data as u8, 1, 4, b"x")),
        unexpected(Kind::Data, 4)
    );
    assert_eq!(
        error_of(&frame(Kind::Data as u8, 1, 0, b"x")),
        unexpected(Kind::Data, 0)
    );
    assert_eq!(
        error_of(&frame(Kind::Fin as u8, 1, 1, b"")),
        unexpected(Kind::Fin, 1)
    );
    assert_eq!(
        error_of(&number(Kind::Open, 2, 9)),
        unexpected(Kind::Open, 2)
    );
    assert_eq!(
        error_of(&number(Kind::Open, 3, 9)),
        unexpected(Kind::Open, 3)
    );
    assert_eq!(
        error_of(&number(Kind::Open, 0, 9)),
        unexpected(Kind::Open, 0)
    );
    let mut twice = frame(Kind::Fin as u8, 1, 2, b"");
    twice.extend(frame(Kind::Fin as u8, 1, 2, b""));
    assert_eq!(error_of(&twice), unexpected(Kind::Fin, 2));
    let mut late = frame(Kind::Fin as u8, 1, 2, b"");
    late.extend(frame(Kind::Data as u8, 1, 2, b"x"));
    assert_eq!(error_of(&late), unexpected(Kind::Data, 2));
    let mut twice = frame(Kind::Accept as u8, 1, 1, b"");
    twice.extend(frame(Kind::Accept as u8, 1, 1, b""));
    let mut guest = guest();
    guest.open(port::CELLS).unwrap();
    assert_eq!(guest.receive(&twice), Err(unexpected(Kind::Accept, 1)));
}

#[test]
fn numbers_must_be_there_and_more_may_follow() {
    let error = MuxError::Payload {
        kind: Kind::Open,
        length_bytes: 3,
    };
    assert_eq!(error_of(&frame(Kind::Open as u8, 1, 4, b"123")), error);
    guest()
        .receive(&frame(Kind::Open as u8, 1, 4, b"\0\0\0\x09 and more"))
        .unwrap();
}

#[test]
fn another_generation_is_told_to_the_host() {
    let mut host = Mux::new(Role::Host, 1);
    let answer = number(Kind::Hello, 0, 2);
    assert_eq!(
        host.receive(&answer),
        Err(MuxError::Generation { theirs: 2 })
    );
}

#[test]
fn a_peer_that_never_reads_cannot_make_answers_pile_up() {
    let mut guest = guest();
    let mut result = Ok(());
    let mut opened = 0;
    for stream in (4..).step_by(2) {
        result = guest.receive(&number(Kind::Open, stream, 1));
        while let Some(event) = guest.event() {
            if let vmrepl_wire::mux::MuxEvent::Opened { id, .. } = event {
                guest.refuse(id);
            }
        }
        if result.is_err() {
            break;
        }
        opened += 1;
    }
    assert_eq!(result, Err(MuxError::Backlog));
    assert!(opened <= MUX_CONTROL_BACKLOG);
}

/// A host's half of a lively conversation.
fn conversation() -> Vec<u8> {
    let mut host = Mux::new(Role::Host, 1);
    let mut bytes = Vec::new();
    for port in [port::CONTROL, port::CELLS, port::FILES] {
        let id = host.open(port).expect("room for a stream");
        host.send(id, &[7; 100]);
        host.take_output(&mut bytes, usize::MAX);
        host.send(id, &[8; 2]);
        host.finish(id);
    }
    host.take_output(&mut bytes, usize::MAX);
    bytes
}

fn feed(role: Role, bytes: &[u8], chunk: usize) {
    let mut mux = Mux::new(role, u32::from(role == Role::Host));
    for part in bytes.chunks(chunk) {
        let result = mux.receive(part);
        while mux.event().is_some() {}
        if let Err(error) = result {
            assert_eq!(mux.receive(part), Err(error));
            assert!(!error.to_string().is_empty());
            break;
        }
        let mut out = Vec::new();
        mux.take_output(&mut out, usize::MAX);
    }
}

proptest! {
    #[test]
    fn corrupted_bytes_never_panic(
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        chunk in 1..200_usize,
        host in any::<bool>(),
    ) {
        let mut bytes = conversation();
        for (index, value) in flips {
            let at = index.index(bytes.len());
            bytes[at] = value;
        }
        feed(if host { Role::Host } else { Role::Guest }, &bytes, chunk);
    }

    #[test]
    fn random_frames_never_panic(
        frames in prop::collection::vec(
            (1..8_u8, 0..3_u32, 0..8_u32, prop::collection::vec(any::<u8>(), 0..16)),
            0..60,
        ),
        host in any::<bool>(),
    ) {
        let mut bytes = number(Kind::Hello, 0, 1);
        for (kind, epoch, stream, payload) in frames {
            bytes.extend(frame(kind, epoch, stream, &payload));
        }
        feed(if host { Role::Host } else { Role::Guest }, &bytes, 4096);
    }
}
