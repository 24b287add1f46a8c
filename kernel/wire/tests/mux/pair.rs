//! Two ends joined by bytes in chunks of any size, and a record of what each has sent and got.

use std::collections::{BTreeMap, VecDeque};

use vmrepl_wire::limits::MUX_WINDOW_BYTES;
use vmrepl_wire::mux::{Mux, MuxError, MuxEvent, ResetReason, Role, StreamId};

/// The guest of these tests listens on every port but this one.
pub(crate) const CLOSED_PORT: u32 = 13;

/// What one end knows of one stream.
#[derive(Debug, Default)]
pub(crate) struct Track {
    pub(crate) sent: usize,
    pub(crate) received: usize,
    pub(crate) held: usize,
    pub(crate) accepted: bool,
    pub(crate) writable: usize,
    pub(crate) finished: bool,
    pub(crate) peer_finished: bool,
    /// Cut or closed.
    pub(crate) reset_here: bool,
    pub(crate) closed_here: bool,
    pub(crate) reset_there: Option<ResetReason>,
}

#[derive(Debug)]
pub(crate) struct End {
    pub(crate) mux: Mux,
    role: Role,
    pub(crate) streams: BTreeMap<StreamId, Track>,
    /// Bytes on their way to this end.
    pub(crate) inbox: VecDeque<u8>,
    pub(crate) epochs: Vec<u32>,
}

/// The byte at a position of one direction of a stream.
fn pattern(id: StreamId, from: Role, position: usize) -> u8 {
    let seed = u64::from(id.get()) * 2 + u64::from(from == Role::Host);
    let mixed = (seed << 32 ^ position as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    mixed.to_be_bytes()[0]
}

impl End {
    fn new(role: Role, epoch: u32) -> Self {
        Self {
            mux: Mux::new(role, epoch),
            role,
            streams: BTreeMap::new(),
            inbox: VecDeque::new(),
            epochs: Vec::new(),
        }
    }

    fn other(&self) -> Role {
        if self.role == Role::Host {
            Role::Guest
        } else {
            Role::Host
        }
    }

    pub(crate) fn nth(&self, pick: usize) -> Option<StreamId> {
        let count = self.streams.len();
        self.streams.keys().nth(pick.checked_rem(count)?).copied()
    }

    pub(crate) fn open(&mut self, port: u32) -> Result<StreamId, MuxError> {
        let id = self.mux.open(port)?;
        let known = self.streams.insert(id, Track::default());
        assert!(known.is_none(), "stream {id} was given out twice");
        Ok(id)
    }

    /// Offers `length` more bytes of the pattern; returns how many were taken.
    pub(crate) fn send(&mut self, id: StreamId, length: usize) -> usize {
        let from = self.role;
        let track = self.streams.get_mut(&id).expect("a stream of this end");
        let bytes: Vec<u8> = (track.sent..track.sent + length)
            .map(|at| pattern(id, from, at))
            .collect();
        let room = self.mux.send_room(id);
        let count = self.mux.send(id, &bytes);
        assert_eq!(count, room.min(length), "send takes what send_room says");
        track.sent += count;
        count
    }

    pub(crate) fn consume(&mut self, id: StreamId, length: usize) {
        let track = self.streams.get_mut(&id).expect("a stream of this end");
        let count = length.min(track.held);
        track.held -= count;
        self.mux.consumed(id, count);
    }

    pub(crate) fn finish(&mut self, id: StreamId) {
        self.streams
            .get_mut(&id)
            .expect("a stream of this end")
            .finished = true;
        self.mux.finish(id);
    }

    pub(crate) fn reset(&mut self, id: StreamId) {
        let track = self.streams.get_mut(&id).expect("a stream of this end");
        track.reset_here = true;
        track.closed_here = false;
        self.mux.reset(id);
    }

    pub(crate) fn close(&mut self, id: StreamId) {
        let track = self.streams.get_mut(&id).expect("a stream of this end");
        // What was cut before is gone already.
        track.closed_here = !track.reset_here;
        track.reset_here = true;
        self.mux.close(id);
    }

    /// Takes at most `length` bytes of the inbox and acts on them.
    pub(crate) fn arrive(&mut self, length: usize) -> Result<(), MuxError> {
        let length = length.min(self.inbox.len());
        let bytes: Vec<u8> = self.inbox.drain(..length).collect();
        self.mux.receive(&bytes)?;
        while let Some(event) = self.mux.event() {
            self.react(event);
        }
        Ok(())
    }

    fn react(&mut self, event: MuxEvent) {
        match event {
            MuxEvent::Epoch { epoch } => {
                if self.role == Role::Guest {
                    self.streams.clear();
                }
                self.epochs.push(epoch);
            }
            MuxEvent::Opened { id, port } if port == CLOSED_PORT => self.mux.refuse(id),
            MuxEvent::Opened { id, .. } => {
                let known = self.streams.insert(
                    id,
                    Track {
                        accepted: true,
                        ..Track::default()
                    },
                );
                assert!(known.is_none(), "stream {id} was opened twice");
                self.mux.accept(id);
            }
            MuxEvent::Accepted { id } => self.track(id).accepted = true,
            MuxEvent::Data { id, bytes } => self.data(id, &bytes),
            MuxEvent::Writable { id } => self.track(id).writable += 1,
            MuxEvent::Finished { id } => {
                let track = self.track(id);
                assert!(!track.peer_finished, "stream {id} finished twice");
                track.peer_finished = true;
            }
            MuxEvent::Reset { id, reason } => self.track(id).reset_there = Some(reason),
        }
    }

    fn track(&mut self, id: StreamId) -> &mut Track {
        self.streams
            .get_mut(&id)
            .expect("an event of a stream of this end")
    }

    fn data(&mut self, id: StreamId, bytes: &[u8]) {
        let from = self.other();
        let track = self.track(id);
        assert!(!track.reset_here, "data of stream {id}, which was cut off");
        assert!(!track.peer_finished, "data behind the end of stream {id}");
        assert!(!bytes.is_empty());
        for (index, byte) in bytes.iter().enumerate() {
            let at = track.received + index;
            assert_eq!(*byte, pattern(id, from, at), "byte {at} of stream {id}");
        }
        track.received += bytes.len();
        track.held += bytes.len();
        assert!(
            track.held <= MUX_WINDOW_BYTES,
            "stream {id} holds more than its window"
        );
    }
}

/// A host and a guest.
#[derive(Debug)]
pub(crate) struct Pair {
    pub(crate) host: End,
    pub(crate) guest: End,
}

impl Pair {
    pub(crate) fn new() -> Self {
        Self {
            host: End::new(Role::Host, 1),
            guest: End::new(Role::Guest, 0),
        }
    }

    /// A pair whose epoch is confirmed.
    pub(crate) fn ready() -> Self {
        let mut pair = Self::new();
        pair.settle();
        pair
    }

    pub(crate) fn end(&mut self, role: Role) -> &mut End {
        if role == Role::Host {
            &mut self.host
        } else {
            &mut self.guest
        }
    }

    /// Puts at most `length` bytes of `from`'s output on the wire.
    pub(crate) fn transmit(&mut self, from: Role, length: usize) {
        let mut bytes = Vec::new();
        self.end(from).mux.take_output(&mut bytes, length);
        assert!(bytes.len() <= length, "took more than {length}");
        let to = if from == Role::Host {
            &mut self.guest
        } else {
            &mut self.host
        };
        to.inbox.extend(bytes);
    }

    pub(crate) fn move_all(&mut self) {
        loop {
            for role in [Role::Host, Role::Guest] {
                self.transmit(role, 100_000);
                self.end(role).arrive(usize::MAX).expect("an honest peer");
            }
            let waiting = self.host.inbox.len() + self.guest.inbox.len();
            if waiting == 0 && !self.host.mux.has_output() && !self.guest.mux.has_output() {
                return;
            }
        }
    }

    /// Moves and consumes until nothing is under way.
    pub(crate) fn settle(&mut self) {
        loop {
            self.move_all();
            for role in [Role::Host, Role::Guest] {
                let end = self.end(role);
                let ids: Vec<StreamId> = end.streams.keys().copied().collect();
                for id in ids {
                    end.consume(id, usize::MAX);
                }
            }
            if !self.host.mux.has_output() && !self.guest.mux.has_output() {
                assert!(self.host.mux.is_quiet() && self.guest.mux.is_quiet());
                return;
            }
        }
    }

    /// A new host for the same guest, as after a restore. What the guest has sent stays on the wire.
    pub(crate) fn restart_host(&mut self, epoch: u32) {
        let inbox = std::mem::take(&mut self.host.inbox);
        self.host = End {
            inbox,
            ..End::new(Role::Host, epoch)
        };
    }

    /// After [`settle`](Self::settle): every byte has arrived, every end was told.
    pub(crate) fn check(&self) {
        for (sender, receiver) in [(&self.host, &self.guest), (&self.guest, &self.host)] {
            for (id, track) in &sender.streams {
                let Some(there) = receiver.streams.get(id) else {
                    let refused = track.reset_there == Some(ResetReason::Refused);
                    let unknown = track.reset_here || track.reset_there.is_some();
                    assert!(refused || unknown, "stream {id} is lost: {track:?}");
                    continue;
                };
                let cut = track.reset_here || there.reset_here;
                if !cut {
                    assert_eq!(track.sent, there.received, "bytes of stream {id}");
                    assert_eq!(track.finished, there.peer_finished, "end of stream {id}");
                }
                if track.closed_here && !there.reset_here {
                    assert_eq!(
                        track.sent, there.received,
                        "what closed stream {id} had queued"
                    );
                }
                if there.reset_there.is_some() {
                    assert!(track.reset_here, "stream {id} was cut by nobody");
                }
            }
        }
    }
}
