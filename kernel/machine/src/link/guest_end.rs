//! The other end of the channel, for tests: the real multiplexer in a thread, with a few ports.

use std::collections::{BTreeMap, VecDeque};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use rustix::event::{PollFd, PollFlags};
use vmrepl_wire::mux::{Mux, MuxEvent, ResetReason, Role, StreamId};
use vmrepl_wire::port;

/// Sends back what comes, and ends when its client does. The control port does the same.
pub(super) const ECHO: u32 = 20;
/// Takes blocks until its client ends, then says how many were right.
pub(super) const SINK: u32 = 21;
/// Reads eight bytes, a number, and sends as many blocks.
pub(super) const SOURCE: u32 = 22;
/// As [`SOURCE`], and then it closes the stream, as a process does that ends.
pub(super) const LEAVER: u32 = 24;
/// Takes nothing that it is sent.
pub(super) const HOLE: u32 = 23;

pub(super) const BLOCK_BYTES: usize = 64 << 10;

/// The block at a position: no two are alike.
pub(super) fn block(number: u64) -> Vec<u8> {
    let mut block: Vec<u8> = (0..=250).cycle().take(BLOCK_BYTES).collect();
    block[..8].copy_from_slice(&number.to_be_bytes());
    block
}

/// What the guest noticed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Notice {
    Epoch(u32),
    Opened(u32),
    Finished(u32, u64),
    Reset(u32, u64, ResetReason),
    ChannelEnded,
}

#[derive(Debug)]
struct Stream {
    port: u32,
    received: u64,
    unsent: VecDeque<u8>,
    unchecked: Vec<u8>,
    right_blocks: u64,
    blocks_to_send: std::ops::Range<u64>,
    ending: bool,
}

#[derive(Debug)]
struct GuestEnd {
    channel: UnixStream,
    mux: Mux,
    streams: BTreeMap<StreamId, Stream>,
    notices: Sender<Notice>,
}

/// Runs the guest until the channel ends.
pub(super) fn start(channel_end: UnixStream) -> (Receiver<Notice>, JoinHandle<()>) {
    let (notices, received) = channel();
    channel_end.set_nonblocking(true).expect("a socket");
    let guest = GuestEnd {
        channel: channel_end,
        mux: Mux::new(Role::Guest, 0),
        streams: BTreeMap::new(),
        notices,
    };
    (received, std::thread::spawn(move || guest.run()))
}

impl GuestEnd {
    fn run(mut self) {
        let mut output = Vec::new();
        let mut buffer = vec![0; BLOCK_BYTES];
        loop {
            if output.is_empty() {
                self.mux.take_output(&mut output, BLOCK_BYTES);
            }
            let mut flags = PollFlags::IN;
            flags.set(PollFlags::OUT, !output.is_empty());
            let mut fds = [PollFd::new(&self.channel, flags)];
            rustix::event::poll(&mut fds, None).expect("poll");
            let ready = fds[0].revents();
            if ready.contains(PollFlags::OUT)
                && let Ok(count) = self.channel.write(&output)
            {
                output.drain(..count);
            }
            if ready.intersects(PollFlags::IN | PollFlags::HUP) {
                match self.channel.read(&mut buffer) {
                    Ok(count) if count > 0 => self.mux.receive(&buffer[..count]).expect("a host"),
                    Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                    Ok(_) | Err(_) => break,
                }
                while let Some(event) = self.mux.event() {
                    self.handle(event);
                }
            }
        }
        self.tell(Notice::ChannelEnded);
    }

    /// The test may have heard enough and left.
    fn tell(&self, notice: Notice) {
        drop(self.notices.send(notice));
    }

    fn handle(&mut self, event: MuxEvent) {
        match event {
            MuxEvent::Epoch { epoch } => self.tell(Notice::Epoch(epoch)),
            MuxEvent::Opened { id, port } => {
                if ![ECHO, SINK, SOURCE, LEAVER, HOLE, port::CONTROL].contains(&port) {
                    self.mux.refuse(id);
                    return;
                }
                self.mux.accept(id);
                let stream = Stream {
                    port,
                    received: 0,
                    unsent: VecDeque::new(),
                    unchecked: Vec::new(),
                    right_blocks: 0,
                    blocks_to_send: 0..0,
                    ending: false,
                };
                self.streams.insert(id, stream);
                self.tell(Notice::Opened(port));
            }
            MuxEvent::Data { id, bytes } => {
                let stream = self.streams.get_mut(&id).expect("an open stream");
                stream.take(&bytes);
                match stream.port {
                    SINK | SOURCE | LEAVER => self.mux.consumed(id, bytes.len()),
                    _ => {}
                }
                self.serve(id);
            }
            MuxEvent::Writable { id } => self.serve(id),
            MuxEvent::Finished { id } => {
                let stream = self.streams.get_mut(&id).expect("an open stream");
                stream.end();
                let notice = Notice::Finished(stream.port, stream.received);
                self.tell(notice);
                self.serve(id);
            }
            MuxEvent::Reset { id, reason } => {
                if let Some(stream) = self.streams.remove(&id) {
                    self.tell(Notice::Reset(stream.port, stream.received, reason));
                }
            }
            MuxEvent::Accepted { .. } => panic!("this guest opens nothing"),
        }
    }

    /// Sends what there is credit for.
    fn serve(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        loop {
            let (front, _) = stream.unsent.as_slices();
            if front.is_empty() {
                let Some(number) = stream.blocks_to_send.next() else {
                    break;
                };
                stream.unsent.extend(block(number));
                continue;
            }
            let count = self.mux.send(id, front);
            if count == 0 {
                return;
            }
            stream.unsent.drain(..count);
            if [ECHO, port::CONTROL].contains(&stream.port) {
                self.mux.consumed(id, count);
            }
        }
        match (stream.ending, stream.port) {
            (true, LEAVER) => self.mux.close(id),
            (true, _) => self.mux.finish(id),
            (false, _) => {}
        }
    }
}

impl Stream {
    fn take(&mut self, bytes: &[u8]) {
        self.received += bytes.len() as u64;
        match self.port {
            HOLE => {}
            SINK => {
                self.unchecked.extend(bytes);
                while self.unchecked.len() >= BLOCK_BYTES {
                    if self.unchecked[..BLOCK_BYTES] == block(self.right_blocks) {
                        self.right_blocks += 1;
                    }
                    self.unchecked.drain(..BLOCK_BYTES);
                }
            }
            SOURCE | LEAVER => {
                self.unchecked.extend(bytes);
                if let Some(count) = self.unchecked.first_chunk::<8>() {
                    self.blocks_to_send = 0..u64::from_be_bytes(*count);
                    self.ending = true;
                }
            }
            _ => self.unsent.extend(bytes),
        }
    }

    fn end(&mut self) {
        if self.port == SINK {
            self.unsent.extend(self.right_blocks.to_be_bytes());
        }
        self.ending = true;
    }
}
