//! A program's input and output as frames.

use std::os::fd::{AsFd as _, BorrowedFd};

use rustix::event::PollFlags;
use rustix::process::Signal;
use vmrepl_wire::exec::ExecInput;
use vmrepl_wire::files::{FilesReply, Tag, encode};

use super::connection::Connection;
use crate::client::hears_nothing;
use crate::exec::{Face, Hangup, Input, Stream};
use crate::limits;
use crate::outbox::Outbox;

/// A connection while its program runs; it does not block then.
#[derive(Debug)]
pub(super) struct Frames<'a> {
    connection: &'a mut Connection,
    out: Outbox,
    /// Frames of input come; without them whatever comes is left where it is.
    has_input: bool,
    /// The peer sends no more; what it has sent may not be taken yet.
    will_end: bool,
    /// All that it has sent was taken.
    has_ended: bool,
    /// The program is a compiler: the input that comes is for the next one.
    holds_input: bool,
    held: Held,
}

/// Input that waits for its program.
#[derive(Debug, Default)]
struct Held {
    bytes: Outbox,
    has_ended: bool,
}

impl<'a> Frames<'a> {
    pub(super) fn new(connection: &'a mut Connection, has_input: bool) -> Result<Self, Hangup> {
        rustix::io::ioctl_fionbio(connection.as_fd(), true).map_err(|_| Hangup)?;
        Ok(Self {
            connection,
            out: Outbox::default(),
            has_input,
            will_end: false,
            has_ended: false,
            holds_input: false,
            held: Held::default(),
        })
    }

    /// From here on a compiler runs: it says all on standard error, and input waits.
    pub(super) fn hold_input(&mut self) {
        self.holds_input = true;
    }

    /// From here on its program runs.
    pub(super) fn release_input(&mut self) {
        self.holds_input = false;
    }

    /// Says the last word, behind all output.
    pub(super) fn end(mut self, reply: &FilesReply) -> Result<(), Hangup> {
        self.connection.push_reply(reply, self.out.buffer());
        rustix::io::ioctl_fionbio(self.connection.as_fd(), false).map_err(|_| Hangup)?;
        let written = self.out.write_to(self.connection.as_fd());
        written.map(drop).map_err(|_| Hangup)
    }

    /// Takes the frames that have come. A frame that has no place here ends the conversation.
    fn hear(&mut self, input: &mut Input) -> Result<(), Hangup> {
        while let Some(frame) = self.connection.taken()? {
            match frame.tag {
                Tag::Stdin if self.holds_input && !self.held.has_ended => {
                    self.held.bytes.push(frame.payload);
                }
                Tag::Stdin if !input.has_ended => input.bytes.push(frame.payload),
                Tag::End if self.holds_input => self.held.has_ended = true,
                Tag::End => input.has_ended = true,
                Tag::Control => match serde_json::from_slice(frame.payload) {
                    Ok(ExecInput::Resize(size)) => input.window = Some(size),
                    Ok(ExecInput::Signal { number }) => {
                        // One that Linux does not know does nothing, as with `kill`.
                        input.signals.extend(Signal::from_named_raw(number));
                    }
                    Err(_) => return Err(Hangup),
                },
                _ => return Err(Hangup),
            }
        }
        Ok(())
    }
}

impl Face for Frames<'_> {
    fn socket(&self) -> BorrowedFd<'_> {
        self.connection.as_fd()
    }

    fn wants(&self, takes_input: bool) -> PollFlags {
        let mut wants = PollFlags::empty();
        wants.set(PollFlags::OUT, !self.out.is_empty());
        wants.set(PollFlags::RDHUP, !self.will_end);
        let may_come = self.has_input && !self.has_ended;
        let has_room = self.held.bytes.len() < limits::EXEC_INPUT_BYTES;
        wants.set(PollFlags::IN, may_come && takes_input && has_room);
        wants
    }

    fn attend(&mut self, ready: PollFlags, input: &mut Input) -> Result<(), Hangup> {
        let socket = self.connection.as_fd();
        self.out.write_to(socket).map_err(|_| Hangup)?;
        if ready.intersects(PollFlags::HUP | PollFlags::ERR) {
            return Err(Hangup);
        }
        self.will_end |= ready.contains(PollFlags::RDHUP);
        if self.will_end && hears_nothing(socket) {
            return Err(Hangup);
        }
        if !self.holds_input && (self.held.has_ended || !self.held.bytes.is_empty()) {
            let held = std::mem::take(&mut self.held);
            input.bytes.push(held.bytes.as_slice());
            input.has_ended |= held.has_ended;
        }
        if self.has_input {
            if ready.contains(PollFlags::IN) && !self.connection.receive()? {
                // The end of what is sent is the end of the input, as in a pipe.
                (self.will_end, self.has_ended) = (true, true);
                if self.holds_input {
                    self.held.has_ended = true;
                } else {
                    input.has_ended = true;
                }
            }
            self.hear(input)?;
        }
        Ok(())
    }

    fn is_full(&self) -> bool {
        self.out.len() > limits::EXEC_OUTPUT_BYTES
    }

    fn take(&mut self, from: Stream, bytes: &[u8]) -> Result<(), Hangup> {
        let tag = match from {
            Stream::Output if !self.holds_input => Tag::Stdout,
            Stream::Output | Stream::Error => Tag::Stderr,
        };
        // A read is far below a frame's limit.
        encode(tag, bytes, self.out.buffer()).ok();
        Ok(())
    }
}
