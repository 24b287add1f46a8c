//! The thread behind a link: moves bytes between the channel and the sockets of the streams.
//!
//! It sleeps in one `poll` without a timeout. A stream is read only while the multiplexer has room for
//! it, and its guest is given credit only for what its socket has taken: nothing piles up here.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use rustix::event::{PollFd, PollFlags};
use vmrepl_wire::connect;
use vmrepl_wire::limits::MUX_STREAMS;
use vmrepl_wire::mux::{Mux, MuxEvent, ResetReason, Role, StreamId};
use vmrepl_wire::port;

use crate::link::{Command, LostReason, Shared};
use crate::listen::{Door, Wish};
use crate::stream::{Fate, Stream};

const BUFFER_BYTES: usize = 64 << 10;

#[derive(Debug)]
pub(crate) struct Pump {
    channel: UnixStream,
    shared: Arc<Shared>,
    mux: Mux,
    streams: BTreeMap<StreamId, Stream>,
    /// Clients of the socket whose port the guest has not accepted yet.
    unanswered: BTreeSet<StreamId>,
    door: Door,
    /// Only control streams are read, and none is opened: those that wait to be.
    held: Option<Vec<(u32, UnixStream)>>,
    output: Vec<u8>,
    sent: usize,
    buffer: Vec<u8>,
}

/// What a descriptor in the poll set is.
#[derive(Debug, Clone, Copy)]
enum Source {
    Wake,
    Channel,
    Listener,
    Waiting(usize),
    Stream(StreamId),
}

impl Pump {
    pub(crate) fn new(channel: UnixStream, epoch: u32, shared: Arc<Shared>) -> Self {
        Self {
            channel,
            shared,
            mux: Mux::new(Role::Host, epoch),
            streams: BTreeMap::new(),
            unanswered: BTreeSet::new(),
            door: Door::default(),
            held: None,
            output: Vec::new(),
            sent: 0,
            buffer: vec![0; BUFFER_BYTES],
        }
    }

    /// Runs until it is stopped or the channel is lost. All streams end with it.
    pub(crate) fn run(mut self) {
        let reason = loop {
            match self.turn() {
                Ok(true) => {}
                Ok(false) => break LostReason::Closed,
                Err(reason) => break reason,
            }
        };
        self.shared.end(reason);
    }

    fn turn(&mut self) -> Result<bool, LostReason> {
        self.send()?;
        let ready = self.wait()?;
        // From the last to the first: clients leave the door by index.
        for (source, flags) in ready.into_iter().rev() {
            match source {
                Source::Wake => {
                    if !self.obey() {
                        return Ok(false);
                    }
                }
                Source::Channel => {
                    if flags.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
                        self.receive()?;
                    }
                }
                Source::Listener => self.door.accept(),
                Source::Waiting(index) => {
                    if let Some(wish) = self.door.listen_to(index) {
                        self.grant(wish);
                    }
                }
                Source::Stream(id) => self.serve(id, flags),
            }
        }
        Ok(true)
    }

    fn wait(&self) -> Result<Vec<(Source, PollFlags)>, LostReason> {
        let mut sources = vec![Source::Wake, Source::Channel];
        let channel = if self.has_output() {
            PollFlags::IN | PollFlags::OUT
        } else {
            PollFlags::IN
        };
        let mut fds = vec![
            PollFd::new(self.shared.wake(), PollFlags::IN),
            PollFd::new(&self.channel, channel),
        ];
        if self.held.is_none() {
            if let Some(listener) = self.door.open_listener() {
                sources.push(Source::Listener);
                fds.push(PollFd::new(listener, PollFlags::IN));
            }
            for (index, client) in self.door.waiting.iter().enumerate() {
                sources.push(Source::Waiting(index));
                fds.push(PollFd::new(&client.socket, PollFlags::IN));
            }
        }
        for (&id, stream) in &self.streams {
            if self.held.is_some() && !stream.is_control {
                continue;
            }
            let mut flags = PollFlags::empty();
            flags.set(
                PollFlags::IN,
                !stream.host_ended && self.mux.send_room(id) > 0,
            );
            flags.set(PollFlags::OUT, stream.wants_to_write());
            // Without a wish a closed socket would wake us again and again; with an ended host side
            // its full close is the one thing left to hear.
            if !flags.is_empty() || stream.host_ended {
                sources.push(Source::Stream(id));
                fds.push(PollFd::from_borrowed_fd(stream.socket.as_fd(), flags));
            }
        }
        loop {
            match rustix::event::poll(&mut fds, None) {
                Ok(_) => break,
                Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(LostReason::Io(io::Error::from(errno).kind())),
            }
        }
        let ready = sources.into_iter().zip(fds.iter().map(PollFd::revents));
        Ok(ready.filter(|(_, flags)| !flags.is_empty()).collect())
    }

    /// Does what the face asked. False when it is to stop.
    fn obey(&mut self) -> bool {
        let mut count = [0; 8];
        // The count does not matter, only that the descriptor is quiet again.
        let (Ok(_) | Err(_)) = rustix::io::read(self.shared.wake(), &mut count);
        for command in self.shared.take_commands() {
            match command {
                Command::Stop => return false,
                Command::Listen(listener) => self.door.listener = Some(listener),
                Command::Open { port, socket } => match &mut self.held {
                    Some(waiting) => waiting.push((port, socket)),
                    None => self.begin(port, socket),
                },
                Command::Hold(done) => {
                    self.held.get_or_insert_default();
                    done.send(()).ok();
                }
                Command::Go => {
                    for (port, socket) in self.held.take().unwrap_or_default() {
                        self.begin(port, socket);
                    }
                }
            }
        }
        true
    }

    fn begin(&mut self, port: u32, socket: UnixStream) {
        // Too many streams: the socket is dropped, which its owner sees as the end.
        if let Some(id) = self.open(port) {
            let mut stream = Stream::new(socket);
            stream.is_control = port == port::CONTROL;
            self.streams.insert(id, stream);
            // Its owner may have written already; its first bytes follow the OPEN at once.
            self.serve(id, PollFlags::IN);
        }
    }

    /// Those that the guest has closed count until their clients have read all.
    fn open(&mut self, port: u32) -> Option<StreamId> {
        if self.streams.len() >= MUX_STREAMS {
            return None;
        }
        self.mux.open(port).ok()
    }

    fn grant(&mut self, wish: Wish) {
        let Some(id) = self.open(wish.port) else {
            return;
        };
        // A fresh stream has a window of credit, far more than one read of the door.
        self.mux.send(id, &wish.early);
        self.streams.insert(id, Stream::new(wish.socket));
        self.unanswered.insert(id);
    }

    fn serve(&mut self, id: StreamId, flags: PollFlags) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        // Found in the same look as the word to hold.
        if self.held.is_some() && !stream.is_control && flags.contains(PollFlags::IN) {
            return;
        }
        let mut fate = Fate::Lives;
        if flags.contains(PollFlags::OUT) {
            let (written, after) = stream.flush();
            self.mux.consumed(id, written);
            fate = after;
        }
        let gone = flags.intersects(PollFlags::HUP | PollFlags::ERR);
        let room = self.mux.send_room(id);
        if fate != Fate::Lives {
            // Nothing more to read for.
        } else if stream.host_ended {
            if gone {
                fate = Fate::GivenUp;
            }
        } else if room > 0 && (gone || flags.contains(PollFlags::IN)) {
            match stream.read(&mut self.buffer, room) {
                Ok(Some(bytes)) => {
                    self.mux.send(id, bytes);
                }
                Ok(None) => {
                    self.mux.finish(id);
                    let (written, after) = stream.flush();
                    self.mux.consumed(id, written);
                    fate = after;
                }
                Err(_) => fate = Fate::GivenUp,
            }
        }
        self.settle(id, fate);
    }

    fn settle(&mut self, id: StreamId, fate: Fate) {
        match fate {
            Fate::Lives => {}
            Fate::GivenUp => {
                // What its owner wrote before leaving still goes to the guest.
                self.mux.close(id);
                self.forget(id);
            }
            Fate::Over => self.forget(id),
        }
    }

    fn forget(&mut self, id: StreamId) {
        self.door.reopen();
        self.streams.remove(&id);
        self.unanswered.remove(&id);
    }

    fn receive(&mut self) -> Result<(), LostReason> {
        match self.channel.read(&mut self.buffer) {
            Ok(0) => return Err(LostReason::Closed),
            Ok(count) => self
                .mux
                .receive(&self.buffer[..count])
                .map_err(LostReason::Broken)?,
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                ) => {}
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                return Err(LostReason::Closed);
            }
            Err(error) => return Err(LostReason::Io(error.kind())),
        }
        while let Some(event) = self.mux.event() {
            self.handle(event);
        }
        Ok(())
    }

    fn handle(&mut self, event: MuxEvent) {
        match event {
            MuxEvent::Epoch { .. } | MuxEvent::Writable { .. } => {}
            // The guest has nothing to open here.
            MuxEvent::Opened { id, .. } => self.mux.refuse(id),
            MuxEvent::Accepted { id } => {
                if let Some(stream) = self.streams.get_mut(&id)
                    && self.unanswered.remove(&id)
                {
                    stream.answer(connect::accepted(id.get()).as_bytes());
                    self.serve(id, PollFlags::OUT);
                }
            }
            MuxEvent::Data { id, bytes } => {
                if let Some(stream) = self.streams.get_mut(&id) {
                    let (written, fate) = stream.deliver(&bytes);
                    self.mux.consumed(id, written);
                    self.settle(id, fate);
                }
            }
            MuxEvent::Finished { id } => {
                if let Some(stream) = self.streams.get_mut(&id) {
                    stream.guest_finished();
                    self.serve(id, PollFlags::OUT);
                }
            }
            // The guest has said all it had to say and has gone: whoever reads slowly still gets all of it.
            MuxEvent::Reset {
                id,
                reason: ResetReason::Closed,
            } => {
                if let Some(stream) = self.streams.get_mut(&id) {
                    stream.guest_closed();
                    self.serve(id, PollFlags::OUT);
                }
            }
            MuxEvent::Reset { id, .. } => {
                if let Some(stream) = self.streams.get_mut(&id) {
                    // What came before is delivered as far as the socket takes it.
                    stream.flush();
                }
                self.forget(id);
            }
        }
    }

    fn has_output(&self) -> bool {
        self.sent < self.output.len() || self.mux.has_output()
    }

    fn send(&mut self) -> Result<(), LostReason> {
        loop {
            if self.sent == self.output.len() {
                self.output.clear();
                self.sent = 0;
                if !self.mux.take_output(&mut self.output, BUFFER_BYTES) {
                    return Ok(());
                }
            }
            match self.channel.write(&self.output[self.sent..]) {
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                    return Err(LostReason::Closed);
                }
                Err(error) => return Err(LostReason::Io(error.kind())),
            }
        }
    }
}
