//! A program's input from a request, and its output for the result.

use std::os::fd::BorrowedFd;

use rustix::event::PollFlags;
use vmrepl_wire::limits::LANGUAGES_OUTPUT_BYTES;

use crate::client::hears_nothing;
use crate::exec::{Face, Hangup, Input, Stream};
use crate::limits;

/// What a program gets and says.
#[derive(Debug)]
pub(super) struct Kept<'a> {
    peer: BorrowedFd<'a>,
    input: Option<&'a [u8]>,
    /// The peer sends no more, but it listens.
    will_end: bool,
    pub(super) stdout: Vec<u8>,
    pub(super) stderr: Vec<u8>,
    written: usize,
    /// Which of both are not whole.
    pub(super) cut: (bool, bool),
    /// It wrote more than anybody may, and was not listened to any more.
    pub(super) flooded: bool,
}

impl<'a> Kept<'a> {
    pub(super) fn new(peer: BorrowedFd<'a>, input: &'a [u8]) -> Self {
        Self {
            peer,
            input: Some(input),
            will_end: false,
            stdout: Vec::new(),
            stderr: Vec::new(),
            written: 0,
            cut: (false, false),
            flooded: false,
        }
    }
}

impl Face for Kept<'_> {
    fn socket(&self) -> BorrowedFd<'_> {
        self.peer
    }

    fn wants(&self, _: bool) -> PollFlags {
        if self.will_end {
            PollFlags::empty()
        } else {
            PollFlags::RDHUP
        }
    }

    fn attend(&mut self, ready: PollFlags, input: &mut Input) -> Result<(), Hangup> {
        if let Some(bytes) = self.input.take() {
            input.bytes.push(bytes);
            input.has_ended = true;
        }
        if ready.intersects(PollFlags::HUP | PollFlags::ERR) {
            return Err(Hangup);
        }
        self.will_end |= ready.contains(PollFlags::RDHUP);
        if self.will_end && hears_nothing(self.peer) {
            return Err(Hangup);
        }
        Ok(())
    }

    fn is_full(&self) -> bool {
        false
    }

    fn take(&mut self, from: Stream, bytes: &[u8]) -> Result<(), Hangup> {
        let (kept, cut) = match from {
            Stream::Output => (&mut self.stdout, &mut self.cut.0),
            Stream::Error => (&mut self.stderr, &mut self.cut.1),
        };
        let room = LANGUAGES_OUTPUT_BYTES - kept.len();
        kept.extend_from_slice(&bytes[..bytes.len().min(room)]);
        *cut |= bytes.len() > room;
        self.written += bytes.len();
        if self.written > limits::LANGUAGES_WRITTEN_BYTES {
            self.flooded = true;
            return Err(Hangup);
        }
        Ok(())
    }
}
