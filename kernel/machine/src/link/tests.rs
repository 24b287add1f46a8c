//! The link against a real multiplexer at the other end of a socket pair.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::Receiver;
use std::thread::JoinHandle;
use std::time::Duration;

use vmrepl_wire::limits::{MUX_STREAMS, MUX_WINDOW_BYTES};
use vmrepl_wire::mux::{MuxError, ResetReason};
use vmrepl_wire::port;

use super::guest_end::{self, BLOCK_BYTES, ECHO, HOLE, LEAVER, Notice, SINK, SOURCE, block};
use super::{Link, LinkError, LostReason};

const CLOSED_PORT: u32 = 13;
const DEADLINE: Duration = Duration::from_secs(60);

#[derive(Debug)]
struct Pair {
    link: Link,
    notices: Receiver<Notice>,
    guest: JoinHandle<()>,
}

fn channel() -> (OwnedFd, UnixStream) {
    let (host, guest) = UnixStream::pair().expect("a socket pair");
    (host.into(), guest)
}

fn pair() -> Pair {
    let (host, guest) = channel();
    let link = Link::start(host, 3).expect("a link");
    let (notices, guest) = guest_end::start(guest);
    let pair = Pair {
        link,
        notices,
        guest,
    };
    assert_eq!(pair.notice(), Notice::Epoch(3));
    pair
}

impl Pair {
    fn notice(&self) -> Notice {
        self.notices
            .recv_timeout(DEADLINE)
            .expect("a notice in time")
    }

    fn connect(&self, port: u32) -> UnixStream {
        timed(self.link.connect(port).expect("a stream"))
    }
}

fn timed(stream: UnixStream) -> UnixStream {
    stream.set_read_timeout(Some(DEADLINE)).expect("a socket");
    stream.set_write_timeout(Some(DEADLINE)).expect("a socket");
    stream
}

fn rest(mut stream: &UnixStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).expect("an end in time");
    bytes
}

fn read_blocks(mut stream: &UnixStream, numbers: std::ops::Range<u64>) {
    let mut bytes = vec![0; BLOCK_BYTES];
    for number in numbers {
        stream.read_exact(&mut bytes).expect("a block in time");
        assert!(bytes == block(number), "block {number} differs");
    }
}

fn sink(mut stream: UnixStream, blocks: u64) {
    for number in 0..blocks {
        stream.write_all(&block(number)).expect("room in time");
    }
    stream.shutdown(Shutdown::Write).expect("a half-close");
    assert_eq!(
        rest(&stream),
        blocks.to_be_bytes(),
        "blocks that were right"
    );
}

fn source(mut stream: UnixStream, blocks: u64) {
    stream.write_all(&blocks.to_be_bytes()).expect("room");
    read_blocks(&stream, 0..blocks);
    assert_eq!(rest(&stream), b"");
}

#[test]
fn what_is_written_before_the_guest_runs_waits_for_it() {
    let (host, guest) = channel();
    let link = Link::start(host, 1).unwrap();
    let stream = timed(link.connect(ECHO).unwrap());
    (&stream).write_all(b"first cell\n").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let (_notices, _guest) = guest_end::start(guest);
    assert_eq!(rest(&stream), b"first cell\n");
}

#[test]
fn each_direction_ends_by_itself() {
    let pair = pair();
    let stream = pair.connect(SOURCE);
    (&stream).write_all(&1_u64.to_be_bytes()).unwrap();
    read_blocks(&stream, 0..1);
    assert_eq!(rest(&stream), b"", "the guest has ended");
    (&stream).write_all(b"and the host goes on").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(pair.notice(), Notice::Opened(SOURCE));
    assert_eq!(pair.notice(), Notice::Finished(SOURCE, 28));
}

#[test]
fn a_hundred_megabytes_each_way_at_once() {
    let pair = pair();
    let blocks = (100 << 20) / BLOCK_BYTES as u64;
    let (up, down) = (pair.connect(SINK), pair.connect(SOURCE));
    std::thread::scope(|scope| {
        scope.spawn(|| sink(up, blocks));
        scope.spawn(|| source(down, blocks));
    });
}

#[test]
fn many_streams_at_once() {
    let pair = pair();
    std::thread::scope(|scope| {
        for index in 0..60_u64 {
            let port = if index % 2 == 0 { SINK } else { SOURCE };
            let stream = pair.connect(port);
            scope.spawn(move || match port {
                SINK => sink(stream, index),
                _ => source(stream, index),
            });
        }
    });
}

#[test]
fn held_streams_wait_and_lose_nothing() {
    let pair = pair();
    let (echo, control) = (pair.connect(ECHO), pair.connect(port::CONTROL));
    let ask = |stream: &UnixStream, said: &[u8; 4]| {
        let (mut stream, mut heard) = (stream, [0; 4]);
        stream.write_all(said).unwrap();
        stream.read_exact(&mut heard).unwrap();
        assert_eq!(heard, *said);
    };
    ask(&echo, b"once");
    ask(&control, b"ctrl");
    for round in 0..50 {
        pair.link.hold().unwrap();
        // A second word changes nothing.
        pair.link.hold().unwrap();
        (&echo).write_all(b"held").unwrap();
        let late = pair.connect(ECHO);
        (&late).write_all(b"late").unwrap();
        // The guest answers here after all that it had before.
        ask(&control, b"ctrl");
        for waiting in [&echo, &late] {
            waiting.set_nonblocking(true).unwrap();
            let heard = (&*waiting).read(&mut [0; 4]);
            let nothing = heard.unwrap_err();
            assert_eq!(nothing.kind(), std::io::ErrorKind::WouldBlock, "{round}");
            waiting.set_nonblocking(false).unwrap();
        }
        pair.link.go();
        for (stream, expected) in [(&echo, b"held"), (&late, b"late")] {
            let mut heard = [0; 4];
            (&*stream).read_exact(&mut heard).unwrap();
            assert_eq!(&heard, expected);
        }
    }
    drop(pair.link);
}

#[test]
fn a_slow_reader_holds_up_nobody_else() {
    let pair = pair();
    let blocks = 40_u64;
    let slow = pair.connect(SOURCE);
    (&slow).write_all(&blocks.to_be_bytes()).unwrap();
    let hole = pair.connect(HOLE);
    hole.set_nonblocking(true).unwrap();
    let mut stuffed = 0;
    let mut control = pair.connect(port::CONTROL);
    for round in 0..200_u32 {
        while let Ok(count) = (&hole).write(&[0; 4096]) {
            stuffed += count;
        }
        control.write_all(&round.to_be_bytes()).unwrap();
        let mut answer = [0; 4];
        control.read_exact(&mut answer).unwrap();
        assert_eq!(answer, round.to_be_bytes());
    }
    // The window, and what the two sockets' own buffers hold.
    assert!(stuffed >= MUX_WINDOW_BYTES, "{stuffed}");
    assert!(stuffed < MUX_WINDOW_BYTES + (1 << 20), "{stuffed}");
    read_blocks(&slow, 0..blocks);
    assert_eq!(rest(&slow), b"");
}

#[test]
fn the_last_bytes_of_a_client_that_leaves_arrive() {
    let pair = pair();
    let bytes = 8 * BLOCK_BYTES as u64;
    for _ in 0..20 {
        let stream = pair.connect(SINK);
        for number in 0..8 {
            (&stream).write_all(&block(number)).unwrap();
        }
        drop(stream);
        let mut notice = pair.notice();
        // The guest's answer to the client before may have found nobody.
        if let Notice::Reset(SINK, received, ResetReason::Closed) = notice {
            assert_eq!(received, bytes);
            notice = pair.notice();
        }
        assert_eq!(notice, Notice::Opened(SINK));
        // Where it is heard that the client is gone before all could be sent, one word says both.
        match pair.notice() {
            Notice::Finished(SINK, received)
            | Notice::Reset(SINK, received, ResetReason::Closed) => assert_eq!(received, bytes),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_client_that_leaves_is_told_to_the_guest() {
    let pair = pair();
    let stream = pair.connect(SOURCE);
    (&stream).write_all(&10_000_u64.to_be_bytes()).unwrap();
    read_blocks(&stream, 0..1);
    drop(stream);
    assert_eq!(pair.notice(), Notice::Opened(SOURCE));
    let mut notice = pair.notice();
    if let Notice::Finished(SOURCE, 8) = notice {
        notice = pair.notice();
    }
    assert_eq!(notice, Notice::Reset(SOURCE, 8, ResetReason::Closed));
}

#[test]
fn output_goes_on_after_the_client_has_ended_its_side() {
    let pair = pair();
    let stream = pair.connect(SOURCE);
    (&stream).write_all(&100_u64.to_be_bytes()).unwrap();
    // The first block has come, so the rest piles up before the end is heard.
    read_blocks(&stream, 0..1);
    stream.shutdown(Shutdown::Write).unwrap();
    read_blocks(&stream, 1..100);
    assert_eq!(rest(&stream), b"");
}

#[test]
fn the_last_bytes_of_a_guest_that_leaves_arrive() {
    let pair = pair();
    // More than the socket holds: the rest waits at our side while the guest has gone.
    let blocks = 6;
    let slow = pair.connect(LEAVER);
    (&slow).write_all(&u64::to_be_bytes(blocks)).unwrap();
    assert_eq!(pair.notice(), Notice::Opened(LEAVER));
    // Streams take turns: by the time that this one has come back, the end of the first has been heard.
    let echo = pair.connect(ECHO);
    let mut back = vec![0; BLOCK_BYTES];
    for number in 0..16 {
        (&echo).write_all(&block(number)).unwrap();
        (&echo).read_exact(&mut back).unwrap();
    }
    read_blocks(&slow, 0..blocks);
    assert_eq!(rest(&slow), b"");
}

#[test]
fn a_closed_port_shows_as_the_end() {
    let pair = pair();
    assert_eq!(rest(&pair.connect(CLOSED_PORT)), b"");
}

#[test]
fn one_stream_too_many_shows_as_the_end() {
    let pair = pair();
    let streams: Vec<UnixStream> = (0..MUX_STREAMS).map(|_| pair.connect(ECHO)).collect();
    assert_eq!(rest(&pair.connect(ECHO)), b"");
    (&streams[MUX_STREAMS - 1]).write_all(b"x").unwrap();
    streams[MUX_STREAMS - 1].shutdown(Shutdown::Write).unwrap();
    assert_eq!(rest(&streams[MUX_STREAMS - 1]), b"x");
    (&pair.connect(ECHO))
        .write_all(b"there is room again")
        .unwrap();
}

#[test]
fn a_guest_that_speaks_nonsense_is_lost() {
    let (host, mut guest) = channel();
    let link = Link::start(host, 1).unwrap();
    let stream = timed(link.connect(ECHO).unwrap());
    assert_eq!(link.lost(), None);
    guest.write_all(&[0; 16]).unwrap();
    assert_eq!(rest(&stream), b"");
    // The streams end with the thread, just after it has noted why.
    let reason = LostReason::Broken(MuxError::Magic { magic: 0 });
    assert_eq!(link.lost(), Some(reason.clone()));
    let error = link.connect(ECHO).unwrap_err();
    assert!(matches!(error, LinkError::Lost { reason: told } if told == reason));
}

#[test]
fn a_machine_that_ends_is_lost() {
    let (host, guest) = channel();
    let link = Link::start(host, 1).unwrap();
    let stream = timed(link.connect(ECHO).unwrap());
    drop(guest);
    assert_eq!(rest(&stream), b"");
    assert_eq!(link.lost(), Some(LostReason::Closed));
}

#[test]
fn dropping_the_link_ends_everything() {
    let pair = pair();
    let stream = pair.connect(ECHO);
    assert_eq!(pair.notice(), Notice::Opened(ECHO));
    drop(pair.link);
    assert_eq!(rest(&stream), b"");
    assert_eq!(
        pair.notices.recv_timeout(DEADLINE).unwrap(),
        Notice::ChannelEnded
    );
    pair.guest.join().unwrap();
}

fn doorway() -> (Pair, tempfile::TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("machine.sock");
    let pair = pair();
    pair.link.listen(&path).unwrap();
    (pair, folder, path)
}

#[test]
fn the_socket_is_for_its_owner_alone() {
    let (_pair, _folder, path) = doorway();
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn a_client_says_connect_and_gets_its_stream() {
    let (pair, _folder, path) = doorway();
    let said = format!("CONNECT {ECHO}\nand what follows");
    for cut in 1..said.len() {
        let mut client = timed(UnixStream::connect(&path).unwrap());
        for piece in said.as_bytes().chunks(cut) {
            client.write_all(piece).unwrap();
        }
        client.shutdown(Shutdown::Write).unwrap();
        let answer = String::from_utf8(rest(&client)).unwrap();
        let (ok, echoed) = answer.split_once('\n').unwrap();
        assert!(ok.strip_prefix("OK ").unwrap().parse::<u32>().unwrap() > 0);
        assert_eq!(echoed, "and what follows");
    }
    assert_eq!(pair.link.lost(), None);
}

#[test]
fn a_client_for_a_closed_port_gets_no_ok() {
    let (_pair, _folder, path) = doorway();
    let mut client = timed(UnixStream::connect(&path).unwrap());
    client.write_all(b"CONNECT 13\n").unwrap();
    assert_eq!(rest(&client), b"");
}

#[test]
fn nonsense_at_the_door_ends_there() {
    let (pair, _folder, path) = doorway();
    for said in [&b"GET / HTTP/1.1\r\n"[..], &[b'C'; 33], b"CONNECT x\n"] {
        let mut client = timed(UnixStream::connect(&path).unwrap());
        client.write_all(said).unwrap();
        let mut byte = [0];
        // The door may close on unread bytes, which is an error rather than an end.
        assert!(!matches!(client.read(&mut byte), Ok(1)), "{said:?}");
    }
    drop(UnixStream::connect(&path).unwrap());
    let mut client = timed(UnixStream::connect(&path).unwrap());
    client.write_all(b"CONNECT 20\n").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert!(rest(&client).starts_with(b"OK "));
    assert_eq!(
        pair.notice(),
        Notice::Opened(ECHO),
        "the first that the guest hears"
    );
}
