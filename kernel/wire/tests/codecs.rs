//! Lines, frames and handshakes: any chunking, and each limit at and one past.

use proptest::prelude::*;
use vmrepl_wire::cell::{Event, Output, OutputStream, text_boundary, write_output};
use vmrepl_wire::connect::{self, ConnectError, HandshakeParser};
use vmrepl_wire::files::{self, FilesDecoder, FilesFrameError, Tag};
use vmrepl_wire::limits::{
    CONNECT_LINE_BYTES, FILES_PAYLOAD_BYTES, LINE_BYTES, RUNNER_PAYLOAD_BYTES,
};
use vmrepl_wire::line::{LineDecoder, TooLong};
use vmrepl_wire::runner::{self, Kind, RunnerDecoder, RunnerFrameError};

/// Cuts `bytes` into pieces of the sizes in `cuts`, over and over.
fn pieces<'a>(bytes: &'a [u8], cuts: &'a [usize]) -> impl Iterator<Item = &'a [u8]> {
    let mut rest = bytes;
    cuts.iter().cycle().map_while(move |cut| {
        let (piece, after) = rest.split_at((*cut).min(rest.len()));
        rest = after;
        (!piece.is_empty()).then_some(piece)
    })
}

fn cuts() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(1..300_usize, 1..8)
}

type Lines = Vec<Result<Vec<u8>, TooLong>>;

fn lines(decoder: &mut LineDecoder, bytes: &[u8], cuts: &[usize]) -> Lines {
    let mut found = Vec::new();
    for piece in pieces(bytes, cuts) {
        decoder.push(piece);
        while let Some(line) = decoder.line() {
            found.push(line.map(<[u8]>::to_vec));
        }
    }
    found
}

const RUNNER_KINDS: [Kind; 13] = [
    Kind::Request,
    Kind::Closed,
    Kind::Resumed,
    Kind::Exit,
    Kind::Taken,
    Kind::Signalled,
    Kind::Exceeded,
    Kind::Ready,
    Kind::Line,
    Kind::Started,
    Kind::Done,
    Kind::ResumedAck,
    Kind::Received,
];

const TAGS: [Tag; 5] = [Tag::Control, Tag::Stdout, Tag::Stderr, Tag::File, Tag::End];

proptest! {
    #[test]
    fn lines_come_out_as_they_went_in(
        contents in prop::collection::vec("[^\r\n]{0,150}", 0..30),
        returns in any::<bool>(),
        limit in 20..200_usize,
        tail in "[a-z]{0,10}",
        cuts in cuts(),
    ) {
        let mut bytes = Vec::new();
        for content in &contents {
            bytes.extend(content.as_bytes());
            bytes.extend(if returns { &b"\r\n"[..] } else { b"\n" });
        }
        bytes.extend(tail.as_bytes());
        let mut decoder = LineDecoder::new(limit);
        let found = lines(&mut decoder, &bytes, &cuts);
        let expected: Lines = contents
            .iter()
            .map(|content| {
                let over = content.len() + usize::from(returns) > limit;
                if over { Err(TooLong { limit_bytes: limit }) } else { Ok(content.clone().into()) }
            })
            .collect();
        prop_assert_eq!(found, expected);
        prop_assert_eq!(decoder.is_empty(), tail.is_empty());
        prop_assert_eq!(decoder.rest().unwrap_or_default(), tail.as_bytes());
    }

    #[test]
    fn runner_frames_come_out_as_they_went_in(
        frames in prop::collection::vec(
            (0..RUNNER_KINDS.len(), any::<u32>(), prop::collection::vec(any::<u8>(), 0..400)),
            0..30,
        ),
        cuts in cuts(),
    ) {
        let mut bytes = Vec::new();
        for (kind, connection, payload) in &frames {
            runner::encode(RUNNER_KINDS[*kind], *connection, payload, &mut bytes)?;
        }
        let mut decoder = RunnerDecoder::default();
        let mut found = 0;
        for piece in pieces(&bytes, &cuts) {
            decoder.push(piece);
            while let Some(frame) = decoder.frame()? {
                let (kind, connection, payload) = &frames[found];
                prop_assert_eq!(frame.kind, RUNNER_KINDS[*kind]);
                prop_assert_eq!(frame.connection, *connection);
                prop_assert_eq!(frame.payload, payload);
                found += 1;
            }
        }
        prop_assert_eq!(found, frames.len());
        prop_assert!(decoder.is_empty());
    }

    #[test]
    fn files_frames_come_out_as_they_went_in(
        frames in prop::collection::vec(
            (0..TAGS.len(), prop::collection::vec(any::<u8>(), 0..400)),
            0..30,
        ),
        cuts in cuts(),
    ) {
        let mut bytes = Vec::new();
        for (tag, payload) in &frames {
            files::encode(TAGS[*tag], payload, &mut bytes)?;
        }
        let mut decoder = FilesDecoder::default();
        let mut found = 0;
        for piece in pieces(&bytes, &cuts) {
            decoder.push(piece);
            while let Some(frame) = decoder.frame()? {
                prop_assert_eq!(frame.tag, TAGS[frames[found].0]);
                prop_assert_eq!(frame.payload, &frames[found].1);
                found += 1;
            }
        }
        prop_assert_eq!(found, frames.len());
        prop_assert!(decoder.is_empty());
    }

    #[test]
    fn numbers_come_back_to_the_last_digit(number in any::<f64>()) {
        let text = serde_json::to_string(&number)?;
        let line = format!(r#"{{"type":"result","data":{{"application/json":{text}}},"metadata":{{}}}}"#);
        let event: Event = serde_json::from_str(&line)?;
        prop_assert_eq!(serde_json::to_string(&event)?, line);
    }

    #[test]
    fn foreign_bytes_never_panic(
        bytes in prop::collection::vec(prop_oneof![0..6_u8, any::<u8>()], 0..2000),
        cuts in cuts(),
    ) {
        lines(&mut LineDecoder::new(50), &bytes, &cuts);
        let (mut runner, mut files) = (RunnerDecoder::default(), FilesDecoder::default());
        let mut handshake = HandshakeParser::request();
        let mut shaking = true;
        for piece in pieces(&bytes, &cuts) {
            runner.push(piece);
            while matches!(runner.frame(), Ok(Some(_))) {}
            files.push(piece);
            while matches!(files.frame(), Ok(Some(_))) {}
            shaking = shaking && matches!(handshake.push(piece), Ok(None));
        }
    }

    #[test]
    fn output_events_carry_any_bytes(
        bytes in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..100),
            ".{0,40}".prop_map(String::into_bytes),
        ],
        id in proptest::option::of("[a-z\"]{0,4}"),
    ) {
        let mut line = Vec::new();
        write_output(OutputStream::Stderr, id.as_deref(), &bytes, &mut line);
        prop_assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
        let event: Event = serde_json::from_slice(&line).expect("an event");
        prop_assert_eq!(event, Event::Stderr(Output::new(id, bytes)));
    }

    #[test]
    fn text_is_cut_between_characters(text in ".{0,40}", at in any::<prop::sample::Index>()) {
        let cut = at.index(text.len() + 1);
        let boundary = text_boundary(&text.as_bytes()[..cut]);
        prop_assert!(text.is_char_boundary(boundary));
        prop_assert!(cut - boundary < 4);
        prop_assert_eq!(text_boundary(text.as_bytes()), text.len());
    }
}

#[test]
fn bytes_that_never_become_text_are_not_held_back() {
    for bytes in [
        &b"a\xFF"[..],
        b"\x80\x80\x80\x80",
        b"a\xC0",
        b"\xE2\x82\xAC",
    ] {
        assert_eq!(text_boundary(bytes), bytes.len());
    }
    assert_eq!(text_boundary(b"a\xE2\x82"), 1);
}

#[test]
fn the_longest_line_passes_and_one_more_byte_does_not() {
    let mut decoder = LineDecoder::default();
    let mut line = vec![b'x'; LINE_BYTES];
    line.push(b'\n');
    decoder.push(&line);
    assert_eq!(decoder.line().unwrap().unwrap().len(), LINE_BYTES);
    let too_long = Some(Err(TooLong {
        limit_bytes: LINE_BYTES,
    }));
    decoder.push(b"x");
    decoder.push(&line);
    assert_eq!(decoder.line(), too_long, "with its newline");
    decoder.push(&line[..LINE_BYTES]);
    assert_eq!(decoder.line(), None);
    decoder.push(b"x");
    assert_eq!(decoder.line(), too_long, "before its newline");
    decoder.push(&line);
    assert_eq!(decoder.line(), None, "told once");
    decoder.push(b"{}\n");
    assert_eq!(decoder.line(), Some(Ok(&b"{}"[..])), "and then goes on");
}

#[test]
fn the_longest_runner_frame_passes_and_one_more_byte_does_not() {
    let mut bytes = Vec::new();
    let payload = vec![7; RUNNER_PAYLOAD_BYTES + 1];
    runner::encode(Kind::Line, 3, &payload[1..], &mut bytes).unwrap();
    let mut decoder = RunnerDecoder::default();
    decoder.push(&bytes);
    assert_eq!(
        decoder.frame().unwrap().unwrap().payload.len(),
        RUNNER_PAYLOAD_BYTES
    );

    let error = RunnerFrameError::TooLong {
        length_bytes: RUNNER_PAYLOAD_BYTES + 1,
    };
    assert_eq!(
        runner::encode(Kind::Line, 3, &payload, &mut bytes),
        Err(error)
    );
    let mut header = runner::header(Kind::Line, 3, RUNNER_PAYLOAD_BYTES).unwrap();
    header[8] += 1;
    decoder.push(&header);
    assert_eq!(decoder.frame(), Err(error), "before any of the payload");
}

#[test]
fn an_unknown_runner_frame_is_refused() {
    let mut decoder = RunnerDecoder::default();
    decoder.push(&[8, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(decoder.frame(), Err(RunnerFrameError::Kind { kind: 8 }));
}

#[test]
fn a_done_frame_splits_into_prefix_and_suffix() {
    assert_eq!(
        runner::split_done(b"\0\0\0\x03abcde"),
        Ok((&b"abc"[..], &b"de"[..]))
    );
    assert_eq!(
        runner::split_done(b"\0\0\0\x05abcde"),
        Ok((&b"abcde"[..], &b""[..]))
    );
    let error = |length_bytes| Err(RunnerFrameError::Done { length_bytes });
    assert_eq!(runner::split_done(b"\0\0\0\x06abcde"), error(9));
    assert_eq!(runner::split_done(b"\0\0\0"), error(3));
}

#[test]
fn the_longest_files_frame_passes_and_one_more_byte_does_not() {
    let mut bytes = Vec::new();
    let payload = vec![7; FILES_PAYLOAD_BYTES + 1];
    files::encode(Tag::File, &payload[1..], &mut bytes).unwrap();
    let mut decoder = FilesDecoder::default();
    decoder.push(&bytes);
    assert_eq!(
        decoder.frame().unwrap().unwrap().payload.len(),
        FILES_PAYLOAD_BYTES
    );

    let error = FilesFrameError::TooLong {
        length_bytes: FILES_PAYLOAD_BYTES + 1,
    };
    assert_eq!(files::encode(Tag::File, &payload, &mut bytes), Err(error));
    decoder.push(&[4, 1, 0, 0, 1]);
    assert_eq!(decoder.frame(), Err(error), "before any of the payload");
}

#[test]
fn unknown_files_tags_are_refused() {
    for tag in [0, 7, 0xFF] {
        let mut decoder = FilesDecoder::default();
        decoder.push(&[tag, 0, 0, 0, 0]);
        assert_eq!(decoder.frame(), Err(FilesFrameError::Tag { tag }));
    }
}

#[test]
fn a_handshake_leaves_the_payload_alone() {
    for cut in 1..20 {
        let bytes = b"CONNECT 10000\n{\"code\": \"1\"}\n";
        let mut parser = HandshakeParser::request();
        assert!(parser.is_empty());
        let mut offset = 0;
        for piece in pieces(bytes, &[cut]) {
            if let Some(handshake) = parser.push(piece).unwrap() {
                assert_eq!(handshake.number, 10_000);
                assert_eq!(&bytes[offset + handshake.used_bytes..][..1], b"{");
                break;
            }
            assert!(!parser.is_empty());
            offset += piece.len();
        }
        assert!(offset < bytes.len(), "the line was found");
    }
}

#[test]
fn handshakes_are_what_the_parsers_read() {
    for number in [0, 9, u32::MAX] {
        let asked = connect::request(number);
        let got = HandshakeParser::request()
            .push(asked.as_bytes())
            .unwrap()
            .unwrap();
        assert_eq!((got.number, got.used_bytes), (number, asked.len()));
        let answered = connect::accepted(number);
        let got = HandshakeParser::answer()
            .push(answered.as_bytes())
            .unwrap()
            .unwrap();
        assert_eq!((got.number, got.used_bytes), (number, answered.len()));
    }
    let got = HandshakeParser::request()
        .push(b"CONNECT 9\r\nx")
        .unwrap()
        .unwrap();
    assert_eq!((got.number, got.used_bytes), (9, 11));
}

#[test]
fn other_lines_are_refused() {
    for line in [
        "\n",
        "CONNECT\n",
        "CONNECT \n",
        "CONNECT x\n",
        "CONNECT -1\n",
        "CONNECT +1\n",
        "OK 1\n",
        "connect 9\n",
        "CONNECT 4294967296\n",
        "CONNECT  9\n",
        "CONNECT 9 9\n",
        "GET / HTTP/1.1\r\n",
    ] {
        let error = HandshakeParser::request()
            .push(line.as_bytes())
            .unwrap_err();
        assert!(
            matches!(error, ConnectError::Malformed { .. }),
            "{line:?}: {error}"
        );
    }
    let error = HandshakeParser::request()
        .push(b"\x1b[2J\xFF\n")
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        r"expected `CONNECT <number>`, got `\x1b[2J\xff`"
    );
}

#[test]
fn the_longest_handshake_passes_and_one_more_byte_does_not() {
    let zeros = "0".repeat(CONNECT_LINE_BYTES - "CONNECT 9\n".len());
    let line = format!("CONNECT {zeros}9\n");
    assert_eq!(line.len(), CONNECT_LINE_BYTES);
    let got = HandshakeParser::request()
        .push(line.as_bytes())
        .unwrap()
        .unwrap();
    assert_eq!(got.number, 9);
    let line = format!("CONNECT {zeros}09\n");
    assert_eq!(
        HandshakeParser::request().push(line.as_bytes()),
        Err(ConnectError::TooLong)
    );
}
