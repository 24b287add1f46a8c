//! Waiting for many descriptors at once.
//!
//! Edge-triggered throughout: a source that the agent does not want to read now (back-pressure), or
//! a channel whose host end is closed, costs nothing until its state changes. Each owner keeps what
//! it was told in a [`Readiness`] and clears it when the descriptor says that it would block.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::Errno;

/// Names a source; chosen by who adds it.
pub(crate) type Token = u64;

/// What a source is known to be ready for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Readiness {
    /// A read may give something.
    pub(crate) readable: bool,
    /// A write may take something. Starts true: the first write finds out.
    pub(crate) writable: bool,
    /// The peer sends no more; reads must go on until they say so.
    pub(crate) ending: bool,
    /// The peer is gone, both ways.
    pub(crate) hung_up: bool,
    /// The poller has been asked to tell when writes are possible again.
    armed: bool,
}

impl Default for Readiness {
    fn default() -> Self {
        Self {
            readable: false,
            writable: true,
            ending: false,
            hung_up: false,
            armed: false,
        }
    }
}

impl Readiness {
    /// That of a source that may have had input before it was watched.
    pub(crate) fn of_new_source() -> Self {
        Self {
            readable: true,
            ..Self::default()
        }
    }

    /// Adds what the poller has seen.
    pub(crate) fn note(&mut self, flags: EventFlags) {
        let failed = flags.contains(EventFlags::ERR);
        self.hung_up |= flags.contains(EventFlags::HUP) || failed;
        self.ending |= self.hung_up || flags.contains(EventFlags::RDHUP);
        self.readable |= self.ending || flags.contains(EventFlags::IN);
        self.writable |= failed || flags.contains(EventFlags::OUT);
    }

    /// A read gave `count` of `wanted` bytes: after a short one a stream is empty until the next
    /// event, unless its end is near.
    pub(crate) fn read(&mut self, count: usize, wanted: usize) {
        if count < wanted && !self.ending {
            self.readable = false;
        }
    }
}

/// An epoll instance.
#[derive(Debug)]
pub(crate) struct Poller {
    epoll: OwnedFd,
}

impl Poller {
    pub(crate) fn new() -> Result<Self, Errno> {
        Ok(Self {
            epoll: epoll::create(CreateFlags::CLOEXEC)?,
        })
    }

    /// Watches for input, the end of input and hang-up. A descriptor leaves when it is closed.
    pub(crate) fn add(&self, source: impl AsFd, token: Token) -> Result<(), Errno> {
        epoll::add(&self.epoll, source, EventData::new_u64(token), INPUT)
    }

    /// Also watches for room to write once a write has been refused, and no longer than needed:
    /// else every read of a peer would wake the agent.
    pub(crate) fn watch_writable(
        &self,
        source: impl AsFd,
        token: Token,
        readiness: &mut Readiness,
    ) -> Result<(), Errno> {
        let wanted = !readiness.writable;
        if wanted != readiness.armed {
            let flags = if wanted {
                INPUT | EventFlags::OUT
            } else {
                INPUT
            };
            epoll::modify(&self.epoll, source, EventData::new_u64(token), flags)?;
            readiness.armed = wanted;
        }
        Ok(())
    }

    /// Waits for events, at most `timeout`; forever without one.
    pub(crate) fn wait(
        &self,
        events: &mut Vec<(Token, EventFlags)>,
        timeout: Option<Duration>,
    ) -> Result<(), Errno> {
        let mut room = [Event {
            flags: EventFlags::empty(),
            data: EventData::new_u64(0),
        }; 32];
        let timeout = timeout.map(|timeout| Timespec {
            tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(timeout.subsec_nanos()),
        });
        events.clear();
        match epoll::wait(&self.epoll, &mut room, timeout.as_ref()) {
            Ok(count) => {
                events.extend(
                    room[..count]
                        .iter()
                        .map(|event| (event.data.u64(), event.flags)),
                );
                Ok(())
            }
            Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

const INPUT: EventFlags = EventFlags::IN
    .union(EventFlags::RDHUP)
    .union(EventFlags::ET);
