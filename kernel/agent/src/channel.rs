//! The one byte stream to the host, and the multiplexer on it.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;

use rustix::event::epoll::EventFlags;
use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;
use vmrepl_wire::mux::{Mux, MuxEvent, Role, StreamId};

use crate::limits;
use crate::log;
use crate::outbox::Outbox;
use crate::poller::{Poller, Readiness, Token};

/// The name of the serial port that carries the multiplexer.
const PORT_NAME: &str = "vmrepl.0";

/// The multiplexed stream.
#[derive(Debug)]
pub(crate) struct Channel {
    device: OwnedFd,
    token: Token,
    readiness: Readiness,
    mux: Mux,
    out: Outbox,
    /// The host broke the rules: everything is passed over until it closes its end.
    deaf: bool,
    /// The host's end is closed.
    pub(crate) ended: bool,
    scratch: Vec<u8>,
}

/// What a read of the channel gave.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Input {
    /// Events in their order. `restarted` when every stream known before is gone.
    Events {
        restarted: bool,
        events: Vec<MuxEvent>,
    },
    /// The host's end was closed: every stream is gone. More may come.
    Closed,
}

/// Opens the serial port of a machine, if it has one.
pub(crate) fn open_serial_port() -> io::Result<Option<OwnedFd>> {
    let Ok(ports) = fs::read_dir("/sys/class/virtio-ports") else {
        return Ok(None);
    };
    for port in ports {
        let port = port?;
        let name = fs::read_to_string(port.path().join("name")).unwrap_or_default();
        if name.trim_end() == PORT_NAME {
            let path = std::path::Path::new("/dev").join(port.file_name());
            let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
            return Ok(Some(open(&path, flags, Mode::empty())?));
        }
    }
    Ok(None)
}

impl Channel {
    /// Takes a device or a socket, which must not block.
    pub(crate) fn new(device: OwnedFd, token: Token, poller: &Poller) -> Result<Self, Errno> {
        poller.add(&device, token)?;
        // Bytes may have come before the first event.
        let readiness = Readiness::of_new_source();
        Ok(Self {
            device,
            token,
            readiness,
            mux: Mux::new(Role::Guest, 0),
            out: Outbox::default(),
            deaf: false,
            ended: false,
            scratch: vec![0; limits::READ_BYTES],
        })
    }

    pub(crate) fn note(&mut self, flags: EventFlags) {
        // A serial port tells hang-up for as long as the host's end is closed, and that end may
        // open again: only what is new matters.
        self.readiness.readable |= !flags.is_empty();
        self.readiness.writable |= flags.contains(EventFlags::OUT);
    }

    pub(crate) fn is_readable(&self) -> bool {
        self.readiness.readable
    }

    /// Reads what has come, a turn at most.
    pub(crate) fn read(&mut self) -> Input {
        let mut taken = 0;
        let mut failed = None;
        while self.readiness.readable && taken < limits::TURN_BYTES {
            match rustix::io::read(&self.device, self.scratch.as_mut_slice()) {
                Ok(0) => return self.closed(),
                Ok(count) if self.deaf => taken += count,
                Ok(count) => {
                    taken += count;
                    self.ended = false;
                    failed = self.mux.receive(&self.scratch[..count]).err();
                    if failed.is_some() {
                        break;
                    }
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => self.readiness.readable = false,
                Err(_) => return self.closed(),
            }
        }
        if let Some(error) = failed {
            log::warn(format_args!(
                "channel: {error}; waiting for the host to open it anew"
            ));
            self.renew();
            self.deaf = true;
            return Input::Closed;
        }
        self.events()
    }

    /// All events so far. Those before a new epoch are about streams that are gone, and whose
    /// numbers may have a new meaning: they are dropped.
    fn events(&mut self) -> Input {
        let mut events = Vec::new();
        let mut restarted = false;
        while let Some(event) = self.mux.event() {
            if let MuxEvent::Epoch { .. } = event {
                events.clear();
                restarted = true;
            } else {
                events.push(event);
            }
        }
        Input::Events { restarted, events }
    }

    fn closed(&mut self) -> Input {
        self.readiness.readable = false;
        self.deaf = false;
        self.ended = true;
        self.renew();
        Input::Closed
    }

    /// Forgets everything but the epoch: frames of the past stay stale.
    fn renew(&mut self) {
        self.mux = Mux::new(Role::Guest, self.mux.epoch());
        self.out.clear();
    }

    pub(crate) fn accept(&mut self, id: StreamId) {
        self.mux.accept(id);
    }

    pub(crate) fn refuse(&mut self, id: StreamId) {
        self.mux.refuse(id);
    }

    pub(crate) fn consumed(&mut self, id: StreamId, bytes: usize) {
        self.mux.consumed(id, bytes);
    }

    /// Moves what the stream has credit for.
    pub(crate) fn send(&mut self, id: StreamId, from: &mut Outbox) {
        if !from.is_empty() {
            let count = self.mux.send(id, from.as_slice());
            from.consume(count);
        }
    }

    /// Ends a stream behind what is queued. A peer that may still send is told that nobody hears it.
    pub(crate) fn close(&mut self, id: StreamId, peer_ended: bool) {
        if peer_ended {
            self.mux.finish(id);
        } else {
            self.mux.close(id);
        }
    }

    pub(crate) fn reset(&mut self, id: StreamId) {
        self.mux.reset(id);
    }

    /// Writes what is queued, as far as the device takes it.
    pub(crate) fn flush(&mut self, poller: &Poller) -> Result<(), Errno> {
        while self.readiness.writable {
            if self.out.is_empty()
                && !self
                    .mux
                    .take_output(self.out.buffer(), limits::CHANNEL_WRITE_BYTES)
            {
                break;
            }
            match self.out.write_to(&self.device) {
                Ok(all) => self.readiness.writable = all,
                Err(_) => self.renew(),
            }
        }
        poller.watch_writable(&self.device, self.token, &mut self.readiness)
    }

    /// Whether all that was said has left, and no frame has come in part.
    pub(crate) fn is_quiet(&self) -> bool {
        self.out.is_empty() && self.mux.is_quiet()
    }
}
