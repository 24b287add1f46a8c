//! The state machine.

use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};

use super::error::MuxError;
use super::event::{MuxEvent, ResetReason, Role, StreamId};
use super::frame::{Control, Header};
use super::input::Input;
use super::kind::Kind;
use super::stream::Stream;
use crate::GENERATION;
use crate::limits::{MUX_CONTROL_BACKLOG, MUX_STREAMS};

/// One end of a multiplexed channel.
///
/// Take all events after each [`receive`](Self::receive) before calling anything else: an epoch in
/// between would give the numbers of streams a new meaning.
#[derive(Debug)]
pub struct Mux {
    role: Role,
    epoch: u32,
    /// The guest has been greeted (always true on the host).
    greeted: bool,
    /// The host has had its answer (unused on the guest).
    confirmed: bool,
    input: Input,
    events: VecDeque<MuxEvent>,
    control: VecDeque<Control>,
    streams: BTreeMap<u32, Stream>,
    /// Streams with something to send; the control port's, then all others.
    urgent: VecDeque<u32>,
    ready: VecDeque<u32>,
    next_local: u32,
    last_remote: u32,
    failed: Option<MuxError>,
}

impl Mux {
    /// One end. A host greets the guest with `epoch`, which must be larger than any epoch that the
    /// guest has seen (so at least 1); a guest passes 0 and waits.
    #[must_use]
    pub fn new(role: Role, epoch: u32) -> Self {
        let mut mux = Self {
            role,
            epoch,
            greeted: role == Role::Host,
            confirmed: false,
            input: Input::default(),
            events: VecDeque::new(),
            control: VecDeque::new(),
            streams: BTreeMap::new(),
            urgent: VecDeque::new(),
            ready: VecDeque::new(),
            next_local: if role == Role::Host { 2 } else { 1 },
            last_remote: 0,
            failed: None,
        };
        if role == Role::Host {
            mux.control.push_back(Control::hello());
        }
        mux
    }

    /// Takes bytes from the channel. After an error the channel is of no more use, and every
    /// further call gives the same error.
    pub fn receive(&mut self, bytes: &[u8]) -> Result<(), MuxError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let result = self.frames(bytes);
        self.failed = result.err();
        result
    }

    /// The next thing that came in.
    pub fn event(&mut self) -> Option<MuxEvent> {
        self.events.pop_front()
    }

    /// Opens a stream to a port of the peer. Data may be sent at once; it waits there for the
    /// peer's decision.
    pub fn open(&mut self, port: u32) -> Result<StreamId, MuxError> {
        if self.streams.len() >= MUX_STREAMS {
            return Err(MuxError::TooManyStreams);
        }
        let id = self.next_local;
        let next = id.checked_add(2).ok_or(MuxError::TooManyStreams)?;
        self.push_control(Control::open(id, port))?;
        self.next_local = next;
        self.streams.insert(id, Stream::opened_here(port));
        Ok(StreamId(id))
    }

    /// Takes a stream that the peer opened.
    pub fn accept(&mut self, id: StreamId) {
        if let Some(stream) = self.streams.get_mut(&id.0)
            && !std::mem::replace(&mut stream.accepted, true)
        {
            self.control.push_back(Control::accept(id.0));
        }
    }

    /// Turns away a stream that the peer opened; nothing more is heard of it.
    pub fn refuse(&mut self, id: StreamId) {
        self.cut(id, ResetReason::Refused);
    }

    /// How many bytes [`send`](Self::send) would take now.
    #[must_use]
    pub fn send_room(&self, id: StreamId) -> usize {
        self.streams.get(&id.0).map_or(0, Stream::send_room)
    }

    /// Queues as many of `bytes` as there is credit for, and says how many. The rest is to be
    /// offered again after [`MuxEvent::Writable`].
    pub fn send(&mut self, id: StreamId, bytes: &[u8]) -> usize {
        let Some(stream) = self.streams.get_mut(&id.0) else {
            return 0;
        };
        let count = stream.queue(bytes);
        if count > 0 {
            self.make_ready(id.0);
        }
        count
    }

    /// Says that the application has taken `bytes` of a stream's data, so that the peer may send as
    /// many again.
    pub fn consumed(&mut self, id: StreamId, bytes: usize) {
        if let Some(stream) = self.streams.get_mut(&id.0)
            && let Some(grant) = stream.consumed(bytes)
        {
            self.control.push_back(Control::credit(id.0, grant));
        }
    }

    /// Ends our direction of a stream, behind what is queued.
    pub fn finish(&mut self, id: StreamId) {
        if let Some(stream) = self.streams.get_mut(&id.0)
            && !std::mem::replace(&mut stream.finishing, true)
        {
            self.make_ready(id.0);
        }
    }

    /// Gives a stream up: what is queued still goes out, then the peer is told that nobody is left
    /// to hear it. Nothing more is heard of the stream here.
    pub fn close(&mut self, id: StreamId) {
        self.events.retain(|event| event.stream() != Some(id));
        if let Some(stream) = self.streams.get_mut(&id.0) {
            stream.closing = true;
            self.make_ready(id.0);
        }
    }

    /// Cuts a stream off, both ways; what is queued is dropped and nothing more is heard of it.
    pub fn reset(&mut self, id: StreamId) {
        self.cut(id, ResetReason::Closed);
    }

    /// Appends whole frames to `out`, at most `max_bytes` (64 is enough for any), and says whether there
    /// were any.
    pub fn take_output(&mut self, out: &mut Vec<u8>, max_bytes: usize) -> bool {
        let before = out.len();
        let mut room = max_bytes;
        while room >= Control::MAX_BYTES {
            let Some(control) = self.control.pop_front() else {
                break;
            };
            room -= control.encode(self.epoch, out);
        }
        // A stream's OPEN or ACCEPT may be among what is left: no data before it.
        while self.control.is_empty() && room >= Control::MAX_BYTES {
            let Some(id) = self.urgent.pop_front().or_else(|| self.ready.pop_front()) else {
                break;
            };
            let Some(stream) = self.streams.get_mut(&id) else {
                continue;
            };
            room -= stream.encode_turn(self.epoch, id, room, out);
            stream.ready = false;
            if stream.has_output() {
                self.make_ready(id);
            } else if stream.is_over() {
                self.streams.remove(&id);
            }
        }
        out.len() > before
    }

    /// Whether [`take_output`](Self::take_output) has anything to give.
    #[must_use]
    pub fn has_output(&self) -> bool {
        !(self.control.is_empty() && self.urgent.is_empty() && self.ready.is_empty())
    }

    /// Whether nothing is under way here: no queued output, no partial frame, no event not taken.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        !self.has_output() && self.input.is_empty() && self.events.is_empty()
    }

    /// The current epoch; 0 on a guest that was not greeted yet.
    #[must_use]
    pub fn epoch(&self) -> u32 {
        self.epoch
    }

    /// How many streams are open.
    #[must_use]
    pub fn stream_count(&self) -> usize {
        self.streams.len()
    }

    fn frames(&mut self, mut bytes: &[u8]) -> Result<(), MuxError> {
        while let Some((header, payload)) = self.input.next(&mut bytes)? {
            if header.kind == Kind::Hello {
                self.hello(header, &payload)?;
            } else if self.greeted && header.epoch == self.epoch {
                self.frame(header, payload)?;
            }
        }
        Ok(())
    }

    /// A HELLO of another epoch than the host's, or of one that the guest has seen, is stale.
    fn hello(&mut self, header: Header, payload: &[u8]) -> Result<(), MuxError> {
        let theirs = header.number(payload)?;
        if header.stream != 0 {
            return Err(header.unexpected());
        }
        match self.role {
            Role::Host if header.epoch != self.epoch || self.confirmed => return Ok(()),
            Role::Host if theirs != GENERATION => return Err(MuxError::Generation { theirs }),
            Role::Host => self.confirmed = true,
            Role::Guest if header.epoch <= self.epoch => return Ok(()),
            Role::Guest => {
                *self = Self {
                    greeted: true,
                    ..Self::new(Role::Guest, header.epoch)
                };
                self.control.push_back(Control::hello());
            }
        }
        self.events.push_back(MuxEvent::Epoch { epoch: self.epoch });
        Ok(())
    }

    /// A frame of this epoch that is about a stream.
    fn frame(&mut self, header: Header, payload: Cow<'_, [u8]>) -> Result<(), MuxError> {
        let id = header.stream;
        if header.kind == Kind::Open {
            return self.opened(header, &payload);
        }
        let Some(stream) = self.streams.get_mut(&id) else {
            // Both ends may give a stream up while the other still sends.
            return if self.was_open(id) {
                Ok(())
            } else {
                Err(header.unexpected())
            };
        };
        let id = StreamId(id);
        let deaf = stream.closing;
        let event = match header.kind {
            Kind::Hello | Kind::Open => return Err(header.unexpected()),
            Kind::Accept if stream.accepted => return Err(header.unexpected()),
            Kind::Accept => {
                stream.accepted = true;
                MuxEvent::Accepted { id }
            }
            Kind::Data if stream.finished => return Err(header.unexpected()),
            Kind::Data => {
                stream.received(id.0, payload.len())?;
                if payload.is_empty() {
                    return Ok(());
                }
                let bytes = payload.into_owned();
                MuxEvent::Data { id, bytes }
            }
            Kind::Credit => {
                stream.granted(id.0, header.number(&payload)?)?;
                MuxEvent::Writable { id }
            }
            Kind::Fin if stream.finished => return Err(header.unexpected()),
            Kind::Fin => {
                stream.finished = true;
                if stream.is_over() {
                    self.forget(id.0);
                }
                MuxEvent::Finished { id }
            }
            Kind::Reset => {
                let reason = ResetReason::from_code(header.number(&payload)?);
                self.forget(id.0);
                MuxEvent::Reset { id, reason }
            }
        };
        if !deaf {
            self.events.push_back(event);
        }
        Ok(())
    }

    fn opened(&mut self, header: Header, payload: &[u8]) -> Result<(), MuxError> {
        let port = header.number(payload)?;
        let id = header.stream;
        if id == 0 || self.is_local(id) || id <= self.last_remote {
            return Err(header.unexpected());
        }
        self.last_remote = id;
        if self.streams.len() >= MUX_STREAMS {
            return self.push_control(Control::reset(id, ResetReason::Busy));
        }
        if self.control.len() >= MUX_CONTROL_BACKLOG {
            return Err(MuxError::Backlog);
        }
        self.streams.insert(id, Stream::opened_there(port));
        self.events.push_back(MuxEvent::Opened {
            id: StreamId(id),
            port,
        });
        Ok(())
    }

    fn cut(&mut self, id: StreamId, reason: ResetReason) {
        self.events.retain(|event| event.stream() != Some(id));
        if self.forget(id.0) {
            self.control.push_back(Control::reset(id.0, reason));
        }
    }

    fn forget(&mut self, id: u32) -> bool {
        let Some(stream) = self.streams.remove(&id) else {
            return false;
        };
        if stream.ready {
            let queue = if stream.is_urgent() {
                &mut self.urgent
            } else {
                &mut self.ready
            };
            queue.retain(|other| *other != id);
        }
        true
    }

    fn make_ready(&mut self, id: u32) {
        if let Some(stream) = self.streams.get_mut(&id)
            && !std::mem::replace(&mut stream.ready, true)
        {
            let queue = if stream.is_urgent() {
                &mut self.urgent
            } else {
                &mut self.ready
            };
            queue.push_back(id);
        }
    }

    fn push_control(&mut self, control: Control) -> Result<(), MuxError> {
        if self.control.len() >= MUX_CONTROL_BACKLOG {
            return Err(MuxError::Backlog);
        }
        self.control.push_back(control);
        Ok(())
    }

    fn is_local(&self, id: u32) -> bool {
        id % 2 == self.next_local % 2
    }

    fn was_open(&self, id: u32) -> bool {
        let local = self.is_local(id);
        id != 0
            && if local {
                id < self.next_local
            } else {
                id <= self.last_remote
            }
    }
}
