//! One end of a multiplexed channel whose peer says anything, while its application does anything.

use std::collections::{BTreeMap, BTreeSet};

use super::Script;
use crate::limits::{MUX_STREAMS, MUX_TURN_BYTES, MUX_WINDOW_BYTES};
use crate::mux::{HEADER_BYTES, Kind, MAGIC, Mux, MuxEvent, Role, StreamId};

/// Lets a peer and an application act on one end, as the input says, and holds what leaves it against the rules.
pub fn channel(input: &[u8]) {
    let mut script = Script(input);
    let mut end = End::new(script.byte());
    while !script.is_over() {
        end.act(&mut script);
    }
    while end.take_output(1 << 20) {}
    assert!(!end.mux.has_output());
}

/// What one stream has been through, as its peer sees it.
#[derive(Debug, Default)]
struct Books {
    sent_bytes: u64,
    finished: bool,
    reset: bool,
}

#[derive(Debug)]
struct End {
    mux: Mux,
    /// What came in, from the first byte that is no whole frame yet.
    fed: Vec<u8>,
    epoch: u32,
    books: BTreeMap<u32, Books>,
    /// What the peer has granted each stream in any epoch, believed or not.
    granted_bytes: BTreeMap<u32, u64>,
    /// What the application has and has not said to have taken.
    held: BTreeMap<StreamId, usize>,
    known: BTreeSet<StreamId>,
    /// What the application wants to hear no more of.
    left: BTreeSet<StreamId>,
}

impl End {
    fn new(first: u8) -> Self {
        let role = if first & 1 == 0 {
            Role::Guest
        } else {
            Role::Host
        };
        let mux = Mux::new(role, u32::from(first & 1));
        Self {
            epoch: mux.epoch(),
            mux,
            fed: Vec::new(),
            books: BTreeMap::new(),
            granted_bytes: BTreeMap::new(),
            held: BTreeMap::new(),
            known: BTreeSet::new(),
            left: BTreeSet::new(),
        }
    }

    fn act(&mut self, script: &mut Script<'_>) {
        match script.byte() % 12 {
            0 => {
                let count = usize::from(script.byte());
                let bytes = script.bytes(count).to_vec();
                self.receive(&bytes);
            }
            1..=3 => self.frame(script),
            4 => {
                if let Ok(id) = self.mux.open(u32::from(script.byte())) {
                    assert!(self.known.insert(id), "a number is given out once");
                }
            }
            5 => {
                let id = self.pick(script);
                self.mux.accept(id);
            }
            6 => {
                let (id, way) = (self.pick(script), script.byte() % 4);
                match way {
                    0 => self.mux.refuse(id),
                    1 => self.mux.reset(id),
                    2 => self.mux.close(id),
                    _ => self.mux.finish(id),
                }
                if way < 3 && self.known.contains(&id) {
                    self.left.insert(id);
                }
            }
            7 | 8 => {
                let (id, count) = (self.pick(script), 8 * usize::from(script.u16()));
                let room = self.mux.send_room(id);
                let sent = self.mux.send(id, &vec![0x5a; count]);
                assert_eq!(sent, count.min(room));
                assert_eq!(self.mux.send_room(id), room - sent);
            }
            9 => {
                let id = self.pick(script);
                let bytes = 8 * usize::from(script.u16());
                if let Some(held) = self.held.get_mut(&id) {
                    let bytes = bytes.min(*held);
                    *held -= bytes;
                    self.mux.consumed(id, bytes);
                }
            }
            10 => {
                self.take_output(usize::from(script.u16()));
            }
            _ => {
                self.take_output(1 << 20);
            }
        }
        assert!(self.mux.stream_count() <= MUX_STREAMS);
    }

    /// A frame that is well-formed, whatever it says.
    fn frame(&mut self, script: &mut Script<'_>) {
        let (kind, epoch, stream) = (script.byte() % 9, script.byte(), script.byte());
        let epoch = match epoch {
            0..=209 => self.epoch,
            // Some before, some after.
            other => self.epoch.wrapping_add(u32::from(other)).wrapping_sub(220),
        };
        let payload = match kind {
            1 => 1_u32.to_be_bytes().to_vec(),
            4 => vec![0xa5; usize::from(script.u16())],
            5 => (8 * u32::from(script.u16())).to_be_bytes().to_vec(),
            _ => script.u32().to_be_bytes().to_vec(),
        };
        let mut bytes = MAGIC.to_be_bytes().to_vec();
        bytes.extend([kind, 0]);
        bytes.extend(epoch.to_be_bytes());
        bytes.extend((u32::from(stream % 32) * u32::from(kind != 1)).to_be_bytes());
        let length = u32::try_from(payload.len()).expect("16 bits");
        bytes.extend(length.to_be_bytes());
        bytes.extend(payload);
        let is_stale = epoch != self.epoch && (2..=7).contains(&kind) && self.fed.is_empty();
        let (streams, was_quiet) = (self.mux.stream_count(), !self.mux.has_output());
        let heard = self.receive(&bytes);
        if is_stale {
            assert_eq!(heard, 0, "another epoch is not heard");
            assert_eq!(self.mux.stream_count(), streams);
            assert!(!was_quiet || !self.mux.has_output());
        }
    }

    fn pick(&self, script: &mut Script<'_>) -> StreamId {
        let number = usize::from(script.byte());
        let known = self.known.iter();
        let id = known.copied().nth(number % self.known.len().max(1));
        // A stream that is not there: of another end, whose numbers go on for ever.
        id.unwrap_or_else(|| {
            let mut other = Mux::new(Role::Host, 1);
            other.open(0).expect("a new end has room")
        })
    }

    /// Returns how many events came of the bytes.
    fn receive(&mut self, bytes: &[u8]) -> usize {
        let outcome = self.mux.receive(bytes);
        self.fed.extend_from_slice(bytes);
        let mut rest = &self.fed[..];
        while let Some((header, payload)) = split(&mut rest) {
            if header.kind == Kind::Credit as u8 {
                let granted = payload.first_chunk().map_or(0, |n| u32::from_be_bytes(*n));
                *self.granted_bytes.entry(header.stream).or_default() += u64::from(granted);
            }
        }
        self.fed = rest.to_vec();
        let (mut events, mut heard) = (0, 0);
        while let Some(event) = self.mux.event() {
            events += 1;
            heard += self.event(event);
        }
        assert!(
            heard <= bytes.len() + (64 << 10),
            "nothing is heard that did not come"
        );
        if let Err(error) = outcome {
            assert_eq!(
                self.mux.receive(b""),
                Err(error),
                "a lost channel stays lost"
            );
            assert!(self.mux.event().is_none());
        }
        events
    }

    fn event(&mut self, event: MuxEvent) -> usize {
        let is_left = event.stream().is_some_and(|id| self.left.contains(&id));
        assert!(!is_left, "nothing more is heard of a stream that was left");
        match event {
            MuxEvent::Epoch { epoch } => {
                assert_eq!(epoch, self.mux.epoch());
                if epoch != self.epoch {
                    assert!(epoch > self.epoch, "epochs only rise");
                    self.books.clear();
                    self.held.clear();
                    self.known.clear();
                    self.left.clear();
                }
                self.epoch = epoch;
            }
            MuxEvent::Opened { id, .. } => {
                assert!(self.known.insert(id), "a number is given out once");
            }
            MuxEvent::Data { id, bytes } => {
                assert!(!bytes.is_empty() && self.known.contains(&id));
                let held = self.held.entry(id).or_default();
                *held += bytes.len();
                assert!(*held <= MUX_WINDOW_BYTES, "a window bounds what comes");
                return bytes.len();
            }
            MuxEvent::Reset { id, .. } => assert!(self.known.contains(&id)),
            MuxEvent::Accepted { id } | MuxEvent::Writable { id } | MuxEvent::Finished { id } => {
                assert!(self.known.contains(&id));
                assert!(self.mux.send_room(id) <= MUX_WINDOW_BYTES);
            }
        }
        0
    }

    fn take_output(&mut self, max_bytes: usize) -> bool {
        let mut out = Vec::new();
        let some = self.mux.take_output(&mut out, max_bytes);
        assert_eq!(some, !out.is_empty());
        assert!(out.len() <= max_bytes);
        let mut rest = &out[..];
        while let Some((header, payload)) = split(&mut rest) {
            assert_eq!(header.epoch, self.mux.epoch());
            let books = self.books.entry(header.stream).or_default();
            assert!(
                !books.reset || header.stream == 0,
                "nothing follows a reset"
            );
            match header.kind {
                4 => {
                    assert!(!books.finished && !payload.is_empty());
                    assert!(payload.len() <= MUX_TURN_BYTES);
                    books.sent_bytes += payload.len() as u64;
                    let granted = self.granted_bytes.get(&header.stream).copied();
                    let credit = MUX_WINDOW_BYTES as u64 + granted.unwrap_or(0);
                    assert!(books.sent_bytes <= credit, "no more than the credit");
                }
                6 => assert!(!std::mem::replace(&mut books.finished, true)),
                7 => books.reset = true,
                _ => {}
            }
        }
        assert!(rest.is_empty(), "whole frames leave");
        some
    }
}

/// What of a header the rules are about.
#[derive(Debug)]
struct Header {
    kind: u8,
    epoch: u32,
    stream: u32,
}

/// The next frame, if it is whole.
fn split<'a>(bytes: &mut &'a [u8]) -> Option<(Header, &'a [u8])> {
    let (header, rest) = bytes.split_first_chunk::<HEADER_BYTES>()?;
    let number = |at: usize| {
        let word = header[at..].first_chunk().expect("inside the header");
        u32::from_be_bytes(*word)
    };
    let length = usize::try_from(number(12)).ok()?;
    let (payload, rest) = rest.split_at_checked(length)?;
    *bytes = rest;
    let header = Header {
        kind: header[2],
        epoch: number(4),
        stream: number(8),
    };
    Some((header, payload))
}
